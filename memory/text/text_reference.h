// Words of a question that say where the answer stands, not what it is about: "mentioned in the
// provided text".
//
// Such words are of every question alike, and where the text itself has one of them, in its
// introduction say, that place would look like the rarest match of all (docs/decisions/0014).
#pragma once

#include <string_view>
#include <vector>

#include "base/types.h"

namespace longhold {

// The phrases of an English question that refer to the text itself, ascending. A phrase is a
// preposition, an article or "this", words like "provided" and a noun like "text", "passage" or
// "document", perhaps after "mentioned" or the like and before "above" or the like; what follows is
// a mark or the question's end ("in the book of Ruth" is none). Nouns that name things in stories
// too, as "book" or "file", need a word like "provided" or "this". A pure function.
std::vector<ByteSpan> TextReferences(std::string_view question);

}  // namespace longhold
