#include "eval/runner.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include "eval/bm25.h"
#include "eval/embed_retriever.h"
#include "eval/hybrid_retriever.h"
#include "eval/prompts.h"
#include "eval/ram.h"

namespace longhold {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kSinkTokens = 64;  // first tokens in the window mode; as many as in an ingest
constexpr size_t kFoundMax = 32;      // the largest value of kHitRanks
// Estimates before the first measurement: seconds per question and tokens per second on two cores.
constexpr double kQuestionSecondsGuess = 1.5, kReadTokensPerSecondGuess = 400;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A text that is not generated yet.
struct PlannedText {
  TextRequest request;
  uint32_t questions = 0;  // expected number; a question file may have fewer for this text
};

std::vector<PlannedText> PlanTexts(const EvalSettings& settings, const EvalParts& parts) {
  std::vector<PlannedText> plan;
  for (const std::string& task : settings.tasks) {
    const TaskInfo& info = *FindTask(task);
    for (const uint64_t length : settings.lengths) {
      TextRequest request{.task = task,
                          .length = length,
                          .seed = settings.seed,
                          .depths = settings.depths,
                          .haystack = parts.haystack,
                          .questions = parts.questions};
      if (task == "questions") {
        plan.push_back({request, static_cast<uint32_t>(parts.questions->size())});
        continue;
      }
      const bool single = info.questions_max == 1;
      request.question_total =
          single && !settings.one_per_text ? settings.texts : settings.questions;
      const uint32_t each = settings.one_per_text ? 1 : QuestionsPerText(info, length);
      for (; request.question_first < request.question_total;
           request.question_first += each, ++request.text_index) {
        request.question_count = std::min(each, request.question_total - request.question_first);
        plan.push_back({request, request.question_count});
      }
    }
  }
  return plan;
}

// Measures speeds and estimates the remaining time.
class Estimate {
 public:
  void Plan(EvalMode mode, uint64_t questions, uint64_t tokens) {
    modes_[mode].questions_left += static_cast<double>(questions);
    if (Reads(mode)) modes_[mode].tokens_left += static_cast<double>(tokens);
  }
  void Read(EvalMode mode, uint64_t tokens, double seconds) {
    Mode& m = modes_[mode];
    m.tokens_left = std::max(0.0, m.tokens_left - static_cast<double>(tokens));
    m.tokens += static_cast<double>(tokens);
    m.read_seconds += seconds;
    seen_ = true;
  }
  void Asked(EvalMode mode, double questions, double seconds) {
    Mode& m = modes_[mode];
    m.questions_left = std::max(0.0, m.questions_left - questions);
    m.questions += questions;
    m.ask_seconds += seconds;
    seen_ = true;
  }
  double SecondsLeft() const {
    double left = 0;
    for (const auto& [mode, m] : modes_) {
      left += m.questions_left *
              (m.questions > 0 ? m.ask_seconds / m.questions : kQuestionSecondsGuess);
      left += m.tokens_left *
              (m.tokens > 0 ? m.read_seconds / m.tokens : 1 / kReadTokensPerSecondGuess);
    }
    return seen_ ? left : 0;
  }

 private:
  static bool Reads(EvalMode mode) {
    return mode == EvalMode::kLonghold || mode == EvalMode::kFull;
  }
  struct Mode {
    double questions_left = 0, tokens_left = 0;
    double questions = 0, tokens = 0, ask_seconds = 0, read_seconds = 0;
  };
  std::map<EvalMode, Mode> modes_;
  bool seen_ = false;
};

class Runner {
 public:
  Runner(const EvalSettings& settings, const std::vector<EvalRow>& done, const EvalParts& parts)
      : settings_(settings), parts_(parts), plan_(PlanTexts(settings, parts)) {
    for (const EvalRow& row : done) done_.insert(row.Key());
    for (const PlannedText& planned : plan_) {
      for (const EvalMode mode : settings_.modes) {
        total_ += planned.questions;
        const size_t left =
            planned.questions - std::min<size_t>(planned.questions, CountDone(planned, mode));
        made_ += planned.questions - left;
        if (left > 0) estimate_.Plan(mode, left, planned.request.length);
      }
    }
  }

