#include "eval/report.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>

#include "base/format.h"

namespace longhold {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr std::pair<EvalMode, std::string_view> kModes[] = {
    {EvalMode::kLonghold, "longhold"},  {EvalMode::kFull, "full"},
    {EvalMode::kWindow, "window"},      {EvalMode::kRagBm25, "rag-bm25"},
    {EvalMode::kRagEmbed, "rag-embed"}, {EvalMode::kRagHybrid, "rag-hybrid"},
    {EvalMode::kOracle, "oracle"}};

// ------------------------------------------------------------------------------------------------
// JSON

json::value HitsJson(const std::optional<std::array<double, 4>>& hits) {
  if (!hits) return nullptr;
  json::object out;
  for (size_t k = 0; k < kHitRanks.size(); ++k)
    out["hit@" + std::to_string(kHitRanks[k])] = (*hits)[k];
  return out;
}

template <typename Strings>
json::array Array(const Strings& strings) {
  json::array out;
  for (const auto& s : strings) out.emplace_back(json::string(s));
  return out;
}

json::object SettingsObject(const EvalSettings& s) {
  json::array lengths, modes;
  for (const uint64_t length : s.lengths) lengths.emplace_back(length);
  for (const EvalMode mode : s.modes) modes.emplace_back(json::string(EvalModeName(mode)));
  return {{"tasks", Array(s.tasks)},
          {"lengths", std::move(lengths)},
          {"modes", std::move(modes)},
          {"depths", s.depths},
          {"questions", s.questions},
          {"texts", s.texts},
          {"one_per_text", s.one_per_text},
          {"seed", s.seed},
          {"haystack", s.haystack},
          {"questions_file", s.questions_file},
          {"chunks", s.chunks},
          {"window_tokens", s.window_tokens},
          {"max_tokens", s.max_tokens},
          {"answer_prefix", s.answer_prefix},
          {"codec", s.codec},
          {"keep", s.keep}};
}

// Reads the members of a JSON object. Remembers the first member that is missing or has the wrong
// type.
class Reader {
 public:
  Reader(const json::object& object, const char* what) : object_(object), what_(what) {}

  void Read(const char* key, std::string* out) {
    if (const json::value* v = Get(key))
      v->is_string() ? void(*out = std::string(v->as_string())) : Fail(key);
  }
  void Read(const char* key, bool* out) {
    if (const json::value* v = Get(key)) v->is_bool() ? void(*out = v->as_bool()) : Fail(key);
  }
  void Read(const char* key, double* out) {
    if (const json::value* v = Get(key))
      v->is_number() ? void(*out = v->to_number<double>()) : Fail(key);
  }
  template <typename Integer>
  void Read(const char* key, Integer* out) {
    const json::value* v = Get(key);
    if (v == nullptr) return;
    boost::system::error_code ec;
    const Integer value = v->to_number<Integer>(ec);
    ec ? Fail(key) : void(*out = value);
  }
  void Read(const char* key, std::vector<std::string>* out) {
    const json::value* v = Get(key);
    if (v == nullptr) return;
    if (!v->is_array()) return Fail(key);
    out->clear();
    for (const json::value& e : v->as_array())
      e.is_string() ? void(out->emplace_back(e.as_string())) : Fail(key);
  }
  // The member. If it is missing, records the failure and returns nullptr.
  const json::value* Get(const char* key) {
    const json::value* v = object_.if_contains(key);
    if (v == nullptr) Fail(key);
    return v;
  }
  void Fail(const char* key) {
    if (status_.ok())
      status_ = InvalidArgument(std::string(what_) + ": \"" + key +
                                "\" is missing or has the wrong type");
  }
  const Status& status() const { return status_; }

