// Compares WorkingSet with plain full attention in double precision, and with itself along other
// routes.
//
// What is compared: (1) the outputs of passes with NaiveAttend over the same keys, at the virtual
// positions that the header promises (key i at position i); (2) routes that must agree bit for bit,
// because they compute the same values in the same order: several workers with one, and blocks
// placed by several threads with blocks appended.
//
// Sizes: 150 tokens are two full blocks and a partial one. Passes are cut at 1, at block edges and
// next to them. Tolerance of (1): keys and values are exact in 16 bits, so only float rounding is
// left. Logits stay below 10, so a float logit is off by at most about 10 * 8 * 2^-24 = 5e-6.
// Outputs (weighted means of |v| < 5) are off by that times 5: 3e-5 is allowed.
#include "memory/attend/working_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/half.h"
#include "tests/support/attention_driver.h"

namespace longhold {
namespace {

constexpr float kTolerance = 3e-5f;
// Whole blocks of stored rows round their rotated keys to fp16, by at most 2^-11 of their size. So
// a logit scale * q.k moves by at most scale * sum|q||k| * 2^-11 < 0.35 * 30 * 5e-4 = 5e-3. An
// output of |v| < 5 moves by twice that share of it. 1e-3 was measured.
constexpr float kKeysRounded = 1e-2f;
constexpr uint64_t kSeed = 20240501;

// Runs tokens [0, tokens) in passes that end at `cuts`. Returns the outputs of all tokens.
LayerOutputs RunPasses(WorkingSet& set, const KvGeometry& g, const Sequence& s, uint32_t begin,
                       const std::vector<uint32_t>& cuts, uint32_t workers = 1,
                       bool values_first = false) {
  LayerOutputs all(g.layers.size());
  for (uint32_t cut : cuts) {
    set.BeginPass(cut - begin);
    const LayerOutputs out = DrivePass(set, g, s, begin, cut, workers, values_first);
    for (size_t slot = 0; slot < out.size(); ++slot)
      all[slot].insert(all[slot].end(), out[slot].begin(), out[slot].end());
    begin = cut;
  }
  return all;
}

std::vector<float> TokenRow(const KvGeometry& g, const LayerOutputs& out, uint32_t slot,
                            uint32_t token) {
  const size_t width = size_t{g.q_heads} * g.head_dim;
  return {out[slot].begin() + static_cast<ptrdiff_t>(token * width),
          out[slot].begin() + static_cast<ptrdiff_t>((token + 1) * width)};
}

std::vector<SeenKey> Prefix(uint32_t tokens) {
  std::vector<SeenKey> keys;
  for (uint32_t t = 0; t < tokens; ++t) keys.push_back({t, t, 0});
  return keys;
}

TEST(WorkingSet, IsFullCausalAttentionForEverySplitIntoPasses) {
  SCOPED_TRACE(kSeed);
  KvGeometry g = TestGeometry();
  for (const float softcap : {0.0f, 5.0f}) {
    g.softcap = softcap;
    const Sequence s = RandomSequence(g, 150, kSeed);
    std::vector<std::vector<float>> expected;
    for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
      for (uint32_t t = 0; t < s.tokens; ++t)
        expected.push_back(NaiveAttend(g, s, slot, t, t, Prefix(t + 1)));
    }
    std::vector<uint32_t> ones(150);
    std::iota(ones.begin(), ones.end(), 1);
    for (const std::vector<uint32_t>& cuts :
         {std::vector<uint32_t>{150}, {64, 128, 150}, {1, 2, 66, 150}, {63, 65, 129, 150}, ones}) {
      WorkingSet set(g, 150);
      const LayerOutputs out = RunPasses(set, g, s, 0, cuts);
      EXPECT_EQ(set.size(), 150u);
      for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
        for (uint32_t t = 0; t < s.tokens; ++t) {
          ASSERT_LE(LargestDifference(TokenRow(g, out, slot, t), expected[slot * s.tokens + t]),
                    kTolerance)
              << "slot " << slot << " token " << t << ", first cut " << cuts[0] << ", softcap "
              << softcap;
        }
      }
    }
  }
}

