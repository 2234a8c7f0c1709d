// Compares PassageSegment with its header: what the embedding model is given, the documented bytes
// and the rules that every reader relies on.
//
// The model is a toy that records the texts it reads. A code is off by at most half a step,
// 1 / 510, where the component is in range; float rounding adds 1e-6. Damage is exhaustive: every
// length and every bit of a segment of some 900 bytes. A second pass mends the checksum, as a
// forger would: Decode must then refuse the bytes, or return a segment that the index can take.
#include "memory/index/passage_segment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>

#include "base/hash.h"
#include "base/parallel.h"
#include "memory/index/passage_index.h"
#include "tests/support/sanitized.h"
#include "tests/support/toy_embedder.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

// Tokens of `bytes` bytes each, the last one shorter.
TokenText Tokenized(const std::string& text, size_t bytes) {
  TokenText out{text, {}};
  for (size_t at = 0; at < text.size(); at += bytes)
    out.token_bytes.push_back(static_cast<uint16_t>(std::min(bytes, text.size() - at)));
  return out;
}

PassageSegment Built(ToyEmbedder& embedder, const TokenText& text,
                     const std::string& name = "tale.txt", uint64_t token_begin = 128) {
  Result<PassageSegment> built =
      PassageSegment::Build(embedder, DocumentId{7}, name, token_begin, text);
  EXPECT_TRUE(built.ok()) << built.status().ToString();
  return built.ok() ? std::move(*built) : PassageSegment{};
}

// Some 25 sentences in 10 passages.
PassageSegment Sample() {
  ToyEmbedder embedder;
  return Built(embedder, Tokenized(PlainText(4000, 1), 4));
}

float Decoded(uint8_t code) {
  return (2.0f * static_cast<float>(code) - 254) / 255 * kPassageRange;
}

std::string Mended(std::string bytes) {
  bytes.resize(bytes.size() - 8);
  const uint64_t checksum = Hash64(bytes);
  bytes.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
  return bytes;
}

template <typename Number>
std::string With(std::string bytes, size_t at, Number value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
  return Mended(std::move(bytes));
}

// ---- Build

TEST(PassageSegment, TheModelReadsEachPassageOnceWithTheNameBeforeIt) {
  ToyEmbedder embedder;
  const TokenText text = Tokenized(RandomText(6000, 2), 3);
  const PassageSegment segment = Built(embedder, text, "src/tale.txt");
  const PassageCuts cuts = CutPassagesAndSentences(text);
  EXPECT_EQ(embedder.call_count, 1u);
  ASSERT_THAT(embedder.reads, SizeIs(cuts.passages.size()));
  std::string whole;
  size_t sentence = 0;
  for (size_t p = 0; p < embedder.reads.size(); ++p) {
    EXPECT_EQ(embedder.reads[p].context, "src/tale.txt\n");
    EXPECT_EQ(sentence, cuts.passages[p]);
    for (const std::string& part : embedder.reads[p].parts) {
      size_t bytes = 0;
      for (uint32_t t = 0; t < cuts.sentences[sentence]; ++t) bytes += text.token_bytes[t];
      EXPECT_EQ(whole.size(), bytes) << "sentence " << sentence;
      whole += part;
      ++sentence;
    }
  }
  EXPECT_EQ(sentence, cuts.sentences.size());
  EXPECT_EQ(whole, text.text);
}

