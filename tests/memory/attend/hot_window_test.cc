// Compares HotWindow with masked attention in double precision by the rule of its header. Also
// compares it with itself along other routes: restored from blocks, and with other worker counts.
//
// Positions. A pass that begins at token P shows its queries three groups of keys: at most `sink`
// sink tokens, then at most `window` tokens before P, then the pass itself. Their virtual positions
// are 0, 1, 2, ... So all distances within the window are true. The sinks come right before the
// window, which is nearer than in the text once P > sink + window. The distance to a sink thus
// depends on where the pass began. Therefore the tests compare results pass by pass, and an ingest
// keeps to its grid of passes.
//
// Sizes: every length from 1 to 130 around the first two blocks, and lengths at and next to the
// ends of sinks (64), window (128) and passes (128). Passes have 64, 128 and 192 tokens. Tolerance:
// as in working_set_test.cc, since keys and values are exact in 16 bits. Restored windows and other
// worker counts must agree bit for bit.
#include "memory/attend/hot_window.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/attention_driver.h"

namespace longhold {
namespace {

constexpr float kTolerance = 3e-5f;
constexpr uint64_t kSeed = 77001;

KvGeometry Geometry() {
  KvGeometry g = TestGeometry();
  g.layers = {0, 5};
  g.rope.resize(2);
  return g;
}

// The keys that token `p` attends to in a pass that began at `pass_begin`, with their positions, by
// the header's rule.
std::vector<SeenKey> Visible(const HotWindowOptions& o, uint64_t pass_begin, uint64_t p) {
  const uint64_t sinks = std::min<uint64_t>(pass_begin, o.sink_tokens);
  const uint64_t recent = std::min<uint64_t>(pass_begin - sinks, o.window_tokens);
  std::vector<SeenKey> keys;
  for (uint64_t t = 0; t <= p; ++t) {
    if (t >= o.sink_tokens && t + o.window_tokens <= p) continue;
    // A sink outside the pass moves to the front. Every other token keeps its distance to the pass.
    const uint64_t position = t < sinks ? t : t - (pass_begin - recent) + sinks;
    keys.push_back({static_cast<uint32_t>(t), static_cast<uint32_t>(position), 0});
  }
  return keys;
}

uint32_t QueryPosition(const HotWindowOptions& o, uint64_t pass_begin, uint64_t p) {
  const uint64_t sinks = std::min<uint64_t>(pass_begin, o.sink_tokens);
  return static_cast<uint32_t>(sinks + std::min<uint64_t>(pass_begin - sinks, o.window_tokens) + p -
                               pass_begin);
}

// Ingests tokens [begin, end) in passes of `pass` tokens and returns the outputs of each pass.
std::vector<LayerOutputs> Read(HotWindow& window, const KvGeometry& g, const Sequence& s,
                               uint32_t begin, uint32_t end, uint32_t pass, uint32_t workers = 1) {
  std::vector<LayerOutputs> out;
  for (uint32_t at = begin; at < end; at += pass) {
    const uint32_t stop = std::min(end, at + pass);
    window.BeginPass(stop - at);
    out.push_back(DrivePass(window, g, s, at, stop, workers));
    window.EndPass();
  }
  return out;
}

void ExpectNaive(const HotWindowOptions& o, const KvGeometry& g, const Sequence& s, uint32_t length,
                 uint32_t pass, uint32_t every) {
  HotWindow window(g, o);
  const std::vector<LayerOutputs> out = Read(window, g, s, 0, length, pass);
  ASSERT_EQ(window.position(), length);
  const size_t width = size_t{g.q_heads} * g.head_dim;
  for (uint32_t t = 0; t < length; ++t) {
    // every length around block edges, otherwise a sample
    if (t % every != 0 && t % 64 > 1 && t % 64 < 62 && t + 1 != length) continue;
    const uint32_t begin = t / pass * pass;
    for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
      const std::vector<float> expected =
          NaiveAttend(g, s, slot, t, QueryPosition(o, begin, t), Visible(o, begin, t));
      const std::span<const float> got(out[t / pass][slot].data() + (t - begin) * width, width);
      ASSERT_LE(LargestDifference(got, expected), kTolerance)
          << "length " << length << ", passes of " << pass << ", token " << t << ", slot " << slot;
    }
  }
}

TEST(HotWindow, IsFullAttentionForEveryShortDocument) {
  const KvGeometry g = Geometry();
  const Sequence s = RandomSequence(g, 130, kSeed);
  for (uint32_t length = 1; length <= 130; ++length)
    ExpectNaive({64, 128, 128}, g, s, length, 128, 13);
  ExpectNaive({64, 128, 64}, g, s, 130, 64, 1);
}

TEST(HotWindow, AttendsToSinksAndItsWindowAtEveryOffset) {
  const KvGeometry g = Geometry();
  const Sequence s = RandomSequence(g, 520, kSeed + 1);
  for (uint32_t pass : {64u, 128u, 192u}) {
    for (uint32_t length :
         {191u, 192u, 193u, 255u, 256u, 257u, 319u, 320u, 321u, 511u, 512u, 513u}) {
      ExpectNaive({64, 128, 192}, g, s, length, pass, pass == 64 && length == 513 ? 5 : 97);
    }
  }
}

TEST(HotWindow, SupportsOtherSinkAndWindowSizes) {
  const KvGeometry g = Geometry();
  const Sequence s = RandomSequence(g, 520, kSeed + 2);
  ExpectNaive({128, 64, 128}, g, s, 513, 64, 11);  // sinks that take two passes to fill
  ExpectNaive({128, 64, 128}, g, s, 513, 128, 11);
  ExpectNaive({64, 64, 512}, g, s, 513, 512, 11);  // a pass longer than the window
  ExpectNaive({64, 320, 64}, g, s, 513, 64, 11);   // a window longer than a pass
  ExpectNaive({0, 64, 64}, g, s, 300, 64, 11);     // no sinks
  KvGeometry capped = g;
  capped.softcap = 4.0f;
  ExpectNaive({64, 64, 128}, capped, s, 300, 128, 11);
}

// The two documents agree in their sinks and in their last 256 + 100 tokens. Between those, length
// and content differ.
TEST(HotWindow, ResultsDoNotDependOnEvictedTokens) {
  const KvGeometry g = Geometry();
  const HotWindowOptions o{64, 128, 128};
  const Sequence tail = RandomSequence(g, 356, kSeed + 6), sinks = RandomSequence(g, 64, kSeed + 7);
  std::vector<LayerOutputs> last;
  for (const uint32_t between : {64u, 192u, 1984u}) {
    Sequence s = sinks;
    for (const Sequence& part : {RandomSequence(g, between, kSeed + between), tail}) {
      s.tokens += part.tokens;
      for (size_t l = 0; l < g.layers.size(); ++l) {
        s.q[l].insert(s.q[l].end(), part.q[l].begin(), part.q[l].end());
        s.k[l].insert(s.k[l].end(), part.k[l].begin(), part.k[l].end());
        s.v[l].insert(s.v[l].end(), part.v[l].begin(), part.v[l].end());
      }
    }
    HotWindow window(g, o);
    last.push_back(Read(window, g, s, 0, s.tokens, 128).back());
  }
  EXPECT_EQ(last[0], last[1]);
  EXPECT_EQ(last[0], last[2]);
}

TEST(HotWindow, RestoredFromBlocksContinuesBitForBit) {
  const KvGeometry g = Geometry();
  const Sequence s = RandomSequence(g, 900, kSeed + 3, /*half_exact=*/false);
  const std::vector<KvBlock> blocks = BlocksOf(g, s);
  for (const HotWindowOptions& o : {HotWindowOptions{64, 128, 128}, HotWindowOptions{128, 64, 128},
                                    HotWindowOptions{64, 320, 192}}) {
    for (uint32_t pass : {64u, 128u}) {
      HotWindow unbroken(g, o);
      const std::vector<LayerOutputs> expected = Read(unbroken, g, s, 0, 900, pass);
      for (uint32_t position = 0; position < 900; position += pass) {
        HotWindow restored(g, o);
        std::vector<uint32_t> asked;
        restored.Restore(position, [&](uint32_t b) -> const KvBlock& {
          asked.push_back(b);
          return blocks[b];
        });
        EXPECT_THAT(asked, testing::Each(testing::Lt(position / 64)));
        ASSERT_EQ(restored.position(), position);
        const std::vector<LayerOutputs> out = Read(restored, g, s, position, 900, pass);
        for (size_t i = 0; i < out.size(); ++i) {
          ASSERT_EQ(out[i], expected[position / pass + i])
              << "restored at " << position << ", pass " << i << " of " << pass;
        }
      }
    }
  }
}

TEST(HotWindow, WorkerCountsDoNotChangeResults) {
  const KvGeometry g = Geometry();
  const Sequence s = RandomSequence(g, 700, kSeed + 4, /*half_exact=*/false);
  HotWindow one(g, {64, 128, 192});
  const std::vector<LayerOutputs> expected = Read(one, g, s, 0, 700, 192);
  for (uint32_t workers : {2u, 3u, 8u}) {
    HotWindow window(g, {64, 128, 192});
    EXPECT_EQ(Read(window, g, s, 0, 700, 192, workers), expected) << workers << " workers";
  }
}

TEST(HotWindow, ReturnsThePassesKeysAndValuesAsFp16) {
  const KvGeometry g = Geometry();
  const Sequence s = RandomSequence(g, 300, kSeed + 5, /*half_exact=*/false);
  const std::vector<KvBlock> blocks = BlocksOf(g, s);
  HotWindow window(g, {64, 64, 128});
  const size_t width = g.kv_width();
  for (uint32_t at = 0; at < 300; at += 128) {
    const uint32_t end = std::min(300u, at + 128);
    window.BeginPass(end - at);
    DrivePass(window, g, s, at, end, 2);
    window.EndPass();
    for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
      for (uint32_t t = at; t < end; ++t) {
        for (uint32_t c = 0; c < width; ++c) {
          ASSERT_EQ(window.PassKeys(slot)[(t - at) * width + c],
                    blocks[t / 64].Keys(slot)[(t % 64) * width + c]);
          ASSERT_EQ(window.PassValues(slot)[(t - at) * width + c],
                    blocks[t / 64].Values(slot)[(t % 64) * width + c]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace longhold
