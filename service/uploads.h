// Files that clients send in parts, and go on with after a broken connection or a restart of either side, until they are used.
//
// Owner: the `serve` command. Thread use: safe to call concurrently. On the disk: HOME/uploads/ID.LENGTH.TENANT, which holds what has come so far;
// so nothing else needs to be remembered.
#pragma once

#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_descriptor.h"
#include "base/status.h"

namespace longhold {

struct Upload {
  std::string id;            // 32 hexadecimal digits: who does not know them does not find it
  uint64_t length = 0;       // bytes in all
  uint64_t offset = 0;       // bytes that are there
};

class Uploads {
 public:
  explicit Uploads(const std::string& home) : directory_(home + "/uploads") {}

  // Begins one of `length` bytes. Those that nobody has sent to for a day are removed first. All of a tenant's may have `own_bytes_max` bytes; 0: no
  // limit. Errors: invalid_argument (no length, or none that fits), failed_precondition (the tenant's limit, or no room on the disk),
  // resource_exhausted (too many).
  Result<Upload> Create(const std::string& tenant, uint64_t length, uint64_t own_bytes_max = 0);
  std::vector<Upload> List(const std::string& tenant) const;
  // Errors, of these and those below: not_found, also where it is another tenant's.
  Result<Upload> Find(const std::string& id, const std::string& tenant) const;
  // Adds `bytes` behind the first `offset`; they are on the disk when it returns. Errors: failed_precondition (it has another offset, or another
  // part is being added), invalid_argument (more than its length), resource_exhausted; it is as it was then.
  Result<Upload> Append(const std::string& id, const std::string& tenant, uint64_t offset, std::string_view bytes);
  // A whole one, to be read. Errors: failed_precondition where bytes are missing.
  Result<FileDescriptor> Open(const std::string& id, const std::string& tenant) const;
  Status Remove(const std::string& id, const std::string& tenant);

 private:
  struct Entry;
  std::vector<Entry> Entries() const;
  Status FindEntry(const std::string& id, const std::string& tenant, Entry* found) const;

  const std::string directory_;
  std::mutex mutex_;
  std::set<std::string> busy_;  // ids to which a part is being added
};

}  // namespace longhold
