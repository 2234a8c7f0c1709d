#include "model/added_models.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "base/durable_file.h"
#include "base/text.h"
#include "model/gguf_check.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

// Each line of a record is one of these keys, followed by the value.
constexpr std::string_view kPath = "path ", kBytes = "bytes ", kArchitecture = "architecture ";
constexpr size_t kNameBytesMax = 64;

}  // namespace

Status AddedModels::CheckName(std::string_view name) {
  const bool good = !name.empty() && name.size() <= kNameBytesMax &&
                    std::isalnum(static_cast<unsigned char>(name[0])) != 0 &&
                    std::all_of(name.begin(), name.end(), IsNameByte) && !name.ends_with(".gguf");
  if (good) return OkStatus();
  return InvalidArgument("model name \"" + std::string(name) +
                         "\": use 1 to 64 letters, digits, dots, dashes or underscores, starting "
                         "with a letter or digit and not ending in .gguf");
}

Result<AddedModel> AddedModels::Add(const std::string& name, const std::string& path) const {
  LH_RETURN_IF_ERROR(CheckName(name));
  std::error_code ec;
  const fs::path absolute = fs::absolute(path, ec);
  if (ec || absolute.string().find('\n') != std::string::npos)
    return InvalidArgument("model " + path + ": its path cannot be stored; rename the file");
  AddedModel model{
      .name = name, .path = absolute.lexically_normal().string(), .bytes = 0, .architecture = ""};
  LH_ASSIGN_OR_RETURN(model.architecture, CheckGgufFile(model.path));
  model.bytes = fs::file_size(model.path, ec);
  if (ec)
    return InvalidArgument("model " + path + ": cannot be read (" + ec.message() +
                           "); check its permissions");
  fs::create_directories(dir_, ec);
  if (ec)
    return InvalidArgument("create " + dir_ + ": " + ec.message() +
                           "; make it writable, or set LONGHOLD_CACHE to another directory");
  LH_RETURN_IF_ERROR(WriteFileDurably(PathOf(name),
                                      {kPath, model.path, "\n", kBytes, std::to_string(model.bytes),
                                       "\n", kArchitecture, model.architecture, "\n"},
                                      0644, "the record"));
  return model;
}

Status AddedModels::Remove(const std::string& name) const {
  LH_RETURN_IF_ERROR(CheckName(name));
  std::error_code ec;
  const bool removed = fs::remove(PathOf(name), ec);
  if (ec)
    return InvalidArgument("remove " + PathOf(name) + ": " + ec.message() +
                           "; check its permissions");
  if (!removed)
    return NotFound("model " + name + ": was not added; 'longhold model list' shows the names");
  return OkStatus();
}

std::optional<AddedModel> AddedModels::Find(std::string_view name) const {
  if (!CheckName(name).ok()) return std::nullopt;
  std::ifstream file(PathOf(name));
  AddedModel model{.name = std::string(name), .path = "", .bytes = 0, .architecture = ""};
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(kPath)) model.path = line.substr(kPath.size());
    if (line.starts_with(kBytes))
      std::from_chars(line.data() + kBytes.size(), line.data() + line.size(), model.bytes);
    if (line.starts_with(kArchitecture)) model.architecture = line.substr(kArchitecture.size());
  }
  if (model.path.empty() || model.bytes == 0) return std::nullopt;
  return model;
}

std::vector<AddedModel> AddedModels::List() const {
  std::vector<AddedModel> models;
  std::error_code ec;
  for (auto it = fs::directory_iterator(dir_, ec); !ec && it != fs::directory_iterator();
       it.increment(ec)) {
    if (std::optional<AddedModel> model = Find(it->path().filename().string()))
      models.push_back(std::move(*model));
  }
  std::sort(models.begin(), models.end(),
            [](const AddedModel& a, const AddedModel& b) { return a.name < b.name; });
  return models;
}

}  // namespace longhold
