// Compares every kernel table that this processor supports with the reference in double precision.
//
// Sizes. Head sizes lie on both sides of every vector and tile width (4, 8, 16, 32, 64 floats) up
// to the limit. Row counts fill the tile of 6, fall short of it and exceed it. Block counts
// surround the chunk of 32 blocks, where partial results are merged.
//
// Tolerance. A float logit is off by at most e = LogitError(), the rounding bound of a dot product.
// A probability is then off by at most a factor exp(2 e): e from its own logit, e from the sum. So
// `out` is off by about 2 e max|v|. exp and the sums add a few units of 2^-24 each; 4e-6 covers
// them for thousands of keys.
#include "attention/kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "attention/reference.h"
#include "attention/state.h"
#include "tests/attention/attention_cases.h"

namespace longhold {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class KernelLevel : public testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& kernels() const { return *GetParam(); }
};

INSTANTIATE_TEST_SUITE_P(All, KernelLevel,
                         testing::ValuesIn(SupportedKernels().begin(), SupportedKernels().end()),
                         [](const auto& info) { return std::string(info.param->name); });

std::string Describe(const AttendShape& s) {
  return "rows " + std::to_string(s.rows) + " group " + std::to_string(s.group) + " head_dim " +
         std::to_string(s.head_dim) + " blocks " + std::to_string(s.blocks) + " seed " +
         std::to_string(s.seed);
}

// Runs `prepare` on two equal cases. Runs the kernel on one and the reference on the other.
// Compares all outputs.
template <typename Prepare>
void ExpectMatchesReference(const KernelTable& kernels, const AttendShape& shape, Prepare prepare) {
  SCOPED_TRACE(Describe(shape));
  AttendCase actual(shape);
  AttendCase expected(shape);
  prepare(actual);
  prepare(expected);
  kernels.attend(actual.Call());
  ReferenceAttend(expected.Call());

  const double logit_error = actual.LogitError();
  const double weight_error = 2 * logit_error + 4e-6;
  const double out_error = weight_error * std::max(1.0, actual.ValueMax());
  for (size_t i = 0; i < expected.out().size(); ++i) {
    ASSERT_NEAR(actual.out().data()[i], expected.out().data()[i], out_error) << "out " << i;
  }
  for (size_t r = 0; r < expected.lse().size(); ++r) {
    const float lse = expected.lse().data()[r];
    if (std::isinf(lse)) {
      ASSERT_EQ(actual.lse().data()[r], lse) << "lse " << r;
    } else {
      ASSERT_NEAR(actual.lse().data()[r], lse, logit_error + 4e-6 + std::abs(lse) * 0x1p-22)
          << "lse " << r;
    }
  }
  for (size_t j = 0; j < expected.key_mass().size(); ++j) {
    const float mass = expected.key_mass().data()[j];
    ASSERT_NEAR(actual.key_mass().data()[j], mass, mass * weight_error) << "key_mass " << j;
  }
}

void ExpectMatchesReference(const KernelTable& kernels, const AttendShape& shape) {
  ExpectMatchesReference(kernels, shape, [](AttendCase&) {});
}

TEST_P(KernelLevel, AttendsLikeTheReferenceForEveryHeadSize) {
  uint64_t seed = 100;
  for (const uint32_t head_dim : {4, 8, 12, 20, 32, 36, 60, 64, 68, 80, 96, 100, 128, 252, 256}) {
    for (const uint32_t rows : {1, 3, 7, 12}) {
      ExpectMatchesReference(
          kernels(),
          {.rows = rows, .head_dim = head_dim, .blocks = 3, .bias = true, .seed = ++seed});
    }
  }
}

TEST_P(KernelLevel, AttendsLikeTheReferenceForEveryRowCount) {
  for (uint32_t rows = 1; rows <= kAttendRowsMax; ++rows) {
    ExpectMatchesReference(kernels(),
                           {.rows = rows, .head_dim = 36, .blocks = 2, .seed = 200 + rows});
  }
}

TEST_P(KernelLevel, AttendsLikeTheReferenceForEveryGroup) {
  for (uint32_t group = 1; group <= 16; ++group) {
    ExpectMatchesReference(
        kernels(),
        {.rows = kAttendRowsMax / group * group, .group = group, .blocks = 5, .seed = 300 + group});
  }
}

