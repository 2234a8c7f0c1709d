// Feeds bytes to a RespParser in pieces and collects its commands. Shared by the parser's test and
// its fuzz harness.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "service/resp/resp_parser.h"

namespace longhold {

struct RespParsed {
  std::vector<std::vector<std::string>> commands;
  std::string error;  // empty: none
  bool within = false;
  friend bool operator==(const RespParsed&, const RespParsed&) = default;
};

// `piece` gives the length of the next piece, at least 1. Long arguments above `long_bytes_max` end
// the run as an error: the owner refuses them.
template <typename Piece>
RespParsed FeedResp(std::string_view bytes, const Piece& piece,
                    uint64_t long_bytes_max = kValueBytesMax) {
  RespParser parser;
  RespParsed parsed;
  for (;;) {
    switch (parser.Next()) {
      case RespParser::Event::kNeedMore: {
        if (bytes.empty()) {
          parsed.within = parser.within_command();
          return parsed;
        }
        size_t left = std::min<size_t>(piece(), bytes.size());
        size_t put = 0;
        for (const std::span<char> space : parser.Space()) {
          const size_t part = std::min(left, space.size());
          if (part > 0) std::memcpy(space.data(), bytes.data() + put, part);
          left -= part;
          put += part;
        }
        LH_CHECK(put > 0);  // there is always space
        parser.Added(put);
        bytes.remove_prefix(put);
        break;
      }
      case RespParser::Event::kLongArgument:
        LH_CHECK(parser.long_bytes() > RespParser::kShortBytesMax &&
                 parser.long_bytes() <= kValueBytesMax);
        if (parser.long_bytes() > long_bytes_max) {
          parsed.error = "too long";
          return parsed;
        }
        parser.AllowLong();
        break;
      case RespParser::Event::kCommand: {
        std::vector<std::string> command;
        for (const RespArgument& argument : parser.TakeCommand())
          command.emplace_back(argument.view());
        LH_CHECK(!command.empty() && command.size() <= RespParser::kArgumentsMax);
        parsed.commands.push_back(std::move(command));
        break;
      }
      case RespParser::Event::kError:
        parsed.error = parser.error();
        LH_CHECK(!parsed.error.empty());
        return parsed;
    }
  }
}

}  // namespace longhold
