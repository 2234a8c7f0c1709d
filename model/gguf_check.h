// What is looked at in a GGUF file before libllama reads it.
//
// libllama's reader of the container holds (it was given 1,700 damaged files), but what the numbers
// mean it asserts, and a failed assertion ends the process: a layer count of 2^31, a token that the
// vocabulary has twice, a negative epsilon. So the metadata that its assertions are about are
// checked here, and a hostile file is refused by name. The rest is libllama's: docs/security.md
// says what that leaves.
//
// Thread use: free functions, safe to call concurrently.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

// `bytes` are the whole file's; `path` is for messages. Gives the architecture as below. Errors:
// invalid_argument, which names the file and the metadata.
Result<std::string> CheckGguf(std::string_view bytes, const std::string& path);

// The same of a file, of which only the header is read; gives the model's architecture, empty where
// the file names none. Errors: also not_found.
Result<std::string> CheckGgufFile(const std::string& path);

}  // namespace longhold