TEST_P(KernelLevel, AttendsLikeTheReferenceAcrossChunks) {
  for (const uint32_t blocks : {31, 32, 33, 64, 70}) {
    for (const bool masks : {false, true}) {
      ExpectMatchesReference(kernels(), {.rows = 9,
                                         .group = 3,
                                         .head_dim = 20,
                                         .blocks = blocks,
                                         .spread = 3.0f,
                                         .bias = masks,
                                         .random_masks = masks,
                                         .seed = 400 + blocks});
    }
  }
}

TEST_P(KernelLevel, AttendsToFp16KeysAndValuesLikeTheReference) {
  uint64_t seed = 500;
  for (const uint32_t head_dim : {4, 8, 12, 36, 60, 64, 68, 80, 100, 128, 252, 256}) {
    for (const uint32_t rows : {1, 3, 6, 16}) {
      ExpectMatchesReference(kernels(), {.rows = rows,
                                         .head_dim = head_dim,
                                         .blocks = 7,
                                         .bias = true,
                                         .fp16 = 2,
                                         .seed = ++seed});
    }
  }
  ExpectMatchesReference(kernels(), {.rows = 12,
                                     .group = 3,
                                     .blocks = 70,
                                     .spread = 3.0f,
                                     .softcap = 30.0f,
                                     .fp16 = 2,
                                     .seed = 600});
}

TEST_P(KernelLevel, AttendsLikeTheReferenceWithSoftcap) {
  for (const float softcap : {5.0f, 30.0f, 50.0f}) {
    ExpectMatchesReference(kernels(), {.rows = 8,
                                       .group = 4,
                                       .head_dim = 96,
                                       .blocks = 4,
                                       .spread = 20.0f,
                                       .softcap = softcap,
                                       .bias = true});
  }
}

TEST_P(KernelLevel, KeepsHugeLogitsFinite) {
  // Logits of about +-1e4 to 4e4: exp of any of them overflows unless the maximum is subtracted
  // first.
  ExpectMatchesReference(
      kernels(), {.rows = 6, .head_dim = 64, .blocks = 3, .spread = 1e4f, .random_masks = false});
  ExpectMatchesReference(
      kernels(), {.rows = 6, .head_dim = 8, .blocks = 40, .spread = 1e4f, .random_masks = false});
}

TEST_P(KernelLevel, ReturnsTheEmptyStateWhenThereAreNoBlocks) {
  for (const uint32_t rows : {1, 6, 13}) {
    AttendCase c({.rows = rows, .blocks = 0});
    kernels().attend(c.Call());
    for (uint32_t r = 0; r < rows; ++r) EXPECT_EQ(c.lse().data()[r], -kInfinity);
    for (size_t i = 0; i < c.out().size(); ++i) EXPECT_EQ(c.out().data()[i], 0.0f);
  }
}

TEST_P(KernelLevel, GivesZerosToRowsThatSeeNoKeyNextToRowsThatDo) {
  AttendCase c({.rows = 6, .group = 2, .blocks = 34, .random_masks = false});
  c.visible()[1] = {.begin = 70, .end = 70};
  c.visible()[2] = {.begin = 200, .end = 100};
  kernels().attend(c.Call());
  EXPECT_TRUE(std::isfinite(c.lse().data()[0]));
  for (uint32_t r = 2; r < 6; ++r) EXPECT_EQ(c.lse().data()[r], -kInfinity);
  for (size_t i = 2 * 64; i < c.out().size(); ++i) EXPECT_EQ(c.out().data()[i], 0.0f);
}

TEST_P(KernelLevel, HidesKeysBiasedToMinusInfinity) {
  AttendCase c({.rows = 3, .blocks = 2, .random_masks = false});
  std::vector<float> bias(kBlockTokens, -kInfinity);
  c.views()[0].bias = bias.data();
  kernels().attend(c.Call());
  // key_mass keeps its initial value
  for (uint32_t j = 0; j < kBlockTokens; ++j) EXPECT_EQ(c.key_mass().data()[j], 0.25f);
  c.views()[1].bias = bias.data();
  kernels().attend(c.Call());
  for (uint32_t r = 0; r < 3; ++r) EXPECT_EQ(c.lse().data()[r], -kInfinity);
  for (size_t i = 0; i < c.out().size(); ++i) EXPECT_EQ(c.out().data()[i], 0.0f);
}

