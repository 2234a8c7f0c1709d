#!/usr/bin/env python3
"""longhold.vllm in vLLM itself: needles, and what must not go wrong.

Needles and prompts are those of eval/name_needles.py, in a text of --tokens tokens, which is longer than the engine's
context. Checked:

- needles: right answers with recall, with the recalled tokens but without their keys, and without a memory.
- transformers: the same answers as longhold.transformers gives, from a memory that either of them read (needs --transformers).
- poison: a first engine answers with recall, then gets the same tokens as plain prompts; a fresh engine gets the plain prompts
  only. Greedy tokens and logprobs must be equal. That the test notices poison is shown by a plain prompt with a recall's salt.
- mixing: one passage stands in two memories behind different texts. Its two recalls, in both orders in two engines.
- refusals: no salt, another recall's salt, another model, places of other tokens, a damaged memory. The engine goes on.
- preemption: recalls that do not fit the KV cache together give the answers that they give alone.
- server: the same through `vllm serve`, by completions and chat completions (--server PORT).

  PYTHONPATH=python/src LONGHOLD_LIBRARY=build/release/liblonghold.so eval/vllm_needles.py \\
      --model DIR --haystack ../shared/data/essays --transformers --server 8123
"""
import argparse
import contextlib
import dataclasses
import gc
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

for name, value in {
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
}.items():
    os.environ.setdefault(name, value)

import longhold
import longhold.vllm
from name_needles import PROMPT, QUESTION, haystack_of, numbers_of

LOGPROB_LIMIT = 1e-4  # float32 in another batch
failed = []


def check(what, holds):
    print(f"{'ok    ' if holds else 'FAILED'} {what}", flush=True)
    if not holds:
        failed.append(what)


class Engine:
    """A vllm.LLM with the connector, until it is closed."""

    def __init__(self, arguments, home, policy="fail", **options):
        from vllm import LLM, SamplingParams
        from vllm.config import KVTransferConfig

        self.sampling = SamplingParams
        begun = time.monotonic()
        self.llm = LLM(
            arguments.model, dtype=arguments.dtype, enforce_eager=True, max_num_seqs=4, enable_prefix_caching=True,
            disable_log_stats=False,
            kv_transfer_config=KVTransferConfig(
                kv_connector="LongholdConnector", kv_connector_module_path="longhold.vllm", kv_role="kv_both",
                kv_load_failure_policy=policy, kv_connector_extra_config={"home": home},
            ),
            **{"max_model_len": 2048, **options},
        )
        blocks = self.llm.llm_engine.vllm_config.cache_config.block_size
        print(f"engine up in {time.monotonic() - begun:.0f} s, blocks of {blocks} tokens", flush=True)

    def ask(self, requests, max_tokens=16):
        """Replies to composed requests; those that fail have the finish reason "error"."""
        samplings = [
            self.sampling(temperature=0, max_tokens=max_tokens, logprobs=5, extra_args=request.extra_args()) for request in requests
        ]
        return self.llm.generate([request.prompt() for request in requests], samplings, use_tqdm=False)

    def preemptions(self):
        return sum(m.value for m in self.llm.get_metrics() if m.name == "vllm:num_preemptions")

    def close(self):
        self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        gc.collect()


def same(one, other):
    """Whether two replies have the same tokens and the same logprobs of the five best tokens."""
    one, other = one.outputs[0], other.outputs[0]
    if list(one.token_ids) != list(other.token_ids):
        return False
    for mine, theirs in zip(one.logprobs, other.logprobs):
        common = mine.keys() & theirs.keys()
        if len(common) < 4 or any(abs(mine[t].logprob - theirs[t].logprob) > LOGPROB_LIMIT for t in common):
            return False
    return True


def plain(request):
    """The same tokens without the memory."""
    return longhold.vllm.Composed(request.prompt_token_ids, 0)


