// Multi-hop retrieval on memories with words only. No model runs, so it is known which place leads
// to which. A bridge term is a word of one span that leads to the next.
//
// What must hold: a chain of places, each naming the next, is found to its end. The texts are about
// people who hand a thing on, settings that refer to settings, and a value and its replacement. A
// term that many places share leads nowhere. The bounds, order and disjointness of spans that
// multi_hop.h promises hold. Tokens are nearly bytes here: a filler of 16,000 bytes is some 250
// blocks, and a bridge term may occur in 8 of them. The links of a chain are 3,000 bytes apart, so
// no span holds two.
#include "memory/recall/multi_hop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "memory/ingest/ingest.h"
#include "store/mem_store.h"
#include "tests/support/fused_plan.h"
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
  std::unique_ptr<QuestionText> text;  // of the last MultiHop made

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
      EXPECT_TRUE(memory->Commit(id, end, {.text = {.lexical = lexical}}, nullptr, nullptr).ok());
    }
    EXPECT_TRUE(memory->LoadIndexes().ok());
  }
  std::vector<TokenId> Tokens(const std::string& text) const {
    return *model.Tokenize(text, false);
  }
  std::function<std::string(TokenId)> Pieces() const {
    return [this](TokenId token) { return model.Piece(token); };
  }
  MultiHop For(const std::string& question) { return With({.tokens = Tokens(question)}); }
  MultiHop With(const MultiHop::Asked& asked) {
    text = std::make_unique<QuestionText>(memory.get(), &vocabulary);
    return MultiHop(*memory, profile, vocabulary, *text, Pieces(), asked);
  }

  RecallPlan Plan(const std::vector<LexicalWord>& words, uint32_t spans) {
    HandQuery query;
    query.words = words;
    Result<RecallPlan> fused = FusedPlan(*memory, model, profile, query, spans);
    return std::move(*fused);
  }

  // Plans at most `spans` spans for `question` and extends the plan. Checks the rules that hold for
  // all spans.
  void Ask(const std::string& question, uint32_t spans = 4) {
    plan = Plan(vocabulary.Words(Tokens(question)), spans);
    const size_t planned = plan.spans.size();
    const std::vector<PlannedSpan> judged = plan.spans;
    MultiHop multi_hop = For(question);
    const Result<bool> changed = multi_hop.Extend(&plan.spans, judged);
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
  // The number of hops after which a span of the plan contains `words`, or -1 if none does.
  int HopsTo(const std::string& words) {
    for (const PlannedSpan& span : plan.spans) {
      if (TextOf(span).find(words) != std::string::npos) return static_cast<int>(span.hops);
    }
    return -1;
  }
};

// Filler with each of `lines` on its own line, 3,000 bytes apart.
std::string With(const std::vector<std::string>& lines) {
  std::string text = PlainText(std::max<size_t>(16000, 3000 * (lines.size() + 1)), 1);
  for (size_t i = lines.size(); i-- > 0;)
    text.insert(text.find('\n', 3000 * (i + 1) - 1500) + 1, lines[i] + "\n");
  return text;
}

const std::vector<std::string> kChain = {
    "The silver astrolabe was last seen when Ottoline took charge.",
    "On leaving, Ottoline passed everything to Barnaby at dusk.",
    "Whatever Barnaby owned was sent up to Wexcombe by barge.",
    "In Wexcombe it hangs above the counter of Pellgrave's shop.",
};
constexpr char kAstrolabe[] = "Where is the silver astrolabe?";

