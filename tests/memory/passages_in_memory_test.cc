// Passage vectors over the life of a memory: ingest, stop and resume, reload, damage, reindexing,
// forgetting, export and import, and a failing embedder.
//
// The expected bytes of a segment are those that PassageSegment::Build makes with a fresh embedder
// over the tokens that TokenizeText returns. The expected contents of a store are those of an
// ingest that was not disturbed. Sizes: documents of 9,000 and 600 tokens (three segments and one),
// and one of 6,000 that stops after 2,560, in the middle of its first segment. The toy model takes
// some 10 us a token.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "base/hash.h"
#include "memory/core/memory.h"
#include "memory/engine.h"
#include "memory/ingest/ingest.h"
#include "memory/record/record_keys.h"
#include "store/mem_provider.h"
#include "store/mem_store.h"
#include "tests/support/stores.h"
#include "tests/support/tales.h"
#include "tests/support/toy_embedder.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"
#include "tests/support/two_threads.h"

namespace longhold {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

RecallProfile OneHead() {
  RecallProfile p;
  p.name = "toy";
  p.heads = {{.layer = 2, .kv_head = 0}};
  p.window_tokens = 64;
  return p;
}

std::string TextOf(const std::string& name) {
  return name == "long"    ? PlainText(9000, 1)
         : name == "short" ? RandomText(1200, 2)
                           : PlainText(6000, 3);
}

bool IsPassages(const std::string& key) { return key.size() == 9 && key.back() == 'V'; }

// The keys of all passage segments.
std::vector<std::string> PassageKeys(ColdStore& store) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : Contents(store)) {
    if (key.first == static_cast<int>(Table::kIndex) && IsPassages(key.second))
      keys.push_back(key.second);
  }
  return keys;
}

StoreContents WithoutPassages(ColdStore& store) {
  StoreContents contents = Contents(store);
  std::erase_if(contents, [](const auto& entry) {
    return entry.first.first == static_cast<int>(Table::kIndex) && IsPassages(entry.first.second);
  });
  return contents;
}

std::string Mended(std::string bytes) {
  bytes.resize(bytes.size() - 8);
  const uint64_t checksum = Hash64(bytes);
  bytes.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
  return bytes;
}

struct World : Tales {
  ToyEmbedder embedder;

  std::unique_ptr<Memory> Create(ColdStore& store, TextEmbedder* use) {
    auto memory =
        std::move(Memory::Create(Borrow(store), "tales", model.info(), OneHead())).value();
    memory->UseEmbedder(use);
    return memory;
  }
  std::unique_ptr<Memory> Open(std::unique_ptr<ColdStore> store, TextEmbedder* use) {
    auto memory = Tales::Open(std::move(store));
    memory->UseEmbedder(use);
    return memory;
  }
  std::unique_ptr<Memory> Open(ColdStore& store, TextEmbedder* use) {
    return Open(Borrow(store), use);
  }
  // Stops after `passes` passes of 512 tokens.
  Status Ingest(Memory& memory, const std::string& name, int passes = INT32_MAX) {
    std::atomic<bool> stop{false};
    return IngestDocument(model, memory, vocabulary, {name, TextOf(name)}, &stop,
                          [&](const IngestProgress& p) {
                            stop = p.step == IngestStep::kReading && --passes == 0;
                          })
        .status();
  }
  // Three documents; the last one is stopped after five passes.
  std::unique_ptr<ColdStore> Ingested(TextEmbedder* use) {
    auto store = NewMemStore();
    const auto memory = Create(*store, use);
    EXPECT_TRUE(Ingest(*memory, "long").ok());
    EXPECT_TRUE(Ingest(*memory, "short").ok());
    EXPECT_TRUE(Ingest(*memory, "stopped", 5).ok());
    return store;
  }
  // The same, but the last one is stopped behind the first segment that is searchable.
  std::unique_ptr<ColdStore> Indexed(TextEmbedder* use) {
    auto store = NewMemStore();
    const auto memory = Create(*store, use);
    EXPECT_TRUE(Ingest(*memory, "long").ok());
    EXPECT_TRUE(Ingest(*memory, "short").ok());
    std::atomic<bool> stop{false};
    EXPECT_TRUE(IngestDocument(model, *memory, vocabulary, {"stopped", TextOf("stopped")}, &stop,
                               [&](const IngestProgress&) { stop = true; })
                    .ok());
    return store;
  }
  // The segment that Build makes of searchable tokens, without the memory's help.
  PassageSegment Expected(const DocumentRecord& d, uint32_t n, uint64_t fingerprint = 1) {
    TokenText all;
    std::vector<size_t> begins;  // [tokens]
    const std::vector<TextChunk> chunks = *TokenizeText(model, TextOf(d.name));
    for (const TextChunk& chunk : chunks) {
      size_t byte = all.text.size();
      for (const uint16_t bytes : chunk.token_bytes) {
        begins.push_back(byte);
        byte += bytes;
        all.token_bytes.push_back(bytes);
      }
      all.text += chunk.text;
    }
    begins.push_back(all.text.size());
    const size_t begin = size_t{n} * kCommitTokens;
    const size_t end = std::min<size_t>(begin + kCommitTokens, d.searchable_tokens);
    const TokenText text{all.text.substr(begins[begin], begins[end] - begins[begin]),
                         {all.token_bytes.begin() + static_cast<ptrdiff_t>(begin),
                          all.token_bytes.begin() + static_cast<ptrdiff_t>(end)}};
    ToyEmbedder fresh(fingerprint);
    return PassageSegment::Build(fresh, d.id, d.name, begin, text).value();
  }
  // Checks every passage segment of the store, and that there is none too many.
  void ExpectAllSegments(ColdStore& store, uint64_t fingerprint = 1) {
    const auto memory = Open(store, nullptr);
    size_t segments = 0;
    for (const DocumentRecord& d : memory->documents()) {
      for (uint32_t n = 0; uint64_t{n} * kCommitTokens < d.searchable_tokens; ++n, ++segments) {
        SCOPED_TRACE("segment " + std::to_string(n) + " of " + d.name);
        const Result<std::string> stored = store.Get(Table::kIndex, PassagesKey(d.id, n));
        ASSERT_TRUE(stored.ok()) << stored.status().ToString();
        EXPECT_TRUE(*stored == Expected(d, n, fingerprint).Encode());
      }
    }
    EXPECT_THAT(PassageKeys(store), SizeIs(segments));
  }
  std::vector<PassageMatch> Search(const Memory& memory, const std::string& question,
                                   size_t count = 20) {
    ToyEmbedder fresh(embedder.fingerprint());
    return memory.passages().Search(*fresh.Embed(question), count, SerialFor).value();
  }
};

