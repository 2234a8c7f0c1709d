// `longhold serve`: the parts of the server put together.
#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>

#include "base/clock.h"
#include "model/embedder.h"
#include "service/cli/commands.h"
#include "service/common/json_text.h"
#include "service/server/api.h"
#include "service/server/descriptors.h"
#include "service/server/engine_queue.h"
#include "service/server/http_server.h"
#include "service/server/inbox.h"

namespace longhold {
namespace {

// Questions under way have so long after a signal; the longest answers take longer and are cut off.
constexpr std::chrono::seconds kDrain{30};
constexpr uint64_t kDescriptorsMax = 65536;

// By which name requests ask for the model: the catalog's, or a file's without its ending.
std::string ServedName(const std::string& model) {
  return IsModelPath(model) ? std::filesystem::path(model).stem().string() : model;
}

std::string Url(bool tls, const std::string& address, uint16_t port) {
  const bool v6 = address.find(':') != std::string::npos;
  return std::string(tls ? "https://" : "http://") + (v6 ? "[" + address + "]" : address) + ":" +
         std::to_string(port);
}

// A line of its own, from any thread.
void LogLine(std::string_view line) {
  const std::string whole = std::string(line) + "\n";
  std::fwrite(whole.data(), 1, whole.size(), stderr);
}

}  // namespace

Status RunServeCommand(const ServeCommand& command, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const ListenAddress listen, ParseListen(c.config.listen.value));
  const bool local = IsLoopback(listen.address);
  const TlsFiles tls{c.config.tls_certificate.value, c.config.tls_key.value,
                     c.config.tls_client_ca.value};
  if (tls.certificate.empty() != tls.key.empty() ||
      (tls.certificate.empty() && !tls.client_ca.empty())) {
    return InvalidArgument(
        "TLS needs a certificate and its key; give both, --tls-certificate FILE and --tls-key "
        "FILE");
  }
  if (!local && tls.certificate.empty() && !command.insecure) {
    return InvalidArgument(
        "--listen " + listen.address +
        ": others could reach it, and read what passes; give --tls-certificate and --tls-key, "
        "listen on "
        "127.0.0.1 behind a proxy, or say --insecure where the network between is your own");
  }
  if (!local) {
    LH_ASSIGN_OR_RETURN(const std::vector<ApiKey> keys, ApiKeys(c.config.home.value).List());
    if (keys.empty())
      return InvalidArgument(
          "--listen " + listen.address +
          ": others could reach it, and there is no key; make one with 'longhold key add NAME'");
  }
  if (!command.memory.empty()) LH_RETURN_IF_ERROR(c.engine.Exists(command.memory));
  const std::string& ingest_root = c.config.ingest_root.value;
  if (std::error_code ec; !ingest_root.empty() && !std::filesystem::is_directory(ingest_root, ec)) {
    return InvalidArgument("--ingest-root " + ingest_root +
                           ": is no directory; name one that is there");
  }
  const bool json_log = command.log == "json";
  const auto note = [&c, json_log](std::string_view text) {
    if (!json_log) return c.terminal.Note(text);
    LogLine(DumpJson(boost::json::object{{"time", UtcTime()}, {"note", JsonString(text)}}));
  };
  std::unique_ptr<AuditLog> audit;
  if (!c.config.audit_log.value.empty()) {
    LH_ASSIGN_OR_RETURN(audit, AuditLog::Open(c.config.audit_log.value, note));
  }
  const auto audit_event = [&audit](std::string_view event) {
    if (audit != nullptr)
      audit->Write(
          DumpJson(boost::json::object{{"time", UtcTime()}, {"event", JsonString(event)}}));
  };
  const uint32_t wanted = HttpServerOptions().connections_max;
  const uint64_t descriptors = RaiseDescriptorLimit(kDescriptorsMax);
  const uint32_t connections = ConnectionsFor(descriptors, wanted);
  // The server outlives the queue, whose last jobs answer through it. It listens before the model
  // is loaded, so that a port that is taken is told at once; who connects meanwhile waits.
  std::unique_ptr<Api> api;
  LH_ASSIGN_OR_RETURN(
      const std::unique_ptr<HttpServer> server,
      HttpServer::Listen({.address = listen.address,
                          .port = listen.port,
                          .connections_max = connections,
                          .hosts = command.hosts,
                          .tls = tls,
                          .note = note,
                          .refused = [&api](const HttpRequest& head,
                                            unsigned status) { api->Refused(head, status); }},
                         [&api](const HttpRequest& head) { return api->Admit(head); }));
  if (connections < wanted) {
    note("this process may have " + std::to_string(descriptors) +
         " files open, so that it serves " + std::to_string(connections) +
         " connections at once; for more raise its hard limit (ulimit -Hn, LimitNOFILE= of "
         "systemd)");
  }
  const std::atomic<bool>* const stop = c.catch_signals();
  LH_ASSIGN_OR_RETURN(SharedModel* const shared, c.load_model());
  const std::string model = ServedName(c.config.model.value);
  std::unique_ptr<TextEmbedder> embedder;
  if (!command.embedder.empty()) {
    LH_ASSIGN_OR_RETURN(const std::string path,
                        c.catalog.Resolve(command.embedder, ModelKind::kEmbedding));
    LH_ASSIGN_OR_RETURN(embedder, LoadEmbedder({.path = path, .threads = c.config.threads.value}));
  }
  Metrics metrics;
  Inbox inbox(c.config.home.value, c.encryption_key);
  LH_ASSIGN_OR_RETURN(const bool kept, inbox.Take());
  std::vector<std::string> notes;
  std::vector<Inbox::Text> texts = kept ? inbox.Load(&notes) : std::vector<Inbox::Text>();
  if (!kept)
    notes.push_back(
        "another server of this home keeps accepted texts on the disk; this one forgets those that "
        "it has not read when it stops");
  if (!texts.empty())
    notes.push_back("reading " + std::to_string(texts.size()) + " texts that were accepted before");
  for (const std::string& text : notes) note(text);
  EngineQueueOptions waits;
  waits.model = shared;
  waits.inbox = kept ? &inbox : nullptr;
  // none that another run of the server gave
  waits.first_id = static_cast<uint64_t>(UnixSeconds()) * 1000;
  waits.on_read = [&](const IngestReport& report) { metrics.Ingested(report); };
  EngineQueue queue(&c.engine, waits);
  queue.Resume(std::move(texts));
  JobPool jobs;  // ends before the queue, to which it gives texts
  // before both, to which it gives work
  JobPool readers(
      {.threads = 1, .tenant_threads = 1, .operator_threads = 1, .own_max = 64, .all_max = 1024});
  api = std::make_unique<Api>(
      &queue, &jobs, &readers, &metrics,
      ApiOptions{.model = model,
                 .fingerprint = c.engine.model_info().fingerprint,
                 .embedder = embedder.get(),
                 .embedder_name = command.embedder.empty() ? "" : ServedName(command.embedder),
                 .memory = command.memory,
                 .home = c.config.home.value,
                 .encryption_key = c.encryption_key,
                 .ingest_root = ingest_root,
                 .budget = &c.engine.budget(),
                 .without_keys = local ? Scope::kAdmin : Scope::kNone,
                 .note = note,
                 .log = json_log ? std::function<void(std::string_view)>(LogLine) : nullptr,
                 .audit = audit.get()});
  c.terminal.Out(Url(!tls.certificate.empty(), listen.address, server->port()) + "\n");
  note("serving " + model + " and the memories in " + c.config.home.value + "; Ctrl-C stops");
  audit_event("start");
  server->Run(stop, kDrain, [&] {
    api->Drain();
    queue.Stop();
    jobs.Stop();
    readers.Stop();
  });
  audit_event("stop");
  return OkStatus();
}

}  // namespace longhold
