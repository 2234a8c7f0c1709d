#include "memory/recall/multi_hop.h"

#include <algorithm>
#include <map>

#include "base/text.h"

namespace longhold {
namespace {

constexpr std::string_view kStage = "expand";
// How far a sentence may reach to either side of its token.
constexpr uint32_t kSentenceReach = 80;
// A term in more blocks is a topic: its leads share what one would have, and the more of them there
// are the less is left for each.
constexpr uint32_t kTermBlocksMax = 8;
// In a short memory even eight blocks are many: a term may stand in one block of this many.
constexpr uint64_t kTermBlocksOne = 16;
constexpr uint32_t kTermBlocksAlways = 2;
// Places this near to each other are one: a line or two, as in PlanRecall.
constexpr uint64_t kNearTokens = 48;
// A hop is a guess: what it finds stands behind what led to it.
constexpr double kHopKeep = 0.9;
constexpr double kParentScoreMin = 0.5;
// Of a word of the question whose places were judged and fell behind.
constexpr double kJudgedScore = 0.5;
// It must be about the word, more than any span of the plan: nats a token. (Any mention of a word
// makes it somewhat likelier.)
constexpr double kJudgedGainMin = 1;
constexpr double kParentShareMin = 0.6;
constexpr size_t kSourcesMax = 4;  // of one hop
// of one sentence: the longest that are read have some 60 words, most of them common
constexpr size_t kTermsMax = 16;
// While the answer is generated.
constexpr size_t kTokensBetween = 8;
constexpr double kAnswerScore = 1;  // of the answer's own words, as if they were the best span

bool Holds(const PlannedSpan& span, DocumentId document, uint64_t token) {
  return span.document == document && span.tokens.Contains(token);
}

// Whether a term, which stands in `text` from its first byte on and has `words` words, looks like a
// name: several words without a space, a digit, or a capital (anything beyond ASCII passes for one)
// that no sentence's beginning explains.
bool IsName(std::string_view text, size_t begin, size_t end, size_t words) {
  const std::string_view term = text.substr(begin, end - begin);
  if (words > 1 || term.find_first_of("0123456789") != std::string_view::npos) return true;
  if (term.empty() || (term[0] >= 'a' && term[0] <= 'z')) return false;
  const size_t before = text.substr(0, begin).find_last_not_of(" \"'([");
  return before != std::string_view::npos &&
         std::string_view(".!?:\n").find(text[before]) == std::string_view::npos;
}

std::string Hops(uint32_t hops) {
  return hops == 0 ? "by a word of the question"
                   : "by " + std::to_string(hops) + (hops == 1 ? " lookup" : " lookups");
}

std::vector<uint32_t> StemsOf(const std::vector<LexicalWord>& term) {
  std::vector<uint32_t> stems;
  for (const LexicalWord& word : term) stems.push_back(word.Stem());
  return stems;
}

}  // namespace

std::vector<std::vector<LexicalWord>> BridgeTermsOf(
    const LexicalVocabulary& vocabulary, const std::function<std::string(TokenId)>& piece,
    std::span<const TokenId> tokens) {
  std::vector<std::string> pieces;
  for (TokenId token : tokens) {
    std::string text = piece(token);
    for (size_t at; (at = text.find("\u2581")) != std::string::npos;) text.replace(at, 3, " ");
    pieces.push_back(std::move(text));
  }
  // What stands between two words, the first of which ends before token `end` and the second begins
  // in token `begin`.
  const auto between = [&](uint32_t end, uint32_t begin) {
    std::string text;
    if (begin < end) {  // in one token: its last mark or space
      for (char c : pieces[begin].substr(1)) {
        if (!IsWordByte(c)) text = std::string(1, c);
      }
      return text;
    }
    const std::string& last = pieces[end - 1];
    size_t tail = last.size();
    while (tail > 0 && !IsWordByte(last[tail - 1])) --tail;
    text = last.substr(tail);
    for (uint32_t t = end; t < begin; ++t) text += pieces[t];
    const std::string& first = pieces[begin];
    size_t lead = 0;
    while (lead < first.size() && !IsWordByte(first[lead])) ++lead;
    return text + first.substr(0, lead);
  };
  const auto joins = [](const std::string& text) {
    return text.empty() ||
           (text.size() == 1 && std::string_view("_-./").find(text[0]) != std::string_view::npos);
  };

  std::vector<std::vector<LexicalWord>> terms;
  std::set<std::vector<uint32_t>> seen;
  std::vector<LexicalWord> term;
  const auto finish = [&] {
    if (!term.empty() && term.size() <= kLexicalKeyWordsMax && seen.insert(StemsOf(term)).second)
      terms.push_back(term);
    term.clear();
  };
  for (const LexicalWord& word : vocabulary.Words(tokens)) {
    if (!term.empty() && !joins(between(term.back().end, word.begin))) finish();
    term.push_back(word);
  }
  finish();
  return terms;
}

MultiHop::MultiHop(Memory& memory, const RecallProfile& profile,
                   const LexicalVocabulary& vocabulary, QuestionText& text,
                   std::function<std::string(TokenId)> piece, const Asked& asked)
    : memory_(memory),
      profile_(profile),
      vocabulary_(vocabulary),
      text_(text),
      piece_(std::move(piece)),
      asked_words_(asked.words),
      scored_begin_(asked.scored_begin) {
  asked_terms_ = BridgeTermsOf(vocabulary_, piece_, asked.tokens);
  std::erase_if(asked_terms_, [&](const std::vector<LexicalWord>& term) {
    return std::any_of(term.begin(), term.end(), [&](const LexicalWord& word) {
      return word.begin < asked.aside.size() && asked.aside[word.begin];
    });
  });
  for (const LexicalWord& word : vocabulary_.Words(asked.tokens)) asked_.insert(word.Stem());
}

uint32_t MultiHop::TermBlocksMax() const {
  return static_cast<uint32_t>(std::clamp<uint64_t>(
      memory_.lexical().block_count() / kTermBlocksOne, kTermBlocksAlways, kTermBlocksMax));
}

bool MultiHop::IsNew(const std::vector<LexicalWord>& term) const {
  if (seen_terms_.contains(StemsOf(term))) return false;
  return std::any_of(term.begin(), term.end(),
                     [&](const LexicalWord& word) { return !asked_.contains(word.Stem()); });
}

Result<TokenSpan> MultiHop::SentenceOf(DocumentId document, uint64_t at) const {
  LH_ASSIGN_OR_RETURN(TokenSpan sentence, text_.SentenceAt(document, at, kSentenceReach));
  sentence.end = std::min(sentence.end, memory_.Get(document).searchable_tokens);
  return sentence;
}

Result<double> MultiHop::AskedWeight(const PlannedSpan& span) const {
  LH_ASSIGN_OR_RETURN(const TokenSpan sentence, SentenceOf(span.document, span.peak));
  LH_ASSIGN_OR_RETURN(const std::span<const LexicalWord> words,
                      text_.Words(span.document, sentence));
  double weight = 0;
  const std::vector<WordMatch> match = MatchWords(asked_words_, words, {}, 0);
  for (size_t w = 0; w < match.size(); ++w) {
    if (match[w].found && !asked_words_[w].function_word) weight += asked_words_[w].weight;
  }
  return weight;
}

std::optional<double> MultiHop::GainOf(const std::vector<LexicalWord>& term,
                                       const PlannedSpan& span) const {
  if (span.token_gains.empty()) return std::nullopt;
  std::optional<double> most;
  const std::vector<WordMatch> beside =
      MatchWords(asked_words_, {}, span.token_gains, scored_begin_);
  for (const LexicalWord& word : term) {
    for (size_t w = 0; w < beside.size(); ++w) {
      if (asked_words_[w].stem == word.Stem())
        most = std::max(most.value_or(beside[w].gain), beside[w].gain);
    }
  }
  return most;
}

Result<MultiHop::Lookup> MultiHop::Read(const Source& source) {
  Lookup lookup{.source = source, .terms = {}};
  const auto known = [&](const auto& read) {
    return read.first == source.document && read.second.Contains(source.at);
  };
  if (std::any_of(read_.begin(), read_.end(), known)) return lookup;
  LH_ASSIGN_OR_RETURN(const TokenSpan sentence, SentenceOf(source.document, source.at));
  LH_ASSIGN_OR_RETURN(const std::span<const TokenId> tokens,
                      text_.Tokens(source.document, sentence));
  read_.emplace_back(source.document, sentence);
  for (std::vector<LexicalWord>& term : BridgeTermsOf(vocabulary_, piece_, tokens)) {
    if (!IsNew(term)) continue;
    seen_terms_.insert(StemsOf(term));
    lookup.terms.push_back(std::move(term));
  }
  return lookup;
}

std::vector<MultiHop::Source> MultiHop::Leads(
    std::span<const Lookup> lookups, const std::function<bool(DocumentId, uint64_t)>& known) const {
  std::vector<std::vector<LexicalWord>> terms;
  for (const Lookup& lookup : lookups)
    terms.insert(terms.end(), lookup.terms.begin(), lookup.terms.end());
  if (terms.empty()) return {};
  const std::vector<LexicalPlaces> found = memory_.lexical().Places(terms, TermBlocksMax());
  std::vector<Source> leads;
  size_t first = 0;
  for (const Lookup& lookup : lookups) {
    const std::vector<Source> own =
        LeadsOf(lookup, std::span(found).subspan(first, lookup.terms.size()), known);
    leads.insert(leads.end(), own.begin(), own.end());
    first += lookup.terms.size();
  }
  std::stable_sort(leads.begin(), leads.end(),
                   [](const Source& a, const Source& b) { return a.score > b.score; });
  return leads;
}

std::vector<MultiHop::Source> MultiHop::LeadsOf(
    const Lookup& lookup, std::span<const LexicalPlaces> found,
    const std::function<bool(DocumentId, uint64_t)>& known) const {
  struct Spot {
    DocumentId document;
    uint64_t at;
    size_t term;
  };
  const auto leads_on = [&](const LexicalPlaces::Place& place) {
    return !known(place.document, place.span.begin);
  };
  std::vector<size_t> rare;  // terms that lead somewhere
  for (size_t k = 0; k < found.size(); ++k) {
    if (!found[k].function_word &&
        std::any_of(found[k].places.begin(), found[k].places.end(), leads_on))
      rare.push_back(k);
  }
  std::stable_sort(rare.begin(), rare.end(),
                   [&](size_t a, size_t b) { return found[a].weight > found[b].weight; });
  if (rare.size() > kTermsMax) rare.resize(kTermsMax);

  double all = 0;
  std::vector<Spot> spots;
  for (size_t k : rare) {
    all += found[k].weight;
    for (const LexicalPlaces::Place& place : found[k].places) {
      if (leads_on(place)) spots.push_back({place.document, place.span.begin, k});
    }
  }
  std::sort(spots.begin(), spots.end(), [](const Spot& a, const Spot& b) {
    return a.document != b.document ? a.document < b.document : a.at < b.at;
  });
  std::vector<std::pair<Source, std::set<size_t>>> near;  // leads, with their terms
  std::map<size_t, size_t> lead_count;                    // of each term
  for (size_t begin = 0, end = 0; begin < spots.size(); begin = end) {
    std::set<size_t> held;
    size_t best = begin;
    for (end = begin; end < spots.size() && spots[end].document == spots[begin].document &&
                      spots[end].at - spots[begin].at <= kNearTokens;
         ++end) {
      held.insert(spots[end].term);
      if (found[spots[end].term].weight > found[spots[best].term].weight) best = end;
    }
    for (size_t k : held) ++lead_count[k];
    near.push_back(
        {{.document = spots[best].document, .at = spots[best].at, .hops = lookup.source.hops + 1},
         std::move(held)});
  }
  std::vector<Source> leads;
  for (auto& [lead, held] : near) {
    double share = 0;
    for (size_t k : held) share += found[k].weight / all / static_cast<double>(lead_count[k]);
    lead.score = kHopKeep * lookup.source.score * share;
    if (lead.score >= profile_.span_score_min) leads.push_back(lead);
  }
  return leads;
}

Result<std::optional<PlannedSpan>> MultiHop::SpanFor(const Source& lead,
                                                     std::span<const PlannedSpan> spans) {
  LH_ASSIGN_OR_RETURN(TokenSpan span,
                      SpanAround(memory_, profile_, lead.document, lead.at, lead.at, lead.at));
  for (const PlannedSpan& other : spans) {
    if (other.document != lead.document) continue;
    if (other.tokens.Contains(lead.at)) return std::optional<PlannedSpan>();
    if (other.tokens.end <= lead.at) {
      span.begin = std::max(span.begin, other.tokens.end);
    } else {
      span.end = std::min(span.end, other.tokens.begin);
    }
  }
  PlannedSpan planned{.document = lead.document,
                      .tokens = span,
                      .peak = lead.at,
                      .score = lead.score,
                      .hops = lead.hops};
  planned.planned_score = lead.score;
  return std::optional<PlannedSpan>(std::move(planned));
}

Result<bool> MultiHop::Take(const Source& lead, std::vector<PlannedSpan>* spans) {
  const auto holder = std::find_if(spans->begin(), spans->end(), [&](const PlannedSpan& s) {
    return Holds(s, lead.document, lead.at);
  });
  if (holder != spans->end()) {
    if (holder->score >= lead.score) return false;
    holder->score = lead.score;
    holder->peak = lead.at;
    holder->hops = lead.hops;
    holder->Note(kStage, "raised", Hops(lead.hops));
    return true;
  }
  if (added_ == profile_.hop_spans) return false;
  LH_ASSIGN_OR_RETURN(std::optional<PlannedSpan> span, SpanFor(lead, (*spans)));
  if (!span.has_value()) return false;
  span->Note(kStage, "found", Hops(lead.hops));
  spans->push_back(std::move(*span));
  ++added_;
  return true;
}

std::vector<MultiHop::Lookup> MultiHop::OwnLookups(std::span<const PlannedSpan> spans,
                                                   std::span<const PlannedSpan> judged) const {
  const auto hold = [](std::span<const PlannedSpan> some, const LexicalPlaces& places) {
    return std::any_of(places.places.begin(), places.places.end(),
                       [&](const LexicalPlaces::Place& place) {
                         return std::any_of(some.begin(), some.end(), [&](const PlannedSpan& s) {
                           return Holds(s, place.document, place.span.begin);
                         });
                       });
  };
  std::vector<PlannedSpan> parents;
  for (const PlannedSpan& span : spans) {
    if (span.score >= kParentScoreMin) parents.push_back(span);
  }
  std::vector<Lookup> lookups;
  const std::vector<LexicalPlaces> places = memory_.lexical().Places(asked_terms_, TermBlocksMax());
  for (size_t k = 0; k < asked_terms_.size(); ++k) {
    if (places[k].places.empty() || hold(parents, places[k])) continue;
    // By how much a judged span that holds the term makes it likelier than the plan's spans do.
    std::optional<double> known, here;
    for (const PlannedSpan& span : parents) known = std::max(known, GainOf(asked_terms_[k], span));
    for (const PlannedSpan& span : judged) {
      if (hold(std::span(&span, 1), places[k]))
        here = std::max(here, GainOf(asked_terms_[k], span));
    }
    if (here.has_value() && *here < std::max(0.0, known.value_or(0)) + kJudgedGainMin) continue;
    lookups.push_back({.source = {.score = hold(judged, places[k]) ? kJudgedScore : 1},
                       .terms = {asked_terms_[k]}});
  }
  return lookups;
}

Result<std::vector<MultiHop::Source>> MultiHop::Parents(std::span<const PlannedSpan> spans) const {
  std::vector<double> weights;
  double heaviest = 0;
  for (const PlannedSpan& span : spans) {
    const Result<double> weight =
        span.score >= kParentScoreMin ? AskedWeight(span) : Result<double>(0.0);
    if (!weight.ok() && weight.status().code() != StatusCode::kDataLoss) return weight.status();
    weights.push_back(weight.ok() ? *weight : 0.0);  // damaged text leads nowhere
    heaviest = std::max(heaviest, weights.back());
  }
  std::vector<Source> sources;
  for (size_t i = 0; i < spans.size(); ++i) {
    if (spans[i].score < kParentScoreMin || weights[i] < kParentShareMin * heaviest) continue;
    sources.push_back(
        {.document = spans[i].document, .at = spans[i].peak, .score = spans[i].score});
  }
  return sources;
}

Result<bool> MultiHop::Extend(std::vector<PlannedSpan>* spans,
                              std::span<const PlannedSpan> judged) {
  if (profile_.hops_max == 0 || spans->empty()) return false;
  bool changed = false;
  std::vector<Source> sources;
  for (Source lead :
       Leads(OwnLookups(*spans, judged), [](DocumentId, uint64_t) { return false; })) {
    lead.hops = 0;
    LH_ASSIGN_OR_RETURN(const bool took, Take(lead, spans));
    changed |= took;
    if (took) sources.push_back(lead);
  }
  LH_ASSIGN_OR_RETURN(const std::vector<Source> parents, Parents(*spans));
  sources.insert(sources.end(), parents.begin(), parents.end());

  for (uint32_t hop = 1; hop <= profile_.hops_max && !sources.empty(); ++hop) {
    std::stable_sort(sources.begin(), sources.end(),
                     [](const Source& a, const Source& b) { return a.score > b.score; });
    if (sources.size() > kSourcesMax) sources.resize(kSourcesMax);
    std::vector<Lookup> lookups;
    for (const Source& source : sources) {
      Result<Lookup> lookup = Read(source);
      if (lookup.status().code() == StatusCode::kDataLoss) continue;  // damaged text leads nowhere
      if (!lookup.ok()) return lookup.status();
      lookups.push_back(std::move(*lookup));
    }
    sources = Leads(lookups, [&](DocumentId document, uint64_t token) {
      return std::any_of(read_.begin(), read_.end(), [&](const auto& r) {
        return r.first == document && r.second.Contains(token);
      });
    });
    for (const Source& lead : sources) {
      LH_ASSIGN_OR_RETURN(const bool took, Take(lead, spans));
      changed |= took;
    }
  }
  std::stable_sort(spans->begin(), spans->end(),
                   [](const PlannedSpan& a, const PlannedSpan& b) { return a.score > b.score; });
  return changed;
}

Status MultiHop::View(std::span<const PlannedSpan> spans) {
  for (const PlannedSpan& span : spans) {
    const Result<std::span<const LexicalWord>> words = text_.Words(span.document, span.tokens);
    if (words.status().code() == StatusCode::kDataLoss) continue;
    if (!words.ok()) return words.status();
    for (const LexicalWord& word : *words) in_view_.insert(word.Stem());
  }
  return OkStatus();
}

Result<std::optional<PlannedSpan>> MultiHop::OnToken(std::span<const TokenId> generated,
                                                     std::span<const PlannedSpan> spans) {
  if (generation_spans_ >= profile_.generation_spans ||
      generated.size() < tokens_seen_ + kTokensBetween)
    return std::optional<PlannedSpan>();
  tokens_seen_ = generated.size();
  LH_RETURN_IF_ERROR(View(spans.subspan(viewed_)));
  viewed_ = spans.size();
  std::string text;
  std::vector<size_t> begins;  // bytes of `text` before each token
  for (TokenId token : generated) {
    begins.push_back(text.size());
    text += piece_(token);
  }
  Lookup lookup{.source = {.score = kAnswerScore}, .terms = {}};
  for (std::vector<LexicalWord>& term : BridgeTermsOf(vocabulary_, piece_, generated)) {
    if (term.back().end == generated.size() || !IsNew(term)) continue;
    seen_terms_.insert(StemsOf(term));
    const auto shown = [&](const LexicalWord& word) { return in_view_.contains(word.Stem()); };
    if (std::all_of(term.begin(), term.end(), shown)) continue;
    size_t begin = begins[term.front().begin];
    // a token may begin with a space
    while (begin < text.size() && !IsWordByte(text[begin])) ++begin;
    if (IsName(text, begin, begins[term.back().end], term.size()))
      lookup.terms.push_back(std::move(term));
  }
  const std::vector<Source> leads =
      Leads(std::span(&lookup, 1), [&](DocumentId document, uint64_t token) {
        return std::any_of(spans.begin(), spans.end(),
                           [&](const PlannedSpan& s) { return Holds(s, document, token); });
      });
  for (const Source& lead : leads) {
    LH_ASSIGN_OR_RETURN(std::optional<PlannedSpan> span, SpanFor(lead, spans));
    if (!span.has_value()) continue;
    ++generation_spans_;
    return span;
  }
  return std::optional<PlannedSpan>();
}

}  // namespace longhold
