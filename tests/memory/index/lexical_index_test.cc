// Compares LexicalIndex with the formulas of its header, computed the slow way over whole
// documents: no segments, every n-gram searched at every word, every window visited. Both sum the
// same doubles in nearly the same order, so 1e-9 of the score is generous. Sizes: segments of 128
// tokens, so that words, phrases and windows often cross edges; memories of some 150 blocks, so
// that some words occur in more than half of the blocks and in more than 64.
#include "memory/index/lexical_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <tuple>

#include "base/hash.h"
#include "tests/support/sanitized.h"

namespace longhold {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// One token per byte: token id = byte.
const LexicalVocabulary& Bytes() {
  static const LexicalVocabulary* vocabulary = [] {
    std::vector<std::string> pieces;
    for (int b = 0; b < 256; ++b) pieces.push_back(std::string(1, static_cast<char>(b)));
    return new LexicalVocabulary(std::move(pieces));
  }();
  return *vocabulary;
}

std::vector<TokenId> Tokens(std::string_view text) {
  std::vector<TokenId> out;
  for (const char c : text) out.push_back(static_cast<uint8_t>(c));
  return out;
}

std::vector<LexicalWord> Words(std::string_view text) { return Bytes().Words(Tokens(text)); }

// The only word of `text`.
LexicalWord WordOf(std::string_view text) {
  const std::vector<LexicalWord> words = Words(text);
  EXPECT_THAT(words, SizeIs(1)) << text;
  return words.empty() ? LexicalWord{} : words[0];
}

std::vector<std::string> Spelled(std::string_view text) {
  std::vector<std::string> out;
  for (const LexicalWord& w : Words(text)) out.emplace_back(text.substr(w.begin, w.end - w.begin));
  return out;
}

TEST(LexicalVocabulary, SplitsAtSpacePunctuationCaseAndDigits) {
  EXPECT_THAT(Spelled("Who, then, made  the\nark?"),
              ElementsAre("Who", "then", "made", "the", "ark"));
  EXPECT_THAT(Spelled("readFile(kMax_size)"), ElementsAre("read", "File", "k", "Max", "size"));
  EXPECT_THAT(Spelled("LRUCache HTTP2Server URLs IDs DBImpl NASA XMLHttpRequest"),
              ElementsAre("LRU", "Cache", "HTTP", "2", "Server", "URLs", "IDs", "DB", "Impl",
                          "NASA", "XML", "Http", "Request"));
  EXPECT_THAT(Spelled("ABжcd"), ElementsAre("ABжcd"));
  EXPECT_THAT(Spelled("a1b22-c333"), ElementsAre("a", "1", "b", "22", "c", "333"));
  // U+2581, right quote
  EXPECT_THAT(Spelled("\xE2\x96\x81Noah\xE2\x80\x99s"), ElementsAre("Noah", "s"));
  EXPECT_THAT(Spelled(" \n\t.,;"), IsEmpty());
  EXPECT_THAT(Spelled(""), IsEmpty());
}

TEST(LexicalVocabulary, TakesEveryCharacterOfScriptsWithoutSpacesAsAWord) {
  EXPECT_THAT(Spelled("東京都、京都"), ElementsAre("東", "京", "都", "京", "都"));
  EXPECT_EQ(Words("京")[0].id, Words("東京")[1].id);
}

TEST(LexicalVocabulary, FoldsCaseAndAccents) {
  EXPECT_EQ(WordOf("METHUSELAH").id, WordOf("methuselah").id);
  EXPECT_EQ(WordOf("\xC3\x89t\xC3\xA9").id, WordOf("ete").id);
  EXPECT_EQ(WordOf("e\xCC\x81t\xC3\xA9").id, WordOf("ete").id);  // combining acute accent
  EXPECT_EQ(WordOf("ΛΌΓΟΣ").id, WordOf("λόγος").id);
  EXPECT_EQ(WordOf("МОСКВА").id, WordOf("москва").id);
  EXPECT_EQ(WordOf("Łódź").id, WordOf("lodz").id);
  EXPECT_EQ(WordOf("ＡＢＣ").id, WordOf("abc").id);
}

TEST(LexicalVocabulary, GivesInflectionsOneStemAndDistinctForms) {
  const std::vector<std::vector<std::string>> families = {
      {"brother", "brothers"},
      {"wrestle", "wrestled", "wrestling", "wrestles", "wrestleth"},
      {"city", "cities"},
      {"stop", "stopped", "stopping"},
      {"carry", "carried", "carries"},
      {"glass", "glasses"},
      {"tender", "tenderly"},
      {"dream", "dreamed"},
      {"make", "making", "makes"}};
  for (const auto& family : families) {
    for (size_t i = 1; i < family.size(); ++i) {
      EXPECT_EQ(WordOf(family[i]).Stem(), WordOf(family[0]).Stem()) << family[i];
    }
  }
  EXPECT_NE(WordOf("brothers").id, WordOf("brother").id);  // another form; 1 in 64 would collide
  EXPECT_NE(WordOf("forest").Stem(), WordOf("for").Stem());
  EXPECT_NE(WordOf("string").Stem(), WordOf("str").Stem());
  EXPECT_NE(WordOf("this").Stem(), WordOf("thi").Stem());
}

TEST(LexicalVocabulary, GivesIrregularFormsTheStemOfTheirBase) {
  const std::vector<std::vector<std::string>> families = {
      {"speak", "spoke", "spoken", "spake", "Speaketh", "speaks"},
      {"slay", "slew", "slain", "slayeth", "slays"},
      {"beget", "begat", "begotten"},
      {"go", "went", "gone", "goes", "goeth", "going"},
      {"take", "took", "taken", "taketh", "taking"},
      {"say", "said", "saith"},
      {"child", "children"},
      {"brother", "brethren", "brothers"},
      {"fisherman", "fishermen"},
      {"hypothesis", "hypotheses"},
      {"family", "families"}};
  for (const auto& family : families) {
    for (size_t i = 1; i < family.size(); ++i) {
      EXPECT_EQ(WordOf(family[i]).Stem(), WordOf(family[0]).Stem()) << family[i];
    }
  }
  EXPECT_NE(WordOf("spake").id, WordOf("speak").id);  // the form still differs
}

TEST(LexicalVocabulary, StemsShortWordsLikeTheirInflections) {
  const std::vector<std::vector<std::string>> families = {
      {"day", "days"}, {"fly", "flies"},          {"die", "dies", "died", "dying"},
      {"tie", "ties"}, {"add", "adds", "added"},  {"agree", "agreed", "agreeing"},
      {"use", "used"}, {"cry", "cried", "cries"}, {"see", "seeing", "sees"}};
  for (const auto& family : families) {
    for (size_t i = 1; i < family.size(); ++i) {
      EXPECT_EQ(WordOf(family[i]).Stem(), WordOf(family[0]).Stem()) << family[i];
    }
  }
}

TEST(LexicalVocabulary, FindsTheSameWordsHoweverTheTextIsTokenized) {
  const std::string text = "In Łódź the CITIES—東京 too—held 969 wrestlers’ halls; readFile(x1).";
  const std::vector<LexicalWord> bytes = Words(text);
  for (uint32_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 rng(seed);
    std::vector<std::string> pieces;
    std::vector<TokenId> tokens;
    for (size_t at = 0; at < text.size();) {
      const size_t size = 1 + rng() % 7;
      tokens.push_back(static_cast<TokenId>(pieces.size()));
      pieces.push_back(text.substr(at, size));
      at += size;
    }
    const std::vector<LexicalWord> words = LexicalVocabulary(pieces).Words(tokens);
    ASSERT_EQ(words.size(), bytes.size());
    for (size_t w = 0; w < words.size(); ++w) {
      EXPECT_EQ(words[w].id, bytes[w].id);
      EXPECT_LT(words[w].begin, words[w].end);
    }
  }
}

TEST(LexicalVocabulary, EndsWordsAtControlTokensUnknownIdsAndBrokenUtf8) {
  const LexicalVocabulary vocabulary({"no", "ah", "", "\xE6\x9D"});
  EXPECT_THAT(vocabulary.Words(std::vector<TokenId>{0, 1}), SizeIs(1));
  EXPECT_THAT(vocabulary.Words(std::vector<TokenId>{0, 2, 1}), SizeIs(2));
  EXPECT_THAT(vocabulary.Words(std::vector<TokenId>{0, -1, 1}), SizeIs(2));
  EXPECT_THAT(vocabulary.Words(std::vector<TokenId>{0, 99, 1}), SizeIs(2));
  EXPECT_THAT(vocabulary.Words(std::vector<TokenId>{3, 3, 0}), SizeIs(1));
}

TEST(LexicalVocabulary, CutsOverlongWords) {
  EXPECT_THAT(Words(std::string(1000, 'x')), SizeIs(16));
}

// ---- Segments

LexicalSegment Sample() {
  const std::vector<TokenId> tokens =
      Tokens("xx and they wrestled until the breaking of the day, 969 times");
  return LexicalSegment::Build(Bytes(), DocumentId{7}, 128, Tokens("until bo"), tokens);
}

TEST(LexicalSegment, ContainsInFullAWordThatCrossesItsBegin) {
  const LexicalSegment segment = Sample();
  EXPECT_TRUE(segment.continues);
  EXPECT_EQ(segment.words[0], WordOf("boxx").id);
  EXPECT_EQ(segment.begins[0], 0);
  EXPECT_EQ(segment.lengths[0], 2);
  EXPECT_EQ(segment.words[1], WordOf("and").id);
  EXPECT_EQ(segment.begins[1], 3);
  EXPECT_FALSE(
      LexicalSegment::Build(Bytes(), DocumentId{7}, 128, Tokens("until "), Tokens("xx")).continues);
}

TEST(LexicalSegment, RoundTrips) {
  const LexicalSegment segment = Sample();
  const Result<LexicalSegment> decoded = LexicalSegment::Decode(segment.Encode());
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_EQ(*decoded, segment);
  const LexicalSegment blank = LexicalSegment::Build(Bytes(), DocumentId{1}, 0, {}, Tokens("..."));
  EXPECT_EQ(LexicalSegment::Decode(blank.Encode()).value(), blank);
}

// The format is a contract: these bytes stay version 1 with word rules 2 (docs/formats/index.md).
TEST(LexicalSegment, EncodesToTheDocumentedBytes) {
  const std::string bytes =
      LexicalSegment::Build(Bytes(), DocumentId{3}, 64, {}, Tokens("The ark, 300")).Encode();
  ASSERT_EQ(bytes.size(), 40u + 3 * 7 + 8);
  EXPECT_EQ(bytes.substr(0, 4), "LHLX");
  EXPECT_EQ(Hash64(bytes), 0x23eea87b224439fcu) << std::hex << Hash64(bytes);
}

TEST(LexicalSegment, DetectsEveryTruncationAndFlippedBit) {
  const std::string bytes = Sample().Encode();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const Result<LexicalSegment> decoded =
        LexicalSegment::Decode(std::string_view(bytes).substr(0, size));
    ASSERT_FALSE(decoded.ok()) << size;
    EXPECT_EQ(decoded.status().code(), StatusCode::kDataLoss);
  }
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string broken = bytes;
    broken[bit / 8] = static_cast<char>(broken[bit / 8] ^ (1 << (bit % 8)));
    ASSERT_FALSE(LexicalSegment::Decode(broken).ok()) << bit;
  }
  EXPECT_FALSE(LexicalSegment::Decode(bytes + '\0').ok());
}

