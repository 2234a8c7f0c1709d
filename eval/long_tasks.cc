// The tasks that are not RULER's. Each names the source of its form. Sentences are our own unless
// stated otherwise.

#include <algorithm>
#include <numeric>

#include "eval/rng.h"
#include "eval/task.h"
#include "eval/words.h"

namespace longhold {
namespace {

EvalRng Stream(const TextRequest& request, const char* purpose) {
  return EvalRng(request.seed,
                 request.task + " " + purpose + " " + std::to_string(request.text_index));
}

std::string Replace(std::string text, std::string_view what, std::string_view by) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size()))
    text.replace(at, what.size(), by);
  return text;
}

// A question about facts hidden in prose. `evidence` holds indices into `hidden`.
struct ProseQuestion {
  EvalQuestion question;
  std::vector<size_t> evidence;
};

Result<EvalText> BuildInProse(const TextRequest& request, const TokenCounter& count,
                              const std::vector<Hidden>& hidden,
                              const std::vector<ProseQuestion>& questions) {
  return FitLength(request, count, 1ull << 32, 1, [&](uint64_t units) {
    std::vector<Hidden> placed = hidden;
    TextDraft made;
    Weave(Prose(request, units), " ", &placed, &made.text);
    made.text += "\n";
    for (const ProseQuestion& q : questions) {
      made.questions.push_back(q.question);
      for (const size_t e : q.evidence) made.questions.back().evidence.push_back(placed[e].bytes);
    }
    return made;
  });
}

}  // namespace

// ------------------------------------------------------------------------------------------------
// pass key

// Mohtashami and Jaggi 2023, "Landmark Attention", arXiv 2305.16300. The wording is theirs.
Result<EvalText> BuildPasskey(const TextRequest& request, const TokenCounter& count) {
  EvalRng rng = Stream(request, "key");
  const std::string key = RandomNumber(&rng, 5);
  EvalQuestion question;
  question.question = "What is the pass key?";
  question.answer_prefix = " The pass key is";
  question.answers = {key};
  question.max_tokens = 16;
  const double depth = QuestionDepth(request, 0, &question.depth_cell);
  return FitLength(request, count, 1ull << 32, 18, [&](uint64_t units) {
    std::vector<Hidden> hidden = {
        {"The pass key is " + key + ". Remember it. " + key + " is the pass key.", depth, {}}};
    TextDraft made{.text =
                       "There is an important info hidden inside a lot of irrelevant text. Find it "
                       "and memorize it. I will quiz you "
                       "about the important information there.\n",
                   .questions = {question}};
    Weave(Noise(units), "\n", &hidden, &made.text);
    made.text += "\n";
    made.questions[0].evidence = {hidden[0].bytes};
    return made;
  });
}

// ------------------------------------------------------------------------------------------------
// keys and values

// Retrieve.KV of InfiniteBench (Zhang et al. 2024, arXiv 2402.13718), after Liu et al. 2023, "Lost
// in the Middle".
Result<EvalText> BuildKeyValues(const TextRequest& request, const TokenCounter& count) {
  EvalRng rng = Stream(request, "pairs");
  std::vector<Hidden> asked;
  std::vector<EvalQuestion> questions(request.question_count);
  for (uint32_t i = 0; i < request.question_count; ++i) {
    const std::string key = RandomUuid(&rng), value = RandomUuid(&rng);
    asked.push_back({"\"" + key + "\": \"" + value + "\"",
                     QuestionDepth(request, i, &questions[i].depth_cell),
                     {}});
    questions[i].question =
        "Key: \"" + key + "\"\nThe value associated with the specified key is: ";
    questions[i].answers = {value};
    questions[i].max_tokens = 50;
  }
  return FitLength(request, count, 1ull << 32, 80, [&](uint64_t units) {
    EvalRng noise = Stream(request, "others");
    std::vector<std::string> pairs;
    for (uint64_t i = 0; i < units; ++i) {
      const std::string key = RandomUuid(&noise);
      pairs.push_back("\"" + key + "\": \"" + RandomUuid(&noise) + "\"");
    }
    std::vector<Hidden> hidden = asked;
    TextDraft made{.text =
                       "Extract the value corresponding to the specified key in the JSON object "
                       "below.\n\nJSON data:\n{",
                   .questions = questions};
    Weave({pairs.begin(), pairs.end()}, ", ", &hidden, &made.text);
    made.text += "}\n";
    for (size_t i = 0; i < hidden.size(); ++i) made.questions[i].evidence = {hidden[i].bytes};
    return made;
  });
}

// ------------------------------------------------------------------------------------------------
// BABILong: facts in a book

