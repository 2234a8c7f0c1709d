// kernel_counts LEVEL CASE TIMES: calls one kernel TIMES times on a fixed case, for
// kernel_counts_test.py, which counts the instructions. kernel_counts --list prints the names of
// the cases, one per line.
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/attention/attention_cases.h"

namespace longhold {
namespace {

// Constructed once and run many times: the test takes the difference between many runs and few.
using Work = std::function<std::function<void()>(const KernelTable&)>;

Work Attend(AttendShape shape, bool key_mass) {
  return [shape, key_mass](const KernelTable& table) {
    const auto c = std::make_shared<AttendCase>(shape);
    const AttendCall call = c->Call(key_mass);
    return [c, call, &table] { table.attend(call); };
  };
}

Work Scan(ScanShape shape) {
  return [shape](const KernelTable& table) {
    const auto c = std::make_shared<ScanCase>(shape);
    const ScanCall call = c->Call();
    return [c, call, &table] { table.scan(call); };
  };
}

Work Multiply(uint32_t rows, uint32_t depth, uint32_t columns) {
  return [=](const KernelTable& table) {
    const auto a = std::make_shared<std::vector<float>>(size_t{rows} * depth, 0.5f);
    const auto b = std::make_shared<std::vector<float>>(size_t{depth} * columns, 0.25f);
    const auto out = std::make_shared<std::vector<float>>(size_t{rows} * columns);
    return [=, &table] {
      table.multiply_add({.a = a->data(),
                          .b = b->data(),
                          .out = out->data(),
                          .rows = rows,
                          .depth = depth,
                          .columns = columns});
    };
  };
}

Work Widen(size_t count) {
  return [=](const KernelTable& table) {
    const auto fp16 = std::make_shared<std::vector<uint16_t>>(count, uint16_t{0x3C01});
    const auto floats = std::make_shared<std::vector<float>>(count);
    return [=, &table] { table.half_to_float(fp16->data(), floats->data(), count); };
  };
}

Work Narrow(size_t count) {
  return [=](const KernelTable& table) {
    const auto floats = std::make_shared<std::vector<float>>(count, 1.0005f);
    const auto fp16 = std::make_shared<std::vector<uint16_t>>(count);
    return [=, &table] { table.float_to_half(floats->data(), fp16->data(), count); };
  };
}

const std::map<std::string, Work, std::less<>>& Cases() {
  static const std::map<std::string, Work, std::less<>> cases = {
      {"attend_prefill",
       Attend({.rows = 48, .group = 3, .head_dim = 64, .blocks = 7, .random_masks = false}, false)},
      {"attend_decode", Attend({.rows = 3,
                                .group = 3,
                                .head_dim = 64,
                                .blocks = 20,
                                .bias = true,
                                .random_masks = false},
                               true)},
      {"attend_decode_fp16",
       Attend(
           {.rows = 3, .group = 3, .head_dim = 64, .blocks = 20, .random_masks = false, .fp16 = 3},
           true)},
      {"attend_softcap", Attend({.rows = 8,
                                 .group = 4,
                                 .head_dim = 256,
                                 .blocks = 4,
                                 .softcap = 30.0f,
                                 .random_masks = false},
                                false)},
      {"scan_question", Scan({.rows = 90, .head_dim = 64, .blocks = 64})},
      {"scan_token", Scan({.rows = 3, .head_dim = 64, .blocks = 64})},
      {"multiply_add", Multiply(64, 192, 192)},
      {"half_to_float", Widen(12288)},
      {"float_to_half", Narrow(12288)},
  };
  return cases;
}

int Main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--list") {
    for (const auto& [name, work] : Cases()) std::puts(name.c_str());
    return 0;
  }
  if (argc != 4) {
    std::fprintf(stderr, "usage: kernel_counts LEVEL CASE TIMES | kernel_counts --list\n");
    return 2;
  }
  const auto work = Cases().find(argv[2]);
  if (work == Cases().end()) {
    std::fprintf(stderr, "no case %s; see kernel_counts --list\n", argv[2]);
    return 2;
  }
  for (const KernelTable* table : SupportedKernels()) {
    if (table->name != argv[1]) continue;
    const std::function<void()> run = work->second(*table);
    for (int i = std::atoi(argv[3]); i > 0; --i) run();
    return 0;
  }
  std::fprintf(stderr, "this processor has no kernels %s\n", argv[1]);
  return 2;
}

}  // namespace
}  // namespace longhold

int main(int argc, char** argv) { return longhold::Main(argc, argv); }
