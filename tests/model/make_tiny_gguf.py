#!/usr/bin/env python3
"""make_tiny_gguf.py DIRECTORY: writes the GGUF files that tests/model loads: tiny models of random weights, one for each
architecture and RoPE variant, models that longhold must refuse, and damaged files.

None of the weights come from a trained model. The same seed gives the same bytes on every machine (numpy's PCG64).
The scales make errors in the attention visible: attention logits spread by about 2 (some tokens dominate, many contribute),
attention and feed-forward part have equal shares of the residual stream, and the final logits spread by about 3.
Rows of end-of-answer tokens are zero in the output matrix, so that no greedy continuation ends early.

Needs numpy and the gguf package (llama.cpp's gguf-py; PYTHONPATH=$LONGHOLD_LLAMA_PREFIX/share/gguf-py).
tests/model/tiny_models.h repeats the values with which the tests compare the loaded models.
"""
import os
import sys
import zlib

import numpy as np

import bert_reference
import gguf
from gguf import GGMLQuantizationType, GGUFWriter, PoolingType, RopeScalingType, TokenType

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' + message['content'] | trim"
    " + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
UNKNOWN_TEMPLATE = "{% for message in messages %}~~{{ message['content'] }}~~{% endfor %}"


# ------------------------------------------------------------------------------------------------------- vocabularies
def byte_letters():
    """GPT-2's letters for the 256 bytes: printable bytes stand for themselves, the others for letters from 256 on."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, spare = [], 256
    for byte in range(256):
        letters.append(chr(byte if byte in own else spare))
        spare += byte not in own
    return letters


def bpe_vocabulary(pre, bos=None):
    """Control tokens 0..3, then 256 bytes, then some merged pieces."""
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>"]
    letters = byte_letters()
    space = letters[32]
    merges = [("t", "h"), ("th", "e"), (space, "the"), ("i", "n"), ("e", "r"), (space, "a"), ("o", "n"), ("a", "n"),
              ("an", "d"), (space, "and"), ("r", "i"), ("v", "er")]
    tokens = control + letters + [a + b for a, b in merges]
    types = [TokenType.CONTROL] * 4 + [TokenType.NORMAL] * (len(tokens) - 4)

    def write(w):
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre(pre)
        w.add_token_list(tokens)
        w.add_token_types(types)
        w.add_token_merges([a + " " + b for a, b in merges])
        w.add_eos_token_id(2)
        w.add_bos_token_id(0 if bos is None else bos)
        w.add_add_bos_token(bos is not None)

    return len(tokens), [0, 2], write


def spm_vocabulary():
    """Gemma's kind: <pad>, <eos>, <bos>, <unk>, the two turn tokens, 256 bytes, then characters and merged pieces."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    types = [TokenType.CONTROL] * 3 + [TokenType.UNKNOWN] + [TokenType.CONTROL] * 2
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    types += [TokenType.BYTE] * 256
    pieces = ["\u2581"] + [chr(c) for c in range(33, 127)]
    pieces += ["th", "the", "\u2581the", "in", "er", "\u2581a", "an", "and", "\u2581and", "ri", "ver", "\u2581r"]
    tokens += pieces
    types += [TokenType.NORMAL] * len(pieces)
    scores = [0.0] * (len(tokens) - len(pieces)) + [-float(i) for i in range(len(pieces))]

    def write(w):
        w.add_tokenizer_model("llama")
        w.add_token_list(tokens)
        w.add_token_types(types)
        w.add_token_scores(scores)
        w.add_bos_token_id(2)
        w.add_eos_token_id(1)
        w.add_unk_token_id(3)
        w.add_pad_token_id(0)
        w.add_add_bos_token(True)
        w.add_add_eos_token(False)
        w.add_add_space_prefix(False)

    return len(tokens), [1, 5], write


