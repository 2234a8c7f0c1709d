// Reports how a request ended to the metrics and the logs: client, route and status, but no
// content.
//
// Owner: the Api. Thread use: the end may be reported from any thread; only the first report
// counts.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "service/server/audit_log.h"
#include "service/server/http_server.h"
#include "service/server/metrics.h"

namespace longhold {

// Facts about a request for the logs, in addition to how it ended. Value type.
struct Access {
  bool unauthenticated = true;      // no valid key, and one was needed
  std::string key, tenant;          // of the client; empty: none
  std::string memory;               // the memory, by the client's name for it; empty: none
  std::string_view route = "none";  // a path of Api::Table, which has static lifetime
};

// Destinations of the reports. Borrowed objects must outlive the records.
struct RecordSinks {
  Metrics* metrics = nullptr;
  std::function<void(std::string_view)> log;  // as ApiOptions::log
  AuditLog* audit = nullptr;                  // null: none
};

// Accompanies a request from its header to its end. A record that is destroyed without a reported
// end reports that the client disconnected.
class RequestRecord {
 public:
  RequestRecord(const RecordSinks* sinks, const HttpRequest& head);
  ~RequestRecord();
  RequestRecord(const RequestRecord&) = delete;
  RequestRecord& operator=(const RequestRecord&) = delete;

  // Written on the thread of the server, before other threads have the record.
  Access* access() { return &access_; }
  // Called when the body is complete; the measured time begins here.
  void Begin() { begin_ = std::chrono::steady_clock::now(); }
  // Reports the end. `status` is 0 when the client had disconnected. `intended`: the status that it
  // would have got.
  void End(unsigned status, unsigned intended);
  void End(unsigned status) { End(status, status); }

 private:
  bool logged() const { return sinks_->log || sinks_->audit != nullptr; }

  const RecordSinks* const sinks_;
  std::string id_, peer_, method_, traceparent_;  // empty unless the request is logged
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  Access access_;
  std::atomic<bool> ended_{false};
};

// An exchange that reports its end to a record.
class RecordedExchange final : public HttpExchange {
 public:
  RecordedExchange(std::shared_ptr<HttpExchange> exchange, std::shared_ptr<RequestRecord> record)
      : exchange_(std::move(exchange)), record_(std::move(record)) {}
  ~RecordedExchange() override { End(0); }
  void Respond(HttpReply reply) override {
    End(reply.status);
    exchange_->Respond(std::move(reply));
  }
  void BeginStream() override { exchange_->BeginStream(); }
  void Write(std::string piece) override { exchange_->Write(std::move(piece)); }
  void EndStream() override {
    End(200);
    exchange_->EndStream();
  }
  void BeginBytes(const std::string& content_type) override { exchange_->BeginBytes(content_type); }
  bool WriteBytes(std::string piece, std::function<void()> ready) override {
    return exchange_->WriteBytes(std::move(piece), std::move(ready));
  }
  void Break() override {
    End(500);
    exchange_->Break();
  }
  const std::atomic<bool>& gone() const override { return exchange_->gone(); }

 private:
  void End(unsigned status) { record_->End(gone() ? 0 : status, status); }

  const std::shared_ptr<HttpExchange> exchange_;
  const std::shared_ptr<RequestRecord> record_;
};

}  // namespace longhold
