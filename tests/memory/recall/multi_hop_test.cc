// Follow-ups on memories of words alone: no model runs, so it is known which place leads to which.
//
// What must hold: a chain of places of which each names the next is found to its end, whatever the
// texts are about (people who hand a thing on, settings that refer to settings, a value and what
// takes it over); what many places have in common leads nowhere; and the bounds, the order and the
// disjointness of spans that follow_up.h promises. Tokens are nearly bytes here: a filler of 16,000
// bytes is some 250 blocks, in which a key may stand in 8; the links of a chain stand 3,000 bytes
// apart, so no span holds two.
#include "memory/recall/multi_hop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "memory/ingest/ingest.h"
#include "store/mem_store.h"
#include "tests/support/stores.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// A memory without recall heads.
struct WordMemory {
  ToyModel model;
  RecallProfile profile;
  std::unique_ptr<ColdStore> store = NewMemStore();
  std::unique_ptr<Memory> memory;
  LexicalVocabulary vocabulary{model.pieces()};
  RecallPlan plan;

  WordMemory() {
    profile.name = "words";
    memory = std::move(Memory::Create(Borrow(*store), "tales", model.info(), profile)).value();
  }
  explicit WordMemory(const std::string& text) : WordMemory() {
    const std::vector<TextChunk> chunks = *TokenizeText(model, text);
    DocumentRecord record;
    record.name = "tale";
    record.bytes = text.size();
    record.tokens = chunks.back().token_begin + chunks.back().tokens.size();
    const DocumentId id = *memory->AddDocument(record, chunks);
    for (uint64_t begin = 0; begin < record.tokens; begin += kCommitTokens) {
      const uint64_t end = std::min(record.tokens, begin + kCommitTokens);
      const std::vector<TokenId> before =
          *memory->Tokens(id, {begin - std::min<uint64_t>(begin, 16), begin});
      auto lexical = std::make_shared<const LexicalSegment>(
          LexicalSegment::Build(vocabulary, id, begin, before, *memory->Tokens(id, {begin, end})));
      EXPECT_TRUE(memory->Commit(id, end, nullptr, lexical, nullptr, nullptr).ok());
    }
    EXPECT_TRUE(memory->LoadIndexes().ok());
  }
  std::vector<TokenId> Tokens(const std::string& text) const {
    return *model.Tokenize(text, false);
  }
  std::function<std::string(TokenId)> Pieces() const {
    return [this](TokenId token) { return model.Piece(token); };
  }
  MultiHop For(const std::string& question) {
    return MultiHop(*memory, profile, vocabulary, Pieces(), Tokens(question));
  }

  // Plans at most `spans` for `question` and extends the plan; the laws of spans hold, whatever was
  // found.
  void Ask(const std::string& question, uint32_t spans = 4) {
    RecallQuery query;
    query.words = vocabulary.Words(Tokens(question));
    plan = *PlanRecall(*memory, profile, query, spans, SerialFor);
    const size_t planned = plan.spans.size();
    const std::vector<PlannedSpan> judged = plan.spans;
    MultiHop follow = For(question);
    const Result<bool> changed = follow.Extend(&plan, judged);
    ASSERT_TRUE(changed.ok()) << changed.status().ToString();
    EXPECT_LE(plan.spans.size(), planned + profile.hop_spans);
    for (size_t i = 0; i < plan.spans.size(); ++i) {
      const PlannedSpan& a = plan.spans[i];
      EXPECT_TRUE(a.tokens.Contains(a.peak));
      EXPECT_LE(a.tokens.size(), SpanTokensMax(profile));
      EXPECT_LE(a.hops, profile.hops_max);
      EXPECT_LE(a.score, i == 0 ? 1.0 : plan.spans[i - 1].score);
      for (size_t j = 0; j < i; ++j) {
        const PlannedSpan& b = plan.spans[j];
        EXPECT_FALSE(a.document == b.document && a.tokens.begin < b.tokens.end &&
                     b.tokens.begin < a.tokens.end);
      }
    }
  }
  std::string TextOf(const PlannedSpan& span) {
    return memory->Locate(span.document, span.tokens)->text;
  }
  // After how many hops `words` stand in a span of the plan; -1: in none.
  int HopsTo(const std::string& words) {
    for (const PlannedSpan& span : plan.spans) {
      if (TextOf(span).find(words) != std::string::npos) return static_cast<int>(span.hops);
    }
    return -1;
  }
};

