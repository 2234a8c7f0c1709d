// What a run has done so far, on disk.
#pragma once

#include <string>
#include <vector>

#include "eval/report.h"

namespace longhold {

// A run's rows on disk: directory/results.jsonl, settings and environment first, then a row a line,
// each written before the next question is asked. A line that a crash cut short is dropped when the
// file is opened. Thread use: *confined*.
class Journal {
 public:
  // Makes the directory. Errors: already_exists (there is one: resume it, or name another
  // directory), invalid_argument (cannot be written).
  static Result<Journal> Create(const std::string& directory, const EvalSettings& settings,
                                const EvalEnvironment& environment);
  // Errors: not_found, data_loss with the line.
  static Result<Journal> Open(const std::string& directory);
  ~Journal();
  Journal(Journal&& other) noexcept;
  Journal& operator=(Journal&&) = delete;

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
