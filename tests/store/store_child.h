// A second process for the store's tests: this test program again, with a role. A forked child
// without exec would lack RocksDB's background threads. rocks_crash_test.cc has main() and the
// roles.
//
//   write PATH SEED COMPACT_EVERY PAUSE_US: writes batches forever and prints the index of each
//   acknowledged one
//   hold PATH: opens for writing, prints the status, keeps the store open until killed
//   values PATH FIRST: tests/store/value_crash.h
//   try PATH UID: becomes UID, opens for writing, prints the status, ends
#pragma once

#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

extern char** environ;

namespace longhold {

class StoreChild {
 public:
  explicit StoreChild(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"store_test", "--store-child"});
    std::vector<char*> argv;
    for (auto& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int ends[2];
    if (pipe(ends) != 0) abort();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    if (posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, argv.data(), environ) != 0) abort();
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    out_ = fdopen(ends[0], "r");
  }
  ~StoreChild() {
    Kill();
    fclose(out_);
  }
  StoreChild(const StoreChild&) = delete;
  StoreChild& operator=(const StoreChild&) = delete;

  // kill -9, then waits for the end. Its earlier output can still be read.
  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

  // The next line of its output, "" at the end.
  std::string Line() {
    char buffer[4096];
    if (fgets(buffer, sizeof(buffer), out_) == nullptr) return "";
    std::string line = buffer;
    if (!line.empty() && line.back() == '\n') line.pop_back();
    return line;
  }

 private:
  pid_t pid_ = -1;
  FILE* out_ = nullptr;
};

}  // namespace longhold
