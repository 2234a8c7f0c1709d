// JSON against its contract with users: the exact keys in the exact order, by parsing the output
// and by literal comparison. Text by its width and its required content.
#include "service/common/render.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/utf8.h"
#include "service/cli/progress.h"

namespace longhold {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

std::vector<std::string> Keys(const boost::json::value& value) {
  std::vector<std::string> keys;
  for (const auto& member : value.as_object()) keys.emplace_back(member.key());
  return keys;
}

RecalledSpan Span(const std::string& text) {
  RecalledSpan span;
  span.document = "genesis.txt";
  span.tokens = {64, 128};
  span.bytes = {300, 300 + text.size()};
  span.line_begin = 123;
  span.line_end = 125;
  span.text = text;
  span.score = 0.62;
  span.reasons = {"heads", "words"};
  return span;
}

AskReply Reply() {
  AskReply reply;
  reply.answer = "969 years";
  reply.citations = {{.index = 1, .span = Span("And all the days of Methuselah were 969 years")}};
  reply.coverage = 0.5;
  reply.spans = 1;
  reply.bytes_read = 1'500'000;
  reply.memory_tokens = 54'012;
  reply.timings.decode_tok_s = 52.25;
  return reply;
}

TEST(AskJson, HasExactlyTheKeysOfTheContract) {
  const boost::json::value json = boost::json::parse(AskJson(Reply()));
  EXPECT_THAT(Keys(json), ElementsAre("answer", "citations", "coverage", "token_gain", "abstained",
                                      "evidence", "grounded", "plan", "usage", "timings"));
  EXPECT_THAT(Keys(json.at("citations").at(0)),
              ElementsAre("index", "document", "byte_start", "byte_end", "line_start", "line_end",
                          "text", "date_line", "score", "provisional", "reasons"));
  EXPECT_THAT(Keys(json.at("plan")),
              ElementsAre("candidates", "spans", "tokens_recalled", "hops", "generation_spans",
                          "blocks_read", "bytes_read", "tokens_read_first"));
  EXPECT_THAT(Keys(json.at("usage")),
              ElementsAre("memory_tokens", "prompt_tokens", "completion_tokens"));
  EXPECT_THAT(Keys(json.at("timings")), ElementsAre("plan_ms", "recall_ms", "prompt_ms",
                                                    "decode_ms", "first_token_ms", "decode_tok_s"));
  EXPECT_EQ(json.at("citations").at(0).at("byte_start").to_number<int>(), 300);
  EXPECT_EQ(json.at("plan").at("bytes_read").to_number<int>(), 1'500'000);
  EXPECT_THAT(AskJson(Reply()),
              HasSubstr("\"score\":0.62,\"provisional\":false,\"reasons\":[\"heads\",\"words\"]"))
      << "sizes are human-readable too";
}

TEST(RecallJson, HasExactlyTheKeysOfTheContract) {
  RecallReply reply;
  reply.spans = {Span("a"), Span("b")};
  reply.timings.plan_ms = 12.5;
  const boost::json::value json = boost::json::parse(RecallJson(reply));
  EXPECT_THAT(Keys(json), ElementsAre("spans", "coverage", "token_gain", "abstained", "evidence",
                                      "hops", "timings"));
  EXPECT_THAT(
      Keys(json.at("spans").at(0)),
      ElementsAre("document", "token_begin", "token_end", "byte_start", "byte_end", "line_start",
                  "line_end", "text", "date_line", "score", "provisional", "reasons"));
  EXPECT_EQ(json.at("spans").as_array().size(), 2u);
  EXPECT_EQ(
      RecallJson({}),
      R"({"spans":[],"coverage":null,"token_gain":0,"abstained":false,"evidence":{"level":"strong","found_share":0,"similarity":null},"hops":0,"timings":{"plan_ms":0}})");
}

TEST(ShowJson, HasExactlyTheKeysOfTheContract) {
  MemoryInfo info;
  info.name = "genesis";
  info.model = "smol";
  info.documents = {{.id = {},
                     .name = "a.txt",
                     .bytes = 10,
                     .tokens = 3,
                     .searchable_tokens = 3,
                     .committed_tokens = 2,
                     .version = 1}};
  info.tokens = 3;
  info.tokens_read = 2;
  info.disk_bytes = 1ull << 40;
  const std::string one =
      R"({"memory":"genesis","model":"smol","documents":[{"name":"a.txt","bytes":10,"tokens":3,"searchable_tokens":3,"committed_tokens":2}],"tokens":3,"tokens_read":2,"disk_bytes":1099511627776})";
  EXPECT_EQ(ShowJson(info), one);
  EXPECT_EQ(ListJson({info, info}), "[" + one + "," + one + "]");
  EXPECT_EQ(ListJson({}), "[]");
}

TEST(ShowText, SaysHowMuchOfADocumentIsRead) {
  MemoryInfo info;
  info.name = "genesis";
  info.documents = {
      {.id = {},
       .name = "a.txt",
       .tokens = 200,
       .searchable_tokens = 200,
       .committed_tokens = 64,
       .version = 1},
      {.id = {}, .name = "b.txt", .tokens = 300, .searchable_tokens = 128, .version = 2},
      {.id = {},
       .name = "c.txt",
       .tokens = 5,
       .searchable_tokens = 5,
       .committed_tokens = 5,
       .version = 1}};
  const std::string text = ShowText(info);
  EXPECT_THAT(text, HasSubstr("200 tokens  32% read"));
  EXPECT_THAT(text, HasSubstr("300 tokens  version 2, 128 found so far"));
  EXPECT_THAT(text, HasSubstr("5 tokens\n"));
}

TEST(CitationsText, MarksPlacesThatAreNotReadYet) {
  AskReply reply = Reply();
  EXPECT_THAT(CitationsText(reply, "", "m"), HasSubstr("(0.62)"));
  reply.citations[0].span.provisional = true;
  EXPECT_THAT(CitationsText(reply, "", "m"), HasSubstr("(0.62, not read yet)"));
  EXPECT_THAT(TimingsText(reply), Not(HasSubstr("read for this")));
  reply.tokens_read_first = 640;
  EXPECT_THAT(TimingsText(reply), HasSubstr("640 read for this first"));
}

TEST(ShowJson, OmitsOtherNamesAndDamageWhenThereAreNone) {
  MemoryInfo info;
  info.name = "genesis";
  info.model = "smol";
  info.documents = {{.id = {},
                     .name = "a.txt",
                     .aliases = {"b.txt", "c.txt"},
                     .bytes = 10,
                     .tokens = 3,
                     .searchable_tokens = 3,
                     .committed_tokens = 3,
                     .version = 1}};
  const boost::json::value whole = boost::json::parse(ShowJson(info));
  EXPECT_THAT(
      Keys(whole.at("documents").at(0)),
      ElementsAre("name", "bytes", "tokens", "searchable_tokens", "committed_tokens", "aliases"));
  EXPECT_THAT(ShowText(info), HasSubstr("also b.txt, also c.txt"));
  MemoryInfo damaged;
  damaged.name = "exodus";
  damaged.status = DataLoss("memory exodus: manifest record: checksum mismatch");
  damaged.disk_bytes = 7;
  const boost::json::value list = boost::json::parse(ListJson({info, damaged}));
  EXPECT_THAT(Keys(list.at(0)),
              ElementsAre("memory", "model", "documents", "tokens", "tokens_read", "disk_bytes"));
  EXPECT_THAT(Keys(list.at(1)), ElementsAre("memory", "model", "documents", "tokens", "tokens_read",
                                            "disk_bytes", "error"));
  EXPECT_EQ(list.at(1).at("error").at("code").as_string(), "data_loss");
  EXPECT_THAT(ListText({info, damaged}), testing::ContainsRegex("exodus +damaged +7 B"));
}

TEST(AskJson, ReportsLossesOnlyWhenDegraded) {
  AskReply reply = Reply();
  EXPECT_EQ(AskJson(reply).find("lost"), std::string::npos);
  reply.degradation.blocks_lost = 2;
  EXPECT_THAT(AskJson(reply), HasSubstr("\"lost\":{\"blocks\":2,\"spans\":0}"));
  EXPECT_THAT(RecallJson({.degradation = {.spans_lost = 1}}),
              HasSubstr("\"lost\":{\"blocks\":0,\"spans\":1}"));
}

TEST(Abstention, ReportsTheClosestPlaceAndHowToForceAnAnswer) {
  AskReply reply;
  reply.answer = kAbstention;
  reply.abstained = true;
  reply.token_gain = 0.25;
  reply.closest = {Span("And Noah")};
  EXPECT_THAT(
      AskJson(reply),
      HasSubstr("\"citations\":[],\"coverage\":null,\"token_gain\":0.25,\"abstained\":true,"));
  EXPECT_EQ(CitationsText(reply, "", "m"), "") << "the answer text reports it already";
  EXPECT_THAT(ClosestText(reply),
              testing::AllOf(HasSubstr("genesis.txt:123-125"), HasSubstr("--no-abstain")));
  EXPECT_LE(ClosestText(reply).size(), kColumns);
  EXPECT_EQ(ClosestText(Reply()), "");
  RecallReply recall;
  recall.spans = {Span("And Noah")};
  recall.coverage = 0.5;
  EXPECT_THAT(RecallText(recall, "", "m"), testing::Not(HasSubstr("nothing")));
  recall.abstained = true;
  EXPECT_THAT(RecallText(recall, "", "m"),
              testing::AllOf(HasSubstr("[1] genesis.txt"), HasSubstr("nothing on this"),
                             HasSubstr("--no-abstain")));
}

RecallReply Explained() {
  RecallReply reply;
  reply.words = {
      {"Which", 9, 0.1, true}, {"newspaper", 0, 8.5, false}, {"Pilate", 55, 5.25, false}};
  ExplainedSpan kept;
  kept.span = Span("Pilate saith");
  kept.planned_rank = 3;
  kept.rank = 1;
  kept.signals = {{"heads", 0.5}};
  kept.trail = {{"retrieve", "found", "heads 0.50"}, {"fuse", "ranked", "2, score 0.50"}};
  kept.token_gain = 1.25;
  kept.support = 0.75;
  kept.found = {true, false, true};
  kept.word_gains = {0.1, -0.5, 2};
  kept.kept = true;
  ExplainedSpan left = kept;
  left.span.document = std::string(100, 'd');
  left.planned_rank = 17;
  left.rank = 0;
  left.kept = false;
  left.why = "not reranked";
  reply.explained = {kept, left};
  return reply;
}

TEST(ExplainText, ShowsRanksScoresWordsAndReasonsOnAScreen) {
  const std::string text = ExplainText(Explained());
  EXPECT_THAT(text, HasSubstr("newspaper nowhere,\nPilate 55"));
  EXPECT_THAT(text, HasSubstr("   1       3   1.25     0.75   0.62  "
                              "genesis.txt:123-125\n      kept; has Pilate; lacks newspaper\n"
                              "        retrieve: found (heads 0.50)\n"
                              "        fuse: ranked (2, score 0.50)\n"));
  EXPECT_THAT(text, HasSubstr("   -      17      -        -   0.62  \u2026ddd"));
  EXPECT_THAT(text, HasSubstr("ddd:123-125\n"));
  EXPECT_THAT(text, HasSubstr("not kept: not reranked"));
  EXPECT_THAT(text, testing::Not(HasSubstr("Which"))) << "function words are not shown";
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    EXPECT_LE(CountColumns(text.substr(at, end - at)), 80u);
    at = end + 1;
  }
}

