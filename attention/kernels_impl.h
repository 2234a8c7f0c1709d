// The kernels, written once over a small vector type. Each kernels_<isa>.cc includes this file
// after it has defined the following in an unnamed namespace of longhold. (kernels_isa.h says why
// nothing here may have a linkable name.)
//
// constexpr int kTileVectors: vectors per row in a register tile, which has up to kTileRows rows.
//
// struct Vec, kLanes floats (4, 8 or 16):
//   Load(p), Set1(x), Store(p)              any alignment
//   LoadPartial(p, n), StorePartial(p, n)   the first n lanes, 0 < n <= kLanes; LoadPartial sets
//                                           the others to 0
//   Load, LoadPartial of const uint16_t*    fp16, widened
//   Add, Sub, Mul, Div, Max, Min            per lane
//   Fma(a, b, c), Fnma(a, b, c)             a b + c, c - a b
//   Round(x)                                to the nearest integer
//   ScaleOrZero(p, n, x)                    p 2^n where x >= kExpMin, else 0; there p and n may be
//                                           anything, also NaN
//   ReduceMax, ReduceAdd                    over the lanes
//   KeepInRegister()                        stops GCC 12 from reloading the vector at each use; the
//                                           loads would be the bottleneck with 3 or 4 rows
//
// template <int R> struct Int8Query, R int8 query rows prepared for one instruction set:
//   void Prepare(const int8_t* q, head_dim)
//   void Dots(const uint8_t* keys, const float* key_scale, float (*out)[64]) const
//       out[r][j] = key_scale[j] * sum_c q[r][c] * (keys[c, j] - 128)
//       Not inline: its tile needs all registers. If the constants of Exp were live as well, the
//       compiler would spill half of the tile.
//
// void HalfToFloat8(in, out), FloatToHalf8(in, out): 8 elements.
#pragma once

#include "attention/kernels_isa.h"

