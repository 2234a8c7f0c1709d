// What the wire protocol's requests do: one session for each connection. It knows no sockets.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/file_descriptor.h"
#include "base/status.h"
#include "memory/sidecar/sidecar.h"
#include "service/server/api_keys.h"
#include "service/server/quotas.h"
#include "service/server/request_record.h"
#include "service/wire/byte_shares.h"
#include "service/wire/frame.h"
#include "service/wire/messages.h"
#include "service/wire/payload.h"
#include "service/wire/sidecars.h"

namespace longhold::wire {

// Documents that one connection puts at a time.
inline constexpr uint32_t kWritersMax = 4;

// What all sessions share. Borrows what it points to.
struct ServiceOptions {
  std::string home;          // its keys.json has the API keys; messages of errors do not name it
  Quotas* quotas = nullptr;  // of the HTTP API: both count together
  // While there is no file of keys: the scope of a client of the same user over a Unix socket is
  // admin, and this is everybody else's.
  Scope without_keys = Scope::kNone;
  std::function<void(std::string_view)> note;  // for the log; called on any thread
  RecordSinks sinks;                           // its metrics may be null
  std::string version;                         // of the program, for HelloReply
  SidecarsOptions sidecars;
  // RAM for long messages and payloads that are on the stream, and memfds that the server makes;
  // of all clients, and of one.
  uint64_t bytes_max = 512ull << 20, peer_bytes_max = 256ull << 20;
  // Of memfds that the server made for one connection: how much the client may still read. A part
  // of its share, so that other requests find some, too.
  uint64_t memfd_bytes_max = 64ull << 20;
};

// Owner: the wire server; outlives its sessions. Thread use: *synchronised*.
class Service {
 public:
  explicit Service(ServiceOptions options)
      : options_(std::move(options)),
        keys_(options_.home),
        bytes_(options_.bytes_max, options_.peer_bytes_max),
        sidecars_(options_.sidecars) {}
  const ServiceOptions& options() const { return options_; }
  ApiKeys& keys() { return keys_; }
  ByteShares& bytes() { return bytes_; }
  Sidecars& sidecars() { return sidecars_; }

 private:
  const ServiceOptions options_;
  ApiKeys keys_;
  ByteShares bytes_;
  Sidecars sidecars_;
};

// A request whose bytes have arrived. Its message may have 160 MiB. To fill that with zeros or to
// check it takes long, so the thread of the connections does neither: Greet and Handle check the
// message. Move-only.
struct Request {
  FrameHeader header;
  Payload message;                        // not yet checked
  Payload payload;                        // of the stream
  std::unique_ptr<FileDescriptor> memfd;  // that came with the header; null: none
  ByteShares::Taken bytes;                // of message and payload
};

// Move-only.
struct Reply {
  std::string frame;  // header and message
  Payload payload;    // that follows on the stream
  // That goes with the header. Shared with the session, which takes its pages back later.
  std::shared_ptr<const FileDescriptor> memfd;
  ByteShares::Taken bytes;
  bool close = false;  // nothing follows on this connection
};
// A reply that says what was wrong.
Reply ErrorFrame(uint64_t request_id, const Status& status, bool close);

// Thread use: *confined*, one call after the other; Greet and Admit on the thread of the
// connections, Handle and the destructor on a thread that may block.
class Session {
 public:
  struct Peer {
    std::string name;        // for shares and logs
    bool local = false;      // over a Unix socket, so that memfds can be passed
    bool same_user = false;  // the peer's user is this process's
  };

  Session(Service* service, Peer peer);
  // Drops the writers: what they committed stays.
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  bool greeted() const { return greeted_; }
  const std::string& tenant() const { return caller_.limits.tenant; }
  bool has_writers() const { return !writers_.empty(); }

  // Answers hello, which must be the first request and only it. Its message is short.
  Reply Greet(const Request& request);
  // Decides on a request after its header: reads the key again, so that a removed one is refused.
  // After an error the connection ends.
  Status Admit(const FrameHeader& header);
  // Whether the tenant has asked too often. Errors: resource_exhausted.
  Status Count(FrameType type);
  // Checks the message, and does the work. Must hold: Admit and Count were ok.
  Reply Handle(Request request);

 private:
  struct Writer {
    std::string memory;
    Sidecars::Lease sidecar;  // outlives the writer
    std::unique_ptr<Sidecar::Writer> writer;
  };
  // Where a reply's payload goes.
  struct Room {
    Payload payload;
    ByteShares::Taken bytes;
    std::shared_ptr<const FileDescriptor> memfd;  // that the server made
    uint8_t flags = 0;                            // of the reply
  };
  // What a handler answers with, in a frame of the type that the request asks for.
  struct Answer {
    std::string message;
    Room room{};
  };

  Result<Caller> Authenticate(std::string_view key);
  // For metrics and logs. Null: nobody wants it.
  std::unique_ptr<RequestRecord> NewRecord(FrameType type, uint64_t request_id) const;
  Result<Answer> Dispatch(Request& request);
  Result<Answer> UseModel(Request& request);
  Result<Answer> DescribeModel(Request& request);
  Result<Answer> PutBegin(Request& request);
  Result<Answer> PutRows(Request& request);
  Result<Answer> PutFinish(Request& request);
  Result<Answer> Plan(Request& request);
  Result<Answer> Fetch(Request& request);
  Result<Answer> Tokens(Request& request);
  Result<Answer> Prefix(Request& request);
  Result<Answer> Forget(Request& request);
  Result<Answer> Stat(Request& request);
  Result<Answer> Ping(Request& request);

  // Keeps a memfd that the server made for the answer, so that it can take it back.
  Reply ReplyWith(const FrameHeader& request, Answer answer);
  Result<Answer> ModelAnswer(const std::string& fingerprint);
  // The sidecar of the connection's model. Errors: failed_precondition (no model yet).
  Result<Sidecars::Lease> Model();
  // The engine's name of a memory. Errors: invalid_argument.
  Result<std::string> MemoryName(const std::string& name);
  // The request's payload: on the stream or in its memfd.
  Result<std::span<const char>> PayloadOf(Request& request);
  // Room for the reply's payload: on the stream, in the request's memfd or in a new one.
  Result<Room> ReplyRoom(Request& request, uint64_t bytes);
  Status CheckTenantRoom(Sidecar& sidecar, const std::string& memory, const std::string& document);
  // Gives the disk limit of the memory, after the tenant's other memories, as it is at each call.
  // Borrows the session and the sidecar.
  DiskBytesMax DiskLimit(Sidecar* sidecar, const std::string& memory) const;
  Result<Writer*> FindWriter(uint32_t id);
  void TakeNotes(Sidecar& sidecar);

  Service* const service_;
  const Peer peer_;
  Secret key_;
  bool greeted_ = false;
  Caller caller_;
  std::string fingerprint_;  // of the connection's model; empty: none yet
  std::map<uint32_t, Writer> writers_;
  uint32_t next_writer_ = 1;
  // The payload of the current request where it is in a memfd, mapped.
  Payload mapped_;
  struct Made {
    std::shared_ptr<const FileDescriptor> memfd;
    uint64_t bytes = 0;
    ByteShares::Taken taken;
  };
  std::list<Made> made_;  // memfds that the client may still read, the oldest first
  uint64_t made_bytes_ = 0;
  std::string memory_;  // of the current request, as the client names it; for the record
};

}  // namespace longhold::wire
