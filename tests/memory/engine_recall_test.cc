// Recall through the engine, stage by stage as a caller sees it: reranking, abstention,
// explanation, multi-hop retrieval and retrieval during generation. These tests do not judge
// quality: the toy model generates the answer that the test sets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memory/engine.h"
#include "tests/memory/engine_fixture.h"

namespace longhold {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

TEST_F(EngineTest, RerankingOrdersTheSpansThatThePlanFound) {
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  RecallProfile plain = Profile();
  plain.span_score_min = 0;
  const auto spans = [&](const RecallProfile& profile) {
    Restart({}, &profile);
    Result<RecallReply> r = engine_->Recall("tales", kQuestion, {.spans_max = 6});
    EXPECT_TRUE(r.ok()) << r.status().ToString();
    return *r;
  };
  const auto places = [](const RecallReply& r) {
    std::vector<uint64_t> begins;
    for (const RecalledSpan& s : r.spans) begins.push_back(s.tokens.begin);
    return begins;
  };
  const RecallReply without = spans(plain);
  ASSERT_EQ(without.spans.size(), 6u);
  EXPECT_EQ(without.token_gain, 0.0);
  RecallProfile reranking = plain;
  reranking.rerank_spans = 6;
  reranking.rerank_prior = 0;
  const RecallReply with = spans(reranking);
  EXPECT_THAT(places(with), testing::UnorderedElementsAreArray(places(without)));
  EXPECT_NE(places(with), places(without)) << "the model's opinion changed nothing";
  EXPECT_NE(with.token_gain, 0.0);
  EXPECT_EQ(with.spans[0].score, 1.0);
  for (size_t i = 1; i < with.spans.size(); ++i)
    EXPECT_LE(with.spans[i].score, with.spans[i - 1].score);
  reranking.rerank_prior = 1000;  // now the plan's score decides the order
  EXPECT_EQ(places(spans(reranking))[0], places(without)[0]);
}

// The toy's likelihoods are noise. So the threshold is set where every question or none is above
// it. docs/figures.md reports which real questions are.
TEST_F(EngineTest, AbstainsBelowTheProfilesThresholdAndReportsTheClosestSpans) {
  RecallProfile strict = Profile();
  strict.rerank_spans = 16;
  strict.span_score_min = 0;
  strict.abstain_support = 1000;
  Restart({.answer = "It is 7350194."}, &strict);
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  AskOptions options;
  std::string shown;
  options.on_text = [&](std::string_view piece) { shown += piece; };
  const Result<AskReply> none = engine_->Ask("tales", kQuestion, options);
  ASSERT_TRUE(none.ok()) << none.status().ToString();
  EXPECT_TRUE(none->abstained);
  EXPECT_EQ(none->answer, kAbstention);
  EXPECT_EQ(shown, kAbstention);
  EXPECT_TRUE(none->citations.empty());
  EXPECT_EQ(none->coverage, 0.0);
  EXPECT_EQ(none->spans + none->tokens_recalled + none->completion_tokens, 0u);
  EXPECT_NE(none->token_gain, 0.0);
  EXPECT_GT(none->memory_tokens, 0u);
  ASSERT_EQ(none->closest.size(), 1u);
  EXPECT_EQ(none->closest[0].document, "tale");

  AskOptions alone = options;
  alone.focused().answer_alone = true;
  shown.clear();
  const Result<AskReply> own = engine_->Ask("tales", kQuestion, alone);
  ASSERT_TRUE(own.ok()) << own.status().ToString();
  EXPECT_TRUE(own->abstained) << "nothing matches, and the model answers freely";
  EXPECT_EQ(own->answer, "It is 7350194.");
  EXPECT_EQ(shown, own->answer);
  EXPECT_TRUE(own->citations.empty());
  EXPECT_EQ(own->spans + own->tokens_recalled + own->blocks_read, 0u);

  const Result<RecallReply> few = engine_->Recall("tales", kQuestion, {});
  const Result<RecallReply> all = engine_->Recall("tales", kQuestion, {.abstain = false});
  ASSERT_TRUE(few.ok() && all.ok());
  EXPECT_TRUE(few->abstained);
  EXPECT_FALSE(all->abstained);
  EXPECT_EQ(few->spans.size(), 3u);
  EXPECT_GT(all->spans.size(), 3u);
  EXPECT_EQ(few->spans[0].tokens, all->spans[0].tokens);
  EXPECT_EQ(few->spans[0].tokens, none->closest[0].tokens);

  options.focused().recall.abstain = false;
  const Result<AskReply> forced = engine_->Ask("tales", kQuestion, options);
  ASSERT_TRUE(forced.ok());
  EXPECT_FALSE(forced->abstained);
  EXPECT_EQ(forced->answer, "It is 7350194.");
  options.focused().recall.abstain = true;
  options.answer_prefix = "The number";
  const Result<AskReply> begun = engine_->Ask("tales", kQuestion, options);
  ASSERT_TRUE(begun.ok());
  EXPECT_FALSE(begun->abstained) << "the answer was begun by the caller";

  strict.abstain_support = 0;
  Restart({.answer = "It is 7350194."}, &strict);
  const Result<AskReply> off = engine_->Ask("tales", kQuestion, {});
  ASSERT_TRUE(off.ok());
  EXPECT_FALSE(off->abstained);
}

TEST_F(EngineTest, WithoutRerankingTheShareOfQuestionWordsFoundDecidesAbstention) {
  RecallProfile words_only = Profile();
  words_only.heads.clear();
  words_only.rerank_spans = 0;
  words_only.abstain_found = 0.6;
  Restart({.answer = "It is 7350194."}, &words_only);
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  const Result<AskReply> known = engine_->Ask("tales", kQuestion, {});
  const Result<AskReply> unknown = engine_->Ask(
      "tales", std::string(kQuestion) + " zyxwvutsrq qwertzuiop asdfghjklm yxcvbnmlkj", {});
  ASSERT_TRUE(known.ok() && unknown.ok());
  EXPECT_FALSE(known->abstained);
  EXPECT_EQ(known->coverage, std::nullopt) << "no head was asked";
  EXPECT_TRUE(unknown->abstained);
  EXPECT_EQ(unknown->answer, kAbstention);
  ASSERT_EQ(unknown->closest.size(), 1u);
  EXPECT_EQ(unknown->closest[0].document, "tale");
}

TEST_F(EngineTest, WithoutRerankingOnlyAQuestionWithoutAnyCandidateAbstains) {
  RecallProfile words_only = Profile();
  words_only.heads.clear();
  words_only.abstain_support = 1000;
  Restart({.answer = "It is 7350194."}, &words_only);
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  const Result<AskReply> known = engine_->Ask("tales", kQuestion, {});
  const Result<AskReply> unknown = engine_->Ask("tales", "Zyxwvutsrq?", {});
  ASSERT_TRUE(known.ok() && unknown.ok());
  EXPECT_FALSE(known->abstained);
  EXPECT_TRUE(unknown->abstained);
  EXPECT_EQ(unknown->answer, kAbstention);
  EXPECT_TRUE(unknown->closest.empty());
}

TEST_F(EngineTest, WordsThatReferToTheTextItselfAreNotSearched) {
  ASSERT_TRUE(engine_->Ingest("tales", {"tale", Tale()}, nullptr, nullptr).ok());
  const Result<RecallReply> r = engine_->Recall(
      "tales", "where is the harbour mentioned in the provided text?", {.explain = true});
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  std::vector<std::string> words;
  for (const auto& word : r->words) words.push_back(word.text);
  EXPECT_THAT(words, ::testing::ElementsAre("where", "is", "the", "harbour"));
  // If the question has no other words, they are searched.
  EXPECT_FALSE(engine_->Recall("tales", "in the provided text?", {.explain = true})->words.empty());
}

TEST_F(EngineTest, ExplainsAllCandidatesAndWhyEachWasKeptOrNot) {
  RecallProfile reranking = Profile();
  reranking.rerank_spans = 6;
  reranking.spans_max = 3;
  reranking.span_score_min = 0;
  Restart({}, &reranking);
  ASSERT_TRUE(Ingest("tale", Tale()).ok());
  const Result<RecallReply> plain = engine_->Recall("tales", kQuestion, {});
  const Result<RecallReply> r = engine_->Recall("tales", kQuestion, {.explain = true});
  ASSERT_TRUE(plain.ok() && r.ok());
  EXPECT_TRUE(plain->words.empty() && plain->explained.empty());
  const auto word = std::find_if(r->words.begin(), r->words.end(),
                                 [](const QuestionWord& w) { return w.text == "Methuselah"; });
  ASSERT_NE(word, r->words.end());
  EXPECT_EQ(word->blocks, 1u);
  const auto named = static_cast<size_t>(word - r->words.begin());
  ASSERT_GT(r->explained.size(), 6u);
  size_t kept = 0, reranked = 0, found = 0;
  for (size_t i = 0; i < r->explained.size(); ++i) {
    const ExplainedSpan& c = r->explained[i];
    ASSERT_EQ(c.found.size(), r->words.size());
    EXPECT_EQ(c.why.empty(), c.kept);
    // Explaining does not change what is recalled.
    if (i < 3) {
      EXPECT_EQ(c.span.tokens, plain->spans[i].tokens);
    }
    EXPECT_EQ(c.kept, i < 3);
    EXPECT_EQ(c.rank, i < 6 ? i + 1 : 0);
    if (i >= 6) {
      EXPECT_EQ(c.planned_rank, i + 1);
    }
    kept += c.kept;
    reranked += c.rank > 0;
    found += c.found[named];
    EXPECT_EQ(c.found[named], c.span.text.find("Methuselah") != std::string::npos);
  }
  EXPECT_EQ(kept, 3u);
  EXPECT_EQ(reranked, 6u);
  EXPECT_GE(found, 1u);
  EXPECT_EQ(r->explained[3].why, "enough better ones");
  EXPECT_EQ(r->explained[6].why, "not reranked");
}

// Two hops: the needle names a keeper, and the sentence about the keeper shares no word with the
// question.
constexpr char kKeeper[] = "Quillon the porter keeps the ledgers behind the mill.\n";

std::string TaleOfTheKeeper() {
  std::string text = Tale();
  const std::string named = "said é the elder to Quillon.\n";
  const size_t needle = text.find("said é the elder.");
  text.replace(needle, text.find('\n', needle) + 1 - needle, named);
  text.insert(text.find('\n', 500) + 1, kKeeper);
  return text;
}

TEST_F(EngineTest, FollowsABridgeTermOfTheBestSpanAndReportsTheHop) {
  RecallProfile profile = Profile();
  profile.spans_max = 2;
  Restart({.answer = "7350194"}, &profile);
  const std::string text = TaleOfTheKeeper();
  ASSERT_TRUE(Ingest("tale", text).ok());
  const Result<RecallReply> recall = engine_->Recall("tales", kQuestion, {.explain = true});
  const Result<AskReply> ask = engine_->Ask("tales", kQuestion, {});
  ASSERT_TRUE(recall.ok() && ask.ok());
  EXPECT_EQ(recall->hops, 1u);
  EXPECT_EQ(ask->hops, 1u);
  EXPECT_EQ(ask->spans, recall->spans.size());
  const auto keeper = [](const RecalledSpan& s) {
    return s.text.find(kKeeper) != std::string::npos;
  };
  const auto found = std::find_if(recall->spans.begin(), recall->spans.end(), keeper);
  ASSERT_NE(found, recall->spans.end());
  EXPECT_THAT(found->reasons, testing::ElementsAre("multi-hop"));
  ExpectPlace(*found, text);
  EXPECT_TRUE(std::any_of(ask->citations.begin(), ask->citations.end(),
                          [&](const Citation& c) { return keeper(c.span); }));
  EXPECT_TRUE(std::any_of(recall->explained.begin(), recall->explained.end(),
                          [&](const ExplainedSpan& c) { return c.kept && keeper(c.span); }));
  // A requested span limit holds. Without hops nothing is followed.
  const Result<RecallReply> one = engine_->Recall("tales", kQuestion, {.spans_max = 1});
  ASSERT_TRUE(one.ok());
  ASSERT_EQ(one->spans.size(), 1u);
  EXPECT_THAT(one->spans[0].text, HasSubstr("Methuselah"));
  EXPECT_EQ(one->hops, 0u);
  profile.hops_max = 0;
  Restart({}, &profile);
  const Result<RecallReply> none = engine_->Recall("tales", kQuestion, {});
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->hops, 0u);
  EXPECT_TRUE(std::none_of(none->spans.begin(), none->spans.end(), keeper));
}

