// Compares inverted lists (IvfIndex) with the exact scan: time, bytes, agreement, and the ranks of
// planted needles.
//
//   relevance_bench GGUF MEMORY QUESTIONS HEAD TOKENS [SHARE [SAMPLES [KIND]]]
//
// MEMORY is the directory of a store (HOME/memories/NAME). QUESTIONS is a file with a question in
// the second tab-separated column of each line. HEAD is an index into the memory's recall heads, or
// "plan". With "plan" the program compares PlanRecall on the memory by exact scan and by inverted
// lists, which it builds for this run at any size. Every question goes through the model, so the
// queries are those of real recall heads.
//
// TOKENS 0 uses the memory's own keys. Otherwise it generates a memory of that many similar keys:
// random blocks of the real memory, each key moved by a quarter of the standard deviation of its
// channels. The evidence blocks of a question, which are the first eight of the exact scan of the
// real keys, are not drawn. The first of them is planted once, as the needle. Eight of its keys are
// moved so that each raises the logit of one row of the question by 8 nats.
//
// KIND sq8, sq4 or fp16 measures faiss::IndexIVFScalarQuantizer instead, with the same number of
// lists and 16 probes, searching for 1,024 keys per row.
#include <faiss/IndexFlat.h>
#include <faiss/IndexScalarQuantizer.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "memory/attend/working_set.h"
#include "memory/core/memory.h"
#include "memory/index/ivf_index.h"
#include "memory/recall/prompt.h"
#include "model/llama_host.h"
#include "store/rocks_store.h"
#include "tests/support/fused_plan.h"
#include "tests/support/two_threads.h"

using namespace longhold;

extern "C" void omp_set_num_threads(int);

namespace {

using Clock = std::chrono::steady_clock;
double Ms(Clock::time_point since) {
  return std::chrono::duration<double, std::milli>(Clock::now() - since).count();
}

template <typename T>
T Must(Result<T> result) {
  if (result.ok()) return std::move(*result);
  std::fprintf(stderr, "relevance_bench: %s\n", result.status().message().c_str());
  std::exit(1);
}
void Must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "relevance_bench: %s\n", status.message().c_str());
  std::exit(1);
}

double Median(std::vector<double> v, double at = 0.5) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : v[static_cast<size_t>(at * static_cast<double>(v.size() - 1))];
}

// The questions of a file, which are in the second tab-separated column.
std::vector<std::string> Questions(const char* path) {
  std::vector<std::string> all;
  std::ifstream lines(path);
  for (std::string line; std::getline(lines, line);) {
    const size_t tab = line.find('\t');
    if (line.empty() || line[0] == '#' || tab == std::string::npos) continue;
    all.push_back(line.substr(tab + 1, line.find('\t', tab + 1) - tab - 1));
  }
  return all;
}

// The query of recall head `head` for each question.
std::vector<ScanQuery> Queries(LanguageModel& model, const Memory& memory, const char* questions,
                               uint32_t head) {
  std::vector<ScanQuery> queries;
  const Manifest& m = memory.manifest();
  const std::vector<RecallHead> heads = {
      {.layer = m.scan_layers[head], .kv_head = m.scan_kv_heads[head]}};
  for (const std::string& question : Questions(questions)) {
    WorkingSet set(model.info().geometry, 2048);
    queries.push_back(std::move(
        Must(ProbeQueries(model, set, Must(BuildPrompt(model, question, {})), heads))[0]));
  }
  return queries;
}

// The keys of one head, [tokens, head_dim].
std::vector<float> Keys(std::span<const std::shared_ptr<const ScanSegment>> segments,
                        uint32_t head) {
  std::vector<float> keys;
  for (const auto& s : segments) {
    const uint32_t d = s->head_dim;
    for (uint64_t t = 0; t < s->token_count(); ++t) {
      const uint8_t* block = s->keys[head].data() + t / kBlockTokens * kBlockTokens * d;
      for (uint32_t c = 0; c < d; ++c) {
        const int byte = block[(size_t{c / 4} * kBlockTokens + t % kBlockTokens) * 4 + c % 4];
        keys.push_back(s->scales[head][t] * static_cast<float>(byte - 128));
      }
    }
  }
  return keys;
}

constexpr DocumentId kDocument{1};

