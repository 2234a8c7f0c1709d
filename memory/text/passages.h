// Cuts text into passages, and passages into sentences. The passage index embeds them
// (memory/index/passage_segment.h): a passage is what the embedding model reads at once, and each
// of its sentences gets a vector.
//
// A pure function: the same text and tokens give the same cuts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace longhold {

// A passage has this many tokens where the text allows; fewer where that ends it at a better place.
inline constexpr uint32_t kPassageTokensMin = 64, kPassageTokensMax = 128;
// A sentence, a line, or several short ones; a part of a long one. It never crosses a passage's
// edge.
inline constexpr uint32_t kSentenceTokensMin = 8, kSentenceTokensMax = 64;

// Changes with the cuts and with what else of a passage the embedding model reads: stored vectors
// depend on it.
inline constexpr uint32_t kPassageRules = 2;

// Text with its tokens. Value type.
struct TokenText {
  std::string text;
  std::vector<uint16_t> token_bytes;  // [tokens] bytes of `text`; their sum is text.size()
};

// Value type.
struct PassageCuts {
  std::vector<uint32_t> sentences;  // the first token of each, ascending from 0
  std::vector<uint32_t> passages;   // the first sentence of each, ascending from 0
};

// Contiguous passages of contiguous sentences that cover the text; none for no tokens.
//
// Chooses the passages' ends by dynamic programming, so that their total cost is least (as Knuth
// and Plass break paragraphs into lines, Software: Practice and Experience 11, 1981), and then each
// passage's sentences in the same way:
//   cost(piece) = (missing / usual)^2 + (excess / usual)^2 + cost of its end
//   missing     = how many tokens it has fewer than usual: 64 in a passage, 8 in a sentence
//   excess      = how many tokens it has more than usual: 128 in a passage, 32 in a sentence
//   cost of an end = 0 before and after a blank line, before an unindented line after an indented
//                    one, and after an unindented closing bracket (where paragraphs and functions
//                    end); 1 before such a bracket; 0.05 at another line's end, 0.2 at a sentence's
//                    end, 1 at a word's end, 4 inside a word, 8 inside a character. For a sentence,
//                    those up to 0.2 are 0. The line breaks of wrapped paragraphs (unwrap.h) are
//                    spaces
// Of equal costs, the shortest last piece wins.
PassageCuts CutPassagesAndSentences(const TokenText& text);

}  // namespace longhold
