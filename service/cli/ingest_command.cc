// `longhold ingest` and `longhold read`: the two steps that take a text into a memory.
#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "service/cli/commands.h"
#include "service/cli/progress.h"
#include "service/cli/questions_first.h"
#include "service/common/render.h"
#include "service/common/text_input.h"

extern char** environ;

namespace longhold {
namespace {

// How often a reading in the background tries, once a second, where another process writes.
constexpr int kWriterTries = 600;

uint64_t PeakRssBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;  // Linux counts in KiB
}

// The result for one document: "genesis.txt: read 54,012 tokens in 104 s".
std::string OutcomeText(const std::string& name, const IngestReport& report) {
  const std::string tokens = FormatCount(report.tokens) + " tokens";
  switch (report.outcome) {
    case IngestReport::Outcome::kUnchanged:
      return name + ": already in the memory" +
             (report.document == name ? "" : " as " + report.document) + " (" + tokens +
             "), skipped";
    case IngestReport::Outcome::kResumed:
      return name + ": resumed, read the last " + FormatCount(report.tokens_read) + " of " +
             tokens + " in " + FormatDuration(report.seconds);
    default:
      return name + ": " +
             (report.version > 1 ? "version " + std::to_string(report.version) + ", " : "") +
             "read " + tokens + " in " + FormatDuration(report.seconds);
  }
}

void AddRead(const IngestReport& report, IngestSummary* summary) {
  if (report.tokens_read == 0) return;
  if (summary->tokens_read == 0) summary->first_64k_tok_s = report.first_64k_tok_s;
  summary->last_64k_tok_s = report.last_64k_tok_s;
  summary->tokens_read += report.tokens_read;
  summary->seconds += report.seconds;
}

std::string Numbered(size_t i, size_t count) {
  return count > 1 ? "[" + std::to_string(i) + "/" + std::to_string(count) + "] " : "";
}

// Makes all texts searchable. Those that the model has read already are noted.
Status IndexAll(const TextInputs& inputs, const std::string& memory, const std::atomic<bool>* stop,
                const CommandContext& c, IngestSummary* summary) {
  const size_t count = inputs.sources.size();
  for (size_t i = 0; i < count; ++i) {
    const TextSource& source = inputs.sources[i];
    const Status stopped =
        Cancelled("ingest of " + source.name +
                  ": stopped, the progress is saved; run the same command again to resume");
    if (*stop) return stopped;
    LH_ASSIGN_OR_RETURN(std::string text, ReadText(source));
    const std::string label = Numbered(i + 1, count) + source.name;
    LH_ASSIGN_OR_RETURN(const IngestReport report, [&] {
      ShownProgress shown(&c.terminal, label + ", indexing");
      return c.engine.Index(memory, {.name = source.name, .text = std::move(text)}, stop,
                            shown.Listener());
    }());
    if (report.outcome == IngestReport::Outcome::kStopped) return stopped;
    if (report.outcome == IngestReport::Outcome::kUnchanged)
      c.terminal.Note(Numbered(i + 1, count) + OutcomeText(source.name, report));
    ++summary->documents;
    summary->tokens += report.tokens;
    summary->tokens_indexed += report.tokens_indexed;
    summary->index_seconds += report.index_seconds;
  }
  return OkStatus();
}

// What a reading may take. Value type.
struct ReadLimits {
  double budget = 1;  // share of the time
  uint64_t tokens = UINT64_MAX;
  bool background = false;  // questions of other processes and other writers go first
};

// Has the model read what it has not read. Ok also where the limit of tokens ended it.
Status ReadAll(const std::string& memory, const ReadLimits& limits, const std::atomic<bool>* stop,
               const CommandContext& c, IngestSummary* summary) {
  LH_ASSIGN_OR_RETURN(const MemoryInfo info, c.engine.Show(memory));
  size_t unread = 0;
  for (const DocumentInfo& d : info.documents) unread += d.committed_tokens < d.tokens;
  std::atomic<bool> ends{false};
  uint64_t done = 0;  // tokens that were read
  for (size_t i = 1;; ++i) {
    const std::string number = Numbered(std::min(i, unread), unread);
    std::optional<ShownProgress> shown;
    const auto on_pass =
        [&, last = std::chrono::steady_clock::now()](const IngestProgress& progress) mutable {
          if (!shown) shown.emplace(&c.terminal, number + std::string(progress.document));
          shown->Listener()(progress);
          done += progress.pass_tokens;
          ends = *stop || done >= limits.tokens;
          const auto worked = std::chrono::steady_clock::now() - last;
          if (limits.budget < 1 && !ends)
            std::this_thread::sleep_for(worked * (1 / limits.budget - 1));
          if (limits.background) WaitForQuestions(c.config.home.value, *stop);
          last = std::chrono::steady_clock::now();
        };
    ends = stop->load();
    Result<IngestReport> read = c.engine.ReadNext(memory, nullptr, &ends, on_pass);
    // Another process that writes: an answer that keeps what was read for it, or an ingest.
    for (int tries = 0; limits.background && tries < kWriterTries && !*stop &&
                        read.status().code() == StatusCode::kFailedPrecondition;
         ++tries) {
      std::this_thread::sleep_for(std::chrono::seconds(1));
      read = c.engine.ReadNext(memory, nullptr, &ends, on_pass);
    }
    LH_ASSIGN_OR_RETURN(const IngestReport report, std::move(read));
    shown.reset();
    if (report.outcome == IngestReport::Outcome::kUnchanged) return OkStatus();
    AddRead(report, summary);
    if (report.outcome == IngestReport::Outcome::kStopped && *stop) {
      return Cancelled("reading of " + report.document +
                       ": stopped, the progress is saved; run the same command again to resume");
    }
    if (report.outcome == IngestReport::Outcome::kStopped) return OkStatus();
    c.terminal.Note(number + OutcomeText(report.document, report));
  }
}

Status PrintSummary(IngestSummary summary, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const MemoryInfo info, c.engine.Show(summary.memory));
  summary.disk_bytes = info.disk_bytes;
  summary.tokens_unread = info.tokens - info.tokens_read;
  summary.peak_rss_bytes = PeakRssBytes();
  c.terminal.Out(c.json ? IngestJson(summary) + "\n" : IngestText(summary));
  return OkStatus();
}

