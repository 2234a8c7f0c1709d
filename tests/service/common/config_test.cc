// Precedence as a table: each setting from each source, with all weaker sources set to something
// else.
#include "service/common/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "model/model_catalog.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

class ConfigTest : public testing::Test {
 protected:
  ConfigTest() {
    std::string name = (fs::temp_directory_path() / "longhold-config-XXXXXX").string();
    dir_ = mkdtemp(name.data());
  }
  ~ConfigTest() override { fs::remove_all(dir_); }

  std::string WriteFile(const std::string& text) {
    fs::create_directories(dir_ + "/longhold");
    const std::string path = dir_ + "/longhold/config.toml";
    std::ofstream(path) << text;
    variables_["XDG_CONFIG_HOME"] = dir_;
    return path;
  }
  Result<Config> Load(const ConfigFlags& flags = {}) {
    return LoadConfig(
        flags,
        [this](const std::string& name) -> std::optional<std::string> {
          const auto it = variables_.find(name);
          return it == variables_.end() ? std::nullopt : std::optional(it->second);
        },
        "/h", 4);
  }

  std::string dir_;
  std::map<std::string, std::string> variables_;
};

TEST_F(ConfigTest, DefaultsComeFromTheUsersDirectories) {
  const Result<Config> c = Load();
  ASSERT_TRUE(c.ok()) << c.status().ToString();
  EXPECT_EQ(c->home.value, "/h/.local/share/longhold");
  EXPECT_EQ(c->home.origin, "default");
  EXPECT_EQ(c->model.value, kDefaultModel);
  EXPECT_EQ(c->threads.value, 4u);
  EXPECT_EQ(c->memory_budget_bytes.value, 1ull << 30);
  EXPECT_EQ(c->models_dir, "/h/.cache/longhold/models");
  variables_ = {{"XDG_DATA_HOME", "/d"}, {"XDG_CACHE_HOME", "/c"}};
  EXPECT_EQ(Load()->home.value, "/d/longhold");
  EXPECT_EQ(Load()->models_dir, "/c/longhold/models");
  variables_ = {{"XDG_DATA_HOME", "relative"}, {"LONGHOLD_CACHE", "/e"}};
  EXPECT_EQ(Load()->home.value, "/h/.local/share/longhold")
      << "the XDG specification ignores relative directories";
  EXPECT_EQ(Load()->models_dir, "/e/models");
}

TEST_F(ConfigTest, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const std::string path =
      WriteFile("home = '/file'\nmodel = 'gemma3-270m'\nthreads = 3\nmemory_budget = '256MiB'\n");
  Result<Config> c = Load();
  ASSERT_TRUE(c.ok()) << c.status().ToString();
  EXPECT_EQ(c->home.value, "/file");
  EXPECT_EQ(c->model.value, "gemma3-270m");
  EXPECT_EQ(c->threads.value, 3u);
  EXPECT_EQ(c->memory_budget_bytes.value, 256ull << 20);
  EXPECT_EQ(c->threads.origin, "file " + path + " line 3");

  variables_["LONGHOLD_HOME"] = "/environment";
  variables_["LONGHOLD_MODEL"] = "/m.gguf";
  variables_["LONGHOLD_THREADS"] = "5";
  variables_["LONGHOLD_MEMORY_BUDGET"] = "134217728";
  c = Load();
  ASSERT_TRUE(c.ok()) << c.status().ToString();
  EXPECT_EQ(c->home.value, "/environment");
  EXPECT_EQ(c->model.value, "/m.gguf");
  EXPECT_EQ(c->threads.value, 5u);
  EXPECT_EQ(c->memory_budget_bytes.value, 128ull << 20);
  EXPECT_EQ(c->home.origin, "environment LONGHOLD_HOME");

  c = Load({.home = "/flag",
            .model = "f",
            .threads = "6",
            .memory_budget = "2g",
            .config_file = std::nullopt});
  ASSERT_TRUE(c.ok()) << c.status().ToString();
  EXPECT_EQ(c->home.value, "/flag");
  EXPECT_EQ(c->model.value, "f");
  EXPECT_EQ(c->threads.value, 6u);
  EXPECT_EQ(c->memory_budget_bytes.value, 2ull << 30);
  EXPECT_EQ(c->memory_budget_bytes.origin, "flag --memory-budget");
}

TEST_F(ConfigTest, RelativePathsInTheFileStartAtTheFilesDirectory) {
  WriteFile("home = 'memories'\nmodel = 'm/x.gguf'\n");
  EXPECT_EQ(Load()->home.value, dir_ + "/longhold/memories");
  EXPECT_EQ(Load()->model.value, dir_ + "/longhold/m/x.gguf");
  WriteFile("home = '~/memories'\n");
  EXPECT_EQ(Load()->home.value, "/h/memories");
  WriteFile("");
  EXPECT_EQ(Load()->home.value, "/h/.local/share/longhold");
}