// The form of BABILong (Kuratov et al. 2024, arXiv 2406.10149): facts as in bAbI (Weston et al.
// 2015) between the sentences of a book.
Result<EvalText> BuildBabi(const TextRequest& request, const TokenCounter& count) {
  static const std::vector<std::string_view> places = {
      "bathroom", "bedroom", "kitchen", "office",    "hallway",    "library",
      "workshop", "attic",   "cellar",  "courtyard", "greenhouse", "laundry"};
  static const std::vector<std::string_view> things = {
      "football", "umbrella", "milk",      "newspaper", "lantern", "violin", "suitcase", "teapot",
      "hammer",   "blanket",  "telescope", "basket",    "mirror",  "candle", "compass",  "hat",
      "clock",    "drum",     "ladder",    "pillow",    "kettle",  "mask",   "rope",     "spoon"};
  static const std::vector<std::string_view> moves = {"moved to", "went to", "journeyed to",
                                                      "travelled to", "went back to"};
  const bool carries = request.task == "babilong_qa2";
  EvalRng rng = Stream(request, "facts");
  std::vector<std::string_view> names = EvalFirstNames(), objects = things;
  rng.Shuffle(&names);
  rng.Shuffle(&objects);
  std::vector<Hidden> hidden;
  std::vector<ProseQuestion> questions(request.question_count);
  for (uint32_t i = 0; i < request.question_count; ++i) {
    const std::string name(names[i]);
    std::string_view place;
    const auto move = [&](double depth) {
      std::string_view next = rng.Pick(places);
      while (next == place) next = rng.Pick(places);
      place = next;
      hidden.push_back(
          {name + " " + std::string(rng.Pick(moves)) + " the " + std::string(place) + ".",
           depth,
           {}});
    };
    ProseQuestion& q = questions[i];
    const double depth = QuestionDepth(request, i, &q.question.depth_cell);
    double before[2] = {depth * rng.Unit(), depth * rng.Unit()};
    std::sort(before, before + 2);
    if (carries) {
      // Two moves, then the object is picked up at the grid's depth, then one more move. The object
      // is at the place of the last move.
      move(before[0]);
      move(before[1]);
      q.evidence.push_back(hidden.size());
      hidden.push_back({name + " picked up the " + std::string(objects[i]) + ".", depth, {}});
      q.evidence.push_back(hidden.size());
      move(depth + (1 - depth) * rng.Unit());
      q.question.question = "Where is the " + std::string(objects[i]) + "?";
      q.question.answer_prefix = " The " + std::string(objects[i]) + " is in the";
    } else {
      move(before[0]);
      move(before[1]);
      q.evidence.push_back(hidden.size());
      move(depth);
      q.question.question = "Where is " + name + "?";
      q.question.answer_prefix = " " + name + " is in the";
    }
    q.question.answers = {std::string(place)};
    q.question.max_tokens = 12;
  }
  return BuildInProse(request, count, hidden, questions);
}

// ------------------------------------------------------------------------------------------------
// paraphrases

namespace {

struct Paraphrase {
  std::string_view needle, question;
};

// The idea of NoLiMa (Modarressi et al. 2025, arXiv 2502.05167): a question shares no content word
// with its needle. A test checks this.
constexpr Paraphrase kParaphrases[] = {
    {"{name} is up at three every morning to knead dough and light the ovens.",
     "Who works as a baker?"},
    {"From the balcony of {name} one looks straight at the Eiffel Tower.", "Who lives in Paris?"},
    {"{name} has not touched meat or fish for twenty years.", "Who is a vegetarian?"},
    {"Every Sunday {name} pulls the ropes in the belfry.", "Who rings the church bells?"},
    {"The tractor of {name} is older than most of the cows.", "Who is a farmer?"},
    {"The pupils of class four hand their homework to {name}.", "Who teaches at a school?"},
    {"{name} cannot hear and reads from the lips of others.", "Who is deaf?"},
    {"With a stethoscope around the neck {name} hurries from ward to ward.", "Who is a doctor?"},
    {"{name} came first in the marathon.", "Who is good at running long distances?"},
    {"{name} has crossed the Atlantic alone under canvas three times.",
     "Who is an experienced sailor?"},
    {"The pyramids were still in sight when {name} wrote the postcard.",
     "Who has travelled to Egypt?"},
    {"{name} sits among the violins of the orchestra each night.",
     "Who is a professional musician?"},
    {"A white cane helps {name} to find the kerb.", "Who is blind?"},
    {"{name} keeps bees behind the house.", "Who produces honey?"},
    {"{name} has been in a cell since the judge read the sentence.", "Who is a prisoner?"},
    {"The stove of the restaurant belongs to {name}, and so does every sauce.",
     "Who earns money as a cook?"},
    {"{name} bends the hot iron on an anvil.", "Who is a blacksmith?"},
    {"At the controls of the jet {name} asked the tower for permission to land.",
     "Who flies aeroplanes as a pilot?"},
    {"{name} blew out seven candles on the cake last week.", "Which child had a birthday?"},
    {"{name} and the groom exchanged rings in May.", "Who got married?"},
    {"The neighbours of {name} in Kyoto sent a kimono.", "Who has a home in Japan?"},
    {"When the siren sounds {name} slides down the pole and unrolls the hoses.",
     "Who is a firefighter?"},
    {"{name} fills cavities and pulls molars.", "Who is a dentist?"},
    {"On clear nights {name} points the telescope at the rings of Saturn.",
     "Who studies astronomy?"},
};

}  // namespace

