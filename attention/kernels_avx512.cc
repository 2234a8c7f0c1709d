// AVX-512 with VNNI (Ice Lake server, Zen 4 and later). Runs only after kernels.cc has
// checked the processor.
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's AVX-512 header passes an undefined register to operations that replace every lane
// (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include "attention/kernels_isa.h"

namespace longhold {
namespace {

// 6 x 4 accumulators, 4 vectors of B and the broadcast weight: 29 of 32 registers, with 24
// independent multiply-adds in flight.
constexpr int kTileVectors = 4;
constexpr float kExpMin = -87.0f;  // exp(kExpMin) is still a normal float

struct Vec {
  static constexpr int kLanes = 16;
  __m512 v;

  static Vec Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec LoadPartial(const float* p, uint32_t n) {
    return {_mm512_maskz_loadu_ps(First(n), p)};
  }
  static Vec Load(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static Vec LoadPartial(const uint16_t* p, uint32_t n) {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(First(n), p))};
  }
  void Store(float* p) const { _mm512_storeu_ps(p, v); }
  void StorePartial(float* p, uint32_t n) const { _mm512_mask_storeu_ps(p, First(n), v); }
  static Vec Set1(float x) { return {_mm512_set1_ps(x)}; }
  void KeepInRegister() { asm("" : "+v"(v)); }
  static Vec Add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  static Vec Sub(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
  static Vec Mul(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
  static Vec Div(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
  static Vec Max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
  static Vec Min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
  static Vec Fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static Vec Fnma(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
  static Vec Round(Vec x) {
    return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static Vec ScaleOrZero(Vec p, Vec n, Vec x) {
    const __mmask16 keep = _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(kExpMin), _CMP_GE_OQ);
    return {_mm512_maskz_scalef_ps(keep, p.v, n.v)};
  }
  static float ReduceMax(Vec x) { return _mm512_reduce_max_ps(x.v); }
  static float ReduceAdd(Vec x) { return _mm512_reduce_add_ps(x.v); }

 private:
  static __mmask16 First(uint32_t n) { return static_cast<__mmask16>((1u << n) - 1); }
};

// dpbusd multiplies unsigned by signed bytes and adds four products per 32-bit lane without
// saturation, which fits the layout of the keys. The keys' offset of 128 is removed by starting
// each sum at -128 sum(q).
template <int R>
struct Int8Query {
  const int8_t* rows;
  uint32_t head_dim;
  int32_t start[R];

  void Prepare(const int8_t* q, uint32_t dim) {
    rows = q;
    head_dim = dim;
    for (int r = 0; r < R; ++r) {
      int32_t sum = 0;
      for (uint32_t c = 0; c < dim; ++c) sum += q[r * dim + c];
      start[r] = -128 * sum;
    }
  }

  __attribute__((noinline)) void Dots(const uint8_t* keys, const float* key_scale,
                                      float (*out)[64]) const {
    // The sums are 16 ints, not the 8 long longs of __m512i. Otherwise GCC 12 keeps each sum twice,
    // once per type, and spills.
    typedef int32_t Sums __attribute__((vector_size(64)));
    Sums acc[R][4];
    LH_UNROLL
    for (int r = 0; r < R; ++r) {
      LH_UNROLL
      for (int v = 0; v < 4; ++v) acc[r][v] = reinterpret_cast<Sums>(_mm512_set1_epi32(start[r]));
    }
    for (uint32_t c = 0; c < head_dim; c += 4, keys += 256) {
      __m512i key[4];
      LH_UNROLL
      for (int v = 0; v < 4; ++v) key[v] = _mm512_loadu_si512(keys + 64 * v);
      LH_UNROLL
      for (int r = 0; r < R; ++r) {
        int32_t four;
        __builtin_memcpy(&four, rows + r * head_dim + c, sizeof(four));
        const __m512i q = _mm512_set1_epi32(four);
        LH_UNROLL
        for (int v = 0; v < 4; ++v) {
          acc[r][v] = reinterpret_cast<Sums>(
              _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(acc[r][v]), key[v], q));
        }
      }
    }
    LH_UNROLL
    for (int r = 0; r < R; ++r) {
      LH_UNROLL
      for (int v = 0; v < 4; ++v) {
        const __m512 scaled =
            _mm512_mul_ps(_mm512_cvtepi32_ps(reinterpret_cast<__m512i>(acc[r][v])),
                          _mm512_loadu_ps(key_scale + 16 * v));
        _mm512_storeu_ps(out[r] + 16 * v, scaled);
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
const IsaKernels kAvx512Kernels = kImplementation;
}  // namespace longhold
