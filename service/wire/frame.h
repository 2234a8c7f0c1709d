// Frames of the wire protocol (docs/formats/wire.md): a header of fixed size, a message, which is a
// flatbuffer, and the bytes of a payload. This file is about headers and bounds; messages.h is
// about messages. Pure functions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold::wire {

// Of frames and of the hello message.
inline constexpr uint8_t kProtocolVersion = 1;
inline constexpr size_t kHeaderBytes = 40;
// Keys and values, or queries, of one frame.
inline constexpr uint64_t kPayloadBytesMax = 256ull << 20;

// A reply has its request's number plus 0x80.
enum class FrameType : uint8_t {
  kHello = 1,
  kUseModel = 2,
  kDescribeModel = 3,
  kPutBegin = 4,
  kPutRows = 5,
  kPutFinish = 6,
  kPlan = 7,
  kFetch = 8,
  kTokens = 9,
  kPrefix = 10,
  kForget = 11,
  kStat = 12,
  kPing = 13,
  kError = 0xFF,
};
inline constexpr uint8_t kRequestTypeMax = static_cast<uint8_t>(FrameType::kPing);
constexpr FrameType ReplyTo(FrameType request) {
  return static_cast<FrameType>(static_cast<uint8_t>(request) | 0x80);
}
constexpr bool IsRequest(FrameType type) {
  return static_cast<uint8_t>(type) >= 1 && static_cast<uint8_t>(type) <= kRequestTypeMax;
}

// The payload is not on the stream but at the beginning of a memfd, which comes with the header.
inline constexpr uint8_t kPayloadInMemfd = 1;
// In a request: the reply's payload is wanted in a memfd. It is the one that comes with the header,
// where that does not hold the request's payload; otherwise the server makes one. In a reply: the
// payload is in the memfd of the request.
inline constexpr uint8_t kReplyInMemfd = 2;

// Value type.
struct FrameHeader {
  FrameType type = FrameType::kError;
  uint8_t flags = 0;
  uint64_t request_id = 0;  // chosen by the client, and repeated in the reply
  uint64_t payload_bytes = 0;
  uint32_t message_bytes = 0;
  uint32_t message_crc = 0;  // CRC-32C

  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

// Longest message of a type.
uint32_t MessageBytesMax(FrameType type);
// Whether frames of this type may have a payload.
bool MayHavePayload(FrameType type);
// "put rows", and "wire put rows" as the route of logs and metrics. Static lifetime.
std::string_view TypeName(FrameType type);
std::string_view RouteOf(FrameType type);

std::array<char, kHeaderBytes> EncodeHeader(const FrameHeader& header);
// Checks everything that a header alone can show, bounds included: what follows may be allocated.
// Errors: invalid_argument (no frame, a type or flag that does not exist, above a bound),
// unimplemented (another version), data_loss (the checksum). After any error the stream is of no
// use any more.
Result<FrameHeader> DecodeHeader(std::span<const char, kHeaderBytes> bytes);
// Errors: data_loss.
Status CheckMessage(const FrameHeader& header, std::string_view message);

// Header and message. `payload_bytes` follow, or are in a memfd.
std::string EncodeFrame(FrameType type, uint8_t flags, uint64_t request_id,
                        std::string_view message, uint64_t payload_bytes = 0);

}  // namespace longhold::wire