// Filler with each of `lines` on a line of its own, 3,000 bytes apart.
std::string With(const std::vector<std::string>& lines) {
  std::string text = PlainText(std::max<size_t>(16000, 3000 * (lines.size() + 1)), 1);
  for (size_t i = lines.size(); i-- > 0;)
    text.insert(text.find('\n', 3000 * (i + 1) - 1500) + 1, lines[i] + "\n");
  return text;
}

const std::vector<std::string> kHandedOn = {
    "The silver astrolabe was last seen when Ottoline took charge.",
    "On leaving, Ottoline passed everything to Barnaby at dusk.",
    "Whatever Barnaby owned was sent up to Wexcombe by barge.",
    "In Wexcombe it hangs above the counter of Pellgrave's shop.",
};
constexpr char kAstrolabe[] = "Where is the silver astrolabe?";

TEST(KeysOf, AreWordsAndWhatIsWrittenWithoutASpace) {
  WordMemory m;
  const auto spelled = [&](const std::string& text) {
    const std::vector<TokenId> tokens = m.Tokens(text);
    std::vector<std::string> keys;
    for (const auto& key : KeysOf(m.vocabulary, m.Pieces(), tokens)) {
      std::string word;
      for (uint32_t t = key.front().begin; t < key.back().end; ++t)
        word += m.model.Piece(tokens[t]);
      keys.push_back(word.substr(word.find_first_not_of(' ')));  // a token may begin with a space
    }
    return keys;
  };
  EXPECT_THAT(spelled("retry_window_ms = pool.max; 3fa-22 b/c readFile"),
              ElementsAre("retry_window_ms", "pool.max", "3fa-22", "b/c", "readFile"));
  EXPECT_THAT(spelled("Ines, Ines's dog--x: a=b"), ElementsAre("Ines", "s", "dog", "x", "a", "b"))
      << "each once";
  EXPECT_THAT(spelled("a.b.c.d.e.f.g.h"), ElementsAre("a.b.c.d.e.f.g.h"));
  EXPECT_THAT(spelled("a.b.c.d.e.f.g.h.i end."), ElementsAre("end")) << "longer than a key may be";
  EXPECT_THAT(spelled(" ."), IsEmpty());
}

TEST(MultiHop, FollowsAThingThatPeopleHandOn) {
  WordMemory m(With(kHandedOn));
  m.Ask(kAstrolabe);
  EXPECT_EQ(m.HopsTo(kHandedOn[0]), 0);
  EXPECT_EQ(m.HopsTo(kHandedOn[1]), 1);
  EXPECT_EQ(m.HopsTo(kHandedOn[2]), 2);
  EXPECT_EQ(m.HopsTo(kHandedOn[3]), 3);
}

// Every part of such a name stands in a hundred lines; the whole in two.
TEST(MultiHop, FollowsSettingsThatReferToSettings) {
  std::vector<std::string> lines = {
      "session.expiry = same as cache.pool_limit",
      "cache.pool_limit: see worker.cache_size",
      "worker.cache_size -> session.limit.worker",
      "session.limit.worker = 40 minutes",
  };
  std::string text = With(lines);
  std::mt19937_64 rng(3);
  const std::vector<std::string> parts = {"session", "cache", "pool",  "limit",
                                          "worker",  "size",  "expiry"};
  for (size_t at = 200; at < text.size(); at += 100) {
    at = text.find('\n', at);
    if (at == std::string::npos) break;
    text.insert(at + 1, parts[rng() % 7] + "_" + std::to_string(rng() % 50) + " = " +
                            parts[rng() % 7] + "\n");
  }
  WordMemory m(text);
  m.Ask("What is the value of session.expiry?", 1);
  EXPECT_EQ(m.HopsTo(lines[0]), 0);
  EXPECT_EQ(m.HopsTo(lines[1]), 1);
  EXPECT_EQ(m.HopsTo(lines[2]), 2);
  EXPECT_EQ(m.HopsTo(lines[3]), 3);
}

TEST(MultiHop, StopsAtItsBounds) {
  for (const uint32_t hops : {0u, 1u, 2u}) {
    WordMemory m(With(kHandedOn));
    m.profile.hops_max = hops;
    m.Ask(kAstrolabe);
    for (size_t i = 1; i < kHandedOn.size(); ++i)
      EXPECT_EQ(m.HopsTo(kHandedOn[i]), i <= hops ? static_cast<int>(i) : -1) << hops;
  }
  for (const uint32_t spans : {0u, 1u, 2u}) {
    WordMemory m(With(kHandedOn));
    m.profile.hop_spans = spans;
    m.Ask(kAstrolabe);
    for (size_t i = 1; i < kHandedOn.size(); ++i)
      EXPECT_EQ(m.HopsTo(kHandedOn[i]), i <= spans ? static_cast<int>(i) : -1) << spans;
  }
}

