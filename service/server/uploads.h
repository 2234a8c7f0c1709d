// Files that clients send in parts, and go on with after a broken connection or a restart of either
// side, until they are used.
//
// Owner: the `serve` command. Thread use: safe to call concurrently. On the disk:
// HOME/uploads/ID.LENGTH.TENANT, which holds what has come so far; so nothing else needs to be
// remembered. With an encryption key HOME/uploads/ID.LENGTHs.TENANT (docs/formats/sealed.md).
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/secret.h"
#include "base/status.h"
#include "store/transfer.h"

namespace longhold {

struct Upload {
  std::string id;       // 32 hexadecimal digits: who does not know them does not find it
  uint64_t length = 0;  // bytes in all
  uint64_t offset = 0;  // bytes that are there
};

class Uploads {
 public:
  // `encryption_key`: kSealKeyBytes with which they are sealed; empty: they are not.
  explicit Uploads(const std::string& home, const Secret& encryption_key = {})
      : directory_(home + "/uploads"), encryption_key_(encryption_key) {}

  // Begins one of `length` bytes. Those that nobody has sent to for a day are removed first. All of
  // a tenant's may have `own_bytes_max` bytes; 0: no limit, but no more than half of what the disk
  // has room for. Errors: invalid_argument (no length, or none that fits), failed_precondition (the
  // tenant's limit, or no room on the disk), resource_exhausted (too many).
  Result<Upload> Create(const std::string& tenant, uint64_t length, uint64_t own_bytes_max = 0);
  std::vector<Upload> List(const std::string& tenant) const;
  // Errors, of these and those below: not_found, also where it is another tenant's.
  Result<Upload> Find(const std::string& id, const std::string& tenant) const;
  // Adds `bytes` behind the first `offset`; they are on the disk when it returns. Errors:
  // failed_precondition (it has another offset, another part is being added, it was begun with
  // another setting of the key), invalid_argument (more than its length), resource_exhausted; it is
  // as it was then.
  Result<Upload> Append(const std::string& id, const std::string& tenant, uint64_t offset,
                        std::string_view bytes);
  // A whole one, to be read; the source holds it open. Errors: failed_precondition where bytes, or
  // the key, are missing. The source's: data_loss where a sealed one is damaged.
  Result<ByteSource> Open(const std::string& id, const std::string& tenant) const;
  Status Remove(const std::string& id, const std::string& tenant);

 private:
  struct Entry;
  // How far a sealed file's whole records go. Value type.
  struct Extent {
    uint64_t plain = 0, end = 0;  // bytes of the upload, and of the file
  };
  // With an `id` only that one.
  std::vector<Entry> Entries(const std::string& id = "") const;
  Extent ExtentOf(const std::string& id, const std::string& path, uint64_t file_bytes) const;
  Status FindEntry(const std::string& id, const std::string& tenant, Entry* found) const;

  const std::string directory_;
  const Secret encryption_key_;
  mutable std::mutex extents_mutex_;
  mutable std::map<std::string, Extent> extents_;  // by id: so that a file is gone through once
  std::mutex mutex_;
  std::set<std::string> busy_;  // ids to which a part is being added
};

}  // namespace longhold
