// An OpenAI-compatible proxy in front of llama.cpp's server: answers completions from a memory, and
// passes other requests on, with few of their headers.
//
// For a completion it plans with the engine, puts the recalled prefix into a slot of the server,
// and has the server answer (llama_server.h). The reply is that of `longhold serve`. docs/attach.md
// describes the routes.
//
// Owner: the `attach-server` command. Thread use: Admit and its callbacks are called on the thread
// of the HTTP server and do not block; completions run on one thread for each slot, other requests
// on a few more.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "memory/engine.h"
#include "service/attach/attach_request.h"
#include "service/attach/llama_server.h"
#include "service/server/http_server.h"
#include "service/server/job_pool.h"

namespace longhold {

struct AttachOptions {
  std::string model;   // its name in requests
  std::string memory;  // of requests that name none; empty: requests must name one
  // receives the notes of the engine; called on any thread
  std::function<void(std::string_view)> note;
};

class AttachProxy {
 public:
  // Borrows all. The engine must have its model; while the proxy lives, only the proxy uses it.
  AttachProxy(Engine* engine, const LlamaServer* server, AttachOptions options);
  // As Stop, and waits for the end of all answers.
  ~AttachProxy();

  HttpAdmission Admit(const HttpRequest& head);
  // Accepts no further work. Waiting completions are still answered.
  void Stop();

 private:
  class Completion;
  // Queues a completion, or answers the exchange with an error.
  void Complete(const HttpRequest& request, const std::shared_ptr<HttpExchange>& exchange,
                bool chat);
  void Models(const std::shared_ptr<HttpExchange>& exchange);
  // Passes a request on to the server, and its reply back.
  void Forward(const HttpRequest& request, const std::shared_ptr<HttpExchange>& exchange);
  void ReportNotes();
  uint32_t TakeSlot();
  void GiveSlot(uint32_t slot);

  Engine* const engine_;
  const LlamaServer* const server_;
  const AttachOptions options_;
  const std::string instance_;  // random part of completion ids
  // The engine is confined: whoever uses it holds this.
  std::mutex engine_mutex_;
  std::mutex slots_mutex_;
  std::vector<uint32_t> free_slots_;  // as many as `completions_` has threads without work
  std::atomic<uint64_t> next_id_{1};
  JobPool forwards_, completions_;  // last: their jobs use what is above
};

}  // namespace longhold
