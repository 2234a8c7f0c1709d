#include "model/embedder.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "ggml-cpu.h"
#include "llama-cpp.h"
#include "model/gguf_check.h"
#include "model/llama_host.h"
#include "model/llama_runtime.h"
#include "model/thread_governor.h"

namespace longhold {
namespace {

// Tokens of one pass. A text of the maximum length fills it. Attention is dense over the pass, with
// the tokens of other texts masked, so its cost grows with the square of the pass. Measured on two
// cores: 6,030 tokens/s with 228 tokens per pass, 5,760 with 456, 3,640 with 57.
constexpr uint32_t kPassTokens = kEmbedTokensMax;
constexpr uint32_t kPassTexts = 64;
constexpr size_t kTextBytesMax = 1 << 20;

struct PoolDeleter {
  void operator()(ggml_threadpool* p) const { ggml_threadpool_free(p); }
};

std::string Meta(const llama_model* model, const std::string& key) {
  char buffer[256];
  const int n = llama_model_meta_val_str(model, key.c_str(), buffer, sizeof(buffer));
  return n < 0 ? ""
               : std::string(buffer, std::min<size_t>(static_cast<size_t>(n), sizeof(buffer) - 1));
}

class LlamaEmbedder final : public TextEmbedder {
 public:
  Status Open(const EmbedderOptions& options);

  uint32_t dim() const override { return dim_; }
  uint64_t fingerprint() const override { return fingerprint_; }
  uint64_t cut_count() const override { return cut_count_; }
  uint64_t token_count() const override { return token_count_; }
  Result<std::vector<float>> EmbedParts(std::span<const TextParts> texts) override;

 private:
  // A text in process: its tokens with [CLS] and [SEP], and of each part the tokens.
  struct PassText {
    std::vector<llama_token> tokens;
    struct Part {
      size_t begin, end;  // in `tokens`
      size_t row;         // of the result
    };
    std::vector<Part> parts;
  };
  // The tokens of `text` without [CLS] and [SEP].
  Result<std::vector<llama_token>> Tokenize(std::string_view text);
  // Appends `text`, in several texts if it is too long. Its first part has row `row`.
  Status AppendTexts(const TextParts& text, size_t row, std::vector<PassText>* out);
  // Embeds the texts of pass_ and clears it.
  Status RunPass(std::vector<float>* out);

