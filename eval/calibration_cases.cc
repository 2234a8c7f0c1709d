#include "eval/calibration_cases.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <set>

#include "eval/rng.h"
#include "eval/task.h"
#include "eval/words.h"

namespace longhold {
namespace {

// One wording of a hidden fact. Blanks: {A} an adjective, {N} {M} nouns, {P} a name, {D} digits,
// {U} a UUID, {I} an identifier, {S} and {Q} two synonyms.
struct Form {
  std::string_view name;
  std::string_view statement, question;
  std::string_view answer;
  bool learned;
};

constexpr std::array<Form, 17> kForms = {{
    {"serial", "Entry for the {A} {N}: serial {D}.", "What is the serial of the {A} {N}?", "{D}",
     true},
    {"locker", "To open the locker marked {A} {N}, one dials {D}.",
     "Which digits open the locker marked {A} {N}?", "{D}", true},
    {"swap", "{P} exchanged the {A} {N} for a {M}.", "What did {P} get for the {A} {N}?", "{M}",
     true},
    {"keeper", "The {A} {N} is looked after by {P}.", "Who takes care of the {A} {N}?", "{P}",
     true},
    {"parcel", "Parcel {U} was left beside the {M}.", "Beside what was parcel {U} left?", "{M}",
     true},
    {"token", "The access token of {A}-{N} is {U}.", "What access token does {A}-{N} have?", "{U}",
     true},
    {"constant", "const int {I} = {D};", "What is the value of {I}?", "{D}", true},
    {"setting", "{A}_{N}.timeout: {D}", "What is {A}_{N}.timeout set to?", "{D}", true},
    {"hidden", "{P} came on a {A} evening and hid the {N} under the {M}.",
     "Under what did {P} hide the {N}?", "{M}", true},
    {"deed", "In the year of the {A} {N}, {P} bought the old {M}.",
     "Which old building did {P} buy in the year of the {A} {N}?", "{M}", true},
    // Statement and question use synonyms, so only the meaning of the words connects them.
    {"meaning-owner", "The {S} belongs to {P}.", "Who owns the {Q}?", "{P}", true},
    {"meaning-lost", "{P} lost a {S} on the way to town.",
     "Which person can no longer find a certain {Q}?", "{P}", true},
    {"meaning-home", "Since spring there has been a {S} behind the house of {P}.",
     "At which home might one look at a {Q}?", "{P}", false},
    {"rule", "Nobody but {P} may ring the {A} {N}.", "Who is allowed to ring the {A} {N}?", "{P}",
     false},
    {"price", "They paid {D} coins for the {A} {N}.", "How many coins did the {A} {N} cost?", "{D}",
     false},
    {"path", "The {A} {N} job writes to /srv/{M}/{D}.log",
     "Where does the {A} {N} job write its log?", "/srv/{M}/{D}.log", false},
    {"motto", "Over the door of {P} stood the words: the {A} {N} forgets the {M}.",
     "Which words stood over the door of {P}?", "the {A} {N} forgets the {M}", false},
}};

struct Synonym {
  std::string_view stated, asked;
};

constexpr std::array<Synonym, 40> kSynonyms = {{
    {"physician", "doctor"},  {"automobile", "car"},     {"infant", "baby"},
    {"attorney", "lawyer"},   {"vessel", "ship"},        {"dwelling", "home"},
    {"pupil", "student"},     {"monarch", "king"},       {"beverage", "drink"},
    {"stallion", "horse"},    {"hound", "dog"},          {"kitten", "cat"},
    {"melody", "tune"},       {"cemetery", "graveyard"}, {"sofa", "couch"},
    {"taxi", "cab"},          {"portrait", "painting"},  {"warrior", "soldier"},
    {"prison", "jail"},       {"inn", "hotel"},          {"rifle", "gun"},
    {"lamb", "sheep"},        {"rooster", "chicken"},    {"spouse", "wife"},
    {"bicycle", "bike"},      {"novel", "book"},         {"blossom", "flower"},
    {"oak", "tree"},          {"trout", "fish"},         {"parcel of land", "field"},
    {"diamond", "jewel"},     {"violin", "instrument"},  {"sword", "weapon"},
    {"cabbage", "vegetable"}, {"ape", "monkey"},         {"goblet", "cup"},
    {"airplane", "aircraft"}, {"merchant", "trader"},    {"chapel", "church"},
    {"bandit", "robber"},
}};

// The words that fill the blanks of a form.
struct Fill {
  std::string adjective, noun, other, person, digits, uuid, identifier;
  Synonym synonym;
};

std::string Put(std::string_view text, const Fill& fill) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '{') {
      out += text[i];
      continue;
    }
    switch (text[i + 1]) {
      case 'A': out += fill.adjective; break;
      case 'N': out += fill.noun; break;
      case 'M': out += fill.other; break;
      case 'P': out += fill.person; break;
      case 'D': out += fill.digits; break;
      case 'U': out += fill.uuid; break;
      case 'S': out += fill.synonym.stated; break;
      case 'Q': out += fill.synonym.asked; break;
      default: out += fill.identifier; break;
    }
    i += 2;
  }
  return out;
}

