// Who has the engine, and when: questions in their order, and texts that are read while nobody asks.
//
// The engine serves one call at a time. A question does not wait for a text to end: the ingest commits what it has read, the question is
// answered, and the ingest goes on from there.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/joined_thread.h"
#include "memory/engine.h"
#include "service/inbox.h"

namespace longhold {

struct EngineQueueOptions {
  size_t questions_max = 64;                       // that wait; more are refused
  size_t ingests_max = 256;                        // that wait or run
  size_t ingest_bytes_max = 256ull << 20;          // of their texts, which are held until they are read
  size_t ended_max = 1024;                         // ingests that have ended and are remembered, the latest
  std::function<void(const IngestReport&)> on_read; // after each turn of an ingest, on the queue's thread; may be empty
  const Inbox* inbox = nullptr;                    // where texts are kept until they are read; null: only in RAM
  uint64_t first_id = 1;                           // of ingests; above those that the inbox holds
  std::chrono::milliseconds ingest_turn{500};      // an ingest that was interrupted runs at least so long before the next question
};

enum class IngestState : uint8_t { kQueued, kRunning, kDone, kFailed, kCancelled };

// What is known of an ingest. Value type.
struct IngestJob {
  uint64_t id = 0;
  std::string memory, document;
  IngestState state = IngestState::kQueued;
  uint64_t tokens_done = 0, tokens_total = 0;      // 0 of 0 until it has begun
  double tokens_per_s = 0;
  Status status;                                   // why it failed
  std::optional<IngestReport> report;              // when it is done
};

// Owner: the `serve` command. Thread use: all members are safe to call concurrently; what is queued runs on the queue's own thread.
class EngineQueue {
 public:
  // `engine` has its model, and is the queue's alone while the queue lives.
  EngineQueue(Engine* engine, const EngineQueueOptions& options);
  // As Stop, and waits for it.
  ~EngineQueue();

  // Runs `question` on the engine, after those before it. It must not throw. Errors: resource_exhausted when too many wait, unavailable after
  // Stop; then it is not run.
  Status Ask(std::function<void(Engine&)> question);
  // How many wait or run.
  size_t questions() const;
  size_t ingests() const;

  // Accepts a text and then calls `accepted`, on another thread: with an inbox once the text is on the disk, so that it is read even if the
  // process ends. Errors, of either: resource_exhausted when too much waits or the disk is full, unavailable after Stop; then it is not read.
  Status Ingest(const std::string& memory, IngestInput input, std::function<void(Result<IngestJob>)> accepted);
  // Those that an inbox held when the server began, before anything else is accepted.
  void Resume(std::vector<Inbox::Text> texts);
  std::optional<IngestJob> Find(uint64_t id) const;
  // All that are remembered, the latest first.
  std::vector<IngestJob> Ingests() const;
  // Ends an ingest that waits or runs; what was committed stays, and the same text goes on from there. False where there is none such.
  bool Cancel(uint64_t id);

  // Takes nothing more. Questions that wait are still answered; a running ingest commits and ends as cancelled, and so do those that wait: an inbox
  // keeps their texts.
  void Stop();

 private:
  struct Work {
    IngestJob job;
    IngestInput input;
    bool cancel = false;
  };
  void Run();
  Result<IngestReport> Read(const std::string& memory, const IngestInput& input, const std::function<void(const IngestProgress&)>& on_progress);
  // Gives the front of ingests_ its turn. `lock` is held on entry and on return, not in between.
  void ReadSome(std::unique_lock<std::mutex>& lock);
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
  std::deque<std::function<void(Engine&)>> questions_;
  bool answering_ = false;
  struct Arrival {
    std::shared_ptr<Work> work;
    std::function<void(Result<IngestJob>)> accepted;
  };
  std::deque<Arrival> arrivals_;                          // on their way to the disk
  std::condition_variable arrived_;
  std::deque<std::shared_ptr<Work>> ingests_;             // waiting; the front one may be running
  std::map<uint64_t, std::shared_ptr<Work>> known_;
  size_t ingest_bytes_ = 0;
  uint64_t next_id_ = 1;
  bool stopping_ = false;
  std::atomic<bool> interrupt_{false};                    // the running ingest's stop flag
  std::unique_ptr<JoinedThread> keeper_, thread_;
};

}  // namespace longhold
