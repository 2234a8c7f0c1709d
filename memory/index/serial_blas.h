// What it takes to call the BLAS that FAISS links, and FAISS itself, from several workers: one call
// at a time, without threads of its own.
//
// Thread use: *synchronised*.
#pragma once

#include <mutex>

namespace longhold {

// While an object of this class lives, FAISS runs only on the calling thread. Otherwise it would
// start OpenMP threads in addition to the workers.
class OneOmpThread {
 public:
  OneOmpThread();
  ~OneOmpThread();
  OneOmpThread(const OneOmpThread&) = delete;
  OneOmpThread& operator=(const OneOmpThread&) = delete;

 private:
  int before_;
};

// Locked during every BLAS call, by FAISS or by our code. OpenBLAS's serial build is not safe to
// call concurrently: two threads that multiplied 128 x 64 by 64 x 96 got wrong results in one call
// of twenty (Debian's 0.3.21). The administrator of a machine chooses its BLAS, at run time, so no
// build of ours can rely on another one.
std::mutex& BlasMutex();

}  // namespace longhold