 private:
  const json::object& object_;
  const char* what_;
  Status status_;
};

Result<json::object> ParseObject(std::string_view text, const char* what) {
  boost::system::error_code ec;
  json::value value = json::parse(text, ec);
  if (ec || !value.is_object()) return InvalidArgument(std::string(what) + ": is no JSON object");
  return std::move(value.as_object());
}

Result<EvalSettings> SettingsFrom(const json::object& object) {
  EvalSettings s;
  Reader reader(object, "settings");
  reader.Read("tasks", &s.tasks);
  reader.Read("depths", &s.depths);
  reader.Read("questions", &s.questions);
  reader.Read("texts", &s.texts);
  reader.Read("one_per_text", &s.one_per_text);
  reader.Read("seed", &s.seed);
  reader.Read("haystack", &s.haystack);
  reader.Read("questions_file", &s.questions_file);
  reader.Read("chunks", &s.chunks);
  reader.Read("window_tokens", &s.window_tokens);
  reader.Read("max_tokens", &s.max_tokens);
  reader.Read("answer_prefix", &s.answer_prefix);
  // Runs of older versions have neither of the two.
  if (object.contains("keep")) reader.Read("keep", &s.keep);
  if (object.contains("codec")) {
    reader.Read("codec", &s.codec);
  } else {
    s.codec = ExactCodec().name();
  }
  s.lengths.clear();
  s.modes.clear();
  std::vector<std::string> modes;
  reader.Read("modes", &modes);
  for (const std::string& name : modes) {
    LH_ASSIGN_OR_RETURN(const EvalMode mode, ParseEvalMode(name));
    s.modes.push_back(mode);
  }
  if (const json::value* lengths = reader.Get("lengths");
      lengths != nullptr && lengths->is_array()) {
    for (const json::value& length : lengths->as_array()) {
      boost::system::error_code ec;
      s.lengths.push_back(length.to_number<uint64_t>(ec));
      if (ec) reader.Fail("lengths");
    }
  }
  LH_RETURN_IF_ERROR(reader.status());
  if (s.depths == 0 || s.questions == 0 || s.texts == 0)
    return InvalidArgument("settings: depths, questions and texts must be 1 or more");
  return s;
}

json::object EnvironmentObject(const EvalEnvironment& e) {
  return {{"version", e.version},
          {"kernels", e.kernels},
          {"model", json::object{{"name", e.model}, {"fingerprint", e.model_fingerprint}}},
          {"profile", json::object{{"name", e.profile}, {"fingerprint", e.profile_fingerprint}}}};
}

Result<EvalEnvironment> EnvironmentFrom(const json::object& object) {
  EvalEnvironment e;
  Reader reader(object, "environment");
  reader.Read("version", &e.version);
  reader.Read("kernels", &e.kernels);
  const auto read = [&](const char* key, std::string* name, std::string* fingerprint) -> Status {
    const json::value* v = reader.Get(key);
    if (v == nullptr || !v->is_object())
      return InvalidArgument("environment: no " + std::string(key));
    Reader inner(v->as_object(), key);
    inner.Read("name", name);
    inner.Read("fingerprint", fingerprint);
    return inner.status();
  };
  LH_RETURN_IF_ERROR(read("model", &e.model, &e.model_fingerprint));
  LH_RETURN_IF_ERROR(read("profile", &e.profile, &e.profile_fingerprint));
  LH_RETURN_IF_ERROR(reader.status());
  return e;
}

json::object SummaryObject(const EvalSummary& s) {
  json::object out{{"task", s.task},
                   {"length", s.length},
                   {"mode", json::string(EvalModeName(s.mode))},
                   {"questions", s.asked},
                   {"skipped", s.skipped}};
  if (!s.skipped_why.empty()) out["skipped_why"] = s.skipped_why;
  if (s.asked == 0) return out;
  out["score"] = s.score;
  out["score_95"] = json::array{s.score_interval.low, s.score_interval.high};
  out["hits"] = HitsJson(s.hits);
  out["retention"] = s.retention ? json::value(*s.retention) : json::value(nullptr);
  out["first_token_ms"] = s.first_token_ms;
  out["tokens_read"] = s.tokens_read;
  out["text_tokens"] = s.text_tokens;
  out["read_seconds"] = s.read_seconds;
  out["ram_bytes"] = s.ram_bytes;
  if (s.unanswerable + s.abstained_wrongly > 0) {
    out["abstention"] = json::object{{"unanswerable", s.unanswerable},
                                     {"abstained", s.abstained},
                                     {"answerable", s.asked - s.unanswerable},
                                     {"abstained_wrongly", s.abstained_wrongly}};
  }
  return out;
}

std::string CsvField(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + "\"";
}

// ------------------------------------------------------------------------------------------------
// text

std::string Pad(std::string text, size_t columns, bool right) {
  if (text.size() >= columns) return text;
  const std::string fill(columns - text.size(), ' ');
  return right ? fill + text : text + fill;
}

std::string Duration(double ms) {
  if (ms < 1000) return Format("%.0f ms", ms);
  return Format(ms < 100000 ? "%.1f s" : "%.0f s", ms / 1000);
}

std::string Bytes(uint64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib < 1024 ? Format("%.0fM", mib) : Format("%.1fG", mib / 1024);
}

std::string Count(double value) {
  if (value < 10000) return Format("%.0f", value);
  return value < 1e6 ? Format("%.0fk", value / 1000) : Format("%.1fm", value / 1e6);
}

constexpr size_t kWidths[] = {9, 4, 5, 11, 5, 4, 4, 4, 7, 5, 6, 4};

std::string Line(const std::vector<std::string>& cells) {
  std::string out;
  for (size_t i = 0; i < cells.size(); ++i)
    out += (i > 0 ? " " : "") + Pad(cells[i], kWidths[i], i > 0);
  while (out.ends_with(' ')) out.pop_back();
  return out + "\n";
}

std::string SummaryLine(const EvalSummary& s) {
  const std::string name(EvalModeName(s.mode));
  if (s.asked == 0) return Pad(name, kWidths[0], false) + " " + s.skipped_why.substr(0, 70) + "\n";
  std::vector<std::string> cells = {name, std::to_string(s.asked), Format("%.1f", 100 * s.score),
                                    Format("%.1f", 100 * s.score_interval.low) + "-" +
                                        Format("%.1f", 100 * s.score_interval.high)};
  for (size_t k = 0; k < 4; ++k) cells.push_back(s.hits ? Format("%.0f", 100 * (*s.hits)[k]) : "");
  cells.push_back(Duration(s.first_token_ms));
  cells.push_back(Count(s.tokens_read));
  cells.push_back(Bytes(s.ram_bytes));
  cells.push_back(s.retention ? Format("%.2f", *s.retention) : "");
  return Line(cells);
}

// "          abstained: 36 of 40 without an answer (90.0%), 1 of 37 others (2.7%)"
std::string AbstentionLine(const EvalSummary& s) {
  const auto share = [](uint32_t count, uint32_t all) {
    return std::to_string(count) + " of " + std::to_string(all) +
           (all == 0 ? "" : " (" + Format("%.1f", 100.0 * count / all) + "%)");
  };
  // Indented, because the first column of the table is the mode.
  std::string out(kWidths[0] + 1, ' ');
  out += "abstained: ";
  if (s.unanswerable > 0) out += share(s.abstained, s.unanswerable) + " without an answer";
  const uint32_t others = s.asked - s.unanswerable;
  if (others > 0)
    out += (s.unanswerable > 0 ? ", " : "") + share(s.abstained_wrongly, others) +
           (s.unanswerable > 0 ? " others" : "");
  return out + "\n";
}

}  // namespace

