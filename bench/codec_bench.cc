// Measures block codecs on real keys: bytes per token, time, and the change of the next-token loss.
//
//   codec_bench GGUF TEXT TOKENS [KEY_STEP,VALUE_STEP | archive,STEP]...
//
// Reads the first TOKENS tokens of TEXT, 64 at a time, with all tokens in the softmax. Then it
// measures the loss of each piece of 64 tokens for each codec: the keys and values before the piece
// are encoded and decoded by the codec. They come from the exact run, as in a memory, where
// recalled keys were computed from the exact window.
//
// It measures all named codecs, rounding codecs with the given steps, and transform codecs with the
// given step. The basis of a transform codec is learned from the next 4,096 tokens of TEXT. The
// interval is the 95 % bootstrap interval of the mean difference to 16 bits over pieces.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "attention/kernels.h"
#include "memory/attend/hot_window.h"
#include "memory/attend/working_set.h"
#include "memory/recall/query_likelihood.h"
#include "model/llama_host.h"
#include "store/block_codec.h"
#include "store/transform_codec.h"

using namespace longhold;

namespace {

using Clock = std::chrono::steady_clock;

int Fail(const Status& status) {
  std::fprintf(stderr, "codec_bench: %s\n", status.message().c_str());
  return 1;
}

// Attends through a working set and records the keys and values of a pass as a block.
class Recorder final : public LayerAttention {
 public:
  explicit Recorder(WorkingSet& set) : set_(set) {
    const KvGeometry& g = set.geometry();
    block_ = KvBlock::Empty({static_cast<uint32_t>(g.layers.size()), g.kv_width()});
    block_.tokens = kBlockTokens;
  }
  const KvBlock& block() const { return block_; }

  void StoreKeys(uint32_t slot, LayerRows keys, uint32_t tokens, uint32_t worker,
                 uint32_t workers) override {
    Keep(block_.Keys(slot), keys, tokens, worker, workers);
    set_.StoreKeys(slot, keys, tokens, worker, workers);
  }
  void StoreValues(uint32_t slot, LayerRows values, uint32_t tokens, uint32_t worker,
                   uint32_t workers) override {
    Keep(block_.Values(slot), values, tokens, worker, workers);
    set_.StoreValues(slot, values, tokens, worker, workers);
  }
  void Attend(uint32_t slot, LayerRows queries, uint32_t tokens, float* out, uint32_t worker,
              uint32_t workers) override {
    set_.Attend(slot, queries, tokens, out, worker, workers);
  }

 private:
  void Keep(uint16_t* rows, LayerRows from, uint32_t tokens, uint32_t worker,
            uint32_t workers) const {
    const uint32_t width = block_.shape.kv_width;
    for (uint32_t t = worker; t < tokens; t += workers) {
      Kernels().float_to_half(from.data + t * from.token_stride, rows + size_t{t} * width, width);
    }
  }