TEST(RecallJson, ExplainsOnlyOnRequest) {
  const boost::json::value json = boost::json::parse(RecallJson(Explained()));
  EXPECT_THAT(Keys(json), ElementsAre("spans", "coverage", "token_gain", "abstained", "evidence",
                                      "hops", "timings", "words", "explained"));
  EXPECT_THAT(Keys(json.at("words").at(0)),
              ElementsAre("word", "blocks", "weight", "function_word", "related"));
  const boost::json::value& first = json.at("explained").at(0);
  EXPECT_THAT(Keys(first),
              ElementsAre("document", "token_begin", "token_end", "line_start", "line_end", "text",
                          "rank_planned", "rank", "signals", "score_planned", "token_gain",
                          "support", "score", "words_found", "words_missing", "words_token_gain",
                          "kept", "why", "trail"));
  EXPECT_EQ(boost::json::serialize(first.at("words_found")), R"(["Which","Pilate"])");
  EXPECT_EQ(boost::json::serialize(first.at("words_missing")), R"(["newspaper"])");
  EXPECT_TRUE(json.at("explained").at(1).at("rank").is_null());
}

TEST(ReindexJson, HasExactlyItsKeys) {
  EXPECT_EQ(
      ReindexJson("m", {.other_heads = true,
                        .tokens = 5,
                        .segments = 4,
                        .segments_rebuilt = 3,
                        .segments_lost = 2,
                        .blocks_lost = 1,
                        .seconds = 0.5}),
      R"({"memory":"m","other_heads":true,"tokens":5,"segments":4,"segments_rebuilt":3,"segments_lost":2,"blocks_lost":1,"seconds":0.5})");
}