TEST(PassageSegment, HoldsTheCutsAndTheCodesOfTheVectors) {
  ToyEmbedder embedder(9);
  const TokenText text = Tokenized(PlainText(4000, 3), 4);
  const PassageSegment segment = Built(embedder, text);
  EXPECT_EQ(segment.document, DocumentId{7});
  EXPECT_EQ(segment.token_begin, 128u);
  EXPECT_EQ(segment.token_count, 1000u);
  EXPECT_EQ(segment.token_end(), 1128u);
  EXPECT_EQ(segment.embedder, 9u);
  EXPECT_EQ(segment.dim, ToyEmbedder::kDim);
  EXPECT_EQ(segment.Fault(), nullptr);
  const PassageCuts cuts = CutPassagesAndSentences(text);
  EXPECT_EQ(std::vector<uint32_t>(segment.sentences.begin(), segment.sentences.end()),
            cuts.sentences);
  EXPECT_EQ(std::vector<uint32_t>(segment.passages.begin(), segment.passages.end()), cuts.passages);

  const std::vector<ToyEmbedder::Read> reads = embedder.reads;
  std::vector<uint8_t> codes;
  for (const ToyEmbedder::Read& read : reads) {
    const std::vector<std::string_view> parts(read.parts.begin(), read.parts.end());
    const TextParts passage{read.context, parts};
    const std::vector<float> vectors = *embedder.EmbedParts(std::span(&passage, 1));
    codes.resize(codes.size() + vectors.size());
    EncodeComponents(vectors, codes.data() + codes.size() - vectors.size());
  }
  EXPECT_EQ(segment.codes, codes);
}

TEST(PassageSegment, SentencesAndPassagesCoverItsTokens) {
  const PassageSegment segment = Sample();
  uint64_t token = segment.token_begin;
  for (uint32_t s = 0; s < segment.sentences.size(); ++s) {
    EXPECT_EQ(segment.Sentence(s).begin, token);
    EXPECT_LT(token, segment.Sentence(s).end);
    token = segment.Sentence(s).end;
  }
  EXPECT_EQ(token, segment.token_end());
  token = segment.token_begin;
  for (uint32_t p = 0; p < segment.passages.size(); ++p) {
    EXPECT_EQ(segment.Passage(p).begin, token);
    EXPECT_EQ(segment.Passage(p).begin, segment.Sentence(segment.passages[p]).begin);
    token = segment.Passage(p).end;
  }
  EXPECT_EQ(token, segment.token_end());
}

TEST(PassageSegment, TheContextIsTheEndOfALongName) {
  const auto context = [](const std::string& name) {
    ToyEmbedder embedder;
    Built(embedder, Tokenized("Noah built an ark.", 3), name);
    return embedder.reads.empty() ? "nothing read" : embedder.reads[0].context;
  };
  EXPECT_EQ(context(""), "\n");
  EXPECT_EQ(context("a.txt"), "a.txt\n");
  const std::string full(kPassageContextBytesMax, 'n');
  EXPECT_EQ(context(full), full + "\n");
  EXPECT_EQ(context("dir/" + full), full + "\n");
  EXPECT_EQ(context("/home/someone/projects/engine/memory/index/passage_segment.cc"),
            "projects/engine/memory/index/passage_segment.cc\n");
  // No path: the last bytes, in whole characters.
  EXPECT_EQ(context("x" + full), full + "\n");
  EXPECT_EQ(context("é" + full.substr(1)), full.substr(1) + "\n");
  EXPECT_EQ(context("語語" + full.substr(4)), "語" + full.substr(4) + "\n");
}

TEST(PassageSegment, AnErrorOfTheModelIsReturned) {
  ToyEmbedder embedder;
  embedder.fail_at_call = 1;
  const Result<PassageSegment> built =
      PassageSegment::Build(embedder, DocumentId{1}, "tale", 0, Tokenized("Noah", 2));
  EXPECT_EQ(built.status().code(), StatusCode::kInternal);
  EXPECT_THAT(built.status().message(), HasSubstr("the toy embedder fails"));
}

// ---- Codes

TEST(EncodeComponents, IsOffByHalfAStepAtMost) {
  std::vector<float> components;
  for (int i = -5000; i <= 5000; ++i) components.push_back(static_cast<float>(i) / 10000);
  std::vector<uint8_t> codes(components.size());
  EncodeComponents(components, codes.data());
  for (size_t i = 0; i < codes.size(); ++i) {
    ASSERT_NEAR(Decoded(codes[i]), components[i], 1.0 / 510 + 1e-6) << components[i];
    ASSERT_GE(codes[i], codes[i == 0 ? 0 : i - 1]);
  }
  EXPECT_EQ(codes.front(), 0);
  EXPECT_EQ(codes.back(), 255);
}