// From now on every other program goes first on the processor.
void GoLast() {
  setpriority(PRIO_PROCESS, 0, 19);
  // Linux shares the processor among sessions before it looks at the priority of a process (man 7
  // sched, "The autogroup feature"). Where there is no such file, there is nothing to do.
  std::ofstream("/proc/self/autogroup") << 19;
}

// Starts `longhold read MEMORY` in a session of its own, with the settings of this process.
Status ReadInBackground(const std::string& memory, double budget, const CommandContext& c) {
  const Config& config = c.config;
  std::vector<std::string> words = {"longhold",
                                    "read",
                                    memory,
                                    "--background",
                                    "--quiet",
                                    "--home",
                                    config.home.value,
                                    "--model",
                                    config.model.value,
                                    "--embedder",
                                    config.embedder.value,
                                    "--threads",
                                    std::to_string(config.threads.value),
                                    "--memory-budget",
                                    std::to_string(config.memory_budget_bytes.value),
                                    "--read-budget",
                                    std::to_string(budget)};
  for (const auto& [flag, value] : {std::pair("--profile", &config.profile.value),
                                    std::pair("--encryption-key", &config.encryption_key.value)}) {
    if (value->empty()) continue;
    words.push_back(flag);
    words.push_back(*value);
  }
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  for (const int stream : {STDOUT_FILENO, STDERR_FILENO})
    posix_spawn_file_actions_addopen(&files, stream, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
  pid_t child = 0;
  const int failed =
      posix_spawn(&child, "/proc/self/exe", &files, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (failed != 0) {
    return Internal("reading could not be started in the background; 'longhold read " + memory +
                    "' reads in the foreground");
  }
  c.terminal.Note("reading goes on in the background (process " + std::to_string(child) +
                  "); 'longhold show " + memory + "' says how far it is");
  return OkStatus();
}

}  // namespace

Status RunIngestCommand(const IngestCommand& command, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const TextInputs inputs, CollectInputs(command.paths, STDIN_FILENO,
                                                             {.ignore_rules = !command.no_ignore}));
  for (const std::string& note : inputs.notes) c.terminal.Note(note);
  const std::atomic<bool>* stop = c.catch_signals();
  LH_RETURN_IF_ERROR(c.load_model().status());
  if (!command.codec.empty()) LH_RETURN_IF_ERROR(c.engine.UseCodec(command.codec));
  IngestSummary summary{.memory = command.memory};
  LH_RETURN_IF_ERROR(IndexAll(inputs, command.memory, stop, c, &summary));
  if (!command.background && !command.index_only) {
    LH_RETURN_IF_ERROR(ReadAll(command.memory, {.budget = command.read_budget}, stop, c, &summary));
  }
  LH_RETURN_IF_ERROR(PrintSummary(std::move(summary), c));
  if (!command.background) return OkStatus();
  c.engine.CloseMemory();  // the reader writes to the memory
  return ReadInBackground(command.memory, command.read_budget, c);
}

Status RunReadCommand(const ReadCommand& command, const CommandContext& c) {
  if (command.background) GoLast();
  LH_RETURN_IF_ERROR(c.engine.Exists(command.memory));
  const std::atomic<bool>* stop = c.catch_signals();
  LH_RETURN_IF_ERROR(c.load_model().status());
  LH_ASSIGN_OR_RETURN(const MemoryInfo info, c.engine.Show(command.memory));
  if (info.model_fingerprint != c.engine.model_info().fingerprint) {
    return FailedPrecondition("memory " + command.memory + ": was written by model " + info.model +
                              "; read it with that one (--model)");
  }
  IngestSummary summary{.memory = command.memory};
  LH_RETURN_IF_ERROR(ReadAll(command.memory,
                             {command.read_budget, command.tokens, command.background}, stop, c,
                             &summary));
  return PrintSummary(std::move(summary), c);
}

}  // namespace longhold
