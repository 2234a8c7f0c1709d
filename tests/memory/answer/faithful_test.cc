// Faithful attention, where each layer and head attends to the blocks picked for it: what picked
// blocks add to a working set, which blocks are picked, and the engine's answers.
//
// The key property is the last group: with every block picked, the engine's logits equal those of a
// plain working set that holds the whole text.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "memory/answer/faithful_plan.h"
#include "memory/attend/picked_blocks.h"
#include "memory/attend/working_set.h"
#include "memory/core/memory.h"
#include "memory/engine.h"
#include "memory/recall/prompt.h"
#include "store/rocks_store.h"
#include "tests/store/temp_dir.h"
#include "tests/support/attention_driver.h"
#include "tests/support/engines.h"
#include "tests/support/sanitized.h"
#include "tests/support/stores.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"
#include "tests/support/two_threads.h"

namespace longhold {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint64_t kSeed = 20261127;
// Rotated keys are rounded to fp16; see tests/memory/attend/working_set_test.cc.
constexpr float kKeysRounded = 1e-2f;

// ------------------------------------------------------------------------------------------------
// picked blocks

// A text of 5 blocks, the last of 20 tokens. Each layer and head has a list of two of them. Then 6
// + 4 tokens of the working set itself, in two passes.
struct Picked {
  KvGeometry g = TestGeometry();
  Sequence s = RandomSequence(g, 64 * 4 + 20 + 10, kSeed);
  static constexpr uint32_t kText = 64 * 4 + 20, kOwn = 10, kHead = 6;
  std::vector<std::vector<uint32_t>> lists;
  std::vector<PickableBlock> pickable;

