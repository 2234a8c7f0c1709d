// UnwrapLines against the rules of its header.
//
// Paragraphs that are wrapped greedily, as Python's textwrap does, must be unwrapped wholly, at
// every width from 40 to 120 characters. Random paragraphs are compared with a second
// implementation of the header's rules; their lines have the lengths where the rules change. Texts
// whose line breaks mean something are left alone. All lengths are exact, so nothing has a
// tolerance.
#include "memory/text/unwrap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "memory/text/sentences.h"
#include "tests/support/toy_text.h"
#include "tests/support/wrapped_text.h"

namespace longhold {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::string Unwrapped(std::string text, bool from_start = true) {
  UnwrapLines(&text, from_start);
  return text;
}

// All line ends of `text`, which are "\n", as spaces.
std::string OnOneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

std::string WithCarriageReturns(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '\n' ? "\r\n" : std::string(1, c);
  return out;
}

// Four words, of `size` characters in all.
std::string Words4(size_t size) { return "a b c " + std::string(size - 6, 'd'); }

// Characters of the longest line.
size_t LongestLine(std::string_view text) {
  size_t longest = 0;
  for (const std::string_view line : LinesOf(text)) longest = std::max(longest, CharactersIn(line));
  return longest;
}

// Greedy lines of `width` at most, of which one has at least 40 characters, as the header asks for.
std::string WrappedParagraph(std::mt19937_64& rng, size_t width, size_t lines_min,
                             std::string_view first = "", std::string_view other = "") {
  std::string text;
  for (;;) {
    text += (text.empty() ? "" : " ") + WordySentence(rng, 5 + rng() % 25);
    const std::string wrapped = Wrapped(text, width, first, other);
    if (LinesOf(wrapped).size() >= lines_min && LongestLine(wrapped) >= 40) return wrapped;
  }
}

// ---- Lines

TEST(LinesOf, ALineEndAtTheEndBeginsNoLine) {
  EXPECT_THAT(LinesOf(""), IsEmpty());
  EXPECT_THAT(LinesOf("a"), ElementsAre("a"));
  EXPECT_THAT(LinesOf("a\n"), ElementsAre("a"));
  EXPECT_THAT(LinesOf("a\n\n b \nc"), ElementsAre("a", "", " b ", "c"));
  EXPECT_THAT(LinesOf("\n\n"), ElementsAre("", ""));
}

// TextUnits and UnwrapLines compute a line's place from it.
TEST(LinesOf, AreViewsOfTheText) {
  const std::string text = "one\n\nthree\n";
  for (const std::string_view line : LinesOf(text)) {
    EXPECT_GE(line.data(), text.data());
    EXPECT_LE(line.data() + line.size(), text.data() + text.size());
  }
}

TEST(WithoutTrailingSpace, KeepsTheSpaceBeforeWords) {
  EXPECT_EQ(WithoutTrailingSpace(" a b \t\r"), " a b");
  EXPECT_EQ(WithoutTrailingSpace(" \t\r\n"), "");
  EXPECT_EQ(WithoutTrailingSpace(""), "");
}

// ---- Wrapped text

TEST(UnwrapLines, JoinsEveryLineOfGreedilyWrappedText) {
  for (size_t width = 40; width <= 120; ++width) {
    std::mt19937_64 rng(width);
    std::string text, expected;
    for (int p = 0; p < 8; ++p) {
      const std::string_view indent = p % 3 == 1 ? "    " : "", hang = p % 3 == 2 ? "  " : "";
      const std::string paragraph = WrappedParagraph(rng, width, 3 + rng() % 10, indent, hang);
      const std::string blank = p % 2 == 0 ? "\n\n" : "\n\n\n";
      text += paragraph + blank;
      expected += OnOneLine(paragraph) + blank;
    }
    ASSERT_EQ(Unwrapped(text), expected) << "width " << width;
    ASSERT_EQ(Unwrapped(expected), expected) << "width " << width << ", a second time";
  }
}

TEST(UnwrapLines, JoinsWrappedTextWithCarriageReturns) {
  for (size_t width = 40; width <= 120; width += 5) {
    std::mt19937_64 rng(width);
    const std::string paragraph = WrappedParagraph(rng, width, 3);
    const std::string text = WithCarriageReturns(paragraph + "\n\n" + paragraph + "\n");
    std::string got = Unwrapped(text);
    EXPECT_EQ(got.size(), text.size());
    std::erase(got, '\r');
    EXPECT_EQ(got, OnOneLine(paragraph) + "\n\n" + OnOneLine(paragraph) + "\n");
  }
}

// The last line's "\r" counts as a part of its only word: the line before it had no room for it.
TEST(UnwrapLines, ACarriageReturnIsNoPartOfAWord) {
  const std::string text = Words4(70) + "\n" + Words4(66) + "\nend\n";
  ASSERT_EQ(Unwrapped(text), text) << "66 + 1 + 3 characters have room";
  EXPECT_EQ(Unwrapped(WithCarriageReturns(text)), WithCarriageReturns(text));
}

// A window of the document may begin anywhere. At least five lines of the paragraph are left, and
// they still show that it was wrapped at 40 characters or more.
TEST(UnwrapLines, JoinsWrappedTextThatBeginsInsideALine) {
  for (size_t width = 40; width <= 120; width += 10) {
    std::mt19937_64 rng(width);
    const std::string text = WrappedParagraph(rng, width, 7) + "\n\nNext\nshort\nlines\n";
    const size_t third = text.find('\n', text.find('\n') + 1);
    for (size_t begin = 1; begin < third; ++begin) {
      const std::string cut = text.substr(begin);
      const size_t end = cut.find("\n\n");
      if (cut.front() == '\n' || LongestLine(cut.substr(0, end)) < 40) continue;
      ASSERT_EQ(Unwrapped(cut, false), OnOneLine(cut.substr(0, end)) + cut.substr(end)) << begin;
    }
  }
}

TEST(UnwrapLines, JoinsTwoLinesOnlyIfTheFirstIsLongAndEndsNoSentence) {
  const std::string open = Words4(56);
  // 59 and 60 characters
  EXPECT_EQ(Unwrapped(open + " ab\ncd\n"), open + " ab\ncd\n");
  EXPECT_EQ(Unwrapped(open + " abc\ncd\n"), open + " abc cd\n");
  for (const char* end : {".", "!", "?", ".\"", "?)", "。", "！」"}) {
    const std::string text = open + " abc" + end + "\ncd\n";
    EXPECT_EQ(Unwrapped(text), text);
  }
  EXPECT_EQ(Unwrapped(open + " abc,\ncd\n"), open + " abc, cd\n");
  // room for the second line's first word, of two characters: the longest line has 62 or 63
  EXPECT_EQ(Unwrapped(open + " abc\ncd " + std::string(60, 'y')),
            open + " abc\ncd " + std::string(60, 'y'));
  EXPECT_EQ(Unwrapped(open + " abc\ncd " + std::string(59, 'y')),
            open + " abc cd " + std::string(59, 'y'));
}

TEST(UnwrapLines, TheLongestLineHas40To120Characters) {
  for (const size_t width : {39u, 40u, 120u, 121u}) {
    // "é" has two bytes: characters count.
    const std::string line = "é" + Words4(width - 1);
    const std::string text = line + "\n" + line + " \t\n" + line + "\n";
    EXPECT_EQ(Unwrapped(text) != text, width >= 40 && width <= 120) << width;
  }
}

TEST(UnwrapLines, AWordThatHadRoomBeginsALineOfItsOwn) {
  const std::string full = Words4(50), last = "word " + Words4(45);
  for (const size_t room : {5u, 6u, 7u, 8u}) {
    // The third line leaves `room` characters; " word" takes five. Three of its four breaks wrap.
    const std::string text =
        full + "\n" + full + "\n" + Words4(50 - room) + "\n" + last + "\n" + full + "\n";
    std::string expected = OnOneLine(text.substr(0, text.size() - 1)) + "\n";
    expected[text.find("\nword")] = '\n';
    EXPECT_EQ(Unwrapped(text), expected) << room;
  }
  const std::string text =
      full + "\n" + full + "\n" + Words4(46) + "\n" + last + "\n" + full + "\n";
  EXPECT_EQ(Unwrapped(text), OnOneLine(text.substr(0, text.size() - 1)) + "\n") << "no room";
}

TEST(UnwrapLines, ThreeQuartersOfTheBreaksMustWrap) {
  const std::string full = Words4(60), half = Words4(30);
  const auto text_of = [&](size_t wrapping, size_t breaks) {
    std::string text;
    for (size_t b = 0; b < breaks; ++b)
      text += "word " + (b < breaks - wrapping ? half : full) + "\n";
    return text + "word end\n";
  };
  for (size_t breaks = 2; breaks <= 16; ++breaks) {
    for (size_t wrapping = 1; wrapping <= breaks; ++wrapping) {
      const std::string text = text_of(wrapping, breaks);
      EXPECT_EQ(Unwrapped(text) != text, 4 * wrapping >= 3 * breaks)
          << wrapping << " of " << breaks;
    }
  }
}

TEST(UnwrapLines, AThirdOfTheWrappingBreaksAreFollowedByASmallLetter) {
  for (size_t breaks = 2; breaks <= 12; ++breaks) {
    for (size_t small = 0; small <= breaks; ++small) {
      // Also the last ones are small, in every other text.
      for (const bool last : {true, false}) {
        std::string text = Words4(70) + "\n";
        for (size_t b = 0; b < breaks; ++b)
          text += ((last ? breaks - 1 - b : b) < small ? "and " : "And ") + Words4(66) + "\n";
        EXPECT_EQ(Unwrapped(text) != text, 3 * small >= breaks) << small << " of " << breaks;
      }
    }
  }
}

// Three of four breaks wrap. The other one does not count, whatever follows it.
TEST(UnwrapLines, OnlyWrappingBreaksAreAskedForASmallLetter) {
  const auto text_of = [](const std::string& wrapped, const std::string& had_room) {
    return Words4(70) + "\nAnd " + Words4(66) + "\n" + wrapped + Words4(20) + "\n" + had_room +
           Words4(66) + "\nAnd " + Words4(60) + "\n";
  };
  EXPECT_NE(Unwrapped(text_of("and ", "And ")), text_of("and ", "And ")) << "one of three";
  EXPECT_EQ(Unwrapped(text_of("And ", "and ")), text_of("And ", "and ")) << "none of three";
}

TEST(UnwrapLines, MarksMayStandBeforeTheSmallLetter) {
  for (const char* first : {"and",     "\"and",  "'and",   "(and",  "[and",  "*and",      "_and",
                            "**and",   "(\"and", "élan",   "über",  "ßa",    "ñu",        "ωδή",
                            "# and",   "! and",  "// and", "> and", "* and", "    * and", ";; and",
                            "> \"and", "# élan", "και",    "σε",    "и",     "река",      "яма"}) {
    const std::string text = Words4(70) + "\n" + first + " " + Words4(60) + "\n";
    EXPECT_EQ(Unwrapped(text), OnOneLine(text.substr(0, text.size() - 1)) + "\n") << first;
  }
  for (const char* first : {"And",   "\"And", "(And",  "7",      "-",    "|",     "\"",  "[1]",
                            "# And", "#and",  "//and", "// And", "> 7",  "* And", "# -", "É",
                            "Über",  "Ωδή",   "Και",   "И",      "Река", "Яма",   "東",  "…"}) {
    const std::string text = Words4(70) + "\n" + first + " " + Words4(60) + "\n";
    EXPECT_EQ(Unwrapped(text), text) << first;
  }
}

TEST(UnwrapLines, ALineThatWrapsHasFourWords) {
  const std::string three = "b c " + std::string(66, 'd');  // 70 characters
  for (const std::string& line : {three, "  " + three.substr(2), std::string(70, 'x'),
                                  "b c " + std::string(60, 'd') + " é."}) {
    const size_t words = line.ends_with('.') ? 4 : 3;
    const std::string text = line + "\n" + line + "\n" + line + "\n";
    EXPECT_EQ(Unwrapped(text) != text, words >= 4) << text;
  }
  // One of four breaks follows a line of three words: it stays, the others go.
  const std::string four = Words4(70);
  const std::string text = four + "\n" + three + "\n" + four + "\n" + four + "\n" + four + "\n";
  std::string expected = OnOneLine(text.substr(0, text.size() - 1)) + "\n";
  expected[141] = '\n';
  EXPECT_EQ(Unwrapped(text), expected);
  // Two of four: too many.
  const std::string more = four + "\n" + three + "\n" + four + "\n" + three + "\n" + four + "\n";
  EXPECT_EQ(Unwrapped(more), more);
}

// Comments and quotations begin each line with a mark. It takes no room away from the word.
TEST(UnwrapLines, JoinsWrappedCommentsAndQuotations) {
  for (const char* mark : {"// ", "# ", "> ", " * ", "    # ", "/// ", "; "}) {
    for (size_t width = 50; width <= 110; width += 6) {
      std::mt19937_64 rng(width);
      const std::string text = WrappedParagraph(rng, width, 5, mark, mark);
      EXPECT_EQ(Unwrapped(text + "\n"), OnOneLine(text) + "\n") << mark;
    }
  }
}

// ---- Lines that go on outside the text

// The first line is short, or has few words, because its begin is missing: its break goes with the
// others. In a text that begins with it, it had room.
TEST(UnwrapLines, ACutFirstLineGoesWithTheOthers) {
  const std::string line = Words4(70), rest = line + "\n" + line + "\n" + line + "\n";
  for (const char* first : {"", " ", "x", "end of it", "of the line.", "an end of a line"}) {
    const std::string text = std::string(first) + "\n" + rest;
    EXPECT_EQ(Unwrapped(text, false), OnOneLine(text.substr(0, text.size() - 1)) + "\n") << first;
    EXPECT_EQ(Unwrapped(text, true)[std::string(first).size()], '\n') << first;
  }
  // Where the others are no wrapped ones, it stays as well.
  for (const char* first : {"x", "a line of more words than four", "and "}) {
    const std::string text =
        std::string(first) + "\n" + Words4(30) + "\n" + Words4(50) + "\n" + Words4(30) + "\n";
    EXPECT_EQ(Unwrapped(text, false), text) << first;
  }
}

// A text that begins with the line end of a cut line does not begin with a blank line.
TEST(UnwrapLines, ALineOfWhichOnlyItsEndIsLeftIsNotBlank) {
  const std::string line = Words4(50);
  const std::string text = "\n" + line + "\n" + line + "\n" + line;
  EXPECT_EQ(Unwrapped(text, false), OnOneLine(text));
}

// It is not among the breaks of which three quarters must wrap: one of these is too short.
TEST(UnwrapLines, ACutFirstLineIsNotJudged) {
  const std::string line = Words4(70);
  const std::string text =
      line + "\n" + line + "\n" + line + "\n" + Words4(20) + "\n" + line + "\n";
  ASSERT_NE(Unwrapped(text, true), text) << "three of four";
  EXPECT_EQ(Unwrapped(text, false), text) << "two of three";
  // Nor is it the one break of two lines.
  EXPECT_NE(Unwrapped(line + "\nand more\n", true), line + "\nand more\n");
  EXPECT_EQ(Unwrapped(line + "\nand more\n", false), line + "\nand more\n");
}

// More is asked of the only break that is judged, also where others are at cut lines.
TEST(UnwrapLines, OneJudgedBreakNeeds60CharactersAndNoSentenceEnd) {
  for (const bool cut_first : {true, false}) {
    for (const bool cut_last : {true, false}) {
      const auto joins = [&](const std::string& line) {
        const std::string text =
            std::string(cut_first ? "tail\n" : "") + line + (cut_last ? "\nfour\nwor" : "\nfour\n");
        const std::string got = Unwrapped(text, !cut_first);
        EXPECT_TRUE(got == text || OnOneLine(got) == OnOneLine(text));
        return got.find(line + " four") != std::string::npos;
      };
      EXPECT_TRUE(joins(Words4(60))) << cut_first << cut_last;
      EXPECT_FALSE(joins(Words4(59))) << cut_first << cut_last;
      EXPECT_FALSE(joins(Words4(60) + ".")) << cut_first << cut_last;
      EXPECT_TRUE(joins(Words4(60) + ",")) << cut_first << cut_last;
    }
  }
}

// The text ends inside the first word of a line, for which the line before it seems to have room.
TEST(UnwrapLines, ACutLastWordGoesWithTheOthers) {
  const std::string line = Words4(70), most = line + "\n" + line + "\n" + line + "\n" + Words4(60);
  for (const char* word : {"w", "wor", "W", "1", "word-for-word-"}) {
    const std::string text = most + "\n" + word;
    EXPECT_EQ(Unwrapped(text), OnOneLine(text)) << word;
  }
  // A whole line of one word, and a cut line whose first word is whole, had room.
  for (const char* whole : {"\nword\n", "\nword an"}) {
    const std::string text = most + whole;
    const std::string got = Unwrapped(text);
    EXPECT_NE(got, text) << "three of four breaks wrap" << whole;
    EXPECT_EQ(got[most.size()], '\n') << whole;
  }
  // It cannot show alone that its paragraph was wrapped.
  EXPECT_EQ(Unwrapped(line + "\nwor"), line + "\nwor");
  // Nor behind a cut first line.
  EXPECT_EQ(Unwrapped("tail\n" + line.substr(0, 50) + "\nwor", false),
            "tail\n" + line.substr(0, 50) + "\nwor");
}

// ---- Prose of several languages

// German, with a capital on each noun, is the hardest for the rule of small letters: at one of the
// widths only one line of six begins with a small one.
TEST(UnwrapLines, JoinsWrappedProseOfSeveralLanguages) {
  const std::vector<std::string> texts = {
      "When the lake had frozen over, the people of the village used to cross it on foot, for the "
      "road around the northern shore was long and seldom cleared of snow. Maria remembered that "
      "her grandfather had once carried a clock over the ice, wrapped in two blankets, because the "
      "clockmaker lived on the other side and would not come. He had walked slowly and listened at "
      "every step, and in the evening the clock stood on the shelf again and was two minutes late.",
      "Wenn der See zugefroren war, gingen die Leute aus dem Dorf gewöhnlich zu Fuß hinüber, denn "
      "die Straße am nördlichen Ufer war lang und wurde nur selten vom Schnee befreit. Maria "
      "wusste "
      "noch, dass ihr Großvater einmal eine Uhr über das Eis getragen hatte, in zwei Decken "
      "gewickelt, weil der Uhrmacher auf der anderen Seite wohnte und nicht kommen wollte. Er war "
      "langsam gegangen und hatte bei jedem Schritt gelauscht, und am Abend stand die Uhr wieder "
      "auf dem Brett und ging zwei Minuten nach.",
      "Когда озеро замерзало, люди из деревни обычно переходили его пешком, потому что дорога "
      "вдоль "
      "северного берега была длинной и её редко чистили от снега. Мария помнила, что её дедушка "
      "однажды перенёс через лёд часы, завёрнутые в два одеяла, так как часовщик жил на другой "
      "стороне и не хотел приходить. Он шёл медленно и прислушивался на каждом шагу, а вечером "
      "часы "
      "снова стояли на полке и отставали на две минуты.",
      "Όταν πάγωνε η λίμνη, οι άνθρωποι του χωριού συνήθιζαν να την περνούν με τα πόδια, γιατί ο "
      "δρόμος γύρω από τη βόρεια όχθη ήταν μακρύς και σπάνια τον καθάριζαν από το χιόνι. Η Μαρία "
      "θυμόταν ότι ο παππούς της είχε κάποτε μεταφέρει ένα ρολόι πάνω στον πάγο, τυλιγμένο σε δύο "
      "κουβέρτες, επειδή ο ρολογάς ζούσε στην άλλη πλευρά και δεν ήθελε να έρθει. Περπατούσε αργά "
      "και άκουγε σε κάθε βήμα, και το βράδυ το ρολόι στεκόταν πάλι στο ράφι."};
  for (size_t t = 0; t < texts.size(); ++t) {
    for (size_t width = 48; width <= 110; ++width) {
      const std::string text = Wrapped(texts[t], width);
      const std::string& expected = t == 1 && width == 81 ? text : texts[t];
      EXPECT_EQ(Unwrapped(text + "\n\n" + text + "\n"), expected + "\n\n" + expected + "\n")
          << "text " << t << " width " << width;
    }
  }
}

// ---- The header's rules, again

// Which first words of DoesWhatItsHeaderSays begin with a small letter.
constexpr std::array<std::string_view, 3> kSmall = {"x", "é", "д"}, kCapital = {"X", "É", "Д"};

struct CutParagraph {
  std::vector<std::string> lines;
  bool first_is_cut, last_is_cut;
};

// Whether a break of the paragraph wraps it, for all but the last line; none where the paragraph is
// not wrapped. The text has "\n" and spaces only.
std::vector<bool> WrapsByTheHeader(const CutParagraph& p) {
  const auto words = [](const std::string& line) {
    std::istringstream in(line);
    return std::vector<std::string>(std::istream_iterator<std::string>(in), {});
  };
  const auto trimmed = [](const std::string& l) {
    return l.substr(0, l.find_last_not_of(' ') + 1);
  };
  std::vector<bool> wraps(p.lines.size() - 1, false);
  size_t longest = 0;
  for (const std::string& line : p.lines) longest = std::max(longest, CharactersIn(trimmed(line)));
  size_t judged = 0, count = 0, small = 0;
  bool stops = false;  // the last judged line is short, or ends a sentence
  for (size_t i = 0; i + 1 < p.lines.size(); ++i) {
    const std::string line = trimmed(p.lines[i]);
    const std::vector<std::string> next = words(p.lines[i + 1]);
    // Of a cut last line, the first word is whole if there is another.
    const bool free =
        (p.first_is_cut && i == 0) || (p.last_is_cut && i + 2 == p.lines.size() && next.size() < 2);
    wraps[i] = free;
    if (free) continue;
    wraps[i] = words(line).size() >= 4 && CharactersIn(line + " " + next[0]) > longest;
    ++judged;
    stops = CharactersIn(line) < 60 || EndsSentence(line);
    if (!wraps[i]) continue;
    ++count;
    for (const std::string_view s : kSmall) small += next[0].starts_with(s) ? 1 : 0;
  }
  const bool wrapped = longest >= 40 && longest <= 120 && count > 0 && 4 * count >= 3 * judged &&
                       3 * small >= count && !(judged == 1 && stops);
  return wrapped ? wraps : std::vector<bool>(wraps.size(), false);
}

std::string ByTheHeader(const std::string& text, bool from_start) {
  std::string out;
  CutParagraph paragraph{{}, !from_start, false};
  const auto flush = [&] {
    if (!paragraph.lines.empty()) {
      const std::vector<bool> wraps = WrapsByTheHeader(paragraph);
      for (size_t i = 0; i < paragraph.lines.size(); ++i)
        out += paragraph.lines[i] + (i < wraps.size() && wraps[i] ? " " : "\n");
    }
    paragraph = {{}, false, false};
  };
  for (size_t at = 0; at < text.size();) {
    const bool may_be_blank = at > 0 || from_start;
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    if (may_be_blank && Trimmed(line).empty()) {
      flush();
      out += line + "\n";
    } else {
      paragraph.lines.push_back(line);
      paragraph.last_is_cut = end == text.size();
    }
  }
  flush();
  out.resize(text.size());  // a text may end without a newline
  return out;
}

TEST(UnwrapLines, DoesWhatItsHeaderSays) {
  size_t joined = 0, kept = 0;
  for (uint64_t seed = 0; seed < 6000; ++seed) {
    std::mt19937_64 rng(seed);
    std::string text;
    while (text.size() < 600) {
      const size_t lines = 1 + rng() % 7;
      const size_t width =
          std::vector<size_t>{38, 39, 40, 41, 59, 60, 61, 90, 119, 120, 121}[rng() % 11];
      // So that lines have about four words, or many
      const size_t letters = rng() % 2 == 0 ? 8 : width / 2;
      const size_t small_of_4 = 1 + rng() % 4;
      for (size_t l = 0; l < lines; ++l) {
        // Mostly near the width, so that both answers are frequent.
        const size_t size = rng() % 6 == 0 ? 1 + rng() % width : width - rng() % 6;
        std::string line = rng() % 8 == 0 ? "  " : "";
        while (CharactersIn(line) < size) {
          line += (rng() % 4 < small_of_4 ? kSmall : kCapital)[rng() % 3];
          line += std::string(rng() % letters, 'x') + (rng() % 4 == 0 ? "é " : " ");
        }
        while (CharactersIn(line) > size) line.pop_back();
        if (rng() % 6 == 0) line += '.';
        if (Trimmed(line).empty()) line += "x";
        text += line + (rng() % 9 == 0 ? "  \n" : "\n");
      }
      text += rng() % 3 == 0 ? " \n" : "\n";
    }
    // The text may end with a line, in white space, or inside a word.
    text.resize(text.find_last_not_of(" \n") + 1);
    if (seed % 3 == 0)
      text += "\n";
    else if (seed % 3 == 1)
      text += "\nx";
    for (const bool from_start : {true, false}) {
      const std::string part = from_start ? text : text.substr(rng() % 100);
      const std::string expected = ByTheHeader(part, from_start);
      ASSERT_EQ(Unwrapped(part, from_start), expected) << "seed " << seed << "\n" << part;
      (expected == part ? kept : joined) += 1;
    }
  }
  EXPECT_GT(joined, 1000u);
  EXPECT_GT(kept, 1000u);
}

// Whatever the text and wherever it begins: only line ends inside paragraphs change, into spaces.
TEST(UnwrapLines, ChangesNothingButLineEndsInsideParagraphs) {
  size_t changes = 0;
  for (uint64_t seed = 0; seed < 600; ++seed) {
    std::mt19937_64 rng(seed);
    std::string text = seed % 3 == 0 ? RandomText(1 + rng() % 2000, seed) : std::string();
    while (text.size() < 1000 && seed % 3 != 0)
      text += rng() % 4 == 0 ? std::string(1, static_cast<char>(rng() % 256))
                             : Words4(rng() % 4 == 0 ? 20 + rng() % 60 : 79) + "\n";
    for (const bool from_start : {true, false}) {
      const std::string got = Unwrapped(text, from_start);
      ASSERT_EQ(got.size(), text.size());
      for (size_t i = 0; i < text.size(); ++i) {
        if (got[i] == text[i]) continue;
        ASSERT_EQ(text[i], '\n');
        ASSERT_EQ(got[i], ' ');
        ++changes;
        const auto blank = [](std::string_view l) { return Trimmed(l).empty(); };
        const size_t before = i == 0 ? std::string::npos : text.rfind('\n', i - 1);
        const size_t line = before == std::string::npos ? 0 : before + 1;
        // What is left of a cut line may be white space.
        ASSERT_FALSE(blank(std::string_view(text).substr(line, i - line)) &&
                     (line > 0 || from_start));
        const size_t next = std::min(text.find('\n', i + 1), text.size());
        ASSERT_FALSE(blank(std::string_view(text).substr(i + 1, next - i - 1)));
      }
    }
  }
  EXPECT_GT(changes, 100u);
  for (const char* text : {"", "\n", "\n\n\n", " ", "x", "\r\n\r\n"}) {
    EXPECT_EQ(Unwrapped(text), text);
    EXPECT_EQ(Unwrapped(text, false), text);
  }
}

// ---- Texts whose line breaks mean something

void ExpectLeftAlone(const std::vector<std::string>& texts) {
  for (const std::string& text : texts) EXPECT_EQ(Unwrapped(text), text);
}

TEST(UnwrapLines, LeavesCodeAlone) {
  ExpectLeftAlone({
      R"(// The line that holds the byte, without its newline. Of an empty text the line is empty, too.
std::string_view LineAt(std::string_view text, size_t byte) {
  const size_t before = text.rfind('\n', byte);
  const size_t begin = before == std::string_view::npos ? 0 : before + 1;
  return text.substr(begin, text.find('\n', byte) - begin);
}
)",
      R"(class Shelf:
    """A shelf of books, ordered by their titles and nothing else."""

    def add(self, book):
        if book.title in self.titles:
            raise ValueError("there is a book of that title already")
        self.titles.add(book.title)
        self.books.append(book)

    def __len__(self):
        return len(self.books)
)",
      R"(#include <algorithm>
#include <string>
#include <unordered_map>

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::printf("%s\n", argv[i]);
  }
  return 0;
}
)"});
}

