#include "memory/model/shared_model.h"

#include <algorithm>
#include <exception>
#include <new>
#include <utility>

#include "base/status.h"

namespace longhold {

struct SharedModel::Answer {
  std::condition_variable changed;
  NextToken next;
  bool given = false;  // the pass for `next` has run
  Status status;       // of that pass
  std::vector<float> logits;
};

SharedModel::SharedModel(LanguageModel* model, SharedModelOptions options)
    : model_(model),
      options_(std::move(options)),
      answers_max_(std::clamp(options_.answers_max, 1u, model->sequences_max())),
      sequences_(answers_max_) {}

SharedModel::~SharedModel() { LH_CHECK(turns_ == 0); }

SharedModel::Answer* SharedModel::Begin() {
  auto answer = std::make_unique<Answer>();
  std::unique_lock lock(mutex_);
  const uint64_t own = arrivals_++;
  may_begin_.wait(lock, [&] {
    return begun_ == own && reading_ == nullptr && turns_ < answers_max_ &&
           (turns_ == 0 || !options_.room || options_.room());
  });
  ++begun_;
  ++turns_;
  const auto sequence = std::find(sequences_.begin(), sequences_.end(), false);
  *sequence = true;
  answer->next.sequence = static_cast<uint32_t>(sequence - sequences_.begin());
  reading_ = answer.get();
  ready_.push_back(answer.get());
  if (running_ == nullptr) PassOn();
  Await(lock, answer.get());
  return answer.release();
}

void SharedModel::End(Answer* answer) {
  const std::unique_ptr<Answer> owned(answer);
  const std::lock_guard lock(mutex_);
  LH_CHECK(running_ == answer);
  --turns_;
  if (model_->info().native_window > 0) Own().NativeForget(0, UINT32_MAX);  // makes room for others
  sequences_[answer->next.sequence] = false;
  if (reading_ == answer) reading_ = nullptr;
  running_ = nullptr;
  PassOn();
  may_begin_.notify_all();
}

void SharedModel::PassOn() {
  if (!ready_.empty()) {
    running_ = ready_.front();
    ready_.pop_front();
  } else if (!waiting_.empty()) {
    running_ = waiting_.front();
  } else {
    return;
  }
  running_->changed.notify_one();
}

void SharedModel::Await(std::unique_lock<std::mutex>& lock, Answer* answer) {
  answer->changed.wait(lock, [&] { return running_ == answer; });
}

LanguageModel& SharedModel::Own() {
  model_->UseSequence(running_ == nullptr ? 0 : running_->next.sequence);
  return *model_;
}

void SharedModel::UseSequence(uint32_t sequence) { LH_CHECK(sequence == 0); }

Status SharedModel::RunPass(std::span<Answer* const> given) {
  // No exception may leave this function, or the other answers would wait for ever.
  try {
    if (given.size() == 1) {
      Answer& one = *given.front();
      model_->UseSequence(one.next.sequence);
      LH_RETURN_IF_ERROR(model_->Forward(std::span(&one.next.token, 1), one.next.position,
                                         one.next.attention, true));
      one.logits.assign(model_->logits().begin(), model_->logits().end());
      return OkStatus();
    }
    std::vector<NextToken> next;
    for (const Answer* answer : given) next.push_back(answer->next);
    return model_->ForwardEach(next);
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("out of memory for the next token");
  } catch (const std::exception& error) {
    return Internal(std::string("internal error: ") + error.what());
  }
}

void SharedModel::GiveTokens(std::unique_lock<std::mutex>& lock) {
  const std::vector<Answer*> given = std::exchange(waiting_, {});
  Answer* const self = running_;
  lock.unlock();
  const Status status = RunPass(given);
  lock.lock();
  for (Answer* answer : given) {
    answer->given = true;
    answer->status = status;
    if (answer != self) ready_.push_back(answer);
  }
}

void SharedModel::LetOthers() {
  std::unique_lock lock(mutex_);
  Answer* const self = running_;
  if (self == nullptr) return;
  if (!waiting_.empty()) GiveTokens(lock);
  if (ready_.empty()) return;
  ready_.push_back(self);
  running_ = nullptr;
  PassOn();
  Await(lock, self);
}

Status SharedModel::Forward(std::span<const TokenId> tokens, uint32_t position,
                            LayerAttention* attention, bool want_logits) {
  if (tokens.size() == 1 && want_logits) {
    std::unique_lock lock(mutex_);
    if (Answer* const self = running_; self != nullptr) {
      if (reading_ == self) {
        reading_ = nullptr;
        may_begin_.notify_all();
      }
      self->next.token = tokens.front();
      self->next.position = position;
      self->next.attention = attention;
      self->next.logits = &self->logits;
      self->given = false;
      waiting_.push_back(self);
      running_ = nullptr;
      PassOn();
      Await(lock, self);
      if (!self->given) GiveTokens(lock);
      logits_ = self->logits;
      return self->status;
    }
  } else {
    LetOthers();
  }
  LH_RETURN_IF_ERROR(Own().Forward(tokens, position, attention, want_logits));
  logits_ = model_->logits();
  return OkStatus();
}

Result<std::vector<std::vector<float>>> SharedModel::Score(std::span<const Branch> branches,
                                                           uint32_t position,
                                                           LayerAttention* attention) {
  LetOthers();
  return Own().Score(branches, position, attention);
}

}  // namespace longhold
