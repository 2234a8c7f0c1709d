// The server as a socket sees it: requests cut anywhere, too long, malformed, slow or given up; replies, streams and the end of it all.
// Every wait is bounded by the server's own deadlines, set to tenths of seconds here.
#include "service/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <deque>
#include <mutex>
#include <thread>

#include "tests/support/loopback.h"

namespace longhold {
namespace {

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
  explicit Client(uint16_t port) : fd_(ConnectLoopback(port)), connected_(fd_ >= 0) {}
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
    Result<std::unique_ptr<HttpServer>> server =
        HttpServer::Listen(options, [this](HttpRequest request, std::shared_ptr<HttpExchange> exchange) { Handle(std::move(request), std::move(exchange)); });
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
  // /echo tells what was understood; /keep leaves the exchange to the test; /drop answers nothing.
  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
    if (request.path == std::vector<std::string>{"drop"}) return;
    if (request.path == std::vector<std::string>{"keep"}) {
      const std::lock_guard lock(mutex_);
      kept_.push_back(std::move(exchange));
      return;
    }
    if (request.path == std::vector<std::string>{"who"}) {
      return exchange->Respond({.content_type = "text/plain", .body = request.id + " " + request.peer + " <" + request.traceparent + ">", .headers = {}});
    }
    std::string told = request.method;
    for (const std::string& segment : request.path) told += " [" + segment + "]";
    for (const auto& [name, value] : request.query) told += " " + name + "=" + value;
    exchange->Respond({.content_type = "text/plain", .body = told + " " + request.content_type + " " + request.authorization + " <" + request.body + ">", .headers = {{"X-Own", "1"}}});
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
};

std::string Get(const std::string& target, const std::string& headers = "Connection: close\r\n") {
  return "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n";
}

TEST_F(HttpServerTest, ReadsARequestWhereverItIsCut) {
  Start();
  const std::string request =
      "POST /a%2Fb/c%20d?x=1+2&y=%26&flag HTTP/1.1\r\nHost: LOCALHOST:80\r\nContent-Type: Text/Plain; charset=utf-8\r\nAuthorization: Bearer k\r\n"
      "Content-Length: 5\r\nConnection: close\r\n\r\nhello";
  const std::string expected = "POST [a/b] [c d] flag= x=1 2 y=& text/plain Bearer k <hello>";
  for (size_t cut = 0; cut < request.size(); cut += 7) {
    Client client(port());
    client.Send(request.substr(0, cut));
    if (cut > 0) std::this_thread::sleep_for(1ms);
    const std::string reply = client.Send(request.substr(cut)).ReadAll();
    EXPECT_THAT(reply, AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("X-Own: 1\r\n"), EndsWith(expected))) << cut;
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
  EXPECT_THAT(Client(port()).Send(Get("/who", "X-Request-Id: my.id-1_a\r\nTraceParent: " + trace + "\r\nConnection: close\r\n")).ReadAll(),
              AllOf(HasSubstr("\r\nX-Request-Id: my.id-1_a\r\n"), EndsWith("my.id-1_a 127.0.0.1 <" + trace + ">")));
  // One that could say something else in a log or a header is not taken over.
  for (const std::string& bad : {std::string("a b"), std::string(65, 'a'), std::string("\"x\""), std::string()}) {
    EXPECT_THAT(Client(port()).Send(Get("/who", "X-Request-Id: " + bad + "\r\nTraceparent: 00-4BF9\r\nConnection: close\r\n")).ReadAll(),
                AllOf(HasSubstr("\r\nX-Request-Id: req-"), EndsWith(" <>"))) << bad;
  }
  Client two(port());
  const std::string first = two.Send(Get("/who", "")).ReadTo("<>"), second = two.Send(Get("/who", "")).ReadTo("<>");
  EXPECT_NE(first.substr(first.find("X-Request-Id")), second.substr(second.find("X-Request-Id")));
}

TEST_F(HttpServerTest, KnowsHeadOldClientsChunksAndExpectations) {
  Start();
  EXPECT_THAT(Client(port()).Send("HEAD /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ReadAll(),
              AllOf(HasSubstr("Content-Length: 12\r\n"), EndsWith("\r\n\r\n")));
  EXPECT_THAT(Client(port()).Send("GET /x HTTP/1.0\r\n\r\n").ReadAll(), AllOf(HasSubstr("Connection: close"), EndsWith("GET [x]   <>")));
  EXPECT_THAT(Client(port())
                  .Send("POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2;e=1\r\nde\r\n0\r\n\r\n")
                  .ReadAll(),
              EndsWith("<abcde>"));
  Client patient(port());
  patient.Send("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n");
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
      {"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n", "413"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3ea\r\n" + std::string(1002, 'x') + "\r\n0\r\n\r\n", "413"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", "400"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", "400"},
      {"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"},
  };
  for (const auto& [request, status] : cases) {
    const std::string reply = Client(port()).Send(request).ReadAll();
    EXPECT_THAT(reply, AllOf(StartsWith("HTTP/1.1 " + status), HasSubstr("{\"error\":{\"message\":"), Not(HasSubstr("(timeout)")))) << request.substr(0, 80);
  }
  EXPECT_THAT(Client(port()).Send("GET / HTTP/1.1\r\nHost: [::1]:8420\r\nConnection: close\r\n\r\n").ReadAll(), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpServerTest, LongRequestsShareTheirRoom) {
  Start({.body_bytes_max = 1000, .bodies_bytes_max = 1500});
  const auto post = [](size_t length) {
    return "POST /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: " + std::to_string(length) + "\r\n\r\n";
  };
  Client first(port());
  first.Send(post(1000) + std::string(500, 'x'));
  std::this_thread::sleep_for(20ms);
  EXPECT_THAT(Client(port()).Send(post(501)).ReadAll(), StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(Client(port()).Send(post(500) + std::string(500, 'y')).ReadAll(), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(first.Send(std::string(500, 'x')).ReadAll(), StartsWith("HTTP/1.1 200"));
  { Client gone(port()); gone.Send(post(1000) + "x"); }
  std::this_thread::sleep_for(20ms);
  EXPECT_THAT(Client(port()).Send(post(1000) + std::string(1000, 'z')).ReadAll(), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpServerTest, OtherHostsOnlyWhereTheyAreNamed) {
  Start({.hosts = {"books.example"}});
  EXPECT_THAT(Client(port()).Send("GET / HTTP/1.1\r\nHost: Books.Example:99\r\nConnection: close\r\n\r\n").ReadAll(), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpServerTest, DoesNotWaitForSlowClients) {
  Start({.header_time = 100ms, .body_time = 100ms, .idle_time = 200ms});
  EXPECT_EQ(Client(port()).ReadAll(), "") << "says nothing";
  EXPECT_EQ(Client(port()).Send("GET / HT").ReadAll(), "") << "half a line";
  EXPECT_EQ(Client(port()).Send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nab").ReadAll(), "") << "half a body";
  Client served(port());
  EXPECT_THAT(served.Send(Get("/x", "")).ReadTo("<>"), HasSubstr("[x]"));
  EXPECT_EQ(served.ReadAll(), "") << "nothing more";
}

TEST_F(HttpServerTest, StreamsInPiecesAndPings) {
  Start({.ping_time = 50ms});
  Client client(port());
  client.Send(Get("/keep"));
  const auto exchange = Kept();
  exchange->BeginStream();
  EXPECT_THAT(client.ReadTo("\r\n\r\n"), AllOf(HasSubstr("text/event-stream"), HasSubstr("Transfer-Encoding: chunked")));
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
      if (!exchange->WriteWhenTaken(std::string(kPiece, static_cast<char>('a' + given % 26)))) return;
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
  EXPECT_EQ(std::count(all.begin(), all.end(), 'z'), static_cast<ptrdiff_t>(kPiece * (kPieces / 26)));
}

TEST_F(HttpServerTest, BytesThatBreakOffDoNotLookWhole) {
  Start();
  Client client(port());
  client.Send(Get("/keep"));
  const auto exchange = Kept();
  exchange->BeginBytes("application/octet-stream");
  EXPECT_TRUE(exchange->WriteWhenTaken("abc"));
  EXPECT_THAT(client.ReadTo("abc\r\n"), EndsWith("3\r\nabc\r\n"));
  exchange->Break();
  EXPECT_THAT(client.ReadAll(), Not(HasSubstr("0\r\n")));
  for (int i = 0; i < 2000 && !exchange->gone(); ++i) std::this_thread::sleep_for(1ms);
  EXPECT_FALSE(exchange->WriteWhenTaken("more"));
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
  while (exchange->WriteWhenTaken(std::string(64 << 10, 'x'))) continue;
  EXPECT_TRUE(exchange->gone());
  leaver.join();
  // Nor for one that wants the head alone.
  Client other(port());
  other.Send("HEAD /keep HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  const auto head = Kept();
  head->BeginBytes("application/octet-stream");
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(head->WriteWhenTaken(std::string(64 << 10, 'x')));
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

TEST_F(HttpServerTest, OnlySoManyConnectionsAreServedAtOnce) {
  Start({.connections_max = 2});
  Client first(port()), second(port());
  first.Send(Get("/1", "")).ReadTo("<>");
  second.Send(Get("/2", "")).ReadTo("<>");
  Client third(port());
  third.Send(Get("/3"));
  std::this_thread::sleep_for(20ms);
  first.Close();
  EXPECT_THAT(third.ReadAll(), EndsWith("[3]   <>"));
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
  const auto handler = [](HttpRequest, std::shared_ptr<HttpExchange>) {};
  const auto first = HttpServer::Listen({}, handler);
  ASSERT_TRUE(first.ok());
  const auto taken = HttpServer::Listen({.port = (*first)->port()}, handler);
  EXPECT_THAT(taken.status().message(), HasSubstr(std::to_string((*first)->port())));
  EXPECT_EQ(HttpServer::Listen({.address = "nowhere"}, handler).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(IsLoopback("127.0.0.1") && IsLoopback("127.9.9.9") && IsLoopback("::1"));
  EXPECT_FALSE(IsLoopback("0.0.0.0") || IsLoopback("::") || IsLoopback("10.0.0.1") || IsLoopback("localhost"));
}

TEST(PercentDecode, ReadsEscapesAndRefusesOthers) {
  std::string out;
  EXPECT_TRUE(PercentDecode("a%2fb+c%C3%A9", false, &out));
  EXPECT_EQ(out, "a/b+cé");
  EXPECT_TRUE(PercentDecode("a+b", true, &out));
  EXPECT_EQ(out, "a b");
  for (const char* bad : {"%", "%1", "%g0", "a%0", "%00"}) EXPECT_FALSE(PercentDecode(bad, false, &out)) << bad;
}

}  // namespace
}  // namespace longhold
