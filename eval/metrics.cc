#include "eval/metrics.h"

#include <algorithm>
#include <cmath>

#include "eval/rng.h"

namespace longhold {
namespace {

constexpr size_t kResamples = 2000;

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

size_t CountHeld(std::string_view answer, const std::vector<std::string>& expected) {
  const std::string lower = Lower(answer);
  size_t held = 0;
  for (const std::string& e : expected) held += lower.find(Lower(e)) != std::string::npos;
  return held;
}

// The number of bytes of `range` that the first `count` of `found` cover. Overlaps count once.
uint64_t BytesHeld(const std::vector<ByteSpan>& found, size_t count, const ByteSpan& range) {
  std::vector<ByteSpan> parts;
  for (size_t i = 0; i < std::min(count, found.size()); ++i) {
    const ByteSpan part = {std::max(found[i].begin, range.begin),
                           std::min(found[i].end, range.end)};
    if (part.begin < part.end) parts.push_back(part);
  }
  std::sort(parts.begin(), parts.end());
  uint64_t held = 0, reached = range.begin;
  for (const ByteSpan& part : parts) {
    if (part.end <= reached) continue;
    held += part.end - std::max(part.begin, reached);
    reached = part.end;
  }
  return held;
}

}  // namespace

double StringMatchAll(std::string_view answer, const std::vector<std::string>& expected) {
  return expected.empty() ? 0
                          : static_cast<double>(CountHeld(answer, expected)) /
                                static_cast<double>(expected.size());
}

double StringMatchPart(std::string_view answer, const std::vector<std::string>& expected) {
  return CountHeld(answer, expected) > 0 ? 1 : 0;
}

double Match(MatchRule rule, std::string_view answer, const std::vector<std::string>& expected) {
  return rule == MatchRule::kAll ? StringMatchAll(answer, expected)
                                 : StringMatchPart(answer, expected);
}

std::array<double, 4> HitAt(const std::vector<ByteSpan>& found,
                            const std::vector<ByteSpan>& evidence, bool one_suffices) {
  LH_CHECK(!evidence.empty());
  std::array<double, 4> hits{};
  for (size_t k = 0; k < kHitRanks.size(); ++k) {
    size_t held = 0;
    for (const ByteSpan& range : evidence)
      held += 2 * BytesHeld(found, kHitRanks[k], range) >= std::max<uint64_t>(1, range.size());
    hits[k] = one_suffices ? (held > 0 ? 1 : 0)
                           : static_cast<double>(held) / static_cast<double>(evidence.size());
  }
  return hits;
}

Interval BootstrapMean(const std::vector<double>& values, double level, uint64_t seed) {
  if (values.empty()) return {};
  EvalRng rng(seed, "bootstrap");
  std::vector<double> means;
  means.reserve(kResamples);
  for (size_t r = 0; r < kResamples; ++r) {
    double sum = 0;
    for (size_t i = 0; i < values.size(); ++i) sum += rng.Pick(values);
    means.push_back(sum / static_cast<double>(values.size()));
  }
  std::sort(means.begin(), means.end());
  const auto at = [&](double share) {
    return means[static_cast<size_t>(std::clamp(
        std::round(share * static_cast<double>(kResamples - 1)), 0.0, double{kResamples - 1}))];
  };
  return {at((1 - level) / 2), at((1 + level) / 2)};
}

double Mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace longhold