TEST(BridgeTermsOf, AreWordsAndTermsWrittenWithoutASpace) {
  WordMemory m;
  const auto spelled = [&](const std::string& text) {
    const std::vector<TokenId> tokens = m.Tokens(text);
    std::vector<std::string> keys;
    for (const auto& key : BridgeTermsOf(m.vocabulary, m.Pieces(), tokens)) {
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
  WordMemory m(With(kChain));
  m.Ask(kAstrolabe);
  EXPECT_EQ(m.HopsTo(kChain[0]), 0);
  EXPECT_EQ(m.HopsTo(kChain[1]), 1);
  EXPECT_EQ(m.HopsTo(kChain[2]), 2);
  EXPECT_EQ(m.HopsTo(kChain[3]), 3);
}

// Each part of such a name occurs in a hundred lines; the whole name occurs in two.
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

TEST(MultiHop, StopsAtItsLimits) {
  for (const uint32_t hops : {0u, 1u, 2u}) {
    WordMemory m(With(kChain));
    m.profile.hops_max = hops;
    m.Ask(kAstrolabe);
    for (size_t i = 1; i < kChain.size(); ++i)
      EXPECT_EQ(m.HopsTo(kChain[i]), i <= hops ? static_cast<int>(i) : -1) << hops;
  }
  for (const uint32_t spans : {0u, 1u, 2u}) {
    WordMemory m(With(kChain));
    m.profile.hop_spans = spans;
    m.Ask(kAstrolabe);
    for (size_t i = 1; i < kChain.size(); ++i)
      EXPECT_EQ(m.HopsTo(kChain[i]), i <= spans ? static_cast<int>(i) : -1) << spans;
  }
}

// The same name in more and more places. Two places are followed, each with a lower score; nine are
// not.
TEST(MultiHop, ATermSharedByManyPlacesLeadsNowhere) {
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

// A sentence with many names, each of which occurs in one other place.
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

// Function words and words of the question are not bridge terms, however rare they are.
TEST(MultiHop, OnlyNewContentWordsAreFollowed) {
  WordMemory m(With({"The silver astrolabe whose silver was dull.", "Nobody knew whose it was.",
                     "Some silver was in the tent."}));
  m.Ask("Where is the silver astrolabe?", 1);
  ASSERT_EQ(m.plan.spans.size(), 1u);
  EXPECT_EQ(m.plan.spans[0].hops, 0u);
}

// A list of questions repeats the question except for its number. It takes all the score, and the
// place of the number is not a candidate.
TEST(MultiHop, AQuestionWordThatNoSpanHoldsIsSearchedByItself) {
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

  // A candidate that was reranked and ranked lower counts half.
  const RecallPlan all = m.Plan(m.vocabulary.Words(m.Tokens("90417")), 1);
  RecallPlan one = m.Plan(m.vocabulary.Words(m.Tokens(question)), 1);
  std::vector<PlannedSpan> judged = one.spans;
  judged.insert(judged.end(), all.spans.begin(), all.spans.end());
  ASSERT_EQ(judged.size(), 2u);
  MultiHop multi_hop = m.For(question);
  const Result<bool> changed = multi_hop.Extend(&one.spans, judged);
  ASSERT_TRUE(changed.ok());
  EXPECT_TRUE(*changed);
  ASSERT_GE(one.spans.size(), 2u);
  EXPECT_THAT(m.TextOf(one.spans[1]), HasSubstr(lines[1]));
  EXPECT_LT(one.spans[1].score, 0.5);
  EXPECT_GT(m.plan.spans[1].score, 0.5);
}

// A worked example of the question, and the place of the one word that the example lacks.
const std::string kExample =
    "Example: which gate of the harbour was given the wax seal with the crooked number?";
const std::string kSeal = "Seal 90417 belongs to Pellgrave.";
const std::string kSealQuestion =
    "Example: which gate of the harbour was given the wax seal with the crooked number 90417?";

// A candidate that was reranked and ranked lower. Given this span the question's term gains `gain`
// nats per token; given the plan's span it gains 3.
TEST(MultiHop, AWordThatARerankedSpanHardlyExplainsIsNotSearched) {
  WordMemory m(With({kExample, kSeal}));
  const std::vector<TokenId> tokens = m.Tokens(kSealQuestion);
  const std::vector<LexicalWord> words = m.vocabulary.Words(tokens);
  const RecallPlan all = m.Plan(m.vocabulary.Words(m.Tokens("90417")), 1);
  for (const float gain : {3.9f, 4.1f}) {
    RecallPlan plan = m.Plan(words, 1);
    const std::vector<AskedWord> asked =
        AskedWords(words, m.memory->lexical().Query(words, 1).words, tokens, m.Pieces());
    std::vector<PlannedSpan> judged = {plan.spans[0], all.spans[0]};
    plan.spans[0].token_gains = judged[0].token_gains = std::vector<float>(tokens.size(), 3);
    judged[1].token_gains = std::vector<float>(tokens.size(), gain);
    MultiHop multi_hop = m.With({.tokens = tokens, .words = asked});
    ASSERT_TRUE(multi_hop.Extend(&plan.spans, judged).ok());
    bool found = false;
    for (const PlannedSpan& span : plan.spans)
      found |= m.TextOf(span).find(kSeal) != std::string::npos;
    EXPECT_EQ(found, gain > 4) << gain;
  }
}

// The same term, marked as one of the words that only say where the answer is.
TEST(MultiHop, WordsThatOnlyReferToTheTextAreNotSearched) {
  WordMemory m(With({kExample, kSeal}));
  const std::vector<TokenId> tokens = m.Tokens(kSealQuestion);
  const std::vector<LexicalWord> words = m.vocabulary.Words(tokens);
  for (const bool is_aside : {false, true}) {
    std::vector<bool> aside(tokens.size(), false);
    if (is_aside)
      std::fill(aside.begin() + words.back().begin, aside.begin() + words.back().end, true);
    RecallPlan plan = m.Plan(words, 1);
    const std::vector<PlannedSpan> judged = plan.spans;
    MultiHop multi_hop = m.With({.tokens = tokens, .aside = aside});
    ASSERT_TRUE(multi_hop.Extend(&plan.spans, judged).ok());
    bool found = false;
    for (const PlannedSpan& span : plan.spans)
      found |= m.TextOf(span).find(kSeal) != std::string::npos;
    EXPECT_EQ(found, !is_aside);
  }
}

// By its score the introduction is as good as the fact, and it contains "Barnaby". But it holds
// less of the question.
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
    m.plan = m.Plan(words, 4);
    ASSERT_GE(m.plan.spans.size(), 2u);
    for (PlannedSpan& span : m.plan.spans) span.score = 1;
    const std::vector<AskedWord> asked =
        AskedWords(words, m.memory->lexical().Query(words, 1).words, tokens, m.Pieces());
    MultiHop multi_hop =
        m.With({.tokens = tokens, .words = std::span(asked).first(weighed ? asked.size() : 0)});
    ASSERT_TRUE(multi_hop.Extend(&m.plan.spans, m.plan.spans).ok());
    EXPECT_EQ(m.HopsTo(lines[1]), weighed ? -1 : 1);
  }
}

// A bridge term may lead into a span that the plan already has. That span is not added twice; its
// score rises, and the next hop starts from it.
TEST(MultiHop, ABridgeTermIntoASpanOfThePlanRaisesItsScore) {
  WordMemory m(With(kChain));
  RecallPlan plan = m.Plan(m.vocabulary.Words(m.Tokens(kAstrolabe)), 1);
  const size_t planned = plan.spans.size();
  ASSERT_EQ(planned, 1u);
  RecallPlan second = m.Plan(m.vocabulary.Words(m.Tokens("Barnaby dusk passed")), 1);
  ASSERT_EQ(second.spans.size(), 1u);
  ASSERT_THAT(m.TextOf(second.spans[0]), HasSubstr(kChain[1]));
  second.spans[0].score = 0.2;
  plan.spans.push_back(second.spans[0]);
  MultiHop multi_hop = m.For(kAstrolabe);
  ASSERT_TRUE(multi_hop.Extend(&plan.spans, plan.spans).ok());
  m.plan.spans = plan.spans;
  ASSERT_EQ(plan.spans.size(), 4u);
  EXPECT_EQ(plan.spans[1].tokens, second.spans[0].tokens);
  EXPECT_EQ(plan.spans[1].hops, 1u);
  EXPECT_GT(plan.spans[1].score, 0.5);
  EXPECT_LT(plan.spans[1].score, plan.spans[0].score);
  EXPECT_EQ(m.HopsTo(kChain[2]), 2);
}

// Passes `text` to OnToken token by token, as an answer is generated. Spans that OnToken returns
// join the plan. Returns their texts with the number of tokens generated by then.
std::vector<std::pair<size_t, std::string>> Generate(WordMemory& m, MultiHop& multi_hop,
                                                     const std::string& text) {
  std::vector<std::pair<size_t, std::string>> found;
  const std::vector<TokenId> tokens = m.Tokens(text);
  for (size_t n = 1; n <= tokens.size(); ++n) {
    const Result<std::optional<PlannedSpan>> span =
        multi_hop.OnToken(std::span(tokens).first(n), m.plan.spans);
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

TEST(MultiHop, RetrievalDuringGenerationComesAfterAWordAndOnlyForUnseenSpans) {
  const std::vector<std::string> lines = {"The lamp of Ottoline was lit at dawn.",
                                          "Some say Quillon has the rope.",
                                          "The key is with Fenwick now."};
  const std::string answer =
      "It is Ottoline, or maybe Quillon, or else Fenwick. I do not know more.";
  WordMemory m(With(lines));
  {
    MultiHop multi_hop = m.For("Who had it?");
    const auto found = Generate(m, multi_hop, answer);
    ASSERT_EQ(found.size(), 2u) << "generation_spans";
    EXPECT_THAT(found[0].second, HasSubstr(lines[0]));
    EXPECT_THAT(found[1].second, HasSubstr(lines[1]));
    for (const auto& [n, text] : found) EXPECT_EQ(n % 8, 0u) << "it retrieves every eight tokens";
    const std::vector<TokenId> tokens = m.Tokens(answer);
    std::string out;
    for (size_t t = 0; t < found[0].first; ++t) out += m.model.Piece(tokens[t]);
    EXPECT_THAT(out, HasSubstr("Ottoline,"));
    EXPECT_EQ(m.plan.spans.size(), 2u);
  }
  {
    // The plan already has the first span, and the question named the second.
    m.plan.spans.resize(1);
    MultiHop multi_hop = m.For("Was it Quillon?");
    const auto found = Generate(m, multi_hop, answer);
    ASSERT_EQ(found.size(), 1u);
    EXPECT_THAT(found[0].second, HasSubstr(lines[2]));
  }
  {
    // Words that are not names. Lines that contain them are not retrieved, nor is a word that
    // begins a sentence.
    m.plan.spans.clear();
    MultiHop multi_hop = m.For("Who had it?");
    EXPECT_THAT(
        Generate(m, multi_hop,
                 "He lit the lamp with a rope. Lamp, rope: all the same to me, he said then."),
        IsEmpty());
  }
  {
    m.plan.spans.clear();
    m.profile.generation_spans = 0;
    MultiHop multi_hop = m.For("Who had it?");
    EXPECT_THAT(Generate(m, multi_hop, answer), IsEmpty());
  }
}

}  // namespace
}  // namespace longhold