# ------------------------------------------------------------------------------------------------------- models
class Tiny:
    """One model file. Shapes: [out, in] for matrices, as numpy and GGUF writers see them."""

    def __init__(self, directory, name, architecture, vocabulary, *, layers, width=96, ffn=192, q_heads=6, kv_heads=2,
                 head_dim=16, context=4096, template=CHATML, weights=GGMLQuantizationType.F32):
        self.path = os.path.join(directory, name + ".gguf")
        self.w = GGUFWriter(self.path, architecture)
        self.rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        self.layers, self.width, self.ffn = layers, width, ffn
        self.q_heads, self.kv_heads, self.head_dim = q_heads, kv_heads, head_dim
        self.weights = weights
        self.vocab, self.silent, write_vocabulary = vocabulary
        w = self.w
        w.add_name("tiny " + name)
        w.add_context_length(context)
        w.add_embedding_length(width)
        w.add_block_count(layers)
        w.add_feed_forward_length(ffn)
        w.add_head_count(q_heads)
        w.add_head_count_kv(kv_heads)
        w.add_vocab_size(self.vocab)
        write_vocabulary(w)
        if template:
            w.add_chat_template(template)

    def finish(self):
        self.w.write_header_to_file()
        self.w.write_kv_data_to_file()
        self.w.write_tensors_to_file()
        self.w.close()

    def add(self, name, values):
        """Norms, biases and small tables stay F32, as llama.cpp's own converter leaves them."""
        values = np.ascontiguousarray(values, dtype=np.float32)
        if values.ndim == 2 and self.weights != GGMLQuantizationType.F32:
            self.w.add_tensor(name, gguf.quants.quantize(values, self.weights), raw_dtype=self.weights)
        else:
            self.w.add_tensor(name, values)

    def matrix(self, name, rows, columns, gain=1.0):
        """Inputs of unit variance give outputs of standard deviation `gain`."""
        self.add(name, self.rng.standard_normal((rows, columns)) * gain / np.sqrt(columns))

    def norm(self, name, size=None, mean=1.0):
        self.add(name, mean + 0.1 * self.rng.standard_normal(size or self.width))

    def bias(self, name, size, spread=0.5):
        self.add(name, spread * self.rng.standard_normal(size))

    def embeddings(self, spread, tied=False):
        table = spread * self.rng.standard_normal((self.vocab, self.width))
        if tied:
            table[self.silent] = 0
        self.add("token_embd.weight", table)

    def output(self, gain=3.0):
        table = self.rng.standard_normal((self.vocab, self.width)) * gain / np.sqrt(self.width)
        table[self.silent] = 0
        self.add("output.weight", table)

    def attention(self, i, *, bias=False, norms=False, fused=False, gain=1.5):
        q, kv = self.q_heads * self.head_dim, self.kv_heads * self.head_dim
        blk = f"blk.{i}."
        self.norm(blk + "attn_norm.weight")
        if fused:
            self.matrix(blk + "attn_qkv.weight", q + 2 * kv, self.width, gain)
        else:
            self.matrix(blk + "attn_q.weight", q, self.width, gain)
            self.matrix(blk + "attn_k.weight", kv, self.width, gain)
            self.matrix(blk + "attn_v.weight", kv, self.width, 2.0)
        if bias:
            self.bias(blk + "attn_q.bias", q)
            self.bias(blk + "attn_k.bias", kv)
            self.bias(blk + "attn_v.bias", kv)
        if norms:
            self.norm(blk + "attn_q_norm.weight", self.head_dim, mean=gain)
            self.norm(blk + "attn_k_norm.weight", self.head_dim, mean=gain)
        self.matrix(blk + "attn_output.weight", self.width, q)

    def feed_forward(self, i):
        blk = f"blk.{i}."
        self.norm(blk + "ffn_norm.weight")
        self.matrix(blk + "ffn_gate.weight", self.ffn, self.width)
        self.matrix(blk + "ffn_up.weight", self.ffn, self.width)
        self.matrix(blk + "ffn_down.weight", self.width, self.ffn)


def llama(directory, name, *, pre="smollm", bos=None, base=10000.0, factors=None, configure=None, fused=False, **shape):
    vocabulary = shape.pop("vocabulary", None) or bpe_vocabulary(pre, bos)
    t = Tiny(directory, name, "llama", vocabulary, layers=shape.pop("layers", 3), **shape)
    t.w.add_layer_norm_rms_eps(1e-5)
    t.w.add_rope_dimension_count(t.head_dim)
    t.w.add_key_length(t.head_dim)
    t.w.add_value_length(t.head_dim)
    t.w.add_rope_freq_base(base)
    if configure:
        configure(t.w)
    t.embeddings(1.0)
    if factors is not None:
        t.add("rope_freqs.weight", factors)
    for i in range(t.layers):
        t.attention(i, fused=fused)
        t.feed_forward(i)
    t.norm("output_norm.weight")
    t.output()
    t.finish()


