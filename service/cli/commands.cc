#include "service/cli/commands.h"

#include <unistd.h>

#include <algorithm>
#include <variant>

#include "attention/kernels.h"
#include "base/utf8.h"
#include "service/cli/progress.h"
#include "service/cli/questions_first.h"
#include "service/common/render.h"
#include "service/common/text_input.h"

namespace longhold {
namespace {

constexpr uint64_t kQuestionBytesMax = 1 << 20;

void PrintJson(const CommandContext& c, const std::string& json) { c.terminal.Out(json + "\n"); }

// The question, or standard input if `argument` is "-". Line breaks at the end are removed.
Result<std::string> QuestionText(const std::string& argument, const char* what) {
  std::string text = argument;
  if (argument == "-") {
    LH_ASSIGN_OR_RETURN(
        text, ReadDescriptor(STDIN_FILENO, std::string(what) + " on stdin", kQuestionBytesMax));
  }
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  LH_RETURN_IF_ERROR(CheckQuestion(what, text));
  return text;
}

// ------------------------------------------------------------------------------------------------
// models

// Downloads one model and returns its path.
Result<std::string> GetModel(const std::string& name, const CommandContext& c) {
  for (const CatalogModel& model : CatalogModels()) {
    if (model.name == name && !model.terms.empty()) c.terminal.Note(model.terms);
  }
  FetchOptions options;
  options.python = c.python;
  options.stop = c.catch_signals();
  const Result<std::string> path = [&] {
    StatusLine status(&c.terminal);
    options.on_progress = [&](const FetchProgress& p) {
      std::string line = name + ": " + std::string(p.step);
      if (p.bytes_total > 0)
        line += " " + FormatBytes(p.bytes_done) + " of " + FormatBytes(p.bytes_total);
      status.Show(std::string(p.step), line);
    };
    return c.catalog.Fetch(name, options);
  }();
  if (!path.ok() && path.status().code() == StatusCode::kCancelled) {
    return Cancelled("model " + name + ": stopped; run the same command again");
  }
  return path;
}

Status Run(const ModelGetCommand& command, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const std::string path, GetModel(command.name, c));
  if (c.json) {
    PrintJson(c, ModelPathJson(command.name, path));
  } else {
    c.terminal.Out(path + "\n");
  }
  // A language model finds more with the embedding model beside it.
  const std::string& embedder = c.config.embedder.value;
  for (const CatalogModel& model : CatalogModels()) {
    if (model.name != embedder || command.name == embedder ||
        c.catalog.Look(model).kind == CatalogState::Kind::kReady)
      continue;
    const Status status = GetModel(embedder, c).status();
    if (status.code() == StatusCode::kCancelled) return status;
    c.terminal.Note(status.ok() ? "also fetched " + embedder +
                                      ", the embedding model that finds passages by meaning"
                                : status.message() + "; recall works without embedding model " +
                                      embedder + ", by words");
  }
  return OkStatus();
}

Status Run(const ModelListCommand&, const CommandContext& c) {
  const std::vector<ModelEntry> models = c.catalog.List();
  c.terminal.Out(c.json ? CatalogJson(models) + "\n" : CatalogText(models));
  return OkStatus();
}

Status Run(const ModelAddCommand& command, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const AddedModel model, c.catalog.Add(command.name, command.file));
  if (c.json) {
    PrintJson(c, ModelPathJson(model.name, model.path));
  } else {
    c.terminal.Out(model.name + ": " + MakePrintable(model.path) + " (" +
                   (model.architecture.empty() ? "unknown" : model.architecture) + ", " +
                   FormatBytes(model.bytes) + ")\n");
  }
  return OkStatus();
}

Status Run(const ModelRemoveCommand& command, const CommandContext& c) {
  LH_RETURN_IF_ERROR(c.catalog.Remove(command.name));
  if (c.json) {
    PrintJson(c, ModelPathJson(command.name, ""));
  } else {
    c.terminal.Out(command.name + ": name removed, the file is kept\n");
  }
  return OkStatus();
}

