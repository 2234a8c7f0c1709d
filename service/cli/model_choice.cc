#include "service/cli/model_choice.h"

#include "model/embedder.h"
#include "model/llama_host.h"

namespace longhold {

Result<std::string> ChooseModel(const Config& config, const ModelCatalog& catalog, Engine& engine,
                                const std::string& memory) {
  if (config.model.origin != kDefaultOrigin || memory.empty() || !engine.Exists(memory).ok())
    return catalog.Resolve(config.model.value);
  const Result<MemoryInfo> info = engine.Show(memory);
  // The command opens the memory later and reports the error then.
  if (!info.ok()) return catalog.Resolve(config.model.value);
  for (const ModelEntry& model : catalog.List()) {
    if (model.kind != ModelKind::kLanguage || model.state.kind != CatalogState::Kind::kReady)
      continue;
    const Result<std::string> fingerprint = ModelFingerprint(model.state.path);
    if (fingerprint.ok() && *fingerprint == info->model_fingerprint) return model.state.path;
  }
  return catalog.Resolve(config.model.value);
}

Result<std::unique_ptr<TextEmbedder>> LoadChosenEmbedder(const Config& config,
                                                         const ModelCatalog& catalog) {
  if (config.embedder.value == kNoEmbedder) return std::unique_ptr<TextEmbedder>();
  const Result<std::string> path = catalog.Resolve(config.embedder.value, ModelKind::kEmbedding);
  if (path.status().code() == StatusCode::kNotFound && config.embedder.origin == kDefaultOrigin)
    return std::unique_ptr<TextEmbedder>();
  if (!path.ok()) return path.status();
  return LoadEmbedder({.path = *path, .threads = config.threads.value});
}

}  // namespace longhold