def qwen(directory, name, architecture, **shape):
    t = Tiny(directory, name, architecture, bpe_vocabulary("qwen2"), layers=3, **shape)
    t.w.add_layer_norm_rms_eps(1e-6)
    t.w.add_rope_freq_base(1000000.0)
    t.w.add_key_length(t.head_dim)
    t.w.add_value_length(t.head_dim)
    t.embeddings(1.0)
    for i in range(t.layers):
        t.attention(i, bias=architecture == "qwen2", norms=architecture == "qwen3")
        t.feed_forward(i)
    t.norm("output_norm.weight")
    t.output()
    t.finish()


def gemma(directory, name, architecture, *, layers, window, configure, **shape):
    t = Tiny(directory, name, architecture, spm_vocabulary(), layers=layers, width=64, ffn=128, template=GEMMA_TEMPLATE,
             **shape)
    t.w.add_layer_norm_rms_eps(1e-6)
    t.w.add_key_length(t.head_dim)
    t.w.add_value_length(t.head_dim)
    t.w.add_sliding_window(window)
    configure(t.w)
    t.embeddings(1.0 / np.sqrt(t.width), tied=True)  # the graph multiplies by sqrt(width)
    for i in range(layers):
        t.attention(i, norms=architecture == "gemma3")
        t.norm(f"blk.{i}.post_attention_norm.weight")
        t.feed_forward(i)
        t.norm(f"blk.{i}.post_ffw_norm.weight")
    t.norm("output_norm.weight", mean=3.0)
    t.finish()


def gpt2_like(directory, name, architecture):
    """gpt2 (learned positions) and bloom (ALiBi): attention in every layer, and no RoPE."""
    t = Tiny(directory, name, architecture, bpe_vocabulary("gpt-2" if architecture == "gpt2" else "bloom"), layers=2,
             kv_heads=6, context=512)
    t.w.add_layer_norm_eps(1e-5)
    t.embeddings(1.0)
    if architecture == "gpt2":
        t.matrix("position_embd.weight", 512, t.width)
    else:
        t.norm("token_embd_norm.weight")
        t.bias("token_embd_norm.bias", t.width)
    for i in range(t.layers):
        blk = f"blk.{i}."
        for norm in ("attn_norm", "ffn_norm"):
            t.norm(blk + norm + ".weight")
            t.bias(blk + norm + ".bias", t.width)
        for matrix, rows, columns in (("attn_qkv", 3 * t.width, t.width), ("attn_output", t.width, t.width),
                                      ("ffn_up", t.ffn, t.width), ("ffn_down", t.width, t.ffn)):
            t.matrix(blk + matrix + ".weight", rows, columns)
            t.bias(blk + matrix + ".bias", rows)
    t.norm("output_norm.weight")
    t.bias("output_norm.bias", t.width)
    t.output()
    t.finish()


def mamba(directory, name):
    t = Tiny(directory, name, "mamba", bpe_vocabulary("gpt-2"), layers=2, q_heads=0, kv_heads=0)
    inner, state, rank, kernel = 2 * t.width, 16, 6, 4
    t.w.add_layer_norm_rms_eps(1e-5)
    t.w.add_ssm_conv_kernel(kernel)
    t.w.add_ssm_inner_size(inner)
    t.w.add_ssm_state_size(state)
    t.w.add_ssm_time_step_rank(rank)
    t.embeddings(1.0)
    for i in range(t.layers):
        blk = f"blk.{i}."
        t.norm(blk + "attn_norm.weight")
        t.matrix(blk + "ssm_in.weight", 2 * inner, t.width)
        t.matrix(blk + "ssm_conv1d.weight", inner, kernel)
        t.bias(blk + "ssm_conv1d.bias", inner)
        t.matrix(blk + "ssm_x.weight", rank + 2 * state, inner)
        t.matrix(blk + "ssm_dt.weight", inner, rank)
        t.bias(blk + "ssm_dt.bias", inner)
        t.add(blk + "ssm_a", -np.exp(t.rng.standard_normal((inner, state))))
        t.norm(blk + "ssm_d", inner)
        t.matrix(blk + "ssm_out.weight", t.width, inner)
    t.norm("output_norm.weight")
    t.output()
    t.finish()


