// The interface through which the engine uses a language model. model/llama_host.h implements it
// with libllama. Tests use a toy model.
//
// Terms: the engine supplies the attention of the *tapped* layers (attention/layer_attention.h).
// All other layers use the *native cache*, which is the inference library's own KV cache. A *native
// position* is a position in that cache.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "attention/geometry.h"
#include "attention/layer_attention.h"
#include "base/status.h"
#include "base/types.h"

namespace longhold {

// Facts about a loaded model. Value type.
struct ModelInfo {
  std::string name;          // the name in the GGUF: "Smollm2 135M 8k Lc100K Mix1 Ep2"
  std::string architecture;  // "llama"
  std::string path;
  std::string fingerprint;  // 16 hex digits; changes with weights, tokenizer and quantisation
  KvGeometry geometry;
  uint32_t layer_count = 0;
  uint32_t vocab_size = 0;
  // Width of the vectors that LanguageModel::Embed writes. 0 if the model does not give access to
  // its embeddings.
  uint32_t embedding_width = 0;
  uint32_t context_length = 0;  // native context length in tokens
  bool chat = false;            // the GGUF carries a chat template
  // RAM that the loaded model needs in addition to its weights: compute buffers and native cache.
  uint64_t buffer_bytes = 0;
  // Attention window of the layers that are not tapped, in tokens. 0 when all layers are tapped.
  uint32_t native_window = 0;
};

// One turn of a conversation, by the user or by the model. Value type.
struct ChatTurn {
  bool by_user = true;
  std::string text;
};

// A part of a prompt. Text of the chat template is `special`: its delimiters, such as <|im_start|>,
// become special tokens. In all other text they are plain text.
struct PromptPiece {
  std::string text;
  bool special = false;
};

// A question formatted for the model. `head` comes before the recalled spans and `tail` after them.
struct PromptParts {
  // Everything before the question: the system prompt and the earlier turns.
  std::vector<PromptPiece> head;
  std::string tail;           // the question, and all text up to the start of the answer
  size_t question_begin = 0;  // byte range of the user's question within `tail`
  size_t question_end = 0;
};

struct SamplerOptions {
  float temperature = 0;  // 0 is greedy
  float top_p = 1;
  uint32_t seed = 1;
  // The strength of the DRY penalty against repeating three or more tokens of the answer; 0 turns
  // it off. Without it, small models often repeat themselves in lists (docs/decisions/0013).
  float dry_multiplier = 0.8f;
};

// One of several continuations that Score evaluates in one pass. Borrows its tokens for the call.
struct Branch {
  std::span<const TokenId> tokens;
  // Tokens from this index on are scored, each given those before it. 1..tokens.size().
  size_t scored_begin = 1;
};

// The next token of one of several sequences that share a forward pass. Borrows its pointers for
// the call.
struct NextToken {
  TokenId token = 0;
  uint32_t sequence = 0;                 // see LanguageModel::UseSequence; unique in a pass
  uint32_t position = 0;                 // native position
  LayerAttention* attention = nullptr;   // for a pass of this one token
  std::vector<float>* logits = nullptr;  // [vocab_size], output: the logits after this token
};

// Picks the next token from logits. Confined.
class TokenSampler {
 public:
  virtual ~TokenSampler() = default;
  virtual TokenId Sample(std::span<const float> logits) = 0;
};

// One model. Thread use: *confined*. The function given to Parallel runs on the model's worker
// threads.
class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  virtual const ModelInfo& info() const = 0;

  // Token ids of `text`, without a leading BOS. With `special`, template delimiters such as
  // <|im_start|> become their special tokens. Never set it for documents or the user's text.
  virtual Result<std::vector<TokenId>> Tokenize(std::string_view text, bool special) const = 0;
  // The token's text. Empty for control tokens.
  virtual std::string Piece(TokenId token) const = 0;
  // The token that starts every sequence, or -1 if the model has none.
  virtual TokenId Bos() const = 0;
  virtual bool EndsAnswer(TokenId token) const = 0;
  // Writes the model's input embeddings of `tokens`, as they are stored: [tokens, embedding_width].
  // Safe to call concurrently. Must hold: embedding_width is not 0, and every token is below
  // vocab_size.
  virtual void Embed(std::span<const TokenId> tokens, float* out) const = 0;
  // Formats a question with the model's chat template, or as plain text if there is none. `system`
  // may be empty. The `earlier` turns come before the question.
  virtual Result<PromptParts> Format(std::string_view system, std::span<const ChatTurn> earlier,
                                     std::string_view question) const = 0;

