#include "service/cli/terminal.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/utf8.h"

namespace longhold {
namespace {

constexpr std::string_view kDim = "\x1b[2m", kPlain = "\x1b[0m", kEraseLine = "\r\x1b[K";

// 0, or the errno of the write that failed.
int WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return 0;
}

}  // namespace

Terminal::Terminal(const TerminalOptions& options) : options_(options) {
  out_is_terminal_ = isatty(options.out_fd) == 1;
  error_is_terminal_ = isatty(options.error_fd) == 1;
  colour_ = error_is_terminal_ && !options.no_colour;
}

void Terminal::Out(std::string_view text) {
  if (out_closed_ || out_errno_ != 0) return;
  const int error = WriteAll(options_.out_fd, text);
  if (error == EPIPE) {
    out_closed_ = true;
  } else {
    out_errno_ = error;
  }
}

Status Terminal::out_status() const {
  if (out_errno_ == 0) return OkStatus();
  if (out_errno_ == ENOSPC || out_errno_ == EDQUOT)
    return ResourceExhausted("stdout: the disk is full; free some space and run the command again");
  return InvalidArgument("stdout: cannot be written (" + std::string(std::strerror(out_errno_)) +
                         "); check where it goes");
}

// Ignores errors: if stderr cannot be written, there is no place to report that.
void Terminal::WriteError(std::string_view text) { (void)WriteAll(options_.error_fd, text); }

void Terminal::Note(std::string_view line) {
  if (options_.quiet) return;
  Redraw("");
  const std::string printable = MakePrintable(line);
  WriteError(colour_ ? std::string(kDim) + printable + std::string(kPlain) + "\n"
                     : printable + "\n");
}

void Terminal::Warn(std::string_view line) {
  Redraw("");
  WriteError(MakePrintable(line) + "\n");
}

void Terminal::Redraw(std::string_view line) {
  if (!error_is_terminal_ || options_.quiet || (line.empty() && !status_shown_)) return;
  WriteError(std::string(kEraseLine) + MakePrintable(line));
  status_shown_ = !line.empty();
}

void Terminal::Error(std::string_view message) {
  Redraw("");
  WriteError("longhold: " + CollapseSpace(message) + "\n");
}

}  // namespace longhold
