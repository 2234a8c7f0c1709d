#include "service/attach/attach_request.h"

#include <boost/json.hpp>
#include <utility>

#include "service/common/json_text.h"

namespace longhold {
namespace {

namespace json = boost::json;

// Members that change how llama.cpp's server samples. It checks their values itself.
constexpr std::string_view kPassed[] = {"top_k",
                                        "min_p",
                                        "typical_p",
                                        "top_n_sigma",
                                        "repeat_penalty",
                                        "repeat_last_n",
                                        "presence_penalty",
                                        "frequency_penalty",
                                        "dry_multiplier",
                                        "dry_base",
                                        "dry_allowed_length",
                                        "dry_penalty_last_n",
                                        "dry_sequence_breakers",
                                        "xtc_probability",
                                        "xtc_threshold",
                                        "dynatemp_range",
                                        "dynatemp_exponent",
                                        "mirostat",
                                        "mirostat_tau",
                                        "mirostat_eta",
                                        "samplers",
                                        "min_keep",
                                        "logit_bias",
                                        "grammar",
                                        "json_schema",
                                        "ignore_eos"};
// Of them, those of OpenAI, which ParseCompletion refuses.
constexpr std::string_view kOnlyPassed[] = {"presence_penalty", "frequency_penalty", "logit_bias"};

Status Refuse(std::string_view member) {
  return BadField(member,
                  "needs the engine of longhold itself; remove it, or use 'longhold serve'");
}

}  // namespace

Result<AttachRequest> ParseAttachRequest(std::string_view body, bool chat) {
  LH_ASSIGN_OR_RETURN(json::object object, ParseJsonObject(body));
  AttachRequest request;
  json::object sampling;
  for (const std::string_view name : kPassed) {
    if (const json::value* value = FindField(object, name)) sampling[name] = *value;
  }
  for (const std::string_view name : kOnlyPassed) object.erase(name);
  LH_ASSIGN_OR_RETURN(request.completion, ParseCompletion(DumpJson(object), chat));
  const CompletionRequest& parsed = request.completion;
  if (parsed.likeliest.has_value()) return Refuse("logprobs");
  if (!parsed.session.empty()) return Refuse("session");
  if (parsed.timeout_s > 0) return Refuse("timeout");
  const auto* focused = std::get_if<FocusedOptions>(&parsed.attend);
  if (focused == nullptr) return Refuse("attend");
  if (focused->inline_citations) return Refuse("citations");
  sampling["temperature"] = parsed.sampler.temperature;
  sampling["top_p"] = parsed.sampler.top_p;
  sampling["seed"] = parsed.sampler.seed;
  if (!parsed.stop.empty()) sampling["stop"] = json::array(parsed.stop.begin(), parsed.stop.end());
  request.sampling = DumpJson(sampling);
  return request;
}

RecalledPromptOptions PromptOptions(const CompletionRequest& request, uint32_t context_tokens) {
  const FocusedOptions& focused = std::get<FocusedOptions>(request.attend);
  return {.system = request.system,
          .earlier = request.earlier,
          .recall = focused.recall,
          .reencode_tokens = focused.reencode_tokens,
          .answer_tokens_max = request.max_tokens,
          .context_tokens = context_tokens};
}

}  // namespace longhold
