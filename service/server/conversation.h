// How a conversation becomes part of a memory: each turn is a document, ingested after the answer.
// Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "memory/engine.h"

namespace longhold {

// Formats a time in UTC: "2026-11-26 22:49:27".
std::string TimeText(int64_t unix_seconds);

// The first document of a memory that is made for a conversation. A question needs a memory that
// exists.
IngestInput OpeningDocument(const std::string& conversation, int64_t unix_seconds);

// Question and answer as the document "CONVERSATION/TURN". `user_bytes` of the result covers the
// question.
IngestInput TurnDocument(const std::string& conversation, uint64_t turn, std::string_view question,
                         std::string_view answer);

}  // namespace longhold