// The vectors of all segments in the store.
uint64_t StoredVectors(ColdStore& store) {
  uint64_t vectors = 0;
  for (const std::string& key : PassageKeys(store))
    vectors += PassageSegment::Decode(*store.Get(Table::kIndex, key))->sentences.size();
  return vectors;
}

void ExpectSame(const std::vector<PassageMatch>& expected, const std::vector<PassageMatch>& got) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].document, expected[i].document);
    EXPECT_EQ(got[i].sentence, expected[i].sentence);
    EXPECT_EQ(got[i].passage, expected[i].passage);
    EXPECT_EQ(got[i].cosine, expected[i].cosine);
  }
}

// ---- Text

TEST(MemoryText, TheTextOfASpanIsThatOfItsTokensAcrossChunks) {
  World w;
  const auto store = NewMemStore();
  const auto memory = w.Create(*store, nullptr);
  std::vector<TextChunk> chunks;
  DocumentRecord record;
  record.name = "tale";
  std::vector<std::string> pieces;  // [tokens]
  for (uint64_t seed = 0; seed < 5; ++seed) {
    TextChunk chunk = TokenizeText(w.model, RandomText(60, seed)).value()[0];
    chunk.byte_begin = record.bytes;
    chunk.token_begin = record.tokens;
    record.bytes += chunk.text.size();
    record.tokens += chunk.tokens.size();
    size_t byte = 0;
    for (const uint16_t bytes : chunk.token_bytes) {
      pieces.push_back(chunk.text.substr(byte, bytes));
      byte += bytes;
    }
    chunks.push_back(std::move(chunk));
  }
  const DocumentId id = *memory->AddDocument(record, chunks);
  for (uint64_t begin = 0; begin <= pieces.size(); begin += 3) {
    std::string expected;
    for (uint64_t end = begin; end <= pieces.size(); ++end) {
      if (end > begin) expected += pieces[end - 1];
      const Result<TokenText> text = memory->TextOf(id, {begin, end});
      ASSERT_TRUE(text.ok()) << text.status().ToString();
      ASSERT_EQ(text->text, expected);
      ASSERT_EQ(text->token_bytes.size(), end - begin);
      for (uint64_t t = begin; t < end; ++t)
        ASSERT_EQ(text->token_bytes[t - begin], pieces[t].size());
    }
  }
  ASSERT_TRUE(DeleteValue(*store, Table::kText, NumberedKey(id, 2)).ok());
  const auto reader = w.Open(*store, nullptr);
  EXPECT_EQ(reader->TextOf(id, {0, pieces.size()}).status().code(), StatusCode::kDataLoss);
}

// ---- Ingest

TEST(PassagesInMemory, IngestWritesTheSegmentsThatBuildMakes) {
  World w;
  const auto store = w.Ingested(&w.embedder);
  w.ExpectAllSegments(*store);
  EXPECT_THAT(PassageKeys(*store), SizeIs(3 + 1 + 2));
  EXPECT_EQ(w.embedder.call_count, 6u) << "one call per segment";
  EXPECT_TRUE(w.Open(*store, &w.embedder)->Verify().ok());
}

TEST(PassagesInMemory, OtherValuesDoNotDependOnThem) {
  World w;
  const auto with = w.Ingested(&w.embedder), without = w.Ingested(nullptr);
  EXPECT_THAT(PassageKeys(*without), IsEmpty());
  EXPECT_EQ(Difference(Contents(*without), WithoutPassages(*with)), "");
}

