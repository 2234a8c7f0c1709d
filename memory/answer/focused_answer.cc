#include "memory/answer/focused_answer.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <utility>

#include "memory/answer/decoder.h"
#include "memory/answer/grounding.h"
#include "memory/core/elapsed.h"
#include "memory/recall/describe.h"

namespace longhold {
namespace {

// Of the attention that recalled words would get, what assistant text gets: else the model goes on
// with its own words instead of what the user said.
constexpr double kAssistantShare = 0.2;

}  // namespace

FocusedAnswer::FocusedAnswer(const Question& question, RecallPlan plan, const AskOptions& options,
                             Clock::time_point start, Clock::time_point planned)
    : q_(question),
      plan_(std::move(plan)),
      options_(options),
      focused_(options.focused()),
      start_(start),
      set_(*question.set),
      keys_(plan_.spans.size()),
      copy_bias_(options.answer_prefix),
      prompt_start_(planned) {
  reply_ = BeginReply(q_, plan_);
}

Status CheckDeadline(const FocusedOptions& options) {
  if (!options.deadline.has_value() || std::chrono::steady_clock::now() < *options.deadline)
    return OkStatus();
  return DeadlineExceeded("the time that was given was over before the answer began");
}

Result<AskReply> FocusedAnswer::Run() {
  const Clock::time_point planned = prompt_start_;
  reply_.timings.plan_ms = Milliseconds(start_, plan_.fused_at);
  if (plan_.abstained && !q_.answer_alone) {
    reply_.answer = kAbstention;
    if (options_.on_text) options_.on_text(kAbstention);
    reply_.closest = std::move(plan_.described);
    reply_.timings.recall_ms = Milliseconds(plan_.fused_at, planned);
    reply_.timings.first_token_ms = Milliseconds(start_, Clock::now());
    return std::move(reply_);
  }
  reply_.spans = plan_.spans.size();
  position_ = set_.size();
  LH_RETURN_IF_ERROR(RecallSpans());
  prompt_start_ = Clock::now();
  reply_.timings.recall_ms = Milliseconds(plan_.fused_at, prompt_start_);
  LH_RETURN_IF_ERROR(ReencodeSpans());
  LH_RETURN_IF_ERROR(ReencodeExcerpts());
  LH_RETURN_IF_ERROR(ReadTail());
  if (focused_.inline_citations) inline_citations_.emplace(Received());
  LH_RETURN_IF_ERROR(Generate());
  LH_ASSIGN_OR_RETURN(reply_.grounded, RestsOnSpans(q_, plan_, reply_.answer));
  if (reply_.grounded) Cite();
  if (options_.characters) LH_RETURN_IF_ERROR(PlaceCitations(q_.memory, &reply_.citations));
  return std::move(reply_);
}

float FocusedAnswer::BiasOf(const PlannedSpan& span, const BlockRows& rows) const {
  return static_cast<float>(q_.profile().gate * std::log(std::max(1e-6, span.score)) +
                            (rows.assistant ? std::log(kAssistantShare) : 0.0));
}

void FocusedAnswer::NoteLost(const BlockKey& block) {
  lost_.insert(block);
  reply_.degradation.blocks_lost = lost_.size();
}

Status FocusedAnswer::RecallSpans() {
  LH_ASSIGN_OR_RETURN(PlacedSpans placed,
                      PlaceSpans(q_, plan_, &set_, [this](const BlockRows& rows) {
                        return BiasOf(plan_.spans[rows.span], rows);
                      }));
  for (size_t i = 0; i < keys_.size(); ++i) keys_[i].recalled = placed.keys[i];
  placed.CountIn(&reply_);
  reply_.tokens_read_first = q_.blocks->unread().tokens_read();
  lost_ = std::move(placed.lost);
  return OkStatus();
}

Status FocusedAnswer::ReencodeSpans() {
  for (size_t i = plan_.layout.reencoded_spans; i-- > 0;) {
    const PlannedSpan& span = plan_.spans[i];
    LH_ASSIGN_OR_RETURN(const std::span<const TokenId> tokens,
                        q_.text->Tokens(span.document, span.tokens));
    if (set_.size() + tokens.size() + q_.prompt.tail.size() + q_.answer_tokens > set_.capacity())
      continue;
    keys_[i].recalled = {set_.size(), set_.size() + tokens.size()};
    LH_RETURN_IF_ERROR(RunTokens(q_.model(), set_, tokens, position_, false));
    position_ += static_cast<uint32_t>(tokens.size());
    reply_.tokens_recalled += tokens.size();
  }
  return OkStatus();
}

Status FocusedAnswer::ReencodeExcerpts() {
  LH_ASSIGN_OR_RETURN(const ExcerptText excerpts, ReadExcerpts(q_, plan_));
  const std::span<const TokenId> text = excerpts.tokens;
  for (const ExcerptText::Part& part : excerpts.parts) {
    const auto tokens = text.subspan(part.tokens.begin, part.tokens.size());
    std::vector<std::string> pieces;
    for (TokenId id : tokens) pieces.push_back(q_.model().Piece(id));
    copy_bias_.Add(tokens, pieces);
    const TokenSpan at{set_.size() + part.tokens.begin, set_.size() + part.tokens.end};
    TokenSpan& keys = keys_[part.span].re_encoded;
    keys = {keys.empty() ? at.begin : keys.begin, at.end};
  }
  reply_.tokens_reencoded = text.size();

  // Spans that are re-encoded whole count as read by the model: their keys are not the memory's.
  uint64_t from_memory = reply_.tokens_recalled;
  for (size_t i = 0; i < plan_.layout.reencoded_spans; ++i)
    from_memory -= std::min<uint64_t>(from_memory, keys_[i].recalled.size());
  progress_ = {.tokens = reply_.prompt_tokens + reply_.tokens_recalled + reply_.tokens_reencoded,
               .from_memory = from_memory,
               .done = q_.prompt.head.size() + reply_.tokens_recalled,
               .ms = 0};
  ReportProgress(0);
  LH_RETURN_IF_ERROR(CheckDeadline(focused_));
  LH_RETURN_IF_ERROR(RunTokens(q_.model(), set_, text, position_, false));
  position_ += static_cast<uint32_t>(text.size());
  if (!text.empty()) ReportProgress(text.size());
  return OkStatus();
}

Status FocusedAnswer::ReadTail() {
  LH_RETURN_IF_ERROR(CheckDeadline(focused_));
  tail_at_ = set_.size();
  tail_position_ = position_;
  set_.CountMass();
  LH_RETURN_IF_ERROR(RunTokens(q_.model(), set_, q_.prompt.tail, position_, true));
  position_ += static_cast<uint32_t>(q_.prompt.tail.size());
  ReportProgress(q_.prompt.tail.size());
  return OkStatus();
}

void FocusedAnswer::ReportProgress(uint64_t tokens) {
  progress_.done += tokens;
  progress_.ms = Milliseconds(start_, Clock::now());
  if (options_.on_progress) options_.on_progress(progress_);
}

Status FocusedAnswer::Generate() {
  DecodeOptions decode{.ask = options_,
                       .answer_tokens = q_.answer_tokens,
                       .copy_bias = copy_bias_,
                       .deadline = &focused_.deadline,
                       .question_start = start_,
                       .prompt_start = prompt_start_,
                       .position = position_,
                       .on_token = [this](std::span<const TokenId> generated,
                                          uint32_t left) { return OnToken(generated, left); },
                       .cite = {}};
  if (inline_citations_.has_value())
    decode.cite = [this] { return inline_citations_->Cite(Received()); };
  return Decode(q_.model(), set_, decode, &reply_);
}

Result<uint32_t> FocusedAnswer::OnToken(std::span<const TokenId> generated, uint32_t left) {
  if (plan_.hops != nullptr) {
    LH_ASSIGN_OR_RETURN(const std::optional<PlannedSpan> found,
                        plan_.hops->OnToken(generated, plan_.spans));
    if (found.has_value()) LH_RETURN_IF_ERROR(Insert(*found, generated, left));
  }
  return tail_position_ + static_cast<uint32_t>(q_.prompt.tail.size() + generated.size());
}

Status FocusedAnswer::Insert(const PlannedSpan& span, std::span<const TokenId> generated,
                             uint32_t left) {
  const auto tokens = static_cast<uint32_t>(span.tokens.size());
  const uint64_t wanted = uint64_t{set_.size()} + tokens + left;
  if (wanted > set_.capacity() || set_.BytesWith(wanted - set_.size()) > q_.set_memory.bytes())
    return OkStatus();
  Result<RecalledSpan> described = Describe(q_.memory, q_.profile(), span);
  if (described.status().code() == StatusCode::kDataLoss) {
    ++reply_.degradation.spans_lost;
    return OkStatus();
  }
  if (!described.ok()) return described.status();
  std::vector<BlockRows> rows;
  std::span<const TokenId> text;
  if (q_.info().native_window > 0) {
    // Re-encoded, as all that the native layers are to see (docs/decisions/0004).
    LH_ASSIGN_OR_RETURN(text, q_.text->Tokens(span.document, span.tokens));
  } else {
    AppendRows(span, 0, &rows);
    SplitAssistantText(q_.memory, &rows);
    const Status loaded = q_.blocks->Load(rows, q_.Parallel());
    if (loaded.code() == StatusCode::kResourceExhausted) return OkStatus();
    LH_RETURN_IF_ERROR(loaded);
    for (const BlockRows& r : rows) {
      if (q_.blocks->Find(r) != nullptr) continue;
      NoteLost(r.key);
      return OkStatus();
    }
  }
  const uint32_t begin = tail_at_;
  set_.Truncate(tail_at_);
  q_.model().NativeForget(tail_position_, UINT32_MAX);
  for (size_t i = 0; i < rows.size(); ++i) {
    set_.AppendBlock(*q_.blocks->Find(rows[i]), rows[i].row_begin, rows[i].row_end,
                     BiasOf(span, rows[i]));
    if (i > 0 && rows[i - 1].key == rows[i].key) continue;  // another part of its rows
    ++reply_.blocks_read;
    reply_.bytes_read += q_.blocks->StoredBytes(rows[i].key);
  }
  LH_RETURN_IF_ERROR(RunTokens(q_.model(), set_, text, tail_position_, false));
  tail_position_ += static_cast<uint32_t>(text.size());
  tail_at_ = set_.size();
  // Attention is counted anew: the tokens that gave it run again.
  set_.CountMass();
  LH_RETURN_IF_ERROR(
      RunTokens(q_.model(), set_, q_.prompt.tail, tail_position_, generated.empty()));
  LH_RETURN_IF_ERROR(RunTokens(q_.model(), set_, generated,
                               tail_position_ + static_cast<uint32_t>(q_.prompt.tail.size()),
                               true));
  plan_.spans.push_back(span);
  plan_.described.push_back(std::move(*described));
  keys_.push_back({.recalled = {begin, tail_at_}, .re_encoded = {}});
  reply_.tokens_recalled += tokens;
  reply_.tokens_read_first = q_.blocks->unread().tokens_read();
  ++reply_.generation_spans;
  ++reply_.spans;
  return OkStatus();
}

std::vector<double> FocusedAnswer::Received() const {
  const std::vector<double> mass = set_.Mass();
  std::vector<double> received(keys_.size(), 0);
  for (size_t i = 0; i < keys_.size(); ++i) {
    for (const TokenSpan& keys : {keys_[i].recalled, keys_[i].re_encoded}) {
      for (uint64_t k = keys.begin; k < keys.end; ++k) received[i] += mass[k];
    }
  }
  return received;
}

void FocusedAnswer::Cite() {
  const std::vector<double> received = Received();
  const double total = std::accumulate(received.begin(), received.end(), 0.0);
  const std::vector<size_t> cited =
      inline_citations_.has_value() ? inline_citations_->cited() : std::vector<size_t>();
  for (const size_t i : CitationOrder(received, cited)) {
    // Nothing of it was before the model.
    if (keys_[i].recalled.empty() && keys_[i].re_encoded.empty()) continue;
    Citation citation;
    citation.index = static_cast<uint32_t>(reply_.citations.size() + 1);
    citation.span = plan_.described[i];
    citation.span.score = total > 0 ? received[i] / total : 0;
    reply_.citations.push_back(std::move(citation));
  }
}

}  // namespace longhold
