// Compares DenseSignal with its formula over the stored vectors, and asks the engine questions in
// other words than the text's.
//
// The formula is computed from the segments in the store: every sentence is decoded and compared
// with the question's vector. 1e-5 (kTolerance) allows for FAISS's float sums. The toy embedder
// knows some synonyms, so that "physician" and "doctor" are the same to it and share no word. Texts
// of 3,000 to 9,000 bytes, which are nearly tokens here, have 50 to 140 blocks.
#include "memory/recall/dense_signal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "memory/engine.h"
#include "memory/ingest/ingest.h"
#include "memory/model/recall_profile.h"
#include "memory/recall/question.h"
#include "memory/record/record_keys.h"
#include "store/mem_provider.h"
#include "store/mem_store.h"
#include "tests/support/tales.h"
#include "tests/support/toy_embedder.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

constexpr char kNeedle[] = "The physician purchased a crimson automobile in the autumn.\n";
constexpr char kQuestion[] = "Which doctor buys red cars?";  // shares no word with the needle

constexpr double kTolerance = 1e-5;

RecallProfile Profile() {
  RecallProfile p;
  p.name = "words-and-meaning";
  p.rerank_spans = 0;  // the toy's likelihoods are noise
  p.signals = {{std::string(kWordSignal), 1}, {std::string(kDenseSignal), 1}};
  p.window_tokens = 64;
  return p;
}

std::string Tale() {
  std::string text = PlainText(9000, 1);
  text.insert(text.find('\n', 5000) + 1, kNeedle);
  return text;
}

// A memory with vectors.
struct World : Tales {
  ToyEmbedder embedder;
  RecallProfile profile = Profile();
  std::unique_ptr<ColdStore> store = NewMemStore();
  std::unique_ptr<Memory> memory;

  explicit World(const std::vector<std::string>& texts, bool embed = true) {
    memory = std::move(Memory::Create(Borrow(*store), "tales", model.info(), profile)).value();
    if (embed) memory->UseEmbedder(&embedder);
    for (size_t i = 0; i < texts.size(); ++i) {
      EXPECT_TRUE(IngestDocument(model, *memory, vocabulary, {std::to_string(i), texts[i]}, nullptr,
                                 nullptr)
                      .ok());
    }
    EXPECT_TRUE(memory->LoadIndexes().ok());
  }
  std::vector<SignalCandidate> Score(const std::vector<float>& vector, size_t blocks_max) {
    ModelContext context;
    context.model = &model;
    context.profile = profile;
    MemoryBudget budget(uint64_t{1} << 30);
    Notes notes;
    const SignalList signals;
    Question question{context, *memory, budget, notes, signals};
    question.vector = vector;
    Result<SignalScores> scores = DenseSignal().Score(question, blocks_max);
    EXPECT_TRUE(scores.ok()) << scores.status().ToString();
    if (!scores.ok()) return {};
    EXPECT_EQ(scores->token_shares, nullptr);
    // The nearest blocks keep a place in the plan.
    EXPECT_LE(scores->cover.size(), 3u);
    for (size_t i = 0; i < scores->cover.size(); ++i)
      EXPECT_EQ(scores->cover[i].block, scores->blocks[i].block);
    return std::move(scores->blocks);
  }
  std::vector<float> Vector(const std::string& question) { return *embedder.Embed(question); }

