// Texts that were wrapped to a width, and texts with tokens as byte-level BPE has them. Both are
// made here, without the code under test.
#pragma once

#include <algorithm>
#include <cctype>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "memory/text/passages.h"

namespace longhold {

// Characters of UTF-8 text.
inline size_t CharactersIn(std::string_view text) {
  size_t characters = 0;
  for (const char c : text) characters += (static_cast<unsigned char>(c) >> 6) != 2 ? 1 : 0;
  return characters;
}

// `text` on lines of at most `width` characters, as Python's textwrap.fill makes them: a line takes
// words while there is room, and a word may be broken behind a hyphen. `text` has single spaces and
// no line breaks, and no part between these is wider. `first` and `other` begin the first line and
// all others. No newline at the end.
inline std::string Wrapped(std::string_view text, size_t width, std::string_view first = "",
                           std::string_view other = "") {
  std::vector<std::string> chunks;  // a space, or a part of a word
  for (size_t at = 0; at < text.size();) {
    size_t end = at + 1;
    if (text[at] != ' ') {
      while (end < text.size() && text[end] != ' ' && text[end - 1] != '-') ++end;
    }
    chunks.emplace_back(text.substr(at, end - at));
    at = end;
  }
  std::string out, line(first);
  size_t used = CharactersIn(line);
  bool empty = true;
  for (const std::string& chunk : chunks) {
    if (!empty && used + CharactersIn(chunk) > width) {
      out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
      line = other;
      used = CharactersIn(line);
      empty = true;
    }
    if (empty && chunk == " ") continue;
    line += chunk;
    used += CharactersIn(chunk);
    empty = false;
  }
  return out + line.substr(0, line.find_last_not_of(' ') + 1);
}

// A sentence of `words` words, without line breaks, that ends with a full stop. Some words have
// hyphens, characters of two bytes, or a comma behind them.
inline std::string WordySentence(std::mt19937_64& rng, size_t words) {
  static const std::vector<std::string> kWords = {
      "river", "a",     "of",      "well-known", "elder",     "flock", "désert",
      "tent",  "the",   "servant", "altar",      "brothers,", "и",     "страна",
      "as",    "stone", "long",    "\"camel\"",  "wherefore", "in",    "far-off"};
  std::string text = "Now";
  for (size_t w = 1; w < words; ++w) text += " " + kWords[rng() % kWords.size()];
  return text + ".";
}

// Tokens as in byte-level BPE: words with the space before them, runs of spaces, and single other
// characters. A line end is one token, also where it is "\r\n".
inline TokenText WordTokens(std::string_view text) {
  const auto letter = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || (c & 0x80) != 0;
  };
  TokenText out{std::string(text), {}};
  for (size_t at = 0; at < text.size();) {
    size_t end = at;
    while (end < text.size() && text[end] == ' ') ++end;
    if (text.substr(at).starts_with("\r\n")) {
      end = at + 2;
    } else if (end > at + 1) {
      --end;  // indentation; the last space belongs to the word
    } else {
      const size_t word = end;
      while (end < text.size() && letter(text[end])) ++end;
      if (end == word && end < text.size()) ++end;
    }
    out.token_bytes.push_back(static_cast<uint16_t>(end - at));
    at = end;
  }
  return out;
}

// The text of tokens [begin, end).
inline std::string TextOfTokens(const TokenText& text, size_t begin, size_t end) {
  size_t byte = 0, size = 0;
  for (size_t t = 0; t < end; ++t) (t < begin ? byte : size) += text.token_bytes[t];
  return text.text.substr(byte, size);
}

// Without white space at its begin and end.
inline std::string Trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r\n") + 1 - begin));
}

}  // namespace longhold
