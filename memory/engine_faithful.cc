// An answer near the model's full attention: the text's begin and end, and of the rest what each
// layer and KV head picks for itself.
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/text.h"
#include "memory/answer/copy_bias.h"
#include "memory/answer/faithful_plan.h"
#include "memory/attend/picked_blocks.h"
#include "memory/engine_planned.h"

namespace longhold {
namespace {

using Clock = EngineClock;

constexpr size_t kCitedBlocks = 8;
// A cited place grows to whole lines that are so near.
constexpr uint32_t kCitedLineTokens = 64;
// What is asked for is told by the prompt's last tokens; more of them cost time and say the same.
constexpr uint32_t kAskingTokens = 64;
// What picks and decodes at the same time, for the budget: workers beyond are few bytes each in
// comparison.
constexpr uint32_t kPickWorkers = 8;

}  // namespace

std::string_view AttendName(Attend attend) {
  return attend == Attend::kFaithful ? "faithful" : "focused";
}

std::optional<Attend> FindAttend(std::string_view name) {
  for (const Attend attend : {Attend::kFocused, Attend::kFaithful}) {
    if (AttendName(attend) == name) return attend;
  }
  return std::nullopt;
}

// All of a memory's text in the order in which it was ingested, as blocks with their summaries, and
// its end, which a model with native layers reads again.
struct Engine::Text {
  std::vector<SummarySegment> segments;
  std::vector<SummarisedBlock> blocks;
  std::vector<TokenId> again;  // the last document's last tokens, which are in no block here
  DocumentId again_document{};
  TokenSpan again_tokens;
  uint64_t tokens = 0;      // of the blocks
  uint64_t spans_lost = 0;  // what should be read again, and is damaged
  MemoryReservation memory;
};

Result<Engine::Text> Engine::ReadText(Memory& memory, uint64_t head_tokens) {
  const ModelInfo& info = model_->info();
  Text text;
  uint64_t count = 0;
  for (const DocumentRecord& d : memory.documents())
    count += (d.committed_tokens + kBlockTokens - 1) / kBlockTokens;
  const uint64_t pick_bytes = PickBlocksBytes(info.geometry, count, kAskingTokens, kPickWorkers);
  LH_ASSIGN_OR_RETURN(text.memory,
                      budget_.Reserve(SummarySegment::Bytes(info.geometry, count) + pick_bytes,
                                      "the summaries of memory " + memory.name()));
  for (const DocumentRecord& d : memory.documents()) {
    uint64_t lost = 0;  // of those that are picked, PlacePicked tells
    LH_ASSIGN_OR_RETURN(std::vector<SummarySegment> segments,
                        memory.Summaries(d.id, info.geometry, WorkersOf(*model_), &lost));
    for (SummarySegment& s : segments) text.segments.push_back(std::move(s));
  }
  const DocumentRecord* last = nullptr;
  for (const DocumentRecord& d : memory.documents()) {
    if (d.committed_tokens > 0) last = &d;
  }
  uint64_t kept = UINT64_MAX;  // of the last document's blocks
  if (last != nullptr && info.native_window > 0) {
    const uint64_t first =
        (last->committed_tokens - std::min<uint64_t>(last->committed_tokens, info.native_window) +
         kBlockTokens - 1) /
        kBlockTokens;
    Result<std::vector<TokenId>> again =
        memory.Tokens(last->id, {first * kBlockTokens, last->committed_tokens});
    if (!again.ok() && again.status().code() != StatusCode::kDataLoss) return again.status();
    if (again.ok()) {
      kept = first;
      text.again = std::move(*again);
      text.again_document = last->id;
      text.again_tokens = {first * kBlockTokens, last->committed_tokens};
    } else {
      ++text.spans_lost;  // native layers do not see the text's end; the others see its blocks
    }
  }
  for (const SummarySegment& s : text.segments) {
    const DocumentRecord& d = memory.Get(s.document);
    for (uint32_t b = 0; b < s.block_count; ++b) {
      const uint32_t number = s.block_begin + b;
      if (&d == last && number >= kept) break;
      const auto tokens = static_cast<uint32_t>(
          std::min<uint64_t>(kBlockTokens, d.committed_tokens - uint64_t{number} * kBlockTokens));
      text.blocks.push_back({.block = {{s.document, number},
                                       tokens,
                                       static_cast<uint32_t>(head_tokens + text.tokens)},
                             .segment = &s,
                             .index = b});
      text.tokens += tokens;
    }
  }
  // Begin and end of the text are seen by every head, as they were while it was read.
  const Manifest& m = memory.manifest();
  const size_t n = text.blocks.size();
  const size_t sinks = std::min<size_t>(n, (m.sink_tokens + kBlockTokens - 1) / kBlockTokens);
  const size_t recent =
      text.again.empty() ? std::min<size_t>(n, (m.window_tokens + kBlockTokens - 1) / kBlockTokens)
                         : 0;
  for (size_t b = 0; b < n; ++b) text.blocks[b].fixed = b < sinks || b >= n - recent;
  return text;
}

void Engine::PlacePicked(Memory& memory, const Text& text, PickedBlocks* picked, AskReply* reply) {
  const std::vector<uint32_t> wanted = picked->Wanted();
  std::vector<uint64_t> bytes(wanted.size(), 0);
  std::vector<uint8_t> lost(wanted.size(), 0);
  model_->Parallel(wanted.size(), [&](size_t i) {
    const PickableBlock& block = text.blocks[wanted[i]].block;
    const Result<KvBlock> loaded = memory.LoadBlock(block.key, &bytes[i]);
    lost[i] = !loaded.ok() || loaded->tokens < block.tokens;
    if (!lost[i]) picked->Place(wanted[i], block, *loaded);
  });
  reply->blocks_read = reply->bytes_read = reply->blocks_lost = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    reply->blocks_lost += lost[i];
    reply->blocks_read += !lost[i];
    reply->bytes_read += bytes[i];
  }
}

