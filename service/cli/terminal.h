// The two output streams of a command: data on stdout, progress and errors on stderr.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

struct TerminalOptions {
  int out_fd = 1;
  int error_fd = 2;
  bool quiet = false;      // no notes and no progress; errors and warnings are still printed
  bool no_colour = false;  // the environment sets NO_COLOR, or TERM=dumb
};

// Owner: main. Thread use: *confined*.
class Terminal {
 public:
  explicit Terminal(const TerminalOptions& options);

  // Writes data to stdout without buffering, so that a streamed answer appears at once. After a
  // failure nothing more is written.
  void Out(std::string_view text);
  bool out_is_terminal() const { return out_is_terminal_; }
  bool error_is_terminal() const { return error_is_terminal_; }
  // Whether the reader of stdout closed its end, as in `longhold ... | head`. This is no error.
  bool out_closed() const { return out_closed_; }
  // Ok unless a write to stdout failed. A reader that closed its end counts as ok. Errors:
  // resource_exhausted (disk full), invalid_argument (all others).
  Status out_status() const;

  // Prints one line to stderr, unless quiet. Dimmed on a terminal.
  void Note(std::string_view line);
  // Prints one line to stderr, also when quiet.
  void Warn(std::string_view line);
  // Replaces the status line at the bottom of the terminal; "" erases it. Does nothing if stderr is
  // no terminal, or when quiet.
  void Redraw(std::string_view line);
  // Prints "longhold: message" to stderr as one printable line.
  void Error(std::string_view message);

 private:
  void WriteError(std::string_view text);

  TerminalOptions options_;
  bool out_is_terminal_ = false, error_is_terminal_ = false, colour_ = false;
  bool out_closed_ = false;
  int out_errno_ = 0;
  bool status_shown_ = false;
};

}  // namespace longhold
