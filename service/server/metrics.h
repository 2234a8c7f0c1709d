// What the server counts, for Prometheus. prometheus-cpp stops at metrics.cc.
//
// Owner: the `serve` command. Thread use: safe to call concurrently.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "memory/engine.h"

namespace longhold {

// No label says what was asked or by whom, and none has more values than there are routes and
// codes.
class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // A request was answered, or its client had gone: `status` 0. `seconds` from its last byte to the
  // reply's.
  void Request(std::string_view route, unsigned status, double seconds);
  void Answer(const AskReply& reply);
  void Recall(const RecallReply& reply);
  void Ingested(const IngestReport& report);
  // How things stand, set whenever they are asked for.
  void Waiting(size_t questions, size_t ingests);
  void Budget(const MemoryBudget& budget);
  // `opens`: Engine::opens. `stalls`: RocksStalls.
  void Tiers(uint64_t opens, uint64_t stalls);
  // Of the memories' files, all together.
  void DiskBytes(uint64_t bytes);
  // A memory was read back.
  void Verified(bool good);

  // In Prometheus's text format, version 0.0.4.
  std::string Text() const;

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace longhold
