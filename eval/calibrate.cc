#include "eval/calibrate.h"

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <utility>

#include "base/hash.h"
#include "eval/calibration_cases.h"
#include "eval/metrics.h"
#include "eval/rng.h"
#include "memory/engine.h"
#include "memory/index/lexical_index.h"

namespace longhold {
namespace {

namespace json = boost::json;
using Clock = std::chrono::steady_clock;

constexpr char kMemory[] = "calibration";
// The number of heads that a profile may name, and the number that are tried: the best single ones.
constexpr size_t kHeadsMax = 8;
constexpr size_t kHeadPool = 16;
// Shares of the time limit: the end of reading, of answering for the gate, and of abstaining.
constexpr double kReadingShare = 0.35;
constexpr double kAnsweringUntil = 0.75;
constexpr double kAbstainingUntil = 0.95;
// The default comes first. Another value replaces it only if it scores higher.
constexpr double kGates[] = {2, 1, 4};
// Values tried for RecallProfile::reencode_tokens (docs/decisions/0007).
constexpr uint32_t kReencodes[] = {192, 0};
// Span budgets. 2, 4 and 12 spans are about 4, 8 and 32 blocks.
constexpr uint32_t kBudgets[] = {2, 4, 12};
constexpr size_t kGateCases = 28;
constexpr uint32_t kAnswerTokens = 40;
// Number of questions for the abstention threshold; half have an answer. One half of them chooses
// the threshold, the other half judges it.
constexpr size_t kAbstainQuestions = 96;
// Number of spans that the model reranks for each of these questions.
constexpr uint32_t kRerankedSpans = 16;
// The threshold may abstain on at most kWronglyMax of the questions with an answer. It need not
// abstain on more than kRightly of those without one.
constexpr double kWronglyMax = 0.02;
constexpr double kRightly = 0.9;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Reports progress and holds the stop flag.
struct Course {
  const std::atomic<bool>* stop;
  const std::function<void(const CalibrateProgress&)>& on_progress;
  Clock::time_point start = Clock::now();

