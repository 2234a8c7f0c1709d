#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "store/block_codec.h"
#include "store/code_bytes.h"
#include "store/compress.h"

namespace longhold {
namespace {

constexpr uint16_t kCodecRounded = 2;
// Number of channels that share a step.
constexpr uint32_t kStepChannels = 64;
// A symbol is the distance of an element from its channel's mean, in steps. This symbol is an
// escape: the element is too far from the mean or not finite, and is stored unchanged.
constexpr int kEscape = -128;
// Channels whose symbols have a similar spread form a class. The symbols of a class are coded
// together, with one table of frequencies. With fewer symbols than kClassSymbolsMin, a separate
// table does not pay off.
constexpr size_t kClassesMax = 16;
constexpr size_t kClassSymbolsMin = 16384;
// A step is at least this share of the largest element, so that its multiples are exact in a float.
// It is also at least kStepMin, the smallest positive fp16.
constexpr float kStepShareMin = 0x1p-20f;
constexpr float kStepMin = 0x1p-24f;
constexpr float kHalfMax = 65504.0f;

// The parts of the payload, in this order. After them, each class has one part with its symbols.
enum Part : size_t { kSteps, kClasses, kMeanLow, kMeanHigh, kEscapes, kSymbols };
constexpr size_t kPartsMax = kSymbols + kClassesMax;

uint32_t Groups(const BlockShape& shape) {
  return (shape.kv_width + kStepChannels - 1) / kStepChannels;
}

// The keys or values of one layer in up to 64 channels: [tokens, channels].
class ChannelGroup {
 public:
  ChannelGroup(const uint16_t* rows, uint32_t tokens, uint32_t width, uint32_t begin)
      : tokens_(tokens), channels_(std::min(kStepChannels, width - begin)) {
    for (uint32_t t = 0; t < tokens; ++t) {
      for (uint32_t c = 0; c < channels_; ++c) {
        const float x = FromHalf(rows[size_t{t} * width + begin + c]);
        at(t, c) = std::isfinite(x) ? x : 0;
        largest_ = std::max(largest_, std::abs(at(t, c)));
      }
    }
    for (uint32_t c = 0; c < channels_; ++c) {
      float sum = 0;
      for (uint32_t t = 0; t < tokens; ++t) sum += at(t, c);
      mean_[c] = sum / static_cast<float>(tokens);
    }
  }

  uint32_t channels() const { return channels_; }
  float mean(uint32_t c) const { return mean_[c]; }
  float& at(uint32_t t, uint32_t c) { return x_[t * kStepChannels + c]; }

  // `share` times the deviation of the median token. A few tokens deviate ten times as much as the
  // others; the median keeps them from determining the step.
  float Step(float share) {
    std::array<float, kBlockTokens> deviation{};
    float all = 0;
    for (uint32_t t = 0; t < tokens_; ++t) {
      for (uint32_t c = 0; c < channels_; ++c)
        deviation[t] += (at(t, c) - mean_[c]) * (at(t, c) - mean_[c]);
      all += deviation[t] / static_cast<float>(tokens_);
    }
    std::nth_element(deviation.begin(), deviation.begin() + tokens_ / 2,
                     deviation.begin() + tokens_);
    const float typical = deviation[tokens_ / 2] > 0 ? deviation[tokens_ / 2] : all;
    return std::max({share * std::sqrt(typical / static_cast<float>(channels_)),
                     kStepShareMin * largest_, kStepMin});
  }

