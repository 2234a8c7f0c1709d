#include "model/llama_host.h"

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

#include "attention/side_by_side.h"
#include "base/hash.h"
#include "base/process_memory.h"
#include "ggml-cpu.h"
#include "llama.h"
#include "memory/attend/working_set.h"
#include "model/attention_tap.h"
#include "model/gguf_check.h"
#include "model/llama_runtime.h"
#include "model/thread_governor.h"

namespace longhold {
namespace {

constexpr uint32_t kBatchTokens = 512;
// Branches that are judged side by side where native layers have to tell them apart. Each takes a
// window of native cells.
constexpr uint32_t kNativeBranches = 8;
constexpr uint32_t kOutputBytes = 24u << 20;  // 128 rows of 49,152 logits
// Any sentence does; it only has to exercise the tap. Short, because every load pays for it twice.
constexpr char kProofText[] =
    "The memory of the river is longer than the memory of the bridge that crosses it.";
// The engine's fused attention rounds queries, keys and sums to 16 bits: measured 1e-4 to 8e-4 per
// layer.
constexpr double kProofRelativeError = 1e-2;

struct ModelDeleter {
  void operator()(llama_model* m) const { llama_model_free(m); }
};
struct ContextDeleter {
  void operator()(llama_context* c) const { llama_free(c); }
};
struct PoolDeleter {
  void operator()(ggml_threadpool* p) const { ggml_threadpool_free(p); }
};
using ModelPtr = std::unique_ptr<llama_model, ModelDeleter>;
using ContextPtr = std::unique_ptr<llama_context, ContextDeleter>;
using PoolPtr = std::unique_ptr<ggml_threadpool, PoolDeleter>;

std::string Meta(const llama_model* model, const char* key) {
  char buffer[512];
  const int n = llama_model_meta_val_str(model, key, buffer, sizeof(buffer));
  return n < 0 ? ""
               : std::string(buffer, std::min<size_t>(static_cast<size_t>(n), sizeof(buffer) - 1));
}

// The values that DRY's author recommends (oobabooga/text-generation-webui, pull request 5677).
// Lines are apart.
constexpr float kDryBase = 1.75f;
constexpr int32_t kDryAllowed = 2, kDryTokens = 4096;
const char* kDryBreakers[] = {"\n"};

class LlamaSampler final : public TokenSampler {
 public:
  LlamaSampler(const llama_vocab* vocab, const SamplerOptions& options)
      : chain_(llama_sampler_chain_init(llama_sampler_chain_default_params())) {
    if (options.dry_multiplier > 0) {
      llama_sampler_chain_add(
          chain_, llama_sampler_init_dry(vocab, options.dry_multiplier, kDryBase, kDryAllowed,
                                         kDryTokens, kDryBreakers, std::size(kDryBreakers)));
    }
    if (options.temperature <= 0) {
      llama_sampler_chain_add(chain_, llama_sampler_init_greedy());
      return;
    }
    if (options.top_p < 1)
      llama_sampler_chain_add(chain_, llama_sampler_init_top_p(options.top_p, 1));
    llama_sampler_chain_add(chain_, llama_sampler_init_temp(options.temperature));
    llama_sampler_chain_add(chain_, llama_sampler_init_dist(options.seed));
  }
  ~LlamaSampler() override { llama_sampler_free(chain_); }
  LlamaSampler(const LlamaSampler&) = delete;
  LlamaSampler& operator=(const LlamaSampler&) = delete;

  TokenId Sample(std::span<const float> logits) override {
    candidates_.resize(logits.size());
    for (size_t i = 0; i < logits.size(); ++i)
      candidates_[i] = {static_cast<llama_token>(i), logits[i], 0.0f};
    llama_token_data_array array{candidates_.data(), candidates_.size(), -1, false};
    llama_sampler_apply(chain_, &array);
    LH_CHECK(array.selected >= 0);
    const TokenId token = array.data[array.selected].id;
    llama_sampler_accept(chain_, token);
    return token;
  }

 private:
  llama_sampler* chain_;
  std::vector<llama_token_data> candidates_;
};

class LlamaHost final : public LanguageModel {
 public:
  // In the order of use. Each says what is wrong with `options.path`.
  Status Open(const LlamaOptions& options);
  Status ObserveGeometry();
  Status Attach();

  const ModelInfo& info() const override { return info_; }
  Result<std::vector<TokenId>> Tokenize(std::string_view text, bool special) const override;
  std::string Piece(TokenId token) const override;
  TokenId Bos() const override {
    return llama_vocab_get_add_bos(vocab_) ? llama_vocab_bos(vocab_) : -1;
  }
  bool EndsAnswer(TokenId token) const override { return llama_vocab_is_eog(vocab_, token); }
  void Embed(std::span<const TokenId> tokens, float* out) const override;
  Result<PromptParts> Format(std::string_view system, std::span<const ChatTurn> earlier,
                             std::string_view question) const override;
  Status Forward(std::span<const TokenId> tokens, uint32_t position, LayerAttention* attention,
                 bool want_logits) override;
  uint32_t batch_tokens() const override { return kBatchTokens; }
  Status ForwardEach(std::span<const NextToken> texts) override;
  uint32_t sequences_max() const override {
    return info_.native_window == 0 ? OutputsMax() : native_texts_;
  }
  void UseSequence(uint32_t text) override;
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
  std::unique_ptr<TokenSampler> NewSampler(const SamplerOptions& options) const override {
    return std::make_unique<LlamaSampler>(vocab_, options);
  }
  void Parallel(size_t count, const std::function<void(size_t)>& fn) override;

