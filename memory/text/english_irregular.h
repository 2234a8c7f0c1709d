// Irregular English forms and the words they are forms of: "spake" is "speak", "children" are
// "child".
#pragma once

#include <cstddef>
#include <string_view>

namespace longhold {

// The base form of `word` (ASCII, lower case), or an empty view when the table does not know it as
// another word's form. One step: a base form is no entry. Valid for the program's lifetime. Thread
// use: safe to call concurrently.
//
// The table holds inflections alone (number, tense, person; also archaic ones, as books in print
// for centuries are what long memories are made of), never another kind of word ("death" is not a
// form of "die"), and none that is more often another word
// ("left", "wound", "ground", "rent", "lay", "leaves"): a wrong merge costs a rare word its weight,
// a missed one costs little. Its content is part of kLexicalRules.
std::string_view EnglishBaseForm(std::string_view word);

// Forms in the table.
size_t EnglishIrregularCount();

}  // namespace longhold
