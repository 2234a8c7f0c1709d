#include "service/resp/resp_parser.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>

#include "base/text.h"

namespace longhold {
namespace {

// A line with a number: its sign byte, the digits, the line end.
constexpr size_t kNumberBytesMax = 32;

std::optional<int64_t> ParseWhole(std::string_view text) {
  int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return number;
}

}  // namespace

std::array<std::span<char>, 2> RespParser::Space() {
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  std::array<std::span<char>, 2> space;
  if (state_ == State::kLong) {
    const std::shared_ptr<ValueBytes>& bytes = arguments_.back().bytes;
    space[0] = {bytes->data() + long_have_, bytes->size() - long_have_};
  }
  space[1] = {buffer_.data() + end_, buffer_.size() - end_};
  return space;
}

void RespParser::Added(size_t bytes) {
  if (state_ == State::kLong) {
    const size_t own = std::min<uint64_t>(bytes, bulk_bytes_ - long_have_);
    long_have_ += own;
    bytes -= own;
  }
  end_ += bytes;
}

RespParser::Event RespParser::Fail(std::string why) {
  state_ = State::kFailed;
  error_ = std::move(why);
  return Event::kError;
}

bool RespParser::ReadLine(size_t bytes_max, std::string_view* line, bool* too_long) {
  const std::string_view bytes = rest();
  const size_t end = bytes.substr(0, bytes_max).find('\n');
  *too_long = end == std::string_view::npos && bytes.size() >= bytes_max;
  if (end == std::string_view::npos) return false;
  *line = bytes.substr(0, end);
  if (line->ends_with('\r')) line->remove_suffix(1);
  begin_ += end + 1;
  return true;
}

RespParser::Event RespParser::ReadStart(bool* done) {
  *done = true;
  if (begin_ == end_) return Event::kNeedMore;
  if (buffer_[begin_] != '*') return ReadInline(done);
  std::string_view line;
  bool too_long = false;
  if (!ReadLine(kNumberBytesMax, &line, &too_long))
    return too_long ? Fail("Protocol error: too big mbulk count string") : Event::kNeedMore;
  const std::optional<int64_t> count = ParseWhole(line.substr(1));
  if (!count.has_value() || *count > static_cast<int64_t>(kArgumentsMax))
    return Fail("Protocol error: invalid multibulk length");
  *done = false;
  if (*count <= 0) return Event::kNeedMore;  // no command, as in Redis
  arguments_left_ = static_cast<size_t>(*count);
  state_ = State::kLength;
  return Event::kNeedMore;
}

RespParser::Event RespParser::ReadInline(bool* done) {
  *done = true;
  std::string_view line;
  bool too_long = false;
  if (!ReadLine(kInlineBytesMax, &line, &too_long))
    return too_long ? Fail("Protocol error: too big inline request") : Event::kNeedMore;
  // A web page can make a browser send HTTP here, with commands in the body.
  if (line.find(" HTTP/") != std::string_view::npos || line.starts_with("Host:"))
    return Fail("Protocol error: this is not an HTTP server");
  while (!line.empty()) {
    const size_t end = std::min(
        line.size(),
        static_cast<size_t>(std::find_if(line.begin(), line.end(), IsSpace) - line.begin()));
    if (end > 0) arguments_.push_back({.text = std::string(line.substr(0, end)), .bytes = {}});
    line.remove_prefix(std::min(line.size(), end + 1));
  }
  if (!arguments_.empty()) return Event::kCommand;
  *done = false;
  return Event::kNeedMore;
}

RespParser::Event RespParser::ReadLength(bool* done) {
  *done = true;
  std::string_view line;
  bool too_long = false;
  if (begin_ < end_ && buffer_[begin_] != '$')
    return Fail(std::string("Protocol error: expected '$', got '") +
                (buffer_[begin_] > ' ' && buffer_[begin_] < 127 ? buffer_[begin_] : '?') + "'");
  if (!ReadLine(kNumberBytesMax, &line, &too_long))
    return too_long ? Fail("Protocol error: too big bulk count string") : Event::kNeedMore;
  const std::optional<int64_t> bytes = ParseWhole(line.substr(1));
  if (!bytes.has_value() || *bytes < 0 || *bytes > static_cast<int64_t>(kValueBytesMax))
    return Fail("Protocol error: invalid bulk length");
  bulk_bytes_ = static_cast<uint64_t>(*bytes);
  command_bytes_ += bulk_bytes_;
  if (command_bytes_ > kCommandBytesMax) return Fail("Protocol error: too long command");
  if (bulk_bytes_ > kShortBytesMax) {
    state_ = State::kLongWaiting;
    return Event::kLongArgument;
  }
  short_bytes_ += bulk_bytes_ + sizeof(RespArgument);
  state_ = State::kShort;
  *done = false;
  return Event::kNeedMore;
}

bool RespParser::ReadLineEnd() {
  const std::string_view bytes = rest();
  if (bytes.size() < 2) return false;
  if (!bytes.starts_with("\r\n")) {
    (void)Fail("Protocol error: an argument does not end where its length says");
    return false;
  }
  begin_ += 2;
  state_ = --arguments_left_ > 0 ? State::kLength : State::kStart;
  return true;
}

void RespParser::AllowLong() {
  LH_CHECK(state_ == State::kLongWaiting);
  arguments_.push_back({.text = "", .bytes = std::make_shared<ValueBytes>(bulk_bytes_)});
  long_have_ = std::min<uint64_t>(bulk_bytes_, end_ - begin_);
  std::memcpy(arguments_.back().bytes->data(), buffer_.data() + begin_, long_have_);
  begin_ += long_have_;
  state_ = State::kLong;
}

RespParser::Event RespParser::Next() {
  for (;;) {
    bool done = false;
    Event event = Event::kNeedMore;
    switch (state_) {
      case State::kStart: event = ReadStart(&done); break;
      case State::kLength: event = ReadLength(&done); break;
      case State::kShort: {
        if (rest().size() < bulk_bytes_ + 2) return Event::kNeedMore;
        std::string text(rest().substr(0, bulk_bytes_));
        begin_ += bulk_bytes_;
        if (!ReadLineEnd()) return Event::kError;
        arguments_.push_back({.text = std::move(text), .bytes = {}});
        if (state_ == State::kStart) return Event::kCommand;
        break;
      }
      case State::kLongWaiting: return Event::kLongArgument;
      case State::kLong:
        if (long_have_ < bulk_bytes_) return Event::kNeedMore;
        state_ = State::kLongEnd;
        break;
      case State::kLongEnd:
        if (!ReadLineEnd()) return state_ == State::kFailed ? Event::kError : Event::kNeedMore;
        if (state_ == State::kStart) return Event::kCommand;
        break;
      case State::kFailed: return Event::kError;
    }
    if (done) return event;
  }
}

std::vector<RespArgument> RespParser::TakeCommand() {
  command_bytes_ = short_bytes_ = 0;
  return std::exchange(arguments_, {});
}

}  // namespace longhold
