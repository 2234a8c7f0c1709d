#include "attention/state.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/status.h"

namespace longhold {

AttentionState AttentionState::Empty(uint32_t rows, uint32_t head_dim) {
  return {.rows = rows,
          .head_dim = head_dim,
          .out = std::vector<float>(size_t{rows} * head_dim, 0.0f),
          .lse = std::vector<float>(rows, -std::numeric_limits<float>::infinity())};
}

AttentionState Merge(const AttentionState& a, const AttentionState& b) {
  LH_CHECK(a.rows == b.rows && a.head_dim == b.head_dim);
  AttentionState merged = AttentionState::Empty(a.rows, a.head_dim);
  for (uint32_t r = 0; r < a.rows; ++r) {
    const double max = std::max(a.lse[r], b.lse[r]);
    // Both sides are empty: infinity - infinity would be NaN.
    if (std::isinf(max) && max < 0) continue;
    // Weights relative to the larger side. If one side is empty, they are exactly 1 and 0. So the
    // empty state is the identity to the last bit.
    const double wa = std::exp(a.lse[r] - max);
    const double wb = std::exp(b.lse[r] - max);
    const double sum = wa + wb;
    merged.lse[r] = static_cast<float>(max + std::log(sum));
    for (uint32_t c = 0; c < a.head_dim; ++c) {
      const size_t at = size_t{r} * a.head_dim + c;
      merged.out[at] = static_cast<float>((wa * a.out[at] + wb * b.out[at]) / sum);
    }
  }
  return merged;
}

}  // namespace longhold
