#include "service/common/text_input.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <set>
#include <system_error>

#include "base/file_descriptor.h"
#include "base/utf8.h"
#include "service/common/ignore_rules.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kReadBytes = 1 << 20;
constexpr size_t kNamesInNote = 5;

Status OpenError(const std::string& name, int error) {
  if (error == ENOENT || error == ENOTDIR)
    return NotFound(name + ": no such file or directory; check the path");
  if (error == EACCES || error == EPERM)
    return InvalidArgument(
        name + ": no permission to read it; change its permissions or run as its owner");
  return InvalidArgument(name + ": cannot be read (" + std::strerror(error) +
                         "); check the file and its disk");
}

Result<std::string> ReadFile(const std::string& path, const std::string& name) {
  const FileDescriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (fd.get() < 0) return OpenError(name, errno);
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return OpenError(name, errno);
  if (S_ISREG(info.st_mode) && static_cast<uint64_t>(info.st_size) > kTextBytesMax) {
    return ResourceExhausted(name + ": " + std::to_string(info.st_size) +
                             " bytes; the limit for a document is " +
                             std::to_string(kTextBytesMax) + "; split it into several files");
  }
  return ReadDescriptor(fd.get(), name, kTextBytesMax);
}

// The entries of directories that are skipped for one reason.
struct Skipped {
  std::string why, one = "file", several = "files";
  std::set<std::string> names;  // the first kNamesInNote in the order of names
  size_t count = 0;

  void Add(const std::string& name) {
    ++count;
    names.insert(name);
    if (names.size() > kNamesInNote) names.erase(std::prev(names.end()));
  }
  std::string Note() const {
    std::string note =
        "skipped " + std::to_string(count) + " " + (count == 1 ? one : several) + ": " + why;
    for (const std::string& name : names) note += (name == *names.begin() ? " (" : ", ") + name;
    return note + (count > names.size() ? ", ..." : "") + ")";
  }
};

// Collects the sources of one CollectInputs call.
class Collector {
 public:
  explicit Collector(const TextInputOptions& options) : options_(options) {}

  Status Add(const std::string& path, int stdin_fd) {
    if (path == "-") return AddStdin(stdin_fd);
    struct stat info;
    if (path.empty() || stat(path.c_str(), &info) != 0)
      return OpenError(path.empty() ? "''" : path, path.empty() ? ENOENT : errno);
    if (S_ISDIR(info.st_mode)) return AddDirectory(path);
    TextSource source{.name = DocumentName(path), .path = path};
    LH_ASSIGN_OR_RETURN(std::string text, ReadFile(path, path));
    LH_RETURN_IF_ERROR(CheckText(path, text));
    source.bytes = text.size();
    if (!S_ISREG(info.st_mode)) source.text = std::move(text);
    return Take(std::move(source));
  }

  TextInputs Finish() {
    for (const Skipped* skipped : {&ignored_, &not_text_, &empty_, &too_large_}) {
      if (skipped->count > 0) inputs_.notes.push_back(skipped->Note());
    }
    return std::move(inputs_);
  }

 private:
  Status Take(TextSource source) {
    if (inputs_.sources.size() >= kTextFilesMax)
      return ResourceExhausted(source.name + ": more than " + std::to_string(kTextFilesMax) +
                               " files; ingest them with several commands");
    if (names_.insert(source.name).second) inputs_.sources.push_back(std::move(source));
    return OkStatus();
  }

  Status AddStdin(int fd) {
    if (names_.count("stdin") > 0) return OkStatus();
    LH_ASSIGN_OR_RETURN(std::string text, ReadDescriptor(fd, "stdin", kTextBytesMax));
    LH_RETURN_IF_ERROR(CheckText("stdin", text));
    const uint64_t bytes = text.size();
    return Take({.name = "stdin", .path = "", .bytes = bytes, .text = std::move(text)});
  }

  Status AddDirectory(const std::string& path) {
    std::vector<std::string> files;
    LH_RETURN_IF_ERROR(Walk(path, &files));
    std::sort(files.begin(), files.end());
    bool found = false;
    for (const std::string& file : files) {
      const std::string name = DocumentName(file);
      Result<std::string> text = ReadFile(file, name);
      if (!text.ok() && text.status().code() == StatusCode::kResourceExhausted) {
        too_large_.Add(name);
        continue;
      }
      if (!text.ok()) return text.status();
      if (text->empty()) {
        empty_.Add(name);
        continue;
      }
      if (const Status status = CheckText(name, *text); !status.ok()) {
        not_text_.Add(name);
        continue;
      }
      found = true;
      LH_RETURN_IF_ERROR(Take({.name = name, .path = file, .bytes = text->size()}));
    }
    if (!found) {
      const std::string checked =
          std::to_string(files.size()) + (files.size() == 1 ? " file" : " files") + " checked";
      if (ignored_.count == 0) {
        return InvalidArgument(path + ": this directory has no text (" + checked +
                               "); name a directory with UTF-8 text files");
      }
      return InvalidArgument(path + ": this directory has no text that its .gitignore and " +
                             ".longholdignore files leave (" + checked + ", " +
                             std::to_string(ignored_.count) +
                             " entries ignored); --no-ignore reads those too");
    }
    return OkStatus();
  }

