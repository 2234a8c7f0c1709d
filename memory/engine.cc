#include "memory/engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "memory/abstention.h"
#include "memory/excerpts.h"
#include "memory/follow_up.h"
#include "memory/ingest.h"
#include "memory/lexical_index.h"
#include "memory/long_words.h"
#include "memory/memory.h"
#include "memory/prompt.h"
#include "memory/recall_planner.h"
#include "memory/second_look.h"
#include "memory/working_set.h"
#include "store/rocks_store.h"

namespace longhold {

namespace {

namespace fs = std::filesystem;

// What is read again around a peak: its line or sentence, at most this far to either side. More of a text that repeats itself would
// show the model other lines of the same form.
constexpr uint32_t kExcerptReach = 80;

using Clock = std::chrono::steady_clock;

// A word that a span makes likelier by less than the first, in nats a token, is not what the span is about; by the second, it is.
constexpr double kFoundLookMin = 0.5, kFoundLookFull = 4;
// A span that adds this share of what the best one explains of a question is needed beside it (RankByLook).
constexpr double kNeededGain = 0.2;
// A question that names many things is supported by no single span. But spans together also find words by chance: it takes three, and
// they must speak so much more for the question (decisions/0006).
constexpr uint32_t kTogetherMin = 3;
constexpr double kTogetherFactor = 1.6;

// Sentences of this share of the heaviest one's weight say the same of the question (SpanSentence::share).
constexpr double kFullShare = 0.95;

constexpr uint32_t kExplainedSpans = 32;
constexpr size_t kClosestSpans = 3;

double Milliseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

// Which of the question's tokens is the first that a look judges.
uint32_t LookBegin(const Prompt& prompt) { return static_cast<uint32_t>(prompt.JudgedBegin() - prompt.words_begin); }

// Bytes of `text` that end with a whole UTF-8 character.
size_t WholeCharacters(std::string_view text) {
  size_t i = text.size();
  for (size_t back = 1; back <= 4 && back <= text.size(); ++back) {
    const uint8_t byte = static_cast<uint8_t>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    const size_t need = byte < 0x80 ? 1 : byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
    if (need > back) i = text.size() - back;
    break;
  }
  return i;
}

std::string Trim(const std::string& text) {
  const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; };
  size_t begin = 0, end = text.size();
  while (begin < end && blank(text[begin])) ++begin;
  while (end > begin && blank(text[end - 1])) --end;
  return text.substr(begin, end - begin);
}

}  // namespace

struct Engine::Open_ {
  std::string name;
  bool writable = false;
  std::unique_ptr<Memory> memory;
};

Engine::Engine(EngineOptions options) : options_(std::move(options)) { LH_CHECK(FindCodec(options_.codec) != nullptr); }
Engine::~Engine() = default;

Status Engine::UseModel(LanguageModel* model, const RecallProfile* profile) {
  const ModelInfo& info = model->info();
  auto used = std::make_unique<RecallProfile>(profile == nullptr ? RecallProfile::For(info) : *profile);
  for (const RecallHead& head : used->heads) {
    const auto& layers = info.geometry.layers;
    if (std::find(layers.begin(), layers.end(), head.layer) == layers.end() || head.kv_head >= info.geometry.kv_heads) {
      return InvalidArgument("recall profile " + used->name + ": layer " + std::to_string(head.layer) + " head " +
                             std::to_string(head.kv_head) + " is not an attention head that longhold serves in " + info.name);
    }
  }
  model_ = model;
  open_.reset();
  profile_ = std::move(used);
  vocabulary_ = std::make_unique<const LexicalVocabulary>(TokenPieces(*model));
  return OkStatus();
}

Status Engine::UseCodec(std::string_view name) {
  if (FindCodec(name) == nullptr) {
    return InvalidArgument("codec " + std::string(name) + ": unknown; choose one of " + CodecList());
  }
  options_.codec = name;
  codec_chosen_ = true;
  return OkStatus();
}

const RecallProfile& Engine::profile() const {
  LH_CHECK(profile_ != nullptr);
  return *profile_;
}

Status Engine::CheckName(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  };
  if (name.empty() || name.size() > 64 || name[0] == '.' || name[0] == '-' || !std::all_of(name.begin(), name.end(), allowed)) {
    return InvalidArgument("memory name \"" + std::string(name) +
                           "\": use 1 to 64 letters, digits, dots, dashes or underscores, starting with a letter or digit");
  }
  return OkStatus();
}

std::string Engine::PathOf(const std::string& memory) const { return (fs::path(options_.home) / "memories" / memory).string(); }

void Engine::Note(const std::string& note) {
  if (told_.insert(note).second) notes_.push_back(note);
}

std::vector<std::string> Engine::TakeNotes() { return std::exchange(notes_, {}); }

Status Engine::Exists(const std::string& name) {
  LH_RETURN_IF_ERROR(CheckName(name));
  std::error_code ec;
  const bool exists = fs::exists(PathOf(name), ec);
  if (ec) {
    return InvalidArgument("home " + options_.home + ": cannot be read (" + ec.message() +
                           "); check its permissions, or choose another with --home");
  }
  if (exists) return OkStatus();
  return NotFound("memory " + name + ": not found in " + options_.home + "; 'longhold list' shows the memories there are");
}

