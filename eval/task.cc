#include "eval/task.h"

#include <algorithm>
#include <cmath>

#include "eval/rng.h"
#include "eval/words.h"

namespace longhold {
namespace {

constexpr double kFitShare = 0.98;   // minimum length of a text, as a share of the request
constexpr double kAimShare = 0.991;  // target length: near the middle of the allowed range
constexpr int kFitTries = 40;
// Upper bounds in tokens. A needle sentence of RULER has about 25 tokens of SmolLM2 with a number,
// and 60 with two UUIDs.
constexpr uint32_t kNeedle = 32, kUuidNeedle = 70;

const std::string_view kNoise =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";
constexpr uint64_t kNoiseSentences = 5;

using Builder = Result<EvalText> (*)(const TextRequest&, const TokenCounter&);

Builder BuilderOf(std::string_view task) {
  if (task.starts_with("niah_")) return BuildNiah;
  if (task.starts_with("babilong_")) return BuildBabi;
  if (task == "vt") return BuildVariables;
  if (task == "cwe") return BuildCommonWords;
  if (task == "fwe") return BuildFrequentWords;
  if (task == "passkey") return BuildPasskey;
  if (task == "kv_retrieval") return BuildKeyValues;
  if (task == "paraphrase") return BuildParaphrase;
  if (task == "questions") return BuildFileQuestions;
  return nullptr;
}

}  // namespace

const std::vector<TaskInfo>& EvalTasks() {
  static const std::vector<TaskInfo> tasks = {
      {"niah_single_1", "RULER: a number in repeated noise", false, 1000, kNeedle},
      {"niah_single_2", "RULER: a number in prose", true, 1000, kNeedle},
      {"niah_single_3", "RULER: a UUID in prose", true, 1000, kUuidNeedle},
      {"niah_multikey_1", "RULER: a number in prose, with three needles of other keys", true, 1000,
       4 * kNeedle},
      {"niah_multikey_2", "RULER: a number in a text of needles only", false, 1000, kNeedle},
      {"niah_multikey_3", "RULER: the same with UUIDs as keys and values", false, 1000,
       kUuidNeedle},
      {"niah_multivalue", "RULER: four numbers of one key in prose", true, 1000, 4 * kNeedle},
      {"niah_multiquery", "RULER: the numbers of four keys in prose", true, 1000, 4 * kNeedle},
      {"vt", "RULER: variable tracking, five variables of a chain in noise", false, 200, 70},
      {"cwe", "RULER: the ten most common words in a list", false, 1, 0},
      {"fwe", "RULER: the three most frequent words in a coded text", false, 1, 0},
      {"passkey", "a pass key in repeated noise (Mohtashami and Jaggi 2023)", false, 1, 0},
      {"kv_retrieval", "the value of a UUID in a JSON object (InfiniteBench)", false, 1000, 60},
      {"babilong_qa1", "the place of a person, facts in a book (after BABILong)", true, 50, 40},
      {"babilong_qa2", "the place of a carried object (after BABILong)", true, 24, 40},
      {"paraphrase", "a fact without words of the question (after NoLiMa)", true, 24, 24},
  };
  return tasks;
}

const TaskInfo* FindTask(std::string_view name) {
  static const TaskInfo questions = {"questions", "a file of questions on a text", true, 1000000,
                                     0};
  if (name == questions.name) return &questions;
  for (const TaskInfo& task : EvalTasks()) {
    if (task.name == name) return &task;
  }
  return nullptr;
}

Result<std::vector<std::string>> ExpandTasks(const std::vector<std::string>& names) {
  std::vector<std::string> tasks;
  const auto add = [&](std::string_view name) {
    if (std::find(tasks.begin(), tasks.end(), name) == tasks.end()) tasks.emplace_back(name);
  };
  for (const std::string& name : names) {
    const bool ruler = name == "ruler";
    if (ruler || name == "all") {
      for (const TaskInfo& task : EvalTasks()) {
        if (!ruler || task.about.starts_with("RULER")) add(task.name);
      }
    } else if (FindTask(name) != nullptr) {
      add(name);
    } else {
      std::string known;
      for (const TaskInfo& task : EvalTasks()) known += std::string(task.name) + ", ";
      return InvalidArgument("task " + name + ": unknown; choose from " + known +
                             "ruler, all, or use --questions FILE");
    }
  }
  return tasks;
}

uint32_t QuestionsPerText(const TaskInfo& task, uint64_t length) {
  if (task.questions_max <= 1) return 1;
  if (task.question_tokens == 0) return task.questions_max;
  return static_cast<uint32_t>(
      std::clamp<uint64_t>(length / 2 / task.question_tokens, 1, task.questions_max));
}

Result<EvalText> BuildText(const TextRequest& request, const TokenCounter& count) {
  const Builder build = BuilderOf(request.task);
  LH_CHECK(build != nullptr && request.question_count >= 1 && request.depths >= 1);
  LH_CHECK(!FindTask(request.task)->needs_haystack || request.haystack != nullptr);
  LH_ASSIGN_OR_RETURN(EvalText text, build(request, count));
  for (EvalQuestion& question : text.questions) {
    if (!question.evidence.empty() && !text.text.empty()) {
      question.depth =
          static_cast<double>(question.evidence[0].begin) / static_cast<double>(text.text.size());
    }
  }
  return text;
}

void Weave(const std::vector<std::string_view>& pieces, std::string_view separator,
           std::vector<Hidden>* hidden, std::string* text) {
  std::vector<uint64_t> starts;  // [pieces + 1] bytes before each piece; the last is the end
  uint64_t at = 0;
  for (const std::string_view piece : pieces) {
    starts.push_back(at);
    at += piece.size() + separator.size();
  }
  starts.push_back(at);
  struct Place {
    size_t piece;
    Hidden* hidden;
  };
  std::vector<Place> places;
  for (Hidden& h : *hidden) {
    const double target = h.depth * static_cast<double>(at);
    size_t i = static_cast<size_t>(
        std::lower_bound(starts.begin(), starts.end(), static_cast<uint64_t>(target)) -
        starts.begin());
    i = std::min(i, starts.size() - 1);
    if (i > 0 &&
        target - static_cast<double>(starts[i - 1]) < static_cast<double>(starts[i]) - target)
      --i;
    places.push_back({i, &h});
  }
  std::stable_sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return a.piece != b.piece ? a.piece < b.piece : a.hidden->depth < b.hidden->depth;
  });
  bool first = true;
  const auto append = [&](std::string_view piece) {
    if (!first) *text += separator;
    first = false;
    *text += piece;
  };
  size_t next = 0;
  for (size_t i = 0; i <= pieces.size(); ++i) {
    for (; next < places.size() && places[next].piece == i; ++next) {
      Hidden& h = *places[next].hidden;
      append(h.text);
      h.bytes = {text->size() - h.text.size(), text->size()};
    }
    if (i < pieces.size()) append(pieces[i]);
  }
}

