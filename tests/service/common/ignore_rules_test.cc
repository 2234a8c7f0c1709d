// Tables of single patterns, then small directory trees in a temporary directory. The last tests
// compare with git itself: random patterns on a fixed tree of names that the patterns can hit. What
// git ignores must be what a walk ignores, without a tolerance.
#include "service/common/ignore_rules.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>

namespace longhold {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;

// What one ignore file says of a path in its directory. A trailing slash marks a directory.
bool Ignored(std::string_view text, std::string_view path) {
  const bool is_directory = path.ends_with('/');
  if (is_directory) path.remove_suffix(1);
  bool ignored = false;
  for (const IgnorePattern& pattern : ParseIgnoreText(text, kIgnorePatternsMax)) {
    if (pattern.Matches(path, is_directory)) ignored = !pattern.negated();
  }
  return ignored;
}

struct Case {
  std::string_view text;
  std::vector<std::string_view> ignored, kept;
};

void Check(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    for (const std::string_view path : c.ignored)
      EXPECT_TRUE(Ignored(c.text, path)) << "'" << c.text << "' ignores '" << path << "'";
    for (const std::string_view path : c.kept)
      EXPECT_FALSE(Ignored(c.text, path)) << "'" << c.text << "' keeps '" << path << "'";
  }
}

TEST(IgnorePattern, BlankLinesAndCommentsMatchNothing) {
  Check({{"\n\n  \n# a\n#a", {}, {"a", " a", "# a", "#a", " ", "  "}},
         {"\\#a", {"#a"}, {"\\#a", "a"}},
         {" #a", {" #a"}, {"#a"}},
         {"/\n!/\n//\n!", {}, {"a", "a/", "!"}},
         {"\xEF\xBB\xBF"
          "a\nb\n\xEF\xBB\xBF+",
          {"a", "b", "\xEF\xBB\xBF+"},
          {"+"}}});
}

TEST(IgnorePattern, LinesEndInLfOrCrlfOrTheFile) {
  Check({{"a\r\nb\nc", {"a", "b", "c"}, {"a\r"}},
         {"a\r", {"a"}, {"a\r"}},
         {"a\rb", {"a\rb"}, {"a", "b"}},
         {std::string_view("a\0b\nc", 5), {"a", "c"}, {"b"}}});  // as git, which reads C strings
}

TEST(IgnorePattern, TrailingSpacesCountOnlyBehindABackslash) {
  Check({{"a  ", {"a"}, {"a ", "a  "}},
         {"a\\ ", {"a "}, {"a", "a\\"}},
         {"a\\  ", {"a "}, {"a", "a  "}},
         {"a \\ ", {"a  "}, {"a", "a "}},
         {"a\\\\ ", {"a\\"}, {"a", "a\\ "}},
         {"a b ", {"a b"}, {"a"}},
         {"a\t", {"a\t"}, {"a"}}});
}

TEST(IgnorePattern, ExclamationMarkKeepsAndTheLastMatchDecides) {
  Check({{"*.o\n!a.o", {"b.o"}, {"a.o"}},
         {"!a.o\n*.o", {"a.o", "b.o"}, {}},
         {"*\n!*/\n!*.md", {"a", "x/b.c"}, {"x/", "x/y/", "x/a.md"}},
         {"\\!a", {"!a"}, {"a", "\\!a"}},
         {"!!a\na", {"a"}, {"!a"}},
         {"?a\n!!a", {"xa"}, {"!a"}}});
}

TEST(IgnorePattern, MatchesTheNameAtAnyDepthUnlessASlashAnchorsIt) {
  Check({{"a", {"a", "a/", "x/a", "x/y/a"}, {"a/x", "ab", "ba"}},
         {"/a", {"a", "a/"}, {"x/a", "x/a/"}},
         {"a/b", {"a/b", "a/b/"}, {"x/a/b", "a", "b", "a/b/c"}},
         {"/a/b", {"a/b"}, {"x/a/b"}},
         {"//a", {}, {"a", "x/a"}},
         {"a//b", {}, {"a/b"}}});
}