Result<Memory*> Engine::Open(const std::string& name, Access access, bool with_model) {
  LH_RETURN_IF_ERROR(CheckName(name));
  const bool write = access != Access::kRead;
  if (open_ != nullptr && open_->name == name && open_->writable == write && write) return open_->memory.get();
  open_.reset();
  const fs::path path = PathOf(name);
  const Status exists = Exists(name);
  if (!exists.ok() && (exists.code() != StatusCode::kNotFound || access != Access::kCreate)) return exists;
  if (!exists.ok()) {
    std::error_code ec;
    fs::create_directories(path.parent_path(), ec);
    if (ec) {
      return InvalidArgument("home " + options_.home + ": cannot be written (" + ec.message() +
                             "); choose another with --home or LONGHOLD_HOME");
    }
  }
  RocksOptions rocks;
  rocks.path = path.string();
  rocks.read_only = !write;
  rocks.create_if_missing = access == Access::kCreate;
  LH_ASSIGN_OR_RETURN(std::unique_ptr<ColdStore> store, OpenRocksStore(rocks));
  auto open = std::make_unique<Open_>();
  open->name = name;
  open->writable = write;
  const ModelInfo* info = with_model ? &model_->info() : nullptr;
  if (!Memory::Exists(*store) && access == Access::kCreate) {
    LH_ASSIGN_OR_RETURN(open->memory, Memory::Create(std::move(store), name, *info, *profile_, *FindCodec(options_.codec)));
  } else {
    LH_ASSIGN_OR_RETURN(open->memory, Memory::Open(std::move(store), name, info));
  }
  if (with_model) {
    open->memory->UseVocabulary(vocabulary_.get());
    if (!profile_->heads.empty() && !open->memory->HasHeadsOf(*profile_)) {
      Note("memory " + name + " was indexed for other recall heads than those of profile " + profile_->name + "; 'longhold reindex " + name +
           "' brings them and does not read the text again");
    }
  }
  open_ = std::move(open);
  return open_->memory.get();
}

Result<IngestReport> Engine::Ingest(const std::string& memory_name, const IngestInput& input, const std::atomic<bool>* stop,
                                    const std::function<void(const IngestProgress&)>& on_progress) {
  LH_CHECK(model_ != nullptr);
  if (input.text.empty()) return InvalidArgument(input.name + ": is empty; there is nothing to remember");
  LH_ASSIGN_OR_RETURN(Memory* memory, Open(memory_name, Access::kCreate, true));
  if (codec_chosen_ && memory->codec().name() != options_.codec) {
    Note("memory " + memory_name + ": was made with codec " + std::string(memory->codec().name()) + " and keeps it; ingest into a new one for " +
         options_.codec);
  }
  return IngestDocument(*model_, *memory, *vocabulary_, input, stop, on_progress);
}

// Some rows of one block, as a planned span wants them.
struct Engine::Piece {
  size_t span = 0;  // which of the plan's
  BlockKey key;
  uint32_t row_begin = 0, row_end = 0;
  uint32_t index = 0;  // where its keys go in the working set
};

// What both recall and ask begin with: the probe pass, the plan and the second look.
struct Engine::Planned {
  struct LoadedBlock {
    Result<KvBlock> block = DataLoss("not read");
    uint64_t bytes = 0;
  };

  Memory* memory = nullptr;
  Prompt prompt;
  std::unique_ptr<WorkingSet> set;   // holds the head
  RecallPlan plan;
  std::vector<LexicalWord> words;    // the question's, in order
  std::vector<AskedWord> asked;      // the distinct ones
  std::vector<PlannedSpan> weighed;  // all spans that competed, in their final order; the plan keeps the best
  bool looked = false;               // there was a second look
  bool abstained = false;
  std::vector<SpanSentence> excerpts, lookalikes;  // of the plan's spans: read again as text, and not recalled
  std::unique_ptr<FollowUp> follow;
  uint32_t hops = 0;                 // of follow-ups: AskReply::hops
  double plan_ms = 0;                // probe, scan and fusion
  double look_ms = 0;                // second look, with the blocks that it reads
  std::map<BlockKey, LoadedBlock> blocks;

  // The block that holds the piece's rows; null when it is damaged.
  const KvBlock* Rows(const Piece& piece) const {
    const LoadedBlock& loaded = blocks.at(piece.key);
    return loaded.block.ok() && loaded.block->tokens >= piece.row_end ? &*loaded.block : nullptr;
  }
};

void Engine::AppendPieces(const PlannedSpan& span, size_t index, std::vector<Piece>* pieces) {
  for (uint64_t b = span.tokens.begin / kBlockTokens; b * kBlockTokens < span.tokens.end; ++b) {
    const uint64_t base = b * kBlockTokens;
    pieces->push_back({.span = index,
                       .key = {span.document, static_cast<uint32_t>(b)},
                       .row_begin = static_cast<uint32_t>(std::max(span.tokens.begin, base) - base),
                       .row_end = static_cast<uint32_t>(std::min(span.tokens.end, base + kBlockTokens) - base)});
  }
}

void Engine::Load(Planned& p, std::span<const Piece> pieces) {
  std::vector<std::pair<const BlockKey, Planned::LoadedBlock>*> missing;
  for (const Piece& piece : pieces) {
    const auto [entry, added] = p.blocks.try_emplace(piece.key);
    if (added) missing.push_back(&*entry);
  }
  model_->Parallel(missing.size(), [&](size_t i) {
    missing[i]->second.block = p.memory->LoadBlock(missing[i]->first, &missing[i]->second.bytes);
  });
}

