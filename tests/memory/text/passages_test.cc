// Compares CutPassagesAndSentences with the rules of its header.
//
// Hand-made texts show where cuts must be; their paragraphs and functions have 64 to 128 tokens, so
// that each fits one passage and no two do. The least cost is compared with a second implementation
// of the header's formula, which searches all cuts of short texts from the front; 1e-9 allows for
// another order of addition. Random texts with tokens of 0 to 9 bytes, which also cut characters,
// check the bounds. A test's tokens are words with the space before them, punctuation and single
// line ends, as in byte-level BPE, where nothing else is said.
#include "memory/text/passages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <tuple>

#include "memory/text/sentences.h"
#include "tests/support/sanitized.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

bool IsLetter(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || (c & 0x80); }

// Words with the space before them, runs of spaces, and single other characters.
TokenText InWords(std::string_view text) {
  TokenText out{std::string(text), {}};
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && text[end] == ' ') ++end;
    if (end > at + 1) {
      --end;  // indentation; the last space belongs to the word
    } else {
      const size_t word = end;
      while (end < text.size() && IsLetter(text[end])) ++end;
      if (end == word && end < text.size()) ++end;
    }
    out.token_bytes.push_back(static_cast<uint16_t>(end - at));
    at = end;
  }
  return out;
}

// The text of tokens [begin, end).
std::string TextOf(const TokenText& text, size_t begin, size_t end) {
  size_t byte = 0, size = 0;
  for (size_t t = 0; t < end; ++t) (t < begin ? byte : size) += text.token_bytes[t];
  return text.text.substr(byte, size);
}

std::vector<std::string> Sentences(const TokenText& text) {
  const PassageCuts cuts = CutPassagesAndSentences(text);
  std::vector<std::string> out;
  for (size_t s = 0; s < cuts.sentences.size(); ++s) {
    const size_t end =
        s + 1 < cuts.sentences.size() ? cuts.sentences[s + 1] : text.token_bytes.size();
    out.push_back(TextOf(text, cuts.sentences[s], end));
  }
  return out;
}

std::vector<std::string> Passages(const TokenText& text) {
  const PassageCuts cuts = CutPassagesAndSentences(text);
  std::vector<std::string> out;
  for (size_t p = 0; p < cuts.passages.size(); ++p) {
    const size_t end = p + 1 < cuts.passages.size() ? cuts.sentences[cuts.passages[p + 1]]
                                                    : text.token_bytes.size();
    out.push_back(TextOf(text, cuts.sentences[cuts.passages[p]], end));
  }
  return out;
}

// The first that does not end with `end`, or empty. (Printing all of them helps nobody.)
std::string NotEndingWith(const std::vector<std::string>& texts, std::string_view end) {
  for (const std::string& text : texts) {
    if (!text.ends_with(end)) return text;
  }
  return "";
}

// The first text that differs from the expected one, or empty.
std::string Difference(const std::vector<std::string>& expected,
                       const std::vector<std::string>& got) {
  for (size_t i = 0; i < std::min(expected.size(), got.size()); ++i) {
    if (expected[i] != got[i]) return "expected: " + expected[i] + "\ngot: " + got[i];
  }
  return expected.size() == got.size() ? "" : "another number of texts";
}

std::string Trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \r\n");
  return begin == std::string::npos
             ? ""
             : text.substr(begin, text.find_last_not_of(" \r\n") + 1 - begin);
}
std::vector<std::string> Trimmed(std::vector<std::string> texts) {
  for (std::string& text : texts) text = Trimmed(text);
  return texts;
}

// A sentence of `words` words and a full stop.
std::string Sentence(std::mt19937_64& rng, size_t words) {
  static const std::vector<std::string> kWords = {"river", "stone",  "camel", "elder",   "flock",
                                                  "tent",  "desert", "well",  "servant", "altar"};
  std::string text = "The";
  for (size_t w = 1; w < words; ++w) text += " " + kWords[rng() % kWords.size()];
  return text + ".";
}

