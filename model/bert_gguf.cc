#include "model/bert_gguf.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "ggml.h"
#include "gguf.h"

namespace longhold {
namespace {

namespace json = boost::json;

constexpr uint64_t kSourceBytesMax = 1ull << 30;  // read into memory as a whole
constexpr uint64_t kHeaderBytesMax = 16ull << 20;
constexpr uint32_t kLayersMax = 64;

using Shape = std::vector<int64_t>;  // slowest dimension first, as in safetensors

struct Tensor {
  Shape shape;
  std::string_view bytes;  // float32, little-endian, not aligned
};

// The parsed source. The views point into `content`.
struct Source {
  std::string content;
  std::map<std::string, Tensor, std::less<>> tensors;
  std::vector<std::string_view> vocabulary;
};

Result<std::string> ReadWhole(const std::string& path) {
  std::error_code ec;
  if (!std::filesystem::exists(path, ec)) return NotFound("convert " + path + ": no such file");
  const uint64_t size = std::filesystem::file_size(path, ec);
  std::ifstream file(path, std::ios::binary);
  if (ec || !file)
    return InvalidArgument("convert " + path + ": cannot be read; check its permissions");
  if (size > kSourceBytesMax) return ResourceExhausted("convert " + path + ": larger than 1 GiB");
  std::string content(size, '\0');
  file.read(content.data(), static_cast<std::streamsize>(size));
  if (static_cast<uint64_t>(file.gcount()) != size)
    return DataLoss("convert " + path + ": ends early; fetch it again");
  return content;
}

// Parses the entry of one tensor. Its offsets are relative to the start of `data`.
Result<Tensor> ParseTensor(std::string_view name, const json::value& entry, std::string_view data) {
  const Status odd = InvalidArgument("tensor " + std::string(name) +
                                     ": its entry has no dtype, shape and data_offsets");
  const json::object* object = entry.if_object();
  if (object == nullptr) return odd;
  const json::value *dtype = object->if_contains("dtype"), *shape = object->if_contains("shape"),
                    *offsets = object->if_contains("data_offsets");
  if (dtype == nullptr || !dtype->is_string() || shape == nullptr || !shape->is_array() ||
      offsets == nullptr || !offsets->is_array() || offsets->get_array().size() != 2) {
    return odd;
  }
  Tensor tensor;
  // For other types, only the position is checked.
  uint64_t bytes = dtype->get_string() == "F32" ? sizeof(float) : 0;
  for (const json::value& size : shape->get_array()) {
    boost::system::error_code ec;
    const auto n = size.to_number<int64_t>(ec);
    if (ec || n <= 0 || n > static_cast<int64_t>(kSourceBytesMax)) return odd;
    tensor.shape.push_back(n);
    bytes = std::min(bytes * static_cast<uint64_t>(n), kSourceBytesMax + 1);
  }
  boost::system::error_code ec_begin, ec_end;
  const auto begin = offsets->get_array()[0].to_number<uint64_t>(ec_begin);
  const auto end = offsets->get_array()[1].to_number<uint64_t>(ec_end);
  if (ec_begin || ec_end) return odd;
  if (begin > end || end > data.size() || (bytes > 0 && end - begin != bytes)) {
    return DataLoss("tensor " + std::string(name) +
                    ": lies beyond the end of the file, or its size does not match its shape");
  }
  if (bytes > 0)
    tensor.bytes = data.substr(begin, end - begin);
  else
    tensor.shape.clear();
  return tensor;
}

std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

// Parses safetensors: the length of the header in 8 bytes, the header (JSON), the tensors. In our
// files, the vocabulary follows.
Status Parse(Source* source) {
  const std::string_view all = source->content;
  uint64_t header_bytes = 0;  // little-endian, as on every machine that we build for
  if (all.size() < sizeof(header_bytes))
    return InvalidArgument("not a safetensors file: shorter than its header");
  std::memcpy(&header_bytes, all.data(), sizeof(header_bytes));
  if (header_bytes > kHeaderBytesMax || header_bytes > all.size() - sizeof(header_bytes)) {
    return InvalidArgument("not a safetensors file: its header would have " +
                           std::to_string(header_bytes) + " bytes");
  }
  boost::system::error_code ec;
  const json::value header = json::parse(all.substr(sizeof(header_bytes), header_bytes), ec);
  if (ec || !header.is_object())
    return InvalidArgument("not a safetensors file: its header is not a JSON object");
  const std::string_view data = all.substr(sizeof(header_bytes) + header_bytes);
  uint64_t data_end = 0;
  for (const auto& [key, entry] : header.get_object()) {
    const std::string name(key.data(), key.size());
    if (name == "__metadata__") continue;
    LH_ASSIGN_OR_RETURN(const Tensor tensor, ParseTensor(name, entry, data));
    source->tensors[name] = tensor;
    boost::system::error_code end_ec;
    data_end =
        std::max(data_end, entry.at("data_offsets").as_array()[1].to_number<uint64_t>(end_ec));
  }
  source->vocabulary = Lines(data.substr(data_end));
  return OkStatus();
}

// Writes GGUF metadata and tensors. GGUF only points to the converted data, which lives as long
// as this object.
class Writer {
 public:
  Writer()
      : gguf_(gguf_init_empty()),
        tensors_(ggml_init({kTensorsMax * ggml_tensor_overhead(), nullptr, /*no_alloc=*/true})) {}
  gguf_context* meta() { return gguf_.get(); }

