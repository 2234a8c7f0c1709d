// A speed report as JSON and as tables of at most 80 columns. Boost.JSON is used in this file only.
#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <span>

#include "base/format.h"
#include "eval/speed.h"

namespace longhold {
namespace {

namespace json = boost::json;

// Number of lengths in one table: the column of names and four more fill a line.
constexpr size_t kColumnsMax = 4;
constexpr size_t kLineWidth = 80;
constexpr int kNameWidth = 27, kCellWidth = 12;

// A number with at least three digits; without decimals from 100 on.
std::string Number(double value) {
  return Format(value >= 100 ? "%.0f" : value >= 10 ? "%.1f" : "%.2f", value);
}

double Ratio(double value, double of) { return of > 0 ? value / of : 0; }

json::object SpreadObject(const Spread& s) {
  return {{"median", s.median}, {"low", s.low}, {"high", s.high}, {"count", s.count}};
}

json::object MachineObject(const SpeedMachine& m) {
  json::array flags, peaks;
  for (const std::string& flag : m.flags) flags.emplace_back(json::string(flag));
  for (const PeakSpeed& p : m.peaks) {
    peaks.push_back(json::object{
        {"name", p.name}, {"instruction", p.instruction}, {"giga_ops", SpreadObject(p.giga_ops)}});
  }
  return {{"processor", m.processor},
          {"flags", std::move(flags)},
          {"cores", m.cores},
          {"threads", m.threads},
          {"memory_bytes", m.memory_bytes},
          {"read_gb_s", SpreadObject(m.read_gb_s)},
          {"peaks", std::move(peaks)}};
}

json::object LengthObject(const LengthSpeed& s) {
  json::object full;
  if (!s.full.skipped.empty()) {
    full["skipped"] = s.full.skipped;
  } else {
    full = {{"prefill_tok_s", s.full.prefill_tok_s},
            {"tail_ms", SpreadObject(s.full.tail_ms)},
            {"decode_tok_s", SpreadObject(s.full.decode_tok_s)},
            {"read_ratio", Ratio(s.read_tok_s, s.full.prefill_tok_s)},
            {"decode_ratio", Ratio(s.decode_tok_s.median, s.full.decode_tok_s.median)}};
  }
  return {{"length", s.length},
          {"tokens", s.tokens},
          {"alone", json::object{{"prefill_tok_s", SpreadObject(s.alone_prefill_tok_s)},
                                 {"decode_tok_s", SpreadObject(s.alone_decode_tok_s)}}},
          {"read", json::object{{"tok_s", s.read_tok_s},
                                {"pieces_tok_s", SpreadObject(s.read_pieces_tok_s)},
                                {"first_64k_tok_s", s.first_64k_tok_s},
                                {"last_64k_tok_s", s.last_64k_tok_s},
                                {"alone_ratio", Ratio(s.read_tok_s, s.alone_prefill_tok_s.median)},
                                {"ram_bytes", s.read_ram_bytes},
                                {"disk_bytes", s.disk_bytes}}},
          {"ask",
           json::object{{"plan_ms", SpreadObject(s.plan_ms)},
                        {"scan_ms", SpreadObject(s.scan_ms)},
                        {"recall_ms", SpreadObject(s.recall_ms)},
                        {"prompt_ms", SpreadObject(s.prompt_ms)},
                        {"first_token_ms", SpreadObject(s.first_token_ms)},
                        {"decode_tok_s", SpreadObject(s.decode_tok_s)},
                        {"alone_ratio", Ratio(s.decode_tok_s.median, s.alone_decode_tok_s.median)},
                        {"attended_share", SpreadObject(s.attended_share)},
                        {"ram_bytes", s.ask_ram_bytes}}},
          {"full", std::move(full)}};
}

// One row of the table: its name and the text of a cell, "" if the value was not measured.
struct Row {
  const char* name;
  std::string (*cell)(const LengthSpeed& speed);
};

std::string Median(const Spread& s) { return s.count == 0 ? "" : Number(s.median); }
std::string Quartiles(const Spread& s) {
  return s.count < 2 ? "" : Number(s.low) + "-" + Number(s.high);
}
std::string Times(double ratio) { return ratio <= 0 ? "" : Format("%.2f", ratio); }
std::string Megabytes(uint64_t bytes) {
  return bytes == 0 ? "" : Number(static_cast<double>(bytes) / 1e6);
}

constexpr Row kRows[] = {
    {"tokens", [](const LengthSpeed& s) { return FormatCount(s.tokens); }},
    {"libllama prefill, tok/s", [](const LengthSpeed& s) { return Median(s.alone_prefill_tok_s); }},
    {"  quartiles", [](const LengthSpeed& s) { return Quartiles(s.alone_prefill_tok_s); }},
    {"ingest, tok/s", [](const LengthSpeed& s) { return Number(s.read_tok_s); }},
    {"  quartiles of pieces", [](const LengthSpeed& s) { return Quartiles(s.read_pieces_tok_s); }},
    {"  ratio to libllama",
     [](const LengthSpeed& s) { return Times(Ratio(s.read_tok_s, s.alone_prefill_tok_s.median)); }},
    {"  last 64K / first 64K",
     [](const LengthSpeed& s) {
       return s.tokens < 131072 ? "" : Times(Ratio(s.last_64k_tok_s, s.first_64k_tok_s));
     }},
    {"  RAM without weights, MB", [](const LengthSpeed& s) { return Megabytes(s.read_ram_bytes); }},
    {"  disk, bytes per token",
     [](const LengthSpeed& s) {
       return FormatCount(s.disk_bytes / std::max<uint64_t>(1, s.tokens));
     }},
    {"time to first token, ms", [](const LengthSpeed& s) { return Median(s.first_token_ms); }},
    {"  quartiles", [](const LengthSpeed& s) { return Quartiles(s.first_token_ms); }},
    {"  plan", [](const LengthSpeed& s) { return Median(s.plan_ms); }},
    {"    of which head scan", [](const LengthSpeed& s) { return Median(s.scan_ms); }},
    {"  recall and rerank", [](const LengthSpeed& s) { return Median(s.recall_ms); }},
    {"  prompt", [](const LengthSpeed& s) { return Median(s.prompt_ms); }},
    {"  RAM without weights, MB", [](const LengthSpeed& s) { return Megabytes(s.ask_ram_bytes); }},
    {"attended, % of the text",
     [](const LengthSpeed& s) {
       return s.attended_share.count == 0 ? "" : Number(100 * s.attended_share.median);
     }},
    {"libllama decode, tok/s", [](const LengthSpeed& s) { return Median(s.alone_decode_tok_s); }},
    {"decode, tok/s", [](const LengthSpeed& s) { return Median(s.decode_tok_s); }},
    {"  quartiles", [](const LengthSpeed& s) { return Quartiles(s.decode_tok_s); }},
    {"  ratio to libllama",
     [](const LengthSpeed& s) {
       return Times(Ratio(s.decode_tok_s.median, s.alone_decode_tok_s.median));
     }},
    {"full attention, prefill",
     [](const LengthSpeed& s) {
       return s.full.skipped.empty() ? Number(s.full.prefill_tok_s) : "not run";
     }},
    {"  ingest / full attention",
     [](const LengthSpeed& s) { return Times(Ratio(s.read_tok_s, s.full.prefill_tok_s)); }},
    {"  decode", [](const LengthSpeed& s) { return Median(s.full.decode_tok_s); }},
    {"  decode / full attention",
     [](const LengthSpeed& s) {
       return Times(Ratio(s.decode_tok_s.median, s.full.decode_tok_s.median));
     }},
    {"  time to first token, ms", [](const LengthSpeed& s) { return Median(s.full.tail_ms); }},
};

std::string Line(const std::string& name, const std::vector<std::string>& cells) {
  char text[128];
  std::snprintf(text, sizeof text, "%-*s", kNameWidth, name.c_str());
  std::string out = text;
  for (const std::string& cell : cells) {
    std::snprintf(text, sizeof text, " %*s", kCellWidth, cell.c_str());
    out += text;
  }
  return out.substr(0, out.find_last_not_of(' ') + 1) + "\n";
}

std::string MachineText(const SpeedReport& report) {
  const SpeedMachine& m = report.machine;
  std::string out = m.processor + ", " + std::to_string(m.cores) + " cores, " +
                    Format("%.0f GiB", static_cast<double>(m.memory_bytes) / (1ull << 30)) +
                    "; kernels " + report.environment.kernels + ", " + std::to_string(m.threads) +
                    (m.threads == 1 ? " thread\n" : " threads\n");
  // Some processors have more flags than fit on a line.
  std::string line = "flags:";
  for (const std::string& flag : m.flags) {
    if (line.size() + 1 + flag.size() > kLineWidth) {
      out += line + "\n";
      line = "      ";
    }
    line += " " + flag;
  }
  out += line + (m.flags.empty() ? " none that longhold uses" : "") + "\n";
  out += "memory read: " + Number(m.read_gb_s.median) + " GB/s (" + Number(m.read_gb_s.low) +
         " to " + Number(m.read_gb_s.high) + ")\n";
  for (const PeakSpeed& p : m.peaks) {
    out += "peak " + p.name + ": " +
           (p.instruction.empty()
                ? "not supported by this processor"
                : Number(p.giga_ops.median) + " G operations/s (" + Number(p.giga_ops.low) +
                      " to " + Number(p.giga_ops.high) + "; " + p.instruction + ")") +
           "\n";
  }
  return out;
}

}  // namespace

std::string SpeedJson(const SpeedReport& report) {
  json::array lengths;
  for (const LengthSpeed& speed : report.lengths) lengths.push_back(LengthObject(speed));
  const EvalEnvironment& e = report.environment;
  const SpeedSettings& s = report.settings;
  json::object out{{"version", e.version},
                   {"kernels", e.kernels},
                   {"model", e.model},
                   {"model_fingerprint", e.model_fingerprint},
                   {"profile", e.profile},
                   {"profile_fingerprint", e.profile_fingerprint},
                   {"settings", json::object{{"questions", s.questions},
                                             {"runs", s.runs},
                                             {"full_length_max", s.full_length_max},
                                             {"max_tokens", s.max_tokens},
                                             {"seed", s.seed},
                                             {"haystack", s.haystack},
                                             {"codec", s.codec}}},
                   {"machine", MachineObject(report.machine)},
                   {"lengths", std::move(lengths)}};
  return json::serialize(out);
}

std::string SpeedText(const SpeedReport& report) {
  const EvalEnvironment& e = report.environment;
  std::string out = MachineText(report) + "\n" + e.model + ", codec " + report.settings.codec +
                    ", longhold " + e.version + "\n";
  for (size_t first = 0; first < report.lengths.size(); first += kColumnsMax) {
    const std::span lengths =
        std::span(report.lengths)
            .subspan(first, std::min(kColumnsMax, report.lengths.size() - first));
    std::vector<std::string> cells;
    for (const LengthSpeed& speed : lengths) cells.push_back(LengthName(speed.length));
    out += "\n" + Line("", cells);
    for (const Row& row : kRows) {
      cells.clear();
      for (const LengthSpeed& speed : lengths) cells.push_back(row.cell(speed));
      if (std::any_of(cells.begin(), cells.end(),
                      [](const std::string& cell) { return !cell.empty(); }))
        out += Line(row.name, cells);
    }
  }
  return out;
}

}  // namespace longhold
