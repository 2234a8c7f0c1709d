// Memory on the in-memory store: documents, positions in the text, commits, and damage.
//
// Positions are compared with a naive walk over the whole text and all of its tokens. Texts have
// three to four chunks (32 KiB each), are ASCII or not, and end with a newline or not. Spans are
// random; half of them cross a chunk's edge. Damage is done directly in the store: each value is
// deleted, replaced by garbage, and swapped with another of its kind. Verify of a freshly opened
// and of a warm memory must find it.
#include "memory/core/memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "memory/ingest/ingest.h"
#include "memory/record/record_keys.h"
#include "store/mem_store.h"
#include "tests/support/stores.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"
#include "tests/support/wrapped_text.h"

namespace longhold {
namespace {

using testing::AllOf;
using testing::HasSubstr;

RecallProfile OneHead(const ToyModel& model) {
  RecallProfile p;
  p.name = "one-head";
  p.heads = {{.layer = model.info().geometry.layers.back(), .kv_head = 0}};
  p.window_tokens = 64;
  return p;
}

ToyOptions Tiny() { return {.geometry = TinyGeometry()}; }

std::unique_ptr<Memory> MustOpen(std::unique_ptr<ColdStore> store, const ToyModel& model) {
  Result<std::unique_ptr<Memory>> memory = Memory::Open(std::move(store), "tales", &model.info());
  EXPECT_TRUE(memory.ok()) << memory.status().ToString();
  return std::move(*memory);
}

std::unique_ptr<Memory> MustOpen(ColdStore& store, const ToyModel& model) {
  return MustOpen(Borrow(store), model);
}

std::unique_ptr<Memory> MustCreate(ColdStore& store, const ToyModel& model,
                                   const RecallProfile& profile) {
  Result<std::unique_ptr<Memory>> memory =
      Memory::Create(Borrow(store), "tales", model.info(), profile);
  EXPECT_TRUE(memory.ok()) << memory.status().ToString();
  return std::move(*memory);
}

std::unique_ptr<Memory> MustCreate(ColdStore& store, const ToyModel& model) {
  return MustCreate(store, model, OneHead(model));
}

Status IngestInto(Memory& memory, ToyModel& model, const std::string& name,
                  const std::string& text) {
  return IngestDocument(model, memory, LexicalVocabulary(model.pieces()), {name, text}, nullptr,
                        nullptr)
      .status();
}

DocumentId AddText(Memory& memory, const ToyModel& model, const std::string& name,
                   const std::string& text) {
  const std::vector<TextChunk> chunks = *TokenizeText(model, text);
  DocumentRecord record;
  record.name = name;
  record.bytes = text.size();
  record.tokens = chunks.back().token_begin + chunks.back().tokens.size();
  const Result<DocumentId> id = memory.AddDocument(record, chunks);
  EXPECT_TRUE(id.ok()) << id.status().ToString();
  return *id;
}

TEST(Memory, IsCreatedOnceAndOpensWithItsManifest) {
  const auto store = NewMemStore();
  const ToyModel model;
  EXPECT_EQ(Memory::Open(Borrow(*store), "tales", nullptr).status().code(), StatusCode::kNotFound);
  RecallProfile profile = OneHead(model);
  profile.heads = {{.layer = 4, .kv_head = 1}, {.layer = 1, .kv_head = 0}};
  { MustCreate(*store, model, profile); }
  EXPECT_EQ(Memory::Create(Borrow(*store), "tales", model.info(), profile).status().code(),
            StatusCode::kAlreadyExists);
  const auto memory = MustOpen(*store, model);
  const Manifest& m = memory->manifest();
  EXPECT_EQ(m.model_name, "toy");
  EXPECT_EQ(m.layers, model.info().geometry.layers);
  EXPECT_EQ(m.scan_layers, (std::vector<uint32_t>{4, 1}));
  EXPECT_EQ(m.scan_kv_heads, (std::vector<uint32_t>{1, 0}));
  EXPECT_EQ(m.window_tokens, 64u);
  EXPECT_EQ(memory->block_shape(), (BlockShape{3, 16}));
  EXPECT_TRUE(memory->documents().empty());
  EXPECT_EQ(memory->committed_tokens(), 0u);
  EXPECT_TRUE(memory->LoadIndexes().ok());
  EXPECT_TRUE(memory->Verify().ok());
}

TEST(Memory, OfAnotherModelIsRefusedWithBothModelNames) {
  const auto store = NewMemStore();
  const ToyModel mine, other({.name = "other", .fingerprint = "fedcba9876543210"});
  { MustCreate(*store, mine); }
  const Status status = Memory::Open(Borrow(*store), "tales", &other.info()).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), AllOf(HasSubstr("tales"), HasSubstr("toy (0123456789abcdef)"),
                                      HasSubstr("other (fedcba9876543210)")));
  EXPECT_TRUE(Memory::Open(Borrow(*store), "tales", nullptr).ok()) << "reading it needs no model";
}

TEST(Memory, DocumentIdsAreNeverReused) {
  const auto store = NewMemStore();
  const ToyModel model;
  auto memory = MustCreate(*store, model);
  const DocumentId a = AddText(*memory, model, "a", "one\n"),
                   b = AddText(*memory, model, "b", "two\n");
  EXPECT_LT(a, b);
  ASSERT_TRUE(memory->Forget(b, "b").ok());
  EXPECT_EQ(memory->Find("b"), nullptr);
  const DocumentId c = AddText(*memory, model, "b", "three\n");
  EXPECT_LT(b, c);
  memory = MustOpen(*store, model);
  ASSERT_EQ(memory->documents().size(), 2u);
  EXPECT_EQ(memory->Find("a")->id, a);
  EXPECT_EQ(memory->Find("b")->id, c);
  EXPECT_EQ(memory->Find("c"), nullptr);
  EXPECT_LT(c, AddText(*memory, model, "d", "four\n"));
}

