// The HTTP API: routes, access and replies. docs/api.md describes the routes and their bodies.
//
// Owner: the `serve` command. Thread use: Admit, its callbacks and Refused are called on the thread
// of the server and do not block. Work for the engine runs on the threads of the queue. Long bodies
// are parsed on the threads of `readers`.
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
  std::string model;  // name of the model in requests
  // fingerprint of the model; memories of other models are not listed by /v1/models
  std::string fingerprint;
  // for /v1/embeddings, used by one thread at a time; null: none
  TextEmbedder* embedder = nullptr;
  std::string embedder_name;  // name of the embedder in requests
  // memory of requests that name none; empty: requests must name one
  std::string memory;
  std::string home;                 // its keys.json holds the API keys (service/server/api_keys.h)
  StoreProvider* stores = nullptr;  // of the memories
  Secret encryption_key;            // as EngineOptions::encryption_key
  // directory below which clients of the operator may ingest files by path; empty: none
  std::string ingest_root;
  // the budget of the engine, for the metrics and for copies and verifies
  MemoryBudget* budget = nullptr;
  // scope of every client while there is no file of keys
  Scope without_keys = Scope::kNone;
  // receives the notes of the engine; called on a thread of the queue
  std::function<void(std::string_view)> note;
  // Receives one line of JSON for each finished request, on any thread: client, route and status,
  // but no content. Null: no log.
  std::function<void(std::string_view)> log;
  AuditLog* audit = nullptr;  // null: none
  // Counts against the limits of tenants, with what other protocols count; null: the Api's own.
  Quotas* quotas = nullptr;
  // Sets the metrics of other servers of the process, before they are shown; may be empty.
  std::function<void(Metrics&)> measure;
};

// A route: its method, its path, in which {name} stands for one segment, and the scope that it
// needs.
struct ApiRoute {
  std::string_view method, path;
  Scope scope = Scope::kAdmin;
  bool for_tenants = false;  // else only keys of the operator are accepted
};

class Api {
 public:
  // Borrows `queue`, `jobs`, `readers` and `metrics`. Before the Api is destroyed, the first three
  // must have finished all its work. `readers` parses bodies that are too long for the thread of
  // the server.
  Api(EngineQueue* queue, JobPool* jobs, JobPool* readers, Metrics* metrics, ApiOptions options);
  // Decides on a request before its body is read: identifies the client, checks its key and rate,
  // and finds the route.
  HttpAdmission Admit(const HttpRequest& head);
  // Reports a request that the HTTP server refused before Admit to the metrics and the logs.
  void Refused(const HttpRequest& head, unsigned status);
  // From now on /readyz replies 503.
  void Drain() { draining_ = true; }

  static std::vector<ApiRoute> Routes();

 private:
  // work that has not begun by this time is not started
  using Deadline = std::optional<std::chrono::steady_clock::time_point>;
  struct Call;
  struct Route;
  class Completion;
  static const std::vector<Route>& Table();
  // Authenticates the client and fills in `call`. Returns the reply to a client that is refused.
  std::optional<HttpReply> Authenticate(const HttpRequest& head, Call& call);
  // Fills in the route and the names of its path. Returns the reply when there is no such route or
  // the client may not use it.
  std::optional<HttpReply> FindRoute(const HttpRequest& head, Call& call) const;
  // Calls the handler of the route, on a thread of `readers` if the body is long.
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
  // Wraps `work`: its exceptions are answered as errors, and the notes of the engine are reported
  // after it.
  EngineTask Guarded(std::shared_ptr<HttpExchange> exchange, EngineTask work);
  // Queues `work`, which answers the call. It does not run if the client has disconnected or the
  // deadline has passed. A full queue is answered here.
  void Queue(Call& call, EngineTask work, bool concurrent, const std::string& memory,
             Deadline deadline);
  // Wraps `work`, which returns the reply. If it does not fit the shared budget, it is retried
  // exclusively.
  EngineTask Answering(std::shared_ptr<HttpExchange> exchange,
                       std::function<Result<HttpReply>(Engine&)> work);
  // Queues such work. ReadEngine is for work that only reads: it may run concurrently with other
  // such work on `memory` (empty: on no memory for long). OnEngine runs it exclusively.
  void ReadEngine(Call& call, const std::string& memory,
                  std::function<Result<HttpReply>(Engine&)> work, Deadline deadline = {});
  void OnEngine(Call& call, std::function<Result<HttpReply>(Engine&)> work, Deadline deadline = {});
  // An engine for one job, without a model, and its share of the memory budget of the server.
  struct JobEngine {
    MemoryReservation memory;
    std::unique_ptr<Engine> engine;
  };
  // Makes one with a budget of `bytes`. Errors: resource_exhausted.
  Result<JobEngine> NewJobEngine(uint64_t bytes) const;
  uint64_t JobBudget() const;  // for an import or a verify
  struct Exporting;
  // Counts one more running export of the tenant until the result is released. Returns null when
  // the tenant has as many as it may.
  std::shared_ptr<void> BeginExport(const std::string& tenant);
  // Writes as much of the export as the client receives now. The rest continues when the client has
  // received that.
  void ContinueExport(const std::shared_ptr<Exporting>& exporting);
  // Runs `work`, which answers the call, on the job pool.
  void OnJob(Call& call, std::function<void()> work);
  // Queues the ingest of a text and answers. `upload` is the id of the upload that the text came
  // from, which is removed then; it may be empty.
  void TakeText(const std::shared_ptr<HttpExchange>& exchange, const Client& client,
                const std::string& memory, IngestInput input, const std::string& upload);
  // Returns the function that gives the disk limit of a memory of the tenant, after its other
  // memories: IngestInput::disk_bytes_max. Null: no limit.
  std::function<Result<uint64_t>()> DiskLimit(const TenantLimits& limits,
                                              const std::string& memory) const;
  void MeasureDisk();
  void ReportNotes(Engine& engine) const;
  void AuditKeyChanges(const KeyChanges& changes) const;
  // Replaces the path of the home in the message of an error, because clients must not learn it.
  Status Redact(const Status& status) const;
  // Charges the tokens of an answer, a recall or a text to the tenant.
  void Spend(const TenantLimits& limits, uint64_t tokens);

  EngineQueue* const queue_;
  JobPool* const jobs_;
  JobPool* const readers_;
  Metrics* const metrics_;
  const ApiOptions options_;
  const RecordSinks sinks_;
  ApiKeys keys_;
  Quotas own_quotas_;
  Quotas* const quotas_;
  Uploads uploads_;
  std::mutex embedder_mutex_;
  std::mutex exports_mutex_;
  std::multiset<std::string> exports_;  // tenants of the running exports
  std::atomic<bool> draining_{false};
  std::atomic<int64_t> disk_measured_{0};  // seconds since 1970
  // random part of completion ids: ids of other servers, and of this one after a restart, differ
  const std::string instance_;
  std::atomic<uint64_t> next_id_{1};
};

}  // namespace longhold
