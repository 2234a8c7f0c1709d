#include "memory/engine.h"

#include <chrono>
#include <utility>

#include "memory/answer/recalled_prompt.h"

namespace longhold {

Engine::Engine(StoreProvider* stores, EngineOptions options)
    : budget_(options.memory_budget_bytes),
      catalog_(stores, &budget_, &notes_,
               {.encryption_key = options.encryption_key, .codec = options.codec}),
      ingestor_(&catalog_, &budget_, &notes_),
      recaller_(&catalog_, &budget_, &notes_, std::move(options.signals)),
      answerer_(&recaller_, &budget_, &notes_) {}
Engine::~Engine() = default;

Status Engine::UseModel(LanguageModel* model, const RecallProfile* profile,
                        TextEmbedder* embedder) {
  LH_ASSIGN_OR_RETURN(std::unique_ptr<const ModelContext> context,
                      ModelContext::Make(model, profile, embedder));
  model_memory_.Release();
  LH_ASSIGN_OR_RETURN(model_memory_, budget_.Reserve(model->info().buffer_bytes,
                                                     "the buffers of model " + model->info().name));
  LH_RETURN_IF_ERROR(recaller_.UseModel(context.get()));
  catalog_.UseModel(context.get());
  ingestor_.UseModel(context.get());
  answerer_.UseModel(context.get());
  context_ = std::move(context);
  return OkStatus();
}

const RecallProfile& Engine::profile() const {
  LH_CHECK(context_ != nullptr);
  return context_->profile;
}

const ModelInfo& Engine::model_info() const {
  LH_CHECK(context_ != nullptr);
  return context_->info();
}

Result<std::unique_ptr<RecalledPrompt>> Engine::RecallPrompt(const std::string& memory,
                                                             std::string_view question,
                                                             const RecalledPromptOptions& options) {
  return RecalledPrompt::Make(&recaller_, memory, question, options);
}

Status Engine::UseCodec(std::string_view name) {
  LH_RETURN_IF_ERROR(catalog_.UseCodec(name));
  ingestor_.NoteOtherCodecs();
  return OkStatus();
}

Result<RecodeReport> Engine::Recode(const std::string& memory, std::string_view codec,
                                    const std::atomic<bool>* stop,
                                    const OnIngestProgress& on_progress) {
  const auto start = std::chrono::steady_clock::now();
  return catalog_.Recode(memory, codec, stop, [&](uint64_t done, uint64_t total) {
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    const uint64_t tokens = done * kBlockTokens;
    if (on_progress) {
      on_progress({IngestStep::kIndexing, memory, tokens, total * kBlockTokens,
                   seconds.count() > 0 ? static_cast<double>(tokens) / seconds.count() : 0});
    }
  });
}

}  // namespace longhold