// The same name, in so many more places: two are followed, with less score each, nine are not.
TEST(MultiHop, WhatManyPlacesHaveInCommonLeadsNowhere) {
  double before = 1;
  for (const size_t places : {1u, 2u, 9u}) {
    std::vector<std::string> lines = {
        "The silver astrolabe was last seen when Ottoline took charge."};
    for (size_t i = 0; i < places; ++i) lines.push_back("Then Ottoline sat by the stone well.");
    WordMemory m(With(lines));
    m.Ask(kAstrolabe);
    size_t followed = 0;
    double score = 0;
    for (const PlannedSpan& span : m.plan.spans) {
      if (span.hops == 0) continue;
      ++followed;
      score = span.score;
    }
    EXPECT_EQ(followed, places < 9 ? places : 0u);
    EXPECT_LT(score, before);
    before = score;
  }
}

// Names, and each of them stands in one other place.
TEST(MultiHop, ASentenceThatLeadsEverywhereLeadsNowhere) {
  const std::vector<std::string> names = {"Ottoline",  "Barnaby", "Quillon", "Fenwick",
                                          "Pellgrave", "Tamsin",  "Wexcombe"};
  for (const size_t count : {2u, 7u}) {
    std::vector<std::string> lines = {"The silver astrolabe"};
    for (size_t i = 0; i < count; ++i) {
      lines[0] += " " + names[i];
      lines.push_back("Then " + names[i] + " rested by the stone well.");
    }
    WordMemory m(With(lines));
    m.Ask(kAstrolabe);
    for (size_t i = 0; i < count; ++i)
      EXPECT_EQ(m.HopsTo(lines[i + 1]), count == 2 ? 1 : -1) << i << " of " << count;
  }
}

// Function words and words of the question are no keys, however rare.
TEST(MultiHop, OnlyNewWordsThatMeanSomethingAreFollowed) {
  WordMemory m(With({"The silver astrolabe whose silver was dull.", "Nobody knew whose it was.",
                     "Some silver was in the tent."}));
  m.Ask("Where is the silver astrolabe?", 1);
  ASSERT_EQ(m.plan.spans.size(), 1u);
  EXPECT_EQ(m.plan.spans[0].hops, 0u);
}

// A list of questions repeats what is asked, all but the number: it takes all the score, and the
// number's place is no candidate.
TEST(MultiHop, AWordOfTheQuestionThatNoSpanHoldsIsLookedUpByItself) {
  const std::vector<std::string> lines = {
      "Example: which gate of the harbour was given the wax seal with the crooked number?",
      "Seal 90417 belongs to Pellgrave.", "Ask Pellgrave about the water gate."};
  WordMemory m(With(lines));
  const std::string question =
      "Example: which gate of the harbour was given the wax seal with the crooked number 90417?";
  m.Ask(question, 1);
  EXPECT_EQ(m.HopsTo(lines[0]), 0);
  EXPECT_EQ(m.HopsTo(lines[1]), 0);
  EXPECT_EQ(m.HopsTo(lines[2]), 1);

  // What was judged and fell behind counts half.
  RecallQuery query;
  query.words = m.vocabulary.Words(m.Tokens(question));
  const RecallPlan all =
      *PlanRecall(*m.memory, m.profile,
                  {.words = m.vocabulary.Words(m.Tokens("90417")), .heads = {}}, 1, SerialFor);
  RecallPlan one = *PlanRecall(*m.memory, m.profile, query, 1, SerialFor);
  std::vector<PlannedSpan> judged = one.spans;
  judged.insert(judged.end(), all.spans.begin(), all.spans.end());
  ASSERT_EQ(judged.size(), 2u);
  MultiHop follow = m.For(question);
  const Result<bool> changed = follow.Extend(&one, judged);
  ASSERT_TRUE(changed.ok());
  EXPECT_TRUE(*changed);
  ASSERT_GE(one.spans.size(), 2u);
  EXPECT_THAT(m.TextOf(one.spans[1]), HasSubstr(lines[1]));
  EXPECT_LT(one.spans[1].score, 0.5);
  EXPECT_GT(m.plan.spans[1].score, 0.5);
}

// A solved example of the question, and the place of the one word that it lacks.
const std::string kExample =
    "Example: which gate of the harbour was given the wax seal with the crooked number?";
