// How a question is answered from what was recalled: what is read again, the working set, decoding,
// citations.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <tuple>
#include <utility>

#include "base/text.h"
#include "memory/answer/copy_bias.h"
#include "memory/engine_planned.h"

namespace longhold {
namespace {

using Clock = EngineClock;

// What is read again around a peak: its line or sentence, at most this far to either side. More of
// a text that repeats itself would show the model other lines of the same form.
constexpr uint32_t kExcerptReach = 112;
// A word that a span makes likelier by less than the first, in nats a token, is not what the span
// is about; by the second, it is.
constexpr double kFoundGainMin = 0.5, kFoundGainFull = 4;
// Sentences of this share of the heaviest one's weight say the same of the question
// (SpanSentence::share).
constexpr double kFullShare = 0.95;

// Shorter sentences share the next one's mark; most of them are none ("Mr.").
constexpr size_t kSentenceBytesMin = 12;

// Of the attention that recalled words would get, what the model's own get: else it goes on with
// its words instead of what it was told.
constexpr double kAssistantShare = 0.2;

// Whether what follows a blank is another sentence.
bool EndsSentence(std::string_view text) {
  bool closed = true;
  while (closed) {
    closed = false;
    for (const std::string_view closer : {"\"", "'", ")", "]", "\u201d", "\u2019", "\u00bb"}) {
      if (!text.ends_with(closer)) continue;
      text.remove_suffix(closer.size());
      closed = true;
    }
  }
  for (const std::string_view end :
       {".", "!", "?", "\u3002", "\uff01", "\uff1f", "\u0964", "\u061f", "\u06d4"}) {
    if (text.ends_with(end)) return true;
  }
  return false;
}

std::string Trim(const std::string& text) {
  const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; };
  size_t begin = 0, end = text.size();
  while (begin < end && blank(text[begin])) ++begin;
  while (end > begin && blank(text[end - 1])) --end;
  return text.substr(begin, end - begin);
}

}  // namespace

// Layers that stay with the engine keep no keys of the document, so of a recalled span they see
// nothing: in Gemma 15 of 18. The best spans, as far as they fill half of those layers' window, are
// therefore read again, right before the question.
size_t Engine::SpansToReencode(const Planned& p) const {
  uint64_t room = p.reencode_tokens > 0 ? 0 : model_->info().native_window / 2;
  size_t count = 0;
  while (count < p.plan.spans.size() && p.plan.spans[count].tokens.size() <= room)
    room -= p.plan.spans[count++].tokens.size();
  return count;
}

// Keys and values that were stored while other text of the same form stood in the window hold
// traces of that text: digits get lost, or come from a neighbour. Read again by itself, the place
// is copied right.
Status Engine::ReadSentences(Planned& p) const {
  std::vector<SpanSentence> sentences;
  if (p.reencode_tokens == 0) return OkStatus();
  std::vector<ExcerptSpan> spans;
  for (size_t i = 0; i < p.plan.spans.size(); ++i) {
    const PlannedSpan& span = p.plan.spans[i];
    spans.push_back({.score = span.coverage_gain >= kNeededGain ? 1 : span.score,
                     .by_question = span.hops == 0});
    for (uint64_t t = span.tokens.begin; t < span.tokens.end;) {
      LH_ASSIGN_OR_RETURN(TokenSpan tokens, p.memory->SentenceAt(span.document, t, kExcerptReach));
      // Whole, also where the span cuts it.
      if (!sentences.empty() && sentences.back().span == i)
        tokens.begin = std::max(tokens.begin, sentences.back().tokens.end);
      t = std::max(tokens.end, t + 1);
      if (tokens.empty()) continue;
      LH_ASSIGN_OR_RETURN(const std::vector<TokenId> ids, p.memory->Tokens(span.document, tokens));
      SpanSentence sentence{
          .span = i, .tokens = tokens, .peak = tokens.Contains(span.peak), .has = {}, .about = {}};
      // A word that the span does not make likelier stands there by chance.
      const std::vector<LexicalWord> words = vocabulary_->Words(ids);
      sentence.form = FormWords(words, ids, vocabulary_->pieces());
      for (const WordMatch& word :
           MatchWords(p.asked, words, span.token_gains, ScoredBegin(p.prompt), p.related)) {
        const double about = span.token_gains.empty() ? 1
                             : word.gain < kFoundGainMin
                                 ? 0
                                 : std::min(1.0, word.gain / kFoundGainFull);
        sentence.has.push_back(word.found);
        sentence.about.push_back(word.Found() * about);
      }
      sentences.push_back(std::move(sentence));
    }
  }
  p.excerpts = ChooseExcerpts(p.asked, sentences, spans, p.reencode_tokens);
  p.distractors = Distractors(p.asked, sentences, p.excerpts);
  return OkStatus();
}

