// Who has the engine, and when: questions in their order, and texts that are read while nobody
// asks.
//
// Questions are answered side by side where the model can be shared (memory/model/shared_model.h);
// what needs much room, and texts, have the engine to themselves. A question does not wait for a
// text to end: the ingest commits what it has read, the question is answered, and the ingest goes
// on from there. Tenants take turns: whose question, or text, is next does not depend on how many
// another one sends.
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

namespace longhold {

struct EngineQueueOptions {
  size_t questions_max = 64;            // of one tenant that wait; more are refused
  size_t tenants_questions_max = 1024;  // of all
  // that wait or run; a tenant's may be half of them, and of their bytes
  size_t ingests_max = 256;
  // of their texts, which are held until they are read
  size_t ingest_bytes_max = 256ull << 20;
  // ingests that have ended and are remembered, the latest
  size_t ended_max = 1024;
  // after each turn of an ingest, on the queue's thread; may be empty
  std::function<void(const IngestReport&)> on_read;
  // the engine's, for answers side by side; null: one after the other
  SharedModel* model = nullptr;
  // where texts are kept until they are read; null: only in RAM
  const Inbox* inbox = nullptr;
  uint64_t first_id = 1;  // of ingests; above those that the inbox holds
  // an ingest that was interrupted runs at least so long before the next question
  std::chrono::milliseconds ingest_turn{500};
  std::chrono::milliseconds tenant_turn{10000};  // and so long before the text of another tenant
  // A text that fails for lack of memory, disk or descriptors, or because its memory is in use, is
  // tried again: after this time, twice as long after each further failure, and so often.
  std::chrono::milliseconds retry_delay{5000};
  uint32_t retries_max = 6;
};

enum class IngestState : uint8_t { kQueued, kRunning, kDone, kFailed, kCancelled };

// What is known of an ingest. Value type.
struct IngestJob {
  uint64_t id = 0;
  std::string memory, document;
  IngestState state = IngestState::kQueued;
  uint64_t tokens_done = 0, tokens_total = 0;  // 0 of 0 until it has begun
  double tokens_per_s = 0;
  // why it failed, or, while it is queued, why the last try did
  Status status;
  std::optional<IngestReport> report;  // when it is done
};

// What a question leaves to be done; nothing where `run` is empty. Value type.
struct Continuation {
  std::function<Continuation(Engine&, bool alone)> run;
  bool alone = false;  // with the engine to itself; else beside others where the question was
};
// `alone`: it has the engine to itself.
using Question = std::function<Continuation(Engine&, bool alone)>;

// Owner: the `serve` command. Thread use: all members are safe to call concurrently; what is queued
// runs on threads of the queue's own.
class EngineQueue {
 public:
  // `engine` has its model, and is the queue's alone while the queue lives.
  EngineQueue(Engine* engine, const EngineQueueOptions& options);
  // As Stop, and waits for it.
  ~EngineQueue();

  // Runs `question`, and what it leaves, on the engine, after those of the same tenant before it
  // (none: the operator's). It must not throw. Errors: resource_exhausted when too many wait,
  // unavailable after Stop; then it is not run.
  Status AskAlone(Question question, const std::string& tenant = "");
  // The same of a question that asks the model, of `memory` (or, when that is empty, of none for
  // long), and may run beside others like it, each in a turn of its own. What it leaves comes
  // before what waits, whatever the bounds, and also after Stop.
  Status AskBeside(Question question, const std::string& tenant, const std::string& memory);
  // How many wait or run.
  size_t questions() const;
  size_t ingests() const;
  // For what of it is safe to call concurrently.
  const Engine& engine() const { return *engine_; }

  // Accepts a text and then calls `accepted`, on another thread: with an inbox once the text is on
  // the disk, so that it is read even if the process ends. Errors, of either: resource_exhausted
  // when too much waits or the disk is full, unavailable after Stop; then it is not read. `admit`
  // (may be empty) is asked on the queue's thread before the text's first turn; where it has an
  // error the ingest has failed.
  Status Ingest(const std::string& memory, IngestInput input,
                std::function<void(Result<IngestJob>)> accepted,
                std::function<Status(Engine&)> admit = nullptr);
  // Of a tenant's texts that wait or are being read.
  uint64_t WaitingBytes(const std::string& tenant) const;
  // Those that an inbox held when the server began, before anything else is accepted.
  void Resume(std::vector<Inbox::Text> texts);
  std::optional<IngestJob> Find(uint64_t id) const;
  // All that are remembered, the latest first.
  std::vector<IngestJob> Ingests() const;
  // Ends an ingest that waits or runs; what was committed stays, and the same text goes on from
  // there. False where there is none such.
  bool Cancel(uint64_t id);

