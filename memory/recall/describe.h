// Places in a memory's text, as people see them.
#pragma once

#include <vector>

#include "base/status.h"
#include "memory/core/memory.h"
#include "memory/recall/planned_span.h"
#include "memory/recall/recall_types.h"

namespace longhold {

// Errors: data_loss (its text is damaged).
Result<RecalledSpan> Describe(Memory& memory, const RecallProfile& profile,
                              const PlannedSpan& span);

}  // namespace longhold