// However the text is split into pieces, the lines must equal those of the whole text at once.
TEST(LineWrap, BreaksAtSpacesWhateverThePieces) {
  const std::string text =
      "And Noah said,\n\n    the  dove \u00e9\u00e9\u00e9\u00e9\u00e9\u00e9 came back with an "
      "olive leaf and extraordinarilylongword after it. ";
  std::string whole;
  {
    LineWrap wrap(20);
    whole = wrap.Feed(text);
    whole += wrap.Finish();
  }
  EXPECT_EQ(whole,
            "And Noah said,\n\n    the  dove \u00e9\u00e9\u00e9\u00e9\u00e9\u00e9\ncame back with "
            "an\nolive leaf and\nextraordinarilylongword\nafter it.");
  for (size_t size = 1; size < 9; ++size) {
    LineWrap wrap(20);
    std::string out;
    for (size_t at = 0; at < text.size(); at += size)
      out += wrap.Feed(std::string_view(text).substr(at, size));
    EXPECT_EQ(out + wrap.Finish(), whole) << size;
  }
}

TEST(IngestJson, HasExactlyTheKeysOfTheContract) {
  const IngestSummary summary{.memory = "m",
                              .documents = 2,
                              .tokens = 300,
                              .tokens_indexed = 290,
                              .index_seconds = 2,
                              .tokens_unread = 10,
                              .tokens_read = 200,
                              .seconds = 4,
                              .first_64k_tok_s = 51,
                              .last_64k_tok_s = 49,
                              .peak_rss_bytes = 5,
                              .disk_bytes = 6};
  EXPECT_EQ(
      IngestJson(summary),
      R"({"memory":"m","documents":2,"tokens":300,"tokens_indexed":290,"index_seconds":2,"tokens_unread":10,"seconds":4,"tokens_per_s":50,"first_64k_tok_s":51,"last_64k_tok_s":49,"peak_rss_bytes":5,"disk_bytes":6})");
  EXPECT_THAT(IngestJson({.memory = "m"}), HasSubstr("\"tokens_per_s\":0,"));
}

