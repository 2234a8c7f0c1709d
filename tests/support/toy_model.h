// A language model small enough to run thousands of tokens in a test, with nothing random about it.
//
// Tokens are bytes and a few longer pieces; Piece(token) put end to end is the text. Layers depend on each other as in a
// real model: queries, keys and values of a layer come from the hidden state, which holds what the layers before attended to.
// With native_window it also has state of its own, as gemma's sliding-window layers are: each token sees the embeddings of
// the last native_window tokens, weighed by their distance in native positions. Losing, keeping too much of or shifting
// this state wrongly changes every key from there on.
#pragma once

#include <algorithm>
#include <atomic>
#include <barrier>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "attention/side_by_side.h"
#include "memory/language_model.h"
#include "tests/support/attention_driver.h"

namespace longhold {

struct ToyOptions {
  std::string name = "toy";
  std::string fingerprint = "0123456789abcdef";
  KvGeometry geometry = TestGeometry();
  uint32_t native_window = 0;
  uint32_t native_texts = 1;
  uint32_t workers = 1;
  uint32_t batch_tokens = 512;
  uint32_t context_length = 8192;
  bool bos = true;
  bool chat = false;
  bool collapse_spaces = false;  // the tokenizer drops all spaces of a run but one, so pieces are not the text
  bool space_prefix = false;     // the tokenizer puts a space before the text, as SentencePiece's do
  bool compose = false;          // the tokenizer writes e and a combining acute as é, as Unicode normalisation does
  std::string answer;            // what samplers say, whatever the logits; empty: the likeliest token
  uint64_t buffer_bytes = 0;     // what it says its buffers take
  uint64_t seed = 42;
};

// Two layers, one KV head: some 10 us a token.
inline KvGeometry TinyGeometry() {
  KvGeometry g;
  g.layers = {0, 2};
  g.q_heads = 2;
  g.kv_heads = 1;
  g.head_dim = 4;
  g.scale = 0.5f;
  g.rope = {RopeSpec{.rotary_dims = 4}, RopeSpec{.neox = true, .rotary_dims = 4, .freq_base = 100.0f}};
  return g;
}

class ToyModel final : public LanguageModel {
 public:
  static constexpr TokenId kBos = 256, kEos = 257, kFirstPiece = 258;

  explicit ToyModel(ToyOptions options = {}) : options_(std::move(options)) {
    for (int b = 0; b < 256; ++b) pieces_.emplace_back(1, static_cast<char>(b));
    pieces_.emplace_back();
    pieces_.emplace_back();
    for (const char* piece : {" the", " and", " of", "\n\n", " key", " is", "é", "日本", ". ", " a", "ing", " number", "\nThe", "   "}) {
      pieces_.emplace_back(piece);
    }
    const KvGeometry& g = options_.geometry;
    width_ = g.q_heads * g.head_dim;
    std::mt19937_64 rng(options_.seed);
    std::normal_distribution<float> normal;
    const auto matrix = [&](size_t rows, size_t columns) {
      std::vector<float> m(rows * columns);
      for (float& x : m) x = normal(rng) / std::sqrt(static_cast<float>(columns));
      return m;
    };
    embeddings_ = matrix(pieces_.size(), width_);
    for (float& x : embeddings_) x *= std::sqrt(static_cast<float>(width_));
    for (size_t l = 0; l < g.layers.size(); ++l) {
      layers_.push_back({matrix(width_ + 2 * g.kv_width(), width_), matrix(width_, width_)});
    }
    info_.name = options_.name;
    info_.architecture = "toy";
    info_.path = "/models/" + options_.name + ".gguf";
    info_.fingerprint = options_.fingerprint;
    info_.geometry = g;
    info_.layer_count = g.layers.back() + 1;
    info_.vocab_size = static_cast<uint32_t>(pieces_.size());
    info_.embedding_width = static_cast<uint32_t>(width_);
    info_.context_length = options_.context_length;
    info_.chat = options_.chat;
    info_.buffer_bytes = options_.buffer_bytes;
    info_.native_window = options_.native_window;
  }

  const ModelInfo& info() const override { return info_; }

