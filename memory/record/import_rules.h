// The limits on what an import may contain. Each value is checked before it is read, so that an
// untrusted file can fill neither the disk nor the RAM.
#pragma once

#include <cstdint>

#include "memory/model/language_model.h"
#include "store/transfer.h"

namespace longhold {

// Value type. Borrows `model`.
struct ImportLimits {
  // Limit on all store keys and values that are kept: the disk quota that their owner has left.
  uint64_t bytes_max = UINT64_MAX;
  uint64_t documents_max = UINT64_MAX;
  // If the memory has this model's fingerprint, it must also have its layers and heads. Null: not
  // checked here; whoever opens the memory with a model checks it.
  const ModelInfo* model = nullptr;
};

// Decides which values are kept and what ends the import with an error:
//   - a store key that longhold never writes in this format: data_loss
//   - a value longer than its kind may be: data_loss
//   - a value longer than `value_bytes_max`: resource_exhausted
//   - more bytes or documents than the limits: failed_precondition
// Three kinds of values are left out:
//   - Resume states, because libllama does not check the native cache data in them. The ingest
//     begins again (Memory::Restart).
//   - Provisional blocks. Questions make them again.
//   - Inverted lists longer than `value_bytes_max`. A document without them is scanned, and
//     `reindex` builds them again.
ImportRules RulesOf(const ImportLimits& limits, uint64_t value_bytes_max);

}  // namespace longhold