TEST(Json, IsValidForAnyText) {
  AskReply reply = Reply();
  reply.answer = "\xA9 \"quoted\" \x01\n\\";
  reply.citations[0].span.document = "caf\xE9.txt";
  reply.coverage = std::numeric_limits<double>::quiet_NaN();
  const std::string text = AskJson(reply);
  EXPECT_EQ(FirstInvalidUtf8(text), std::nullopt);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_EQ(boost::json::parse(text).at("answer").as_string(), "\xEF\xBF\xBD \"quoted\" \x01\n\\");
}

TEST(Citations, NameThePlaceAndFitTheScreen) {
  AskReply reply = Reply();
  std::string words;
  for (int i = 0; i < 200; ++i) words += "word" + std::to_string(i) + (i % 9 == 8 ? "\n" : " ");
  reply.citations.push_back({.index = 2, .span = Span(words)});
  const std::string text = CitationsText(reply, "where is word150?", "bible");
  EXPECT_THAT(text, StartsWith("[1] genesis.txt:123-125  (0.62)\n    And all the days of "
                               "Methuselah were 969 years\n[2] "));
  EXPECT_THAT(text, HasSubstr("word150"));
  size_t begin = 0, lines = 0;
  while (begin < text.size()) {
    const size_t end = text.find('\n', begin);
    EXPECT_LE(CountColumns(text.substr(begin, end - begin)), 80u);
    begin = end + 1;
    ++lines;
  }
  EXPECT_LE(lines, 2 + 1 + 3u);
}

