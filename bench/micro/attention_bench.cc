// Speed of the attention kernels, one core, every table this processor runs. Report the median of several repetitions:
//   attention_bench --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
// Counters: flops counts 4 x rows x visible keys x head_dim for attend (two products); macs counts rows x keys x
// head_dim for the scan; bytes is what a call has to read at least once (keys and values).
#include <benchmark/benchmark.h>

#include "tests/attention/attention_cases.h"

namespace longhold {
namespace {

using benchmark::Counter;

void Attend(benchmark::State& state, const KernelTable* table, AttendShape shape) {
  shape.random_masks = false;
  AttendCase c(shape);
  const AttendCall call = c.Call(false);
  for (auto _ : state) table->attend(call);
  const double keys = static_cast<double>(shape.blocks) * kBlockTokens;
  state.counters["flops"] = Counter(4.0 * shape.rows * keys * shape.head_dim, Counter::kIsIterationInvariantRate);
  state.counters["bytes"] = Counter(8.0 * keys * shape.head_dim, Counter::kIsIterationInvariantRate);
}

void Scan(benchmark::State& state, const KernelTable* table, ScanShape shape) {
  ScanCase c(shape);
  const ScanCall call = c.Call();
  for (auto _ : state) table->scan(call);
  const double macs =
      static_cast<double>(shape.rows) * static_cast<double>(shape.blocks) * kBlockTokens * shape.head_dim;
  state.counters["macs"] = Counter(macs, Counter::kIsIterationInvariantRate);
}

void Register() {
  for (const KernelTable* table : SupportedKernels()) {
    const std::string level(table->name);
    const auto attend = [&](const char* name, AttendShape shape) {
      benchmark::RegisterBenchmark((level + "/attend/" + name).c_str(), Attend, table, shape);
    };
    const auto scan = [&](const char* name, ScanShape shape) {
      benchmark::RegisterBenchmark((level + "/scan/" + name).c_str(), Scan, table, shape);
    };
    // 16 tokens of a group of 3 that see sinks and a window; then one token with the same, with a full recall panel,
    // and with more keys than the second-level cache holds.
    attend("prefill_r48_d64_b7", {.rows = 48, .group = 3, .head_dim = 64, .blocks = 7});
    attend("prefill_r48_d64_b40", {.rows = 48, .group = 3, .head_dim = 64, .blocks = 40});
    attend("prefill_r48_d128_b7", {.rows = 48, .group = 3, .head_dim = 128, .blocks = 7});
    attend("decode_r3_d64_b7", {.rows = 3, .group = 3, .head_dim = 64, .blocks = 7});
    attend("decode_r4_d128_b20", {.rows = 4, .group = 4, .head_dim = 128, .blocks = 20});
    attend("decode_r3_d64_b512", {.rows = 3, .group = 3, .head_dim = 64, .blocks = 512});
    scan("r90_d64_b4096", {.rows = 90, .head_dim = 64, .blocks = 4096});
    scan("r3_d64_b4096", {.rows = 3, .head_dim = 64, .blocks = 4096});
    scan("r90_d128_b4096", {.rows = 90, .head_dim = 128, .blocks = 4096});
  }
}

}  // namespace
}  // namespace longhold

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  longhold::Register();
  benchmark::RunSpecifiedBenchmarks();
}