  Result<std::vector<std::string>> Run() {
    for (const PlannedText& planned : plan_) {
      // For a question file the number of questions is known only after the text is generated.
      const bool known = planned.request.task != "questions";
      const bool whole =
          known && std::all_of(settings_.modes.begin(), settings_.modes.end(), [&](EvalMode mode) {
            return CountDone(planned, mode) == planned.questions;
          });
      if (whole) continue;
      LH_RETURN_IF_ERROR(RunText(planned));
    }
    if (rows_ == 0 && done_.empty() && first_failure_.code() != StatusCode::kOk)
      return first_failure_;
    return std::move(notes_);
  }

 private:
  // The text in progress.
  struct Current {
    const TextRequest& request;
    EvalText text;
    std::vector<size_t> pending;  // questions without a row in the current mode
  };

  static EvalRow RowFor(const TextRequest& request, size_t question, EvalMode mode) {
    EvalRow row;
    row.task = request.task;
    row.length = request.length;
    row.text = request.text_index;
    row.question = static_cast<uint32_t>(question);
    row.mode = mode;
    return row;
  }

  size_t CountDone(const PlannedText& planned, EvalMode mode) const {
    size_t count = 0;
    for (uint32_t q = 0; q < planned.questions; ++q)
      count += done_.count(RowFor(planned.request, q, mode).Key());
    return count;
  }

  bool Stopped() const { return parts_.stop != nullptr && *parts_.stop; }
  static Status StoppedStatus() { return Cancelled("eval: stopped"); }

  void Report(const IngestProgress& reading = {}) const {
    if (!parts_.on_progress) return;
    parts_.on_progress({.label = label_,
                        .done = made_,
                        .total = total_,
                        .seconds_left = estimate_.SecondsLeft(),
                        .reading = reading});
  }

  Status RunText(const PlannedText& planned) {
    label_ = planned.request.task + " " + LengthName(planned.request.length);
    Report();
    const auto count = [this](std::string_view text) -> Result<uint64_t> {
      LH_ASSIGN_OR_RETURN(const TokenizedText tokens, TokenizeForPrompt(parts_.model, text));
      // An ingest puts BOS before the text.
      return uint64_t{tokens.tokens.size()} + (parts_.model.Bos() >= 0 ? 1 : 0);
    };
    Result<EvalText> text = BuildText(planned.request, count);
    if (!text.ok() && text.status().code() == StatusCode::kInvalidArgument) {
      // A task that does not fit a length does not end the run.
      if (std::find(notes_.begin(), notes_.end(), text.status().message()) == notes_.end())
        notes_.push_back(text.status().message());
      if (first_failure_.ok()) first_failure_ = text.status();
      total_ -= planned.questions * settings_.modes.size();
      return OkStatus();
    }
    if (!text.ok()) return text.status();
    if (text->questions.size() < planned.questions) {
      notes_.push_back(label_ + ": " + std::to_string(text->questions.size()) + " of " +
                       std::to_string(planned.questions) + " questions have evidence in the text");
      total_ -= (planned.questions - text->questions.size()) * settings_.modes.size();
    }
    Current current{planned.request, std::move(*text), {}};
    for (const EvalMode mode : settings_.modes) {
      current.pending.clear();
      for (size_t q = 0; q < current.text.questions.size(); ++q) {
        if (done_.count(RowFor(planned.request, q, mode).Key()) == 0) current.pending.push_back(q);
      }
      if (current.pending.empty()) continue;
      if (Stopped()) return StoppedStatus();
      label_ = planned.request.task + " " + LengthName(planned.request.length) + " " +
               std::string(EvalModeName(mode));
      Report();
      ram_.Begin();
      LH_RETURN_IF_ERROR(RunMode(mode, current));
    }
    // Forget the memory also if this run asked no question in the mode longhold: an earlier run may
    // have left it.
    const bool engine = std::find(settings_.modes.begin(), settings_.modes.end(),
                                  EvalMode::kLonghold) != settings_.modes.end();
    if (parts_.keep_memories || !engine) return OkStatus();
    const Status forgotten = parts_.engine.Forget(MemoryName(planned.request), "", false);
    return forgotten.code() == StatusCode::kNotFound ? OkStatus() : forgotten;
  }

