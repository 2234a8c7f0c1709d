#include "memory/index/lexical_index.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>

namespace longhold {

Status LexicalIndex::Add(std::shared_ptr<const LexicalSegment> segment) {
  LH_CHECK(segment != nullptr);
  const auto refuse = [&](std::string_view why) {
    return InvalidArgument(
        "add lexical segment d=" + std::to_string(static_cast<uint32_t>(segment->document)) +
        " t=" + std::to_string(segment->token_begin) + ": " + std::string(why));
  };
  if (const char* fault = segment->Fault()) return refuse(fault);
  const auto key = [](const LexicalSegment& s) { return std::pair(s.document, s.token_begin); };
  auto at = std::lower_bound(segments_.begin(), segments_.end(), key(*segment),
                             [&](const auto& s, const auto& k) { return key(*s) < k; });
  if (at != segments_.end() && key(**at) == key(*segment) &&
      (*at)->token_count == segment->token_count) {
    *at = std::move(segment);
    return OkStatus();
  }
  if (at != segments_.end() && (*at)->document == segment->document &&
      (*at)->token_begin < segment->token_end()) {
    return refuse("overlaps the next segment");
  }
  if (at != segments_.begin()) {
    const LexicalSegment& before = **std::prev(at);
    if (before.document == segment->document && before.token_end() > segment->token_begin) {
      return refuse("overlaps the segment before");
    }
  }
  if (may_hold_.empty()) may_hold_.resize(kMayHoldBits);
  for (const uint32_t word : segment->words) may_hold_[(word >> 6) % kMayHoldBits] = true;
  token_count_ += segment->token_count;
  block_count_ += (segment->token_count + kBlockTokens - 1) / kBlockTokens;
  segments_.insert(at, std::move(segment));
  return OkStatus();
}

void LexicalIndex::Remove(DocumentId document) {
  std::erase_if(segments_, [&](const auto& s) {
    if (s->document != document) return false;
    token_count_ -= s->token_count;
    block_count_ -= (s->token_count + kBlockTokens - 1) / kBlockTokens;
    return true;
  });
}

namespace {

constexpr uint32_t kGramWordsMax = 4;
constexpr uint32_t kHalfTokens = kBlockTokens / 2;
// Block numbers left unused between segments that are not adjacent. Larger than the reach of a
// straddling window and its neighbourhood.
constexpr uint32_t kGapBlocks = 2;
constexpr double kFunctionWordFactor = 0.5;
// The following factors were chosen on 37 questions and 800 paraphrased verses over 1.2M tokens.
// Each optimum is flat.
constexpr double kPhraseFactor = 0.6;
constexpr double kOtherFormFactor = 0.7;
constexpr double kNeighbourFactor = 0.3;
constexpr double kSaturation = 0.4;
// N-grams in more than half of the blocks hardly distinguish them and would take most of the time.
constexpr uint32_t kCommonBlocksMin = 64;

// A segment's position in the whole memory. Blocks and words are numbered consecutively over all
// segments. Numbers are skipped between segments that are not adjacent, so that neighbourhoods and
// phrases do not cross.
struct Placement {
  uint32_t first_block = 0;
  uint32_t first_word = 0;
  uint32_t word_count = 0;  // without a last word that the next segment holds whole
};

// A word of the memory whose stem is in the query.
struct Hit {
  uint32_t word = 0;   // number within the memory
  uint32_t block = 0;  // number within the memory
  uint16_t term = 0;
  uint8_t offset = 0;  // token within the block
  uint8_t same_form = 0;
};

// An occurrence of one n-gram of the query.
struct GramHit {
  uint32_t block = 0;
  uint16_t gram = 0;
  uint8_t offset = 0;
  uint8_t same_form = 0;
};

// A distinct sequence of stems in the query.
struct Gram {
  uint32_t first = 0;  // its first position in the query
  uint32_t words = 0;
  uint32_t block_count = 0;
  double weight = 0;
  double share = 1;  // of an expansion word: ExpansionWord::weight
  // Of an expansion word: the gram of the query word that it expands.
  uint16_t of = UINT16_MAX;
};

// The query's distinct stems ("terms") and n-grams.
struct QueryTerms {
  std::vector<uint16_t> term_of;  // [query words]
  std::vector<uint32_t> stems;    // [terms]
  // [terms] bit f is set if the query has form f.
  std::vector<uint64_t> forms;
  // [terms] positions in the query; empty for expansion words.
  std::vector<std::vector<uint32_t>> places;
  // At each position shorter grams before longer ones; expansion words at the end.
  std::vector<Gram> grams;
  // [terms] the gram of an expansion word, else UINT16_MAX.
  std::vector<uint16_t> related_gram;
  size_t own_grams = 0;  // grams without those of expansion words
  // [query words] element n - 1: the gram of n words that begins here.
  std::vector<std::array<uint16_t, kGramWordsMax>> gram_at;

