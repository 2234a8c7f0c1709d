// The value log: what it returns, keeps over a restart, and evicts; damage at every byte; encrypted
// files; several threads. A model in RAM is compared where much happens by chance. The limit of
// 16 MiB is the smallest: its log files have 512 KiB, so that cleaning is always at work.
// value_crash_test.cc kills the process.
#include "store/value_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "base/seal.h"
#include "tests/store/temp_dir.h"
#include "tests/support/sanitized.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint64_t kDisk = kValueDiskBytesMin;

class ValueLogTest : public testing::Test {
 protected:
  Status TryOpen(ValueLogOptions options = {}) {
    log_.reset();
    options.path = dir_ / "values";
    if (options.disk_bytes_max == ValueLogOptions().disk_bytes_max) options.disk_bytes_max = kDisk;
    options.now_ms = [this] { return now_ms_.load(); };
    options.note = [this](std::string_view note) {
      const std::lock_guard lock(mutex_);
      notes_.emplace_back(note);
    };
    Result<std::unique_ptr<ValueStore>> log = OpenValueLog(options);
    if (!log.ok()) return log.status();
    log_ = std::move(*log);
    return OkStatus();
  }
  void Open(const ValueLogOptions& options = {}) {
    const Status status = TryOpen(options);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  // Whether the change was applied.
  bool Change(ValueChange change) {
    std::vector<ValueChange> changes;
    changes.push_back(std::move(change));
    const Status status = log_->Write(changes);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return changes[0].applied;
  }
  bool Set(const std::string& key, std::string_view value) {
    return Change({.key = key, .value = MakeValue(value)});
  }
  bool Delete(const std::string& key) { return Change({.key = key, .value = nullptr}); }
  // "(none)" for a miss.
  std::string Get(const std::string& key) {
    const Result<Value> value = log_->Get(key);
    if (value.ok()) return std::string((*value)->view());
    EXPECT_EQ(value.status().code(), StatusCode::kNotFound) << value.status().ToString();
    return "(none)";
  }
  std::vector<fs::path> Files() {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(dir_ / "values"))
      if (entry.path().extension() == ".values") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
  }

  TempDir dir_;
  std::atomic<int64_t> now_ms_{1000};
  std::mutex mutex_;
  std::vector<std::string> notes_;
  std::unique_ptr<ValueStore> log_;
};

std::string BytesOf(uint32_t n, size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(n * 13 + i * 31 + (i >> 8));
  return bytes;
}

TEST_F(ValueLogTest, ReturnsWhatWasSetLast) {
  Open();
  EXPECT_EQ(Get("k"), "(none)");
  EXPECT_TRUE(Set("k", "one"));
  EXPECT_TRUE(Set("k", "two"));
  EXPECT_TRUE(Set("", ""));
  const std::string binary("\0\r\n\xff", 4);
  EXPECT_TRUE(Set(binary, binary));
  EXPECT_EQ(Get("k"), "two");
  EXPECT_EQ(Get(""), "");
  EXPECT_EQ(Get(binary), binary);
  EXPECT_TRUE(Delete("k"));
  EXPECT_FALSE(Delete("k"));
  EXPECT_EQ(Get("k"), "(none)");
  EXPECT_EQ(log_->Stats().keys, 2u);
  Open();
  EXPECT_EQ(Get("k"), "(none)");
  EXPECT_EQ(Get(binary), binary);
  EXPECT_EQ(Get(""), "");
}

TEST_F(ValueLogTest, ConditionsSeeTheChangesBeforeThem) {
  Open();
  std::vector<ValueChange> changes;
  const auto add = [&](const char* key, const char* value, ValueChange::When when) {
    changes.push_back({.key = key, .value = MakeValue(value), .when = when});
  };
  using When = ValueChange::When;
  add("a", "1", When::kIfPresent);
  add("a", "2", When::kIfAbsent);
  add("a", "3", When::kIfAbsent);
  add("a", "4", When::kIfPresent);
  changes.push_back({.key = "a", .value = nullptr});
  changes.push_back({.key = "a", .value = nullptr});
  add("a", "5", When::kIfAbsent);
  ASSERT_TRUE(log_->Write(changes).ok());
  std::vector<bool> applied;
  for (const ValueChange& change : changes) applied.push_back(change.applied);
  EXPECT_THAT(applied, ElementsAre(false, true, false, true, true, false, true));
  EXPECT_EQ(Get("a"), "5");
}

