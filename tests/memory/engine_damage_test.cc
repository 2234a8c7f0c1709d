// The engine over memories that are damaged, or were made with other recall heads, on RocksDB in a
// temporary directory.
//
// Every stored value is damaged once, and a byte of every file is flipped at seeded random places.
// Expected: an answer that reports what was lost, or data_loss that names the memory; never a crash
// and never another code. The toy model generates a fixed answer, so the tests judge only what was
// recalled and cited. Sizes: one document of 7,500 tokens, two segments, two text chunks, and one
// incomplete document (it has a resume state).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "memory/engine.h"
#include "store/rocks_store.h"
#include "tests/store/temp_dir.h"
#include "tests/support/engines.h"
#include "tests/support/sanitized.h"
#include "tests/support/stores.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

constexpr char kNeedle[] = "The secret number of Methuselah is 7350194, said the elder.\n";
constexpr char kQuestion[] = "What is the secret number of Methuselah?";

RecallProfile Profile(std::vector<RecallHead> heads = {{.layer = 3, .kv_head = 1}}) {
  RecallProfile p;
  p.name = "toy-" + std::to_string(heads.size());
  p.heads = std::move(heads);
  p.signals["heads"] = 0.2;
  p.window_tokens = 64;
  return p;
}

class EngineDamageTest : public testing::Test {
 protected:
  void Restart(uint32_t native_window = 0, const RecallProfile& profile = Profile()) {
    engine_.reset();
    model_ =
        std::make_unique<ToyModel>(ToyOptions{.native_window = native_window, .answer = "7350194"});
    engine_ = std::make_unique<EngineInHome>(home_ / "h");
    const Status status = engine_->UseModel(model_.get(), &profile);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  void SetUp() override { Restart(); }
  void Ingest(const std::string& memory, const std::string& name, const std::string& text,
              bool stop = false) {
    std::atomic<bool> flag{false};
    const Result<IngestReport> r = engine_->Ingest(
        memory, {name, text}, &flag,
        [&](const IngestProgress& p) { flag = stop && p.step == IngestStep::kReading; });
    ASSERT_TRUE(r.ok()) << r.status().ToString();
  }
  // Without the text that is not read, an answer does not write.
  void IngestTales(bool with_unread = true) {
    std::string text = PlainText(36000, 1);
    text.insert(text.find('\n', 3000) + 1, kNeedle);
    Ingest("tales", "tale", text);
    if (with_unread) Ingest("tales", "stopped", PlainText(3000, 2), true);
  }
  void Damage(const std::function<void(ColdStore&)>& change, const std::string& memory = "tales") {
    engine_.reset();
    Result<std::unique_ptr<ColdStore>> store =
        OpenRocksStore({.path = PathOf(memory), .create_if_missing = false});
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    change(**store);
  }
  std::string PathOf(const std::string& memory) const { return home_ / ("h/memories/" + memory); }

  TempDir home_;
  std::unique_ptr<ToyModel> model_;
  std::unique_ptr<EngineInHome> engine_;
};

TEST_F(EngineDamageTest, EveryDamagedValueGivesADegradedAnswerOrOneClearLine) {
  for (const uint32_t native_window : {0u, 400u}) {
    Restart(native_window);
    if (native_window == 0) IngestTales();
    StoreContents whole;
    Damage([&](ColdStore& store) { whole = Contents(store); });
    uint64_t degraded = 0;
    std::map<std::pair<int, char>, int> tried;  // values tried of each kind
    for (const auto& [key, value] : whole) {
      const auto table = static_cast<Table>(key.first);
      // Each record of kMeta has its own kind. In the other tables the key's suffix after its two
      // integers gives the kind. Values of one kind are interchangeable.
      const char kind = key.second.size() > 8 ? key.second[8] : '\0';
      if (kSanitized && table != Table::kMeta && ++tried[{key.first, kind}] > 2) continue;
      if (table == Table::kBlocks &&
          (ReadBigEndian32(std::string_view(key.second).substr(4)) > 3 || native_window > 0))
        continue;
      for (const bool missing : {false, true}) {
        SCOPED_TRACE("table " + std::to_string(key.first) + " key " + key.second.substr(0, 9) +
                     (missing ? " missing" : " corrupt"));
        Damage([&](ColdStore& store) {
          std::string bad = value;
          bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 1);
          ASSERT_TRUE((missing ? DeleteValue(store, table, key.second)
                               : PutValue(store, table, key.second, bad))
                          .ok());
        });
        Restart(native_window);
        const Result<AskReply> ask = engine_->Ask("tales", kQuestion, {});
        const Result<RecallReply> recall = engine_->Recall("tales", kQuestion, {});
        EXPECT_EQ(ask.ok(), recall.ok());
        AskOptions faithful;
        faithful.attend = FaithfulOptions{};
        const Result<AskReply> near = engine_->Ask("tales", kQuestion, faithful);
        EXPECT_TRUE(near.ok() || near.status().code() == ask.status().code())
            << near.status().ToString();
        EXPECT_TRUE(near.ok() || !ask.ok()) << near.status().ToString();
        const bool record = table == Table::kMeta && !key.second.starts_with("resume/");
        if (!record) {
          ASSERT_TRUE(ask.ok()) << ask.status().ToString();
          ASSERT_TRUE(recall.ok()) << recall.status().ToString();
          EXPECT_EQ(ask->answer, "7350194");
          degraded += ask->degradation.blocks_lost + ask->degradation.spans_lost > 0;
          for (const Citation& c : ask->citations) EXPECT_FALSE(c.span.text.empty());
        } else if (!ask.ok()) {
          EXPECT_EQ(ask.status().code(), key.second == "manifest" && missing
                                             ? StatusCode::kNotFound
                                             : StatusCode::kDataLoss)
              << ask.status().ToString();
          EXPECT_THAT(ask.status().message(), HasSubstr("tales"));
        } else {
          EXPECT_TRUE(missing) << "a corrupt record was read";
        }
        Damage(
            [&](ColdStore& store) { ASSERT_TRUE(PutValue(store, table, key.second, value).ok()); });
      }
    }
    EXPECT_GT(degraded, 0u);
  }
}

