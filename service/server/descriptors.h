// File descriptors: the limit of the process, and how many of them may be connections.
//
// Owner: the `serve` command calls these functions once, before it listens. Thread use: *external*.
#pragma once

#include <cstdint>

namespace longhold {

// Raises the soft limit of open files of the process, up to the hard limit and at most to `most`.
// Never lowers it. Returns the new limit, 0 when it cannot be read.
uint64_t RaiseDescriptorLimit(uint64_t most);

// Returns how many of `descriptors` may be connections, at most `wanted`. It keeps enough for the
// stores, the inbox and the model, but gives at least a quarter to connections.
uint32_t ConnectionsFor(uint64_t descriptors, uint32_t wanted);

}  // namespace longhold
