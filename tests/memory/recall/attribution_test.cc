// Attribution over a small transcript. Places are the first tokens of its lines: in the toy model's
// vocabulary nearly every byte is a token.
#include "memory/recall/attribution.h"

#include <gtest/gtest.h>

#include "memory/ingest/ingest.h"
#include "store/mem_store.h"
#include "tests/support/tales.h"

namespace longhold {
namespace {

constexpr double kNear = 1e-9;

class AttributionTest : public testing::Test, protected Tales {
 protected:
  // Places at the middle of each line of `text`.
  std::vector<Attribution::Place> Read(const std::string& text) {
    RecallProfile profile;
    profile.name = "words";
    profile.window_tokens = 64;
    store_ = NewMemStore();
    memory_ = std::move(Memory::Create(Borrow(*store_), "tales", model.info(), profile)).value();
    EXPECT_TRUE(IngestDocument(model, *memory_, vocabulary, {"talk", text}, nullptr, nullptr).ok());
    const DocumentRecord& d = memory_->documents().front();
    std::vector<Attribution::Place> places;
    uint64_t line = 0;
    for (uint64_t t = 0; t < d.tokens; ++t) {
      const uint64_t at = memory_->Locate(d.id, {t, t + 1})->line_begin;
      if (at == line) continue;
      line = at;
      places.emplace_back(d.id, t + 8);
    }
    return places;
  }

  std::unique_ptr<ColdStore> store_;
  std::unique_ptr<Memory> memory_;
};

constexpr char kTalk[] =
    "Anna Lee: I went to the lake.\nBoris: I stayed at home.\nAnna Lee: The lake was cold.\n"
    "Boris: My home is warm.\n";

TEST_F(AttributionTest, LinesOfAnotherSpeakerCountLess) {
  const std::vector<Attribution::Place> places = Read(kTalk);
  ASSERT_EQ(places.size(), 4u);
  const Attribution a = Attribution::Of(*memory_, "Where did Anna go?", places);
  EXPECT_TRUE(a.names_speaker());
  EXPECT_NEAR(a.Factor(places[0].first, places[0].second), 1, kNear);
  EXPECT_NEAR(a.Factor(places[1].first, places[1].second), kOtherSpeaker, kNear);
  EXPECT_NEAR(a.Factor(places[3].first, places[3].second), kOtherSpeaker, kNear);
}

TEST_F(AttributionTest, AQuestionThatNamesNobodyOrEverybodyChangesNothing) {
  const std::vector<Attribution::Place> places = Read(kTalk);
  for (const char* question : {"Where is it cold?", "What do Boris and Anna say?"}) {
    const Attribution a = Attribution::Of(*memory_, question, places);
    EXPECT_FALSE(a.names_speaker());
    for (const auto& [document, token] : places)
      EXPECT_NEAR(a.Factor(document, token), 1, kNear) << question;
  }
}

TEST_F(AttributionTest, ProseHasNoSpeakers) {
  const std::vector<Attribution::Place> places =
      Read("Anna went to the lake.\nBoris stayed.\nNote: it was cold.\nAnna swam all day long.\n");
  EXPECT_FALSE(Attribution::Of(*memory_, "What did Anna do?", places).names_speaker());
}

}  // namespace
}  // namespace longhold
