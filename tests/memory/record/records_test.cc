// Compares records with themselves after a round trip, and tests them against damage.
//
// Every record is cut at every byte and has every bit flipped. Each case must be data_loss (the
// checksum detects it), never a crash and never another record. Then the checksum is made right
// again over damaged bytes. So the verifier and the later checks must find what a hostile or faulty
// writer left; any result but a crash is right. Sizes: records of some hundred bytes, so that all
// of this takes well under a second.
#include "memory/record/records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>

#include "base/hash.h"
#include "store/compress.h"

namespace longhold {
namespace {

using testing::HasSubstr;

constexpr size_t kHeaderBytes = 12;  // "LHR", encoding, XXH3-64 of the body

Manifest SomeManifest() {
  Manifest m;
  m.name = "genesis";
  m.model_name = "Toy 1B";
  m.model_architecture = "toy";
  m.model_fingerprint = "0123456789abcdef";
  m.layers = {5, 11, 17};
  m.q_heads = 4;
  m.kv_heads = 2;
  m.head_dim = 256;
  m.codec = "exact";
  m.profile = "toy-1b";
  m.scan_layers = {11, 17};
  m.scan_kv_heads = {1, 0};
  m.sink_tokens = 64;
  m.window_tokens = 256;
  m.next_document = 7;
  return m;
}

DocumentRecord SomeDocument() {
  DocumentRecord d;
  d.id = DocumentId{12};
  d.name = "livre é 日本.txt";
  d.sha256 = std::string(64, 'a');
  d.version = 3;
  d.bytes = 80000;
  d.tokens = 100005;
  d.committed_tokens = 99968;
  d.chunk_tokens = {0, 8000, 60000};
  d.pass_tokens = 1024;
  d.assistant_begin = 3;
  d.aliases = {"copy", "é"};
  return d;
}

TextChunk SomeChunk() {
  TextChunk c;
  c.byte_begin = 1ull << 35;
  c.line_begin = 1ull << 34;
  c.token_begin = 1ull << 33;
  c.text = std::string("In the\0beginning é\n", 20);
  c.tokens = {256, 0, 49151, -1};
  c.token_bytes = {0, 6, 1, 13};
  return c;
}

ResumeRecord SomeResume() { return {4096, std::string("\0native\xff", 8)}; }

struct Kind {
  const char* name;
  std::string bytes;
  std::function<Status(std::string_view)> decode;
};

std::vector<Kind> Kinds() {
  return {
      {"manifest", Encode(SomeManifest()),
       [](std::string_view b) { return DecodeManifest(b).status(); }},
      {"document", Encode(SomeDocument()),
       [](std::string_view b) { return DecodeDocument(b).status(); }},
      {"text", Encode(SomeChunk()), [](std::string_view b) { return DecodeTextChunk(b).status(); }},
      {"resume", Encode(SomeResume()),
       [](std::string_view b) { return DecodeResume(b).status(); }}};
}

// The record with `body` in place of its own, under a right checksum.
std::string Sealed(char encoding, std::string_view body) {
  std::string out = "LHR";
  out += encoding;
  const uint64_t hash = Hash64(body);
  for (int i = 0; i < 8; ++i) out += static_cast<char>(hash >> (8 * i));
  return out + std::string(body);
}

// Extracts the flatbuffer inside, and makes a record from one.
std::string Flat(const std::string& bytes) {
  const std::string body = bytes.substr(kHeaderBytes);
  return bytes[3] == '1' ? *Decompress(body, 1 << 20) : body;
}
std::string FromFlat(const std::string& like, const std::string& flat) {
  return Sealed(like[3], like[3] == '1' ? Compress(flat) : flat);
}

TEST(Records, ManifestRoundTrips) {
  const Manifest m = SomeManifest();
  const Result<Manifest> r = DecodeManifest(Encode(m));
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  EXPECT_EQ(r->name, m.name);
  EXPECT_EQ(r->model_name, m.model_name);
  EXPECT_EQ(r->model_architecture, m.model_architecture);
  EXPECT_EQ(r->model_fingerprint, m.model_fingerprint);
  EXPECT_EQ(r->layers, m.layers);
  EXPECT_EQ(r->q_heads, m.q_heads);
  EXPECT_EQ(r->kv_heads, m.kv_heads);
  EXPECT_EQ(r->head_dim, m.head_dim);
  EXPECT_EQ(r->codec, m.codec);
  EXPECT_EQ(r->profile, m.profile);
  EXPECT_EQ(r->scan_layers, m.scan_layers);
  EXPECT_EQ(r->scan_kv_heads, m.scan_kv_heads);
  EXPECT_EQ(r->sink_tokens, m.sink_tokens);
  EXPECT_EQ(r->window_tokens, m.window_tokens);
  EXPECT_EQ(r->next_document, m.next_document);
  EXPECT_EQ(r->index_generation, m.index_generation);
  EXPECT_EQ(DecodeManifest(Encode(Manifest{})).status().code(), StatusCode::kDataLoss)
      << "a memory has a shape";
  Manifest reindexed = m;
  reindexed.index_generation = 3;
  EXPECT_EQ(DecodeManifest(Encode(reindexed))->index_generation, 3u);
}

TEST(Records, DocumentRoundTrips) {
  DocumentRecord d = SomeDocument();  // lengths that need more than 32 bits
  d.bytes = 1ull << 33;
  d.tokens = (1ull << 33) + 5;
  d.committed_tokens = 1ull << 33;
  d.chunk_tokens.clear();
  for (uint64_t begin = 0; begin <= 1ull << 33; begin += 32768) d.chunk_tokens.push_back(begin);
  const Result<DocumentRecord> r = DecodeDocument(Encode(d));
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  EXPECT_EQ(r->id, d.id);
  EXPECT_EQ(r->name, d.name);
  EXPECT_EQ(r->sha256, d.sha256);
  EXPECT_EQ(r->version, d.version);
  EXPECT_EQ(r->bytes, d.bytes);
  EXPECT_EQ(r->tokens, d.tokens);
  EXPECT_EQ(r->committed_tokens, d.committed_tokens);
  EXPECT_EQ(r->chunk_tokens, d.chunk_tokens);
  EXPECT_EQ(r->pass_tokens, d.pass_tokens);
  EXPECT_EQ(r->assistant_begin, d.assistant_begin);
  EXPECT_EQ(r->aliases, d.aliases);
  EXPECT_FALSE(r->complete());
  EXPECT_TRUE(r->HasName("copy") && r->HasName(d.name) && !r->HasName("cop"));
  // Older builds did not write this field, and ingested in passes of 512 tokens.
  DocumentRecord old = d;
  old.pass_tokens = 0;
  EXPECT_EQ(DecodeDocument(Encode(old))->pass_tokens, 512u);
}

TEST(Records, TextChunkRoundTrips) {
  for (TextChunk c : {SomeChunk(), TextChunk{}}) {
    const Result<TextChunk> r = DecodeTextChunk(Encode(c));
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    EXPECT_EQ(r->byte_begin, c.byte_begin);
    EXPECT_EQ(r->line_begin, c.line_begin);
    EXPECT_EQ(r->token_begin, c.token_begin);
    EXPECT_EQ(r->text, c.text);
    EXPECT_EQ(r->tokens, c.tokens);
    EXPECT_EQ(r->token_bytes, c.token_bytes);
  }
}

TEST(Records, ResumeStateRoundTrips) {
  for (const ResumeRecord& s :
       {SomeResume(), ResumeRecord{}, ResumeRecord{1ull << 40, std::string(3 << 20, 'x')}}) {
    const Result<ResumeRecord> r = DecodeResume(Encode(s));
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    EXPECT_EQ(r->tokens, s.tokens);
    EXPECT_EQ(r->native, s.native);
  }
}

TEST(Records, EqualRecordsHaveEqualBytes) {
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(Kinds()[i].bytes, Kinds()[i].bytes);
}

TEST(Records, TruncationAnywhereIsDataLoss) {
  for (const Kind& kind : Kinds()) {
    ASSERT_TRUE(kind.decode(kind.bytes).ok());
    for (size_t n = 0; n < kind.bytes.size(); ++n) {
      ASSERT_EQ(kind.decode(std::string_view(kind.bytes).substr(0, n)).code(),
                StatusCode::kDataLoss)
          << kind.name << " cut at " << n;
    }
    EXPECT_EQ(kind.decode(kind.bytes + '\0').code(), StatusCode::kDataLoss) << kind.name;
  }
}

TEST(Records, EveryFlippedBitIsDataLoss) {
  for (const Kind& kind : Kinds()) {
    for (size_t bit = 0; bit < kind.bytes.size() * 8; ++bit) {
      std::string bytes = kind.bytes;
      bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
      ASSERT_EQ(kind.decode(bytes).code(), StatusCode::kDataLoss) << kind.name << " bit " << bit;
    }
  }
}

TEST(Records, AnotherKindOfRecordIsDataLoss) {
  const std::vector<Kind> kinds = Kinds();
  for (const Kind& a : kinds) {
    for (const Kind& b : kinds) {
      if (a.name == b.name) continue;
      const Status status = a.decode(b.bytes);
      EXPECT_EQ(status.code(), StatusCode::kDataLoss) << a.name << " from " << b.name;
      EXPECT_THAT(status.message(), HasSubstr(a.name));
    }
  }
}

TEST(Records, HostileBytesUnderARightChecksumDoNotCrash) {
  constexpr uint64_t kSeed = 5;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 rng(kSeed);
  for (const Kind& kind : Kinds()) {
    const std::string flat = Flat(kind.bytes);
    for (size_t at = 0; at < flat.size(); ++at) {
      for (const uint8_t value :
           {uint8_t{0}, uint8_t{1}, uint8_t{0x7f}, uint8_t{0xff},
            static_cast<uint8_t>(flat[at] ^ 4), static_cast<uint8_t>(rng())}) {
        std::string damaged = flat;
        damaged[at] = static_cast<char>(value);
        const StatusCode code = kind.decode(FromFlat(kind.bytes, damaged)).code();
        EXPECT_TRUE(code == StatusCode::kOk || code == StatusCode::kDataLoss ||
                    code == StatusCode::kFailedPrecondition);
      }
    }
    for (size_t n = 0; n < flat.size(); n += 3) {
      EXPECT_EQ(kind.decode(FromFlat(kind.bytes, flat.substr(0, n))).code(), StatusCode::kDataLoss)
          << kind.name << " cut at " << n;
    }
    // Bytes that are not zstd data, and a truncated zstd frame.
    EXPECT_EQ(kind.decode(Sealed('1', flat)).code(), StatusCode::kDataLoss);
    const std::string packed = Compress(flat);
    for (size_t n = 0; n < packed.size(); n += 2)
      EXPECT_EQ(kind.decode(Sealed('1', packed.substr(0, n))).code(), StatusCode::kDataLoss);
    EXPECT_EQ(kind.decode(Sealed('2', flat)).code(), StatusCode::kDataLoss);
  }
}

TEST(Records, EitherEncodingOfARecordIsRead) {
  for (const Kind& kind : Kinds()) {
    EXPECT_TRUE(kind.decode(Sealed('0', Flat(kind.bytes))).ok()) << kind.name;
    EXPECT_TRUE(kind.decode(Sealed('1', Compress(Flat(kind.bytes)))).ok()) << kind.name;
  }
}

// `format` is the one 32-bit integer of SomeManifest() whose value 3 makes it refused.
TEST(Records, ManifestOfANewerFormatIsRefusedWithTheReason) {
  const std::string bytes = Encode(SomeManifest()), flat = Flat(bytes);
  int refused = 0;
  for (size_t at = 0; at + 4 <= flat.size(); at += 4) {
    uint32_t value;
    std::memcpy(&value, flat.data() + at, sizeof value);
    if (value != 1) continue;
    std::string newer = flat;
    newer[at] = 3;
    const Status status = DecodeManifest(FromFlat(bytes, newer)).status();
    if (status.code() != StatusCode::kFailedPrecondition) continue;
    ++refused;
    EXPECT_THAT(status.message(), HasSubstr("format 3"));
    EXPECT_THAT(status.message(), HasSubstr("newer longhold"));
  }
  EXPECT_EQ(refused, 1);
}

TEST(Records, ContradictionsInsideARecordAreDataLoss) {
  Manifest m = SomeManifest();
  m.scan_layers = {1};
  EXPECT_EQ(DecodeManifest(Encode(m)).status().code(), StatusCode::kDataLoss);
  m.scan_layers = {1, 17};  // no block holds layer 17
  EXPECT_EQ(DecodeManifest(Encode(m)).status().code(), StatusCode::kDataLoss);
  m = SomeManifest();
  m.scan_kv_heads = {2, 0};
  EXPECT_EQ(DecodeManifest(Encode(m)).status().code(), StatusCode::kDataLoss);

  TextChunk c = SomeChunk();
  c.token_bytes = {0, 6, 1, 12};
  EXPECT_EQ(DecodeTextChunk(Encode(c)).status().code(), StatusCode::kDataLoss);
  c = SomeChunk();
  c.tokens.pop_back();
  EXPECT_EQ(DecodeTextChunk(Encode(c)).status().code(), StatusCode::kDataLoss);

  // Each of these would make a reader index past an array, or continue in the middle of a block.
  const auto document = [](const std::function<void(DocumentRecord&)>& change) {
    DocumentRecord d = SomeDocument();
    change(d);
    return DecodeDocument(Encode(d)).status().code();
  };
  EXPECT_EQ(document([](DocumentRecord& d) { d.committed_tokens = d.tokens; }), StatusCode::kOk);
  EXPECT_EQ(document([](DocumentRecord& d) { d.committed_tokens = d.tokens + 1; }),
            StatusCode::kDataLoss);
  EXPECT_EQ(document([](DocumentRecord& d) { d.committed_tokens = d.tokens - 1; }),
            StatusCode::kDataLoss);
  EXPECT_EQ(document([](DocumentRecord& d) { d.assistant_begin = d.tokens + 1; }),
            StatusCode::kDataLoss);
  EXPECT_EQ(document([](DocumentRecord& d) { d.pass_tokens = 500; }), StatusCode::kDataLoss);
  EXPECT_EQ(document([](DocumentRecord& d) { d.pass_tokens = 32; }), StatusCode::kDataLoss);
  EXPECT_EQ(document([](DocumentRecord& d) { d.pass_tokens = 8192; }), StatusCode::kDataLoss);
  EXPECT_EQ(document([](DocumentRecord& d) { d.chunk_tokens = {}; }), StatusCode::kDataLoss);
  EXPECT_EQ(document([](DocumentRecord& d) { d.chunk_tokens[0] = 1; }), StatusCode::kDataLoss);
  EXPECT_EQ(document([](DocumentRecord& d) { std::swap(d.chunk_tokens[1], d.chunk_tokens[2]); }),
            StatusCode::kDataLoss);
  EXPECT_EQ(document([](DocumentRecord& d) { d.chunk_tokens[2] = d.tokens; }),
            StatusCode::kDataLoss);
}

}  // namespace
}  // namespace longhold
