#include "service/server/engine_queue.h"

#include <algorithm>
#include <exception>
#include <new>
#include <system_error>
#include <utility>

#include "memory/record/records.h"

namespace longhold {

using Clock = std::chrono::steady_clock;

namespace {

// Concurrent questions that one tenant may not use, so that others can start at once.
constexpr size_t kReservedForOthers = 2;

}  // namespace

EngineQueue::EngineQueue(Engine* engine, const EngineQueueOptions& options)
    : engine_(engine),
      options_(options),
      questions_(options.questions_max, options.tenants_questions_max),
      next_id_(options.first_id) {
  keeper_ = std::make_unique<JoinedThread>([this] { KeepTexts(); });
  thread_ = std::make_unique<JoinedThread>([this] { Run(); });
}

EngineQueue::~EngineQueue() {
  Stop();
  keeper_.reset();  // texts that it has are written, and their clients answered
  thread_.reset();
}

Status EngineQueue::AskExclusive(EngineTask question, const std::string& tenant) {
  return Add({.run = std::move(question), .concurrent = false, .memory = {}}, tenant);
}

Status EngineQueue::AskConcurrent(EngineTask question, const std::string& tenant,
                                  const std::string& memory) {
  const bool concurrent = options_.model != nullptr && options_.model->answers_max() > 1;
  return Add({.run = std::move(question), .concurrent = concurrent, .memory = memory}, tenant);
}

Status EngineQueue::Add(Waiting question, const std::string& tenant) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return Unavailable("the server is stopping; retry later");
  if (!questions_.Add(tenant, std::move(question)))
    return ResourceExhausted("too many questions wait; retry later");
  changed_.notify_one();
  return OkStatus();
}

size_t EngineQueue::questions() const {
  const std::lock_guard lock(mutex_);
  return questions_.size() + continuations_.size() + (answering_ ? 1 : 0) + concurrent_.size();
}

size_t EngineQueue::ingests() const {
  const std::lock_guard lock(mutex_);
  return ingests_.size();
}

std::shared_ptr<EngineQueue::Work> EngineQueue::NewWork(uint64_t id, const std::string& memory,
                                                        IngestInput input) {
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

std::pair<size_t, uint64_t> EngineQueue::WaitingOf(const std::string& tenant) const {
  std::pair<size_t, uint64_t> own;
  const auto count = [&](const Work& work) {
    if (TenantOf(work.job.memory) != tenant) return;
    ++own.first;
    own.second += work.input.text.size();
  };
  for (const std::shared_ptr<Work>& work : ingests_) count(*work);
  for (const Arrival& arrival : arrivals_) count(*arrival.work);
  return own;
}

uint64_t EngineQueue::WaitingBytes(const std::string& tenant) const {
  const std::lock_guard lock(mutex_);
  return WaitingOf(tenant).second;
}

Status EngineQueue::Ingest(const std::string& memory, IngestInput input,
                           std::function<void(Result<IngestJob>)> accepted,
                           std::function<Status(Engine&)> admit) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return Unavailable("the server is stopping; send the text again later");
  const std::string tenant = TenantOf(memory);
  const auto [own, own_bytes] = WaitingOf(tenant);
  const bool too_much = ingests_.size() + arrivals_.size() >= options_.ingests_max ||
                        ingest_bytes_ + input.text.size() > options_.ingest_bytes_max;
  const bool too_much_own = own >= options_.ingests_max / 2 ||
                            own_bytes + input.text.size() > options_.ingest_bytes_max / 2;
  if (too_much || (!tenant.empty() && too_much_own)) {
    return ResourceExhausted("too many texts wait to be ingested; send it again later");
  }
  arrivals_.push_back({NewWork(next_id_++, memory, std::move(input)), std::move(accepted)});
  arrivals_.back().work->admit = std::move(admit);
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
    const Status kept = options_.inbox == nullptr
                            ? OkStatus()
                            : options_.inbox->Keep(work->job.id, work->job.memory, work->input);
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
  const auto it = std::find_if(ingests_.begin(), ingests_.end(),
                               [&](const auto& work) { return work->job.id == id; });
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
  // A text that was not cancelled and whose failure may be temporary is ingested after the next
  // start.
  const bool to_be_read = !work->cancel && (state == IngestState::kCancelled ||
                                            failure == StatusCode::kResourceExhausted ||
                                            failure == StatusCode::kUnavailable);
  if (options_.inbox != nullptr && !to_be_read) options_.inbox->Drop(work->job.id);
  ingest_bytes_ -= work->input.text.size();
  work->input.text = std::string();
  std::erase(ingests_, work);
  if (begun_ == work) begun_.reset();
  for (auto it = known_.begin();
       it != known_.end() && known_.size() > options_.ended_max + ingests_.size();) {
    const bool ended = it->second->job.state > IngestState::kRunning;
    it = ended ? known_.erase(it) : std::next(it);
  }
}

