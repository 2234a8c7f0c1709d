#include "service/cli/cli_manual.h"

#include <algorithm>
#include <functional>

#include "base/status.h"

namespace longhold {
namespace {

// What kind of words a shell offers for the value of an option or positional argument.
enum class Values : uint8_t { kNone, kChoices, kMemories, kFiles, kOther };

Values ValuesOf(const OptionManual& option) {
  if (option.value.empty() && !option.positional) return Values::kNone;
  if (!option.choices.empty()) return Values::kChoices;
  const std::string& name = option.names.front();
  if (name == "--into" || name == "--memory" || (option.positional && option.about == "the memory"))
    return Values::kMemories;
  for (const std::string_view kind : {"FILE", "DIR", "PATH", "GGUF"}) {
    if (option.value.find(kind) != std::string::npos ||
        (option.positional && name.find(kind) != std::string::npos))
      return Values::kFiles;
  }
  return Values::kOther;
}

std::string Join(const std::vector<std::string>& parts, std::string_view between) {
  std::string out;
  for (const std::string& part : parts) out += (out.empty() ? "" : std::string(between)) + part;
  return out;
}

std::string Replaced(std::string text, std::string_view what, std::string_view with) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size())
    text.replace(at, what.size(), with);
  return text;
}

// The text in single quotes. bash, zsh and fish all accept it.
std::string Quoted(const std::string& text) { return "'" + Replaced(text, "'", "'\\''") + "'"; }

// For "model get": LastWord is "get", Parent is "model". The parent of a command of one word is the
// program, whose name is empty.
std::string LastWord(const std::string& name) { return name.substr(name.rfind(' ') + 1); }
std::string Parent(const std::string& name) {
  return name.find(' ') == std::string::npos ? "" : name.substr(0, name.rfind(' '));
}

// The direct subcommands of `parent`.
std::vector<const CommandManual*> Below(const std::vector<CommandManual>& commands,
                                        const std::string& parent) {
  std::vector<const CommandManual*> below;
  for (const CommandManual& c : commands) {
    if (!c.name.empty() && Parent(c.name) == parent) below.push_back(&c);
  }
  return below;
}

std::string LastWords(const std::vector<const CommandManual*>& commands) {
  std::vector<std::string> words;
  for (const CommandManual* c : commands) words.push_back(LastWord(c->name));
  return Join(words, " ");
}

// Branches of a case statement over "$command:$word", in bash and zsh. Each branch sets the command
// that the next word selects.
std::string CommandArms(const std::vector<CommandManual>& commands) {
  std::string arms;
  for (const CommandManual& c : commands) {
    if (!c.name.empty())
      arms += "      " + Quoted(Parent(c.name) + ":" + LastWord(c.name)) +
              ") command=" + Quoted(c.name) + " ;;\n";
  }
  return arms;
}

// ------------------------------------------------------------------------------------------------
// the manual page

std::string Troff(std::string text) {
  text = Replaced(Replaced(std::move(text), "\\", "\\e"), "-", "\\-");
  if (text.starts_with('.') || text.starts_with('\'')) text.insert(0, "\\&");
  return Replaced(std::move(text), "\n.", "\n\\&.");
}

std::string Term(const OptionManual& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.names) names.push_back("\\fB" + Troff(name) + "\\fR");
  if (option.positional) return "\\fI" + Troff(option.names.front()) + "\\fR";
  return Join(names, ", ") + (option.value.empty() ? "" : " \\fI" + Troff(option.value) + "\\fR");
}

std::string Options(const CommandManual& command) {
  std::string out;
  for (const OptionManual& option : command.options)
    out += ".TP\n" + Term(option) + "\n" + Troff(option.about) + "\n";
  return out;
}

std::string Synopsis(const CommandManual& command) {
  std::string out = "\\fBlonghold " + Troff(command.name) + "\\fR";
  for (const OptionManual& option : command.options) {
    if (!option.required && !option.positional) continue;
    const std::string term = Term(option) + (option.repeats && option.positional ? " ..." : "");
    out += option.required ? " " + term : " [" + term + "]";
  }
  const bool more = std::any_of(command.options.begin(), command.options.end(),
                                [](const OptionManual& o) { return !o.required && !o.positional; });
  return out + (more ? " [\\fIoptions\\fR]" : "");
}

// ------------------------------------------------------------------------------------------------
// completions

// bash: the statement that sets COMPREPLY to the possible values of an option.
std::string BashValues(const OptionManual& option) {
  switch (ValuesOf(option)) {
    case Values::kChoices:
      return "COMPREPLY=($(compgen -W " + Quoted(Join(option.choices, " ")) + " -- \"$cur\"))";
    case Values::kMemories:
      return "COMPREPLY=($(compgen -W \"$(longhold list 2>/dev/null | cut -d' ' -f1)\" -- "
             "\"$cur\"))";
    case Values::kFiles: return "COMPREPLY=($(compgen -f -- \"$cur\"))";
    case Values::kOther:
    case Values::kNone: break;
  }
  return "COMPREPLY=()";
}

