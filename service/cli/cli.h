// The command line as a value. CLI11 stops at cli.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "eval/report.h"
#include "eval/speed.h"
#include "memory/model/language_model.h"
#include "service/common/config.h"

namespace longhold {

struct ModelGetCommand {
  std::string name;
};
struct ModelListCommand {};
struct ModelAddCommand {
  std::string name, file;
};
struct ModelRemoveCommand {
  std::string name;
};
struct IngestCommand {
  std::vector<std::string> paths;
  std::string memory;
  std::string codec;  // empty: the default, or the memory's
};
struct AskCommand {
  std::string memory, question;  // "-": standard input
  std::string answer_prefix, system;
  uint32_t max_tokens = 128;
  SamplerOptions sampler;
  uint32_t spans = 0;                        // 0: the profile's
  std::optional<uint32_t> rerank, reencode;  // none: the profile's
  bool abstain = true;
  bool inline_citations = false;
  std::string attend;  // AttendName
  double attend_share = 0.1;
};
struct ChatCommand {
  std::string memory;
  std::string system;
  uint32_t max_tokens = 256;
  SamplerOptions sampler;
};
struct RecallCommand {
  std::string memory, query;
  uint32_t spans = 0;
  std::optional<uint32_t> rerank;
  bool abstain = true, explain = false;
};
struct ListCommand {};
struct ShowCommand {
  std::string memory;
};
struct ForgetCommand {
  std::string memory, document;
  bool compact = true;
};
struct CompactCommand {
  std::string memory;
  std::string codec;  // empty: the memory keeps its own
};
struct ExportCommand {
  std::string memory, file;
};  // "-": standard output
// "-": standard input; `into` empty: the name that it was exported under
struct ImportCommand {
  std::string file, into;
};
struct VerifyCommand {
  std::string memory;
};
struct ReindexCommand {
  std::string memory;
};
struct EvalCommand {
  EvalSettings settings;
  std::string out, resume;  // directories; with `resume` the settings are that run's
  bool keep = false;        // keep the texts' memories in out/home
};
struct BenchCommand {
  SpeedSettings settings;
};
struct CalibrateCommand {
  std::vector<std::string> texts;  // files and directories; empty: the texts of this machine
  std::string out;                 // where the profile goes; empty: under the home, for this model
  double minutes = 15;
  uint32_t seed = 1;
};
struct ServeCommand {
  std::string memory;              // of requests that name none
  std::vector<std::string> hosts;  // names in a Host header beside loopback's
  std::string embedder;            // of /v1/embeddings; empty: none
  bool insecure = false;           // listen where others reach it, without TLS
  // "json": a line for each request, and for what is to be told, on stderr
  std::string log = "none";
};
struct KeyAddCommand {
  std::string name, scope = "read";
  uint32_t days = 0;   // until it expires; 0: never
  std::string tenant;  // whose memories it sees; empty: all
};
struct KeyLimitCommand {
  std::string tenant;
  // None: as it was. 0: no limit.
  std::optional<uint64_t> requests_per_minute, tokens_per_day, documents;
  std::optional<std::string> disk;
};
struct KeyListCommand {};
struct KeyRemoveCommand {
  std::string name;
};
struct ConfigShowCommand {
  bool origin = false;
};
struct VersionCommand {};

using Command =
    std::variant<ModelGetCommand, ModelListCommand, ModelAddCommand, ModelRemoveCommand,
                 IngestCommand, AskCommand, ChatCommand, RecallCommand, ListCommand, ShowCommand,
                 ForgetCommand, CompactCommand, ExportCommand, ImportCommand, VerifyCommand,
                 ReindexCommand, EvalCommand, BenchCommand, CalibrateCommand, ServeCommand,
                 KeyAddCommand, KeyLimitCommand, KeyListCommand, KeyRemoveCommand,
                 ConfigShowCommand, VersionCommand>;

struct Invocation {
  Command command;
  ConfigFlags flags;
  bool json = false;
  bool quiet = false;
};

// What to do instead of a command: help was asked for, or the line makes no sense.
struct EarlyExit {
  int code = 0;  // 0: `text` goes to stdout; 2: one line that goes to stderr
  std::string text;
};

// Global flags may stand before or after the command.
std::variant<Invocation, EarlyExit> ParseCommandLine(int argc, const char* const* argv);

}  // namespace longhold
