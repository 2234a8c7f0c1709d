// Who has the engine, and when, with the toy model on real memories: a text of several commits is
// interrupted by questions.
#include "service/server/engine_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "memory/attend/working_set.h"
#include "tests/store/temp_dir.h"
#include "tests/support/engines.h"
#include "tests/support/queue_driver.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

using std::chrono_literals::operator""ms;

class EngineQueueTest : public testing::Test {
 protected:
  EngineQueueTest() : model_({.geometry = TinyGeometry()}), engine_(home_ / "h") {
    EXPECT_TRUE(engine_.UseModel(&model_, nullptr).ok());
  }
  void Start(EngineQueueOptions options = {}) {
    queue_ = std::make_unique<EngineQueue>(&engine_, options);
  }
  Result<IngestJob> Ingest(const std::string& memory, IngestInput input) {
    return IngestInto(*queue_, memory, std::move(input));
  }
  IngestJob Wait(uint64_t id) {
    for (;;) {
      const std::optional<IngestJob> job = queue_->Find(id);
      if (!job.has_value() || job->state > IngestState::kRunning) return job.value_or(IngestJob{});
      std::this_thread::sleep_for(2ms);
    }
  }

  TempDir home_;
  ToyModel model_;
  EngineInHome engine_;
  std::unique_ptr<EngineQueue> queue_;
};

TEST_F(EngineQueueTest, QuestionsRunInTheirOrder) {
  Start();
  std::vector<int> ran;
  std::promise<void> done;
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(AskExclusive(*queue_, [&, i](Engine&) {
                  ran.push_back(i);
                  if (i == 19) done.set_value();
                }).ok());
  }
  done.get_future().wait();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(ran[static_cast<size_t>(i)], i);
}

TEST_F(EngineQueueTest, TenantsTakeTurnsWithTheirQuestions) {
  Start({.questions_max = 20, .tenants_questions_max = 45});
  const auto go = HoldQueue(*queue_);
  std::vector<std::string> ran;
  std::promise<void> done;
  const auto ask = [&](const std::string& tenant) {
    return AskExclusive(
        *queue_, [&ran, tenant](Engine&) { ran.push_back(tenant); }, tenant);
  };
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(ask("loud").ok());
  EXPECT_EQ(ask("loud").code(), StatusCode::kResourceExhausted) << "a tenant's own bound";
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(ask("calm").ok());
  ASSERT_TRUE(ask("").ok());
  EXPECT_EQ(queue_->questions(), 24u);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(ask("more").ok());
  ASSERT_TRUE(ask("calm").ok());
  ASSERT_TRUE(ask("calm").ok());
  EXPECT_EQ(ask("late").code(), StatusCode::kResourceExhausted) << "the bound of all";
  go->set_value();
  while (queue_->questions() > 0) std::this_thread::sleep_for(2ms);
  queue_->Stop();
  queue_.reset();
  ASSERT_EQ(ran.size(), 45u);
  // Calm had its four answers before loud had six.
  size_t loud = 0, calm = 0;
  for (size_t i = 0; i < ran.size() && calm < 4; ++i) {
    loud += ran[i] == "loud";
    calm += ran[i] == "calm";
  }
  EXPECT_LE(loud, 5u);
}

