#include "eval/calibration_signals.h"

#include <algorithm>

#include "attention/kernels.h"
#include "memory/index/scan_index.h"
#include "memory/index/segment_keys.h"
#include "memory/recall/prompt.h"

namespace longhold {
namespace {

// Exact scans over the keys of all heads. There is one index per layer, because an index holds at
// most kScanHeadsMax heads.
struct AllHeads {
  std::vector<ScanIndex> layers;              // [layers]
  std::vector<std::vector<float>> mean_keys;  // [layers] of [blocks, kv_width]
};

Result<AllHeads> LoadHeads(LanguageModel& model, Memory& memory, const DocumentRecord& document) {
  const KvGeometry& g = model.info().geometry;
  AllHeads all;
  all.layers.resize(g.layers.size());
  const uint64_t blocks = (document.committed_tokens + kBlockTokens - 1) / kBlockTokens;
  all.mean_keys.assign(g.layers.size(), std::vector<float>(blocks * g.kv_width(), 0.0f));
  std::vector<SegmentKeys> keys;
  for (const uint32_t layer : g.layers) {
    Manifest one = memory.manifest();
    one.scan_layers.assign(g.kv_heads, layer);
    one.scan_kv_heads.clear();
    for (uint32_t h = 0; h < g.kv_heads; ++h) one.scan_kv_heads.push_back(h);
    keys.emplace_back(one);
  }
  for (uint64_t begin = 0; begin < document.committed_tokens; begin += kCommitTokens) {
    const uint64_t end = std::min<uint64_t>(document.committed_tokens, begin + kCommitTokens);
    for (uint64_t at = begin; at < end; at += kBlockTokens) {
      const auto b = static_cast<uint32_t>(at / kBlockTokens);
      const auto rows = static_cast<uint32_t>(std::min<uint64_t>(kBlockTokens, end - at));
      LH_ASSIGN_OR_RETURN(const KvBlock block, memory.LoadBlock({document.id, b}));
      std::vector<float> row(g.kv_width());
      for (size_t l = 0; l < keys.size(); ++l) {
        keys[l].Append(block, rows);
        float* mean = all.mean_keys[l].data() + size_t{b} * g.kv_width();
        for (uint32_t r = 0; r < rows; ++r) {
          Kernels().half_to_float(block.Keys(static_cast<uint32_t>(l)) + size_t{r} * g.kv_width(),
                                  row.data(), g.kv_width());
          for (uint32_t c = 0; c < g.kv_width(); ++c) mean[c] += row[c] / static_cast<float>(rows);
        }
      }
    }
    model.Parallel(keys.size(), [&](size_t l) {
      const auto segment = keys[l].Build(document.id, begin);
      keys[l].Clear();
      LH_CHECK(all.layers[l].Add(segment).ok());
    });
  }
  return all;
}

// For every block, the dot product of the mean query row and the block's mean key.
std::vector<float> ByMeanKey(const ScanQuery& query, const std::vector<float>& means,
                             uint32_t kv_width, uint32_t kv_head, uint32_t blocks) {
  const uint32_t d = query.head_dim;
  std::vector<float> mean(d, 0.0f), scores(blocks);
  for (uint32_t r = 0; r < query.rows; ++r) {
    for (uint32_t c = 0; c < d; ++c)
      mean[c] += query.q[size_t{r} * d + c] / static_cast<float>(query.rows);
  }
  for (uint32_t b = 0; b < blocks; ++b) {
    const float* key = means.data() + size_t{b} * kv_width + size_t{kv_head} * d;
    for (uint32_t c = 0; c < d; ++c) scores[b] += mean[c] * key[c];
  }
  return scores;
}

}  // namespace

Result<uint64_t> TokenAtByte(Memory& memory, DocumentId document, uint64_t byte) {
  uint64_t low = 0, high = memory.Get(document).committed_tokens;
  while (low < high) {
    const uint64_t middle = (low + high) / 2;
    LH_ASSIGN_OR_RETURN(const TextPlace place, memory.Locate(document, {middle, middle + 1}));
    if (place.bytes.end > byte) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

Result<SignalTable> MeasureSignals(
    LanguageModel& model, Memory& memory, const LexicalVocabulary& vocabulary,
    const CalibrationCorpus& corpus, const std::atomic<bool>* stop,
    const std::function<void(size_t done, size_t total)>& on_progress) {
  LH_CHECK(memory.documents().size() == 1);
  const DocumentRecord document = memory.documents().front();
  const KvGeometry& g = model.info().geometry;
  SignalTable table;
  for (const uint32_t layer : g.layers) {
    for (uint32_t h = 0; h < g.kv_heads; ++h) table.heads.push_back({.layer = layer, .kv_head = h});
  }
  table.blocks =
      static_cast<uint32_t>((document.committed_tokens + kBlockTokens - 1) / kBlockTokens);
  LH_ASSIGN_OR_RETURN(const AllHeads all, LoadHeads(model, memory, document));
  const ParallelFor parallel = WorkersOf(model);

  for (size_t i = 0; i < corpus.cases.size(); ++i) {
    if (stop != nullptr && stop->load()) return Cancelled("calibrate: stopped");
    if (on_progress) on_progress(i, corpus.cases.size());
    const CalibrationCase& item = corpus.cases[i];
    CaseSignals signals;
    signals.item = i;
    LH_ASSIGN_OR_RETURN(const uint64_t begin,
                        TokenAtByte(memory, document.id, item.evidence.begin));
    LH_ASSIGN_OR_RETURN(const uint64_t end,
                        TokenAtByte(memory, document.id, item.evidence.end - 1));
    if (end >= document.committed_tokens) continue;
    for (uint64_t b = begin / kBlockTokens; b <= end / kBlockTokens; ++b)
      signals.evidence.push_back(static_cast<uint32_t>(b));

    LH_ASSIGN_OR_RETURN(const Prompt prompt, BuildPrompt(model, item.question, {}));
    WorkingSet set(g, static_cast<uint32_t>(prompt.head.size() + prompt.tail.size()));
    LH_ASSIGN_OR_RETURN(const std::vector<ScanQuery> queries,
                        ProbeQueries(model, set, prompt, table.heads));
    for (size_t h = 0; h < queries.size(); ++h) {
      ScanQuery query = queries[h];
      query.head = table.heads[h].kv_head;
      const size_t layer = h / g.kv_heads;
      const ScanResult found = all.layers[layer].Query(query, table.blocks, parallel);
      std::vector<float>& share = signals.head_share.emplace_back(table.blocks, 0.0f);
      for (const ScanResult::BlockScore& b : found.blocks)
        share[b.block.block] = static_cast<float>(b.score / found.weight_sum);
      signals.block_mean.push_back(
          ByMeanKey(query, all.mean_keys[layer], g.kv_width(), query.head, table.blocks));
    }
    signals.lexical.assign(table.blocks, 0.0f);
    const LexicalResult words =
        memory.lexical().Query(vocabulary.Words(prompt.Words()), table.blocks);
    for (const LexicalResult::BlockScore& b : words.blocks)
      signals.lexical[b.block.block] = static_cast<float>(b.score / words.query_score);
    table.cases.push_back(std::move(signals));
  }
  return table;
}

}  // namespace longhold
