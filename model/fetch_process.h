// Runs a program with an argument vector (no shell) while a fetch goes on, and explains pip's
// failures. Internal to the model catalog.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/model_catalog.h"

namespace longhold {

// How often a wait asks whether it is over, and whether the user has stopped it.
inline constexpr std::chrono::milliseconds kFetchPollInterval{200};

struct ChildResult {
  int exit_code = 0;   // 128 + signal if a signal ended it
  std::string output;  // stdout and stderr
};

// Runs argv, with its output in `log_path`. TMPDIR is `temp_dir`, so that the child's files are on
// the disk whose space was checked. Calls `tick` while it runs. Errors: failed_precondition
// (argv[0] cannot be started), cancelled.
Result<ChildResult> RunChild(const std::vector<std::string>& argv, const std::string& log_path,
                             const std::string& temp_dir, const FetchOptions& options,
                             const std::function<void()>& tick);

// pip's last error line, for failures that have no message of their own.
std::string LastErrorLine(const std::string& output);

// The error for a pip that ended with another exit code than 0. `what` names the step.
Status PipError(const std::string& what, const std::string& python, const ChildResult& child);

}  // namespace longhold