  Result<std::vector<TokenId>> Tokenize(std::string_view original, bool special) const override {
    std::string rewritten(options_.space_prefix ? " " : "");
    rewritten += original;
    for (size_t at; options_.compose && (at = rewritten.find("e\u0301")) != std::string::npos;) rewritten.replace(at, 3, "é");
    const std::string_view text(rewritten);
    std::vector<TokenId> tokens;
    for (size_t at = 0; at < text.size();) {
      if (options_.collapse_spaces && text[at] == ' ' && at + 1 < text.size() && text[at + 1] == ' ') {
        ++at;
        continue;
      }
      if (special && text.substr(at).starts_with("<s>")) {
        tokens.push_back(kBos);
        at += 3;
        continue;
      }
      TokenId best = static_cast<uint8_t>(text[at]);
      for (size_t i = kFirstPiece; i < pieces_.size(); ++i) {
        if (pieces_[i].size() > pieces_[static_cast<size_t>(best)].size() && text.substr(at).starts_with(pieces_[i])) {
          best = static_cast<TokenId>(i);
        }
      }
      tokens.push_back(best);
      at += pieces_[static_cast<size_t>(best)].size();
    }
    return tokens;
  }
  std::string Piece(TokenId token) const override { return pieces_.at(static_cast<size_t>(token)); }
  TokenId Bos() const override { return options_.bos ? kBos : -1; }
  bool EndsAnswer(TokenId token) const override { return token == kEos; }
  void Embed(std::span<const TokenId> tokens, float* out) const override {
    for (const TokenId token : tokens) out = std::copy_n(Embedding(token), width_, out);
  }
  Result<PromptParts> Format(std::string_view system, std::span<const ChatTurn> earlier, std::string_view question) const override {
    PromptParts parts;
    if (options_.bos) parts.head.push_back({.text = "<s>", .special = true});
    if (!system.empty()) parts.head.push_back({.text = std::string(system) + "\n", .special = false});
    for (const ChatTurn& turn : earlier) parts.head.push_back({.text = (turn.by_user ? "Question: " : "Answer: ") + turn.text + "\n", .special = false});
    parts.tail = "Question: ";
    parts.question_begin = parts.tail.size();
    parts.tail += question;
    parts.question_end = parts.tail.size();
    parts.tail += "\nAnswer:";
    return parts;
  }

