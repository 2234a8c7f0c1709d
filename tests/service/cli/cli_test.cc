// The parsed command line: where flags may appear, and what is refused. tests/cli tests whole runs.
#include "service/cli/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "service/cli/commands.h"

namespace longhold {
namespace {

using testing::HasSubstr;

std::variant<Invocation, EarlyExit> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "longhold");
  return ParseCommandLine(static_cast<int>(arguments.size()), arguments.data());
}

TEST(CommandLine, GlobalFlagsMayStandBeforeOrAfterTheCommand) {
  for (const auto& parsed : {Parse({"--json", "--home", "/h", "--memory-budget", "512MiB", "ask",
                                    "m", "why?", "--spans", "4"}),
                             Parse({"ask", "m", "--spans=4", "why?", "--home=/h", "--json",
                                    "--memory-budget=512MiB"})}) {
    ASSERT_TRUE(std::holds_alternative<Invocation>(parsed)) << std::get<EarlyExit>(parsed).text;
    const auto& invocation = std::get<Invocation>(parsed);
    EXPECT_TRUE(invocation.json);
    EXPECT_EQ(invocation.flags.home, "/h");
    EXPECT_EQ(invocation.flags.memory_budget, "512MiB");
    const auto& ask = std::get<AskCommand>(invocation.command);
    EXPECT_EQ(ask.memory, "m");
    EXPECT_EQ(ask.question, "why?");
    EXPECT_EQ(ask.focused.recall.spans_max, 4u);
  }
}

TEST(CommandLine, DashMeansStandardInput) {
  const auto parsed = Parse({"ingest", "-", "a.txt", "--into", "m"});
  ASSERT_TRUE(std::holds_alternative<Invocation>(parsed)) << std::get<EarlyExit>(parsed).text;
  EXPECT_THAT(std::get<IngestCommand>(std::get<Invocation>(parsed).command).paths,
              testing::ElementsAre("-", "a.txt"));
  EXPECT_TRUE(std::holds_alternative<Invocation>(Parse({"ask", "m", "-"})));
}

TEST(CommandLine, ServeTakesTheListenAddressMemoryAndHosts) {
  const auto parsed =
      Parse({"serve", "--listen", "[::1]:0", "--memory", "bible", "--host", "a.example", "--host",
             "b.example", "--wire", "8421", "--wire-socket", "/run/longhold.wire"});
  ASSERT_TRUE(std::holds_alternative<Invocation>(parsed)) << std::get<EarlyExit>(parsed).text;
  const auto& invocation = std::get<Invocation>(parsed);
  EXPECT_EQ(invocation.flags.listen, "[::1]:0");
  const auto& serve = std::get<ServeCommand>(invocation.command);
  EXPECT_EQ(serve.memory, "bible");
  EXPECT_EQ(serve.hosts, (std::vector<std::string>{"a.example", "b.example"}));
  EXPECT_EQ(serve.resp, "");
  EXPECT_EQ(serve.wire, "8421");
  EXPECT_EQ(serve.wire_socket, "/run/longhold.wire");
}

TEST(CommandLine, AttachServerTakesTheServersAddressAndItsSlotDirectory) {
  const auto parsed = Parse({"attach-server", "http://127.0.0.1:8080", "--slot-dir", "slots",
                             "--memory", "bible", "--listen", "127.0.0.1:0"});
  ASSERT_TRUE(std::holds_alternative<Invocation>(parsed)) << std::get<EarlyExit>(parsed).text;
  const auto& invocation = std::get<Invocation>(parsed);
  EXPECT_EQ(invocation.flags.listen, "127.0.0.1:0");
  const auto& attach = std::get<AttachCommand>(invocation.command);
  EXPECT_EQ(attach.url, "http://127.0.0.1:8080");
  EXPECT_EQ(attach.slot_dir, "slots");
  EXPECT_EQ(attach.memory, "bible");
}

TEST(CommandLine, ServeTakesAnAddressAndSizesForRedisClients) {
  const auto parsed =
      Parse({"serve", "--resp", "6379", "--resp-disk", "50GiB", "--resp-memory", "1g"});
  ASSERT_TRUE(std::holds_alternative<Invocation>(parsed)) << std::get<EarlyExit>(parsed).text;
  const auto& serve = std::get<ServeCommand>(std::get<Invocation>(parsed).command);
  EXPECT_EQ(serve.resp, "6379");
  EXPECT_EQ(serve.resp_disk, "50GiB");
  EXPECT_EQ(serve.resp_memory, "1g");
}

TEST(CommandLine, HelpIsOutputAndMisuseIsOneLine) {
  for (const auto& arguments :
       {std::vector<const char*>{"--help"}, {"ask", "--help"}, {"model", "get", "-h"}}) {
    const auto parsed = Parse(arguments);
    ASSERT_TRUE(std::holds_alternative<EarlyExit>(parsed));
    EXPECT_EQ(std::get<EarlyExit>(parsed).code, 0);
  }
  for (const auto& arguments : {std::vector<const char*>{},
                                {"frobnicate"},
                                {"ask"},
                                {"ask", "m"},
                                {"ask", "m", "q", "extra"},
                                {"ask", "m", "q", "--nope"},
                                {"ask", "m", "q", "--max-tokens", "0"},
                                {"ask", "m", "q", "--threads", "none"},
                                {"ask", "../m", "q"},
                                {"ingest", "a"},
                                {"ingest", "a", "--into", "m", "--as", "pdf"},
                                {"list", "--memory-budget", "1k"},
                                {"model"},
                                {"forget", "m", ""},
                                {"serve", "m"},
                                {"serve", "--listen", "8420"},
                                {"serve", "--resp", "localhost"},
                                {"serve", "--resp", "6379", "--resp-disk", "much"},
                                {"serve", "--memory", "../m"},
                                {"attach-server", "--slot-dir", "d"},
                                {"attach-server", "http://127.0.0.1:1"},
                                {"attach-server", "https://host", "--slot-dir", "d"}}) {
    const auto parsed = Parse(arguments);
    ASSERT_TRUE(std::holds_alternative<EarlyExit>(parsed)) << testing::PrintToString(arguments);
    EXPECT_EQ(std::get<EarlyExit>(parsed).code, 2);
    EXPECT_THAT(std::get<EarlyExit>(parsed).text, HasSubstr("--help'"));
    EXPECT_EQ(std::get<EarlyExit>(parsed).text.find('\n'), std::string::npos);
  }
}

TEST(ExitCodes, MatchTheDocumentedCodes) {
  EXPECT_EQ(ExitCode(OkStatus()), 0);
  EXPECT_EQ(ExitCode(InvalidArgument("")), 1);
  EXPECT_EQ(ExitCode(FailedPrecondition("")), 1);
  EXPECT_EQ(ExitCode(NotFound("")), 3);
  EXPECT_EQ(ExitCode(DataLoss("")), 4);
  EXPECT_EQ(ExitCode(ResourceExhausted("")), 5);
  EXPECT_EQ(ExitCode(Cancelled("")), 130);
}

}  // namespace
}  // namespace longhold
