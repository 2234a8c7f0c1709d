// Status and Result: how functions report errors. No exception crosses a folder boundary.
//
// Thread use: value types; *immutable* once built.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace longhold {

// A subset of Abseil's canonical codes. New situations get a message, not a new code.
enum class StatusCode : uint8_t {
  kOk = 0,
  kInvalidArgument,     // the caller's input is wrong in any state
  kNotFound,            // the named object does not exist
  kAlreadyExists,       // the named object exists but must not
  kFailedPrecondition,  // valid input, wrong state (another model's memory, a second writer)
  kResourceExhausted,   // disk, memory or quota is exhausted
  kDeadlineExceeded,
  kCancelled,    // the caller asked to stop
  kUnavailable,  // may succeed later; try again
  kDataLoss,     // bytes are corrupt or missing
  kUnimplemented,
  kInternal,  // a bug in longhold
};

// The code's name, such as "data_loss". The names are stable; JSON uses them.
std::string_view StatusCodeName(StatusCode code);

// Ok, or a code with a message of one line. The message names the operation and the object, and the
// next step if there is one.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  // "data_loss: block d=3 b=112: checksum mismatch"
  std::string ToString() const;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

inline Status OkStatus() { return {}; }
inline Status InvalidArgument(std::string m) {
  return {StatusCode::kInvalidArgument, std::move(m)};
}
inline Status NotFound(std::string m) { return {StatusCode::kNotFound, std::move(m)}; }
inline Status AlreadyExists(std::string m) { return {StatusCode::kAlreadyExists, std::move(m)}; }
inline Status DeadlineExceeded(std::string m) {
  return {StatusCode::kDeadlineExceeded, std::move(m)};
}
inline Status FailedPrecondition(std::string m) {
  return {StatusCode::kFailedPrecondition, std::move(m)};
}
inline Status ResourceExhausted(std::string m) {
  return {StatusCode::kResourceExhausted, std::move(m)};
}
inline Status Cancelled(std::string m) { return {StatusCode::kCancelled, std::move(m)}; }
inline Status Unavailable(std::string m) { return {StatusCode::kUnavailable, std::move(m)}; }
inline Status DataLoss(std::string m) { return {StatusCode::kDataLoss, std::move(m)}; }
inline Status Unimplemented(std::string m) { return {StatusCode::kUnimplemented, std::move(m)}; }
inline Status Internal(std::string m) { return {StatusCode::kInternal, std::move(m)}; }

// Aborts with file, line and the expression. For bugs in longhold, never for input or disk
// contents. Also active in release builds.
[[noreturn]] void CheckFailed(const char* file, int line, const char* expression);
#define LH_CHECK(expression) \
  ((expression) ? (void)0 : ::longhold::CheckFailed(__FILE__, __LINE__, #expression))

// A value, or a Status that is not ok.
template <typename T>
class [[nodiscard]] Result {
 public:
  // NOLINT: implicit on purpose, so that `return value;` works
  Result(T value) : value_(std::move(value)) {}
  Result(Status status) : status_(std::move(status)) { LH_CHECK(!status_.ok()); }  // NOLINT

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  // Must hold: ok().
  T& value() & {
    LH_CHECK(ok());
    return *value_;
  }
  const T& value() const& {
    LH_CHECK(ok());
    return *value_;
  }
  T&& value() && {
    LH_CHECK(ok());
    return std::move(*value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  Status status_;
  std::optional<T> value_;
};

// Evaluates `expression`, and returns its Status from the calling function if it is not ok.
#define LH_RETURN_IF_ERROR(expression)            \
  do {                                            \
    ::longhold::Status lh_status_ = (expression); \
    if (!lh_status_.ok()) return lh_status_;      \
  } while (0)

#define LH_CONCAT_INNER_(a, b) a##b
#define LH_CONCAT_(a, b) LH_CONCAT_INNER_(a, b)
// LH_ASSIGN_OR_RETURN(auto x, F()) sets x to F()'s value, or returns its Status from
// the calling function.
#define LH_ASSIGN_OR_RETURN(lhs, expression)                                                    \
  auto LH_CONCAT_(lh_result_, __LINE__) = (expression);                                         \
  if (!LH_CONCAT_(lh_result_, __LINE__).ok()) return LH_CONCAT_(lh_result_, __LINE__).status(); \
  lhs = std::move(LH_CONCAT_(lh_result_, __LINE__)).value()

}  // namespace longhold