  // Appends the regular files under `dir` that no rule ignores.
  Status Walk(const std::string& dir, std::vector<std::string>* files) {
    std::error_code ec;
    fs::recursive_directory_iterator it(dir, ec), end;
    std::string at = dir;
    std::vector<IgnoreRules> rules{IgnoreRules::Open(dir)};  // of the directories down to `it`
    while (!ec && it != end) {
      at = it->path().string();
      const std::string name = it->path().filename().string();
      std::error_code type_ec;
      const bool is_directory = it->is_directory(type_ec) && !it->is_symlink(type_ec);
      rules.erase(rules.begin() + it.depth() + 1, rules.end());
      if (name.starts_with('.')) {
        it.disable_recursion_pending();
      } else if (options_.ignore_rules && rules.back().Ignores(name, is_directory)) {
        it.disable_recursion_pending();
        ignored_.Add(DocumentName(at) + (is_directory ? "/" : ""));
      } else if (is_directory) {
        rules.push_back(rules.back().Enter(name));
      } else if (it->is_regular_file(type_ec)) {
        files->push_back(at);
        if (files->size() > kTextFilesMax)
          return ResourceExhausted(dir + ": more than " + std::to_string(kTextFilesMax) +
                                   " files; ingest its subdirectories one by one");
      }
      it.increment(ec);
    }
    return ec ? OpenError(at, ec.value()) : OkStatus();
  }

  const TextInputOptions options_;
  TextInputs inputs_;
  std::set<std::string> names_;
  Skipped ignored_{.why = "named by .gitignore or .longholdignore",
                   .one = "entry",
                   .several = "entries",
                   .names = {}};
  Skipped not_text_{.why = "not UTF-8 text", .names = {}}, empty_{.why = "empty", .names = {}},
      too_large_{.why = "larger than 1 GiB", .names = {}};
};

}  // namespace

std::string DocumentName(std::string_view path) {
  std::string name;
  for (const char c : path) {
    if (c == '/' && name.ends_with('/')) continue;
    name += c;
  }
  while (name.starts_with("./") && name.size() > 2) name.erase(0, 2);
  while (name.size() > 1 && name.ends_with('/')) name.pop_back();
  return name;
}

Status CheckText(const std::string& name, std::string_view text) {
  if (text.find_first_not_of(" \t\r\n\f\v") == std::string_view::npos) {
    return InvalidArgument(name + (text.empty() ? ": is empty" : ": contains only white space") +
                           "; name a file with text");
  }
  if (text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF")) {
    return InvalidArgument(name + ": is UTF-16; convert it with 'iconv -f UTF-16 -t UTF-8'");
  }
  if (const size_t zero = text.find('\0'); zero != std::string_view::npos) {
    return InvalidArgument(name + ": is binary (byte " + std::to_string(zero) +
                           " is zero); extract its text first");
  }
  if (const auto bad = FirstInvalidUtf8(text)) {
    char byte[8];
    std::snprintf(byte, sizeof(byte), "0x%02X", static_cast<unsigned char>(text[*bad]));
    return InvalidArgument(name + ": not valid UTF-8 at byte " + std::to_string(*bad) + " (" +
                           byte + "); convert it, for example with 'iconv -f ISO-8859-1 -t UTF-8'");
  }
  return OkStatus();
}

Result<std::string> ReadDescriptor(int fd, const std::string& name, uint64_t bytes_max) {
  std::string text;
  struct stat info;
  if (fstat(fd, &info) == 0 && S_ISDIR(info.st_mode)) return OpenError(name, EISDIR);
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode))
    text.reserve(static_cast<size_t>(
        std::min<uint64_t>(static_cast<uint64_t>(info.st_size) + 1, bytes_max)));
  uint64_t used = 0;
  for (;;) {
    text.resize(used + kReadBytes);
    const ssize_t n = read(fd, text.data() + used, kReadBytes);
    if (n < 0 && errno == EINTR) return Cancelled(name + ": interrupted while it was read");
    if (n < 0) return OpenError(name, errno);
    used += static_cast<uint64_t>(n);
    if (n == 0) break;
    if (used > bytes_max) {
      return ResourceExhausted(name + ": more than " + std::to_string(bytes_max) +
                               " bytes; split it into several parts");
    }
  }
  text.resize(used);
  return text;
}

Result<TextInputs> CollectInputs(const std::vector<std::string>& paths, int stdin_fd,
                                 const TextInputOptions& options) {
  Collector collector(options);
  for (const std::string& path : paths) LH_RETURN_IF_ERROR(collector.Add(path, stdin_fd));
  return collector.Finish();
}

Result<std::string> ReadText(const TextSource& source) {
  if (source.text) return *source.text;
  LH_ASSIGN_OR_RETURN(std::string text, ReadFile(source.path, source.name));
  LH_RETURN_IF_ERROR(CheckText(source.name, text));
  return text;
}

}  // namespace longhold