// Finds the place of a span by walking from the start of the text.
TextPlace NaivePlace(const std::string& text, const std::vector<uint64_t>& ends, TokenSpan span) {
  TextPlace place;
  place.bytes = {span.begin == 0 ? 0 : ends[span.begin - 1], ends[span.end - 1]};
  place.text = text.substr(place.bytes.begin, place.bytes.size());
  const auto line_of = [&](uint64_t byte) {
    return 1 + static_cast<uint64_t>(
                   std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(byte), '\n'));
  };
  place.line_begin = line_of(place.bytes.begin);
  // The line of its last byte: a newline belongs to the line that it ends.
  place.line_end = place.bytes.size() == 0 ? place.line_begin : line_of(place.bytes.end - 1);
  return place;
}

TEST(Memory, FindsTokensTextBytesAndLinesOfAnySpan) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const auto store = NewMemStore();
    const ToyModel model({.bos = seed % 2 == 0, .collapse_spaces = seed % 3 == 0});
    auto memory = MustCreate(*store, model);
    std::string text = seed % 2 == 0 ? RandomText(110000, seed) : PlainText(100000, seed);
    if (seed > 2 && !text.ends_with('\n')) text += '\n';
    AddText(*memory, model, "before", RandomText(50000, seed + 100));
    const DocumentId id = AddText(*memory, model, "tale", text);

    std::vector<TokenId> tokens;
    std::vector<uint64_t> ends, edges;  // byte after each token; first token of each chunk
    const std::vector<TextChunk> chunks = *TokenizeText(model, text);
    for (const TextChunk& chunk : chunks) {
      edges.push_back(tokens.size());
      tokens.insert(tokens.end(), chunk.tokens.begin(), chunk.tokens.end());
      for (uint16_t n : chunk.token_bytes) ends.push_back((ends.empty() ? 0 : ends.back()) + n);
    }
    ASSERT_GE(edges.size(), 4u);
    ASSERT_EQ(memory->Get(id).tokens, tokens.size());

    std::mt19937_64 rng(seed);
    for (int i = 0; i < 200; ++i) {
      uint64_t begin = rng() % tokens.size(), end = begin + 1 + rng() % 300;
      if (i % 2 == 1)
        begin = edges[1 + rng() % (edges.size() - 1)] - rng() % 200, end = begin + 1 + rng() % 400;
      if (i == 0) begin = 0, end = tokens.size();
      if (i == 2) begin = 0, end = 1;
      if (i == 4) begin = tokens.size() - 1, end = tokens.size();
      const TokenSpan span{begin, std::min<uint64_t>(end, tokens.size())};
      if (i % 50 == 0) memory = MustOpen(*store, model);  // with a cold cache
      const Result<std::vector<TokenId>> got = memory->Tokens(id, span);
      ASSERT_TRUE(got.ok()) << got.status().ToString();
      ASSERT_EQ(*got, std::vector<TokenId>(tokens.begin() + static_cast<ptrdiff_t>(span.begin),
                                           tokens.begin() + static_cast<ptrdiff_t>(span.end)));
      const Result<TextPlace> place = memory->Locate(id, span);
      ASSERT_TRUE(place.ok()) << place.status().ToString();
      const TextPlace expected = NaivePlace(text, ends, span);
      ASSERT_EQ(place->bytes, expected.bytes) << span.begin << ".." << span.end;
      ASSERT_EQ(place->text, expected.text);
      ASSERT_EQ(place->line_begin, expected.line_begin) << span.begin << ".." << span.end;
      ASSERT_EQ(place->line_end, expected.line_end) << span.begin << ".." << span.end;
    }
    EXPECT_TRUE(memory->Tokens(id, {5, 5})->empty());
    EXPECT_EQ(memory->Locate(id, {5, 5})->text, "");
  }
}

TEST(Memory, GrowsSpansToWholeLinesWithinTheLimit) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const auto store = NewMemStore();
    const ToyModel model({.bos = seed % 2 == 0});
    auto memory = MustCreate(*store, model);
    std::string text = seed <= 2 ? PlainText(70000, seed) : RandomText(70000, seed);
    const DocumentId id = AddText(*memory, model, "tale", text);
    std::vector<uint64_t> ends, edges;
    const std::vector<TextChunk> chunks = *TokenizeText(model, text);
    for (const TextChunk& chunk : chunks) {
      edges.push_back(ends.size());
      for (uint16_t n : chunk.token_bytes) ends.push_back((ends.empty() ? 0 : ends.back()) + n);
    }
    const uint64_t count = ends.size();
    // Whether a line starts at token t: at the text's start and end, and after a newline byte.
    const auto starts = [&](uint64_t t) {
      return t == 0 || t == count || (ends[t - 1] > 0 && text[ends[t - 1] - 1] == '\n');
    };
    std::mt19937_64 rng(seed);
    for (int i = 0; i < 300; ++i) {
      const uint64_t middle = i % 3 == 0 ? edges[1 + rng() % (edges.size() - 1)] : rng() % count;
      const uint64_t begin = middle - std::min<uint64_t>(middle, rng() % 60),
                     end = std::min(count, middle + 1 + rng() % 60);
      const auto limit = static_cast<uint32_t>(i % 4 == 0 ? 0 : rng() % 80);
      TokenSpan expected{begin, end};
      for (uint64_t t = begin + 1; t-- > 0 && begin - t <= limit;) {
        if (starts(t)) {
          expected.begin = t;
          break;
        }
      }
      for (uint64_t t = end; t <= count && t - end <= limit; ++t) {
        if (starts(t)) {
          expected.end = t;
          break;
        }
      }
      const Result<TokenSpan> grown = memory->GrowToLines(id, {begin, end}, limit);
      ASSERT_TRUE(grown.ok()) << grown.status().ToString();
      ASSERT_EQ(grown->begin, expected.begin) << begin << ".." << end << " limit " << limit;
      ASSERT_EQ(grown->end, expected.end) << begin << ".." << end << " limit " << limit;
    }
  }
}

