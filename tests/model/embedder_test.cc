// Compares ConvertBert and LoadEmbedder together with a numpy BERT that shares no code with
// libllama (bert_reference.py: own WordPiece, exact GELU, float64), on a tiny model of random
// weights. Tolerance: matrices are rounded to float16, and libllama approximates GELU by float16
// tables. So vectors agree to a cosine of 0.9999, where different texts stay below 0.98.
#include "model/embedder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "model/bert_gguf.h"
#include "tests/model/tiny_models.h"

namespace longhold {
namespace {

using testing::HasSubstr;

struct Expected {
  std::string text;
  std::vector<float> vector;
};

std::string TinyFile(const std::string& name) {
  return (std::filesystem::path(TinyPath("llama")).parent_path() / name).string();
}

std::vector<Expected> ReadExpected() {
  std::vector<Expected> out;
  std::ifstream file(TinyFile("bert_expected.txt"));
  for (std::string line; std::getline(file, line);) {
    const size_t tab = line.find('\t');
    std::istringstream elements(line.substr(tab + 1));
    out.push_back({line.substr(0, tab), {std::istream_iterator<float>(elements), {}}});
  }
  return out;
}

double Dot(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The files of one test, removed after it.
class Embedding : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(dir_); }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::string Path(const std::string& name) const { return dir_ + "/" + name; }
  Status Convert(const std::string& from, const std::string& to, uint32_t heads = 6) const {
    return ConvertBert({.from = from, .to = Path(to), .name = "tiny bert", .heads = heads});
  }
  std::unique_ptr<TextEmbedder> Load() {
    const Status status = Convert(TinyFile("bert_source.bin"), "bert.gguf");
    EXPECT_TRUE(status.ok()) << status.ToString();
    auto embedder = LoadEmbedder({.path = Path("bert.gguf")});
    EXPECT_TRUE(embedder.ok()) << embedder.status().ToString();
    return embedder.ok() ? std::move(*embedder) : nullptr;
  }
  Status ConvertBytes(const std::string& bytes) const {
    std::ofstream(Path("source"), std::ios::binary | std::ios::trunc)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return Convert(Path("source"), "never.gguf");
  }

 private:
  const std::string dir_ = testing::TempDir() + "/longhold_embed_" + std::to_string(getpid());
};

TEST_F(Embedding, EqualsAnIndependentBert) {
  const std::vector<Expected> expected = ReadExpected();
  ASSERT_EQ(expected.size(), 7u);
  const auto embedder = Load();
  ASSERT_NE(embedder, nullptr);
  EXPECT_EQ(embedder->dim(), 96u);
  std::vector<std::string_view> texts;
  for (const Expected& e : expected) texts.push_back(e.text);
  const auto rows = embedder->EmbedAll(texts);
  ASSERT_TRUE(rows.ok()) << rows.status().ToString();
  ASSERT_EQ(rows->size(), texts.size() * 96);
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::span row = std::span(*rows).subspan(i * 96, 96);
    EXPECT_NEAR(Dot(row, row), 1, 1e-5);
    EXPECT_GE(Dot(row, expected[i].vector), 0.9999) << texts[i];
    for (size_t j = 0; j < i; ++j)
      EXPECT_LT(Dot(row, expected[j].vector), 0.98) << texts[i] << " | " << texts[j];
  }
}

TEST_F(Embedding, OfATextDoesNotDependOnOtherTextsInTheBatch) {
  const auto embedder = Load();
  ASSERT_NE(embedder, nullptr);
  std::vector<std::string> texts;
  for (size_t i = 0; i < 150; ++i)
    texts.push_back("the river " + std::string(i, static_cast<char>('a' + i % 25)));
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  const auto rows = embedder->EmbedAll(views);
  ASSERT_TRUE(rows.ok()) << rows.status().ToString();
  for (size_t i = 0; i < texts.size(); i += 7) {
    const auto alone = embedder->Embed(texts[i]);
    ASSERT_TRUE(alone.ok());
    EXPECT_GE(Dot(*alone, std::span(*rows).subspan(i * 96, 96)), 0.99999) << i;
  }
}