// A function in the style of C, with 4 tokens in its first line, `lines` indented lines of 12, and
// a closing brace.
std::string Function(std::mt19937_64& rng, size_t lines) {
  std::string text = "int f" + std::to_string(rng() % 1000) + " {\n";
  for (size_t l = 0; l < lines; ++l)
    text += "  x" + std::to_string(rng() % 100) + " = camel + stone * river - " +
            std::to_string(rng() % 100) + ";\n";
  return text + "}\n";
}

TEST(Passages, AnEmptyTextHasNone) {
  const PassageCuts cuts = CutPassagesAndSentences({});
  EXPECT_THAT(cuts.sentences, IsEmpty());
  EXPECT_THAT(cuts.passages, IsEmpty());
}

TEST(Passages, AShortTextIsOneSentence) {
  for (const char* text : {"x", "Noah built an ark.", "one\ntwo\nthree\n", "\n\n\n"}) {
    EXPECT_THAT(Passages(InWords(text)), ElementsAre(text));
    EXPECT_THAT(Sentences(InWords(text)), ElementsAre(text));
  }
  // a token without text, as BOS has none
  const PassageCuts bos = CutPassagesAndSentences({"", {0}});
  EXPECT_THAT(bos.sentences, ElementsAre(0u));
  EXPECT_THAT(bos.passages, ElementsAre(0u));
}

TEST(Passages, EndAtBlankLines) {
  std::mt19937_64 rng(1);
  for (const std::string blank : {"\n\n", "\n\n\n"}) {
    std::vector<std::string> paragraphs;
    std::string text;
    for (int p = 0; p < 12; ++p) {
      std::string paragraph = Sentence(rng, 18 + rng() % 5);
      for (int s = 0; s < 3; ++s)
        paragraph += (s == 1 ? "\n" : " ") + Sentence(rng, 18 + rng() % 8);
      paragraphs.push_back(paragraph);
      text += paragraph + blank;
    }
    EXPECT_EQ(Difference(paragraphs, Trimmed(Passages(InWords(text)))), "");
  }
}

// Files of some systems end lines with "\r\n".
TEST(Passages, EndAtBlankLinesWithCarriageReturns) {
  std::mt19937_64 rng(2);
  std::vector<std::string> paragraphs;
  std::string text;
  for (int p = 0; p < 12; ++p) {
    std::string paragraph = Sentence(rng, 18 + rng() % 5);
    for (int s = 0; s < 3; ++s) paragraph += "\r\n" + Sentence(rng, 16 + rng() % 8);
    paragraphs.push_back(paragraph);
    text += paragraph + "\r\n\r\n";
  }
  EXPECT_EQ(Difference(paragraphs, Trimmed(Passages(InWords(text)))), "");
}

TEST(Passages, EndAtLineEndsRatherThanSentenceEnds) {
  std::mt19937_64 rng(3);
  std::string text;
  for (int l = 0; l < 60; ++l)
    text += Sentence(rng, 6 + rng() % 6) + " " + Sentence(rng, 6 + rng() % 12) + "\n";
  const std::vector<std::string> passages = Passages(InWords(text));
  EXPECT_THAT(passages, SizeIs(testing::Gt(5u)));
  EXPECT_EQ(NotEndingWith(passages, "\n"), "");
}

// Also where two would fit: each gets a vector of its own.
TEST(Passages, EverySentenceOfUsualLengthIsOne) {
  std::mt19937_64 rng(10);
  std::vector<std::string> sentences;
  std::string text;
  for (int s = 0; s < 60; ++s) {
    sentences.push_back(Sentence(rng, 8 + rng() % 24));
    text += (s == 0 ? "" : rng() % 2 == 0 ? " " : "\n") + sentences.back();
  }
  EXPECT_EQ(Difference(sentences, Trimmed(Sentences(InWords(text)))), "");
}

TEST(Passages, ShortLinesShareASentence) {
  std::string text;
  for (int l = 0; l < 100; ++l) text += std::to_string(l) + " tents\n";
  const TokenText tokens = InWords(text);
  EXPECT_THAT(Sentences(tokens), SizeIs(testing::Lt(tokens.token_bytes.size() / 6)));
  EXPECT_EQ(NotEndingWith(Sentences(tokens), "\n"), "");
}

