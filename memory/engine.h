// The engine: memories under one home directory, and what can be done with them. The library's
// front door.
//
// Owner: the composition root. Thread use: *confined* (one call at a time); `stop` flags may be set
// from anywhere. With a SharedModel calls that only read (Recall, Ask, Exists, List, Show), and
// Ingest, may be made by several threads, each within a turn of its own: they then overlap where
// the model is asked. An answer sees a memory as it was when the answer began.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/memory_budget.h"
#include "base/secret.h"
#include "base/status.h"
#include "base/types.h"
#include "memory/model/language_model.h"
#include "memory/model/recall_profile.h"
#include "memory/record/import_rules.h"
#include "store/block_codec.h"
#include "store/transfer.h"

namespace longhold {

// A document as `show` tells it.
struct DocumentInfo {
  DocumentId id{};
  std::string name;
  std::vector<std::string> aliases;  // other names under which the same content was ingested
  uint64_t bytes = 0;
  uint64_t tokens = 0;
  uint64_t committed_tokens = 0;  // recallable; less than `tokens` while an ingest is unfinished
  uint32_t version = 1;
};

struct MemoryInfo {
  std::string name;
  // why it cannot be read: then only name and disk_bytes are known. Ok from Show.
  Status status;
  std::string model;  // the model's name
  std::string model_fingerprint;
  std::string codec;
  std::vector<DocumentInfo> documents;
  uint64_t tokens = 0;  // committed, over all documents
  uint64_t disk_bytes = 0;
};

// Where a memory's bytes are (docs/architecture.md, tiers).
struct TierReport {
  uint64_t tokens = 0;
  uint64_t exact_bytes = 0;      // of their keys and values in 16 bits
  bool open = false;             // the engine holds it open, with its indexes in RAM
  uint64_t ram_index_bytes = 0;  // those
  std::string codec;             // of the blocks
  uint64_t blocks_bytes = 0, index_bytes = 0, text_bytes = 0, other_bytes = 0;  // on the disk
};

// One text to ingest. `name` identifies the document within its memory.
struct IngestInput {
  std::string name;
  std::string text;  // valid UTF-8, not empty
  // Bytes before the model's own words, which end the text; as many as it has where there are none.
  // Recalled, they get a fifth of the attention that other words would (docs/decisions/0027).
  uint64_t user_bytes = UINT64_MAX;
  // How many bytes the memory may have on the disk. Asked before the text is read and at each
  // commit, from the thread that ingests; the ingest keeps below what it said last. Empty: as many
  // as the disk has.
  std::function<Result<uint64_t>()> disk_bytes_max;
};

struct IngestProgress {
  std::string_view document;
  uint64_t tokens_done = 0;  // of this document
  uint64_t tokens_total = 0;
  double tokens_per_s = 0;  // over the last few seconds
};

struct IngestReport {
  enum class Outcome : uint8_t {
    kIngested,
    kResumed,
    kUnchanged,
    kStopped
  } outcome = Outcome::kIngested;
  // under which name the content is held (another name when it was there already)
  std::string document;
  uint32_t version = 1;
  uint64_t tokens = 0;       // of the document
  uint64_t tokens_read = 0;  // by this call
  double seconds = 0;
  // speed over the first and the last 65,536 tokens that this call read (all, when fewer)
  double first_64k_tok_s = 0;
  double last_64k_tok_s = 0;
};

// A recalled place. Best first in every list.
struct RecalledSpan {
  DocumentId document_id{};
  std::string document;
  TokenSpan tokens;
  ByteSpan bytes;
  uint64_t line_begin = 0;  // 1-based, inclusive
  uint64_t line_end = 0;
  std::string text;
  double score = 0;                  // relevance, 1 is the best span's
  std::vector<std::string> reasons;  // "head", "lexical", "follow-up"
};

struct RecallOptions {
  // 0: the profile's, and its hop_spans more where follow-ups find some
  uint32_t spans_max = 0;
  // say so when the memory seems to hold nothing on the question, by the profile's marks
  bool abstain = true;
  bool explain = false;  // fill RecallReply::words and ::candidates_explained
  // How many of the plan's best spans the model itself reranks (memory/recall/query_likelihood.h),
  // at most kRerankSpansMax; none: the profile's rerank_spans. It reads the question once more for
  // each: with a large model that takes longer than all else (docs/decisions/0029).
  std::optional<uint32_t> rerank_spans;
};
inline constexpr uint32_t kRerankSpansMax = 64;

// A distinct word of a question as the memory knows it.
struct QuestionWord {
  std::string text;
  uint64_t blocks = 0;  // that it stands in; 0: nowhere in the memory
  double weight = 0;    // how much it counts in the lexical index: the rarer the more
  bool function_word = false;
  std::vector<std::string> related;  // words of the memory that may stand for it, nearest first
};

// A span that competed for a place in the plan, and what became of it.
struct ExplainedSpan {
  RecalledSpan span;          // score is that after the second look
  uint32_t planned_rank = 0;  // 1-based, by the indexes alone
  uint32_t rank = 0;          // after the second look; 0 where there was none for it
  double planned_score = 0;   // by the indexes alone, 1 is the best span's
  double head_score = 0, lexical_score = 0;
  double token_gain = 0;  // nats per token of the question; 0 without a second look
  // what abstaining is decided by (memory/recall/abstention.h); 0 without a second look
  double support = 0;
  std::vector<bool> found;  // [RecallReply::words] stands in the span
  // [RecallReply::words] the second look at each word: nats per token
  std::vector<double> word_gains;
  bool kept = false;
  std::string why;  // why not, when it was not kept
};

struct RecallReply {
  std::vector<RecalledSpan> spans;
  // share of the recall heads' attention mass that the spans hold, 0..1; none where no head was
  // asked
  std::optional<double> coverage;
  // how much likelier the best span makes the question's tokens, in nats per token; 0 without a
  // look
  double token_gain = 0;
  // the memory seems to hold nothing on the question: `spans` are only the closest places
  bool abstained = false;
  uint64_t candidates = 0;  // blocks that were weighed against each other
  // lookups that led from what the question found to the farthest span (memory/recall/multi_hop.h)
  uint64_t hops = 0;
  std::vector<QuestionWord> words;  // with RecallOptions::explain, as is
  // the spans that competed, those that were kept first
  std::vector<ExplainedSpan> candidates_explained;
  uint64_t spans_lost = 0;     // whose text is damaged: left out
  double plan_ms = 0;          // probe pass, scan and fusion
  uint64_t prompt_tokens = 0;  // that the model has read for it
};

// What an answer says instead of the model's words.
inline constexpr std::string_view kAbstention = "The memory holds nothing on this.";

// How likely the model held a token of its answer, beside others.
struct TokenLikelihood {
  std::string text;  // its bytes, which need not be whole characters
  // natural logarithm of its probability, by the model's own logits: before temperature and what
  // guides the answer
  double log = 0;
  std::vector<std::pair<std::string, double>> likeliest;  // as many as were asked for, best first
};

// What an answer's softmax sees beside the conversation (docs/decisions/0024).
enum class Attend : uint8_t {
  // what a plan recalled for all layers at once, gated by its relevance; abstains where there is
  // nothing
  kFocused,
  // the text's begin and end, and of the rest what each layer and KV head asks for itself: near the
  // model's full attention, and no better
  kFaithful,
};
// "focused", "faithful".
std::string_view AttendName(Attend attend);
std::optional<Attend> FindAttend(std::string_view name);

// How far a question's prompt has been read. Value type.
struct AskProgress {
  uint64_t tokens = 0;       // of the prompt, with all that was recalled
  uint64_t from_memory = 0;  // of them, those whose keys and values the memory had
  uint64_t done = 0;         // from_memory, and those that the model has read
  double ms = 0;             // since the question came
};

struct AskOptions {
  // the first words of the answer; not repeated in the reply. With one, the model always answers.
  std::string answer_prefix;
  std::string system;
  std::vector<ChatTurn> earlier;  // what was said before the question; nothing is recalled for it
  // of more than 256, as many as the model reads beside question and recalled spans
  uint32_t max_tokens = 128;
  SamplerOptions sampler;
  RecallOptions recall;  // focused
  Attend attend = Attend::kFocused;
  // Of the memory's blocks, how many each layer and KV head sees when faithful; kAttendBlocksMin at
  // least, and as many as the model's native length and the memory budget have room for at most.
  double attend_share = 0.1;
  // Where the memory seems to hold nothing on it the model answers from the conversation alone,
  // instead of kAbstention. The reply says so all the same, and cites nothing.
  bool answer_alone = false;
  // Of the recalled sentences, how many tokens the model reads again as text right before the
  // question, at most kReencodeTokensMax: copies come out right more often, and each token takes as
  // long as one of the question. None: the profile's reencode_tokens. Focused only.
  std::optional<uint32_t> reencode_tokens;
  // fill AskReply::likelihoods, each with so many others, at most kLikeliestMax
  std::optional<uint32_t> likeliest;
  // fill Citation::characters and document_index
  bool characters = false;
  // Write "[n]" behind each sentence: the citation that got the most attention while it was
  // written. What is shown by on_text has them, and AskReply::cited_answer; citations come in the
  // order of their marks, then by attention. Focused only.
  bool inline_citations = false;
  const std::atomic<bool>* stop = nullptr;  // checked between tokens
  // Looked at before each longer pass of the model and between tokens: once it is over, an answer
  // that has begun ends as if by max_tokens, and one that has not is deadline_exceeded. Focused
  // only.
  std::optional<std::chrono::steady_clock::time_point> deadline;
  // once what is recalled is known, and after each part of the prompt
  std::function<void(const AskProgress&)> on_progress;
  // pieces of the answer as they come, whole UTF-8 characters
  std::function<void(std::string_view)> on_text;
};

inline constexpr uint32_t kReencodeTokensMax = 1024;
inline constexpr uint32_t kLikeliestMax = 20;
inline constexpr uint32_t kAttendBlocksMin = 64;

// Characters (Unicode code points) [begin, end) of a document. Value type.
struct TextSpan {
  uint64_t begin = 0, end = 0;
};

struct Citation {
  uint32_t index = 0;  // 1-based
  // score is the share of attention that the answer really gave to the span
  RecalledSpan span;
  // With AskOptions::characters:
  // of the memory's documents, in the order in which they were first ingested
  uint32_t document_index = 0;
  // where span.bytes stand, in characters of the document; none where its text is damaged
  std::optional<TextSpan> characters;
};

struct AskReply {
  std::string answer;               // kAbstention when abstained
  std::string cited_answer;         // with AskOptions::inline_citations, the answer with them
  std::vector<Citation> citations;  // by share of attention, best first
  std::optional<double> coverage;   // as RecallReply::coverage
  double token_gain = 0;            // as RecallReply::token_gain
  // the memory seems to hold nothing on the question: nothing was recalled, and the model asked
  // only with answer_alone
  bool abstained = false;
  std::vector<RecalledSpan> closest;  // when abstained: the place that came closest, if any
  uint64_t candidates = 0;
  uint64_t spans = 0;  // recalled, those of generation_spans included
  uint64_t hops = 0;   // as RecallReply::hops
  uint64_t generation_spans =
      0;  // spans that the answer's own words recalled while it was generated
  uint64_t tokens_recalled = 0;
  uint64_t tokens_reencoded =
      0;  // around the spans' peaks, read once more right before the question
  uint64_t blocks_read = 0;
  uint64_t bytes_read = 0;
  // Degraded, not failed. coverage is the plan's: what is lost here is still counted there.
  uint64_t blocks_lost = 0;  // corrupt or missing
  // whose text is damaged: they could not be cited, so they are not recalled either
  uint64_t spans_lost = 0;
  uint64_t memory_tokens = 0;
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  bool cut = false;                          // ended by max_tokens
  std::vector<TokenLikelihood> likelihoods;  // of the answer's tokens, with AskOptions::likeliest
  double plan_ms = 0, recall_ms = 0, prompt_ms = 0, decode_ms = 0, first_token_ms = 0,
         decode_tok_s = 0;
  double scan_ms = 0;  // of plan_ms: the recall heads' keys
};

struct ReindexReport {
  bool other_heads = false;  // the memory's recall heads were not the profile's and now are
  uint64_t tokens = 0;
  uint64_t segments = 0;
  uint64_t segments_rebuilt = 0;
  // text is damaged: these tokens are found by the recall heads only
  uint64_t segments_lost = 0;
  uint64_t blocks_lost = 0;  // keys are damaged: these tokens are found by their words only
  double seconds = 0;
};

struct EngineOptions {
  std::string home;  // memories live in home/memories/NAME
  // Beside the model's weights and 64 MiB for the program itself. A question's second look goes
  // through its spans in groups that fit; where there is no room for all that was recalled, the
  // least relevant spans are left out, with a note; where an index or a question does not fit, the
  // call says so (resource_exhausted).
  uint64_t memory_budget_bytes = 1ull << 30;
  // kSealKeyBytes that new memories are encrypted with, and those read that are
  // (store/sealed_store.h); empty: none.
  Secret encryption_key;
  // of the blocks of new memories, one of CodecNames'
  std::string codec = std::string(kDefaultCodec);
};

class ColdStore;
class Memory;
class LexicalVocabulary;
class CopyBias;
class PickedBlocks;
class QueryExpansion;
struct PlannedSpan;
struct Manifest;
struct Prompt;
struct RocksOptions;
struct RecallPlan;
struct SpanSentence;
struct WordMatch;
class WorkingSet;

class Engine {
 public:
  explicit Engine(EngineOptions options);
  ~Engine();