Status Run(const IngestCommand& command, const CommandContext& c) {
  return RunIngestCommand(command, c);
}
Status Run(const ReadCommand& command, const CommandContext& c) {
  return RunReadCommand(command, c);
}

// ------------------------------------------------------------------------------------------------
// asking

// Prints the engine's notes.
void ShowNotes(const CommandContext& c) {
  for (const std::string& note : c.engine.TakeNotes()) c.terminal.Note(note);
}

// Prints a warning, also with --quiet, if data was lost. The command still succeeds.
void WarnOfLoss(const Degradation& lost, const std::string& memory, const CommandContext& c) {
  if (lost.blocks_lost + lost.spans_lost == 0) return;
  std::string what = lost.blocks_lost > 0 ? FormatCount(lost.blocks_lost) + " blocks" : "";
  if (lost.spans_lost > 0) {
    what +=
        (what.empty() ? "" : " and ") + ("the text of " + FormatCount(lost.spans_lost) + " spans");
  }
  c.terminal.Warn("warning: " + what + " of " + memory +
                  " could not be read; run 'longhold verify " + memory + "'");
}

Status Run(const AskCommand& command, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const std::string question, QuestionText(command.question, "question"));
  // Checked before the model is loaded, so that a misspelt name fails at once.
  LH_RETURN_IF_ERROR(c.engine.Exists(command.memory));
  const std::atomic<bool>* stop = c.catch_signals();
  const QuestionGoesFirst first(c.config.home.value);
  LH_RETURN_IF_ERROR(c.load_model().status());
  AskOptions options;
  options.answer_prefix = command.answer_prefix;
  options.system = command.system;
  options.max_tokens = command.max_tokens;
  options.sampler = command.sampler;
  options.attend = command.attend == AttendName(command.faithful) ? AttendOptions(command.faithful)
                                                                  : AttendOptions(command.focused);
  options.stop = stop;
  const Result<AskReply> asked = AskShown(c, command.memory, question, options);
  if (*stop && (asked.ok() || asked.status().code() == StatusCode::kCancelled))
    return Cancelled("ask: stopped; run the command again for the whole answer");
  if (!asked.ok()) return asked.status();
  const AskReply& reply = *asked;
  if (c.json) {
    PrintJson(c, AskJson(reply));
  } else {
    if (!StreamsAnswers(c))
      c.terminal.Out(MakePrintable(reply.cited_answer.empty() ? reply.answer : reply.cited_answer) +
                     "\n");
    const std::string citations =
        CitationsText(reply, question + " " + reply.answer, command.memory);
    if (!citations.empty()) c.terminal.Out("\n" + citations);
  }
  WarnOfLoss(reply.degradation, command.memory, c);
  if (!c.json) {
    if (const std::string closest = ClosestText(reply); !closest.empty()) c.terminal.Note(closest);
    if (reply.cut)
      c.terminal.Note("the answer was cut off after " + FormatCount(reply.completion_tokens) +
                      " tokens; raise the limit with --max-tokens");
    std::string timings = TimingsText(reply);
    timings.pop_back();
    c.terminal.Note(timings);
  }
  return OkStatus();
}

Status Run(const RecallCommand& command, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const std::string query, QuestionText(command.query, "query"));
  LH_RETURN_IF_ERROR(c.engine.Exists(command.memory));
  const QuestionGoesFirst first(c.config.home.value);
  LH_RETURN_IF_ERROR(c.load_model().status());
  const Result<RecallReply> recalled = c.engine.Recall(command.memory, query, command.options);
  ShowNotes(c);
  if (!recalled.ok()) return recalled.status();
  const RecallReply& reply = *recalled;
  c.terminal.Out(c.json                    ? RecallJson(reply) + "\n"
                 : command.options.explain ? ExplainText(reply)
                                           : RecallText(reply, query, command.memory));
  WarnOfLoss(reply.degradation, command.memory, c);
  if (!c.json) c.terminal.Note("planned in " + FormatDuration(reply.timings.plan_ms / 1000));
  return OkStatus();
}

// ------------------------------------------------------------------------------------------------
// memories

