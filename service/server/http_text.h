// Parses parts of an HTTP request header: the target, the host, and the headers by which a browser
// says where a request comes from. Also decides which headers the server refuses for every route.
//
// Thread use: pure functions.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace longhold {

// Lower case, ASCII only.
std::string LowerCase(std::string_view text);

// Percent-decodes `text`: "%41/b" is "A/b". Returns false for a malformed escape or a NUL byte.
bool PercentDecode(std::string_view text, bool plus_is_blank, std::string* out);

// Value type.
struct HttpTarget {
  // percent-decoded segments: "/v1/memories/a%2Fb" is {"v1", "memories", "a/b"}
  std::vector<std::string> path;
  std::map<std::string, std::string> query;  // percent-decoded; of equal names the last one counts
};

// Returns nullopt when the target is malformed, or not of the form "/path?query".
std::optional<HttpTarget> ParseTarget(std::string_view target);

// Host and port of a Host header. Value type.
struct HttpAuthority {
  std::string host;   // lower case; an IPv6 address keeps its brackets
  uint32_t port = 0;  // 0: not given
};

// Parses a Host header: "LOCALHOST:8420" is {"localhost", 8420}. Returns nullopt when it is
// malformed.
std::optional<HttpAuthority> ParseAuthority(std::string_view text);

// Whether `origin`, an Origin header, names the server that the Host header names. As in browsers,
// the same host with another port is another origin. `tls`: the request came through TLS; then an
// http:// origin is never the server's own. Without TLS both schemes are accepted, because a proxy
// in front may terminate TLS.
bool IsOwnOrigin(std::string_view origin, std::string_view host, bool tls);

// Whether `site`, a Sec-Fetch-Site header, says that no page of another origin caused the request:
// https://www.w3.org/TR/fetch-metadata/
bool IsOwnFetchSite(std::string_view site);

// Whether `text` has the form of a W3C traceparent:
// "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
bool IsTraceparent(std::string_view text);

using HttpField = std::pair<std::string_view, std::string_view>;  // name and value of a header

// The identity of a server for the checks of a header. Value type.
struct HttpSite {
  std::vector<std::string> hosts;  // accepted names in a Host header, lower case
  bool tls = false;                // clients connect with TLS
};

// Why a header is refused, independent of its route. Value type.
struct HttpObjection {
  unsigned status = 0;
  std::string message;
};

// Checks a header. Returns nullopt when it is acceptable. Refused are:
// - an unknown host, which protects against DNS rebinding;
// - a header that a page of another origin caused;
// - headers that a proxy in front could interpret differently (host, authorization, or where the
//   body ends), which protects against request smuggling;
// - more headers than any client needs.
std::optional<HttpObjection> FindObjection(std::span<const HttpField> fields, bool version_1_1,
                                           const HttpSite& site);

}  // namespace longhold
