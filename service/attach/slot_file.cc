#include "service/attach/slot_file.h"

#include <bit>
#include <cstring>
#include <utility>

#include "base/half.h"

namespace longhold {
namespace {

static_assert(std::endian::native == std::endian::little);  // the file is little-endian

constexpr uint32_t kMagic = 0x67677371;  // "ggsq"
constexpr uint32_t kVersionMin = 3, kVersionMax = 4;
// Of a packed token list: a token that there is not, then the version of the list.
constexpr TokenId kPackedMark = -1;
constexpr uint32_t kPackedVersion = 1;
constexpr uint32_t kLayersMax = 4096, kStreamsMax = 4096, kWidthMax = 1u << 20;

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  size_t left() const { return bytes_.size() - at_; }

  template <typename T>
  Result<T> Read() {
    T value{};
    LH_RETURN_IF_ERROR(ReadInto(&value, sizeof(T)));
    return value;
  }
  // Checks the size before anything is allocated.
  Result<std::string_view> Take(uint64_t size) {
    if (size > left())
      return DataLoss("slot file: ends at byte " + std::to_string(bytes_.size()) + ", and " +
                      std::to_string(size) + " bytes are missing from byte " + std::to_string(at_));
    const std::string_view part = bytes_.substr(at_, size);
    at_ += size;
    return part;
  }