  Status Prove();
  // The weights are mapped files; the private memory since `data_bytes` are the buffers. Most of it
  // is touched by the first long pass only, so what is resident now would be too little.
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
  // kFused has one node per layer for the whole attention. kExact computes it by plain float32
  // products over a float32 cache: what the proof compares with, since the fused one rounds
  // queries, keys and sums to 16 bits.
  enum class NativeAttention { kFused, kExact };
  Result<ContextPtr> NewContext(uint32_t cells, NativeAttention kind, AttentionTap* tap,
                                uint32_t branches = 0) const;
  Status Decode(llama_context* context, std::span<const TokenId> tokens, uint32_t position,
                bool want_logits, llama_seq_id sequence = 0);
  // Runs the batch that batch_tokens_, batch_positions_ and batch_logits_ describe, all of it in
  // sequence 0 without `sequences`.
  Status DecodeBatch(llama_context* context, std::span<llama_seq_id> sequences = {});
  llama_seq_id Sequence() const { return static_cast<llama_seq_id>(text_); }
  // What a text's native layers no longer see from `position` on leaves the cache.
  void Prune(uint32_t text, uint32_t position);
  uint32_t ObserveCells() const;
  // Rows of logits that one pass may give. The engine keeps room for them all, twice.
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
  llama_batch batch_{};
  std::vector<llama_token> batch_tokens_;
  std::vector<llama_pos> batch_positions_;
  std::vector<int8_t> batch_logits_;
  std::vector<float> logits_;
  const ggml_tensor* embeddings_ = nullptr;  // of model_; null where they cannot be read
  bool shift_pending_ = false;               // NativeShift since the last pass
  // that the native cache has room for: sequences from 0 on, behind which those of branches follow
  uint32_t native_texts_ = 1;
  uint32_t text_ = 0;  // in use
  // [native_texts_] native position of the next token, where it is known, else 0
  std::vector<uint32_t> ends_;
  std::vector<TokenId> proof_tokens_;
  // [tapped layers] of the engine's own attention on proof_tokens_
  std::vector<std::vector<float>> proof_outputs_;
};

Status LlamaHost::Open(const LlamaOptions& options) {
  options_ = options;
  LH_RETURN_IF_ERROR(CheckGgufFile(options.path).status());
  LH_RETURN_IF_ERROR(StartLlama());
  TakeLlamaError();
  llama_model_params params = llama_model_default_params();
  params.n_gpu_layers = 0;
  model_.reset(llama_model_load_from_file(options.path.c_str(), params));
  if (model_ == nullptr) {
    return InvalidArgument("model " + options.path + ": cannot be loaded (" + TakeLlamaError() +
                           "); it may be truncated: fetch it again");
  }
  vocab_ = llama_model_get_vocab(model_.get());
  info_.path = options.path;
  info_.name = Meta(model_.get(), "general.name");
  info_.architecture = Meta(model_.get(), "general.architecture");
  if (info_.name.empty()) info_.name = std::filesystem::path(options.path).stem().string();
  info_.vocab_size = static_cast<uint32_t>(llama_vocab_n_tokens(vocab_));
  info_.layer_count = static_cast<uint32_t>(llama_model_n_layer(model_.get()));
  info_.context_length = static_cast<uint32_t>(std::max(0, llama_model_n_ctx_train(model_.get())));
  info_.native_window = static_cast<uint32_t>(std::max(0, llama_model_n_swa(model_.get())));
  info_.chat = llama_model_chat_template(model_.get(), nullptr) != nullptr;
  LH_ASSIGN_OR_RETURN(info_.fingerprint, ModelFingerprint(options.path));
  if (llama_model_has_encoder(model_.get()) || llama_model_is_recurrent(model_.get()) ||
      llama_model_is_hybrid(model_.get()) || !llama_model_has_decoder(model_.get())) {
    return Unimplemented("model " + options.path + ": architecture " + info_.architecture +
                         " is not a plain decoder with attention in every layer; longhold supports "
                         "llama, gemma3, qwen2, qwen3");
  }

  // libllama aborts when asked to tokenise
  if (llama_vocab_type(vocab_) == LLAMA_VOCAB_TYPE_NONE) {
    return InvalidArgument("model " + options.path +
                           ": carries no tokenizer; convert it again with its vocabulary");
  }
  if (Meta(model_.get(), (info_.architecture + ".rope.scaling.type").c_str()) == "longrope") {
    // libllama takes one of two factor tables by the size of the context, and ours has no one size.
    return Unimplemented("model " + options.path + ": architecture " + info_.architecture +
                         ": longrope RoPE scaling is not supported");
  }

  ggml_threadpool_params pool_params =
      ggml_threadpool_params_default(static_cast<int>(options.threads));
  // The lowest polling level: workers spin for some milliseconds between graphs (enough to bridge
  // two tokens), then sleep, so that they do not take a core from planning and disk work.
  pool_params.poll = 1;
  pool_.reset(ggml_threadpool_new(&pool_params));
  if (pool_ == nullptr)
    return ResourceExhausted("cannot start " + std::to_string(options.threads) + " threads");
  governor_.emplace(options.threads);
  return OkStatus();
}

Result<ContextPtr> LlamaHost::NewContext(uint32_t cells, NativeAttention kind, AttentionTap* tap,
                                         uint32_t branches) const {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = cells;
  params.n_batch = kBatchTokens;
  params.n_ubatch = kBatchTokens;
  // First the texts, then the branches; they share the cells.
  params.n_seq_max = native_texts_ + branches;
  params.kv_unified = true;
  params.n_outputs_max = tap == nullptr ? 1 : OutputsMax();
  params.n_threads = params.n_threads_batch = static_cast<int32_t>(options_.threads);
  params.flash_attn_type = kind == NativeAttention::kFused ? LLAMA_FLASH_ATTN_TYPE_ENABLED
                                                           : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  if (kind == NativeAttention::kExact) params.type_k = params.type_v = GGML_TYPE_F32;
  params.cb_eval = tap == nullptr ? nullptr : &AttentionTap::Callback;
  params.cb_eval_user_data = tap;
  params.no_perf = true;
  params.swa_full = tap == nullptr;  // a native run steps back to the end of its prefix
  ContextPtr context(llama_init_from_model(model_.get(), params));
  if (context == nullptr) {
    return ResourceExhausted("model " + info_.path + ": no context of " + std::to_string(cells) +
                             " cells: " + TakeLlamaError());
  }
  llama_attach_threadpool(context.get(), pool_.get(), pool_.get());
  return context;
}

Status LlamaHost::Decode(llama_context* context, std::span<const TokenId> tokens, uint32_t position,
                         bool want_logits, llama_seq_id sequence) {
  LH_CHECK(!tokens.empty() && tokens.size() <= kBatchTokens);
  const size_t n = tokens.size();
  batch_tokens_.assign(tokens.begin(), tokens.end());
  batch_positions_.resize(n);
  for (size_t i = 0; i < n; ++i) batch_positions_[i] = static_cast<llama_pos>(position + i);
  batch_logits_.assign(n, 0);
  batch_logits_[n - 1] = want_logits;
  std::vector<llama_seq_id> sequences(sequence == 0 ? 0 : n, sequence);
  LH_RETURN_IF_ERROR(DecodeBatch(context, sequences));
  if (want_logits) {
    const float* logits = llama_get_logits_ith(context, -1);
    if (logits == nullptr)
      return Internal("model " + info_.name + ": no logits after the forward pass");
    logits_.assign(logits, logits + info_.vocab_size);
  }
  return OkStatus();
}

Status LlamaHost::DecodeBatch(llama_context* context, std::span<llama_seq_id> sequences) {
  const size_t n = batch_tokens_.size();
  batch_ = {};
  std::vector<int32_t> one(sequences.size(), 1);
  std::vector<llama_seq_id*> of_token;
  for (llama_seq_id& s : sequences) of_token.push_back(&s);
  if (!sequences.empty()) {
    batch_.n_seq_id = one.data();
    batch_.seq_id = of_token.data();
  }
  batch_.n_tokens = static_cast<int32_t>(n);
  batch_.token = batch_tokens_.data();
  batch_.pos = batch_positions_.data();
  batch_.logits = batch_logits_.data();
  const auto threads = static_cast<int32_t>(governor_->Threads());
  llama_set_n_threads(context, threads, threads);
  const int rc = llama_decode(context, batch_);
  if (rc != 0) {
    return Internal("model " + info_.name + ": forward pass of " + std::to_string(n) +
                    " tokens failed with code " + std::to_string(rc) + " " + TakeLlamaError());
  }
  return OkStatus();
}

// Twice the window and more, so that a sliding-window layer's cache is smaller than a global one's.
uint32_t LlamaHost::ObserveCells() const {
  return std::max(2048u, 2 * (info_.native_window + kBatchTokens));
}

Status LlamaHost::ObserveGeometry() {
  const std::string what = "model " + info_.path + ": architecture " + info_.architecture;
  LH_ASSIGN_OR_RETURN(proof_tokens_, Tokenize(kProofText, false));
  if (Bos() >= 0) proof_tokens_.insert(proof_tokens_.begin(), Bos());
  if (proof_tokens_.size() < 4)
    return InvalidArgument(what + ": its tokenizer yields nothing for plain text");
  AttentionTap observer;
  LH_ASSIGN_OR_RETURN(ContextPtr context,
                      NewContext(ObserveCells(), NativeAttention::kFused, &observer));
  if (llama_get_memory(context.get()) == nullptr) {
    return Unimplemented(what + " is an encoder: it keeps no keys and values");
  }
  observer.Observe();
  LH_RETURN_IF_ERROR(Decode(context.get(), proof_tokens_, 0, true));
  // The first rows that a graph looks up are the tokens'. Weights that lie in another processor's
  // memory, or in another shape, are not read: recall does without them.
  if (const ggml_tensor* e = observer.embeddings();
      e != nullptr && e->data != nullptr && e->ne[1] == info_.vocab_size && e->ne[2] == 1 &&
      (e->buffer == nullptr || ggml_backend_buffer_is_host(e->buffer)) &&
      (e->type == GGML_TYPE_F32 || ggml_get_type_traits(e->type)->to_float != nullptr)) {
    embeddings_ = e;
    info_.embedding_width = static_cast<uint32_t>(e->ne[0]);
  }
  const std::vector<ObservedLayer>& observed = observer.observed();
  uint32_t cells = 0;
  for (const ObservedLayer& o : observed) cells = std::max(cells, o.cache_cells);

  KvGeometry& g = info_.geometry;
  g = {};
  for (const ObservedLayer& o : observed) {
    if (o.cache_cells < cells) continue;  // a sliding-window layer: the engine keeps it
    const std::string at = what + ", layer " + std::to_string(o.layer) + ": ";
    if (!o.rope_problem.empty()) return Unimplemented(at + o.rope_problem + " is not supported");
    if (o.max_bias != 0) return Unimplemented(at + "ALiBi attention bias is not supported");
    if (o.has_sinks) return Unimplemented(at + "learned attention sinks are not supported");
    if (o.head_dim != o.value_dim || o.head_dim > kMaxHeadDim || o.head_dim % 4 != 0 ||
        o.q_heads % o.kv_heads != 0) {
      return Unimplemented(at + "heads of " + std::to_string(o.head_dim) + " and " +
                           std::to_string(o.value_dim) + " dimensions are not supported");
    }
    if (o.rope.rotary_dims > o.head_dim || o.rope.rotary_dims % 2 != 0)
      return Unimplemented(at + "odd RoPE size");
    if (g.layers.empty()) {
      g.q_heads = o.q_heads;
      g.kv_heads = o.kv_heads;
      g.head_dim = o.head_dim;
      g.scale = o.scale;
      g.softcap = o.softcap;
    } else if (g.q_heads != o.q_heads || g.kv_heads != o.kv_heads || g.head_dim != o.head_dim ||
               g.scale != o.scale || g.softcap != o.softcap) {
      return Unimplemented(at + "its attention has another shape than layer " +
                           std::to_string(g.layers[0]));
    }
    g.layers.push_back(o.layer);
    g.rope.push_back(o.rope);
    proof_outputs_.push_back(o.output);
  }
  if (g.layers.empty())
    return Unimplemented(what + ": no attention layer with a full-length cache was found");
  if (observed.size() != info_.layer_count) {
    return Unimplemented(what + ": attention was found in " + std::to_string(observed.size()) +
                         " of " + std::to_string(info_.layer_count) + " layers");
  }
  if (g.layers.size() == info_.layer_count) info_.native_window = 0;
  tap_.SetLayers(g.layers);
  return OkStatus();
}

Status LlamaHost::Attach() {
  // Moving native positions needs equal caches for both kinds of layer: the window and one batch,
  // in steps of 256 cells.
  if (info_.native_window > 0) {
    const KvGeometry& g = info_.geometry;
    const uint64_t text_bytes =
        uint64_t{info_.native_window} * info_.layer_count * 2 * g.kv_width() * sizeof(uint16_t);
    native_texts_ = static_cast<uint32_t>(
        std::clamp<uint64_t>(options_.native_bytes / text_bytes, 1, std::max(1u, options_.texts)));
    ends_.assign(native_texts_, 0);
  }
  const uint32_t cells =
      (native_texts_ * (info_.native_window + 1) + kBatchTokens - 1 + 255) / 256 * 256;
  LH_ASSIGN_OR_RETURN(context_, NewContext(cells, NativeAttention::kFused, &tap_,
                                           info_.native_window > 0 ? kNativeBranches : 0));
  return OkStatus();
}

Result<std::vector<TokenId>> LlamaHost::Tokenize(std::string_view text, bool special) const {
  if (text.size() > (256u << 20))
    return InvalidArgument("text of " + std::to_string(text.size()) + " bytes in one piece");
  std::vector<TokenId> tokens(text.size() + 8);
  const auto tokenize = [&] {
    return llama_tokenize(vocab_, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                          static_cast<int32_t>(tokens.size()),
                          /*add_special=*/false, special);
  };
  int32_t n = 0;
  try {
    n = tokenize();
    if (n < 0) {  // more tokens than bytes: invalid UTF-8 costs three for one
      tokens.resize(static_cast<size_t>(-static_cast<int64_t>(n)));
      n = tokenize();
    }
  } catch (const std::exception& e) {  // a vocabulary that lacks what its tokenizer looks for
    return InvalidArgument("model " + info_.path + ": its tokenizer failed (" + e.what() + ")");
  }
  if (n < 0)
    return Internal("model " + info_.name + ": tokenizer failed on " + std::to_string(text.size()) +
                    " bytes");
  tokens.resize(static_cast<size_t>(n));
  return tokens;
}

std::string LlamaHost::Piece(TokenId token) const {
  if (token < 0 || static_cast<uint32_t>(token) >= info_.vocab_size) return "";  // libllama throws
  char buffer[256];
  const int32_t n =
      llama_token_to_piece(vocab_, token, buffer, sizeof(buffer), 0, /*special=*/false);
  if (n >= 0) return std::string(buffer, static_cast<size_t>(n));
  std::string big(static_cast<size_t>(-n), '\0');
  llama_token_to_piece(vocab_, token, big.data(), static_cast<int32_t>(big.size()), 0, false);
  return big;
}

void LlamaHost::Embed(std::span<const TokenId> tokens, float* out) const {
  LH_CHECK(embeddings_ != nullptr);
  const int64_t width = embeddings_->ne[0];
  for (const TokenId token : tokens) {
    LH_CHECK(token >= 0 && token < embeddings_->ne[1]);
    const char* row = static_cast<const char*>(embeddings_->data) +
                      static_cast<size_t>(token) * embeddings_->nb[1];
    if (embeddings_->type == GGML_TYPE_F32) {
      std::memcpy(out, row, static_cast<size_t>(width) * sizeof(float));
    } else {
      ggml_get_type_traits(embeddings_->type)->to_float(row, out, width);
    }
    out += width;
  }
}

Result<PromptParts> LlamaHost::Format(std::string_view system, std::span<const ChatTurn> earlier,
                                      std::string_view question) const {
  PromptParts parts;
  const char* chat_template = llama_model_chat_template(model_.get(), nullptr);
  if (chat_template == nullptr) {
    std::string said = system.empty() ? "" : std::string(system) + "\n\n";
    for (const ChatTurn& turn : earlier)
      said += (turn.by_user ? "\nQuestion: " : "\nAnswer: ") + turn.text;
    if (!said.empty()) parts.head.push_back({.text = std::move(said), .special = false});
    const std::string lead = "\nQuestion: ";
    parts.tail = lead + std::string(question) + "\nAnswer:";
    parts.question_begin = lead.size();
    parts.question_end = parts.question_begin + question.size();
    return parts;
  }
  // In place of what was said stand marks that no template writes, so that the places are found
  // even when the words repeat the template's.
  std::vector<std::string> said, marks;
  std::vector<const char*> roles;
  const auto say = [&](const char* role, std::string_view text) {
    roles.push_back(role);
    said.emplace_back(text);
    marks.push_back("\x02longhold-turn-" + std::to_string(marks.size()) + "\x03");
  };
  if (!system.empty()) say("system", system);
  for (const ChatTurn& turn : earlier) say(turn.by_user ? "user" : "assistant", turn.text);
  say("user", question);
  std::vector<llama_chat_message> messages;
  for (size_t i = 0; i < marks.size(); ++i) messages.push_back({roles[i], marks[i].c_str()});
  std::string text(4096 + 256 * messages.size(), '\0');
  const int32_t n = llama_chat_apply_template(chat_template, messages.data(), messages.size(), true,
                                              text.data(), static_cast<int32_t>(text.size()));
  if (n < 0)
    return Unimplemented("model " + info_.path +
                         ": its chat template is not one that libllama knows");
  text.resize(std::min(text.size(), static_cast<size_t>(n)));
  size_t begin = 0;
  for (size_t i = 0; i < marks.size(); ++i) {
    const size_t at = text.find(marks[i], begin);
    if (at == std::string::npos)
      return Internal("model " + info_.path + ": its chat template drops what was said");
    if (at > begin) parts.head.push_back({.text = text.substr(begin, at - begin), .special = true});
    begin = at + marks[i].size();
    if (i + 1 < marks.size() && !said[i].empty())
      parts.head.push_back({.text = said[i], .special = false});
  }
  parts.tail = std::string(question) + text.substr(begin);
  parts.question_begin = 0;
  parts.question_end = question.size();
  return parts;
}

Status LlamaHost::Forward(std::span<const TokenId> tokens, uint32_t position,
                          LayerAttention* attention, bool want_logits) {
  llama_memory_t memory = llama_get_memory(context_.get());
  if (info_.native_window == 0) {
    // Nothing reads the native cache: start it anew, whatever the position.
    llama_memory_clear(memory, false);
    position = 0;
  } else {
    Prune(text_, position);
    ends_[text_] = position + static_cast<uint32_t>(tokens.size());
  }
  tap_.Replace(attention);
  LH_RETURN_IF_ERROR(Decode(context_.get(), tokens, position, want_logits, Sequence()));
  shift_pending_ = false;
  return tap_.CheckReplaced();
}

Status LlamaHost::ForwardEach(std::span<const NextToken> texts) {
  LH_CHECK(!texts.empty() && texts.size() <= sequences_max());
  const bool native = info_.native_window > 0;
  const size_t n = texts.size();
  batch_tokens_.clear();
  batch_positions_.clear();
  batch_logits_.assign(n, 1);
  std::vector<LayerAttention*> each;
  std::vector<llama_seq_id> sequences;
  if (native) {
    Prune(text_, ends_[text_]);  // as UseSequence does
  } else {
    llama_memory_clear(llama_get_memory(context_.get()), false);  // nothing reads it
  }
  for (const NextToken& text : texts) {
    batch_positions_.push_back(
        static_cast<llama_pos>(native ? text.position : batch_tokens_.size()));
    sequences.push_back(native ? static_cast<llama_seq_id>(text.text) : 0);
    batch_tokens_.push_back(text.token);
    each.push_back(text.attention);
    if (!native) continue;
    Prune(text.text, text.position);
    ends_[text.text] = text.position + 1;
  }
  SideBySide attention(each, size_t{info_.geometry.q_heads} * info_.geometry.head_dim);
  tap_.Replace(&attention);
  LH_RETURN_IF_ERROR(DecodeBatch(context_.get(), sequences));
  shift_pending_ = false;
  LH_RETURN_IF_ERROR(tap_.CheckReplaced());
  for (size_t i = 0; i < n; ++i) {
    const float* logits = llama_get_logits_ith(context_.get(), static_cast<int32_t>(i));
    if (logits == nullptr)
      return Internal("model " + info_.name + ": no logits after the forward pass");
    texts[i].logits->assign(logits, logits + info_.vocab_size);
  }
  return OkStatus();
}

namespace {

// ln of the softmax of `logits` at `token`.
float LogProbability(const float* logits, uint32_t count, TokenId token) {
  float top = logits[0];
  for (uint32_t i = 1; i < count; ++i) top = std::max(top, logits[i]);
  double sum = 0;
  for (uint32_t i = 0; i < count; ++i) sum += std::exp(logits[i] - top);
  return logits[token] - top - static_cast<float>(std::log(sum));
}

}  // namespace

Result<std::vector<std::vector<float>>> LlamaHost::Score(std::span<const Branch> branches,
                                                         uint32_t position,
                                                         LayerAttention* attention) {
  LH_CHECK(branches.size() <= branches_max());
  struct Target {
    int32_t row;
    TokenId token;
    float* out;
  };
  std::vector<std::vector<float>> logs(branches.size());
  std::vector<Target> targets;
  batch_tokens_.clear();
  batch_logits_.clear();
  batch_positions_.clear();
  std::vector<llama_seq_id> sequences;
  const bool native = info_.native_window > 0;
  for (size_t b = 0; b < branches.size(); ++b) {
    const Branch& branch = branches[b];
    LH_CHECK(branch.scored_begin >= 1 && branch.scored_begin <= branch.tokens.size());
    logs[b].resize(branch.tokens.size() - branch.scored_begin);
    for (size_t i = 0; i < branch.tokens.size(); ++i) {
      const bool judges = i + 1 >= branch.scored_begin && i + 1 < branch.tokens.size();
      if (judges) {
        targets.push_back({static_cast<int32_t>(batch_tokens_.size()), branch.tokens[i + 1],
                           &logs[b][i + 1 - branch.scored_begin]});
      }
      batch_tokens_.push_back(branch.tokens[i]);
      batch_logits_.push_back(judges);
      batch_positions_.push_back(
          static_cast<llama_pos>(native ? position + i : batch_positions_.size()));
      sequences.push_back(native ? static_cast<llama_seq_id>(native_texts_ + b) : 0);
    }
  }
  LH_CHECK(!batch_tokens_.empty() && batch_tokens_.size() <= kBatchTokens &&
           targets.size() <= OutputsMax());
  llama_memory_t memory = llama_get_memory(context_.get());
  if (!native) llama_memory_clear(memory, false);  // nothing reads it
  for (size_t b = 0; native && b < branches.size(); ++b) {
    llama_memory_seq_cp(memory, Sequence(), static_cast<llama_seq_id>(native_texts_ + b), 0,
                        static_cast<llama_pos>(position));
  }
  tap_.Replace(attention);
  const Status decoded = DecodeBatch(context_.get(), sequences);
  for (size_t b = 0; native && b < branches.size(); ++b)
    llama_memory_seq_rm(memory, static_cast<llama_seq_id>(native_texts_ + b), -1, -1);
  LH_RETURN_IF_ERROR(decoded);
  LH_RETURN_IF_ERROR(tap_.CheckReplaced());
  // asked for here: the engine may reorder its rows on the first call
  std::vector<const float*> rows;
  for (const Target& t : targets) {
    rows.push_back(llama_get_logits_ith(context_.get(), t.row));
    if (rows.back() == nullptr)
      return Internal("model " + info_.name + ": no logits after the forward pass");
  }
  Parallel(targets.size(), [&](size_t i) {
    *targets[i].out = LogProbability(rows[i], info_.vocab_size, targets[i].token);
  });
  return logs;
}

void LlamaHost::Prune(uint32_t text, uint32_t position) {
  if (position <= info_.native_window) return;
  llama_memory_seq_rm(llama_get_memory(context_.get()), static_cast<llama_seq_id>(text), 0,
                      static_cast<llama_pos>(position - info_.native_window));
}

void LlamaHost::UseSequence(uint32_t text) {
  LH_CHECK(text < sequences_max());
  if (info_.native_window == 0 || text == text_) return;
  // The cells are enough for a window of each text and one batch.
  Prune(text_, ends_[text_]);
  text_ = text;
}

void LlamaHost::NativeForget(uint32_t begin, uint32_t end) {
  llama_memory_seq_rm(llama_get_memory(context_.get()), Sequence(), static_cast<llama_pos>(begin),
                      end == UINT32_MAX ? -1 : static_cast<llama_pos>(end));
  if (info_.native_window > 0 && end == UINT32_MAX) ends_[text_] = std::min(ends_[text_], begin);
}

Status LlamaHost::NativeShift(uint32_t begin, uint32_t end, int32_t delta) {
  if (info_.native_window == 0) return OkStatus();
  llama_memory_t memory = llama_get_memory(context_.get());
  if (!llama_memory_can_shift(memory)) {
    return Unimplemented("model " + info_.path + ": its native cache cannot move positions");
  }
  llama_memory_seq_add(memory, Sequence(), static_cast<llama_pos>(begin),
                       static_cast<llama_pos>(end), delta);
  shift_pending_ = true;
  uint32_t& next = ends_[text_];
  next =
      next > begin && next <= end ? static_cast<uint32_t>(static_cast<int64_t>(next) + delta) : 0;
  return OkStatus();
}

Result<std::string> LlamaHost::NativeSave() {
  if (info_.native_window == 0) return std::string();
  // libllama rotates the keys with the next pass; what it would write now is neither old nor new
  if (shift_pending_) {
    return FailedPrecondition("model " + info_.name +
                              ": native cache was moved; save it after the next forward pass");
  }
  std::string bytes(
      llama_state_seq_get_size_ext(context_.get(), Sequence(), LLAMA_STATE_SEQ_FLAGS_SWA_ONLY),
      '\0');
  const size_t n =
      llama_state_seq_get_data_ext(context_.get(), reinterpret_cast<uint8_t*>(bytes.data()),
                                   bytes.size(), Sequence(), LLAMA_STATE_SEQ_FLAGS_SWA_ONLY);
  if (n != bytes.size())
    return Internal("model " + info_.name + ": native cache could not be saved");
  // Restoring packs the cells, and libllama's sums depend on their order in the last bit. We go on
  // from the packed cells as well, so that a run which is broken off here and restored reaches the
  // same bytes as one that is not.
  LH_RETURN_IF_ERROR(NativeRestore(bytes));
  return bytes;
}

Status LlamaHost::NativeRestore(std::string_view bytes) {
  NativeForget(0, UINT32_MAX);
  shift_pending_ = false;
  if (info_.native_window == 0 || bytes.empty()) return OkStatus();
  const size_t n =
      llama_state_seq_set_data_ext(context_.get(), reinterpret_cast<const uint8_t*>(bytes.data()),
                                   bytes.size(), Sequence(), LLAMA_STATE_SEQ_FLAGS_SWA_ONLY);
  if (n != bytes.size())
    return DataLoss("model " + info_.name + ": saved native cache does not fit");
  return OkStatus();
}

void LlamaHost::Parallel(size_t count, const std::function<void(size_t)>& fn) {
  if (count == 0) return;
  struct Job {
    std::atomic<size_t> next{0};
    size_t count;
    const std::function<void(size_t)>* fn;
  } job;
  job.count = count;
  job.fn = &fn;
  // One custom node on the model's own workers: no second pool, so the two never fight for a core.
  alignas(16) thread_local char arena[64 << 10];
  ggml_context* ctx = ggml_init({sizeof(arena), arena, /*no_alloc=*/true});
  ggml_tensor* node = ggml_custom_4d(
      ctx, GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0,
      [](ggml_tensor*, int, int, void* data) {
        Job& j = *static_cast<Job*>(data);
        for (size_t i = j.next++; i < j.count; i = j.next++) (*j.fn)(i);
      },
      GGML_N_TASKS_MAX, &job);
  ggml_cgraph* graph = ggml_new_graph_custom(ctx, 8, false);
  ggml_build_forward_expand(graph, node);
  ggml_cplan plan = ggml_graph_plan(graph, static_cast<int>(governor_->Threads()), pool_.get());
  LH_CHECK(plan.work_size == 0 || plan.work_data == nullptr);
  std::vector<uint8_t> work(plan.work_size);
  plan.work_data = work.data();
  LH_CHECK(ggml_graph_compute(graph, &plan) == GGML_STATUS_SUCCESS);
  ggml_free(ctx);
}

// Attends as longhold does, notes how far each layer's output is from the engine's, and then puts
// the engine's output in its place, so that every layer is judged on exactly the inputs that the
// engine had.
class ProvingAttention final : public LayerAttention {
 public:
  ProvingAttention(LayerAttention* inner, const std::vector<std::vector<float>>& native)
      : inner_(inner), native_(native), errors_(native.size(), -1.0) {}
  void StoreKeys(uint32_t slot, LayerRows keys, uint32_t tokens, uint32_t worker,
                 uint32_t workers) override {
    inner_->StoreKeys(slot, keys, tokens, worker, workers);
  }
  void StoreValues(uint32_t slot, LayerRows values, uint32_t tokens, uint32_t worker,
                   uint32_t workers) override {
    inner_->StoreValues(slot, values, tokens, worker, workers);
  }
  void Attend(uint32_t slot, LayerRows queries, uint32_t tokens, float* out, uint32_t worker,
              uint32_t workers) override {
    inner_->Attend(slot, queries, tokens, out, worker, workers);
    // the last one to get here sees everybody's rows
    if (arrived_.fetch_add(1) + 1 != workers) return;
    arrived_ = 0;
    const std::vector<float>& want = native_[slot];
    double difference = 0, norm = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      difference += (double{out[i]} - want[i]) * (double{out[i]} - want[i]);
      norm += double{want[i]} * want[i];
    }
    errors_[slot] = norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
    std::copy(want.begin(), want.end(), out);
  }
  // Relative error of each slot; -1 where Attend was never called.
  const std::vector<double>& errors() const { return errors_; }

