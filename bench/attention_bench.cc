// Compares approximations for the blocks that sparse attention does not read: their error in the
// output of attention, and in the next-token loss. Keys are real.
//
//   attention_bench output GGUF TEXT TOKENS [LAYER_STEP]
//       the error of the output, for the queries of every 512th token in every LAYER_STEP-th layer
//   attention_bench loss GGUF TEXT TOKENS EVERY MODE...
//       the next-token loss on every EVERY-th piece of 64 tokens
//
// `output` reads TEXT as an ingest does. It compares each approximation with exact attention over
// the stored keys at their true positions. Sinks and the last 256 tokens are attended to exactly.
// All other blocks are ranked by their estimated attention mass. A share of them, the budget, is
// attended to exactly, and the rest is approximated:
//   dropped      not at all
//   centroid     by one key and one value, their means; log mass = log n + q.mean
//   variance     as centroid, plus half the variance of q.k, computed from the diagonal covariance
//                of the keys in the block's own positions
//   capped       as variance, but at most the largest log mass that n normal samples of variance
//                sigma^2 reach: above sigma^2 = 2 ln n it is q.mean + sigma sqrt(2 ln n) (the
//                frozen phase of the random energy model, B. Derrida, Phys. Rev. B 24, 2613)
//   true mass    by the exact mass of the block (a perfect estimate) and its mean value
//
// `loss` runs the model with one of these attention modes:
//   full         every key
//   window       sinks and the last 256 tokens
//   pick:B:C     window, and a share B of the blocks. Each KV head picks them for every 16 tokens,
//                by summaries of C means per block.
//   stand:B:C    as pick, and the means of all other blocks; stand:B:C:v with their variance
//   ask:B:C      as `longhold ask --attend faithful`: the text is read with sinks and window. Then
//                each KV head picks blocks once, by the queries of the piece's first tokens.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "attention/kernels.h"
#include "attention/rope.h"
#include "memory/attend/attend_tiles.h"
#include "memory/attend/hot_window.h"
#include "memory/index/summaries.h"
#include "model/llama_host.h"

using namespace longhold;

namespace {

constexpr uint32_t kSinks = 64, kWindow = 256, kPass = 512;

int Fail(const Status& status) {
  std::fprintf(stderr, "attention_bench: %s\n", status.message().c_str());
  return 1;
}

// Dot product with four partial sums, which the compiler keeps in one register. Must hold: n is a
// multiple of 4.
float Dot(const float* a, const float* b, uint32_t n) {
  float sum[4] = {};
  for (uint32_t c = 0; c < n; c += 4) {
    for (uint32_t i = 0; i < 4; ++i) sum[i] += a[c + i] * b[c + i];
  }
  return sum[0] + sum[1] + (sum[2] + sum[3]);
}

// The indices of both elements of a rotated pair.
std::pair<uint32_t, uint32_t> PairOf(const RopeSpec& spec, uint32_t i) {
  return spec.neox ? std::pair(i, i + spec.rotary_dims / 2) : std::pair(2 * i, 2 * i + 1);
}

// ------------------------------------------------------------------------------------------------
// output

// The attention of an ingest. It also records all keys and values, and the queries of every
// `query_every`-th token.
class Tape final : public LayerAttention {
 public:
  Tape(const KvGeometry& geometry, size_t tokens, uint32_t query_every)
      : geometry_(geometry),
        window_(geometry, {kSinks, kWindow, kPass}),
        query_every_(query_every) {
    keys.assign(geometry.layers.size(), std::vector<float>(tokens * geometry.kv_width()));
    values = keys;
    queries.resize(geometry.layers.size());
  }
  Status Read(LanguageModel& model, std::span<const TokenId> text) {
    for (begin_ = 0; begin_ + kPass <= text.size(); begin_ += kPass) {
      window_.BeginPass(kPass);
      LH_RETURN_IF_ERROR(model.Forward(text.subspan(begin_, kPass), begin_, this, false));
      window_.EndPass();
    }
    return OkStatus();
  }
  void StoreKeys(uint32_t slot, LayerRows rows, uint32_t tokens, uint32_t worker,
                 uint32_t workers) override {
    Keep(keys[slot], rows, tokens, worker, workers);
    window_.StoreKeys(slot, rows, tokens, worker, workers);
  }
  void StoreValues(uint32_t slot, LayerRows rows, uint32_t tokens, uint32_t worker,
                   uint32_t workers) override {
    Keep(values[slot], rows, tokens, worker, workers);
    window_.StoreValues(slot, rows, tokens, worker, workers);
  }
  void Attend(uint32_t slot, LayerRows rows, uint32_t tokens, float* out, uint32_t worker,
              uint32_t workers) override {
    for (uint32_t t = 0; worker == 0 && t < tokens; ++t) {
      if ((begin_ + t) % query_every_ != query_every_ - 1) continue;
      const float* row = rows.data + t * rows.token_stride;
      queries[slot].insert(queries[slot].end(), row,
                           row + size_t{geometry_.q_heads} * geometry_.head_dim);
      if (slot == 0) positions.push_back(begin_ + t);
    }
    window_.Attend(slot, rows, tokens, out, worker, workers);
  }

