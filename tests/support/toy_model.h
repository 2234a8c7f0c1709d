// A language model small enough to run thousands of tokens in a test, and fully deterministic.
//
// Tokens are bytes and a few longer pieces; the concatenation of Piece(token) is the text. Layers
// depend on each other as in a real model: queries, keys and values of a layer come from the hidden
// state, which contains what the earlier layers attended to. With native_window it also has native
// state, as gemma's sliding-window layers do: each token attends to the embeddings of the last
// native_window tokens, weighted by their distance in native positions. An error in this state
// (lost, kept too long or shifted wrongly) changes every later key.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "memory/model/language_model.h"
#include "tests/support/attention_driver.h"

namespace longhold {

struct ToyOptions {
  std::string name = "toy";
  std::string fingerprint = "0123456789abcdef";
  KvGeometry geometry = TestGeometry();
  uint32_t native_window = 0;
  uint32_t native_sequences = 1;
  uint32_t workers = 1;
  uint32_t batch_tokens = 512;
  uint32_t context_length = 8192;
  bool bos = true;
  bool chat = false;
  // the tokenizer keeps one space of each run, so pieces are not the text
  bool collapse_spaces = false;
  // the tokenizer puts a space before the text, as SentencePiece's do
  bool space_prefix = false;
  // the tokenizer writes e and a combining acute as é, as Unicode normalisation does
  bool compose = false;
  // what samplers generate, whatever the logits; empty: the likeliest token
  std::string answer;
  uint64_t buffer_bytes = 0;  // the reported size of its buffers
  uint64_t seed = 42;
};

// Two layers, one KV head: some 10 us a token.
KvGeometry TinyGeometry();

class ToyModel final : public LanguageModel {
 public:
  static constexpr TokenId kBos = 256, kEos = 257, kFirstPiece = 258;

  explicit ToyModel(ToyOptions options = {});

  const ModelInfo& info() const override { return info_; }

  Result<std::vector<TokenId>> Tokenize(std::string_view original, bool special) const override;
  std::string Piece(TokenId token) const override { return pieces_.at(static_cast<size_t>(token)); }
  TokenId Bos() const override { return options_.bos ? kBos : -1; }
  bool EndsAnswer(TokenId token) const override { return token == kEos; }
  void Embed(std::span<const TokenId> tokens, float* out) const override {
    for (const TokenId token : tokens) out = std::copy_n(Embedding(token), width_, out);
  }
  Result<PromptParts> Format(std::string_view system, std::span<const ChatTurn> earlier,
                             std::string_view question) const override;

  Status Forward(std::span<const TokenId> tokens, uint32_t position, LayerAttention* attention,
                 bool want_logits) override;
  Result<std::vector<std::vector<float>>> Score(std::span<const Branch> branches, uint32_t position,
                                                LayerAttention* attention) override;
  Status ForwardEach(std::span<const NextToken> next) override;
  uint32_t sequences_max() const override {
    return options_.native_window == 0 ? options_.batch_tokens : options_.native_sequences;
  }
  void UseSequence(uint32_t sequence) override;
  uint32_t scored_tokens_max() const override { return options_.batch_tokens; }
  uint32_t branches_max() const override {
    return options_.native_window == 0 ? options_.batch_tokens : 1;
  }
  uint32_t batch_tokens() const override { return options_.batch_tokens; }
  std::span<const float> logits() const override { return logits_; }

  void NativeForget(uint32_t begin, uint32_t end) override {
    std::erase_if(native_,
                  [&](const Native& n) { return n.position >= begin && n.position < end; });
  }
  Status NativeShift(uint32_t begin, uint32_t end, int32_t delta) override;
  Result<std::string> NativeSave() override;
  Status NativeRestore(std::string_view bytes) override;

  std::unique_ptr<TokenSampler> NewSampler(const SamplerOptions&) const override {
    return std::make_unique<Sampler>(*this);
  }

  void Parallel(size_t count, const std::function<void(size_t)>& fn) override;

  // The texts of the whole vocabulary, for LexicalVocabulary.
  const std::vector<std::string>& pieces() const { return pieces_; }
  uint32_t native_position_max() const { return native_position_max_; }
  uint64_t forward_count() const { return forward_count_; }
  // Counters of ForwardEach: its calls, and the largest number of sequences in one call.
  uint64_t each_count() const { return each_count_; }
  size_t each_sequences_max() const { return each_sequences_max_; }

 private:
  struct Native {
    uint32_t position;
    TokenId token;
  };
  struct Layer {
    std::vector<float> qkv;  // [q_width + 2 * kv_width, width]
    std::vector<float> out;  // [width, width]
  };
  class Sampler final : public TokenSampler {
   public:
    explicit Sampler(const ToyModel& model) : scripted_(!model.options_.answer.empty()) {
      if (scripted_) script_ = *model.Tokenize(model.options_.answer, false);
    }
    TokenId Sample(std::span<const float> logits) override {
      if (scripted_) return at_ < script_.size() ? script_[at_++] : kEos;
      return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    }

   private:
    bool scripted_;
    std::vector<TokenId> script_;
    size_t at_ = 0;
  };

  const float* Embedding(TokenId token) const {
    return embeddings_.data() + static_cast<size_t>(token) * width_;
  }
  void Normalise(const float* in, float* out) const;

  ToyOptions options_;
  ModelInfo info_;
  std::vector<std::string> pieces_;
  size_t width_ = 0;               // of the hidden state; q_heads * head_dim
  std::vector<float> embeddings_;  // [vocabulary, width]
  std::vector<Layer> layers_;
  std::vector<float> logits_;
  std::vector<float> hidden_;   // [tokens, width] of the last pass with logits, normalised
  std::vector<Native> native_;  // of the current sequence, ascending by position
  std::map<uint32_t, std::vector<Native>> natives_;  // of the other sequences
  uint32_t sequence_ = 0;
  uint32_t native_position_max_ = 0;
  uint64_t forward_count_ = 0, each_count_ = 0;
  size_t each_sequences_max_ = 0;
};

}  // namespace longhold
