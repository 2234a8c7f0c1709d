// The server as a socket sees it: requests cut anywhere, too long, malformed, slow or given up;
// replies, streams and the end of it all; what one client can take from others. Every wait is
// bounded by the server's own deadlines, set to tenths of seconds here.
#include "service/server/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <deque>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "tests/support/loopback.h"

namespace longhold {
namespace {

using std::chrono_literals::operator""min;
using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;
using testing::AllOf;
using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

// A blocking client that gives up after five seconds.
class Client {
 public:
  explicit Client(uint16_t port, const char* source = "127.0.0.1")
      : fd_(ConnectLoopback(port, source)), connected_(fd_ >= 0) {}
  ~Client() { Close(); }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  bool connected() const { return connected_; }
  Client& Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) break;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return *this;
  }
  // Everything until the server closes, or "(timeout)" behind it.
  std::string ReadAll() {
    std::string all = std::move(rest_);
    char buffer[4096];
    for (ssize_t n; (n = recv(fd_, buffer, sizeof buffer, 0)) != 0;) {
      if (n < 0) return all + (errno == EAGAIN ? "(timeout)" : "(reset)");
      all.append(buffer, static_cast<size_t>(n));
    }
    return all;
  }
  // Up to and with `mark`.
  std::string ReadTo(const std::string& mark) {
    char buffer[4096];
    size_t at;
    while ((at = rest_.find(mark)) == std::string::npos) {
      const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
      if (n <= 0) return rest_ + "(no " + mark + ")";
      rest_.append(buffer, static_cast<size_t>(n));
    }
    std::string out = rest_.substr(0, at + mark.size());
    rest_.erase(0, out.size());
    return out;
  }

 private:
  int fd_;
  bool connected_;
  std::string rest_;
};

class HttpServerTest : public testing::Test {
 protected:
  void Start(HttpServerOptions options = {}) {
    options.refused = [this](const HttpRequest& head, unsigned status) {
      const std::lock_guard lock(mutex_);
      std::string path;
      for (const std::string& segment : head.path) path += "/" + segment;
      refused_.push_back(std::to_string(status) + " " + (head.method.empty() ? "?" : head.method) +
                         " " + path + " " + head.peer);
      EXPECT_THAT(head.id, StartsWith("req-"));
    };
    Result<std::unique_ptr<HttpServer>> server =
        HttpServer::Listen(options, [this](const HttpRequest& head) { return Admit(head); });
    ASSERT_TRUE(server.ok()) << server.status().ToString();
    server_ = std::move(*server);
    thread_ = std::thread([this] { server_->Run(&stop_, 1s, [this] { stopped_ = true; }); });
  }
  void TearDown() override {
    Stop();
    kept_.clear();
  }
  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  // /door lets nobody in, /small takes ten bytes, /nothing none.
  HttpAdmission Admit(const HttpRequest& head) {
    const std::lock_guard lock(mutex_);
    ++asked_;
    const std::string first = head.path.empty() ? "" : head.path[0];
    if (first == "door")
      return {.refusal =
                  HttpReply{
                      .status = 401, .body = "{\"error\":{\"message\":\"no key\"}}", .headers = {}},
              .when_longer = "",
              .handle = {},
              .refused = {}};
    return {.refusal = std::nullopt,
            .body_bytes_max = first == "nothing" ? 0
                              : first == "small" ? 10
                                                 : UINT64_MAX,
            .when_longer = "send less",
            .handle =
                [this](HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
                  Handle(std::move(request), std::move(exchange));
                },
            .refused =
                [this, first](unsigned status) {
                  const std::lock_guard lock(mutex_);
                  refused_.push_back(std::to_string(status) + " /" + first + " let in");
                }};
  }
  // What was refused so far, and by whom.
  std::vector<std::string> TakeRefused() {
    const std::lock_guard lock(mutex_);
    return std::exchange(refused_, {});
  }
  size_t asked() {
    const std::lock_guard lock(mutex_);
    return asked_;
  }
  // /echo tells what was understood; /keep leaves the exchange to the test; /drop answers nothing.
  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
    if (request.path == std::vector<std::string>{"drop"}) return;
    if (request.path == std::vector<std::string>{"keep"}) {
      const std::lock_guard lock(mutex_);
      kept_.push_back(std::move(exchange));
      return;
    }
    if (request.path == std::vector<std::string>{"who"}) {
      return exchange->Respond(
          {.content_type = "text/plain",
           .body = request.id + " " + request.peer + " <" + request.traceparent + ">",
           .headers = {}});
    }
    std::string told = request.method;
    for (const std::string& segment : request.path) told += " [" + segment + "]";
    for (const auto& [name, value] : request.query) told += " " + name + "=" + value;
    exchange->Respond({.content_type = "text/plain",
                       .body = told + " " + request.content_type + " " + request.authorization +
                               " <" + request.body + ">",
                       .headers = {{"X-Own", "1"}}});
  }
  std::shared_ptr<HttpExchange> Kept() {
    for (;;) {
      const std::lock_guard lock(mutex_);
      if (!kept_.empty()) {
        auto exchange = kept_.front();
        kept_.pop_front();
        return exchange;
      }
      std::this_thread::sleep_for(1ms);
    }
  }
  uint16_t port() const { return server_->port(); }

  std::atomic<bool> stop_{false}, stopped_{false};
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
  std::mutex mutex_;
  std::deque<std::shared_ptr<HttpExchange>> kept_;
  std::vector<std::string> refused_;
  size_t asked_ = 0;
};

