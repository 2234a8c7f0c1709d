// How far an ingest is, as lines for people. Decides what to show and when; the time is an
// argument.
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

// Seconds of a clock that never goes back.
double SecondsNow();

class ProgressMeter {
 public:
  enum class Style : uint8_t { kBar, kLines };

  ProgressMeter(Style style, std::string label) : style_(style), label_(std::move(label)) {}

  // What to show now, nullopt for nothing new: a bar at most ten times a second, a line at most
  // every five seconds. `now` in seconds from any origin, never falling.
  std::optional<std::string> Update(const IngestProgress& progress, double now);

 private:
  Style style_;
  std::string label_;
  // when something was shown; for lines also the first call, which shows nothing
  std::optional<double> last_;
};

// The line of a long command that says what it is doing: redrawn on a terminal, else written now
// and then. Gone with this object.
class StatusLine {
 public:
  explicit StatusLine(Terminal* terminal) : terminal_(*terminal) {}
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;
  ~StatusLine() { terminal_.Redraw(""); }

  // `step` names what `line` is about: the first line of a step is shown at once, others ten times
  // a second or, where they are written, every five seconds.
  void Show(const std::string& step, const std::string& line);

 private:
  Terminal& terminal_;
  std::optional<std::string> step_;
  double last_ = 0;  // when a line was shown
};

// A ProgressMeter on a terminal: a bar that is gone with this object, or lines where stderr is no
// terminal.
class ShownProgress {
 public:
  ShownProgress(Terminal* terminal, const std::string& label);
  ShownProgress(const ShownProgress&) = delete;
  ShownProgress& operator=(const ShownProgress&) = delete;
  ~ShownProgress() { terminal_.Redraw(""); }

  // For the engine's long calls; valid as long as this object.
  std::function<void(const IngestProgress&)> Listener();

 private:
  Terminal& terminal_;
  bool bar_;
  ProgressMeter meter_;
};

}  // namespace longhold