TEST(Memory, ASentenceEndsAtALineEndOrAtAFullStop) {
  ToyModel model(Tiny());  // tokens are bytes and a few longer pieces
  const auto store = NewMemStore();
  auto memory = MustCreate(*store, model);
  const std::string text = "Pi is 3.14 here. \"Who?\" she asked! No end\nconst int x = 5;\nlast";
  const DocumentId id = AddText(*memory, model, "tale", text);
  const uint64_t count = memory->Get(id).tokens;
  const std::vector<std::string> sentences = {
      "Pi is 3.14 here. ", "\"Who?\"", " she asked!", " No end\n", "const int x = 5;\n", "last"};
  std::set<std::string> seen;
  for (uint64_t t = 0; t < count; ++t) {
    const Result<TokenSpan> sentence = memory->SentenceAt(id, t, 64);
    ASSERT_TRUE(sentence.ok()) << sentence.status().ToString();
    ASSERT_TRUE(sentence->Contains(t));
    seen.insert(memory->Locate(id, *sentence)->text);
    for (const uint32_t reach : {0u, 3u}) {
      const TokenSpan cut = *memory->SentenceAt(id, t, reach);
      EXPECT_TRUE(cut.Contains(t));
      EXPECT_TRUE(cut.begin + reach >= t && cut.end <= t + 1 + reach) << t;
    }
  }
  EXPECT_EQ(seen, std::set<std::string>(sentences.begin(), sentences.end()));
}

// The sentence around the first `word` of `text`, searched up to `reach` tokens to either side.
std::string SentenceAround(const std::string& text, const std::string& word, uint32_t reach) {
  ToyModel model(Tiny());  // tokens are bytes and a few longer pieces
  const auto store = NewMemStore();
  auto memory = MustCreate(*store, model);
  const DocumentId id = AddText(*memory, model, "tale", text);
  const size_t byte = text.find(word);
  for (uint64_t t = 0; t < memory->Get(id).tokens; ++t) {
    if (memory->Locate(id, {t, t + 1})->bytes.end > byte)
      return memory->Locate(id, *memory->SentenceAt(id, t, reach))->text;
  }
  return "(not there)";
}

// Of two chunks one is lost. Sentences in the other chunk stay the same, except that those which
// crossed the edge are cut there. The lines stand apart, so that whether they were wrapped to a
// width does not depend on which of them can be seen.
TEST(Memory, SentencesDoNotReachIntoDamagedText) {
  ToyModel model(Tiny());
  const auto store = NewMemStore();
  std::string text;
  for (const char c : PlainText(70000, 1)) text += c == '\n' ? "\n\n" : std::string(1, c);
  { ASSERT_TRUE(IngestInto(*MustCreate(*store, model), model, "tale", text).ok()); }
  const DocumentId id{1};
  const auto whole = MustOpen(*store, model);
  const std::vector<uint64_t> starts = whole->Get(id).chunk_tokens;
  ASSERT_GE(starts.size(), 2u);
  const uint64_t edge = starts[1];
  for (const uint32_t lost : {0u, 1u}) {
    std::string key;
    AppendBigEndian32(&key, 1);
    AppendBigEndian32(&key, lost);
    const std::string value = *store->Get(Table::kText, key);
    ASSERT_TRUE(DeleteValue(*store, Table::kText, key).ok());
    const auto damaged = MustOpen(*store, model);
    for (uint64_t t = edge - 100; t < edge + 100; ++t) {
      SCOPED_TRACE(std::to_string(t) + " with chunk " + std::to_string(lost) + " lost");
      const Result<TokenSpan> sentence = damaged->SentenceAt(id, t, 80);
      if ((t < edge) == (lost == 0)) {
        EXPECT_EQ(sentence.status().code(), StatusCode::kDataLoss);
        continue;
      }
      ASSERT_TRUE(sentence.ok()) << sentence.status().ToString();
      const TokenSpan own = *whole->SentenceAt(id, t, 80);
      if (own.end <= edge || own.begin >= edge) {
        EXPECT_EQ(*sentence, own);
        continue;
      }
      EXPECT_TRUE(sentence->Contains(t));
      EXPECT_TRUE(lost == 0 ? sentence->begin >= edge : sentence->end <= edge);
    }
    ASSERT_TRUE(PutValue(*store, Table::kText, key, value).ok());
  }
}

// ---- TextAround

