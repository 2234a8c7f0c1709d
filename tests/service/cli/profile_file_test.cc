// Which recall profile a model gets: the named file, the calibrated one, or none.
#include "service/cli/profile_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/store/temp_dir.h"

namespace longhold {
namespace {

using testing::HasSubstr;

ModelInfo Model() {
  ModelInfo m;
  m.name = "toy";
  m.architecture = "toy";
  m.fingerprint = "0123456789abcdef";
  m.layer_count = 2;
  m.vocab_size = 300;
  m.geometry.q_heads = 4;
  m.geometry.kv_heads = 2;
  m.geometry.head_dim = 8;
  return m;
}

RecallProfile Profile() {
  RecallProfile p;
  p.name = "mine";
  p.architecture = "toy";
  p.layer_count = 2;
  p.q_heads = 4;
  p.kv_heads = 2;
  p.head_dim = 8;
  p.vocab_size = 300;
  return p;
}

class ProfileFileTest : public testing::Test {
 protected:
  ProfileFileTest() { config_.home.value = dir_ / "home"; }
  TempDir dir_;
  Config config_;
};

TEST_F(ProfileFileTest, AtFirstThereIsNone) {
  const auto none = ChooseProfile(config_, Model());
  ASSERT_TRUE(none.ok()) << none.status().ToString();
  EXPECT_FALSE(none->has_value());
}

TEST_F(ProfileFileTest, ACalibratedProfileIsUsedOnlyWithItsModel) {
  ASSERT_TRUE(WriteProfile(Profile(), ProfilePath(config_, Model())).ok());
  const auto found = ChooseProfile(config_, Model());
  ASSERT_TRUE(found.ok() && found->has_value()) << found.status().ToString();
  EXPECT_EQ((*found)->name, "mine");
  ModelInfo other = Model();
  other.fingerprint = "fedcba9876543210";
  EXPECT_FALSE(ChooseProfile(config_, other)->has_value());
  EXPECT_FALSE(std::filesystem::exists(ProfilePath(config_, Model()) + ".part"));
}

TEST_F(ProfileFileTest, ANamedProfileTakesPrecedenceAndMustMatch) {
  ASSERT_TRUE(WriteProfile(Profile(), ProfilePath(config_, Model())).ok());
  RecallProfile named = Profile();
  named.name = "named";
  config_.profile.value = dir_ / "named.json";
  ASSERT_TRUE(WriteProfile(named, config_.profile.value).ok());
  EXPECT_EQ((*ChooseProfile(config_, Model()))->name, "named");

  ModelInfo other = Model();
  other.layer_count = 3;
  const auto misfit = ChooseProfile(config_, other);
  EXPECT_EQ(misfit.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(misfit.status().message(), HasSubstr(config_.profile.value));

  config_.profile.value = dir_ / "missing.json";
  EXPECT_EQ(ChooseProfile(config_, Model()).status().code(), StatusCode::kNotFound);

  config_.profile.value = dir_ / "broken.json";
  std::ofstream(config_.profile.value) << "{\"gate\": -1}";
  const auto broken = ChooseProfile(config_, Model());
  EXPECT_EQ(broken.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(broken.status().message(), HasSubstr("broken.json"));
}

TEST_F(ProfileFileTest, AnEndlessFileIsNotReadToItsEnd) {
  config_.profile.value = "/dev/zero";
  const Status status = ChooseProfile(config_, Model()).status();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("recall profile /dev/zero"));
}

TEST_F(ProfileFileTest, AnUnwritableDirectoryIsReported) {
  std::ofstream(dir_ / "file") << "x";
  const Status status = WriteProfile(Profile(), dir_ / "file/profile.json");
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("--out"));
}

}  // namespace
}  // namespace longhold