  QueryTerms(std::span<const LexicalWord> query, std::span<const ExpansionWord> related) {
    std::map<uint32_t, uint16_t> term_of_stem;
    for (uint32_t i = 0; i < query.size(); ++i) {
      const auto [it, added] =
          term_of_stem.emplace(query[i].Stem(), static_cast<uint16_t>(stems.size()));
      if (added) {
        stems.push_back(query[i].Stem());
        forms.push_back(0);
        places.emplace_back();
      }
      term_of.push_back(it->second);
      forms[it->second] |= uint64_t{1} << (query[i].id & 63);
      places[it->second].push_back(i);
    }
    std::map<std::vector<uint16_t>, uint16_t> gram_of;
    gram_at.resize(query.size());
    for (uint32_t i = 0; i < query.size(); ++i) {
      for (uint32_t n = 1; n <= kGramWordsMax && i + n <= query.size(); ++n) {
        const std::vector<uint16_t> key(term_of.begin() + i, term_of.begin() + i + n);
        const auto [it, added] = gram_of.emplace(key, static_cast<uint16_t>(grams.size()));
        if (added) grams.push_back({.first = i, .words = n});
        gram_at[i][n - 1] = it->second;
      }
    }
    own_grams = grams.size();
    related_gram.assign(stems.size(), UINT16_MAX);
    for (const ExpansionWord& r : related) {
      const auto of = term_of_stem.find(r.of);
      if (of == term_of_stem.end() || grams.size() >= UINT16_MAX) continue;
      // Skip a word of the query, or one that already expands an earlier word.
      if (!term_of_stem.emplace(r.stem, static_cast<uint16_t>(stems.size())).second) continue;
      related_gram.push_back(static_cast<uint16_t>(grams.size()));
      stems.push_back(r.stem);
      forms.push_back(~uint64_t{0});
      places.emplace_back();
      grams.push_back(
          {.words = 1, .share = r.weight, .of = gram_at[places[of->second].front()][0]});
    }
  }
};

// Whether `next` begins where `segment` ends, in the same document. `next` may be null.
bool Touches(const LexicalSegment& segment, const LexicalSegment* next) {
  return next != nullptr && next->document == segment.document &&
         next->token_begin == segment.token_end();
}

// Number of words of `segment`, without a last one that `next` holds whole.
uint32_t WholeWords(const LexicalSegment& segment, const LexicalSegment* next) {
  const auto words = static_cast<uint32_t>(segment.words.size());
  const bool cut = Touches(segment, next) && next->continues && words > 0 &&
                   uint32_t{segment.begins.back()} + segment.lengths.back() == segment.token_count;
  return cut ? words - 1 : words;
}

// Inverse document frequency: how rare it is to occur in `df` of `blocks` blocks.
double IdfOf(uint64_t blocks, double df) {
  return std::log1p((static_cast<double>(blocks) - df + 0.5) / (df + 0.5));
}

// One query over one state of the index.
class Search {
 public:
  Search(std::span<const std::shared_ptr<const LexicalSegment>> segments, uint64_t block_count,
         std::span<const LexicalWord> query, std::span<const ExpansionWord> related)
      : segments_(segments), block_count_(block_count), terms_(query, related) {
    Place();
    FindWords();
    FindGrams();
    Weigh();
    IndexGramHits();
  }