 private:
  uint32_t tokens_, channels_;
  float largest_ = 0;
  std::array<float, kBlockTokens * kStepChannels> x_;
  std::array<float, kStepChannels> mean_{};
};

// How widely a channel's symbols spread, in half octaves: the initial class of the channel.
uint8_t Spread(const int8_t* symbols, uint32_t tokens) {
  int64_t squares = 0;
  for (uint32_t t = 0; t < tokens; ++t) squares += int{symbols[t]} * symbols[t];
  const double rms = std::sqrt(static_cast<double>(squares) / tokens);
  return static_cast<uint8_t>(
      std::clamp<long>(rms > 0 ? std::lround(2 * std::log2(rms)) + 4 : 0, 0, kClassesMax - 1));
}

// Merges neighbouring classes until each has enough symbols. Returns the number of classes.
size_t MergeClasses(std::vector<uint8_t>* classes, uint32_t tokens) {
  std::array<size_t, kClassesMax> symbols{};
  for (const uint8_t c : *classes) symbols[c] += tokens;
  std::array<uint8_t, kClassesMax> merged{};
  size_t count = 0, pending = 0;
  for (size_t c = 0; c < kClassesMax; ++c) {
    merged[c] = static_cast<uint8_t>(count);
    pending += symbols[c];
    if (pending < kClassSymbolsMin) continue;
    ++count;
    pending = 0;
  }
  // the widest class has too few symbols: merge it into the one before it
  if (pending > 0 && count > 0) {
    for (uint8_t& m : merged) m = std::min<uint8_t>(m, static_cast<uint8_t>(count - 1));
  }
  for (uint8_t& c : *classes) c = merged[c];
  return std::max<size_t>(count, 1);
}

// out[i] = (mean + symbols[i]) * step, rounded to the nearest fp16 and limited to the largest
// finite fp16. Returns whether any symbol is the escape.
bool ToFp16(const int8_t* symbols, uint32_t count, float mean, float step, uint16_t* out) {
  bool escaped = false;
  for (uint32_t i = 0; i < count; ++i) {
    escaped |= symbols[i] == kEscape;
    out[i] =
        ToHalf(std::clamp((mean + static_cast<float>(symbols[i])) * step, -kHalfMax, kHalfMax));
  }
  return escaped;
}

Status PayloadError(const char* what) { return DataLoss(std::string("decode block: ") + what); }

// Decompresses the parts of a payload and checks that their sizes fit each other and the block.
// Returns their number.
Result<uint32_t> ReadParts(std::string_view payload, const KvBlock& block,
                           std::array<std::string, kPartsMax>* parts) {
  const uint32_t tokens = block.tokens;
  const size_t channels = size_t{block.shape.layers} * 2 * block.shape.kv_width;
  const size_t steps = size_t{block.shape.layers} * 2 * Groups(block.shape);
  uint32_t count = 0;
  if (payload.size() < sizeof(count)) return DataLoss("decode block: the payload is truncated");
  std::memcpy(&count, payload.data(), sizeof(count));
  if (count <= kSymbols || count > kPartsMax || payload.size() / sizeof(uint32_t) <= count) {
    return DataLoss("decode block: invalid part count " + std::to_string(count));
  }
  size_t at = sizeof(count) * (1 + size_t{count});
  const auto read = [&](size_t part, size_t limit) -> Status {
    uint32_t bytes;
    std::memcpy(&bytes, payload.data() + sizeof(count) * (1 + part), sizeof(bytes));
    if (bytes > payload.size() - at)
      return DataLoss("decode block: part " + std::to_string(part) + " is truncated");
    LH_ASSIGN_OR_RETURN((*parts)[part], Decompress(payload.substr(at, bytes), limit));
    at += bytes;
    if (part + 1 == count && at != payload.size())
      return DataLoss("decode block: extra bytes after the last part");
    return OkStatus();
  };

  LH_RETURN_IF_ERROR(read(kSteps, steps * sizeof(float)));
  LH_RETURN_IF_ERROR(read(kClasses, channels));
  LH_RETURN_IF_ERROR(read(kMeanLow, channels));
  LH_RETURN_IF_ERROR(read(kMeanHigh, 3 * channels));
  LH_RETURN_IF_ERROR(read(kEscapes, channels * tokens * sizeof(uint16_t)));
  if ((*parts)[kSteps].size() != steps * sizeof(float) || (*parts)[kClasses].size() != channels ||
      (*parts)[kMeanLow].size() != channels || (*parts)[kMeanHigh].size() != 3 * channels ||
      (*parts)[kEscapes].size() % sizeof(uint16_t) != 0) {
    return PayloadError("a part has the wrong size");
  }
  const auto* classes = reinterpret_cast<const uint8_t*>((*parts)[kClasses].data());
  std::array<size_t, kClassesMax> symbols{};
  for (size_t i = 0; i < channels; ++i) {
    if (kSymbols + classes[i] >= count) return PayloadError("a class has no symbols");
    symbols[classes[i]] += tokens;
  }
  for (size_t p = kSymbols; p < count; ++p) {
    LH_RETURN_IF_ERROR(read(p, symbols[p - kSymbols]));
    if ((*parts)[p].size() != symbols[p - kSymbols]) return PayloadError("wrong number of symbols");
  }
  return count;
}

class RoundedBlockCodec final : public BlockCodec {
 public:
  RoundedBlockCodec(std::string name, const RoundedCodecOptions& options)
      : name_(std::move(name)), options_(options) {}
  std::string_view name() const override { return name_; }

 private:
  uint16_t id() const override { return kCodecRounded; }

