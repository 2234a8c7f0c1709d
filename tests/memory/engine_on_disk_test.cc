// An engine's memories on disk: their directories are private to their owner and cannot be swapped.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/seal.h"
#include "store/rocks_store.h"
#include "tests/memory/engine_fixture.h"
#include "tests/store/temp_dir.h"
#include "tests/support/engines.h"

namespace longhold {
namespace {

using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;

class EngineOnDiskTest : public testing::Test {
 protected:
  EngineOnDiskTest() {
    engine_ = std::make_unique<EngineInHome>(home_ / "h");
    const RecallProfile own = Profile();
    EXPECT_TRUE(engine_->UseModel(model_.get(), &own).ok());
  }

  TempDir home_;
  std::unique_ptr<ToyModel> model_ = std::make_unique<ToyModel>();
  std::unique_ptr<EngineInHome> engine_;
};

TEST_F(EngineOnDiskTest, TenantsHaveDirectoriesPrivateToTheOwner) {
  ASSERT_TRUE(engine_->Ingest("acme/tales", {"tale", Tale()}, nullptr, nullptr).ok());
  EXPECT_TRUE(fs::exists(home_ / "h/tenants/acme/memories/tales"));
  EXPECT_EQ(fs::status(home_ / "h/tenants").permissions(), fs::perms::owner_all);
}

TEST_F(EngineOnDiskTest, AForgottenMemoryLeavesNoDirectory) {
  ASSERT_TRUE(engine_->Ingest("tales", {"tale", Tale()}, nullptr, nullptr).ok());
  ASSERT_TRUE(fs::exists(home_ / "h/memories/tales"));
  ASSERT_TRUE(engine_->Forget("tales", "", true).ok());
  EXPECT_FALSE(fs::exists(home_ / "h/memories/tales"));
}

// Somebody who can rename directories could make one memory answer for another. Tests both versions
// of the encryption record; version 1 does not hold the name.
TEST_F(EngineOnDiskTest, SwappedEncryptedMemoriesAreRefused) {
  const Secret key(std::string(32, 'k'));
  const auto open = [&] {
    engine_ = std::make_unique<EngineInHome>(home_ / "h", EngineOptions{.encryption_key = key});
    const RecallProfile own = Profile();
    ASSERT_TRUE(engine_->UseModel(model_.get(), &own).ok());
  };
  namespace fs = std::filesystem;
  const std::string memories = home_ / "h/memories/", record("\0seal", 5);
  const auto swap = [&] {
    engine_.reset();
    fs::rename(memories + "a", memories + "aside");
    fs::rename(memories + "b", memories + "a");
    fs::rename(memories + "aside", memories + "b");
    open();
  };
  const auto beneath = [&](const std::string& name) {
    return OpenRocksStore({.path = memories + name, .create_if_missing = false}).value();
  };
  open();
  for (const char* name : {"a", "b"})
    ASSERT_TRUE(engine_->Ingest(name, {"tale", Tale()}, nullptr, nullptr).ok());
  for (const bool named : {true, false}) {
    SCOPED_TRACE(named);
    if (!named) {
      engine_.reset();
      for (const char* name : {"a", "b"}) {
        const auto store = beneath(name);
        const std::string salt = store->Get(Table::kMeta, record)->substr(1, kSealSaltBytes);
        ASSERT_TRUE(PutValue(*store, Table::kMeta, record,
                             "\1" + salt +
                                 *Seal::Derive(key, salt, "longhold store").Close("", "key check"))
                        .ok());
      }
      open();
      EXPECT_TRUE(engine_->Verify("a").ok());
    }
    swap();
    for (const Status& status :
         {engine_->Verify("a"), engine_->Show("a").status(),
          engine_->Ask("a", kQuestion, {}).status(),
          engine_->Ingest("a", {"more", "text"}, nullptr, nullptr).status()}) {
      EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
      EXPECT_THAT(status.message(),
                  AllOf(HasSubstr("memory a: it was sealed as memory b"), HasSubstr("rename")));
    }
    swap();
    for (const char* name : {"a", "b"}) {
      EXPECT_TRUE(engine_->Verify(name).ok());
      EXPECT_TRUE(
          engine_->Ingest(name, {"more", named ? "some more text" : "and more"}, nullptr, nullptr)
              .ok());
    }
  }
  engine_.reset();
  EXPECT_EQ(beneath("a")->Get(Table::kMeta, record)->at(0), 2)
      << "what was written to holds its name";
}

}  // namespace
}  // namespace longhold
