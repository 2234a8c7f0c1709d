#include <algorithm>
#include <tuple>
#include <utility>

#include "memory/recall/abstention.h"
#include "memory/recall/stages.h"

namespace longhold {
namespace {

constexpr std::string_view kStage = "lay out";
// Of a span its lines or sentences are re-encoded, at most this far to either side of a token. More
// of a text that repeats itself would show the model other lines of the same form.
constexpr uint32_t kExcerptReach = 112;
// A word that a reranked span makes likelier by less than the first, in nats a token, is not what
// the span is about; by the second, it is.
constexpr double kFoundGainMin = 0.5, kFoundGainFull = 4;
// Sentences of this share of the heaviest one's weight say the same of the question
// (SpanSentence::share).
constexpr double kFullShare = 0.95;

// How much the span is about a word that it may hold by chance: 0..1.
double About(const PlannedSpan& span, const WordMatch& word) {
  if (!span.reranked()) return 1;
  return word.gain < kFoundGainMin ? 0 : std::min(1.0, word.gain / kFoundGainFull);
}

// The lines or sentences of all spans, ascending by span and token. One that the span's edge cuts
// is taken whole.
Result<std::vector<SpanSentence>> SentencesOf(const Question& q,
                                              const std::vector<PlannedSpan>& spans) {
  std::vector<SpanSentence> sentences;
  for (size_t i = 0; i < spans.size(); ++i) {
    const PlannedSpan& span = spans[i];
    for (uint64_t t = span.tokens.begin; t < span.tokens.end;) {
      LH_ASSIGN_OR_RETURN(TokenSpan tokens, q.text->SentenceAt(span.document, t, kExcerptReach));
      if (!sentences.empty() && sentences.back().span == i)
        tokens.begin = std::max(tokens.begin, sentences.back().tokens.end);
      t = std::max(tokens.end, t + 1);
      if (tokens.empty()) continue;
      LH_ASSIGN_OR_RETURN(const std::span<const TokenId> ids,
                          q.text->Tokens(span.document, tokens));
      LH_ASSIGN_OR_RETURN(const std::span<const LexicalWord> words,
                          q.text->Words(span.document, tokens));
      SpanSentence sentence{.span = i,
                            .tokens = tokens,
                            .peak = tokens.Contains(span.peak),
                            .has = {},
                            .about = {},
                            .form = FormWords(words, ids, q.context.vocabulary->pieces())};
      for (const WordMatch& word :
           MatchWords(q.asked, words, span.token_gains, q.ScoredBegin(), q.expansion)) {
        sentence.has.push_back(word.found);
        sentence.about.push_back(word.Found() * About(span, word));
      }
      sentences.push_back(std::move(sentence));
    }
  }
  return sentences;
}

// Worst first, as everywhere. What says as much of the question as anything comes in the text's
// order: where a thing changes, the last word on it counts.
void SortForReading(const std::vector<PlannedSpan>& spans, std::vector<SpanSentence>* excerpts) {
  const auto order = [&](const SpanSentence& s) {
    const bool full = s.share >= kFullShare;
    return std::tuple(full, full ? uint64_t{0} : spans.size() - s.span,
                      full ? spans[s.span].document : DocumentId{}, s.tokens.begin);
  };
  std::stable_sort(
      excerpts->begin(), excerpts->end(),
      [&](const SpanSentence& a, const SpanSentence& b) { return order(a) < order(b); });
}

void Record(const std::vector<SpanSentence>& sentences, std::string_view action,
            std::string_view reason, std::vector<PlannedSpan>* spans) {
  for (const SpanSentence& s : sentences) {
    (*spans)[s.span].Note(kStage, action,
                          std::to_string(s.tokens.size()) + " tokens" + std::string(reason));
  }
}

}  // namespace

// Layers that stay with the engine keep no keys of the document, so of a recalled span they see
// nothing: in Gemma 15 of 18. The best spans, as far as they fill half of those layers' window, are
// therefore re-encoded whole, right before the question.
size_t SpansToReencode(const Question& question, const std::vector<PlannedSpan>& spans) {
  uint64_t room = question.reencode_tokens > 0 ? 0 : question.info().native_window / 2;
  size_t count = 0;
  while (count < spans.size() && spans[count].tokens.size() <= room)
    room -= spans[count++].tokens.size();
  return count;
}

// Keys and values that were stored while other text of the same form stood in the window hold
// traces of that text: digits get lost, or come from a neighbour. Re-encoded by itself, the place
// is copied right.
Result<RecallPlan> LayOut(const Question& question, RecallPlan plan) {
  if (!question.answers) return plan;
  plan.layout.reencoded_spans = SpansToReencode(question, plan.spans);
  if (question.reencode_tokens == 0) return plan;
  LH_ASSIGN_OR_RETURN(const std::vector<SpanSentence> sentences, SentencesOf(question, plan.spans));
  std::vector<ExcerptSpan> spans;
  for (const PlannedSpan& span : plan.spans) {
    spans.push_back({.score = span.coverage_gain >= kNeededGain ? 1 : span.score,
                     .by_question = span.hops == 0});
  }
  RecallLayout& layout = plan.layout;
  layout.excerpts = ChooseExcerpts(question.asked, sentences, spans, question.reencode_tokens);
  layout.distractors = Distractors(question.asked, sentences, layout.excerpts);
  SortForReading(plan.spans, &layout.excerpts);
  Record(layout.excerpts, "re-encoded", "", &plan.spans);
  Record(layout.distractors, "left out", " of a near-duplicate distractor", &plan.spans);
  return plan;
}

}  // namespace longhold
