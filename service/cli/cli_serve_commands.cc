// The commands of servers on the command line: serve, attach-server and key.
#include <CLI/CLI.hpp>

#include "service/attach/http_client.h"
#include "service/cli/cli_parser.h"
#include "service/resp/resp_address.h"

namespace longhold {

void CommandLineParser::AddServe() {
  CLI::App* sub = Subcommand(&app_, "serve", "run the HTTP server with an OpenAI-compatible API");
  sub->add_option("--listen", out_.flags.listen,
                  "address and port; port 0: any free port [$LONGHOLD_LISTEN]")
      ->type_name("ADDRESS:PORT")
      ->check(Checks(ParseListen));
  sub->add_option("--memory", serve_.memory, "memory of requests that name none")
      ->type_name("NAME")
      ->check(MemoryNameValidator());
  sub->add_option("--host", serve_.hosts,
                  "accepted name in the Host header; repeatable (default localhost)")
      ->type_name("NAME");
  sub->add_option("--ingest-root", out_.flags.ingest_root,
                  "allow ingest by path below this directory, for keys without tenant")
      ->type_name("DIR");
  sub->add_option("--tls-certificate", out_.flags.tls_certificate,
                  "server certificate and its chain, PEM; reloaded when it changes")
      ->type_name("FILE");
  sub->add_option("--tls-key", out_.flags.tls_key, "private key of the certificate, PEM")
      ->type_name("FILE");
  sub->add_option("--tls-client-ca", out_.flags.tls_client_ca,
                  "require client certificates signed by one of these CAs, PEM")
      ->type_name("FILE");
  sub->add_option("--resp", serve_.resp,
                  "also serve Redis clients such as LMCache; a path is a socket's")
      ->type_name("ADDRESS:PORT|PATH")
      ->check(Checks(ParseRespAddress));
  sub->add_option("--resp-disk", serve_.resp_disk,
                  "disk space for values of Redis clients, such as 50GiB (default 20GiB)")
      ->type_name("SIZE")
      ->check(Checks(ParseBytes));
  sub->add_option("--resp-memory", serve_.resp_memory,
                  "memory for them (default 256MiB, at most an eighth of the budget)")
      ->type_name("SIZE")
      ->check(Checks(ParseBytes));
  sub->add_option("--audit-log", out_.flags.audit_log,
                  "append a line per operation: who did what to which memory")
      ->type_name("FILE");
  sub->add_option("--log", serve_.log,
                  "json: log each request on stderr, without its text (default none)")
      ->type_name("FORMAT")
      ->check(CLI::IsMember({"json", "none"}));
  sub->add_flag("--insecure", serve_.insecure,
                "allow addresses beyond loopback without TLS; keys are required");
  sub->add_option(
         "--wire", serve_.wire,
         "also serve other inference engines by the wire protocol; a port alone is loopback's")
      ->type_name("ADDRESS:PORT");
  sub->add_option("--wire-socket", serve_.wire_socket,
                  "the same over a Unix socket at this path, only for this user")
      ->type_name("PATH");
  sub->callback([this] { out_.command = serve_; });
}

void CommandLineParser::AddAttach() {
  CLI::App* sub =
      Subcommand(&app_, "attach-server",
                 "give llama.cpp's server a memory, through an OpenAI-compatible proxy");
  sub->add_option("URL", attach_.url, "address of the server, such as http://127.0.0.1:8080")
      ->required()
      ->check(Checks(ParseHttpUrl));
  sub->add_option("--slot-dir", attach_.slot_dir, "the directory of the server's --slot-save-path")
      ->type_name("DIR")
      ->required();
  sub->add_option("--listen", out_.flags.listen,
                  "loopback address and port; port 0: any free port [$LONGHOLD_LISTEN]")
      ->type_name("ADDRESS:PORT")
      ->check(Checks(ParseListen));
  sub->add_option("--memory", attach_.memory, "memory of requests that name none")
      ->type_name("NAME")
      ->check(MemoryNameValidator());
  sub->callback([this] { out_.command = attach_; });
}

void CommandLineParser::AddKey() {
  CLI::App* key = Subcommand(&app_, "key", "manage the API keys of the server");
  key->require_subcommand(1);
  CLI::App* add = Subcommand(key, "add", "create an API key and print it, once");
  add->add_option("NAME", key_add_.name, "name of the key")->required();
  add->add_option("--scope", key_add_.scope, "permissions of the key (default read)")
      ->type_name("SCOPE")
      ->check(CLI::IsMember({"read", "write", "admin"}));
  add->add_option("--days", key_add_.days, "days until the key expires (default: never)")
      ->type_name("N")
      ->check(CLI::Range(1, 100000));
  add->add_option("--tenant", key_add_.tenant, "limit the key to this tenant's memories")
      ->type_name("TENANT");
  add->callback([this] { out_.command = key_add_; });
  CLI::App* limit = Subcommand(key, "limit", "set and print the limits that a tenant's keys share");
  const CLI::Range number(uint64_t{0}, uint64_t{1000000000000000});
  limit->add_option("TENANT", key_limit_.tenant, "tenant, as in 'key add --tenant'")->required();
  limit
      ->add_option("--requests-per-minute", key_limit_.requests_per_minute,
                   "requests per minute; 0: no limit")
      ->type_name("N")
      ->check(number);
  limit
      ->add_option("--tokens-per-day", key_limit_.tokens_per_day,
                   "tokens of questions, answers and texts per day; 0: no limit")
      ->type_name("N")
      ->check(number);
  limit
      ->add_option("--documents", key_limit_.documents,
                   "documents in all its memories; 0: no limit")
      ->type_name("N")
      ->check(number);
  limit
      ->add_option("--disk", key_limit_.disk,
                   "disk space of all its memories, such as 10GiB; 0: no limit")
      ->type_name("SIZE");
  limit->callback([this] { out_.command = key_limit_; });
  Subcommand(key, "list", "list names, scopes, tenants and dates of keys")->callback([this] {
    out_.command = KeyListCommand{};
  });
  CLI::App* remove = Subcommand(key, "remove", "revoke a key; a running server refuses it at once");
  remove->add_option("NAME", key_remove_.name, "name as 'key list' prints it")->required();
  remove->callback([this] { out_.command = key_remove_; });
}

}  // namespace longhold
