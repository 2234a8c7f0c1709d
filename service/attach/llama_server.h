// llama.cpp's own server as the engine that answers: what it is, how its slot files look, and the
// three calls that an answer needs (restore a slot, complete, read what was reused).
//
// Nothing of the server is changed. It must have been started with --slot-save-path, and slot files
// pass through that directory. They are removed as soon as the server has read them.
#pragma once

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "memory/answer/recalled_prompt.h"
#include "memory/model/language_model.h"
#include "service/attach/http_client.h"
#include "service/attach/slot_file.h"

namespace longhold {

// A file for one slot in the directory that longhold and the server share, readable by its owner
// only. It is removed when this object is destroyed. Move-only.
class SlotFile {
 public:
  // `directory` must exist. Errors: resource_exhausted (the disk is full), invalid_argument.
  static Result<SlotFile> Write(const std::string& directory, std::string_view bytes);
  // A name for a file that the server writes.
  static SlotFile Name(const std::string& directory);
  // Removes the files of processes that are gone, as after a kill -9. Returns how many.
  static uint32_t Sweep(const std::string& directory);
  SlotFile(SlotFile&& other) noexcept;
  SlotFile& operator=(SlotFile&&) = delete;
  ~SlotFile();

  const std::string& name() const { return name_; }  // without the directory
  std::string path() const { return directory_ + "/" + name_; }

 private:
  SlotFile(std::string directory, std::string name)
      : directory_(std::move(directory)), name_(std::move(name)) {}
  std::string directory_, name_;  // name_ is empty after a move
};

// Slots of a server that are used, at most.
inline constexpr uint32_t kServerSlotsMax = 64;

// What the server is asked to complete. Borrows its tokens for the call.
struct ServerPrompt {
  uint32_t slot = 0;
  std::span<const TokenId> tokens;
  uint32_t prefix_tokens = 0;  // of them, those that were restored
  uint32_t answer_tokens_max = 0;
  std::string sampling;  // further members of the request, as a JSON object
};

// What the server said of an answer. Value type.
struct ServerAnswer {
  std::string text;
  uint32_t tokens = 0;         // of the answer
  uint32_t reused_tokens = 0;  // of the prompt, from the slot
  bool cut = false;            // ended by the limit of tokens
  bool stopped = false;        // ended by a stop string
  double restore_ms = 0, prompt_ms = 0, decode_ms = 0, first_token_ms = 0;
};

// Owner: the `attach-server` command. Thread use: *synchronised* after Connect; calls for different
// slots may run concurrently. Calls for one slot must not.
//
// Slots may share one cache (--kv-unified). Then a slot that is restored is not safe until the
// server works on it: newer servers clear idle slots whenever they begin a completion. So one
// answer at a time is between its restore and its first event.
class LlamaServer {
 public:
  // Looks at the server, and proves that it continues from keys and values of `model`: it reads a
  // sentence with both and compares what they have. Takes one of the server's slots for a moment.
  // Where slots share one cache, erases those that are idle.
  // Errors, each with the next step: unavailable (nobody listens), failed_precondition (no
  // --slot-save-path, another directory, another model, or the same one with other settings),
  // unimplemented (a slot file or a cache that longhold does not know).
  static Result<std::unique_ptr<LlamaServer>> Connect(const HttpAddress& address,
                                                      const std::string& slot_directory,
                                                      LanguageModel& model,
                                                      HttpClientOptions options = {});

  // Slots that may answer at a time, and the tokens that each may have. Where the server's slots
  // share one cache, these are fewer than it names.
  uint32_t slots() const { return slots_; }
  uint32_t context_tokens() const { return context_tokens_; }
  const SlotLayout& layout() const { return layout_; }
  const HttpClient& client() const { return client_; }
  // How far the server's keys and values are from the model's, as a share of their size.
  double difference() const { return difference_; }

  // Puts the prompt's prefix into the slot and has the server complete the prompt. `on_text`
  // receives pieces of the answer, once it is known that the prefix was reused. `stop` is as in
  // ClientEvents. Errors: HttpClient::Send's; failed_precondition (the server read the prefix
  // itself, so that the answer would not rest on the memory; nothing was given to on_text),
  // resource_exhausted.
  Result<ServerAnswer> Answer(const ServerPrompt& prompt, const SlotPrefix& prefix,
                              const std::function<void(std::string_view)>& on_text,
                              const std::function<bool()>& stop) const;

 private:
  LlamaServer(HttpAddress address, std::string slot_directory, HttpClientOptions options)
      : client_(std::move(address), options), slot_directory_(std::move(slot_directory)) {}

  Status ReadProperties(const ModelInfo& model);
  // Learns the layout from a slot that the server saves.
  Status Probe(LanguageModel& model);
  Status Compare(LanguageModel& model, const SlotState& saved);
  // Sends JSON, and returns the object that the server replies with.
  Result<boost::json::object> Call(const std::string& method, const std::string& target,
                                   const std::string& body,
                                   const std::function<bool()>& stop = {}) const;
  // Erases what idle slots keep. Must hold: no answer is between its restore and its first event,
  // because its slot is idle, too.
  void EraseIdleSlots(const std::function<bool()>& stop) const;
  // Must hold: start_mutex_ is held where the slots share one cache.
  Status Restore(const ServerPrompt& prompt, const SlotPrefix& prefix,
                 const std::function<bool()>& stop, double* ms) const;

  const HttpClient client_;
  const std::string slot_directory_;
  uint32_t slots_ = 1;
  uint32_t context_tokens_ = 0;
  bool shares_cache_ = false;  // its slots share one cache
  // Held from the restore of a slot to the first event of its answer, where shares_cache_.
  mutable std::mutex start_mutex_;
  SlotLayout layout_;
  double difference_ = 0;
};

// The largest LlamaServer::difference that passes.
inline constexpr double kDifferenceMax = 0.1;

// Cuts server-sent events out of a byte stream: calls `on_data` with the data of each. Owner: one
// reply. Thread use: *confined*.
class EventReader {
 public:
  explicit EventReader(std::function<void(std::string_view data)> on_data)
      : on_data_(std::move(on_data)) {}
  void Feed(std::string_view piece);

 private:
  std::function<void(std::string_view data)> on_data_;
  std::string held_;  // an unfinished line
};

}  // namespace longhold
