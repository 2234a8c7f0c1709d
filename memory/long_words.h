// Keeps numbers, identifiers and names whole: what an answer has begun to copy from a line read again it copies to the word's end.
//
// A small model loses digits or takes some from a neighbour while it copies (docs/decisions/0013). Nothing else of the answer is touched:
// which word comes, and whether one comes at all, is the model's choice.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace longhold {

// Words of many tokens, as they stand in the lines that are read again. Confined.
class LongWords {
 public:
  // `pieces` are the texts of the line's `tokens`.
  void Add(std::span<const TokenId> tokens, std::span<const std::string> pieces);

  // Whether the word at the end of `answer` has begun like one of these by two tokens or more. `*favoured` are then the `logits` with
  // those of the tokens that go on with it raised; else it is left as it is, since few tokens are within such a word and a vocabulary
  // is large. Words that the answer holds already are not written again by this.
  bool Favour(std::string_view answer, std::span<const float> logits, std::vector<float>* favoured) const;

 private:
  struct Next {
    size_t offset = 0;  // bytes of the word before the token
    TokenId token = 0;
  };
  struct Word {
    std::string text;
    std::vector<Next> next;  // from the third token on
  };
  std::vector<Word> words_;
};

}  // namespace longhold
