#include "memory/recall/question.h"

#include <algorithm>
#include <string>
#include <utility>

namespace longhold {
namespace {

// All of the memory's heads, in the manifest's order, whatever weight the profile gives each; none
// where it gives them none.
std::vector<RecallHead> HeadsToAsk(const RecallProfile& profile, const Manifest& m) {
  std::vector<RecallHead> heads;
  if (profile.WeightOf(kHeadSignal) <= 0 || profile.heads.empty()) return heads;
  for (size_t h = 0; h < m.scan_layers.size(); ++h)
    heads.push_back({.layer = m.scan_layers[h], .kv_head = m.scan_kv_heads[h]});
  return heads;
}

// Errors: invalid_argument (not a query of each of the memory's heads, or not of its size).
Status CheckQueries(const std::vector<ScanQuery>& queries, const Manifest& m) {
  if (queries.size() != m.scan_layers.size()) {
    return InvalidArgument("the question has queries of " + std::to_string(queries.size()) +
                           " recall heads, and the memory is indexed for " +
                           std::to_string(m.scan_layers.size()));
  }
  for (size_t h = 0; h < queries.size(); ++h) {
    const ScanQuery& query = queries[h];
    if (query.head != h || query.rows == 0 || query.head_dim != m.head_dim ||
        query.q.size() != size_t{query.rows} * query.head_dim ||
        query.row_weight.size() != query.rows) {
      return InvalidArgument("the queries of recall head " + std::to_string(h) +
                             " are not of the form [rows, " + std::to_string(m.head_dim) + "]");
    }
  }
  return OkStatus();
}

// How many of `wanted` spans the model can rerank at this prompt; 0 for none.
uint32_t SpansToRerank(const LanguageModel& model, const Prompt& prompt, uint32_t wanted) {
  const size_t judged = prompt.JudgedTokens();
  if (judged == 0 || model.scored_tokens_max() < judged) return 0;
  // Reranking may cost half a pass of the model; with fewer than four spans to choose from it is
  // not worth it.
  const size_t most = model.batch_tokens() / 2 / prompt.Asked().size();
  return most < 4 ? 0 : std::min<uint32_t>(wanted, static_cast<uint32_t>(most));
}

// Sets the limits that follow from the options, the profile and the model's context.
void SetLimits(const QuestionOptions& options, uint64_t length, uint64_t room, Question* q) {
  const RecallProfile& profile = q->profile();
  const RecallOptions& recall = options.recall;
  q->answers = options.answers;
  q->answer_alone = options.answer_alone;
  q->may_abstain = recall.abstain && options.context.answer_prefix.empty();
  q->explain = recall.explain;
  q->spans_max = recall.spans_max == 0 ? profile.spans_max : recall.spans_max;
  q->spans_max_with_hops = q->spans_max + (recall.spans_max == 0 ? profile.hop_spans : 0);
  q->rerank_spans =
      SpansToRerank(q->model(), q->prompt, recall.rerank_spans.value_or(profile.rerank_spans));
  q->reencode_tokens = options.reencode_tokens.value_or(profile.reencode_tokens);

  const uint64_t longest = SpanTokensMax(profile);
  const uint64_t all_spans =
      (uint64_t{q->spans_max} + profile.hop_spans + profile.generation_spans) * longest +
      q->reencode_tokens;
  // An answer of more than kAnswerTokensMin tokens gets only the room that the usual spans leave:
  // it is to rest on them.
  const uint64_t usual = std::min<uint64_t>(
      all_spans,
      uint64_t{profile.spans_max + profile.hop_spans} * kSpanTokensUsual + q->reencode_tokens);
  q->answer_tokens = static_cast<uint32_t>(std::min<uint64_t>(
      options.answer_tokens_max, std::max<uint64_t>(std::min<uint64_t>(room, kAnswerTokensMin),
                                                    room - std::min(room, usual))));
  const uint64_t need =
      q->prompt.head.size() + q->prompt.tail.size() + all_spans + q->answer_tokens;
  q->set = std::make_unique<WorkingSet>(q->info().geometry,
                                        static_cast<uint32_t>(std::min<uint64_t>(need, length)));
}

}  // namespace

uint32_t NativeLength(const ModelInfo& info) { return std::max(info.context_length, 2048u); }

std::string_view EmbeddedEnd(std::string_view text) {
  // About as many tokens as the embedder reads.
  constexpr size_t kBytesMax = 1000;
  if (text.size() <= kBytesMax) return text;
  std::string_view end = text.substr(text.size() - kBytesMax);
  while ((end.front() & 0xC0) == 0x80) end.remove_prefix(1);  // inside a character
  const size_t space = end.find_first_of(" \t\r\n");
  if (space < kBytesMax / 2) end.remove_prefix(space + 1);  // inside a word
  return end;
}

Status CheckQuestion(std::string_view question) {
  if (question.find_first_not_of(" \t\r\n") == std::string_view::npos)
    return InvalidArgument("the question is empty; say what you want to know");
  return OkStatus();
}

Result<uint64_t> RoomForContext(const ModelInfo& info, uint64_t length, const Prompt& prompt,
                                uint32_t max_tokens) {
  const uint64_t question_tokens = prompt.head.size() + prompt.tail.size();
  if (question_tokens + std::min(max_tokens, kAnswerTokensMin) > length) {
    return InvalidArgument("the question has " + std::to_string(question_tokens) + " tokens, and " +
                           info.name + " reads " + std::to_string(length) +
                           " with its answer; shorten it, or ingest its text first");
  }
  return length - question_tokens;
}

Result<std::vector<WordMatch>> Question::Match(const PlannedSpan& span) const {
  LH_ASSIGN_OR_RETURN(const std::span<const LexicalWord> found,
                      text->Words(span.document, span.tokens));
  return MatchWords(asked, found, span.token_gains, ScoredBegin(), expansion);
}

Result<std::unique_ptr<const Question>> Understand(const ModelContext& context, Memory& memory,
                                                   MemoryBudget& budget, Notes& notes,
                                                   const SignalList& signals,
                                                   std::string_view question,
                                                   const QuestionOptions& options) {
  if (options.recall.head_queries.empty()) LH_RETURN_IF_ERROR(CheckQuestion(question));
  std::unique_ptr<Question> q(new Question{context, memory, budget, notes, signals});
  q->question = question;
  LanguageModel& model = q->model();
  LH_ASSIGN_OR_RETURN(q->prompt, BuildPrompt(model, question, options.context));
  const uint32_t native = NativeLength(q->info()),
                 length = std::min(native, options.context_tokens.value_or(native));
  LH_ASSIGN_OR_RETURN(const uint64_t room,
                      RoomForContext(q->info(), length, q->prompt, options.answer_tokens_max));
  SetLimits(options, length, room, q.get());
  LH_ASSIGN_OR_RETURN(
      q->set_memory,
      budget.Reserve(
          WorkingSet::Bytes(q->info().geometry, q->prompt.head.size() + q->prompt.tail.size()),
          "the question"));
  LH_ASSIGN_OR_RETURN(MemoryReservation block_memory, budget.Reserve(0, "recalling blocks"));
  q->blocks = std::make_unique<BlockCache>(
      &memory, std::move(block_memory), std::make_unique<UnreadBlocks>(&model, &memory, &budget));
  q->text = std::make_unique<QuestionText>(&memory, context.vocabulary.get());

  std::vector<RecallHead> heads = HeadsToAsk(context.profile, memory.manifest());
  if (!heads.empty() && !options.recall.head_queries.empty()) {
    LH_RETURN_IF_ERROR(CheckQueries(options.recall.head_queries, memory.manifest()));
    q->head_queries = options.recall.head_queries;
    heads.clear();
  }
  if (!options.recall.probe_heads) heads.clear();
  // Where nothing but words is asked, the model reads the prompt's head only for an answer.
  if (q->answers || q->rerank_spans > 0 || !heads.empty()) {
    LH_ASSIGN_OR_RETURN(std::vector<ScanQuery> probed,
                        ProbeQueries(model, *q->set, q->prompt, heads));
    if (!heads.empty()) q->head_queries = std::move(probed);
  }
  q->words = context.vocabulary->Words(q->prompt.Words());
  std::erase_if(q->words, [&](const LexicalWord& word) { return q->prompt.aside[word.begin]; });
  if (context.expansion != nullptr && context.profile.WeightOf(kExpansionSignal) > 0) {
    q->expansion =
        context.expansion->Find(q->words, q->prompt.Words(), memory.lexical(), q->Parallel());
  }
  if (context.embedder != nullptr && context.profile.WeightOf(kDenseSignal) > 0 &&
      memory.passages().vectors() > 0) {
    Result<std::vector<float>> vector = context.embedder->Embed(EmbeddedEnd(question));
    // The other signals still find something.
    if (!vector.ok())
      notes.Add("the question was not embedded: " + std::string(vector.status().message()));
    if (vector.ok()) q->vector = std::move(*vector);
  }
  q->lexical = memory.lexical().Query(q->words, q->expansion, kCandidatesPerSignal);
  q->asked = AskedWords(q->words, q->lexical.words, q->prompt.Words(),
                        [&](TokenId token) { return model.Piece(token); });
  return std::unique_ptr<const Question>(std::move(q));
}

}  // namespace longhold
