#include "memory/recall/prompt.h"

#include <string>

#include "base/text.h"
#include "memory/text/text_reference.h"

namespace longhold {

namespace {

// The latest turns of `earlier` that have at most kEarlierTokensMax tokens. They begin with a turn
// of the user.
Result<std::span<const ChatTurn>> LatestTurns(const LanguageModel& model,
                                              std::span<const ChatTurn> earlier) {
  size_t first = earlier.size();
  for (size_t tokens = 0; first > 0; --first) {
    LH_ASSIGN_OR_RETURN(const std::vector<TokenId> turn,
                        model.Tokenize(earlier[first - 1].text, false));
    tokens += turn.size();
    if (tokens > kEarlierTokensMax) break;
  }
  while (first < earlier.size() && !earlier[first].by_user) ++first;
  return earlier.subspan(first);
}

}  // namespace

Result<Prompt> BuildPrompt(const LanguageModel& model, std::string_view question,
                           const PromptContext& context) {
  LH_ASSIGN_OR_RETURN(const std::span<const ChatTurn> earlier, LatestTurns(model, context.earlier));
  LH_ASSIGN_OR_RETURN(const PromptParts parts, model.Format(context.system, earlier, question));
  Prompt prompt;
  for (const PromptPiece& piece : parts.head) {
    LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                        model.Tokenize(piece.text, piece.special));
    prompt.head.insert(prompt.head.end(), tokens.begin(), tokens.end());
  }
  if (model.Bos() >= 0 && (prompt.head.empty() || prompt.head.front() != model.Bos())) {
    prompt.head.insert(prompt.head.begin(), model.Bos());
  }
  const auto append = [&](std::string_view text, bool special) -> Status {
    LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, model.Tokenize(text, special));
    prompt.tail.insert(prompt.tail.end(), tokens.begin(), tokens.end());
    return OkStatus();
  };
  const std::string_view tail(parts.tail);
  LH_RETURN_IF_ERROR(append("\n\n", false));
  LH_RETURN_IF_ERROR(append(tail.substr(0, parts.question_begin), true));
  prompt.words_begin = prompt.tail.size();
  LH_RETURN_IF_ERROR(
      append(tail.substr(parts.question_begin, parts.question_end - parts.question_begin), false));
  prompt.words_end = prompt.tail.size();
  LH_RETURN_IF_ERROR(append(tail.substr(parts.question_end), true));
  prompt.prefix_begin = prompt.tail.size();
  LH_RETURN_IF_ERROR(append(context.answer_prefix, false));

  std::string text;
  std::vector<size_t> ends;  // [Words()] end bytes in text
  for (const TokenId token : prompt.Words()) {
    text += model.Piece(token);
    ends.push_back(text.size());
  }
  prompt.aside.assign(ends.size(), false);
  for (const ByteSpan& reference : TextReferences(text)) {
    for (size_t t = 0; t < ends.size(); ++t) {
      if (ends[t] > reference.begin && (t == 0 ? 0 : ends[t - 1]) < reference.end)
        prompt.aside[t] = true;
    }
  }
  bool asks = false;  // whether any other word remains
  for (size_t i = 0, t = 0; i < text.size(); ++i) {
    while (ends[t] <= i) ++t;
    asks |= !prompt.aside[t] && IsWordByte(text[i]);
  }
  if (!asks) prompt.aside.assign(ends.size(), false);
  return prompt;
}

size_t Prompt::CountedTokens() const {
  size_t count = 0;
  for (size_t t = JudgedBegin(); t < words_end; ++t) count += Aside(t) ? 0 : 1;
  return std::max<size_t>(count, 1);
}

Status RunTokens(LanguageModel& model, WorkingSet& set, std::span<const TokenId> tokens,
                 uint32_t position, bool want_logits) {
  for (size_t at = 0; at < tokens.size();) {
    const auto batch =
        tokens.subspan(at, std::min<size_t>(model.batch_tokens(), tokens.size() - at));
    set.BeginPass(static_cast<uint32_t>(batch.size()));
    LH_RETURN_IF_ERROR(model.Forward(batch, position + static_cast<uint32_t>(at), &set,
                                     want_logits && at + batch.size() == tokens.size()));
    at += batch.size();
  }
  return OkStatus();
}

Result<std::vector<ScanQuery>> ProbeQueries(LanguageModel& model, WorkingSet& set,
                                            const Prompt& prompt,
                                            std::span<const RecallHead> heads) {
  LH_CHECK(set.size() == 0);
  const KvGeometry& g = model.info().geometry;
  const auto head_tokens = static_cast<uint32_t>(prompt.head.size());
  model.NativeForget(0, UINT32_MAX);
  LH_RETURN_IF_ERROR(RunTokens(model, set, prompt.head, 0, false));
  if (heads.empty()) return std::vector<ScanQuery>{};

  QueryCapture capture;
  std::vector<size_t> captured;  // [heads] index in the capture's slots
  for (const RecallHead& head : heads) {
    const auto slot = static_cast<uint32_t>(
        std::find(g.layers.begin(), g.layers.end(), head.layer) - g.layers.begin());
    LH_CHECK(slot < g.layers.size() && head.kv_head < g.kv_heads);
    const auto at = std::find(capture.slots.begin(), capture.slots.end(), slot);
    captured.push_back(static_cast<size_t>(at - capture.slots.begin()));
    if (at == capture.slots.end()) capture.slots.push_back(slot);
  }
  capture.queries.resize(capture.slots.size());
  set.Capture(&capture);
  const Status ran = RunTokens(model, set, prompt.tail, head_tokens, false);
  set.Capture(nullptr);
  LH_RETURN_IF_ERROR(ran);
  set.Truncate(head_tokens);
  model.NativeForget(head_tokens, UINT32_MAX);

  const uint32_t group = g.group(), d = g.head_dim, width = g.q_heads * d;
  const auto is_query_token = [&](size_t t) {
    return (t >= prompt.words_begin && t < prompt.words_end && !prompt.Aside(t)) ||
           t >= prompt.prefix_begin;
  };
  std::vector<ScanQuery> queries;
  for (size_t h = 0; h < heads.size(); ++h) {
    ScanQuery scan;
    scan.head = static_cast<uint32_t>(h);
    scan.head_dim = d;
    scan.scale = g.scale;
    for (size_t t = 0; t < prompt.tail.size(); ++t) {
      if (!is_query_token(t)) continue;
      const float* row =
          capture.queries[captured[h]].data() + t * width + size_t{heads[h].kv_head} * group * d;
      scan.q.insert(scan.q.end(), row, row + size_t{group} * d);
      scan.row_weight.insert(scan.row_weight.end(), group, 1.0f);
      scan.rows += group;
    }
    queries.push_back(std::move(scan));
  }
  return queries;
}

}  // namespace longhold
