// The server for Redis clients as a socket sees it, over stores in RAM: replies and their order,
// keys and tenants, hostile and vanishing clients, the bounds on memory, and the end of it all.
// Every wait is bounded by the server's own deadlines, set to tenths of seconds here.
// tests/cli/resp_test.py drives the program with redis-py, and tests/store has the real store.
#include "service/resp/resp_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <filesystem>
#include <map>
#include <memory>
#include <thread>

#include "service/resp/resp_address.h"
#include "tests/store/temp_dir.h"
#include "tests/support/loopback.h"
#include "tests/support/map_value_store.h"

namespace longhold {
namespace {

using std::chrono_literals::operator""ms;
using std::string_literals::operator""s;
using testing::HasSubstr;
using testing::StartsWith;

// A blocking client that gives up after five seconds.
class Client {
 public:
  explicit Client(int fd) : fd_(fd) {}
  explicit Client(uint16_t port) : fd_(ConnectLoopback(port)) {}
  ~Client() { Close(); }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  bool connected() const { return fd_ >= 0; }
  Client& Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) break;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return *this;
  }
  // Exactly that many bytes, or fewer if the server closes.
  std::string Read(size_t bytes) {
    std::string all;
    char buffer[65536];
    while (all.size() < bytes) {
      const ssize_t n = recv(fd_, buffer, std::min(sizeof buffer, bytes - all.size()), 0);
      if (n <= 0) return all + (n < 0 && errno == EAGAIN ? "(timeout)" : "(end)");
      all.append(buffer, static_cast<size_t>(n));
    }
    return all;
  }
  std::string ReadLine() {
    std::string line;
    while (!line.ends_with("\r\n")) {
      const std::string byte = Read(1);
      line += byte;
      if (byte.size() != 1) break;
    }
    return line;
  }
  // Sends a command and returns the reply's first line.
  std::string Ask(const std::vector<std::string>& command) {
    Send(Encode(command));
    return ReadLine();
  }
  // The same of two lines: a bulk string without line ends.
  std::string AskBulk(const std::vector<std::string>& command) {
    const std::string head = Ask(command);
    return head + ReadLine();
  }
  static std::string Encode(const std::vector<std::string>& command) {
    std::string out = "*" + std::to_string(command.size()) + "\r\n";
    for (const std::string& argument : command)
      out += "$" + std::to_string(argument.size()) + "\r\n" + argument + "\r\n";
    return out;
  }

 private:
  int fd_;
};

class RespServerTest : public testing::Test {
 protected:
  RespServerTest()
      : keys_(dir_ / "home"),
        stores_({.disk_bytes_max = 1000,
                 .ram_bytes_max = 100,
                 .open = [this](const std::string& tenant, uint64_t,
                                uint64_t) -> Result<std::unique_ptr<ValueStore>> {
                   auto store = std::make_unique<MapValueStore>();
                   maps_[tenant] = store.get();
                   return std::unique_ptr<ValueStore>(std::move(store));
                 }}) {
    std::filesystem::create_directory(dir_ / "home");
  }
  void Start(RespServerOptions options = {}) {
    options.without_keys = Scope::kAdmin;
    options.note = [this](std::string_view note) {
      const std::lock_guard lock(mutex_);
      notes_.emplace_back(note);
    };
    Result<std::unique_ptr<RespServer>> server = RespServer::Start(options, &stores_, &keys_);
    ASSERT_TRUE(server.ok()) << server.status().ToString();
    server_ = std::move(*server);
  }
  Client Connect() { return Client(server_->port()); }
  std::string AddKey(const std::string& name, Scope scope, const std::string& tenant = "") {
    const Result<std::string> key = keys_.Add(name, scope, 1, 0, tenant);
    EXPECT_TRUE(key.ok()) << key.status().ToString();
    return *key;
  }

  TempDir dir_;
  ApiKeys keys_;
  std::map<std::string, MapValueStore*> maps_;
  RespStores stores_;
  std::mutex mutex_;
  std::vector<std::string> notes_;
  std::unique_ptr<RespServer> server_;  // last: it uses the others
};

