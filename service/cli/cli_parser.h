// The parser of the command line: declares all commands with CLI11 and fills the structs of cli.h.
// Internal to the command line; CLI11 is used by these files only:
//   cli.cc                  parsing, help and manual; global flags and settings
//   cli_memory_commands.cc  models and memories
//   cli_eval_commands.cc    eval, bench, calibrate
//   cli_serve_commands.cc   serve, attach-server, key
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/status.h"
#include "service/cli/cli.h"
#include "service/cli/cli_manual.h"

namespace longhold {

// A CLI11 validator that accepts the texts for which `parse` returns a value.
template <typename Parse>
CLI::Validator Checks(Parse parse) {
  return CLI::Validator(
      [parse](std::string& text) {
        const auto value = parse(text);
        return value.ok() ? std::string() : value.status().message();
      },
      "");
}

// Accepts the names of codecs, or names that a memory may have.
CLI::Validator CodecNameValidator();
CLI::Validator MemoryNameValidator();

// Adds the option --codec. `whose`: whose codec it is, for the help text.
void AddCodec(CLI::App* sub, std::string* codec, const std::string& whose);

// Builds the parser for one Invocation. CLI11 writes the options into one struct per command. The
// callback of the chosen command then stores its struct in the Invocation. Thread use: *confined*.
class CommandLineParser {
 public:
  CommandLineParser();

  std::variant<Invocation, EarlyExit> Parse(int argc, const char* const* argv);
  std::vector<CommandManual> Manual() const;

 private:
  static CLI::App* Subcommand(CLI::App* parent, const std::string& name, const std::string& about);
  static void AddMemory(CLI::App* sub, std::string* memory);
  static void AddRerank(CLI::App* sub, std::optional<uint32_t>* spans);
  static void AddSampler(CLI::App* sub, SamplerOptions* sampler);
  void AddGlobals();
  void AddModel();
  static void AddReadBudget(CLI::App* sub, double* budget);
  void AddIngest();
  void AddRead();
  void AddAsk();
  void AddChat();
  void AddRecall();
  void AddMemoryCommands();
  void AddEval();
  // Checks that CLI11 cannot express.
  void FinishEval(const CLI::App& sub);
  void AddBench();
  void AddCalibrate();
  void AddServe();
  void AddAttach();
  void AddKey();
  void AddConfig();
  void AddManual();

  CLI::App app_;
  Invocation out_;
  std::string format_ = "text";
  ModelGetCommand model_get_;
  ModelAddCommand model_add_;
  ModelRemoveCommand model_remove_;
  IngestCommand ingest_;
  ReadCommand read_;
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
  AttachCommand attach_;
  KeyAddCommand key_add_;
  KeyLimitCommand key_limit_;
  KeyRemoveCommand key_remove_;
  std::vector<std::string> lengths_, modes_;
  ConfigShowCommand config_;
  std::string shell_;
  bool man_ = false, sample_ = false;
};

}  // namespace longhold
