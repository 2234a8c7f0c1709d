// Lets questions of other processes go before a reading in the background. Both lock a file in the
// home: a question shares the lock, and the reader waits until nobody has it. The system takes the
// lock away from a process that dies.
#pragma once

#include <atomic>
#include <string>

namespace longhold {

// Held while a question is answered. Owner: the command. Thread use: *confined*.
class QuestionGoesFirst {
 public:
  // A home that cannot be written is no error: no reader works there.
  explicit QuestionGoesFirst(const std::string& home);
  QuestionGoesFirst(const QuestionGoesFirst&) = delete;
  QuestionGoesFirst& operator=(const QuestionGoesFirst&) = delete;
  ~QuestionGoesFirst();

 private:
  int fd_;
};

// Returns when no question is being answered, or when `stop` is set.
void WaitForQuestions(const std::string& home, const std::atomic<bool>& stop);

}  // namespace longhold
