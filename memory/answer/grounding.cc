#include "memory/answer/grounding.h"

#include <algorithm>
#include <set>
#include <string>

namespace longhold {
namespace {

std::set<uint32_t> StemsOf(std::span<const LexicalWord> words) {
  std::set<uint32_t> stems;
  for (const LexicalWord& word : words) stems.insert(word.Stem());
  return stems;
}

}  // namespace

AnswerWords MatchAnswer(std::span<const LexicalWord> answer, std::span<const LexicalWord> question,
                        std::span<const LexicalWord> text) {
  const std::set<uint32_t> asked = StemsOf(question), known = StemsOf(text);
  AnswerWords words;
  for (const uint32_t stem : StemsOf(answer)) {
    if (IsFunctionWord(stem) || asked.contains(stem)) continue;
    ++words.own;
    words.found += known.contains(stem) ? 1 : 0;
  }
  return words;
}

Result<bool> RestsOnSpans(const Question& q, const RecallPlan& plan, std::string_view answer) {
  if (plan.evidence.level == Evidence::Level::kStrong) return true;
  LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, q.model().Tokenize(answer, false));
  std::vector<LexicalWord> text;
  for (const PlannedSpan& span : plan.spans) {
    const Result<std::span<const LexicalWord>> words = q.text->Words(span.document, span.tokens);
    if (words.ok()) text.insert(text.end(), words->begin(), words->end());
  }
  const AnswerWords words = MatchAnswer(q.context.vocabulary->Words(tokens),
                                        q.context.vocabulary->Words(q.prompt.Words()), text);
  if (words.found >= kGroundedShare * words.own) return true;
  if (q.vector.empty()) return false;
  const Result<std::vector<float>> embedded =
      q.context.embedder->Embed(EmbeddedEnd(q.question + " " + std::string(answer)));
  if (!embedded.ok()) {  // nobody can say that it is not
    q.notes.Add("the answer was not embedded: " + std::string(embedded.status().message()));
    return true;
  }
  LH_ASSIGN_OR_RETURN(const std::vector<PassageMatch> nearest,
                      q.memory.passages().Search(*embedded, kCandidatesPerSignal, q.Parallel()));
  return std::any_of(nearest.begin(), nearest.end(), [&](const PassageMatch& match) {
    return match.cosine >= kGroundedCosine &&
           std::any_of(plan.spans.begin(), plan.spans.end(), [&](const PlannedSpan& span) {
             return span.document == match.document &&
                    span.tokens.Contains(match.sentence.begin + match.sentence.size() / 2);
           });
  });
}

}  // namespace longhold
