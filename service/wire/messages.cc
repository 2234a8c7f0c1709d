#include "service/wire/messages.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "proto/wire_generated.h"

namespace longhold::wire {
namespace {

namespace fb = longhold::proto::wire;
using Builder = flatbuffers::FlatBufferBuilder;

constexpr size_t kFingerprintBytesMax = 64;
constexpr size_t kModelNameBytesMax = 256;
constexpr size_t kCodecBytesMax = 32;
constexpr size_t kLayersMax = 1024;
constexpr size_t kErrorBytesMax = 4096;
constexpr uint32_t kTableDepthMax = 4;

template <typename T>
std::string Finish(Builder& b, flatbuffers::Offset<T> root) {
  b.Finish(root);
  return {reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize()};
}

// Copies fields within their bounds. The first that is above its bound is the status; later ones
// are then empty.
class Fields {
 public:
  std::string Text(const flatbuffers::String* s, size_t bytes_max, const char* name) {
    if (s == nullptr || !Fits(s->size(), bytes_max, name)) return "";
    return s->str();
  }
  // Copied as bytes, because the elements may be unaligned: the verifier only checks the alignment
  // of a vector's length.
  template <typename T>
  std::vector<T> Elements(const flatbuffers::Vector<T>* v, size_t most, const char* name) {
    std::vector<T> elements;
    if (v == nullptr || !Fits(v->size(), most, name)) return elements;
    elements.resize(v->size());
    if (!elements.empty()) std::memcpy(elements.data(), v->Data(), elements.size() * sizeof(T));
    return elements;
  }
  template <typename T>
  std::vector<T> Structs(const flatbuffers::Vector<const T*>* v, size_t most, const char* name) {
    std::vector<T> elements;
    if (v == nullptr || !Fits(v->size(), most, name)) return elements;
    elements.resize(v->size());
    if (!elements.empty()) std::memcpy(elements.data(), v->Data(), elements.size() * sizeof(T));
    return elements;
  }
  bool Fits(size_t size, size_t most, const char* name) {
    if (status_.ok() && size > most) {
      status_ = InvalidArgument(std::string(name) + ": has " + std::to_string(size) +
                                " bytes or elements; the limit is " + std::to_string(most));
    }
    return status_.ok();
  }
  Status status() const { return status_; }

