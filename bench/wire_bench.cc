// How fast payloads of 16 MiB go over the wire protocol on one host: wire_bench [ROUNDS] [DIR]
//
// Two parts. "transport" is ping: to the server, which hashes what came (XXH3), and from the
// server, which fills the reply. "store" is rows of a model with the shape of SmolLM2 (30 layers, 3
// KV heads of 64; 728 tokens are 16 MiB in fp16) that are put and fetched, over RocksDB below DIR
// or a directory that is removed. Each row: the median of ROUNDS (21) and its quartiles, in GB/s of
// 10^9 bytes. Client and server are threads of one process.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "service/wire/wire_server.h"
#include "store/rocks_provider.h"
#include "tests/store/temp_dir.h"
#include "tests/support/wire_client.h"

namespace longhold::wire {
namespace {

constexpr uint64_t kBytes = 16 << 20;
constexpr uint32_t kTokens = 728;  // of one payload
constexpr uint32_t kPayloads = 6;  // of the document: one commit of 4,096 tokens

DescribeModelRequest Model(const std::string& codec) {
  DescribeModelRequest m;
  m.model.name = "bench";
  m.model.fingerprint = "bench-" + codec;
  KvGeometry& g = m.model.geometry;
  for (uint32_t l = 0; l < 30; ++l) g.layers.push_back(l);
  g.q_heads = 9;
  g.kv_heads = 3;
  g.head_dim = 64;
  g.scale = 0.125f;
  g.rope.assign(30, RopeSpec{.neox = true, .rotary_dims = 64});
  m.model.layer_count = 30;
  for (int b = 0; b < 256; ++b) m.model.pieces.emplace_back(1, static_cast<char>(b));
  m.codec = codec;
  return m;
}

template <typename T>
T Must(Result<T> result) {
  if (result.ok()) return std::move(*result);
  std::fprintf(stderr, "%s\n", result.status().ToString().c_str());
  std::exit(1);
}

void Measure(const char* what, int rounds, uint64_t bytes, const std::function<void()>& once) {
  once();
  std::vector<double> rates;
  for (int i = 0; i < rounds; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    once();
    const std::chrono::duration<double> s = std::chrono::steady_clock::now() - begin;
    rates.push_back(static_cast<double>(bytes) / s.count() / 1e9);
  }
  std::sort(rates.begin(), rates.end());
  std::printf("%-58s %6.2f GB/s [%.2f to %.2f]\n", what, rates[rates.size() / 2],
              rates[rates.size() / 4], rates[rates.size() * 3 / 4]);
}

struct Bench {
  WireClient& local;
  WireClient& tcp;
  int rounds;
  SharedBuffer shared = SharedBuffer::Make(kBytes);
  std::vector<char> bytes = std::vector<char>(kBytes, 'x');

  uint64_t Ping(WireClient& client, uint64_t reply_bytes, const WireClient::Extra& extra,
                ReceivedFrame* frame = nullptr) {
    return Must(client.Ask<PingReply>(FrameType::kPing, PingRequest{reply_bytes}, extra, frame))
        .hash;
  }

  void Transport() {
    const int memfd = shared.memfd->get();
    std::memset(shared.mapping.bytes().data(), 'x', kBytes);
    Measure("transport, to the server, memfd", rounds, kBytes, [&] {
      Ping(local, 0, {.memfd_bytes = kBytes, .memfd = memfd, .flags = kPayloadInMemfd});
    });
    Measure("transport, from the server, memfd of the client", rounds, kBytes,
            [&] { Ping(local, kBytes, {.memfd = memfd, .flags = kReplyInMemfd}); });
    Measure("transport, from the server, a new memfd each time", rounds, kBytes, [&] {
      ReceivedFrame frame;
      Ping(local, kBytes, {.flags = kReplyInMemfd}, &frame);
      (void)Must(Payload::Map(frame.memfd->get(), kBytes, false));
    });
    Measure("transport, to the server, Unix socket", rounds, kBytes,
            [&] { Ping(local, 0, {.payload = bytes}); });
    Measure("transport, from the server, Unix socket", rounds, kBytes,
            [&] { Ping(local, kBytes, {}); });
    Measure("transport, to the server, TCP loopback", rounds, kBytes,
            [&] { Ping(tcp, 0, {.payload = bytes}); });
    Measure("transport, from the server, TCP loopback", rounds, kBytes,
            [&] { Ping(tcp, kBytes, {}); });
  }

