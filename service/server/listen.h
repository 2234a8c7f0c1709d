// How a server begins to listen: on a port, or on the file of a Unix socket. All servers use it, so
// that they follow the same rules.
//
// Internal to the servers: Boost.Asio is in view. Thread use: *confined*.
#pragma once

#include <sys/types.h>

#include <boost/asio.hpp>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace longhold {

// Where a server listens, and the names that its errors use.
struct ListenPlace {
  std::string_view option;   // "--listen"
  std::string_view example;  // "127.0.0.1:8420"
};

// Opens `acceptor` and listens; accept(2) does not block. Port 0 selects any free port. Errors:
// invalid_argument (the address is malformed or in use).
Status ListenOnPort(const ListenPlace& place, const std::string& address, uint16_t port,
                    boost::asio::ip::tcp::acceptor* acceptor);

// The file of a Unix socket, which only the user of this process can connect to. The destructor
// removes the file if it is still the one that Listen made. Owner: the server.
class SocketFile {
 public:
  // `option`: its name in errors. `mode`: of the file, for its owner. An empty path: no socket.
  SocketFile(std::string_view option, std::string path, mode_t mode)
      : option_(option), path_(std::move(path)), mode_(mode) {}
  ~SocketFile();
  SocketFile(const SocketFile&) = delete;
  SocketFile& operator=(const SocketFile&) = delete;

  // Opens `acceptor` and listens; accept(2) does not block. Replaces the socket of a server that
  // has ended without removing it, and nothing else. Errors: invalid_argument.
  Status Listen(boost::asio::local::stream_protocol::acceptor* acceptor);

 private:
  // Removes a socket that nobody listens on.
  Status MakeRoom() const;
  // Sets the mode of the file, before listen(2), so that nobody else has connected yet.
  bool Protect();

  const std::string option_, path_;
  const mode_t mode_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  bool made_ = false;
};

}  // namespace longhold