  std::vector<std::vector<float>> keys, values;  // [slots] of [tokens, kv_width], un-rotated
  std::vector<std::vector<float>> queries;       // [slots] of [positions, q_heads, head_dim]
  std::vector<uint32_t> positions;

 private:
  void Keep(std::vector<float>& to, LayerRows rows, uint32_t tokens, uint32_t worker,
            uint32_t workers) const {
    const size_t width = geometry_.kv_width();
    for (uint32_t t = worker; t < tokens; t += workers)
      std::copy_n(rows.data + t * rows.token_stride, width, to.data() + (begin_ + t) * width);
  }
  KvGeometry geometry_;
  HotWindow window_;
  uint32_t query_every_, begin_ = 0;
};

enum Way { kDropped, kCentroid, kVariance, kCapped, kTrueMass, kWays };
constexpr const char* kWayNames[kWays] = {"dropped", "centroid", "variance", "capped", "true mass"};
constexpr double kBudgets[] = {0, 0.01, 0.03, 0.1};
constexpr size_t kBudgetCount = std::size(kBudgets);

// Unnormalised attention: the sum of the weights exp(logit - origin) and of weight * value.
struct Sum {
  double mass = 0;
  std::vector<double> out;
  void Add(double weight, const float* value) {
    mass += weight;
    for (size_t c = 0; c < out.size(); ++c) out[c] += weight * value[c];
  }
};

int Output(LanguageModel& model, std::span<const TokenId> text, uint32_t layer_step) {
  const KvGeometry& g = model.info().geometry;
  const uint32_t d = g.head_dim, n = static_cast<uint32_t>(text.size());
  Tape tape(g, n, 512);
  if (const Status s = tape.Read(model, text); !s.ok()) return Fail(s);
  const RopeTables ropes(g, n);
  double error[kBudgetCount][kWays] = {}, mass_error[kBudgetCount][kWays] = {},
         rest[kBudgetCount] = {};
  uint64_t rows = 0;
  const uint32_t blocks = n / kBlockTokens;
  const double log_n = std::log(double{kBlockTokens});
  for (uint32_t slot = 0; slot < g.layers.size(); slot += layer_step) {
    const RopeTable& rope = ropes.Of(slot);
    for (uint32_t h = 0; h < g.kv_heads; ++h) {
      const auto row_of = [&](const std::vector<float>& x, uint32_t t) {
        return x.data() + size_t{t} * g.kv_width() + h * d;
      };
      std::vector<float> keys(size_t{n} * d), mean_value(size_t{blocks} * d, 0.0f),
          variance(size_t{blocks} * d, 0.0f);
      for (uint32_t t = 0; t < n; ++t)
        rope.Rotate(row_of(tape.keys[slot], t), keys.data() + size_t{t} * d, d, t);
      for (uint32_t b = 0; b < blocks; ++b) {
        std::vector<double> sum(d, 0), squares(d, 0);
        std::vector<float> local(d);
        for (uint32_t j = 0; j < kBlockTokens; ++j) {
          const uint32_t t = b * kBlockTokens + j;
          rope.Rotate(row_of(tape.keys[slot], t), local.data(), d, j);
          for (uint32_t c = 0; c < d; ++c) {
            sum[c] += local[c];
            squares[c] += double{local[c]} * local[c];
            mean_value[size_t{b} * d + c] += row_of(tape.values[slot], t)[c] / kBlockTokens;
          }
        }
        for (uint32_t c = 0; c < d; ++c) {
          variance[size_t{b} * d + c] = static_cast<float>(
              squares[c] / kBlockTokens - sum[c] / kBlockTokens * (sum[c] / kBlockTokens));
        }
      }
      for (uint32_t q_head = h * g.group(); q_head < (h + 1) * g.group(); ++q_head) {
        for (size_t i = 0; i < tape.positions.size(); ++i) {
          const uint32_t p = tape.positions[i], first = kSinks / kBlockTokens;
          // Blocks [first, last) are ranked.
          const uint32_t last = p + 1 > kSinks + kWindow ? (p + 1 - kWindow) / kBlockTokens : 0;
          if (last < first + 3) continue;
          const float* query = tape.queries[slot].data() + (i * g.q_heads + q_head) * d;
          std::vector<float> q(d), local(d);
          rope.Rotate(query, q.data(), d, p);
          std::vector<double> logits(p + 1);
          for (uint32_t t = 0; t <= p; ++t)
            logits[t] = double{g.scale} * Dot(q.data(), keys.data() + size_t{t} * d, d);
          const double origin = *std::max_element(logits.begin(), logits.end());
          Sum fixed{0, std::vector<double>(d, 0)}, exact = fixed;
          for (uint32_t t = 0; t <= p; ++t) {
            const double weight = std::exp(logits[t] - origin);
            exact.Add(weight, row_of(tape.values[slot], t));
            if (t < first * kBlockTokens || t >= last * kBlockTokens)
              fixed.Add(weight, row_of(tape.values[slot], t));
          }
          // [approximations] of [blocks] estimated log mass
          std::vector<std::vector<double>> mass(kWays, std::vector<double>(last, -1e30));
          std::vector<uint32_t> order;
          for (uint32_t b = first; b < last; ++b) {
            order.push_back(b);
            double mean = 0, sum = 0, spread = 0;
            for (uint32_t t = b * kBlockTokens; t < (b + 1) * kBlockTokens; ++t) {
              mean += logits[t] / kBlockTokens;
              sum += std::exp(logits[t] - origin);
            }
            rope.Rotate(query, local.data(), d, p - b * kBlockTokens);
            for (uint32_t c = 0; c < d; ++c)
              spread += double{local[c]} * local[c] * variance[size_t{b} * d + c];
            spread *= double{g.scale} * g.scale;
            mass[kCentroid][b] = log_n + mean;
            mass[kVariance][b] = log_n + mean + spread / 2;
            mass[kCapped][b] = spread <= 2 * log_n ? log_n + mean + spread / 2
                                                   : mean + std::sqrt(2 * log_n * spread);
            mass[kTrueMass][b] = origin + std::log(sum);
          }
          std::sort(order.begin(), order.end(),
                    [&](uint32_t a, uint32_t b) { return mass[kCapped][a] > mass[kCapped][b]; });
          double norm = 0;
          for (double& x : exact.out) norm += x / exact.mass * (x / exact.mass);
          for (size_t budget = 0; budget < kBudgetCount; ++budget) {
            const size_t taken = static_cast<size_t>(
                std::ceil(kBudgets[budget] * static_cast<double>(order.size())));
            Sum base = fixed;
            for (size_t k = 0; k < taken; ++k) {
              for (uint32_t t = order[k] * kBlockTokens; t < (order[k] + 1) * kBlockTokens; ++t) {
                base.Add(std::exp(logits[t] - origin), row_of(tape.values[slot], t));
              }
            }
            rest[budget] += 1 - base.mass / exact.mass;
            for (int way = 0; way < kWays; ++way) {
              Sum sum = base;
              for (size_t k = taken; way != kDropped && k < order.size(); ++k) {
                sum.Add(std::exp(std::min(40.0, mass[static_cast<size_t>(way)][order[k]] - origin)),
                        mean_value.data() + size_t{order[k]} * d);
              }
              double off = 0;
              for (uint32_t c = 0; c < d; ++c) {
                const double x = sum.out[c] / sum.mass - exact.out[c] / exact.mass;
                off += x * x;
              }
              error[budget][way] += std::sqrt(off / norm);
              mass_error[budget][way] += std::abs(sum.mass - exact.mass) / exact.mass;
            }
          }
          ++rows;
        }
      }
    }
  }
  const auto mean = [&](double x) { return x / static_cast<double>(rows); };
  std::printf(
      "%s, %u tokens, %llu query rows; relative error of the output (of the softmax sum)\n\n| "
      "budget |",
      model.info().name.c_str(), n, static_cast<unsigned long long>(rows));
  for (const char* name : kWayNames) std::printf(" %s |", name);
  std::printf(" mass of other blocks |\n|---|---|---|---|---|---|---|\n");
  for (size_t b = 0; b < kBudgetCount; ++b) {
    std::printf("| %.0f %% |", 100 * kBudgets[b]);
    for (int way = 0; way < kWays; ++way)
      std::printf(" %.3f (%.3f) |", mean(error[b][way]), mean(mass_error[b][way]));
    std::printf(" %.3f |\n", mean(rest[b]));
  }
  return 0;
}

// ------------------------------------------------------------------------------------------------
// loss

struct Mode {
  std::string name;
  bool full = false;
  bool ask = false;
  bool stand = false, variance = false;
  double budget = 0;
  int means = 0;  // means per block; 0: no summaries
};

Result<Mode> ParseMode(const std::string& text) {
  Mode m;
  m.name = text;
  char v = 0;
  m.full = text == "full";
  if (m.full || text == "window") return m;
  m.ask = std::sscanf(text.c_str(), "ask:%lf:%d", &m.budget, &m.means) == 2;
  if (!m.ask && std::sscanf(text.c_str(), "pick:%lf:%d", &m.budget, &m.means) != 2) {
    if (std::sscanf(text.c_str(), "stand:%lf:%d:%c", &m.budget, &m.means, &v) < 2)
      return InvalidArgument(text + ": is not a mode");
    m.stand = true;
    m.variance = v == 'v';
  }
  if (m.budget < 0 || m.budget > 1 || m.means < 1 || m.means > 64)
    return InvalidArgument(text + ": the budget must be 0 to 1 and the number of means 1 to 64");
  return m;
}

// Keeps all keys and values of a text at their true positions and attends to them by a mode. Begin
// sets the position of the first token of the next pass.
class Chosen final : public LayerAttention {
 public:
  Chosen(const KvGeometry& geometry, uint32_t tokens, const Mode& mode)
      : g_(geometry),
        d_(geometry.head_dim),
        mode_(mode),
        ropes_(geometry, tokens),
        panels_(geometry.layers.size() * geometry.kv_heads),
        summaries_(panels_.size()) {
    const uint32_t blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
    for (auto& panels : panels_) {
      for (uint32_t b = 0; b < blocks; ++b) {
        panels.push_back(std::make_unique<AlignedFloats>());
        std::fill_n(panels.back()->Ensure(PanelFloats()), PanelFloats(), 0.0f);
      }
    }
    for (auto& summaries : summaries_) summaries.resize(blocks);
    for (uint32_t w = 0; w < kWorkersMax; ++w)
      scratch_.push_back(std::make_unique<AlignedFloats>());
  }
  void Begin(uint32_t begin) { begin_ = begin; }
  // Used with Mode::ask. Listen starts to record the blocks' shares for the queries. Pick selects
  // the best blocks. They are attended to until Unpick.
  void Listen() { asked_.assign(kWorkersMax, std::vector<std::vector<double>>(panels_.size())); }
  void Pick() {
    picked_.assign(panels_.size(), {});
    for (size_t i = 0; i < panels_.size(); ++i) {
      std::vector<double> share;
      for (const auto& worker : asked_) {
        share.resize(std::max(share.size(), worker[i].size()), 0);
        for (size_t b = 0; b < worker[i].size(); ++b) share[b] += worker[i][b];
      }
      picked_[i] = Best(share);
    }
    asked_.clear();
  }
  void Unpick() { picked_.clear(); }
  // Summarises block `b`. Must hold: the block is complete.
  void Seal(uint32_t b) {
    if (mode_.means == 0) return;
    for (uint32_t slot = 0; slot < g_.layers.size(); ++slot) {
      for (uint32_t h = 0; h < g_.kv_heads; ++h) Summarise(slot, h, b);
    }
  }

