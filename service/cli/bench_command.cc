// `longhold bench`: runs a speed measurement and prints the report.

#include "eval/speed.h"
#include "service/cli/commands.h"
#include "service/cli/memory_home.h"
#include "service/cli/model_choice.h"
#include "service/cli/profile_file.h"
#include "service/cli/progress.h"
#include "service/common/render.h"

namespace longhold {

Status RunBenchCommand(const BenchCommand& command, const CommandContext& c) {
  const SpeedSettings& settings = command.settings;
  LH_ASSIGN_OR_RETURN(const Haystack haystack, LoadHaystack(settings.haystack));
  const std::atomic<bool>* stop = c.catch_signals();
  LH_ASSIGN_OR_RETURN(LanguageModel* const model, c.load_model_only());
  LH_ASSIGN_OR_RETURN(const MemoryHome home, MemoryHome::Temporary());
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<TextEmbedder> embedder,
                      LoadChosenEmbedder(c.config, c.catalog));
  const std::unique_ptr<StoreProvider> stores = c.stores_in(home.path());
  Engine engine(stores.get(), {.memory_budget_bytes = c.config.memory_budget_bytes.value});
  LH_RETURN_IF_ERROR(engine.UseCodec(settings.codec));
  LH_RETURN_IF_ERROR(UseModelWithProfile(c.config, model, embedder.get(), &engine));

  SpeedReport report{.environment = EnvironmentOf(*model, engine),
                     .settings = settings,
                     .machine = {},
                     .lengths = {}};
  Result<std::vector<LengthSpeed>> lengths = [&] {
    StatusLine status(&c.terminal);
    status.Show("machine", "bench: the machine");
    report.machine = MeasureMachine(*model, c.config.threads.value, settings.runs);
    return MeasureSpeed(settings, {.model = *model,
                                   .engine = engine,
                                   .native = NativeRunnerOf(*model, stop),
                                   .haystack = haystack,
                                   .stop = stop,
                                   .on_progress = [&](const EvalProgress& p) {
                                     std::string line = "bench: " + p.label;
                                     if (p.reading.tokens_total > 0) {
                                       line += ", reading " + FormatCount(p.reading.tokens_done) +
                                               " of " + FormatCount(p.reading.tokens_total);
                                     }
                                     status.Show(p.label, line);
                                   }});
  }();
  if (!lengths.ok()) return lengths.status();
  report.lengths = std::move(*lengths);
  c.terminal.Out(c.json ? SpeedJson(report) + "\n" : SpeedText(report));
  return OkStatus();
}

}  // namespace longhold
