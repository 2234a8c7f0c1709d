#include "memory/recall/describe.h"

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "memory/recall/unread_blocks.h"

namespace longhold {
namespace {

// A signal is a reason when it brought this share of the score or more.
constexpr double kReasonShare = 0.2;

std::vector<std::string> ReasonsOf(const RecallProfile& profile, const PlannedSpan& span) {
  double all = 0;
  for (const SignalScore& s : span.signals) all += profile.WeightOf(s.signal) * s.score;
  std::vector<std::string> reasons;
  for (const SignalScore& s : span.signals) {
    if (all > 0 && profile.WeightOf(s.signal) * s.score >= kReasonShare * all)
      reasons.emplace_back(s.signal);
  }
  if (all <= 0 || span.hops > 0) reasons.emplace_back(kMultiHopReason);
  return reasons;
}

}  // namespace

Result<RecalledSpan> Describe(Memory& memory, const RecallProfile& profile,
                              const PlannedSpan& span) {
  RecalledSpan out;
  out.document_id = span.document;
  out.document = memory.Get(span.document).name;
  out.tokens = span.tokens;
  LH_ASSIGN_OR_RETURN(TextPlace place, memory.Locate(span.document, span.tokens));
  out.line_begin = place.line_begin;
  out.line_end = place.line_end;
  out.text = std::move(place.text);
  // A token may be part of a character: what stands half inside the span is left out of its text.
  out.text.resize(WholeCharacters(out.text));
  size_t partial = 0;
  while (partial < out.text.size() && (static_cast<uint8_t>(out.text[partial]) & 0xC0) == 0x80)
    ++partial;
  out.text.erase(0, partial);
  out.bytes = {place.bytes.begin + partial, place.bytes.begin + partial + out.text.size()};
  if (!span.date_line.empty()) {
    LH_ASSIGN_OR_RETURN(const TokenText date, memory.TextOf(span.document, span.date_line));
    const size_t begin = std::min(date.text.find_first_not_of(" \t\r\n"), date.text.size());
    out.date_tokens = span.date_line;
    out.date_line = date.text.substr(begin);
    out.date_line.resize(WholeCharacters(out.date_line));
  }
  out.score = span.score;
  out.provisional = UnreadBlocks::IsUnread(memory, span.document, span.tokens.end);
  out.reasons = ReasonsOf(profile, span);
  return out;
}

}  // namespace longhold
