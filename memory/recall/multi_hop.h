// Multi-hop retrieval: what one lookup brings back may name the next thing to look up.
//
// "The parcel went to Ines Calder." answers half of a question; where Ines Calder left the parcel
// stands in a place that shares no word with the question. A *bridge term* leads there: a word, or
// several written without a space between them ("retry_window_ms"), that is rare in the memory,
// new, and stands elsewhere too. docs/decisions/0009 has the reasons and the measurements.
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
#include "memory/recall/planned_span.h"
#include "memory/recall/question_text.h"
#include "memory/recall/word_match.h"

namespace longhold {

// The terms of consecutive tokens, in order, each once: words with nothing between them but one of
// _ - . / or nothing at all, as far as they are at most kLexicalKeyWordsMax. A longer run gives
// none: it may be a script without spaces. Apostrophes part words. `piece` gives a token's text.
std::vector<std::vector<LexicalWord>> BridgeTermsOf(
    const LexicalVocabulary& vocabulary, const std::function<std::string(TokenId)>& piece,
    std::span<const TokenId> tokens);

// The hops of one question. Owner: one recall plan. Thread use: *confined*. Borrows all that it is
// made with.
//
// The rule is the same at every hop. Of a line or sentence with score s, those terms count that are
// no function words, that neither the question nor a sentence read before had, and that stand in at
// most 8 blocks and in at most one block of 16 (two are always allowed). Where they stand outside
// of the sentences read, within 48 tokens of each other, is a *lead*. Each term points at its leads
// alike, and the rarer it is the more it counts:
//   score(lead) = 0.9 * s * sum over its terms of idf(term) / leads(term)
//                         / sum over all terms that have a lead of idf(term)
// Below profile.span_score_min a lead is chance. So a name that leads to one other place is
// followed. One that stands everywhere is a topic, and is not. Neither are the many words that a
// long sentence shares with a place here and a place there.
//
// The question's own terms come first, each by itself: those that no span of the plan holds, with
// s = 1, or one half where a span that was reranked and fell behind has them, if it makes the term
// likelier than each span of the plan does. A place that repeats the question's wording, as a list
// of questions or a solved example does, explains so much of it that the place of the one word that
// matters falls behind or is not even a candidate.
//
// A span of the plan is followed when the sentence at its peak holds at least 0.6 of the question's
// weight that the best of them holds: the introduction to a text is about all of its questions, and
// leads anywhere.
class MultiHop {
 public:
  // What is known of the question. Borrows; `tokens` and `aside` for the construction only.
  struct Asked {
    std::span<const TokenId> tokens;  // the user's words
    std::span<const AskedWord> words = {};
    // The first entry of PlannedSpan::token_gains belongs to this token.
    uint32_t scored_begin = 0;
    std::vector<bool> aside = {};  // [tokens] Prompt::aside: words that are not followed
  };
  MultiHop(Memory& memory, const RecallProfile& profile, const LexicalVocabulary& vocabulary,
           QuestionText& text, std::function<std::string(TokenId)> piece, const Asked& asked);

  // Before the answer: looks up the question's terms that none of `spans` holds (`judged` are all
  // that competed), reads the sentences at the peaks of the best spans (at most four, of half the
  // best one's score), looks up their terms, reads the sentences found and so on, for up to
  // profile.hops_max hops. A lead that stands in one of `spans` gives it its score and peak where
  // its own score is lower. Others become spans, at most profile.hop_spans, that overlap no other.
  // The spans are left in the order of scores; a lead's is below that of the span that led to it.
  // PlannedSpan::hops says how each was found: 0 by a word of the question. Returns whether
  // anything changed. Cost: one LexicalIndex::Places a hop, and one for the question. Damaged text
  // leads nowhere. Errors: those of reading text but data_loss.
  Result<bool> Extend(std::vector<PlannedSpan>* spans, std::span<const PlannedSpan> judged);