  // What the header's formula gives each block, and the tokens in the middle of its sentences.
  struct Block {
    // By all sentences that may count, and by those that do so whatever the rounding: of a cosine
    // that is nearly 0 nobody knows the sign.
    double score = 0, certain = 0;
    std::set<uint64_t> centres;
  };
  std::map<BlockKey, Block> Formula(const std::vector<float>& vector) {
    std::map<BlockKey, Block> blocks;
    for (const DocumentRecord& d : memory->documents()) {
      for (uint32_t n = 0; uint64_t{n} * kCommitTokens < d.tokens; ++n) {
        const PassageSegment segment =
            *PassageSegment::Decode(*store->Get(Table::kIndex, PassagesKey(d.id, n)));
        const auto component = [&](uint32_t s, size_t c) {
          return (2.0 * segment.codes[s * segment.dim + c] - 254) / 255 * double{kPassageRange};
        };
        for (uint32_t p = 0; p < segment.passages.size(); ++p) {
          const uint32_t end = p + 1 < segment.passages.size()
                                   ? segment.passages[p + 1]
                                   : static_cast<uint32_t>(segment.sentences.size());
          double product = 0, square = 0;
          for (size_t c = 0; c < segment.dim; ++c) {
            double sum = 0;
            for (uint32_t s = segment.passages[p]; s < end; ++s) sum += component(s, c);
            product += sum * vector[c];
            square += sum * sum;
          }
          for (uint32_t s = segment.passages[p]; s < end; ++s) {
            double cosine = 0;
            for (size_t c = 0; c < segment.dim; ++c) cosine += component(s, c) * vector[c];
            if (cosine <= -kTolerance) continue;
            const TokenSpan span = segment.Sentence(s);
            const uint64_t centre = (span.begin + span.end) / 2;
            Block& block = blocks[{d.id, static_cast<uint32_t>(centre / kBlockTokens)}];
            const double score = 0.9 * std::min(cosine, 1.0) + 0.1 * product / std::sqrt(square);
            block.score = std::max(block.score, score);
            if (cosine > kTolerance) block.certain = std::max(block.certain, score);
            block.centres.insert(centre);
          }
        }
      }
    }
    return blocks;
  }
};

TEST(DenseSignal, ScoresBlocksByTheNearestSentenceInThem) {
  World w({Tale(), PlainText(3000, 2), RandomText(3000, 3)});
  for (const char* question : {kQuestion, "the elder and his tent", "12 camels", "number 7"}) {
    SCOPED_TRACE(question);
    const std::vector<float> vector = w.Vector(question);
    const std::map<BlockKey, World::Block> expected = w.Formula(vector);
    size_t positive = 0;
    for (const auto& [key, block] : expected) positive += block.certain > kTolerance ? 1 : 0;
    ASSERT_GT(positive, 40u);
    for (const size_t blocks_max : {size_t{1}, size_t{10}, size_t{10000}}) {
      const std::vector<SignalCandidate> found = w.Score(vector, blocks_max);
      ASSERT_LE(found.size(), blocks_max);
      const bool all = blocks_max > positive;
      EXPECT_TRUE(!all || found.size() >= positive) << found.size();
      std::set<BlockKey> seen;
      for (size_t i = 0; i < found.size(); ++i) {
        EXPECT_GT(found[i].score, 0);
        EXPECT_TRUE(seen.insert(found[i].block).second) << "a block twice";
        ASSERT_TRUE(expected.contains(found[i].block));
        const World::Block& block = expected.at(found[i].block);
        // With few blocks asked for, not every sentence of a block is looked at.
        EXPECT_LE(found[i].score, block.score + kTolerance);
        EXPECT_GE(found[i].score, all ? block.certain - kTolerance : 0);
        ASSERT_TRUE(found[i].peak.has_value());
        EXPECT_EQ(*found[i].peak / kBlockTokens, found[i].block.block);
        EXPECT_THAT(block.centres, Contains(*found[i].peak));
      }
    }
  }
}

TEST(DenseSignal, PointsAtThePlaceThatSaysItInOtherWords) {
  World w({PlainText(3000, 2), Tale()});
  const std::vector<SignalCandidate> found = w.Score(w.Vector(kQuestion), 10);
  ASSERT_FALSE(found.empty());
  EXPECT_GT(found[0].score, 0.6);
  EXPECT_EQ(found[0].block.document, w.memory->Find("1")->id);
  const ByteSpan peak =
      w.memory->Locate(found[0].block.document, {*found[0].peak, *found[0].peak + 1})->bytes;
  const size_t needle = Tale().find(kNeedle);
  EXPECT_GE(peak.begin, needle);
  EXPECT_LT(peak.begin, needle + sizeof kNeedle);
}