TEST_F(EngineQueueTest, QuestionsThatOnlyReadAreAnsweredSideBySide) {
  SharedModel shared(&model_, {.room = [&] { return engine_.HasRoomForAnother(); }});
  RecallProfile profile;
  profile.name = "toy";
  ASSERT_TRUE(engine_.UseModel(&shared, &profile).ok());
  for (const char* memory : {"tales", "other"}) {
    ASSERT_TRUE(engine_
                    .Ingest(memory,
                            {"text", "The number of " + std::string(memory) + " is seven.\n" +
                                         PlainText(3000, 1)},
                            nullptr, nullptr)
                    .ok());
  }
  constexpr size_t kQuestions = 10;
  const auto ask = [&](size_t i) {
    AskOptions options{.answer_prefix = "It is", .max_tokens = 30};
    // So that the others' threads have begun before it ends.
    options.on_text = [](std::string_view) { std::this_thread::sleep_for(3ms); };
    const Result<AskReply> reply =
        engine_.Ask(i % 3 == 0 ? "other" : "tales",
                    "What is the number of stone " + std::to_string(i) + "?", options);
    return reply.ok() ? reply->answer + " " + std::to_string(reply->citations.size())
                      : reply.status().ToString();
  };
  std::vector<std::string> alone, beside(kQuestions);
  for (size_t i = 0; i < kQuestions; ++i) alone.push_back(ask(i));
  Start({.model = &shared});
  const auto go = HoldQueue(*queue_);
  std::atomic<size_t> ended{0};
  bool all_before = false;
  for (size_t i = 0; i < kQuestions; ++i) {
    ASSERT_TRUE(queue_
                    ->AskConcurrent(Whole([&, i](Engine&) {
                                      beside[i] = ask(i);
                                      ++ended;
                                    }),
                                    "", i % 3 == 0 ? "other" : "tales")
                    .ok());
  }
  // What writes has the engine to itself, in its turn.
  ASSERT_TRUE(AskExclusive(*queue_, [&](Engine& engine) {
                all_before = ended == kQuestions;
                EXPECT_TRUE(engine.Forget("other", "", true).ok());
              }).ok());
  ASSERT_TRUE(queue_
                  ->AskConcurrent(Whole([&](Engine& engine) {
                                    EXPECT_EQ(engine.Exists("other").code(), StatusCode::kNotFound);
                                  }),
                                  "", "other")
                  .ok());
  EXPECT_EQ(queue_->questions(), kQuestions + 3);
  go->set_value();
  queue_->Stop();
  queue_.reset();
  EXPECT_TRUE(all_before);
  EXPECT_EQ(beside, alone);
  EXPECT_GE(model_.each_sequences_max(), 2u);
}

// As sessions do: asked beside others, and what was said is written to the memory then.
TEST_F(EngineQueueTest, WritesWhileOthersAnswer) {
  SharedModel shared(&model_, {.room = [&] { return engine_.HasRoomForAnother(); }});
  ASSERT_TRUE(engine_.UseModel(&shared, nullptr).ok());
  for (const char* memory : {"a", "b"})
    ASSERT_TRUE(engine_.Ingest(memory, {"text", PlainText(3000, 1)}, nullptr, nullptr).ok());
  engine_.CloseMemory();
  Start({.model = &shared});
  const auto go = HoldQueue(*queue_);
  constexpr int kTurns = 9;
  std::atomic<int> asking{0}, kept_concurrent{0}, kept_while_others_ask{0};
  const auto name = [](int i) { return i % 3 == 0 ? "a" : "b"; };
  for (int i = 0; i < kTurns; ++i) {
    const EngineTask keep = [&, i](Engine& engine, bool alone) -> Continuation {
      const Status kept = engine
                              .Ingest(name(i),
                                      {"turn/" + std::to_string(i),
                                       "Turn " + std::to_string(i) + PlainText(500, i)},
                                      nullptr, nullptr)
                              .status();
      engine.CloseMemory();
      EXPECT_TRUE(kept.ok()) << kept.ToString();
      kept_concurrent += !alone;
      kept_while_others_ask += asking > 0;
      return {};
    };
    ASSERT_TRUE(
        queue_
            ->AskConcurrent(
                [&, i, keep](Engine& engine, bool) -> Continuation {
                  ++asking;
                  AskOptions options{.answer_prefix = "It is",
                                     .max_tokens = 10u + 10u * static_cast<uint32_t>(i)};
                  options.on_text = [](std::string_view) { std::this_thread::sleep_for(1ms); };
                  EXPECT_TRUE(
                      engine.Ask(name(i), "What is stone " + std::to_string(i) + "?", options)
                          .ok());
                  --asking;
                  return {.run = keep};
                },
                "", name(i))
            .ok());
  }
  go->set_value();
  queue_->Stop();  // what has begun is written all the same
  queue_.reset();
  EXPECT_EQ(kept_concurrent, kTurns);
  EXPECT_GT(kept_while_others_ask, 0);
  size_t turns = 0;
  for (const char* memory : {"a", "b"}) {
    const Result<MemoryInfo> info = engine_.Show(memory);
    ASSERT_TRUE(info.ok());
    turns += info->documents.size() - 1;
    for (const DocumentInfo& d : info->documents) EXPECT_EQ(d.tokens, d.committed_tokens) << d.name;
    EXPECT_TRUE(engine_.Verify(memory).ok());
  }
  EXPECT_EQ(turns, static_cast<size_t>(kTurns));
}