  Status Forward(std::span<const TokenId> tokens, uint32_t position, LayerAttention* attention, bool want_logits) override {
    if (tokens.empty() || tokens.size() > options_.batch_tokens) return Internal("toy model: batch size");
    ++forward_count_;
    native_position_max_ = std::max(native_position_max_, position + static_cast<uint32_t>(tokens.size()) - 1);
    // As an engine's cache: what the window has left behind goes, and a position is taken once only.
    std::erase_if(native_, [&](const Native& n) { return n.position + info_.native_window < position; });
    for (const Native& n : native_) {
      if (n.position >= position) return Internal("toy model: native position " + std::to_string(n.position) + " is taken");
    }
    const KvGeometry& g = options_.geometry;
    const size_t count = tokens.size(), fused = width_ + 2 * g.kv_width();
    std::vector<float> x(count * width_);
    for (size_t t = 0; t < count; ++t) {
      const uint32_t own = position + static_cast<uint32_t>(t);
      if (info_.native_window > 0) native_.push_back({own, tokens[t]});
      float* row = x.data() + t * width_;
      std::copy_n(Embedding(tokens[t]), width_, row);
      for (const Native& n : native_) {
        if (n.position + info_.native_window <= own) continue;
        const float weight = 1.0f / static_cast<float>(2 + own - n.position);
        for (size_t c = 0; c < width_; ++c) row[c] += weight * Embedding(n.token)[(c + 1) % width_];
      }
    }
    std::vector<float> qkv(count * fused), attended(count * width_);
    const auto product = [&](const std::vector<float>& m, const float* in, float* out, size_t rows, bool add) {
      for (size_t r = 0; r < rows; ++r) {
        float sum = 0;
        for (size_t c = 0; c < width_; ++c) sum += m[r * width_ + c] * in[c];
        out[r] = add ? out[r] + sum : sum;
      }
    };
    const uint32_t workers = options_.workers, n = static_cast<uint32_t>(count);
    std::barrier barrier(static_cast<ptrdiff_t>(workers));
    OnWorkers(workers, [&](uint32_t w) {
      for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
        if (w == 0) {
          std::vector<float> normed(width_);
          for (size_t t = 0; t < count; ++t) {
            Normalise(x.data() + t * width_, normed.data());
            product(layers_[slot].qkv, normed.data(), qkv.data() + t * fused, fused, false);
          }
        }
        barrier.arrive_and_wait();
        attention->StoreKeys(slot, {qkv.data() + width_, fused}, n, w, workers);
        barrier.arrive_and_wait();
        attention->StoreValues(slot, {qkv.data() + width_ + g.kv_width(), fused}, n, w, workers);
        barrier.arrive_and_wait();
        attention->Attend(slot, {qkv.data(), fused}, n, attended.data(), w, workers);
        barrier.arrive_and_wait();
        if (w == 0) {
          for (size_t t = 0; t < count; ++t) product(layers_[slot].out, attended.data() + t * width_, x.data() + t * width_, width_, true);
        }
      }
    });
    if (want_logits) {
      hidden_.resize(count * width_);
      for (size_t t = 0; t < count; ++t) Normalise(x.data() + t * width_, hidden_.data() + t * width_);
      std::vector<float> normed(width_);
      Normalise(x.data() + (count - 1) * width_, normed.data());
      logits_.assign(pieces_.size(), 0.0f);
      product(embeddings_, normed.data(), logits_.data(), pieces_.size(), false);
    }
    return OkStatus();
  }
  Result<std::vector<std::vector<float>>> Score(std::span<const Branch> branches, uint32_t position,
                                                LayerAttention* attention) override {
    const std::vector<Native> native = native_;
    std::vector<TokenId> tokens;
    for (const Branch& b : branches) tokens.insert(tokens.end(), b.tokens.begin(), b.tokens.end());
    LH_RETURN_IF_ERROR(Forward(tokens, position, attention, true));
    native_ = native;
    std::vector<std::vector<float>> logs;
    size_t row = 0;
    for (const Branch& b : branches) {
      logs.emplace_back();
      for (size_t i = 0; i < b.tokens.size(); ++i, ++row) {
        if (i + 1 < b.scored_begin || i + 1 == b.tokens.size()) continue;
        std::vector<float> logits(pieces_.size());
        for (size_t p = 0; p < pieces_.size(); ++p) {
          for (size_t c = 0; c < width_; ++c) logits[p] += embeddings_[p * width_ + c] * hidden_[row * width_ + c];
        }
        double sum = 0;
        for (float l : logits) sum += std::exp(l);
        logs.back().push_back(logits[static_cast<size_t>(b.tokens[i + 1])] - static_cast<float>(std::log(sum)));
      }
    }
    return logs;
  }
  Status ForwardEach(std::span<const NextToken> texts) override {
    ++each_count_;
    each_texts_max_ = std::max(each_texts_max_, texts.size());
    const std::vector<float> before = logits_;
    if (info_.native_window > 0) {
      // One after the other, as they have nothing in common.
      for (const NextToken& text : texts) {
        const uint32_t in_use = text_;
        UseText(text.text);
        const Status status = Forward({&text.token, 1}, text.position, text.attention, true);
        UseText(in_use);
        LH_RETURN_IF_ERROR(status);
        *text.logits = logits_;
      }
      logits_ = before;
      return OkStatus();
    }
    std::vector<TokenId> tokens;
    std::vector<LayerAttention*> each;
    for (const NextToken& text : texts) {
      tokens.push_back(text.token);
      each.push_back(text.attention);
    }
    SideBySide attention(each, width_);
    LH_RETURN_IF_ERROR(Forward(tokens, 0, &attention, true));
    for (size_t i = 0; i < texts.size(); ++i) {
      texts[i].logits->assign(pieces_.size(), 0.0f);
      for (size_t p = 0; p < pieces_.size(); ++p) {
        for (size_t c = 0; c < width_; ++c) (*texts[i].logits)[p] += embeddings_[p * width_ + c] * hidden_[i * width_ + c];
      }
    }
    logits_ = before;
    return OkStatus();
  }
  uint32_t texts_max() const override { return options_.native_window == 0 ? options_.batch_tokens : options_.native_texts; }
  void UseText(uint32_t text) override {
    if (info_.native_window == 0 || text == text_) return;
    natives_[text_] = native_;
    native_ = natives_[text];
    text_ = text;
  }
  uint32_t scored_tokens_max() const override { return options_.batch_tokens; }
  uint32_t branches_max() const override { return options_.native_window == 0 ? options_.batch_tokens : 1; }
  uint32_t batch_tokens() const override { return options_.batch_tokens; }
  std::span<const float> logits() const override { return logits_; }

