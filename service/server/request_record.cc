#include "service/server/request_record.h"

#include <boost/json.hpp>

#include "base/clock.h"
#include "service/common/json_text.h"

namespace longhold {

namespace json = boost::json;

namespace {

json::value TextOrNull(std::string_view text) {
  return text.empty() ? json::value(nullptr) : json::value(JsonString(text));
}

// Requests of monitoring are not audited: they access no memory.
bool IsAudited(std::string_view route, unsigned status) {
  const bool idle =
      route == "/healthz" || route == "/readyz" || route == "/metrics" || route == "/v1/models";
  return !idle || status >= 400;
}

}  // namespace

RequestRecord::RequestRecord(const RecordSinks* sinks, const HttpRequest& head) : sinks_(sinks) {
  if (!logged()) return;
  id_ = head.id;
  peer_ = head.peer;
  method_ = head.method;
  traceparent_ = head.traceparent;
}

RequestRecord::~RequestRecord() { End(0); }

void RequestRecord::End(unsigned status, unsigned intended) {
  if (ended_.exchange(true)) return;
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin_;
  sinks_->metrics->Request(access_.route, status, seconds.count());
  if (!logged()) return;
  // A request whose first line was incomplete has no method.
  json::object line{{"time", UtcTime()},
                    {"id", JsonString(id_)},
                    {"peer", JsonString(peer_)},
                    {"key", TextOrNull(access_.key)},
                    {"method", TextOrNull(method_)}};
  if (!traceparent_.empty()) line["traceparent"] = JsonString(traceparent_);
  line["route"] = JsonString(access_.route);
  line["status"] = status;
  if (sinks_->audit != nullptr && IsAudited(access_.route, intended)) {
    json::object entry = line;
    entry["event"] = "request";
    entry["tenant"] = TextOrNull(access_.tenant);
    entry["memory"] = TextOrNull(access_.memory);
    // Limited, so that such requests cannot fill the disk.
    access_.unauthenticated ? sinks_->audit->WriteUnauthenticated(DumpJson(entry))
                            : sinks_->audit->Write(DumpJson(entry));
  }
  line["seconds"] = seconds.count();
  if (sinks_->log) sinks_->log(DumpJson(line));
}

}  // namespace longhold
