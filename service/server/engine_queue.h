// The scheduler of the engine: runs questions, and ingests texts while no question waits.
//
// Questions run concurrently if the model can be shared (memory/model/shared_model.h). Ingests, and
// questions that need much memory, run exclusively: nothing else uses the engine meanwhile. A
// question does not wait for the end of an ingest: the ingest commits what it has read, the
// question is answered, and the ingest continues from there. Tenants are served round-robin, so the
// number of requests of one tenant does not delay the next question or text of another.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/joined_thread.h"
#include "memory/engine.h"
#include "memory/model/shared_model.h"
#include "service/server/inbox.h"
#include "service/server/tenant_round_robin.h"
#include "store/memory_name.h"

namespace longhold {

struct EngineQueueOptions {
  size_t questions_max = 64;            // waiting questions of one tenant; further ones are refused
  size_t tenants_questions_max = 1024;  // of all tenants
  // ingests that wait or run; one tenant may have half of them, and half of ingest_bytes_max
  size_t ingests_max = 256;
  // bytes of their texts, which stay in RAM until they are ingested
  size_t ingest_bytes_max = 256ull << 20;
  // finished ingests that are remembered, the latest ones
  size_t ended_max = 1024;
  // called after each time slice of an ingest, on a thread of the queue; may be empty
  std::function<void(const IngestReport&)> on_read;
  // the model of the engine, for concurrent answers; null: one at a time
  SharedModel* model = nullptr;
  // stores texts until they are ingested; null: they are only in RAM
  const Inbox* inbox = nullptr;
  uint64_t first_id = 1;  // first id of an ingest; above the ids in the inbox
  // an interrupted ingest runs at least this long before the next question
  std::chrono::milliseconds ingest_slice{500};
  std::chrono::milliseconds tenant_slice{10000};  // and this long before a text of another tenant
  // A text that fails for lack of memory, disk or descriptors, or because its memory is in use, is
  // retried: after this delay, which doubles with each failure, and at most retries_max times.
  std::chrono::milliseconds retry_delay{5000};
  uint32_t retries_max = 6;
};

enum class IngestState : uint8_t { kQueued, kRunning, kDone, kFailed, kCancelled };

// State of an ingest. Value type.
struct IngestJob {
  uint64_t id = 0;
  std::string memory, document;
  IngestState state = IngestState::kQueued;
  uint64_t tokens_searchable = 0;              // that are found already, and can be asked about
  uint64_t tokens_done = 0, tokens_total = 0;  // that the model has read; 0 until it has begun
  double tokens_per_s = 0;
  // why it failed; while it is queued: why the last attempt failed
  Status status;
  std::optional<IngestReport> report;  // set when it is done
};

// The rest of a question that continues later; none if `run` is empty. Value type.
struct Continuation {
  std::function<Continuation(Engine&, bool exclusive)> run;
  bool exclusive = false;  // runs exclusively; else concurrently if the question did
};
// `exclusive`: whether it runs exclusively now.
using EngineTask = std::function<Continuation(Engine&, bool exclusive)>;

// Owner: the `serve` command. Thread use: *synchronised*; queued work runs on threads of the queue.
class EngineQueue {
 public:
  // `engine` must have its model. Only the queue uses it while the queue lives.
  EngineQueue(Engine* engine, const EngineQueueOptions& options);
  // As Stop, and waits for the end of all work.
  ~EngineQueue();

  // Queues `question` and its continuation, which run exclusively, after earlier questions of the
  // same tenant (an empty name is the operator). They must not throw. Errors: resource_exhausted
  // (too many questions wait), unavailable (after Stop); the question does not run then.
  Status AskExclusive(EngineTask question, const std::string& tenant = "");
  // As AskExclusive, for a question that may run concurrently with others of this kind. `memory` is
  // the memory that it reads; empty: it reads none for long. Its continuation runs before waiting
  // questions, whatever the limits, and even after Stop.
  Status AskConcurrent(EngineTask question, const std::string& tenant, const std::string& memory);
  // Numbers of questions and of ingests that wait or run.
  size_t questions() const;
  size_t ingests() const;
  // Only for members that are safe to call concurrently.
  const Engine& engine() const { return *engine_; }

  // Accepts a text, then calls `accepted` on another thread. With an inbox the text is durable by
  // then, so it is ingested even if the process ends. Errors, returned or passed to `accepted`:
  // resource_exhausted (too much waits, or the disk is full), unavailable (after Stop); the text is
  // not ingested then. `admit` (may be empty) is called on a thread of the queue before the first
  // time slice; if it returns an error the ingest fails.
  Status Ingest(const std::string& memory, IngestInput input,
                std::function<void(Result<IngestJob>)> accepted,
                std::function<Status(Engine&)> admit = nullptr);
  // Bytes of the texts of a tenant that wait or are ingested.
  uint64_t WaitingBytes(const std::string& tenant) const;
  // Queues the texts that an inbox held at the start. Call it before any other text is accepted.
  void Resume(std::vector<Inbox::Text> texts);
  std::optional<IngestJob> Find(uint64_t id) const;
  // All remembered ingests, the latest first.
  std::vector<IngestJob> Ingests() const;
  // Cancels an ingest that waits or runs. What was committed stays; ingesting the same text again
  // continues from there. Returns false when there is no such ingest.
  bool Cancel(uint64_t id);

