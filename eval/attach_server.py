#!/usr/bin/env python3
"""Keyed needles answered by llama.cpp's own server, with longhold as its memory: counts exact answers, and times the questions.

The server is an unmodified one, of the Python package xllamacpp (scripts/setup --tests installs it), with a context much smaller than the text.
Text and needles are those of eval/needles.py, without an answer prefix. Three ways to ask:

  default       as the proxy answers: recalled keys and values, and re-encoded lines
  keys alone    --reencode 0: all that the server knows of the text are recalled keys and values
  no memory     the server alone, without the proxy

  eval/attach_server.py --tokens 32768 --needles 20 --ctx 4096 --server-threads 1
"""
import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from needles import QUESTION, Longhold, build, make_needles, sentences

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def start(command, **options):
    """A process whose first line of stdout is its URL."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
    url = process.stdout.readline().strip()
    if not url.startswith("http://"):
        sys.exit(f"attach_server.py: {command[0]} did not start")
    return process, url


def ask(url, model, question, members):
    body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 32, "temperature": 0, **members}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    begin = time.time()
    with urllib.request.urlopen(request, timeout=600) as reply:
        return json.loads(reply.read()), time.time() - begin


def ask_all(name, url, model, needles, members):
    exact, seconds, first, prefixes, restores = 0, [], [], [], []
    for needle in needles:
        reply, took = ask(url, model, QUESTION.format(**needle), members)
        answer = reply["choices"][0]["message"]["content"] or ""
        ok = needle["value"] in answer
        exact += ok
        seconds.append(took)
        if "longhold" in reply:
            used = reply["longhold"]["server"]
            assert used["reused_tokens"] >= used["prefix_tokens"], "the server read the prefix itself"
            first.append(reply["longhold"]["timings"]["first_token_ms"])
            prefixes.append(used["prefix_tokens"])
            restores.append(used["restore_ms"])
        if not ok:
            print(f"  {name}: {needle['key']} {needle['value']}: {answer[:80]!r}", file=sys.stderr)
    row = {"asked": name, "exact": exact, "of": len(needles), "median_s": round(statistics.median(seconds), 2)}
    if first:
        row |= {"first_token_ms": round(statistics.median(first)), "prefix_tokens": round(statistics.median(prefixes)),
                "restore_ms": round(statistics.median(restores), 1)}
    print(json.dumps(row), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=os.path.join(ROOT, "build/release/longhold"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--haystack", default="bible", help="'bible', a directory of .txt files, or a file")
    parser.add_argument("--tokens", type=int, default=32768, help="approximate length of the text")
    parser.add_argument("--needles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ctx", type=int, default=4096, help="context of the server")
    parser.add_argument("--server-threads", type=int, default=os.cpu_count())
    parser.add_argument("--home", default="", help="directory to keep the memory in (default: temporary)")
    args = parser.parse_args()

    needles = make_needles(random.Random(args.seed), args.needles)
    home = args.home or tempfile.mkdtemp(prefix="longhold-attach-")
    slots = os.path.join(home, "slots")
    os.makedirs(slots, exist_ok=True)
    longhold, processes = Longhold(args, home), []
    try:
        path = os.path.join(home, "haystack.txt")
        open(path, "w", encoding="utf-8").write(build(sentences(args.haystack), args.tokens * 4, needles))
        report = longhold.run("ingest", path, "--into", "needles")
        weights = longhold.run("model", "get", args.model)["path"]
        server, url = start([sys.executable, os.path.join(ROOT, "tests/support/stock_llama.py"), weights, slots, "--ctx", str(args.ctx),
                             "--threads", str(args.server_threads)], stderr=subprocess.DEVNULL)
        processes.append(server)
        proxy, own = start([args.binary, "--home", home, "--model", args.model, "attach-server", url, "--slot-dir", slots, "--listen",
                            "127.0.0.1:0", "--memory", "needles"])
        processes.append(proxy)
        print(json.dumps({"tokens": report.get("tokens"), "ctx": args.ctx, "model": args.model, "seed": args.seed}))
        ask_all("default", own, args.model, needles, {})
        ask_all("keys alone", own, args.model, needles, {"reencode": 0})
        ask_all("no memory", url, args.model, needles, {})
        if os.listdir(slots):
            sys.exit(f"attach_server.py: slot files stayed behind: {os.listdir(slots)}")
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()
        if not args.home:
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
