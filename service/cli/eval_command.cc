// `longhold eval`: runs an evaluation, prints its progress and writes its reports.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "attention/kernels.h"
#include "base/hash.h"
#include "eval/embed_retriever.h"
#include "eval/journal.h"
#include "eval/report_charts.h"
#include "eval/runner.h"
#include "model/embedder.h"
#include "model/llama_host.h"
#include "service/cli/commands.h"
#include "service/cli/memory_home.h"
#include "service/cli/model_choice.h"
#include "service/cli/profile_file.h"
#include "service/cli/progress.h"
#include "service/common/render.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

// A hash of the profile without its calibration record. It changes with every value that affects
// recall.
std::string ProfileFingerprint(RecallProfile profile) {
  profile.calibration.clear();
  char hex[17];
  std::snprintf(hex, sizeof hex, "%016llx",
                static_cast<unsigned long long>(Hash64(profile.ToJson())));
  return hex;
}

// Ok if a run that began in environment `then` may resume in `now`: same model and profile.
Status SameRun(const EvalEnvironment& then, const EvalEnvironment& now,
               const std::string& directory) {
  if (then.model_fingerprint != now.model_fingerprint) {
    return FailedPrecondition(directory + ": the run used the model " + then.model + " (" +
                              then.model_fingerprint + "), this is " + now.model + " (" +
                              now.model_fingerprint + "); give the same --model");
  }
  if (then.profile_fingerprint != now.profile_fingerprint) {
    return FailedPrecondition(directory + ": the run used another recall profile (" + then.profile +
                              ", " + then.profile_fingerprint + "); start a new run");
  }
  return OkStatus();
}

// "[12/240] niah_single_2 4k longhold, 2:31 left".
std::string StatusOf(const EvalProgress& p) {
  std::string line = "[" + FormatCount(p.done) + "/" + FormatCount(p.total) + "] " + p.label;
  if (p.reading.tokens_total > 0) {
    line += ", reading " + FormatCount(p.reading.tokens_done) + " of " +
            FormatCount(p.reading.tokens_total);
  }
  if (p.seconds_left > 0) line += ", " + FormatDuration(p.seconds_left) + " left";
  return line;
}

std::string Absolute(const std::string& path) {
  std::error_code ec;
  const fs::path absolute = fs::absolute(path, ec);
  return ec ? path : absolute.string();
}

// Takes journal and settings of the run that is resumed; for a new run completes `*settings`.
Status ResumeOrPrepare(const EvalCommand& command, std::optional<Journal>* journal,
                       EvalSettings* settings) {
  if (!command.resume.empty()) {
    LH_ASSIGN_OR_RETURN(Journal opened, Journal::Open(command.resume));
    journal->emplace(std::move(opened));
    *settings = (*journal)->settings();
  } else {
    // Absolute paths, because a run may be resumed from another working directory.
    if (settings->haystack != "bible") settings->haystack = Absolute(settings->haystack);
    if (!settings->questions_file.empty())
      settings->questions_file = Absolute(settings->questions_file);
    settings->keep = command.keep;
  }
  return OkStatus();
}

// The embedder of the baselines that retrieve by embeddings; null without them.
Result<std::unique_ptr<TextEmbedder>> EmbedderFor(const EvalSettings& settings,
                                                  const CommandContext& c) {
  const bool embeds = std::any_of(settings.modes.begin(), settings.modes.end(), [](EvalMode mode) {
    return mode == EvalMode::kRagEmbed || mode == EvalMode::kRagHybrid;
  });
  if (!embeds) return std::unique_ptr<TextEmbedder>();
  Result<std::string> path = c.catalog.Resolve("minilm-l6", ModelKind::kEmbedding);
  if (!path.ok()) return path.status();
  return LoadEmbedder({.path = *path, .threads = c.config.threads.value});
}

}  // namespace

EvalEnvironment EnvironmentOf(const LanguageModel& model, const Engine& engine) {
  return {.version = LONGHOLD_VERSION,
          .kernels = std::string(Kernels().name),
          .model = model.info().name,
          .model_fingerprint = model.info().fingerprint,
          .profile = engine.profile().name,
          .profile_fingerprint = ProfileFingerprint(engine.profile())};
}