TEST_F(RespServerTest, AnswersTheCommands) {
  Start();
  Client client = Connect();
  EXPECT_EQ(client.Ask({"PING"}), "+PONG\r\n");
  EXPECT_EQ(client.Ask({"ping", "x"}), "$1\r\n");
  EXPECT_EQ(client.ReadLine(), "x\r\n");
  EXPECT_EQ(client.Ask({"SELECT", "0"}), "+OK\r\n");
  EXPECT_THAT(client.Ask({"SELECT", "1"}), StartsWith("-ERR DB index"));
  EXPECT_EQ(client.Ask({"GET", "k"}), "$-1\r\n");
  EXPECT_EQ(client.Ask({"SET", "k", "value"}), "+OK\r\n");
  EXPECT_EQ(client.AskBulk({"GET", "k"}), "$5\r\nvalue\r\n");
  EXPECT_EQ(client.Ask({"STRLEN", "k"}), ":5\r\n");
  EXPECT_EQ(client.Ask({"STRLEN", "none"}), ":0\r\n");
  EXPECT_EQ(client.Ask({"EXISTS", "k", "none", "k"}), ":2\r\n");
  EXPECT_EQ(client.Ask({"DBSIZE"}), ":1\r\n");
  EXPECT_EQ(client.Ask({"MGET", "k", "none", "k"}), "*3\r\n");
  EXPECT_EQ(client.Read(27), "$5\r\nvalue\r\n$-1\r\n$5\r\nvalue\r\n");
  EXPECT_EQ(client.Ask({"SET", "k", "v", "NX"}), "$-1\r\n");
  EXPECT_EQ(client.Ask({"SET", "k", "v", "xx"}), "+OK\r\n");
  EXPECT_EQ(client.Ask({"SET", "k", "v", "EX", "10", "NX"}), "$-1\r\n");
  EXPECT_EQ(client.Ask({"SET", "k2", "v", "PX", "10000"}), "+OK\r\n");
  EXPECT_GT(maps_[""]->expires_ms(), 10'000);
  EXPECT_EQ(client.Ask({"DEL", "k", "none", "k2"}), ":2\r\n");
  EXPECT_THAT(client.Ask({"SET", "k", "v", "EX", "0"}), StartsWith("-ERR invalid expire time"));
  EXPECT_THAT(client.Ask({"SET", "k", "v", "GET"}), HasSubstr("GET"));
  EXPECT_THAT(client.Ask({"SET", "k", "v", "NX", "XX"}), StartsWith("-ERR syntax"));
  EXPECT_EQ(client.Ask({"FOO\r\nBAR", "x"}), "-ERR unknown command 'FOO  BAR'\r\n");
  EXPECT_EQ(client.Ask({"GET"}), "-ERR wrong number of arguments for 'get' command\r\n");
  EXPECT_EQ(client.Ask({"GET", std::string(65537, 'k')}),
            "-ERR an argument is longer than 64 KiB\r\n");
  EXPECT_EQ(client.Ask({"CONFIG", "GET", "appendonly"}), "*2\r\n");
  EXPECT_EQ(client.Read(26), "$10\r\nappendonly\r\n$3\r\nyes\r\n");
  EXPECT_EQ(client.Ask({"QUIT"}), "+OK\r\n");
  EXPECT_EQ(client.Read(1), "(end)");
}

TEST_F(RespServerTest, HelloSelectsTheVersion) {
  Start();
  Client client = Connect();
  EXPECT_EQ(client.Ask({"HELLO", "3"}), "%7\r\n");
  client.Read(0);
  std::string rest = client.Ask({"GET", "none"});
  while (rest.find("_\r\n") == std::string::npos && rest.find('(') == std::string::npos)
    rest = client.ReadLine();
  EXPECT_EQ(rest, "_\r\n") << "the null of version 3";
  EXPECT_EQ(client.Ask({"HELLO", "4"}), "-NOPROTO unsupported protocol version\r\n");
  EXPECT_EQ(client.Ask({"HELLO", "2"}), "*14\r\n");
}

// Writes are held up, so the pipeline's reads have to wait for them. Everything arrives in order.
TEST_F(RespServerTest, APipelineIsAnsweredInOrder) {
  Start();
  Client client = Connect();
  ASSERT_EQ(client.Ask({"SET", "k", "old"}), "+OK\r\n");
  maps_[""]->PutOnDisk("k");
  maps_[""]->Hold(true);
  std::string commands, expected;
  commands += Client::Encode({"GET", "k"});
  expected += "$3\r\nold\r\n";
  for (int i = 0; i < 1000; ++i) {
    const std::string value(1 + i % 7000, static_cast<char>('a' + i % 26));
    commands += Client::Encode({"SET", "k", value});
    expected += "+OK\r\n";
    if (i % 10 == 0) {
      commands += Client::Encode({"GET", "k"}) + Client::Encode({"STRLEN", "k"});
      expected += "$" + std::to_string(value.size()) + "\r\n" + value +
                  "\r\n:" + std::to_string(value.size()) + "\r\n";
    }
  }
  std::thread sender([&] { client.Send(commands); });
  std::this_thread::sleep_for(50ms);
  maps_[""]->Hold(false);
  EXPECT_EQ(client.Read(expected.size()), expected);
  sender.join();
}

TEST_F(RespServerTest, ChangesThatArriveTogetherAreWrittenTogether) {
  Start();
  Client client = Connect();
  ASSERT_EQ(client.Ask({"SET", "k", "v"}), "+OK\r\n");
  maps_[""]->Hold(true);
  std::string commands, expected;
  for (int i = 0; i < 100; ++i) {
    commands += Client::Encode({"SET", "k" + std::to_string(i), "v"});
    expected += "+OK\r\n";
  }
  client.Send(commands);
  std::this_thread::sleep_for(100ms);
  maps_[""]->Hold(false);
  EXPECT_EQ(client.Read(expected.size()), expected);
  EXPECT_LE(maps_[""]->batches(), 10u);
}

TEST_F(RespServerTest, AFailureOfTheStoreIsAnErrorAndNoted) {
  Start();
  Client client = Connect();
  ASSERT_EQ(client.Ask({"SET", "k", "v"}), "+OK\r\n");
  maps_[""]->Fail(ResourceExhausted("write /home/x: disk full"));
  EXPECT_EQ(client.Ask({"SET", "k", "w"}), "-OOM the disk is full\r\n") << "clients see no path";
  maps_[""]->PutOnDisk("k");
  maps_[""]->Fail(Internal("broken"));
  EXPECT_EQ(client.Ask({"GET", "k"}), "-ERR the value could not be read\r\n");
  {
    const std::lock_guard lock(mutex_);
    ASSERT_EQ(notes_.size(), 1u) << "one in ten seconds";
    EXPECT_THAT(notes_[0], HasSubstr("write /home/x: disk full"));
  }
  maps_[""]->Fail(OkStatus());
  EXPECT_EQ(client.AskBulk({"GET", "k"}), "$1\r\nv\r\n");
}

TEST_F(RespServerTest, TakesTheLongestValue) {
  Start();
  Client client = Connect();
  std::string value(kValueBytesMax, 'x');
  for (size_t i = 0; i < value.size(); i += 4099) value[i] = static_cast<char>(i);
  EXPECT_EQ(client.Ask({"SET", "k", value}), "+OK\r\n");
  EXPECT_EQ(client.Ask({"GET", "k"}), "$67108864\r\n");
  EXPECT_TRUE(client.Read(value.size() + 2) == value + "\r\n");
}

// ------------------------------------------------------------------------------------------------
// keys and tenants

TEST_F(RespServerTest, WithKeysNothingIsDoneBeforeAuth) {
  const std::string read = AddKey("reader", Scope::kRead), write = AddKey("writer", Scope::kWrite);
  Start({.auth_time = 300ms});
  Client client = Connect();
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"PING"}, {"GET", "k"}, {"SET", "k", "v"}, {"INFO"}, {"CLIENT", "ID"}, {"DBSIZE"}})
    EXPECT_EQ(client.Ask(command), "-NOAUTH Authentication required.\r\n");
  EXPECT_THAT(client.Ask({"HELLO", "2"}), StartsWith("-NOAUTH"));
  EXPECT_THAT(client.Ask({"AUTH", "wrong"}), StartsWith("-WRONGPASS"));
  EXPECT_THAT(client.Ask({"HELLO", "2", "AUTH", "default", "wrong"}), StartsWith("-WRONGPASS"));
  EXPECT_EQ(client.Ask({"AUTH", "anybody", read}), "+OK\r\n");
  EXPECT_EQ(client.Ask({"GET", "k"}), "$-1\r\n");
  EXPECT_THAT(client.Ask({"SET", "k", "v"}), StartsWith("-NOPERM"));
  EXPECT_EQ(client.Ask({"AUTH", write}), "+OK\r\n");
  EXPECT_EQ(client.Ask({"SET", "k", "v"}), "+OK\r\n");
  EXPECT_THAT(client.Ask({"AUTH", "wrong"}), StartsWith("-WRONGPASS"));
  EXPECT_THAT(client.Ask({"GET", "k"}), StartsWith("-NOAUTH"));
  // A long argument of a stranger costs no memory.
  Client stranger = Connect();
  stranger.Send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$67108864\r\n");
  EXPECT_THAT(stranger.ReadLine(), StartsWith("-NOAUTH"));
  EXPECT_EQ(stranger.Read(1), "(end)");
  Client silent = Connect();
  EXPECT_EQ(silent.Read(1), "(end)") << "AUTH does not come in time";
}