  void StoreKeys(uint32_t slot, LayerRows rows, uint32_t tokens, uint32_t worker,
                 uint32_t workers) override {
    float rotated[kMaxHeadDim];
    for (uint32_t t = worker; t < tokens; t += workers) {
      for (uint32_t h = 0; h < g_.kv_heads; ++h) {
        ropes_.Of(slot).Rotate(rows.data + t * rows.token_stride + h * d_, rotated, d_, begin_ + t);
        float* column = Keys(slot, h, (begin_ + t) / kBlockTokens) + (begin_ + t) % kBlockTokens;
        for (uint32_t c = 0; c < d_; ++c) column[size_t{c} * kBlockTokens] = rotated[c];
      }
    }
  }
  void StoreValues(uint32_t slot, LayerRows rows, uint32_t tokens, uint32_t worker,
                   uint32_t workers) override {
    for (uint32_t t = worker; t < tokens; t += workers) {
      for (uint32_t h = 0; h < g_.kv_heads; ++h) {
        std::copy_n(rows.data + t * rows.token_stride + h * d_, d_,
                    Values(slot, h, (begin_ + t) / kBlockTokens) +
                        size_t{(begin_ + t) % kBlockTokens} * d_);
      }
    }
  }
  void Attend(uint32_t slot, LayerRows queries, uint32_t tokens, float* out, uint32_t worker,
              uint32_t workers) override {
    const uint32_t per_tile = std::min(16u, kAttendRowsMax / g_.group()),
                   tiles = (tokens + per_tile - 1) / per_tile;
    for (uint32_t tile = worker; tile < tiles * g_.kv_heads; tile += workers) {
      const uint32_t first = tile / g_.kv_heads * per_tile;
      AttendTile(slot, tile % g_.kv_heads, queries, first, std::min(per_tile, tokens - first), out,
                 worker);
    }
  }

