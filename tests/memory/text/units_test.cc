// TextUnits against the rules of its header.
//
// Hand-made texts name the unit that each of their tokens must be in. Random texts are compared
// with a second implementation of the header's rules at every token; their functions, paragraphs
// and lines have sizes around the limits. What a window of a text says must be what the text itself
// says, wherever the unit lies inside the window. Blank lines count to the unit before them. A
// test's tokens are words with the space before them, punctuation and single line ends, as in
// byte-level BPE, where nothing else is said.
#include "memory/text/units.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "memory/text/unwrap.h"
#include "tests/support/sanitized.h"
#include "tests/support/toy_text.h"
#include "tests/support/wrapped_text.h"

namespace longhold {
namespace {

// The token that holds the first byte of `word`.
size_t TokenOf(const TokenText& text, std::string_view word) {
  const size_t byte = text.text.find(word);
  EXPECT_NE(byte, std::string::npos) << word;
  size_t end = 0, token = 0;
  while ((end += text.token_bytes[token]) <= byte) ++token;
  return token;
}

// The unit around the first byte of `word`, as text.
std::string Around(const TokenText& text, std::string_view word, bool from_start = true,
                   bool to_end = true) {
  const PieceRange unit = TextUnits(text, from_start, to_end).At(TokenOf(text, word));
  return TextOfTokens(text, unit.begin, unit.end);
}
std::string Around(std::string_view text, std::string_view word, bool from_start = true,
                   bool to_end = true) {
  return Around(WordTokens(text), word, from_start, to_end);
}

std::string Repeated(std::string_view text, size_t times) {
  std::string out;
  for (size_t i = 0; i < times; ++i) out += text;
  return out;
}

// ---- Functions

constexpr std::string_view kCode = R"(#include <string>

// Reads one line.
// The newline is not part of it.
std::string ReadLine(Reader* r) {
  std::string line;

  while (r->HasMore()) {
    line += r->Next();
  }

  return line;
}

int Count(const Shelf& s) {
  return s.size();
}
)";

TEST(TextUnits, AFunctionIsWholeWithTheCommentAboveIt) {
  const size_t begin = kCode.find("// Reads"), end = kCode.find("int Count");
  const std::string function(kCode.substr(begin, end - begin));
  for (const char* word :
       {"// Reads", "newline", "ReadLine", "string line;", "HasMore", "return line"})
    EXPECT_EQ(Around(kCode, word), function) << word;
  EXPECT_EQ(Around(kCode, "#include"), "#include <string>\n\n");
  EXPECT_EQ(Around(kCode, "s.size"), kCode.substr(end));
}

TEST(TextUnits, ACommentBehindABlankLineIsAUnitOfItsOwn) {
  const std::string text = "// About this file.\n\nint a() {\n  return 1;\n}\n";
  EXPECT_EQ(Around(text, "About"), "// About this file.\n\n");
  EXPECT_EQ(Around(text, "return"), "int a() {\n  return 1;\n}\n");
}

// The header says "that an unindented line follows": an unindented bracket closes what it follows.
TEST(TextUnits, AClosingBracketBehindABlankLineEndsItsFunction) {
  for (const char* close : {"}\n", "})\n", ")\n", "];\n"}) {
    const std::string text = std::string("f(\n  one,\n\n  two\n\n") + close + "\nnext\n";
    EXPECT_EQ(Around(text, "one"), text.substr(0, text.find("next")));
    EXPECT_EQ(Around(text, close), text.substr(0, text.find("next")));
  }
}

TEST(TextUnits, APythonClassOfFewTokensIsWhole) {
  const std::string text =
      "import os\n\n\nclass Shelf:\n    \"\"\"A shelf.\"\"\"\n\n    def add(self, book):\n"
      "        self.books.append(book)\n\n    def size(self):\n        return len(self.books)\n\n\n"
      "def main():\n    pass\n";
  const size_t begin = text.find("class"), end = text.find("def main");
  for (const char* word : {"class", "shelf", "append", "len("})
    EXPECT_EQ(Around(text, word), text.substr(begin, end - begin)) << word;
}

TEST(TextUnits, APythonMethodOfALongClassIsWhole) {
  std::string text = "class Shelf:\n    \"\"\"A shelf of books.\"\"\"\n\n";
  for (int m = 0; m < 8; ++m) {
    const std::string n = std::to_string(m);
    text += "    @property\n    def method" + n + "(self, book, other):\n        # Step " + n +
            "\n        for b in self.books:\n            if b.title == book.title:\n"
            "                return b\n        return other" +
            n + "\n\n";
  }
  for (int m = 0; m < 8; ++m) {
    const std::string n = std::to_string(m);
    const std::string method = Trimmed(Around(text, "method" + n));
    EXPECT_TRUE(method.starts_with("@property")) << method;
    EXPECT_TRUE(method.ends_with("return other" + n)) << method;
    EXPECT_EQ(Trimmed(Around(text, "other" + n)), method);
  }
}

// ---- Limits

// `tokens` tokens, of which the last is the line end, and the first word is `word`.
std::string LineOfTokens(const std::string& word, size_t tokens) {
  return word + Repeated(" x", tokens - 2) + "\n";
}

TEST(TextUnits, ALongFunctionIsCutIntoItsParagraphs) {
  for (const size_t tokens : {kFunctionTokensMax, kFunctionTokensMax + 1}) {
    // A function of two paragraphs; the first has 100 tokens with the blank line behind it.
    const std::string first = LineOfTokens("begin", 99) + "\n";
    const std::string second = " " + LineOfTokens("second", tokens - 100);
    const std::string text = "before\n\n" + first + second + "after\n";
    ASSERT_EQ(WordTokens(first + second).token_bytes.size(), tokens);
    // "after" goes on in the second paragraph; a function follows that.
    const std::string whole = first + second;
    EXPECT_EQ(Around("before\n\n" + whole, "begin"), tokens <= kFunctionTokensMax ? whole : first);
    EXPECT_EQ(Around("before\n\n" + whole, "second"),
              tokens <= kFunctionTokensMax ? whole : second);
  }
}

TEST(TextUnits, ALongParagraphIsCutIntoItsLines) {
  for (const size_t tokens : {kParagraphTokensMax, kParagraphTokensMax + 1}) {
    // The last token of the second line is the blank line behind it.
    const std::string first = " " + LineOfTokens("first", 60),
                      second = " " + LineOfTokens("second", tokens - 61) + "\n";
    const std::string text =
        LineOfTokens("begin", 100) + "\n" + first + second + " " + LineOfTokens("end", 100);
    ASSERT_EQ(WordTokens(first + second).token_bytes.size(), tokens);
    const bool whole = tokens <= kParagraphTokensMax;
    EXPECT_EQ(Around(text, "first"), whole ? first + second : first) << tokens;
    EXPECT_EQ(Around(text, "second"), whole ? first + second : second) << tokens;
  }
}

TEST(TextUnits, ALongLineIsCutIntoItsSentences) {
  for (const size_t tokens : {kLineTokensMax, kLineTokensMax + 1}) {
    std::string line = "Head";
    for (int i = 0; WordTokens(line).token_bytes.size() + 24 <= tokens; ++i)
      line += (i == 7 ? " seventh" : " a") + std::string(" b c d e f g h i j k.");
    line += Repeated(" z", tokens - WordTokens(line).token_bytes.size() - 1) + "\n";
    ASSERT_EQ(WordTokens(line).token_bytes.size(), tokens);
    const std::string text = LineOfTokens("before", 50) + line + LineOfTokens("after", 50);
    if (tokens <= kLineTokensMax) {
      EXPECT_EQ(Around(text, "Head"), line);
      EXPECT_EQ(Around(text, "z z"), line);
    } else {
      EXPECT_EQ(Around(text, "Head"), "Head a b c d e f g h i j k.");
      EXPECT_EQ(Around(text, " seventh"), " seventh b c d e f g h i j k.");
    }
  }
}

TEST(TextUnits, ASentenceReaches64TokensToEitherSide) {
  const TokenText text = WordTokens("First" + Repeated(" word", 999));
  const TextUnits units(text, true, true);
  for (size_t at = 0; at < units.tokens(); ++at) {
    const PieceRange sentence = units.At(at);
    ASSERT_LE(sentence.begin, at);
    ASSERT_GT(sentence.end, at);
    ASSERT_LE(at - sentence.begin, size_t{kSentenceReachTokens}) << at;
    ASSERT_LE(sentence.end - 1 - at, size_t{kSentenceReachTokens}) << at;
    if (at > 100 && at < 900) {
      ASSERT_GT(sentence.end - sentence.begin, size_t{kSentenceReachTokens}) << at;
    }
  }
}

// ---- Edges of the text

TEST(TextUnits, AUnitWithoutItsBeginOrEndDoesNotCount) {
  const std::string text =
      "tail of one;\n}\n\nint f() {\n  return 1;\n}\n\nint g() {\n  int a = 2;\n  last";
  const std::string f = "int f() {\n  return 1;\n}\n\n", g = text.substr(text.find("int g"));
  for (const bool from_start : {true, false}) {
    for (const bool to_end : {true, false}) {
      const auto around = [&](std::string_view word) {
        return Around(text, word, from_start, to_end);
      };
      EXPECT_EQ(around("int f"), f);
      EXPECT_EQ(around("return"), f);
      EXPECT_EQ(around("tail"), from_start ? "tail of one;\n}\n\n" : "tail of one;\n");
      EXPECT_EQ(around("}"), from_start ? "tail of one;\n}\n\n" : "}\n\n");
      EXPECT_EQ(around("int g"), to_end ? g : "int g() {\n");
      EXPECT_EQ(around("int a"), to_end ? g : "  int a = 2;\n");
    }
  }
}

// The text begins with the end of a line, not with a blank line: where the paragraph begins is not
// known.
TEST(TextUnits, ALineOfWhichOnlyItsEndIsLeftIsNotBlank) {
  EXPECT_EQ(Around("\nfoo bar.\nbaz qux.\n\nnext\n", "foo", false), "foo bar.\n");
}

// The text ends inside a word, for which the line before it has room as far as it can be seen. So
// the end of the paragraph's one line is not known, and it comes in sentences.
TEST(TextUnits, ALineBeforeAWordThatIsCutOffGoesOn) {
  const std::string line = "word word word word word word word word end\n";
  const std::string text = "The first is here. And word word word an end\n" + line + line +
                           "word word word word word word word word\n";
  EXPECT_EQ(Around(text + "wor", "first", true, false), "The first is here.");
  EXPECT_EQ(Around(text + "wor", "first", true, true), text + "wor") << "the word is whole";
  EXPECT_EQ(Around(text, "first", true, false), text) << "the last line is whole";
}

// The line's end is in the text.
TEST(TextUnits, ALineThatEndsWhereTheTextEndsIsWhole) {
  EXPECT_EQ(Around("one\nFirst. Second.\n", "First", false, false), "First. Second.\n");
  EXPECT_EQ(Around("one\nFirst. Second.", "First", false, false), "First.") << "it may go on";
}

// Tokens of BPE may hold the end of a line, blank lines, and the spaces before the next word.
TEST(TextUnits, TokensThatHoldAFewLineEndsBelongToAUnitNextToThem) {
  const std::vector<std::string> pieces = {"one",     "\n\n",   "two",    "\n   ", " more",
                                           "\n\n   ", " three", "\n\n\n", "four",  "\n"};
  TokenText text;
  for (const std::string& piece : pieces) {
    text.text += piece;
    text.token_bytes.push_back(static_cast<uint16_t>(piece.size()));
  }
  EXPECT_EQ(Around(text, "one"), "one\n\n");
  for (const char* word : {"two", "more", "three"})
    EXPECT_EQ(Around(text, word), "two\n    more\n\n    three\n\n\n") << word;
  EXPECT_EQ(Around(text, "four"), "four\n");
  // The same where the function is too long: its paragraphs begin with that white space or behind.
  std::string words;
  for (int w = 0; w < 100; ++w) {
    words += " w";
    text.token_bytes.insert(text.token_bytes.begin() + 7, 2);  // behind " three"
    text.token_bytes.insert(text.token_bytes.begin() + 3, 2);  // behind "two"
  }
  text.text = "one\n\ntwo" + words + "\n    more\n\n    three" + words + "\n\n\nfour\n";
  EXPECT_EQ(Trimmed(Around(text, "more")), "two" + words + "\n    more");
  EXPECT_EQ(Trimmed(Around(text, "three")), "three" + words);
}

TEST(TextUnits, TokensWithoutTextBelongToAUnit) {
  const TokenText text{"one\n\ntwo\n", {0, 3, 0, 1, 1, 0, 3, 1, 0}};  // as BOS has none
  const TextUnits units(text, true, true);
  ASSERT_EQ(units.tokens(), 9u);
  for (size_t at = 0; at < 9; ++at) {
    EXPECT_LE(units.At(at).begin, at);
    EXPECT_GT(units.At(at).end, at);
  }
  EXPECT_EQ(Around(text, "one"), "one\n\n");
  EXPECT_EQ(Around(text, "two"), "two\n");
  const TextUnits none(TokenText{"", {0, 0, 0}}, true, true);
  for (size_t at = 0; at < 3; ++at) EXPECT_GT(none.At(at).end, at);
}

// ---- Wrapped paragraphs, conversations, other scripts

TEST(TextUnits, AWrappedParagraphIsOneLine) {
  std::mt19937_64 rng(1);
  for (const size_t width : {40u, 72u, 80u, 120u}) {
    std::string text, lines;
    for (int p = 0; p < 6; ++p) {
      std::string paragraph;
      const size_t sentences = 3 + rng() % 25;
      for (size_t s = 0; s < sentences; ++s)
        paragraph += (s == 0 ? "" : " ") + WordySentence(rng, 8 + rng() % 14);
      paragraph = Wrapped(paragraph, width);
      text += paragraph + "\n\n";
      std::replace(paragraph.begin(), paragraph.end(), '\n', ' ');
      lines += paragraph + "\n\n";
    }
    TokenText wrapped = WordTokens(text), whole = wrapped;
    whole.text = lines;
    const TextUnits a(wrapped, true, true), b(whole, true, true);
    for (size_t at = 0; at < a.tokens(); ++at) {
      ASSERT_EQ(a.At(at).begin, b.At(at).begin) << "width " << width << " token " << at;
      ASSERT_EQ(a.At(at).end, b.At(at).end) << "width " << width << " token " << at;
    }
  }
}

TEST(TextUnits, TurnsOfALongConversationAreLines) {
  std::mt19937_64 rng(2);
  std::vector<std::string> turns;
  std::string text;
  for (int t = 0; t < 60; ++t) {
    std::string words;
    const size_t size = 2 + rng() % 40;
    for (size_t w = 0; w < size; ++w) words += " " + std::string(1 + rng() % 9, 'x');
    turns.push_back((t % 2 == 0 ? "Anna" : "Ben") + std::to_string(t) + ":" + words +
                    (t % 3 == 0 ? ".\n" : "\n"));
    text += turns.back();
  }
  for (size_t t = 0; t < turns.size(); ++t) {
    const std::string name = turns[t].substr(0, turns[t].find(' '));
    EXPECT_EQ(Around(text, name), turns[t]);
  }
}

TEST(TextUnits, SentencesOfALongLineInChineseEndAtTheirFullStops) {
  TokenText text;
  std::vector<std::string> sentences;
  for (int s = 0; s < 60; ++s) {
    std::string sentence;
    for (int c = 0; c < 6 + 5 * (s % 4); ++c) sentence += c % 2 == 0 ? "東" : "京";
    sentences.push_back(sentence + "。");
    text.text += sentences.back();
  }
  text.token_bytes.assign(text.text.size() / 3, 3);  // one token per character
  const TextUnits units(text, true, true);
  size_t at = 0;
  for (const std::string& sentence : sentences) {
    for (size_t c = 0; c < sentence.size() / 3; ++c) {
      const PieceRange unit = units.At(at + c);
      ASSERT_EQ(TextOfTokens(text, unit.begin, unit.end), sentence) << at + c;
    }
    at += sentence.size() / 3;
  }
}

TEST(TextUnits, AreTheSameWithCarriageReturns) {
  std::mt19937_64 rng(3);
  std::string text(kCode);
  for (int p = 0; p < 5; ++p) {
    std::string paragraph;
    for (int s = 0; s < 14; ++s) paragraph += WordySentence(rng, 9 + rng() % 9) + " ";
    text += "\n" + Wrapped(paragraph, 72) + " end here\n";
  }
  std::string returns;
  for (const char c : text) returns += c == '\n' ? "\r\n" : std::string(1, c);
  const TokenText newlines = WordTokens(text), both = WordTokens(returns);
  ASSERT_EQ(newlines.token_bytes.size(), both.token_bytes.size());
  const TextUnits a(newlines, true, true), b(both, true, true);
  for (size_t at = 0; at < a.tokens(); ++at) {
    ASSERT_EQ(a.At(at).begin, b.At(at).begin) << at;
    ASSERT_EQ(a.At(at).end, b.At(at).end) << at;
  }
}

// ---- The header's rules, again

// The units of a whole text without wrapped paragraphs, as the header says. Lines begin where
// tokens begin.
class ByTheHeader {
 public:
  explicit ByTheHeader(const TokenText& text) {
    size_t byte = 0;
    bool begins_line = true, after_blank = true;
    for (const uint16_t bytes : text.token_bytes) {
      pieces_.push_back(text.text.substr(byte, bytes));
      if (begins_line) {
        const std::string line = text.text.substr(byte, text.text.find('\n', byte) - byte);
        const bool blank = Trimmed(line).empty();
        const bool indented = line.starts_with(' ') || line.starts_with('\t');
        if (!blank) edges_[2].push_back(pieces_.size() - 1);
        if (!blank && after_blank) edges_[1].push_back(pieces_.size() - 1);
        if (!blank && after_blank && !indented) edges_[0].push_back(pieces_.size() - 1);
        after_blank = blank;
      }
      begins_line = pieces_.back().ends_with('\n');
      byte += bytes;
    }
  }