TEST_P(KernelLevel, AttendsToSinksAndAWindow) {
  // shared = 64 and a window of 256, as in the header's example, for tokens 100 .. 115 and 500 ..
  // 515.
  for (const uint32_t first : {0u, 56u, 100u, 250u, 500u}) {
    ExpectMatchesReference(kernels(), {.rows = 48, .group = 3, .blocks = 9, .spread = 2.0f},
                           [first](AttendCase& c) {
                             c.set_shared(64);
                             for (uint32_t t = 0; t < 16; ++t) {
                               const uint32_t p = first + t;
                               c.visible()[t] = {.begin = p < 255 ? 0 : p - 255, .end = p + 1};
                             }
                           });
  }
}

TEST_P(KernelLevel, WorksWithoutLseAndKeyMass) {
  AttendCase with({.rows = 12, .group = 3, .blocks = 40});
  AttendCase without({.rows = 12, .group = 3, .blocks = 40});
  kernels().attend(with.Call());
  AttendCall call = without.Call(false);
  call.lse = nullptr;
  kernels().attend(call);
  EXPECT_EQ(
      0, std::memcmp(with.out().data(), without.out().data(), with.out().size() * sizeof(float)));
}

TEST_P(KernelLevel, AnySplitOfTheKeysMergesToTheWhole) {
  // Compares one call over all keys with merged calls over parts of them. Both round, so the
  // tolerance counts twice.
  for (const uint32_t cut : {0u, 1u, 63u, 64u, 100u, 300u, 319u, 320u}) {
    AttendShape shape = {.rows = 7,
                         .head_dim = 80,
                         .blocks = 5,
                         .spread = 3.0f,
                         .bias = true,
                         .random_masks = false};
    const auto attend = [&](VisibleKeys visible) {
      AttendCase c(shape);
      for (VisibleKeys& v : c.visible()) v = visible;
      kernels().attend(c.Call());
      return AttentionState{.rows = shape.rows,
                            .head_dim = shape.head_dim,
                            .out = {c.out().data(), c.out().data() + c.out().size()},
                            .lse = {c.lse().data(), c.lse().data() + c.lse().size()}};
    };
    const AttentionState whole = attend({0, 320});
    const AttentionState merged = Merge(attend({0, cut}), attend({cut, 320}));
    const AttendCase bounds(shape);
    const double error = 2 * (2 * bounds.LogitError() + 4e-6);
    for (size_t i = 0; i < whole.out.size(); ++i)
      ASSERT_NEAR(merged.out[i], whole.out[i], error * bounds.ValueMax());
    for (size_t r = 0; r < whole.lse.size(); ++r) ASSERT_NEAR(merged.lse[r], whole.lse[r], error);
  }
}

// The scan's integer products are exact. Scaling rounds each logit by 2^-23 relative, and logits
// here stay below 40 (extreme case: 600).
void ExpectScansLikeReference(const KernelTable& kernels, const ScanShape& shape) {
  SCOPED_TRACE("rows " + std::to_string(shape.rows) + " head_dim " +
               std::to_string(shape.head_dim));
  ScanCase actual(shape);
  ScanCase expected(shape);
  kernels.scan(actual.Call());
  ReferenceScan(expected.Call());
  for (size_t i = 0; i < expected.block_max().size(); ++i) {
    const double logit_error = 1e-6 + std::abs(expected.block_max()[i]) * 0x1p-22;
    ASSERT_NEAR(actual.block_max()[i], expected.block_max()[i], logit_error) << i;
    ASSERT_NEAR(actual.block_sum()[i], expected.block_sum()[i],
                expected.block_sum()[i] * (2 * logit_error + 4e-6))
        << i;
  }
}

TEST_P(KernelLevel, ScansLikeTheReference) {
  for (const uint32_t head_dim : {4, 8, 12, 36, 64, 80, 96, 128, 256}) {
    for (const uint32_t rows : {1, 2, 3, 4, 5, 6, 7, 13, 90}) {
      ExpectScansLikeReference(
          kernels(), {.rows = rows, .head_dim = head_dim, .blocks = 19, .seed = head_dim + rows});
    }
  }
}

TEST_P(KernelLevel, ScansBytesAtTheEndsOfTheirRangeWithoutSaturating) {
  for (const uint32_t head_dim : {4, 64, 256}) {
    ExpectScansLikeReference(kernels(),
                             {.rows = 9, .head_dim = head_dim, .blocks = 9, .extreme = true});
  }
}