 private:
  struct Summary {
    float n = 0;
    // `variance` is equal for both elements of a rotated pair, so it does not depend on positions.
    std::vector<float> key, value, variance;
  };

  size_t PanelFloats() const { return size_t{2} * kBlockTokens * d_; }
  float* Keys(uint32_t slot, uint32_t h, uint32_t b) {
    return panels_[slot * g_.kv_heads + h][b]->Ensure(0);
  }
  float* Values(uint32_t slot, uint32_t h, uint32_t b) {
    return Keys(slot, h, b) + size_t{kBlockTokens} * d_;
  }

  // k-means of the block's keys. The initial centres are the first key, then repeatedly the key
  // that is farthest from all chosen ones.
  void Summarise(uint32_t slot, uint32_t h, uint32_t b) {
    const float* panel = Keys(slot, h, b);
    const float* values = Values(slot, h, b);
    std::vector<float> keys(PanelFloats() / 2);
    for (uint32_t j = 0; j < kBlockTokens; ++j) {
      for (uint32_t c = 0; c < d_; ++c) keys[j * d_ + c] = panel[c * kBlockTokens + j];
    }
    const auto distance = [&](const float* a, const float* x) {
      float sum = 0;
      for (uint32_t c = 0; c < d_; ++c) sum += (a[c] - x[c]) * (a[c] - x[c]);
      return sum;
    };
    const auto k = static_cast<size_t>(mode_.means);
    std::vector<float> centre(keys.begin(), keys.begin() + d_);
    std::vector<float> nearest(kBlockTokens, 1e30f);
    while (centre.size() < k * d_) {
      for (uint32_t j = 0; j < kBlockTokens; ++j)
        nearest[j] =
            std::min(nearest[j], distance(&keys[j * d_], centre.data() + centre.size() - d_));
      const auto far =
          static_cast<size_t>(std::max_element(nearest.begin(), nearest.end()) - nearest.begin());
      for (uint32_t c = 0; c < d_; ++c) centre.push_back(keys[far * d_ + c]);
    }
    std::vector<size_t> of(kBlockTokens, 0);
    std::vector<float> count(k);
    for (int turn = 0; turn < 6; ++turn) {
      for (uint32_t j = 0; j < kBlockTokens; ++j) {
        for (size_t i = 0; i < k; ++i) {
          if (distance(&keys[j * d_], &centre[i * d_]) <
              distance(&keys[j * d_], &centre[of[j] * d_]))
            of[j] = i;
        }
      }
      std::fill(count.begin(), count.end(), 0.0f);
      std::fill(centre.begin(), centre.end(), 0.0f);
      for (uint32_t j = 0; j < kBlockTokens; ++j) {
        ++count[of[j]];
        for (uint32_t c = 0; c < d_; ++c) centre[of[j] * d_ + c] += keys[j * d_ + c];
      }
      for (size_t i = 0; i < k * d_; ++i) centre[i] /= std::max(1.0f, count[i / d_]);
    }
    auto& out = summaries_[slot * g_.kv_heads + h][b];
    out.clear();
    for (size_t i = 0; i < k; ++i) {
      if (count[i] == 0) continue;
      if (mode_.ask) RoundAsStored(&centre[i * d_]);
      Summary s{count[i], std::vector<float>(&centre[i * d_], &centre[i * d_] + d_),
                std::vector<float>(d_, 0.0f), std::vector<float>(d_, 0.0f)};
      for (uint32_t j = 0; j < kBlockTokens; ++j) {
        for (uint32_t c = 0; of[j] == i && c < d_; ++c) {
          s.value[c] += values[size_t{j} * d_ + c] / count[i];
          s.variance[c] += (keys[j * d_ + c] - s.key[c]) * (keys[j * d_ + c] - s.key[c]) / count[i];
        }
      }
      const RopeSpec& spec = ropes_.Of(slot).spec();
      for (uint32_t p = 0; p < spec.rotary_dims / 2; ++p) {
        const auto [x, y] = PairOf(spec, p);
        s.variance[x] = s.variance[y] = (s.variance[x] + s.variance[y]) / 2;
      }
      out.push_back(std::move(s));
    }
  }