TEST_F(ValueLogTest, ValuesExpireAlsoOverARestart) {
  Open();
  Change({.key = "soon", .value = MakeValue("x"), .expires_ms = 2000});
  Change({.key = "late", .value = MakeValue("y"), .expires_ms = 9000});
  EXPECT_EQ(Get("soon"), "x");
  now_ms_ = 2000;
  EXPECT_EQ(log_->Find("soon").where, ValuePlace::Where::kNowhere);
  EXPECT_EQ(log_->Stats().expired, 1u);
  EXPECT_TRUE(
      Change({.key = "soon", .value = MakeValue("z"), .when = ValueChange::When::kIfAbsent}));
  Open();
  EXPECT_EQ(Get("soon"), "z");
  EXPECT_EQ(Get("late"), "y");
  now_ms_ = 9000;
  Open();
  EXPECT_EQ(Get("late"), "(none)");
}

TEST_F(ValueLogTest, ValuesBeyondTheRamTierComeFromTheDisk) {
  Open({.ram_bytes_max = 1 << 20});
  for (uint32_t n = 0; n < 20; ++n) Set("k" + std::to_string(n), BytesOf(n, 100'000));
  EXPECT_LE(log_->Stats().ram_bytes, 1u << 20);
  EXPECT_EQ(log_->Find("k19").where, ValuePlace::Where::kRam);
  EXPECT_EQ(log_->Find("k0").where, ValuePlace::Where::kDisk);
  EXPECT_EQ(log_->Find("k0").bytes, 100'000u);
  EXPECT_EQ(Get("k0"), BytesOf(0, 100'000));
  EXPECT_EQ(log_->Find("k0").where, ValuePlace::Where::kRam)
      << "a value that was read stays in RAM";
  EXPECT_EQ(log_->Stats().hits_disk, 1u);
  log_->Limit(kDisk, 1 << 10);
  EXPECT_EQ(log_->Find("k0").where, ValuePlace::Where::kDisk);
}

TEST_F(ValueLogTest, TooLongKeysAndValuesAreRefused) {
  Open();
  std::vector<ValueChange> changes(1);
  changes[0] = {.key = std::string(kValueKeyBytesMax + 1, 'k'), .value = MakeValue("v")};
  EXPECT_EQ(log_->Write(changes).code(), StatusCode::kInvalidArgument);
  changes[0] = {.key = "k", .value = MakeValue(std::string(log_->ValueBytesMax() + 1, 'v'))};
  EXPECT_EQ(log_->Write(changes).code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(Set(std::string(kValueKeyBytesMax, 'k'), BytesOf(1, log_->ValueBytesMax())));
}

// Values of 200 kB, five times the limit. Some are read again and again.
TEST_F(ValueLogTest, EvictsTheLeastRecentlyUsedUnderItsLimit) {
  Open({.ram_bytes_max = 1 << 20});
  const uint32_t values = 5 * kDisk / 200'000;
  for (uint32_t n = 0; n < values; ++n) {
    Set("k" + std::to_string(n), BytesOf(n, 200'000));
    for (uint32_t kept = 0; kept < 10 && kept <= n; ++kept)
      ASSERT_EQ(Get("k" + std::to_string(kept)), BytesOf(kept, 200'000)) << n;
    ASSERT_LE(log_->Stats().disk_bytes, kDisk);
  }
  const ValueStats stats = log_->Stats();
  EXPECT_EQ(stats.evicted + stats.keys, values);
  EXPECT_GT(stats.value_bytes, kDisk * 3 / 4);
  // Of the others the last ones are left.
  for (uint32_t n = values - stats.keys + 10; n < values; ++n)
    EXPECT_EQ(Get("k" + std::to_string(n)), BytesOf(n, 200'000)) << n;
  EXPECT_EQ(Get("k" + std::to_string(values - stats.keys)), "(none)");
  uint64_t on_disk = 0;
  for (const fs::path& file : Files()) on_disk += fs::file_size(file);
  EXPECT_LE(on_disk, kDisk);
  // What the sparing of tables of contents costs nobody: the same values after a restart.
  Open();
  for (uint32_t kept = 0; kept < 10; ++kept)
    EXPECT_EQ(Get("k" + std::to_string(kept)), BytesOf(kept, 200'000));
}

TEST_F(ValueLogTest, TheIndexIsBoundedToo) {
  Open({.ram_bytes_max = 1 << 20});
  for (uint32_t n = 0; n < 5000; ++n) Set("k" + std::to_string(n), "v");
  EXPECT_LE(log_->Stats().ram_bytes, 1u << 20);
  EXPECT_GT(log_->Stats().evicted, 0u);
  EXPECT_EQ(Get("k4999"), "v");
  Open({.ram_bytes_max = 1 << 20});
  EXPECT_LE(log_->Stats().ram_bytes, 1u << 20);
  EXPECT_EQ(Get("k4999"), "v");
}

// Random changes against a map, with restarts. The values fit the limit, so none is evicted; what
// was overwritten fills the limit several times, so cleaning copies values forward.
TEST_F(ValueLogTest, EqualsAMapWhileItCleans) {
  std::mt19937 random(7);
  std::map<std::string, std::string> model;
  const int rounds = kSanitized ? 2 : 6;
  for (int round = 0; round < rounds; ++round) {
    Open({.ram_bytes_max = 2 << 20});
    for (int step = 0; step < 400; ++step) {
      std::vector<ValueChange> changes;
      for (uint32_t i = random() % 5 + 1; i > 0; --i) {
        const std::string key = "key " + std::to_string(random() % 100);
        if (random() % 5 == 0) {
          changes.push_back({.key = key, .value = nullptr});
          model.erase(key);
        } else {
          const std::string value = BytesOf(random() % 1000, random() % 80'000);
          changes.push_back({.key = key, .value = MakeValue(value)});
          model[key] = value;
        }
      }
      ASSERT_TRUE(log_->Write(changes).ok());
      const std::string key = "key " + std::to_string(random() % 100);
      const auto found = model.find(key);
      ASSERT_EQ(Get(key), found == model.end() ? "(none)" : found->second);
    }
    const ValueStats stats = log_->Stats();
    EXPECT_EQ(stats.keys, model.size());
    EXPECT_EQ(stats.evicted, 0u);
    EXPECT_LE(stats.disk_bytes, kDisk);
    EXPECT_EQ(stats.damaged, 0u);
  }
  Open();
  for (int n = 0; n < 100; ++n) {
    const std::string key = "key " + std::to_string(n);
    EXPECT_EQ(Get(key), model.contains(key) ? model[key] : "(none)");
  }
}

// A value that was evicted may return with a restart, but never an older one.
TEST_F(ValueLogTest, AnOlderValueNeverComesBack) {
  std::mt19937 random(11);
  std::map<std::string, std::string> newest;
  for (int round = 0; round < (kSanitized ? 2 : 5); ++round) {
    Open({.ram_bytes_max = 1 << 20});
    for (int step = 0; step < 200; ++step) {
      const std::string key = "key " + std::to_string(random() % 300);
      if (random() % 8 == 0) {
        Delete(key);
        newest[key] = "(none)";
      } else {
        newest[key] = std::to_string(step) + BytesOf(random() % 1000, 100'000);
        Set(key, newest[key]);
      }
    }
    for (const auto& [key, value] : newest) {
      const std::string got = Get(key);
      EXPECT_TRUE(got == value || got == "(none)") << key;
    }
  }
}

TEST_F(ValueLogTest, ADamagedValueIsAMissAndIsNamed) {
  Open();
  Set("a", BytesOf(1, 5000));
  Set("b", BytesOf(2, 5000));
  Set("c", BytesOf(3, 5000));
  log_.reset();
  {
    std::fstream file(Files()[0], std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(8000);
    file.put('\x55');
    file.put('\xaa');
  }
  Open();
  EXPECT_EQ(Get("a"), BytesOf(1, 5000));
  EXPECT_EQ(Get("b"), "(none)");
  EXPECT_EQ(Get("c"), BytesOf(3, 5000));
  EXPECT_EQ(log_->Stats().damaged, 1u);
  EXPECT_EQ(log_->Stats().misses, 1u);
  ASSERT_EQ(notes_.size(), 1u);
  EXPECT_THAT(notes_[0], HasSubstr("checksum mismatch"));
  EXPECT_THAT(notes_[0], HasSubstr(Files()[0].string()));
  EXPECT_EQ(log_->Find("b").where, ValuePlace::Where::kNowhere);
  EXPECT_TRUE(Set("b", "again"));
  EXPECT_EQ(Get("b"), "again");
}

// Flips a bit of every third byte of a log file, and cuts it there, of a plain and of an encrypted
// log. Every value is right or a miss. The log opens, except when the header names another version
// or key.
TEST_F(ValueLogTest, DamageAnywhereGivesNoWrongBytes) {
  for (const bool sealed : {false, true}) {
    fs::remove_all(dir_ / "values");
    ValueLogOptions options;
    if (sealed) options.master = Secret(std::string(kSealKeyBytes, 'k'));
    Open(options);
    std::map<std::string, std::string> model;
    for (uint32_t n = 0; n < 4; ++n) {
      const std::string key = "key " + std::to_string(n);
      model[key] = BytesOf(n, 40);
      Set(key, model[key]);
    }
    Set("key 1", model["key 1"] = "new");
    Delete("key 2");
    model["key 2"] = "(none)";
    log_.reset();
    const fs::path path = Files()[0];
    const std::string whole = ReadWholeFile(path);
    const auto check = [&](const std::string& damaged, const std::string& what) {
      for (const fs::path& file : Files()) fs::remove(file);
      std::ofstream(path, std::ios::binary) << damaged;
      const Status status = TryOpen(options);
      if (!status.ok()) {
        EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << what << status.ToString();
        return;
      }
      for (const auto& [key, value] : model) {
        const std::string got = Get(key);
        // A deletion or a newer value that was cut off is a lost write, not wrong bytes.
        const bool older =
            (key == "key 1" && got == BytesOf(1, 40)) || (key == "key 2" && got == BytesOf(2, 40));
        EXPECT_TRUE(got == value || got == "(none)" || older) << what << " " << key;
      }
      EXPECT_TRUE(Set("more", "x"));
      EXPECT_EQ(Get("more"), "x");
    };
    const size_t step = kSanitized ? 13 : 3;
    for (size_t at = sealed ? 1 : 0; at < whole.size(); at += step) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ 1 << at % 8);
      check(damaged, "flip " + std::to_string(at));
      check(whole.substr(0, at), "cut " + std::to_string(at));
    }
  }
}

// A finished log file is read by its table of contents; without a good one by its records.
TEST_F(ValueLogTest, ADamagedTableOfContentsIsDoneWithout) {
  Open();
  for (uint32_t n = 0; n < 12; ++n) Set("k" + std::to_string(n), BytesOf(n, 100'000));
  log_.reset();
  ASSERT_GT(Files().size(), 1u);
  const fs::path first = Files()[0];
  const std::string whole = ReadWholeFile(first);
  for (const size_t from_end : {1, 10, 20, 60, 100}) {
    std::string damaged = whole;
    damaged[damaged.size() - from_end] ^= 4;
    std::ofstream(first, std::ios::binary) << damaged;
    Open();
    for (uint32_t n = 0; n < 12; ++n)
      EXPECT_EQ(Get("k" + std::to_string(n)), BytesOf(n, 100'000)) << from_end;
  }
  // With a good one, a damaged head in the middle costs nothing.
  std::string damaged = whole;
  damaged[100'100] ^= 1;
  std::ofstream(first, std::ios::binary) << damaged;
  Open();
  EXPECT_EQ(Get("k2"), BytesOf(2, 100'000));
}

// A log file that cannot be made must not leave the one before half finished: what is written after
// a table of contents is not found again.
TEST_F(ValueLogTest, WhatIsWrittenAfterAFailedNewLogFileStays) {
  Open();
  const uint64_t log_file_bytes = kDisk / 32;
  ASSERT_TRUE(Set("first", BytesOf(1, log_file_bytes - 50'000)));
  ASSERT_EQ(Files().size(), 1u);
  // In the place of the next log file.
  const fs::path next = dir_ / "values/0000000002.values";
  fs::create_directory(next);
  std::vector<ValueChange> changes;
  changes.push_back({.key = "long", .value = MakeValue(BytesOf(2, 60'000))});
  EXPECT_FALSE(log_->Write(changes).ok());
  changes.clear();
  changes.push_back({.key = "short", .value = MakeValue("s")});
  const bool written = log_->Write(changes).ok();
  fs::remove(next);
  ASSERT_TRUE(Set("last", "l"));
  Open();
  EXPECT_EQ(Get("short"), written ? "s" : "(none)");
  EXPECT_EQ(Get("last"), "l");
  EXPECT_EQ(Get("first"), BytesOf(1, log_file_bytes - 50'000));
}

// A log file without its header is removed or set aside. The one before it is then not the last of
// the list, so what a crash left at its end is still there: nothing may be appended to it.
TEST_F(ValueLogTest, NothingIsAppendedBehindDamage) {
  for (const std::string& next : {std::string(), std::string(100, 'x')}) {
    SCOPED_TRACE(next.size());
    fs::remove_all(dir_ / "values");
    Open();
    for (uint32_t i = 0; i < 10; ++i) Set(std::to_string(i), BytesOf(i, 1000));
    log_.reset();
    ASSERT_EQ(Files().size(), 1u);
    // The head of a record in the middle.
    std::fstream file(Files()[0], std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(fs::file_size(Files()[0]) - 3 * 1049 + 8));
    file.write("\xff\xff", 2);
    file.close();
    std::ofstream(dir_ / "values/0000000002.values") << next;
    Open();
    EXPECT_EQ(Get("1"), BytesOf(1, 1000));
    ASSERT_TRUE(Set("new", "n"));
    Open();
    EXPECT_EQ(Get("new"), "n");
  }
}

// A process that was killed has perhaps not synced what it wrote, so the next one does.
TEST_F(ValueLogTest, WhatIsFoundIsSynced) {
  Open();
  Set("k", "v");
  Open({.sync_period = std::chrono::milliseconds(1)});
  for (int i = 0; i < 500 && log_->Stats().syncs == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_GE(log_->Stats().syncs, 1u);
}

TEST_F(ValueLogTest, OneProcessAtATimeHasItOpen) {
  Open();
  const auto other = OpenValueLog({.path = dir_ / "values", .now_ms = [] { return int64_t{0}; }});
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(ValueLogTest, AFullDiskIsAnErrorAndLosesNothing) {
  Open();
  Set("k", "v");
  Open({.disk_reserve_bytes = uint64_t{1} << 60});
  std::vector<ValueChange> changes;
  changes.push_back({.key = "k", .value = MakeValue("w")});
  EXPECT_EQ(log_->Write(changes).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(Get("k"), "v");
}

TEST_F(ValueLogTest, WithAKeyNothingIsReadableInTheFiles) {
  const std::string canary = "canary-4071926", key_canary = "name-of-a-model";
  ValueLogOptions options;
  options.master = Secret(std::string(kSealKeyBytes, 'k'));
  options.owner = "firm";
  Open();
  Set("plain", "old");
  Open(options);
  Set(key_canary, canary + BytesOf(1, 600'000));  // above a log file, so the first gets its table
  Set("second", canary);
  Set("third", BytesOf(1, 400'000));
  EXPECT_EQ(Get("plain"), "old") << "what was plain stays readable";
  log_.reset();
  for (const fs::path& file : Files()) {
    EXPECT_THAT(ReadWholeFile(file), testing::Not(HasSubstr(canary))) << file;
    EXPECT_THAT(ReadWholeFile(file), testing::Not(HasSubstr(key_canary))) << file;
  }
  Open(options);
  EXPECT_EQ(Get(key_canary), canary + BytesOf(1, 600'000));
  EXPECT_EQ(Get("second"), canary);
  EXPECT_EQ(TryOpen().code(), StatusCode::kFailedPrecondition) << "no key";
  options.owner = "another";
  EXPECT_EQ(TryOpen(options).code(), StatusCode::kFailedPrecondition);
  options.owner = "firm";
  options.master = Secret(std::string(kSealKeyBytes, 'x'));
  EXPECT_EQ(TryOpen(options).code(), StatusCode::kFailedPrecondition);
}

// Readers, a writer that evicts and cleans, and syncs fifty times a second. A value says its key.
TEST_F(ValueLogTest, ReadersSeeWholeValuesNextToAWriter) {
  Open({.ram_bytes_max = 1 << 20, .sync_period = std::chrono::milliseconds(20)});
  std::atomic<bool> stop{false};
  std::atomic<int> hits{0};
  std::vector<std::thread> readers;
  for (unsigned r = 0; r < 3; ++r) {
    readers.emplace_back([&, r] {
      std::mt19937 random(r);
      while (!stop) {
        const std::string key = std::to_string(100 + random() % 300);
        const Result<Value> value = log_->Get(key);
        if (!value.ok()) continue;
        ++hits;
        EXPECT_EQ((*value)->view().substr(0, 3), key);
        (void)log_->Find(key);
        (void)log_->Stats();
      }
    });
  }
  std::mt19937 random(99);
  for (int i = 0; i < (kSanitized ? 300 : 600); ++i) {
    const std::string key = std::to_string(100 + random() % 300);
    Set(key, key + BytesOf(i, 60'000));
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_GT(hits, 0);
  EXPECT_EQ(log_->Stats().damaged, 0u);
}

}  // namespace
}  // namespace longhold