// A rare word of the answer triggers retrieval during generation. If the model has native layers,
// the span is re-encoded, at native positions that the toy checks.
TEST_F(EngineTest, RetrievesDuringGenerationForARareWordOfTheAnswer) {
  std::string text = Tale();
  text.insert(text.find('\n', 500) + 1, kKeeper);
  const std::string answer = "It is 7350194, and Quillon may know more of it, or not.";
  for (const uint32_t native_window : {0u, 400u}) {
    SCOPED_TRACE(native_window);
    RecallProfile profile = Profile();
    const ToyOptions toy{.native_window = native_window, .answer = answer};
    profile.spans_max = 1;
    Restart(toy, &profile);
    if (native_window > 0) {
      ASSERT_TRUE(engine_->Forget("tales", "", false).ok());
    }
    ASSERT_TRUE(Ingest("tale", text).ok());
    const Result<AskReply> r = engine_->Ask("tales", kQuestion, {});
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    EXPECT_EQ(r->answer, answer);
    EXPECT_EQ(r->generation_spans, 1u);
    EXPECT_EQ(r->spans, r->citations.size());
    EXPECT_EQ(r->hops, 0u);
    double total = 0;
    uint64_t tokens = 0;
    const Citation* keeper = nullptr;
    for (const Citation& c : r->citations) {
      ExpectPlace(c.span, text);
      total += c.span.score;
      tokens += c.span.tokens.size();
      if (c.span.text.find(kKeeper) != std::string::npos) keeper = &c;
    }
    ASSERT_NE(keeper, nullptr);
    EXPECT_THAT(keeper->span.reasons, testing::ElementsAre("multi-hop"));
    EXPECT_GT(keeper->span.score, 0.0);
    EXPECT_NEAR(total, 1.0, 1e-9);
    EXPECT_EQ(tokens, r->tokens_recalled);
    profile.generation_spans = 0;
    Restart(toy, &profile);
    const Result<AskReply> without = engine_->Ask("tales", kQuestion, {});
    ASSERT_TRUE(without.ok());
    EXPECT_EQ(without->answer, answer);
    EXPECT_EQ(without->generation_spans, 0u);
    EXPECT_EQ(without->citations.size(), r->citations.size() - 1);
  }
}

}  // namespace
}  // namespace longhold
