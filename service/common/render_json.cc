// The JSON forms of replies. Only this file of the renderer includes Boost.JSON.
#include <boost/json.hpp>

#include "service/common/json_text.h"
#include "service/common/render.h"

namespace longhold {
namespace {

namespace json = boost::json;

json::string Text(std::string_view text) { return JsonString(text); }

json::array Reasons(const RecalledSpan& span) {
  json::array reasons;
  for (const std::string& reason : span.reasons) reasons.emplace_back(Text(reason));
  return reasons;
}

json::value DateLine(const RecalledSpan& span) {
  return span.date_line.empty() ? json::value(nullptr) : json::value(Text(span.date_line));
}

// Adds the member "lost" to a degraded reply.
void AddLost(const Degradation& d, json::object* reply) {
  if (d.blocks_lost + d.spans_lost > 0)
    (*reply)["lost"] = json::object{{"blocks", d.blocks_lost}, {"spans", d.spans_lost}};
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
  for (const ExplainedSpan& c : reply.explained) {
    json::array found, missing, word_gains, trail;
    json::object signals;
    for (const SignalScore& s : c.signals) signals[std::string(s.signal)] = s.score;
    for (const TrailEntry& entry : c.trail) {
      trail.push_back(json::object{{"stage", Text(entry.stage)},
                                   {"action", Text(entry.action)},
                                   {"reason", Text(entry.reason)}});
    }
    for (size_t i = 0; i < c.found.size(); ++i) {
      (c.found[i] ? found : missing).emplace_back(Text(reply.words.at(i).text));
      word_gains.emplace_back(c.word_gains[i]);
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
                     {"signals", std::move(signals)},
                     {"score_planned", c.planned_score},
                     {"token_gain", c.token_gain},
                     {"support", c.support},
                     {"score", c.span.score},
                     {"words_found", std::move(found)},
                     {"words_missing", std::move(missing)},
                     {"words_token_gain", std::move(word_gains)},
                     {"kept", c.kept},
                     {"why", Text(c.why)},
                     {"trail", std::move(trail)}});
  }
  (*object)["words"] = std::move(words);
  (*object)["explained"] = std::move(candidates);
}

json::object ShowObject(const MemoryInfo& info) {
  json::array documents;
  for (const DocumentInfo& document : info.documents) {
    json::object object{{"name", Text(document.name)},
                        {"bytes", document.bytes},
                        {"tokens", document.tokens},
                        {"searchable_tokens", document.searchable_tokens},
                        {"committed_tokens", document.committed_tokens}};
    if (!document.aliases.empty()) {
      json::array& aliases = object["aliases"].emplace_array();
      for (const std::string& alias : document.aliases) aliases.emplace_back(Text(alias));
    }
    documents.push_back(std::move(object));
  }
  json::object object{{"memory", Text(info.name)},         {"model", Text(info.model)},
                      {"documents", std::move(documents)}, {"tokens", info.tokens},
                      {"tokens_read", info.tokens_read},   {"disk_bytes", info.disk_bytes}};
  if (!info.status.ok()) {
    object["error"] = json::object{{"code", StatusCodeName(info.status.code())},
                                   {"message", Text(info.status.message())}};
  }
  return object;
}

// JSON null where nothing was measured: no recall head, or no embedding model, was used.
json::value Optional(const std::optional<double>& value) {
  return value.has_value() ? json::value(*value) : json::value(nullptr);
}

json::object EvidenceObject(const Evidence& evidence) {
  constexpr std::string_view kLevels[] = {"none", "weak", "strong"};
  return {{"level", kLevels[static_cast<size_t>(evidence.level)]},
          {"found_share", evidence.found_share},
          {"similarity", Optional(evidence.similarity)}};
}

}  // namespace

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
                                     {"date_line", DateLine(span)},
                                     {"score", span.score},
                                     {"provisional", span.provisional},
                                     {"reasons", Reasons(span)}});
  }
  json::object object{{"answer", Text(reply.answer)},
                      {"citations", std::move(citations)},
                      {"coverage", Optional(reply.coverage)},
                      {"token_gain", reply.token_gain},
                      {"abstained", reply.abstained},
                      {"evidence", EvidenceObject(reply.evidence)},
                      {"grounded", reply.grounded},
                      {"plan", json::object{{"candidates", reply.candidates},
                                            {"spans", reply.spans},
                                            {"tokens_recalled", reply.tokens_recalled},
                                            {"hops", reply.hops},
                                            {"generation_spans", reply.generation_spans},
                                            {"blocks_read", reply.blocks_read},
                                            {"bytes_read", reply.bytes_read},
                                            {"tokens_read_first", reply.tokens_read_first}}},
                      {"usage", json::object{{"memory_tokens", reply.memory_tokens},
                                             {"prompt_tokens", reply.prompt_tokens},
                                             {"completion_tokens", reply.completion_tokens}}},
                      {"timings", json::object{{"plan_ms", reply.timings.plan_ms},
                                               {"recall_ms", reply.timings.recall_ms},
                                               {"prompt_ms", reply.timings.prompt_ms},
                                               {"decode_ms", reply.timings.decode_ms},
                                               {"first_token_ms", reply.timings.first_token_ms},
                                               {"decode_tok_s", reply.timings.decode_tok_s}}}};
  if (!reply.cited_answer.empty()) object["cited_answer"] = Text(reply.cited_answer);
  AddLost(reply.degradation, &object);
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
                                 {"date_line", DateLine(span)},
                                 {"score", span.score},
                                 {"provisional", span.provisional},
                                 {"reasons", Reasons(span)}});
  }
  json::object object{{"spans", std::move(spans)},
                      {"coverage", Optional(reply.coverage)},
                      {"token_gain", reply.token_gain},
                      {"abstained", reply.abstained},
                      {"evidence", EvidenceObject(reply.evidence)},
                      {"hops", reply.hops},
                      {"timings", json::object{{"plan_ms", reply.timings.plan_ms}}}};
  if (!reply.words.empty() || !reply.explained.empty()) AddExplanation(reply, &object);
  AddLost(reply.degradation, &object);
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
      {"tokens_indexed", s.tokens_indexed},
      {"index_seconds", s.index_seconds},
      {"tokens_unread", s.tokens_unread},
      {"seconds", s.seconds},
      {"tokens_per_s", s.seconds > 0 ? static_cast<double>(s.tokens_read) / s.seconds : 0.0},
      {"first_64k_tok_s", s.first_64k_tok_s},
      {"last_64k_tok_s", s.last_64k_tok_s},
      {"peak_rss_bytes", s.peak_rss_bytes},
      {"disk_bytes", s.disk_bytes}});
}

std::string_view CatalogStateName(CatalogState::Kind kind) {
  switch (kind) {
    case CatalogState::Kind::kReady: return "ready";
    case CatalogState::Kind::kDamaged: return "damaged";
    case CatalogState::Kind::kAbsent: break;
  }
  return "absent";
}

std::string CatalogJson(const std::vector<ModelEntry>& models) {
  json::array list;
  for (const ModelEntry& model : models) {
    list.push_back(json::object{{"name", Text(model.name)},
                                {"kind", ModelKindName(model.kind)},
                                {"licence", Text(model.licence)},
                                {"bytes", model.bytes},
                                {"state", CatalogStateName(model.state.kind)},
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
      {"embedder", entry(Text(config.embedder.value), config.embedder.origin)},
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

}  // namespace longhold