  Status RunMode(EvalMode mode, Current& current) {
    switch (mode) {
      case EvalMode::kLonghold: return AskEngine(current);
      case EvalMode::kFull: return AskFull(current);
      case EvalMode::kWindow: return AskWindow(current);
      case EvalMode::kRagBm25: {
        const auto start = Clock::now();
        Bm25Retriever retriever(current.text.text, {});
        return AskRetrieved(mode, &retriever, Since(start), current);
      }
      case EvalMode::kRagEmbed: {
        if (!parts_.embed) return Skip(mode, current, "no embedding model");
        const auto start = Clock::now();
        LH_ASSIGN_OR_RETURN(const std::unique_ptr<Retriever> retriever,
                            parts_.embed(current.text.text));
        return AskRetrieved(mode, retriever.get(), Since(start), current);
      }
      case EvalMode::kRagHybrid: {
        if (!parts_.embed) return Skip(mode, current, "no embedding model");
        const auto start = Clock::now();
        std::vector<std::unique_ptr<Retriever>> both;
        // The passages of the embedding retriever, so that both rank the same ones.
        both.push_back(std::make_unique<Bm25Retriever>(
            current.text.text, Bm25Options{.passages = EmbedRetrieverOptions().passages}));
        LH_ASSIGN_OR_RETURN(std::unique_ptr<Retriever> embed, parts_.embed(current.text.text));
        both.push_back(std::move(embed));
        HybridRetriever retriever(std::move(both));
        return AskRetrieved(mode, &retriever, Since(start), current);
      }
      case EvalMode::kOracle: return AskOracle(current);
    }
    return Internal("eval: unknown mode");
  }

  // ----------------------------------------------------------------------------------------------
  // the engine

  static std::string MemoryName(const TextRequest& request) {
    return request.task + "-" + std::to_string(request.length) + "-" +
           std::to_string(request.text_index);
  }

  Status AskEngine(Current& current) {
    const std::string memory = MemoryName(current.request);
    const auto start = Clock::now();
    LH_ASSIGN_OR_RETURN(
        const IngestReport read,
        parts_.engine.Ingest(memory, {.name = "text", .text = current.text.text}, parts_.stop,
                             [&](const IngestProgress& progress) { Report(progress); }));
    if (read.outcome == IngestReport::Outcome::kStopped) return StoppedStatus();
    const double read_seconds = Since(start);
    estimate_.Read(EvalMode::kLonghold, read.tokens, read_seconds);
    for (const size_t q : current.pending) {
      if (Stopped()) return StoppedStatus();
      const auto asked = Clock::now();
      const EvalQuestion& question = current.text.questions[q];
      // The plan of an answer has fewer than 32 spans, so recall 32 spans for hit@32. More spans do
      // not change the order of the first ones.
      LH_ASSIGN_OR_RETURN(const RecallReply recall,
                          parts_.engine.Recall(memory, question.question,
                                               {.spans_max = kFoundMax, .abstain = false}));
      AskOptions options;
      if (settings_.answer_prefix) options.answer_prefix = question.answer_prefix;
      options.max_tokens = MaxTokens(question);
      options.stop = parts_.stop;
      LH_ASSIGN_OR_RETURN(const AskReply reply,
                          parts_.engine.Ask(memory, question.question, options));
      if (Stopped()) return StoppedStatus();  // the answer may be incomplete
      std::vector<ByteSpan> found;
      for (const RecalledSpan& span : recall.spans) found.push_back(span.bytes);
      EvalRow row = NewRow(EvalMode::kLonghold, current, q, CleanUtf8(reply.answer), &found);
      row.first_token_ms = reply.timings.first_token_ms;
      row.tokens_read = reply.tokens_recalled + reply.prompt_tokens;
      row.coverage = reply.coverage.value_or(0);
      row.token_gain = reply.token_gain;
      row.abstained = reply.abstained;
      if (question.unanswerable) row.score = reply.abstained ? 1 : 0;
      row.read_seconds = read_seconds;
      LH_RETURN_IF_ERROR(Finish(std::move(row), Since(asked)));
    }
    return OkStatus();
  }

