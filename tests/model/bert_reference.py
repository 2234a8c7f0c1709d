#!/usr/bin/env python3
"""A BERT sentence encoder in numpy, written from the model's published definition. It is the reference for
model/bert_gguf.cc and model/embedder.cc. Shares no code with libllama: its own WordPiece, exact GELU, float64.

    bert_reference.py SAFETENSORS VOCAB_TXT HEADS < texts       one text per line -> one unit vector per line
"""

import json
import math
import struct
import sys
import unicodedata

import numpy as np

TOKENS_MAX = 256


def read_safetensors(path):
    with open(path, "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"]).astype(np.float64)
    return tensors


def write_safetensors(path, tensors, tail=b""):
    header, offset = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [offset, offset + 4 * values.size]}
        offset += 4 * values.size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(values.astype("<f4").tobytes())
        file.write(tail)


def words(text):
    """Lower-cases, removes accents, and splits at white space and around punctuation and CJK characters."""
    out, word = [], ""
    for c in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(c)
        if category == "Mn" or (category.startswith("C") and c not in "\t\n\r") or c == "\ufffd":
            continue
        space = c.isspace()
        alone = category.startswith("P") or (c.isascii() and not c.isalnum() and not space) or 0x4E00 <= ord(c) <= 0x9FFF
        if space or alone:
            out += [word] if word else []
            word = ""
            out += [c] if alone else []
        else:
            word += c
    return out + ([word] if word else [])


def word_pieces(word, ids):
    pieces, begin = [], 0
    while begin < len(word):
        for end in range(len(word), begin, -1):
            piece = ("##" if begin else "") + word[begin:end]
            if piece in ids:
                pieces.append(ids[piece])
                begin = end
                break
        else:
            return [ids["[UNK]"]]
    return pieces


def tokenize(text, ids):
    tokens = [piece for word in words(text) for piece in word_pieces(word, ids)]
    return [ids["[CLS]"]] + tokens[:TOKENS_MAX - 2] + [ids["[SEP]"]]


def layer_norm(x, tensors, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred ** 2).mean(-1, keepdims=True) + 1e-12)
    return scaled * tensors[name + ".weight"] + tensors[name + ".bias"]


def linear(x, tensors, name):
    return x @ tensors[name + ".weight"].T + tensors[name + ".bias"]


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def embed(text, tensors, ids, heads):
    tokens = tokenize(text, ids)
    x = (tensors["embeddings.word_embeddings.weight"][tokens] + tensors["embeddings.position_embeddings.weight"][:len(tokens)] +
         tensors["embeddings.token_type_embeddings.weight"][0])
    x = layer_norm(x, tensors, "embeddings.LayerNorm")
    layer = 0
    while f"encoder.layer.{layer}.output.dense.weight" in tensors:
        name = f"encoder.layer.{layer}."
        q, k, v = (linear(x, tensors, name + "attention.self." + part).reshape(len(tokens), heads, -1).transpose(1, 0, 2)
                   for part in ("query", "key", "value"))
        logits = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        attended = (weights @ v).transpose(1, 0, 2).reshape(len(tokens), -1)
        x = x + linear(attended, tensors, name + "attention.output.dense")
        x = layer_norm(x, tensors, name + "attention.output.LayerNorm")
        inner = gelu(linear(x, tensors, name + "intermediate.dense"))
        x = layer_norm(x + linear(inner, tensors, name + "output.dense"), tensors, name + "output.LayerNorm")
        layer += 1
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def vocabulary(text):
    return {token: i for i, token in enumerate(text.rstrip("\n").split("\n"))}


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    tensors = read_safetensors(sys.argv[1])
    with open(sys.argv[2], encoding="utf-8") as file:
        ids = vocabulary(file.read())
    for line in sys.stdin:
        print(" ".join(f"{x:.8g}" for x in embed(line.rstrip("\n"), tensors, ids, int(sys.argv[3]))))


if __name__ == "__main__":
    main()
