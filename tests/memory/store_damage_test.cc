// Memories with damaged files, each in its own process: one closed in the middle of a text, and one
// killed there; plain and encrypted. The damage is one of: a flipped bit, a run of zeros, a run of
// random bytes, bytes added at the end, a cut, a removed file, two swapped files. The file is any
// file, and all choices come from a seed. The damage happens before the memory is opened, while it
// is open for reading, or while it is written. Then the child shows, recalls, asks and verifies,
// and ingests the text to its end. It repeats all of that after it compacted the memory.
//
// Expected: the process ends by itself, without a signal. Each step gives the result of the
// undamaged memory, an error that names the memory, or an answer that reports the loss. A loss is
// reported as a count of lost blocks or spans, or as a note. Recalled text never differs from the
// source. Completely ingested texts are all present or reported missing. An incomplete text may
// lose tokens at the end of a log: `show` reports how many are committed, and ingest continues
// there.
//
// LONGHOLD_DAMAGES sets the number of damages per case, LONGHOLD_DAMAGE_SEED the seed. A failure
// prints case, seed and index.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <random>

#include "base/hash.h"
#include "memory/engine.h"
#include "tests/store/temp_dir.h"
#include "tests/support/engines.h"
#include "tests/support/sanitized.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_text.h"

extern char** environ;

