// The command line as a value: one struct per command. Value types. CLI11 stops at cli_parser.h.
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
  std::string codec;        // empty: the default, or the codec of an existing memory
  bool no_ignore = false;   // read in directories what their ignore files name
  bool background = false;  // return once the texts can be asked about, and read on
  bool index_only = false;  // the same, and do not read on
  double read_budget = 1;   // ReadCommand's
};
struct ReadCommand {
  std::string memory;
  uint64_t tokens = UINT64_MAX;  // end after so many
  // Let other programs go first, and wait while another process writes to the memory.
  bool background = false;
  double read_budget = 1;  // share of the time that the model reads; it rests otherwise
};
struct AskCommand {
  std::string memory, question;  // question "-": read it from standard input
  std::string answer_prefix, system;
  uint32_t max_tokens = 128;
  SamplerOptions sampler;
  std::string attend;  // a name that FindAttend knows; empty: focused
  FocusedOptions focused;
  FaithfulOptions faithful;
};
struct ChatCommand {
  std::string memory;
  std::string system;
  uint32_t max_tokens = 256;
  SamplerOptions sampler;
};
struct RecallCommand {
  std::string memory, query;
  RecallOptions options;
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
  std::string codec;  // empty: the memory keeps its codec
};
struct ExportCommand {
  std::string memory, file;  // file "-": standard output
};
struct ImportCommand {
  std::string file, into;  // file "-": standard input; into empty: the exported name
};
struct VerifyCommand {
  std::string memory;
};
struct ReindexCommand {
  std::string memory;
};
struct EvalCommand {
  EvalSettings settings;
  // Directories. With `resume` the settings are read from that run and `settings` is not used.
  std::string out, resume;
  bool keep = false;  // keep the memories of the texts in out/home
};
struct BenchCommand {
  SpeedSettings settings;
};
struct CalibrateCommand {
  std::vector<std::string> texts;  // files and directories; empty: this machine's licence texts
  // Directories of labelled cases, one a kind of text. If any, `texts`, `minutes` and `seed` are
  // not used.
  std::vector<std::string> cases;
  std::string out;  // the profile's file; empty: under the home, for this model
  double minutes = 15;
  uint32_t seed = 1;
};
struct ServeCommand {
  std::string memory;              // memory of requests that name none
  std::vector<std::string> hosts;  // names accepted in a Host header, in addition to loopback names
  bool insecure = false;           // allow addresses beyond loopback without TLS
  // for Redis clients: where to listen (service/resp/resp_address.h), and sizes as ParseBytes takes
  // them; empty: not at all, and the defaults
  std::string resp, resp_disk, resp_memory;
  // "json": log each request and each note on stderr, one JSON object a line
  std::string log = "none";
  // [ADDRESS:]PORT and path of the wire protocol's listeners; empty: none
  std::string wire, wire_socket;
};
struct AttachCommand {
  std::string url;       // of llama.cpp's server, on this machine
  std::string memory;    // memory of requests that name none
  std::string slot_dir;  // the directory of its --slot-save-path
};
struct KeyAddCommand {
  std::string name, scope = "read";
  uint32_t days = 0;   // days until the key expires; 0: never
  std::string tenant;  // the key sees only this tenant's memories; empty: all memories
};
struct KeyLimitCommand {
  std::string tenant;
  // nullopt: leave the limit unchanged. 0: no limit.
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
                 IngestCommand, ReadCommand, AskCommand, ChatCommand, RecallCommand, ListCommand,
                 ShowCommand, ForgetCommand, CompactCommand, ExportCommand, ImportCommand,
                 VerifyCommand, ReindexCommand, EvalCommand, BenchCommand, CalibrateCommand,
                 ServeCommand, AttachCommand, KeyAddCommand, KeyLimitCommand, KeyListCommand,
                 KeyRemoveCommand, ConfigShowCommand, VersionCommand>;

struct Invocation {
  Command command;
  ConfigFlags flags;
  bool json = false;
  bool quiet = false;
};

// The result when no command runs: the user asked for help, or the command line is invalid.
struct EarlyExit {
  int code = 0;  // 0: `text` goes to stdout; 2: `text` is one line for stderr
  std::string text;
};

// Parses the command line. Global flags may stand before or after the command.
std::variant<Invocation, EarlyExit> ParseCommandLine(int argc, const char* const* argv);

}  // namespace longhold
