// Retrieve and Fuse on memories with hand-made indexes. No model runs, so the place of the evidence
// is known.
//
// What must hold: a needle lies whole inside one span, wherever it is relative to block edges (all
// 64 offsets). This holds if it is found by words alone, by heads alone, or by both. Whatever the
// indexes return, spans never overlap, are at most as many as requested, lie in committed text, and
// are ordered by score. Random memories draw keys from a normal distribution scaled by 0 to 6: from
// heads that attend everywhere to heads that attend to one token. Sizes: tokens are nearly bytes
// here, so texts of 3,000 to 9,000 bytes make one to three index segments.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "memory/ingest/ingest.h"
#include "store/mem_store.h"
#include "tests/support/fused_plan.h"
#include "tests/support/stores.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

constexpr uint32_t kDim = 8;
constexpr char kNeedle[] = " The secret number of Methuselah is 7350194. ";
constexpr char kQuestion[] = "What is the secret number of Methuselah?";

RecallProfile Profile(uint32_t heads) {
  RecallProfile p;
  p.name = "by-hand";
  if (heads > 0) p.heads.push_back({.layer = 1, .kv_head = 0});
  if (heads > 1) p.heads.push_back({.layer = 3, .kv_head = 1, .weight = 0.5});
  return p;
}

using KeyOf = std::function<std::vector<float>(uint32_t head, uint64_t token)>;

// A memory whose documents have real text and recall-head keys set by the test.
struct HandMade {
  ToyModel model;
  RecallProfile profile;
  std::unique_ptr<ColdStore> store = NewMemStore();
  std::unique_ptr<Memory> memory;
  LexicalVocabulary vocabulary{model.pieces()};

  explicit HandMade(uint32_t heads) : profile(Profile(heads)) {
    memory = std::move(Memory::Create(Borrow(*store), "tales", model.info(), profile)).value();
  }
  // Commits the first `committed` tokens (all when 0).
  DocumentId Add(const std::string& name, const std::string& text, const KeyOf& key,
                 uint64_t committed = 0) {
    const std::vector<TextChunk> chunks = *TokenizeText(model, text);
    DocumentRecord record;
    record.name = name;
    record.bytes = text.size();
    record.tokens = chunks.back().token_begin + chunks.back().tokens.size();
    const DocumentId id = *memory->AddDocument(record, chunks);
    const uint64_t limit = committed == 0 ? record.tokens : committed;
    for (uint64_t begin = 0; begin < limit; begin += kCommitTokens) {
      const uint64_t end = std::min(limit, begin + kCommitTokens);
      std::shared_ptr<const ScanSegment> scan;
      if (!profile.heads.empty()) {
        std::vector<float> row;
        scan = std::make_shared<const ScanSegment>(ScanSegment::Build(
            id, static_cast<uint32_t>(begin / kBlockTokens), end - begin,
            static_cast<uint32_t>(profile.heads.size()), kDim, [&](uint32_t head, uint64_t token) {
              row = key(head, begin + token);
              return row.data();
            }));
      }
      const std::vector<TokenId> before =
          *memory->Tokens(id, {begin - std::min<uint64_t>(begin, 16), begin});
      auto lexical = std::make_shared<const LexicalSegment>(
          LexicalSegment::Build(vocabulary, id, begin, before, *memory->Tokens(id, {begin, end})));
      const Status status =
          memory->Commit(id, end, {.text = {.lexical = lexical}, .scan = scan}, nullptr, nullptr);
      EXPECT_TRUE(status.ok()) << status.ToString();
    }
    return id;
  }
  RecallPlan Plan(const HandQuery& query, uint32_t spans_max = 8) {
    EXPECT_TRUE(memory->LoadIndexes().ok());
    Result<RecallPlan> plan = FusedPlan(*memory, model, profile, query, spans_max);
    EXPECT_TRUE(plan.ok()) << plan.status().ToString();
    return plan.ok() ? std::move(*plan) : RecallPlan{};
  }
  std::vector<LexicalWord> Words(const std::string& question) {
    return vocabulary.Words(*model.Tokenize(question, false));
  }
};

// One query row per head along the first axis. Keys point along that axis with the strength that
// the test sets.
std::vector<ScanQuery> AxisQueries(uint32_t heads) {
  std::vector<ScanQuery> queries;
  for (uint32_t h = 0; h < heads; ++h) {
    ScanQuery q;
    q.head = h;
    q.rows = 1;
    q.head_dim = kDim;
    q.q.assign(kDim, 0.0f);
    q.q[0] = 1;
    q.row_weight = {1};
    queries.push_back(q);
  }
  return queries;
}