namespace longhold {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kDamages = kSanitized ? 3 : 12;
constexpr char kMemory[] = "tales", kQuestion[] = "What is the secret number of Methuselah?";
constexpr uint64_t kStopAt = 4400;  // tokens of the incomplete text: past its first commit

// A small model with blocks of 5 KB, so that they go to blob files as a real model's do.
KvGeometry BlobGeometry() {
  KvGeometry g;
  g.layers = {1, 3};
  g.q_heads = 2;
  g.kv_heads = 2;
  g.head_dim = 16;
  g.scale = 0.25f;
  g.rope = {RopeSpec{.rotary_dims = 16},
            RopeSpec{.neox = true, .rotary_dims = 16, .freq_base = 100.0f}};
  return g;
}

std::map<std::string, std::string> Texts() {
  std::string tale = PlainText(3000, 1);
  tale.insert(tale.find('\n', 1000) + 1,
              "The secret number of Methuselah is 7350194, said the elder.\n");
  std::string unfinished = PlainText(6000, 2);
  unfinished.insert(unfinished.find('\n', 2000) + 1,
                    "The secret key of Methuselah is in the well of the elder.\n");
  return {{"tale", tale}, {"late", PlainText(900, 3)}, {"unfinished", unfinished}};
}

// ---- The damage

enum class Kind { kFlip, kZeros, kRandom, kAppend, kCut, kRemove, kSwap };
constexpr const char* kKindNames[] = {"flip", "zeros", "random", "append", "cut", "remove", "swap"};
constexpr int kKindCount = 7;

std::vector<fs::path> FilesOf(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

// Damages one file of `directory`, keeps its modification time, and returns a description. The same
// seed on the same files gives the same damage.
std::string Damage(const fs::path& directory, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<fs::path> files = FilesOf(directory);
  const auto kind = static_cast<Kind>(random() % kKindCount);
  // Draws the kind of file first, so that a few large files do not hide the others.
  std::map<std::string, std::vector<fs::path>> by_kind;
  for (const fs::path& file : files) {
    const std::string name = file.filename();
    by_kind[file.has_extension() ? file.extension().string() : name.substr(0, name.find('-'))]
        .push_back(file);
  }
  const auto draw = [&] {
    auto it = by_kind.begin();
    std::advance(it, static_cast<ptrdiff_t>(random() % by_kind.size()));
    return it->second[random() % it->second.size()];
  };
  const fs::path file = draw();
  const uint64_t size = fs::file_size(file), at = size == 0 ? 0 : random() % size;
  const auto time = fs::last_write_time(file);
  std::string description = std::string(kKindNames[static_cast<int>(kind)]) + " " +
                            file.filename().string() + " of " + std::to_string(size) +
                            " bytes at " + std::to_string(at);
  const auto overwrite = [&](uint64_t where, const std::string& bytes) {
    std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
    f.seekp(static_cast<std::streamoff>(where));
    f.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  };
  const auto noise = [&](uint64_t bytes) {
    std::string out(bytes, '\0');
    for (char& byte : out) byte = static_cast<char>(random());
    return out;
  };
  const uint64_t stretch =
      size == 0 ? 0 : std::min(size - at, 1 + random() % (random() % 2 == 0 ? 16 : 5000));
  switch (kind) {
    case Kind::kFlip: {
      if (size == 0) break;
      std::string bytes = ReadWholeFile(file);
      overwrite(at, std::string(1, static_cast<char>(bytes[at] ^ (1 << random() % 8))));
      break;
    }
    case Kind::kZeros: overwrite(at, std::string(stretch, '\0')); break;
    case Kind::kRandom: overwrite(at, noise(stretch)); break;
    case Kind::kAppend:
      overwrite(size, random() % 2 == 0 ? noise(1 + random() % 5000)
                                        : std::string(1 + random() % 5000, '\0'));
      break;
    case Kind::kCut: fs::resize_file(file, at); break;
    case Kind::kRemove: fs::remove(file); break;
    case Kind::kSwap: {
      const fs::path other = random() % 2 == 0 ? draw() : files[random() % files.size()];
      description += " and " + other.filename().string();
      if (file == other) break;
      const auto other_time = fs::last_write_time(other);
      fs::rename(file, directory / "aside");
      fs::rename(other, file);
      fs::rename(directory / "aside", other);
      fs::last_write_time(other, time);
      fs::last_write_time(file, other_time);
      return description;
    }
  }
  if (kind != Kind::kRemove) fs::last_write_time(file, time);
  return description;
}

// ---- The child process

enum class When { kClosed, kOpen, kWritten };

// Prints the result of a step as one line: "STEP TAB ok|degraded|CODE TAB what".
class Child {
 public:
  Child(const std::string& home, bool sealed) : path_(fs::path(home) / "memories" / kMemory) {
    profile_.name = "toy";
    profile_.heads = {{.layer = 3, .kv_head = 1}};
    profile_.signals["heads"] = 0.2;
    profile_.window_tokens = 64;
    profile_.rerank_spans = 4;
    profile_.spans_max = 3;
    engine_ = std::make_unique<EngineInHome>(
        home, EngineOptions{.encryption_key = Secret(sealed ? std::string(32, 'k') : "")});
    const Status used = engine_->UseModel(&model_, &profile_);
    if (!used.ok()) Say("model", used, false, "");
  }

  // Ingests the first text, and the last one up to `stop_at` tokens. Then the process closes the
  // memory, or it ingests one more text first and is killed.
  void Make(uint64_t stop_at, bool killed) {
    const auto texts = Texts();
    Status read = engine_->Ingest(kMemory, {"tale", texts.at("tale")}, nullptr, nullptr).status();
    if (read.ok() && killed)
      read = engine_->Ingest(kMemory, {"late", texts.at("late")}, nullptr, nullptr).status();
    std::atomic<bool> stop{false};
    const Status rest = engine_
                            ->Ingest(kMemory, {"unfinished", texts.at("unfinished")}, &stop,
                                     [&](const IngestProgress& p) {
                                       if (p.tokens_done < stop_at) return;
                                       if (killed) (void)raise(SIGKILL);
                                       stop = true;
                                     })
                            .status();
    Say("made", read.ok() ? rest : read, false, "");
  }

  void Use(When when, uint64_t seed, bool whole) {
    const auto damage = [&] {
      if (!whole) std::printf("damage\t%s\t\n", Damage(path_, seed).c_str());
      std::fflush(stdout);
    };
    if (when == When::kClosed) damage();
    if (when == When::kOpen) {
      (void)engine_->Show(kMemory);
      (void)engine_->Recall(kMemory, kQuestion, {});
      damage();
    }
    Inspect("before");
    bool done = when != When::kWritten;
    const Result<IngestReport> r = engine_->Ingest(
        kMemory, {"unfinished", Texts().at("unfinished")}, nullptr, [&](const IngestProgress&) {
          if (!std::exchange(done, true)) damage();
        });
    Say("ingest", r.status(), !engine_->TakeNotes().empty(), "");
    Inspect("after");
    Say("compact", engine_->Compact(kMemory), false, "");
    Inspect("at last");
  }

 private:
  static void Say(const std::string& step, const Status& status, bool degraded,
                  const std::string& what) {
    std::string message = status.ok() ? what : status.ToString();
    for (char& c : message) c = c == '\n' || c == '\t' ? ' ' : c;
    std::printf("%s\t%s\t%s\n", step.c_str(),
                !status.ok() ? "error"
                : degraded   ? "degraded"
                             : "ok",
                message.c_str());
    std::fflush(stdout);
  }

  void Inspect(const std::string& step) {
    const Result<MemoryInfo> info = engine_->Show(kMemory);
    std::string documents;
    if (info.ok()) {
      for (const DocumentInfo& d : info->documents)
        documents += d.name + " " + std::to_string(d.committed_tokens) + " of " +
                     std::to_string(d.tokens) + "; ";
    }
    Say(step + " show", info.status(), false, documents);

    const Result<RecallReply> recall = engine_->Recall(kMemory, kQuestion, {});
    const bool recall_note = !engine_->TakeNotes().empty();
    Say(step + " recall", recall.status(),
        recall.ok() && (recall->degradation.spans_lost > 0 || recall_note),
        recall.ok() ? SpansOf(recall->spans) : "");

    const Result<AskReply> ask = engine_->Ask(kMemory, kQuestion, {.max_tokens = 8});
    const bool ask_note = !engine_->TakeNotes().empty();
    std::string answer;
    if (ask.ok()) {
      std::vector<RecalledSpan> cited;
      for (const Citation& c : ask->citations) cited.push_back(c.span);
      answer = std::to_string(Hash64(ask->answer)) + " " + SpansOf(cited);
    }
    Say(step + " ask", ask.status(),
        ask.ok() && (ask->degradation.blocks_lost + ask->degradation.spans_lost > 0 || ask_note),
        answer);
    Say(step + " verify", engine_->Verify(kMemory), false, "");
  }

  // Each span's place, whether its text equals the source's, and its score in thousandths: a
  // segment that was rebuilt may add the same numbers in another order.
  static std::string SpansOf(const std::vector<RecalledSpan>& spans) {
    const auto texts = Texts();
    std::string all;
    for (const RecalledSpan& s : spans) {
      const auto text = texts.find(s.document);
      const bool right = text != texts.end() && s.bytes.end <= text->second.size() &&
                         text->second.substr(s.bytes.begin, s.bytes.end - s.bytes.begin) == s.text;
      all += s.document + " " + std::to_string(s.bytes.begin) + "-" + std::to_string(s.bytes.end) +
             (right ? " " : " WRONG TEXT ") + std::to_string(std::lround(1000 * s.score)) + "; ";
    }
    return all;
  }

  const fs::path path_;
  ToyModel model_{{.geometry = BlobGeometry()}};
  RecallProfile profile_;
  std::unique_ptr<EngineInHome> engine_;
};

int RunChild(char** argv) {
  alarm(600);  // a hanging child is a failure, as a crash is
  const std::string role = argv[2], home = argv[3];
  Child child(home, argv[4][0] == 's');
  if (role == "make") {
    child.Make(std::stoull(argv[5]), argv[6][0] == 'k');
  } else {
    child.Use(static_cast<When>(std::stoi(argv[5])), std::stoull(argv[6]), role == "whole");
  }
  return 0;
}

// ---- The parent process

struct StepResult {
  std::string how, what;
};
struct Outcome {
  int wait_status = 0;
  std::string damage, errors;
  std::map<std::string, StepResult> steps;
  std::vector<std::string> order;
};

Outcome RunInChild(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"memory_test", "--damage-child"});
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  TempDir dir;
  const std::string out = dir / "out", err = dir / "err";
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT, 0600);
  pid_t pid = 0;
  if (posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, argv.data(), environ) != 0) abort();
  posix_spawn_file_actions_destroy(&actions);
  Outcome outcome;
  waitpid(pid, &outcome.wait_status, 0);
  std::ifstream lines(out);
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find('\t'), second = line.find('\t', first + 1);
    if (second == std::string::npos) continue;
    const std::string step = line.substr(0, first);
    if (step == "damage") {
      outcome.damage = line.substr(first + 1, second - first - 1);
      continue;
    }
    outcome.steps[step] = {line.substr(first + 1, second - first - 1), line.substr(second + 1)};
    outcome.order.push_back(step);
  }
  outcome.errors = ReadWholeFile(err);
  return outcome;
}