void Engine::LeaveOut(std::span<const SpanSentence> sentences, std::vector<Piece>* pieces) {
  for (const SpanSentence& s : sentences) {
    std::vector<Piece> rest;
    for (const Piece& piece : *pieces) {
      const uint64_t base = uint64_t{piece.key.block} * kBlockTokens;
      const uint64_t begin = std::max(s.tokens.begin, base + piece.row_begin),
                     end = std::min(s.tokens.end, base + piece.row_end);
      if (piece.span != s.span || begin >= end) {
        rest.push_back(piece);
        continue;
      }
      Piece before = piece, after = piece;
      before.row_end = static_cast<uint32_t>(begin - base);
      after.row_begin = static_cast<uint32_t>(end - base);
      for (const Piece& part : {before, after}) {
        if (part.row_begin < part.row_end) rest.push_back(part);
      }
    }
    *pieces = std::move(rest);
  }
}

void Engine::SplitAssistantText(const Planned& p, std::vector<Piece>* pieces) {
  std::vector<Piece> cut;
  for (Piece& piece : *pieces) {
    const uint64_t base = uint64_t{piece.key.block} * kBlockTokens,
                   own = p.memory->Get(piece.key.document).assistant_begin;
    if (own == 0 || own >= base + piece.row_end) {
      cut.push_back(piece);
      continue;
    }
    Piece told = piece;
    told.row_end = static_cast<uint32_t>(std::max(own, base + piece.row_begin) - base);
    if (told.row_begin < told.row_end) cut.push_back(told);
    piece.row_begin = told.row_end;
    piece.assistant_begin = true;
    cut.push_back(piece);
  }
  *pieces = std::move(cut);
}

float Engine::BiasOf(const PlannedSpan& span, const Piece& piece) const {
  return static_cast<float>(profile_->gate * std::log(std::max(1e-6, span.score)) +
                            (piece.assistant_begin ? std::log(kAssistantShare) : 0.0));
}

Status Engine::Fetch(Planned& p, size_t reread, AskReply* reply, std::vector<TokenSpan>* places) {
  // The best span stands last, next to the question (design section 1, measurement 6).
  std::vector<Piece> pieces;
  for (size_t i = p.plan.spans.size(); i-- > reread;) AppendPieces(p.plan.spans[i], i, &pieces);
  LeaveOut(p.distractors, &pieces);
  SplitAssistantText(p, &pieces);
  LH_RETURN_IF_ERROR(Load(p, pieces));

  places->assign(p.plan.spans.size(), TokenSpan{});
  uint32_t index = p.set->size();
  const uint32_t room = p.set->capacity() - index;
  uint32_t used = 0;
  std::vector<const Piece*> kept;
  for (Piece& piece : pieces) {
    const uint32_t rows = piece.row_end - piece.row_begin;
    if (p.Rows(piece) == nullptr) {
      ++reply->blocks_lost;
      continue;
    }
    if (used + rows > room) break;
    piece.index = index + used;
    used += rows;
    TokenSpan& place = (*places)[piece.span];
    if (place.empty()) place.begin = piece.index;
    place.end = piece.index + rows;
    const bool read_again =
        std::any_of(kept.begin(), kept.end(), [&](const Piece* k) { return k->key == piece.key; });
    kept.push_back(&piece);
    if (read_again) continue;  // another of its rows' parts
    ++reply->blocks_read;
    reply->bytes_read += p.blocks.at(piece.key).bytes;
  }
  p.set->Reserve(used);
  const size_t layers = model_->info().geometry.layers.size();
  model_->Parallel(kept.size() * layers, [&](size_t i) {
    const Piece& piece = *kept[i / layers];
    p.set->PlaceRows(*p.Rows(piece), piece.row_begin, piece.row_end, piece.index,
                     static_cast<uint32_t>(i % layers));
  });
  for (const Piece* piece : kept) {
    p.set->CommitRows(piece->row_end - piece->row_begin, BiasOf(p.plan.spans[piece->span], *piece));
  }
  reply->tokens_recalled = used;
  return OkStatus();
}

