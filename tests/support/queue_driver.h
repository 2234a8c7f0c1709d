// Calls that tests make on an EngineQueue. Both sides hold the state that the queue's threads share
// with a test, because a thread may finish later than the test.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "service/server/engine_queue.h"

namespace longhold {

// Waits until the text is accepted or refused.
inline Result<IngestJob> IngestInto(EngineQueue& queue, const std::string& memory,
                                    IngestInput input) {
  const auto job = std::make_shared<std::promise<Result<IngestJob>>>();
  const Status taken = queue.Ingest(memory, std::move(input), [job](Result<IngestJob> result) {
    job->set_value(std::move(result));
  });
  if (!taken.ok()) return taken;
  return job->get_future().get();
}

// A question that is done after one step: it has no continuation.
inline EngineTask Whole(std::function<void(Engine&)> question) {
  return [question = std::move(question)](Engine& engine, bool) {
    question(engine);
    return Continuation();
  };
}

inline Status AskExclusive(EngineQueue& queue, std::function<void(Engine&)> question,
                           const std::string& tenant = "") {
  return queue.AskExclusive(Whole(std::move(question)), tenant);
}

// Blocks the queue's thread until the test sets the returned promise.
inline std::shared_ptr<std::promise<void>> HoldQueue(EngineQueue& queue) {
  auto go = std::make_shared<std::promise<void>>();
  auto held = std::make_shared<std::promise<void>>();
  EXPECT_TRUE(AskExclusive(queue, [go, held](Engine&) {
                held->set_value();
                go->get_future().wait();
              }).ok());
  held->get_future().wait();
  return go;
}

}  // namespace longhold