  // Gives the engine its model; until then only the calls marked (no model) work. `model` must
  // outlive the engine. `profile` may be null: then the shipped profile that matches the model is
  // taken, or the generic rule. Errors: invalid_argument, resource_exhausted (the model's own
  // buffers do not fit the memory budget).
  Status UseModel(LanguageModel* model, const RecallProfile* profile);
  // Whether the budget has room for one more answer of the usual size beside what is under way.
  // Safe to call concurrently. Must hold: it has its model.
  bool HasRoomForAnother() const;
  // The codec of memories that are made from now on; others keep theirs, which Ingest then notes.
  // (no model) Errors: invalid_argument.
  Status UseCodec(std::string_view name);
  const RecallProfile& profile() const;
  const ModelInfo& model_info() const;  // must hold: it has its model
  const MemoryBudget& budget() const { return budget_; }
  MemoryBudget& budget() { return budget_; }  // for what else its process takes
  // How often a memory was opened, its indexes to be read, and not found open already. Safe to call
  // concurrently.
  uint64_t opens() const { return opens_; }

  // Memory names: 1 to 64 of [A-Za-z0-9._-], not starting with a dot or dash; a tenant's memory is
  // TENANT/NAME, both of that form, and lies in a directory of the tenant's own. Errors:
  // invalid_argument.
  static Status CheckName(std::string_view name);
  // The tenant in front of a memory's name, empty where there is none, and what follows it.
  static std::pair<std::string, std::string> SplitName(const std::string& memory);