// Whether it holds within five seconds.
template <typename Condition>
bool Eventually(Condition condition) {
  for (int i = 0; i < 5000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(1ms);
  }
  return false;
}

std::string Get(const std::string& target, const std::string& headers = "Connection: close\r\n") {
  return "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n";
}

TEST_F(HttpServerTest, ReadsARequestWhereverItIsCut) {
  Start();
  const std::string request =
      "POST /a%2Fb/c%20d?x=1+2&y=%26&flag HTTP/1.1\r\nHost: LOCALHOST:80\r\nContent-Type: "
      "Text/Plain; charset=utf-8\r\nAuthorization: Bearer k\r\n"
      "Content-Length: 5\r\nConnection: close\r\n\r\nhello";
  const std::string expected = "POST [a/b] [c d] flag= x=1 2 y=& text/plain Bearer k <hello>";
  for (size_t cut = 0; cut < request.size(); cut += 7) {
    Client client(port());
    client.Send(request.substr(0, cut));
    if (cut > 0) std::this_thread::sleep_for(1ms);
    const std::string reply = client.Send(request.substr(cut)).ReadAll();
    EXPECT_THAT(reply, AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("X-Own: 1\r\n"),
                             EndsWith(expected)))
        << cut;
  }
}

TEST_F(HttpServerTest, AnswersOneAfterTheOtherOnOneConnection) {
  Start();
  Client client(port());
  for (int i = 0; i < 3; ++i) {
    client.Send(Get("/" + std::to_string(i), ""));
    EXPECT_THAT(client.ReadTo("<>"), HasSubstr("Connection: keep-alive\r\n"));
  }
  // Sent before the first is answered.
  client.Send(Get("/4", "") + Get("/5", "") + Get("/6"));
  EXPECT_THAT(client.ReadTo("<>"), HasSubstr("[4]"));
  EXPECT_THAT(client.ReadTo("<>"), HasSubstr("[5]"));
  EXPECT_THAT(client.ReadAll(), AllOf(HasSubstr("Connection: close\r\n"), EndsWith("[6]   <>")));
}

TEST_F(HttpServerTest, EveryRequestHasAnIdThatItsReplyTells) {
  Start();
  const std::string trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  EXPECT_THAT(Client(port())
                  .Send(Get("/who", "X-Request-Id: my.id-1_a\r\nTraceParent: " + trace +
                                        "\r\nConnection: close\r\n"))
                  .ReadAll(),
              AllOf(HasSubstr("\r\nX-Request-Id: my.id-1_a\r\n"),
                    EndsWith("my.id-1_a 127.0.0.1 <" + trace + ">")));
  // One that could say something else in a log or a header is not taken over.
  for (const std::string& bad :
       {std::string("a b"), std::string(65, 'a'), std::string("\"x\""), std::string()}) {
    EXPECT_THAT(Client(port())
                    .Send(Get("/who", "X-Request-Id: " + bad +
                                          "\r\nTraceparent: 00-4BF9\r\nConnection: close\r\n"))
                    .ReadAll(),
                AllOf(HasSubstr("\r\nX-Request-Id: req-"), EndsWith(" <>")))
        << bad;
  }
  Client two(port());
  const std::string first = two.Send(Get("/who", "")).ReadTo("<>"),
                    second = two.Send(Get("/who", "")).ReadTo("<>");
  EXPECT_NE(first.substr(first.find("X-Request-Id")), second.substr(second.find("X-Request-Id")));
}