  Picked() {
    for (uint32_t i = 0; i < g.layers.size() * g.kv_heads; ++i)
      lists.push_back(i % 2 == 0 ? std::vector<uint32_t>{0, 4} : std::vector<uint32_t>{i % 3, 3});
    for (uint32_t b = 0; b < 5; ++b)
      pickable.push_back({{DocumentId{1}, b}, b == 4 ? 20u : 64u, kHead + b * 64});
  }
  void PlaceAll(PickedBlocks* picked, uint32_t without = UINT32_MAX) const {
    Sequence text = s;
    text.tokens = kText;
    const std::vector<KvBlock> blocks = BlocksOf(g, text);
    for (const uint32_t id : picked->Wanted()) {
      if (id != without) picked->Place(id, pickable[id], blocks[id]);
    }
  }
};

TEST(PickedBlocks, AreAttendedToByTheirLayerAndHeadAtTheirPositions) {
  const Picked p;
  for (const bool in_a_row : {false, true}) {
    for (const uint32_t without : {UINT32_MAX, 3u}) {
      for (const uint32_t workers : {1u, 3u}) {
        SCOPED_TRACE((in_a_row ? "in a row, " : "in place, ") + std::to_string(workers) +
                     " workers, without block " + std::to_string(without));
        WorkingSet set(p.g, Picked::kOwn, Picked::kText);
        // Head tokens attend only to themselves.
        set.BeginPass(Picked::kHead);
        DrivePass(set, p.g, p.s, Picked::kText, Picked::kText + Picked::kHead, workers);
        const uint32_t first = Picked::kHead;
        PickedBlocks picked(p.g, set.ropes(), p.lists, 5, in_a_row ? &first : nullptr);
        EXPECT_THAT(picked.Wanted(), ElementsAre(0, 1, 2, 3, 4));
        p.PlaceAll(&picked, without);
        const uint32_t shift = in_a_row ? 2 * 64 : Picked::kText;
        set.AttendAlso(&picked, shift);
        set.CountMass();
        const uint32_t begin = Picked::kText + Picked::kHead, end = Picked::kText + Picked::kOwn;
        // For a single token, heads are split into parts if there are enough blocks. For several
        // tokens they are not.
        set.BeginPass(3);
        LayerOutputs out = DrivePass(set, p.g, p.s, begin, begin + 3, workers);
        set.BeginPass(1);
        const LayerOutputs last = DrivePass(set, p.g, p.s, begin + 3, end, workers);
        std::vector<double> mass(5, 0);
        for (uint32_t slot = 0; slot < p.g.layers.size(); ++slot) {
          out[slot].insert(out[slot].end(), last[slot].begin(), last[slot].end());
          for (uint32_t t = begin; t < end; ++t) {
            std::vector<float> expected;
            for (uint32_t h = 0; h < p.g.kv_heads; ++h) {
              std::vector<SeenKey> keys;
              const std::vector<uint32_t>& list = p.lists[slot * p.g.kv_heads + h];
              for (uint32_t i = 0; i < list.size(); ++i) {
                if (list[i] == without) continue;
                for (uint32_t r = 0; r < p.pickable[list[i]].tokens; ++r) {
                  keys.push_back({list[i] * 64 + r,
                                  in_a_row ? first + i * 64 + r : p.pickable[list[i]].position + r,
                                  0});
                }
              }
              for (uint32_t own = Picked::kText; own <= t; ++own) {
                const uint32_t index = own - Picked::kText;
                keys.push_back({own, index + (index >= Picked::kHead ? shift : 0), 0});
              }
              const std::vector<float> all =
                  NaiveAttend(p.g, p.s, slot, t, t - Picked::kText + shift, keys);
              const size_t width = size_t{p.g.group()} * p.g.head_dim;
              expected.insert(expected.end(), all.begin() + static_cast<ptrdiff_t>(h * width),
                              all.begin() + static_cast<ptrdiff_t>((h + 1) * width));
            }
            const size_t width = size_t{p.g.q_heads} * p.g.head_dim;
            ASSERT_LE(LargestDifference(std::span(out[slot]).subspan((t - begin) * width, width),
                                        expected),
                      kKeysRounded)
                << "slot " << slot << " token " << t;
          }
        }
        // The whole attention mass of 4 tokens is accounted for. A block that was not placed has
        // none.
        const std::vector<double> of_blocks = picked.Mass(), own = set.Mass();
        double total = 0;
        for (const double m : of_blocks) total += m;
        for (const double m : own) total += m;
        EXPECT_NEAR(total, 4.0 * p.g.q_heads * static_cast<double>(p.g.layers.size()), 1e-3);
        EXPECT_EQ(of_blocks.size(), 5u);
        for (uint32_t b = 0; b < 5; ++b) EXPECT_EQ(of_blocks[b] == 0, b == without) << b;
        set.CountMass();
        for (const double m : picked.Mass()) EXPECT_EQ(m, 0);
        set.AttendAlso(nullptr, 0);
      }
    }
  }
}

TEST(PickedBlocks, AreSplitIntoPartsForASingleTokenWhenThereAreMany) {
  const KvGeometry g = TestGeometry();
  constexpr uint32_t kBlocks = 12;
  const Sequence s = RandomSequence(g, kBlocks * 64 + 1, kSeed + 1);
  Sequence text = s;
  text.tokens = kBlocks * 64;
  const std::vector<KvBlock> blocks = BlocksOf(g, text);
  std::vector<uint32_t> all;
  for (uint32_t b = 0; b < kBlocks; ++b) all.push_back(b);
  for (const uint32_t workers : {1u, 2u, 5u}) {
    WorkingSet set(g, 1, kBlocks * 64);
    PickedBlocks picked(g, set.ropes(),
                        std::vector<std::vector<uint32_t>>(g.layers.size() * g.kv_heads, all),
                        kBlocks, nullptr);
    for (uint32_t b = 0; b < kBlocks; ++b)
      picked.Place(b, {{DocumentId{1}, b}, 64, b * 64}, blocks[b]);
    set.AttendAlso(&picked, kBlocks * 64);
    set.CountMass();
    set.BeginPass(1);
    const LayerOutputs out = DrivePass(set, g, s, kBlocks * 64, kBlocks * 64 + 1, workers);
    std::vector<SeenKey> keys;
    for (uint32_t t = 0; t <= kBlocks * 64; ++t) keys.push_back({t, t, 0});
    double total = set.Mass()[0];
    for (const double m : picked.Mass()) total += m;
    EXPECT_NEAR(total, 1.0 * g.q_heads * static_cast<double>(g.layers.size()), 1e-3);
    for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
      EXPECT_LE(
          LargestDifference(out[slot], NaiveAttend(g, s, slot, kBlocks * 64, kBlocks * 64, keys)),
          kKeysRounded)
          << slot;
    }
  }
}

// ------------------------------------------------------------------------------------------------
// picks

struct Picking {
  KvGeometry g = TestGeometry();
  Sequence s = RandomSequence(g, 64 * 9 + 30, kSeed + 2);
  std::vector<SummarySegment> segments;
  std::vector<SummarisedBlock> blocks;
  QueryCapture queries;