  // Rounds a mean as SummarySegment does, without the rounding of its scales.
  void RoundAsStored(float* mean) const {
    for (uint32_t first = 0; first < d_; first += kSummaryGroup) {
      const uint32_t end = std::min(first + kSummaryGroup, d_);
      float largest = 0;
      for (uint32_t c = first; c < end; ++c) largest = std::max(largest, std::abs(mean[c]));
      for (uint32_t c = first; largest > 0 && c < end; ++c)
        mean[c] = std::round(mean[c] / largest * 7) * largest / 7;
    }
  }

  double LogMass(const Summary& s, const float* q) const {
    double logit = double{g_.scale} * Dot(q, s.key.data(), d_) + std::log(s.n);
    if (mode_.variance) {
      float spread = 0;
      for (uint32_t c = 0; c < d_; ++c) spread += q[c] * q[c] * s.variance[c];
      logit += double{g_.scale} * g_.scale * spread / 2;
    }
    return logit;
  }

  // [window] the share of attention mass that the summaries estimate for each block, summed over
  // the rows.
  std::vector<double> Shares(const std::vector<std::vector<Summary>>& summaries,
                             const std::vector<float>& q, uint32_t rows, uint32_t window) const {
    std::vector<double> share(window, 0);
    for (uint32_t r = 0; r < rows; ++r) {
      std::vector<double> mass(window, -1e30);
      for (uint32_t b = 1; b < window; ++b) {
        for (const Summary& s : summaries[b]) {
          const double m = LogMass(s, &q[size_t{r} * d_]), top = std::max(m, mass[b]);
          mass[b] = top + std::log(std::exp(m - top) + std::exp(mass[b] - top));
        }
      }
      const double top = *std::max_element(mass.begin(), mass.end());
      double sum = 0;
      for (double& m : mass) sum += m = std::exp(m - top);
      for (uint32_t b = 1; b < window; ++b) share[b] += mass[b] / sum;
    }
    return share;
  }
  // The blocks with the largest shares, as many as the budget allows; never block 0.
  std::vector<uint32_t> Best(const std::vector<double>& share) const {
    std::vector<uint32_t> order;
    for (uint32_t b = 1; b < share.size(); ++b) order.push_back(b);
    std::stable_sort(order.begin(), order.end(),
                     [&](uint32_t a, uint32_t b) { return share[a] > share[b]; });
    order.resize(static_cast<size_t>(std::ceil(mode_.budget * static_cast<double>(order.size()))));
    return order;
  }

