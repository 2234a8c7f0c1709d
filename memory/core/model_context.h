// A model with what reading and recall need of it: its recall profile, its vocabulary and the words
// that mean nearly the same.
#pragma once

#include <memory>

#include "base/status.h"
#include "memory/index/query_expansion.h"
#include "memory/model/language_model.h"
#include "memory/model/recall_profile.h"
#include "memory/model/text_embedder.h"
#include "memory/text/vocabulary.h"

namespace longhold {

// Owner: the engine, one at a time. *Immutable*, but for the models themselves, which are borrowed.
struct ModelContext {
  LanguageModel* model = nullptr;
  TextEmbedder* embedder = nullptr;  // borrowed; null for none: passages are not embedded
  RecallProfile profile;
  std::unique_ptr<const LexicalVocabulary> vocabulary;
  std::unique_ptr<const QueryExpansion> expansion;  // null where the model hides its embeddings

  const ModelInfo& info() const { return model->info(); }

  // With a null `profile`, the shipped one that matches the model, or the generic rule. Errors:
  // invalid_argument (the profile names heads that longhold does not serve in this model).
  static Result<std::unique_ptr<const ModelContext>> Make(LanguageModel* model,
                                                          const RecallProfile* profile,
                                                          TextEmbedder* embedder = nullptr);
};

}  // namespace longhold
