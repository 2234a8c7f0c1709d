// The value log against sudden death. A child process makes numbered changes and prints each number
// once Write has returned. The test kills it (SIGKILL) at a random moment, opens the log and
// compares it with what was acknowledged. The limit is the smallest, so the log cleans all the
// time; the values fit it, so none is evicted.
//
// Change n sets key n % 60 to a value of 1 to 60 KB whose bytes are a function of n, or deletes it
// when n % 7 is 0. So each key must be as the last acknowledged change of it says, or as the one
// after the last of all says.
#include "tests/store/value_crash.h"

#include <gtest/gtest.h>
#include <stdio.h>

#include <chrono>
#include <random>
#include <thread>

#include "base/clock.h"
#include "store/value_log.h"
#include "tests/store/store_child.h"
#include "tests/store/temp_dir.h"

namespace longhold {
namespace {

constexpr unsigned kKeys = 60;

std::string KeyOf(unsigned n) { return "key " + std::to_string(n % kKeys); }

bool Deletes(unsigned n) { return n % 7 == 0; }

std::string ValueOf(unsigned n) {
  std::string value(1000 + n * 7919 % 59000, '\0');
  for (size_t i = 0; i < value.size(); ++i) value[i] = static_cast<char>(n + i * 31);
  return value;
}

ValueLogOptions OptionsOf(const std::string& path) {
  return {.path = path,
          .disk_bytes_max = kValueDiskBytesMin,
          .disk_reserve_bytes = 0,
          .sync_period = std::chrono::milliseconds(50),
          .now_ms = UnixMilliseconds};
}

TEST(ValueCrash, KeepsEveryAcknowledgedChange) {
  std::random_device device;
  const uint64_t seed = device();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  TempDir dir;
  unsigned acknowledged = 0;
  for (int round = 0; round < 12; ++round) {
    {
      StoreChild child({"values", dir / "values", std::to_string(acknowledged + 1)});
      ASSERT_EQ(child.Line(), "ok") << "round " << round;
      std::this_thread::sleep_for(std::chrono::milliseconds(50 + random() % 400));
      child.Kill();
      for (std::string line = child.Line(); !line.empty(); line = child.Line())
        acknowledged = std::stoul(line);
    }
    auto log = OpenValueLog(OptionsOf(dir / "values"));
    ASSERT_TRUE(log.ok()) << "round " << round << ": " << log.status().ToString();
    const unsigned first = acknowledged > kKeys ? acknowledged - kKeys + 1 : 1;
    for (unsigned n = first; n <= acknowledged; ++n) {
      const Result<Value> value = (*log)->Get(KeyOf(n));
      const auto is_as_after = [&](unsigned change) {
        return Deletes(change) ? !value.ok() && value.status().code() == StatusCode::kNotFound
                               : value.ok() && (*value)->view() == ValueOf(change);
      };
      // The change after the acknowledged ones may be written. It is of the key of the first of
      // these.
      EXPECT_TRUE(is_as_after(n) ||
                  (KeyOf(n) == KeyOf(acknowledged + 1) && is_as_after(acknowledged + 1)))
          << "round " << round << " change " << n << " of " << acknowledged;
    }
    EXPECT_EQ((*log)->Stats().damaged, 0u);
    if (testing::Test::HasFailure()) return;
    // The next child begins behind the change that may be there already: it makes it again.
  }
  EXPECT_GT(acknowledged, 500u) << "the children should have got somewhere";
}

}  // namespace

int WriteValuesForever(const std::string& path, unsigned first) {
  auto log = OpenValueLog(OptionsOf(path));
  printf("%s\n", log.status().ToString().c_str());
  fflush(stdout);
  if (!log.ok()) return 0;
  for (unsigned n = first;; ++n) {
    std::vector<ValueChange> changes(1);
    changes[0].key = KeyOf(n);
    if (!Deletes(n)) changes[0].value = MakeValue(ValueOf(n));
    if (const Status written = (*log)->Write(changes); !written.ok()) {
      fprintf(stderr, "child: %s\n", written.ToString().c_str());
      return 1;
    }
    printf("%u\n", n);
    fflush(stdout);
  }
}

}  // namespace longhold