TEST_P(KernelLevel, ScansWithNoBlocksOrNoRows) {
  ScanCase none({.rows = 3, .blocks = 0});
  kernels().scan(none.Call());
  ScanCase no_rows({.rows = 0, .blocks = 2});
  kernels().scan(no_rows.Call());
}

TEST_P(KernelLevel, ScanOfOneKeyGivesItsLogit) {
  ScanCase c({.rows = 11, .head_dim = 80, .blocks = 1});
  std::vector<float> logits(kBlockTokens * 11);
  for (const uint8_t count : {1, 15, 16, 17, 63, 64}) {
    c.counts()[0] = count;
    const ScanCall call = c.Call();
    kernels().scan(call);
    kernels().scan_logits(call, logits.data());
    for (uint32_t r = 0; r < 11; ++r) {
      float max = -kInfinity;
      for (uint32_t j = 0; j < count; ++j) max = std::max(max, logits[j * 11 + r]);
      EXPECT_EQ(c.block_max()[r], max);
      if (count == 1) {
        EXPECT_EQ(c.block_sum()[r], 1.0f);
      }
    }
  }
}

TEST_P(KernelLevel, ExponentialIsAccurateToFloatPrecision) {
  // Blocks of two keys with logits 0 and -x, both exact, so block_sum is 1 + exp(-x). x runs from 0
  // in steps of 1/128 to beyond the point where weights become 0. Tolerance: 3e-7 for the
  // exponential, and half a unit in the last place of a value in [1, 2] for the sum.
  constexpr size_t kBlocks = 128 * 100;
  std::vector<uint8_t> keys(kBlocks * kBlockTokens * 4, 128), counts(kBlocks, 2);
  std::vector<float> key_scale(kBlocks * kBlockTokens, 0.0f), max(kBlocks), sum(kBlocks);
  for (size_t b = 0; b < kBlocks; ++b) {
    keys[b * kBlockTokens * 4 + 4] = 127;  // -1
    key_scale[b * kBlockTokens + 1] = static_cast<float>(b) / 128;
  }
  const int8_t q[4] = {1, 0, 0, 0};
  const float q_scale = 1.0f;
  kernels().scan({.keys = keys.data(),
                  .key_scale = key_scale.data(),
                  .counts = counts.data(),
                  .block_count = kBlocks,
                  .head_dim = 4,
                  .q = q,
                  .q_scale = &q_scale,
                  .rows = 1,
                  .block_max = max.data(),
                  .block_sum = sum.data()});
  EXPECT_EQ(sum[0], 2.0f);
  for (size_t b = 0; b < kBlocks; ++b) {
    const double e = std::exp(-static_cast<double>(b) / 128);
    ASSERT_EQ(max[b], 0.0f);
    ASSERT_NEAR(sum[b], 1.0 + e, 3e-7 * e + 6e-8) << b;
  }
}

TEST_P(KernelLevel, EveryFp16ValueSurvivesTheRoundTrip) {
  // All 65536 values, compared bit by bit with the scalar level. NaN becomes quiet.
  std::vector<uint16_t> fp16(65536), back(65536);
  for (uint32_t h = 0; h < 65536; ++h) fp16[h] = static_cast<uint16_t>(h);
  std::vector<float> floats(65536), scalar(65536);
  kernels().half_to_float(fp16.data(), floats.data(), 65536);
  SupportedKernels()[0]->half_to_float(fp16.data(), scalar.data(), 65536);
  EXPECT_EQ(0, std::memcmp(floats.data(), scalar.data(), 65536 * sizeof(float)));
  kernels().float_to_half(floats.data(), back.data(), 65536);
  for (uint32_t h = 0; h < 65536; ++h) {
    const bool nan = (h & 0x7FFF) > 0x7C00;
    ASSERT_EQ(back[h], nan ? h | 0x200 : h) << h;
    if (!nan && (h & 0x7C00) != 0x7C00) {
      const double fraction = (h & 0x3FF) + ((h & 0x7C00) != 0 ? 1024.0 : 0.0);
      const int exponent = std::max<int>(1, (h >> 10) & 31) - 25;
      ASSERT_EQ(floats[h], std::ldexp(fraction, exponent) * ((h & 0x8000) != 0 ? -1 : 1)) << h;
    }
  }
}