// Checks the rules that hold for all spans, whatever the question.
void ExpectValidSpans(const HandMade& h, const RecallPlan& plan, uint32_t spans_max) {
  EXPECT_LE(plan.spans.size(), spans_max);
  EXPECT_LE(plan.spans.size(), plan.candidates);
  EXPECT_GE(plan.Coverage(), 0.0);
  EXPECT_LE(plan.Coverage(), 1.0);
  EXPECT_FALSE(std::isnan(plan.Coverage()));
  for (size_t i = 0; i < plan.spans.size(); ++i) {
    const PlannedSpan& a = plan.spans[i];
    EXPECT_FALSE(a.tokens.empty());
    EXPECT_LE(a.tokens.size(), SpanTokensMax(h.profile));
    EXPECT_TRUE(a.tokens.Contains(a.peak)) << a.peak;
    EXPECT_LE(a.tokens.end, h.memory->Get(a.document).committed_tokens);
    EXPECT_GT(a.score, 0);
    EXPECT_LE(a.score, 1.0);
    for (size_t j = 0; j < i; ++j) {
      const PlannedSpan& b = plan.spans[j];
      EXPECT_FALSE(a.document == b.document && a.tokens.begin < b.tokens.end &&
                   b.tokens.begin < a.tokens.end)
          << a.tokens.begin << ".." << a.tokens.end << " overlaps " << b.tokens.begin << ".."
          << b.tokens.end;
    }
  }
  if (!plan.spans.empty()) {
    EXPECT_EQ(plan.spans[0].score, 1.0);
  }
}

// The tokens of bytes [begin, end) of a document.
TokenSpan TokensOf(Memory& memory, DocumentId id, ByteSpan bytes) {
  TokenSpan span;
  const uint64_t tokens = memory.Get(id).tokens;
  for (uint64_t t = 0; t < tokens; ++t) {
    const ByteSpan at = memory.Locate(id, {t, t + 1})->bytes;
    if (at.end <= bytes.begin) span.begin = t + 1;
    if (at.begin < bytes.end) span.end = t + 1;
  }
  return span;
}

// `lines`: with newlines nearby, to which spans grow; otherwise one endless line.
void ExpectNeedleIsWhole(uint32_t heads, bool words, bool lines) {
  for (size_t offset = 0; offset < 64; ++offset) {
    SCOPED_TRACE("offset " + std::to_string(offset) + ", heads " + std::to_string(heads) +
                 ", words " + std::to_string(words) + ", lines " + std::to_string(lines));
    HandMade h(heads);
    std::string text = PlainText(3000, 7);
    if (!lines) std::replace(text.begin(), text.end(), '\n', ' ');
    text.insert(1000 + offset, kNeedle);
    const ByteSpan bytes{1001 + offset, 1000 + offset + sizeof(kNeedle) - 2};
    TokenSpan needle;
    const DocumentId id = h.Add("tale", text, [&](uint32_t, uint64_t token) {
      if (needle.empty()) needle = TokensOf(*h.memory, DocumentId{1}, bytes);
      // The heads attend to the middle of the needle.
      return std::vector<float>{
          token == (needle.begin + needle.end) / 2 ? 12.0f : 0.0f, 0, 0, 0, 0, 0, 0, 0};
    });
    if (needle.empty()) needle = TokensOf(*h.memory, id, bytes);
    ASSERT_GE(needle.size(), 30u);
    HandQuery query;
    if (words) query.words = h.Words(kQuestion);
    query.heads = AxisQueries(heads);
    const RecallPlan plan = h.Plan(query);
    ExpectValidSpans(h, plan, 8);
    ASSERT_FALSE(plan.spans.empty());
    const TokenSpan& best = plan.spans[0].tokens;
    EXPECT_TRUE(best.begin <= needle.begin && needle.end <= best.end)
        << "needle " << needle.begin << ".." << needle.end << ", best span " << best.begin << ".."
        << best.end;
    EXPECT_NE(h.memory->Locate(id, best)->text.find("number of Methuselah is 7350194"),
              std::string::npos);
    if (heads > 0) {
      EXPECT_GT(plan.Coverage(), 0.9);
    } else {
      EXPECT_EQ(plan.Coverage(), 0.0);
    }
  }
}

TEST(Fuse, NeedleIsWholeAtEveryOffsetByWordsAlone) {
  ExpectNeedleIsWhole(0, true, true);
  ExpectNeedleIsWhole(0, true, false);
}
TEST(Fuse, NeedleIsWholeAtEveryOffsetByHeadsAlone) {
  ExpectNeedleIsWhole(1, false, true);
  ExpectNeedleIsWhole(2, false, false);
}
TEST(Fuse, NeedleIsWholeAtEveryOffsetByBoth) {
  ExpectNeedleIsWhole(2, true, true);
  ExpectNeedleIsWhole(1, true, false);
}

