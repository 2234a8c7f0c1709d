// What the text of an HTTP request's header means: its target, its host, where a browser says that
// it comes from. And which headers the server takes from nobody.
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

// ASCII only.
std::string LowerCase(std::string_view text);

// "%41/b" is "A/b". False on a malformed escape or a NUL byte.
bool PercentDecode(std::string_view text, bool plus_is_blank, std::string* out);

// Value type.
struct HttpTarget {
  // segments, percent-decoded: "/v1/memories/a%2Fb" is {"v1", "memories", "a/b"}
  std::vector<std::string> path;
  std::map<std::string, std::string> query;  // percent-decoded; the last of equal names counts
};

// Nothing where the target is malformed, or not of the form "/path?query".
std::optional<HttpTarget> ParseTarget(std::string_view target);

// A host with its port, as a Host header has them. Value type.
struct HttpAuthority {
  std::string host;   // lower case; an IPv6 address keeps its brackets
  uint32_t port = 0;  // 0: none is named
};

// "LOCALHOST:8420" is {"localhost", 8420}. Nothing where it is malformed.
std::optional<HttpAuthority> ParseAuthority(std::string_view text);

// Whether `origin`, an Origin header, names the server to which a request with this Host header was
// sent. A page of the same host at another port is another origin, as it is for browsers. `tls`:
// the request came through TLS, so that no http:// origin is its own. Without TLS both schemes are:
// a proxy may have it.
bool IsOwnOrigin(std::string_view origin, std::string_view host, bool tls);

// Whether `site`, a Sec-Fetch-Site header, is that of a request which no other page caused:
// https://www.w3.org/TR/fetch-metadata/
bool IsOwnFetchSite(std::string_view site);

// Of W3C's form: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
bool IsTraceparent(std::string_view text);

using HttpField = std::pair<std::string_view, std::string_view>;  // a header's name and value

// For whom a server answers. Value type.
struct HttpSite {
  std::vector<std::string> hosts;  // names in a Host header, lower case
  bool tls = false;                // its clients speak TLS with it
};

// Why a request is refused whoever would take it. Value type.
struct HttpObjection {
  unsigned status = 0;
  std::string message;
};

// Nothing where the header may stand. Refused are: another host (no page of an attacker's name
// reaches us), a header of another origin's page, what a proxy in front could read in another way
// than we do (who is asked, who asks, and where the request ends), and more headers than anybody
// needs.
std::optional<HttpObjection> FindObjection(std::span<const HttpField> fields, bool version_1_1,
                                           const HttpSite& site);

}  // namespace longhold
