#include "service/cli/profile_file.h"

#include <fcntl.h>

#include <filesystem>
#include <fstream>

#include "base/file_descriptor.h"
#include "service/common/text_input.h"

namespace longhold {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kProfileBytesMax = 1u << 20;

}  // namespace

std::string ProfilePath(const Config& config, const ModelInfo& model) {
  return (fs::path(config.home.value) / "profiles" / (model.fingerprint + ".json")).string();
}

std::string ProfileTarget::WrittenNote() const {
  return "profile written to " + path +
         (in_home ? "; this model uses it from now on" : "; use it with --profile");
}

ProfileTarget CalibrationTarget(const Config& config, const ModelInfo& model,
                                const std::string& out) {
  ProfileTarget target{
      .path = out.empty() ? ProfilePath(config, model) : out, .name = {}, .in_home = out.empty()};
  target.name = fs::path(target.path).stem().string();
  if (target.in_home) target.name = model.architecture + "-" + target.name;
  return target;
}

Result<std::optional<RecallProfile>> ChooseProfile(const Config& config, const ModelInfo& model) {
  const bool named = !config.profile.value.empty();
  const std::string path = named ? config.profile.value : ProfilePath(config, model);
  std::error_code ec;
  if (!fs::exists(path, ec)) {
    if (named)
      return NotFound("recall profile " + path +
                      ": not found; 'longhold calibrate --out FILE' writes one");
    return std::optional<RecallProfile>();
  }
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0)
    return InvalidArgument("recall profile " + path + ": cannot be read; check its permissions");
  LH_ASSIGN_OR_RETURN(const std::string text,
                      ReadDescriptor(file.get(), "recall profile " + path, kProfileBytesMax));
  LH_ASSIGN_OR_RETURN(RecallProfile profile, RecallProfile::Parse(text, path));
  if (!profile.Matches(model)) {
    return InvalidArgument("recall profile " + path + ": is for " + profile.architecture +
                           " with " + std::to_string(profile.layer_count) +
                           " layers and does not fit " + model.name +
                           "; calibrate this model, or do not name a profile");
  }
  return std::optional<RecallProfile>(std::move(profile));
}

Status UseModelWithProfile(const Config& config, LanguageModel* model, TextEmbedder* embedder,
                           Engine* engine) {
  LH_ASSIGN_OR_RETURN(const std::optional<RecallProfile> profile,
                      ChooseProfile(config, model->info()));
  return engine->UseModel(model, profile ? &*profile : nullptr, embedder);
}

Status WriteProfile(const RecallProfile& profile, const std::string& path) {
  std::error_code ec;
  const fs::path parent = fs::path(path).parent_path();
  if (!parent.empty()) fs::create_directories(parent, ec);
  const std::string part = path + ".part";
  std::ofstream out(part, std::ios::binary | std::ios::trunc);
  out << profile.ToJson();
  out.close();
  if (out) fs::rename(part, path, ec);
  if (!out || ec)
    return InvalidArgument("recall profile " + path +
                           ": cannot be written; name another file with --out");
  return OkStatus();
}

}  // namespace longhold