namespace longhold {
namespace {

constexpr uint32_t kKeys = kBlockTokens;
constexpr uint32_t kChunkBlocks = kAttendChunkKeys / kKeys;
constexpr float kNegInfinity = -__builtin_inff();

LH_INLINE uint32_t MinOf(uint32_t a, uint32_t b) { return a < b ? a : b; }

// exp(x) for x <= 88, with a relative error below 3e-7. Exactly 1 at 0, and exactly 0 below kExpMin
// and at -infinity, so that hidden keys have no weight at all.
//
// Method: with x = n ln 2 + r and |r| <= ln(2) / 2, exp(x) = 2^n exp(r). The polynomial is the
// degree-5 minimax fit of exp(r) with the constant fixed at 1 (relative error 9.2e-8). ln 2 is
// subtracted in two parts; otherwise the rounding error of n ln 2 would enter r.
LH_INLINE Vec Exp(Vec x) {
  const Vec n = Vec::Round(Vec::Mul(x, Vec::Set1(1.44269504f)));
  Vec r = Vec::Fnma(n, Vec::Set1(0.693145752f), x);
  r = Vec::Fnma(n, Vec::Set1(1.42860677e-6f), r);
  Vec p = Vec::Set1(0.00829030573f);
  p = Vec::Fma(p, r, Vec::Set1(0.0418979749f));
  p = Vec::Fma(p, r, Vec::Set1(0.166676372f));
  p = Vec::Fma(p, r, Vec::Set1(0.499991506f));
  p = Vec::Fma(p, r, Vec::Set1(0.999999702f));
  p = Vec::Fma(p, r, Vec::Set1(1.0f));
  return Vec::ScaleOrZero(p, n, x);
}

// tanh(x) with an absolute error below 3e-7, which is enough for a softcap. Beyond 9.5, tanh is
// 1 in float.
LH_INLINE Vec Tanh(Vec x) {
  const Vec y = Vec::Max(Vec::Min(x, Vec::Set1(9.5f)), Vec::Set1(-9.5f));
  const Vec e = Exp(Vec::Add(y, y));
  return Vec::Div(Vec::Sub(e, Vec::Set1(1.0f)), Vec::Add(e, Vec::Set1(1.0f)));
}

// Computes the softmax of one row of logits in place, relative to its own maximum:
// x = exp(x - max). Returns max and sum. A row whose keys are all hidden has max -infinity, sum 0
// and zeros. Must hold: `count` is a multiple of 64.
struct RowSum {
  float max;
  float sum;
};

LH_INLINE RowSum ExpRow(float* x, uint32_t count) {
  constexpr int kStep = 4;  // independent chains, to hide the latency of max and add
  Vec max[kStep];
  LH_UNROLL
  for (int i = 0; i < kStep; ++i) max[i] = Vec::Load(x + i * Vec::kLanes);
  for (uint32_t j = kStep * Vec::kLanes; j < count; j += kStep * Vec::kLanes) {
    LH_UNROLL
    for (int i = 0; i < kStep; ++i) max[i] = Vec::Max(max[i], Vec::Load(x + j + i * Vec::kLanes));
  }
  const float top = Vec::ReduceMax(Vec::Max(Vec::Max(max[0], max[1]), Vec::Max(max[2], max[3])));
  // -infinity minus -infinity is NaN. Any finite origin makes the exponentials 0 instead.
  const Vec origin = Vec::Set1(top == kNegInfinity ? 0.0f : top);
  Vec sum[kStep];
  LH_UNROLL
  for (int i = 0; i < kStep; ++i) sum[i] = Vec::Set1(0.0f);
  for (uint32_t j = 0; j < count; j += kStep * Vec::kLanes) {
    LH_UNROLL
    for (int i = 0; i < kStep; ++i) {
      float* at = x + j + i * Vec::kLanes;
      const Vec e = Exp(Vec::Sub(Vec::Load(at), origin));
      e.Store(at);
      sum[i] = Vec::Add(sum[i], e);
    }
  }
  return {top, Vec::ReduceAdd(Vec::Add(Vec::Add(sum[0], sum[1]), Vec::Add(sum[2], sum[3])))};
}

// acc[r, :] += sum_k a[r, k] b[k, :], where a is [R, depth] with rows a_stride apart, and b is
// [depth, NV vectors] with rows b_stride apart. Each step needs NV loads of b and R broadcasts of a
// for R NV multiply-adds, so arithmetic is the bottleneck. With kTail, the last vector of b has
// only `tail` elements. B is float, or uint16_t for fp16.
template <int R, int NV, bool kTail, size_t a_stride, typename B>
LH_INLINE void MultiplyAdd(const float* a, const B* b, size_t b_stride, uint32_t depth,
                           uint32_t tail, Vec (&acc)[R][NV]) {
  for (uint32_t k = 0; k < depth; ++k, b += b_stride) {
    Vec row[NV];
    LH_UNROLL
    for (int v = 0; v < NV; ++v) {
      row[v] = kTail && v == NV - 1 ? Vec::LoadPartial(b + v * Vec::kLanes, tail)
                                    : Vec::Load(b + v * Vec::kLanes);
      row[v].KeepInRegister();
    }
    LH_UNROLL
    for (int r = 0; r < R; ++r) {
      const Vec weight = Vec::Set1(a[r * a_stride + k]);
      LH_UNROLL
      for (int v = 0; v < NV; ++v) acc[r][v] = Vec::Fma(weight, row[v], acc[r][v]);
    }
  }
}

// What the call has accumulated for one row over the chunks so far: sum = sum_j exp(logit - max).
// The row of `out` is relative to the same max.
struct RowState {
  float max;
  float sum;
};

// R rows of a call, processed one chunk of blocks at a time.
template <int R>
class RowTile {
 public:
  RowTile(const AttendArgs& args, uint32_t row0, RowState* states)
      : args_(args), row0_(row0), states_(states + row0), scores_(args.scratch) {
    float* q = args.scratch + kTileRows * kScoreStride;
    const uint32_t keys = args.block_count * kKeys;
    for (int r = 0; r < R; ++r) {
      const float* row = args.q + (row0 + r) * size_t{args.head_dim};
      for (uint32_t c = 0; c < args.head_dim; ++c) q[r * kQueryStride + c] = row[c] * args.scale;
      const VisibleKeys& visible = args.visible[(row0 + r) / args.group];
      end_[r] = MinOf(visible.end, keys);
      begin_[r] = MinOf(visible.begin, end_[r]);
      head_[r] = MinOf(args.shared, end_[r]);
    }
    q_ = q;
  }

