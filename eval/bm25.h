// BM25 over passages: the retrieval baseline that needs no model.
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

// Porter's stemmer (Porter 1980, "An algorithm for suffix stripping") for lower-case ASCII words.
// Words of fewer than three letters, or with other characters, are returned unchanged.
std::string PorterStem(std::string_view word);
// Whether `word`, in lower case, is an English function word. The search ignores these.
bool IsStopWord(std::string_view word);
// The search terms of a text: maximal runs of ASCII letters, digits and bytes above 127. ASCII
// letters become lower case, stop words are dropped, and the rest is stemmed.
std::vector<std::string> SearchWords(std::string_view text);

// Parameters of BM25 and of the passages. Value type.
struct Bm25Options {
  double k1 = 1.2;
  double b = 0.75;
  PassageOptions passages;
};

// Okapi BM25 (Robertson and Zaragoza 2009), with the idf variant that is never negative:
//   score(p) = sum over the distinct words of the question of idf * tf (k1 + 1) / (tf + k1 * norm)
//   idf      = ln(1 + (N - df + 1/2) / (df + 1/2))
//   norm     = 1 - b + b |p| / mean |p|
// N is the number of passages, df the number of passages with the word, and tf its count in p. |p|
// is the number of terms that SearchWords returns for p. Passages without a word of the question
// are not returned. Of equal scores the earlier passage comes first.
class Bm25Retriever final : public Retriever {
 public:
  Bm25Retriever(std::string_view text, const Bm25Options& options);
  // For passages that the caller has cut.
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
  std::vector<uint32_t> words_;  // [passages] number of terms
  double words_mean_ = 0;
  std::unordered_map<std::string, std::vector<Posting>> postings_;  // each ascending by passage
};

}  // namespace longhold
