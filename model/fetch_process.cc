#include "model/fetch_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>
#include <thread>

#include "model/model_files.h"

extern char** environ;

namespace longhold {
namespace {

constexpr uint64_t kLogBytesMax = 1ull << 20;  // how much of a child's output is read

std::string ReadLog(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(std::min(SizeOf(path), kLogBytesMax), '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

bool Contains(const std::string& text, std::string_view word) {
  return text.find(word) != std::string::npos;
}

}  // namespace

Result<ChildResult> RunChild(const std::vector<std::string>& argv, const std::string& log_path,
                             const std::string& temp_dir, const FetchOptions& options,
                             const std::function<void()>& tick) {
  std::vector<char*> args;
  for (const std::string& arg : argv) args.push_back(const_cast<char*>(arg.c_str()));
  args.push_back(nullptr);
  std::string tmp = "TMPDIR=" + temp_dir;
  std::vector<char*> env{tmp.data()};
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (std::strncmp(*variable, "TMPDIR=", 7) != 0) env.push_back(*variable);
  }
  env.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC,
                                   0644);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  // A process group of its own: Ctrl-C reaches longhold only, which then kills the child.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, args[0], &actions, &attributes, args.data(), env.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return FailedPrecondition("'" + argv[0] + "' cannot be started (" + std::strerror(error) +
                              "); install Python 3 with pip, or set LONGHOLD_PYTHON to its path");
  }
  int wait_status = 0;
  for (;;) {
    const pid_t done = waitpid(pid, &wait_status, WNOHANG);
    if (done == pid) break;
    if (done < 0 && errno != EINTR)
      return Internal("wait for " + argv[0] + ": " + std::strerror(errno));
    if (options.stop != nullptr && *options.stop) {
      kill(-pid, SIGKILL);
      while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) {
      }
      return Cancelled("stopped");
    }
    if (tick) tick();
    std::this_thread::sleep_for(kFetchPollInterval);
  }
  ChildResult result;
  result.exit_code =
      WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
  result.output = ReadLog(log_path);
  return result;
}

std::string LastErrorLine(const std::string& output) {
  std::string last;
  size_t begin = 0;
  while (begin < output.size()) {
    const size_t end = std::min(output.find('\n', begin), output.size());
    const std::string line = output.substr(begin, end - begin);
    if (line.starts_with("ERROR:") || Contains(line, "Error:") || last.empty()) last = line;
    begin = end + 1;
  }
  if (last.size() > 200) last.resize(200);
  return last.empty() ? "no output" : last;
}

Status PipError(const std::string& what, const std::string& python, const ChildResult& child) {
  const std::string& out = child.output;
  if (Contains(out, "No module named pip")) {
    return FailedPrecondition(what + ": '" + python +
                              "' has no pip; install it (Debian: apt-get install python3-pip)");
  }
  if (Contains(out, "DO NOT MATCH THE HASHES")) {
    return DataLoss(what +
                    ": its checksum differs from the pinned one; run it again, and if it differs "
                    "again, do not use this package source");
  }
  if (Contains(out, "No space left on device") || Contains(out, "Errno 28") ||
      Contains(out, "Disk quota exceeded")) {
    return ResourceExhausted(
        what + ": the disk is full; free some space, or set LONGHOLD_CACHE to another directory");
  }
  for (std::string_view sign :
       {"No matching distribution found", "Could not find a version",
        "Failed to establish a new connection", "Max retries exceeded",
        "Temporary failure in name resolution", "Read timed out", "ReadTimeoutError",
        "ConnectionResetError", "ProxyError", "HTTP error", "SSLError", "IncompleteRead"}) {
    if (Contains(out, sign)) {
      return Unavailable(what +
                         ": the Python package source cannot be reached or does not have it; check "
                         "the network and '" +
                         python + " -m pip config list', then run it again");
    }
  }
  return Unavailable(what + ": pip ended with code " + std::to_string(child.exit_code) + " (" +
                     LastErrorLine(out) + "); fix the cause and run it again");
}

}  // namespace longhold
