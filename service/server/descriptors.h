// Descriptors: how many the process may have open, and how many of them are left for connections.
//
// Owner: the `serve` command, once, before it listens.
#pragma once

#include <cstdint>

namespace longhold {

// Raises the process's soft limit of open files towards the hard one, to `most` at most, and
// returns the limit that holds then. It is never lowered.
uint64_t RaiseDescriptorLimit(uint64_t most);

// How many of `descriptors` may be connections, at most `wanted`: what the stores, the inbox and
// the model leave, and a quarter in any case.
uint32_t ConnectionsFor(uint64_t descriptors, uint32_t wanted);

}  // namespace longhold
