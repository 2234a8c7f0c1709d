// What a caller asks of an answer, and what it gets.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/types.h"
#include "memory/model/language_model.h"
#include "memory/recall/recall_types.h"

namespace longhold {

// What an answer says instead of the model's words when the memory seems to hold nothing.
inline constexpr std::string_view kAbstention = "The memory holds nothing on this.";

inline constexpr uint32_t kReencodeTokensMax = 1024;
inline constexpr uint32_t kLikeliestMax = 20;
inline constexpr uint32_t kAttendBlocksMin = 64;

// How likely the model held a token of its answer. Value type.
struct TokenLikelihood {
  std::string text;  // its bytes, which need not be whole characters
  // Natural logarithm of its probability by the model's own logits, before temperature and copy
  // bias.
  double log = 0;
  std::vector<std::pair<std::string, double>> likeliest;  // as many as were asked for, best first
};

// How far a question's prompt has been read. Value type.
struct AskProgress {
  uint64_t tokens = 0;       // of the prompt, with all that was recalled
  uint64_t from_memory = 0;  // of them, those whose keys and values the memory had
  uint64_t done = 0;         // from_memory, and those that the model has read
  double ms = 0;             // since the question came
};

// The answer attends to what one plan recalled for all layers at once, gated by its relevance. It
// abstains where the memory seems to hold nothing. Value type.
struct FocusedOptions {
  RecallOptions recall;
  // Where the memory seems to hold nothing, the model answers from the conversation alone instead
  // of kAbstention. The reply says `abstained` all the same, and cites nothing.
  bool answer_alone = false;
  // How many tokens of recalled sentences are re-encoded as text right before the question, at most
  // kReencodeTokensMax: copies come out right more often, and each token takes as long as one of
  // the question. Without a value, the profile's reencode_tokens.
  std::optional<uint32_t> reencode_tokens;
  // Write "[n]" behind each sentence: the citation that got the most attention while it was
  // written. on_text and AskReply::cited_answer have them. Citations come in the order of their
  // numbers, then by attention.
  bool inline_citations = false;
  // Checked before each longer pass of the model and between tokens. Once it is over, an answer
  // that has begun ends as if by max_tokens, and one that has not is deadline_exceeded.
  std::optional<std::chrono::steady_clock::time_point> deadline;
};

// The answer attends to the text's begin and end, and of the rest to what each layer and KV head
// picks for itself: near the model's full attention, and no better (docs/decisions/0024). Value
// type.
struct FaithfulOptions {
  // Of the memory's blocks, the share that each layer and KV head sees; at least kAttendBlocksMin
  // blocks, and at most as many as the model's native length and the memory budget have room for.
  double share = 0.1;
};

using AttendOptions = std::variant<FocusedOptions, FaithfulOptions>;
// "focused" or "faithful": how flags and requests name them.
std::string_view AttendName(const AttendOptions& options);
// The options of that name with their defaults; none for another name.
std::optional<AttendOptions> FindAttend(std::string_view name);

// Value type.
struct AskOptions {
  // The first words of the answer; not repeated in the reply. With one, the model always answers.
  std::string answer_prefix;
  std::string system;
  std::vector<ChatTurn> earlier;  // what was said before; nothing is recalled for it
  // Of more than 256, as many as the model reads with question and recalled spans.
  uint32_t max_tokens = 128;
  SamplerOptions sampler;
  AttendOptions attend = FocusedOptions{};
  // Fill AskReply::likelihoods, each with so many others, at most kLikeliestMax.
  std::optional<uint32_t> likeliest;
  bool characters = false;                  // fill Citation::characters and document_index
  const std::atomic<bool>* stop = nullptr;  // checked between tokens
  // Called once what is recalled is known, and after each part of the prompt.
  std::function<void(const AskProgress&)> on_progress;
  // Called with pieces of the answer as they come, whole UTF-8 characters.
  std::function<void(std::string_view)> on_text;

  // Must hold: the answer is a focused one.
  FocusedOptions& focused() { return std::get<FocusedOptions>(attend); }
  const FocusedOptions& focused() const { return std::get<FocusedOptions>(attend); }
  bool is_faithful() const { return std::holds_alternative<FaithfulOptions>(attend); }
};

// Characters (Unicode code points) [begin, end) of a document. Value type.
struct TextSpan {
  uint64_t begin = 0, end = 0;
};

// Value type.
struct Citation {
  uint32_t index = 0;  // 1-based
  RecalledSpan span;   // its score is the share of attention that the answer really gave to it
  // With AskOptions::characters: the document's place among the memory's, in the order in which
  // they were first ingested, and where span.bytes stand in characters of the document; none where
  // its text is damaged.
  uint32_t document_index = 0;
  std::optional<TextSpan> characters;
};

// Value type.
struct AskReply {
  std::string answer;               // kAbstention when abstained
  std::string cited_answer;         // the answer with inline citations, where they were asked for
  std::vector<Citation> citations;  // by share of attention, best first
  // Share of the recall heads' attention mass that the plan's spans hold; none where no head was
  // asked. What is lost (`degradation`) is still counted.
  std::optional<double> coverage;
  double token_gain = 0;  // as RecallReply::token_gain
  // The memory seems to hold nothing on the question. Nothing was recalled, and the model was asked
  // only with answer_alone.
  bool abstained = false;
  Evidence evidence;
  // false: the answer says what the recalled text does not (grounding.h), so that it may be the
  // model's own knowledge. It then has no citations. Always true for faithful answers.
  bool grounded = true;
  std::vector<RecalledSpan> closest;  // when abstained: the place that came closest, if any
  uint64_t candidates = 0;
  uint64_t spans = 0;             // recalled, generation_spans included
  uint64_t hops = 0;              // as RecallReply::hops
  uint64_t generation_spans = 0;  // retrieved during generation
  uint64_t tokens_recalled = 0;
  uint64_t tokens_reencoded = 0;
  uint64_t blocks_read = 0;
  uint64_t bytes_read = 0;
  // Tokens of text not read before that the model read for this answer, with their run-ups. None of
  // them where the memory had them from an earlier answer.
  uint64_t tokens_read_first = 0;
  uint64_t memory_tokens = 0;
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  bool cut = false;                          // ended by max_tokens, or by the deadline
  std::vector<TokenLikelihood> likelihoods;  // of the answer's tokens
  Degradation degradation;
  Timings timings;
};

}  // namespace longhold
