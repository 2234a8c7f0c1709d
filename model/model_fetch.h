// One fetch of a catalog model: downloads the packages, unpacks and joins them, converts the result
// and publishes it. Internal to the model catalog.
#pragma once

#include <string>

#include "base/status.h"
#include "model/model_catalog.h"

namespace longhold {

// As ModelCatalog::Fetch, for a model of the catalog. Must hold: `models_dir` exists.
Result<std::string> FetchModel(const CatalogModel& model, const std::string& models_dir,
                               const FetchOptions& options);

}  // namespace longhold