  // Accepts no further work. Waiting questions are still answered. The running ingest commits and
  // ends as cancelled, as do waiting ones; an inbox keeps their texts.
  void Stop();

 private:
  struct Work {
    IngestJob job;
    IngestInput input;
    std::function<Status(Engine&)> admit;
    std::chrono::steady_clock::duration slice_used{};  // used of the time slice of its tenant
    bool indexed = false;  // all of it is searchable, and the model may read it
    bool cancel = false;
    uint32_t failures = 0;
    std::chrono::steady_clock::time_point not_before{};  // time of the next attempt
  };
  // Number and bytes of the texts of a tenant that wait or are ingested. Requires: mutex_ is held.
  std::pair<size_t, uint64_t> WaitingOf(const std::string& tenant) const;
  // Tenant of a memory; empty: the operator.
  static std::string TenantOf(const std::string& memory) { return SplitMemoryName(memory).tenant; }
  // Whether a text of another tenant waits.
  bool OthersWait(const std::string& tenant) const;
  // Whether a text waits that is not searchable yet: it goes before those that are only to be read.
  bool UnindexedWaits() const;
  // The first text of the next tenant, unindexed ones first, without texts that wait for a retry;
  // null: there is none.
  std::shared_ptr<Work> NextWork() const;
  // Waits until something changes or the next retry of a text is due.
  void Wait(std::unique_lock<std::mutex>& lock);
  // Whether a failed text is retried. If so it is queued for that.
  bool Retry(Work& work, const Status& failure);
  struct Waiting {
    EngineTask run;
    bool concurrent = false;
    std::string memory;
  };
  // A question that runs concurrently, on its own thread.
  struct Answering {
    std::string tenant, memory;
    bool ended = false;
    std::unique_ptr<JoinedThread> thread;
  };
  Status Add(Waiting question, const std::string& tenant);
  // Whether the tenant may have one more concurrent question.
  bool HasPlace(const std::string& tenant) const;
  // Whether the question may start now, next to the running ones.
  bool MayBegin(const Waiting& question) const;
  void Begin(Waiting question, const std::string& tenant);
  // Runs a question and its continuations, each with a share of the model. Returns the continuation
  // that must run exclusively, if there is one.
  EngineTask RunConcurrent(EngineTask question);
  // Runs a question exclusively. Requires: `lock` is held on entry; it is held on return, but not
  // in between.
  void RunExclusive(std::unique_lock<std::mutex>& lock, EngineTask question);
  void Run();
  // Indexes the text, or, where that is done, has the model read it.
  Result<IngestReport> Read(const Work& work, const OnIngestProgress& on_progress);
  // Runs one time slice of `work`. Requires: `lock` is held on entry; it is held on return, but not
  // in between.
  void ReadSome(std::unique_lock<std::mutex>& lock, const std::shared_ptr<Work>& work);
  // Makes the entry of a text; its bytes count from now on.
  std::shared_ptr<Work> NewWork(uint64_t id, const std::string& memory, IngestInput input);
  // Adds it to the waiting ingests, and to the known ones.
  void Enqueue(const std::shared_ptr<Work>& work);
  void End(std::shared_ptr<Work> work, IngestState state);
  // The thread that writes accepted texts to the inbox, one at a time.
  void KeepTexts();

  Engine* const engine_;
  const EngineQueueOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  TenantRoundRobin<Waiting> questions_;
  // continuations of concurrent questions that must run exclusively
  std::deque<EngineTask> continuations_;
  std::string read_last_;   // tenant of the last time slice of an ingest
  bool answering_ = false;  // a question runs exclusively
  std::list<Answering> concurrent_;
  struct Arrival {
    std::shared_ptr<Work> work;
    std::function<void(Result<IngestJob>)> accepted;
  };
  std::deque<Arrival> arrivals_;  // being written to the inbox
  std::condition_variable arrived_;
  std::deque<std::shared_ptr<Work>> ingests_;  // waiting; one may be running
  std::map<uint64_t, std::shared_ptr<Work>> known_;
  // the ingest in its time slice; null: NextWork selects one
  std::shared_ptr<Work> begun_;
  size_t ingest_bytes_ = 0;
  uint64_t next_id_ = 1;
  bool stopping_ = false;
  std::atomic<bool> interrupt_{false};  // stop flag of the running ingest
  std::unique_ptr<JoinedThread> keeper_, thread_;
};

}  // namespace longhold
