// Keeps numbers, identifiers and names whole: what an answer has begun to copy from a line read
// again it copies to the word's end.
//
// A small model loses digits or takes some from a neighbour while it copies (docs/decisions/0013),
// and says a key again instead of what stands beside it (docs/decisions/0019). Nothing else of the
// answer is touched: which word comes, and whether one comes at all, is the model's choice.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace longhold {

// Words of many tokens, as they stand in the lines that are read again. Confined.
class CopyBias {
 public:
  // `said` stands right before the answer and belongs to it: the first words that the model was
  // given. What it holds is said already.
  explicit CopyBias(std::string_view said = {}) : said_(said) {}

  // `pieces` are the texts of the line's `tokens`.
  void Add(std::span<const TokenId> tokens, std::span<const std::string> pieces);

  // Whether something is to be changed for the token after `answer`; `*guided` are then the
  // `logits` with the change, else it is left as it is, since a vocabulary is large and most tokens
  // are neither within such a word nor at its beginning.
  //
  // Within a word that has begun like one of these by two tokens or more, the tokens that go on
  // with it are raised, the more of them have been copied the more. Where the answer begins, and
  // what was said before it names an identifier, those that stand in that one's lines are raised
  // from their first token on; an identifier has digits. Words that were said already are not
  // written again by this. Until the answer has one that was not, the tokens that begin what was
  // said before it are lowered.
  bool Guide(std::string_view answer, std::span<const float> logits,
             std::vector<float>* guided) const;

 private:
  struct Part {
    size_t offset = 0;  // bytes of the word before the token
    TokenId token = 0;
  };
  struct Word {
    std::string text;
    std::vector<Part> parts;
    bool after_blank = false;  // its first token holds the blank before it
    bool said = false;         // in said_
    bool beside_said = false;  // it has digits, and so has a said word of its line
  };
  std::string said_;
  std::vector<Word> words_;
};

}  // namespace longhold
