// The time to read a block from the store, and the share of the checksum.
//
//   read_bench DIR [BLOCKS]
//
// Creates a store in DIR, which must not exist, for each of the codecs exact and k5v4. The store
// has BLOCKS (default 400) blocks of SmolLM2's shape with normally distributed elements. The
// program reads all blocks in random order from the page cache, eleven times, and decodes blocks.
// It also times the CRC-32C of as many bytes, which every read computes: with the processor's
// instruction (base/crc32c.h), and with librocksdb's own code. It prints median and range of the
// thread's CPU time. A read from the page cache takes CPU time only.
#include <dlfcn.h>
#include <malloc.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "attention/kernels.h"
#include "base/crc32c.h"
#include "store/block_codec.h"
#include "store/rocks_store.h"

using namespace longhold;

namespace {

constexpr BlockShape kShape{30, 192};
constexpr int kRounds = 11;

int Fail(const Status& status) {
  std::fprintf(stderr, "read_bench: %s\n", status.message().c_str());
  return 1;
}

KvBlock RandomBlock(std::mt19937_64& random) {
  KvBlock block = KvBlock::Empty(kShape);
  block.tokens = kBlockTokens;
  std::normal_distribution<float> normal;
  std::vector<float> row(size_t{kBlockTokens} * kShape.kv_width);
  for (uint32_t layer = 0; layer < kShape.layers; ++layer) {
    for (uint16_t* rows : {block.Keys(layer), block.Values(layer)}) {
      for (float& x : row) x = normal(random);
      Kernels().float_to_half(row.data(), rows, row.size());
    }
  }
  return block;
}

double Microseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

// Runs `work` on each value, kRounds times. Returns median and range of the time per value, in
// microseconds.
std::string Times(size_t values, const std::function<void(size_t)>& work) {
  std::vector<double> rounds;
  for (int round = 0; round < kRounds; ++round) {
    const double begin = Microseconds();
    for (size_t i = 0; i < values; ++i) work(i);
    rounds.push_back((Microseconds() - begin) / static_cast<double>(values));
  }
  std::sort(rounds.begin(), rounds.end());
  char text[80];
  std::snprintf(text, sizeof text, "%.0f (%.0f-%.0f)", rounds[kRounds / 2], rounds.front(),
                rounds.back());
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || std::filesystem::exists(argv[1])) {
    std::fprintf(stderr, "usage: read_bench DIR [BLOCKS]; DIR must not exist\n");
    return 2;
  }
  mallopt(M_MMAP_THRESHOLD, 32 << 20);  // as in service/cli/main.cc
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  const size_t blocks = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 400;
  void* const library = dlopen("librocksdb.so.7.8", RTLD_NOW | RTLD_NOLOAD);
  const auto own = reinterpret_cast<uint32_t (*)(uint32_t, const char*, size_t)>(
      library == nullptr ? nullptr : dlsym(library, "_ZN7rocksdb6crc32c6ExtendEjPKcm"));
  std::mt19937_64 random(1);
  std::printf(
      "| codec | bytes | read, us | decode | CRC-32C, part of read | CRC-32C of librocksdb "
      "|\n|---|---|---|---|---|---|\n");
  for (const std::string name : {"exact", "k5v4"}) {
    const BlockCodec& codec = *FindCodec(name);
    std::vector<std::string> keys;
    uint64_t bytes = 0;
    std::string value;
    {
      auto store = OpenRocksStore({.path = std::string(argv[1]) + "/" + name});
      if (!store.ok()) return Fail(store.status());
      for (size_t i = 0; i < blocks; ++i) {
        AppendBigEndian32(&keys.emplace_back(), static_cast<uint32_t>(i));
        value = codec.Encode(RandomBlock(random));
        bytes += value.size();
        WriteBatch batch;
        batch.Put(Table::kBlocks, keys.back(), value);
        if (const Status written = (*store)->Write(std::move(batch), Durability::kBuffered);
            !written.ok())
          return Fail(written);
      }
    }
    auto store = OpenRocksStore({.path = std::string(argv[1]) + "/" + name, .read_only = true});
    if (!store.ok()) return Fail(store.status());
    std::shuffle(keys.begin(), keys.end(), random);
    uint64_t sum = 0;  // uses all results, so that the compiler cannot drop the work
    const std::string read =
        Times(blocks, [&](size_t i) { sum += (*store)->Get(Table::kBlocks, keys[i])->size(); });
    const std::string decode =
        Times(20, [&](size_t) { sum += codec.Decode(value, kShape)->tokens; });
    std::vector<std::string> values(16, value);  // larger than the caches
    const std::string crc = Times(values.size(), [&](size_t i) { sum += Crc32c(values[i]); });
    const std::string theirs = own == nullptr ? "not found" : Times(values.size(), [&](size_t i) {
      sum += own(0, values[i].data(), values[i].size());
    });
    std::printf("| %s | %llu | %s | %s | %s | %s |\n", name.c_str(),
                static_cast<unsigned long long>(bytes / blocks), read.c_str(), decode.c_str(),
                crc.c_str(), theirs.c_str());
    if (sum == 0) return 1;
  }
  return 0;
}