// How many of the plan's spans, best first, the context holds beside question and answer.
size_t Engine::SpansThatFit(const Planned& p) const {
  uint64_t room = p.set->capacity() - p.prompt.head.size() - p.prompt.tail.size() - p.answer_tokens;
  room -= std::min<uint64_t>(room, p.reencode_tokens);
  uint64_t wanted = 0;
  size_t fitting = 0;
  for (; fitting < p.plan.spans.size(); ++fitting) {
    wanted += p.plan.spans[fitting].tokens.size();
    if (wanted > room) break;
  }
  return fitting;
}

Status Engine::ReserveAnswer(Planned& p) {
  uint64_t generation_spans = uint64_t{profile_->generation_spans} * SpanTokensMax(*profile_);
  for (;;) {
    uint64_t passed =
                 p.prompt.head.size() + p.prompt.tail.size() + p.answer_tokens + generation_spans,
             stored = 0;
    std::vector<Piece> pieces;
    for (size_t i = 0; i < p.plan.spans.size(); ++i) {
      (i < SpansToReencode(p) ? passed : stored) += p.plan.spans[i].tokens.size();
      AppendPieces(p.plan.spans[i], i, &pieces);
    }
    if (!p.plan.spans.empty()) passed += p.reencode_tokens;
    passed = std::min<uint64_t>(passed, p.set->capacity());
    stored = std::min(stored, p.set->capacity() - passed);
    Status reserved =
        p.block_memory.Resize(std::max(p.block_memory.bytes(), pieces.size() * p.BlockBytes()));
    if (reserved.ok()) {
      reserved = p.set_memory.Resize(WorkingSet::Bytes(model_->info().geometry, passed, stored));
    }
    if (reserved.ok() || p.plan.spans.empty()) return reserved;
    if (generation_spans > 0) {  // nothing was lost yet
      generation_spans = 0;
      continue;
    }
    Note("the memory budget has no room for all that was recalled; give more with --memory-budget");
    p.plan.spans.pop_back();
    DropBlocks(p);
  }
}

namespace {

TokenLikelihood LikelihoodOf(TokenId token, std::span<const float> logits, uint32_t likeliest,
                             const std::function<std::string(TokenId)>& piece) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - max);
  const double all = max + std::log(sum);
  TokenLikelihood told{
      .text = piece(token), .log = logits[static_cast<size_t>(token)] - all, .likeliest = {}};
  std::vector<TokenId> best(logits.size());
  std::iota(best.begin(), best.end(), TokenId{0});
  const size_t count = std::min<size_t>({likeliest, kLikeliestMax, best.size()});
  std::partial_sort(best.begin(), best.begin() + static_cast<ptrdiff_t>(count), best.end(),
                    [&](TokenId a, TokenId b) {
                      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
                    });
  for (size_t i = 0; i < count; ++i)
    told.likeliest.emplace_back(piece(best[i]), logits[static_cast<size_t>(best[i])] - all);
  return told;
}

}  // namespace

