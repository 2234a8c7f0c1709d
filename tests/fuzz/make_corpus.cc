// Writes the initial corpora of tests/fuzz with our own encoders: make_corpus DIR. libFuzzer adds
// what it finds (scripts/fuzz).
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "attention/kernels.h"
#include "attention/rope.h"
#include "memory/index/lexical_index.h"
#include "memory/index/segment_keys.h"
#include "memory/index/summaries.h"
#include "memory/model/recall_profile.h"
#include "store/compress.h"
#include "store/symbol_coder.h"
#include "store/transfer.h"
#include "tests/fuzz/export_stream.h"
#include "tests/fuzz/fuzz_shape.h"
#include "tests/fuzz/toy_memory.h"
#include "tests/support/wire_samples.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

class Corpus {
 public:
  explicit Corpus(fs::path directory) : directory_(std::move(directory)) {}

  void Add(const std::string& harness, const std::string& name, std::string_view bytes) {
    fs::create_directories(directory_ / harness);
    std::ofstream(directory_ / harness / ("seed-" + name), std::ios::binary | std::ios::trunc)
        << bytes;
  }
  // Prefixes the byte that selects the kind.
  void Add(const std::string& harness, uint8_t kind, const std::string& name,
           std::string_view bytes) {
    Add(harness, name, std::string(1, static_cast<char>(kind)) + std::string(bytes));
  }

 private:
  fs::path directory_;
};

std::string Exported(ColdStore& store) {
  std::string bytes;
  LH_CHECK(ExportStore(store, "toy", [&](std::string_view piece) {
             bytes += piece;
             return OkStatus();
           }).ok());
  return bytes;
}

void AddExports(Corpus* corpus) {
  corpus->Add("export", "exact", Exported(*FuzzMemory("exact", 400, false)));
  corpus->Add("export", "k5v4", Exported(*FuzzMemory("k5v4", 300, false)));
  corpus->Add("export", "lists", Exported(*FuzzMemory("k5v4", 600, true)));
  // Enough text to learn a basis. Leaves out most of the blocks that it was learned from, and the
  // index segments of all of them.
  ExportedMemory archive = ParseExport(Exported(*FuzzMemory("archive", 4600, false)));
  std::erase_if(archive.values, [](const ExportedMemory::Value& v) {
    const auto table = static_cast<Table>(v.table);
    if (table != Table::kBlocks && table != Table::kIndex) return false;
    const uint32_t document = ReadBigEndian32(v.key),
                   number = ReadBigEndian32(std::string_view(v.key).substr(4));
    return document == 1 &&
           (table == Table::kBlocks ? number > 3 : number == 0 && v.key.ends_with('S'));
  });
  corpus->Add("export", "archive", MendedExport(std::move(archive)));
  corpus->Add("export", "empty", Exported(*NewMemStore()));
}

void AddRecords(Corpus* corpus) {
  Manifest manifest = FuzzManifest();
  manifest.name = "toy";
  manifest.model_fingerprint = "0123456789abcdef";
  manifest.codec = "k5v4";
  manifest.sink_tokens = manifest.window_tokens = 64;
  corpus->Add("records", 0, "manifest", Encode(manifest));
  DocumentRecord document{.id = DocumentId{1},
                          .name = "a",
                          .aliases = {"b"},
                          .sha256 = std::string(64, '0'),
                          .bytes = 300,
                          .tokens = 200,
                          .committed_tokens = 128,
                          .chunk_tokens = {0, 100},
                          .pass_tokens = 64,
                          .assistant_begin = 30};
  corpus->Add("records", 1, "document", Encode(document));
  const TextChunk chunk{.byte_begin = 3,
                        .line_begin = 1,
                        .token_begin = 2,
                        .text = "one two\n",
                        .tokens = {5, 6, 7},
                        .token_bytes = {3, 4, 1}};
  corpus->Add("records", 2, "text", Encode(chunk));
  // Uncompressed: the harness compresses it.
  const std::string encoded = Encode(chunk);
  corpus->Add("records", 0x82, "text-plain",
              encoded.substr(0, 12) + *Decompress(std::string_view(encoded).substr(12), 4096));
  corpus->Add(
      "records", 3, "resume",
      Encode(ResumeRecord{.tokens = 64, .native = "native", .window = "window", .keys = "keys"}));
}

