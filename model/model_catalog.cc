#include "model/model_catalog.h"

#include <filesystem>
#include <optional>
#include <system_error>

#include "model/model_fetch.h"
#include "model/model_files.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

const CatalogModel* Find(std::string_view name) {
  for (const CatalogModel& model : CatalogModels()) {
    if (model.name == name) return &model;
  }
  return nullptr;
}

// The names of all models, or of those of one kind.
std::string Names(std::optional<ModelKind> kind = std::nullopt) {
  std::string names;
  for (const CatalogModel& model : CatalogModels()) {
    if (!kind || model.kind == *kind)
      names += (names.empty() ? "" : ", ") + std::string(model.name);
  }
  return names;
}

}  // namespace

CatalogState ModelCatalog::Look(const CatalogModel& model) const {
  CatalogState state;
  state.path = dir_ + "/" + std::string(model.file);
  std::error_code ec;
  if (!fs::exists(state.path, ec)) return state;
  state.bytes = SizeOf(state.path);
  const std::optional<ModelRecord> record = ReadRecord(state.path);
  state.kind = record && RecordFits(model, *record) && record->bytes == state.bytes
                   ? CatalogState::Kind::kReady
                   : CatalogState::Kind::kDamaged;
  return state;
}

namespace {

CatalogState StateOf(const AddedModel& model) {
  std::error_code ec;
  CatalogState state{.kind = CatalogState::Kind::kAbsent, .path = model.path};
  if (!fs::exists(model.path, ec)) return state;
  state.bytes = SizeOf(model.path);
  state.kind =
      state.bytes == model.bytes ? CatalogState::Kind::kReady : CatalogState::Kind::kDamaged;
  return state;
}

}  // namespace

std::vector<ModelEntry> ModelCatalog::List() const {
  std::vector<ModelEntry> entries;
  const auto add = [&](ModelEntry entry) {
    if (entry.state.bytes > 0) entry.bytes = entry.state.bytes;
    entries.push_back(std::move(entry));
  };
  for (const CatalogModel& model : CatalogModels())
    add({std::string(model.name), model.kind, std::string(model.licence), model.bytes,
         Look(model)});
  for (const AddedModel& model : added_.List()) {
    const ModelKind kind =
        model.architecture.ends_with("bert") ? ModelKind::kEmbedding : ModelKind::kLanguage;
    add({model.name, kind, "", model.bytes, StateOf(model)});
  }
  return entries;
}

Result<AddedModel> ModelCatalog::Add(const std::string& name, const std::string& path) const {
  if (Find(name) != nullptr)
    return AlreadyExists("model " + name + ": the catalog has this name; choose another one");
  return added_.Add(name, path);
}

Status ModelCatalog::Remove(const std::string& name) const {
  if (const CatalogModel* model = Find(name)) {
    return InvalidArgument("model " + name +
                           ": this is a model of the catalog; to free its space, delete " + dir_ +
                           "/" + std::string(model->file));
  }
  return added_.Remove(name);
}

Result<std::string> ModelCatalog::Resolve(const std::string& value, ModelKind kind) const {
  if (const CatalogModel* model = Find(value)) {
    if (model->kind != kind) {
      const bool embedding = model->kind == ModelKind::kEmbedding;
      return InvalidArgument(
          "model " + value +
          (embedding
               ? ": this is an embedding model, which ranks passages but cannot read or answer"
               : ": this is a language model, which cannot rank passages by meaning") +
          "; use one of: " + Names(kind));
    }
    CatalogState state = Look(*model);
    const std::string next = ": run 'longhold model get " + value + "'";
    if (state.kind == CatalogState::Kind::kAbsent)
      return NotFound("model " + value + " is not downloaded yet" + next);
    if (state.kind == CatalogState::Kind::kDamaged) {
      return DataLoss("model " + value + ": " + state.path + " differs from what was downloaded (" +
                      std::to_string(state.bytes) + " bytes)" + next);
    }
    return state.path;
  }
  if (const std::optional<AddedModel> added =
          IsModelPath(value) ? std::nullopt : added_.Find(value)) {
    const CatalogState state = StateOf(*added);
    const std::string next = "; name the right file with 'longhold model add " + value + " FILE'";
    if (state.kind == CatalogState::Kind::kAbsent)
      return NotFound("model " + value + ": " + state.path + " does not exist any more" + next);
    if (state.kind == CatalogState::Kind::kDamaged) {
      return DataLoss("model " + value + ": " + state.path + " has " + std::to_string(state.bytes) +
                      " bytes, but had " + std::to_string(added->bytes) + " when it was added" +
                      next);
    }
    return state.path;
  }
  std::error_code ec;
  if (!fs::exists(value, ec)) {
    if (!IsModelPath(value)) {
      return NotFound("model " + value + ": neither a file nor a name of the catalog (" + Names() +
                      "); 'longhold model list' shows them");
    }
    return NotFound("model " + value +
                    ": no such file; check the path, or use a name from 'longhold model list'");
  }
  return value;
}

Result<std::string> ModelCatalog::Fetch(const std::string& name,
                                        const FetchOptions& options) const {
  const CatalogModel* model = Find(name);
  if (model == nullptr)
    return NotFound("model " + name + ": not in the catalog (" + Names() +
                    "); to use another GGUF file, run 'longhold model add NAME FILE'");
  std::error_code ec;
  fs::create_directories(dir_, ec);
  if (ec) return ModelFileError("create " + dir_, ec.value());
  return FetchModel(*model, dir_, options);
}

}  // namespace longhold
