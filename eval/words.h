// Words that generated tasks are made of. Our own lists; RULER draws from the Python package
// wonderwords.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace longhold {

const std::vector<std::string_view>& EvalAdjectives();
const std::vector<std::string_view>& EvalNouns();
const std::vector<std::string_view>& EvalVerbs();
// of people; none is also a noun of these lists
const std::vector<std::string_view>& EvalFirstNames();

}  // namespace longhold