Status Run(const ListCommand&, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const std::vector<MemoryInfo> memories, c.engine.List());
  c.terminal.Out(c.json ? ListJson(memories) + "\n" : ListText(memories));
  if (memories.empty())
    c.terminal.Note("no memories in " + c.config.home.value +
                    "; 'longhold ingest PATH --into NAME' creates one");
  // Each unreadable memory gets a line on stderr. The exit code is that of one of them; data_loss
  // takes precedence.
  const MemoryInfo* worst = nullptr;
  for (const MemoryInfo& memory : memories) {
    if (memory.status.ok()) continue;
    const MemoryInfo* shown = &memory;
    if (worst == nullptr || (memory.status.code() == StatusCode::kDataLoss &&
                             worst->status.code() != StatusCode::kDataLoss))
      std::swap(worst, shown);
    if (shown != nullptr) c.terminal.Error(shown->status.message());
  }
  return worst == nullptr ? OkStatus() : worst->status;
}

Status Run(const ShowCommand& command, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const MemoryInfo info, c.engine.Show(command.memory));
  c.terminal.Out(c.json ? ShowJson(info) + "\n" : ShowText(info));
  return OkStatus();
}

Status Run(const ForgetCommand& command, const CommandContext& c) {
  // Accepts the name that `show` prints, and also the path that was ingested.
  const std::string document = DocumentName(command.document);
  LH_RETURN_IF_ERROR(c.engine.Forget(command.memory, document, command.compact));
  ShowNotes(c);
  if (c.json) {
    PrintJson(c, ForgetJson(command.memory, document, command.compact));
  } else {
    c.terminal.Out("forgot " +
                   (document.empty() ? "the memory " + command.memory
                                     : CollapseSpace(document) + " of " + command.memory) +
                   "\n");
    if (!command.compact)
      c.terminal.Note("its bytes are still on the disk; run 'longhold compact " + command.memory +
                      "' to remove them");
  }
  return OkStatus();
}

Status Run(const CompactCommand& command, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const MemoryInfo before, c.engine.Show(command.memory));
  if (!command.codec.empty()) {
    const std::atomic<bool>* stop = c.catch_signals();
    const Result<RecodeReport> report = [&] {
      ShownProgress shown(&c.terminal, command.memory);
      return c.engine.Recode(command.memory, command.codec, stop, shown.Listener());
    }();
    if (!report.ok()) return report.status();
    if (report->blocks_lost > 0) {
      c.terminal.Warn("warning: " + FormatCount(report->blocks_lost) + " blocks of " +
                      command.memory +
                      " could not be read and were not converted; run 'longhold verify " +
                      command.memory + "'");
    }
  }
  LH_RETURN_IF_ERROR(c.engine.Compact(command.memory));
  LH_ASSIGN_OR_RETURN(const MemoryInfo after, c.engine.Show(command.memory));
  c.terminal.Out(c.json ? CompactJson(command.memory, before.disk_bytes, after.disk_bytes) + "\n"
                        : command.memory + ": " + FormatBytes(before.disk_bytes) + " before, " +
                              FormatBytes(after.disk_bytes) + " now\n");
  return OkStatus();
}

Status Run(const VerifyCommand& command, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const MemoryInfo info, c.engine.Show(command.memory));
  LH_RETURN_IF_ERROR(c.engine.Verify(command.memory));
  c.terminal.Out(c.json
                     ? VerifyJson(info) + "\n"
                     : command.memory + ": ok, " + FormatCount(info.tokens) + " tokens verified\n");
  return OkStatus();
}

Status Run(const ReindexCommand& command, const CommandContext& c) {
  LH_RETURN_IF_ERROR(c.engine.Exists(command.memory));
  const std::atomic<bool>* stop = c.catch_signals();
  LH_RETURN_IF_ERROR(c.load_model().status());
  const Result<ReindexReport> report = [&] {
    ShownProgress shown(&c.terminal, command.memory);
    return c.engine.Reindex(command.memory, stop, shown.Listener());
  }();
  if (!report.ok()) return report.status();
  c.terminal.Out(c.json ? ReindexJson(command.memory, *report) + "\n"
                        : ReindexText(command.memory, *report));
  if (report->blocks_lost + report->segments_lost > 0) {
    c.terminal.Warn("warning: parts of " + command.memory +
                    " could not be read, so recall may miss them; run 'longhold verify " +
                    command.memory + "'");
  }
  if (report->other_heads && !c.json)
    c.terminal.Note("the old index is still on the disk; run 'longhold compact " + command.memory +
                    "' to remove it");
  return OkStatus();
}

