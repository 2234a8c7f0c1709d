// Calibration on labelled cases through the engine, with the toy model and the toy embedder.
//
// The texts are generated lines with one fact in every twelfth. Questions name the fact's key in
// its own words, or in other words that only the embedder knows.
#include "eval/calibrate_cases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>

#include "eval/case_recall.h"
#include "eval/unread_model.h"
#include "memory/engine.h"
#include "store/mem_provider.h"
#include "tests/support/toy_embedder.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

struct Fact {
  std::string line, question;
};

const std::vector<Fact>& Facts() {
  static const std::vector<Fact> kFacts = {
      {"The lantern of Quillon hangs over the northern gate.",
       "Where does Quillon's lantern hang?"},
      {"A kettle in the mill sings before it rains.", "Which kettle sings before rain?"},
      {"Our miller pays nine pennies for a sack of barley.", "What are nine pennies paid for?"},
      {"The bishop hides his letters under a loose tile.", "Where does the bishop hide letters?"},
      {"The physician purchased a crimson automobile.", "Which doctor buys a red car?"},
      {"Her spouse left on a vessel in autumn.", "Whose wife left by ship in the fall?"},
  };
  return kFacts;
}

// Fact f of the kind stands in line 12 f + 12 of its text.
LabelledKind MadeKind(const std::string& name, uint64_t seed, size_t first, size_t count) {
  std::string text, questions = "-\tWho paints the harbour's ceiling violet?\t-\n";
  const std::string filler = PlainText(6000, seed);
  size_t at = 0;
  const auto add_filler = [&](int lines) {
    for (; lines > 0; --lines) {
      const size_t end = filler.find('\n', at) + 1;
      text += filler.substr(at, end - at);
      at = end;
    }
  };
  for (size_t f = 0; f < count; ++f) {
    add_filler(11);
    const Fact& fact = Facts()[first + f];
    text += fact.line + "\n";
    questions += name + ".txt:" + std::to_string(12 * f + 12) + "\t" + fact.question + "\t-\n";
  }
  add_filler(12);
  auto kind = ParseLabelledCases(name, {{name + ".txt", text}}, questions, "questions.tsv");
  EXPECT_TRUE(kind.ok()) << kind.status().message();
  return *kind;
}

struct World {
  ToyModel model{ToyOptions{.geometry = TinyGeometry(), .workers = 2}};
  ToyEmbedder embedder;
  std::unique_ptr<MemProvider> stores = NewMemProvider();
  std::vector<LabelledKind> kinds = {MadeKind("tales", 1, 0, 3), MadeKind("letters", 2, 2, 4)};
  RecallProfile present;
  std::set<std::string> steps;

  World() {
    present.name = "toy";
    present.architecture = "toy";
    present.layer_count = model.info().layer_count;
    present.q_heads = 2;
    present.kv_heads = 1;
    present.head_dim = 4;
    present.vocab_size = model.info().vocab_size;
    present.rerank_spans = 0;
    present.abstain_found = 0.4;
    present.window_tokens = 64;
    present.calibration = R"({"text_sha256":"abc"})";
  }
  Result<CaseReport> Calibrate(bool embeds = true, const std::atomic<bool>* stop = nullptr) {
    return CalibrateOnCases(model, embeds ? &embedder : nullptr, kinds,
                            {.stores = stores.get(), .present = present}, stop,
                            [&](const CalibrateProgress& p) { steps.insert(p.step); });
  }
};