  // Merges the keys of blocks [first, last), at most kChunkBlocks, into states and out.
  void Attend(uint32_t first, uint32_t last) {
    ListVisible(first, last);
    if (count_ == 0) return;
    for (uint32_t i = 0; i < count_; ++i) Score(i);
    float keep[R];
    for (int r = 0; r < R; ++r) {
      const RowSum chunk = ExpRow(scores_ + r * kScoreStride, count_ * kKeys);
      keep[r] = Merge(states_[r], chunk, scores_ + r * kScoreStride);
    }
    const uint32_t width = kTileVectors * Vec::kLanes;
    uint32_t column = 0;
    for (; column + width <= args_.head_dim; column += width)
      Weigh<kTileVectors, false>(column, 0, keep);
    if (column < args_.head_dim) WeighLast<kTileVectors>(column, args_.head_dim - column, keep);
  }

  // Adds this chunk's probabilities to key_mass. Must hold: the states are final. If
  // scores_are_current, the scores are still those that Attend left, which is the case if the call
  // has a single chunk. Otherwise they are computed again.
  void AddKeyMass(uint32_t first, uint32_t last, bool scores_are_current) {
    if (!scores_are_current) {
      ListVisible(first, last);
      for (uint32_t i = 0; i < count_; ++i) Score(i);
    }
    for (int r = 0; r < R; ++r) {
      if (states_[r].sum == 0) continue;
      const Vec part = Vec::Set1(1.0f / states_[r].sum);
      const Vec origin = Vec::Set1(states_[r].max);
      for (uint32_t i = 0; i < count_; ++i) {
        const float* row = scores_ + r * kScoreStride + i * kKeys;
        float* mass =
            args_.key_mass + (row0_ + r) * args_.key_mass_stride + size_t{list_[i]} * kKeys;
        for (uint32_t j = 0; j < kKeys; j += Vec::kLanes) {
          Vec e = Vec::Load(row + j);
          if (!scores_are_current) e = Exp(Vec::Sub(e, origin));
          Vec::Fma(e, part, Vec::Load(mass + j)).Store(mass + j);
        }
      }
    }
  }

 private:
  // list_ = the blocks of [first, last) in which at least one row sees a key.
  void ListVisible(uint32_t first, uint32_t last) {
    count_ = 0;
    for (uint32_t b = first; b < last; ++b) {
      const uint32_t lo = b * kKeys;
      bool seen = false;
      for (int r = 0; r < R; ++r) {
        seen |= head_[r] > lo || (begin_[r] < lo + kKeys && end_[r] > lo && begin_[r] < end_[r]);
      }
      if (seen) list_[count_++] = b;
    }
  }

  // scores_[r, 64 i + j] = logit of row r and key j of block list_[i]; -infinity for hidden keys.
  void Score(uint32_t i) {
    const KeyBlockView& block = args_.blocks[list_[i]];
    constexpr uint32_t kWidth = kTileVectors * Vec::kLanes;
    static_assert(kKeys % kWidth == 0);
    for (uint32_t column = 0; column < kKeys; column += kWidth) {
      Vec acc[R][kTileVectors];
      LH_UNROLL
      for (int r = 0; r < R; ++r) {
        LH_UNROLL
        for (int v = 0; v < kTileVectors; ++v) acc[r][v] = Vec::Set1(0.0f);
      }
      if (block.half_keys_t != nullptr) {
        MultiplyAdd<R, kTileVectors, false, kQueryStride>(q_, block.half_keys_t + column, kKeys,
                                                          args_.head_dim, 0, acc);
      } else {
        MultiplyAdd<R, kTileVectors, false, kQueryStride>(q_, block.keys_t + column, kKeys,
                                                          args_.head_dim, 0, acc);
      }
      LH_UNROLL
      for (int r = 0; r < R; ++r) {
        LH_UNROLL
        for (int v = 0; v < kTileVectors; ++v) {
          acc[r][v].Store(scores_ + r * kScoreStride + i * kKeys + column + v * Vec::kLanes);
        }
      }
    }
    if (args_.softcap != 0) CapScores(i);
    for (int r = 0; r < R; ++r) {
      float* row = scores_ + r * kScoreStride + i * kKeys;
      if (block.bias != nullptr) {
        for (uint32_t j = 0; j < kKeys; j += Vec::kLanes)
          Vec::Add(Vec::Load(row + j), Vec::Load(block.bias + j)).Store(row + j);
      }
      HideKeys(row, list_[i] * kKeys, r);
    }
  }