struct Case {
  const char* name;
  bool sealed, killed;
};

class StoreDamageTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    image_ = dir_ / "image";
    const std::string seal = GetParam().sealed ? "s" : "p";
    // First the data that ends up in tables, then the data that stays in the log.
    const Outcome at_rest = RunInChild({"make", image_, seal, "1000", "c"});
    ASSERT_EQ(at_rest.steps.at("made").how, "ok") << at_rest.steps.at("made").what;
    const Outcome made =
        RunInChild({"make", image_, seal, std::to_string(kStopAt), GetParam().killed ? "k" : "c"});
    ASSERT_EQ(WIFSIGNALED(made.wait_status), GetParam().killed) << made.errors;
  }
  Outcome Use(const std::string& role, When when, uint64_t seed) {
    const std::string home = dir_ / "home";
    fs::remove_all(home);
    fs::copy(image_, home, fs::copy_options::recursive);
    return RunInChild({role, home, GetParam().sealed ? "s" : "p",
                       std::to_string(static_cast<int>(when)), std::to_string(seed)});
  }

  TempDir dir_;
  std::string image_;
};

uint64_t Number(const char* name, uint64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::stoull(value);
}

std::string WithoutUnfinished(const std::string& documents) {
  const size_t at = documents.find("unfinished ");
  return documents.substr(0, at) +
         (at == std::string::npos ? "" : documents.substr(documents.find(';', at)));
}

