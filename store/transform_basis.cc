#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "base/hash.h"
#include "store/code_bytes.h"
#include "store/transform_codec.h"

// LAPACK: the eigenvalues (ascending) and eigenvectors of a symmetric matrix, by
// divide and conquer.
extern "C" void dsyevd_(const char* jobz, const char* uplo, const int* n, double* a, const int* lda,
                        double* w, double* work, const int* lwork, int* iwork, const int* liwork,
                        int* info);

namespace longhold {
namespace {

constexpr char kMagic[4] = {'L', 'H', 'K', 'B'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kStepChannels = 64;
constexpr float kStepMin = 0x1p-24f;
// A few tokens deviate ten times as much as the others and would dominate the basis. Their norm is
// limited to this multiple of the median token's norm.
constexpr float kOutlier = 3;
// The components of least variance are dropped, as long as the total squared error that this adds
// stays below this share of the squared rounding error.
constexpr double kLeftOut = 0.02;
constexpr double kRoundingError = 1.0 / 12;

// The groups of a shape, without data.
std::vector<TransformBasis::Group> Layout(const BlockShape& shape) {
  std::vector<TransformBasis::Group> groups;
  const uint32_t count =
      (shape.kv_width + TransformBasis::kGroupChannelsMax - 1) / TransformBasis::kGroupChannelsMax;
  for (uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (uint32_t i = 0; i < count; ++i) {
      const auto cut = [&](uint32_t n) {
        return static_cast<uint32_t>(uint64_t{shape.kv_width} * n / count);
      };
      groups.push_back({.layer = layer,
                        .begin = cut(i),
                        .channels = cut(i + 1) - cut(i),
                        .components = 0,
                        .mean = {},
                        .step = {},
                        .rows = {},
                        .classes = {}});
    }
  }
  return groups;
}

// Appends the group's elements of each token that has only finite ones.
void AppendRows(const KvBlock& block, const TransformBasis::Group& group,
                std::vector<float>* rows) {
  const uint32_t width = block.shape.kv_width;
  for (uint32_t t = 0; t < block.tokens; ++t) {
    const size_t before = rows->size();
    bool finite = true;
    for (const uint16_t* side : {block.Keys(group.layer), block.Values(group.layer)}) {
      for (uint32_t c = 0; c < group.channels; ++c) {
        rows->push_back(FromHalf(side[size_t{t} * width + group.begin + c]));
        finite &= std::isfinite(rows->back());
      }
    }
    if (!finite) rows->resize(before);
  }
}

float Median(std::vector<float> x) {
  std::nth_element(x.begin(), x.begin() + static_cast<ptrdiff_t>(x.size() / 2), x.end());
  return x[x.size() / 2];
}

// Computes the group's means and steps. Converts `rows` to distances from the mean, in steps.
void Normalise(float share, std::vector<float>* rows, TransformBasis::Group* group) {
  const size_t size = 2 * size_t{group->channels}, tokens = rows->size() / size;
  std::vector<double> sum(size, 0);
  for (size_t i = 0; i < rows->size(); ++i) sum[i % size] += (*rows)[i];
  group->mean.resize(size);
  for (size_t c = 0; c < size; ++c)
    group->mean[c] = static_cast<float>(sum[c] / static_cast<double>(tokens));
  group->step.resize(size);
  std::vector<float> deviation(tokens);
  for (size_t begin = 0; begin < size;) {
    const size_t side_end = begin < group->channels ? group->channels : size;
    const size_t end = std::min(side_end, begin + kStepChannels);
    float largest = 0;
    for (size_t t = 0; t < tokens; ++t) {
      double squares = 0;
      for (size_t c = begin; c < end; ++c) {
        const double x = (*rows)[t * size + c] - group->mean[c];
        squares += x * x;
        largest = std::max(largest, std::abs((*rows)[t * size + c]));
      }
      deviation[t] = static_cast<float>(std::sqrt(squares / static_cast<double>(end - begin)));
    }
    // At least so large that a float can hold all multiples of the step that occur.
    const float step = std::max({share * Median(deviation), largest * 0x1p-20f, kStepMin});
    for (size_t c = begin; c < end; ++c) group->step[c] = step;
    begin = end;
  }
  for (size_t i = 0; i < rows->size(); ++i)
    (*rows)[i] = ((*rows)[i] - group->mean[i % size]) / group->step[i % size];
}

// Scales the rows of outliers down.
void Tame(size_t size, std::vector<float>* rows) {
  const size_t tokens = rows->size() / size;
  std::vector<float> norm(tokens);
  for (size_t t = 0; t < tokens; ++t) {
    double squares = 0;
    for (size_t c = 0; c < size; ++c)
      squares += double{(*rows)[t * size + c]} * (*rows)[t * size + c];
    norm[t] = static_cast<float>(std::sqrt(squares));
  }
  const float limit = kOutlier * Median(norm);
  for (size_t t = 0; t < tokens; ++t) {
    if (!(norm[t] > limit)) continue;
    for (size_t c = 0; c < size; ++c) (*rows)[t * size + c] *= limit / norm[t];
  }
}

// Writes the eigenvectors of rows^T rows / tokens to the group: components, rows, classes.
Status Diagonalise(const std::vector<float>& rows, MultiplyAdd multiply,
                   TransformBasis::Group* group) {
  const size_t size = 2 * size_t{group->channels}, tokens = rows.size() / size;
  std::vector<float> transposed(rows.size()), covariance(size * size, 0.0f);
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t c = 0; c < size; ++c) transposed[c * tokens + t] = rows[t * size + c];
  }
  multiply(transposed.data(), rows.data(), covariance.data(), static_cast<uint32_t>(size),
           static_cast<uint32_t>(tokens), static_cast<uint32_t>(size));
  std::vector<double> a(covariance.begin(), covariance.end()), variance(size);
  for (double& x : a) x /= static_cast<double>(tokens);
  const int n = static_cast<int>(size), lwork = 1 + 6 * n + 2 * n * n, liwork = 3 + 5 * n;
  std::vector<double> work(static_cast<size_t>(lwork));
  std::vector<int> iwork(static_cast<size_t>(liwork));
  int info = 0;
  dsyevd_("V", "U", &n, a.data(), &n, variance.data(), work.data(), &lwork, iwork.data(), &liwork,
          &info);
  if (info != 0)
    return Internal("fit codec basis: LAPACK's dsyevd returned " + std::to_string(info));

