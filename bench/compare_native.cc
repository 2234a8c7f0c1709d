// Compares longhold with libllama's own full attention: the comparisons of docs/figures.md that
// need both in one process.
//
//   compare_native speed GGUF
//       prefill and decode speed of libllama alone, with an empty context
//   compare_native equality GGUF TEXT
//       logits with all tokens in the softmax: longhold, libllama with fused attention, and
//       libllama with exact attention
//   compare_native widen GGUF OUT
//       writes the weights as float32, so that `equality` agrees to the last digits
//   compare_native needles GGUF TEXT TSV
//       keyed needles with libllama's full attention; TSV has the columns key and value
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "memory/recall/prompt.h"
#include "model/llama_host.h"

using namespace longhold;

namespace {

int Fail(const Status& status) {
  std::fprintf(stderr, "compare_native: %s\n", status.message().c_str());
  return 1;
}

std::string ReadFile(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// Whether the text of `tokens` contains `value`.
bool Holds(const LanguageModel& model, const std::vector<TokenId>& tokens,
           const std::string& value) {
  std::string text;
  for (TokenId t : tokens) text += model.Piece(t);
  return text.find(value) != std::string::npos;
}

int Speed(LanguageModel& model, const std::vector<TokenId>& text) {
  std::vector<double> prefill, decode;
  for (int i = 0; i < 5; ++i) {
    const Result<NativeRun> p = RunNative(model, std::span(text).subspan(0, 512), 0);
    if (!p.ok()) return Fail(p.status());
    const Result<NativeRun> d = RunNative(model, std::span(text).subspan(0, 16), 64);
    if (!d.ok()) return Fail(d.status());
    prefill.push_back(p->prefill_tok_s);
    if (!d->tokens.empty()) decode.push_back(d->decode_tok_s);
  }
  std::sort(prefill.begin(), prefill.end());
  std::sort(decode.begin(), decode.end());
  std::printf(
      "libllama alone, empty context: prefill %.0f tok/s (%.0f to %.0f), decode %.1f tok/s (%.1f "
      "to %.1f), 5 runs\n",
      prefill[2], prefill.front(), prefill.back(), decode[decode.size() / 2], decode.front(),
      decode.back());
  return 0;
}

int Equality(LanguageModel& model, const std::vector<TokenId>& text) {
  for (size_t n : {1, 16, 64, 65, 256, 512}) {
    const Result<LogitEquality> e =
        CompareLogits(model, std::span(text).subspan(0, std::min(n, text.size())));
    if (!e.ok()) return Fail(e.status());
    std::printf(
        "%4zu tokens: longhold - exact %.2e, libllama fused - exact %.2e, same greedy token: %s\n",
        n, e->error, e->engine_error, e->same_greedy ? "yes" : "no");
  }
  return 0;
}

int Needles(LanguageModel& model, const std::string& text, const char* tsv) {
  // The layout of longhold's own prompt, with the whole text at the place of the recalled spans.
  std::vector<TokenId> prefix;
  std::vector<std::vector<TokenId>> tails;
  std::vector<std::string> values;
  std::ifstream lines(tsv);
  std::string line;
  while (std::getline(lines, line)) {
    const size_t tab = line.find('\t');
    if (tab == std::string::npos) continue;
    const std::string key = line.substr(0, tab);
    const std::string answer_prefix =
        " The special magic number for " + key + " mentioned in the provided text is";
    const Result<Prompt> prompt = BuildPrompt(
        model, "What is the special magic number for " + key + " mentioned in the provided text?",
        {.system = {}, .earlier = {}, .answer_prefix = answer_prefix});
    if (!prompt.ok()) return Fail(prompt.status());
    prefix = prompt->head;
    tails.push_back(prompt->tail);
    values.push_back(line.substr(tab + 1));
  }
  const Result<std::vector<TokenId>> given = model.Tokenize(text, false);
  if (!given.ok()) return Fail(given.status());
  prefix.insert(prefix.end(), given->begin(), given->end());
  const Result<std::vector<NativeRun>> runs =
      RunNativeEach(model, prefix, tails, 24, SamplerOptions{.dry_multiplier = 0});
  if (!runs.ok()) return Fail(runs.status());
  int exact = 0;
  for (size_t i = 0; i < runs->size(); ++i) exact += Holds(model, (*runs)[i].tokens, values[i]);
  const size_t needles = runs->size();
  if (needles > 0)
    std::printf("%zu tokens, prefill %.0f tok/s; ", prefix.size(), (*runs)[0].prefill_tok_s);
  std::printf("full attention: %d of %zu exact\n", exact, needles);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  const int needed = command == "speed"                            ? 3
                     : command == "equality" || command == "widen" ? 4
                     : command == "needles"                        ? 5
                                                                   : 0;
  if (needed == 0 || argc != needed) {
    std::fprintf(stderr,
                 "usage: compare_native speed GGUF | equality GGUF TEXT | widen GGUF OUT | needles "
                 "GGUF TEXT TSV\n");
    return 2;
  }
  if (command == "widen") {
    const Status status = WidenF32(argv[2], argv[3]);
    return status.ok() ? 0 : Fail(status);
  }
  LlamaOptions options;
  options.path = argv[2];
  const auto model = LoadLlama(options);
  if (!model.ok()) return Fail(model.status());
  const std::string text = argc > 3 ? ReadFile(argv[3]) : [] {
    std::string words;
    for (int i = 0; i < 600; ++i)
      words += "The river runs past the mill and the mill turns its wheel. ";
    return words;
  }();
  if (command == "needles") return Needles(**model, text, argv[4]);
  Result<std::vector<TokenId>> tokens = (*model)->Tokenize(text, false);
  if (!tokens.ok()) return Fail(tokens.status());
  if (tokens->size() < 512) return Fail(InvalidArgument("the text has fewer than 512 tokens"));
  return command == "speed" ? Speed(**model, *tokens) : Equality(**model, *tokens);
}
