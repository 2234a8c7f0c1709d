// Messages of the wire protocol as value types. docs/formats/wire.md is the manual for their
// fields. Generated flatbuffers code is used only in messages.cc.
//
// Every Decode runs FlatBuffers' verifier, with limits, before it reads a field, and then bounds
// each field before it copies it. Hostile bytes never cause a crash, and a message never takes more
// memory than a few times its size. Whether names and numbers make sense is for whoever uses them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "memory/sidecar/sidecar.h"

namespace longhold::wire {

// Bounds of messages. Those of vocabularies and places are the sidecar's.
inline constexpr size_t kNameBytesMax = 1024;  // of documents, clients and memories
inline constexpr size_t kKeyBytesMax = 512;
inline constexpr size_t kTextBytesMax = 64u << 20;       // of a document
inline constexpr size_t kDocumentTokensMax = 16u << 20;  // of a document
inline constexpr size_t kPieceBytesMax = 32u << 20;      // of all pieces together
inline constexpr size_t kQuestionBytesMax = 64 << 10;    // as over HTTP
inline constexpr size_t kTokensMax = 4u << 20;           // of one reply, and of a prefix
inline constexpr size_t kSpansMax = 1024;                // of a plan

struct HelloRequest {
  uint32_t version = 0;
  std::string key;     // an API key; empty: none
  std::string client;  // for people
};
struct UseModelRequest {
  std::string fingerprint;
};
struct DescribeModelRequest {
  ModelDescription model;
  std::vector<RecallHead> recall_heads;
  std::string codec;  // of new memories; empty: the default
};
struct PutBeginRequest {
  std::string memory, name, text;
  std::vector<TokenId> tokens;
  std::vector<uint16_t> token_bytes;  // [tokens], or empty: the lengths of the pieces
};
struct PutRowsRequest {
  uint32_t writer = 0;
  uint32_t tokens = 0;
  bool float32 = false, rotated = false;
  int64_t position = 0;
};
struct PutFinishRequest {
  uint32_t writer = 0;
};
struct PlanRequest {
  std::string memory, question;
  uint32_t spans_max = 0;
  uint64_t tokens_max = 0;
  uint32_t query_tokens = 0;
  bool query_rotated = false;
  int64_t query_position = 0;
};
struct FetchRequest {
  std::string memory;
  std::vector<PlacedSpan> places;
  bool float32 = false, rotated = false;
};
struct TokensRequest {
  std::string memory;
  DocumentId document{};
  TokenSpan span;
};
struct PrefixRequest {
  std::string memory;
  std::vector<TokenId> tokens;
};
struct ForgetRequest {
  std::string memory, document;  // without a document: the memory
};
struct StatRequest {
  std::string memory;
};
struct PingRequest {
  uint64_t reply_bytes = 0;
};

struct HelloReply {
  uint32_t version = 0;
  std::string server;
  uint64_t payload_bytes_max = 0;
  uint32_t writers_max = 0;
  bool memfd = false;
};
struct ModelReply {
  uint32_t sink_tokens = 0, window_tokens = 0;
};
struct PutBeginReply {
  uint32_t writer = 0;
  DocumentId document{};
  uint64_t position = 0;
};
struct PutRowsReply {
  uint64_t position = 0;
};
struct PutFinishReply {
  uint64_t position = 0;
};
struct PlanReply {
  std::vector<RecalledSpan> spans;  // without reasons
  uint8_t evidence = 0;             // Evidence::Level
  double coverage = -1;             // -1: no head was asked
  Degradation degradation;
};
struct FetchReply {
  uint64_t tokens = 0;
};
struct TokensReply {
  std::vector<TokenId> tokens;
};
struct PrefixReply {
  StoredPrefix prefix;
};
struct ForgetReply {};
struct StatReply {
  uint64_t documents = 0, tokens = 0, disk_bytes = 0;
};
struct PingReply {
  uint64_t hash = 0;  // Hash64 of the request's payload
};
struct ErrorReply {
  Status status;
};

std::string Encode(const HelloRequest& m);
std::string Encode(const UseModelRequest& m);
std::string Encode(const DescribeModelRequest& m);
std::string Encode(const PutBeginRequest& m);
std::string Encode(const PutRowsRequest& m);
std::string Encode(const PutFinishRequest& m);
std::string Encode(const PlanRequest& m);
std::string Encode(const FetchRequest& m);
std::string Encode(const TokensRequest& m);
std::string Encode(const PrefixRequest& m);
std::string Encode(const ForgetRequest& m);
std::string Encode(const StatRequest& m);
std::string Encode(const PingRequest& m);
std::string Encode(const HelloReply& m);
std::string Encode(const ModelReply& m);
std::string Encode(const PutBeginReply& m);
std::string Encode(const PutRowsReply& m);
std::string Encode(const PutFinishReply& m);
std::string Encode(const PlanReply& m);
std::string Encode(const FetchReply& m);
std::string Encode(const TokensReply& m);
std::string Encode(const PrefixReply& m);
std::string Encode(const ForgetReply& m);
std::string Encode(const StatReply& m);
std::string Encode(const PingReply& m);
// Cuts the message of a long one. Must hold: the status is not ok.
std::string Encode(const ErrorReply& m);

// Must hold: the bytes are aligned to 8. Errors: invalid_argument.
Status Decode(std::string_view bytes, HelloRequest* m);
Status Decode(std::string_view bytes, UseModelRequest* m);
Status Decode(std::string_view bytes, DescribeModelRequest* m);
Status Decode(std::string_view bytes, PutBeginRequest* m);
Status Decode(std::string_view bytes, PutRowsRequest* m);
Status Decode(std::string_view bytes, PutFinishRequest* m);
Status Decode(std::string_view bytes, PlanRequest* m);
Status Decode(std::string_view bytes, FetchRequest* m);
Status Decode(std::string_view bytes, TokensRequest* m);
Status Decode(std::string_view bytes, PrefixRequest* m);
Status Decode(std::string_view bytes, ForgetRequest* m);
Status Decode(std::string_view bytes, StatRequest* m);
Status Decode(std::string_view bytes, PingRequest* m);
Status Decode(std::string_view bytes, HelloReply* m);
Status Decode(std::string_view bytes, ModelReply* m);
Status Decode(std::string_view bytes, PutBeginReply* m);
Status Decode(std::string_view bytes, PutRowsReply* m);
Status Decode(std::string_view bytes, PutFinishReply* m);
Status Decode(std::string_view bytes, PlanReply* m);
Status Decode(std::string_view bytes, FetchReply* m);
Status Decode(std::string_view bytes, TokensReply* m);
Status Decode(std::string_view bytes, PrefixReply* m);
Status Decode(std::string_view bytes, ForgetReply* m);
Status Decode(std::string_view bytes, StatReply* m);
Status Decode(std::string_view bytes, PingReply* m);
Status Decode(std::string_view bytes, ErrorReply* m);

// As Decode, for a value.
template <typename T>
Result<T> DecodeAs(std::string_view bytes) {
  T message;
  LH_RETURN_IF_ERROR(Decode(bytes, &message));
  return message;
}

}  // namespace longhold::wire