TEST(WorkingSet, SeveralWorkersGiveTheResultOfOne) {
  const KvGeometry g = TestGeometry();
  const Sequence s = RandomSequence(g, 150, kSeed + 1);
  WorkingSet one(g, 150);
  const LayerOutputs expected = RunPasses(one, g, s, 0, {100, 101, 150});
  for (uint32_t workers : {2u, 3u, 7u}) {
    WorkingSet set(g, 150);
    EXPECT_EQ(RunPasses(set, g, s, 0, {100, 101, 150}, workers, /*values_first=*/workers == 3),
              expected)
        << workers << " workers";
  }
}

TEST(WorkingSet, RecalledBlocksGiveTheResultOfRunningTheirTokens) {
  const KvGeometry g = TestGeometry();
  const Sequence s = RandomSequence(g, 150, kSeed + 2);
  WorkingSet run(g, 170);
  const LayerOutputs expected = RunPasses(run, g, s, 0, {140, 150});

  WorkingSet recalled(g, 170);
  uint32_t left = 140;
  for (const KvBlock& block : BlocksOf(g, s)) {
    recalled.AppendBlock(block, 0, std::min(left, block.tokens), 0.0f);
    left -= std::min(left, block.tokens);
  }
  ASSERT_EQ(recalled.size(), 140u);
  const LayerOutputs out = RunPasses(recalled, g, s, 140, {150});
  for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
    for (uint32_t t = 0; t < 10; ++t) {
      EXPECT_LE(LargestDifference(TokenRow(g, out, slot, t), TokenRow(g, expected, slot, 140 + t)),
                kKeysRounded);
    }
  }
}

// Rows that a pass appended are floats here and rounded when they are copied; whole blocks of
// stored rows are fp16 already. Both are compared with the rotation in float, within one rounding
// to fp16: 2^-11 of the number, or half the smallest subnormal.
TEST(WorkingSet, CopiedRowsAreRotatedKeysAndValuesOfEveryToken) {
  const KvGeometry g = TestGeometry();
  const Sequence s = RandomSequence(g, 150, kSeed + 11);
  WorkingSet set(g, 170);
  RunPasses(set, g, s, 0, {20});
  uint32_t left = 130;
  const std::vector<KvBlock> blocks = BlocksOf(g, s);
  set.Reserve(left);
  for (const KvBlock& block : blocks) {
    const uint32_t rows = std::min(left, block.tokens);
    set.AppendBlock(block, 0, rows, -1.5f);  // a gate changes no key
    left -= rows;
  }
  ASSERT_EQ(set.size(), 150u);
  const uint32_t width = g.kv_width(), d = g.head_dim;
  const RopeTables ropes(g, 150);
  for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
    std::vector<uint16_t> keys(size_t{145} * width), values(keys.size());
    set.CopyRows(slot, 5, 150, keys.data(), values.data());
    for (uint32_t i = 5; i < 150; ++i) {
      const uint32_t token = i < 20 ? i : i - 20;
      const float* k = s.k[slot].data() + size_t{token} * width;
      const float* v = s.v[slot].data() + size_t{token} * width;
      std::vector<float> rotated(width);
      for (uint32_t h = 0; h < g.kv_heads; ++h)
        ropes.Of(slot).Rotate(k + size_t{h} * d, rotated.data() + size_t{h} * d, d, i);
      for (uint32_t c = 0; c < width; ++c) {
        const size_t at = size_t{i - 5} * width + c;
        ASSERT_NEAR(FromHalf(keys[at]), rotated[c], std::abs(rotated[c]) * 0x1p-11f + 0x1p-25f)
            << "slot " << slot << " key " << i << " element " << c;
        ASSERT_EQ(FromHalf(values[at]), v[c]) << "slot " << slot << " value " << i;
      }
    }
  }
}