// Returns the fault, or an empty string if the outcome is allowed.
std::string Fault(const Outcome& got, const Outcome& whole, std::map<std::string, int>* counts) {
  if (!WIFEXITED(got.wait_status) || WEXITSTATUS(got.wait_status) != 0)
    return "ended with status " + std::to_string(got.wait_status) + ": " + got.errors;
  if (got.order != whole.order) return "did not take all steps: " + got.errors;
  std::string effect = "without effect";
  bool loss_reported = false;  // after a reported loss, later steps may differ
  for (const std::string& step : got.order) {
    const StepResult& actual = got.steps.at(step);
    const StepResult& wanted = whole.steps.at(step);
    if (actual.what.find("WRONG TEXT") != std::string::npos) return step + ": " + actual.what;
    if (actual.how == "error") {
      if (actual.what.find(kMemory) == std::string::npos)
        return step + " does not name the memory: " + actual.what;
      if (actual.what.starts_with("internal") || actual.what.starts_with("not_found"))
        return step + ": " + actual.what;
      effect = "an error";
    } else if (actual.how == "degraded") {
      if (effect != "an error") effect = "degraded";
    } else if (actual.what != wanted.what && !loss_reported) {
      // Only the incomplete text may be shorter, and only by tokens that were in a log.
      const bool shorter = step.ends_with("show") && got.damage.find(".log") != std::string::npos &&
                           WithoutUnfinished(actual.what) == WithoutUnfinished(wanted.what);
      if (!shorter)
        return step + " is silently another: " + actual.what + " instead of " + wanted.what;
      effect = "fewer tokens";
    }
    loss_reported = loss_reported || effect != "without effect";
  }
  if (effect == "fewer tokens") std::cout << "FEWER " << got.damage << std::endl;
  ++(*counts)[effect];
  return "";
}

TEST_P(StoreDamageTest, EndsInAnErrorOrAReportedLossOrHasNoEffect) {
  const uint64_t count = Number("LONGHOLD_DAMAGES", kDamages),
                 seed = Number("LONGHOLD_DAMAGE_SEED", 1);
  for (const When when : {When::kClosed, When::kOpen, When::kWritten}) {
    const Outcome whole = Use("whole", when, 0);
    ASSERT_EQ(whole.order.size(), 14u) << whole.errors;
    for (const std::string& step : whole.order)
      ASSERT_EQ(whole.steps.at(step).how, "ok") << step << ": " << whole.steps.at(step).what;
    std::map<std::string, int> counts;
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t own_seed = (seed + i) * 3 + static_cast<uint64_t>(when);
      const Outcome got = Use("damaged", when, own_seed);
      const std::string fault = Fault(got, whole, &counts);
      EXPECT_EQ(fault, "") << "case " << GetParam().name << " when " << static_cast<int>(when)
                           << " seed " << own_seed << ": " << got.damage;
    }
    std::cout << GetParam().name << " when " << static_cast<int>(when) << ":";
    for (const auto& [effect, n] : counts) std::cout << " " << effect << " " << n;
    std::cout << std::endl;
  }
}

INSTANTIATE_TEST_SUITE_P(All, StoreDamageTest,
                         testing::Values(Case{"Closed", false, false}, Case{"Killed", false, true},
                                         Case{"SealedClosed", true, false},
                                         Case{"SealedKilled", true, true}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace longhold

int main(int argc, char** argv) {
  if (argc > 4 && std::string(argv[1]) == "--damage-child") return longhold::RunChild(argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
