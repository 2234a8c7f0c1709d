// A client of the wire protocol, for tests and benchmarks: one connection, blocking calls.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/file_descriptor.h"
#include "base/status.h"
#include "service/wire/frame.h"
#include "service/wire/messages.h"
#include "service/wire/payload.h"

namespace longhold::wire {

// Memory that a client shares with the server. Move-only.
struct SharedBuffer {
  std::unique_ptr<FileDescriptor> memfd;
  Payload mapping;

  // A memfd with these seals, all of it mapped. Aborts where the system has no memory.
  static SharedBuffer Make(uint64_t bytes);
  static SharedBuffer MakeWith(uint64_t bytes, int seals);
};

// A frame as it came.
struct ReceivedFrame {
  FrameHeader header;
  std::string message;
  std::vector<char> payload;              // of the stream
  std::unique_ptr<FileDescriptor> memfd;  // null: none came
};

// Thread use: *external*.
class WireClient {
 public:
  static Result<std::unique_ptr<WireClient>> Tcp(uint16_t port);
  static Result<std::unique_ptr<WireClient>> Unix(const std::string& path);

  int socket() const { return socket_.get(); }

  // What a request sends beside its message. Borrows all of it.
  struct Extra {
    std::span<const char> payload;  // on the stream
    uint64_t memfd_bytes = 0;       // of the payload, where it is in `memfd`
    int memfd = -1;
    uint8_t flags = 0;
  };
  // Sends bytes as they are, with descriptors. Errors: unavailable (the server has closed).
  Status SendRaw(std::string_view bytes, std::span<const int> descriptors = {});
  // Returns the request's id.
  Result<uint64_t> Send(FrameType type, std::string_view message, const Extra& extra);
  // Errors: unavailable (the server has closed), data_loss.
  Result<ReceivedFrame> Receive();
  // Sends, and receives the reply. An error frame is the status.
  Result<ReceivedFrame> Call(FrameType type, std::string_view message, const Extra& extra);

  // As Call, with messages as values.
  template <typename Reply, typename Request>
  Result<Reply> Ask(FrameType type, const Request& request) {
    return Ask<Reply>(type, request, Extra{}, nullptr);
  }
  template <typename Reply, typename Request>
  Result<Reply> Ask(FrameType type, const Request& request, const Extra& extra,
                    ReceivedFrame* frame = nullptr) {
    LH_ASSIGN_OR_RETURN(ReceivedFrame received, Call(type, Encode(request), extra));
    LH_ASSIGN_OR_RETURN(Reply reply, DecodeAs<Reply>(received.message));
    if (frame != nullptr) *frame = std::move(received);
    return reply;
  }
  Status Hello(const std::string& key = "") {
    return Ask<HelloReply>(FrameType::kHello,
                           HelloRequest{.version = 1, .key = key, .client = "test"})
        .status();
  }

 private:
  explicit WireClient(int socket) : socket_(socket) {}
  Status ReceiveInto(char* to, size_t size, std::unique_ptr<FileDescriptor>* memfd);

  FileDescriptor socket_;
  uint64_t next_id_ = 1;
};

}  // namespace longhold::wire
