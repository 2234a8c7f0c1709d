// Reference implementations that every kernel is tested against: plain loops in double precision.
#pragma once

#include "attention/geometry.h"
#include "attention/kernels.h"

namespace longhold {

// Computes AttendCall's outputs (out, lse, key_mass) by its formulas, in double. Ignores `scratch`.
void ReferenceAttend(const AttendCall& call);

// Computes ScanCall's outputs by its formulas, in double.
void ReferenceScan(const ScanCall& call);

// out = in rotated to `position` by RopeSpec's formula, in double. Both are [head_dim]
// and may alias.
void ReferenceRotate(const RopeSpec& spec, const float* in, float* out, uint32_t head_dim,
                     uint64_t position);

}  // namespace longhold
