#include "eval/haystack.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

#include "base/text.h"

extern char** environ;

namespace longhold {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kTextBytesMax = 1ull << 30;

// Runs `argv` without a shell and returns its standard output.
Result<std::string> RunProgram(const std::vector<std::string>& argv) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    return ResourceExhausted("run " + argv[0] + ": " + std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  std::vector<char*> arguments;
  for (const std::string& a : argv) arguments.push_back(const_cast<char*>(a.c_str()));
  arguments.push_back(nullptr);
  pid_t child = -1;
  const int failed =
      posix_spawnp(&child, argv[0].c_str(), &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (failed != 0) {
    close(ends[0]);
    return NotFound("run " + argv[0] + ": " + std::strerror(failed));
  }
  std::string out;
  char piece[65536];
  ssize_t n;
  while (out.size() <= kTextBytesMax &&
         ((n = read(ends[0], piece, sizeof piece)) > 0 || (n < 0 && errno == EINTR))) {
    if (n > 0) out.append(piece, static_cast<size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return Unavailable("run " + argv[0] + ": it failed");
  return out;
}

Result<std::string> ReadFile(const fs::path& path) {
  std::error_code ec;
  const uint64_t bytes = fs::file_size(path, ec);
  std::ifstream file(path, std::ios::binary);
  if (ec || !file)
    return NotFound("haystack " + path.string() + ": cannot be read; check the path");
  if (bytes > kTextBytesMax)
    return ResourceExhausted("haystack " + path.string() + ": larger than 1 GiB; use a part of it");
  std::string text(bytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(bytes));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(0, file.gcount())));
  return text;
}

Result<std::string> ReadDirectory(const std::string& path) {
  std::vector<fs::path> files;
  std::error_code ec;
  for (auto it = fs::recursive_directory_iterator(path, ec);
       !ec && it != fs::recursive_directory_iterator(); it.increment(ec)) {
    const std::string suffix = it->path().extension().string();
    if (it->is_regular_file(ec) && (suffix == ".txt" || suffix == ".md" || suffix == ".text"))
      files.push_back(it->path());
  }
  if (ec)
    return InvalidArgument("haystack " + path + ": cannot be read (" + ec.message() +
                           "); check its permissions");
  if (files.empty())
    return InvalidArgument("haystack " + path +
                           ": contains no .txt, .md or .text file; name another directory or file");
  std::sort(files.begin(), files.end());
  std::string all;
  for (const fs::path& file : files) {
    LH_ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
    if (!all.empty()) all += "\n\n";
    all += text;
    if (all.size() > kTextBytesMax)
      return ResourceExhausted("haystack " + path + ": larger than 1 GiB; use a part of it");
  }
  return all;
}

std::string Collapse(std::string_view text, bool labels) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    if (labels) line.remove_prefix(std::min(line.find(' '), line.size()));
    for (const char c : line) {
      if (!IsSpace(c))
        out += c;
      else if (!out.empty() && out.back() != ' ')
        out += ' ';
    }
    if (!out.empty() && out.back() != ' ') out += ' ';
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

// Splits prose into sentences. A sentence ends after ".", "!" or "?" before a space, but has at
// least 20 bytes, so that "Mr. X" is not split.
std::vector<std::string_view> Sentences(std::string_view prose) {
  std::vector<std::string_view> out;
  size_t begin = 0;
  for (size_t i = 0; i < prose.size(); ++i) {
    const bool ends = prose[i] == '.' || prose[i] == '!' || prose[i] == '?';
    if (!ends || i + 1 >= prose.size() || prose[i + 1] != ' ' || i - begin < 20) continue;
    out.push_back(prose.substr(begin, i + 1 - begin));
    begin = i + 2;
  }
  if (begin < prose.size()) out.push_back(prose.substr(begin));
  return out;
}

}  // namespace

Haystack MakeHaystack(std::string name, std::string text, bool labels) {
  Haystack haystack;
  haystack.name = std::move(name);
  haystack.prose = Collapse(text, labels);
  haystack.verbatim = std::move(text);
  // Forces heap storage: views into a short string, stored inside the object, would not survive a
  // move.
  haystack.prose.reserve(64);
  haystack.sentences = Sentences(haystack.prose);
  return haystack;
}

Result<Haystack> LoadHaystack(const std::string& source) {
  std::string text;
  const bool bible = source == "bible";
  std::error_code ec;
  if (bible) {
    Result<std::string> printed = RunProgram({"bible", "-f", "gen1:1-rev22:21"});
    if (!printed.ok()) {
      return NotFound(
          "haystack bible: " + printed.status().message() +
          "; install Debian's package bible-kjv, or name a text with --haystack FILE or DIR");
    }
    text = std::move(*printed);
  } else if (fs::is_directory(source, ec)) {
    LH_ASSIGN_OR_RETURN(text, ReadDirectory(source));
  } else {
    LH_ASSIGN_OR_RETURN(text, ReadFile(source));
  }
  if (text.find('\0') != std::string::npos)
    return InvalidArgument("haystack " + source + ": is binary; name a text file");
  Haystack haystack = MakeHaystack(source, std::move(text), bible);
  if (haystack.prose.empty())
    return InvalidArgument("haystack " + source + ": contains no text; name another");
  return haystack;
}

}  // namespace longhold
