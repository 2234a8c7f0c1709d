#include "memory/index/ivf_index.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "attention/geometry.h"
#include "attention/kernels.h"
#include "memory/index/document_keys.h"
#include "memory/index/ivf_lists.h"

namespace longhold {

IvfIndex::IvfIndex(IvfSearch search) : search_(search) {}
IvfIndex::~IvfIndex() = default;
IvfIndex::IvfIndex(IvfIndex&&) noexcept = default;
IvfIndex& IvfIndex::operator=(IvfIndex&&) noexcept = default;

Status IvfIndex::Add(SharedSegment segment) {
  LH_RETURN_IF_ERROR(exact_.Add(segment));
  const DocumentId document = segment->document;
  std::vector<SharedSegment>& all = segments_[document];
  const auto at = std::lower_bound(
      all.begin(), all.end(), segment->block_begin,
      [](const SharedSegment& s, uint32_t block) { return s->block_begin < block; });
  if (at != all.end() && (*at)->block_begin == segment->block_begin) {
    *at = segment;
  } else {
    all.insert(at, segment);
  }
  if (lists_.erase(document) == 0) return rest_.Add(std::move(segment));
  for (const SharedSegment& s : all) LH_RETURN_IF_ERROR(rest_.Add(s));
  return OkStatus();
}

void IvfIndex::Remove(DocumentId document) {
  exact_.Remove(document);
  rest_.Remove(document);
  segments_.erase(document);
  lists_.erase(document);
}

std::span<const SharedSegment> IvfIndex::Segments(DocumentId document) const {
  const auto at = segments_.find(document);
  if (at == segments_.end()) return {};
  return at->second;
}

Status IvfIndex::AddLists(const std::vector<IvfSegment>& heads) {
  LH_CHECK(!heads.empty());
  const DocumentId document = heads[0].document;
  const auto refuse = [&](std::string_view why) {
    return FailedPrecondition("add lists d=" + std::to_string(static_cast<uint32_t>(document)) +
                              ": " + std::string(why));
  };
  const std::span<const SharedSegment> segments = Segments(document);
  uint64_t blocks = 0;
  for (const SharedSegment& s : segments) {
    if (s->block_begin != blocks) return refuse("the document has gaps");
    blocks += s->block_count;
  }
  if (segments.empty() || segments[0]->heads != heads.size())
    return refuse("other heads than the document's");
  if (blocks * kBlockTokens > kIvfTokensMax) return refuse("the document is too large");
  std::vector<std::unique_ptr<HeadLists>> lists;
  for (uint32_t h = 0; h < heads.size(); ++h) {
    const IvfSegment& s = heads[h];
    const DocumentKeys keys(segments, h);
    if (const char* fault = s.Fault()) return refuse(fault);
    if (s.document != document || s.head != h || s.head_dim != keys.head_dim() ||
        s.tokens != keys.tokens() || s.keys_hash != keys.Hash()) {
      return refuse("made from other keys");
    }
    lists.push_back(std::make_unique<HeadLists>(s, keys, search_.sample_tokens));
  }
  lists_[document] = std::move(lists);
  rest_.Remove(document);
  return OkStatus();
}

namespace {

// A logarithm below all others. It is finite so that sums do not become NaN.
constexpr float kNothing = -1e30f;

constexpr uint32_t kTileRows = 96;
constexpr size_t kSampleBlocksPerPiece = 32;
// A token helps to find its block if its share is more than this many times the mean share of all
// tokens.
constexpr double kFindShare = 32;

// The log of a sum of exponentials, accumulated term by term.
struct LogSum {
  double max = -std::numeric_limits<double>::infinity();
  double sum = 0;