// A forger, or a bug of ours, can write a valid checksum over garbage. Decode must still keep every
// promise.
TEST(LexicalSegment, HandlesDamageUnderAValidChecksum) {
  const std::string bytes = Sample().Encode();
  LexicalIndex index;
  for (size_t bit = 0; bit < (bytes.size() - 8) * 8; ++bit) {
    std::string broken = bytes.substr(0, bytes.size() - 8);
    broken[bit / 8] = static_cast<char>(broken[bit / 8] ^ (1 << (bit % 8)));
    const uint64_t checksum = Hash64(broken);
    broken.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
    Result<LexicalSegment> decoded = LexicalSegment::Decode(broken);
    if (!decoded.ok()) continue;
    const DocumentId document = decoded->document;
    ASSERT_TRUE(index.Add(std::make_shared<const LexicalSegment>(std::move(*decoded))).ok());
    index.Query(Words("they wrestled until the breaking of the day"), 4);
    index.Remove(document);
  }
  EXPECT_EQ(index.token_count(), 0u);
}

TEST(LexicalSegment, RefusesTheWordRulesOfAnotherVersionAsAFailedPrecondition) {
  std::string bytes = Sample().Encode();
  bytes.resize(bytes.size() - 8);
  bytes[8] = static_cast<char>(kLexicalRules + 1);
  const uint64_t checksum = Hash64(bytes);
  bytes.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
  const Result<LexicalSegment> decoded = LexicalSegment::Decode(bytes);
  ASSERT_FALSE(decoded.ok());
  EXPECT_EQ(decoded.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(decoded.status().message(), HasSubstr("rebuild"));
}

// ---- The index against its formulas

constexpr size_t kSegmentTokens = 128;

void AddDocument(LexicalIndex& index, const LexicalVocabulary& vocabulary, DocumentId document,
                 std::span<const TokenId> tokens) {
  for (size_t begin = 0; begin < tokens.size(); begin += kSegmentTokens) {
    const size_t size = std::min(kSegmentTokens, tokens.size() - begin);
    auto segment = std::make_shared<const LexicalSegment>(LexicalSegment::Build(
        vocabulary, document, begin, tokens.first(begin), tokens.subspan(begin, size)));
    ASSERT_TRUE(index.Add(std::move(segment)).ok());
  }
}

struct NaiveMemory {
  std::map<DocumentId, std::vector<LexicalWord>> words;  // word begins clipped as in the segments
  std::map<DocumentId, size_t> tokens;

  void Add(const LexicalVocabulary& vocabulary, DocumentId document,
           std::span<const TokenId> text) {
    tokens[document] = text.size();
    words[document];  // also for documents without words: their blocks count
    for (LexicalWord word : vocabulary.Words(text)) {
      const auto edge = static_cast<uint32_t>((word.end - 1) / kSegmentTokens * kSegmentTokens);
      word.begin = std::max(word.begin, edge);  // a word belongs to the segment in which it ends
      words[document].push_back(word);
    }
  }
};

std::map<BlockKey, double> NaiveScores(const NaiveMemory& memory,
                                       std::span<const LexicalWord> query,
                                       const std::set<uint32_t>& function_stems) {
  struct Occurrence {
    size_t gram = 0;
    uint32_t token = 0;
    double form = 1;
  };
  std::vector<std::vector<uint32_t>> grams;
  std::set<uint32_t> forms;
  for (size_t i = 0; i < query.size(); ++i) {
    forms.insert(query[i].id);
    std::vector<uint32_t> gram;
    for (size_t n = 0; n < 4 && i + n < query.size(); ++n) {
      gram.push_back(query[i + n].Stem());
      if (std::find(grams.begin(), grams.end(), gram) == grams.end()) grams.push_back(gram);
    }
  }
  std::map<DocumentId, std::vector<Occurrence>> found;
  std::vector<std::set<BlockKey>> blocks_of(grams.size());
  double blocks = 0;
  for (const auto& [document, words] : memory.words) {
    blocks += std::ceil(static_cast<double>(memory.tokens.at(document)) / kBlockTokens);
    for (size_t w = 0; w < words.size(); ++w) {
      for (size_t g = 0; g < grams.size(); ++g) {
        bool equal = w + grams[g].size() <= words.size();
        double form = 1;
        for (size_t n = 0; equal && n < grams[g].size(); ++n) {
          equal = words[w + n].Stem() == grams[g][n];
          if (!forms.contains(words[w + n].id)) form = 0.7;
        }
        if (!equal) continue;
        found[document].push_back({.gram = g, .token = words[w].begin, .form = form});
        blocks_of[g].insert({.document = document, .block = words[w].begin / kBlockTokens});
      }
    }
  }
  const auto idf = [&](size_t g) {
    const auto df = std::max<double>(1, static_cast<double>(blocks_of[g].size()));
    return df > 64 && df > std::floor(blocks / 2) ? 0
                                                  : std::log1p((blocks - df + 0.5) / (df + 0.5));
  };
  std::vector<double> weight(grams.size());
  for (size_t g = 0; g < grams.size(); ++g) {
    if (grams[g].size() == 1) weight[g] = idf(g) * (function_stems.contains(grams[g][0]) ? 0.5 : 1);
  }
  for (size_t g = 0; g < grams.size(); ++g) {
    if (grams[g].size() == 1) continue;
    double sum = 0;
    for (const uint32_t stem : grams[g]) {
      sum += weight[static_cast<size_t>(std::find(grams.begin(), grams.end(), std::vector{stem}) -
                                        grams.begin())];
    }
    weight[g] = 0.6 / static_cast<double>(grams[g].size()) * std::min(idf(g), sum);
  }

  std::map<BlockKey, double> scores;
  for (const auto& [document, occurrences] : found) {
    for (int64_t begin = 0; begin < static_cast<int64_t>(memory.tokens.at(document)); begin += 32) {
      std::vector<double> tf(grams.size());
      double side[2] = {0, 0};
      for (const Occurrence& o : occurrences) {
        if (weight[o.gram] == 0) continue;
        const int64_t outside = std::max<int64_t>(begin - o.token, int64_t{o.token} - (begin + 63));
        const double near =
            outside <= 0 ? 1 : 0.3 * std::max<double>(0, static_cast<double>(64 - outside)) / 64;
        tf[o.gram] += near * o.form;
        if (outside <= 0) side[o.token >= begin + 32] += o.form * weight[o.gram];
      }
      double score = 0;
      for (size_t g = 0; g < grams.size(); ++g) score += weight[g] * 1.4 * tf[g] / (tf[g] + 0.4);
      auto block = static_cast<uint32_t>(begin / kBlockTokens);
      if (begin % kBlockTokens != 0) {
        if (side[0] == 0 || side[1] == 0) continue;
        if (side[1] > side[0]) ++block;
      }
      double& best = scores[{.document = document, .block = block}];
      best = std::max(best, score);
    }
  }
  std::erase_if(scores, [](const auto& entry) { return entry.second <= 0; });
  return scores;
}

// Pieces of words, whole words, function words, spaces and punctuation. A memory made of them is
// full of near misses.
const std::vector<std::string>& RandomPieces() {
  static const std::vector<std::string> pieces = {
      " Me", "thu",  "se", "lah", " the",  " what", " of",  ",",   " ",
      "\n",  " ark", "s",  " 9",  "6",     " ",     "東",   "京",  "ed",
      " go", "ing",  " B", "\"",  " wood", " day",  " day", " Go", ""};
  return pieces;
}

std::vector<TokenId> RandomTokens(std::mt19937& rng, size_t count) {
  std::vector<TokenId> out;
  for (size_t i = 0; i < count; ++i) {
    // Squaring favours the first pieces: some words occur in every block, some are rare.
    const double u = std::uniform_real_distribution<double>(0, 1)(rng);
    out.push_back(static_cast<TokenId>(u * u * static_cast<double>(RandomPieces().size())));
  }
  return out;
}

TEST(LexicalIndex, ScoresEqualTheFormulas) {
  const LexicalVocabulary vocabulary(RandomPieces());
  const std::set<uint32_t> function_stems = {WordOf("the").Stem(), WordOf("what").Stem(),
                                             WordOf("of").Stem(),
                                             // "these" is " the" + "se"
                                             WordOf("these").Stem(), WordOf("me").Stem()};
  for (uint32_t seed = 1; seed <= (kSanitized ? 6 : 40); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 rng(seed);
    LexicalIndex index;
    NaiveMemory naive;
    std::vector<std::vector<TokenId>> documents;
    for (const size_t size : {size_t{1}, size_t{700}, size_t{64}, size_t{5000 + rng() % 3000},
                              size_t{900 + rng() % 200}}) {
      const auto document = DocumentId{static_cast<uint32_t>(documents.size())};
      documents.push_back(RandomTokens(rng, size));
      AddDocument(index, vocabulary, document, documents.back());
      naive.Add(vocabulary, document, documents.back());
    }
    for (int q = 0; q < 6; ++q) {
      // Part of the text, then tokens that do not occur in it.
      std::vector<TokenId> query(documents[3].begin() + 640 * q,
                                 documents[3].begin() + 640 * q + 14);
      for (const TokenId token : RandomTokens(rng, 6)) query.push_back(token);
      const std::vector<LexicalWord> words = vocabulary.Words(query);
      const std::map<BlockKey, double> expected = NaiveScores(naive, words, function_stems);
      const LexicalResult all = index.Query(words, 100000);
      ASSERT_EQ(all.blocks.size(), expected.size());
      for (size_t i = 0; i < all.blocks.size(); ++i) {
        const auto& [block, score, peak, expansion] = all.blocks[i];
        ASSERT_EQ(expansion, 0) << "the query has no expansion words";
        ASSERT_TRUE(expected.contains(block)) << block.block;
        ASSERT_NEAR(score, expected.at(block), 1e-9 * score)
            << "d " << uint32_t(block.document) << " b " << block.block;
        EXPECT_EQ(peak / kBlockTokens, block.block);
        ASSERT_GE(all.blocks[i > 0 ? i - 1 : 0].score, score);
      }
      const LexicalResult few = index.Query(words, 3);
      ASSERT_LE(few.blocks.size(), 3u);
      for (size_t i = 0; i < few.blocks.size(); ++i)
        EXPECT_EQ(few.blocks[i].block, all.blocks[i].block);
    }
  }
}

TEST(LexicalIndex, ReturnsMatchesThatSpellTheQueryAndCannotBeExtended) {
  const LexicalVocabulary vocabulary(RandomPieces());
  std::mt19937 rng(99);
  LexicalIndex index;
  NaiveMemory naive;
  const std::vector<TokenId> document = RandomTokens(rng, 6000);
  AddDocument(index, vocabulary, DocumentId{5}, document);
  naive.Add(vocabulary, DocumentId{5}, document);
  const std::vector<LexicalWord>& words = naive.words[DocumentId{5}];
  // Tokens around a segment's edge: the whole query must be returned as one match across it.
  const std::vector<LexicalWord> query =
      vocabulary.Words(std::span(document).subspan(20 * kSegmentTokens - 30, 60));
  const LexicalResult result = index.Query(query, 100000);
  size_t longest = 0;
  for (const LexicalMatch& match : result.matches) {
    size_t at = 0;
    while (at < words.size() && words[at].begin != match.span.begin) ++at;
    // Several words may begin in one clipped token; one of them is right.
    const auto spells = [&](size_t w) {
      for (uint32_t n = 0; n < match.query_words; ++n) {
        if (w + n >= words.size() || words[w + n].Stem() != query[match.query_begin + n].Stem())
          return false;
      }
      return words[w + match.query_words - 1].end == match.span.end;
    };
    while (at < words.size() && words[at].begin == match.span.begin && !spells(at)) ++at;
    ASSERT_TRUE(at < words.size() && spells(at)) << match.span.begin;
    const size_t after = at + match.query_words;
    if (at > 0 && match.query_begin > 0) {
      EXPECT_NE(words[at - 1].Stem(), query[match.query_begin - 1].Stem()) << match.span.begin;
    }
    if (after < words.size() && match.query_begin + match.query_words < query.size()) {
      EXPECT_NE(words[after].Stem(), query[match.query_begin + match.query_words].Stem())
          << match.span.begin;
    }
    longest = std::max<size_t>(longest, match.query_words);
  }
  EXPECT_GE(longest, query.size() - 2);  // the sample may cut the first and the last word
}

TEST(LexicalIndex, PlacesAreAllOccurrencesOfATermThatIsInFewEnoughBlocks) {
  const LexicalVocabulary vocabulary(RandomPieces());
  std::mt19937 rng(101);
  LexicalIndex index;
  NaiveMemory naive;
  for (const uint32_t id : {3u, 4u}) {
    const std::vector<TokenId> document = RandomTokens(rng, 3000 + id);
    AddDocument(index, vocabulary, DocumentId{id}, document);
    naive.Add(vocabulary, DocumentId{id}, document);
  }
  // Consecutive words from the text: common ones, rare ones, and across segment edges.
  std::vector<std::vector<LexicalWord>> keys;
  for (size_t i = 0; i < 300; ++i) {
    const std::vector<LexicalWord>& words =
        naive.words[DocumentId{3 + static_cast<uint32_t>(i % 2)}];
    const size_t n = 1 + rng() % 4, at = rng() % (words.size() - n);
    keys.emplace_back(words.begin() + static_cast<ptrdiff_t>(at),
                      words.begin() + static_cast<ptrdiff_t>(at + n));
  }
  keys.emplace_back();
  keys.emplace_back(kLexicalKeyWordsMax + 1, keys[0][0]);
  size_t rare = 0, common = 0, crossing = 0;
  for (const uint32_t blocks_max : {1u, 8u, 1000u}) {
    const std::vector<LexicalPlaces> found = index.Places(keys, blocks_max);
    ASSERT_EQ(found.size(), keys.size());
    EXPECT_TRUE(found[300].places.empty() && found[301].places.empty());
    for (size_t k = 0; k < 300; ++k) {
      std::vector<std::tuple<DocumentId, uint64_t, uint64_t>> expected, got;
      std::map<BlockKey, uint32_t> blocks;
      for (const auto& [document, words] : naive.words) {
        for (size_t w = 0; w + keys[k].size() <= words.size(); ++w) {
          bool spells = true;
          for (size_t n = 0; n < keys[k].size(); ++n)
            spells &= words[w + n].Stem() == keys[k][n].Stem();
          if (!spells) continue;
          if (blocks[{document, words[w].begin / kBlockTokens}]++ < kLexicalMatchesPerBlock) {
            expected.emplace_back(document, words[w].begin, words[w + keys[k].size() - 1].end);
            crossing += words[w].begin / kSegmentTokens !=
                        words[w + keys[k].size() - 1].begin / kSegmentTokens;
          }
        }
      }
      EXPECT_EQ(found[k].block_count, std::min<size_t>(blocks.size(), blocks_max + 1)) << k;
      if (blocks.size() > blocks_max) expected.clear();
      for (const LexicalPlaces::Place& place : found[k].places)
        got.emplace_back(place.document, place.span.begin, place.span.end);
      EXPECT_EQ(got, expected) << k;
      (blocks.size() > blocks_max ? common : rare) += 1;
    }
  }
  EXPECT_GT(rare, 50u);
  EXPECT_GT(common, 50u);
  EXPECT_GT(crossing, 20u);
}

// ---- What recall relies on

// `count` words that occur nowhere else, so that blocks differ only by what a test inserts.
std::string Filler(std::mt19937& rng, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) {
    for (int c = 0; c < 4; ++c) out += static_cast<char>('a' + rng() % 26);
    out += ' ';
  }
  return out;
}

