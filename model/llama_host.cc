// Forward passes with the attention tap, the native cache of the layers that are not tapped, and
// parallel work on the model's workers.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "attention/side_by_side.h"
#include "ggml-cpu.h"
#include "llama.h"
#include "model/llama_host_internal.h"
#include "model/llama_runtime.h"

namespace longhold {

void LlamaModelDeleter::operator()(llama_model* m) const { llama_model_free(m); }
void LlamaContextDeleter::operator()(llama_context* c) const { llama_free(c); }
void ThreadPoolDeleter::operator()(ggml_threadpool* p) const { ggml_threadpool_free(p); }

Result<ContextPtr> LlamaHost::NewContext(uint32_t cells, NativeAttention kind, AttentionTap* tap,
                                         uint32_t branches) const {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = cells;
  params.n_batch = kBatchTokens;
  params.n_ubatch = kBatchTokens;
  // First the sequences, then the branches; they share the cells.
  params.n_seq_max = native_sequences_ + branches;
  params.kv_unified = true;
  params.n_outputs_max = tap == nullptr ? 1 : OutputsMax();
  params.n_threads = params.n_threads_batch = static_cast<int32_t>(options_.threads);
  params.flash_attn_type = kind == NativeAttention::kFused ? LLAMA_FLASH_ATTN_TYPE_ENABLED
                                                           : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  if (kind == NativeAttention::kExact) params.type_k = params.type_v = GGML_TYPE_F32;
  params.cb_eval = tap == nullptr ? nullptr : &AttentionTap::Callback;
  params.cb_eval_user_data = tap;
  params.no_perf = true;
  params.swa_full = tap == nullptr;  // a native run goes back to the end of its prefix
  ContextPtr context(llama_init_from_model(model_.get(), params));
  if (context == nullptr) {
    return ResourceExhausted("model " + info_.path + ": cannot create a context of " +
                             std::to_string(cells) + " cells: " + TakeLlamaError());
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
  llama_batch batch = {};
  std::vector<int32_t> one(sequences.size(), 1);
  std::vector<llama_seq_id*> of_token;
  for (llama_seq_id& s : sequences) of_token.push_back(&s);
  if (!sequences.empty()) {
    batch.n_seq_id = one.data();
    batch.seq_id = of_token.data();
  }
  batch.n_tokens = static_cast<int32_t>(n);
  batch.token = batch_tokens_.data();
  batch.pos = batch_positions_.data();
  batch.logits = batch_logits_.data();
  const auto threads = static_cast<int32_t>(governor_->Threads());
  llama_set_n_threads(context, threads, threads);
  const int rc = llama_decode(context, batch);
  if (rc != 0) {
    return Internal("model " + info_.name + ": forward pass of " + std::to_string(n) +
                    " tokens failed with code " + std::to_string(rc) + " " + TakeLlamaError());
  }
  return OkStatus();
}

Status LlamaHost::Forward(std::span<const TokenId> tokens, uint32_t position,
                          LayerAttention* attention, bool want_logits) {
  llama_memory_t memory = llama_get_memory(context_.get());
  if (info_.native_window == 0) {
    // Nothing reads the native cache: clear it, and use any position.
    llama_memory_clear(memory, false);
    position = 0;
  } else {
    Prune(sequence_, position);
    ends_[sequence_] = position + static_cast<uint32_t>(tokens.size());
  }
  tap_.Replace(attention);
  LH_RETURN_IF_ERROR(Decode(context_.get(), tokens, position, want_logits, Sequence()));
  shift_pending_ = false;
  return tap_.CheckReplaced();
}

Status LlamaHost::ForwardEach(std::span<const NextToken> next) {
  LH_CHECK(!next.empty() && next.size() <= sequences_max());
  const bool native = info_.native_window > 0;
  const size_t n = next.size();
  batch_tokens_.clear();
  batch_positions_.clear();
  batch_logits_.assign(n, 1);
  std::vector<LayerAttention*> each;
  std::vector<llama_seq_id> sequences;
  if (native) {
    Prune(sequence_, ends_[sequence_]);  // as UseSequence does
  } else {
    llama_memory_clear(llama_get_memory(context_.get()), false);  // nothing reads it
  }
  for (const NextToken& token : next) {
    batch_positions_.push_back(
        static_cast<llama_pos>(native ? token.position : batch_tokens_.size()));
    sequences.push_back(native ? static_cast<llama_seq_id>(token.sequence) : 0);
    batch_tokens_.push_back(token.token);
    each.push_back(token.attention);
    if (!native) continue;
    Prune(token.sequence, token.position);
    ends_[token.sequence] = token.position + 1;
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
    next[i].logits->assign(logits, logits + info_.vocab_size);
  }
  return OkStatus();
}

namespace {

// Natural log of the softmax of `logits` at `token`.
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
      sequences.push_back(native ? static_cast<llama_seq_id>(native_sequences_ + b) : 0);
    }
  }
  LH_CHECK(!batch_tokens_.empty() && batch_tokens_.size() <= kBatchTokens &&
           targets.size() <= OutputsMax());
  llama_memory_t memory = llama_get_memory(context_.get());
  if (!native) llama_memory_clear(memory, false);  // nothing reads it
  for (size_t b = 0; native && b < branches.size(); ++b) {
    llama_memory_seq_cp(memory, Sequence(), static_cast<llama_seq_id>(native_sequences_ + b), 0,
                        static_cast<llama_pos>(position));
  }
  tap_.Replace(attention);
  const Status decoded = DecodeBatch(context_.get(), sequences);
  for (size_t b = 0; native && b < branches.size(); ++b)
    llama_memory_seq_rm(memory, static_cast<llama_seq_id>(native_sequences_ + b), -1, -1);
  LH_RETURN_IF_ERROR(decoded);
  LH_RETURN_IF_ERROR(tap_.CheckReplaced());
  // Fetched here, on one thread: the engine may reorder its rows on the first call.
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

void LlamaHost::Prune(uint32_t sequence, uint32_t position) {
  if (position <= info_.native_window) return;
  llama_memory_seq_rm(llama_get_memory(context_.get()), static_cast<llama_seq_id>(sequence), 0,
                      static_cast<llama_pos>(position - info_.native_window));
}

void LlamaHost::UseSequence(uint32_t sequence) {
  LH_CHECK(sequence < sequences_max());
  if (info_.native_window == 0 || sequence == sequence_) return;
  // The cells suffice for a window of each sequence and one batch.
  Prune(sequence_, ends_[sequence_]);
  sequence_ = sequence;
}

void LlamaHost::NativeForget(uint32_t begin, uint32_t end) {
  llama_memory_seq_rm(llama_get_memory(context_.get()), Sequence(), static_cast<llama_pos>(begin),
                      end == UINT32_MAX ? -1 : static_cast<llama_pos>(end));
  if (info_.native_window > 0 && end == UINT32_MAX)
    ends_[sequence_] = std::min(ends_[sequence_], begin);
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
  uint32_t& next = ends_[sequence_];
  next =
      next > begin && next <= end ? static_cast<uint32_t>(static_cast<int64_t>(next) + delta) : 0;
  return OkStatus();
}

Result<std::string> LlamaHost::NativeSave() {
  if (info_.native_window == 0) return std::string();
  // libllama rotates the shifted keys in the next pass. If we saved now, the state would be neither
  // the old nor the new one.
  if (shift_pending_) {
    return FailedPrecondition(
        "model " + info_.name +
        ": its native cache was shifted; save it after the next forward pass");
  }
  std::string bytes(
      llama_state_seq_get_size_ext(context_.get(), Sequence(), LLAMA_STATE_SEQ_FLAGS_SWA_ONLY),
      '\0');
  const size_t n =
      llama_state_seq_get_data_ext(context_.get(), reinterpret_cast<uint8_t*>(bytes.data()),
                                   bytes.size(), Sequence(), LLAMA_STATE_SEQ_FLAGS_SWA_ONLY);
  if (n != bytes.size())
    return Internal("model " + info_.name + ": its native cache could not be saved");
  // Restoring packs the cells, and the last bits of libllama's sums depend on the order of cells.
  // So we restore here as well. A run that is interrupted here and restored then produces the same
  // bytes as one that goes on.
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
    return DataLoss("model " + info_.name + ": the saved native cache does not fit this model");
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
  // One custom graph node on the model's own workers. A second thread pool would compete with them
  // for the cores.
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

}  // namespace longhold
