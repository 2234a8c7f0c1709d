// Renders replies. The JSON forms are a contract with users of the command line and of the HTTP
// API. The text forms are for people and fit 80 columns. Pure functions: no I/O, no state. Only
// render_json.cc includes Boost.JSON; the others are render_text.cc and text_layout.cc.
//
// Every JSON function returns one object or array on one line, without a line break at the end. The
// result is valid UTF-8 for any input. Every text function ends its last line with a line break.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/format.h"
#include "memory/engine.h"
#include "model/model_catalog.h"
#include "service/common/config.h"

namespace longhold {

// Width of wrapped text. It fits 80 columns with a margin for what a script prints before each
// line.
inline constexpr size_t kColumns = 75;
// Result of one `ingest` command over all its inputs.
struct IngestSummary {
  std::string memory;
  uint64_t documents = 0;       // inputs of the command: ingested now, or already in the memory
  uint64_t tokens = 0;          // of these documents
  uint64_t tokens_indexed = 0;  // made searchable by this command
  double index_seconds = 0;
  uint64_t tokens_unread = 0;  // of the memory: found, but not yet read by the model
  uint64_t tokens_read = 0;    // by this command; the speeds refer to these
  double seconds = 0;
  double first_64k_tok_s = 0;  // of the first document that was ingested
  double last_64k_tok_s = 0;   // of the last one
  uint64_t peak_rss_bytes = 0;
  uint64_t disk_bytes = 0;
};

// A degraded reply (damaged blocks or spans) has the member "lost": {"blocks", "spans"}.
boost::json::object AskObject(const AskReply& reply);
std::string AskJson(const AskReply& reply);
std::string RecallJson(const RecallReply& reply);
std::string ShowJson(const MemoryInfo& info);
// An array of the objects that ShowJson prints. A memory that cannot be read has the member "error"
// with code and message, no documents and 0 tokens.
std::string ListJson(const std::vector<MemoryInfo>& memories);
std::string IngestJson(const IngestSummary& summary);
// "ready", "damaged" or "absent"
std::string_view CatalogStateName(CatalogState::Kind kind);
std::string CatalogJson(const std::vector<ModelEntry>& models);
std::string ConfigJson(const Config& config);
std::string VersionJson(std::string_view version, std::string_view kernels);
// Results of `forget`, `compact`, export and import, and `verify`. Each has the member "memory".
std::string ForgetJson(const std::string& memory, const std::string& document, bool compacted);
std::string CompactJson(const std::string& memory, uint64_t disk_bytes_before, uint64_t disk_bytes);
std::string TransferJson(const TransferReport& report, const std::string& file);
std::string VerifyJson(const MemoryInfo& info);
std::string TiersJson(const std::string& memory, const TierReport& report);
std::string ReindexJson(const std::string& memory, const ReindexReport& report);
std::string ProfileJson(const RecallProfile& profile);  // the content of its file
std::string ModelPathJson(const std::string& name, const std::string& path);

// The citations of an answer, at most three lines each. Of a longer citation the excerpt with the
// most words of `hint` is shown.
std::string CitationsText(const AskReply& reply, std::string_view hint, const std::string& memory);
std::string TimingsText(const AskReply& reply);  // one line
// For stderr when an answer abstains: "closest: genesis.txt:123-125", and how to see more. Empty
// when the reply has no closest span.
std::string ClosestText(const AskReply& reply);
// Output of `recall --explain`: the words of the question and the candidate spans, the kept ones
// first.
std::string ExplainText(const RecallReply& reply);
std::string RecallText(const RecallReply& reply, std::string_view query, const std::string& memory);
std::string ShowText(const MemoryInfo& info);
std::string ListText(const std::vector<MemoryInfo>& memories);
std::string IngestText(const IngestSummary& summary);
std::string ReindexText(const std::string& memory, const ReindexReport& report);
std::string CatalogText(const std::vector<ModelEntry>& models);
std::string ConfigText(const Config& config, bool origin);

// Wraps `text` at spaces into lines of at most `columns` columns, indented by `indent` spaces. A
// longer word is cut.
std::vector<std::string> Wrap(std::string_view text, size_t indent, size_t columns);
// Wraps text that arrives in pieces, such as an answer, at spaces into lines of at most `columns`
// columns. Line breaks and indentation of the text are kept. A word longer than a line is not cut.
// Owner: one answer. Thread use: *confined*.
class LineWrap {
 public:
  explicit LineWrap(size_t columns) : columns_(columns) {}
  // Returns the text that can be printed now. A word is printed once the space after it shows that
  // it is complete.
  std::string Feed(std::string_view piece);
  std::string Finish();

 private:
  void Flush(std::string* out);

  size_t columns_;
  size_t used_ = 0;     // of the current line
  std::string spaces_;  // before the word
  std::string word_;
};

// Returns an excerpt of at most `columns` columns with white space collapsed: the part of `text`
// with the most words of `hint`. It starts at the start of a line, or at a word when the line is
// longer than the excerpt. An ellipsis marks omitted text.
std::string Excerpt(std::string_view text, std::string_view hint, size_t columns);
std::string FormatDuration(double seconds);  // "0.4 s", "42 s", "3:07", "1:02:03"

}  // namespace longhold