Result<AskReply> Engine::Ask(const std::string& memory_name, std::string_view question,
                             const AskOptions& options) {
  if (options.attend == Attend::kFaithful) return AskFaithful(memory_name, question, options);
  const Clock::time_point start = Clock::now();
  const auto late = [&] {
    return options.deadline.has_value() && Clock::now() >= *options.deadline;
  };
  const Status too_late =
      DeadlineExceeded("the time that was given was over before the answer began");
  if (late()) return too_late;
  LH_ASSIGN_OR_RETURN(Planned p, PlanFor(memory_name, question, options, /*answers=*/true));
  if (late()) return too_late;
  // When the context does not hold all spans, the worst go; question and answer keep their room.
  p.plan.spans.resize(SpansThatFit(p));
  AskReply reply;
  reply.plan_ms = p.plan_ms;
  reply.scan_ms = p.plan.scan_ms;
  reply.token_gain = p.plan.token_gain;
  reply.abstained = p.abstained;
  if (p.heads_asked) reply.coverage = 0;
  if (p.abstained && !options.answer_alone) return Abstain(p, options, start, std::move(reply));
  if (p.abstained) {
    p.plan.spans.clear();
    DropBlocks(p);
  }
  LH_RETURN_IF_ERROR(ReserveAnswer(p));
  LH_ASSIGN_OR_RETURN(std::vector<RecalledSpan> described, DescribeAll(p, &reply.spans_lost));
  reply.hops = p.hops;
  if (p.heads_asked) reply.coverage = p.plan.Coverage();
  reply.candidates = p.plan.candidates;
  reply.spans = p.plan.spans.size();
  reply.memory_tokens = p.memory->committed_tokens();
  reply.prompt_tokens = p.prompt.head.size() + p.prompt.tail.size();

  const Clock::time_point recall_start = Clock::now();
  const uint32_t head = p.set->size();
  std::vector<TokenSpan> places;  // of each planned span among the working set's keys
  const size_t reread = SpansToReencode(p);
  LH_RETURN_IF_ERROR(ReadSentences(p));
  LH_RETURN_IF_ERROR(Fetch(p, reread, &reply, &places));
  p.blocks.clear();  // what is needed of them is in the set
  LH_CHECK(p.block_memory.Resize(0).ok());
  const Clock::time_point prompt_start = Clock::now();
  reply.recall_ms = p.rerank_ms + Milliseconds(recall_start, prompt_start);

  WorkingSet& set = *p.set;
  uint32_t position = head;
  for (size_t i = reread; i-- > 0;) {
    const PlannedSpan& span = p.plan.spans[i];
    LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                        p.memory->Tokens(span.document, span.tokens));
    if (set.size() + tokens.size() + p.prompt.tail.size() + p.answer_tokens > set.capacity())
      continue;
    places[i] = {set.size(), set.size() + tokens.size()};
    LH_RETURN_IF_ERROR(RunTokens(*model_, set, tokens, position, false));
    position += static_cast<uint32_t>(tokens.size());
    reply.tokens_recalled += tokens.size();
  }
  // Worst first, as everywhere, in one pass; read[i] are the keys of span i's sentences. What says
  // as much of the question as anything comes in the text's order: where a thing changes, the last
  // word on it counts.
  const auto reading_order = [&](const SpanSentence& s) {
    const bool full = s.share >= kFullShare;
    return std::tuple(full, full ? uint64_t{0} : p.plan.spans.size() - s.span,
                      full ? p.plan.spans[s.span].document : DocumentId{}, s.tokens.begin);
  };
  std::stable_sort(p.excerpts.begin(), p.excerpts.end(),
                   [&](const SpanSentence& a, const SpanSentence& b) {
                     return reading_order(a) < reading_order(b);
                   });
  LH_ASSIGN_OR_RETURN(const std::vector<TokenId> line_break, model_->Tokenize("\n", false));
  std::vector<TokenSpan> read(p.plan.spans.size());
  std::vector<TokenId> text_again;
  CopyBias copy_bias(options.answer_prefix);
  for (const SpanSentence& excerpt : p.excerpts) {
    LH_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                        p.memory->Tokens(p.plan.spans[excerpt.span].document, excerpt.tokens));
    const uint64_t wanted = text_again.size() + line_break.size() + tokens.size() +
                            p.prompt.tail.size() + p.answer_tokens;
    if (set.size() + wanted > set.capacity()) continue;
    if (!text_again.empty())
      text_again.insert(text_again.end(), line_break.begin(), line_break.end());
    const uint64_t begin = set.size() + text_again.size();
    std::vector<std::string> pieces;
    for (TokenId id : tokens) pieces.push_back(model_->Piece(id));
    copy_bias.Add(tokens, pieces);
    TokenSpan& keys = read[excerpt.span];
    keys = {keys.empty() ? begin : keys.begin, begin + tokens.size()};
    text_again.insert(text_again.end(), tokens.begin(), tokens.end());
  }
  reply.tokens_reencoded = text_again.size();
  // What the best spans' text was read again for counts as read by the model: their keys are not
  // the memory's.
  uint64_t from_memory = reply.tokens_recalled;
  for (size_t i = 0; i < reread; ++i)
    from_memory -= std::min<uint64_t>(from_memory, places[i].size());
  AskProgress progress{
      .tokens = reply.prompt_tokens + reply.tokens_recalled + reply.tokens_reencoded,
      .from_memory = from_memory,
      .done = p.prompt.head.size() + reply.tokens_recalled,
      .ms = 0};
  const auto tell_progress = [&](uint64_t tokens) {
    progress.done += tokens;
    progress.ms = Milliseconds(start, Clock::now());
    if (options.on_progress) options.on_progress(progress);
  };
  tell_progress(0);
  if (late()) return too_late;
  LH_RETURN_IF_ERROR(RunTokens(*model_, set, text_again, position, false));
  position += static_cast<uint32_t>(text_again.size());
  if (!text_again.empty()) tell_progress(text_again.size());

  if (late()) return too_late;
  uint32_t tail_at = set.size(), tail_position = position;
  set.CountMass();
  LH_RETURN_IF_ERROR(RunTokens(*model_, set, p.prompt.tail, position, true));
  position += static_cast<uint32_t>(p.prompt.tail.size());
  tell_progress(p.prompt.tail.size());
  // What the answer's own words bring back.
  const auto hear = [&](std::span<const TokenId> generated, uint32_t left) -> Result<uint32_t> {
    std::optional<PlannedSpan> heard;
    if (!p.abstained) {
      LH_ASSIGN_OR_RETURN(heard, p.follow->After(generated, p.plan));
    }
    if (heard.has_value()) {
      LH_ASSIGN_OR_RETURN(const TokenSpan place, Refresh(p, *heard, generated, left, &described,
                                                         &tail_at, &tail_position, &reply));
      if (!place.empty()) {
        places.push_back(place);
        read.emplace_back();
      }
    }
    return tail_position + static_cast<uint32_t>(p.prompt.tail.size() + generated.size());
  };
  // Of each span, since the prompt's tail.
  const auto received_now = [&] {
    const std::vector<double> mass = set.Mass();
    std::vector<double> received(places.size(), 0);
    for (size_t i = 0; i < places.size(); ++i) {
      for (uint64_t k = places[i].begin; k < places[i].end; ++k) received[i] += mass[k];
      for (uint64_t k = read[i].begin; k < read[i].end; ++k) received[i] += mass[k];
    }
    return received;
  };
  std::vector<size_t> marked;  // spans, in the order of their first marks
  std::vector<double> before = options.inline_citations ? received_now() : std::vector<double>();
  const auto mark = [&]() -> std::string {
    const std::vector<double> now = received_now();
    before.resize(now.size(), 0);  // a span that was recalled meanwhile
    size_t best = now.size();
    for (size_t i = 0; i < now.size(); ++i) {
      if (now[i] > before[i] &&
          (best == now.size() || now[i] - before[i] > now[best] - before[best]))
        best = i;
    }
    before = now;
    if (best == now.size()) return "";
    const auto known = std::find(marked.begin(), marked.end(), best);
    const auto number = static_cast<size_t>(known - marked.begin()) + 1;
    if (known == marked.end()) marked.push_back(best);
    return " [" + std::to_string(number) + "]";
  };
  LH_RETURN_IF_ERROR(
      Generate(set, options, p.answer_tokens, copy_bias, {start, prompt_start, position},
               {hear, options.inline_citations ? mark : std::function<std::string()>()}, &reply));

  const std::vector<double> received = received_now();
  const double total = std::accumulate(received.begin(), received.end(), 0.0);
  std::vector<size_t> order;
  for (size_t i = 0; i < places.size(); ++i) {
    if (std::find(marked.begin(), marked.end(), i) == marked.end()) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return received[a] > received[b]; });
  order.insert(order.begin(), marked.begin(), marked.end());
  for (size_t i : order) {
    if (places[i].empty() && read[i].empty()) continue;  // nothing of it was before the model
    Citation citation;
    citation.index = static_cast<uint32_t>(reply.citations.size() + 1);
    citation.span = described[i];
    citation.span.score = total > 0 ? received[i] / total : 0;
    reply.citations.push_back(std::move(citation));
  }
  LH_RETURN_IF_ERROR(PlaceCitations(*p.memory, options, &reply));
  return reply;
}

