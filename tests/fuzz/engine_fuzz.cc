// A hostile export, as a server receives it. The harness imports it, asks it, ingests into it,
// verifies it and deletes it. The input is the bytes of an export, whose checksums are made valid.
// `export_fuzz` finds decoding errors faster; this harness covers what the engine does with the
// blocks, summaries and texts behind an answer.
#include <cstdint>
#include <cstdlib>
#include <filesystem>

#include "memory/engine.h"
#include "tests/fuzz/export_mutator.h"
#include "tests/fuzz/export_stream.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/fuzz/toy_memory.h"
#include "tests/store/temp_dir.h"
#include "tests/support/engines.h"

namespace longhold {
namespace {

class Home {
 public:
  Home() { LH_CHECK(engine_.UseModel(&model_, &profile_).ok()); }

  void Use(std::string_view bytes) {
    size_t at = 0;
    const Result<TransferReport> imported = engine_.Import(
        [&](std::span<char> out) -> Result<size_t> {
          const size_t n = std::min(out.size(), bytes.size() - at);
          std::copy_n(bytes.data() + at, n, out.data());
          at += n;
          return n;
        },
        "toy");
    ExpectRefusal(imported);
    if (!imported.ok()) return;
    (void)engine_.Verify("toy");
    ExpectRefusal(engine_.Show("toy"));
    const char kQuestion[] = "What is the number of the elder?";
    RecallOptions recall;
    recall.explain = true;
    ExpectRefusal(engine_.Recall("toy", kQuestion, recall));
    for (const AttendOptions& attend :
         {AttendOptions(FocusedOptions{.recall = {.abstain = false}, .inline_citations = true}),
          AttendOptions(FaithfulOptions{})}) {
      AskOptions ask{.max_tokens = 6, .attend = attend};
      ask.characters = !ask.is_faithful();
      ExpectRefusal(engine_.Ask("toy", kQuestion, ask));
    }
    ExpectRefusal(
        engine_.Ingest("toy", {kFuzzStopped, "This one " + FuzzText(300)}, nullptr, nullptr));
    ExpectRefusal(engine_.Ask("toy", kQuestion, {.max_tokens = 2}));
    engine_.CloseMemory();
    LH_CHECK(engine_.Forget("toy", "", false).ok());
    (void)engine_.TakeNotes();
  }

 private:
  TempDir home_;
  ToyModel model_{FuzzToy()};
  RecallProfile profile_ = FuzzProfile();
  EngineInHome engine_{home_ / "h", {.memory_budget_bytes = 256u << 20}};
};

}  // namespace
}  // namespace longhold

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static longhold::Home home;
  const std::string mended =
      longhold::MendedExport(longhold::ParseExport({reinterpret_cast<const char*>(data), size}));
  home.Use(mended);
  return 0;
}
