// The server behind TLS, as an OpenSSL client sees it: requests, streams, clients with and without
// certificates, certificates that change while it runs, strangers to TLS. Keys and certificates are
// made by the test; every wait is bounded by the server's deadlines.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "service/server/http_server.h"
#include "tests/support/loopback.h"

namespace longhold {
namespace {

using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

// A certificate with its key, signed by itself or by another one.
class Identity {
 public:
  explicit Identity(const std::string& name, const Identity* signer = nullptr)
      : key_(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256")), certificate_(X509_new()) {
    X509_set_version(certificate_, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate_), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate_), -60);
    X509_gmtime_adj(X509_getm_notAfter(certificate_), 3600);
    X509_set_pubkey(certificate_, key_);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate_), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    const Identity& by = signer == nullptr ? *this : *signer;
    X509_set_issuer_name(certificate_, X509_get_subject_name(by.certificate_));
    if (signer == nullptr) {
      X509_EXTENSION* authority =
          X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints, "critical,CA:TRUE");
      X509_add_ext(certificate_, authority, -1);
      X509_EXTENSION_free(authority);
    }
    X509_sign(certificate_, by.key_, EVP_sha256());
  }
  ~Identity() {
    X509_free(certificate_);
    EVP_PKEY_free(key_);
  }
  Identity(const Identity&) = delete;
  Identity& operator=(const Identity&) = delete;

  X509* certificate() const { return certificate_; }
  EVP_PKEY* key() const { return key_; }
  void Write(const std::string& certificate_file, const std::string& key_file) const {
    BIO* out = BIO_new_file(certificate_file.c_str(), "w");
    PEM_write_bio_X509(out, certificate_);
    BIO_free(out);
    out = BIO_new_file(key_file.c_str(), "w");
    PEM_write_bio_PrivateKey(out, key_, nullptr, nullptr, 0, nullptr, nullptr);
    BIO_free(out);
  }

 private:
  EVP_PKEY* key_;
  X509* certificate_;
};

// A client that believes any server and gives up after five seconds.
class TlsClient {
 public:
  explicit TlsClient(uint16_t port, const Identity* own = nullptr, int version = 0)
      : context_(SSL_CTX_new(TLS_client_method())) {
    if (version != 0) {
      SSL_CTX_set_security_level(context_, 0);
      SSL_CTX_set_max_proto_version(context_, version);
    }
    if (own != nullptr) {
      SSL_CTX_use_certificate(context_, own->certificate());
      SSL_CTX_use_PrivateKey(context_, own->key());
    }
    fd_ = ConnectLoopback(port);
    ssl_ = SSL_new(context_);
    SSL_set_fd(ssl_, fd_);
    connected_ = SSL_connect(ssl_) == 1;
  }
  ~TlsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
    close(fd_);
    ERR_clear_error();
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  bool connected() const { return connected_; }
  std::string ServerName() const {
    X509* const certificate = SSL_get1_peer_certificate(ssl_);
    char name[100] = "";
    if (certificate != nullptr)
      X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name,
                                sizeof name);
    X509_free(certificate);
    return name;
  }
  TlsClient& Send(std::string_view bytes) {
    SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size()));
    return *this;
  }
  // Everything until the server's farewell; "(cut)" behind it where there was none.
  std::string ReadAll() {
    std::string all = std::move(rest_);
    char buffer[4096];
    for (int n; (n = SSL_read(ssl_, buffer, sizeof buffer)) > 0;)
      all.append(buffer, static_cast<size_t>(n));
    return all + ((SSL_get_shutdown(ssl_) & SSL_RECEIVED_SHUTDOWN) != 0 ? "" : "(cut)");
  }
  std::string ReadTo(const std::string& mark) {
    char buffer[4096];
    size_t at;
    while ((at = rest_.find(mark)) == std::string::npos) {
      const int n = SSL_read(ssl_, buffer, sizeof buffer);
      if (n <= 0) return rest_ + "(no " + mark + ")";
      rest_.append(buffer, static_cast<size_t>(n));
    }
    std::string out = rest_.substr(0, at + mark.size());
    rest_.erase(0, out.size());
    return out;
  }
  bool Renegotiate() { return SSL_renegotiate(ssl_) == 1 && SSL_do_handshake(ssl_) == 1; }
  // Says farewell, and closes.
  void Leave() {
    SSL_shutdown(ssl_);
    shutdown(fd_, SHUT_RDWR);
  }

 private:
  SSL_CTX* context_;
  SSL* ssl_ = nullptr;
  int fd_ = -1;
  bool connected_ = false;
  std::string rest_;
};