TEST(WorkingSet, StoredRowsThatFillABlockTakeHalfTheBytes) {
  const KvGeometry g = TestGeometry();
  const Sequence s = RandomSequence(g, 150, kSeed + 10);
  const uint64_t block = WorkingSet::Bytes(g, 1);
  EXPECT_EQ(block, uint64_t{64} * 2 * g.kv_width() * g.layers.size() * sizeof(float));
  EXPECT_EQ(WorkingSet::Bytes(g, 64), block);
  EXPECT_EQ(WorkingSet::Bytes(g, 65), 2 * block);
  EXPECT_EQ(WorkingSet::Bytes(g, 0, 64 + 64), block + block / 2);

  WorkingSet set(g, 400);
  RunPasses(set, g, s, 0, {10});
  EXPECT_EQ(set.BytesWith(0), block);
  // keys 10 to 138: the end of the first block, all of the second, the beginning of the third
  set.Reserve(128);
  EXPECT_EQ(set.BytesWith(128), 2 * block + block / 2);
  EXPECT_LE(set.BytesWith(128), WorkingSet::Bytes(g, 10, 128));
  set.AppendBlock(BlocksOf(g, s)[0], 0, 64, 0);
  set.AppendBlock(BlocksOf(g, s)[1], 0, 64, 0);
  EXPECT_EQ(set.BytesWith(54), 2 * block + block / 2);
  EXPECT_EQ(set.BytesWith(55), 3 * block + block / 2);
  // Stored rows do not go into free room that passes left behind.
  WorkingSet used(g, 400);
  RunPasses(used, g, s, 0, {10, 150});
  used.Truncate(10);
  used.Reserve(128);
  EXPECT_EQ(used.BytesWith(128), 2 * block + block / 2);
  // Rows that passes append in place of stored rows are as exact as before.
  set.Truncate(10);
  WorkingSet fresh(g, 400);
  const LayerOutputs expected = RunPasses(fresh, g, s, 0, {10, 150});
  const LayerOutputs out = RunPasses(set, g, s, 10, {150});
  for (uint32_t slot = 0; slot < g.layers.size(); ++slot)
    EXPECT_EQ(TokenRow(g, out, slot, 139), TokenRow(g, expected, slot, 149));
}

TEST(WorkingSet, SetsWithASharedHeadContinueIndependently) {
  const KvGeometry g = TestGeometry();
  const Sequence s = RandomSequence(g, 300, kSeed + 11), other = RandomSequence(g, 300, kSeed + 12);
  WorkingSet fresh(g, 300);
  const LayerOutputs expected = RunPasses(fresh, g, s, 0, {150, 300});
  WorkingSet set(g, 300), branch(g, 300);
  RunPasses(set, g, s, 0, {150});
  branch.AppendHead(set, 150);
  // The branch continues with other tokens, then truncates and starts over with them. The first set
  // sees neither.
  RunPasses(branch, g, other, 150, {250});
  branch.Truncate(20);
  RunPasses(branch, g, other, 20, {200});
  const LayerOutputs out = RunPasses(set, g, s, 150, {300});
  for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
    for (uint32_t t = 0; t < 150; ++t)
      ASSERT_EQ(TokenRow(g, out, slot, t), TokenRow(g, expected, slot, 150 + t));
  }
}

// Decoded tokens over enough keys that each head is split into parts: 2, then 8, with a partial
// last block.
TEST(WorkingSet, PartsOfTheKeysMergeToTheWholeResult) {
  KvGeometry g = TestGeometry();
  for (const uint32_t tokens : {600u, 2100u}) {
    const Sequence s = RandomSequence(g, tokens, kSeed + tokens);
    WorkingSet one(g, tokens), whole(g, tokens);
    RunPasses(one, g, s, 0, {tokens - 20});
    RunPasses(whole, g, s, 0, {tokens - 20});
    one.CountMass();
    whole.CountMass();
    std::vector<uint32_t> each(20);
    std::iota(each.begin(), each.end(), tokens - 19);
    const LayerOutputs out = RunPasses(one, g, s, tokens - 20, each);
    RunPasses(whole, g, s, tokens - 20, {tokens});  // too many rows to be split
    for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
      for (uint32_t t : {tokens - 20, tokens - 1}) {
        EXPECT_LE(LargestDifference(TokenRow(g, out, slot, t - (tokens - 20)),
                                    NaiveAttend(g, s, slot, t, t, Prefix(t + 1))),
                  kTolerance);
      }
    }
    const std::vector<double> mass = one.Mass(), expected = whole.Mass();
    for (size_t j = 0; j < mass.size(); ++j)
      ASSERT_NEAR(mass[j], expected[j], 1e-4 * expected[j] + 1e-6) << "key " << j;
    for (const uint32_t workers : {2u, 3u, 7u}) {
      WorkingSet several(g, tokens);
      RunPasses(several, g, s, 0, {tokens - 20});
      several.CountMass();
      EXPECT_EQ(RunPasses(several, g, s, tokens - 20, each, workers), out) << workers << " workers";
      const std::vector<double> shared = several.Mass();
      for (size_t j = 0; j < mass.size(); ++j)
        ASSERT_NEAR(shared[j], mass[j], 1e-4 * mass[j] + 1e-6) << "key " << j;
    }
  }
}