  std::string path_;
  llama_model_ptr model_;
  const llama_vocab* vocab_ = nullptr;
  std::unique_ptr<ggml_threadpool, PoolDeleter> pool_;
  std::optional<ThreadGovernor> governor_;
  llama_context_ptr context_;
  uint64_t fingerprint_ = 0;
  uint32_t dim_ = 0;
  uint32_t tokens_max_ = 0;
  uint64_t cut_count_ = 0, token_count_ = 0;
  std::vector<PassText> pass_;
};

Status LlamaEmbedder::Open(const EmbedderOptions& options) {
  path_ = options.path;
  LH_RETURN_IF_ERROR(CheckGgufFile(path_).status());
  LH_RETURN_IF_ERROR(StartLlama());
  LH_ASSIGN_OR_RETURN(const std::string fingerprint, ModelFingerprint(path_));
  fingerprint_ = std::stoull(fingerprint, nullptr, 16);
  TakeLlamaError();
  llama_model_params model_params = llama_model_default_params();
  model_params.n_gpu_layers = 0;
  model_.reset(llama_model_load_from_file(path_.c_str(), model_params));
  if (model_ == nullptr) {
    return InvalidArgument("model " + path_ + ": cannot be loaded (" + TakeLlamaError() +
                           "); it may be truncated: fetch it again");
  }
  vocab_ = llama_model_get_vocab(model_.get());
  dim_ = static_cast<uint32_t>(llama_model_n_embd(model_.get()));
  tokens_max_ =
      std::min(kEmbedTokensMax, static_cast<uint32_t>(llama_model_n_ctx_train(model_.get())));
  const std::string architecture = Meta(model_.get(), "general.architecture");
  if (Meta(model_.get(), architecture + ".pooling_type") != "1" ||
      Meta(model_.get(), architecture + ".attention.causal") != "false" ||
      llama_vocab_type(vocab_) != LLAMA_VOCAB_TYPE_WPM) {
    return Unimplemented("model " + path_ + ": architecture " + architecture +
                         " is not a WordPiece encoder with mean pooling; use 'minilm-l6' or a "
                         "similar model");
  }

  llama_context_params params = llama_context_default_params();
  // An encoder processes a batch in one pass.
  params.n_ctx = params.n_batch = params.n_ubatch = kPassTokens;
  params.n_seq_max = kPassTexts;
  params.n_threads = params.n_threads_batch = static_cast<int32_t>(options.threads);
  params.embeddings = true;
  params.pooling_type = LLAMA_POOLING_TYPE_NONE;  // parts are averaged here
  params.kv_unified = true;  // one mask for the whole pass; there is no cache to divide
  params.no_perf = true;
  context_.reset(llama_init_from_model(model_.get(), params));
  if (context_ == nullptr)
    return ResourceExhausted("model " + path_ + ": cannot create its context: " + TakeLlamaError());
  ggml_threadpool_params pool_params =
      ggml_threadpool_params_default(static_cast<int>(options.threads));
  pool_params.poll = 1;  // spin only briefly between passes
  pool_.reset(ggml_threadpool_new(&pool_params));
  governor_.emplace(options.threads);
  if (pool_ == nullptr)
    return ResourceExhausted("cannot start " + std::to_string(options.threads) + " threads");
  llama_attach_threadpool(context_.get(), pool_.get(), pool_.get());
  return OkStatus();
}

Result<std::vector<llama_token>> LlamaEmbedder::Tokenize(std::string_view text) {
  const std::string what = "embed a text of " + std::to_string(text.size()) + " bytes";
  if (text.size() > kTextBytesMax) return InvalidArgument(what + ": longer than 1 MiB");
  std::vector<llama_token> tokens(text.size());  // each token has at least one byte
  const auto tokenize = [&] {
    return llama_tokenize(vocab_, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                          static_cast<int32_t>(tokens.size()), /*add_special=*/false,
                          /*parse_special=*/false);
  };
  int32_t n = tokenize();
  // Unicode decomposition can give more characters than bytes.
  if (n < 0 && n > -static_cast<int32_t>(8 * kTextBytesMax)) {
    tokens.resize(static_cast<size_t>(-n));
    n = tokenize();
  }
  if (n < 0) return Internal(what + ": the tokenizer of " + path_ + " failed");
  tokens.resize(static_cast<size_t>(n));
  return tokens;
}

Status LlamaEmbedder::AppendTexts(const TextParts& text, size_t row, std::vector<PassText>* out) {
  const size_t room = tokens_max_ - 2;  // beside [CLS] and [SEP]
  LH_ASSIGN_OR_RETURN(std::vector<llama_token> context, Tokenize(text.context));
  // At least half is left for the parts.
  context.resize(std::min(context.size(), room / 2));
  PassText* current = nullptr;
  for (size_t p = 0; p < text.parts.size(); ++p) {
    LH_ASSIGN_OR_RETURN(std::vector<llama_token> tokens, Tokenize(text.parts[p]));
    if (tokens.size() > room - context.size()) {
      ++cut_count_;
      tokens.resize(room - context.size());
    }
    if (current == nullptr || current->tokens.size() + tokens.size() + 1 > tokens_max_) {
      current = &out->emplace_back();
      current->tokens = {llama_vocab_bos(vocab_)};
      current->tokens.insert(current->tokens.end(), context.begin(), context.end());
    }
    const size_t begin = current->tokens.size();
    current->tokens.insert(current->tokens.end(), tokens.begin(), tokens.end());
    current->parts.push_back({begin, current->tokens.size(), row + p});
  }
  return OkStatus();
}

Status LlamaEmbedder::RunPass(std::vector<float>* out) {
  llama_batch batch = llama_batch_init(static_cast<int32_t>(kPassTokens), 0, 1);
  std::vector<int32_t> begins;  // [texts] index of a text's first token in the batch
  for (size_t text = 0; text < pass_.size(); ++text) {
    begins.push_back(batch.n_tokens);
    for (size_t i = 0; i < pass_[text].tokens.size(); ++i) {
      const int32_t at = batch.n_tokens++;
      batch.token[at] = pass_[text].tokens[i];
      batch.pos[at] = static_cast<llama_pos>(i);
      batch.n_seq_id[at] = 1;
      batch.seq_id[at][0] = static_cast<llama_seq_id>(text);
      batch.logits[at] = 1;
    }
  }
  token_count_ += static_cast<uint64_t>(batch.n_tokens);
  const auto threads = static_cast<int32_t>(governor_->Threads());
  llama_set_n_threads(context_.get(), threads, threads);
  const int rc = llama_encode(context_.get(), batch);
  llama_batch_free(batch);
  if (rc != 0)
    return Internal("model " + path_ + ": a pass failed with code " + std::to_string(rc) + " " +
                    TakeLlamaError());
  for (size_t text = 0; text < pass_.size(); ++text) {
    for (const PassText::Part& part : pass_[text].parts) {
      // A text that is one part is averaged with [CLS] and [SEP], as the model was trained. So is
      // the text of a part without tokens.
      const bool whole =
          (pass_[text].parts.size() == 1 && part.begin == 1) || part.begin == part.end;
      std::vector<double> sum(dim_, 0);
      for (size_t t = whole ? 0 : part.begin; t < (whole ? pass_[text].tokens.size() : part.end);
           ++t) {
        const float* row =
            llama_get_embeddings_ith(context_.get(), begins[text] + static_cast<int32_t>(t));
        if (row == nullptr) return Internal("model " + path_ + ": no embedding after the pass");
        for (uint32_t i = 0; i < dim_; ++i) sum[i] += row[i];
      }
      double square = 0;
      for (const double x : sum) square += x * x;
      if (!std::isfinite(square) || square <= 0)
        return Internal("model " + path_ + ": an embedding is zero or not finite");
      for (uint32_t i = 0; i < dim_; ++i)
        (*out)[part.row * dim_ + i] = static_cast<float>(sum[i] / std::sqrt(square));
    }
  }
  pass_.clear();
  return OkStatus();
}

Result<std::vector<float>> LlamaEmbedder::EmbedParts(std::span<const TextParts> texts) {
  pass_.clear();
  std::vector<PassText> all;
  size_t rows = 0;
  for (const TextParts& text : texts) {
    LH_RETURN_IF_ERROR(AppendTexts(text, rows, &all));
    rows += text.parts.size();
  }
  std::vector<float> out(rows * dim_);
  size_t tokens = 0;
  for (PassText& text : all) {
    text.tokens.push_back(llama_vocab_sep(vocab_));
    if (tokens + text.tokens.size() > kPassTokens || pass_.size() == kPassTexts) {
      LH_RETURN_IF_ERROR(RunPass(&out));
      tokens = 0;
    }
    tokens += text.tokens.size();
    pass_.push_back(std::move(text));
  }
  if (!pass_.empty()) LH_RETURN_IF_ERROR(RunPass(&out));
  return out;
}

}  // namespace

Result<std::unique_ptr<TextEmbedder>> LoadEmbedder(const EmbedderOptions& options) {
  auto embedder = std::make_unique<LlamaEmbedder>();
  LH_RETURN_IF_ERROR(embedder->Open(options));
  return std::unique_ptr<TextEmbedder>(std::move(embedder));
}

}  // namespace longhold
