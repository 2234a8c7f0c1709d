#include "memory/core/model_context.h"

#include <algorithm>
#include <string>
#include <utility>

namespace longhold {

Result<std::unique_ptr<const ModelContext>> ModelContext::Make(LanguageModel* model,
                                                               const RecallProfile* profile,
                                                               TextEmbedder* embedder) {
  const ModelInfo& info = model->info();
  auto context = std::make_unique<ModelContext>();
  context->model = model;
  context->embedder = embedder;
  context->profile = profile == nullptr ? RecallProfile::For(info) : *profile;
  for (const RecallHead& head : context->profile.heads) {
    const auto& layers = info.geometry.layers;
    if (std::find(layers.begin(), layers.end(), head.layer) == layers.end() ||
        head.kv_head >= info.geometry.kv_heads) {
      return InvalidArgument("recall profile " + context->profile.name + ": layer " +
                             std::to_string(head.layer) + " head " + std::to_string(head.kv_head) +
                             " is not an attention head that longhold serves in " + info.name);
    }
  }
  context->vocabulary = std::make_unique<const LexicalVocabulary>(TokenPieces(*model));
  if (info.embedding_width > 0) {
    context->expansion = std::make_unique<const QueryExpansion>(
        *context->vocabulary, info.embedding_width,
        [model](std::span<const TokenId> tokens, float* out) { model->Embed(tokens, out); });
  }
  return std::unique_ptr<const ModelContext>(std::move(context));
}

}  // namespace longhold
