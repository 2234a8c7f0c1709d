#include "memory/recall/dense_signal.h"

#include <algorithm>
#include <map>

#include "memory/model/recall_profile.h"
#include "memory/recall/question.h"

namespace longhold {
namespace {

// Sentences that are looked at: several may stand in one block.
constexpr size_t kSentencesPerBlock = 2;

// Of a question in other words than the text, words find nothing but chance. So the nearest
// sentences keep a place whatever words say (docs/decisions/0031).
constexpr size_t kDenseCoverMax = 3;
constexpr double kDenseCoverCosine = 0.25;
// What the passage around a sentence counts. It says what "he" and "that" of the sentence are
// about (docs/decisions/0033).
constexpr double kPassageShare = 0.1;

}  // namespace

std::string_view DenseSignal::name() const { return kDenseSignal; }

Result<SignalScores> DenseSignal::Score(const Question& question, size_t blocks_max) const {
  SignalScores scores;
  if (question.vector.empty()) return scores;
  LH_ASSIGN_OR_RETURN(const std::vector<PassageMatch> nearest,
                      question.memory.passages().Search(
                          question.vector, kSentencesPerBlock * blocks_max, question.Parallel()));
  // The best of each block. In the order of the sentences' own cosines: the cover is of those.
  std::map<BlockKey, size_t> at;
  for (const PassageMatch& match : nearest) {
    if (match.cosine <= 0) break;
    const double score =
        std::max(0.0, (1 - kPassageShare) * match.cosine + kPassageShare * match.passage_cosine);
    if (score <= 0) continue;
    // The block that holds most of the sentence.
    const uint64_t centre = match.sentence.begin + match.sentence.size() / 2;
    const BlockKey block{match.document, static_cast<uint32_t>(centre / kBlockTokens)};
    const auto [place, is_new] = at.emplace(block, scores.blocks.size());
    if (!is_new) {
      SignalCandidate& known = scores.blocks[place->second];
      if (score > known.score) known = {block, score, centre};
      continue;
    }
    if (scores.blocks.size() == blocks_max) break;
    scores.blocks.push_back({block, score, centre});
    if (scores.cover.size() < kDenseCoverMax && match.cosine >= kDenseCoverCosine)
      scores.cover.push_back(scores.blocks.back());
  }
  return scores;
}

}  // namespace longhold