class TlsTest : public testing::Test {
 protected:
  void SetUp() override {
    // OpenSSL's clients write to connections that the server has closed
    std::signal(SIGPIPE, SIG_IGN);
    directory_ =
        testing::TempDir() + "tls_" + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(directory_);
    files_ = {.certificate = directory_ + "/server.pem",
              .key = directory_ + "/server.key",
              .client_ca = ""};
    Identity("first").Write(files_.certificate, files_.key);
  }
  void TearDown() override {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    std::filesystem::remove_all(directory_);
  }
  void Start(HttpServerOptions options = {}) {
    options.tls = files_;
    options.note = [this](std::string_view note) {
      const std::lock_guard lock(mutex_);
      notes_ += std::string(note) + "\n";
    };
    Result<std::unique_ptr<HttpServer>> server =
        HttpServer::Listen(options, [this](const HttpRequest& head) -> HttpAdmission {
          if (head.path == std::vector<std::string>{"door"})
            return {.refusal = HttpReply{.status = 401, .body = "no key", .headers = {}},
                    .when_longer = "",
                    .handle = {},
                    .refused = {}};
          return {.refusal = std::nullopt,
                  .body_bytes_max = UINT64_MAX,
                  .when_longer = "",
                  .handle =
                      [this](HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
                        Handle(request, std::move(exchange));
                      },
                  .refused = {}};
        });
    ASSERT_TRUE(server.ok()) << server.status().ToString();
    server_ = std::move(*server);
    thread_ = std::thread([this] { server_->Run(&stop_, 1s, {}); });
  }
  void Handle(const HttpRequest& request, std::shared_ptr<HttpExchange> exchange) {
    if (request.path == std::vector<std::string>{"keep"}) {
      const std::lock_guard lock(mutex_);
      kept_ = std::move(exchange);
      return;
    }
    exchange->Respond({.content_type = "text/plain",
                       .body = "<" + std::to_string(request.body.size()) + " bytes>",
                       .headers = {}});
  }
  std::shared_ptr<HttpExchange> Kept() {
    for (;;) {
      {
        const std::lock_guard lock(mutex_);
        if (kept_ != nullptr) return std::exchange(kept_, nullptr);
      }
      std::this_thread::sleep_for(1ms);
    }
  }
  uint16_t port() const { return server_->port(); }

  std::string directory_;
  TlsFiles files_;
  std::atomic<bool> stop_{false};
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
  std::mutex mutex_;
  std::string notes_;
  std::shared_ptr<HttpExchange> kept_;
};

std::string Get(const std::string& target, const std::string& headers = "") {
  return "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n";
}

TEST_F(TlsTest, AnswersManyRequestsOnOneConnectionAndEndsWithAFarewell) {
  Start();
  TlsClient client(port());
  ASSERT_TRUE(client.connected());
  // In one record: what TLS has read ahead is in no socket.
  client.Send(Get("/a") + Get("/b"));
  EXPECT_THAT(client.ReadTo("<0 bytes>"), StartsWith("HTTP/1.1 200 OK"));
  EXPECT_THAT(client.ReadTo("<0 bytes>"), StartsWith("HTTP/1.1 200 OK"));
  const std::string body(100'000, 'x');
  client.Send("POST /c HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n").Send(body);
  EXPECT_THAT(client.ReadTo("<100000 bytes>"), StartsWith("HTTP/1.1 200 OK"));
  EXPECT_THAT(client.Send(Get("/d", "Connection: close\r\n")).ReadAll(), EndsWith("<0 bytes>"));
}

TEST_F(TlsTest, StreamsAndSeesThatAClientHasLeft) {
  Start({.ping_time = 50ms});
  {
    TlsClient client(port());
    client.Send(Get("/keep", "Connection: close\r\n"));
    const auto exchange = Kept();
    exchange->BeginStream();
    exchange->Write("one\n");
    EXPECT_THAT(client.ReadTo("one\n"), HasSubstr("text/event-stream"));
    EXPECT_THAT(client.ReadTo(": ping"), HasSubstr(": ping"));
    exchange->EndStream();
    EXPECT_THAT(client.ReadAll(), EndsWith("0\r\n\r\n"));
  }
  TlsClient client(port());
  client.Send(Get("/keep"));
  const auto exchange = Kept();
  EXPECT_FALSE(exchange->gone());
  client.Leave();
  for (int i = 0; i < 2000 && !exchange->gone(); ++i) std::this_thread::sleep_for(1ms);
  EXPECT_TRUE(exchange->gone());
}

TEST_F(TlsTest, ARefusalArrivesWholeThoughTheBodyIsSentAllTheSame) {
  Start();
  TlsClient client(port());
  client.Send("POST /door HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n")
      .Send(std::string(2'000'000, 'x'));
  EXPECT_THAT(client.ReadAll(), EndsWith("no key"));
}

// Of the connections that are open the one that has waited longest is closed, be it before its
// handshake.
TEST_F(TlsTest, SilentConnectionsMakeRoom) {
  Start({.connections_max = 4});
  const int silent = ConnectLoopback(port());
  ASSERT_GE(silent, 0);
  TlsClient first(port()), second(port());
  EXPECT_TRUE(first.connected() && second.connected());
  char byte = 0;
  EXPECT_LE(recv(silent, &byte, 1, 0), 0);
  close(silent);
  EXPECT_THAT(first.Send(Get("/a")).ReadTo("<0 bytes>"), EndsWith("<0 bytes>"));
  // Where none waits a new one is closed before its handshake.
  first.Send(Get("/keep"));
  const auto one = Kept();
  second.Send(Get("/keep"));
  const auto two = Kept();
  EXPECT_FALSE(TlsClient(port()).connected());
  EXPECT_FALSE(one->gone() || two->gone());
}

TEST_F(TlsTest, TellsWhoIsTooSlow) {
  Start({.body_stall_time = 300ms});
  EXPECT_THAT(TlsClient(port())
                  .Send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nab")
                  .ReadAll(),
              StartsWith("HTTP/1.1 408"));
}

TEST_F(TlsTest, ItsPagesSpeakTlsToo) {
  Start();
  EXPECT_THAT(TlsClient(port())
                  .Send(Get("/", "Origin: https://localhost\r\nConnection: close\r\n"))
                  .ReadAll(),
              EndsWith("<0 bytes>"));
  EXPECT_THAT(TlsClient(port()).Send(Get("/", "Origin: http://localhost\r\n")).ReadAll(),
              StartsWith("HTTP/1.1 403"));
}

TEST_F(TlsTest, DoesNotNegotiateAnew) {
  Start();
  TlsClient client(port(), nullptr, TLS1_2_VERSION);
  ASSERT_TRUE(client.connected());
  EXPECT_FALSE(client.Renegotiate());
}

TEST_F(TlsTest, TalksToNobodyWithoutTlsOrWithAnOldOne) {
  Start({.header_time = 1s});
  EXPECT_FALSE(TlsClient(port(), nullptr, TLS1_1_VERSION).connected());
  EXPECT_TRUE(TlsClient(port(), nullptr, TLS1_2_VERSION).connected());
  const int fd = ConnectLoopback(port());
  ASSERT_GE(fd, 0);
  const std::string plain = Get("/");
  send(fd, plain.data(), plain.size(), MSG_NOSIGNAL);
  std::string answer;
  char buffer[256];
  for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) > 0;)
    answer.append(buffer, static_cast<size_t>(n));
  EXPECT_THAT(answer, testing::Not(HasSubstr("HTTP/1.1")));
  close(fd);
  // One that says nothing at all does not stay.
  const int silent = ConnectLoopback(port());
  ASSERT_GE(silent, 0);
  EXPECT_EQ(recv(silent, buffer, sizeof buffer, 0), 0);
  close(silent);
}

