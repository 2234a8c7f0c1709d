// A memory for a model that another engine runs.
//
// What is compared with what: rows that are fetched with rows that were put, element by element,
// after rotating them here in double precision; a memory that was put with one that a toy model
// read, by what recall finds. Sizes: documents of up to two commits, rows in pieces that end at,
// before and after block and commit edges. Tolerance: codec `exact` keeps 16 bits, so a key may be
// off by two roundings to fp16 (one when it was un-rotated, one when it was fetched), 2^-10 of the
// largest element of its pair.
#include "memory/sidecar/sidecar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <thread>

#include "memory/engine.h"
#include "memory/record/record_keys.h"
#include "store/mem_provider.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

using testing::HasSubstr;

ModelDescription Describe(const ToyModel& toy) {
  ModelDescription d;
  d.name = toy.info().name;
  d.fingerprint = toy.info().fingerprint;
  d.geometry = toy.info().geometry;
  d.layer_count = toy.info().layer_count;
  d.context_length = toy.info().context_length;
  d.pieces = TokenPieces(toy);
  d.bos = toy.Bos();
  return d;
}

// Keys and values of a document as float rows: [layers] of [tokens, kv_width].
struct FloatRows {
  std::vector<std::vector<float>> keys, values;

  FloatRows(const KvGeometry& g, size_t tokens, uint64_t seed = 0) {
    std::mt19937_64 rng(seed);
    std::normal_distribution<float> normal;
    keys.assign(g.layers.size(), std::vector<float>(tokens * g.kv_width()));
    values = keys;
    if (seed == 0) return;
    for (auto* all : {&keys, &values}) {
      for (auto& layer : *all) {
        for (float& x : layer) x = normal(rng);
      }
    }
  }
  template <typename Data>
  struct Pointers {
    std::vector<Data*> keys, values;
    KvArrays<Data> arrays(KvLayout layout) const { return {keys, values, layout}; }
  };
  template <typename Data>
  Pointers<Data> From(size_t token, size_t stride) {
    Pointers<Data> p;
    for (auto& layer : keys) p.keys.push_back(layer.data() + token * stride);
    for (auto& layer : values) p.values.push_back(layer.data() + token * stride);
    return p;
  }
};

// Pairs of both kinds, a part of the channels, and factors. tests/attention has YaRN.
KvGeometry RotatingGeometry() {
  KvGeometry g;
  g.layers = {0, 1, 3};
  g.q_heads = 4;
  g.kv_heads = 2;
  g.head_dim = 16;
  g.scale = 0.25f;
  g.rope = {RopeSpec{.neox = true, .rotary_dims = 16},
            RopeSpec{.rotary_dims = 16, .freq_base = 1e6f, .freq_scale = 0.25f},
            RopeSpec{.neox = true, .rotary_dims = 8, .freq_factors = {1, 2, 4, 8}}};
  return g;
}

// Rotates a key in double: the formula of attention/geometry.h.
std::vector<float> Rotated(const RopeSpec& rope, const float* key, uint32_t head_dim, int64_t at) {
  std::vector<float> out(key, key + head_dim);
  for (uint32_t i = 0; i < rope.rotary_dims / 2; ++i) {
    const double factor = rope.freq_factors.empty() ? 1 : rope.freq_factors[i];
    const double theta = rope.freq_scale * static_cast<double>(at) *
                         std::pow(rope.freq_base, -2.0 * i / rope.rotary_dims) / factor;
    const uint32_t a = rope.neox ? i : 2 * i, b = rope.neox ? i + rope.rotary_dims / 2 : 2 * i + 1;
    out[a] = static_cast<float>(key[a] * std::cos(theta) - key[b] * std::sin(theta));
    out[b] = static_cast<float>(key[a] * std::sin(theta) + key[b] * std::cos(theta));
  }
  return out;
}

class SidecarTest : public testing::Test {
 protected:
  SidecarTest() : stores_(NewMemProvider()) { Open({.codec = "exact"}); }

