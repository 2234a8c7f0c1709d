#include "memory/recall/planned_span.h"

#include <algorithm>

#include "memory/core/memory.h"

namespace longhold {
namespace {

// How far a span may grow to reach a line's start or end.
constexpr uint32_t kLineGrowTokens = 48;

}  // namespace

Result<TokenSpan> SpanAround(Memory& memory, const RecallProfile& profile, DocumentId document,
                             uint64_t low, uint64_t high) {
  const uint64_t before = profile.span_tokens / 4, after = profile.span_tokens * 5 / 8;
  const uint64_t end = memory.Get(document).committed_tokens;
  TokenSpan span{low - std::min(low, before), std::min(high + after, end)};
  LH_ASSIGN_OR_RETURN(span, memory.GrowToLines(document, span, kLineGrowTokens));
  span.end = std::min(span.end, end);
  return span;
}

}  // namespace longhold
