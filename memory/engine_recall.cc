// What a question brings back: the plan, the second look, what it leads to, and whether there is
// anything at all.
#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "base/text.h"
#include "memory/engine_planned.h"
#include "memory/recall/query_likelihood.h"

namespace longhold {
namespace {

using Clock = EngineClock;

constexpr uint32_t kExplainedSpans = 32;
constexpr size_t kClosestSpans = 3;

}  // namespace

Status CheckQuestion(std::string_view question) {
  if (question.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    return InvalidArgument("the question is empty; say what you want to know");
  }
  return OkStatus();
}

Result<uint64_t> RoomForContext(const ModelInfo& info, const Prompt& prompt, uint32_t max_tokens) {
  const uint64_t limit = NativeLength(info),
                 question_tokens = prompt.head.size() + prompt.tail.size();
  if (question_tokens + std::min(max_tokens, kAnswerTokensMin) > limit) {
    return InvalidArgument("the question has " + std::to_string(question_tokens) + " tokens, and " +
                           info.name + " reads " + std::to_string(limit) +
                           " with its answer; shorten it, or ingest its text first");
  }
  return limit - question_tokens;
}

void Engine::AppendPieces(const PlannedSpan& span, size_t index, std::vector<Piece>* pieces) {
  for (uint64_t b = span.tokens.begin / kBlockTokens; b * kBlockTokens < span.tokens.end; ++b) {
    const uint64_t base = b * kBlockTokens;
    pieces->push_back(
        {.span = index,
         .key = {span.document, static_cast<uint32_t>(b)},
         .row_begin = static_cast<uint32_t>(std::max(span.tokens.begin, base) - base),
         .row_end = static_cast<uint32_t>(std::min(span.tokens.end, base + kBlockTokens) - base)});
  }
}

Status Engine::Load(Planned& p, std::span<const Piece> pieces) {
  std::set<BlockKey> wanted;
  for (const Piece& piece : pieces) {
    if (!p.blocks.contains(piece.key)) wanted.insert(piece.key);
  }
  LH_RETURN_IF_ERROR(p.block_memory.Resize((p.blocks.size() + wanted.size()) * p.BlockBytes()));
  std::vector<std::pair<const BlockKey, Planned::LoadedBlock>*> missing;
  for (const BlockKey& key : wanted) missing.push_back(&*p.blocks.try_emplace(key).first);
  model_->Parallel(missing.size(), [&](size_t i) {
    missing[i]->second.block = p.memory->LoadBlock(missing[i]->first, &missing[i]->second.bytes);
  });
  return OkStatus();
}

void Engine::DropBlocks(Planned& p) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < p.plan.spans.size(); ++i) AppendPieces(p.plan.spans[i], i, &pieces);
  std::set<BlockKey> needed;
  for (const Piece& piece : pieces) needed.insert(piece.key);
  std::erase_if(p.blocks, [&](const auto& entry) { return !needed.contains(entry.first); });
  LH_CHECK(p.block_memory.Resize(p.blocks.size() * p.BlockBytes()).ok());
}

size_t Engine::ReserveRerank(Planned& p, std::span<const PlannedSpan> spans,
                             MemoryReservation* sets) {
  const KvGeometry& geometry = model_->info().geometry;
  // Each span's set shares the head's whole blocks.
  const uint64_t around = p.set->size() % kBlockTokens + p.prompt.Asked().size();
  std::vector<Piece> pieces;
  uint64_t set_bytes = WorkingSet::Bytes(geometry, around);  // of the question beside nothing
  size_t count = 0;
  for (; count < spans.size(); ++count) {
    AppendPieces(spans[count], count, &pieces);
    // A block that two spans share counts twice here, and is loaded once.
    const uint64_t with =
        set_bytes + WorkingSet::Bytes(geometry, around, spans[count].tokens.size());
    if (budget_.RoomFor(1, pieces.size() * p.BlockBytes() + with) == 0) break;
    set_bytes = with;
  }
  return sets->Resize(set_bytes).ok() ? count : 0;
}