TEST_F(EngineQueueTest, AMemoryThatAnAnswerReadsByItsWriterIsNotWrittenToMeanwhile) {
  model_ = ToyModel({.geometry = TinyGeometry(), .answer = std::string(5000, 'x')});
  SharedModel shared(&model_);
  ASSERT_TRUE(engine_.UseModel(&shared, nullptr).ok());
  // and it stays open for more
  ASSERT_TRUE(engine_.Ingest("tales", {"text", PlainText(3000, 1)}, nullptr, nullptr).ok());
  const auto write = [](Engine& engine) {
    return engine.Ingest("tales", {"turn", PlainText(300, 2)}, nullptr, nullptr).status();
  };
  Start({.model = &shared});
  std::atomic<bool> said{false}, tried{false};
  ASSERT_TRUE(queue_
                  ->AskConcurrent(
                      [&](Engine& engine, bool) -> Continuation {
                        AskOptions options{.answer_prefix = "It is", .max_tokens = 5000};
                        std::atomic<bool> stop{false};
                        options.stop = &stop;
                        options.on_text = [&](std::string_view) {
                          said = true;
                          stop = tried.load();
                          std::this_thread::sleep_for(1ms);
                        };
                        EXPECT_TRUE(engine.Ask("tales", "What is the number?", options).ok());
                        return {};
                      },
                      "", "tales")
                  .ok());
  std::vector<std::pair<bool, Status>> wrote;
  while (!said) std::this_thread::sleep_for(1ms);
  ASSERT_TRUE(queue_
                  ->AskConcurrent(
                      [&](Engine& engine, bool alone) -> Continuation {
                        wrote.emplace_back(alone, write(engine));
                        tried = true;
                        return {.run = [&](Engine& again, bool alone_now) -> Continuation {
                                  wrote.emplace_back(alone_now, write(again));
                                  return {};
                                },
                                .exclusive = true};
                      },
                      "", "tales")
                  .ok());
  while (!tried) std::this_thread::sleep_for(1ms);
  // What waits comes after what is left to be done.
  bool was_written = false;
  ASSERT_TRUE(AskExclusive(*queue_, [&](Engine&) { was_written = wrote.size() == 2; }).ok());
  queue_->Stop();
  queue_.reset();
  ASSERT_EQ(wrote.size(), 2u);
  EXPECT_FALSE(wrote[0].first);
  EXPECT_EQ(wrote[0].second.code(), StatusCode::kUnavailable) << wrote[0].second.ToString();
  EXPECT_TRUE(wrote[1].first);
  EXPECT_TRUE(wrote[1].second.ok()) << wrote[1].second.ToString();
  EXPECT_TRUE(was_written);
  EXPECT_TRUE(engine_.Verify("tales").ok());
}