TEST(EncodeComponents, ClampsWhatIsOutOfRange) {
  const std::vector<float> components = {-1e30f, -1, -0.500001f, 0.500001f, 1, 1e30f};
  std::vector<uint8_t> codes(components.size());
  EncodeComponents(components, codes.data());
  EXPECT_THAT(codes, ElementsAre(0, 0, 0, 255, 255, 255));
  EncodeComponents({}, codes.data());
}

// The header says about 0.001 for 384 dimensions. A component's error is uniform within 1 / 510, so
// its standard deviation is 1 / 510 / sqrt(3) = 0.0011, and an inner product with a unit vector has
// the same.
TEST(EncodeComponents, KeepsInnerProducts) {
  constexpr size_t kDim = 384;
  std::mt19937_64 rng(4);
  std::normal_distribution<float> normal;
  const auto unit = [&] {
    std::vector<float> v(kDim);
    double squares = 0;
    for (float& c : v) {
      c = normal(rng);
      squares += c * c;
    }
    for (float& c : v) c = static_cast<float>(c / std::sqrt(squares));
    return v;
  };
  double squares = 0;
  constexpr int kPairs = 500;
  for (int i = 0; i < kPairs; ++i) {
    const std::vector<float> a = unit(), b = unit();
    std::vector<uint8_t> codes(kDim);
    EncodeComponents(b, codes.data());
    double error = 0;
    for (size_t c = 0; c < kDim; ++c) error += a[c] * (Decoded(codes[c]) - b[c]);
    squares += error * error;
  }
  EXPECT_LT(std::sqrt(squares / kPairs), 0.0013);
}

// ---- Bytes

TEST(PassageSegment, RoundTrips) {
  ToyEmbedder embedder;
  for (const std::string& text : {PlainText(4000, 1), std::string("x"), RandomText(9000, 5)}) {
    const PassageSegment segment = Built(embedder, Tokenized(text, 2));
    const Result<PassageSegment> decoded = PassageSegment::Decode(segment.Encode());
    ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
    EXPECT_EQ(*decoded, segment);
  }
}

TEST(PassageSegment, HoldsAsManyTokensAsItMay) {
  ToyEmbedder embedder(1, 1);
  const PassageSegment segment =
      Built(embedder, Tokenized(std::string(kPassageSegmentTokensMax, 'x'), 1));
  EXPECT_EQ(segment.Sentence(static_cast<uint32_t>(segment.sentences.size()) - 1).end,
            128u + kPassageSegmentTokensMax);
  EXPECT_EQ(PassageSegment::Decode(segment.Encode()).value(), segment);
}

// The format is a contract: these bytes stay version 1 with cutting rules 1
// (docs/formats/index.md).
TEST(PassageSegment, EncodesToTheDocumentedBytes) {
  PassageSegment segment{.document = DocumentId{3}, .token_begin = 64, .token_count = 100};
  segment.embedder = 0x1122334455667788;
  segment.dim = 2;
  segment.sentences = {0, 20, 70};
  segment.passages = {0, 2};
  segment.codes = {0, 1, 127, 128, 254, 255};
  const std::string bytes = segment.Encode();
  ASSERT_EQ(bytes.size(), 48u + 3 * 2 + 2 * 2 + 3 * 2 + 8);
  std::string expected = "LHPV";
  const auto append = [&](auto number) {
    expected.append(reinterpret_cast<const char*>(&number), sizeof number);
  };
  for (const uint32_t word : {1u, 3u, 100u, 64u, 0u, 0x55667788u, 0x11223344u, 2u, 3u, 2u, 2u})
    append(word);
  for (const uint16_t begin : {0, 20, 70, 0, 2}) append(begin);
  for (const uint8_t code : segment.codes) append(code);
  append(Hash64(expected));
  EXPECT_EQ(bytes, expected);
  EXPECT_EQ(Hash64(bytes), 0xf92fd9d4106d7a70u) << std::hex << Hash64(bytes);
}