// All of the memory's, in the manifest's order, whatever weight the profile gives each; none where
// it gives them none.
std::vector<RecallHead> Engine::HeadsToAsk(const Manifest& m) const {
  std::vector<RecallHead> heads;
  if (profile_->head_weight <= 0 || profile_->heads.empty()) return heads;
  for (size_t h = 0; h < m.scan_layers.size(); ++h)
    heads.push_back({.layer = m.scan_layers[h], .kv_head = m.scan_kv_heads[h]});
  return heads;
}

Result<Engine::Planned> Engine::PlanFor(const std::string& memory_name, std::string_view question,
                                        const AskOptions& options, bool answers) {
  LH_CHECK(model_ != nullptr);
  LH_RETURN_IF_ERROR(CheckQuestion(question));
  Planned p;
  LH_ASSIGN_OR_RETURN(p.memory, Open(memory_name, Access::kRead, true));
  p.open = Lend();
  LH_RETURN_IF_ERROR(p.memory->LoadIndexes(WorkersOf(*model_)));
  const Clock::time_point start = Clock::now();
  const ModelInfo& info = model_->info();
  LH_ASSIGN_OR_RETURN(p.prompt, BuildPrompt(*model_, question,
                                            {.system = options.system,
                                             .earlier = options.earlier,
                                             .answer_prefix = options.answer_prefix}));
  const uint32_t head = static_cast<uint32_t>(p.prompt.head.size()),
                 tail = static_cast<uint32_t>(p.prompt.tail.size());
  LH_ASSIGN_OR_RETURN(const uint64_t room, RoomForContext(info, p.prompt, options.max_tokens));

  p.reencode_tokens = options.reencode_tokens.value_or(profile_->reencode_tokens);
  const uint32_t spans_max =
      options.recall.spans_max == 0 ? profile_->spans_max : options.recall.spans_max;
  const uint64_t spans_in_all =
      uint64_t{spans_max} + profile_->hop_spans + profile_->generation_spans;
  const uint64_t spans_tokens = spans_in_all * SpanTokensMax(*profile_) + p.reencode_tokens;
  // A longer answer than this only where the usual spans have room beside it, on which it is to
  // rest.
  const uint64_t usual = std::min<uint64_t>(
      spans_tokens, uint64_t{profile_->spans_max + profile_->hop_spans} * SpanTokensMax(*profile_) +
                        p.reencode_tokens);
  p.answer_tokens = static_cast<uint32_t>(std::min<uint64_t>(
      options.max_tokens, std::max<uint64_t>(std::min<uint64_t>(room, kAnswerTokensMin),
                                             room - std::min(room, usual))));
  const uint64_t need = uint64_t{head} + tail + spans_tokens + p.answer_tokens;
  p.set = std::make_unique<WorkingSet>(
      info.geometry, static_cast<uint32_t>(std::min<uint64_t>(need, NativeLength(info))));
  LH_ASSIGN_OR_RETURN(
      p.set_memory,
      budget_.Reserve(WorkingSet::Bytes(info.geometry, uint64_t{head} + tail), "the question"));
  LH_ASSIGN_OR_RETURN(p.block_memory, budget_.Reserve(0, "recalling blocks"));

  const uint32_t looked =
      SpansToRerank(p.prompt, options.recall.rerank_spans.value_or(profile_->rerank_spans));
  RecallQuery query;
  const std::vector<RecallHead> heads = HeadsToAsk(p.memory->manifest());
  // Where nothing but words is asked, the model reads the prompt's head only for an answer.
  if (answers || looked > 0 || !heads.empty()) {
    LH_ASSIGN_OR_RETURN(query.heads, ProbeQueries(*model_, *p.set, p.prompt, heads));
    p.heads_asked = !heads.empty();
  }
  p.words = vocabulary_->Words(p.prompt.Words());
  std::erase_if(p.words, [&](const LexicalWord& word) { return p.prompt.aside[word.begin]; });
  query.words = p.words;
  if (related_ != nullptr && profile_->expansion_weight > 0) {
    query.related =
        related_->Find(p.words, p.prompt.Words(), p.memory->lexical(), WorkersOf(*model_));
    for (ExpansionWord& word : query.related) word.weight *= profile_->expansion_weight;
    p.related = query.related;
  }
  const uint32_t wanted =
      std::max({spans_max, looked, options.recall.explain ? kExplainedSpans : 0});
  LH_ASSIGN_OR_RETURN(p.plan, PlanRecall(*p.memory, *profile_, query, wanted, WorkersOf(*model_)));
  const Clock::time_point planned = Clock::now();
  p.plan_ms = Milliseconds(start, planned);
  p.asked = AskedWords(query.words, p.plan.words, p.prompt.Words(),
                       [this](TokenId token) { return model_->Piece(token); });
  if (looked > 0) {
    LH_RETURN_IF_ERROR(RerankPlan(p, looked));
  } else {
    p.weighed = p.plan.spans;
  }
  if (p.plan.spans.size() > spans_max) p.plan.spans.resize(spans_max);
  if (options.recall.abstain && options.answer_prefix.empty()) LH_RETURN_IF_ERROR(Judge(p));
  // A limit that the caller gave holds for all.
  if (!p.abstained)
    LH_RETURN_IF_ERROR(
        Follow(p, options.recall.spans_max == 0 ? spans_max + profile_->hop_spans : spans_max));
  DropBlocks(p);
  p.rerank_ms = Milliseconds(planned, Clock::now());
  return p;
}

