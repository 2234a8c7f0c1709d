#include "memory/recall/multi_hop.h"

#include <algorithm>
#include <map>

#include "base/text.h"

namespace longhold {
namespace {

// How far a sentence may reach to either side of its token; as for what is read again
// (Engine::Excerpts).
constexpr uint32_t kSentenceReach = 80;
// A key in more blocks is a topic: its leads share what one would have, and the more of them there
// are the less is left for each.
constexpr uint32_t kKeyBlocksMax = 8;
// In a short memory even eight blocks are many: a key may stand in one block of this many.
constexpr uint64_t kKeyBlocksOne = 16;
constexpr uint32_t kKeyBlocksAlways = 2;
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
constexpr size_t kKeysMax = 16;
// While the answer is generated.
constexpr size_t kListenTokens = 8;
constexpr double kHeardScore = 1;  // of the answer's own words, as if they were the best span

bool Holds(const PlannedSpan& span, DocumentId document, uint64_t token) {
  return span.document == document && span.tokens.Contains(token);
}

// Whether a key, which stands in `text` from its first byte on and has `words` words, looks like a
// name: several words without a space, a digit, or a capital (anything beyond ASCII passes for one)
// that no sentence's beginning explains.
bool IsName(std::string_view text, size_t begin, size_t end, size_t words) {
  const std::string_view key = text.substr(begin, end - begin);
  if (words > 1 || key.find_first_of("0123456789") != std::string_view::npos) return true;
  if (key.empty() || (key[0] >= 'a' && key[0] <= 'z')) return false;
  const size_t before = text.substr(0, begin).find_last_not_of(" \"'([");
  return before != std::string_view::npos &&
         std::string_view(".!?:\n").find(text[before]) == std::string_view::npos;
}

std::vector<uint32_t> StemsOf(const std::vector<LexicalWord>& key) {
  std::vector<uint32_t> stems;
  for (const LexicalWord& word : key) stems.push_back(word.Stem());
  return stems;
}

}  // namespace

std::vector<std::vector<LexicalWord>> KeysOf(const LexicalVocabulary& vocabulary,
                                             const std::function<std::string(TokenId)>& piece,
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

  std::vector<std::vector<LexicalWord>> keys;
  std::set<std::vector<uint32_t>> seen;
  std::vector<LexicalWord> key;
  const auto finish = [&] {
    if (!key.empty() && key.size() <= kLexicalKeyWordsMax && seen.insert(StemsOf(key)).second)
      keys.push_back(key);
    key.clear();
  };
  for (const LexicalWord& word : vocabulary.Words(tokens)) {
    if (!key.empty() && !joins(between(key.back().end, word.begin))) finish();
    key.push_back(word);
  }
  finish();
  return keys;
}

MultiHop::MultiHop(Memory& memory, const RecallProfile& profile,
                   const LexicalVocabulary& vocabulary, std::function<std::string(TokenId)> piece,
                   std::span<const TokenId> question, std::span<const AskedWord> asked,
                   uint32_t scored_begin, const std::vector<bool>& aside)
    : memory_(memory),
      profile_(profile),
      vocabulary_(vocabulary),
      piece_(std::move(piece)),
      asked_words_(asked),
      scored_begin_(scored_begin) {
  asked_keys_ = KeysOf(vocabulary_, piece_, question);
  std::erase_if(asked_keys_, [&](const std::vector<LexicalWord>& key) {
    return std::any_of(key.begin(), key.end(), [&](const LexicalWord& word) {
      return word.begin < aside.size() && aside[word.begin];
    });
  });
  for (const LexicalWord& word : vocabulary_.Words(question)) asked_.insert(word.Stem());
}

uint32_t MultiHop::KeyBlocksMax() const {
  return static_cast<uint32_t>(std::clamp<uint64_t>(memory_.lexical().block_count() / kKeyBlocksOne,
                                                    kKeyBlocksAlways, kKeyBlocksMax));
}

bool MultiHop::IsNew(const std::vector<LexicalWord>& key) const {
  if (followed_.contains(StemsOf(key))) return false;
  return std::any_of(key.begin(), key.end(),
                     [&](const LexicalWord& word) { return !asked_.contains(word.Stem()); });
}

Result<double> MultiHop::AskedWeight(const PlannedSpan& span) const {
  Result<TokenSpan> sentence = memory_.SentenceAt(span.document, span.peak, kSentenceReach);
  if (!sentence.ok() && sentence.status().code() == StatusCode::kDataLoss) return 0.0;
  if (!sentence.ok()) return sentence.status();
  sentence->end = std::min(sentence->end, memory_.Get(span.document).committed_tokens);
  const Result<std::vector<TokenId>> tokens = memory_.Tokens(span.document, *sentence);
  if (!tokens.ok() && tokens.status().code() == StatusCode::kDataLoss) return 0.0;
  if (!tokens.ok()) return tokens.status();
  double weight = 0;
  const std::vector<WordMatch> beside = MatchWords(asked_words_, vocabulary_.Words(*tokens), {}, 0);
  for (size_t w = 0; w < beside.size(); ++w) {
    if (beside[w].found && !asked_words_[w].function_word) weight += asked_words_[w].weight;
  }
  return weight;
}

std::optional<double> MultiHop::GainOf(const std::vector<LexicalWord>& key,
                                       const PlannedSpan& span) const {
  if (span.token_gains.empty()) return std::nullopt;
  std::optional<double> most;
  const std::vector<WordMatch> beside =
      MatchWords(asked_words_, {}, span.token_gains, scored_begin_);
  for (const LexicalWord& word : key) {
    for (size_t w = 0; w < beside.size(); ++w) {
      if (asked_words_[w].stem == word.Stem())
        most = std::max(most.value_or(beside[w].gain), beside[w].gain);
    }
  }
  return most;
}

Result<MultiHop::Lookup> MultiHop::Read(const Source& source) {
  Lookup lookup{.source = source, .keys = {}};
  const auto known = [&](const auto& read) {
    return read.first == source.document && read.second.Contains(source.at);
  };
  if (std::any_of(read_.begin(), read_.end(), known)) return lookup;
  Result<TokenSpan> sentence = memory_.SentenceAt(source.document, source.at, kSentenceReach);
  if (!sentence.ok() && sentence.status().code() == StatusCode::kDataLoss) return lookup;
  if (!sentence.ok()) return sentence.status();
  sentence->end = std::min(sentence->end, memory_.Get(source.document).committed_tokens);
  const Result<std::vector<TokenId>> tokens = memory_.Tokens(source.document, *sentence);
  if (!tokens.ok() && tokens.status().code() == StatusCode::kDataLoss) return lookup;
  if (!tokens.ok()) return tokens.status();
  read_.emplace_back(source.document, *sentence);
  for (std::vector<LexicalWord>& key : KeysOf(vocabulary_, piece_, *tokens)) {
    if (!IsNew(key)) continue;
    followed_.insert(StemsOf(key));
    lookup.keys.push_back(std::move(key));
  }
  return lookup;
}

std::vector<MultiHop::Source> MultiHop::Leads(
    std::span<const Lookup> lookups, const std::function<bool(DocumentId, uint64_t)>& known) const {
  std::vector<std::vector<LexicalWord>> keys;
  for (const Lookup& lookup : lookups)
    keys.insert(keys.end(), lookup.keys.begin(), lookup.keys.end());
  if (keys.empty()) return {};
  const std::vector<LexicalPlaces> found = memory_.lexical().Places(keys, KeyBlocksMax());

  std::vector<Source> leads;
  size_t first = 0;
  for (const Lookup& lookup : lookups) {
    struct Spot {
      DocumentId document;
      uint64_t at;
      size_t key;
    };
    std::vector<size_t> rare;  // keys that lead somewhere
    for (size_t k = first; k < first + lookup.keys.size(); ++k) {
      const auto leads_on = [&](const LexicalPlaces::Place& place) {
        return !known(place.document, place.span.begin);
      };
      if (!found[k].function_word &&
          std::any_of(found[k].places.begin(), found[k].places.end(), leads_on))
        rare.push_back(k);
    }
    first += lookup.keys.size();
    std::stable_sort(rare.begin(), rare.end(),
                     [&](size_t a, size_t b) { return found[a].weight > found[b].weight; });
    if (rare.size() > kKeysMax) rare.resize(kKeysMax);

    double all = 0;
    std::vector<Spot> spots;
    for (size_t k : rare) {
      all += found[k].weight;
      for (const LexicalPlaces::Place& place : found[k].places) {
        if (!known(place.document, place.span.begin))
          spots.push_back({place.document, place.span.begin, k});
      }
    }
    std::sort(spots.begin(), spots.end(), [](const Spot& a, const Spot& b) {
      return a.document != b.document ? a.document < b.document : a.at < b.at;
    });
    std::vector<std::pair<Source, std::set<size_t>>> own;  // leads, with their keys
    std::map<size_t, size_t> lead_count;                   // of each key
    for (size_t begin = 0, end = 0; begin < spots.size(); begin = end) {
      std::set<size_t> held;
      size_t best = begin;
      for (end = begin; end < spots.size() && spots[end].document == spots[begin].document &&
                        spots[end].at - spots[begin].at <= kNearTokens;
           ++end) {
        held.insert(spots[end].key);
        if (found[spots[end].key].weight > found[spots[best].key].weight) best = end;
      }
      for (size_t k : held) ++lead_count[k];
      own.push_back(
          {{.document = spots[best].document, .at = spots[best].at, .hops = lookup.source.hops + 1},
           std::move(held)});
    }
    for (auto& [lead, held] : own) {
      double share = 0;
      for (size_t k : held) share += found[k].weight / all / static_cast<double>(lead_count[k]);
      lead.score = kHopKeep * lookup.source.score * share;
      if (lead.score >= profile_.span_score_min) leads.push_back(lead);
    }
  }
  std::stable_sort(leads.begin(), leads.end(),
                   [](const Source& a, const Source& b) { return a.score > b.score; });
  return leads;
}

Result<std::optional<PlannedSpan>> MultiHop::SpanFor(const Source& lead,
                                                     std::span<const PlannedSpan> spans) {
  const DocumentRecord& document = memory_.Get(lead.document);
  const uint64_t before = profile_.span_tokens / 4, after = profile_.span_tokens * 5 / 8;
  TokenSpan span{lead.at - std::min(lead.at, before),
                 std::min(lead.at + after, document.committed_tokens)};
  LH_ASSIGN_OR_RETURN(span, memory_.GrowToLines(lead.document, span, 48));
  span.end = std::min(span.end, document.committed_tokens);
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

Result<bool> MultiHop::Take(const Source& lead, RecallPlan* plan) {
  const auto holder =
      std::find_if(plan->spans.begin(), plan->spans.end(),
                   [&](const PlannedSpan& s) { return Holds(s, lead.document, lead.at); });
  if (holder != plan->spans.end()) {
    if (holder->score >= lead.score) return false;
    holder->score = lead.score;
    holder->peak = lead.at;
    holder->hops = lead.hops;
    return true;
  }
  if (added_ == profile_.hop_spans) return false;
  LH_ASSIGN_OR_RETURN(std::optional<PlannedSpan> span, SpanFor(lead, plan->spans));
  if (!span.has_value()) return false;
  plan->spans.push_back(std::move(*span));
  ++added_;
  return true;
}

Result<bool> MultiHop::Extend(RecallPlan* plan, std::span<const PlannedSpan> judged) {
  if (profile_.hops_max == 0 || plan->spans.empty()) return false;
  bool changed = false;
  std::vector<Source> sources;
  // The question's keys that no span of the plan holds.
  const auto in_spans = [](std::span<const PlannedSpan> spans, const LexicalPlaces& places) {
    return std::any_of(places.places.begin(), places.places.end(),
                       [&](const LexicalPlaces::Place& place) {
                         return std::any_of(spans.begin(), spans.end(), [&](const PlannedSpan& s) {
                           return Holds(s, place.document, place.span.begin);
                         });
                       });
  };
  std::vector<PlannedSpan> parents;
  for (const PlannedSpan& span : plan->spans) {
    if (span.score >= kParentScoreMin) parents.push_back(span);
  }
  std::vector<Lookup> own;
  const std::vector<LexicalPlaces> places = memory_.lexical().Places(asked_keys_, KeyBlocksMax());
  for (size_t k = 0; k < asked_keys_.size(); ++k) {
    if (places[k].places.empty() || in_spans(parents, places[k])) continue;
    // By how much a judged span that holds the key makes it likelier than the plan's spans do.
    std::optional<double> known, here;
    for (const PlannedSpan& span : parents) known = std::max(known, GainOf(asked_keys_[k], span));
    for (const PlannedSpan& span : judged) {
      if (in_spans(std::span(&span, 1), places[k]))
        here = std::max(here, GainOf(asked_keys_[k], span));
    }
    if (here.has_value() && *here < std::max(0.0, known.value_or(0)) + kJudgedGainMin) continue;
    own.push_back({.source = {.score = in_spans(judged, places[k]) ? kJudgedScore : 1},
                   .keys = {asked_keys_[k]}});
  }
  for (Source lead : Leads(own, [](DocumentId, uint64_t) { return false; })) {
    lead.hops = 0;
    LH_ASSIGN_OR_RETURN(const bool took, Take(lead, plan));
    changed |= took;
    if (took) sources.push_back(lead);
  }
  std::vector<double> weights;
  double heaviest = 0;
  for (const PlannedSpan& span : plan->spans) {
    LH_ASSIGN_OR_RETURN(const double weight,
                        span.score >= kParentScoreMin ? AskedWeight(span) : Result<double>(0.0));
    weights.push_back(weight);
    heaviest = std::max(heaviest, weight);
  }
  for (size_t i = 0; i < plan->spans.size(); ++i) {
    const PlannedSpan& span = plan->spans[i];
    if (span.score < kParentScoreMin || weights[i] < kParentShareMin * heaviest) continue;
    sources.push_back({.document = span.document, .at = span.peak, .score = span.score});
  }

  for (uint32_t hop = 1; hop <= profile_.hops_max && !sources.empty(); ++hop) {
    std::stable_sort(sources.begin(), sources.end(),
                     [](const Source& a, const Source& b) { return a.score > b.score; });
    if (sources.size() > kSourcesMax) sources.resize(kSourcesMax);
    std::vector<Lookup> lookups;
    for (const Source& source : sources) {
      LH_ASSIGN_OR_RETURN(Lookup lookup, Read(source));
      lookups.push_back(std::move(lookup));
    }
    sources = Leads(lookups, [&](DocumentId document, uint64_t token) {
      return std::any_of(read_.begin(), read_.end(), [&](const auto& r) {
        return r.first == document && r.second.Contains(token);
      });
    });
    for (const Source& lead : sources) {
      LH_ASSIGN_OR_RETURN(const bool took, Take(lead, plan));
      changed |= took;
    }
  }
  std::stable_sort(plan->spans.begin(), plan->spans.end(),
                   [](const PlannedSpan& a, const PlannedSpan& b) { return a.score > b.score; });
  return changed;
}

Status MultiHop::View(std::span<const PlannedSpan> spans) {
  for (const PlannedSpan& span : spans) {
    const Result<std::vector<TokenId>> tokens = memory_.Tokens(span.document, span.tokens);
    if (!tokens.ok() && tokens.status().code() == StatusCode::kDataLoss) continue;
    if (!tokens.ok()) return tokens.status();
    for (const LexicalWord& word : vocabulary_.Words(*tokens)) in_view_.insert(word.Stem());
  }
  return OkStatus();
}

Result<std::optional<PlannedSpan>> MultiHop::After(std::span<const TokenId> generated,
                                                   const RecallPlan& plan) {
  if (generation_spans_ >= profile_.generation_spans || generated.size() < heard_ + kListenTokens)
    return std::optional<PlannedSpan>();
  heard_ = generated.size();
  LH_RETURN_IF_ERROR(View(std::span(plan.spans).subspan(viewed_)));
  viewed_ = plan.spans.size();
  std::string text;
  std::vector<size_t> begins;  // bytes of `text` before each token
  for (TokenId token : generated) {
    begins.push_back(text.size());
    text += piece_(token);
  }
  Lookup lookup{.source = {.score = kHeardScore}, .keys = {}};
  for (std::vector<LexicalWord>& key : KeysOf(vocabulary_, piece_, generated)) {
    if (key.back().end == generated.size() || !IsNew(key)) continue;
    followed_.insert(StemsOf(key));
    const auto shown = [&](const LexicalWord& word) { return in_view_.contains(word.Stem()); };
    if (std::all_of(key.begin(), key.end(), shown)) continue;
    size_t begin = begins[key.front().begin];
    // a token may begin with a space
    while (begin < text.size() && !IsWordByte(text[begin])) ++begin;
    if (IsName(text, begin, begins[key.back().end], key.size()))
      lookup.keys.push_back(std::move(key));
  }
  const std::vector<Source> leads =
      Leads(std::span(&lookup, 1), [&](DocumentId document, uint64_t token) {
        return std::any_of(plan.spans.begin(), plan.spans.end(),
                           [&](const PlannedSpan& s) { return Holds(s, document, token); });
      });
  for (const Source& lead : leads) {
    LH_ASSIGN_OR_RETURN(std::optional<PlannedSpan> span, SpanFor(lead, plan.spans));
    if (!span.has_value()) continue;
    ++generation_spans_;
    return span;
  }
  return std::optional<PlannedSpan>();
}

}  // namespace longhold
