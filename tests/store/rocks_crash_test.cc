// RocksDB's store against sudden death. A child process writes numbered batches and prints each
// batch's index once Write has returned. The test kills it (SIGKILL) at a random moment and
// compares the store's contents with what was acknowledged. The write buffer is 1 MiB, so logs,
// tables and blob files change many times a second, and some rounds compact.
//
// Batch n puts block n (4 to 60 KB, its bytes a function of n), text n and the counter. It deletes
// block n - 30. So a store with counter c is whole if exactly these exist and are right: the blocks
// of (c - 30, c] and the texts of [1, c].
#include <gtest/gtest.h>

#include <chrono>
#include <iostream>
#include <random>
#include <thread>

#include "store/rocks_store.h"
#include "tests/store/store_child.h"
#include "tests/store/temp_dir.h"
#include "tests/store/value_crash.h"

namespace longhold {
namespace {

constexpr uint32_t kKept = 30;

std::string KeyOf(uint32_t n) {
  std::string key;
  AppendBigEndian32(&key, n);
  return key;
}

std::string BlockOf(uint32_t n) {
  std::string value(4000 + n * 7919 % 56000, '\0');
  for (size_t i = 0; i < value.size(); ++i) value[i] = static_cast<char>(n + i * 31);
  return value;
}

RocksOptions OptionsOf(const std::string& path) {
  return {.path = path, .write_buffer_bytes = 1 << 20, .disk_reserve_bytes = 0};
}

WriteBatch BatchOf(uint32_t n) {
  WriteBatch batch;
  batch.Put(Table::kBlocks, KeyOf(n), BlockOf(n));
  batch.Put(Table::kText, KeyOf(n), "text " + std::to_string(n));
  batch.Put(Table::kMeta, "counter", std::to_string(n));
  if (n > kKept) batch.Delete(Table::kBlocks, KeyOf(n - kKept));
  return batch;
}

// Checks that `store` is whole and returns its counter. An `unavailable` read ends the check: only
// a reader that runs next to a writer may get it.
struct Whole {
  uint32_t counter = 0;
  bool moved_on = false;
};
Whole CheckWhole(ColdStore& store) {
  Whole whole;
  const auto counter = store.Get(Table::kMeta, "counter");
  if (!counter.ok()) {
    EXPECT_EQ(counter.status().code(), StatusCode::kNotFound) << counter.status().ToString();
  } else {
    whole.counter = std::stoul(*counter);
  }
  const uint32_t c = whole.counter;

  uint32_t expected_block = c > kKept ? c - kKept + 1 : 1;
  const std::string first = KeyOf(0), last = KeyOf(0xffffffff);
  Status status =
      store.Scan(Table::kBlocks, first, last, [&](std::string_view key, std::string_view value) {
        EXPECT_EQ(ReadBigEndian32(key), expected_block);
        EXPECT_TRUE(value == BlockOf(expected_block)) << "block " << expected_block;
        ++expected_block;
        return true;
      });
  if (status.code() == StatusCode::kUnavailable) {
    whole.moved_on = true;
    return whole;
  }
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(expected_block, c + 1);

  uint32_t expected_text = 1;
  status = store.Scan(Table::kText, first, last, [&](std::string_view key, std::string_view value) {
    EXPECT_EQ(ReadBigEndian32(key), expected_text);
    EXPECT_EQ(value, "text " + std::to_string(expected_text));
    ++expected_text;
    return true;
  });
  if (status.code() == StatusCode::kUnavailable) {
    whole.moved_on = true;
    return whole;
  }
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(expected_text, c + 1);
  return whole;
}

TEST(RocksCrash, KeepsEveryAcknowledgedBatchAndNoPartialOne) {
  std::random_device device;
  const uint64_t seed = device();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  TempDir dir;
  uint32_t acknowledged = 0;
  for (int round = 0; round < 12; ++round) {
    {
      const bool compacts = round % 3 == 2;
      StoreChild child(
          {"write", dir / "store", std::to_string(random()), compacts ? "40" : "0", "0"});
      const auto life = std::chrono::milliseconds(50 + random() % 400);
      const std::string opened = child.Line();
      ASSERT_EQ(opened, "ok") << "round " << round;
      std::this_thread::sleep_for(life);
      child.Kill();
      for (std::string line = child.Line(); !line.empty(); line = child.Line())
        acknowledged = std::stoul(line);
    }
    auto store = OpenRocksStore(OptionsOf(dir / "store"));
    ASSERT_TRUE(store.ok()) << "round " << round << ": " << store.status().ToString();
    const Whole whole = CheckWhole(**store);
    ASSERT_GE(whole.counter, acknowledged) << "round " << round;
    ASSERT_LE(whole.counter, acknowledged + 1)
        << "round " << round << ": one batch may be written, not acknowledged";
    acknowledged = whole.counter;
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(acknowledged, 100u) << "the children should have got somewhere";
}

// The writer flushes some ten times a second (an ingest at full speed about once), so readers often
// open in the middle of a change.
TEST(RocksCrash, AReaderNextToABusyWriterSeesAWholeState) {
  TempDir dir;
  StoreChild child({"write", dir / "store", "1", "0", "2000"});
  ASSERT_EQ(child.Line(), "ok");
  for (int i = 0; i < 50; ++i) ASSERT_FALSE(child.Line().empty());
  RocksOptions options = OptionsOf(dir / "store");
  options.read_only = true;
  int whole_count = 0, moved_on_count = 0, unavailable_count = 0;
  uint32_t last = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  while (std::chrono::steady_clock::now() < end) {
    auto store = OpenRocksStore(options);
    if (!store.ok()) {
      ASSERT_EQ(store.status().code(), StatusCode::kUnavailable) << store.status().ToString();
      ++unavailable_count;
      continue;
    }
    const Whole whole = CheckWhole(**store);
    ASSERT_FALSE(testing::Test::HasFailure()) << "counter " << whole.counter;
    EXPECT_GE(whole.counter, last) << "a later reader sees no less";
    last = whole.counter;
    ++(whole.moved_on ? moved_on_count : whole_count);
  }
  std::cout << "whole " << whole_count << ", moved on " << moved_on_count << ", could not open "
            << unavailable_count << ", batches " << last << "\n";
  EXPECT_GT(whole_count, 3);
}

int RunChild(char** argv) {
  const std::string role = argv[2], path = argv[3];
  if (role == "values") return WriteValuesForever(path, std::atoi(argv[4]));
  if (role == "try" && setuid(std::atoi(argv[4])) != 0) return 1;
  auto store = OpenRocksStore(OptionsOf(path));
  printf("%s\n", store.status().ToString().c_str());
  fflush(stdout);
  if (!store.ok() || role == "try") return 0;
  if (role == "hold") {
    for (;;) pause();
  }
  std::mt19937_64 random(std::stoull(argv[4]));
  const int compact_every = std::atoi(argv[5]);
  const std::chrono::microseconds pause_between(std::atoi(argv[6]));
  const auto counter = (*store)->Get(Table::kMeta, "counter");
  for (uint32_t n = counter.ok() ? std::stoul(*counter) + 1 : 1;; ++n) {
    const auto durability = random() % 8 == 0 ? Durability::kSynced : Durability::kBuffered;
    const Status written = (*store)->Write(BatchOf(n), durability);
    if (!written.ok()) {
      fprintf(stderr, "child: %s\n", written.ToString().c_str());
      return 1;
    }
    printf("%u\n", n);
    fflush(stdout);
    if (pause_between.count() > 0) std::this_thread::sleep_for(pause_between);
    if (compact_every == 0 || n % compact_every != 0) continue;
    if (const Status s = (*store)->Compact(); !s.ok()) {
      fprintf(stderr, "child: %s\n", s.ToString().c_str());
      return 1;
    }
  }
}

}  // namespace
}  // namespace longhold

int main(int argc, char** argv) {
  if (argc > 3 && std::string(argv[1]) == "--store-child") return longhold::RunChild(argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
