// What Sidecar refuses of numbers that a caller, or a client of the wire protocol, chose: positions
// and queries that would make arithmetic undefined, and a description that no manifest can hold.
// And who may write after a writer was dropped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "memory/engine.h"
#include "memory/sidecar/sidecar.h"
#include "store/mem_provider.h"
#include "tests/support/toy_model.h"

namespace longhold {
namespace {

using testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class SidecarBoundsTest : public testing::Test {
 protected:
  SidecarBoundsTest() : stores_(NewMemProvider()) {
    Result<std::unique_ptr<Sidecar>> opened =
        Sidecar::Open(stores_.get(), Description(), nullptr,
                      {.codec = "exact", .encryption_key = {}, .heads = {{.layer = 0}}});
    LH_CHECK(opened.ok());
    sidecar_ = std::move(*opened);
  }
  ModelDescription Description() const {
    return {.name = "toy",
            .fingerprint = "0123456789abcdef",
            .geometry = TinyGeometry(),
            .layer_count = 3,
            .context_length = 8192,
            .pieces = TokenPieces(toy_),
            .bos = -1};
  }
  Result<std::unique_ptr<Sidecar::Writer>> Begin() {
    return sidecar_->Put("m", {.name = "d", .text = text_, .tokens = tokens_, .token_bytes = {}});
  }
  // `count` rows of zeros.
  Status Append(Sidecar::Writer* writer, size_t count, int64_t position) {
    const std::vector<uint16_t> zeros(count * 4);
    const std::vector<const void*> arrays(2, zeros.data());
    return writer->Append({arrays, arrays, {.token_stride = 4, .head_stride = 4, .rotated = true}},
                          count, position);
  }

  ToyModel toy_{{.geometry = TinyGeometry()}};
  std::unique_ptr<MemProvider> stores_;
  std::unique_ptr<Sidecar> sidecar_;
  std::string text_ = std::string(130, 'a');
  std::vector<TokenId> tokens_ = std::vector<TokenId>(130, 'a');
};

TEST_F(SidecarBoundsTest, PositionsFarFromZeroAreRefused) {
  const auto writer = Begin();
  ASSERT_TRUE(writer.ok()) << writer.status().ToString();
  for (const int64_t far : {INT64_MAX, INT64_MIN, kPositionMax + 1, -kPositionMax - 1}) {
    EXPECT_EQ(Append(writer->get(), 130, far).code(), StatusCode::kInvalidArgument) << far;
    EXPECT_EQ((*writer)->position(), 0u);
  }
  ASSERT_TRUE(Append(writer->get(), 130, -kPositionMax).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  std::vector<uint16_t> out(130 * 4);
  const std::vector<void*> arrays(2, out.data());
  const KvArrays<void> rows{arrays, arrays, {.token_stride = 4, .head_stride = 4, .rotated = true}};
  for (const int64_t far : {INT64_MAX, INT64_MIN}) {
    const PlacedSpan span{(*writer)->document(), {0, 130}, far};
    EXPECT_EQ(sidecar_->Fetch("m", {&span, 1}, rows).code(), StatusCode::kInvalidArgument) << far;
  }
  const PlacedSpan span{(*writer)->document(), {0, 130}, kPositionMax};
  EXPECT_TRUE(sidecar_->Fetch("m", {&span, 1}, rows).ok());
}

TEST_F(SidecarBoundsTest, QueriesThatAreNotFiniteAreRefused) {
  const auto writer = Begin();
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(Append(writer->get(), 130, 0).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  for (const float x : {kNan, INFINITY, -INFINITY, 1e30f, 65505.0f}) {
    std::vector<float> query(2 * 4, 0.5f);
    query[5] = x;
    PlanRequest request;
    request.queries = {.heads = {query.data()}, .tokens = 1};
    const auto plan = sidecar_->Plan("m", request);
    EXPECT_EQ(plan.status().code(), StatusCode::kInvalidArgument) << x;
    EXPECT_THAT(plan.status().message(), HasSubstr("recall head 0"));
  }
  std::vector<float> query(2 * 4, 65504.0f);
  PlanRequest request;
  request.queries = {.heads = {query.data()}, .tokens = 1, .rotated = true, .position = INT64_MAX};
  EXPECT_EQ(sidecar_->Plan("m", request).status().code(), StatusCode::kInvalidArgument);
  request.queries.position = 7;
  EXPECT_TRUE(sidecar_->Plan("m", request).ok());
}

// A manifest holds at most 1,024 query heads; a memory of such a model could never be opened again.
TEST_F(SidecarBoundsTest, MoreQueryHeadsThanAManifestHoldsAreRefused) {
  ModelDescription description = Description();
  description.geometry.q_heads = 1024;
  EXPECT_TRUE(description.Check().ok());
  description.geometry.q_heads = 1025;
  EXPECT_EQ(description.Check().code(), StatusCode::kInvalidArgument);
}

TEST_F(SidecarBoundsTest, ADroppedWriterLetsOthersWrite) {
  Engine engine(stores_.get(), {});
  ASSERT_TRUE(engine.UseModel(&toy_, nullptr, nullptr).ok());
  {
    const auto writer = Begin();
    ASSERT_TRUE(writer.ok());
    const auto refused = engine.Ingest("m", {.name = "e", .text = "A text.\n"}, nullptr, nullptr);
    EXPECT_EQ(refused.status().code(), StatusCode::kFailedPrecondition)
        << refused.status().ToString();
  }
  const auto taken = engine.Ingest("m", {.name = "e", .text = "A text.\n"}, nullptr, nullptr);
  EXPECT_TRUE(taken.ok()) << taken.status().ToString();
}

}  // namespace
}  // namespace longhold
