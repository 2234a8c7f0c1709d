// Kernels that assume no instruction-set extension. They use the compiler's portable vectors of
// four floats, which every processor of the architecture runs. LONGHOLD_KERNELS=scalar selects this
// level to compare results across machines.
#include "attention/kernels_isa.h"
#include "base/half.h"

namespace longhold {
namespace {

constexpr int kTileVectors = 2;
constexpr float kExpMin = -87.0f;  // exp(kExpMin) is still a normal float

struct Vec {
  static constexpr int kLanes = 4;
  typedef float Floats __attribute__((vector_size(16)));
  typedef uint32_t Bits __attribute__((vector_size(16)));
  Floats v;

  static Vec Load(const float* p) {
    Vec x;
    __builtin_memcpy(&x.v, p, sizeof(x.v));
    return x;
  }
  void Store(float* p) const { __builtin_memcpy(p, &v, sizeof(v)); }
  static Vec LoadPartial(const float* p, uint32_t n) {
    Vec x = {Floats{}};
    __builtin_memcpy(&x.v, p, n * sizeof(float));
    return x;
  }
  static Vec Load(const uint16_t* p) {
    return {Floats{FromHalf(p[0]), FromHalf(p[1]), FromHalf(p[2]), FromHalf(p[3])}};
  }
  static Vec LoadPartial(const uint16_t* p, uint32_t n) {
    uint16_t first[kLanes] = {};
    __builtin_memcpy(first, p, n * sizeof(uint16_t));
    return Load(first);
  }
  void StorePartial(float* p, uint32_t n) const { __builtin_memcpy(p, &v, n * sizeof(float)); }
  static Vec Set1(float x) { return {Floats{x, x, x, x}}; }
  void KeepInRegister() {}  // there are too few registers to enforce it
  static Vec Add(Vec a, Vec b) { return {a.v + b.v}; }
  static Vec Sub(Vec a, Vec b) { return {a.v - b.v}; }
  static Vec Mul(Vec a, Vec b) { return {a.v * b.v}; }
  static Vec Div(Vec a, Vec b) { return {a.v / b.v}; }
  static Vec Max(Vec a, Vec b) { return Select((Bits)(a.v > b.v), a, b); }
  static Vec Min(Vec a, Vec b) { return Select((Bits)(a.v < b.v), a, b); }
  static Vec Fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
  static Vec Fnma(Vec a, Vec b, Vec c) { return {c.v - a.v * b.v}; }
  // Adding 1.5 * 2^23 leaves no bits for a fraction. The low bits of the sum are then
  // the integer itself.
  static Vec Round(Vec x) { return {(x.v + kWhole) - kWhole}; }
  static Vec ScaleOrZero(Vec p, Vec n, Vec x) {
    const Bits shift = (Bits)(n.v + kWhole) << 23;
    return {(Floats)(((Bits)p.v + shift) & (Bits)(x.v >= kExpMin))};
  }
  static float ReduceMax(Vec x) {
    float max = x.v[0];
    for (int i = 1; i < kLanes; ++i) max = x.v[i] > max ? x.v[i] : max;
    return max;
  }
  static float ReduceAdd(Vec x) { return (x.v[0] + x.v[1]) + (x.v[2] + x.v[3]); }

 private:
  static constexpr float kWhole = 12582912.0f;
  static Vec Select(Bits mask, Vec a, Vec b) {
    return {(Floats)(((Bits)a.v & mask) | ((Bits)b.v & ~mask))};
  }
};

template <int R>
struct Int8Query {
  const int8_t* rows;
  uint32_t head_dim;

  void Prepare(const int8_t* q, uint32_t dim) {
    rows = q;
    head_dim = dim;
  }

  void Dots(const uint8_t* keys, const float* key_scale, float (*out)[64]) const {
    for (int r = 0; r < R; ++r) {
      int32_t dots[64] = {};
      for (uint32_t c = 0; c < head_dim; c += 4) {
        const uint8_t* key = keys + 64 * size_t{c};
        const int8_t* q = rows + r * head_dim + c;
        for (int j = 0; j < 64; ++j) {
          for (int i = 0; i < 4; ++i) dots[j] += (key[4 * j + i] - 128) * q[i];
        }
      }
      for (int j = 0; j < 64; ++j) out[r][j] = static_cast<float>(dots[j]) * key_scale[j];
    }
  }
};

void HalfToFloat8(const uint16_t* in, float* out) {
  for (int i = 0; i < 8; ++i) out[i] = FromHalf(in[i]);
}

void FloatToHalf8(const float* in, uint16_t* out) {
  for (int i = 0; i < 8; ++i) out[i] = ToHalf(in[i]);
}

}  // namespace
}  // namespace longhold

#include "attention/kernels_impl.h"

namespace longhold {
const IsaKernels kScalarKernels = kImplementation;
}  // namespace longhold