  // Adds factor * exp(log).
  void Add(double log, double factor) {
    if (!(factor > 0) || log == -std::numeric_limits<double>::infinity()) return;
    if (log > max) {
      sum = sum * std::exp(max - log) + factor;
      max = log;
    } else {
      sum += factor * std::exp(log - max);
    }
  }
  double Log() const {
    return sum > 0 ? max + std::log(sum) : -std::numeric_limits<double>::infinity();
  }
};

// Adds factor * the sum of exponentials over all blocks of the call to `sums` [rows].
void AddBlocks(const ScanCall& call, double factor, std::vector<LogSum>* sums) {
  for (uint32_t r = 0; r < call.rows; ++r) {
    float max = kNothing;
    for (size_t b = 0; b < call.block_count; ++b)
      max = std::max(max, call.block_max[b * call.rows + r]);
    double sum = 0;
    for (size_t b = 0; b < call.block_count; ++b) {
      sum += double{call.block_sum[b * call.rows + r]} *
             std::exp(call.block_max[b * call.rows + r] - max);
    }
    (*sums)[r].Add(max, factor * sum);
  }
}

void AddAll(const std::vector<std::vector<LogSum>>& partial, std::vector<LogSum>* sums) {
  for (const std::vector<LogSum>& part : partial) {
    for (size_t r = 0; r < part.size(); ++r) (*sums)[r].Add(part[r].max, part[r].sum);
  }
}

// The scan call for one block of a scan segment.
ScanCall CallOf(const ScanSegment& s, uint32_t head, uint32_t block, const QuantisedRows& rows) {
  const size_t token = size_t{block - s.block_begin} * kBlockTokens;
  return {.keys = s.keys[head].data() + token * s.head_dim,
          .key_scale = s.scales[head].data() + token,
          .counts = s.counts.data() + (block - s.block_begin),
          .block_count = 1,
          .head_dim = s.head_dim,
          .q = rows.codes.data(),
          .q_scale = rows.scales.data(),
          .rows = static_cast<uint32_t>(rows.scales.size())};
}

const ScanSegment& SegmentOf(std::span<const SharedSegment> segments, uint32_t block) {
  const auto after =
      std::upper_bound(segments.begin(), segments.end(), block,
                       [](uint32_t b, const SharedSegment& s) { return b < s->block_begin; });
  return **std::prev(after);
}

using SegmentMap = std::map<DocumentId, std::vector<SharedSegment>>;

// log of the mean over documents of exp(logit of the document's first token), [rows]. -infinity if
// no document is wanted.
template <typename Wanted>
std::vector<double> MeanSinks(const SegmentMap& documents, uint32_t head, const QuantisedRows& rows,
                              Wanted wanted) {
  const size_t count = rows.scales.size();
  std::vector<LogSum> sums(count);
  std::vector<float> logits(kBlockTokens * count);
  size_t sinks = 0;
  for (const auto& [document, segments] : documents) {
    if (segments.empty() || segments[0]->block_begin != 0 || !wanted(document)) continue;
    Kernels().scan_logits(CallOf(*segments[0], head, 0, rows), logits.data());
    for (size_t r = 0; r < count; ++r) sums[r].Add(logits[r], 1);
    ++sinks;
  }
  std::vector<double> mean(count);
  for (size_t r = 0; r < count; ++r)
    mean[r] = sums[r].Log() - (sinks > 0 ? std::log(static_cast<double>(sinks)) : 0);
  return mean;
}

// log(exp(all) - exp(part)) for part <= all.
double LogWithout(double all, double part) {
  if (part == -std::numeric_limits<double>::infinity()) return all;
  const double left = -std::expm1(part - all);
  return left > 0 ? all + std::log(left) : -std::numeric_limits<double>::infinity();
}

}  // namespace

// Rows [row, row + count) of a query over the inverted lists of one document.
struct IvfIndex::Tile {
  const HeadLists& of;
  const QuantisedRows& rows;
  uint32_t row;
  uint32_t count;
  std::vector<float> sample_max, sample_sum;  // [sample blocks, count]
  std::vector<uint32_t> lists;                // the lists that are read, ascending
  std::vector<std::vector<float>> block_max;  // [lists] of [the list's blocks, count]

