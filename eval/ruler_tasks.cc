// RULER's tasks (Hsieh et al. 2024, "RULER: What's the Real Context Size of Your Long-Context
// Language Models?", arXiv 2404.06654; repository NVIDIA/RULER, scripts/data/synthetic). Wording,
// counts and needle forms follow its templates; docs/evaluation.md lists the differences. The part
// of a template up to the end of the context is our text, the rest is the question.

#include <algorithm>
#include <set>

#include "eval/rng.h"
#include "eval/task.h"
#include "eval/words.h"

namespace longhold {
namespace {

// ------------------------------------------------------------------------------------------------
// needles in a haystack

enum class NiahHaystack : uint8_t { kNoise, kProse, kNeedles };
enum class NiahType : uint8_t { kNumbers, kWords, kUuids };

// The settings of a task in RULER's synthetic.yaml.
struct NiahSpec {
  std::string_view task;
  NiahHaystack haystack;
  NiahType keys, values;
  // num_needle_k: keys per question; those that are not asked for are distractors.
  uint32_t keys_in_text;
  uint32_t values_per_key;  // num_needle_v
  uint32_t keys_asked;      // num_needle_q
};

constexpr NiahSpec kNiah[] = {
    {"niah_single_1", NiahHaystack::kNoise, NiahType::kWords, NiahType::kNumbers, 1, 1, 1},
    {"niah_single_2", NiahHaystack::kProse, NiahType::kWords, NiahType::kNumbers, 1, 1, 1},
    {"niah_single_3", NiahHaystack::kProse, NiahType::kWords, NiahType::kUuids, 1, 1, 1},
    {"niah_multikey_1", NiahHaystack::kProse, NiahType::kWords, NiahType::kNumbers, 4, 1, 1},
    {"niah_multikey_2", NiahHaystack::kNeedles, NiahType::kWords, NiahType::kNumbers, 1, 1, 1},
    {"niah_multikey_3", NiahHaystack::kNeedles, NiahType::kUuids, NiahType::kUuids, 1, 1, 1},
    {"niah_multivalue", NiahHaystack::kProse, NiahType::kWords, NiahType::kNumbers, 1, 4, 1},
    {"niah_multiquery", NiahHaystack::kProse, NiahType::kWords, NiahType::kNumbers, 4, 1, 4},
};

std::string Draw(NiahType type, EvalRng* rng) {
  switch (type) {
    case NiahType::kNumbers: return RandomNumber(rng, 7);
    case NiahType::kWords: return RandomKey(rng);
    case NiahType::kUuids: break;
  }
  return RandomUuid(rng);
}

std::string NeedleText(const std::string& type, const std::string& key, const std::string& value) {
  return "One of the special magic " + type + " for " + key + " is: " + value + ".";
}

// One question with all its needles. needles[0, evidence) answer it, the others are distractors.
struct NiahQuestion {
  std::vector<std::string> asked;  // the keys that it asks for
  std::vector<std::string> answers;
  std::vector<Hidden> needles;
  size_t evidence = 0;
  uint32_t cell = 0;
};

// Draws a question and its needles. All keys of a text are distinct.
NiahQuestion DrawQuestion(const NiahSpec& spec, const TextRequest& request, uint32_t index,
                          const std::string& type, std::set<std::string>* keys, EvalRng* rng) {
  NiahQuestion question;
  const double depth = QuestionDepth(request, index, &question.cell);
  for (uint32_t k = 0; k < spec.keys_in_text; ++k) {
    std::string key = Draw(spec.keys, rng);
    while (!keys->insert(key).second) key = Draw(spec.keys, rng);
    const bool asked = k < spec.keys_asked;
    if (asked) question.asked.push_back(key);
    for (uint32_t v = 0; v < spec.values_per_key; ++v) {
      const std::string value = Draw(spec.values, rng);
      if (asked) question.answers.push_back(value);
      // The first needle is at the depth of the grid, the others at random depths.
      question.needles.push_back(
          {NeedleText(type, key, value), question.needles.empty() ? depth : rng->Unit(), {}});
      if (asked) question.evidence = question.needles.size();
    }
  }
  return question;
}

// "a", or "a, b, c, and d".
std::string JoinKeys(const std::vector<std::string>& keys) {
  std::string out;
  for (size_t i = 0; i < keys.size(); ++i)
    out += (i == 0 ? "" : i + 1 < keys.size() ? ", " : ", and ") + keys[i];
  return out;
}

}  // namespace

Result<EvalText> BuildNiah(const TextRequest& request, const TokenCounter& count) {
  const NiahSpec& spec = *std::find_if(std::begin(kNiah), std::end(kNiah),
                                       [&](const NiahSpec& s) { return s.task == request.task; });
  const std::string types = spec.values == NiahType::kUuids ? "uuids" : "numbers";
  // As in RULER, the template is in the singular if there is one value to find.
  const bool one = spec.keys_asked * spec.values_per_key == 1;
  const std::string type = one ? types.substr(0, types.size() - 1) : types;
  EvalRng rng(request.seed, request.task + " needles " + std::to_string(request.text_index));
  std::set<std::string> keys;
  std::vector<NiahQuestion> drawn;
  for (uint32_t i = 0; i < request.question_count; ++i)
    drawn.push_back(DrawQuestion(spec, request, i, types, &keys, &rng));

  const std::string intro =
      (one ? "A special magic " : "Some special magic ") + type + (one ? " is" : " are") +
      " hidden within the following text. Make sure to memorize it. I will quiz you about the " +
      type + " afterwards.\n";
  const auto draft = [&](uint64_t units) {
    std::vector<Hidden> hidden;
    for (const NiahQuestion& q : drawn)
      hidden.insert(hidden.end(), q.needles.begin(), q.needles.end());
    std::vector<std::string> lines;
    std::vector<std::string_view> pieces;
    if (spec.haystack == NiahHaystack::kProse) {
      pieces = Prose(request, units);
    } else if (spec.haystack == NiahHaystack::kNoise) {
      pieces = Noise(units);
    } else {
      EvalRng noise(request.seed,
                    request.task + " distractors " + std::to_string(request.text_index));
      for (uint64_t i = 0; i < units; ++i) {
        std::string key = Draw(spec.keys, &noise);
        while (keys.count(key) > 0) key = Draw(spec.keys, &noise);
        lines.push_back(NeedleText(types, key, Draw(spec.values, &noise)));
      }
      pieces.assign(lines.begin(), lines.end());
    }
    TextDraft made{.text = intro, .questions = {}};
    Weave(pieces, spec.haystack == NiahHaystack::kProse ? " " : "\n", &hidden, &made.text);
    made.text += "\n";
    size_t at = 0;
    for (const NiahQuestion& q : drawn) {
      const std::string query = JoinKeys(q.asked);
      EvalQuestion question;
      question.question = (one ? "What is the special magic " : "What are all the special magic ") +
                          type + " for " + query + " mentioned in the provided text?";
      question.answer_prefix = " The special magic " + type + " for " + query +
                               " mentioned in the provided text " + (one ? "is" : "are");
      question.answers = q.answers;
      for (size_t n = 0; n < q.evidence; ++n) question.evidence.push_back(hidden[at + n].bytes);
      question.depth_cell = q.cell;
      question.max_tokens = 128;
      made.questions.push_back(std::move(question));
      at += q.needles.size();
    }
    return made;
  };
  const double unit_bytes = spec.haystack == NiahHaystack::kProse   ? 1
                            : spec.haystack == NiahHaystack::kNoise ? 18
                                                                    : 75;
  return FitLength(request, count, 1ull << 32, unit_bytes, draft);
}

// ------------------------------------------------------------------------------------------------
// variable tracking

namespace {

constexpr uint32_t kHops = 4;

// The statements of one chain: VAR A = 12345, VAR B = VAR A, ... As in RULER, a copied name is
// followed by a space.
struct Chain {
  std::vector<std::string> names, statements;
  std::string value;
};

Chain DrawChain(uint32_t letters, std::set<std::string>* taken, EvalRng* rng) {
  Chain chain;
  do {
    chain.value = std::to_string(10000 + rng->Below(89999));
  } while (!taken->insert(chain.value).second);
  for (uint32_t i = 0; i <= kHops; ++i) {
    std::string name;
    do {
      name.clear();
      for (uint32_t k = 0; k < letters; ++k) name += static_cast<char>('A' + rng->Below(26));
    } while (!taken->insert(name).second);
    chain.statements.push_back(i == 0 ? "VAR " + name + " = " + chain.value
                                      : "VAR " + name + " = VAR " + chain.names.back() + " ");
    chain.names.push_back(name);
  }
  return chain;
}

constexpr char kTrackIntro[] =
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n";

std::string TrackQuestion(const std::string& value) {
  return "Question: Find all variables that are assigned the value " + value +
         " in the text above.";
}
// The misspelling "assgined" is RULER's.
std::string TrackPrefix(const std::string& value) {
  return " Answer: According to the chain(s) of variable assignment in the text above, " +
         std::to_string(kHops + 1) + " variables are assgined the value " + value + ", they are: ";
}

// The solved example that RULER puts before the text: three-letter names in some noise.
std::string TrackExample(std::set<std::string>* taken, EvalRng* rng) {
  const Chain chain = DrawChain(3, taken, rng);
  std::vector<Hidden> hidden;
  for (size_t i = 0; i < chain.statements.size(); ++i) {
    hidden.push_back({chain.statements[i],
                      (static_cast<double>(i) + 0.5) / static_cast<double>(chain.statements.size()),
                      {}});
  }
  std::string text = kTrackIntro;
  Weave(Noise(50), "\n", &hidden, &text);
  text += "\n" + TrackQuestion(chain.value) + TrackPrefix(chain.value);
  for (size_t i = 0; i < chain.names.size(); ++i) text += (i > 0 ? " " : "") + chain.names[i];
  return text + "\n\n";
}

}  // namespace

Result<EvalText> BuildVariables(const TextRequest& request, const TokenCounter& count) {
  EvalRng rng(request.seed, "vt chains " + std::to_string(request.text_index));
  std::set<std::string> taken;
  const std::string example = TrackExample(&taken, &rng);
  std::vector<Chain> chains;
  std::vector<std::vector<double>> depths;
  std::vector<uint32_t> cells(request.question_count);
  for (uint32_t i = 0; i < request.question_count; ++i) {
    chains.push_back(DrawChain(5, &taken, &rng));
    // The first statement is at the depth of the grid, the others follow in order at random depths.
    std::vector<double> d = {QuestionDepth(request, i, &cells[i])};
    for (uint32_t hop = 0; hop < kHops; ++hop) d.push_back(d[0] + (1 - d[0]) * rng.Unit());
    std::sort(d.begin(), d.end());
    depths.push_back(std::move(d));
  }
  return FitLength(request, count, 1ull << 32, 18, [&](uint64_t units) {
    std::vector<Hidden> hidden;
    for (size_t i = 0; i < chains.size(); ++i) {
      for (size_t k = 0; k < chains[i].statements.size(); ++k)
        hidden.push_back({chains[i].statements[k], depths[i][k], {}});
    }
    TextDraft made{.text = example + kTrackIntro, .questions = {}};
    Weave(Noise(units), "\n", &hidden, &made.text);
    made.text += "\n";
    for (size_t i = 0; i < chains.size(); ++i) {
      EvalQuestion question;
      question.question = TrackQuestion(chains[i].value);
      question.answer_prefix = TrackPrefix(chains[i].value);
      question.answers = chains[i].names;
      for (size_t k = 0; k <= kHops; ++k)
        question.evidence.push_back(hidden[i * (kHops + 1) + k].bytes);
      question.depth_cell = cells[i];
      question.max_tokens = 30;
      made.questions.push_back(std::move(question));
    }
    return made;
  });
}

// ------------------------------------------------------------------------------------------------
// common words

namespace {

constexpr uint32_t kCommonWords = 10;
constexpr char kCommonIntro[] =
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most "
    "often.\n";
constexpr char kCommonQuestion[] = "Question: What are the 10 most common words in the above list?";
constexpr char kCommonPrefix[] =
    " Answer: The top 10 words that appear most often in the list are:";

std::string Numbered(const std::vector<std::string>& words) {
  std::string out;
  for (size_t i = 0; i < words.size(); ++i)
    out += (i > 0 ? " " : "") + std::to_string(i + 1) + ". " + words[i];
  return out;
}

// Word number `index` of the shuffled pool. After the single words of our lists come pairs of
// words, because a million tokens need about 80 thousand words.
std::string PoolWord(const std::vector<std::string_view>& pool, uint64_t index) {
  if (index < pool.size()) return std::string(pool[index]);
  const uint64_t pair = index - pool.size();
  const uint64_t first = pair / (pool.size() - 1), second = pair % (pool.size() - 1);
  return std::string(pool[first % pool.size()]) + "-" +
         std::string(pool[second + (second >= first % pool.size())]);
}

// A shuffled list of the ten common words and `uncommon` other words, each repeated as given.
std::string CommonList(const std::vector<std::string_view>& pool, uint64_t from, uint64_t uncommon,
                       uint32_t common_repeats, uint32_t uncommon_repeats, EvalRng rng,
                       std::vector<std::string>* common) {
  std::vector<std::string> words;
  for (uint32_t i = 0; i < kCommonWords; ++i) {
    common->push_back(PoolWord(pool, from + i));
    words.insert(words.end(), common_repeats, common->back());
  }
  for (uint64_t i = 0; i < uncommon; ++i)
    words.insert(words.end(), uncommon_repeats, PoolWord(pool, from + kCommonWords + i));
  rng.Shuffle(&words);
  return Numbered(words);
}

}  // namespace

Result<EvalText> BuildCommonWords(const TextRequest& request, const TokenCounter& count) {
  const std::string stream = "cwe " + std::to_string(request.text_index);
  EvalRng rng(request.seed, stream + " pool");
  std::vector<std::string_view> pool(EvalNouns());
  pool.insert(pool.end(), EvalAdjectives().begin(), EvalAdjectives().end());
  pool.insert(pool.end(), EvalVerbs().begin(), EvalVerbs().end());
  rng.Shuffle(&pool);
  // Repeats of common and uncommon words as in RULER: 30 and 3, or 6 and 1 below 4,096 tokens. In
  // the solved example: 10 and 3 with 40 words, or 3 and 1 with 20.
  const bool small = request.length < 4096;
  const uint64_t example_words = small ? 20 : 40;
  std::vector<std::string> example_common;
  const std::string example =
      kCommonIntro +
      CommonList(pool, 0, example_words - kCommonWords, small ? 3 : 10, small ? 1 : 3,
                 EvalRng(request.seed, stream + " example"), &example_common) +
      "\n" + kCommonQuestion + kCommonPrefix + " " + Numbered(example_common) + "\n";
  return FitLength(request, count, 1ull << 32, small ? 11 : 36, [&](uint64_t units) {
    std::vector<std::string> common;
    TextDraft made{.text = example + kCommonIntro, .questions = {}};
    made.text += CommonList(pool, example_words, units, small ? 6 : 30, small ? 1 : 3,
                            EvalRng(request.seed, stream + " list"), &common);
    made.text += "\n";
    EvalQuestion question;
    question.question = kCommonQuestion;
    question.answer_prefix = kCommonPrefix;
    question.answers = common;
    question.max_tokens = 120;
    made.questions.push_back(std::move(question));
    return made;
  });
}

// ------------------------------------------------------------------------------------------------
// frequent words

namespace {
constexpr double kZeta = 1.6449340668482264;  // zeta(2): RULER's alpha is 2
}  // namespace

Result<EvalText> BuildFrequentWords(const TextRequest& request, const TokenCounter& count) {
  const std::string stream = "fwe " + std::to_string(request.text_index);
  EvalRng rng(request.seed, stream + " vocabulary");
  std::vector<std::string> vocabulary = {"..."};  // the most frequent word is noise
  std::set<std::string> taken;
  const uint64_t size = std::max<uint64_t>(8, request.length / 50);
  while (vocabulary.size() < size) {
    std::string word;
    for (int i = 0; i < 6; ++i) word += static_cast<char>('a' + rng.Below(26));
    if (taken.insert(word).second) vocabulary.push_back(word);
  }
  return FitLength(request, count, 1ull << 32, 5, [&](uint64_t units) {
    std::vector<std::string_view> words;
    for (size_t k = 1; k <= vocabulary.size(); ++k) {
      // Not std::pow, so that the result is the same on every machine.
      const double share = 1 / (static_cast<double>(k) * static_cast<double>(k)) / kZeta;
      words.insert(words.end(), static_cast<size_t>(static_cast<double>(units) * share),
                   vocabulary[k - 1]);
    }
    EvalRng order(request.seed, stream + " order");
    order.Shuffle(&words);
    TextDraft made{.text =
                       "Read the following coded text and track the frequency of each coded word. "
                       "Find the three most frequently "
                       "appeared coded words. ",
                   .questions = {}};
    for (size_t i = 0; i < words.size(); ++i) {
      if (i > 0) made.text += " ";
      made.text += words[i];
    }
    made.text += "\n";
    EvalQuestion question;
    question.question =
        "Question: Do not provide any explanation. Please ignore the dots '....'. What are the "
        "three most frequently appeared words "
        "in the above coded text?";
    question.answer_prefix =
        " Answer: According to the coded text above, the three most frequently appeared words are:";
    question.answers.assign(vocabulary.begin() + 1, vocabulary.begin() + 4);
    question.max_tokens = 50;
    made.questions.push_back(std::move(question));
    return made;
  });
}

}  // namespace longhold