Status RunEvalCommand(const EvalCommand& command, const CommandContext& c) {
  const std::string directory = command.resume.empty() ? command.out : command.resume;
  std::optional<Journal> journal;
  EvalSettings settings = command.settings;
  LH_RETURN_IF_ERROR(ResumeOrPrepare(command, &journal, &settings));
  const bool keep = command.keep || settings.keep;
  std::vector<FileQuestion> questions;
  if (!settings.questions_file.empty()) {
    LH_ASSIGN_OR_RETURN(questions, LoadQuestions(settings.questions_file));
  }
  Haystack haystack;
  if (NeedsHaystack(settings)) {
    LH_ASSIGN_OR_RETURN(haystack, LoadHaystack(settings.haystack));
  }

  const std::atomic<bool>* stop = c.catch_signals();
  LH_ASSIGN_OR_RETURN(LanguageModel* const model, c.load_model_only());
  LH_ASSIGN_OR_RETURN(MemoryHome home,
                      directory.empty() ? MemoryHome::Temporary() : MemoryHome::In(directory));
  if (journal) home.Keep();  // an error must not delete the memories of the resumed run
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<TextEmbedder> embedder,
                      LoadChosenEmbedder(c.config, c.catalog));
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<TextEmbedder> baseline, EmbedderFor(settings, c));
  const std::unique_ptr<StoreProvider> stores = c.stores_in(home.path());
  Engine engine(stores.get(), {.memory_budget_bytes = c.config.memory_budget_bytes.value});
  LH_RETURN_IF_ERROR(engine.UseCodec(settings.codec));
  LH_RETURN_IF_ERROR(UseModelWithProfile(c.config, model, embedder.get(), &engine));
  EvalReport report{.environment = EnvironmentOf(*model, engine),
                    .settings = settings,
                    .notes = {},
                    .rows = {},
                    .results = {}};
  if (journal) {
    LH_RETURN_IF_ERROR(SameRun(journal->environment(), report.environment, directory));
    report.rows = journal->rows();
  } else if (!directory.empty()) {
    LH_ASSIGN_OR_RETURN(Journal created, Journal::Create(directory, settings, report.environment));
    journal.emplace(std::move(created));
    home.Keep();
  }

  Result<std::vector<std::string>> notes = [&] {
    StatusLine status(&c.terminal);
    const std::vector<EvalRow> done = report.rows;
    const EvalParts parts{
        .model = *model,
        .engine = engine,
        .native = NativeRunnerOf(*model, stop),
        .embed = baseline == nullptr ? RetrieverMaker() : [&](std::string_view text) {
          return BuildEmbedRetriever(text, *baseline, {.stop = stop, .on_progress = nullptr});
        },
        .haystack = &haystack,
        .questions = &questions,
        .keep_memories = keep,
        .stop = stop,
        .on_progress = [&](const EvalProgress& progress) { status.Show("", StatusOf(progress)); },
        .on_row = [&](const EvalRow& row) -> Status {
          report.rows.push_back(row);
          return journal ? journal->Append(row) : OkStatus();
        }};
    return RunEval(settings, done, parts);
  }();
  const bool stopped = *stop && (notes.ok() || notes.status().code() == StatusCode::kCancelled);
  if (!notes.ok() && !stopped) return notes.status();
  report.complete = !stopped;
  if (notes.ok()) report.notes = *notes;
  report.results = Summarise(report.rows, settings.seed);
  if (!directory.empty()) LH_RETURN_IF_ERROR(WriteReport(report, directory, WriteCharts));
  if (stopped) {
    return Cancelled(directory.empty()
                         ? "eval: stopped; with --out DIR a run can be resumed"
                         : "eval: stopped, " + FormatCount(report.rows.size()) +
                               " answers are saved; resume with 'longhold eval --resume " +
                               directory + "'");
  }
  c.terminal.Out(c.json ? ReportJson(report) + "\n" : ReportText(report));
  if (!directory.empty() && !keep) {
    std::error_code ec;
    fs::remove_all(home.path(), ec);
  }
  return OkStatus();
}

}  // namespace longhold