 private:
  LayerAttention* inner_;
  const std::vector<std::vector<float>>& native_;
  std::vector<double> errors_;
  std::atomic<uint32_t> arrived_{0};
};

Status LlamaHost::Prove() {
  WorkingSet plain(info_.geometry, static_cast<uint32_t>(proof_tokens_.size()));
  ProvingAttention proving(&plain, proof_outputs_);
  plain.BeginPass(static_cast<uint32_t>(proof_tokens_.size()));
  LH_RETURN_IF_ERROR(Forward(proof_tokens_, 0, &proving, false));
  NativeForget(0, UINT32_MAX);
  for (size_t slot = 0; slot < proving.errors().size(); ++slot) {
    const double error = proving.errors()[slot];
    // The last layer's output may be computed for the last token only, or not at all, when nobody
    // asks for logits.
    if (error >= 0 && error < kProofRelativeError) continue;
    return Internal("model " + info_.path + ": architecture " + info_.architecture + ", layer " +
                    std::to_string(info_.geometry.layers[slot]) +
                    ": attention through longhold differs from the engine's own by " +
                    std::to_string(error) + " (relative, at most " +
                    std::to_string(kProofRelativeError) +
                    " is right); this model cannot be used, please report it");
  }
  proof_outputs_.clear();
  return OkStatus();
}

Result<LogitEquality> LlamaHost::Compare(std::span<const TokenId> tokens) {
  if (tokens.empty() || tokens.size() > kBatchTokens)
    return InvalidArgument("compare logits: 1 to 512 tokens");
  const auto native = [&](NativeAttention kind) -> Result<std::vector<float>> {
    LH_ASSIGN_OR_RETURN(ContextPtr context, NewContext(ObserveCells(), kind, nullptr));
    LH_RETURN_IF_ERROR(Decode(context.get(), tokens, 0, true));
    return logits_;
  };
  LH_ASSIGN_OR_RETURN(const std::vector<float> exact, native(NativeAttention::kExact));
  LH_ASSIGN_OR_RETURN(const std::vector<float> fused, native(NativeAttention::kFused));
  WorkingSet plain(info_.geometry, static_cast<uint32_t>(tokens.size()));
  plain.BeginPass(static_cast<uint32_t>(tokens.size()));
  NativeForget(0, UINT32_MAX);
  LH_RETURN_IF_ERROR(Forward(tokens, 0, &plain, true));
  NativeForget(0, UINT32_MAX);
  LogitEquality result;
  for (size_t i = 0; i < exact.size(); ++i) {
    result.error = std::max(result.error, std::abs(double{logits_[i]} - exact[i]));
    result.engine_error = std::max(result.engine_error, std::abs(double{fused[i]} - exact[i]));
  }
  const auto best = [](const std::vector<float>& v) {
    return std::max_element(v.begin(), v.end()) - v.begin();
  };
  result.same_greedy = best(exact) == best(logits_);
  result.greedy_gap =
      double{exact[static_cast<size_t>(best(exact))]} - exact[static_cast<size_t>(best(logits_))];
  return result;
}

Result<std::vector<NativeRun>> LlamaHost::Native(std::span<const TokenId> prefix,
                                                 const std::vector<std::vector<TokenId>>& tails,
                                                 uint32_t max_tokens, const SamplerOptions& options,
                                                 const std::atomic<bool>* stop) {
  size_t longest = 0;
  for (const auto& tail : tails) longest = std::max(longest, tail.size());
  LH_ASSIGN_OR_RETURN(ContextPtr context,
                      NewContext(static_cast<uint32_t>(prefix.size() + longest) + max_tokens + 64,
                                 NativeAttention::kFused, nullptr));
  using Clock = std::chrono::steady_clock;
  const auto read = [&](std::span<const TokenId> tokens, uint32_t position) -> Status {
    for (size_t at = 0; at < tokens.size(); at += kBatchTokens) {
      if (stop != nullptr && *stop) return Cancelled("native run: stopped");
      const auto piece = tokens.subspan(at, std::min<size_t>(kBatchTokens, tokens.size() - at));
      LH_RETURN_IF_ERROR(Decode(context.get(), piece, position + static_cast<uint32_t>(at),
                                at + piece.size() == tokens.size()));
    }
    return OkStatus();
  };
  const auto start = Clock::now();
  LH_RETURN_IF_ERROR(read(prefix, 0));
  const std::chrono::duration<double> prefill = Clock::now() - start;
  const std::vector<float> prefix_logits = logits_;

  std::vector<NativeRun> runs;
  for (const auto& tail : tails) {
    NativeRun run;
    run.prefill_tok_s = static_cast<double>(prefix.size()) / prefill.count();
    uint32_t position = static_cast<uint32_t>(prefix.size());
    llama_memory_seq_rm(llama_get_memory(context.get()), 0, static_cast<llama_pos>(position), -1);
    logits_ = prefix_logits;
    const auto tail_start = Clock::now();
    LH_RETURN_IF_ERROR(read(tail, position));
    position += static_cast<uint32_t>(tail.size());
    const auto prefilled = Clock::now();
    run.tail_ms = std::chrono::duration<double, std::milli>(prefilled - tail_start).count();
    const auto sampler = NewSampler(options);
    while (run.tokens.size() < max_tokens) {
      if (stop != nullptr && *stop) return Cancelled("native run: stopped");
      const TokenId token = sampler->Sample(logits_);
      if (EndsAnswer(token)) break;
      run.tokens.push_back(token);
      LH_RETURN_IF_ERROR(Decode(context.get(), std::span(&token, 1), position++, true));
    }
    const std::chrono::duration<double> decode = Clock::now() - prefilled;
    run.decode_tok_s = static_cast<double>(run.tokens.size()) / std::max(1e-9, decode.count());
    runs.push_back(std::move(run));
  }
  return runs;
}

}  // namespace