TEST_F(EngineQueueTest, ATenantsLongAnswersLeavePlacesToOthers) {
  SharedModel shared(&model_, {.answers_max = 4});
  ASSERT_TRUE(engine_.UseModel(&shared, nullptr).ok());
  Start({.model = &shared});
  const auto go = HoldQueue(*queue_);
  std::promise<void> calm;
  const std::shared_future<void> calm_ended = calm.get_future().share();
  // Each goes on until the calm tenant's question has been answered: with all places taken none
  // would ever be.
  const auto loud = [&](Engine&) {
    WorkingSet set(shared.info().geometry, 1 << 20);
    const TokenId token = 7;
    while (calm_ended.wait_for(0ms) != std::future_status::ready) {
      set.Truncate(0);
      set.BeginPass(1);
      EXPECT_TRUE(shared.Forward({&token, 1}, 0, &set, true).ok());
    }
  };
  for (int i = 0; i < 6; ++i)
    ASSERT_TRUE(queue_->AskConcurrent(Whole(loud), "loud", "loud/book").ok());
  ASSERT_TRUE(
      queue_->AskConcurrent(Whole([&](Engine&) { calm.set_value(); }), "calm", "calm/book").ok());
  go->set_value();
  calm_ended.wait();
  queue_.reset();
}

TEST_F(EngineQueueTest, AShortTextDoesNotWaitForAnotherTenantsLongOne) {
  Start({.ingest_slice = 1ms, .tenant_slice = 30ms});
  const Result<IngestJob> loud = Ingest("loud/book", {"long", PlainText(150000, 1)});
  const Result<IngestJob> after = Ingest("loud/book", {"after", PlainText(2000, 2)});
  const Result<IngestJob> calm = Ingest("calm/notes", {"short", PlainText(2000, 3)});
  ASSERT_TRUE(loud.ok() && after.ok() && calm.ok());
  EXPECT_EQ(Wait(calm->id).state, IngestState::kDone);
  EXPECT_LE(queue_->Find(loud->id)->state, IngestState::kRunning)
      << "the long one is not through yet";
  EXPECT_LE(queue_->Find(after->id)->state, IngestState::kQueued)
      << "a tenant's own texts keep their order";
  EXPECT_EQ(Wait(loud->id).state, IngestState::kDone);
  EXPECT_EQ(Wait(after->id).state, IngestState::kDone);
  queue_.reset();
  EXPECT_TRUE(engine_.Verify("loud/book").ok());
}

TEST_F(EngineQueueTest, ATenantMayFillHalfOfWhatWaits) {
  Start({.ingests_max = 8, .ingest_bytes_max = 1000});
  const auto go = HoldQueue(*queue_);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(Ingest("loud/a", {std::to_string(i), "text"}).ok());
  EXPECT_EQ(Ingest("loud/b", {"x", "text"}).status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(Ingest("calm/a", {"x", std::string(501, 'x')}).status().code(),
            StatusCode::kResourceExhausted);
  EXPECT_TRUE(Ingest("calm/a", {"x", std::string(400, 'x')}).ok());
  EXPECT_TRUE(Ingest("own", {"x", std::string(500, 'x')}).ok())
      << "the operator's may take the rest";
  go->set_value();
}

TEST_F(EngineQueueTest, ATextThatIsNotAdmittedIsNotRead) {
  Start();
  std::promise<Result<IngestJob>> accepted;
  ASSERT_TRUE(queue_
                  ->Ingest(
                      "tales", {"a", "Some text."},
                      [&](Result<IngestJob> job) { accepted.set_value(std::move(job)); },
                      [](Engine&) { return FailedPrecondition("no room"); })
                  .ok());
  const Result<IngestJob> job = accepted.get_future().get();
  ASSERT_TRUE(job.ok());
  const IngestJob ended = Wait(job->id);
  EXPECT_EQ(ended.state, IngestState::kFailed);
  EXPECT_EQ(ended.status.message(), "no room");
  queue_.reset();
  EXPECT_EQ(engine_.Exists("tales").code(), StatusCode::kNotFound);
}

TEST_F(EngineQueueTest, AQuestionDoesNotWaitForATextToEnd) {
  Start({.ingest_slice = 10ms});
  const std::string text = PlainText(60000, 1);
  const Result<IngestJob> job = Ingest("tales", {"long", text});
  ASSERT_TRUE(job.ok()) << job.status().ToString();
  // Questions before, while and after it is read; each sees how far the text is.
  std::set<uint64_t> seen;
  while (queue_->Find(job->id)->state <= IngestState::kRunning) {
    std::promise<uint64_t> tokens;
    ASSERT_TRUE(AskExclusive(*queue_, [&](Engine& engine) {
                  const Result<MemoryInfo> info = engine.Show("tales");
                  tokens.set_value(info.ok() ? info->tokens_read : 0);
                }).ok());
    seen.insert(tokens.get_future().get());
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_GT(seen.size(), 3u) << "the text was interrupted, and went on from where it was";
  const IngestJob ended = Wait(job->id);
  EXPECT_EQ(ended.state, IngestState::kDone) << ended.status.ToString();
  EXPECT_EQ(ended.tokens_done, ended.tokens_total);
  ASSERT_TRUE(ended.report.has_value());
  queue_.reset();
  const Result<MemoryInfo> info = engine_.Show("tales");
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->tokens, ended.tokens_total);
  EXPECT_TRUE(engine_.Verify("tales").ok());
  // The same text read without a break is the same memory.
  const Result<IngestReport> again = engine_.Ingest("tales", {"long", text}, nullptr, nullptr);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->outcome, IngestReport::Outcome::kUnchanged);
}