void AddSegments(Corpus* corpus) {
  SegmentKeys keys(FuzzManifest());
  keys.Append(FuzzBlock(64, 1), 64);
  keys.Append(FuzzBlock(9, 2), 9);
  corpus->Add("segments", 0, "scan", keys.Build(DocumentId{1}, 64)->Encode());
  const ToyModel model(FuzzToy());
  const LexicalVocabulary vocabulary(model.pieces());
  const std::vector<TokenId> tokens = *model.Tokenize(FuzzText(300), false);
  corpus->Add("segments", 1, "lexical",
              LexicalSegment::Build(vocabulary, DocumentId{1}, 64, std::span(tokens).first(16),
                                    std::span(tokens).subspan(16))
                  .Encode());
  const KvGeometry geometry = FuzzGeometry();
  SummarySegment summaries = SummarySegment::Of(DocumentId{1}, 0, geometry);
  summaries.Append(FuzzBlock(64, 1), 64, RopeTables(geometry, kBlockTokens));
  summaries.AppendLost();
  corpus->Add("segments", 2, "summaries", summaries.Encode());
  IvfSegment lists{.document = DocumentId{1},
                   .head = 0,
                   .head_dim = 8,
                   .tokens = 11,
                   .keys_hash = 7,
                   .list_begin = {0, 4, 10},
                   .order = {1, 3, 5, 7, 2, 4, 6, 8, 9, 10},
                   .mean = {},
                   .variance = {}};
  lists.mean.assign(16, 0.5f);
  lists.variance.assign(16, 0.25f);
  corpus->Add("segments", 3, "lists", lists.Encode());
}

void Multiply(const float* a, const float* b, float* out, uint32_t rows, uint32_t depth,
              uint32_t columns) {
  Kernels().multiply_add(
      {.a = a, .b = b, .out = out, .rows = rows, .depth = depth, .columns = columns});
}

// The parts of a block's payload, each with a two-byte length, as the blocks harness reads them.
std::string WithLengths(std::string_view payload, size_t lengths_at, size_t count,
                        bool compressed) {
  std::string out;
  size_t at = lengths_at + count * sizeof(uint32_t);
  for (size_t p = 0; p < count; ++p) {
    uint32_t bytes = 0;
    std::memcpy(&bytes, payload.data() + lengths_at + p * sizeof bytes, sizeof bytes);
    std::string part(payload.substr(at, bytes));
    at += bytes;
    if (compressed) part = *Decompress(part, 1u << 20);
    const auto length = static_cast<uint16_t>(part.size());
    out.append(reinterpret_cast<const char*>(&length), sizeof length);
    out += part;
  }
  return out;
}

void AddBlocks(Corpus* corpus) {
  const TransformBasis basis = FuzzBasis(Multiply);
  const auto archive = NewTransformCodec(std::string(kArchiveCodec),
                                         std::make_shared<const TransformBasis>(basis), Multiply);
  KvBlock odd = FuzzBlock(3, 5);  // what codecs store verbatim
  odd.Keys(0)[0] = 0x7C00;
  odd.Keys(1)[1] = 0x7E00;
  odd.Values(0)[2] = 0x7BFF;
  for (const BlockCodec* codec :
       std::vector<const BlockCodec*>{&ExactCodec(), FindCodec("k5v4"), archive.get()}) {
    const std::string name(codec->name());
    corpus->Add("blocks", 0, name, codec->Encode(FuzzBlock(9, 3)));
    corpus->Add("blocks", 0, name + "-odd", codec->Encode(odd));
  }
  constexpr size_t kHeader = 32;
  const std::string rounded = FindCodec("k5v4")->Encode(odd).substr(kHeader);
  uint32_t count = 0;
  std::memcpy(&count, rounded.data(), sizeof count);
  corpus->Add(
      "blocks", 1, "rounded-parts",
      std::string{3, static_cast<char>(count)} + WithLengths(rounded, sizeof count, count, true));
  corpus->Add("blocks", 2, "archive-parts",
              std::string{3} + WithLengths(archive->Encode(odd).substr(kHeader), sizeof(uint64_t),
                                           2 + TransformBasis::kClasses, false));
  corpus->Add("blocks", 3, "basis", basis.Encode());
  std::string coded;
  const std::vector<uint8_t> symbols = {1, 1, 1, 1, 2, 1, 1, 9, 1, 1, 1, 2};
  EncodeSymbols(symbols, &coded);
  corpus->Add("blocks", 4, "symbols", std::string{static_cast<char>(symbols.size()), 0} + coded);
}