  LexicalResult Run(size_t max_blocks) {
    LexicalResult result;
    for (size_t g = 0; g < terms_.own_grams; ++g) result.query_score += terms_.grams[g].weight;
    for (size_t i = 0; i < terms_.term_of.size(); ++i) {
      const Gram& gram = terms_.grams[terms_.gram_at[i][0]];
      result.words.push_back({.block_count = gram.block_count,
                              .weight = gram.weight,
                              .function_word = IsFunctionWord(terms_.stems[terms_.term_of[i]])});
    }
    const std::vector<double> weights = GramWeights();
    std::vector<Scored> scored = ScoreBlocks(weights);
    const auto better = [](const Scored& a, const Scored& b) {
      return a.score != b.score ? a.score > b.score : a.block < b.block;
    };
    const std::vector<Scored> all = scored;
    const size_t kept = std::min(max_blocks, scored.size());
    std::partial_sort(scored.begin(), scored.begin() + static_cast<ptrdiff_t>(kept), scored.end(),
                      better);
    scored.resize(kept);
    for (const Scored& s : scored) {
      result.blocks.push_back({.block = KeyOf(s.block),
                               .score = s.score,
                               .peak_token = PeakToken(s.block, weights),
                               .related = s.related});
      AppendMatches(s.block, result.matches);
    }
    Cover(all, weights, &result);
    std::stable_sort(
        result.matches.begin(), result.matches.end(),
        [](const LexicalMatch& a, const LexicalMatch& b) { return a.score > b.score; });
    return result;
  }

 private:
  struct Scored {
    uint32_t block = 0;
    double score = 0;
    double related = 0;  // part of the score from query expansion
  };

  void Place() {
    uint32_t block = 0;
    uint64_t word = 0;  // 32 bits number 4 G words, far more than fit into RAM
    for (size_t s = 0; s < segments_.size(); ++s) {
      const LexicalSegment& segment = *segments_[s];
      const LexicalSegment* next = s + 1 < segments_.size() ? segments_[s + 1].get() : nullptr;
      const bool touches = Touches(segment, next);
      const uint32_t words = WholeWords(segment, next);
      placements_.push_back(
          {.first_block = block, .first_word = static_cast<uint32_t>(word), .word_count = words});
      block += (segment.token_count + kBlockTokens - 1) / kBlockTokens + (touches ? 0 : kGapBlocks);
      word += words + (touches ? 0 : 1);
    }
    LH_CHECK(word <= UINT32_MAX);
    blocks_ = block;
  }

  void FindWords() {
    // A chained hash table of terms by the low 12 bits of their stem. Its 8 KiB stay in the
    // first-level cache and reject most words.
    constexpr uint32_t kSlots = 4096;
    constexpr uint16_t kNone = UINT16_MAX;
    std::array<uint16_t, kSlots> slot;
    slot.fill(kNone);
    std::vector<uint16_t> chain(terms_.stems.size());
    for (uint16_t t = 0; t < terms_.stems.size(); ++t)
      chain[t] = std::exchange(slot[terms_.stems[t] % kSlots], t);
    for (size_t s = 0; s < segments_.size(); ++s) {
      const LexicalSegment& segment = *segments_[s];
      const Placement& placement = placements_[s];
      for (uint32_t w = 0; w < placement.word_count; ++w) {
        const uint32_t stem = segment.words[w] >> 6;
        uint16_t term = slot[stem % kSlots];
        while (term != kNone && terms_.stems[term] != stem) term = chain[term];
        if (term == kNone) continue;
        const uint32_t token = segment.begins[w];
        hits_.push_back(
            {.word = placement.first_word + w,
             .block = placement.first_block + token / kBlockTokens,
             .term = term,
             .offset = static_cast<uint8_t>(token % kBlockTokens),
             .same_form = static_cast<uint8_t>(terms_.forms[term] >> (segment.words[w] & 63) & 1)});
      }
    }
  }

  // Whether the words at hits_[x], hits_[x + 1], ... are the query's words from `place` on. Checks
  // only the n-th of them.
  bool Continues(size_t x, uint32_t place, uint32_t n) const {
    return x + n < hits_.size() && place + n < terms_.term_of.size() &&
           hits_[x + n].word == hits_[x].word + n && hits_[x + n].term == terms_.term_of[place + n];
  }

