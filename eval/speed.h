// How fast the engine reads and answers along the length of a text, beside the model's own
// attention in the same run, and on what machine.
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

// Median and quartiles of what was measured `count` times; all 0 for nothing. Value type.
struct Spread {
  double median = 0, low = 0, high = 0;  // low and high are the first and the third quartile
  uint32_t count = 0;
  static Spread Of(std::vector<double> values);
};

// Everything that decides what a run does.
struct SpeedSettings {
  std::vector<uint64_t> lengths = {8192, 32768};
  uint32_t questions = 8;  // asked of each text
  // of the engine alone before each text and as many after it, and of the machine's measures
  uint32_t runs = 3;
  // longer texts are not given to the model's own full attention; 0: none is
  uint64_t full_length_max = 8192;
  uint32_t max_tokens = 64;  // of an answer
  uint64_t seed = 1;
  std::string haystack = "bible";
  std::string codec = std::string(kDefaultCodec);
};

// A product of two numbers of that kind and its sum, as often as registers allow.
struct PeakSpeed {
  // "f32", "fma, 512 bits"; no instruction: this processor has none
  std::string name, instruction;
  // 10^9 operations a second on all threads; a multiply-add is two
  Spread giga_ops;
};

struct SpeedMachine {
  std::string processor;  // as the kernel names it
  // of those that matter here: "avx2", "avx512_vnni", "amx_int8", ...
  std::vector<std::string> flags;
  uint32_t cores = 0, threads = 0;  // that are online; that the model uses
  uint64_t memory_bytes = 0;
  Spread read_gb_s;  // 10^9 bytes a second that all threads read from memory
  std::vector<PeakSpeed> peaks;
};

// The model's own attention over the whole text.
struct FullSpeed {
  std::string skipped;  // why there are no figures; empty where there are
  double prefill_tok_s = 0;
  // reading a question behind the text that was read before: what it has for a first token
  Spread tail_ms;
  Spread decode_tok_s;
};

// One text.
struct LengthSpeed {
  uint64_t length = 0;  // asked
  uint64_t tokens = 0;  // what the text really has
  // the engine alone, empty context, before and after
  Spread alone_prefill_tok_s, alone_decode_tok_s;
  double read_tok_s = 0;     // the whole text
  Spread read_pieces_tok_s;  // of pieces of a few seconds each
  double first_64k_tok_s = 0, last_64k_tok_s = 0;
  // most anonymous memory while reading, beside what the process had with the model loaded
  uint64_t read_ram_bytes = 0;
  uint64_t disk_bytes = 0;
  // scan_ms is part of plan_ms: the recall heads' keys
  Spread plan_ms, scan_ms, recall_ms, prompt_ms, first_token_ms;
  Spread decode_tok_s;    // of answers of at least 8 tokens
  Spread attended_share;  // tokens that an answer attends to, of the text's
  uint64_t ask_ram_bytes = 0;
  FullSpeed full;
};

struct SpeedReport {
  EvalEnvironment environment;
  SpeedSettings settings;
  SpeedMachine machine;
  std::vector<LengthSpeed> lengths;
};

// Borrowed for the call.
struct SpeedParts {
  LanguageModel& model;
  // uses that model; a text's memory lives in its home while it is measured
  Engine& engine;
  NativeRunner native;
  const Haystack& haystack;
  const std::atomic<bool>* stop = nullptr;
  std::function<void(const EvalProgress&)> on_progress;  // label, and reading while a text is read
};

// What kind of machine this is and how fast at best. Takes a few seconds a run.
SpeedMachine MeasureMachine(LanguageModel& model, uint32_t threads, uint32_t runs);

// Measures each length in turn. Errors: cancelled, and what engine and model report.
Result<std::vector<LengthSpeed>> MeasureSpeed(const SpeedSettings& settings,
                                              const SpeedParts& parts);

std::string SpeedJson(const SpeedReport& report);  // one object on one line
std::string SpeedText(const SpeedReport& report);  // at most 80 columns

}  // namespace longhold
