// What the catalog reports about names without fetching anything. tests/cli tests fetching, through
// the program.
#include "model/model_catalog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace longhold {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(ModelCatalog, RefusesANameOfTheOtherKindAndListsTheRightOnes) {
  const ModelCatalog catalog(testing::TempDir() + "/no_models_here");
  const Status embedding = catalog.Resolve("minilm-l6").status();
  EXPECT_EQ(embedding.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(embedding.message(), AllOf(HasSubstr("minilm-l6"), HasSubstr("embedding model"),
                                         HasSubstr("smollm2, gemma3-270m")));
  const Status language = catalog.Resolve("smollm2", ModelKind::kEmbedding).status();
  EXPECT_EQ(language.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(language.message(),
              AllOf(HasSubstr("smollm2"), HasSubstr("minilm-l6"), Not(HasSubstr("gemma"))));
}

TEST(ModelCatalog, ExplainsHowToFetchAMissingModel) {
  const ModelCatalog catalog(testing::TempDir() + "/no_models_here");
  for (const CatalogModel& model : CatalogModels()) {
    const Status status = catalog.Resolve(std::string(model.name), model.kind).status();
    EXPECT_EQ(status.code(), StatusCode::kNotFound);
    EXPECT_THAT(status.message(), HasSubstr("longhold model get " + std::string(model.name)));
  }
}

TEST(ModelCatalog, EntriesArePinnedAndDistinct) {
  std::set<std::string_view> names, files;
  for (const CatalogModel& model : CatalogModels()) {
    EXPECT_TRUE(names.insert(model.name).second && files.insert(model.file).second) << model.name;
    EXPECT_EQ(model.source_sha256.size(), 64u);
    EXPECT_FALSE(model.wheels.empty());
    for (const CatalogWheel& wheel : model.wheels) {
      EXPECT_EQ(wheel.sha256.size(), 64u) << wheel.package;
      ASSERT_FALSE(wheel.members.empty()) << wheel.package;
      for (const std::string_view member : wheel.members)
        EXPECT_FALSE(member.empty()) << wheel.package;
    }
  }
}

}  // namespace
}  // namespace longhold
