#include "memory/index/query_expansion.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <string>

#include "attention/kernels.h"
#include "base/status.h"

namespace longhold {
namespace {

constexpr uint32_t kCommonDirections = 4;
constexpr size_t kSampledWords = 1536;
constexpr int kPowerSteps = 8;
constexpr size_t kAskedWordsMax = 32;
constexpr size_t kRowsPerTurn = 256;
// A space and three letters. Shorter tokens are mostly abbreviations and word fragments.
constexpr size_t kPieceBytesMin = 4;

bool IsDigit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

float Dot(const float* a, const float* b, size_t n) {
  float lane[8] = {};
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (size_t j = 0; j < 8; ++j) lane[j] += a[i + j] * b[i + j];
  }
  for (; i < n; ++i) lane[0] += a[i] * b[i];
  float sum = 0;
  for (const float x : lane) sum += x;
  return sum;
}

// Removes from `v` its component along `direction`, a vector of length 1.
void TakeOff(const float* direction, size_t width, float* v) {
  const float along = Dot(v, direction, width);
  for (size_t i = 0; i < width; ++i) v[i] -= along * direction[i];
}

// Makes `rows` vectors of `width` orthonormal (Gram-Schmidt). A dependent vector becomes zeros.
void Orthonormalise(size_t rows, size_t width, float* v) {
  for (size_t r = 0; r < rows; ++r) {
    float* row = v + r * width;
    for (size_t s = 0; s < r; ++s) TakeOff(v + s * width, width, row);
    const float length = std::sqrt(Dot(row, row, width));
    for (size_t i = 0; i < width; ++i) row[i] = length > 1e-12f ? row[i] / length : 0.0f;
  }
}

std::vector<float> Transposed(std::span<const float> in, size_t rows, size_t columns) {
  std::vector<float> out(in.size());
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < columns; ++c) out[c * rows + r] = in[r * columns + c];
  }
  return out;
}

std::vector<float> Product(const std::vector<float>& a, const std::vector<float>& b, size_t rows,
                           size_t depth, size_t columns) {
  std::vector<float> out(rows * columns);
  Kernels().multiply_add({.a = a.data(),
                          .b = b.data(),
                          .out = out.data(),
                          .rows = static_cast<uint32_t>(rows),
                          .depth = static_cast<uint32_t>(depth),
                          .columns = static_cast<uint32_t>(columns)});
  return out;
}

}  // namespace

QueryExpansion::QueryExpansion(const LexicalVocabulary& vocabulary, uint32_t width,
                               EmbedTokens embed)
    : width_(width),
      embed_(std::move(embed)),
      mean_(width),
      common_(size_t{kCommonDirections} * width) {
  LH_CHECK(width > 0);
  const std::span<const std::string> pieces = vocabulary.pieces();
  for (size_t i = 0; i < pieces.size(); ++i) {
    const std::string& piece = pieces[i];
    if (piece.size() < kPieceBytesMin || piece[0] != ' ' || IsDigit(piece[1])) continue;
    const auto token = static_cast<TokenId>(i);
    const std::vector<LexicalWord> words = vocabulary.Words({&token, 1});
    if (words.size() == 1 && !IsFunctionWord(words[0].Stem()))
      known_.push_back({words[0].id, token});
  }
  std::sort(known_.begin(), known_.end(), [](const Known& a, const Known& b) {
    return a.id != b.id ? a.id < b.id : a.token < b.token;
  });
  if (known_.empty()) return;

  // Ids are hashes, so every n-th word is an unbiased sample.
  const size_t sampled = std::min(kSampledWords, known_.size());
  std::vector<TokenId> tokens;
  for (size_t i = 0; i < sampled; ++i) tokens.push_back(known_[i * known_.size() / sampled].token);
  std::vector<float> sample(sampled * width);
  embed_(tokens, sample.data());
  for (size_t r = 0; r < sampled; ++r) {
    for (size_t i = 0; i < width; ++i)
      mean_[i] += sample[r * width + i] / static_cast<float>(sampled);
  }
  for (size_t r = 0; r < sampled; ++r) {
    for (size_t i = 0; i < width; ++i) sample[r * width + i] -= mean_[i];
  }

  // The strongest directions, by power iteration on the whole subspace. An approximation is good
  // enough here.
  const std::vector<float> turned = Transposed(sample, sampled, width);
  std::vector<float> directions(
      sample.begin(), sample.begin() + static_cast<ptrdiff_t>(
                                           std::min<size_t>(sampled, kCommonDirections) * width));
  directions.resize(common_.size());
  for (int step = 0; step < kPowerSteps; ++step) {
    Orthonormalise(kCommonDirections, width, directions.data());
    const std::vector<float> columns = Transposed(directions, kCommonDirections, width);
    const std::vector<float> along = Product(sample, columns, sampled, width, kCommonDirections);
    directions = Transposed(Product(turned, along, width, sampled, kCommonDirections), width,
                            kCommonDirections);
  }
  Orthonormalise(kCommonDirections, width, directions.data());
  common_ = std::move(directions);
}

bool QueryExpansion::Direction(std::span<const TokenId> tokens, float* out) const {
  std::vector<float> rows(tokens.size() * width_);
  embed_(tokens, rows.data());
  std::fill_n(out, width_, 0.0f);
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (size_t i = 0; i < width_; ++i) out[i] += rows[t * width_ + i] - mean_[i];
  }
  for (size_t d = 0; d < kCommonDirections; ++d) TakeOff(common_.data() + d * width_, width_, out);
  const float length = std::sqrt(Dot(out, out, width_));
  if (!(length > 1e-6f)) return false;
  for (size_t i = 0; i < width_; ++i) out[i] /= length;
  return true;
}