  // Adds the source tensor `name_from`, which must have `shape`, as `name_to`.
  Status Add(const Source& source, const std::string& name_from, const std::string& name_to,
             const Shape& shape, ggml_type type) {
    const auto found = source.tensors.find(name_from);
    if (found == source.tensors.end()) return DataLoss("tensor " + name_from + " is missing");
    const Tensor& tensor = found->second;
    if (tensor.shape.empty()) return Unimplemented("tensor " + name_from + " is not float32");
    if (tensor.shape != shape)
      return DataLoss("tensor " + name_from + " has another shape than the other tensors imply");
    const size_t count = tensor.bytes.size() / sizeof(float);
    ggml_tensor* out = shape.size() == 1
                           ? ggml_new_tensor_1d(tensors_.get(), type, shape[0])
                           : ggml_new_tensor_2d(tensors_.get(), type, shape[1], shape[0]);
    ggml_set_name(out, name_to.c_str());
    std::vector<float> values(count);
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
    std::vector<char>& bytes = data_.emplace_back(ggml_nbytes(out));
    if (type == GGML_TYPE_F16) {
      ggml_fp32_to_fp16_row(values.data(), reinterpret_cast<ggml_fp16_t*>(bytes.data()),
                            static_cast<int64_t>(count));
    } else {
      std::memcpy(bytes.data(), values.data(), bytes.size());
    }
    out->data = bytes.data();
    gguf_add_tensor(gguf_.get(), out);
    return OkStatus();
  }

  Status Write(const std::string& path) {
    const std::string partial = path + ".partial";
    std::error_code ec;
    if (!gguf_write_to_file(gguf_.get(), partial.c_str(), /*only_meta=*/false)) {
      std::filesystem::remove(partial, ec);
      return ResourceExhausted("write " + partial +
                               ": failed; the disk may be full or the folder read-only");
    }
    std::filesystem::rename(partial, path, ec);
    return ec ? InvalidArgument("rename " + partial + ": " + ec.message()) : OkStatus();
  }

