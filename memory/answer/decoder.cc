#include "memory/answer/decoder.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "base/text.h"
#include "memory/core/elapsed.h"
#include "memory/recall/prompt.h"
#include "memory/text/sentences.h"

namespace longhold {
namespace {

using Clock = std::chrono::steady_clock;

// Shorter sentences share the next one's citation; most of them are none ("Mr.").
constexpr size_t kSentenceBytesMin = 12;

std::string Trim(const std::string& text) {
  const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; };
  size_t begin = 0, end = text.size();
  while (begin < end && blank(text[begin])) ++begin;
  while (end > begin && blank(text[end - 1])) --end;
  return text.substr(begin, end - begin);
}

TokenLikelihood LikelihoodOf(const LanguageModel& model, TokenId token, uint32_t likeliest) {
  const std::span<const float> logits = model.logits();
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - max);
  const double all = max + std::log(sum);
  TokenLikelihood of{
      .text = model.Piece(token), .log = logits[static_cast<size_t>(token)] - all, .likeliest = {}};
  std::vector<TokenId> best(logits.size());
  std::iota(best.begin(), best.end(), TokenId{0});
  const size_t count = std::min<size_t>({likeliest, kLikeliestMax, best.size()});
  std::partial_sort(best.begin(), best.begin() + static_cast<ptrdiff_t>(count), best.end(),
                    [&](TokenId a, TokenId b) {
                      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
                    });
  for (size_t i = 0; i < count; ++i)
    of.likeliest.emplace_back(model.Piece(best[i]), logits[static_cast<size_t>(best[i])] - all);
  return of;
}

// The answer's text as it grows, with inline citations beside it.
class AnswerText {
 public:
  AnswerText(const DecodeOptions& options, bool one_line)
      : options_(options), one_line_(one_line) {}

  // Adds a token's piece. Returns true where the answer ends with it.
  bool Add(const std::string& piece) {
    for (const char c : piece) {
      const bool sentence_ends = options_.cite && IsSpace(c) &&
                                 cited_.size() >= cited_at_ + kSentenceBytesMin &&
                                 (c == '\n' || EndsSentence(text_));
      if (sentence_ends) Cite();
      text_ += c;
      cited_ += c;
    }
    const bool ends = CutAtLineEnd();
    Show(WholeCharacters(cited_));
    return ends;
  }

  void Finish(AskReply* reply) {
    reply->answer = Trim(text_);
    if (!options_.cite) return;
    if (cited_.size() > cited_at_ && !reply->answer.empty()) {
      const std::string last = options_.cite();
      // Behind the last word, also where blanks follow it; those are shown already.
      if (options_.ask.on_text && !last.empty()) options_.ask.on_text(last);
      cited_ = Trim(cited_) + last;
    }
    reply->cited_answer = Trim(cited_);
  }

  const std::string& text() const { return text_; }

 private:
  void Cite() {
    cited_ += options_.cite();
    cited_at_ = cited_.size();
  }
  // A model without a chat template goes on with questions of its own: its answer is the first
  // line.
  bool CutAtLineEnd() {
    if (!one_line_) return false;
    // npos while there is no word, and then there is no line break after it
    const size_t line_end = text_.find('\n', text_.find_first_not_of(" \n"));
    if (line_end == std::string::npos) return false;
    cited_.resize(cited_.size() - (text_.size() - line_end));
    text_.resize(line_end);
    return true;
  }
  void Show(size_t end) {
    if (options_.ask.on_text && end > shown_)
      options_.ask.on_text(std::string_view(cited_).substr(shown_, end - shown_));
    shown_ = std::max(shown_, end);
  }

  const DecodeOptions& options_;
  const bool one_line_;
  std::string text_;
  std::string cited_;    // the text with inline citations, where they are wanted
  size_t shown_ = 0;     // bytes of cited_ that on_text had
  size_t cited_at_ = 0;  // bytes of cited_ up to the last citation
};

}  // namespace

Status Decode(LanguageModel& model, WorkingSet& set, const DecodeOptions& options,
              AskReply* reply) {
  const auto sampler = model.NewSampler(options.ask.sampler);
  AnswerText text(options, !model.info().chat);
  std::vector<float> biased;
  const auto sample = [&] {
    const std::span<const float> logits = model.logits();
    return sampler->Sample(options.copy_bias.Guide(text.text(), logits, &biased) ? biased : logits);
  };
  TokenId token = sample();
  const Clock::time_point first = Clock::now();
  reply->timings.prompt_ms = Milliseconds(options.prompt_start, first);
  reply->timings.first_token_ms = Milliseconds(options.question_start, first);

  std::vector<TokenId> generated;
  uint32_t position = options.position, count = 0;
  for (;; ++count) {
    const bool stopped = options.ask.stop != nullptr && options.ask.stop->load();
    if (model.EndsAnswer(token) || stopped) break;
    const bool late = options.deadline != nullptr && options.deadline->has_value() &&
                      Clock::now() >= **options.deadline;
    if (count >= options.answer_tokens || set.size() >= set.capacity() || late) {
      reply->cut = true;
      break;
    }
    const bool ends = text.Add(model.Piece(token));
    if (options.ask.likeliest.has_value())
      reply->likelihoods.push_back(LikelihoodOf(model, token, *options.ask.likeliest));
    if (ends) {
      ++count;
      break;
    }
    LH_RETURN_IF_ERROR(RunTokens(model, set, std::span(&token, 1), position++, true));
    generated.push_back(token);
    if (options.on_token) {
      LH_ASSIGN_OR_RETURN(position, options.on_token(generated, options.answer_tokens - count));
    }
    token = sample();
  }
  reply->completion_tokens = count;
  reply->timings.decode_ms = Milliseconds(first, Clock::now());
  // The first token came with the prompt.
  reply->timings.decode_tok_s = count > 1 ? 1000.0 * count / reply->timings.decode_ms : 0;
  text.Finish(reply);
  return OkStatus();
}

}  // namespace longhold