uint32_t Engine::SpansToRerank(const Prompt& prompt, uint32_t wanted) const {
  const size_t judged = prompt.JudgedTokens();
  if (judged == 0 || model_->scored_tokens_max() < judged) return 0;
  // Half a pass of the model is what a look may cost; with fewer than four spans to choose from it
  // is not worth it.
  const size_t most = model_->batch_tokens() / 2 / prompt.Asked().size();
  return most < 4 ? 0 : std::min<uint32_t>(wanted, static_cast<uint32_t>(most));
}

Result<std::vector<std::vector<float>>> Engine::ScoreQuestion(Planned& p,
                                                              std::span<const PlannedSpan> spans) {
  const std::span<const TokenId> question = p.prompt.Asked();
  const uint32_t head = p.set->size();
  std::vector<std::vector<float>> logs;
  LH_ASSIGN_OR_RETURN(MemoryReservation set_memory, budget_.Reserve(0, "the second look"));
  for (size_t first = 0;;) {
    const std::span<const PlannedSpan> group =
        spans.subspan(first, ReserveRerank(p, spans.subspan(first), &set_memory));
    if (group.empty() && first < spans.size())
      return ResourceExhausted("the memory budget has no room for a second look");
    const bool last = first + group.size() == spans.size();
    std::vector<Piece> pieces;
    for (size_t i = 0; i < group.size(); ++i) AppendPieces(group[i], i, &pieces);
    LH_RETURN_IF_ERROR(Load(p, pieces));
    if (std::any_of(pieces.begin(), pieces.end(),
                    [&](const Piece& piece) { return p.Rows(piece) == nullptr; })) {
      Note("memory " + p.memory->name() +
           ": blocks are damaged, so a span that the question needs may look less relevant than it "
           "is, or be left out; 'longhold verify " +
           p.memory->name() + "' names the first");
    }
    // In the last group one set more than spans: the question after nothing.
    std::vector<std::unique_ptr<WorkingSet>> sets(group.size() + last);
    model_->Parallel(sets.size(), [&](size_t i) {
      const uint64_t rows = i < group.size() ? group[i].tokens.size() : 0;
      sets[i] = std::make_unique<WorkingSet>(model_->info().geometry,
                                             static_cast<uint32_t>(head + rows + question.size()));
      sets[i]->AppendHead(*p.set, head);
      sets[i]->Reserve(static_cast<uint32_t>(rows));
      for (const Piece& piece : pieces) {
        if (piece.span != i) continue;
        if (const KvBlock* block = p.Rows(piece))
          sets[i]->AppendBlock(*block, piece.row_begin, piece.row_end, 0);
      }
    });
    LH_ASSIGN_OR_RETURN(const std::vector<std::vector<float>> some,
                        QuestionLikelihoods(*model_, sets, question, p.prompt.JudgedBegin(), head));
    logs.insert(logs.end(), some.begin(), some.end());
    if (last) return logs;
    first += group.size();
    // Blocks of the spans that are kept are read again later, which costs milliseconds; here they
    // would stand in the next group's way.
    sets.clear();
    p.blocks.clear();
    LH_RETURN_IF_ERROR(p.block_memory.Resize(0));
    LH_RETURN_IF_ERROR(set_memory.Resize(0));
  }
}

