// Shared by all users of libllama in model/: its initialisation and its last error message.
// Third-party types appear in the .cc files of model/ only.
//
// Thread use: *synchronised*.
#pragma once

#include <string>

#include "base/status.h"

namespace longhold {

// Initialises libllama once per process and suppresses its output. Errors: failed_precondition
// (this processor lacks the instruction set that libllama was built for).
Status StartLlama();

// Returns the first error that libllama reported since the last call, or "". Later errors only say
// "failed to load".
std::string TakeLlamaError();

}  // namespace longhold
