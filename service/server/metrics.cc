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
  std::mutex mutex;  // of what is set from counts that are kept elsewhere

  Family<Counter>& CounterOf(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Family<Gauge>& GaugeOf(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
  }
  Family<Histogram>& HistogramOf(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
  }

  Family<Counter>& requests =
      CounterOf("longhold_requests_total",
                "Requests, by route and HTTP status; status 0: the client had gone.");
  Family<Histogram>& request_seconds = HistogramOf(
      "longhold_request_seconds", "From a request's last byte to its reply's, waiting included.");
  Histogram& first_token = HistogramOf("longhold_first_token_seconds",
                                       "From the start of a question's work to its first token.")
                               .Add({}, Seconds());
  Histogram& token =
      HistogramOf("longhold_token_seconds", "Time for each further token of an answer.")
          .Add({},
               Histogram::BucketBoundaries{0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1});
  Histogram& plan =
      HistogramOf("longhold_plan_seconds", "Finding what to recall.").Add({}, Seconds());
  Histogram& coverage =
      HistogramOf("longhold_coverage",
                  "Share of the recall heads' attention that the recalled spans hold.")
          .Add({}, Histogram::BucketBoundaries{0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1});
  Counter& abstained =
      CounterOf("longhold_abstained_total", "Questions on which the memory seemed to hold nothing.")
          .Add({});
  Family<Counter>& tokens = CounterOf(
      "longhold_tokens_total",
      "Tokens: of prompts, recalled from memory, read again as text, generated, ingested.");
  Family<Counter>& moved =
      CounterOf("longhold_cold_reads_total", "What answers read from the store: blocks, bytes.");
  Family<Counter>& lost = CounterOf(
      "longhold_lost_total",
      "What could not be read because it is damaged: blocks, spans. Run 'longhold verify'.");
  Family<Gauge>& waiting = GaugeOf("longhold_waiting", "Questions and texts that wait or run.");
  Family<Gauge>& budget =
      GaugeOf("longhold_memory_budget_bytes",
              "Of --memory-budget: its limit, what is reserved, and the most that ever was.");
  Counter& cold_writes = CounterOf("longhold_cold_writes_total",
                                   "Blocks of 64 tokens that ingests moved to the store.")
                             .Add({});
  Counter& opens = CounterOf("longhold_memory_opens_total",
                             "Memories that were opened because they were not open already: their "
                             "indexes come from the disk.")
                       .Add({});
  Counter& stalls =
      CounterOf("longhold_store_stalls_total",
                "How often the store has slowed or stopped writes because it could not follow.")
          .Add({});
  Family<Counter>& verified =
      CounterOf("longhold_verified_total",
                "Memories that were read back over HTTP, by result: good, corrupt.");
  Gauge& disk = GaugeOf("longhold_disk_bytes",
                        "Files of all memories; measured every half minute while somebody asks.")
                    .Add({});
  Gauge& resident =
      GaugeOf("process_resident_memory_bytes", "Resident memory, weights included.").Add({});

  // What a recall and an answer have in common.
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
  f.first_token.Observe(reply.first_token_ms / 1000);
  if (reply.completion_tokens > 1)
    f.token.Observe(reply.decode_ms / 1000 / static_cast<double>(reply.completion_tokens));
  f.Planned(reply.plan_ms, reply.abstained, reply.coverage);
  const auto add = [](Family<Counter>& family, const char* kind, uint64_t count) {
    family.Add({{"kind", kind}}).Increment(static_cast<double>(count));
  };
  add(f.tokens, "prompt", reply.prompt_tokens);
  add(f.tokens, "recalled", reply.tokens_recalled);
  add(f.tokens, "reread", reply.tokens_reencoded);
  add(f.tokens, "completion", reply.completion_tokens);
  add(f.moved, "blocks", reply.blocks_read);
  add(f.moved, "bytes", reply.bytes_read);
  add(f.lost, "blocks", reply.blocks_lost);
  add(f.lost, "spans", reply.spans_lost);
}

void Metrics::Recall(const RecallReply& reply) {
  families_->Planned(reply.plan_ms, reply.abstained, reply.coverage);
  families_->lost.Add({{"kind", "spans"}}).Increment(static_cast<double>(reply.spans_lost));
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
