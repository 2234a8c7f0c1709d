// Ranks passages by their words: the retrieval baseline without a model.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "eval/passages.h"
#include "eval/retriever.h"

namespace longhold {

// Porter's stemmer (Porter 1980, "An algorithm for suffix stripping"), for lower-case ASCII words;
// shorter than three letters or with other characters they stay as they are.
std::string PorterStem(std::string_view word);
// English function words that are not searched for. `word` in lower case.
bool IsStopWord(std::string_view word);
// Runs of ASCII letters and digits and of other bytes above 127, ASCII in lower case, without stop
// words, stemmed.
std::vector<std::string> SearchWords(std::string_view text);

struct Bm25Options {
  double k1 = 1.2;
  double b = 0.75;
  PassageOptions passages;
};

// Okapi BM25 (Robertson and Zaragoza 2009), with the idf that stays positive:
//   score(p) = sum over the question's distinct words w of
//              ln(1 + (N - df + 1/2) / (df + 1/2)) * tf (k1 + 1) / (tf + k1 (1 - b + b |p| / mean
//              |p|))
// |p| in words as SearchWords gives them. Passages without any word of the question are not
// returned; of equal ones the earlier is first.
class Bm25Retriever final : public Retriever {
 public:
  Bm25Retriever(std::string_view text, const Bm25Options& options);
  // Over passages that the caller cut.
  Bm25Retriever(std::string_view text, std::vector<ByteSpan> passages, const Bm25Options& options);

  Result<std::vector<Passage>> Retrieve(std::string_view question, size_t count) override;
  uint64_t ram_bytes() const override;

 private:
  struct Posting {
    uint32_t passage;
    uint32_t count;
  };
  Bm25Options options_;
  std::vector<ByteSpan> passages_;
  std::vector<uint32_t> words_;  // of each passage
  double words_mean_ = 0;
  std::unordered_map<std::string, std::vector<Posting>> postings_;  // by passage
};

}  // namespace longhold