  // Makes an empty memory, whose blocks get `codec`, or the engine's when that is empty. Errors:
  // already_exists, invalid_argument.
  Status Create(const std::string& memory, const std::string& codec);
  // Ingests one document, creating the memory when needed. Commits every 4,096 tokens; when `stop`
  // becomes true it commits and returns kStopped. Errors: failed_precondition (another model's
  // memory; another process writes; disk_bytes_max, and then what was read is committed),
  // resource_exhausted, unavailable (an answer that is under way reads by what would be written
  // with).
  Result<IngestReport> Ingest(const std::string& memory, const IngestInput& input,
                              const std::atomic<bool>* stop,
                              const std::function<void(const IngestProgress&)>& on_progress);

  Result<RecallReply> Recall(const std::string& memory, std::string_view query,
                             const RecallOptions& options);
  Result<AskReply> Ask(const std::string& memory, std::string_view question,
                       const AskOptions& options);

  // Makes the memory's index anew for the recall heads of profile(), from what is stored: the text
  // is not read again. Stopped or killed at any moment, it leaves the memory as usable as it was.
  // See Memory::Reindex. Errors: as Ingest's; cancelled.
  Result<ReindexReport> Reindex(
      const std::string& memory, const std::atomic<bool>* stop,
      const std::function<void(const IngestProgress&)>& on_progress = nullptr);

