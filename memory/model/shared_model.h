// One model, and what is confined along with it, for several answers at a time.
//
// Each answer is written by a thread of its own, of which one runs at a time. A thread that wants
// its next token (a pass of one token with logits) waits until all others want theirs too or have
// ended; then one pass gives each its own. Longer passes, of a question that is only being read,
// let the others have a token each in between. So a model that is bound by reading its weights
// gives several answers in little more time than one, and a short answer does not wait for the end
// of a long one.
//
// A single answer goes through the model as it would without this. In a pass beside others its
// logits differ in the last bits, as sums of products are then taken in another order. Where layers
// stay with the engine each answer has a text of the model's native cache.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "memory/model/language_model.h"

namespace longhold {

struct SharedModelOptions {
  uint32_t turns_max = 8;  // answers at a time; at most the model's sequences_max
  // whether one more may begin beside those there are; called on any thread. Empty: always.
  std::function<bool()> room;
};

// Owner: the composition root. Thread use: while there are turns, their threads' alone, each
// between the begin and the end of its own; else *confined*, as the model it stands for.
class SharedModel final : public LanguageModel {
  struct Answer;

 public:
  // Borrows `model`.
  explicit SharedModel(LanguageModel* model, SharedModelOptions options = {});
  ~SharedModel() override;

  // Of one answer, on its thread. Begins when no other's question is still being read, in the order
  // in which they came.
  class Turn {
   public:
    explicit Turn(SharedModel* model) : model_(model), answer_(model->Begin()) {}
    ~Turn() { model_->End(answer_); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    SharedModel* const model_;
    Answer* const answer_;
  };
  // How many turns there may be.
  uint32_t turns_max() const { return turns_max_; }

  const ModelInfo& info() const override { return model_->info(); }
  Result<std::vector<TokenId>> Tokenize(std::string_view text, bool special) const override {
    return model_->Tokenize(text, special);
  }
  std::string Piece(TokenId token) const override { return model_->Piece(token); }
  TokenId Bos() const override { return model_->Bos(); }
  bool EndsAnswer(TokenId token) const override { return model_->EndsAnswer(token); }
  void Embed(std::span<const TokenId> tokens, float* out) const override {
    model_->Embed(tokens, out);
  }
  Result<PromptParts> Format(std::string_view system, std::span<const ChatTurn> earlier,
                             std::string_view question) const override {
    return model_->Format(system, earlier, question);
  }
  Status Forward(std::span<const TokenId> tokens, uint32_t position, LayerAttention* attention,
                 bool want_logits) override;
  Status ForwardEach(std::span<const NextToken> texts) override {
    return model_->ForwardEach(texts);
  }
  uint32_t sequences_max() const override { return model_->sequences_max(); }
  uint32_t batch_tokens() const override { return model_->batch_tokens(); }
  std::span<const float> logits() const override { return logits_; }
  Result<std::vector<std::vector<float>>> Score(std::span<const Branch> branches, uint32_t position,
                                                LayerAttention* attention) override;
  uint32_t scored_tokens_max() const override { return model_->scored_tokens_max(); }
  uint32_t branches_max() const override { return model_->branches_max(); }
  void UseSequence(uint32_t text) override;
  void NativeForget(uint32_t begin, uint32_t end) override { Own().NativeForget(begin, end); }
  Status NativeShift(uint32_t begin, uint32_t end, int32_t delta) override {
    return Own().NativeShift(begin, end, delta);
  }
  Result<std::string> NativeSave() override { return Own().NativeSave(); }
  Status NativeRestore(std::string_view bytes) override { return Own().NativeRestore(bytes); }
  std::unique_ptr<TokenSampler> NewSampler(const SamplerOptions& options) const override {
    return model_->NewSampler(options);
  }
  void Parallel(size_t count, const std::function<void(size_t)>& fn) override {
    model_->Parallel(count, fn);
  }

 private:
  // The model, with the native cache of whoever has it in use.
  LanguageModel& Own();
  Answer* Begin();
  void End(Answer* answer);
  // The next of those that can run, or if all wait for a token the first of them, has the model
  // from here on. Must hold: nobody has it.
  void PassOn();
  // Waits until `answer` has the model, which it has let go of.
  void Await(std::unique_lock<std::mutex>& lock, Answer* answer);
  // A token for each.
  Status RunPass(std::span<Answer* const> given);
  // Gives a token to all that wait for one. `lock` is held on entry and on return, not in between.
  void GiveTokens(std::unique_lock<std::mutex>& lock);
  // Before a pass of the answer that runs: the others have a token each.
  void LetOthers();

  LanguageModel* const model_;
  const SharedModelOptions options_;
  const uint32_t turns_max_;
  std::span<const float> logits_;  // of whoever has the model

  std::mutex mutex_;
  std::condition_variable may_begin_;
  // turns that were asked for, and that have begun: they begin in order
  uint64_t arrivals_ = 0, begun_ = 0;
  Answer* reading_ = nullptr;     // whose question is being read
  Answer* running_ = nullptr;     // who has the model
  std::deque<Answer*> ready_;     // who could run
  std::vector<Answer*> waiting_;  // for a token
  size_t turns_ = 0;
  std::vector<bool> texts_;  // [turns_max_] which of the model's texts a turn has
};

}  // namespace longhold
