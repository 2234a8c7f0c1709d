#include "memory/index/scan_index.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "attention/geometry.h"
#include "attention/kernels.h"
#include "memory/index/segment_bytes.h"

namespace longhold {

// ---- Segments ----

namespace {

// Writes round(127 * in / max|in|) and returns max|in| / 127, the factor that converts the codes
// back. Writes zeros and returns 0 for a zero row, for one that is not finite, and if the factor
// would exceed scale_max.
float QuantiseRow(const float* in, uint32_t count, float scale_max, int8_t* out) {
  float max = 0, not_finite = 0;
  for (uint32_t c = 0; c < count; ++c) {
    max = std::max(max, std::abs(in[c]));
    not_finite += in[c] * 0.0f;  // NaN if the element is infinite or NaN, else 0
  }
  // 127 / max is infinite if max is denormal.
  if (max == 0 || max / 127.0f > scale_max || !std::isfinite(127.0f / max) ||
      std::isnan(not_finite)) {
    std::fill_n(out, count, int8_t{0});
    return 0;
  }
  const float inverse = 127.0f / max;
  for (uint32_t c = 0; c < count; ++c) {
    out[c] = static_cast<int8_t>(std::clamp(std::nearbyint(in[c] * inverse), -127.0f, 127.0f));
  }
  return max / 127.0f;
}

// Checks what every reader of a segment relies on. Returns null if all is well, else a description
// of the fault.
const char* SegmentFault(const ScanSegment& s) {
  if (s.block_count == 0 || s.block_count > kScanSegmentBlocksMax)
    return "block_count is out of range";
  if (s.block_begin > UINT32_MAX - s.block_count) return "block_begin is out of range";
  if (s.heads == 0 || s.heads > kScanHeadsMax) return "heads is out of range";
  if (s.head_dim == 0 || s.head_dim % 4 != 0 || s.head_dim > kMaxHeadDim)
    return "head_dim is out of range";
  if (s.counts.size() != s.block_count || s.keys.size() != s.heads || s.scales.size() != s.heads)
    return "array sizes differ";
  for (uint32_t b = 0; b < s.block_count; ++b) {
    const bool last = b + 1 == s.block_count;
    if (s.counts[b] > kBlockTokens || s.counts[b] < (last ? 1 : kBlockTokens))
      return "a block's count is out of range";
  }
  for (uint32_t h = 0; h < s.heads; ++h) {
    const size_t tokens = size_t{s.block_count} * kBlockTokens;
    if (s.keys[h].size() != tokens * s.head_dim || s.scales[h].size() != tokens)
      return "array sizes differ";
    for (const float scale : s.scales[h]) {
      if (!(scale >= 0 && scale <= kScanScaleMax)) return "a scale is out of range";
    }
  }
  return nullptr;
}

// A logit below all others. It is finite so that differences do not become NaN.
constexpr float kNothing = -1e30f;
constexpr char kMagic[4] = {'L', 'H', 'S', 'C'};
constexpr uint32_t kFormatVersion = 1;

// See docs/formats/index.md. All supported machines are little-endian.
struct SegmentHeader {
  char magic[4];
  uint32_t version;
  uint32_t document;
  uint32_t block_begin;
  uint32_t block_count;
  uint32_t heads;
  uint32_t head_dim;
  uint32_t reserved;  // 0
};
static_assert(sizeof(SegmentHeader) == 32);

}  // namespace

ScanSegment ScanSegment::Build(
    DocumentId document, uint32_t block_begin, uint64_t tokens, uint32_t heads, uint32_t head_dim,
    const std::function<const float*(uint32_t head, uint64_t token)>& rows) {
  LH_CHECK(tokens > 0 && tokens <= uint64_t{kScanSegmentBlocksMax} * kBlockTokens);
  LH_CHECK(heads > 0 && heads <= kScanHeadsMax);
  LH_CHECK(head_dim > 0 && head_dim % 4 == 0 && head_dim <= kMaxHeadDim);
  ScanSegment segment;
  segment.document = document;
  segment.block_begin = block_begin;
  segment.block_count = static_cast<uint32_t>((tokens + kBlockTokens - 1) / kBlockTokens);
  segment.heads = heads;
  segment.head_dim = head_dim;
  segment.counts.assign(segment.block_count, kBlockTokens);
  if (tokens % kBlockTokens != 0)
    segment.counts.back() = static_cast<uint8_t>(tokens % kBlockTokens);

  const size_t slots = size_t{segment.block_count} * kBlockTokens;
  std::vector<int8_t> codes(head_dim);
  for (uint32_t h = 0; h < heads; ++h) {
    std::vector<uint8_t>& keys = segment.keys.emplace_back(slots * head_dim, uint8_t{128});
    std::vector<float>& scales = segment.scales.emplace_back(slots, 0.0f);
    for (uint64_t t = 0; t < tokens; ++t) {
      scales[t] = QuantiseRow(rows(h, t), head_dim, kScanScaleMax, codes.data());
      uint8_t* block = keys.data() + t / kBlockTokens * kBlockTokens * head_dim;
      for (uint32_t c = 0; c < head_dim; ++c) {
        block[(size_t{c / 4} * kBlockTokens + t % kBlockTokens) * 4 + c % 4] =
            static_cast<uint8_t>(codes[c] + 128);
      }
    }
  }
  return segment;
}

std::string ScanSegment::Encode() const {
  SegmentHeader header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kFormatVersion;
  header.document = static_cast<uint32_t>(document);
  header.block_begin = block_begin;
  header.block_count = block_count;
  header.heads = heads;
  header.head_dim = head_dim;
  std::string out;
  out.reserve(sizeof header + block_count +
              size_t{heads} * block_count * kBlockTokens * (head_dim + 4) + 8);
  out.append(reinterpret_cast<const char*>(&header), sizeof header);
  out.append(reinterpret_cast<const char*>(counts.data()), counts.size());
  for (uint32_t h = 0; h < heads; ++h) {
    out.append(reinterpret_cast<const char*>(keys[h].data()), keys[h].size());
    out.append(reinterpret_cast<const char*>(scales[h].data()), scales[h].size() * sizeof(float));
  }
  AppendChecksum(&out);
  return out;
}

Result<ScanSegment> ScanSegment::Decode(std::string_view bytes) {
  const auto loss = [](std::string_view why) {
    return DataLoss("decode scan segment: " + std::string(why));
  };
  SegmentHeader header;
  LH_ASSIGN_OR_RETURN(const size_t body,
                      ReadHeader(bytes, kMagic, "scan segment", "not a scan segment", &header));
  if (header.version != kFormatVersion) {
    return FailedPrecondition("decode scan segment: format " + std::to_string(header.version) +
                              "; this version reads format " + std::to_string(kFormatVersion) +
                              ": ingest the document again");
  }
  // Each factor is checked before the multiplication, and the product before any allocation.
  if (header.block_count > kScanSegmentBlocksMax || header.heads > kScanHeadsMax ||
      header.head_dim > kMaxHeadDim) {
    return loss("a size is out of range");
  }
  if (header.reserved != 0) return loss("unknown flags");
  const uint64_t slots = uint64_t{header.block_count} * kBlockTokens;
  if (body - sizeof header !=
      header.block_count + header.heads * slots * (header.head_dim + sizeof(float))) {
    return loss("sizes do not fit the length");
  }

  ScanSegment segment;
  segment.document = DocumentId{header.document};
  segment.block_begin = header.block_begin;
  segment.block_count = header.block_count;
  segment.heads = header.heads;
  segment.head_dim = header.head_dim;
  const auto* in = reinterpret_cast<const uint8_t*>(bytes.data()) + sizeof header;
  segment.counts.assign(in, in + header.block_count);
  in += header.block_count;
  for (uint32_t h = 0; h < header.heads; ++h) {
    segment.keys.emplace_back(in, in + slots * header.head_dim);
    in += slots * header.head_dim;
    std::vector<float>& scales = segment.scales.emplace_back(slots);
    if (slots > 0) std::memcpy(scales.data(), in, slots * sizeof(float));
    in += slots * sizeof(float);
  }
  if (const char* fault = SegmentFault(segment)) return loss(fault);
  return segment;
}

// ---- Index ----

Status ScanIndex::Add(std::shared_ptr<const ScanSegment> segment) {
  LH_CHECK(segment != nullptr);
  const auto refuse = [&](std::string_view why) {
    return InvalidArgument(
        "add scan segment d=" + std::to_string(static_cast<uint32_t>(segment->document)) +
        " b=" + std::to_string(segment->block_begin) + ": " + std::string(why));
  };
  if (const char* fault = SegmentFault(*segment)) return refuse(fault);
  if (!segments_.empty() &&
      (segments_[0]->heads != segment->heads || segments_[0]->head_dim != segment->head_dim)) {
    return refuse("has other heads than the index");
  }
  const auto key = [](const ScanSegment& s) { return std::pair(s.document, s.block_begin); };
  auto at = std::lower_bound(segments_.begin(), segments_.end(), key(*segment),
                             [&](const auto& s, const auto& k) { return key(*s) < k; });
  if (at != segments_.end() && key(**at) == key(*segment) &&
      (*at)->token_count() == segment->token_count()) {
    *at = std::move(segment);
    return OkStatus();
  }
  if (at != segments_.end() && (*at)->document == segment->document &&
      (*at)->block_begin < segment->block_begin + segment->block_count) {
    return refuse("overlaps the next segment");
  }
  if (at != segments_.begin()) {
    const ScanSegment& before = **std::prev(at);
    if (before.document == segment->document &&
        before.block_begin + before.block_count > segment->block_begin) {
      return refuse("overlaps the segment before");
    }
  }
  token_count_ += segment->token_count();
  block_count_ += segment->block_count;
  segments_.insert(at, std::move(segment));
  return OkStatus();
}

void ScanIndex::Remove(DocumentId document) {
  std::erase_if(segments_, [&](const auto& s) {
    if (s->document != document) return false;
    token_count_ -= s->token_count();
    block_count_ -= s->block_count;
    return true;
  });
}

QuantisedRows::QuantisedRows(const ScanQuery& query) : codes(query.q.size()), scales(query.rows) {
  LH_CHECK(query.q.size() == size_t{query.rows} * query.head_dim);
  LH_CHECK(query.row_weight.size() == query.rows);
  for (uint32_t r = 0; r < query.rows; ++r) {
    const size_t at = size_t{r} * query.head_dim;
    scales[r] = query.scale * QuantiseRow(query.q.data() + at, query.head_dim,
                                          std::numeric_limits<float>::max(), codes.data() + at);
  }
}

namespace {

// Block masses (one float each) that a query holds at a time: 16 MiB.
constexpr uint64_t kCellsMax = uint64_t{1} << 22;
constexpr uint32_t kTileRowsMin = 16;

ScanCall CallOf(const ScanSegment& segment, uint32_t head, uint32_t block, size_t block_count,
                const QuantisedRows& rows, uint32_t row_begin, uint32_t row_count) {
  const size_t token = size_t{block} * kBlockTokens;
  return {.keys = segment.keys[head].data() + token * segment.head_dim,
          .key_scale = segment.scales[head].data() + token,
          .counts = segment.counts.data() + block,
          .block_count = block_count,
          .head_dim = segment.head_dim,
          .q = rows.codes.data() + size_t{row_begin} * segment.head_dim,
          .q_scale = rows.scales.data() + row_begin,
          .rows = row_count};
}

// Rescales block_sum of a finished call to the row's largest logit over all its blocks. The rest of
// the query then needs no exponential per block. max: [rows], sum: [rows] over the blocks.
void Rebase(const ScanCall& call, float* max, double* sum) {
  std::fill_n(max, call.rows, -std::numeric_limits<float>::infinity());
  std::fill_n(sum, call.rows, 0.0);
  for (size_t b = 0; b < call.block_count; ++b) {
    for (uint32_t r = 0; r < call.rows; ++r)
      max[r] = std::max(max[r], call.block_max[b * call.rows + r]);
  }
  for (size_t b = 0; b < call.block_count; ++b) {
    for (uint32_t r = 0; r < call.rows; ++r) {
      const size_t at = b * call.rows + r;
      call.block_sum[at] *= std::exp(call.block_max[at] - max[r]);
      sum[r] += call.block_sum[at];
    }
  }
}

}  // namespace

namespace {

// Separates a document's first token from its first block. Afterwards the block's maximum and sum
// cover only the other tokens, and sink_logit [count] is the first token's logit.
void SetSinkApart(const ScanSegment& segment, uint32_t head, const QuantisedRows& rows,
                  uint32_t row, uint32_t count, ScanCall* call, float* sink_logit) {
  std::vector<float> logits(size_t{kBlockTokens} * count);  // [64, count]
  Kernels().scan_logits(CallOf(segment, head, 0, 1, rows, row, count), logits.data());
  for (uint32_t r = 0; r < count; ++r) {
    sink_logit[r] = logits[r];
    float max = kNothing;
    for (uint32_t t = 1; t < segment.counts[0]; ++t) max = std::max(max, logits[t * count + r]);
    float sum = 0;
    for (uint32_t t = 1; t < segment.counts[0]; ++t) sum += std::exp(logits[t * count + r] - max);
    call->block_max[r] = max;
    call->block_sum[r] = sum;
  }
}

// The `max_blocks` blocks with the highest scores, highest first; of equal ones the first.
//   first_block: [segments] number of each segment's first block
//   score: [blocks]
std::vector<ScanResult::BlockScore> BestBlocks(
    const std::vector<std::shared_ptr<const ScanSegment>>& segments,
    const std::vector<size_t>& first_block, const std::vector<double>& score, size_t max_blocks) {
  const size_t blocks = score.size();
  std::vector<uint32_t> order(blocks);
  for (uint32_t b = 0; b < blocks; ++b) order[b] = b;
  const size_t kept = std::min(max_blocks, blocks);
  std::partial_sort(
      order.begin(), order.begin() + static_cast<ptrdiff_t>(kept), order.end(),
      [&](uint32_t a, uint32_t b) { return score[a] != score[b] ? score[a] > score[b] : a < b; });
  std::vector<ScanResult::BlockScore> best;
  for (size_t i = 0; i < kept; ++i) {
    const auto s =
        static_cast<size_t>(std::upper_bound(first_block.begin(), first_block.end(), order[i]) -
                            first_block.begin() - 1);
    const auto block =
        static_cast<uint32_t>(segments[s]->block_begin + (order[i] - first_block[s]));
    best.push_back(
        {.block = {.document = segments[s]->document, .block = block}, .score = score[order[i]]});
  }
  return best;
}

}  // namespace

ScanResult ScanIndex::Query(const ScanQuery& query, size_t max_blocks,
                            const ParallelFor& parallel) const {
  const QuantisedRows rows(query);
  ScanResult result;
  for (const float weight : query.row_weight) result.weight_sum += weight;
  result.row_lse.assign(query.rows, -std::numeric_limits<double>::infinity());
  if (segments_.empty() || query.rows == 0) return result;
  LH_CHECK(query.head < segments_[0]->heads && query.head_dim == segments_[0]->head_dim);

  std::vector<size_t> first_block;  // [segments] first block, numbered over all segments
  size_t blocks = 0;
  for (const auto& segment : segments_) {
    first_block.push_back(blocks);
    blocks += segment->block_count;
  }
  const auto tile = static_cast<uint32_t>(
      std::min<uint64_t>(query.rows, std::max<uint64_t>(kTileRowsMin, kCellsMax / blocks)));
  // [blocks, tile], defined below.
  const auto mass = std::make_unique_for_overwrite<float[]>(blocks * tile);
  std::vector<float> segment_max(segments_.size() * tile);  // [segments, tile]
  std::vector<double> segment_sum(segments_.size() * tile);
  std::vector<float> sink_logit(segments_.size() * tile, -std::numeric_limits<float>::infinity());
  std::vector<double> score(blocks);

  for (uint32_t row = 0; row < query.rows; row += tile) {
    const uint32_t count = std::min(tile, query.rows - row);
    // mass[b, r] = sum over the block's tokens of exp(logit - segment_max[its segment, r])
    parallel(segments_.size(), [&](size_t s) {
      ScanCall call =
          CallOf(*segments_[s], query.head, 0, segments_[s]->block_count, rows, row, count);
      std::vector<float> block_max(call.block_count * count);
      call.block_max = block_max.data();
      call.block_sum = mass.get() + first_block[s] * count;
      Kernels().scan(call);
      if (segments_[s]->block_begin == 0) {
        SetSinkApart(*segments_[s], query.head, rows, row, count, &call,
                     sink_logit.data() + s * tile);
      }
      Rebase(call, segment_max.data() + s * tile, segment_sum.data() + s * tile);
    });
    for (uint32_t r = 0; r < count; ++r) {
      double max = -std::numeric_limits<double>::infinity();
      for (size_t s = 0; s < segments_.size(); ++s)
        max = std::max<double>(max, segment_max[s * tile + r]);
      size_t sinks = 0;
      for (size_t s = 0; s < segments_.size(); ++s) {
        max = std::max<double>(max, sink_logit[s * tile + r]);
        sinks += segments_[s]->block_begin == 0;
      }
      double sum = 0, sink_sum = 0;
      for (size_t s = 0; s < segments_.size(); ++s) {
        sum += segment_sum[s * tile + r] * std::exp(segment_max[s * tile + r] - max);
        sink_sum += std::exp(sink_logit[s * tile + r] - max);
      }
      // A memory of a thousand documents has a thousand sinks, but a head needs only one: take
      // their mean.
      if (sinks > 0) sink_sum /= static_cast<double>(sinks);
      result.row_lse[row + r] = max + std::log(sum + sink_sum);
      result.sink_score += query.row_weight[row + r] * sink_sum / (sum + sink_sum);
    }
    parallel(segments_.size(), [&](size_t s) {
      // Converts mass[b, r] to a weighted share of the row's softmax.
      std::vector<float> factor(count);
      for (uint32_t r = 0; r < count; ++r) {
        factor[r] =
            query.row_weight[row + r] *
            static_cast<float>(std::exp(segment_max[s * tile + r] - result.row_lse[row + r]));
      }
      for (size_t b = first_block[s]; b < first_block[s] + segments_[s]->block_count; ++b) {
        double sum = 0;
        for (uint32_t r = 0; r < count; ++r) sum += double{factor[r]} * mass[b * count + r];
        score[b] += sum;
      }
    });
  }

  result.blocks = BestBlocks(segments_, first_block, score, max_blocks);
  return result;
}

std::vector<float> ScanIndex::TokenMass(const ScanQuery& query, const ScanResult& result,
                                        const BlockKey& block) const {
  LH_CHECK(result.row_lse.size() == query.rows);
  const auto after = std::upper_bound(
      segments_.begin(), segments_.end(), block, [](const BlockKey& k, const auto& s) {
        return k < BlockKey{.document = s->document, .block = s->block_begin};
      });
  if (after == segments_.begin()) return {};
  const ScanSegment& segment = **std::prev(after);
  if (segment.document != block.document ||
      block.block - segment.block_begin >= segment.block_count)
    return {};
  LH_CHECK(query.head < segment.heads && query.head_dim == segment.head_dim);

  const uint32_t at = block.block - segment.block_begin;
  const QuantisedRows rows(query);
  std::vector<float> logits(size_t{kBlockTokens} * query.rows);  // [64, rows]
  Kernels().scan_logits(CallOf(segment, query.head, at, 1, rows, 0, query.rows), logits.data());
  std::vector<float> mass(segment.counts[at]);
  for (size_t t = block.block == 0 ? 1 : 0; t < mass.size(); ++t) {
    double sum = 0;
    for (uint32_t r = 0; r < query.rows; ++r) {
      sum += double{query.row_weight[r]} * std::exp(logits[t * query.rows + r] - result.row_lse[r]);
    }
    mass[t] = static_cast<float>(sum);
  }
  return mass;
}

}  // namespace longhold
