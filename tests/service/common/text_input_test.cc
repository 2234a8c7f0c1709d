// Collects texts from small directory trees in a temporary directory. tests/cli tests permissions,
// where the process can drop root.
#include "service/common/text_input.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace longhold {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class TextInput : public testing::Test {
 protected:
  TextInput() {
    std::string name = (fs::temp_directory_path() / "longhold-text-input-XXXXXX").string();
    dir_ = mkdtemp(name.data());
    before_ = fs::current_path();
    fs::current_path(dir_);
  }
  ~TextInput() override {
    fs::current_path(before_);
    fs::remove_all(dir_);
  }
  static void Write(const std::string& path, const std::string& text) {
    if (fs::path(path).has_parent_path()) fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path, std::ios::binary) << text;
  }
  static std::vector<std::string> Names(const TextInputs& inputs) {
    std::vector<std::string> names;
    for (const TextSource& source : inputs.sources) names.push_back(source.name);
    return names;
  }

  fs::path dir_, before_;
};

TEST_F(TextInput, NamesDocumentsByTheGivenPathWithoutDotSlash) {
  EXPECT_EQ(DocumentName("./a.txt"), "a.txt");
  EXPECT_EQ(DocumentName("././a//b.txt"), "a/b.txt");
  EXPECT_EQ(DocumentName("dir/"), "dir");
  EXPECT_EQ(DocumentName("../a.txt"), "../a.txt");
  EXPECT_EQ(DocumentName("/x/y"), "/x/y");
  EXPECT_EQ(DocumentName("."), ".");
}

TEST_F(TextInput, WalksADirectorySortedWithoutHiddenAndBinaryEntries) {
  Write("d/b.txt", "b");
  Write("d/a/z.txt", "z");
  Write("d/a.txt", "a");
  Write("d/.git/config", "hidden");
  Write("d/.hidden", "hidden");
  Write("d/image.png", std::string("\x89PNG\0\0", 6));
  Write("d/latin.txt", "caf\xE9");
  Write("d/empty.txt", "");
  fs::create_directory_symlink("..", "d/loop");
  const Result<TextInputs> inputs = CollectInputs({"./d/"}, -1);
  ASSERT_TRUE(inputs.ok()) << inputs.status().ToString();
  EXPECT_THAT(Names(*inputs), ElementsAre("d/a.txt", "d/a/z.txt", "d/b.txt"));
  EXPECT_THAT(inputs->notes,
              ElementsAre("skipped 2 files: not UTF-8 text (d/image.png, d/latin.txt)",
                          "skipped 1 file: empty (d/empty.txt)"));
  EXPECT_EQ(*ReadText(inputs->sources[1]), "z");
}

