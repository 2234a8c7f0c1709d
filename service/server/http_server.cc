#include "service/server/http_server.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <deque>
#include <filesystem>
#include <list>
#include <mutex>
#include <set>
#include <utility>

#include "base/clock.h"
#include "base/hash.h"
#include "base/text.h"
#include "service/common/json_text.h"
#include "service/server/http_text.h"
#include "service/server/peer_shares.h"

namespace longhold {
namespace {

namespace net = boost::asio;
namespace http = boost::beast::http;
namespace ssl = boost::asio::ssl;
using boost::system::error_code;
using net::ip::tcp;
using Clock = std::chrono::steady_clock;

constexpr uint32_t kHeaderBytesMax = 16 << 10;
// Of a body whose first byte has come; its room doubles from there.
constexpr uint64_t kBodyFirstBytes = 16 << 10;
// Of a file's bytes, before the next ones are read.
constexpr size_t kUntakenBytesMax = 1 << 20;
// Of a reply that its reader has not taken yet: an answer's pieces are far smaller.
constexpr size_t kPendingBytesMax = 4 << 20;
// Connections beyond connections_max that are told so before they are closed.
constexpr size_t kTurnedAwayMax = 16;
constexpr std::chrono::milliseconds kStopPoll{100};
constexpr size_t kReadBytes = 64 << 10;  // of a long body, at a time
constexpr size_t kDiscardBytes = 4096;   // at a time
constexpr size_t kFirstBytes = 4096;     // of a request through TLS
constexpr std::chrono::milliseconds kGonePoll{250};
constexpr std::chrono::seconds kGoodbye{2};

std::string Date() {
  const std::time_t now = UnixSeconds();
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[40];
  std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc);
  return text;
}

Result<std::shared_ptr<ssl::context>> LoadTls(const TlsFiles& files) {
  const auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  error_code ec;
  const auto bad = [&](const std::string& flag, const std::string& file) {
    return InvalidArgument(flag + " " + file + ": " + ec.message() +
                           "; give a PEM file that this user may read");
  };
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context->native_handle(), SSL_MODE_RELEASE_BUFFERS);  // of connections that wait
  // A key with a password would ask for it on the terminal.
  context->set_password_callback(
      [](size_t, ssl::context::password_purpose) { return std::string(); }, ec);
  if (!ec) context->use_certificate_chain_file(files.certificate, ec);
  if (ec) return bad("--tls-certificate", files.certificate);
  context->use_private_key_file(files.key, ssl::context::pem, ec);
  if (ec) return bad("--tls-key", files.key);
  if (SSL_CTX_check_private_key(context->native_handle()) != 1) {
    return InvalidArgument("--tls-key " + files.key + ": is not the key of " + files.certificate +
                           "; give the two that belong together");
  }
  if (!files.client_ca.empty()) {
    context->load_verify_file(files.client_ca, ec);
    if (!ec) context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert, ec);
    if (ec) return bad("--tls-client-ca", files.client_ca);
  }
  return context;
}

// When each of the files was written, and how long it is.
using TlsStamp = std::vector<std::pair<std::filesystem::file_time_type, uintmax_t>>;

TlsStamp StampOf(const TlsFiles& files) {
  TlsStamp stamp;
  for (const std::string* file : {&files.certificate, &files.key, &files.client_ca}) {
    std::error_code ec;
    stamp.emplace_back(std::filesystem::last_write_time(*file, ec),
                       std::filesystem::file_size(*file, ec));
  }
  return stamp;
}

std::string RequestId(std::string_view own) {
  const bool good =
      !own.empty() && own.size() <= 64 && std::all_of(own.begin(), own.end(), IsNameByte);
  return good ? std::string(own) : "req-" + RandomHex(12);
}

class Server;

// What the exchange and its connection share.
struct Answering {
  std::atomic<bool> gone{false};
  std::mutex mutex;
  size_t untaken = 0;           // bytes that WriteBytes has written and the client has not taken
  std::function<void()> ready;  // whom to tell when they are few, or the client has gone

  void SetGone() {
    gone = true;
    Taken(0);
  }
  void Taken(size_t bytes) {
    std::function<void()> told;
    {
      const std::lock_guard lock(mutex);
      untaken -= std::min(untaken, bytes);
      if (gone || untaken < kUntakenBytesMax) told = std::exchange(ready, nullptr);
    }
    if (told) told();
  }
};

using Message = http::request<http::buffer_body>;

std::vector<HttpField> FieldsOf(const Message& message) {
  std::vector<HttpField> fields;
  fields.reserve(16);
  for (const auto& field : message) fields.emplace_back(field.name_string(), field.value());
  return fields;
}

