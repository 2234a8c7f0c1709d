// The commands that measure on the command line: eval, bench and calibrate.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "eval/task.h"
#include "service/cli/cli_parser.h"

namespace longhold {
namespace {

// Like ParseLength, but also accepts "0".
Result<uint64_t> ParseLengthOrNone(const std::string& text) {
  if (text == "0") return uint64_t{0};
  return ParseLength(text);
}

}  // namespace

void CommandLineParser::AddEval() {
  EvalSettings& s = eval_.settings;
  CLI::App* sub =
      Subcommand(&app_, "eval", "measure quality: needles, RULER, question files; compare modes");
  std::string names = "\nTasks ('ruler' selects all RULER tasks, 'all' selects every task):\n";
  for (const TaskInfo& task : EvalTasks())
    names += "  " + std::string(task.name) + std::string(18 - task.name.size(), ' ') +
             std::string(task.about) + "\n";
  sub->footer(names + sub->get_footer());
  sub->add_option("TASK", s.tasks, "tasks to run, see below")->type_name("");
  sub->add_option("--lengths", lengths_,
                  "text lengths in tokens (default 4k); 'whole': all of the haystack")
      ->delimiter(',')
      ->type_name("N,N,...")
      ->check(Checks([](const std::string& text) { return ParseLength(text); }));
  sub->add_option("--depths", s.depths, "number of needle depths (default 10)")
      ->type_name("N")
      ->check(CLI::Range(1, 1000));
  sub->add_option("--needles", s.questions, "questions per task and length (default 20)")
      ->type_name("N")
      ->check(CLI::Range(1, 100000));
  sub->add_option("--texts", s.texts, "texts per task for cwe, fwe and passkey (default 1)")
      ->type_name("N")
      ->check(CLI::Range(1, 100000));
  sub->add_flag("--one-per-context", s.one_per_text, "use a separate text for each question");
  sub->add_option("--seed", s.seed, "seed of texts and bootstrap intervals (default 1)")
      ->type_name("N");
  sub->add_option("--haystack", s.haystack,
                  "file, directory, or 'bible': what the program bible prints")
      ->type_name("PATH");
  sub->add_option("--questions", s.questions_file,
                  "tab-separated columns: evidence labels, question, answers")
      ->type_name("FILE.tsv");
  sub->add_option("--mode", modes_,
                  "longhold, full, window, rag-bm25, rag-embed, rag-hybrid, oracle")
      ->delimiter(',')
      ->type_name("M,M,...")
      ->check(Checks([](const std::string& text) { return ParseEvalMode(text); }));
  sub->add_option("--chunks", s.chunks, "rag modes: passages in a prompt (default 8)")
      ->type_name("N")
      ->check(CLI::Range(1, 1000));
  AddCodec(sub, &s.codec, "the memories");
  sub->add_option("--window", s.window_tokens, "window mode: tokens in a prompt (default 1024)")
      ->type_name("N")
      ->check(CLI::Range(128, 1 << 20));
  sub->add_option("--max-tokens", s.max_tokens, "length limit of an answer (default: the task's)")
      ->type_name("N")
      ->check(CLI::Range(1, 100000));
  sub->add_flag("!--no-prefix", s.answer_prefix,
                "do not give the model the first words of the answer");
  sub->add_option("--out", eval_.out, "directory for report.json, results.csv and results.jsonl")
      ->type_name("DIR");
  sub->add_flag("--keep", eval_.keep, "keep the memories of the texts, in DIR/home");
  sub->add_option("--resume", eval_.resume, "resume the run in DIR with its own settings")
      ->type_name("DIR");
  sub->callback([this, sub] { FinishEval(*sub); });
}

void CommandLineParser::FinishEval(const CLI::App& sub) {
  EvalSettings& s = eval_.settings;
  for (const CLI::Option* option : sub.get_options()) {
    const std::string name = option->get_name();
    if (!eval_.resume.empty() && option->count() > 0 && name != "--resume" && name != "--keep") {
      throw CLI::ValidationError(name, "a resumed run keeps its own settings; remove this flag");
    }
  }
  if (eval_.keep && eval_.out.empty() && eval_.resume.empty())
    throw CLI::ValidationError("--keep", "needs --out DIR");
  if (eval_.resume.empty()) {
    const Result<std::vector<std::string>> tasks = ExpandTasks(s.tasks);
    if (!tasks.ok()) throw CLI::ValidationError("TASK", tasks.status().message());
    s.tasks = *tasks;
    if (!s.questions_file.empty() &&
        std::find(s.tasks.begin(), s.tasks.end(), "questions") == s.tasks.end())
      s.tasks.push_back("questions");
    if (s.tasks.empty()) throw CLI::RequiredError("TASK, --questions or --resume");
    if (s.questions_file.empty() && s.tasks.back() == "questions")
      throw CLI::ValidationError("TASK", "questions: name the file with --questions");
  }
  if (!lengths_.empty()) s.lengths.clear();
  for (const std::string& length : lengths_) {
    s.lengths.push_back(*ParseLength(length));
    const bool generated = s.tasks != std::vector<std::string>{"questions"};
    if (s.lengths.back() == 0 && generated)
      throw CLI::ValidationError("--lengths", "whole: valid for a question file only");
  }
  if (!modes_.empty()) s.modes.clear();
  for (const std::string& mode : modes_) s.modes.push_back(*ParseEvalMode(mode));
  out_.command = eval_;
}

void CommandLineParser::AddBench() {
  SpeedSettings& s = bench_.settings;
  CLI::App* sub =
      Subcommand(&app_, "bench", "measure speed: ingest, answers, libllama alone, this machine");
  sub->add_option("--lengths", bench_lengths_, "text lengths in tokens (default 8k,32k)")
      ->delimiter(',')
      ->type_name("N,N,...")
      ->check(Checks([](const std::string& text) { return ParseLength(text); }));
  sub->add_option("--questions", s.questions, "questions per text (default 8)")
      ->type_name("N")
      ->check(CLI::Range(1, 1000));
  sub->add_option("--runs", s.runs, "runs of libllama alone, before and after a text (default 3)")
      ->type_name("N")
      ->check(CLI::Range(1, 100));
  sub->add_option("--full-max", full_max_,
                  "longest text for libllama's full attention (default 8k); 0: none")
      ->type_name("N")
      ->check(Checks(ParseLengthOrNone));
  sub->add_option("--max-tokens", s.max_tokens, "length limit of an answer (default 64)")
      ->type_name("N")
      ->check(CLI::Range(8, 100000));
  sub->add_option("--seed", s.seed, "seed of text and questions (default 1)")->type_name("N");
  sub->add_option("--haystack", s.haystack,
                  "file, directory, or 'bible': what the program bible prints")
      ->type_name("PATH");
  AddCodec(sub, &s.codec, "the memories");
  sub->callback([this] {
    if (!bench_lengths_.empty()) bench_.settings.lengths.clear();
    for (const std::string& length : bench_lengths_) {
      bench_.settings.lengths.push_back(*ParseLength(length));
      if (bench_.settings.lengths.back() == 0)
        throw CLI::ValidationError("--lengths", "whole: give a number of tokens");
    }
    if (!full_max_.empty()) bench_.settings.full_length_max = *ParseLengthOrNone(full_max_);
    out_.command = bench_;
  });
}

void CommandLineParser::AddCalibrate() {
  CLI::App* sub = Subcommand(
      &app_, "calibrate", "learn a recall profile for a model from plain text or labelled cases");
  CLI::Option* cases = sub->add_option("--cases", calibrate_.cases,
                                       "one kind of text: texts/ and questions.tsv; repeatable")
                           ->type_name("DIR");
  sub->add_option("--text", calibrate_.texts,
                  "plain text, file or directory; repeatable (default: licence texts)")
      ->type_name("PATH")
      ->excludes(cases);
  sub->add_option("--out", calibrate_.out,
                  "profile file (default: in the home, used with this model from then on)")
      ->type_name("FILE");
  sub->add_option("--minutes", calibrate_.minutes, "approximate time limit (default 15)")
      ->type_name("N")
      ->check(CLI::Range(0.1, 1000.0))
      ->excludes(cases);
  sub->add_option("--seed", calibrate_.seed, "seed of the cases (default 1)")
      ->type_name("N")
      ->excludes(cases);
  sub->callback([this] { out_.command = calibrate_; });
}

}  // namespace longhold