bool EngineQueue::HasPlace(const std::string& tenant) const {
  const auto own =
      std::count_if(concurrent_.begin(), concurrent_.end(),
                    [&](const Answering& answering) { return answering.tenant == tenant; });
  return static_cast<size_t>(own) + kReservedForOthers <
         std::max<size_t>(options_.model->answers_max(), kReservedForOthers + 1);
}

bool EngineQueue::MayBegin(const Waiting& question) const {
  if (concurrent_.empty()) return true;
  if (!question.concurrent || concurrent_.size() >= options_.model->answers_max()) return false;
  const bool same_memory =
      std::all_of(concurrent_.begin(), concurrent_.end(), [&](const Answering& other) {
        return other.memory.empty() || question.memory.empty() || other.memory == question.memory;
      });
  // Another memory loads its own indexes, whose size is not known yet.
  const MemoryBudget& budget = engine_->budget();
  return same_memory || budget.used_bytes() <= budget.limit_bytes() / 2;
}

EngineTask EngineQueue::RunConcurrent(EngineTask question) {
  for (;;) {
    Continuation rest;
    {
      const SharedModel::Share turn(options_.model);
      rest = question(*engine_, /*exclusive=*/false);
    }
    if (!rest.run || rest.exclusive) return std::move(rest.run);
    question = std::move(rest.run);
  }
}

void EngineQueue::Begin(Waiting question, const std::string& tenant) {
  Answering& answering = concurrent_.emplace_back(
      Answering{.tenant = tenant, .memory = question.memory, .ended = false, .thread = nullptr});
  const auto run = std::make_shared<EngineTask>(std::move(question.run));
  try {
    answering.thread = std::make_unique<JoinedThread>([this, &answering, run] {
      EngineTask rest = RunConcurrent(std::move(*run));
      const std::lock_guard lock(mutex_);
      if (rest) continuations_.push_back(std::move(rest));
      answering.ended = true;
      changed_.notify_one();
    });
  } catch (const std::system_error&) {
    // The system has no thread left: the question runs when the concurrent ones have ended.
    concurrent_.pop_back();
    continuations_.push_back(std::move(*run));
  }
}

void EngineQueue::RunExclusive(std::unique_lock<std::mutex>& lock, EngineTask question) {
  answering_ = true;
  lock.unlock();
  while (question) question = question(*engine_, /*exclusive=*/true).run;
  lock.lock();
  answering_ = false;
}

void EngineQueue::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    std::erase_if(concurrent_, [](const Answering& answering) { return answering.ended; });
    if (!continuations_.empty()) {
      if (!concurrent_.empty()) {
        changed_.wait(lock);
        continue;
      }
      EngineTask question = std::move(continuations_.front());
      continuations_.pop_front();
      RunExclusive(lock, std::move(question));
      continue;
    }
    const Waiting* const next =
        questions_.Next([this](const std::string& tenant, const Waiting& question) {
          return tenant.empty() || !question.concurrent || HasPlace(tenant);
        });
    if (next != nullptr && MayBegin(*next)) {
      auto [tenant, question] = questions_.Take();
      if (question.concurrent) {
        Begin(std::move(question), tenant);
      } else {
        RunExclusive(lock, std::move(question.run));
      }
      continue;
    }
    if (!concurrent_.empty()) {
      changed_.wait(lock);
      continue;
    }
    if (stopping_) {
      while (!ingests_.empty()) End(ingests_.front(), IngestState::kCancelled);
      return;
    }
    const std::shared_ptr<Work> work = begun_ != nullptr ? begun_ : NextWork();
    if (work == nullptr) {
      Wait(lock);
      continue;
    }
    ReadSome(lock, work);
  }
}

Result<IngestReport> EngineQueue::Read(const Work& work, const OnIngestProgress& on_progress) {
  try {
    return work.indexed ? engine_->Ingest(work.job.memory, work.input, &interrupt_, on_progress)
                        : engine_->Index(work.job.memory, work.input, &interrupt_, on_progress);
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("out of memory during the ingest of " + work.input.name +
                             "; send it in parts, or give the server more memory");
  } catch (const std::exception& error) {
    return Internal(std::string("internal error: ") + error.what());
  }
}

bool EngineQueue::OthersWait(const std::string& tenant) const {
  return std::any_of(ingests_.begin(), ingests_.end(),
                     [&](const auto& work) { return TenantOf(work->job.memory) != tenant; });
}