TEST_F(Embedding, CutsATextAt256TokensAndCountsTheCut) {
  const auto embedder = Load();
  ASSERT_NE(embedder, nullptr);
  std::string fits;  // with [CLS] and [SEP] exactly 256 tokens
  for (int i = 0; i < 254; ++i) fits += i % 2 == 0 ? "river " : "bridge ";
  const auto whole = embedder->Embed(fits);
  EXPECT_EQ(embedder->cut_count(), 0u);
  const auto longer = embedder->Embed(fits + "the the the");
  EXPECT_EQ(embedder->cut_count(), 1u);
  const uint64_t before = embedder->token_count();
  ASSERT_TRUE(embedder->Embed("one").ok());
  EXPECT_GE(embedder->token_count(), before + 3) << "[CLS], the word, [SEP]";
  ASSERT_TRUE(whole.ok() && longer.ok());
  EXPECT_EQ(*whole, *longer);
  EXPECT_EQ(embedder->Embed(std::string((1 << 20) + 1, 'a')).status().code(),
            StatusCode::kInvalidArgument);
}

TEST_F(Embedding, RefusesFilesThatAreNotSentenceEncoders) {
  // this BERT has no pooling setting
  for (const std::string name : {"llama", "gemma3", "bert"}) {
    const auto embedder = LoadEmbedder({.path = TinyPath(name)});
    EXPECT_EQ(embedder.status().code(), StatusCode::kUnimplemented) << embedder.status().ToString();
    EXPECT_THAT(embedder.status().message(), HasSubstr(TinyPath(name)));
  }
  EXPECT_EQ(LoadEmbedder({.path = Path("none.gguf")}).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(LoadEmbedder({.path = TinyPath("damaged_text")}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(LoadEmbedder({.path = TinyPath("damaged_cut_tensors")}).status().code(),
            StatusCode::kInvalidArgument);
}

TEST_F(Embedding, ConversionIsDeterministic) {
  ASSERT_TRUE(Convert(TinyFile("bert_source.bin"), "a.gguf").ok());
  ASSERT_TRUE(Convert(TinyFile("bert_source.bin"), "b.gguf").ok());
  EXPECT_GT(ReadFile(Path("a.gguf")).size(), 100000u);
  EXPECT_EQ(ReadFile(Path("a.gguf")), ReadFile(Path("b.gguf")));
}

// Cuts the source at 200 places. Each must give an error that names the file, and leave nothing
// behind.
TEST_F(Embedding, ConversionRefusesASourceCutAnywhere) {
  const std::string whole = ReadFile(TinyFile("bert_source.bin"));
  ASSERT_GT(whole.size(), 100000u);
  for (size_t i = 0; i < 200; ++i) {
    const Status status = ConvertBytes(whole.substr(0, i < 20 ? i : whole.size() * i / 200));
    EXPECT_FALSE(status.ok()) << i;
    EXPECT_THAT(status.message(), HasSubstr(Path("source")));
    EXPECT_FALSE(std::filesystem::exists(Path("never.gguf")));
  }
}

TEST_F(Embedding, ConversionReportsWhatIsWrongWithASource) {
  const std::string whole = ReadFile(TinyFile("bert_source.bin"));
  const auto replaced = [&](const std::string& from, const std::string& to) {
    EXPECT_EQ(from.size(), to.size());
    std::string out = whole;
    const size_t at = out.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return out.replace(at, to.size(), to);
  };
  const auto expect = [&](const Status& status, StatusCode code, const std::string& words) {
    EXPECT_EQ(status.code(), code) << status.ToString();
    EXPECT_THAT(status.message(), HasSubstr(words));
  };
  expect(ConvertBytes(
             replaced("layer.1.attention.self.key.weight", "layer.1.attention.self.kex.weight")),
         StatusCode::kDataLoss, "encoder.layer.1.attention.self.key.weight is missing");
  expect(ConvertBytes(replaced("\"F32\", \"shape\": [96], ", "\"F16\", \"shape\": [96], ")),
         StatusCode::kUnimplemented, "not float32");
  expect(ConvertBytes(replaced("\"shape\": [192, 96]", "\"shape\": [191, 96]")),
         StatusCode::kDataLoss, "does not match its shape");
  expect(ConvertBytes(whole + "another\n"), StatusCode::kDataLoss, "vocabulary");
  expect(ConvertBytes(replaced("\n[CLS]\n", "\n[CLX]\n")), StatusCode::kDataLoss, "[CLS]");
  expect(ConvertBytes("not at all"), StatusCode::kInvalidArgument, "safetensors");
  expect(Convert(TinyFile("bert_source.bin"), "x.gguf", 7), StatusCode::kInvalidArgument,
         "7 heads");
  expect(Convert(Path("none"), "x.gguf"), StatusCode::kNotFound, Path("none"));
}

}  // namespace
}  // namespace longhold
