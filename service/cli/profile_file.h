// Recall profiles as files: the user's own, and those that `longhold calibrate` wrote.
#pragma once

#include <optional>
#include <string>

#include "base/status.h"
#include "memory/engine.h"
#include "memory/model/language_model.h"
#include "memory/model/recall_profile.h"
#include "service/common/config.h"

namespace longhold {

// HOME/profiles/FINGERPRINT.json: where the profile of that very model is kept. Weights of other
// quantisation have another.
std::string ProfilePath(const Config& config, const ModelInfo& model);

// The profile to use with `model`: the file named by --profile, or else the calibrated one under
// the home. nullopt when there is neither: then a shipped one or the generic rule serves. Errors:
// not_found, invalid_argument and resource_exhausted (above 1 MiB), with the file's name.
Result<std::optional<RecallProfile>> ChooseProfile(const Config& config, const ModelInfo& model);

// Gives `engine` the model with the profile that ChooseProfile finds for it. Errors: both's.
Status UseModelWithProfile(const Config& config, LanguageModel* model, Engine* engine);

// Writes it so that a reader sees all of it or what was there before. Errors: invalid_argument
// (cannot be written).
Status WriteProfile(const RecallProfile& profile, const std::string& path);

}  // namespace longhold