bool EngineQueue::UnindexedWaits() const {
  return std::any_of(ingests_.begin(), ingests_.end(), [](const auto& work) {
    return !work->indexed && work->not_before <= Clock::now();
  });
}

std::shared_ptr<EngineQueue::Work> EngineQueue::NextWork() const {
  const bool unindexed = UnindexedWaits();
  std::map<std::string, std::shared_ptr<Work>> first;  // of each tenant
  for (const std::shared_ptr<Work>& work : ingests_) {
    if (work->not_before <= Clock::now() && !(unindexed && work->indexed))
      first.try_emplace(TenantOf(work->job.memory), work);
  }
  if (first.empty()) return nullptr;
  const auto next = first.upper_bound(read_last_);
  return next == first.end() ? first.begin()->second : next->second;
}

void EngineQueue::Wait(std::unique_lock<std::mutex>& lock) {
  if (ingests_.empty()) return changed_.wait(lock);
  const auto next =
      std::min_element(ingests_.begin(), ingests_.end(),
                       [](const auto& a, const auto& b) { return a->not_before < b->not_before; });
  changed_.wait_until(lock, (*next)->not_before);
}

bool EngineQueue::Retry(Work& work, const Status& failure) {
  const bool may_pass = failure.code() == StatusCode::kResourceExhausted ||
                        failure.code() == StatusCode::kUnavailable;
  if (!may_pass || work.failures >= options_.retries_max || work.cancel || stopping_) return false;
  work.not_before = Clock::now() + options_.retry_delay * (1u << work.failures);
  ++work.failures;
  work.job.state = IngestState::kQueued;
  return true;
}

void EngineQueue::ReadSome(std::unique_lock<std::mutex>& lock, const std::shared_ptr<Work>& work) {
  const std::string tenant = TenantOf(work->job.memory);
  begun_ = work;
  read_last_ = tenant;
  work->job.state = IngestState::kRunning;
  interrupt_ = false;
  const Clock::time_point begin = Clock::now();
  bool others_next = false;
  lock.unlock();
  if (const std::function<Status(Engine&)> admit = std::exchange(work->admit, nullptr)) {
    if (const Status admitted = admit(*engine_); !admitted.ok()) {
      lock.lock();
      work->job.status = admitted;
      return End(work, IngestState::kFailed);
    }
  }
  if (options_.inbox != nullptr) options_.inbox->Begun(work->job.id);
  const Result<IngestReport> report = Read(*work, [&](const IngestProgress& progress) {
    if (options_.inbox != nullptr && progress.tokens_done % kCommitTokens == 0)
      options_.inbox->Advanced(work->job.id);
    const std::lock_guard progress_lock(mutex_);
    const bool reads = progress.step == IngestStep::kReading;
    (reads ? work->job.tokens_done : work->job.tokens_searchable) = progress.tokens_done;
    if (reads) work->job.tokens_searchable = progress.tokens_total;
    work->job.tokens_total = progress.tokens_total;
    work->job.tokens_per_s = progress.tokens_per_s;
    // Not before some progress, or endless questions would keep the text from ever advancing.
    const auto spent = Clock::now() - begin + work->slice_used;
    others_next =
        (spent >= options_.tenant_slice && OthersWait(tenant)) || (reads && UnindexedWaits());
    if (others_next || (!questions_.empty() && Clock::now() - begin >= options_.ingest_slice))
      interrupt_ = true;
  });
  if (options_.inbox != nullptr) options_.inbox->Paused(work->job.id);
  const bool indexes = !work->indexed;
  const bool interrupted =
      report.ok() && (report->outcome == IngestReport::Outcome::kStopped ||
                      (indexes && report->outcome != IngestReport::Outcome::kUnchanged));
  if (report.ok() && options_.on_read) options_.on_read(*report);
  if (!interrupted) engine_->CloseMemory();  // allows writes of other processes
  lock.lock();
  work->slice_used += Clock::now() - begin;
  if (interrupted && indexes && report->outcome != IngestReport::Outcome::kStopped) {
    work->indexed = others_next = true;
    work->job.tokens_searchable = work->job.tokens_total = report->tokens;
  }
  if (!interrupted || others_next) {
    work->slice_used = {};
    begun_.reset();
  }
  if (!report.ok()) {
    work->job.status = report.status();
    if (!Retry(*work, report.status())) End(work, IngestState::kFailed);
    return;
  }
  work->job.status = OkStatus();
  if (!interrupted) {
    work->job.report = *report;
    work->job.tokens_searchable = work->job.tokens_done = work->job.tokens_total = report->tokens;
    return End(work, IngestState::kDone);
  }
  if (work->cancel || stopping_) return End(work, IngestState::kCancelled);
  work->job.state = IngestState::kQueued;
}

}  // namespace longhold
