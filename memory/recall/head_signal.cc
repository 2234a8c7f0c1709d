#include "memory/recall/head_signal.h"

#include <chrono>
#include <map>
#include <utility>

#include "memory/core/memory.h"
#include "memory/model/recall_profile.h"
#include "memory/recall/question.h"

namespace longhold {
namespace {

double WeightOf(const RecallHead& head, const RecallProfile& profile) {
  for (const RecallHead& h : profile.heads) {
    if (h.layer == head.layer && h.kv_head == head.kv_head) return h.weight;
  }
  return 0;
}

// [kBlockTokens], the mean over heads of each token's share of the mass that is not parked at the
// sinks.
std::vector<double> TokenShares(const Question& question, const std::vector<ScanResult>& scans,
                                const BlockKey& block) {
  std::vector<double> shares(kBlockTokens, 0.0);
  for (size_t h = 0; h < scans.size(); ++h) {
    const double all = scans[h].weight_sum - scans[h].sink_score;
    if (all <= 0) continue;
    const std::vector<float> mass =
        question.memory.relevance().TokenMass(question.head_queries[h], scans[h], block);
    for (size_t i = 0; i < mass.size(); ++i)
      shares[i] += mass[i] / all / static_cast<double>(scans.size());
  }
  return shares;
}

}  // namespace

std::string_view HeadSignal::name() const { return kHeadSignal; }

Result<SignalScores> HeadSignal::Score(const Question& question, size_t blocks_max) const {
  SignalScores scores;
  if (question.head_queries.empty()) return scores;
  const Manifest& m = question.memory.manifest();
  std::vector<double> weights;  // [heads]
  double sum = 0;
  for (size_t h = 0; h < question.head_queries.size(); ++h) {
    weights.push_back(
        WeightOf({.layer = m.scan_layers[h], .kv_head = m.scan_kv_heads[h]}, question.profile()));
    sum += weights.back();
  }
  const auto start = std::chrono::steady_clock::now();
  std::map<BlockKey, double> blocks;
  std::vector<ScanResult> scans;
  for (size_t h = 0; h < question.head_queries.size(); ++h) {
    scans.push_back(question.memory.relevance().Query(question.head_queries[h], blocks_max,
                                                      question.Parallel()));
    const ScanResult& scan = scans.back();
    if (scan.weight_sum <= 0 || sum <= 0) continue;
    const double scale = weights[h] / sum / scan.weight_sum;
    for (const ScanResult::BlockScore& b : scan.blocks) blocks[b.block] += scale * b.score;
  }
  for (const auto& [block, score] : blocks) scores.blocks.push_back({block, score, std::nullopt});
  scores.token_shares = [&question, scans = std::move(scans)](const BlockKey& block) {
    return TokenShares(question, scans, block);
  };
  scores.scan_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  return scores;
}

}  // namespace longhold
