#include "service/server/audit_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "service/common/json_text.h"

namespace longhold {

Result<std::unique_ptr<AuditLog>> AuditLog::Open(const std::string& path,
                                                 std::function<void(std::string_view)> note) {
  std::unique_ptr<AuditLog> log(new AuditLog(path, std::move(note)));
  LH_RETURN_IF_ERROR(log->OpenFile());
  return log;
}

Status AuditLog::OpenFile() {
  struct stat named, open_one;
  if (file_ != nullptr && stat(path_.c_str(), &named) == 0 && fstat(file_->get(), &open_one) == 0 &&
      named.st_ino == open_one.st_ino && named.st_dev == open_one.st_dev) {
    return OkStatus();
  }
  file_ = std::make_unique<FileDescriptor>(
      open(path_.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600));
  if (file_->get() >= 0) return OkStatus();
  const std::string why = std::strerror(errno);
  file_.reset();
  return InvalidArgument("audit log " + path_ + ": cannot be written (" + why +
                         "); choose another file with --audit-log");
}

void AuditLog::Append(std::string_view line) {
  const std::string whole = std::string(line) + "\n";
  Status status = OpenFile();
  if (status.ok()) {
    ssize_t written = 0;
    do {
      written = write(file_->get(), whole.data(), whole.size());
    } while (written < 0 && errno == EINTR);
    if (written != static_cast<ssize_t>(whole.size())) {
      status = Internal("audit log " + path_ + ": lines are lost (" +
                        (written < 0 ? std::strerror(errno) : "the disk is full") +
                        "); free some space");
    }
  }
  if (!status.ok() && !failing_) note_(status.message());
  failing_ = !status.ok();
}

void AuditLog::WriteOmitted() {
  if (omitted_ == 0) return;
  Append(DumpJson(boost::json::object{
      {"time", UtcTime()}, {"event", "left_out"}, {"requests", std::exchange(omitted_, 0)}}));
}

void AuditLog::Write(std::string_view line, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  if (now - minute_ >= std::chrono::minutes(1)) WriteOmitted();
  Append(line);
}

void AuditLog::WriteUnauthenticated(std::string_view line, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  if (now - minute_ >= std::chrono::minutes(1)) {
    WriteOmitted();
    minute_ = now;
    unauthenticated_ = 0;
  }
  if (++unauthenticated_ <= kUnauthenticatedMax) {
    Append(line);
  } else {
    ++omitted_;
  }
}

}  // namespace longhold
