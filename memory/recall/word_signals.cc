#include "memory/recall/word_signals.h"

#include <algorithm>

#include "memory/model/recall_profile.h"
#include "memory/recall/question.h"

namespace longhold {

std::string_view WordSignal::name() const { return kWordSignal; }
std::string_view ExpansionSignal::name() const { return kExpansionSignal; }

Result<SignalScores> WordSignal::Score(const Question& question, size_t blocks_max) const {
  const LexicalResult& found = question.lexical;
  SignalScores scores;
  for (const LexicalResult::BlockScore& b : found.blocks) {
    if (scores.blocks.size() == blocks_max) break;
    const double own = b.score - b.related;
    if (own > 0) scores.blocks.push_back({b.block, own / found.query_score, b.peak_token});
  }
  for (const LexicalResult::Complement& part : found.cover) {
    scores.cover.push_back(
        {part.block.block, part.block.score / found.query_score, part.block.peak_token});
  }
  return scores;
}

Result<SignalScores> ExpansionSignal::Score(const Question& question, size_t blocks_max) const {
  const LexicalResult& found = question.lexical;
  SignalScores scores;
  for (const LexicalResult::BlockScore& b : found.blocks) {
    if (scores.blocks.size() == blocks_max) break;
    // Where the words themselves stand too, they say what the block is about.
    const bool alone = b.score - b.related <= 0;
    if (b.related > 0) {
      scores.blocks.push_back({b.block, b.related / found.query_score,
                               alone ? std::optional<uint64_t>(b.peak_token) : std::nullopt});
    }
  }
  return scores;
}

}  // namespace longhold
