// Uploads on the disk: what is sealed, and what a crash or a stranger's hand leaves of them. The
// routes are api_transfer_test's.
#include "service/server/uploads.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/seal.h"
#include "tests/store/temp_dir.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

class UploadsTest : public testing::TestWithParam<bool> {
 protected:
  UploadsTest()
      : key_(GetParam() ? std::string(kSealKeyBytes, 'k') : std::string()),
        uploads_(home_ / "h", key_) {}

  std::string Read(const Uploads& uploads, const std::string& id) {
    const Result<ByteSource> source = uploads.Open(id, "firm");
    if (!source.ok()) return source.status().ToString();
    std::string text, piece(70001, '\0');
    for (;;) {
      const Result<size_t> n = (*source)(piece);
      if (!n.ok()) return n.status().ToString();
      if (*n == 0) return text;
      text.append(piece, 0, *n);
    }
  }
  // Of the only one there is.
  std::string File() const { return fs::directory_iterator(home_ / "h/uploads")->path(); }
  std::string Bytes() const {
    std::ifstream file(File(), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  TempDir home_;
  const Secret key_;
  Uploads uploads_;
};

INSTANTIATE_TEST_SUITE_P(PlainAndSealed, UploadsTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Sealed" : "Plain"; });

// Parts below, of and above a record, in one process and by another one.
TEST_P(UploadsTest, GivesBackWhatCame) {
  std::string text;
  while (text.size() < 5'000'000) text += "The canary sings " + std::to_string(text.size()) + ".\n";
  const Result<Upload> made = uploads_.Create("firm", text.size());
  ASSERT_TRUE(made.ok());
  uint64_t at = 0;
  for (const size_t bytes :
       {size_t{1}, size_t{0}, size_t{1} << 20, (size_t{2} << 20) + 3, size_t{70000}, text.size()}) {
    EXPECT_EQ(uploads_.Open(made->id, "firm").status().code(), StatusCode::kFailedPrecondition)
        << "not whole";
    Uploads other(home_ / "h", key_);
    Uploads& uploads = bytes % 2 == 0 ? uploads_ : other;
    const Result<Upload> part =
        uploads.Append(made->id, "firm", at, std::string_view(text).substr(at, bytes));
    ASSERT_TRUE(part.ok()) << part.status().ToString();
    at = part->offset;
    EXPECT_EQ(Uploads(home_ / "h", key_).Find(made->id, "firm")->offset, at);
    EXPECT_EQ(uploads_.Find(made->id, "firm")->offset, at);
  }
  EXPECT_TRUE(Read(uploads_, made->id) == text);
  EXPECT_TRUE(Read(Uploads(home_ / "h", key_), made->id) == text);
  EXPECT_EQ(uploads_.Find(made->id, "other").status().code(), StatusCode::kNotFound);
  if (GetParam()) {
    EXPECT_THAT(Bytes(), Not(HasSubstr("canary")));
  }
  EXPECT_TRUE(uploads_.Remove(made->id, "firm").ok());
  EXPECT_TRUE(fs::is_empty(home_ / "h/uploads"));
}

// A machine that lost its power while a part was written.
TEST_P(UploadsTest, GoesOnBehindWhatACrashLeft) {
  const std::string text = "The canary sings in the morning, and in the evening.";
  const std::string id = uploads_.Create("firm", text.size())->id;
  ASSERT_TRUE(uploads_.Append(id, "firm", 0, text.substr(0, 20)).ok());
  const std::string before = Bytes();
  ASSERT_TRUE(uploads_.Append(id, "firm", 20, text.substr(20, 10)).ok());
  const std::string after = Bytes();
  for (size_t end = before.size(); end <= after.size(); ++end) {
    fs::resize_file(File(), end);
    Uploads later(home_ / "h", key_);
    const uint64_t offset = later.Find(id, "firm")->offset;
    EXPECT_EQ(offset, !GetParam() ? end : end == after.size() ? 30u : 20u) << end;
    ASSERT_TRUE(later.Append(id, "firm", offset, text.substr(offset)).ok());
    EXPECT_EQ(Read(later, id), text);
    std::ofstream(File(), std::ios::binary) << after;
  }
}

class SealedUploadsTest : public UploadsTest {};
INSTANTIATE_TEST_SUITE_P(Sealed, SealedUploadsTest, testing::Values(true));

TEST_P(SealedUploadsTest, TellsWhatWasChanged) {
  const std::string text = "The canary sings in the morning, and in the evening.";
  const std::string id = uploads_.Create("firm", text.size())->id;
  ASSERT_TRUE(uploads_.Append(id, "firm", 0, text.substr(0, 20)).ok());
  const size_t first = Bytes().size();
  ASSERT_TRUE(uploads_.Append(id, "firm", 20, text.substr(20)).ok());
  const std::string whole = Bytes();
  const auto read = [&](const std::string& bytes) {
    std::ofstream(File(), std::ios::binary) << bytes;
    return Read(Uploads(home_ / "h", key_), id);
  };
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string changed = whole;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    EXPECT_THAT(read(changed),
                testing::AnyOf(HasSubstr("data_loss"), HasSubstr("failed_precondition")))
        << i;
  }
  EXPECT_THAT(read(whole.substr(first) + whole.substr(0, first)), HasSubstr("data_loss"))
      << "records in another order";
  EXPECT_EQ(read(whole), text);
  EXPECT_THAT(Read(Uploads(home_ / "h", Secret(std::string(kSealKeyBytes, 'x'))), id),
              HasSubstr("data_loss"))
      << "another key";
}

// Whoever can write to the directory could give a file another tenant's name, and that tenant would
// read it.
TEST_P(SealedUploadsTest, IsItsTenantsOnly) {
  const std::string text = "The canary sings in the morning.";
  const std::string id = uploads_.Create("firm", text.size())->id;
  ASSERT_TRUE(uploads_.Append(id, "firm", 0, text).ok());
  const std::string file = File();
  fs::rename(file, file.substr(0, file.size() - 4) + "other");
  const Result<ByteSource> source = uploads_.Open(id, "other");
  ASSERT_TRUE(source.ok()) << source.status().ToString();
  char bytes[100];
  EXPECT_EQ((*source)(bytes).status().code(), StatusCode::kDataLoss);
}

TEST_P(SealedUploadsTest, DoesNotMixWithWhatIsPlain) {
  Uploads plain(home_ / "h");
  const std::string sealed_id = uploads_.Create("firm", 4)->id,
                    plain_id = plain.Create("firm", 4)->id;
  ASSERT_TRUE(uploads_.Append(sealed_id, "firm", 0, "ab").ok());
  ASSERT_TRUE(plain.Append(plain_id, "firm", 0, "ab").ok());
  EXPECT_THAT(plain.Append(sealed_id, "firm", 2, "cd").status().message(),
              HasSubstr("no --encryption-key"));
  EXPECT_THAT(uploads_.Append(plain_id, "firm", 2, "cd").status().message(),
              HasSubstr("without encryption"));
  ASSERT_TRUE(uploads_.Append(sealed_id, "firm", 2, "cd").ok());
  EXPECT_THAT(Read(plain, sealed_id), HasSubstr("no --encryption-key"));
  ASSERT_TRUE(plain.Append(plain_id, "firm", 2, "cd").ok());
  EXPECT_EQ(Read(uploads_, plain_id), "abcd") << "what is whole can be used";
}

}  // namespace
}  // namespace longhold
