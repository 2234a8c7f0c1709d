// The audit log: who did what to which memory. An append-only file with one line of JSON for each
// request, each change of the keys, and each start and stop of the server. It never has the content
// of questions, answers or texts.
//
// Owner: the `serve` command. Thread use: *synchronised*. When Write returns, the line is in the
// file but not forced to the disk. If the file was renamed meanwhile, as logrotate does, a new one
// is created.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/file_descriptor.h"
#include "base/status.h"

namespace longhold {

class AuditLog {
 public:
  using Clock = std::chrono::steady_clock;
  // Lines of unauthenticated requests per minute. Further ones of that minute are only counted.
  static constexpr uint64_t kUnauthenticatedMax = 120;

  // `note` receives a message when a line cannot be written, once until writing succeeds again.
  // Errors: invalid_argument (the file cannot be written).
  static Result<std::unique_ptr<AuditLog>> Open(const std::string& path,
                                                std::function<void(std::string_view)> note);

  void Write(std::string_view line, Clock::time_point now = Clock::now());
  // As Write, for a request without a valid key, or one that was refused before its key was
  // checked. The limit per minute keeps such requests from filling the disk.
  void WriteUnauthenticated(std::string_view line, Clock::time_point now = Clock::now());

 private:
  AuditLog(std::string path, std::function<void(std::string_view)> note)
      : path_(std::move(path)), note_(std::move(note)) {}
  Status OpenFile();
  // Writes how many lines were omitted since the last unauthenticated one that was written.
  void WriteOmitted();
  void Append(std::string_view line);

  const std::string path_;
  const std::function<void(std::string_view)> note_;
  std::mutex mutex_;
  std::unique_ptr<FileDescriptor> file_;
  bool failing_ = false;
  Clock::time_point minute_;  // start of the minute of unauthenticated_
  uint64_t unauthenticated_ = 0, omitted_ = 0;
};

}  // namespace longhold