// Keys and values that fp16 does not hold exactly: a stored block rounds them by at most 2^-11 of
// their size. So a logit scale * q.k moves by at most scale * sum|q||k| * 2^-11 < 0.35 * 30 * 5e-4
// = 5e-3. An output of |v| < 5 moves by twice that share of it, plus its own rounding. 5e-2 bounds
// it; 1e-3 was measured.
TEST(WorkingSet, RecallOfAllBlocksIsFullAttentionUpToTheCodecsRounding) {
  const KvGeometry g = TestGeometry();
  const Sequence s = RandomSequence(g, 150, kSeed + 3, /*half_exact=*/false);
  WorkingSet run(g, 150);
  const LayerOutputs expected = RunPasses(run, g, s, 0, {128, 150});
  WorkingSet recalled(g, 150);
  const std::vector<KvBlock> blocks = BlocksOf(g, s);
  recalled.AppendBlock(blocks[0], 0, 64, 0.0f);
  recalled.AppendBlock(blocks[1], 0, 64, 0.0f);
  const LayerOutputs out = RunPasses(recalled, g, s, 128, {150});
  float worst = 0;
  for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
    for (uint32_t t = 0; t < 22; ++t) {
      worst = std::max(worst, LargestDifference(TokenRow(g, out, slot, t),
                                                TokenRow(g, expected, slot, 128 + t)));
    }
  }
  EXPECT_LE(worst, 1e-2f);
  EXPECT_GT(worst, 0.0f);
}

TEST(WorkingSet, PartsOfBlocksHaveContiguousPositions) {
  const KvGeometry g = TestGeometry();
  const Sequence s = RandomSequence(g, 150, kSeed + 4);
  const std::vector<KvBlock> blocks = BlocksOf(g, s);
  struct Piece {
    uint32_t block, begin, end;
  };
  // Out of text order, with an empty part, across a block edge of the set (70 rows), and with the
  // short last block.
  const std::vector<Piece> pieces = {{1, 7, 64}, {0, 5, 5}, {2, 0, 13}, {0, 63, 64}, {2, 20, 22}};
  WorkingSet appended(g, 200), placed(g, 200);
  std::vector<SeenKey> keys;
  uint32_t rows = 0;
  appended.Reserve(70);
  for (const Piece& p : pieces) {
    appended.AppendBlock(blocks[p.block], p.begin, p.end, 0.0f);
    for (uint32_t r = p.begin; r < p.end; ++r)
      keys.push_back({p.block * 64 + r, static_cast<uint32_t>(keys.size()), 0});
    rows += p.end - p.begin;
  }
  placed.Reserve(rows);
  // each worker takes one layer slot, whose parts come in any order
  OnWorkers(3, [&](uint32_t worker) {
    uint32_t end = rows;
    for (size_t i = pieces.size(); i-- > 0;) {
      const Piece& p = pieces[i];
      end -= p.end - p.begin;
      placed.PlaceRows(blocks[p.block], p.begin, p.end, end, worker);
    }
  });
  for (const Piece& p : pieces) placed.CommitRows(p.end - p.begin, 0.0f);
  ASSERT_EQ(appended.size(), rows);
  ASSERT_EQ(placed.size(), rows);

  const LayerOutputs a = RunPasses(appended, g, s, 149, {150}),
                     b = RunPasses(placed, g, s, 149, {150});
  EXPECT_EQ(a, b);
  keys.push_back({149, rows, 0});
  for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
    EXPECT_LE(LargestDifference(TokenRow(g, a, slot, 0), NaiveAttend(g, s, slot, 149, rows, keys)),
              kKeysRounded);
  }
}

