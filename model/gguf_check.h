// Checks the metadata of a GGUF file before libllama reads the file.
//
// libllama parses the container safely (tested with 1,700 damaged files). But it checks the values
// of the metadata with assertions, and a failed assertion ends the process. Examples: a layer count
// of 2^31, a token that the vocabulary contains twice, a negative epsilon. So this file checks the
// metadata that these assertions are about, and refuses a hostile file with a message that names
// the metadata. docs/security.md says which risks remain.
//
// Thread use: free functions, safe to call concurrently.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

// Checks a whole file in memory. `path` is used in messages only. Returns the model's architecture;
// empty if the file does not name a valid one. Errors: invalid_argument; the message names the file
// and the metadata.
Result<std::string> CheckGguf(std::string_view bytes, const std::string& path);

// Checks a file on disk, of which it reads only the header. Returns and errors: as
// above, and not_found.
Result<std::string> CheckGgufFile(const std::string& path);

}  // namespace longhold