TEST(Passages, EndAtSentencesWhereThereAreNoLines) {
  std::mt19937_64 rng(4);
  std::string text;
  for (int s = 0; s < 60; ++s) text += (s == 0 ? "" : " ") + Sentence(rng, 8 + rng() % 20);
  EXPECT_EQ(NotEndingWith(Passages(InWords(text)), "."), "");
  EXPECT_EQ(NotEndingWith(Sentences(InWords(text)), "."), "");
}

// Scripts without spaces between words: a sentence ends at its full stop (sentences.h).
TEST(Passages, EndAtTheFullStopsOfOtherScripts) {
  TokenText tokens;
  for (int s = 0; s < 40; ++s) {
    for (int c = 0; c < 14 + 5 * (s % 4); ++c) tokens.text += c % 2 == 0 ? "東" : "京";
    tokens.text += "。";
  }
  tokens.token_bytes.assign(tokens.text.size() / 3, 3);  // one token per character
  EXPECT_EQ(NotEndingWith(Passages(tokens), "。"), "");
  EXPECT_EQ(NotEndingWith(Sentences(tokens), "。"), "");
}

TEST(Passages, NeverCutWordsThatFit) {
  std::mt19937_64 rng(5);
  std::string text;
  for (int w = 0; w < 300; ++w) text += (w == 0 ? "" : " ") + std::string(3 + rng() % 8, 'x');
  TokenText bytes{text, std::vector<uint16_t>(text.size(), 1)};
  const std::vector<std::string> sentences = Sentences(bytes);
  for (size_t s = 1; s < sentences.size(); ++s)
    EXPECT_TRUE(sentences[s].front() == ' ' || sentences[s - 1].back() == ' ') << sentences[s];
}

TEST(Passages, KeepFunctionsWhole) {
  std::mt19937_64 rng(6);
  std::vector<std::string> functions;
  std::string text;
  for (int f = 0; f < 12; ++f) {
    functions.push_back(Trimmed(Function(rng, 5 + rng() % 5)));
    text += functions.back() + "\n\n";
  }
  EXPECT_EQ(Difference(functions, Trimmed(Passages(InWords(text)))), "");
}

// Python's functions end where the next line is not indented.
TEST(Passages, KeepIndentedFunctionsWholeWithoutBlankLines) {
  std::mt19937_64 rng(7);
  std::vector<std::string> functions;
  std::string text;
  for (int f = 0; f < 12; ++f) {
    std::string function = Function(rng, 6 + rng() % 4);
    function.erase(function.rfind("}\n"));
    functions.push_back(Trimmed(function));
    text += function;
  }
  EXPECT_EQ(Difference(functions, Trimmed(Passages(InWords(text)))), "");
}

// Functions of 20 to 250 tokens, so that some are longer than a passage, with lines of 5 to 21.
void ExpectBracesWithTheirFunctions(const std::string& between) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    std::string text;
    for (int f = 0; f < 12; ++f) {
      text += "int f" + std::to_string(f) + " {\n";
      for (uint64_t l = 4 + rng() % 14; l > 0; --l) {
        text += "  x =";
        for (uint64_t term = rng() % 9; term > 0; --term) text += " y +";
        text += " z;\n";
      }
      text += "}\n" + between;
    }
    for (const std::string& passage : Trimmed(Passages(InWords(text))))
      ASSERT_FALSE(passage.starts_with("}")) << passage;
  }
}

TEST(Passages, LeaveAClosingBraceWithItsFunction) { ExpectBracesWithTheirFunctions("\n"); }

TEST(Passages, LeaveAClosingBraceWithItsFunctionWithoutBlankLines) {
  ExpectBracesWithTheirFunctions("");
}

TEST(Passages, ATextWithoutAnyBreakIsCutAtTheMaxima) {
  const TokenText text{std::string(5000, 'x'), std::vector<uint16_t>(5000, 1)};
  const PassageCuts cuts = CutPassagesAndSentences(text);
  EXPECT_THAT(cuts.passages, SizeIs((5000 + kPassageTokensMax - 1) / kPassageTokensMax));
  EXPECT_THAT(cuts.sentences, SizeIs((5000 + kSentenceTokensMax - 1) / kSentenceTokensMax));
}

