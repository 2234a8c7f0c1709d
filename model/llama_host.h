// libllama as the language model: load, prove, tokenise, template, forward. Third-party types stop
// at the .cc files of model/.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "memory/model/language_model.h"

namespace longhold {

struct LlamaOptions {
  std::string path;  // GGUF
  uint32_t threads = 2;
  // Texts that go through the model side by side (LanguageModel::sequences_max). Those of a model
  // whose layers all go through longhold cost nothing; of others, whose layers keep a window of
  // each text, there are at least one and no more than fit `native_bytes`.
  uint32_t texts = 1;
  uint64_t native_bytes = 0;
  bool prove = true;  // hold the tap against the engine's own attention before returning
};

// A hash of a GGUF file's size, its header and a sample of its weights, by which a memory knows the
// model that read it. Milliseconds. Errors: invalid_argument (the file cannot be read).
Result<std::string> ModelFingerprint(const std::string& path);

// Loads the model and attaches the attention tap. Errors:
//   not_found            no such file
//   invalid_argument     not a GGUF, truncated, or unreadable: the message names the file and what
//   is wrong unimplemented        an architecture, layer shape or RoPE variant that longhold does
//   not take over, by name failed_precondition  the processor lacks the instruction set that
//   libllama was built for internal             the proof failed: the message names architecture,
//   layer and error
Result<std::unique_ptr<LanguageModel>> LoadLlama(const LlamaOptions& options);

// How far the whole model's logits are from the engine's own when every tapped layer goes through
// longhold and all tokens are in the softmax. The engine's side runs in float32 without flash
// attention, whose 16-bit sums would be the larger error. Weights that quantise activations (Q8_0
// and below) turn the last bit of a sum into whole quantisation steps some layers later, so compare
// with `engine_error`: the engine's fused attention against its own exact one on the same text.
struct LogitEquality {
  double error = 0;          // max |longhold - engine|, over the vocabulary, last token
  double engine_error = 0;   // max |engine fused - engine exact|
  bool same_greedy = false;  // the same most likely token
  // By how much the engine's exact logits prefer their own most likely token to longhold's; 0 when
  // it is the same.
  double greedy_gap = 0;
};
// `model` must come from LoadLlama; `tokens` must fit one batch.
Result<LogitEquality> CompareLogits(LanguageModel& model, std::span<const TokenId> tokens);

// Full native attention, for comparison: the continuation of `tokens` by the engine's own attention
// and cache, at each step the likeliest token.
struct NativeRun {
  std::vector<TokenId> tokens;
  double prefill_tok_s = 0;
  double tail_ms = 0;  // reading what came after the shared prefix; 0 where nothing did
  double decode_tok_s = 0;
};
Result<NativeRun> RunNative(LanguageModel& model, std::span<const TokenId> prompt,
                            uint32_t max_tokens);
// The same for several prompts that begin alike, as `sampler` chooses: `prefix` is read once.
// prefill_tok_s is the prefix's, in every run. `stop` may be null; when it becomes true the call
// ends between two batches. Errors: cancelled, resource_exhausted (no room for the cache).
Result<std::vector<NativeRun>> RunNativeEach(LanguageModel& model, std::span<const TokenId> prefix,
                                             const std::vector<std::vector<TokenId>>& tails,
                                             uint32_t max_tokens, const SamplerOptions& sampler,
                                             const std::atomic<bool>* stop = nullptr);

// Re-quantises `from` to q8_0 at `to` (written beside it first, then renamed). Slow: seconds.
Status RequantiseQ8(const std::string& from, const std::string& to);
// Writes the same weights as float32: big and slow, and without the steps of quantised activations,
// so that attention can be compared to the last digits.
Status WidenF32(const std::string& from, const std::string& to);

}  // namespace longhold