def bert(directory, name, pooling=None):
    """An encoder: no cache, no next token; with pooling, one that embeds texts."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + ["\u2581" + chr(c) for c in range(97, 123)]
    words += [chr(c) for c in range(97, 123)]

    def write(w):
        w.add_tokenizer_model("bert")
        w.add_token_list(words)
        w.add_token_types([TokenType.CONTROL] * 5 + [TokenType.NORMAL] * (len(words) - 5))
        w.add_token_type_count(2)
        for add, i in ((w.add_pad_token_id, 0), (w.add_unk_token_id, 1), (w.add_bos_token_id, 2), (w.add_sep_token_id, 3)):
            add(i)

    t = Tiny(directory, name, "bert", (len(words), [], write), layers=2, kv_heads=6, context=512, template=None)
    t.w.add_layer_norm_eps(1e-12)
    t.w.add_causal_attention(False)
    if pooling is not None:
        t.w.add_pooling_type(pooling)
    t.embeddings(1.0)
    t.matrix("token_types.weight", 2, t.width)
    t.matrix("position_embd.weight", 512, t.width)
    t.norm("token_embd_norm.weight")
    t.bias("token_embd_norm.bias", t.width)
    for i in range(t.layers):
        blk = f"blk.{i}."
        for matrix in ("attn_q", "attn_k", "attn_v", "attn_output"):
            t.matrix(blk + matrix + ".weight", t.width, t.width)
            t.bias(blk + matrix + ".bias", t.width)
        t.matrix(blk + "ffn_up.weight", t.ffn, t.width)
        t.bias(blk + "ffn_up.bias", t.ffn)
        t.matrix(blk + "ffn_down.weight", t.width, t.ffn)
        t.bias(blk + "ffn_down.bias", t.width)
        for norm in ("attn_output_norm", "layer_output_norm"):
            t.norm(blk + norm + ".weight")
            t.bias(blk + norm + ".bias", t.width)
    t.finish()


BERT_TEXTS = [
    "the river is long",
    "In the beginning, God created the heaven and the earth.",
    "",
    "And he was an-gry; very ANGRY!",
    "caf\u00e9 na\u00efve \u00c5ngstr\u00f6m",  # accents are removed
    "\u6cb3\u306e water \u2603 zzz",  # characters that the vocabulary lacks
    " ".join(["river", "bridge", "an", "the"] * 90),  # 360 words: cut at 256 tokens
]


def bert_source(directory):
    """ConvertBert's input (safetensors with the vocabulary appended), and the vectors that numpy computes from it."""
    pieces = ["the", "river", "is", "long", "in", "beginning", "god", "created", "and", "an", "bridge", "was", "very", "caf",
              "water"]
    alphabet = [chr(c) for c in range(97, 122)]  # no z, so that words with one are unknown
    tokens = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *alphabet, *".,;-!", "##ing", "##the"]
    tokens += ["##" + c for c in alphabet]
    rng = np.random.Generator(np.random.PCG64(20))
    width, ffn, heads = 96, 192, 6
    tensors = {}

    def linear(name, rows, columns):
        tensors[name + ".weight"] = rng.standard_normal((rows, columns)) * 1.5 / np.sqrt(columns)
        tensors[name + ".bias"] = 0.3 * rng.standard_normal(rows)

    def norm(name):
        tensors[name + ".weight"] = 1 + 0.1 * rng.standard_normal(width)
        tensors[name + ".bias"] = 0.1 * rng.standard_normal(width)

    for table, rows in (("word", len(tokens)), ("position", 512), ("token_type", 2)):
        tensors[f"embeddings.{table}_embeddings.weight"] = rng.standard_normal((rows, width))
    norm("embeddings.LayerNorm")
    for layer in range(2):
        name = f"encoder.layer.{layer}."
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linear(name + "attention." + part, width, width)
        norm(name + "attention.output.LayerNorm")
        linear(name + "intermediate.dense", ffn, width)
        linear(name + "output.dense", width, ffn)
        norm(name + "output.LayerNorm")
    linear("pooler.dense", width, width)  # unused; ConvertBert must leave it out
    tail = "".join(token + "\n" for token in tokens).encode()
    path = os.path.join(directory, "bert_source.bin")
    bert_reference.write_safetensors(path, tensors, tail)
    tensors, ids = bert_reference.read_safetensors(path), {token: i for i, token in enumerate(tokens)}
    with open(os.path.join(directory, "bert_expected.txt"), "w", encoding="utf-8") as file:
        for text in BERT_TEXTS:
            file.write(text + "\t" + " ".join(f"{x:.8g}" for x in bert_reference.embed(text, tensors, ids, heads)) + "\n")


