// Loading of a model: opens the file, observes its attention layers, attaches the tap and proves it
// against the engine's own attention.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "base/hash.h"
#include "base/process_memory.h"
#include "ggml-cpu.h"
#include "llama.h"
#include "memory/attend/working_set.h"
#include "model/gguf_check.h"
#include "model/llama_host_internal.h"
#include "model/llama_runtime.h"

namespace longhold {
namespace {

// Any sentence would do; it only has to exercise the tap. It is short because every load
// runs it twice.
constexpr char kProofText[] =
    "The memory of the river is longer than the memory of the bridge that crosses it.";
// The engine's fused attention rounds queries, keys and sums to 16 bits. This alone causes errors
// of 1e-4 to 8e-4 per layer (measured).
constexpr double kProofRelativeError = 1e-2;

std::string Meta(const llama_model* model, const char* key) {
  char buffer[512];
  const int n = llama_model_meta_val_str(model, key, buffer, sizeof(buffer));
  return n < 0 ? ""
               : std::string(buffer, std::min<size_t>(static_cast<size_t>(n), sizeof(buffer) - 1));
}

}  // namespace

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

  // libllama would abort when asked to tokenise.
  if (llama_vocab_type(vocab_) == LLAMA_VOCAB_TYPE_NONE) {
    return InvalidArgument("model " + options.path +
                           ": contains no tokenizer; convert it again with its vocabulary");
  }
  if (Meta(model_.get(), (info_.architecture + ".rope.scaling.type").c_str()) == "longrope") {
    // libllama chooses between two factor tables by the size of the context; ours has
    // no fixed size.
    return Unimplemented("model " + options.path + ": architecture " + info_.architecture +
                         ": longrope RoPE scaling is not supported");
  }

  ggml_threadpool_params pool_params =
      ggml_threadpool_params_default(static_cast<int>(options.threads));
  // The lowest polling level. Workers spin for some milliseconds between graphs, enough to bridge
  // two tokens, and then sleep. So they do not take a core from planning and disk work.
  pool_params.poll = 1;
  pool_.reset(ggml_threadpool_new(&pool_params));
  if (pool_ == nullptr)
    return ResourceExhausted("cannot start " + std::to_string(options.threads) + " threads");
  governor_.emplace(options.threads);
  return OkStatus();
}

// More than twice the window, so that a sliding-window layer's cache is smaller than that of a
// layer with full attention.
uint32_t LlamaHost::ObserveCells() const {
  return std::max(2048u, 2 * (info_.native_window + kBatchTokens));
}

Status LlamaHost::ObserveGeometry() {
  const std::string what = "model " + info_.path + ": architecture " + info_.architecture;
  LH_ASSIGN_OR_RETURN(proof_tokens_, Tokenize(kProofText, false));
  if (Bos() >= 0) proof_tokens_.insert(proof_tokens_.begin(), Bos());
  if (proof_tokens_.size() < 4)
    return InvalidArgument(what + ": its tokenizer produces no tokens for plain text");
  AttentionTap observer;
  LH_ASSIGN_OR_RETURN(ContextPtr context,
                      NewContext(ObserveCells(), NativeAttention::kFused, &observer));
  if (llama_get_memory(context.get()) == nullptr) {
    return Unimplemented(what + " is an encoder: it keeps no keys and values");
  }
  observer.Observe();
  LH_RETURN_IF_ERROR(Decode(context.get(), proof_tokens_, 0, true));
  // The first lookup of rows in a graph is that of the tokens' embeddings. They are not used if
  // they are in another processor's memory or have another shape; recall then works without them.
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
    if (o.cache_cells < cells) continue;  // a sliding-window layer stays with the engine
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
  // Shifting native positions requires caches of equal size for both kinds of layer: the window
  // plus one batch, rounded up to 256 cells.
  if (info_.native_window > 0) {
    const KvGeometry& g = info_.geometry;
    const uint64_t text_bytes =
        uint64_t{info_.native_window} * info_.layer_count * 2 * g.kv_width() * sizeof(uint16_t);
    native_sequences_ = static_cast<uint32_t>(std::clamp<uint64_t>(
        options_.native_bytes / text_bytes, 1, std::max(1u, options_.sequences)));
    ends_.assign(native_sequences_, 0);
  }
  const uint32_t cells =
      (native_sequences_ * (info_.native_window + 1) + kBatchTokens - 1 + 255) / 256 * 256;
  LH_ASSIGN_OR_RETURN(context_, NewContext(cells, NativeAttention::kFused, &tap_,
                                           info_.native_window > 0 ? kNativeBranches : 0));
  return OkStatus();
}

namespace {

// Computes attention with longhold, and records how far each layer's output is from the engine's.
// Then it writes the engine's output instead. So every layer is compared on exactly the inputs that
// the engine had.
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
    // The last worker that arrives sees the rows of all workers.
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
  // Relative error of each slot; -1 if Attend was never called for it.
  const std::vector<double>& errors() const { return errors_; }

 private:
  LayerAttention* inner_;
  const std::vector<std::vector<float>>& native_;
  std::vector<double> errors_;
  std::atomic<uint32_t> arrived_{0};
};

}  // namespace

Status LlamaHost::Prove() {
  WorkingSet plain(info_.geometry, static_cast<uint32_t>(proof_tokens_.size()));
  ProvingAttention proving(&plain, proof_outputs_);
  plain.BeginPass(static_cast<uint32_t>(proof_tokens_.size()));
  LH_RETURN_IF_ERROR(Forward(proof_tokens_, 0, &proving, false));
  NativeForget(0, UINT32_MAX);
  for (size_t slot = 0; slot < proving.errors().size(); ++slot) {
    const double error = proving.errors()[slot];
    // If nobody asks for logits, the last layer's output may be computed for the last token only,
    // or not at all.
    if (error >= 0 && error < kProofRelativeError) continue;
    return Internal("model " + info_.path + ": architecture " + info_.architecture + ", layer " +
                    std::to_string(info_.geometry.layers[slot]) +
                    ": attention through longhold differs from the engine's own by " +
                    std::to_string(error) + " (relative error; at most " +
                    std::to_string(kProofRelativeError) +
                    " is allowed); this model cannot be used, please report it");
  }
  proof_outputs_.clear();
  return OkStatus();
}

// Hashes the size, the header and an evenly spaced sample of the weights. This is cheap for files
// of many gigabytes. Another model, tokenizer or quantisation has another hash.
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

}  // namespace longhold
