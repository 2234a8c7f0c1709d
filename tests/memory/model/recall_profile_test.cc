// Recall profiles against what their header promises: shipped files, strict keys, types and ranges.
#include "memory/model/recall_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace longhold {
namespace {

using testing::HasSubstr;

std::vector<std::filesystem::path> ShippedFiles() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::filesystem::path(LONGHOLD_SOURCE_DIR) / "memory/profiles")) {
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  }
  return files;
}

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

// The info of a model that `p` matches.
ModelInfo ModelOf(const RecallProfile& p) {
  ModelInfo m;
  m.architecture = p.architecture;
  m.layer_count = p.layer_count;
  m.vocab_size = p.vocab_size;
  m.geometry.q_heads = p.q_heads;
  m.geometry.kv_heads = p.kv_heads;
  m.geometry.head_dim = p.head_dim;
  return m;
}

TEST(RecallProfile, EveryShippedFileParsesAndIsBuiltIn) {
  const std::vector<std::string_view> builtin = BuiltinProfileTexts();
  ASSERT_EQ(builtin.size(), ShippedFiles().size());
  ASSERT_GE(builtin.size(), 2u);
  for (const auto& file : ShippedFiles()) {
    const Result<RecallProfile> p = RecallProfile::Parse(ReadFile(file), file.string());
    ASSERT_TRUE(p.ok()) << p.status().ToString();
    EXPECT_EQ(p->name, file.stem());
    EXPECT_THAT(builtin, testing::Contains(testing::Eq(ReadFile(file)))) << file;
    for (const RecallHead& head : p->heads) {
      EXPECT_LT(head.layer, p->layer_count);
      EXPECT_LT(head.kv_head, p->kv_heads);
    }
  }
}

TEST(RecallProfile, ShippedProfilesMatchOnlyTheirModel) {
  for (const auto& file : ShippedFiles()) {
    const RecallProfile p = *RecallProfile::Parse(ReadFile(file), file.string());
    EXPECT_TRUE(p.Matches(ModelOf(p)));
    EXPECT_EQ(RecallProfile::For(ModelOf(p)).name, p.name);
    for (const auto& other_file : ShippedFiles()) {
      const RecallProfile other = *RecallProfile::Parse(ReadFile(other_file), other_file.string());
      EXPECT_EQ(p.Matches(ModelOf(other)), file == other_file) << file << other_file;
    }
    // Any single difference makes it another model, which gets the generic profile.
    for (int i = 0; i < 6; ++i) {
      ModelInfo m = ModelOf(p);
      switch (i) {
        case 0: m.architecture += "2"; break;
        case 1: ++m.layer_count; break;
        case 2: m.geometry.q_heads *= 2; break;
        case 3: ++m.geometry.kv_heads; break;
        case 4: m.geometry.head_dim += 4; break;
        case 5: --m.vocab_size; break;
      }
      EXPECT_FALSE(p.Matches(m)) << i;
      EXPECT_EQ(RecallProfile::For(m).name, kGenericProfile);
      EXPECT_TRUE(RecallProfile::For(m).heads.empty());
      EXPECT_EQ(RecallProfile::For(m).rerank_spans + RecallProfile::For(m).reencode_tokens, 0u)
          << "nothing that takes a large model seconds";
    }
  }
}

TEST(RecallProfile, MissingKeysKeepTheirDefaults) {
  const RecallProfile defaults;
  const Result<RecallProfile> p = RecallProfile::Parse("{\"name\": \"mine\"}", "mine.json");
  ASSERT_TRUE(p.ok()) << p.status().ToString();
  EXPECT_EQ(p->name, "mine");
  EXPECT_EQ(p->signals, defaults.signals);
  EXPECT_EQ(p->gate, defaults.gate);
  EXPECT_EQ(p->spans_max, defaults.spans_max);
  EXPECT_EQ(p->span_score_min, defaults.span_score_min);
  EXPECT_EQ(p->abstain_support, 0.0) << "every model needs its own threshold";
  EXPECT_EQ(p->window_tokens, defaults.window_tokens);
  EXPECT_EQ(p->sink_tokens, defaults.sink_tokens);
  EXPECT_TRUE(p->heads.empty());
}

