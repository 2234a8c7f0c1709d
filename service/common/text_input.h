// What the user names on the command line as texts: files, directories, "-". Finds them, checks
// them, reads them.
//
// Everything named is checked before anything is ingested, so that a typing error in the third path
// costs nothing.
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
  std::string name;  // of the document: the path as the user gave it without "./", "stdin" for "-"
  std::string path;  // of the file; empty for stdin
  uint64_t bytes = 0;
  std::optional<std::string> text;  // held where it cannot be read twice: stdin and pipes
};

struct TextInputs {
  std::vector<TextSource> sources;  // in the order given; a directory's files by path
  std::vector<std::string> notes;   // what was skipped inside directories and why, a line each
};

// Without leading "./", doubled and trailing slashes.
std::string DocumentName(std::string_view path);

// Ok when `text` can become a document. Errors: invalid_argument, naming `name`: empty, binary,
// UTF-16, or not valid UTF-8 with the byte where that begins.
Status CheckText(const std::string& name, std::string_view text);

// Resolves `paths` to texts that pass CheckText. Within directories, hidden entries and symbolic
// links to directories are passed over; binary, empty and oversized files too, with a note. A path
// that is named twice counts once. Reads `stdin_fd` to its end for "-". Errors: not_found;
// invalid_argument (also: a directory without any text, no permission); resource_exhausted (a text
// above kTextBytesMax).
Result<TextInputs> CollectInputs(const std::vector<std::string>& paths, int stdin_fd);

// The source's text, checked again: the file may have changed since.
Result<std::string> ReadText(const TextSource& source);

// All of `fd`, at most `bytes_max`. `name` is for messages.
Result<std::string> ReadDescriptor(int fd, const std::string& name, uint64_t bytes_max);

}  // namespace longhold
