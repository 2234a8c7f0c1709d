#include "eval/descent.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace longhold {

std::vector<double> Descend(std::vector<double> start, const DescentOptions& options,
                            const Gradient& gradient) {
  std::vector<double> at = std::move(start), slope, mean(at.size(), 0.0), square(at.size(), 0.0);
  for (int step = 1; step <= options.steps; ++step) {
    gradient(at, &slope);
    const double size = options.step_size *
                        (step < options.steps / 2 ? 1.0 : 2.0 - 2.0 * step / options.steps + 0.02);
    for (size_t i = 0; i < at.size(); ++i) {
      mean[i] = 0.9 * mean[i] + 0.1 * slope[i];
      square[i] = 0.99 * square[i] + 0.01 * slope[i] * slope[i];
      const double m = mean[i] / (1 - std::pow(0.9, step)),
                   s = square[i] / (1 - std::pow(0.99, step));
      at[i] = std::clamp(at[i] - size * m / (std::sqrt(s) + 1e-9), options.low, options.high);
    }
  }
  return at;
}

}  // namespace longhold