  // First pass, over the sample only: adds an estimate of the whole document's sum of exponentials
  // to `sums` [count].
  void SumSample(const ParallelFor& parallel, std::vector<LogSum>* sums);
  // Chooses the lists to read, up to `share` of the keys. A list's worth estimates how much of the
  // rows' attention it holds: the sum over rows of weight * min(1, exp(estimated largest logit -
  // log_sum)). Rows whose mass is mostly at the sinks, or in lists that other rows need too, then
  // cause few additional reads. (Choosing lists for each row separately read twice as many keys for
  // the same first eight blocks.) A list also gets worth from outliers: sample keys that would
  // contribute much to a row's sum. Reading the list counts such a key once, and not for all keys
  // that it represents.
  void Choose(const ScanQuery& query, const std::vector<LogSum>& log_sums, double share,
              const ParallelFor& parallel);
  // The part of Choose that handles outliers: adds their worth to that of their lists in `worth`
  // [lists].
  void AddOutliers(const ScanQuery& query, const std::vector<float>& log_sum,
                   const ParallelFor& parallel, std::vector<float>* worth) const;
  // Second pass: adds the exact sum over the lists that are read, and the sample's estimate for the
  // others, to `sums` [count].
  void Sum(const ParallelFor& parallel, std::vector<LogSum>* sums);
  // Third pass, when lse [count] is known: adds weight * share of every token above the threshold
  // to its block in `mass` [blocks].
  void Find(const float* weight, const double* lse, double log_share_min,
            const ParallelFor& parallel, std::vector<double>* mass) const;
};

void IvfIndex::Tile::SumSample(const ParallelFor& parallel, std::vector<LogSum>* sums) {
  const size_t blocks = of.sample.counts.size(),
               pieces = (blocks + kSampleBlocksPerPiece - 1) / kSampleBlocksPerPiece;
  sample_max.resize(blocks * count);
  sample_sum.resize(blocks * count);
  std::vector<std::vector<LogSum>> partial(pieces);
  parallel(pieces, [&](size_t piece) {
    const size_t begin = piece * kSampleBlocksPerPiece,
                 end = std::min(begin + kSampleBlocksPerPiece, blocks);
    ScanCall call = of.sample.Call(begin, end - begin, rows, row, count);
    call.block_max = sample_max.data() + begin * count;
    call.block_sum = sample_sum.data() + begin * count;
    Kernels().scan(call);
    partial[piece].resize(count);
    AddBlocks(call, of.sample_weight, &partial[piece]);
  });
  AddAll(partial, sums);
}

void IvfIndex::Tile::AddOutliers(const ScanQuery& query, const std::vector<float>& log_sum,
                                 const ParallelFor& parallel, std::vector<float>* worth) const {
  // The share of a row's sum that an outlier must represent. Without this threshold, lists that the
  // sample overestimates by chance were read too. The estimate for the others then kept only
  // underestimates and was 0.02 to 0.05 too low.
  constexpr double kOutlier = 0.25;
  std::vector<float> least(count);
  for (uint32_t r = 0; r < count; ++r)
    least[r] = log_sum[r] + static_cast<float>(std::log(kOutlier / of.sample_weight));
  const size_t blocks = of.sample.counts.size(),
               pieces = (blocks + kSampleBlocksPerPiece - 1) / kSampleBlocksPerPiece;
  std::vector<std::vector<std::pair<uint32_t, float>>> found(pieces);  // list and worth
  parallel(pieces, [&](size_t piece) {
    std::vector<float> logits;
    for (size_t b = piece * kSampleBlocksPerPiece;
         b < std::min((piece + 1) * kSampleBlocksPerPiece, blocks); ++b) {
      bool any = false;
      for (uint32_t r = 0; r < count; ++r) any |= sample_max[b * count + r] > least[r];
      if (!any) continue;
      logits.resize(size_t{kBlockTokens} * count);
      Kernels().scan_logits(of.sample.Call(b, 1, rows, row, count), logits.data());
      for (uint32_t t = 0; t < of.sample.counts[b]; ++t) {
        for (uint32_t r = 0; r < count; ++r) {
          const float log = logits[size_t{t} * count + r] - log_sum[r];
          if (logits[size_t{t} * count + r] <= least[r]) continue;
          found[piece].emplace_back(
              of.sample_list[b * kBlockTokens + t],
              query.row_weight[row + r] * static_cast<float>(of.sample_weight) * std::exp(log));
        }
      }
    }
  });
  for (const auto& of_piece : found) {
    for (const auto& [list, more] : of_piece) (*worth)[list] += more;
  }
}

void IvfIndex::Tile::Choose(const ScanQuery& query, const std::vector<LogSum>& log_sums,
                            double share, const ParallelFor& parallel) {
  constexpr float kNoMatter = -16;  // smaller exponents do not change the sum noticeably
  const std::vector<float> largest = of.LikelyLargest(query, row, count);
  std::vector<float> log_sum(count);
  for (uint32_t r = 0; r < count; ++r) log_sum[r] = static_cast<float>(log_sums[r].Log());
  std::vector<float> worth(of.lists(), 0.0f);
  constexpr uint32_t kPiece = 256;
  parallel((of.lists() + kPiece - 1) / kPiece, [&](size_t piece) {
    const auto begin = static_cast<uint32_t>(piece * kPiece),
               end = std::min(begin + kPiece, of.lists());
    for (uint32_t r = 0; r < count; ++r) {
      const float weight = query.row_weight[row + r];
      for (uint32_t l = begin; l < end; ++l) {
        const float log = largest[size_t{r} * of.lists() + l] - log_sum[r];
        if (log > kNoMatter) worth[l] += weight * std::exp(std::min(log, 0.0f));
      }
    }
  });
  AddOutliers(query, log_sum, parallel, &worth);
  for (uint32_t l = 0; l < of.lists(); ++l) {
    if (of.list_size[l] > 0) lists.push_back(l);
  }
  std::sort(lists.begin(), lists.end(), [&](uint32_t a, uint32_t b) {
    return worth[a] != worth[b] ? worth[a] > worth[b] : a < b;
  });
  const double keys_max = share * static_cast<double>(of.token.size());
  double keys = 0;
  size_t chosen = 0;
  while (chosen < lists.size() && keys < keys_max) keys += of.list_size[lists[chosen++]];
  lists.resize(chosen);
  std::sort(lists.begin(), lists.end());
}

void IvfIndex::Tile::Sum(const ParallelFor& parallel, std::vector<LogSum>* sums) {
  std::vector<bool> seen(of.lists(), false), clean;
  for (const uint32_t list : lists) seen[list] = true;
  const KeyBlocks unseen = of.Unseen(seen, &clean);
  const size_t mixed_blocks = unseen.counts.size();
  const size_t pieces =
      lists.size() + (mixed_blocks + kSampleBlocksPerPiece - 1) / kSampleBlocksPerPiece;
  std::vector<std::vector<LogSum>> partial(pieces);
  block_max.resize(lists.size());
  parallel(pieces, [&](size_t piece) {
    const bool listed = piece < lists.size();
    const size_t begin =
        listed ? of.list_block[lists[piece]] : (piece - lists.size()) * kSampleBlocksPerPiece;
    const size_t end = listed ? of.list_block[lists[piece] + 1]
                              : std::min(begin + kSampleBlocksPerPiece, mixed_blocks);
    ScanCall call = (listed ? of.blocks : unseen).Call(begin, end - begin, rows, row, count);
    std::vector<float> max(call.block_count * count), sum(call.block_count * count);
    call.block_max = max.data();
    call.block_sum = sum.data();
    Kernels().scan(call);
    partial[piece].resize(count);
    AddBlocks(call, listed ? 1 : of.sample_weight, &partial[piece]);
    if (listed) block_max[piece] = std::move(max);
  });
  AddAll(partial, sums);
  for (size_t b = 0; b < clean.size(); ++b) {
    if (!clean[b]) continue;
    ScanCall call = of.sample.Call(b, 1, rows, row, count);
    call.block_max = sample_max.data() + b * count;
    call.block_sum = sample_sum.data() + b * count;
    AddBlocks(call, of.sample_weight, sums);
  }
}

void IvfIndex::Tile::Find(const float* weight, const double* lse, double log_share_min,
                          const ParallelFor& parallel, std::vector<double>* mass) const {
  std::vector<float> least(count), base(count);
  for (uint32_t r = 0; r < count; ++r) {
    base[r] = static_cast<float>(lse[r]);
    least[r] = weight[r] > 0 ? static_cast<float>(lse[r] + log_share_min)
                             : std::numeric_limits<float>::infinity();
  }
  std::vector<std::vector<std::pair<uint32_t, double>>> found(lists.size());  // block and mass
  parallel(lists.size(), [&](size_t l) {
    std::vector<float> logits(size_t{kBlockTokens} * count);
    const uint32_t begin = of.list_block[lists[l]], end = of.list_block[lists[l] + 1];
    for (uint32_t b = begin; b < end; ++b) {
      const float* max = block_max[l].data() + size_t{b - begin} * count;
      bool any = false;
      for (uint32_t r = 0; r < count; ++r) any |= max[r] > least[r];
      if (!any) continue;
      Kernels().scan_logits(of.blocks.Call(b, 1, rows, row, count), logits.data());
      for (uint32_t t = 0; t < of.blocks.counts[b]; ++t) {
        float sum = 0;
        for (uint32_t r = 0; r < count; ++r) {
          const float logit = logits[size_t{t} * count + r];
          if (logit > least[r]) sum += weight[r] * std::exp(logit - base[r]);
        }
        if (sum > 0)
          found[l].emplace_back(of.token[size_t{b} * kBlockTokens + t] / kBlockTokens, sum);
      }
    }
  });
  for (const auto& of_list : found) {
    for (const auto& [block, sum] : of_list) (*mass)[block] += sum;
  }
}

namespace {

bool Better(const ScanResult::BlockScore& a, const ScanResult::BlockScore& b) {
  return a.score != b.score ? a.score > b.score : a.block < b.block;
}

// The blocks with the most mass ([blocks] of each document), at most max_blocks, in any order, plus
// the first block of every document.
std::vector<ScanResult::BlockScore> BlocksThatStoodOut(
    const std::map<DocumentId, std::vector<double>>& mass, size_t max_blocks) {
  std::vector<ScanResult::BlockScore> found;
  for (const auto& [document, blocks] : mass) {
    for (uint32_t b = 1; b < blocks.size(); ++b) {
      if (blocks[b] > 0)
        found.push_back({.block = {.document = document, .block = b}, .score = blocks[b]});
    }
  }
  if (found.size() > max_blocks) {
    std::nth_element(found.begin(), found.begin() + static_cast<ptrdiff_t>(max_blocks), found.end(),
                     Better);
    found.resize(max_blocks);
  }
  // The tokens after a sink behave a little like sinks, and their keys differ from all others. The
  // chosen lists may not contain them, but block 0 was the best block of 3 of 58 plans on Genesis.
  for (const auto& [document, blocks] : mass) {
    found.push_back({.block = {.document = document, .block = 0}, .score = 0});
  }
  return found;
}

// log sum exp of each row over a block, [rows], without the document's sink.
std::vector<float> BlockLogs(const ScanSegment& segment, uint32_t head, uint32_t block,
                             const QuantisedRows& rows) {
  ScanCall call = CallOf(segment, head, block, rows);
  std::vector<float> logs(call.rows);
  // The sink may be nearly the whole sum, so subtracting it would leave mostly rounding errors.
  if (block == 0) {
    std::vector<float> logits(size_t{kBlockTokens} * call.rows);
    Kernels().scan_logits(call, logits.data());
    for (uint32_t r = 0; r < call.rows; ++r) {
      LogSum others;
      for (uint32_t t = 1; t < segment.counts[0]; ++t)
        others.Add(logits[size_t{t} * call.rows + r], 1);
      logs[r] = static_cast<float>(others.Log());
    }
    return logs;
  }
  std::vector<float> max(call.rows), sum(call.rows);
  call.block_max = max.data();
  call.block_sum = sum.data();
  Kernels().scan(call);
  for (uint32_t r = 0; r < call.rows; ++r) logs[r] = max[r] + std::log(sum[r]);
  return logs;
}

// Scores the result's blocks exactly, from all of their tokens, and keeps the best. Raises row_lse
// to at least the sum of these blocks and the sinks [rows], so that shares never add up to more
// than 1.
void ScoreAnew(const SegmentMap& documents, const ScanQuery& query, const QuantisedRows& rows,
               const std::vector<double>& sinks, size_t max_blocks, const ParallelFor& parallel,
               ScanResult* result) {
  std::vector<ScanResult::BlockScore>& blocks = result->blocks;
  std::vector<std::vector<float>> logs(blocks.size());  // [blocks, rows]
  parallel(blocks.size(), [&](size_t i) {
    const BlockKey& block = blocks[i].block;
    logs[i] = BlockLogs(SegmentOf(documents.at(block.document), block.block), query.head,
                        block.block, rows);
  });
  for (uint32_t r = 0; r < query.rows; ++r) {
    LogSum sum;
    sum.Add(sinks[r], 1);
    for (const std::vector<float>& log : logs) sum.Add(log[r], 1);
    result->row_lse[r] = std::max(result->row_lse[r], sum.Log());
    result->sink_score += query.row_weight[r] * std::exp(sinks[r] - result->row_lse[r]);
  }
  parallel(blocks.size(), [&](size_t i) {
    blocks[i].score = 0;
    for (uint32_t r = 0; r < query.rows; ++r) {
      blocks[i].score +=
          double{query.row_weight[r]} * std::exp(double{logs[i][r]} - result->row_lse[r]);
    }
  });
  const size_t kept = std::min(max_blocks, blocks.size());
  std::partial_sort(blocks.begin(), blocks.begin() + static_cast<ptrdiff_t>(kept), blocks.end(),
                    Better);
  blocks.resize(kept);
}

}  // namespace

ScanResult IvfIndex::Query(const ScanQuery& query, size_t max_blocks,
                           const ParallelFor& parallel) const {
  if (lists_.empty() || query.rows == 0) return exact_.Query(query, max_blocks, parallel);
  const QuantisedRows rows(query);
  const auto with_lists = [&](DocumentId d) { return lists_.contains(d); };
  const size_t candidates_max = 2 * std::min(max_blocks, SIZE_MAX / 4) + 32;

  // Documents without lists are scanned. Their sinks are subtracted again and averaged with all
  // others.
  const ScanResult rest = rest_.Query(query, candidates_max, parallel);
  const std::vector<double> sinks =
      MeanSinks(segments_, query.head, rows, [](DocumentId) { return true; });
  const std::vector<double> rest_sinks =
      MeanSinks(segments_, query.head, rows, [&](DocumentId d) { return !with_lists(d); });

  ScanResult result;
  result.weight_sum = rest.weight_sum;
  result.row_lse.assign(query.rows, -std::numeric_limits<double>::infinity());
  // [blocks] of each document with lists: mass of the tokens above the threshold.
  std::map<DocumentId, std::vector<double>> mass;
  for (const auto& [document, heads] : lists_) {
    const ScanSegment& last = *segments_.at(document).back();
    mass[document].resize(size_t{last.block_begin} + last.block_count);
  }
  const double log_share_min = std::log(kFindShare / static_cast<double>(token_count()));
  for (uint32_t row = 0; row < query.rows; row += kTileRows) {
    const uint32_t count = std::min(kTileRows, query.rows - row);
    std::vector<LogSum> sums(count);
    for (uint32_t r = 0; r < count; ++r) {
      sums[r].Add(sinks[row + r], 1);
      if (rest_.token_count() > 0)
        sums[r].Add(LogWithout(rest.row_lse[row + r], rest_sinks[row + r]), 1);
    }
    std::vector<std::pair<DocumentId, Tile>> tiles;
    std::vector<LogSum> likely = sums;
    for (const auto& [document, heads] : lists_) {
      LH_CHECK(query.head < heads.size() && query.head_dim == heads[0]->blocks.head_dim);
      tiles.emplace_back(document, Tile{*heads[query.head], rows, row, count, {}, {}, {}, {}});
      tiles.back().second.SumSample(parallel, &likely);
    }
    for (auto& [document, tile] : tiles) {
      tile.Choose(query, likely, search_.share, parallel);
      tile.Sum(parallel, &sums);
    }
    for (uint32_t r = 0; r < count; ++r) result.row_lse[row + r] = sums[r].Log();
    for (const auto& [document, tile] : tiles) {
      tile.Find(query.row_weight.data() + row, result.row_lse.data() + row, log_share_min, parallel,
                &mass.at(document));
    }
  }

  result.blocks = BlocksThatStoodOut(mass, candidates_max);
  // Scores in `rest` are shares of the scanned documents only, so all of its blocks stay until
  // ScoreAnew.
  result.blocks.insert(result.blocks.end(), rest.blocks.begin(), rest.blocks.end());
  ScoreAnew(segments_, query, rows, sinks, max_blocks, parallel, &result);
  return result;
}

std::vector<float> IvfIndex::TokenMass(const ScanQuery& query, const ScanResult& result,
                                       const BlockKey& block) const {
  return exact_.TokenMass(query, result, block);
}

}  // namespace longhold
