// Speed of the attention kernels on one core, for every kernel table that this processor supports.
// Report the median of several repetitions:
//   kernel_bench --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
//   [--benchmark_filter=avx2/attend]
// Counters:
//   flops          4 x rows x visible keys x head_dim for attend (two products); 2 per multiply-add
//                  for multiply_add
//   ops            the same for the scan of int8 keys
//   bytes          the bytes that a call must read at least once; for conversions also those
//   written of_peak, of_bandwidth
//                  the share of the peak speed of one core, measured when the program starts
//                  (attention/machine_peak.h)
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "attention/machine_peak.h"
#include "tests/attention/attention_cases.h"

namespace longhold {
namespace {

using benchmark::Counter;

double SecondsOf(auto&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The best of five runs of about 20 ms each.
double Best(double work_per_run, auto&& run) {
  double best = 0;
  for (int i = 0; i < 5; ++i) best = std::max(best, work_per_run / SecondsOf(run));
  return best;
}

struct Machine {
  double f32 = 0, int8 = 0, bandwidth = 0;  // operations and bytes per second
};

const Machine& MeasuredMachine() {
  static const Machine machine = [] {
    Machine m;
    const auto peak = [](const PeakLoop& loop) {
      constexpr uint64_t kRounds = 400'000;
      return loop.run == nullptr ? 0.0
                                 : Best(static_cast<double>(kRounds * loop.operations_per_round),
                                        [&] { loop.run(kRounds); });
    };
    m.f32 = peak(PeakLoops()[0]);
    m.int8 = peak(PeakLoops()[1]);
    std::vector<uint64_t> words(size_t{32} << 20, 1);
    m.bandwidth = Best(static_cast<double>(words.size() * sizeof(uint64_t)),
                       [&] { benchmark::DoNotOptimize(SumWords(words)); });
    return m;
  }();
  return machine;
}

void Count(benchmark::State& state, const char* what, double operations, double peak,
           double bytes) {
  const auto rate = Counter::kIsIterationInvariantRate;
  if (operations > 0) {
    state.counters[what] = Counter(operations, rate);
    if (peak > 0) state.counters["of_peak"] = Counter(operations / peak, rate);
  }
  state.counters["bytes"] = Counter(bytes, rate);
  state.counters["of_bandwidth"] = Counter(bytes / MeasuredMachine().bandwidth, rate);
}

void Attend(benchmark::State& state, const KernelTable* table, AttendShape shape) {
  shape.random_masks = false;
  AttendCase c(shape);
  const AttendCall call = c.Call(false);
  for (auto _ : state) table->attend(call);
  const double numbers = 2.0 * shape.blocks * kBlockTokens * shape.head_dim;
  Count(state, "flops", 2.0 * shape.rows * numbers, MeasuredMachine().f32,
        numbers * (shape.fp16 == 3 ? 2 : 4));
}

void Scan(benchmark::State& state, const KernelTable* table, ScanShape shape) {
  ScanCase c(shape);
  const ScanCall call = c.Call();
  for (auto _ : state) table->scan(call);
  const double bytes = static_cast<double>(shape.blocks) * kBlockTokens * shape.head_dim;
  Count(state, "ops", 2.0 * shape.rows * bytes, MeasuredMachine().int8, bytes);
}

void Multiply(benchmark::State& state, const KernelTable* table, uint32_t rows, uint32_t depth,
              uint32_t columns) {
  const std::vector<float> a(size_t{rows} * depth, 0.5f), b(size_t{depth} * columns, 0.25f);
  std::vector<float> out(size_t{rows} * columns);
  for (auto _ : state) {
    table->multiply_add({.a = a.data(),
                         .b = b.data(),
                         .out = out.data(),
                         .rows = rows,
                         .depth = depth,
                         .columns = columns});
  }
  const double bytes = static_cast<double>(a.size() + b.size() + 2 * out.size()) * sizeof(float);
  Count(state, "flops", 2.0 * rows * depth * columns, MeasuredMachine().f32, bytes);
}

void Widen(benchmark::State& state, const KernelTable* table, size_t count) {
  const std::vector<uint16_t> fp16(count, 0x3C01);
  std::vector<float> floats(count);
  for (auto _ : state) table->half_to_float(fp16.data(), floats.data(), count);
  Count(state, "", 0, 0, static_cast<double>(count) * 6);
}

void Narrow(benchmark::State& state, const KernelTable* table, size_t count) {
  const std::vector<float> floats(count, 1.0005f);
  std::vector<uint16_t> fp16(count);
  for (auto _ : state) table->float_to_half(floats.data(), fp16.data(), count);
  Count(state, "", 0, 0, static_cast<double>(count) * 6);
}

void Register() {
  for (const KernelTable* table : SupportedKernels()) {
    const std::string level(table->name);
    const auto add = [&](const std::string& name, auto function, auto... arguments) {
      benchmark::RegisterBenchmark((level + "/" + name).c_str(), function, table, arguments...);
    };
    // Prefill: 16 tokens with a group of 3 query heads that see sinks and window. Decode: one token
    // with the same keys, with recalled blocks, and with more keys than the caches hold. Keys are
    // fp32, or fp16 where the name says so.
    add("attend/prefill_r48_d64_b7", Attend,
        AttendShape{.rows = 48, .group = 3, .head_dim = 64, .blocks = 7});
    add("attend/prefill_r48_d64_b40", Attend,
        AttendShape{.rows = 48, .group = 3, .head_dim = 64, .blocks = 40});
    add("attend/prefill_r48_d128_b7", Attend,
        AttendShape{.rows = 48, .group = 3, .head_dim = 128, .blocks = 7});
    add("attend/decode_r3_d64_b7", Attend,
        AttendShape{.rows = 3, .group = 3, .head_dim = 64, .blocks = 7});
    add("attend/decode_fp16_r3_d64_b7", Attend,
        AttendShape{.rows = 3, .group = 3, .head_dim = 64, .blocks = 7, .fp16 = 3});
    add("attend/decode_r4_d128_b20", Attend,
        AttendShape{.rows = 4, .group = 4, .head_dim = 128, .blocks = 20});
    add("attend/decode_r4_d256_b40", Attend,
        AttendShape{.rows = 4, .group = 4, .head_dim = 256, .blocks = 40});
    add("attend/decode_r3_d64_b4096", Attend,
        AttendShape{.rows = 3, .group = 3, .head_dim = 64, .blocks = 4096});
    add("attend/decode_fp16_r3_d64_b4096", Attend,
        AttendShape{.rows = 3, .group = 3, .head_dim = 64, .blocks = 4096, .fp16 = 3});
    add("scan/r90_d64_b4096", Scan, ScanShape{.rows = 90, .head_dim = 64, .blocks = 4096});
    add("scan/r3_d64_b4096", Scan, ScanShape{.rows = 3, .head_dim = 64, .blocks = 4096});
    add("scan/r90_d128_b4096", Scan, ScanShape{.rows = 90, .head_dim = 128, .blocks = 4096});
    add("multiply_add/64x192x192", Multiply, 64u, 192u, 192u);
    add("half_to_float/12288", Widen, size_t{12288});
    add("float_to_half/12288", Narrow, size_t{12288});
  }
}

}  // namespace
}  // namespace longhold

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  longhold::Register();
  const longhold::Machine& machine = longhold::MeasuredMachine();
  std::fprintf(stderr, "one core: f32 %.1f GFLOPS, int8 %.1f GOPS, reads %.1f GB/s\n",
               machine.f32 / 1e9, machine.int8 / 1e9, machine.bandwidth / 1e9);
  benchmark::RunSpecifiedBenchmarks();
}
