// A description of the command line as a value, and two outputs generated from it: the manual page
// and the shell completions. Pure functions: no I/O, no state.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace longhold {

// One option, flag or positional argument. Value type.
struct OptionManual {
  std::vector<std::string> names;    // "--quiet", "-q"; a positional has one name: "NAME"
  std::string value;                 // placeholder of the value: "N"; empty for a flag
  std::vector<std::string> choices;  // all accepted values; empty: any value of the type
  std::string about;                 // one line of help
  bool positional = false, required = false, repeats = false;
};

// One command. Value type.
struct CommandManual {
  // "model get". Empty for the program itself. All commands accept the program's options.
  std::string name;
  std::string about;
  std::vector<OptionManual> options;
  bool group = false;  // has subcommands and does nothing itself
};

// The program comes first, then its commands in the order of the help text (cli.cc).
std::vector<CommandManual> ProgramManual();

// The manual page longhold(1), as troff with the man macros. `version` looks like "0.1.0".
std::string ManPage(const std::vector<CommandManual>& commands, std::string_view version);

// The completion script for `shell`, which is one of CompletionShells(). The script looks up names
// of memories and files each time the user asks for a completion.
std::string Completion(const std::vector<CommandManual>& commands, std::string_view shell);
std::vector<std::string> CompletionShells();

}  // namespace longhold
