// A store whose values are sealed with AES-256-GCM before they reach the one beneath, so that its files hold nothing that can be read or changed
// unnoticed. Keys stay as they are: numbers of documents and blocks. docs/formats/sealed.md.
#pragma once

#include <memory>
#include <string>

#include "store/cold_store.h"

namespace longhold {

// `master`: kSealKeyBytes, or empty for none. A store that is empty becomes a sealed one where there is a key; one that holds values already stays
// as it is. So without a key, or on a plain store, this is `base` itself; `sealed` says whether it is not. Thread use of the result: *synchronised*. Errors: failed_precondition
// (it is sealed and there is no key, or another one), those of `base`.
Result<std::unique_ptr<ColdStore>> OpenSealed(std::unique_ptr<ColdStore> base, std::string_view master, bool* sealed);

}  // namespace longhold