TEST(UnwrapLines, LeavesConversationsAndVersesAlone) {
  ExpectLeftAlone({
      R"(Caroline: I went to the market yesterday, and guess whom I met there
Melanie: no idea
Caroline: your old teacher of music, she sends her regards to all of us
Melanie: how nice! Is she well?
Caroline: Very.
Melanie: I should write to her one of these days, before the winter comes
)",
      R"(Ge1:1 In the beginning God created the heaven and the earth.
Ge1:3 And God said, Let there be light: and there was light.
Ge1:4 And God saw the light, that it was good: and God divided the light from the darkness.
Ge1:8 And God called the firmament Heaven. And the evening and the morning were the second day.
Ge1:13 And the evening and the morning were the third day.
)",
      R"(Tyger Tyger, burning bright,
In the forests of the night;
What immortal hand or eye,
Could frame thy fearful symmetry?
)",
      R"(Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date;
)"});
}

TEST(UnwrapLines, LeavesListsAndTablesAlone) {
  ExpectLeftAlone({
      R"(- Buy two litres of milk and a loaf of bread at the corner shop
- Ask Maria about the blue folder
- Call the dentist about the appointment on Tuesday afternoon
- Water the plants
)",
      R"(1. Open the lid with the key that hangs beside the door.
2. Pour the water in.
3. Close the lid and wait until the lamp burns green again.
4. Press the button.
)",
      R"(| name | amount | remark |
|---|---|---|
| flour | 500 g | sieved twice, the second time right into the bowl |
| butter | 250 g | cold |
| sugar | 100 g | fine; icing sugar will do |
)",
      R"(name,street,city