TEST(PassagesInMemory, AnIngestThatWasStoppedInMidSegmentEndsWithTheSameBytes) {
  World w;
  const auto expected = NewMemStore();
  ASSERT_TRUE(w.Ingest(*w.Create(*expected, &w.embedder), "stopped").ok());
  for (const bool loaded : {false, true}) {
    for (const bool reopened : {false, true}) {
      SCOPED_TRACE(std::to_string(loaded) + std::to_string(reopened));
      const auto store = NewMemStore();
      auto memory = w.Create(*store, &w.embedder);
      ASSERT_TRUE(!loaded || memory->LoadIndexes().ok());
      for (const int passes : {1, 4, 4}) {  // 512, 2,560 and 4,608 tokens
        ASSERT_TRUE(w.Ingest(*memory, "stopped", passes).ok());
        w.ExpectAllSegments(*store);
        if (reopened) memory = w.Open(*store, &w.embedder);
        ASSERT_TRUE(memory->LoadIndexes().ok());
        EXPECT_EQ(memory->passages().vectors(), StoredVectors(*store));
        EXPECT_EQ(memory->index_report().tokens_without_vectors, 0u);
      }
      ASSERT_TRUE(w.Ingest(*memory, "stopped").ok());
      EXPECT_EQ(Difference(Contents(*expected), Contents(*store)), "");
      EXPECT_EQ(memory->passages().vectors(), StoredVectors(*store));
      ExpectSame(w.Search(*memory, "the elder and 40 camels"), [&] {
        const auto again = w.Open(*store, &w.embedder);
        EXPECT_TRUE(again->LoadIndexes().ok());
        return w.Search(*again, "the elder and 40 camels");
      }());
    }
  }
}

TEST(PassagesInMemory, WhatIsCommittedIsFoundWithoutLoadingAgain) {
  World w;
  const auto store = NewMemStore();
  const auto memory = w.Create(*store, &w.embedder);
  ASSERT_TRUE(memory->LoadIndexes().ok());
  EXPECT_THAT(w.Search(*memory, "camel"), IsEmpty());
  ASSERT_TRUE(w.Ingest(*memory, "long").ok());
  EXPECT_EQ(memory->passages().vectors(), StoredVectors(*store));
  EXPECT_THAT(w.Search(*memory, "camel"), SizeIs(20));
}

// ---- Loading

TEST(PassagesInMemory, AReopenedMemoryLoadsThemAndEmbedsNothing) {
  World w;
  const auto store = w.Ingested(&w.embedder);
  const uint64_t calls = w.embedder.call_count;
  for (const ParallelFor& parallel : {ParallelFor(SerialFor), ParallelFor(TwoThreads)}) {
    const auto memory = w.Open(*store, &w.embedder);
    ASSERT_TRUE(memory->LoadIndexes(parallel).ok());
    EXPECT_EQ(memory->passages().vectors(), StoredVectors(*store));
    EXPECT_EQ(memory->index_report().segments, 5u + 2 * 6) << "heads, words and passages";
    EXPECT_EQ(memory->index_report().segments_rebuilt, 0u);
    EXPECT_EQ(memory->index_report().tokens_without_vectors, 0u);
    for (const PassageMatch& match : w.Search(*memory, "river and 17 tents", 1000)) {
      EXPECT_LE(match.sentence.end, memory->Get(match.document).searchable_tokens);
      EXPECT_LE(match.passage.begin, match.sentence.begin);
      EXPECT_GE(match.passage.end, match.sentence.end);
    }
  }
  EXPECT_EQ(w.embedder.call_count, calls);
}

TEST(PassagesInMemory, WithoutAnEmbedderStoredOnesAreLeftAlone) {
  World w;
  const auto store = w.Ingested(&w.embedder);
  const std::vector<std::string> keys = PassageKeys(*store);
  ASSERT_TRUE(PutValue(*store, Table::kIndex, keys[1], "damaged").ok());
  const StoreContents before = Contents(*store);
  const auto memory = w.Open(*store, nullptr);
  ASSERT_TRUE(memory->LoadIndexes().ok());
  EXPECT_EQ(memory->passages().vectors(), 0u);
  EXPECT_EQ(memory->index_report().segments, 5u + 6);
  EXPECT_EQ(memory->index_report().segments_rebuilt, 0u);
  EXPECT_EQ(memory->index_report().tokens_without_vectors, 0u);
  ASSERT_TRUE(memory->Reindex(OneHead(), SerialFor, nullptr, nullptr).ok());
  EXPECT_EQ(Difference(before, Contents(*store)), "");
}

// A segment that cannot be decoded, is of another place, or says so under a valid checksum.
std::vector<std::function<std::string(const std::string& whole, const std::string& other)>>
Damages() {
  const auto with = [](size_t at, char value) {
    return [=](std::string whole, const std::string&) {
      whole[at] = value;
      return Mended(whole);
    };
  };
  return {
      [](std::string whole, const std::string&) {
        whole[whole.size() / 2] = static_cast<char>(whole[whole.size() / 2] ^ 1);
        return whole;
      },
      [](const std::string&, const std::string&) { return std::string(); },
      [](const std::string& whole, const std::string&) { return whole.substr(0, 60); },
      [](const std::string&, const std::string& other) { return other; },
      with(8, 77),       // of another document
      with(16, '\x40'),  // of another place
      with(14, '\x01'),  // of 65,536 tokens more
      with(48, '\x01'),  // its first sentence begins with token 1
  };
}

