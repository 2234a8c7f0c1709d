// What an evaluation was asked, what came of each question, and what that sums up to; as JSON, CSV
// and text.
//
// Value types and pure functions, but for WriteReport. Boost.JSON stops at report.cc.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "eval/metrics.h"
#include "store/block_codec.h"

namespace longhold {

// By what the model answers from. Names as on the command line.
enum class EvalMode : uint8_t {
  kLonghold,  // the engine: read once, recall, answer
  kFull,      // the model's own attention over the whole text
  kWindow,    // the text's first and last tokens, nothing else
  kRagBm25,   // best passages by words, as a prompt
  kRagEmbed,  // best passages by an embedding model, as a prompt
  kOracle,    // the evidence alone, as a prompt: the model's ceiling
};
std::string_view EvalModeName(EvalMode mode);
// Errors: invalid_argument, listing the names.
Result<EvalMode> ParseEvalMode(std::string_view name);

// "4k" (4,096), "1m" (1,048,576), "5000"; "whole" is 0. Errors: invalid_argument.
Result<uint64_t> ParseLength(std::string_view text);
std::string LengthName(uint64_t tokens);  // the shortest of these forms

// Everything that decides what a run does. Stored with it, so that it can go on.
struct EvalSettings {
  std::vector<std::string> tasks;
  std::vector<uint64_t> lengths = {4096};
  std::vector<EvalMode> modes = {EvalMode::kLonghold, EvalMode::kOracle};
  uint32_t depths = 10;
  uint32_t questions = 20;    // of each task and length; --needles
  uint32_t texts = 1;         // of tasks with one question to a text
  bool one_per_text = false;  // each question has a text of its own
  uint64_t seed = 1;
  std::string haystack = "bible";
  std::string questions_file;  // for the task `questions`
  uint32_t chunks = 8;         // passages in a prompt of the retrieval modes
  uint32_t window_tokens = 1024;
  uint32_t max_tokens = 0;                         // of an answer; 0: the task's own
  bool answer_prefix = true;                       // give the task's first words of the answer
  std::string codec = std::string(kDefaultCodec);  // of the memories' blocks
  bool keep = false;                               // the memories stay when the run is done
};
std::string SettingsJson(const EvalSettings& settings);
// Errors: invalid_argument naming the key.
Result<EvalSettings> ParseSettings(std::string_view json);

// One question in one mode.
struct EvalRow {
  std::string task;
  uint64_t length = 0;    // asked
  uint32_t text = 0;      // of this task and length
  uint32_t question = 0;  // of that text
  EvalMode mode = EvalMode::kLonghold;
  uint64_t text_tokens = 0;  // what the text really has
  double depth = 0;
  uint32_t depth_cell = 0;
  std::string asked, answer;
  std::vector<std::string> expected;
  double score = 0;  // 0..1
  // kHitRanks; not where there is no evidence to find, and not for oracle and full
  std::optional<std::array<double, 4>> hits;
  double first_token_ms = 0;  // from the question; reading the text is not in it
  uint64_t tokens_read = 0;   // prompt and recalled tokens that the answer attends to
  double read_seconds = 0;    // reading, or indexing, the text: shared by its questions
  // most memory of the mode on this text so far, beside what the process had with the model loaded
  uint64_t ram_bytes = 0;
  double coverage = 0;        // longhold only
  double token_gain = 0;      // longhold only: AskReply::token_gain
  bool unanswerable = false;  // the score is then 1 for abstaining and 0 for any answer
  bool abstained = false;     // longhold only
  std::string skipped;        // why it was not asked: "does not fit: ..."; empty when it was

  // Names the question and the mode within a run.
  std::string Key() const;
};
std::string RowJson(const EvalRow& row);
Result<EvalRow> ParseRow(std::string_view json);  // invalid_argument

// A task at a length in a mode.
struct EvalSummary {
  std::string task;
  uint64_t length = 0;
  EvalMode mode = EvalMode::kLonghold;
  uint32_t asked = 0;
  uint32_t skipped = 0;
  std::string skipped_why;                    // of the first
  double score = 0;                           // mean, 0..1
  Interval score_interval;                    // bootstrap, 95 %
  std::optional<std::array<double, 4>> hits;  // means
  std::optional<double> retention;            // score / the oracle's; where there is one above 0
  double first_token_ms = 0;                  // median
  double tokens_read = 0;                     // mean
  double text_tokens = 0;                     // mean
  double read_seconds = 0;                    // of all texts
  uint64_t ram_bytes = 0;                     // largest
  uint32_t unanswerable = 0;                  // of `asked`, those that the text does not answer
  // of these, those where the reply was that there is nothing
  uint32_t abstained = 0;
  uint32_t abstained_wrongly = 0;  // the same of the others
};
// In the order in which tasks, lengths and modes first appear in `rows`.
std::vector<EvalSummary> Summarise(const std::vector<EvalRow>& rows, uint64_t seed);

// Which program, model and profile.
struct EvalEnvironment {
  std::string version, kernels;
  std::string model, model_fingerprint;
  std::string profile, profile_fingerprint;
};

struct EvalReport {
  EvalEnvironment environment;
  EvalSettings settings;
  bool complete = true;  // false: it was interrupted
  std::vector<std::string> notes;
  std::vector<EvalRow> rows;
  std::vector<EvalSummary> results;
};
std::string ReportJson(const EvalReport& report);  // one object on one line, without the rows
std::string ReportCsv(const EvalReport& report);   // one line per row, with a header
std::string ReportText(const EvalReport& report);  // at most 80 columns

// A file of a report, written beside its place and renamed. Errors: invalid_argument naming the
// path.
Status WriteReportFile(const std::filesystem::path& path, const std::string& bytes);

// Draws a report's charts into a directory.
using ChartWriter = std::function<Status(const EvalReport&, const std::string& directory)>;
// report.json and results.csv in `directory`, each by rename, and the charts where there is
// somebody who draws them.
Status WriteReport(const EvalReport& report, const std::string& directory,
                   const ChartWriter& charts);

// The first line of a run's journal: settings and environment. ParseHeader: invalid_argument.
std::string HeaderJson(const EvalSettings& settings, const EvalEnvironment& environment);
Status ParseHeader(std::string_view json, EvalSettings* settings, EvalEnvironment* environment);

}  // namespace longhold