// What TextAround must give where the chunks `lost` are damaged: the tokens of [begin, end) that
// are in reach and next to the span.
TextWindow NaiveWindow(const TokenText& text, const std::vector<uint64_t>& edges,
                       const std::set<size_t>& lost, TokenSpan span, uint64_t reach) {
  const uint64_t tokens = text.token_bytes.size();
  uint64_t begin = span.begin > reach ? span.begin - reach : 0,
           end = std::min(span.end + reach, tokens);
  for (const size_t c : lost) {
    const uint64_t chunk_end = c + 1 < edges.size() ? edges[c + 1] : tokens;
    if (chunk_end <= span.begin) begin = std::max(begin, chunk_end);
    if (edges[c] >= span.end) end = std::min(end, edges[c]);
  }
  TextWindow window;
  window.begin = begin;
  window.text.text = TextOfTokens(text, begin, end);
  window.text.token_bytes.assign(text.token_bytes.begin() + static_cast<ptrdiff_t>(begin),
                                 text.token_bytes.begin() + static_cast<ptrdiff_t>(end));
  window.from_start = begin == 0;
  window.to_end = end == tokens;
  return window;
}

// Empty where they are the same.
std::string WindowDifference(const TextWindow& expected, const TextWindow& got) {
  if (got.begin != expected.begin) return "begins at " + std::to_string(got.begin);
  if (got.text.token_bytes != expected.text.token_bytes) return "has other tokens";
  if (got.text.text != expected.text.text) return "has another text: " + got.text.text;
  if (got.from_start != expected.from_start) return "from_start";
  return got.to_end == expected.to_end ? "" : "to_end";
}

// The document's tokens as one text, and the first token of each chunk.
TokenText WholeText(const ToyModel& model, const std::string& text, std::vector<uint64_t>* edges) {
  TokenText whole{text, {}};
  const std::vector<TextChunk> chunks = *TokenizeText(model, text);
  for (const TextChunk& chunk : chunks) {
    edges->push_back(whole.token_bytes.size());
    whole.token_bytes.insert(whole.token_bytes.end(), chunk.token_bytes.begin(),
                             chunk.token_bytes.end());
  }
  return whole;
}

TEST(Memory, TextAroundIsEverySliceOfAShortText) {
  for (const bool bos : {false, true}) {
    const auto store = NewMemStore();
    const ToyModel model({.bos = bos});
    auto memory = MustCreate(*store, model);
    const std::string text = "ab. is the\n日本é";
    std::vector<uint64_t> edges;
    const TokenText whole = WholeText(model, text, &edges);
    AddText(*memory, model, "before", PlainText(500, 1));
    const DocumentId id = AddText(*memory, model, "tale", text);
    const auto tokens = static_cast<uint32_t>(whole.token_bytes.size());
    for (uint64_t begin = 0; begin < tokens; ++begin) {
      for (uint64_t end = begin + 1; end <= tokens; ++end) {
        for (uint32_t reach = 0; reach <= tokens + 1; ++reach) {
          const Result<TextWindow> got = memory->TextAround(id, {begin, end}, {reach, reach});
          ASSERT_TRUE(got.ok()) << got.status().ToString();
          ASSERT_EQ(WindowDifference(NaiveWindow(whole, edges, {}, {begin, end}, reach), *got), "")
              << begin << ".." << end << " reach " << reach;
        }
      }
    }
  }
}

TEST(Memory, TextAroundIsASliceAcrossChunks) {
  for (uint64_t seed = 1; seed <= 2; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const auto store = NewMemStore();
    const ToyModel model({.bos = seed == 1});
    auto memory = MustCreate(*store, model);
    const std::string text = seed == 1 ? RandomText(110000, seed) : PlainText(100000, seed);
    std::vector<uint64_t> edges;
    const TokenText whole = WholeText(model, text, &edges);
    const DocumentId id = AddText(*memory, model, "tale", text);
    const uint64_t tokens = whole.token_bytes.size();
    ASSERT_GE(edges.size(), 4u);
    std::vector<uint64_t> places = {0, 1, tokens - 1, tokens - 2, tokens / 2};
    for (size_t c = 1; c < edges.size(); ++c) {
      for (const uint64_t back : {0, 1, 2, 64}) places.push_back(edges[c] - back);
    }
    for (const uint64_t begin : places) {
      for (const uint64_t size : {uint64_t{1}, uint64_t{2}, uint64_t{300}, tokens}) {
        const TokenSpan span{begin, std::min(begin + size, tokens)};
        for (const uint32_t reach : {0u, 1u, 63u, 320u, 40000u, UINT32_MAX}) {
          const Result<TextWindow> got = memory->TextAround(id, span, {reach, reach});
          ASSERT_TRUE(got.ok()) << got.status().ToString();
          ASSERT_EQ(WindowDifference(NaiveWindow(whole, edges, {}, span, reach), *got), "")
              << span.begin << ".." << span.end << " reach " << reach;
        }
      }
    }
  }
}

