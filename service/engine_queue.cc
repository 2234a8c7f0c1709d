#include "service/engine_queue.h"

#include <algorithm>
#include <exception>
#include <new>

namespace longhold {

using Clock = std::chrono::steady_clock;

EngineQueue::EngineQueue(Engine* engine, const EngineQueueOptions& options) : engine_(engine), options_(options), next_id_(options.first_id) {
  keeper_ = std::make_unique<JoinedThread>([this] { KeepTexts(); });
  thread_ = std::make_unique<JoinedThread>([this] { Run(); });
}

EngineQueue::~EngineQueue() {
  Stop();
  keeper_.reset();  // what it had taken is kept, and answered
  thread_.reset();
}

Status EngineQueue::Ask(std::function<void(Engine&)> question) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return Unavailable("the server is stopping; ask again in a while");
  if (questions_.size() >= options_.questions_max) return ResourceExhausted("too many questions wait; ask again in a while");
  questions_.push_back(std::move(question));
  changed_.notify_one();
  return OkStatus();
}

size_t EngineQueue::questions() const {
  const std::lock_guard lock(mutex_);
  return questions_.size() + (answering_ ? 1 : 0);
}

size_t EngineQueue::ingests() const {
  const std::lock_guard lock(mutex_);
  return ingests_.size();
}

std::shared_ptr<EngineQueue::Work> EngineQueue::NewWork(uint64_t id, const std::string& memory, IngestInput input) {
  auto work = std::make_shared<Work>();
  work->job = {.id = id, .memory = memory, .document = input.name, .status = {}, .report = {}};
  work->input = std::move(input);
  ingest_bytes_ += work->input.text.size();
  return work;
}

void EngineQueue::Enqueue(const std::shared_ptr<Work>& work) {
  ingests_.push_back(work);
  known_[work->job.id] = work;
  changed_.notify_one();
}

Status EngineQueue::Ingest(const std::string& memory, IngestInput input, std::function<void(Result<IngestJob>)> accepted) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return Unavailable("the server is stopping; send the text again in a while");
  if (ingests_.size() + arrivals_.size() >= options_.ingests_max || ingest_bytes_ + input.text.size() > options_.ingest_bytes_max) {
    return ResourceExhausted("too many texts wait to be read; send it again in a while");
  }
  arrivals_.push_back({NewWork(next_id_++, memory, std::move(input)), std::move(accepted)});
  arrived_.notify_one();
  return OkStatus();
}

void EngineQueue::KeepTexts() {
  std::unique_lock lock(mutex_);
  for (;;) {
    arrived_.wait(lock, [&] { return stopping_ || !arrivals_.empty(); });
    if (arrivals_.empty()) return;
    const Arrival arrival = arrivals_.front();
    const std::shared_ptr<Work>& work = arrival.work;
    lock.unlock();
    const Status kept = options_.inbox == nullptr ? OkStatus() : options_.inbox->Keep(work->job.id, work->job.memory, work->input);
    lock.lock();
    arrivals_.pop_front();
    if (kept.ok()) {
      Enqueue(work);
    } else {
      ingest_bytes_ -= work->input.text.size();
    }
    const Result<IngestJob> job = kept.ok() ? Result<IngestJob>(work->job) : kept;
    lock.unlock();
    arrival.accepted(job);
    lock.lock();
  }
}

void EngineQueue::Resume(std::vector<Inbox::Text> texts) {
  const std::lock_guard lock(mutex_);
  for (Inbox::Text& text : texts) {
    Enqueue(NewWork(text.id, text.memory, std::move(text.input)));
    next_id_ = std::max(next_id_, text.id + 1);
  }
}

std::optional<IngestJob> EngineQueue::Find(uint64_t id) const {
  const std::lock_guard lock(mutex_);
  const auto it = known_.find(id);
  return it == known_.end() ? std::nullopt : std::optional(it->second->job);
}

