// A thread that cannot outlive its owner.
//
// Owner: who starts it. Thread use: *confined*; `run` has the thread to itself and must return by
// itself.
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
