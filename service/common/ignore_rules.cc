#include "service/common/ignore_rules.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/file_descriptor.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

constexpr size_t kNone = std::string_view::npos;

bool IsBetween(unsigned char c, char first, char last) { return c >= first && c <= last; }

// Whether `c` is in the POSIX class `name`, which is ASCII in every locale. nullopt: no such class.
std::optional<bool> InClass(std::string_view name, unsigned char c) {
  const bool digit = IsBetween(c, '0', '9');
  const bool lower = IsBetween(c, 'a', 'z'), upper = IsBetween(c, 'A', 'Z');
  const bool graph = IsBetween(c, '!', '~');
  if (name == "alnum") return digit || lower || upper;
  if (name == "alpha") return lower || upper;
  if (name == "blank") return c == ' ' || c == '\t';
  if (name == "cntrl") return c < ' ' || c == 0x7F;
  if (name == "digit") return digit;
  if (name == "graph") return graph;
  if (name == "lower") return lower;
  if (name == "print") return graph || c == ' ';
  if (name == "punct") return graph && !digit && !lower && !upper;
  if (name == "space") return c == ' ' || c == '\t' || c == '\n' || c == '\r';  // git's four
  if (name == "upper") return upper;
  if (name == "xdigit") return digit || IsBetween(c, 'a', 'f') || IsBetween(c, 'A', 'F');
  return std::nullopt;
}

// Matches `c` with the set at `*at`, which is behind its "[", and moves `*at` behind its "]".
// nullopt: malformed, for every `c`.
std::optional<bool> MatchSet(std::string_view glob, size_t* at, unsigned char c) {
  size_t i = *at;
  const bool negated = i < glob.size() && (glob[i] == '!' || glob[i] == '^');
  if (negated) ++i;
  bool found = false;
  unsigned char previous = 0;  // the byte that a range may begin with; 0: none
  for (const size_t first = i;;) {
    if (i == glob.size()) return std::nullopt;
    const bool is_first = i == first;  // "]" as the first member is an ordinary byte
    unsigned char e = static_cast<unsigned char>(glob[i++]);
    if (e == ']' && !is_first) break;
    const bool range = e == '-' && previous != 0 && i < glob.size() && glob[i] != ']';
    if (range) e = static_cast<unsigned char>(glob[i++]);
    if (!range && e == '[' && i < glob.size() && glob[i] == ':') {
      const size_t begin = i + 1, end = glob.find(']', begin);
      if (end == kNone) return std::nullopt;
      if (end > begin && glob[end - 1] == ':') {
        const std::optional<bool> in_class = InClass(glob.substr(begin, end - 1 - begin), c);
        if (!in_class) return std::nullopt;
        found |= *in_class;
        previous = 0;
        i = end + 1;
        continue;
      }
    }
    if (e == '\\') {
      if (i == glob.size()) return std::nullopt;
      e = static_cast<unsigned char>(glob[i++]);
    }
    found |= range ? previous <= c && c <= e : c == e;
    previous = range ? 0 : e;
  }
  *at = i;
  return found != negated && c != '/';
}

// Matches `c` with what stands at `*at` and is not "*": a byte, an escaped byte, "?" or a set.
// Moves
// `*at` behind it. nullopt: malformed, for every `c`.
std::optional<bool> MatchOne(std::string_view glob, size_t* at, unsigned char c) {
  const char e = glob[(*at)++];
  if (e == '?') return c != '/';
  if (e == '[') return MatchSet(glob, at, c);
  if (e != '\\') return static_cast<unsigned char>(e) == c;
  if (*at == glob.size()) return std::nullopt;
  return static_cast<unsigned char>(glob[(*at)++]) == c;
}

bool IsWellFormed(std::string_view glob) {
  for (size_t i = 0; i < glob.size();) {
    if (!MatchOne(glob, &i, 0)) return false;
  }
  return true;
}

