// The text that needles are hidden in.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace longhold {

// Value type; `sentences` point into `prose`, so it moves but does not copy.
struct Haystack {
  std::string name;      // as the user gave it: "bible", a file, a directory
  std::string verbatim;  // with its lines and their labels, for question files
  // white space collapsed, the Bible's verse labels left out: what RULER does to its essays
  std::string prose;
  std::vector<std::string_view> sentences;  // of `prose`, in order, without the space between them

  Haystack() = default;
  Haystack(Haystack&&) = default;
  Haystack& operator=(Haystack&&) = default;
  Haystack(const Haystack&) = delete;
  Haystack& operator=(const Haystack&) = delete;
};

// `source` is a file, a directory (its .txt, .md and .text files by path, joined by a blank line)
// or "bible": what Debian's program prints for `bible -f gen1:1-rev22:21`. A file named "bible" is
// ./bible. Errors: not_found (no such file, or no program `bible`; the message says what to do),
// invalid_argument (nothing to read in it, not UTF-8 text), resource_exhausted (over 1 GiB).
Result<Haystack> LoadHaystack(const std::string& source);
// Of a text in hand. `labels`: each line begins with a label that is no part of the prose.
Haystack MakeHaystack(std::string name, std::string text, bool labels);

}  // namespace longhold
