// Imports made by a stranger: every checksum is right and one thing is wrong. The engine over a toy
// model reads them from files that the test builds from a real memory's values. Expected: the
// import is refused, or every later call answers or returns data_loss. No call ends the process,
// which each of these inputs once did to the server. Also runs under AddressSanitizer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "memory/engine.h"
#include "memory/record/record_keys.h"
#include "memory/record/records.h"
#include "store/block_codec.h"
#include "store/compress.h"
#include "store/mem_store.h"
#include "store/rocks_store.h"
#include "tests/store/temp_dir.h"
#include "tests/support/engines.h"
#include "tests/support/stores.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

using testing::HasSubstr;

constexpr char kNeedle[] = "The secret number of Methuselah is 7350194, said the elder.\n";
constexpr char kQuestion[] = "What is the secret number of Methuselah?";

RecallProfile Profile() {
  RecallProfile p;
  p.name = "toy";
  p.heads = {{.layer = 3, .kv_head = 1}};
  p.window_tokens = 64;
  return p;
}

std::string Tale() {
  std::string text = PlainText(20000, 1);
  text.insert(text.find('\n', 3000) + 1, kNeedle);
  return text;
}

// The file that a store with these values exports.
std::string FileOf(const StoreContents& contents) {
  const auto store = NewMemStore();
  for (const auto& [key, value] : contents)
    EXPECT_TRUE(PutValue(*store, static_cast<Table>(key.first), key.second, value).ok());
  std::string bytes;
  EXPECT_TRUE(ExportStore(*store, "tales", [&](std::string_view more) {
                bytes += more;
                return OkStatus();
              }).ok());
  return bytes;
}

ByteSource SourceOf(const std::string& bytes) {
  return [&bytes, at = size_t{0}](std::span<char> out) mutable -> Result<size_t> {
    const size_t count = std::min(out.size(), bytes.size() - at);
    std::copy_n(bytes.data() + at, count, out.data());
    at += count;
    return count;
  };
}

class HostileImportTest : public testing::Test {
 protected:
  HostileImportTest() : model_({.answer = "7350194"}) { Start(64ull << 20); }
  void Start(uint64_t budget_bytes) {
    engine_ = std::make_unique<EngineInHome>(home_ / "h",
                                             EngineOptions{.memory_budget_bytes = budget_bytes});
    const RecallProfile profile = Profile();
    ASSERT_TRUE(engine_->UseModel(&model_, &profile).ok());
  }
  // The values of a memory with one complete and one incomplete text.
  StoreContents True() {
    std::atomic<bool> stop{false};
    EXPECT_TRUE(engine_->Ingest("tales", {"tale", Tale()}, nullptr, nullptr).ok());
    EXPECT_TRUE(
        engine_
            ->Ingest("tales", {"stopped", PlainText(9000, 2)}, &stop,
                     [&](const IngestProgress& p) { stop = p.step == IngestStep::kReading; })
            .ok());
    engine_->CloseMemory();
    Result<std::unique_ptr<ColdStore>> store =
        OpenRocksStore({.path = home_ / "h/memories/tales", .create_if_missing = false});
    EXPECT_TRUE(store.ok());
    return Contents(**store);
  }
  Status Import(const StoreContents& contents, const ImportLimits& limits = {}) {
    const std::string bytes = FileOf(contents);
    return engine_->Import(SourceOf(bytes), "import", limits).status();
  }
  // Uses an imported memory in every way, then forgets it. Returns the worst status of these calls.
  Status Used() {
    Status worst;
    const auto note = [&](const Status& status) {
      EXPECT_TRUE(status.ok() || status.code() == StatusCode::kDataLoss ||
                  status.code() == StatusCode::kResourceExhausted)
          << status.ToString();
      if (worst.ok()) worst = status;
    };
    const AskOptions focused{.answer_prefix = "It is", .max_tokens = 8},
        faithful{.answer_prefix = "It is", .max_tokens = 8, .attend = FaithfulOptions{}};
    note(engine_->Show("import").status());
    note(engine_->Recall("import", kQuestion, {.explain = true}).status());
    note(engine_->Ask("import", kQuestion, focused).status());
    note(engine_->Ask("import", kQuestion, faithful).status());
    note(engine_->Verify("import"));
    note(engine_->Ingest("import", {"stopped", PlainText(9000, 2)}, nullptr, nullptr).status());
    note(engine_->Ingest("import", {"more", "Some more text."}, nullptr, nullptr).status());
    note(engine_->Reindex("import", nullptr).status());
    EXPECT_TRUE(engine_->Forget("import", "", true).ok());
    return worst;
  }

