#include "eval/embed_retriever.h"

#include <faiss/IndexFlat.h>
#include <omp.h>

#include <algorithm>
#include <exception>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace longhold {
namespace {

constexpr size_t kBatchPassages = 64;

class EmbedRetriever final : public Retriever {
 public:
  EmbedRetriever(TextEmbedder& embedder, std::vector<ByteSpan> passages)
      : embedder_(embedder),
        passages_(std::move(passages)),
        index_(static_cast<faiss::Index::idx_t>(embedder.dim())) {}

  Status Fill(std::string_view text, const EmbedRetrieverOptions& options) {
    // Without this, growing the index would copy it and hold it twice.
    index_.codes.reserve(passages_.size() * index_.code_size);
    std::vector<std::string_view> batch;
    for (size_t begin = 0; begin < passages_.size(); begin += kBatchPassages) {
      if (options.stop != nullptr && *options.stop)
        return Cancelled("stopped while embedding passages");
      const size_t end = std::min(begin + kBatchPassages, passages_.size());
      batch.clear();
      for (size_t i = begin; i < end; ++i)
        batch.push_back(text.substr(passages_[i].begin, passages_[i].size()));
      LH_ASSIGN_OR_RETURN(const std::vector<float> rows, embedder_.EmbedAll(batch));
      index_.add(static_cast<faiss::Index::idx_t>(batch.size()), rows.data());
      if (options.on_progress) options.on_progress(end, passages_.size());
    }
    return OkStatus();
  }

  Result<std::vector<Passage>> Retrieve(std::string_view question, size_t count) override {
    LH_ASSIGN_OR_RETURN(const std::vector<float> query, embedder_.Embed(question));
    const size_t k = std::min(count, passages_.size());
    if (k == 0) return std::vector<Passage>();
    std::vector<float> scores(k);
    std::vector<faiss::Index::idx_t> ids(k);
    try {
      // One question is one scan. More OpenMP threads would only spin.
      omp_set_num_threads(1);
      index_.search(1, query.data(), static_cast<faiss::Index::idx_t>(k), scores.data(),
                    ids.data());
    } catch (const std::exception& error) {
      return Internal(std::string("search the embedding index: ") + error.what());
    }
    std::vector<Passage> found;
    for (size_t i = 0; i < k && ids[i] >= 0; ++i) {
      const ByteSpan span = passages_[static_cast<size_t>(ids[i])];
      found.push_back({.byte_begin = span.begin, .byte_end = span.end, .score = scores[i]});
    }
    return found;
  }

  uint64_t ram_bytes() const override {
    return index_.codes.capacity() + passages_.capacity() * sizeof(ByteSpan);
  }

 private:
  TextEmbedder& embedder_;
  const std::vector<ByteSpan> passages_;
  faiss::IndexFlatIP index_;
};

}  // namespace

Result<std::unique_ptr<Retriever>> BuildEmbedRetriever(std::string_view text,
                                                       TextEmbedder& embedder,
                                                       const EmbedRetrieverOptions& options) {
  std::vector<ByteSpan> passages = CutPassages(text, options.passages);
  if (passages.empty()) return InvalidArgument("embed passages: the text has no passages");
  const std::string what = std::to_string(passages.size()) + " passages";
  try {
    auto retriever = std::make_unique<EmbedRetriever>(embedder, std::move(passages));
    LH_RETURN_IF_ERROR(retriever->Fill(text, options));
    return std::unique_ptr<Retriever>(std::move(retriever));
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("embed " + what + ": no memory for their index");
  } catch (const std::exception& error) {
    return Internal("embed " + what + ": " + error.what());
  }
}

}  // namespace longhold
