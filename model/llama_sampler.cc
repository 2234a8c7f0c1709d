// The choice of tokens with libllama's samplers: DRY, temperature, top-p.
#include <iterator>

#include "llama.h"
#include "model/llama_host_internal.h"

namespace longhold {
namespace {

// DRY sampling, with the values that its author recommends (oobabooga/text-generation-webui, pull
// request 5677). Repetitions are not counted across line breaks.
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

}  // namespace

std::unique_ptr<TokenSampler> LlamaHost::NewSampler(const SamplerOptions& options) const {
  return std::make_unique<LlamaSampler>(vocab_, options);
}

}  // namespace longhold