TEST(PassageSegment, DetectsEveryTruncationAndFlippedBit) {
  const std::string bytes = Sample().Encode();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const Result<PassageSegment> decoded =
        PassageSegment::Decode(std::string_view(bytes).substr(0, size));
    ASSERT_FALSE(decoded.ok()) << size;
    EXPECT_EQ(decoded.status().code(), StatusCode::kDataLoss);
    EXPECT_THAT(decoded.status().message(), HasSubstr("decode passage segment: "));
  }
  for (size_t bit = 0; bit < bytes.size() * 8; bit += kSanitized ? 5 : 1) {
    std::string broken = bytes;
    broken[bit / 8] = static_cast<char>(broken[bit / 8] ^ (1 << (bit % 8)));
    ASSERT_FALSE(PassageSegment::Decode(broken).ok()) << bit;
  }
  EXPECT_FALSE(PassageSegment::Decode(bytes + '\0').ok());
}

// Uses a segment that was decoded as every reader does.
void ExpectUsable(const PassageSegment& segment) {
  ASSERT_EQ(segment.Fault(), nullptr);
  PassageIndex index;
  ASSERT_TRUE(index.Add(segment).ok());
  EXPECT_EQ(index.vectors(), segment.sentences.size());
  const std::vector<float> query(segment.dim, 0.1f);
  const Result<std::vector<PassageMatch>> found = index.Search(query, 1000, SerialFor);
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->size(), segment.sentences.size());
  for (const PassageMatch& match : *found) {
    EXPECT_LT(match.sentence.begin, match.sentence.end);
    EXPECT_LE(match.passage.begin, match.sentence.begin);
    EXPECT_GE(match.passage.end, match.sentence.end);
    EXPECT_LE(match.passage.end, segment.token_end());
  }
  EXPECT_EQ(PassageSegment::Decode(segment.Encode()).value(), segment);
}

TEST(PassageSegment, HandlesDamageUnderAValidChecksum) {
  const std::string bytes = Sample().Encode();
  size_t refused = 0;
  for (size_t bit = 0; bit < (bytes.size() - 8) * 8; bit += kSanitized ? 5 : 1) {
    std::string broken = bytes;
    broken[bit / 8] = static_cast<char>(broken[bit / 8] ^ (1 << (bit % 8)));
    const Result<PassageSegment> decoded = PassageSegment::Decode(Mended(broken));
    if (!decoded.ok()) {
      ++refused;
      continue;
    }
    ExpectUsable(*decoded);
    if (testing::Test::HasFatalFailure()) FAIL() << "bit " << bit;
  }
  EXPECT_GT(refused, 100u);
}

TEST(PassageSegment, RefusesHostileSizes) {
  const std::string bytes = Sample().Encode();
  ASSERT_TRUE(PassageSegment::Decode(Mended(bytes)).ok());
  // token_count, dim, sentences and passages
  for (const size_t field : {12, 32, 36, 40}) {
    for (const uint32_t value :
         {0u, 1u << 15, (1u << 16) - 1, 1u << 16, (1u << 16) + 1, 1u << 31, UINT32_MAX}) {
      uint32_t before;
      std::memcpy(&before, bytes.data() + field, sizeof before);
      if (value == before) continue;
      const Result<PassageSegment> decoded = PassageSegment::Decode(With(bytes, field, value));
      // A larger token_count only makes the last sentence longer.
      if (field == 12 && value != 0 && value <= kPassageSegmentTokensMax) {
        EXPECT_TRUE(decoded.ok());
        continue;
      }
      ASSERT_FALSE(decoded.ok()) << field << " " << value;
      EXPECT_EQ(decoded.status().code(), StatusCode::kDataLoss) << field << " " << value;
    }
  }
  // Products that are right only after they wrap around.
  std::string wrapped = bytes;
  const uint32_t sentences = 1u << 16, dim = 1u << 16;
  std::memcpy(wrapped.data() + 32, &dim, sizeof dim);
  std::memcpy(wrapped.data() + 36, &sentences, sizeof sentences);
  EXPECT_EQ(PassageSegment::Decode(Mended(wrapped)).status().code(), StatusCode::kDataLoss);
  for (const uint64_t begin :
       {uint64_t{1}, uint64_t{63}, uint64_t{64} * UINT32_MAX, UINT64_MAX - 63})
    EXPECT_EQ(PassageSegment::Decode(With(bytes, 16, begin)).status().code(),
              StatusCode::kDataLoss);
  EXPECT_EQ(PassageSegment::Decode(With(bytes, 0, 'X')).status().code(), StatusCode::kDataLoss);
}