TEST(IgnorePattern, TrailingSlashMatchesDirectoriesOnly) {
  Check({{"a/", {"a/", "x/a/"}, {"a", "x/a", "a/x"}},
         {"/a/", {"a/"}, {"a", "x/a/"}},
         {"a/b/", {"a/b/"}, {"a/b", "x/a/b/"}},
         {"a//", {}, {"a/", "a"}},
         {"a\\/", {}, {"a/", "a"}}});
}

TEST(IgnorePattern, StarAndQuestionMarkStopAtASlash) {
  Check({{"*.o", {"a.o", ".o", "x/a.o"}, {"a.oo", "a.o/x"}},
         {"a*b*c", {"abc", "aXbYc", "abbc", "abcbc"}, {"ab", "acb", "abcd"}},
         {"*", {"a", "a/", "x/a"}, {}},
         {"a/*", {"a/b", "a/b/"}, {"a", "a/", "a/b/c"}},
         {"a/*/c", {"a/b/c"}, {"a/c", "a/b/b/c"}},
         {"x/a*c", {"x/ac", "x/abc"}, {"x/a/c"}},
         {"?", {"a", "x/b"}, {"ab"}},
         {"x/a?c", {"x/abc"}, {"x/ac", "x/a/c"}},
         {"a?", {"a\xE9"}, {"a\xC3\xA9"}},  // bytes, as in git
         {"\\*", {"*"}, {"a", "\\*"}},
         {"\\a\\?", {"a?"}, {"ab"}}});
}

TEST(IgnorePattern, TwoStarsBetweenSlashesMatchAnyNumberOfDirectories) {
  Check({{"**/a", {"a", "x/a", "x/y/a"}, {"xa", "a/x"}},
         {"**/a/b", {"a/b", "x/y/a/b"}, {"a/x/b", "b"}},
         {"a/**", {"a/b", "a/b/c"}, {"a", "a/", "x/a/b"}},
         {"/**", {"a", "a/b"}, {}},
         {"a/**/b", {"a/b", "a/x/b", "a/x/y/b"}, {"ab", "a/xb", "a/b/x", "x/a/b"}},
         {"a/**/**/b", {"a/b", "a/x/b"}, {"a/xb"}},
         {"a/*/**/x/c", {"a/b/x/c"}, {"a/x/c"}},
         {"a/***/b", {"a/b", "a/x/y/b"}, {}},
         {"**/a/**/b*/**/c", {"a/b/c", "x/a/y/bb/z/c", "a/b/a/b/b/c"}, {"a/c", "b/a/c"}},
         {"**", {"a", "x/a"}, {}},
         {"a/**/", {"a/b/", "a/b/c/"}, {"a/", "a/b"}}});
}

TEST(IgnorePattern, OtherRunsOfStarsAreOneStar) {
  Check({{"a**", {"a", "ab"}, {"ba"}},
         {"x/a**", {"x/ab"}, {"x/a/b"}},
         {"x/**a", {"x/a", "x/ba"}, {"x/y/a"}},
         {"x/a**/b", {"x/a/b", "x/ac/b"}, {"x/a/c/b"}}});
}

TEST(IgnorePattern, SetsHaveRangesEscapesClassesAndNegation) {
  Check({{"[abc]", {"a", "c"}, {"d", "abc", "[abc]"}},
         {"[a-cx]", {"b", "x"}, {"d", "-"}},
         {"[!a-c]", {"d"}, {"a", "b"}},
         {"[^a-c]", {"d", "^"}, {"a"}},
         {"[a^]", {"a", "^"}, {"b"}},
         {"[]a]", {"]", "a"}, {"b"}},
         {"[!]a]", {"b"}, {"]", "a"}},
         {"[a-]", {"a", "-"}, {"b"}},
         {"[-a]", {"a", "-"}, {"b"}},
         {"[a-c-e]", {"b", "-", "e"}, {"d"}},
         {"[c-a]", {"c"}, {"a", "b"}},
         {"[\\]\\-a]", {"]", "-", "a"}, {"\\"}},
         {"[+-\\-]", {"+", ",", "-"}, {"\\"}},
         {"[[:digit:][:upper:]_]", {"1", "A", "_"}, {"a", ":"}},
         {"[![:alpha:]]", {"1"}, {"a"}},
         {"[[:digit]", {":", "["}, {"1"}},
         {"[[:]x", {":x", "[x"}, {"x"}},
         {"[A-[:x]", {"[", "B", ":", "x"}, {"a", "-"}},
         {"[\x80-\xFF]", {"\xE9", "\xFF"}, {"a"}},
         {"x/[!a]y", {"x/by"}, {"x//y", "x/ay"}},
         {"x[/]y", {}, {"x/y", "xy"}},
         {"[x/]y", {"xy"}, {"a/xy", "/y"}}});
}