TEST_F(HttpServerTest, KnowsHeadOldClientsChunksAndExpectations) {
  Start();
  EXPECT_THAT(Client(port())
                  .Send("HEAD /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                  .ReadAll(),
              AllOf(HasSubstr("Content-Length: 12\r\n"), EndsWith("\r\n\r\n")));
  EXPECT_THAT(Client(port()).Send("GET /x HTTP/1.0\r\n\r\n").ReadAll(),
              AllOf(HasSubstr("Connection: close"), EndsWith("GET [x]   <>")));
  EXPECT_THAT(Client(port())
                  .Send("POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: "
                        "chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2;e=1\r\nde\r\n0\r\n\r\n")
                  .ReadAll(),
              EndsWith("<abcde>"));
  Client patient(port());
  patient.Send(
      "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: "
      "100-continue\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(patient.ReadTo("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  EXPECT_THAT(patient.Send("abc").ReadAll(), EndsWith("<abc>"));
}

TEST_F(HttpServerTest, RefusesWhatItShould) {
  Start({.body_bytes_max = 1000});
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"nonsense\r\n\r\n", "400"},
      {"GET / HTTP/1.1\r\n\r\n", "400"},
      {"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", "421"},
      {"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", "400"},
      {"GET / HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n", "421"},
      {Get("/%zz"), "400"},
      {Get("/a%00b"), "400"},
      {Get("http://localhost/"), "400"},
      {Get("/", "X: " + std::string(20000, 'x') + "\r\n"), "431"},
      {Get("/" + std::string(20000, 'x')), "431"},
      {Get("/",
           [] {
             std::string many;
             for (int i = 0; i < 200; ++i) many += "X: y\r\n";
             return many;
           }()),
       "431"},
      {Get("/", "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), "400"},
      {Get("/", "Bad Name: x\r\n"), "400"},
      {"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", "400"},
      {"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n", "413"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3ea\r\n" +
           std::string(1002, 'x') + "\r\n0\r\n\r\n",
       "413"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: "
       "chunked\r\n\r\nfffffffffffffff0\r\n",
       "413"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: "
       "chunked\r\n\r\nfffffffffffffffff0\r\n",
       "400"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;" +
           std::string(100000, 'x') + "\r\n",
       "400"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" +
           std::string(100000, 'x') + "\r\n",
       "400"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", "400"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3, 3\r\n\r\nabc", "400"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
       "400"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
       "400"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: "
       "4\r\n\r\n0\r\n\r\n",
       "400"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
  };
  for (const auto& [request, status] : cases) {
    const std::string reply = Client(port()).Send(request).ReadAll();
    EXPECT_THAT(reply, AllOf(StartsWith("HTTP/1.1 " + status),
                             HasSubstr("{\"error\":{\"message\":"), Not(HasSubstr("(timeout)"))))
        << request.substr(0, 80);
    EXPECT_THAT(TakeRefused(), ElementsAre(StartsWith(status + " "))) << request.substr(0, 80);
  }
  EXPECT_THAT(Client(port())
                  .Send("GET / HTTP/1.1\r\nHost: [::1]:8420\r\nConnection: close\r\n\r\n")
                  .ReadAll(),
              StartsWith("HTTP/1.1 200"));
}

// The bodies of what is refused are not waited for: nothing of them is sent here.
TEST_F(HttpServerTest, DecidesBeforeABodyIsSent) {
  Start();
  const auto post = [](const std::string& path, const std::string& headers) {
    return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n";
  };
  for (const std::string& body :
       {std::string("Content-Length: 60000000\r\n"), std::string("Transfer-Encoding: chunked\r\n"),
        std::string("Content-Length: 9\r\nExpect: 100-continue\r\n")}) {
    EXPECT_THAT(Client(port()).Send(post("/door", body)).ReadAll(),
                AllOf(StartsWith("HTTP/1.1 401"), HasSubstr("Connection: close\r\n"),
                      EndsWith("no key\"}}")));
  }
  EXPECT_THAT(TakeRefused(), ElementsAre()) << "whoever refused it knows of it";
  const std::string long_one =
      Client(port())
          .Send(post("/small", "Content-Length: 11\r\nExpect: 100-continue\r\n"))
          .ReadAll();
  EXPECT_THAT(long_one,
              AllOf(StartsWith("HTTP/1.1 413"), HasSubstr("longer than 10 bytes; send less")));
  EXPECT_THAT(
      Client(port()).Send(post("/small", "Transfer-Encoding: chunked\r\n") + "b\r\n").ReadAll(),
      StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(TakeRefused(), ElementsAre("413 /small let in", "413 /small let in"));
  EXPECT_THAT(
      Client(port())
          .Send(post("/small", "Content-Length: 10\r\nConnection: close\r\n") + "0123456789")
          .ReadAll(),
      EndsWith("<0123456789>"));
  EXPECT_THAT(Client(port())
                  .Send(post("/small", "Transfer-Encoding: chunked\r\nConnection: close\r\n") +
                        "4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n")
                  .ReadAll(),
              EndsWith("<0123456789>"));
  EXPECT_THAT(Client(port()).Send(post("/nothing", "Transfer-Encoding: chunked\r\n")).ReadAll(),
              StartsWith("HTTP/1.1 413"));
  EXPECT_THAT(
      Client(port()).Send(post("/nothing", "Content-Length: 0\r\nConnection: close\r\n")).ReadAll(),
      EndsWith("<>"));
  // A connection goes on after a refusal where no body is to come, and ends where one is: it would
  // be read as the next request.
  Client client(port());
  EXPECT_THAT(client.Send(Get("/door", "")).ReadTo("no key\"}}"),
              HasSubstr("Connection: keep-alive\r\n"));
  EXPECT_THAT(client.Send(post("/door", "Content-Length: 40\r\n") + Get("/smuggled")).ReadAll(),
              AllOf(HasSubstr("no key"), Not(HasSubstr("smuggled"))));
}

TEST_F(HttpServerTest, ARefusalArrivesWholeThoughTheBodyIsSentAllTheSame) {
  Start();
  Client client(port());
  client.Send("POST /door HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n" +
              std::string(2'000'000, 'x'));
  EXPECT_THAT(client.ReadAll(), AllOf(StartsWith("HTTP/1.1 401"), EndsWith("no key\"}}")));
}

constexpr size_t kKiB = 1024;

std::string Post(size_t length, const std::string& path = "/x") {
  return "POST " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: " +
         std::to_string(length) + "\r\n\r\n";
}

TEST_F(HttpServerTest, ClaimedBodiesTakeNoRoom) {
  Start({.body_bytes_max = 1000 * kKiB, .bodies_bytes_max = 1000 * kKiB, .peer_share = 1});
  std::deque<Client> claiming;
  for (int i = 0; i < 8; ++i) claiming.emplace_back(port()).Send(Post(1000 * kKiB) + "x");
  for (int i = 0; i < 8; ++i)
    EXPECT_THAT(Client(port()).Send(Post(400 * kKiB) + std::string(400 * kKiB, 'y')).ReadAll(),
                StartsWith("HTTP/1.1 200"));
  claiming.clear();
  // What has come takes its room, until the client has gone.
  {
    Client gone(port());
    gone.Send(Post(900 * kKiB) + std::string(899 * kKiB, 'x'));
  }
  EXPECT_TRUE(Eventually([&] {
    return Client(port())
        .Send(Post(900 * kKiB) + std::string(900 * kKiB, 'z'))
        .ReadAll()
        .starts_with("HTTP/1.1 200");
  }));
}

TEST_F(HttpServerTest, ABodyKeepsItsRoomUntilItsExchangeIsLetGo) {
  Start({.body_bytes_max = 1000 * kKiB, .bodies_bytes_max = 1000 * kKiB, .peer_share = 1});
  Client client(port());
  client.Send(Post(900 * kKiB, "/keep") + std::string(900 * kKiB, 'x'));
  auto exchange = Kept();
  client.Close();
  EXPECT_TRUE(Eventually([&] { return exchange->gone().load(); }));
  EXPECT_THAT(Client(port()).Send(Post(400 * kKiB) + std::string(400 * kKiB, 'y')).ReadAll(),
              AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("Retry-After: 1\r\n")));
  EXPECT_THAT(TakeRefused(), ElementsAre("503 /x let in"));
  EXPECT_THAT(Client(port()).Send(Post(60 * kKiB) + std::string(60 * kKiB, 'y')).ReadAll(),
              AllOf(StartsWith("HTTP/1.1 200"), EndsWith("yyy>")));
  exchange.reset();
  EXPECT_TRUE(Eventually([&] {
    return Client(port())
        .Send(Post(900 * kKiB) + std::string(900 * kKiB, 'z'))
        .ReadAll()
        .starts_with("HTTP/1.1 200");
  }));
}

TEST_F(HttpServerTest, OneClientHasHalfOfTheRoom) {
  Start({.body_bytes_max = 1000 * kKiB, .bodies_bytes_max = 1000 * kKiB});
  Client first(port());
  first.Send(Post(400 * kKiB, "/keep") + std::string(400 * kKiB, 'x'));
  const auto exchange = Kept();
  EXPECT_THAT(Client(port()).Send(Post(300 * kKiB) + std::string(300 * kKiB, 'y')).ReadAll(),
              StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(
      Client(port(), "127.0.0.2").Send(Post(300 * kKiB) + std::string(300 * kKiB, 'y')).ReadAll(),
      StartsWith("HTTP/1.1 200"));
}

// A page of another origin, for each kind of request that a browser sends by itself. Nobody is
// asked, whatever the route: paths do not matter here.
TEST_F(HttpServerTest, NoWebPageOfAnotherOriginIsHeard) {
  Start({.hosts = {"books.example"}});
  const auto send = [&](const std::string& method, const std::string& host,
                        const std::string& headers, const std::string& body = "") {
    return Client(port())
        .Send(method + " /v1/memories HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n" +
              headers +
              (body.empty() ? "" : "Content-Length: " + std::to_string(body.size()) + "\r\n") +
              "\r\n" + body)
        .ReadAll();
  };
  const std::vector<std::pair<std::string, std::string>> foreign = {
      {"localhost:8420", "Origin: http://evil.example\r\n"},
      {"localhost:8420", "Origin: null\r\n"},
      {"localhost:8420", "Origin: \r\n"},
      {"localhost:8420", "Origin: http://localhost:8421\r\n"},
      {"localhost:8420", "Origin: http://localhost\r\n"},
      {"localhost:8420", "Origin: http://127.0.0.1:8420\r\n"},
      {"localhost:8420", "Origin: http://localhost:8420.evil.example\r\n"},
      {"localhost:8420", "Origin: http://localhost:8420@evil.example\r\n"},
      {"localhost:8420", "Origin: file://localhost:8420\r\n"},
      {"localhost:8420", "Origin: http://localhost:8420\r\nOrigin: http://evil.example\r\n"},
      {"localhost:8420", "Sec-Fetch-Site: cross-site\r\n"},
      {"localhost:8420", "Sec-Fetch-Site: same-site\r\n"},
      {"localhost:8420", "sec-fetch-site: CROSS-SITE\r\n"},
      {"localhost:8420", "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\n"},
      {"localhost:8420", "Origin: http://localhost:8420\r\nSec-Fetch-Site: cross-site\r\n"},
      {"books.example", "Origin: https://books.example:444\r\n"}};
  for (const char* method : {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}) {
    for (const auto& [host, headers] : foreign) {
      EXPECT_THAT(send(method, host, headers + "Content-Type: text/plain\r\n",
                       std::string(method) == "POST" ? "a text" : ""),
                  StartsWith("HTTP/1.1 403"))
          << method << " " << headers;
    }
  }
  // A preflight, and a WebSocket's handshake.
  EXPECT_THAT(send("OPTIONS", "localhost:8420",
                   "Origin: http://evil.example\r\nAccess-Control-Request-Method: "
                   "POST\r\nAccess-Control-Request-Private-Network: true\r\n"),
              AllOf(StartsWith("HTTP/1.1 403"), Not(HasSubstr("Access-Control"))));
  EXPECT_THAT(send("GET", "localhost:8420",
                   "Origin: http://evil.example\r\nUpgrade: websocket\r\nSec-WebSocket-Version: "
                   "13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
              StartsWith("HTTP/1.1 403"));
  // A name of the attacker's that leads to this address.
  EXPECT_THAT(send("GET", "evil.example:8420",
                   "Origin: http://evil.example:8420\r\nSec-Fetch-Site: same-origin\r\n"),
              StartsWith("HTTP/1.1 421"));
  EXPECT_EQ(asked(), 0u);
  for (const std::string& told : TakeRefused())
    EXPECT_THAT(told, AllOf(HasSubstr(" /v1/memories 127.0.0.1"),
                            testing::AnyOf(StartsWith("403"), StartsWith("421"))));
  const std::vector<std::pair<std::string, std::string>> own = {
      {"localhost:8420", ""},
      {"localhost:8420", "Origin: http://localhost:8420\r\n"},
      {"LOCALHOST:8420", "Origin: HTTP://LocalHost:8420\r\nSec-Fetch-Site: same-origin\r\n"},
      {"localhost", "Origin: http://localhost:80\r\n"},
      {"localhost:443", "Origin: https://localhost\r\n"},
      {"[::1]:8420", "Origin: http://[::1]:8420\r\n"},
      {"books.example", "Origin: https://books.example\r\n"},
      {"localhost:8420", "Sec-Fetch-Site: none\r\n"}};
  for (const auto& [host, headers] : own)
    EXPECT_THAT(send("GET", host, headers), StartsWith("HTTP/1.1 200")) << host << " " << headers;
}

// Behind each stands a second request, which is never to be answered: a proxy may have taken it for
// the first one's body.
TEST_F(HttpServerTest, OnlyChunkedIsATransferEncoding) {
  Start();
  const std::string smuggled = Get("/smuggled");
  const std::vector<std::string> headers = {
      "Transfer-Encoding: gzip\r\n",
      "Transfer-Encoding: identity\r\n",
      "Transfer-Encoding: xchunked\r\n",
      "Transfer-Encoding: chunkedx\r\n",
      "Transfer-Encoding: \r\n",
      "Transfer-Encoding: gzip, chunked\r\n",
      "Transfer-Encoding: chunked, gzip\r\n",
      "Transfer-Encoding: chunked, chunked\r\n",
      "Transfer-Encoding: chunked,\r\n",
      "Transfer-Encoding: ,chunked\r\n",
      "Transfer-Encoding: chunked;q=1\r\n",
      "Transfer-Encoding: \"chunked\"\r\n",
      "Transfer-Encoding: chunked\x0b\r\n",
      "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
      "Transfer-Encoding : chunked\r\n",
      "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
      "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
      "Content-Length: 5\r\nTransfer-Encoding: gzip\r\n"};
  for (const char* version : {"1.0", "1.1"}) {
    for (const std::string& header : headers) {
      const std::string reply =
          Client(port())
              .Send("POST /x HTTP/" + std::string(version) + "\r\nHost: localhost\r\n" + header +
                    "\r\n0\r\n\r\n" + smuggled)
              .ReadAll();
      EXPECT_THAT(reply, AllOf(StartsWith("HTTP/1.1 400"), HasSubstr("Connection: close\r\n"),
                               Not(HasSubstr("smuggled"))))
          << version << " " << header;
    }
  }
  EXPECT_THAT(
      Client(port())
          .Send(
              "POST /x HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" +
              smuggled)
          .ReadAll(),
      AllOf(StartsWith("HTTP/1.1 400"), Not(HasSubstr("smuggled"))));
  EXPECT_EQ(asked(), 0u);
  EXPECT_THAT(Client(port())
                  .Send("POST /x HTTP/1.1\r\nHost: localhost\r\ntransfer-encoding:\t Chunked "
                        "\r\n\r\n1\r\na\r\n0\r\n\r\n" +
                        Get("/next"))
                  .ReadAll(),
              AllOf(HasSubstr("<a>"), HasSubstr("[next]")));
}

// What comes behind a body could be a client's own headers where a proxy has set others in front of
// it.
TEST_F(HttpServerTest, TrailersSayNothing) {
  Start();
  EXPECT_THAT(Client(port())
                  .Send("POST /x HTTP/1.1\r\nHost: localhost\r\nConnection: "
                        "close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
                        "Authorization: Bearer stolen\r\nContent-Type: text/evil\r\nX-Request-Id: "
                        "evil\r\nHost: evil.example\r\n\r\n")
                  .ReadAll(),
              AllOf(StartsWith("HTTP/1.1 200"), Not(HasSubstr("evil")), Not(HasSubstr("stolen")),
                    EndsWith("<a>")));
}

TEST_F(HttpServerTest, OtherHostsOnlyWhereTheyAreNamed) {
  Start({.hosts = {"books.example"}});
  EXPECT_THAT(Client(port())
                  .Send("GET / HTTP/1.1\r\nHost: Books.Example:99\r\nConnection: close\r\n\r\n")
                  .ReadAll(),
              StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpServerTest, DoesNotWaitForSlowClients) {
  Start({.header_time = 100ms, .body_time = 100ms});
  EXPECT_THAT(Client(port()).Send("GET / HT").ReadAll(), StartsWith("HTTP/1.1 408"))
      << "half a line";
  EXPECT_THAT(Client(port()).Send("HEAD /secret HTTP/1.1\r\nHost: localh").ReadAll(),
              AllOf(StartsWith("HTTP/1.1 408"), EndsWith("\r\n\r\n")))
      << "half a header";
  EXPECT_THAT(Client(port())
                  .Send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nab")
                  .ReadAll(),
              StartsWith("HTTP/1.1 408"))
      << "half a body";
  EXPECT_THAT(TakeRefused(),
              ElementsAre("408 ?  127.0.0.1", "408 GET /secret 127.0.0.1", "408 /x let in"));
}

TEST_F(HttpServerTest, DoesNotWaitForSilentClients) {
  Start({.idle_time = 1s});
  EXPECT_EQ(Client(port()).ReadAll(), "") << "says nothing";
  Client served(port());
  EXPECT_THAT(served.Send(Get("/x", "")).ReadTo("<>"), HasSubstr("[x]"));
  EXPECT_EQ(served.ReadAll(), "") << "nothing more";
}

TEST_F(HttpServerTest, ABodyThatStandsStillIsGivenUpLongBeforeItsTime) {
  Start({.body_stall_time = 100ms});
  EXPECT_THAT(Client(port()).Send(Post(1'000'000) + std::string(500'000, 'x')).ReadAll(),
              StartsWith("HTTP/1.1 408"));
}

TEST_F(HttpServerTest, ABodyThatTricklesIsGivenUpToo) {
  Start({.body_time = 300ms, .body_stall_time = 60s});
  Client client(port());
  client.Send(Post(1'000'000));
  std::atomic<bool> ended{false};
  std::thread trickle([&] {
    for (int i = 0; i < 500 && !ended; ++i) {
      client.Send("x");
      std::this_thread::sleep_for(10ms);
    }
  });
  EXPECT_THAT(client.ReadAll(), StartsWith("HTTP/1.1 408"));
  ended = true;
  trickle.join();
}

TEST_F(HttpServerTest, StreamsInPiecesAndPings) {
  Start({.ping_time = 50ms});
  Client client(port());
  client.Send(Get("/keep"));
  const auto exchange = Kept();
  exchange->BeginStream();
  EXPECT_THAT(client.ReadTo("\r\n\r\n"),
              AllOf(HasSubstr("text/event-stream"), HasSubstr("Transfer-Encoding: chunked")));
  exchange->Write("data: 1\n\n");
  EXPECT_EQ(client.ReadTo("1\n\n\r\n"), "9\r\ndata: 1\n\n\r\n");
  EXPECT_EQ(client.ReadTo("\n\n\r\n"), "8\r\n: ping\n\n\r\n");
  exchange->Write("");  // would end the stream
  exchange->Write("data: 2\n\n");
  EXPECT_THAT(client.ReadTo("2\n\n\r\n"), EndsWith("9\r\ndata: 2\n\n\r\n"));
  exchange->EndStream();
  exchange->Write("data: 3\n\n");
  EXPECT_THAT(client.ReadAll(), AllOf(EndsWith("0\r\n\r\n"), Not(HasSubstr("data: 3"))));
}

// Waits for the client; false where it has gone.
bool WriteWhenTaken(HttpExchange& exchange, const std::string& piece) {
  while (!exchange.gone()) {
    const auto ready = std::make_shared<std::promise<void>>();
    if (exchange.WriteBytes(piece, [ready] { ready->set_value(); })) return !exchange.gone();
    ready->get_future().wait();
  }
  return false;
}

TEST_F(HttpServerTest, BytesComeAsTheClientTakesThem) {
  Start({.ping_time = 20ms});
  Client client(port());
  client.Send(Get("/keep"));
  const auto exchange = Kept();
  constexpr size_t kPieces = 400, kPiece = 64 << 10;  // 25 MB: far more than sockets hold
  std::atomic<size_t> given{0};
  std::thread writer([&] {
    exchange->BeginBytes("application/octet-stream");
    for (; given < kPieces; ++given) {
      if (!WriteWhenTaken(*exchange, std::string(kPiece, static_cast<char>('a' + given % 26))))
        return;
    }
    exchange->EndStream();
  });
  EXPECT_THAT(client.ReadTo("\r\n\r\n"), HasSubstr("application/octet-stream"));
  std::this_thread::sleep_for(200ms);
  EXPECT_LT(given, kPieces) << "it waits for the client";
  const std::string all = client.ReadAll();
  writer.join();
  EXPECT_EQ(given, kPieces);
  EXPECT_EQ(all.find("ping"), std::string::npos);
  EXPECT_THAT(all.substr(all.size() - 7), EndsWith("0\r\n\r\n"));
  EXPECT_EQ(std::count(all.begin(), all.end(), 'z'),
            static_cast<ptrdiff_t>(kPiece * (kPieces / 26)));
}

TEST_F(HttpServerTest, BytesThatBreakOffDoNotLookWhole) {
  Start();
  Client client(port());
  client.Send(Get("/keep"));
  const auto exchange = Kept();
  exchange->BeginBytes("application/octet-stream");
  EXPECT_TRUE(WriteWhenTaken(*exchange, "abc"));
  EXPECT_THAT(client.ReadTo("abc\r\n"), EndsWith("3\r\nabc\r\n"));
  exchange->Break();
  EXPECT_THAT(client.ReadAll(), Not(HasSubstr("0\r\n")));
  for (int i = 0; i < 2000 && !exchange->gone(); ++i) std::this_thread::sleep_for(1ms);
  EXPECT_FALSE(WriteWhenTaken(*exchange, "more"));
}

TEST_F(HttpServerTest, AWriterDoesNotWaitForAClientThatHasGone) {
  Start();
  Client client(port());
  client.Send(Get("/keep"));
  const auto exchange = Kept();
  exchange->BeginBytes("application/octet-stream");
  std::thread leaver([&] {
    std::this_thread::sleep_for(100ms);
    client.Close();
  });
  while (WriteWhenTaken(*exchange, std::string(64 << 10, 'x'))) continue;
  EXPECT_TRUE(exchange->gone());
  leaver.join();
  // Nor for one that wants the head alone.
  Client other(port());
  other.Send("HEAD /keep HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  const auto head = Kept();
  head->BeginBytes("application/octet-stream");
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(WriteWhenTaken(*head, std::string(64 << 10, 'x')));
  head->EndStream();
  EXPECT_THAT(other.ReadAll(), EndsWith("\r\n\r\n"));
}

TEST_F(HttpServerTest, OldClientsGetAStreamThatEndsWithTheConnection) {
  Start();
  Client client(port());
  client.Send("GET /keep HTTP/1.0\r\n\r\n");
  const auto exchange = Kept();
  exchange->BeginStream();
  exchange->Write("data: 1\n\n");
  exchange->EndStream();
  EXPECT_THAT(client.ReadAll(), AllOf(Not(HasSubstr("chunked")), EndsWith("\r\n\r\ndata: 1\n\n")));
}

TEST_F(HttpServerTest, TellsWhenTheClientHasGone) {
  Start();
  Client client(port());
  client.Send(Get("/keep"));
  const auto exchange = Kept();
  EXPECT_FALSE(exchange->gone());
  client.Close();
  for (int i = 0; i < 2000 && !exchange->gone(); ++i) std::this_thread::sleep_for(1ms);
  EXPECT_TRUE(exchange->gone());
  exchange->Respond({.body = "late", .headers = {}});
}

TEST_F(HttpServerTest, AReaderThatTakesNothingIsGivenUp) {
  Start({.write_time = 200ms});
  Client client(port());
  client.Send(Get("/keep"));
  const auto exchange = Kept();
  exchange->BeginStream();
  for (int i = 0; i < 5000 && !exchange->gone(); ++i) {
    exchange->Write(std::string(10000, 'x'));
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_TRUE(exchange->gone());
}

TEST_F(HttpServerTest, ADroppedRequestIsAnsweredAllTheSame) {
  Start();
  EXPECT_THAT(Client(port()).Send(Get("/drop")).ReadAll(), StartsWith("HTTP/1.1 500"));
  Client client(port());
  client.Send(Get("/keep"));
  Kept()->BeginStream();  // and lets go of it
  EXPECT_THAT(client.ReadAll(), EndsWith("\r\n\r\n0\r\n\r\n"));
}

// Replies that nobody reads, each longer than sockets hold.
TEST_F(HttpServerTest, RepliesThatAreNotTakenGiveWayToOthers) {
  Start({.replies_bytes_max = 48 << 20, .write_time = 10min});
  constexpr size_t kLong = 16 << 20;
  Client first(port()), second(port()), other(port(), "127.0.0.2");
  const auto reply = [&](Client& client) {
    client.Send(Get("/keep"));
    auto exchange = Kept();
    exchange->Respond({.body = std::string(kLong, 'x'), .headers = {}});
    return exchange;
  };
  const auto of_first = reply(first), of_other = reply(other);
  EXPECT_FALSE(of_first->gone());
  const auto of_second = reply(second);
  EXPECT_TRUE(Eventually([&] { return of_first->gone().load(); })) << "one client has half";
  EXPECT_FALSE(of_other->gone() || of_second->gone());
  EXPECT_GT(second.ReadAll().size(), kLong);
  EXPECT_GT(other.ReadAll().size(), kLong);
}

TEST_F(HttpServerTest, TheConnectionThatWaitsForLongestMakesRoom) {
  Start({.connections_max = 3, .peer_share = 1});
  Client first(port()), busy(port()), third(port());
  busy.Send(Get("/keep", ""));
  const auto exchange = Kept();
  first.Send(Get("/1", "")).ReadTo("<>");
  third.Send("GET /3");  // is not let in yet
  first.Send(Get("/1", "")).ReadTo("<>");
  EXPECT_THAT(Client(port()).Send(Get("/4")).ReadAll(), EndsWith("[4]   <>"));
  EXPECT_EQ(third.ReadAll(), "") << "it has waited longer than the first";
  first.Send(Get("/1", "")).ReadTo("<>");
  Client fifth(port()), sixth(port());
  fifth.Send(Get("/5", "")).ReadTo("<>");
  EXPECT_EQ(first.ReadAll(), "");
  EXPECT_THAT(sixth.Send(Get("/6", "")).ReadTo("<>"), EndsWith("[6]   <>"));
  EXPECT_FALSE(exchange->gone()) << "it waits for us, not we for it";
}

TEST_F(HttpServerTest, WhereNoneWaitsANewConnectionIsTurnedAway) {
  Start({.connections_max = 2, .peer_share = 1});
  Client first(port()), second(port());
  first.Send(Get("/keep"));
  const auto one = Kept();
  second.Send(Get("/keep"));
  const auto two = Kept();
  EXPECT_THAT(Client(port()).ReadAll(),
              AllOf(StartsWith("HTTP/1.1 503"), HasSubstr("Retry-After: 1\r\n"),
                    HasSubstr("too many connections")));
  EXPECT_THAT(TakeRefused(), ElementsAre("503 ?  127.0.0.1"));
  EXPECT_FALSE(one->gone() || two->gone());
  one->Respond({.body = "done", .headers = {}});
  EXPECT_THAT(first.ReadAll(), EndsWith("done"));
  EXPECT_THAT(Client(port()).Send(Get("/3")).ReadAll(), EndsWith("[3]   <>"));
}

TEST_F(HttpServerTest, OneClientHasHalfOfTheConnections) {
  Start({.connections_max = 6});
  std::deque<Client> idle;
  for (int i = 0; i < 9; ++i) idle.emplace_back(port()).Send(Get("/x", "")).ReadTo("<>");
  Client other(port(), "127.0.0.2");
  other.Send(Get("/y", "")).ReadTo("<>");
  for (int i = 0; i < 6; ++i) EXPECT_EQ(idle[static_cast<size_t>(i)].ReadAll(), "") << i;
  for (int i = 6; i < 9; ++i)
    EXPECT_THAT(idle[static_cast<size_t>(i)].Send(Get("/x", "")).ReadTo("<>"), EndsWith("[x]   <>"))
        << i;
  EXPECT_THAT(other.Send(Get("/y")).ReadAll(), EndsWith("[y]   <>"));
}

// The next descriptor of this process is the last one.
class OneDescriptor {
 public:
  OneDescriptor() {
    getrlimit(RLIMIT_NOFILE, &old_);
    const int next = dup(STDIN_FILENO);
    close(next);
    const rlimit low{.rlim_cur = static_cast<rlim_t>(next) + 1, .rlim_max = old_.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  }
  ~OneDescriptor() { EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &old_), 0); }

 private:
  rlimit old_{};
};

TEST_F(HttpServerTest, GoesOnWhenDescriptorsWereUsedUp) {
  Start();
  Client busy(port());
  busy.Send(Get("/keep"));
  const auto exchange = Kept();
  std::optional<Client> late;
  {
    const OneDescriptor last;
    late.emplace(port());  // has it, so that the server has none for it
    ASSERT_TRUE(late->connected());
    std::this_thread::sleep_for(20ms);
  }
  EXPECT_THAT(late->Send(Get("/a")).ReadAll(), EndsWith("[a]   <>"));
  EXPECT_FALSE(exchange->gone());
}

TEST_F(HttpServerTest, GivesTheDescriptorOfOneThatWaitsToANewOne) {
  Start();
  Client idle(port());
  idle.Send(Get("/1", "")).ReadTo("<>");
  const OneDescriptor last;
  Client late(port());
  ASSERT_TRUE(late.connected());
  EXPECT_THAT(late.Send(Get("/a")).ReadAll(), EndsWith("[a]   <>"));
  EXPECT_EQ(idle.ReadAll(), "");
}

TEST_F(HttpServerTest, EndsWhatIsUnderWayAndTakesNothingNew) {
  Start();
  Client idle(port()), waits(port()), streams(port());
  idle.Send(Get("/x", "")).ReadTo("<>");
  waits.Send(Get("/keep", ""));
  const auto reply = Kept();
  streams.Send(Get("/keep", ""));
  const auto stream = Kept();
  stream->BeginStream();
  stream->Write("data: 1\n\n");
  streams.ReadTo("data: 1\n\n\r\n");
  stop_ = true;
  EXPECT_EQ(idle.ReadAll(), "");
  EXPECT_TRUE(stopped_);
  EXPECT_FALSE(Client(port()).connected());
  reply->Respond({.body = "done", .headers = {}});
  EXPECT_THAT(waits.ReadAll(), AllOf(HasSubstr("Connection: close"), EndsWith("done")));
  stream->EndStream();
  EXPECT_THAT(streams.ReadAll(), EndsWith("0\r\n\r\n"));
  Stop();
}

TEST_F(HttpServerTest, ADrainHasAnEnd) {
  Start();
  Client waits(port());
  waits.Send(Get("/keep"));
  const auto exchange = Kept();
  Stop();  // after the second that Start gave it
  EXPECT_TRUE(exchange->gone()) << "nobody need work for it any more";
  EXPECT_EQ(waits.ReadAll(), "");
  exchange->Respond({.body = "late", .headers = {}});
}

TEST(HttpServer, SaysWhereItCannotListen) {
  const auto admit = [](const HttpRequest&) { return HttpAdmission{}; };
  const auto first = HttpServer::Listen({}, admit);
  ASSERT_TRUE(first.ok());
  const auto taken = HttpServer::Listen({.port = (*first)->port()}, admit);
  EXPECT_THAT(taken.status().message(), HasSubstr(std::to_string((*first)->port())));
  EXPECT_EQ(HttpServer::Listen({.address = "nowhere"}, admit).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_TRUE(IsLoopback("127.0.0.1") && IsLoopback("127.9.9.9") && IsLoopback("::1"));
  EXPECT_FALSE(IsLoopback("0.0.0.0") || IsLoopback("::") || IsLoopback("10.0.0.1") ||
               IsLoopback("localhost"));
}

}  // namespace
}  // namespace longhold