QueryExpansion::AskedWords QueryExpansion::Ask(std::span<const LexicalWord> words,
                                               std::span<const TokenId> tokens) const {
  // The known words whose id begins with `value`: a whole id with `shift` 0, a stem with `shift` 6.
  const auto tokens_of = [&](uint32_t value, uint32_t shift) {
    std::vector<TokenId> found;
    auto k = std::lower_bound(known_.begin(), known_.end(), value << shift,
                              [](const Known& known, uint32_t id) { return known.id < id; });
    for (; k != known_.end() && k->id >> shift == value; ++k) found.push_back(k->token);
    return found;
  };
  AskedWords out;
  for (const LexicalWord& word : words) {
    const uint32_t stem = word.Stem();
    if (std::find(out.own.begin(), out.own.end(), stem) != out.own.end()) continue;
    out.own.push_back(stem);
    if (IsFunctionWord(stem) || out.stems.size() == kAskedWordsMax) continue;
    // In order of preference: the same form, if the vocabulary has it (with or without capitals);
    // any inflection; the question's own tokens.
    std::vector<TokenId> of = tokens_of(word.id, 0);
    if (of.empty()) of = tokens_of(stem, 6);
    if (of.empty()) {
      const std::span<const TokenId> parts = tokens.subspan(word.begin, word.end - word.begin);
      if (parts.size() < 2) continue;  // a letter, a number, a symbol
      of.assign(parts.begin(), parts.end());
    }
    out.directions.resize((out.stems.size() + 1) * width_);
    if (Direction(of, out.directions.data() + out.stems.size() * width_)) out.stems.push_back(stem);
  }
  out.directions.resize(out.stems.size() * width_);
  return out;
}

std::vector<float> QueryExpansion::Similarities(const AskedWords& words,
                                                const std::vector<Known>& held,
                                                const ParallelFor& parallel) const {
  // The common directions are additional columns of the product. Their components are subtracted
  // from each word's length.
  const size_t asked = words.stems.size(), columns = asked + kCommonDirections;
  std::vector<float> directions = words.directions;
  directions.insert(directions.end(), common_.begin(), common_.end());
  const std::vector<float> turned = Transposed(directions, columns, width_);
  std::vector<float> similarity(held.size() * asked);
  parallel((held.size() + kRowsPerTurn - 1) / kRowsPerTurn, [&](size_t turn) {
    const size_t first = turn * kRowsPerTurn, rows = std::min(kRowsPerTurn, held.size() - first);
    std::vector<TokenId> ids(rows);
    for (size_t r = 0; r < rows; ++r) ids[r] = held[first + r].token;
    std::vector<float> x(rows * width_);
    embed_(ids, x.data());
    for (size_t r = 0; r < rows; ++r) {
      for (size_t i = 0; i < width_; ++i) x[r * width_ + i] -= mean_[i];
    }
    const std::vector<float> along = Product(x, turned, rows, width_, columns);
    for (size_t r = 0; r < rows; ++r) {
      float square = Dot(x.data() + r * width_, x.data() + r * width_, width_);
      for (size_t c = asked; c < columns; ++c)
        square -= along[r * columns + c] * along[r * columns + c];
      const float length = std::sqrt(std::max(square, 0.0f));
      for (size_t c = 0; c < asked; ++c)
        similarity[(first + r) * asked + c] =
            length > 1e-6f ? along[r * columns + c] / length : 0.0f;
    }
  });
  return similarity;
}

std::vector<ExpansionWord> QueryExpansion::Nearest(const std::vector<uint32_t>& asked,
                                                   const std::vector<Known>& held,
                                                   const std::vector<float>& similarity) {
  // For each stem, its nearest form and the question word that it is nearest to.
  struct Near {
    float similarity = 0;
    size_t column = 0, row = 0;
  };
  std::vector<std::vector<Near>> near(asked.size());
  for (size_t r = 0; r < held.size();) {
    Near best;
    const uint32_t stem = held[r].id >> 6;
    for (; r < held.size() && held[r].id >> 6 == stem; ++r) {
      for (size_t c = 0; c < asked.size(); ++c) {
        const float s = similarity[r * asked.size() + c];
        if (s > best.similarity) best = {s, c, r};
      }
    }
    if (best.similarity >= kExpansionSimilarityMin) near[best.column].push_back(best);
  }
  std::vector<ExpansionWord> found;
  for (size_t c = 0; c < asked.size(); ++c) {
    std::stable_sort(near[c].begin(), near[c].end(),
                     [](const Near& a, const Near& b) { return a.similarity > b.similarity; });
    if (near[c].size() > kExpansionWordsMax) near[c].resize(kExpansionWordsMax);
    for (const Near& n : near[c]) {
      const double weight =
          0.5 + 0.5 * (n.similarity - kExpansionSimilarityMin) / (1 - kExpansionSimilarityMin);
      found.push_back({.stem = held[n.row].id >> 6,
                       .of = asked[c],
                       .token = held[n.row].token,
                       .weight = std::min(weight, 1.0)});
    }
  }
  return found;
}

std::vector<ExpansionWord> QueryExpansion::Find(std::span<const LexicalWord> words,
                                                std::span<const TokenId> tokens,
                                                const LexicalIndex& index,
                                                const ParallelFor& parallel) const {
  const AskedWords asked = Ask(words, tokens);
  if (asked.stems.empty()) return {};
  std::vector<Known> held;
  for (const Known& known : known_) {
    const uint32_t stem = known.id >> 6;
    if (index.MayHold(stem) &&
        std::find(asked.own.begin(), asked.own.end(), stem) == asked.own.end())
      held.push_back(known);
  }
  return Nearest(asked.stems, held, Similarities(asked, held, parallel));
}

}  // namespace longhold