// Generates a memory of `tokens` keys and passes it to `add` segment by segment. row(t, out) writes
// key t.
template <typename Row, typename Add>
void Segments(uint64_t tokens, uint32_t d, Row row, Add add) {
  std::vector<float> key(d);
  for (uint64_t begin = 0; begin < tokens; begin += kCommitTokens) {
    const uint64_t count = std::min<uint64_t>(kCommitTokens, tokens - begin);
    add(std::make_shared<const ScanSegment>(
        ScanSegment::Build(kDocument, static_cast<uint32_t>(begin / kBlockTokens), count, 1, d,
                           [&](uint32_t, uint64_t t) {
                             row(begin + t, key.data());
                             return key.data();
                           })));
  }
}

struct Needles {
  std::vector<uint32_t> source;  // [questions] block of the real memory
  std::vector<uint32_t> place;   // [questions] block of the large one
  const std::vector<ScanQuery>* queries;

  // Moves key `t` of the needle of question i.
  void Sharpen(size_t i, uint64_t t, float* key) const {
    const ScanQuery& q = (*queries)[i];
    if (t % 8 != 4) return;
    const float* row = q.q.data() + (t / 8 * 5 % q.rows) * q.head_dim;
    float length = 0;
    for (uint32_t c = 0; c < q.head_dim; ++c) length += row[c] * row[c];
    for (uint32_t c = 0; c < q.head_dim; ++c) key[c] += 8 * row[c] / (length * q.scale);
  }
};

// Generates a large memory that resembles the real one, as described at the top of this file.
void AddLikeReal(const std::vector<float>& real, uint32_t d, uint64_t tokens,
                 const std::set<uint32_t>& held_out, const Needles& needles, IvfIndex* index) {
  std::mt19937 rng(1);
  const auto real_blocks = static_cast<uint32_t>(real.size() / d / kBlockTokens);
  std::vector<double> sum(d), square(d);
  for (size_t i = 0; i < real.size(); ++i) {
    sum[i % d] += real[i];
    square[i % d] += double{real[i]} * real[i];
  }
  const double n = static_cast<double>(real.size() / d);
  std::vector<float> step(d);
  for (uint32_t c = 0; c < d; ++c)
    step[c] = static_cast<float>(0.25 * std::sqrt(square[c] / n - sum[c] / n * sum[c] / n));
  std::vector<float> noise(1 << 20);
  std::normal_distribution<float> normal;
  for (float& x : noise) x = normal(rng);
  uint32_t source = 0;
  bool planted = false;
  size_t needle = 0;
  Segments(
      tokens, d,
      [&](uint64_t t, float* key) {
        if (t % kBlockTokens == 0) {
          const auto at = std::find(needles.place.begin(), needles.place.end(),
                                    static_cast<uint32_t>(t / kBlockTokens));
          planted = at != needles.place.end();
          needle = static_cast<size_t>(at - needles.place.begin());
          if (planted)
            source = needles.source[needle];
          else
            do source = static_cast<uint32_t>(rng() % real_blocks);
            while (held_out.contains(source));
          if (t == 0) source = 0;  // block 0 holds the sinks
        }
        const float* from = real.data() + (size_t{source} * kBlockTokens + t % kBlockTokens) * d;
        const float* moved = noise.data() + rng() % (noise.size() - d);
        for (uint32_t c = 0; c < d; ++c)
          key[c] = from[c] + (planted || t == 0 ? 0 : step[c] * moved[c]);
        if (planted) needles.Sharpen(needle, t % kBlockTokens, key);
      },
      [&](std::shared_ptr<const ScanSegment> s) { Must(index->Add(std::move(s))); });
}

// Joins real questions into queries of `rows` rows, to time long questions.
std::vector<ScanQuery> Joined(const std::vector<ScanQuery>& queries, uint32_t rows) {
  std::vector<ScanQuery> out;
  ScanQuery next{.head = 0, .head_dim = queries[0].head_dim, .scale = queries[0].scale};
  for (const ScanQuery& q : queries) {
    for (uint32_t r = 0; r < q.rows; ++r) {
      next.q.insert(next.q.end(), q.q.begin() + r * q.head_dim, q.q.begin() + (r + 1) * q.head_dim);
      next.row_weight.push_back(1);
      if (++next.rows < rows) continue;
      out.push_back(next);
      next.q.clear(), next.row_weight.clear(), next.rows = 0;
    }
  }
  return out;
}