  // What the calls since the last TakeNotes have to tell beside their results, a line each: an
  // index that was damaged and built again, recall heads that are not the profile's. The same thing
  // about a memory is told once.
  std::vector<std::string> TakeNotes();

  // Lets go of the memory that was used last: until then it is kept open, its indexes in RAM, and
  // after a call that writes no other process can write to it. (no model)
  void CloseMemory();

  // (no model)
  // Ok when there is such a memory; it is not opened. Errors: not_found, invalid_argument.
  Status Exists(const std::string& memory);
  // All memories by name, those of tenants last; those that cannot be read say so in `status`. With
  // a tenant only that one's.
  Result<std::vector<MemoryInfo>> List(const std::string& tenant = "");
  Result<MemoryInfo> Show(const std::string& memory);
  // Of all files of a tenant's memories, but for one memory's where one is named. Safe to call
  // concurrently.
  uint64_t DiskBytes(const std::string& tenant, const std::string& but_for = "") const;
  Result<TierReport> Tiers(const std::string& memory);
  // Takes a name off a document, and removes the document when that was its only one; a note says
  // when it stays. With an empty name removes the whole memory, whatever its state. With `compact`
  // the bytes are gone from the disk on return.
  Status Forget(const std::string& memory, const std::string& document, bool compact);
  Status Compact(const std::string& memory);
  // Makes `codec` the memory's and codes its blocks with it: Memory::Recode. The bytes before leave
  // the disk with Compact. Errors: as Memory::Recode's; invalid_argument.
  Result<RecodeReport> Recode(
      const std::string& memory, std::string_view codec, const std::atomic<bool>* stop,
      const std::function<void(const IngestProgress&)>& on_progress = nullptr);
  // Gives everything of a memory to `sink`, as docs/formats/export.md has it. Errors: the store's
  // and the sink's.
  Result<TransferReport> Export(const std::string& memory, const ByteSink& sink);
  // The same, to be read a piece at a time. Must hold: until its end no other call is made.
  Result<std::unique_ptr<ExportStream>> OpenExport(const std::string& memory);
  // Makes a memory of what Export wrote, under its own name or `name`. It is there when all of it
  // was read and holds together, or not at all; what it may bring is in
  // memory/record/import_rules.h. Errors: already_exists, invalid_argument (no export), data_loss,
  // failed_precondition (the limits), resource_exhausted.
  Result<TransferReport> Import(const ByteSource& source, const std::string& name = "",
                                const ImportLimits& limits = {});
  // Reads every record and block back. Data_loss names the first bad one.
  Status Verify(const std::string& memory);

