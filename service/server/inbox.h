// Texts that the server has accepted and not read yet, a file each: what was acknowledged is read,
// whatever happens to the process.
//
// Owner: the `serve` command. Thread use: safe to call concurrently for different ids.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/secret.h"
#include "base/status.h"
#include "memory/engine.h"

namespace longhold {

class Inbox {
 public:
  struct Text {
    uint64_t id = 0;
    std::string memory;
    IngestInput input;
  };

  // `encryption_key`: kSealKeyBytes with which texts are sealed; empty: they are not.
  explicit Inbox(const std::string& home, const Secret& encryption_key = {})
      : directory_(home + "/inbox"), encryption_key_(encryption_key) {}
  ~Inbox();
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;

  // Makes the directory where it is not there. False when another process has taken it, and keeps
  // it until it ends. Errors: invalid_argument (it cannot be written).
  Result<bool> Take();
  // On the disk when it returns. Must hold: Take gave true. Errors: resource_exhausted (the disk is
  // full), internal.
  Status Keep(uint64_t id, const std::string& memory, const IngestInput& input) const;
  void Drop(uint64_t id) const;

  // A text whose reading ends the process would end it again at every start. So each try is marked
  // on the disk while it lasts: Begun before, Advanced when some of the text is committed for good,
  // Paused when the try is over and the process still there.
  void Begun(uint64_t id) const;
  void Advanced(uint64_t id) const;
  void Paused(uint64_t id) const;

  // All that are kept, those that were accepted first in front. A file that is damaged stays where
  // it is, and a note says so. So does a text of which two tries in a row ended with the process
  // and got no further: it is set aside, as ID.text.aside.
  std::vector<Text> Load(std::vector<std::string>* notes) const;

 private:
  std::string PathOf(uint64_t id) const;
  // as many bytes as tries
  std::string TriesPathOf(uint64_t id) const { return PathOf(id) + ".tries"; }

  const std::string directory_;
  const Secret encryption_key_;
  int lock_ = -1;
};

}  // namespace longhold
