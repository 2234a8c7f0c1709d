#include "memory/record/records.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

#include "attention/geometry.h"
#include "base/hash.h"
#include "memory/model/recall_profile.h"
#include "proto/records_generated.h"
#include "store/compress.h"

namespace longhold {
namespace {

static_assert(std::endian::native == std::endian::little, "flatbuffers are little-endian");
constexpr char kMagic[] = "LHR";
constexpr char kPlain = '0';
constexpr char kZstd = '1';
constexpr size_t kHeaderBytes = 3 + 1 + 8;
// The newest format that this version reads. A manifest is written in the oldest format that can
// express it, so that older versions can read it if possible.
constexpr uint32_t kFormat = 2;
// Document records without this field: the pass length was always 512.
constexpr uint32_t kPassTokensBefore = 512;

template <typename T>
std::string Finish(flatbuffers::FlatBufferBuilder& b, proto::Record type,
                   flatbuffers::Offset<T> record, bool compress) {
  proto::FinishEnvelopeBuffer(b, proto::CreateEnvelope(b, type, record.Union()));
  const std::string_view raw(reinterpret_cast<const char*>(b.GetBufferPointer()), b.GetSize());
  const std::string body = compress ? Compress(raw) : std::string(raw);
  std::string out = kMagic;
  out += compress ? kZstd : kPlain;
  const uint64_t hash = Hash64(body);
  for (int i = 0; i < 8; ++i) out += static_cast<char>(hash >> (8 * i));
  return out + body;
}

// Checks everything, then passes the record to `read`. The record's views are valid only during the
// call.
template <typename T, typename Read>
auto Parse(std::string_view bytes, const char* what, Read read)
    -> Result<decltype(read(std::declval<const T&>()))> {
  const auto bad = [&](const char* why) { return DataLoss(std::string(what) + " record: " + why); };
  if (bytes.size() < kHeaderBytes || bytes.substr(0, 3) != kMagic) return bad("wrong magic");
  uint64_t hash = 0;
  for (int i = 0; i < 8; ++i) hash |= uint64_t{static_cast<uint8_t>(bytes[4 + i])} << (8 * i);
  const std::string_view body = bytes.substr(kHeaderBytes);
  if (Hash64(body) != hash) return bad("checksum mismatch");
  std::string raw;
  if (bytes[3] == kZstd) {
    LH_ASSIGN_OR_RETURN(raw, Decompress(body, kTextRecordBytesMax));
  } else if (bytes[3] == kPlain) {
    raw = body;
  } else {
    return bad("unknown encoding");
  }
  flatbuffers::Verifier verifier(reinterpret_cast<const uint8_t*>(raw.data()), raw.size(),
                                 /*max_depth=*/8, /*max_tables=*/16);
  if (!proto::VerifyEnvelopeBuffer(verifier)) return bad("not a valid flatbuffer");
  const T* record = proto::GetEnvelope(raw.data())->template record_as<T>();
  if (record == nullptr) return bad("is of another kind");
  return read(*record);
}

std::string Text(const flatbuffers::String* s) { return s == nullptr ? "" : s->str(); }

// Copied as bytes, because the elements may be unaligned: the verifier only checks the alignment of
// a vector's length.
template <typename T>
std::vector<T> Elements(const flatbuffers::Vector<T>* v) {
  std::vector<T> elements(v == nullptr ? 0 : v->size());
  if (!elements.empty()) std::memcpy(elements.data(), v->Data(), elements.size() * sizeof(T));
  return elements;
}

std::string Bytes(const flatbuffers::Vector<uint8_t>* v) {
  return v == nullptr ? "" : std::string(reinterpret_cast<const char*>(v->data()), v->size());
}

flatbuffers::Offset<flatbuffers::Vector<uint8_t>> Vector(flatbuffers::FlatBufferBuilder& b,
                                                         std::string_view bytes) {
  return b.CreateVector(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

// Checks what every reader of a manifest relies on. Returns null if all is well, else a description
// of the fault.
const char* ManifestFault(const Manifest& m) {
  if (m.layers.empty() || m.layers.size() > kTappedLayersMax) return "number of layers";
  if (std::adjacent_find(m.layers.begin(), m.layers.end(), std::greater_equal<>()) !=
      m.layers.end())
    return "layers";
  if (m.kv_heads == 0 || m.kv_heads > kKvHeadsMax || m.q_heads == 0 || m.q_heads > kKvHeadsMax ||
      m.q_heads % m.kv_heads != 0)
    return "heads";
  if (m.head_dim == 0 || m.head_dim % 4 != 0 || m.head_dim > kMaxHeadDim) return "head size";
  if (uint64_t{m.kv_heads} * m.head_dim * m.layers.size() * 2 * kBlockTokens > kBlockElementsMax)
    return "block size";
  if (m.sink_tokens % kBlockTokens != 0 || m.sink_tokens > kSinkTokensMax) return "sinks";
  if (m.window_tokens % kBlockTokens != 0 || m.window_tokens == 0 ||
      m.window_tokens > kWindowTokensMax)
    return "window";
  if (m.next_document == 0 || m.next_document > kDocumentIdsMax) return "next document";
  if (m.scan_layers.size() != m.scan_kv_heads.size() || m.scan_layers.size() > kScanHeadsMax)
    return "recall heads";
  for (size_t h = 0; h < m.scan_layers.size(); ++h) {
    if (m.scan_kv_heads[h] >= m.kv_heads ||
        !std::binary_search(m.layers.begin(), m.layers.end(), m.scan_layers[h]))
      return "recall heads";
  }
  return nullptr;
}

// The same for a document.
const char* DocumentFault(const DocumentRecord& d) {
  const auto id = static_cast<uint32_t>(d.id);
  if (id == 0 || id >= kDocumentIdsMax) return "id";
  const auto& starts = d.chunk_tokens;
  const bool ascending =
      std::adjacent_find(starts.begin(), starts.end(), std::greater_equal<>()) == starts.end();
  if (starts.empty() || starts.front() != 0 || starts.back() >= d.tokens || !ascending)
    return "text chunks";
  if (d.tokens - starts.back() > kChunkTokensMax || d.tokens > starts.size() * kChunkTokensMax ||
      d.bytes > starts.size() * kChunkBytesMax)
    return "length";
  if (d.committed_tokens > d.tokens || (!d.complete() && d.committed_tokens % kBlockTokens != 0))
    return "committed tokens";
  if (d.searchable_tokens < d.committed_tokens || d.searchable_tokens > d.tokens)
    return "searchable tokens";
  if (d.pass_tokens < kBlockTokens || d.pass_tokens > kCommitTokens ||
      (d.pass_tokens & (d.pass_tokens - 1)) != 0)
    return "pass length";
  if (d.assistant_begin > d.tokens) return "start of the assistant text";
  return nullptr;
}

}  // namespace

std::string Encode(const Manifest& r) {
  flatbuffers::FlatBufferBuilder b;
  const auto name = b.CreateString(r.name), model = b.CreateString(r.model_name),
             arch = b.CreateString(r.model_architecture),
             print = b.CreateString(r.model_fingerprint), codec = b.CreateString(r.codec),
             profile = b.CreateString(r.profile);
  const auto layers = b.CreateVector(r.layers), scan_layers = b.CreateVector(r.scan_layers),
             scan_heads = b.CreateVector(r.scan_kv_heads);
  const uint32_t format = r.index_generation == 0 ? 1 : 2;
  const auto record =
      proto::CreateManifest(b, format, name, model, arch, print, layers, r.q_heads, r.kv_heads,
                            r.head_dim, codec, profile, scan_layers, scan_heads, r.sink_tokens,
                            r.window_tokens, r.next_document, r.index_generation);
  return Finish(b, proto::Record::Manifest, record, false);
}

std::string Encode(const DocumentRecord& r) {
  flatbuffers::FlatBufferBuilder b;
  const auto name = b.CreateString(r.name), sha256 = b.CreateString(r.sha256);
  const auto chunk_tokens = b.CreateVector(r.chunk_tokens);
  const auto aliases = b.CreateVectorOfStrings(r.aliases);
  const auto record =
      proto::CreateDocument(b, static_cast<uint32_t>(r.id), name, sha256, r.version, r.bytes,
                            r.tokens, r.committed_tokens, chunk_tokens, r.pass_tokens, aliases,
                            r.assistant_begin, r.searchable_tokens);
  return Finish(b, proto::Record::Document, record, false);
}

std::string Encode(const TextChunk& r) {
  flatbuffers::FlatBufferBuilder b;
  const auto text = Vector(b, r.text);
  const auto tokens = b.CreateVector(r.tokens);
  const auto token_bytes = b.CreateVector(r.token_bytes);
  const auto record = proto::CreateTextChunk(b, r.byte_begin, r.line_begin, r.token_begin, text,
                                             tokens, token_bytes);
  return Finish(b, proto::Record::TextChunk, record, true);
}

std::string Encode(const ResumeRecord& r) {
  flatbuffers::FlatBufferBuilder b;
  const auto native = Vector(b, r.native), window = Vector(b, r.window), keys = Vector(b, r.keys);
  return Finish(b, proto::Record::Resume, proto::CreateResume(b, r.tokens, native, window, keys),
                false);
}

std::string Encode(const ProvisionalRecord& r) {
  flatbuffers::FlatBufferBuilder b;
  const auto block = Vector(b, r.block);
  return Finish(b, proto::Record::Provisional,
                proto::CreateProvisional(b, r.run_up, r.tokens, block), false);
}

Result<Manifest> DecodeManifest(std::string_view bytes) {
  uint32_t format = 0;
  auto result = Parse<proto::Manifest>(bytes, "manifest", [&](const proto::Manifest& p) {
    format = p.format();
    Manifest r;
    r.name = Text(p.name());
    r.model_name = Text(p.model_name());
    r.model_architecture = Text(p.model_architecture());
    r.model_fingerprint = Text(p.model_fingerprint());
    r.layers = Elements(p.layers());
    r.q_heads = p.q_heads();
    r.kv_heads = p.kv_heads();
    r.head_dim = p.head_dim();
    r.codec = Text(p.codec());
    r.profile = Text(p.profile());
    r.scan_layers = Elements(p.scan_layers());
    r.scan_kv_heads = Elements(p.scan_kv_heads());
    r.sink_tokens = p.sink_tokens();
    r.window_tokens = p.window_tokens();
    r.next_document = p.next_document();
    r.index_generation = p.index_generation();
    return r;
  });
  if (result.ok() && format > kFormat) {
    return FailedPrecondition("this memory was written by a newer longhold (format " +
                              std::to_string(format) + "); use that version");
  }
  if (!result.ok()) return result;
  if (const char* fault = ManifestFault(*result))
    return DataLoss(std::string("manifest record: invalid ") + fault);
  return result;
}

Result<DocumentRecord> DecodeDocument(std::string_view bytes) {
  auto result = Parse<proto::Document>(bytes, "document", [](const proto::Document& p) {
    DocumentRecord r;
    r.id = DocumentId{p.id()};
    r.name = Text(p.name());
    r.sha256 = Text(p.sha256());
    r.version = p.version();
    r.bytes = p.bytes();
    r.tokens = p.tokens();
    r.committed_tokens = p.committed_tokens();
    r.chunk_tokens = Elements(p.chunk_tokens());
    r.pass_tokens = p.pass_tokens() == 0 ? kPassTokensBefore : p.pass_tokens();
    r.assistant_begin = p.assistant_begin();
    // Earlier versions made a text searchable while they read it.
    r.searchable_tokens = std::max(p.searchable_tokens(), r.committed_tokens);
    if (p.aliases() != nullptr) {
      for (const flatbuffers::String* alias : *p.aliases()) r.aliases.push_back(Text(alias));
    }
    return r;
  });
  if (!result.ok()) return result;
  if (const char* fault = DocumentFault(*result))
    return DataLoss(std::string("document record: invalid ") + fault);
  return result;
}

Result<TextChunk> DecodeTextChunk(std::string_view bytes) {
  auto result = Parse<proto::TextChunk>(bytes, "text", [](const proto::TextChunk& p) {
    TextChunk r;
    r.byte_begin = p.byte_begin();
    r.line_begin = p.line_begin();
    r.token_begin = p.token_begin();
    r.text = Bytes(p.text());
    r.tokens = Elements(p.tokens());
    r.token_bytes = Elements(p.token_bytes());
    return r;
  });
  if (!result.ok()) return result;
  size_t sum = 0;
  for (uint16_t n : result->token_bytes) sum += n;
  if (result->tokens.size() > kChunkTokensMax || result->text.size() > kChunkBytesMax)
    return DataLoss("text record: invalid length");
  if (result->tokens.size() != result->token_bytes.size() || sum != result->text.size()) {
    return DataLoss("text record: tokens and bytes disagree");
  }
  return result;
}

Result<ProvisionalRecord> DecodeProvisional(std::string_view bytes) {
  return Parse<proto::Provisional>(bytes, "provisional block", [](const proto::Provisional& p) {
    ProvisionalRecord r;
    r.run_up = p.run_up();
    r.tokens = p.tokens();
    r.block = Bytes(p.block());
    return r;
  });
}

Result<ResumeRecord> DecodeResume(std::string_view bytes) {
  return Parse<proto::Resume>(bytes, "resume", [](const proto::Resume& p) {
    return ResumeRecord{p.tokens(), Bytes(p.native()), Bytes(p.window()), Bytes(p.keys())};
  });
}

}  // namespace longhold
