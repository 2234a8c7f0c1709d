#include "tests/support/wire_client.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "tests/support/loopback.h"

namespace longhold::wire {
namespace {

constexpr size_t kDescriptorsMax = 8;

}  // namespace

SharedBuffer SharedBuffer::MakeWith(uint64_t bytes, int seals) {
  SharedBuffer buffer;
  const int fd = memfd_create("client", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  LH_CHECK(fd >= 0 && ftruncate(fd, static_cast<off_t>(bytes)) == 0);
  buffer.memfd = std::make_unique<FileDescriptor>(fd);
  LH_CHECK(fcntl(fd, F_ADD_SEALS, seals) == 0);
  return buffer;
}

SharedBuffer SharedBuffer::Make(uint64_t bytes) {
  SharedBuffer buffer = MakeWith(bytes, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  Result<Payload> mapping = Payload::Map(buffer.memfd->get(), bytes, /*writable=*/true);
  LH_CHECK(mapping.ok());
  buffer.mapping = std::move(*mapping);
  return buffer;
}

Result<std::unique_ptr<WireClient>> WireClient::Tcp(uint16_t port) {
  const int fd = ConnectLoopback(port);
  if (fd < 0) return Unavailable("nobody listens on port " + std::to_string(port));
  return std::unique_ptr<WireClient>(new WireClient(fd));
}

Result<std::unique_ptr<WireClient>> WireClient::Unix(const std::string& path) {
  std::unique_ptr<WireClient> client(
      new WireClient(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  LH_CHECK(path.size() < sizeof address.sun_path);
  path.copy(address.sun_path, path.size());
  if (connect(client->socket(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return Unavailable("nobody listens on " + path);
  const timeval limit{.tv_sec = 20, .tv_usec = 0};
  (void)setsockopt(client->socket(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  return client;
}

Status WireClient::SendRaw(std::string_view bytes, std::span<const int> descriptors) {
  LH_CHECK(descriptors.size() <= kDescriptorsMax);
  for (size_t sent = 0; sent < bytes.size();) {
    iovec part{.iov_base = const_cast<char*>(bytes.data()) + sent, .iov_len = bytes.size() - sent};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kDescriptorsMax)] = {};
    if (!descriptors.empty() && sent == 0) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
      cmsghdr* c = CMSG_FIRSTHDR(&message);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(descriptors.size_bytes());
      std::memcpy(CMSG_DATA(c), descriptors.data(), descriptors.size_bytes());
    }
    const ssize_t n = sendmsg(socket(), &message, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Unavailable("the server has closed the connection");
    sent += static_cast<size_t>(n);
  }
  return OkStatus();
}

Result<uint64_t> WireClient::Send(FrameType type, std::string_view message, const Extra& extra) {
  const uint64_t id = next_id_++;
  const uint64_t payload_bytes = extra.memfd_bytes + extra.payload.size();
  const std::string frame = EncodeFrame(type, extra.flags, id, message, payload_bytes);
  const std::span<const int> memfd =
      extra.memfd < 0 ? std::span<const int>() : std::span<const int>(&extra.memfd, 1);
  LH_RETURN_IF_ERROR(SendRaw(frame, memfd));
  if (!extra.payload.empty())
    LH_RETURN_IF_ERROR(SendRaw({extra.payload.data(), extra.payload.size()}));
  return id;
}

Status WireClient::ReceiveInto(char* to, size_t size, std::unique_ptr<FileDescriptor>* memfd) {
  for (size_t got = 0; got < size;) {
    iovec part{.iov_base = to + got, .iov_len = size - got};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t n = recvmsg(socket(), &message, MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return Unavailable("the server has closed the connection");
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    if (c != nullptr && c->cmsg_type == SCM_RIGHTS && memfd != nullptr) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c), sizeof fd);
      *memfd = std::make_unique<FileDescriptor>(fd);
    }
    got += static_cast<size_t>(n);
  }
  return OkStatus();
}

Result<ReceivedFrame> WireClient::Receive() {
  ReceivedFrame frame;
  std::array<char, kHeaderBytes> header;
  LH_RETURN_IF_ERROR(ReceiveInto(header.data(), header.size(), &frame.memfd));
  LH_ASSIGN_OR_RETURN(frame.header, DecodeHeader(header));
  frame.message.resize(frame.header.message_bytes);
  LH_RETURN_IF_ERROR(ReceiveInto(frame.message.data(), frame.message.size(), nullptr));
  LH_RETURN_IF_ERROR(CheckMessage(frame.header, frame.message));
  if (frame.header.flags != 0) return frame;
  frame.payload.resize(frame.header.payload_bytes);
  LH_RETURN_IF_ERROR(ReceiveInto(frame.payload.data(), frame.payload.size(), nullptr));
  return frame;
}

Result<ReceivedFrame> WireClient::Call(FrameType type, std::string_view message,
                                       const Extra& extra) {
  LH_ASSIGN_OR_RETURN(const uint64_t id, Send(type, message, extra));
  LH_ASSIGN_OR_RETURN(ReceivedFrame frame, Receive());
  if (frame.header.type == FrameType::kError) {
    LH_ASSIGN_OR_RETURN(const ErrorReply error, DecodeAs<ErrorReply>(frame.message));
    return error.status;
  }
  if (frame.header.type != ReplyTo(type) || frame.header.request_id != id)
    return DataLoss("a reply to another request came");
  return frame;
}

}  // namespace longhold::wire