  void Open(SidecarOptions options) {
    sidecar_.reset();
    auto opened = Sidecar::Open(stores_.get(), Describe(toy_), nullptr, std::move(options));
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    sidecar_ = std::move(*opened);
  }
  const KvGeometry& geometry() const { return toy_.info().geometry; }
  KvLayout Layout(bool rotated) const {
    return {geometry().kv_width(), geometry().head_dim, true, rotated};
  }
  std::vector<TokenId> TokensOf(const std::string& text) const {
    std::vector<TokenId> tokens = *toy_.Tokenize(text, false);
    tokens.insert(tokens.begin(), toy_.Bos());
    return tokens;
  }
  // Puts un-rotated rows in pieces; the last ends at `stop`.
  Status PutIn(const std::string& memory, const std::string& name, const std::string& text,
               FloatRows* rows, std::span<const size_t> pieces, size_t stop = SIZE_MAX) {
    const std::vector<TokenId> tokens = TokensOf(text);
    LH_ASSIGN_OR_RETURN(const std::unique_ptr<Sidecar::Writer> writer,
                        sidecar_->Put(memory, {name, text, tokens, {}}));
    for (size_t i = 0; writer->position() < std::min(stop, tokens.size()); ++i) {
      const size_t at = writer->position();
      const size_t take = std::min(pieces[i % pieces.size()], std::min(stop, tokens.size()) - at);
      const auto p = rows->From<const void>(at, geometry().kv_width());
      LH_RETURN_IF_ERROR(writer->Append(p.arrays(Layout(false)), take, 0));
    }
    return writer->Finish();
  }
  Status Put(const std::string& memory, const std::string& name, const std::string& text,
             FloatRows* rows) {
    const size_t pieces[] = {512};
    return PutIn(memory, name, text, rows, pieces);
  }
  // The rows of [begin, end) at `position`; un-rotated without one.
  FloatRows Fetched(const std::string& memory, uint64_t begin, uint64_t end,
                    std::optional<int64_t> position = std::nullopt, uint32_t document = 1) {
    FloatRows rows(geometry(), end - begin);
    const PlacedSpan span{DocumentId{document}, {begin, end}, position.value_or(0)};
    const Status status =
        sidecar_->Fetch(memory, std::span(&span, 1),
                        rows.From<void>(0, geometry().kv_width()).arrays(Layout(!!position)));
    EXPECT_TRUE(status.ok()) << status.ToString();
    return rows;
  }

  ToyModel toy_{ToyOptions{.geometry = RotatingGeometry()}};
  std::unique_ptr<MemProvider> stores_;
  std::unique_ptr<Sidecar> sidecar_;
};

TEST_F(SidecarTest, FetchesRowsRotatedToAnyPosition) {
  const std::string text = RandomText(3000, 7);
  const size_t tokens = TokensOf(text).size();
  FloatRows rows(geometry(), tokens, 1);
  ASSERT_TRUE(Put("m", "a", text, &rows).ok());
  const uint32_t d = geometry().head_dim;
  for (const int64_t position : {0l, 1l, -1l, -700l, 5000l, 100000l}) {
    for (const uint64_t begin : {0ul, 1ul, 63ul, 64ul, 130ul}) {
      const uint64_t end = std::min<uint64_t>(begin + 150, tokens);
      const FloatRows got = Fetched("m", begin, end, position);
      for (size_t l = 0; l < geometry().layers.size(); ++l) {
        for (uint64_t t = begin; t < end; ++t) {
          for (uint32_t h = 0; h < geometry().kv_heads; ++h) {
            const size_t from = t * geometry().kv_width() + h * d;
            const size_t to = (t - begin) * geometry().kv_width() + h * d;
            const auto want = Rotated(geometry().rope[l], rows.keys[l].data() + from, d,
                                      position + static_cast<int64_t>(t - begin));
            for (uint32_t c = 0; c < d; ++c) {
              // The toy's angles are below 2^17, so a float's rounding of them is not the limit.
              ASSERT_NEAR(got.keys[l][to + c], want[c], 0.008)
                  << "position " << position << " token " << t << " layer " << l << " channel "
                  << c;
              ASSERT_NEAR(got.values[l][to + c], rows.values[l][from + c], 0.004);
            }
          }
        }
      }
    }
  }
}