// ---- The least cost

// The cost of a cut behind token `t`, as the header says. ASCII only.
double EndCost(const TokenText& text, size_t t) {
  const std::string before = TextOf(text, 0, t), after = text.text.substr(before.size());
  if (before.empty() || after.empty()) return 0;
  const auto space = [](char c) { return c == ' ' || c == '\n'; };
  if (before.back() == '\n') {
    const std::string line = before.substr(before.rfind('\n', before.size() - 2) + 1);
    const std::string next = after.substr(0, after.find('\n'));
    const auto blank = [](const std::string& l) {
      return l.find_first_not_of(" \n") == std::string::npos;
    };
    const auto closes = [](const std::string& l) {
      return std::string_view("})]").find(l.front()) != std::string_view::npos;
    };
    if (blank(line) || blank(next)) return 0;
    if (next.front() == ' ') return 0.05;
    if (closes(next)) return 1;
    return line.front() == ' ' || closes(line) ? 0 : 0.05;
  }
  if (!space(after.front()) && !space(before.back())) return 4;
  return EndsSentence(before.substr(0, before.find_last_not_of(" \n") + 1)) ? 0.2 : 1;
}

// How many tokens a piece has, as the header says.
struct Usual {
  double least, most;
  size_t never_above;

  double Cost(size_t tokens) const {
    const auto n = static_cast<double>(tokens);
    const double missing = std::max(0.0, least - n) / least,
                 excess = std::max(0.0, n - most) / most;
    return missing * missing + excess * excess;
  }
};
constexpr Usual kPassage{64, 128, kPassageTokensMax}, kSentence{8, 32, kSentenceTokensMax};

// The least cost of cutting the tokens from `begin` on.
double LeastCost(const std::vector<double>& ends, size_t begin, size_t end, const Usual& usual,
                 std::map<size_t, double>* known) {
  if (begin == end) return 0;
  if (const auto it = known->find(begin); it != known->end()) return it->second;
  double best = 1e300;
  for (size_t size = 1; size <= usual.never_above && begin + size <= end; ++size) {
    best = std::min(best, usual.Cost(size) + ends[begin + size - 1] +
                              LeastCost(ends, begin + size, end, usual, known));
  }
  return (*known)[begin] = best;
}

// The cost of the cuts that were made in tokens [begins[0], end).
double CostOf(const std::vector<double>& ends, std::vector<uint32_t> begins, uint32_t end,
              const Usual& usual) {
  begins.push_back(end);
  double cost = 0;
  for (size_t i = 0; i + 1 < begins.size(); ++i)
    cost += usual.Cost(begins[i + 1] - begins[i]) + ends[begins[i + 1] - 1];
  return cost;
}

TEST(Passages, AreTheCheapestCutsByTheHeadersFormula) {
  std::mt19937_64 rng(9);
  for (int round = 0; round < (kSanitized ? 5 : 25); ++round) {
    SCOPED_TRACE(round);
    std::string text;
    while (text.size() < 2500) {
      switch (rng() % 5) {
        case 0: text += Function(rng, 1 + rng() % 12); break;
        case 1: text += "\n"; break;
        case 2: text += std::string(rng() % 90, 'z'); break;
        case 3: text += Sentence(rng, 3 + rng() % 30) + "\n"; break;
        default: text += Sentence(rng, 1 + rng() % 40) + " "; break;
      }
    }
    const TokenText tokens = InWords(text);
    const auto end = static_cast<uint32_t>(tokens.token_bytes.size());
    std::vector<double> ends;
    for (uint32_t t = 1; t <= end; ++t) ends.push_back(EndCost(tokens, t));
    const PassageCuts cuts = CutPassagesAndSentences(tokens);
    std::vector<uint32_t> passages;
    for (const uint32_t s : cuts.passages) passages.push_back(cuts.sentences[s]);
    std::map<size_t, double> known;
    EXPECT_NEAR(CostOf(ends, passages, end, kPassage), LeastCost(ends, 0, end, kPassage, &known),
                1e-9);
    // Within a passage, the ends of blocks, lines and sentences are all the same.
    for (double& cost : ends) cost = cost <= 0.2 ? 0 : cost;
    for (size_t p = 0; p < passages.size(); ++p) {
      const bool last = p + 1 == passages.size();
      const uint32_t passage_end = last ? end : passages[p + 1];
      const std::vector<uint32_t> sentences(
          cuts.sentences.begin() + cuts.passages[p],
          last ? cuts.sentences.end() : cuts.sentences.begin() + cuts.passages[p + 1]);
      known.clear();
      EXPECT_NEAR(CostOf(ends, sentences, passage_end, kSentence),
                  LeastCost(ends, passages[p], passage_end, kSentence, &known), 1e-9);
    }
  }
}

