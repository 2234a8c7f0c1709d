#!/usr/bin/env python3
"""hit@k of `longhold recall` for paraphrased questions, which share no content word with the sentence that answers them.

Hides the sentences of in_other_words.tsv in a haystack, reads it into the memory "in-other-words", and asks each question once, without
abstaining. With --keep it uses the memory of the previous run. A span is a hit if it contains the first or last 40 characters of the
sentence. The result is given per set: `task` has the sentences of eval's task paraphrase, `written` has sentences written for this
script, and `synonym` has forms of the calibration with one word replaced by a synonym.

  eval/in_other_words.py --haystack ../shared/data/essays --model smollm2
  ... --keep --profile FILE     asks the same memory with another recall profile
"""
import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile

MEMORY = "in-other-words"


def haystack(path, size):
    files = [path] if os.path.isfile(path) else sorted(os.path.join(path, f) for f in os.listdir(path) if f.endswith(".txt"))
    text = " ".join(open(f, encoding="utf-8").read() for f in files)[:size]
    return re.split(r"(?<=[.?!])\s+", text)


def hide(sentences, cases, seed):
    rng = random.Random(seed)
    places = sorted(rng.sample(range(5, len(sentences) - 5), len(cases)))
    hidden = dict(zip(places, rng.sample(cases, len(cases))))
    out = []
    for i, sentence in enumerate(sentences):
        if i in hidden:
            out.append(hidden[i][1])
        out.append(sentence)
    return " ".join(out)


def plain(text):
    return " ".join(text.split())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--haystack", required=True, help="a text file, or a directory of .txt files")
    parser.add_argument("--bytes", type=int, default=120000, help="number of bytes of the haystack to use")
    parser.add_argument("--cases", default=os.path.join(root, "eval/in_other_words.tsv"))
    parser.add_argument("--binary", default=os.path.join(root, "build/release/longhold"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--profile")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="use the memory of the previous run")
    args = parser.parse_args()
    cases = [line.rstrip("\n").split("\t") for line in open(args.cases, encoding="utf-8") if not line.startswith("#")]
    longhold = [args.binary, "-q", "--model", args.model] + (["--profile", args.profile] if args.profile else [])

    def run(*command):
        done = subprocess.run([*longhold, *command], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"in_other_words.py: {' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    if not args.keep:
        subprocess.run([*longhold, "forget", MEMORY], capture_output=True)  # fails if it does not exist
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as text:
            text.write(hide(haystack(args.haystack, args.bytes), cases, args.seed))
            text.flush()
            run("ingest", text.name, "--into", MEMORY)
    sets = {}
    for name, sentence, question, _ in cases:
        reply = json.loads(run("recall", MEMORY, question, "--no-abstain", "--json"))
        ends = plain(sentence)[:40], plain(sentence)[-40:]
        rank = next((i for i, span in enumerate(reply["spans"], 1) if any(end in plain(span["text"]) for end in ends)), None)
        counts = sets.setdefault(name, {"questions": 0, "hit@1": 0, "hit@4": 0, "hit@8": 0})
        counts["questions"] += 1
        for k in (1, 4, 8):
            counts[f"hit@{k}"] += rank is not None and rank <= k
    print(json.dumps({"model": args.model, "profile": args.profile, "sets": sets}))


if __name__ == "__main__":
    main()
