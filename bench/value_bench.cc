// Writes values of one size to a value log and to RocksDB (the store of memories: its log, and blob
// files for large values), in turn, and prints values per second, processor time and bytes written.
//
// value_bench DIRECTORY VALUE_BYTES VALUES KEYS BATCH
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "store/rocks_store.h"
#include "store/value_log.h"

namespace longhold {
namespace {

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Setting {
  std::string directory;
  size_t value_bytes = 65536, values = 4096, keys = 1024, batch = 1;
};

std::string KeyOf(size_t i) { return "key:" + std::to_string(i); }

template <typename WriteSome>
void Measure(const char* name, const Setting& setting, const WriteSome& write) {
  const std::string bytes(setting.value_bytes, 'v');
  const auto begin = std::chrono::steady_clock::now();
  const double cpu = CpuSeconds();
  uint32_t random = 1;
  for (size_t i = 0; i < setting.values; i += setting.batch) {
    std::vector<std::string> keys;
    for (size_t j = 0; j < setting.batch; ++j) {
      random = random * 1664525 + 1013904223;
      keys.push_back(KeyOf((random >> 8) % setting.keys));
    }
    const Status status = write(keys, bytes);
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      std::exit(1);
    }
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const double per = 1e6 / static_cast<double>(setting.values);
  std::printf("%-8s %8.0f values/s %8.1f us %8.1f us of processor time each\n", name,
              static_cast<double>(setting.values) / seconds, seconds * per,
              (CpuSeconds() - cpu) * per);
  std::fflush(stdout);
}

void RunLog(const Setting& setting) {
  auto log = OpenValueLog({.path = setting.directory + "/log", .now_ms = UnixMilliseconds});
  if (!log.ok()) std::exit(1);
  Measure("log", setting, [&](const std::vector<std::string>& keys, const std::string& bytes) {
    std::vector<ValueChange> changes;
    for (const std::string& key : keys) changes.push_back({.key = key, .value = MakeValue(bytes)});
    return (*log)->Write(changes);
  });
}

void RunRocks(const Setting& setting) {
  auto store = OpenRocksStore({.path = setting.directory + "/rocks"});
  if (!store.ok()) std::exit(1);
  Measure("rocksdb", setting, [&](const std::vector<std::string>& keys, const std::string& bytes) {
    WriteBatch batch;
    for (const std::string& key : keys) batch.Put(Table::kBlocks, key, bytes);
    return (*store)->Write(std::move(batch), Durability::kBuffered);
  });
}

}  // namespace
}  // namespace longhold

int main(int argc, char** argv) {
  using namespace longhold;
  if (argc != 6) {
    std::fprintf(stderr, "value_bench DIRECTORY VALUE_BYTES VALUES KEYS BATCH\n");
    return 2;
  }
  const auto number = [&](int i) {
    return static_cast<size_t>(std::strtoull(argv[i], nullptr, 10));
  };
  const Setting setting{argv[1], number(2), number(3), number(4), number(5)};
  for (int round = 0; round < 3; ++round) {
    std::filesystem::remove_all(setting.directory + "/log");
    std::filesystem::remove_all(setting.directory + "/rocks");
    RunLog(setting);
    RunRocks(setting);
  }
  return 0;
}