// Draws fills whose questions differ. Each pair of adjective and noun and each full name is drawn
// at most once. Pairs of synonyms are used in turn.
class Filler {
 public:
  explicit Filler(EvalRng* rng) : rng_(*rng) {}
  Fill Next(bool in_other_words) {
    Fill fill;
    if (in_other_words) fill.synonym = kSynonyms[synonyms_++ % kSynonyms.size()];
    do {
      fill.adjective = rng_.Pick(EvalAdjectives());
      fill.noun = rng_.Pick(EvalNouns());
    } while (!used_.insert(fill.adjective + " " + fill.noun).second);
    do {
      fill.other = rng_.Pick(EvalNouns());
    } while (fill.other == fill.noun);
    do {
      fill.person = std::string(rng_.Pick(EvalFirstNames())) + " " +
                    static_cast<char>('A' + rng_.Below(26)) +
                    std::string(rng_.Pick(EvalNouns())).substr(0, 4) + "er";
    } while (!used_.insert(fill.person).second);
    fill.digits = RandomNumber(&rng_, 4 + static_cast<uint32_t>(rng_.Below(5)));
    fill.uuid = RandomUuid(&rng_);
    fill.identifier = fill.adjective;
    for (std::string word : {fill.noun, std::string("limit")}) {
      word[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(word[0])));
      fill.identifier += word;
    }
    return fill;
  }

 private:
  EvalRng& rng_;
  std::set<std::string> used_;
  size_t synonyms_ = 0;
};

std::vector<std::string> SplitWords(std::string_view sentence) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : sentence) {
    if (c != ' ' && c != '\n') {
      word += c;
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

std::string Join(const std::vector<std::string>& words, size_t begin, size_t end) {
  std::string out;
  for (size_t i = begin; i < end; ++i) out += (out.empty() ? "" : " ") + words[i];
  return out;
}

std::string Bare(const std::string& word) {
  size_t begin = 0, end = word.size();
  const auto part = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || (c & 0x80) != 0;
  };
  while (begin < end && !part(word[begin])) ++begin;
  while (end > begin && !part(word[end - 1])) --end;
  return word.substr(begin, end - begin);
}

// The first three fifths of the sentence, unchanged, as a reader would quote it to find the place.
std::string RepeatCue(const std::vector<std::string>& words) {
  return Join(words, 0, words.size() * 3 / 5);
}

// The first two thirds of the sentence without a random third of their words: a half-remembered
// sentence.
std::string ObjectCue(const std::vector<std::string>& words, EvalRng* rng) {
  std::vector<std::string> kept;
  for (size_t i = 0; i < words.size() * 2 / 3; ++i) {
    if (rng->Below(3) != 0) kept.push_back(Bare(words[i]));
  }
  return Join(kept, 0, kept.size()) + " what?";
}

// A question with the three longest words of the sentence.
std::string WordsCue(const std::vector<std::string>& words) {
  std::vector<std::string> longest;
  for (const std::string& word : words) longest.push_back(Bare(word));
  std::stable_sort(longest.begin(), longest.end(),
                   [](const std::string& a, const std::string& b) { return a.size() > b.size(); });
  return "What is said of " + longest[0] + ", " + longest[1] + " and " + longest[2] + "?";
}

constexpr std::array<std::string_view, 3> kCueForms = {"cue-repeat", "cue-object", "cue-words"};

std::string Cue(size_t form, std::string_view sentence, EvalRng* rng) {
  const std::vector<std::string> words = SplitWords(sentence);
  return form == 0 ? RepeatCue(words) : form == 1 ? ObjectCue(words, rng) : WordsCue(words);
}

bool FitsCue(std::string_view sentence) {
  const size_t words = SplitWords(sentence).size();
  return words >= 9 && words <= 40;
}

// A statement that is added to the text, and the question about it.
struct Needle {
  size_t before;  // index of the sentence that follows it
  std::string statement;
  CalibrationCase asked;
};

// Statements of each form at random places between the sentences `first` and `last`, in the order
// of the text. Adds questions about things that no statement mentions to `corpus`.
std::vector<Needle> MakeNeedles(const CorpusRequest& request, size_t first, size_t last,
                                EvalRng* rng, CalibrationCorpus* corpus) {
  Filler filler(rng);
  std::vector<Needle> needles;
  for (const Form& form : kForms) {
    const bool in_other_words = form.name.starts_with("meaning");
    for (uint32_t i = 0; i < request.per_form; ++i) {
      const Fill fill = filler.Next(in_other_words);
      needles.push_back({.before = first + rng->Below(last - first),
                         .statement = Put(form.statement, fill),
                         .asked = {.form = std::string(form.name),
                                   .question = Put(form.question, fill),
                                   .answer = Put(form.answer, fill),
                                   .evidence = {},
                                   .learned = form.learned && i % 2 == 0,
                                   .new_form = !form.learned}});
    }
    if (in_other_words) continue;  // the source may mention any of these things itself
    for (uint32_t i = 0; i < (request.per_form + 3) / 4; ++i)
      corpus->other_keys.push_back(Put(form.question, filler.Next(false)));
  }
  std::stable_sort(needles.begin(), needles.end(),
                   [](const Needle& a, const Needle& b) { return a.before < b.before; });
  return needles;
}

// Writes the sentences from `first` to `last` and the needles between them to the text of `corpus`,
// and the questions about the needles to its cases. Returns where each sentence is.
std::vector<ByteSpan> WriteText(const std::vector<std::string_view>& sentences, size_t first,
                                size_t last, const std::vector<Needle>& needles,
                                CalibrationCorpus* corpus) {
  std::vector<ByteSpan> place(sentences.size());
  size_t next = 0;
  for (size_t i = first; i < last; ++i) {
    for (; next < needles.size() && needles[next].before == i; ++next) {
      CalibrationCase asked = needles[next].asked;
      asked.evidence.begin = corpus->text.size();
      corpus->text += needles[next].statement;
      asked.evidence.end = corpus->text.size();
      corpus->text += ' ';
      corpus->cases.push_back(std::move(asked));
    }
    place[i].begin = corpus->text.size();
    corpus->text += sentences[i];
    place[i].end = corpus->text.size();
    corpus->text += (i - first) % 5 == 4 ? '\n' : ' ';  // paragraphs
  }
  return place;
}

}  // namespace

