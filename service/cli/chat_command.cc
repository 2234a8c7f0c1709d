// `longhold chat`: a conversation over a memory. Each finished turn (message and answer) is
// ingested as a document, so that later turns can recall it.
#include <unistd.h>

#include <iostream>

#include "base/clock.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "service/cli/commands.h"
#include "service/common/render.h"
#include "service/server/conversation.h"
#include "store/memory_name.h"

namespace longhold {
namespace {

constexpr size_t kPlacesShown = 2;

class Conversation {
 public:
  Conversation(const ChatCommand& command, const CommandContext& context,
               const std::atomic<bool>* stop)
      : command_(command),
        c_(context),
        stop_(stop),
        began_(UnixSeconds()),
        name_("chat/" + TimeText(began_) + " " + RandomHex(4)) {}

  // Creates the memory if it does not exist, with an opening document.
  Status Begin() {
    const Status exists = c_.engine.Exists(command_.memory);
    return exists.code() == StatusCode::kNotFound ? Keep(OpeningDocument(name_, began_)) : exists;
  }

  Status Say(const std::string& message) {
    AskOptions options{.system = command_.system,
                       .earlier = turns_,
                       .max_tokens = command_.max_tokens,
                       .sampler = command_.sampler};
    options.focused().answer_alone = true;
    options.stop = stop_;
    const Result<AskReply> reply = AskShown(c_, command_.memory, message, options);
    if (!reply.ok()) return reply.status();
    if (c_.json) {
      c_.terminal.Out(AskJson(*reply) + "\n");
    } else {
      if (!StreamsAnswers(c_)) c_.terminal.Out(MakePrintable(reply->answer) + "\n");
      for (size_t i = 0; i < std::min(kPlacesShown, reply->citations.size()); ++i) {
        const RecalledSpan& span = reply->citations[i].span;
        c_.terminal.Note("[" + std::to_string(i + 1) + "] " + CollapseSpace(span.document) + ":" +
                         std::to_string(span.line_begin));
      }
    }
    turns_.push_back({.by_user = true, .text = message});
    turns_.push_back({.by_user = false, .text = reply->answer});
    return Keep(TurnDocument(name_, turns_.size() / 2, message, reply->answer));
  }

 private:
  Status Keep(const IngestInput& document) {
    return c_.engine.Ingest(command_.memory, document, nullptr, nullptr).status();
  }

  const ChatCommand& command_;
  const CommandContext& c_;
  const std::atomic<bool>* const stop_;
  const int64_t began_;
  // Prefix of the document names. The random part keeps conversations of the same second apart.
  const std::string name_;
  std::vector<ChatTurn> turns_;
};

}  // namespace

Status RunChatCommand(const ChatCommand& command, const CommandContext& c) {
  LH_RETURN_IF_ERROR(CheckMemoryName(command.memory));
  const std::atomic<bool>* const stop = c.catch_signals();
  LH_RETURN_IF_ERROR(c.load_model().status());
  Conversation conversation(command, c, stop);
  LH_RETURN_IF_ERROR(conversation.Begin());
  const bool asks = isatty(STDIN_FILENO) == 1 && c.terminal.error_is_terminal();
  if (asks)
    c.terminal.Note("chatting with " + command.memory +
                    "; the conversation is stored in it; Ctrl-D ends");
  std::string message;
  for (;;) {
    if (asks) c.terminal.Redraw("> ");
    const bool read = static_cast<bool>(std::getline(std::cin, message));
    if (asks) c.terminal.Redraw("");
    if (!read || *stop) return OkStatus();
    while (message.ends_with('\r')) message.pop_back();
    if (message.find_first_not_of(" \t") == std::string::npos) continue;
    const Status good = CheckQuestion("message", message);
    const Status said = good.ok() ? conversation.Say(message) : good;
    // An invalid message does not end the conversation. Any other error does.
    if (said.code() == StatusCode::kInvalidArgument) {
      c.terminal.Error(said.message());
    } else if (!said.ok()) {
      return said;
    }
  }
}

}  // namespace longhold
