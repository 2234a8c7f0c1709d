// Frames and messages of the wire protocol, without sockets.
//
// What is compared with what: messages that were decoded with those that were encoded, by encoding
// them again; golden frames (tests/golden/wire_v1.bin, written by the first encoder) with today's
// samples of the same values. Sizes: one frame of each type, each of its bits flipped and each of
// its lengths cut.
#include "service/wire/frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>

#include "base/crc32c.h"
#include "proto/wire_generated.h"
#include "service/wire/messages.h"
#include "tests/support/wire_samples.h"

namespace longhold::wire {
namespace {

using testing::HasSubstr;

std::span<const char, kHeaderBytes> HeaderOf(const std::string& frame) {
  return std::span<const char, kHeaderBytes>(frame.data(), kHeaderBytes);
}

// As a reader takes a frame from a stream; the payload is not part of `frame`.
Status Read(const std::string& frame) {
  if (frame.size() < kHeaderBytes) return DataLoss("cut");
  LH_ASSIGN_OR_RETURN(const FrameHeader header, DecodeHeader(HeaderOf(frame)));
  const std::string message = frame.substr(kHeaderBytes);
  LH_RETURN_IF_ERROR(CheckMessage(header, message));
  return Recode(header.type, message).status();
}

std::string FrameOf(const SampleFrame& sample) {
  return EncodeFrame(sample.type, 0, 0x1122334455667788, sample.message, sample.payload_bytes);
}

TEST(WireFrame, RoundTripsEveryTypeAndField) {
  std::vector<uint8_t> types;
  for (const SampleFrame& sample : SampleFrames()) {
    types.push_back(static_cast<uint8_t>(sample.type));
    const std::string frame = FrameOf(sample);
    const auto header = DecodeHeader(HeaderOf(frame));
    ASSERT_TRUE(header.ok()) << header.status().ToString();
    EXPECT_EQ(header->type, sample.type);
    EXPECT_EQ(header->request_id, 0x1122334455667788u);
    EXPECT_EQ(header->payload_bytes, sample.payload_bytes);
    EXPECT_EQ(header->message_bytes, sample.message.size());
    const auto again = Recode(sample.type, sample.message);
    ASSERT_TRUE(again.ok()) << again.status().ToString();
    EXPECT_EQ(*again, sample.message) << TypeName(sample.type);
  }
  std::sort(types.begin(), types.end());
  std::vector<uint8_t> all;
  for (uint8_t t = 1; t <= kRequestTypeMax; ++t) all.push_back(t);
  for (uint8_t t = 1; t <= kRequestTypeMax; ++t) all.push_back(t | 0x80);
  all.push_back(0xFF);
  EXPECT_EQ(types, all);
}

TEST(WireFrame, AFieldOfEachMessageComesBack) {
  const auto fetch = DecodeAs<FetchRequest>(SampleRequests()[7].message);
  ASSERT_TRUE(fetch.ok());
  ASSERT_EQ(fetch->places.size(), 2u);
  EXPECT_EQ(fetch->places[1].document, DocumentId{7});
  EXPECT_EQ(fetch->places[1].tokens, (TokenSpan{64, 96}));
  EXPECT_EQ(fetch->places[1].position, -3);
  const auto model = DecodeAs<DescribeModelRequest>(SampleRequests()[2].message);
  ASSERT_TRUE(model.ok());
  DescribeModelRequest expected = ToyDescription();
  expected.model.geometry.rope[1].freq_factors = {1, 2};
  EXPECT_EQ(model->model.geometry, expected.model.geometry);
  EXPECT_EQ(model->model.pieces, (std::vector<std::string>{"a", "", "\xff\xfe", " the"}));
  EXPECT_EQ(model->recall_heads[0].layer, 2u);
  const auto plan = DecodeAs<PlanReply>(SampleReplies()[6].message);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->spans[1].text, "She came by the night train.");
  EXPECT_EQ(plan->spans[1].date_tokens, (TokenSpan{1, 9}));
  const auto error = DecodeAs<ErrorReply>(SampleReplies().back().message);
  ASSERT_TRUE(error.ok());
  EXPECT_EQ(error->status.ToString(), "not_found: memory m: not found");
}

// A header's checksum covers itself, and its message's checksum the rest.
TEST(WireFrame, EveryFlippedBitIsFound) {
  for (const SampleFrame& sample : SampleFrames()) {
    std::string frame = FrameOf(sample);
    ASSERT_TRUE(Read(frame).ok());
    for (size_t bit = 0; bit < 8 * frame.size(); ++bit) {
      frame[bit / 8] = static_cast<char>(frame[bit / 8] ^ (1 << bit % 8));
      EXPECT_FALSE(Read(frame).ok()) << TypeName(sample.type) << " bit " << bit;
      frame[bit / 8] = static_cast<char>(frame[bit / 8] ^ (1 << bit % 8));
    }
  }
}

TEST(WireFrame, EveryCutIsFound) {
  for (const SampleFrame& sample : SampleFrames()) {
    const std::string frame = FrameOf(sample);
    for (size_t size = 0; size < frame.size(); ++size)
      EXPECT_FALSE(Read(frame.substr(0, size)).ok()) << TypeName(sample.type) << " at " << size;
  }
}

// The checksums are right, as an attacker would make them: whatever comes out, nothing crashes.
TEST(WireFrame, DamagedMessagesWithRightChecksumsDoNotCrash) {
  for (const SampleFrame& sample : SampleFrames()) {
    for (size_t bit = 0; bit < 8 * sample.message.size(); ++bit) {
      std::string message = sample.message;
      message[bit / 8] = static_cast<char>(message[bit / 8] ^ (1 << bit % 8));
      (void)Recode(sample.type, message);
    }
    for (size_t size = 0; size < sample.message.size(); ++size)
      (void)Recode(sample.type, sample.message.substr(0, size));
  }
  std::mt19937_64 rng(1);
  for (int i = 0; i < 20000; ++i) {
    std::string message(rng() % 200, '\0');
    for (char& c : message) c = static_cast<char>(rng() % 3 == 0 ? rng() : rng() % 24);
    (void)Recode(static_cast<FrameType>(1 + rng() % kRequestTypeMax), message);
  }
}

TEST(WireFrame, HeadersAboveABoundAreRefused) {
  const auto decode = [](FrameHeader header) {
    return DecodeHeader(EncodeHeader(header)).status();
  };
  EXPECT_TRUE(decode({.type = FrameType::kPutRows, .payload_bytes = kPayloadBytesMax}).ok());
  EXPECT_THAT(
      decode({.type = FrameType::kPutRows, .payload_bytes = kPayloadBytesMax + 1}).message(),
      HasSubstr("the limit is 268435456"));
  EXPECT_EQ(decode({.type = FrameType::kStat, .payload_bytes = 1}).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(decode({.type = FrameType::kHello, .message_bytes = 4097}).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(decode({.type = FrameType::kStat, .flags = 4}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(decode({.type = static_cast<FrameType>(14)}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(decode({.type = static_cast<FrameType>(0)}).code(), StatusCode::kInvalidArgument);
  // Another version, with a right checksum.
  auto bytes = EncodeHeader({.type = FrameType::kStat});
  bytes[4] = 2;
  const uint32_t crc = Crc32c({bytes.data(), 36});
  std::copy_n(reinterpret_cast<const char*>(&crc), 4, &bytes[36]);
  EXPECT_EQ(DecodeHeader(bytes).status().code(), StatusCode::kUnimplemented);
}

// Many elements of a vector may be the same table, so that a short message describes a lot.
TEST(WireFrame, SharedTablesAreNoBomb) {
  flatbuffers::FlatBufferBuilder b;
  const std::vector<float> factors(1 << 20, 1.0f);
  const auto vector = b.CreateVector(factors);
  const auto rope = proto::wire::CreateRope(b, 4, false, 1e4f, 1, 1, vector);
  const auto ropes = b.CreateVector(std::vector(1024, rope));
  proto::wire::DescribeModelRequestBuilder model(b);
  model.add_ropes(ropes);
  b.Finish(model.Finish());
  const std::string message(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize());
  const auto decoded = DecodeAs<DescribeModelRequest>(message);
  EXPECT_EQ(decoded.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(decoded.status().message(), HasSubstr("freq_factors"));
}

TEST(WireFrame, FieldsAboveABoundAreRefused) {
  PutBeginRequest put{.memory = std::string(1025, 'm'), .name = "d", .text = "a"};
  EXPECT_THAT(DecodeAs<PutBeginRequest>(Encode(put)).status().message(), HasSubstr("memory"));
  PlanRequest plan{.memory = "m", .question = std::string((64 << 10) + 1, 'q')};
  EXPECT_THAT(DecodeAs<PlanRequest>(Encode(plan)).status().message(), HasSubstr("question"));
  FetchRequest fetch{.memory = "m", .places = std::vector<PlacedSpan>(65537)};
  EXPECT_THAT(DecodeAs<FetchRequest>(Encode(fetch)).status().message(), HasSubstr("places"));
  DescribeModelRequest model = ToyDescription();
  model.recall_heads.resize(65);
  EXPECT_THAT(DecodeAs<DescribeModelRequest>(Encode(model)).status().message(),
              HasSubstr("recall_heads"));
  model = ToyDescription();
  model.model.pieces.resize(kVocabularyMax + 1);
  EXPECT_THAT(DecodeAs<DescribeModelRequest>(Encode(model)).status().message(),
              HasSubstr("the limit is 1048576"));
}

TEST(WireFrame, GoldenFramesOfVersion1AreRead) {
  std::ifstream file(std::string(LONGHOLD_SOURCE_DIR) + "/tests/golden/wire_v1.bin",
                     std::ios::binary);
  const std::string golden((std::istreambuf_iterator<char>(file)),
                           std::istreambuf_iterator<char>());
  size_t at = 0;
  for (const SampleFrame& sample : SampleFrames()) {
    ASSERT_LE(at + kHeaderBytes, golden.size());
    const std::string bytes = golden.substr(at, kHeaderBytes);
    const auto header = DecodeHeader(HeaderOf(bytes));
    ASSERT_TRUE(header.ok()) << header.status().ToString();
    EXPECT_EQ(header->type, sample.type);
    EXPECT_EQ(header->request_id, 0x1122334455667788u);
    EXPECT_EQ(header->payload_bytes, sample.payload_bytes);
    const std::string message = golden.substr(at + kHeaderBytes, header->message_bytes);
    ASSERT_TRUE(CheckMessage(*header, message).ok());
    const auto value = Recode(sample.type, message);
    ASSERT_TRUE(value.ok()) << TypeName(sample.type) << ": " << value.status().ToString();
    EXPECT_EQ(*value, sample.message) << TypeName(sample.type);
    at += kHeaderBytes + message.size();
  }
  EXPECT_EQ(at, golden.size());
}

}  // namespace
}  // namespace longhold::wire
