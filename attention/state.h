// The result of attending over some set of keys, and how two such results merge into one.
#pragma once

#include <cstdint>
#include <vector>

namespace longhold {

// One query row-set attended over one set of keys, before other sets are merged in. Value type;
// *immutable* use.
//   out: [rows, head_dim], normalised by this state's own softmax denominator.
//   lse: [rows], natural log of sum(exp(logit)) over the set; -infinity for the empty set, where
//   `out` is zero.
// A span's gate is one addition to its state's lse (design section 1, measurement 6).
struct AttentionState {
  uint32_t rows = 0;
  uint32_t head_dim = 0;
  std::vector<float> out;
  std::vector<float> lse;

  // The empty set: the identity of Merge.
  static AttentionState Empty(uint32_t rows, uint32_t head_dim);
};

// Attention over the union of two disjoint key sets. Exact up to rounding, commutative,
// associative; the empty state is the identity, also when both sides are empty. Must hold: same
// rows and head_dim.
//   lse = log(exp(a.lse) + exp(b.lse));  out = exp(a.lse - lse) a.out + exp(b.lse - lse) b.out
AttentionState Merge(const AttentionState& a, const AttentionState& b);

}  // namespace longhold
