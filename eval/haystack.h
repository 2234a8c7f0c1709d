// The background text in which needles are hidden.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace longhold {

// Value type. Move-only, because `sentences` points into `prose`.
struct Haystack {
  std::string name;      // as the user gave it: "bible", a file, a directory
  std::string verbatim;  // the text with its lines and their labels, for question files
  // The text with white space collapsed, as RULER does with its essays. Verse labels are removed.
  std::string prose;
  std::vector<std::string_view> sentences;  // sentences of `prose`, in order, without separators

  Haystack() = default;
  Haystack(Haystack&&) = default;
  Haystack& operator=(Haystack&&) = default;
  Haystack(const Haystack&) = delete;
  Haystack& operator=(const Haystack&) = delete;
};

// Loads a haystack. `source` is a file, a directory (its .txt, .md and .text files in path order,
// joined by a blank line) or "bible": the output of Debian's program `bible -f gen1:1-rev22:21`.
// Write "./bible" for a file of that name. Errors: not_found (no such file, or no program `bible`;
// the message names the next step), invalid_argument (no text, or not UTF-8), resource_exhausted
// (larger than 1 GiB).
Result<Haystack> LoadHaystack(const std::string& source);
// A haystack from a text in memory. `labels`: each line begins with a label, which `prose` leaves
// out.
Haystack MakeHaystack(std::string name, std::string text, bool labels);

}  // namespace longhold