// "type" of an error that the server finds by itself.
std::string_view ErrorTypeOf(unsigned status) {
  return status == 403   ? "permission_error"
         : status == 503 ? "unavailable"
                         : "invalid_request_error";
}

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // `tls` is null for plain HTTP.
  Connection(Server& server, tcp::socket socket, const net::ip::address& address,
             std::shared_ptr<ssl::context> tls)
      : server_(server),
        socket_(std::move(socket)),
        address_(address.to_string()),
        peer_(PeerOf(address_)),
        context_(std::move(tls)),
        deadline_(socket_.get_executor()),
        watch_timer_(socket_.get_executor()) {
    if (context_ != nullptr) tls_.emplace(socket_, *context_);
  }

  void Start();
  // Instead of Start, where no connection is free. `answer`: the client is told so.
  void TurnAway(bool answer);
  void Close();
  // No request is under way, nor has one begun.
  bool idle() const { return state_ == State::kHandshake || state_ == State::kIdle; }
  // Nothing is being done for the client: it has asked nothing that was let in, or has its last
  // reply.
  bool waits() const {
    return state_ == State::kHandshake || state_ == State::kIdle || state_ == State::kHeader ||
           state_ == State::kLeaving;
  }
  const std::string& peer() const { return peer_; }
  bool has_share() const { return has_share_; }
  // Since when the piece of a reply that is being written has not been taken. Must hold: writing().
  bool writing() const { return writing_; }
  Clock::time_point writing_since() const { return writing_since_; }
  // For the exchange that held a body.
  void GiveRoom(uint64_t bytes);

  // For the exchange of request `serial`, on the connection's thread.
  void Reply(uint64_t serial, HttpReply reply);
  void Begin(uint64_t serial, const std::string& content_type);
  void Piece(uint64_t serial, const std::string& piece, bool counted = false);
  void End(uint64_t serial);
  void Break(uint64_t serial);

  // Where it is in the server's list of connections that wait. The server's alone.
  std::optional<std::list<Connection*>::iterator> waiting_at;

 private:
  enum class State : uint8_t {
    kHandshake,
    kIdle,
    kHeader,
    kBody,
    kAnswering,
    kStreaming,
    kFinishing,
    kLeaving,
    kClosed
  };
  // Calls `use` with what is read from and written to.
  template <typename Use>
  void Through(Use use) {
    if (tls_.has_value()) {
      use(*tls_);
    } else {
      use(socket_);
    }
  }
  void Enter(State state);
  void SetDeadline(std::chrono::milliseconds time,
                   void (Connection::*then)() = &Connection::Expired);
  void StopDeadline();
  void Expired();
  void AwaitRequest();
  void ReadHeader();
  // Fills head_ from the header, as far as that has come. False where its target is malformed.
  bool ReadHead();
  void HeaderRead();
  void BeginBody();
  void ReadBody();
  // Makes room for more of the body. False where there is none.
  bool GrowBody();
  void DropBody();
  void Handle();
  void Watch();
  void Ping();
  // Answers with what the taker has decided; the body is not read.
  void Decline();
  // Answers what the server does not take, tells of it, and closes.
  void Refuse(unsigned status, const std::string& message);
  void RefuseLongBody();
  void RefuseParse(const error_code& ec);
  std::string Head(const HttpReply& reply, bool stream) const;
  // `counted`: of WriteBytes' bytes, how many these are.
  void Queue(std::string bytes, size_t counted = 0);
  void WriteNext();
  void Finished();
  void Leave();
  void Discard();

  Server& server_;
  tcp::socket socket_;
  const std::string address_, peer_;
  bool has_share_ = true;  // of the server's connections
  std::shared_ptr<ssl::context> context_;
  std::optional<ssl::stream<tcp::socket&>> tls_;
  net::steady_timer deadline_;
  // of the deadline that holds: an expiry that is under way when it is changed does not count
  uint64_t deadline_serial_ = 0;
  bool expired_ = false;  // while a header or a body was read
  net::steady_timer watch_timer_;
  boost::beast::flat_buffer buffer_{kHeaderBytesMax + kReadBytes};
  std::optional<http::request_parser<http::buffer_body>> parser_;
  State state_ = State::kHandshake;
  uint64_t serial_ = 0;
  // The request under way: until it is handled all that is known of it, and how it was admitted;
  // its id until it is answered.
  HttpRequest head_;
  std::optional<HttpAdmission> admission_;
  std::string id_;
  std::string body_;  // as large as room_; the parser fills it
  // which the body has at the end, where its length is known, or may have
  uint64_t body_bytes_max_ = 0;
  uint64_t room_ = 0;           // of the server's, for body_
  Clock::time_point body_end_;  // until when it has to be there
  std::shared_ptr<Answering> answering_;
  bool keep_alive_ = false, chunked_ = true, head_only_ = false, writing_ = false;
  bool events_ = false;  // the stream's; bytes have no comments
  std::deque<std::pair<std::string, size_t>> out_;
  size_t out_bytes_ = 0;  // of the server's, for replies
  Clock::time_point writing_since_;
};

