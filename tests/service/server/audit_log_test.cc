#include "service/server/audit_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/store/temp_dir.h"

namespace longhold {
namespace {

namespace json = boost::json;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> Lines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

class AuditLogTest : public testing::Test {
 protected:
  std::unique_ptr<AuditLog> Open(const std::string& path) {
    Result<std::unique_ptr<AuditLog>> log =
        AuditLog::Open(path, [this](std::string_view note) { notes_.emplace_back(note); });
    EXPECT_TRUE(log.ok()) << log.status().ToString();
    return std::move(*log);
  }
  TempDir dir_;
  const std::string path_ = dir_ / "audit.log";
  std::vector<std::string> notes_;
};

TEST_F(AuditLogTest, OnlyAddsAndIsItsOwnersAlone) {
  Open(path_)->Write("one");
  const std::unique_ptr<AuditLog> log = Open(path_);
  log->Write("two");
  EXPECT_THAT(Lines(path_), ElementsAre("one", "two"));
  struct stat state;
  ASSERT_EQ(stat(path_.c_str(), &state), 0);
  EXPECT_EQ(state.st_mode & 0777, 0600u);
  EXPECT_EQ(AuditLog::Open(dir_ / "none/audit.log", nullptr).status().code(),
            StatusCode::kInvalidArgument);
}

TEST_F(AuditLogTest, GoesOnInANewFileWhereTheOldOneWasMoved) {
  const std::unique_ptr<AuditLog> log = Open(path_);
  log->Write("one");
  std::filesystem::rename(path_, dir_ / "audit.log.1");
  log->Write("two");
  std::filesystem::remove(path_);
  log->Write("three");
  EXPECT_THAT(Lines(dir_ / "audit.log.1"), ElementsAre("one"));
  EXPECT_THAT(Lines(path_), ElementsAre("three"));
  EXPECT_TRUE(notes_.empty());
}

TEST_F(AuditLogTest, SaysOnceThatItCannotWrite) {
  const std::unique_ptr<AuditLog> log = Open("/dev/full");
  log->Write("one");
  log->Write("two");
  ASSERT_EQ(notes_.size(), 1u);
  EXPECT_THAT(notes_[0], HasSubstr("/dev/full: lines are lost"));
}

TEST_F(AuditLogTest, CountsStrangersInsteadOfWritingThemAll) {
  const std::unique_ptr<AuditLog> log = Open(path_);
  const AuditLog::Clock::time_point start = AuditLog::Clock::now() + std::chrono::hours(1);
  for (uint64_t i = 0; i < AuditLog::kUnauthenticatedMax + 500; ++i)
    log->WriteUnauthenticated("stranger", start + std::chrono::seconds(1));
  log->Write("known", start + std::chrono::seconds(2));
  EXPECT_EQ(Lines(path_).size(), AuditLog::kUnauthenticatedMax + 1)
      << "others are written all the same";
  log->WriteUnauthenticated("stranger", start + std::chrono::seconds(62));
  const std::vector<std::string> lines = Lines(path_);
  ASSERT_EQ(lines.size(), AuditLog::kUnauthenticatedMax + 3);
  const json::value left_out = json::parse(lines[lines.size() - 2]);
  EXPECT_EQ(left_out.at("event"), "left_out");
  EXPECT_EQ(left_out.at("requests"), 500);
}

TEST_F(AuditLogTest, LinesOfManyThreadsStayWhole) {
  const std::unique_ptr<AuditLog> log = Open(path_);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&log, line = std::string(300, static_cast<char>('a' + t))] {
      for (int i = 0; i < 100; ++i) log->Write(line);
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::vector<std::string> lines = Lines(path_);
  ASSERT_EQ(lines.size(), 400u);
  for (const std::string& line : lines) EXPECT_EQ(line, std::string(300, line[0]));
}

}  // namespace
}  // namespace longhold