 private:
  enum class Access : uint8_t { kRead, kWrite, kCreate };
  struct Planned;
  struct Piece;
  struct OpenMemory;
  // The memory, as open_ holds it from then on.
  Result<Memory*> Open(const std::string& name, Access access, bool with_model);
  // open_, for an answer that others may be written beside; until it lets go of it, Open finds it
  // again.
  std::shared_ptr<OpenMemory> Lend();
  // Whether `open`, which may be null, is this memory as it is on the disk, and good for such a
  // call.
  bool IsOpen(const OpenMemory* open, const std::string& name, Access access,
              bool with_model) const;
  // The store of a memory, with the key where it is sealed.
  Result<std::unique_ptr<ColdStore>> OpenStore(const RocksOptions& rocks,
                                               const std::string& memory);
  Result<std::shared_ptr<OpenMemory>> OpenAnew(const std::string& name, Access access,
                                               bool with_model);
  // A memory to look at: open_, where it is that one, or one of its own, so that looking does not
  // take another memory's indexes from who asks it.
  Result<std::shared_ptr<OpenMemory>> OpenToShow(const std::string& name);
  // `answers`: planned.set is left with the prompt's head in it; else only where planning needed
  // it.
  Result<Planned> PlanFor(const std::string& memory, std::string_view question,
                          const AskOptions& options, bool answers);
  // Whose queries a question is asked for.
  std::vector<RecallHead> HeadsToAsk(const Manifest& manifest) const;
  // How many of `wanted` spans a second look at this prompt may take in; 0 for no look.
  uint32_t SpansToRerank(const Prompt& prompt, uint32_t wanted) const;
  // [judged tokens] how rare each token's word is in the memory; 0 for function words and for what
  // stands nowhere.
  static std::vector<double> JudgedWeights(const Planned& planned);
  // Orders the plan's spans by what the model thinks of them (memory/recall/query_likelihood.h) and
  // drops those that fall far behind.
  Status RerankPlan(Planned& planned, uint32_t looked);
  static void AppendPieces(const PlannedSpan& span, size_t index, std::vector<Piece>* pieces);
  // Reads the pieces' blocks, where they are not there yet, into planned.blocks. Errors:
  // resource_exhausted, and nothing is read then.
  Status Load(Planned& planned, std::span<const Piece> pieces);
  // Gives back blocks that no span of the plan needs.
  void DropBlocks(Planned& planned);
  // How many of the first of `spans` a second look has memory for at once; `sets`, which is empty,
  // then holds their working sets.
  size_t ReserveRerank(Planned& planned, std::span<const PlannedSpan> spans,
                       MemoryReservation* sets);
  // The question's likelihood beside each span and, last, beside nothing (QuestionLikelihoods), in
  // as many groups of spans as the memory budget asks for. Errors: resource_exhausted when it has
  // no room for a single one.
  Result<std::vector<std::vector<float>>> ScoreQuestion(Planned& planned,
                                                        std::span<const PlannedSpan> spans);
  // How many of the plan's best spans are read again as text instead of recalled as keys and
  // values.
  size_t SpansToReencode(const Planned& planned) const;
  // Chooses planned.excerpts, what is read again of spans that are recalled all the same, at most
  // planned.reencode_tokens in all, and planned.distractors (memory/recall/excerpts.h).
  Status ReadSentences(Planned& planned) const;
  // Cuts the sentences' rows out of the pieces.
  static void LeaveOut(std::span<const SpanSentence> sentences, std::vector<Piece>* pieces);
  // Cuts pieces where the model's own words begin, and marks those.
  static void SplitAssistantText(const Planned& planned, std::vector<Piece>* pieces);
  // What is added to the attention scores of a piece's keys.
  float BiasOf(const PlannedSpan& span, const Piece& piece) const;
  size_t SpansThatFit(const Planned& planned) const;
  // Reserves the answer's working set, dropping the worst spans until it fits.
  Status ReserveAnswer(Planned& planned);
  // Reads the other spans' blocks into the working set, without the distractors; places[i] are the
  // keys of span i there.
  Status Fetch(Planned& planned, size_t reread, AskReply* reply, std::vector<TokenSpan>* places);
  // Adds what the plan's best spans lead to; see memory/recall/multi_hop.h.
  Status Follow(Planned& planned, uint32_t spans_max);
  // Recalls `span` while an answer is generated: before the prompt's tail, where it would stand had
  // it been planned. The tail, which began at key `tail_at` and native position `position`, and
  // `generated` run again behind it; both numbers move to where the tail begins then, and logits
  // are those of the last token. The span joins the plan and `described`. Returns its keys; none,
  // and nothing is done, where it is damaged or leaves no room for `answer_tokens` more.
  Result<TokenSpan> Refresh(Planned& planned, const PlannedSpan& span,
                            std::span<const TokenId> generated, uint32_t answer_tokens,
                            std::vector<RecalledSpan>* described, uint32_t* tail_at,
                            uint32_t* position, AskReply* reply);
  // --- faithful (engine_faithful.cc) ---
  struct Text;
  Result<AskReply> AskFaithful(const std::string& memory, std::string_view question,
                               const AskOptions& options);
  // Positions of its blocks begin behind `head_tokens` of the prompt. Errors: resource_exhausted,
  // and the store's.
  Result<Text> ReadText(Memory& memory, uint64_t head_tokens);
  // Reads what was picked. Sets the reply's counts of blocks.
  void PlacePicked(Memory& memory, const Text& text, PickedBlocks* picked, AskReply* reply);
  // Cites what got most of the attention: `mass` by block, `own_mass` by key of the set, where what
  // was read again follows `head` tokens.
  Status CitePicked(Memory& memory, const Text& text, const std::vector<double>& mass,
                    const std::vector<double>& own_mass, uint32_t head, AskReply* reply);

