// Records (memory/record/records.h) from hostile bytes. The first byte selects the expected kind
// and whether the rest is compressed first, so that libFuzzer can change what zstd would hide. The
// rest is a record whose checksum is made valid. A record that decodes is encoded and decoded
// again, to the same value.
#include <cstdint>

#include "memory/index/segment_keys.h"
#include "memory/record/records.h"
#include "store/compress.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/fuzz/mend.h"

namespace longhold {
namespace {

template <typename Record>
void Use(const Result<Record>& record, Result<Record> (*decode)(std::string_view)) {
  ExpectRefusal(record);
  if (!record.ok()) return;
  const std::string bytes = Encode(*record);
  const Result<Record> again = decode(bytes);
  LH_CHECK(again.ok());
  LH_CHECK(Encode(*again) == bytes);
}

void Run(FuzzBytes input) {
  constexpr size_t kHeader = 12;
  const auto kind = input.Take<uint8_t>();
  std::string bytes(input.rest());
  (void)DecodeManifest(bytes);
  if ((kind & 0x80) != 0 && bytes.size() >= kHeader) {
    bytes[3] = '1';
    bytes = bytes.substr(0, kHeader) + Compress(std::string_view(bytes).substr(kHeader));
  }
  MendRecord(&bytes);
  switch (kind % 4) {
    case 0: {
      const Result<Manifest> manifest = DecodeManifest(bytes);
      Use(manifest, DecodeManifest);
      if (manifest.ok()) SegmentKeys keys(*manifest);
      return;
    }
    case 1: return Use(DecodeDocument(bytes), DecodeDocument);
    case 2: return Use(DecodeTextChunk(bytes), DecodeTextChunk);
    default: return Use(DecodeResume(bytes), DecodeResume);
  }
}

}  // namespace
}  // namespace longhold

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  longhold::Run({data, size});
  return 0;
}
