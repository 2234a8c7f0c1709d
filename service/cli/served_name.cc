#include "service/cli/served_name.h"

#include <filesystem>

#include "model/model_catalog.h"
#include "service/common/config.h"

namespace longhold {

std::string ServedName(const std::string& model) {
  return IsModelPath(model) ? std::filesystem::path(model).stem().string() : model;
}

std::string ServedUrl(bool tls, const std::string& address, uint16_t port) {
  return std::string(tls ? "https://" : "http://") + Authority(address, port);
}

}  // namespace longhold
