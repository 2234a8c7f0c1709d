#include "service/cli/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <utility>

#include "memory/engine.h"
#include "service/cli/cli_manual.h"
#include "service/cli/cli_parser.h"
#include "store/memory_name.h"

namespace longhold {
namespace {

constexpr char kAbout[] =
    "longhold: a long-context memory engine. A small model reads a text once and answers from it.";
constexpr char kFooter[] =
    "\nExit codes: 0 ok, 1 error, 2 usage error, 3 not found, 4 corrupt data,"
    "\n            5 memory, quota or disk exhausted, 130 interrupted."
    "\nData goes to stdout, progress and errors to stderr."
    "\nRun 'longhold COMMAND --help' for help on a command."
    "\nRun 'longhold config show --origin' to see the settings in force.";

std::string OneLine(std::string text) {
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

OptionManual Describe(const CLI::Option& option) {
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
  // CLI11 appends the validator's description to the type name. It starts with one of these
  // strings. A colon alone is no separator: "ADDRESS:PORT" is a type name.
  manual.value = type.substr(0, std::min({type.find(":{"), type.find(":INT in"),
                                          type.find(":UINT in"), type.find(":FLOAT in")}));
  return manual;
}

void Describe(const CLI::App& app, const std::string& name, std::vector<CommandManual>* commands) {
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

// The innermost subcommand on the command line.
const CLI::App* Named(const CLI::App* app) {
  const auto parsed = app->get_subcommands();
  return parsed.empty() ? app : Named(parsed.front());
}
std::string Path(const CLI::App* app) {
  return app->get_parent() == nullptr ? app->get_name()
                                      : Path(app->get_parent()) + " " + app->get_name();
}

}  // namespace

CLI::Validator CodecNameValidator() {
  const std::vector<std::string_view> names = CodecNames();
  return CLI::IsMember(std::vector<std::string>(names.begin(), names.end()));
}

void AddCodec(CLI::App* sub, std::string* codec, const std::string& whose) {
  sub->add_option(
         "--codec", *codec,
         "codec of " + whose + ": " + CodecList() + " (default " + std::string(kDefaultCodec) + ")")
      ->type_name("NAME")
      ->check(CodecNameValidator());
}

CLI::Validator MemoryNameValidator() {
  return CLI::Validator(
      [](std::string& text) {
        const Status status = CheckMemoryName(text);
        return status.ok() ? std::string() : status.message();
      },
      "");
}

CommandLineParser::CommandLineParser() : app_(kAbout, "longhold") {
  app_.require_subcommand(1);
  app_.footer(kFooter);
  app_.get_formatter()->column_width(26);  // commands share the formatter
  AddGlobals();
  AddModel();
  AddIngest();
  AddRead();
  AddAsk();
  AddChat();
  AddRecall();
  AddMemoryCommands();
  AddEval();
  AddBench();
  AddCalibrate();
  AddServe();
  AddAttach();
  AddKey();
  AddConfig();
  AddManual();
  Subcommand(&app_, "version", "print the version")->callback([this] {
    out_.command = VersionCommand{};
  });
}

std::variant<Invocation, EarlyExit> CommandLineParser::Parse(int argc, const char* const* argv) {
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

std::vector<CommandManual> CommandLineParser::Manual() const {
  std::vector<CommandManual> commands;
  Describe(app_, "", &commands);
  return commands;
}

CLI::App* CommandLineParser::Subcommand(CLI::App* parent, const std::string& name,
                                        const std::string& about) {
  CLI::App* sub = parent->add_subcommand(name, about);
  sub->fallthrough();  // global flags may follow the command
  sub->footer(
      "\nGlobal flags (--home, --model, --json, --quiet, ...) may follow the command: see "
      "'longhold --help'.");
  return sub;
}

void CommandLineParser::AddGlobals() {
  ConfigFlags& flags = out_.flags;
  app_.add_option("--home", flags.home, "directory that holds the memories [$LONGHOLD_HOME]")
      ->type_name("DIR");
  app_.add_option("--model", flags.model,
                  "model name (see 'model list') or GGUF file [$LONGHOLD_MODEL]")
      ->type_name("NAME|GGUF");
  app_.add_option("--embedder", flags.embedder,
                  "model that finds passages by meaning, or none [$LONGHOLD_EMBEDDER]")
      ->type_name("NAME|GGUF");
  app_.add_option("--encryption-key", flags.encryption_key,
                  "file with the key of encrypted memories [$LONGHOLD_ENCRYPTION_KEY]")
      ->type_name("FILE");
  app_.add_option("--profile", flags.profile,
                  "recall profile that replaces the model's own [$LONGHOLD_PROFILE]")
      ->type_name("FILE");
  app_.add_option("--threads", flags.threads, "number of compute threads [$LONGHOLD_THREADS]")
      ->type_name("N")
      ->check(Checks(ParseThreads));
  app_.add_option("--memory-budget", flags.memory_budget,
                  "RAM limit, without the model's weights [$LONGHOLD_MEMORY_BUDGET]")
      ->type_name("BYTES")
      ->check(Checks(ParseBudget));
  app_.add_option("--config", flags.config_file,
                  "settings file [$XDG_CONFIG_HOME/longhold/config.toml]")
      ->type_name("FILE");
  app_.add_flag("--json", out_.json, "print results as JSON, one value on one line");
  app_.add_flag("--quiet,-q", out_.quiet, "print no progress on stderr");
}

void CommandLineParser::AddConfig() {
  CLI::App* config = Subcommand(&app_, "config", "print settings");
  config->require_subcommand(1);
  CLI::App* show = Subcommand(config, "show", "print the settings in force");
  show->add_flag("--origin", config_.origin, "also print where each setting comes from");
  show->callback([this] { out_.command = config_; });
  Subcommand(config, "sample", "print a commented config file with all settings")->callback([this] {
    sample_ = true;
  });
}

void CommandLineParser::AddManual() {
  CLI::App* completion = Subcommand(&app_, "completion", "print a shell completion script");
  completion->add_option("SHELL", shell_, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember(CompletionShells()));
  Subcommand(&app_, "man", "print the manual page, longhold(1)")->callback([this] { man_ = true; });
}

std::vector<CommandManual> ProgramManual() { return CommandLineParser().Manual(); }

std::variant<Invocation, EarlyExit> ParseCommandLine(int argc, const char* const* argv) {
  return CommandLineParser().Parse(argc, argv);
}

}  // namespace longhold