 private:
  Status ReadInto(void* out, size_t size) {
    LH_ASSIGN_OR_RETURN(const std::string_view part, Take(size));
    std::memcpy(out, part.data(), size);
    return OkStatus();
  }
  std::string_view bytes_;
  size_t at_ = 0;
};

Status Bad(const std::string& why) { return DataLoss("slot file: " + why); }

// A count, checked against a limit that no real file reaches.
Result<uint32_t> ReadCount(Reader& in, uint32_t max, const char* what) {
  LH_ASSIGN_OR_RETURN(const uint32_t count, in.Read<uint32_t>());
  if (count == 0 || count > max) return Bad(std::to_string(count) + " " + what);
  return count;
}

Result<std::vector<TokenId>> ReadTokenArray(Reader& in, uint64_t count) {
  LH_ASSIGN_OR_RETURN(const std::string_view bytes, in.Take(count * sizeof(TokenId)));
  std::vector<TokenId> tokens(count);
  std::memcpy(tokens.data(), bytes.data(), bytes.size());
  return tokens;
}

Status ReadTokens(Reader& in, SlotState* state) {
  LH_ASSIGN_OR_RETURN(const uint32_t count, in.Read<uint32_t>());
  LH_ASSIGN_OR_RETURN(state->tokens, ReadTokenArray(in, count));
  state->layout.packed_tokens = count > 0 && state->tokens.front() == kPackedMark;
  if (!state->layout.packed_tokens) return OkStatus();
  const std::vector<TokenId> list = std::move(state->tokens);
  Reader packed({reinterpret_cast<const char*>(list.data()), list.size() * sizeof(TokenId)});
  LH_RETURN_IF_ERROR(packed.Read<TokenId>().status());
  LH_ASSIGN_OR_RETURN(const uint32_t version, packed.Read<uint32_t>());
  if (version != kPackedVersion) {
    return Unimplemented("slot file: its token list has version " + std::to_string(version) +
                         ", and longhold knows " + std::to_string(kPackedVersion) +
                         "; use an older llama.cpp, or a newer longhold");
  }
  LH_ASSIGN_OR_RETURN(const uint32_t tokens, packed.Read<uint32_t>());
  LH_ASSIGN_OR_RETURN(state->tokens, ReadTokenArray(packed, tokens));
  LH_ASSIGN_OR_RETURN(const uint32_t media, packed.Read<uint32_t>());
  if (media != 0) return Bad("holds images or audio");
  return OkStatus();
}

Result<SlotType> ReadType(Reader& in, const char* what, const char* flag) {
  LH_ASSIGN_OR_RETURN(const int32_t type, in.Read<int32_t>());
  const auto known = static_cast<SlotType>(type);
  if (known == SlotType::kFp16 || known == SlotType::kFp32) return known;
  return Unimplemented("the server keeps " + std::string(what) + " in ggml type " +
                       std::to_string(type) +
                       ", and longhold writes f16 and f32; start the server with " + flag + " f16");
}

size_t SizeOf(SlotType type) { return type == SlotType::kFp16 ? 2 : 4; }

// Converts the elements of `bytes`.
void Decode(std::string_view bytes, SlotType type, std::vector<float>* out) {
  const size_t count = bytes.size() / SizeOf(type);
  out->resize(count);
  for (size_t i = 0; i < count; ++i) {
    if (type == SlotType::kFp32) {
      std::memcpy(&(*out)[i], bytes.data() + i * 4, 4);
    } else {
      uint16_t half;
      std::memcpy(&half, bytes.data() + i * 2, 2);
      (*out)[i] = FromHalf(half);
    }
  }
}

// All layers must have the type and the width of the first: longhold serves only such models.
template <typename T>
Status SameAs(T* first, T here, uint32_t layer, const char* what) {
  if (layer == 0) *first = here;
  if (*first == here) return OkStatus();
  return Unimplemented("the server's cache has layers of different " + std::string(what) +
                       ", which longhold does not support");
}

// Rows of keys, or of values that are not transposed.
Status ReadRows(Reader& in, uint32_t layer, uint32_t cells, bool keys, SlotState* state) {
  SlotLayout& layout = state->layout;
  LH_ASSIGN_OR_RETURN(const SlotType type, keys ? ReadType(in, "keys", "--cache-type-k")
                                                : ReadType(in, "values", "--cache-type-v"));
  LH_RETURN_IF_ERROR(
      SameAs(keys ? &layout.key_type : &layout.value_type, type, layer, "element types"));
  LH_ASSIGN_OR_RETURN(const uint64_t row_bytes, in.Read<uint64_t>());
  const uint64_t width = row_bytes / SizeOf(type);
  if (width == 0 || width > kWidthMax || row_bytes % SizeOf(type) != 0)
    return Bad("layer " + std::to_string(layer) + " has rows of " + std::to_string(row_bytes) +
               " bytes");
  LH_RETURN_IF_ERROR(
      SameAs(&layout.kv_width, static_cast<uint32_t>(width), keys ? layer : 1, "widths"));
  LH_ASSIGN_OR_RETURN(const std::string_view bytes, in.Take(cells * row_bytes));
  Decode(bytes, type, &(keys ? state->keys : state->values).emplace_back());
  return OkStatus();
}

// Values as columns: all cells of the first element, then those of the next.
Status ReadColumns(Reader& in, uint32_t layer, uint32_t cells, SlotState* state) {
  SlotLayout& layout = state->layout;
  LH_ASSIGN_OR_RETURN(const SlotType type, ReadType(in, "values", "--cache-type-v"));
  LH_RETURN_IF_ERROR(SameAs(&layout.value_type, type, layer, "element types"));
  LH_ASSIGN_OR_RETURN(const uint32_t element_bytes, in.Read<uint32_t>());
  if (element_bytes != SizeOf(type)) return Bad("elements of another size than their type");
  LH_ASSIGN_OR_RETURN(const uint32_t width, in.Read<uint32_t>());
  LH_RETURN_IF_ERROR(SameAs(&layout.kv_width, width, 1, "widths"));
  LH_ASSIGN_OR_RETURN(const std::string_view bytes,
                      in.Take(uint64_t{cells} * width * element_bytes));
  std::vector<float> columns;
  Decode(bytes, type, &columns);
  std::vector<float>& rows = state->values.emplace_back(columns.size());
  for (size_t c = 0; c < width; ++c) {
    for (size_t cell = 0; cell < cells; ++cell) rows[cell * width + c] = columns[c * cells + cell];
  }
  return OkStatus();
}

Status ReadCells(Reader& in, uint32_t cells, SlotState* state) {
  // position, number of sequences, sequence
  LH_ASSIGN_OR_RETURN(const std::string_view bytes, in.Take(uint64_t{cells} * 12));
  for (uint32_t i = 0; i < cells; ++i) {
    int32_t position;
    uint32_t sequences;
    std::memcpy(&position, bytes.data() + size_t{i} * 12, 4);
    std::memcpy(&sequences, bytes.data() + size_t{i} * 12 + 4, 4);
    if (sequences != 1) {
      return Unimplemented(
          "the server's cache keeps more about each cell than its position, as models that read "
          "images do; longhold does not support such models");
    }
    state->positions.push_back(position);
  }
  return OkStatus();
}

template <typename T>
void Append(std::string* out, T value) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void AppendTokens(std::string* out, bool packed, std::span<const TokenId> tokens) {
  const auto count = static_cast<uint32_t>(tokens.size());
  Append<uint32_t>(out, count + (packed ? 4 : 0));
  if (packed) {
    Append<TokenId>(out, kPackedMark);
    Append<uint32_t>(out, kPackedVersion);
    Append<uint32_t>(out, count);
  }
  out->append(reinterpret_cast<const char*>(tokens.data()), tokens.size_bytes());
  if (packed) Append<uint32_t>(out, 0);  // images and audio
}

void AppendElements(std::string* out, SlotType type, std::span<const uint16_t> elements) {
  if (type == SlotType::kFp16) {
    out->append(reinterpret_cast<const char*>(elements.data()), elements.size_bytes());
  } else {
    for (const uint16_t half : elements) Append<float>(out, FromHalf(half));
  }
}

void AppendRowHeader(std::string* out, SlotType type, uint32_t width) {
  Append<int32_t>(out, static_cast<int32_t>(type));
  Append<uint64_t>(out, uint64_t{width} * SizeOf(type));
}

void AppendValues(std::string* out, const SlotLayout& layout, std::span<const uint16_t> values) {
  const size_t width = layout.kv_width, tokens = values.size() / width;
  if (!layout.values_transposed) {
    AppendRowHeader(out, layout.value_type, layout.kv_width);
    AppendElements(out, layout.value_type, values);
    return;
  }
  Append<int32_t>(out, static_cast<int32_t>(layout.value_type));
  Append<uint32_t>(out, static_cast<uint32_t>(SizeOf(layout.value_type)));
  Append<uint32_t>(out, layout.kv_width);
  std::vector<uint16_t> column(tokens);
  for (size_t c = 0; c < width; ++c) {
    for (size_t t = 0; t < tokens; ++t) column[t] = values[t * width + c];
    AppendElements(out, layout.value_type, column);
  }
}

}  // namespace

