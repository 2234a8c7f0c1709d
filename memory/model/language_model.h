// What the engine needs of a language model. model/llama_host.h implements it on libllama; tests on
// a toy.
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
  std::string name;          // "Smollm2 135M 8k Lc100K Mix1 Ep2", as the GGUF says
  std::string architecture;  // "llama"
  std::string path;
  std::string fingerprint;  // changes with weights, tokenizer and quantisation: 16 hex digits
  KvGeometry geometry;
  uint32_t layer_count = 0;
  uint32_t vocab_size = 0;
  // of LanguageModel::Embed; 0 where the model does not show its embeddings
  uint32_t embedding_width = 0;
  uint32_t context_length = 0;  // native
  bool chat = false;            // the GGUF carries a chat template
  // RAM that the loaded model takes beside its weights: what it computes in, and its native cache
  uint64_t buffer_bytes = 0;
  // tokens that the layers which stay with the engine look back; 0 when all are tapped
  uint32_t native_window = 0;
};

// What was said in a conversation, by its user or by the model. Value type.
struct ChatTurn {
  bool by_user = true;
  std::string text;
};

// Text of a prompt: the template's, whose marks such as <|im_start|> are special tokens, or
// somebody's words, in which they are just text.
struct PromptPiece {
  std::string text;
  bool special = false;
};

// A question laid out for the model. `head` comes before the recalled spans and `tail` after them.
struct PromptParts {
  // all before the question: the system's words, and what was said earlier
  std::vector<PromptPiece> head;
  std::string tail;           // the question and everything up to where the answer begins
  size_t question_begin = 0;  // bytes of `tail` that are the user's own words
  size_t question_end = 0;
};

struct SamplerOptions {
  float temperature = 0;  // 0 is greedy
  float top_p = 1;
  uint32_t seed = 1;
  // How strongly repeating a run of three and more of the answer's own tokens is made unlikely
  // ("DRY"); 0 turns it off. Small models otherwise go round in lists (docs/decisions/0013).
  float dry_multiplier = 0.8f;
};

// One of several continuations that are judged side by side. Borrows its tokens for the call.
struct Branch {
  std::span<const TokenId> tokens;
  // the tokens from here on are judged, each by those before it; 1..tokens.size()
  size_t scored_begin = 1;
};

// The next token of one of several texts that go through the model side by side. Borrows for the
// call.
struct NextToken {
  TokenId token = 0;
  uint32_t text = 0;                     // as LanguageModel::UseSequence, each another one
  uint32_t position = 0;                 // native
  LayerAttention* attention = nullptr;   // of a pass of one token
  std::vector<float>* logits = nullptr;  // [vocab_size], those of the token
};

// Picks the next token from logits. Confined.
class TokenSampler {
 public:
  virtual ~TokenSampler() = default;
  virtual TokenId Sample(std::span<const float> logits) = 0;
};

// One model. Thread use: *confined*; Parallel's function runs on the model's workers.
class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  virtual const ModelInfo& info() const = 0;

  // Token ids of `text`, without a leading BOS. With `special`, template marks such as <|im_start|>
  // become their tokens; never set it for documents or the user's words.
  virtual Result<std::vector<TokenId>> Tokenize(std::string_view text, bool special) const = 0;
  // The token's text; empty for control tokens.
  virtual std::string Piece(TokenId token) const = 0;
  // The token that starts every sequence, or -1 where the model has none.
  virtual TokenId Bos() const = 0;
  virtual bool EndsAnswer(TokenId token) const = 0;
  // The vectors by which the model knows `tokens` before it has read anything: its input
  // embeddings, as they are stored. [tokens, embedding_width]. Safe to call concurrently. Must
  // hold: embedding_width is not 0; every token is below vocab_size.
  virtual void Embed(std::span<const TokenId> tokens, float* out) const = 0;
  // Lays out a question by the model's chat template, or plainly where it has none. `system` may be
  // empty; `earlier` turns come first.
  virtual Result<PromptParts> Format(std::string_view system, std::span<const ChatTurn> earlier,
                                     std::string_view question) const = 0;

  // Runs `tokens` (at most batch_tokens()) through the model, attending through `attention`, at
  // native positions [position, position + tokens.size()). With `want_logits`, logits() holds those
  // of the last token afterwards.
  virtual Status Forward(std::span<const TokenId> tokens, uint32_t position,
                         LayerAttention* attention, bool want_logits) = 0;
  virtual uint32_t batch_tokens() const = 0;
  virtual std::span<const float> logits() const = 0;

  // Runs one token of each of several texts in one pass: none sees another. logits() is left as it
  // was. Must hold: at least one text, at most sequences_max().
  virtual Status ForwardEach(std::span<const NextToken> texts) = 0;
  // At most so many; also the number of texts that the native cache has room for.
  virtual uint32_t sequences_max() const = 0;
  // Whose native cache the calls from here on read and write: that of text 0 at first. Must hold:
  // `text` is below sequences_max().
  virtual void UseSequence(uint32_t text) = 0;

  // Judges several branches in one pass: result[i][j] is the natural log of the probability of
  // token scored_begin + j of branch i, given the tokens before it and what `attention` shows. Rows
  // of a branch follow those of the one before it; it is for `attention` to keep branches apart.
  // Layers that stay with the engine show each branch what the native cache holds at positions [0,
  // position), and itself. Must hold: at most branches_max() branches, all tokens together at most
  // batch_tokens(), all judged ones at most scored_tokens_max(). The native cache is left as it
  // was.
  virtual Result<std::vector<std::vector<float>>> Score(std::span<const Branch> branches,
                                                        uint32_t position,
                                                        LayerAttention* attention) = 0;
  virtual uint32_t scored_tokens_max() const = 0;
  virtual uint32_t branches_max() const = 0;

  // The native cache of the text in use, which serves only the layers that stay with the engine.
  // Forgets native positions [begin, end).
  virtual void NativeForget(uint32_t begin, uint32_t end) = 0;
  // Moves native positions [begin, end) by `delta`, rotating their keys along.
  virtual Status NativeShift(uint32_t begin, uint32_t end, int32_t delta) = 0;
  // Its contents as bytes; empty when all layers are tapped. Leaves the cache as NativeRestore of
  // the result would, so that a run that goes on and one that is restored agree to the bit. Not
  // between NativeShift and the next Forward: failed_precondition.
  virtual Result<std::string> NativeSave() = 0;
  virtual Status NativeRestore(std::string_view bytes) = 0;

  virtual std::unique_ptr<TokenSampler> NewSampler(const SamplerOptions& options) const = 0;

  // Runs fn(i) for i in [0, count) on the model's workers and waits. Not from within Forward.
  virtual void Parallel(size_t count, const std::function<void(size_t)>& fn) = 0;
};

// The texts of all tokens, as LexicalVocabulary wants them.
inline std::vector<std::string> TokenPieces(const LanguageModel& model) {
  std::vector<std::string> pieces(model.info().vocab_size);
  for (size_t i = 0; i < pieces.size(); ++i) pieces[i] = model.Piece(static_cast<TokenId>(i));
  return pieces;
}

// Parallel as a value, for what takes a ParallelFor. Borrows the model.
inline std::function<void(size_t, const std::function<void(size_t)>&)> WorkersOf(
    LanguageModel& model) {
  return
      [&model](size_t count, const std::function<void(size_t)>& fn) { model.Parallel(count, fn); };
}

}  // namespace longhold