TEST(LexicalIndex, FindsANeedleAtEveryOffsetAmongNearDuplicatesThatShareItsWords) {
  // A block edge can fall anywhere into the 40 bytes of the needle. The distractors share the
  // adjective or the noun.
  for (size_t offset = 0; offset < 64; ++offset) {
    std::mt19937 rng(7);
    std::string text = Filler(rng, 60) + "the magic number for quiet-harbor is 1111111. " +
                       Filler(rng, 60) + "the magic number for amber-meadow is 2222222. " +
                       Filler(rng, 60) + std::string(offset, '.');
    const size_t at = text.size();
    text += "the magic number for amber-harbor is 3333333. " + Filler(rng, 80);
    LexicalIndex index;
    AddDocument(index, Bytes(), DocumentId{1}, Tokens(text));
    const LexicalResult result =
        index.Query(Words("What is the magic number for amber-harbor?"), 4);
    ASSERT_FALSE(result.blocks.empty());
    const uint64_t block = uint64_t{result.blocks[0].block.block} * kBlockTokens;
    EXPECT_TRUE(block < at + 45 && block + kBlockTokens > at) << "offset " << offset;
    EXPECT_GE(result.blocks[0].peak_token, at) << "offset " << offset;
    EXPECT_LT(result.blocks[0].peak_token, at + 45) << "offset " << offset;
    ASSERT_FALSE(result.matches.empty());
    // two bytes later if "the" crosses a segment's edge
    EXPECT_GE(result.matches[0].span.begin, at);
    EXPECT_LT(result.matches[0].span.begin, at + 3);
    EXPECT_EQ(result.matches[0].query_words, 6u);
  }
}