  size_t left_out = 0;
  double lost = 0;
  while (left_out < size && lost + std::max(0.0, variance[left_out]) <=
                                kLeftOut * kRoundingError * static_cast<double>(size)) {
    lost += std::max(0.0, variance[left_out++]);
  }
  group->components = static_cast<uint32_t>(size - left_out);
  for (size_t i = size; i-- > left_out;) {  // dsyevd's columns are contiguous
    // Rounded to fp16, as it will be stored, so that a basis is the same before and after storing.
    for (size_t c = 0; c < size; ++c)
      group->rows.push_back(FromHalf(ToHalf(static_cast<float>(a[i * size + c]))));
    const double half_octaves = variance[i] > 0 ? std::log2(variance[i]) : -100;
    group->classes.push_back(static_cast<uint8_t>(
        std::clamp(std::lround(half_octaves) + 6, 0l, long{TransformBasis::kClasses} - 1)));
  }
  return OkStatus();
}

template <typename T>
void AppendElements(std::string* out, const std::vector<T>& values) {
  out->append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

// Takes values from the front of `rest`. If too few bytes are left, `ok` becomes false, and this
// and all later values are zero.
struct Cursor {
  std::string_view rest;
  bool ok = true;

  template <typename T>
  T Take() {
    T value{};
    TakeInto(std::span(&value, 1));
    return value;
  }
  template <typename T>
  void TakeInto(std::span<T> out) {
    ok = ok && rest.size() >= out.size_bytes();
    if (!ok || out.empty()) return;
    std::memcpy(out.data(), rest.data(), out.size_bytes());
    rest.remove_prefix(out.size_bytes());
  }
};

}  // namespace

Result<TransformBasis> TransformBasis::Fit(std::span<const KvBlock> blocks, float share,
                                           MultiplyAdd multiply) {
  LH_CHECK(!blocks.empty() && share > 0);
  TransformBasis basis;
  basis.shape_ = blocks[0].shape;
  basis.groups_ = Layout(basis.shape_);
  for (Group& group : basis.groups_) {
    std::vector<float> rows;
    for (const KvBlock& block : blocks) {
      LH_CHECK(block.shape == basis.shape_);
      AppendRows(block, group, &rows);
    }
    if (rows.empty())
      return InvalidArgument("fit codec basis: no token of layer " + std::to_string(group.layer) +
                             " has only finite numbers");
    Normalise(share, &rows, &group);
    Tame(2 * size_t{group.channels}, &rows);
    LH_RETURN_IF_ERROR(Diagonalise(rows, multiply, &group));
  }
  // The id is the checksum of the encoded basis.
  const std::string bytes = basis.Encode();
  std::memcpy(&basis.id_, bytes.data() + bytes.size() - sizeof(basis.id_), sizeof(basis.id_));
  return basis;
}

uint64_t TransformBasis::ram_bytes() const {
  uint64_t bytes = 0;
  for (const Group& g : groups_)
    bytes += (g.mean.size() + g.step.size() + g.rows.size()) * sizeof(float) + g.classes.size();
  return bytes;
}

std::string TransformBasis::Encode() const {
  std::string out(kMagic, sizeof(kMagic));
  AppendNumber(&out, kVersion);
  AppendNumber(&out, shape_.layers);
  AppendNumber(&out, shape_.kv_width);
  for (const Group& group : groups_) {
    AppendNumber(&out, group.components);
    AppendElements(&out, group.mean);
    AppendElements(&out, group.step);
    AppendElements(&out, group.classes);
    for (const float x : group.rows) AppendNumber(&out, ToHalf(x));
  }
  const uint64_t checksum = Hash64(out);
  AppendNumber(&out, checksum);
  return out;
}

Result<TransformBasis> TransformBasis::Decode(std::string_view bytes, const BlockShape& shape) {
  const auto wrong = [](const char* what) {
    return DataLoss(std::string("decode codec basis: ") + what);
  };
  TransformBasis basis;
  if (bytes.size() < sizeof(kMagic) + sizeof(basis.id_)) return wrong("too short");
  std::memcpy(&basis.id_, bytes.data() + bytes.size() - sizeof(basis.id_), sizeof(basis.id_));
  Cursor cursor{bytes.substr(0, bytes.size() - sizeof(basis.id_))};
  if (Hash64(cursor.rest) != basis.id_) return wrong("checksum mismatch");
  char magic[sizeof(kMagic)];
  cursor.TakeInto(std::span<char>(magic));
  if (std::memcmp(magic, kMagic, sizeof(kMagic)) != 0) return wrong("wrong magic");
  if (cursor.Take<uint32_t>() != kVersion) return wrong("another version");
  const auto layers = cursor.Take<uint32_t>(), kv_width = cursor.Take<uint32_t>();
  if (!cursor.ok || !(BlockShape{layers, kv_width} == shape)) return wrong("another shape");
  basis.shape_ = shape;
  basis.groups_ = Layout(shape);
  for (Group& group : basis.groups_) {
    const size_t size = 2 * size_t{group.channels};
    group.components = cursor.Take<uint32_t>();
    // Checked before anything is sized by it.
    if (group.components > size || cursor.rest.size() / sizeof(uint16_t) / size < group.components)
      return wrong("too many components");
    group.mean.resize(size);
    group.step.resize(size);
    group.classes.resize(group.components);
    cursor.TakeInto(std::span(group.mean));
    cursor.TakeInto(std::span(group.step));
    cursor.TakeInto(std::span(group.classes));
    std::vector<uint16_t> fp16(group.components * size);
    cursor.TakeInto(std::span(fp16));
    if (!cursor.ok) return wrong("cut off");
    for (const float x : group.mean) {
      if (!std::isfinite(x)) return wrong("a mean is not finite");
    }
    for (const float x : group.step) {
      if (!(x > 0) || !std::isfinite(x)) return wrong("invalid step");
    }
    for (const uint8_t c : group.classes) {
      if (c >= kClasses) return wrong("invalid class");
    }
    for (const uint16_t h : fp16) group.rows.push_back(FromHalf(h));
    for (const float x : group.rows) {
      if (!std::isfinite(x)) return wrong("a component is not finite");
    }
  }
  if (!cursor.rest.empty()) return wrong("extra bytes after the last group");
  return basis;
}

}  // namespace longhold