Status Engine::PlaceCitations(Memory& memory, const AskOptions& options, AskReply* reply) {
  if (!options.characters) return OkStatus();
  const std::vector<DocumentRecord>& documents = memory.documents();
  for (size_t d = 0; d < documents.size(); ++d) {
    std::vector<Citation*> own;
    std::vector<uint64_t> bytes;
    for (Citation& c : reply->citations) {
      if (c.span.document_id != documents[d].id) continue;
      c.document_index = static_cast<uint32_t>(d);
      own.push_back(&c);
      bytes.push_back(c.span.bytes.begin);
      bytes.push_back(c.span.bytes.end);
    }
    if (own.empty()) continue;
    std::sort(bytes.begin(), bytes.end());
    const Result<std::vector<uint64_t>> before = memory.CharactersBefore(documents[d].id, bytes);
    if (before.status().code() == StatusCode::kDataLoss) continue;
    if (!before.ok()) return before.status();
    const auto at = [&](uint64_t byte) {
      return (*before)[static_cast<size_t>(std::lower_bound(bytes.begin(), bytes.end(), byte) -
                                           bytes.begin())];
    };
    for (Citation* c : own)
      c->characters = TextSpan{at(c->span.bytes.begin), at(c->span.bytes.end)};
  }
  return OkStatus();
}

