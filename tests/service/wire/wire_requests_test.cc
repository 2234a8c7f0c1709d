// What requests of the wire protocol do, over TCP and over a Unix socket.
//
// What is compared with what: rows that are fetched with rows that were put, bit by bit (codec
// exact, keys not rotated; tests/memory/sidecar has rotation); answers with what was put. Sizes:
// documents of some blocks, and one of more than a commit.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <thread>

#include "base/hash.h"
#include "memory/engine.h"
#include "store/rocks_provider.h"
#include "tests/service/wire/wire_fixture.h"
#include "tests/support/toy_text.h"

namespace longhold::wire {
namespace {

using testing::HasSubstr;

const std::string kTale =
    "The miller keeps his ledger in a copper chest.\n"
    "At harvest a stranger asks for the name of his horse.\n"
    "The horse is called Juniper, and it fears water.\n\n"
    "Nobody in the valley remembers who built the bridge.\n";

class WireRequestsTest : public WireTest, public testing::WithParamInterface<bool> {
 protected:
  void SetUp() override { Serve(); }
};
INSTANTIATE_TEST_SUITE_P(Over, WireRequestsTest, testing::Values(false, true),
                         [](const auto& info) { return info.param ? "Tcp" : "Unix"; });

TEST_P(WireRequestsTest, EveryRequestDoesItsWork) {
  const auto client = Connect(GetParam());
  const auto hello =
      client->Ask<HelloReply>(FrameType::kHello, HelloRequest{.version = 7, .client = "test"});
  ASSERT_TRUE(hello.ok()) << hello.status().ToString();
  EXPECT_EQ(hello->version, 1u);
  EXPECT_EQ(hello->server, "longhold test");
  EXPECT_EQ(hello->payload_bytes_max, kPayloadBytesMax);
  EXPECT_EQ(hello->memfd, !GetParam());
  const std::string print = "0123456789abcdef";
  EXPECT_EQ(client->Ask<ModelReply>(FrameType::kUseModel, UseModelRequest{print}).status().code(),
            StatusCode::kNotFound);
  const auto model = client->Ask<ModelReply>(FrameType::kDescribeModel, ToyDescription(print));
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_GT(model->window_tokens, 0u);
  EXPECT_TRUE(client->Ask<ModelReply>(FrameType::kUseModel, UseModelRequest{print}).ok());

  const PutBeginRequest document = Document("tales", "miller.txt", kTale);
  const size_t count = document.tokens.size();
  const auto begun = Begin(*client, document);
  ASSERT_TRUE(begun.ok()) << begun.status().ToString();
  EXPECT_EQ(begun->position, 0u);
  const auto rows = RandomRows(count, 3);
  EXPECT_EQ(Rows(*client, begun->writer, Part(rows, 0, 100))->position, 100u);
  EXPECT_EQ(Rows(*client, begun->writer, {})->position, 100u) << "only asks";
  EXPECT_EQ(Rows(*client, begun->writer, Part(rows, 100, count - 100))->position, count);
  EXPECT_EQ(Finish(*client, begun->writer)->position, count);
  EXPECT_EQ(Finish(*client, begun->writer).status().code(), StatusCode::kNotFound);
  const auto again = Begin(*client, document);
  EXPECT_EQ(again->position, count) << "is there already";
  EXPECT_EQ(Finish(*client, again->writer)->position, count);

  const auto stat = client->Ask<StatReply>(FrameType::kStat, StatRequest{"tales"});
  ASSERT_TRUE(stat.ok()) << stat.status().ToString();
  EXPECT_EQ(stat->documents, 1u);
  EXPECT_EQ(stat->tokens, count);
  EXPECT_GT(stat->disk_bytes, 0u);

  const auto tokens = client->Ask<TokensReply>(FrameType::kTokens,
                                               TokensRequest{"tales", begun->document, {10, 30}});
  ASSERT_TRUE(tokens.ok()) << tokens.status().ToString();
  EXPECT_EQ(tokens->tokens,
            std::vector<TokenId>(document.tokens.begin() + 10, document.tokens.begin() + 30));
  std::vector<TokenId> start(document.tokens.begin(), document.tokens.begin() + 50);
  start.push_back('!');
  const auto prefix = client->Ask<PrefixReply>(FrameType::kPrefix, PrefixRequest{"tales", start});
  ASSERT_TRUE(prefix.ok()) << prefix.status().ToString();
  EXPECT_EQ(prefix->prefix.tokens, 50u);
  EXPECT_EQ(prefix->prefix.document, begun->document);

  const auto plan = client->Ask<PlanReply>(
      FrameType::kPlan, PlanRequest{.memory = "tales", .question = "Who fears water, Juniper?"});
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  ASSERT_FALSE(plan->spans.empty());
  EXPECT_THAT(plan->spans[0].text, HasSubstr("Juniper"));
  EXPECT_EQ(plan->spans[0].document, "miller.txt");
  EXPECT_EQ(plan->coverage, -1);
  // One head, one token: [group, head_dim] floats.
  const std::vector<float> query(2 * 4, 0.5f);
  const auto with_queries =
      client->Ask<PlanReply>(FrameType::kPlan, PlanRequest{.memory = "tales", .query_tokens = 1},
                             WireClient::Extra{.payload = BytesOf(query)});
  ASSERT_TRUE(with_queries.ok()) << with_queries.status().ToString();
  EXPECT_GE(with_queries->coverage, 0);

  FetchRequest fetch{.memory = "tales",
                     .places = {{begun->document, {70, 90}, 0}, {begun->document, {0, 3}, 9}}};
  ReceivedFrame frame;
  const auto fetched =
      client->Ask<FetchReply>(FrameType::kFetch, fetch, WireClient::Extra{}, &frame);
  ASSERT_TRUE(fetched.ok()) << fetched.status().ToString();
  EXPECT_EQ(fetched->tokens, 23u);
  std::vector<uint16_t> got(frame.payload.size() / 2);
  std::memcpy(got.data(), frame.payload.data(), frame.payload.size());
  EXPECT_EQ(Part(got, 0, 20), Part(rows, 70, 20));
  EXPECT_EQ(Part(got, 20, 3), Part(rows, 0, 3));
  fetch.float32 = fetch.rotated = true;
  ASSERT_TRUE(client->Ask<FetchReply>(FrameType::kFetch, fetch, WireClient::Extra{}, &frame).ok());
  EXPECT_EQ(frame.payload.size(), 2 * 2 * got.size());

  const std::string data(100'000, 'x');
  const auto pong =
      client->Ask<PingReply>(FrameType::kPing, PingRequest{70'000},
                             WireClient::Extra{.payload = {data.data(), data.size()}}, &frame);
  ASSERT_TRUE(pong.ok()) << pong.status().ToString();
  EXPECT_EQ(pong->hash, Hash64(data));
  EXPECT_EQ(frame.payload, std::vector<char>(70'000, 'p'));

  const auto forget = [&](const std::string& document_name) {
    return client->Ask<ForgetReply>(FrameType::kForget, ForgetRequest{"tales", document_name})
        .status();
  };
  EXPECT_EQ(forget("other.txt").code(), StatusCode::kNotFound);
  EXPECT_TRUE(forget("miller.txt").ok());
  EXPECT_EQ(client->Ask<StatReply>(FrameType::kStat, StatRequest{"tales"})->documents, 0u);
  EXPECT_TRUE(forget("").ok());
  EXPECT_EQ(client->Ask<StatReply>(FrameType::kStat, StatRequest{"tales"}).status().code(),
            StatusCode::kNotFound);
}

TEST_P(WireRequestsTest, RepliesOfManyRequestsAtOnceHaveTheirOrder) {
  const auto client = Ready(GetParam());
  ASSERT_TRUE(Put(*client, Document("m", "d", kTale)).ok());
  std::vector<uint64_t> ids;
  for (int i = 0; i < 60; ++i) {
    const auto id = i % 3 == 0   ? client->Send(FrameType::kStat, Encode(StatRequest{"m"}), {})
                    : i % 3 == 1 ? client->Send(FrameType::kPing, Encode(PingRequest{100}), {})
                                 : client->Send(FrameType::kStat, Encode(StatRequest{"none"}), {});
    ASSERT_TRUE(id.ok());
    ids.push_back(*id);
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto frame = client->Receive();
    ASSERT_TRUE(frame.ok()) << frame.status().ToString();
    EXPECT_EQ(frame->header.request_id, ids[i]);
    EXPECT_EQ(frame->header.type, i % 3 == 0   ? ReplyTo(FrameType::kStat)
                                  : i % 3 == 1 ? ReplyTo(FrameType::kPing)
                                               : FrameType::kError);
  }
}

TEST_P(WireRequestsTest, WrongRequestsAreRefusedAndTheConnectionGoesOn) {
  const auto client = Connect(GetParam());
  ASSERT_TRUE(client->Hello().ok());
  const auto code = [&](auto reply, FrameType type, const auto& request,
                        const WireClient::Extra& extra = {}) {
    return client->Ask<decltype(reply)>(type, request, extra).status().code();
  };
  constexpr StatusCode kInvalid = StatusCode::kInvalidArgument;
  EXPECT_EQ(code(StatReply{}, FrameType::kStat, StatRequest{"m"}), StatusCode::kFailedPrecondition)
      << "no model yet";
  DescribeModelRequest model = ToyDescription();
  model.model.geometry.head_dim = 5;
  EXPECT_EQ(code(ModelReply{}, FrameType::kDescribeModel, model), kInvalid);
  model = ToyDescription();
  model.codec = "none";
  EXPECT_EQ(code(ModelReply{}, FrameType::kDescribeModel, model), kInvalid);
  model = ToyDescription();
  model.model.name = "two\nlines";
  EXPECT_EQ(code(ModelReply{}, FrameType::kDescribeModel, model), kInvalid);
  ASSERT_TRUE(Describe(*client).ok());
  EXPECT_EQ(Begin(*client, Document("../m", "d", kTale)).status().code(), kInvalid);
  EXPECT_EQ(Begin(*client, Document("m", "", kTale)).status().code(), kInvalid);
  EXPECT_EQ(Begin(*client, Document("m", "d", "")).status().code(), kInvalid);
  EXPECT_EQ(Begin(*client, Document("m", "d", "a\xff")).status().code(), kInvalid);
  PutBeginRequest odd = Document("m", "d", kTale);
  odd.tokens.back() = 1 << 30;
  EXPECT_EQ(Begin(*client, odd).status().code(), kInvalid);
  const auto begun = Begin(*client, Document("m", "d", kTale));
  ASSERT_TRUE(begun.ok());
  EXPECT_EQ(code(ModelReply{}, FrameType::kUseModel, UseModelRequest{"0123456789abcdef"}),
            StatusCode::kFailedPrecondition)
      << "a document is being put";
  const auto rows = RandomRows(20, 1);
  EXPECT_EQ(code(PutRowsReply{}, FrameType::kPutRows,
                 PutRowsRequest{.writer = begun->writer, .tokens = 19}, {.payload = BytesOf(rows)}),
            kInvalid)
      << "another length";
  EXPECT_EQ(code(PutRowsReply{}, FrameType::kPutRows, PutRowsRequest{.writer = 99, .tokens = 20},
                 {.payload = BytesOf(rows)}),
            StatusCode::kNotFound);
  EXPECT_EQ(code(PutRowsReply{}, FrameType::kPutRows,
                 PutRowsRequest{
                     .writer = begun->writer, .tokens = 20, .rotated = true, .position = INT64_MAX},
                 {.payload = BytesOf(rows)}),
            kInvalid);
  std::vector<uint16_t> infinite = rows;
  infinite[17] = 0x7C00;
  EXPECT_EQ(Rows(*client, begun->writer, infinite).status().code(), kInvalid);
  EXPECT_EQ(Rows(*client, begun->writer, RandomRows(1000, 1)).status().code(), kInvalid)
      << "more rows than tokens";
  EXPECT_TRUE(Finish(*client, begun->writer).ok());
  EXPECT_EQ(code(PlanReply{}, FrameType::kPlan, PlanRequest{.memory = "m"}), kInvalid);
  EXPECT_EQ(code(PlanReply{}, FrameType::kPlan, PlanRequest{.memory = "m", .question = "\xff"}),
            kInvalid);
  EXPECT_EQ(
      code(PlanReply{}, FrameType::kPlan, PlanRequest{.memory = "m", .query_tokens = UINT32_MAX}),
      kInvalid);
  const DocumentId d{1};
  for (const TokenSpan& span :
       {TokenSpan{0, 0}, TokenSpan{5, 4}, TokenSpan{0, UINT64_MAX}, TokenSpan{0, 1u << 24},
        TokenSpan{UINT64_MAX - 1, UINT64_MAX}, TokenSpan{100000, 100001}}) {
    EXPECT_EQ(code(FetchReply{}, FrameType::kFetch,
                   FetchRequest{.memory = "m", .places = {{d, span, 0}}}),
              kInvalid);
    EXPECT_EQ(code(TokensReply{}, FrameType::kTokens, TokensRequest{"m", d, span}), kInvalid);
  }
  EXPECT_EQ(code(FetchReply{}, FrameType::kFetch,
                 FetchRequest{.memory = "m",
                              .places = std::vector<PlacedSpan>(60000, {d, {0, 1 << 16}, 0})}),
            kInvalid);
  EXPECT_EQ(code(PingReply{}, FrameType::kPing, PingRequest{kPayloadBytesMax + 1}), kInvalid);
  const auto hello_again = client->Ask<HelloReply>(FrameType::kHello, HelloRequest{.version = 1});
  EXPECT_EQ(hello_again.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Works(*client));
}

TEST_P(WireRequestsTest, OneConnectionPutsFourDocumentsAtATime) {
  const auto client = Ready(GetParam());
  std::vector<uint32_t> writers;
  for (uint32_t i = 0; i < kWritersMax; ++i) {
    const auto begun = Begin(*client, Document("m" + std::to_string(i), "d", kTale));
    ASSERT_TRUE(begun.ok()) << begun.status().ToString();
    writers.push_back(begun->writer);
  }
  EXPECT_EQ(Begin(*client, Document("more", "d", kTale)).status().code(),
            StatusCode::kResourceExhausted);
  const auto rows = RandomRows(kTale.size(), 1);
  for (const uint32_t writer : writers) EXPECT_TRUE(Rows(*client, writer, rows).ok());
  for (const uint32_t writer : writers) EXPECT_TRUE(Finish(*client, writer).ok());
  EXPECT_TRUE(Begin(*client, Document("more", "d", kTale)).ok());
}

TEST_P(WireRequestsTest, TwoClientsWorkInParallel) {
  const auto work = [&](int n) {
    const auto client = Ready(GetParam());
    const std::string memory = "m" + std::to_string(n);
    for (int i = 0; i < 10; ++i) {
      const std::string text = kTale + std::to_string(i);
      EXPECT_TRUE(Put(*client, Document(memory, "d" + std::to_string(i), text), 7).ok());
      const auto plan = client->Ask<PlanReply>(
          FrameType::kPlan, PlanRequest{.memory = memory, .question = "Juniper"});
      EXPECT_TRUE(plan.ok()) << plan.status().ToString();
      const auto fetched = Fetch(*client, memory, 200);
      ASSERT_TRUE(fetched.ok()) << fetched.status().ToString();
      const auto expected = Part(RandomRows(text.size(), 7), 0, 200);
      if (i == 0) {
        EXPECT_EQ(std::memcmp(fetched->data(), expected.data(), fetched->size()), 0);
      }
    }
  };
  std::thread other([&] { work(1); });
  work(0);
  other.join();
}

// ------------------------------------------------------------------------------------------------
// shared memory

using WireMemfdTest = WireRequestsTest;
INSTANTIATE_TEST_SUITE_P(Over, WireMemfdTest, testing::Values(false),
                         [](const auto&) { return "Unix"; });

TEST_P(WireMemfdTest, RowsGoThroughItBothWays) {
  const auto client = Ready();
  const std::string text(3000, 'a');
  const auto begun = Begin(*client, Document("m", "d", text));
  ASSERT_TRUE(begun.ok());
  const auto rows = RandomRows(text.size(), 5);
  const uint64_t bytes = rows.size() * 2;
  const SharedBuffer put = SharedBuffer::Make(bytes + 100);
  std::memcpy(put.mapping.bytes().data(), rows.data(), bytes);
  const auto taken = client->Ask<PutRowsReply>(
      FrameType::kPutRows, PutRowsRequest{.writer = begun->writer, .tokens = 3000},
      WireClient::Extra{.memfd_bytes = bytes, .memfd = put.memfd->get(), .flags = kPayloadInMemfd});
  ASSERT_TRUE(taken.ok()) << taken.status().ToString();
  EXPECT_EQ(taken->position, 3000u);
  ASSERT_TRUE(Finish(*client, begun->writer).ok());

  const FetchRequest fetch{.memory = "m", .places = {{DocumentId{1}, {0, 3000}, 0}}};
  ReceivedFrame frame;
  // Into memory of the client.
  const SharedBuffer into = SharedBuffer::Make(bytes);
  ASSERT_TRUE(client
                  ->Ask<FetchReply>(
                      FrameType::kFetch, fetch,
                      WireClient::Extra{.memfd = into.memfd->get(), .flags = kReplyInMemfd}, &frame)
                  .ok());
  EXPECT_EQ(frame.header.flags, kReplyInMemfd);
  EXPECT_EQ(frame.header.payload_bytes, bytes);
  EXPECT_EQ(frame.memfd, nullptr);
  EXPECT_EQ(std::memcmp(into.mapping.bytes().data(), rows.data(), bytes), 0);
  // Into memory of the server.
  ASSERT_TRUE(client
                  ->Ask<FetchReply>(FrameType::kFetch, fetch,
                                    WireClient::Extra{.flags = kReplyInMemfd}, &frame)
                  .ok());
  EXPECT_EQ(frame.header.flags, kPayloadInMemfd);
  ASSERT_NE(frame.memfd, nullptr);
  EXPECT_EQ(fcntl(frame.memfd->get(), F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  const auto mapped = Payload::Map(frame.memfd->get(), bytes, false);
  ASSERT_TRUE(mapped.ok()) << mapped.status().ToString();
  EXPECT_EQ(std::memcmp(mapped->bytes().data(), rows.data(), bytes), 0);
  // Queries of a plan.
  const std::vector<float> query(2 * 4, 0.5f);
  std::memcpy(put.mapping.bytes().data(), query.data(), 32);
  const auto plan = client->Ask<PlanReply>(
      FrameType::kPlan, PlanRequest{.memory = "m", .query_tokens = 1},
      WireClient::Extra{.memfd_bytes = 32, .memfd = put.memfd->get(), .flags = kPayloadInMemfd});
  EXPECT_TRUE(plan.ok()) << plan.status().ToString();
}

TEST_P(WireMemfdTest, WhatCouldEndTheServerIsRefused) {
  const auto client = Ready();
  const auto ping = [&](int memfd, uint8_t flags, uint64_t bytes) {
    const uint64_t sent = (flags & kPayloadInMemfd) != 0 ? bytes : 0;
    return client
        ->Ask<PingReply>(FrameType::kPing, PingRequest{(flags & kReplyInMemfd) != 0 ? bytes : 0},
                         WireClient::Extra{.memfd_bytes = sent, .memfd = memfd, .flags = flags})
        .status();
  };
  for (const uint8_t flags : {kPayloadInMemfd, kReplyInMemfd}) {
    const SharedBuffer unsealed = SharedBuffer::MakeWith(8192, 0);
    EXPECT_THAT(ping(unsealed.memfd->get(), flags, 8192).message(), HasSubstr("F_SEAL_SHRINK"));
    const SharedBuffer grows_only = SharedBuffer::MakeWith(8192, F_SEAL_GROW);
    EXPECT_THAT(ping(grows_only.memfd->get(), flags, 8192).message(), HasSubstr("F_SEAL_SHRINK"));
    const SharedBuffer short_one = SharedBuffer::Make(8191);
    EXPECT_THAT(ping(short_one.memfd->get(), flags, 8192).message(), HasSubstr("8191 bytes"));
    EXPECT_TRUE(ping(short_one.memfd->get(), flags, 8191).ok());
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    EXPECT_THAT(ping(pipe_ends[0], flags, 8192).message(), HasSubstr("not a memfd"));
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    const FileDescriptor file(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    EXPECT_THAT(ping(file.get(), flags, 8192).message(), HasSubstr("not a memfd"));
  }
  const SharedBuffer sealed = SharedBuffer::MakeWith(8192, F_SEAL_SHRINK | F_SEAL_WRITE);
  EXPECT_TRUE(ping(sealed.memfd->get(), kPayloadInMemfd, 8192).ok());
  EXPECT_EQ(ping(sealed.memfd->get(), kReplyInMemfd, 8192).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ping(-1, kPayloadInMemfd, 8192).code(), StatusCode::kInvalidArgument) << "none came";
  EXPECT_TRUE(Works(*client));
}

size_t OpenDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    ++count;
  return count;
}

TEST_P(WireMemfdTest, DescriptorsThatNobodyAskedForAreClosed) {
  { ASSERT_TRUE(Works(*Ready())); }
  const size_t before = OpenDescriptors();
  const SharedBuffer memfd = SharedBuffer::Make(64);
  const int fd = memfd.memfd->get();
  const std::string ping =
      EncodeFrame(FrameType::kPing, kPayloadInMemfd, 1, Encode(PingRequest{}), 8);
  const std::string plain = EncodeFrame(FrameType::kPing, 0, 1, Encode(PingRequest{}), 0);
  for (int round = 0; round < 20; ++round) {
    for (const std::vector<int>& many : {std::vector<int>(2, fd), std::vector<int>(8, fd)}) {
      const auto client = Ready();
      ASSERT_TRUE(client->SendRaw(ping, many).ok());
      const auto reply = client->Receive();
      ASSERT_TRUE(reply.ok());
      EXPECT_EQ(reply->header.type, FrameType::kError);
      EXPECT_FALSE(client->Receive().ok()) << "the connection has ended";
    }
    {
      const auto client = Ready();
      // The second one comes with the middle of the header, the third with the message.
      ASSERT_TRUE(client->SendRaw(ping.substr(0, 10), {&fd, 1}).ok());
      usleep(1000);
      (void)client->SendRaw(ping.substr(10), {&fd, 1});
      const auto reply = client->Receive();
      ASSERT_TRUE(reply.ok());
      EXPECT_EQ(reply->header.type, FrameType::kError);
    }
    {
      const auto client = Ready();
      ASSERT_TRUE(client->SendRaw(plain, {&fd, 1}).ok());
      const auto reply = client->Receive();
      ASSERT_TRUE(reply.ok());
      EXPECT_EQ(reply->header.type, FrameType::kError) << "the frame says nothing of it";
    }
  }
  EXPECT_TRUE(Eventually([&] { return OpenDescriptors() <= before + 1; })) << OpenDescriptors();
}

// The server made them, so that the system counts them as the server's memory.
TEST_F(WireTest, OldMemfdsOfTheServerAreTakenBack) {
  options_.service.memfd_bytes_max = 3 << 20;
  options_.service.bytes_max = options_.service.peer_bytes_max = 4 << 20;
  Serve();
  const auto client = Ready();
  std::vector<ReceivedFrame> frames(4);
  for (ReceivedFrame& frame : frames) {
    ASSERT_TRUE(client
                    ->Ask<PingReply>(FrameType::kPing, PingRequest{1 << 20},
                                     WireClient::Extra{.flags = kReplyInMemfd}, &frame)
                    .ok());
  }
  const auto first_byte = [](const ReceivedFrame& frame) {
    return Payload::Map(frame.memfd->get(), 1 << 20, false)->bytes()[0];
  };
  EXPECT_EQ(first_byte(frames[0]), '\0');
  // Its share of memory is not used up by them.
  EXPECT_TRUE(client->Ask<PingReply>(FrameType::kPing, PingRequest{1 << 20}).ok());
  const auto large = client->Ask<PingReply>(FrameType::kPing, PingRequest{(3 << 20) + 1},
                                            WireClient::Extra{.flags = kReplyInMemfd});
  EXPECT_EQ(large.status().code(), StatusCode::kInvalidArgument);
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(first_byte(frames[i]), 'p') << i;
}

TEST_F(WireTest, ATcpClientCannotAskForMemfds) {
  Serve();
  const auto client = Ready(/*tcp=*/true);
  const auto refused = client->Ask<PingReply>(FrameType::kPing, PingRequest{8},
                                              WireClient::Extra{.flags = kReplyInMemfd});
  EXPECT_THAT(refused.status().message(), HasSubstr("Unix socket"));
}

// ------------------------------------------------------------------------------------------------
// writers of one memory

// Over RocksDB, whose lock keeps the engine and the sidecars apart.
TEST_F(WireTest, AMemoryHasOneWriter) {
  const std::unique_ptr<StoreProvider> rocks = NewRocksProvider(home_ / "home");
  options_.service.sidecars.stores = rocks.get();
  Serve();
  const auto one = Ready(), two = Ready();
  const PutBeginRequest document = Document("mine", "d", kTale);
  const auto begun = Begin(*one, document);
  ASSERT_TRUE(begun.ok());
  const auto refused = Begin(*two, document);
  EXPECT_EQ(refused.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(refused.status().message(), HasSubstr("memory mine"));
  // The same for the engine behind HTTP.
  ToyModel toy({.geometry = TinyGeometry()});
  Engine engine(rocks.get(), {});
  ASSERT_TRUE(engine.UseModel(&toy, nullptr).ok());
  const auto ingest = [&](const OnIngestProgress& on_progress) {
    return engine.Ingest("mine", {.name = "e", .text = PlainText(3000, 1)}, nullptr, on_progress)
        .status();
  };
  const Status by_engine = ingest(nullptr);
  EXPECT_EQ(by_engine.code(), StatusCode::kFailedPrecondition) << by_engine.ToString();
  EXPECT_THAT(by_engine.message(), HasSubstr("mine"));
  ASSERT_TRUE(Rows(*one, begun->writer, RandomRows(kTale.size(), 1)).ok());
  ASSERT_TRUE(Finish(*one, begun->writer).ok());
  Status by_wire;
  const Status ingested = ingest([&](const IngestProgress&) {
    if (by_wire.ok()) by_wire = Begin(*two, Document("mine", "f", kTale)).status();
  });
  EXPECT_TRUE(ingested.ok()) << ingested.ToString();
  EXPECT_EQ(by_wire.code(), StatusCode::kFailedPrecondition) << by_wire.ToString();
  EXPECT_THAT(by_wire.message(), HasSubstr("mine"));
  engine.CloseMemory();
  EXPECT_TRUE(Put(*two, Document("mine", "f", kTale + "x")).ok());
  server_.reset();  // before its stores
}

TEST_F(WireTest, AnotherModelsMemoryIsRefusedByName) {
  Serve();
  const auto one = Ready();
  ASSERT_TRUE(Put(*one, Document("m", "d", kTale)).ok());
  const auto two = Connect(false);
  ASSERT_TRUE(two->Hello().ok());
  ASSERT_TRUE(Describe(*two, "another").ok());
  const Status refused = Fetch(*two, "m", 10).status();
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition) << refused.ToString();
  EXPECT_THAT(refused.message(), HasSubstr("m"));
}

// What was committed stays, and the next client goes on there.
TEST_F(WireTest, AClientThatVanishesLosesOnlyWhatWasNotCommitted) {
  Serve();
  const std::string text(5000, 'a');
  const PutBeginRequest document = Document("m", "d", text);
  const auto rows = RandomRows(text.size(), 9);
  {
    const auto client = Ready();
    const auto begun = Begin(*client, document);
    ASSERT_TRUE(begun.ok());
    ASSERT_TRUE(Rows(*client, begun->writer, Part(rows, 0, 4700)).ok());
    // Half of a frame, and then nothing.
    const std::string frame =
        EncodeFrame(FrameType::kPutRows, 0, 9,
                    Encode(PutRowsRequest{.writer = begun->writer, .tokens = 300}), 300 * 32);
    ASSERT_TRUE(client->SendRaw(frame + std::string(1000, 'x')).ok());
  }
  const auto client = Ready();
  Result<PutBeginReply> begun = Begin(*client, document);
  // The server closes the writer of the other connection when it notices.
  EXPECT_TRUE(Eventually([&] {
    if (!begun.ok()) begun = Begin(*client, document);
    return begun.ok();
  })) << begun.status().ToString();
  EXPECT_EQ(begun->position, 4096u);
  ASSERT_TRUE(Rows(*client, begun->writer, Part(rows, 4096, 5000 - 4096)).ok());
  ASSERT_TRUE(Finish(*client, begun->writer).ok());
  const auto all = Fetch(*client, "m", 5000);
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(std::memcmp(all->data(), rows.data(), all->size()), 0);
}

}  // namespace
}  // namespace longhold::wire
