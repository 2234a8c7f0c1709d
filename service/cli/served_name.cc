#include "service/cli/served_name.h"

#include <filesystem>

#include "model/model_catalog.h"

namespace longhold {

std::string ServedName(const std::string& model) {
  return IsModelPath(model) ? std::filesystem::path(model).stem().string() : model;
}

std::string ServedUrl(bool tls, const std::string& address, uint16_t port) {
  const bool v6 = address.find(':') != std::string::npos;
  return std::string(tls ? "https://" : "http://") + (v6 ? "[" + address + "]" : address) + ":" +
         std::to_string(port);
}

}  // namespace longhold
