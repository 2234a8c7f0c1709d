// Which entries of a directory tree its owner does not want to be read: the rules of .gitignore,
// .git/info/exclude and .longholdignore.
//
// Syntax and meaning are those of https://git-scm.com/docs/gitignore, and tests compare them with
// git. What differs from git: the user's global core.excludesFile is not read, and a file that git
// tracks in spite of a rule is ignored all the same, because the index is not read.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace longhold {

// Of a longer file only the whole lines before the limit count.
inline constexpr size_t kIgnoreFileBytesMax = 1 << 20;
// Of one line; Linux's PATH_MAX. Longer lines are skipped.
inline constexpr size_t kIgnorePatternBytesMax = 4096;
// In force in one directory. Patterns that are read after them do not count.
inline constexpr size_t kIgnorePatternsMax = 65'536;

// One line of an ignore file. Value type; thread use: *immutable*.
class IgnorePattern {
 public:
  // Parses a line without its line feed. Returns nullopt for a line that can match nothing: it is
  // blank, a comment, malformed or longer than kIgnorePatternBytesMax.
  static std::optional<IgnorePattern> Parse(std::string_view line);

  // True for a line with "!": what it matches is kept.
  bool negated() const { return negated_; }

  // Whether the line matches `path`, which is relative to the directory of the ignore file, has
  // neither "./" nor a trailing slash, and may be any bytes. What lies in a matched directory is no
  // match itself. Takes time O(pattern bytes * path bytes), whatever the pattern.
  bool Matches(std::string_view path, bool is_directory) const;

 private:
  std::string glob_;  // without "!", leading and trailing slash
  bool negated_ = false;
  bool directory_only_ = false;  // the line ends in a slash
  bool anchored_ = false;        // matches the whole path; otherwise only its last component
};

// Parses the text of an ignore file, with LF or CRLF, with or without a byte order mark. Keeps the
// order of the lines, of which the first `patterns_max` count.
std::vector<IgnorePattern> ParseIgnoreText(std::string_view text, size_t patterns_max);

// The rules in force in one directory. They come from this directory and from those above it. A
// walker makes one with Open, asks it about each entry, and makes another with Enter for each
// directory that it goes into:
//
//   void Walk(const IgnoreRules& rules, ...) {
//     for (entry : ...) {
//       if (rules.Ignores(entry.name, entry.is_directory)) continue;
//       if (entry.is_directory) Walk(rules.Enter(entry.name), ...);
//     }
//   }
//
// The last pattern that matches decides. Patterns count from weak to strong: those of
// .git/info/exclude, of .gitignore, of .longholdignore, then those of the next deeper directory. A
// directory with ".git" is the root of a work tree: patterns of .gitignore from above it do not
// hold in it, but those of .longholdignore do. A .gitignore outside of any work tree counts too.
//
// A file in an ignored directory cannot be kept by "!", because a walker does not go in there.
//
// Files that cannot be read, and symbolic links in place of .gitignore or .longholdignore, are
// skipped. Where ".git" is a file (a submodule, a linked work tree), info/exclude is not read.
//
// Value type, cheap to copy; it may outlive the one that it was made from. Thread use:
// *immutable*.
class IgnoreRules {
 public:
  // The rules in `dir`. If it lies in a work tree, the directories above it count, up to the root.
  // The rules say nothing about `dir` itself: the user named it, so that it is read even when its
  // parent ignores it.
  static IgnoreRules Open(const std::string& dir);

  // The rules in the subdirectory `name` of this directory. Reads its ignore files.
  IgnoreRules Enter(std::string_view name) const;

  // Whether the entry `name` of this directory is ignored. `is_directory` is false for a symbolic
  // link to a directory, as in git.
  bool Ignores(std::string_view name, bool is_directory) const;

 private:
  // What the ignore files of one directory say.
  struct Level {
    // Shared: each subdirectory's rules refer to it, and may outlive the walk of this directory.
    std::shared_ptr<const Level> above;  // the next directory above that has rules
    size_t dir_bytes = 0;                // of the directory's path, which `dir_` begins with
    bool work_tree_root = false;
    std::vector<IgnorePattern> git, longhold;
  };

  explicit IgnoreRules(std::string dir) : dir_(std::move(dir)) {}
  void ReadLevel();

  std::string dir_;                     // path of the directory, with a trailing slash
  std::shared_ptr<const Level> level_;  // of the deepest directory that has rules; may be null
  size_t pattern_count_ = 0;            // of all levels
};

}  // namespace longhold