Status Engine::Generate(WorkingSet& set, const AskOptions& options, uint32_t answer_tokens,
                        const CopyBias& copy_bias, const Begun& begun, const AnswerHooks& hooks,
                        AskReply* reply) {
  uint32_t position = begun.position;
  const auto sampler = model_->NewSampler(options.sampler);
  std::string text;
  std::vector<float> guided;
  const auto sample = [&] {
    const std::span<const float> logits = model_->logits();
    return sampler->Sample(copy_bias.Guide(text, logits, &guided) ? guided : logits);
  };
  // What the last logits say of a token.
  const auto tell = [&](TokenId chosen) {
    if (!options.likeliest.has_value()) return;
    reply->likelihoods.push_back(LikelihoodOf(chosen, model_->logits(), *options.likeliest,
                                              [&](TokenId id) { return model_->Piece(id); }));
  };
  TokenId token = sample();
  const Clock::time_point first = Clock::now();
  reply->prompt_ms = Milliseconds(begun.prompt, first);
  reply->first_token_ms = Milliseconds(begun.question, first);

  std::string said;  // the text, with marks where they are wanted
  size_t shown = 0, cited_at = 0;
  const auto show = [&](size_t end) {
    if (options.on_text && end > shown)
      options.on_text(std::string_view(said).substr(shown, end - shown));
    shown = std::max(shown, end);
  };
  const bool plain = !model_->info().chat;
  std::vector<TokenId> generated;
  uint32_t count = 0;
  for (;; ++count) {
    if (model_->EndsAnswer(token) || (options.stop != nullptr && options.stop->load())) break;
    const bool late = options.deadline.has_value() && Clock::now() >= *options.deadline;
    if (count >= answer_tokens || set.size() >= set.capacity() || late) {
      reply->cut = true;
      break;
    }
    for (const char c : model_->Piece(token)) {
      if (hooks.mark && IsSpace(c) && said.size() >= cited_at + kSentenceBytesMin &&
          (c == '\n' || EndsSentence(text))) {
        said += hooks.mark();
        cited_at = said.size();
      }
      text += c;
      said += c;
    }
    tell(token);
    // A model without a chat template goes on with questions of its own: its answer is the first
    // line. npos while there is none, and then there is no newline after it
    const size_t first_word = text.find_first_not_of(" \n");
    const size_t newline = plain ? text.find('\n', first_word) : std::string::npos;
    if (newline != std::string::npos) {
      said.resize(said.size() - (text.size() - newline));
      text.resize(newline);
    }
    show(WholeCharacters(said));
    if (newline != std::string::npos) {
      ++count;
      break;
    }
    LH_RETURN_IF_ERROR(RunTokens(*model_, set, std::span(&token, 1), position++, true));
    generated.push_back(token);
    if (hooks.hear) {
      LH_ASSIGN_OR_RETURN(position, hooks.hear(generated, answer_tokens - count));
    }
    token = sample();
  }
  reply->completion_tokens = count;
  reply->decode_ms = Milliseconds(first, Clock::now());
  // The first token came with the prompt.
  reply->decode_tok_s = count > 1 ? 1000.0 * count / reply->decode_ms : 0;
  reply->answer = Trim(text);
  if (!hooks.mark) return OkStatus();
  if (said.size() > cited_at && !reply->answer.empty()) {
    const std::string last = hooks.mark();
    // Behind the last word, also where blanks follow it; those are shown already.
    if (options.on_text && !last.empty()) options.on_text(last);
    said = Trim(said) + last;
  }
  reply->cited_answer = Trim(said);
  return OkStatus();
}