// ------------------------------------------------------------------------------------------------
// others

Status Run(const ExportCommand& command, const CommandContext& c) {
  return RunExportCommand(command, c);
}
Status Run(const ImportCommand& command, const CommandContext& c) {
  return RunImportCommand(command, c);
}
Status Run(const EvalCommand& command, const CommandContext& c) {
  return RunEvalCommand(command, c);
}
Status Run(const BenchCommand& command, const CommandContext& c) {
  return RunBenchCommand(command, c);
}
Status Run(const CalibrateCommand& command, const CommandContext& c) {
  return RunCalibrateCommand(command, c);
}
Status Run(const ChatCommand& command, const CommandContext& c) {
  return RunChatCommand(command, c);
}
Status Run(const KeyAddCommand& command, const CommandContext& c) {
  return RunKeyCommand(command, c);
}
Status Run(const KeyLimitCommand& command, const CommandContext& c) {
  return RunKeyCommand(command, c);
}
Status Run(const KeyListCommand& command, const CommandContext& c) {
  return RunKeyCommand(command, c);
}
Status Run(const KeyRemoveCommand& command, const CommandContext& c) {
  return RunKeyCommand(command, c);
}
Status Run(const ServeCommand& command, const CommandContext& c) {
  return RunServeCommand(command, c);
}
Status Run(const AttachCommand& command, const CommandContext& c) {
  return RunAttachCommand(command, c);
}

Status Run(const ConfigShowCommand& command, const CommandContext& c) {
  c.terminal.Out(c.json ? ConfigJson(c.config) + "\n" : ConfigText(c.config, command.origin));
  return OkStatus();
}

Status Run(const VersionCommand&, const CommandContext& c) {
  c.terminal.Out(c.json ? VersionJson(LONGHOLD_VERSION, Kernels().name) + "\n"
                        : "longhold " LONGHOLD_VERSION " (kernels " + std::string(Kernels().name) +
                              ")\n");
  return OkStatus();
}

}  // namespace

Status CheckQuestion(const std::string& what, const std::string& text) {
  if (text.size() > kQuestionBytesMax)
    return InvalidArgument(what + ": longer than 1 MiB; shorten it, or ingest it as a document");
  if (text.find_first_not_of(" \t\r\n") == std::string::npos)
    return InvalidArgument(what + ": is empty; write what you want to know");
  return CheckText(what, text);
}

bool StreamsAnswers(const CommandContext& c) { return !c.json && c.terminal.out_is_terminal(); }

Result<AskReply> AskShown(const CommandContext& c, const std::string& memory,
                          std::string_view question, AskOptions options) {
  LineWrap wrap(kColumns);
  if (StreamsAnswers(c))
    options.on_text = [&](std::string_view piece) {
      c.terminal.Out(wrap.Feed(MakePrintable(piece)));
    };
  const QuestionGoesFirst first(c.config.home.value);
  Result<AskReply> asked = c.engine.Ask(memory, question, options);
  if (StreamsAnswers(c)) c.terminal.Out(wrap.Finish() + "\n");
  ShowNotes(c);
  return asked;
}

Status RunCommand(const Command& command, const CommandContext& context) {
  return std::visit([&](const auto& one) { return Run(one, context); }, command);
}

int ExitCode(const Status& status) {
  switch (status.code()) {
    case StatusCode::kOk: return 0;
    case StatusCode::kNotFound: return 3;
    case StatusCode::kDataLoss: return 4;
    case StatusCode::kResourceExhausted: return 5;
    case StatusCode::kCancelled: return 130;
    default: return 1;
  }
}

}  // namespace longhold
