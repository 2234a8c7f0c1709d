// The engine with the toy model on stores in RAM, and a text (the tale) with a needle in it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>

#include "memory/engine.h"
#include "store/mem_provider.h"
#include "tests/support/stores.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {

inline constexpr char kNeedle[] = "The secret number of Methuselah is 7350194, said é the elder.\n";
inline constexpr char kQuestion[] = "What is the secret number of Methuselah?";

inline RecallProfile Profile() {
  RecallProfile p;
  p.rerank_spans = 0;  // the toy's likelihoods are noise
  p.name = "toy";
  p.heads = {{.layer = 3, .kv_head = 1}};
  p.signals["heads"] = 0.2;  // the toy's heads attend anywhere
  p.window_tokens = 64;
  return p;
}

inline std::string Tale() {
  std::string text = PlainText(6000, 1);
  text.insert(text.find('\n', 3000) + 1, kNeedle);
  return text + RandomText(1500, 2);
}

class EngineTest : public testing::Test {
 protected:
  // Simulates a new process: a new engine and model.
  void Restart(ToyOptions options = {}, const RecallProfile* profile = nullptr) {
    engine_.reset();
    model_ = std::make_unique<ToyModel>(std::move(options));
    engine_ = std::make_unique<Engine>(stores_.get(), EngineOptions{});
    const RecallProfile own = Profile();
    const Status status = engine_->UseModel(model_.get(), profile == nullptr ? &own : profile);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  void SetUp() override { Restart(); }
  Result<IngestReport> Ingest(const std::string& name, const std::string& text) {
    return engine_->Ingest("tales", {name, text}, nullptr, nullptr);
  }
  // Changes values of the closed memory.
  void Damage(const std::function<void(ColdStore&)>& change) {
    engine_.reset();
    stores_->Change("tales", change);
  }
  void ExpectPlace(const RecalledSpan& span, const std::string& original) {
    ASSERT_LE(span.bytes.end, original.size());
    EXPECT_EQ(span.text, original.substr(span.bytes.begin, span.bytes.size()));
    const auto line_of = [&](uint64_t byte) {
      return 1 + static_cast<uint64_t>(std::count(
                     original.begin(), original.begin() + static_cast<ptrdiff_t>(byte), '\n'));
    };
    EXPECT_EQ(span.line_begin, line_of(span.bytes.begin));
    EXPECT_EQ(span.line_end, line_of(span.bytes.end - 1));
  }

  const std::unique_ptr<MemProvider> stores_ = NewMemProvider();
  std::unique_ptr<ToyModel> model_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace longhold
