// GGUF files from a hostile source: what CheckGguf refuses by name, and that the process which
// loads such a file survives.
//
// The first tests write their own headers. The last one damages tiny models (make_tiny_gguf.py). It
// sets every integer and float of the metadata to boundary values, duplicates and truncates tokens,
// and flips seeded random bits of the header. Each file is loaded in a child process, because
// libllama ends the process on some surprises. Whatever becomes of the model, the child must
// return. A model that loads is asked to tokenise, and for every token's text.
#include "model/gguf_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <random>

#include "tests/model/tiny_models.h"

namespace longhold {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

template <typename T>
std::string Bytes(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string String(const std::string& text) { return Bytes(uint64_t{text.size()}) + text; }

// A header with metadata and token_embd.weight, as the format defines it.
struct Gguf {
  std::map<std::string, std::string> metadata;  // type and value, encoded
  std::vector<uint64_t> shape = {8, 3};
  uint32_t type = 0;

  void U32(const std::string& key, uint32_t value) {
    metadata[key] = Bytes(uint32_t{4}) + Bytes(value);
  }
  void F32(const std::string& key, float value) {
    metadata[key] = Bytes(uint32_t{6}) + Bytes(value);
  }
  void Text(const std::string& key, const std::string& value) {
    metadata[key] = Bytes(uint32_t{8}) + String(value);
  }
  void Texts(const std::string& key, const std::vector<std::string>& values) {
    metadata[key] = Bytes(uint32_t{9}) + Bytes(uint32_t{8}) + Bytes(uint64_t{values.size()});
    for (const std::string& value : values) metadata[key] += String(value);
  }
  std::string Encode() const {
    std::string out =
        "GGUF" + Bytes(uint32_t{3}) + Bytes(uint64_t{1}) + Bytes(uint64_t{metadata.size()});
    for (const auto& [key, value] : metadata) out += String(key) + value;
    out += String("token_embd.weight") + Bytes(static_cast<uint32_t>(shape.size()));
    for (const uint64_t size : shape) out += Bytes(size);
    return out + Bytes(type) + Bytes(uint64_t{0});
  }
};

Gguf Sane() {
  Gguf g;
  g.Text("general.architecture", "llama");
  g.U32("llama.block_count", 2);
  g.U32("llama.context_length", 64);
  g.U32("llama.embedding_length", 8);
  g.U32("llama.attention.head_count", 2);
  g.U32("llama.attention.head_count_kv", 1);
  g.U32("llama.rope.dimension_count", 4);
  g.F32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  g.Text("tokenizer.ggml.model", "gpt2");
  g.Texts("tokenizer.ggml.tokens", {"a", "", "b"});
  g.U32("tokenizer.ggml.bos_token_id", 0);
  g.U32("tokenizer.ggml.eos_token_id", 2);
  return g;
}

TEST(GgufCheck, AcceptsWhatLibllamaCanRead) {
  const Status status = CheckGguf(Sane().Encode(), "m.gguf").status();
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(GgufCheck, RefusesByNameWhatWouldFailLibllamasAssertions) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  struct Case {
    std::string word;
    std::function<void(Gguf*)> change;
  };
  const std::vector<Case> cases = {
      {"llama.block_count is 0", [](Gguf* g) { g->U32("llama.block_count", 0); }},
      {"llama.block_count is 2147483648", [](Gguf* g) { g->U32("llama.block_count", 1u << 31); }},
      {"llama.nextn_predict_layers is 3", [](Gguf* g) { g->U32("llama.nextn_predict_layers", 3); }},
      {"llama.embedding_length is 0", [](Gguf* g) { g->U32("llama.embedding_length", 0); }},
      {"llama.attention.head_count_kv is 0",
       [](Gguf* g) { g->U32("llama.attention.head_count_kv", 0); }},
      {"does not divide 3 heads",
       [](Gguf* g) {
         g->U32("llama.attention.head_count", 3);
         g->U32("llama.attention.head_count_kv", 2);
       }},
      {"is too small for 9 heads", [](Gguf* g) { g->U32("llama.attention.head_count", 9); }},
      {"llama.rope.dimension_count is 6, not 1 to 4",
       [](Gguf* g) { g->U32("llama.rope.dimension_count", 6); }},
      {"llama.rope.dimension_count is odd",
       [](Gguf* g) { g->U32("llama.rope.dimension_count", 3); }},
      {"llama.rope.scaling.type must be one of",
       [](Gguf* g) { g->Text("llama.rope.scaling.type", "x"); }},
      {"llama.expert_used_count is 2", [](Gguf* g) { g->U32("llama.expert_used_count", 2); }},
      {"llama.expert_used_count is missing", [](Gguf* g) { g->U32("llama.expert_count", 4); }},
      {"llama.expert_count is 1025",
       [](Gguf* g) {
         g->U32("llama.expert_count", 1025);
         g->U32("llama.expert_used_count", 2);
       }},
      {"epsilon is negative",
       [](Gguf* g) { g->F32("llama.attention.layer_norm_rms_epsilon", -1); }},
      {"epsilon is not a finite number",
       [](Gguf* g) { g->F32("llama.attention.layer_norm_rms_epsilon", kInfinity); }},
      {"has token 2 twice",
       [](Gguf* g) {
         g->Texts("tokenizer.ggml.tokens", {"a", "b", "a"});
       }},
      {"has 2 tokens, but token_embd.weight has another number",
       [](Gguf* g) {
         g->Texts("tokenizer.ggml.tokens", {"a", "b"});
       }},
      {"eos_token_id names no token", [](Gguf* g) { g->U32("tokenizer.ggml.eos_token_id", 3); }},
      {"lacks <0x00>", [](Gguf* g) { g->Text("tokenizer.ggml.model", "llama"); }},
      {"tokenizer.ggml.model is t5", [](Gguf* g) { g->Text("tokenizer.ggml.model", "t5"); }},
      {"llama.attention.sliding_window is 4294967295",
       [](Gguf* g) { g->U32("llama.attention.sliding_window", UINT32_MAX); }},
      {"bos_token_id names no token",
       [](Gguf* g) { g->metadata.erase("tokenizer.ggml.bos_token_id"); }},
      {"seperator_token_id names no token",
       [](Gguf* g) { g->Text("tokenizer.ggml.model", "bert"); }},
      {"llama.attention.key_length is 8, but values have size 4",
       [](Gguf* g) { g->U32("llama.attention.key_length", 8); }},
      {"makes all layers the same",
       [](Gguf* g) { g->U32("llama.attention.sliding_window_pattern", 1); }},
      {"tensor token_embd.weight has type 26", [](Gguf* g) { g->type = 26; }},
      {"tensor token_embd.weight has type 2,",
       [](Gguf* g) {
         g->shape = {8};
         g->type = 2;
         g->metadata.erase("tokenizer.ggml.tokens");
       }},
      {"the shape of tensor 0",
       [](Gguf* g) {
         g->shape = {8, 0};
       }},
  };
  for (const Case& c : cases) {
    Gguf gguf = Sane();
    c.change(&gguf);
    const Status status = CheckGguf(gguf.Encode(), "m.gguf").status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << c.word;
    EXPECT_THAT(status.message(), AllOf(HasSubstr("model m.gguf"), HasSubstr(c.word)));
  }
}

TEST(GgufCheck, RefusesAHeaderThatIsCutAtAnyByte) {
  const std::string whole = Sane().Encode();
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    EXPECT_EQ(CheckGguf(std::string_view(whole).substr(0, bytes), "m.gguf").status().code(),
              StatusCode::kInvalidArgument)
        << bytes;
  }
}

TEST(GgufCheck, FalseCountsAndLengthsAllocateNothing) {
  const std::string whole = Sane().Encode();
  for (size_t at = 4; at + 8 <= whole.size(); ++at) {
    std::string damaged = whole;
    std::memset(damaged.data() + at, 0xff, 8);
    // checked under AddressSanitizer, and with an allocation limit in the fuzz harness gguf
    (void)CheckGguf(damaged, "m.gguf");
  }
}

TEST(GgufCheck, NamesFromTheFileArePrintableInMessages) {
  Gguf gguf = Sane();
  gguf.F32("\x1b[31m\n.freq_base", 0);
  EXPECT_THAT(CheckGguf(gguf.Encode(), "m.gguf").status().message(),
              AllOf(HasSubstr("?[31m?.freq_base is not above 0"), Not(HasSubstr("\n"))));
}

TEST(GgufCheck, APipeIsRefusedWithoutWaiting) {
  const std::string pipe = testing::TempDir() + "/gguf_check_pipe";
  (void)unlink(pipe.c_str());
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const Status status = CheckGgufFile(pipe).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), AllOf(HasSubstr(pipe), HasSubstr("not a regular file")));
  (void)unlink(pipe.c_str());
}

