// Names that a user gives to model files: which are kept, which are refused, and what happens when
// the file changes. The files are headers of tiny models.
#include "model/added_models.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "model/model_catalog.h"
#include "tests/model/tiny_models.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class AddedModelsTest : public testing::Test {
 protected:
  AddedModelsTest()
      : dir_(fs::path(testing::TempDir()) / ("added_models_" + std::to_string(getpid()))) {
    fs::remove_all(dir_);
    fs::create_directories(dir_);
    file_ = (dir_ / "mine.gguf").string();
    fs::copy_file(TinyPath("llama"), file_);
  }
  ~AddedModelsTest() override { fs::remove_all(dir_); }

  fs::path dir_;
  std::string file_;
  const ModelCatalog catalog_{(dir_ / "models").string()};
};

TEST_F(AddedModelsTest, ANameRefersToItsFile) {
  const Result<AddedModel> added = catalog_.Add("mine", file_);
  ASSERT_TRUE(added.ok()) << added.status().message();
  EXPECT_EQ(added->architecture, "llama");
  EXPECT_EQ(*catalog_.Resolve("mine"), file_);
  const std::vector<ModelEntry> models = catalog_.List();
  ASSERT_EQ(models.size(), CatalogModels().size() + 1);
  EXPECT_EQ(models.back().name, "mine");
  EXPECT_EQ(models.back().bytes, fs::file_size(file_));
  EXPECT_EQ(models.back().state.kind, CatalogState::Kind::kReady);
}

TEST_F(AddedModelsTest, ARelativePathIsStoredAsAnAbsoluteOne) {
  const fs::path before = fs::current_path();
  fs::current_path(dir_);
  const Result<AddedModel> added = catalog_.Add("mine", "./mine.gguf");
  fs::current_path(before);
  ASSERT_TRUE(added.ok()) << added.status().message();
  EXPECT_EQ(*catalog_.Resolve("mine"), file_);
}

TEST_F(AddedModelsTest, AChangedOrMissingFileIsDetected) {
  ASSERT_TRUE(catalog_.Add("mine", file_).ok());
  std::ofstream(file_, std::ios::app) << "more";
  const Status changed = catalog_.Resolve("mine").status();
  EXPECT_EQ(changed.code(), StatusCode::kDataLoss);
  EXPECT_THAT(changed.message(), HasSubstr("longhold model add mine FILE"));
  EXPECT_EQ(catalog_.List().back().state.kind, CatalogState::Kind::kDamaged);
  fs::remove(file_);
  EXPECT_EQ(catalog_.Resolve("mine").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(catalog_.List().back().state.kind, CatalogState::Kind::kAbsent);
}

TEST_F(AddedModelsTest, RefusesReservedNamesAndFilesThatAreNotModels) {
  EXPECT_EQ(catalog_.Add("smollm2", file_).status().code(), StatusCode::kAlreadyExists);
  for (const std::string name : {"", "..", "a/b", "-a", "mine.gguf", "a b", "a\nb"}) {
    EXPECT_EQ(catalog_.Add(name, file_).status().code(), StatusCode::kInvalidArgument) << name;
  }
  EXPECT_EQ(catalog_.Add("mine", (dir_ / "none.gguf").string()).status().code(),
            StatusCode::kNotFound);
  const std::string text = (dir_ / "text.gguf").string();
  std::ofstream(text) << "not a model";
  EXPECT_EQ(catalog_.Add("mine", text).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(catalog_.List().size(), CatalogModels().size());
}

TEST_F(AddedModelsTest, RemovingANameKeepsItsFile) {
  ASSERT_TRUE(catalog_.Add("mine", file_).ok());
  EXPECT_TRUE(catalog_.Remove("mine").ok());
  EXPECT_EQ(catalog_.Remove("mine").code(), StatusCode::kNotFound);
  EXPECT_EQ(catalog_.Remove("smollm2").code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(catalog_.Resolve("mine").status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(fs::exists(file_));
}

TEST_F(AddedModelsTest, ADamagedRecordIsIgnored) {
  ASSERT_TRUE(catalog_.Add("mine", file_).ok());
  for (const std::string record : {"", "path ", "bytes 7\n", "path /x\nbytes -1\n", "\xff\xff"}) {
    std::ofstream(dir_ / "models/added/mine") << record;
    EXPECT_EQ(catalog_.Resolve("mine").status().code(), StatusCode::kNotFound) << record;
  }
}

}  // namespace
}  // namespace longhold
