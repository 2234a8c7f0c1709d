// How a server names its model and its address. Pure functions.
#pragma once

#include <cstdint>
#include <string>

namespace longhold {

// The model name in requests: the catalog's name, or the file name without its extension.
std::string ServedName(const std::string& model);
// "http://127.0.0.1:8420"
std::string ServedUrl(bool tls, const std::string& address, uint16_t port);

}  // namespace longhold