TEST(PassagesInMemory, ADamagedOneIsRebuiltAtLoadAndCounted) {
  World w;
  const auto store = w.Ingested(&w.embedder);
  const StoreContents whole = Contents(*store);
  const std::vector<std::string> keys = PassageKeys(*store);
  const auto damages = Damages();
  for (size_t i = 0; i < keys.size(); ++i) {
    for (size_t damage = 0; damage < damages.size(); ++damage) {
      SCOPED_TRACE("segment " + std::to_string(i) + ", damage " + std::to_string(damage));
      const std::string good = *store->Get(Table::kIndex, keys[i]);
      const std::string other = *store->Get(Table::kIndex, keys[(i + 1) % keys.size()]);
      ASSERT_TRUE(PutValue(*store, Table::kIndex, keys[i], damages[damage](good, other)).ok());
      const StoreContents damaged = Contents(*store);

      // A reader rebuilds it in RAM and leaves the store as it is.
      const auto reader = w.Open(NewFaultyStore(store.get(), {.fail_write_after = 1}), &w.embedder);
      ASSERT_TRUE(reader->LoadIndexes().ok());
      EXPECT_EQ(reader->index_report().segments_rebuilt, 1u);
      EXPECT_EQ(reader->index_report().segments_stored, 0u);
      EXPECT_EQ(reader->index_report().segments_lost, 0u);
      EXPECT_EQ(reader->index_report().tokens_without_vectors, 0u);
      EXPECT_EQ(Difference(damaged, Contents(*store)), "");

      // A writer stores it again.
      const auto writer = w.Open(*store, &w.embedder);
      ASSERT_TRUE(writer->LoadIndexes().ok());
      EXPECT_EQ(writer->index_report().segments_rebuilt, 1u);
      EXPECT_EQ(writer->index_report().segments_stored, 1u);
      ASSERT_EQ(Difference(whole, Contents(*store)), "");
      EXPECT_EQ(reader->passages().vectors(), StoredVectors(*store));
      EXPECT_EQ(writer->passages().vectors(), StoredVectors(*store));
    }
  }
}

TEST(PassagesInMemory, ADamagedOneWithDamagedTextIsLostAndTheRestServes) {
  World w;
  const auto store = w.Ingested(&w.embedder);
  const auto memory = w.Open(*store, &w.embedder);
  const DocumentId damaged = memory->Find("short")->id;
  const uint64_t lost =
      PassageSegment::Decode(*store->Get(Table::kIndex, PassagesKey(damaged, 0)))->sentences.size();
  const uint64_t all = StoredVectors(*store);
  ASSERT_TRUE(PutValue(*store, Table::kIndex, PassagesKey(damaged, 0), "damaged").ok());
  ASSERT_TRUE(DeleteValue(*store, Table::kText, NumberedKey(damaged, 0)).ok());
  ASSERT_TRUE(memory->LoadIndexes().ok());
  EXPECT_EQ(memory->index_report().segments_lost, 1u);
  EXPECT_EQ(memory->passages().vectors(), all - lost);
  EXPECT_EQ(memory->Reindex(OneHead(), SerialFor, nullptr, nullptr)->segments_lost, 1u);
}

// ---- Missing ones

TEST(PassagesInMemory, MissingOnesAreCountedAndReindexMakesThem) {
  World w;
  const auto expected = w.Ingested(&w.embedder), store = w.Ingested(nullptr);
  const auto memory = w.Open(*store, &w.embedder);
  const uint64_t calls = w.embedder.call_count;
  ASSERT_TRUE(memory->LoadIndexes().ok());
  EXPECT_EQ(memory->index_report().tokens_without_vectors, memory->searchable_tokens());
  EXPECT_EQ(memory->index_report().segments_rebuilt, 0u);
  EXPECT_EQ(memory->passages().vectors(), 0u);
  EXPECT_EQ(w.embedder.call_count, calls);
  EXPECT_TRUE(memory->Verify().ok()) << "none is damaged";

  uint64_t last = 0;
  const Result<IndexReport> report =
      memory->Reindex(OneHead(), SerialFor, nullptr, [&](uint64_t done, uint64_t total) {
        EXPECT_GT(done, last);
        EXPECT_EQ(total, memory->searchable_tokens());
        last = done;
      });
  ASSERT_TRUE(report.ok()) << report.status().ToString();
  EXPECT_EQ(report->segments, 5u + 2 * 6);
  EXPECT_EQ(report->segments_rebuilt, 6u);
  EXPECT_EQ(report->segments_stored, 6u);
  EXPECT_EQ(Difference(Contents(*expected), Contents(*store)), "");
  ASSERT_TRUE(memory->LoadIndexes().ok());
  EXPECT_EQ(memory->index_report().tokens_without_vectors, 0u);
  EXPECT_EQ(memory->passages().vectors(), StoredVectors(*expected));
  // Once more: nothing to do.
  EXPECT_EQ(memory->Reindex(OneHead(), SerialFor, nullptr, nullptr)->segments_rebuilt, 0u);
}

TEST(PassagesInMemory, OneMissingSegmentIsCountedWithItsTokens) {
  World w;
  const auto store = w.Ingested(&w.embedder);
  const StoreContents whole = Contents(*store);
  const auto memory = w.Open(*store, &w.embedder);
  ASSERT_TRUE(DeleteValue(*store, Table::kIndex, PassagesKey(memory->Find("long")->id, 1)).ok());
  ASSERT_TRUE(memory->LoadIndexes().ok());
  EXPECT_EQ(memory->index_report().tokens_without_vectors, kCommitTokens);
  EXPECT_EQ(memory->passages().vectors(), StoredVectors(*store));
  EXPECT_EQ(memory->Reindex(OneHead(), SerialFor, nullptr, nullptr)->segments_rebuilt, 1u);
  EXPECT_EQ(Difference(whole, Contents(*store)), "");
}