TEST_F(RespServerTest, ARemovedKeyIsRefusedAfterASecond) {
  const std::string key = AddKey("writer", Scope::kWrite);
  Start();
  Client client = Connect();
  EXPECT_EQ(client.Ask({"AUTH", key}), "+OK\r\n");
  EXPECT_EQ(client.Ask({"SET", "k", "v"}), "+OK\r\n");
  ASSERT_TRUE(keys_.Remove("writer").ok());
  std::this_thread::sleep_for(1100ms);
  EXPECT_THAT(client.Ask({"GET", "k"}), StartsWith("-NOAUTH"));
}

TEST_F(RespServerTest, ATenantSeesItsOwnValuesOnly) {
  const std::string a = AddKey("a", Scope::kWrite, "firm-a"),
                    b = AddKey("b", Scope::kWrite, "firm-b");
  const std::string own = AddKey("own", Scope::kAdmin);
  Start();
  Client of_a = Connect(), of_b = Connect(), of_operator = Connect();
  EXPECT_EQ(of_a.Ask({"AUTH", a}), "+OK\r\n");
  EXPECT_EQ(of_b.Ask({"AUTH", b}), "+OK\r\n");
  EXPECT_EQ(of_operator.Ask({"AUTH", own}), "+OK\r\n");
  EXPECT_EQ(of_a.Ask({"SET", "k", "canary"}), "+OK\r\n");
  for (Client* other : {&of_b, &of_operator}) {
    EXPECT_EQ(other->Ask({"GET", "k"}), "$-1\r\n");
    EXPECT_EQ(other->Ask({"EXISTS", "k"}), ":0\r\n");
    EXPECT_EQ(other->Ask({"STRLEN", "k"}), ":0\r\n");
    EXPECT_EQ(other->Ask({"DBSIZE"}), ":0\r\n");
    EXPECT_EQ(other->Ask({"DEL", "k"}), ":0\r\n");
    EXPECT_EQ(other->Ask({"SET", "k", "x", "XX"}), "$-1\r\n");
    other->Send(Client::Encode({"INFO"}));
    const std::string length = other->ReadLine();
    EXPECT_THAT(other->Read(std::stoul(length.substr(1)) + 2), testing::Not(HasSubstr("db0")));
  }
  EXPECT_EQ(of_a.AskBulk({"GET", "k"}), "$6\r\ncanary\r\n");
  EXPECT_EQ(of_a.Ask({"AUTH", b}), "+OK\r\n");
  EXPECT_EQ(of_a.Ask({"GET", "k"}), "$-1\r\n");
  // Three stores share the limits evenly.
  EXPECT_EQ(maps_["firm-a"]->Stats().disk_bytes_max, 333u);
  EXPECT_EQ(maps_["firm-a"]->Stats().ram_bytes_max, 33u);
}

