// Calibration against what its headers promise: cases that can be checked by reading them, a fit
// that finds the signal, and one whole run on the toy model.
#include "eval/calibrate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "eval/calibration_cases.h"
#include "eval/calibration_fit.h"
#include "eval/rng.h"
#include "store/mem_provider.h"
#include "tests/support/toy_model.h"

namespace longhold {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// `sentences` distinct sentences.
Haystack Prose(size_t sentences) {
  EvalRng rng(7);
  const std::vector<std::string> words = {"river",   "stone",   "camel", "elder",  "flock",
                                          "desert",  "servant", "altar", "winter", "harvest",
                                          "the",     "of",      "and",   "beside", "under",
                                          "carried", "looked",  "found", "where",  "before"};
  std::string text;
  for (size_t i = 0; i < sentences; ++i) {
    text += "Chapter" + std::to_string(i);
    for (int w = 0; w < 11; ++w) text += " " + rng.Pick(words);
    text += ". ";
  }
  return MakeHaystack("prose", text, false);
}

TEST(CalibrationCases, EvidenceContainsWhatTheQuestionAsksFor) {
  const Haystack source = Prose(600);
  const auto corpus =
      BuildCalibrationCorpus(source, {.bytes = 24 << 10, .per_form = 4, .cues = 9, .seed = 3});
  ASSERT_TRUE(corpus.ok()) << corpus.status().ToString();
  std::set<std::string> forms, learned_forms;
  for (const CalibrationCase& c : corpus->cases) {
    ASSERT_LE(c.evidence.end, corpus->text.size());
    const std::string evidence = corpus->text.substr(c.evidence.begin, c.evidence.size());
    EXPECT_THAT(evidence, HasSubstr(c.answer));
    EXPECT_FALSE(c.question.empty());
    EXPECT_THAT(c.question, Not(HasSubstr("{")));
    EXPECT_THAT(evidence, Not(HasSubstr("{")));
    forms.insert(c.form);
    if (c.learned) learned_forms.insert(c.form);
    EXPECT_FALSE(c.learned && c.new_form) << c.form;
    EXPECT_TRUE(c.form != "cue-repeat" || evidence.starts_with(c.question)) << c.question;
    // A paraphrased question shares no word of five letters or more with its evidence.
    for (size_t at = 0; c.form.starts_with("meaning") && at < c.question.size();) {
      const size_t end = c.question.find_first_of(" ?", at);
      EXPECT_TRUE(end - at < 5 ||
                  evidence.find(c.question.substr(at, end - at)) == std::string::npos)
          << c.question << evidence;
      at = end + 1;
    }
  }
  EXPECT_EQ(forms.size(), 20u);
  for (const CalibrationCase& c : corpus->cases)
    EXPECT_EQ(c.new_form, learned_forms.count(c.form) == 0) << c.form;
}

TEST(CalibrationCases, UnanswerableQuestionsHaveNoAnswerInTheText) {
  const Haystack source = Prose(600);
  const auto corpus =
      BuildCalibrationCorpus(source, {.bytes = 24 << 10, .per_form = 4, .cues = 9, .seed = 3});
  ASSERT_TRUE(corpus.ok());
  EXPECT_EQ(corpus->unanswerable.size(), 18u);  // 9 cues of two forms
  EXPECT_EQ(corpus->other_keys.size(), 14u);    // one of each form except the paraphrases
  std::set<std::string> asked;
  for (const CalibrationCase& c : corpus->cases) asked.insert(c.question);
  for (const std::string& question : corpus->other_keys)
    EXPECT_EQ(asked.count(question), 0u) << question;
  for (const std::string& question : corpus->unanswerable) {
    EXPECT_EQ(asked.count(question), 0u) << question;
    // If a cue names a chapter, the text must lack that chapter. Otherwise the cue's sentence would
    // be in the text.
    const size_t at = question.find("Chapter");
    if (at == std::string::npos) continue;
    EXPECT_THAT(corpus->text,
                Not(HasSubstr(question.substr(at, question.find(' ', at) - at) + " ")))
        << question;
  }
}

TEST(CalibrationCases, TheSameSeedGivesTheSameCorpus) {
  const Haystack source = Prose(600);
  const auto a = BuildCalibrationCorpus(source, {.seed = 3}),
             b = BuildCalibrationCorpus(source, {.seed = 3}),
             c = BuildCalibrationCorpus(source, {.seed = 4});
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  EXPECT_EQ(a->text, b->text);
  EXPECT_EQ(a->unanswerable, b->unanswerable);
  EXPECT_NE(a->text, c->text);
}

TEST(CalibrationCases, TooLittleTextIsRefusedWithTheSize) {
  const Haystack source = Prose(50);
  const auto corpus = BuildCalibrationCorpus(source, {});
  ASSERT_FALSE(corpus.ok());
  EXPECT_THAT(corpus.status().message(), HasSubstr("50 sentences"));
  EXPECT_THAT(corpus.status().message(), HasSubstr("--text"));
}

// Cases over 40 blocks. The words point at the evidence in one case of four, head 0 in nine of ten.
// Otherwise they point at a random block, and the other heads always do.
std::vector<CaseSignals> MadeCases(size_t count, size_t heads) {
  EvalRng rng(11);
  std::vector<CaseSignals> cases;
  for (size_t i = 0; i < count; ++i) {
    CaseSignals c;
    c.item = i;
    c.evidence = {static_cast<uint32_t>(rng.Below(40))};
    const auto pointing = [&](bool right) {
      std::vector<float> x(40);
      for (float& f : x) f = static_cast<float>(0.2 * rng.Unit());
      x[right ? c.evidence[0] : rng.Below(40)] += 0.5f;
      return x;
    };
    c.lexical = pointing(i % 4 == 0);
    for (size_t h = 0; h < heads; ++h) c.head_share.push_back(pointing(h == 0 && i % 10 != 0));
    cases.push_back(std::move(c));
  }
  return cases;
}

std::vector<const CaseSignals*> Pointers(const std::vector<CaseSignals>& cases) {
  std::vector<const CaseSignals*> out;
  for (const CaseSignals& c : cases) out.push_back(&c);
  return out;
}

TEST(CalibrationFit, FindsOnlyTheHeadThatPointsAtTheEvidence) {
  const std::vector<CaseSignals> made = MadeCases(120, 6);
  const auto cases = Pointers(made);
  const SignalWeights w = LearnWeights(cases, 6, 8, 6);
  ASSERT_THAT(w.heads, ElementsAre(0u));
  EXPECT_GT(w.weights[0], w.lexical);
  EXPECT_GE(w.lexical, 0);
  const RankScore fused = Judge(cases, [&](const CaseSignals& c) { return w.Score(c); });
  const RankScore words = Judge(cases, [](const CaseSignals& c) {
    return std::vector<double>(c.lexical.begin(), c.lexical.end());
  });
  EXPECT_GT(fused.hit1, 0.85);
  EXPECT_LT(words.hit1, 0.4);
}

TEST(CalibrationFit, WeightsLowerTheLoss) {
  const std::vector<CaseSignals> made = MadeCases(60, 2);
  double with = 0, without = 0;
  FitWeights(Pointers(made), {0}, &with);
  FitWeights(Pointers(made), {}, &without);
  EXPECT_LT(with, 0.5 * without);
}

TEST(CalibrationFit, EqualScoresShareTheirRanks) {
  CaseSignals c;
  c.evidence = {2};
  c.lexical.assign(9, 0.0f);
  const RankScore s = Judge(std::vector<const CaseSignals*>{&c}, [](const CaseSignals& x) {
    return std::vector<double>(x.lexical.size(), 1.0);
  });
  EXPECT_DOUBLE_EQ(s.mrr, 0.2);  // rank 5 of 9
  EXPECT_EQ(s.hit4, 0);
  EXPECT_EQ(s.hit8, 1);
  c.evidence = {2, 3};
  const RankScore both = Judge(std::vector<const CaseSignals*>{&c}, [](const CaseSignals& x) {
    std::vector<double> y(x.lexical.size());
    y[2] = y[3] = 1;
    return y;
  });
  EXPECT_EQ(both.hit1, 1);
}

TEST(CalibrationFit, ThresholdRejectsEnoughAndNoMoreThanIsSafe) {
  const std::vector<double> high = {2, 2.1, 2.2, 2.3, 2.4, 2.5, 2.6, 2.7, 2.8, 2.9},
                            low = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0};
  const double clear = AbstainBelow(high, low, 0.03, 0.9);
  EXPECT_GT(clear, 0.9);
  EXPECT_LE(clear, 1.0 + 1e-6);
  // Where the two score ranges overlap, the answerable questions decide.
  const double mixed = AbstainBelow({0.65, 2, 2, 2}, low, 0.03, 0.9);
  EXPECT_DOUBLE_EQ(mixed, 0.65);
  EXPECT_EQ(AbstainBelow({0.05, 2}, low, 0.03, 0.9), 0) << "nothing separates them";
  EXPECT_EQ(AbstainBelow({}, low, 0.03, 0.9), 0);
}

