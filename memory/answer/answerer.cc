#include "memory/answer/answerer.h"

#include <chrono>
#include <utility>

#include "memory/answer/faithful_answer.h"
#include "memory/answer/focused_answer.h"
#include "memory/recall/stages.h"

namespace longhold {

using Clock = std::chrono::steady_clock;

Result<AskReply> Answerer::Ask(const std::string& memory, std::string_view question,
                               const AskOptions& options) {
  return options.is_faithful() ? AskFaithful(memory, question, options)
                               : AskFocused(memory, question, options);
}

Result<AskReply> Answerer::AskFocused(const std::string& memory, std::string_view question,
                                      const AskOptions& options) {
  const Clock::time_point start = Clock::now();
  const FocusedOptions& focused = options.focused();
  LH_RETURN_IF_ERROR(CheckDeadline(focused));
  std::vector<UnkeptBlock> unkept;
  Result<AskReply> reply = [&]() -> Result<AskReply> {
    LH_ASSIGN_OR_RETURN(const OpenQuestion open,
                        recaller_->Open(memory, question,
                                        {.context = {.system = options.system,
                                                     .earlier = options.earlier,
                                                     .answer_prefix = options.answer_prefix},
                                         .recall = focused.recall,
                                         .answers = true,
                                         .answer_tokens_max = options.max_tokens,
                                         .answer_alone = focused.answer_alone,
                                         .reencode_tokens = focused.reencode_tokens}));
    LH_ASSIGN_OR_RETURN(RecallPlan plan, MakePlan(*open.question));
    LH_RETURN_IF_ERROR(CheckDeadline(focused));
    FocusedAnswer answer(*open.question, std::move(plan), options, start, Clock::now());
    Result<AskReply> answered = answer.Run();
    unkept = open.question->blocks->unread().TakeUnkept();
    return answered;
  }();
  recaller_->Keep(memory, unkept);
  return reply;
}

Result<AskReply> Answerer::AskFaithful(const std::string& memory, std::string_view question,
                                       const AskOptions& options) {
  LH_RETURN_IF_ERROR(CheckQuestion(question));
  LH_ASSIGN_OR_RETURN(const MemoryLease lease, recaller_->Lease(memory));
  return FaithfulAnswer(*context_, *lease, *budget_, *notes_, options).Run(question);
}

bool Answerer::HasRoomForAnother() const {
  const KvGeometry& geometry = context_->info().geometry;
  const RecallProfile& profile = context_->profile;
  const uint64_t spans = uint64_t{profile.spans_max} + profile.hop_spans + profile.generation_spans;
  const uint64_t stored = spans * kSpanTokensUsual,
                 passed = 2 * kAnswerTokensMin + profile.reencode_tokens;
  const uint64_t blocks = spans * 2 + stored / kBlockTokens;  // a span begins and ends within one
  const BlockShape shape{static_cast<uint32_t>(geometry.layers.size()), geometry.kv_width()};
  return budget_->RoomFor(1, WorkingSet::Bytes(geometry, passed, stored) +
                                 blocks * shape.Elements() * sizeof(uint16_t)) == 1;
}

}  // namespace longhold