double QuestionDepth(const TextRequest& request, uint32_t index, uint32_t* cell) {
  const uint32_t global = request.question_first + index;
  const uint32_t rounds = (request.question_total + request.depths - 1) / request.depths;
  *cell = global % request.depths;
  const uint32_t round = std::min(global / request.depths, rounds - 1);
  return (*cell + (round + 0.5) / rounds) / request.depths;
}

Result<EvalText> FitLength(const TextRequest& request, const TokenCounter& count,
                           uint64_t units_max, double unit_bytes,
                           const std::function<TextDraft(uint64_t units)>& draft) {
  const double aim = kAimShare * static_cast<double>(request.length);
  EvalText best;
  bool found = false;
  uint64_t low = 0, high = units_max + 1;   // `low` fits or was not tried, `high` does not fit
  double last_units = 0, last_tokens = -1;  // of the previous try
  // The first try assumes about four bytes per token.
  uint64_t units =
      std::clamp<uint64_t>(static_cast<uint64_t>(3.8 * aim / unit_bytes), 0, units_max);
  for (int t = 0; t < kFitTries; ++t) {
    TextDraft made = draft(units);
    LH_ASSIGN_OR_RETURN(const uint64_t tokens, count(made.text));
    if (tokens <= request.length) {
      best = {std::move(made.text), tokens, std::move(made.questions)};
      found = true;
      low = units;
      if (static_cast<double>(tokens) >= kFitShare * static_cast<double>(request.length)) break;
    } else {
      high = units;
    }
    if (high - low <= 1) {
      if (found || low == 0) break;
    }
    // The secant method; from the ninth try on bisection, which always converges.
    const double n = static_cast<double>(units), k = static_cast<double>(tokens);
    const bool line = last_tokens >= 0 && std::abs(n - last_units) >= 1 &&
                      (k - last_tokens) / (n - last_units) > 0;
    const double slope = line ? (k - last_tokens) / (n - last_units) : k / std::max(1.0, n);
    double next = t < 8 ? n + (aim - k) / std::max(slope, 1e-9)
                        : (static_cast<double>(low) + static_cast<double>(high)) / 2;
    next = std::clamp(next, 0.0, static_cast<double>(units_max));
    last_units = n;
    last_tokens = k;
    units =
        std::clamp<uint64_t>(static_cast<uint64_t>(next), std::min(low + 1, high - 1), high - 1);
    if (high == 0) break;
  }
  if (!found) {
    return InvalidArgument("task " + request.task + ": " + std::to_string(request.length) +
                           " tokens are too short for " + std::to_string(request.question_count) +
                           (request.question_count == 1 ? " question" : " questions") +
                           "; give a larger length");
  }
  return best;
}