TEST_F(TlsTest, ClientsNeedACertificateWhereAnAuthorityIsNamed) {
  const Identity authority("authority"), stranger("stranger");
  const Identity anna("anna", &authority);
  files_.client_ca = directory_ + "/clients.pem";
  authority.Write(files_.client_ca, directory_ + "/clients.key");
  Start();
  // With TLS 1.3 the client learns of the refusal from its first read.
  EXPECT_THAT(TlsClient(port(), &anna).Send(Get("/", "Connection: close\r\n")).ReadAll(),
              EndsWith("<0 bytes>"));
  EXPECT_THAT(TlsClient(port(), &stranger).Send(Get("/")).ReadAll(),
              testing::Not(HasSubstr("HTTP/1.1")));
  EXPECT_THAT(TlsClient(port()).Send(Get("/")).ReadAll(), testing::Not(HasSubstr("HTTP/1.1")));
}

TEST_F(TlsTest, ReadsChangedFilesAndKeepsTheOldOnesWhileTheyAreBroken) {
  Start();
  EXPECT_EQ(TlsClient(port()).ServerName(), "first");
  TlsClient before(port());
  Identity("the second").Write(files_.certificate, files_.key);
  EXPECT_EQ(TlsClient(port()).ServerName(), "the second");
  EXPECT_THAT(before.Send(Get("/")).ReadTo("<0 bytes>"), EndsWith("<0 bytes>"))
      << "what was connected stays";
  std::ofstream(files_.certificate) << "rubbish";
  EXPECT_EQ(TlsClient(port()).ServerName(), "the second");
  const std::lock_guard lock(mutex_);
  EXPECT_THAT(notes_, HasSubstr("--tls-certificate " + files_.certificate));
}

TEST_F(TlsTest, SaysWhichFileCannotBeUsed) {
  const auto error = [](TlsFiles files) {
    return HttpServer::Listen({.tls = std::move(files)}, {}).status().ToString();
  };
  EXPECT_THAT(error({.certificate = "/nowhere.pem", .key = files_.key, .client_ca = ""}),
              HasSubstr("--tls-certificate /nowhere.pem: "));
  EXPECT_THAT(error({.certificate = files_.certificate, .key = "/nowhere.key", .client_ca = ""}),
              HasSubstr("--tls-key /nowhere.key: "));
  EXPECT_THAT(
      error({.certificate = files_.certificate, .key = files_.key, .client_ca = "/nowhere.ca"}),
      HasSubstr("--tls-client-ca /nowhere.ca: "));
  const std::string other = directory_ + "/other";
  Identity("other").Write(other + ".pem", other + ".key");
  EXPECT_THAT(error({.certificate = files_.certificate, .key = other + ".key", .client_ca = ""}),
              HasSubstr("--tls-key"));
}

}  // namespace
}  // namespace longhold
