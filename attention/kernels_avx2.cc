// AVX2 with FMA and F16C (Haswell, Zen 1 and later). Runs only after kernels.cc has
// checked the processor.
#include <immintrin.h>

#include "attention/kernels_isa.h"

namespace longhold {
namespace {

// 6 x 2 accumulators, 2 vectors of B and the broadcast weight: 15 of 16 registers.
constexpr int kTileVectors = 2;
constexpr float kExpMin = -87.0f;  // exp(kExpMin) is still a normal float

struct Vec {
  static constexpr int kLanes = 8;
  __m256 v;

  static Vec Load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec LoadPartial(const float* p, uint32_t n) { return {_mm256_maskload_ps(p, First(n))}; }
  static Vec Load(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  static Vec LoadPartial(const uint16_t* p, uint32_t n) {
    uint16_t first[kLanes] = {};
    __builtin_memcpy(first, p, n * sizeof(uint16_t));
    return Load(first);
  }
  void Store(float* p) const { _mm256_storeu_ps(p, v); }
  void StorePartial(float* p, uint32_t n) const { _mm256_maskstore_ps(p, First(n), v); }
  static Vec Set1(float x) { return {_mm256_set1_ps(x)}; }
  // Reloading costs nothing here: the arithmetic is half as wide, and registers are few.
  void KeepInRegister() {}
  static Vec Add(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
  static Vec Sub(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
  static Vec Mul(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
  static Vec Div(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
  static Vec Max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
  static Vec Min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
  static Vec Fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  static Vec Fnma(Vec a, Vec b, Vec c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
  static Vec Round(Vec x) {
    return {_mm256_round_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static Vec ScaleOrZero(Vec p, Vec n, Vec x) {
    // Where the result is kept, p is in [1/2, 2) and n in [-126, 127]. Adding n to the exponent
    // bits therefore cannot carry over.
    const __m256i shift = _mm256_slli_epi32(_mm256_cvtps_epi32(n.v), 23);
    const __m256 scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.v), shift));
    return {_mm256_and_ps(_mm256_cmp_ps(x.v, _mm256_set1_ps(kExpMin), _CMP_GE_OQ), scaled)};
  }
  static float ReduceMax(Vec x) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
  }
  static float ReduceAdd(Vec x) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x.v), _mm256_extractf128_ps(x.v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
  }

 private:
  static __m256i First(uint32_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
};

// Keys and queries are widened to 16 bits. maddubs would be twice as fast but saturates (255 * 127
// * 2 > 32767), and the ranking of recalled spans must not depend on the processor. The keys'
// offset of 128 is removed by adding -128 sum(q).
template <int R>
struct Int8Query {
  int16_t rows[R][kQueryStride];
  uint32_t head_dim;
  int32_t start[R];

  void Prepare(const int8_t* q, uint32_t dim) {
    head_dim = dim;
    for (int r = 0; r < R; ++r) {
      int32_t sum = 0;
      for (uint32_t c = 0; c < dim; ++c) {
        rows[r][c] = q[r * dim + c];
        sum += q[r * dim + c];
      }
      start[r] = -128 * sum;
    }
  }

  // Eight keys at a time: two vectors of four keys x four dimensions in 16 bits. madd leaves two
  // partial sums per key.
  __attribute__((noinline)) void Dots(const uint8_t* keys, const float* key_scale,
                                      float (*out)[64]) const {
    for (uint32_t j = 0; j < 64; j += 8) {
      __m256i acc[R][2];
      LH_UNROLL
      for (int r = 0; r < R; ++r) acc[r][0] = acc[r][1] = _mm256_setzero_si256();
      const uint8_t* at = keys + 4 * j;
      for (uint32_t c = 0; c < head_dim; c += 4, at += 256) {
        const __m256i low =
            _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
        const __m256i high =
            _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 16)));
        LH_UNROLL
        for (int r = 0; r < R; ++r) {
          int64_t four;
          __builtin_memcpy(&four, rows[r] + c, sizeof(four));
          const __m256i q = _mm256_set1_epi64x(four);
          acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(low, q));
          acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(high, q));
          // An empty asm that fixes the order. Without it, GCC 12 computes all products before the
          // first sum and spills the sums.
          asm volatile("" : "+x"(acc[r][0]), "+x"(acc[r][1]));
        }
      }
      const __m256 scale = _mm256_loadu_ps(key_scale + j);
      LH_UNROLL
      for (int r = 0; r < R; ++r) {
        // hadd works within 128-bit halves, so the keys come out as 0 1 4 5 | 2 3 6 7.
        const __m256i mixed = _mm256_hadd_epi32(acc[r][0], acc[r][1]);
        const __m256i dots =
            _mm256_add_epi32(_mm256_permute4x64_epi64(mixed, 0xD8), _mm256_set1_epi32(start[r]));
        _mm256_storeu_ps(out[r] + j, _mm256_mul_ps(_mm256_cvtepi32_ps(dots), scale));
      }
    }
  }
};

void HalfToFloat8(const uint16_t* in, float* out) {
  _mm256_storeu_ps(out, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in))));
}

void FloatToHalf8(const float* in, uint16_t* out) {
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(out),
      _mm256_cvtps_ph(_mm256_loadu_ps(in), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

}  // namespace
}  // namespace longhold

#include "attention/kernels_impl.h"

namespace longhold {
const IsaKernels kAvx2Kernels = kImplementation;
}  // namespace longhold
