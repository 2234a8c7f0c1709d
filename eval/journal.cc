#include "eval/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

namespace longhold {
namespace {

namespace fs = std::filesystem;

Status WriteAll(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t n = write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == ENOSPC)
      return ResourceExhausted(path + ": the disk is full; free some space and resume");
    if (n < 0)
      return InvalidArgument(path + ": cannot be written (" + std::strerror(errno) +
                             "); check the directory and the disk");
    text.remove_prefix(static_cast<size_t>(n));
  }
  return OkStatus();
}

}  // namespace

Journal::Journal(Journal&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      path_(std::move(other.path_)),
      settings_(std::move(other.settings_)),
      environment_(std::move(other.environment_)),
      rows_(std::move(other.rows_)) {}

Journal::~Journal() {
  if (fd_ >= 0) close(fd_);
}

Result<Journal> Journal::Create(const std::string& directory, const EvalSettings& settings,
                                const EvalEnvironment& environment) {
  std::error_code ec;
  fs::create_directories(directory, ec);
  Journal journal;
  journal.path_ = (fs::path(directory) / "results.jsonl").string();
  journal.settings_ = settings;
  journal.environment_ = environment;
  journal.fd_ =
      open(journal.path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
  if (journal.fd_ < 0 && errno == EEXIST) {
    return AlreadyExists(directory + ": already contains a run; resume it with --resume " +
                         directory + ", or name another directory");
  }
  if (journal.fd_ < 0)
    return InvalidArgument(journal.path_ + ": cannot be written (" + std::strerror(errno) +
                           "); name another directory");
  LH_RETURN_IF_ERROR(
      WriteAll(journal.fd_, HeaderJson(settings, environment) + "\n", journal.path_));
  return journal;
}

Result<Journal> Journal::Open(const std::string& directory) {
  Journal journal;
  journal.path_ = (fs::path(directory) / "results.jsonl").string();
  std::ifstream file(journal.path_, std::ios::binary);
  std::stringstream bytes;
  if (file) bytes << file.rdbuf();
  if (!file)
    return NotFound(directory +
                    ": contains no run to resume (no results.jsonl); start one with --out " +
                    directory);
  const std::string text = bytes.str();
  // Text after the last line break is an incomplete write. Drop it.
  const size_t whole = text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1;
  uint64_t number = 0;
  for (size_t at = 0; at < whole;) {
    const size_t end = text.find('\n', at);
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    Status status;
    if (++number == 1) {
      status = ParseHeader(line, &journal.settings_, &journal.environment_);
    } else if (Result<EvalRow> row = ParseRow(line); row.ok()) {
      journal.rows_.push_back(std::move(*row));
    } else {
      status = row.status();
    }
    if (!status.ok()) {
      return DataLoss(journal.path_ + " line " + std::to_string(number) + ": " + status.message() +
                      "; remove the line to ask its question again");
    }
  }
  if (number == 0)
    return DataLoss(journal.path_ + ": has no first line; remove the directory and start again");
  journal.fd_ = open(journal.path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (journal.fd_ < 0 || ftruncate(journal.fd_, static_cast<off_t>(whole)) != 0) {
    return InvalidArgument(journal.path_ + ": cannot be written (" + std::strerror(errno) +
                           "); check its permissions");
  }
  return journal;
}

Status Journal::Append(const EvalRow& row) {
  LH_RETURN_IF_ERROR(WriteAll(fd_, RowJson(row) + "\n", path_));
  rows_.push_back(row);
  return OkStatus();
}

}  // namespace longhold