def by_transformers(arguments, home, text, names):
    """Reads the text by longhold.transformers, and answers from its memory: {name: text}."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=getattr(torch, arguments.dtype))
    replies = {}
    with longhold.attach(model, "by-transformers", tokenizer=tokenizer, home=home, tokens_max=512, codec=arguments.codec, gate=0.0) as memory:
        reading = memory.read(text, "text")
        print(f"transformers read {reading.tokens} tokens in {reading.seconds:.0f} s", flush=True)
        for name in names:
            prompt = tokenizer(PROMPT.format(name=name), add_special_tokens=False, return_tensors="pt")
            with memory.recalling(memory.plan(QUESTION.format(name=name))):
                out = model.generate(**prompt, max_new_tokens=16, do_sample=False, pad_token_id=tokenizer.eos_token_id)
            replies[name] = tokenizer.decode(out[0, prompt.input_ids.shape[1] :])
    return replies


def passage_recalls(home, tokenizer, passage):
    """One passage at the end of two memories, alone recalled from each."""
    requests = []
    tokens = tokenizer(passage, add_special_tokens=False).input_ids
    rest = tokenizer("\nQuestion: Who is the king?\nAnswer: The king is", add_special_tokens=False).input_ids
    for memory in ("mix-a", "mix-b"):
        end = home.stat(memory).tokens
        if home.tokens(memory, 1, end - len(tokens), end).tolist() != tokens:
            raise SystemExit("the passage is cut into other tokens behind the texts")
        task = longhold.vllm.Recall(memory, home.model.fingerprint, ((1, end - len(tokens), end),))
        requests.append(longhold.vllm.Composed(tokens + rest, len(tokens), longhold.vllm.params_of(task), longhold.vllm.salt_of(task)))
    return requests


def changed(request, **changes):
    """The request with something else in what it recalls, and the salt for that."""
    task = dataclasses.replace(longhold.vllm.task_of(request.kv_transfer_params), **changes)
    return dataclasses.replace(request, kv_transfer_params=longhold.vllm.params_of(task), cache_salt=longhold.vllm.salt_of(task))


def damage(home, memory):
    """Other bytes in the middle of every larger file of a memory."""
    files = [f for f in pathlib.Path(home).rglob("*") if f.is_file() and memory in str(f.relative_to(home)) and f.stat().st_size > 4096]
    for file in files:
        raw = bytearray(file.read_bytes())
        for at in range(512, len(raw) - 512, 256):
            raw[at] ^= 0x5A
        file.write_bytes(raw)
    return len(files)


def refusals(engine, good, ids, policy):
    """`good`: recalls that work; the last is of the damaged memory."""
    a, b, damaged = good
    cases = {
        "no cache_salt": dataclasses.replace(a, cache_salt=None),
        "another recall's cache_salt": dataclasses.replace(a, cache_salt=b.cache_salt),
        "another model's fingerprint": changed(a, model="hf-0000"),
        "places of other tokens": changed(a, places=tuple((d, x + 1, y + 1) for d, x, y in ids(a).places)),
        "a damaged memory": damaged,
    }
    for what, request in cases.items():
        reply = engine.ask([request])[0]
        if policy == "fail":
            check(f"{what}: the request fails", reply.outputs[0].finish_reason == "error")
        else:
            expected = engine.ask([plain(request)])[0]
            about = (reply.kv_transfer_params or {}).get("longhold", {})
            check(f"{what}: answered from the plain tokens, and the reply says so", same(reply, expected) and bool(about.get("error")))


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as reply:
        return json.load(reply)


def through_server(arguments, home, store, tokenizer, numbers, text, expected):
    """`expected`: what the engine answered without a server, {name: text}."""
    config = {
        "kv_connector": "LongholdConnector", "kv_connector_module_path": "longhold.vllm", "kv_role": "kv_both",
        "kv_connector_extra_config": {"home": home},
    }
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", arguments.model, "--served-model-name", "m",
        "--port", str(arguments.server), "--dtype", arguments.dtype, "--max-model-len", "2048", "--enforce-eager",
        "--kv-transfer-config", json.dumps(config),
    ]
    url = f"http://127.0.0.1:{arguments.server}"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        for _ in range(300):
            if process.poll() is not None:
                raise SystemExit(f"the server ended with {process.returncode}: {' '.join(command)}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/health", timeout=5)
                break
            time.sleep(1)
        reading = longhold.vllm.read(
            longhold.vllm.server(url, "m"), "by-server", text, "text", home=store, tokenizer=tokenizer
        )
        equal = chats = 0
        for name, answer in list(expected.items())[:5]:
            rest = tokenizer(PROMPT.format(name=name), add_special_tokens=False).input_ids
            request = longhold.vllm.compose(
                store, "by-server", tokenizer, QUESTION.format(name=name), prompt_token_ids=rest, tokens_max=512, gate=0.0
            )
            reply = post(f"{url}/v1/completions", request.body(model="m", max_tokens=16, temperature=0))
            equal += reply["choices"][0]["text"] == answer
            messages = [{"role": "user", "content": QUESTION.format(name=name)}]
            request = longhold.vllm.compose(store, "by-server", tokenizer, messages, tokens_max=512)
            reply = post(f"{url}/v1/chat/completions", request.chat_body(messages, model="m", max_tokens=32, temperature=0))
            chats += numbers[name] in reply["choices"][0]["message"]["content"] and reply["usage"]["prompt_tokens"] == len(
                request.prompt_token_ids
            )
        print(f"server: read {reading.tokens} tokens in {reading.seconds:.0f} s; by chat {chats} of 5 right", flush=True)
        check(f"by completions {equal} of 5 answers as without a server", equal == 5)
        check("chat completions take the composed tokens", chats > 0)
    finally:
        process.terminate()
        process.wait(60)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model's directory")
    parser.add_argument("--haystack", required=True)
    parser.add_argument("--tokens", type=int, default=7360)
    parser.add_argument("--needles", type=int, default=20)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--codec", help="of the memories; k5v4 unless given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--transformers", action="store_true", help="compare with longhold.transformers")
    parser.add_argument("--server", type=int, metavar="PORT", help="also through vllm serve")
    arguments = parser.parse_args()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    numbers = numbers_of(arguments.seed, arguments.needles)
    names = list(numbers)
    text = haystack_of(arguments.haystack, tokenizer, arguments.tokens, numbers)
    scratch = tempfile.TemporaryDirectory()
    home = scratch.name
    expected = by_transformers(arguments, home, text, names) if arguments.transformers else {}

    # The first engine.
    engine = Engine(arguments, home)
    store = longhold.vllm.open_home(arguments.model, arguments.dtype, home, codec=arguments.codec)
    reading = longhold.vllm.read(engine.llm, "by-vllm", text, "text", home=store)
    print(f"vLLM read {reading.tokens} tokens in {reading.seconds:.0f} s", flush=True)
    check("a text that the memory has is not read again", longhold.vllm.read(engine.llm, "by-vllm", text, "again", home=store).first == reading.tokens)

    def recall(name, memory="by-vllm", reencode=0, gate=0.0):
        rest = tokenizer(PROMPT.format(name=name), add_special_tokens=False).input_ids
        return longhold.vllm.compose(
            store, memory, tokenizer, QUESTION.format(name=name), prompt_token_ids=rest, tokens_max=512, reencode_tokens=reencode,
            gate=gate,
        )

    alone = engine.ask([longhold.vllm.Composed(recall(name).prompt_token_ids[recall(name).recalled :], 0) for name in names])
    requests, replies, seconds = [recall(name) for name in names], [], []
    for request in requests:
        begun = time.monotonic()
        replies.append(engine.ask([request])[0])
        seconds.append(time.monotonic() - begun)
    after = engine.ask([plain(request) for request in requests])

    def right(found):
        return sum(numbers[name] in reply.outputs[0].text for name, reply in zip(names, found))

    print(
        f"right of {len(names)}: {right(replies)} with recall, {right(after)} with the recalled tokens but not their keys, "
        f"{right(alone)} without a memory; {statistics.median(r.recalled for r in requests):.0f} tokens recalled, "
        f"{statistics.median(seconds):.1f} s an answer", flush=True,
    )
    check("all recalled tokens came from the memory", all(r.kv_transfer_params == {"longhold": {"recalled": q.recalled}} for r, q in zip(replies, requests)))
    for tokens, gate in ((64, 0.0), (128, 0.0), (0, 2.0), (64, 2.0)):
        others = [recall(name, reencode=tokens, gate=gate) for name in names]
        print(
            f"gate {gate:g}, {tokens} tokens re-encoded: {right(engine.ask(others))} right; "
            f"{statistics.median(r.recalled for r in others):.0f} tokens recalled", flush=True,
        )
    if expected:
        for memory in ("by-vllm", "by-transformers"):
            found = engine.ask([recall(name, memory) for name in names])
            equal = sum(reply.outputs[0].text == expected[name] for name, reply in zip(names, found))
            print(f"memory {memory}: {equal} of {len(names)} greedy answers are those of longhold.transformers, {right(found)} right", flush=True)
        print(f"longhold.transformers: {sum(numbers[n] in expected[n] for n in names)} right", flush=True)

    passage = "\nAfter this the old king opened the letter, read it twice, and gave it to the man who had come with him.\n"
    for memory, prefix in (("mix-a", "Robert is the king of the north. " * 12), ("mix-b", "William is the king of the south. " * 12)):
        longhold.vllm.read(engine.llm, memory, prefix + passage, "text", home=store)
    mix_a, mix_b = passage_recalls(store, tokenizer, passage)
    a_first = engine.ask([mix_a])[0]
    b_second = engine.ask([mix_b])[0]
    a_again = engine.ask([mix_a])[0]
    check("two memories' recalls of the same tokens differ", not same(a_first, b_second))
    check("a recall after another one of the same tokens is as it was", same(a_first, a_again))

    longhold.vllm.read(engine.llm, "damaged", text[:4000], "text", home=store)
    rest = tokenizer("Question", add_special_tokens=False).input_ids
    broken = longhold.vllm.compose(store, "damaged", tokenizer, "the essay", prompt_token_ids=rest, tokens_max=256)
    check("a request of the memory that will be damaged", broken.recalled > 0)
    store.close()
    print(f"damaged {damage(home, 'damaged')} files", flush=True)
    store = longhold.vllm.open_home(arguments.model, arguments.dtype, home)
    good = (requests[0], requests[1], broken)
    refusals(engine, good, lambda r: longhold.vllm.task_of(r.kv_transfer_params), "fail")
    check("the engine goes on", same(engine.ask([recall(names[0])])[0], replies[0]))
    again = recall(names[0])
    engine.ask([again])
    spoiled = engine.ask([dataclasses.replace(again, kv_transfer_params=None)])[0]
    check(
        "control: plain tokens with a recall's salt are answered from its keys",
        spoiled.num_cached_tokens >= 128 and not same(spoiled, after[0]),
    )
    engine.close()

    # A fresh engine, with a KV cache in which two recalls with long answers have no place.
    engine = Engine(arguments, home, policy="recompute", max_model_len=1500, num_gpu_blocks_override=14)
    fresh = engine.ask([plain(request) for request in requests])
    equal = sum(same(one, other) for one, other in zip(after, fresh))
    check(f"plain prompts after recalls: {equal} of {len(names)} have the tokens and logprobs of a fresh engine", equal == len(names))
    b_first = engine.ask([mix_b])[0]
    check("the second memory's recall is as in a fresh engine", same(b_first, b_second))
    check("and the first one's after it", same(engine.ask([mix_a])[0], a_first))
    refusals(engine, good, lambda r: longhold.vllm.task_of(r.kv_transfer_params), "recompute")
    apart = [engine.ask([recall(name)], max_tokens=300)[0] for name in names[:4]]
    before = engine.preemptions()
    together = engine.ask([recall(name) for name in names[:4]], max_tokens=300)
    equal = sum(list(a.outputs[0].token_ids) == list(b.outputs[0].token_ids) for a, b in zip(apart, together))
    check(f"{engine.preemptions() - before:.0f} preemptions: {equal} of 4 answers as without", equal == 4 and engine.preemptions() > before)
    engine.close()
    if arguments.server:
        through_server(
            arguments, home, store, tokenizer, numbers, text, {n: r.outputs[0].text for n, r in zip(names, replies)}
        )
    store.close()
    print(f"{len(failed)} failed" if failed else "all hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
