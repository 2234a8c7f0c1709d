// Writes to memories: reads texts into them, and makes their indexes anew.
#pragma once

#include <atomic>
#include <string>

#include "base/memory_budget.h"
#include "base/status.h"
#include "memory/catalog/memory_catalog.h"
#include "memory/core/model_context.h"
#include "memory/core/notes.h"
#include "memory/ingest/ingest.h"

namespace longhold {

// Value type.
struct ReindexReport {
  bool other_heads = false;  // the memory's recall heads were not the profile's and now are
  uint64_t tokens = 0;
  uint64_t segments = 0;
  uint64_t segments_rebuilt = 0;
  // Text is damaged: these tokens are found by the recall heads only.
  uint64_t segments_lost = 0;
  uint64_t blocks_lost = 0;  // keys are damaged: these tokens are found by their words only
  double seconds = 0;
};

// Owner: the engine. Thread use: *confined*; with a SharedModel, as Engine.
class Ingestor {
 public:
  // Borrows all of them.
  Ingestor(MemoryCatalog* catalog, MemoryBudget* budget, Notes* notes)
      : catalog_(catalog), budget_(budget), notes_(notes) {}
  void UseModel(const ModelContext* context) { context_ = context; }
  // From now on a memory with another codec than the catalog's keeps its own, with a note.
  void NoteOtherCodecs() { note_other_codecs_ = true; }

  // Ingests one document, creating the memory when needed. Commits every 4,096 tokens; when `stop`
  // becomes true it commits and returns kStopped. Must hold: there is a model. Errors:
  // failed_precondition (another model's memory; another process writes; disk_bytes_max, and then
  // what was read is committed), resource_exhausted, unavailable (an answer that is under way reads
  // by what would be written with).
  Result<IngestReport> Ingest(const std::string& memory, const IngestInput& input,
                              const std::atomic<bool>* stop, const OnIngestProgress& on_progress);
  // The first step of Ingest alone: afterwards the text is found, cited and asked about, and
  // ReadNext has it read. See IndexDocument.
  Result<IngestReport> Index(const std::string& memory, const IngestInput& input,
                             const std::atomic<bool>* stop, const OnIngestProgress& on_progress);
  // The second step for the first of the memory's documents that the model has not read. The
  // outcome is kUnchanged, and the report empty, where there is none. Errors: as Ingest's;
  // not_found.
  Result<IngestReport> ReadNext(const std::string& memory, const DiskBytesMax& disk_bytes_max,
                                const std::atomic<bool>* stop, const OnIngestProgress& on_progress);
  // Makes the memory's index anew for the profile's recall heads, from what is stored: the text is
  // not read again. Stopped or killed at any moment, it leaves the memory as usable as it was. See
  // Memory::Reindex. Must hold: there is a model. Errors: as Ingest's; cancelled.
  Result<ReindexReport> Reindex(const std::string& memory, const std::atomic<bool>* stop,
                                const OnIngestProgress& on_progress);

 private:
  // Leases the memory for reading `what`, a text of `text_bytes`, into it; `reading` gets the RAM
  // for that.
  Result<MemoryLease> LeaseToRead(const std::string& name, MemoryCatalog::Access access,
                                  const std::string& what, uint64_t text_bytes,
                                  MemoryReservation* reading);
  // Makes the summaries that are missing. Errors: cancelled, the store's.
  Status Summarise(Memory& memory, const std::atomic<bool>* stop);

  MemoryCatalog* const catalog_;
  MemoryBudget* const budget_;
  Notes* const notes_;
  const ModelContext* context_ = nullptr;
  bool note_other_codecs_ = false;
};

}  // namespace longhold
