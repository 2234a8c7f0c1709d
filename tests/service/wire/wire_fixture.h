// A wire server over stores in RAM, and clients of it that know the toy model.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "service/server/metrics.h"
#include "service/server/quotas.h"
#include "service/wire/wire_server.h"
#include "store/mem_provider.h"
#include "tests/store/temp_dir.h"
#include "tests/support/toy_model.h"
#include "tests/support/wire_client.h"
#include "tests/support/wire_samples.h"

namespace longhold::wire {

// Keys and values of the toy model in 16 bits, as payloads have them: for each layer the keys of
// all tokens, then the values. Random, and finite.
inline std::vector<uint16_t> RandomRows(size_t tokens, uint64_t seed) {
  const KvGeometry g = TinyGeometry();
  std::vector<uint16_t> rows(tokens * g.layers.size() * 2 * g.kv_width());
  std::mt19937_64 rng(seed);
  for (uint16_t& x : rows) x = static_cast<uint16_t>((rng() & 0x83FF) | 0x3800);  // 0.5 to 1
  return rows;
}
// Rows [begin, begin + count) of such rows.
inline std::vector<uint16_t> Part(const std::vector<uint16_t>& rows, size_t begin, size_t count) {
  const KvGeometry g = TinyGeometry();
  const size_t arrays = 2 * g.layers.size(), width = g.kv_width();
  const size_t tokens = rows.size() / arrays / width;
  std::vector<uint16_t> part;
  for (size_t a = 0; a < arrays; ++a) {
    const auto from = rows.begin() + static_cast<ptrdiff_t>((a * tokens + begin) * width);
    part.insert(part.end(), from, from + static_cast<ptrdiff_t>(count * width));
  }
  return part;
}
template <typename T>
std::span<const char> BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

class WireTest : public testing::Test {
 protected:
  WireTest() : stores_(NewMemProvider()) {
    options_.tcp = true;
    options_.socket_path = home_ / "wire";
    options_.service.home = home_ / "";
    options_.service.quotas = &quotas_;
    options_.service.without_keys = Scope::kAdmin;
    options_.service.note = [](std::string_view) {};
    options_.service.sinks.metrics = &metrics_;
    options_.service.version = "test";
    options_.service.sidecars.stores = stores_.get();
  }
  ~WireTest() override { server_.reset(); }

  void Serve() {
    server_.reset();
    Result<std::unique_ptr<WireServer>> server = WireServer::Listen(options_);
    ASSERT_TRUE(server.ok()) << server.status().ToString();
    server_ = std::move(*server);
    server_->Start();
  }
  std::unique_ptr<WireClient> Connect(bool tcp) {
    Result<std::unique_ptr<WireClient>> client =
        tcp ? WireClient::Tcp(server_->port()) : WireClient::Unix(options_.socket_path);
    EXPECT_TRUE(client.ok()) << client.status().ToString();
    return std::move(*client);
  }
  // A client that has said hello and described the toy model.
  std::unique_ptr<WireClient> Ready(bool tcp = false, const std::string& key = "") {
    std::unique_ptr<WireClient> client = Connect(tcp);
    EXPECT_EQ(client->Hello(key).ToString(), "ok");
    EXPECT_EQ(Describe(*client).ToString(), "ok");
    return client;
  }
  static Status Describe(WireClient& client, const std::string& fingerprint = "0123456789abcdef") {
    return client.Ask<ModelReply>(FrameType::kDescribeModel, ToyDescription(fingerprint)).status();
  }
  // A document whose tokens are the bytes of its text.
  static PutBeginRequest Document(const std::string& memory, const std::string& name,
                                  const std::string& text) {
    PutBeginRequest m{.memory = memory, .name = name, .text = text};
    for (const char c : text) m.tokens.push_back(static_cast<uint8_t>(c));
    return m;
  }
  static Result<PutBeginReply> Begin(WireClient& client, const PutBeginRequest& document) {
    return client.Ask<PutBeginReply>(FrameType::kPutBegin, document);
  }
  static Result<PutRowsReply> Rows(WireClient& client, uint32_t writer,
                                   const std::vector<uint16_t>& rows) {
    return client.Ask<PutRowsReply>(
        FrameType::kPutRows,
        PutRowsRequest{.writer = writer, .tokens = static_cast<uint32_t>(rows.size() / 16)},
        {.payload = BytesOf(rows)});
  }
  static Result<PutFinishReply> Finish(WireClient& client, uint32_t writer) {
    return client.Ask<PutFinishReply>(FrameType::kPutFinish, PutFinishRequest{writer});
  }
  // Puts a whole document with rows of `seed`.
  static Status Put(WireClient& client, const PutBeginRequest& document, uint64_t seed = 1) {
    LH_ASSIGN_OR_RETURN(const PutBeginReply begun, Begin(client, document));
    const auto rows = RandomRows(document.tokens.size(), seed);
    LH_RETURN_IF_ERROR(Rows(client, begun.writer,
                            Part(rows, begun.position, document.tokens.size() - begun.position))
                           .status());
    return Finish(client, begun.writer).status();
  }
  static Result<std::vector<char>> Fetch(WireClient& client, const std::string& memory,
                                         uint64_t tokens) {
    const FetchRequest m{.memory = memory, .places = {{DocumentId{1}, {0, tokens}, 0}}};
    ReceivedFrame frame;
    LH_RETURN_IF_ERROR(
        client.Ask<FetchReply>(FrameType::kFetch, m, WireClient::Extra{}, &frame).status());
    return std::move(frame.payload);
  }
  static bool Works(WireClient& client) {
    return client.Ask<PingReply>(FrameType::kPing, PingRequest{3}).ok();
  }
  // Waits until the server's side of an event has happened: a connection that closed.
  template <typename Done>
  static bool Eventually(const Done& done) {
    for (int i = 0; i < 1000; ++i) {
      if (done()) return true;
      usleep(10'000);
    }
    return false;
  }

  TempDir home_;
  std::unique_ptr<MemProvider> stores_;
  Quotas quotas_;
  Metrics metrics_;
  WireServerOptions options_;
  std::unique_ptr<WireServer> server_;
};

}  // namespace longhold::wire
