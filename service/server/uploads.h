// Files that clients send in parts. A client can continue an upload after a broken connection or a
// restart of either side, until the file is used.
//
// Owner: the `serve` command. Thread use: *synchronised*. The file HOME/uploads/ID.LENGTH.TENANT
// holds what has arrived so far, so that no other state is needed. With an encryption key its name
// is HOME/uploads/ID.LENGTHs.TENANT (docs/formats/sealed.md).
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
  std::string id;       // 32 random hexadecimal digits, which cannot be guessed
  uint64_t length = 0;  // bytes of the whole upload
  uint64_t offset = 0;  // bytes that have arrived
};

class Uploads {
 public:
  // `encryption_key`: a key of kSealKeyBytes that encrypts the uploads; empty: they are not
  // encrypted.
  explicit Uploads(const std::string& home, const Secret& encryption_key = {})
      : directory_(home + "/uploads"), encryption_key_(encryption_key) {}

  // Begins an upload of `length` bytes. First removes uploads that got no data for a day.
  // `own_bytes_max` limits the sum of the lengths of the tenant's uploads; 0: no limit, but the
  // outstanding bytes of one tenant may take only half of the free disk space. Errors:
  // invalid_argument (a length of 0 or above the limit), failed_precondition (the limit of the
  // tenant, or no space on the disk), resource_exhausted (too many uploads).
  Result<Upload> Create(const std::string& tenant, uint64_t length, uint64_t own_bytes_max = 0);
  std::vector<Upload> List(const std::string& tenant) const;
  // Errors of this function and those below: not_found, also for an upload of another tenant.
  Result<Upload> Find(const std::string& id, const std::string& tenant) const;
  // Appends `bytes` at `offset`. They are durable when it returns. Errors: failed_precondition (the
  // upload has another offset, another part is being added, or the upload was begun with another
  // encryption setting), invalid_argument (longer than its length), resource_exhausted. After an
  // error the upload is unchanged.
  Result<Upload> Append(const std::string& id, const std::string& tenant, uint64_t offset,
                        std::string_view bytes);
  // Opens a complete upload for reading. The source keeps the file open. Errors:
  // failed_precondition (bytes or the key are missing). Errors of the source: data_loss (an
  // encrypted upload is damaged).
  Result<ByteSource> Open(const std::string& id, const std::string& tenant) const;
  Status Remove(const std::string& id, const std::string& tenant);

 private:
  struct Entry;
  // The end of the complete records of an encrypted file. Value type.
  struct Extent {
    uint64_t plain = 0, end = 0;  // offsets in the upload, and in the file
  };
  // All uploads, or only the one with `id`.
  std::vector<Entry> Entries(const std::string& id = "") const;
  Extent ExtentOf(const std::string& id, const std::string& path, uint64_t file_bytes) const;
  Status FindEntry(const std::string& id, const std::string& tenant, Entry* found) const;

  const std::string directory_;
  const Secret encryption_key_;
  mutable std::mutex extents_mutex_;
  mutable std::map<std::string, Extent>
      extents_;  // by id: a cache, so that each file is scanned once
  std::mutex mutex_;
  std::set<std::string> busy_;  // ids to which a part is being added
};

}  // namespace longhold