const std::string kSeal = "Seal 90417 belongs to Pellgrave.";
const std::string kSealQuestion =
    "Example: which gate of the harbour was given the wax seal with the crooked number 90417?";

// What was judged and fell behind, by what the question's key owes to it: `look` nats a token
// beside it, 3 beside the plan's span.
TEST(MultiHop, AWordThatAJudgedSpanHardlyExplainsIsNotLookedUp) {
  WordMemory m(With({kExample, kSeal}));
  const std::vector<TokenId> tokens = m.Tokens(kSealQuestion);
  const std::vector<LexicalWord> words = m.vocabulary.Words(tokens);
  const RecallPlan all =
      *PlanRecall(*m.memory, m.profile,
                  {.words = m.vocabulary.Words(m.Tokens("90417")), .heads = {}}, 1, SerialFor);
  for (const float look : {3.9f, 4.1f}) {
    RecallPlan plan =
        *PlanRecall(*m.memory, m.profile, {.words = words, .heads = {}}, 1, SerialFor);
    const std::vector<AskedWord> asked = AskedWords(words, plan.words, tokens, m.Pieces());
    std::vector<PlannedSpan> judged = {plan.spans[0], all.spans[0]};
    plan.spans[0].token_gains = judged[0].token_gains = std::vector<float>(tokens.size(), 3);
    judged[1].token_gains = std::vector<float>(tokens.size(), look);
    MultiHop follow(*m.memory, m.profile, m.vocabulary, m.Pieces(), tokens, asked, 0);
    ASSERT_TRUE(follow.Extend(&plan, judged).ok());
    bool found = false;
    for (const PlannedSpan& span : plan.spans)
      found |= m.TextOf(span).find(kSeal) != std::string::npos;
    EXPECT_EQ(found, look > 4) << look;
  }
}

// The same key, where it is one of the words that only say where the answer stands.
TEST(MultiHop, WordsThatAreAsideAreNotLookedUp) {
  WordMemory m(With({kExample, kSeal}));
  const std::vector<TokenId> tokens = m.Tokens(kSealQuestion);
  const std::vector<LexicalWord> words = m.vocabulary.Words(tokens);
  for (const bool is_aside : {false, true}) {
    std::vector<bool> aside(tokens.size(), false);
    if (is_aside)
      std::fill(aside.begin() + words.back().begin, aside.begin() + words.back().end, true);
    RecallPlan plan =
        *PlanRecall(*m.memory, m.profile, {.words = words, .heads = {}}, 1, SerialFor);
    const std::vector<PlannedSpan> judged = plan.spans;
    MultiHop follow(*m.memory, m.profile, m.vocabulary, m.Pieces(), tokens, {}, 0, aside);
    ASSERT_TRUE(follow.Extend(&plan, judged).ok());
    bool found = false;
    for (const PlannedSpan& span : plan.spans)
      found |= m.TextOf(span).find(kSeal) != std::string::npos;
    EXPECT_EQ(found, !is_aside);
  }
}

// The introduction is as good a span as the fact by its score, and "Barnaby" stands in it; but it
// holds less of the question.
TEST(MultiHop, ASpanThatHoldsLessOfTheQuestionLeadsNowhere) {
  const std::vector<std::string> lines = {
      "Many silver things that Barnaby saw are described below.",
      "Barnaby went to Wexcombe by barge.",
      "The silver astrolabe of the lighthouse hangs at Pellgrave's."};
  const std::string question = "Where is the silver astrolabe of the lighthouse?";
  for (const bool weighed : {false, true}) {
    WordMemory m(With(lines));
    const std::vector<TokenId> tokens = m.Tokens(question);
    const std::vector<LexicalWord> words = m.vocabulary.Words(tokens);
    m.plan = *PlanRecall(*m.memory, m.profile, {.words = words, .heads = {}}, 4, SerialFor);
    ASSERT_GE(m.plan.spans.size(), 2u);
    for (PlannedSpan& span : m.plan.spans) span.score = 1;
    const std::vector<AskedWord> asked = AskedWords(words, m.plan.words, tokens, m.Pieces());
    MultiHop follow(*m.memory, m.profile, m.vocabulary, m.Pieces(), tokens,
                    std::span(asked).first(weighed ? asked.size() : 0), 0);
    ASSERT_TRUE(follow.Extend(&m.plan, m.plan.spans).ok());
    EXPECT_EQ(m.HopsTo(lines[1]), weighed ? -1 : 1);
  }
}

