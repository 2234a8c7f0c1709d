#include "service/server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <mutex>
#include <sstream>

#include "base/process_memory.h"

namespace longhold {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;

const Histogram::BucketBoundaries& Seconds() {
  static const Histogram::BucketBoundaries bounds = {0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5,
                                                     1,     2,     5,    10,   30,  60};
  return bounds;
}

}  // namespace

struct Metrics::Families {
  prometheus::Registry registry;
  std::mutex mutex;  // for counters that are set from counts kept elsewhere

  Family<Counter>& CounterOf(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Family<Gauge>& GaugeOf(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
  }
  Family<Histogram>& HistogramOf(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
  }

  Family<Counter>& requests = CounterOf(
      "longhold_requests_total",
      "Requests by route and HTTP status; status 0: the client disconnected before the reply.");
  Family<Histogram>& request_seconds =
      HistogramOf("longhold_request_seconds",
                  "Seconds from the last byte of a request to its reply, including waiting.");
  Histogram& first_token =
      HistogramOf("longhold_first_token_seconds",
                  "Seconds from the start of work on a question to its first token.")
          .Add({}, Seconds());
  Histogram& token =
      HistogramOf("longhold_token_seconds", "Seconds for each further token of an answer.")
          .Add({},
               Histogram::BucketBoundaries{0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1});
  Histogram& plan =
      HistogramOf("longhold_plan_seconds", "Seconds to plan a recall.").Add({}, Seconds());
  Histogram& coverage =
      HistogramOf("longhold_coverage",
                  "Share of the attention of the recall heads that the recalled spans cover.")
          .Add({}, Histogram::BucketBoundaries{0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1});
  Counter& abstained =
      CounterOf("longhold_abstained_total",
                "Questions that the memory did not seem to answer: the reply abstained.")
          .Add({});
  Family<Counter>& tokens =
      CounterOf("longhold_tokens_total",
                "Tokens by kind: prompt, recalled, reencoded, completion, ingested.");
  Family<Counter>& moved = CounterOf("longhold_cold_reads_total",
                                     "Reads of answers from the store, by kind: blocks, bytes.");
  Family<Counter>& lost = CounterOf(
      "longhold_lost_total",
      "Reads that failed because of damage, by kind: blocks, spans. Run 'longhold verify'.");
  Family<Gauge>& waiting =
      GaugeOf("longhold_waiting", "Questions and ingests that wait or run, by kind.");
  Family<Gauge>& budget =
      GaugeOf("longhold_memory_budget_bytes",
              "--memory-budget, by kind: its limit, the reserved bytes, and their maximum.");
  Counter& cold_writes = CounterOf("longhold_cold_writes_total",
                                   "Blocks of 64 tokens that ingests wrote to the store.")
                             .Add({});
  Counter& opens = CounterOf("longhold_memory_opens_total",
                             "Memories opened, which loads their indexes from the disk.")
                       .Add({});
  Counter& stalls =
      CounterOf("longhold_store_stalls_total", "How often the store slowed down or stopped writes.")
          .Add({});
  Family<Counter>& verified = CounterOf("longhold_verified_total",
                                        "Memories verified over HTTP, by result: good, corrupt.");
  Gauge& disk =
      GaugeOf("longhold_disk_bytes",
              "Size of the files of all memories; measured at most every 30 seconds, on a scrape.")
          .Add({});
  // They appear once Values was called: a server without --resp has none.
  Family<Counter>& value_events =
      CounterOf("longhold_values_total",
                "Values of Redis clients, by event: hit_ram, hit_disk, miss, evicted, expired, "
                "damaged.");
  Family<Counter>& value_written =
      CounterOf("longhold_value_written_bytes_total", "Bytes of values that Redis clients set.");
  Family<Gauge>& value_keys = GaugeOf("longhold_value_keys", "Values of Redis clients now.");
  Family<Gauge>& value_bytes =
      GaugeOf("longhold_value_bytes",
              "Bytes of values, by kind: values, ram, ram_limit, disk, disk_limit.");
  Family<Gauge>& resp_connections =
      GaugeOf("longhold_resp_connections", "Connections of Redis clients now.");
  Family<Counter>& resp_commands =
      CounterOf("longhold_resp_commands_total", "Commands of Redis clients.");
  Gauge& resident =
      GaugeOf("process_resident_memory_bytes", "Resident memory, including the weights.").Add({});

  // Metrics that a recall and an answer have in common.
  void Planned(double plan_ms, bool was_abstained, const std::optional<double>& covered) {
    plan.Observe(plan_ms / 1000);
    if (was_abstained)
      abstained.Increment();
    else if (covered.has_value())
      coverage.Observe(*covered);
  }
};

Metrics::Metrics() : families_(std::make_unique<Families>()) {}
Metrics::~Metrics() = default;

void Metrics::Request(std::string_view route, unsigned status, double seconds) {
  const std::string name(route);
  families_->requests.Add({{"route", name}, {"status", std::to_string(status)}}).Increment();
  families_->request_seconds.Add({{"route", name}}, Seconds()).Observe(seconds);
}

void Metrics::Answer(const AskReply& reply) {
  Families& f = *families_;
  f.first_token.Observe(reply.timings.first_token_ms / 1000);
  if (reply.completion_tokens > 1)
    f.token.Observe(reply.timings.decode_ms / 1000 / static_cast<double>(reply.completion_tokens));
  f.Planned(reply.timings.plan_ms, reply.abstained, reply.coverage);
  const auto add = [](Family<Counter>& family, const char* kind, uint64_t count) {
    family.Add({{"kind", kind}}).Increment(static_cast<double>(count));
  };
  add(f.tokens, "prompt", reply.prompt_tokens);
  add(f.tokens, "recalled", reply.tokens_recalled);
  add(f.tokens, "reencoded", reply.tokens_reencoded);
  add(f.tokens, "completion", reply.completion_tokens);
  add(f.moved, "blocks", reply.blocks_read);
  add(f.moved, "bytes", reply.bytes_read);
  add(f.lost, "blocks", reply.degradation.blocks_lost);
  add(f.lost, "spans", reply.degradation.spans_lost);
}

void Metrics::Recall(const RecallReply& reply) {
  families_->Planned(reply.timings.plan_ms, reply.abstained, reply.coverage);
  families_->lost.Add({{"kind", "spans"}})
      .Increment(static_cast<double>(reply.degradation.spans_lost));
}

void Metrics::Ingested(const IngestReport& report) {
  families_->tokens.Add({{"kind", "ingested"}}).Increment(static_cast<double>(report.tokens_read));
  families_->cold_writes.Increment(static_cast<double>(report.tokens_read / kBlockTokens));
}

void Metrics::Waiting(size_t questions, size_t ingests) {
  families_->waiting.Add({{"kind", "questions"}}).Set(static_cast<double>(questions));
  families_->waiting.Add({{"kind", "ingests"}}).Set(static_cast<double>(ingests));
}

void Metrics::Budget(const MemoryBudget& budget) {
  const auto set = [&](const char* kind, uint64_t bytes) {
    families_->budget.Add({{"kind", kind}}).Set(static_cast<double>(bytes));
  };
  set("limit", budget.limit_bytes());
  set("used", budget.used_bytes());
  set("peak", budget.peak_bytes());
}

void Metrics::Tiers(uint64_t opens, uint64_t stalls) {
  const std::lock_guard lock(families_->mutex);
  families_->opens.Increment(static_cast<double>(opens) - families_->opens.Value());
  families_->stalls.Increment(static_cast<double>(stalls) - families_->stalls.Value());
}

void Metrics::DiskBytes(uint64_t bytes) { families_->disk.Set(static_cast<double>(bytes)); }

void Metrics::Values(const ValueStats& stats, uint64_t connections, uint64_t commands) {
  Families& f = *families_;
  const std::lock_guard lock(f.mutex);
  const auto raise = [](Counter& counter, uint64_t value) {
    counter.Increment(static_cast<double>(value) - counter.Value());
  };
  const auto event = [&](const char* name, uint64_t value) {
    raise(f.value_events.Add({{"event", name}}), value);
  };
  event("hit_ram", stats.hits_ram);
  event("hit_disk", stats.hits_disk);
  event("miss", stats.misses);
  event("evicted", stats.evicted);
  event("expired", stats.expired);
  event("damaged", stats.damaged);
  raise(f.value_written.Add({}), stats.written_bytes);
  raise(f.resp_commands.Add({}), commands);
  f.value_keys.Add({}).Set(static_cast<double>(stats.keys));
  f.resp_connections.Add({}).Set(static_cast<double>(connections));
  const auto bytes = [&](const char* kind, uint64_t value) {
    f.value_bytes.Add({{"kind", kind}}).Set(static_cast<double>(value));
  };
  bytes("values", stats.value_bytes);
  bytes("ram", stats.ram_bytes);
  bytes("ram_limit", stats.ram_bytes_max);
  bytes("disk", stats.disk_bytes);
  bytes("disk_limit", stats.disk_bytes_max);
}

void Metrics::Verified(bool good) {
  families_->verified.Add({{"result", good ? "good" : "corrupt"}}).Increment();
}

std::string Metrics::Text() const {
  families_->resident.Set(static_cast<double>(ProcessStatusBytes("VmRSS")));
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families_->registry.Collect());
  return out.str();
}

}  // namespace longhold
