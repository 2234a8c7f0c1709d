// A store exported to a stream and imported again: round trips, the stream cut at every byte,
// changed at every byte, and assembled wrongly; sinks, sources and stores that fail.
#include "store/transfer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "store/mem_store.h"
#include "tests/support/stores.h"

namespace longhold {
namespace {

std::unique_ptr<ColdStore> Filled(size_t values, size_t value_bytes) {
  auto store = NewMemStore();
  std::mt19937 random(6);
  for (size_t i = 0; i < values; ++i) {
    std::string value(random() % (value_bytes + 1), '\0');
    for (char& c : value) c = static_cast<char>(random());
    EXPECT_TRUE(PutValue(*store, static_cast<Table>(i % kTableCount),
                         "key" + std::string(1, static_cast<char>(i)) + std::to_string(i), value)
                    .ok());
  }
  return store;
}

std::string Exported(ColdStore& store, const std::string& name = "tales") {
  std::string bytes;
  const Result<TransferReport> report = ExportStore(store, name, [&](std::string_view more) {
    bytes += more;
    return OkStatus();
  });
  EXPECT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->bytes, bytes.size());
  return bytes;
}

// Returns `piece` bytes at a time, as a pipe does.
ByteSource SourceOf(std::string bytes, size_t piece = SIZE_MAX) {
  return [bytes = std::move(bytes), piece,
          at = size_t{0}](std::span<char> out) mutable -> Result<size_t> {
    const size_t count = std::min({out.size(), piece, bytes.size() - at});
    std::memcpy(out.data(), bytes.data() + at, count);
    at += count;
    return count;
  };
}

Status Imported(const ByteSource& source, ColdStore& store) {
  LH_ASSIGN_OR_RETURN(const std::string name, ReadExportName(source));
  EXPECT_EQ(name, "tales");
  return ImportStore(source, store).status();
}

TEST(Transfer, RoundTripsEveryValueOfEveryTable) {
  for (const size_t values : {0, 1, 200}) {
    const auto store = Filled(values, 3000);
    const std::string bytes = Exported(*store);
    for (const size_t piece : {size_t{1}, size_t{1000}, SIZE_MAX}) {
      const auto back = NewMemStore();
      ASSERT_TRUE(Imported(SourceOf(bytes, piece), *back).ok());
      EXPECT_EQ(Difference(Contents(*store), Contents(*back)), "");
      EXPECT_EQ(Exported(*back), bytes);
    }
  }
}

TEST(Transfer, LargeValuesGoThroughInSeveralBatches) {
  const auto store = NewMemStore();
  for (int i = 0; i < 5; ++i)
    ASSERT_TRUE(PutValue(*store, Table::kBlocks, std::to_string(i),
                         std::string(9u << 20, static_cast<char>('a' + i)))
                    .ok());
  const auto back = NewMemStore();
  ASSERT_TRUE(Imported(SourceOf(Exported(*store)), *back).ok());
  EXPECT_EQ(Difference(Contents(*store), Contents(*back)), "");
}

TEST(Transfer, EveryCutAndEveryChangedByteIsRefused) {
  const std::string bytes = Exported(*Filled(6, 20));
  for (size_t i = 0; i < bytes.size(); ++i) {
    EXPECT_FALSE(Imported(SourceOf(bytes.substr(0, i)), *NewMemStore()).ok()) << i;
    if (i >= 9 && i < 14) continue;  // the name: its bytes may change
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x21);
    const ByteSource source = SourceOf(damaged);
    const Result<std::string> name = ReadExportName(source);
    EXPECT_FALSE(name.ok() && ImportStore(source, *NewMemStore()).ok()) << i;
  }
  EXPECT_EQ(Imported(SourceOf(bytes + "x"), *NewMemStore()).code(), StatusCode::kDataLoss);
  EXPECT_EQ(Imported(SourceOf(bytes.substr(0, bytes.size() - 1)), *NewMemStore()).code(),
            StatusCode::kDataLoss);
  for (const std::string& other :
       {std::string(), std::string("PK\x03\x04 something else"), std::string(100, '\0')}) {
    EXPECT_EQ(ReadExportName(SourceOf(other)).status().code(), StatusCode::kInvalidArgument);
  }
}

