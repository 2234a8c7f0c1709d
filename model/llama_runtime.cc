#include "model/llama_runtime.h"

#include <mutex>
#include <string_view>

#include "llama.h"

namespace longhold {
namespace {

std::mutex log_mutex;
std::string last_log_error;

void OnLog(ggml_log_level level, const char* text, void*) {
  if (level != GGML_LOG_LEVEL_ERROR) return;
  std::lock_guard lock(log_mutex);
  std::string line = text;
  while (!line.empty() && line.back() == '\n') line.pop_back();
  if (last_log_error.empty()) last_log_error = line;
}

Status CheckCpu() {
  const std::string_view level = LONGHOLD_CPU_LEVEL;
  bool ok = true;
  if (level == "avx512") {
    ok = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("avx512bf16");
  } else if (level == "avx2") {
    ok = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
  }
  if (ok) return OkStatus();
  return FailedPrecondition(
      "this longhold was built for " + std::string(level) +
      ", which this processor lacks; run scripts/build again on this machine");
}

}  // namespace

Status StartLlama() {
  LH_RETURN_IF_ERROR(CheckCpu());
  static const bool done = [] {
    llama_log_set(OnLog, nullptr);
    llama_backend_init();
    return true;
  }();
  (void)done;
  return OkStatus();
}

std::string TakeLlamaError() {
  std::lock_guard lock(log_mutex);
  std::string out = std::move(last_log_error);
  last_log_error.clear();
  return out;
}

}  // namespace longhold
