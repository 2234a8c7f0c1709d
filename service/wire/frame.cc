#include "service/wire/frame.h"

#include <bit>
#include <cstring>

#include "base/crc32c.h"

namespace longhold::wire {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are little-endian");
constexpr std::string_view kMagic = "LHWF";
constexpr uint8_t kFlags = kPayloadInMemfd | kReplyInMemfd;
// Positions in the header.
constexpr size_t kAtVersion = 4, kAtType = 5, kAtFlags = 6, kAtZero = 7, kAtRequest = 8,
                 kAtPayload = 16, kAtMessage = 24, kAtMessageCrc = 28, kAtZeros = 32, kAtCrc = 36;

struct TypeTraits {
  FrameType type;
  std::string_view name;
  uint32_t request_bytes_max, reply_bytes_max;  // of messages
  bool request_payload, reply_payload;
};
constexpr uint32_t kKiB = 1 << 10, kMiB = 1 << 20;
constexpr TypeTraits kTypes[] = {
    {FrameType::kHello, "wire hello", 4 * kKiB, 4 * kKiB, false, false},
    {FrameType::kUseModel, "wire use model", 4 * kKiB, 4 * kKiB, false, false},
    {FrameType::kDescribeModel, "wire describe model", 48 * kMiB, 4 * kKiB, false, false},
    {FrameType::kPutBegin, "wire put begin", 160 * kMiB, 4 * kKiB, false, false},
    {FrameType::kPutRows, "wire put rows", 4 * kKiB, 4 * kKiB, true, false},
    {FrameType::kPutFinish, "wire put finish", 4 * kKiB, 4 * kKiB, false, false},
    {FrameType::kPlan, "wire plan", 128 * kKiB, 16 * kMiB, true, false},
    {FrameType::kFetch, "wire fetch", 4 * kMiB, 4 * kKiB, false, true},
    {FrameType::kTokens, "wire tokens", 4 * kKiB, 17 * kMiB, false, false},
    {FrameType::kPrefix, "wire prefix", 17 * kMiB, 4 * kKiB, false, false},
    {FrameType::kForget, "wire forget", 4 * kKiB, 4 * kKiB, false, false},
    {FrameType::kStat, "wire stat", 4 * kKiB, 4 * kKiB, false, false},
    {FrameType::kPing, "wire ping", 4 * kKiB, 4 * kKiB, true, true},
};
constexpr std::string_view kRoutePrefix = "wire ";
constexpr uint32_t kErrorBytesMax = 8 * kKiB;

const TypeTraits* Find(FrameType type) {
  const auto number = static_cast<uint8_t>(static_cast<uint8_t>(type) & 0x7F);
  return number >= 1 && number <= kRequestTypeMax ? &kTypes[number - 1] : nullptr;
}

template <typename T>
void Put(T value, char* at) {
  std::memcpy(at, &value, sizeof value);
}
template <typename T>
T Get(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

uint32_t MessageBytesMax(FrameType type) {
  const TypeTraits* traits = Find(type);
  if (traits == nullptr) return type == FrameType::kError ? kErrorBytesMax : 0;
  return IsRequest(type) ? traits->request_bytes_max : traits->reply_bytes_max;
}

bool MayHavePayload(FrameType type) {
  const TypeTraits* traits = Find(type);
  return traits != nullptr && (IsRequest(type) ? traits->request_payload : traits->reply_payload);
}

std::string_view TypeName(FrameType type) {
  const TypeTraits* traits = Find(type);
  return traits == nullptr ? "error" : traits->name.substr(kRoutePrefix.size());
}

std::string_view RouteOf(FrameType type) {
  const TypeTraits* traits = Find(type);
  return traits == nullptr ? "none" : traits->name;
}

std::array<char, kHeaderBytes> EncodeHeader(const FrameHeader& header) {
  std::array<char, kHeaderBytes> bytes{};
  kMagic.copy(bytes.data(), kMagic.size());
  bytes[kAtVersion] = static_cast<char>(kProtocolVersion);
  bytes[kAtType] = static_cast<char>(header.type);
  bytes[kAtFlags] = static_cast<char>(header.flags);
  Put(header.request_id, &bytes[kAtRequest]);
  Put(header.payload_bytes, &bytes[kAtPayload]);
  Put(header.message_bytes, &bytes[kAtMessage]);
  Put(header.message_crc, &bytes[kAtMessageCrc]);
  Put(Crc32c({bytes.data(), kAtCrc}), &bytes[kAtCrc]);
  return bytes;
}

Result<FrameHeader> DecodeHeader(std::span<const char, kHeaderBytes> bytes) {
  const char* at = bytes.data();
  if (std::string_view(at, kMagic.size()) != kMagic)
    return InvalidArgument("this is not a frame of the wire protocol; docs/formats/wire.md has it");
  if (static_cast<uint8_t>(at[kAtVersion]) != kProtocolVersion) {
    return Unimplemented("frame version " + std::to_string(static_cast<uint8_t>(at[kAtVersion])) +
                         ": this server has version " + std::to_string(kProtocolVersion));
  }
  if (Crc32c({at, kAtCrc}) != Get<uint32_t>(at + kAtCrc))
    return DataLoss("frame header: checksum mismatch");
  FrameHeader header;
  header.type = static_cast<FrameType>(at[kAtType]);
  header.flags = static_cast<uint8_t>(at[kAtFlags]);
  header.request_id = Get<uint64_t>(at + kAtRequest);
  header.payload_bytes = Get<uint64_t>(at + kAtPayload);
  header.message_bytes = Get<uint32_t>(at + kAtMessage);
  header.message_crc = Get<uint32_t>(at + kAtMessageCrc);
  if (Find(header.type) == nullptr && header.type != FrameType::kError)
    return InvalidArgument("frame type " + std::to_string(static_cast<uint8_t>(header.type)) +
                           ": there is none");
  const std::string what = "frame " + std::string(TypeName(header.type)) + ": ";
  if ((header.flags & ~kFlags) != 0 || at[kAtZero] != 0 || Get<uint32_t>(at + kAtZeros) != 0)
    return InvalidArgument(what + "has a flag or a reserved byte that must be 0");
  if (header.message_bytes > MessageBytesMax(header.type)) {
    return InvalidArgument(what + "its message has " + std::to_string(header.message_bytes) +
                           " bytes; the limit is " + std::to_string(MessageBytesMax(header.type)));
  }
  if (header.payload_bytes > 0 && !MayHavePayload(header.type))
    return InvalidArgument(what + "has no payload");
  if (header.payload_bytes > kPayloadBytesMax) {
    return InvalidArgument(what + "its payload has " + std::to_string(header.payload_bytes) +
                           " bytes; the limit is " + std::to_string(kPayloadBytesMax));
  }
  return header;
}

Status CheckMessage(const FrameHeader& header, std::string_view message) {
  if (message.size() == header.message_bytes && Crc32c(message) == header.message_crc)
    return OkStatus();
  return DataLoss("frame " + std::string(TypeName(header.type)) +
                  ": checksum mismatch of its message");
}

std::string EncodeFrame(FrameType type, uint8_t flags, uint64_t request_id,
                        std::string_view message, uint64_t payload_bytes) {
  const auto header = EncodeHeader({.type = type,
                                    .flags = flags,
                                    .request_id = request_id,
                                    .payload_bytes = payload_bytes,
                                    .message_bytes = static_cast<uint32_t>(message.size()),
                                    .message_crc = Crc32c(message)});
  return std::string(header.data(), header.size()).append(message);
}

}  // namespace longhold::wire