std::vector<IngestJob> EngineQueue::Ingests() const {
  const std::lock_guard lock(mutex_);
  std::vector<IngestJob> jobs;
  for (auto it = known_.rbegin(); it != known_.rend(); ++it) jobs.push_back(it->second->job);
  return jobs;
}

bool EngineQueue::Cancel(uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto it = std::find_if(ingests_.begin(), ingests_.end(), [&](const auto& work) { return work->job.id == id; });
  if (it == ingests_.end()) return false;
  const std::shared_ptr<Work> work = *it;
  work->cancel = true;
  if (work->job.state == IngestState::kRunning) {
    interrupt_ = true;
  } else {
    End(work, IngestState::kCancelled);
  }
  return true;
}

void EngineQueue::Stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  interrupt_ = true;
  changed_.notify_one();
  arrived_.notify_one();
}

void EngineQueue::End(std::shared_ptr<Work> work, IngestState state) {
  work->job.state = state;
  const StatusCode failure = work->job.status.code();
  // What nobody took back, and what may succeed another time, is read after the next start.
  const bool to_be_read = !work->cancel && (state == IngestState::kCancelled || failure == StatusCode::kResourceExhausted || failure == StatusCode::kUnavailable);
  if (options_.inbox != nullptr && !to_be_read) options_.inbox->Drop(work->job.id);
  ingest_bytes_ -= work->input.text.size();
  work->input.text = std::string();
  std::erase(ingests_, work);
  for (auto it = known_.begin(); it != known_.end() && known_.size() > options_.ended_max + ingests_.size();) {
    const bool ended = it->second->job.state > IngestState::kRunning;
    it = ended ? known_.erase(it) : std::next(it);
  }
}

void EngineQueue::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !questions_.empty() || !ingests_.empty(); });
    if (!questions_.empty()) {
      const std::function<void(Engine&)> question = std::move(questions_.front());
      questions_.pop_front();
      answering_ = true;
      lock.unlock();
      question(*engine_);
      lock.lock();
      answering_ = false;
      continue;
    }
    if (stopping_) {
      while (!ingests_.empty()) End(ingests_.front(), IngestState::kCancelled);
      return;
    }
    ReadSome(lock);
  }
}

Result<IngestReport> EngineQueue::Read(const std::string& memory, const IngestInput& input,
                                       const std::function<void(const IngestProgress&)>& on_progress) {
  try {
    return engine_->Ingest(memory, input, &interrupt_, on_progress);
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("out of memory while " + input.name + " was read; send it in parts, or give the server more");
  } catch (const std::exception& error) {
    return Internal(std::string("internal error: ") + error.what());
  }
}

void EngineQueue::ReadSome(std::unique_lock<std::mutex>& lock) {
  const std::shared_ptr<Work> work = ingests_.front();
  work->job.state = IngestState::kRunning;
  interrupt_ = false;
  const Clock::time_point turn_end = Clock::now() + options_.ingest_turn;
  lock.unlock();
  const Result<IngestReport> report = Read(work->job.memory, work->input, [&](const IngestProgress& progress) {
    const std::lock_guard progress_lock(mutex_);
    work->job.tokens_done = progress.tokens_done;
    work->job.tokens_total = progress.tokens_total;
    work->job.tokens_per_s = progress.tokens_per_s;
    // Not before something was read, or questions without end would leave the text where it is.
    if (!questions_.empty() && Clock::now() >= turn_end) interrupt_ = true;
  });
  const bool interrupted = report.ok() && report->outcome == IngestReport::Outcome::kStopped;
  if (report.ok() && options_.on_read) options_.on_read(*report);
  if (!interrupted) engine_->CloseMemory();  // other processes may write to it again
  lock.lock();
  if (!report.ok()) {
    work->job.status = report.status();
    return End(work, IngestState::kFailed);
  }
  if (!interrupted) {
    work->job.report = *report;
    work->job.tokens_done = work->job.tokens_total = report->tokens;
    return End(work, IngestState::kDone);
  }
  if (work->cancel || stopping_) return End(work, IngestState::kCancelled);
  work->job.state = IngestState::kQueued;
}

}  // namespace longhold