TEST_F(EngineDamageTest, SpansWithDamagedTextAreLeftOutAndCounted) {
  IngestTales();
  const Result<AskReply> whole = engine_->Ask("tales", kQuestion, {});
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ(whole->degradation.spans_lost, 0u);
  Damage([](ColdStore& store) {
    std::string key;
    AppendBigEndian32(&key, 1);
    AppendBigEndian32(&key, 0);  // the chunk that holds the needle
    ASSERT_TRUE(DeleteValue(store, Table::kText, key).ok());
  });
  Restart();
  const Result<AskReply> ask = engine_->Ask("tales", kQuestion, {});
  ASSERT_TRUE(ask.ok()) << ask.status().ToString();
  EXPECT_GT(ask->degradation.spans_lost, 0u);
  EXPECT_EQ(ask->citations.size(), ask->spans);
  for (const Citation& c : ask->citations)
    EXPECT_EQ(c.span.text.find("Methuselah"), std::string::npos);
  const Result<RecallReply> recall = engine_->Recall("tales", kQuestion, {});
  ASSERT_TRUE(recall.ok());
  EXPECT_EQ(recall->degradation.spans_lost, ask->degradation.spans_lost);
}

TEST_F(EngineDamageTest, AFlippedByteInAnyFileGivesAnAnswerOrDataLoss) {
  constexpr uint64_t kSeed = 3;
  SCOPED_TRACE(kSeed);
  std::mt19937_64 rng(kSeed);
  IngestTales(/*with_unread=*/false);
  engine_.reset();
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(PathOf("tales"))) {
    if (entry.file_size() > 0 && entry.path().filename() != "LOG") files.push_back(entry.path());
  }
  ASSERT_GE(files.size(), 5u);
  uint64_t answers = 0, losses = 0;
  for (const fs::path& file : files) {
    for (int i = 0; i < (kSanitized ? 4 : 12); ++i) {
      const auto at = static_cast<std::streamoff>(rng() % fs::file_size(file));
      const auto flip = [&] {
        std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
        f.seekg(at);
        const char byte = static_cast<char>(f.get() ^ 0x20);
        f.seekp(at);
        f.put(byte);
      };
      flip();
      SCOPED_TRACE(file.filename().string() + " at " + std::to_string(at));
      Restart();
      const Status ask = engine_->Ask("tales", kQuestion, {}).status(),
                   recall = engine_->Recall("tales", kQuestion, {}).status();
      for (const Status& status : {ask, recall}) {
        EXPECT_TRUE(status.ok() || status.code() == StatusCode::kDataLoss) << status.ToString();
        EXPECT_TRUE(status.ok() || status.message().find("tales") != std::string::npos)
            << status.ToString();
      }
      ask.ok() ? ++answers : ++losses;
      EXPECT_TRUE(engine_->List().ok());
      flip();
    }
  }
  EXPECT_GT(answers, 10u);
  EXPECT_GT(losses, 0u);
  Restart();
  EXPECT_TRUE(engine_->Verify("tales").ok());
}

