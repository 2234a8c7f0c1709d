// The language model, implemented with libllama: load a model, verify its attention,
// tokenise, apply the chat template, run forward passes. Third-party types appear in the .cc
// files of model/ only.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "memory/model/language_model.h"

namespace longhold {

struct LlamaOptions {
  std::string path;  // a GGUF file
  uint32_t threads = 2;
  // How many sequences may share a forward pass (LanguageModel::sequences_max). Applies only to a
  // model with layers that are not tapped. For these layers, the engine keeps a window of keys and
  // values per sequence. There is at least one sequence, and no more than fit `native_bytes`. If
  // all layers are tapped, a sequence needs no such memory, and this option is ignored.
  uint32_t sequences = 1;
  uint64_t native_bytes = 0;  // memory limit of these windows
  // compare our attention with the engine's own before returning (see LoadLlama)
  bool prove = true;
};

// A hash of a GGUF file's size, its header and a sample of its weights. A memory stores it to
// recognise the model that wrote it. Takes milliseconds. Errors: invalid_argument (the file
// cannot be read).
Result<std::string> ModelFingerprint(const std::string& path);

// Loads the model and attaches the attention tap. With `prove`, runs the proof: a short text goes
// through the model, and the attention of each tapped layer must equal the engine's own. Errors:
//   not_found            no such file
//   invalid_argument     not a GGUF file, truncated, or unreadable; the message says what is wrong
//   unimplemented        longhold does not support the architecture, a layer's shape or its RoPE
//                        variant; the message names it
//   failed_precondition  the processor lacks the instruction set that libllama was built for
//   internal             the proof failed: the message names architecture, layer and error
Result<std::unique_ptr<LanguageModel>> LoadLlama(const LlamaOptions& options);

// How far longhold's logits are from the engine's, if all layers are computed by longhold and all
// tokens are in the softmax.
//
// The reference is the engine's exact attention: float32, without flash attention, whose 16-bit
// sums would dominate the error. In models that quantise activations (Q8_0 and below), a difference
// in the last bit of a sum grows to whole quantisation steps some layers later. So compare `error`
// with `engine_error`, the difference between the engine's fused (flash) attention and its exact
// one on the same text.
struct LogitEquality {
  double error = 0;          // max |longhold - engine exact| over the vocabulary, last token
  double engine_error = 0;   // max |engine fused - engine exact|, likewise
  bool same_greedy = false;  // whether both have the same most likely token
  // By how much the engine's exact logits prefer their most likely token to longhold's. 0 if both
  // are the same.
  double greedy_gap = 0;
};
// Must hold: `model` comes from LoadLlama. Errors: invalid_argument (`tokens` do not
// fit one batch).
Result<LogitEquality> CompareLogits(LanguageModel& model, std::span<const TokenId> tokens);

// A run of the engine's own attention and cache, for comparison. The continuation of the prompt is
// chosen greedily, unless a sampler is given.
struct NativeRun {
  std::vector<TokenId> tokens;
  double prefill_tok_s = 0;
  double tail_ms = 0;  // time to read the part after the shared prefix; 0 if there is none
  double decode_tok_s = 0;
};
Result<NativeRun> RunNative(LanguageModel& model, std::span<const TokenId> prompt,
                            uint32_t max_tokens);
// Runs several prompts that share the beginning `prefix`, which is read only once. `sampler`
// chooses the tokens. In every run, prefill_tok_s is the speed of reading the prefix.
//
// `stop` may be null. If it becomes true, the call ends before the next batch. Errors: cancelled,
// resource_exhausted (no memory for the cache).
Result<std::vector<NativeRun>> RunNativeEach(LanguageModel& model, std::span<const TokenId> prefix,
                                             const std::vector<std::vector<TokenId>>& tails,
                                             uint32_t max_tokens, const SamplerOptions& sampler,
                                             const std::atomic<bool>* stop = nullptr);

// Re-quantises the model `from` to q8_0. Writes a temporary file next to `to`, then renames
// it. Takes seconds.
Status RequantiseQ8(const std::string& from, const std::string& to);
// Converts the model's weights to float32. The file is large and slow, but its activations are not
// quantised. So attention can be compared to the last digits.
Status WidenF32(const std::string& from, const std::string& to);

}  // namespace longhold