std::string_view EvalModeName(EvalMode mode) {
  for (const auto& [m, name] : kModes) {
    if (m == mode) return name;
  }
  return "";
}

Result<EvalMode> ParseEvalMode(std::string_view name) {
  std::string known;
  for (const auto& [mode, n] : kModes) {
    if (n == name) return mode;
    known += (known.empty() ? "" : ", ") + std::string(n);
  }
  return InvalidArgument("mode \"" + std::string(name) + "\": unknown; choose one of " + known);
}

Result<uint64_t> ParseLength(std::string_view text) {
  if (text == "whole") return uint64_t{0};
  uint64_t value = 0, unit = 1;
  std::string_view digits = text;
  if (!digits.empty() && (digits.back() == 'k' || digits.back() == 'K')) unit = 1024;
  if (!digits.empty() && (digits.back() == 'm' || digits.back() == 'M')) unit = 1024 * 1024;
  if (unit > 1) digits.remove_suffix(1);
  const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (ec != std::errc() || end != digits.data() + digits.size() || value == 0 ||
      value > (1ull << 40) / unit) {
    return InvalidArgument("length \"" + std::string(text) +
                           "\": write a number of tokens such as 4096, 4k or 1m, or 'whole'");
  }
  return value * unit;
}

std::string LengthName(uint64_t tokens) {
  if (tokens == 0) return "whole";
  if (tokens % (1024 * 1024) == 0) return std::to_string(tokens / (1024 * 1024)) + "m";
  return tokens % 1024 == 0 ? std::to_string(tokens / 1024) + "k" : std::to_string(tokens);
}