// As a session's turn does that ends while a long text is read into the same memory.
TEST_F(EngineQueueTest, AQuestionMayWriteToTheMemoryThatIsBeingRead) {
  Start({.ingest_slice = 20ms});
  const std::string text = PlainText(40000, 4);
  const uint64_t job = Ingest("tales", {"long", text})->id;
  int turns = 0;
  while (queue_->Find(job)->state <= IngestState::kRunning) {
    std::promise<Status> wrote;
    ASSERT_TRUE(AskExclusive(*queue_, [&wrote, turn = turns](Engine& engine) {
                  const Status status =
                      engine
                          .Ingest("tales",
                                  {"turn/" + std::to_string(turn), "Turn " + std::to_string(turn)},
                                  nullptr, nullptr)
                          .status();
                  if (turn % 2 == 0) engine.CloseMemory();
                  wrote.set_value(status);
                }).ok());
    const Status status = wrote.get_future().get();
    ASSERT_TRUE(status.ok()) << status.ToString();
    ++turns;
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_GT(turns, 3);
  EXPECT_EQ(Wait(job).state, IngestState::kDone) << Wait(job).status.ToString();
  queue_.reset();
  const Result<MemoryInfo> info = engine_.Show("tales");
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->documents.size(), static_cast<size_t>(turns) + 1);
  for (const DocumentInfo& d : info->documents) EXPECT_EQ(d.tokens, d.committed_tokens) << d.name;
  EXPECT_TRUE(engine_.Verify("tales").ok());
}