Result<SlotState> ParseSlotFile(std::string_view bytes) {
  Reader in(bytes);
  SlotState state;
  SlotLayout& layout = state.layout;
  LH_ASSIGN_OR_RETURN(const uint32_t magic, in.Read<uint32_t>());
  if (magic != kMagic) return Bad("does not begin with the magic number of slot files");
  LH_ASSIGN_OR_RETURN(layout.version, in.Read<uint32_t>());
  if (layout.version < kVersionMin || layout.version > kVersionMax) {
    return Unimplemented("the server writes slot files of version " +
                         std::to_string(layout.version) + ", and longhold knows versions " +
                         std::to_string(kVersionMin) + " and " + std::to_string(kVersionMax) +
                         "; use another version of llama.cpp, or a newer longhold");
  }
  LH_RETURN_IF_ERROR(ReadTokens(in, &state));
  LH_ASSIGN_OR_RETURN(layout.streams, ReadCount(in, kStreamsMax, "streams"));
  uint32_t filled = 0;
  for (uint32_t stream = 0; stream < layout.streams; ++stream) {
    LH_ASSIGN_OR_RETURN(const uint32_t cells, in.Read<uint32_t>());
    if (cells == 0) continue;
    if (++filled > 1) return Bad("has more than one sequence");
    LH_RETURN_IF_ERROR(ReadCells(in, cells, &state));
    LH_ASSIGN_OR_RETURN(const uint32_t transposed, in.Read<uint32_t>());
    if (transposed > 1) return Bad("a flag is " + std::to_string(transposed));
    layout.values_transposed = transposed == 1;
    LH_ASSIGN_OR_RETURN(layout.layers, ReadCount(in, kLayersMax, "layers"));
    if (layout.version >= 4) {
      LH_ASSIGN_OR_RETURN(const uint32_t rotated_keys, in.Read<uint32_t>());
      LH_ASSIGN_OR_RETURN(const uint32_t rotated_values, in.Read<uint32_t>());
      if (rotated_keys != 0 || rotated_values != 0) {
        return Unimplemented(
            "the server rotates its quantised keys or values; start it with --cache-type-k f16 "
            "--cache-type-v f16");
      }
    }
    for (uint32_t layer = 0; layer < layout.layers; ++layer)
      LH_RETURN_IF_ERROR(ReadRows(in, layer, cells, true, &state));
    for (uint32_t layer = 0; layer < layout.layers; ++layer) {
      LH_RETURN_IF_ERROR(layout.values_transposed ? ReadColumns(in, layer, cells, &state)
                                                  : ReadRows(in, layer, cells, false, &state));
    }
  }
  if (filled == 0) return Bad("has no cells");
  if (in.left() > 0) {
    return Unimplemented("the server's slot files go on for " + std::to_string(in.left()) +
                         " bytes after the last layer: it keeps more than one cache, as for "
                         "sliding windows or recurrent layers, which longhold does not support");
  }
  return state;
}

