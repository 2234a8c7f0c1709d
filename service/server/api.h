// The HTTP API: which request does what. Routes and their bodies are described in docs/api.md.
//
// Owner: the `serve` command. Thread use: Admit, what it gives, and Refused are called on the
// server's thread and do not block; what needs the engine runs on the queue's, and long bodies are
// read on the readers'.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/secret.h"
#include "service/server/api_keys.h"
#include "service/server/audit_log.h"
#include "service/server/engine_queue.h"
#include "service/server/http_server.h"
#include "service/server/job_pool.h"
#include "service/server/metrics.h"
#include "service/server/quotas.h"
#include "service/server/request_record.h"
#include "service/server/uploads.h"

namespace longhold {

struct Client;
class TextEmbedder;

struct ApiOptions {
  std::string model;  // by which name requests ask for it
  // the model's: it answers from memories that it has read itself
  std::string fingerprint;
  // of /v1/embeddings, asked by one thread at a time; null: none
  TextEmbedder* embedder = nullptr;
  std::string embedder_name;  // by which requests ask for it
  // of requests that name none; empty: they have to
  std::string memory;
  std::string home;       // whose keys let in (service/server/api_keys.h)
  Secret encryption_key;  // as EngineOptions::encryption_key
  // the directory beneath which the operator's clients may name files; empty: none
  std::string ingest_root;
  // the engine's: for the metrics, and for copies and verifies
  MemoryBudget* budget = nullptr;
  // what everybody may do while there is no file of keys
  Scope without_keys = Scope::kNone;
  // what the engine has to tell; called on the queue's thread
  std::function<void(std::string_view)> note;
  // A line of JSON for each request that has ended, on any thread: who asked which route, and how
  // it ended. Never what was asked. Null: none.
  std::function<void(std::string_view)> log;
  AuditLog* audit = nullptr;  // null: none
};

// A route: method, a path in which {name} stands for one segment, and what it takes to be let in.
struct ApiRoute {
  std::string_view method, path;
  Scope scope = Scope::kAdmin;
  bool for_tenants = false;  // else only keys of the operator are let in
};

class Api {
 public:
  // Borrows `queue`, `jobs` and `readers`, which must not run jobs of this Api any more when it
  // goes, and `metrics`. Readers read what is too long to be read on the server's thread.
  Api(EngineQueue* queue, JobPool* jobs, JobPool* readers, Metrics* metrics, ApiOptions options);
  // Who asks, whether they may, and which route it is: all that is decided before a body is read.
  HttpAdmission Admit(const HttpRequest& head);
  // Tells the metrics and the logs of a request that the server has refused before Admit.
  void Refused(const HttpRequest& head, unsigned status);
  // From now on /readyz says 503.
  void Drain() { draining_ = true; }

  static std::vector<ApiRoute> Routes();

 private:
  // what has not begun by then is not begun
  using Deadline = std::optional<std::chrono::steady_clock::time_point>;
  struct Call;
  struct Route;
  class Completion;
  static const std::vector<Route>& Table();
  // Fills in who asks. The reply to one who may not.
  std::optional<HttpReply> LetIn(const HttpRequest& head, Call& call);
  // Fills in the route and its names. The reply where there is none, or not for this client.
  std::optional<HttpReply> FindRoute(const HttpRequest& head, Call& call) const;
  // Has the route's function read the body and answer.
  void Handle(const std::shared_ptr<Call>& call);

