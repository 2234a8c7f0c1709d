// What LoadLlama reports about a file. The geometry that it reads from the model's own graph must
// equal exactly what make_tiny_gguf.py wrote into the metadata. For unusable files, the error code
// must be right, and its one line must name the file and the cause. Every load here runs the proof
// (a check of the graph's attention), so a wrong RopeSpec would fail twice.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "tests/model/tiny_models.h"

namespace longhold {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Load : public testing::TestWithParam<TinyModel> {};
INSTANTIATE_TEST_SUITE_P(Tiny, Load, testing::ValuesIn(TinyModels()),
                         [](const auto& param) { return param.param.name; });

TEST_P(Load, ReadsGeometryAndRopeFromTheGraphAndProvesThem) {
  const TinyModel& want = GetParam();
  const auto model = LoadTiny(want.name);
  ASSERT_NE(model, nullptr);
  const ModelInfo& info = model->info();
  EXPECT_EQ(info.architecture, want.architecture);
  EXPECT_EQ(info.name, "tiny " + want.name);
  EXPECT_EQ(info.path, TinyPath(want.name));
  EXPECT_EQ(info.layer_count, want.layer_count);
  EXPECT_EQ(info.context_length, 4096u);
  EXPECT_EQ(info.native_window, want.native_window);
  EXPECT_TRUE(info.chat);
  EXPECT_EQ(info.fingerprint.size(), 16u);

  const KvGeometry &g = info.geometry, &w = want.geometry;
  EXPECT_EQ(g.layers, w.layers);
  EXPECT_EQ(g.q_heads, w.q_heads);
  EXPECT_EQ(g.kv_heads, w.kv_heads);
  EXPECT_EQ(g.head_dim, w.head_dim);
  EXPECT_FLOAT_EQ(g.scale, w.scale);
  EXPECT_FLOAT_EQ(g.softcap, w.softcap);
  ASSERT_EQ(g.rope.size(), w.rope.size());
  for (size_t slot = 0; slot < g.rope.size(); ++slot) {
    SCOPED_TRACE("slot " + std::to_string(slot));
    const RopeSpec &r = g.rope[slot], &s = w.rope[slot];
    EXPECT_EQ(r.neox, s.neox);
    EXPECT_EQ(r.rotary_dims, s.rotary_dims);
    EXPECT_EQ(r.ctx_orig, s.ctx_orig);
    EXPECT_FLOAT_EQ(r.freq_base, s.freq_base);
    EXPECT_FLOAT_EQ(r.freq_scale, s.freq_scale);
    EXPECT_FLOAT_EQ(r.attn_factor, s.attn_factor);
    EXPECT_FLOAT_EQ(r.ext_factor, s.ext_factor);
    EXPECT_FLOAT_EQ(r.beta_fast, s.beta_fast);
    EXPECT_FLOAT_EQ(r.beta_slow, s.beta_slow);
    EXPECT_EQ(r.freq_factors, s.freq_factors);
  }
}

// The rows of the file's own token table, which these models hold as float32.
TEST_P(Load, EmbedsTokensByTheModelsOwnTable) {
  const auto model = LoadTiny(GetParam().name);
  ASSERT_NE(model, nullptr);
  const ModelInfo& info = model->info();
  ASSERT_GT(info.embedding_width, 0u);
  const std::vector<TokenId> tokens = {3, 5, 3, static_cast<TokenId>(info.vocab_size - 1)};
  std::vector<float> rows(tokens.size() * info.embedding_width);
  model->Embed(tokens, rows.data());
  const auto row = [&](size_t i) {
    return std::vector<float>(rows.data() + i * info.embedding_width,
                              rows.data() + (i + 1) * info.embedding_width);
  };
  EXPECT_EQ(row(0), row(2));
  EXPECT_NE(row(0), row(1));
  std::ifstream file(TinyPath(GetParam().name), std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string want(reinterpret_cast<const char*>(row(i).data()),
                           info.embedding_width * sizeof(float));
    EXPECT_NE(bytes.find(want), std::string::npos) << "row " << i;
  }
}

TEST(LoadFacts, FingerprintDependsOnTheFilesContentAndNotOnItsName) {
  const std::string copy =
      testing::TempDir() + "/longhold_fingerprint_" + std::to_string(getpid()) + ".gguf";
  std::filesystem::copy_file(TinyPath("llama"), copy,
                             std::filesystem::copy_options::overwrite_existing);
  const auto a = LoadTiny("llama");
  const auto b = LoadLlama({.path = copy});
  ASSERT_NE(a, nullptr);
  ASSERT_TRUE(b.ok()) << b.status().ToString();
  EXPECT_EQ(a->info().fingerprint, (*b)->info().fingerprint);
  const auto other = LoadTiny("llama_fused_qkv");
  ASSERT_NE(other, nullptr);
  EXPECT_NE(a->info().fingerprint, other->info().fingerprint);

  {  // flips one bit of one weight
    std::fstream file(copy, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-1000, std::ios::end);
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(-1000, std::ios::end);
    file.put(byte);
  }
  const auto changed = LoadLlama({.path = copy, .prove = false});
  ASSERT_TRUE(changed.ok()) << changed.status().ToString();
  EXPECT_NE(a->info().fingerprint, (*changed)->info().fingerprint);
  std::filesystem::remove(copy);
}

TEST(LoadFacts, TheProofPassesWithAnyNumberOfThreads) {
  for (const uint32_t threads : {2u, 3u}) {
    const auto model = LoadLlama({.path = TinyPath("llama"), .threads = threads});
    EXPECT_TRUE(model.ok()) << threads << " threads: " << model.status().ToString();
  }
}

// Files that must be refused, and the words that the message must contain in addition to the file
// name.
struct Refusal {
  std::string name;
  StatusCode code;
  std::vector<std::string> words;
};
void PrintTo(const Refusal& r, std::ostream* out) { *out << r.name; }

class Refuse : public testing::TestWithParam<Refusal> {};
INSTANTIATE_TEST_SUITE_P(
    Unsupported, Refuse,
    testing::Values(
        Refusal{"gpt2", StatusCode::kUnimplemented, {"architecture gpt2", "layer 0", "RoPE"}},
        Refusal{"bloom", StatusCode::kUnimplemented, {"architecture bloom", "layer 0"}},
        Refusal{"mamba",
                StatusCode::kUnimplemented,
                {"architecture mamba", "llama, gemma3, qwen2, qwen3"}},
        Refusal{"bert", StatusCode::kUnimplemented, {"architecture bert"}},
        Refusal{"llama_longrope", StatusCode::kUnimplemented, {"architecture llama", "longrope"}},
        Refusal{
            "llama_head10", StatusCode::kUnimplemented, {"architecture llama", "layer 0", "10"}},
        Refusal{"llama_no_vocab", StatusCode::kInvalidArgument, {"tokenizer"}}),
    [](const auto& param) { return param.param.name; });
INSTANTIATE_TEST_SUITE_P(
    Damaged, Refuse,
    testing::Values(
        Refusal{"damaged_empty", StatusCode::kInvalidArgument, {"GGUF"}},
        Refusal{"damaged_three_bytes", StatusCode::kInvalidArgument, {"GGUF"}},
        Refusal{"damaged_magic_only", StatusCode::kInvalidArgument, {"truncated"}},
        Refusal{"damaged_text", StatusCode::kInvalidArgument, {"not a GGUF file"}},
        Refusal{"damaged_wrong_magic", StatusCode::kInvalidArgument, {"not a GGUF file"}},
        Refusal{"damaged_future_version", StatusCode::kInvalidArgument, {"cannot be loaded"}},
        Refusal{"damaged_cut_tensors", StatusCode::kInvalidArgument, {"truncated"}},
        Refusal{"damaged_cut_last_byte", StatusCode::kInvalidArgument, {"truncated"}}),
    [](const auto& param) { return param.param.name; });

TEST_P(Refuse, WithOneLineThatNamesFileAndCause) {
  const Refusal& want = GetParam();
  const std::string path = TinyPath(want.name);
  ASSERT_TRUE(std::filesystem::exists(path)) << path;
  const Status status = LoadStatus(path);
  EXPECT_EQ(status.code(), want.code) << status.ToString();
  EXPECT_THAT(status.message(), AllOf(HasSubstr(path), Not(HasSubstr("\n"))));
  for (const std::string& word : want.words) EXPECT_THAT(status.message(), HasSubstr(word));
  std::cout << status.ToString() << "\n";
}

TEST(Refuse, AMissingFileIsNotFound) {
  const Status status = LoadStatus(TinyPath("no_such_model"));
  EXPECT_EQ(status.code(), StatusCode::kNotFound) << status.ToString();
  EXPECT_THAT(status.message(), HasSubstr(TinyPath("no_such_model")));
}

TEST(Refuse, ADirectoryIsReportedAsOne) {
  const Status status = LoadStatus(testing::TempDir());
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status.ToString();
  EXPECT_THAT(status.message(), AllOf(HasSubstr(testing::TempDir()), HasSubstr("directory")));
}

// Lengths: every 97th byte through header, metadata and tensor table (6848 bytes), then 16 through
// the weights. No cut may crash, load, or be blamed on anything but this file.
TEST(Refuse, AModelCutAnywhereIsInvalid) {
  std::ifstream file(TinyPath("llama"), std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  ASSERT_GT(whole.size(), 100000u);
  std::vector<size_t> lengths;
  for (size_t n = 5; n < 6900; n += 97) lengths.push_back(n);
  for (size_t i = 1; i <= 16; ++i) lengths.push_back(whole.size() * i / 17);
  const std::string path =
      testing::TempDir() + "/longhold_cut_" + std::to_string(getpid()) + ".gguf";
  for (const size_t n : lengths) {
    std::ofstream(path, std::ios::binary | std::ios::trunc)
        .write(whole.data(), static_cast<std::streamsize>(n));
    const Status status = LoadStatus(path);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << n << " bytes: " << status.ToString();
    EXPECT_THAT(status.message(), AllOf(HasSubstr(path), Not(HasSubstr("\n")))) << n << " bytes";
  }
  std::filesystem::remove(path);
}

// The proof is the last guard against a model whose graph looks right but means something else.
// Here every token in the engine's attention also sees the later tokens, which no shape and no RoPE
// parameter shows.
TEST(Proof, DifferentAttentionIsReportedWithArchitectureAndLayer) {
  const std::string path = TinyPath("llama_bidirectional");
  const Status status = LoadStatus(path);
  EXPECT_EQ(status.code(), StatusCode::kInternal) << status.ToString();
  EXPECT_THAT(status.message(),
              AllOf(HasSubstr(path), HasSubstr("architecture llama"), HasSubstr("layer 0"),
                    HasSubstr("differs from the engine's own")));
  // The proof is what refuses it: without the proof the model loads.
  EXPECT_TRUE(LoadLlama({.path = path, .prove = false}).ok());
}

}  // namespace
}  // namespace longhold
