// The program's entry point: builds all parts and runs one command. No other file builds them.

#include <malloc.h>
#include <signal.h>

#include <atomic>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <thread>

#include "base/seal.h"
#include "base/user_directories.h"
#include "memory/engine.h"
#include "memory/model/shared_model.h"
#include "model/llama_host.h"
#include "model/model_catalog.h"
#include "service/cli/cli.h"
#include "service/cli/commands.h"
#include "service/cli/model_choice.h"
#include "service/cli/profile_file.h"
#include "service/cli/terminal.h"
#include "service/common/config.h"
#include "store/rocks_provider.h"

namespace {

using namespace longhold;

std::atomic<bool> stop_requested = false;
static_assert(std::atomic<bool>::is_always_lock_free);  // written by a signal handler

extern "C" void OnSignal(int) {
  stop_requested = true;
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
}

const std::atomic<bool>* CatchSignals() {
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  return &stop_requested;
}

// Runs the command and returns its Status. The caller prints errors.
Status Execute(const Invocation& invocation, Terminal& terminal) {
  LH_ASSIGN_OR_RETURN(const Config config,
                      LoadConfig(invocation.flags, GetEnvironment, HomeDirectory(),
                                 std::thread::hardware_concurrency()));
  const ModelCatalog catalog(config.models_dir);
  std::unique_ptr<LanguageModel> model;  // these three outlive the engine
  std::optional<SharedModel> shared;
  std::unique_ptr<TextEmbedder> embedder;
  Secret encryption_key;
  if (!config.encryption_key.value.empty()) {
    LH_ASSIGN_OR_RETURN(encryption_key, ReadSealKey(config.encryption_key.value));
  }
  // The one place that names the kind of store.
  const std::unique_ptr<StoreProvider> stores = NewRocksProvider(config.home.value);
  Engine engine(stores.get(), {.memory_budget_bytes = config.memory_budget_bytes.value,
                               .encryption_key = encryption_key});
  const auto load_model_only = [&]() -> Result<LanguageModel*> {
    const std::string memory = std::visit(
        [](const auto& command) {
          if constexpr (requires { command.memory; })
            return command.memory;
          else
            return std::string();
        },
        invocation.command);
    LH_ASSIGN_OR_RETURN(const std::string path, ChooseModel(config, catalog, engine, memory));
    const bool serves = std::holds_alternative<ServeCommand>(invocation.command);
    LlamaOptions options{.path = path, .threads = config.threads.value};
    options.sequences = serves ? SharedModelOptions().answers_max : 1;
    options.native_bytes = config.memory_budget_bytes.value / 8;
    LH_ASSIGN_OR_RETURN(model, LoadLlama(options));
    return model.get();
  };
  const auto load_model = [&]() -> Result<SharedModel*> {
    LH_ASSIGN_OR_RETURN(LanguageModel* const loaded, load_model_only());
    shared.emplace(loaded,
                   SharedModelOptions{.room = [&engine] { return engine.HasRoomForAnother(); }});
    LH_ASSIGN_OR_RETURN(embedder, LoadChosenEmbedder(config, catalog));
    LH_RETURN_IF_ERROR(UseModelWithProfile(config, &*shared, embedder.get(), &engine));
    if (engine.profile().name == kGenericProfile) {
      terminal.Note(loaded->info().name +
                    ": has no recall profile of its own, so the default one is used; 'longhold "
                    "calibrate' learns one");
    }
    if (embedder == nullptr && config.embedder.origin == kDefaultOrigin) {
      terminal.Note(
          "no embedding model, so places that say it in other words are missed; "
          "'longhold model get " +
          config.embedder.value + "' brings one");
    }
    return &*shared;
  };
  LH_RETURN_IF_ERROR(RunCommand(invocation.command,
                                {.engine = engine,
                                 .stores = *stores,
                                 .stores_in = NewRocksProvider,
                                 .catalog = catalog,
                                 .config = config,
                                 .terminal = terminal,
                                 .json = invocation.json,
                                 .encryption_key = encryption_key,
                                 .python = GetEnvironment("LONGHOLD_PYTHON").value_or("python3"),
                                 .load_model = load_model,
                                 .load_model_only = load_model_only,
                                 .catch_signals = CatchSignals}));
  return terminal.out_status();
}

int Main(int argc, const char* const* argv) {
  signal(SIGPIPE, SIG_IGN);  // writes to a closed pipe return EPIPE instead
  const bool no_colour = GetEnvironment("NO_COLOR").has_value() || GetEnvironment("TERM") == "dumb";
  std::variant<Invocation, EarlyExit> parsed = ParseCommandLine(argc, argv);
  if (const auto* exit = std::get_if<EarlyExit>(&parsed)) {
    Terminal terminal({.no_colour = no_colour});
    exit->code == 0 ? terminal.Out(exit->text) : terminal.Error(exit->text);
    if (terminal.out_status().ok() || terminal.out_closed()) return exit->code;
    terminal.Error(terminal.out_status().message());
    return ExitCode(terminal.out_status());
  }
  const Invocation& invocation = std::get<Invocation>(parsed);
  Terminal terminal({.quiet = invocation.quiet, .no_colour = no_colour});
  const Status status = Execute(invocation, terminal);
  // The reader of stdout closed the pipe: end by SIGPIPE, as a program that does not handle the
  // signal.
  if (terminal.out_closed()) {
    signal(SIGPIPE, SIG_DFL);
    raise(SIGPIPE);
  }
  if (!status.ok()) terminal.Error(status.message());
  return ExitCode(status);
}

}  // namespace

int main(int argc, char** argv) {
  // A block has 1.5 MB. By default glibc uses a new mmap for each, and the page faults cost more
  // than the read: 1.55 ms instead of 0.68 ms.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  try {
    return Main(argc, argv);
  } catch (const std::bad_alloc&) {
    Terminal({}).Error("out of memory; lower --memory-budget, or ingest smaller files");
    return 5;
  } catch (const std::exception& error) {
    Terminal({}).Error(std::string("internal error: ") + error.what() +
                       "; please report it with the command line");
    return 1;
  }
}