  // ----------------------------------------------------------------------------------------------
  // libllama's own attention

  Result<std::vector<TokenId>> TokensOf(std::string_view text) const {
    LH_ASSIGN_OR_RETURN(TokenizedText tokenized, TokenizeForPrompt(parts_.model, text));
    return std::move(tokenized.tokens);
  }

  Result<NativePrompt> Prompt(std::span<const TokenId> given, const EvalQuestion& question) const {
    return BuildNativePrompt(parts_.model, given, question.question,
                             settings_.answer_prefix ? question.answer_prefix : "");
  }

  uint32_t MaxTokens(const EvalQuestion& question) const {
    return settings_.max_tokens > 0 ? settings_.max_tokens : question.max_tokens;
  }

  std::string AnswerOf(const NativeRun& run) const {
    std::string written;
    for (const TokenId token : run.tokens) written += parts_.model.Piece(token);
    return CutAnswer(parts_.model, written);
  }

  std::string DoesNotFit(size_t tokens) const {
    return "does not fit: " + std::to_string(tokens) + " tokens, the model reads " +
           std::to_string(parts_.model.info().context_length);
  }

  // Asks one question with its own prompt.
  Status AskPrompt(EvalMode mode, const Current& current, size_t q, std::span<const TokenId> given,
                   const std::vector<ByteSpan>* found, double before_ms, double read_seconds) {
    const auto start = Clock::now();
    const EvalQuestion& question = current.text.questions[q];
    LH_ASSIGN_OR_RETURN(NativePrompt prompt, Prompt(given, question));
    if (prompt.size() > parts_.model.info().context_length)
      return SkipOne(mode, current, q, DoesNotFit(prompt.size()));
    prompt = JoinPrompt(std::move(prompt));
    LH_ASSIGN_OR_RETURN(const std::vector<NativeRun> runs,
                        parts_.native(prompt.prefix, {{}}, MaxTokens(question)));
    EvalRow row = NewRow(mode, current, q, AnswerOf(runs[0]), found);
    row.first_token_ms = before_ms + 1000.0 * static_cast<double>(prompt.prefix.size()) /
                                         std::max(1e-9, runs[0].prefill_tok_s);
    row.tokens_read = prompt.prefix.size();
    row.read_seconds = read_seconds;
    return Finish(std::move(row), Since(start));
  }

  // Reads the text once with full attention. Every question continues from that state.
  Status AskFull(const Current& current) {
    LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, TokensOf(current.text.text));
    std::vector<TokenId> prefix;
    std::vector<std::vector<TokenId>> tails;
    size_t longest = 0;
    uint32_t max_tokens = 1;
    for (const size_t q : current.pending) {
      LH_ASSIGN_OR_RETURN(NativePrompt prompt, Prompt(tokens, current.text.questions[q]));
      longest = std::max(longest, prompt.size());
      max_tokens = std::max(max_tokens, MaxTokens(current.text.questions[q]));
      prefix = std::move(prompt.prefix);
      tails.push_back(std::move(prompt.tail));
    }
    if (longest > parts_.model.info().context_length)
      return Skip(EvalMode::kFull, current, DoesNotFit(longest));
    const auto start = Clock::now();
    Result<std::vector<NativeRun>> runs = parts_.native(prefix, tails, max_tokens);
    if (!runs.ok() && runs.status().code() == StatusCode::kResourceExhausted) {
      return Skip(EvalMode::kFull, current, "does not fit: no memory for its keys and values");
    }
    if (!runs.ok()) return runs.status();
    const double read_seconds = runs->empty() ? 0
                                              : static_cast<double>(prefix.size()) /
                                                    std::max(1e-9, runs->front().prefill_tok_s);
    estimate_.Read(EvalMode::kFull, current.request.length, read_seconds);
    const double each =
        std::max(0.0, Since(start) - read_seconds) / static_cast<double>(current.pending.size());
    for (size_t i = 0; i < current.pending.size(); ++i) {
      const NativeRun& run = (*runs)[i];
      EvalRow row = NewRow(EvalMode::kFull, current, current.pending[i], AnswerOf(run), nullptr);
      row.first_token_ms = run.tail_ms;
      row.tokens_read = prefix.size() + tails[i].size();
      row.read_seconds = read_seconds;
      LH_RETURN_IF_ERROR(Finish(std::move(row), each));
    }
    return OkStatus();
  }