std::vector<std::string_view> Prose(const TextRequest& request, uint64_t bytes) {
  const std::vector<std::string_view>& sentences = request.haystack->sentences;
  std::vector<std::string_view> out;
  if (sentences.empty()) return out;
  EvalRng rng(request.seed, request.task + " prose " + std::to_string(request.text_index));
  // The first text starts at the begin of the haystack, as in RULER.
  size_t i = request.text_index == 0 ? 0 : rng.Below(sentences.size());
  for (uint64_t used = 0; used < bytes; ++i) {
    std::string_view sentence = sentences[i % sentences.size()];
    if (used + sentence.size() > bytes) {
      // Cut at the end of a word. If not even the first word fits, drop the sentence.
      const size_t space = sentence.rfind(' ', bytes - used);
      if (space == std::string_view::npos || space == 0) break;
      sentence = sentence.substr(0, space);
      used = bytes;
    }
    out.push_back(sentence);
    used += sentence.size() + 1;
  }
  return out;
}

std::vector<std::string_view> Noise(uint64_t sentences) {
  std::vector<std::string_view> lines(sentences / kNoiseSentences, kNoise);
  size_t end = 0;
  for (uint64_t i = 0; i < sentences % kNoiseSentences; ++i) end = kNoise.find('.', end) + 1;
  if (end > 0) lines.push_back(kNoise.substr(0, end));
  return lines;
}

std::string RandomUuid(EvalRng* rng) {
  uint64_t high = rng->Next(), low = rng->Next();
  high = (high & ~0xF000ull) | 0x4000ull;      // version 4
  low = (low & ~(3ull << 62)) | (2ull << 62);  // variant 1
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (int i = 0; i < 32; ++i) {
    if (i == 8 || i == 12 || i == 16 || i == 20) out += '-';
    out += kDigits[((i < 16 ? high : low) >> (60 - 4 * (i % 16))) & 15];
  }
  return out;
}

std::string RandomNumber(EvalRng* rng, uint32_t digits) {
  uint64_t least = 1;
  for (uint32_t i = 1; i < digits; ++i) least *= 10;
  return std::to_string(least + rng->Below(9 * least));
}

std::string RandomKey(EvalRng* rng) {
  const std::string_view adjective = rng->Pick(EvalAdjectives());
  return std::string(adjective) + "-" + std::string(rng->Pick(EvalNouns()));
}

}  // namespace longhold
