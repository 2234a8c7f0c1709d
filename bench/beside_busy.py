#!/usr/bin/env python3
"""The speed of longhold while other processes use the CPU: ingest, time to first token and decoding.

  bench/beside_busy.py TEXT QUESTION [--model smollm2] [--busy 1] [--rounds 3] [--binary build/release/longhold] [--against OTHER]

Each round ingests TEXT into a new memory and asks QUESTION: first on an idle machine, then with --busy processes that compute all the
time. --against names another program that does the same in each round, for comparison. The script prints medians, and the share of the
idle speed that is kept. Every process has its own POSIX session, so that a scheduler that shares time by session treats them equally.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time


def run(binary, arguments, home):
    environment = dict(os.environ, LONGHOLD_HOME=home)
    done = subprocess.run([binary, *arguments, "--json", "--quiet"], env=environment, capture_output=True, text=True, start_new_session=True)
    if done.returncode != 0:
        sys.exit(done.stderr.strip())
    return json.loads(done.stdout)


def measure(binary, options):
    with tempfile.TemporaryDirectory() as home:
        read = run(binary, ["ingest", options.text, "--into", "m", "--model", options.model], home)
        asked = run(binary, ["ask", "m", options.question, "--model", options.model, "--no-abstain", "--max-tokens", "64"], home)["timings"]
    return {"ingest tok/s": read["tokens_per_s"], "first token ms": asked["first_token_ms"], "decode tok/s": asked["decode_tok_s"]}


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("question")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--busy", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--binary", default=os.path.join(root, "build/release/longhold"))
    parser.add_argument("--against")
    options = parser.parse_args()
    binaries = [b for b in (options.binary, options.against) if b]
    measured = {}
    for _ in range(options.rounds):
        for busy in (0, options.busy):
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(busy)]
            time.sleep(0.3 if busy else 0)
            try:
                for binary in binaries:
                    for what, value in measure(binary, options).items():
                        measured.setdefault((binary, what), {}).setdefault(busy, []).append(value)
            finally:
                for other in others:
                    other.kill()
                    other.wait()
    for (binary, what), values in measured.items():
        quiet, beside = (statistics.median(values[busy]) for busy in (0, options.busy))
        kept = quiet / beside if what.endswith("ms") else beside / quiet
        spread = ", ".join(f"{min(values[b]):.0f}-{max(values[b]):.0f}" for b in (0, options.busy))
        print(f"{binary}: {what} {quiet:.1f} idle, {beside:.1f} with {options.busy} busy: {kept:.2f} kept ({spread})")


if __name__ == "__main__":
    main()