TEST(PassagesInMemory, ThoseOfAnotherEmbedderAreMissingOnes) {
  World w;
  const auto store = w.Ingested(&w.embedder);
  const StoreContents whole = Contents(*store);
  ToyEmbedder other(2), wider(1, ToyEmbedder::kDim + 1);
  for (ToyEmbedder* const embedder : {&other, &wider}) {
    const auto memory = w.Open(*store, embedder);
    ASSERT_TRUE(memory->LoadIndexes().ok());
    EXPECT_EQ(memory->index_report().tokens_without_vectors, memory->searchable_tokens());
    EXPECT_EQ(memory->passages().vectors(), 0u);
    EXPECT_EQ(embedder->call_count, 0u);
    EXPECT_TRUE(memory->Verify().ok());
  }
  EXPECT_EQ(Difference(whole, Contents(*store)), "");
  ASSERT_TRUE(w.Open(*store, &other)->Reindex(OneHead(), SerialFor, nullptr, nullptr).ok());
  w.ExpectAllSegments(*store, 2);
  // And back again.
  ASSERT_TRUE(w.Open(*store, &w.embedder)->Reindex(OneHead(), SerialFor, nullptr, nullptr).ok());
  EXPECT_EQ(Difference(whole, Contents(*store)), "");
}

// Of the format or of the cutting rules: their vectors would be those of other sentences.
TEST(PassagesInMemory, ThoseOfAnotherVersionAreMissingOnes) {
  World w;
  const auto store = w.Ingested(&w.embedder);
  const StoreContents whole = Contents(*store);
  for (const size_t field : {4, 44}) {
    std::string bytes;
    for (const std::string& key : PassageKeys(*store)) {
      bytes = *store->Get(Table::kIndex, key);
      bytes[field] = 77;
      ASSERT_TRUE(PutValue(*store, Table::kIndex, key, Mended(bytes)).ok());
    }
    const auto memory = w.Open(*store, &w.embedder);
    const uint64_t calls = w.embedder.call_count;
    ASSERT_TRUE(memory->LoadIndexes().ok());
    EXPECT_EQ(memory->index_report().tokens_without_vectors, memory->searchable_tokens());
    EXPECT_EQ(memory->index_report().segments_rebuilt, 0u);
    EXPECT_EQ(w.embedder.call_count, calls);
    EXPECT_TRUE(memory->Verify().ok());
    EXPECT_EQ(memory->Reindex(OneHead(), SerialFor, nullptr, nullptr)->segments_rebuilt, 6u);
    EXPECT_EQ(Difference(whole, Contents(*store)), "");
  }
}

// "stopped" is interrupted while it is indexed, and goes on without an embedder: only its first
// segment has vectors then.
TEST(PassagesInMemory, AnIngestThatGoesOnWithoutAnEmbedderLeavesTokensWithoutVectors) {
  World w;
  const auto store = w.Indexed(&w.embedder);
  ASSERT_TRUE(w.Ingest(*w.Open(*store, nullptr), "stopped").ok());
  const auto memory = w.Open(*store, &w.embedder);
  ASSERT_TRUE(memory->LoadIndexes().ok());
  EXPECT_EQ(memory->index_report().tokens_without_vectors,
            memory->Find("stopped")->tokens - kCommitTokens);
  EXPECT_TRUE(memory->Verify().ok());
  ASSERT_TRUE(memory->Reindex(OneHead(), SerialFor, nullptr, nullptr).ok());
  w.ExpectAllSegments(*store);
}

TEST(PassagesInMemory, AnIngestThatGoesOnWithAnotherEmbedderHasBothKinds) {
  World w;
  const auto store = w.Indexed(&w.embedder);
  ToyEmbedder other(2);
  const auto memory = w.Open(*store, &other);
  ASSERT_TRUE(memory->LoadIndexes().ok());
  ASSERT_TRUE(w.Ingest(*memory, "stopped").ok());
  const uint64_t without =
      memory->Find("long")->tokens + memory->Find("short")->tokens + kCommitTokens;
  EXPECT_EQ(memory->index_report().tokens_without_vectors, without);
  EXPECT_GT(memory->passages().vectors(), 0u);
  const auto again = w.Open(*store, &other);
  ASSERT_TRUE(again->LoadIndexes().ok());
  EXPECT_EQ(again->index_report().tokens_without_vectors, without);
  EXPECT_EQ(again->passages().vectors(), memory->passages().vectors());
}

// ---- Verify

