// The commands for models and memories on the command line.
#include <CLI/CLI.hpp>

#include "memory/engine.h"
#include "service/cli/cli_parser.h"

namespace longhold {

void CommandLineParser::AddMemory(CLI::App* sub, std::string* memory) {
  sub->add_option("NAME", *memory, "the memory")->required()->check(MemoryNameValidator());
}

void CommandLineParser::AddRerank(CLI::App* sub, std::optional<uint32_t>* spans) {
  sub->add_option("--rerank", *spans,
                  "rerank N spans by query likelihood; slow (default from profile)")
      ->type_name("N")
      ->check(CLI::Range(0u, kRerankSpansMax));
}

void CommandLineParser::AddSampler(CLI::App* sub, SamplerOptions* sampler) {
  sub->add_option("--seed", sampler->seed, "seed of the sampler (default 1)")->type_name("N");
  sub->add_option("--temperature", sampler->temperature,
                  "sampling temperature; 0: greedy decoding (default 0)")
      ->type_name("X")
      ->check(CLI::Range(0.0, 100.0));
  sub->add_option("--top-p", sampler->top_p,
                  "nucleus sampling: share of the probability mass (default 1)")
      ->type_name("X")
      ->check(CLI::Range(0.0, 1.0));
  sub->add_option("--dry-multiplier", sampler->dry_multiplier,
                  "strength of the DRY repetition penalty; 0: off (default 0.8)")
      ->type_name("X")
      ->check(CLI::Range(0.0, 100.0));
}

void CommandLineParser::AddModel() {
  CLI::App* model = Subcommand(&app_, "model", "download, name and list models");
  model->require_subcommand(1);
  CLI::App* get = Subcommand(model, "get", "download and verify a model, print its path");
  get->add_option("NAME", model_get_.name,
                  "qwen2.5-coder-1.5b, smollm2, gemma3-270m, or minilm-l6 (embeddings)")
      ->required();
  get->callback([this] { out_.command = model_get_; });
  CLI::App* add = Subcommand(model, "add", "give a GGUF file a name; the file is not copied");
  add->add_option("NAME", model_add_.name, "its name: letters, digits, dots, dashes, underscores")
      ->required();
  add->add_option("FILE", model_add_.file, "the GGUF file")->required();
  add->callback([this] { out_.command = model_add_; });
  CLI::App* remove =
      Subcommand(model, "remove", "remove a name given by 'model add'; the file is kept");
  remove->add_option("NAME", model_remove_.name, "the name to remove")->required();
  remove->callback([this] { out_.command = model_remove_; });
  Subcommand(model, "list", "list known models and say which are downloaded")->callback([this] {
    out_.command = ModelListCommand{};
  });
}

void CommandLineParser::AddIngest() {
  CLI::App* sub =
      Subcommand(&app_, "ingest", "read texts into a memory; an interrupted run resumes");
  sub->add_option("PATH", ingest_.paths,
                  "files, directories (without hidden and ignored entries), - for stdin")
      ->required();
  sub->add_option("--into", ingest_.memory, "the memory; created if it does not exist")
      ->type_name("NAME")
      ->required()
      ->check(MemoryNameValidator());
  AddCodec(sub, &ingest_.codec, "a new memory");
  sub->add_flag("--no-ignore", ingest_.no_ignore,
                "read what .gitignore and .longholdignore files name");
  sub->add_flag("--background", ingest_.background,
                "return once the texts can be asked about; the model reads on");
  sub->add_flag("--index-only", ingest_.index_only,
                "the same, but the model does not read on: see 'longhold read'");
  AddReadBudget(sub, &ingest_.read_budget);
  sub->add_option("--as", format_, "format of the input (default text)")
      ->type_name("FORMAT")
      ->check(CLI::IsMember({"text"}));
  sub->callback([this] { out_.command = ingest_; });
}

void CommandLineParser::AddRead() {
  CLI::App* sub =
      Subcommand(&app_, "read", "read on in a memory whose texts the model has not read");
  AddMemory(sub, &read_.memory);
  sub->add_option("--tokens", read_.tokens, "end after N tokens (default: all)")
      ->type_name("N")
      ->check(CLI::Range(uint64_t{1}, UINT64_MAX));
  sub->add_flag("--background", read_.background,
                "let other programs go first, and wait for other writers");
  AddReadBudget(sub, &read_.read_budget);
  sub->callback([this] { out_.command = read_; });
}

void CommandLineParser::AddReadBudget(CLI::App* sub, double* budget) {
  sub->add_option("--read-budget", *budget,
                  "share of the time that the model reads; it rests otherwise (default 1)")
      ->type_name("SHARE")
      ->check(CLI::Range(0.01, 1.0));
}

void CommandLineParser::AddAsk() {
  CLI::App* sub = Subcommand(&app_, "ask", "answer a question from a memory, with citations");
  AddMemory(sub, &ask_.memory);
  sub->add_option("QUESTION", ask_.question, "the question, or - for stdin")->required();
  sub->add_option("--answer-prefix", ask_.answer_prefix,
                  "first words of the answer; the output leaves them out")
      ->type_name("TEXT");
  sub->add_option("--max-tokens", ask_.max_tokens, "length limit of the answer (default 128)")
      ->type_name("N")
      ->check(CLI::Range(1, 100000));
  AddSampler(sub, &ask_.sampler);
  sub->add_option("--spans", ask_.focused.recall.spans_max,
                  "recall at most N spans (default from the profile)")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
  AddRerank(sub, &ask_.focused.recall.rerank_spans);
  sub->add_option("--reencode", ask_.focused.reencode_tokens,
                  "re-encode N tokens of recalled text (default from the profile)")
      ->type_name("N")
      ->check(CLI::Range(0u, kReencodeTokensMax));
  sub->add_option("--system", ask_.system, "system instruction, put before the question")
      ->type_name("TEXT");
  sub->add_flag("!--no-abstain", ask_.focused.recall.abstain,
                "answer even if the memory seems to hold no answer");
  sub->add_flag("--inline-citations", ask_.focused.inline_citations,
                "write [1] after each sentence: the citation with the most attention");
  sub->add_option("--attend", ask_.attend,
                  "attend to recalled spans, or to blocks picked per head (focused)")
      ->type_name("MODE")
      ->check(CLI::IsMember({"focused", "faithful"}));
  sub->add_option("--attend-share", ask_.faithful.share,
                  "faithful: share of the blocks that each head picks (default 0.1)")
      ->type_name("F")
      ->check(CLI::Range(0.0, 1.0));
  sub->callback([this] { out_.command = ask_; });
}

void CommandLineParser::AddChat() {
  CLI::App* sub = Subcommand(&app_, "chat", "chat with a memory; it stores the conversation");
  AddMemory(sub, &chat_.memory);
  sub->add_option("--max-tokens", chat_.max_tokens, "length limit of an answer (default 256)")
      ->type_name("N")
      ->check(CLI::Range(1, 100000));
  AddSampler(sub, &chat_.sampler);
  sub->add_option("--system", chat_.system, "system instruction, put before the conversation")
      ->type_name("TEXT");
  sub->callback([this] { out_.command = chat_; });
}

void CommandLineParser::AddRecall() {
  CLI::App* sub =
      Subcommand(&app_, "recall", "print the spans that match a query, without an answer");
  AddMemory(sub, &recall_.memory);
  sub->add_option("QUERY", recall_.query, "the query, or - for stdin")->required();
  sub->add_option("--spans", recall_.options.spans_max,
                  "recall at most N spans (default from the profile)")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
  AddRerank(sub, &recall_.options.rerank_spans);
  sub->add_flag("--explain", recall_.options.explain,
                "print all candidates: ranks, scores, words found and missing");
  sub->add_flag("!--no-abstain", recall_.options.abstain,
                "print all spans even if the memory seems to hold no answer");
  sub->callback([this] { out_.command = recall_; });
}

void CommandLineParser::AddMemoryCommands() {
  Subcommand(&app_, "list", "list all memories")->callback([this] {
    out_.command = ListCommand{};
  });
  CLI::App* show = Subcommand(&app_, "show", "print a memory's model, documents and size");
  AddMemory(show, &show_.memory);
  show->callback([this] { out_.command = show_; });
  CLI::App* forget =
      Subcommand(&app_, "forget", "delete a document or a whole memory, also from the disk");
  AddMemory(forget, &forget_.memory);
  forget
      ->add_option("DOCUMENT", forget_.document,
                   "document name as 'show' prints it (default: the whole memory)")
      ->check(Checks([](const std::string& text) -> Result<bool> {
        // An unset shell variable must not delete a whole memory.
        if (text.empty()) return InvalidArgument("the document's name is empty");
        return true;
      }));
  forget->add_flag("!--no-compact", forget_.compact,
                   "leave the bytes on the disk until 'compact' runs");
  forget->callback([this] { out_.command = forget_; });
  CLI::App* compact = Subcommand(&app_, "compact", "rewrite a memory's files without deleted data");
  AddMemory(compact, &compact_.memory);
  compact->add_option("--codec", compact_.codec, "convert the memory to this codec: " + CodecList())
      ->type_name("NAME")
      ->check(CodecNameValidator());
  compact->callback([this] { out_.command = compact_; });
  CLI::App* exported = Subcommand(&app_, "export", "write a memory to one file");
  AddMemory(exported, &export_.memory);
  exported->add_option("FILE", export_.file, "output file, - for stdout")->required();
  exported->callback([this] { out_.command = export_; });
  CLI::App* imported = Subcommand(&app_, "import", "create a memory from an exported file");
  imported->add_option("FILE", import_.file, "exported file, - for stdin")->required();
  imported->add_option("--into", import_.into, "name of the new memory (default: as exported)")
      ->type_name("NAME")
      ->check(MemoryNameValidator());
  imported->callback([this] { out_.command = import_; });
  CLI::App* verify = Subcommand(&app_, "verify", "read all data of a memory and check it");
  AddMemory(verify, &verify_.memory);
  verify->callback([this] { out_.command = verify_; });
  CLI::App* reindex = Subcommand(
      &app_, "reindex", "rebuild a memory's index for the recall heads of the current profile");
  AddMemory(reindex, &reindex_.memory);
  reindex->callback([this] { out_.command = reindex_; });
}

}  // namespace longhold