  void AttendTile(uint32_t slot, uint32_t h, LayerRows queries, uint32_t first, uint32_t count,
                  float* out, uint32_t worker) {
    const uint32_t rows = count * g_.group(), position = begin_ + first;
    std::vector<float> q(size_t{rows} * d_);
    for (uint32_t r = 0; r < rows; ++r) {
      const uint32_t t = r / g_.group(), head = h * g_.group() + r % g_.group();
      ropes_.Of(slot).Rotate(queries.data + (first + t) * queries.token_stride + head * d_,
                             &q[size_t{r} * d_], d_, position + t);
    }
    // Blocks [1, window) are neither sinks nor recent.
    const uint32_t window =
        position >= kSinks + kWindow ? (position - kWindow + 1) / kBlockTokens : 1;
    const auto& summaries = summaries_[slot * g_.kv_heads + h];
    std::vector<bool> read(window, mode_.full);
    const size_t panel = slot * g_.kv_heads + h;
    if (mode_.ask) {
      if (!asked_.empty() && window > 1) {
        const std::vector<double> share = Shares(summaries, q, rows, window);
        std::vector<double>& asked = asked_[worker][panel];
        asked.resize(std::max<size_t>(asked.size(), window), 0);
        for (uint32_t b = 1; b < window; ++b) asked[b] += share[b];
      }
      for (size_t i = 0; !picked_.empty() && i < picked_[panel].size(); ++i) {
        if (picked_[panel][i] < window) read[picked_[panel][i]] = true;
      }
    } else if (mode_.means > 0 && window > 1) {
      for (const uint32_t b : Best(Shares(summaries, q, rows, window))) read[b] = true;
    }
    std::vector<KeyBlockView> blocks;
    const auto add = [&](uint32_t b) {
      blocks.push_back({Keys(slot, h, b), Values(slot, h, b), nullptr});
    };
    add(0);
    for (uint32_t b = 1; b < window; ++b) {
      if (read[b]) add(b);
    }
    const auto shared = static_cast<uint32_t>(blocks.size() * kBlockTokens),
               base = window * kBlockTokens;
    for (uint32_t b = window; b * kBlockTokens < position + count; ++b) add(b);
    std::vector<VisibleKeys> visible(count);
    for (uint32_t t = 0; t < count; ++t) {
      const uint32_t p = position + t;
      visible[t] =
          p < kSinks
              ? VisibleKeys{0, p + 1}
              : VisibleKeys{
                    shared + (p + 1 > base + kWindow && !mode_.full ? p + 1 - kWindow - base : 0),
                    shared + p + 1 - base};
    }
    std::vector<float> result(size_t{rows} * d_), lse(rows);
    AttendCall call;
    call.q = q.data();
    call.rows = rows;
    call.group = g_.group();
    call.head_dim = d_;
    call.blocks = blocks;
    call.shared = position < kSinks ? 0 : shared;
    call.visible = visible.data();
    call.scale = g_.scale;
    call.softcap = g_.softcap;
    call.out = result.data();
    call.lse = lse.data();
    call.scratch = scratch_[worker]->Ensure(AttendScratchFloats(rows, d_));
    Kernels().attend(call);
    for (uint32_t r = 0; mode_.stand && r < rows; ++r) {
      float* row = &result[size_t{r} * d_];
      double mass = 1;
      for (uint32_t b = 1; b < window; ++b) {
        for (const Summary& s : summaries[b]) {
          if (read[b]) break;
          const double weight = std::exp(std::min(30.0, LogMass(s, &q[size_t{r} * d_]) - lse[r]));
          mass += weight;
          for (uint32_t c = 0; c < d_; ++c) row[c] += static_cast<float>(weight) * s.value[c];
        }
      }
      for (uint32_t c = 0; c < d_; ++c) row[c] /= static_cast<float>(mass);
    }
    for (uint32_t t = 0; t < count; ++t) {
      std::memcpy(out + (size_t{first + t} * g_.q_heads + h * g_.group()) * d_,
                  &result[size_t{t} * g_.group() * d_], size_t{g_.group()} * d_ * sizeof(float));
    }
  }

