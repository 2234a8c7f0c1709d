// Query expansion by embeddings that the test makes. Words of one group share a direction. All
// words share another, much stronger direction, as frequent and rare tokens of real models do.
#include "memory/index/query_expansion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>

namespace longhold {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr uint32_t kWidth = 48;

// A vocabulary of bytes, then words; words of one group are near each other.
struct World {
  std::vector<std::string> pieces;
  std::vector<float> vectors;
  std::unique_ptr<LexicalVocabulary> vocabulary;
  std::unique_ptr<QueryExpansion> expansion;
  LexicalIndex index;

  explicit World(float common = 30) {
    for (int b = 0; b < 256; ++b) pieces.emplace_back(1, static_cast<char>(b));
    const std::vector<std::vector<const char*>> groups = {
        {" doctor", " doctors", " Doctor", " physician", " surgeon"},
        {" king", " monarch", " queen"},
        {" ship", " vessel"},
        {" the", " which"},
        {" 1234", " 12345"},
        {" Schule", " school"}};
    std::mt19937 rng(4);
    std::normal_distribution<float> normal;
    const auto random = [&](float length) {
      std::vector<float> v(kWidth);
      for (float& x : v) x = normal(rng) * length / std::sqrt(static_cast<float>(kWidth));
      return v;
    };
    const std::vector<float> everywhere = random(1), mean = random(3);
    const auto add = [&](const std::vector<float>& group) {
      const std::vector<float> own = random(0.6f);
      const float along = common * normal(rng);
      for (uint32_t i = 0; i < kWidth; ++i)
        vectors.push_back(mean[i] + group[i] + own[i] + along * everywhere[i]);
    };
    for (int b = 0; b < 256; ++b) add(random(1));
    for (const auto& group : groups) {
      const std::vector<float> direction = random(1);
      for (const char* word : group) {
        pieces.emplace_back(word);
        add(direction);
      }
    }
    // Words of no group, so that the mean of all vectors is meaningful.
    for (int i = 0; i < 600; ++i) {
      std::string word = " q";
      for (int n = i + 26; n > 0; n /= 26) word += static_cast<char>('a' + n % 26);
      pieces.push_back(word + "x");
      add(random(1));
    }
    vocabulary = std::make_unique<LexicalVocabulary>(pieces);
    expansion = std::make_unique<QueryExpansion>(
        *vocabulary, kWidth, [this](std::span<const TokenId> tokens, float* out) {
          for (const TokenId t : tokens)
            out = std::copy_n(vectors.begin() + static_cast<ptrdiff_t>(t) * kWidth, kWidth, out);
        });
  }

  std::vector<TokenId> Tokens(std::string_view text) const {
    std::vector<TokenId> out;
    while (!text.empty()) {
      TokenId best = static_cast<uint8_t>(text[0]);
      for (size_t i = 256; i < pieces.size(); ++i) {
        if (pieces[i].size() > pieces[static_cast<size_t>(best)].size() &&
            text.starts_with(pieces[i]))
          best = static_cast<TokenId>(i);
      }
      out.push_back(best);
      text.remove_prefix(pieces[static_cast<size_t>(best)].size());
    }
    return out;
  }
  void Hold(std::string_view text) {
    auto segment = std::make_shared<const LexicalSegment>(
        LexicalSegment::Build(*vocabulary, DocumentId{1}, 0, {}, Tokens(text)));
    ASSERT_TRUE(index.Add(segment).ok());
  }
  std::vector<ExpansionWord> Find(std::string_view question,
                                  const ParallelFor& parallel = SerialFor) const {
    const std::vector<TokenId> tokens = Tokens(question);
    return expansion->Find(vocabulary->Words(tokens), tokens, index, parallel);
  }
  std::vector<std::string> Found(std::string_view question) const {
    std::vector<std::string> out;
    for (const ExpansionWord& r : Find(question))
      out.push_back(pieces[static_cast<size_t>(r.token)]);
    std::sort(out.begin(), out.end());
    return out;
  }
};

TEST(QueryExpansion, FindsNearbyWordsThatTheMemoryContains) {
  World world;
  world.Hold(" physician saw the vessel, and the monarch");
  EXPECT_THAT(world.Found("Who is a doctor?"), ElementsAre(" physician"));
  EXPECT_THAT(world.Found("a ship of the king"), ElementsAre(" monarch", " vessel"));
  const std::vector<ExpansionWord> found = world.Find(" doctor");
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].of, world.vocabulary->Words(world.Tokens(" doctor"))[0].Stem());
  EXPECT_EQ(found[0].stem, world.vocabulary->Words(world.Tokens(" physician"))[0].Stem());
  EXPECT_GT(found[0].weight, 0.5);
  EXPECT_LT(found[0].weight, 1);
}