Result<CalibrationCorpus> BuildCalibrationCorpus(const Haystack& source,
                                                 const CorpusRequest& request) {
  const std::vector<std::string_view>& sentences = source.sentences;
  if (sentences.size() < 200) {
    return InvalidArgument(
        source.name + ": has " + std::to_string(sentences.size()) +
        " sentences, and calibration needs 200 or more; name more text with --text");
  }
  EvalRng rng(request.seed, "calibration");
  // The text is a part of the source. At least a fifth of the sentences after `first` stays out of
  // it, for questions without an answer.
  uint64_t own_bytes = 0;
  size_t first = rng.Below(sentences.size() / 10 + 1), last = first;
  const size_t last_max = first + (sentences.size() - first) * 4 / 5;
  for (; last < last_max && own_bytes < request.bytes; ++last)
    own_bytes += sentences[last].size() + 1;

  CalibrationCorpus corpus;
  const std::vector<Needle> needles = MakeNeedles(request, first, last, &rng, &corpus);

  std::vector<size_t> quoted;  // sentences that cues ask for
  for (size_t i = first; i < last; ++i) {
    if (FitsCue(sentences[i])) quoted.push_back(i);
  }
  rng.Shuffle(&quoted);
  std::vector<std::string_view> outside;
  for (size_t i = 0; i < sentences.size(); ++i) {
    if ((i < first || i >= last) && FitsCue(sentences[i])) outside.push_back(sentences[i]);
  }
  rng.Shuffle(&outside);

  const std::vector<ByteSpan> place = WriteText(sentences, first, last, needles, &corpus);
  for (size_t form = 0; form < kCueForms.size(); ++form) {
    for (uint32_t n = 0; n < request.cues; ++n) {
      const size_t at = form * request.cues + n;
      if (at >= quoted.size()) break;
      const size_t sentence = quoted[at];
      corpus.cases.push_back({.form = std::string(kCueForms[form]),
                              .question = Cue(form, sentences[sentence], &rng),
                              .answer = {},
                              .evidence = place[sentence],
                              .learned = form < 2 && n % 2 == 0,
                              .new_form = form == 2});
    }
    if (form == 0) continue;  // a verbatim quote of an absent sentence is no realistic question
    for (uint32_t n = 0; n < request.cues; ++n) {
      const size_t at = form * request.cues + n;
      if (at < outside.size()) corpus.unanswerable.push_back(Cue(form, outside[at], &rng));
    }
  }
  return corpus;
}

}  // namespace longhold
