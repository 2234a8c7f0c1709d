// What a caller asks of recall, and what it gets.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "memory/index/scan_index.h"
#include "memory/recall/planned_span.h"

namespace longhold {

// A recalled place. Value type.
struct RecalledSpan {
  DocumentId document_id{};
  std::string document;
  TokenSpan tokens;
  ByteSpan bytes;
  uint64_t line_begin = 0;  // 1-based, inclusive
  uint64_t line_end = 0;
  std::string text;
  // The line before it that says when it was said, such as a session's or a diary's; empty where
  // none does. The model attends to its tokens before the span's.
  std::string date_line;
  TokenSpan date_tokens;
  double score = 0;  // relevance, 1 is the best span's
  // The model has not read the document up to here. An answer has the span read by itself, with a
  // short run-up (unread_blocks.h).
  bool provisional = false;
  // Names of the relevance signals that brought a fifth of the score or more, and "multi-hop".
  std::vector<std::string> reasons;
};

// Of RecalledSpan::reasons.
inline constexpr std::string_view kMultiHopReason = "multi-hop";

inline constexpr uint32_t kRerankSpansMax = 64;

// Value type.
struct RecallOptions {
  // 0: the profile's number, and up to its hop_spans more where multi-hop retrieval finds some.
  uint32_t spans_max = 0;
  // Say so when the memory seems to hold nothing on the question, by the profile's thresholds.
  bool abstain = true;
  bool explain = false;  // fill RecallReply::words and ::explained; changes nothing else
  // How many of the best spans are reranked by query likelihood (query_likelihood.h), at most
  // kRerankSpansMax; without a value, the profile's rerank_spans. The model reads the question once
  // more for each: with a large model that takes longer than all else (docs/decisions/0029).
  std::optional<uint32_t> rerank_spans;
  // The queries of the memory's recall heads, from a caller whose model runs elsewhere: one for
  // each of the manifest's heads, in its order. Empty: the model reads the question for them, or,
  // without probe_heads, they are not asked.
  std::vector<ScanQuery> head_queries;
  bool probe_heads = true;
};

// A distinct word of a question as the memory knows it. Value type.
struct QuestionWord {
  std::string text;
  uint64_t blocks = 0;  // that it stands in; 0: nowhere in the memory
  double weight = 0;    // how much it counts in the lexical index: the rarer the more
  bool function_word = false;
  std::vector<std::string> related;  // words of the memory that may stand for it, nearest first
};

// A span that competed for a place in the plan, and what became of it. Value type.
struct ExplainedSpan {
  RecalledSpan span;          // its score is the final one
  uint32_t planned_rank = 0;  // 1-based, by the fused signals alone; 0 where none found it
  uint32_t rank = 0;          // among the reranked spans; 0 where it was not reranked
  double planned_score = 0;   // by the fused signals alone, 1 is the best span's
  std::vector<SignalScore> signals;
  double token_gain = 0;           // nats per token of the question; 0 where it was not reranked
  double support = 0;              // abstention.h; 0 where it was not reranked
  std::vector<bool> found;         // [RecallReply::words] stands in the span
  std::vector<double> word_gains;  // [RecallReply::words] nats per token of the word
  bool kept = false;
  std::string why;  // why not, when it was not kept
  std::vector<TrailEntry> trail;
};

// How much the memory speaks for there being an answer in it (docs/decisions/0032). Value type.
struct Evidence {
  // kNone: the reply abstains, unless it must not. kWeak: an answer may be wrong; look at its
  // citations. Faithful answers are not judged.
  enum class Level : uint8_t { kNone, kWeak, kStrong } level = Level::kStrong;
  double found_share = 0;  // of the question's words, in the best span (abstention.h)
  // The best score of the dense signal (dense_signal.h); none without an embedding model.
  std::optional<double> similarity;
};

// Shared by the replies of recall and of answers. Degraded is not failed. Value type.
struct Degradation {
  uint64_t blocks_lost = 0;  // corrupt or missing, so that the model does not see them
  // Whose text is damaged: they could not be cited, so they are left out.
  uint64_t spans_lost = 0;
};

// Milliseconds. Value type.
struct Timings {
  double plan_ms = 0;    // retrieving and fusing, with a pass over the question for recall heads
  double scan_ms = 0;    // of plan_ms: the recall heads' keys
  double recall_ms = 0;  // reranking, judging, multi-hop retrieval, reading blocks
  double prompt_ms = 0;  // reading the question
  double first_token_ms = 0;  // since the question came
  double decode_ms = 0;
  double decode_tok_s = 0;  // tokens per second, not milliseconds
};

// Value type.
struct RecallReply {
  std::vector<RecalledSpan> spans;  // best first
  // Share of the recall heads' attention mass that the spans hold, 0..1; none where no head was
  // asked.
  std::optional<double> coverage;
  // How much likelier the best reranked span makes the question's tokens, in nats per token; 0
  // without reranking.
  double token_gain = 0;
  // The memory seems to hold nothing on the question: `spans` are only the closest places.
  bool abstained = false;
  Evidence evidence;
  uint64_t candidates = 0;               // blocks that competed
  uint64_t hops = 0;                     // lookups that lead to the farthest span
  std::vector<QuestionWord> words;       // with RecallOptions::explain
  std::vector<ExplainedSpan> explained;  // with RecallOptions::explain; those that were kept first
  uint64_t prompt_tokens = 0;            // of the question and its template
  Degradation degradation;
  Timings timings;
};

}  // namespace longhold