// Of four chunks any are lost. Damage beside the span limits the text; damage in it is an error.
TEST(Memory, TextAroundStopsAtDamagedText) {
  ToyModel model(Tiny());
  const auto store = NewMemStore();
  const std::string text = PlainText(100000, 1);
  std::vector<uint64_t> edges;
  const TokenText whole = WholeText(model, text, &edges);
  ASSERT_EQ(edges.size(), 4u);
  const uint64_t tokens = whole.token_bytes.size();
  const DocumentId id = AddText(*MustCreate(*store, model), model, "tale", text);
  std::vector<std::string> values;
  for (uint32_t c = 0; c < 4; ++c) values.push_back(*store->Get(Table::kText, NumberedKey(id, c)));
  for (uint32_t set = 1; set < 16; ++set) {
    std::set<size_t> lost;
    for (uint32_t c = 0; c < 4; ++c) {
      const bool damaged = (set >> c & 1) != 0;
      if (damaged) lost.insert(c);
      // deleted, garbage, or another chunk's text
      const std::string value = !damaged       ? values[c]
                                : set % 3 == 1 ? "garbage"
                                               : values[(c + 1) % 4];
      ASSERT_TRUE((damaged && set % 3 == 0
                       ? DeleteValue(*store, Table::kText, NumberedKey(id, c))
                       : PutValue(*store, Table::kText, NumberedKey(id, c), value))
                      .ok());
    }
    const auto memory = MustOpen(*store, model);
    for (const uint64_t edge : {uint64_t{0}, edges[1], edges[2], edges[3], tokens}) {
      for (const int from : {-80, -8, -1, 0, 7}) {
        const uint64_t begin = edge + static_cast<uint64_t>(from);
        if (begin >= tokens) continue;  // also before 0
        const TokenSpan span{begin, std::min(begin + 8, tokens)};
        for (const uint32_t reach : {0u, 1u, 90u, UINT32_MAX}) {
          SCOPED_TRACE(std::to_string(span.begin) + " reach " + std::to_string(reach) + " lost " +
                       std::to_string(set));
          const Result<TextWindow> got = memory->TextAround(id, span, {reach, reach});
          const bool whole_span = std::none_of(lost.begin(), lost.end(), [&](size_t c) {
            return edges[c] < span.end && (c + 1 == 4 || span.begin < edges[c + 1]);
          });
          ASSERT_EQ(got.status().code(), whole_span ? StatusCode::kOk : StatusCode::kDataLoss);
          if (!whole_span) continue;
          ASSERT_EQ(WindowDifference(NaiveWindow(whole, edges, lost, span, reach), *got), "");
        }
      }
    }
  }
}

// ---- SentenceAt over wrapped paragraphs

// Every token's sentence is the one that was wrapped, with its line breaks, where it is in reach.
// Paragraphs have three lines or more. Tokens are nearly bytes: 400 of them are some six lines.
TEST(Memory, ASentenceGoesOnInTheNextLineOfAWrappedParagraph) {
  for (const std::string line_end : {"\n", "\r\n"}) {
    for (const size_t width : {50u, 100u}) {
      std::mt19937_64 rng(width);
      std::string text;
      std::vector<std::string> sentences;
      for (int p = 0; p < 3; ++p) {
        std::string paragraph;
        const size_t count = 5 + rng() % 4;
        for (size_t s = 0; s < count; ++s) {
          sentences.push_back(WordySentence(rng, 6 + rng() % 20));
          paragraph += (s == 0 ? "" : " ") + sentences.back();
        }
        text += Wrapped(paragraph, width) + "\n\n";
      }
      std::string ended;
      for (const char c : text) ended += c == '\n' ? line_end : std::string(1, c);
      ToyModel model(Tiny());
      const auto store = NewMemStore();
      auto memory = MustCreate(*store, model);
      const DocumentId id = AddText(*memory, model, "tale", ended);
      // Sentences by their characters, without white space: where lines end does not count.
      const auto packed = [](std::string words) {
        std::erase_if(words, [](char c) { return c == ' ' || c == '\n' || c == '\r'; });
        return words;
      };
      size_t sentence = 0;
      std::string seen;  // of the sentence, packed
      for (uint64_t t = 0; t < memory->Get(id).tokens; ++t) {
        const std::string piece = packed(memory->Locate(id, {t, t + 1})->text);
        const Result<TokenSpan> span = memory->SentenceAt(id, t, 400);
        ASSERT_TRUE(span.ok()) << span.status().ToString();
        ASSERT_TRUE(span->Contains(t));
        const std::string got = memory->Locate(id, *span)->text;
        if (!piece.empty()) {
          if (seen == packed(sentences[sentence])) ++sentence, seen.clear();
          seen += piece;
          ASSERT_EQ(packed(got), packed(sentences[sentence])) << t << " width " << width;
        } else {
          ASSERT_LE(packed(got).size(), 400u);  // white space belongs to a sentence beside it
        }
      }
      EXPECT_EQ(sentence + 1, sentences.size());
    }
  }
}

TEST(Memory, OtherScriptsEndSentencesWithoutASpace) {
  const std::string text =
      "\u6771\u4eac\u306f\u96e8\u3002\u300c\u4eac\u90fd\u306f\u6674\uff01\u300d\u5927\u962a\u306f"
      "\uff1f\u96ea";
  EXPECT_EQ(SentenceAround(text, "\u6771", 100), "\u6771\u4eac\u306f\u96e8\u3002");
  EXPECT_EQ(SentenceAround(text, "\u90fd", 100), "\u300c\u4eac\u90fd\u306f\u6674\uff01\u300d");
  EXPECT_EQ(SentenceAround(text, "\u962a", 100), "\u5927\u962a\u306f\uff1f");
  EXPECT_EQ(SentenceAround("\u0939\u0948\u0964\u0915\u0939\u093e", "\u0915", 100),
            "\u0915\u0939\u093e");
}