Result<TokenSpan> Engine::Refresh(Planned& p, const PlannedSpan& span,
                                  std::span<const TokenId> generated, uint32_t answer_tokens,
                                  std::vector<RecalledSpan>* described, uint32_t* tail_at,
                                  uint32_t* position, AskReply* reply) {
  WorkingSet& set = *p.set;
  const auto rows = static_cast<uint32_t>(span.tokens.size());
  const uint64_t wanted = uint64_t{set.size()} + rows + answer_tokens;
  if (wanted > set.capacity() || set.BytesWith(wanted - set.size()) > p.set_memory.bytes())
    return TokenSpan{};
  Result<RecalledSpan> description = Describe(*p.memory, span);
  if (!description.ok() && description.status().code() == StatusCode::kDataLoss) {
    ++reply->spans_lost;
    return TokenSpan{};
  }
  if (!description.ok()) return description.status();
  std::vector<Piece> pieces;
  std::vector<TokenId> text;
  if (model_->info().native_window > 0) {
    // Read again, as all that the native layers are to see (docs/decisions/0004).
    LH_ASSIGN_OR_RETURN(text, p.memory->Tokens(span.document, span.tokens));
  } else {
    AppendPieces(span, 0, &pieces);
    SplitAssistantText(p, &pieces);
    if (Load(p, pieces).code() == StatusCode::kResourceExhausted) return TokenSpan{};
    for (const Piece& piece : pieces) {
      if (p.Rows(piece) != nullptr) continue;
      ++reply->blocks_lost;
      return TokenSpan{};
    }
  }
  const uint32_t begin = *tail_at;
  set.Truncate(*tail_at);
  model_->NativeForget(*position, UINT32_MAX);
  for (const Piece& piece : pieces) {
    set.AppendBlock(*p.Rows(piece), piece.row_begin, piece.row_end, BiasOf(span, piece));
    // another of its rows' parts
    if (&piece != &pieces.front() && std::prev(&piece)->key == piece.key) continue;
    ++reply->blocks_read;
    reply->bytes_read += p.blocks.at(piece.key).bytes;
  }
  LH_RETURN_IF_ERROR(RunTokens(*model_, set, text, *position, false));
  *position += static_cast<uint32_t>(text.size());
  *tail_at = set.size();
  // Attention is counted anew: the tokens that gave it run again.
  set.CountMass();
  LH_RETURN_IF_ERROR(RunTokens(*model_, set, p.prompt.tail, *position, generated.empty()));
  LH_RETURN_IF_ERROR(RunTokens(*model_, set, generated,
                               *position + static_cast<uint32_t>(p.prompt.tail.size()), true));
  p.plan.spans.push_back(span);
  described->push_back(std::move(*description));
  reply->tokens_recalled += rows;
  ++reply->generation_spans;
  ++reply->spans;
  return TokenSpan{begin, *tail_at};
}

Result<AskReply> Engine::Abstain(Planned& p, const AskOptions& options, Clock::time_point start,
                                 AskReply reply) {
  p.plan.spans.resize(std::min<size_t>(p.plan.spans.size(), 1));
  LH_ASSIGN_OR_RETURN(reply.closest, DescribeAll(p, &reply.spans_lost));
  reply.abstained = true;
  reply.answer = kAbstention;
  if (options.on_text) options.on_text(kAbstention);
  reply.candidates = p.plan.candidates;
  reply.memory_tokens = p.memory->committed_tokens();
  reply.prompt_tokens = p.prompt.head.size() + p.prompt.tail.size();
  reply.recall_ms = p.rerank_ms;
  reply.first_token_ms = Milliseconds(start, Clock::now());
  return reply;
}
}  // namespace longhold
