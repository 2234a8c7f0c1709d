#include "eval/speed.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <sstream>

#include "attention/machine_peak.h"
#include "eval/prompts.h"
#include "eval/ram.h"
#include "eval/rng.h"
#include "eval/task.h"

namespace longhold {
namespace {

using Clock = std::chrono::steady_clock;

// Larger than the caches, so that the reads come from memory.
constexpr size_t kReadBytes = size_t{256} << 20;
constexpr double kPeakSeconds = 0.1;
// libllama alone starts with an empty context. Prefill is measured on one batch, decoding after a
// short prompt.
constexpr size_t kAlonePrompt = 512, kAloneStart = 16;
constexpr uint32_t kAloneTokens = 64;
// The speed of shorter answers is too noisy.
constexpr uint64_t kDecodeTokensMin = 8;
// Length of a piece of an ingest whose speed is recorded separately. Progress is reported several
// times per piece.
constexpr double kPieceSeconds = 2;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string LineOf(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':');
    const size_t begin =
        colon == std::string::npos ? std::string::npos : line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

// The processor's flags that decide which kernels run.
std::vector<std::string> Flags() {
  std::vector<std::string> out;
  std::istringstream flags(LineOf("/proc/cpuinfo", "flags"));
  for (std::string flag; flags >> flag;) {
    for (const char* wanted : {"avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw",
                               "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"}) {
      if (flag == wanted) out.push_back(flag);
    }
  }
  return out;
}

Spread MeasureReads(LanguageModel& model, uint32_t threads, uint32_t runs) {
  const std::vector<uint64_t> words(kReadBytes / sizeof(uint64_t), 1);
  std::vector<double> speeds;
  const size_t each = words.size() / threads;
  std::vector<uint64_t> sums(threads);
  for (uint32_t run = 0; run < runs; ++run) {
    const auto start = Clock::now();
    model.Parallel(threads,
                   [&](size_t i) { sums[i] = SumWords(std::span(words).subspan(i * each, each)); });
    speeds.push_back(static_cast<double>(each * threads * sizeof(uint64_t)) / Since(start) / 1e9);
    for (const uint64_t sum : sums) LH_CHECK(sum == each);
  }
  return Spread::Of(std::move(speeds));
}

PeakSpeed MeasurePeak(LanguageModel& model, const PeakLoop& loop, uint32_t threads, uint32_t runs) {
  PeakSpeed peak{
      .name = std::string(loop.name), .instruction = std::string(loop.instruction), .giga_ops = {}};
  if (loop.run == nullptr) return peak;
  // Double the number of rounds until they take long enough to be timed.
  uint64_t rounds = 1 << 16;
  for (double seconds = 0; seconds < kPeakSeconds / 2; rounds *= 2) {
    const auto start = Clock::now();
    loop.run(rounds);
    seconds = Since(start);
  }
  std::vector<double> speeds;
  for (uint32_t run = 0; run < runs; ++run) {
    const auto start = Clock::now();
    model.Parallel(threads, [&](size_t) { loop.run(rounds); });
    speeds.push_back(static_cast<double>(rounds) * static_cast<double>(loop.operations_per_round) *
                     threads / Since(start) / 1e9);
  }
  peak.giga_ops = Spread::Of(std::move(speeds));
  return peak;
}

// Questions about the text. Each names the two longest words near a random place; the places are
// spread over the whole text.
std::vector<std::string> Questions(std::string_view text, uint32_t count, uint64_t seed) {
  std::vector<std::string> out;
  EvalRng rng(seed, "speed questions");
  for (uint32_t i = 0; i < count; ++i) {
    const size_t low = text.size() * i / count, high = text.size() * (i + 1) / count;
    const size_t at = low + rng.Below(std::max<size_t>(1, high - low));
    std::istringstream words(std::string(text.substr(at, 200)));
    std::string cut, first, second;
    words >> cut;  // may begin in the middle of a word
    for (std::string word; words >> word;) {
      std::erase_if(word, [](char c) { return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z'); });
      if (word.size() > first.size()) {
        second = first;
        first = word;
      } else if (word.size() > second.size() && word != first) {
        second = word;
      }
    }
    out.push_back("What does the text say about " + first +
                  (second.empty() ? "" : " and " + second) + "?");
  }
  return out;
}

class Runner {
 public:
  Runner(const SpeedSettings& settings, const SpeedParts& parts)
      : settings_(settings), parts_(parts) {}

  Result<std::vector<LengthSpeed>> Run() {
    std::vector<LengthSpeed> out;
    for (const uint64_t length : settings_.lengths) {
      LH_ASSIGN_OR_RETURN(LengthSpeed one, RunLength(length));
      out.push_back(std::move(one));
    }
    return out;
  }

 private:
  bool Stopped() const { return parts_.stop != nullptr && *parts_.stop; }
  static Status StoppedStatus() { return Cancelled("bench: stopped"); }

  void Report(const std::string& label, const IngestProgress& reading = {}) const {
    if (parts_.on_progress) parts_.on_progress({.label = label, .reading = reading});
  }

  Result<LengthSpeed> RunLength(uint64_t length) {
    const std::string name = LengthName(length);
    Report(name + ": making the text");
    TextRequest request{.task = "niah_multikey_1",
                        .length = length,
                        .seed = settings_.seed,
                        .haystack = &parts_.haystack};
    LH_ASSIGN_OR_RETURN(const EvalText text,
                        BuildText(request, [&](std::string_view piece) -> Result<uint64_t> {
                          LH_ASSIGN_OR_RETURN(const TokenizedText tokenized,
                                              TokenizeForPrompt(parts_.model, piece));
                          return tokenized.tokens.size();
                        }));
    LH_ASSIGN_OR_RETURN(const TokenizedText tokenized, TokenizeForPrompt(parts_.model, text.text));
    const std::vector<std::string> questions =
        Questions(text.text, settings_.questions, settings_.seed);

    LengthSpeed speed{.length = length, .tokens = text.tokens};
    std::vector<double> prefill, decode;
    Report(name + ": libllama alone");
    LH_RETURN_IF_ERROR(RunAlone(tokenized.tokens, &prefill, &decode));
    const std::string memory = "bench-" + std::to_string(length);
    Status status = ReadText(memory, text.text, name, &speed);
    if (status.ok()) status = Ask(memory, questions, name, &speed);
    if (status.ok()) {
      Report(name + ": libllama alone, again");
      status = RunAlone(tokenized.tokens, &prefill, &decode);
    }
    const Status forgotten = parts_.engine.Forget(memory, "", false);
    LH_RETURN_IF_ERROR(status);
    LH_RETURN_IF_ERROR(forgotten);
    speed.alone_prefill_tok_s = Spread::Of(std::move(prefill));
    speed.alone_decode_tok_s = Spread::Of(std::move(decode));
    LH_RETURN_IF_ERROR(RunFull(tokenized.tokens, questions, name, &speed.full));
    return speed;
  }

  Status RunAlone(std::span<const TokenId> tokens, std::vector<double>* prefill,
                  std::vector<double>* decode) const {
    for (uint32_t run = 0; run < settings_.runs; ++run) {
      if (Stopped()) return StoppedStatus();
      LH_ASSIGN_OR_RETURN(
          const std::vector<NativeRun> read,
          parts_.native(tokens.subspan(0, std::min(kAlonePrompt, tokens.size())), {{}}, 0));
      LH_ASSIGN_OR_RETURN(const std::vector<NativeRun> spoken,
                          parts_.native(tokens.subspan(0, std::min(kAloneStart, tokens.size())),
                                        {{}}, kAloneTokens));
      prefill->push_back(read[0].prefill_tok_s);
      if (spoken[0].tokens.size() >= kDecodeTokensMin) decode->push_back(spoken[0].decode_tok_s);
    }
    return OkStatus();
  }

  Status ReadText(const std::string& memory, const std::string& text, const std::string& name,
                  LengthSpeed* speed) {
    std::vector<double> pieces;
    auto piece_start = Clock::now();
    uint64_t piece_tokens = 0;
    ram_.Begin();
    LH_ASSIGN_OR_RETURN(
        const IngestReport read,
        parts_.engine.Ingest(
            memory, {.name = "text", .text = text}, parts_.stop,
            [&](const IngestProgress& progress) {
              const double seconds = Since(piece_start);
              if (progress.tokens_done > piece_tokens && seconds >= kPieceSeconds) {
                pieces.push_back(static_cast<double>(progress.tokens_done - piece_tokens) /
                                 seconds);
                piece_start = Clock::now();
                piece_tokens = progress.tokens_done;
              }
              Report(name + ": longhold", progress);
            }));
    if (read.outcome == IngestReport::Outcome::kStopped) return StoppedStatus();
    speed->read_ram_bytes = ram_.Bytes();
    speed->read_tok_s = static_cast<double>(read.tokens_read) / std::max(1e-9, read.seconds);
    speed->read_pieces_tok_s = Spread::Of(std::move(pieces));
    speed->first_64k_tok_s = read.first_64k_tok_s;
    speed->last_64k_tok_s = read.last_64k_tok_s;
    LH_ASSIGN_OR_RETURN(const MemoryInfo info, parts_.engine.Show(memory));
    speed->disk_bytes = info.disk_bytes;
    return OkStatus();
  }

  Status Ask(const std::string& memory, const std::vector<std::string>& questions,
             const std::string& name, LengthSpeed* speed) {
    std::vector<double> plan, scan, recall, prompt, first, decode, attended;
    ram_.Begin();
    for (const std::string& question : questions) {
      if (Stopped()) return StoppedStatus();
      Report(name + ": longhold answers");
      AskOptions options;
      options.max_tokens = settings_.max_tokens;
      // Do not abstain: an answer is needed to measure its speed.
      options.focused().recall.abstain = false;
      options.stop = parts_.stop;
      LH_ASSIGN_OR_RETURN(const AskReply reply, parts_.engine.Ask(memory, question, options));
      plan.push_back(reply.timings.plan_ms);
      scan.push_back(reply.timings.scan_ms);
      recall.push_back(reply.timings.recall_ms);
      prompt.push_back(reply.timings.prompt_ms);
      first.push_back(reply.timings.first_token_ms);
      if (reply.completion_tokens >= kDecodeTokensMin) decode.push_back(reply.timings.decode_tok_s);
      attended.push_back(static_cast<double>(reply.tokens_recalled + reply.prompt_tokens) /
                         static_cast<double>(std::max<uint64_t>(1, reply.memory_tokens)));
    }
    speed->ask_ram_bytes = ram_.Bytes();
    speed->plan_ms = Spread::Of(std::move(plan));
    speed->scan_ms = Spread::Of(std::move(scan));
    speed->recall_ms = Spread::Of(std::move(recall));
    speed->prompt_ms = Spread::Of(std::move(prompt));
    speed->first_token_ms = Spread::Of(std::move(first));
    speed->decode_tok_s = Spread::Of(std::move(decode));
    speed->attended_share = Spread::Of(std::move(attended));
    return OkStatus();
  }

  Status RunFull(std::span<const TokenId> tokens, const std::vector<std::string>& questions,
                 const std::string& name, FullSpeed* full) const {
    if (tokens.size() > settings_.full_length_max) {
      full->skipped = "longer than --full-max";
      return OkStatus();
    }
    if (Stopped()) return StoppedStatus();
    Report(name + ": libllama's full attention");
    std::vector<TokenId> prefix;
    std::vector<std::vector<TokenId>> tails;
    for (const std::string& question : questions) {
      LH_ASSIGN_OR_RETURN(NativePrompt prompt,
                          BuildNativePrompt(parts_.model, tokens, question, ""));
      prefix = std::move(prompt.prefix);
      tails.push_back(std::move(prompt.tail));
    }
    const Result<std::vector<NativeRun>> runs = parts_.native(prefix, tails, settings_.max_tokens);
    if (!runs.ok() && runs.status().code() == StatusCode::kResourceExhausted) {
      full->skipped = "no memory for its keys and values";
      return OkStatus();
    }
    if (!runs.ok()) return runs.status();
    std::vector<double> tail, decode;
    for (const NativeRun& run : *runs) {
      tail.push_back(run.tail_ms);
      if (run.tokens.size() >= kDecodeTokensMin) decode.push_back(run.decode_tok_s);
    }
    full->prefill_tok_s = runs->front().prefill_tok_s;
    full->tail_ms = Spread::Of(std::move(tail));
    full->decode_tok_s = Spread::Of(std::move(decode));
    return OkStatus();
  }

  const SpeedSettings& settings_;
  const SpeedParts& parts_;
  RamMeter ram_;
};

}  // namespace

Spread Spread::Of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  // Interpolates linearly between the two nearest ranks.
  const auto at = [&](double share) {
    const double rank = share * static_cast<double>(values.size() - 1);
    const size_t low = static_cast<size_t>(rank), high = std::min(low + 1, values.size() - 1);
    return values[low] + (rank - static_cast<double>(low)) * (values[high] - values[low]);
  };
  return {.median = at(0.5),
          .low = at(0.25),
          .high = at(0.75),
          .count = static_cast<uint32_t>(values.size())};
}

SpeedMachine MeasureMachine(LanguageModel& model, uint32_t threads, uint32_t runs) {
  SpeedMachine machine;
  machine.processor = LineOf("/proc/cpuinfo", "model name");
  machine.flags = Flags();
  machine.cores = static_cast<uint32_t>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  machine.threads = threads;
  machine.memory_bytes =
      static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  machine.read_gb_s = MeasureReads(model, threads, runs);
  for (const PeakLoop& loop : PeakLoops())
    machine.peaks.push_back(MeasurePeak(model, loop, threads, runs));
  return machine;
}

Result<std::vector<LengthSpeed>> MeasureSpeed(const SpeedSettings& settings,
                                              const SpeedParts& parts) {
  return Runner(settings, parts).Run();
}

}  // namespace longhold