  explicit Picking(uint32_t tokens) {
    const RopeTables within(g, kBlockTokens);
    segments.push_back(SummarySegment::Of(DocumentId{1}, 0, g));
    uint32_t at = 0;
    for (const KvBlock& block : BlocksOf(g, s)) {
      segments[0].Append(block, block.tokens, within);
      blocks.push_back({.block = {{DocumentId{1}, at / 64}, block.tokens, at},
                        .segment = nullptr,
                        .index = at / 64});
      at += block.tokens;
    }
    for (SummarisedBlock& block : blocks) block.segment = &segments[0];
    const Sequence asked = RandomSequence(g, tokens, kSeed + 3);
    for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
      queries.slots.push_back(slot);
      queries.queries.push_back(asked.q[slot]);
    }
  }
};

TEST(PickBlocks, TakesTheLargestEstimatedSharesInAdditionToTheFixedBlocks) {
  Picking p(7);
  p.blocks[0].fixed = p.blocks[9].fixed = true;
  const RopeTables ropes(p.g, 700);
  const uint32_t d = p.g.head_dim;
  for (const uint32_t count : {2u, 5u, 10u}) {
    const FaithfulPicks picks = PickBlocks(p.g, ropes, p.blocks, p.queries, 640, count, TwoThreads);
    EXPECT_EQ(picks.blocks,
              PickBlocks(p.g, ropes, p.blocks, p.queries, 640, count, SerialFor).blocks);
    double coverage = 0;
    for (uint32_t slot = 0; slot < p.g.layers.size(); ++slot) {
      for (uint32_t h = 0; h < p.g.kv_heads; ++h) {
        std::vector<double> share(10, 0);
        for (uint32_t t = 0; t < 7; ++t) {
          for (uint32_t group = 0; group < p.g.group(); ++group) {
            std::vector<double> mass(10);
            std::vector<float> q(d), mean(d);
            ReferenceRotate(p.g.rope[slot],
                            p.queries.queries[slot].data() +
                                (size_t{t} * p.g.q_heads + h * p.g.group() + group) * d,
                            q.data(), d, 640 + t);
            double sum = 0;
            for (uint32_t b = 0; b < 10; ++b) {
              p.segments[0].Mean(b, slot, h, mean.data());
              ReferenceRotate(p.g.rope[slot], mean.data(), mean.data(), d, 64 * b);
              double dot = 0;
              for (uint32_t c = 0; c < d; ++c) dot += double{q[c]} * mean[c];
              sum += mass[b] = p.blocks[b].block.tokens * std::exp(double{p.g.scale} * dot);
            }
            for (uint32_t b = 0; b < 10; ++b) share[b] += mass[b] / sum / (7 * p.g.group());
          }
        }
        const std::vector<uint32_t>& got = picks.blocks[slot * p.g.kv_heads + h];
        ASSERT_EQ(got.size(), count);
        EXPECT_TRUE(std::is_sorted(got.begin(), got.end()));
        EXPECT_THAT(got, Contains(0u));
        EXPECT_THAT(got, Contains(9u));
        double least = 1, most = 0;
        for (uint32_t b = 0; b < 10; ++b) {
          const bool picked = std::find(got.begin(), got.end(), b) != got.end();
          if (picked) coverage += share[b] / static_cast<double>(p.g.layers.size() * p.g.kv_heads);
          if (picked && !p.blocks[b].fixed) least = std::min(least, share[b]);
          if (!picked) most = std::max(most, share[b]);
        }
        EXPECT_GE(least, most - 1e-6) << "slot " << slot << " head " << h;
      }
    }
    EXPECT_NEAR(picks.coverage, coverage, 1e-4);
  }
  EXPECT_NEAR(PickBlocks(p.g, ropes, p.blocks, p.queries, 640, 10, SerialFor).coverage, 1, 1e-5);
}

TEST(PickBlocks, BeyondTheNativeLengthDistancesAreClampedToTheFarthest) {
  Picking p(3);
  const RopeTables ropes(p.g, 300);
  const FaithfulPicks far = PickBlocks(p.g, ropes, p.blocks, p.queries, 606, 4, SerialFor);
  // The same text with its positions clamped by hand.
  for (SummarisedBlock& block : p.blocks)
    block.block.position -= std::min(block.block.position, 606u + 3 - 300);
  const FaithfulPicks near = PickBlocks(p.g, ropes, p.blocks, p.queries, 297, 4, SerialFor);
  EXPECT_EQ(far.blocks, near.blocks);
  EXPECT_EQ(far.coverage, near.coverage);
  EXPECT_EQ(PickBlocks(p.g, ropes, {}, p.queries, 10, 0, SerialFor).blocks.size(),
            p.g.layers.size() * p.g.kv_heads);
}

