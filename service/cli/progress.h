// Progress of long calls as lines of text. These functions and classes decide what to print and
// when. ProgressMeter takes the time as an argument.
//
// Thread use: *confined*.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "memory/engine.h"
#include "service/cli/terminal.h"

namespace longhold {

// A line of at most 79 columns: "genesis.txt [####......]  42%  22,528 of 54,012  512 tok/s  1:02
// left".
std::string ProgressBar(const std::string& label, const IngestProgress& progress);
// "genesis.txt: 22,528 of 54,012 tokens (42%), 512 tok/s, 1:02 left".
std::string ProgressLine(const std::string& label, const IngestProgress& progress);

// Seconds of a monotonic clock.
double SecondsNow();

// Decides when to print the progress of one ingest. Value type.
class ProgressMeter {
 public:
  enum class Style : uint8_t { kBar, kLines };

  ProgressMeter(Style style, std::string label) : style_(style), label_(std::move(label)) {}

  // The text to print now; nullopt if it is too early. A bar is printed at most ten times a second,
  // a line at most every five seconds. `now` is in seconds from any origin and never decreases.
  std::optional<std::string> Update(const IngestProgress& progress, double now);

 private:
  Style style_;
  std::string label_;
  // Time of the last print. For kLines also the time of the first call, which prints nothing.
  std::optional<double> last_;
};

// The status line of a long command. On a terminal the line is redrawn in place, and the destructor
// erases it. Otherwise a new line is printed from time to time.
class StatusLine {
 public:
  explicit StatusLine(Terminal* terminal) : terminal_(*terminal) {}
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;
  ~StatusLine() { terminal_.Redraw(""); }

  // Prints `line`. `step` names the step that it describes: the first line of each step is printed
  // at once. Others are printed at most ten times a second on a terminal, else every five seconds.
  void Show(const std::string& step, const std::string& line);

 private:
  Terminal& terminal_;
  std::optional<std::string> step_;
  double last_ = 0;  // time of the last print
};

// Prints a ProgressMeter's output: a bar if stderr is a terminal, which the destructor erases, else
// lines.
class ShownProgress {
 public:
  ShownProgress(Terminal* terminal, const std::string& label);
  ShownProgress(const ShownProgress&) = delete;
  ShownProgress& operator=(const ShownProgress&) = delete;
  ~ShownProgress() { terminal_.Redraw(""); }

  // The progress callback for the engine's long calls. Valid as long as this object lives.
  std::function<void(const IngestProgress&)> Listener();

 private:
  Terminal& terminal_;
  bool bar_;
  ProgressMeter meter_;
};

}  // namespace longhold