  void FindGrams() {
    std::vector<uint32_t> last_block(terms_.grams.size(), UINT32_MAX);
    gram_hits_.reserve(hits_.size() * 2);
    for (size_t x = 0; x < hits_.size(); ++x) {
      const Hit& hit = hits_[x];
      if (const uint16_t g = terms_.related_gram[hit.term]; g != UINT16_MAX) {
        gram_hits_.push_back({.block = hit.block, .gram = g, .offset = hit.offset, .same_form = 1});
        if (last_block[g] != hit.block) ++terms_.grams[g].block_count;
        last_block[g] = hit.block;
      }
      for (const uint32_t place : terms_.places[hit.term]) {
        uint8_t same_form = 1;
        for (uint32_t n = 1; n <= kGramWordsMax; ++n) {
          if (!Continues(x, place, n - 1)) break;
          same_form &= hits_[x + n - 1].same_form;
          const uint16_t g = terms_.gram_at[place][n - 1];
          Gram& gram = terms_.grams[g];
          if (gram.first != place) continue;  // counted at its first position in the query
          gram_hits_.push_back(
              {.block = hit.block, .gram = g, .offset = hit.offset, .same_form = same_form});
          if (last_block[g] != hit.block) ++gram.block_count;
          last_block[g] = hit.block;
        }
      }
    }
  }

  void Weigh() {
    // Single words first: they bound the weight of phrases.
    const std::span<Gram> own(terms_.grams.data(), terms_.own_grams),
        related = std::span(terms_.grams).subspan(terms_.own_grams);
    for (Gram& gram : own) {
      if (gram.words > 1) continue;
      const bool function_word = IsFunctionWord(terms_.stems[terms_.term_of[gram.first]]);
      gram.weight = (function_word ? kFunctionWordFactor : 1) * Idf(gram);
    }
    for (Gram& gram : related)
      gram.weight = gram.share * std::min(Idf(gram), terms_.grams[gram.of].weight);
    for (Gram& gram : own) {
      if (gram.words == 1) continue;
      double sum = 0;
      for (uint32_t n = 0; n < gram.words; ++n)
        sum += terms_.grams[terms_.gram_at[gram.first + n][0]].weight;
      gram.weight = kPhraseFactor / gram.words * std::min(Idf(gram), sum);
    }
  }

  void IndexGramHits() {
    std::erase_if(gram_hits_,
                  [&](const GramHit& hit) { return terms_.grams[hit.gram].weight == 0; });
    first_gram_hit_.resize(2 * blocks_ + 1);
    size_t x = 0;
    for (uint32_t half = 0; half <= 2 * blocks_; ++half) {
      while (x < gram_hits_.size() &&
             gram_hits_[x].block * 2 + gram_hits_[x].offset / kHalfTokens < half)
        ++x;
      first_gram_hit_[half] = static_cast<uint32_t>(x);
    }
  }

  double Idf(const Gram& gram) const {
    if (gram.block_count > kCommonBlocksMin && gram.block_count > block_count_ / 2) return 0;

    // In query_score, an n-gram that is not in the memory weighs as if it were in one block.
    const double df = std::max(1.0, static_cast<double>(gram.block_count));
    return IdfOf(block_count_, df);
  }

  std::vector<double> GramWeights() const {
    std::vector<double> weights;
    for (const Gram& gram : terms_.grams) weights.push_back(gram.weight);
    return weights;
  }

  // Greedy: first the block with the best score, then repeatedly the one with the best score over
  // the n-grams that the blocks before it lack. `all` are the scores over all n-grams.
  void Cover(const std::vector<Scored>& all, std::vector<double> weights,
             LexicalResult* result) const {
    if (result->blocks.empty()) return;
    std::vector<Scored> scored = all;
    while (result->cover.size() < kLexicalCoverMax) {
      const auto best =
          std::max_element(scored.begin(), scored.end(), [](const Scored& a, const Scored& b) {
            return a.score != b.score ? a.score < b.score : a.block > b.block;
          });
      if (best == scored.end() || best->score < kLexicalCoverGainMin * result->query_score) return;
      const auto whole = std::lower_bound(all.begin(), all.end(), best->block,
                                          [](const Scored& s, uint32_t b) { return s.block < b; });
      result->cover.push_back({{.block = KeyOf(best->block),
                                .score = whole->score,
                                .peak_token = PeakToken(best->block, weights)},
                               best->score});
      // One place is enough for expansion words. The query's own words may need several.
      std::fill(weights.begin() + static_cast<ptrdiff_t>(terms_.own_grams), weights.end(), 0);
      // N-grams in the block or half a block around it will be in its span.
      for (const GramHit& hit :
           Hits(best->block > 0 ? 2 * best->block - 1 : 0, 2 * best->block + 3))
        weights[hit.gram] = 0;
      scored = ScoreBlocks(weights);
    }
  }