  void CapScores(uint32_t i) {
    const Vec cap = Vec::Set1(args_.softcap);
    const Vec inverse = Vec::Set1(1.0f / args_.softcap);
    for (int r = 0; r < R; ++r) {
      float* row = scores_ + r * kScoreStride + i * kKeys;
      for (uint32_t j = 0; j < kKeys; j += Vec::kLanes) {
        Vec::Mul(cap, Tanh(Vec::Mul(Vec::Load(row + j), inverse))).Store(row + j);
      }
    }
  }

  // Row r sees [0, head) and [begin, end), where head <= end. In the block that starts at key `lo`,
  // it therefore does not see [head, begin) and [max(head, end), 64).
  void HideKeys(float* row, uint32_t lo, int r) const {
    const uint32_t head = InBlock(head_[r], lo);
    const uint32_t begin = InBlock(begin_[r], lo);
    const uint32_t end = InBlock(end_[r], lo);
    for (uint32_t j = head; j < begin; ++j) row[j] = kNegInfinity;
    for (uint32_t j = end; j < kKeys; ++j) row[j] = kNegInfinity;
  }

  static uint32_t InBlock(uint32_t key, uint32_t lo) {
    return key <= lo ? 0 : MinOf(key - lo, kKeys);
  }

  // Online softmax: adds a chunk to the row's state. Returns the factor by which the row's `out`
  // must be multiplied. If the chunk does not raise the maximum, its weights in `row` are scaled
  // down instead, so that both share one origin.
  LH_INLINE float Merge(RowState& state, RowSum chunk, float* row) const {
    if (chunk.max == kNegInfinity) return 1.0f;
    if (state.max == kNegInfinity) {
      state = {chunk.max, chunk.sum};
      return 0.0f;
    }
    if (chunk.max > state.max) {
      const float keep = __builtin_expf(state.max - chunk.max);
      state = {chunk.max, state.sum * keep + chunk.sum};
      return keep;
    }
    const float weight = __builtin_expf(chunk.max - state.max);
    const Vec w = Vec::Set1(weight);
    for (uint32_t j = 0; j < count_ * kKeys; j += Vec::kLanes)
      Vec::Mul(Vec::Load(row + j), w).Store(row + j);
    state.sum += chunk.sum * weight;
    return 1.0f;
  }

  // out[r, column ...] = keep[r] out[r, column ...] + sum_j scores[r, j] v[j, column ...], for NV
  // vectors of columns.
  template <int NV, bool kTail>
  void Weigh(uint32_t column, uint32_t tail, const float* keep) {
    Vec acc[R][NV];
    LH_UNROLL
    for (int r = 0; r < R; ++r) {
      LH_UNROLL
      for (int v = 0; v < NV; ++v) acc[r][v] = Vec::Set1(0.0f);
    }
    for (uint32_t i = 0; i < count_; ++i) {
      const KeyBlockView& block = args_.blocks[list_[i]];
      const float* weights = scores_ + i * kKeys;
      if (block.half_values != nullptr) {
        MultiplyAdd<R, NV, kTail, kScoreStride>(weights, block.half_values + column, args_.head_dim,
                                                kKeys, tail, acc);
      } else {
        MultiplyAdd<R, NV, kTail, kScoreStride>(weights, block.values + column, args_.head_dim,
                                                kKeys, tail, acc);
      }
    }
    LH_UNROLL
    for (int r = 0; r < R; ++r) {
      float* out = args_.out + size_t{row0_ + r} * args_.head_dim + column;
      const Vec kept = Vec::Set1(keep[r]);
      LH_UNROLL
      for (int v = 0; v < NV; ++v) {
        float* at = out + v * Vec::kLanes;
        if (kTail && v == NV - 1) {
          Vec::Fma(kept, Vec::LoadPartial(at, tail), acc[r][v]).StorePartial(at, tail);
        } else {
          Vec::Fma(kept, Vec::Load(at), acc[r][v]).Store(at);
        }
      }
    }
  }