// ------------------------------------------------------------------------------------------------
// answers

constexpr char kQuestion[] = "What is the secret number of Methuselah?";

class FaithfulTest : public testing::Test {
 protected:
  std::unique_ptr<EngineInHome> Start(ToyModel* model, uint64_t budget = uint64_t{1} << 30) {
    RecallProfile profile;
    profile.name = "toy";
    profile.heads = {{.layer = 3, .kv_head = 1}};
    profile.window_tokens = 128;
    auto engine = std::make_unique<EngineInHome>(
        home_ / "h", EngineOptions{.memory_budget_bytes = budget, .codec = "exact"});
    EXPECT_TRUE(engine->UseModel(model, &profile).ok());
    return engine;
  }
  static AskOptions Faithful(double share = 0.1, uint32_t max_tokens = 12) {
    AskOptions options;
    options.attend = FaithfulOptions{.share = share};
    options.max_tokens = max_tokens;
    options.likeliest = 0;
    return options;
  }
  TempDir home_;
};

TEST_F(FaithfulTest, WithEveryBlockPickedTheLogitsEqualThoseOfTheWholeText) {
  for (const uint32_t native_window : {0u, 100u}) {
    SCOPED_TRACE("native window " + std::to_string(native_window));
    ToyModel model({.native_window = native_window, .context_length = 16384});
    const std::string name = "m" + std::to_string(native_window);
    auto engine = Start(&model);
    ASSERT_TRUE(engine->Ingest(name, {"first", PlainText(9000, 4)}, nullptr, nullptr).ok());
    ASSERT_TRUE(engine->Ingest(name, {"second", PlainText(2500, 5)}, nullptr, nullptr).ok());
    const Result<AskReply> reply = engine->Ask(name, kQuestion, Faithful(1.0));
    ASSERT_TRUE(reply.ok()) << reply.status().ToString();
    EXPECT_NEAR(reply->coverage.value(), 1, 1e-5);
    EXPECT_GT(reply->candidates, kAttendBlocksMin);
    engine.reset();

    // All stored keys, in order after the prompt's head. Then the tokens that native layers
    // re-encode.
    Result<std::unique_ptr<ColdStore>> store =
        OpenRocksStore({.path = home_ / ("h/memories/" + name), .read_only = true});
    ASSERT_TRUE(store.ok());
    Result<std::unique_ptr<Memory>> memory = Memory::Open(std::move(*store), name, &model.info());
    ASSERT_TRUE(memory.ok());
    const Result<Prompt> prompt = BuildPrompt(model, kQuestion, {});
    ASSERT_TRUE(prompt.ok());
    WorkingSet set(model.info().geometry, 16384);
    model.NativeForget(0, UINT32_MAX);
    ASSERT_TRUE(RunTokens(model, set, prompt->head, 0, false).ok());
    uint32_t position = static_cast<uint32_t>(prompt->head.size());
    const DocumentRecord& last = (*memory)->documents().back();
    const uint64_t again_begin =
        (last.tokens - std::min<uint64_t>(native_window, last.tokens) + 63) / 64 * 64;
    for (const DocumentRecord& d : (*memory)->documents()) {
      for (uint32_t b = 0; uint64_t{b} * 64 < d.tokens; ++b) {
        if (native_window > 0 && d.id == last.id && uint64_t{b} * 64 >= again_begin) break;
        const Result<KvBlock> block = (*memory)->LoadBlock({d.id, b});
        ASSERT_TRUE(block.ok());
        set.AppendBlock(*block, 0, block->tokens, 0);
      }
    }
    EXPECT_EQ(reply->blocks_read, reply->candidates);
    if (native_window > 0) {
      // In the engine these tokens attended to the text's begin and end. So the two do not agree
      // bit for bit, and the later checks are less strict.
      const auto again = (*memory)->Tokens(last.id, {again_begin, last.tokens});
      ASSERT_TRUE(again.ok());
      EXPECT_EQ(reply->tokens_reencoded, again->size());
      ASSERT_TRUE(RunTokens(model, set, *again, position, false).ok());
      position += static_cast<uint32_t>(again->size());
    }
    ASSERT_TRUE(RunTokens(model, set, prompt->tail, position, true).ok());
    position += static_cast<uint32_t>(prompt->tail.size());
    ASSERT_GT(reply->likelihoods.size(), 3u);
    for (const TokenLikelihood& token_likelihood : reply->likelihoods) {
      const std::span<const float> logits = model.logits();
      double sum = 0;
      size_t best = 0;
      for (size_t i = 0; i < logits.size(); ++i) {
        sum += std::exp(double{logits[i]});
        if (logits[i] > logits[best]) best = i;
      }
      if (native_window == 0) {
        EXPECT_EQ(model.Piece(static_cast<TokenId>(best)), token_likelihood.text);
        EXPECT_NEAR(token_likelihood.log, logits[best] - std::log(sum), 1e-2);
      } else {
        EXPECT_LT(token_likelihood.log, 0);
      }
      const auto token = static_cast<TokenId>(best);
      ASSERT_TRUE(RunTokens(model, set, std::span(&token, 1), position++, true).ok());
    }
  }
}

