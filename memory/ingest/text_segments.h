// Makes the text of a document searchable: its words, and its passages' vectors where there is an
// embedding model. The language model reads nothing for it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "base/status.h"
#include "base/types.h"
#include "memory/core/memory.h"
#include "memory/text/vocabulary.h"

namespace longhold {

// The index segments of the text from the last multiple of kCommitTokens before `end` up to `end`.
// Must hold: 0 < end <= the document's tokens. Errors: data_loss (its text), the embedder's.
Result<TextSegmentPair> BuildTextSegments(Memory& memory, const LexicalVocabulary& vocabulary,
                                          DocumentId document, uint64_t end);

// Makes the document searchable from where an earlier call was interrupted. A segment at a time is
// committed; when `stop` becomes true, the call ends after the segment. `on_segment` (may be empty)
// gets the tokens that are searchable. `retire` as Memory::Commit has it.
Status MakeDocumentSearchable(Memory& memory, const LexicalVocabulary& vocabulary,
                              DocumentId document, const DocumentId* retire,
                              const std::atomic<bool>* stop,
                              const std::function<void(uint64_t tokens)>& on_segment);

}  // namespace longhold