TEST(RecallProfile, ParseReadsWhatToJsonWrites) {
  for (const auto& file : ShippedFiles()) {
    const RecallProfile p = *RecallProfile::Parse(ReadFile(file), file.string());
    const Result<RecallProfile> back = RecallProfile::Parse(p.ToJson(), "back.json");
    ASSERT_TRUE(back.ok()) << back.status().ToString();
    EXPECT_EQ(back->ToJson(), p.ToJson());
    EXPECT_TRUE(back->Matches(ModelOf(p)));
    ASSERT_EQ(back->heads.size(), p.heads.size());
    for (size_t h = 0; h < p.heads.size(); ++h) EXPECT_EQ(back->heads[h].layer, p.heads[h].layer);
    EXPECT_EQ(back->rerank_spans, p.rerank_spans);
  }
  // Sets every key to a value other than its default.
  const std::string all =
      R"({"name": "a \"b\"", "architecture": "x", "layer_count": 2, "q_heads": 4, "kv_heads": 2, "head_dim": 8, "vocab_size": 9,
    "heads": [{"layer": 1, "kv_head": 0, "weight": 0.25}], "signals": {"heads": 0.5, "words": 0.75, "expansion": 0.375, "vectors": 0.25}, "gate": 3.5, "rerank_spans": 3, "rerank_prior": 1.5,
    "rerank_scale": 2.5, "abstain_support": 0.5, "abstain_found": 0.75, "reencode_tokens": 77, "hops_max": 3, "hop_spans": 7, "generation_spans": 1,
    "spans_max": 5, "span_score_min": 0.125, "span_tokens": 64, "window_tokens": 128, "sink_tokens": 128,
    "calibration": {"seed": 3}})";
  const Result<RecallProfile> p = RecallProfile::Parse(all, "all.json");
  ASSERT_TRUE(p.ok()) << p.status().ToString();
  EXPECT_EQ(p->calibration, R"({"seed":3})");
  const std::string written = p->ToJson();
  for (const char* part : {"a \\\"b\\\"",
                           "\"weight\": 0.25",
                           "\"signals\": {\"expansion\": 0.375, \"heads\": 0.5, \"vectors\": 0.25, "
                           "\"words\": 0.75}",
                           "\"gate\": 3.5",
                           "\"rerank_spans\": 3",
                           "\"rerank_prior\": 1.5",
                           "\"abstain_support\": 0.5",
                           "\"abstain_found\": 0.75",
                           "\"reencode_tokens\": 77",
                           "\"hops_max\": 3",
                           "\"hop_spans\": 7",
                           "\"generation_spans\": 1",
                           "\"rerank_scale\": 2.5",
                           "\"spans_max\": 5",
                           "\"span_score_min\": 0.125",
                           "\"span_tokens\": 64",
                           "\"window_tokens\": 128",
                           "\"sink_tokens\": 128",
                           "\"vocab_size\": 9",
                           "{\"seed\":3}"}) {
    EXPECT_THAT(written, HasSubstr(part));
  }
  EXPECT_EQ(RecallProfile::Parse(written, "again.json")->ToJson(), written);
}

TEST(RecallProfile, FormerKeysAreAccepted) {
  const Result<RecallProfile> p = RecallProfile::Parse(
      R"({"head_weight": 0.5, "lexical_weight": 0.75, "related_weight": 0.5, "look_spans": 3,
          "look_prior": 1.5, "look_scale": 2.5, "reread_tokens": 77, "follow_hops": 3,
          "follow_spans": 7, "follow_refreshes": 1})",
      "former.json");
  ASSERT_TRUE(p.ok()) << p.status().ToString();
  EXPECT_EQ(p->WeightOf(kHeadSignal), 0.5);
  EXPECT_EQ(p->WeightOf(kWordSignal), 0.75);
  EXPECT_EQ(p->WeightOf(kExpansionSignal), 0.375);
  EXPECT_EQ(p->WeightOf("vectors"), 0);
  EXPECT_EQ(p->rerank_spans + p->hops_max + p->hop_spans + p->generation_spans, 14u);
  EXPECT_EQ(p->rerank_prior, 1.5);
  EXPECT_EQ(p->rerank_scale, 2.5);
  EXPECT_EQ(p->reencode_tokens, 77u);
}

