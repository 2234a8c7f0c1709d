// Replies as text: JSON by the contract of the command line (design, section 7), and pages of at
// most 80 columns for people. Pure functions: no I/O, no state. Boost.JSON stops at render.cc.
//
// Every JSON function returns one object or array on one line, without a line break at its end, in
// valid UTF-8 whatever the input was. Every text function ends its last line.
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

// of wrapped text: fits 80 with a margin for what a script puts before it
inline constexpr size_t kColumns = 75;
// Below: the reply says that the memory may not hold the answer. Right answers showed 0.03 to 0.13
// over 58K tokens and 0.009 over 390K, nonsense 0.02 to 0.04: so this only marks replies with next
// to nothing behind them, until a threshold is calibrated.
inline constexpr double kCoverageLow = 0.005;

// What one `ingest` call did, over all its inputs.
struct IngestSummary {
  std::string memory;
  uint64_t documents = 0;    // named by the call, read or recognised
  uint64_t tokens = 0;       // of these documents
  uint64_t tokens_read = 0;  // by this call; the speeds are about these
  double seconds = 0;
  double first_64k_tok_s = 0;  // of the first document that was read
  double last_64k_tok_s = 0;   // of the last one
  uint64_t peak_rss_bytes = 0;
  uint64_t disk_bytes = 0;
};

// A degraded reply has the member "lost": {"blocks", "spans"}.
boost::json::object AskObject(const AskReply& reply);
std::string AskJson(const AskReply& reply);
std::string RecallJson(const RecallReply& reply);
std::string ShowJson(const MemoryInfo& info);
// An array of what ShowJson prints; a memory that cannot be read has "error" with code and message,
// no documents and no tokens.
std::string ListJson(const std::vector<MemoryInfo>& memories);
std::string IngestJson(const IngestSummary& summary);
std::string CatalogJson(const std::vector<ModelEntry>& models);
std::string ConfigJson(const Config& config);
std::string VersionJson(std::string_view version, std::string_view kernels);
// {"memory": ..., plus what `forget`, `compact` and `verify` have to tell.
std::string ForgetJson(const std::string& memory, const std::string& document, bool compacted);
std::string CompactJson(const std::string& memory, uint64_t disk_bytes_before, uint64_t disk_bytes);
std::string TransferJson(const TransferReport& report, const std::string& file);
std::string VerifyJson(const MemoryInfo& info);
std::string TiersJson(const std::string& memory, const TierReport& report);
std::string ReindexJson(const std::string& memory, const ReindexReport& report);
std::string ProfileJson(const RecallProfile& profile);  // what its file holds
std::string ModelPathJson(const std::string& name, const std::string& path);

// Where a citation's text is longer than its three lines, the stretch with most words of `hint` is
// shown.
std::string CitationsText(const AskReply& reply, std::string_view hint, const std::string& memory);
std::string TimingsText(const AskReply& reply);  // one line
// "closest: genesis.txt:123-125" and how to see more; empty where nothing came close. For stderr,
// when an answer abstains.
std::string ClosestText(const AskReply& reply);
// `recall --explain`: the question's words and what competed, the kept ones first.
std::string ExplainText(const RecallReply& reply);
std::string RecallText(const RecallReply& reply, std::string_view query, const std::string& memory);
std::string ShowText(const MemoryInfo& info);
std::string ListText(const std::vector<MemoryInfo>& memories);
std::string IngestText(const IngestSummary& summary);
std::string ReindexText(const std::string& memory, const ReindexReport& report);
std::string CatalogText(const std::vector<ModelEntry>& models);
std::string ConfigText(const Config& config, bool origin);

// Breaks `text` at spaces into lines of at most `columns`, each preceded by `indent` spaces. Longer
// words are cut.
std::vector<std::string> Wrap(std::string_view text, size_t indent, size_t columns);
// Breaks text that comes in pieces, as an answer does, at spaces into lines of at most `columns`.
// Line breaks and indentation of the text stay; a word that is longer than a line is cut by the
// terminal. Owner: one answer. Thread use: *confined*.
class LineWrap {
 public:
  explicit LineWrap(size_t columns) : columns_(columns) {}
  // What can be shown now: a word comes out once the space after it shows that it is whole.
  std::string Feed(std::string_view piece);
  std::string Finish();

 private:
  void Flush(std::string* out);

  size_t columns_;
  size_t used_ = 0;     // of the current line
  std::string spaces_;  // before the word
  std::string word_;
};

// At most `columns` columns of `text`, white space collapsed: the stretch that holds most words of
// `hint`, beginning at a line of the text or, where its lines are longer than that, at a word; an
// ellipsis stands for what is left out.
std::string Excerpt(std::string_view text, std::string_view hint, size_t columns);
std::string FormatDuration(double seconds);  // "0.4 s", "42 s", "3:07", "1:02:03"

}  // namespace longhold