 private:
  static constexpr size_t kTensorsMax = 16 * (kLayersMax + 1);
  struct Free {
    void operator()(gguf_context* c) const { gguf_free(c); }
    void operator()(ggml_context* c) const { ggml_free(c); }
  };
  std::unique_ptr<gguf_context, Free> gguf_;
  std::unique_ptr<ggml_context, Free> tensors_;
  std::deque<std::vector<char>> data_;
};

struct Geometry {
  uint32_t layers = 0, width = 0, feed_forward = 0, positions = 0, token_types = 0, vocabulary = 0;
};

constexpr char kWords[] = "embeddings.word_embeddings.weight";
constexpr char kPositions[] = "embeddings.position_embeddings.weight";
constexpr char kTokenTypes[] = "embeddings.token_type_embeddings.weight";

std::string LayerName(uint32_t layer) { return "encoder.layer." + std::to_string(layer) + "."; }

Result<Geometry> ReadGeometry(const Source& source, uint32_t heads) {
  const auto shape = [&](const std::string& name) -> Shape {
    const auto found = source.tensors.find(name);
    return found == source.tensors.end() || found->second.shape.size() != 2 ? Shape{0, 0}
                                                                            : found->second.shape;
  };
  Geometry g;
  g.vocabulary = static_cast<uint32_t>(shape(kWords)[0]);
  g.width = static_cast<uint32_t>(shape(kWords)[1]);
  g.positions = static_cast<uint32_t>(shape(kPositions)[0]);
  g.token_types = static_cast<uint32_t>(shape(kTokenTypes)[0]);
  g.feed_forward = static_cast<uint32_t>(shape(LayerName(0) + "intermediate.dense.weight")[0]);
  while (g.layers <= kLayersMax &&
         source.tensors.contains(LayerName(g.layers) + "intermediate.dense.weight"))
    ++g.layers;
  if (g.vocabulary == 0 || g.positions == 0 || g.token_types == 0 || g.feed_forward == 0) {
    return DataLoss("no BERT encoder in float32: embeddings or the first layer are missing");
  }
  if (g.layers > kLayersMax)
    return Unimplemented("more than " + std::to_string(kLayersMax) + " layers");
  if (heads == 0 || g.width % heads != 0) {
    return InvalidArgument("a width of " + std::to_string(g.width) + " does not divide into " +
                           std::to_string(heads) + " heads");
  }
  if (source.vocabulary.size() != g.vocabulary) {
    return DataLoss("the vocabulary has " + std::to_string(source.vocabulary.size()) +
                    " tokens, the model " + std::to_string(g.vocabulary));
  }
  return g;
}

void AddMetadata(const BertConversion& c, const Geometry& g, gguf_context* meta) {
  gguf_set_val_str(meta, "general.architecture", "bert");
  gguf_set_val_str(meta, "general.name", c.name.c_str());
  if (!c.licence.empty()) gguf_set_val_str(meta, "general.license", c.licence.c_str());
  gguf_set_val_u32(meta, "general.file_type", 1);  // mostly float16
  gguf_set_val_u32(meta, "bert.block_count", g.layers);
  gguf_set_val_u32(meta, "bert.context_length", g.positions);
  gguf_set_val_u32(meta, "bert.embedding_length", g.width);
  gguf_set_val_u32(meta, "bert.feed_forward_length", g.feed_forward);
  gguf_set_val_u32(meta, "bert.attention.head_count", c.heads);
  gguf_set_val_f32(meta, "bert.attention.layer_norm_epsilon", c.norm_epsilon);
  gguf_set_val_bool(meta, "bert.attention.causal", false);
  gguf_set_val_u32(meta, "bert.pooling_type", 1);  // the mean over the tokens
  gguf_set_val_u32(meta, "tokenizer.ggml.token_type_count", g.token_types);
}

Status AddVocabulary(const Source& source, gguf_context* meta) {
  struct Special {
    std::string_view token;
    const char* key;
  };
  static constexpr Special kSpecials[] = {{"[PAD]", "tokenizer.ggml.padding_token_id"},
                                          {"[UNK]", "tokenizer.ggml.unknown_token_id"},
                                          {"[CLS]", "tokenizer.ggml.cls_token_id"},
                                          // The format spells it this way.
                                          {"[SEP]", "tokenizer.ggml.seperator_token_id"},
                                          {"[MASK]", "tokenizer.ggml.mask_token_id"}};
  constexpr int32_t kNormal = 1, kControl = 3;
  std::vector<std::string> tokens;
  std::vector<int32_t> types(source.vocabulary.size(), kNormal);
  size_t specials = 0;
  for (size_t id = 0; id < source.vocabulary.size(); ++id) {
    const std::string_view token = source.vocabulary[id];
    const Special* special = std::find_if(std::begin(kSpecials), std::end(kSpecials),
                                          [&](const Special& s) { return s.token == token; });
    if (special != std::end(kSpecials)) {
      types[id] = kControl;
      tokens.emplace_back(token);
      gguf_set_val_u32(meta, special->key, static_cast<uint32_t>(id));
      if (token == "[CLS]")
        gguf_set_val_u32(meta, "tokenizer.ggml.bos_token_id", static_cast<uint32_t>(id));
      ++specials;
    } else {
      tokens.push_back(token.starts_with("##") ? std::string(token.substr(2))
                                               : "\u2581" + std::string(token));
    }
  }
  if (specials != std::size(kSpecials)) {
    return DataLoss(
        "the vocabulary lacks one of [PAD], [UNK], [CLS], [SEP], [MASK] or has it twice");
  }
  std::vector<const char*> pointers;
  for (const std::string& token : tokens) pointers.push_back(token.c_str());
  gguf_set_val_str(meta, "tokenizer.ggml.model", "bert");
  gguf_set_arr_str(meta, "tokenizer.ggml.tokens", pointers.data(), pointers.size());
  gguf_set_arr_data(meta, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types.data(), types.size());
  return OkStatus();
}

Status AddTensors(const Source& source, const Geometry& g, Writer* writer) {
  const int64_t width = g.width, ff = g.feed_forward;
  const auto bias = [&](const std::string& from, const std::string& to, int64_t size) -> Status {
    return writer->Add(source, from + ".bias", to + ".bias", {size}, GGML_TYPE_F32);
  };
  const auto norm = [&](const std::string& from, const std::string& to) -> Status {
    LH_RETURN_IF_ERROR(
        writer->Add(source, from + ".weight", to + ".weight", {width}, GGML_TYPE_F32));
    return bias(from, to, width);
  };
  const auto linear = [&](const std::string& from, const std::string& to, int64_t out,
                          int64_t in) -> Status {
    LH_RETURN_IF_ERROR(
        writer->Add(source, from + ".weight", to + ".weight", {out, in}, GGML_TYPE_F16));
    return bias(from, to, out);
  };
  LH_RETURN_IF_ERROR(
      writer->Add(source, kWords, "token_embd.weight", {g.vocabulary, width}, GGML_TYPE_F16));
  LH_RETURN_IF_ERROR(
      writer->Add(source, kPositions, "position_embd.weight", {g.positions, width}, GGML_TYPE_F32));
  LH_RETURN_IF_ERROR(writer->Add(source, kTokenTypes, "token_types.weight", {g.token_types, width},
                                 GGML_TYPE_F32));
  LH_RETURN_IF_ERROR(norm("embeddings.LayerNorm", "token_embd_norm"));
  for (uint32_t layer = 0; layer < g.layers; ++layer) {
    const std::string from = LayerName(layer), to = "blk." + std::to_string(layer) + ".";
    LH_RETURN_IF_ERROR(linear(from + "attention.self.query", to + "attn_q", width, width));
    LH_RETURN_IF_ERROR(linear(from + "attention.self.key", to + "attn_k", width, width));
    LH_RETURN_IF_ERROR(linear(from + "attention.self.value", to + "attn_v", width, width));
    LH_RETURN_IF_ERROR(linear(from + "attention.output.dense", to + "attn_output", width, width));
    LH_RETURN_IF_ERROR(norm(from + "attention.output.LayerNorm", to + "attn_output_norm"));
    LH_RETURN_IF_ERROR(linear(from + "intermediate.dense", to + "ffn_up", ff, width));
    LH_RETURN_IF_ERROR(linear(from + "output.dense", to + "ffn_down", width, ff));
    LH_RETURN_IF_ERROR(norm(from + "output.LayerNorm", to + "layer_output_norm"));
  }
  return OkStatus();
}

Status ConvertContent(const BertConversion& conversion, Source* source) {
  LH_RETURN_IF_ERROR(Parse(source));
  LH_ASSIGN_OR_RETURN(const Geometry geometry, ReadGeometry(*source, conversion.heads));
  Writer writer;
  AddMetadata(conversion, geometry, writer.meta());
  LH_RETURN_IF_ERROR(AddVocabulary(*source, writer.meta()));
  LH_RETURN_IF_ERROR(AddTensors(*source, geometry, &writer));
  return writer.Write(conversion.to);
}

}  // namespace

Status ConvertBert(const BertConversion& conversion) {
  Source source;
  LH_ASSIGN_OR_RETURN(source.content, ReadWhole(conversion.from));
  const Status status = ConvertContent(conversion, &source);
  return status.ok()
             ? status
             : Status(status.code(), "convert " + conversion.from + ": " + status.message());
}

}  // namespace longhold
