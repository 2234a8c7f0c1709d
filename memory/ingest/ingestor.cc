#include "memory/ingest/ingestor.h"

#include <chrono>
#include <utility>

namespace longhold {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

Result<MemoryLease> Ingestor::LeaseToRead(const std::string& name, MemoryCatalog::Access access,
                                          const std::string& what, uint64_t text_bytes,
                                          MemoryReservation* reading) {
  LH_CHECK(context_ != nullptr);
  LH_ASSIGN_OR_RETURN(MemoryLease memory,
                      catalog_->Lease(name, access, MemoryCatalog::Reader::kModel));
  NoteOtherHeads(*memory, context_->profile, notes_);
  const std::string& codec = memory->manifest().codec;
  if (note_other_codecs_ && codec != catalog_->codec()) {
    notes_->Add("memory " + name + ": has codec " + codec + " and keeps it; 'longhold compact " +
                name + " --codec " + catalog_->codec() + "' changes it");
  }
  const LanguageModel& model = *context_->model;
  const HotWindowOptions window{memory->manifest().sink_tokens, memory->manifest().window_tokens,
                                model.batch_tokens()};
  LH_ASSIGN_OR_RETURN(
      *reading,
      budget_->Reserve(IngestBytes(model.info().geometry, window, text_bytes), "reading " + what));
  memory.MakeExclusive();
  return memory;
}

Result<IngestReport> Ingestor::Ingest(const std::string& name, const IngestInput& input,
                                      const std::atomic<bool>* stop,
                                      const OnIngestProgress& on_progress) {
  if (input.text.empty())
    return InvalidArgument(input.name + ": is empty; there is nothing to remember");
  MemoryReservation reading;
  LH_ASSIGN_OR_RETURN(
      const MemoryLease memory,
      LeaseToRead(name, MemoryCatalog::Access::kCreate, input.name, input.text.size(), &reading));
  return IngestDocument(*context_->model, *memory, *context_->vocabulary, input, stop, on_progress);
}

Result<IngestReport> Ingestor::Index(const std::string& name, const IngestInput& input,
                                     const std::atomic<bool>* stop,
                                     const OnIngestProgress& on_progress) {
  if (input.text.empty())
    return InvalidArgument(input.name + ": is empty; there is nothing to remember");
  MemoryReservation reading;
  LH_ASSIGN_OR_RETURN(
      const MemoryLease memory,
      LeaseToRead(name, MemoryCatalog::Access::kCreate, input.name, input.text.size(), &reading));
  return IndexDocument(*context_->model, *memory, *context_->vocabulary, input, stop, on_progress);
}

Result<IngestReport> Ingestor::ReadNext(const std::string& name, const DiskBytesMax& disk_bytes_max,
                                        const std::atomic<bool>* stop,
                                        const OnIngestProgress& on_progress) {
  MemoryReservation reading;
  LH_ASSIGN_OR_RETURN(const MemoryLease memory, LeaseToRead(name, MemoryCatalog::Access::kWrite,
                                                            "the texts of " + name, 0, &reading));
  for (const DocumentRecord& d : memory->documents()) {
    if (!d.searchable() || d.complete()) continue;
    return ReadDocument(*context_->model, *memory, *context_->vocabulary, d.id, disk_bytes_max,
                        stop, on_progress);
  }
  return IngestReport{.outcome = IngestReport::Outcome::kUnchanged};
}

Result<ReindexReport> Ingestor::Reindex(const std::string& name, const std::atomic<bool>* stop,
                                        const OnIngestProgress& on_progress) {
  LH_CHECK(context_ != nullptr);
  const Clock::time_point start = Clock::now();
  LH_ASSIGN_OR_RETURN(const MemoryLease memory, catalog_->Lease(name, MemoryCatalog::Access::kWrite,
                                                                MemoryCatalog::Reader::kModel));
  ReindexReport report;
  report.other_heads = !memory->HasHeadsOf(context_->profile);
  const auto workers = WorkersOf(*context_->model);
  LH_ASSIGN_OR_RETURN(
      const IndexReport index,
      memory->Reindex(context_->profile, workers, stop, [&](uint64_t done, uint64_t total) {
        const double seconds = SecondsSince(start);
        if (on_progress) {
          on_progress({IngestStep::kIndexing, name, done, total,
                       seconds > 0 ? static_cast<double>(done) / seconds : 0});
        }
      }));
  LH_RETURN_IF_ERROR(memory->BuildLists(workers));
  LH_RETURN_IF_ERROR(Summarise(*memory, stop));
  report.tokens = memory->searchable_tokens();
  report.segments = index.segments;
  report.segments_rebuilt = index.segments_rebuilt;
  report.segments_lost = index.segments_lost;
  report.blocks_lost = index.blocks_lost;
  report.seconds = SecondsSince(start);
  return report;
}

Status Ingestor::Summarise(Memory& memory, const std::atomic<bool>* stop) {
  for (const DocumentRecord& d : memory.documents()) {
    for (uint32_t n = 0; uint64_t{n} * kCommitTokens < d.committed_tokens; ++n) {
      if (stop != nullptr && stop->load()) {
        return Cancelled("reindexing of memory " + memory.name() +
                         ": stopped; faithful attention will have to read its blocks");
      }
      uint64_t lost = 0;  // the index report has them already
      LH_RETURN_IF_ERROR(
          memory.SummariesOf(d.id, n, context_->info().geometry, WorkersOf(*context_->model), &lost)
              .status());
    }
  }
  return OkStatus();
}

}  // namespace longhold