TEST_F(EngineQueueTest, RefusesWhatIsTooMuchAndSaysSo) {
  Start({.questions_max = 2, .ingests_max = 2, .ingest_bytes_max = 1000});
  const auto go = HoldQueue(*queue_);
  EXPECT_TRUE(AskExclusive(*queue_, [](Engine&) {}).ok());
  EXPECT_TRUE(AskExclusive(*queue_, [](Engine&) {}).ok());
  EXPECT_EQ(AskExclusive(*queue_, [](Engine&) {}).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(queue_->questions(), 3u);
  const Result<IngestJob> first = Ingest("tales", {"a", std::string(600, 'a')});
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(Ingest("tales", {"b", std::string(600, 'b')}).status().code(),
            StatusCode::kResourceExhausted);
  EXPECT_TRUE(Ingest("tales", {"c", "short"}).ok());
  EXPECT_EQ(Ingest("tales", {"d", "short"}).status().code(), StatusCode::kResourceExhausted);
  go->set_value();
  EXPECT_EQ(Wait(first->id).state, IngestState::kDone);
  EXPECT_TRUE(Ingest("tales", {"b", std::string(600, 'b')}).ok()) << "there is room again";
}

TEST_F(EngineQueueTest, CancelsWhatWaitsAndWhatRuns) {
  Start();
  auto go = HoldQueue(*queue_);
  const uint64_t waits = Ingest("tales", {"waits", "a text"})->id;
  EXPECT_TRUE(queue_->Cancel(waits));
  EXPECT_EQ(queue_->Find(waits)->state, IngestState::kCancelled);
  EXPECT_FALSE(queue_->Cancel(waits));
  EXPECT_FALSE(queue_->Cancel(77));
  go->set_value();

  const std::string text = PlainText(60000, 2);
  const uint64_t runs = Ingest("tales", {"runs", text})->id;
  while (queue_->Find(runs)->tokens_done == 0) std::this_thread::sleep_for(1ms);
  EXPECT_TRUE(queue_->Cancel(runs));
  EXPECT_EQ(Wait(runs).state, IngestState::kCancelled);
  // What was committed stays, and the same text goes on.
  const uint64_t again = Ingest("tales", {"runs", text})->id;
  const IngestJob ended = Wait(again);
  EXPECT_EQ(ended.state, IngestState::kDone) << ended.status.ToString();
  EXPECT_EQ(ended.report->outcome, IngestReport::Outcome::kResumed);
  EXPECT_EQ(queue_->Ingests().size(), 3u);
  EXPECT_EQ(queue_->Ingests().front().id, again);
}

TEST_F(EngineQueueTest, FailuresAreTheJobsOwn) {
  Start();
  const uint64_t bad = Ingest("../etc", {"a", "text"})->id;
  EXPECT_EQ(Wait(bad).state, IngestState::kFailed);
  EXPECT_EQ(queue_->Find(bad)->status.code(), StatusCode::kInvalidArgument);
  const uint64_t good = Ingest("tales", {"a", "text"})->id;
  EXPECT_EQ(Wait(good).state, IngestState::kDone);
}

TEST_F(EngineQueueTest, RemembersTheLatestThatEnded) {
  Start({.ended_max = 2});
  std::vector<uint64_t> ids;
  for (const char* name : {"a", "b", "c", "d"}) {
    ids.push_back(Ingest("tales", {name, std::string("text ") + name})->id);
    Wait(ids.back());
  }
  EXPECT_FALSE(queue_->Find(ids[0]).has_value());
  EXPECT_FALSE(queue_->Find(ids[1]).has_value());
  EXPECT_TRUE(queue_->Find(ids[2]).has_value());
  EXPECT_TRUE(queue_->Find(ids[3]).has_value());
}

TEST_F(EngineQueueTest, StopAnswersWhatWaitsAndCommitsWhatIsRead) {
  Start();
  const uint64_t runs = Ingest("tales", {"runs", PlainText(60000, 3)})->id;
  while (queue_->Find(runs)->tokens_done == 0) std::this_thread::sleep_for(1ms);
  std::atomic<int> answered{0};
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(AskExclusive(*queue_, [&](Engine&) { ++answered; }).ok());
  queue_->Stop();
  EXPECT_EQ(AskExclusive(*queue_, [](Engine&) {}).code(), StatusCode::kUnavailable);
  EXPECT_EQ(Ingest("tales", {"x", "text"}).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(Wait(runs).state, IngestState::kCancelled);
  queue_.reset();
  EXPECT_EQ(answered, 3);
  const Result<MemoryInfo> info = engine_.Show("tales");
  ASSERT_TRUE(info.ok()) << info.status().ToString();
  EXPECT_GT(info->tokens, 0u);
}

}  // namespace
}  // namespace longhold