  Status AskWindow(const Current& current) {
    LH_ASSIGN_OR_RETURN(const TokenizedText text,
                        TokenizeForPrompt(parts_.model, current.text.text));
    const size_t sinks = std::min<size_t>(kSinkTokens, text.tokens.size());
    const size_t window = std::min<size_t>(
        text.tokens.size() - sinks, std::max(settings_.window_tokens, kSinkTokens) - kSinkTokens);
    std::vector<TokenId> given(text.tokens.begin(),
                               text.tokens.begin() + static_cast<ptrdiff_t>(sinks));
    given.insert(given.end(), text.tokens.end() - static_cast<ptrdiff_t>(window),
                 text.tokens.end());
    uint64_t sink_bytes = 0, window_bytes = 0;
    for (size_t i = 0; i < sinks; ++i) sink_bytes += text.bytes[i];
    for (size_t i = text.bytes.size() - window; i < text.bytes.size(); ++i)
      window_bytes += text.bytes[i];
    const uint64_t size = current.text.text.size();
    const std::vector<ByteSpan> found = {{size - window_bytes, size}, {0, sink_bytes}};
    for (const size_t q : current.pending) {
      if (Stopped()) return StoppedStatus();
      LH_RETURN_IF_ERROR(AskPrompt(EvalMode::kWindow, current, q, given, &found, 0, 0));
    }
    return OkStatus();
  }

  // The best passages without overlaps: a passage loses the bytes that better passages contain.
  std::vector<ByteSpan> ChunksFrom(const std::vector<ByteSpan>& ranked) const {
    std::vector<ByteSpan> chunks;
    for (ByteSpan passage : ranked) {
      if (chunks.size() >= settings_.chunks) break;
      for (const ByteSpan& c : chunks) {
        if (passage.begin >= c.begin && passage.begin < c.end) passage.begin = c.end;
        if (passage.end > c.begin && passage.end <= c.end) passage.end = c.begin;
        if (passage.begin >= passage.end) break;
      }
      if (passage.begin < passage.end) chunks.push_back(passage);
    }
    return chunks;
  }

  // The tokens of the chunks, in the order in which the engine places spans: the best one last,
  // next to the question. Drops the worst chunks if the model's context is too short.
  Result<std::vector<TokenId>> GiveChunks(const Current& current, const EvalQuestion& question,
                                          std::vector<ByteSpan> chunks) const {
    for (;; chunks.pop_back()) {
      std::string given;
      for (size_t i = chunks.size(); i-- > 0;) {
        std::string_view chunk =
            std::string_view(current.text.text).substr(chunks[i].begin, chunks[i].size());
        while (!chunk.empty() && (chunk.back() == '\n' || chunk.back() == ' '))
          chunk.remove_suffix(1);
        given += (given.empty() ? "" : "\n\n") + std::string(chunk);
      }
      LH_ASSIGN_OR_RETURN(std::vector<TokenId> tokens, TokensOf(given));
      LH_ASSIGN_OR_RETURN(const NativePrompt prompt, Prompt(tokens, question));
      if (chunks.size() <= 1 ||
          prompt.size() + MaxTokens(question) <= parts_.model.info().context_length)
        return tokens;
    }
  }