// Whether the well-formed `glob` matches all of `path`.
//
// Iterative: after a mismatch only the last "*" takes one byte more, then the last "**" one
// component more. Earlier ones need not be tried again, because they matched as little as possible.
// Recursion, as in git, takes exponential time for "a*a*a*a*b".
bool MatchGlob(std::string_view glob, std::string_view path) {
  size_t i = 0, t = 0;              // in `glob`, in `path`
  size_t star = kNone, star_t = 0;  // behind the last "*" of this component; where its match ends
  size_t deep = kNone, deep_t = 0;  // behind the last "**/"; where its match ends
  for (;;) {
    if (i < glob.size() && glob[i] == '*') {
      const size_t end = std::min(glob.find_first_not_of('*', i), glob.size());
      const bool components = end - i >= 2 && (i == 0 || glob[i - 1] == '/') &&
                              (end == glob.size() || glob[end] == '/');
      if (!components) {
        star = i = end;
        star_t = t;
      } else if (end == glob.size()) {
        return true;  // a path does not end in a slash, so that something is left
      } else {
        deep = i = end + 1;
        deep_t = t;
        star = kNone;
      }
      continue;
    }
    if (i == glob.size() && t == path.size()) return true;
    if (size_t next = i;
        i < glob.size() && t < path.size() &&
        MatchOne(glob, &next, static_cast<unsigned char>(path[t])).value_or(false)) {
      if (path[t] == '/') star = kNone;
      i = next;
      ++t;
    } else if (star != kNone && star_t < path.size() && path[star_t] != '/') {
      i = star;
      t = ++star_t;
    } else {
      const size_t slash = deep != kNone ? path.find('/', deep_t) : kNone;
      if (slash == kNone) return false;
      i = deep;
      t = deep_t = slash + 1;
      star = kNone;
    }
  }
}

// Returns `line` without trailing spaces. A space behind a backslash stays.
std::string_view TrimSpaces(std::string_view line) {
  size_t end = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '\\' && i + 1 < line.size()) {
      end = ++i + 1;
    } else if (line[i] != ' ') {
      end = i + 1;
    }
  }
  return line.substr(0, end);
}

// The last of `patterns` that matches, or null.
const IgnorePattern* LastMatch(const std::vector<IgnorePattern>& patterns, std::string_view path,
                               bool is_directory) {
  for (auto it = patterns.rbegin(); it != patterns.rend(); ++it) {
    if (it->Matches(path, is_directory)) return &*it;
  }
  return nullptr;
}

// Returns the whole lines in the first kIgnoreFileBytesMax bytes of a regular file; nothing if it
// cannot be read. Does not wait for a pipe.
std::string ReadIgnoreFile(const std::string& path, int more_flags) {
  const FileDescriptor fd(
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | more_flags));
  struct stat info;
  if (fd.get() < 0 || fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return "";
  std::string text;
  constexpr size_t kReadBytes = 16 << 10;
  while (text.size() <= kIgnoreFileBytesMax) {
    const size_t used = text.size();
    text.resize(used + kReadBytes);
    ssize_t n = 0;
    do {
      n = read(fd.get(), text.data() + used, kReadBytes);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return "";
    text.resize(used + static_cast<size_t>(n));
    if (n == 0) return text;
  }
  const size_t line_feed = text.rfind('\n', kIgnoreFileBytesMax - 1);
  text.resize(line_feed == kNone ? 0 : line_feed);
  return text;
}

bool IsWorkTreeRoot(const std::string& dir) {
  struct stat info;
  return stat((dir + ".git").c_str(), &info) == 0;
}

}  // namespace

std::optional<IgnorePattern> IgnorePattern::Parse(std::string_view line) {
  if (line.starts_with('#')) return std::nullopt;
  if (line.ends_with('\r')) line.remove_suffix(1);
  line = TrimSpaces(line.substr(0, line.find('\0')));  // git takes it for a C string
  IgnorePattern pattern;
  pattern.negated_ = line.starts_with('!');
  if (pattern.negated_) line.remove_prefix(1);
  pattern.directory_only_ = line.ends_with('/');
  if (pattern.directory_only_) line.remove_suffix(1);
  pattern.anchored_ = line.find('/') != kNone;
  if (line.starts_with('/')) line.remove_prefix(1);
  if (line.empty() || line.size() > kIgnorePatternBytesMax || !IsWellFormed(line))
    return std::nullopt;
  pattern.glob_ = line;
  return pattern;
}