TEST_F(FaithfulTest, CitesTheBlocksThatGotAttentionAndCountsThem) {
  const std::string text = PlainText(60000, 6);
  ToyModel model({.context_length = 8192});
  auto engine = Start(&model);
  ASSERT_TRUE(engine->Ingest("m", {"tale", text}, nullptr, nullptr).ok());
  std::string shown;
  AskOptions options = Faithful();
  options.on_text = [&](std::string_view piece) { shown += piece; };
  const Result<AskReply> reply = engine->Ask("m", kQuestion, options);
  ASSERT_TRUE(reply.ok()) << reply.status().ToString();
  EXPECT_FALSE(reply->abstained);
  EXPECT_FALSE(reply->answer.empty());
  EXPECT_THAT(shown, HasSubstr(reply->answer));
  EXPECT_GT(reply->candidates, 10 * kAttendBlocksMin / 8);
  EXPECT_EQ(reply->tokens_recalled,
            std::max<uint64_t>(kAttendBlocksMin, (reply->candidates + 9) / 10) * 64);
  EXPECT_GT(reply->coverage, 0.0);
  EXPECT_LT(reply->coverage, 1.0);
  EXPECT_LE(reply->blocks_read, reply->candidates);
  ASSERT_FALSE(reply->citations.empty());
  double total = 0;
  for (size_t i = 0; i < reply->citations.size(); ++i) {
    const Citation& c = reply->citations[i];
    EXPECT_EQ(c.index, i + 1);
    EXPECT_EQ(c.span.text, text.substr(c.span.bytes.begin, c.span.bytes.size()));
    EXPECT_THAT(c.span.reasons, ElementsAre("attention"));
    EXPECT_LE(c.span.score, i == 0 ? 1.0 : reply->citations[i - 1].span.score);
    total += c.span.score;
  }
  EXPECT_NEAR(total, 1, 1e-9);
  EXPECT_EQ(reply->spans, reply->citations.size());
  // The same question again, and with several workers.
  const Result<AskReply> again = engine->Ask("m", kQuestion, Faithful());
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->answer, reply->answer);
}

TEST_F(FaithfulTest, MemoriesWithoutSummariesAnswerTheSameAndReindexStoresThem) {
  ToyModel model;
  auto engine = Start(&model);
  ASSERT_TRUE(engine->Ingest("m", {"tale", PlainText(30000, 7)}, nullptr, nullptr).ok());
  const Result<AskReply> stored = engine->Ask("m", kQuestion, Faithful(0.2));
  ASSERT_TRUE(stored.ok()) << stored.status().ToString();
  engine.reset();
  const auto summaries = [&](bool remove) {
    Result<std::unique_ptr<ColdStore>> store =
        OpenRocksStore({.path = home_ / "h/memories/m", .create_if_missing = false});
    EXPECT_TRUE(store.ok());
    std::map<std::string, std::string> found;
    for (const auto& [key, value] : Contents(**store)) {
      if (static_cast<Table>(key.first) != Table::kIndex || !key.second.ends_with('M')) continue;
      found[key.second] = value;
      if (remove) {
        EXPECT_TRUE(DeleteValue(**store, Table::kIndex, key.second).ok());
      }
    }
    return found;
  };
  const auto damaged = summaries(false);
  {
    Result<std::unique_ptr<ColdStore>> store =
        OpenRocksStore({.path = home_ / "h/memories/m", .create_if_missing = false});
    ASSERT_TRUE(store.ok());
    std::string bad = damaged.begin()->second;
    bad[bad.size() / 2] = static_cast<char>(bad[bad.size() / 2] ^ 1);
    ASSERT_TRUE(PutValue(**store, Table::kIndex, damaged.begin()->first, bad).ok());
  }
  engine = Start(&model);
  const Result<AskReply> despite = engine->Ask("m", kQuestion, Faithful(0.2));
  ASSERT_TRUE(despite.ok()) << despite.status().ToString();
  EXPECT_EQ(despite->answer, stored->answer);
  EXPECT_EQ(despite->coverage, stored->coverage);
  EXPECT_THAT(engine->Verify("m").message(), HasSubstr("reindex m"));
  ASSERT_TRUE(engine->Reindex("m", nullptr).ok());
  EXPECT_TRUE(engine->Verify("m").ok());
  engine.reset();

  const auto whole = summaries(true);
  EXPECT_EQ(whole, damaged);
  EXPECT_GT(whole.size(), 1u);
  engine = Start(&model);
  const Result<AskReply> made = engine->Ask("m", kQuestion, Faithful(0.2));
  ASSERT_TRUE(made.ok()) << made.status().ToString();
  EXPECT_EQ(made->answer, stored->answer);
  EXPECT_EQ(made->coverage, stored->coverage);
  EXPECT_TRUE(engine->Verify("m").ok());
  ASSERT_TRUE(engine->Reindex("m", nullptr).ok());
  engine.reset();
  EXPECT_EQ(summaries(false), whole);
}