 private:
  Status status_;
};

// Verifies the bytes, and then lets `read` copy the fields.
template <typename T, typename Read>
Status Parse(std::string_view bytes, uint32_t tables_max, const Read& read) {
  flatbuffers::Verifier verifier(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(),
                                 kTableDepthMax, tables_max);
  if (!verifier.VerifyBuffer<T>(nullptr))
    return InvalidArgument("the message is not a valid flatbuffer of its type");
  Fields fields;
  read(*flatbuffers::GetRoot<T>(bytes.data()), fields);
  return fields.status();
}
template <typename T, typename Read>
Status Parse(std::string_view bytes, const Read& read) {
  return Parse<T>(bytes, 1, read);
}

TokenSpan SpanOf(uint64_t begin, uint64_t end) { return {.begin = begin, .end = end}; }

void ReadModel(const fb::DescribeModelRequest& p, Fields& f, ModelDescription* m) {
  m->name = f.Text(p.name(), kModelNameBytesMax, "name");
  m->fingerprint = f.Text(p.fingerprint(), kFingerprintBytesMax, "fingerprint");
  m->layer_count = p.layer_count();
  m->context_length = p.context_length();
  m->bos = p.bos();
  KvGeometry& g = m->geometry;
  g.layers = f.Elements(p.layers(), kLayersMax, "layers");
  g.q_heads = p.q_heads();
  g.kv_heads = p.kv_heads();
  g.head_dim = p.head_dim();
  g.scale = p.scale();
  if (p.ropes() != nullptr && f.Fits(p.ropes()->size(), kLayersMax, "ropes")) {
    for (const fb::Rope* rope : *p.ropes()) {
      g.rope.push_back(
          {.neox = rope->halves(),
           .rotary_dims = rope->rotary_dims(),
           .freq_base = rope->freq_base(),
           .freq_scale = rope->freq_scale(),
           .attn_factor = rope->attn_factor(),
           .freq_factors = f.Elements(rope->freq_factors(), kMaxHeadDim / 2, "freq_factors")});
    }
  }
}

// Cuts `pieces` into the vocabulary.
void ReadPieces(const fb::DescribeModelRequest& p, Fields& f, std::vector<std::string>* out) {
  const std::vector<uint16_t> lengths = f.Elements(p.piece_bytes(), kVocabularyMax, "piece_bytes");
  if (p.pieces() == nullptr || !f.Fits(p.pieces()->size(), kPieceBytesMax, "pieces")) return;
  const std::string_view all(reinterpret_cast<const char*>(p.pieces()->Data()), p.pieces()->size());
  size_t at = 0;
  out->reserve(lengths.size());
  for (const uint16_t length : lengths) {
    if (!f.Fits(length, all.size() - at, "piece_bytes")) return;
    out->emplace_back(all.substr(at, length));
    at += length;
  }
}

flatbuffers::Offset<fb::Span> Write(Builder& b, const RecalledSpan& s) {
  const auto name = b.CreateString(s.document), text = b.CreateString(s.text),
             date = b.CreateString(s.date_line);
  return fb::CreateSpan(b, static_cast<uint32_t>(s.document_id), s.tokens.begin, s.tokens.end,
                        s.date_tokens.begin, s.date_tokens.end, s.bytes.begin, s.bytes.end,
                        s.line_begin, s.line_end, s.score, name, text, date);
}

}  // namespace

// ------------------------------------------------------------------------------------------------
// requests

std::string Encode(const HelloRequest& m) {
  Builder b;
  const auto key = b.CreateString(m.key), client = b.CreateString(m.client);
  return Finish(b, fb::CreateHelloRequest(b, m.version, key, client));
}
Status Decode(std::string_view bytes, HelloRequest* m) {
  return Parse<fb::HelloRequest>(bytes, [&](const fb::HelloRequest& p, Fields& f) {
    m->version = p.version();
    m->key = f.Text(p.key(), kKeyBytesMax, "key");
    m->client = f.Text(p.client(), kNameBytesMax, "client");
  });
}

std::string Encode(const UseModelRequest& m) {
  Builder b;
  const auto fingerprint = b.CreateString(m.fingerprint);
  return Finish(b, fb::CreateUseModelRequest(b, fingerprint));
}
Status Decode(std::string_view bytes, UseModelRequest* m) {
  return Parse<fb::UseModelRequest>(bytes, [&](const fb::UseModelRequest& p, Fields& f) {
    m->fingerprint = f.Text(p.fingerprint(), kFingerprintBytesMax, "fingerprint");
  });
}

std::string Encode(const DescribeModelRequest& m) {
  Builder b;
  const KvGeometry& g = m.model.geometry;
  std::vector<flatbuffers::Offset<fb::Rope>> ropes;
  for (const RopeSpec& rope : g.rope) {
    const auto factors = b.CreateVector(rope.freq_factors);
    ropes.push_back(fb::CreateRope(b, rope.rotary_dims, rope.neox, rope.freq_base, rope.freq_scale,
                                   rope.attn_factor, factors));
  }
  std::vector<uint16_t> lengths;
  std::string pieces;
  for (const std::string& piece : m.model.pieces) {
    lengths.push_back(static_cast<uint16_t>(piece.size()));
    pieces += piece;
  }
  std::vector<fb::Head> heads;
  for (const RecallHead& head : m.recall_heads) heads.emplace_back(head.layer, head.kv_head);
  const auto name = b.CreateString(m.model.name), fingerprint = b.CreateString(m.model.fingerprint),
             codec = b.CreateString(m.codec);
  const auto layers = b.CreateVector(g.layers);
  const auto rope_vector = b.CreateVector(ropes);
  const auto length_vector = b.CreateVector(lengths);
  const auto piece_vector =
      b.CreateVector(reinterpret_cast<const uint8_t*>(pieces.data()), pieces.size());
  const auto head_vector = b.CreateVectorOfStructs(heads);
  return Finish(b, fb::CreateDescribeModelRequest(
                       b, name, fingerprint, m.model.layer_count, layers, g.q_heads, g.kv_heads,
                       g.head_dim, g.scale, m.model.context_length, rope_vector, length_vector,
                       piece_vector, m.model.bos, head_vector, codec));
}
Status Decode(std::string_view bytes, DescribeModelRequest* m) {
  return Parse<fb::DescribeModelRequest>(
      bytes, kLayersMax + 1, [&](const fb::DescribeModelRequest& p, Fields& f) {
        ReadModel(p, f, &m->model);
        ReadPieces(p, f, &m->model.pieces);
        for (const fb::Head& head :
             f.Structs<fb::Head>(p.recall_heads(), kScanHeadsMax, "recall_heads"))
          m->recall_heads.push_back({.layer = head.layer(), .kv_head = head.kv_head()});
        m->codec = f.Text(p.codec(), kCodecBytesMax, "codec");
      });
}

std::string Encode(const PutBeginRequest& m) {
  Builder b;
  const auto memory = b.CreateString(m.memory), name = b.CreateString(m.name),
             text = b.CreateString(m.text);
  const auto tokens = b.CreateVector(m.tokens);
  const auto token_bytes = b.CreateVector(m.token_bytes);
  return Finish(b, fb::CreatePutBeginRequest(b, memory, name, text, tokens, token_bytes));
}
Status Decode(std::string_view bytes, PutBeginRequest* m) {
  return Parse<fb::PutBeginRequest>(bytes, [&](const fb::PutBeginRequest& p, Fields& f) {
    m->memory = f.Text(p.memory(), kNameBytesMax, "memory");
    m->name = f.Text(p.name(), kNameBytesMax, "name");
    m->text = f.Text(p.text(), kTextBytesMax, "text");
    m->tokens = f.Elements(p.tokens(), kDocumentTokensMax, "tokens");
    m->token_bytes = f.Elements(p.token_bytes(), kDocumentTokensMax, "token_bytes");
  });
}

std::string Encode(const PutRowsRequest& m) {
  Builder b;
  return Finish(b,
                fb::CreatePutRowsRequest(b, m.writer, m.tokens, m.float32, m.rotated, m.position));
}
Status Decode(std::string_view bytes, PutRowsRequest* m) {
  return Parse<fb::PutRowsRequest>(bytes, [&](const fb::PutRowsRequest& p, Fields&) {
    *m = {.writer = p.writer(),
          .tokens = p.tokens(),
          .float32 = p.float32(),
          .rotated = p.rotated(),
          .position = p.position()};
  });
}

std::string Encode(const PutFinishRequest& m) {
  Builder b;
  return Finish(b, fb::CreatePutFinishRequest(b, m.writer));
}
Status Decode(std::string_view bytes, PutFinishRequest* m) {
  return Parse<fb::PutFinishRequest>(
      bytes, [&](const fb::PutFinishRequest& p, Fields&) { m->writer = p.writer(); });
}

std::string Encode(const PlanRequest& m) {
  Builder b;
  const auto memory = b.CreateString(m.memory), question = b.CreateString(m.question);
  return Finish(b, fb::CreatePlanRequest(b, memory, question, m.spans_max, m.tokens_max,
                                         m.query_tokens, m.query_rotated, m.query_position));
}
Status Decode(std::string_view bytes, PlanRequest* m) {
  return Parse<fb::PlanRequest>(bytes, [&](const fb::PlanRequest& p, Fields& f) {
    m->memory = f.Text(p.memory(), kNameBytesMax, "memory");
    m->question = f.Text(p.question(), kQuestionBytesMax, "question");
    f.Fits(p.spans_max(), kSpansMax, "spans_max");
    m->spans_max = p.spans_max();
    m->tokens_max = p.tokens_max();
    m->query_tokens = p.query_tokens();
    m->query_rotated = p.query_rotated();
    m->query_position = p.query_position();
  });
}

std::string Encode(const FetchRequest& m) {
  Builder b;
  std::vector<fb::Place> places;
  for (const PlacedSpan& place : m.places)
    places.emplace_back(place.tokens.begin, place.tokens.end, place.position,
                        static_cast<uint32_t>(place.document));
  const auto memory = b.CreateString(m.memory);
  const auto place_vector = b.CreateVectorOfStructs(places);
  return Finish(b, fb::CreateFetchRequest(b, memory, place_vector, m.float32, m.rotated));
}
Status Decode(std::string_view bytes, FetchRequest* m) {
  return Parse<fb::FetchRequest>(bytes, [&](const fb::FetchRequest& p, Fields& f) {
    m->memory = f.Text(p.memory(), kNameBytesMax, "memory");
    for (const fb::Place& place : f.Structs<fb::Place>(p.places(), kPlacesMax, "places"))
      m->places.push_back({.document = DocumentId{place.document()},
                           .tokens = SpanOf(place.begin(), place.end()),
                           .position = place.position()});
    m->float32 = p.float32();
    m->rotated = p.rotated();
  });
}

std::string Encode(const TokensRequest& m) {
  Builder b;
  const auto memory = b.CreateString(m.memory);
  return Finish(b, fb::CreateTokensRequest(b, memory, static_cast<uint32_t>(m.document),
                                           m.span.begin, m.span.end));
}
Status Decode(std::string_view bytes, TokensRequest* m) {
  return Parse<fb::TokensRequest>(bytes, [&](const fb::TokensRequest& p, Fields& f) {
    m->memory = f.Text(p.memory(), kNameBytesMax, "memory");
    m->document = DocumentId{p.document()};
    m->span = SpanOf(p.begin(), p.end());
  });
}

std::string Encode(const PrefixRequest& m) {
  Builder b;
  const auto memory = b.CreateString(m.memory);
  const auto tokens = b.CreateVector(m.tokens);
  return Finish(b, fb::CreatePrefixRequest(b, memory, tokens));
}
Status Decode(std::string_view bytes, PrefixRequest* m) {
  return Parse<fb::PrefixRequest>(bytes, [&](const fb::PrefixRequest& p, Fields& f) {
    m->memory = f.Text(p.memory(), kNameBytesMax, "memory");
    m->tokens = f.Elements(p.tokens(), kTokensMax, "tokens");
  });
}

std::string Encode(const ForgetRequest& m) {
  Builder b;
  const auto memory = b.CreateString(m.memory), document = b.CreateString(m.document);
  return Finish(b, fb::CreateForgetRequest(b, memory, document));
}
Status Decode(std::string_view bytes, ForgetRequest* m) {
  return Parse<fb::ForgetRequest>(bytes, [&](const fb::ForgetRequest& p, Fields& f) {
    m->memory = f.Text(p.memory(), kNameBytesMax, "memory");
    m->document = f.Text(p.document(), kNameBytesMax, "document");
  });
}

std::string Encode(const StatRequest& m) {
  Builder b;
  const auto memory = b.CreateString(m.memory);
  return Finish(b, fb::CreateStatRequest(b, memory));
}
Status Decode(std::string_view bytes, StatRequest* m) {
  return Parse<fb::StatRequest>(bytes, [&](const fb::StatRequest& p, Fields& f) {
    m->memory = f.Text(p.memory(), kNameBytesMax, "memory");
  });
}

std::string Encode(const PingRequest& m) {
  Builder b;
  return Finish(b, fb::CreatePingRequest(b, m.reply_bytes));
}
Status Decode(std::string_view bytes, PingRequest* m) {
  return Parse<fb::PingRequest>(
      bytes, [&](const fb::PingRequest& p, Fields&) { m->reply_bytes = p.reply_bytes(); });
}

// ------------------------------------------------------------------------------------------------
// replies

std::string Encode(const HelloReply& m) {
  Builder b;
  const auto server = b.CreateString(m.server);
  return Finish(
      b, fb::CreateHelloReply(b, m.version, server, m.payload_bytes_max, m.writers_max, m.memfd));
}
Status Decode(std::string_view bytes, HelloReply* m) {
  return Parse<fb::HelloReply>(bytes, [&](const fb::HelloReply& p, Fields& f) {
    m->version = p.version();
    m->server = f.Text(p.server(), kNameBytesMax, "server");
    m->payload_bytes_max = p.payload_bytes_max();
    m->writers_max = p.writers_max();
    m->memfd = p.memfd();
  });
}

std::string Encode(const ModelReply& m) {
  Builder b;
  return Finish(b, fb::CreateModelReply(b, m.sink_tokens, m.window_tokens));
}
Status Decode(std::string_view bytes, ModelReply* m) {
  return Parse<fb::ModelReply>(bytes, [&](const fb::ModelReply& p, Fields&) {
    *m = {.sink_tokens = p.sink_tokens(), .window_tokens = p.window_tokens()};
  });
}

std::string Encode(const PutBeginReply& m) {
  Builder b;
  return Finish(
      b, fb::CreatePutBeginReply(b, m.writer, static_cast<uint32_t>(m.document), m.position));
}
Status Decode(std::string_view bytes, PutBeginReply* m) {
  return Parse<fb::PutBeginReply>(bytes, [&](const fb::PutBeginReply& p, Fields&) {
    *m = {.writer = p.writer(), .document = DocumentId{p.document()}, .position = p.position()};
  });
}

std::string Encode(const PutRowsReply& m) {
  Builder b;
  return Finish(b, fb::CreatePutRowsReply(b, m.position));
}
Status Decode(std::string_view bytes, PutRowsReply* m) {
  return Parse<fb::PutRowsReply>(
      bytes, [&](const fb::PutRowsReply& p, Fields&) { m->position = p.position(); });
}

std::string Encode(const PutFinishReply& m) {
  Builder b;
  return Finish(b, fb::CreatePutFinishReply(b, m.position));
}
Status Decode(std::string_view bytes, PutFinishReply* m) {
  return Parse<fb::PutFinishReply>(
      bytes, [&](const fb::PutFinishReply& p, Fields&) { m->position = p.position(); });
}

std::string Encode(const PlanReply& m) {
  Builder b;
  std::vector<flatbuffers::Offset<fb::Span>> spans;
  for (const RecalledSpan& span : m.spans) spans.push_back(Write(b, span));
  const auto span_vector = b.CreateVector(spans);
  return Finish(b, fb::CreatePlanReply(b, span_vector, m.evidence, m.coverage,
                                       m.degradation.blocks_lost, m.degradation.spans_lost));
}
Status Decode(std::string_view bytes, PlanReply* m) {
  return Parse<fb::PlanReply>(bytes, kSpansMax + 1, [&](const fb::PlanReply& p, Fields& f) {
    if (p.spans() != nullptr) {
      // Tables of a message may share their strings, so that the sum can be above its size.
      size_t left = bytes.size();
      const auto text = [&](const flatbuffers::String* s) {
        std::string copy = f.Text(s, left, "spans");
        left -= copy.size();
        return copy;
      };
      for (const fb::Span* s : *p.spans()) {
        RecalledSpan& span = m->spans.emplace_back();
        span.document_id = DocumentId{s->document()};
        span.tokens = SpanOf(s->begin(), s->end());
        span.date_tokens = SpanOf(s->date_begin(), s->date_end());
        span.bytes = {.begin = s->byte_begin(), .end = s->byte_end()};
        span.line_begin = s->line_begin();
        span.line_end = s->line_end();
        span.score = s->score();
        span.document = text(s->document_name());
        span.text = text(s->text());
        span.date_line = text(s->date_line());
      }
    }
    m->evidence = p.evidence();
    m->coverage = p.coverage();
    m->degradation = {.blocks_lost = p.blocks_lost(), .spans_lost = p.spans_lost()};
  });
}

std::string Encode(const FetchReply& m) {
  Builder b;
  return Finish(b, fb::CreateFetchReply(b, m.tokens));
}
Status Decode(std::string_view bytes, FetchReply* m) {
  return Parse<fb::FetchReply>(bytes,
                               [&](const fb::FetchReply& p, Fields&) { m->tokens = p.tokens(); });
}

std::string Encode(const TokensReply& m) {
  Builder b;
  const auto tokens = b.CreateVector(m.tokens);
  return Finish(b, fb::CreateTokensReply(b, tokens));
}
Status Decode(std::string_view bytes, TokensReply* m) {
  return Parse<fb::TokensReply>(bytes, [&](const fb::TokensReply& p, Fields& f) {
    m->tokens = f.Elements(p.tokens(), kTokensMax, "tokens");
  });
}

std::string Encode(const PrefixReply& m) {
  Builder b;
  return Finish(
      b, fb::CreatePrefixReply(b, static_cast<uint32_t>(m.prefix.document), m.prefix.tokens));
}
Status Decode(std::string_view bytes, PrefixReply* m) {
  return Parse<fb::PrefixReply>(bytes, [&](const fb::PrefixReply& p, Fields&) {
    m->prefix = {.document = DocumentId{p.document()}, .tokens = p.tokens()};
  });
}

std::string Encode(const ForgetReply&) {
  Builder b;
  return Finish(b, fb::CreateForgetReply(b));
}
Status Decode(std::string_view bytes, ForgetReply*) {
  return Parse<fb::ForgetReply>(bytes, [](const fb::ForgetReply&, Fields&) {});
}

std::string Encode(const StatReply& m) {
  Builder b;
  return Finish(b, fb::CreateStatReply(b, m.documents, m.tokens, m.disk_bytes));
}
Status Decode(std::string_view bytes, StatReply* m) {
  return Parse<fb::StatReply>(bytes, [&](const fb::StatReply& p, Fields&) {
    *m = {.documents = p.documents(), .tokens = p.tokens(), .disk_bytes = p.disk_bytes()};
  });
}

std::string Encode(const PingReply& m) {
  Builder b;
  return Finish(b, fb::CreatePingReply(b, m.hash));
}
Status Decode(std::string_view bytes, PingReply* m) {
  return Parse<fb::PingReply>(bytes, [&](const fb::PingReply& p, Fields&) { m->hash = p.hash(); });
}

std::string Encode(const ErrorReply& m) {
  LH_CHECK(!m.status.ok());
  Builder b;
  const auto message = b.CreateString(m.status.message().substr(0, kErrorBytesMax));
  return Finish(b, fb::CreateErrorReply(b, static_cast<uint8_t>(m.status.code()), message));
}
Status Decode(std::string_view bytes, ErrorReply* m) {
  return Parse<fb::ErrorReply>(bytes, [&](const fb::ErrorReply& p, Fields& f) {
    // A code of a later version, or 0, is an error all the same.
    const bool known = p.code() >= 1 && p.code() <= static_cast<uint8_t>(StatusCode::kInternal);
    m->status = {known ? static_cast<StatusCode>(p.code()) : StatusCode::kInternal,
                 f.Text(p.message(), kErrorBytesMax, "message")};
  });
}

}  // namespace longhold::wire
