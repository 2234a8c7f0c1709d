// Who did what to which memory, in a file that is only added to: a line of JSON for each request,
// each change of the keys, and the server's start and end. Never what was asked, answered or read.
//
// Owner: the `serve` command. Thread use: safe to call concurrently. A line is in the file, though
// not forced to the disk, when Write returns. A file that was moved away meanwhile, as logrotate
// does, is made anew.
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
  // Lines of strangers in a minute; the others of that minute are counted.
  static constexpr uint64_t kStrangersMax = 120;

  // `note` is told when a line cannot be written, once until one can again. Errors:
  // invalid_argument (the file cannot be written).
  static Result<std::unique_ptr<AuditLog>> Open(const std::string& path,
                                                std::function<void(std::string_view)> note);

  void Write(std::string_view line, Clock::time_point now = Clock::now());
  // The same of one whom no key let in, or whose request was refused before it was asked for one:
  // who sends many of them fills no disk.
  void WriteOfStranger(std::string_view line, Clock::time_point now = Clock::now());

 private:
  AuditLog(std::string path, std::function<void(std::string_view)> note)
      : path_(std::move(path)), note_(std::move(note)) {}
  Status OpenFile();
  // What was left out since the last line of a stranger that was written.
  void TellLeftOut();
  void Append(std::string_view line);

  const std::string path_;
  const std::function<void(std::string_view)> note_;
  std::mutex mutex_;
  std::unique_ptr<FileDescriptor> file_;
  bool failing_ = false;
  Clock::time_point minute_;  // when the minute of strangers_ began
  uint64_t strangers_ = 0, left_out_ = 0;
};

}  // namespace longhold
