// The journal of an evaluation run: its finished rows on disk.
#pragma once

#include <string>
#include <vector>

#include "eval/report.h"

namespace longhold {

// The file directory/results.jsonl. Its first line holds settings and environment, each further
// line one row. A row is written before the next question is asked. Open drops an incomplete last
// line, which a crash may leave. Thread use: *confined*.
class Journal {
 public:
  // Starts a run and creates the directory if needed. Errors: already_exists (the directory holds a
  // run: resume it, or name another directory), invalid_argument (cannot be written),
  // resource_exhausted (disk full).
  static Result<Journal> Create(const std::string& directory, const EvalSettings& settings,
                                const EvalEnvironment& environment);
  // Opens a run to resume it. Errors: not_found, data_loss naming the line, invalid_argument
  // (cannot be written).
  static Result<Journal> Open(const std::string& directory);
  ~Journal();
  Journal(Journal&& other) noexcept;
  Journal& operator=(Journal&&) = delete;

  // Writes a row. Errors: invalid_argument (cannot be written), resource_exhausted (disk full).
  Status Append(const EvalRow& row);
  const EvalSettings& settings() const { return settings_; }
  const EvalEnvironment& environment() const { return environment_; }
  const std::vector<EvalRow>& rows() const { return rows_; }

 private:
  Journal() = default;
  int fd_ = -1;
  std::string path_;
  EvalSettings settings_;
  EvalEnvironment environment_;
  std::vector<EvalRow> rows_;
};

}  // namespace longhold