// ---- Bounds

void ExpectWithinBounds(const TokenText& text) {
  const PassageCuts cuts = CutPassagesAndSentences(text);
  const auto tokens = static_cast<uint32_t>(text.token_bytes.size());
  ASSERT_FALSE(cuts.sentences.empty());
  ASSERT_FALSE(cuts.passages.empty());
  EXPECT_EQ(cuts.sentences[0], 0u);
  EXPECT_EQ(cuts.passages[0], 0u);
  for (size_t s = 0; s < cuts.sentences.size(); ++s) {
    const uint32_t end = s + 1 < cuts.sentences.size() ? cuts.sentences[s + 1] : tokens;
    ASSERT_GT(end, cuts.sentences[s]);
    ASSERT_LE(end - cuts.sentences[s], kSentenceTokensMax);
  }
  for (size_t p = 0; p < cuts.passages.size(); ++p) {
    const bool last = p + 1 == cuts.passages.size();
    ASSERT_LT(cuts.passages[p], last ? cuts.sentences.size() : cuts.passages[p + 1]);
    const uint32_t end = last ? tokens : cuts.sentences[cuts.passages[p + 1]];
    ASSERT_LE(end - cuts.sentences[cuts.passages[p]], kPassageTokensMax);
  }
  const PassageCuts again = CutPassagesAndSentences(TokenText(text));
  EXPECT_EQ(again.sentences, cuts.sentences);
  EXPECT_EQ(again.passages, cuts.passages);
}

TEST(Passages, StayWithinTheirBoundsWhateverTheTokens) {
  for (uint64_t seed = 0; seed < (kSanitized ? 20u : 150u); ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 rng(seed);
    const size_t bytes_most = 1 + rng() % 9;
    TokenText text{RandomText(1 + rng() % 4000, seed), {}};
    for (size_t at = 0; at < text.text.size();) {
      const size_t size = std::min(rng() % (bytes_most + 1), text.text.size() - at);
      text.token_bytes.push_back(static_cast<uint16_t>(size));
      at += size;
    }
    for (uint64_t n = rng() % 4; n > 0; --n) {  // also at both ends
      text.token_bytes.insert(text.token_bytes.begin(), 0);
      text.token_bytes.push_back(0);
    }
    ExpectWithinBounds(text);
  }
}

TEST(Passages, StayWithinTheirBoundsForExtremeTokens) {
  ExpectWithinBounds({"", std::vector<uint16_t>(1000, 0)});
  ExpectWithinBounds({std::string(1000, '\n'), std::vector<uint16_t>(1000, 1)});
  ExpectWithinBounds({std::string(1000, ' '), std::vector<uint16_t>(1000, 1)});
  ExpectWithinBounds({std::string(1000, '}'), std::vector<uint16_t>(1000, 1)});
  ExpectWithinBounds({std::string(1000, '\x80'), std::vector<uint16_t>(1000, 1)});
  ExpectWithinBounds({std::string(4 * 65535, ' '), std::vector<uint16_t>(4, 65535)});
  TokenText huge{std::string(65536, 'a'), std::vector<uint16_t>(65536, 1)};
  for (size_t i = 0; i < huge.text.size(); i += 7) huge.text[i] = "\n .!"[i % 4];
  ExpectWithinBounds(huge);
}

}  // namespace
}  // namespace longhold