class Exchange final : public HttpExchange {
 public:
  // `room`: of the request's body, the server's again when the exchange goes.
  Exchange(std::shared_ptr<Connection> connection, net::any_io_executor executor, uint64_t serial,
           std::shared_ptr<Answering> answering, uint64_t room)
      : connection_(std::move(connection)),
        executor_(std::move(executor)),
        serial_(serial),
        answering_(std::move(answering)),
        room_(room) {}
  ~Exchange() override {
    net::post(executor_, [c = connection_, s = serial_, room = room_] {
      c->GiveRoom(room);
      c->Reply(s,
               {.status = 500,
                .body = ErrorJson("internal_error", "the request was dropped; please report it")});
      c->End(s);
    });
  }
  void Respond(HttpReply reply) override {
    net::post(executor_, [c = connection_, s = serial_, r = std::move(reply)]() mutable {
      c->Reply(s, std::move(r));
    });
  }
  void BeginStream() override { BeginBytes("text/event-stream"); }
  void BeginBytes(const std::string& content_type) override {
    net::post(executor_,
              [c = connection_, s = serial_, content_type] { c->Begin(s, content_type); });
  }
  bool WriteBytes(std::string piece, std::function<void()> ready) override {
    {
      const std::lock_guard lock(answering_->mutex);
      if (answering_->gone) return true;
      if (answering_->untaken >= kUntakenBytesMax) {
        answering_->ready = std::move(ready);
        return false;
      }
      answering_->untaken += piece.size();
    }
    net::post(executor_,
              [c = connection_, s = serial_, p = std::move(piece)] { c->Piece(s, p, true); });
    return true;
  }
  void Break() override {
    net::post(executor_, [c = connection_, s = serial_] { c->Break(s); });
  }
  void Write(std::string piece) override {
    net::post(executor_, [c = connection_, s = serial_, p = std::move(piece)] { c->Piece(s, p); });
  }
  void EndStream() override {
    net::post(executor_, [c = connection_, s = serial_] { c->End(s); });
  }
  const std::atomic<bool>& gone() const override { return answering_->gone; }

 private:
  std::shared_ptr<Connection> connection_;
  net::any_io_executor executor_;
  uint64_t serial_;
  std::shared_ptr<Answering> answering_;
  uint64_t room_;
};

class Server final : public HttpServer {
 public:
  Server(HttpServerOptions options, HttpAdmit admit)
      : options_(std::move(options)),
        admit_(std::move(admit)),
        bodies_(options_.bodies_bytes_max, OwnMax(options_.bodies_bytes_max)),
        replies_(options_.replies_bytes_max, OwnMax(options_.replies_bytes_max)),
        shares_(options_.connections_max, OwnMax(options_.connections_max)),
        acceptor_(context_),
        stop_timer_(context_) {
    const std::string own = LowerCase(options_.address);
    site_ = {.hosts = {"localhost", "127.0.0.1", "[::1]", own, "[" + own + "]"},
             .tls = !options_.tls.certificate.empty()};
    for (const std::string& host : options_.hosts) site_.hosts.push_back(LowerCase(host));
  }
  ~Server() override {
    for (const auto& connection : std::set(connections_)) connection->Close();
    context_.restart();
    context_.poll();  // lets go of what the connections' operations hold
  }

  Status Open() {
    error_code ec;
    const net::ip::address address = net::ip::make_address(options_.address, ec);
    if (ec)
      return InvalidArgument("--listen " + options_.address +
                             ": is no address; give one such as 127.0.0.1:8420");
    const tcp::endpoint endpoint(address, options_.port);
    acceptor_.open(endpoint.protocol(), ec);
    if (!ec) acceptor_.set_option(net::socket_base::reuse_address(true), ec);
    if (!ec) acceptor_.bind(endpoint, ec);
    if (!ec) acceptor_.listen(net::socket_base::max_listen_connections, ec);
    if (!ec) acceptor_.non_blocking(true, ec);
    if (ec) {
      return InvalidArgument("--listen " + options_.address + ":" + std::to_string(options_.port) +
                             ": cannot be listened on (" + ec.message() +
                             "); choose another port, or stop what has it");
    }
    if (options_.tls.certificate.empty()) return OkStatus();
    tls_stamp_ = StampOf(options_.tls);
    LH_ASSIGN_OR_RETURN(tls_, LoadTls(options_.tls));
    return OkStatus();
  }

  uint16_t port() const override {
    error_code ec;
    return acceptor_.local_endpoint(ec).port();
  }

  void Run(const std::atomic<bool>* stop, std::chrono::milliseconds drain,
           const std::function<void()>& on_stop) override {
    stop_ = stop;
    drain_ = drain;
    on_stop_ = on_stop;
    Accept();
    PollStop();
    context_.run();
    // Who still waits is told so, and whoever works for them need not go on.
    for (const auto& connection : std::set(connections_)) connection->Close();
  }

  const HttpServerOptions& options() const { return options_; }
  const HttpAdmit& admit() const { return admit_; }
  bool draining() const { return draining_; }

