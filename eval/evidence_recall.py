#!/usr/bin/env python3
"""Measures retrieval alone, without answers: does the evidence of a question come back, and in how many words?

  eval/evidence_recall.py --out DIR                                       all kinds of text, all modes, model smollm2
  ... --kinds encyclopedia,conversation --modes longhold,rag-bm25 --limit 20
  ... --json rows.json                                                    every question, with what was found for it
  eval/evidence_recall.py --write-cases DIR                               the texts and questions, for longhold calibrate

Kinds of text, their questions and evidence:
  encyclopedia  a labelled paragraph a line, and a TSV: labels (any suffices), question, answers
  book          a labelled verse a line, as `bible -f` prints it, and a TSV of the same form
  conversation  LoCoMo (see locomo_text.py); all turns of the evidence are needed; category 5 has no answer
  code          the files of a directory, and a TSV: path:first-last (any suffices), question, answers

Modes: longhold is `longhold serve` and its recall; the items are the spans of a recall of --spans spans that may not
abstain, in the order of the reply. rag-bm25, rag-embed (all-MiniLM-L6-v2) and rag-hybrid (reciprocal rank fusion of both)
rank the same passages: pairs of lines or sentences with a stride of one, in code 12 lines with a stride of 6.

A place of evidence (a paragraph, verse, turn or range of lines) is found when the items hold at least half of its bytes.
  h@K           share of questions of which the first K items, together, find a place
  r@20          evidence recall of 20 items: the share of needed places found; where any place suffices, the same as h@20
  MRR           mean of 1/K, for the least K that finds a place
  rW            evidence recall of the first W words: the items' text in order, overlap once, the last item cut
  a200          share of questions of which the first 200 words contain an accepted answer (not for conversations)
  th20, tr20    h@20 and r@20 of turns, in the order in which the items bring half of them (conversations)
  refused       share of questions with an answer where a default recall abstained;  recognised: of those without

Questions without an answer count for `recognised` only. Texts, memories and embeddings stay in --out for the next run.
"""
import argparse
import bisect
import collections
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

import locomo_text
import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KINDS = ("encyclopedia", "book", "conversation", "code")
MODES = ("longhold", "rag-bm25", "rag-embed", "rag-hybrid")
EMBEDDER = "minilm-l6"
HITS = (1, 4, 8, 20)
WORDS = (100, 200, 400, 800)
ITEMS = 20  # of r@20
ANSWER_WORDS = 200
RANKED = 100  # items that a baseline ranks, and that fusion takes of each; enough for 800 words
SHOWN = 32  # items of a row of --json


# ----------------------------------------------------------------------------------------------------------------------
# texts and questions


class Document:
    """A text as UTF-8 bytes, with the byte range of each line (from 1, without its newline)."""

    def __init__(self, name, text):
        self.name = name
        self.data = text.encode()
        self.starts = [0] + [m.end() for m in re.finditer(rb"\n", self.data) if m.end() < len(self.data)]

    def line_at(self, byte):
        return bisect.bisect_right(self.starts, byte)

    def lines(self, first, last):
        end = self.starts[last] if last < len(self.starts) else len(self.data)
        begin = self.starts[first - 1]
        return begin, begin + len(self.data[begin:end].rstrip(b"\n"))


@dataclasses.dataclass(frozen=True)
class Range:
    """Bytes of a document: a place of evidence, a passage, or a recalled span."""

    document: int
    begin: int
    end: int


@dataclasses.dataclass
class Item:
    range: Range
    score: float
    reasons: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Question:
    text: str
    places: list  # of Range; empty: the text has no answer
    all_needed: bool = False  # else any place suffices
    answers: list = dataclasses.field(default_factory=list)
    category: int | None = None


@dataclasses.dataclass
class Corpus:
    """The documents that one memory holds, and the questions on them."""

    kind: str
    name: str
    documents: list
    questions: list

    def text(self, r):
        return self.documents[r.document].data[r.begin : r.end].decode(errors="ignore")

    def shown(self, r):
        document = self.documents[r.document]
        return f"{document.name}:{document.line_at(r.begin)}-{document.line_at(max(r.begin, r.end - 1))}"

    def digest(self):
        digest = hashlib.sha256()
        for document in self.documents:
            digest.update(f"{document.name}\0{len(document.data)}\0".encode() + document.data)
        return digest.hexdigest()[:10]