  // The last `columns` columns, fewer than a full tile. Uses the smallest number of vectors
  // that covers them.
  template <int NV>
  void WeighLast(uint32_t column, uint32_t columns, const float* keep) {
    if constexpr (NV > 1) {
      if (columns <= (NV - 1) * Vec::kLanes) return WeighLast<NV - 1>(column, columns, keep);
    }
    if (columns == NV * Vec::kLanes) return Weigh<NV, false>(column, 0, keep);
    Weigh<NV, true>(column, columns - (NV - 1) * Vec::kLanes, keep);
  }

  const AttendArgs& args_;
  uint32_t row0_;
  RowState* states_;
  float* scores_;   // [R, kScoreStride]
  const float* q_;  // [R, kQueryStride], times scale
  uint32_t head_[R];
  uint32_t begin_[R];
  uint32_t end_[R];
  uint32_t list_[kChunkBlocks];
  uint32_t count_ = 0;
};

struct ChunkStep {
  uint32_t first;
  uint32_t last;
  bool attend;  // else only key_mass
  bool key_mass;
};

template <int R>
void RunTile(const AttendArgs& args, uint32_t row0, RowState* states, const ChunkStep& step) {
  RowTile<R> tile(args, row0, states);
  if (step.attend) tile.Attend(step.first, step.last);
  if (step.key_mass) tile.AddKeyMass(step.first, step.last, step.attend);
}

// Calls F<R>(row0) for row tiles of nearly equal height. 8 rows become 4 + 4, not 6 + 2: two FMA
// chains of 16 instead of one of 24 and one of 8.
#define LH_FOR_ROW_TILES(rows, F, ...)                              \
  do {                                                              \
    const uint32_t lh_tiles = ((rows) + kTileRows - 1) / kTileRows; \
    uint32_t lh_row = 0;                                            \
    for (uint32_t lh_t = 0; lh_t < lh_tiles; ++lh_t) {              \
      const uint32_t lh_next = (rows) * (lh_t + 1) / lh_tiles;      \
      switch (lh_next - lh_row) {                                   \
        case 1: F<1>(__VA_ARGS__); break;                           \
        case 2: F<2>(__VA_ARGS__); break;                           \
        case 3: F<3>(__VA_ARGS__); break;                           \
        case 4: F<4>(__VA_ARGS__); break;                           \
        case 5: F<5>(__VA_ARGS__); break;                           \
        default: F<6>(__VA_ARGS__); break;                          \
      }                                                             \
      lh_row = lh_next;                                             \
    }                                                               \
  } while (0)

void AttendImpl(const AttendArgs& args) {
  RowState states[kAttendRowsMax];
  for (uint32_t r = 0; r < args.rows; ++r) states[r] = {kNegInfinity, 0.0f};
  for (size_t i = 0; i < size_t{args.rows} * args.head_dim; ++i) args.out[i] = 0.0f;

  // Outer loop over chunks, inner loop over row tiles: a chunk's keys and values come from memory
  // once, and from the cache for all later tiles.
  const bool one_chunk = args.block_count <= kChunkBlocks;
  const bool want_mass = args.key_mass != nullptr;
  for (uint32_t first = 0; first < args.block_count; first += kChunkBlocks) {
    const ChunkStep step = {.first = first,
                            .last = MinOf(first + kChunkBlocks, args.block_count),
                            .attend = true,
                            .key_mass = want_mass && one_chunk};
    LH_FOR_ROW_TILES(args.rows, RunTile, args, lh_row, states, step);
  }
  // A key's probability needs the final sum. Keeping the weights of all chunks until then would
  // take rows x keys floats. So calls with several chunks compute the logits a second time; the
  // usual calls have one chunk and do not.
  for (uint32_t first = 0; want_mass && !one_chunk && first < args.block_count;
       first += kChunkBlocks) {
    const ChunkStep step = {.first = first,
                            .last = MinOf(first + kChunkBlocks, args.block_count),
                            .attend = false,
                            .key_mass = true};
    LH_FOR_ROW_TILES(args.rows, RunTile, args, lh_row, states, step);
  }

  for (uint32_t r = 0; r < args.rows; ++r) {
    const bool empty = states[r].max == kNegInfinity;
    const float part = empty ? 0.0f : 1.0f / states[r].sum;
    float* out = args.out + size_t{r} * args.head_dim;
    for (uint32_t c = 0; c < args.head_dim; ++c) out[c] *= part;
    if (args.lse != nullptr)
      args.lse[r] = empty ? kNegInfinity : states[r].max + __builtin_logf(states[r].sum);
  }
}

// Number of blocks per step. Their keys stay in the L1 cache while all row tiles pass over them,
// and the cost of preparing a tile is spread over them.
constexpr size_t kScanBlocks = 8;

// Adding the 64 elements that `From(count)` points to hides all keys except the first `count`.
struct HiddenTail {
  float addends[2 * kKeys];

