#!/usr/bin/env python3
"""Keyed needles through the command line: hides needles in a text, asks for each, and counts exact answers and citations.

A needle is a sentence of RULER's form (arXiv:2404.06654), "One of the special magic numbers for KEY is: VALUE.", between
two sentences of a haystack. The script asks RULER's question with RULER's answer prefix. An answer is exact if it contains
the value. A needle is cited if the text of a citation contains the value.

  eval/needles.py --model smollm2 --tokens 8192 --needles 20
  eval/needles.py --model smollm2 --tokens 1024 --offsets 64     one short text for each block offset from 0 to 63
"""
import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ADJECTIVES = """ancient bitter brave brittle bronze calm careless clever cloudy crooked curious dusty eager early faint
fearless fierce foolish gentle glossy golden graceful grumpy hollow honest hungry icy jolly keen lazy lively lonely loyal
mellow mighty modest muddy narrow nervous noble odd pale patient plain polite proud purple quiet rapid restless rusty salty
scarlet sharp silent silver sleepy slender smooth solemn spare steady stormy sturdy subtle swift tall tender thirsty timid
tired upright vague velvet vivid weary wicked wild wise woolen young zealous""".split()
NOUNS = """acorn anchor anvil apron arrow badge bakery ballad barrel basket beacon bell blanket bottle bridge bucket butter
button cabin candle canoe carpet castle cellar chimney circus clock coffee compass cottage cradle curtain dagger donkey
drawer engine falcon feather ferry fiddle forest fountain garden glacier goblet hammer harbor helmet herring island jacket
kettle ladder lantern lemon locket magnet mantle marble meadow mirror needle orchard oyster paddle parcel pepper pillow
planet pocket quarry rabbit ribbon saddle sailor scarf shovel signal spindle stable sundial temple thistle ticket tunnel
turnip valley violin wagon walnut whistle window yarn""".split()

NEEDLE = "One of the special magic numbers for {key} is: {value}."
QUESTION = "What is the special magic number for {key} mentioned in the provided text?"
PREFIX = " The special magic number for {key} mentioned in the provided text is"


def sentences(haystack):
    """The sentences of the haystack: a file, all .txt files of a directory, or "bible"."""
    if haystack == "bible":
        text = subprocess.run(["bible", "-f", "gen1:1-rev22:21"], check=True, capture_output=True, text=True).stdout
        text = re.sub(r"^\S+ ", "", text, flags=re.M)
    elif os.path.isdir(haystack):
        names = sorted(n for n in os.listdir(haystack) if n.endswith(".txt"))
        text = "\n".join(open(os.path.join(haystack, n), encoding="utf-8").read() for n in names)
    else:
        text = open(haystack, encoding="utf-8").read()
    return [s for s in re.split(r"(?<=[.!?])\s+", text) if s.strip()]


def build(parts, length_bytes, needles):
    """A text of about `length_bytes` bytes, with the needles at even depths."""
    body, size, i = [], 0, 0
    while size < length_bytes:
        body.append(parts[i % len(parts)])
        size += len(body[-1].encode()) + 1
        i += 1
    for depth, needle in sorted(enumerate(needles), reverse=True):
        at = round((depth + 0.5) / len(needles) * len(body))
        body.insert(at, NEEDLE.format(**needle))
    return " ".join(body) + "\n"


def make_needles(rng, count):
    keys = rng.sample([f"{a}-{n}" for a in ADJECTIVES for n in NOUNS], count)
    return [{"key": k, "value": str(rng.randint(1000000, 9999999))} for k in keys]


class Longhold:
    def __init__(self, args, home):
        self.base = [args.binary, "--home", home, "--model", args.model, "--json", "--quiet"]

    def run(self, *arguments):
        done = subprocess.run(self.base + list(arguments), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"needles.py: {' '.join(arguments)[:80]}: exit {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout) if done.stdout.strip() else {}


def ask_all(longhold, memory, needles, prefix, show):
    exact = cited = first = 0
    latencies = []
    for needle in needles:
        arguments = ["ask", memory, QUESTION.format(**needle), "--max-tokens", "24"]
        if prefix:
            arguments += ["--answer-prefix", PREFIX.format(**needle)]
        reply = longhold.run(*arguments)
        ok = needle["value"] in reply["answer"]
        ranks = [c["index"] for c in reply["citations"] if needle["value"] in c["text"]]
        exact += ok
        cited += bool(ranks)
        first += bool(ranks) and min(ranks) == 1
        latencies.append(reply["timings"]["first_token_ms"])
        if show and not (ok and ranks):
            print(f"  {needle['key']} {needle['value']}: cited {ranks[:1]}, answered {reply['answer'][:60]!r}", file=sys.stderr)
    return exact, cited, first, statistics.median(latencies)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--binary", default=os.path.join(root, "build/release/longhold"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--haystack", default="bible", help="'bible', a directory of .txt files, or a file")
    parser.add_argument("--tokens", type=int, default=8192, help="approximate length of the text")
    parser.add_argument("--needles", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--offsets", type=int, default=0, help="instead: N short texts, in each the needle is one token later than in the previous one")
    parser.add_argument("--no-prefix", action="store_true", help="ask without RULER's answer prefix")
    parser.add_argument("--full", metavar="GGUF", default="", help="also ask with libllama's own full attention (compare_native)")
    parser.add_argument("--home", default="", help="directory to keep the memories in (default: temporary)")
    args = parser.parse_args()

    rng = random.Random(args.seed)
    parts = sentences(args.haystack)
    home = args.home or tempfile.mkdtemp(prefix="longhold-needles-")
    longhold = Longhold(args, home)
    started = time.time()
    try:
        if args.offsets:
            exact = cited = 0
            for offset in range(args.offsets):
                needle = make_needles(rng, 1)[0]
                # Each "so " moves the rest of the text by one token.
                text = "so " * offset + build(parts, args.tokens * 4, [needle])
                path = os.path.join(home, f"offset-{offset}.txt")
                open(path, "w", encoding="utf-8").write(text)
                longhold.run("ingest", path, "--into", f"offset{offset}")
                e, c, _, _ = ask_all(longhold, f"offset{offset}", [needle], not args.no_prefix, True)
                exact, cited = exact + e, cited + c
            result = {"task": "offsets", "texts": args.offsets, "exact": exact, "cited": cited}
        else:
            needles = make_needles(rng, args.needles)
            path = os.path.join(home, "haystack.txt")
            probe = build(parts, args.tokens * 4, needles)
            open(path, "w", encoding="utf-8").write(probe)
            report = longhold.run("ingest", path, "--into", "needles")
            exact, cited, first, median = ask_all(longhold, "needles", needles, not args.no_prefix, True)
            result = {"task": "keyed needles", "tokens": report.get("tokens"), "needles": len(needles), "exact": exact,
                      "cited": cited, "cited_first": first, "first_token_ms": round(median),
                      "ingest_tok_s": round(report.get("tokens_per_s", 0))}
        if args.full and not args.offsets:
            tsv = os.path.join(home, "needles.tsv")
            open(tsv, "w").write("".join(f"{n['key']}\t{n['value']}\n" for n in needles))
            native = os.path.join(os.path.dirname(args.binary), "compare_native")
            done = subprocess.run([native, "needles", args.full, path, tsv], capture_output=True, text=True)
            result["full_attention"] = done.stdout.strip()
        result |= {"model": args.model, "haystack": args.haystack, "seed": args.seed, "prefix": not args.no_prefix,
                   "seconds": round(time.time() - started)}
        print(json.dumps(result))
    finally:
        if not args.home:
            shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
