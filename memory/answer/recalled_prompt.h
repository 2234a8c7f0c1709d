// The recalled prompt: what another inference engine needs to answer from a memory. It gets the
// tokens of the whole prompt, and for the first of them the keys and values of the full reading,
// rotated to compact positions. An engine that takes these as its prefix cache reads only the rest.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/answer/ask_types.h"
#include "memory/model/language_model.h"
#include "memory/recall/recall_plan.h"
#include "memory/recall/recaller.h"

namespace longhold {

// Value type.
struct RecalledPromptOptions {
  std::string system;
  std::vector<ChatTurn> earlier;  // what was said before; nothing is recalled for it
  RecallOptions recall;
  std::optional<uint32_t> reencode_tokens;  // as FocusedOptions::reencode_tokens
  uint32_t answer_tokens_max = 256;
  // Tokens that the other engine reads at most, question and answer included. The model's native
  // length applies, too.
  uint32_t context_tokens = UINT32_MAX;
};

// One question's prompt. Its tokens:
//   [head] [recalled spans, worst to best] [re-encoded excerpts] [tail with the question]
// Head and recalled spans are the prefix: the memory has their keys and values. The prompt differs
// from that of FocusedAnswer in one point. Other engines have no gate, so all recalled tokens count
// alike. Of the plan's spans only those are therefore recalled whose gate is nearly open
// (UngatedSpans).
//
// Owner: whoever asks another engine. It keeps the memory open. Thread use: *confined* like the
// engine (Make, Finish and the destructor use it), but for tokens() and CopyKeyValues, which any
// one thread may call in between.
class RecalledPrompt {
 public:
  // Borrows the recaller. Errors: Recaller::Open's, the stages', the store's; unimplemented (a
  // model with layers whose keys longhold does not store).
  static Result<std::unique_ptr<RecalledPrompt>> Make(Recaller* recaller, const std::string& memory,
                                                      std::string_view question,
                                                      const RecalledPromptOptions& options);

  // The memory seems to hold nothing on the question. The other engine is not to be asked, and
  // there are no tokens.
  bool abstained() const { return plan_.abstained; }
  std::span<const TokenId> tokens() const { return tokens_; }
  uint32_t prefix_tokens() const { return prefix_tokens_; }
  uint32_t answer_tokens() const { return answer_tokens_; }  // the longest answer there is room for
  const KvGeometry& geometry() const { return open_.question->info().geometry; }
  // Copies keys (rotated to positions 0, 1, ...) and values of the prefix in one layer, in fp16:
  // [prefix_tokens, kv_width] each. Must hold: the layer has a slot in geometry().
  void CopyKeyValues(uint32_t slot, uint16_t* keys, uint16_t* values) const;

  // The reply with `answer`, which the other engine gave, or kAbstention. It has what the plan
  // knows: citations, evidence, and whether the answer rests on the memory. Citations are in the
  // order of how many of the answer's own words they have, then by relevance; their score is the
  // relevance, since nobody measured attention. Call it once. Errors: the tokenizer's, the store's.
  Result<AskReply> Finish(std::string_view answer, bool characters);

 private:
  RecalledPrompt(OpenQuestion open, RecallPlan plan)
      : open_(std::move(open)), plan_(std::move(plan)) {}
  Status Compose();
  // How many of the answer's own words each span has: [spans].
  Result<std::vector<uint32_t>> WordsFound(std::string_view answer) const;
  // What a citation may name: recalled, or re-encoded as an excerpt.
  std::vector<size_t> SpansBeforeTheModel() const;

  OpenQuestion open_;
  RecallPlan plan_;
  AskReply reply_;
  std::vector<TokenId> tokens_;
  std::vector<bool> recalled_;  // [spans of the plan]
  uint32_t prefix_tokens_ = 0;
  uint32_t answer_tokens_ = 0;
};

// Which spans an engine without a gate is to see: [scores]. With a gate, span i gets the share
// score_i^gate of the attention that its keys ask for. Without one it gets all of it, and fifteen
// lookalikes outvote the one span that has the answer (docs/attach.md). So each gate is rounded to
// 0 or 1; the best span is always seen. As many spans as the gates add up to were tried, too: of 20
// needles whose keys alone were recalled, 16 were answered right, as with all spans.
std::vector<bool> UngatedSpans(std::span<const double> scores, double gate);

// Keys, rotated to positions 0, 1, ..., and values of tokens that the model reads with nothing
// before them, in fp16. Value type.
struct TokenKeyValues {
  // [layers] of [tokens, kv_width]
  std::vector<std::vector<uint16_t>> keys, values;
};
// Reads `tokens`: what another engine must have for them, too. Changes native positions from 0 on.
// Must hold: no layer of the model is left to the inference library. Errors: the model's.
Result<TokenKeyValues> ReadKeyValues(LanguageModel& model, std::span<const TokenId> tokens);

// Errors: unimplemented, with the reason, where another engine could not continue from the keys and
// values that longhold has of this model.
Status CheckRecalledPrompts(const ModelInfo& info);

}  // namespace longhold