  PieceRange At(size_t at) const {
    const size_t tokens_max[3] = {kFunctionTokensMax, kParagraphTokensMax, kLineTokensMax};
    for (int kind = 0; kind < 3; ++kind) {
      PieceRange unit{0, pieces_.size()};
      for (const size_t edge : edges_[kind]) {
        if (edge <= at) unit.begin = std::max(unit.begin, edge);
        if (edge > at) unit.end = std::min(unit.end, edge);
      }
      if (unit.end - unit.begin <= tokens_max[kind]) return unit;
    }
    const size_t begin = at < kSentenceReachTokens ? 0 : at - kSentenceReachTokens;
    const size_t end = std::min(pieces_.size(), at + kSentenceReachTokens + 1);
    const std::vector<std::string> near(pieces_.begin() + static_cast<ptrdiff_t>(begin),
                                        pieces_.begin() + static_cast<ptrdiff_t>(end));
    const PieceRange sentence = SentenceAround(near, at - begin, begin == 0, end == pieces_.size());
    return {begin + sentence.begin, begin + sentence.end};
  }

 private:
  std::vector<std::string> pieces_;
  std::vector<size_t> edges_[3];  // where functions, paragraphs, lines begin, ascending
};

// Lines of at most 38 characters, or of more than 120: none is wrapped.
std::string TextWithoutWrapping(std::mt19937_64& rng, size_t bytes) {
  std::string text;
  while (text.size() < bytes) {
    switch (rng() % 8) {
      case 0: text += std::string(1 + rng() % 3, '\n'); break;
      case 1: text += rng() % 2 == 0 ? "}\n\n" : "  \n"; break;
      case 2: {  // about as long as the longest line
        const size_t words = rng() % 2 == 0 ? 300 + rng() % 40 : 70 + rng() % 300;
        for (size_t w = 0; w < words; ++w) text += rng() % 17 == 0 ? " x." : " word";
        text += "\n";
        break;
      }
      case 3: text += "\n// A comment.\n"; break;
      default: {
        const size_t lines = 1 + rng() % 18;
        for (size_t l = 0; l < lines; ++l) {
          text += rng() % 4 == 0 ? "" : rng() % 2 == 0 ? "  " : "\t";
          const size_t words = 1 + rng() % 7;
          for (size_t w = 0; w < words; ++w) text += (w == 0 ? "x" : " yz");
          text += rng() % 5 == 0 ? ".\n" : "\n";
        }
      }
    }
  }
  // An unindented closing bracket behind a blank line has a test of its own.
  for (size_t at; (at = text.find("\n\n}")) != std::string::npos;) text.erase(at, 1);
  while (text.find("\n  \n}") != std::string::npos) text.erase(text.find("\n  \n}") + 1, 3);
  while (text.front() == '}' || text.front() == '\n') text.erase(0, 1);
  return text;
}

// Tokens of 0 to 9 bytes, which also cut lines anywhere.
TokenText RandomTokens(std::mt19937_64& rng, std::string text) {
  TokenText out{std::move(text), {}};
  for (size_t at = 0; at < out.text.size();) {
    const size_t size = std::min<size_t>(rng() % 10, out.text.size() - at);
    out.token_bytes.push_back(static_cast<uint16_t>(size));
    at += size;
  }
  return out;
}

TEST(TextUnits, DoWhatTheirHeaderSays) {
  size_t sizes[4] = {};  // how many tokens are in units of up to 64, 128, 192, 320
  for (uint64_t seed = 0; seed < (kSanitized ? 4u : 16u); ++seed) {
    std::mt19937_64 rng(seed);
    std::string text = TextWithoutWrapping(rng, 3000);
    std::string unwrapped = text;
    UnwrapLines(&unwrapped, true);
    if (unwrapped != text) continue;
    const TokenText tokens = WordTokens(text);
    const TextUnits units(tokens, true, true);
    const ByTheHeader by_the_header(tokens);
    for (size_t at = 0; at < units.tokens(); ++at) {
      const PieceRange expected = by_the_header.At(at), got = units.At(at);
      ASSERT_EQ(got.begin, expected.begin) << "seed " << seed << " token " << at << "\n" << text;
      ASSERT_EQ(got.end, expected.end) << "seed " << seed << " token " << at << "\n" << text;
      const size_t size = got.end - got.begin;
      ++sizes[size <= 64 ? 0 : size <= 128 ? 1 : size <= 192 ? 2 : 3];
    }
  }
  for (const size_t count : sizes) EXPECT_GE(count, kSanitized ? 0u : 500u);
}

// What a window says is what the whole text says, if it also has the line before the unit, so that
// the unit's begin is known, and the line behind it. Long lines are left to the next test: near a
// window's edge, sentences are cut.
TEST(TextUnits, OfAWindowAreThoseOfTheText) {
  size_t compared = 0;
  for (uint64_t seed = 0; seed < (kSanitized ? 2u : 12u); ++seed) {
    std::mt19937_64 rng(seed);
    const TokenText text = WordTokens(TextWithoutWrapping(rng, 4000));
    const TextUnits units(text, true, true);
    for (int w = 0; w < 8; ++w) {
      const size_t begin = 1 + rng() % (units.tokens() / 2);
      const size_t end = begin + 1 + rng() % std::min<size_t>(600, units.tokens() - begin);
      TokenText part{TextOfTokens(text, begin, end),
                     {text.token_bytes.begin() + static_cast<ptrdiff_t>(begin),
                      text.token_bytes.begin() + static_cast<ptrdiff_t>(end)}};
      const TextUnits window(part, false, end == units.tokens());
      const auto lines = [&](size_t from, size_t to) {
        return LinesOf(Trimmed(TextOfTokens(text, from, to))).size();
      };
      size_t known_begin = begin, known_end = end;
      while (known_begin < end && lines(begin, known_begin) < 2) ++known_begin;
      while (known_end > begin && lines(known_end, end) < 2) --known_end;
      for (size_t at = begin; at < end; ++at) {
        const PieceRange whole = units.At(at), got = window.At(at - begin);
        ASSERT_LE(got.begin, at - begin);
        ASSERT_GT(got.end, at - begin);
        ASSERT_LE(got.end, end - begin);
        if (whole.begin < known_begin || whole.end > known_end) continue;
        ++compared;
        ASSERT_EQ(got.begin + begin, whole.begin) << "seed " << seed << " token " << at;
        ASSERT_EQ(got.end + begin, whole.end) << "seed " << seed << " token " << at;
      }
    }
  }
  EXPECT_GT(compared, kSanitized ? 500u : 5000u);
}

// Any text, any tokens: wrapped paragraphs, RandomText, control characters, one kind of byte.
TEST(TextUnits, HoldTheirTokenAndKeepTheLimits) {
  for (uint64_t seed = 0; seed < (kSanitized ? 12u : 24u); ++seed) {
    std::mt19937_64 rng(seed);
    std::string text;
    switch (seed % 4) {
      case 0: text = RandomText(900, seed); break;
      case 1: text = std::string(900, "\n .}x\x80"[seed / 4 % 6]); break;
      case 2: text = TextWithoutWrapping(rng, 900); break;
      default:
        for (int s = 0; s < 20; ++s) text += WordySentence(rng, 10) + " ";
        text = Wrapped(text, 40 + rng() % 60) + "\n\n" + Wrapped(text, 40 + rng() % 60);
    }
    const TokenText tokens = RandomTokens(rng, text);
    for (const bool whole : {true, false}) {
      const TextUnits units(tokens, whole, whole);
      for (size_t at = 0; at < units.tokens(); ++at) {
        const PieceRange unit = units.At(at);
        ASSERT_LE(unit.begin, at) << "seed " << seed;
        ASSERT_GT(unit.end, at) << "seed " << seed;
        ASSERT_LE(unit.end, units.tokens()) << "seed " << seed;
        ASSERT_LE(unit.end - unit.begin, size_t{kLineTokensMax}) << "seed " << seed;
      }
    }
  }
}

}  // namespace
}  // namespace longhold