TEST(Memory, WithoutLinesASentenceIsAnObjectOrAListItem) {
  std::string pairs = "{", objects = "[", code = "function(){", words;
  for (int i = 10; i < 40; ++i) {
    const std::string n = std::to_string(i);
    pairs += "\"key" + n + "\": \"value" + n + "\", ";
    objects += "{\"id\":" + n + ",\"name\":\"n" + n + "\",\"of\":[1,2]},";
    code += "v" + n + "=f(1,2);if(v" + n + ")g();";
    words += " word" + n;
  }
  EXPECT_EQ(SentenceAround(pairs, "value20", 60), " \"key20\": \"value20\",");
  EXPECT_EQ(SentenceAround(objects, "n20", 60), "{\"id\":20,\"name\":\"n20\",\"of\":[1,2]},");
  const std::string wide =
      "{\"name\":\"short\",\"value\":\"" + std::string(90, 'x') + "\",\"last\":\"y\"}";
  EXPECT_EQ(SentenceAround(wide + "," + wide, "short", 60), "{\"name\":\"short\",")
      << "the object is beyond reach";
  EXPECT_EQ(SentenceAround(code, "v20", 60), "v20=f(1,2);");
  EXPECT_EQ(SentenceAround(words, "word20", 24), " word17 word18 word19 word20 word21 word22 ")
      << "a token may end with a space";
  // The document's start and end end a sentence. A sentence end within reach takes precedence over
  // weaker boundaries.
  EXPECT_EQ(SentenceAround(pairs, "value10", 60), "{\"key10\": \"value10\",");
  EXPECT_EQ(SentenceAround("He said \"no\", and left. Then", "and", 60),
            "He said \"no\", and left. ");
}

TEST(Memory, ForgettingRemovesEverythingOfTheDocumentAndNothingElse) {
  ToyModel model(Tiny());
  const auto store = NewMemStore();
  auto memory = MustCreate(*store, model);
  ASSERT_TRUE(IngestInto(*memory, model, "kept", PlainText(5000, 1)).ok());
  const StoreContents before = Contents(*store);
  ASSERT_TRUE(IngestInto(*memory, model, "dropped", PlainText(5000, 2)).ok());
  ASSERT_TRUE(memory->LoadIndexes().ok());
  EXPECT_EQ(memory->committed_tokens(), memory->lexical().token_count());
  ASSERT_TRUE(memory->Forget(memory->Find("dropped")->id, "dropped").ok());
  EXPECT_EQ(memory->documents().size(), 1u);
  EXPECT_EQ(memory->committed_tokens(), memory->lexical().token_count());
  EXPECT_EQ(memory->committed_tokens(), memory->scan().token_count());
  EXPECT_TRUE(memory->Verify().ok());
  StoreContents after = Contents(*store);
  // The next document's id is the only trace.
  EXPECT_NE(after.at({0, "manifest"}), before.at({0, "manifest"}));
  after[{0, "manifest"}] = before.at({0, "manifest"});
  EXPECT_EQ(Difference(before, after), "");
}

TEST(Memory, LoadedIndexesReflectEveryCommit) {
  ToyModel model(Tiny());
  const auto store = NewMemStore();
  auto memory = MustCreate(*store, model);
  ASSERT_TRUE(memory->LoadIndexes().ok());
  const LexicalVocabulary vocabulary(model.pieces());
  const IngestInput input{"tale", PlainText(6000, 1)};
  for (int stops = 0;; ++stops) {
    // Stops after every pass. So the open segment is committed repeatedly, each time longer.
    std::atomic<bool> stop{false};
    const Result<IngestReport> r = IngestDocument(model, *memory, vocabulary, input, &stop,
                                                  [&](const IngestProgress&) { stop = true; });
    ASSERT_TRUE(r.ok()) << "after " << stops << " stops: " << r.status().ToString();
    EXPECT_EQ(memory->lexical().token_count(), memory->searchable_tokens());
    EXPECT_EQ(memory->scan().token_count(), memory->committed_tokens());
    const auto reopened = MustOpen(*store, model);
    ASSERT_TRUE(reopened->LoadIndexes().ok());
    EXPECT_EQ(reopened->lexical().token_count(), memory->lexical().token_count());
    if (memory->Find("tale")->complete()) break;
  }
}

TEST(Memory, VerifyNamesEachMissingOrDamagedValue) {
  ToyModel model(Tiny());
  const auto store = NewMemStore();
  auto memory = MustCreate(*store, model);
  ASSERT_TRUE(IngestInto(*memory, model, "first", PlainText(5000, 1)).ok());
  // two chunks
  ASSERT_TRUE(
      IngestInto(*memory, model, "tale", RandomText(40000, 2).substr(0, 36000) + "\n").ok());
  // An incomplete document has a resume state.
  std::atomic<bool> stop{false};
  ASSERT_TRUE(IngestDocument(model, *memory, LexicalVocabulary(model.pieces()),
                             {"unfinished", PlainText(3000, 3)}, &stop,
                             [&](const IngestProgress&) { stop = true; })
                  .ok());
  ASSERT_TRUE(memory->Verify().ok());
  const StoreContents whole = Contents(*store);
  size_t seen = 0;
  for (const auto& [key, value] : whole) {
    const auto table = static_cast<Table>(key.first);
    // a sample
    if (table == Table::kBlocks &&
        ReadBigEndian32(std::string_view(key.second).substr(4)) % 60 != 0)
      continue;
    ++seen;
    for (int damage = 0; damage < 3; ++damage) {
      std::string bad = value;
      switch (damage) {
        case 0: ASSERT_TRUE(DeleteValue(*store, table, key.second).ok()); break;
        case 1: bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 0x10); break;
        case 2: bad.resize(bad.size() - 1); break;
      }
      if (damage != 0) {
        ASSERT_TRUE(PutValue(*store, table, key.second, bad).ok());
      }
      SCOPED_TRACE("table " + std::to_string(key.first) + ", key of " +
                   std::to_string(key.second.size()) + " bytes, damage " + std::to_string(damage));
      const bool record = table == Table::kMeta && key.second.starts_with("document/");
      // A document whose record is missing does not exist. Missing summaries are recomputed on
      // demand. Without its resume state an incomplete document is ingested from its beginning.
      const bool made_anew = (table == Table::kIndex && key.second.ends_with('M')) ||
                             (table == Table::kMeta && key.second.starts_with("resume/"));
      const bool whole_without = damage == 0 && (record || made_anew);
      if (!whole_without) {
        const Status warm = memory->Verify();
        EXPECT_EQ(warm.code(), StatusCode::kDataLoss) << "warm: " << warm.ToString();
        EXPECT_THAT(warm.message(), HasSubstr("tales"));
      }
      Result<std::unique_ptr<Memory>> fresh = Memory::Open(Borrow(*store), "tales", &model.info());
      const Status cold = fresh.ok() ? (*fresh)->Verify() : fresh.status();
      if (whole_without) {
        EXPECT_TRUE(cold.ok()) << cold.ToString();
      } else if (key.second == "manifest" && damage == 0) {
        EXPECT_EQ(cold.code(), StatusCode::kNotFound) << cold.ToString();
      } else {
        EXPECT_EQ(cold.code(), StatusCode::kDataLoss) << "cold: " << cold.ToString();
        EXPECT_THAT(cold.message(), HasSubstr("tales"));
      }
      ASSERT_TRUE(PutValue(*store, table, key.second, value).ok());
    }
  }
  EXPECT_GE(seen, 20u);
  EXPECT_TRUE(memory->Verify().ok());
}