TEST_F(SidecarTest, TakesRotatedRowsOfAnyLayoutAndPosition) {
  const std::string text = RandomText(900, 5);
  const size_t tokens = TokensOf(text).size();
  FloatRows rows(geometry(), tokens, 2);
  ASSERT_TRUE(Put("plain", "a", text, &rows).ok());
  // The same rows rotated to positions from -40 on, [kv_heads, tokens, head_dim].
  const uint32_t d = geometry().head_dim;
  FloatRows turned(geometry(), tokens);
  for (size_t l = 0; l < geometry().layers.size(); ++l) {
    for (size_t t = 0; t < tokens; ++t) {
      for (uint32_t h = 0; h < geometry().kv_heads; ++h) {
        const size_t from = t * geometry().kv_width() + h * d, to = (h * tokens + t) * d;
        const auto key = Rotated(geometry().rope[l], rows.keys[l].data() + from, d,
                                 static_cast<int64_t>(t) - 40);
        std::copy(key.begin(), key.end(), turned.keys[l].begin() + static_cast<ptrdiff_t>(to));
        std::copy_n(rows.values[l].data() + from, d, turned.values[l].data() + to);
      }
    }
  }
  const std::vector<TokenId> ids = TokensOf(text);
  auto writer = sidecar_->Put("turned", {"a", text, ids, {}});
  ASSERT_TRUE(writer.ok()) << writer.status().ToString();
  const KvLayout layout{d, tokens * d, true, true};
  ASSERT_TRUE((*writer)->Append(turned.From<const void>(0, d).arrays(layout), tokens, -40).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  const FloatRows a = Fetched("plain", 0, tokens), b = Fetched("turned", 0, tokens);
  for (size_t l = 0; l < geometry().layers.size(); ++l) {
    EXPECT_EQ(a.values[l], b.values[l]);
    for (size_t i = 0; i < a.keys[l].size(); ++i)
      ASSERT_NEAR(a.keys[l][i], b.keys[l][i], 0.004) << l << " " << i;
  }
}

TEST_F(SidecarTest, StoresTheSameWhateverPiecesRowsComeIn) {
  const std::string text = RandomText(30000, 3);
  const size_t tokens = TokensOf(text).size();
  ASSERT_GT(tokens, 2 * kCommitTokens);
  FloatRows rows(geometry(), tokens, 3);
  ASSERT_TRUE(Put("m", "a", text, &rows).ok());
  const FloatRows want = Fetched("m", 0, tokens);
  const std::vector<size_t> cuts[] = {{1, 63, 64, 65}, {4095, 2, 100}, {tokens}, {7}};
  int n = 0;
  for (const std::vector<size_t>& pieces : cuts) {
    const std::string memory = "m" + std::to_string(n++);
    ASSERT_TRUE(PutIn(memory, "a", text, &rows, pieces).ok());
    const FloatRows got = Fetched(memory, 0, tokens);
    EXPECT_EQ(got.keys, want.keys);
    EXPECT_EQ(got.values, want.values);
  }
}

TEST_F(SidecarTest, ContinuesWhereAnInterruptedPutEnded) {
  const std::string text = RandomText(30000, 4);
  const size_t tokens = TokensOf(text).size();
  FloatRows rows(geometry(), tokens, 4);
  ASSERT_TRUE(Put("whole", "a", text, &rows).ok());
  const FloatRows want = Fetched("whole", 0, tokens);
  const size_t pieces[] = {512};
  int n = 0;
  for (const size_t stop : {0ul, 10ul, 64ul, 4000ul, 4096ul, 4200ul, 8191ul, tokens - 1}) {
    const std::string memory = "m" + std::to_string(n++);
    ASSERT_TRUE(PutIn(memory, "a", text, &rows, pieces, stop).ok());
    const Result<MemoryInfo> half = sidecar_->Show(memory);
    ASSERT_TRUE(half.ok());
    EXPECT_EQ(half->tokens, stop / 64 * 64);
    Open({.codec = "exact"});
    ASSERT_TRUE(PutIn(memory, "a", text, &rows, pieces).ok());
    const FloatRows got = Fetched(memory, 0, tokens);
    EXPECT_EQ(got.keys, want.keys) << stop;
    EXPECT_EQ(got.values, want.values) << stop;
    for (const std::string& asked :
         {std::string("the number of the key"), text.substr(20000, 60)}) {
      const Result<RecallReply> a = sidecar_->Plan("whole", {.question = asked});
      const Result<RecallReply> b = sidecar_->Plan(memory, {.question = asked});
      ASSERT_TRUE(a.ok() && b.ok());
      ASSERT_EQ(a->spans.size(), b->spans.size());
      for (size_t i = 0; i < a->spans.size(); ++i)
        EXPECT_EQ(a->spans[i].tokens, b->spans[i].tokens);
    }
  }
}

TEST_F(SidecarTest, ContinuesOnlyWithTheTokensItBeganWith) {
  const std::string text = RandomText(3000, 4);
  std::vector<TokenId> tokens = TokensOf(text);
  FloatRows rows(geometry(), tokens.size(), 4);
  const size_t pieces[] = {64};
  ASSERT_TRUE(PutIn("m", "a", text, &rows, pieces, 128).ok());
  // As many tokens of the same bytes, but two of them in the other order.
  const auto at = std::adjacent_find(tokens.begin() + 1, tokens.end(), [&](TokenId a, TokenId b) {
    return a != b && toy_.Piece(a).size() == toy_.Piece(b).size();
  });
  ASSERT_NE(at, tokens.end());
  std::swap(at[0], at[1]);
  const Status other = sidecar_->Put("m", {"a", text, tokens, {}}).status();
  EXPECT_EQ(other.code(), StatusCode::kFailedPrecondition) << other.ToString();
  EXPECT_TRUE(PutIn("m", "a", text, &rows, pieces).ok());
}

TEST_F(SidecarTest, FindsWhatTheModelsOwnMemoryFinds) {
  const std::string text = RandomText(20000, 9) +
                           "\nThe keeper of the northern lighthouse is called Ottoline Brandt.\n" +
                           RandomText(20000, 10);
  Engine engine(stores_.get(), {.codec = "exact"});
  ASSERT_TRUE(engine.UseModel(&toy_, nullptr).ok());
  ASSERT_TRUE(engine.Ingest("read", {.name = "a", .text = text}, nullptr, nullptr).ok());
  engine.CloseMemory();
  // Its keys and values, put into another memory.
  const size_t tokens = TokensOf(text).size();
  FloatRows rows = Fetched("read", 0, tokens);
  ASSERT_TRUE(Put("put", "a", text, &rows).ok());
  EXPECT_EQ(Fetched("put", 0, tokens).keys, rows.keys);
  const std::string asked = "Who keeps the northern lighthouse?";
  const Result<RecallReply> own = sidecar_->Plan("read", {.question = asked});
  const Result<RecallReply> put = sidecar_->Plan("put", {.question = asked});
  ASSERT_TRUE(own.ok() && put.ok()) << own.status().ToString() << put.status().ToString();
  ASSERT_EQ(own->spans.size(), put->spans.size());
  ASSERT_FALSE(put->spans.empty());
  EXPECT_THAT(put->spans[0].text, HasSubstr("Ottoline Brandt"));
  for (size_t i = 0; i < put->spans.size(); ++i) {
    EXPECT_EQ(put->spans[i].tokens, own->spans[i].tokens);
    EXPECT_EQ(put->spans[i].text, own->spans[i].text);
  }
  const Result<RecallReply> few = sidecar_->Plan("put", {.question = asked, .tokens_max = 100});
  ASSERT_TRUE(few.ok());
  uint64_t sum = 0;
  for (const RecalledSpan& span : few->spans) sum += span.tokens.size() + span.date_tokens.size();
  EXPECT_LE(sum, 100u);
  EXPECT_EQ(few->spans[0].tokens, put->spans[0].tokens);
}

TEST_F(SidecarTest, PlansOnlyWhatTheModelHasRead) {
  const std::string said = "\nThe keeper of the northern lighthouse is called Ottoline Brandt.\n";
  Engine engine(stores_.get(), {.codec = "exact"});
  ASSERT_TRUE(engine.UseModel(&toy_, nullptr).ok());
  ASSERT_TRUE(
      engine.Ingest("m", {.name = "read", .text = said + RandomText(3000, 1)}, nullptr, nullptr)
          .ok());
  ASSERT_TRUE(
      engine.Index("m", {.name = "unread", .text = said + RandomText(3000, 2)}, nullptr, nullptr)
          .ok());
  const std::string asked = "Who keeps the northern lighthouse?";
  const Result<RecallReply> own = engine.Recall("m", asked, {});
  ASSERT_TRUE(own.ok()) << own.status().ToString();
  bool provisional = false;
  for (const RecalledSpan& span : own->spans) provisional |= span.provisional;
  EXPECT_TRUE(provisional);
  engine.CloseMemory();
  const Result<RecallReply> plan = sidecar_->Plan("m", {.question = asked});
  ASSERT_TRUE(plan.ok()) << plan.status().ToString();
  ASSERT_FALSE(plan->spans.empty());
  for (const RecalledSpan& span : plan->spans) EXPECT_EQ(span.document, "read");
}

TEST_F(SidecarTest, GivenQueriesFindTheSpanThatTheyAttendTo) {
  Open({.codec = "exact", .heads = {{.layer = geometry().layers.back(), .kv_head = 0}}});
  const std::string text = RandomText(30000, 11);
  const size_t tokens = TokensOf(text).size(), wanted = 5000;
  const uint32_t d = geometry().head_dim;
  FloatRows rows(geometry(), tokens, 5);
  std::vector<float> key(d);
  for (uint32_t c = 0; c < d; ++c) key[c] = c % 2 == 0 ? 6.0f : -6.0f;
  std::copy(key.begin(), key.end(),
            rows.keys.back().begin() + static_cast<ptrdiff_t>(wanted * geometry().kv_width()));
  ASSERT_TRUE(Put("m", "a", text, &rows).ok());
  std::vector<float> queries;
  for (uint32_t r = 0; r < geometry().group(); ++r)
    queries.insert(queries.end(), key.begin(), key.end());
  std::vector<float> turned;
  for (uint32_t r = 0; r < geometry().group(); ++r) {
    const auto q = Rotated(geometry().rope.back(), key.data(), d, 321);
    turned.insert(turned.end(), q.begin(), q.end());
  }
  for (const bool rotated : {false, true}) {
    PlanRequest request;
    request.queries = {{rotated ? turned.data() : queries.data()}, 1, rotated, 321};
    const Result<RecallReply> found = sidecar_->Plan("m", request);
    ASSERT_TRUE(found.ok()) << found.status().ToString();
    ASSERT_FALSE(found->spans.empty());
    EXPECT_TRUE(found->spans[0].tokens.Contains(wanted)) << found->spans[0].tokens.begin;
    ASSERT_TRUE(found->coverage.has_value());
    EXPECT_GT(*found->coverage, 0.3);
  }
  PlanRequest wrong;
  wrong.queries = {{queries.data(), queries.data()}, 1, false, 0};
  EXPECT_EQ(sidecar_->Plan("m", wrong).status().code(), StatusCode::kInvalidArgument);
  // A memory that was indexed for other heads.
  Open({.codec = "exact", .heads = {{.layer = geometry().layers.front(), .kv_head = 0}}});
  wrong.queries = {{queries.data()}, 1, false, 0};
  EXPECT_EQ(sidecar_->Plan("m", wrong).status().code(), StatusCode::kFailedPrecondition);
  // Without queries its words still find something.
  EXPECT_TRUE(sidecar_->Plan("m", {.question = "the number of the key"}).ok());
}

TEST_F(SidecarTest, KnowsTheLongestStoredPrefix) {
  const std::string a = "The dog ran. " + RandomText(9000, 1), b = "The dog sat. " + a;
  FloatRows rows(geometry(), TokensOf(b).size(), 6);
  ASSERT_TRUE(Put("m", "a", a, &rows).ok());
  ASSERT_TRUE(Put("m", "b", b, &rows).ok());
  std::vector<TokenId> asked = TokensOf(b);
  asked.resize(4500);
  asked.push_back(7);
  const Result<StoredPrefix> prefix = sidecar_->LongestPrefix("m", asked);
  ASSERT_TRUE(prefix.ok());
  EXPECT_EQ(prefix->document, DocumentId{2});
  EXPECT_EQ(prefix->tokens, 4500u);
  asked = {5, 6, 7};
  EXPECT_EQ(sidecar_->LongestPrefix("m", asked)->tokens, 0u);
  EXPECT_EQ(sidecar_->LongestPrefix("m", {})->tokens, 0u);
  const Result<std::vector<TokenId>> tokens = sidecar_->Tokens("m", DocumentId{2}, {10, 300});
  ASSERT_TRUE(tokens.ok());
  EXPECT_TRUE(std::equal(tokens->begin(), tokens->end(), TokensOf(b).begin() + 10));
}

TEST_F(SidecarTest, RefusesWhatIsWrongAndKeepsWhatIsThere) {
  const std::string text = RandomText(3000, 8);
  const std::vector<TokenId> tokens = TokensOf(text);
  FloatRows rows(geometry(), tokens.size() + 1, 7);
  const auto all = rows.From<const void>(0, geometry().kv_width());
  const auto refused = [&](const GivenDocument& document) {
    return sidecar_->Put("m", document).status();
  };
  std::vector<TokenId> less(tokens.begin(), tokens.end() - 1), foreign = tokens;
  foreign[5] = static_cast<TokenId>(toy_.info().vocab_size);
  EXPECT_EQ(refused({"a", text, less, {}}).code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(refused({"a", text, foreign, {}}).message(), HasSubstr("vocabulary"));
  EXPECT_THAT(refused({"", text, tokens, {}}).message(), HasSubstr("name"));
  EXPECT_EQ(refused({"a", "", {}, {}}).code(), StatusCode::kInvalidArgument);
  const std::vector<uint16_t> lengths(tokens.size(), 2);
  EXPECT_EQ(refused({"a", text, tokens, lengths}).code(), StatusCode::kInvalidArgument);

  {
    auto writer = sidecar_->Put("m", {"a", text, tokens, {}});
    ASSERT_TRUE(writer.ok());
    EXPECT_EQ((*writer)->Append(all.arrays(Layout(false)), tokens.size() + 1, 0).code(),
              StatusCode::kInvalidArgument);
    rows.keys[1][70 * geometry().kv_width()] = std::nanf("");
    const Status status = (*writer)->Append(all.arrays(Layout(false)), tokens.size(), 0);
    EXPECT_THAT(status.message(), HasSubstr("row 70"));
    EXPECT_EQ((*writer)->position(), 64u);
    // Also in the middle of a block: its earlier rows stay.
    const auto from64 = rows.From<const void>(64, geometry().kv_width());
    EXPECT_TRUE((*writer)->Append(from64.arrays(Layout(false)), 3, 0).ok());
    const auto from67 = rows.From<const void>(67, geometry().kv_width());
    EXPECT_FALSE((*writer)->Append(from67.arrays(Layout(false)), 10, 0).ok());
    EXPECT_EQ((*writer)->position(), 67u);
    rows.keys[1][70 * geometry().kv_width()] = 1;
    EXPECT_TRUE((*writer)->Append(from67.arrays(Layout(false)), tokens.size() - 67, 0).ok());
    // Somebody else cannot write meanwhile, but may read what was committed.
    EXPECT_FALSE(sidecar_->Put("m", {"b", text, tokens, {}}).ok());
    EXPECT_TRUE((*writer)->Finish().ok());
    EXPECT_EQ((*writer)->position(), tokens.size());
    EXPECT_EQ((*writer)->Append(all.arrays(Layout(false)), 1, 0).code(),
              StatusCode::kFailedPrecondition);
  }
  FloatRows into(geometry(), 10);
  const auto pointers = into.From<void>(0, geometry().kv_width());
  const auto out = pointers.arrays(Layout(false));
  for (const PlacedSpan span :
       {PlacedSpan{DocumentId{9}, {0, 10}, 0},
        PlacedSpan{DocumentId{1}, {tokens.size() - 5, tokens.size() + 5}, 0},
        PlacedSpan{DocumentId{1}, {10, 10}, 0}}) {
    EXPECT_FALSE(sidecar_->Fetch("m", std::span(&span, 1), out).ok());
    EXPECT_FALSE(sidecar_->Tokens("m", span.document, span.tokens).ok());
  }
  EXPECT_EQ(sidecar_->Plan("nowhere", {.question = "what"}).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(sidecar_->Plan("m", {.question = ""}).status().code(), StatusCode::kInvalidArgument);

  // Another model is refused by name.
  ModelDescription other = Describe(toy_);
  other.name = "another";
  other.fingerprint = "hf-0001";
  auto stranger = Sidecar::Open(stores_.get(), other, nullptr, {});
  ASSERT_TRUE(stranger.ok());
  const Status denied = (*stranger)->Plan("m", {.question = "what"}).status();
  EXPECT_EQ(denied.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(denied.message(), HasSubstr("another"));
  EXPECT_THAT(denied.message(), HasSubstr("toy"));
  // A model that runs elsewhere reads nothing.
  EXPECT_EQ(sidecar_->Ingest("m", {.name = "c", .text = text + "x"}, nullptr).status().code(),
            StatusCode::kFailedPrecondition);
  ASSERT_TRUE(sidecar_->Forget("m", "a").ok());
  EXPECT_EQ(sidecar_->Plan("m", {.question = "the number of the key"})->spans.size(), 0u);
}

TEST_F(SidecarTest, DamagedBlocksAreNeverFetched) {
  const std::string text = RandomText(3000, 8);
  FloatRows rows(geometry(), TokensOf(text).size(), 7);
  ASSERT_TRUE(Put("m", "a", text, &rows).ok());
  sidecar_.reset();
  stores_->Change("m", [](ColdStore& store) {
    WriteBatch batch;
    batch.Put(Table::kBlocks, NumberedKey(DocumentId{1}, 2), "no block");
    ASSERT_TRUE(store.Write(std::move(batch), Durability::kBuffered).ok());
  });
  Open({.codec = "exact"});
  FloatRows into(geometry(), 100);
  const auto pointers = into.From<void>(0, geometry().kv_width());
  const auto out = pointers.arrays(Layout(false));
  const PlacedSpan good{DocumentId{1}, {0, 100}, 0}, bad{DocumentId{1}, {100, 200}, 0};
  EXPECT_TRUE(sidecar_->Fetch("m", std::span(&good, 1), out).ok());
  EXPECT_EQ(sidecar_->Fetch("m", std::span(&bad, 1), out).code(), StatusCode::kDataLoss);
}

TEST_F(SidecarTest, ServesSeveralThreadsAtOnce) {
  const std::string text = RandomText(6000, 12);
  const std::vector<TokenId> tokens = TokensOf(text);
  FloatRows rows(geometry(), tokens.size() + 8, 8);
  ASSERT_TRUE(Put("m", "a", text, &rows).ok());
  const FloatRows want = Fetched("m", 0, 300);
  std::vector<Status> statuses(4);
  // The first puts another document, the second asks, the others fetch.
  std::vector<std::thread> threads;
  for (size_t n = 0; n < statuses.size(); ++n) {
    threads.emplace_back([&, n] {
      for (int i = 0; i < 10 && statuses[n].ok(); ++i) {
        if (n == 0) {
          statuses[n] = Put("other", "b" + std::to_string(i), text + std::to_string(i), &rows);
        } else if (n == 1) {
          statuses[n] = sidecar_->Plan("m", {.question = "the number of the key"}).status();
        } else {
          const FloatRows got = Fetched("m", 0, 300);
          if (got.keys != want.keys) statuses[n] = Internal("other rows");
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Status& status : statuses) EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(DescribedModel, NamesWhatIsWrongWithADescription) {
  const ToyModel toy;
  const ModelDescription good = Describe(toy);
  EXPECT_TRUE(good.Check().ok());
  const auto wrong = [&](const std::function<void(ModelDescription&)>& change) {
    ModelDescription d = good;
    change(d);
    return d.Check().message();
  };
  EXPECT_THAT(wrong([](auto& d) { d.name = ""; }), HasSubstr("name"));
  EXPECT_THAT(wrong([](auto& d) { d.fingerprint = "a/b"; }), HasSubstr("fingerprint"));
  EXPECT_THAT(wrong([](auto& d) { d.geometry.layers = {1, 0}; }), HasSubstr("ascend"));
  EXPECT_THAT(wrong([](auto& d) { d.geometry.kv_heads = 0; }), HasSubstr("KV heads"));
  EXPECT_THAT(wrong([](auto& d) { d.geometry.head_dim = 6; }), HasSubstr("head size"));
  EXPECT_THAT(wrong([](auto& d) { d.geometry.rope.pop_back(); }), HasSubstr("position embed"));
  EXPECT_THAT(wrong([](auto& d) { d.geometry.rope[0].rotary_dims = 3; }), HasSubstr("rotates"));
  EXPECT_THAT(wrong([](auto& d) { d.geometry.rope[0].freq_base = -1; }), HasSubstr("positive"));
  EXPECT_THAT(wrong([](auto& d) { d.geometry.scale = 0; }), HasSubstr("scale"));
  EXPECT_THAT(wrong([](auto& d) { d.pieces.clear(); }), HasSubstr("vocabulary"));
  EXPECT_THAT(wrong([](auto& d) { d.pieces.resize(kVocabularyMax + 1); }), HasSubstr("vocabulary"));
  EXPECT_THAT(wrong([](auto& d) { d.bos = 1 << 30; }), HasSubstr("bos"));
}

TEST(DescribedModel, TokenizesToPiecesThatAreTheText) {
  const ToyModel toy;
  const DescribedModel model(Describe(toy));
  for (const std::string& text :
       {std::string("the number of the key is é日本 and"), RandomText(500, 2)}) {
    std::string joined;
    const Result<std::vector<TokenId>> tokens = model.Tokenize(text, false);
    for (const TokenId token : *tokens) joined += model.Piece(token);
    EXPECT_EQ(joined, text);
  }
}

TEST(CutGivenText, CutsBetweenTokensAtLineBreaksAndNeverInsideACharacter) {
  const std::vector<std::string> pieces = {"\xE6", "\x97\xA5", "a", "\n", "word ", ""};
  std::string text;
  std::vector<TokenId> tokens = {5};
  const auto add = [&](TokenId t) {
    tokens.push_back(t);
    text += pieces[static_cast<size_t>(t)];
  };
  std::mt19937 rng(1);
  while (text.size() < 3 * kChunkBytesMax) {
    if (rng() % 3 == 0) {
      add(0);
      add(1);
    } else {
      add(rng() % 200 == 0 ? 3 : 4);
    }
  }
  const auto chunks = CutGivenText(pieces, {"a", text, tokens, {}});
  ASSERT_TRUE(chunks.ok()) << chunks.status().ToString();
  EXPECT_GE(chunks->size(), 3u);
  std::string joined;
  std::vector<TokenId> all;
  uint64_t lines = 0;
  for (const TextChunk& chunk : *chunks) {
    EXPECT_EQ(chunk.byte_begin, joined.size());
    EXPECT_EQ(chunk.token_begin, all.size());
    EXPECT_EQ(chunk.line_begin, lines);
    EXPECT_LE(chunk.text.size(), kChunkBytesMax);
    uint64_t bytes = 0;
    for (const uint16_t b : chunk.token_bytes) bytes += b;
    EXPECT_EQ(bytes, chunk.text.size());
    EXPECT_EQ(chunk.tokens.size(), chunk.token_bytes.size());
    joined += chunk.text;
    all.insert(all.end(), chunk.tokens.begin(), chunk.tokens.end());
    lines += static_cast<uint64_t>(std::count(chunk.text.begin(), chunk.text.end(), '\n'));
    if (&chunk != &chunks->back()) {
      EXPECT_EQ(chunk.text.back(), '\n');
    }
  }
  EXPECT_EQ(joined, text);
  EXPECT_EQ(all, tokens);
}

}  // namespace
}  // namespace longhold