def read_text(path):
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def note(text):
    print(f"evidence_recall.py: {text}", file=sys.stderr)


def question_rows(path):
    for line in read_text(path).split("\n"):
        if line.strip() and not line.startswith("#"):
            evidence, question, answers = (line.split("\t") + ["", ""])[:3]
            yield evidence.strip(), question.strip(), [a for a in answers.strip().split("|") if a not in ("", "-")]


def placed_questions(path, find):
    """The questions of a TSV; `find` makes a Range of a piece of evidence, or None, which leaves the piece out."""
    asked, left_out = [], 0
    for evidence, question, answers in question_rows(path):
        places = [place for piece in evidence.split(",") if piece not in ("", "-") and (place := find(piece.strip()))]
        if places or evidence == "-":
            asked.append(Question(question, places, answers=answers))
        else:
            left_out += 1
    if left_out:
        note(f"{path}: {left_out} questions left out, whose evidence is not in the text")
    return asked


def labelled_corpus(kind, name, text, questions):
    document = Document(name, text)
    labels = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line:
            labels.setdefault(line.split(" ", 1)[0], number)

    def find(label):
        return Range(0, *document.lines(labels[label], labels[label])) if label in labels else None

    return Corpus(kind, name, [document], placed_questions(questions, find))


def encyclopedia(args):
    corpus = labelled_corpus("encyclopedia", "encyclopedia", read_text(args.encyclopedia), args.encyclopedia_questions)
    corpus.questions = corpus.questions[: args.limit or 100]
    return [corpus]


def book(args):
    if os.path.isfile(args.book):
        text = read_text(args.book)
    else:
        text = subprocess.run(["bible", "-f", args.book], capture_output=True, text=True, check=True).stdout
    corpus = labelled_corpus("book", "book", text, args.book_questions)
    corpus.questions = corpus.questions[: args.limit]
    return [corpus]


def spread(items, limit):
    """`limit` of the items, evenly spread: LoCoMo's questions stand in the order of their categories."""
    if not limit or limit >= len(items):
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def conversation(args):
    corpora = []
    for number in args.conversations:
        told = locomo_text.load(args.locomo, number)
        lines, places = locomo_text.text_lines(told)
        document = Document(f"conv-{number}", "".join(line + "\n" for line in lines))
        rows = locomo_text.questions(told, places)
        if len(rows) < len(told["qa"]):
            note(f"conv-{number}: {len(told['qa']) - len(rows)} questions left out, without evidence")
        questions = [
            Question(r["question"], [Range(0, *document.lines(n, n)) for n in r["lines"] or []], True, [], r["category"])
            for r in rows
        ]
        corpora.append(Corpus("conversation", f"conv-{number}", [document], spread(questions, args.limit)))
    return corpora


def text_files(directory):
    """Path and text of all files of text, but hidden ones, in path order."""
    for at, folders, files in os.walk(directory):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for file in sorted(f for f in files if not f.startswith(".")):
            path = os.path.join(at, file)
            with contextlib.suppress(UnicodeDecodeError):
                text = read_text(path)
                if text.strip() and "\0" not in text:
                    yield os.path.relpath(path, directory), text


def code(args):
    documents = [Document(name, text) for name, text in text_files(args.code)]
    numbers = {document.name: number for number, document in enumerate(documents)}

    def find(piece):
        path, _, lines = piece.rpartition(":")
        first, _, last = lines.partition("-")
        if path not in numbers or not 1 <= int(first) <= int(last or first) <= len(documents[numbers[path]].starts):
            note(f"no such lines: {piece}")
            return None
        return Range(numbers[path], *documents[numbers[path]].lines(int(first), int(last or first)))

    questions = placed_questions(args.code_questions, find)[: args.limit]
    return [Corpus("code", os.path.basename(os.path.normpath(args.code)), documents, questions)]


# ----------------------------------------------------------------------------------------------------------------------
# labelled cases, as `longhold calibrate --cases` reads them (eval/labelled_cases.h)


def case_line(corpus, question):
    places = ("&" if question.all_needed else ",").join(corpus.shown(place) for place in question.places)
    columns = [places or "-", question.text, "|".join(question.answers) or "-"]
    return "\t".join(" ".join(column.split()) for column in columns) + "\n"


