#include "memory/sidecar/described_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/text.h"
#include "memory/record/records.h"

namespace longhold {
namespace {

// Longer pieces exist (runs of spaces), but no word has so many bytes.
constexpr size_t kPieceBytesMax = 256;

}  // namespace

Status ModelDescription::Check() const {
  const auto wrong = [&](const std::string& what) {
    return InvalidArgument("model " + (name.empty() ? "without a name" : name) + ": " + what);
  };
  if (name.empty() || name.size() > 256) return wrong("needs a name of at most 256 bytes");
  if (fingerprint.empty() || fingerprint.size() > 64 ||
      !std::all_of(fingerprint.begin(), fingerprint.end(), IsNameByte))
    return wrong("its fingerprint must have 1 to 64 letters, digits, '.', '_' or '-'");
  const KvGeometry& g = geometry;
  if (g.layers.empty() || g.layers.size() > kTappedLayersMax || layer_count > kTappedLayersMax)
    return wrong("has no layers, or more than " + std::to_string(kTappedLayersMax));
  for (size_t i = 0; i < g.layers.size(); ++i) {
    if (g.layers[i] >= layer_count || (i > 0 && g.layers[i] <= g.layers[i - 1]))
      return wrong("its layers must ascend and be below " + std::to_string(layer_count));
  }
  if (g.kv_heads == 0 || g.q_heads == 0 || g.q_heads > kKvHeadsMax || g.q_heads % g.kv_heads != 0)
    return wrong("its query heads must be a multiple of its KV heads, and at most " +
                 std::to_string(kKvHeadsMax));
  if (g.head_dim == 0 || g.head_dim % 4 != 0 || g.head_dim > kMaxHeadDim)
    return wrong("head size " + std::to_string(g.head_dim) + " is not a multiple of 4 up to " +
                 std::to_string(kMaxHeadDim));
  if (uint64_t{g.layers.size()} * 2 * kBlockTokens * g.kv_width() > kBlockElementsMax)
    return wrong("64 tokens of it have more than 128 MiB of keys and values");
  if (!(g.scale > 0) || !std::isfinite(g.scale)) return wrong("its scale must be positive");
  if (g.rope.size() != g.layers.size())
    return wrong("has " + std::to_string(g.rope.size()) + " position embeddings for " +
                 std::to_string(g.layers.size()) + " layers");
  for (const RopeSpec& rope : g.rope) {
    if (rope.rotary_dims % 2 != 0 || rope.rotary_dims > g.head_dim)
      return wrong("rotates " + std::to_string(rope.rotary_dims) + " of " +
                   std::to_string(g.head_dim) + " channels");
    const auto positive = [](float x) { return x > 0 && std::isfinite(x); };
    if (!positive(rope.freq_base) || !positive(rope.freq_scale) || !positive(rope.attn_factor) ||
        (!rope.freq_factors.empty() && rope.freq_factors.size() != rope.rotary_dims / 2) ||
        !std::all_of(rope.freq_factors.begin(), rope.freq_factors.end(), positive))
      return wrong("its position embedding has a base, scale or factor that is not positive");
  }
  if (pieces.empty() || pieces.size() > kVocabularyMax)
    return wrong("has no vocabulary, or one of more than " + std::to_string(kVocabularyMax) +
                 " tokens");
  if (bos >= static_cast<int64_t>(pieces.size())) return wrong("bos is not in the vocabulary");
  return OkStatus();
}

DescribedModel::DescribedModel(ModelDescription description)
    : pieces_(std::move(description.pieces)), bos_(description.bos) {
  info_.name = std::move(description.name);
  info_.architecture = "described";
  info_.fingerprint = std::move(description.fingerprint);
  info_.geometry = std::move(description.geometry);
  info_.layer_count = description.layer_count;
  info_.vocab_size = static_cast<uint32_t>(pieces_.size());
  info_.context_length = description.context_length;
  for (size_t i = 0; i < pieces_.size(); ++i) {
    if (pieces_[i].empty() || pieces_[i].size() > kPieceBytesMax) continue;
    token_of_.emplace(pieces_[i], static_cast<TokenId>(i));
    piece_bytes_max_ = std::max(piece_bytes_max_, pieces_[i].size());
  }
}

Result<std::vector<TokenId>> DescribedModel::Tokenize(std::string_view text, bool) const {
  std::vector<TokenId> tokens;
  while (!text.empty()) {
    size_t length = std::min(piece_bytes_max_, text.size());
    auto found = token_of_.end();
    for (; length > 0; --length) {
      found = token_of_.find(text.substr(0, length));
      if (found != token_of_.end()) break;
    }
    if (found != token_of_.end()) tokens.push_back(found->second);
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return tokens;
}

Result<PromptParts> DescribedModel::Format(std::string_view, std::span<const ChatTurn>,
                                           std::string_view question) const {
  PromptParts parts;
  parts.tail = question;
  parts.question_end = question.size();
  return parts;
}

}  // namespace longhold
