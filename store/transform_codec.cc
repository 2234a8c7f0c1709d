#include "store/transform_codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <mutex>

#include "base/half.h"
#include "store/code_bytes.h"
#include "store/symbol_coder.h"

namespace longhold {
namespace {

// The parts of the payload, in this order. After them, each class has one part with its symbols.
enum Part : size_t { kRaw, kEscapes, kSymbols };
constexpr size_t kParts = kSymbols + TransformBasis::kClasses;
// A symbol is an integer number of steps in zigzag form. This symbol is an escape: the integer is
// in the part kEscapes.
constexpr uint8_t kEscape = 255;
constexpr float kHalfMax = 65504.0f;
// A float cannot hold all integers above this. A token with such a component is stored unchanged.
constexpr float kLargest = 0x1p23f;
// The largest mean squared error that a token may have, in steps squared.
constexpr double kErrorMax = 0.25;

// Address of a group's keys, or values, of token t in a block.
uint16_t* RowOf(KvBlock& block, const TransformBasis::Group& group, bool values, uint32_t t) {
  return (values ? block.Values(group.layer) : block.Keys(group.layer)) +
         size_t{t} * block.shape.kv_width + group.begin;
}
const uint16_t* RowOf(const KvBlock& block, const TransformBasis::Group& group, bool values,
                      uint32_t t) {
  return RowOf(const_cast<KvBlock&>(block), group, values, t);
}

class TransformBlockCodec final : public BlockCodec {
 public:
  TransformBlockCodec(std::string name, std::shared_ptr<const TransformBasis> basis,
                      MultiplyAdd multiply)
      : name_(std::move(name)), basis_(std::move(basis)), multiply_(multiply) {}
  std::string_view name() const override { return name_; }

 private:
  uint16_t id() const override { return kCodecTransform; }

  // The basis vectors as columns, for each group: [2 * channels, components]. Only an encoder needs
  // them, so they are computed on first use.
  const std::vector<std::vector<float>>& Columns() const {
    std::call_once(columns_once_, [this] {
      for (const TransformBasis::Group& group : basis_->groups()) {
        const size_t size = 2 * size_t{group.channels};
        std::vector<float>& columns = columns_.emplace_back(group.rows.size());
        for (size_t i = 0; i < group.components; ++i) {
          for (size_t c = 0; c < size; ++c)
            columns[c * group.components + i] = group.rows[i * size + c];
        }
      }
    });
    return columns_;
  }

  void AppendPayload(const KvBlock& block, std::string* out) const override {
    LH_CHECK(block.shape == basis_->shape());
    const uint32_t tokens = block.tokens;
    const auto groups = basis_->groups();
    const std::vector<std::vector<float>>& columns = Columns();
    std::array<std::vector<uint8_t>, TransformBasis::kClasses> symbols;
    std::array<std::string, kParts> parts;
    std::vector<float> x, y;
    for (size_t g = 0; g < groups.size(); ++g) {
      const TransformBasis::Group& group = groups[g];
      const uint32_t size = 2 * group.channels, components = group.components;
      x.resize(size_t{tokens} * size);
      std::vector<bool> raw(tokens);
      for (uint32_t t = 0; t < tokens; ++t) {
        float* row = x.data() + size_t{t} * size;
        for (uint32_t c = 0; c < size; ++c) {
          row[c] = (FromHalf(RowOf(block, group, c >= group.channels, t)[c % group.channels]) -
                    group.mean[c]) /
                   group.step[c];
          raw[t] = raw[t] || !std::isfinite(row[c]);
        }
        if (raw[t]) std::fill_n(row, size, 0.0f);
      }
      y.assign(size_t{tokens} * components, 0.0f);
      multiply_(x.data(), columns[g].data(), y.data(), tokens, size, components);
      for (uint32_t t = 0; t < tokens; ++t) {
        // The error has two parts: what lies outside the kept components, and what rounding
        // changes. The basis is orthonormal, so their squares add up.
        double all = 0, kept = 0, moved = 0;
        for (uint32_t c = 0; c < size; ++c)
          all += double{x[size_t{t} * size + c]} * x[size_t{t} * size + c];
        for (uint32_t i = 0; i < components; ++i) {
          float& v = y[size_t{t} * components + i];
          const float rounded = std::nearbyint(v);
          kept += double{v} * v;
          moved += double{v - rounded} * (v - rounded);
          raw[t] = raw[t] || !(std::abs(rounded) < kLargest);
          v = rounded;
        }
        raw[t] = raw[t] || !(all - kept + moved <= kErrorMax * size);
        if (!raw[t]) continue;
        AppendNumber(&parts[kRaw], static_cast<uint32_t>(g * kBlockTokens + t));
        for (const bool values : {false, true}) {
          parts[kRaw].append(reinterpret_cast<const char*>(RowOf(block, group, values, t)),
                             group.channels * sizeof(uint16_t));
        }
        std::fill_n(y.data() + size_t{t} * components, components, 0.0f);
      }
      for (uint32_t i = 0; i < components; ++i) {
        std::vector<uint8_t>& own = symbols[group.classes[i]];
        for (uint32_t t = 0; t < tokens; ++t) {
          const auto q = static_cast<int32_t>(y[size_t{t} * components + i]);
          const uint32_t symbol = ZigZag(q);
          if (symbol >= kEscape) AppendNumber(&parts[kEscapes], q);
          own.push_back(static_cast<uint8_t>(std::min<uint32_t>(symbol, kEscape)));
        }
      }
    }
    for (size_t c = 0; c < TransformBasis::kClasses; ++c)
      EncodeSymbols(symbols[c], &parts[kSymbols + c]);
    AppendNumber(out, basis_->id());
    for (const std::string& part : parts) AppendNumber(out, static_cast<uint32_t>(part.size()));
    for (const std::string& part : parts) *out += part;
  }