  // Runs `tokens` (at most batch_tokens()) through the model at native positions [position,
  // position + tokens.size()). The tapped layers attend through `attention`. With `want_logits`,
  // logits() afterwards returns those of the last token.
  virtual Status Forward(std::span<const TokenId> tokens, uint32_t position,
                         LayerAttention* attention, bool want_logits) = 0;
  virtual uint32_t batch_tokens() const = 0;
  virtual std::span<const float> logits() const = 0;

  // Runs one token of each of several sequences in one pass. No sequence attends to another.
  // logits() does not change. Must hold: at least one sequence and at most sequences_max().
  virtual Status ForwardEach(std::span<const NextToken> next) = 0;
  // The most sequences that ForwardEach accepts. The native cache has room for this many.
  virtual uint32_t sequences_max() const = 0;
  // Selects the sequence whose native cache the following calls read and write. Initially 0. Must
  // hold: `sequence` is below sequences_max().
  virtual void UseSequence(uint32_t sequence) = 0;

  // Scores several branches in one pass. result[i][j] is the natural log of the probability of
  // token scored_begin + j of branch i. It is conditioned on the branch's tokens before it and on
  // the keys in `attention`. The rows of the branches follow each other; `attention` must keep the
  // branches apart. In layers that are not tapped, each branch sees native positions [0, position)
  // and itself. The native cache does not change. Must hold: at most branches_max() branches, at
  // most batch_tokens() tokens in all, and at most scored_tokens_max() scored tokens in all.
  virtual Result<std::vector<std::vector<float>>> Score(std::span<const Branch> branches,
                                                        uint32_t position,
                                                        LayerAttention* attention) = 0;
  virtual uint32_t scored_tokens_max() const = 0;
  virtual uint32_t branches_max() const = 0;

  // The following four calls use the native cache of the selected sequence, which serves only the
  // layers that are not tapped.
  // Removes native positions [begin, end).
  virtual void NativeForget(uint32_t begin, uint32_t end) = 0;
  // Moves native positions [begin, end) by `delta` and rotates their attention keys accordingly.
  virtual Status NativeShift(uint32_t begin, uint32_t end, int32_t delta) = 0;
  // The contents of the native cache as bytes. Empty when all layers are tapped. Afterwards the
  // cache is in the state that NativeRestore(result) would produce, so a continued run and a
  // restored run agree bit for bit. Errors: failed_precondition between NativeShift and the next
  // Forward.
  virtual Result<std::string> NativeSave() = 0;
  virtual Status NativeRestore(std::string_view bytes) = 0;

  virtual std::unique_ptr<TokenSampler> NewSampler(const SamplerOptions& options) const = 0;

  // Runs fn(i) for i in [0, count) on the model's worker threads and waits. Must not be called from
  // within Forward.
  virtual void Parallel(size_t count, const std::function<void(size_t)>& fn) = 0;
};

// The texts of all tokens, in the form that LexicalVocabulary takes.
inline std::vector<std::string> TokenPieces(const LanguageModel& model) {
  std::vector<std::string> pieces(model.info().vocab_size);
  for (size_t i = 0; i < pieces.size(); ++i) pieces[i] = model.Piece(static_cast<TokenId>(i));
  return pieces;
}

// LanguageModel::Parallel as a ParallelFor value. Borrows the model.
inline std::function<void(size_t, const std::function<void(size_t)>&)> WorkersOf(
    LanguageModel& model) {
  return
      [&model](size_t count, const std::function<void(size_t)>& fn) { model.Parallel(count, fn); };
}

}  // namespace longhold
