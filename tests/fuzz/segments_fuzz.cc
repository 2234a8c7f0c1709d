// Index segments from hostile bytes. The first byte selects the kind; the rest is a segment whose
// checksum is made valid. A decoded segment must be safe to use: it is encoded to the same bytes
// again, added to an index next to a segment made here, and queried.
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "attention/geometry.h"
#include "memory/index/ivf_index.h"
#include "memory/index/lexical_index.h"
#include "memory/index/scan_index.h"
#include "memory/index/summaries.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/fuzz/mend.h"

namespace longhold {
namespace {

ScanQuery QueryOf(const ScanSegment& segment, uint32_t head) {
  ScanQuery query{.head = head,
                  .rows = 2,
                  .head_dim = segment.head_dim,
                  .scale = 0.5f,
                  .q = {},
                  .row_weight = {1, 0.5f}};
  for (uint32_t i = 0; i < query.rows * query.head_dim; ++i)
    query.q.push_back(std::sin(static_cast<float>(i)));
  return query;
}

void AskAll(const RelevanceIndex& index, const ScanSegment& segment) {
  for (const uint32_t head : {0u, segment.heads - 1}) {
    const ScanQuery query = QueryOf(segment, head);
    const ScanResult result = index.Query(query, 4, SerialFor);
    for (const auto& b : result.blocks) {
      LH_CHECK(index.TokenMass(query, result, b.block).size() <= kBlockTokens);
    }
  }
}

void UseScan(const std::string& bytes) {
  Result<ScanSegment> decoded = ScanSegment::Decode(bytes);
  ExpectRefusal(decoded);
  if (!decoded.ok()) return;
  LH_CHECK(decoded->Encode() == bytes);
  const auto segment = std::make_shared<const ScanSegment>(std::move(*decoded));
  IvfIndex index;
  LH_CHECK(index.Add(segment).ok());
  const std::vector<float> key(segment->head_dim, 1.0f);
  const uint32_t behind = segment->block_begin + segment->block_count;
  if (behind < UINT32_MAX - 2) {
    const auto next = std::make_shared<const ScanSegment>(
        ScanSegment::Build(segment->document, behind, 65, segment->heads, segment->head_dim,
                           [&](uint32_t, uint64_t) { return key.data(); }));
    (void)index.Add(next);
  }
  AskAll(index, *segment);
  index.Remove(segment->document);
  LH_CHECK(index.token_count() == 0);
}

void UseLexical(const std::string& bytes) {
  Result<LexicalSegment> decoded = LexicalSegment::Decode(bytes);
  ExpectRefusal(decoded);
  if (!decoded.ok()) return;
  LH_CHECK(decoded->Encode() == bytes);
  const auto segment = std::make_shared<const LexicalSegment>(std::move(*decoded));
  LexicalIndex index;
  LH_CHECK(index.Add(segment).ok());
  // A neighbour segment that holds the segment's last word in full. The query has words of both.
  LexicalSegment next{
      .document = segment->document,
      .token_begin = (segment->token_end() + kBlockTokens - 1) / kBlockTokens * kBlockTokens,
      .token_count = 3,
      .continues = true,
      .words = {7 << 6, 8 << 6},
      .begins = {0, 1},
      .lengths = {1, 2}};
  (void)index.Add(std::make_shared<const LexicalSegment>(next));
  std::vector<LexicalWord> query = {{.id = 7 << 6, .begin = 0, .end = 1},
                                    {.id = 8 << 6, .begin = 1, .end = 2}};
  for (size_t w = 0; w < segment->words.size() && w < 6; ++w) {
    const auto at = static_cast<uint32_t>(2 + w);
    query.push_back({.id = segment->words[w], .begin = at, .end = at + 1});
  }
  const std::vector<ExpansionWord> expansion = {
      {.stem = query.back().Stem() ^ 1, .of = query.back().Stem(), .token = 1, .weight = 0.5}};
  const LexicalResult result = index.Query(query, expansion, 8);
  for (const LexicalMatch& match : result.matches) LH_CHECK(match.span.begin <= match.span.end);
  (void)index.Places(
      std::vector<std::vector<LexicalWord>>{
          {query[0]}, {query.begin(), query.begin() + 2}, {query.back()}},
      4);
  index.Remove(segment->document);
  LH_CHECK(index.token_count() == 0);
}

void UseSummaries(const std::string& bytes) {
  const Result<SummarySegment> segment = SummarySegment::Decode(bytes);
  ExpectRefusal(segment);
  if (!segment.ok()) return;
  LH_CHECK(segment->Encode() == bytes);
  float mean[kMaxHeadDim];
  for (uint32_t block = 0; block < segment->block_count; ++block) {
    for (uint32_t slot = 0; slot < segment->layers; ++slot) {
      for (uint32_t head = 0; head < segment->kv_heads; ++head) {
        segment->Mean(block, slot, head, mean);
        for (uint32_t c = 0; c < segment->head_dim; ++c) LH_CHECK(std::isfinite(mean[c]));
      }
    }
  }
}

// Inverted lists over keys made here, of as many tokens as the lists state.
void UseLists(const std::string& bytes) {
  Result<IvfSegment> decoded = IvfSegment::Decode(bytes);
  ExpectRefusal(decoded);
  if (!decoded.ok()) return;
  LH_CHECK(decoded->Encode() == bytes);
  if (decoded->tokens > kScanSegmentBlocksMax * kBlockTokens) return;
  std::vector<float> key(decoded->head_dim);
  const auto keys = std::make_shared<const ScanSegment>(ScanSegment::Build(
      decoded->document, 0, decoded->tokens, 1, decoded->head_dim, [&](uint32_t, uint64_t token) {
        for (size_t c = 0; c < key.size(); ++c)
          key[c] = std::sin(static_cast<float>(token * 31 + c));
        return key.data();
      }));
  IvfIndex index({.share = 0.3, .sample_tokens = 64});
  LH_CHECK(index.Add(keys).ok());
  // So that the index accepts the lists as made from these keys.
  const Result<IvfSegment> own = BuildIvfSegment(std::vector{keys}, 0, SerialFor);
  if (own.ok()) decoded->keys_hash = own->keys_hash;
  if (index.AddLists({*decoded}).ok()) AskAll(index, *keys);
}

void Run(FuzzBytes input) {
  const auto kind = input.Take<uint8_t>();
  std::string bytes(input.rest());
  (void)ScanSegment::Decode(bytes);
  MendTail(&bytes);
  switch (kind % 4) {
    case 0: return UseScan(bytes);
    case 1: return UseLexical(bytes);
    case 2: return UseSummaries(bytes);
    default: return UseLists(bytes);
  }
}

}  // namespace
}  // namespace longhold

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  longhold::Run({data, size});
  return 0;
}
