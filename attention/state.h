// The result of attending over a set of keys, and how two such results merge into one.
#pragma once

#include <cstdint>
#include <vector>

namespace longhold {

// The attention of some query rows over one set of keys. Value type.
//   out: [rows, head_dim], normalised by this state's softmax denominator; zero for the empty set
//   lse: [rows], natural log of sum(exp(logit)) over the set; -infinity for the empty set
// To apply a gate to a span, add it to the lse of the span's state.
struct AttentionState {
  uint32_t rows = 0;
  uint32_t head_dim = 0;
  std::vector<float> out;
  std::vector<float> lse;

  // The state of the empty set: the identity of Merge.
  static AttentionState Empty(uint32_t rows, uint32_t head_dim);
};

// Attention over the union of two disjoint key sets. Exact up to rounding, commutative and
// associative. The empty state is the identity, even if both sides are empty. Must hold: both have
// the same rows and head_dim.
//   lse = log(exp(a.lse) + exp(b.lse));  out = exp(a.lse - lse) a.out + exp(b.lse - lse) b.out
AttentionState Merge(const AttentionState& a, const AttentionState& b);

}  // namespace longhold