Status Engine::RerankPlan(Planned& p, uint32_t looked) {
  std::vector<PlannedSpan>& spans = p.plan.spans;
  std::vector<PlannedSpan> others;
  if (spans.size() > looked) {
    others.assign(spans.begin() + looked, spans.end());
    spans.resize(looked);
  }
  const Result<std::vector<std::vector<float>>> likelihoods = ScoreQuestion(p, spans);
  if (!likelihoods.ok() && likelihoods.status().code() == StatusCode::kResourceExhausted) {
    Note(
        "the memory budget has no room for a second look at what was found; give more with "
        "--memory-budget");
    spans.insert(spans.end(), others.begin(), others.end());
    p.weighed = spans;
    return OkStatus();
  }
  LH_RETURN_IF_ERROR(likelihoods.status());
  const std::vector<std::vector<float>>& logs = *likelihoods;
  p.looked = true;

  // `look` and its shares by token are over what the question alone, beside nothing, has.
  for (size_t i = 0; i < spans.size(); ++i) {
    spans[i].token_gains = logs[i];
    for (size_t j = 0; j < logs[i].size(); ++j) {
      spans[i].token_gains[j] -= logs.back()[j];
      if (p.prompt.Aside(p.prompt.JudgedBegin() + j)) spans[i].token_gains[j] = 0;
      spans[i].question_gain += spans[i].token_gains[j];
    }
    const double evidence = spans[i].question_gain / static_cast<double>(p.prompt.CountedTokens());
    p.plan.token_gain = i == 0 ? evidence : std::max(p.plan.token_gain, evidence);
  }
  RankByLikelihood(*profile_, JudgedWeights(p), &spans);
  p.weighed = spans;
  p.weighed.insert(p.weighed.end(), others.begin(), others.end());
  std::erase_if(spans, [&](const PlannedSpan& s) { return s.score < profile_->span_score_min; });
  return OkStatus();
}

std::vector<double> Engine::JudgedWeights(const Planned& p) {
  std::vector<double> weights(p.prompt.JudgedTokens(), 0);
  const size_t skipped = ScoredBegin(p.prompt);
  const size_t first = p.words.size() - std::min(p.words.size(), p.plan.words.size());
  for (size_t w = first; w < p.words.size(); ++w) {
    const LexicalResult::Word& known = p.plan.words[w - first];
    // No span is needed for a word that stands nowhere.
    if (known.function_word || known.block_count == 0) continue;
    for (size_t t = std::max<size_t>(p.words[w].begin, skipped); t < p.words[w].end; ++t)
      weights[t - skipped] = known.weight;
  }
  return weights;
}

Result<std::vector<WordMatch>> Engine::Beside(Planned& p, const PlannedSpan& span) {
  LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                      p.memory->Tokens(span.document, span.tokens));
  return MatchWords(p.asked, vocabulary_->Words(tokens), span.token_gains, ScoredBegin(p.prompt),
                    p.related);
}

Status Engine::Judge(Planned& p) {
  const IndexReport& index = p.memory->index_report();
  // what is not searched may hold it
  if (index.segments_lost + index.blocks_lost > 0) return OkStatus();
  p.abstained = p.weighed.empty();
  const double mark = p.looked ? profile_->abstain_support : profile_->abstain_found;
  if (p.abstained || mark <= 0) return OkStatus();
  double support = 0;
  std::vector<std::vector<WordMatch>> spans;  // without a look
  std::vector<WordMatch> together;            // with one
  uint32_t needed = 0;
  for (const PlannedSpan& span : p.weighed) {
    if (p.looked && span.token_gains.empty()) continue;
    Result<std::vector<WordMatch>> beside = Beside(p, span);
    // Where text is damaged nobody can say that it holds nothing.
    if (!beside.ok() && beside.status().code() == StatusCode::kDataLoss) return OkStatus();
    if (!beside.ok()) return beside.status();
    support =
        std::max(support, p.looked ? Support(p.asked, *beside) : FoundShare(p.asked, *beside));
    if (!p.looked) spans.push_back(std::move(*beside));
    if (!p.looked || span.coverage_gain < kNeededGain) continue;
    ++needed;
    if (together.empty()) together.resize(beside->size());
    for (size_t w = 0; w < together.size(); ++w) {
      together[w] = {together[w].found || (*beside)[w].found,
                     std::max(together[w].gain, (*beside)[w].look)};
    }
  }
  if (needed >= kTogetherMin)
    support = std::max(support, Support(p.asked, together) / kTogetherFactor);
  if (!p.looked) support = std::max(support, FoundShareTogether(p.asked, spans));
  p.abstained = support < mark;
  return OkStatus();
}