bool IgnorePattern::Matches(std::string_view path, bool is_directory) const {
  if (directory_only_ && !is_directory) return false;
  if (!anchored_) path.remove_prefix(path.rfind('/') + 1);  // by 0 bytes when there is no slash
  return MatchGlob(glob_, path);
}

std::vector<IgnorePattern> ParseIgnoreText(std::string_view text, size_t patterns_max) {
  std::vector<IgnorePattern> patterns;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  while (!text.empty() && patterns.size() < patterns_max) {
    const size_t end = std::min(text.find('\n'), text.size());
    if (auto pattern = IgnorePattern::Parse(text.substr(0, end)))
      patterns.push_back(*std::move(pattern));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return patterns;
}

IgnoreRules IgnoreRules::Open(const std::string& dir) {
  std::error_code ec;
  fs::path path = fs::canonical(dir, ec);
  if (ec) path = dir;
  // The directories from `dir` up to the root of its work tree; `dir` alone if there is none.
  std::vector<std::string> dirs{(path / "").string()};
  while (!IsWorkTreeRoot(dirs.back())) {
    if (!path.has_relative_path()) {
      dirs.resize(1);
      break;
    }
    path = path.parent_path();
    dirs.push_back((path / "").string());
  }
  IgnoreRules rules(dirs.back());
  rules.ReadLevel();
  for (auto it = dirs.rbegin() + 1; it != dirs.rend(); ++it) {
    rules.dir_ = *it;
    rules.ReadLevel();
  }
  return rules;
}

IgnoreRules IgnoreRules::Enter(std::string_view name) const {
  IgnoreRules rules = *this;
  rules.dir_.append(name) += '/';
  rules.ReadLevel();
  return rules;
}

bool IgnoreRules::Ignores(std::string_view name, bool is_directory) const {
  if (level_ == nullptr) return false;
  const std::string path = dir_ + std::string(name);
  bool git_counts = true;  // false above the root of the work tree
  for (const Level* level = level_.get(); level != nullptr; level = level->above.get()) {
    const std::string_view from_level = std::string_view(path).substr(level->dir_bytes);
    const IgnorePattern* match = LastMatch(level->longhold, from_level, is_directory);
    if (match == nullptr && git_counts) match = LastMatch(level->git, from_level, is_directory);
    if (match != nullptr) return !match->negated();
    git_counts = git_counts && !level->work_tree_root;
  }
  return false;
}

// Reads the ignore files in `dir_`.
void IgnoreRules::ReadLevel() {
  Level level{.above = level_,
              .dir_bytes = dir_.size(),
              .work_tree_root = IsWorkTreeRoot(dir_),
              .git = {},
              .longhold = {}};
  const auto add = [&](const std::string& text, std::vector<IgnorePattern>* patterns) {
    for (IgnorePattern& pattern : ParseIgnoreText(text, kIgnorePatternsMax - pattern_count_)) {
      patterns->push_back(std::move(pattern));
      ++pattern_count_;
    }
  };
  if (level.work_tree_root) add(ReadIgnoreFile(dir_ + ".git/info/exclude", 0), &level.git);
  // Like git, which follows no link in the work tree: it could lead out of it.
  add(ReadIgnoreFile(dir_ + ".gitignore", O_NOFOLLOW), &level.git);
  add(ReadIgnoreFile(dir_ + ".longholdignore", O_NOFOLLOW), &level.longhold);
  if (level.work_tree_root || !level.git.empty() || !level.longhold.empty())
    level_ = std::make_shared<const Level>(std::move(level));
}

}  // namespace longhold