// A lead into a span that the plan has already: no second span, but the span is moved up, and read
// on from there.
TEST(MultiHop, ALeadIntoASpanOfThePlanRaisesIt) {
  WordMemory m(With(kHandedOn));
  RecallQuery query;
  query.words = m.vocabulary.Words(m.Tokens(kAstrolabe));
  RecallPlan plan = *PlanRecall(*m.memory, m.profile, query, 1, SerialFor);
  const size_t planned = plan.spans.size();
  ASSERT_EQ(planned, 1u);
  RecallPlan second = *PlanRecall(
      *m.memory, m.profile,
      {.words = m.vocabulary.Words(m.Tokens("Barnaby dusk passed")), .heads = {}}, 1, SerialFor);
  ASSERT_EQ(second.spans.size(), 1u);
  ASSERT_THAT(m.TextOf(second.spans[0]), HasSubstr(kHandedOn[1]));
  second.spans[0].score = 0.2;
  plan.spans.push_back(second.spans[0]);
  MultiHop follow = m.For(kAstrolabe);
  ASSERT_TRUE(follow.Extend(&plan, plan.spans).ok());
  m.plan = plan;
  ASSERT_EQ(plan.spans.size(), 4u);
  EXPECT_EQ(plan.spans[1].tokens, second.spans[0].tokens);
  EXPECT_EQ(plan.spans[1].hops, 1u);
  EXPECT_GT(plan.spans[1].score, 0.5);
  EXPECT_LT(plan.spans[1].score, plan.spans[0].score);
  EXPECT_EQ(m.HopsTo(kHandedOn[2]), 2);
}

// Says `text` token by token, as an answer is generated; what After gives joins the plan. The
// texts' spans, by how many tokens were out.
std::vector<std::pair<size_t, std::string>> Say(WordMemory& m, MultiHop& follow,
                                                const std::string& text) {
  std::vector<std::pair<size_t, std::string>> found;
  const std::vector<TokenId> tokens = m.Tokens(text);
  for (size_t n = 1; n <= tokens.size(); ++n) {
    const Result<std::optional<PlannedSpan>> span =
        follow.After(std::span(tokens).first(n), m.plan);
    EXPECT_TRUE(span.ok()) << span.status().ToString();
    if (!span.ok() || !span->has_value()) continue;
    for (const PlannedSpan& other : m.plan.spans) {
      EXPECT_FALSE((*span)->tokens.begin < other.tokens.end &&
                   other.tokens.begin < (*span)->tokens.end);
    }
    m.plan.spans.push_back(**span);
    found.emplace_back(n, m.TextOf(**span));
  }
  return found;
}

TEST(MultiHop, ARefreshComesAtAWordsEndAndNotForWhatIsInView) {
  const std::vector<std::string> lines = {"The lamp of Ottoline was lit at dawn.",
                                          "Some say Quillon has the rope.",
                                          "The key is with Fenwick now."};
  const std::string said = "It is Ottoline, or maybe Quillon, or else Fenwick. I do not know more.";
  WordMemory m(With(lines));
  {
    MultiHop follow = m.For("Who had it?");
    const auto found = Say(m, follow, said);
    ASSERT_EQ(found.size(), 2u) << "generation_spans";
    EXPECT_THAT(found[0].second, HasSubstr(lines[0]));
    EXPECT_THAT(found[1].second, HasSubstr(lines[1]));
    for (const auto& [n, text] : found) EXPECT_EQ(n % 8, 0u) << "it looks every eight tokens";
    const std::vector<TokenId> tokens = m.Tokens(said);
    std::string out;
    for (size_t t = 0; t < found[0].first; ++t) out += m.model.Piece(tokens[t]);
    EXPECT_THAT(out, HasSubstr("Ottoline,"));
    EXPECT_EQ(m.plan.spans.size(), 2u);
  }
  {
    // The plan shows the first already, and the question named the second.
    m.plan.spans.resize(1);
    MultiHop follow = m.For("Was it Quillon?");
    const auto found = Say(m, follow, said);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_THAT(found[0].second, HasSubstr(lines[2]));
  }
  {
    // Words that are no names: the lines with them are left alone, as is a word that begins a
    // sentence.
    m.plan.spans.clear();
    MultiHop follow = m.For("Who had it?");
    EXPECT_THAT(Say(m, follow,
                    "He lit the lamp with a rope. Lamp, rope: all the same to me, he said then."),
                IsEmpty());
  }
  {
    m.plan.spans.clear();
    m.profile.generation_spans = 0;
    MultiHop follow = m.For("Who had it?");
    EXPECT_THAT(Say(m, follow, said), IsEmpty());
  }
}

}  // namespace
}  // namespace longhold