Anna Schmidt,Lindenweg 4,Berlin
Béla Kovács,Hauptstrasse 127,Hamburg-Altona
Carla Ortiz,Marktplatz 1,Kiel
)",
      R"(flour   500 g
butter  250 g
sugar   100 g
)"});
}

// Windows of a few lines, as SentenceAt reads them: the first line is free, and the second is the
// longest, so that no word had room behind it. Three lines of any kind are joined.
TEST(UnwrapLines, LeavesThreeLinesOfAnyLengthAloneInsideAText) {
  const std::string text =
      "closed the file\nopened the file /home/anna/notes/lake.txt for reading\nclosed the file\n";
  ASSERT_EQ(Unwrapped(text, true), text);
  EXPECT_EQ(Unwrapped(text, false), text);
}

// Rows of even width leave no room for the next row's first word, whatever that is. Rows without
// spaces are one word each.
TEST(UnwrapLines, LeavesRowsOfEvenWidthAlone) {
  ExpectLeftAlone({
      R"(| name       | amount | unit  | remark       |
|------------|--------|-------|--------------|
| flour      | 500    | g     | sieved       |
| butter     | 250    | g     | cold         |
)",
      R"(2024-03-01T10:00:00Z,4711,Berlin,Hamburg,289.5,ok
2024-03-01T11:00:00Z,4712,Hamburg,Kiel,97.1,ok
2024-03-01T12:00:00Z,4713,Kiel,Flensburg,88.0,late
)",
      R"(2024-03-01T10:00:00Z server started on port 8080
2024-03-01T10:00:07Z opened memory tales read-only
2024-03-01T10:01:12Z stored document notes/lake.txt
2024-03-01T10:02:40Z question answered in 312 ms
)",
      R"(-rw-r--r-- 1 anna staff   4711 Mar  1 10:00 index.html
