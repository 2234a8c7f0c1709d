// Which models a command loads.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "memory/engine.h"
#include "memory/model/text_embedder.h"
#include "model/model_catalog.h"
#include "service/common/config.h"

namespace longhold {

// The path of the model's GGUF file. A model chosen by flag, environment or configuration comes
// first. Otherwise, if `memory` exists, it is the downloaded or added model whose fingerprint the
// memory records. Otherwise it is the default model. Errors: those of ModelCatalog::Resolve.
Result<std::string> ChooseModel(const Config& config, const ModelCatalog& catalog, Engine& engine,
                                const std::string& memory);

// The embedding model of the settings. Null where the settings say "none", or where nobody chose
// one and the default one was not downloaded. Errors: those of ModelCatalog::Resolve and
// LoadEmbedder.
Result<std::unique_ptr<TextEmbedder>> LoadChosenEmbedder(const Config& config,
                                                         const ModelCatalog& catalog);

}  // namespace longhold
