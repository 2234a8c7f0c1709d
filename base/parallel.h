// Loops whose turns may run at the same time, as values that are passed to who has such a loop.
//
// Thread use: the functions are safe to call concurrently; fn is called by several threads at once,
// and must not throw.
#pragma once

#include <cstddef>
#include <functional>

namespace longhold {

// Runs fn(i) for i in [0, count), possibly on several threads; returns when all are done.
using ParallelFor = std::function<void(size_t count, const std::function<void(size_t)>& fn)>;

// Runs them in order on the calling thread.
void SerialFor(size_t count, const std::function<void(size_t)>& fn);

// Runs them on as many threads as the machine has processors, the calling one included: for long
// turns, where there is no model whose workers could be had. The threads live for the call.
void ThreadsFor(size_t count, const std::function<void(size_t)>& fn);

}  // namespace longhold
