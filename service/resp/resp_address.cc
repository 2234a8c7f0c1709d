#include "service/resp/resp_address.h"

#include "service/common/config.h"

namespace longhold {

Result<RespAddress> ParseRespAddress(std::string_view text) {
  if (text.starts_with('/')) return RespAddress{.address = "", .unix_path = std::string(text)};
  const bool port_only = text.find_first_not_of("0123456789") == std::string_view::npos;
  LH_ASSIGN_OR_RETURN(const ListenAddress listen,
                      ParseListen(port_only && !text.empty() ? "127.0.0.1:" + std::string(text)
                                                             : std::string(text)));
  return RespAddress{.address = listen.address, .port = listen.port, .unix_path = ""};
}

}  // namespace longhold
