// Measures how close a block that is read out of order comes to the same block read in order, by
// the length of its run-up.
//
//   run_up_bench GGUF TEXT TOKENS PLACES
//
// Reads the first TOKENS tokens of TEXT from the start. Then, for PLACES blocks, has UnreadBlocks
// read the block with run-ups of 0 to 1,024 tokens, and compares
//   keys, values    |provisional - canonical| / |canonical|, of all elements of a layer; the mean
//                   over layers
//   loss            of the 32 tokens behind the block, in nats a token, after the sinks and the
//                   block; less the loss after the canonical block. The row "none" has no block.
// with the 95 % bootstrap interval of the mean over places.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "attention/kernels.h"
#include "memory/ingest/ingest.h"
#include "memory/recall/query_likelihood.h"
#include "memory/recall/unread_blocks.h"
#include "memory/text/vocabulary.h"
#include "model/llama_host.h"
#include "store/mem_store.h"

using namespace longhold;

namespace {

constexpr uint32_t kRunUps[] = {0, 64, 128, 256, 512, 1024};
constexpr uint32_t kScoredTokens = 32;

// The differences of one run-up, a value for each place.
struct Differences {
  std::vector<double> keys, values, loss;
};

std::vector<float> Floats(const uint16_t* fp16, size_t count) {
  std::vector<float> floats(count);
  Kernels().half_to_float(fp16, floats.data(), count);
  return floats;
}

double Difference(const uint16_t* a, const uint16_t* b, size_t count) {
  const std::vector<float> x = Floats(a, count), y = Floats(b, count);
  double different = 0, all = 0;
  for (size_t i = 0; i < count; ++i) {
    different += (x[i] - y[i]) * (x[i] - y[i]);
    all += y[i] * y[i];
  }
  return std::sqrt(different / all);
}

std::string Interval(const std::vector<double>& values) {
  std::mt19937 random(1);
  std::vector<double> means;
  for (int i = 0; i < 1000; ++i) {
    double sum = 0;
    for (size_t j = 0; j < values.size(); ++j) sum += values[random() % values.size()];
    means.push_back(sum / static_cast<double>(values.size()));
  }
  std::sort(means.begin(), means.end());
  double sum = 0;
  for (const double v : values) sum += v;
  char text[64];
  std::snprintf(text, sizeof text, "%6.3f [%6.3f, %6.3f]", sum / static_cast<double>(values.size()),
                means[25], means[974]);
  return text;
}

class Bench {
 public:
  explicit Bench(LanguageModel& model) : model_(model), vocabulary_(TokenPieces(model)) {}

  Status Run(const std::string& text, uint64_t tokens, int places) {
    RecallProfile profile = RecallProfile::For(model_.info());
    LH_ASSIGN_OR_RETURN(read_, Memory::Create(NewMemStore(), "read", model_.info(), profile));
    LH_ASSIGN_OR_RETURN(unread_, Memory::Create(NewMemStore(), "unread", model_.info(), profile,
                                                ExactCodec().name()));
    IngestInput input{.name = "text", .text = text};
    LH_RETURN_IF_ERROR(
        IndexDocument(model_, *unread_, vocabulary_, input, nullptr, nullptr).status());
    // From the start, as far as is needed.
    std::atomic<bool> stop = false;
    LH_RETURN_IF_ERROR(
        IngestDocument(model_, *read_, vocabulary_, input, &stop, [&](const IngestProgress& p) {
          stop = p.step == IngestStep::kReading && p.tokens_done >= tokens;
        }).status());
    document_ = read_->documents().front().id;
    tokens = read_->documents().front().committed_tokens;
    std::mt19937 random(7);
    const auto blocks = static_cast<uint32_t>(tokens / kBlockTokens);
    for (int i = 0; i < places; ++i) {
      const uint32_t first = 1024 / kBlockTokens + 2;
      LH_RETURN_IF_ERROR(Compare(first + static_cast<uint32_t>(random() % (blocks - first - 1))));
      std::fprintf(stderr, "\r%d of %d places", i + 1, places);
    }
    std::printf("\n%-8s %-24s %-24s %-24s\n", "run-up", "keys", "values", "loss");
    for (const auto& [run_up, d] : differences_) {
      std::printf("%-8s %-24s %-24s %-24s\n", std::to_string(run_up).c_str(),
                  Interval(d.keys).c_str(), Interval(d.values).c_str(), Interval(d.loss).c_str());
    }
    std::printf("%-8s %-24s %-24s %-24s\n", "none", "", "", Interval(none_).c_str());
    return OkStatus();
  }

