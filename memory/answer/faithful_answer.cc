#include "memory/answer/faithful_answer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "memory/answer/citations.h"
#include "memory/answer/copy_bias.h"
#include "memory/answer/decoder.h"
#include "memory/core/elapsed.h"
#include "memory/recall/describe.h"
#include "memory/recall/question.h"

namespace longhold {
namespace {

constexpr size_t kCitedBlocks = 8;
// A cited place grows to whole lines that are so near.
constexpr uint32_t kCitedLineTokens = 64;
// What is asked for shows in the prompt's last tokens; more of them cost time and say the same.
constexpr uint32_t kAskingTokens = 64;
// Workers that pick and decode at the same time, for the budget: more add few bytes in comparison.
constexpr uint32_t kPickWorkers = 8;

uint64_t BlocksOf(const DocumentRecord& d) {
  return (d.committed_tokens + kBlockTokens - 1) / kBlockTokens;
}

// A place that was attended to. Value type.
struct CitedPlace {
  DocumentId document{};
  TokenSpan tokens;
  double mass = 0;
};

// Grows the place to whole lines, and joins it to the last of `places` where they meet.
Status AddPlace(Memory& memory, CitedPlace place, std::vector<CitedPlace>* places) {
  LH_ASSIGN_OR_RETURN(place.tokens,
                      memory.GrowToLines(place.document, place.tokens, kCitedLineTokens));
  if (!places->empty() && places->back().document == place.document &&
      places->back().tokens.end >= place.tokens.begin) {
    places->back().tokens.end = std::max(places->back().tokens.end, place.tokens.end);
    places->back().mass += place.mass;
  } else {
    places->push_back(place);
  }
  return OkStatus();
}

}  // namespace

FaithfulAnswer::FaithfulAnswer(const ModelContext& context, Memory& memory, MemoryBudget& budget,
                               Notes& notes, const AskOptions& options)
    : context_(context),
      model_(*context.model),
      memory_(memory),
      budget_(budget),
      notes_(notes),
      options_(options) {}

Result<AskReply> FaithfulAnswer::Run(std::string_view question) {
  LH_ASSIGN_OR_RETURN(prompt_, BuildPrompt(model_, question,
                                           {.system = options_.system,
                                            .earlier = options_.earlier,
                                            .answer_prefix = options_.answer_prefix}));
  const ModelInfo& info = context_.info();
  LH_RETURN_IF_ERROR(
      RoomForContext(info, NativeLength(info), prompt_, options_.max_tokens).status());
  LH_RETURN_IF_ERROR(ReadText());
  LH_RETURN_IF_ERROR(ChooseSizes());
  LH_RETURN_IF_ERROR(Reserve());
  LH_RETURN_IF_ERROR(Probe());
  LH_RETURN_IF_ERROR(Answer());
  if (options_.characters) LH_RETURN_IF_ERROR(PlaceCitations(memory_, &reply_.citations));
  return std::move(reply_);
}

Status FaithfulAnswer::ReadText() {
  const KvGeometry& geometry = context_.info().geometry;
  uint64_t count = 0;
  for (const DocumentRecord& d : memory_.documents()) count += BlocksOf(d);
  const uint64_t pick_bytes = PickBlocksBytes(geometry, count, kAskingTokens, kPickWorkers);
  LH_ASSIGN_OR_RETURN(summary_memory_,
                      budget_.Reserve(SummarySegment::Bytes(geometry, count) + pick_bytes,
                                      "the summaries of memory " + memory_.name()));
  for (const DocumentRecord& d : memory_.documents()) {
    uint64_t lost = 0;  // of those that are picked, Place counts them
    LH_ASSIGN_OR_RETURN(std::vector<SummarySegment> segments,
                        memory_.Summaries(d.id, geometry, WorkersOf(model_), &lost));
    for (SummarySegment& s : segments) segments_.push_back(std::move(s));
  }
  LH_RETURN_IF_ERROR(ReadEnd());
  for (const SummarySegment& s : segments_) {
    const DocumentRecord& d = memory_.Get(s.document);
    for (uint32_t b = 0; b < s.block_count; ++b) {
      const uint64_t begin = (uint64_t{s.block_begin} + b) * kBlockTokens;
      if (!end_tokens_.empty() && d.id == end_document_ && begin >= end_span_.begin) break;
      const auto tokens =
          static_cast<uint32_t>(std::min<uint64_t>(kBlockTokens, d.committed_tokens - begin));
      blocks_.push_back({.block = {{s.document, s.block_begin + b},
                                   tokens,
                                   static_cast<uint32_t>(prompt_.head.size() + text_tokens_)},
                         .segment = &s,
                         .index = b});
      text_tokens_ += tokens;
    }
  }
  FixEnds();
  return OkStatus();
}

Status FaithfulAnswer::ReadEnd() {
  const uint64_t window = context_.info().native_window;
  const DocumentRecord* last = nullptr;
  for (const DocumentRecord& d : memory_.documents()) {
    if (d.committed_tokens > 0) last = &d;
  }
  if (last == nullptr || window == 0) return OkStatus();
  const uint64_t tokens = last->committed_tokens;
  const uint64_t begin =
      (tokens - std::min(tokens, window) + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
  Result<std::vector<TokenId>> end = memory_.Tokens(last->id, {begin, tokens});
  if (end.status().code() == StatusCode::kDataLoss) {
    // Native layers do not see the text's end; the others see its blocks.
    ++reply_.degradation.spans_lost;
    return OkStatus();
  }
  if (!end.ok()) return end.status();
  end_tokens_ = std::move(*end);
  end_document_ = last->id;
  end_span_ = {begin, tokens};
  return OkStatus();
}

void FaithfulAnswer::FixEnds() {
  const Manifest& m = memory_.manifest();
  const auto blocks = [&](uint32_t tokens) {
    return std::min<size_t>(blocks_.size(), (tokens + kBlockTokens - 1) / kBlockTokens);
  };
  const size_t sinks = blocks(m.sink_tokens),
               recent = end_tokens_.empty() ? blocks(m.window_tokens) : 0;
  for (size_t b = 0; b < blocks_.size(); ++b)
    blocks_[b].fixed = b < sinks || b >= blocks_.size() - recent;
}

Status FaithfulAnswer::Refuse(uint64_t blocks) const {
  return ResourceExhausted("the question has no room beside the begin and end of memory " +
                           memory_.name() + " (" + std::to_string(blocks) +
                           " blocks of 64 tokens); give more with --memory-budget, ask for a "
                           "shorter answer, or let it attend focused");
}

Status FaithfulAnswer::ChooseSizes() {
  const ModelInfo& info = context_.info();
  Sizes& s = sizes_;
  s.head = static_cast<uint32_t>(prompt_.head.size());
  s.tail = static_cast<uint32_t>(prompt_.tail.size());
  s.end = static_cast<uint32_t>(end_tokens_.size());
  s.blocks = blocks_.size();
  s.fixed = static_cast<uint64_t>(std::count_if(blocks_.begin(), blocks_.end(),
                                                [](const SummarisedBlock& b) { return b.fixed; }));
  const uint32_t answer_min = std::min(options_.max_tokens, kAnswerTokensMin);
  const uint64_t room = NativeLength(info) - s.head - s.tail;
  if (room < uint64_t{s.end} + answer_min) return Refuse(s.end / kBlockTokens);
  // Of what is left the text may take all but an answer's least.
  const uint64_t answer_room = room - s.end;
  s.in_place = text_tokens_ + answer_min <= answer_room;
  const double share = std::get<FaithfulOptions>(options_.attend).share;
  s.picked = std::min(
      s.blocks,
      std::max<uint64_t>(kAttendBlocksMin,
                         static_cast<uint64_t>(std::ceil(share * static_cast<double>(s.blocks)))));
  s.answer_tokens = std::min<uint64_t>(options_.max_tokens,
                                       s.in_place ? answer_room - text_tokens_ : kAnswerTokensMin);
  if (!s.in_place) s.picked = std::min(s.picked, (answer_room - s.answer_tokens) / kBlockTokens);
  s.picked = std::max(s.picked, s.fixed);
  if (!s.in_place && s.picked * kBlockTokens + s.answer_tokens > answer_room)
    return Refuse(s.fixed);
  if (!s.in_place) {
    s.answer_tokens =
        std::min<uint64_t>(options_.max_tokens, answer_room - s.picked * kBlockTokens);
  }
  s.own = uint64_t{s.head} + s.end + s.tail + s.answer_tokens;
  s.shift = static_cast<uint32_t>(s.in_place ? text_tokens_ : s.picked * kBlockTokens);
  // Blocks are picked by the text's own positions, as far as the model has learned them.
  s.positions = std::max<uint64_t>(s.own + s.shift,
                                   std::min<uint64_t>(s.own + text_tokens_, NativeLength(info)));
  return OkStatus();
}

Status FaithfulAnswer::Reserve() {
  const KvGeometry& geometry = context_.info().geometry;
  Sizes& s = sizes_;
  const uint64_t decoding = kPickWorkers * memory_.block_shape().Elements() * 2 * sizeof(float);
  LH_ASSIGN_OR_RETURN(
      set_memory_, budget_.Reserve(WorkingSet::Bytes(geometry, s.own) +
                                       s.positions * geometry.head_dim * sizeof(float) + decoding,
                                   "the question"));
  const uint64_t each = PickedBlocks::Bytes(geometry, 1);
  const uint64_t affordable = budget_.RoomFor(s.picked + s.fixed, each);
  if (affordable < 2 * s.fixed) return Refuse(s.fixed);
  if (affordable < s.picked + s.fixed) {
    notes_.Add("the memory budget has room for " + std::to_string(affordable - s.fixed) + " of " +
               std::to_string(s.picked) +
               " blocks that each head would see; give more with --memory-budget");
    s.picked = affordable - s.fixed;
  }
  LH_ASSIGN_OR_RETURN(picked_memory_,
                      budget_.Reserve((s.picked + s.fixed) * each, "the blocks that heads pick"));
  set_ = std::make_unique<WorkingSet>(geometry, static_cast<uint32_t>(s.own),
                                      static_cast<uint32_t>(s.positions - s.own));
  return OkStatus();
}

Status FaithfulAnswer::Probe() {
  const KvGeometry& geometry = context_.info().geometry;
  const Sizes& s = sizes_;
  model_.NativeForget(0, UINT32_MAX);
  LH_RETURN_IF_ERROR(RunTokens(model_, *set_, prompt_.head, 0, false));
  std::vector<uint32_t> ends;
  for (uint32_t b = 0; b < blocks_.size(); ++b) {
    if (blocks_[b].fixed) ends.push_back(b);
  }
  for (uint32_t slot = 0; slot < geometry.layers.size(); ++slot) asked_.slots.push_back(slot);
  asked_.queries.resize(asked_.slots.size());
  const size_t lists = geometry.layers.size() * geometry.kv_heads;
  PickedBlocks around(geometry, set_->ropes(), std::vector<std::vector<uint32_t>>(lists, ends),
                      static_cast<uint32_t>(s.blocks), s.in_place ? nullptr : &s.head);
  Place(&around);
  // Where blocks stand in a row, the text's end stands next to the question here too; but what is
  // re-encoded stays where it is for good.
  set_->AttendAlso(
      &around, s.in_place || s.end > 0 ? s.shift : static_cast<uint32_t>(s.fixed * kBlockTokens));
  LH_RETURN_IF_ERROR(RunTokens(model_, *set_, end_tokens_, s.head, false));
  const uint32_t asking = std::min(kAskingTokens, s.tail);
  const std::span<const TokenId> tail(prompt_.tail);
  LH_RETURN_IF_ERROR(RunTokens(model_, *set_, tail.first(s.tail - asking), s.head + s.end, false));
  set_->Capture(&asked_);
  const Status ran =
      RunTokens(model_, *set_, tail.last(asking), s.head + s.end + s.tail - asking, false);
  set_->Capture(nullptr);
  set_->AttendAlso(nullptr, 0);
  LH_RETURN_IF_ERROR(ran);
  set_->Truncate(s.head + s.end);
  model_.NativeForget(s.head + s.end, UINT32_MAX);
  return OkStatus();
}

void FaithfulAnswer::Place(PickedBlocks* picked) {
  const std::vector<uint32_t> wanted = picked->Wanted();
  std::vector<uint64_t> bytes(wanted.size(), 0);
  std::vector<uint8_t> lost(wanted.size(), 0);
  model_.Parallel(wanted.size(), [&](size_t i) {
    const PickableBlock& block = blocks_[wanted[i]].block;
    const Result<KvBlock> loaded = memory_.LoadBlock(block.key, &bytes[i]);
    lost[i] = !loaded.ok() || loaded->tokens < block.tokens;
    if (!lost[i]) picked->Place(wanted[i], block, *loaded);
  });
  reply_.blocks_read = reply_.bytes_read = reply_.degradation.blocks_lost = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    reply_.degradation.blocks_lost += lost[i];
    reply_.blocks_read += !lost[i];
    reply_.bytes_read += bytes[i];
  }
}

Status FaithfulAnswer::Answer() {
  const KvGeometry& geometry = context_.info().geometry;
  const Sizes& s = sizes_;
  const Clock::time_point scan = Clock::now();
  const uint64_t asked_at =
      uint64_t{s.head} + text_tokens_ + s.end + s.tail - std::min(kAskingTokens, s.tail);
  FaithfulPicks picks = PickBlocks(geometry, set_->ropes(), blocks_, asked_, asked_at,
                                   static_cast<uint32_t>(s.picked), WorkersOf(model_));
  const Clock::time_point planned = Clock::now();
  reply_.timings.scan_ms = Milliseconds(scan, planned);
  reply_.timings.plan_ms = Milliseconds(start_, planned);
  reply_.coverage = picks.coverage;

  PickedBlocks picked(geometry, set_->ropes(), std::move(picks.blocks),
                      static_cast<uint32_t>(s.blocks), s.in_place ? nullptr : &s.head);
  Place(&picked);
  set_->AttendAlso(&picked, s.shift);
  const Clock::time_point prompt_start = Clock::now();
  reply_.timings.recall_ms = Milliseconds(planned, prompt_start);
  reply_.candidates = s.blocks;
  reply_.memory_tokens = memory_.committed_tokens();
  reply_.prompt_tokens = uint64_t{s.head} + s.tail;
  reply_.tokens_recalled = std::min(s.picked * kBlockTokens, text_tokens_);
  reply_.tokens_reencoded = s.end;
  AskProgress progress{.tokens = reply_.prompt_tokens + reply_.tokens_recalled + s.end,
                       .from_memory = reply_.tokens_recalled,
                       .done = s.head + reply_.tokens_recalled + s.end,
                       .ms = Milliseconds(start_, prompt_start)};
  if (options_.on_progress) options_.on_progress(progress);
  set_->CountMass();
  LH_RETURN_IF_ERROR(RunTokens(model_, *set_, prompt_.tail, s.head + s.end, true));
  progress.done = progress.tokens;
  progress.ms = Milliseconds(start_, Clock::now());
  if (options_.on_progress) options_.on_progress(progress);
  const CopyBias none;
  LH_RETURN_IF_ERROR(Decode(model_, *set_,
                            {.ask = options_,
                             .answer_tokens = static_cast<uint32_t>(s.answer_tokens),
                             .copy_bias = none,
                             .deadline = nullptr,
                             .question_start = start_,
                             .prompt_start = prompt_start,
                             .position = s.head + s.end + s.tail,
                             .on_token = {},
                             .cite = {}},
                            &reply_));
  const Status cited = Cite(picked.Mass(), set_->Mass());
  set_->AttendAlso(nullptr, 0);
  return cited;
}

Status FaithfulAnswer::Cite(const std::vector<double>& mass, const std::vector<double>& own_mass) {
  std::vector<size_t> order;
  // Heads park what they have no use for at the text's first token (memory/index/scan_index.h).
  for (size_t b = blocks_.size() > 1 ? 1 : 0; b < blocks_.size(); ++b) {
    if (mass[b] > 0) order.push_back(b);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return mass[a] > mass[b]; });
  order.resize(std::min(order.size(), kCitedBlocks));
  std::sort(order.begin(), order.end());
  std::vector<CitedPlace> places;
  for (const size_t b : order) {
    const PickableBlock& block = blocks_[b].block;
    const uint64_t begin = uint64_t{block.key.block} * kBlockTokens;
    LH_RETURN_IF_ERROR(
        AddPlace(memory_, {block.key.document, {begin, begin + block.tokens}, mass[b]}, &places));
  }
  if (!end_tokens_.empty()) {
    CitedPlace end{end_document_, end_span_, 0};
    for (size_t i = 0; i < end_tokens_.size(); ++i) end.mass += own_mass[sizes_.head + i];
    LH_RETURN_IF_ERROR(AddPlace(memory_, end, &places));
  }
  std::stable_sort(places.begin(), places.end(),
                   [](const CitedPlace& a, const CitedPlace& b) { return a.mass > b.mass; });
  double total = 0;
  for (const CitedPlace& place : places) total += place.mass;
  for (const CitedPlace& place : places) {
    PlannedSpan span;
    span.document = place.document;
    span.tokens = place.tokens;
    span.score = total > 0 ? place.mass / total : 0;
    Result<RecalledSpan> described = Describe(memory_, context_.profile, span);
    if (described.status().code() == StatusCode::kDataLoss) {
      ++reply_.degradation.spans_lost;
      continue;
    }
    if (!described.ok()) return described.status();
    described->reasons = {"attention"};
    reply_.citations.push_back({.index = static_cast<uint32_t>(reply_.citations.size() + 1),
                                .span = std::move(*described),
                                .characters = {}});
  }
  reply_.spans = reply_.citations.size();
  return OkStatus();
}

}  // namespace longhold
