// Conversions of a model's weights to another type: q8_0 and float32.
#include <filesystem>

#include "llama.h"
#include "model/llama_host.h"
#include "model/llama_runtime.h"

namespace longhold {
namespace {

Status Convert(const std::string& from, const std::string& to, llama_ftype type) {
  LH_RETURN_IF_ERROR(StartLlama());
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.ftype = type;
  params.allow_requantize = true;
  params.nthread = 0;
  const std::string partial = to + ".partial";
  TakeLlamaError();
  std::error_code ec;
  if (llama_model_quantize(from.c_str(), partial.c_str(), &params) != 0) {
    std::filesystem::remove(partial, ec);
    return Internal("model " + from + ": re-quantising failed: " + TakeLlamaError());
  }
  std::filesystem::rename(partial, to, ec);
  if (ec) return Internal("model " + to + ": " + ec.message());
  return OkStatus();
}

}  // namespace

Status RequantiseQ8(const std::string& from, const std::string& to) {
  return Convert(from, to, LLAMA_FTYPE_MOSTLY_Q8_0);
}

Status WidenF32(const std::string& from, const std::string& to) {
  return Convert(from, to, LLAMA_FTYPE_ALL_F32);
}

}  // namespace longhold
