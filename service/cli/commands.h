// The commands of the program. main() builds the parts; these functions run one command with them.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "base/secret.h"
#include "memory/engine.h"
#include "memory/model/shared_model.h"
#include "model/model_catalog.h"
#include "service/cli/cli.h"
#include "service/cli/terminal.h"
#include "service/common/config.h"

namespace longhold {

// The parts that a command works with. The caller owns them; they outlive the call.
struct CommandContext {
  Engine& engine;
  StoreProvider& stores;  // that `engine` uses
  // Stores in another directory, for memories that a command makes for itself.
  std::function<std::unique_ptr<StoreProvider>(const std::string& home)> stores_in;
  const ModelCatalog& catalog;
  const Config& config;
  Terminal& terminal;
  bool json = false;
  Secret encryption_key;  // the key that `engine` uses; empty: none
  std::string python;     // Python interpreter that runs pip to download models
  // Loads the model, which is slow, gives it to `engine` and returns it. A command calls it only if
  // it needs a model, after all cheaper checks.
  std::function<Result<SharedModel*>()> load_model;
  // Loads the model without giving it to `engine`, for commands that create an engine themselves.
  std::function<Result<LanguageModel*>()> load_model_only;
  // After this call SIGINT and SIGTERM set the returned flag. A second signal ends the process.
  std::function<const std::atomic<bool>*()> catch_signals;
};

// Runs one command. Errors: the engine's; cancelled after a signal, with the next step in the
// message.
Status RunCommand(const Command& command, const CommandContext& context);

// `longhold ingest` and `longhold read` (ingest_command.cc).
Status RunIngestCommand(const IngestCommand& command, const CommandContext& context);
Status RunReadCommand(const ReadCommand& command, const CommandContext& context);

// `longhold eval` (eval_command.cc).
Status RunEvalCommand(const EvalCommand& command, const CommandContext& context);

// The program, model and profile that a report names. Must hold: `engine` uses `model`.
EvalEnvironment EnvironmentOf(const LanguageModel& model, const Engine& engine);

// `longhold bench` (bench_command.cc).
Status RunBenchCommand(const BenchCommand& command, const CommandContext& context);
Status RunExportCommand(const ExportCommand& command, const CommandContext& context);
Status RunImportCommand(const ImportCommand& command, const CommandContext& context);

// `longhold calibrate` (calibrate_command.cc), and with --cases (calibrate_cases_command.cc).
Status RunCalibrateCommand(const CalibrateCommand& command, const CommandContext& context);
Status RunCalibrateOnCases(const CalibrateCommand& command, const CommandContext& context);

// `longhold chat` (chat_command.cc).
Status RunChatCommand(const ChatCommand& command, const CommandContext& context);

// `longhold key` (key_command.cc).
Status RunKeyCommand(const KeyAddCommand& command, const CommandContext& context);
Status RunKeyCommand(const KeyLimitCommand& command, const CommandContext& context);
Status RunKeyCommand(const KeyListCommand& command, const CommandContext& context);
Status RunKeyCommand(const KeyRemoveCommand& command, const CommandContext& context);

// `longhold serve` (serve_command.cc).
Status RunServeCommand(const ServeCommand& command, const CommandContext& context);

// `longhold attach-server` (attach_command.cc).
Status RunAttachCommand(const AttachCommand& command, const CommandContext& context);

// Used by `ask` and `chat`. Ok if `text` is a valid question. `what` names the text in errors.
// Errors: invalid_argument (longer than 1 MiB, empty, or not valid text).
Status CheckQuestion(const std::string& what, const std::string& text);
// Whether answers are printed token by token: stdout is a terminal and --json is not given.
bool StreamsAnswers(const CommandContext& context);
// Asks the engine. If StreamsAnswers, it prints the answer while the model generates it. Then it
// prints the engine's notes.
Result<AskReply> AskShown(const CommandContext& context, const std::string& memory,
                          std::string_view question, AskOptions options);

// The process exit code for a Status, as documented in the manual page.
int ExitCode(const Status& status);

}  // namespace longhold
