// What is counted, in Prometheus's words; and that the dashboard and the alerts in docs/monitoring
// ask for metrics that there are.
#include "service/server/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <set>

#include "base/memory_budget.h"

namespace longhold {
namespace {

using testing::HasSubstr;
using testing::Not;

// With something counted in each family.
std::string AllMetrics() {
  Metrics metrics;
  metrics.Request("/v1/memories/{memory}/ask", 200, 0.5);
  metrics.Request("none", 404, 0.001);
  AskReply reply;
  reply.completion_tokens = 11;
  reply.timings.decode_ms = 220;
  reply.timings.first_token_ms = 900;
  reply.coverage = 0.4;
  reply.degradation.blocks_lost = 1;
  metrics.Answer(reply);
  metrics.Recall({.abstained = true});
  metrics.Ingested({.tokens_read = 512});
  metrics.Waiting(2, 1);
  const MemoryBudget budget(1 << 20);
  metrics.Budget(budget);
  metrics.Tiers(3, 1);
  metrics.Tiers(5, 1);
  metrics.DiskBytes(4096);
  metrics.Verified(false);
  return metrics.Text();
}

TEST(Metrics, AreWhatWasCounted) {
  const std::string text = AllMetrics();
  EXPECT_THAT(
      text,
      HasSubstr("longhold_requests_total{route=\"/v1/memories/{memory}/ask\",status=\"200\"} 1"));
  EXPECT_THAT(text, HasSubstr("longhold_requests_total{route=\"none\",status=\"404\"} 1"));
  EXPECT_THAT(text, HasSubstr("longhold_first_token_seconds_sum 0.9"));
  EXPECT_THAT(text, HasSubstr("longhold_token_seconds_sum 0.02"));
  EXPECT_THAT(text, HasSubstr("longhold_abstained_total 1"));
  EXPECT_THAT(text, HasSubstr("longhold_lost_total{kind=\"blocks\"} 1"));
  EXPECT_THAT(text, HasSubstr("longhold_tokens_total{kind=\"ingested\"} 512"));
  EXPECT_THAT(text, HasSubstr("longhold_waiting{kind=\"questions\"} 2"));
  EXPECT_THAT(text, HasSubstr("longhold_memory_budget_bytes{kind=\"limit\"} 1048576"));
  EXPECT_THAT(text, HasSubstr("longhold_cold_writes_total 8"));
  EXPECT_THAT(text, HasSubstr("longhold_memory_opens_total 5"));
  EXPECT_THAT(text, HasSubstr("longhold_store_stalls_total 1"));
  EXPECT_THAT(text, HasSubstr("longhold_disk_bytes 4096"));
  EXPECT_THAT(text, HasSubstr("longhold_verified_total{result=\"corrupt\"} 1"));
}

// Counters are set to what the stores counted, not raised by it each time.
TEST(Metrics, ShowTheValuesOfRedisClients) {
  Metrics metrics;
  EXPECT_THAT(metrics.Text(), testing::Not(HasSubstr("longhold_values_total{")));
  for (const uint64_t hits : {3, 5}) {
    metrics.Values({.hits_ram = hits, .evicted = 2, .keys = 4, .disk_bytes = 100}, 6, 7);
  }
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("longhold_values_total{event=\"hit_ram\"} 5"));
  EXPECT_THAT(text, HasSubstr("longhold_values_total{event=\"evicted\"} 2"));
  EXPECT_THAT(text, HasSubstr("longhold_value_keys 4"));
  EXPECT_THAT(text, HasSubstr("longhold_value_bytes{kind=\"disk\"} 100"));
  EXPECT_THAT(text, HasSubstr("longhold_resp_connections 6"));
  EXPECT_THAT(text, HasSubstr("longhold_resp_commands_total 7"));
}

TEST(Metrics, DashboardAndAlertsAskForNothingElse) {
  const std::string text = AllMetrics();
  std::set<std::string> asked;
  for (const char* name : {"grafana.json", "alerts.yml"}) {
    std::ifstream file(std::string(LONGHOLD_SOURCE_DIR) + "/docs/monitoring/" + name);
    const std::string content((std::istreambuf_iterator<char>(file)),
                              std::istreambuf_iterator<char>());
    ASSERT_NE(content, "") << name;
    for (const std::string& prefix : {std::string("longhold_"), std::string("process_")}) {
      for (size_t at = content.find(prefix); at != std::string::npos;
           at = content.find(prefix, at + 1)) {
        asked.insert(
            content.substr(at, content.find_first_not_of("abcdefghijklmnopqrstuvwxyz_", at) - at));
      }
    }
  }
  EXPECT_GT(asked.size(), 10u);
  for (const std::string& name : asked)
    EXPECT_TRUE(text.find("\n" + name + "{") != std::string::npos ||
                text.find("\n" + name + " ") != std::string::npos)
        << name;
}

}  // namespace
}  // namespace longhold