TEST_F(EngineDamageTest, ListShowsHealthyMemoriesAndReportsDamagedOnes) {
  for (const char* name : {"a", "b", "c", "d"}) Ingest(name, "tale", PlainText(500, 1));
  Damage(
      [](ColdStore& store) {
        ASSERT_TRUE(PutValue(store, Table::kMeta, "manifest", "rubbish").ok());
      },
      "b");
  engine_.reset();
  fs::remove(PathOf("c") + "/CURRENT");
  fs::create_directories(PathOf("empty"));
  engine_ = std::make_unique<EngineInHome>(home_ / "h");
  const Result<std::vector<MemoryInfo>> list = engine_->List();
  ASSERT_TRUE(list.ok()) << list.status().ToString();
  ASSERT_EQ(list->size(), 4u);
  for (const MemoryInfo& m : *list) {
    const bool damaged = m.name == "b" || m.name == "c";
    EXPECT_EQ(m.status.code(), damaged ? StatusCode::kDataLoss : StatusCode::kOk)
        << m.status.ToString();
    EXPECT_EQ(m.documents.size(), damaged ? 0u : 1u);
    EXPECT_GT(m.disk_bytes, 500u);
    EXPECT_EQ(m.status.message().find("memor") != std::string::npos, damaged)
        << m.status.ToString();
  }
}

TEST_F(EngineDamageTest, AWholeMemoryCanBeForgottenInAnyState) {
  const auto forgotten = [&](const std::string& name) {
    const Status status = engine_->Forget(name, "", true);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return !fs::exists(PathOf(name)) && engine_->Exists(name).code() == StatusCode::kNotFound;
  };
  Ingest("manifest", "tale", PlainText(500, 1));
  Damage(
      [](ColdStore& store) {
        ASSERT_TRUE(PutValue(store, Table::kMeta, "manifest", "rubbish").ok());
      },
      "manifest");
  Restart();
  EXPECT_TRUE(forgotten("manifest"));
  Ingest("files", "tale", PlainText(500, 1));
  engine_.reset();
  std::ofstream(PathOf("files") + "/CURRENT") << "MANIFEST-999999\n";
  Restart();
  EXPECT_EQ(engine_->Show("files").status().code(), StatusCode::kDataLoss);
  EXPECT_TRUE(forgotten("files"));
  Ingest("open", "tale", PlainText(500, 1));
  EXPECT_TRUE(forgotten("open")) << "this engine's own writer does not prevent it";
  EXPECT_TRUE(fs::is_empty(home_ / "h/memories"));

  // Another process is writing, or the directory is not a memory.
  Ingest("busy", "tale", PlainText(500, 1));
  EngineInHome second(home_ / "h");
  const Status busy = second.Forget("busy", "", true);
  EXPECT_EQ(busy.code(), StatusCode::kFailedPrecondition) << busy.ToString();
  EXPECT_THAT(busy.message(), AllOf(HasSubstr("busy"), HasSubstr("another process")));
  EXPECT_EQ(engine_->Show("busy")->documents.size(), 1u);
  fs::create_directories(PathOf("letters"));
  std::ofstream(PathOf("letters") + "/dear.txt") << "mine";
  EXPECT_EQ(engine_->Forget("letters", "", true).code(), StatusCode::kNotFound);
  EXPECT_TRUE(fs::exists(PathOf("letters") + "/dear.txt"));
}

TEST_F(EngineDamageTest, ExistsAnswersWithoutOpening) {
  Ingest("a", "tale", PlainText(500, 1));
  engine_.reset();
  fs::remove(PathOf("a") + "/CURRENT");
  EngineInHome engine(home_ / "h");
  EXPECT_TRUE(engine.Exists("a").ok());
  EXPECT_EQ(engine.Exists("b").code(), StatusCode::kNotFound);
  EXPECT_EQ(engine.Exists("a/b/c").code(), StatusCode::kInvalidArgument);
}

