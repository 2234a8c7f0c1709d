// A store whose values are sealed with AES-256-GCM before they reach the one beneath, so that its
// files hold nothing that can be read or changed unnoticed. Keys stay as they are: numbers of
// documents and blocks. docs/formats/sealed.md.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/secret.h"
#include "store/cold_store.h"

namespace longhold {

// Value type.
struct SealedOptions {
  Secret master;           // kSealKeyBytes, or empty for none
  std::string name;        // the memory's, with its tenant
  bool read_only = false;  // as `base` was opened
  // The name that the memory in the store says it has: for records of version 1, which do not hold
  // it. Errors: not_found (it says none).
  std::function<Result<std::string>(ColdStore& store)> name_inside;
};

// Value type; move-only.
struct OpenedStore {
  std::unique_ptr<ColdStore> store;  // *synchronised*
  bool sealed = false;               // otherwise it is what OpenSealed was given
};

// An empty store becomes a sealed one where there is a key; one that holds values already stays as
// it is. A sealed store opens under the name that it was sealed with only: whoever gives its
// directory another memory's name is found out. A record of version 1 becomes one of version 2
// unless read_only. Errors: failed_precondition (it is sealed, and there is no key, or another one,
// or it was sealed as another memory), data_loss, those of `base` and of name_inside.
Result<OpenedStore> OpenSealed(std::unique_ptr<ColdStore> base, const SealedOptions& options);

}  // namespace longhold
