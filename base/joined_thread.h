// A thread that cannot outlive its owner: the destructor waits for it.
//
// Owner: whoever starts it. Thread use: *confined*. `run` is called once, on the new thread, and
// must return by itself.
#pragma once

#include <functional>
#include <thread>

namespace longhold {

class JoinedThread {
 public:
  explicit JoinedThread(std::function<void()> run) : thread_(std::move(run)) {}
  ~JoinedThread() { thread_.join(); }
  JoinedThread(const JoinedThread&) = delete;
  JoinedThread& operator=(const JoinedThread&) = delete;

 private:
  std::thread thread_;
};

}  // namespace longhold
