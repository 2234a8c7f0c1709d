// Files of the models directory: sizes, records (FILE.sha256 next to FILE) and errors. Internal to
// the model catalog.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/status.h"
#include "model/model_catalog.h"

namespace longhold {

// Converts a failed file operation to a Status. `doing` names the operation and the file; `error`
// is an errno.
Status ModelFileError(const std::string& doing, int error);

// The size of a file; 0 if it cannot be read.
uint64_t SizeOf(const std::string& path);

// The contents of FILE.sha256, next to FILE.
struct ModelRecord {
  std::string sha256;
  uint64_t bytes = 0;
};

std::string RecordPath(const std::string& path);
// The record of the file at `path`. nullopt if it is missing or incomplete.
std::optional<ModelRecord> ReadRecord(const std::string& path);
// Writes a record of `file_name` to `path`.
Status WriteRecord(const std::string& path, const std::string& file_name,
                   const ModelRecord& record);
// Whether the record has the pinned checksum, if the model has one.
bool RecordFits(const CatalogModel& model, const ModelRecord& record);

}  // namespace longhold
