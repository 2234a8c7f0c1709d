// SpanAround and DateLineBefore on documents of the kinds that memories hold: code, books,
// conversations, verses, other scripts, and text without any structure. Every token of a document
// is asked about, so that no offset within a unit is left out, and each answer is compared with the
// units that the test made the text of. What must hold of every span is checked in each of these.
//
// Tokens are words with the space before them, punctuation and single line ends, as in byte-level
// BPE; the toy model's, which are nearly bytes, are used once. Documents have 300 to 3,000 tokens,
// so that spans and their windows (320 tokens to either side) reach both ends in some and neither
// in others.
#include "memory/recall/planned_span.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "memory/ingest/ingest.h"
#include "memory/record/record_keys.h"
#include "store/mem_store.h"
#include "tests/support/sanitized.h"
#include "tests/support/tales.h"
#include "tests/support/toy_text.h"
#include "tests/support/wrapped_text.h"

namespace longhold {
namespace {

// Under a sanitizer, every seventh token is asked about.
constexpr uint64_t kStep = kSanitized ? 7 : 1;

// A memory with one document, whose tokens the test chooses.
struct OneDocument : Tales {
  RecallProfile profile;
  std::unique_ptr<ColdStore> store = NewMemStore();
  std::unique_ptr<Memory> memory;
  TokenText text;
  DocumentId id{};

  // In chunks that begin at `chunk_begins`, ascending from 0; the first `committed` tokens are
  // committed.
  explicit OneDocument(TokenText document, std::vector<uint64_t> chunk_begins = {0},
                       uint64_t committed = UINT64_MAX)
      : text(std::move(document)) {
    memory = std::move(Memory::Create(Borrow(*store), "tales", model.info(), profile)).value();
    const uint64_t tokens = text.token_bytes.size();
    std::vector<TextChunk> chunks;
    for (size_t c = 0; c < chunk_begins.size(); ++c) {
      const uint64_t begin = chunk_begins[c];
      const uint64_t end = c + 1 < chunk_begins.size() ? chunk_begins[c + 1] : tokens;
      TextChunk chunk;
      chunk.token_begin = begin;
      chunk.text = TextOfTokens(text, begin, end);
      chunk.tokens.assign(end - begin, TokenId{' '});  // SpanAround looks at the text only
      chunk.token_bytes.assign(text.token_bytes.begin() + static_cast<ptrdiff_t>(begin),
                               text.token_bytes.begin() + static_cast<ptrdiff_t>(end));
      if (!chunks.empty()) {
        const std::string& before = chunks.back().text;
        chunk.byte_begin = chunks.back().byte_begin + before.size();
        chunk.line_begin = chunks.back().line_begin +
                           static_cast<uint64_t>(std::count(before.begin(), before.end(), '\n'));
      }
      chunks.push_back(std::move(chunk));
    }
    DocumentRecord record;
    record.name = "tale";
    record.bytes = text.text.size();
    record.tokens = tokens;
    id = *memory->AddDocument(record, chunks);
    Commit(std::min(committed, tokens));
  }
  explicit OneDocument(std::string_view words) : OneDocument(WordTokens(words)) {}

  void Commit(uint64_t tokens) {
    for (uint64_t begin = 0; begin < tokens; begin += kCommitTokens) {
      const uint64_t end = std::min<uint64_t>(tokens, begin + kCommitTokens);
      auto lexical = std::make_shared<const LexicalSegment>(LexicalSegment::Build(
          vocabulary, id, begin, {}, std::vector<TokenId>(end - begin, TokenId{' '})));
      const Status status =
          memory->Commit(id, end, {.text = {.lexical = lexical}}, nullptr, nullptr);
      EXPECT_TRUE(status.ok()) << status.ToString();
    }
  }

  uint64_t tokens() const { return text.token_bytes.size(); }
  std::string TextOf(TokenSpan span) const { return TextOfTokens(text, span.begin, span.end); }

  // Checks what holds of every span. `low` and `high` are the peak where they are not given.
  TokenSpan Around(uint64_t peak, uint64_t low, uint64_t high) {
    const Result<TokenSpan> span = SpanAround(*memory, profile, id, peak, low, high);
    EXPECT_TRUE(span.ok()) << span.status().ToString();
    if (!span.ok()) return {};
    const uint64_t committed = memory->Get(id).committed_tokens;
    EXPECT_TRUE(span->Contains(std::min(peak, committed - 1))) << peak;
    EXPECT_LE(span->end, committed) << peak;
    EXPECT_LE(span->size(), SpanTokensMax(profile)) << peak;
    return *span;
  }
  TokenSpan Around(uint64_t peak) { return Around(peak, peak, peak); }
};

// A text made of `units`, one behind the other.
struct UnitText {
  std::vector<std::string> units;