TEST(Fuse, NeedleAtTheVeryBeginningOrEndOfTheTextIsWhole) {
  for (const bool at_end : {false, true}) {
    HandMade h(0);
    std::string text = PlainText(2000, 3);
    std::replace(text.begin(), text.end(), '\n', ' ');
    const std::string needle(kNeedle + 1);
    text = at_end ? text + needle : needle + text;
    const DocumentId id = h.Add("tale", text, nullptr);
    const RecallPlan plan = h.Plan({h.Words(kQuestion), {}});
    ASSERT_FALSE(plan.spans.empty());
    EXPECT_NE(
        h.memory->Locate(id, plan.spans[0].tokens)->text.find(needle.substr(0, needle.size() - 1)),
        std::string::npos)
        << at_end;
  }
}

TEST(Fuse, EmptyMemoryAndEmptyQuestionGiveNoSpans) {
  for (const uint32_t heads : {0u, 2u}) {
    HandMade h(heads);
    RecallPlan plan = h.Plan({h.Words(kQuestion), AxisQueries(heads)});
    EXPECT_TRUE(plan.spans.empty());
    EXPECT_EQ(plan.candidates, 0u);
    EXPECT_EQ(plan.Coverage(), 0.0);
  }
  HandMade h(0);
  h.Add("tale", PlainText(2000, 1), nullptr);
  EXPECT_TRUE(h.Plan({}).spans.empty());
  EXPECT_TRUE(h.Plan({h.Words("Zyzzyva quokka"), {}}).spans.empty())
      << "words that the memory does not hold";
  EXPECT_TRUE(h.Plan({h.Words("the stone"), {}}, 0).spans.empty()) << "no spans asked for";
}

TEST(Fuse, AProfileWithZeroWeightsGivesFiniteScores) {
  HandMade h(2);
  h.Add("tale", PlainText(2000, 1), [](uint32_t, uint64_t token) {
    return std::vector<float>(kDim, token % 7 == 0 ? 1.0f : 0.0f);
  });
  h.profile.signals[std::string(kWordSignal)] = 0;
  h.profile.heads[0].weight = h.profile.heads[1].weight = 0;
  const RecallPlan plan = h.Plan({h.Words("stone river"), AxisQueries(2)});
  ExpectValidSpans(h, plan, 8);
  for (const PlannedSpan& s : plan.spans) EXPECT_TRUE(std::isfinite(s.score));
}

TEST(Fuse, SpansObeyTheirRulesWhateverTheIndexesReturn) {
  for (uint64_t seed = 1; seed <= 24; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 rng(seed);
    std::normal_distribution<float> normal;
    const auto heads = static_cast<uint32_t>(rng() % 3);
    HandMade h(heads);
    h.profile.span_score_min = seed % 3 == 0 ? 0 : 0.15;
    h.profile.span_tokens = seed % 2 == 0 ? 128 : 32 + static_cast<uint32_t>(rng() % 200);
    const float strength = static_cast<float>(rng() % 7);
    const size_t documents = 1 + rng() % 4;
    for (size_t d = 0; d < documents; ++d) {
      const size_t bytes = 100 + rng() % 9000;
      const std::string text =
          d % 2 == 0 ? PlainText(bytes, seed * 10 + d) : RandomText(bytes, seed * 10 + d);
      const uint64_t tokens = [&] {
        const std::vector<TextChunk> chunks = *TokenizeText(h.model, text);
        return chunks.back().token_begin + chunks.back().tokens.size();
      }();
      // Every third document is incomplete: its end is text but not committed.
      h.Add(
          "tale " + std::to_string(d), text,
          [&](uint32_t, uint64_t) {
            std::vector<float> key(kDim);
            for (float& x : key) x = strength * normal(rng);
            return key;
          },
          d == 2 && tokens > 640 ? 640 : 0);
    }
    for (int question = 0; question < 4; ++question) {
      HandQuery query;
      if (question != 1)
        query.words =
            h.Words(question == 2 ? "the camel and the elder by the well, number 7 stone tent"
                                  : "Which key is 日本 and the river?");
      for (uint32_t head = 0; head < heads; ++head) {
        ScanQuery q = AxisQueries(heads)[head];
        q.rows = 1 + static_cast<uint32_t>(rng() % 9);
        q.q.resize(q.rows * kDim);
        for (float& x : q.q) x = normal(rng);
        q.row_weight.assign(q.rows, 1.0f);
        query.heads.push_back(std::move(q));
      }
      for (const uint32_t spans_max : {1u, 3u, 8u, 64u})
        ExpectValidSpans(h, h.Plan(query, spans_max), spans_max);
    }
  }
}