TEST(IgnorePattern, AMalformedLineMatchesNothing) {
  Check({{"[ab", {}, {"a", "[ab"}},
         {"[", {}, {"["}},
         {"[]", {}, {"]", "[]"}},
         {"[!]", {}, {"a", "!"}},
         {"[[:none:]]", {}, {"a", ":"}},
         {"[[:digit:]", {}, {"1"}},
         {"a\\", {}, {"a", "a\\"}},
         {"[a\\", {}, {"a"}},
         {"[a-\\", {}, {"a"}},
         {"*\n![ab", {"a"}, {}}});
}

TEST(IgnorePattern, ALineAboveTheLimitMatchesNothing) {
  const std::string name(kIgnorePatternBytesMax, 'a');
  EXPECT_TRUE(IgnorePattern::Parse(name));
  EXPECT_FALSE(IgnorePattern::Parse(name + "a"));
  EXPECT_EQ(ParseIgnoreText("a\n#\nb\nc\n", 2).size(), 2u);
}

// A matcher that tries all combinations would need longer than the universe is old.
TEST(IgnorePattern, HostilePatternsTakeNoExponentialTime) {
  const auto repeat = [](std::string_view s, size_t count) {
    std::string text;
    for (size_t i = 0; i < count; ++i) text += s;
    return text;
  };
  const auto start = std::chrono::steady_clock::now();
  Check({{repeat("a*", 1000) + "b", {}, {repeat("a", 4000)}},
         {repeat("*[a]", 1000) + "b", {}, {repeat("a", 4000)}},
         {repeat("**/", 1000) + "b", {}, {repeat("a/", 2000) + "a"}},
         {repeat("**/a*/", 500) + "b", {}, {repeat("aa/", 1300) + "a"}},
         {"*" + repeat("a", 2000) + "b", {}, {repeat("a", 4000)}},
         {"**/" + repeat("a*/", 1000) + "b", {}, {repeat("aa/", 1300) + "a"}},
         {repeat("*?", 1000), {repeat("a", 4000)}, {repeat("a", 999)}},
         {repeat("**/*a*/", 500) + "b", {}, {repeat("aa/", 1300) + "a"}}});
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

class IgnoreRulesTest : public testing::Test {
 protected:
  IgnoreRulesTest() {
    std::string name = (fs::temp_directory_path() / "longhold-ignore-rules-XXXXXX").string();
    dir_ = mkdtemp(name.data());
  }
  ~IgnoreRulesTest() override { fs::remove_all(dir_); }

  void Write(const std::string& path, const std::string& text) {
    fs::create_directories((dir_ / path).parent_path());
    std::ofstream(dir_ / path, std::ios::binary) << text;
  }
  void Touch(const std::vector<std::string>& paths) {
    for (const std::string& path : paths) Write(path, "text");
  }

  // The regular files that a walk of `dir` keeps, hidden ones apart, as sorted relative paths.
  std::vector<std::string> Kept(const std::string& dir) const {
    std::vector<std::string> kept;
    Walk(IgnoreRules::Open((dir_ / dir).string()), dir_ / dir, "", false,
         [&](const std::string& path, bool ignored) {
           const bool hidden = path.starts_with('.') || path.find("/.") != path.npos;
           if (!ignored && !hidden && fs::is_regular_file(dir_ / dir / path)) kept.push_back(path);
         });
    std::sort(kept.begin(), kept.end());
    return kept;
  }

  // Calls visit(path, ignored) for each entry below `dir`. Goes into ignored directories, without
  // their rules, to report what is in them as ignored.
  template <typename Visit>
  static void Walk(const IgnoreRules& rules, const fs::path& dir, const std::string& prefix,
                   bool all_ignored, const Visit& visit) {
    for (const auto& entry : fs::directory_iterator(dir)) {
      const std::string name = entry.path().filename().string();
      if (name == ".git") continue;
      const bool is_directory = entry.is_directory() && !entry.is_symlink();
      const bool ignored = all_ignored || rules.Ignores(name, is_directory);
      visit(prefix + name, ignored);
      if (is_directory) {
        Walk(ignored ? rules : rules.Enter(name), entry.path(), prefix + name + "/", ignored,
             visit);
      }
    }
  }

  fs::path dir_;
};

TEST_F(IgnoreRulesTest, WithoutFilesNothingIsIgnored) {
  Touch({"d/a", "d/x/b"});
  EXPECT_THAT(Kept("d"), ElementsAre("a", "x/b"));
  EXPECT_THAT(Kept("d/"), ElementsAre("a", "x/b"));
  EXPECT_FALSE(IgnoreRules::Open((dir_ / "missing").string()).Ignores("a", false));
  EXPECT_FALSE(IgnoreRules::Open("").Ignores("a", false));
}

TEST_F(IgnoreRulesTest, PatternsHoldInTheirDirectoryAndBelow) {
  Touch({"d/a", "d/x/a", "d/x/y/a", "d/x/y/b", "d/y/b", "d/xb/y/b"});
  Write("d/x/.gitignore", "a\n/y/b\n");
  EXPECT_THAT(Kept("d"), ElementsAre("a", "xb/y/b", "y/b"));
}

TEST_F(IgnoreRulesTest, DeeperFilesWin) {
  Touch({"d/a.o", "d/x/a.o", "d/x/y/a.o", "d/x/y/a.c"});
  Write("d/.gitignore", "*.o\n");
  Write("d/x/.gitignore", "!*.o\n");
  Write("d/x/y/.gitignore", "a.*\n");
  EXPECT_THAT(Kept("d"), ElementsAre("x/a.o"));
}

TEST_F(IgnoreRulesTest, NothingInAnIgnoredDirectoryIsKept) {
  Touch({"d/x/a", "d/y/a"});
  Write("d/.gitignore", "x/\n!x/a\ny/*\n!y/a\n");
  Write("d/x/.gitignore", "!*\n");
  EXPECT_THAT(Kept("d"), ElementsAre("y/a"));
}

TEST_F(IgnoreRulesTest, LongholdignoreWinsOverGitignoreBesideIt) {
  Touch({"d/a", "d/b", "d/c", "d/x/a", "d/x/b"});
  Write("d/.gitignore", "a\n");
  Write("d/.longholdignore", "!a\nb\n");
  Write("d/x/.gitignore", "!b\na\n");
  EXPECT_THAT(Kept("d"), ElementsAre("a", "c", "x/b"));
}

TEST_F(IgnoreRulesTest, InfoExcludeIsTheWeakest) {
  Touch({"d/a", "d/b", "d/c", "d/x/c"});
  Write("d/.git/info/exclude", "a\nb\n/c\n");
  Write("d/.gitignore", "!b\n");
  EXPECT_THAT(Kept("d"), ElementsAre("b", "x/c"));
}

TEST_F(IgnoreRulesTest, DirectoriesAboveCountUpToTheRootOfTheWorkTree) {
  Touch({"w/x/d/a", "w/x/d/b", "w/x/d/c", "w/x/d/e", "w/x/d/f"});
  Write(".gitignore", "a\n");
  Write(".longholdignore", "a\n");
  Write("w/.git/info/exclude", "b\n");
  Write("w/.gitignore", "/x/d/c\n/d/f\n");
  Write("w/x/.longholdignore", "/d/e\n/e\n");
  EXPECT_THAT(Kept("w/x/d"), ElementsAre("a", "f"));
  fs::create_directory_symlink(dir_ / "w/x/d", dir_ / "link");
  EXPECT_THAT(Kept("link"), ElementsAre("a", "f"));
}

TEST_F(IgnoreRulesTest, DirectoriesAboveDoNotCountOutsideOfAWorkTree) {
  Touch({"x/d/a"});
  Write("x/.gitignore", "a\n");
  Write("x/.longholdignore", "a\n");
  EXPECT_THAT(Kept("x/d"), ElementsAre("a"));
}

TEST_F(IgnoreRulesTest, TheNamedDirectoryIsReadEvenWhenItIsIgnored) {
  Touch({"w/build/a", "w/build/b"});
  Write("w/.git/HEAD", "");
  Write("w/.gitignore", "build/\nb\n");
  EXPECT_THAT(Kept("w"), IsEmpty());
  EXPECT_THAT(Kept("w/build"), ElementsAre("a"));
}

TEST_F(IgnoreRulesTest, AWorkTreeInsideEndsGitignoreButNotLongholdignore) {
  Touch({"d/a", "d/b", "d/w/a", "d/w/b", "d/w/c", "d/w/x/a"});
  Write("d/.gitignore", "a\n");
  Write("d/.longholdignore", "b\n");
  Write("d/w/.git", "gitdir: elsewhere\n");
  Write("d/w/.gitignore", "c\n");
  EXPECT_THAT(Kept("d"), ElementsAre("w/a", "w/x/a"));
}

TEST_F(IgnoreRulesTest, UnreadableFilesAreSkipped) {
  Touch({"d/a", "d/x/a", "d/y/a", "d/z/a"});
  Write("rules", "a\n");
  fs::create_directories(dir_ / "d/.gitignore");
  fs::create_symlink(dir_ / "rules", dir_ / "d/x/.gitignore");
  fs::create_symlink(dir_ / "rules", dir_ / "d/x/.longholdignore");
  ASSERT_EQ(mkfifo((dir_ / "d/y/.gitignore").c_str(), 0600), 0);
  fs::create_symlink("nowhere", dir_ / "d/z/.gitignore");
  EXPECT_THAT(Kept("d"), ElementsAre("a", "x/a", "y/a", "z/a"));
}

TEST_F(IgnoreRulesTest, OnlyWholeLinesBeforeTheLimitCount) {
  Touch({"d/a", "d/b", "d/bb", "d/c"});
  const std::string filler = "#" + std::string(kIgnoreFileBytesMax - 5, '-');
  Write("d/.gitignore", "a\n" + filler + "\nb");
  EXPECT_EQ(fs::file_size(dir_ / "d/.gitignore"), kIgnoreFileBytesMax);
  EXPECT_THAT(Kept("d"), ElementsAre("bb", "c"));
  Write("d/.gitignore", "a\n" + filler + "\nbb\nc\n");
  EXPECT_THAT(Kept("d"), ElementsAre("b", "bb", "c"));
  Write("d/.gitignore", std::string(kIgnoreFileBytesMax, '#') + "\na\n");
  EXPECT_THAT(Kept("d"), ElementsAre("a", "b", "bb", "c"));
}

TEST_F(IgnoreRulesTest, AtMostTheGivenNumberOfPatternsIsInForce) {
  Touch({"d/a", "d/x/b", "d/y/b"});
  std::string text;
  for (size_t i = 1; i < kIgnorePatternsMax; ++i) text += "no\n";
  Write("d/.gitignore", text);
  Write("d/x/.gitignore", "b\na\n");
  Write("d/y/.gitignore", "a\nb\n");
  EXPECT_THAT(Kept("d"), ElementsAre("a", "y/b"));
}

TEST_F(IgnoreRulesTest, OutlivesTheRulesItWasMadeFrom) {
  Write("d/.gitignore", "x/y/a\n");
  IgnoreRules rules = IgnoreRules::Open((dir_ / "d").string());
  rules = rules.Enter("x");
  rules = rules.Enter("y");
  EXPECT_TRUE(rules.Ignores("a", false));
  EXPECT_FALSE(rules.Ignores("b", false));
}

// Compares with git on random patterns.
class IgnoreRulesAgainstGit : public IgnoreRulesTest {
 protected:
  // Runs git in `dir_`/w with only this test's configuration. False: no git, or it failed.
  bool Git(const std::vector<std::string>& args, const std::string& in, const std::string& out) {
    std::vector<std::string> words{"git", "-C", (dir_ / "w").string(), "-c", "core.excludesFile="};
    words.insert(words.end(), args.begin(), args.end());
    std::vector<std::string> variables{"HOME=" + dir_.string(), "XDG_CONFIG_HOME=" + dir_.string(),
                                       "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C"};
    if (const char* path = std::getenv("PATH")) variables.push_back(std::string("PATH=") + path);
    const auto pointers = [](std::vector<std::string>& strings) {
      std::vector<char*> result;
      for (std::string& s : strings) result.push_back(s.data());
      result.push_back(nullptr);
      return result;
    };
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, in.c_str(), O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pid_t pid = 0;
    const int error = posix_spawnp(&pid, "git", &actions, nullptr, pointers(words).data(),
                                   pointers(variables).data());
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) return false;
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) <= 1;  // check-ignore: 1 if none is ignored
  }

  // Asks git about `paths_`. Path -> whether git ignores it.
  std::map<std::string, bool> GitAnswers() {
    std::string in;
    for (const std::string& path : paths_) in += path + '\0';
    Write("in", in);
    const std::string out = (dir_ / "out").string();
    if (!Git({"check-ignore", "--stdin", "-z", "-v", "-n", "--no-index"}, (dir_ / "in").string(),
             out))
      return {};
    // Four fields for each path: file, line, pattern, path. No pattern: nothing matches.
    std::map<std::string, bool> answers;
    std::ifstream file(out, std::ios::binary);
    for (std::string source, line, pattern, path;
         std::getline(file, source, '\0') && std::getline(file, line, '\0') &&
         std::getline(file, pattern, '\0') && std::getline(file, path, '\0');)
      answers[path] = !pattern.empty() && !pattern.starts_with('!');
    return answers;
  }

  std::map<std::string, bool> OurAnswers() const {
    std::map<std::string, bool> answers;
    Walk(IgnoreRules::Open((dir_ / "w").string()), dir_ / "w", "", false,
         [&](const std::string& path, bool ignored) { answers[path] = ignored; });
    for (auto it = answers.begin(); it != answers.end();)
      it = paths_.count(it->first) > 0 ? std::next(it) : answers.erase(it);
    return answers;
  }

  size_t Below(size_t n) { return static_cast<size_t>(random_() % n); }
  template <typename T>
  const T& Pick(const std::vector<T>& from) {
    return from[Below(from.size())];
  }

  // Creates about 150 entries, up to four directories deep.
  void MakeTree(const std::string& dir, int depth) {
    static const std::vector<std::string> kNames = {
        "a",   "b",  "ab", "abc", "a.c",  "a.o",  "foo",  "foo.o",       "bar",
        "x y", "a ", "#a", "!a",  "[a]",  "a]",   "-",    "\\",          "a*",
        "?",   "A",  "B1", "7",   "\xE9", "\xFF", "a\\b", "caf\xC3\xA9", "build"};
    const size_t count = depth == 0 ? 14 : 3 + Below(4);
    for (size_t i = 0; i < count; ++i) {
      const std::string path = dir + Pick(kNames);
      if (!paths_.insert(path).second) continue;
      if (depth < 4 && Below(5) < 3) {
        fs::create_directories(dir_ / "w" / path);
        dirs_.push_back(path + "/");
        if (paths_.size() < 150) MakeTree(path + "/", depth + 1);
      } else {
        Touch({"w/" + path});
      }
    }
  }

  // Half of the patterns are paths of the tree with a few changes, the others any signs.
  std::string RandomPattern() {
    static const std::vector<std::string> kAny = {
        "a",     "b",       "c",    "o",           "foo",         "*",
        "*",     "**",      "/",    "/",           "?",           "/**",
        "**/",   "/**/",    "[",    "]",           "[ab]",        "[!a]",
        "[a-c]", "[^a-z.]", "\\",   "-",           " ",           "\\ ",
        ".",     "!",       "#",    "[]a]",        "[[:alpha:]]", "[[:upper:]0-9]",
        "*/",    "a/",      "\xE9", "[\x80-\xFF]", "[\\",         "[/]",
        "***"};
    std::string pattern;
    if (Below(2) == 0) {
      for (size_t i = 1 + Below(5); i > 0; --i) pattern += Pick(kAny);
    } else {
      const std::string path = *std::next(paths_.begin(), static_cast<long>(Below(paths_.size())));
      const size_t slash = Below(2) == 0 ? path.rfind('/') : path.npos;
      for (const char c : path.substr(slash == path.npos ? 0 : slash + Below(2))) {
        const size_t choice = Below(24);
        if (choice == 0) pattern += '?';
        if (choice == 1 || choice == 2) pattern += '*';
        if (choice == 3) pattern += std::string("[") + c + "x]";
        if (choice == 4) pattern += std::string("[!x") + c + "]";
        if (choice == 5) pattern += std::string("\\") + c;
        if (choice == 6 && c == '/') pattern += "/**/";
        if (choice == 7) pattern += "**";
        if (choice > 7 || (choice == 6 && c != '/') || choice == 2) pattern += c;
      }
      if (Below(4) == 0) pattern += Below(2) == 0 ? "/" : "/**";
      if (Below(6) == 0) pattern = "**/" + pattern;
    }
    // Where git does something else than its documentation says, no pattern goes: "**\/", which
    // requires a directory, and "x**/" behind "y/", which before git 2.52 matched like "**/".
    for (size_t at = 0; (at = pattern.find("\\/", at)) != pattern.npos;) pattern.erase(at, 1);
    for (size_t at = 1; at + 1 < pattern.size();) {
      const bool run = pattern[at] == '*' && pattern[at + 1] == '*' && pattern[at - 1] != '/';
      if (run) pattern.erase(at, 1);
      if (!run) ++at;
    }
    return (Below(4) == 0 ? "!" : "") + pattern;
  }

  std::string RandomText() {
    std::string text;
    for (size_t i = 1 + Below(6); i > 0; --i)
      text += RandomPattern() + (Below(10) == 0 ? " " : "") + (Below(10) == 0 ? "\r\n" : "\n");
    if (Below(8) == 0) text.pop_back();
    return text;
  }

  std::mt19937_64 random_{20240607};
  std::set<std::string> paths_;
  std::vector<std::string> dirs_;
};

