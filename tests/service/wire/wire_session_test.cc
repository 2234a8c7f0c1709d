// A session of the wire protocol without sockets: what it decides about a request whose bytes have
// arrived. Requests over sockets are in wire_requests_test.cc.
#include "service/wire/wire_session.h"

#include <gtest/gtest.h>

#include "store/mem_provider.h"
#include "tests/support/wire_samples.h"

namespace longhold::wire {
namespace {

class WireSessionTest : public testing::Test {
 protected:
  WireSessionTest() : stores_(NewMemProvider()) {
    ServiceOptions options{.home = "/nonexistent"};
    options.sidecars.stores = stores_.get();
    options.note = [](std::string_view) {};
    service_ = std::make_unique<Service>(std::move(options));
    session_ = std::make_unique<Session>(
        service_.get(), Session::Peer{.name = "test", .local = true, .same_user = true});
  }
  static Request RequestOf(FrameType type, const std::string& message) {
    const std::string frame = EncodeFrame(type, 0, 7, message);
    Request request;
    request.header = *DecodeHeader(std::span<const char, kHeaderBytes>(frame.data(), kHeaderBytes));
    Result<Payload> copy = Payload::CopyOf(message);
    EXPECT_TRUE(copy.ok());
    request.message = std::move(*copy);
    return request;
  }
  static FrameType TypeOf(const Reply& reply) {
    return DecodeHeader(std::span<const char, kHeaderBytes>(reply.frame.data(), kHeaderBytes))
        ->type;
  }
  static Status ErrorOf(const Reply& reply) {
    return DecodeAs<ErrorReply>(reply.frame.substr(kHeaderBytes))->status;
  }

  const std::unique_ptr<MemProvider> stores_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<Session> session_;
};

// Whoever reads frames from a socket does not look at messages: they are long, and other
// connections would wait.
TEST_F(WireSessionTest, ChecksMessagesItselfAndEndsTheConnectionAfterADamagedOne) {
  const std::string hello = Encode(HelloRequest{.version = 1});
  Request damaged = RequestOf(FrameType::kHello, hello);
  damaged.message.bytes()[20] ^= 1;
  Reply reply = session_->Greet(damaged);
  EXPECT_TRUE(reply.close);
  EXPECT_EQ(ErrorOf(reply).code(), StatusCode::kDataLoss);
  EXPECT_FALSE(session_->greeted());
  ASSERT_EQ(TypeOf(session_->Greet(RequestOf(FrameType::kHello, hello))),
            ReplyTo(FrameType::kHello));

  const std::string model = Encode(ToyDescription());
  damaged = RequestOf(FrameType::kDescribeModel, model);
  damaged.message.bytes()[model.size() / 2] ^= 1;
  reply = session_->Handle(std::move(damaged));
  EXPECT_TRUE(reply.close);
  EXPECT_EQ(ErrorOf(reply).code(), StatusCode::kDataLoss);
  EXPECT_EQ(TypeOf(session_->Handle(RequestOf(FrameType::kDescribeModel, model))),
            ReplyTo(FrameType::kDescribeModel));
}

}  // namespace
}  // namespace longhold::wire