void AddJson(Corpus* corpus) {
  corpus->Add(
      "json", 0, "object",
      R"({"a": -1.5e3, "b": [1, {"c": null}], "d": "\u00e9\ud83d\ude00", "timeout": 3, "attend": "faithful", "e": 9223372036854775807, "f": true})");
  corpus->Add(
      "json", 1, "chat",
      R"({"model":"toy@tales","messages":[{"role":"system","content":"short"},{"role":"user","content":[{"type":"text","text":"one END two"}]}],"stop":["END","\n"],)"
      R"("max_tokens":7,"temperature":0.5,"top_p":0.9,"seed":4294967295,"logprobs":true,"top_logprobs":3,"stream":true,"stream_options":{"include_usage":true},)"
      R"("session":"s","citations":"char_location","attend":"faithful","attend_share":0.2,"timeout":2,"abstain":false,"n":1,"tools":[]})");
  corpus->Add(
      "json", 2, "completion",
      R"({"model":"toy","memory":"tales","prompt":["What is it?"],"logprobs":5,"stop":"it","echo":false,"max_completion_tokens":100000})");
  const auto request = [&](uint8_t route, const std::string& name, const std::string& body) {
    corpus->Add("json", 3, "request-" + name, std::string(1, static_cast<char>(route)) + body);
  };
  request(0, "chat", R"({"model":"toy@tales","messages":[{"role":"user","content":"What?"}]})");
  request(2, "embeddings",
          R"({"model":"e","input":["a","b"],"encoding_format":"float","dimensions":384})");
  request(3, "memories", R"({"name":"m","codec":"exact"})");
  request(4, "documents", R"({"name":"n","text":"some text"})");
  request(4, "documents-upload", R"({"name":"n","upload":"00112233445566778899aabbccddeeff"})");
  request(0x84, "documents-plain", "some text");
  request(5, "recall", R"({"query":"q","spans":3,"explain":true,"abstain":false,"timeout":1})");
  request(
      6, "ask",
      R"({"question":"q","max_tokens":9,"system":"s","attend":"focused","seed":1,"temperature":1})");
  request(7, "import", R"({"upload":"00112233445566778899aabbccddeeff"})");
  request(8, "uploads", R"({"length":123456789})");
  RecallProfile profile = FuzzProfile();
  profile.architecture = "toy";
  profile.layer_count = profile.q_heads = profile.kv_heads = profile.vocab_size = 4;
  profile.head_dim = 8;
  profile.calibration = R"({"at":1})";
  corpus->Add("json", 4, "profile", profile.ToJson());
  corpus->Add(
      "json", 5, "keys",
      R"({"version":2,"keys":[{"name":"k","scope":"write","sha256":"5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9","created":1700000000,"expires":0,"tenant":"t"}],)"
      R"("tenants":[{"tenant":"t","requests_per_minute":60,"tokens_per_day":1000,"documents":3,"disk_bytes":1000000}]})");
  corpus->Add("json", 6, "accepted",
              "{\"version\":1,\"memory\":\"tales\",\"name\":\"n\",\"hash\":\"\"}\nSome text.\n");
  corpus->Add("json", 7, "config",
              "home = \"~/x\"\nmodel = \"smollm2\"\nthreads = 3\nmemory_budget = "
              "\"512MiB\"\nlisten = \"[::1]:8420\"\ntls_key = 'a.pem'\n");
  corpus->Add("json", 8, "text",
              "a\xc3\xa9\xe6\x97\xa5\xf0\x9f\x98\x80 \x1b[31m\t%41%2f+ 12.5MiB [::1]:99");
}

