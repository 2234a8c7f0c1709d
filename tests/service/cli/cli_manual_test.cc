// The descriptions of the command line, and the texts generated from them. tests/cli tests that
// shells accept them.
#include "service/cli/cli_manual.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "model/model_catalog.h"
#include "service/cli/cli.h"
#include "service/common/config.h"

namespace longhold {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

const CommandManual& Of(const std::vector<CommandManual>& commands, const std::string& name) {
  const auto at = std::find_if(commands.begin(), commands.end(),
                               [&](const CommandManual& c) { return c.name == name; });
  EXPECT_NE(at, commands.end()) << name;
  return *at;
}

const OptionManual& Of(const CommandManual& command, const std::string& name) {
  const auto at =
      std::find_if(command.options.begin(), command.options.end(), [&](const OptionManual& o) {
        return std::find(o.names.begin(), o.names.end(), name) != o.names.end();
      });
  EXPECT_NE(at, command.options.end()) << command.name << " " << name;
  return *at;
}

TEST(ProgramManual, DescribesOptionsAsTheyAreTyped) {
  const std::vector<CommandManual> commands = ProgramManual();
  EXPECT_EQ(commands.front().name, "");
  EXPECT_THAT(Of(commands.front(), "-q").names, ElementsAre("--quiet", "-q"));
  EXPECT_EQ(Of(commands.front(), "--quiet").value, "");
  EXPECT_EQ(Of(commands.front(), "--model").value, "NAME|GGUF");
  EXPECT_TRUE(Of(commands, "model").group);
  EXPECT_FALSE(Of(commands, "model get").group);

  const CommandManual& ask = Of(commands, "ask");
  EXPECT_TRUE(Of(ask, "NAME").positional);
  EXPECT_TRUE(Of(ask, "NAME").required);
  EXPECT_EQ(Of(ask, "--temperature").value, "X") << "without the validator's own words";
  EXPECT_EQ(Of(ask, "--max-tokens").value, "N");
  EXPECT_EQ(Of(ask, "--no-abstain").value, "") << "a flag that turns something off";
  EXPECT_EQ(Of(Of(commands, "serve"), "--listen").value, "ADDRESS:PORT");
  EXPECT_THAT(Of(Of(commands, "key add"), "--scope").choices,
              ElementsAre("read", "write", "admin"));
  EXPECT_TRUE(Of(Of(commands, "ingest"), "PATH").repeats);
  EXPECT_THAT(Of(Of(commands, "completion"), "SHELL").choices, ElementsAre("bash", "zsh", "fish"));
  for (const CommandManual& c : commands) {
    EXPECT_NE(c.about, "") << c.name;
    for (const OptionManual& o : c.options) {
      EXPECT_THAT(o.names, Not(IsEmpty())) << c.name;
      EXPECT_THAT(o.value, Not(testing::AnyOf(HasSubstr("{"), HasSubstr(" "), HasSubstr("["))))
          << c.name << " " << o.names.front();
    }
  }
}

TEST(ProgramManual, GeneratedTextsContainEveryCommandAndOption) {
  const std::vector<CommandManual> commands = ProgramManual();
  const std::string man = ManPage(commands, "1.2.3");
  EXPECT_THAT(man, HasSubstr("longhold 1.2.3"));
  for (const std::string& shell : CompletionShells()) {
    const std::string completion = Completion(commands, shell);
    for (const CommandManual& c : commands) {
      for (const OptionManual& o : c.options) {
        if (o.positional) continue;
        const std::string bare = o.names.front().substr(2);
        EXPECT_THAT(completion, HasSubstr((shell == "fish" ? " -l " : "--") + bare)) << shell;
      }
    }
  }
  for (const CommandManual& c : commands) {
    if (c.group || c.name.empty()) continue;
    std::string name = c.name;
    for (size_t at = 0; (at = name.find('-', at)) != std::string::npos; at += 2)
      name.replace(at, 1, "\\-");
    EXPECT_THAT(man, HasSubstr("longhold " + name + "\\fR")) << c.name;
  }
}

TEST(ProgramManual, TroffAndQuotesAreEscaped) {
  const std::vector<CommandManual> commands = {
      {.name = "",
       .about = "It's a \\ test",
       .options =
           {{.names = {"--x-y"}, .value = "N", .choices = {}, .about = ".starts like a request"}}},
      {.name = "go", .about = "don't", .options = {}}};
  EXPECT_THAT(ManPage(commands, "1"),
              AllOf(HasSubstr("It's a \\e test"), HasSubstr("\\fB\\-\\-x\\-y\\fR"),
                    HasSubstr("\\&.starts")));
  EXPECT_THAT(Completion(commands, "zsh"), HasSubstr("'go:don'\\''t'"));
}

TEST(ConfigSample, IsAConfigFileWithEveryKey) {
  std::string all = ConfigSample();
  for (const char* key :
       {"home", "model", "profile", "threads", "memory_budget", "encryption_key", "listen",
        "tls_certificate", "tls_key", "tls_client_ca", "ingest_root", "audit_log"}) {
    const std::string commented = std::string("\n#") + key + " = ";
    ASSERT_THAT(all, HasSubstr(commented)) << key;
    all.replace(all.find(commented), 2, "\n");
  }
  const std::string path = testing::TempDir() + "sample.toml";
  FILE* file = std::fopen(path.c_str(), "w");
  ASSERT_NE(file, nullptr);
  std::fputs(all.c_str(), file);
  std::fclose(file);
  const Result<Config> config = LoadConfig(
      {.config_file = path}, [](const std::string&) { return std::nullopt; }, "/home/anna", 4);
  ASSERT_TRUE(config.ok()) << config.status().ToString();
  EXPECT_EQ(config->home.value, "/home/anna/.local/share/longhold")
      << "what the sample shows is the default";
  EXPECT_EQ(config->model.value, kDefaultModel);
  EXPECT_EQ(config->memory_budget_bytes.value, 1ull << 30);
  EXPECT_EQ(config->listen.value, "127.0.0.1:8420");
  EXPECT_EQ(config->tls_key.value, testing::TempDir() + "server.key");
}

}  // namespace
}  // namespace longhold
