// Minimises a smooth function of a few numbers: projected Adam (Kingma and Ba, arXiv:1412.6980).
#pragma once

#include <functional>
#include <limits>
#include <vector>

namespace longhold {

// Value type.
struct DescentOptions {
  int steps = 300;
  double step_size = 0.25;  // over the first half of the steps; then it falls to a fiftieth
  // Every number stays in this range.
  double low = 0, high = std::numeric_limits<double>::infinity();
};

// Writes the gradient at a point: [point].
using Gradient = std::function<void(const std::vector<double>& at, std::vector<double>* gradient)>;

// Where the descent from `start` ends. Results are the same on every machine up to the last bits.
std::vector<double> Descend(std::vector<double> start, const DescentOptions& options,
                            const Gradient& gradient);

}  // namespace longhold