  bool TakeBodyRoom(const std::string& peer, uint64_t bytes) {
    return bodies_.Take(peer, bytes) == PeerShares::Answer::kTaken;
  }
  void GiveBodyRoom(const std::string& peer, uint64_t bytes) { bodies_.Give(peer, bytes); }
  // Room for `bytes` more of what `connection` has to write, for which others are closed, or the
  // connection itself. False where it was.
  bool MakeReplyRoom(Connection* connection, uint64_t bytes);
  void GiveReplyRoom(const std::string& peer, uint64_t bytes) { replies_.Give(peer, bytes); }

  // The connection begins to wait, or does so anew: whichever does so for longest is the first to
  // be closed for another one.
  void Waits(Connection* connection);
  void Works(Connection* connection);
  void Remove(const std::shared_ptr<Connection>& connection);

  const HttpSite& site() const { return site_; }
  void Refused(const HttpRequest& head, unsigned status) const {
    if (options_.refused) options_.refused(head, status);
  }

 private:
  uint64_t OwnMax(uint64_t all_max) const {
    return std::max<uint64_t>(
        1, static_cast<uint64_t>(static_cast<double>(all_max) * options_.peer_share));
  }
  void Accept();
  void Welcome(tcp::socket socket);
  // Takes a connection's share, for which one that waits is closed. False where none waits.
  bool MakeConnectionRoom(const std::string& peer);
  // The one that waits for longest, of `peer` or of all (null); null: none.
  Connection* LongestWaiting(const std::string* peer) const;
  // Likewise the one whose client has taken nothing of its reply for longest.
  Connection* LongestWriting(const std::string* peer) const;
  std::shared_ptr<ssl::context> Tls();
  void PollStop();

  HttpServerOptions options_;
  HttpAdmit admit_;
  HttpSite site_;
  PeerShares bodies_, replies_, shares_;  // bytes, bytes, connections
  net::io_context context_{1};
  tcp::acceptor acceptor_;
  net::steady_timer stop_timer_;
  std::shared_ptr<ssl::context> tls_;
  TlsStamp tls_stamp_;
  std::set<std::shared_ptr<Connection>> connections_;
  std::list<Connection*> waiting_;
  size_t turned_away_ = 0;  // of connections_
  const std::atomic<bool>* stop_ = nullptr;
  std::chrono::milliseconds drain_{};
  std::chrono::steady_clock::time_point drain_end_;
  std::function<void()> on_stop_;
  bool retry_accept_ = false, draining_ = false;
};

bool Server::MakeReplyRoom(Connection* connection, uint64_t bytes) {
  for (;;) {
    const PeerShares::Answer answer = replies_.Take(connection->peer(), bytes);
    if (answer == PeerShares::Answer::kTaken) return true;
    Connection* slowest =
        LongestWriting(answer == PeerShares::Answer::kPeerFull ? &connection->peer() : nullptr);
    if (slowest == nullptr || bytes > OwnMax(options_.replies_bytes_max)) slowest = connection;
    const bool own = slowest == connection;
    slowest->Close();
    if (own) return false;
  }
}

void Server::Waits(Connection* connection) {
  if (connection->waiting_at.has_value())
    return waiting_.splice(waiting_.end(), waiting_, *connection->waiting_at);
  connection->waiting_at = waiting_.insert(waiting_.end(), connection);
}

void Server::Works(Connection* connection) {
  if (!connection->waiting_at.has_value()) return;
  waiting_.erase(*connection->waiting_at);
  connection->waiting_at.reset();
}

void Server::Remove(const std::shared_ptr<Connection>& connection) {
  if (connection->has_share()) {
    shares_.Give(connection->peer(), 1);
  } else {
    --turned_away_;
  }
  connections_.erase(connection);
  if (draining_ && connections_.empty()) context_.stop();
}

Connection* Server::LongestWaiting(const std::string* peer) const {
  const auto found = std::find_if(waiting_.begin(), waiting_.end(), [&](const Connection* c) {
    return c->has_share() && (peer == nullptr || c->peer() == *peer);
  });
  return found == waiting_.end() ? nullptr : *found;
}

Connection* Server::LongestWriting(const std::string* peer) const {
  Connection* longest = nullptr;
  for (const auto& connection : connections_) {
    if (!connection->writing() || (peer != nullptr && connection->peer() != *peer)) continue;
    if (longest == nullptr || connection->writing_since() < longest->writing_since())
      longest = connection.get();
  }
  return longest;
}

bool Server::MakeConnectionRoom(const std::string& peer) {
  for (;;) {
    const PeerShares::Answer answer = shares_.Take(peer, 1);
    if (answer == PeerShares::Answer::kTaken) return true;
    Connection* const longest =
        LongestWaiting(answer == PeerShares::Answer::kPeerFull ? &peer : nullptr);
    if (longest == nullptr) return false;
    longest->Close();
  }
}

