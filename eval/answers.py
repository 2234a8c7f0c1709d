#!/usr/bin/env python3
"""Measures answers: how many questions on four kinds of text does a model answer right, and how long does it take?

  eval/answers.py --out DIR --model NAME --json rows.json                 all kinds of text, all modes
  ... --kinds book,code --modes longhold,rag-hybrid,oracle --limit 20     20 questions of each kind, evenly spread

Texts, questions, evidence and passages are those of evidence_recall.py, and so are the options that --help does not list:
--out, --kinds, --model, --embedder, --profile, --longhold, and the sources of the texts. With the same --out and
--embedder its memories and embeddings are used. Questions without an answer are left out.

What the model answers from. In all modes the chat template is the same, decoding is greedy, and --max-tokens applies.
  longhold    a memory of the text: `longhold serve` and its route ask, with default options; it may abstain
  rag-*       the first --words words of the passages, as evidence_recall.py ranks them, in the layout of `longhold eval`:
              passages lose what better ones contain, a blank line stands between them, the best one comes last
  oracle      all places of the evidence in text order, a line each. Turns of a conversation have the header of their
              session above them, because the date is there only; rag passages get no headers
  full        the whole text, with `longhold eval --mode full`, where it fits the model's native length. The documents of
              a text follow each other in path order. The text is read once for all its questions

For rag and oracle, the given text, a blank line and the question are asked of an empty memory, which may not abstain. So
attention is full. The prompt is that of `longhold eval`, with one blank line more, before the given text.

An answer is right if it contains an accepted answer. This is string_match_part of eval/metrics.h, but white space and
articles do not count either, and a number must not be a part of a larger number. The gold answers of conversations are
free text: an answer is right if the F1 of its stemmed tokens is at least 0.5, or if it has at least 0.8 of the gold
answer's content words. If longhold abstains, the answer is wrong.

  right       share of right answers, of n questions
  refused     share of questions for which longhold abstained
  s/question  median time of an answer, with retrieval; not known for full
  first ms    median time to the first token, with retrieval; full has read the text before
  reads       median number of tokens that an answer attends to: of the prompt, and recalled ones

A row that is in --json already is not asked again, so a run may be interrupted. Use a new file for a changed program.
"""
import argparse
import collections
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import evidence_recall as er
import locomo_text

MODES = ("longhold", "rag-bm25", "rag-embed", "rag-hybrid", "oracle", "full")
ARTICLES = {"a", "an", "the"}
F1_MIN, CONTENT_MIN = 0.5, 0.8
KEY = ("memory", "mode", "question", "words", "max_tokens", "profile")  # what tells rows apart


def conversation(args):
    corpora = er.conversation(args)
    for number, corpus in zip(args.conversations, corpora):
        told = locomo_text.load(args.locomo, number)
        for question, row in zip(corpus.questions, locomo_text.questions(told, locomo_text.text_lines(told)[1])):
            question.answers = [row["answer"]] if row["answer"] else []
    return corpora


LOAD = {"encyclopedia": er.encyclopedia, "book": er.book, "conversation": conversation, "code": er.code}


def folded(text):
    return " ".join(word for word in text.lower().split() if word not in ARTICLES)


def contains(answer, accepted):
    said, wanted = folded(answer), folded(accepted)
    if wanted.isdigit():
        return re.search(rf"(?<!\d){wanted}(?!\d)", said) is not None
    return wanted != "" and wanted in said


def tells(answer, gold):
    """Whether the answer says what a gold answer in free text says."""
    said, wanted = ([er.stem(word) for word in re.findall(r"\w+", folded(text))] for text in (answer, gold))
    shared = sum((collections.Counter(said) & collections.Counter(wanted)).values())
    content = set(er.search_words(gold)) or set(wanted)  # "no" is a stop word
    held = len(content.intersection(er.search_words(answer) + said))
    return 2 * shared >= F1_MIN * (len(said) + len(wanted)) > 0 or held >= CONTENT_MIN * len(content) > 0


def is_right(row):
    match = tells if row["kind"] == "conversation" else contains
    return not row["refused"] and not row["skipped"] and any(match(row["answer"], gold) for gold in row["gold"])


# ----------------------------------------------------------------------------------------------------------------------
# modes


def best_passages(corpus, items, words):
    taken, pieces = er.Taken(), []
    for item in items:
        for new in taken.add(item.range):
            ends = [m.end() for m in re.finditer(rb"\S+", corpus.documents[new.document].data[new.begin : new.end])][:words]
            if ends:
                pieces.append(corpus.text(er.Range(new.document, new.begin, new.begin + ends[-1])))
            words -= len(ends)
        if words <= 0:
            break
    return "\n\n".join(reversed(pieces))


