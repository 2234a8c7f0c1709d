#include "store/transfer.h"

#include <algorithm>
#include <cstring>

#include "base/hash.h"
#include "store/cold_store.h"

namespace longhold {
namespace {

constexpr char kMagic[4] = {'L', 'H', 'E', 'X'};
constexpr uint32_t kVersion = 1;
constexpr uint8_t kValue = 1, kEnd = 2;
constexpr size_t kKeyBytesMax = 4096;
constexpr size_t kBatchBytes = 16u << 20;
constexpr size_t kPieceBytes = 1u << 20;

// What stands before each key. Little-endian, as every machine we build for.
struct FrameHead {
  uint8_t kind = 0;
  uint8_t table = 0;
  uint16_t key_bytes = 0;
  uint32_t value_bytes = 0;
};
static_assert(sizeof(FrameHead) == 8);

template <typename T>
std::string_view BytesOf(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

// The checksum of a frame, which counts the one before: frames cannot be left out or change places. It stands behind the frame in `body` then.
uint64_t AppendChain(uint64_t before, std::string* body) {
  const size_t frame_bytes = body->size();
  *body += BytesOf(before);
  const uint64_t chain = Hash64(*body);
  body->replace(frame_bytes, sizeof(chain), BytesOf(chain));
  return chain;
}

// Exactly `count` bytes onto `out`, in pieces: a count that is not true allocates no more than a piece too much.
Status ReadBytes(const ByteSource& source, size_t count, std::string* out) {
  while (count > 0) {
    const size_t piece = std::min(count, kPieceBytes), begin = out->size();
    out->resize(begin + piece);
    LH_ASSIGN_OR_RETURN(const size_t got, source(std::span(out->data() + begin, piece)));
    if (got == 0) return DataLoss("import: the file is cut off");
    out->resize(begin + got);
    count -= got;
  }
  return OkStatus();
}

template <typename T>
Result<T> ReadNumber(const ByteSource& source) {
  std::string bytes;
  LH_RETURN_IF_ERROR(ReadBytes(source, sizeof(T), &bytes));
  T value;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return value;
}

}  // namespace

Result<TransferReport> ExportStore(ColdStore& store, std::string_view name, const ByteSink& sink) {
  LH_CHECK(name.size() <= UINT8_MAX);
  TransferReport report;
  report.name = name;
  const auto write = [&](std::string_view bytes) {
    report.bytes += bytes.size();
    return sink(bytes);
  };
  std::string head(kMagic, sizeof(kMagic));
  head += BytesOf(kVersion);
  head.push_back(static_cast<char>(name.size()));
  head += name;
  LH_RETURN_IF_ERROR(write(head));
  uint64_t chain = 0;
  for (int table = 0; table < kTableCount; ++table) {
    Status failed;
    LH_RETURN_IF_ERROR(store.Scan(static_cast<Table>(table), "", std::string(kKeyBytesMax, '\xff'), [&](std::string_view key, std::string_view value) {
      LH_CHECK(key.size() <= kKeyBytesMax && value.size() <= UINT32_MAX);
      const FrameHead frame{kValue, static_cast<uint8_t>(table), static_cast<uint16_t>(key.size()), static_cast<uint32_t>(value.size())};
      std::string body(BytesOf(frame));
      body += key;
      body += value;
      chain = AppendChain(chain, &body);
      failed = write(body);
      ++report.values;
      return failed.ok();
    }));
    LH_RETURN_IF_ERROR(failed);
  }
  std::string end(BytesOf(FrameHead{.kind = kEnd}));
  end += BytesOf(report.values);
  AppendChain(chain, &end);
  LH_RETURN_IF_ERROR(write(end));
  return report;
}

Result<std::string> ReadExportName(const ByteSource& source) {
  const auto no_export = [] { return InvalidArgument("import: this is no file that 'longhold export' wrote"); };
  std::string head;
  if (Status s = ReadBytes(source, sizeof(kMagic) + sizeof(kVersion) + 1, &head); !s.ok()) return s.code() == StatusCode::kDataLoss ? no_export() : s;
  if (std::memcmp(head.data(), kMagic, sizeof(kMagic)) != 0) return no_export();
  uint32_t version;
  std::memcpy(&version, head.data() + sizeof(kMagic), sizeof(version));
  if (version != kVersion) return InvalidArgument("import: the file has version " + std::to_string(version) + ", this longhold reads " + std::to_string(kVersion));
  std::string name;
  LH_RETURN_IF_ERROR(ReadBytes(source, static_cast<uint8_t>(head.back()), &name));
  return name;
}

Result<TransferReport> ImportStore(const ByteSource& source, ColdStore& store) {
  TransferReport report;
  const ByteSource counted = [&](std::span<char> out) -> Result<size_t> {
    LH_ASSIGN_OR_RETURN(const size_t got, source(out));
    report.bytes += got;
    return got;
  };
  const auto damaged = [&] { return DataLoss("import: the file is damaged after " + std::to_string(report.values) + " values"); };
  uint64_t chain = 0;
  WriteBatch batch;
  size_t batched = 0;
  for (;;) {
    std::string body;
    LH_RETURN_IF_ERROR(ReadBytes(counted, sizeof(FrameHead), &body));
    FrameHead frame;
    std::memcpy(&frame, body.data(), sizeof(frame));
    const bool end = frame.kind == kEnd;
    if ((frame.kind != kValue && !end) || frame.table >= kTableCount || frame.key_bytes > kKeyBytesMax) return damaged();
    LH_RETURN_IF_ERROR(ReadBytes(counted, end ? sizeof(report.values) : size_t{frame.key_bytes} + frame.value_bytes, &body));
    chain = AppendChain(chain, &body);
    LH_ASSIGN_OR_RETURN(const uint64_t stated, ReadNumber<uint64_t>(counted));
    if (chain != stated) return damaged();
    if (end) {
      uint64_t values;
      std::memcpy(&values, body.data() + sizeof(frame), sizeof(values));
      if (values != report.values) return damaged();
      char more;
      LH_ASSIGN_OR_RETURN(const size_t behind, counted(std::span(&more, 1)));
      if (behind != 0) return DataLoss("import: the file goes on behind its end");
      LH_RETURN_IF_ERROR(store.Write(std::move(batch), Durability::kSynced));
      return report;
    }
    body.resize(body.size() - sizeof(chain));
    ++report.values;
    batched += body.size();
    batch.Put(static_cast<Table>(frame.table), std::string_view(body).substr(sizeof(frame), frame.key_bytes), body.substr(sizeof(frame) + frame.key_bytes));
    if (batched < kBatchBytes) continue;
    LH_RETURN_IF_ERROR(store.Write(std::exchange(batch, WriteBatch()), Durability::kBuffered));
    batched = 0;
  }
}

}  // namespace longhold
