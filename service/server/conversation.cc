#include "service/server/conversation.h"

#include <ctime>

#include "base/utf8.h"

namespace longhold {

std::string TimeText(int64_t unix_seconds) {
  const std::time_t time = unix_seconds;
  std::tm utc{};
  gmtime_r(&time, &utc);
  char text[24];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &utc);
  return text;
}

IngestInput OpeningDocument(const std::string& conversation, int64_t unix_seconds) {
  return {.name = conversation + "/0",
          .text = "This conversation began on " + TimeText(unix_seconds) + ".\n"};
}

IngestInput TurnDocument(const std::string& conversation, uint64_t turn, std::string_view question,
                         std::string_view answer) {
  const std::string user_text = MakeValidUtf8("User: " + std::string(question) + "\n");
  return {.name = conversation + "/" + std::to_string(turn),
          .text = user_text + MakeValidUtf8("Assistant: " + std::string(answer) + "\n"),
          .user_bytes = user_text.size()};
}

}  // namespace longhold
