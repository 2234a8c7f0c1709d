#include "memory/ingest/held_versions.h"

#include <vector>

namespace longhold {

Result<HeldDocument> HoldDocument(Memory& memory, const std::string& name,
                                  const std::string& sha256,
                                  const std::function<Result<DocumentId>(uint32_t version)>& add) {
  HeldDocument held;
  uint32_t version = 1;
  std::vector<DocumentId> abandoned;
  for (const DocumentRecord& d : memory.documents()) {
    if (d.sha256 == sha256 && d.searchable()) {
      const DocumentId id = d.id;
      LH_RETURN_IF_ERROR(memory.AddName(id, name));
      return HeldDocument{.id = id, .searchable = true};
    }
    if (!d.HasName(name)) continue;
    if (d.sha256 == sha256) {
      held.id = d.id;
      held.begun = true;
    } else if (d.searchable()) {
      held.retire = d.id;
      version = d.version + 1;
    } else {
      abandoned.push_back(d.id);
    }
  }
  for (const DocumentId d : abandoned) LH_RETURN_IF_ERROR(memory.Forget(d, name));
  if (!held.begun) {
    LH_ASSIGN_OR_RETURN(held.id, add(version));
  }
  return held;
}

}  // namespace longhold