TEST(UnreadModel, RecallFindsWhatItFindsInAMemoryThatWasRead) {
  World world;
  UnreadModel unread(&world.model);
  const std::unique_ptr<MemProvider> other = NewMemProvider();
  Engine read(world.stores.get(), {}), indexed(other.get(), {});
  ASSERT_TRUE(read.UseModel(&world.model, &world.present, &world.embedder).ok());
  ASSERT_TRUE(indexed.UseModel(&unread, &world.present, &world.embedder).ok());
  const CaseDocument& document = world.kinds[0].documents[0];
  for (Engine* engine : {&read, &indexed}) {
    const auto report =
        engine->Ingest("m", {.name = document.name, .text = document.text}, nullptr, nullptr);
    ASSERT_TRUE(report.ok()) << report.status().message();
  }
  for (const Fact& fact : Facts()) {
    const auto a = read.Recall("m", fact.question, {.explain = true}),
               b = indexed.Recall("m", fact.question, {.explain = true});
    ASSERT_TRUE(a.ok() && b.ok()) << a.status().message() << b.status().message();
    EXPECT_EQ(a->abstained, b->abstained);
    EXPECT_EQ(a->evidence.found_share, b->evidence.found_share);
    EXPECT_EQ(a->evidence.similarity, b->evidence.similarity);
    ASSERT_EQ(a->spans.size(), b->spans.size());
    for (size_t i = 0; i < a->spans.size(); ++i) {
      EXPECT_EQ(a->spans[i].bytes, b->spans[i].bytes);
      EXPECT_EQ(a->spans[i].score, b->spans[i].score);
    }
    EXPECT_EQ(a->explained.size(), b->explained.size());
  }
  EXPECT_FALSE(indexed.Ask("m", Facts()[0].question, {}).ok()) << "it has no answers";
}

TEST(CaseRecall, TheRuleOfAbstentionIsThatOfRecall) {
  World world;
  Engine engine(world.stores.get(), {});
  ASSERT_TRUE(engine.UseModel(&world.model, &world.present, &world.embedder).ok());
  const CaseDocument& document = world.kinds[0].documents[0];
  ASSERT_TRUE(
      engine.Ingest("m", {.name = document.name, .text = document.text}, nullptr, nullptr).ok());
  std::vector<std::string> questions = {"Zyxwv?", "Who paints the harbour's ceiling violet?",
                                        "Is the camel by the well?", "Where is the mill's goat?"};
  for (const Fact& fact : Facts()) questions.push_back(fact.question);
  size_t abstained = 0, compared = 0;
  for (const bool embeds : {true, false}) {
    for (const double found : {0.0, 0.2, 0.4, 0.6, 0.8}) {
      for (const double similarity : {0.1, 0.3, 0.45}) {
        RecallProfile profile = world.present;
        profile.abstain_found = found;
        profile.abstain_similarity = similarity;
        Engine asked(world.stores.get(), {});
        ASSERT_TRUE(
            asked.UseModel(&world.model, &profile, embeds ? &world.embedder : nullptr).ok());
        for (const std::string& question : questions) {
          const auto reply = asked.Recall("m", question, {.explain = true});
          ASSERT_TRUE(reply.ok()) << reply.status().message();
          const EvidenceSample sample{.found_share = reply->evidence.found_share,
                                      .similarity = reply->evidence.similarity,
                                      .no_candidate = reply->explained.empty()};
          EXPECT_EQ(Abstains(sample, {found, similarity}), reply->abstained)
              << question << " " << found << " " << similarity;
          abstained += reply->abstained;
          ++compared;
        }
      }
    }
  }
  EXPECT_GT(abstained, compared / 10);
  EXPECT_LT(abstained, compared * 9 / 10);
}

TEST(CaseRecall, AsksOwnQuestionsAndThoseOfOtherKinds) {
  World world;
  UnreadModel unread(&world.model);
  CaseMemories memories(world.stores.get(), &unread, &world.embedder, world.kinds, nullptr);
  const auto count = [](uint64_t done, uint64_t total) { EXPECT_LE(done, total); };
  const auto tokens = memories.Read(world.present, count);
  ASSERT_TRUE(tokens.ok()) << tokens.status().message();
  EXPECT_GT((*tokens)[0], 1000u);
  const auto asked = memories.Ask(world.present, count);
  ASSERT_TRUE(asked.ok()) << asked.status().message();
  ASSERT_THAT(*asked, SizeIs(2));
  EXPECT_THAT((*asked)[0].answerable, SizeIs(3));
  EXPECT_THAT((*asked)[0].unanswerable, SizeIs(1 + 5)) << "its own, and all of the other kind";
  EXPECT_THAT((*asked)[1].answerable, SizeIs(4));
  for (const KindRecall& kind : *asked) EXPECT_GT(kind.Ranks().mrr, 0.5);
  const auto competing =
      memories.Compete(world.present, {std::string(kWordSignal), std::string(kDenseSignal)}, count);
  ASSERT_TRUE(competing.ok()) << competing.status().message();
  for (const FusionKind& kind : *competing) {
    for (const FusionCase& c : kind.cases) {
      size_t evidence = 0;
      for (const FusionCandidate& candidate : c.candidates) {
        ASSERT_THAT(candidate.scores, SizeIs(2));
        evidence += candidate.evidence;
      }
      EXPECT_EQ(evidence, 1u) << "spans do not overlap";
      EXPECT_GT(c.candidates.size(), 5u);
    }
  }
}

