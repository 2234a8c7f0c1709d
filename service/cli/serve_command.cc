// `longhold serve`: builds the parts of the server and runs it.
#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>

#include "base/clock.h"
#include "service/cli/commands.h"
#include "service/cli/model_choice.h"
#include "service/cli/reach.h"
#include "service/cli/serve_resp.h"
#include "service/cli/serve_wire.h"
#include "service/cli/served_name.h"
#include "service/common/json_text.h"
#include "service/server/api.h"
#include "service/server/descriptors.h"
#include "service/server/engine_queue.h"
#include "service/server/http_server.h"
#include "service/server/inbox.h"

namespace longhold {
namespace {

// After a signal, answers in progress have this much time to finish. The longest answers need more
// and are cut off.
constexpr std::chrono::seconds kDrain{30};
constexpr uint64_t kDescriptorsMax = 65536;

// Writes one line to stderr. Safe to call from any thread.
void LogLine(std::string_view line) {
  const std::string whole = std::string(line) + "\n";
  std::fwrite(whole.data(), 1, whole.size(), stderr);
}

using NoteFunction = std::function<void(std::string_view)>;

// Checks the settings before anything slow happens: TLS, who can reach the address, the memory, and
// the directory for documents.
Status CheckServe(const ServeCommand& command, const CommandContext& c, const Reach& reach,
                  const TlsFiles& tls) {
  if (tls.certificate.empty() != tls.key.empty() ||
      (tls.certificate.empty() && !tls.client_ca.empty())) {
    return InvalidArgument(
        "TLS needs a certificate and its key; give both, --tls-certificate FILE and --tls-key "
        "FILE");
  }
  LH_RETURN_IF_ERROR(CheckReach(reach, ApiKeys(c.config.home.value)));
  if (!command.memory.empty()) LH_RETURN_IF_ERROR(c.engine.Exists(command.memory));
  const std::string& ingest_root = c.config.ingest_root.value;
  if (std::error_code ec; !ingest_root.empty() && !std::filesystem::is_directory(ingest_root, ec)) {
    return InvalidArgument("--ingest-root " + ingest_root +
                           ": is not a directory; name an existing directory");
  }
  return OkStatus();
}

// Listens for `*api`, which is set before HttpServer::Run. The descriptor limit bounds the number
// of connections; a note tells when it is below the server's default.
Result<std::unique_ptr<HttpServer>> ListenFor(const std::unique_ptr<Api>* api,
                                              const ServeCommand& command,
                                              const ListenAddress& listen, const TlsFiles& tls,
                                              const NoteFunction& note) {
  const uint32_t wanted = HttpServerOptions().connections_max;
  const uint64_t descriptors = RaiseDescriptorLimit(kDescriptorsMax);
  const uint32_t connections = ConnectionsFor(descriptors, wanted);
  LH_ASSIGN_OR_RETURN(
      std::unique_ptr<HttpServer> server,
      HttpServer::Listen({.address = listen.address,
                          .port = listen.port,
                          .connections_max = connections,
                          .hosts = command.hosts,
                          .tls = tls,
                          .note = note,
                          .refused = [api](const HttpRequest& head,
                                           unsigned status) { (*api)->Refused(head, status); }},
                         [api](const HttpRequest& head) { return (*api)->Admit(head); }));
  if (connections < wanted) {
    note("this process may have " + std::to_string(descriptors) + " open files, so it serves " +
         std::to_string(connections) +
         " connections at once; for more raise its hard limit (ulimit -Hn, or systemd's "
         "LimitNOFILE=)");
  }
  return server;
}

// Takes the inbox of this home and returns the texts that an earlier run of the server accepted.
// Sets `*kept` to whether this server keeps texts there; false: another server does.
Result<std::vector<Inbox::Text>> TakeInbox(Inbox& inbox, const NoteFunction& note, bool* kept) {
  LH_ASSIGN_OR_RETURN(*kept, inbox.Take());
  std::vector<std::string> notes;
  std::vector<Inbox::Text> texts = *kept ? inbox.Load(&notes) : std::vector<Inbox::Text>();
  if (!*kept)
    notes.push_back(
        "another server uses the inbox of this home; this server does not keep accepted texts on "
        "disk, so texts that it has not read are lost when it stops");
  if (!texts.empty())
    notes.push_back("reading " + std::to_string(texts.size()) +
                    " texts that an earlier run of the server accepted");
  for (const std::string& text : notes) note(text);
  return texts;
}

}  // namespace

Status RunServeCommand(const ServeCommand& command, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const ListenAddress listen, ParseListen(c.config.listen.value));
  const TlsFiles tls{c.config.tls_certificate.value, c.config.tls_key.value,
                     c.config.tls_client_ca.value};
  const Reach reach{.option = "--listen",
                    .address = listen.address,
                    .encrypted = !tls.certificate.empty(),
                    .insecure = command.insecure,
                    .instead =
                        "give --tls-certificate and --tls-key, or listen on 127.0.0.1 behind "
                        "a proxy"};
  LH_RETURN_IF_ERROR(CheckServe(command, c, reach, tls));
  LH_RETURN_IF_ERROR(ServedWire::Check(command, c));
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
  // The server outlives the queue, because the queue's last jobs send their replies through it. The
  // servers listen before the model is loaded, so that a port in use is reported at once. Clients
  // that connect meanwhile wait; those of Redis need no model and are served.
  Metrics metrics;
  Quotas quotas;
  std::unique_ptr<Api> api;
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<HttpServer> server,
                      ListenFor(&api, command, listen, tls, note));
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<ServedResp> resp, ServedResp::Start(command, c, note));
  LH_ASSIGN_OR_RETURN(
      ServedWire wire,
      ServedWire::Listen(
          command, c,
          {.quotas = &quotas,
           .sinks = {.metrics = &metrics,
                     .log = json_log ? std::function<void(std::string_view)>(LogLine) : nullptr,
                     .audit = audit.get()},
           .note = note}));
  const std::atomic<bool>* const stop = c.catch_signals();
  LH_ASSIGN_OR_RETURN(SharedModel* const shared, c.load_model());
  const std::string model = ServedName(c.config.model.value);
  // The embeddings route has an embedder of its own: the engine's is confined to the queue.
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<TextEmbedder> embedder,
                      LoadChosenEmbedder(c.config, c.catalog));
  Inbox inbox(c.config.home.value, c.encryption_key);
  bool kept = false;
  LH_ASSIGN_OR_RETURN(std::vector<Inbox::Text> texts, TakeInbox(inbox, note, &kept));
  EngineQueueOptions waits;
  waits.model = shared;
  waits.inbox = kept ? &inbox : nullptr;
  // Ids start at a value that no earlier run of the server has used.
  waits.first_id = static_cast<uint64_t>(UnixSeconds()) * 1000;
  waits.on_read = [&](const IngestReport& report) { metrics.Ingested(report); };
  EngineQueue queue(&c.engine, waits);
  queue.Resume(std::move(texts));
  JobPool jobs;  // gives texts to the queue, so it is destroyed before the queue
  // Gives work to the queue and to `jobs`, so it is destroyed before both.
  JobPool readers({.threads = 1,
                   .tenant_threads = 1,
                   .operator_threads = 1,
                   .tenant_waiting_max = 64,
                   .waiting_max = 1024});
  api = std::make_unique<Api>(
      &queue, &jobs, &readers, &metrics,
      ApiOptions{.model = model,
                 .fingerprint = c.engine.model_info().fingerprint,
                 .embedder = embedder.get(),
                 .embedder_name = embedder == nullptr ? "" : ServedName(c.config.embedder.value),
                 .memory = command.memory,
                 .home = c.config.home.value,
                 .stores = &c.stores,
                 .encryption_key = c.encryption_key,
                 .ingest_root = c.config.ingest_root.value,
                 .budget = &c.engine.budget(),
                 .without_keys = ScopeWithoutKeys(reach),
                 .note = note,
                 .log = json_log ? std::function<void(std::string_view)>(LogLine) : nullptr,
                 .audit = audit.get(),
                 .quotas = &quotas,
                 .measure = [&resp](Metrics& shown) {
                   if (resp != nullptr) resp->Measure(shown);
                 }});
  wire.Start();
  c.terminal.Out(ServedUrl(!tls.certificate.empty(), listen.address, server->port()) + "\n");
  if (resp != nullptr) c.terminal.Out(resp->Url() + "\n");
  note("serving " + model + " and the memories in " + c.config.home.value + "; Ctrl-C stops");
  audit_event("start");
  server->Run(stop, kDrain, [&] {
    api->Drain();
    wire.Stop();
    queue.Stop();
    jobs.Stop();
    readers.Stop();
    if (resp != nullptr) resp->Stop(kDrain);
  });
  audit_event("stop");
  return OkStatus();
}

}  // namespace longhold