// The offset of each metadata value that has four bytes, by key.
std::map<std::string, size_t> Elements(const std::string& file) {
  std::map<std::string, size_t> places;
  size_t at = 24;
  const auto take = [&]<typename T>(T* value) {
    std::memcpy(value, file.data() + at, sizeof *value);
    at += sizeof *value;
  };
  uint64_t keys = 0;
  std::memcpy(&keys, file.data() + 16, sizeof keys);
  constexpr size_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  for (uint64_t i = 0; i < keys; ++i) {
    uint64_t length = 0, count = 1;
    uint32_t type = 0;
    take(&length);
    const std::string key = file.substr(at, length);
    at += length;
    take(&type);
    if (type == 4 || type == 6) places[key] = at;
    if (type == 9) {
      take(&type);
      take(&count);
    }
    for (uint64_t n = 0; type == 8 && n < count; ++n) {
      take(&length);
      at += length;
    }
    if (type != 8) at += count * kBytes[type];
  }
  return places;
}

// The exit status of a child that loads the file.
int WaitForLoad(const std::string& path) {
  const pid_t child = fork();
  if (child == 0) {
    setenv("GGML_NO_BACKTRACE", "1", 1);
    if (freopen("/dev/null", "w", stderr) == nullptr) _exit(1);
    Result<std::unique_ptr<LanguageModel>> model = LoadLlama({.path = path, .threads = 1});
    if (model.ok()) {
      (void)(*model)->Tokenize("The river's bridge, 1234 \xE6\x97\xA5\n", false);
      for (uint32_t token = 0; token < (*model)->info().vocab_size; ++token)
        (void)(*model)->Piece(static_cast<TokenId>(token));
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

TEST(GgufCheck, NoDamageEndsTheProcessThatLoadsIt) {
  constexpr uint64_t kSeed = 11;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 rng(kSeed);
  const std::string path = testing::TempDir() + "/gguf_check_damaged.gguf";
  int loads = 0;
  for (const char* name : {"llama", "gemma3"}) {
    std::ifstream in(TinyPath(name), std::ios::binary);
    const std::string whole((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    const auto try_load = [&](const std::string& what, const std::string& damaged) {
      std::ofstream(path, std::ios::binary | std::ios::trunc) << damaged;
      const int status = WaitForLoad(path);
      EXPECT_TRUE(WIFEXITED(status))
          << name << ": " << what << " ended the process with signal " << WTERMSIG(status);
      ++loads;
    };
    for (const auto& [key, at] : Elements(whole)) {
      // the last ones are NaN and -infinity as floats
      for (const uint32_t number : {0u, 1u, 33u, 1u << 20, 0x7fffffffu, 0xff800000u}) {
        std::string damaged = whole;
        std::memcpy(damaged.data() + at, &number, sizeof number);
        try_load(key + " = " + std::to_string(number), damaged);
      }
    }
    for (int flip = 0; flip < 40; ++flip) {
      std::string damaged = whole;
      const size_t at = rng() % 8192;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << (rng() % 8)));
      try_load("a bit of byte " + std::to_string(at), damaged);
    }
  }
  EXPECT_GT(loads, 150);
  (void)unlink(path.c_str());
}

}  // namespace
}  // namespace longhold