  // --- answering ---
  // Fills document_index and characters of all citations, where they are wanted.
  static Status PlaceCitations(Memory& memory, const AskOptions& options, AskReply* reply);
  // When the question came, when its prompt was begun, and the native position of the answer's
  // first token.
  struct Begun {
    std::chrono::steady_clock::time_point question, prompt;
    uint32_t position = 0;
  };
  struct AnswerHooks {
    // After each token; may change the set. Gets the tokens so far and how many may follow, leaves
    // the last one's logits, and returns the native position of the next. May be null.
    std::function<Result<uint32_t>(std::span<const TokenId> generated, uint32_t left)> hear;
    // A sentence has ended: what is to be written behind it. May be null.
    std::function<std::string()> mark;
  };
  // Samples the answer, the first token from the last logits, and fills the reply's text,
  // likelihoods and timings.
  Status Generate(WorkingSet& set, const AskOptions& options, uint32_t answer_tokens,
                  const CopyBias& copy_bias, const Begun& begun, const AnswerHooks& hooks,
                  AskReply* reply);
  // Sets planned.abstained; see RecallProfile::abstain_support.
  Status Judge(Planned& planned);
  // The words of a span beside those of the question.
  Result<std::vector<WordMatch>> Beside(Planned& planned, const PlannedSpan& span);
  // The reply when the memory holds nothing on the question.
  Result<AskReply> Abstain(Planned& planned, const AskOptions& options,
                           std::chrono::steady_clock::time_point start, AskReply reply);
  Status Explain(Planned& planned, RecallReply* reply);
  Result<RecalledSpan> Describe(Memory& memory, const PlannedSpan& span);
  // All spans of the plan, best first. One whose text is damaged leaves the plan and is counted.
  Result<std::vector<RecalledSpan>> DescribeAll(Planned& planned, uint64_t* spans_lost);
  std::string PathOf(const std::string& memory) const;
  // Where the memories of a tenant live, or with an empty one the operator's.
  std::string DirectoryOf(const std::string& tenant) const;
  // Where such a memory lives, made for its owner alone when it is not there.
  Status MakeMemoriesDirectory(const std::string& memory) const;
  // Adds a tenant's memories, or with an empty one the operator's.
  Status ListOf(const std::string& tenant, std::vector<MemoryInfo>* list);
  void Note(const std::string& note);

  EngineOptions options_;
  MemoryBudget budget_;  // before what reserves from it
  MemoryReservation model_memory_;
  bool codec_chosen_ = false;
  LanguageModel* model_ = nullptr;
  std::unique_ptr<RecallProfile> profile_;
  std::shared_ptr<OpenMemory> open_;             // the memory that was used last
  std::vector<std::weak_ptr<OpenMemory>> lent_;  // those that answers use
  std::atomic<uint64_t> opens_{0};
  std::unique_ptr<const LexicalVocabulary> vocabulary_;
  // null where the model does not show its embeddings
  std::unique_ptr<const QueryExpansion> related_;
  std::vector<std::string> notes_;
  std::set<std::string> told_;  // all notes so far: one or two per memory
};

}  // namespace longhold