def write_cases(directory, corpora):
    """A directory per kind: texts/ and questions.tsv."""
    for kind in dict.fromkeys(corpus.kind for corpus in corpora):
        lines = ["# evidence (path:first-last; ',' any suffices, '&' all are needed; '-' none)\tquestion\tanswers\n"]
        for corpus in (c for c in corpora if c.kind == kind):
            for document in corpus.documents:
                path = os.path.join(directory, kind, "texts", document.name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    file.write(document.data)
            lines += [case_line(corpus, question) for question in corpus.questions]
        with open(os.path.join(directory, kind, "questions.tsv"), "w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
        print(f"{os.path.join(directory, kind)}: {len(lines) - 1} questions")


# ----------------------------------------------------------------------------------------------------------------------
# passages, as eval/passages.cc cuts them


def unit_end(data, begin, line_end, sentences, bytes_max):
    last_space = 0
    for i in range(begin, line_end):
        space = data[i] in b" \n\t\r"
        if sentences and data[i] in b".!?" and i + 1 < line_end and data[i + 1] in b" \n\t\r" and i - begin >= 20:
            return i + 1
        if space:
            last_space = i + 1
        if i - begin >= bytes_max:
            if last_space > begin:
                return last_space
            while i < line_end and data[i] & 0xC0 == 0x80:
                i += 1
            return i
    return line_end


def text_units(data, line_bytes=300, unit_bytes=600):
    """Byte ranges of lines, or of the sentences of long lines, without blank ones."""
    units, at = [], 0
    for line in re.findall(rb"[^\n]*\n|[^\n]+", data):
        line_end = at + len(line)
        while at < line_end:
            end = unit_end(data, at, line_end, len(line) > line_bytes, unit_bytes)
            if data[at:end].strip():
                units.append((at, end))
            at = end
    return units


def windows(units, size, stride):
    out = []
    for first in range(0, len(units), stride):
        last = min(first + size, len(units)) - 1
        out.append((units[first][0], units[last][1]))
        if last + 1 == len(units):
            break
    return out


def passages(corpus):
    cut = []
    for number, document in enumerate(corpus.documents):
        if corpus.kind == "code":
            ends = [*document.starts[1:], len(document.data)]
            pieces = windows(list(zip(document.starts, ends)), 12, 6)
        else:
            pieces = windows(text_units(document.data), 2, 1)
        cut += [Range(number, begin, end) for begin, end in pieces if document.data[begin:end].strip()]
    return cut


# ----------------------------------------------------------------------------------------------------------------------
# baselines

STOP_WORDS = frozenset(
    "a about after all also am an and any are as at be been before being but by can could did do does for from had has "
    "have having he her here him his how i if in into is it its me might must my no nor not of on or our out s shall she "
    "should so some such t than that the thee their them then there these they this those thou thy to unto up upon us was "
    "we were what when where which while who whom whose why will with would ye you your".split()
)
PARTS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=\d)(?=\D)|(?<=\D)(?=\d)|_+")


def stem(word):
    """Takes plurals, -ed, -ing and -ly off; a light form of Porter's first step."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "ches", "shes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        word = word[:-1]
    for ending in ("ing", "ed", "ly"):
        base = word[: -len(ending)]
        if word.endswith(ending) and len(base) > 2 and re.search("[aeiouy]", base):
            if base[-1] == base[-2] and base[-1] not in "lsz":
                base = base[:-1]
            word = base
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def search_words(text):
    """Stemmed words; an identifier gives its parts, split at case changes, underscores and digits, and the whole."""
    words = []
    for token in re.findall(r"\w+", text):
        parts = [part for part in PARTS.split(token) if part]
        whole = [token.strip("_")] if len(parts) > 1 else []
        words += [stem(w) for w in (p.lower() for p in parts + whole) if w not in STOP_WORDS]
    return words


class Bm25:
    def __init__(self, texts, k1=1.2, b=0.75):
        self.k1, self.b = k1, b
        counts = [collections.Counter(search_words(text)) for text in texts]
        self.lengths = [sum(count.values()) for count in counts]
        self.mean = statistics.fmean(self.lengths)
        self.postings = collections.defaultdict(list)
        for number, count in enumerate(counts):
            for word, times in count.items():
                self.postings[word].append((number, times))

    def rank(self, question):
        scores = collections.Counter()
        for word in search_words(question):
            found = self.postings.get(word, ())
            idf = math.log(1 + (len(self.lengths) - len(found) + 0.5) / (len(found) + 0.5))
            for number, times in found:
                norm = self.k1 * (1 - self.b + self.b * self.lengths[number] / self.mean)
                scores[number] += idf * times * (self.k1 + 1) / (times + norm)
        return sorted(scores.items(), key=lambda s: (-s[1], s[0]))[:RANKED]


class Embedded:
    def __init__(self, vectors, questions):
        self.vectors, self.questions = vectors, questions

    def rank(self, question):
        scores = self.vectors @ self.questions[question]
        return [(int(i), float(scores[i])) for i in np.argsort(-scores, kind="stable")[:RANKED]]


def fused(rankings, k=60):
    """Reciprocal rank fusion (Cormack et al. 2009)."""
    scores = collections.Counter()
    for ranking in rankings:
        for rank, (number, _) in enumerate(ranking, 1):
            scores[number] += 1 / (k + rank)
    return sorted(scores.items(), key=lambda s: (-s[1], s[0]))[:RANKED]


def embed(server, out, name, texts):
    """Vectors of the texts: from the file of an earlier run, if it embedded the same ones."""
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    path = os.path.join(out, "embeddings", f"{name}-{digest}.npz")
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        rows = []
        for begin in range(0, len(texts), 64):
            reply = server.post("/v1/embeddings", {"model": EMBEDDER, "input": texts[begin : begin + 64]})
            rows += [row["embedding"] for row in sorted(reply["data"], key=lambda row: row["index"])]
        np.savez(path + ".part.npz", vectors=np.array(rows, dtype=np.float32))
        os.replace(path + ".part.npz", path)
    return np.load(path)["vectors"]


def baselines(corpus, modes, server, out):
    """For each mode a function from a question to its items."""
    cut = passages(corpus)
    texts = [corpus.text(r) for r in cut]
    asked = [q.text for q in corpus.questions]
    bm25 = Bm25(texts)
    embedded = None
    if "rag-embed" in modes or "rag-hybrid" in modes:
        vectors = embed(server, out, f"{corpus.kind}-{corpus.name}", texts)
        embedded = Embedded(vectors, dict(zip(asked, embed(server, out, f"{corpus.kind}-{corpus.name}-questions", asked))))
    rank = {
        "rag-bm25": bm25.rank,
        "rag-embed": lambda q: embedded.rank(q),
        "rag-hybrid": lambda q: fused([bm25.rank(q), embedded.rank(q)]),
    }
    return {mode: lambda q, mode=mode: [Item(cut[i], s) for i, s in rank[mode](q)] for mode in modes if mode in rank}


# ----------------------------------------------------------------------------------------------------------------------
# longhold


def memory_name(args, corpus):
    model = os.path.splitext(os.path.basename(args.model))[0]
    digest = corpus.digest() if args.read == 100 else f"{corpus.digest()[:7]}r{args.read}"
    parts = [corpus.kind, corpus.name, model, *([args.embedder] if args.embedder else []), digest]
    return re.sub(r"[^a-z0-9-]+", "-", "-".join(parts).lower())


def longhold_command(args, *command):
    profile = ["--profile", args.profile] if args.profile else []
    return [args.longhold, *command, "--home", os.path.join(args.out, "home"), "--model", args.model, *profile]


def texts_directory(args, corpus):
    return os.path.join(args.out, "texts", memory_name(args, corpus))


def read_into_memory(args, corpus):
    """Writes the documents to files and ingests them, unless an earlier run did."""
    directory = texts_directory(args, corpus)
    done = directory + ".read"
    if os.path.exists(done):
        return
    for document in corpus.documents:
        path = os.path.join(directory, document.name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(document.data)
    embedder = ["--embedder", args.embedder] if args.embedder else []
    memory = memory_name(args, corpus)
    command = longhold_command(args, "ingest", directory, "--into", memory, *embedder)
    if args.read == 100:
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    else:
        subprocess.run([*command, "--index-only"], stdout=subprocess.DEVNULL, check=True)
    if 0 < args.read < 100:
        shown = subprocess.run(longhold_command(args, "show", memory, "--json"), capture_output=True, check=True)
        tokens = sum(document["tokens"] for document in json.loads(shown.stdout)["documents"])
        subprocess.run(longhold_command(args, "read", memory, "--tokens", str(max(1, tokens * args.read // 100)), *embedder),
                       stdout=subprocess.DEVNULL, check=True)
    open(done, "w").close()


class Server:
    def __init__(self, address):
        self.address = address

    def post(self, route, body):
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + route, data, headers)
        try:
            with urllib.request.urlopen(request) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            sys.exit(f"evidence_recall.py: {route}: {error.code}: {error.read().decode(errors='replace')}")


@contextlib.contextmanager
def serving(args):
    """`longhold serve` on a free port of this machine."""
    command = longhold_command(args, "serve", "--listen", "127.0.0.1:0", "--embedder", EMBEDDER)
    with open(os.path.join(args.out, "serve.log"), "w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        address = re.search(r"http://\S+", process.stdout.readline())
        if not address:
            sys.exit(f"evidence_recall.py: longhold serve did not start; see {args.out}/serve.log")
        yield Server(address.group())
    finally:
        process.terminate()
        process.wait()
        for line in read_text(os.path.join(args.out, "serve.log")).splitlines():
            if line.startswith("memory "):  # it is not what this run should measure, perhaps
                note(f"longhold serve: {line}")


class Longhold:
    def __init__(self, server, args, corpus):
        self.server, self.corpus, self.spans = server, corpus, args.spans
        self.route = f"/v1/memories/{memory_name(args, corpus)}/recall"
        names = [os.path.join(texts_directory(args, corpus), d.name) for d in corpus.documents]
        self.numbers = {name: number for number, name in enumerate(names)}
        self.odd = collections.Counter()
        self.server.post(self.route, {"query": "Opens the memory."})

    def recall(self, question, **options):
        begin = time.perf_counter()
        reply = self.server.post(self.route, {"query": question, **options})
        return reply, 1000 * (time.perf_counter() - begin)

    def items(self, reply):
        items = []
        for span in reply["spans"]:
            r = Range(self.numbers[span["document"]], span["byte_start"], span["byte_end"])
            items.append(Item(r, span["score"], span["reasons"]))
            self.odd["spans whose text is not that of their bytes"] += self.corpus.text(r) != span["text"].replace("�", "")
        scores = [item.score for item in items]
        self.odd["replies that are not in order of score"] += scores != sorted(scores, reverse=True)
        self.odd["replies with overlapping spans"] += overlapping([item.range for item in items])
        self.odd["replies of fewer than 8 spans"] += len(items) < 8
        return items

    def ask(self, question):
        """Items of a recall that may not abstain, and whether the recall that a client gets by default abstains."""
        default, default_ms = self.recall(question)
        reply, ms = self.recall(question, spans=self.spans, abstain=False)
        timing = {"ms": ms, "plan_ms": reply["timings"]["plan_ms"], "default_ms": default_ms}
        return self.items(reply), {"abstained": default["abstained"], "default_spans": len(default["spans"]), **timing}


def overlapping(ranges):
    ordered = sorted(ranges, key=lambda r: (r.document, r.begin))
    return any(a.document == b.document and b.begin < a.end for a, b in zip(ordered, ordered[1:]))


# ----------------------------------------------------------------------------------------------------------------------
# measures


class Taken:
    """The bytes that items have brought so far, by document, as disjoint ranges in order."""

    def __init__(self):
        self.ranges = collections.defaultdict(list)

    def add(self, r):
        """Adds the range, and returns those parts of it that are new."""
        new, at = [], r.begin
        for begin, end in self.ranges[r.document]:
            if end <= at or begin >= r.end:
                continue
            if begin > at:
                new.append(Range(r.document, at, begin))
            at = max(at, end)
        if at < r.end:
            new.append(Range(r.document, at, r.end))
        self.ranges[r.document] = sorted(self.ranges[r.document] + [(n.begin, n.end) for n in new])
        return new

    def holds(self, place):
        """Whether at least half of the place's bytes are taken."""
        shared = sum(max(0, min(end, place.end) - max(begin, place.begin)) for begin, end in self.ranges[place.document])
        return 2 * shared >= place.end - place.begin


def found_at(places, items):
    """For each place, after how many items it is found, or None."""
    taken, found = Taken(), [None] * len(places)
    for count, item in enumerate(items, 1):
        taken.add(item.range)
        for i, place in enumerate(places):
            if found[i] is None and taken.holds(place):
                found[i] = count
    return found


def recall_share(question, found):
    """Evidence recall, where `found` says of each place whether it was found."""
    return statistics.fmean(found) if question.all_needed else float(any(found))


def first_words(corpus, items, budget):
    """What a reader of `budget` words gets: the taken bytes, and their text."""
    taken, read, texts = Taken(), Taken(), []
    for item in items:
        for new in taken.add(item.range):
            data = corpus.documents[new.document].data[new.begin : new.end]
            words = list(re.finditer(rb"\S+", data))[:budget]
            if words:
                part = Range(new.document, new.begin, new.begin + words[-1].end())
                read.add(part)
                texts.append(corpus.text(part))
            budget -= len(words)
        if budget <= 0:
            break
    return read, "\n".join(texts)


def turns(corpus, items, limit):
    """The first `limit` turns, in the order in which the items bring half of them."""
    taken, order = Taken(), []
    for item in items:
        taken.add(item.range)
        document = corpus.documents[item.range.document]
        for line in range(document.line_at(item.range.begin), document.line_at(item.range.end - 1) + 1):
            turn = Range(item.range.document, *document.lines(line, line))
            if turn not in order and taken.holds(turn) and not locomo_text.is_header(corpus.text(turn)):
                order.append(turn)
        if len(order) >= limit:
            break
    return order[:limit]


def squeezed(text):
    return " ".join(text.lower().split())


def measure(corpus, question, items):
    at = found_at(question.places, items)
    first = min((a for a in at if a), default=None)
    out = {f"h@{k}": float(first is not None and first <= k) for k in HITS}
    out[f"r@{ITEMS}"] = recall_share(question, [a is not None and a <= ITEMS for a in at])
    out["MRR"] = 1 / first if first else 0.0
    for budget in WORDS:
        read, text = first_words(corpus, items, budget)
        out[f"r{budget}"] = recall_share(question, [read.holds(place) for place in question.places])
        if budget == ANSWER_WORDS and question.answers:
            out[f"a{budget}"] = float(any(squeezed(answer) in squeezed(text) for answer in question.answers))
    if corpus.kind == "conversation":
        first_turns = turns(corpus, items, ITEMS)
        brought = [place in first_turns for place in question.places]
        out[f"th{ITEMS}"], out[f"tr{ITEMS}"] = float(any(brought)), recall_share(question, brought)
    return at, out


def row_of(corpus, mode, question, items, extra):
    row = {"kind": corpus.kind, "text": corpus.name, "mode": mode, "question": question.text, "category": question.category}
    row["evidence"] = [corpus.shown(place) for place in question.places]
    row["all_needed"] = question.all_needed
    if question.places:
        row["found_at"], row["measures"] = measure(corpus, question, items)
    row["spans"] = [{"place": corpus.shown(i.range), "bytes": [i.range.begin, i.range.end], "score": round(i.score, 5),
                     "reasons": i.reasons} for i in items[:SHOWN]]
    row["items"] = len(items)
    return {**row, **extra}


# ----------------------------------------------------------------------------------------------------------------------
# the run


def run_corpus(args, server, corpus):
    rows = []
    ask = {mode: lambda q, f=f: (f(q), {}) for mode, f in baselines(corpus, args.modes, server, args.out).items()}
    if "longhold" in args.modes:
        longhold = Longhold(server, args, corpus)
        ask["longhold"] = longhold.ask
    for mode in args.modes:
        for question in corpus.questions:
            rows.append(row_of(corpus, mode, question, *ask[mode](question.text)))
    if "longhold" in args.modes:
        for what, count in longhold.odd.items():
            if count:
                note(f"{corpus.name}: {count} {what}")
    return rows


def mean_of(rows, measure_name):
    values = [row["measures"][measure_name] for row in rows if measure_name in row.get("measures", {})]
    return statistics.fmean(values) if values else None


def share(values):
    values = list(values)
    return f"{100 * statistics.fmean(values):.1f} % of {len(values)}" if values else "- of 0"


def percent(value):
    return "-" if value is None else "100" if value > 0.9995 else f"{100 * value:.1f}"


def table(kind, rows, modes):
    """Lines of at most 80 columns: a row per mode."""
    names = [f"h@{k}" for k in HITS] + [f"r@{ITEMS}", "MRR"] + [f"r{w}" for w in WORDS]
    names += [f"th{ITEMS}", f"tr{ITEMS}"] if kind == "conversation" else [f"a{ANSWER_WORDS}"]
    asked = [row for row in rows if row["mode"] == modes[0]]
    answerable = sum(bool(row["evidence"]) for row in asked)
    texts = ", ".join(dict.fromkeys(row["text"] for row in asked))
    lines = [f"{kind} ({texts}): {answerable} questions, and {len(asked) - answerable} without an answer"]
    lines.append("%-10s" % "mode" + "".join(f"{name:>5}" for name in names))
    for mode in modes:
        own = [row for row in rows if row["mode"] == mode]
        lines.append(f"{mode:<10}" + "".join(f"{percent(mean_of(own, name)):>5}" for name in names))
    return lines + longhold_lines([row for row in rows if row["mode"] == "longhold"])


def longhold_lines(rows):
    if not rows:
        return []
    times = [statistics.median(row[name] for row in rows) for name in ("ms", "plan_ms", "default_ms")]
    refused = share(row["abstained"] for row in rows if row["evidence"])
    recognised = share(row["abstained"] for row in rows if not row["evidence"])
    items = statistics.median(row["items"] for row in rows)
    return [f"longhold: refused {refused}; recognised {recognised}",
            "  a recall: median %.0f ms (plan %.0f; default spans %.0f), %g items" % (*times, items)]


def listed(choices):
    def parse(text):
        chosen = text.split(",")
        for name in chosen:
            if name not in choices:
                raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(choices)}")
        return chosen

    return parse


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--out", metavar="DIR", help="work directory: texts, home, embeddings")
    goal.add_argument("--write-cases", metavar="DIR", help="write texts and questions there, and ask nothing")
    parser.add_argument("--kinds", type=listed(KINDS), default=list(KINDS))
    parser.add_argument("--modes", type=listed(MODES), default=list(MODES))
    parser.add_argument("--limit", type=int, help="questions of each text (default: 100 of the encyclopedia, else all)")
    parser.add_argument("--json", metavar="FILE", help="write all rows")
    parser.add_argument("--longhold", default=os.path.join(ROOT, "build/release/longhold"))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--read", type=int, default=100, metavar="PERCENT", help="of each memory, that the model reads (default 100)")
    parser.add_argument("--embedder", help="of the memories, or none (default: what `longhold ingest` does without it)")
    parser.add_argument("--profile", help="recall profile that replaces the model's own")
    parser.add_argument("--spans", type=int, default=32, help="spans of a recall")
    shared = os.path.join(os.path.dirname(ROOT), "shared/data")
    parser.add_argument("--encyclopedia", default=os.path.join(shared, "xquad_dev.txt"), metavar="TXT")
    parser.add_argument("--encyclopedia-questions", default=os.path.join(shared, "xquad_dev.tsv"), metavar="TSV")
    parser.add_argument("--book", default="gen1:1-deu34:12", help="a file, or a range for `bible -f`")
    parser.add_argument("--book-questions", default=os.path.join(ROOT, "eval/kjv_questions.tsv"), metavar="TSV")
    parser.add_argument("--locomo", default="locomo10.zip", help="a git directory of LoCoMo, or its zip file")
    parser.add_argument("--conversations", type=lambda text: [int(n) for n in text.split(",")], default=[26, 30, 41])
    parser.add_argument("--code", default="leveldb", metavar="DIR")
    parser.add_argument("--code-questions", default=os.path.join(ROOT, "eval/leveldb_questions.tsv"), metavar="TSV")
    args = parser.parse_args()
    if args.out:
        args.out = os.path.abspath(args.out)
        os.makedirs(args.out, exist_ok=True)
    return args


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends, too
    args = parse_arguments()
    load = {"encyclopedia": encyclopedia, "book": book, "conversation": conversation, "code": code}
    corpora = [corpus for kind in args.kinds for corpus in load[kind](args)]
    if args.write_cases:
        write_cases(args.write_cases, corpora)
        return
    if "longhold" in args.modes:
        for corpus in corpora:
            read_into_memory(args, corpus)
    alone = args.modes == ["rag-bm25"]
    with contextlib.nullcontext() if alone else serving(args) as server:
        rows = [row for corpus in corpora for row in run_corpus(args, server, corpus)]
    blocks = [table(kind, [row for row in rows if row["kind"] == kind], args.modes) for kind in args.kinds]
    print("\n\n".join("\n".join(block) for block in blocks))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    main()
