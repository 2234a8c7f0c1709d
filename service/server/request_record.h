// How a request ended, told to the metrics and the logs: who asked which route, never what was
// asked or answered.
//
// Owner: the Api. Thread use: a record is told of an end from any thread; the first one counts.
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

// What is told of a request beside how it ended. Value type.
struct Access {
  bool stranger = true;             // no key let it in, nor was none needed
  std::string key, tenant;          // of the client; empty: none
  std::string memory;               // that it is about, as the client calls it; empty: none
  std::string_view route = "none";  // a pattern of Api::Table, which lives as long as the program
};

// Where it is told. What is borrowed outlives the records.
struct RecordSinks {
  Metrics* metrics = nullptr;
  std::function<void(std::string_view)> log;  // as ApiOptions::log
  AuditLog* audit = nullptr;                  // null: none
};

// From a request's header to its end. One that is dropped before it was told of an end is told of
// as a request whose client had gone.
class RequestRecord {
 public:
  RequestRecord(const RecordSinks* sinks, const HttpRequest& head);
  ~RequestRecord();
  RequestRecord(const RequestRecord&) = delete;
  RequestRecord& operator=(const RequestRecord&) = delete;

  // Set on the server's thread, before others have the record.
  Access* access() { return &access_; }
  // The body is read; the time until the reply counts from here.
  void Begin() { begin_ = std::chrono::steady_clock::now(); }
  // `status` 0: the client had gone. `meant`: what it would have been told.
  void End(unsigned status, unsigned meant);
  void End(unsigned status) { End(status, status); }

 private:
  bool logged() const { return sinks_->log || sinks_->audit != nullptr; }

  const RecordSinks* const sinks_;
  std::string id_, peer_, method_, traceparent_;  // where it is logged
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  Access access_;
  std::atomic<bool> told_{false};
};

// Tells the record how the exchange ends.
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