Status Engine::Follow(Planned& p, uint32_t spans_max) {
  p.follow = std::make_unique<MultiHop>(
      *p.memory, *profile_, *vocabulary_, [this](TokenId token) { return model_->Piece(token); },
      p.prompt.Words(), p.asked, ScoredBegin(p.prompt), p.prompt.aside);
  std::vector<PlannedSpan> judged = p.looked ? p.weighed : p.plan.spans;
  if (p.looked) std::erase_if(judged, [](const PlannedSpan& s) { return s.token_gains.empty(); });
  LH_ASSIGN_OR_RETURN(const bool changed, p.follow->Extend(&p.plan, judged));
  if (!changed) return OkStatus();
  if (p.plan.spans.size() > spans_max) p.plan.spans.resize(spans_max);
  // They take their places among those that competed.
  for (const PlannedSpan& span : p.plan.spans) {
    p.hops = std::max(p.hops, span.hops);
    const auto same = [&](const PlannedSpan& s) {
      return s.document == span.document && s.tokens == span.tokens;
    };
    std::erase_if(p.weighed, same);
  }
  p.weighed.insert(p.weighed.begin(), p.plan.spans.begin(), p.plan.spans.end());
  return OkStatus();
}

Status Engine::Explain(Planned& p, RecallReply* reply) {
  for (const AskedWord& word : p.asked) {
    QuestionWord& known = reply->words.emplace_back(
        QuestionWord{word.text, word.block_count, word.weight, word.function_word, {}});
    for (const ExpansionWord& r : p.related) {
      // without its space
      if (r.of == word.stem) known.related.push_back(model_->Piece(r.token).substr(1));
    }
  }
  uint32_t rank = 0;
  for (const PlannedSpan& span : p.weighed) {
    const bool looked = !span.token_gains.empty();
    if (looked) ++rank;
    Result<RecalledSpan> described = Describe(*p.memory, span);
    Result<std::vector<WordMatch>> beside = Beside(p, span);
    if (!described.ok() || !beside.ok()) {
      // Damaged text: the plan's own spans are counted as lost; there is nothing to show of the
      // others either.
      const Status& status = described.ok() ? beside.status() : described.status();
      if (status.code() != StatusCode::kDataLoss) return status;
      continue;
    }
    ExplainedSpan e;
    e.span = std::move(*described);
    e.planned_rank = span.planned_rank;
    e.rank = looked ? rank : 0;
    e.planned_score = span.planned_score;
    e.head_score = span.head_score;
    e.lexical_score = span.lexical_score;
    if (looked) e.token_gain = span.question_gain / static_cast<double>(p.prompt.CountedTokens());
    if (looked) e.support = std::min(Support(p.asked, *beside), 1e6);
    for (const WordMatch& word : *beside) {
      e.found.push_back(word.found);
      e.word_gains.push_back(word.gain);
    }
    e.kept = std::any_of(p.plan.spans.begin(), p.plan.spans.end(), [&](const PlannedSpan& s) {
      return s.document == span.document && s.tokens == span.tokens;
    });
    if (!e.kept) {
      e.why = p.looked && !looked                     ? "not looked at"
              : span.score < profile_->span_score_min ? "far behind the best"
              : p.abstained                           ? "nothing on this"
                                                      : "enough better ones";
    }
    reply->candidates_explained.push_back(std::move(e));
  }
  return OkStatus();
}