  TempDir home_;
  ToyModel model_;
  std::unique_ptr<EngineInHome> engine_;
};

const std::pair<int, std::string> kManifest{static_cast<int>(Table::kMeta), kManifestKey};

TEST_F(HostileImportTest, AManifestOfAnotherShapeIsRefused) {
  const StoreContents whole = True();
  const Manifest good = *DecodeManifest(whole.at(kManifest));
  ASSERT_TRUE(Import(whole, {.model = &model_.info()}).ok());
  EXPECT_TRUE(Used().ok());
  const std::vector<std::function<void(Manifest&)>> changes = {
      [](Manifest& m) { m.head_dim *= 2; },
      [](Manifest& m) { m.head_dim = 3; },
      [](Manifest& m) { m.head_dim = 0; },
      [](Manifest& m) { m.head_dim = 1u << 30; },
      [](Manifest& m) { m.kv_heads *= 2; },
      [](Manifest& m) { m.kv_heads = 0; },
      [](Manifest& m) { m.q_heads = m.kv_heads; },
      [](Manifest& m) { m.q_heads = m.kv_heads + 1; },
      [](Manifest& m) { m.layers.push_back(m.layers.back() + 1); },
      [](Manifest& m) { m.layers.back() += 1; },
      [](Manifest& m) {
        m.layers = {};
        m.scan_layers = {};
        m.scan_kv_heads = {};
      },
      [](Manifest& m) { m.layers.resize(100000, 7); },
      [](Manifest& m) { std::reverse(m.layers.begin(), m.layers.end()); },
      [](Manifest& m) { m.window_tokens = 1; },
      [](Manifest& m) { m.window_tokens = 0; },
      [](Manifest& m) { m.window_tokens = 1u << 30; },
      [](Manifest& m) { m.sink_tokens = 65; },
      [](Manifest& m) { m.sink_tokens = 4096; },
      [](Manifest& m) { m.next_document = 1; },
      [](Manifest& m) { m.next_document = UINT32_MAX; },
      [](Manifest& m) {
        m.scan_layers.resize(1000, 3);
        m.scan_kv_heads.resize(1000, 1);
      },
      [](Manifest& m) { m.scan_kv_heads[0] = 100; },
      [](Manifest& m) { m.scan_layers[0] = 77; },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    SCOPED_TRACE("change " + std::to_string(i));
    StoreContents forged = whole;
    Manifest m = good;
    changes[i](m);
    forged[kManifest] = Encode(m);
    EXPECT_EQ(Import(forged, {.model = &model_.info()}).code(), StatusCode::kDataLoss);
    EXPECT_EQ(engine_->Exists("import").code(), StatusCode::kNotFound);
    // If the importer has no model, the first user gets the error.
    if (!Import(forged).ok()) continue;
    EXPECT_EQ(Used().code(), StatusCode::kDataLoss);
  }
}

TEST_F(HostileImportTest, OtherSinkAndWindowSizesAreReadAndContinued) {
  const StoreContents whole = True();
  for (const auto& [sinks, window] :
       {std::pair(0u, 64u), std::pair(512u, 4096u), std::pair(64u, 128u)}) {
    StoreContents forged = whole;
    Manifest m = *DecodeManifest(whole.at(kManifest));
    m.sink_tokens = sinks;
    m.window_tokens = window;
    forged[kManifest] = Encode(m);
    ASSERT_TRUE(Import(forged, {.model = &model_.info()}).ok());
    EXPECT_TRUE(Used().ok());
  }
}

