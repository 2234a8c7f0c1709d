// A language model that another engine runs. longhold knows what it looks like, not its weights.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/parallel.h"
#include "base/status.h"
#include "memory/model/language_model.h"

namespace longhold {

// Tokens of a vocabulary: four times as many as Gemma's, which is the largest in use.
inline constexpr size_t kVocabularyMax = 1u << 20;

// Value type.
struct ModelDescription {
  std::string name;
  std::string fingerprint;  // 1 to 64 of [A-Za-z0-9._-]
  KvGeometry geometry;
  uint32_t layer_count = 0;
  uint32_t context_length = 0;      // 0: 2,048 tokens
  std::vector<std::string> pieces;  // [vocab] the text of each token, in bytes
  TokenId bos = -1;

  // Errors: invalid_argument, which names the member.
  Status Check() const;
};

// Serves what needs no forward pass: storing keys and values that the engine computed, the indexes,
// and recall by words, meaning and given queries. Forward passes are failed_precondition.
//
// Owner: whoever opened the home. Thread use: *immutable*; Parallel runs on threads of its own
// call.
class DescribedModel final : public LanguageModel {
 public:
  // Must hold: description.Check() is ok.
  explicit DescribedModel(ModelDescription description);

  const ModelInfo& info() const override { return info_; }
  // The longest piece that fits, again and again. The result's text is `text`, so its words are
  // right, but a model's own tokenizer may cut elsewhere. Bytes that are no piece are left out.
  Result<std::vector<TokenId>> Tokenize(std::string_view text, bool special) const override;
  std::string Piece(TokenId token) const override { return pieces_.at(static_cast<size_t>(token)); }
  TokenId Bos() const override { return bos_; }
  bool EndsAnswer(TokenId) const override { return false; }
  void Embed(std::span<const TokenId>, float*) const override {}
  Result<PromptParts> Format(std::string_view system, std::span<const ChatTurn> earlier,
                             std::string_view question) const override;
  uint32_t batch_tokens() const override { return 512; }
  uint32_t sequences_max() const override { return 1; }
  void UseSequence(uint32_t) override {}
  void Parallel(size_t count, const std::function<void(size_t)>& fn) override {
    ThreadsFor(count, fn);
  }

  Status Forward(std::span<const TokenId>, uint32_t, LayerAttention*, bool) override {
    return RunsElsewhere();
  }
  std::span<const float> logits() const override { return {}; }
  Status ForwardEach(std::span<const NextToken>) override { return RunsElsewhere(); }
  Result<std::vector<std::vector<float>>> Score(std::span<const Branch>, uint32_t,
                                                LayerAttention*) override {
    return RunsElsewhere();
  }
  uint32_t scored_tokens_max() const override { return 0; }
  uint32_t branches_max() const override { return 0; }
  void NativeForget(uint32_t, uint32_t) override {}
  Status NativeShift(uint32_t, uint32_t, int32_t) override { return OkStatus(); }
  Result<std::string> NativeSave() override { return std::string(); }
  Status NativeRestore(std::string_view) override { return OkStatus(); }
  std::unique_ptr<TokenSampler> NewSampler(const SamplerOptions&) const override { return nullptr; }

 private:
  Status RunsElsewhere() const {
    return FailedPrecondition("model " + info_.name +
                              ": runs in another engine, so longhold cannot run it");
  }

  ModelInfo info_;
  std::vector<std::string> pieces_;
  TokenId bos_;
  std::unordered_map<std::string_view, TokenId> token_of_;  // views of pieces_
  size_t piece_bytes_max_ = 0;
};

}  // namespace longhold