std::string SettingsJson(const EvalSettings& settings) {
  return json::serialize(SettingsObject(settings));
}

Result<EvalSettings> ParseSettings(std::string_view text) {
  LH_ASSIGN_OR_RETURN(const json::object object, ParseObject(text, "settings"));
  return SettingsFrom(object);
}

std::string EvalRow::Key() const {
  return task + "/" + std::to_string(length) + "/" + std::to_string(text) + "/" +
         std::to_string(question) + "/" + std::string(EvalModeName(mode));
}

std::string RowJson(const EvalRow& row) {
  return json::serialize(json::object{{"task", row.task},
                                      {"length", row.length},
                                      {"text", row.text},
                                      {"question", row.question},
                                      {"mode", json::string(EvalModeName(row.mode))},
                                      {"text_tokens", row.text_tokens},
                                      {"depth", row.depth},
                                      {"depth_cell", row.depth_cell},
                                      {"asked", row.asked},
                                      {"answer", row.answer},
                                      {"expected", Array(row.expected)},
                                      {"score", row.score},
                                      {"hits", HitsJson(row.hits)},
                                      {"first_token_ms", row.first_token_ms},
                                      {"tokens_read", row.tokens_read},
                                      {"read_seconds", row.read_seconds},
                                      {"ram_bytes", row.ram_bytes},
                                      {"coverage", row.coverage},
                                      {"token_gain", row.token_gain},
                                      {"unanswerable", row.unanswerable},
                                      {"abstained", row.abstained},
                                      {"skipped", row.skipped}});
}

Result<EvalRow> ParseRow(std::string_view text) {
  LH_ASSIGN_OR_RETURN(const json::object object, ParseObject(text, "row"));
  EvalRow row;
  Reader reader(object, "row");
  std::string mode;
  reader.Read("task", &row.task);
  reader.Read("length", &row.length);
  reader.Read("text", &row.text);
  reader.Read("question", &row.question);
  reader.Read("mode", &mode);
  reader.Read("text_tokens", &row.text_tokens);
  reader.Read("depth", &row.depth);
  reader.Read("depth_cell", &row.depth_cell);
  reader.Read("asked", &row.asked);
  reader.Read("answer", &row.answer);
  reader.Read("expected", &row.expected);
  reader.Read("score", &row.score);
  reader.Read("first_token_ms", &row.first_token_ms);
  reader.Read("tokens_read", &row.tokens_read);
  reader.Read("read_seconds", &row.read_seconds);
  reader.Read("ram_bytes", &row.ram_bytes);
  reader.Read("coverage", &row.coverage);
  // Journals of versions without abstention have none of these.
  if (object.contains("abstained")) {
    reader.Read("token_gain", &row.token_gain);
    reader.Read("unanswerable", &row.unanswerable);
    reader.Read("abstained", &row.abstained);
  }
  reader.Read("skipped", &row.skipped);
  if (const json::value* hits = reader.Get("hits"); hits != nullptr && hits->is_object()) {
    Reader inner(hits->as_object(), "hits");
    row.hits.emplace();
    for (size_t k = 0; k < kHitRanks.size(); ++k)
      inner.Read(("hit@" + std::to_string(kHitRanks[k])).c_str(), &(*row.hits)[k]);
    LH_RETURN_IF_ERROR(inner.status());
  }
  LH_RETURN_IF_ERROR(reader.status());
  LH_ASSIGN_OR_RETURN(row.mode, ParseEvalMode(mode));
  return row;
}