std::string Time(const RelevanceIndex& index, const std::vector<ScanQuery>& queries) {
  std::vector<double> ms;
  for (size_t i = 0; i < std::min<size_t>(queries.size(), 9); ++i) {
    const Clock::time_point start = Clock::now();
    (void)index.Query(queries[i], 128, TwoThreads);
    ms.push_back(Ms(start));
  }
  char text[64];
  std::snprintf(text, sizeof text, "%.1f ms (%.1f to %.1f)", Median(ms), Median(ms, 0),
                Median(ms, 1));
  return text;
}

struct Hits {
  int first = 0, four = 0, eight = 0;
  void Count(const ScanResult& result, uint32_t block) {
    for (size_t i = 0; i < std::min<size_t>(8, result.blocks.size()); ++i) {
      if (result.blocks[i].block.block != block) continue;
      first += i < 1, four += i < 4, ++eight;
    }
  }
};

void Compare(const ScanIndex& exact, const IvfIndex& lists, const std::vector<ScanQuery>& queries,
             const Needles& needles) {
  std::vector<double> error, bias;
  double shared = 0;
  int same_first = 0, of = 0;
  Hits exact_hits, list_hits;
  for (size_t i = 0; i < queries.size(); ++i) {
    const ScanResult a = exact.Query(queries[i], 128, TwoThreads),
                     b = lists.Query(queries[i], 128, TwoThreads);
    for (uint32_t r = 0; r < queries[i].rows; ++r) {
      bias.push_back(b.row_lse[r] - a.row_lse[r]);
      error.push_back(std::abs(bias.back()));
    }
    std::set<BlockKey> first;
    for (size_t k = 0; k < std::min<size_t>(8, a.blocks.size()); ++k)
      first.insert(a.blocks[k].block);
    for (size_t k = 0; k < std::min<size_t>(8, b.blocks.size()); ++k)
      shared += first.contains(b.blocks[k].block);
    of += static_cast<int>(first.size());
    same_first += !a.blocks.empty() && !b.blocks.empty() && a.blocks[0].block == b.blocks[0].block;
    if (needles.place.empty()) continue;
    exact_hits.Count(a, needles.place[i]);
    list_hits.Count(b, needles.place[i]);
  }
  double mean = 0;
  for (const double x : bias) mean += x / static_cast<double>(bias.size());
  std::printf("  first eight blocks shared %.2f %%, same first block %d of %zu\n",
              100 * shared / of, same_first, queries.size());
  std::printf("  row_lse off by %.4f (median) %.4f (99 %%) %.3f (max), mean %+.4f\n", Median(error),
              Median(error, 0.99), Median(error, 1), mean);
  if (!needles.place.empty()) {
    std::printf("  needles at 1 / 4 / 8: exact %d / %d / %d, lists %d / %d / %d of %zu\n",
                exact_hits.first, exact_hits.four, exact_hits.eight, list_hits.first,
                list_hits.four, list_hits.eight, queries.size());
  }
  std::fflush(stdout);
}

// Measures FAISS's own scanner with the same number of lists, on two OpenMP threads.
void CompareIvf(const IvfIndex& index, uint32_t d, uint32_t lists, uint32_t probes,
                const std::string& kind, const std::vector<ScanQuery>& queries) {
  omp_set_num_threads(2);
  faiss::IndexFlatIP coarse(d);
  const auto type = kind == "sq8"   ? faiss::ScalarQuantizer::QT_8bit
                    : kind == "sq4" ? faiss::ScalarQuantizer::QT_4bit
                                    : faiss::ScalarQuantizer::QT_fp16;
  faiss::IndexIVFScalarQuantizer ivf(&coarse, d, lists, type, faiss::METRIC_INNER_PRODUCT,
                                     /*by_residual=*/false);
  ivf.cp.niter = 8;
  ivf.cp.max_points_per_centroid = 64;
  ivf.nprobe = probes;
  Clock::time_point start = Clock::now();
  const std::vector<float> keys = Keys(index.Segments(kDocument), 0);
  const auto n = static_cast<faiss::Index::idx_t>(keys.size() / d);
  ivf.train(n, keys.data());
  ivf.add(n, keys.data());
  std::printf("  faiss %s: built in %.1f s, %zu bytes per key\n", kind.c_str(), Ms(start) / 1000,
              ivf.code_size + 8);
  constexpr int kTop = 1024;
  std::vector<double> ms;
  for (size_t i = 0; i < std::min<size_t>(queries.size(), 5); ++i) {
    std::vector<float> distances(size_t{queries[i].rows} * kTop);
    std::vector<faiss::Index::idx_t> labels(distances.size());
    start = Clock::now();
    ivf.search(queries[i].rows, queries[i].q.data(), kTop, distances.data(), labels.data());
    ms.push_back(Ms(start));
  }
  std::printf("  faiss %s: search of %u rows %.1f ms (%.1f to %.1f), without scoring blocks\n",
              kind.c_str(), queries[0].rows, Median(ms), Median(ms, 0), Median(ms, 1));
}

