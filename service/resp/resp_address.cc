#include "service/resp/resp_address.h"

#include "service/common/config.h"

namespace longhold {

Result<RespAddress> ParseRespAddress(std::string_view text) {
  if (text.starts_with('/')) return RespAddress{.address = "", .unix_path = std::string(text)};
  LH_ASSIGN_OR_RETURN(const ListenAddress listen, ParsePortOrListen(text));
  return RespAddress{.address = listen.address, .port = listen.port, .unix_path = ""};
}

}  // namespace longhold