template <typename T>
std::string Bytes(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string Text(const std::string& text) { return Bytes(uint64_t{text.size()}) + text; }

// A header that CheckGguf accepts, with one value of each type.
void AddGguf(Corpus* corpus) {
  const auto number = [](const std::string& key, uint32_t value) {
    return Text(key) + Bytes(uint32_t{4}) + Bytes(value);
  };
  std::string values = Text("general.architecture") + Bytes(uint32_t{8}) + Text("llama");
  uint64_t count = 1;
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, uint32_t>>{{"block_count", 2},
                                                     {"context_length", 64},
                                                     {"embedding_length", 8},
                                                     {"attention.head_count", 2},
                                                     {"attention.head_count_kv", 1},
                                                     {"rope.dimension_count", 4},
                                                     {"attention.sliding_window", 32},
                                                     {"expert_count", 4},
                                                     {"expert_used_count", 2}}) {
    values += number("llama." + key, value);
    ++count;
  }
  values += Text("llama.rope.freq_base") + Bytes(uint32_t{6}) + Bytes(10000.0f);
  values += Text("llama.rope.scaling.type") + Bytes(uint32_t{8}) + Text("yarn");
  values += Text("tokenizer.ggml.model") + Bytes(uint32_t{8}) + Text("gpt2");
  values += Text("tokenizer.ggml.tokens") + Bytes(uint32_t{9}) + Bytes(uint32_t{8}) +
            Bytes(uint64_t{3}) + Text("a") + Text("") + Text("b");
  values += Text("tokenizer.ggml.token_type") + Bytes(uint32_t{9}) + Bytes(uint32_t{5}) +
            Bytes(uint64_t{3}) + Bytes(1) + Bytes(1) + Bytes(3);
  values += number("tokenizer.ggml.bos_token_id", 0) + number("tokenizer.ggml.eos_token_id", 2);
  count += 7;
  std::string tensors = Text("token_embd.weight") + Bytes(uint32_t{2}) + Bytes(uint64_t{8}) +
                        Bytes(uint64_t{3}) + Bytes(uint32_t{0}) + Bytes(uint64_t{0});
  corpus->Add("gguf", "header",
              "GGUF" + Bytes(uint32_t{3}) + Bytes(uint64_t{1}) + Bytes(count) + values + tensors);
}

// One request of a connection, as the harness reads it.
std::string WireRequest(wire::FrameType type, const std::string& message,
                        const std::string& payload = "") {
  std::string bytes = {static_cast<char>(static_cast<int>(type) - 1), '\0'};
  for (const size_t n : {message.size(), payload.size()})
    bytes += {static_cast<char>(n), static_cast<char>(n >> 8)};
  return bytes + message + payload;
}

void AddWire(Corpus* corpus) {
  std::string all;
  for (const wire::SampleFrame& sample : wire::SampleFrames()) {
    const std::string number = std::to_string(static_cast<int>(sample.type));
    const std::string frame = EncodeFrame(sample.type, 0, 7, sample.message, sample.payload_bytes);
    if (sample.type == wire::FrameType::kPutRows)
      corpus->Add("wire", 0, "header", frame.substr(0, wire::kHeaderBytes));
    corpus->Add("wire", 1, "message-" + number,
                std::string(1, static_cast<char>(sample.type)) + sample.message);
    if (wire::IsRequest(sample.type))
      all += WireRequest(sample.type, sample.message, std::string(sample.payload_bytes, '\x31'));
  }
  corpus->Add("wire", 2, "samples", all);
  // A document that is put, planned from, fetched and forgotten. 32 bytes are a token's rows.
  using wire::FrameType;
  const wire::PutBeginRequest document{
      .memory = "m", .name = "d.txt", .text = "aaaa", .tokens = {97, 97, 97, 97}};
  corpus->Add(
      "wire", 2, "document",
      WireRequest(FrameType::kPutBegin, Encode(document)) +
          WireRequest(FrameType::kPutRows, Encode(wire::PutRowsRequest{.writer = 1, .tokens = 4}),
                      std::string(4 * 32, '\x31')) +
          WireRequest(FrameType::kPutFinish, Encode(wire::PutFinishRequest{1})) +
          WireRequest(FrameType::kPlan, Encode(wire::PlanRequest{.memory = "m", .query_tokens = 1}),
                      std::string(32, '\x31')) +
          WireRequest(
              FrameType::kFetch,
              Encode(wire::FetchRequest{
                  .memory = "m", .places = {{DocumentId{1}, {0, 4}, 9}}, .rotated = true})) +
          WireRequest(FrameType::kTokens, Encode(wire::TokensRequest{"m", DocumentId{1}, {1, 3}})) +
          WireRequest(FrameType::kPrefix, Encode(wire::PrefixRequest{"m", {97, 97}})) +
          WireRequest(FrameType::kForget, Encode(wire::ForgetRequest{"m", "d.txt"})));
}

}  // namespace
}  // namespace longhold

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_corpus DIR\n");
    return 2;
  }
  longhold::Corpus corpus(argv[1]);
  longhold::AddExports(&corpus);
  longhold::AddRecords(&corpus);
  longhold::AddSegments(&corpus);
  longhold::AddBlocks(&corpus);
  longhold::AddJson(&corpus);
  longhold::AddGguf(&corpus);
  longhold::AddWire(&corpus);
}
