// The evaluation's tasks: texts with something to find in them, and the questions that ask for it.
//
// Every text comes from its request alone: the same request gives the same bytes on every machine,
// and a longer list of questions or another length draws from streams of its own (rng.h).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "eval/haystack.h"
#include "eval/question_file.h"

namespace longhold {

// How an answer is judged, by RULER's names (metrics.h).
enum class MatchRule : uint8_t {
  kAll,   // string_match_all: the share of the expected strings that the answer holds
  kPart,  // string_match_part: 1 when it holds any of them
};

struct EvalQuestion {
  std::string question;
  // the first words of the answer, given; empty where the task has none
  std::string answer_prefix;
  std::vector<std::string> answers;
  MatchRule match = MatchRule::kAll;
  // of the text; empty where all of it is the evidence, or none is known
  std::vector<ByteSpan> evidence;
  // any one range of the evidence holds the answer; else all are needed
  bool one_suffices = false;
  bool evidence_known = true;  // false: a question file gave none
  bool unanswerable = false;   // the text does not hold the answer: abstaining is right
  // where the first range of the evidence begins, as a share of the text
  double depth = 0;
  uint32_t depth_cell = 0;    // [0, depths): its row in the grid
  uint32_t max_tokens = 128;  // of the answer, RULER's tokens_to_generate
};

struct EvalText {
  std::string text;
  uint64_t tokens = 0;  // of the model under test
  std::vector<EvalQuestion> questions;
};

using TokenCounter = std::function<Result<uint64_t>(std::string_view)>;

// What is to be generated. Borrowed pointers outlive the call.
struct TextRequest {
  std::string task;
  uint64_t length = 0;  // tokens; 0: the whole haystack (only `questions`)
  uint64_t seed = 1;
  uint32_t text_index = 0;  // texts of one task and length differ
  // the questions of this text among the `question_total` of the task and length:
  uint32_t question_first = 0;
  uint32_t question_count = 1;  // they decide about depths
  uint32_t question_total = 1;
  uint32_t depths = 10;
  const Haystack* haystack = nullptr;                    // for tasks that need one
  const std::vector<FileQuestion>* questions = nullptr;  // for `questions`
};

// Facts about a task.
struct TaskInfo {
  std::string_view name;
  std::string_view about;  // one line
  bool needs_haystack = false;
  uint32_t questions_max = 1;    // of one text; 1 where the text has one question by its nature
  uint32_t question_tokens = 0;  // about how many tokens each question adds to the text
};

// All tasks but `questions`, in the order in which a run goes through them.
const std::vector<TaskInfo>& EvalTasks();
// nullptr where there is no such task. Knows `questions` too.
const TaskInfo* FindTask(std::string_view name);
// Names to tasks: "ruler" stands for RULER's eleven, "all" for all. Errors: invalid_argument,
// listing the names.
Result<std::vector<std::string>> ExpandTasks(const std::vector<std::string>& names);

// How many questions of `task` share a text of that length: their needles take at most half of it.
// At least 1.
uint32_t QuestionsPerText(const TaskInfo& task, uint64_t length);

// The text and its questions. It has at most `length` tokens by `count`, and at least 98% of that
// where the task's smallest piece is not larger than the difference. `questions` takes lines of the
// haystack from its beginning, and of the file's questions those whose evidence stands in them.
// Errors: invalid_argument (too short for the task), and the counter's.
Result<EvalText> BuildText(const TextRequest& request, const TokenCounter& count);

// ------------------------------------------------------------------------------------ what the
// tasks' own files share

// A text before its length is known to be right.
struct TextDraft {
  std::string text;
  std::vector<EvalQuestion> questions;
};

// Something to hide at `depth` (0 the text's beginning, 1 its end); `depth` is set to where it came
// to stand.
struct Hidden {
  std::string text;
  double depth = 0;
  ByteSpan bytes;  // set by Weave
};

// Appends `pieces` to `text` with `separator` between them and `hidden` where its depth says,
// between two pieces, earlier of equal depth first. Sets the bytes of each.
void Weave(const std::vector<std::string_view>& pieces, std::string_view separator,
           std::vector<Hidden>* hidden, std::string* text);

// The depth of question `index` of a text: cells of the grid in turn, and within a cell side by
// side.
double QuestionDepth(const TextRequest& request, uint32_t index, uint32_t* cell);

// Finds how many units (>= 0, <= units_max) `draft` needs for the length. `unit_bytes` is a guess
// of a unit's size. The builder of `questions` may get a text that is the whole haystack: FitLength
// then returns it although it is shorter than asked.
Result<EvalText> FitLength(const TextRequest& request, const TokenCounter& count,
                           uint64_t units_max, double unit_bytes,
                           const std::function<TextDraft(uint64_t units)>& draft);

// Sentences of the haystack, `bytes` of them with single spaces, beginning at a place that the
// request's text index decides; repeated where it is too short.
std::vector<std::string_view> Prose(const TextRequest& request, uint64_t bytes);
// RULER's noise, five sentences a line; `sentences` of them.
std::vector<std::string_view> Noise(uint64_t sentences);

Result<EvalText> BuildNiah(const TextRequest& request, const TokenCounter& count);
Result<EvalText> BuildVariables(const TextRequest& request, const TokenCounter& count);
Result<EvalText> BuildCommonWords(const TextRequest& request, const TokenCounter& count);
Result<EvalText> BuildFrequentWords(const TextRequest& request, const TokenCounter& count);
Result<EvalText> BuildPasskey(const TextRequest& request, const TokenCounter& count);
Result<EvalText> BuildKeyValues(const TextRequest& request, const TokenCounter& count);
Result<EvalText> BuildBabi(const TextRequest& request, const TokenCounter& count);
Result<EvalText> BuildParaphrase(const TextRequest& request, const TokenCounter& count);
Result<EvalText> BuildFileQuestions(const TextRequest& request, const TokenCounter& count);

// 32 hexadecimal digits in five groups, version 4.
class EvalRng;
std::string RandomUuid(EvalRng* rng);
std::string RandomNumber(EvalRng* rng, uint32_t digits);
// "quiet-lantern"
std::string RandomKey(EvalRng* rng);

}  // namespace longhold
