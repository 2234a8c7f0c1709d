#include "service/http_server.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cctype>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "base/clock.h"
#include "base/hash.h"
#include "base/text.h"
#include "service/json_text.h"

namespace longhold {
namespace {

namespace net = boost::asio;
namespace http = boost::beast::http;
namespace ssl = boost::asio::ssl;
using boost::system::error_code;
using net::ip::tcp;

constexpr uint32_t kHeaderBytesMax = 16 << 10;
// Of a file's bytes, before the next ones are read.
constexpr size_t kUntakenBytesMax = 1 << 20;
// Of a reply that its reader has not taken yet: an answer's pieces are far smaller.
constexpr size_t kPendingBytesMax = 4 << 20;
constexpr std::chrono::milliseconds kStopPoll{100};
constexpr size_t kDiscardBytes = 4096;  // at a time
constexpr size_t kFirstBytes = 4096;    // of a request through TLS
constexpr std::chrono::milliseconds kGonePoll{250};
constexpr std::chrono::seconds kGoodbye{2};

std::string LowerCase(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string Date() {
  const std::time_t now = UnixSeconds();
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[40];
  std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc);
  return text;
}

// "localhost:8420" is "localhost", "[::1]:8420" is "[::1]".
std::string HostName(std::string_view host) {
  const size_t bracket = host.starts_with('[') ? host.find(']') : 0;
  const size_t colon = host.find(':', bracket == std::string_view::npos ? 0 : bracket);
  return LowerCase(host.substr(0, colon));
}

Result<std::shared_ptr<ssl::context>> LoadTls(const TlsFiles& files) {
  const auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  error_code ec;
  const auto bad = [&](const std::string& flag, const std::string& file) {
    return InvalidArgument(flag + " " + file + ": " + ec.message() + "; give a PEM file that this user may read");
  };
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_options(context->native_handle(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context->native_handle(), SSL_MODE_RELEASE_BUFFERS);  // of connections that wait
  // A key with a password would ask for it on the terminal.
  context->set_password_callback([](size_t, ssl::context::password_purpose) { return std::string(); }, ec);
  if (!ec) context->use_certificate_chain_file(files.certificate, ec);
  if (ec) return bad("--tls-certificate", files.certificate);
  context->use_private_key_file(files.key, ssl::context::pem, ec);
  if (ec) return bad("--tls-key", files.key);
  if (SSL_CTX_check_private_key(context->native_handle()) != 1) {
    return InvalidArgument("--tls-key " + files.key + ": is not the key of " + files.certificate + "; give the two that belong together");
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
    stamp.emplace_back(std::filesystem::last_write_time(*file, ec), std::filesystem::file_size(*file, ec));
  }
  return stamp;
}

// "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
bool IsTraceparent(std::string_view text) {
  constexpr std::string_view kForm = "xx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";
  if (text.size() != kForm.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool digit = (text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f');
    if (kForm[i] == 'x' ? !digit : text[i] != '-') return false;
  }
  return true;
}

std::string RequestId(std::string_view own) {
  const bool good = !own.empty() && own.size() <= 64 && std::all_of(own.begin(), own.end(), IsNameByte);
  return good ? std::string(own) : "req-" + RandomHex(12);
}

class Server;

// What the exchange and its connection share. `gone` is set by the connection's thread.
struct Answering {
  std::atomic<bool> gone{false};
  std::mutex mutex;
  std::condition_variable changed;
  size_t untaken = 0;  // bytes that WriteWhenTaken has given and the client has not taken

  void SetGone() {
    gone = true;
    { const std::lock_guard lock(mutex); }  // whoever waits has seen it, or hears of it now
    changed.notify_all();
  }
  void Taken(size_t bytes) {
    {
      const std::lock_guard lock(mutex);
      untaken -= std::min(untaken, bytes);
    }
    changed.notify_all();
  }
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // `tls` is null for plain HTTP.
  Connection(Server& server, tcp::socket socket, std::shared_ptr<ssl::context> tls)
      : server_(server), socket_(std::move(socket)), context_(std::move(tls)), deadline_(socket_.get_executor()), watch_timer_(socket_.get_executor()) {
    if (context_ != nullptr) tls_.emplace(socket_, *context_);
  }

  void Start();
  void Close();
  // No request is under way.
  bool idle() const { return state_ == State::kIdle; }

  // For the exchange of request `serial`, on the connection's thread.
  void Reply(uint64_t serial, HttpReply reply);
  void Begin(uint64_t serial, const std::string& content_type);
  void Piece(uint64_t serial, const std::string& piece, bool counted = false);
  void End(uint64_t serial);
  void Break(uint64_t serial);

 private:
  enum class State : uint8_t { kIdle, kReading, kAnswering, kStreaming, kFinishing, kClosed };
  // Calls `use` with what is read from and written to.
  template <typename Use>
  void Through(Use use) {
    if (tls_.has_value()) {
      use(*tls_);
    } else {
      use(socket_);
    }
  }
  void SetDeadline(std::chrono::milliseconds time);
  void AwaitRequest();
  void ReadHeader();
  void ReadBody();
  void Handle();
  void Watch();
  void Ping();
  // Answers what never became a request, and closes.
  void Refuse(unsigned status, const std::string& message);
  void RefuseParse(const error_code& ec);
  std::string Head(const HttpReply& reply, bool stream) const;
  // `counted`: of WriteWhenTaken's bytes, how many these are.
  void Queue(std::string bytes, size_t counted = 0);
  void WriteNext();
  void Finished();
  void Discard();
  void GiveRoom();

  Server& server_;
  tcp::socket socket_;
  std::shared_ptr<ssl::context> context_;
  std::optional<ssl::stream<tcp::socket&>> tls_;
  net::steady_timer deadline_;  // closes the connection, or pings while a stream waits for its next piece
  net::steady_timer watch_timer_;
  boost::beast::flat_buffer buffer_{kHeaderBytesMax + (64 << 10)};
  std::optional<http::request_parser<http::string_body>> parser_;
  State state_ = State::kIdle;
  uint64_t serial_ = 0;
  std::string id_;  // of the request under way
  std::shared_ptr<Answering> answering_;
  bool keep_alive_ = false, chunked_ = true, head_only_ = false, writing_ = false;
  bool events_ = false;  // the stream's; bytes have no comments
  std::deque<std::pair<std::string, size_t>> out_;
  size_t out_bytes_ = 0;
  uint64_t room_ = 0;  // of the server's, for the body
};

class Exchange final : public HttpExchange {
 public:
  Exchange(std::shared_ptr<Connection> connection, net::any_io_executor executor, uint64_t serial, std::shared_ptr<Answering> answering)
      : connection_(std::move(connection)), executor_(std::move(executor)), serial_(serial), answering_(std::move(answering)) {}
  ~Exchange() override {
    net::post(executor_, [c = connection_, s = serial_] {
      c->Reply(s, {.status = 500, .body = ErrorJson("internal_error", "the request was dropped; please report it")});
      c->End(s);
    });
  }
  void Respond(HttpReply reply) override {
    net::post(executor_, [c = connection_, s = serial_, r = std::move(reply)]() mutable { c->Reply(s, std::move(r)); });
  }
  void BeginStream() override {
    BeginBytes("text/event-stream");
  }
  void BeginBytes(const std::string& content_type) override {
    net::post(executor_, [c = connection_, s = serial_, content_type] { c->Begin(s, content_type); });
  }
  bool WriteWhenTaken(std::string piece) override {
    {
      std::unique_lock lock(answering_->mutex);
      answering_->changed.wait(lock, [&] { return answering_->gone || answering_->untaken < kUntakenBytesMax; });
      if (answering_->gone) return false;
      answering_->untaken += piece.size();
    }
    net::post(executor_, [c = connection_, s = serial_, p = std::move(piece)] { c->Piece(s, p, true); });
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
};

class Server final : public HttpServer {
 public:
  Server(HttpServerOptions options, HttpHandler handler)
      : options_(std::move(options)), handler_(std::move(handler)), acceptor_(context_), stop_timer_(context_) {}
  ~Server() override {
    for (const auto& connection : std::set(connections_)) connection->Close();
    context_.restart();
    context_.poll();  // lets go of what the connections' operations hold
  }

  Status Open() {
    error_code ec;
    const net::ip::address address = net::ip::make_address(options_.address, ec);
    if (ec) return InvalidArgument("--listen " + options_.address + ": is no address; give one such as 127.0.0.1:8420");
    const tcp::endpoint endpoint(address, options_.port);
    acceptor_.open(endpoint.protocol(), ec);
    if (!ec) acceptor_.set_option(net::socket_base::reuse_address(true), ec);
    if (!ec) acceptor_.bind(endpoint, ec);
    if (!ec) acceptor_.listen(net::socket_base::max_listen_connections, ec);
    if (ec) {
      return InvalidArgument("--listen " + options_.address + ":" + std::to_string(options_.port) + ": cannot be listened on (" +
                             ec.message() + "); choose another port, or stop what has it");
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

  void Run(const std::atomic<bool>* stop, std::chrono::milliseconds drain, const std::function<void()>& on_stop) override {
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
  const HttpHandler& handler() const { return handler_; }
  bool draining() const { return draining_; }

  // Room for a body of `bytes`; GiveRoom gives it back.
  bool TakeRoom(uint64_t bytes) {
    if (bytes > options_.bodies_bytes_max - body_bytes_) return false;
    body_bytes_ += bytes;
    return true;
  }
  void GiveRoom(uint64_t bytes) { body_bytes_ -= bytes; }

  void Remove(const std::shared_ptr<Connection>& connection) {
    connections_.erase(connection);
    if (draining_ && connections_.empty()) context_.stop();
    if (!accepting_ && !draining_) Accept();
  }

  bool KnowsHost(std::string_view host) const {
    const std::string name = HostName(host);
    if (name == "localhost" || name == "127.0.0.1" || name == "[::1]" || name == LowerCase(options_.address)) return true;
    return name == "[" + LowerCase(options_.address) + "]" || std::find(options_.hosts.begin(), options_.hosts.end(), name) != options_.hosts.end();
  }

 private:
  void Accept() {
    accepting_ = connections_.size() < options_.connections_max;
    if (!accepting_) return;
    acceptor_.async_accept([this](const error_code& ec, tcp::socket socket) {
      if (draining_) return;
      if (!ec) {
        error_code ignored;
        socket.set_option(tcp::no_delay(true), ignored);
        const auto connection = std::make_shared<Connection>(*this, std::move(socket), Tls());
        connections_.insert(connection);
        connection->Start();
        return Accept();
      }
      // Out of descriptors: those that close will make room.
      accepting_ = false;
      retry_accept_ = true;
    });
  }

  // Of a new connection; null for plain HTTP.
  std::shared_ptr<ssl::context> Tls() {
    if (tls_ == nullptr) return nullptr;
    TlsStamp stamp = StampOf(options_.tls);
    if (stamp == tls_stamp_) return tls_;
    tls_stamp_ = std::move(stamp);
    Result<std::shared_ptr<ssl::context>> fresh = LoadTls(options_.tls);
    if (fresh.ok()) tls_ = std::move(*fresh);
    if (options_.note) options_.note(fresh.ok() ? "the TLS certificate was read again" : fresh.status().message() + "; the one of before holds");
    return tls_;
  }

  void PollStop() {
    stop_timer_.expires_after(kStopPoll);
    stop_timer_.async_wait([this](const error_code& ec) {
      if (ec) return;
      if (retry_accept_ && !accepting_ && !draining_) {
        retry_accept_ = false;
        Accept();
      }
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
      if (connections_.empty() || std::chrono::steady_clock::now() >= drain_end_) return context_.stop();
      PollStop();
    });
  }

  HttpServerOptions options_;
  HttpHandler handler_;
  net::io_context context_{1};
  tcp::acceptor acceptor_;
  net::steady_timer stop_timer_;
  std::shared_ptr<ssl::context> tls_;
  TlsStamp tls_stamp_;
  std::set<std::shared_ptr<Connection>> connections_;
  uint64_t body_bytes_ = 0;
  const std::atomic<bool>* stop_ = nullptr;
  std::chrono::milliseconds drain_{};
  std::chrono::steady_clock::time_point drain_end_;
  std::function<void()> on_stop_;
  bool accepting_ = false, retry_accept_ = false, draining_ = false;
};

void Connection::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  if (answering_ != nullptr) answering_->SetGone();
  GiveRoom();
  error_code ignored;
  deadline_.cancel();
  watch_timer_.cancel();
  socket_.shutdown(tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
  server_.Remove(shared_from_this());
}

void Connection::GiveRoom() { server_.GiveRoom(std::exchange(room_, 0)); }

void Connection::SetDeadline(std::chrono::milliseconds time) {
  deadline_.expires_after(time);
  deadline_.async_wait([self = shared_from_this()](const error_code& ec) {
    if (!ec) self->Close();
  });
}

void Connection::Start() {
  if (!tls_.has_value()) return AwaitRequest();
  state_ = State::kReading;
  SetDeadline(server_.options().header_time);
  tls_->async_handshake(ssl::stream_base::server, [self = shared_from_this()](const error_code& ec) {
    if (self->state_ == State::kClosed) return;
    if (ec) return self->Close();
    self->AwaitRequest();
  });
}

void Connection::AwaitRequest() {
  if (server_.draining()) return Close();
  state_ = State::kIdle;
  if (buffer_.size() > 0) return ReadHeader();
  SetDeadline(server_.options().idle_time);
  // What TLS has read ahead is in no socket: there the first bytes are read, not waited for.
  if (tls_.has_value()) {
    return tls_->async_read_some(buffer_.prepare(kFirstBytes), [self = shared_from_this()](const error_code& ec, size_t bytes) {
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
  state_ = State::kReading;
  parser_.emplace();
  parser_->header_limit(kHeaderBytesMax);
  parser_->body_limit(server_.options().body_bytes_max);
  SetDeadline(server_.options().header_time);
  Through([&](auto& stream) {
    http::async_read_header(stream, buffer_, *parser_, [self = shared_from_this()](const error_code& ec, size_t) {
      if (self->state_ == State::kClosed) return;
      if (ec) return self->RefuseParse(ec);
      self->ReadBody();
    });
  });
}

void Connection::ReadBody() {
  const auto& request = parser_->get();
  const auto host = request.find(http::field::host);
  if (request.version() >= 11 && host == request.end()) return Refuse(400, "the request has no Host header");
  if (host != request.end() && !server_.KnowsHost(host->value())) {
    return Refuse(421, "this server does not answer for that host; ask it by its own address, or name the host with --host");
  }
  // Two of them are two opinions on who is asked, of a proxy's and ours.
  if (request.count(http::field::host) > 1) return Refuse(400, "the request has more than one Host header");
  const uint64_t length = parser_->content_length().value_or(parser_->chunked() ? server_.options().body_bytes_max : 0);
  if (length > server_.options().body_bytes_max) return RefuseParse(http::error::body_limit);
  if (!server_.TakeRoom(length)) return Refuse(503, "too many long requests at once; send it again in a while");
  room_ = length;
  SetDeadline(server_.options().body_time);
  const auto read = [self = shared_from_this()] {
    self->Through([&](auto& stream) {
      http::async_read(stream, self->buffer_, *self->parser_, [self](const error_code& ec, size_t) {
        if (self->state_ == State::kClosed) return;
        if (ec) return self->RefuseParse(ec);
        self->Handle();
      });
    });
  };
  if (!parser_->is_done() && LowerCase(request[http::field::expect]) == "100-continue") {
    static const std::string kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    return Through([&](auto& stream) {
      net::async_write(stream, net::buffer(kContinue), [self = shared_from_this(), read](const error_code& ec, size_t) {
        if (self->state_ == State::kClosed) return;
        if (ec) return self->Close();
        read();
      });
    });
  }
  read();
}

void Connection::RefuseParse(const error_code& ec) {
  if (ec == http::error::header_limit) return Refuse(431, "the request's headers are longer than 16 KiB");
  if (ec == http::error::body_limit) {
    return Refuse(413, "the request's body is longer than " + std::to_string(server_.options().body_bytes_max) + " bytes; send it in parts");
  }
  if (ec.category() == http::make_error_code(http::error::bad_target).category() && ec != http::error::end_of_stream &&
      ec != http::error::partial_message) {
    return Refuse(400, "the request is no HTTP: " + ec.message());
  }
  Close();
}

void Connection::Refuse(unsigned status, const std::string& message) {
  GiveRoom();
  state_ = State::kAnswering;
  keep_alive_ = false;
  chunked_ = true;
  head_only_ = false;
  Reply(serial_, {.status = status, .body = ErrorJson("invalid_request_error", message)});
}

void Connection::Handle() {
  const http::request<http::string_body>& message = parser_->get();
  keep_alive_ = message.keep_alive();
  chunked_ = message.version() >= 11;
  head_only_ = message.method() == http::verb::head;
  HttpRequest request;
  request.method = head_only_ ? "GET" : std::string(message.method_string());
  request.head_only = head_only_;
  const std::string_view target = message.target();
  const std::string_view path = target.substr(0, target.find('?'));
  bool good = path.starts_with('/');
  for (size_t at = 1; good && at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    std::string segment;
    good = PercentDecode(path.substr(at, end - at), false, &segment);
    if (end < path.size() || !segment.empty()) request.path.push_back(std::move(segment));
    at = end + 1;
  }
  std::string_view query = path.size() < target.size() ? target.substr(path.size() + 1) : std::string_view();
  while (good && !query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const size_t equals = pair.find('=');
    std::string name, value;
    good = PercentDecode(pair.substr(0, equals), true, &name) &&
           PercentDecode(equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1), true, &value);
    if (!name.empty()) request.query[name] = value;
  }
  if (!good) return Refuse(400, "the request's target is malformed");
  const std::string type = LowerCase(message[http::field::content_type]);
  request.content_type = type.substr(0, type.find(';'));
  while (request.content_type.ends_with(' ')) request.content_type.pop_back();
  request.authorization = message[http::field::authorization];
  request.upload_offset = message["Upload-Offset"];
  request.upload_length = message["Upload-Length"];
  request.id = id_ = RequestId(message["X-Request-Id"]);
  if (const std::string_view trace = message["traceparent"]; IsTraceparent(trace)) request.traceparent = trace;
  error_code ignored;
  request.peer = socket_.remote_endpoint(ignored).address().to_string();
  request.body = std::move(parser_->get().body());
  parser_.reset();
  GiveRoom();  // from here on it is the handler's

  deadline_.cancel();
  state_ = State::kAnswering;
  answering_ = std::make_shared<Answering>();
  Watch();
  server_.handler()(std::move(request), std::make_shared<Exchange>(shared_from_this(), socket_.get_executor(), serial_, answering_));
}

// The client's end of the connection: while nothing is to be read, readiness means that it is gone. Where something is (the next
// request, or TLS's farewell), the connection's own state tells of the end behind it.
void Connection::Watch() {
  const auto current = [self = shared_from_this(), serial = serial_](const error_code& ec) {
    return !ec && self->serial_ == serial && self->state_ != State::kClosed;
  };
  socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this(), current](const error_code& ec) {
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
  std::string head = "HTTP/1.1 " + std::to_string(reply.status) + " " + std::string(http::obsolete_reason(static_cast<http::status>(reply.status))) +
                     "\r\nDate: " + Date() + "\r\nContent-Type: " + reply.content_type + "\r\n";
  if (!stream && reply.status != 204) head += "Content-Length: " + std::to_string(reply.body.size()) + "\r\n";
  if (stream && chunked_) head += "Transfer-Encoding: chunked\r\n";
  head += std::string("Connection: ") + (keep_alive_ ? "keep-alive" : "close") + "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";
  if (!id_.empty()) head += "X-Request-Id: " + id_ + "\r\n";
  for (const auto& [name, value] : reply.headers) head += name + ": " + value + "\r\n";
  return head + "\r\n";
}

void Connection::Reply(uint64_t serial, HttpReply reply) {
  if (serial != serial_ || state_ != State::kAnswering) return;
  keep_alive_ = keep_alive_ && !server_.draining();
  state_ = State::kFinishing;
  std::string bytes = Head(reply, false);
  if (!head_only_) bytes += reply.body;
  Queue(std::move(bytes));
}

void Connection::Begin(uint64_t serial, const std::string& content_type) {
  if (serial != serial_ || state_ != State::kAnswering) return;
  keep_alive_ = keep_alive_ && !server_.draining() && chunked_;
  state_ = State::kStreaming;
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
  state_ = State::kFinishing;
  if (chunked_ && !head_only_) Queue("0\r\n\r\n");
  else if (!writing_) Finished();
}

void Connection::Queue(std::string bytes, size_t counted) {
  out_bytes_ += bytes.size();
  out_.emplace_back(std::move(bytes), counted);
  if (!writing_) WriteNext();
}

void Connection::WriteNext() {
  writing_ = true;
  SetDeadline(server_.options().write_time);
  Through([&](auto& stream) {
    net::async_write(stream, net::buffer(out_.front().first), [self = shared_from_this()](const error_code& ec, size_t) {
      self->writing_ = false;
      if (self->state_ == State::kClosed) return;
      if (ec) return self->Close();
      self->out_bytes_ -= self->out_.front().first.size();
      if (self->answering_ != nullptr && self->out_.front().second > 0) self->answering_->Taken(self->out_.front().second);
      self->out_.pop_front();
      if (!self->out_.empty()) return self->WriteNext();
      if (self->state_ == State::kFinishing) return self->Finished();
      self->Ping();
    });
  });
}

void Connection::Ping() {
  if (!events_) {
    deadline_.cancel();
    return;
  }
  deadline_.expires_after(server_.options().ping_time);
  deadline_.async_wait([self = shared_from_this(), serial = serial_](const error_code& ec) {
    if (!ec) self->Piece(serial, ": ping\n\n");
  });
}

void Connection::Finished() {
  deadline_.cancel();
  watch_timer_.cancel();
  ++serial_;
  id_.clear();
  answering_.reset();
  if (keep_alive_) return AwaitRequest();
  // What the client still sends is not read: a reset would take the reply away from it before it has read it.
  error_code ignored;
  state_ = State::kReading;
  SetDeadline(kGoodbye);
  if (tls_.has_value()) {
    // Without the farewell a client could not tell a reply's end from a cut.
    return tls_->async_shutdown([self = shared_from_this()](const error_code&) { self->Close(); });
  }
  socket_.shutdown(tcp::socket::shutdown_send, ignored);
  Discard();
}

void Connection::Discard() {
  buffer_.clear();
  socket_.async_read_some(buffer_.prepare(kDiscardBytes), [self = shared_from_this()](const error_code& ec, size_t) {
    if (self->state_ == State::kClosed) return;
    if (ec) return self->Close();
    self->Discard();
  });
}

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::Listen(const HttpServerOptions& options, HttpHandler handler) {
  auto server = std::make_unique<Server>(options, std::move(handler));
  LH_RETURN_IF_ERROR(server->Open());
  return std::unique_ptr<HttpServer>(std::move(server));
}

bool IsLoopback(const std::string& address) {
  error_code ec;
  const net::ip::address parsed = net::ip::make_address(address, ec);
  return !ec && parsed.is_loopback();
}

bool PercentDecode(std::string_view text, bool plus_is_blank, std::string* out) {
  out->clear();
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size() || HexDigit(text[i + 1]) < 0 || HexDigit(text[i + 2]) < 0) return false;
      c = static_cast<char>(HexDigit(text[i + 1]) * 16 + HexDigit(text[i + 2]));
      i += 2;
    } else if (c == '+' && plus_is_blank) {
      c = ' ';
    }
    if (c == '\0') return false;
    *out += c;
  }
  return true;
}

}  // namespace longhold
