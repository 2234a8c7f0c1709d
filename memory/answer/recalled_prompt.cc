#include "memory/answer/recalled_prompt.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "memory/answer/citations.h"
#include "memory/answer/grounding.h"
#include "memory/answer/place_spans.h"
#include "memory/core/elapsed.h"
#include "memory/recall/prompt.h"
#include "memory/recall/stages.h"

namespace longhold {

using Clock = std::chrono::steady_clock;

Status CheckRecalledPrompts(const ModelInfo& info) {
  const size_t tapped = info.geometry.layers.size();
  if (tapped == info.layer_count) return OkStatus();
  return Unimplemented(
      "model " + info.name + ": " + std::to_string(info.layer_count - tapped) + " of its " +
      std::to_string(info.layer_count) +
      " layers attend to a sliding window, and a memory has no keys and values of those; another "
      "engine cannot continue from it. Use 'longhold serve', or a model without such layers");
}

Result<std::unique_ptr<RecalledPrompt>> RecalledPrompt::Make(Recaller* recaller,
                                                             const std::string& memory,
                                                             std::string_view question,
                                                             const RecalledPromptOptions& options) {
  LH_ASSIGN_OR_RETURN(
      OpenQuestion open,
      recaller->Open(
          memory, question,
          {.context = {.system = options.system, .earlier = options.earlier, .answer_prefix = {}},
           .recall = options.recall,
           .answers = true,
           .answer_tokens_max = options.answer_tokens_max,
           .reencode_tokens = options.reencode_tokens,
           .context_tokens = options.context_tokens}));
  LH_RETURN_IF_ERROR(CheckRecalledPrompts(open.question->info()));
  LH_ASSIGN_OR_RETURN(RecallPlan plan, MakePlan(*open.question));
  std::unique_ptr<RecalledPrompt> prompt(new RecalledPrompt(std::move(open), std::move(plan)));
  LH_RETURN_IF_ERROR(prompt->Compose());
  return prompt;
}

Status RecalledPrompt::Compose() {
  const Question& q = *open_.question;
  WorkingSet& set = *q.set;
  reply_ = BeginReply(q, plan_);
  reply_.timings.plan_ms = Milliseconds(open_.start, plan_.fused_at);
  if (!plan_.abstained) {
    std::vector<double> scores;
    for (const PlannedSpan& span : plan_.spans) scores.push_back(span.score);
    recalled_ = UngatedSpans(scores, q.profile().gate);
    LH_ASSIGN_OR_RETURN(const PlacedSpans placed,
                        PlaceSpans(q, plan_, &set, [this](const BlockRows& rows) {
                          return recalled_[rows.span] ? std::optional(0.0f) : std::nullopt;
                        }));
    placed.CountIn(&reply_);
    reply_.spans = static_cast<uint64_t>(std::count(recalled_.begin(), recalled_.end(), true));
    tokens_ = q.prompt.head;
    for (const BlockRows& rows : placed.rows) {
      const uint64_t base = uint64_t{rows.key.block} * kBlockTokens;
      LH_ASSIGN_OR_RETURN(
          const std::span<const TokenId> text,
          q.text->Tokens(rows.key.document, {base + rows.row_begin, base + rows.row_end}));
      tokens_.insert(tokens_.end(), text.begin(), text.end());
    }
    LH_CHECK(tokens_.size() == set.size());
    prefix_tokens_ = set.size();
    LH_ASSIGN_OR_RETURN(const ExcerptText excerpts, ReadExcerpts(q, plan_));
    tokens_.insert(tokens_.end(), excerpts.tokens.begin(), excerpts.tokens.end());
    tokens_.insert(tokens_.end(), q.prompt.tail.begin(), q.prompt.tail.end());
    reply_.tokens_reencoded = excerpts.tokens.size();
    answer_tokens_ = q.answer_tokens;
  }
  reply_.timings.recall_ms = Milliseconds(plan_.fused_at, Clock::now());
  return OkStatus();
}

void RecalledPrompt::CopyKeyValues(uint32_t slot, uint16_t* keys, uint16_t* values) const {
  open_.question->set->CopyRows(slot, 0, prefix_tokens_, keys, values);
}

Result<std::vector<uint32_t>> RecalledPrompt::WordsFound(std::string_view answer) const {
  const Question& q = *open_.question;
  LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, q.model().Tokenize(answer, false));
  const std::vector<LexicalWord> said = q.context.vocabulary->Words(tokens),
                                 asked = q.context.vocabulary->Words(q.prompt.Words());
  std::vector<uint32_t> found;
  for (const PlannedSpan& span : plan_.spans) {
    LH_ASSIGN_OR_RETURN(const std::span<const LexicalWord> words,
                        q.text->Words(span.document, span.tokens));
    found.push_back(MatchAnswer(said, asked, words).found);
  }
  return found;
}

Result<AskReply> RecalledPrompt::Finish(std::string_view answer, bool characters) {
  const Question& q = *open_.question;
  reply_.answer = answer;
  if (plan_.abstained) {
    reply_.closest = std::move(plan_.described);
    return std::move(reply_);
  }
  LH_ASSIGN_OR_RETURN(reply_.grounded, RestsOnSpans(q, plan_, answer));
  if (!reply_.grounded) return std::move(reply_);
  LH_ASSIGN_OR_RETURN(const std::vector<uint32_t> found, WordsFound(answer));
  std::vector<size_t> order = SpansBeforeTheModel();
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return found[a] != found[b] ? found[a] > found[b] : plan_.spans[a].score > plan_.spans[b].score;
  });
  for (const size_t i : order) {
    reply_.citations.push_back({.index = static_cast<uint32_t>(reply_.citations.size() + 1),
                                .span = plan_.described[i],
                                .characters = {}});
  }
  if (characters) LH_RETURN_IF_ERROR(PlaceCitations(q.memory, &reply_.citations));
  return std::move(reply_);
}

std::vector<size_t> RecalledPrompt::SpansBeforeTheModel() const {
  std::vector<size_t> spans;
  for (size_t i = 0; i < plan_.spans.size(); ++i) {
    const bool excerpt =
        std::any_of(plan_.layout.excerpts.begin(), plan_.layout.excerpts.end(),
                    [i](const SpanSentence& sentence) { return sentence.span == i; });
    if (recalled_[i] || excerpt) spans.push_back(i);
  }
  return spans;
}

std::vector<bool> UngatedSpans(std::span<const double> scores, double gate) {
  std::vector<bool> seen(scores.size(), false);
  for (size_t i = 0; i < scores.size(); ++i)
    seen[i] = std::pow(std::max(0.0, scores[i]), gate) >= 0.5;
  if (!scores.empty()) seen[std::max_element(scores.begin(), scores.end()) - scores.begin()] = true;
  return seen;
}

Result<TokenKeyValues> ReadKeyValues(LanguageModel& model, std::span<const TokenId> tokens) {
  const KvGeometry& geometry = model.info().geometry;
  WorkingSet set(geometry, static_cast<uint32_t>(tokens.size()));
  LH_RETURN_IF_ERROR(RunTokens(model, set, tokens, 0, false));
  TokenKeyValues read;
  for (uint32_t slot = 0; slot < geometry.layers.size(); ++slot) {
    read.keys.emplace_back(tokens.size() * geometry.kv_width());
    read.values.emplace_back(tokens.size() * geometry.kv_width());
    set.CopyRows(slot, 0, set.size(), read.keys.back().data(), read.values.back().data());
  }
  return read;
}

}  // namespace longhold