// Five documents of one block each.
TEST(LexicalIndex, ExpansionWordsMatchWhereTheQueryWordIsAbsent) {
  LexicalIndex index;
  uint32_t id = 0;
  for (const char* text :
       {"a physician came by ", "a doctor came by ", "a physician and a physician came ",
        "nobody came by ", "a surgeon and a physician came "}) {
    AddDocument(index, Bytes(), DocumentId{++id}, Tokens(text));
  }
  const std::vector<LexicalWord> question = Words("doctor");
  const auto expansion = [&](double weight) {
    return std::vector<ExpansionWord>{
        {.stem = WordOf("physician").Stem(), .of = question[0].Stem(), .weight = weight},
        {.stem = WordOf("surgeon").Stem(), .of = question[0].Stem(), .weight = weight / 2},
        {.stem = WordOf("nobody").Stem(), .of = WordOf("nothing").Stem(), .weight = 1}};
  };
  const LexicalResult alone = index.Query(question, 9),
                      with = index.Query(question, expansion(0.5), 9),
                      none = index.Query(question, expansion(0), 9);
  ASSERT_THAT(alone.blocks, SizeIs(1));
  EXPECT_EQ(alone.blocks[0].related, 0);
  EXPECT_THAT(none.blocks, SizeIs(1)) << "a weight of nothing finds nothing";
  ASSERT_THAT(with.blocks, SizeIs(4)) << "expansions of a word outside the query find nothing";
  EXPECT_EQ(with.query_score, alone.query_score);
  EXPECT_EQ(with.words[0].block_count, 1u) << "the word itself";
  EXPECT_EQ(with.blocks[0].block.document, DocumentId{2}) << "the word itself comes first";
  EXPECT_EQ(with.blocks[0].score, alone.blocks[0].score);
  EXPECT_EQ(with.blocks[0].related, 0);
  // idf of a word in three of five blocks, below the query word's own. A second occurrence in a
  // block adds a little (tf). A second expansion word adds nothing.
  const double once = 0.5 * std::log1p((5 - 3 + 0.5) / (3 + 0.5));
  std::map<DocumentId, double> score;
  for (const auto& block : with.blocks) score[block.block.document] = block.score;
  for (size_t b = 1; b < with.blocks.size(); ++b)
    EXPECT_DOUBLE_EQ(with.blocks[b].related, with.blocks[b].score);
  EXPECT_NEAR(score[DocumentId{1}], once, 1e-12);
  EXPECT_NEAR(score[DocumentId{3}], once * 1.4 * 2 / 2.4, 1e-12);
  EXPECT_GE(score[DocumentId{5}], once);
  EXPECT_LT(score[DocumentId{5}], once * 1.4) << "the larger of the two, not their sum";
  EXPECT_THAT(with.cover, SizeIs(1)) << "expansion words alone get no place";
  for (const LexicalMatch& match : with.matches) EXPECT_EQ(match.document, DocumentId{2});
  EXPECT_TRUE(index.MayHold(WordOf("physicians").Stem()));
  EXPECT_FALSE(index.MayHold(WordOf("elephant").Stem()));
}

