// The report of an evaluation: settings, one row per question and mode, and summaries; as JSON, CSV
// and text.
//
// Value types and pure functions, except WriteReportFile and WriteReport. Only report.cc uses
// Boost.JSON.
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

// What the model answers from.
enum class EvalMode : uint8_t {
  kLonghold,   // longhold's memory of the text: ingest once, then recall and answer
  kFull,       // the whole text, with libllama's own full attention
  kWindow,     // a prompt with the first and last tokens of the text
  kRagBm25,    // a prompt with the best passages by BM25
  kRagEmbed,   // a prompt with the best passages by an embedding model
  kRagHybrid,  // a prompt with the best passages by both, fused by rank
  kOracle,     // a prompt with the evidence only: an upper bound for the model
};
// The name on the command line.
std::string_view EvalModeName(EvalMode mode);
// Errors: invalid_argument, listing the names.
Result<EvalMode> ParseEvalMode(std::string_view name);

// Parses a text length: "4k" (4,096), "1m" (1,048,576), "5000"; "whole" is 0. Errors:
// invalid_argument.
Result<uint64_t> ParseLength(std::string_view text);
std::string LengthName(uint64_t tokens);  // the shortest form that ParseLength accepts

// All settings of a run. They are stored with the run, so that it can be resumed. Value type.
struct EvalSettings {
  std::vector<std::string> tasks;
  std::vector<uint64_t> lengths = {4096};
  std::vector<EvalMode> modes = {EvalMode::kLonghold, EvalMode::kOracle};
  uint32_t depths = 10;
  uint32_t questions = 20;    // per task and length; --needles
  uint32_t texts = 1;         // texts per task and length, for tasks with one question per text
  bool one_per_text = false;  // use a separate text for each question
  uint64_t seed = 1;
  std::string haystack = "bible";
  std::string questions_file;  // for the task `questions`
  uint32_t chunks = 8;         // passages per prompt in the rag modes
  uint32_t window_tokens = 1024;
  uint32_t max_tokens = 0;                         // length limit of an answer; 0: the task's
  bool answer_prefix = true;                       // give the model the first words of the answer
  std::string codec = std::string(kDefaultCodec);  // codec of the memories' blocks
  bool keep = false;                               // keep the memories when the run is complete
};
std::string SettingsJson(const EvalSettings& settings);
// Errors: invalid_argument naming the key.
Result<EvalSettings> ParseSettings(std::string_view json);

// The result of one question in one mode. Value type.
struct EvalRow {
  std::string task;
  uint64_t length = 0;    // requested tokens; 0: the whole haystack
  uint32_t text = 0;      // index among the texts of this task and length
  uint32_t question = 0;  // index among the questions of that text
  EvalMode mode = EvalMode::kLonghold;
  uint64_t text_tokens = 0;  // actual number of tokens
  double depth = 0;
  uint32_t depth_cell = 0;
  std::string asked, answer;
  std::vector<std::string> expected;
  double score = 0;  // 0..1
  // hit@k for kHitRanks. nullopt for questions without evidence and for the modes oracle and full.
  std::optional<std::array<double, 4>> hits;
  double first_token_ms = 0;  // from the question, without reading the text
  uint64_t tokens_read = 0;   // prompt and recalled tokens that the answer attends to
  double read_seconds = 0;    // time to read or index the text, which all its questions share
  // Peak RAM of the mode on this text so far, minus the RAM of the process with the model loaded.
  uint64_t ram_bytes = 0;
  double coverage = 0;        // mode longhold only: AskReply::coverage
  double token_gain = 0;      // mode longhold only: AskReply::token_gain
  bool unanswerable = false;  // if true, `score` is 1 for abstaining and 0 for any answer
  bool abstained = false;     // mode longhold only
  std::string skipped;        // why it was not asked: "does not fit: ..."; empty if it was asked

  // Identifies question and mode within a run.
  std::string Key() const;
};
std::string RowJson(const EvalRow& row);
Result<EvalRow> ParseRow(std::string_view json);  // invalid_argument

// The summary of one task at one length in one mode. Value type.
struct EvalSummary {
  std::string task;
  uint64_t length = 0;
  EvalMode mode = EvalMode::kLonghold;
  uint32_t asked = 0;
  uint32_t skipped = 0;
  std::string skipped_why;                    // reason of the first skipped question
  double score = 0;                           // mean, 0..1
  Interval score_interval;                    // bootstrap, 95 %
  std::optional<std::array<double, 4>> hits;  // means
  std::optional<double> retention;            // score / oracle's score; nullopt if that is 0
  double first_token_ms = 0;                  // median
  double tokens_read = 0;                     // mean
  double text_tokens = 0;                     // mean
  double read_seconds = 0;                    // sum over the texts
  uint64_t ram_bytes = 0;                     // maximum
  uint32_t unanswerable = 0;                  // questions of `asked` without an answer in the text
  uint32_t abstained = 0;                     // questions of `unanswerable` where it abstained
  uint32_t abstained_wrongly = 0;             // other questions where it abstained
};
// The summaries, in the order in which tasks, lengths and modes first appear in `rows`. `seed` is
// the seed of the bootstrap.
std::vector<EvalSummary> Summarise(const std::vector<EvalRow>& rows, uint64_t seed);

// The program, model and profile of a run. Value type.
struct EvalEnvironment {
  std::string version, kernels;
  std::string model, model_fingerprint;
  std::string profile, profile_fingerprint;
};

struct EvalReport {
  EvalEnvironment environment;
  EvalSettings settings;
  bool complete = true;  // false: the run was interrupted
  std::vector<std::string> notes;
  std::vector<EvalRow> rows;
  std::vector<EvalSummary> results;
};
std::string ReportJson(const EvalReport& report);  // one object on one line, without the rows
std::string ReportCsv(const EvalReport& report);   // one line per row, with a header
std::string ReportText(const EvalReport& report);  // at most 80 columns

// Writes a file atomically: to PATH.partial first, which is then renamed. Errors: invalid_argument
// naming the path.
Status WriteReportFile(const std::filesystem::path& path, const std::string& bytes);

// Writes the charts of a report into a directory.
using ChartWriter = std::function<Status(const EvalReport&, const std::string& directory)>;
// Writes report.json and results.csv into `directory`, each atomically. `charts` may be empty; else
// it writes the charts. Errors: those of WriteReportFile and `charts`.
Status WriteReport(const EvalReport& report, const std::string& directory,
                   const ChartWriter& charts);

// The first line of a run's journal: settings and environment. Errors of ParseHeader:
// invalid_argument.
std::string HeaderJson(const EvalSettings& settings, const EvalEnvironment& environment);
Status ParseHeader(std::string_view json, EvalSettings* settings, EvalEnvironment* environment);

}  // namespace longhold