Result<AskReply> Engine::AskFaithful(const std::string& memory_name, std::string_view question,
                                     const AskOptions& options) {
  LH_CHECK(model_ != nullptr);
  LH_RETURN_IF_ERROR(CheckQuestion(question));
  LH_ASSIGN_OR_RETURN(Memory * memory, Open(memory_name, Access::kRead, true));
  const Clock::time_point start = Clock::now();
  const ModelInfo& info = model_->info();
  const KvGeometry& geometry = info.geometry;
  LH_ASSIGN_OR_RETURN(const Prompt prompt, BuildPrompt(*model_, question,
                                                       {.system = options.system,
                                                        .earlier = options.earlier,
                                                        .answer_prefix = options.answer_prefix}));
  LH_ASSIGN_OR_RETURN(const uint64_t room, RoomForContext(info, prompt, options.max_tokens));
  const auto head = static_cast<uint32_t>(prompt.head.size()),
             tail = static_cast<uint32_t>(prompt.tail.size());
  LH_ASSIGN_OR_RETURN(Text text, ReadText(*memory, head));
  const auto again = static_cast<uint32_t>(text.again.size());
  AskReply reply;
  reply.spans_lost = text.spans_lost;
  const auto refuse = [&](uint64_t blocks) {
    return ResourceExhausted("the question has no room beside the begin and end of memory " +
                             memory_name + " (" + std::to_string(blocks) +
                             " blocks of 64 tokens); give more with --memory-budget, ask for a "
                             "shorter answer, or let it attend focused");
  };
  if (room < uint64_t{again} + std::min(options.max_tokens, kAnswerTokensMin))
    return refuse(again / kBlockTokens);
  // Of what is left the text may take all but an answer's least.
  const uint64_t answer_room = room - again;
  const bool in_place = text.tokens + std::min(options.max_tokens, kAnswerTokensMin) <= answer_room;
  const uint64_t fixed = static_cast<uint64_t>(std::count_if(
      text.blocks.begin(), text.blocks.end(), [](const SummarisedBlock& b) { return b.fixed; }));
  const uint64_t all = text.blocks.size();
  uint64_t count = std::min(
      all, std::max<uint64_t>(
               kAttendBlocksMin,
               static_cast<uint64_t>(std::ceil(options.attend_share * static_cast<double>(all)))));
  uint64_t answer_tokens = std::min<uint64_t>(
      options.max_tokens, in_place ? answer_room - text.tokens : kAnswerTokensMin);
  if (!in_place) count = std::min(count, (answer_room - answer_tokens) / kBlockTokens);
  count = std::max(count, fixed);
  if (!in_place && count * kBlockTokens + answer_tokens > answer_room) return refuse(fixed);
  if (!in_place)
    answer_tokens = std::min<uint64_t>(options.max_tokens, answer_room - count * kBlockTokens);

  const uint64_t own = uint64_t{head} + again + tail + answer_tokens;
  const uint32_t shift = static_cast<uint32_t>(in_place ? text.tokens : count * kBlockTokens);
  // Positions by which blocks are picked: the text's own, as far as the model has learned them.
  const uint64_t positions =
      std::max<uint64_t>(own + shift, std::min<uint64_t>(own + text.tokens, NativeLength(info)));
  const uint64_t decoding = kPickWorkers * memory->block_shape().Elements() * 2 * sizeof(float);
  LH_ASSIGN_OR_RETURN(MemoryReservation reserved,
                      budget_.Reserve(WorkingSet::Bytes(geometry, own) +
                                          positions * geometry.head_dim * sizeof(float) + decoding,
                                      "the question"));
  const uint64_t each = PickedBlocks::Bytes(geometry, 1);
  const uint64_t affordable = budget_.RoomFor(count + fixed, each);
  if (affordable < 2 * fixed) return refuse(fixed);
  if (affordable < count + fixed) {
    Note("the memory budget has room for " + std::to_string(affordable - fixed) + " of " +
         std::to_string(count) +
         " blocks that each head would see; give more with --memory-budget");
    count = affordable - fixed;
  }
  LH_ASSIGN_OR_RETURN(const MemoryReservation blocks_reserved,
                      budget_.Reserve((count + fixed) * each, "the blocks that heads pick"));

  // The probe: what each layer asks for when it sees begin and end.
  WorkingSet set(geometry, static_cast<uint32_t>(own), static_cast<uint32_t>(positions - own));
  model_->NativeForget(0, UINT32_MAX);
  LH_RETURN_IF_ERROR(RunTokens(*model_, set, prompt.head, 0, false));
  std::vector<uint32_t> ends;
  for (uint32_t b = 0; b < all; ++b) {
    if (text.blocks[b].fixed) ends.push_back(b);
  }
  const size_t lists = geometry.layers.size() * geometry.kv_heads;
  const uint32_t* const row = in_place ? nullptr : &head;
  const uint32_t asking = std::min(kAskingTokens, tail);
  QueryCapture capture;
  for (uint32_t slot = 0; slot < geometry.layers.size(); ++slot) capture.slots.push_back(slot);
  capture.queries.resize(capture.slots.size());
  {
    PickedBlocks around(geometry, set.ropes(), std::vector<std::vector<uint32_t>>(lists, ends),
                        static_cast<uint32_t>(all), row);
    PlacePicked(*memory, text, &around, &reply);
    // Where blocks stand in a row, the text's end stands next to the question here too; but what is
    // read again stays where it is for good.
    set.Beside(&around,
               in_place || again > 0 ? shift : static_cast<uint32_t>(fixed * kBlockTokens));
    LH_RETURN_IF_ERROR(RunTokens(*model_, set, text.again, head, false));
    const std::span<const TokenId> tokens(prompt.tail);
    LH_RETURN_IF_ERROR(RunTokens(*model_, set, tokens.first(tail - asking), head + again, false));
    set.Capture(&capture);
    const Status ran =
        RunTokens(*model_, set, tokens.last(asking), head + again + tail - asking, false);
    set.Capture(nullptr);
    set.Beside(nullptr, 0);
    LH_RETURN_IF_ERROR(ran);
  }
  set.Truncate(head + again);
  model_->NativeForget(head + again, UINT32_MAX);
  const Clock::time_point scan = Clock::now();
  FaithfulPicks picks = PickBlocks(geometry, set.ropes(), text.blocks, capture,
                                   uint64_t{head} + text.tokens + again + tail - asking,
                                   static_cast<uint32_t>(count), WorkersOf(*model_));
  const Clock::time_point planned = Clock::now();
  reply.scan_ms = Milliseconds(scan, planned);
  reply.plan_ms = Milliseconds(start, planned);
  reply.coverage = picks.coverage;

  PickedBlocks picked(geometry, set.ropes(), std::move(picks.blocks), static_cast<uint32_t>(all),
                      row);
  PlacePicked(*memory, text, &picked, &reply);
  set.Beside(&picked, shift);
  const Clock::time_point prompt_start = Clock::now();
  reply.recall_ms = Milliseconds(planned, prompt_start);
  reply.candidates = all;
  reply.memory_tokens = memory->committed_tokens();
  reply.prompt_tokens = uint64_t{head} + tail;
  reply.tokens_recalled = std::min(count * kBlockTokens, text.tokens);
  reply.tokens_reencoded = again;
  AskProgress progress{.tokens = reply.prompt_tokens + reply.tokens_recalled + again,
                       .from_memory = reply.tokens_recalled,
                       .done = head + reply.tokens_recalled + again,
                       .ms = Milliseconds(start, prompt_start)};
  if (options.on_progress) options.on_progress(progress);
  set.CountMass();
  LH_RETURN_IF_ERROR(RunTokens(*model_, set, prompt.tail, head + again, true));
  progress.done = progress.tokens;
  progress.ms = Milliseconds(start, Clock::now());
  if (options.on_progress) options.on_progress(progress);
  LH_RETURN_IF_ERROR(Generate(set, options, static_cast<uint32_t>(answer_tokens), CopyBias(),
                              {start, prompt_start, head + again + tail}, {}, &reply));
  LH_RETURN_IF_ERROR(CitePicked(*memory, text, picked.Mass(), set.Mass(), head, &reply));
  LH_RETURN_IF_ERROR(PlaceCitations(*memory, options, &reply));
  return reply;
}