TEST_P(KernelLevel, FloatsRoundToTheNearestFp16WithTiesToEven) {
  // Every boundary between adjacent fp16 values and the floats on both sides of it, in both signs.
  std::vector<uint16_t> fp16(0x7C01);
  std::vector<float> grid(0x7C01);
  for (uint32_t h = 0; h <= 0x7C00; ++h) fp16[h] = static_cast<uint16_t>(h);
  kernels().half_to_float(fp16.data(), grid.data(), grid.size());
  grid[0x7C00] = 65536.0f;  // infinity begins halfway to what the next value would be
  std::vector<float> in;
  std::vector<uint16_t> expected;
  for (uint32_t h = 0; h < 0x7C00; ++h) {
    const float tie = (grid[h] + grid[h + 1]) / 2;
    const uint16_t even = static_cast<uint16_t>(h % 2 == 0 ? h : h + 1);
    for (const uint16_t sign : {0, 0x8000}) {
      const float s = sign == 0 ? 1.0f : -1.0f;
      in.insert(in.end(),
                {s * std::nextafter(tie, 0.0f), s * tie, s * std::nextafter(tie, kInfinity)});
      for (const uint16_t e : {static_cast<uint16_t>(h), even, static_cast<uint16_t>(h + 1)})
        expected.push_back(e | sign);
    }
  }
  for (const float x : {kInfinity, 1e38f, std::numeric_limits<float>::denorm_min()}) {
    in.push_back(x);
    expected.push_back(x < 1 ? 0 : 0x7C00);
  }
  std::vector<uint16_t> out(in.size());
  kernels().float_to_half(in.data(), out.data(), in.size());
  for (size_t i = 0; i < in.size(); ++i) ASSERT_EQ(out[i], expected[i]) << in[i];
}

TEST_P(KernelLevel, ConvertsAnyCountAndWritesNothingPastIt) {
  for (size_t count = 0; count <= 40; ++count) {
    std::vector<float> in(count + 1, 1.5f), full(count + 1, -7.0f);
    std::vector<uint16_t> half(count + 1, 0x1234);
    kernels().float_to_half(in.data() + 1, half.data(), count);
    kernels().half_to_float(half.data(), full.data(), count);
    for (size_t i = 0; i < count; ++i) ASSERT_EQ(full[i], 1.5f);
    ASSERT_EQ(half[count], 0x1234);
    ASSERT_EQ(full[count], -7.0f);
  }
}

TEST_P(KernelLevel, AddsTheProductOfEveryShapeToTheOutput) {
  std::mt19937 random(8);
  std::normal_distribution<float> normal;
  for (const uint32_t rows : {1, 2, 5, 6, 7, 64}) {
    for (const uint32_t depth : {1, 3, 255, 256, 257, 520}) {
      for (const uint32_t columns : {1, 3, 4, 8, 15, 16, 17, 31, 63, 64, 65, 150}) {
        std::vector<float> a(size_t{rows} * depth), b(size_t{depth} * columns),
            out(size_t{rows} * columns + 1, 0.5f);
        for (float& x : a) x = normal(random);
        for (float& x : b) x = normal(random);
        kernels().multiply_add({.a = a.data(),
                                .b = b.data(),
                                .out = out.data(),
                                .rows = rows,
                                .depth = depth,
                                .columns = columns});
        ASSERT_EQ(out.back(), 0.5f) << "wrote past the end";
        for (uint32_t r = 0; r < rows; ++r) {
          for (uint32_t n = 0; n < columns; ++n) {
            double sum = 0.5, size = 0.5;
            for (uint32_t k = 0; k < depth; ++k) {
              const double term = double{a[size_t{r} * depth + k]} * b[size_t{k} * columns + n];
              sum += term;
              size += std::abs(term);
            }
            ASSERT_NEAR(out[size_t{r} * columns + n], sum, size * 1e-6)
                << rows << " x " << depth << " x " << columns;
          }
        }
      }
    }
  }
}

TEST(Kernels, SelectedTableIsSupportedAndScalarAlwaysIs) {
  EXPECT_EQ(SupportedKernels().front()->name, "scalar");
  EXPECT_THAT(SupportedKernels(), testing::Contains(&Kernels()));
}

}  // namespace
}  // namespace longhold