TEST_F(HostileImportTest, InconsistentDocumentRecordsAreRefused) {
  const StoreContents whole = True();
  const std::pair<int, std::string> key{static_cast<int>(Table::kMeta), DocumentKey(DocumentId{1})};
  const DocumentRecord good = *DecodeDocument(whole.at(key));
  const std::vector<std::function<void(DocumentRecord&)>> changes = {
      [](DocumentRecord& d) { d.id = DocumentId{2}; },
      [](DocumentRecord& d) { d.id = DocumentId{0}; },
      [](DocumentRecord& d) { d.id = DocumentId{UINT32_MAX}; },
      [](DocumentRecord& d) { d.tokens = d.committed_tokens = uint64_t{1} << 60; },
      [](DocumentRecord& d) { d.tokens = d.committed_tokens = d.tokens + kChunkTokensMax; },
      [](DocumentRecord& d) { d.committed_tokens = d.tokens + 1; },
      [](DocumentRecord& d) { d.bytes = uint64_t{1} << 60; },
      [](DocumentRecord& d) { d.chunk_tokens = {}; },
      [](DocumentRecord& d) { d.pass_tokens = 1u << 31; },
      [](DocumentRecord& d) { d.assistant_begin = d.tokens + 1; },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    SCOPED_TRACE("change " + std::to_string(i));
    StoreContents forged = whole;
    DocumentRecord d = good;
    changes[i](d);
    forged[key] = Encode(d);
    EXPECT_EQ(Import(forged).code(), StatusCode::kDataLoss);
  }
  // More tokens than the text chunk has, within the limit of a record.
  StoreContents forged = whole;
  DocumentRecord d = good;
  d.tokens = d.committed_tokens = d.tokens + 1000;
  forged[key] = Encode(d);
  ASSERT_TRUE(Import(forged).ok());
  EXPECT_EQ(Used().code(), StatusCode::kDataLoss);
}

TEST_F(HostileImportTest, AnIncompleteTextWithoutItsResumeStateIsIngestedAgain) {
  const StoreContents whole = True();
  StoreContents forged = whole;
  size_t resumes = 0;
  for (auto& [key, value] : forged) {
    if (key.first != static_cast<int>(Table::kMeta) || !key.second.starts_with(kResumePrefix))
      continue;
    ++resumes;
    ResumeRecord resume = *DecodeResume(value);
    resume.native = std::string(1 << 16, '\xff');
    value = Encode(resume);
  }
  ASSERT_EQ(resumes, 1u);
  ASSERT_TRUE(Import(forged).ok());
  EXPECT_TRUE(engine_->Verify("import").ok());
  const Result<IngestReport> read =
      engine_->Ingest("import", {"stopped", PlainText(9000, 2)}, nullptr, nullptr);
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_EQ(read->outcome, IngestReport::Outcome::kResumed);
  EXPECT_EQ(read->tokens_read, read->tokens) << "from its beginning";
  // In the memory that it was exported from, ingest continues and ends with the same bytes.
  ASSERT_TRUE(engine_->Ingest("tales", {"stopped", PlainText(9000, 2)}, nullptr, nullptr).ok());
  engine_->CloseMemory();
  StoreContents there =
      Contents(**OpenRocksStore({.path = home_ / "h/memories/tales", .create_if_missing = false}));
  StoreContents here =
      Contents(**OpenRocksStore({.path = home_ / "h/memories/import", .create_if_missing = false}));
  here[kManifest] = there[kManifest];  // this record holds the memory's name
  EXPECT_EQ(Difference(there, here), "");
}

TEST_F(HostileImportTest, BlocksMustBeCompleteAndFinite) {
  const StoreContents whole = True();
  const BlockShape shape{static_cast<uint32_t>(model_.info().geometry.layers.size()),
                         model_.info().geometry.kv_width()};
  for (const bool short_blocks : {true, false}) {
    StoreContents forged = whole;
    for (auto& [key, value] : forged) {
      if (key.first != static_cast<int>(Table::kBlocks)) continue;
      KvBlock block = *DecodeBlock(value, shape);
      if (short_blocks) {
        block.tokens = std::min(block.tokens, 3u);
      } else {
        block.data[1] = 0x7c00;  // infinity
      }
      value = ExactCodec().Encode(block);
    }
    ASSERT_TRUE(Import(forged).ok());
    const Result<AskReply> reply =
        engine_->Ask("import", kQuestion, {.answer_prefix = "It is", .max_tokens = 8});
    ASSERT_TRUE(reply.ok()) << reply.status().ToString();
    EXPECT_GT(reply->degradation.blocks_lost, 0u);
    EXPECT_EQ(Used().code(), StatusCode::kDataLoss);
  }
}