TEST(Citations, WarnWhenTheMemoryMayNotHoldTheAnswer) {
  AskReply reply = Reply();
  EXPECT_EQ(CitationsText(reply, "", "bible").find("may not say"), std::string::npos);
  reply.evidence.level = Evidence::Level::kWeak;
  EXPECT_THAT(CitationsText(reply, "", "bible"),
              HasSubstr("(weak evidence: bible may not say this)"));
  reply.grounded = false;
  EXPECT_THAT(CitationsText(reply, "", "bible"), HasSubstr("(not from bible: "));
  reply.grounded = true;
  reply.spans = 0;
  reply.citations.clear();
  EXPECT_EQ(CitationsText(reply, "", "bible"), "(nothing in bible matches this)\n");
}

TEST(Excerpt, ShowsTheTextAroundTheHint) {
  EXPECT_EQ(Excerpt("  short\n text ", "", 40), "short text");
  EXPECT_EQ(Excerpt("", "x", 40), "");
  const std::string text =
      "Ge1:1 nothing of interest here at all\nGe1:2 the ark rested upon Ararat\nGe1:3 and more of "
      "the same again\n";
  EXPECT_EQ(Excerpt(text, "Where did the ark rest? Ararat", 44),
            "\u2026 Ge1:2 the ark rested upon Ararat Ge1:3 \u2026");
  // One long line: the excerpt may begin at any word.
  std::string line;
  for (int i = 0; i < 100; ++i) line += "filler" + std::to_string(i) + " ";
  EXPECT_THAT(Excerpt(line + "needle " + line, "needle", 60), HasSubstr("needle"));
  EXPECT_LE(CountColumns(Excerpt(line, "filler50", 60)), 61u);
}

TEST(Wrap, BreaksAtSpacesAndCutsLongerWords) {
  EXPECT_THAT(Wrap("aaa bbb ccc", 1, 8), ElementsAre(" aaa bbb", " ccc"));
  EXPECT_THAT(Wrap("abcdefgh i", 0, 3), ElementsAre("abc", "def", "gh", "i"));
  EXPECT_THAT(Wrap("\xC3\xA9\xC3\xA9\xC3\xA9", 0, 2), ElementsAre("\xC3\xA9\xC3\xA9", "\xC3\xA9"));
  EXPECT_THAT(Wrap(" ", 0, 5), ElementsAre());
}

TEST(Numbers, AreHumanReadable) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(1'048'576), "1,048,576");
  EXPECT_EQ(FormatDuration(0.44), "0.4 s");
  EXPECT_EQ(FormatDuration(42), "42 s");
  EXPECT_EQ(FormatDuration(187), "3:07");
  EXPECT_EQ(FormatDuration(3723), "1:02:03");
  EXPECT_EQ(FormatDuration(-1), "0.0 s");
}

TEST(Progress, BarFitsTheTerminalForAnyName) {
  const IngestProgress progress{
      .document = "x", .tokens_done = 1'022'528, .tokens_total = 1'154'012, .tokens_per_s = 512};
  for (const std::string& label : {std::string("a.txt"), std::string(200, 'n') + ".txt"}) {
    const std::string bar = ProgressBar(label, progress);
    EXPECT_LE(CountColumns(bar), 79u) << bar;
    EXPECT_THAT(bar, HasSubstr("88%  1,022,528 of 1,154,012  512 tok/s  4:17 left"));
  }
  EXPECT_THAT(ProgressBar("a", {}), HasSubstr("  0%  0 of 0"));
}

TEST(Progress, BarsUpdateTenTimesASecondAndLinesEveryFiveSeconds) {
  IngestProgress progress{
      .document = "x", .tokens_done = 10, .tokens_total = 100, .tokens_per_s = 5};
  ProgressMeter bar(ProgressMeter::Style::kBar, "x"), lines(ProgressMeter::Style::kLines, "x");
  int bars = 0, printed = 0;
  for (int i = 0; i < 1100; ++i) {  // eleven seconds
    bars += bar.Update(progress, i * 0.01).has_value();
    printed += lines.Update(progress, i * 0.01).has_value();
  }
  EXPECT_GE(bars, 90);
  EXPECT_LE(bars, 111);
  EXPECT_EQ(printed, 2);
  progress.tokens_done = 100;
  EXPECT_TRUE(bar.Update(progress, 11.0).has_value()) << "the full bar is always shown";
}

}  // namespace
}  // namespace longhold
