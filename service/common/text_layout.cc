// Layout of text for terminals: wrapped lines, excerpts and durations.
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <set>

#include "base/utf8.h"
#include "service/common/render.h"

namespace longhold {
namespace {

// The lower-case words of `text` that have at least four bytes (shorter words are too frequent),
// and its numbers. Bytes above ASCII count as letters.
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
  // The words of the text, and whether a line begins at each. Invalid bytes and control characters
  // are replaced.
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
  // words of the hint that each word of the text contains
  std::vector<std::vector<std::string>> hits(words.size());
  for (size_t i = 0; i < words.size(); ++i) {
    for (std::string& word : Words(words[i].text)) {
      if (hints.count(word) > 0) hits[i].push_back(std::move(word));
    }
  }
  // The end of the excerpt that starts at word i. It leaves room for both ellipses.
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
    // Start inside a line only when an excerpt from the start of the line does not reach this word.
    if (!words[i].starts_line && i < reach(lines_at)) continue;
    std::set<std::string_view> found;
    for (size_t j = i; j < reach(i); ++j) found.insert(hits[j].begin(), hits[j].end());
    size_t score = 0;
    for (const std::string_view word : found) score += word.size();  // long words are rarer
    if (score > best_score) {
      best_score = score;
      best_begin = i;
    }
    if (reach(i) == words.size()) break;  // later excerpts contain fewer words
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
