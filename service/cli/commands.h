// What each command does with the parts that main() put together.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "base/secret.h"
#include "memory/engine.h"
#include "memory/model/shared_model.h"
#include "model/model_catalog.h"
#include "service/cli/cli.h"
#include "service/cli/terminal.h"
#include "service/common/config.h"

namespace longhold {

// Borrowed for the call. `load_model` gives the engine its model, slowly, and returns it as the
// engine has it; only commands that need one call it, after everything cheaper was checked.
struct CommandContext {
  Engine& engine;
  const ModelCatalog& catalog;
  const Config& config;
  Terminal& terminal;
  bool json = false;
  Secret encryption_key;  // the engine's; empty: none
  std::string python;     // for fetching models
  std::function<Result<SharedModel*>()> load_model;
  // the same for an engine of the command's own; main's engine gets none
  std::function<Result<LanguageModel*>()> load_model_only;
  // from here on SIGINT and SIGTERM set the flag; a second one ends the process
  std::function<const std::atomic<bool>*()> catch_signals;
};

// Errors as the engine's; cancelled after a signal, with what to do next.
Status RunCommand(const Command& command, const CommandContext& context);

// `longhold eval` (eval_command.cc).
Status RunEvalCommand(const EvalCommand& command, const CommandContext& context);

// What a report says about program, model and profile. `engine` uses `model`.
EvalEnvironment EnvironmentOf(const LanguageModel& model, const Engine& engine);

// `longhold bench` (bench_command.cc).
Status RunBenchCommand(const BenchCommand& command, const CommandContext& context);
Status RunExportCommand(const ExportCommand& command, const CommandContext& context);
Status RunImportCommand(const ImportCommand& command, const CommandContext& context);

// `longhold calibrate` (calibrate_command.cc).
Status RunCalibrateCommand(const CalibrateCommand& command, const CommandContext& context);

// `longhold chat` (chat_command.cc).
Status RunChatCommand(const ChatCommand& command, const CommandContext& context);

// `longhold key` (key_command.cc).
Status RunKeyCommand(const KeyAddCommand& command, const CommandContext& context);
Status RunKeyCommand(const KeyLimitCommand& command, const CommandContext& context);
Status RunKeyCommand(const KeyListCommand& command, const CommandContext& context);
Status RunKeyCommand(const KeyRemoveCommand& command, const CommandContext& context);

// `longhold serve` (serve_command.cc).
Status RunServeCommand(const ServeCommand& command, const CommandContext& context);

// What `ask` and `chat` share. Ok when `text` can be asked; `what` names it in errors:
// invalid_argument (too long, empty, or no text).
Status CheckQuestion(const std::string& what, const std::string& text);
// Whether answers are shown as they come: stdout is a terminal, and no JSON is wanted.
bool StreamsAnswers(const CommandContext& context);
// Asks, shows the answer as it comes where StreamsAnswers, and then what the engine has to tell.
Result<AskReply> AskShown(const CommandContext& context, const std::string& memory,
                          std::string_view question, AskOptions options);

// The documented exit code of a Status.
int ExitCode(const Status& status);

}  // namespace longhold