-rw-r--r-- 1 anna staff    812 Mar  1 10:00 style.css
-rw-r--r-- 1 anna staff  23017 Mar  1 10:00 logo.png
)",
      R"(total 24
drwxr-xr-x 2 anna staff   4096 Mar  1 10:00 letters
-rw-r--r-- 1 anna staff  23017 Mar  1 10:00 the lake.png
-rw-r--r-- 1 anna staff    812 Mar  1 10:00 style.css
)",
      R"(Mar  1 10:00:00 harbour kernel: eth0 link is up at 1000 Mbps
Mar  1 10:00:07 harbour longholdd: opened memory tales at once
Mar  1 10:01:12 harbour longholdd: stored document lake for ever
)",
      R"([10:00:00] the server has been started on the usual port
[10:00:07] the memory of tales was opened for readers only
[10:01:12] a document about a lake was stored for ever now
)",
      R"(https://example.org/articles/2023/the-lake-in-winter.html
https://example.org/articles/2023/the-mill-by-the-bridge.html
https://example.org/articles/2024/a-short-history-of-salt.html
)"});
}

TEST(UnwrapLines, LeavesTurnsOfEvenLengthAlone) {
  ExpectLeftAlone({
      R"(Alice: I went to the market yesterday and bought some apples
Bob: Did you also find the honey that we were looking for
Alice: No
)",
      R"(Alice: so what do you think about the new plan for the garden
Bob: fine
)",
      R"("I have walked over the ice with the clock," said he at last.
"And did it hold?" asked Maria, who had listened all the while.
"It did, but I heard it crack at every step," said the old man.
)"});
}