// The query of each question: its words, and its rows at every head.
std::vector<HandQuery> RecallQueries(LanguageModel& model, const Memory& memory,
                                     const char* questions) {
  const LexicalVocabulary vocabulary(TokenPieces(model));
  std::vector<HandQuery> all;
  for (uint32_t h = 0; h < memory.manifest().scan_layers.size(); ++h) {
    std::vector<ScanQuery> of_head = Queries(model, memory, questions, h);
    all.resize(of_head.size());
    for (size_t i = 0; i < all.size(); ++i) {
      of_head[i].head = h;
      all[i].heads.push_back(std::move(of_head[i]));
    }
  }
  const std::vector<std::string> asked = Questions(questions);
  for (size_t i = 0; i < all.size(); ++i)
    all[i].words = vocabulary.Words(Must(model.Tokenize(asked[i], false)));
  return all;
}

// Compares the plans from the exact scan with those from inverted lists: with the profile's
// weights, and with the heads only.
void ComparePlans(LanguageModel& model, Memory& exact, Memory& lists, const char* questions,
                  IvfSearch search) {
  const std::vector<HandQuery> queries = RecallQueries(model, exact, questions);
  RecallProfile profile = RecallProfile::For(model.info());
  std::printf("%llu keys, %zu heads, share %.3f, %u samples, %zu questions\n",
              static_cast<unsigned long long>(exact.committed_tokens()),
              exact.manifest().scan_layers.size(), search.share, search.sample_tokens,
              queries.size());
  for (const bool words : {true, false}) {
    if (!words) profile.signals[std::string(kWordSignal)] = 0;
    size_t same = 0, same_order = 0, same_first = 0, shared = 0, of = 0;
    std::vector<double> exact_ms, lists_ms;
    for (const HandQuery& query : queries) {
      Clock::time_point start = Clock::now();
      const RecallPlan a = Must(FusedPlan(exact, model, profile, query, 8));
      exact_ms.push_back(Ms(start));
      start = Clock::now();
      const RecallPlan b = Must(FusedPlan(lists, model, profile, query, 8));
      lists_ms.push_back(Ms(start));
      using Place = std::tuple<DocumentId, uint64_t, uint64_t>;
      const auto places = [](const RecallPlan& plan) {
        std::vector<Place> all;
        for (const PlannedSpan& s : plan.spans)
          all.emplace_back(s.document, s.tokens.begin, s.tokens.end);
        return all;
      };
      const std::vector<Place> of_a = places(a), of_b = places(b);
      const std::set<Place> set_a(of_a.begin(), of_a.end()), set_b(of_b.begin(), of_b.end());
      same += set_a == set_b;
      same_order += of_a == of_b;
      same_first += of_a.empty() == of_b.empty() && (of_a.empty() || of_a[0] == of_b[0]);
      of += set_a.size();
      for (const Place& p : set_b) shared += set_a.contains(p);
    }
    std::printf(
        "  %s: first eight spans equal for %zu questions, in equal order for %zu, first span equal "
        "for %zu; %zu of %zu spans shared; "
        "exact %.1f ms, lists %.1f ms\n",
        words ? "heads and words" : "heads only", same, same_order, same_first, shared, of,
        Median(exact_ms), Median(lists_ms));
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fprintf(
        stderr,
        "usage: relevance_bench GGUF MEMORY QUESTIONS HEAD TOKENS [SHARE [SAMPLES [KIND]]]\n");
    return 2;
  }
  LlamaOptions llama;
  llama.path = argv[1];
  const std::unique_ptr<LanguageModel> model = Must(LoadLlama(llama));
  RocksOptions rocks;
  rocks.path = argv[2];
  rocks.read_only = true;
  const auto open = [&] {
    return Must(Memory::Open(Must(OpenRocksStore(rocks)), "bench", &model->info()));
  };
  const std::unique_ptr<Memory> memory = open();
  memory->UseLists({.memory_tokens_min = UINT64_MAX});
  Must(memory->LoadIndexes());
  const auto head = static_cast<uint32_t>(std::strtoul(argv[4], nullptr, 10));
  const uint64_t tokens = std::strtoull(argv[5], nullptr, 10);
  IvfSearch search;
  if (argc > 6) search.share = std::strtod(argv[6], nullptr);
  if (argc > 7) search.sample_tokens = static_cast<uint32_t>(std::strtoul(argv[7], nullptr, 10));

  if (std::string(argv[4]) == "plan") {
    const std::unique_ptr<Memory> with_lists = open();
    with_lists->UseLists({.memory_tokens_min = 0, .document_tokens_min = 1}, search);
    Must(with_lists->BuildLists(TwoThreads));
    ComparePlans(*model, *memory, *with_lists, argv[3], search);
    return 0;
  }
  const std::vector<ScanQuery> queries = Queries(*model, *memory, argv[3], head);
  const std::vector<float> real = Keys(memory->ScanSegments(memory->documents()[0].id), head);
  const uint32_t d = queries[0].head_dim;
  IvfIndex index(search);
  Needles needles;
  needles.queries = &queries;
  Segments(
      real.size() / d, d, [&](uint64_t t, float* key) { std::copy_n(real.data() + t * d, d, key); },
      [&](std::shared_ptr<const ScanSegment> s) { Must(index.Add(std::move(s))); });
  if (tokens > 0) {
    std::set<uint32_t> held_out = {0, static_cast<uint32_t>(real.size() / d / kBlockTokens)};
    for (size_t i = 0; i < queries.size(); ++i) {
      const ScanResult result = index.exact().Query(queries[i], 8, TwoThreads);
      for (const auto& b : result.blocks) held_out.insert(b.block.block);
      const auto place =
          static_cast<uint32_t>((i + 1) * (tokens / kBlockTokens) / (queries.size() + 1));
      // The last block of the real memory may be incomplete, and the first holds the sinks.
      size_t k = 0;
      const auto whole = [&](uint32_t block) {
        return block > 0 && (block + 1) * uint64_t{kBlockTokens} * d <= real.size();
      };
      while (k + 1 < result.blocks.size() && !whole(result.blocks[k].block.block)) ++k;
      needles.source.push_back(result.blocks[k].block.block);
      needles.place.push_back(place);
    }
    index = IvfIndex(search);
    AddLikeReal(real, d, tokens, held_out, needles, &index);
  }
  std::printf("%llu keys of %u, head %u, %zu questions, share %.3f, %u samples\n",
              static_cast<unsigned long long>(index.token_count()), d, head, queries.size(),
              search.share, search.sample_tokens);

  Clock::time_point start = Clock::now();
  std::vector<IvfSegment> lists;
  lists.push_back(Must(BuildIvfSegment(index.Segments(kDocument), 0, TwoThreads)));
  std::printf("  %u lists built in %.1f s; ", lists[0].lists(), Ms(start) / 1000);
  const std::string bytes = lists[0].Encode();
  start = Clock::now();
  lists[0] = Must(IvfSegment::Decode(bytes));
  Must(index.AddLists(lists));
  std::printf("stored as %.2f bytes per key, loaded in %.2f s\n",
              static_cast<double>(bytes.size()) / static_cast<double>(index.token_count()),
              Ms(start) / 1000);
  std::fflush(stdout);

  const std::vector<ScanQuery> long_queries = Joined(queries, 90);
  if (argc > 8) {
    CompareIvf(index, d, lists[0].lists(), 16, argv[8], long_queries);
    return 0;
  }
  (void)index.exact().Query(long_queries[0], 128, TwoThreads);
  std::printf("  90 rows: exact %s, lists %s\n", Time(index.exact(), long_queries).c_str(),
              Time(index, long_queries).c_str());
  Compare(index.exact(), index, queries, needles);
}
