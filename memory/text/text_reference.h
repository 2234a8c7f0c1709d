// Finds the words of a question that refer to the text itself and not to its subject: "mentioned in
// the provided text".
//
// Such phrases can be part of any question. If the text contains one of their words, in its
// introduction for example, that place would look like a rare and therefore strong match
// (docs/decisions/0014).
#pragma once

#include <string_view>
#include <vector>

#include "base/types.h"

namespace longhold {

// Returns the phrases of an English question that refer to the text itself, ascending. A phrase has
// these parts, in order:
//   - optional: "mentioned" or a similar word
//   - a preposition
//   - an article or "this", words like "provided", or both
//   - a noun like "text", "passage" or "document"
//   - optional: "above" or a similar word
// A punctuation mark or the end of the question must follow: "in the book of Ruth" does not match.
// Nouns that also name things in stories, such as "book" or "file", need a word like "provided" or
// "this". A pure function.
std::vector<ByteSpan> TextReferences(std::string_view question);

}  // namespace longhold
