// The two output streams of a command: data on stdout, progress and errors on stderr.
//
// Owner: main. Thread use: *confined*.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

struct TerminalOptions {
  int out_fd = 1;
  int error_fd = 2;
  bool quiet = false;      // drops notes and progress; errors and warnings stay
  bool no_colour = false;  // NO_COLOR is set, or TERM=dumb
};

class Terminal {
 public:
  explicit Terminal(const TerminalOptions& options);

  // Data. Writes at once, so that a streamed answer is seen. After a failure nothing more is
  // written.
  void Out(std::string_view text);
  bool out_is_terminal() const { return out_is_terminal_; }
  bool error_is_terminal() const { return error_is_terminal_; }
  // The reader of stdout went away (`| head`): nobody to write for, and no error either.
  bool out_closed() const { return out_closed_; }
  // Ok, or why stdout could not be written: resource_exhausted on a full disk. Not for a reader
  // that went away.
  Status out_status() const;

  // One line of progress, unless quiet. Dimmed on a terminal.
  void Note(std::string_view line);
  // One line that is shown even when quiet.
  void Warn(std::string_view line);
  // Replaces the line that stands on the terminal's bottom; "" takes it away. Nothing when stderr
  // is no terminal, or quiet.
  void Redraw(std::string_view line);
  // "longhold: message" as one printable line.
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