TEST(Calibrate, AToyModelGetsAProfileThatParses) {
  ToyOptions options;
  options.geometry = TinyGeometry();
  options.workers = 2;
  ToyModel model(options);
  const std::unique_ptr<MemProvider> stores = NewMemProvider();
  std::set<std::string> steps;
  const auto report =
      Calibrate(model, Prose(400),
                {.stores = stores.get(), .name = "toy", .minutes = 1, .text_bytes = 8 << 10},
                nullptr, [&](const CalibrateProgress& p) { steps.insert(p.step); });
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_THAT(steps, ElementsAre("abstaining", "answering", "learning", "probing", "reading"));
  EXPECT_GT(report->cases, 100u);
  EXPECT_EQ(report->heads.size(), 2u);
  EXPECT_EQ(report->gates.size(),
            18u);  // 3 gates, with and without re-encoding excerpts, 3 budgets
  const auto oracle = report->ablation.back();
  EXPECT_EQ(oracle.name, "oracle");
  EXPECT_EQ(oracle.fresh.hit1, 1);
  EXPECT_LT(report->ablation.front().held.hit4, 0.5);
  // The scores per form are those of the ablation's rows, split by form.
  for (const bool fresh : {false, true}) {
    const AblationRow* rows[3] = {};
    const char* const names[3] = {"words", "best head", "calibrated"};
    for (const AblationRow& row : report->ablation) {
      for (size_t i = 0; i < 3; ++i) rows[i] = row.name == names[i] ? &row : rows[i];
    }
    for (size_t i = 0; i < 3; ++i) {
      ASSERT_NE(rows[i], nullptr) << names[i];
      const RankScore& whole = fresh ? rows[i]->fresh : rows[i]->held;
      size_t cases = 0;
      double mrr = 0;
      for (const FormScore& f : report->forms) {
        if (f.new_form != fresh) continue;
        const RankScore& part = i == 0 ? f.words : i == 1 ? f.head : f.calibrated;
        cases += part.cases;
        mrr += part.mrr * static_cast<double>(part.cases);
      }
      EXPECT_EQ(cases, whole.cases) << names[i];
      EXPECT_NEAR(mrr, whole.mrr * static_cast<double>(cases), 1e-6) << names[i];
    }
  }
  std::set<std::string> forms;
  for (const FormScore& f : report->forms) forms.insert(f.form);
  EXPECT_EQ(forms.size(), 20u);
  EXPECT_EQ(report->forms.size(), 20u) << "no form twice";
  const RecallProfile& p = report->profile;
  EXPECT_TRUE(p.Matches(model.info()));
  const auto back = RecallProfile::Parse(p.ToJson(), "toy.json");
  ASSERT_TRUE(back.ok()) << back.status().ToString();
  EXPECT_EQ(back->ToJson(), p.ToJson());
  for (const char* key : {"text_sha256", "\"seed\":1", "heads_alone", "\"ranked_by\":\"words\"",
                          "new_forms", "\"form\":\"meaning-home\""})
    EXPECT_THAT(back->calibration, HasSubstr(key));
}

TEST(Calibrate, StopsWhenRequested) {
  ToyOptions options;
  options.geometry = TinyGeometry();
  ToyModel model(options);
  const std::unique_ptr<MemProvider> stores = NewMemProvider();
  std::atomic<bool> stop = false;
  const auto report =
      Calibrate(model, Prose(400), {.stores = stores.get(), .name = "toy", .text_bytes = 8 << 10},
                &stop, [&](const CalibrateProgress& p) { stop = p.step == "probing"; });
  EXPECT_EQ(report.status().code(), StatusCode::kCancelled) << report.status().ToString();
}

}  // namespace
}  // namespace longhold