TEST(PassagesInMemory, VerifyNamesADamagedOne) {
  World w;
  const auto store = w.Ingested(&w.embedder);
  const auto memory = w.Open(*store, &w.embedder);
  const std::string key = PassagesKey(memory->Find("long")->id, 1);
  const std::string good = *store->Get(Table::kIndex, key);
  ASSERT_TRUE(memory->LoadIndexes().ok());
  const auto damages = Damages();
  for (size_t damage = 0; damage < damages.size(); ++damage) {
    SCOPED_TRACE(damage);
    const std::string other = *store->Get(Table::kIndex, PassagesKey(memory->Find("short")->id, 0));
    ASSERT_TRUE(PutValue(*store, Table::kIndex, key, damages[damage](good, other)).ok());
    for (TextEmbedder* const use :
         {static_cast<TextEmbedder*>(&w.embedder), static_cast<TextEmbedder*>(nullptr)}) {
      const Status status = w.Open(*store, use)->Verify();
      EXPECT_EQ(status.code(), StatusCode::kDataLoss);
      EXPECT_THAT(status.message(),
                  AllOf(HasSubstr("segment 1 of long"), HasSubstr("longhold reindex tales")));
    }
    EXPECT_EQ(memory->Verify().code(), StatusCode::kDataLoss) << "also once it is loaded";
  }
  ASSERT_TRUE(memory->Reindex(OneHead(), SerialFor, nullptr, nullptr).ok());
  EXPECT_TRUE(memory->Verify().ok());
  EXPECT_TRUE(*store->Get(Table::kIndex, key) == good);
}

// ---- Forgetting

TEST(PassagesInMemory, ForgettingADocumentRemovesThem) {
  World w;
  const auto store = w.Ingested(&w.embedder);
  const auto memory = w.Open(*store, &w.embedder);
  ASSERT_TRUE(memory->LoadIndexes().ok());
  for (const char* name : {"long", "stopped", "short"}) {
    const DocumentId id = memory->Find(name)->id;
    ASSERT_TRUE(memory->Forget(id, name).ok());
    EXPECT_EQ(memory->passages().vectors(), StoredVectors(*store));
    for (const PassageMatch& match : w.Search(*memory, "the camel", 1000))
      EXPECT_NE(match.document, id);
    for (const std::string& key : PassageKeys(*store))
      EXPECT_FALSE(key.starts_with(NumberedKey(id, 0).substr(0, 4))) << name;
  }
  EXPECT_THAT(PassageKeys(*store), IsEmpty());
  EXPECT_EQ(memory->passages().vectors(), 0u);
  // The memory is used further.
  ASSERT_TRUE(w.Ingest(*memory, "short").ok());
  EXPECT_EQ(memory->passages().vectors(), StoredVectors(*store));
  EXPECT_GT(memory->passages().vectors(), 0u);
}

TEST(PassagesInMemory, ANewVersionReplacesThoseOfTheOld) {
  World w;
  const auto store = w.Ingested(&w.embedder);
  const auto memory = w.Open(*store, &w.embedder);
  ASSERT_TRUE(memory->LoadIndexes().ok());
  for (const auto& [name, text] :
       {std::pair("short", PlainText(700, 7)), std::pair("stopped", PlainText(500, 8))}) {
    const DocumentId old = memory->Find(name)->id;
    ASSERT_TRUE(
        IngestDocument(w.model, *memory, w.vocabulary, {name, text}, nullptr, nullptr).ok());
    EXPECT_NE(memory->Find(name)->id, old);
    EXPECT_FALSE(store->Get(Table::kIndex, PassagesKey(old, 0)).ok());
    EXPECT_EQ(memory->passages().vectors(), StoredVectors(*store));
  }
}

// ---- A failing embedder

TEST(PassagesInMemory, AFailingEmbedderStopsTheIngestWhichCanBeResumed) {
  World w;
  const auto expected = NewMemStore();
  ASSERT_TRUE(w.Ingest(*w.Create(*expected, &w.embedder), "long").ok());
  for (const uint64_t call : {1, 2, 3}) {
    for (const bool reopened : {false, true}) {
      SCOPED_TRACE("call " + std::to_string(call) + (reopened ? ", reopened" : ""));
      const auto store = NewMemStore();
      ToyEmbedder failing;
      failing.fail_at_call = call;
      auto memory = w.Create(*store, &failing);
      ASSERT_TRUE(memory->LoadIndexes().ok());
      const Status status = w.Ingest(*memory, "long");
      EXPECT_EQ(status.code(), StatusCode::kInternal);
      EXPECT_THAT(status.message(), HasSubstr("the toy embedder fails"));
      EXPECT_EQ(memory->searchable_tokens(), (call - 1) * kCommitTokens);
      EXPECT_EQ(memory->passages().vectors(), StoredVectors(*store));
      EXPECT_TRUE(memory->Verify().ok());
      w.ExpectAllSegments(*store);
      if (reopened) memory = w.Open(*store, &failing);
      ASSERT_TRUE(w.Ingest(*memory, "long").ok());
      EXPECT_EQ(Difference(Contents(*expected), Contents(*store)), "");
      ASSERT_TRUE(memory->LoadIndexes().ok());
      EXPECT_EQ(memory->passages().vectors(), StoredVectors(*store));
    }
  }
}

