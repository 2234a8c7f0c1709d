// A language model that does not read: its forward passes compute nothing, so a text is ingested as
// fast as it is tokenised, indexed and embedded.
//
// Where a profile names no recall head and does not rerank, recall uses the model's tokens, its
// input embeddings and the indexes, but no stored key: it finds in such a memory what it finds in
// one that was read (tests/eval/calibrate_cases_test.cc). Answers from it would be meaningless. To
// take no room, its blocks have one layer with one small head.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "memory/model/language_model.h"

namespace longhold {

// Borrows the model, which must outlive it. Thread use: *confined*, like that model.
class UnreadModel final : public LanguageModel {
 public:
  explicit UnreadModel(LanguageModel* model) : model_(*model), info_(model->info()) {
    info_.geometry = {.layers = {0},
                      .q_heads = 1,
                      .kv_heads = 1,
                      .head_dim = 64,
                      .rope = {RopeSpec{.rotary_dims = 64}}};
    info_.native_window = 0;
  }

  const ModelInfo& info() const override { return info_; }

  Result<std::vector<TokenId>> Tokenize(std::string_view text, bool special) const override {
    return model_.Tokenize(text, special);
  }
  std::string Piece(TokenId token) const override { return model_.Piece(token); }
  TokenId Bos() const override { return model_.Bos(); }
  bool EndsAnswer(TokenId token) const override { return model_.EndsAnswer(token); }
  void Embed(std::span<const TokenId> tokens, float* out) const override {
    model_.Embed(tokens, out);
  }
  Result<PromptParts> Format(std::string_view system, std::span<const ChatTurn> earlier,
                             std::string_view question) const override {
    return model_.Format(system, earlier, question);
  }
  uint32_t batch_tokens() const override { return model_.batch_tokens(); }
  uint32_t sequences_max() const override { return 1; }
  void UseSequence(uint32_t) override {}
  std::unique_ptr<TokenSampler> NewSampler(const SamplerOptions& options) const override {
    return model_.NewSampler(options);
  }
  void Parallel(size_t count, const std::function<void(size_t)>& fn) override {
    model_.Parallel(count, fn);
  }

  // Stores nothing: keys and values keep what the ingest gave them, which is 0.
  Status Forward(std::span<const TokenId>, uint32_t, LayerAttention*, bool want_logits) override {
    return want_logits ? Unread() : OkStatus();
  }
  std::span<const float> logits() const override { return {}; }
  Status ForwardEach(std::span<const NextToken>) override { return Unread(); }
  Result<std::vector<std::vector<float>>> Score(std::span<const Branch>, uint32_t,
                                                LayerAttention*) override {
    return Unread();
  }
  uint32_t scored_tokens_max() const override { return model_.scored_tokens_max(); }
  uint32_t branches_max() const override { return model_.branches_max(); }
  void NativeForget(uint32_t, uint32_t) override {}
  Status NativeShift(uint32_t, uint32_t, int32_t) override { return OkStatus(); }
  Result<std::string> NativeSave() override { return std::string(); }
  Status NativeRestore(std::string_view) override { return OkStatus(); }

 private:
  static Status Unread() { return Internal("this memory was not read, so it has no answers"); }

  LanguageModel& model_;
  ModelInfo info_;
};

}  // namespace longhold