Result<Engine::Planned> Engine::PlanFor(const std::string& memory_name, std::string_view question, const AskOptions& options) {
  LH_CHECK(model_ != nullptr);
  if (question.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    return InvalidArgument("the question is empty; say what you want to know");
  }
  Planned p;
  LH_ASSIGN_OR_RETURN(p.memory, Open(memory_name, Access::kRead, true));
  LH_RETURN_IF_ERROR(p.memory->LoadIndexes(WorkersOf(*model_)));
  const Clock::time_point start = Clock::now();
  const ModelInfo& info = model_->info();
  LH_ASSIGN_OR_RETURN(p.prompt, BuildPrompt(*model_, question, options.system, options.answer_prefix));
  const uint32_t head = static_cast<uint32_t>(p.prompt.head.size()), tail = static_cast<uint32_t>(p.prompt.tail.size());

  const uint32_t spans_max = options.recall.spans_max == 0 ? profile_->spans_max : options.recall.spans_max;
  const uint64_t spans_in_all = uint64_t{spans_max} + profile_->follow_spans + profile_->follow_refreshes;
  const uint64_t need =
      uint64_t{head} + spans_in_all * SpanTokensMax(*profile_) + profile_->reread_tokens + tail + options.max_tokens;
  const uint64_t limit = std::max(info.context_length, 2048u);
  if (uint64_t{head} + tail + options.max_tokens > limit) {
    return InvalidArgument("the question has " + std::to_string(tail) + " tokens, and " + info.name + " reads " +
                           std::to_string(limit) + " with its answer; shorten it, or ingest its text first");
  }
  p.set = std::make_unique<WorkingSet>(info.geometry, static_cast<uint32_t>(std::min(need, limit)));

  // What the memory's heads ask for, at whatever weight the profile gives them.
  const Manifest& m = p.memory->manifest();
  std::vector<RecallHead> heads;
  for (size_t h = 0; h < m.scan_layers.size(); ++h) heads.push_back({.layer = m.scan_layers[h], .kv_head = m.scan_kv_heads[h]});
  RecallQuery query;
  LH_ASSIGN_OR_RETURN(query.heads, ProbeQueries(*model_, *p.set, p.prompt, heads));
  p.words = vocabulary_->Words(p.prompt.Words());
  std::erase_if(p.words, [&](const LexicalWord& word) { return p.prompt.aside[word.begin]; });
  query.words = p.words;
  const uint32_t looked = SpansToLookAt(p.prompt);
  const uint32_t wanted = std::max({spans_max, looked, options.recall.explain ? kExplainedSpans : 0});
  LH_ASSIGN_OR_RETURN(p.plan, PlanRecall(*p.memory, *profile_, query, wanted,
                                         WorkersOf(*model_)));
  const Clock::time_point planned = Clock::now();
  p.plan_ms = Milliseconds(start, planned);
  p.asked = AskedWords(query.words, p.plan.words, p.prompt.Words(), [this](TokenId token) { return model_->Piece(token); });
  if (looked > 0) {
    LH_RETURN_IF_ERROR(LookAgain(p, looked));
  } else {
    p.weighed = p.plan.spans;
  }
  if (p.plan.spans.size() > spans_max) p.plan.spans.resize(spans_max);
  if (options.recall.abstain && options.answer_prefix.empty()) LH_RETURN_IF_ERROR(Judge(p));
  // A limit that the caller gave holds for all.
  if (!p.abstained) LH_RETURN_IF_ERROR(Follow(p, options.recall.spans_max == 0 ? spans_max + profile_->follow_spans : spans_max));
  p.look_ms = Milliseconds(planned, Clock::now());
  return p;
}

uint32_t Engine::SpansToLookAt(const Prompt& prompt) const {
  const size_t judged = prompt.JudgedTokens();
  if (judged == 0 || model_->scored_tokens_max() < judged) return 0;
  // Half a pass of the model is what a look may cost; with fewer than four spans to choose from it is not worth it.
  const size_t most = model_->batch_tokens() / 2 / prompt.Asked().size();
  return most < 4 ? 0 : std::min<uint32_t>(profile_->look_spans, static_cast<uint32_t>(most));
}

Status Engine::LookAgain(Planned& p, uint32_t looked) {
  std::vector<PlannedSpan>& spans = p.plan.spans;
  std::vector<PlannedSpan> others;
  if (spans.size() > looked) {
    others.assign(spans.begin() + looked, spans.end());
    spans.resize(looked);
  }
  std::vector<Piece> pieces;
  for (size_t i = 0; i < spans.size(); ++i) AppendPieces(spans[i], i, &pieces);
  Load(p, pieces);

  // One set more than spans: the question after nothing, to see what the best span explains.
  const std::span<const TokenId> question = p.prompt.Asked();
  const uint32_t head = p.set->size();
  std::vector<std::unique_ptr<WorkingSet>> sets(spans.size() + 1);
  model_->Parallel(sets.size(), [&](size_t i) {
    const uint64_t rows = i < spans.size() ? spans[i].tokens.size() : 0;
    sets[i] = std::make_unique<WorkingSet>(model_->info().geometry, static_cast<uint32_t>(head + rows + question.size()));
    sets[i]->AppendHead(*p.set, head);
    for (const Piece& piece : pieces) {
      if (piece.span != i) continue;
      if (const KvBlock* block = p.Rows(piece)) sets[i]->AppendBlock(*block, piece.row_begin, piece.row_end, 0);
    }
  });
  LH_ASSIGN_OR_RETURN(const std::vector<std::vector<float>> logs,
                      QuestionLikelihoods(*model_, sets, question, p.prompt.JudgedBegin(), head));
  p.looked = true;

  // `look` and its shares by token are over what the question alone, beside nothing, has.
  for (size_t i = 0; i < spans.size(); ++i) {
    spans[i].look_logs = logs[i];
    for (size_t j = 0; j < logs[i].size(); ++j) {
      spans[i].look_logs[j] -= logs.back()[j];
      if (p.prompt.Aside(p.prompt.JudgedBegin() + j)) spans[i].look_logs[j] = 0;
      spans[i].look += spans[i].look_logs[j];
    }
    const double evidence = spans[i].look / static_cast<double>(p.prompt.CountedTokens());
    p.plan.evidence = i == 0 ? evidence : std::max(p.plan.evidence, evidence);
  }
  RankByLook(*profile_, JudgedWeights(p), &spans);
  p.weighed = spans;
  p.weighed.insert(p.weighed.end(), others.begin(), others.end());
  std::erase_if(spans, [&](const PlannedSpan& s) { return s.score < profile_->span_score_min; });
  return OkStatus();
}

