// Reciprocal rank fusion of two lists of passages made by hand; expected scores are computed from
// the formula in the header.
#include "eval/hybrid_retriever.h"

#include <gtest/gtest.h>

namespace longhold {
namespace {

class ListRetriever final : public Retriever {
 public:
  explicit ListRetriever(std::vector<Passage> passages) : passages_(std::move(passages)) {}
  Result<std::vector<Passage>> Retrieve(std::string_view, size_t count) override {
    std::vector<Passage> some = passages_;
    if (some.size() > count) some.resize(count);
    return some;
  }
  uint64_t ram_bytes() const override { return 10; }

 private:
  const std::vector<Passage> passages_;
};

HybridRetriever Fuse(std::vector<Passage> a, std::vector<Passage> b) {
  std::vector<std::unique_ptr<Retriever>> retrievers;
  retrievers.push_back(std::make_unique<ListRetriever>(std::move(a)));
  retrievers.push_back(std::make_unique<ListRetriever>(std::move(b)));
  return HybridRetriever(std::move(retrievers));
}

TEST(HybridRetriever, AddsReciprocalRanksWhateverTheScores) {
  HybridRetriever hybrid =
      Fuse({{0, 10, 9}, {10, 20, 8}, {20, 30, 7}}, {{20, 30, 0.5}, {30, 40, 0.4}});
  const Result<std::vector<Passage>> r = hybrid.Retrieve("q", 3);
  ASSERT_TRUE(r.ok());
  ASSERT_EQ(r->size(), 3u);
  EXPECT_EQ((*r)[0].byte_begin, 20u) << "third and first";
  EXPECT_DOUBLE_EQ((*r)[0].score, 1.0 / 63 + 1.0 / 61);
  EXPECT_EQ((*r)[1].byte_begin, 0u);
  EXPECT_DOUBLE_EQ((*r)[1].score, 1.0 / 61);
  // Second in one list each: the earlier passage comes first.
  EXPECT_EQ((*r)[2].byte_begin, 10u);
  EXPECT_EQ(hybrid.ram_bytes(), 20u);
}

TEST(HybridRetriever, TakesAnEmptyList) {
  EXPECT_TRUE(Fuse({}, {}).Retrieve("q", 3)->empty());
  EXPECT_EQ(Fuse({}, {{5, 6, 1}}).Retrieve("q", 3)->size(), 1u);
}

}  // namespace
}  // namespace longhold