uint64_t SlotFileBytes(const SlotLayout& layout, uint64_t tokens) {
  return 64 + 4 * layout.streams + 16 * tokens +
         layout.layers * (24 + tokens * layout.kv_width *
                                   (SizeOf(layout.key_type) + SizeOf(layout.value_type)));
}

std::string ComposeSlotFile(const SlotLayout& layout, uint32_t slot, const SlotPrefix& prefix) {
  const auto tokens = static_cast<uint32_t>(prefix.tokens.size());
  LH_CHECK(tokens > 0);
  std::string out;
  out.reserve(SlotFileBytes(layout, tokens));
  Append(&out, kMagic);
  Append(&out, layout.version);
  AppendTokens(&out, layout.packed_tokens, prefix.tokens);
  Append(&out, layout.streams);
  // A server puts the cells into the slot's own stream, whichever they stand in.
  const uint32_t stream = slot < layout.streams ? slot : 0;
  for (uint32_t s = 0; s < stream; ++s) Append<uint32_t>(&out, 0);
  Append(&out, tokens);
  for (uint32_t t = 0; t < tokens; ++t) {
    Append<int32_t>(&out, static_cast<int32_t>(t));
    Append<uint32_t>(&out, 1);
    Append<int32_t>(&out, static_cast<int32_t>(slot));
  }
  Append<uint32_t>(&out, layout.values_transposed ? 1 : 0);
  Append(&out, layout.layers);
  if (layout.version >= 4) {
    Append<uint32_t>(&out, 0);
    Append<uint32_t>(&out, 0);
  }
  const size_t elements = size_t{tokens} * layout.kv_width;
  // All keys come before all values, so the values wait.
  std::vector<uint16_t> keys(elements), values(elements * layout.layers);
  for (uint32_t layer = 0; layer < layout.layers; ++layer) {
    prefix.copy(layer, keys.data(), values.data() + layer * elements);
    AppendRowHeader(&out, layout.key_type, layout.kv_width);
    AppendElements(&out, layout.key_type, keys);
  }
  for (uint32_t layer = 0; layer < layout.layers; ++layer)
    AppendValues(&out, layout, std::span(values).subspan(layer * elements, elements));
  for (uint32_t s = stream + 1; s < layout.streams; ++s) Append<uint32_t>(&out, 0);
  return out;
}

}  // namespace longhold