// SignalCandidate::score is a share of 1. Rounded to codes, vectors of length 1 may be longer.
TEST(DenseSignal, NoScoreIsAboveOne) {
  World w({"The physician purchased a crimson automobile.",
           "An elder of the flock went to the altar.", "Seven camels drank at the well.",
           "The river was wide and the desert was dry.", "Noah built an ark of gopher wood.",
           "Methuselah lived for many years.", "Two servants carried stones.",
           "The bride came by ship."});
  for (uint32_t i = 0; i < 8; ++i) {
    const PassageSegment segment =
        *PassageSegment::Decode(*w.store->Get(Table::kIndex, PassagesKey(DocumentId{i + 1}, 0)));
    ASSERT_THAT(segment.sentences, SizeIs(1));
    // the sentence's own vector
    std::vector<float> vector;
    double squares = 0;
    for (const uint8_t code : segment.codes) {
      vector.push_back((2.0f * code - 254) / 255 * kPassageRange);
      squares += double{vector.back()} * vector.back();
    }
    for (float& c : vector) c = static_cast<float>(c / std::sqrt(squares));
    const std::vector<SignalCandidate> found = w.Score(vector, 1);
    ASSERT_THAT(found, SizeIs(1));
    EXPECT_LE(found[0].score, 1.0);
    EXPECT_GT(found[0].score, 0.99);
  }
}

TEST(DenseSignal, PutsNothingForwardWithoutVectors) {
  World with({Tale()}), without({Tale()}, /*embed=*/false);
  EXPECT_THAT(with.Score({}, 10), IsEmpty()) << "no embedder made the question's vector";
  EXPECT_THAT(without.Score(without.Vector(kQuestion), 10), IsEmpty());
  EXPECT_THAT(with.Score(with.Vector(kQuestion), 0), IsEmpty());
  // The opposite of what every sentence says.
  World one({"The physician purchased a crimson automobile."});
  std::vector<float> opposite = one.Vector("The physician purchased a crimson automobile.");
  for (float& c : opposite) c = -c;
  EXPECT_THAT(one.Score(opposite, 10), IsEmpty());
}

TEST(DenseSignal, AVectorOfAnotherDimensionIsAnError) {
  World w({Tale()});
  ModelContext context;
  context.model = &w.model;
  MemoryBudget budget(uint64_t{1} << 30);
  Notes notes;
  const SignalList signals;
  Question question{context, *w.memory, budget, notes, signals};
  question.vector.assign(ToyEmbedder::kDim + 1, 0.1f);
  EXPECT_EQ(DenseSignal().Score(question, 10).status().code(), StatusCode::kInvalidArgument);
}

// ---- In the engine

class DenseRecallTest : public testing::Test {
 protected:
  // Simulates a new process.
  void Use(TextEmbedder* embedder, const RecallProfile& profile = Profile()) {
    engine_ = std::make_unique<Engine>(stores_.get(), EngineOptions{});
    ASSERT_TRUE(engine_->UseModel(&model_, &profile, embedder).ok());
  }
  Status Ingest(const std::string& text) {
    return engine_->Ingest("tales", {"tale", text}, nullptr, nullptr).status();
  }
  RecallReply Recall(const std::string& question) {
    Result<RecallReply> reply = engine_->Recall("tales", question, {.explain = true});
    EXPECT_TRUE(reply.ok()) << reply.status().ToString();
    return reply.ok() ? std::move(*reply) : RecallReply{};
  }
  std::string Texts(const RecallReply& reply) {
    std::string texts;
    for (const RecalledSpan& span : reply.spans) texts += span.text + "\n---\n";
    return texts;
  }