  // Windows of 64 tokens begin at every 32nd token. A window that is a block counts for that block.
  // A window across an edge counts for the block with more of the window's weight. A block's score
  // is the best of its windows. Ascending by block.
  std::vector<Scored> ScoreBlocks(const std::vector<double>& weights) const {
    std::vector<double> best(blocks_), best_expansion(blocks_);
    std::vector<double> frequency(terms_.grams.size());
    // Scores by the query's own n-grams, and by expansion words.
    std::vector<double> given(terms_.own_grams), instead(terms_.own_grams);
    std::vector<uint16_t> touched;
    for (uint32_t half = 0; half < 2 * blocks_; ++half) {
      if (half % 2 == 1 && (Hits(half).empty() || Hits(half + 1).empty())) continue;
      const int64_t begin = int64_t{half} * kHalfTokens;
      double side_weight[2] = {0, 0};
      for (const GramHit& hit : Hits(half > 2 ? half - 2 : 0, half + 4)) {
        const int64_t token = int64_t{hit.block} * kBlockTokens + hit.offset;
        double share = hit.same_form ? 1 : kOtherFormFactor;
        if (token < begin) {
          share *=
              kNeighbourFactor / kBlockTokens * static_cast<double>(kBlockTokens - (begin - token));
        } else if (token >= begin + kBlockTokens) {
          share *= kNeighbourFactor / kBlockTokens *
                   static_cast<double>(begin + 2 * kBlockTokens - 1 - token);
        } else {
          side_weight[token >= begin + kHalfTokens] += share * weights[hit.gram];
        }
        if (share == 0) continue;
        if (frequency[hit.gram] == 0) touched.push_back(hit.gram);
        frequency[hit.gram] += share;
      }
      double score = 0, related = 0;
      for (const uint16_t g : touched) {
        const double gives =
            weights[g] * (1 + kSaturation) * frequency[g] / (frequency[g] + kSaturation);
        frequency[g] = 0;
        if (g < terms_.own_grams) {
          score += given[g] = gives;
        } else {
          double& most = instead[terms_.grams[g].of];
          most = std::max(most, gives);
        }
      }
      for (const uint16_t g : touched) {
        const uint16_t own = g < terms_.own_grams ? g : terms_.grams[g].of;
        related += std::max(0.0, instead[own] - given[own]);
        instead[own] = 0;
      }
      for (const uint16_t g : touched) {
        if (g < terms_.own_grams) given[g] = 0;
      }
      touched.clear();
      score += related;
      const uint32_t block = half / 2 + (half % 2 == 1 && side_weight[1] > side_weight[0] ? 1 : 0);
      if (score <= best[block]) continue;
      best[block] = score;
      best_expansion[block] = related;
    }
    std::vector<Scored> out;
    for (uint32_t b = 0; b < blocks_; ++b) {
      if (best[b] > 0 && IsBlock(b))
        out.push_back({.block = b, .score = best[b], .related = best_expansion[b]});
    }
    return out;
  }

  // The occurrences that begin in half-blocks [first, last).
  std::span<const GramHit> Hits(uint32_t first, uint32_t last) const {
    const uint32_t begin = first_gram_hit_[std::min(first, 2 * blocks_)];
    return std::span(gram_hits_)
        .subspan(begin, first_gram_hit_[std::min(last, 2 * blocks_)] - begin);
  }
  std::span<const GramHit> Hits(uint32_t half) const { return Hits(half, half + 1); }

