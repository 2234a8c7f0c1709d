#include "store/transfer.h"

#include <algorithm>
#include <cstring>

#include "base/hash.h"

namespace longhold {
namespace {

constexpr char kMagic[4] = {'L', 'H', 'E', 'X'};
constexpr uint32_t kVersion = 1;
constexpr uint8_t kValue = 1, kEnd = 2;
constexpr size_t kKeyBytesMax = 4096;
constexpr size_t kPieceBytes = 1u << 20;
constexpr size_t kExportBytes = 64u << 10;  // read at a time; a longer value is returned on its own

// Stands before each key. Little-endian, as on every machine that we build for.
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

// Reads exactly `count` bytes and passes them to `use` in pieces. A false `count` therefore
// allocates at most one piece.
Status ReadPieces(const ByteSource& source, uint64_t count,
                  const std::function<void(std::string_view)>& use) {
  std::string piece(static_cast<size_t>(std::min<uint64_t>(count, kPieceBytes)), '\0');
  while (count > 0) {
    LH_ASSIGN_OR_RETURN(const size_t got,
                        source(std::span(piece.data(), static_cast<size_t>(std::min<uint64_t>(
                                                           count, piece.size())))));
    if (got == 0) return DataLoss("import: the file is truncated");
    use(std::string_view(piece).substr(0, got));
    count -= got;
  }
  return OkStatus();
}

Status ReadBytes(const ByteSource& source, uint64_t count, std::string* out) {
  return ReadPieces(source, count, [&](std::string_view piece) { *out += piece; });
}

template <typename T>
Result<T> ReadNumber(const ByteSource& source) {
  std::string bytes;
  LH_RETURN_IF_ERROR(ReadBytes(source, sizeof(T), &bytes));
  T value;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return value;
}

// Replaces `before` by the checksum of the frame in `body` and of `before`, and appends it to
// `body`. Because each checksum includes the previous one, frames cannot be removed or reordered.
uint64_t AppendChain(uint64_t before, std::string* body) {
  const size_t frame_bytes = body->size();
  *body += BytesOf(before);
  const uint64_t chain = Hash64(*body);
  body->replace(frame_bytes, sizeof(chain), BytesOf(chain));
  return chain;
}

}  // namespace

ExportStream::ExportStream(ColdStore* store, std::string_view name) : store_(store) {
  LH_CHECK(name.size() <= UINT8_MAX);
  report_.name = name;
}

void ExportStream::AppendFrame(Table table, std::string_view key, std::string_view value,
                               std::string* out) {
  const FrameHead frame{kValue, static_cast<uint8_t>(table), static_cast<uint16_t>(key.size()),
                        static_cast<uint32_t>(value.size())};
  std::string body(BytesOf(frame));
  body += key;
  body += value;
  chain_ = AppendChain(chain_, &body);
  *out += body;
  ++report_.values;
}

Result<std::string> ExportStream::Next() {
  std::string out;
  if (table_ < 0) {
    out.assign(kMagic, sizeof(kMagic));
    out += BytesOf(kVersion);
    out.push_back(static_cast<char>(report_.name.size()));
    out += report_.name;
    table_ = 0;
  }
  static const std::string kLastKey(kKeyBytesMax, '\xff');
  for (; table_ < kTableCount && out.size() < kExportBytes; ++table_, next_key_.clear()) {
    Status failed;
    LH_RETURN_IF_ERROR(store_->Scan(static_cast<Table>(table_), next_key_, kLastKey,
                                    [&](std::string_view key, std::string_view value) {
                                      if (key.size() > kKeyBytesMax || value.size() > UINT32_MAX) {
                                        failed = DataLoss(
                                            "export: a value is longer than an export can hold");
                                        return false;
                                      }
                                      AppendFrame(static_cast<Table>(table_), key, value, &out);
                                      next_key_ = std::string(key) + '\0';
                                      return out.size() < kExportBytes;
                                    }));
    LH_RETURN_IF_ERROR(failed);
    if (out.size() >= kExportBytes) break;  // the table may have more
  }
  if (table_ == kTableCount && out.size() < kExportBytes) {
    std::string end(BytesOf(FrameHead{.kind = kEnd}));
    end += BytesOf(report_.values);
    AppendChain(chain_, &end);
    out += end;
    ++table_;
  }
  report_.bytes += out.size();
  return out;
}

Result<TransferReport> ExportStore(ColdStore& store, std::string_view name, const ByteSink& sink) {
  ExportStream stream(&store, name);
  for (;;) {
    LH_ASSIGN_OR_RETURN(const std::string bytes, stream.Next());
    if (bytes.empty()) return stream.report();
    LH_RETURN_IF_ERROR(sink(bytes));
  }
}

Result<std::string> ReadExportName(const ByteSource& source) {
  const auto no_export = [] {
    return InvalidArgument("import: this file was not written by 'longhold export'");
  };
  std::string head;
  if (Status s = ReadBytes(source, sizeof(kMagic) + sizeof(kVersion) + 1, &head); !s.ok())
    return s.code() == StatusCode::kDataLoss ? no_export() : s;
  if (std::memcmp(head.data(), kMagic, sizeof(kMagic)) != 0) return no_export();
  uint32_t version;
  std::memcpy(&version, head.data() + sizeof(kMagic), sizeof(version));
  if (version != kVersion)
    return InvalidArgument("import: the file has version " + std::to_string(version) +
                           "; this version of longhold reads " + std::to_string(kVersion));
  std::string name;
  LH_RETURN_IF_ERROR(ReadBytes(source, static_cast<uint8_t>(head.back()), &name));
  return name;
}

Result<TransferReport> ImportStore(const ByteSource& source, ColdStore& store,
                                   const ImportRules& rules) {
  TransferReport report;
  const ByteSource counted = [&](std::span<char> out) -> Result<size_t> {
    LH_ASSIGN_OR_RETURN(const size_t got, source(out));
    report.bytes += got;
    return got;
  };
  const auto damaged = [&] {
    return DataLoss("import: the file is damaged after " + std::to_string(report.values) +
                    " values");
  };
  uint64_t chain = 0;
  WriteBatch batch;
  size_t batched = 0;
  for (;;) {
    LH_ASSIGN_OR_RETURN(const FrameHead frame, ReadNumber<FrameHead>(counted));
    const bool end = frame.kind == kEnd;
    if ((frame.kind != kValue && !end) || frame.table >= kTableCount ||
        frame.key_bytes > kKeyBytesMax)
      return damaged();
    const Table table = static_cast<Table>(frame.table);
    std::string key, value;
    LH_RETURN_IF_ERROR(ReadBytes(counted, end ? 0 : frame.key_bytes, &key));
    bool kept = true;
    if (!end && rules.admit) {
      LH_ASSIGN_OR_RETURN(kept, rules.admit(table, key, frame.value_bytes));
    }
    Hash64Stream hash;
    hash.Update(BytesOf(frame));
    hash.Update(key);
    LH_RETURN_IF_ERROR(ReadPieces(counted, end ? sizeof(report.values) : frame.value_bytes,
                                  [&](std::string_view piece) {
                                    hash.Update(piece);
                                    if (kept) value += piece;
                                  }));
    hash.Update(BytesOf(chain));
    chain = hash.Digest();
    LH_ASSIGN_OR_RETURN(const uint64_t stated, ReadNumber<uint64_t>(counted));
    if (chain != stated) return damaged();
    if (end) {
      if (value != BytesOf(report.values)) return damaged();
      char more;
      LH_ASSIGN_OR_RETURN(const size_t behind, counted(std::span(&more, 1)));
      if (behind != 0) return DataLoss("import: extra bytes after the end");
      LH_RETURN_IF_ERROR(store.Write(std::move(batch), Durability::kSynced));
      return report;
    }
    ++report.values;
    if (!kept) {
      ++report.left_out;
      continue;
    }
    batched += key.size() + value.size();
    batch.Put(table, key, std::move(value));
    if (batched < rules.batch_bytes) continue;
    LH_RETURN_IF_ERROR(store.Write(std::exchange(batch, WriteBatch()), Durability::kBuffered));
    batched = 0;
  }
}

}  // namespace longhold