TEST(PassagesInMemory, AFailingEmbedderLeavesTheOtherIndexesAtLoad) {
  World w;
  const auto store = w.Ingested(&w.embedder);
  const StoreContents whole = Contents(*store);
  const std::vector<std::string> keys = PassageKeys(*store);
  ASSERT_TRUE(PutValue(*store, Table::kIndex, keys[2], "damaged").ok());
  const StoreContents damaged = Contents(*store);
  ToyEmbedder failing;
  failing.fail_at_call = 1;
  const auto memory = w.Open(*store, &failing);
  ASSERT_TRUE(memory->LoadIndexes().ok());
  EXPECT_EQ(Difference(damaged, Contents(*store)), "");
  EXPECT_GT(memory->index_report().tokens_without_vectors, 0u);
  EXPECT_EQ(memory->lexical().token_count(), memory->searchable_tokens());
  // The next load succeeds: nothing was left half made.
  const auto again = w.Open(*store, &failing);
  ASSERT_TRUE(again->LoadIndexes().ok());
  EXPECT_EQ(again->index_report().segments_rebuilt, 1u);
  EXPECT_EQ(again->passages().vectors(), StoredVectors(*store));
  EXPECT_EQ(Difference(whole, Contents(*store)), "");
}

TEST(PassagesInMemory, AReindexThatFailsOrStopsCanBeRepeated) {
  World w;
  const auto expected = w.Ingested(&w.embedder);
  for (const bool fails : {true, false}) {
    SCOPED_TRACE(fails);
    const auto store = w.Ingested(nullptr);
    ToyEmbedder failing;
    failing.fail_at_call = fails ? 3 : 0;
    const auto memory = w.Open(*store, &failing);
    ASSERT_TRUE(memory->LoadIndexes().ok());
    std::atomic<bool> stop{false};
    int segments = 0;
    const Status status =
        memory
            ->Reindex(OneHead(), SerialFor, &stop,
                      [&](uint64_t, uint64_t) { stop = !fails && ++segments == 2; })
            .status();
    EXPECT_EQ(status.code(), fails ? StatusCode::kInternal : StatusCode::kCancelled);
    EXPECT_TRUE(memory->Verify().ok());
    EXPECT_THAT(PassageKeys(*store), SizeIs(2)) << "what is made already stays";
    const auto again = w.Open(*store, &failing);
    ASSERT_TRUE(again->LoadIndexes().ok());
    EXPECT_EQ(again->passages().vectors(), StoredVectors(*store));
    EXPECT_EQ(again->index_report().tokens_without_vectors,
              again->searchable_tokens() - 2 * kCommitTokens);
    ASSERT_TRUE(again->Reindex(OneHead(), SerialFor, nullptr, nullptr).ok());
    EXPECT_EQ(Difference(Contents(*expected), Contents(*store)), "");
  }
}

// ---- Budget

// RAM that is reserved for the vectors of a memory's index, and what they take (passage_index.h).
struct VectorBytes {
  uint64_t reserved = 0, taken = 0;
};
VectorBytes LoadWithBudget(World& w, ColdStore& store) {
  uint64_t reserved[2] = {0, 0}, vectors = 0;
  for (const bool embed : {false, true}) {
    MemoryBudget budget(uint64_t{1} << 30);
    const auto memory = w.Open(store, embed ? &w.embedder : nullptr);
    EXPECT_TRUE(memory->UseBudget(&budget).ok());
    EXPECT_TRUE(memory->LoadIndexes().ok());
    reserved[embed ? 1 : 0] = budget.used_bytes();
    vectors = memory->passages().vectors();
  }
  return {reserved[1] - reserved[0], vectors * (ToyEmbedder::kDim + 40)};
}

TEST(PassagesInMemory, TheBudgetHoldsTheirRam) {
  World w;
  const VectorBytes usual = LoadWithBudget(w, *w.Ingested(&w.embedder));
  EXPECT_GT(usual.taken, 10000u);
  EXPECT_GE(usual.reserved, usual.taken);
  // Paragraphs of one word, so that sentences are as short as they get.
  std::string text;
  for (int i = 0; i < 1500; ++i) text += std::to_string(i % 10) + "\n\n";
  const auto store = NewMemStore();
  ASSERT_TRUE(IngestDocument(w.model, *w.Create(*store, &w.embedder), w.vocabulary,
                             {"digits", text}, nullptr, nullptr)
                  .ok());
  const VectorBytes small = LoadWithBudget(w, *store);
  EXPECT_GE(small.reserved, small.taken);
}

// An import can hold any segment with a right checksum, also one with a vector for every token.
TEST(PassagesInMemory, TheBudgetHoldsTheRamOfForgedOnes) {
  World w;
  const auto store = w.Ingested(&w.embedder);
  for (const std::string& key : PassageKeys(*store)) {
    PassageSegment forged = *PassageSegment::Decode(*store->Get(Table::kIndex, key));
    forged.sentences.clear();
    for (uint32_t t = 0; t < forged.token_count; ++t)
      forged.sentences.push_back(static_cast<uint16_t>(t));
    forged.passages = {0};
    forged.codes.assign(size_t{forged.token_count} * forged.dim, 200);
    ASSERT_TRUE(PutValue(*store, Table::kIndex, key, forged.Encode()).ok());
  }
  const VectorBytes bytes = LoadWithBudget(w, *store);
  EXPECT_GE(bytes.reserved, bytes.taken);
}

// ---- Export and import

