// `longhold bench`: the speed of ingest and answers at several text lengths, compared with libllama
// alone in the same run, and the speed of the machine.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "eval/haystack.h"
#include "eval/report.h"
#include "eval/runner.h"
#include "memory/engine.h"

namespace longhold {

// Median and quartiles of `count` measurements; all 0 for none. Value type.
struct Spread {
  double median = 0, low = 0, high = 0;  // low and high: first and third quartile
  uint32_t count = 0;
  static Spread Of(std::vector<double> values);
};

// All settings of a run. Value type.
struct SpeedSettings {
  std::vector<uint64_t> lengths = {8192, 32768};
  uint32_t questions = 8;  // per text
  // Runs of libllama alone before each text, the same number after it, and runs of each measurement
  // of the machine.
  uint32_t runs = 3;
  // Longest text for libllama's own full attention; 0: none.
  uint64_t full_length_max = 8192;
  uint32_t max_tokens = 64;  // length limit of an answer
  uint64_t seed = 1;
  std::string haystack = "bible";
  std::string codec = std::string(kDefaultCodec);
};

// Peak arithmetic speed for one number format: multiply-adds whose operands stay in registers.
struct PeakSpeed {
  // "f32" and "fma, 512 bits". `instruction` is empty if the processor has none for this format.
  std::string name, instruction;
  // 10^9 operations per second on all threads. A multiply-add counts as two.
  Spread giga_ops;
};

struct SpeedMachine {
  std::string processor;  // name reported by the Linux kernel
  // The flags that decide which kernels run: "avx2", "avx512_vnni", "amx_int8", ...
  std::vector<std::string> flags;
  uint32_t cores = 0, threads = 0;  // cores online; threads used by the model
  uint64_t memory_bytes = 0;
  Spread read_gb_s;  // 10^9 bytes per second that all threads together read from memory
  std::vector<PeakSpeed> peaks;
};

// libllama's own full attention over the whole text.
struct FullSpeed {
  std::string skipped;  // why it was not measured; empty if it was
  double prefill_tok_s = 0;
  // Time to read a question after the text, whose keys and values are in the cache: the time to the
  // first token.
  Spread tail_ms;
  Spread decode_tok_s;
};

// The measurements of one text.
struct LengthSpeed {
  uint64_t length = 0;  // requested tokens
  uint64_t tokens = 0;  // actual tokens
  // libllama alone with an empty context, before and after the text
  Spread alone_prefill_tok_s, alone_decode_tok_s;
  double read_tok_s = 0;     // ingest of the whole text
  Spread read_pieces_tok_s;  // ingest of pieces of about 2 seconds each
  double first_64k_tok_s = 0, last_64k_tok_s = 0;
  // Peak anonymous memory during ingest, minus that of the process with the model loaded.
  uint64_t read_ram_bytes = 0;
  uint64_t disk_bytes = 0;
  // scan_ms is a part of plan_ms: the scan over the keys of the recall heads.
  Spread plan_ms, scan_ms, recall_ms, prompt_ms, first_token_ms;
  Spread decode_tok_s;         // answers of at least 8 tokens only
  Spread attended_share;       // tokens that an answer attends to / tokens of the text
  uint64_t ask_ram_bytes = 0;  // like read_ram_bytes, for answers
  FullSpeed full;
};

struct SpeedReport {
  EvalEnvironment environment;
  SpeedSettings settings;
  SpeedMachine machine;
  std::vector<LengthSpeed> lengths;
};

// The parts that a run works with. Borrowed for the call.
struct SpeedParts {
  LanguageModel& model;
  // Uses `model`. The memory of a text is in its home while the text is measured.
  Engine& engine;
  NativeRunner native;
  const Haystack& haystack;
  const std::atomic<bool>* stop = nullptr;
  std::function<void(const EvalProgress&)> on_progress;  // sets `label`, and `reading` in an ingest
};

// Describes the machine and measures its peak speeds. Takes a few seconds per run.
SpeedMachine MeasureMachine(LanguageModel& model, uint32_t threads, uint32_t runs);

// Measures each length in turn. Errors: cancelled, and those of engine and model.
Result<std::vector<LengthSpeed>> MeasureSpeed(const SpeedSettings& settings,
                                              const SpeedParts& parts);

std::string SpeedJson(const SpeedReport& report);  // one object on one line
std::string SpeedText(const SpeedReport& report);  // at most 80 columns

}  // namespace longhold