TEST(Transfer, MissingOrSwappedValuesAreRefused) {
  const auto store = NewMemStore();
  ASSERT_TRUE(PutValue(*store, Table::kMeta, "a", "1").ok());
  ASSERT_TRUE(PutValue(*store, Table::kMeta, "b", "2").ok());
  const std::string bytes = Exported(*store);
  constexpr size_t kHead = 14, kFrame = 8 + 1 + 1 + 8;
  const std::string first = bytes.substr(kHead, kFrame),
                    second = bytes.substr(kHead + kFrame, kFrame),
                    end = bytes.substr(kHead + 2 * kFrame);
  const std::string head = bytes.substr(0, kHead);
  ASSERT_TRUE(Imported(SourceOf(head + first + second + end), *NewMemStore()).ok());
  for (const std::string& wrong : {head + second + first + end, head + first + end, head + end,
                                   head + first + first + second + end}) {
    EXPECT_EQ(Imported(SourceOf(wrong), *NewMemStore()).code(), StatusCode::kDataLoss);
  }
}

TEST(Transfer, ValuesThatAreNotAdmittedAreSkipped) {
  const auto store = Filled(60, 3000);
  const std::string bytes = Exported(*store);
  const auto import = [&](const ImportRules& rules, ColdStore& back) {
    const ByteSource source = SourceOf(bytes, 1000);
    EXPECT_TRUE(ReadExportName(source).ok());
    return ImportStore(source, back, rules);
  };
  StoreContents expected = Contents(*store);
  std::erase_if(expected, [](const auto& entry) { return entry.first.first == 1; });
  const auto back = NewMemStore();
  const Result<TransferReport> report = import(
      {.admit = [](Table table, std::string_view, uint64_t) { return table != Table::kText; }},
      *back);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->left_out, 15u);
  EXPECT_EQ(Difference(expected, Contents(*back)), "");
  size_t asked = 0;
  const auto refused =
      import({.admit = [&](Table, std::string_view, uint64_t) -> Result<bool> {
               return ++asked < 7 ? Result<bool>(true) : FailedPrecondition("no more");
             }},
             *NewMemStore());
  EXPECT_EQ(refused.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(asked, 7u);
}

TEST(Transfer, AStreamIsProducedAtItsReadersPace) {
  const auto store = Filled(200, 6000);
  const std::string whole = Exported(*store);
  ExportStream stream(store.get(), "tales");
  std::string bytes;
  size_t pieces = 0;
  for (;; ++pieces) {
    const Result<std::string> piece = stream.Next();
    ASSERT_TRUE(piece.ok());
    if (piece->empty()) break;
    EXPECT_LE(piece->size(), (64u << 10) + 7000);
    bytes += *piece;
  }
  EXPECT_GT(pieces, 5u);
  EXPECT_EQ(bytes, whole);
  EXPECT_TRUE(stream.Next()->empty());
}

TEST(Transfer, AStatedLengthAllocatesNothing) {
  std::string bytes = Exported(*Filled(1, 20)).substr(0, 14);
  // announces a value of 4 GiB that does not follow
  bytes += std::string("\x01\x03\x04\x00\xff\xff\xff\xff", 8) + "abcd";
  EXPECT_EQ(Imported(SourceOf(bytes), *NewMemStore()).code(), StatusCode::kDataLoss);
}

TEST(Transfer, FailuresOfSinkSourceAndStoreAreReported) {
  const auto store = Filled(200, 6000);  // some ten pieces
  int left = 5;
  const Result<TransferReport> full = ExportStore(*store, "tales", [&](std::string_view) {
    return --left > 0 ? OkStatus() : ResourceExhausted("full");
  });
  EXPECT_EQ(full.status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(left, 0) << "nothing more is written after a failure";
  const auto back = NewMemStore();
  const auto failing = NewFaultyStore(back.get(), {.fail_write_after = 1});
  EXPECT_EQ(Imported(SourceOf(Exported(*store)), *failing).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(ReadExportName([](std::span<char>) -> Result<size_t> { return Cancelled("stopped"); })
                .status()
                .code(),
            StatusCode::kCancelled);
}

}  // namespace
}  // namespace longhold
