// Parses commands of Redis clients from a stream of bytes: RESP arrays of bulk strings, and inline
// commands. https://redis.io/docs/latest/develop/reference/protocol-spec describes the protocol.
//
// It owns the buffer that a socket is read into. A long argument gets memory of its own, into which
// the rest of it is read directly. Nothing is allocated before its length has been checked, and for
// a long argument not before the owner has agreed.
//
// Owner: a connection. Thread use: *confined*. It does no I/O.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/value_store.h"

namespace longhold {

// One argument of a command: text, or the bytes of a long one. Value type; move-only use.
struct RespArgument {
  std::string text;
  std::shared_ptr<ValueBytes> bytes;  // set for a long argument; `text` is empty then
  std::string_view view() const { return bytes != nullptr ? bytes->view() : text; }
};

class RespParser {
 public:
  // An argument above this many bytes is a long one.
  static constexpr size_t kShortBytesMax = 4096;
  static constexpr size_t kBufferBytes = 16 << 10;
  static constexpr size_t kInlineBytesMax = 8 << 10;
  static constexpr size_t kArgumentsMax = 4096;
  // Of a command: one value, and what else belongs to it.
  static constexpr uint64_t kCommandBytesMax = kValueBytesMax + (1 << 20);

  enum class Event : uint8_t {
    kNeedMore,      // read more bytes
    kLongArgument,  // an argument of long_bytes() follows; AllowLong() goes on
    kCommand,       // TakeCommand() has it
    kError,         // error() says why; the stream cannot be parsed any further
  };

  RespParser() : buffer_(kBufferBytes) {}

  // Where the next bytes go, in this order. Valid until the next call of another function. The last
  // call of Next returned kNeedMore.
  std::array<std::span<char>, 2> Space();
  // That many bytes were put there.
  void Added(size_t bytes);
  // Goes on with the bytes that are there.
  Event Next();

  // Whether it waits for AllowLong.
  bool waits() const { return state_ == State::kLongWaiting; }
  uint64_t long_bytes() const { return bulk_bytes_; }
  void AllowLong();
  // What the short arguments of the current command take so far.
  uint64_t short_bytes() const { return short_bytes_; }
  // The arguments of the command, at least one. The first is its name.
  std::vector<RespArgument> TakeCommand();
  // A line for the client, such as "Protocol error: invalid bulk length".
  const std::string& error() const { return error_; }
  // Whether a command has begun and is not complete.
  bool within_command() const { return state_ != State::kStart || begin_ < end_; }

 private:
  enum class State : uint8_t {
    kStart,
    kLength,       // of an argument
    kShort,        // the bytes of a short argument
    kLongWaiting,  // for AllowLong
    kLong,         // the bytes of a long argument
    kLongEnd,      // the line end behind it
    kFailed,
  };

  std::string_view rest() const { return {buffer_.data() + begin_, end_ - begin_}; }
  Event Fail(std::string why);
  // Reads a line of at most `bytes_max` without its end. False: it is not complete.
  bool ReadLine(size_t bytes_max, std::string_view* line, bool* too_long);
  Event ReadStart(bool* done);
  Event ReadInline(bool* done);
  Event ReadLength(bool* done);
  // True: the line end behind an argument has been read. False: it is not complete, or wrong (then
  // the state is kFailed).
  bool ReadLineEnd();

  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;  // of the bytes in buffer_ that are not parsed yet
  State state_ = State::kStart;
  std::vector<RespArgument> arguments_;
  size_t arguments_left_ = 0;
  uint64_t bulk_bytes_ = 0;     // length of the current argument
  uint64_t long_have_ = 0;      // bytes of a long argument that have been read
  uint64_t command_bytes_ = 0;  // of all arguments so far
  uint64_t short_bytes_ = 0;    // of the short ones, with the objects that hold them
  std::string error_;
};

}  // namespace longhold