TEST(LexicalIndex, ExpansionWordsNeverLowerTheScoreOfQueryWords) {
  std::mt19937 rng(3);
  LexicalIndex index;
  std::string text;
  for (int i = 0; i < 400; ++i)
    text += Filler(rng, 12) + (i % 9 == 0    ? "walked "
                               : i % 7 == 0  ? "the harp of Jubal "
                               : i % 11 == 0 ? "strolled away "
                                             : "");
  AddDocument(index, Bytes(), DocumentId{1}, Tokens(text));
  const std::vector<LexicalWord> question = Words("who walked with the harp of Jubal?");
  const std::vector<ExpansionWord> expansion = {
      {.stem = WordOf("strolled").Stem(), .of = WordOf("walked").Stem(), .weight = 0.7}};
  std::map<BlockKey, double> before;
  for (const auto& block : index.Query(question, 100000).blocks) before[block.block] = block.score;
  const LexicalResult with = index.Query(question, expansion, 100000);
  ASSERT_GE(with.blocks.size(), before.size());
  size_t more = 0;
  for (const auto& block : with.blocks) {
    EXPECT_GE(block.score, before[block.block] - 1e-9);
    EXPECT_LE(block.related, block.score + 1e-9);
    more += block.related > 0;
  }
  EXPECT_GT(more, 0u);
}