void Server::Welcome(tcp::socket socket) {
  error_code ec;
  const tcp::endpoint remote = socket.remote_endpoint(ec);
  if (ec) return;  // it has gone already
  socket.set_option(tcp::no_delay(true), ec);
  const auto connection =
      std::make_shared<Connection>(*this, std::move(socket), remote.address(), Tls());
  connections_.insert(connection);
  if (MakeConnectionRoom(connection->peer())) return connection->Start();
  connection->TurnAway(++turned_away_ <= kTurnedAwayMax);
}

// Accepts once a connection is there: without a descriptor accept(2) fails also where none is.
void Server::Accept() {
  acceptor_.async_wait(tcp::acceptor::wait_read, [this](const error_code& ended) {
    if (ended || draining_) return;
    tcp::socket socket(context_);
    error_code ec;
    acceptor_.accept(socket, ec);
    if (!ec) {
      Welcome(std::move(socket));
    } else if (ec != net::error::would_block && ec != net::error::connection_aborted) {
      // Where descriptors are used up, a connection that waits gives its own; else those that close
      // will make room.
      Connection* const longest =
          ec == net::error::no_descriptors ? LongestWaiting(nullptr) : nullptr;
      retry_accept_ = longest == nullptr;
      if (retry_accept_) return;
      longest->Close();
    }
    Accept();
  });
}

// Of a new connection; null for plain HTTP.
std::shared_ptr<ssl::context> Server::Tls() {
  if (tls_ == nullptr) return nullptr;
  TlsStamp stamp = StampOf(options_.tls);
  if (stamp == tls_stamp_) return tls_;
  tls_stamp_ = std::move(stamp);
  Result<std::shared_ptr<ssl::context>> fresh = LoadTls(options_.tls);
  if (fresh.ok()) tls_ = std::move(*fresh);
  if (options_.note)
    options_.note(fresh.ok() ? "the TLS certificate was read again"
                             : fresh.status().message() + "; the one of before holds");
  return tls_;
}

void Server::PollStop() {
  stop_timer_.expires_after(kStopPoll);
  stop_timer_.async_wait([this](const error_code& ec) {
    if (ec) return;
    if (std::exchange(retry_accept_, false) && !draining_) Accept();
    if (!*stop_) return PollStop();
    if (!draining_) {
      draining_ = true;
      error_code ignored;
      acceptor_.close(ignored);
      if (on_stop_) on_stop_();
      for (const auto& connection : std::set(connections_)) {
        if (connection->idle()) connection->Close();
      }
      drain_end_ = std::chrono::steady_clock::now() + drain_;
    }
    if (connections_.empty() || std::chrono::steady_clock::now() >= drain_end_)
      return context_.stop();
    PollStop();
  });
}

void Connection::Enter(State state) {
  state_ = state;
  waits() ? server_.Waits(this) : server_.Works(this);
}

void Connection::Close() {
  if (state_ == State::kClosed) return;
  Enter(State::kClosed);
  if (answering_ != nullptr) answering_->SetGone();
  admission_.reset();
  GiveRoom(std::exchange(room_, 0));
  server_.GiveReplyRoom(peer_, std::exchange(out_bytes_, 0));
  error_code ignored;
  StopDeadline();
  watch_timer_.cancel();
  socket_.shutdown(tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
  server_.Remove(shared_from_this());
}

void Connection::GiveRoom(uint64_t bytes) { server_.GiveBodyRoom(peer_, bytes); }

void Connection::SetDeadline(std::chrono::milliseconds time, void (Connection::*then)()) {
  deadline_.expires_after(time);
  deadline_.async_wait(
      [self = shared_from_this(), then, serial = ++deadline_serial_](const error_code& ec) {
        if (!ec && self->deadline_serial_ == serial && self->state_ != State::kClosed)
          ((*self).*then)();
      });
}

void Connection::StopDeadline() {
  ++deadline_serial_;
  deadline_.cancel();
}

void Connection::Expired() {
  if (state_ != State::kHeader && state_ != State::kBody) return Close();
  // What is read is answered when it has ended: its buffers are in use until then.
  expired_ = true;
  error_code ignored;
  socket_.cancel(ignored);
}

void Connection::Start() {
  if (!tls_.has_value()) return AwaitRequest();
  Enter(State::kHandshake);
  SetDeadline(server_.options().header_time);
  tls_->async_handshake(ssl::stream_base::server,
                        [self = shared_from_this()](const error_code& ec) {
                          if (self->state_ == State::kClosed) return;
                          if (ec) return self->Close();
                          self->AwaitRequest();
                        });
}

void Connection::TurnAway(bool answer) {
  has_share_ = false;
  // Through TLS nothing can be said before a handshake, which is work for nothing.
  if (answer && !tls_.has_value())
    return Refuse(503, "too many connections at once; send the request again in a while");
  (void)ReadHead();
  server_.Refused(head_, 503);
  Close();
}

void Connection::AwaitRequest() {
  if (server_.draining()) return Close();
  Enter(State::kIdle);
  if (buffer_.size() > 0) return ReadHeader();
  buffer_.shrink_to_fit();
  SetDeadline(server_.options().idle_time);
  // What TLS has read ahead is in no socket: there the first bytes are read, not waited for.
  if (tls_.has_value()) {
    return tls_->async_read_some(buffer_.prepare(kFirstBytes),
                                 [self = shared_from_this()](const error_code& ec, size_t bytes) {
                                   if (self->state_ == State::kClosed) return;
                                   if (ec) return self->Close();
                                   self->buffer_.commit(bytes);
                                   self->ReadHeader();
                                 });
  }
  socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](const error_code& ec) {
    if (self->state_ == State::kClosed) return;
    if (ec) return self->Close();
    self->ReadHeader();
  });
}

