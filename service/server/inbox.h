// Texts that the server has accepted but not ingested yet, one file for each. An acknowledged text
// is ingested even if the process ends before.
//
// Owner: the `serve` command. Thread use: calls for different ids are safe concurrently.
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

  // `encryption_key`: a key of kSealKeyBytes that encrypts the texts; empty: they are not
  // encrypted.
  explicit Inbox(const std::string& home, const Secret& encryption_key = {})
      : directory_(home + "/inbox"), encryption_key_(encryption_key) {}
  ~Inbox();
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;

  // Creates the directory if necessary and locks it until this object ends. Returns false when
  // another process has locked it. Errors: invalid_argument (it cannot be written).
  Result<bool> Take();
  // Writes a text. It is durable when Keep returns. Precondition: Take returned true. Errors:
  // resource_exhausted (the disk is full), internal.
  Status Keep(uint64_t id, const std::string& memory, const IngestInput& input) const;
  // Removes a text that was ingested or cancelled.
  void Drop(uint64_t id) const;

  // A text that crashes the process would crash it again at every start. So each attempt to ingest
  // it is recorded on the disk. Begun is called before an attempt. Advanced is called when some of
  // the text is committed, and resets the count. Paused is called when the attempt ends and the
  // process still runs.
  void Begun(uint64_t id) const;
  void Advanced(uint64_t id) const;
  void Paused(uint64_t id) const;

  // Returns all stored texts in the order in which they were accepted. A damaged file stays where
  // it is, with a note. A text is set aside as ID.text.aside, with a note, after two attempts in a
  // row that ended with the process and committed nothing.
  std::vector<Text> Load(std::vector<std::string>* notes) const;

 private:
  std::string PathOf(uint64_t id) const;
  // the file has one byte for each attempt
  std::string AttemptsPathOf(uint64_t id) const { return PathOf(id) + ".tries"; }

  const std::string directory_;
  const Secret encryption_key_;
  int lock_ = -1;
};

}  // namespace longhold
