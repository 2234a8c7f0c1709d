// What an import may bring: each value is judged before it is read, so that a stranger's file can
// neither fill the disk nor the memory.
#pragma once

#include <cstdint>

#include "memory/model/language_model.h"
#include "store/transfer.h"

namespace longhold {

// Value type; borrows the model's description.
struct ImportLimits {
  // of all keys and values that are kept: what their owner may still have on the disk
  uint64_t bytes_max = UINT64_MAX;
  uint64_t documents_max = UINT64_MAX;
  // A memory of this model's fingerprint must have this model's layers and heads; null: its reader
  // will see.
  const ModelInfo* model = nullptr;
};

// Which values are kept, and what ends the import:
//   - a key that no longhold of this format writes: data_loss
//   - a value longer than its kind may be: data_loss; longer than `value_bytes_max`:
//   resource_exhausted
//   - more bytes or documents than the limits: failed_precondition
// Left out are resume states, since libllama takes what they hold of its cache unchecked (the
// ingest begins anew; Memory::Restart), and lists that are longer than `value_bytes_max` (a
// document without lists is scanned; `reindex` makes them again).
ImportRules RulesOf(const ImportLimits& limits, uint64_t value_bytes_max);

}  // namespace longhold
