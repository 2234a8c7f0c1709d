// What every user of libllama in model/ shares: its start, and its last complaint. Third-party
// types stop at the .cc files of model/.
//
// Thread use: *synchronised*.
#pragma once

#include <string>

#include "base/status.h"

namespace longhold {

// Starts libllama once per process and keeps it from printing. failed_precondition when this
// processor lacks the instruction set that libllama was built for.
Status StartLlama();

// The first error that libllama reported since the last call, "" when there was none: later ones
// only say "failed to load".
std::string TakeLlamaError();

}  // namespace longhold