// Each value is valid but stored under another's key: its own checksum cannot tell.
TEST(Memory, VerifyFindsSwappedChunksAndSegments) {
  ToyModel model(Tiny());
  const auto store = NewMemStore();
  auto memory = MustCreate(*store, model);
  ASSERT_TRUE(IngestInto(*memory, model, "tale", PlainText(70000, 1)).ok());
  const StoreContents whole = Contents(*store);
  for (const Table table : {Table::kText, Table::kIndex}) {
    std::vector<std::pair<std::string, std::string>> values;
    for (const auto& [key, value] : whole) {
      if (key.first == static_cast<int>(table) &&
          (table == Table::kText || key.second.back() == 'L'))
        values.push_back({key.second, value});
    }
    ASSERT_GE(values.size(), 2u);
    ASSERT_TRUE(PutValue(*store, table, values[0].first, values[1].second).ok());
    ASSERT_TRUE(PutValue(*store, table, values[1].first, values[0].second).ok());
    const auto fresh = MustOpen(*store, model);
    EXPECT_EQ(fresh->Verify().code(), StatusCode::kDataLoss);
    if (table == Table::kText) {
      EXPECT_EQ(fresh->Tokens(DocumentId{1}, {0, 10}).status().code(), StatusCode::kDataLoss);
      EXPECT_EQ(fresh->Locate(DocumentId{1}, {0, 10}).status().code(), StatusCode::kDataLoss);
      EXPECT_EQ(fresh->Locate(DocumentId{1}, {60000, 60010}).status().code(),
                StatusCode::kDataLoss);
    }
    for (const auto& [key, value] : values) ASSERT_TRUE(PutValue(*store, table, key, value).ok());
  }
  // A segment of one document under the key of another, and the bytes of a block of another shape.
  ASSERT_TRUE(IngestInto(*memory, model, "other", PlainText(2000, 2)).ok());
  std::string key1, key2;
  for (std::string* key : {&key1, &key2}) {
    AppendBigEndian32(key, key == &key1 ? 1 : 2);
    AppendBigEndian32(key, 0);
    *key += 'L';
  }
  const std::string own = *store->Get(Table::kIndex, key2);
  ASSERT_TRUE(PutValue(*store, Table::kIndex, key2, *store->Get(Table::kIndex, key1)).ok());
  EXPECT_EQ(MustOpen(*store, model)->Verify().code(), StatusCode::kDataLoss);
  ASSERT_TRUE(PutValue(*store, Table::kIndex, key2, own).ok());
  EXPECT_TRUE(MustOpen(*store, model)->Verify().ok());
}

TEST(Memory, StoreErrorsAreReportedAndLeaveTheMemoryUnchanged) {
  ToyModel model(Tiny());
  const auto store = NewMemStore();
  { ASSERT_TRUE(IngestInto(*MustCreate(*store, model), model, "tale", PlainText(3000, 1)).ok()); }
  const StoreContents before = Contents(*store);
  {
    auto memory = MustOpen(NewFaultyStore(store.get(), {.fail_write_after = 1}), model);
    EXPECT_EQ(memory->Forget(DocumentId{1}, "tale").code(), StatusCode::kResourceExhausted);
    EXPECT_NE(memory->Find("tale"), nullptr);
    EXPECT_EQ(IngestInto(*memory, model, "more", "more text\n").code(),
              StatusCode::kResourceExhausted);
    EXPECT_EQ(memory->Find("more"), nullptr);
    EXPECT_TRUE(memory->Verify().ok());
  }
  EXPECT_EQ(Difference(before, Contents(*store)), "");
  {
    auto memory = MustOpen(NewFaultyStore(store.get(), {.corrupt_get_every = 3}), model);
    const Status status = memory->Verify();
    EXPECT_EQ(status.code(), StatusCode::kDataLoss);
    EXPECT_THAT(status.message(),
                AllOf(HasSubstr("tales"), HasSubstr("block d=1 b=2"), HasSubstr("checksum")));
  }
  for (uint64_t n = 1; n < 6; ++n) {
    auto memory =
        Memory::Open(NewFaultyStore(store.get(), {.fail_get_after = n}), "tales", &model.info());
    const Status status = memory.ok() ? (*memory)->Verify() : memory.status();
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << n << ": " << status.ToString();
  }
}

