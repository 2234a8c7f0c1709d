#include "model/gguf_check.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <map>
#include <optional>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "base/file_descriptor.h"
#include "base/text.h"

namespace longhold {
namespace {

// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Integers are little-endian, as on
// every machine that we build for.
static_assert(std::endian::native == std::endian::little);

enum ValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
  kTypeCount
};
// Bytes of one value; 0 for types without a fixed size.
constexpr size_t kTypeBytes[kTypeCount] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
constexpr uint32_t kVersionMin = 2, kVersionMax = 3;
constexpr uint64_t kKeysMax = 1u << 16, kTensorsMax = 1u << 20, kKeyBytesMax = 1u << 16;
constexpr uint32_t kDimsMax = 4;
constexpr size_t kNameBytesMax = 63;

// libllama asserts these limits.
constexpr uint64_t kLayersMax = 512, kExpertsMax = 1024;
// Far above every existing model. Small enough that a product of three fits 64 bits.
constexpr uint64_t kWidthMax = 1u << 20, kHeadsMax = 1u << 12, kHeadDimMax = 1u << 12,
                   kTokensMax = 1u << 24, kPositionsMax = 1u << 30;
// A layer with a sliding window allocates a cache of twice this many tokens at once.
constexpr uint64_t kWindowMax = 1u << 18;

struct Array {
  uint32_t type = 0;
  std::vector<std::string_view> strings;  // elements if `type` is kString
  std::string_view numbers;               // bytes of the elements of other types
  uint64_t count = 0;
};
using Value = std::variant<std::monostate, int64_t, double, std::string_view, Array>;

struct Tensor {
  std::vector<uint64_t> shape;  // fastest dimension first
  uint32_t type = 0;
};

struct Header {
  std::map<std::string_view, Value> metadata;
  std::map<std::string_view, Tensor> tensors;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  template <typename T>
  std::optional<T> Take() {
    if (rest_.size() < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_.remove_prefix(sizeof value);
    return value;
  }
  std::optional<std::string_view> TakeBytes(uint64_t count) {
    if (count > rest_.size()) return std::nullopt;
    const std::string_view bytes = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return bytes;
  }
  std::optional<std::string_view> TakeString(uint64_t bytes_max) {
    const std::optional<uint64_t> length = Take<uint64_t>();
    return length.has_value() && *length <= bytes_max ? TakeBytes(*length) : std::nullopt;
  }
  size_t left() const { return rest_.size(); }

 private:
  std::string_view rest_;
};

template <typename T>
T NumberAt(std::string_view bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

// Converts a number of any type. Integers above int64 become its maximum.
Value NumberOf(uint32_t type, std::string_view bytes) {
  switch (type) {
    case kU8:
    case kBool: return int64_t{NumberAt<uint8_t>(bytes, 0)};
    case kI8: return int64_t{NumberAt<int8_t>(bytes, 0)};
    case kU16: return int64_t{NumberAt<uint16_t>(bytes, 0)};
    case kI16: return int64_t{NumberAt<int16_t>(bytes, 0)};
    case kU32: return int64_t{NumberAt<uint32_t>(bytes, 0)};
    case kI32: return int64_t{NumberAt<int32_t>(bytes, 0)};
    case kU64:
      return static_cast<int64_t>(std::min<uint64_t>(NumberAt<uint64_t>(bytes, 0), INT64_MAX));
    case kI64: return NumberAt<int64_t>(bytes, 0);
    case kF32: return double{NumberAt<float>(bytes, 0)};
    case kF64: return NumberAt<double>(bytes, 0);
    default: return {};
  }
}

std::optional<Value> TakeArray(Reader* in) {
  const auto type = in->Take<uint32_t>();
  const auto count = in->Take<uint64_t>();
  if (!type.has_value() || !count.has_value() || *type >= kTypeCount || *type == kArray)
    return std::nullopt;
  Array array{.type = *type, .strings = {}, .numbers = {}, .count = *count};
  if (*type != kString) {
    if (*count > in->left() / kTypeBytes[*type]) return std::nullopt;
    array.numbers = *in->TakeBytes(*count * kTypeBytes[*type]);
    return array;
  }
  // each string has a length of 8 bytes
  if (*count > in->left() / sizeof(uint64_t)) return std::nullopt;
  array.strings.reserve(*count);
  for (uint64_t i = 0; i < *count; ++i) {
    const auto text = in->TakeString(in->left());
    if (!text.has_value()) return std::nullopt;
    array.strings.push_back(*text);
  }
  return array;
}

std::optional<Value> TakeValue(Reader* in) {
  const auto type = in->Take<uint32_t>();
  if (!type.has_value() || *type >= kTypeCount) return std::nullopt;
  if (*type == kArray) return TakeArray(in);
  if (*type == kString) {
    const auto text = in->TakeString(in->left());
    return text.has_value() ? std::optional<Value>(*text) : std::nullopt;
  }
  const auto bytes = in->TakeBytes(kTypeBytes[*type]);
  return bytes.has_value() ? std::optional<Value>(NumberOf(*type, *bytes)) : std::nullopt;
}

// Reads everything before the tensor data. The error says what is wrong.
Result<Header> ReadHeader(std::string_view bytes) {
  Reader in(bytes);
  const auto cut = [](const std::string& what) {
    return InvalidArgument("its header is damaged or truncated (" + what + ")");
  };
  if (in.TakeBytes(4) != "GGUF")
    return InvalidArgument("not a GGUF file; convert it with llama.cpp first");
  const auto version = in.Take<uint32_t>();
  const auto tensors = in.Take<uint64_t>(), keys = in.Take<uint64_t>();
  if (!keys.has_value()) return cut("its counts");
  if (*version < kVersionMin || *version > kVersionMax)
    return InvalidArgument("it cannot be loaded: GGUF version " + std::to_string(*version) +
                           " is not supported");
  if (*keys > kKeysMax || *tensors > kTensorsMax)
    return cut(std::to_string(*keys) + " keys, " + std::to_string(*tensors) + " tensors");
  Header header;
  for (uint64_t i = 0; i < *keys; ++i) {
    const auto key = in.TakeString(kKeyBytesMax);
    auto value = key.has_value() ? TakeValue(&in) : std::nullopt;
    if (!value.has_value()) return cut("key " + std::to_string(i));
    if (!header.metadata.emplace(*key, std::move(*value)).second)
      return cut("key " + std::to_string(i) + " appears twice");
  }
  for (uint64_t i = 0; i < *tensors; ++i) {
    const auto name = in.TakeString(kNameBytesMax);
    const auto dims = name.has_value() ? in.Take<uint32_t>() : std::nullopt;
    if (!dims.has_value() || *dims > kDimsMax) return cut("tensor " + std::to_string(i));
    Tensor tensor;
    for (uint32_t d = 0; d < *dims; ++d) {
      const auto size = in.Take<uint64_t>();
      if (!size.has_value() || *size == 0 || *size > (uint64_t{1} << 40))
        return cut("the shape of tensor " + std::to_string(i));
      tensor.shape.push_back(*size);
    }
    const auto type = in.Take<uint32_t>();
    if (!type.has_value() || !in.Take<uint64_t>().has_value())
      return cut("tensor " + std::to_string(i));
    tensor.type = *type;
    if (!header.tensors.emplace(*name, std::move(tensor)).second)
      return cut("tensor " + std::to_string(i) + " appears twice");
  }
  return header;
}

// A name from the file, made printable for a message: it may contain any bytes.
std::string Shown(std::string_view name) {
  std::string shown(name.substr(0, 100));
  std::replace_if(
      shown.begin(), shown.end(), [](char c) { return c < 0x20 || c > 0x7e; }, '?');
  return shown;
}

// Checks the metadata that libllama's assertions are about. A key that is missing or has another
// type is left to libllama, which refuses it with its name.
class Metadata {
 public:
  explicit Metadata(const Header& header) : header_(header) {
    if (const auto* name = Find<std::string_view>("general.architecture")) architecture_ = *name;
  }

  // Empty unless it is a plain word, as every real architecture's name is.
  std::string architecture() const {
    const bool word = architecture_.size() <= kNameBytesMax &&
                      std::all_of(architecture_.begin(), architecture_.end(), IsNameByte);
    return word ? architecture_ : "";
  }

  Status Check() {
    CheckCounts();
    CheckExperts();
    CheckFloats();
    CheckRopeScaling();
    CheckVocabulary();
    CheckTensorTypes();
    return status_;
  }

 private:
  template <typename T>
  const T* Find(std::string_view key) const {
    const auto found = header_.metadata.find(key);
    return found == header_.metadata.end() ? nullptr : std::get_if<T>(&found->second);
  }
  std::string Own(std::string_view key) const { return architecture_ + "." + std::string(key); }
  void Bad(const std::string& key, const std::string& why) {
    if (status_.ok()) status_ = InvalidArgument(key + " " + why);
  }

  // The integers under a key: one, those of an array, or none.
  std::vector<int64_t> Elements(const std::string& key) const {
    if (const auto* one = Find<int64_t>(key)) return {*one};
    std::vector<int64_t> all;
    const auto* array = Find<Array>(key);
    if (array == nullptr || array->type == kString) return all;
    const size_t bytes = kTypeBytes[array->type];
    for (uint64_t i = 0; i < std::min(array->count, kLayersMax + 1); ++i) {
      const Value value = NumberOf(array->type, array->numbers.substr(i * bytes, bytes));
      if (const auto* number = std::get_if<int64_t>(&value)) all.push_back(*number);
    }
    return all;
  }
  std::optional<uint64_t> Number(const std::string& key) const {
    const auto* number = Find<int64_t>(key);
    return number == nullptr || *number < 0 ? std::nullopt : std::optional<uint64_t>(*number);
  }
  void Between(const std::string& key, uint64_t low, uint64_t high) {
    for (const int64_t number : Elements(key)) {
      if (number < 0 || static_cast<uint64_t>(number) < low ||
          static_cast<uint64_t>(number) > high) {
        return Bad(Shown(key), "is " + std::to_string(number) + ", not " + std::to_string(low) +
                                   " to " + std::to_string(high));
      }
    }
  }

  void CheckCounts() {
    Between(Own("block_count"), 1, kLayersMax);
    Between(Own("nextn_predict_layers"), 0, Number(Own("block_count")).value_or(0));
    Between(Own("context_length"), 1, kPositionsMax);
    Between(Own("rope.scaling.original_context_length"), 0, kPositionsMax);
    Between(Own("embedding_length"), 1, kWidthMax);
    Between(Own("embedding_length_out"), 0, kWidthMax);
    Between(Own("feed_forward_length"), 0, kTokensMax);
    // Layers without attention have 0 heads. If no layer has attention, the loader
    // refuses the model.
    Between(Own("attention.head_count"), 0, kHeadsMax);
    Between(Own("attention.head_count_kv"), 0, kHeadsMax);
    for (const char* key :
         {"attention.key_length", "attention.value_length", "attention.key_length_swa",
          "attention.value_length_swa", "rope.dimension_count", "rope.dimension_count_swa"}) {
      Between(Own(key), 1, kHeadDimMax);
    }
    Between(Own("attention.sliding_window"), 0, kWindowMax);
    // The pattern is either a number n (every nth layer has no window) or one flag per layer. A
    // pattern that makes all layers the same is invalid.
    const std::vector<int64_t> pattern = Elements(Own("attention.sliding_window_pattern"));
    const bool alike = pattern.size() == 1
                           ? pattern[0] < 2
                           : std::all_of(pattern.begin(), pattern.end(),
                                         [](int64_t window) { return window == 0; });
    if (!pattern.empty() && alike)
      Bad(Shown(Own("attention.sliding_window_pattern")), "makes all layers the same");
    Between(Own("vocab_size"), 1, kTokensMax);
    CheckHeads();
  }

  void CheckHeads() {
    const std::vector<int64_t> heads = Elements(Own("attention.head_count")),
                               kv_heads = Elements(Own("attention.head_count_kv"));
    if (heads.size() == 1 && kv_heads.size() == 1 && status_.ok() &&
        (kv_heads[0] == 0 ? heads[0] != 0 : heads[0] % kv_heads[0] != 0)) {
      Bad(Shown(Own("attention.head_count_kv")), "is " + std::to_string(kv_heads[0]) +
                                                     ", which does not divide " +
                                                     std::to_string(heads[0]) + " heads");
    }
    if (!status_.ok() || heads.empty() || heads[0] == 0) return;
    const uint64_t shared =
        Number(Own("embedding_length")).value_or(0) / static_cast<uint64_t>(heads[0]);
    for (const std::string swa : {"", "_swa"}) {
      const auto size = [&](const std::string& key) {
        return Number(Own(key + swa)).value_or(Number(Own(key)).value_or(shared));
      };
      const uint64_t head_dim = size("attention.key_length"),
                     value_dim = size("attention.value_length");
      if (head_dim != value_dim)
        return Bad(Shown(Own("attention.key_length" + swa)), "is " + std::to_string(head_dim) +
                                                                 ", but values have size " +
                                                                 std::to_string(value_dim));
      if (head_dim == 0)
        return Bad(Shown(Own("embedding_length")),
                   "is too small for " + std::to_string(heads[0]) + " heads");
      Between(Own("rope.dimension_count" + swa), 1, head_dim);
      // If the key is missing, the whole head is rotated, in pairs.
      if (Number(Own("rope.dimension_count" + swa)).value_or(head_dim) % 2 != 0)
        Bad(Shown(Own("rope.dimension_count" + swa)), "is odd");
    }
  }

  void CheckExperts() {
    const uint64_t experts = Number(Own("expert_count")).value_or(0),
                   groups = Number(Own("expert_group_count")).value_or(0);
    Between(Own("expert_count"), 0, kExpertsMax);
    Between(Own("expert_used_count"), experts == 0 ? 0 : 1, experts);
    if (experts > 0 && Elements(Own("expert_used_count")).empty())
      Bad(Shown(Own("expert_used_count")), "is missing");
    Between(Own("expert_group_count"), 0, experts == 0 ? 0 : experts - 1);
    if (groups <= 1 || !status_.ok()) return;
    if (experts % groups != 0)
      Bad(Shown(Own("expert_group_count")),
          "does not divide " + std::to_string(experts) + " experts");
    const uint64_t used = Number(Own("expert_group_used_count")).value_or(0);
    if (used == 0 || used >= groups)
      Bad(Shown(Own("expert_group_used_count")), "is not 1 to " + std::to_string(groups - 1));
  }

  void CheckFloats() {
    for (const auto& [key, value] : header_.metadata) {
      const auto* number = std::get_if<double>(&value);
      if (number == nullptr) continue;
      if (!std::isfinite(*number)) Bad(Shown(key), "is not a finite number");
      if (key.ends_with("_epsilon") && *number < 0) Bad(Shown(key), "is negative");
      if (key.ends_with(".freq_base") && *number <= 0) Bad(Shown(key), "is not above 0");
    }
  }

  void CheckRopeScaling() {
    const auto* type = Find<std::string_view>(Own("rope.scaling.type"));
    if (type != nullptr && *type != "none" && *type != "linear" && *type != "yarn" &&
        *type != "longrope") {
      Bad(Shown(Own("rope.scaling.type")), "must be one of none, linear, yarn, longrope");
    }
  }

  void CheckVocabulary() {
    const char* const kTokens = "tokenizer.ggml.tokens";
    const auto* tokens = Find<Array>(kTokens);
    if (tokens == nullptr || tokens->type != kString) return;
    if (tokens->count == 0 || tokens->count > kTokensMax)
      return Bad(kTokens, "has " + std::to_string(tokens->count) + " tokens");
    std::unordered_set<std::string_view> seen(tokens->count);
    for (uint64_t i = 0; i < tokens->count; ++i) {
      // libllama gives an empty token a name of its own.
      if (!tokens->strings[i].empty() && !seen.insert(tokens->strings[i]).second)
        return Bad(kTokens, "has token " + std::to_string(i) + " twice");
    }
    const auto embeddings = header_.tensors.find("token_embd.weight");
    if (embeddings != header_.tensors.end() &&
        (embeddings->second.shape.size() != 2 || embeddings->second.shape[1] != tokens->count)) {
      return Bad(kTokens, "has " + std::to_string(tokens->count) +
                              " tokens, but token_embd.weight has another number of rows");
    }
    CheckSpecialTokens(tokens->count);
    CheckTokenizer(seen);
  }

  // SentencePiece falls back to one token per byte, so all of these must exist.
  void CheckTokenizer(const std::unordered_set<std::string_view>& tokens) {
    const char* const kModel = "tokenizer.ggml.model";
    const auto* model = Find<std::string_view>(kModel);
    if (model == nullptr) return;
    static constexpr std::string_view kKnown[] = {"llama",  "gpt2", "bert",
                                                  "gemma4", "none", "no_vocab"};
    if (std::find(std::begin(kKnown), std::end(kKnown), *model) == std::end(kKnown))
      return Bad(kModel, "is " + Shown(*model) + ", which longhold does not support");
    if (*model != "llama") return;
    for (int byte = 0; byte < 256; ++byte) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", byte);
      const char plain = static_cast<char>(byte);
      if (!tokens.contains(name) && !tokens.contains(std::string_view(&plain, 1)))
        return Bad("tokenizer.ggml.tokens", std::string("lacks ") + name);
    }
  }

  // Some tokens have defaults, which libllama asserts to exist. It ignores ids that are
  // out of range.
  void CheckSpecialTokens(uint64_t tokens) {
    const auto* model = Find<std::string_view>("tokenizer.ggml.model");
    const auto needs = [&](const std::string& key, uint64_t otherwise) {
      if (Number(key).value_or(tokens) >= tokens && otherwise >= tokens) Bad(key, "names no token");
    };
    if (model != nullptr && *model == "gpt2") {
      needs("tokenizer.ggml.bos_token_id", 11);
      needs("tokenizer.ggml.eos_token_id", 11);
    } else if (model != nullptr && *model == "bert") {
      needs("tokenizer.ggml.bos_token_id", 101);
      needs("tokenizer.ggml.seperator_token_id", 102);  // the format spells it this way
    }
  }

  // Matrix products exist for weights in float and in quantised types only. Norms and biases are
  // float in every file.
  void CheckTensorTypes() {
    constexpr uint32_t kFloat = 0;
    // Types that cannot be weights: integers, doubles, and the types of a product's other operand.
    // They are Q8_1, Q8_K, I8 to I64, F64.
    static constexpr uint32_t kNoWeights[] = {9, 15, 24, 25, 26, 27, 28};
    for (const auto& [name, tensor] : header_.tensors) {
      const bool known = std::find(std::begin(kNoWeights), std::end(kNoWeights), tensor.type) ==
                         std::end(kNoWeights);
      if (!known || (tensor.shape.size() == 1 && tensor.type != kFloat))
        return Bad("tensor " + Shown(name),
                   "has type " + std::to_string(tensor.type) + ", which is invalid here");
    }
  }

  const Header& header_;
  std::string architecture_;
  Status status_;
};

// A file in memory; pages are read when they are accessed.
class MappedFile {
 public:
  MappedFile(int fd, size_t size)
      : size_(size), bytes_(mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0)) {}
  ~MappedFile() {
    if (ok()) (void)munmap(bytes_, size_);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  bool ok() const { return bytes_ != MAP_FAILED; }
  std::string_view bytes() const { return {static_cast<const char*>(bytes_), size_}; }

 private:
  size_t size_;
  void* bytes_;
};

}  // namespace

Result<std::string> CheckGguf(std::string_view bytes, const std::string& path) {
  const auto named = [&](const Status& status) {
    return Status(status.code(), "model " + path + ": " + status.message());
  };
  const Result<Header> header = ReadHeader(bytes);
  if (!header.ok()) return named(header.status());
  Metadata metadata(*header);
  const Status checked = metadata.Check();
  if (checked.ok()) return metadata.architecture();
  return named(InvalidArgument(
      checked.message() +
      "; the file is damaged or malicious: get it again from a source that you trust"));
}

Result<std::string> CheckGgufFile(const std::string& path) {
  // O_NONBLOCK: opening a FIFO would otherwise wait for a writer.
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0 && (errno == ENOENT || errno == ENOTDIR)) {
    return NotFound("model " + path +
                    ": no such file; 'longhold model list' shows what can be fetched");
  }
  struct stat info {};
  if (file.get() < 0 || fstat(file.get(), &info) != 0)
    return InvalidArgument("model " + path + ": cannot be read; check its permissions");
  if (S_ISDIR(info.st_mode))
    return InvalidArgument("model " + path + ": is a directory; name a GGUF file");
  if (!S_ISREG(info.st_mode))
    return InvalidArgument("model " + path + ": is not a regular file; name a GGUF file");
  if (info.st_size == 0) return CheckGguf({}, path);
  const MappedFile mapped(file.get(), static_cast<size_t>(info.st_size));
  if (!mapped.ok())
    return InvalidArgument("model " + path + ": cannot be read; check its file system");
  return CheckGguf(mapped.bytes(), path);
}

}  // namespace longhold
