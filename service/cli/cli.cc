#include "service/cli/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "eval/task.h"
#include "memory/engine.h"
#include "service/cli/cli_manual.h"

namespace longhold {
namespace {

constexpr char kAbout[] =
    "longhold: a small model reads a text once; longhold keeps all of it and answers from it.";
constexpr char kFooter[] =
    "\nExit codes: 0 ok, 1 error, 2 usage, 3 not found, 4 corrupt, 5 quota or disk full, 130 "
    "interrupted."
    "\nstdout is data, stderr is progress. 'longhold COMMAND --help' explains a command;"
    "\n'longhold config show --origin' the settings in force.";

// Passes what Result-returning parsers accept.
template <typename Parse>
CLI::Validator Checks(Parse parse) {
  return CLI::Validator(
      [parse](std::string& text) {
        const auto value = parse(text);
        return value.ok() ? std::string() : value.status().message();
      },
      "");
}

// "0" too, which ParseLength has no use for.
Result<uint64_t> ParseLengthOrNone(const std::string& text) {
  if (text == "0") return uint64_t{0};
  return ParseLength(text);
}

CLI::Validator CodecName() {
  const std::vector<std::string_view> names = CodecNames();
  return CLI::IsMember(std::vector<std::string>(names.begin(), names.end()));
}

void AddCodec(CLI::App* sub, std::string* codec, const std::string& whose) {
  sub->add_option("--codec", *codec,
                  "how " + whose + " keys and values: " + CodecList() + " (" +
                      std::string(kDefaultCodec) + ")")
      ->type_name("NAME")
      ->check(CodecName());
}

CLI::Validator MemoryName() {
  return CLI::Validator(
      [](std::string& text) {
        const Status status = Engine::CheckName(text);
        return status.ok() ? std::string() : status.message();
      },
      "");
}

std::string OneLine(std::string text) {
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

// Builds the parser over one Invocation. Options are written into the commands' structs; the
// callback of the command that was named stores its struct.
class Parser {
 public:
  Parser() : app_(kAbout, "longhold") {
    app_.require_subcommand(1);
    app_.footer(kFooter);
    app_.get_formatter()->column_width(26);  // commands share the formatter
    AddGlobals();
    AddModel();
    AddIngest();
    AddAsk();
    AddChat();
    AddRecall();
    AddMemoryCommands();
    AddEval();
    AddBench();
    AddCalibrate();
    AddServe();
    AddKey();
    AddConfig();
    AddManual();
    Subcommand(&app_, "version", "print the version")->callback([this] {
      out_.command = VersionCommand{};
    });
  }

  std::variant<Invocation, EarlyExit> Parse(int argc, const char* const* argv) {
    try {
      app_.parse(argc, argv);
      if (man_) return EarlyExit{0, ManPage(Manual(), LONGHOLD_VERSION)};
      if (!shell_.empty()) return EarlyExit{0, Completion(Manual(), shell_)};
      if (sample_) return EarlyExit{0, ConfigSample()};
      return std::move(out_);
    } catch (const CLI::CallForHelp&) {
      return EarlyExit{0, app_.help()};
    } catch (const CLI::ParseError& error) {
      const CLI::App* at = Named(&app_);
      return EarlyExit{2, "usage: " + OneLine(error.what()) + "; see '" + Path(at) + " --help'"};
    }
  }

  std::vector<CommandManual> Manual() const {
    std::vector<CommandManual> commands;
    Describe(app_, "", &commands);
    return commands;
  }

 private:
  static OptionManual Describe(const CLI::Option& option) {
    OptionManual manual{.names = {}, .value = {}, .choices = {}, .about = option.get_description()};
    manual.positional = option.get_positional();
    manual.required = option.get_required();
    manual.repeats = option.get_items_expected_max() > 1;
    if (manual.positional) manual.names.push_back(option.get_name(true));
    for (const std::string& name : option.get_lnames()) manual.names.push_back("--" + name);
    for (const std::string& name : option.get_snames()) manual.names.push_back("-" + name);
    // "SCOPE:{read,write,admin}"
    const std::string type = option.get_items_expected_max() > 0 ? option.get_type_name() : "";
    const size_t open = type.find('{'), close = type.find('}', open);
    if (open != std::string::npos && close != std::string::npos) {
      for (size_t at = open + 1; at < close;) {
        const size_t end = std::min(type.find(',', at), close);
        manual.choices.push_back(type.substr(at, end - at));
        at = end + 1;
      }
    }
    // "ADDRESS:PORT" is a name with a colon, too: what a validator says of itself begins in one of
    // these ways.
    manual.value = type.substr(0, std::min({type.find(":{"), type.find(":INT in"),
                                            type.find(":UINT in"), type.find(":FLOAT in")}));
    return manual;
  }

  static void Describe(const CLI::App& app, const std::string& name,
                       std::vector<CommandManual>* commands) {
    const std::vector<const CLI::App*> below =
        app.get_subcommands([](const CLI::App*) { return true; });
    CommandManual manual{.name = name,
                         .about = name.empty() ? kAbout : app.get_description(),
                         .options = {},
                         .group = !below.empty() && !name.empty()};
    for (const CLI::Option* option : app.get_options()) {
      if (option->check_lname("help")) continue;
      manual.options.push_back(Describe(*option));
    }
    commands->push_back(std::move(manual));
    for (const CLI::App* sub : below)
      Describe(*sub, name + (name.empty() ? "" : " ") + sub->get_name(), commands);
  }

  // The innermost command that was named.
  static const CLI::App* Named(const CLI::App* app) {
    const auto parsed = app->get_subcommands();
    return parsed.empty() ? app : Named(parsed.front());
  }
  static std::string Path(const CLI::App* app) {
    return app->get_parent() == nullptr ? app->get_name()
                                        : Path(app->get_parent()) + " " + app->get_name();
  }

  static CLI::App* Subcommand(CLI::App* parent, const std::string& name, const std::string& about) {
    CLI::App* sub = parent->add_subcommand(name, about);
    sub->fallthrough();  // global flags may follow the command
    sub->footer(
        "\nGlobal flags (--home, --model, --json, --quiet, ...) may follow the command: see "
        "'longhold --help'.");
    return sub;
  }

  void AddGlobals() {
    ConfigFlags& flags = out_.flags;
    app_.add_option("--home", flags.home, "directory of the memories [$LONGHOLD_HOME]")
        ->type_name("DIR");
    app_.add_option("--model", flags.model, "name from 'model list', or a file [$LONGHOLD_MODEL]")
        ->type_name("NAME|GGUF");
    app_.add_option("--encryption-key", flags.encryption_key,
                    "file of the key for encrypted memories [$LONGHOLD_ENCRYPTION_KEY]")
        ->type_name("FILE");
    app_.add_option("--profile", flags.profile,
                    "recall profile instead of the model's own [$LONGHOLD_PROFILE]")
        ->type_name("FILE");
    app_.add_option("--threads", flags.threads, "compute threads [$LONGHOLD_THREADS]")
        ->type_name("N")
        ->check(Checks(ParseThreads));
    app_.add_option("--memory-budget", flags.memory_budget,
                    "RAM beside the weights [$LONGHOLD_MEMORY_BUDGET]")
        ->type_name("BYTES")
        ->check(Checks(ParseBudget));
    app_.add_option("--config", flags.config_file, "[$XDG_CONFIG_HOME/longhold/config.toml]")
        ->type_name("FILE");
    app_.add_flag("--json", out_.json, "print one JSON object on stdout");
    app_.add_flag("--quiet,-q", out_.quiet, "no progress on stderr");
  }

  void AddModel() {
    CLI::App* model = Subcommand(&app_, "model", "fetch, name and list model weights");
    model->require_subcommand(1);
    CLI::App* get = Subcommand(model, "get", "fetch and verify a model; prints its path");
    get->add_option("NAME", model_get_.name,
                    "qwen2.5-coder-1.5b, smollm2, gemma3-270m, or minilm-l6 (embeddings)")
        ->required();
    get->callback([this] { out_.command = model_get_; });
    CLI::App* add = Subcommand(model, "add", "give a GGUF file a name; the file stays where it is");
    add->add_option("NAME", model_add_.name, "letters, digits, dots, dashes and underscores")
        ->required();
    add->add_option("FILE", model_add_.file, "the GGUF file")->required();
    add->callback([this] { out_.command = model_add_; });
    CLI::App* remove =
        Subcommand(model, "remove", "take a name away that 'model add' gave; the file stays");
    remove->add_option("NAME", model_remove_.name, "the name")->required();
    remove->callback([this] { out_.command = model_remove_; });
    Subcommand(model, "list", "models that can be fetched or have been added, and which are here")
        ->callback([this] { out_.command = ModelListCommand{}; });
  }

  void AddIngest() {
    CLI::App* sub =
        Subcommand(&app_, "ingest", "read texts into a memory; goes on where it was stopped");
    sub->add_option("PATH", ingest_.paths,
                    "files, directories (hidden entries left out), - for stdin")
        ->required();
    sub->add_option("--into", ingest_.memory, "the memory; created when it is not there")
        ->type_name("NAME")
        ->required()
        ->check(MemoryName());
    AddCodec(sub, &ingest_.codec, "a new memory stores");
    sub->add_option("--as", format_, "format of the texts: text")
        ->type_name("FORMAT")
        ->check(CLI::IsMember({"text"}));
    sub->callback([this] { out_.command = ingest_; });
  }

  void AddAsk() {
    CLI::App* sub = Subcommand(&app_, "ask", "answer a question from a memory, with citations");
    AddMemory(sub, &ask_.memory);
    sub->add_option("QUESTION", ask_.question, "the question, or - for stdin")->required();
    sub->add_option("--answer-prefix", ask_.answer_prefix,
                    "first words of the answer; not repeated")
        ->type_name("TEXT");
    sub->add_option("--max-tokens", ask_.max_tokens, "longest answer (128)")
        ->type_name("N")
        ->check(CLI::Range(1, 100000));
    AddSampler(sub, &ask_.sampler);
    sub->add_option("--spans", ask_.spans, "most spans to recall (the recall profile's)")
        ->type_name("N")
        ->check(CLI::Range(1, 1024));
    AddRerank(sub, &ask_.rerank);
    sub->add_option("--reencode", ask_.reencode,
                    "tokens of recalled lines read again (the profile's)")
        ->type_name("N")
        ->check(CLI::Range(0u, kReencodeTokensMax));
    sub->add_option("--system", ask_.system, "instruction before the question")->type_name("TEXT");
    sub->add_flag("!--no-abstain", ask_.abstain,
                  "answer also where the memory seems to hold nothing on it");
    sub->add_flag("--inline-citations", ask_.inline_citations,
                  "write [1] behind each sentence: the citation that it rests on most");
    sub->add_option("--attend", ask_.attend,
                    "focused: to what was recalled; faithful: to what heads pick (focused)")
        ->type_name("MODE")
        ->check(CLI::IsMember({"focused", "faithful"}));
    sub->add_option("--attend-share", ask_.attend_share,
                    "faithful: share of the blocks that a head picks (0.1)")
        ->type_name("F")
        ->check(CLI::Range(0.0, 1.0));
    sub->callback([this] { out_.command = ask_; });
  }

  static void AddRerank(CLI::App* sub, std::optional<uint32_t>* spans) {
    sub->add_option("--rerank", *spans, "spans that the model reranks, slowly (the profile's)")
        ->type_name("N")
        ->check(CLI::Range(0u, kRerankSpansMax));
  }

  static void AddSampler(CLI::App* sub, SamplerOptions* sampler) {
    sub->add_option("--seed", sampler->seed, "of the sampler (1)")->type_name("N");
    sub->add_option("--temperature", sampler->temperature,
                    "of the sampler; 0 takes the likeliest (0)")
        ->type_name("X")
        ->check(CLI::Range(0.0, 100.0));
    sub->add_option("--top-p", sampler->top_p, "share of probability that is sampled from (1)")
        ->type_name("X")
        ->check(CLI::Range(0.0, 1.0));
    sub->add_option("--dry-multiplier", sampler->dry_multiplier,
                    "against answers that repeat themselves; 0: nothing (0.8)")
        ->type_name("X")
        ->check(CLI::Range(0.0, 100.0));
  }

  void AddChat() {
    CLI::App* sub =
        Subcommand(&app_, "chat", "talk over a memory; what is said becomes part of it");
    AddMemory(sub, &chat_.memory);
    sub->add_option("--max-tokens", chat_.max_tokens, "longest answer (256)")
        ->type_name("N")
        ->check(CLI::Range(1, 100000));
    AddSampler(sub, &chat_.sampler);
    sub->add_option("--system", chat_.system, "instruction before the conversation")
        ->type_name("TEXT");
    sub->callback([this] { out_.command = chat_; });
  }

  void AddRecall() {
    CLI::App* sub =
        Subcommand(&app_, "recall", "the spans that a query brings back, without an answer");
    AddMemory(sub, &recall_.memory);
    sub->add_option("QUERY", recall_.query, "the query, or - for stdin")->required();
    sub->add_option("--spans", recall_.spans, "most spans (the recall profile's)")
        ->type_name("N")
        ->check(CLI::Range(1, 1024));
    AddRerank(sub, &recall_.rerank);
    sub->add_flag("--explain", recall_.explain,
                  "show what competed: ranks, scores, words found and missing");
    sub->add_flag("!--no-abstain", recall_.abstain,
                  "all spans also where the memory seems to hold nothing on it");
    sub->callback([this] { out_.command = recall_; });
  }

  void AddMemoryCommands() {
    Subcommand(&app_, "list", "all memories")->callback([this] { out_.command = ListCommand{}; });
    CLI::App* show = Subcommand(&app_, "show", "one memory's model, documents and size");
    AddMemory(show, &show_.memory);
    show->callback([this] { out_.command = show_; });
    CLI::App* forget =
        Subcommand(&app_, "forget", "remove a document or a whole memory, also from the disk");
    AddMemory(forget, &forget_.memory);
    forget
        ->add_option("DOCUMENT", forget_.document,
                     "as 'show' names it; without it: the whole memory")
        ->check(Checks([](const std::string& text) -> Result<bool> {
          // An unset shell variable must not remove a whole memory.
          if (text.empty()) return InvalidArgument("the document's name is empty");
          return true;
        }));
    forget->add_flag("!--no-compact", forget_.compact,
                     "leave the bytes on the disk until 'compact'");
    forget->callback([this] { out_.command = forget_; });
    CLI::App* compact =
        Subcommand(&app_, "compact", "rewrite a memory's files without what was forgotten");
    AddMemory(compact, &compact_.memory);
    compact
        ->add_option("--codec", compact_.codec,
                     "from now on, and for what is stored: " + CodecList())
        ->type_name("NAME")
        ->check(CodecName());
    compact->callback([this] { out_.command = compact_; });
    CLI::App* exported = Subcommand(&app_, "export", "write a memory into one file");
    AddMemory(exported, &export_.memory);
    exported->add_option("FILE", export_.file, "- for standard output")->required();
    exported->callback([this] { out_.command = export_; });
    CLI::App* imported = Subcommand(&app_, "import", "make a memory of an exported file");
    imported->add_option("FILE", import_.file, "- for standard input")->required();
    imported->add_option("--into", import_.into, "another name than it had")
        ->type_name("NAME")
        ->check(MemoryName());
    imported->callback([this] { out_.command = import_; });
    CLI::App* verify = Subcommand(&app_, "verify", "read everything of a memory back and check it");
    AddMemory(verify, &verify_.memory);
    verify->callback([this] { out_.command = verify_; });
    CLI::App* reindex = Subcommand(
        &app_, "reindex", "build a memory's index again, for the model's recall heads of today");
    AddMemory(reindex, &reindex_.memory);
    reindex->callback([this] { out_.command = reindex_; });
  }

  void AddEval() {
    EvalSettings& s = eval_.settings;
    CLI::App* sub = Subcommand(
        &app_, "eval", "measure: needles, RULER tasks, question files; several modes side by side");
    std::string names = "\nTasks ('ruler' stands for those of RULER, 'all' for all):\n";
    for (const TaskInfo& task : EvalTasks())
      names += "  " + std::string(task.name) + std::string(18 - task.name.size(), ' ') +
               std::string(task.about) + "\n";
    sub->footer(names + sub->get_footer());
    sub->add_option("TASK", s.tasks, "which, see below")->type_name("");
    sub->add_option("--lengths", lengths_,
                    "of the texts in tokens (4k); 'whole': all of the haystack")
        ->delimiter(',')
        ->type_name("N,N,...")
        ->check(Checks([](const std::string& text) { return ParseLength(text); }));
    sub->add_option("--depths", s.depths, "rows of the grid of depths (10)")
        ->type_name("N")
        ->check(CLI::Range(1, 1000));
    sub->add_option("--needles", s.questions, "questions of each task and length (20)")
        ->type_name("N")
        ->check(CLI::Range(1, 100000));
    sub->add_option("--texts", s.texts,
                    "texts of tasks with one question each: cwe, fwe, passkey (1)")
        ->type_name("N")
        ->check(CLI::Range(1, 100000));
    sub->add_flag("--one-per-context", s.one_per_text, "a text of its own for every question");
    sub->add_option("--seed", s.seed, "of texts and intervals (1)")->type_name("N");
    sub->add_option("--haystack", s.haystack, "a file, a directory, or the program's 'bible'")
        ->type_name("PATH");
    sub->add_option("--questions", s.questions_file,
                    "a file: evidence labels, question, answers, by tabs")
        ->type_name("FILE.tsv");
    sub->add_option("--mode", modes_, "longhold, full, window, rag-bm25, rag-embed, oracle")
        ->delimiter(',')
        ->type_name("M,M,...")
        ->check(Checks([](const std::string& text) { return ParseEvalMode(text); }));
    sub->add_option("--chunks", s.chunks, "passages in a prompt of the rag modes (8)")
        ->type_name("N")
        ->check(CLI::Range(1, 1000));
    AddCodec(sub, &s.codec, "the memories store");
    sub->add_option("--window", s.window_tokens, "tokens in a prompt of the mode window (1024)")
        ->type_name("N")
        ->check(CLI::Range(128, 1 << 20));
    sub->add_option("--max-tokens", s.max_tokens, "longest answer (the task's)")
        ->type_name("N")
        ->check(CLI::Range(1, 100000));
    sub->add_flag("!--no-prefix", s.answer_prefix, "do not give the answers' first words");
    sub->add_option("--out", eval_.out, "where report.json, results.csv and results.jsonl go")
        ->type_name("DIR");
    sub->add_flag("--keep", eval_.keep, "keep the texts' memories, in DIR/home");
    sub->add_option("--resume", eval_.resume, "go on with the run in DIR, by its own settings")
        ->type_name("DIR");
    sub->callback([this, sub] { FinishEval(*sub); });
  }

  // What CLI11 does not check by itself.
  void FinishEval(const CLI::App& sub) {
    EvalSettings& s = eval_.settings;
    for (const CLI::Option* option : sub.get_options()) {
      const std::string name = option->get_name();
      if (!eval_.resume.empty() && option->count() > 0 && name != "--resume" && name != "--keep") {
        throw CLI::ValidationError(name, "a resumed run has its own settings; leave this away");
      }
    }
    if (eval_.keep && eval_.out.empty() && eval_.resume.empty())
      throw CLI::ValidationError("--keep", "needs --out DIR to keep them in");
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
        throw CLI::ValidationError("--lengths",
                                   "whole: only a question file goes over a whole text");
    }
    if (!modes_.empty()) s.modes.clear();
    for (const std::string& mode : modes_) s.modes.push_back(*ParseEvalMode(mode));
    out_.command = eval_;
  }

  void AddBench() {
    SpeedSettings& s = bench_.settings;
    CLI::App* sub = Subcommand(&app_, "bench",
                               "measure speed: reading, answering, the engine alone, this machine");
    sub->add_option("--lengths", bench_lengths_, "of the texts in tokens (8k,32k)")
        ->delimiter(',')
        ->type_name("N,N,...")
        ->check(Checks([](const std::string& text) { return ParseLength(text); }));
    sub->add_option("--questions", s.questions, "asked of each text (8)")
        ->type_name("N")
        ->check(CLI::Range(1, 1000));
    sub->add_option("--runs", s.runs, "of the engine alone, before a text and after it (3)")
        ->type_name("N")
        ->check(CLI::Range(1, 100));
    sub->add_option("--full-max", full_max_,
                    "longest text for the model's own full attention (8k); 0: none")
        ->type_name("N")
        ->check(Checks(ParseLengthOrNone));
    sub->add_option("--max-tokens", s.max_tokens, "longest answer (64)")
        ->type_name("N")
        ->check(CLI::Range(8, 100000));
    sub->add_option("--seed", s.seed, "of the text and the questions (1)")->type_name("N");
    sub->add_option("--haystack", s.haystack, "a file, a directory, or the program's 'bible'")
        ->type_name("PATH");
    AddCodec(sub, &s.codec, "the memories store");
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

  void AddCalibrate() {
    CLI::App* sub =
        Subcommand(&app_, "calibrate", "learn a recall profile for a model from plain text");
    sub->add_option(
           "--text", calibrate_.texts,
           "a file or directory of plain text; may be repeated (this machine's licence texts)")
        ->type_name("PATH");
    sub->add_option("--out", calibrate_.out,
                    "the profile's file (kept in the home, and used with this model from then on)")
        ->type_name("FILE");
    sub->add_option("--minutes", calibrate_.minutes, "about how long it may take (15)")
        ->type_name("N")
        ->check(CLI::Range(0.1, 1000.0));
    sub->add_option("--seed", calibrate_.seed, "of the cases (1)")->type_name("N");
    sub->callback([this] { out_.command = calibrate_; });
  }

  void AddServe() {
    CLI::App* sub =
        Subcommand(&app_, "serve", "answer over HTTP, as OpenAI's API does, until stopped");
    sub->add_option("--listen", out_.flags.listen,
                    "address and port; port 0: any that is free [$LONGHOLD_LISTEN]")
        ->type_name("ADDRESS:PORT")
        ->check(Checks(ParseListen));
    sub->add_option("--memory", serve_.memory, "of requests that name none")
        ->type_name("NAME")
        ->check(MemoryName());
    sub->add_option("--host", serve_.hosts,
                    "a name by which this machine may be asked; may be repeated (localhost)")
        ->type_name("NAME");
    sub->add_option("--embedder", serve_.embedder,
                    "answer /v1/embeddings with this model, such as minilm-l6 (none)")
        ->type_name("MODEL");
    sub->add_option("--ingest-root", out_.flags.ingest_root,
                    "texts beneath this directory may be named by their path, by keys of no tenant")
        ->type_name("DIR");
    sub->add_option("--tls-certificate", out_.flags.tls_certificate,
                    "the server's and those above it, PEM; read again when it changes")
        ->type_name("FILE");
    sub->add_option("--tls-key", out_.flags.tls_key, "its private key, PEM")->type_name("FILE");
    sub->add_option("--tls-client-ca", out_.flags.tls_client_ca,
                    "clients need a certificate that one of these signed, PEM")
        ->type_name("FILE");
    sub->add_option("--audit-log", out_.flags.audit_log,
                    "add a line to it of who did what to which memory")
        ->type_name("FILE");
    sub->add_option("--log", serve_.log,
                    "json: a line on stderr for each request, without what was asked (none)")
        ->type_name("FORMAT")
        ->check(CLI::IsMember({"json", "none"}));
    sub->add_flag("--insecure", serve_.insecure,
                  "listen where others reach it: with keys, but without TLS");
    sub->callback([this] { out_.command = serve_; });
  }

  void AddKey() {
    CLI::App* key = Subcommand(&app_, "key", "who may use the server");
    key->require_subcommand(1);
    CLI::App* add = Subcommand(key, "add", "make a key and print it, once");
    add->add_option("NAME", key_add_.name, "whose it is")->required();
    add->add_option("--scope", key_add_.scope, "read, write or admin (read)")
        ->type_name("SCOPE")
        ->check(CLI::IsMember({"read", "write", "admin"}));
    add->add_option("--days", key_add_.days, "until it expires (never)")
        ->type_name("N")
        ->check(CLI::Range(1, 100000));
    add->add_option("--tenant", key_add_.tenant, "sees only this tenant's memories (all)")
        ->type_name("TENANT");
    add->callback([this] { out_.command = key_add_; });
    CLI::App* limit =
        Subcommand(key, "limit", "what a tenant's keys together may do and have; prints it");
    const CLI::Range number(uint64_t{0}, uint64_t{1000000000000000});
    limit->add_option("TENANT", key_limit_.tenant, "as in 'key add --tenant'")->required();
    limit->add_option("--requests-per-minute", key_limit_.requests_per_minute, "0: no limit")
        ->type_name("N")
        ->check(number);
    limit
        ->add_option("--tokens-per-day", key_limit_.tokens_per_day,
                     "of questions, answers and texts; 0: no limit")
        ->type_name("N")
        ->check(number);
    limit->add_option("--documents", key_limit_.documents, "of all its memories; 0: no limit")
        ->type_name("N")
        ->check(number);
    limit->add_option("--disk", key_limit_.disk, "of all its memories, such as 10GiB; 0: no limit")
        ->type_name("SIZE");
    limit->callback([this] { out_.command = key_limit_; });
    Subcommand(key, "list", "names, scopes, tenants and dates; no keys")->callback([this] {
      out_.command = KeyListCommand{};
    });
    CLI::App* remove =
        Subcommand(key, "remove", "take a key away; a running server refuses it at once");
    remove->add_option("NAME", key_remove_.name, "as 'key list' shows it")->required();
    remove->callback([this] { out_.command = key_remove_; });
  }

  void AddConfig() {
    CLI::App* config = Subcommand(&app_, "config", "settings");
    config->require_subcommand(1);
    CLI::App* show = Subcommand(config, "show", "print the settings in force");
    show->add_flag("--origin", config_.origin, "and where each comes from");
    show->callback([this] { out_.command = config_; });
    Subcommand(config, "sample", "print a config file with all settings, explained")
        ->callback([this] { sample_ = true; });
  }

  void AddManual() {
    CLI::App* completion =
        Subcommand(&app_, "completion", "print what a shell needs to complete command lines");
    completion->add_option("SHELL", shell_, "bash, zsh or fish")
        ->required()
        ->check(CLI::IsMember(CompletionShells()));
    Subcommand(&app_, "man", "print the manual page, longhold(1)")->callback([this] {
      man_ = true;
    });
  }

  static void AddMemory(CLI::App* sub, std::string* memory) {
    sub->add_option("NAME", *memory, "the memory")->required()->check(MemoryName());
  }

  CLI::App app_;
  Invocation out_;
  std::string format_ = "text";
  ModelGetCommand model_get_;
  ModelAddCommand model_add_;
  ModelRemoveCommand model_remove_;
  IngestCommand ingest_;
  AskCommand ask_;
  ChatCommand chat_;
  RecallCommand recall_;
  ShowCommand show_;
  ForgetCommand forget_;
  CompactCommand compact_;
  ExportCommand export_;
  ImportCommand import_;
  VerifyCommand verify_;
  ReindexCommand reindex_;
  EvalCommand eval_;
  BenchCommand bench_;
  std::vector<std::string> bench_lengths_;
  std::string full_max_;
  CalibrateCommand calibrate_;
  ServeCommand serve_;
  KeyAddCommand key_add_;
  KeyLimitCommand key_limit_;
  KeyRemoveCommand key_remove_;
  std::vector<std::string> lengths_, modes_;
  ConfigShowCommand config_;
  std::string shell_;
  bool man_ = false, sample_ = false;
};

}  // namespace

std::vector<CommandManual> ProgramManual() { return Parser().Manual(); }

std::variant<Invocation, EarlyExit> ParseCommandLine(int argc, const char* const* argv) {
  return Parser().Parse(argc, argv);
}

}  // namespace longhold