  // While the answer is generated, after each token: `generated` are all tokens of the answer so
  // far. Looks at what is new every eight tokens; a word that may be unfinished waits. Terms count
  // as above when no span has all of their words and they look like names: several words written
  // without a space, or with a digit, or with a capital inside of a sentence. (The model's own
  // "reason" and "according" are rare in many a book, and lead nowhere that matters.) Returns the
  // best lead outside of `spans` as a span that overlaps none of them; the caller adds it. At most
  // profile.generation_spans times in all. Errors: as Extend's.
  Result<std::optional<PlannedSpan>> OnToken(std::span<const TokenId> generated,
                                             std::span<const PlannedSpan> spans);

 private:
  using Stems = std::vector<uint32_t>;  // of a term's words
  // A place that was read or is to be read.
  struct Source {
    DocumentId document{};
    uint64_t at = 0;  // a token of its sentence
    double score = 0;
    uint32_t hops = 0;
  };
  // Terms to look up, of one source.
  struct Lookup {
    Source source;
    std::vector<std::vector<LexicalWord>> terms;
  };

  // Takes a lead into the spans, see Extend. False where it changes nothing.
  Result<bool> Take(const Source& lead, std::vector<PlannedSpan>* spans);
  // In how many blocks a term may stand.
  uint32_t TermBlocksMax() const;
  bool IsNew(const std::vector<LexicalWord>& term) const;
  // The committed part of the sentence around a token. Errors: data_loss.
  Result<TokenSpan> SentenceOf(DocumentId document, uint64_t at) const;
  // The weight of the question's words in the sentence at the span's peak. Errors: data_loss.
  Result<double> AskedWeight(const PlannedSpan& span) const;
  // How much likelier a span makes the question's words of `term`, nats a token; nothing where it
  // was not reranked.
  std::optional<double> GainOf(const std::vector<LexicalWord>& term, const PlannedSpan& span) const;
  // The terms of the question that are to be looked up by themselves, see the class.
  std::vector<Lookup> OwnLookups(std::span<const PlannedSpan> spans,
                                 std::span<const PlannedSpan> judged) const;
  // The spans whose sentences are read first, best first. Errors: those of reading text.
  Result<std::vector<Source>> Parents(std::span<const PlannedSpan> spans) const;
  // The terms of the sentence around the source that are to be looked up; the sentence counts as
  // read. Nothing where it was read. Errors: data_loss.
  Result<Lookup> Read(const Source& source);
  // Where the terms lead, of all lookups, best first. A place counts unless `known` says that it
  // is.
  std::vector<Source> Leads(std::span<const Lookup> lookups,
                            const std::function<bool(DocumentId, uint64_t)>& known) const;
  // Where one lookup's terms lead; found[i] are the places of its i-th term.
  std::vector<Source> LeadsOf(const Lookup& lookup, std::span<const LexicalPlaces> found,
                              const std::function<bool(DocumentId, uint64_t)>& known) const;
  // A span around a lead that overlaps none of `spans`; nothing where one of them holds it.
  Result<std::optional<PlannedSpan>> SpanFor(const Source& lead,
                                             std::span<const PlannedSpan> spans);
  // Adds what stands in `spans` to the words in view.
  Status View(std::span<const PlannedSpan> spans);

  Memory& memory_;
  const RecallProfile& profile_;
  const LexicalVocabulary& vocabulary_;
  QuestionText& text_;
  std::function<std::string(TokenId)> piece_;
  std::vector<std::vector<LexicalWord>> asked_terms_;  // of the question
  std::set<uint32_t> asked_;                           // stems of the question
  std::span<const AskedWord> asked_words_;
  uint32_t scored_begin_;
  std::set<Stems> seen_terms_;                          // looked up, or read and not worth it
  std::vector<std::pair<DocumentId, TokenSpan>> read_;  // sentences
  std::set<uint32_t> in_view_;  // stems of the first viewed_ spans, see OnToken
  size_t viewed_ = 0;
  size_t tokens_seen_ = 0;  // generated tokens that OnToken looked at
  uint32_t added_ = 0;      // spans that Extend added
  uint32_t generation_spans_ = 0;
};

}  // namespace longhold