  Status ReadPayload(std::string_view payload, KvBlock* block) const override {
    const auto wrong = [](const char* what) {
      return DataLoss(std::string("decode block: ") + what);
    };
    const uint32_t tokens = block->tokens;
    const auto groups = basis_->groups();
    constexpr size_t kHead = sizeof(uint64_t) + kParts * sizeof(uint32_t);
    if (payload.size() < kHead) return wrong("the payload is truncated");
    uint64_t basis;
    std::memcpy(&basis, payload.data(), sizeof(basis));
    if (basis != basis_->id()) return wrong("encoded in another basis");
    std::array<std::string_view, kParts> parts;
    size_t at = kHead;
    for (size_t p = 0; p < kParts; ++p) {
      uint32_t bytes;
      std::memcpy(&bytes, payload.data() + sizeof(basis) + p * sizeof(bytes), sizeof(bytes));
      if (bytes > payload.size() - at) return wrong("a part is truncated");
      parts[p] = payload.substr(at, bytes);
      at += bytes;
    }
    if (at != payload.size()) return wrong("extra bytes after the last part");

    std::array<size_t, TransformBasis::kClasses> count{};
    for (const TransformBasis::Group& group : groups) {
      for (const uint8_t c : group.classes) count[c] += tokens;
    }
    std::array<std::vector<uint8_t>, TransformBasis::kClasses> symbols;
    std::array<const uint8_t*, TransformBasis::kClasses> next;
    for (size_t c = 0; c < TransformBasis::kClasses; ++c) {
      symbols[c].resize(count[c]);
      LH_RETURN_IF_ERROR(DecodeSymbols(parts[kSymbols + c], symbols[c]));
      next[c] = symbols[c].data();
    }
    std::string_view escapes = parts[kEscapes];
    std::vector<float> x, y;
    for (const TransformBasis::Group& group : groups) {
      const uint32_t size = 2 * group.channels, components = group.components;
      y.resize(size_t{tokens} * components);
      for (uint32_t i = 0; i < components; ++i) {
        const uint8_t* own = next[group.classes[i]];
        next[group.classes[i]] += tokens;
        for (uint32_t t = 0; t < tokens; ++t) {
          int32_t q = UnZigZag(own[t]);
          if (own[t] == kEscape) {
            if (escapes.size() < sizeof(q)) return wrong("too few escaped numbers");
            std::memcpy(&q, escapes.data(), sizeof(q));
            escapes.remove_prefix(sizeof(q));
          }
          y[size_t{t} * components + i] = static_cast<float>(q);
        }
      }
      x.assign(size_t{tokens} * size, 0.0f);
      multiply_(y.data(), group.rows.data(), x.data(), tokens, components, size);
      for (uint32_t t = 0; t < tokens; ++t) {
        const float* row = x.data() + size_t{t} * size;
        for (const bool values : {false, true}) {
          uint16_t* out = RowOf(*block, group, values, t);
          const uint32_t first = values ? group.channels : 0;
          for (uint32_t c = 0; c < group.channels; ++c) {
            out[c] =
                ToHalf(std::clamp(row[first + c] * group.step[first + c] + group.mean[first + c],
                                  -kHalfMax, kHalfMax));
          }
        }
      }
    }
    if (!escapes.empty()) return wrong("too many escaped numbers");
    return ReadRaw(parts[kRaw], block);
  }

  // Copies the tokens that were stored unchanged over what the symbols gave.
  Status ReadRaw(std::string_view raw, KvBlock* block) const {
    while (!raw.empty()) {
      uint32_t index;
      if (raw.size() < sizeof(index)) return DataLoss("decode block: a raw token is truncated");
      std::memcpy(&index, raw.data(), sizeof(index));
      raw.remove_prefix(sizeof(index));
      const uint32_t g = index / kBlockTokens, t = index % kBlockTokens;
      if (g >= basis_->groups().size() || t >= block->tokens)
        return DataLoss("decode block: a raw token has an invalid index");
      const TransformBasis::Group& group = basis_->groups()[g];
      const size_t bytes = group.channels * sizeof(uint16_t);
      if (raw.size() < 2 * bytes) return DataLoss("decode block: a raw token is truncated");
      for (const bool values : {false, true}) {
        std::memcpy(RowOf(*block, group, values, t), raw.data(), bytes);
        raw.remove_prefix(bytes);
      }
    }
    return OkStatus();
  }

  std::string name_;
  std::shared_ptr<const TransformBasis> basis_;
  MultiplyAdd multiply_;
  mutable std::once_flag columns_once_;
  mutable std::vector<std::vector<float>> columns_;
};

}  // namespace

std::unique_ptr<const BlockCodec> NewTransformCodec(std::string name,
                                                    std::shared_ptr<const TransformBasis> basis,
                                                    MultiplyAdd multiply) {
  return std::make_unique<TransformBlockCodec>(std::move(name), std::move(basis), multiply);
}

}  // namespace longhold