TEST_F(TextInput, SkipsWhatIgnoreFilesNameUnlessItIsNamedItselfOrAskedFor) {
  Write("d/.gitignore", "build/\n*.log\n");
  Write("d/.longholdignore", "!keep.log\n");
  Write("d/a.cc", "a");
  Write("d/keep.log", "k");
  Write("d/other.log", "o");
  Write("d/build/out.cc", "b");
  Write("d/sub/.gitignore", "a.cc\n");
  Write("d/sub/a.cc", "not read");
  const Result<TextInputs> inputs = CollectInputs({"d"}, -1);
  ASSERT_TRUE(inputs.ok()) << inputs.status().ToString();
  EXPECT_THAT(Names(*inputs), ElementsAre("d/a.cc", "d/keep.log"));
  EXPECT_THAT(inputs->notes,
              ElementsAre("skipped 3 entries: named by .gitignore or .longholdignore (d/build/, "
                          "d/other.log, d/sub/a.cc)"));
  EXPECT_THAT(Names(*CollectInputs({"d/other.log"}, -1)), ElementsAre("d/other.log"));
  EXPECT_THAT(Names(*CollectInputs({"d"}, -1, {.ignore_rules = false})),
              ElementsAre("d/a.cc", "d/build/out.cc", "d/keep.log", "d/other.log", "d/sub/a.cc"));
  const Status none = CollectInputs({"d/build", "d/sub"}, -1).status();
  EXPECT_EQ(none.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(none.message(), HasSubstr("--no-ignore"));
}

TEST_F(TextInput, WalksTheCurrentDirectoryWithNamesInsideIt) {
  Write("b.txt", "b");
  const Result<TextInputs> inputs = CollectInputs({"."}, -1);
  ASSERT_TRUE(inputs.ok()) << inputs.status().ToString();
  EXPECT_THAT(Names(*inputs), ElementsAre("b.txt"));
}

TEST_F(TextInput, TakesAPathGivenTwiceOnlyOnce) {
  Write("d/a.txt", "a");
  Write("c.txt", "c");
  const Result<TextInputs> inputs = CollectInputs({"c.txt", "d", "./d/a.txt", "./c.txt"}, -1);
  ASSERT_TRUE(inputs.ok());
  EXPECT_THAT(Names(*inputs), ElementsAre("c.txt", "d/a.txt"));
}

TEST_F(TextInput, ReadsStandardInputAndPipesOnce) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  ASSERT_EQ(write(fds[1], "piped", 5), 5);
  close(fds[1]);
  const Result<TextInputs> inputs = CollectInputs({"-", "-"}, fds[0]);
  close(fds[0]);
  ASSERT_TRUE(inputs.ok()) << inputs.status().ToString();
  EXPECT_THAT(Names(*inputs), ElementsAre("stdin"));
  EXPECT_EQ(*ReadText(inputs->sources[0]), "piped");
}

struct BadText {
  std::string text;
  std::string says;
};

TEST_F(TextInput, RefusesAFileThatIsNotTextWithTheReason) {
  const BadText cases[] = {{"", "t.txt: is empty"},
                           {" \n\t", "contains only white space"},
                           {std::string("ab\0c", 4), "binary (byte 2 is zero)"},
                           {"\xFF\xFEh\x01", "UTF-16"},
                           {"0123456789caf\xE9!", "not valid UTF-8 at byte 13 (0xE9)"},
                           {"cut \xE2\x82", "not valid UTF-8 at byte 4 (0xE2)"}};
  for (const BadText& c : cases) {
    Write("t.txt", c.text);
    const Result<TextInputs> inputs = CollectInputs({"t.txt"}, -1);
    ASSERT_FALSE(inputs.ok()) << c.says;
    EXPECT_EQ(inputs.status().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(inputs.status().message(), HasSubstr(c.says));
    EXPECT_THAT(inputs.status().message(), HasSubstr("t.txt"));
  }
}

TEST_F(TextInput, RefusesMissingPathsAndDirectoriesWithoutText) {
  EXPECT_EQ(CollectInputs({"missing.txt"}, -1).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(CollectInputs({""}, -1).status().code(), StatusCode::kNotFound);
  Write("d/image.png", std::string("\0", 1));
  const Status status = CollectInputs({"d"}, -1).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("d: this directory has no text (1 file checked)"));
}

TEST_F(TextInput, ChecksAgainOnRead) {
  Write("a.txt", "good");
  const Result<TextInputs> inputs = CollectInputs({"a.txt"}, -1);
  ASSERT_TRUE(inputs.ok());
  Write("a.txt", "\xFF");
  EXPECT_EQ(ReadText(inputs->sources[0]).status().code(), StatusCode::kInvalidArgument);
  fs::remove("a.txt");
  EXPECT_EQ(ReadText(inputs->sources[0]).status().code(), StatusCode::kNotFound);
}

TEST_F(TextInput, RefusesAFileAboveTheLimitWithoutReadingIt) {
  Write("big.txt", "a");
  fs::resize_file("big.txt", kTextBytesMax + 1);  // sparse
  EXPECT_EQ(CollectInputs({"big.txt"}, -1).status().code(), StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace longhold
