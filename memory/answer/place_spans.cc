#include "memory/answer/place_spans.h"

#include <algorithm>
#include <utility>

namespace longhold {

void LeaveOut(std::span<const SpanSentence> sentences, std::vector<BlockRows>* rows) {
  for (const SpanSentence& s : sentences) {
    std::vector<BlockRows> rest;
    for (const BlockRows& r : *rows) {
      const uint64_t base = uint64_t{r.key.block} * kBlockTokens;
      const uint64_t begin = std::max(s.tokens.begin, base + r.row_begin),
                     end = std::min(s.tokens.end, base + r.row_end);
      if (r.span != s.span || begin >= end) {
        rest.push_back(r);
        continue;
      }
      BlockRows before = r, after = r;
      before.row_end = static_cast<uint32_t>(begin - base);
      after.row_begin = static_cast<uint32_t>(end - base);
      for (const BlockRows& part : {before, after}) {
        if (part.row_begin < part.row_end) rest.push_back(part);
      }
    }
    *rows = std::move(rest);
  }
}

void SplitAssistantText(const Memory& memory, std::vector<BlockRows>* rows) {
  std::vector<BlockRows> cut;
  for (BlockRows& r : *rows) {
    const uint64_t base = uint64_t{r.key.block} * kBlockTokens;
    const uint64_t assistant = memory.Get(r.key.document).assistant_begin;
    if (assistant == 0 || assistant >= base + r.row_end) {
      cut.push_back(r);
      continue;
    }
    BlockRows user = r;
    user.row_end = static_cast<uint32_t>(std::max(assistant, base + r.row_begin) - base);
    if (user.row_begin < user.row_end) cut.push_back(user);
    r.row_begin = user.row_end;
    r.assistant = true;
    cut.push_back(r);
  }
  *rows = std::move(cut);
}

void PlacedSpans::CountIn(AskReply* reply) const {
  reply->tokens_recalled = tokens;
  reply->blocks_read = blocks_read;
  reply->bytes_read = bytes_read;
  reply->degradation.blocks_lost = lost.size();
}

Result<PlacedSpans> PlaceSpans(const Question& q, const RecallPlan& plan, WorkingSet* set,
                               const std::function<std::optional<float>(const BlockRows&)>& bias) {
  PlacedSpans placed;
  placed.keys.resize(plan.spans.size());
  std::vector<BlockRows> rows;
  for (size_t i = plan.spans.size(); i-- > plan.layout.reencoded_spans;)
    AppendRows(plan.spans[i], i, &rows);
  LeaveOut(plan.layout.distractors, &rows);
  SplitAssistantText(q.memory, &rows);
  std::erase_if(rows, [&](const BlockRows& r) { return !bias(r).has_value(); });
  LH_RETURN_IF_ERROR(q.blocks->Load(rows, q.Parallel()));

  const uint32_t index = set->size(), room = set->capacity() - index;
  std::vector<BlockRows>& kept = placed.rows;
  for (BlockRows& r : rows) {
    if (q.blocks->Find(r) == nullptr) {
      placed.lost.insert(r.key);
      continue;
    }
    if (placed.tokens + r.rows() > room) break;
    r.index = index + placed.tokens;
    placed.tokens += r.rows();
    TokenSpan& place = placed.keys[r.span];
    if (place.empty()) place.begin = r.index;
    place.end = r.index + r.rows();
    const bool counted =
        std::any_of(kept.begin(), kept.end(), [&](const BlockRows& k) { return k.key == r.key; });
    kept.push_back(r);
    if (counted) continue;  // another part of its rows
    ++placed.blocks_read;
    placed.bytes_read += q.blocks->StoredBytes(r.key);
  }
  set->Reserve(placed.tokens);
  const size_t layers = q.info().geometry.layers.size();
  q.model().Parallel(kept.size() * layers, [&](size_t i) {
    const BlockRows& r = kept[i / layers];
    set->PlaceRows(*q.blocks->Find(r), r.row_begin, r.row_end, r.index,
                   static_cast<uint32_t>(i % layers));
  });
  for (const BlockRows& r : kept) set->CommitRows(r.rows(), *bias(r));
  q.blocks->Clear();  // what is needed of them is in the set
  return placed;
}

Result<ExcerptText> ReadExcerpts(const Question& q, const RecallPlan& plan) {
  const uint64_t kept = uint64_t{q.set->size()} + q.prompt.tail.size() + q.answer_tokens;
  const uint64_t room = q.set->capacity() - std::min<uint64_t>(kept, q.set->capacity());
  LH_ASSIGN_OR_RETURN(const std::vector<TokenId> line_break, q.model().Tokenize("\n", false));
  ExcerptText text;
  std::vector<TokenId>& all = text.tokens;
  const PlannedSpan* dated = nullptr;  // the span whose date line was added last
  for (const SpanSentence& excerpt : plan.layout.excerpts) {
    const PlannedSpan& span = plan.spans[excerpt.span];
    LH_ASSIGN_OR_RETURN(const std::span<const TokenId> tokens,
                        q.text->Tokens(span.document, excerpt.tokens));
    if (all.size() + 2 * line_break.size() + span.date_line.size() + tokens.size() > room) continue;
    if (!all.empty()) all.insert(all.end(), line_break.begin(), line_break.end());
    if (!span.date_line.empty() && (dated == nullptr || dated->document != span.document ||
                                    dated->date_line != span.date_line)) {
      LH_ASSIGN_OR_RETURN(const std::span<const TokenId> date,
                          q.text->Tokens(span.document, span.date_line));
      all.insert(all.end(), date.begin(), date.end());
      all.insert(all.end(), line_break.begin(), line_break.end());
      dated = &span;
    }
    text.parts.push_back({excerpt.span, {all.size(), all.size() + tokens.size()}});
    all.insert(all.end(), tokens.begin(), tokens.end());
  }
  return text;
}

AskReply BeginReply(const Question& q, const RecallPlan& plan) {
  AskReply reply;
  reply.token_gain = plan.token_gain;
  reply.abstained = plan.abstained;
  reply.evidence = plan.evidence;
  if (!q.head_queries.empty()) reply.coverage = plan.abstained ? 0 : plan.Coverage();
  reply.candidates = plan.candidates;
  reply.hops = plan.hops_used;
  reply.memory_tokens = q.memory.searchable_tokens();
  reply.prompt_tokens = q.prompt.head.size() + q.prompt.tail.size();
  reply.degradation.spans_lost = plan.spans_lost;
  reply.timings.scan_ms = plan.scan_ms;
  return reply;
}

}  // namespace longhold