TEST(LexicalIndex, PrefersRareWordsInAnyOrderOverCommonPhrases) {
  std::mt19937 rng(8);
  std::string text;
  for (int i = 0; i < 60; ++i) text += Filler(rng, 8) + "and there was the king ";
  const size_t at = text.size();
  text += "harps were tuned by Jubal ";
  for (int i = 0; i < 60; ++i) text += Filler(rng, 8) + "and there was the king ";
  LexicalIndex index;
  AddDocument(index, Bytes(), DocumentId{1}, Tokens(text));
  const LexicalResult result =
      index.Query(Words("and there was the king: did Jubal tune a harp?"), 1);
  ASSERT_EQ(result.blocks.size(), 1u);
  const uint64_t begin = uint64_t{result.blocks[0].block.block} * kBlockTokens;
  EXPECT_TRUE(begin < at + 26 && begin + kBlockTokens > at);
}

// Filler around four facts. The first one also has all the question's other words. So three places
// of it explain more of the question than any of the other facts.
TEST(LexicalIndex, CoversAQuestionThatNamesSeveralThings) {
  std::mt19937 rng(12);
  std::string text;
  std::vector<size_t> at;
  for (const char* fact :
       {"tell us the secret number of Jubal", "tell us the secret number of Jubal again",
        "Tubal has seven", "the secret number of Zillah is odd", "Naamah counts to ten"}) {
    text += Filler(rng, 60);
    at.push_back(text.size());
    text += std::string(fact) + " ";
  }
  text += Filler(rng, 60);
  LexicalIndex index;
  AddDocument(index, Bytes(), DocumentId{1}, Tokens(text));
  const LexicalResult result =
      index.Query(Words("tell us the secret number of Jubal, Tubal, Zillah and Naamah"), 100);
  const auto holds = [&](const LexicalResult::Complement& part, size_t fact) {
    return part.block.peak_token + 64 > at[fact] && part.block.peak_token < at[fact] + 64;
  };
  ASSERT_THAT(result.cover, SizeIs(4)) << "Jubal once, and one place for each of the others";
  EXPECT_EQ(result.cover[0].block.block, result.blocks[0].block);
  EXPECT_DOUBLE_EQ(result.cover[0].gain, result.blocks[0].score);
  for (const size_t fact : {2u, 3u, 4u}) {
    EXPECT_TRUE(std::any_of(result.cover.begin(), result.cover.end(), [&](const auto& part) {
      return holds(part, fact);
    })) << fact;
  }
  for (size_t i = 1; i < result.cover.size(); ++i) {
    EXPECT_LE(result.cover[i].gain, result.cover[i - 1].gain);
    EXPECT_LE(result.cover[i].gain, result.cover[i].block.score + 1e-9)
        << "the gain is at most the block's score";
  }
  EXPECT_THAT(index.Query(Words("tell us the secret number of Jubal"), 100).cover, SizeIs(1))
      << "the second place adds nothing new";
}