  void NativeForget(uint32_t begin, uint32_t end) override {
    std::erase_if(native_, [&](const Native& n) { return n.position >= begin && n.position < end; });
  }
  Status NativeShift(uint32_t begin, uint32_t end, int32_t delta) override {
    for (Native& n : native_) {
      if (n.position < begin || n.position >= end) continue;
      if (int64_t{n.position} + delta < 0) return Internal("toy model: shifted to a negative position");
      n.position = static_cast<uint32_t>(int64_t{n.position} + delta);
    }
    return OkStatus();
  }
  Result<std::string> NativeSave() override {
    // Only what a later token can see: what a cache holds beyond that depends on how the passes were cut.
    std::string bytes;
    for (const Native& n : native_) {
      if (n.position + info_.native_window < native_.back().position + 1) continue;
      bytes.append(reinterpret_cast<const char*>(&n), sizeof n);
    }
    return bytes;
  }
  Status NativeRestore(std::string_view bytes) override {
    if (bytes.size() % sizeof(Native) != 0) return DataLoss("toy model: saved native state does not fit");
    native_.resize(bytes.size() / sizeof(Native));
    if (!bytes.empty()) std::memcpy(native_.data(), bytes.data(), bytes.size());
    return OkStatus();
  }

  std::unique_ptr<TokenSampler> NewSampler(const SamplerOptions&) const override { return std::make_unique<Sampler>(*this); }

  void Parallel(size_t count, const std::function<void(size_t)>& fn) override {
    std::atomic<size_t> next{0};
    OnWorkers(options_.workers, [&](uint32_t) {
      for (size_t i = next++; i < count; i = next++) fn(i);
    });
  }

  // The whole vocabulary's texts, as LexicalVocabulary wants them.
  const std::vector<std::string>& pieces() const { return pieces_; }
  uint32_t native_position_max() const { return native_position_max_; }
  uint64_t forward_count() const { return forward_count_; }
  // Of ForwardEach: how often, and the most texts at once.
  uint64_t each_count() const { return each_count_; }
  size_t each_texts_max() const { return each_texts_max_; }

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

  const float* Embedding(TokenId token) const { return embeddings_.data() + static_cast<size_t>(token) * width_; }
  void Normalise(const float* in, float* out) const {
    float squares = 0;
    for (size_t c = 0; c < width_; ++c) squares += in[c] * in[c];
    const float factor = 1.0f / std::sqrt(squares / static_cast<float>(width_) + 1e-6f);
    for (size_t c = 0; c < width_; ++c) out[c] = in[c] * factor;
  }

  ToyOptions options_;
  ModelInfo info_;
  std::vector<std::string> pieces_;
  size_t width_ = 0;  // of the hidden state; q_heads * head_dim
  std::vector<float> embeddings_;  // [vocabulary, width]
  std::vector<Layer> layers_;
  std::vector<float> logits_;
  std::vector<float> hidden_;      // [tokens, width] of the last pass that gave logits, normalised
  std::vector<Native> native_;  // of the text in use, ascending by position
  std::map<uint32_t, std::vector<Native>> natives_;  // of the others
  uint32_t text_ = 0;
  uint32_t native_position_max_ = 0;
  uint64_t forward_count_ = 0, each_count_ = 0;
  size_t each_texts_max_ = 0;
};

}  // namespace longhold
