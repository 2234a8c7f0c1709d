// The wire protocol (service/wire) from hostile bytes. The first byte selects what follows:
//   0  the bytes of a header, which is made to have a right checksum
//   1  a message of the type that the next byte names; what decodes is encoded and decoded again,
//      to the same value
//   2  requests of one connection, after hello and a model: for each its type, flags, lengths of
//      message and payload, and then these bytes
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "base/crc32c.h"
#include "service/wire/wire_session.h"
#include "store/mem_provider.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/support/wire_samples.h"

namespace longhold::wire {
namespace {

constexpr int kRequestsMax = 64;

void Header(FuzzBytes input) {
  std::array<char, kHeaderBytes> bytes{};
  const std::string given = input.Take(kHeaderBytes);
  std::copy(given.begin(), given.end(), bytes.begin());
  const bool whole = given.size() == kHeaderBytes;
  ExpectRefusal(DecodeHeader(bytes));
  std::memcpy(bytes.data(), "LHWF\x01", 5);
  const uint32_t crc = Crc32c({bytes.data(), kHeaderBytes - sizeof(uint32_t)});
  std::memcpy(bytes.data() + kHeaderBytes - sizeof crc, &crc, sizeof crc);
  const Result<FrameHeader> header = DecodeHeader(bytes);
  ExpectRefusal(header);
  if (header.ok() && whole) LH_CHECK(EncodeHeader(*header) == bytes);
}

void Message(FuzzBytes input) {
  const auto type = static_cast<FrameType>(input.Take<uint8_t>());
  const std::string bytes(input.rest());
  const Result<std::string> value = Recode(type, bytes);
  ExpectRefusal(value);
  if (!value.ok()) return;
  const Result<std::string> again = Recode(type, *value);
  LH_CHECK(again.ok() && *again == *value);
}

FrameHeader HeaderFor(FrameType type, const std::string& message) {
  return {.type = type,
          .message_bytes = static_cast<uint32_t>(message.size()),
          .message_crc = Crc32c(message)};
}

Payload CopyOf(std::string_view bytes) {
  Result<Payload> copy = Payload::CopyOf(bytes);
  LH_CHECK(copy.ok());
  return std::move(*copy);
}

Reply Ask(Session& session, FrameType type, const std::string& message) {
  Request request;
  request.header = HeaderFor(type, message);
  request.message = CopyOf(message);
  return session.Handle(std::move(request));
}

void Requests(FuzzBytes input) {
  const std::unique_ptr<MemProvider> stores = NewMemProvider();
  ServiceOptions options;
  options.home = "/nonexistent";
  options.sidecars.stores = stores.get();
  options.without_keys = Scope::kAdmin;
  options.note = [](std::string_view) {};
  // A small input cannot ask for much.
  options.bytes_max = options.peer_bytes_max = options.memfd_bytes_max = 1 << 20;
  Service service(std::move(options));
  Session session(&service, {.name = "fuzz", .local = true, .same_user = true});
  Request hello;
  const std::string greeting = Encode(HelloRequest{.version = 1});
  hello.header = HeaderFor(FrameType::kHello, greeting);
  hello.message = CopyOf(greeting);
  LH_CHECK(!session.Greet(hello).close);
  LH_CHECK(!Ask(session, FrameType::kDescribeModel, Encode(ToyDescription())).close);
  for (int i = 0; i < kRequestsMax && !input.rest().empty(); ++i) {
    Request request;
    const auto type = static_cast<FrameType>(1 + input.Take<uint8_t>() % kRequestTypeMax);
    const auto flags = static_cast<uint8_t>(input.Take<uint8_t>() & kReplyInMemfd);
    const auto message_bytes = input.Take<uint16_t>();
    const auto payload_bytes = input.Take<uint16_t>();
    const std::string message = input.Take(message_bytes);
    request.header = HeaderFor(type, message);
    request.message = CopyOf(message);
    request.header.flags = flags;
    if (MayHavePayload(type)) {
      const std::string payload = input.Take(payload_bytes);
      request.header.payload_bytes = payload.size();
      request.payload = CopyOf(payload);
    }
    if (!session.Admit(request.header).ok()) continue;
    const Reply reply = session.Handle(std::move(request));
    LH_CHECK(reply.frame.size() >= kHeaderBytes);
    const Result<FrameHeader> header =
        DecodeHeader(std::span<const char, kHeaderBytes>(reply.frame.data(), kHeaderBytes));
    LH_CHECK(header.ok());
    if (header->type != FrameType::kError) continue;
    const auto error = DecodeAs<ErrorReply>(std::string(reply.frame.substr(kHeaderBytes)));
    LH_CHECK(error.ok());
    if (error->status.code() == StatusCode::kInternal) ExpectRefusal<int>(error->status);
  }
}

void Run(FuzzBytes input) {
  switch (input.Take<uint8_t>() % 3) {
    case 0: return Header(input);
    case 1: return Message(input);
    default: return Requests(input);
  }
}

}  // namespace
}  // namespace longhold::wire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  longhold::wire::Run({data, size});
  return 0;
}