  bool Stopped() const { return stop != nullptr && stop->load(); }
  void Tell(const char* step, uint64_t done, uint64_t total) const {
    if (on_progress) on_progress({step, done, total});
  }
};

RecallProfile ProfileFor(const ModelInfo& m, const std::string& name) {
  RecallProfile p;
  p.name = name;
  p.MatchOnly(m);
  p.abstain_found = kAbstainFound;
  p.rerank_spans = 0;  // docs/decisions/0029
  return p;
}

// Ingests the corpus text into a memory without recall heads, until the time share is used up.
Status ReadText(LanguageModel& model, const CalibrateSettings& settings,
                const CalibrationCorpus& corpus, const Course& course) {
  Engine engine(settings.stores, {.codec = std::string(ExactCodec().name())});
  RecallProfile bare = ProfileFor(model.info(), settings.name);
  LH_RETURN_IF_ERROR(engine.UseModel(&model, &bare));
  std::atomic<bool> enough = false;
  const auto watch = [&](const IngestProgress& p) {
    course.Tell("reading", p.tokens_done, p.tokens_total);
    const bool late = SecondsSince(course.start) > settings.minutes * 60 * kReadingShare &&
                      p.tokens_done >= kCommitTokens;
    if (course.Stopped() || late) enough = true;
  };
  LH_RETURN_IF_ERROR(
      engine.Ingest(kMemory, {.name = "text", .text = corpus.text}, &enough, watch).status());
  return course.Stopped() ? Cancelled("calibrate: stopped") : OkStatus();
}

Result<SignalTable> ProbeAll(LanguageModel& model, const CalibrateSettings& settings,
                             const CalibrationCorpus& corpus, const Course& course,
                             uint64_t* tokens) {
  const LexicalVocabulary vocabulary(TokenPieces(model));
  LH_ASSIGN_OR_RETURN(auto store, settings.stores->Open(kMemory, StoreMode::kRead,
                                                        EngineOptions().memory_budget_bytes));
  LH_ASSIGN_OR_RETURN(const auto memory, Memory::Open(std::move(store), kMemory, &model.info()));
  memory->UseVocabulary(&vocabulary);
  LH_RETURN_IF_ERROR(memory->LoadIndexes());
  *tokens = memory->committed_tokens();
  return MeasureSignals(model, *memory, vocabulary, corpus, course.stop,
                        [&](size_t done, size_t total) { course.Tell("probing", done, total); });
}

// ------------------------------------------------------------------------------------------------
// heads and weights

using Cases = std::vector<const CaseSignals*>;

Cases Choose(const SignalTable& table, const CalibrationCorpus& corpus,
             const std::function<bool(const CalibrationCase&)>& wanted) {
  Cases chosen;
  for (const CaseSignals& c : table.cases) {
    if (wanted(corpus.cases[c.item])) chosen.push_back(&c);
  }
  return chosen;
}

// The score of a profile, as weights over the heads of the table.
SignalWeights WeightsOf(const RecallProfile& p, const SignalTable& table) {
  SignalWeights w;
  w.lexical = p.WeightOf(kWordSignal);
  double sum = 0;
  for (const RecallHead& head : p.heads) sum += head.weight;
  for (size_t i = 0; i < table.heads.size(); ++i) {
    for (const RecallHead& head : p.heads) {
      if (head.layer != table.heads[i].layer || head.kv_head != table.heads[i].kv_head || sum <= 0)
        continue;
      w.heads.push_back(i);
      w.weights.push_back(p.WeightOf(kHeadSignal) * head.weight / sum);
    }
  }
  return w;
}

// Writes the learned weights into a profile. The planner takes the weighted mean of the heads and
// multiplies it by the weight of the head signal. So the profile's score equals the learned one up
// to a factor, which makes the larger weight of word and head signal 1.
void PutWeights(const SignalWeights& w, const SignalTable& table, RecallProfile* p) {
  double sum = 0, largest = 0;
  for (const double x : w.weights) {
    sum += x;
    largest = std::max(largest, x);
  }
  const double scale = std::max(sum, w.lexical);
  p->heads.clear();
  for (size_t i = 0; i < w.heads.size(); ++i) {
    RecallHead head = table.heads[w.heads[i]];
    head.weight = w.weights[i] / largest;
    p->heads.push_back(head);
  }
  const double words = scale > 0 ? w.lexical / scale : 1;
  // Other signals keep the weights that they have.
  p->signals[std::string(kHeadSignal)] = scale > 0 ? sum / scale : 1;
  p->signals[std::string(kWordSignal)] = words;
  p->signals[std::string(kExpansionSignal)] = words;
}

std::vector<double> Doubles(const std::vector<float>& x) { return {x.begin(), x.end()}; }

std::vector<HeadScore> RankHeads(const SignalTable& table, const Cases& learned) {
  std::vector<HeadScore> heads;
  for (size_t h = 0; h < table.heads.size(); ++h) {
    heads.push_back({table.heads[h], Judge(learned, [h](const CaseSignals& c) {
                       return Doubles(c.head_share[h]);
                     })});
  }
  std::stable_sort(heads.begin(), heads.end(), [](const HeadScore& a, const HeadScore& b) {
    return a.alone.mrr > b.alone.mrr;
  });
  return heads;
}

// The index of the head whose `signal` ranks the training cases best.
size_t BestHead(const SignalTable& table, const Cases& learned,
                std::vector<std::vector<float>> CaseSignals::*signal) {
  size_t best = 0;
  double best_mrr = -1;
  for (size_t h = 0; h < table.heads.size(); ++h) {
    const double mrr =
        Judge(learned, [&](const CaseSignals& c) { return Doubles((c.*signal)[h]); }).mrr;
    if (mrr > best_mrr) {
      best_mrr = mrr;
      best = h;
    }
  }
  return best;
}

// Scores per form. One mean over all forms would hide that a head helps where words do not match
// and harms where they suffice.
std::vector<FormScore> ScoreForms(const SignalTable& table, const CalibrationCorpus& corpus,
                                  const BlockScorer& words, const BlockScorer& head,
                                  const BlockScorer& calibrated) {
  std::map<std::pair<bool, std::string>, Cases> forms;
  for (const CaseSignals& c : table.cases) {
    const CalibrationCase& item = corpus.cases[c.item];
    if (!item.learned) forms[{item.new_form, item.form}].push_back(&c);
  }
  std::vector<FormScore> scores;
  for (const auto& [key, cases] : forms) {
    scores.push_back(
        {key.second, key.first, Judge(cases, words), Judge(cases, head), Judge(cases, calibrated)});
  }
  return scores;
}

// ------------------------------------------------------------------------------------------------
// gate and re-encoding

// The cases used to choose the gate: needles of the training set, evenly from all forms.
std::vector<const CalibrationCase*> GateCases(const CalibrationCorpus& corpus,
                                              const SignalTable& table) {
  std::vector<const CalibrationCase*> all, chosen;
  for (const CaseSignals& c : table.cases) {
    const CalibrationCase& item = corpus.cases[c.item];
    if (item.learned && !item.answer.empty()) all.push_back(&item);
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const auto* a, const auto* b) { return a->form < b->form; });
  for (size_t i = 0; i < std::min(all.size(), kGateCases); ++i)
    chosen.push_back(all[i * all.size() / std::min(all.size(), kGateCases)]);
  return chosen;
}

std::vector<std::pair<double, uint32_t>> Variants() {
  std::vector<std::pair<double, uint32_t>> variants;
  for (const uint32_t reread : kReencodes) {
    for (const double gate : kGates) variants.emplace_back(gate, reread);
  }
  return variants;
}

// Answers each case with every combination of gate, re-encoding and budget, until the time is over.
// All combinations see the same cases, so their scores are comparable.
Result<std::vector<GateScore>> TryGates(LanguageModel& model, const CalibrateSettings& settings,
                                        const RecallProfile& profile,
                                        const std::vector<const CalibrationCase*>& cases,
                                        const Course& course) {
  {
    Engine writer(settings.stores, {});
    LH_RETURN_IF_ERROR(writer.UseModel(&model, &profile));
    LH_RETURN_IF_ERROR(writer.Reindex(kMemory, course.stop).status());
  }
  std::vector<GateScore> scores;
  std::vector<std::unique_ptr<Engine>> engines;
  for (const auto& [gate, reread] : Variants()) {
    RecallProfile tried = profile;
    tried.gate = gate;
    tried.reencode_tokens = reread;
    engines.push_back(std::make_unique<Engine>(settings.stores, EngineOptions{}));
    LH_RETURN_IF_ERROR(engines.back()->UseModel(&model, &tried));
    for (const uint32_t spans : kBudgets)
      scores.push_back({.gate = gate, .reread = reread, .spans = spans});
  }
  for (size_t i = 0; i < cases.size(); ++i) {
    course.Tell("answering", i, cases.size());
    if (i >= 4 && SecondsSince(course.start) > settings.minutes * 60 * kAnsweringUntil) break;
    size_t at = 0;
    for (const auto& engine : engines) {
      for (const uint32_t spans : kBudgets) {
        AskOptions options;
        options.max_tokens = kAnswerTokens;
        options.focused().recall.spans_max = spans;
        options.focused().recall.abstain = false;
        options.stop = course.stop;
        LH_ASSIGN_OR_RETURN(const AskReply reply,
                            engine->Ask(kMemory, cases[i]->question, options));
        if (course.Stopped()) return Cancelled("calibrate: stopped");
        GateScore& score = scores[at++];
        score.answered +=
            (StringMatchAll(reply.answer, {cases[i]->answer}) - score.answered) / ++score.cases;
      }
    }
  }
  return scores;
}

// Sets gate and reencode_tokens to the combination with the most correct answers over all budgets,
// minus a tenth of the difference between its best and worst budget. Ties go to the first
// combination: with re-encoding and the default gate. Re-encoding won in every larger measurement
// (docs/decisions/0007).
void ChooseGate(const std::vector<GateScore>& scores, RecallProfile* profile) {
  double best = -1;
  for (const auto& [gate, reread] : Variants()) {
    double sum = 0, low = 1, high = 0;
    size_t count = 0;
    for (const GateScore& s : scores) {
      if (s.gate != gate || s.reread != reread || s.cases == 0) continue;
      sum += s.answered;
      low = std::min(low, s.answered);
      high = std::max(high, s.answered);
      ++count;
    }
    if (count == 0) continue;
    const double value = sum / static_cast<double>(count) - 0.1 * (high - low);
    if (value <= best + 1e-9) continue;
    best = value;
    profile->gate = gate;
    profile->reencode_tokens = reread;
  }
}

// ------------------------------------------------------------------------------------------------
// abstention threshold

// The largest support of any span, with reranking (memory/recall/abstention.h). Questions without
// reranking use another threshold, on matched words, which is the same for every model.
Result<double> SupportOf(Engine& engine, const std::string& question) {
  // If some layers store no keys of the document, reranking runs its branches one after another, at
  // twice the cost.
  const uint32_t spans =
      engine.model_info().native_window > 0 ? kRerankedSpans / 2 : kRerankedSpans;
  LH_ASSIGN_OR_RETURN(
      const RecallReply reply,
      engine.Recall(kMemory, question, {.abstain = false, .explain = true, .rerank_spans = spans}));
  double support = 0;
  for (const ExplainedSpan& e : reply.explained) support = std::max(support, e.support);
  return support;
}

// Learns the abstention threshold from the even questions and judges it by the odd ones. Questions
// are drawn from all forms.
Result<double> LearnAbstaining(LanguageModel& model, const CalibrateSettings& settings,
                               const RecallProfile& profile, const CalibrationCorpus& corpus,
                               const SignalTable& table, const Course& course,
                               AbstainScore* score) {
  std::vector<std::string> with, without = corpus.unanswerable, keys = corpus.other_keys;
  for (const CaseSignals& c : table.cases) with.push_back(corpus.cases[c.item].question);
  EvalRng rng(settings.seed, "abstaining");
  rng.Shuffle(&with);
  rng.Shuffle(&without);
  rng.Shuffle(&keys);
  Engine engine(settings.stores, {});
  LH_RETURN_IF_ERROR(engine.UseModel(&model, &profile));
  std::vector<double> support[3][2];  // [answerable, unanswerable, other keys][judged]
  const std::vector<std::string>* const kinds[] = {&with, &without, &keys};
  const size_t count = std::min({with.size(), without.size(), kAbstainQuestions / 2});
  for (size_t i = 0; i < count; ++i) {
    course.Tell("abstaining", 2 * i, 2 * count);
    if (course.Stopped()) return Cancelled("calibrate: stopped");
    if (SecondsSince(course.start) > settings.minutes * 60 * kAbstainingUntil) break;
    for (size_t kind = 0; kind < 3; ++kind) {
      // Questions for absent keys do not choose the threshold: their support is as high as that of
      // present keys (docs/decisions/0006).
      if (kind == 2 && (i % 4 != 0 || i >= keys.size())) continue;
      LH_ASSIGN_OR_RETURN(const double value, SupportOf(engine, (*kinds[kind])[i]));
      support[kind][kind == 2 ? 1 : i % 2].push_back(value);
    }
  }
  const double mark = AbstainBelow(support[0][0], support[1][0], kWronglyMax, kRightly);
  const auto below = [&](const std::vector<double>& values) {
    double n = 0;
    for (const double v : values) n += v < mark;
    return values.empty() ? 0 : n / static_cast<double>(values.size());
  };
  *score = {.answerable = static_cast<uint32_t>(support[0][1].size()),
            .unanswerable = static_cast<uint32_t>(support[1][1].size()),
            .other_keys = static_cast<uint32_t>(support[2][1].size()),
            .wrongly = below(support[0][1]),
            .rightly = below(support[1][1]),
            .keys_rightly = below(support[2][1])};
  return mark;
}

// ------------------------------------------------------------------------------------------------
// the calibration record

double Rounded(double x) { return std::round(x * 1000) / 1000; }

json::object RankJson(const RankScore& s) {
  return {{"cases", s.cases},
          {"hit@1", Rounded(s.hit1)},
          {"hit@4", Rounded(s.hit4)},
          {"hit@8", Rounded(s.hit8)},
          {"mrr", Rounded(s.mrr)}};
}

std::string Record(const CalibrationReport& report, const ModelInfo& model,
                   const CalibrateSettings& settings) {
  json::array heads, ablation, forms, gates;
  for (const HeadScore& h : report.heads) {
    json::object one{{"layer", h.head.layer}, {"kv_head", h.head.kv_head}};
    for (const auto& [key, value] : RankJson(h.alone)) {
      if (key != "cases") one[key] = value;
    }
    heads.push_back(std::move(one));
  }
  for (const AblationRow& row : report.ablation) {
    ablation.push_back(json::object{{"ranked_by", row.name},
                                    {"learned", RankJson(row.learned)},
                                    {"held_out", RankJson(row.held)},
                                    {"new_forms", RankJson(row.fresh)}});
  }
  for (const FormScore& f : report.forms) {
    forms.push_back(json::object{{"form", f.form},
                                 {"new_form", f.new_form},
                                 {"words", RankJson(f.words)},
                                 {"best_head", RankJson(f.head)},
                                 {"calibrated", RankJson(f.calibrated)}});
  }
  for (const GateScore& g : report.gates) {
    gates.push_back(json::object{{"gate", g.gate},
                                 {"reencode_tokens", g.reread},
                                 {"spans", g.spans},
                                 {"cases", g.cases},
                                 {"answered", Rounded(g.answered)}});
  }
  return json::serialize(json::object{
      {"model", model.name},
      {"model_fingerprint", model.fingerprint},
      {"text_sha256", report.text_sha256},
      {"text_tokens", report.text_tokens},
      {"seed", settings.seed},
      {"cases", report.cases},
      {"heads_alone", std::move(heads)},
      {"ablation", std::move(ablation)},
      {"forms", std::move(forms)},
      {"gates", std::move(gates)},
      {"abstaining", json::object{{"answerable", report.abstain.answerable},
                                  {"unanswerable", report.abstain.unanswerable},
                                  {"other_keys", report.abstain.other_keys},
                                  {"other_keys_turned_down", Rounded(report.abstain.keys_rightly)},
                                  {"turned_down_wrongly", Rounded(report.abstain.wrongly)},
                                  {"turned_down_rightly", Rounded(report.abstain.rightly)}}}});
}

}  // namespace

