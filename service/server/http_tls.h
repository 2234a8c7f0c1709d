// TLS of the HTTP server: loads the PEM files into a context of OpenSSL, and detects changed files.
//
// Internal to the HTTP server: only http_server.cc and http_connection*.cc see it. Thread use: pure
// functions.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "base/status.h"
#include "service/server/http_server.h"

namespace longhold::asio_http {

namespace ssl = boost::asio::ssl;

// A context with the certificate and the key of `files`, for TLS 1.2 or later. Errors:
// invalid_argument (a file cannot be read, is not PEM, or the key belongs to another certificate).
Result<std::shared_ptr<ssl::context>> LoadTls(const TlsFiles& files);

// Time of the last write and size of each file.
using TlsStamp = std::vector<std::pair<std::filesystem::file_time_type, uintmax_t>>;

TlsStamp StampOf(const TlsFiles& files);

}  // namespace longhold::asio_http
