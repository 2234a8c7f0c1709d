// `longhold calibrate --cases DIR`: reads labelled cases, learns a recall profile from them, prints
// a report and stores the profile.

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <optional>
#include <set>

#include "base/utf8.h"
#include "eval/calibrate_cases.h"
#include "service/cli/commands.h"
#include "service/cli/memory_home.h"
#include "service/cli/model_choice.h"
#include "service/cli/profile_file.h"
#include "service/cli/progress.h"
#include "service/common/render.h"
#include "service/common/text_input.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;

// "cases/book/" is the kind "book".
std::string KindName(const std::string& directory) {
  const std::string path = DocumentName(directory);
  const std::string name = fs::path(path).filename().string();
  return name.empty() || name == "." || name == ".." ? path : name;
}

Result<std::vector<CaseDocument>> LoadTexts(const std::string& directory, Terminal* terminal) {
  const std::string texts = DocumentName(directory + "/texts");
  std::error_code ec;
  if (!fs::is_directory(texts, ec))
    return NotFound(texts + ": no such directory; put the texts of this kind there");
  LH_ASSIGN_OR_RETURN(const TextInputs inputs,
                      CollectInputs({texts}, STDIN_FILENO, {.ignore_rules = false}));
  for (const std::string& note : inputs.notes) terminal->Note(note);
  std::vector<CaseDocument> documents;
  uint64_t bytes = 0;
  for (const TextSource& source : inputs.sources) {
    LH_ASSIGN_OR_RETURN(std::string text, ReadText(source));
    bytes += text.size();
    if (bytes > kTextBytesMax)
      return ResourceExhausted(texts + ": more than " + FormatBytes(kTextBytesMax) +
                               " of text; name a part of it");
    documents.push_back({source.name.substr(texts.size() + 1), std::move(text)});
  }
  return documents;
}

// The kinds of text, one a directory. Errors name the file.
Result<std::vector<LabelledKind>> LoadKinds(const std::vector<std::string>& directories,
                                            Terminal* terminal) {
  std::vector<LabelledKind> kinds;
  std::set<std::string> names;
  for (const std::string& directory : directories) {
    const std::string name = KindName(directory);
    if (!names.insert(name).second)
      return InvalidArgument("--cases " + directory + ": a second kind of text named " + name +
                             "; rename one of the directories");
    const std::string file = DocumentName(directory + "/questions.tsv");
    LH_ASSIGN_OR_RETURN(const std::string questions, ReadText({.name = file, .path = file}));
    LH_ASSIGN_OR_RETURN(std::vector<CaseDocument> documents, LoadTexts(directory, terminal));
    LH_ASSIGN_OR_RETURN(LabelledKind kind,
                        ParseLabelledCases(name, std::move(documents), questions, file));
    kinds.push_back(std::move(kind));
  }
  return kinds;
}

// The profile that the model has now. The generic one becomes the model's own, called `name`.
Result<RecallProfile> PresentProfile(const Config& config, const ModelInfo& model,
                                     const std::string& name) {
  LH_ASSIGN_OR_RETURN(std::optional<RecallProfile> chosen, ChooseProfile(config, model));
  RecallProfile profile = chosen ? std::move(*chosen) : RecallProfile::For(model);
  if (profile.name != kGenericProfile) return profile;
  profile.name = name;
  profile.MatchOnly(model);
  return profile;
}

// ------------------------------------------------------------------------------------------------
// the report

// Lines of at most 80 columns.
template <typename... Args>
std::string Line(const char* format, Args... args) {
  char line[160];
  std::snprintf(line, sizeof line, format, args...);
  return std::string(line) + "\n";
}

std::string RankLine(const std::string& kind, const char* ranked_by, const RankScore& s) {
  return Line("  %-20.20s %-24s %5.0f / %3.0f / %3.0f   %7.1f", kind.c_str(), ranked_by,
              100 * s.hit1, 100 * s.hit4, 100 * s.hit8, 100 * s.mrr);
}

// The mean over kinds.
RankScore MeanOf(const CaseReport& report, RankScore KindJudgement::*which) {
  RankScore mean;
  const auto kinds = static_cast<double>(report.kinds.size());
  for (const KindJudgement& kind : report.kinds) {
    const RankScore& s = kind.*which;
    mean.hit1 += s.hit1 / kinds;
    mean.hit4 += s.hit4 / kinds;
    mean.hit8 += s.hit8 / kinds;
    mean.mrr += s.mrr / kinds;
  }
  return mean;
}

std::string RankTable(const CaseReport& report) {
  std::string out = "Evidence in the first 1 / 4 / 8 spans, and mean reciprocal rank, %:\n";
  out += Line("  %-20s %-24s %5s / %3s / %3s   %7s", "kind", "ranked by", "1", "4", "8", "MRR");
  const auto rows = [&](const std::string& kind, const auto& score) {
    out += RankLine(kind, "words alone", score(&KindJudgement::words));
    out += RankLine("", "present profile", score(&KindJudgement::present));
    if (report.judged) out += RankLine("", "learned without it", score(&KindJudgement::without));
    out += RankLine("", "learned on all", score(&KindJudgement::all));
  };
  for (const KindJudgement& kind : report.kinds) {
    rows(MakePrintable(kind.name), [&](RankScore KindJudgement::*which) { return kind.*which; });
  }
  if (report.judged)
    rows("mean of kinds", [&](RankScore KindJudgement::*which) { return MeanOf(report, which); });
  return out;
}

std::string RefusalCell(const RefusalScore& s) {
  char cell[32];
  std::snprintf(cell, sizeof cell, "%4.1f / %3.0f", 100 * s.refused, 100 * s.recognised);
  return cell;
}