  Status AskRetrieved(EvalMode mode, Retriever* retriever, double read_seconds,
                      const Current& current) {
    for (const size_t q : current.pending) {
      if (Stopped()) return StoppedStatus();
      const EvalQuestion& question = current.text.questions[q];
      const auto start = Clock::now();
      LH_ASSIGN_OR_RETURN(const std::vector<Passage> passages,
                          retriever->Retrieve(question.question, kFoundMax));
      std::vector<ByteSpan> found;
      for (const Passage& passage : passages)
        found.push_back({passage.byte_begin, passage.byte_end});
      LH_ASSIGN_OR_RETURN(const std::vector<TokenId> given,
                          GiveChunks(current, question, ChunksFrom(found)));
      LH_RETURN_IF_ERROR(
          AskPrompt(mode, current, q, given, &found, 1000 * Since(start), read_seconds));
    }
    return OkStatus();
  }

  Status AskOracle(const Current& current) {
    for (const size_t q : current.pending) {
      if (Stopped()) return StoppedStatus();
      const EvalQuestion& question = current.text.questions[q];
      if (!question.evidence_known) {
        LH_RETURN_IF_ERROR(SkipOne(EvalMode::kOracle, current, q, "no evidence given"));
        continue;
      }
      std::string given = question.evidence.empty() ? current.text.text : "";
      for (const ByteSpan& range : question.evidence) {
        given += (given.empty() ? "" : "\n") + current.text.text.substr(range.begin, range.size());
      }
      LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, TokensOf(given));
      LH_RETURN_IF_ERROR(AskPrompt(EvalMode::kOracle, current, q, tokens, nullptr, 0, 0));
    }
    return OkStatus();
  }

  // ----------------------------------------------------------------------------------------------
  // rows

  EvalRow NewRow(EvalMode mode, const Current& current, size_t q, std::string answer,
                 const std::vector<ByteSpan>* found) const {
    const EvalQuestion& question = current.text.questions[q];
    EvalRow row = RowFor(current.request, q, mode);
    row.text_tokens = current.text.tokens;
    row.depth = question.depth;
    row.depth_cell = question.depth_cell;
    row.asked = question.question;
    row.expected = question.answers;
    row.unanswerable = question.unanswerable;
    row.score = Match(question.match, answer, question.answers);
    row.answer = std::move(answer);
    if (found != nullptr && !question.evidence.empty())
      row.hits = HitAt(*found, question.evidence, question.one_suffices);
    return row;
  }

  Status Finish(EvalRow row, double seconds) {
    row.ram_bytes = row.skipped.empty() ? ram_.Bytes() : 0;
    estimate_.Asked(row.mode, 1, seconds);
    ++made_;
    ++rows_;
    done_.insert(row.Key());
    LH_RETURN_IF_ERROR(parts_.on_row(row));
    Report();
    return OkStatus();
  }

  Status SkipOne(EvalMode mode, const Current& current, size_t q, const std::string& why) {
    EvalRow row = NewRow(mode, current, q, "", nullptr);
    row.score = 0;
    row.skipped = why;
    return Finish(std::move(row), 0);
  }

  Status Skip(EvalMode mode, const Current& current, const std::string& why) {
    for (const size_t q : current.pending) LH_RETURN_IF_ERROR(SkipOne(mode, current, q, why));
    return OkStatus();
  }

  const EvalSettings& settings_;
  const EvalParts& parts_;
  const std::vector<PlannedText> plan_;
  std::set<std::string> done_;
  std::vector<std::string> notes_;
  Status first_failure_;
  std::string label_;
  uint64_t made_ = 0, total_ = 0, rows_ = 0;
  Estimate estimate_;
  RamMeter ram_;
};

}  // namespace

Result<std::vector<std::string>> RunEval(const EvalSettings& settings,
                                         const std::vector<EvalRow>& done, const EvalParts& parts) {
  return Runner(settings, done, parts).Run();
}

NativeRunner NativeRunnerOf(LanguageModel& model, const std::atomic<bool>* stop) {
  return [&model, stop](std::span<const TokenId> prefix,
                        const std::vector<std::vector<TokenId>>& tails, uint32_t max_tokens) {
    return RunNativeEach(model, prefix, tails, max_tokens, SamplerOptions{}, stop);
  };
}

bool NeedsHaystack(const EvalSettings& settings) {
  return std::any_of(settings.tasks.begin(), settings.tasks.end(),
                     [](const std::string& task) { return FindTask(task)->needs_haystack; });
}

}  // namespace longhold