  const std::unique_ptr<MemProvider> stores_ = NewMemProvider();
  ToyModel model_;
  ToyEmbedder embedder_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(DenseRecallTest, AQuestionInOtherWordsFindsItsPlace) {
  Use(&embedder_);
  ASSERT_TRUE(Ingest(Tale()).ok());
  const RecallReply reply = Recall(kQuestion);
  ASSERT_FALSE(reply.spans.empty());
  EXPECT_THAT(reply.spans[0].text, HasSubstr(kNeedle));
  EXPECT_THAT(reply.spans[0].reasons, Contains(std::string(kDenseSignal)));
  EXPECT_THAT(reply.spans[0].reasons, Not(Contains(std::string(kWordSignal))));
  ASSERT_FALSE(reply.explained.empty());
  EXPECT_THAT(reply.explained[0].signals,
              Contains(testing::Field(&SignalScore::signal, std::string(kDenseSignal))));
  EXPECT_THAT(engine_->TakeNotes(), IsEmpty());
}

TEST_F(DenseRecallTest, WithoutAnEmbedderOnlyTheSameWordsFindIt) {
  Use(nullptr);
  ASSERT_TRUE(Ingest(Tale()).ok());
  EXPECT_THAT(Texts(Recall(kQuestion)), Not(HasSubstr("crimson")));
  EXPECT_THAT(Texts(Recall("Who purchased the automobile?")), HasSubstr(kNeedle));
  EXPECT_THAT(engine_->TakeNotes(), IsEmpty());
}

TEST_F(DenseRecallTest, AMemoryWithoutVectorsSaysSoUntilItIsReindexed) {
  Use(nullptr);
  ASSERT_TRUE(Ingest(Tale()).ok());
  Use(&embedder_);
  EXPECT_THAT(Texts(Recall(kQuestion)), Not(HasSubstr("crimson")));
  EXPECT_EQ(embedder_.call_count, 0u) << "the question is not embedded either";
  EXPECT_THAT(engine_->TakeNotes(),
              Contains(testing::AllOf(HasSubstr("have no vectors of this embedding model"),
                                      HasSubstr("longhold reindex tales"))));
  ASSERT_TRUE(engine_->Reindex("tales", nullptr).ok());
  EXPECT_THAT(Texts(Recall(kQuestion)), HasSubstr(kNeedle));
  EXPECT_THAT(engine_->TakeNotes(), IsEmpty());
}

TEST_F(DenseRecallTest, ASignalWithoutAWeightEmbedsNoQuestion) {
  RecallProfile profile = Profile();
  profile.signals[std::string(kDenseSignal)] = 0;
  Use(&embedder_, profile);
  ASSERT_TRUE(Ingest(Tale()).ok());
  const uint64_t before = embedder_.call_count;
  EXPECT_THAT(Texts(Recall(kQuestion)), Not(HasSubstr("crimson")));
  EXPECT_EQ(embedder_.call_count, before);
}

TEST_F(DenseRecallTest, WithoutTheQuestionsVectorTheOtherSignalsAreAsked) {
  Use(&embedder_);
  ASSERT_TRUE(Ingest(Tale()).ok());
  embedder_.fail_at_call = embedder_.call_count + 1;
  EXPECT_TRUE(engine_->Recall("tales", kQuestion, {}).ok());
  EXPECT_THAT(engine_->TakeNotes(), Contains(HasSubstr("the question was not embedded")));
  EXPECT_THAT(Texts(Recall(kQuestion)), HasSubstr(kNeedle));
}

// The model reads some 1,000 bytes. A question stands at the end of a long message.
TEST_F(DenseRecallTest, OfALongMessageTheEndIsEmbedded) {
  Use(&embedder_);
  ASSERT_TRUE(Ingest(Tale()).ok());
  const auto embedded = [&](const std::string& question) {
    embedder_.reads.clear();
    Recall(question);
    EXPECT_THAT(embedder_.reads, SizeIs(1));
    return embedder_.reads.empty() ? "" : embedder_.reads[0].parts[0];
  };
  EXPECT_EQ(embedded(kQuestion), kQuestion);
  const std::string message = PlainText(3000, 9) + kQuestion;
  const std::string end = embedded(message);
  EXPECT_LE(end.size(), 1000u);
  EXPECT_GT(end.size(), 900u);
  EXPECT_TRUE(message.ends_with(end));
  EXPECT_EQ(message[message.size() - end.size() - 1], ' ') << "a whole word";
}

TEST_F(DenseRecallTest, OfALongMessageWithoutSpacesTheEndIsEmbeddedInWholeCharacters) {
  Use(&embedder_);
  ASSERT_TRUE(Ingest(Tale()).ok());
  std::string message;
  for (int i = 0; i < 500; ++i) message += "東";
  for (const char* last : {"", "?", "?\n"}) {
    embedder_.reads.clear();
    Recall(message + last);
    ASSERT_THAT(embedder_.reads, SizeIs(1));
    const std::string end = embedder_.reads[0].parts[0];
    EXPECT_GT(end.size(), 900u) << "message ends with \"" << last << "\"";
    EXPECT_LE(end.size(), 1000u);
    if (!end.empty()) {
      EXPECT_NE(end[0] & 0xC0, 0x80) << "begins within a character";
    }
  }
}

}  // namespace
}  // namespace longhold
