// The tasks of the evaluation: texts with facts to find, and the questions that ask for them.
//
// A text depends on its request only. The same request gives the same bytes on every machine. The
// parts of a text draw from separate random streams (rng.h).
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

// The metric of an answer, with RULER's names (metrics.h).
enum class MatchRule : uint8_t {
  kAll,   // string_match_all: the share of the expected strings that the answer contains
  kPart,  // string_match_part: 1 if the answer contains any of them
};

// Value type.
struct EvalQuestion {
  std::string question;
  // The first words of the answer, given to the model. Empty if the task has none.
  std::string answer_prefix;
  std::vector<std::string> answers;
  MatchRule match = MatchRule::kAll;
  // Byte ranges of the text. Empty if the whole text is the evidence, or if it is not known.
  std::vector<ByteSpan> evidence;
  // true: any one range of the evidence holds the answer. false: all are needed.
  bool one_suffices = false;
  bool evidence_known = true;  // false: the question file names no evidence
  bool unanswerable = false;   // true: the text has no answer, so abstaining is correct
  // Begin of the first range of the evidence, as a share of the text.
  double depth = 0;
  uint32_t depth_cell = 0;    // [0, depths): row in the depth grid
  uint32_t max_tokens = 128;  // length limit of the answer, RULER's tokens_to_generate
};

// Value type.
struct EvalText {
  std::string text;
  uint64_t tokens = 0;  // tokens of the model under test
  std::vector<EvalQuestion> questions;
};

using TokenCounter = std::function<Result<uint64_t>(std::string_view)>;

// A request to generate a text. Must hold: the pointers stay valid during the call.
struct TextRequest {
  std::string task;
  uint64_t length = 0;  // tokens; 0: the whole haystack (task `questions` only)
  uint64_t seed = 1;
  uint32_t text_index = 0;  // texts of one task and length differ by it
  // This text gets question_count of the question_total questions of the task and length, from
  // question_first on. The numbers decide the depths.
  uint32_t question_first = 0;
  uint32_t question_count = 1;
  uint32_t question_total = 1;
  uint32_t depths = 10;
  const Haystack* haystack = nullptr;                    // for tasks that need one
  const std::vector<FileQuestion>* questions = nullptr;  // for the task `questions`
};

// The properties of a task.
struct TaskInfo {
  std::string_view name;
  std::string_view about;  // one line of help; starts with "RULER" for tasks of RULER
  bool needs_haystack = false;
  uint32_t questions_max = 1;    // questions per text; 1 if a text can have one question only
  uint32_t question_tokens = 0;  // approximate number of tokens that a question adds to the text
};

// All tasks except `questions`, in the order in which a run uses them.
const std::vector<TaskInfo>& EvalTasks();
// Finds a task, also `questions`. nullptr if there is none of that name.
const TaskInfo* FindTask(std::string_view name);
// Expands names to tasks: "ruler" means RULER's eleven tasks, "all" means all of EvalTasks. Errors:
// invalid_argument, listing the names.
Result<std::vector<std::string>> ExpandTasks(const std::vector<std::string>& names);

// The number of questions of `task` that share a text of that length, at least 1. Their needles
// take at most half of the text.
uint32_t QuestionsPerText(const TaskInfo& task, uint64_t length);

// Generates a text and its questions. The text has at most `length` tokens by `count`. It has at
// least 98% of that unless the smallest unit of the task is larger than the difference. The task
// `questions` takes lines from the begin of the haystack, and the questions whose evidence is in
// them. Errors: invalid_argument (the length is too short for the task), and those of `count`.
Result<EvalText> BuildText(const TextRequest& request, const TokenCounter& count);

// ------------------------------------------------------------------------------------------------
// Shared by the files that implement the tasks.

// A text whose length is not checked yet.
struct TextDraft {
  std::string text;
  std::vector<EvalQuestion> questions;
};

// A piece of text to hide at `depth`: 0 is the begin of the text, 1 its end.
struct Hidden {
  std::string text;
  double depth = 0;
  ByteSpan bytes;  // its place in the text; set by Weave
};

// Appends `pieces` to `text` with `separator` between them. Inserts each of `hidden` between two
// pieces, as close to its depth as possible; at one place in the order of depths. Sets the bytes
// of each.
void Weave(const std::vector<std::string_view>& pieces, std::string_view separator,
           std::vector<Hidden>* hidden, std::string* text);

// The depth of question `index` of a text. Questions take the cells of the grid in turn; questions
// in the same cell are spread evenly over it. Sets `cell`.
double QuestionDepth(const TextRequest& request, uint32_t index, uint32_t* cell);

// Finds the number of units, 0 to units_max, with which `draft` gives a text of the requested
// length. `unit_bytes` is an estimate of the size of a unit. The whole haystack may be shorter than
// requested: the text with units_max units is then the result. Errors: invalid_argument (even 0
// units are too long), and those of `count`.
Result<EvalText> FitLength(const TextRequest& request, const TokenCounter& count,
                           uint64_t units_max, double unit_bytes,
                           const std::function<TextDraft(uint64_t units)>& draft);

// Sentences of the haystack with `bytes` bytes in total, single spaces included. The text index
// decides where they begin. A haystack that is too short is repeated.
std::vector<std::string_view> Prose(const TextRequest& request, uint64_t bytes);
// `sentences` sentences of RULER's noise, five per line.
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

// A version 4 UUID: 32 hexadecimal digits in five groups.
class EvalRng;
std::string RandomUuid(EvalRng* rng);
std::string RandomNumber(EvalRng* rng, uint32_t digits);
// An adjective and a noun: "quiet-lantern".
std::string RandomKey(EvalRng* rng);

}  // namespace longhold
