// The loops that measure the peak of a core. Every loop runs wherever it reports support. The sum
// of words must equal that of a plain loop at every length around the step of 16.

#include "attention/machine_peak.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

namespace longhold {
namespace {

TEST(MachinePeak, SumsWordsOfAnyCount) {
  std::vector<uint64_t> words(100);
  std::iota(words.begin(), words.end(), uint64_t{1} << 40);
  for (size_t count = 0; count <= words.size(); ++count) {
    // 8-byte steps give every alignment of the vectors
    const std::span some = std::span(words).subspan(words.size() - count);
    EXPECT_EQ(SumWords(some), std::accumulate(some.begin(), some.end(), uint64_t{0})) << count;
  }
}

TEST(MachinePeak, RunsEveryLoopThatTheProcessorHas) {
  const std::span<const PeakLoop> loops = PeakLoops();
  ASSERT_EQ(loops.size(), 3u);
  EXPECT_EQ(std::string(loops[0].name) + " " + std::string(loops[1].name) + " " +
                std::string(loops[2].name),
            "f32 int8 bf16");
  EXPECT_NE(loops[0].run, nullptr) << "every processor multiplies floats";
  for (const PeakLoop& loop : loops) {
    EXPECT_EQ(loop.run == nullptr, loop.instruction.empty());
    EXPECT_EQ(loop.run == nullptr, loop.operations_per_round == 0);
    if (loop.run != nullptr) loop.run(1000);
  }
}

}  // namespace
}  // namespace longhold