std::vector<double> Engine::JudgedWeights(const Planned& p) {
  std::vector<double> weights(p.prompt.JudgedTokens(), 0);
  const size_t skipped = LookBegin(p.prompt);
  const size_t first = p.words.size() - std::min(p.words.size(), p.plan.words.size());
  for (size_t w = first; w < p.words.size(); ++w) {
    const LexicalResult::Word& known = p.plan.words[w - first];
    // No span is needed for a word that stands nowhere.
    if (known.function_word || known.block_count == 0) continue;
    for (size_t t = std::max<size_t>(p.words[w].begin, skipped); t < p.words[w].end; ++t) weights[t - skipped] = known.weight;
  }
  return weights;
}

Result<std::vector<WordBeside>> Engine::Beside(Planned& p, const PlannedSpan& span) {
  LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, p.memory->Tokens(span.document, span.tokens));
  return WordsBeside(p.asked, vocabulary_->Words(tokens), span.look_logs, LookBegin(p.prompt));
}

Status Engine::Judge(Planned& p) {
  const IndexReport& index = p.memory->index_report();
  if (index.segments_lost + index.blocks_lost > 0) return OkStatus();  // what is not searched may hold it
  p.abstained = p.weighed.empty();
  if (!p.looked || p.abstained || profile_->abstain_support <= 0) return OkStatus();
  double support = 0;
  std::vector<WordBeside> together;
  uint32_t needed = 0;
  for (const PlannedSpan& span : p.weighed) {
    if (span.look_logs.empty()) continue;
    const Result<std::vector<WordBeside>> beside = Beside(p, span);
    // Where text is damaged nobody can say that it holds nothing.
    if (!beside.ok() && beside.status().code() == StatusCode::kDataLoss) return OkStatus();
    if (!beside.ok()) return beside.status();
    support = std::max(support, Support(p.asked, *beside));
    if (span.look_gain < kNeededGain) continue;
    ++needed;
    if (together.empty()) together.resize(beside->size());
    for (size_t w = 0; w < together.size(); ++w) {
      together[w] = {together[w].found || (*beside)[w].found, std::max(together[w].look, (*beside)[w].look)};
    }
  }
  if (needed >= kTogetherMin) support = std::max(support, Support(p.asked, together) / kTogetherFactor);
  p.abstained = support < profile_->abstain_support;
  return OkStatus();
}

Status Engine::Follow(Planned& p, uint32_t spans_max) {
  p.follow = std::make_unique<FollowUp>(*p.memory, *profile_, *vocabulary_, [this](TokenId token) { return model_->Piece(token); },
                                        p.prompt.Words(), p.asked, LookBegin(p.prompt), p.prompt.aside);
  std::vector<PlannedSpan> judged = p.looked ? p.weighed : p.plan.spans;
  if (p.looked) std::erase_if(judged, [](const PlannedSpan& s) { return s.look_logs.empty(); });
  LH_ASSIGN_OR_RETURN(const bool changed, p.follow->Extend(&p.plan, judged));
  if (!changed) return OkStatus();
  if (p.plan.spans.size() > spans_max) p.plan.spans.resize(spans_max);
  // They take their places among those that competed.
  for (const PlannedSpan& span : p.plan.spans) {
    p.hops = std::max(p.hops, span.hops);
    const auto same = [&](const PlannedSpan& s) { return s.document == span.document && s.tokens == span.tokens; };
    std::erase_if(p.weighed, same);
  }
  p.weighed.insert(p.weighed.begin(), p.plan.spans.begin(), p.plan.spans.end());
  return OkStatus();
}