std::string RefusalTable(const CaseReport& report) {
  std::string out =
      "Questions refused, of those with an answer / recognised, of those without, %:\n";
  out += Line("  %-20s %9s   %-10s   %-10s   %-10s", "kind", "questions", "   present",
              report.judged ? "   without" : "", "   written");
  for (const KindJudgement& k : report.kinds) {
    char count[32];
    std::snprintf(count, sizeof count, "%zu, %zu", k.answerable, k.unanswerable);
    out += Line("  %-20.20s %9s   %10s   %10s   %10s", MakePrintable(k.name).c_str(), count,
                RefusalCell(k.refusal_present).c_str(),
                report.judged ? RefusalCell(k.refusal_without).c_str() : "",
                RefusalCell(k.refusal_final).c_str());
  }
  return out;
}

std::string Weights(const CaseReport& report, const std::vector<double>& weights) {
  std::string out;
  char one[48];
  for (size_t s = 0; s < weights.size(); ++s) {
    std::snprintf(one, sizeof one, "%s%s %.2f", s > 0 ? " " : "", report.signals[s].c_str(),
                  weights[s]);
    out += one;
  }
  return out;
}

// What the profile gets, and what it was.
std::string Decisions(const CaseReport& report) {
  std::string out = "Weights:\n";
  const auto weights = [&](const std::string& from, const std::vector<double>& learned) {
    out += Line("  %-30.30s  %s", from.c_str(), Weights(report, learned).c_str());
  };
  weights("present", report.present_weights);
  for (const KindJudgement& kind : report.kinds) {
    if (report.judged) weights("without " + MakePrintable(kind.name), kind.weights_without);
  }
  weights("learned on all", report.learned_weights);
  if (report.weights_kept)
    out += "  The present ones are kept: the learned ones rank worse on kinds left out.\n";
  if (!report.judged)
    out += "  Not judged: a single kind of text cannot be left out; name more with --cases.\n";
  out += "\nAbstains below:\n";
  const auto thresholds = [&](const char* from, const AbstainThresholds& t) {
    out += Line("  %-30s  found share %.2f, similarity %.2f", from, t.found, t.similarity);
  };
  thresholds("present", report.present_thresholds);
  if (report.learned_thresholds) thresholds("learned on all", *report.learned_thresholds);
  if (report.thresholds_kept)
    out += report.learned_thresholds
               ? "  The present ones are kept: learned ones refuse too many on a kind left out.\n"
               : "  The present ones are kept: no pair refuses few enough and recognises any.\n";
  out +=
      Line("\nSpans: %u (present: %u). Evidence in the first spans, %%:", report.profile.spans_max,
           report.present_spans);
  std::string counts = "  spans", shares = "  found";
  char cell[16];
  for (size_t i = 0; i < report.evidence_by_spans.size(); ++i) {
    std::snprintf(cell, sizeof cell, "%7u", kSpanCounts[i]);
    counts += cell;
    std::snprintf(cell, sizeof cell, "%7.1f", 100 * report.evidence_by_spans[i]);
    shares += cell;
  }
  return out + counts + "\n" + shares + "\n";
}

std::string Text(const CaseReport& report) {
  uint64_t tokens = 0;
  size_t questions = 0;
  for (const KindJudgement& kind : report.kinds) {
    tokens += kind.tokens;
    questions += kind.answerable;
  }
  return FormatCount(report.kinds.size()) + " kinds of text, " + FormatCount(questions) +
         " questions with an answer, " + FormatCount(tokens) + " tokens, " +
         FormatDuration(report.seconds) + "\n\n" + RankTable(report) + "\n" + RefusalTable(report) +
         "\n" + Decisions(report);
}

}  // namespace

Status RunCalibrateOnCases(const CalibrateCommand& command, const CommandContext& c) {
  LH_ASSIGN_OR_RETURN(const std::vector<LabelledKind> kinds, LoadKinds(command.cases, &c.terminal));
  const std::atomic<bool>* stop = c.catch_signals();
  LH_ASSIGN_OR_RETURN(LanguageModel* const model, c.load_model_only());
  LH_ASSIGN_OR_RETURN(const std::unique_ptr<TextEmbedder> embedder,
                      LoadChosenEmbedder(c.config, c.catalog));
  if (embedder == nullptr)
    c.terminal.Note("no embedding model, so the weight of the signal dense is not learned");
  const ProfileTarget target = CalibrationTarget(c.config, model->info(), command.out);
  LH_ASSIGN_OR_RETURN(const RecallProfile present,
                      PresentProfile(c.config, model->info(), target.name));
  LH_ASSIGN_OR_RETURN(const MemoryHome home, MemoryHome::Temporary());
  const std::unique_ptr<StoreProvider> stores = c.stores_in(home.path());
  const Result<CaseReport> report = [&] {
    StatusLine status(&c.terminal);
    return CalibrateOnCases(
        *model, embedder.get(), kinds, {.stores = stores.get(), .present = present}, stop,
        [&](const CalibrateProgress& p) {
          status.Show(p.step, "calibrate: " + p.step + ": " + FormatCount(p.done) + " of " +
                                  FormatCount(p.total));
        });
  }();
  if (!report.ok()) return report.status();
  LH_RETURN_IF_ERROR(WriteProfile(report->profile, target.path));
  c.terminal.Out(c.json ? ProfileJson(report->profile) + "\n" : Text(*report));
  c.terminal.Note(target.WrittenNote());
  return OkStatus();
}

}  // namespace longhold