  KvGeometry g_;
  uint32_t d_, begin_ = 0;
  Mode mode_;
  RopeTables ropes_;
  // [slots * kv_heads] of [blocks]
  std::vector<std::vector<std::unique_ptr<AlignedFloats>>> panels_;
  // [slots * kv_heads] of [blocks]
  std::vector<std::vector<std::vector<Summary>>> summaries_;
  std::vector<std::unique_ptr<AlignedFloats>> scratch_;  // [workers]
  // [workers] of [slots * kv_heads] of [blocks]; empty: shares are not recorded
  std::vector<std::vector<std::vector<double>>> asked_;
  std::vector<std::vector<uint32_t>> picked_;  // [slots * kv_heads]
};

int Loss(LanguageModel& model, std::span<const TokenId> text, uint32_t every,
         const std::vector<Mode>& modes) {
  const size_t judged =
      kBlockTokens - std::min<size_t>(kBlockTokens - 1, model.scored_tokens_max());
  std::printf(
      "%s, %zu tokens, the last %zu tokens of every %u pieces of 64\n\n| mode | loss, nats per "
      "token | in the second half |\n|---|---|---|\n",
      model.info().name.c_str(), text.size(), kBlockTokens - judged, every);
  for (const Mode& mode : modes) {
    Chosen attention(model.info().geometry, static_cast<uint32_t>(text.size()), mode);
    model.NativeForget(0, UINT32_MAX);
    std::vector<double> loss;
    for (uint32_t b = 0; (b + 1) * kBlockTokens <= text.size(); ++b) {
      const uint32_t begin = b * kBlockTokens;
      const Branch piece{text.subspan(begin, kBlockTokens), judged};
      attention.Begin(begin);
      if (b % every == every - 1) {
        if (mode.ask) {
          attention.Listen();
          if (const Status s = model.Forward(piece.tokens.first(judged), begin, &attention, false);
              !s.ok())
            return Fail(s);
          model.NativeForget(begin, UINT32_MAX);
          attention.Pick();
        }
        const auto logs = model.Score(std::span(&piece, 1), begin, &attention);
        if (!logs.ok()) return Fail(logs.status());
        double sum = 0;
        for (const float l : (*logs)[0]) sum -= l;
        loss.push_back(sum / static_cast<double>((*logs)[0].size()));
        attention.Unpick();
      }
      if (const Status s = model.Forward(piece.tokens, begin, &attention, false); !s.ok())
        return Fail(s);
      attention.Seal(b);
    }
    const auto mean = [&](size_t from) {
      double sum = 0;
      for (size_t i = from; i < loss.size(); ++i) sum += loss[i];
      return sum / static_cast<double>(loss.size() - from);
    };
    std::printf("| %s | %.4f | %.4f |\n", mode.name.c_str(), mean(0), mean(loss.size() / 2));
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  if ((command != "output" || argc < 5 || argc > 6) && (command != "loss" || argc < 7)) {
    std::fprintf(stderr,
                 "usage: attention_bench output GGUF TEXT TOKENS [LAYER_STEP] | loss GGUF TEXT "
                 "TOKENS EVERY MODE...\n");
    return 2;
  }
  LlamaOptions llama;
  llama.path = argv[2];
  const auto model = LoadLlama(llama);
  if (!model.ok()) return Fail(model.status());
  std::ifstream file(argv[3], std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  Result<std::vector<TokenId>> tokens = (*model)->Tokenize(text.str(), false);
  if (!tokens.ok()) return Fail(tokens.status());
  if ((*model)->Bos() >= 0) tokens->insert(tokens->begin(), (*model)->Bos());
  const size_t count = std::strtoul(argv[4], nullptr, 10) / kPass * kPass;
  if (count < 2 * kPass || tokens->size() < count) {
    return Fail(InvalidArgument("the text has " + std::to_string(tokens->size()) +
                                " tokens; give a number from 1024 to that"));
  }
  const auto number = [&](int i) {
    return static_cast<uint32_t>(argc > i ? std::max(1l, std::strtol(argv[i], nullptr, 10)) : 1);
  };
  if (command == "output") return Output(**model, std::span(*tokens).first(count), number(5));
  std::vector<Mode> modes;
  for (int i = 6; i < argc; ++i) {
    Result<Mode> mode = ParseMode(argv[i]);
    if (!mode.ok()) return Fail(mode.status());
    modes.push_back(std::move(*mode));
  }
  return Loss(**model, std::span(*tokens).first(count), number(5), modes);
}