  void Store(const std::string& codec, bool rotated) {
    for (WireClient* client : {&local, &tcp})
      (void)Must(client->Ask<ModelReply>(FrameType::kDescribeModel, Model(codec)));
    // Halves between 0.5 and 1 of both signs.
    std::mt19937_64 rng(1);
    auto* rows = reinterpret_cast<uint16_t*>(shared.mapping.bytes().data());
    for (uint64_t i = 0; i < kBytes / 2; ++i)
      rows[i] = static_cast<uint16_t>((rng() & 0x83FF) | 0x3800);
    const uint64_t payload = uint64_t{kTokens} * 30 * 2 * 192 * 2;
    const std::string memory = "m-" + codec + (rotated ? "-r" : "");
    const std::string text(size_t{kTokens} * kPayloads, 'a');
    PutBeginRequest document{.memory = memory, .text = text};
    document.tokens.assign(text.size(), 'a');
    const std::string name = "store (" + codec + (rotated ? ", rotated" : "") + "), ";
    int n = 0;
    const auto put = [&](WireClient& client, bool memfd) {
      document.name = "d" + std::to_string(n);
      document.text[0] = static_cast<char>('a' + n % 26);
      document.text[1] = static_cast<char>('a' + n / 26);
      document.tokens[0] = document.text[0];
      document.tokens[1] = document.text[1];
      ++n;
      const auto begun = Must(client.Ask<PutBeginReply>(FrameType::kPutBegin, document));
      WireClient::Extra extra;
      if (memfd) {
        extra = {.memfd_bytes = payload, .memfd = shared.memfd->get(), .flags = kPayloadInMemfd};
      } else {
        extra.payload = shared.mapping.bytes().first(payload);
      }
      for (uint32_t i = 0; i < kPayloads; ++i)
        (void)Must(client.Ask<PutRowsReply>(FrameType::kPutRows,
                                            PutRowsRequest{.writer = begun.writer,
                                                           .tokens = kTokens,
                                                           .rotated = rotated,
                                                           .position = i * kTokens},
                                            extra));
      (void)Must(client.Ask<PutFinishReply>(FrameType::kPutFinish, PutFinishRequest{begun.writer}));
    };
    const int puts = std::max(1, rounds / 7);
    Measure((name + "put, memfd").c_str(), puts, payload * kPayloads, [&] { put(local, true); });
    Measure((name + "put, TCP loopback").c_str(), puts, payload * kPayloads,
            [&] { put(tcp, false); });
    const FetchRequest fetch{
        .memory = memory, .places = {{DocumentId{1}, {64, 64 + kTokens}, 64}}, .rotated = rotated};
    Measure((name + "fetch, memfd").c_str(), rounds, payload, [&] {
      (void)Must(local.Ask<FetchReply>(
          FrameType::kFetch, fetch,
          WireClient::Extra{.memfd = shared.memfd->get(), .flags = kReplyInMemfd}));
    });
    Measure((name + "fetch, TCP loopback").c_str(), rounds, payload,
            [&] { (void)Must(tcp.Ask<FetchReply>(FrameType::kFetch, fetch)); });
  }
};

int Run(int argc, char** argv) {
  const int rounds =
      argc > 1 ? std::max(1, static_cast<int>(std::strtol(argv[1], nullptr, 10))) : 21;
  const TempDir directory;
  const std::string home = argc > 2 ? argv[2] : directory / "home";
  const std::unique_ptr<StoreProvider> stores = NewRocksProvider(home);
  WireServerOptions options;
  options.tcp = true;
  options.socket_path = directory / "wire";
  options.service.home = home;
  options.service.sidecars.stores = stores.get();
  options.service.without_keys = Scope::kAdmin;
  options.service.note = [](std::string_view note) {
    std::fprintf(stderr, "%.*s\n", static_cast<int>(note.size()), note.data());
  };
  const auto server = Must(WireServer::Listen(std::move(options)));
  server->Start();
  const auto local = Must(WireClient::Unix(directory / "wire"));
  const auto tcp = Must(WireClient::Tcp(server->port()));
  for (WireClient* client : {local.get(), tcp.get()}) LH_CHECK(client->Hello().ok());
  Bench bench{.local = *local, .tcp = *tcp, .rounds = rounds};
  bench.Transport();
  bench.Store("exact", false);
  bench.Store("k5v4", true);
  return 0;
}

}  // namespace
}  // namespace longhold::wire

int main(int argc, char** argv) { return longhold::wire::Run(argc, argv); }
