// The route of embeddings, in OpenAI's form.
#include <boost/json.hpp>
#include <mutex>
#include <utility>

#include "base/text.h"
#include "memory/model/text_embedder.h"
#include "service/server/api_call.h"

namespace longhold {

namespace json = boost::json;

namespace {

constexpr size_t kTextsMax = 256;

// Little-endian, as OpenAI's clients read them.
std::string_view Bytes(std::span<const float> elements) {
  return {reinterpret_cast<const char*>(elements.data()), elements.size_bytes()};
}

struct EmbeddingRequest {
  std::string model;
  std::vector<std::string> texts;
  bool base64 = false;
};

Result<EmbeddingRequest> ParseEmbedding(std::string_view body, uint32_t dim) {
  EmbeddingRequest request;
  LH_ASSIGN_OR_RETURN(const json::object object, ParseJsonObject(body));
  LH_ASSIGN_OR_RETURN(request.model, StringField(object, "model"));
  LH_ASSIGN_OR_RETURN(const std::string format, StringField(object, "encoding_format"));
  if (!format.empty() && format != "float" && format != "base64")
    return BadField("encoding_format", "must be float or base64");
  request.base64 = format == "base64";
  LH_ASSIGN_OR_RETURN(const int64_t dimensions,
                      IntegerField(object, "dimensions", 1, INT32_MAX, dim));
  if (dimensions != dim)
    return BadField("dimensions",
                    "must be " + std::to_string(dim) + ", the dimension of the model");
  const json::value* const input = FindField(object, "input");
  if (input == nullptr) return BadField("input", "is missing");
  const json::array one{*input};
  const json::array& all = input->is_array() ? input->get_array() : one;
  if (all.empty() || all.size() > kTextsMax)
    return BadField("input", "must have 1 to " + std::to_string(kTextsMax) + " texts");
  for (const json::value& text : all) {
    if (!text.is_string() || text.get_string().empty())
      return BadField(
          "input",
          "must be a non-empty text, or an array of such texts; token ids are not supported");
    request.texts.emplace_back(text.get_string());
  }
  return request;
}

}  // namespace

void Api::Embeddings(Call& call) {
  if (options_.embedder == nullptr) {
    return call.Fail(
        NotFound("this server has no embedding model; start it with --embedder minilm-l6"));
  }
  Result<EmbeddingRequest> parsed = ParseEmbedding(call.request.body, options_.embedder->dim());
  if (!parsed.ok()) return call.Fail(parsed.status());
  if (parsed->model != options_.embedder_name) {
    return call.Fail(NotFound("model '" + parsed->model +
                              "' is not the embedding model of this server, which is '" +
                              options_.embedder_name + "'"));
  }
  OnJob(call, [this, exchange = call.exchange, limits = call.client.limits,
               request = std::move(*parsed)] {
    const std::vector<std::string_view> texts(request.texts.begin(), request.texts.end());
    const std::lock_guard lock(embedder_mutex_);
    TextEmbedder& embedder = *options_.embedder;
    const uint64_t before = embedder.token_count();
    const Result<std::vector<float>> rows = embedder.EmbedAll(texts);
    if (!rows.ok()) return exchange->Respond(ErrorReply(Redact(rows.status())));
    const uint64_t tokens = embedder.token_count() - before;
    json::array data;
    for (size_t i = 0; i < texts.size(); ++i) {
      const std::span<const float> row =
          std::span(*rows).subspan(i * embedder.dim(), embedder.dim());
      json::value embedding = request.base64 ? json::value(json::string(Base64(Bytes(row))))
                                             : json::value(json::array(row.begin(), row.end()));
      data.push_back(
          json::object{{"object", "embedding"}, {"index", i}, {"embedding", std::move(embedding)}});
    }
    Spend(limits, tokens);
    exchange->Respond(JsonReply(DumpJson(json::object{
        {"object", "list"},
        {"data", std::move(data)},
        {"model", JsonString(request.model)},
        {"usage", json::object{{"prompt_tokens", tokens}, {"total_tokens", tokens}}}})));
  });
}

}  // namespace longhold
