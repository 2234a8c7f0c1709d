#include "service/server/listen.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "service/common/config.h"

namespace longhold {
namespace {

namespace net = boost::asio;
using error_code = boost::system::error_code;
using Local = net::local::stream_protocol;

template <typename Acceptor>
void StartListening(Acceptor* acceptor, error_code* ec) {
  if (!*ec) acceptor->listen(net::socket_base::max_listen_connections, *ec);
  if (!*ec) acceptor->non_blocking(true, *ec);
}

}  // namespace

Status ListenOnPort(const ListenPlace& place, const std::string& address, uint16_t port,
                    net::ip::tcp::acceptor* acceptor) {
  const std::string option(place.option);
  error_code ec;
  const net::ip::address parsed = net::ip::make_address(address, ec);
  if (ec)
    return InvalidArgument(option + " " + address + ": is not an address; use one such as " +
                           std::string(place.example));
  const net::ip::tcp::endpoint endpoint(parsed, port);
  acceptor->open(endpoint.protocol(), ec);
  if (!ec) acceptor->set_option(net::socket_base::reuse_address(true), ec);
  if (!ec) acceptor->bind(endpoint, ec);
  StartListening(acceptor, &ec);
  if (!ec) return OkStatus();
  return InvalidArgument(option + " " + Authority(address, port) + ": cannot listen (" +
                         ec.message() + "); choose another port, or stop the program that uses it");
}

SocketFile::~SocketFile() {
  struct stat info {};
  if (made_ && lstat(path_.c_str(), &info) == 0 && info.st_ino == inode_ && info.st_dev == device_)
    (void)unlink(path_.c_str());
}

Status SocketFile::MakeRoom() const {
  struct stat info {};
  if (lstat(path_.c_str(), &info) != 0) return OkStatus();
  if (!S_ISSOCK(info.st_mode))
    return InvalidArgument(option_ + " " + path_ + ": exists and is not a socket");
  net::io_context context;
  Local::socket probe(context);
  error_code ec;
  probe.open(Local(), ec);
  // Without waiting: a server whose queue of connections is full would keep this one waiting.
  if (!ec) probe.non_blocking(true, ec);
  if (!ec) (void)probe.native_non_blocking(true, ec);
  if (!ec) probe.connect(Local::endpoint(path_), ec);
  // Other errors do not say that nobody listens: its queue is full, it takes datagrams, or it
  // belongs to another user.
  if (ec != net::error::connection_refused)
    return InvalidArgument(option_ + " " + path_ + ": another program uses it");
  (void)unlink(path_.c_str());
  return OkStatus();
}

bool SocketFile::Protect() {
  struct stat info {};
  if (chmod(path_.c_str(), mode_) != 0 || lstat(path_.c_str(), &info) != 0) return false;
  device_ = info.st_dev;
  inode_ = info.st_ino;
  made_ = true;
  return true;
}

Status SocketFile::Listen(Local::acceptor* acceptor) {
  if (path_.size() >= sizeof(sockaddr_un::sun_path))
    return InvalidArgument(option_ + " " + path_ + ": is longer than " +
                           std::to_string(sizeof(sockaddr_un::sun_path) - 1) + " bytes");
  LH_RETURN_IF_ERROR(MakeRoom());
  error_code ec;
  acceptor->open(Local(), ec);
  if (!ec) acceptor->bind(Local::endpoint(path_), ec);
  if (!ec && !Protect()) ec = error_code(errno, boost::system::system_category());
  StartListening(acceptor, &ec);
  if (!ec) return OkStatus();
  return InvalidArgument(option_ + " " + path_ + ": cannot listen (" + ec.message() + ")");
}

}  // namespace longhold
