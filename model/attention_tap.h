// Puts longhold's attention in the place of libllama's, with libllama unmodified.
//
// libllama asks its evaluation callback about every node of a graph before it computes any. At that
// moment the nodes can still be changed. For each tapped layer the tap
//   - turns the two RoPE nodes into plain copies, so that Q and K stay un-rotated,
//   - turns the two cache writes (SET_ROWS) into calls of LayerAttention::StoreKeys and
//   StoreValues,
//   - turns FLASH_ATTN_EXT into a call of LayerAttention::Attend that writes the node's own output.
// The graph then runs in one piece on libllama's own workers: no stop per layer, no second thread
// pool, and the engine's own attention is never computed. docs/decisions/0001-tap-by-node.md has
// the measurements.
//
// Thread use: *confined* to the context it is attached to.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "attention/geometry.h"
#include "attention/layer_attention.h"
#include "base/status.h"

struct ggml_tensor;

namespace longhold {

// What one attention layer of a graph looks like. Found by Observe, never assumed.
struct ObservedLayer {
  uint32_t layer = 0;
  uint32_t q_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t value_dim = 0;
  uint32_t cache_cells = 0;  // a sliding-window layer has fewer than the context
  float scale = 0;
  float softcap = 0;
  float max_bias = 0;
  bool has_sinks = false;
  std::string rope_problem;  // why the rotation cannot be taken over; empty when it can
  RopeSpec rope;
  std::vector<float> output;  // [tokens, q_heads, head_dim] of the engine's own attention
};

class AttentionTap {
 public:
  // Pass these two to llama_context_params.
  static bool Callback(ggml_tensor* node, bool ask, void* self);

  // Observe: leave the graph alone; copy the shape of every attention layer and the engine's own
  // output of it.
  void Observe();
  const std::vector<ObservedLayer>& observed() const { return observed_; }
  // The model's input embeddings, [vocabulary, width], which outlive the pass; null where the graph
  // looked no token up.
  const ggml_tensor* embeddings() const { return embeddings_; }

  // Replace: the layers of SetLayers go to `attention` in the next forward pass. Call before every
  // pass.
  void SetLayers(const std::vector<uint32_t>& layers);
  void Replace(LayerAttention* attention);
  // After a pass: ok when every layer of SetLayers was replaced.
  Status CheckReplaced() const;

 private:
  enum class Mode { kOff, kObserve, kReplace };
  struct Slot {
    AttentionTap* tap;
    uint32_t slot;
    uint32_t q_heads, head_dim;
  };

  bool OnNode(ggml_tensor* node, bool ask);
  void ReplaceLayer(ggml_tensor* attention_node, uint32_t layer);
  static void StoreKeysOp(ggml_tensor* dst, int ith, int nth, void* slot);
  static void StoreValuesOp(ggml_tensor* dst, int ith, int nth, void* slot);
  static void AttendOp(ggml_tensor* dst, int ith, int nth, void* slot);

  Mode mode_ = Mode::kOff;
  LayerAttention* attention_ = nullptr;
  std::vector<ObservedLayer> observed_;
  const ggml_tensor* embeddings_ = nullptr;
  // by layer; stable addresses: never erased while attached
  std::unordered_map<uint32_t, Slot> slots_;
  // cache tensor -> the node that writes to it, this pass
  std::unordered_map<const ggml_tensor*, ggml_tensor*> writes_;
  size_t replaced_ = 0;
  size_t reused_nodes_ = 0;
  std::string missing_;
};

}  // namespace longhold
