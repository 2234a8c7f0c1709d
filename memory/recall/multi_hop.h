// Repeated recall: what one lookup brings back may name the next thing to look up.
//
// "The parcel went to Ines Calder." answers half of a question; where Ines Calder left the parcel
// stands in a place that shares no word with the question. A *key* leads there: a word, or several
// written without a space between them ("retry_window_ms"), that is rare in the memory, new, and
// stands elsewhere too. docs/decisions/0009 has the reasons and the measurements.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "memory/core/memory.h"
#include "memory/index/lexical_index.h"
#include "memory/model/recall_profile.h"
#include "memory/recall/abstention.h"
#include "memory/recall/recall_planner.h"

namespace longhold {

// The keys of consecutive tokens, in order, each once: words with nothing between them but one of _
// - . / or nothing at all, as far as they are at most kLexicalKeyWordsMax (of a longer run there is
// none: it may be a script without spaces). Apostrophes part words. `piece` gives a token's text.
std::vector<std::vector<LexicalWord>> KeysOf(const LexicalVocabulary& vocabulary,
                                             const std::function<std::string(TokenId)>& piece,
                                             std::span<const TokenId> tokens);

// The follow-ups of one question. Owner: one call of Engine. Thread use: *confined*. Borrows all
// that it is made with.
//
// Rule, the same at every hop. Of a line or sentence (Memory::SentenceAt) with score s, keys count
// that are no function words, that neither the question nor a sentence read before had, and that
// stand in at most 8 blocks and in at most one of 16 (two are always allowed). Where they stand
// outside of the sentences read, within 48 tokens of each other, is a *lead*. Each key points at
// its leads alike, and the rarer it is the more it counts:
//   score(lead) = 0.9 * s * sum over its keys of idf(key) / leads(key)  /  sum over all keys that
//   have a lead of idf(key)
// Below profile.span_score_min a lead is chance. So a name that leads to one other place is
// followed, one that stands everywhere is a topic and is not, and neither are the many words that a
// long sentence shares with a place here and a place there.
//
// The question's own keys come first, each by itself: those that no span of the plan holds, with s
// = 1, or one half where a span that was judged and fell behind has them, if it makes the key
// likelier than each span of the plan does. A place that repeats the question's wording, as a list
// of questions or a solved example does, explains so much of it that the place of the one word that
// matters falls behind or is not even a candidate.
//
// A span of the plan is followed when the sentence at its peak holds at least 0.6 of the question's
// weight that the best of them holds: the introduction to a text is about all of its questions, and
// leads anywhere.
class MultiHop {
 public:
  // `question` are the tokens of the user's words, `asked` these words as far as their weights and
  // looks are known, and the first entry of PlannedSpan::token_gains belongs to the token
  // `scored_begin`. Words whose tokens are `aside` (Prompt::aside) are not followed.
  MultiHop(Memory& memory, const RecallProfile& profile, const LexicalVocabulary& vocabulary,
           std::function<std::string(TokenId)> piece, std::span<const TokenId> question,
           std::span<const AskedWord> asked = {}, uint32_t scored_begin = 0,
           const std::vector<bool>& aside = {});

  // Before the answer: follows the question's keys that no span of the plan holds (`judged` are all
  // that competed), reads the sentences at the peaks of the best spans (at most four, of half the
  // best one's score), follows their keys, reads the sentences found and so on, for up to
  // profile.hops_max hops. A lead that stands in a span of the plan gives it its score and peak
  // where its own score is lower; others become spans, at most profile.hop_spans, that overlap
  // no other. The plan is left in the order of scores; a lead's is below that of the span that led
  // to it. PlannedSpan::hops tells how each was found: 0 by a word of the question. Returns whether
  // anything changed. Cost: one LexicalIndex::Places a hop, and one for the question. Damaged text
  // leads nowhere. Errors: those of reading text but data_loss.
  Result<bool> Extend(RecallPlan* plan, std::span<const PlannedSpan> judged);

  // While the answer is generated, after each token: `generated` are all tokens of the answer so
  // far. Looks at what is new every eight tokens; a word that may be unfinished waits. Keys count
  // as above when no span of `plan` has all of their words and they look like names: several words
  // written without a space, or with a digit, or with a capital inside of a sentence. (The model's
  // own "reason" and "according" are rare in many a book, and lead nowhere that matters.) The best
  // lead outside of the plan's spans is returned, as a span that overlaps none of them: the caller
  // adds it to the plan. At most profile.generation_spans times in all. Errors: as Extend's.
  Result<std::optional<PlannedSpan>> After(std::span<const TokenId> generated,
                                           const RecallPlan& plan);

 private:
  using Key = std::vector<uint32_t>;  // stems
  // A place that was read or is to be read.
  struct Source {
    DocumentId document{};
    uint64_t at = 0;  // a token of its sentence
    double score = 0;
    uint32_t hops = 0;
  };
  // Keys to look up, of one source.
  struct Lookup {
    Source source;
    std::vector<std::vector<LexicalWord>> keys;
  };

  // Takes a lead into the plan, see Extend. False where it changes nothing.
  Result<bool> Take(const Source& lead, RecallPlan* plan);
  // In how many blocks a key may stand.
  uint32_t KeyBlocksMax() const;
  bool IsNew(const std::vector<LexicalWord>& key) const;
  // The weight of the question's words in the sentence at the span's peak; 0 where it is damaged.
  Result<double> AskedWeight(const PlannedSpan& span) const;
  // How much likelier a span makes the question's words of `key`, nats a token; nothing where it
  // was not looked at.
  std::optional<double> GainOf(const std::vector<LexicalWord>& key, const PlannedSpan& span) const;
  // The keys of the sentence around the source that are to be looked up; the sentence counts as
  // read. Nothing where it was read.
  Result<Lookup> Read(const Source& source);
  // Where the keys lead, of all lookups, best first. A place counts unless `known` says that it is.
  std::vector<Source> Leads(std::span<const Lookup> lookups,
                            const std::function<bool(DocumentId, uint64_t)>& known) const;
  // A span around a lead that overlaps none of `spans`; nothing where one of them holds it.
  Result<std::optional<PlannedSpan>> SpanFor(const Source& lead,
                                             std::span<const PlannedSpan> spans);
  // Puts what stands in `spans` to the words in view.
  Status View(std::span<const PlannedSpan> spans);

  Memory& memory_;
  const RecallProfile& profile_;
  const LexicalVocabulary& vocabulary_;
  std::function<std::string(TokenId)> piece_;
  std::vector<std::vector<LexicalWord>> asked_keys_;  // of the question
  std::set<uint32_t> asked_;                          // stems of the question
  std::span<const AskedWord> asked_words_;
  uint32_t scored_begin_;
  // keys that were looked up, or read and not worth it
  std::set<Key> followed_;
  std::vector<std::pair<DocumentId, TokenSpan>> read_;  // sentences
  // stems of the first viewed_ spans of the plan, see After
  std::set<uint32_t> in_view_;
  size_t viewed_ = 0;
  size_t heard_ = 0;    // generated tokens that After looked at
  uint32_t added_ = 0;  // spans that are the plan's by Extend
  uint32_t generation_spans_ = 0;
};

}  // namespace longhold