  // The token of `block` with the densest weight around it. Every n-gram counts once, by its
  // nearest occurrence within 64 tokens, and counts less with distance.
  uint64_t PeakToken(uint32_t block, const std::vector<double>& weights) const {
    const std::span<const GramHit> inside = Hits(2 * block, 2 * block + 2);
    const std::span<const GramHit> around = Hits(block > 0 ? 2 * block - 2 : 0, 2 * block + 4);
    std::vector<double> nearest(terms_.grams.size());
    double best = -1;
    uint32_t best_offset = 0;
    for (size_t x = 0; x < inside.size(); ++x) {
      if (x > 0 && inside[x].offset == inside[x - 1].offset) continue;
      const int64_t center = int64_t{block} * kBlockTokens + inside[x].offset;
      std::fill(nearest.begin(), nearest.end(), 0);
      for (const GramHit& hit : around) {
        const int64_t distance = std::abs(int64_t{hit.block} * kBlockTokens + hit.offset - center);
        const double near = 1 - static_cast<double>(distance) / kBlockTokens;
        nearest[hit.gram] =
            std::max(nearest[hit.gram], near * (hit.same_form ? 1 : kOtherFormFactor));
      }
      double density = 0;
      for (size_t g = 0; g < nearest.size(); ++g) density += nearest[g] * weights[g];
      if (density > best) {
        best = density;
        best_offset = inside[x].offset;
      }
    }
    return uint64_t{KeyOf(block).block} * kBlockTokens + best_offset;
  }

  void AppendMatches(uint32_t block, std::vector<LexicalMatch>& out) const {
    const auto begin = std::lower_bound(hits_.begin(), hits_.end(), block,
                                        [](const Hit& hit, uint32_t b) { return hit.block < b; });
    std::vector<LexicalMatch> found;
    for (auto x = static_cast<size_t>(begin - hits_.begin());
         x < hits_.size() && hits_[x].block == block; ++x) {
      for (const uint32_t place : terms_.places[hits_[x].term]) {
        if (x > 0 && place > 0 && Continues(x - 1, place - 1, 1) &&
            hits_[x - 1].term == terms_.term_of[place - 1]) {
          continue;  // part of a match that began earlier
        }
        uint32_t words = 1;
        while (Continues(x, place, words)) ++words;
        LexicalMatch match = MatchAt(x, place, words);
        if (match.score > 0) found.push_back(match);
      }
    }
    std::stable_sort(found.begin(), found.end(), [](const LexicalMatch& a, const LexicalMatch& b) {
      return a.score > b.score;
    });
    if (found.size() > kLexicalMatchesPerBlock) found.resize(kLexicalMatchesPerBlock);
    out.insert(out.end(), found.begin(), found.end());
  }

  LexicalMatch MatchAt(size_t x, uint32_t place, uint32_t words) const {
    const Hit& first = hits_[x];
    const Hit& last = hits_[x + words - 1];
    const size_t head_at = SegmentOf(first.block);
    const size_t tail_at = SegmentOf(last.block);
    const LexicalSegment& head = *segments_[head_at];
    const LexicalSegment& tail = *segments_[tail_at];
    const uint32_t tail_word = last.word - placements_[tail_at].first_word;
    LexicalMatch match{.document = head.document, .query_begin = place, .query_words = words};
    match.span.begin = head.token_begin + head.begins[first.word - placements_[head_at].first_word];
    match.span.end = tail.token_begin + tail.begins[tail_word] + tail.lengths[tail_word];
    for (uint32_t i = 0; i < words; ++i) {
      for (uint32_t n = 1; n <= kGramWordsMax && i + n <= words; ++n) {
        match.score += terms_.grams[terms_.gram_at[place + i][n - 1]].weight;
      }
    }
    return match;
  }

  // The segment of `block` (numbered within the memory). A skipped number belongs to the segment
  // before it.
  size_t SegmentOf(uint32_t block) const {
    const auto it =
        std::upper_bound(placements_.begin(), placements_.end(), block,
                         [](uint32_t b, const Placement& p) { return b < p.first_block; });
    return static_cast<size_t>(it - placements_.begin()) - 1;
  }

  // False for numbers skipped between segments that are not adjacent.
  bool IsBlock(uint32_t block) const {
    const size_t s = SegmentOf(block);
    return uint64_t{block - placements_[s].first_block} * kBlockTokens < segments_[s]->token_count;
  }

  BlockKey KeyOf(uint32_t block) const {
    const size_t s = SegmentOf(block);
    return {.document = segments_[s]->document,
            .block = static_cast<uint32_t>(segments_[s]->token_begin / kBlockTokens) + block -
                     placements_[s].first_block};
  }

