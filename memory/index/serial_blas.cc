#include "memory/index/serial_blas.h"

// From libgomp, which FAISS links. Declared here because clang has no <omp.h> of its own.
extern "C" void omp_set_num_threads(int);
extern "C" int omp_get_max_threads(void);

namespace longhold {

OneOmpThread::OneOmpThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
OneOmpThread::~OneOmpThread() { omp_set_num_threads(before_); }

std::mutex& BlasMutex() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace longhold
