// The texts that a user names on the command line: files, directories and "-". Finds, checks and
// reads them.
//
// All inputs are checked before the first one is ingested. A typing error in the third path then
// costs no time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace longhold {

inline constexpr uint64_t kTextBytesMax = 1ull << 30;  // of one document
inline constexpr size_t kTextFilesMax = 1'000'000;     // of one call

// One text that will become a document.
struct TextSource {
  std::string name;  // of the document: the path as given, without "./"; "stdin" for "-"
  std::string path;  // of the file; empty for stdin
  uint64_t bytes = 0;
  std::optional<std::string> text;  // held in RAM when it cannot be read twice: stdin and pipes
};

struct TextInputs {
  std::vector<TextSource> sources;  // in the given order; files of a directory are sorted by path
  std::vector<std::string> notes;  // one line for each reason why files in directories were skipped
};

// Returns `path` without a leading "./" and without doubled or trailing slashes.
std::string DocumentName(std::string_view path);

// Checks that `text` can become a document. Errors: invalid_argument, with `name` in the message:
// the text is empty, binary, UTF-16, or not valid UTF-8. The message gives the offset of the first
// invalid byte.
Status CheckText(const std::string& name, std::string_view text);

struct TextInputOptions {
  // In directories, skip what .gitignore and .longholdignore name (service/common/ignore_rules.h).
  bool ignore_rules = true;
};

// Resolves `paths` to texts that pass CheckText. In directories, hidden entries and symbolic links
// to directories are skipped; ignored entries, and binary, empty and too large files, are skipped
// with a note. A file that is named itself is never ignored. A path
// that is given twice counts once. "-" reads `stdin_fd` to its end. Errors: not_found;
// invalid_argument (also: a directory without a text, no permission); resource_exhausted (a text
// longer than kTextBytesMax, more than kTextFilesMax files).
Result<TextInputs> CollectInputs(const std::vector<std::string>& paths, int stdin_fd,
                                 const TextInputOptions& options = {});

// Reads the text of a source and checks it again, because the file may have changed.
Result<std::string> ReadText(const TextSource& source);

// Reads `fd` to its end, at most `bytes_max` bytes. `name` appears in error messages. Errors:
// resource_exhausted (longer), not_found, invalid_argument, cancelled (a signal interrupted the
// read).
Result<std::string> ReadDescriptor(int fd, const std::string& name, uint64_t bytes_max);

}  // namespace longhold