  void AppendPayload(const KvBlock& block, std::string* out) const override {
    const uint32_t width = block.shape.kv_width, tokens = block.tokens;
    const size_t channels = size_t{block.shape.layers} * 2 * width;
    std::vector<int8_t> symbols(channels * tokens);  // [layers, 2, kv_width, tokens]
    std::vector<uint8_t> classes(channels);
    std::vector<uint32_t> means(channels);
    std::vector<std::pair<size_t, uint16_t>> escapes;  // index in `symbols`, the original fp16
    std::array<std::string, kPartsMax> parts;
    for (uint32_t layer = 0; layer < block.shape.layers; ++layer) {
      for (const bool keys : {true, false}) {
        const uint16_t* rows = keys ? block.Keys(layer) : block.Values(layer);
        for (uint32_t begin = 0; begin < width; begin += kStepChannels) {
          ChannelGroup group(rows, tokens, width, begin);
          const float step = group.Step(keys ? options_.key_step : options_.value_step);
          AppendNumber(&parts[kSteps], step);
          for (uint32_t c = 0; c < group.channels(); ++c) {
            const size_t channel = (size_t{layer} * 2 + (keys ? 0 : 1)) * width + begin + c;
            const float mean = std::nearbyint(group.mean(c) / step);
            means[channel] = ZigZag(static_cast<int32_t>(mean));
            int8_t* own = symbols.data() + channel * tokens;
            for (uint32_t t = 0; t < tokens; ++t) {
              const uint16_t half = rows[size_t{t} * width + begin + c];
              const float q = std::nearbyint(group.at(t, c) / step) - mean;
              const bool fits = q > kEscape && q <= 127 && (half & 0x7C00) != 0x7C00;
              own[t] = static_cast<int8_t>(fits ? q : kEscape);
              if (!fits) escapes.emplace_back(channel * tokens + t, half);
            }
            classes[channel] = Spread(own, tokens);
          }
        }
      }
    }

    const size_t class_count = MergeClasses(&classes, tokens);
    parts[kClasses].assign(classes.begin(), classes.end());
    for (const uint32_t m : means) parts[kMeanLow].push_back(static_cast<char>(m));
    for (const uint32_t shift : {8, 16, 24}) {
      for (const uint32_t m : means) parts[kMeanHigh].push_back(static_cast<char>(m >> shift));
    }
    for (const auto& [at, half] : escapes) AppendNumber(&parts[kEscapes], half);
    for (size_t channel = 0; channel < channels; ++channel) {
      parts[kSymbols + classes[channel]].append(
          reinterpret_cast<const char*>(symbols.data() + channel * tokens), tokens);
    }
    AppendNumber(out, static_cast<uint32_t>(kSymbols + class_count));
    std::string frames;
    for (size_t p = 0; p < kSymbols + class_count; ++p) {
      const std::string frame = Compress(parts[p]);
      AppendNumber(out, static_cast<uint32_t>(frame.size()));
      frames += frame;
    }
    *out += frames;
  }

  Status ReadPayload(std::string_view payload, KvBlock* block) const override {
    const uint32_t width = block->shape.kv_width, tokens = block->tokens;
    const size_t channels = size_t{block->shape.layers} * 2 * width;
    std::array<std::string, kPartsMax> parts;
    LH_ASSIGN_OR_RETURN(const uint32_t count, ReadParts(payload, *block, &parts));
    const auto* classes = reinterpret_cast<const uint8_t*>(parts[kClasses].data());

    std::array<const char*, kClassesMax> next{};
    for (size_t p = kSymbols; p < count; ++p) next[p - kSymbols] = parts[p].data();
    const char* escape = parts[kEscapes].data();
    const char* const escapes_end = escape + parts[kEscapes].size();
    for (size_t side = 0; side < size_t{block->shape.layers} * 2; ++side) {
      uint16_t* rows = block->data.data() + side * kBlockTokens * width;
      float step = 0;
      for (uint32_t c = 0; c < width; ++c) {
        if (c % kStepChannels == 0) {
          std::memcpy(&step,
                      parts[kSteps].data() +
                          (side * Groups(block->shape) + c / kStepChannels) * sizeof(step),
                      sizeof(step));
          if (!(step > 0) || !std::isfinite(step)) return PayloadError("invalid step");
        }
        const size_t channel = side * width + c;
        const auto plane = [&](size_t p) {
          return uint32_t{static_cast<uint8_t>(parts[kMeanHigh][p * channels + channel])};
        };
        const auto mean =
            static_cast<float>(UnZigZag(static_cast<uint8_t>(parts[kMeanLow][channel]) |
                                        plane(0) << 8 | plane(1) << 16 | plane(2) << 24));
        const auto* own = reinterpret_cast<const int8_t*>(next[classes[channel]]);
        next[classes[channel]] += tokens;
        std::array<uint16_t, kBlockTokens> fp16;
        const bool escaped = ToFp16(own, tokens, mean, step, fp16.data());
        for (uint32_t t = 0; escaped && t < tokens; ++t) {
          if (own[t] != kEscape) continue;
          if (escape == escapes_end) return PayloadError("too few escaped numbers");
          std::memcpy(&fp16[t], escape, sizeof(uint16_t));
          escape += sizeof(uint16_t);
        }
        for (uint32_t t = 0; t < tokens; ++t) rows[size_t{t} * width + c] = fp16[t];
      }
    }
    return escape == escapes_end ? OkStatus() : PayloadError("too many escaped numbers");
  }

  std::string name_;
  RoundedCodecOptions options_;
};

}  // namespace

std::unique_ptr<const BlockCodec> NewRoundedCodec(std::string name,
                                                  const RoundedCodecOptions& options) {
  return std::make_unique<RoundedBlockCodec>(std::move(name), options);
}

}  // namespace longhold