TEST(QueryExpansion, SkipsTheQuestionsOwnWordsFunctionWordsAndNumbers) {
  World world;
  world.Hold(" the doctor and the doctors of which 12345");
  EXPECT_THAT(world.Found(" doctor"), IsEmpty()) << "an inflection is the word itself";
  EXPECT_THAT(world.Found(" the"), IsEmpty());
  EXPECT_THAT(world.Found(" 1234"), IsEmpty());
  EXPECT_THAT(world.Found(" physician, doctor"), IsEmpty()) << "the question has both";
}

TEST(QueryExpansion, FindsNothingForAnEmptyQuestionOrMemory) {
  World world;
  EXPECT_THAT(world.Found(" doctor"), IsEmpty()) << "an empty memory";
  world.Hold(" vessel");
  EXPECT_THAT(world.Found(""), IsEmpty());
  EXPECT_THAT(world.Found("?!"), IsEmpty());
  EXPECT_THAT(world.Found(" the which"), IsEmpty());
}

// The direction that all vectors share carries no meaning. Unless it is subtracted, every word is
// near every other.
TEST(QueryExpansion, ACommonDirectionDoesNotMakeWordsNear) {
  for (const float common : {0.0f, 5.0f, 100.0f}) {
    World world(common);
    world.Hold(" physician and monarch and vessel and school and qabcx qbbx");
    EXPECT_THAT(world.Found(" surgeon"), ElementsAre(" physician")) << common;
    EXPECT_THAT(world.Found(" Schule"), ElementsAre(" school")) << common;
  }
}

// A word that the vocabulary has in another form only, and one that is several tokens: "surgeon"
// after a line break has no space.
TEST(QueryExpansion, HandlesInflectedAndCapitalisedWords) {
  World world;
  world.Hold(" surgeon");
  EXPECT_THAT(world.Found("DOCTORS"), ElementsAre(" surgeon"));
  EXPECT_THAT(world.Found("\ndoctor"), ElementsAre(" surgeon"));
  EXPECT_THAT(world.Found("zzyzx"), IsEmpty()) << "letters without a word near them";
}

TEST(QueryExpansion, FindsTheSameWordsOnAnyNumberOfThreads) {
  World world;
  std::string text;
  for (const std::string& piece : std::span(world.pieces).subspan(256)) text += piece + ",";
  world.Hold(text);
  const std::vector<ExpansionWord> one = world.Find(" doctor king of ship"),
                                   two = world.Find(" doctor king of ship", ThreadsFor);
  ASSERT_THAT(one, SizeIs(testing::Gt(3)));
  ASSERT_EQ(one.size(), two.size());
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].stem, two[i].stem);
    EXPECT_EQ(one[i].weight, two[i].weight);
    EXPECT_GE(one[i].weight, 0.5);
    if (i == 0 || one[i].of != one[i - 1].of) continue;
    EXPECT_LE(one[i].weight, one[i - 1].weight) << "nearest first";
  }
}

}  // namespace
}  // namespace longhold