def evidence(corpus, question):
    lines = []
    for place in sorted(question.places, key=lambda r: (r.document, r.begin)):
        if corpus.kind == "conversation":
            above = corpus.documents[place.document].data[: place.begin].decode().split("\n")
            lines += [line for line in above if locomo_text.is_header(line)][-1:]
        lines.append(corpus.text(place))
    return "\n".join(dict.fromkeys(lines))


def ask(server, args, memory, question, **options):
    begin = time.perf_counter()
    reply = server.post(f"/v1/memories/{memory}/ask", {"question": question, "max_tokens": args.max_tokens, **options})
    ms, reads = 1000 * (time.perf_counter() - begin), reply["plan"]["tokens_recalled"] + reply["usage"]["prompt_tokens"]
    row = {"answer": reply["answer"], "refused": reply["abstained"], "ms": ms, "reads": reads}
    return {**row, "first_token_ms": reply["timings"]["first_token_ms"]}, reply["timings"]["plan_ms"]


def from_text(server, args, give):
    memory = er.memory_name(args, er.Corpus("nothing", "read", [], []))
    if not os.path.isdir(os.path.join(args.out, "home/memories", memory)):
        server.post("/v1/memories", {"name": memory})

    def answer(question):
        begin = time.perf_counter()
        given = give(question)
        retrieval_ms = 1000 * (time.perf_counter() - begin)
        row, plan_ms = ask(server, args, memory, f"{given}\n\n{question.text}", abstain=False)
        for name in ("ms", "first_token_ms"):
            row[name] += retrieval_ms - plan_ms  # the plan is that of an empty memory
        return row

    return answer


def answerers(server, args, corpus, modes):
    """For each mode a function from a question to members of its row."""
    out = {}

    def give(mode, rank, question):
        if mode != "rag-bm25":  # the vector is known from before; this is for the time that it takes
            server.post("/v1/embeddings", {"model": er.EMBEDDER, "input": [question.text]})
        return best_passages(corpus, rank(question.text), args.words)

    if any(mode.startswith("rag") for mode in modes):
        for mode, rank in er.baselines(corpus, modes, server, args.out).items():
            out[mode] = from_text(server, args, lambda q, mode=mode, rank=rank: give(mode, rank, q))
    if "oracle" in modes:
        out["oracle"] = from_text(server, args, lambda question: evidence(corpus, question))
    if "longhold" in modes:
        memory = er.memory_name(args, corpus)
        server.post(f"/v1/memories/{memory}/recall", {"query": "Opens the memory."})
        out["longhold"] = lambda question: ask(server, args, memory, question.text)[0]
    return out


def full_attention(args, corpus, questions):
    """Members of the rows of the questions."""
    with tempfile.TemporaryDirectory(dir=args.out) as directory:
        text, asked, out = (os.path.join(directory, name) for name in ("text.txt", "questions.tsv", "run"))
        with open(text, "wb") as file:
            file.write(b"\n".join(document.data for document in corpus.documents))
        with open(asked, "w", encoding="utf-8") as file:
            file.writelines(f"\t{question.text}\t?\n" for question in questions)  # no evidence; we look for the answer
        options = ["--questions", asked, "--haystack", text, "--lengths", "whole", "--mode", "full", "--embedder", "none"]
        command = er.longhold_command(args, "eval", *options, "--max-tokens", str(args.max_tokens), "--quiet", "--out", out)
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        rows = [json.loads(line) for line in er.read_text(os.path.join(out, "results.jsonl")).splitlines()[1:]]
    return [{"answer": row["answer"], "refused": False, "ms": None, "reads": row["tokens_read"], "skipped": row["skipped"],
             "first_token_ms": row["first_token_ms"], "read_seconds": row["read_seconds"]}
            for row in sorted(rows, key=lambda row: row["question"])]


# ----------------------------------------------------------------------------------------------------------------------
# the run


class Rows:
    """The rows of this run and those of the file, a JSON array. The file is replaced after each answer."""

    def __init__(self, path):
        self.path, self.rows = path, {}
        for row in json.loads(er.read_text(path)) if path and os.path.exists(path) else ():
            self.rows[self.key(row)] = {**row, "right": is_right(row)}

    def key(self, row):
        return tuple(row[name] for name in KEY)

    def find(self, row):
        return self.rows.get(self.key(row))

    def put(self, row):
        row = {name: round(value, 1) if isinstance(value, float) else value for name, value in row.items()}
        self.rows[self.key(row)] = {**row, "right": is_right(row)}
        if self.path:
            with open(self.path + ".part", "w", encoding="utf-8") as file:
                file.write("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in self.rows.values()) + "\n]\n")
            os.replace(self.path + ".part", self.path)