Result<EvalText> BuildParaphrase(const TextRequest& request, const TokenCounter& count) {
  EvalRng rng = Stream(request, "facts");
  std::vector<std::string_view> names = EvalFirstNames();
  std::vector<size_t> order(std::size(kParaphrases));
  std::iota(order.begin(), order.end(), size_t{0});
  rng.Shuffle(&names);
  rng.Shuffle(&order);
  std::vector<Hidden> hidden;
  std::vector<ProseQuestion> questions(request.question_count);
  for (uint32_t i = 0; i < request.question_count; ++i) {
    ProseQuestion& q = questions[i];
    const Paraphrase& pair = kParaphrases[order[i % order.size()]];
    q.evidence = {i};
    hidden.push_back({Replace(std::string(pair.needle), "{name}", names[i]),
                      QuestionDepth(request, i, &q.question.depth_cell),
                      {}});
    q.question.question = pair.question;
    q.question.answers = {std::string(names[i])};
    q.question.max_tokens = 32;
  }
  return BuildInProse(request, count, hidden, questions);
}

// ------------------------------------------------------------------------------------------------
// question files

namespace {

// The questions whose evidence is in `text`, and the questions without evidence.
std::vector<EvalQuestion> QuestionsOn(std::string_view text, const TextRequest& request) {
  const LabelledLines lines(text);
  std::vector<EvalQuestion> out;
  for (const FileQuestion& from : *request.questions) {
    EvalQuestion question;
    for (const std::string& label : from.evidence) {
      const ByteSpan bytes = lines.Find(label);
      if (bytes.size() > 0) question.evidence.push_back(bytes);
    }
    if (question.evidence.empty() && !from.evidence.empty()) continue;
    question.question = from.question;
    question.answers = from.answers;
    question.match = MatchRule::kPart;
    question.one_suffices = true;
    question.evidence_known = !from.evidence.empty();
    question.unanswerable = from.unanswerable;
    question.max_tokens = 48;
    if (question.evidence_known) {
      const double depth =
          static_cast<double>(question.evidence[0].begin) / static_cast<double>(text.size());
      question.depth_cell =
          std::min(request.depths - 1, static_cast<uint32_t>(depth * request.depths));
    }
    out.push_back(std::move(question));
  }
  return out;
}

}  // namespace

Result<EvalText> BuildFileQuestions(const TextRequest& request, const TokenCounter& count) {
  const std::string& whole = request.haystack->verbatim;
  LH_CHECK(request.questions != nullptr);
  EvalText text;
  if (request.length == 0) {
    text.text = whole;
    LH_ASSIGN_OR_RETURN(text.tokens, count(whole));
    text.questions = QuestionsOn(text.text, request);
  } else {
    LH_ASSIGN_OR_RETURN(text, FitLength(request, count, whole.size(), 1, [&](uint64_t units) {
                          // Cut at the end of a line or, in a long line, of a word.
                          size_t end = static_cast<size_t>(units);
                          if (end < whole.size()) {
                            const size_t line = whole.rfind('\n', end),
                                         word = whole.find_last_of(" \n", end);
                            if (line != std::string::npos && end - line < 400)
                              end = line + 1;
                            else if (word != std::string::npos)
                              end = word;
                          }
                          TextDraft made{.text = whole.substr(0, end), .questions = {}};
                          made.questions = QuestionsOn(made.text, request);
                          return made;
                        }));
  }
  if (text.questions.empty()) {
    return InvalidArgument("questions: none of the " + std::to_string(request.questions->size()) +
                           " questions has evidence in the first " + std::to_string(text.tokens) +
                           " tokens of " + request.haystack->name +
                           "; use a longer text, or check that its lines begin with the labels");
  }
  return text;
}

}  // namespace longhold
