#include "service/common/render.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <set>

#include "service/common/json_text.h"
#include "service/common/utf8.h"

namespace longhold {
namespace {

namespace json = boost::json;

constexpr size_t kCitationLines = 3;
constexpr size_t kCitationsShown = 4;
constexpr size_t kIndent = 4;

json::string Text(std::string_view text) { return JsonString(text); }

json::array Reasons(const RecalledSpan& span) {
  json::array reasons;
  for (const std::string& reason : span.reasons) reasons.emplace_back(Text(reason));
  return reasons;
}

// Only a degraded reply has the member.
void AddLost(uint64_t blocks, uint64_t spans, json::object* reply) {
  if (blocks + spans > 0) (*reply)["lost"] = json::object{{"blocks", blocks}, {"spans", spans}};
}

void AddExplanation(const RecallReply& reply, json::object* object) {
  json::array words, candidates;
  for (const QuestionWord& word : reply.words) {
    json::array related;
    for (const std::string& r : word.related) related.emplace_back(Text(r));
    words.push_back(json::object{{"word", Text(word.text)},
                                 {"blocks", word.blocks},
                                 {"weight", word.weight},
                                 {"function_word", word.function_word},
                                 {"related", std::move(related)}});
  }
  for (const ExplainedSpan& c : reply.candidates_explained) {
    json::array found, missing, look;
    for (size_t i = 0; i < c.found.size(); ++i) {
      (c.found[i] ? found : missing).emplace_back(Text(reply.words.at(i).text));
      look.emplace_back(c.word_gains[i]);
    }
    candidates.push_back(
        json::object{{"document", Text(c.span.document)},
                     {"token_begin", c.span.tokens.begin},
                     {"token_end", c.span.tokens.end},
                     {"line_start", c.span.line_begin},
                     {"line_end", c.span.line_end},
                     {"text", Text(c.span.text)},
                     {"rank_planned", c.planned_rank},
                     {"rank", c.rank > 0 ? json::value(c.rank) : json::value(nullptr)},
                     {"head_score", c.head_score},
                     {"lexical_score", c.lexical_score},
                     {"score_planned", c.planned_score},
                     {"token_gain", c.token_gain},
                     {"support", c.support},
                     {"score", c.span.score},
                     {"words_found", std::move(found)},
                     {"words_missing", std::move(missing)},
                     {"words_token_gain", std::move(look)},
                     {"kept", c.kept},
                     {"why", Text(c.why)}});
  }
  (*object)["words"] = std::move(words);
  (*object)["candidates_explained"] = std::move(candidates);
}

json::object ShowObject(const MemoryInfo& info) {
  json::array documents;
  for (const DocumentInfo& document : info.documents) {
    json::object object{{"name", Text(document.name)},
                        {"bytes", document.bytes},
                        {"tokens", document.tokens},
                        {"committed_tokens", document.committed_tokens}};
    if (!document.aliases.empty()) {
      json::array& aliases = object["aliases"].emplace_array();
      for (const std::string& alias : document.aliases) aliases.emplace_back(Text(alias));
    }
    documents.push_back(std::move(object));
  }
  json::object object{{"memory", Text(info.name)},
                      {"model", Text(info.model)},
                      {"documents", std::move(documents)},
                      {"tokens", info.tokens},
                      {"disk_bytes", info.disk_bytes}};
  if (!info.status.ok()) {
    object["error"] = json::object{{"code", StatusCodeName(info.status.code())},
                                   {"message", Text(info.status.message())}};
  }
  return object;
}

std::string Rate(double tokens_per_s) {
  return Format(tokens_per_s < 9.95 ? "%.1f tok/s" : "%.0f tok/s", tokens_per_s);
}

std::string Plural(uint64_t count, std::string_view noun) {
  return FormatCount(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

// Columns padded to their widest cell; numbers to the right.
struct TextTable {
  std::vector<bool> right;
  std::vector<std::vector<std::string>> rows;

  std::string Print() const {
    std::vector<size_t> widths(right.size(), 0);
    for (const auto& row : rows) {
      for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], CountColumns(row[i]));
    }
    std::string out;
    for (const auto& row : rows) {
      std::string line;
      for (size_t i = 0; i < row.size(); ++i) {
        const std::string pad(widths[i] - CountColumns(row[i]), ' ');
        line += (i > 0 ? "  " : "") + (right[i] ? pad + row[i] : row[i] + pad);
      }
      while (line.ends_with(' ')) line.pop_back();
      out += line + "\n";
    }
    return out;
  }
};

// "genesis.txt:123-125", or one number when the span lies in one line.
std::string Place(const RecalledSpan& span) {
  std::string place = CollapseSpace(span.document) + ":" + std::to_string(span.line_begin);
  if (span.line_end > span.line_begin) place += "-" + std::to_string(span.line_end);
  return place;
}

std::string SpanText(size_t index, const RecalledSpan& span, std::string_view hint) {
  std::string out =
      "[" + std::to_string(index) + "] " + Place(span) + "  (" + Format("%.2f", span.score) + ")\n";
  // Wrapping loses some columns at line ends, so the excerpt is asked for a little shorter than
  // three full lines.
  const size_t room = kCitationLines * (kColumns - kIndent - 6);
  for (const std::string& line : Wrap(Excerpt(span.text, hint, room), kIndent, kColumns))
    out += line + "\n";
  return out;
}

// null where no recall head was asked.
json::value Coverage(const std::optional<double>& coverage) {
  return coverage.has_value() ? json::value(*coverage) : json::value(nullptr);
}

std::string CoverageText(const std::optional<double>& coverage, size_t spans, bool abstained,
                         const std::string& memory) {
  if (abstained && spans > 0)
    return "(" + memory +
           " holds nothing on this, it seems: the closest places; --no-abstain for all)\n";
  if (spans == 0) return "(nothing in " + memory + " bears on this)\n";
  if (coverage.has_value() && *coverage < kCoverageLow)
    return "(coverage " + Format("%.2f", *coverage) + ": " + memory + " may not hold the answer)\n";
  return "";
}

// Lower-case words of four bytes and more (shorter ones are everywhere) and numbers; bytes above
// ASCII count as letters.
std::vector<std::string> Words(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (size_t i = 0; i <= text.size(); ++i) {
    const unsigned char c = i < text.size() ? static_cast<unsigned char>(text[i]) : ' ';
    if (std::isalnum(c) || c >= 0x80) {
      word += static_cast<char>(std::tolower(c));
    } else {
      if (word.size() >= 4 || (!word.empty() && std::isdigit(static_cast<unsigned char>(word[0]))))
        words.push_back(word);
      word.clear();
    }
  }
  return words;
}

}  // namespace

// ------------------------------------------------------------------------------------------------
// JSON

json::object AskObject(const AskReply& reply) {
  json::array citations;
  for (const Citation& citation : reply.citations) {
    const RecalledSpan& span = citation.span;
    citations.push_back(json::object{{"index", citation.index},
                                     {"document", Text(span.document)},
                                     {"byte_start", span.bytes.begin},
                                     {"byte_end", span.bytes.end},
                                     {"line_start", span.line_begin},
                                     {"line_end", span.line_end},
                                     {"text", Text(span.text)},
                                     {"score", span.score},
                                     {"reasons", Reasons(span)}});
  }
  json::object object{{"answer", Text(reply.answer)},
                      {"citations", std::move(citations)},
                      {"coverage", Coverage(reply.coverage)},
                      {"token_gain", reply.token_gain},
                      {"abstained", reply.abstained},
                      {"plan", json::object{{"candidates", reply.candidates},
                                            {"spans", reply.spans},
                                            {"tokens_recalled", reply.tokens_recalled},
                                            {"hops", reply.hops},
                                            {"generation_spans", reply.generation_spans},
                                            {"blocks_read", reply.blocks_read},
                                            {"bytes_read", reply.bytes_read}}},
                      {"usage", json::object{{"memory_tokens", reply.memory_tokens},
                                             {"prompt_tokens", reply.prompt_tokens},
                                             {"completion_tokens", reply.completion_tokens}}},
                      {"timings", json::object{{"plan_ms", reply.plan_ms},
                                               {"recall_ms", reply.recall_ms},
                                               {"prompt_ms", reply.prompt_ms},
                                               {"decode_ms", reply.decode_ms},
                                               {"first_token_ms", reply.first_token_ms},
                                               {"decode_tok_s", reply.decode_tok_s}}}};
  if (!reply.cited_answer.empty()) object["cited_answer"] = Text(reply.cited_answer);
  AddLost(reply.blocks_lost, reply.spans_lost, &object);
  return object;
}

std::string AskJson(const AskReply& reply) { return DumpJson(AskObject(reply)); }

std::string RecallJson(const RecallReply& reply) {
  json::array spans;
  for (const RecalledSpan& span : reply.spans) {
    spans.push_back(json::object{{"document", Text(span.document)},
                                 {"token_begin", span.tokens.begin},
                                 {"token_end", span.tokens.end},
                                 {"byte_start", span.bytes.begin},
                                 {"byte_end", span.bytes.end},
                                 {"line_start", span.line_begin},
                                 {"line_end", span.line_end},
                                 {"text", Text(span.text)},
                                 {"score", span.score},
                                 {"reasons", Reasons(span)}});
  }
  json::object object{{"spans", std::move(spans)},
                      {"coverage", Coverage(reply.coverage)},
                      {"token_gain", reply.token_gain},
                      {"abstained", reply.abstained},
                      {"hops", reply.hops},
                      {"timings", json::object{{"plan_ms", reply.plan_ms}}}};
  if (!reply.words.empty() || !reply.candidates_explained.empty()) AddExplanation(reply, &object);
  AddLost(0, reply.spans_lost, &object);
  return DumpJson(object);
}

std::string ShowJson(const MemoryInfo& info) { return DumpJson(ShowObject(info)); }

std::string ListJson(const std::vector<MemoryInfo>& memories) {
  json::array list;
  for (const MemoryInfo& info : memories) list.push_back(ShowObject(info));
  return DumpJson(list);
}

std::string IngestJson(const IngestSummary& s) {
  return DumpJson(json::object{
      {"memory", Text(s.memory)},
      {"documents", s.documents},
      {"tokens", s.tokens},
      {"seconds", s.seconds},
      {"tokens_per_s", s.seconds > 0 ? static_cast<double>(s.tokens_read) / s.seconds : 0.0},
      {"first_64k_tok_s", s.first_64k_tok_s},
      {"last_64k_tok_s", s.last_64k_tok_s},
      {"peak_rss_bytes", s.peak_rss_bytes},
      {"disk_bytes", s.disk_bytes}});
}

namespace {
std::string_view StateName(CatalogState::Kind kind) {
  switch (kind) {
    case CatalogState::Kind::kReady: return "ready";
    case CatalogState::Kind::kDamaged: return "damaged";
    case CatalogState::Kind::kAbsent: break;
  }
  return "absent";
}
}  // namespace

std::string CatalogJson(const std::vector<ModelEntry>& models) {
  json::array list;
  for (const ModelEntry& model : models) {
    list.push_back(json::object{{"name", Text(model.name)},
                                {"kind", ModelKindName(model.kind)},
                                {"licence", Text(model.licence)},
                                {"bytes", model.bytes},
                                {"state", StateName(model.state.kind)},
                                {"path", Text(model.state.path)}});
  }
  return DumpJson(list);
}

std::string ConfigJson(const Config& config) {
  const auto entry = [](json::value value, const std::string& origin) {
    return json::object{{"value", std::move(value)}, {"origin", Text(origin)}};
  };
  json::object object{
      {"home", entry(Text(config.home.value), config.home.origin)},
      {"model", entry(Text(config.model.value), config.model.origin)},
      {"profile", entry(Text(config.profile.value), config.profile.origin)},
      {"threads", entry(config.threads.value, config.threads.origin)},
      {"memory_budget", entry(config.memory_budget_bytes.value, config.memory_budget_bytes.origin)},
      {"listen", entry(Text(config.listen.value), config.listen.origin)}};
  for (const PathSetting& path : PathSettings()) {
    const Setting<std::string>& setting = config.*path.setting;
    object[path.name] = entry(Text(setting.value), setting.origin);
  }
  return DumpJson(object);
}

std::string VersionJson(std::string_view version, std::string_view kernels) {
  return DumpJson(json::object{{"version", Text(version)}, {"kernels", Text(kernels)}});
}

std::string ForgetJson(const std::string& memory, const std::string& document, bool compacted) {
  json::object object{{"memory", Text(memory)}, {"document", nullptr}, {"compacted", compacted}};
  if (!document.empty()) object["document"] = Text(document);
  return DumpJson(object);
}

std::string CompactJson(const std::string& memory, uint64_t disk_bytes_before,
                        uint64_t disk_bytes) {
  return DumpJson(json::object{{"memory", Text(memory)},
                               {"disk_bytes_before", disk_bytes_before},
                               {"disk_bytes", disk_bytes}});
}

std::string TransferJson(const TransferReport& report, const std::string& file) {
  return DumpJson(json::object{{"memory", Text(report.name)},
                               {"file", Text(file)},
                               {"bytes", report.bytes},
                               {"values", report.values}});
}

std::string VerifyJson(const MemoryInfo& info) {
  json::object object{{"memory", Text(info.name)},
                      {"ok", info.status.ok()},
                      {"documents", info.documents.size()},
                      {"tokens", info.tokens}};
  if (!info.status.ok())
    object["error"] = json::object{{"code", StatusCodeName(info.status.code())},
                                   {"message", Text(info.status.message())}};
  return DumpJson(object);
}

std::string TiersJson(const std::string& memory, const TierReport& r) {
  const uint64_t disk_bytes = r.blocks_bytes + r.index_bytes + r.text_bytes + r.other_bytes;
  return DumpJson(
      json::object{{"memory", Text(memory)},
                   {"tokens", r.tokens},
                   {"exact_bytes", r.exact_bytes},
                   {"ram", json::object{{"open", r.open}, {"index_bytes", r.ram_index_bytes}}},
                   {"disk", json::object{{"codec", Text(r.codec)},
                                         {"blocks_bytes", r.blocks_bytes},
                                         {"index_bytes", r.index_bytes},
                                         {"text_bytes", r.text_bytes},
                                         {"other_bytes", r.other_bytes},
                                         {"bytes", disk_bytes}}}});
}

std::string ReindexJson(const std::string& memory, const ReindexReport& r) {
  return DumpJson(json::object{{"memory", Text(memory)},
                               {"other_heads", r.other_heads},
                               {"tokens", r.tokens},
                               {"segments", r.segments},
                               {"segments_rebuilt", r.segments_rebuilt},
                               {"segments_lost", r.segments_lost},
                               {"blocks_lost", r.blocks_lost},
                               {"seconds", r.seconds}});
}

std::string ProfileJson(const RecallProfile& profile) {
  return DumpJson(json::parse(profile.ToJson()));
}

std::string ModelPathJson(const std::string& name, const std::string& path) {
  return DumpJson(json::object{{"name", Text(name)}, {"path", Text(path)}});
}

// ------------------------------------------------------------------------------------------------
// text

std::string CitationsText(const AskReply& reply, std::string_view hint, const std::string& memory) {
  std::string out;
  for (size_t i = 0; i < reply.citations.size() && i < kCitationsShown; ++i) {
    out += SpanText(reply.citations[i].index, reply.citations[i].span, hint);
  }
  if (reply.citations.size() > kCitationsShown) {
    out += "and " + std::to_string(reply.citations.size() - kCitationsShown) +
           " more, which --json shows\n";
  }
  if (reply.abstained) return "";
  return out + CoverageText(reply.coverage, static_cast<size_t>(reply.spans), false, memory);
}

std::string TimingsText(const AskReply& r) {
  std::string out = Plural(r.spans, "span") + ", " + FormatCount(r.tokens_recalled) + " of " +
                    Plural(r.memory_tokens, "token") + "; plan " + Format("%.0f ms", r.plan_ms) +
                    ", first word " + Format("%.0f ms", r.first_token_ms) + ", " +
                    Plural(r.completion_tokens, "token");
  if (r.decode_tok_s > 0) out += " at " + Rate(r.decode_tok_s);
  return out + "\n";
}

std::string RecallText(const RecallReply& reply, std::string_view query,
                       const std::string& memory) {
  std::string out;
  for (size_t i = 0; i < reply.spans.size(); ++i) out += SpanText(i + 1, reply.spans[i], query);
  return out + CoverageText(reply.coverage, reply.spans.size(), reply.abstained, memory);
}

std::string ClosestText(const AskReply& reply) {
  if (reply.closest.empty()) return "";
  return "closest: " + Place(reply.closest[0]) + "; --no-abstain answers from it";
}

// Of the words that may stand for one of the question's, as many as a person will read.
constexpr size_t kExpansionShown = 4;

std::string ExplainText(const RecallReply& reply) {
  std::string words, related;
  for (const QuestionWord& word : reply.words) {
    if (word.function_word) continue;
    for (size_t i = 0; i < std::min(word.related.size(), kExpansionShown); ++i) {
      related += (i > 0 ? ", " : (related.empty() ? "" : "; ") + CollapseSpace(word.text) + ": ") +
                 CollapseSpace(word.related[i]);
    }
    words += (words.empty() ? "" : ", ") + CollapseSpace(word.text) +
             (word.blocks > 0 ? " " + FormatCount(word.blocks) : " nowhere");
  }
  std::string out;
  const auto wrapped = [&](const std::string& text, size_t indent) {
    for (const std::string& line : Wrap(text, indent, kColumns)) out += line + "\n";
  };
  if (!words.empty()) wrapped("words, and blocks that hold them: " + words, 0);
  if (!related.empty()) wrapped("words that may stand for them: " + related, 0);
  wrapped("token gain " + Format("%.2f", reply.token_gain) + " nats a token, " +
              Plural(reply.candidates, "block") + " weighed, " +
              Plural(reply.candidates_explained.size(), "span") + " compared" +
              (reply.abstained ? "; taken as nothing on this" : ""),
          0);
  out += "\nrank  before  heads  words   look  support  score  place\n";
  for (const ExplainedSpan& c : reply.candidates_explained) {
    char line[96];
    std::snprintf(line, sizeof line, "%4s  %6u  %5.3f  %5.3f  %5s  %7s  %5s  ",
                  c.rank > 0 ? std::to_string(c.rank).c_str() : "-", c.planned_rank, c.head_score,
                  c.lexical_score, c.rank > 0 ? Format("%.2f", c.token_gain).c_str() : "-",
                  c.rank > 0 ? Format("%.2f", c.support).c_str() : "-",
                  Format("%.2f", c.span.score).c_str());
    std::string place = Place(c.span);
    const size_t room = kColumns - std::string(line).size();
    // The lines say more than where a document's name begins.
    const bool cut = CountColumns(place) > room;
    while (CountColumns(place) > room - cut) {
      size_t next = 1;
      while (next < place.size() && (static_cast<unsigned char>(place[next]) & 0xC0) == 0x80)
        ++next;
      place.erase(0, next);
    }
    if (cut) place.insert(0, "\u2026");
    out += line + place + "\n";
    std::string found, missing;
    for (size_t i = 0; i < c.found.size(); ++i) {
      if (reply.words[i].function_word) continue;
      std::string& list = c.found[i] ? found : missing;
      list += (list.empty() ? "" : ", ") + CollapseSpace(reply.words[i].text);
    }
    std::string verdict = c.kept ? "kept" : "left out: " + c.why;
    if (!found.empty()) verdict += "; has " + found;
    if (!missing.empty()) verdict += "; lacks " + missing;
    wrapped(verdict, 6);
  }
  return out;
}

std::string ShowText(const MemoryInfo& info) {
  std::string out = CollapseSpace(info.name) + ": " + Plural(info.documents.size(), "document") +
                    ", " + Plural(info.tokens, "token") + ", " + FormatBytes(info.disk_bytes) +
                    " on disk\nmodel " + CollapseSpace(info.model) +
                    (info.codec.empty() ? "" : ", codec " + info.codec) + "\n";
  TextTable table{.right = {false, true, true, false}, .rows = {}};
  for (const DocumentInfo& d : info.documents) {
    std::string remark = d.version > 1 ? "version " + std::to_string(d.version) : "";
    if (d.committed_tokens < d.tokens)
      remark += (remark.empty() ? "" : ", ") + FormatCount(d.committed_tokens) + " read so far";
    for (const std::string& alias : d.aliases)
      remark += (remark.empty() ? "also " : ", also ") + CollapseSpace(alias);
    table.rows.push_back(
        {"  " + CollapseSpace(d.name), FormatBytes(d.bytes), Plural(d.tokens, "token"), remark});
  }
  return out + table.Print();
}

std::string ListText(const std::vector<MemoryInfo>& memories) {
  TextTable table{.right = {false, true, true, true, false}, .rows = {}};
  for (const MemoryInfo& m : memories) {
    if (!m.status.ok()) {
      const bool damaged = m.status.code() == StatusCode::kDataLoss;
      table.rows.push_back({CollapseSpace(m.name), damaged ? "damaged" : "not readable", "",
                            FormatBytes(m.disk_bytes), ""});
      continue;
    }
    table.rows.push_back({CollapseSpace(m.name), Plural(m.documents.size(), "document"),
                          Plural(m.tokens, "token"), FormatBytes(m.disk_bytes),
                          CollapseSpace(m.model)});
  }
  return table.Print();
}

std::string IngestText(const IngestSummary& s) {
  std::string out =
      s.memory + ": " + Plural(s.documents, "document") + ", " + Plural(s.tokens, "token");
  if (s.tokens_read > 0 && s.seconds > 0) {
    out += (s.tokens_read < s.tokens ? ", " + FormatCount(s.tokens_read) + " of them read now"
                                     : std::string()) +
           " in " + FormatDuration(s.seconds) + " (" +
           Rate(static_cast<double>(s.tokens_read) / s.seconds) + ")";
  } else {
    out += ", nothing new";
  }
  return out + ", " + FormatBytes(s.disk_bytes) + " on disk\n";
}

std::string ReindexText(const std::string& memory, const ReindexReport& r) {
  return memory + ": " + FormatCount(r.segments_rebuilt) + " of " +
         Plural(r.segments, "index segment") + " built again" +
         (r.other_heads ? ", for other recall heads" : "") + ", " + Plural(r.tokens, "token") +
         " in " + FormatDuration(r.seconds) + "\n";
}

std::string CatalogText(const std::vector<ModelEntry>& models) {
  TextTable table{.right = {false, false, false, true, false, false}, .rows = {}};
  for (const ModelEntry& model : models) {
    table.rows.push_back({model.name, std::string(ModelKindName(model.kind)),
                          model.licence.empty() ? "yours" : model.licence, FormatBytes(model.bytes),
                          std::string(StateName(model.state.kind)),
                          CollapseSpace(model.state.path)});
  }
  return table.Print();
}

std::string ConfigText(const Config& config, bool origin) {
  TextTable table{.right = {false, false, false}, .rows = {}};
  const auto add = [&](std::string name, std::string value, const std::string& from) {
    table.rows.push_back(
        {std::move(name), std::move(value), origin ? "(" + CollapseSpace(from) + ")" : ""});
  };
  add("home", CollapseSpace(config.home.value), config.home.origin);
  add("model", CollapseSpace(config.model.value), config.model.origin);
  add("profile", config.profile.value.empty() ? "the model's own" : config.profile.value,
      config.profile.origin);
  add("threads", std::to_string(config.threads.value), config.threads.origin);
  add("memory_budget", FormatBytes(config.memory_budget_bytes.value),
      config.memory_budget_bytes.origin);
  add("listen", config.listen.value, config.listen.origin);
  for (const PathSetting& path : PathSettings()) {
    const Setting<std::string>& setting = config.*path.setting;
    add(std::string(path.name), setting.value.empty() ? "none" : CollapseSpace(setting.value),
        setting.origin);
  }
  return table.Print();
}

std::vector<std::string> Wrap(std::string_view text, size_t indent, size_t columns) {
  LH_CHECK(columns > indent);
  const size_t room = columns - indent;
  std::vector<std::string> lines;
  std::string line;
  const auto flush = [&] {
    if (!line.empty()) lines.push_back(std::string(indent, ' ') + line);
    line.clear();
  };
  const std::string collapsed = CollapseSpace(text);
  size_t begin = 0;
  while (begin < collapsed.size()) {
    const size_t end = std::min(collapsed.find(' ', begin), collapsed.size());
    std::string word = collapsed.substr(begin, end - begin);
    begin = end + 1;
    if (!line.empty() && CountColumns(line) + 1 + CountColumns(word) > room) flush();
    while (CountColumns(word) > room) {
      size_t cut = 0;
      for (size_t taken = 0; taken < room; ++taken) {
        ++cut;
        while (cut < word.size() && (static_cast<unsigned char>(word[cut]) & 0xC0) == 0x80) ++cut;
      }
      line = word.substr(0, cut);
      word.erase(0, cut);
      flush();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  flush();
  return lines;
}

void LineWrap::Flush(std::string* out) {
  if (word_.empty()) return;
  const size_t width = CountColumns(word_);
  if (used_ > 0 && used_ + spaces_.size() + width > columns_) {
    *out += '\n';
    used_ = 0;
  } else {
    *out += spaces_;
    used_ += spaces_.size();
  }
  *out += word_;
  used_ += width;
  spaces_.clear();
  word_.clear();
}

std::string LineWrap::Feed(std::string_view piece) {
  std::string out;
  for (const char c : piece) {
    if (c == ' ') {
      Flush(&out);
      spaces_ += c;
    } else if (c == '\n') {
      Flush(&out);
      spaces_.clear();
      out += c;
      used_ = 0;
    } else {
      word_ += c;
    }
  }
  return out;
}

std::string LineWrap::Finish() {
  std::string out;
  Flush(&out);
  return out;
}

std::string Excerpt(std::string_view text, std::string_view hint, size_t columns) {
  // Each word of the text with whether a line begins there; bad bytes and control characters are
  // gone.
  struct Word {
    std::string text;
    size_t columns;
    bool starts_line;
  };
  std::vector<Word> words;
  bool starts_line = true;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find_first_of(" \t\r\n\f\v", begin), text.size());
    if (end > begin) {
      std::string word = CollapseSpace(text.substr(begin, end - begin));
      if (!word.empty()) {
        words.push_back({word, CountColumns(word), starts_line});
        starts_line = false;
      }
    }
    if (end < text.size() && text[end] == '\n') starts_line = true;
    begin = end + 1;
  }
  const std::vector<std::string> hint_list = Words(hint);
  const std::set<std::string> hints(hint_list.begin(), hint_list.end());
  // the hint's words within each word of the text
  std::vector<std::vector<std::string>> hits(words.size());
  for (size_t i = 0; i < words.size(); ++i) {
    for (std::string& word : Words(words[i].text)) {
      if (hints.count(word) > 0) hits[i].push_back(std::move(word));
    }
  }
  // The last word that still fits when the excerpt begins at word i, with room for both ellipses.
  const auto reach = [&](size_t i) {
    size_t used = 0, end = i;
    while (end < words.size() &&
           used + words[end].columns + 1 <= columns - std::min<size_t>(columns, 3))
      used += words[end++].columns + 1;
    return end;
  };
  size_t best_begin = 0, best_score = 0;
  size_t lines_at = 0;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i].starts_line) lines_at = i;
    // Within a line, only where the excerpt from its beginning would not reach.
    if (!words[i].starts_line && i < reach(lines_at)) continue;
    std::set<std::string_view> found;
    for (size_t j = i; j < reach(i); ++j) found.insert(hits[j].begin(), hits[j].end());
    size_t score = 0;
    for (const std::string_view word : found) score += word.size();  // long words are rare ones
    if (score > best_score) {
      best_score = score;
      best_begin = i;
    }
    if (reach(i) == words.size()) break;  // later ones only hold less
  }
  const size_t end = std::max(reach(best_begin), std::min(best_begin + 1, words.size()));
  std::string out = best_begin > 0 ? "\u2026 " : "";
  for (size_t i = best_begin; i < end; ++i) out += (i > best_begin ? " " : "") + words[i].text;
  return end < words.size() ? out + " \u2026" : out;
}

std::string FormatDuration(double seconds) {
  if (!(seconds >= 0)) seconds = 0;
  if (seconds < 9.95) return Format("%.1f s", seconds);
  if (seconds < 99.5) return Format("%.0f s", seconds);
  const auto whole = static_cast<uint64_t>(std::min(seconds, 1e12) + 0.5);
  char text[48];
  if (whole < 3600) {
    std::snprintf(text, sizeof(text), "%llu:%02llu", static_cast<unsigned long long>(whole / 60),
                  static_cast<unsigned long long>(whole % 60));
  } else {
    std::snprintf(text, sizeof(text), "%llu:%02llu:%02llu",
                  static_cast<unsigned long long>(whole / 3600),
                  static_cast<unsigned long long>(whole / 60 % 60),
                  static_cast<unsigned long long>(whole % 60));
  }
  return text;
}

}  // namespace longhold
