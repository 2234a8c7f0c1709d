// Metrics of the server for Prometheus. Only metrics.cc includes prometheus-cpp.
//
// Owner: the `serve` command. Thread use: *synchronised*.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "memory/engine.h"
#include "store/value_store.h"

namespace longhold {

// Labels never identify content or clients. The number of their values is bounded by the routes,
// status codes and kinds.
class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // Counts a finished request. `status` is 0 when the client disconnected first. `seconds` run from
  // the last byte of the request to the reply.
  void Request(std::string_view route, unsigned status, double seconds);
  void Answer(const AskReply& reply);
  void Recall(const RecallReply& reply);
  void Ingested(const IngestReport& report);
  // Gauges, set when the metrics are requested.
  void Waiting(size_t questions, size_t ingests);
  void Budget(const MemoryBudget& budget);
  // `opens`: Engine::opens. `stalls`: StoreProvider::WriteStalls.
  void Tiers(uint64_t opens, uint64_t stalls);
  // Size of the files of all memories.
  void DiskBytes(uint64_t bytes);
  // What the stores of Redis clients count and hold, and their server's connections and commands.
  void Values(const ValueStats& stats, uint64_t connections, uint64_t commands);
  // Counts a verified memory.
  void Verified(bool good);

  // Returns all metrics in the text format of Prometheus, version 0.0.4.
  std::string Text() const;

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace longhold