TEST_F(HostileImportTest, TokensMustBeInTheModelsVocabulary) {
  const StoreContents whole = True();
  for (const TokenId token :
       {TokenId{-1}, INT32_MIN, INT32_MAX, static_cast<TokenId>(model_.info().vocab_size)}) {
    StoreContents forged = whole;
    for (auto& [key, value] : forged) {
      if (key.first != static_cast<int>(Table::kText)) continue;
      TextChunk chunk = *DecodeTextChunk(value);
      std::fill(chunk.tokens.begin(), chunk.tokens.end(), token);
      value = Encode(chunk);
    }
    ASSERT_TRUE(Import(forged).ok());
    EXPECT_EQ(Used().code(), StatusCode::kDataLoss);
  }
}

TEST_F(HostileImportTest, CompressedTextRecordsCannotExhaustMemory) {
  TextChunk chunk;
  chunk.text = std::string(kChunkBytesMax, 'a');
  chunk.tokens.assign(kChunkTokensMax, 97);
  chunk.token_bytes.assign(kChunkTokensMax, 0);
  chunk.token_bytes[0] = static_cast<uint16_t>(kChunkBytesMax);
  EXPECT_TRUE(DecodeTextChunk(Encode(chunk)).ok());
  chunk.tokens.assign(64u << 20, 97);  // 5 KB compressed
  chunk.token_bytes.assign(64u << 20, 0);
  const std::string bytes = Encode(chunk);
  EXPECT_LT(bytes.size(), 64u << 10);
  EXPECT_EQ(DecodeTextChunk(bytes).status().code(), StatusCode::kDataLoss);
}

TEST_F(HostileImportTest, ValuesMustFitTheBudget) {
  const StoreContents whole = True();
  const int text = static_cast<int>(Table::kText), index = static_cast<int>(Table::kIndex),
            blocks = static_cast<int>(Table::kBlocks);
  StoreContents forged = whole;
  forged[{text, NumberedKey(DocumentId{1}, 0)}] = std::string(kTextRecordBytesMax + 1, 'x');
  EXPECT_EQ(Import(forged).code(), StatusCode::kDataLoss);
  forged = whole;
  forged[{blocks, NumberedKey(DocumentId{1}, 0)}] = std::string(32u << 20, 'x');
  EXPECT_EQ(Import(forged).code(), StatusCode::kResourceExhausted);
  forged = whole;
  forged[{index, ListsKey(DocumentId{1}, 0)}] = std::string(32u << 20, 'x');
  engine_->TakeNotes();
  ASSERT_TRUE(Import(forged).ok());
  EXPECT_THAT(engine_->TakeNotes(), testing::Contains(HasSubstr("reindex")));
  EXPECT_TRUE(Used().ok()) << "lists can be made again";
  EXPECT_LE(engine_->budget().peak_bytes(), engine_->budget().limit_bytes());
}

TEST_F(HostileImportTest, UnknownKeysAreRefused) {
  const StoreContents whole = True();
  for (const auto& [table, key] :
       {std::pair(0, std::string("\0seal", 5)), std::pair(0, std::string("document/")),
        std::pair(1, std::string("x")), std::pair(2, NumberedKey(DocumentId{1}, 0) + "Q"),
        std::pair(3, NumberedKey(DocumentId{1}, 0) + "L")}) {
    StoreContents forged = whole;
    forged[{table, key}] = "x";
    EXPECT_EQ(Import(forged).code(), StatusCode::kDataLoss) << table << " " << key;
    EXPECT_EQ(engine_->Exists("import").code(), StatusCode::kNotFound);
  }
}

TEST_F(HostileImportTest, ImportsRespectTheOwnersLimits) {
  const StoreContents whole = True();
  EXPECT_EQ(Import(whole, {.bytes_max = 100000}).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(Import(whole, {.documents_max = 1}).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(engine_->Exists("import").code(), StatusCode::kNotFound);
  EXPECT_TRUE(Import(whole, {.bytes_max = 64u << 20, .documents_max = 2}).ok());
}

}  // namespace
}  // namespace longhold