TEST(PassageSegment, AnotherVersionOrOtherRulesAreAFailedPrecondition) {
  const std::string bytes = Sample().Encode();
  for (const size_t field : {4, 44}) {
    for (const uint32_t number : {0u, 7u, UINT32_MAX}) {
      const Result<PassageSegment> decoded = PassageSegment::Decode(With(bytes, field, number));
      EXPECT_EQ(decoded.status().code(), StatusCode::kFailedPrecondition);
      EXPECT_THAT(decoded.status().message(),
                  HasSubstr((field == 4 ? "format " : "rules ") + std::to_string(number)));
    }
  }
}

TEST(PassageSegment, FaultNamesEachBrokenRule) {
  using Change = std::function<void(PassageSegment&)>;
  const std::vector<std::pair<std::string, Change>> changes = {
      {"token_begin is not a multiple of 64", [](PassageSegment& s) { s.token_begin = 65; }},
      {"token_begin is out of range",
       [](PassageSegment& s) {
         s.token_begin = (uint64_t{UINT32_MAX} - kPassageSegmentTokensMax + 1) * kBlockTokens;
       }},
      {"token_count is out of range", [](PassageSegment& s) { s.token_count = 0; }},
      {"token_count is out of range",
       [](PassageSegment& s) { s.token_count = kPassageSegmentTokensMax + 1; }},
      {"dim is out of range", [](PassageSegment& s) { s.dim = 0; }},
      {"dim is out of range", [](PassageSegment& s) { s.dim = kPassageDimMax + 1; }},
      {"sentences are out of order", [](PassageSegment& s) { s.sentences.clear(); }},
      {"sentences are out of order", [](PassageSegment& s) { s.sentences[0] = 1; }},
      {"sentences are out of order", [](PassageSegment& s) { s.sentences[2] = s.sentences[1]; }},
      {"sentences are out of order",
       [](PassageSegment& s) { std::swap(s.sentences[2], s.sentences[1]); }},
      {"sentences are out of order", [](PassageSegment& s) { s.token_count = s.sentences.back(); }},
      {"passages are out of order", [](PassageSegment& s) { s.passages.clear(); }},
      {"passages are out of order", [](PassageSegment& s) { s.passages[0] = 1; }},
      {"passages are out of order", [](PassageSegment& s) { s.passages[2] = s.passages[1]; }},
      {"passages are out of order",
       [](PassageSegment& s) { s.passages.back() = static_cast<uint16_t>(s.sentences.size()); }},
      {"array sizes differ", [](PassageSegment& s) { s.codes.pop_back(); }},
      {"array sizes differ", [](PassageSegment& s) { s.codes.push_back(0); }},
      {"array sizes differ", [](PassageSegment& s) { --s.dim; }},
  };
  const PassageSegment whole = Sample();
  ASSERT_EQ(whole.Fault(), nullptr);
  for (size_t i = 0; i < changes.size(); ++i) {
    SCOPED_TRACE(i);
    PassageSegment broken = whole;
    changes[i].second(broken);
    ASSERT_NE(broken.Fault(), nullptr);
    EXPECT_EQ(broken.Fault(), changes[i].first);
    PassageIndex index;
    const Status added = index.Add(broken);
    EXPECT_EQ(added.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(added.message(), HasSubstr(changes[i].first));
    EXPECT_EQ(index.vectors(), 0u);
    // Bytes with this fault are refused.
    EXPECT_EQ(PassageSegment::Decode(broken.Encode()).status().code(), StatusCode::kDataLoss);
  }
  PassageSegment last = whole;
  last.token_begin = (uint64_t{UINT32_MAX} - kPassageSegmentTokensMax) * kBlockTokens;
  EXPECT_EQ(last.Fault(), nullptr);
  last.token_count = last.sentences.back() + 1u;
  EXPECT_EQ(last.Fault(), nullptr);
}

}  // namespace
}  // namespace longhold
