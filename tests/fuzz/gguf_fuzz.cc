// GGUF headers from hostile bytes, through the check that runs before libllama reads them
// (model/gguf_check.h). libllama itself is not instrumented; tests/model/gguf_check_test.cc loads
// damaged files in child processes.
#include <cstdint>

#include "model/gguf_check.h"
#include "tests/fuzz/fuzz_bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const longhold::Status status =
      longhold::CheckGguf({reinterpret_cast<const char*>(data), size}, "fuzz.gguf").status();
  LH_CHECK(status.ok() || status.code() == longhold::StatusCode::kInvalidArgument);
  LH_CHECK(status.message().find_first_of(std::string_view("\n\x1b\0", 3)) == std::string::npos);
  return 0;
}
