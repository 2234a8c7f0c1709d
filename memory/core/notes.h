// What a user should know beside the result of a call: an index that was rebuilt, a limit that was
// reached.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

namespace longhold {

// Each note is kept once, whatever is asked again. Thread use: *confined*, as the engine that owns
// it.
class Notes {
 public:
  void Add(const std::string& note) {
    if (seen_.insert(note).second) fresh_.push_back(note);
  }
  // The notes since the last Take, a line each.
  std::vector<std::string> Take() { return std::exchange(fresh_, {}); }

 private:
  std::vector<std::string> fresh_;
  std::set<std::string> seen_;  // one or two per memory
};

}  // namespace longhold
