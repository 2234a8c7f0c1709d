// An embedding model for tests: a hashed bag of words, fully deterministic.
//
// Each concept has a direction whose components are +1 or -1, drawn from its hash and the model's
// fingerprint. A word is a concept of its own, in lower case and without a plural's "s", except for
// the synonyms below, which share one, and function words, which have none. A part's vector is the
// sum of its words' directions and 0.1 times those of its context, with length 1. So a sentence
// and its paraphrase have a cosine near 1. With 32 dimensions, two unrelated words have a cosine of
// 0 with a standard deviation of 0.18.
#pragma once

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "memory/model/text_embedder.h"

namespace longhold {

// Thread use: *confined*.
class ToyEmbedder final : public TextEmbedder {
 public:
  static constexpr uint32_t kDim = 32;

  explicit ToyEmbedder(uint64_t fingerprint = 1, uint32_t dim = kDim)
      : fingerprint_(fingerprint), dim_(dim) {}

  uint32_t dim() const override { return dim_; }
  uint64_t fingerprint() const override { return fingerprint_; }
  uint64_t cut_count() const override { return 0; }
  uint64_t token_count() const override { return token_count_; }

  Result<std::vector<float>> EmbedParts(std::span<const TextParts> texts) override {
    if (++call_count == fail_at_call || (failing_from_then_on && call_count > fail_at_call))
      return Internal("the toy embedder fails");
    std::vector<float> rows;
    for (const TextParts& text : texts) {
      Read& read = reads.emplace_back(Read{std::string(text.context), {}});
      for (const std::string_view part : text.parts) {
        read.parts.emplace_back(part);
        std::vector<float> row(dim_, 0.0f);
        token_count_ += AddWords(part, 1.0f, &row);
        AddWords(text.context, 0.1f, &row);
        Normalise(&row);
        rows.insert(rows.end(), row.begin(), row.end());
      }
    }
    return rows;
  }

  // A text as EmbedParts was given it.
  struct Read {
    std::string context;
    std::vector<std::string> parts;
  };
  std::vector<Read> reads;
  uint64_t call_count = 0;
  // The call of EmbedParts that returns internal, counted from 1; 0 for none.
  uint64_t fail_at_call = 0;
  bool failing_from_then_on = false;

 private:
  static std::string ConceptOf(std::string word) {
    static const std::set<std::string, std::less<>> kFunctionWords = {
        "a",    "an",  "and", "any", "are", "at",   "by",   "did",   "do",    "does", "for",
        "he",   "her", "his", "in",  "is",  "it",   "of",   "on",    "or",    "said", "she",
        "that", "the", "to",  "was", "we",  "what", "when", "where", "which", "who",  "with"};
    static const std::map<std::string, std::string, std::less<>> kSynonyms = {
        {"physician", "doctor"}, {"surgeon", "doctor"}, {"purchased", "buy"}, {"bought", "buy"},
        {"acquired", "buy"},     {"crimson", "red"},    {"scarlet", "red"},   {"automobile", "car"},
        {"vehicle", "car"},      {"autumn", "fall"},    {"wedding", "marry"}, {"married", "marry"},
        {"spouse", "wife"},      {"bride", "wife"},     {"vessel", "ship"},   {"boat", "ship"}};
    if (word.size() > 3 && word.back() == 's') word.pop_back();
    if (kFunctionWords.contains(word)) return "";
    const auto synonym = kSynonyms.find(word);
    return synonym == kSynonyms.end() ? word : synonym->second;
  }
  // Adds the words' directions to `row`, and returns how many words there are.
  uint64_t AddWords(std::string_view text, float weight, std::vector<float>* row) const {
    uint64_t words = 0;
    for (size_t at = 0; at < text.size();) {
      std::string word;
      for (; at < text.size() && Continues(text[at]); ++at)
        word += static_cast<char>(std::tolower(static_cast<unsigned char>(text[at])));
      if (word.empty()) {
        ++at;
        continue;
      }
      ++words;
      const std::string thing = ConceptOf(word);
      if (thing.empty()) continue;
      std::mt19937_64 rng(Hash64(thing) ^ fingerprint_);
      for (float& component : *row) component += (rng() & 1) == 0 ? weight : -weight;
    }
    return words;
  }
  static bool Continues(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || (c & 0x80) != 0;
  }
  // A text without words gets the first axis.
  static void Normalise(std::vector<float>* row) {
    double squares = 0;
    for (const float component : *row) squares += double{component} * component;
    if (squares == 0) {
      row->front() = 1;
      return;
    }
    for (float& component : *row) component = static_cast<float>(component / std::sqrt(squares));
  }

  const uint64_t fingerprint_;
  const uint32_t dim_;
  uint64_t token_count_ = 0;
};

}  // namespace longhold