TEST_F(ConfigTest, AFileNamedByTheFlagReplacesTheDefaultOneAndMustExist) {
  WriteFile("threads = 3\n");
  const std::string other = dir_ + "/other.toml";
  std::ofstream(other) << "threads = 9\n";
  ConfigFlags flags;
  flags.config_file = other;
  EXPECT_EQ(Load(flags)->threads.value, 9u);
  flags.config_file = dir_ + "/none.toml";
  EXPECT_EQ(Load(flags).status().code(), StatusCode::kNotFound);
}

struct BadConfig {
  std::string file;
  std::string says;
};

TEST_F(ConfigTest, ErrorsNameTheLine) {
  const BadConfig cases[] = {{"threads = 2\nthread = 2\n", "line 2: unknown key 'thread'"},
                             {"threads = 'two'\n", "line 1: 'threads' must be an integer"},
                             {"home = 2\n", "'home' must be a string"},
                             {"threads = 0\n", "line 1: threads '0' is not a number from 1 to 256"},
                             {"\nmemory_budget = 'lots'\n", "line 2: size 'lots'"},
                             {"memory_budget = '1k'\n", "is not between 64 MiB and 1 TiB"},
                             {"threads = \n", "line 1"},
                             {"listen = '8420'\n", "line 1: '8420' is not an address"},
                             {"listen = 8420\n", "'listen' must be a string"},
                             {"[{home]\n", "line 1"},  // an assertion failure in toml++ 3.3.0
                             {"[home]\n", "must be a string or an integer"}};
  for (const BadConfig& c : cases) {
    const std::string path = WriteFile(c.file);
    const Status status = Load().status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << c.file;
    EXPECT_THAT(status.message(), HasSubstr(c.says));
    EXPECT_THAT(status.message(), HasSubstr(path));
  }
  fs::remove_all(dir_ + "/longhold");
  variables_["LONGHOLD_THREADS"] = "many";
  EXPECT_THAT(Load().status().message(),
              StartsWith("environment LONGHOLD_THREADS: threads 'many'"));
}

TEST(Listen, IsAnAddressAndAPort) {
  EXPECT_EQ(ParseListen("127.0.0.1:8420")->address, "127.0.0.1");
  EXPECT_EQ(ParseListen("127.0.0.1:8420")->port, 8420);
  EXPECT_EQ(ParseListen("[::1]:0")->address, "::1");
  for (const char* bad : {"", "8420", ":8420", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x",
                          "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:80 "}) {
    EXPECT_EQ(ParseListen(bad).status().code(), StatusCode::kInvalidArgument) << bad;
  }
}

TEST(Listen, AServersAddressMayBeAPortAlone) {
  EXPECT_EQ(ParsePortOrListen("8421")->address, "127.0.0.1");
  EXPECT_EQ(ParsePortOrListen("8421")->port, 8421);
  EXPECT_EQ(ParsePortOrListen("[::1]:7")->address, "::1");
  for (const char* bad : {"", "x", "70000", "1.2.3.4", ":", "-1"})
    EXPECT_EQ(ParsePortOrListen(bad).status().code(), StatusCode::kInvalidArgument) << bad;
  EXPECT_EQ(Authority("127.0.0.1", 80), "127.0.0.1:80");
  EXPECT_EQ(Authority("::1", 80), "[::1]:80");
}

TEST(Bytes, ParsesNumbersWithBinaryAndDecimalUnits) {
  EXPECT_EQ(*ParseBytes("1073741824"), 1ull << 30);
  EXPECT_EQ(*ParseBytes("512MiB"), 512ull << 20);
  EXPECT_EQ(*ParseBytes("1GiB"), 1ull << 30);
  EXPECT_EQ(*ParseBytes("1.5 gib"), 3ull << 29);
  EXPECT_EQ(*ParseBytes("2g"), 2ull << 30);
  EXPECT_EQ(*ParseBytes("10MB"), 10'000'000u);
  EXPECT_EQ(*ParseBytes(" 7 b "), 7u);
  for (const char* bad :
       {"", "MiB", "-1", "1XB", "1e3", "0x10", "inf", "nan", "1 2", "99999999999999999999"}) {
    EXPECT_FALSE(ParseBytes(bad).ok()) << bad;
  }
}

TEST(Bytes, FormatsWithUpToThreeDigits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(999), "999 B");
  EXPECT_EQ(FormatBytes(1000), "1 KiB");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(1ull << 30), "1 GiB");
  EXPECT_EQ(FormatBytes(123456789), "118 MiB");
}

}  // namespace
}  // namespace longhold
