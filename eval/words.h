// Word lists for generated tasks. They are our own lists; RULER uses the Python package
// wonderwords.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace longhold {

const std::vector<std::string_view>& EvalAdjectives();
const std::vector<std::string_view>& EvalNouns();
const std::vector<std::string_view>& EvalVerbs();
// First names of people. None is also in EvalNouns.
const std::vector<std::string_view>& EvalFirstNames();

}  // namespace longhold
