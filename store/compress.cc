#include "store/compress.h"

#include <zstd.h>

namespace longhold {

std::string Compress(std::string_view bytes) {
  std::string out(ZSTD_compressBound(bytes.size()), '\0');
  const size_t n = ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), 1);
  LH_CHECK(!ZSTD_isError(n));
  out.resize(n);
  return out;
}

Result<std::string> Decompress(std::string_view bytes, size_t limit) {
  const unsigned long long size = ZSTD_getFrameContentSize(bytes.data(), bytes.size());
  if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN)
    return DataLoss("compressed value: not a zstd frame");
  if (size > limit)
    return DataLoss("compressed value: its stated size of " + std::to_string(size) +
                    " bytes exceeds the limit");
  std::string out(static_cast<size_t>(size), '\0');
  const size_t n = ZSTD_decompress(out.data(), out.size(), bytes.data(), bytes.size());
  if (ZSTD_isError(n) || n != size) return DataLoss("compressed value: damaged");
  return out;
}

}  // namespace longhold
