// One frame of each type of the wire protocol, with every field set: for round trips, golden files
// and the fuzzing harness's first inputs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memory/sidecar/described_model.h"
#include "service/wire/frame.h"
#include "service/wire/messages.h"
#include "tests/support/toy_model.h"

namespace longhold::wire {

// The toy model with TinyGeometry, as another engine would describe it.
inline DescribeModelRequest ToyDescription(const std::string& fingerprint = "0123456789abcdef") {
  const ToyModel toy({.geometry = TinyGeometry()});
  DescribeModelRequest m;
  m.model.name = "toy";
  m.model.fingerprint = fingerprint;
  m.model.geometry = TinyGeometry();
  m.model.layer_count = 3;
  m.model.context_length = 8192;
  m.model.pieces = toy.pieces();
  m.model.bos = ToyModel::kBos;
  m.recall_heads = {{.layer = 2, .kv_head = 0}};
  m.codec = "exact";
  return m;
}

struct SampleFrame {
  FrameType type;
  std::string message;
  uint64_t payload_bytes = 0;
};

inline std::vector<SampleFrame> SampleFrames() {
  // A short vocabulary, so that the golden file is short.
  DescribeModelRequest model = ToyDescription();
  model.model.pieces = {"a", "", "\xff\xfe", " the"};
  model.model.bos = 1;
  model.model.geometry.rope[1].freq_factors = {1, 2};
  RecalledSpan span;
  span.document_id = DocumentId{7};
  span.document = "letters/1.txt";
  span.tokens = {64, 96};
  span.date_tokens = {1, 9};
  span.bytes = {200, 310};
  span.line_begin = 4;
  span.line_end = 6;
  span.score = 0.75;
  span.text = "She came by the night train.";
  span.date_line = "3 May 1921";
  return {
      {FrameType::kHello, Encode(HelloRequest{1, "lh_key", "engine 0.1"})},
      {FrameType::kUseModel, Encode(UseModelRequest{"0123456789abcdef"})},
      {FrameType::kDescribeModel, Encode(model)},
      {FrameType::kPutBegin, Encode(PutBeginRequest{"m", "d.txt", "a the", {0, 3}, {1, 4}})},
      {FrameType::kPutRows, Encode(PutRowsRequest{1, 2, false, true, -5}), 64},
      {FrameType::kPutFinish, Encode(PutFinishRequest{1})},
      {FrameType::kPlan, Encode(PlanRequest{"m", "Who came?", 8, 512, 1, true, 20}), 32},
      {FrameType::kFetch,
       Encode(FetchRequest{
           "m", {{DocumentId{7}, {0, 64}, 0}, {DocumentId{7}, {64, 96}, -3}}, false, true})},
      {FrameType::kTokens, Encode(TokensRequest{"m", DocumentId{7}, {64, 96}})},
      {FrameType::kPrefix, Encode(PrefixRequest{"m", {0, 3, 2}})},
      {FrameType::kForget, Encode(ForgetRequest{"m", "d.txt"})},
      {FrameType::kStat, Encode(StatRequest{"m"})},
      {FrameType::kPing, Encode(PingRequest{16}), 8},
      {ReplyTo(FrameType::kHello), Encode(HelloReply{1, "longhold 0.1.0", 1 << 28, 4, true})},
      {ReplyTo(FrameType::kUseModel), Encode(ModelReply{64, 256})},
      {ReplyTo(FrameType::kDescribeModel), Encode(ModelReply{64, 256})},
      {ReplyTo(FrameType::kPutBegin), Encode(PutBeginReply{1, DocumentId{7}, 4096})},
      {ReplyTo(FrameType::kPutRows), Encode(PutRowsReply{4608})},
      {ReplyTo(FrameType::kPutFinish), Encode(PutFinishReply{5000})},
      {ReplyTo(FrameType::kPlan), Encode(PlanReply{{span, span}, 2, 0.5, {1, 2}})},
      {ReplyTo(FrameType::kFetch), Encode(FetchReply{96}), 3072},
      {ReplyTo(FrameType::kTokens), Encode(TokensReply{{5, 6, 7}})},
      {ReplyTo(FrameType::kPrefix), Encode(PrefixReply{{DocumentId{7}, 640}})},
      {ReplyTo(FrameType::kForget), Encode(ForgetReply{})},
      {ReplyTo(FrameType::kStat), Encode(StatReply{3, 12000, 1 << 20})},
      {ReplyTo(FrameType::kPing), Encode(PingReply{0x0123456789abcdef}), 16},
      {FrameType::kError, Encode(ErrorReply{NotFound("memory m: not found")})},
  };
}

// Decodes a message of a type, and encodes it again. Errors: those of Decode.
inline Result<std::string> Recode(FrameType type, std::string_view bytes) {
  const auto recode = [&]<typename T>(T message) -> Result<std::string> {
    LH_RETURN_IF_ERROR(Decode(bytes, &message));
    return Encode(message);
  };
  switch (static_cast<uint8_t>(type)) {
    case 1: return recode(HelloRequest{});
    case 2: return recode(UseModelRequest{});
    case 3: return recode(DescribeModelRequest{});
    case 4: return recode(PutBeginRequest{});
    case 5: return recode(PutRowsRequest{});
    case 6: return recode(PutFinishRequest{});
    case 7: return recode(PlanRequest{});
    case 8: return recode(FetchRequest{});
    case 9: return recode(TokensRequest{});
    case 10: return recode(PrefixRequest{});
    case 11: return recode(ForgetRequest{});
    case 12: return recode(StatRequest{});
    case 13: return recode(PingRequest{});
    case 0x81: return recode(HelloReply{});
    case 0x82:
    case 0x83: return recode(ModelReply{});
    case 0x84: return recode(PutBeginReply{});
    case 0x85: return recode(PutRowsReply{});
    case 0x86: return recode(PutFinishReply{});
    case 0x87: return recode(PlanReply{});
    case 0x88: return recode(FetchReply{});
    case 0x89: return recode(TokensReply{});
    case 0x8A: return recode(PrefixReply{});
    case 0x8B: return recode(ForgetReply{});
    case 0x8C: return recode(StatReply{});
    case 0x8D: return recode(PingReply{});
    case 0xFF: return recode(ErrorReply{});
    default: return InvalidArgument("no such type");
  }
}

}  // namespace longhold::wire
