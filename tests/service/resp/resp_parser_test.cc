// The parser of Redis' protocol: whole commands however they are cut, and every bound. The parsed
// commands are compared with the strings that they were made from.
#include "service/resp/resp_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/resp_feed.h"

namespace longhold {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

RespParsed Feed(std::string_view bytes, size_t piece = 1 << 20) {
  return FeedResp(bytes, [piece] { return piece; });
}

std::string Encode(const std::vector<std::string>& command) {
  std::string out = "*" + std::to_string(command.size()) + "\r\n";
  for (const std::string& argument : command)
    out += "$" + std::to_string(argument.size()) + "\r\n" + argument + "\r\n";
  return out;
}

std::string BytesOf(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31 + (i >> 9));
  return bytes;
}

TEST(RespParser, FindsTheSameCommandsHoweverTheyAreCut) {
  const std::vector<std::vector<std::string>> commands = {
      {"PING"},
      {"SET", std::string("k\0\r\n", 4), BytesOf(RespParser::kShortBytesMax)},
      {"SET", "long", BytesOf(RespParser::kShortBytesMax + 1)},
      {"SET", "longer", BytesOf(100'000), "EX", "10"},
      {"GET", ""},
      {"SET", BytesOf(20'000), BytesOf(70'000)}};
  std::string bytes;
  for (const auto& command : commands) bytes += Encode(command);
  for (const size_t piece : {1, 2, 3, 7, 100, 4095, 4096, 4097, 16384, 65536, 1 << 20}) {
    const RespParsed parsed = Feed(bytes, piece);
    EXPECT_EQ(parsed.error, "");
    EXPECT_EQ(parsed.commands, commands) << piece;
    EXPECT_FALSE(parsed.within);
  }
}

TEST(RespParser, KnowsWhetherACommandIsComplete) {
  const std::string bytes = Encode({"SET", "k", BytesOf(5000)});
  for (size_t end = 1; end < bytes.size(); end += 37) {
    const RespParsed parsed = Feed(std::string_view(bytes).substr(0, end));
    EXPECT_THAT(parsed.commands, IsEmpty());
    EXPECT_TRUE(parsed.within) << end;
  }
}

TEST(RespParser, TakesInlineCommands) {
  const RespParsed parsed = Feed("PING\r\n\r\n  get   a \nECHO x\r\n*0\r\n*-1\r\nPING\r\n");
  EXPECT_THAT(parsed.commands, ElementsAre(ElementsAre("PING"), ElementsAre("get", "a"),
                                           ElementsAre("ECHO", "x"), ElementsAre("PING")));
}

TEST(RespParser, RefusesWhatIsBeyondItsBounds) {
  const auto error = [](const std::string& bytes) {
    const RespParsed parsed = Feed(bytes, 1000);
    EXPECT_THAT(parsed.commands, IsEmpty()) << bytes;
    return parsed.error;
  };
  EXPECT_THAT(error("*1\r\n$-1\r\n"), HasSubstr("invalid bulk length"));
  EXPECT_THAT(error("*1\r\n$67108865\r\n"), HasSubstr("invalid bulk length"));
  EXPECT_THAT(error("*1\r\n$99999999999999999999\r\n"), HasSubstr("invalid bulk length"));
  EXPECT_THAT(error("*1\r\n$ 1\r\n"), HasSubstr("invalid bulk length"));
  EXPECT_THAT(error("*1\r\n$\r\n"), HasSubstr("invalid bulk length"));
  EXPECT_THAT(error("*4097\r\n"), HasSubstr("invalid multibulk length"));
  EXPECT_THAT(error("*x\r\n"), HasSubstr("invalid multibulk length"));
  EXPECT_THAT(error("*" + std::string(100, '1')), HasSubstr("too big mbulk"));
  EXPECT_THAT(error("*1\r\n$" + std::string(100, '1')), HasSubstr("too big bulk"));
  EXPECT_THAT(error("*1\r\nGET"), HasSubstr("expected '$', got 'G'"));
  EXPECT_THAT(error("*1\r\n$3\r\nGETxx"), HasSubstr("does not end"));
  EXPECT_THAT(error("*1\r\n$5000\r\n" + std::string(5000, 'x') + "yy"), HasSubstr("does not end"));
  EXPECT_THAT(error(std::string(10'000, 'x')), HasSubstr("too big inline"));
  // Two arguments of 64 MiB: refused when the second is announced.
  std::string two =
      "*3\r\n$3\r\nSET\r\n$67108864\r\n" + std::string(kValueBytesMax, 'x') + "\r\n$67108864\r\n";
  EXPECT_THAT(Feed(two).error, HasSubstr("too long command"));
}

// A page can make a browser send this to any port.
TEST(RespParser, RefusesHttp) {
  EXPECT_THAT(Feed("POST / HTTP/1.1\r\nSET a b\r\n").error, HasSubstr("not an HTTP server"));
  EXPECT_THAT(Feed("Host: x\r\n").error, HasSubstr("not an HTTP server"));
}

TEST(RespParser, AllocatesNothingForALongArgumentBeforeItsOwnerAgrees) {
  RespParser parser;
  const std::string bytes = "*2\r\n$3\r\nGET\r\n$67108864\r\n";
  std::memcpy(parser.Space()[1].data(), bytes.data(), bytes.size());
  parser.Added(bytes.size());
  EXPECT_EQ(parser.Next(), RespParser::Event::kLongArgument);
  EXPECT_EQ(parser.Next(), RespParser::Event::kLongArgument) << "it can be asked again later";
  EXPECT_EQ(parser.long_bytes(), kValueBytesMax);
  EXPECT_TRUE(parser.waits());
  parser.AllowLong();
  EXPECT_EQ(parser.Next(), RespParser::Event::kNeedMore);
  EXPECT_EQ(parser.Space()[0].size(), kValueBytesMax);
}

}  // namespace
}  // namespace longhold