Result<RecalledSpan> Engine::Describe(Memory& memory, const PlannedSpan& span) {
  RecalledSpan out;
  out.document_id = span.document;
  out.document = memory.Get(span.document).name;
  out.tokens = span.tokens;
  LH_ASSIGN_OR_RETURN(TextPlace place, memory.Locate(span.document, span.tokens));
  out.bytes = place.bytes;
  out.line_begin = place.line_begin;
  out.line_end = place.line_end;
  out.text = std::move(place.text);
  // A token may be part of a character: what stands half inside the span is left out of its text.
  out.text.resize(WholeCharacters(out.text));
  size_t partial = 0;
  while (partial < out.text.size() && (static_cast<uint8_t>(out.text[partial]) & 0xC0) == 0x80)
    ++partial;
  out.text.erase(0, partial);
  out.bytes = {place.bytes.begin + partial, place.bytes.begin + partial + out.text.size()};
  out.score = span.score;
  // A signal is a reason when it brought a fifth of the score or more.
  const double head = profile_->head_weight * span.head_score,
               lexical = profile_->lexical_weight * span.lexical_score;
  const bool planned = head + lexical > 0;  // not a follow-up alone
  if (planned && head >= 0.2 * (head + lexical)) out.reasons.push_back("head");
  const double related = profile_->lexical_weight * span.expansion_score;
  if (planned && lexical - related >= 0.2 * (head + lexical)) out.reasons.push_back("lexical");
  if (planned && related >= 0.2 * (head + lexical)) out.reasons.push_back("related");
  if (!planned || span.hops > 0) out.reasons.push_back("follow-up");
  return out;
}

Result<std::vector<RecalledSpan>> Engine::DescribeAll(Planned& p, uint64_t* spans_lost) {
  const IndexReport& index = p.memory->index_report();
  const std::string& name = p.memory->name();
  if (index.segments_rebuilt > index.segments_stored) {
    Note("memory " + name + ": " + std::to_string(index.segments_rebuilt) +
         " damaged index segments were built again for this run; 'longhold reindex " + name +
         "' stores them");
  }
  if (index.segments_lost + index.blocks_lost > 0) {
    Note("memory " + name +
         ": parts of its index are lost, so not all of it is searched; 'longhold verify " + name +
         "' names the first");
  }
  if (index.lists_lost > 0) {
    Note("memory " + name +
         ": is searched without lists, which is exact and slower; 'longhold reindex " + name +
         "' makes them");
  }
  std::vector<RecalledSpan> all;
  std::vector<PlannedSpan> kept;
  for (const PlannedSpan& span : p.plan.spans) {
    Result<RecalledSpan> described = Describe(*p.memory, span);
    if (!described.ok()) {
      if (described.status().code() != StatusCode::kDataLoss) return described.status();
      ++*spans_lost;
      continue;
    }
    all.push_back(std::move(*described));
    kept.push_back(span);
  }
  p.plan.spans = std::move(kept);
  return all;
}

Result<RecallReply> Engine::Recall(const std::string& memory, std::string_view query,
                                   const RecallOptions& options) {
  AskOptions ask;
  ask.recall = options;
  ask.max_tokens = 1;
  LH_ASSIGN_OR_RETURN(Planned p, PlanFor(memory, query, ask, /*answers=*/false));
  RecallReply reply;
  reply.candidates = p.plan.candidates;
  reply.plan_ms = p.plan_ms + p.rerank_ms;
  reply.prompt_tokens = p.prompt.head.size() + p.prompt.tail.size();
  if (p.abstained && p.plan.spans.size() > kClosestSpans) p.plan.spans.resize(kClosestSpans);
  LH_ASSIGN_OR_RETURN(reply.spans, DescribeAll(p, &reply.spans_lost));
  if (p.heads_asked) reply.coverage = p.plan.Coverage();
  reply.token_gain = p.plan.token_gain;
  reply.hops = p.hops;
  reply.abstained = p.abstained;
  if (options.explain) LH_RETURN_IF_ERROR(Explain(p, &reply));
  return reply;
}
}  // namespace longhold