TEST_F(FaithfulTest, WithinABudgetHeadsAttendToLessOrTheQuestionIsRefused) {
  ToyModel model({.context_length = 32768});
  ASSERT_TRUE(Start(&model)->Ingest("m", {"tale", PlainText(30000, 8)}, nullptr, nullptr).ok());
  size_t whole = 0, less = 0, refused = 0;
  for (uint64_t budget = 24 << 20; budget > 100 << 10;
       budget = kSanitized ? budget / 2 : budget * 4 / 5) {
    auto engine = Start(&model, budget);
    const Result<AskReply> reply = engine->Ask("m", kQuestion, Faithful(1.0));
    EXPECT_LE(engine->budget().peak_bytes(), budget);
    const std::vector<std::string> notes = engine->TakeNotes();
    if (!reply.ok()) {
      ++refused;
      EXPECT_EQ(reply.status().code(), StatusCode::kResourceExhausted) << reply.status().ToString();
      EXPECT_THAT(reply.status().message(), HasSubstr("--memory-budget"));
      continue;
    }
    EXPECT_EQ(refused, 0u);
    if (notes.empty()) {
      ++whole;
      EXPECT_NEAR(reply->coverage.value(), 1, 1e-5);
    } else {
      ++less;
      EXPECT_LT(reply->coverage, 1);
      EXPECT_THAT(notes, Contains(HasSubstr("--memory-budget")));
    }
  }
  EXPECT_GE(whole, 1u);
  EXPECT_GE(less, 1u);
  EXPECT_GE(refused, 1u);
}

TEST_F(FaithfulTest, RefusesQuestionsThatLeaveNoRoomAndEmptyOnes) {
  ToyModel model({.context_length = 2048});
  auto engine = Start(&model);
  ASSERT_TRUE(engine->Ingest("m", {"tale", PlainText(12000, 9)}, nullptr, nullptr).ok());
  EXPECT_EQ(engine->Ask("m", " \n", Faithful()).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(engine->Ask("none", kQuestion, Faithful()).status().code(), StatusCode::kNotFound);
  bool answered = false, no_room = false, too_long = false;
  for (size_t bytes = 100; bytes < 6000; bytes += kSanitized ? 300 : 150) {
    const Result<AskReply> reply = engine->Ask("m", RandomText(bytes, 3), Faithful(0.5, 64));
    answered |= reply.ok();
    no_room |= reply.status().code() == StatusCode::kResourceExhausted;
    too_long |= reply.status().code() == StatusCode::kInvalidArgument;
    EXPECT_TRUE(reply.ok() || no_room || too_long) << reply.status().ToString();
    EXPECT_FALSE(reply.ok() && (no_room || too_long)) << bytes;
  }
  EXPECT_TRUE(answered && no_room && too_long);
}

TEST(AttendNames, ParseBackToTheSameMode) {
  for (const char* name : {"focused", "faithful"}) EXPECT_EQ(AttendName(*FindAttend(name)), name);
  EXPECT_FALSE(FindAttend("full").has_value());
}

}  // namespace
}  // namespace longhold