  std::span<const std::shared_ptr<const LexicalSegment>> segments_;
  uint64_t block_count_;
  QueryTerms terms_;
  std::vector<Placement> placements_;     // [segments]
  uint32_t blocks_ = 0;                   // numbers in use, including skipped ones
  std::vector<Hit> hits_;                 // in text order
  std::vector<GramHit> gram_hits_;        // ascending by block
  std::vector<uint32_t> first_gram_hit_;  // [2 * blocks + 1] indexed by half-block
};

}  // namespace

LexicalResult LexicalIndex::Query(std::span<const LexicalWord> query,
                                  std::span<const ExpansionWord> related, size_t max_blocks) const {
  if (query.size() > kLexicalQueryWordsMax) query = query.last(kLexicalQueryWordsMax);
  if (query.empty() || segments_.empty()) return {};
  return Search(segments_, block_count_, query, related).Run(max_blocks);
}

std::vector<LexicalPlaces> LexicalIndex::Places(std::span<const std::vector<LexicalWord>> keys,
                                                uint32_t blocks_max) const {
  // A chained hash table of keys by the low 12 bits of their first stem, as in Search::FindWords.
  constexpr uint32_t kSlots = 4096;
  constexpr uint32_t kNone = UINT32_MAX;
  std::vector<uint32_t> slot(kSlots, kNone), chain(keys.size(), kNone);
  std::vector<LexicalPlaces> found(keys.size());
  std::vector<BlockKey> last(keys.size());
  std::vector<uint32_t> in_last(keys.size());
  for (uint32_t k = 0; k < keys.size(); ++k) {
    if (keys[k].empty() || keys[k].size() > kLexicalKeyWordsMax) continue;
    found[k].function_word = keys[k].size() == 1 && IsFunctionWord(keys[k][0].Stem());
    chain[k] = std::exchange(slot[keys[k][0].Stem() % kSlots], k);
  }
  std::vector<uint32_t> whole(segments_.size());
  const auto next_of = [&](size_t s) {
    return s + 1 < segments_.size() ? segments_[s + 1].get() : nullptr;
  };
  for (size_t s = 0; s < segments_.size(); ++s) whole[s] = WholeWords(*segments_[s], next_of(s));

  for (size_t s = 0; s < segments_.size(); ++s) {
    const LexicalSegment& segment = *segments_[s];
    for (uint32_t w = 0; w < whole[s]; ++w) {
      const uint32_t stem = segment.words[w] >> 6;
      for (uint32_t k = slot[stem % kSlots]; k != kNone; k = chain[k]) {
        if (keys[k][0].Stem() != stem || found[k].block_count > blocks_max) continue;
        // The other words must follow, possibly in the next segments.
        size_t at_segment = s;
        uint32_t at_word = w;
        bool follows = true;
        for (size_t n = 1; n < keys[k].size() && follows; ++n) {
          ++at_word;
          while (at_word >= whole[at_segment] &&
                 Touches(*segments_[at_segment], next_of(at_segment))) {
            at_word -= whole[at_segment];
            ++at_segment;
          }
          follows = at_word < whole[at_segment] &&
                    segments_[at_segment]->words[at_word] >> 6 == keys[k][n].Stem();
        }
        if (!follows) continue;
        const uint64_t begin = segment.token_begin + segment.begins[w];
        const LexicalSegment& tail = *segments_[at_segment];
        const BlockKey block{segment.document, static_cast<uint32_t>(begin / kBlockTokens)};
        LexicalPlaces& p = found[k];
        if (p.block_count == 0 || last[k] != block) {
          ++p.block_count;
          last[k] = block;
          in_last[k] = 0;
        }
        if (in_last[k]++ >= kLexicalMatchesPerBlock) continue;
        p.places.push_back(
            {segment.document,
             {begin, tail.token_begin + tail.begins[at_word] + tail.lengths[at_word]}});
      }
    }
  }
  for (LexicalPlaces& p : found) {
    if (p.block_count > blocks_max) p.places.clear();
    if (p.block_count > 0) p.weight = IdfOf(block_count_, p.block_count);
  }
  return found;
}

}  // namespace longhold
