// Parallel loops as values, which are passed to whoever has such a loop.
//
// Thread use: the functions are safe to call concurrently. They may call `fn` on several threads at
// once. `fn` must not throw.
#pragma once

#include <cstddef>
#include <functional>

namespace longhold {

// Runs fn(i) for i in [0, count), possibly on several threads. Returns when all calls are done.
using ParallelFor = std::function<void(size_t count, const std::function<void(size_t)>& fn)>;

// Runs the calls in order on the calling thread.
void SerialFor(size_t count, const std::function<void(size_t)>& fn);

// Runs the calls on as many threads as the machine has processors, including the calling thread.
// For long iterations, if no model is loaded whose workers could run them. The threads exist only
// during the call.
void ThreadsFor(size_t count, const std::function<void(size_t)>& fn);

}  // namespace longhold