 private:
  Status Compare(uint32_t b) {
    LH_ASSIGN_OR_RETURN(const KvBlock canonical, read_->LoadBlock({document_, b}));
    LH_ASSIGN_OR_RETURN(const double best, Loss(b, &canonical));
    LH_ASSIGN_OR_RETURN(const double without, Loss(b, nullptr));
    none_.push_back(without - best);
    for (const uint32_t run_up : kRunUps) {
      // A fresh reader and a store that keeps nothing: each run-up is read anew.
      MemoryBudget budget(1ull << 32);
      LH_ASSIGN_OR_RETURN(std::unique_ptr<Memory> memory, Memory::Open(Copy(), "unread", nullptr));
      UnreadBlocks blocks(&model_, memory.get(), &budget, run_up);
      const NeededRows needed{{document_, b}, 0, kBlockTokens};
      LH_ASSIGN_OR_RETURN(const auto read, blocks.Load({&needed, 1}));
      const KvBlock& block = read.at(needed.key);
      const size_t elements = size_t{kBlockTokens} * block.shape.kv_width;
      double keys = 0, values = 0;
      for (uint32_t slot = 0; slot < block.shape.layers; ++slot) {
        keys += Difference(block.Keys(slot), canonical.Keys(slot), elements);
        values += Difference(block.Values(slot), canonical.Values(slot), elements);
      }
      LH_ASSIGN_OR_RETURN(const double loss, Loss(b, &block));
      Differences& d = differences_[run_up];
      d.keys.push_back(keys / block.shape.layers);
      d.values.push_back(values / block.shape.layers);
      d.loss.push_back(loss - best);
    }
    return OkStatus();
  }

  // The unread memory's text in a store of its own.
  std::unique_ptr<ColdStore> Copy() {
    std::unique_ptr<ColdStore> copy = NewMemStore();
    for (const Table table : {Table::kMeta, Table::kText}) {
      WriteBatch batch;
      (void)unread_->store().Scan(table, "", "\xff\xff\xff\xff\xff\xff",
                                  [&](std::string_view key, std::string_view value) {
                                    batch.Put(table, std::string(key), std::string(value));
                                    return true;
                                  });
      (void)copy->Write(std::move(batch), Durability::kBuffered);
    }
    return copy;
  }

  // Of the tokens behind block `b`, after the sinks and `block`, which may be null.
  Result<double> Loss(uint32_t b, const KvBlock* block) {
    const uint32_t sinks = read_->manifest().sink_tokens;
    std::vector<std::unique_ptr<WorkingSet>> sets;
    sets.push_back(std::make_unique<WorkingSet>(model_.info().geometry,
                                                sinks + 2 * kBlockTokens + kScoredTokens));
    for (uint32_t s = 0; s < sinks / kBlockTokens; ++s) {
      LH_ASSIGN_OR_RETURN(const KvBlock sink, read_->LoadBlock({document_, s}));
      sets[0]->AppendBlock(sink, 0, kBlockTokens, 0);
    }
    if (block != nullptr) sets[0]->AppendBlock(*block, 0, kBlockTokens, 0);
    const uint64_t end = uint64_t{b + 1} * kBlockTokens;
    LH_ASSIGN_OR_RETURN(const std::vector<TokenId> behind,
                        read_->Tokens(document_, {end - 1, end + kScoredTokens}));
    LH_ASSIGN_OR_RETURN(const auto logs, QuestionLikelihoods(model_, sets, behind, 1, 0));
    double sum = 0;
    for (const float log : logs[0]) sum -= log;
    return sum / static_cast<double>(logs[0].size());
  }

  LanguageModel& model_;
  const LexicalVocabulary vocabulary_;
  std::unique_ptr<Memory> read_, unread_;
  DocumentId document_{};
  std::map<uint32_t, Differences> differences_;  // by run-up
  std::vector<double> none_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: run_up_bench GGUF TEXT TOKENS PLACES\n");
    return 2;
  }
  std::stringstream text;
  text << std::ifstream(argv[2]).rdbuf();
  Result<std::unique_ptr<LanguageModel>> model = LoadLlama({.path = argv[1], .threads = 2});
  Status status = model.status();
  if (status.ok())
    status = Bench(**model).Run(text.str(), std::strtoull(argv[3], nullptr, 10),
                                static_cast<int>(std::strtol(argv[4], nullptr, 10)));
  if (!status.ok()) std::fprintf(stderr, "run_up_bench: %s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