std::vector<EvalSummary> Summarise(const std::vector<EvalRow>& rows, uint64_t seed) {
  struct Group {
    EvalSummary summary;
    std::vector<double> scores, first, read, tokens;
    std::array<std::vector<double>, 4> hits;
    std::map<uint32_t, double> seconds;  // by text
  };
  std::vector<Group> groups;
  for (const EvalRow& row : rows) {
    auto it = std::find_if(groups.begin(), groups.end(), [&](const Group& g) {
      return g.summary.task == row.task && g.summary.length == row.length &&
             g.summary.mode == row.mode;
    });
    if (it == groups.end()) {
      groups.push_back({});
      it = groups.end() - 1;
      it->summary.task = row.task;
      it->summary.length = row.length;
      it->summary.mode = row.mode;
    }
    if (!row.skipped.empty()) {
      if (it->summary.skipped++ == 0) it->summary.skipped_why = row.skipped;
      continue;
    }
    it->scores.push_back(row.score);
    it->summary.unanswerable += row.unanswerable;
    if (row.abstained) ++(row.unanswerable ? it->summary.abstained : it->summary.abstained_wrongly);
    it->first.push_back(row.first_token_ms);
    it->read.push_back(static_cast<double>(row.tokens_read));
    it->tokens.push_back(static_cast<double>(row.text_tokens));
    it->seconds[row.text] = std::max(it->seconds[row.text], row.read_seconds);
    it->summary.ram_bytes = std::max(it->summary.ram_bytes, row.ram_bytes);
    for (size_t k = 0; row.hits && k < 4; ++k) it->hits[k].push_back((*row.hits)[k]);
  }
  std::vector<EvalSummary> out;
  for (Group& g : groups) {
    EvalSummary& s = g.summary;
    s.asked = static_cast<uint32_t>(g.scores.size());
    s.score = Mean(g.scores);
    s.score_interval = BootstrapMean(g.scores, 0.95, seed);
    s.first_token_ms = Median(g.first);
    s.tokens_read = Mean(g.read);
    s.text_tokens = Mean(g.tokens);
    for (const auto& [text, seconds] : g.seconds) s.read_seconds += seconds;
    if (!g.hits[0].empty()) {
      s.hits.emplace();
      for (size_t k = 0; k < 4; ++k) (*s.hits)[k] = Mean(g.hits[k]);
    }
    out.push_back(s);
  }
  for (EvalSummary& s : out) {
    for (const EvalSummary& o : out) {
      if (o.mode == EvalMode::kOracle && o.task == s.task && o.length == s.length && o.score > 0 &&
          s.asked > 0)
        s.retention = s.score / o.score;
    }
  }
  return out;
}

std::string ReportJson(const EvalReport& report) {
  json::object out = EnvironmentObject(report.environment);
  out["settings"] = SettingsObject(report.settings);
  out["seed"] = report.settings.seed;
  out["complete"] = report.complete;
  out["notes"] = Array(report.notes);
  json::array results;
  for (const EvalSummary& s : report.results) results.push_back(SummaryObject(s));
  out["results"] = std::move(results);
  return json::serialize(out);
}