  void Health(Call& call);
  void Ready(Call& call);
  void ShowMetrics(Call& call);
  void Models(Call& call);
  void Chat(Call& call);
  void Completions(Call& call);
  void ListMemories(Call& call);
  void ShowMemory(Call& call);
  void CreateMemory(Call& call);
  void ShowTiers(Call& call);
  void ForgetMemory(Call& call);
  void VerifyMemory(Call& call);
  void ExportMemory(Call& call);
  void ImportMemory(Call& call);
  void AddDocument(Call& call);
  void ForgetDocument(Call& call);
  void Recall(Call& call);
  void Ask(Call& call);
  void Embeddings(Call& call);
  void ListIngests(Call& call);
  void ShowIngest(Call& call);
  void CancelIngest(Call& call);
  void ListUploads(Call& call);
  void CreateUpload(Call& call);
  void ShowUpload(Call& call);
  void AppendUpload(Call& call);
  void RemoveUpload(Call& call);

  void Complete(Call& call, bool chat);
  // `work`, whose exceptions answer `exchange`; then the engine's notes are told.
  Question Guarded(std::shared_ptr<HttpExchange> exchange, Question work);
  // Runs `work`, which answers the call, on the engine; not when the client has gone meanwhile.
  // What the queue does not take is answered here.
  void Queue(Call& call, Question work, bool beside, const std::string& memory, Deadline deadline);
  // Answers with what `work` gives; where that finds no room beside others, with what it gives
  // alone.
  Question Answering(std::shared_ptr<HttpExchange> exchange,
                     std::function<Result<HttpReply>(Engine&)> work);
  // Queues such work; what only reads, of `memory` or of none for long, may run beside other such
  // work.
  void ReadEngine(Call& call, const std::string& memory,
                  std::function<Result<HttpReply>(Engine&)> work, Deadline deadline = {});
  void OnEngine(Call& call, std::function<Result<HttpReply>(Engine&)> work, Deadline deadline = {});
  // An job's own engine, which has no model, and what it may take of the server's memory budget.
  struct JobEngine {
    MemoryReservation memory;
    std::unique_ptr<Engine> engine;
  };
  // With `bytes`, as its budget. Errors: resource_exhausted.
  Result<JobEngine> NewJobEngine(uint64_t bytes) const;
  uint64_t JobBudget() const;  // of an import or a verify
  struct Exporting;
  // One more copy for the tenant, for as long as the result lives; null where it has as many as it
  // may.
  std::shared_ptr<void> BeginExport(const std::string& tenant);
  // Writes of the copy what its client takes, and leaves the rest for when it has taken that.
  void ExportSome(const std::shared_ptr<Exporting>& exporting);
  // Runs `work`, which answers the call, as an job.
  void OnJob(Call& call, std::function<void()> work);
  // Has the text read, and answers. `upload` is where it came from, which is not needed then; it
  // may be empty.
  void TakeText(const std::shared_ptr<HttpExchange>& exchange, const Client& client,
                const std::string& memory, IngestInput input, const std::string& upload);
  // What a memory of the tenant may have on the disk beside its others:
  // IngestInput::disk_bytes_max.
  std::function<Result<uint64_t>()> DiskLimit(const TenantLimits& limits,
                                              const std::string& memory) const;
  void MeasureDisk();
  void TellNotes(Engine& engine) const;
  void TellKeys(const KeyChanges& changes) const;
  // An error's message as a client may read it: without the path of the home, which is nobody's
  // business there.
  Status Redact(const Status& status) const;
  // What an answer, a recall or a text cost its tenant.
  void Spend(const TenantLimits& limits, uint64_t tokens);

  EngineQueue* const queue_;
  JobPool* const jobs_;
  JobPool* const readers_;
  Metrics* const metrics_;
  const ApiOptions options_;
  const RecordSinks sinks_;
  ApiKeys keys_;
  Quotas quotas_;
  Uploads uploads_;
  std::mutex embedder_mutex_;
  std::mutex exports_mutex_;
  std::multiset<std::string> exports_;  // tenants whose copies are on their way out
  std::atomic<bool> draining_{false};
  std::atomic<int64_t> disk_measured_{0};  // seconds since 1970
  // of this server's ids, so that another one's, or those after a restart, are others
  const std::string instance_;
  std::atomic<uint64_t> next_id_{1};
};

}  // namespace longhold