// Builds inverted lists for a memory of any size, because toy texts are small.
constexpr IvfLimits kAlways{.memory_tokens_min = 1, .document_tokens_min = 1000};

std::unique_ptr<Memory> MustOpenWithLists(ColdStore& store, const ToyModel& model) {
  std::unique_ptr<Memory> memory = MustOpen(store, model);
  memory->UseLists(kAlways);
  return memory;
}

TEST(Memory, BuildsInvertedListsOnlyAboveTheLimitAndLoadsThemAgain) {
  const auto store = NewMemStore();
  ToyModel model(Tiny());
  std::unique_ptr<Memory> memory = MustCreate(*store, model);
  ASSERT_TRUE(IngestInto(*memory, model, "long", PlainText(9000, 1)).ok());
  ASSERT_TRUE(IngestInto(*memory, model, "short", PlainText(300, 2)).ok());
  ASSERT_TRUE(memory->BuildLists(SerialFor).ok());
  const DocumentId longer = memory->documents()[0].id, shorter = memory->documents()[1].id;
  EXPECT_FALSE(memory->HasLists(longer));

  memory = MustOpenWithLists(*store, model);
  ASSERT_TRUE(memory->BuildLists(SerialFor).ok());
  EXPECT_TRUE(memory->HasLists(longer));
  EXPECT_FALSE(memory->HasLists(shorter));
  EXPECT_EQ(memory->relevance().token_count(), memory->committed_tokens());

  memory = MustOpenWithLists(*store, model);
  ASSERT_TRUE(memory->LoadIndexes().ok());
  EXPECT_TRUE(memory->HasLists(longer));
  ASSERT_TRUE(memory->Verify().ok());
  ASSERT_TRUE(memory->Forget(longer, "long").ok());
  EXPECT_FALSE(memory->HasLists(longer));
  memory = MustOpenWithLists(*store, model);
  ASSERT_TRUE(memory->LoadIndexes().ok());
  EXPECT_EQ(memory->relevance().token_count(), memory->committed_tokens());
}

TEST(Memory, IngestBuildsInvertedLists) {
  const auto store = NewMemStore();
  ToyModel model(Tiny());
  std::unique_ptr<Memory> memory = MustCreate(*store, model);
  memory->UseLists(kAlways);
  ASSERT_TRUE(IngestInto(*memory, model, "long", PlainText(9000, 1)).ok());
  EXPECT_TRUE(memory->HasLists(memory->documents()[0].id));
}

TEST(Memory, ScansADocumentWithDamagedInvertedListsUntilTheyAreRebuilt) {
  const auto store = NewMemStore();
  ToyModel model(Tiny());
  std::unique_ptr<Memory> memory = MustCreate(*store, model);
  memory->UseLists(kAlways);
  ASSERT_TRUE(IngestInto(*memory, model, "long", PlainText(9000, 1)).ok());
  const DocumentId id = memory->documents()[0].id;
  std::string key;
  ASSERT_TRUE(store
                  ->Scan(Table::kIndex, "", "\xff",
                         [&](std::string_view k, std::string_view) {
                           if (k.back() == 'F') key = std::string(k);
                           return true;
                         })
                  .ok());
  ASSERT_FALSE(key.empty());
  const std::string whole = *store->Get(Table::kIndex, key);
  std::string bytes = whole;
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  WriteBatch batch;
  batch.Put(Table::kIndex, key, bytes);
  ASSERT_TRUE(store->Write(std::move(batch), Durability::kSynced).ok());

  memory = MustOpenWithLists(*store, model);
  EXPECT_EQ(memory->Verify().code(), StatusCode::kDataLoss);
  ASSERT_TRUE(memory->LoadIndexes().ok());
  EXPECT_FALSE(memory->HasLists(id));
  EXPECT_EQ(memory->index_report().lists_lost, 1u);
  EXPECT_EQ(memory->relevance().token_count(), memory->committed_tokens());
  ASSERT_TRUE(memory->BuildLists(SerialFor).ok());
  EXPECT_TRUE(memory->HasLists(id));
  EXPECT_EQ(memory->index_report().lists_lost, 0u);
  EXPECT_TRUE(memory->Verify().ok());
  EXPECT_EQ(*store->Get(Table::kIndex, key), whole);
}

TEST(Memory, InvertedListsThatTheStoreRejectsServeWhileItIsOpen) {
  const auto store = NewMemStore();
  ToyModel model(Tiny());
  ASSERT_TRUE(IngestInto(*MustCreate(*store, model), model, "long", PlainText(9000, 1)).ok());
  const auto memory = std::move(Memory::Open(NewFaultyStore(store.get(), {.fail_write_after = 1}),
                                             "tales", &model.info()))
                          .value();
  memory->UseLists(kAlways);
  ASSERT_TRUE(memory->BuildLists(SerialFor).ok());
  EXPECT_TRUE(memory->HasLists(memory->documents()[0].id));
  const auto reader = MustOpenWithLists(*store, model);
  ASSERT_TRUE(reader->LoadIndexes().ok());
  EXPECT_FALSE(reader->HasLists(reader->documents()[0].id));
  EXPECT_TRUE(reader->Verify().ok()) << "lists that are missing are no damage";
}

}  // namespace
}  // namespace longhold
