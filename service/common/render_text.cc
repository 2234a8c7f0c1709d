// The text forms of replies, for people.
#include <algorithm>
#include <cstdio>

#include "base/utf8.h"
#include "service/common/render.h"

namespace longhold {
namespace {

constexpr size_t kCitationLines = 3;
constexpr size_t kCitationsShown = 4;
constexpr size_t kIndent = 4;

std::string Rate(double tokens_per_s) {
  return Format(tokens_per_s < 9.95 ? "%.1f tok/s" : "%.0f tok/s", tokens_per_s);
}

std::string Plural(uint64_t count, std::string_view noun) {
  return FormatCount(count) + " " + std::string(noun) + (count == 1 ? "" : "s");
}

// A table whose columns are padded to their widest cell. `right` selects right alignment, for
// numbers.
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

// Document and lines of a span: "genesis.txt:123-125", or one line number when the span lies in one
// line.
std::string Place(const RecalledSpan& span) {
  std::string place = CollapseSpace(span.document) + ":" + std::to_string(span.line_begin);
  if (span.line_end > span.line_begin) place += "-" + std::to_string(span.line_end);
  return place;
}

std::string SpanText(size_t index, const RecalledSpan& span, std::string_view hint) {
  std::string out = "[" + std::to_string(index) + "] " + Place(span) + "  (" +
                    Format("%.2f", span.score) + (span.provisional ? ", not read yet" : "") + ")\n";
  for (const std::string& line : Wrap(CollapseSpace(span.date_line), kIndent, kColumns))
    out += line + "\n";
  // Wrapping wastes some columns at line ends, so the excerpt is a little shorter than three full
  // lines.
  const size_t room = kCitationLines * (kColumns - kIndent - 6);
  for (const std::string& line : Wrap(Excerpt(span.text, hint, room), kIndent, kColumns))
    out += line + "\n";
  return out;
}

std::string EvidenceText(const Evidence& evidence, size_t spans, bool abstained,
                         const std::string& memory) {
  if (abstained && spans > 0)
    return "(" + memory +
           " seems to hold nothing on this; these spans are the closest, --no-abstain shows all)\n";
  if (spans == 0) return "(nothing in " + memory + " matches this)\n";
  if (evidence.level != Evidence::Level::kStrong)
    return "(weak evidence: " + memory + " may not say this)\n";
  return "";
}

}  // namespace

std::string CitationsText(const AskReply& reply, std::string_view hint, const std::string& memory) {
  std::string out;
  for (size_t i = 0; i < reply.citations.size() && i < kCitationsShown; ++i) {
    out += SpanText(reply.citations[i].index, reply.citations[i].span, hint);
  }
  if (reply.citations.size() > kCitationsShown) {
    out += "and " + std::to_string(reply.citations.size() - kCitationsShown) +
           " more; --json shows them\n";
  }
  if (reply.abstained) return "";
  if (!reply.grounded)
    return out + "(not from " + memory + ": nothing that was recalled says this)\n";
  return out + EvidenceText(reply.evidence, static_cast<size_t>(reply.spans), false, memory);
}

std::string TimingsText(const AskReply& r) {
  std::string out =
      Plural(r.spans, "span") + ", " + FormatCount(r.tokens_recalled) + " of " +
      Plural(r.memory_tokens, "token") +
      (r.tokens_read_first > 0 ? ", " + FormatCount(r.tokens_read_first) + " read for this first"
                               : std::string()) +
      "; plan " + Format("%.0f ms", r.timings.plan_ms) + ", first token " +
      Format("%.0f ms", r.timings.first_token_ms) + ", " + Plural(r.completion_tokens, "token");
  if (r.timings.decode_tok_s > 0) out += " at " + Rate(r.timings.decode_tok_s);
  return out + "\n";
}

std::string RecallText(const RecallReply& reply, std::string_view query,
                       const std::string& memory) {
  std::string out;
  for (size_t i = 0; i < reply.spans.size(); ++i) out += SpanText(i + 1, reply.spans[i], query);
  return out + EvidenceText(reply.evidence, reply.spans.size(), reply.abstained, memory);
}

std::string ClosestText(const AskReply& reply) {
  if (reply.closest.empty()) return "";
  return "closest: " + Place(reply.closest[0]) + "; --no-abstain answers from it";
}

// Words of query expansion that are shown for each word of the question.
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
  if (!words.empty()) wrapped("words, and the number of blocks that contain them: " + words, 0);
  if (!related.empty()) wrapped("query expansion: " + related, 0);
  wrapped("token gain " + Format("%.2f", reply.token_gain) + " nats per token, " +
              Plural(reply.candidates, "block") + " scored, " +
              Plural(reply.explained.size(), "span") + " ranked" +
              (reply.abstained ? "; below the abstention threshold" : ""),
          0);
  out += "\nrank  before   gain  support  score  place\n";
  for (const ExplainedSpan& c : reply.explained) {
    char line[96];
    std::snprintf(line, sizeof line, "%4s  %6s  %5s  %7s  %5s  ",
                  c.rank > 0 ? std::to_string(c.rank).c_str() : "-",
                  c.planned_rank > 0 ? std::to_string(c.planned_rank).c_str() : "-",
                  c.rank > 0 ? Format("%.2f", c.token_gain).c_str() : "-",
                  c.rank > 0 ? Format("%.2f", c.support).c_str() : "-",
                  Format("%.2f", c.span.score).c_str());
    std::string place = Place(c.span);
    const size_t room = kColumns - std::string(line).size();
    // A long place is cut at its start: the line numbers matter more than the start of the document
    // name.
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
    std::string verdict = c.kept ? "kept" : "not kept: " + c.why;
    if (!found.empty()) verdict += "; has " + found;
    if (!missing.empty()) verdict += "; lacks " + missing;
    wrapped(verdict, 6);
    for (const TrailEntry& entry : c.trail) {
      wrapped(std::string(entry.stage) + ": " + std::string(entry.action) +
                  (entry.reason.empty() ? "" : " (" + CollapseSpace(entry.reason) + ")"),
              8);
    }
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
    const std::string comma = remark.empty() ? "" : ", ";
    if (d.searchable_tokens < d.tokens) {
      remark += comma + FormatCount(d.searchable_tokens) + " found so far";
    } else if (d.committed_tokens < d.tokens) {
      remark += comma + std::to_string(100 * d.committed_tokens / d.tokens) + "% read";
    }
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
  std::string out = s.memory;
  if (s.documents > 0)
    out += ": " + Plural(s.documents, "document") + ", " + Plural(s.tokens, "token");
  const auto seconds = [](double seconds, uint64_t tokens) {
    return " in " + FormatDuration(seconds) + " (" + Rate(static_cast<double>(tokens) / seconds) +
           ")";
  };
  const std::string next = s.documents > 0 ? ", " : ": ";
  if (s.tokens_indexed > 0 && s.index_seconds > 0)
    out += next + "indexed" + seconds(s.index_seconds, s.tokens_indexed);
  if (s.tokens_read > 0 && s.seconds > 0) {
    out += (s.tokens_indexed > 0 ? ", " : next) +
           (s.tokens_read != s.tokens ? FormatCount(s.tokens_read) + " of them " : std::string()) +
           "read" + seconds(s.seconds, s.tokens_read);
  }
  if (s.tokens_indexed + s.tokens_read == 0) out += next + "nothing new";
  if (s.tokens_unread > 0) out += ", " + FormatCount(s.tokens_unread) + " not read yet";
  return out + ", " + FormatBytes(s.disk_bytes) + " on disk\n";
}

std::string ReindexText(const std::string& memory, const ReindexReport& r) {
  return memory + ": " + FormatCount(r.segments_rebuilt) + " of " +
         Plural(r.segments, "index segment") + " rebuilt" +
         (r.other_heads ? ", for other recall heads" : "") + ", " + Plural(r.tokens, "token") +
         " in " + FormatDuration(r.seconds) + "\n";
}

std::string CatalogText(const std::vector<ModelEntry>& models) {
  TextTable table{.right = {false, false, false, true, false, false}, .rows = {}};
  for (const ModelEntry& model : models) {
    table.rows.push_back({model.name, std::string(ModelKindName(model.kind)),
                          model.licence.empty() ? "your own" : model.licence,
                          FormatBytes(model.bytes), std::string(CatalogStateName(model.state.kind)),
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
  add("embedder", CollapseSpace(config.embedder.value), config.embedder.origin);
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

}  // namespace longhold