TEST_F(EngineDamageTest, AMemoryWithOtherHeadsIsAnsweredAndReindexAddsTheHeads) {
  IngestTales();
  const RecallProfile two = Profile({{.layer = 4, .kv_head = 0}, {.layer = 3, .kv_head = 0}});
  Restart(0, two);
  for (int i = 0; i < 2; ++i) {
    const Result<AskReply> r = engine_->Ask("tales", kQuestion, {});
    ASSERT_TRUE(r.ok()) << r.status().ToString();
    ASSERT_FALSE(r->citations.empty());
    const std::vector<std::string> notes = engine_->TakeNotes();
    ASSERT_EQ(notes.size(), i == 0 ? 1u : 0u) << "reported once";
    for (const std::string& note : notes)
      EXPECT_THAT(note, AllOf(HasSubstr("reindex tales"), HasSubstr("toy-2")));
  }
  const uint64_t forwards = model_->forward_count();
  uint64_t done = 0;
  const Result<ReindexReport> r =
      engine_->Reindex("tales", nullptr, [&](const IngestProgress& p) { done = p.tokens_done; });
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  EXPECT_EQ(model_->forward_count(), forwards) << "the text was read again";
  EXPECT_TRUE(r->other_heads);
  EXPECT_EQ(r->tokens, done);
  EXPECT_EQ(r->tokens, engine_->Show("tales")->tokens);
  EXPECT_EQ(r->segments_lost + r->blocks_lost, 0u);
  EXPECT_TRUE(engine_->TakeNotes().empty());
  Restart(0, two);
  const Result<RecallReply> recall = engine_->Recall("tales", kQuestion, {});
  ASSERT_TRUE(recall.ok()) << recall.status().ToString();
  ASSERT_FALSE(recall->spans.empty());
  EXPECT_TRUE(engine_->TakeNotes().empty());
  EXPECT_TRUE(engine_->Verify("tales").ok());
  EXPECT_FALSE(engine_->Reindex("tales", nullptr)->other_heads);

  std::atomic<bool> stop{true};
  Restart();
  EXPECT_EQ(engine_->Reindex("tales", &stop).status().code(), StatusCode::kCancelled);
  EXPECT_EQ(engine_->Reindex("nowhere", nullptr).status().code(), StatusCode::kNotFound);
}

TEST_F(EngineDamageTest, ADamagedIndexIsRebuiltForTheAnswerAndStoredByReindex) {
  IngestTales(/*with_unread=*/false);
  Damage([](ColdStore& store) {
    WriteBatch batch;
    batch.DeleteRange(Table::kIndex, "", std::string(16, '\xff'));
    ASSERT_TRUE(store.Write(std::move(batch), Durability::kSynced).ok());
  });
  Restart();
  const Result<AskReply> r = engine_->Ask("tales", kQuestion, {});
  ASSERT_TRUE(r.ok()) << r.status().ToString();
  ASSERT_FALSE(r->citations.empty());
  EXPECT_GT(r->coverage, 0.0);
  std::vector<std::string> notes = engine_->TakeNotes();
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_THAT(notes[0], AllOf(HasSubstr("tales"), HasSubstr("reindex tales")));
  const Status damaged = engine_->Verify("tales");
  EXPECT_EQ(damaged.code(), StatusCode::kDataLoss);
  EXPECT_THAT(damaged.message(), HasSubstr("reindex tales"));
  EXPECT_GT(engine_->Reindex("tales", nullptr)->segments_rebuilt, 0u);
  EXPECT_TRUE(engine_->Verify("tales").ok());
}

// X had its own text and is now a copy of Y. X's former text must not be cited, and both names must
// be reported.
TEST_F(EngineDamageTest, AFileThatBecameACopyOfAnotherIsNotCitedWithItsOldText) {
  const std::string old_text = PlainText(1500, 1) + kNeedle + PlainText(1500, 2),
                    shared = PlainText(2500, 3);
  Ingest("tales", "x", old_text);
  Ingest("tales", "y", shared);
  const Result<IngestReport> r = engine_->Ingest("tales", {"x", shared}, nullptr, nullptr);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->outcome, IngestReport::Outcome::kUnchanged);
  EXPECT_EQ(r->document, "y");
  Restart();
  const Result<RecallReply> recall = engine_->Recall("tales", kQuestion, {});
  ASSERT_TRUE(recall.ok());
  for (const RecalledSpan& s : recall->spans) {
    EXPECT_EQ(s.document, "y");
    EXPECT_EQ(s.text.find("Methuselah"), std::string::npos);
  }
  const MemoryInfo info = *engine_->Show("tales");
  ASSERT_EQ(info.documents.size(), 1u);
  EXPECT_EQ(info.documents[0].name, "y");
  EXPECT_EQ(info.documents[0].aliases, std::vector<std::string>{"x"});

  // Now y changes and x keeps the text. Then x is forgotten by name, and finally the text.
  Ingest("tales", "y", PlainText(700, 4));
  EXPECT_EQ(engine_->Show("tales")->documents.size(), 2u);
  Ingest("tales", "z", shared);
  ASSERT_TRUE(engine_->Forget("tales", "x", false).ok());
  const std::vector<std::string> notes = engine_->TakeNotes();
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_THAT(notes[0], HasSubstr("stays, as z"));
  ASSERT_TRUE(engine_->Forget("tales", "z", true).ok());
  EXPECT_TRUE(engine_->TakeNotes().empty());
  EXPECT_EQ(engine_->Show("tales")->documents.size(), 1u);
  EXPECT_EQ(engine_->Forget("tales", "x", true).code(), StatusCode::kNotFound);
  EXPECT_TRUE(engine_->Verify("tales").ok());
}

}  // namespace
}  // namespace longhold