void Connection::ReadHeader() {
  Enter(State::kHeader);
  head_ = {};
  keep_alive_ = false;
  chunked_ = true;
  head_only_ = false;
  parser_.emplace();
  parser_->header_limit(kHeaderBytesMax);
  parser_->body_limit(boost::none);  // it is the route's
  SetDeadline(server_.options().header_time);
  Through([&](auto& stream) {
    http::async_read_header(
        stream, buffer_, *parser_, [self = shared_from_this()](const error_code& ec, size_t) {
          if (self->state_ == State::kClosed) return;
          if (self->expired_) return self->Refuse(408, "the request's header did not come in time");
          if (ec) return self->RefuseParse(ec);
          self->HeaderRead();
        });
  });
}

bool Connection::ReadHead() {
  head_.peer = address_;
  head_.id = id_ = RequestId(parser_.has_value() ? std::string_view(parser_->get()["X-Request-Id"])
                                                 : std::string_view());
  if (!parser_.has_value()) return false;
  const Message& message = parser_->get();
  keep_alive_ = message.keep_alive();
  chunked_ = message.version() >= 11;
  head_only_ = message.method() == http::verb::head;
  head_.method = head_only_ ? "GET" : std::string(message.method_string());
  head_.head_only = head_only_;
  if (const std::string_view trace = message["traceparent"]; IsTraceparent(trace))
    head_.traceparent = trace;
  const std::string type = LowerCase(message[http::field::content_type]);
  head_.content_type = type.substr(0, type.find(';'));
  while (head_.content_type.ends_with(' ')) head_.content_type.pop_back();
  head_.authorization = message[http::field::authorization];
  head_.upload_offset = message["Upload-Offset"];
  head_.upload_length = message["Upload-Length"];
  std::optional<HttpTarget> target = ParseTarget(message.target());
  if (!target.has_value()) return false;
  head_.path = std::move(target->path);
  head_.query = std::move(target->query);
  return true;
}

void Connection::HeaderRead() {
  const bool good_target = ReadHead();
  if (const auto objection =
          FindObjection(FieldsOf(parser_->get()), parser_->get().version() >= 11, server_.site())) {
    return Refuse(objection->status, objection->message);
  }
  if (!good_target) return Refuse(400, "the request's target is malformed");
  admission_ = server_.admit()(head_);
  if (admission_->refusal.has_value()) return Decline();
  BeginBody();
}

void Connection::Decline() {
  HttpReply reply = std::move(*admission_->refusal);
  admission_.reset();
  keep_alive_ = keep_alive_ && parser_->is_done();  // what else comes is not read
  parser_.reset();
  Enter(State::kAnswering);
  Reply(serial_, std::move(reply));
}

void Connection::BeginBody() {
  Enter(State::kBody);
  body_bytes_max_ = std::min(admission_->body_bytes_max, server_.options().body_bytes_max);
  const auto length = parser_->content_length();
  // A chunked body where none is taken is not waited for either: it would keep a connection that
  // nothing is being done for.
  if (length.value_or(0) > body_bytes_max_ || (body_bytes_max_ == 0 && !parser_->is_done()))
    return RefuseLongBody();
  parser_->body_limit(body_bytes_max_);
  if (length.has_value()) body_bytes_max_ = *length;
  body_end_ = Clock::now() + server_.options().body_time;
  const bool patient = !parser_->is_done() && chunked_ &&
                       LowerCase(parser_->get()[http::field::expect]) == "100-continue";
  if (!patient) return ReadBody();
  SetDeadline(server_.options().write_time);
  static const std::string kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  Through([&](auto& stream) {
    net::async_write(stream, net::buffer(kContinue),
                     [self = shared_from_this()](const error_code& ec, size_t) {
                       if (self->state_ == State::kClosed) return;
                       if (ec) return self->Close();
                       self->ReadBody();
                     });
  });
}

