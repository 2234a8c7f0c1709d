// Irregular English inflections and their base forms: "spake" is a form of "speak", "children" of
// "child".
#pragma once

#include <cstddef>
#include <string_view>

namespace longhold {

// Returns the base form of `word` (ASCII, lower case). The view is empty when the table does not
// list `word` as an irregular form. One step is enough: no base form is itself an entry. The result
// is valid for the program's lifetime. Thread use: safe to call concurrently.
//
// The table holds only inflections (number, tense, person). It also holds archaic ones, because
// long memories often contain books that were printed centuries ago. It does not hold derived words
// ("death" is not a form of "die"). It also leaves out forms that are more often another word
// ("left", "wound", "ground", "rent", "lay", "leaves"). A wrong merge takes the weight of a rare
// word away; a missing entry costs little. The table's content is part of kLexicalRules.
std::string_view EnglishBaseForm(std::string_view word);

// The number of forms in the table.
size_t EnglishIrregularCount();

}  // namespace longhold