// Hash of size, header and an even sample of the weights: cheap for files of many gigabytes, and
// any other model, tokenizer or quantisation changes it.
Result<std::string> ModelFingerprint(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::error_code ec;
  const uint64_t size = std::filesystem::file_size(path, ec);
  if (!file || ec)
    return InvalidArgument("model " + path + ": cannot be read; check its permissions");
  constexpr uint64_t kHeader = 16 << 20, kSample = 64 << 10, kSamples = 64;
  std::string buffer(std::min(size, kHeader), '\0');
  file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
  uint64_t hash = Hash64(buffer) ^ size;
  for (uint64_t i = 0; i < kSamples && size > kHeader; ++i) {
    std::string piece(kSample, '\0');
    file.seekg(static_cast<std::streamoff>(kHeader + (size - kHeader) / kSamples * i));
    file.read(piece.data(), kSample);
    piece.resize(static_cast<size_t>(file.gcount()));
    file.clear();
    hash = Hash64(piece + std::to_string(hash));
  }
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(hash));
  return std::string(text);
}

Result<std::unique_ptr<LanguageModel>> LoadLlama(const LlamaOptions& options) {
  const uint64_t before = ProcessStatusBytes("VmData");
  auto host = std::make_unique<LlamaHost>();
  LH_RETURN_IF_ERROR(host->Open(options));
  LH_RETURN_IF_ERROR(host->ObserveGeometry());
  LH_RETURN_IF_ERROR(host->Attach());
  if (options.prove) LH_RETURN_IF_ERROR(host->Prove());
  host->NoteBuffers(before);
  return std::unique_ptr<LanguageModel>(std::move(host));
}