Result<CalibrationReport> Calibrate(
    LanguageModel& model, const Haystack& source, const CalibrateSettings& settings,
    const std::atomic<bool>* stop,
    const std::function<void(const CalibrateProgress&)>& on_progress) {
  const Course course{stop, on_progress};
  LH_ASSIGN_OR_RETURN(
      const CalibrationCorpus corpus,
      BuildCalibrationCorpus(source, {.bytes = settings.text_bytes, .seed = settings.seed}));
  CalibrationReport report;
  report.text_sha256 = Sha256Hex(source.verbatim);
  LH_RETURN_IF_ERROR(ReadText(model, settings, corpus, course));
  LH_ASSIGN_OR_RETURN(const SignalTable table,
                      ProbeAll(model, settings, corpus, course, &report.text_tokens));
  report.cases = table.cases.size();

  course.Tell("learning", 0, 1);
  const Cases learned = Choose(table, corpus, [](const CalibrationCase& c) { return c.learned; });
  const Cases held =
      Choose(table, corpus, [](const CalibrationCase& c) { return !c.learned && !c.new_form; });
  const Cases fresh = Choose(table, corpus, [](const CalibrationCase& c) { return c.new_form; });
  if (learned.size() < 20) {
    return InvalidArgument("calibrate: only " + std::to_string(learned.size()) +
                           " cases fit into the time limit; raise it with --minutes");
  }
  const SignalWeights weights = LearnWeights(learned, table.heads.size(), kHeadsMax, kHeadPool);
  report.profile = ProfileFor(model.info(), settings.name);
  PutWeights(weights, table, &report.profile);
  report.heads = RankHeads(table, learned);
  report.heads.resize(std::min<size_t>(report.heads.size(), 16));

  const auto row = [&](const std::string& name, const BlockScorer& scorer) {
    report.ablation.push_back(
        {name, Judge(learned, scorer), Judge(held, scorer), Judge(fresh, scorer)});
  };
  row("random", [&](const CaseSignals& c) {
    EvalRng rng(settings.seed + c.item, "random");
    std::vector<double> s(table.blocks);
    for (double& x : s) x = rng.Unit();
    return s;
  });
  row("recency", [&](const CaseSignals&) {
    std::vector<double> s(table.blocks);
    for (size_t b = 0; b < s.size(); ++b) s[b] = static_cast<double>(b);
    return s;
  });
  const BlockScorer by_words = [](const CaseSignals& c) { return Doubles(c.lexical); };
  row("words", by_words);
  const size_t mean_head = BestHead(table, learned, &CaseSignals::block_mean),
               raw_head = BestHead(table, learned, &CaseSignals::head_share);
  row("block mean, best head",
      [&](const CaseSignals& c) { return Doubles(c.block_mean[mean_head]); });
  const BlockScorer by_head = [&](const CaseSignals& c) { return Doubles(c.head_share[raw_head]); };
  row("best head", by_head);
  const RecallProfile before = RecallProfile::For(model.info());
  const SignalWeights shipped = WeightsOf(before, table);
  row("profile " + before.name, [&](const CaseSignals& c) { return shipped.Score(c); });
  const BlockScorer by_both = [&](const CaseSignals& c) { return weights.Score(c); };
  row("calibrated", by_both);
  row("oracle", [&](const CaseSignals& c) {
    std::vector<double> s(table.blocks);
    for (const uint32_t e : c.evidence) s[e] = 1;
    return s;
  });
  report.forms = ScoreForms(table, corpus, by_words, by_head, by_both);
  if (course.Stopped()) return Cancelled("calibrate: stopped");

  LH_ASSIGN_OR_RETURN(report.gates,
                      TryGates(model, settings, report.profile, GateCases(corpus, table), course));
  ChooseGate(report.gates, &report.profile);
  LH_ASSIGN_OR_RETURN(
      report.profile.abstain_support,
      LearnAbstaining(model, settings, report.profile, corpus, table, course, &report.abstain));
  report.seconds = SecondsSince(course.start);
  report.profile.calibration = Record(report, model.info(), settings);
  return report;
}

}  // namespace longhold