TEST(WorkingSet, BiasIsAddedToTheLogitsOfItsRows) {
  KvGeometry g = TestGeometry();
  for (const float softcap : {0.0f, 5.0f}) {
    g.softcap = softcap;
    const Sequence s = RandomSequence(g, 150, kSeed + 5);
    const std::vector<KvBlock> blocks = BlocksOf(g, s);
    WorkingSet set(g, 150);
    set.AppendBlock(blocks[1], 0, 40, -3.5f);
    set.AppendBlock(blocks[0], 10, 64, 0.0f);
    set.AppendBlock(blocks[0], 0, 10, 1.25f);
    std::vector<SeenKey> keys;
    const auto add = [&](uint32_t begin, uint32_t end, double bias) {
      for (uint32_t t = begin; t < end; ++t)
        keys.push_back({t, static_cast<uint32_t>(keys.size()), bias});
    };
    add(64, 104, -3.5);
    add(10, 64, 0);
    add(0, 10, 1.25);
    const LayerOutputs out = RunPasses(set, g, s, 148, {150});
    for (uint32_t t = 148; t < 150; ++t) {
      // the pass's own keys have no bias
      keys.push_back({t, static_cast<uint32_t>(keys.size()), 0});
      for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
        EXPECT_LE(LargestDifference(TokenRow(g, out, slot, t - 148),
                                    NaiveAttend(g, s, slot, t, t - 148 + 104, keys)),
                  kTolerance);
      }
    }
  }
}

TEST(WorkingSet, TruncationForgetsKeysAndTheirBias) {
  const KvGeometry g = TestGeometry();
  const Sequence s = RandomSequence(g, 150, kSeed + 6), other = RandomSequence(g, 150, kSeed + 7);
  WorkingSet fresh(g, 150);
  const LayerOutputs expected = RunPasses(fresh, g, s, 0, {30, 150});
  for (const uint32_t kept : {0u, 30u}) {
    WorkingSet set(g, 150);
    if (kept > 0) RunPasses(set, g, s, 0, {30});
    set.AppendBlock(BlocksOf(g, other)[0], 0, 64, -7.0f);
    RunPasses(set, g, other, 64, {64 + 150 - 30 - 64});
    set.Truncate(kept);
    ASSERT_EQ(set.size(), kept);
    LayerOutputs out = RunPasses(
        set, g, s, kept, kept == 0 ? std::vector<uint32_t>{30, 150} : std::vector<uint32_t>{150});
    for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
      for (uint32_t t = 30; t < 150; ++t)
        ASSERT_EQ(TokenRow(g, out, slot, t - kept), TokenRow(g, expected, slot, t));
    }
  }
}

TEST(WorkingSet, MassOfAllKeysSumsToTheNumberOfAttendingRows) {
  const KvGeometry g = TestGeometry();
  const Sequence s = RandomSequence(g, 150, kSeed + 8);
  for (const uint32_t workers : {1u, 3u}) {
    WorkingSet set(g, 150);
    RunPasses(set, g, s, 0, {100}, workers);
    set.CountMass();  // earlier passes do not count
    RunPasses(set, g, s, 100, {120}, workers);
    set.Truncate(100);
    set.CountMass();  // this discards what was counted so far
    RunPasses(set, g, s, 100, {149, 150}, workers);
    const std::vector<double> mass = set.Mass();
    ASSERT_EQ(mass.size(), 150u);
    const double total = std::accumulate(mass.begin(), mass.end(), 0.0);
    EXPECT_NEAR(total, 50.0 * g.q_heads * static_cast<double>(g.layers.size()), 1e-2);
    EXPECT_THAT(mass, testing::Each(testing::Ge(0.0)));
    // Only one token attends to the last key.
    EXPECT_LE(mass.back(), g.q_heads * static_cast<double>(g.layers.size()));
    EXPECT_GT(mass.back(), 0.0);
  }
}

TEST(WorkingSet, CaptureKeepsTheQueriesOfTheChosenLayersInOrder) {
  const KvGeometry g = TestGeometry();
  const Sequence s = RandomSequence(g, 150, kSeed + 9);
  WorkingSet set(g, 150);
  QueryCapture capture;
  capture.slots = {2, 0, 2};
  capture.queries.resize(3);
  RunPasses(set, g, s, 0, {10});
  set.Capture(&capture);
  RunPasses(set, g, s, 10, {80, 81}, 3);
  set.Capture(nullptr);
  RunPasses(set, g, s, 81, {90});
  const auto width = static_cast<ptrdiff_t>(g.q_heads * g.head_dim);
  for (size_t i = 0; i < capture.slots.size(); ++i) {
    const std::vector<float>& q = s.q[capture.slots[i]];
    EXPECT_EQ(capture.queries[i],
              std::vector<float>(q.begin() + 10 * width, q.begin() + 81 * width));
  }
}

}  // namespace
}  // namespace longhold