Result<LogitEquality> CompareLogits(LanguageModel& model, std::span<const TokenId> tokens) {
  return static_cast<LlamaHost&>(model).Compare(tokens);
}

Result<NativeRun> RunNative(LanguageModel& model, std::span<const TokenId> prompt,
                            uint32_t max_tokens) {
  LH_ASSIGN_OR_RETURN(std::vector<NativeRun> runs,
                      static_cast<LlamaHost&>(model).Native(prompt, {{}}, max_tokens,
                                                            {.dry_multiplier = 0}, nullptr));
  return std::move(runs[0]);
}

Result<std::vector<NativeRun>> RunNativeEach(LanguageModel& model, std::span<const TokenId> prefix,
                                             const std::vector<std::vector<TokenId>>& tails,
                                             uint32_t max_tokens, const SamplerOptions& options,
                                             const std::atomic<bool>* stop) {
  return static_cast<LlamaHost&>(model).Native(prefix, tails, max_tokens, options, stop);
}

namespace {

Status Convert(const std::string& from, const std::string& to, llama_ftype type) {
  LH_RETURN_IF_ERROR(StartLlama());
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.ftype = type;
  params.allow_requantize = true;
  params.nthread = 0;
  const std::string partial = to + ".partial";
  TakeLlamaError();
  std::error_code ec;
  if (llama_model_quantize(from.c_str(), partial.c_str(), &params) != 0) {
    std::filesystem::remove(partial, ec);
    return Internal("model " + from + ": re-quantising failed: " + TakeLlamaError());
  }
  std::filesystem::rename(partial, to, ec);
  if (ec) return Internal("model " + to + ": " + ec.message());
  return OkStatus();
}

}  // namespace

Status RequantiseQ8(const std::string& from, const std::string& to) {
  return Convert(from, to, LLAMA_FTYPE_MOSTLY_Q8_0);
}

Status WidenF32(const std::string& from, const std::string& to) {
  return Convert(from, to, LLAMA_FTYPE_ALL_F32);
}

}  // namespace longhold