TEST(LexicalIndex, PrefersTheExactFormAmongInflections) {
  std::mt19937 rng(9);
  std::string text = Filler(rng, 40) + "walking " + Filler(rng, 40) + "walked ";
  const size_t at = text.size() - 7;
  text += Filler(rng, 40);
  LexicalIndex index;
  AddDocument(index, Bytes(), DocumentId{1}, Tokens(text));
  const LexicalResult result = index.Query(Words("walked"), 8);
  ASSERT_GE(result.blocks.size(), 2u);
  EXPECT_EQ(result.blocks[0].block.block, at / kBlockTokens);
}

TEST(LexicalIndex, DocumentsDoNotShareMatches) {
  // A phrase that two documents together would spell.
  LexicalIndex index;
  AddDocument(index, Bytes(), DocumentId{1}, Tokens(std::string(57, '.') + " golden"));
  AddDocument(index, Bytes(), DocumentId{2}, Tokens("calf " + std::string(59, '.')));
  const LexicalResult result = index.Query(Words("golden calf"), 8);
  EXPECT_THAT(result.blocks, SizeIs(2));
  for (const LexicalMatch& match : result.matches) EXPECT_EQ(match.query_words, 1u);
}

TEST(LexicalIndex, ForgetsRemovedDocumentsAndReplacesSegments) {
  LexicalIndex index;
  AddDocument(index, Bytes(), DocumentId{1}, Tokens("golden calf"));
  AddDocument(index, Bytes(), DocumentId{2}, Tokens("golden gate " + std::string(200, 'z')));
  EXPECT_EQ(index.token_count(), 11u + 212u);
  EXPECT_EQ(index.block_count(), 1u + 4u);
  AddDocument(index, Bytes(), DocumentId{1}, Tokens("copper calf"));
  EXPECT_EQ(index.token_count(), 11u + 212u);
  EXPECT_THAT(index.Query(Words("golden"), 8).blocks, SizeIs(1));
  index.Remove(DocumentId{2});
  EXPECT_EQ(index.token_count(), 11u);
  EXPECT_EQ(index.block_count(), 1u);
  EXPECT_THAT(index.Query(Words("golden"), 8).blocks, IsEmpty());
  index.Remove(DocumentId{1});
  EXPECT_THAT(index.Query(Words("calf"), 8).blocks, IsEmpty());
}