  WorkingSet& set_;
  KvBlock block_;
};

struct Candidate {
  std::unique_ptr<const BlockCodec> owned;
  const BlockCodec* codec = nullptr;
  std::string name;
  float share = 0;  // step of a transform codec, whose basis LearnBases learns; else 0
  std::vector<std::unique_ptr<WorkingSet>> set;  // one element
  uint64_t bytes = 0;
  double encode_ms = 0, decode_ms = 0;
  std::vector<double> loss;  // [pieces] mean nats per token
};

double Mean(const std::vector<double>& x) {
  double sum = 0;
  for (const double v : x) sum += v;
  return sum / static_cast<double>(x.size());
}

constexpr size_t kLearnedTokens = TransformBasis::kFitBlocks * kBlockTokens;

void Multiply(const float* a, const float* b, float* out, uint32_t rows, uint32_t depth,
              uint32_t columns) {
  Kernels().multiply_add(
      {.a = a, .b = b, .out = out, .rows = rows, .depth = depth, .columns = columns});
}

// The blocks of a text, as an ingest computes them.
Result<std::vector<KvBlock>> Read(LanguageModel& model, std::span<const TokenId> text) {
  const KvGeometry& g = model.info().geometry;
  constexpr uint32_t kPass = 512;
  HotWindow window(g, {.pass_tokens = kPass});
  std::vector<KvBlock> blocks;
  model.NativeForget(0, UINT32_MAX);
  for (uint32_t at = 0; at + kPass <= text.size(); at += kPass) {
    window.BeginPass(kPass);
    LH_RETURN_IF_ERROR(model.Forward(text.subspan(at, kPass), at, &window, false));
    window.EndPass();
    for (uint32_t row = 0; row < kPass; row += kBlockTokens) {
      KvBlock& block = blocks.emplace_back(
          KvBlock::Empty({static_cast<uint32_t>(g.layers.size()), g.kv_width()}));
      block.tokens = kBlockTokens;
      for (uint32_t slot = 0; slot < g.layers.size(); ++slot) {
        const size_t begin = size_t{row} * g.kv_width(),
                     numbers = size_t{kBlockTokens} * g.kv_width();
        std::copy_n(window.PassKeys(slot) + begin, numbers, block.Keys(slot));
        std::copy_n(window.PassValues(slot) + begin, numbers, block.Values(slot));
      }
    }
  }
  blocks.erase(blocks.begin());  // the block of the sinks
  return blocks;
}

Status LearnBases(LanguageModel& model, std::span<const TokenId> text,
                  std::vector<Candidate>& candidates) {
  LH_ASSIGN_OR_RETURN(const std::vector<KvBlock> blocks, Read(model, text));
  for (Candidate& c : candidates) {
    if (c.share == 0) continue;
    const Clock::time_point begin = Clock::now();
    LH_ASSIGN_OR_RETURN(TransformBasis basis, TransformBasis::Fit(blocks, c.share, Multiply));
    uint64_t components = 0;
    for (const TransformBasis::Group& g : basis.groups()) components += g.components;
    std::fprintf(stderr, "%s: basis of %zu bytes, %llu components, learned in %.1f s\n",
                 c.name.c_str(), basis.Encode().size(), static_cast<unsigned long long>(components),
                 std::chrono::duration<double>(Clock::now() - begin).count());
    c.owned = NewTransformCodec(c.name, std::make_shared<const TransformBasis>(std::move(basis)),
                                Multiply);
    c.codec = c.owned.get();
  }
  return OkStatus();
}

int Run(LanguageModel& model, std::span<const TokenId> text, std::vector<Candidate>& candidates) {
  const KvGeometry& g = model.info().geometry;
  const auto capacity = static_cast<uint32_t>(text.size() + 2 * kBlockTokens);
  WorkingSet exact(g, capacity);
  Recorder recorder(exact);
  for (Candidate& c : candidates) c.set.push_back(std::make_unique<WorkingSet>(g, capacity));
  model.NativeForget(0, UINT32_MAX);
  const size_t pieces = text.size() / kBlockTokens;
  // The loss is measured from this token of a piece on.
  const size_t judged =
      std::max<size_t>(1, kBlockTokens - std::min(kBlockTokens, model.scored_tokens_max()));
  for (size_t piece = 0; piece < pieces; ++piece) {
    const auto tokens = text.subspan(piece * kBlockTokens, kBlockTokens);
    const auto position = static_cast<uint32_t>(piece * kBlockTokens);
    // The first piece has no tokens before it, so it does not depend on the codec.
    for (Candidate& c : candidates) {
      if (piece == 0) break;
      const uint32_t size = c.set[0]->size();
      const Result<std::vector<std::vector<float>>> logs =
          QuestionLikelihoods(model, c.set, tokens, judged, position);
      if (!logs.ok()) return Fail(logs.status());
      c.set[0]->Truncate(size);
      double sum = 0;
      for (const float l : (*logs)[0]) sum -= l;
      c.loss.push_back(sum / static_cast<double>((*logs)[0].size()));
    }
    exact.BeginPass(kBlockTokens);
    if (const Status s = model.Forward(tokens, position, &recorder, false); !s.ok()) return Fail(s);
    for (Candidate& c : candidates) {
      // Every memory stores the sinks exactly.
      const BlockCodec& codec = piece == 0 ? ExactCodec() : *c.codec;
      const Clock::time_point begin = Clock::now();
      const std::string bytes = codec.Encode(recorder.block());
      const Clock::time_point encoded = Clock::now();
      const Result<KvBlock> block = codec.Decode(bytes, recorder.block().shape);
      const Clock::time_point decoded = Clock::now();
      if (!block.ok()) return Fail(block.status());
      c.set[0]->AppendBlock(*block, 0, kBlockTokens, 0);
      if (piece == 0) continue;
      c.bytes += bytes.size();
      c.encode_ms += std::chrono::duration<double, std::milli>(encoded - begin).count();
      c.decode_ms += std::chrono::duration<double, std::milli>(decoded - encoded).count();
    }
    if (piece % 16 == 15)
      std::fprintf(stderr, "%zu of %zu tokens\n", (piece + 1) * kBlockTokens,
                   pieces * kBlockTokens);
  }
  const auto blocks = static_cast<double>(pieces - 1);
  std::printf(
      "| codec | bytes per token | of 16 bits | encode, ms per block | decode | loss, nats per "
      "token | change, %% |\n|---|---|---|---|---|---|---|\n");
  std::mt19937 random(1);
  for (const Candidate& c : candidates) {
    std::vector<double> change;
    for (size_t i = 0; i < c.loss.size(); ++i) change.push_back(c.loss[i] - candidates[0].loss[i]);
    std::vector<double> means;
    for (int i = 0; i < 2000; ++i) {
      double sum = 0;
      for (size_t j = 0; j < change.size(); ++j) sum += change[random() % change.size()];
      means.push_back(sum / static_cast<double>(change.size()));
    }
    std::sort(means.begin(), means.end());
    const double base = Mean(candidates[0].loss), percent = 100 / base;
    std::printf("| %s | %.0f | %.1f %% | %.2f | %.2f | %.4f | %+.3f (%+.3f to %+.3f) |\n",
                c.name.c_str(), static_cast<double>(c.bytes) / blocks / kBlockTokens,
                100.0 * static_cast<double>(c.bytes) / static_cast<double>(candidates[0].bytes),
                c.encode_ms / blocks, c.decode_ms / blocks, Mean(c.loss), Mean(change) * percent,
                means[50] * percent, means[1949] * percent);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr,
                 "usage: codec_bench GGUF TEXT TOKENS [KEY_STEP,VALUE_STEP | archive,STEP]...\n");
    return 2;
  }
  std::vector<Candidate> candidates;
  for (const std::string_view name : CodecNames()) {
    Candidate& c = candidates.emplace_back();
    c.name = name;
    c.codec = FindCodec(name);
    if (c.codec == nullptr) c.share = kArchiveStep;
  }
  for (int i = 4; i < argc; ++i) {
    Candidate& c = candidates.emplace_back();
    c.name = argv[i];
    RoundedCodecOptions options;
    if (std::sscanf(argv[i], "archive,%f", &c.share) == 1 && c.share > 0) continue;
    if (std::sscanf(argv[i], "%f,%f", &options.key_step, &options.value_step) != 2 ||
        !(options.key_step > 0) || !(options.value_step > 0)) {
      return Fail(
          InvalidArgument(c.name + ": give two steps, as in 0.1,0.25, or one, as in archive,0.7"));
    }
    c.owned = NewRoundedCodec(c.name, options);
    c.codec = c.owned.get();
  }
  LlamaOptions llama;
  llama.path = argv[1];

  const auto model = LoadLlama(llama);
  if (!model.ok()) return Fail(model.status());
  std::ifstream file(argv[2], std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  Result<std::vector<TokenId>> tokens = (*model)->Tokenize(text.str(), false);
  if (!tokens.ok()) return Fail(tokens.status());
  if ((*model)->Bos() >= 0) tokens->insert(tokens->begin(), (*model)->Bos());
  const size_t count = std::strtoul(argv[3], nullptr, 10) / kBlockTokens * kBlockTokens;
  if (count < 2 * kBlockTokens || tokens->size() < count) {
    return Fail(InvalidArgument("the text has " + std::to_string(tokens->size()) +
                                " tokens; give a number from 128 to that"));
  }
  if (tokens->size() < count + kLearnedTokens)
    return Fail(InvalidArgument("the text needs 4,096 more tokens after those, to learn a basis"));
  const Status learned =
      LearnBases(**model, std::span(*tokens).subspan(count, kLearnedTokens), candidates);
  if (!learned.ok()) return Fail(learned);
  return Run(**model, std::span(*tokens).first(count), candidates);
}