class PassagesInEngineTest : public testing::Test {
 protected:
  std::unique_ptr<Engine> NewEngine(TextEmbedder* embedder) {
    auto engine = std::make_unique<Engine>(stores_.get(), EngineOptions{});
    const RecallProfile profile = OneHead();
    EXPECT_TRUE(engine->UseModel(&model_, &profile, embedder).ok());
    return engine;
  }
  std::string Export(Engine& engine) {
    std::string bytes;
    EXPECT_TRUE(engine
                    .Export("tales",
                            [&](std::string_view more) {
                              bytes += more;
                              return OkStatus();
                            })
                    .ok());
    return bytes;
  }
  Status Import(Engine& engine, const std::string& bytes) {
    size_t at = 0;
    return engine
        .Import(
            [&](std::span<char> out) -> Result<size_t> {
              const size_t count = std::min(out.size(), bytes.size() - at);
              std::copy_n(bytes.data() + at, count, out.data());
              at += count;
              return count;
            },
            "copy")
        .status();
  }
  StoreContents Passages(const std::string& memory) {
    StoreContents contents;
    stores_->Change(memory, [&](ColdStore& store) {
      for (const std::string& key : PassageKeys(store))
        contents[{static_cast<int>(Table::kIndex), key}] = *store.Get(Table::kIndex, key);
    });
    return contents;
  }

  const std::unique_ptr<MemProvider> stores_ = NewMemProvider();
  ToyModel model_{ToyOptions{.geometry = TinyGeometry()}};
  ToyEmbedder embedder_;
};

TEST_F(PassagesInEngineTest, ExportAndImportKeepThem) {
  auto engine = NewEngine(&embedder_);
  ASSERT_TRUE(engine->Ingest("tales", {"long", TextOf("long")}, nullptr, nullptr).ok());
  const std::string bytes = Export(*engine);
  const uint64_t calls = embedder_.call_count;
  ASSERT_TRUE(Import(*engine, bytes).ok());
  EXPECT_THAT(Passages("copy"), SizeIs(3));
  EXPECT_EQ(Difference(Passages("tales"), Passages("copy")), "");
  EXPECT_TRUE(engine->Verify("copy").ok());
  const Result<RecallReply> reply = engine->Recall("copy", "the elder and 40 camels", {});
  ASSERT_TRUE(reply.ok()) << reply.status().ToString();
  EXPECT_FALSE(reply->spans.empty());
  EXPECT_EQ(embedder_.call_count, calls + 1) << "only the question";
  EXPECT_THAT(engine->TakeNotes(), IsEmpty());
  // An engine without an embedder imports them too, for one that has it.
  engine = NewEngine(nullptr);
  ASSERT_TRUE(engine->Forget("copy", "", true).ok());
  ASSERT_TRUE(Import(*engine, bytes).ok());
  EXPECT_EQ(Difference(Passages("tales"), Passages("copy")), "");
}

// Under right checksums, a stranger's segments hold anything. Every later call must answer.
TEST_F(PassagesInEngineTest, ForgedOnesEndNoCall) {
  auto engine = NewEngine(&embedder_);
  ASSERT_TRUE(engine->Ingest("tales", {"long", TextOf("long")}, nullptr, nullptr).ok());
  const StoreContents whole = Passages("tales");
  const std::vector<std::function<void(PassageSegment&)>> changes = {
      [](PassageSegment& s) { s.document = DocumentId{UINT32_MAX}; },
      [](PassageSegment& s) { s.token_begin += kBlockTokens; },
      [](PassageSegment& s) { s.token_begin = uint64_t{64} << 31; },
      [](PassageSegment& s) { s.token_count = kPassageSegmentTokensMax; },
      [](PassageSegment& s) { s.token_count = s.sentences.back() + 1u; },
      [](PassageSegment& s) { s.embedder = 99; },
      [](PassageSegment& s) {
        s.dim = 1;
        s.codes.assign(s.sentences.size(), 255);
      },
      [](PassageSegment& s) {
        s.dim = kPassageDimMax;
        s.codes.assign(s.sentences.size() * s.dim, 255);
      },
      [](PassageSegment& s) { s.sentences.back() = UINT16_MAX; },
      [](PassageSegment& s) { s.passages.back() = UINT16_MAX; },
      [](PassageSegment& s) { std::fill(s.codes.begin(), s.codes.end(), 255); },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    SCOPED_TRACE("change " + std::to_string(i));
    engine = NewEngine(&embedder_);
    stores_->Change("tales", [&](ColdStore& store) {
      for (const auto& [key, value] : whole) {
        PassageSegment segment = *PassageSegment::Decode(value);
        changes[i](segment);
        ASSERT_TRUE(PutValue(store, Table::kIndex, key.second, segment.Encode()).ok());
      }
    });
    const std::string bytes = Export(*engine);
    ASSERT_TRUE(Import(*engine, bytes).ok());
    const Result<RecallReply> reply = engine->Recall("copy", "the elder and 40 camels", {});
    ASSERT_TRUE(reply.ok()) << reply.status().ToString();
    for (const RecalledSpan& span : reply->spans) EXPECT_FALSE(span.text.empty());
    ASSERT_TRUE(engine->Reindex("copy", nullptr).ok());
    EXPECT_TRUE(engine->Verify("copy").ok());
    const bool only_codes = i + 1 == changes.size();  // these cannot be told from true ones
    EXPECT_TRUE(only_codes || Difference(whole, Passages("copy")).empty());
    ASSERT_TRUE(engine->Forget("copy", "", true).ok());
  }
}

}  // namespace
}  // namespace longhold
