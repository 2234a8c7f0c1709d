// The implementation of LanguageModel with libllama. Internal to model/: other code uses
// llama_host.h. The methods are in one file per concern:
//   llama_load.cc     opens the file, observes the attention layers and proves the tap
//   llama_host.cc     forward passes, the native cache and the workers
//   llama_text.cc     tokenizer, embeddings and chat template
//   llama_sampler.cc  the choice of tokens
//   llama_native.cc   runs of the engine's own attention, for comparison
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/process_memory.h"
#include "base/status.h"
#include "memory/model/language_model.h"
#include "model/attention_tap.h"
#include "model/llama_host.h"
#include "model/thread_governor.h"

struct ggml_tensor;
struct ggml_threadpool;
struct llama_context;
struct llama_model;
struct llama_vocab;

namespace longhold {

struct LlamaModelDeleter {
  void operator()(llama_model* m) const;
};
struct LlamaContextDeleter {
  void operator()(llama_context* c) const;
};
struct ThreadPoolDeleter {
  void operator()(ggml_threadpool* p) const;
};
using ModelPtr = std::unique_ptr<llama_model, LlamaModelDeleter>;
using ContextPtr = std::unique_ptr<llama_context, LlamaContextDeleter>;
using PoolPtr = std::unique_ptr<ggml_threadpool, ThreadPoolDeleter>;

// The LanguageModel of LoadLlama. Thread use: as LanguageModel; const methods are safe to call
// concurrently.
class LlamaHost final : public LanguageModel {
 public:
  // Open, ObserveGeometry, Attach and Prove are called in this order. Errors: as LoadLlama.
  Status Open(const LlamaOptions& options);
  Status ObserveGeometry();
  Status Attach();

  const ModelInfo& info() const override { return info_; }
  Result<std::vector<TokenId>> Tokenize(std::string_view text, bool special) const override;
  std::string Piece(TokenId token) const override;
  TokenId Bos() const override;
  bool EndsAnswer(TokenId token) const override;
  void Embed(std::span<const TokenId> tokens, float* out) const override;
  Result<PromptParts> Format(std::string_view system, std::span<const ChatTurn> earlier,
                             std::string_view question) const override;
  Status Forward(std::span<const TokenId> tokens, uint32_t position, LayerAttention* attention,
                 bool want_logits) override;
  uint32_t batch_tokens() const override { return kBatchTokens; }
  Status ForwardEach(std::span<const NextToken> next) override;
  uint32_t sequences_max() const override {
    return info_.native_window == 0 ? OutputsMax() : native_sequences_;
  }
  void UseSequence(uint32_t sequence) override;
  std::span<const float> logits() const override { return logits_; }
  Result<std::vector<std::vector<float>>> Score(std::span<const Branch> branches, uint32_t position,
                                                LayerAttention* attention) override;
  uint32_t scored_tokens_max() const override { return OutputsMax(); }
  uint32_t branches_max() const override {
    return info_.native_window == 0 ? kBatchTokens : kNativeBranches;
  }
  void NativeForget(uint32_t begin, uint32_t end) override;
  Status NativeShift(uint32_t begin, uint32_t end, int32_t delta) override;
  Result<std::string> NativeSave() override;
  Status NativeRestore(std::string_view bytes) override;
  std::unique_ptr<TokenSampler> NewSampler(const SamplerOptions& options) const override;
  void Parallel(size_t count, const std::function<void(size_t)>& fn) override;

  Status Prove();
  // Sets info_.buffer_bytes to the growth of private memory since `data_bytes`. Weights are not
  // included, because they are mapped files. Not resident memory: the first long pass touches most
  // of the buffers, so that would be too little.
  void NoteBuffers(uint64_t data_bytes) {
    const uint64_t now = ProcessStatusBytes("VmData");
    info_.buffer_bytes = now - std::min(now, data_bytes);
  }
  Result<LogitEquality> Compare(std::span<const TokenId> tokens);
  Result<std::vector<NativeRun>> Native(std::span<const TokenId> prefix,
                                        const std::vector<std::vector<TokenId>>& tails,
                                        uint32_t max_tokens, const SamplerOptions& options,
                                        const std::atomic<bool>* stop);

 private:
  static constexpr uint32_t kBatchTokens = 512;
  // Branches per Score if some layers are not tapped. The native cache must then keep the branches
  // apart, and each needs a window of its cells.
  static constexpr uint32_t kNativeBranches = 8;
  static constexpr uint32_t kOutputBytes = 24u << 20;  // enough for 128 rows of 49,152 logits

  // kFused: one graph node per layer for the whole attention; it rounds queries, keys and sums to
  // 16 bits. kExact: plain float32 products over a float32 cache, as the reference of Compare.
  enum class NativeAttention { kFused, kExact };
  Result<ContextPtr> NewContext(uint32_t cells, NativeAttention kind, AttentionTap* tap,
                                uint32_t branches = 0) const;
  Status Decode(llama_context* context, std::span<const TokenId> tokens, uint32_t position,
                bool want_logits, int32_t sequence = 0);
  // Runs the batch in batch_tokens_, batch_positions_ and batch_logits_. Without `sequences`, all
  // of it belongs to sequence 0.
  Status DecodeBatch(llama_context* context, std::span<int32_t> sequences = {});
  int32_t Sequence() const { return static_cast<int32_t>(sequence_); }  // a llama_seq_id
  // Removes from the native cache what a sequence's layers no longer see from `position` on.
  void Prune(uint32_t sequence, uint32_t position);
  uint32_t ObserveCells() const;
  // Rows of logits that one pass may return. The engine allocates room for all of them, twice.
  uint32_t OutputsMax() const {
    return std::clamp<uint32_t>(kOutputBytes / (4 * info_.vocab_size), 1, kBatchTokens);
  }

  LlamaOptions options_;
  ModelInfo info_;
  ModelPtr model_;
  const llama_vocab* vocab_ = nullptr;
  PoolPtr pool_;
  std::optional<ThreadGovernor> governor_;
  AttentionTap tap_;
  ContextPtr context_;
  std::vector<TokenId> batch_tokens_;
  std::vector<int32_t> batch_positions_;
  std::vector<int8_t> batch_logits_;
  std::vector<float> logits_;
  const ggml_tensor* embeddings_ = nullptr;  // owned by model_; null if they cannot be read
  bool shift_pending_ = false;               // NativeShift was called after the last pass
  // Sequences that the native cache has room for: [0, native_sequences_). Those of branches follow.
  uint32_t native_sequences_ = 1;
  uint32_t sequence_ = 0;  // the sequence in use
  // [native_sequences_]: native position of the next token if known, else 0.
  std::vector<uint32_t> ends_;
  std::vector<TokenId> proof_tokens_;
  // [tapped layers]: output of the engine's own attention on proof_tokens_.
  std::vector<std::vector<float>> proof_outputs_;
};

}  // namespace longhold