TEST(CalibrateOnCases, LearnsAProfileAndKeepsTheRest) {
  World world;
  const auto report = world.Calibrate();
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_TRUE(report->judged);
  EXPECT_THAT(report->signals, ElementsAre("words", "expansion", "dense"));
  EXPECT_THAT(report->kinds, SizeIs(2));
  for (const KindJudgement& kind : report->kinds) {
    EXPECT_GT(kind.tokens, 1000u);
    EXPECT_EQ(kind.present.cases, kind.answerable);
    EXPECT_EQ(kind.without.cases, kind.answerable);
    EXPECT_THAT(kind.weights_without, SizeIs(3));
    EXPECT_LE(kind.refusal_final.refused, report->thresholds_kept ? 1 : kRefusedMax);
  }
  EXPECT_THAT(world.steps, Contains("asking, pass 6 of 7, questions"));
  const RecallProfile& p = report->profile;
  EXPECT_THAT(std::vector<uint32_t>(std::begin(kSpanCounts), std::end(kSpanCounts)),
              Contains(p.spans_max));
  // All else is as it was.
  RecallProfile same = p;
  same.signals = world.present.signals;
  same.abstain_found = world.present.abstain_found;
  same.abstain_similarity = world.present.abstain_similarity;
  same.spans_max = world.present.spans_max;
  same.calibration = world.present.calibration;
  EXPECT_EQ(same.ToJson(), world.present.ToJson());
  const auto back = RecallProfile::Parse(p.ToJson(), "toy.json");
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  for (const char* key : {"\"text_sha256\":\"abc\"", "labelled_cases", "\"kind\":\"letters\"",
                          "weights_without", "evidence_by_spans", "abstaining_written"})
    EXPECT_THAT(back->calibration, HasSubstr(key));
}

TEST(CalibrateOnCases, ASecondRunGivesTheSame) {
  World a, b;
  const auto first = a.Calibrate(), second = b.Calibrate();
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->profile.ToJson(), second->profile.ToJson());
}

TEST(CalibrateOnCases, WithASingleKindNothingIsJudged) {
  World world;
  world.kinds.pop_back();
  const auto report = world.Calibrate();
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_FALSE(report->judged);
  EXPECT_FALSE(report->weights_kept);
  EXPECT_EQ(report->kinds[0].unanswerable, 1u) << "its own";
  EXPECT_THAT(report->profile.calibration, Not(HasSubstr("learned_without")));
}

TEST(CalibrateOnCases, WithoutAnEmbedderTheDenseSignalKeepsItsWeight) {
  World world;
  const auto report = world.Calibrate(/*embeds=*/false);
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_THAT(report->signals, ElementsAre("words", "expansion"));
  EXPECT_EQ(report->profile.WeightOf(kDenseSignal), world.present.WeightOf(kDenseSignal));
  EXPECT_EQ(report->profile.abstain_similarity, world.present.abstain_similarity);
}

TEST(CalibrateOnCases, WithRecallHeadsTheTextsAreRead) {
  World world;
  world.present.heads = {{.layer = 0, .kv_head = 0}};
  const auto report = world.Calibrate();
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_THAT(report->signals, ElementsAre("words", "expansion", "dense", "heads"));
  EXPECT_THAT(report->profile.heads, SizeIs(1));
}

TEST(CalibrateOnCases, StopsWhenRequested) {
  World world;
  std::atomic<bool> stop = false;
  const auto report = CalibrateOnCases(
      world.model, &world.embedder, world.kinds,
      {.stores = world.stores.get(), .present = world.present}, &stop,
      [&](const CalibrateProgress& p) { stop = stop || p.step.starts_with("asking, pass 3"); });
  EXPECT_EQ(report.status().code(), StatusCode::kCancelled) << report.status().ToString();
}

}  // namespace
}  // namespace longhold