TEST_F(RespServerTest, ATenantsOwnLimitOfDiskCounts) {
  const std::string key = AddKey("a", Scope::kWrite, "firm-a");
  ASSERT_TRUE(keys_.SetLimits({.tenant = "firm-a", .disk_bytes = 77}).ok());
  Start();
  Client client = Connect();
  EXPECT_EQ(client.Ask({"AUTH", key}), "+OK\r\n");
  EXPECT_EQ(client.Ask({"PING"}), "+PONG\r\n");
  EXPECT_EQ(maps_["firm-a"]->Stats().disk_bytes_max, 77u);
}

// ------------------------------------------------------------------------------------------------
// hostile, slow and vanishing clients

TEST_F(RespServerTest, BrokenProtocolIsAnErrorAndTheEnd) {
  Start();
  for (const std::string& bytes : {"*1\r\n$-5\r\n"s, "*99999999\r\n"s, "*1\r\n$99999999999\r\n"s,
                                   std::string(20'000, 'x'), "GET / HTTP/1.1\r\n"s}) {
    Client client = Connect();
    client.Send(bytes);
    EXPECT_THAT(client.ReadLine(), StartsWith("-ERR Protocol error"));
    EXPECT_THAT(client.Read(1), testing::AnyOf("(end)"));
    EXPECT_EQ(Connect().Ask({"PING"}), "+PONG\r\n") << "others notice nothing";
  }
}

TEST_F(RespServerTest, SlowClientsAreClosed) {
  Start({.idle_time = 600ms, .stall_time = 300ms});
  Client halfway = Connect(), value = Connect(), idle = Connect();
  halfway.Send("*2\r\n$3\r\nGE");
  value.Send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\nabc");
  EXPECT_EQ(halfway.Read(1), "(end)");
  EXPECT_EQ(value.Read(1), "(end)");
  EXPECT_EQ(idle.Read(1), "(end)");
}

TEST_F(RespServerTest, ClientsThatVanishLeaveNothingBehind) {
  Start({.in_flight_bytes_max = 1 << 20});
  Client first = Connect();
  ASSERT_EQ(first.Ask({"SET", "k", std::string(300'000, 'x')}), "+OK\r\n");
  maps_[""]->PutOnDisk("k");
  for (int i = 0; i < 20; ++i) {
    maps_[""]->Hold(true);
    Client reads = Connect(), writes = Connect(), sends = Connect();
    reads.Send(Client::Encode({"GET", "k"}) + Client::Encode({"GET", "k"}));
    writes.Send(Client::Encode({"SET", "w", std::string(300'000, 'y')}));
    sends.Send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$500000\r\nabc");
    std::this_thread::sleep_for(5ms);
    reads.Close();
    writes.Close();
    sends.Close();
    maps_[""]->Hold(false);
  }
  // All bytes in flight were returned: a command that needs almost all of them still works.
  EXPECT_EQ(first.Ask({"SET", "k", std::string(1'000'000, 'z')}), "+OK\r\n");
  for (int i = 0; i < 50 && server_->Counts().connections > 1; ++i)
    std::this_thread::sleep_for(100ms);
  EXPECT_EQ(server_->Counts().connections, 1u);
}

// Four clients announce all the memory that there is and send nothing.
TEST_F(RespServerTest, OthersAreServedWhenSlowClientsHoldTheMemory) {
  Start({.in_flight_bytes_max = 4 << 20});
  std::vector<std::unique_ptr<Client>> slow;
  for (int i = 0; i < 4; ++i) {
    slow.push_back(std::make_unique<Client>(server_->port()));
    slow.back()->Send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\nabc");
  }
  Client client = Connect();
  EXPECT_EQ(client.Ask({"SET", "a", std::string(900'000, 'x')}), "+OK\r\n");
  EXPECT_EQ(client.Ask({"STRLEN", "a"}), ":900000\r\n");
  const std::lock_guard lock(mutex_);
  EXPECT_FALSE(notes_.empty());
}

// Commands that have all the memory, each with a part of what it needs, must not wait for each
// other. First each of four values takes a quarter, so that none is left for what a command takes
// besides. Then each of two commands has half of it and is not complete.
TEST_F(RespServerTest, CommandsThatHoldAllTheMemoryEnd) {
  Start({.in_flight_bytes_max = 1 << 20});
  const auto send_in_turns = [&](const std::vector<std::string>& commands, size_t first_bytes) {
    std::vector<std::unique_ptr<Client>> clients;
    for (const std::string& command : commands) {
      clients.push_back(std::make_unique<Client>(server_->port()));
      clients.back()->Send(std::string_view(command).substr(0, first_bytes));
    }
    std::this_thread::sleep_for(100ms);
    for (size_t i = 0; i < commands.size(); ++i)
      clients[i]->Send(std::string_view(commands[i]).substr(first_bytes));
    std::vector<std::string> replies;
    for (const auto& client : clients) replies.push_back(client->ReadLine());
    return replies;
  };
  const std::string set = Client::Encode({"SET", "k", std::string(256 << 10, 'x')});
  EXPECT_THAT(send_in_turns({set, set, set, set}, 1000), testing::Each("+OK\r\n"));
  std::vector<std::string> keys = {"DEL"};
  for (int i = 0; i < 12; ++i) keys.push_back(std::string(60'000, static_cast<char>('a' + i)));
  const std::string del = Client::Encode(keys);
  EXPECT_THAT(send_in_turns({del, del}, 500'000), testing::Each(":0\r\n"));
  // All of it was returned.
  EXPECT_EQ(Connect().Ask({"SET", "k", std::string(1'000'000, 'z')}), "+OK\r\n");
}

// 4096 arguments of 4 KiB each are 16 MiB, for which a client without a key gets no memory.
TEST_F(RespServerTest, ManyShortArgumentsNeedAKeyToo) {
  const std::string key = AddKey("k", Scope::kWrite);
  Start({.in_flight_bytes_max = 1 << 20});
  std::string begun = "*1000\r\n$3\r\nDEL\r\n";
  for (int i = 0; i < 100; ++i) begun += "$1000\r\n" + std::string(1000, 'x') + "\r\n";
  Client stranger = Connect();
  stranger.Send(begun);
  EXPECT_THAT(stranger.ReadLine(), StartsWith("-NOAUTH"));
  EXPECT_EQ(stranger.Read(1), "(end)");
  // With a key they are reserved, and returned.
  Client client = Connect();
  ASSERT_EQ(client.Ask({"AUTH", key}), "+OK\r\n");
  const std::vector<std::string> keys(400, std::string(1000, 'x'));
  for (int i = 0; i < 10; ++i) {
    std::vector<std::string> command = {i % 2 == 0 ? "EXISTS" : "DEL"};
    command.insert(command.end(), keys.begin(), keys.end());
    EXPECT_EQ(client.Ask(command), ":0\r\n");
    Client vanishes = Connect();
    ASSERT_EQ(vanishes.Ask({"AUTH", key}), "+OK\r\n");
    vanishes.Send(begun);
  }
  EXPECT_EQ(client.Ask({"SET", "k", std::string(1'000'000, 'z')}), "+OK\r\n");
}

// It asks for 200 times a megabyte and receives nothing.
TEST_F(RespServerTest, AClientThatDoesNotReceiveIsBoundedAndClosed) {
  Start({.in_flight_bytes_max = 16 << 20, .stall_time = 1500ms});
  Client client = Connect();
  ASSERT_EQ(client.Ask({"SET", "k", std::string(1'000'000, 'x')}), "+OK\r\n");
  std::string commands;
  for (int i = 0; i < 200; ++i) commands += Client::Encode({"GET", "k"});
  client.Send(commands);
  Client other = Connect();
  EXPECT_EQ(other.Ask({"STRLEN", "k"}), ":1000000\r\n");
  for (int i = 0; i < 50 && server_->Counts().connections > 1; ++i)
    std::this_thread::sleep_for(100ms);
  EXPECT_EQ(server_->Counts().connections, 1u);
}

TEST_F(RespServerTest, TheLongestIdleConnectionMakesRoom) {
  Start({.connections_max = 3});
  Client first = Connect();
  EXPECT_EQ(first.Ask({"PING"}), "+PONG\r\n");
  Client second = Connect(), third = Connect();
  EXPECT_EQ(second.Ask({"PING"}), "+PONG\r\n");
  EXPECT_EQ(third.Ask({"PING"}), "+PONG\r\n");
  Client fourth = Connect();
  EXPECT_EQ(fourth.Ask({"PING"}), "+PONG\r\n");
  EXPECT_EQ(first.Read(1), "(end)");
  EXPECT_EQ(second.Ask({"PING"}), "+PONG\r\n");
}

// ------------------------------------------------------------------------------------------------
// addresses and the end

TEST_F(RespServerTest, ListensOnASocketFile) {
  const std::string path = dir_ / "socket";
  Start({.address = "", .unix_path = path});
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0700u) << "for its owner only";
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  Client client(fd);
  EXPECT_EQ(client.Ask({"PING"}), "+PONG\r\n");
  EXPECT_FALSE(RespServer::Start({.address = "", .unix_path = path}, &stores_, &keys_).ok());
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(path));
}

// A failed connection does not say that nobody listens: only ECONNREFUSED does. Here a program
// receives datagrams on the file (EPROTOTYPE), and one is slow to accept (EAGAIN).
TEST_F(RespServerTest, TakesNoSocketFileFromALiveProgram) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = dir_ / "socket";
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const auto* const place = reinterpret_cast<const sockaddr*>(&address);
  const auto expect_refused = [&] {
    const Status refused =
        RespServer::Start({.address = "", .unix_path = path}, &stores_, &keys_).status();
    EXPECT_THAT(refused.message(), HasSubstr("another program uses it"));
    EXPECT_TRUE(std::filesystem::exists(path));
  };
  const int datagrams = socket(AF_UNIX, SOCK_DGRAM, 0);
  ASSERT_EQ(bind(datagrams, place, sizeof address), 0);
  expect_refused();
  close(datagrams);
  std::filesystem::remove(path);

  const int slow = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(slow, place, sizeof address), 0);
  ASSERT_EQ(listen(slow, 0), 0);
  std::vector<int> waiting;
  do {
    waiting.push_back(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
  } while (connect(waiting.back(), place, sizeof address) == 0 && waiting.size() < 100);
  EXPECT_EQ(errno, EAGAIN);
  expect_refused();
  for (const int fd : waiting) close(fd);
  close(slow);
  // Nobody listens any more.
  Start({.address = "", .unix_path = path});
}

// A server that ends leaves the file alone that another one has made in its place.
TEST_F(RespServerTest, RemovesItsOwnSocketFileOnly) {
  const std::string path = dir_ / "socket";
  Start({.address = "", .unix_path = path});
  std::filesystem::remove(path);
  Result<std::unique_ptr<RespServer>> second =
      RespServer::Start({.address = "", .unix_path = path}, &stores_, &keys_);
  ASSERT_TRUE(second.ok()) << second.status().ToString();
  server_.reset();
  EXPECT_TRUE(std::filesystem::exists(path));
  second->reset();
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(RespServerTest, StopsAfterTheRepliesInProgress) {
  Start();
  Client client = Connect(), idle = Connect();
  EXPECT_EQ(client.Ask({"SET", "k", "v"}), "+OK\r\n");
  EXPECT_EQ(idle.Ask({"PING"}), "+PONG\r\n");
  maps_[""]->Hold(true);
  client.Send(Client::Encode({"SET", "k", "w"}));
  std::this_thread::sleep_for(50ms);
  server_->Stop(5000ms);
  EXPECT_EQ(idle.Read(1), "(end)");
  maps_[""]->Hold(false);
  EXPECT_EQ(client.ReadLine(), "+OK\r\n");
  EXPECT_EQ(client.Read(1), "(end)");
  server_.reset();
}

TEST(RespAddress, IsAPortAnAddressOrAPath) {
  EXPECT_EQ(ParseRespAddress("6379")->address, "127.0.0.1");
  EXPECT_EQ(ParseRespAddress("6379")->port, 6379);
  EXPECT_EQ(ParseRespAddress("[::1]:7")->address, "::1");
  EXPECT_EQ(ParseRespAddress("/run/x")->unix_path, "/run/x");
  EXPECT_EQ(ParseRespAddress("/run/x")->address, "");
  for (const char* wrong : {"", "x", "70000", "1.2.3.4", ":", "-1"})
    EXPECT_FALSE(ParseRespAddress(wrong).ok()) << wrong;
}

}  // namespace
}  // namespace longhold