TEST(RecallProfile, WrongKeysTypesAndRangesAreRefusedWithTheirNames) {
  const struct {
    const char* json;
    const char* key;
  } kCases[] = {
      {R"({"nmae": "x"})", "nmae"},
      {R"({"name": 3})", "name"},
      {R"({"architecture": ["llama"]})", "architecture"},
      {R"({"layer_count": "30"})", "layer_count"},
      {R"({"layer_count": 0})", "layer_count"},
      {R"({"layer_count": 2.5})", "layer_count"},
      {R"({"layer_count": null})", "layer_count"},
      {R"({"q_heads": -1})", "q_heads"},
      {R"({"kv_heads": 1e9})", "kv_heads"},
      {R"({"head_dim": 260})", "head_dim"},
      {R"({"vocab_size": 18446744073709551615})", "vocab_size"},
      {R"({"signals": []})", "signals"},
      {R"({"signals": {"words": true}})", "words"},
      {R"({"signals": {"words": -0.1}})", "words"},
      {R"({"lexical_weight": true})", "lexical_weight"},
      {R"({"gate": 101})", "gate"},
      {R"({"gate": "2"})", "gate"},
      {R"({"calibration": 3})", "calibration"},
      {R"({"spans_max": 0})", "spans_max"},
      {R"({"spans_max": 65})", "spans_max"},
      {R"({"spans_max": 7.99})", "spans_max"},
      {R"({"span_score_min": 1.01})", "span_score_min"},
      {R"({"abstain_support": -1})", "abstain_support"},
      {R"({"abstain_found": 1.5})", "abstain_found"},
      {R"({"span_tokens": 31})", "span_tokens"},
      {R"({"span_tokens": 1025})", "span_tokens"},
      {R"({"window_tokens": 65})", "window_tokens"},
      {R"({"window_tokens": 0})", "window_tokens"},
      {R"({"sink_tokens": 100})", "sink_tokens"},
      {R"({"heads": {}})", "heads"},
      {R"({"heads": [1]})", "heads"},
      {R"({"heads": [{}, {}, {}, {}, {}, {}, {}, {}, {}]})", "heads"},
      {R"({"heads": [{"layer": 1, "head": 2}]})", "head"},
      {R"({"heads": [{"layer": -1}]})", "layer"},
      {R"({"heads": [{"kv_head": "0"}]})", "kv_head"},
      {R"({"heads": [{"weight": -1}]})", "weight"},
  };
  for (const auto& c : kCases) {
    const Result<RecallProfile> p = RecallProfile::Parse(c.json, "mine.json");
    EXPECT_EQ(p.status().code(), StatusCode::kInvalidArgument) << c.json;
    EXPECT_THAT(p.status().message(), HasSubstr("\"" + std::string(c.key) + "\"")) << c.json;
    EXPECT_THAT(p.status().message(), HasSubstr("mine.json")) << c.json;
  }
}

TEST(RecallProfile, InvalidJsonIsRefusedWithTheFileName) {
  for (const char* text : {"", "{", "[]", "3", "{\"name\": }", "{} {}", "\xff\xfe", "nul"}) {
    const Result<RecallProfile> p = RecallProfile::Parse(text, "mine.json");
    EXPECT_EQ(p.status().code(), StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(p.status().message(), HasSubstr("mine.json")) << text;
  }
  const std::string deep(100000, '[');
  EXPECT_FALSE(RecallProfile::Parse(deep, "mine.json").ok());
}

}  // namespace
}  // namespace longhold
