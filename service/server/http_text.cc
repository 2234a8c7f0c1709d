#include "service/server/http_text.h"

#include <algorithm>
#include <charconv>

#include "base/text.h"

namespace longhold {
namespace {

constexpr uint32_t kHttpPort = 80, kHttpsPort = 443;
constexpr uint32_t kPortMax = 65535;
constexpr size_t kFieldsMax = 128;  // each takes about 100 bytes while the request is read

bool ParsePath(std::string_view path, std::vector<std::string>* segments) {
  if (!path.starts_with('/')) return false;
  for (size_t at = 1; at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    std::string segment;
    if (!PercentDecode(path.substr(at, end - at), false, &segment)) return false;
    if (end < path.size() || !segment.empty()) segments->push_back(std::move(segment));
    at = end + 1;
  }
  return true;
}

bool ParseQuery(std::string_view query, std::map<std::string, std::string>* members) {
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const size_t equals = pair.find('=');
    std::string name, value;
    if (!PercentDecode(pair.substr(0, equals), true, &name) ||
        !PercentDecode(
            equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1), true,
            &value)) {
      return false;
    }
    if (!name.empty()) (*members)[name] = value;
  }
  return true;
}

// Values of the headers that FindObjection checks, unchanged.
struct CheckedHeaders {
  std::vector<std::string_view> host, authorization, content_length, transfer_encoding, origin,
      fetch_site;
};

CheckedHeaders CollectHeaders(std::span<const HttpField> fields) {
  CheckedHeaders found;
  const std::pair<std::string_view, std::vector<std::string_view>*> wanted[] = {
      {"host", &found.host},
      {"authorization", &found.authorization},
      {"content-length", &found.content_length},
      {"transfer-encoding", &found.transfer_encoding},
      {"origin", &found.origin},
      {"sec-fetch-site", &found.fetch_site}};
  for (const auto& [name, value] : fields) {
    for (const auto& [known, values] : wanted) {
      if (name.size() == known.size() && LowerCase(name) == known) values->push_back(value);
    }
  }
  return found;
}

bool KnowsHost(std::string_view host, const HttpSite& site) {
  const std::optional<HttpAuthority> authority = ParseAuthority(host);
  return authority.has_value() &&
         std::find(site.hosts.begin(), site.hosts.end(), authority->host) != site.hosts.end();
}

}  // namespace

std::string LowerCase(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

bool PercentDecode(std::string_view text, bool plus_is_blank, std::string* out) {
  out->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size() || HexDigit(text[i + 1]) < 0 || HexDigit(text[i + 2]) < 0)
        return false;
      c = static_cast<char>(HexDigit(text[i + 1]) * 16 + HexDigit(text[i + 2]));
      i += 2;
    } else if (c == '+' && plus_is_blank) {
      c = ' ';
    }
    if (c == '\0') return false;
    *out += c;
  }
  return true;
}

std::optional<HttpTarget> ParseTarget(std::string_view target) {
  HttpTarget parsed;
  const std::string_view path = target.substr(0, target.find('?'));
  const std::string_view query =
      path.size() < target.size() ? target.substr(path.size() + 1) : std::string_view();
  if (!ParsePath(path, &parsed.path) || !ParseQuery(query, &parsed.query)) return std::nullopt;
  return parsed;
}

std::optional<HttpAuthority> ParseAuthority(std::string_view text) {
  const size_t bracket = text.starts_with('[') ? text.find(']') : 0;
  if (bracket == std::string_view::npos) return std::nullopt;
  const size_t colon = std::min(text.find(':', bracket), text.size());
  HttpAuthority authority{.host = LowerCase(text.substr(0, colon))};
  if (authority.host.empty() || authority.host.find('@') != std::string::npos) return std::nullopt;
  const std::string_view port = colon < text.size() ? text.substr(colon + 1) : std::string_view();
  if (port.empty()) return authority;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), authority.port);
  if (error != std::errc() || end != port.data() + port.size() || authority.port == 0 ||
      authority.port > kPortMax)
    return std::nullopt;
  return authority;
}

bool IsOwnOrigin(std::string_view origin, std::string_view host, bool tls) {
  constexpr std::string_view kHttp = "http://", kHttps = "https://";
  const std::string lower = LowerCase(origin);
  const bool https = lower.starts_with(kHttps);
  if (!https && (tls || !lower.starts_with(kHttp))) return false;
  const std::optional<HttpAuthority> theirs =
      ParseAuthority(std::string_view(lower).substr(https ? kHttps.size() : kHttp.size()));
  const std::optional<HttpAuthority> ours = ParseAuthority(host);
  if (!theirs.has_value() || !ours.has_value()) return false;
  const auto port = [&](const HttpAuthority& authority) {
    return authority.port != 0 ? authority.port : https ? kHttpsPort : kHttpPort;
  };
  return theirs->host == ours->host && port(*theirs) == port(*ours);
}

bool IsOwnFetchSite(std::string_view site) { return site == "same-origin" || site == "none"; }

bool IsTraceparent(std::string_view text) {
  constexpr std::string_view kForm = "xx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";
  if (text.size() != kForm.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool digit = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
    if (kForm[i] == 'x' ? !digit : text[i] != '-') return false;
  }
  return true;
}

std::optional<HttpObjection> FindObjection(std::span<const HttpField> fields, bool version_1_1,
                                           const HttpSite& site) {
  if (fields.size() > kFieldsMax)
    return HttpObjection{431,
                         "the request has more than " + std::to_string(kFieldsMax) + " headers"};
  const CheckedHeaders found = CollectHeaders(fields);
  // With two of them a proxy may use one and this server the other.
  for (const auto* values :
       {&found.host, &found.authorization, &found.content_length, &found.transfer_encoding}) {
    if (values->size() > 1)
      return HttpObjection{400,
                           "the request has more than one Host, Authorization, Content-Length or "
                           "Transfer-Encoding headers; send one"};
  }
  if (version_1_1 && found.host.empty())
    return HttpObjection{400, "the request has no Host header"};
  const std::string_view host = found.host.empty() ? std::string_view() : found.host[0];
  if (!found.host.empty() && !KnowsHost(host, site)) {
    return HttpObjection{421,
                         "this server does not serve that host; use the address of the server, or "
                         "add the host with --host"};
  }
  if (!found.transfer_encoding.empty() && (!version_1_1 || !found.content_length.empty() ||
                                           LowerCase(found.transfer_encoding[0]) != "chunked")) {
    return HttpObjection{
        400,
        "the Transfer-Encoding of the request is not supported; send 'chunked' with "
        "HTTP/1.1, or a Content-Length"};
  }
  const auto digits = [](std::string_view text) {
    return !text.empty() &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  if (!found.content_length.empty() && !digits(found.content_length[0]))
    return HttpObjection{400, "the Content-Length of the request is not a number"};
  const bool own =
      std::all_of(found.origin.begin(), found.origin.end(),
                  [&](std::string_view origin) { return IsOwnOrigin(origin, host, site.tls); }) &&
      std::all_of(found.fetch_site.begin(), found.fetch_site.end(), IsOwnFetchSite);
  if (own) return std::nullopt;
  return HttpObjection{403,
                       "a web page of another origin sent this request, which this server refuses; "
                       "a proxy in front of it must forward the Host header"};
}

}  // namespace longhold