void Connection::ReadBody() {
  if (parser_->is_done()) return Handle();
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(body_end_ - Clock::now());
  SetDeadline(
      std::min(server_.options().body_stall_time, std::max(left, std::chrono::milliseconds(0))));
  Through([&](auto& stream) {
    http::async_read_some(
        stream, buffer_, *parser_, [self = shared_from_this()](const error_code& ec, size_t) {
          if (self->state_ == State::kClosed) return;
          if (self->expired_)
            return self->Refuse(
                408, "the request's body did not come in time; send it again, a long one in parts");
          if (ec && ec != http::error::need_buffer) return self->RefuseParse(ec);
          if (ec && !self->GrowBody()) return;
          self->ReadBody();
        });
  });
}

bool Connection::GrowBody() {
  if (body_.size() >= body_bytes_max_) {
    RefuseLongBody();
    return false;
  }
  const uint64_t size =
      std::min(body_bytes_max_, std::max(kBodyFirstBytes, 2 * static_cast<uint64_t>(body_.size())));
  if (!server_.TakeBodyRoom(peer_, size - room_)) {
    Refuse(503, "too many long requests at once; send it again in a while");
    return false;
  }
  const size_t used = body_.size();  // it was full
  body_.resize(size);
  room_ = size;
  http::buffer_body::value_type& sink = parser_->get().body();
  sink.data = body_.data() + used;
  sink.size = size - used;
  if (used >= kReadBytes) buffer_.reserve(kReadBytes);
  return true;
}

void Connection::DropBody() {
  parser_.reset();
  body_ = std::string();
  GiveRoom(std::exchange(room_, 0));
}

void Connection::RefuseLongBody() {
  const uint64_t most = std::min(admission_->body_bytes_max, server_.options().body_bytes_max);
  Refuse(413, "the request's body is longer than " + std::to_string(most) + " bytes; " +
                  admission_->when_longer);
}

void Connection::RefuseParse(const error_code& ec) {
  if (ec == http::error::header_limit)
    return Refuse(431, "the request's headers are longer than 16 KiB");
  if (ec == http::error::body_limit) return RefuseLongBody();
  if (ec.category() == http::make_error_code(http::error::bad_target).category() &&
      ec != http::error::end_of_stream && ec != http::error::partial_message) {
    return Refuse(400, "the request is no HTTP: " + ec.message());
  }
  Close();
}

void Connection::Refuse(unsigned status, const std::string& message) {
  expired_ = false;
  if (head_.id.empty()) (void)ReadHead();
  keep_alive_ = false;
  if (admission_.has_value()) {
    if (admission_->refused) admission_->refused(status);
  } else {
    server_.Refused(head_, status);
  }
  admission_.reset();
  DropBody();
  Enter(State::kAnswering);
  HttpReply reply{.status = status, .body = ErrorJson(ErrorTypeOf(status), message), .headers = {}};
  if (status == 503) reply.headers.emplace_back("Retry-After", "1");
  Reply(serial_, std::move(reply));
}

void Connection::Handle() {
  HttpRequest request = std::move(head_);
  body_.resize(body_.size() - parser_->get().body().size);
  request.body = std::exchange(body_, std::string());
  const HttpAdmission admission = std::move(*admission_);
  admission_.reset();
  parser_.reset();
  StopDeadline();
  Enter(State::kAnswering);
  answering_ = std::make_shared<Answering>();
  Watch();
  admission.handle(std::move(request),
                   std::make_shared<Exchange>(shared_from_this(), socket_.get_executor(), serial_,
                                              answering_, std::exchange(room_, 0)));
}

