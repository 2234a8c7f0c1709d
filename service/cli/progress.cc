#include "service/cli/progress.h"

#include <algorithm>
#include <chrono>

#include "base/utf8.h"
#include "service/common/render.h"

namespace longhold {
namespace {

constexpr double kBarInterval = 0.1, kLineInterval = 5;  // seconds
constexpr size_t kBarColumns = 20, kBarLineColumns = 79;

uint64_t Percent(const IngestProgress& p) {
  return p.tokens_total == 0 ? 0 : std::min<uint64_t>(100, 100 * p.tokens_done / p.tokens_total);
}

std::string Speed(const IngestProgress& p) {
  if (p.tokens_per_s <= 0) return "";
  const double left =
      static_cast<double>(p.tokens_total - std::min(p.tokens_done, p.tokens_total)) /
      p.tokens_per_s;
  return FormatCount(static_cast<uint64_t>(p.tokens_per_s + 0.5)) + " tok/s\x01" +
         FormatDuration(left) + " left";
}

std::string Join(std::string text, const std::string& separator) {
  const size_t at = text.find('\x01');
  return at == std::string::npos ? text : text.replace(at, 1, separator);
}

}  // namespace

double SecondsNow() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string ProgressBar(const std::string& label, const IngestProgress& p) {
  const uint64_t percent = Percent(p);
  std::string percent_text = std::to_string(percent) + "%";
  percent_text.insert(0, 4 - percent_text.size(), ' ');
  const size_t filled = percent * kBarColumns / 100;
  std::string tail = " [" + std::string(filled, '#') + std::string(kBarColumns - filled, '.') +
                     "] " + percent_text + "  " + FormatCount(p.tokens_done) + " of " +
                     FormatCount(p.tokens_total);
  const std::string speed = Join(Speed(p), "  ");
  if (!speed.empty()) tail += "  " + speed;
  // Shorten the label. Keep its end: paths differ more often at the end than at the beginning.
  std::string name = CollapseSpace(label);
  const size_t room = kBarLineColumns - std::min(kBarLineColumns - 4, CountColumns(tail));
  if (CountColumns(name) > room) {
    size_t drop = CountColumns(name) - (room - 3), cut = 0;
    while (drop > 0) {
      ++cut;
      while (cut < name.size() && (static_cast<unsigned char>(name[cut]) & 0xC0) == 0x80) ++cut;
      --drop;
    }
    name = "..." + name.substr(cut);
  }
  return name + tail;
}

std::string ProgressLine(const std::string& label, const IngestProgress& p) {
  const std::string speed = Join(Speed(p), ", ");
  return label + ": " + FormatCount(p.tokens_done) + " of " + FormatCount(p.tokens_total) +
         " tokens (" + std::to_string(Percent(p)) + "%)" + (speed.empty() ? "" : ", " + speed);
}

void StatusLine::Show(const std::string& step, const std::string& line) {
  const bool bar = terminal_.error_is_terminal();
  const double now = SecondsNow();
  if (step_ == step && now - last_ < (bar ? kBarInterval : kLineInterval)) return;
  step_ = step;
  last_ = now;
  bar ? terminal_.Redraw(line) : terminal_.Note(line);
}

std::optional<std::string> ProgressMeter::Update(const IngestProgress& progress, double now) {
  if (style_ == Style::kBar) {
    if (last_ && now - *last_ < kBarInterval && progress.tokens_done < progress.tokens_total)
      return std::nullopt;
    last_ = now;
    return ProgressBar(label_, progress);
  }
  if (!last_) last_ = now;
  if (now - *last_ < kLineInterval || progress.tokens_done >= progress.tokens_total)
    return std::nullopt;
  last_ = now;
  return ProgressLine(label_, progress);
}

ShownProgress::ShownProgress(Terminal* terminal, const std::string& label)
    : terminal_(*terminal),
      bar_(terminal->error_is_terminal()),
      meter_(bar_ ? ProgressMeter::Style::kBar : ProgressMeter::Style::kLines, label) {}

std::function<void(const IngestProgress&)> ShownProgress::Listener() {
  return [this](const IngestProgress& progress) {
    const auto line = meter_.Update(progress, SecondsNow());
    if (!line) return;
    bar_ ? terminal_.Redraw(*line) : terminal_.Note(*line);
  };
}

}  // namespace longhold