# ------------------------------------------------------------------------------------------------------- the files
def gemma3_rope(w):
    w.add_rope_freq_base(1000000.0)  # for global layers; sliding-window layers have libllama's 10000
    w.add_rope_scaling_type(RopeScalingType.LINEAR)
    w.add_rope_scaling_factor(8.0)


def gemma3_partial_rope(w):
    w.add_rope_freq_base(1000000.0)
    w.add_rope_dimension_count(16)  # of 32; llama and qwen require all


def gemma3_global(w):
    w.add_rope_freq_base(1000000.0)


def gemma2_caps(w):
    w.add_attn_logit_softcapping(5.0)  # low, so that it changes these logits
    w.add_final_logit_softcapping(30.0)


def linear_scaling(w):
    w.add_rope_scaling_type(RopeScalingType.LINEAR)
    w.add_rope_scaling_factor(4.0)


def yarn_scaling(w):
    w.add_rope_scaling_type(RopeScalingType.YARN)
    w.add_rope_scaling_factor(4.0)
    w.add_rope_scaling_orig_ctx_len(128)


def longrope_scaling(w):
    w.add_rope_scaling_type(RopeScalingType.LONGROPE)
    w.add_rope_scaling_orig_ctx_len(1024)


def no_vocabulary(size):
    return size, [], lambda w: w.add_tokenizer_model("no_vocab")


def supported(d):
    llama(d, "llama")
    llama(d, "llama31", pre="llama-bpe", bos=3, base=500000.0, factors=1.0 + 0.75 * np.arange(8))
    llama(d, "llama_linear", configure=linear_scaling)
    llama(d, "llama_yarn", configure=yarn_scaling)
    llama(d, "llama_fused_qkv", fused=True)
    llama(d, "llama_no_template", template=None)
    llama(d, "llama_unknown_template", template=UNKNOWN_TEMPLATE)
    llama(d, "llama_f16", weights=GGMLQuantizationType.F16)
    qwen(d, "qwen2", "qwen2", kv_heads=3)
    qwen(d, "qwen3", "qwen3", head_dim=32, q_heads=4, kv_heads=1)
    gemma(d, "gemma3", "gemma3", layers=13, window=32, configure=gemma3_rope, q_heads=4, kv_heads=1, head_dim=32)
    gemma(d, "gemma3_partial_rope", "gemma3", layers=7, window=32, configure=gemma3_partial_rope, q_heads=2, kv_heads=2,
          head_dim=32)
    gemma(d, "gemma3_global", "gemma3", layers=3, window=0, configure=gemma3_global, q_heads=4, kv_heads=1, head_dim=32)
    gemma(d, "gemma2", "gemma2", layers=4, window=32, configure=gemma2_caps, q_heads=4, kv_heads=2, head_dim=32)


def refused(d):
    gpt2_like(d, "gpt2", "gpt2")
    gpt2_like(d, "bloom", "bloom")
    mamba(d, "mamba")
    bert(d, "bert")
    llama(d, "llama_longrope", configure=longrope_scaling)
    llama(d, "llama_head10", head_dim=10)
    llama(d, "llama_no_vocab", vocabulary=no_vocabulary(300))
    # A graph of the right shape with different attention: every token also sees the later ones. Only the proof detects it.
    llama(d, "llama_bidirectional", configure=lambda w: w.add_causal_attention(False))


def damaged(d):
    with open(os.path.join(d, "llama.gguf"), "rb") as file:
        whole = file.read()
    for name, content in {
            "empty": b"",
            "three_bytes": b"GGU",
            "magic_only": b"GGUF",
            "text": b"In the beginning God created the heaven and the earth.\n" * 8,
            "wrong_magic": b"GGML" + whole[4:],
            "future_version": whole[:4] + (99).to_bytes(4, "little") + whole[8:],
            "cut_tensors": whole[:len(whole) * 3 // 4],
            "cut_last_byte": whole[:-1],
    }.items():
        with open(os.path.join(d, "damaged_" + name + ".gguf"), "wb") as file:
            file.write(content)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: make_tiny_gguf.py DIRECTORY")
    os.makedirs(sys.argv[1], exist_ok=True)
    supported(sys.argv[1])
    refused(sys.argv[1])
    bert_source(sys.argv[1])
    bert(sys.argv[1], "bert_mean", PoolingType.MEAN)
    damaged(sys.argv[1])


if __name__ == "__main__":
    main()