TEST(UnwrapLines, LeavesPoemsWithEvenLinesAlone) {
  ExpectLeftAlone({R"(Of Man's first disobedience, and the fruit
Of that forbidden tree whose mortal taste
Brought death into the World, and all our woe,
With loss of Eden, till one greater Man
Restore us, and regain the blissful Seat,
)",
                   R"(Sage mir, Muse, die Taten des vielgewanderten Mannes,
Welcher so weit geirrt nach der heiligen Troja Zerstörung,
Vieler Menschen Städte gesehn und Sitte gelernt hat,
Und auf dem Meere so viel unnennbare Leiden erduldet,
)",
                   R"(Гнев, богиня, воспой Ахиллеса, Пелеева сына,
Грозный, который ахеянам тысячи бедствий соделал:
Многие души могучие славных героев низринул
В мрачный Аид и самих распростер их в корысть плотоядным
)"});
}

// A script without spaces: each line is one word, for which the line before never has room. Here
// each line is a paragraph, as in most Chinese texts, and a turn of a conversation.
TEST(UnwrapLines, LeavesLinesWithoutSpacesAlone) {
  ExpectLeftAlone(
      {"第一天早上，院子里的桃花都开了，老人坐在门口看着孩子们跑来跑去，心里觉得非常高兴。\n"
       "第二天早上，他又到河边去看那条小船，船还在那里，可是桨不见了，他找了很久也没找到。\n"
       "第三天下雨，谁也没有出门，大家围着火炉听老人讲从前的故事，一直讲到半夜才去睡觉。\n",
       "小明：你昨天为什么没有来参加我们在图书馆三楼举行的那个读书会呢，大家等了差不多一个小时\n"
       "小红：对不起，我昨天下午一直在医院陪我的妈妈，手机也没有电了，所以没有办法告诉你们\n"
       "小明：没关系，希望你妈妈早日康复，下一次读书会是下个星期六下午两点，地点还是图书馆三楼\n"});
}

}  // namespace
}  // namespace longhold
