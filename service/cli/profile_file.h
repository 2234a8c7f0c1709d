// Recall profiles as files: those that the user names and those that `longhold calibrate` wrote.
#pragma once

#include <optional>
#include <string>

#include "base/status.h"
#include "memory/engine.h"
#include "memory/model/language_model.h"
#include "memory/model/recall_profile.h"
#include "service/common/config.h"

namespace longhold {

// HOME/profiles/FINGERPRINT.json: the path of the model's calibrated profile. The fingerprint
// depends on the weights, so another quantisation of the same model has another profile.
std::string ProfilePath(const Config& config, const ModelInfo& model);

// Where `longhold calibrate` writes the profile of a model, and what it is called.
struct ProfileTarget {
  std::string path;
  std::string name;
  bool in_home = false;  // the model uses it from then on

  std::string WrittenNote() const;
};
// `out` is the file that the user named, or empty: the one in the home.
ProfileTarget CalibrationTarget(const Config& config, const ModelInfo& model,
                                const std::string& out);

// The profile to use with `model`: the file that --profile names, or else the calibrated one in the
// home. nullopt if there is neither; the engine then uses a shipped profile or the generic one.
// Errors, which name the file: not_found, invalid_argument, resource_exhausted (above 1 MiB).
Result<std::optional<RecallProfile>> ChooseProfile(const Config& config, const ModelInfo& model);

// Gives `engine` the model and the profile of ChooseProfile. Errors: those of ChooseProfile and
// Engine::UseModel.
Status UseModelWithProfile(const Config& config, LanguageModel* model, TextEmbedder* embedder,
                           Engine* engine);

// Writes the profile atomically: a reader sees either the old file or the new one. Errors:
// invalid_argument (cannot be written).
Status WriteProfile(const RecallProfile& profile, const std::string& path);

}  // namespace longhold