std::string Bash(const std::vector<CommandManual>& commands) {
  std::string out =
      "# bash completion for longhold; generated by 'longhold completion bash'.\n"
      "_longhold() {\n"
      "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command='' count=0 "
      "skip='' word i\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    word=${COMP_WORDS[i]}\n"
      "    if [[ -n $skip ]]; then skip=''; continue; fi\n"
      "    case \"$command:$word\" in\n";
  // One case branch per option that takes a value. `act` returns the branch's statement.
  const auto value_arms = [&](const std::string& indent,
                              const std::function<std::string(const OptionManual&)>& act) {
    std::string arms;
    for (const CommandManual& c : commands) {
      for (const OptionManual& option : c.options) {
        if (option.positional || option.value.empty()) continue;
        for (const std::string& name : option.names)
          arms += indent + (c.name.empty() ? "*" : Quoted(c.name)) + "':" + name + "') " +
                  act(option) + " ;;\n";
      }
    }
    return arms;
  };
  out +=
      CommandArms(commands) + value_arms("      ", [](const OptionManual&) { return "skip=yes"; });
  out +=
      "      *:-*) ;;\n"
      "      *) ((++count)) ;;\n"
      "    esac\n"
      "  done\n"
      "  case \"$command:$prev\" in\n";
  out += value_arms("    ",
                    [](const OptionManual& option) { return BashValues(option) + "; return"; });
  out += "  esac\n  local options=";
  std::vector<std::string> globals;
  for (const OptionManual& option : commands.front().options)
    globals.insert(globals.end(), option.names.begin(), option.names.end());
  out += Quoted(Join(globals, " ") + " --help") + "\n  case \"$command\" in\n";
  for (const CommandManual& c : commands) {
    out += "    " + Quoted(c.name) + ")\n";
    std::vector<std::string> own;
    for (const OptionManual& option : c.options) {
      if (!option.positional && !c.name.empty())
        own.insert(own.end(), option.names.begin(), option.names.end());
    }
    if (!own.empty()) out += "      options+=" + Quoted(" " + Join(own, " ")) + "\n";
    out +=
        "      if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W \"$options\" -- \"$cur\")); "
        "return; fi\n";
    const std::vector<const CommandManual*> below = Below(commands, c.name);
    if (!below.empty())
      out += "      COMPREPLY=($(compgen -W " + Quoted(LastWords(below)) + " -- \"$cur\"))\n";
    size_t place = 0;
    for (const OptionManual& option : c.options) {
      if (!option.positional || ValuesOf(option) == Values::kOther) {
        place += option.positional;
        continue;
      }
      out += "      if ((count " + std::string(option.repeats ? ">=" : "==") + " " +
             std::to_string(place) + ")); then " + BashValues(option) + "; fi\n";
      ++place;
    }
    out += "      ;;\n";
  }
  return out + "  esac\n}\ncomplete -o filenames -F _longhold longhold\n";
}

// zsh: escapes text for a specification of _arguments, where a colon and brackets are special.
std::string ZshText(const std::string& text) {
  return Replaced(Replaced(Replaced(text, ":", "\\:"), "[", "("), "]", ")");
}

std::string ZshAction(const OptionManual& option) {
  switch (ValuesOf(option)) {
    case Values::kChoices: return "(" + Join(option.choices, " ") + ")";
    case Values::kMemories: return "_longhold_memories";
    case Values::kFiles: return "_files";
    case Values::kOther:
    case Values::kNone: break;
  }
  return " ";
}

std::string Zsh(const std::vector<CommandManual>& commands) {
  std::string out =
      "#compdef longhold\n"
      "# zsh completion for longhold; generated by 'longhold completion zsh'.\n"
      "_longhold_memories() { compadd -- ${(f)\"$(longhold list 2>/dev/null | cut -d' ' -f1)\"} }\n"
      "_longhold() {\n"
      "  local -a options=(\n";
  const auto specify = [](const OptionManual& option) {
    std::string spec;
    if (option.positional)
      return Quoted((option.repeats ? "*:" : ":") + ZshText(option.names.front()) + ":" +
                    ZshAction(option));
    const std::string tail =
        "[" + ZshText(option.about) + "]" +
        (option.value.empty() ? "" : ":" + ZshText(option.value) + ":" + ZshAction(option));
    for (const std::string& name : option.names)
      spec += (spec.empty() ? "" : " ") + Quoted(name + tail);
    return spec;
  };
  for (const OptionManual& option : commands.front().options)
    out += "    " + specify(option) + "\n";
  out +=
      "    '--help[explain]'\n  )\n"
      "  local command='' word\n"
      "  for word in ${words[2,CURRENT-1]}; do\n"
      "    case \"$command:$word\" in\n";
  out += CommandArms(commands);
  out += "    esac\n  done\n  case \"$command\" in\n";
  for (const CommandManual& c : commands) {
    out += "    " + Quoted(c.name) + ")\n";
    const std::vector<const CommandManual*> below = Below(commands, c.name);
    if (!below.empty()) {
      out += "      local -a commands=(";
      for (const CommandManual* other : below)
        out += " " + Quoted(LastWord(other->name) + ":" + other->about);
      out +=
          " )\n      if [[ $words[CURRENT] == -* ]]; then _arguments $options; else _describe "
          "command commands; fi\n      ;;\n";
      continue;
    }
    // _arguments counts the words of the command name as positional arguments. Skip them.
    const auto depth = std::count(c.name.begin(), c.name.end(), ' ') + 1;
    out += "      _arguments $options";
    for (long i = 0; i < depth; ++i) out += " ':command: '";
    for (const OptionManual& option : c.options) out += " \\\n        " + specify(option);
    out += "\n      ;;\n";
  }
  return out + "  esac\n}\ncompdef _longhold longhold\n";
}