Status Engine::Explain(Planned& p, RecallReply* reply) {
  for (const AskedWord& word : p.asked) reply->words.push_back({word.text, word.block_count, word.weight, word.function_word});
  uint32_t rank = 0;
  for (const PlannedSpan& span : p.weighed) {
    const bool looked = !span.look_logs.empty();
    if (looked) ++rank;
    Result<RecalledSpan> described = Describe(*p.memory, span);
    Result<std::vector<WordBeside>> beside = Beside(p, span);
    if (!described.ok() || !beside.ok()) {
      // Damaged text: the plan's own spans are counted as lost; there is nothing to show of the others either.
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
    if (looked) e.look = span.look / static_cast<double>(p.prompt.CountedTokens());
    if (looked) e.support = std::min(Support(p.asked, *beside), 1e6);
    for (const WordBeside& word : *beside) {
      e.found.push_back(word.found);
      e.word_look.push_back(word.look);
    }
    e.kept = std::any_of(p.plan.spans.begin(), p.plan.spans.end(), [&](const PlannedSpan& s) {
      return s.document == span.document && s.tokens == span.tokens;
    });
    if (!e.kept) {
      e.why = p.looked && !looked                         ? "not looked at"
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
  while (partial < out.text.size() && (static_cast<uint8_t>(out.text[partial]) & 0xC0) == 0x80) ++partial;
  out.text.erase(0, partial);
  out.bytes = {place.bytes.begin + partial, place.bytes.begin + partial + out.text.size()};
  out.score = span.score;
  // A signal is a reason when it brought a fifth of the score or more.
  const double head = profile_->head_weight * span.head_score, lexical = profile_->lexical_weight * span.lexical_score;
  const bool planned = head + lexical > 0;  // not a follow-up alone
  if (planned && head >= 0.2 * (head + lexical)) out.reasons.push_back("head");
  if (planned && lexical >= 0.2 * (head + lexical)) out.reasons.push_back("lexical");
  if (!planned || span.hops > 0) out.reasons.push_back("follow-up");
  return out;
}

Result<std::vector<RecalledSpan>> Engine::DescribeAll(Planned& p, uint64_t* spans_lost) {
  const IndexReport& index = p.memory->index_report();
  const std::string& name = open_->name;
  if (index.segments_rebuilt > index.segments_stored) {
    Note("memory " + name + ": " + std::to_string(index.segments_rebuilt) + " damaged index segments were built again for this run; 'longhold reindex " +
         name + "' stores them");
  }
  if (index.segments_lost + index.blocks_lost > 0) {
    Note("memory " + name + ": parts of its index are lost, so not all of it is searched; 'longhold verify " + name + "' names the first");
  }
  if (index.lists_lost > 0) {
    Note("memory " + name + ": is searched without lists, which is exact and slower; 'longhold reindex " + name + "' makes them");
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

Result<RecallReply> Engine::Recall(const std::string& memory, std::string_view query, const RecallOptions& options) {
  AskOptions ask;
  ask.recall = options;
  ask.max_tokens = 1;
  LH_ASSIGN_OR_RETURN(Planned p, PlanFor(memory, query, ask));
  RecallReply reply;
  reply.candidates = p.plan.candidates;
  reply.plan_ms = p.plan_ms + p.look_ms;
  if (p.abstained && p.plan.spans.size() > kClosestSpans) p.plan.spans.resize(kClosestSpans);
  LH_ASSIGN_OR_RETURN(reply.spans, DescribeAll(p, &reply.spans_lost));
  reply.coverage = p.plan.Coverage();
  reply.evidence = p.plan.evidence;
  reply.hops = p.hops;
  reply.abstained = p.abstained;
  if (options.explain) LH_RETURN_IF_ERROR(Explain(p, &reply));
  return reply;
}

// Layers that stay with the engine keep no keys of the document, so of a recalled span they see nothing: in Gemma 15 of 18.
// The best spans, as far as they fill half of those layers' window, are therefore read again, right before the question.
size_t Engine::SpansToReread(const RecallPlan& plan) const {
  uint64_t room = profile_->reread_tokens > 0 ? 0 : model_->info().native_window / 2;
  size_t count = 0;
  while (count < plan.spans.size() && plan.spans[count].tokens.size() <= room) room -= plan.spans[count++].tokens.size();
  return count;
}

// Keys and values that were stored while other text of the same form stood in the window hold traces of that text: digits get
// lost, or come from a neighbour. Read again by itself, the place is copied right.
Status Engine::ReadSentences(Planned& p) const {
  std::vector<SpanSentence> sentences;
  if (profile_->reread_tokens == 0) return OkStatus();
  std::vector<ExcerptSpan> spans;
  for (size_t i = 0; i < p.plan.spans.size(); ++i) {
    const PlannedSpan& span = p.plan.spans[i];
    spans.push_back({.score = span.look_gain >= kNeededGain ? 1 : span.score, .by_question = span.hops == 0});
    for (uint64_t t = span.tokens.begin; t < span.tokens.end;) {
      LH_ASSIGN_OR_RETURN(TokenSpan tokens, p.memory->SentenceAt(span.document, t, kExcerptReach));
      // Whole, also where the span cuts it.
      if (!sentences.empty() && sentences.back().span == i) tokens.begin = std::max(tokens.begin, sentences.back().tokens.end);
      t = std::max(tokens.end, t + 1);
      if (tokens.empty()) continue;
      LH_ASSIGN_OR_RETURN(const std::vector<TokenId> ids, p.memory->Tokens(span.document, tokens));
      SpanSentence sentence{.span = i, .tokens = tokens, .peak = tokens.Contains(span.peak), .has = {}, .about = {}};
      // A word that the span does not make likelier stands there by chance.
      const std::vector<LexicalWord> words = vocabulary_->Words(ids);
      for (const LexicalWord& word : words) sentence.stems.push_back(word.Stem());
      std::sort(sentence.stems.begin(), sentence.stems.end());
      sentence.stems.erase(std::unique(sentence.stems.begin(), sentence.stems.end()), sentence.stems.end());
      for (const WordBeside& word : WordsBeside(p.asked, words, span.look_logs, LookBegin(p.prompt))) {
        const double about = span.look_logs.empty() ? 1 : word.look < kFoundLookMin ? 0 : std::min(1.0, word.look / kFoundLookFull);
        sentence.has.push_back(word.found);
        sentence.about.push_back(word.found ? about : 0);
      }
      sentences.push_back(std::move(sentence));
    }
  }
  p.excerpts = ChooseExcerpts(p.asked, sentences, spans, profile_->reread_tokens);
  p.lookalikes = Lookalikes(p.asked, sentences, p.excerpts);
  return OkStatus();
}

void Engine::LeaveOut(std::span<const SpanSentence> sentences, std::vector<Piece>* pieces) {
  for (const SpanSentence& s : sentences) {
    std::vector<Piece> rest;
    for (const Piece& piece : *pieces) {
      const uint64_t base = uint64_t{piece.key.block} * kBlockTokens;
      const uint64_t begin = std::max(s.tokens.begin, base + piece.row_begin), end = std::min(s.tokens.end, base + piece.row_end);
      if (piece.span != s.span || begin >= end) {
        rest.push_back(piece);
        continue;
      }
      Piece before = piece, after = piece;
      before.row_end = static_cast<uint32_t>(begin - base);
      after.row_begin = static_cast<uint32_t>(end - base);
      for (const Piece& part : {before, after}) {
        if (part.row_begin < part.row_end) rest.push_back(part);
      }
    }
    *pieces = std::move(rest);
  }
}

Status Engine::Fetch(Planned& p, size_t reread, AskReply* reply, std::vector<TokenSpan>* places) {
  // The best span stands last, next to the question (design section 1, measurement 6).
  std::vector<Piece> pieces;
  for (size_t i = p.plan.spans.size(); i-- > reread;) AppendPieces(p.plan.spans[i], i, &pieces);
  LeaveOut(p.lookalikes, &pieces);
  Load(p, pieces);

  places->assign(p.plan.spans.size(), TokenSpan{});
  uint32_t index = p.set->size();
  const uint32_t room = p.set->capacity() - index;
  uint32_t used = 0;
  std::vector<const Piece*> kept;
  for (Piece& piece : pieces) {
    const uint32_t rows = piece.row_end - piece.row_begin;
    if (p.Rows(piece) == nullptr) {
      ++reply->blocks_lost;
      continue;
    }
    if (used + rows > room) break;
    piece.index = index + used;
    used += rows;
    TokenSpan& place = (*places)[piece.span];
    if (place.empty()) place.begin = piece.index;
    place.end = piece.index + rows;
    const bool read_again = std::any_of(kept.begin(), kept.end(), [&](const Piece* k) { return k->key == piece.key; });
    kept.push_back(&piece);
    if (read_again) continue;  // another of its rows' parts
    ++reply->blocks_read;
    reply->bytes_read += p.blocks.at(piece.key).bytes;
  }
  p.set->Reserve(used);
  const size_t layers = model_->info().geometry.layers.size();
  model_->Parallel(kept.size() * layers, [&](size_t i) {
    const Piece& piece = *kept[i / layers];
    p.set->PlaceRows(*p.Rows(piece), piece.row_begin, piece.row_end, piece.index, static_cast<uint32_t>(i % layers));
  });
  for (const Piece* piece : kept) {
    const double bias = profile_->gate * std::log(std::max(1e-6, p.plan.spans[piece->span].score));
    p.set->CommitRows(piece->row_end - piece->row_begin, static_cast<float>(bias));
  }
  reply->tokens_recalled = used;
  return OkStatus();
}

// How many of the plan's spans, best first, the context holds beside question and answer.
size_t Engine::SpansThatFit(const Planned& p, const AskOptions& options) const {
  uint64_t room = p.set->capacity() - p.prompt.head.size() - p.prompt.tail.size() - options.max_tokens;
  room -= std::min<uint64_t>(room, profile_->reread_tokens);
  uint64_t wanted = 0;
  size_t fitting = 0;
  for (; fitting < p.plan.spans.size(); ++fitting) {
    wanted += p.plan.spans[fitting].tokens.size();
    if (wanted > room) break;
  }
  return fitting;
}

Result<AskReply> Engine::Ask(const std::string& memory_name, std::string_view question, const AskOptions& options) {
  const Clock::time_point start = Clock::now();
  LH_ASSIGN_OR_RETURN(Planned p, PlanFor(memory_name, question, options));
  // When the context does not hold all spans, the worst go; question and answer keep their room.
  p.plan.spans.resize(SpansThatFit(p, options));
  AskReply reply;
  reply.plan_ms = p.plan_ms;
  reply.scan_ms = p.plan.scan_ms;
  reply.evidence = p.plan.evidence;
  if (p.abstained) return Abstain(p, options, start, std::move(reply));
  LH_ASSIGN_OR_RETURN(std::vector<RecalledSpan> described, DescribeAll(p, &reply.spans_lost));
  reply.hops = p.hops;
  reply.coverage = p.plan.Coverage();
  reply.candidates = p.plan.candidates;
  reply.spans = p.plan.spans.size();
  reply.memory_tokens = p.memory->committed_tokens();
  reply.prompt_tokens = p.prompt.head.size() + p.prompt.tail.size();

  const Clock::time_point recall_start = Clock::now();
  const uint32_t head = p.set->size();
  std::vector<TokenSpan> places;  // of each planned span among the working set's keys
  const size_t reread = SpansToReread(p.plan);
  LH_RETURN_IF_ERROR(ReadSentences(p));
  LH_RETURN_IF_ERROR(Fetch(p, reread, &reply, &places));
  const Clock::time_point prompt_start = Clock::now();
  reply.recall_ms = p.look_ms + Milliseconds(recall_start, prompt_start);

  WorkingSet& set = *p.set;
  uint32_t position = head;
  for (size_t i = reread; i-- > 0;) {
    const PlannedSpan& span = p.plan.spans[i];
    LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, p.memory->Tokens(span.document, span.tokens));
    if (set.size() + tokens.size() + p.prompt.tail.size() + options.max_tokens > set.capacity()) continue;
    places[i] = {set.size(), set.size() + tokens.size()};
    LH_RETURN_IF_ERROR(RunTokens(*model_, set, tokens, position, false));
    position += static_cast<uint32_t>(tokens.size());
    reply.tokens_recalled += tokens.size();
  }
  // Worst first, as everywhere, in one pass; read[i] are the keys of span i's sentences. What says as much of the question as anything
  // comes in the text's order: where a thing changes, the last word on it counts.
  const auto reading_order = [&](const SpanSentence& s) {
    const bool full = s.share >= kFullShare;
    return std::tuple(full, full ? uint64_t{0} : p.plan.spans.size() - s.span, full ? p.plan.spans[s.span].document : DocumentId{},
                      s.tokens.begin);
  };
  std::stable_sort(p.excerpts.begin(), p.excerpts.end(), [&](const SpanSentence& a, const SpanSentence& b) { return reading_order(a) < reading_order(b); });
  LH_ASSIGN_OR_RETURN(const std::vector<TokenId> line_break, model_->Tokenize("\n", false));
  std::vector<TokenSpan> read(p.plan.spans.size());
  std::vector<TokenId> text_again;
  LongWords long_words;
  for (const SpanSentence& excerpt : p.excerpts) {
    LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, p.memory->Tokens(p.plan.spans[excerpt.span].document, excerpt.tokens));
    const uint64_t wanted = text_again.size() + line_break.size() + tokens.size() + p.prompt.tail.size() + options.max_tokens;
    if (set.size() + wanted > set.capacity()) continue;
    if (!text_again.empty()) text_again.insert(text_again.end(), line_break.begin(), line_break.end());
    const uint64_t begin = set.size() + text_again.size();
    std::vector<std::string> pieces;
    for (TokenId id : tokens) pieces.push_back(model_->Piece(id));
    long_words.Add(tokens, pieces);
    TokenSpan& keys = read[excerpt.span];
    keys = {keys.empty() ? begin : keys.begin, begin + tokens.size()};
    text_again.insert(text_again.end(), tokens.begin(), tokens.end());
  }
  LH_RETURN_IF_ERROR(RunTokens(*model_, set, text_again, position, false));
  position += static_cast<uint32_t>(text_again.size());
  reply.tokens_reread = text_again.size();

  uint32_t tail_at = set.size(), tail_position = position;
  set.CountMass();
  LH_RETURN_IF_ERROR(RunTokens(*model_, set, p.prompt.tail, position, true));
  position += static_cast<uint32_t>(p.prompt.tail.size());
  const auto sampler = model_->NewSampler(options.sampler);
  std::string text;
  std::vector<float> favoured;
  const auto sample = [&] {
    const std::span<const float> logits = model_->logits();
    return sampler->Sample(long_words.Favour(text, logits, &favoured) ? favoured : logits);
  };
  TokenId token = sample();
  const Clock::time_point first = Clock::now();
  reply.prompt_ms = Milliseconds(prompt_start, first);
  reply.first_token_ms = Milliseconds(start, first);

  size_t shown = 0;
  const bool plain = !model_->info().chat;
  std::vector<TokenId> generated;
  uint32_t count = 0;
  for (;; ++count) {
    if (model_->EndsAnswer(token) || (options.stop != nullptr && options.stop->load())) break;
    if (count >= options.max_tokens || set.size() >= set.capacity()) { reply.cut = true; break; }
    text += model_->Piece(token);
    // A model without a chat template goes on with questions of its own: its answer is the first line.
    const size_t first_word = text.find_first_not_of(" \n");  // npos while there is none, and then there is no newline after it
    const size_t newline = plain ? text.find('\n', first_word) : std::string::npos;
    if (newline != std::string::npos) text.resize(newline);
    if (options.on_text) {
      const size_t whole = WholeCharacters(text);
      if (whole > shown) options.on_text(std::string_view(text).substr(shown, whole - shown));
      shown = std::max(shown, whole);
    }
    if (newline != std::string::npos) { ++count; break; }
    LH_RETURN_IF_ERROR(RunTokens(*model_, set, std::span(&token, 1), position++, true));
    generated.push_back(token);
    LH_ASSIGN_OR_RETURN(const std::optional<PlannedSpan> heard, p.follow->After(generated, p.plan));
    if (heard.has_value()) {
      LH_ASSIGN_OR_RETURN(const TokenSpan place,
                          Refresh(p, *heard, generated, options.max_tokens - count, &described, &tail_at, &tail_position, &reply));
      position = tail_position + static_cast<uint32_t>(p.prompt.tail.size() + generated.size());
      if (!place.empty()) {
        places.push_back(place);
        read.emplace_back();
      }
    }
    token = sample();
  }
  reply.completion_tokens = count;
  reply.decode_ms = Milliseconds(first, Clock::now());
  // The first token came with the prompt.
  reply.decode_tok_s = count > 1 ? 1000.0 * count / reply.decode_ms : 0;
  reply.answer = Trim(text);

  const std::vector<double> mass = set.Mass();
  double total = 0;
  std::vector<double> received(p.plan.spans.size(), 0);
  for (size_t i = 0; i < places.size(); ++i) {
    for (uint64_t k = places[i].begin; k < places[i].end; ++k) received[i] += mass[k];
    for (uint64_t k = read[i].begin; k < read[i].end; ++k) received[i] += mass[k];
    total += received[i];
  }
  std::vector<size_t> order(places.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return received[a] > received[b]; });
  for (size_t i : order) {
    if (places[i].empty() && read[i].empty()) continue;  // nothing of it was before the model
    Citation citation;
    citation.index = static_cast<uint32_t>(reply.citations.size() + 1);
    citation.span = described[i];
    citation.span.score = total > 0 ? received[i] / total : 0;
    reply.citations.push_back(std::move(citation));
  }
  return reply;
}

Result<TokenSpan> Engine::Refresh(Planned& p, const PlannedSpan& span, std::span<const TokenId> generated, uint32_t answer_tokens,
                                  std::vector<RecalledSpan>* described, uint32_t* tail_at, uint32_t* position, AskReply* reply) {
  WorkingSet& set = *p.set;
  const auto rows = static_cast<uint32_t>(span.tokens.size());
  if (set.size() + rows + answer_tokens > set.capacity()) return TokenSpan{};
  Result<RecalledSpan> description = Describe(*p.memory, span);
  if (!description.ok() && description.status().code() == StatusCode::kDataLoss) {
    ++reply->spans_lost;
    return TokenSpan{};
  }
  if (!description.ok()) return description.status();
  std::vector<Piece> pieces;
  std::vector<TokenId> text;
  if (model_->info().native_window > 0) {
    // Read again, as all that the native layers are to see (docs/decisions/0004).
    LH_ASSIGN_OR_RETURN(text, p.memory->Tokens(span.document, span.tokens));
  } else {
    AppendPieces(span, 0, &pieces);
    Load(p, pieces);
    for (const Piece& piece : pieces) {
      if (p.Rows(piece) != nullptr) continue;
      ++reply->blocks_lost;
      return TokenSpan{};
    }
  }
  const uint32_t begin = *tail_at;
  set.Truncate(*tail_at);
  model_->NativeForget(*position, UINT32_MAX);
  const auto bias = static_cast<float>(profile_->gate * std::log(std::max(1e-6, span.score)));
  for (const Piece& piece : pieces) {
    set.AppendBlock(*p.Rows(piece), piece.row_begin, piece.row_end, bias);
    ++reply->blocks_read;
    reply->bytes_read += p.blocks.at(piece.key).bytes;
  }
  LH_RETURN_IF_ERROR(RunTokens(*model_, set, text, *position, false));
  *position += static_cast<uint32_t>(text.size());
  *tail_at = set.size();
  // Attention is counted anew: the tokens that gave it run again.
  set.CountMass();
  LH_RETURN_IF_ERROR(RunTokens(*model_, set, p.prompt.tail, *position, generated.empty()));
  LH_RETURN_IF_ERROR(RunTokens(*model_, set, generated, *position + static_cast<uint32_t>(p.prompt.tail.size()), true));
  p.plan.spans.push_back(span);
  described->push_back(std::move(*description));
  reply->tokens_recalled += rows;
  ++reply->refreshes;
  ++reply->spans;
  return TokenSpan{begin, *tail_at};
}

Result<AskReply> Engine::Abstain(Planned& p, const AskOptions& options, Clock::time_point start, AskReply reply) {
  p.plan.spans.resize(std::min<size_t>(p.plan.spans.size(), 1));
  LH_ASSIGN_OR_RETURN(reply.closest, DescribeAll(p, &reply.spans_lost));
  reply.abstained = true;
  reply.answer = kAbstention;
  if (options.on_text) options.on_text(kAbstention);
  reply.candidates = p.plan.candidates;
  reply.memory_tokens = p.memory->committed_tokens();
  reply.prompt_tokens = p.prompt.head.size() + p.prompt.tail.size();
  reply.recall_ms = p.look_ms;
  reply.first_token_ms = Milliseconds(start, Clock::now());
  return reply;
}

Result<MemoryInfo> Engine::Show(const std::string& name) {
  LH_ASSIGN_OR_RETURN(Memory* memory, Open(name, Access::kRead, false));
  MemoryInfo info;
  info.name = name;
  info.model = memory->manifest().model_name;
  info.model_fingerprint = memory->manifest().model_fingerprint;
  info.codec = memory->manifest().codec;
  for (const DocumentRecord& d : memory->documents()) {
    info.documents.push_back({d.id, d.name, d.aliases, d.bytes, d.tokens, d.committed_tokens, d.version});
  }
  info.tokens = memory->committed_tokens();
  LH_ASSIGN_OR_RETURN(info.disk_bytes, memory->store().DiskBytes());
  return info;
}

Result<std::vector<MemoryInfo>> Engine::List() {
  std::vector<std::string> names;
  std::error_code ec;
  const fs::path root = fs::path(options_.home) / "memories";
  for (const auto& entry : fs::directory_iterator(root, ec)) {
    if (entry.is_directory() && CheckName(entry.path().filename().string()).ok()) names.push_back(entry.path().filename().string());
  }
  if (ec && ec != std::errc::no_such_file_or_directory) {
    return InvalidArgument("home " + options_.home + ": cannot be read (" + ec.message() + "); choose another with --home");
  }
  std::sort(names.begin(), names.end());
  std::vector<MemoryInfo> list;
  for (const std::string& name : names) {
    Result<MemoryInfo> info = Show(name);
    if (info.ok()) {
      list.push_back(std::move(*info));
    } else if (info.status().code() != StatusCode::kNotFound) {
      MemoryInfo damaged;
      damaged.name = name;
      damaged.status = info.status();
      for (const auto& entry : fs::directory_iterator(PathOf(name), ec)) {
        std::error_code gone;
        const uintmax_t size = entry.file_size(gone);
        if (!gone) damaged.disk_bytes += size;
      }
      list.push_back(std::move(damaged));
    }
  }
  return list;
}

Result<ReindexReport> Engine::Reindex(const std::string& name, const std::atomic<bool>* stop,
                                      const std::function<void(const IngestProgress&)>& on_progress) {
  LH_CHECK(model_ != nullptr);
  const Clock::time_point start = Clock::now();
  const size_t notes = notes_.size();
  LH_ASSIGN_OR_RETURN(Memory* memory, Open(name, Access::kWrite, true));
  notes_.resize(notes);  // what Open has to say is what this call is for
  ReindexReport report;
  report.other_heads = !memory->HasHeadsOf(*profile_);
  LH_ASSIGN_OR_RETURN(const IndexReport index, memory->Reindex(
      *profile_, WorkersOf(*model_), stop,
      [&](uint64_t done, uint64_t total) {
        const double seconds = Milliseconds(start, Clock::now()) / 1000;
        if (on_progress) on_progress({name, done, total, seconds > 0 ? static_cast<double>(done) / seconds : 0});
      }));
  LH_RETURN_IF_ERROR(memory->BuildLists(WorkersOf(*model_)));
  report.tokens = memory->committed_tokens();
  report.segments = index.segments;
  report.segments_rebuilt = index.segments_rebuilt;
  report.segments_lost = index.segments_lost;
  report.blocks_lost = index.blocks_lost;
  report.seconds = Milliseconds(start, Clock::now()) / 1000;
  return report;
}

Status Engine::Forget(const std::string& name, const std::string& document, bool compact) {
  if (document.empty()) {
    // Nothing of it is decoded: what is damaged, or another model's, can go as well.
    LH_RETURN_IF_ERROR(Exists(name));
    open_.reset();
    const Status removed = RemoveRocksStore(PathOf(name));
    return removed.ok() ? removed : Status(removed.code(), "memory " + name + ": " + removed.message());
  }
  LH_ASSIGN_OR_RETURN(Memory* memory, Open(name, Access::kWrite, false));
  bool found = false;
  for (const DocumentRecord* d = memory->Find(document); d != nullptr; d = memory->Find(document)) {
    found = true;
    const DocumentId id = d->id;
    LH_RETURN_IF_ERROR(memory->Forget(id, document));
    for (const DocumentRecord& kept : memory->documents()) {
      if (kept.id == id) Note("memory " + name + ": the text stays, as " + kept.name);
    }
  }
  if (!found) {
    return NotFound("memory " + name + ": has no document " + document + "; 'longhold show " + name + "' lists them");
  }
  return compact ? memory->store().Compact() : OkStatus();
}

Status Engine::Compact(const std::string& name) {
  LH_ASSIGN_OR_RETURN(Memory* memory, Open(name, Access::kWrite, false));
  LH_RETURN_IF_ERROR(memory->BuildLists(SerialFor));  // no model, so no workers
  return memory->store().Compact();
}

Status Engine::Verify(const std::string& name) {
  LH_ASSIGN_OR_RETURN(Memory* memory, Open(name, Access::kRead, false));
  return memory->Verify();
}

}  // namespace longhold
