// The command line described as a value, and what is generated from it: the manual page and the
// shells' completions. Pure functions: no I/O, no state.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace longhold {

// Value type.
struct OptionManual {
  std::vector<std::string> names;    // "--quiet", "-q"; of a positional its one name, "NAME"
  std::string value;                 // "N"; empty for a flag
  std::vector<std::string> choices;  // the only values there are; empty: others, too
  std::string about;
  bool positional = false, required = false, repeats = false;
};

struct CommandManual {
  // "model get"; empty for the program itself, whose options all commands take
  std::string name;
  std::string about;
  std::vector<OptionManual> options;
  bool group = false;  // only there for its own commands
};

// The program first, then its commands in the order of its help (cli.cc).
std::vector<CommandManual> ProgramManual();

// longhold(1) in troff's man macros. `version` is "0.1.0".
std::string ManPage(const std::vector<CommandManual>& commands, std::string_view version);

// What a shell reads to complete the program's command line; memories and files are looked up when
// it does. `shell` is one of CompletionShells'.
std::string Completion(const std::vector<CommandManual>& commands, std::string_view shell);
std::vector<std::string> CompletionShells();

}  // namespace longhold