TEST_F(IgnoreRulesAgainstGit, IgnoresWhatGitIgnores) {
  fs::create_directories(dir_ / "w");
  if (!Git({"init", "-q"}, "/dev/null", (dir_ / "out").string())) GTEST_SKIP() << "git is missing";
  MakeTree("", 0);
  size_t ignored_count = 0, count = 0;
  for (int round = 0; round < 100; ++round) {
    std::map<std::string, std::string> files;
    if (Below(3) != 0) files["w/.gitignore"] = RandomText();
    if (Below(4) == 0) files["w/.git/info/exclude"] = RandomText();
    for (size_t i = Below(3); i > 0; --i) files["w/" + Pick(dirs_) + ".gitignore"] = RandomText();
    std::string shown;
    for (const auto& [path, text] : files) {
      Write(path, text);
      shown += "--- " + path + "\n" + text;
    }
    const std::map<std::string, bool> expected = GitAnswers();
    ASSERT_EQ(expected.size(), paths_.size()) << "round " << round << "\n" << shown;
    ASSERT_EQ(OurAnswers(), expected) << "round " << round << "\n" << shown;
    // The second half of a file means the same in .longholdignore.
    for (const auto& [path, text] : files) {
      const size_t half = text.find('\n', text.size() / 2);
      if (!path.ends_with(".gitignore") || half == text.npos) continue;
      Write(path, text.substr(0, half + 1));
      Write(fs::path(path).replace_filename(".longholdignore").string(), text.substr(half + 1));
    }
    ASSERT_EQ(OurAnswers(), expected) << ".longholdignore, round " << round << "\n" << shown;
    for (const auto& [path, text] : files) {
      fs::remove(dir_ / path);
      fs::remove((dir_ / path).replace_filename(".longholdignore"));
    }
    for (const auto& [path, ignored] : expected) ignored_count += ignored ? 1 : 0;
    count += expected.size();
  }
  // The comparison is worth something only while patterns match some paths and not all.
  EXPECT_GT(ignored_count, count / 10);
  EXPECT_LT(ignored_count, count * 9 / 10);
}

}  // namespace
}  // namespace longhold