TEST(LexicalIndex, RefusesOverlapsAndMalformedSegments) {
  LexicalIndex index;
  const auto segment = [](uint64_t begin, std::string_view text) {
    return LexicalSegment::Build(Bytes(), DocumentId{1}, begin, {}, Tokens(text));
  };
  const auto add = [&](LexicalSegment s) {
    return index.Add(std::make_shared<const LexicalSegment>(std::move(s)));
  };
  ASSERT_TRUE(add(segment(64, std::string(128, 'a'))).ok());
  EXPECT_EQ(add(segment(128, "b")).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(segment(0, std::string(65, 'b'))).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(segment(64, "b")).code(), StatusCode::kInvalidArgument);
  LexicalSegment crooked = segment(256, "word");
  crooked.begins[0] = 9;
  EXPECT_EQ(add(crooked).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(add(segment(0, std::string(64, 'b'))).ok());
  EXPECT_EQ(index.token_count(), 192u);
}

TEST(LexicalIndex, HandlesEmptyAndOverlongQueries) {
  LexicalIndex index;
  EXPECT_THAT(index.Query(Words("anything"), 8).blocks, IsEmpty());
  AddDocument(index, Bytes(), DocumentId{1}, Tokens("golden calf"));
  EXPECT_THAT(index.Query({}, 8).blocks, IsEmpty());
  EXPECT_THAT(index.Query(Words("golden"), 0).blocks, IsEmpty());
  std::mt19937 rng(3);
  // Only the last 256 words count.
  EXPECT_THAT(index.Query(Words(Filler(rng, 3000) + "golden"), 8).blocks, SizeIs(1));
  EXPECT_THAT(index.Query(Words("golden " + Filler(rng, 3000)), 8).blocks, IsEmpty());
}

TEST(LexicalIndex, ReportsHowMuchOfTheQueryABlockExplains) {
  LexicalIndex index;
  std::mt19937 rng(4);
  AddDocument(index, Bytes(), DocumentId{1},
              Tokens(Filler(rng, 200) + "golden calf " + Filler(rng, 200)));
  const LexicalResult whole = index.Query(Words("golden calf"), 1);
  const LexicalResult part = index.Query(Words("golden Jerusalem artichokes"), 1);
  EXPECT_NEAR(whole.blocks[0].score, whole.query_score, 1e-9);
  EXPECT_LT(part.blocks[0].score, 0.4 * part.query_score);
}

}  // namespace
}  // namespace longhold
