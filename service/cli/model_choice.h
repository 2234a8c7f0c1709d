// Which model a command loads.
#pragma once

#include <string>

#include "base/status.h"
#include "memory/engine.h"
#include "model/model_catalog.h"
#include "service/common/config.h"

namespace longhold {

// The GGUF file of the model that was chosen by flag, environment or configuration. Where none was,
// and `memory` is there, that of the model which reads it: the catalog's, or one that was added,
// with the memory's fingerprint. Else the default's. Errors: ModelCatalog::Resolve's.
Result<std::string> ChooseModel(const Config& config, const ModelCatalog& catalog, Engine& engine,
                                const std::string& memory);

}  // namespace longhold