  std::string text() const {
    std::string all;
    for (const std::string& unit : units) all += unit;
    return all;
  }
  // The first token of each, and the number of tokens.
  std::vector<uint64_t> begins() const {
    std::vector<uint64_t> begins = {0};
    for (const std::string& unit : units)
      begins.push_back(begins.back() + WordTokens(unit).token_bytes.size());
    return begins;
  }
};

// Asks about every token. The span must consist of whole units, hold the token's, and be no longer
// than needed: without its first or without its last unit it has fewer than span_tokens. Must hold:
// no unit is longer than a span.
void ExpectWholeUnits(OneDocument& d, const std::vector<uint64_t>& begins) {
  ASSERT_EQ(begins.back(), d.tokens());
  size_t unit = 0;
  for (uint64_t t = 0; t < d.tokens(); t += kStep) {
    while (begins[unit + 1] <= t) ++unit;
    SCOPED_TRACE("token " + std::to_string(t) +
                 " of: " + d.TextOf({begins[unit], begins[unit + 1]}));
    const TokenSpan span = d.Around(t);
    const auto first = std::find(begins.begin(), begins.end(), span.begin),
               last = std::find(begins.begin(), begins.end(), span.end);
    ASSERT_TRUE(first != begins.end()) << "begins inside a unit: " << d.TextOf(span);
    ASSERT_TRUE(last != begins.end()) << "ends inside a unit: " << d.TextOf(span);
    ASSERT_LE(span.begin, begins[unit]);
    ASSERT_GE(span.end, begins[unit + 1]);
    const uint64_t wanted = d.profile.span_tokens;
    if (last - first > 1) {
      ASSERT_TRUE(span.end - *(first + 1) < wanted || *(last - 1) - span.begin < wanted)
          << "longer than needed: " << d.TextOf(span);
    }
    if (span.size() < wanted) {
      const uint64_t before = first == begins.begin() ? 0 : *first - *(first - 1),
                     behind = last + 1 == begins.end() ? 0 : *(last + 1) - *last;
      for (const uint64_t more : {before, behind})
        ASSERT_TRUE(more == 0 || span.size() + more > SpanTokensMax(d.profile))
            << "shorter than wanted: " << d.TextOf(span);
    }
  }
}

// ---- Code

// `lines` indented lines; `blanks`: some are followed by a blank one.
std::string CppFunction(int n, size_t lines, bool blanks) {
  const std::string name = std::to_string(n);
  std::string text = "// Adds what is known of case " + name + ".\nint Case" + name + "(int a) {\n";
  for (size_t l = 0; l < lines; ++l) {
    text += "  a += Step" + std::to_string(l) + "(a);\n";
    if (blanks && l % 3 == 1) text += "\n";
  }
  return text + "  return a;\n}\n\n";
}

TEST(SpanAround, AFunctionIsWholeWithTheCommentAboveIt) {
  UnitText code;
  for (int f = 0; f < 14; ++f)
    code.units.push_back(CppFunction(f, 2 + static_cast<size_t>(f), f % 2 == 0));
  OneDocument d(code.text());
  const std::vector<uint64_t> begins = code.begins();
  ASSERT_LE(begins[14] - begins[13], kFunctionTokensMax);
  ExpectWholeUnits(d, begins);
  // One that is long enough is the whole span.
  for (size_t f = 0; f < 14; ++f) {
    const TokenSpan function{begins[f], begins[f + 1]};
    if (function.size() < d.profile.span_tokens) continue;
    for (uint64_t t = function.begin; t < function.end; ++t) ASSERT_EQ(d.Around(t), function) << t;
  }
}

TEST(SpanAround, AMethodOfAPythonClassIsWhole) {
  UnitText code;
  code.units.push_back("class Shelf:\n    \"\"\"A shelf of books.\"\"\"\n\n");
  for (int m = 0; m < 12; ++m) {
    const std::string n = std::to_string(m);
    std::string method = "    @cached\n    def step" + n + "(self, book):\n";
    for (int l = 0; l < 2 + m % 6; ++l)
      method +=
          "        if book.title == " + std::to_string(l) + ":\n            return " + n + "\n";
    code.units.push_back(method + "        return None\n\n");
  }
  OneDocument d(code.text());
  ExpectWholeUnits(d, code.begins());
}

TEST(SpanAround, ALongFunctionComesInParagraphs) {
  UnitText code;
  for (int p = 0; p < 12; ++p) {
    std::string paragraph = p == 0 ? "int Long(int a) {\n" : "";
    for (int l = 0; l < 5 + p % 4; ++l) paragraph += "  a += Step(a, " + std::to_string(l) + ");\n";
    code.units.push_back(paragraph + (p == 11 ? "}\n" : "\n"));
  }
  OneDocument d(code.text());
  ExpectWholeUnits(d, code.begins());
}

// ---- Books

TEST(SpanAround, AWrappedParagraphOfABookIsWhole) {
  for (const size_t width : {50u, 72u, 79u}) {
    std::mt19937_64 rng(width);
    UnitText book;
    for (int p = 0; p < 10; ++p) {
      // 50 to 300 tokens; up to 128 are a paragraph, above that a line
      std::string paragraph = WordySentence(rng, 45);
      for (uint64_t s = rng() % 12; s > 0; --s)
        paragraph += " " + WordySentence(rng, 6 + rng() % 14);
      book.units.push_back(Wrapped(paragraph, width) + "\n\n");
    }
    OneDocument d(book.text());
    ExpectWholeUnits(d, book.begins());
  }
}

// Sentences of a paragraph that is longer than a line may be, and where each begins. The paragraph
// is wrapped: newlines stand in the place of spaces, with the same tokens.
OneDocument LongParagraph(uint64_t seed, size_t width, std::vector<uint64_t>* begins) {
  std::mt19937_64 rng(seed);
  std::string paragraph;
  *begins = {0};
  for (int s = 0; s < 45; ++s) {
    std::string sentence = (s == 0 ? "" : " ") + WordySentence(rng, 6 + rng() % 30);
    std::replace(sentence.begin(), sentence.end(), '-', '_');  // no word is broken
    begins->push_back(begins->back() + WordTokens(sentence).token_bytes.size());
    paragraph += sentence;
  }
  EXPECT_GT(begins->back(), 2 * kLineTokensMax);
  return OneDocument(TokenText{Wrapped(paragraph, width), WordTokens(paragraph).token_bytes});
}

TEST(SpanAround, ALongWrappedParagraphOfABookComesInSentences) {
  for (const size_t width : {50u, 79u}) {
    std::vector<uint64_t> begins;
    OneDocument d = LongParagraph(width, width, &begins);
    ExpectWholeUnits(d, begins);
  }
}

// ---- Lines

TEST(SpanAround, TurnsOfAConversationStaySeparate) {
  std::mt19937_64 rng(7);
  UnitText talk;
  for (int t = 0; t < 120; ++t) {
    std::string turn = t % 2 == 0 ? "Caroline:" : "Melanie:";
    // Some turns are longer than a span, and some end no sentence.
    for (uint64_t w = 2 + rng() % (t % 9 == 0 ? 90 : 25); w > 0; --w)
      turn += " " + std::string(1 + rng() % 9, static_cast<char>('a' + rng() % 26)) +
              (rng() % 9 == 0 && w > 1 ? "." : "");
    talk.units.push_back(turn + (t % 3 == 0 ? "!\n" : "\n"));
  }
  OneDocument d(talk.text());
  ExpectWholeUnits(d, talk.begins());
}

// Chinese texts have a paragraph on each line and no spaces.
TEST(SpanAround, TurnsWithoutSpacesStaySeparate) {
  TokenText text;
  std::vector<uint64_t> begins = {0};
  for (int t = 0; t < 40; ++t) {
    std::string turn = t % 2 == 0 ? "小明：" : "小红：";
    for (int w = 0; w < 14 + t % 3; ++w) turn += "东西南";
    turn += "\n";
    text.text += turn;
    for (size_t c = 0; c < turn.size() / 3; ++c) text.token_bytes.push_back(3);
    text.token_bytes.push_back(1);
    begins.push_back(text.token_bytes.size());
  }
  OneDocument d(text);
  ExpectWholeUnits(d, begins);
}

TEST(SpanAround, VersesAreWhole) {
  UnitText verses;
  const std::vector<std::string> texts = {
      "In the beginning God created the heaven and the earth.",
      "And the earth was without form, and void; and darkness was upon the face of the deep. And "
      "the Spirit of God moved upon the face of the waters.",
      "And God said, Let there be light: and there was light.",
      "And God saw the light, that it was good: and God divided the light from the darkness.",
      "And God called the light Day, and the darkness he called Night. And the evening and the "
      "morning were the first day.",
      "And God said, Let there be a firmament in the midst of the waters, and let it divide the "
      "waters from the waters."};
  for (int v = 0; v < 60; ++v)
    verses.units.push_back("Gen1:" + std::to_string(v + 1) + " " +
                           texts[static_cast<size_t>(v * 7 + v / 6) % texts.size()] + "\n");
  OneDocument d(verses.text());
  ExpectWholeUnits(d, verses.begins());
}

// They have about the same length, as those of a wrapped paragraph.
TEST(SpanAround, LinesOfALogAreWhole) {
  UnitText log;
  for (int l = 0; l < 60; ++l)
    log.units.push_back(
        "2024-03-01T10:" + std::to_string(10 + l % 50) + ":07Z " +
        (l % 2 == 0 ? "opened memory tales read-only\n" : "closed memory tales again\n"));
  OneDocument d(log.text());
  ExpectWholeUnits(d, log.begins());
}

// Seen from its first token and from its last one: the window holds all of it and one token more.
TEST(SpanAround, TheLongestLineIsWholeAtBothEnds) {
  for (const size_t size : {kLineTokensMax, kLineTokensMax + 1}) {
    UnitText lines;
    for (int l = 0; l < 30; ++l) lines.units.push_back("Some words. And others.\n");
    std::string line = "One";
    for (size_t w = 3; w < size; ++w) line += w % 20 == 0 ? "." : " word";
    lines.units[15] = line + ".\n";
    OneDocument d(lines.text());
    const std::vector<uint64_t> begins = lines.begins();
    const TokenSpan whole{begins[15], begins[16]};
    ASSERT_EQ(whole.size(), size);
    for (const uint64_t t : {whole.begin, whole.begin + size / 2, whole.end - 1})
      EXPECT_EQ(d.Around(t) == whole, size <= kLineTokensMax) << t;
  }
}

// One part before, two parts behind: all units have the same size, so only their number counts. It
// is uneven by at most the unit that was added last, and where the peak is in its own.
TEST(SpanAround, ReachesTwiceAsFarBehindThePeakAsBeforeIt) {
  UnitText lines;
  for (int l = 0; l < 200; ++l) lines.units.push_back("a b c d e\n");
  OneDocument d(lines.text());
  for (const uint32_t wanted : {48u, 96u, 300u}) {
    d.profile.span_tokens = wanted;
    for (uint64_t t = 400; t < 600; ++t) {
      const TokenSpan span = d.Around(t);
      const auto before = static_cast<double>(t / 6 - span.begin / 6),
                 behind = static_cast<double>(span.end / 6 - t / 6 - 1);
      ASSERT_NEAR(2 * before, behind, 3) << span.begin << ".." << span.end << " around " << t;
    }
  }
}

TEST(SpanAround, AtTheFirstAndLastTokenItReachesIntoTheText) {
  UnitText lines;
  for (int l = 0; l < 60; ++l) lines.units.push_back("a b c d e\n");
  OneDocument d(lines.text());
  EXPECT_EQ(d.Around(0), (TokenSpan{0, 48}));
  EXPECT_EQ(d.Around(359), (TokenSpan{312, 360}));
  OneDocument one("word");
  EXPECT_EQ(one.Around(0), (TokenSpan{0, 1}));
  OneDocument small("one two.\n\nthree\n");
  for (uint64_t t = 0; t < small.tokens(); ++t)
    EXPECT_EQ(small.Around(t), (TokenSpan{0, small.tokens()}));
}

// ---- Text without structure

TEST(SpanAround, ALineWithoutEndKeepsItsWords) {
  std::string words = "first";
  for (int w = 0; w < 1500; ++w) words += " w" + std::to_string(w);
  OneDocument d(words);
  std::set<uint64_t> sizes;
  for (uint64_t t = 0; t < d.tokens(); ++t) sizes.insert(d.Around(t).size());
  EXPECT_GE(*sizes.begin(), d.profile.span_tokens);
  // The same with tokens of two bytes, which cut words: a span begins and ends between words.
  TokenText halves{words, {}};
  for (size_t at = 0; at < words.size(); at += 2)
    halves.token_bytes.push_back(static_cast<uint16_t>(std::min<size_t>(2, words.size() - at)));
  OneDocument h(halves);
  for (uint64_t t = 0; t < h.tokens(); t += 3) {
    const TokenSpan span = h.Around(t);
    const std::string before = h.TextOf({0, span.begin}), behind = h.TextOf({span.end, h.tokens()}),
                      own = h.TextOf(span);
    ASSERT_TRUE(before.empty() || before.ends_with(' ') || own.starts_with(' ')) << own;
    ASSERT_TRUE(behind.empty() || own.ends_with(' ') || behind.starts_with(' ')) << own;
  }
}

TEST(SpanAround, TextWithoutSpacesOrLinesIsCutAnywhere) {
  for (const std::string_view unit : {"x", "é", "=", " ", "\n", "}", "."}) {
    std::string all;
    for (int i = 0; i < 1200; ++i) all += unit;
    TokenText text{all, std::vector<uint16_t>(1200, static_cast<uint16_t>(unit.size()))};
    OneDocument d(text);
    for (uint64_t t = 0; t < d.tokens(); t += 7) ASSERT_GE(d.Around(t).size(), 32u) << unit << t;
  }
}

TEST(SpanAround, BlankLinesBetweenParagraphsAreBridged) {
  std::string text = "One is first. And goes on.\n";
  text += std::string(30, '\n') + "Two follows.\n" + std::string(900, '\n') + "Three is last.\n";
  OneDocument d(text);
  for (uint64_t t = 0; t < d.tokens(); t += 5) d.Around(t);
  const std::string around = d.TextOf(d.Around(2));
  EXPECT_NE(around.find("And goes on."), std::string::npos);
  EXPECT_NE(around.find("Two follows."), std::string::npos) << "One has fewer tokens than a span";
}

// ---- Line ends, scripts

TEST(SpanAround, IsTheSameWithCarriageReturns) {
  std::mt19937_64 rng(5);
  std::string text;
  for (int p = 0; p < 8; ++p) {
    std::string paragraph = WordySentence(rng, 12);
    for (uint64_t s = 1 + rng() % 20; s > 0; --s)
      paragraph += " " + WordySentence(rng, 8 + rng() % 9);
    text += p % 2 == 0 ? CppFunction(p, 6 + static_cast<size_t>(p), true)
                       : Wrapped(paragraph + " The end is here", 72) + "\n\n";
  }
  std::string returns;
  for (const char c : text) returns += c == '\n' ? "\r\n" : std::string(1, c);
  OneDocument newlines(text), both(returns);
  ASSERT_EQ(newlines.tokens(), both.tokens());
  for (uint64_t t = 0; t < both.tokens(); ++t) ASSERT_EQ(both.Around(t), newlines.Around(t)) << t;
}

TEST(SpanAround, SentencesOfOtherScriptsAreWhole) {
  const std::vector<std::vector<std::string>> scripts = {
      {"東京", "は", "雨", "、", "京都", "は", "晴れ", "。"},  // no spaces
      {"他", "问", "：", "“", "你好", "吗", "？”"},            // and quotes
      {" वह", " घर", " में", " है", "।"},                         // Hindi
      {" ہے", " گھر", " میں", "۔"},                            // Urdu
      {" Дом", " стоит", " у", " реки", "."}};
  for (const std::vector<std::string>& words : scripts) {
    std::mt19937_64 rng(words.size());
    TokenText text;
    std::vector<uint64_t> begins = {0};
    for (int s = 0; s < 40; ++s) {
      const auto add = [&](const std::string& word) {
        text.text += word;
        text.token_bytes.push_back(static_cast<uint16_t>(word.size()));
      };
      for (uint64_t n = 1 + rng() % 5; n > 0; --n) {
        for (size_t w = 0; w + 1 < words.size(); ++w) add(words[w]);
      }
      add(words.back());
      begins.push_back(text.token_bytes.size());
    }
    OneDocument d(text);
    ExpectWholeUnits(d, begins);
  }
}

// ---- Several places, uncommitted and damaged text

TEST(SpanAround, HoldsAllPlacesOrTheUnitOfThePeak) {
  std::mt19937_64 rng(3);
  UnitText text;
  for (int l = 0; l < 80; ++l) {
    std::string line = "line";
    for (uint64_t w = 3 + rng() % 60; w > 0; --w) line += " word";
    text.units.push_back(line + ".\n");
  }
  OneDocument d(text.text());
  const std::vector<uint64_t> begins = text.begins();
  const auto unit_of = [&](uint64_t t) {
    const auto after = std::upper_bound(begins.begin(), begins.end(), t);
    return TokenSpan{*(after - 1), *after};
  };
  size_t all = 0, one = 0;
  for (int i = 0; i < 400; ++i) {
    const uint64_t low = rng() % d.tokens();
    const uint64_t high = std::min(d.tokens() - 1, low + rng() % (i % 2 == 0 ? 64 : 400));
    const uint64_t peak = low + rng() % (high - low + 1);
    const TokenSpan span = d.Around(peak, low, high);
    EXPECT_TRUE(std::count(begins.begin(), begins.end(), span.begin) == 1 &&
                std::count(begins.begin(), begins.end(), span.end) == 1);
    const TokenSpan together{unit_of(low).begin, unit_of(high).end};
    if (together.size() <= SpanTokensMax(d.profile)) {
      ++all;
      EXPECT_TRUE(span.begin <= together.begin && together.end <= span.end) << low << ".." << high;
      if (together.size() >= d.profile.span_tokens) {
        EXPECT_EQ(span, together);
      }
    } else {
      ++one;
      EXPECT_EQ(span, d.Around(peak)) << low << ".." << high;
    }
  }
  EXPECT_GT(all, 100u);
  EXPECT_GT(one, 20u);
}

// A document that is still being read: spans end where it is committed, and a place beyond that
// counts as the last committed token.
TEST(SpanAround, HoldsCommittedTokensOnly) {
  UnitText lines;
  for (int l = 0; l < 200; ++l) lines.units.push_back("a b c d e\n");
  const TokenText text = WordTokens(lines.text());
  for (const uint64_t committed : {1u, 2u, 47u, 64u, 301u, 640u}) {
    SCOPED_TRACE(committed);
    OneDocument d(text, {0}, committed);
    ASSERT_EQ(d.memory->Get(d.id).committed_tokens, committed);
    for (uint64_t t = 0; t < committed + 20; ++t) {
      const TokenSpan span = d.Around(t);
      ASSERT_FALSE(span.empty());
      ASSERT_EQ(span.begin % 6, 0u) << t;
      ASSERT_TRUE(span.end % 6 == 0 || span.end == committed) << t;
    }
    d.Around(committed, 0, committed + 100);
    d.Around(d.tokens(), d.tokens(), d.tokens());
  }
}

// Of four chunks one is lost. Around its tokens there is still a span. Spans of the others do not
// reach into it, and are the same where it is far away.
TEST(SpanAround, DamagedTextBesideItIsLeftOut) {
  std::mt19937_64 rng(11);
  UnitText text;
  for (int l = 0; l < 110; ++l) {
    std::string line = "line";
    for (uint64_t w = 3 + rng() % 30; w > 0; --w) line += " word";
    text.units.push_back(line + (l % 7 == 0 ? ".\n\n" : ".\n"));
  }
  const TokenText tokens = WordTokens(text.text());
  const std::vector<uint64_t> begins = text.begins();
  // One chunk has tokens of half a line at its end.
  const std::vector<uint64_t> chunks = {0, begins[35], begins[60] + 2, begins[90]};
  OneDocument d(tokens, chunks);
  std::vector<TokenSpan> whole;
  for (uint64_t t = 0; t < d.tokens(); ++t) whole.push_back(d.Around(t));
  for (uint32_t lost = 0; lost < chunks.size(); ++lost) {
    const TokenSpan damaged{chunks[lost], lost + 1 < chunks.size() ? chunks[lost + 1] : d.tokens()};
    const std::string key = NumberedKey(d.id, lost);
    const std::string value = *d.store->Get(Table::kText, key);
    ASSERT_TRUE((lost % 2 == 0 ? DeleteValue(*d.store, Table::kText, key)
                               : PutValue(*d.store, Table::kText, key, "garbage"))
                    .ok());
    d.memory = d.Open(*d.store);
    for (uint64_t t = 0; t < d.tokens(); ++t) {
      SCOPED_TRACE(std::to_string(t) + " with chunk " + std::to_string(lost) + " lost");
      const TokenSpan span = d.Around(t);
      ASSERT_FALSE(span.empty());
      if (damaged.Contains(t)) {
        ASSERT_LE(span.size(), d.profile.span_tokens);
        continue;
      }
      ASSERT_TRUE(span.end <= damaged.begin || span.begin >= damaged.end);
      const bool far = t + 400 < damaged.begin || t >= damaged.end + 400;
      if (far) {
        ASSERT_EQ(span, whole[t]);
      }
    }
    // Places of which one is damaged: the tokens around the peak.
    const uint64_t edge = lost == 0 ? damaged.end : damaged.begin;
    d.Around(edge, edge - 5, edge + 5);
    d.Around(edge - 1, edge - 5, edge + 5);
    ASSERT_TRUE(PutValue(*d.store, Table::kText, key, value).ok());
  }
}

// A third of the tokens before the peak of damaged text, and two thirds from it on.
TEST(SpanAround, AroundDamagedTextIsNotLongerThanTheLimit) {
  OneDocument d("a b c d e f g h\n" + std::string(2000, 'x') + PlainText(4000, 1));
  ASSERT_TRUE(DeleteValue(*d.store, Table::kText, NumberedKey(d.id, 0)).ok());
  d.memory = d.Open(*d.store);
  d.profile.span_tokens = 321;
  d.Around(300);
}

// ---- Any text

TEST(SpanAround, HoldsItsPeakAndKeepsItsLimitWhateverTheText) {
  for (uint64_t seed = 0; seed < (kSanitized ? 5u : 10u); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 rng(seed);
    TokenText text{RandomText(1800, seed), {}};
    if (seed % 3 == 1) {
      text.text = PlainText(1800, seed);
    } else if (seed % 3 == 2) {
      text.text.clear();
      for (int s = 0; s < 25; ++s) text.text += WordySentence(rng, 12) + " ";
      text.text = Wrapped(text.text, 40 + rng() % 50);
    }
    for (size_t at = 0; at < text.text.size();) {
      const size_t size = std::min<size_t>(rng() % 7, text.text.size() - at);
      text.token_bytes.push_back(static_cast<uint16_t>(size));
      at += size;
    }
    OneDocument d(text);
    d.profile.span_tokens = std::vector<uint32_t>{32, 48, 128, 321, 1024}[seed % 5];
    for (uint64_t t = 0; t < d.tokens(); t += 1 + seed % 7) {
      d.Around(t);
      const uint64_t low = t - std::min<uint64_t>(t, rng() % 64);
      d.Around(t, low, std::min(low + 63, d.tokens() - 1));
    }
  }
}

// Through the tokenizer and the ingest, as everywhere else.
TEST(SpanAround, HoldsForTheToyModelsTokens) {
  Tales tales;
  const auto store = NewMemStore();
  const RecallProfile profile;
  const std::unique_ptr<Memory> memory =
      std::move(Memory::Create(Borrow(*store), "tales", tales.model.info(), profile)).value();
  const std::string text = RandomText(2000, 1) + CppFunction(1, 4, true) + PlainText(1000, 2);
  ASSERT_TRUE(
      IngestDocument(tales.model, *memory, tales.vocabulary, {"tale", text}, nullptr, nullptr)
          .ok());
  const DocumentRecord& document = memory->documents()[0];
  for (uint64_t t = 0; t < document.tokens; ++t) {
    const Result<TokenSpan> span = SpanAround(*memory, profile, document.id, t, t, t);
    ASSERT_TRUE(span.ok()) << span.status().ToString();
    ASSERT_TRUE(span->Contains(t));
    ASSERT_LE(span->size(), SpanTokensMax(profile));
    ASSERT_LE(span->end, document.tokens);
  }
}

// ---- Date lines

// The head of a session, or a turn, and whether it is a head.
struct LogLine {
  std::string text;
  bool is_head;
};

// A chat log; `turns` turns on average between two heads. It begins with a turn.
std::vector<LogLine> ChatLog(std::mt19937_64& rng, size_t lines, size_t turns) {
  std::vector<LogLine> log = {{"Anna: who is there?\n", false}};
  while (log.size() < lines) {
    const std::string n = std::to_string(1 + log.size() % 28);
    if (rng() % turns == 0) {
      const std::vector<std::string> heads = {
          "Session " + n + ", 1:56 pm on " + n + " May, 2023\n", "[2023-05-" + n + " 13:56]\n",
          "\n## Minutes, " + n + ".5.2023\n\n", "--- 5/" + n + "/23 ---  \n"};
      log.push_back({heads[rng() % heads.size()], true});
    } else {
      std::string turn = rng() % 2 == 0 ? "Anna:" : "Ben:";
      for (uint64_t w = 3 + rng() % 20; w > 0; --w) turn += rng() % 9 == 0 ? " we" : " word";
      log.push_back({turn + (rng() % 7 == 0 ? " in May 2023, or on 8 May?\n" : ".\n"), false});
    }
  }
  return log;
}

// The tokens of each line, without the white space around it, and whether it is a head.
struct LineTokens {
  TokenSpan tokens;
  bool is_head;
};
std::vector<LineTokens> TokensOf(const std::vector<LogLine>& log) {
  std::vector<LineTokens> out;
  uint64_t begin = 0;
  for (const LogLine& line : log) {
    const std::string words = Trimmed(line.text);
    const uint64_t before =
        WordTokens(line.text.substr(0, line.text.find(words))).token_bytes.size();
    const uint64_t size = WordTokens(words).token_bytes.size();
    out.push_back({{begin + before, begin + before + size}, line.is_head});
    begin += WordTokens(line.text).token_bytes.size();
  }
  return out;
}

std::string TextOf(const std::vector<LogLine>& log) {
  std::string text;
  for (const LogLine& line : log) text += line.text;
  return text;
}

// Of the tokens from `from` on: the last head that is before `at`, or an empty range.
TokenSpan LastHead(const std::vector<LineTokens>& lines, uint64_t from, uint64_t at) {
  TokenSpan head;
  for (const LineTokens& line : lines) {
    if (line.is_head && line.tokens.begin >= from && line.tokens.end <= at) head = line.tokens;
  }
  return head;
}

// Inside a head, the part of it before `at` may count or not.
bool InsideHead(const std::vector<LineTokens>& lines, uint64_t at) {
  return std::any_of(lines.begin(), lines.end(), [&](const LineTokens& line) {
    return line.is_head && line.tokens.begin < at && at < line.tokens.end;
  });
}

TokenSpan DateBefore(OneDocument& d, uint64_t at) {
  const Result<TokenSpan> line = DateLineBefore(*d.memory, d.id, at);
  EXPECT_TRUE(line.ok()) << line.status().ToString();
  return line.ok() ? *line : TokenSpan{};
}

TEST(DateLineBefore, IsTheLastHeadOfASessionBeforeTheToken) {
  for (uint64_t seed = 0; seed < 3; ++seed) {
    std::mt19937_64 rng(seed);
    const std::vector<LogLine> log = ChatLog(rng, 120, 6);
    OneDocument d(TextOf(log));
    const std::vector<LineTokens> lines = TokensOf(log);
    for (uint64_t t = 0; t < d.tokens(); ++t) {
      if (InsideHead(lines, t)) continue;
      ASSERT_EQ(DateBefore(d, t), LastHead(lines, 0, t)) << "seed " << seed << " token " << t;
    }
  }
}

TEST(DateLineBefore, IsEmptyWithoutADateLineWithin4096Tokens) {
  OneDocument none("Anna: I went to the market on 8 May 2023.\nBen: yes, I know of 8.5.2023.\n");
  for (uint64_t t = 0; t < none.tokens(); ++t) EXPECT_TRUE(DateBefore(none, t).empty()) << t;
  // The date line begins with token 6, behind "one two three four five" and a line end.
  std::string text = "one two three four five\n8 May 2023\n";
  for (int l = 0; l < 520; ++l) text += "a b c d e f g\n";
  OneDocument d(text);
  ASSERT_GT(d.tokens(), 4106u);
  const TokenSpan date{6, 9};
  ASSERT_EQ(d.TextOf(date), "8 May 2023");
  for (uint64_t t = 0; t < d.tokens(); ++t) {
    // From 7 to 8 the token is inside the line; at 6 + 4,096 the window begins with it.
    if (t >= 9 && t < 6 + 4096) {
      ASSERT_EQ(DateBefore(d, t), date) << t;
    } else if (t <= 6 || t > 6 + 4096) {
      ASSERT_TRUE(DateBefore(d, t).empty()) << t;
    }
  }
}

// Of a log in four chunks, one begins inside a head and one with a head.
TEST(DateLineBefore, OfDamagedTextIsWithinTheReadablePart) {
  std::mt19937_64 rng(4);
  const std::vector<LogLine> log = ChatLog(rng, 160, 6);
  const std::vector<LineTokens> lines = TokensOf(log);
  std::vector<uint64_t> heads;
  for (const LineTokens& line : lines) {
    if (line.is_head) heads.push_back(line.tokens.begin);
  }
  ASSERT_GT(heads.size(), 12u);
  const std::vector<uint64_t> chunks = {0, heads[3] + 2, heads[7], heads[10] - 3};
  OneDocument d(WordTokens(TextOf(log)), chunks);
  for (uint32_t lost = 0; lost < chunks.size(); ++lost) {
    const TokenSpan damaged{chunks[lost], lost + 1 < chunks.size() ? chunks[lost + 1] : d.tokens()};
    const std::string key = NumberedKey(d.id, lost);
    const std::string value = *d.store->Get(Table::kText, key);
    ASSERT_TRUE(PutValue(*d.store, Table::kText, key, "garbage").ok());
    d.memory = d.Open(*d.store);
    size_t empty = 0;
    for (uint64_t t = 0; t < d.tokens(); ++t) {
      SCOPED_TRACE(std::to_string(t) + " with chunk " + std::to_string(lost) + " lost");
      const TokenSpan got = DateBefore(d, t);
      if (damaged.Contains(t)) {
        ASSERT_TRUE(got.empty());
        continue;
      }
      ASSERT_TRUE(got.empty() || t < damaged.end || got.begin > damaged.end);
      if (InsideHead(lines, t)) continue;
      // Whether the line behind the damage is whole cannot be known.
      const uint64_t from = t < damaged.begin ? 0 : damaged.end + 1;
      ASSERT_EQ(got, LastHead(lines, from, t));
      if (t >= damaged.end && got.empty()) ++empty;
    }
    if (damaged.end < d.tokens()) {
      EXPECT_GT(empty, 0u);
    }
    ASSERT_TRUE(PutValue(*d.store, Table::kText, key, value).ok());
  }
}

}  // namespace
}  // namespace longhold