std::string ReportCsv(const EvalReport& report) {
  std::string out =
      "task,length,text,question,mode,text_tokens,depth,depth_cell,score,hit@1,hit@4,hit@8,hit@32,"
      "first_token_ms,tokens_read,"
      "read_seconds,ram_bytes,coverage,token_gain,unanswerable,abstained,skipped,asked,expected,"
      "answer\n";
  for (const EvalRow& row : report.rows) {
    out += row.task + "," + std::to_string(row.length) + "," + std::to_string(row.text) + "," +
           std::to_string(row.question) + "," + std::string(EvalModeName(row.mode)) + "," +
           std::to_string(row.text_tokens) + "," + Format("%.5f", row.depth) + "," +
           std::to_string(row.depth_cell) + "," +
           (row.skipped.empty() ? Format("%.4f", row.score) : "");
    for (size_t k = 0; k < 4; ++k) out += "," + (row.hits ? Format("%.4f", (*row.hits)[k]) : "");
    out += "," + Format("%.1f", row.first_token_ms) + "," + std::to_string(row.tokens_read) + "," +
           Format("%.2f", row.read_seconds) + "," + std::to_string(row.ram_bytes) + "," +
           Format("%.4f", row.coverage) + "," + Format("%.4f", row.token_gain) + "," +
           (row.unanswerable ? "1," : "0,") + (row.abstained ? "1" : "0");
    std::string expected;
    for (const std::string& e : row.expected) expected += (expected.empty() ? "" : "|") + e;
    for (const std::string_view field :
         {std::string_view(row.skipped), std::string_view(row.asked), std::string_view(expected),
          std::string_view(row.answer)}) {
      out += "," + CsvField(field);
    }
    out += "\n";
  }
  return out;
}

std::string ReportText(const EvalReport& report) {
  std::string out;
  for (size_t i = 0; i < report.results.size(); ++i) {
    const EvalSummary& s = report.results[i];
    if (i == 0 || s.task != report.results[i - 1].task ||
        s.length != report.results[i - 1].length) {
      out += (i > 0 ? "\n" : "") + s.task + ", " + LengthName(s.length) +
             (s.text_tokens > 0 ? " (" + Format("%.0f", s.text_tokens) + " tokens)" : "") + "\n";
      out += Line({"mode", "n", "score", "95 %", "hit@1", "@4", "@8", "@32", "first", "reads",
                   "RAM", "ret."});
    }
    out += SummaryLine(s);
    if (s.unanswerable + s.abstained_wrongly > 0) out += AbstentionLine(s);
  }
  for (const std::string& note : report.notes) out += "\n" + note + "\n";
  return out;
}

Status WriteReportFile(const fs::path& path, const std::string& bytes) {
  const fs::path partial = path.string() + ".partial";
  std::ofstream file(partial, std::ios::binary | std::ios::trunc);
  file << bytes;
  file.close();
  std::error_code ec;
  if (file) fs::rename(partial, path, ec);
  if (!file || ec)
    return InvalidArgument(path.string() + ": cannot be written; check the directory and the disk");
  return OkStatus();
}

Status WriteReport(const EvalReport& report, const std::string& directory,
                   const ChartWriter& charts) {
  LH_RETURN_IF_ERROR(
      WriteReportFile(fs::path(directory) / "report.json", ReportJson(report) + "\n"));
  LH_RETURN_IF_ERROR(WriteReportFile(fs::path(directory) / "results.csv", ReportCsv(report)));
  return charts ? charts(report, directory) : OkStatus();
}

std::string HeaderJson(const EvalSettings& settings, const EvalEnvironment& environment) {
  json::object out = EnvironmentObject(environment);
  out["settings"] = SettingsObject(settings);
  return json::serialize(out);
}

Status ParseHeader(std::string_view text, EvalSettings* settings, EvalEnvironment* environment) {
  LH_ASSIGN_OR_RETURN(const json::object object, ParseObject(text, "header"));
  const json::value* s = object.if_contains("settings");
  if (s == nullptr || !s->is_object()) return InvalidArgument("header: no settings");
  LH_ASSIGN_OR_RETURN(*settings, SettingsFrom(s->as_object()));
  LH_ASSIGN_OR_RETURN(*environment, EnvironmentFrom(object));
  return OkStatus();
}

}  // namespace longhold
