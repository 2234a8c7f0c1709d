#include "tests/support/toy_model.h"

#include <atomic>
#include <barrier>
#include <cmath>
#include <cstring>
#include <random>
#include <utility>

#include "attention/side_by_side.h"

namespace longhold {
namespace {

// out = m * in, or out += m * in. m: [rows, columns]. This takes nearly all of the toy's time and
// runs on one thread between barriers, so the sanitizers skip it.
__attribute__((no_sanitize("address", "thread", "undefined"))) void Product(
    const float* m, const float* in, size_t rows, size_t columns, bool add, float* out) {
  for (size_t r = 0; r < rows; ++r) {
    float sum = 0;
    for (size_t c = 0; c < columns; ++c) sum += m[r * columns + c] * in[c];
    out[r] = add ? out[r] + sum : sum;
  }
}

}  // namespace

KvGeometry TinyGeometry() {
  KvGeometry g;
  g.layers = {0, 2};
  g.q_heads = 2;
  g.kv_heads = 1;
  g.head_dim = 4;
  g.scale = 0.5f;
  g.rope = {RopeSpec{.rotary_dims = 4},
            RopeSpec{.neox = true, .rotary_dims = 4, .freq_base = 100.0f}};
  return g;
}

ToyModel::ToyModel(ToyOptions options) : options_(std::move(options)) {
  for (int b = 0; b < 256; ++b) pieces_.emplace_back(1, static_cast<char>(b));
  pieces_.emplace_back();
  pieces_.emplace_back();
  for (const char* piece : {" the", " and", " of", "\n\n", " key", " is", "é", "日本", ". ", " a",
                            "ing", " number", "\nThe", "   "}) {
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

Result<std::vector<TokenId>> ToyModel::Tokenize(std::string_view original, bool special) const {
  std::string rewritten(options_.space_prefix ? " " : "");
  rewritten += original;
  for (size_t at; options_.compose && (at = rewritten.find("e\u0301")) != std::string::npos;)
    rewritten.replace(at, 3, "é");
  const std::string_view text(rewritten);
  std::vector<TokenId> tokens;
  for (size_t at = 0; at < text.size();) {
    if (options_.collapse_spaces && text[at] == ' ' && at + 1 < text.size() &&
        text[at + 1] == ' ') {
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
      if (pieces_[i].size() > pieces_[static_cast<size_t>(best)].size() &&
          text.substr(at).starts_with(pieces_[i])) {
        best = static_cast<TokenId>(i);
      }
    }
    tokens.push_back(best);
    at += pieces_[static_cast<size_t>(best)].size();
  }
  return tokens;
}

Result<PromptParts> ToyModel::Format(std::string_view system, std::span<const ChatTurn> earlier,
                                     std::string_view question) const {
  PromptParts parts;
  if (options_.bos) parts.head.push_back({.text = "<s>", .special = true});
  if (!system.empty()) parts.head.push_back({.text = std::string(system) + "\n", .special = false});
  for (const ChatTurn& turn : earlier)
    parts.head.push_back(
        {.text = (turn.by_user ? "Question: " : "Answer: ") + turn.text + "\n", .special = false});
  parts.tail = "Question: ";
  parts.question_begin = parts.tail.size();
  parts.tail += question;
  parts.question_end = parts.tail.size();
  parts.tail += "\nAnswer:";
  return parts;
}

Status ToyModel::Forward(std::span<const TokenId> tokens, uint32_t position,
                         LayerAttention* attention, bool want_logits) {
  if (tokens.empty() || tokens.size() > options_.batch_tokens)
    return Internal("toy model: batch size");
  ++forward_count_;
  native_position_max_ =
      std::max(native_position_max_, position + static_cast<uint32_t>(tokens.size()) - 1);
  // As in an engine's cache: tokens outside the window are evicted, and each position is used once
  // only.
  std::erase_if(native_,
                [&](const Native& n) { return n.position + info_.native_window < position; });
  for (const Native& n : native_) {
    if (n.position >= position)
      return Internal("toy model: native position " + std::to_string(n.position) + " is taken");
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
  const uint32_t workers = options_.workers, n = static_cast<uint32_t>(count);
  std::barrier barrier(static_cast<ptrdiff_t>(workers));
  OnWorkers(workers, [&](uint32_t w) {
    for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
      if (w == 0) {
        std::vector<float> normed(width_);
        for (size_t t = 0; t < count; ++t) {
          Normalise(x.data() + t * width_, normed.data());
          Product(layers_[slot].qkv.data(), normed.data(), fused, width_, false,
                  qkv.data() + t * fused);
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
        for (size_t t = 0; t < count; ++t)
          Product(layers_[slot].out.data(), attended.data() + t * width_, width_, width_, true,
                  x.data() + t * width_);
      }
    }
  });
  if (want_logits) {
    hidden_.resize(count * width_);
    for (size_t t = 0; t < count; ++t)
      Normalise(x.data() + t * width_, hidden_.data() + t * width_);
    std::vector<float> normed(width_);
    Normalise(x.data() + (count - 1) * width_, normed.data());
    logits_.assign(pieces_.size(), 0.0f);
    Product(embeddings_.data(), normed.data(), pieces_.size(), width_, false, logits_.data());
  }
  return OkStatus();
}

Result<std::vector<std::vector<float>>> ToyModel::Score(std::span<const Branch> branches,
                                                        uint32_t position,
                                                        LayerAttention* attention) {
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
      Product(embeddings_.data(), hidden_.data() + row * width_, pieces_.size(), width_, false,
              logits.data());
      double sum = 0;
      for (float l : logits) sum += std::exp(l);
      logs.back().push_back(logits[static_cast<size_t>(b.tokens[i + 1])] -
                            static_cast<float>(std::log(sum)));
    }
  }
  return logs;
}

Status ToyModel::ForwardEach(std::span<const NextToken> next) {
  ++each_count_;
  each_sequences_max_ = std::max(each_sequences_max_, next.size());
  const std::vector<float> before = logits_;
  if (info_.native_window > 0) {
    // One after the other: sequences with native layers share no pass.
    for (const NextToken& token : next) {
      const uint32_t in_use = sequence_;
      UseSequence(token.sequence);
      const Status status = Forward({&token.token, 1}, token.position, token.attention, true);
      UseSequence(in_use);
      LH_RETURN_IF_ERROR(status);
      *token.logits = logits_;
    }
    logits_ = before;
    return OkStatus();
  }
  std::vector<TokenId> tokens;
  std::vector<LayerAttention*> each;
  for (const NextToken& token : next) {
    tokens.push_back(token.token);
    each.push_back(token.attention);
  }
  SideBySide attention(each, width_);
  LH_RETURN_IF_ERROR(Forward(tokens, 0, &attention, true));
  for (size_t i = 0; i < next.size(); ++i) {
    next[i].logits->assign(pieces_.size(), 0.0f);
    Product(embeddings_.data(), hidden_.data() + i * width_, pieces_.size(), width_, false,
            next[i].logits->data());
  }
  logits_ = before;
  return OkStatus();
}

void ToyModel::UseSequence(uint32_t sequence) {
  if (info_.native_window == 0 || sequence == sequence_) return;
  natives_[sequence_] = native_;
  native_ = natives_[sequence];
  sequence_ = sequence;
}

Status ToyModel::NativeShift(uint32_t begin, uint32_t end, int32_t delta) {
  for (Native& n : native_) {
    if (n.position < begin || n.position >= end) continue;
    if (int64_t{n.position} + delta < 0)
      return Internal("toy model: shifted to a negative position");
    n.position = static_cast<uint32_t>(int64_t{n.position} + delta);
  }
  return OkStatus();
}

Result<std::string> ToyModel::NativeSave() {
  // Only what a later token can attend to. What else a cache holds depends on how the passes were
  // cut.
  std::string bytes;
  for (const Native& n : native_) {
    if (n.position + info_.native_window < native_.back().position + 1) continue;
    bytes.append(reinterpret_cast<const char*>(&n), sizeof n);
  }
  return bytes;
}

Status ToyModel::NativeRestore(std::string_view bytes) {
  if (bytes.size() % sizeof(Native) != 0)
    return DataLoss("toy model: saved native state does not fit");
  native_.resize(bytes.size() / sizeof(Native));
  if (!bytes.empty()) std::memcpy(native_.data(), bytes.data(), bytes.size());
  return OkStatus();
}

void ToyModel::Parallel(size_t count, const std::function<void(size_t)>& fn) {
  std::atomic<size_t> next{0};
  OnWorkers(options_.workers, [&](uint32_t) {
    for (size_t i = next++; i < count; i = next++) fn(i);
  });
}

void ToyModel::Normalise(const float* in, float* out) const {
  float squares = 0;
  for (size_t c = 0; c < width_; ++c) squares += in[c] * in[c];
  const float factor = 1.0f / std::sqrt(squares / static_cast<float>(width_) + 1e-6f);
  for (size_t c = 0; c < width_; ++c) out[c] = in[c] * factor;
}

}  // namespace longhold
