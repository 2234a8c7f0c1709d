// Who is admitted, what a tenant may store, and clients that are slow, hostile or many.
//
// Sizes: every byte of one request of each type, cut and flipped; times of 0.2 seconds where a
// deadline is tested, since a slow machine only makes such a test longer.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <chrono>
#include <cstring>
#include <random>

#include "base/clock.h"
#include "tests/service/wire/wire_fixture.h"

namespace longhold::wire {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

const std::string kText(300, 'a');

// A reply, or the code of its error.
StatusCode CodeOf(const Result<ReceivedFrame>& frame) {
  if (!frame.ok()) return frame.status().code();
  if (frame->header.type != FrameType::kError) return StatusCode::kOk;
  return DecodeAs<ErrorReply>(frame->message)->status.code();
}

class WireKeysTest : public WireTest {
 protected:
  std::string KeyOf(const std::string& name, Scope scope, const std::string& tenant = "") {
    return *ApiKeys(options_.service.home).Add(name, scope, UnixSeconds(), 0, tenant);
  }
  void Limit(const TenantLimits& limits) {
    ASSERT_TRUE(ApiKeys(options_.service.home).SetLimits(limits).ok());
  }
};

TEST_F(WireKeysTest, WithoutKeysOnlyThisUserAndLoopbackAreAdmitted) {
  options_.service.without_keys = Scope::kNone;  // as on an address that others can reach
  Serve();
  EXPECT_TRUE(Connect(false)->Hello().ok()) << "the Unix socket: the same user";
  EXPECT_EQ(Connect(true)->Hello().code(), StatusCode::kFailedPrecondition);
  options_.service.without_keys = Scope::kAdmin;
  Serve();
  EXPECT_TRUE(Connect(true)->Hello().ok());
}

TEST_F(WireKeysTest, AKeyIsNeededAndItsScopeCounts) {
  const std::string read = KeyOf("r", Scope::kRead), write = KeyOf("w", Scope::kWrite),
                    admin = KeyOf("a", Scope::kAdmin);
  Serve();
  for (const bool tcp : {false, true}) {
    EXPECT_EQ(Connect(tcp)->Hello().code(), StatusCode::kFailedPrecondition);
    EXPECT_EQ(Connect(tcp)->Hello("lh_wrong").code(), StatusCode::kFailedPrecondition);
    const std::string memory = tcp ? "t" : "u";
    const auto writer = Ready(tcp, write);
    ASSERT_TRUE(Put(*writer, Document(memory, "d", kText)).ok());
    const auto reader = Ready(tcp, read);
    EXPECT_TRUE(Fetch(*reader, memory, 10).ok());
    EXPECT_THAT(Begin(*reader, Document(memory, "e", kText)).status().message(),
                HasSubstr("scope write"));
    EXPECT_FALSE(Works(*reader)) << "the connection has ended";
    EXPECT_THAT(
        writer->Ask<ForgetReply>(FrameType::kForget, ForgetRequest{memory, ""}).status().message(),
        HasSubstr("scope admin"));
    EXPECT_TRUE(Works(*writer));
    EXPECT_TRUE(
        Ready(tcp, admin)->Ask<ForgetReply>(FrameType::kForget, ForgetRequest{memory, ""}).ok());
  }
  EXPECT_THAT(metrics_.Text(), HasSubstr("route=\"wire hello\""));
  EXPECT_THAT(metrics_.Text(), HasSubstr("route=\"wire put begin\""));
  EXPECT_THAT(metrics_.Text(), testing::Not(HasSubstr("wire put rows")));
  // A removed key is refused at once, also on an open connection.
  const auto reader = Ready(false, read);
  ASSERT_TRUE(ApiKeys(options_.service.home).Remove("r").ok());
  EXPECT_FALSE(Works(*reader));
}

TEST_F(WireKeysTest, NothingBeforeHello) {
  Serve();
  for (const SampleFrame& sample : SampleFrames()) {
    if (sample.type == FrameType::kHello) continue;
    const auto client = Connect(true);
    ASSERT_TRUE(client->SendRaw(EncodeFrame(sample.type, 0, 1, sample.message)).ok());
    EXPECT_NE(CodeOf(client->Receive()), StatusCode::kOk) << TypeName(sample.type);
    EXPECT_FALSE(client->Receive().ok());
  }
}

TEST_F(WireKeysTest, TenantsDoNotSeeEachOther) {
  const std::string anna = KeyOf("anna", Scope::kAdmin, "acme"),
                    boris = KeyOf("boris", Scope::kAdmin, "other"),
                    boss = KeyOf("boss", Scope::kAdmin);
  Serve();
  const auto a = Ready(false, anna), b = Ready(false, boris), o = Ready(false, boss);
  ASSERT_TRUE(Put(*a, Document("diary", "secret", kText), 5).ok());
  for (const std::string& name :
       {std::string("diary"), std::string("acme/diary"), std::string("../acme/memories/diary")}) {
    const auto refused = [&](const Status& status) {
      EXPECT_TRUE(status.code() == StatusCode::kNotFound ||
                  status.code() == StatusCode::kInvalidArgument)
          << name << ": " << status.ToString();
      EXPECT_EQ(status.message().find("secret"), std::string::npos);
      EXPECT_EQ(status.message().find(options_.service.home), std::string::npos);
    };
    refused(Fetch(*b, name, 10).status());
    refused(b->Ask<StatReply>(FrameType::kStat, StatRequest{name}).status());
    refused(
        b->Ask<PlanReply>(FrameType::kPlan, PlanRequest{.memory = name, .question = "a"}).status());
    refused(b->Ask<TokensReply>(FrameType::kTokens, TokensRequest{name, DocumentId{1}, {0, 1}})
                .status());
    refused(b->Ask<PrefixReply>(FrameType::kPrefix, PrefixRequest{name, {'a'}}).status());
    refused(b->Ask<ForgetReply>(FrameType::kForget, ForgetRequest{name, ""}).status());
  }
  EXPECT_EQ(Begin(*b, Document("acme/diary", "x", kText)).status().code(),
            StatusCode::kInvalidArgument);
  // Both have one of that name, and the operator has all of them by their full names.
  ASSERT_TRUE(Put(*b, Document("diary", "mine", kText + "b"), 6).ok());
  const auto rows = Part(RandomRows(kText.size(), 5), 0, 10);
  const auto own = Fetch(*a, "diary", 10), all = Fetch(*o, "acme/diary", 10);
  ASSERT_TRUE(own.ok() && all.ok());
  EXPECT_EQ(std::memcmp(own->data(), rows.data(), own->size()), 0);
  EXPECT_EQ(*all, *own);
  // A description is its tenant's, too: another one of the same fingerprint is no conflict.
  DescribeModelRequest otherwise = ToyDescription();
  otherwise.model.name = "otherwise";
  EXPECT_TRUE(b->Ask<ModelReply>(FrameType::kDescribeModel, otherwise).ok());
}

TEST_F(WireKeysTest, LimitsOfATenantCount) {
  const std::string key = KeyOf("k", Scope::kWrite, "acme");
  Limit({.tenant = "acme", .documents = 1});
  Serve();
  const auto client = Ready(false, key);
  ASSERT_TRUE(Put(*client, Document("m", "d", kText)).ok());
  const Status second = Put(*client, Document("n", "e", kText));
  EXPECT_EQ(second.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(second.message(), HasSubstr("its limit is 1"));
  EXPECT_TRUE(Put(*client, Document("m", "d", kText + "b")).ok()) << "a new version";

  Limit({.tenant = "acme", .disk_bytes = 1});
  EXPECT_THAT(Put(*client, Document("n", "e", kText)).message(),
              HasSubstr("bytes on the disk, and its limit is 1"));
  // The rows of a document that was begun below the limit.
  const uint64_t used = stores_->DiskBytes("acme/m");
  Limit({.tenant = "acme", .disk_bytes = used + 100'000});
  const std::string text(6000, 'c');
  const auto begun = Begin(*client, Document("n", "e", text));
  ASSERT_TRUE(begun.ok()) << begun.status().ToString();
  const auto rows = RandomRows(text.size(), 1);
  EXPECT_TRUE(Rows(*client, begun->writer, Part(rows, 0, 1000)).ok());
  const auto refused = Rows(*client, begun->writer, Part(rows, 1000, 5000));
  EXPECT_EQ(refused.status().code(), StatusCode::kFailedPrecondition)
      << refused.status().ToString();
  EXPECT_THAT(refused.status().message(), HasSubstr("limit of"));
  EXPECT_TRUE(Finish(*client, begun->writer).ok());

  Limit({.tenant = "acme", .requests_per_minute = 3});
  StatusCode last = StatusCode::kOk;
  for (int i = 0; i < 5; ++i)
    last = client->Ask<PingReply>(FrameType::kPing, PingRequest{}).status().code();
  EXPECT_EQ(last, StatusCode::kResourceExhausted);
}

// A client could put its rows in small frames, and several documents in turn, so that each frame
// fits alone. All of them together stay below the limit, but for what the others wrote since they
// were last measured, 512 tokens at most, and what a commit writes: the index of a segment.
TEST_F(WireKeysTest, TheDiskLimitHoldsForManySmallFrames) {
  constexpr uint64_t kLimit = 400'000, kFrame = 16;
  const std::string key = KeyOf("k", Scope::kWrite, "acme");
  Limit({.tenant = "acme", .disk_bytes = kLimit});
  Serve();
  const auto client = Ready(false, key);
  const std::string text(20'000, 'c');  // 640,000 bytes of rows each
  const auto rows = RandomRows(text.size(), 1);
  std::vector<PutBeginReply> writers;
  for (const char* memory : {"m", "n", "o"}) {
    const auto begun = Begin(*client, Document(memory, "d", text));
    ASSERT_TRUE(begun.ok()) << begun.status().ToString();
    writers.push_back(*begun);
  }
  uint64_t taken = 0;
  Status refused;
  for (uint64_t at = 0; at + kFrame <= text.size() && refused.ok(); at += kFrame) {
    for (const PutBeginReply& writer : writers) {
      const Status status = Rows(*client, writer.writer, Part(rows, at, kFrame)).status();
      if (status.ok()) taken += kFrame;
      if (refused.ok()) refused = status;
    }
  }
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition) << refused.ToString();
  EXPECT_THAT(refused.message(), HasSubstr("limit of"));
  const auto used = [&] {
    uint64_t bytes = 0;
    for (const char* memory : {"acme/m", "acme/n", "acme/o"}) bytes += stores_->DiskBytes(memory);
    return bytes;
  };
  uint64_t index = 0;
  stores_->Change("acme/m", [&](ColdStore& store) { index = *store.TableBytes(Table::kIndex); });
  EXPECT_LT(used(), kLimit + 3 * 512 * 32 + 3 * index) << index << " " << taken;
  EXPECT_GT(used(), kLimit / 2);
  for (const PutBeginReply& writer : writers) EXPECT_TRUE(Finish(*client, writer.writer).ok());
  EXPECT_LT(used(), kLimit + kLimit / 2) << "with the index";
  EXPECT_GT(taken, 3 * 512u);
}

// ------------------------------------------------------------------------------------------------
// slow and hostile clients

TEST_F(WireTest, SlowClientsAreTurnedAwayAndOthersNoticeNothing) {
  options_.hello_time = options_.stall_time = options_.write_time = milliseconds(200);
  options_.idle_time = milliseconds(60'000);
  Serve();
  const auto other = Ready();
  const auto silent = Connect(true), halting = Ready(true), deaf = Ready(true),
             drip = Connect(true);
  const std::string ping = EncodeFrame(FrameType::kPing, 0, 7, Encode(PingRequest{}));
  ASSERT_TRUE(halting->SendRaw(ping.substr(0, 20)).ok());
  // Does not read 64 MiB, more than the system buffers.
  ASSERT_TRUE(deaf->Send(FrameType::kPing, Encode(PingRequest{64 << 20}), {}).ok());
  // A byte at a time: hello has one deadline.
  const std::string hello =
      EncodeFrame(FrameType::kHello, 0, 1, Encode(HelloRequest{.version = 1}));
  for (size_t i = 0; i < hello.size() && drip->SendRaw(hello.substr(i, 1)).ok(); ++i) {
    EXPECT_TRUE(Works(*other));
    usleep(20'000);
  }
  EXPECT_EQ(CodeOf(silent->Receive()), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(CodeOf(halting->Receive()), StatusCode::kDeadlineExceeded);
  EXPECT_NE(CodeOf(drip->Receive()), StatusCode::kOk);
  EXPECT_FALSE(deaf->Receive().ok()) << "the reply is cut off";
  EXPECT_TRUE(Works(*other));
}

TEST_F(WireTest, IdleConnectionsAreClosed) {
  options_.idle_time = milliseconds(200);
  Serve();
  const auto client = Ready();
  EXPECT_EQ(client->Receive().status().code(), StatusCode::kUnavailable);
}

TEST_F(WireTest, EveryCutAndFlippedByteOfARequestIsSurvived) {
  Serve();
  const auto other = Ready();
  ASSERT_TRUE(Put(*other, Document("m", "d.txt", kText)).ok());
  for (const SampleFrame& sample : SampleRequests()) {
    if (sample.type == FrameType::kForget) continue;
    const std::string frame = EncodeFrame(sample.type, 0, 9, sample.message, sample.payload_bytes) +
                              std::string(sample.payload_bytes, '1');
    for (size_t at = 0; at < frame.size(); ++at) {
      const bool greet = sample.type != FrameType::kHello;
      const auto cut = Connect(false), flipped = Connect(false);
      ASSERT_TRUE(!greet || (cut->Hello().ok() && flipped->Hello().ok()));
      ASSERT_TRUE(cut->SendRaw(frame.substr(0, at)).ok());
      (void)shutdown(cut->socket(), SHUT_WR);
      std::string bytes = frame;
      bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
      (void)flipped->SendRaw(bytes);
      (void)shutdown(flipped->socket(), SHUT_WR);
      if (at < kHeaderBytes + sample.message.size()) {
        EXPECT_NE(CodeOf(flipped->Receive()), StatusCode::kOk)
            << TypeName(sample.type) << " byte " << at;
      }
      EXPECT_FALSE(cut->Receive().ok());
    }
  }
  EXPECT_TRUE(Works(*other));
  EXPECT_TRUE(Fetch(*other, "m", 300).ok());
}

// Random and damaged messages with right checksums, on one connection.
TEST_F(WireTest, HostileMessagesGetErrorsOnly) {
  Serve();
  const auto client = Ready();
  ASSERT_TRUE(Put(*client, Document("m", "d.txt", kText)).ok());
  std::mt19937_64 rng(7);
  const std::vector<SampleFrame> samples = SampleRequests();
  for (int i = 0; i < 4000; ++i) {
    const SampleFrame& sample = samples[1 + rng() % 12];  // not hello
    // A whole memory that is gone would leave the rest of the requests nothing to do.
    if (sample.type == FrameType::kForget) continue;
    std::string message = sample.message;
    for (uint64_t n = rng() % 4; n > 0; --n)
      message[rng() % message.size()] = static_cast<char>(rng());
    if (rng() % 8 == 0) message.resize(rng() % (message.size() + 1));
    const std::string payload(MayHavePayload(sample.type) ? rng() % 200 : 0, '\x31');
    const auto reply = client->Call(sample.type, message, {.payload = payload});
    if (reply.ok()) continue;
    ASSERT_NE(reply.status().code(), StatusCode::kInternal) << reply.status().ToString();
    ASSERT_FALSE(reply.status().code() == StatusCode::kUnavailable &&
                 reply.status().message().find("closed") != std::string::npos)
        << i;
  }
  EXPECT_TRUE(Works(*client));
}

TEST_F(WireTest, BytesOfAnotherProtocolAreAnsweredOnce) {
  Serve();
  const auto client = Connect(true);
  ASSERT_TRUE(
      client->SendRaw("GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\n\r\n").ok());
  EXPECT_EQ(CodeOf(client->Receive()), StatusCode::kInvalidArgument);
  EXPECT_FALSE(client->Receive().ok());
}

TEST_F(WireTest, AFrameForWhichThereIsNoMemoryIsDroppedAlone) {
  options_.service.bytes_max = 2 << 20;
  options_.service.peer_bytes_max = 1 << 20;
  Serve();
  for (const bool tcp : {false, true}) {
    const auto client = Ready(tcp);
    const std::string payload((1 << 20) + 1, 'x');
    const auto refused =
        client->Call(FrameType::kPing, Encode(PingRequest{}), {.payload = payload});
    EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
    const auto reply = client->Ask<PingReply>(FrameType::kPing, PingRequest{payload.size()});
    EXPECT_EQ(reply.status().code(), StatusCode::kResourceExhausted);
    for (int i = 0; i < 20; ++i) {
      EXPECT_TRUE(client
                      ->Call(FrameType::kPing, Encode(PingRequest{1 << 19}),
                             {.payload = {payload.data(), 1 << 19}})
                      .ok())
          << "memory is given back";
    }
  }
}

// ------------------------------------------------------------------------------------------------
// many

TEST_F(WireTest, AtTheLimitAnIdleConnectionMakesRoomAndAWriterDoesNot) {
  options_.connections_max = 3;
  options_.peer_share = 1;
  Serve();
  const auto one = Ready(), two = Ready(), three = Ready();
  ASSERT_TRUE(Begin(*one, Document("m1", "d", kText)).ok());
  ASSERT_TRUE(Begin(*three, Document("m3", "d", kText)).ok());
  const auto four = Ready();
  EXPECT_TRUE(Works(*four));
  EXPECT_FALSE(Works(*two)) << "the longest idle one without a writer";
  EXPECT_TRUE(Works(*one));
  ASSERT_TRUE(Begin(*four, Document("m4", "d", kText)).ok());
  const auto five = Connect(false);
  EXPECT_EQ(five->Hello().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(Works(*one) && Works(*three) && Works(*four));
}

TEST_F(WireTest, IdleSidecarsMakeRoomAndUsedOnesDoNot) {
  options_.service.sidecars.sidecars_max = 2;
  options_.service.sidecars.tenant_sidecars_max = 2;
  Serve();
  const auto a = Connect(false), b = Connect(false), c = Connect(false);
  for (const auto* client : {&a, &b, &c}) ASSERT_TRUE((*client)->Hello().ok());
  ASSERT_TRUE(Describe(*a, "a").ok());
  ASSERT_TRUE(Describe(*b, "b").ok());
  ASSERT_TRUE(Describe(*c, "c").ok()) << "a's is closed, since nobody uses it";
  ASSERT_TRUE(Put(*a, Document("ma", "d", kText)).ok()) << "and opened again";
  const auto in_a = Begin(*a, Document("ma", "e", kText + "b"));
  const auto in_b = Begin(*b, Document("mb", "e", kText));
  ASSERT_TRUE(in_a.ok() && in_b.ok());
  EXPECT_EQ(Begin(*c, Document("mc", "e", kText)).status().code(), StatusCode::kResourceExhausted);
  ASSERT_TRUE(Finish(*b, in_b->writer).ok());
  EXPECT_TRUE(Begin(*c, Document("mc", "e", kText)).ok());
  // Another description of a fingerprint: not while its sidecar is in use.
  DescribeModelRequest otherwise = ToyDescription("a");
  otherwise.model.name = "otherwise";
  const auto client = Connect(false);
  ASSERT_TRUE(client->Hello().ok());
  EXPECT_EQ(client->Ask<ModelReply>(FrameType::kDescribeModel, otherwise).status().code(),
            StatusCode::kAlreadyExists);
  ASSERT_TRUE(Finish(*a, in_a->writer).ok());
  EXPECT_TRUE(client->Ask<ModelReply>(FrameType::kDescribeModel, otherwise).ok());
}

TEST_F(WireTest, SidecarsHaveTheirMemoryFromTheServersBudget) {
  MemoryBudget budget(5 << 20);
  options_.service.sidecars.budget = &budget;
  options_.service.sidecars.sidecar_bytes = 2 << 20;
  Serve();
  const auto a = Connect(false), b = Connect(false), c = Connect(false);
  for (const auto* client : {&a, &b, &c}) ASSERT_TRUE((*client)->Hello().ok());
  ASSERT_TRUE(Describe(*a, "a").ok() && Describe(*b, "b").ok());
  EXPECT_EQ(budget.used_bytes(), 4u << 20);
  ASSERT_TRUE(Begin(*a, Document("ma", "e", kText)).ok());
  ASSERT_TRUE(Describe(*c, "c").ok()) << "b's makes room";
  EXPECT_EQ(budget.used_bytes(), 4u << 20);
  ASSERT_TRUE(Begin(*c, Document("mc", "e", kText)).ok());
  EXPECT_EQ(Begin(*b, Document("mb", "e", kText)).status().code(), StatusCode::kResourceExhausted);
  server_.reset();
  EXPECT_EQ(budget.used_bytes(), 0u);
}

TEST_F(WireTest, OldDescriptionsAreForgotten) {
  options_.service.sidecars.tenant_models_max = 2;
  Serve();
  const auto client = Ready();
  ASSERT_TRUE(Describe(*client, "a").ok());
  ASSERT_TRUE(Describe(*client, "b").ok());
  const auto use = [&](const std::string& fingerprint) {
    return client->Ask<ModelReply>(FrameType::kUseModel, UseModelRequest{fingerprint}).status();
  };
  EXPECT_TRUE(use("a").ok());
  EXPECT_EQ(use("0123456789abcdef").code(), StatusCode::kNotFound);
  ASSERT_TRUE(Describe(*client, "c").ok());
  EXPECT_EQ(use("b").code(), StatusCode::kNotFound);
  EXPECT_TRUE(use("a").ok());
}

TEST_F(WireTest, StoppingEndsConnectionsAndKeepsWhatWasCommitted) {
  Serve();
  const auto client = Ready();
  const std::string text(5000, 'a');
  const auto begun = Begin(*client, Document("m", "d", text));
  ASSERT_TRUE(begun.ok());
  ASSERT_TRUE(Rows(*client, begun->writer, RandomRows(4500, 1)).ok());
  server_->Stop();
  server_.reset();
  EXPECT_FALSE(Works(*client));
  Serve();
  EXPECT_EQ(Begin(*Ready(), Document("m", "d", text))->position, 4096u);
}

// ------------------------------------------------------------------------------------------------
// the socket's file

TEST_F(WireTest, TheSocketIsItsOwnersAlone) {
  Serve();
  struct stat info {};
  ASSERT_EQ(lstat(options_.socket_path.c_str(), &info), 0);
  EXPECT_TRUE(S_ISSOCK(info.st_mode));
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  // Another server does not take it away.
  EXPECT_EQ(WireServer::Listen(options_).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(Works(*Ready()));
  server_.reset();
  EXPECT_NE(lstat(options_.socket_path.c_str(), &info), 0) << "removed at the end";
  // What a killed server left is replaced; a file is not.
  const int left = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  options_.socket_path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(bind(left, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  close(left);
  Serve();
  EXPECT_TRUE(Works(*Ready()));
  options_.socket_path = home_ / "file";
  close(open(options_.socket_path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  EXPECT_THAT(WireServer::Listen(options_).status().message(), HasSubstr("is not a socket"));
  options_.socket_path = home_ / std::string(200, 'x');
  EXPECT_EQ(WireServer::Listen(options_).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace longhold::wire
