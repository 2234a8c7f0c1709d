// Helps the model to copy numbers, identifiers and names completely. Once an answer has begun to
// copy a word from a re-encoded line, the tokens that continue the word get a higher logit.
//
// While copying, a small model loses digits or takes some from a neighbouring word
// (docs/decisions/0013). It may also repeat the identifier of the question instead of the value
// next to it (docs/decisions/0019). CopyBias changes nothing else: the model chooses which words to
// write.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace longhold {

// The words of several tokens in the re-encoded lines. Confined.
class CopyBias {
 public:
  // `said` is the answer prefix that was given to the model. It stands right before the answer and
  // is part of it, so its words count as already written.
  explicit CopyBias(std::string_view said = {}) : said_(said) {}

  // Adds the words of one line. `pieces` are the texts of its `tokens`.
  void Add(std::span<const TokenId> tokens, std::span<const std::string> pieces);

  // Returns whether the logits of the token after `answer` change. If so, `*guided` is `logits`
  // with the changes; if not, it is not written, because a vocabulary is large and most tokens need
  // no change.
  //
  // The changes:
  //   - If the answer ends with the first two or more tokens of such a word, the tokens that
  //     continue it are raised. The more tokens are already copied, the higher.
  //   - At the start of the answer, if the prefix names an identifier, the other identifiers in its
  //     lines are raised from their first token on. An identifier is a word with digits.
  //   - Words that are already written are not raised.
  //   - Until the answer contains one such word that is not in the prefix, the tokens that begin
  //     words of the prefix are lowered.
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
    bool after_blank = false;  // its first token includes the space before it
    bool said = false;         // in said_
    bool beside_said = false;  // it has digits, and its line has a word of said_ with digits
  };
  std::string said_;
  std::vector<Word> words_;
};

}  // namespace longhold
