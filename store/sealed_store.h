// A store that encrypts values with AES-256-GCM before it passes them to the store beneath. Without
// the key, nobody can read a value, or change it without detection. Keys are not encrypted; they
// hold numbers of documents and blocks. docs/formats/sealed.md specifies the format.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/secret.h"
#include "store/cold_store.h"

namespace longhold {

// Value type.
struct SealedOptions {
  Secret master;           // kSealKeyBytes, or empty if there is no key
  std::string name;        // the memory's name, with its tenant
  bool read_only = false;  // how `base` was opened
  // Reads the name that the memory inside the store has. Needed for records of version 1, which do
  // not hold the name. Errors: not_found (the memory has no name).
  std::function<Result<std::string>(ColdStore& store)> name_inside;
};

// Value type; move-only.
struct OpenedStore {
  std::unique_ptr<ColdStore> store;  // *synchronised*
  bool sealed = false;               // if false, `store` is the one that OpenSealed was given
};

// Opens `base`, encrypted or not.
//   - An empty store becomes a sealed one if there is a key.
//   - A store that holds values and is not sealed stays unsealed.
//   - A sealed store opens only under the name that it was sealed with. So a directory that was
//     renamed to another memory's name is refused.
//   - A record of version 1 is replaced by one of version 2, unless read_only.
//
// Errors: failed_precondition (it is sealed, but the key is missing or wrong, or it was sealed as
// another memory), data_loss, and the errors of `base` and name_inside.
Result<OpenedStore> OpenSealed(std::unique_ptr<ColdStore> base, const SealedOptions& options);

}  // namespace longhold