TEST(Fuse, AnExpansionWordFindsASpanAndIsReportedAsTheReason) {
  HandMade made(0);
  std::string text;
  for (int i = 0; i < 40; ++i) text += "nothing of note happened on that day either. ";
  const DocumentId id = made.Add("a", text + "The physician left at noon. " + text, {});
  HandQuery query{.words = made.Words("Which doctor?"), .heads = {}, .expansion = {}};
  const auto holds = [&](const PlannedSpan& s) {
    const std::string recalled = made.memory->Locate(s.document, s.tokens)->text;
    return s.document == id && recalled.find("physician left at noon") != std::string::npos;
  };
  const RecallPlan without = made.Plan(query);
  EXPECT_TRUE(std::none_of(without.spans.begin(), without.spans.end(), holds));
  query.expansion = {{.stem = made.Words("physician")[0].Stem(),
                      .of = made.Words("doctor")[0].Stem(),
                      .weight = 0.7}};
  const RecallPlan plan = made.Plan(query);
  ASSERT_FALSE(plan.spans.empty());
  EXPECT_TRUE(holds(plan.spans[0]));
  EXPECT_GT(plan.spans[0].ScoreOf(kExpansionSignal), 0);
  EXPECT_EQ(plan.spans[0].ScoreOf(kWordSignal), 0)
      << "the span does not contain the question's own words";
}

TEST(Fuse, SpansComeFromAllDocuments) {
  HandMade h(0);
  for (int d = 0; d < 4; ++d) {
    std::string text = PlainText(1500, static_cast<uint64_t>(d));
    if (d != 1) text.insert(700, kNeedle);
    h.Add("tale " + std::to_string(d), text, nullptr);
  }
  const RecallPlan plan = h.Plan({h.Words(kQuestion), {}});
  ExpectValidSpans(h, plan, 8);
  std::vector<DocumentId> found;
  for (const PlannedSpan& s : plan.spans) {
    if (h.memory->Locate(s.document, s.tokens)->text.find("Methuselah") != std::string::npos)
      found.push_back(s.document);
  }
  EXPECT_THAT(found, testing::UnorderedElementsAre(DocumentId{1}, DocumentId{3}, DocumentId{4}));
}

TEST(Fuse, CoverageIsTheMassOfTheTokensInsideTheSpans) {
  std::mt19937_64 rng(11);
  std::normal_distribution<float> normal;
  HandMade h(2);
  h.Add("tale", PlainText(5000, 1), [&](uint32_t, uint64_t) {
    std::vector<float> key(kDim);
    for (float& x : key) x = 3 * normal(rng);
    return key;
  });
  const HandQuery query{{}, AxisQueries(2)};
  const RecallPlan plan = h.Plan(query);
  ASSERT_FALSE(plan.spans.empty());
  double expected = 0;
  for (const ScanQuery& q : query.heads) {
    const ScanResult scan = h.memory->scan().Query(q, 1000, SerialFor);
    for (const PlannedSpan& s : plan.spans) {
      for (uint64_t t = s.tokens.begin; t < s.tokens.end; ++t) {
        const std::vector<float> mass =
            h.memory->scan().TokenMass(q, scan, {s.document, static_cast<uint32_t>(t / 64)});
        // the mass of sink tokens does not count
        expected += mass[t % 64] / (scan.weight_sum - scan.sink_score) / 2;
      }
    }
  }
  EXPECT_NEAR(plan.Coverage(), expected, 1e-9);
  EXPECT_GT(plan.Coverage(), 0.0);
}

// A user's own profile may have other heads than those whose keys the memory holds.
TEST(Fuse, PlansWithAnotherProfileThanTheMemorys) {
  HandMade h(2);
  std::string text = PlainText(2000, 1);
  text.insert(900, kNeedle);
  const DocumentId id =
      h.Add("tale", text, [](uint32_t, uint64_t) { return std::vector<float>(kDim, 0.0f); });
  for (uint32_t heads : {0u, 1u}) {
    h.profile = Profile(heads);
    const RecallPlan plan = h.Plan({h.Words(kQuestion), AxisQueries(2)});
    ExpectValidSpans(h, plan, 8);
    ASSERT_FALSE(plan.spans.empty());
    EXPECT_NE(h.memory->Locate(id, plan.spans[0].tokens)->text.find("Methuselah is 7350194"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace longhold
