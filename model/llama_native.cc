// Runs of the engine's own attention and cache, with which longhold's are compared.
#include <algorithm>
#include <chrono>
#include <cmath>

#include "llama.h"
#include "memory/attend/working_set.h"
#include "model/llama_host_internal.h"

namespace longhold {

Result<LogitEquality> LlamaHost::Compare(std::span<const TokenId> tokens) {
  if (tokens.empty() || tokens.size() > kBatchTokens)
    return InvalidArgument("compare logits: pass 1 to 512 tokens");
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

}  // namespace longhold