def new_row(args, corpus, mode, question):
    return {"kind": corpus.kind, "text": corpus.name, "memory": er.memory_name(args, corpus), "model": args.model,
            "mode": mode, "words": args.words if mode.startswith("rag") else None, "max_tokens": args.max_tokens,
            "profile": args.profile, "question": question.text, "category": question.category, "gold": question.answers,
            "evidence": [corpus.shown(place) for place in question.places], "skipped": ""}


def run_corpus(args, rows, corpus, questions, modes, server=None):
    """Asks what has no row. Without a server the modes are those that need none."""
    left = {m: [q for q in questions if not rows.find(new_row(args, corpus, m, q))] for m in modes}
    left = {mode: asked for mode, asked in left.items() if asked}
    ask_in = answerers(server, args, corpus, list(left)) if server else {}
    for mode, asked in left.items():
        print(f"answers.py: {corpus.name} {mode}: {len(asked)} questions", file=sys.stderr, flush=True)
        told = map(ask_in[mode], asked) if server else full_attention(args, corpus, asked)
        for question, members in zip(asked, told):
            rows.put({**new_row(args, corpus, mode, question), **members})


def run(args, rows, corpora):
    """`full` comes first, because a server would take memory from it. `corpora`: pairs of a corpus and questions."""
    for corpus, questions in corpora:
        run_corpus(args, rows, corpus, questions, [mode for mode in args.modes if mode == "full"])
    served = [mode for mode in args.modes if mode != "full"]
    if all(rows.find(new_row(args, corpus, mode, q)) for corpus, asked in corpora for mode in served for q in asked):
        return
    for corpus, _ in corpora if "longhold" in served else ():
        er.read_into_memory(args, corpus)
    with er.serving(args) as server:
        for corpus, questions in corpora:
            run_corpus(args, rows, corpus, questions, served, server)


def table(kind, rows, modes):
    """Lines of at most 80 columns: a row per mode."""
    form = "%-10s %6s %5s %8s %11s %9s %7s"
    lines = [f"{kind} ({', '.join(dict.fromkeys(row['text'] for row in rows))})"]
    lines.append(form % ("mode", "right", "n", "refused", "s/question", "first ms", "reads"))
    for mode in modes:
        own = [row for row in rows if row["mode"] == mode and not row["skipped"]]
        if not own:
            lines.append(form % (mode, "-", 0, *"----"))
            continue
        right, refused = (er.percent(statistics.fmean(row[name] for row in own)) for name in ("right", "refused"))
        ms, first, reads = (statistics.median(row[name] or 0 for row in own) for name in ("ms", "first_token_ms", "reads"))
        seconds = f"{ms / 1000:.2f}" if mode != "full" else "-"
        lines.append(form % (mode, right, len(own), refused if mode == "longhold" else "-", seconds, round(first), round(reads)))
    notes = [(row, row["skipped"] or f"read in {row['read_seconds']:.0f} s") for row in rows if row["mode"] == "full"]
    return lines + list(dict.fromkeys(f"  {row['text']}, full: {what}" for row, what in notes))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False, epilog="Other options: see evidence_recall.py --help.")
    parser.add_argument("--modes", type=er.listed(MODES), default=list(MODES))
    parser.add_argument("--limit", type=int, metavar="N", help="questions of each kind, evenly spread (default: all)")
    parser.add_argument("--words", type=int, default=400, metavar="N", help="of the passages of a prompt (default 400)")
    parser.add_argument("--max-tokens", type=int, default=48, metavar="N", help="of an answer (default 48, as `longhold eval`)")
    parser.add_argument("--json", metavar="FILE", help="rows of this run and of earlier ones")
    own, sys.argv[1:] = parser.parse_known_args()
    args = er.parse_arguments()  # without --limit: the loaders would take the first questions
    return argparse.Namespace(**{**vars(args), **vars(own), "limit": None}), own.limit


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends, too
    args, limit = parse_arguments()
    rows, corpora = Rows(args.json), []
    for kind in args.kinds:
        loaded = LOAD[kind](args)
        pairs = er.spread([(c, q) for c in loaded for q in c.questions if q.places and q.answers], limit)
        corpora += [(corpus, asked) for corpus in loaded if (asked := [q for c, q in pairs if c is corpus])]
    run(args, rows, corpora)
    for kind in args.kinds:
        own = [(c, q) for c, asked in corpora for q in asked if c.kind == kind]
        print("\n".join(table(kind, [rows.find(new_row(args, c, m, q)) for c, q in own for m in args.modes], args.modes)) + "\n")


if __name__ == "__main__":
    main()