  // Takes nothing more. Questions that wait are still answered; a running ingest commits and ends
  // as cancelled, and so do those that wait: an inbox keeps their texts.
  void Stop();

 private:
  struct Work {
    IngestJob job;
    IngestInput input;
    std::function<Status(Engine&)> admit;
    std::chrono::steady_clock::duration turn{};  // how much of its tenant's turn it has had
    bool cancel = false;
    uint32_t failures = 0;
    std::chrono::steady_clock::time_point not_before{};  // of the next try
  };
  // How many texts of a tenant wait or are being read, and their bytes. With the lock held.
  std::pair<size_t, uint64_t> WaitingOf(const std::string& tenant) const;
  // The tenant of a memory; empty: the operator's.
  static std::string TenantOf(const std::string& memory) { return Engine::SplitName(memory).first; }
  // Whether another tenant's text waits while this one is read.
  bool OthersWait(const std::string& tenant) const;
  // The first text of the tenant whose turn it is, of those that are not to wait; null: there is
  // none.
  std::shared_ptr<Work> NextWork() const;
  // Until something changes, or the next try of a text is due.
  void Wait(std::unique_lock<std::mutex>& lock);
  // Whether a text that failed is to be tried again; then it waits for that.
  bool Retry(Work& work, const Status& failure);
  struct Waiting {
    Question run;
    bool beside = false;
    std::string memory;
  };
  // A question that runs on a thread of its own.
  struct Answering {
    std::string tenant, memory;
    bool ended = false;
    std::unique_ptr<JoinedThread> thread;
  };
  Status Add(Waiting question, const std::string& tenant);
  // Whether the tenant has a place for one more question beside others.
  bool HasPlace(const std::string& tenant) const;
  // Whether the question may begin beside those that run.
  bool MayBegin(const Waiting& question) const;
  void Begin(Waiting question, const std::string& tenant);
  // Runs a question, and what it leaves, each in a turn. What needs the engine to itself is
  // returned.
  Question RunBeside(Question question);
  // With the engine to itself. `lock` is held on entry and on return, not in between.
  void RunAlone(std::unique_lock<std::mutex>& lock, Question question);
  void Run();
  Result<IngestReport> Read(const std::string& memory, const IngestInput& input,
                            const std::function<void(const IngestProgress&)>& on_progress);
  // Gives `work` its turn. `lock` is held on entry and on return, not in between.
  void ReadSome(std::unique_lock<std::mutex>& lock, const std::shared_ptr<Work>& work);
  // A text that is to be read; its bytes count from here on.
  std::shared_ptr<Work> NewWork(uint64_t id, const std::string& memory, IngestInput input);
  // It waits, and can be asked for.
  void Enqueue(const std::shared_ptr<Work>& work);
  void End(std::shared_ptr<Work> work, IngestState state);
  // Writes accepted texts to the inbox, one after the other.
  void KeepTexts();

  Engine* const engine_;
  const EngineQueueOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  TenantRoundRobin<Waiting> questions_;
  // by questions that were answered beside others, for the engine alone
  std::deque<Question> left_;
  std::string read_last_;   // whose text had the last turn
  bool answering_ = false;  // one that has the engine to itself
  std::list<Answering> side_by_side_;
  struct Arrival {
    std::shared_ptr<Work> work;
    std::function<void(Result<IngestJob>)> accepted;
  };
  std::deque<Arrival> arrivals_;  // on their way to the disk
  std::condition_variable arrived_;
  std::deque<std::shared_ptr<Work>> ingests_;  // waiting; one may be running
  std::map<uint64_t, std::shared_ptr<Work>> known_;
  // the one whose turn it is; null: NextWork's
  std::shared_ptr<Work> begun_;
  size_t ingest_bytes_ = 0;
  uint64_t next_id_ = 1;
  bool stopping_ = false;
  std::atomic<bool> interrupt_{false};  // the running ingest's stop flag
  std::unique_ptr<JoinedThread> keeper_, thread_;
};

}  // namespace longhold