Status Engine::CitePicked(Memory& memory, const Text& text, const std::vector<double>& mass,
                          const std::vector<double>& own_mass, uint32_t head, AskReply* reply) {
  struct Place {
    DocumentId document{};
    TokenSpan tokens;
    double mass = 0;
  };
  std::vector<size_t> order;
  // Heads park what they have no use for at the text's first token (memory/index/scan_index.h).
  for (size_t b = text.blocks.size() > 1 ? 1 : 0; b < text.blocks.size(); ++b) {
    if (mass[b] > 0) order.push_back(b);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return mass[a] > mass[b]; });
  order.resize(std::min(order.size(), kCitedBlocks));
  std::sort(order.begin(), order.end());
  std::vector<Place> places;
  const auto add = [&](Place place) -> Status {
    LH_ASSIGN_OR_RETURN(place.tokens,
                        memory.GrowToLines(place.document, place.tokens, kCitedLineTokens));
    if (!places.empty() && places.back().document == place.document &&
        places.back().tokens.end >= place.tokens.begin) {
      places.back().tokens.end = std::max(places.back().tokens.end, place.tokens.end);
      places.back().mass += place.mass;
    } else {
      places.push_back(place);
    }
    return OkStatus();
  };
  for (const size_t b : order) {
    const PickableBlock& block = text.blocks[b].block;
    const uint64_t begin = uint64_t{block.key.block} * kBlockTokens;
    LH_RETURN_IF_ERROR(add({block.key.document, {begin, begin + block.tokens}, mass[b]}));
  }
  if (!text.again.empty()) {
    Place end{text.again_document, text.again_tokens, 0};
    for (size_t i = 0; i < text.again.size(); ++i) end.mass += own_mass[head + i];
    LH_RETURN_IF_ERROR(add(end));
  }
  std::stable_sort(places.begin(), places.end(),
                   [](const Place& a, const Place& b) { return a.mass > b.mass; });
  double total = 0;
  for (const Place& place : places) total += place.mass;
  for (const Place& place : places) {
    PlannedSpan span;
    span.document = place.document;
    span.tokens = place.tokens;
    span.score = total > 0 ? place.mass / total : 0;
    Result<RecalledSpan> described = Describe(memory, span);
    if (!described.ok() && described.status().code() == StatusCode::kDataLoss) {
      ++reply->spans_lost;
      continue;
    }
    if (!described.ok()) return described.status();
    described->reasons = {"attention"};
    reply->citations.push_back({.index = static_cast<uint32_t>(reply->citations.size() + 1),
                                .span = std::move(*described),
                                .characters = {}});
  }
  reply->spans = reply->citations.size();
  return OkStatus();
}

}  // namespace longhold
