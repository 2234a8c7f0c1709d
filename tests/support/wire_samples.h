// One frame of each type of the wire protocol, with every field set: for round trips, golden files
// and the fuzzing harness's first inputs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
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

// Decodes a message, and encodes it again. Errors: those of Decode.
template <typename T>
Result<std::string> RecodeAs(std::string_view bytes) {
  LH_ASSIGN_OR_RETURN(const T message, DecodeAs<T>(bytes));
  return Encode(message);
}

struct SampleFrame {
  FrameType type;
  std::string message;
  Result<std::string> (*recode)(std::string_view message);
  uint64_t payload_bytes = 0;
};

template <typename T>
SampleFrame Sample(FrameType type, const T& message, uint64_t payload_bytes = 0) {
  return {.type = type,
          .message = Encode(message),
          .recode = &RecodeAs<T>,
          .payload_bytes = payload_bytes};
}

inline std::vector<SampleFrame> SampleRequests() {
  // A short vocabulary, so that the golden file is short.
  DescribeModelRequest model = ToyDescription();
  model.model.pieces = {"a", "", "\xff\xfe", " the"};
  model.model.bos = 1;
  model.model.geometry.rope[1].freq_factors = {1, 2};
  const std::vector<PlacedSpan> places = {
      {.document = DocumentId{7}, .tokens = {.begin = 0, .end = 64}, .position = 0},
      {.document = DocumentId{7}, .tokens = {.begin = 64, .end = 96}, .position = -3}};
  return {
      Sample(FrameType::kHello,
             HelloRequest{.version = 1, .key = "lh_key", .client = "engine 0.1"}),
      Sample(FrameType::kUseModel, UseModelRequest{.fingerprint = "0123456789abcdef"}),
      Sample(FrameType::kDescribeModel, model),
      Sample(FrameType::kPutBegin, PutBeginRequest{.memory = "m",
                                                   .name = "d.txt",
                                                   .text = "a the",
                                                   .tokens = {0, 3},
                                                   .token_bytes = {1, 4}}),
      Sample(FrameType::kPutRows,
             PutRowsRequest{
                 .writer = 1, .tokens = 2, .float32 = false, .rotated = true, .position = -5},
             64),
      Sample(FrameType::kPutFinish, PutFinishRequest{.writer = 1}),
      Sample(FrameType::kPlan,
             PlanRequest{.memory = "m",
                         .question = "Who came?",
                         .spans_max = 8,
                         .tokens_max = 512,
                         .query_tokens = 1,
                         .query_rotated = true,
                         .query_position = 20},
             32),
      Sample(FrameType::kFetch,
             FetchRequest{.memory = "m", .places = places, .float32 = false, .rotated = true}),
      Sample(FrameType::kTokens,
             TokensRequest{
                 .memory = "m", .document = DocumentId{7}, .span = {.begin = 64, .end = 96}}),
      Sample(FrameType::kPrefix, PrefixRequest{.memory = "m", .tokens = {0, 3, 2}}),
      Sample(FrameType::kForget, ForgetRequest{.memory = "m", .document = "d.txt"}),
      Sample(FrameType::kStat, StatRequest{.memory = "m"}),
      Sample(FrameType::kPing, PingRequest{.reply_bytes = 16}, 8),
  };
}

inline std::vector<SampleFrame> SampleReplies() {
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
  const ModelReply model{.sink_tokens = 64, .window_tokens = 256};
  return {
      Sample(ReplyTo(FrameType::kHello), HelloReply{.version = 1,
                                                    .server = "longhold 0.1.0",
                                                    .payload_bytes_max = 1 << 28,
                                                    .writers_max = 4,
                                                    .memfd = true}),
      Sample(ReplyTo(FrameType::kUseModel), model),
      Sample(ReplyTo(FrameType::kDescribeModel), model),
      Sample(ReplyTo(FrameType::kPutBegin),
             PutBeginReply{.writer = 1, .document = DocumentId{7}, .position = 4096}),
      Sample(ReplyTo(FrameType::kPutRows), PutRowsReply{.position = 4608}),
      Sample(ReplyTo(FrameType::kPutFinish), PutFinishReply{.position = 5000}),
      Sample(ReplyTo(FrameType::kPlan),
             PlanReply{.spans = {span, span},
                       .evidence = 2,
                       .coverage = 0.5,
                       .degradation = {.blocks_lost = 1, .spans_lost = 2}}),
      Sample(ReplyTo(FrameType::kFetch), FetchReply{.tokens = 96}, 3072),
      Sample(ReplyTo(FrameType::kTokens), TokensReply{.tokens = {5, 6, 7}}),
      Sample(ReplyTo(FrameType::kPrefix),
             PrefixReply{.prefix = {.document = DocumentId{7}, .tokens = 640}}),
      Sample(ReplyTo(FrameType::kForget), ForgetReply{}),
      Sample(ReplyTo(FrameType::kStat),
             StatReply{.documents = 3, .tokens = 12000, .disk_bytes = 1 << 20}),
      Sample(ReplyTo(FrameType::kPing), PingReply{.hash = 0x0123456789abcdef}, 16),
      Sample(FrameType::kError, ErrorReply{.status = NotFound("memory m: not found")}),
  };
}

// Requests, then replies: the order of the golden file.
inline std::vector<SampleFrame> SampleFrames() {
  std::vector<SampleFrame> frames = SampleRequests(), replies = SampleReplies();
  for (SampleFrame& reply : replies) frames.push_back(std::move(reply));
  return frames;
}

// As RecodeAs, for the message of a type. Errors: also invalid_argument (no such type).
inline Result<std::string> Recode(FrameType type, std::string_view bytes) {
  static const std::vector<SampleFrame> frames = SampleFrames();
  const auto found = std::find_if(frames.begin(), frames.end(),
                                  [type](const SampleFrame& frame) { return frame.type == type; });
  if (found == frames.end()) return InvalidArgument("no such type");
  return found->recode(bytes);
}

}  // namespace longhold::wire
