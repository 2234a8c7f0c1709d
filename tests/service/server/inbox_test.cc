// Accepted texts on the disk: kept whole, in their order, told apart from damage; and what the
// queue does with them.
#include "service/server/inbox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "service/server/engine_queue.h"
#include "tests/store/temp_dir.h"
#include "tests/support/engines.h"
#include "tests/support/queue_driver.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

namespace longhold {
namespace {

using std::chrono_literals::operator""ms;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> Names(const std::vector<Inbox::Text>& texts) {
  std::vector<std::string> names;
  for (const Inbox::Text& text : texts) names.push_back(text.memory + "/" + text.input.name);
  return names;
}

TEST(Inbox, KeepsTextsInTheirOrderUntilTheyAreDropped) {
  const TempDir home;
  std::vector<std::string> notes;
  Inbox inbox(home / "h");
  ASSERT_TRUE(*inbox.Take());
  const std::string odd = "Zeile\n\xC3\xBC \"quoted\" \\ {}\n\n";
  ASSERT_TRUE(inbox.Keep(10, "m", {"b", odd}).ok());
  ASSERT_TRUE(inbox.Keep(9, "m", {"a \"x\" \xC3\xBC/1", "first"}).ok());
  ASSERT_TRUE(inbox.Keep(1764219662345, "n", {"c", std::string(3 << 20, 'x')}).ok());
  const std::vector<Inbox::Text> texts = inbox.Load(&notes);
  EXPECT_THAT(Names(texts), ElementsAre("m/a \"x\" \xC3\xBC/1", "m/b", "n/c"));
  EXPECT_EQ(texts[1].input.text, odd);
  EXPECT_EQ(texts[1].id, 10u);
  EXPECT_EQ(texts[2].input.text.size(), size_t{3} << 20);
  inbox.Drop(10);
  inbox.Drop(11);
  EXPECT_THAT(Names(inbox.Load(&notes)), ElementsAre("m/a \"x\" \xC3\xBC/1", "n/c"));
  EXPECT_THAT(notes, IsEmpty());
  EXPECT_EQ(std::filesystem::status(home / "h/inbox").permissions(),
            std::filesystem::perms::owner_all);
}

TEST(Inbox, WithAKeyNothingOfATextCanBeReadOnTheDisk) {
  const TempDir home;
  const Secret key(std::string(32, 'k'));
  std::vector<std::string> notes;
  {
    Inbox inbox(home / "h", key);
    ASSERT_TRUE(*inbox.Take());
    ASSERT_TRUE(inbox.Keep(1, "diary", {"canary.txt", "The canary sings at seven."}).ok());
    EXPECT_THAT(Names(inbox.Load(&notes)), ElementsAre("diary/canary.txt"));
    EXPECT_EQ(inbox.Load(&notes)[0].input.text, "The canary sings at seven.");
  }
  for (const auto& file : std::filesystem::directory_iterator(home / "h/inbox")) {
    std::ifstream stream(file.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(stream)),
                            std::istreambuf_iterator<char>());
    EXPECT_EQ(bytes.find("canary"), std::string::npos) << file.path();
    EXPECT_EQ(bytes.find("diary"), std::string::npos) << file.path();
  }
  EXPECT_THAT(notes, IsEmpty());
  for (const Secret& other : {Secret(), Secret(std::string(32, 'x'))})
    EXPECT_THAT(Inbox(home / "h", other).Load(&notes), IsEmpty());
  ASSERT_EQ(notes.size(), 2u);
  EXPECT_THAT(notes[0], HasSubstr("--encryption-key"));
  EXPECT_THAT(Names(Inbox(home / "h", key).Load(&notes)), ElementsAre("diary/canary.txt"))
      << "it is still there";
}

TEST(Inbox, OneProcessHasIt) {
  const TempDir home;
  auto first = std::make_unique<Inbox>(home / "h");
  ASSERT_TRUE(*first->Take());
  Inbox second(home / "h");
  EXPECT_FALSE(*second.Take());
  first.reset();
  EXPECT_TRUE(*second.Take());
  std::ofstream(home / "file") << "x";
  EXPECT_FALSE(Inbox(home / "file").Take().ok());
}

TEST(Inbox, DamageIsReportedAndNeverReadAsText) {
  const TempDir home;
  Inbox inbox(home / "h");
  ASSERT_TRUE(*inbox.Take());
  ASSERT_TRUE(inbox.Keep(1, "notes", {"a", "The harbour is closed."}).ok());
  const std::string path = home / "h/inbox/00000000000000000001.text";
  std::ifstream in(path, std::ios::binary);
  const std::string good((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto load = [&](const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    std::vector<std::string> notes;
    const std::vector<Inbox::Text> texts = inbox.Load(&notes);
    EXPECT_EQ(texts.size() + notes.size(), 1u);
    for (const std::string& note : notes) EXPECT_THAT(note, HasSubstr(path));
    return texts.size() == 1 && texts[0].memory == "notes" && texts[0].input.name == "a" &&
           texts[0].input.text == "The harbour is closed.";
  };
  EXPECT_TRUE(load(good));
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bytes = good;
    bytes[i] = static_cast<char>(bytes[i] ^ 4);
    EXPECT_FALSE(load(bytes)) << "byte " << i;
    EXPECT_FALSE(load(good.substr(0, i))) << "cut at " << i;
  }
  EXPECT_TRUE(std::filesystem::exists(path)) << "it stays for whoever looks into it";
}

// A try that ends with the process leaves its mark: that is what Begun without Paused stands for.
TEST(Inbox, ATextWhoseReadingEndedTheProcessTwiceIsSetAside) {
  const TempDir home;
  Inbox inbox(home / "h");
  ASSERT_TRUE(*inbox.Take());
  ASSERT_TRUE(inbox.Keep(1, "tales", {"deadly", "x"}).ok());
  ASSERT_TRUE(inbox.Keep(2, "tales", {"long", "x"}).ok());
  ASSERT_TRUE(inbox.Keep(3, "tales", {"stopped", "x"}).ok());
  std::vector<std::string> notes;
  for (int start = 0; start < 2; ++start) {
    ASSERT_THAT(Names(inbox.Load(&notes)),
                ElementsAre("tales/deadly", "tales/long", "tales/stopped"))
        << start;
    for (const uint64_t id : {1, 2, 3}) inbox.Begun(id);
    inbox.Advanced(2);  // it was committed some way, and will be at every start
    inbox.Paused(3);
  }
  EXPECT_THAT(notes, IsEmpty());
  EXPECT_THAT(Names(inbox.Load(&notes)), ElementsAre("tales/long", "tales/stopped"));
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_THAT(notes[0], HasSubstr("00000000000000000001.text.aside"));
  EXPECT_TRUE(std::filesystem::exists(home / "h/inbox/00000000000000000001.text.aside"))
      << "what was acknowledged is not lost";
  EXPECT_THAT(Names(inbox.Load(&notes)), ElementsAre("tales/long", "tales/stopped"));
  EXPECT_EQ(notes.size(), 1u) << "it is told once";
  // A later text under the same id begins with no tries.
  ASSERT_TRUE(inbox.Keep(1, "tales", {"deadly", "x"}).ok());
  EXPECT_THAT(Names(inbox.Load(&notes)),
              ElementsAre("tales/deadly", "tales/long", "tales/stopped"));
}

class InboxQueueTest : public testing::Test {
 protected:
  InboxQueueTest()
      : model_({.geometry = TinyGeometry()}), engine_(home_ / "h"), inbox_(home_ / "h") {
    EXPECT_TRUE(engine_.UseModel(&model_, nullptr).ok());
    EXPECT_TRUE(*inbox_.Take());
  }
  void Start() {
    queue_ = std::make_unique<EngineQueue>(&engine_,
                                           EngineQueueOptions{.inbox = &inbox_, .first_id = 7000});
  }
  Result<IngestJob> Ingest(const std::string& name, const std::string& text) {
    return IngestInto(*queue_, "tales", {name, text});
  }
  IngestState Wait(uint64_t id) {
    for (;;) {
      const IngestState state = queue_->Find(id)->state;
      if (state > IngestState::kRunning) return state;
      std::this_thread::sleep_for(2ms);
    }
  }
  std::vector<std::string> Kept() {
    std::vector<std::string> notes;
    return Names(inbox_.Load(&notes));
  }

  TempDir home_;
  ToyModel model_;
  EngineInHome engine_;
  Inbox inbox_;
  std::unique_ptr<EngineQueue> queue_;
};

TEST_F(InboxQueueTest, WhatWasAcceptedIsReadAfterARestart) {
  Start();
  // A question that waits for all of them to be accepted: none has been read then.
  const auto go = HoldQueue(*queue_);
  const std::string text = PlainText(3000, 1);
  const uint64_t first = Ingest("a", text)->id;
  EXPECT_EQ(first, 7000u);
  const uint64_t second = Ingest("b", "Short.")->id, third = Ingest("c", "Taken back.")->id;
  EXPECT_TRUE(queue_->Cancel(third));
  EXPECT_THAT(Kept(), ElementsAre("tales/a", "tales/b")) << "what was taken back is not read again";
  queue_->Stop();
  go->set_value();
  EXPECT_FALSE(Ingest("d", "Too late.").ok());
  queue_.reset();
  EXPECT_THAT(Kept(), ElementsAre("tales/a", "tales/b"));
  EXPECT_FALSE(engine_.Show("tales").ok());

  Start();
  std::vector<std::string> notes;
  queue_->Resume(inbox_.Load(&notes));
  EXPECT_EQ(Wait(first), IngestState::kDone);
  EXPECT_EQ(Wait(second), IngestState::kDone);
  EXPECT_THAT(Kept(), IsEmpty());
  EXPECT_GT(Ingest("e", "Later.")->id, second) << "ids are not given twice";
  queue_.reset();
  EXPECT_EQ(engine_.Show("tales")->documents[0].name, "a");
}

TEST_F(InboxQueueTest, WhatCannotBeKeptIsNotAccepted) {
  Start();
  std::filesystem::remove_all(home_ / "h/inbox");
  const Result<IngestJob> job = Ingest("a", "Nowhere to keep it.");
  EXPECT_EQ(job.status().code(), StatusCode::kInternal) << job.status().ToString();
  EXPECT_EQ(queue_->ingests(), 0u);
  queue_.reset();
  EXPECT_FALSE(engine_.Show("tales").ok());
}

TEST_F(InboxQueueTest, ATryThatEndsInOrderLeavesNoMark) {
  Start();
  const uint64_t whole = Ingest("a", PlainText(9000, 1))->id, refused = Ingest("b", "")->id;
  EXPECT_EQ(Wait(whole), IngestState::kDone);
  EXPECT_EQ(Wait(refused), IngestState::kFailed);
  queue_.reset();
  std::vector<std::string> left;
  for (const auto& file : std::filesystem::directory_iterator(home_ / "h/inbox"))
    left.push_back(file.path().filename());
  EXPECT_THAT(left, ElementsAre("lock"));
}

// The process has no descriptors left for a while, as when a thousand clients hold connections.
TEST_F(InboxQueueTest, WhatMaySucceedLaterIsTriedAgain) {
  rlimit usual{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &usual), 0);
  rlimit none = usual;
  none.rlim_cur = 3;  // those that are open stay open
  for (const bool freed : {true, false}) {
    queue_ = std::make_unique<EngineQueue>(&engine_,
                                           EngineQueueOptions{.inbox = &inbox_,
                                                              .first_id = 7000,
                                                              .retry_delay = 1ms,
                                                              .retries_max = freed ? 30u : 2u});
    const auto go = HoldQueue(*queue_);
    const uint64_t id = Ingest("second", "A second text, " + std::to_string(freed))->id;
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    go->set_value();
    if (freed) {
      while (queue_->Find(id)->status.ok()) std::this_thread::sleep_for(1ms);
      EXPECT_EQ(queue_->Find(id)->status.code(), StatusCode::kResourceExhausted)
          << queue_->Find(id)->status.ToString();
      ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &usual), 0);
    }
    EXPECT_EQ(Wait(id), freed ? IngestState::kDone : IngestState::kFailed);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &usual), 0);
    if (freed) {
      EXPECT_THAT(Kept(), IsEmpty());
    } else {
      EXPECT_THAT(Kept(), ElementsAre("tales/second")) << "the next start reads it";
    }
    queue_.reset();
  }
}

TEST_F(InboxQueueTest, WhatFailsForGoodIsNotKept) {
  Start();
  const uint64_t id = Ingest("a", "")->id;  // the engine refuses it
  EXPECT_EQ(Wait(id), IngestState::kFailed);
  EXPECT_THAT(Kept(), IsEmpty());
}

}  // namespace
}  // namespace longhold
