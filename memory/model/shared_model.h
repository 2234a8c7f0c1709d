// Shares one model, and the state confined with it, between several answers (continuous batching).
//
// Each answer is written by its own thread. Only one of these threads runs at a time. A thread that
// needs its next token (a pass of one token with logits) waits until every other thread needs one
// too or has ended. Then one pass computes the next token of each answer. Before a longer pass,
// such as one that reads a question, the waiting answers get one token each. If reading the weights
// limits the model's speed, several answers therefore take little more time than one. A short
// answer does not wait for a long one to end.
//
// A single answer has the same results as without SharedModel. In a pass with other answers its
// logits differ in the last bits, because sums of products are computed in another order. If the
// model has layers that are not tapped, each answer uses its own sequence of the native cache.
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
  uint32_t answers_max = 8;  // most concurrent answers; at most the model's sequences_max
  // Whether one more answer may begin while others run. Called on any thread. Empty: always.
  std::function<bool()> room;
};

// Owner: the composition root. Thread use: while Turns exist, only their threads may use it, each
// between the start and the end of its Share. Otherwise *confined*, like the model that it wraps.
class SharedModel final : public LanguageModel {
  struct Answer;

 public:
  // Borrows `model`.
  explicit SharedModel(LanguageModel* model, SharedModelOptions options = {});
  ~SharedModel() override;

  // One answer's use of the model, on the answer's thread. The constructor waits until no other
  // question is being read. Turns begin in the order in which they were requested.
  class Share {
   public:
    explicit Share(SharedModel* model) : model_(model), answer_(model->Begin()) {}
    ~Share() { model_->End(answer_); }
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;

   private:
    SharedModel* const model_;
    Answer* const answer_;
  };
  // The most Turns at a time.
  uint32_t answers_max() const { return answers_max_; }

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
  Status ForwardEach(std::span<const NextToken> next) override { return model_->ForwardEach(next); }
  uint32_t sequences_max() const override { return model_->sequences_max(); }
  uint32_t batch_tokens() const override { return model_->batch_tokens(); }
  std::span<const float> logits() const override { return logits_; }
  Result<std::vector<std::vector<float>>> Score(std::span<const Branch> branches, uint32_t position,
                                                LayerAttention* attention) override;
  uint32_t scored_tokens_max() const override { return model_->scored_tokens_max(); }
  uint32_t branches_max() const override { return model_->branches_max(); }
  void UseSequence(uint32_t sequence) override;
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
  // The model, with the native cache of the running answer selected.
  LanguageModel& Own();
  Answer* Begin();
  void End(Answer* answer);
  // Makes the next answer that is ready run. If all answers wait for a token, the first of them
  // runs. Must hold: no answer is running.
  void PassOn();
  // Waits until `answer` runs. Must hold: it does not run now.
  void Await(std::unique_lock<std::mutex>& lock, Answer* answer);
  // One pass that computes the next token of each answer in `given`.
  Status RunPass(std::span<Answer* const> given);
  // Runs one pass for all answers that wait for a token. `lock` is held on entry and on return, but
  // not during the pass.
  void GiveTokens(std::unique_lock<std::mutex>& lock);
  // Called before a pass of the running answer: lets the waiting answers have one token each.
  void LetOthers();

  LanguageModel* const model_;
  const SharedModelOptions options_;
  const uint32_t answers_max_;
  std::span<const float> logits_;  // of the running answer

  std::mutex mutex_;
  std::condition_variable may_begin_;
  // Counts of Turns requested and begun. They begin in the order of their requests.
  uint64_t arrivals_ = 0, begun_ = 0;
  Answer* reading_ = nullptr;     // the answer whose question is being read
  Answer* running_ = nullptr;     // the answer that uses the model now
  std::deque<Answer*> ready_;     // answers that are ready to run
  std::vector<Answer*> waiting_;  // answers that wait for a token
  size_t turns_ = 0;
  std::vector<bool> sequences_;  // [answers_max_] whether the model's sequence is used by a Turn
};

}  // namespace longhold
