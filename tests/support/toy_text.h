// Generated UTF-8 texts for tests. The same seed gives the same text on every machine.
#pragma once

#include <random>
#include <string>
#include <vector>

namespace longhold {

// Words, punctuation, runs of spaces, line ends of several kinds, and characters of one to four
// bytes. At least `bytes` bytes, ending on a whole character. Lines have 1 to some 80 characters;
// some are empty.
inline std::string RandomText(size_t bytes, uint64_t seed) {
  static const std::vector<std::string> kPieces = {
      "the", " the",    " and",     "key", " number", "Isaac", " is",  "ing",      " ",
      "  ",  "   ",     "        ", ". ",  ", ",      "\n",    "\n\n", "\r\n",     "\t",
      "é",   "e\u0301", "日本",     "語",  "Ω",       "ß",     "😀",    "👩\u200d💻", "\u00a0",
      "7",   "1234567", "-",        "\"",  "x",       " a"};
  std::mt19937_64 rng(seed);
  std::string text;
  while (text.size() < bytes) text += kPieces[rng() % kPieces.size()];
  return text;
}

// ASCII lines of words, deterministic and plain: no line repeats another.
inline std::string PlainText(size_t bytes, uint64_t seed) {
  static const std::vector<std::string> kWords = {"river",  "stone", "camel", "elder",   "flock",
                                                  "desert", "tent",  "well",  "servant", "altar"};
  std::mt19937_64 rng(seed);
  std::string text;
  for (size_t line = 1; text.size() < bytes; ++line) {
    text += std::to_string(line) + " ";
    for (uint64_t n = 3 + rng() % 6; n > 0; --n)
      text += kWords[rng() % kWords.size()] + (n == 1 ? ".\n" : " ");
  }
  text.resize(bytes);
  return text;
}

}  // namespace longhold