// The client's end of the connection: while nothing is to be read, readiness means that it is gone.
// Where something is (the next request, or TLS's farewell), the connection's own state tells of the
// end behind it.
void Connection::Watch() {
  const auto current = [self = shared_from_this(), serial = serial_](const error_code& ec) {
    return !ec && self->serial_ == serial && self->state_ != State::kClosed;
  };
  socket_.async_wait(
      tcp::socket::wait_read, [self = shared_from_this(), current](const error_code& ec) {
        if (!current(ec)) return;
        char byte = 0;
        const ssize_t n = recv(self->socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return self->Close();
        tcp_info info{};
        socklen_t length = sizeof info;
        getsockopt(self->socket_.native_handle(), IPPROTO_TCP, TCP_INFO, &info, &length);
        if (info.tcpi_state != TCP_ESTABLISHED) return self->Close();
        self->watch_timer_.expires_after(kGonePoll);
        self->watch_timer_.async_wait([self, current](const error_code& ended) {
          if (current(ended)) self->Watch();
        });
      });
}

std::string Connection::Head(const HttpReply& reply, bool stream) const {
  std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " " +
                     std::string(http::obsolete_reason(static_cast<http::status>(reply.status))) +
                     "\r\nDate: " + Date() + "\r\nContent-Type: " + reply.content_type + "\r\n";
  if (!stream && reply.status != 204)
    head += "Content-Length: " + std::to_string(reply.body.size()) + "\r\n";
  if (stream && chunked_) head += "Transfer-Encoding: chunked\r\n";
  head += std::string("Connection: ") + (keep_alive_ ? "keep-alive" : "close") +
          "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";
  if (!id_.empty()) head += "X-Request-Id: " + id_ + "\r\n";
  for (const auto& [name, value] : reply.headers) head += name + ": " + value + "\r\n";
  return head + "\r\n";
}

void Connection::Reply(uint64_t serial, HttpReply reply) {
  if (serial != serial_ || state_ != State::kAnswering) return;
  keep_alive_ = keep_alive_ && !server_.draining();
  Enter(State::kFinishing);
  std::string bytes = Head(reply, false);
  if (!head_only_) bytes += reply.body;
  Queue(std::move(bytes));
}

void Connection::Begin(uint64_t serial, const std::string& content_type) {
  if (serial != serial_ || state_ != State::kAnswering) return;
  keep_alive_ = keep_alive_ && !server_.draining() && chunked_;
  Enter(State::kStreaming);
  events_ = content_type == "text/event-stream";
  Queue(Head({.content_type = content_type}, true));
}

void Connection::Break(uint64_t serial) {
  if (serial == serial_ && state_ == State::kStreaming) Close();
}

void Connection::Piece(uint64_t serial, const std::string& piece, bool counted) {
  if (serial != serial_ || state_ != State::kStreaming || piece.empty() || head_only_) {
    if (counted && serial == serial_ && answering_ != nullptr) answering_->Taken(piece.size());
    return;
  }
  if (out_bytes_ + piece.size() > kPendingBytesMax) return Close();
  char size[20];
  std::snprintf(size, sizeof size, "%zx\r\n", piece.size());
  Queue(chunked_ ? size + piece + "\r\n" : piece, counted ? piece.size() : 0);
}

void Connection::End(uint64_t serial) {
  if (serial != serial_ || state_ != State::kStreaming) return;
  Enter(State::kFinishing);
  if (chunked_ && !head_only_)
    Queue("0\r\n\r\n");
  else if (!writing_)
    Finished();
}

void Connection::Queue(std::string bytes, size_t counted) {
  if (!server_.MakeReplyRoom(this, bytes.size())) return;
  out_bytes_ += bytes.size();
  out_.emplace_back(std::move(bytes), counted);
  if (!writing_) WriteNext();
}

void Connection::WriteNext() {
  writing_ = true;
  writing_since_ = Clock::now();
  SetDeadline(server_.options().write_time);
  Through([&](auto& stream) {
    net::async_write(stream, net::buffer(out_.front().first),
                     [self = shared_from_this()](const error_code& ec, size_t) {
                       self->writing_ = false;
                       if (self->state_ == State::kClosed) return;
                       if (ec) return self->Close();
                       self->out_bytes_ -= self->out_.front().first.size();
                       self->server_.GiveReplyRoom(self->peer_, self->out_.front().first.size());
                       if (self->answering_ != nullptr && self->out_.front().second > 0)
                         self->answering_->Taken(self->out_.front().second);
                       self->out_.pop_front();
                       if (!self->out_.empty()) return self->WriteNext();
                       if (self->state_ == State::kFinishing) return self->Finished();
                       self->events_
                           ? self->SetDeadline(self->server_.options().ping_time, &Connection::Ping)
                           : self->StopDeadline();
                     });
  });
}

void Connection::Ping() { Piece(serial_, ": ping\n\n"); }

void Connection::Finished() {
  StopDeadline();
  watch_timer_.cancel();
  ++serial_;
  id_.clear();
  answering_.reset();
  keep_alive_ ? AwaitRequest() : Leave();
}

// What the client still sends is not read: a reset would take the reply away from it before it has
// read it.
void Connection::Leave() {
  Enter(State::kLeaving);
  SetDeadline(kGoodbye);
  const auto discard = [self = shared_from_this()] {
    error_code ignored;
    self->socket_.shutdown(tcp::socket::shutdown_send, ignored);
    self->Discard();
  };
  if (!tls_.has_value()) return discard();
  // Without the farewell a client could not tell a reply's end from a cut. One that still sends a
  // body does not answer it: its records are discarded as they are.
  tls_->async_shutdown([self = shared_from_this(), discard](const error_code& ec) {
    if (self->state_ == State::kClosed) return;
    ec ? discard() : self->Close();
  });
}

void Connection::Discard() {
  buffer_.clear();
  socket_.async_read_some(buffer_.prepare(kDiscardBytes),
                          [self = shared_from_this()](const error_code& ec, size_t) {
                            if (self->state_ == State::kClosed) return;
                            if (ec) return self->Close();
                            self->Discard();
                          });
}

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::Listen(const HttpServerOptions& options,
                                                       HttpAdmit admit) {
  auto server = std::make_unique<Server>(options, std::move(admit));
  LH_RETURN_IF_ERROR(server->Open());
  return std::unique_ptr<HttpServer>(std::move(server));
}

bool IsLoopback(const std::string& address) {
  error_code ec;
  const net::ip::address parsed = net::ip::make_address(address, ec);
  return !ec && parsed.is_loopback();
}

}  // namespace longhold
