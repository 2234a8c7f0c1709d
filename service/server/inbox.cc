#include "service/server/inbox.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/durable_file.h"
#include "base/hash.h"
#include "base/seal.h"
#include "service/common/json_text.h"
#include "service/common/text_input.h"
#include "store/memory_name.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr std::string_view kSuffix = ".text", kAside = ".aside";
// Attempts that ended with the process, after which a text is set aside.
constexpr uintmax_t kAttemptsMax = 2;

// File format, version 1: a line {"version": 1, "memory", "name", "hash"}, then the text. The hash
// is Hash64 of memory, a zero byte, name, a zero byte and text, in hexadecimal digits.
std::string HashOf(const std::string& memory, const IngestInput& input) {
  std::string all = memory + '\0' + input.name + '\0';
  all += input.text;
  char digits[20];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(Hash64(all)));
  return digits;
}

// File format, version 2: this line, a salt, and a version 1 file encrypted with the key derived
// from the salt.
constexpr std::string_view kSealed = "longhold sealed text 2\n", kPurpose = "longhold inbox";

Result<std::string> Unsealed(const std::string& bytes, const Secret& key) {
  if (!bytes.starts_with(kSealed)) return bytes;
  if (key.empty()) return FailedPrecondition("it is encrypted, and there is no --encryption-key");
  const std::string_view rest = std::string_view(bytes).substr(kSealed.size());
  if (rest.size() < kSealSaltBytes) return DataLoss("it is truncated");
  return Seal::Derive(key, rest.substr(0, kSealSaltBytes), kPurpose)
      .Open(rest.substr(kSealSaltBytes), kSealed);
}

Result<Inbox::Text> Parse(const std::string& stored, const Secret& key) {
  LH_ASSIGN_OR_RETURN(const std::string bytes, Unsealed(stored, key));
  const size_t line = bytes.find('\n');
  if (line == std::string::npos) return DataLoss("it is truncated");
  Inbox::Text text;
  LH_ASSIGN_OR_RETURN(const json::object head,
                      ParseJsonObject(std::string_view(bytes).substr(0, line)));
  LH_ASSIGN_OR_RETURN(const int64_t version, IntegerField(head, "version", 0, INT64_MAX, 0));
  if (version != 1) return DataLoss("it has an unknown version");
  LH_ASSIGN_OR_RETURN(text.memory, StringField(head, "memory"));
  LH_ASSIGN_OR_RETURN(text.input.name, StringField(head, "name"));
  LH_ASSIGN_OR_RETURN(const std::string hash, StringField(head, "hash"));
  text.input.text = bytes.substr(line + 1);
  if (hash != HashOf(text.memory, text.input)) return DataLoss("its hash does not match");
  LH_RETURN_IF_ERROR(CheckMemoryName(text.memory));
  LH_RETURN_IF_ERROR(CheckText(text.input.name, text.input.text));
  return text;
}

}  // namespace

std::string Inbox::PathOf(uint64_t id) const {
  char name[32];
  std::snprintf(name, sizeof name, "/%020llu", static_cast<unsigned long long>(id));
  return directory_ + name + std::string(kSuffix);
}

Inbox::~Inbox() {
  if (lock_ >= 0) close(lock_);
}

Result<bool> Inbox::Take() {
  (void)MakePrivateDirectory(directory_);  // an error shows when the lock is opened
  const std::string path = directory_ + "/lock";
  if (lock_ < 0) lock_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ < 0)
    return InvalidArgument("accepted texts " + directory_ + ": cannot be written (" +
                           std::strerror(errno) + "); choose another home with --home");
  if (flock(lock_, LOCK_EX | LOCK_NB) == 0) return true;
  return false;
}

Status Inbox::Keep(uint64_t id, const std::string& memory, const IngestInput& input) const {
  LH_CHECK(lock_ >= 0);
  const std::string head = DumpJson(json::object{{"version", 1},
                                                 {"memory", JsonString(memory)},
                                                 {"name", JsonString(input.name)},
                                                 {"hash", HashOf(memory, input)}}) +
                           "\n";
  std::string salt, sealed;
  if (!encryption_key_.empty()) {
    salt = RandomBytes(kSealSaltBytes);
    LH_ASSIGN_OR_RETURN(
        sealed, Seal::Derive(encryption_key_, salt, kPurpose).Close(head + input.text, kSealed));
  }
  const Status written =
      encryption_key_.empty()
          ? WriteFileDurably(PathOf(id), {head, input.text}, 0600, "accepted text")
          : WriteFileDurably(PathOf(id), {kSealed, salt, sealed}, 0600, "accepted text");
  // The request of the client was valid, so this is an error of the server.
  return written.code() == StatusCode::kInvalidArgument ? Internal(written.message()) : written;
}

void Inbox::Drop(uint64_t id) const {
  std::error_code ec;
  fs::remove(PathOf(id), ec);
  Paused(id);
}

// These files survive a crash of the process but not of the machine: a power failure is not caused
// by the text. An attempt whose file cannot be written is not counted.
void Inbox::Begun(uint64_t id) const {
  std::ofstream(AttemptsPathOf(id), std::ios::binary | std::ios::app) << '.';
}

void Inbox::Advanced(uint64_t id) const {
  std::ofstream(AttemptsPathOf(id), std::ios::binary | std::ios::trunc) << '.';
}

void Inbox::Paused(uint64_t id) const {
  std::error_code ec;
  fs::remove(AttemptsPathOf(id), ec);
}

std::vector<Inbox::Text> Inbox::Load(std::vector<std::string>* notes) const {
  std::vector<Text> texts;
  std::error_code ec;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory_, ec)) {
    const std::string name = entry.path().filename();
    if (name.size() != 20 + kSuffix.size() || !name.ends_with(kSuffix) ||
        name.find_first_not_of("0123456789") != 20)
      continue;
    const uint64_t id = std::stoull(name.substr(0, 20));
    std::error_code none;
    if (const uintmax_t tries = fs::file_size(AttemptsPathOf(id), none);
        !none && tries >= kAttemptsMax) {
      const std::string aside = entry.path().string() + std::string(kAside);
      fs::rename(entry.path(), aside, none);
      Paused(id);
      notes->push_back(
          "accepted text " + aside +
          ": was set aside, because the server ended twice while it ingested this text; "
          "check the text and its memory, and send it again when the cause is fixed");
      continue;
    }
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)),
                            std::istreambuf_iterator<char>());
    Result<Text> text = Parse(bytes, encryption_key_);
    if (!text.ok()) {
      notes->push_back("accepted text " + entry.path().string() + ": cannot be read (" +
                       text.status().message() + "); send it again, and remove the file");
      continue;
    }
    text->id = id;
    texts.push_back(std::move(*text));
  }
  std::sort(texts.begin(), texts.end(), [](const Text& a, const Text& b) { return a.id < b.id; });
  return texts;
}

}  // namespace longhold
