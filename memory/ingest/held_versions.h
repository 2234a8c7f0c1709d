// What becomes of a text that is to be read, by what the memory holds of its name and content.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/status.h"
#include "base/types.h"
#include "memory/core/memory.h"

namespace longhold {

// Value type.
struct HeldDocument {
  DocumentId id{};
  bool searchable = false;  // nothing is left to index; the document now has the name, too
  bool begun = false;       // an earlier call with the same content was interrupted
  // The document that has the name until this one is searchable (see Memory::Commit).
  std::optional<DocumentId> retire;
};

// The document for content `sha256` under `name`. The same content is never read twice, under
// whatever name: the document that holds it also gets this name, and any other document loses it.
// Unfinished documents of that name whose content has changed since are deleted. Where the content
// is new, `add` adds its document; its argument is the version, 1 for the first of that name.
// Errors: `add`'s, the store's.
Result<HeldDocument> HoldDocument(Memory& memory, const std::string& name,
                                  const std::string& sha256,
                                  const std::function<Result<DocumentId>(uint32_t version)>& add);

}  // namespace longhold
