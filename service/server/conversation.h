// How a conversation becomes part of a memory: each turn is a document of its own, read once it is
// over. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "memory/engine.h"

namespace longhold {

// "2026-11-26 22:49:27" in UTC.
std::string TimeText(int64_t unix_seconds);

// What begins a memory that is made for a conversation: a question needs a memory to be asked of.
IngestInput OpeningDocument(const std::string& conversation, int64_t unix_seconds);

// Question and answer, as the document "CONVERSATION/TURN".
IngestInput TurnDocument(const std::string& conversation, uint64_t turn, std::string_view question,
                         std::string_view answer);

}  // namespace longhold
