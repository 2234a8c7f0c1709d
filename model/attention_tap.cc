#include "model/attention_tap.h"

#include <cstdio>
#include <cstring>

#include "ggml.h"

namespace longhold {
namespace {

// Follows views to the tensor that owns the memory.
const ggml_tensor* Root(const ggml_tensor* t) {
  while (t->view_src != nullptr) t = t->view_src;
  return t;
}

// Parses a cache tensor's name: "cache_k_l17" gives 17. -1 if `t` is not a cache of that kind.
int CacheLayer(const ggml_tensor* t, const char* format) {
  int layer = -1;
  if (t == nullptr || std::sscanf(t->name, format, &layer) != 1) return -1;
  return layer;
}

// Walks from an attention input up to the node that rotates it, through reshapes and scales. Null
// if there is none.
ggml_tensor* FindRope(ggml_tensor* t) {
  while (t != nullptr) {
    switch (t->op) {
      case GGML_OP_ROPE: return t;
      case GGML_OP_VIEW:
      case GGML_OP_RESHAPE:
      case GGML_OP_PERMUTE:
      case GGML_OP_CONT:
      case GGML_OP_SCALE: t = t->src[0]; break;
      default: return nullptr;
    }
  }
  return nullptr;
}

// Turns `node` into a custom operation. ggml keeps such an operation's function in op_params, in a
// private layout. So we create a custom node through the public API and copy its op_params.
void MakeCustom(ggml_tensor* node, ggml_custom_op_t function, void* userdata) {
  alignas(16) char arena[4096];
  ggml_context* ctx = ggml_init({sizeof(arena), arena, /*no_alloc=*/true});
  const ggml_tensor* pattern = ggml_custom_4d(ctx, GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, function,
                                              GGML_N_TASKS_MAX, userdata);
  static_assert(sizeof(node->op_params) == sizeof(pattern->op_params));
  std::memcpy(node->op_params, pattern->op_params, sizeof(node->op_params));
  node->op = GGML_OP_CUSTOM;
  ggml_free(ctx);
}

// Turns the rotation into a copy, or into nothing if it is in place.
void MakeCopy(ggml_tensor* rope) {
  rope->op = rope->data == rope->src[0]->data ? GGML_OP_NONE : GGML_OP_DUP;
}

// Reads a RoPE node. Returns what is not supported, or "".
std::string ReadRope(const ggml_tensor* node, RopeSpec* spec) {
  // op_params of ROPE, as ggml_rope_ext writes them: 1 n_dims, 2 mode, 4 n_ctx_orig, 5 to 10 the
  // floats, 15 the first dimension.
  const int32_t* p = node->op_params;
  const int32_t mode = p[2];
  if (mode != GGML_ROPE_TYPE_NORMAL && mode != GGML_ROPE_TYPE_NEOX)
    return "RoPE mode " + std::to_string(mode);
  if (p[15] != 0) return "RoPE that does not start at the first dimension";
  spec->neox = mode == GGML_ROPE_TYPE_NEOX;
  spec->rotary_dims = static_cast<uint32_t>(p[1]);
  spec->ctx_orig = static_cast<uint32_t>(p[4]);
  float f[6];
  std::memcpy(f, p + 5, sizeof(f));
  spec->freq_base = f[0];
  spec->freq_scale = f[1];
  spec->ext_factor = f[2];
  spec->attn_factor = f[3];
  spec->beta_fast = f[4];
  spec->beta_slow = f[5];
  spec->freq_factors.clear();
  if (const ggml_tensor* factors = node->src[2]; factors != nullptr) {
    if (factors->type != GGML_TYPE_F32) return "RoPE frequency factors that are not f32";
    const float* data = static_cast<const float*>(factors->data);
    spec->freq_factors.assign(data, data + spec->rotary_dims / 2);
  }
  return "";
}

}  // namespace

void AttentionTap::SetLayers(const std::vector<uint32_t>& layers) {
  slots_.clear();
  for (uint32_t i = 0; i < layers.size(); ++i) slots_[layers[i]] = Slot{this, i, 0, 0};
}

void AttentionTap::Observe() {
  mode_ = Mode::kObserve;
  observed_.clear();
  embeddings_ = nullptr;
  writes_.clear();
}

void AttentionTap::Replace(LayerAttention* attention) {
  mode_ = Mode::kReplace;
  attention_ = attention;
  replaced_ = reused_nodes_ = 0;
  missing_.clear();
  writes_.clear();
}

Status AttentionTap::CheckReplaced() const {
  if (!missing_.empty()) return Internal(missing_);
  const size_t found = replaced_ + reused_nodes_ / 3;  // three nodes per layer
  if (found != slots_.size()) {
    return Internal("attention tap: " + std::to_string(found) + " of " +
                    std::to_string(slots_.size()) + " layers were found in the model's graph");
  }
  return OkStatus();
}

bool AttentionTap::Callback(ggml_tensor* node, bool ask, void* self) {
  return static_cast<AttentionTap*>(self)->OnNode(node, ask);
}

bool AttentionTap::OnNode(ggml_tensor* node, bool ask) {
  if (mode_ == Mode::kOff) return false;
  if (node->op == GGML_OP_SET_ROWS) {
    writes_[Root(node)] = node;
    return false;
  }
  if (node->op == GGML_OP_CUSTOM) {  // libllama reused the last graph, which has our changes
    ++reused_nodes_;
    return false;
  }
  if (node->op == GGML_OP_GET_ROWS && mode_ == Mode::kObserve && embeddings_ == nullptr)
    embeddings_ = node->src[0];
  if (node->op != GGML_OP_FLASH_ATTN_EXT) return !ask;
  const ggml_tensor* cache = Root(node->src[1]);
  const int layer = CacheLayer(cache, "cache_k_l%d");
  if (layer < 0) return false;

  if (mode_ == Mode::kReplace) {
    if (ask && slots_.count(static_cast<uint32_t>(layer)))
      ReplaceLayer(node, static_cast<uint32_t>(layer));
    return false;
  }

  if (ask) return true;
  ObservedLayer o;
  o.layer = static_cast<uint32_t>(layer);
  const ggml_tensor* q = node->src[0];  // [head_dim, tokens, q_heads]
  o.head_dim = static_cast<uint32_t>(q->ne[0]);
  o.q_heads = static_cast<uint32_t>(q->ne[2]);
  o.kv_heads = static_cast<uint32_t>(node->src[1]->ne[2]);
  o.value_dim = static_cast<uint32_t>(node->ne[0]);
  o.cache_cells = static_cast<uint32_t>(cache->ne[1]);
  float params[3];
  std::memcpy(params, node->op_params, sizeof(params));
  o.scale = params[0];
  o.max_bias = params[1];
  o.softcap = params[2];
  o.has_sinks = node->src[4] != nullptr;
  const auto write = writes_.find(cache);
  ggml_tensor* q_rope = FindRope(node->src[0]);
  ggml_tensor* k_rope = write == writes_.end() ? nullptr : FindRope(write->second->src[0]);
  if (q_rope == nullptr || k_rope == nullptr) {
    o.rope_problem = "no RoPE between the projection and the attention";
  } else {
    RopeSpec k_spec;
    o.rope_problem = ReadRope(q_rope, &o.rope);
    if (o.rope_problem.empty()) o.rope_problem = ReadRope(k_rope, &k_spec);
    if (o.rope_problem.empty() && !(k_spec == o.rope))
      o.rope_problem = "different RoPE for queries and keys";
  }
  o.output.resize(static_cast<size_t>(ggml_nelements(node)));
  std::memcpy(o.output.data(), node->data, ggml_nbytes(node));
  observed_.push_back(std::move(o));
  return true;
}

void AttentionTap::ReplaceLayer(ggml_tensor* node, uint32_t layer) {
  Slot& slot = slots_.at(layer);
  const ggml_tensor* k_cache = Root(node->src[1]);
  const ggml_tensor* v_cache = Root(node->src[2]);
  const auto k_write = writes_.find(k_cache);
  const auto v_write = writes_.find(v_cache);
  ggml_tensor* q_rope = FindRope(node->src[0]);
  ggml_tensor* k_rope = k_write == writes_.end() ? nullptr : FindRope(k_write->second->src[0]);
  if (q_rope == nullptr || k_rope == nullptr || v_write == writes_.end()) {
    missing_ = "attention tap: layer " + std::to_string(layer) +
               " of the model's graph has an unknown shape";
    return;
  }
  slot.q_heads = static_cast<uint32_t>(node->ne[1]);
  slot.head_dim = static_cast<uint32_t>(node->ne[0]);
  MakeCopy(q_rope);
  MakeCopy(k_rope);
  MakeCustom(k_write->second, StoreKeysOp, &slot);
  MakeCustom(v_write->second, StoreValuesOp, &slot);
  MakeCustom(node, AttendOp, &slot);
  ++replaced_;
}

namespace {
// Rows [tokens, heads * head_dim], as SET_ROWS gets them.
LayerRows RowsOf(const ggml_tensor* t) {
  return {static_cast<const float*>(t->data), t->nb[1] / sizeof(float)};
}
}  // namespace

void AttentionTap::StoreKeysOp(ggml_tensor* dst, int ith, int nth, void* slot) {
  const Slot& s = *static_cast<Slot*>(slot);
  const ggml_tensor* rows = dst->src[0];
  s.tap->attention_->StoreKeys(s.slot, RowsOf(rows), static_cast<uint32_t>(rows->ne[1]), ith, nth);
}

void AttentionTap::StoreValuesOp(ggml_tensor* dst, int ith, int nth, void* slot) {
  const Slot& s = *static_cast<Slot*>(slot);
  const ggml_tensor* rows = dst->src[0];
  s.tap->attention_->StoreValues(s.slot, RowsOf(rows), static_cast<uint32_t>(rows->ne[1]), ith,
                                 nth);
}

void AttentionTap::AttendOp(ggml_tensor* dst, int ith, int nth, void* slot) {
  const Slot& s = *static_cast<Slot*>(slot);
  // [head_dim, tokens, q_heads]: nb[1] is the stride between tokens, nb[2] that between heads.
  const ggml_tensor* q = dst->src[0];
  LH_CHECK(q->nb[2] == s.head_dim * sizeof(float));
  s.tap->attention_->Attend(s.slot, {static_cast<const float*>(q->data), q->nb[1] / sizeof(float)},
                            static_cast<uint32_t>(q->ne[1]), static_cast<float*>(dst->data), ith,
                            nth);
}

}  // namespace longhold