std::string Fish(const std::vector<CommandManual>& commands) {
  std::string out =
      "# fish completion for longhold; generated by 'longhold completion fish'.\n"
      "function __longhold_memories\n  longhold list 2>/dev/null | string split -f1 ' '\nend\n"
      "complete -c longhold -f\n";
  const auto values = [](const OptionManual& option) -> std::string {
    switch (ValuesOf(option)) {
      case Values::kNone: return "";
      case Values::kChoices: return " -x -a " + Quoted(Join(option.choices, " "));
      case Values::kMemories: return " -x -a '(__longhold_memories)'";
      case Values::kFiles: return " -r -F";
      case Values::kOther: return " -x";
    }
    return "";
  };
  for (const CommandManual& c : commands) {
    std::vector<std::string> words;
    for (size_t at = 0; at < c.name.size();) {
      const size_t end = std::min(c.name.find(' ', at), c.name.size());
      words.push_back(c.name.substr(at, end - at));
      at = end + 1;
    }
    std::string seen;
    for (const std::string& word : words)
      seen += (seen.empty() ? "" : "; and ") + ("__fish_seen_subcommand_from " + word);
    const std::vector<const CommandManual*> below = Below(commands, c.name);
    const std::string none = "not __fish_seen_subcommand_from " + LastWords(below);
    for (const CommandManual* other : below) {
      out += "complete -c longhold -n " + Quoted(seen.empty() ? none : seen + "; and " + none) +
             " -a " + LastWord(other->name) + " -d " + Quoted(other->about) + "\n";
    }
    const std::string condition = seen.empty() ? "" : " -n " + Quoted(seen);
    for (const OptionManual& option : c.options) {
      if (option.positional) {
        if (const std::string what = values(option);
            what.starts_with(" -x -a ") || what == " -r -F") {
          out += "complete -c longhold" + condition + (what == " -r -F" ? " -F" : what.substr(3)) +
                 "\n";
        }
        continue;
      }
      out += "complete -c longhold" + condition;
      for (const std::string& name : option.names)
        out += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      out += values(option) + " -d " + Quoted(option.about) + "\n";
    }
  }
  return out;
}

}  // namespace

std::string ManPage(const std::vector<CommandManual>& commands, std::string_view version) {
  const CommandManual& program = commands.front();
  std::string out = ".\\\" Generated by 'longhold man'.\n.TH LONGHOLD 1 \"\" \"longhold " +
                    std::string(version) + "\" \"User Commands\"\n";
  out +=
      ".SH NAME\nlonghold \\- long-context memory engine for small language models\n.SH "
      "SYNOPSIS\n\\fBlonghold\\fR [\\fIoptions\\fR] \\fICOMMAND\\fR ...\n";
  out += ".SH DESCRIPTION\n" + Troff(program.about) +
         "\nData goes to standard output, progress and errors to standard error. The options below "
         "may stand before or after a command.\n";
  out += ".SH OPTIONS\n" + Options(program) + ".SH COMMANDS\n";
  for (const CommandManual& c : commands) {
    if (c.name.empty() || c.group) continue;
    out += ".SS " + Synopsis(c) + "\n" + Troff(c.about) + ".\n" + Options(c);
  }
  out +=
      ".SH EXIT STATUS\n.TS\nr l.\n0\tok\n1\terror\n2\tusage error: the command line is invalid\n"
      "3\tnot found\n4\tcorrupt data\n5\tmemory budget, quota or disk exhausted\n"
      "130\tinterrupted\n.TE\n"
      ".SH FILES\n.TP\n.I ~/.local/share/longhold\nmemories, API keys of the server and recall "
      "profiles; \\fB\\-\\-home\\fR names another directory\n"
      ".TP\n.I ~/.config/longhold/config.toml\nsettings; \\fBlonghold config sample\\fR prints "
      "a sample\n"
      ".TP\n.I ~/.cache/longhold/models\nmodel weights\n"
      ".SH EXAMPLES\n.EX\nlonghold model get qwen2.5-coder-1.5b\nlonghold ingest book.txt --into "
      "book\nlonghold ask book \"Who built the ark?\"\n.EE\n";
  return "'\\\" t\n" + out;
}

std::vector<std::string> CompletionShells() { return {"bash", "zsh", "fish"}; }

std::string Completion(const std::vector<CommandManual>& commands, std::string_view shell) {
  LH_CHECK(!commands.empty());
  return shell == "bash" ? Bash(commands) : shell == "zsh" ? Zsh(commands) : Fish(commands);
}

}  // namespace longhold