  constexpr HiddenTail() : addends() {
    for (uint32_t j = kKeys; j < 2 * kKeys; ++j) addends[j] = kNegInfinity;
  }
  const float* From(uint32_t count) const { return addends + kKeys - count; }
};
constexpr HiddenTail kHiddenTail;

// ExpRow for one block whose weights are not needed: nothing is written back.
// Must hold: count >= 1.
LH_INLINE RowSum SumBlock(const float* dots, float scale, uint32_t count) {
  constexpr int kVectors = kKeys / Vec::kLanes;
  Vec x[kVectors];
  LH_UNROLL
  for (int i = 0; i < kVectors; ++i)
    x[i] = Vec::Mul(Vec::Load(dots + i * Vec::kLanes), Vec::Set1(scale));
  if (count < kKeys) {
    const float* hide = kHiddenTail.From(count);
    LH_UNROLL
    for (int i = 0; i < kVectors; ++i) x[i] = Vec::Add(x[i], Vec::Load(hide + i * Vec::kLanes));
  }
  Vec max = x[0];
  LH_UNROLL
  for (int i = 1; i < kVectors; ++i) max = Vec::Max(max, x[i]);
  const float top = Vec::ReduceMax(max);
  Vec sum = Vec::Set1(0.0f);
  LH_UNROLL
  for (int i = 0; i < kVectors; ++i) sum = Vec::Add(sum, Exp(Vec::Sub(x[i], Vec::Set1(top))));
  return {top, Vec::ReduceAdd(sum)};
}

template <int R>
void ScanTile(const ScanCall& call, uint32_t row0, size_t first, size_t last) {
  Int8Query<R> query;
  query.Prepare(call.q + size_t{row0} * call.head_dim, call.head_dim);
  for (size_t b = first; b < last; ++b) {
    alignas(64) float dots[R][kKeys];
    query.Dots(call.keys + b * call.head_dim * kKeys, call.key_scale + b * kKeys, dots);
    for (int r = 0; r < R; ++r) {
      const RowSum sum = SumBlock(dots[r], call.q_scale[row0 + r], call.counts[b]);
      call.block_max[b * call.rows + row0 + r] = sum.max;
      call.block_sum[b * call.rows + row0 + r] = sum.sum;
    }
  }
}

void ScanImpl(const ScanCall& call) {
  for (size_t first = 0; first < call.block_count; first += kScanBlocks) {
    const size_t last =
        first + kScanBlocks < call.block_count ? first + kScanBlocks : call.block_count;
    LH_FOR_ROW_TILES(call.rows, ScanTile, call, lh_row, first, last);
  }
}

template <int R>
void LogitsTile(const ScanCall& call, uint32_t row0, float* out) {
  Int8Query<R> query;
  query.Prepare(call.q + size_t{row0} * call.head_dim, call.head_dim);
  alignas(64) float logits[R][kKeys];
  query.Dots(call.keys, call.key_scale, logits);
  for (uint32_t j = 0; j < kKeys; ++j) {
    for (int r = 0; r < R; ++r)
      out[j * call.rows + row0 + r] = logits[r][j] * call.q_scale[row0 + r];
  }
}

void ScanLogitsImpl(const ScanCall& one_block, float* out) {
  LH_FOR_ROW_TILES(one_block.rows, LogitsTile, one_block, lh_row, out);
}

// out[r, column ...] += a b for NV vectors of columns.
template <int R, int NV, bool kTail>
void MultiplyColumns(const MultiplyCall& call, const float* a, uint32_t row0, uint32_t first,
                     uint32_t depth, uint32_t column, uint32_t tail) {
  Vec acc[R][NV];
  LH_UNROLL
  for (int r = 0; r < R; ++r) {
    const float* out = call.out + size_t{row0 + r} * call.columns + column;
    LH_UNROLL
    for (int v = 0; v < NV; ++v) {
      const float* at = out + v * Vec::kLanes;
      acc[r][v] = kTail && v == NV - 1 ? Vec::LoadPartial(at, tail) : Vec::Load(at);
    }
  }
  MultiplyAdd<R, NV, kTail, kQueryStride>(a, call.b + size_t{first} * call.columns + column,
                                          call.columns, depth, tail, acc);
  LH_UNROLL
  for (int r = 0; r < R; ++r) {
    float* out = call.out + size_t{row0 + r} * call.columns + column;
    LH_UNROLL
    for (int v = 0; v < NV; ++v) {
      float* at = out + v * Vec::kLanes;
      if (kTail && v == NV - 1) {
        acc[r][v].StorePartial(at, tail);
      } else {
        acc[r][v].Store(at);
      }
    }
  }
}

// The last `columns` columns, fewer than a full tile.
template <int R, int NV>
void MultiplyLast(const MultiplyCall& call, const float* a, uint32_t row0, uint32_t first,
                  uint32_t depth, uint32_t column, uint32_t columns) {
  if constexpr (NV > 1) {
    if (columns <= (NV - 1) * Vec::kLanes)
      return MultiplyLast<R, NV - 1>(call, a, row0, first, depth, column, columns);
  }
  if (columns == NV * Vec::kLanes)
    return MultiplyColumns<R, NV, false>(call, a, row0, first, depth, column, 0);
  MultiplyColumns<R, NV, true>(call, a, row0, first, depth, column,
                               columns - (NV - 1) * Vec::kLanes);
}

// Depth of one step: a tile's rows are copied, and each copy must fit kQueryStride.
constexpr uint32_t kMultiplyDepth = 256;

template <int R>
void MultiplyTile(const MultiplyCall& call, uint32_t row0, uint32_t first, uint32_t depth) {
  alignas(64) float a[R * kQueryStride];
  for (int r = 0; r < R; ++r) {
    __builtin_memcpy(a + r * kQueryStride, call.a + size_t{row0 + r} * call.depth + first,
                     depth * sizeof(float));
  }
  constexpr uint32_t kWidth = kTileVectors * Vec::kLanes;
  uint32_t column = 0;
  for (; column + kWidth <= call.columns; column += kWidth) {
    MultiplyColumns<R, kTileVectors, false>(call, a, row0, first, depth, column, 0);
  }
  if (column < call.columns)
    MultiplyLast<R, kTileVectors>(call, a, row0, first, depth, column, call.columns - column);
}

void MultiplyAddImpl(const MultiplyCall& call) {
  // Outer loop over depth: the part of `b` that all row tiles read stays in the L2 cache.
  for (uint32_t first = 0; first < call.depth; first += kMultiplyDepth) {
    const uint32_t depth = MinOf(call.depth - first, kMultiplyDepth);
    LH_FOR_ROW_TILES(call.rows, MultiplyTile, call, lh_row, first, depth);
  }
}

void HalfToFloatImpl(const uint16_t* in, float* out, size_t count) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) HalfToFloat8(in + i, out + i);
  if (i == count) return;
  uint16_t half[8] = {};
  float full[8];
  __builtin_memcpy(half, in + i, (count - i) * sizeof(uint16_t));
  HalfToFloat8(half, full);
  __builtin_memcpy(out + i, full, (count - i) * sizeof(float));
}

void FloatToHalfImpl(const float* in, uint16_t* out, size_t count) {
  size_t i = 0;
  for (; i + 8 <= count; i += 8) FloatToHalf8(in + i, out + i);
  if (i == count) return;
  float full[8] = {};
  uint16_t half[8];
  __builtin_memcpy(full, in + i, (count - i) * sizeof(float));
  FloatToHalf8(full, half);
  __builtin_memcpy(out + i, half, (count - i) * sizeof(uint16_t));
}

constexpr IsaKernels kImplementation = {.attend = AttendImpl,
                                        .scan = ScanImpl,
                                        .scan_logits = ScanLogitsImpl,
                                        .multiply_add = MultiplyAddImpl,
                                        .half_to_float = HalfToFloatImpl,
                                        .float_to_half = FloatToHalfImpl};

}  // namespace
}  // namespace longhold
