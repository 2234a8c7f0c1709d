// Replaces libllama's attention by longhold's, with libllama unmodified.
//
// libllama calls its evaluation callback for every node of a graph before it computes any of them.
// At that moment the nodes can still be changed. For each tapped layer, the tap
//   - turns the two RoPE nodes into plain copies, so that Q and K stay un-rotated,
//   - turns the two cache writes (SET_ROWS) into calls of
//     LayerAttention::StoreKeys and StoreValues,
//   - turns FLASH_ATTN_EXT into a call of LayerAttention::Attend, which writes the node's output.
//
// The graph then runs in one piece on libllama's own workers. There is no stop per layer and no
// second thread pool, and the engine's own attention is never computed.
// docs/decisions/0001-tap-by-node.md has the measurements.
//
// Thread use: *confined* to the context that it is attached to.
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

// The shape of one attention layer, as found in a graph by Observe.
struct ObservedLayer {
  uint32_t layer = 0;
  uint32_t q_heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t value_dim = 0;
  uint32_t cache_cells = 0;  // sliding-window layers have fewer than the context
  float scale = 0;
  float softcap = 0;
  float max_bias = 0;
  bool has_sinks = false;
  std::string rope_problem;  // why longhold cannot do this layer's rotation; empty if it can
  RopeSpec rope;
  std::vector<float> output;  // output of the engine's own attention, [tokens, q_heads, head_dim]
};

class AttentionTap {
 public:
  // llama_context_params::cb_eval. Pass the tap as cb_eval_user_data.
  static bool Callback(ggml_tensor* node, bool ask, void* self);

  // Observe mode: does not change the graph. Records the shape of every attention layer, and the
  // output of the engine's own attention.
  void Observe();
  const std::vector<ObservedLayer>& observed() const { return observed_; }
  // The model's input embeddings, [vocabulary, width]; they stay valid after the pass. Null if the
  // graph looked up no token.
  const ggml_tensor* embeddings() const { return embeddings_; }

  // Replace mode: in the next forward pass, the layers of SetLayers use `attention`. Call Replace
  // before every pass.
  void SetLayers(const std::vector<uint32_t>& layers);
  void Replace(LayerAttention* attention);
  // After a pass: ok if every layer of SetLayers was replaced, else internal.
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
  // By layer number. Nothing is erased while the tap is attached, so that addresses stay valid.
  std::unordered_map<uint32_t, Slot> slots_;
  // Cache tensor -> the node that writes to it in this pass.
  std::unordered_map<const ggml_tensor*, ggml_tensor*> writes_;
  size_t replaced_ = 0;
  size_t reused_nodes_ = 0;
  std::string missing_;
};

}  // namespace longhold
