// `longhold calibrate`: learns a recall profile, prints a report and stores the profile.

#include <cstdio>
#include <filesystem>

#include "eval/calibrate.h"
#include "service/cli/commands.h"
#include "service/cli/memory_home.h"
#include "service/cli/profile_file.h"
#include "service/cli/progress.h"
#include "service/common/render.h"

namespace longhold {
namespace {

// English prose that every Debian machine has. It suffices to learn which heads retrieve.
constexpr char kLicences[] = "/usr/share/common-licenses";

Result<Haystack> LoadTexts(const std::vector<std::string>& paths) {
  std::string text;
  for (const std::string& path : paths) {
    LH_ASSIGN_OR_RETURN(const Haystack part, LoadHaystack(path));
    text += part.verbatim + "\n\n";
  }
  return MakeHaystack("text", std::move(text), false);
}

std::string Percent(const RankScore& s, double RankScore::*what) {
  char text[16];
  std::snprintf(text, sizeof text, "%3.0f", 100 * s.*what);
  return text;
}

std::string HitCells(const RankScore& s) {
  return Percent(s, &RankScore::hit1) + " /" + Percent(s, &RankScore::hit4) + " /" +
         Percent(s, &RankScore::hit8);
}

std::string Text(const CalibrationReport& report) {
  char line[160];
  std::string out = FormatCount(report.cases) + " cases in " + FormatCount(report.text_tokens) +
                    " tokens, " + FormatDuration(report.seconds) + "\n\n";
  out += "Evidence in the first 1 / 4 / 8 blocks, % of cases:\n";
  std::snprintf(line, sizeof line, "  %-22s %15s   %15s   %15s\n", "ranked by", "training",
                "held out", "new wordings");
  out += line;
  for (const AblationRow& row : report.ablation) {
    std::snprintf(line, sizeof line, "  %-22.22s %15s   %15s   %15s\n", row.name.c_str(),
                  HitCells(row.learned).c_str(), HitCells(row.held).c_str(),
                  HitCells(row.fresh).c_str());
    out += line;
  }
  out += "\nThe same by form, on cases not used for training (* new wording):\n";
  std::snprintf(line, sizeof line, "  %-22s %15s   %15s   %15s\n", "form", "words", "best head",
                "calibrated");
  out += line;
  for (const FormScore& f : report.forms) {
    std::snprintf(line, sizeof line, "  %-22.22s %15s   %15s   %15s\n",
                  (f.form + (f.new_form ? " *" : "")).c_str(), HitCells(f.words).c_str(),
                  HitCells(f.head).c_str(), HitCells(f.calibrated).c_str());
    out += line;
  }
  const RecallProfile& p = report.profile;
  std::snprintf(line, sizeof line,
                "\nWeights: words %.2f, heads %.2f in total:", p.WeightOf(kWordSignal),
                p.WeightOf(kHeadSignal));
  out += line;
  if (p.heads.empty()) out += " no head improves on words alone";
  for (const RecallHead& head : p.heads) {
    std::snprintf(line, sizeof line, "\n  layer %2u, head %u: %.2f", head.layer, head.kv_head,
                  head.weight);
    out += line;
  }
  out += "\n\nCorrect answers by gate and re-encoded tokens, %, with";
  std::vector<uint32_t> budgets;
  for (const GateScore& g : report.gates) {
    if (!budgets.empty() && g.spans <= budgets.back()) break;
    budgets.push_back(g.spans);
    out += (budgets.size() > 1 ? " / " : " ") + std::to_string(g.spans);
  }
  out += " spans:\n";
  for (size_t i = 0; i < report.gates.size(); i += budgets.size()) {
    const GateScore& g = report.gates[i];
    std::snprintf(line, sizeof line, "  %c %4.1f %4u  ",
                  g.gate == p.gate && g.reread == p.reencode_tokens ? '>' : ' ', g.gate, g.reread);
    out += line;
    for (size_t b = 0; b < budgets.size(); ++b) {
      std::snprintf(line, sizeof line, "%s%3.0f", b > 0 ? " / " : "",
                    100 * report.gates[i + b].answered);
      out += line;
    }
    out += "\n";
  }
  if (p.abstain_support > 0) {
    std::snprintf(line, sizeof line,
                  "\nAbstains below a support of %.2f: on %.0f%% of %u questions without an\n"
                  "answer, and wrongly on %.0f%% of %u with one.\n",
                  p.abstain_support, 100 * report.abstain.rightly, report.abstain.unanswerable,
                  100 * report.abstain.wrongly, report.abstain.answerable);
    out += line;
  } else {
    out +=
        "\nNever abstains: no threshold separates questions with an answer from those\nwithout "
        "one.\n";
  }
  return out;
}

}  // namespace

Status RunCalibrateCommand(const CalibrateCommand& command, const CommandContext& c) {
  if (!command.cases.empty()) return RunCalibrateOnCases(command, c);
  std::vector<std::string> texts = command.texts;
  if (texts.empty()) {
    std::error_code ec;
    if (!std::filesystem::is_directory(kLicences, ec)) {
      return InvalidArgument(std::string("calibrate: ") + kLicences +
                             " does not exist; name some plain text with --text");
    }
    for (const char* name : {"GPL-3", "GPL-2", "LGPL-2.1", "MPL-2.0", "Apache-2.0", "GFDL-1.3",
                             "Artistic", "LGPL-3"}) {
      const std::string path = std::string(kLicences) + "/" + name;
      if (std::filesystem::exists(path, ec)) texts.push_back(path);
    }
    c.terminal.Note(
        "no --text: learning from this machine's licence texts; text like that of your memories "
        "gives a better profile");
  }
  LH_ASSIGN_OR_RETURN(const Haystack source, LoadTexts(texts));
  const std::atomic<bool>* stop = c.catch_signals();
  LH_ASSIGN_OR_RETURN(LanguageModel* const model, c.load_model_only());
  LH_ASSIGN_OR_RETURN(const MemoryHome home, MemoryHome::Temporary());

  const ProfileTarget target = CalibrationTarget(c.config, model->info(), command.out);
  const std::unique_ptr<StoreProvider> stores = c.stores_in(home.path());
  const Result<CalibrationReport> report = [&] {
    StatusLine status(&c.terminal);
    return Calibrate(*model, source,
                     {.stores = stores.get(),
                      .name = target.name,
                      .seed = command.seed,
                      .minutes = command.minutes},
                     stop, [&](const CalibrateProgress& p) {
                       status.Show(p.step, "calibrate: " + p.step +
                                               (p.total > 1 ? " " + FormatCount(p.done) + " of " +
                                                                  FormatCount(p.total)
                                                            : ""));
                     });
  }();
  if (!report.ok()) return report.status();
  LH_RETURN_IF_ERROR(WriteProfile(report->profile, target.path));
  c.terminal.Out(c.json ? ProfileJson(report->profile) + "\n" : Text(*report));
  c.terminal.Note(target.WrittenNote());
  if (!report->profile.heads.empty())
    c.terminal.Note(
        "existing memories are indexed for other heads; 'longhold reindex NAME' indexes one for "
        "these");
  return OkStatus();
}

}  // namespace longhold
