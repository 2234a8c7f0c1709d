// Replies in Redis' protocol, appended to a string. Version 3 differs from version 2 in nulls and
// maps only, as far as our replies go.
//
// Thread use: free functions, safe to call concurrently.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace longhold {

enum class RespVersion : uint8_t { k2 = 2, k3 = 3 };

inline void AppendLine(std::string* out, char kind, std::string_view text) {
  out->push_back(kind);
  out->append(text);
  out->append("\r\n");
}
inline void AppendSimple(std::string* out, std::string_view text) { AppendLine(out, '+', text); }
inline void AppendInteger(std::string* out, int64_t number) {
  AppendLine(out, ':', std::to_string(number));
}
// `text` begins with a code in capitals, such as "ERR ". Bytes of it that would break the line are
// replaced.
inline void AppendError(std::string* out, std::string_view text) {
  out->push_back('-');
  for (const char c : text) out->push_back(c < ' ' || c == 127 ? ' ' : c);
  out->append("\r\n");
}
// What stands before the bytes of a value; "\r\n" follows them.
inline void AppendBulkHead(std::string* out, uint64_t bytes) {
  AppendLine(out, '$', std::to_string(bytes));
}
inline void AppendBulk(std::string* out, std::string_view bytes) {
  AppendBulkHead(out, bytes.size());
  out->append(bytes);
  out->append("\r\n");
}
inline void AppendNull(std::string* out, RespVersion version) {
  out->append(version == RespVersion::k3 ? "_\r\n" : "$-1\r\n");
}
inline void AppendArrayHead(std::string* out, size_t count) {
  AppendLine(out, '*', std::to_string(count));
}
// `count`: of pairs.
inline void AppendMapHead(std::string* out, size_t count, RespVersion version) {
  if (version == RespVersion::k3)
    AppendLine(out, '%', std::to_string(count));
  else
    AppendArrayHead(out, 2 * count);
}

}  // namespace longhold
