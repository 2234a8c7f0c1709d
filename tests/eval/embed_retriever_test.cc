// EmbedRetriever over a fake embedder: a bag of letters, whose ranking is easy to verify. Exact
// scores are compared with inner products computed here. Tolerance: float sums of 26 terms of unit
// vectors, 1e-6. tests/model/ tests the real model.
#include "eval/embed_retriever.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace longhold {
namespace {

class LetterEmbedder final : public TextEmbedder {
 public:
  uint32_t dim() const override { return 26; }
  uint64_t fingerprint() const override { return 1; }
  uint64_t cut_count() const override { return 0; }
  uint64_t token_count() const override { return 0; }
  Result<std::vector<float>> EmbedParts(std::span<const TextParts> texts) override {
    if (fail) return Internal("the stand-in fails");
    largest_batch = std::max(largest_batch, texts.size());
    std::vector<float> out;
    for (const TextParts& whole : texts) {
      const std::string_view text = whole.parts[0];  // the retriever embeds whole texts
      std::vector<float> row(26, 0.01f);
      for (const char c : text) {
        if (c >= 'a' && c <= 'z') ++row[static_cast<size_t>(c - 'a')];
      }
      float square = 0;
      for (const float x : row) square += x * x;
      for (const float x : row) out.push_back(x / std::sqrt(square));
    }
    return out;
  }
  bool fail = false;
  size_t largest_batch = 0;
};

constexpr char kText[] = "aaaa\nbbbb\ncccc\ndddd\n";

std::unique_ptr<Retriever> Build(std::string_view text, TextEmbedder& embedder,
                                 const EmbedRetrieverOptions& options = {}) {
  auto retriever = BuildEmbedRetriever(text, embedder, options);
  EXPECT_TRUE(retriever.ok()) << retriever.status().ToString();
  return retriever.ok() ? std::move(*retriever) : nullptr;
}

TEST(EmbedRetriever, RanksPassagesByInnerProductBestFirst) {
  LetterEmbedder embedder;
  const auto retriever = Build(kText, embedder);
  ASSERT_NE(retriever, nullptr);
  const auto found = retriever->Retrieve("bccc", 3);
  ASSERT_TRUE(found.ok());
  ASSERT_EQ(found->size(), 3u);
  const auto text = [](const Passage& p) {
    return std::string(kText).substr(p.byte_begin, p.byte_end - p.byte_begin);
  };
  EXPECT_EQ(text((*found)[0]), "bbbb\ncccc\n");
  EXPECT_EQ(text((*found)[1]), "cccc\ndddd\n");
  EXPECT_EQ(text((*found)[2]), "aaaa\nbbbb\n");
  const std::vector<float> question = *embedder.Embed("bccc");
  for (const Passage& passage : *found) {
    const std::vector<float> row = *embedder.Embed(text(passage));
    double score = 0;
    for (size_t i = 0; i < row.size(); ++i) score += row[i] * question[i];
    EXPECT_NEAR(passage.score, score, 1e-6);
  }
}

TEST(EmbedRetriever, YieldsEveryPassageOnceWhenMoreAreAskedFor) {
  LetterEmbedder embedder;
  const auto retriever = Build(kText, embedder);
  ASSERT_NE(retriever, nullptr);
  const auto found = retriever->Retrieve("a", 100);
  ASSERT_TRUE(found.ok());
  std::vector<uint64_t> begins;
  for (const Passage& passage : *found) begins.push_back(passage.byte_begin);
  EXPECT_THAT(begins, testing::UnorderedElementsAre(0, 5, 10));
  EXPECT_TRUE(retriever->Retrieve("a", 0)->empty());
}

TEST(EmbedRetriever, EmbedsInBoundedBatchesAndCountsTheBytesItKeeps) {
  LetterEmbedder embedder;
  std::string text;
  for (int i = 0; i < 200; ++i) text += std::string(1, static_cast<char>('a' + i % 26)) + "\n";
  std::vector<size_t> done;
  const auto retriever =
      Build(text, embedder,
            {.passages = {.units = 1, .stride = 1}, .on_progress = [&](size_t d, size_t total) {
               EXPECT_EQ(total, 200u);
               done.push_back(d);
             }});
  ASSERT_NE(retriever, nullptr);
  EXPECT_LE(embedder.largest_batch, 64u);
  EXPECT_THAT(done, testing::ElementsAre(64, 128, 192, 200));
  EXPECT_GE(retriever->ram_bytes(), 200u * 26 * sizeof(float));
  EXPECT_LT(retriever->ram_bytes(), 2 * 200u * (26 * sizeof(float) + sizeof(ByteSpan)));
}

TEST(EmbedRetriever, ReportsWhyItCannotBeBuilt) {
  LetterEmbedder embedder;
  EXPECT_EQ(BuildEmbedRetriever(" \n", embedder, {}).status().code(), StatusCode::kInvalidArgument);
  const std::atomic<bool> stop = true;
  EXPECT_EQ(BuildEmbedRetriever(kText, embedder, {.stop = &stop}).status().code(),
            StatusCode::kCancelled);
  embedder.fail = true;
  EXPECT_EQ(BuildEmbedRetriever(kText, embedder, {}).status().code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace longhold
