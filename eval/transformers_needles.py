#!/usr/bin/env python3
"""Keyed needles through longhold.transformers: hides numbers in a text, lets a Hugging Face model read it, and asks for each.

Needles and prompts are those of eval/name_needles.py. A needle is found if a recalled span has it, and cited if the most
attended one has. --full counts what the model answers with all of the text as its prompt.

  PYTHONPATH=python/src LONGHOLD_LIBRARY=build/release/liblonghold.so eval/transformers_needles.py \
      --model DIR --haystack ../shared/data/essays --tokens 7360 --gates 0,2
"""
import argparse
import resource
import statistics
import tempfile
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import longhold
from name_needles import PROMPT, haystack_of, numbers_of


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model's directory or name")
    parser.add_argument("--haystack", required=True)
    parser.add_argument("--tokens", type=int, default=7360)
    parser.add_argument("--needles", type=int, default=20)
    parser.add_argument("--gates", default="0")
    parser.add_argument("--spans", type=int, default=0, help="at most; 0: the default")
    parser.add_argument("--full", action="store_true", help="answer with the whole text as the prompt, too")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--embedder")
    parser.add_argument("--home", help="a home that stays; a text that it has is not read again")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    numbers = numbers_of(arguments.seed, arguments.needles)
    names = list(numbers)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=getattr(torch, arguments.dtype))
    text = haystack_of(arguments.haystack, tokenizer, arguments.tokens, numbers)
    scratch = tempfile.TemporaryDirectory()
    home = arguments.home or scratch.name

    def answer(name):
        prompt = tokenizer(PROMPT.format(name=name), add_special_tokens=False, return_tensors="pt")
        begun = time.monotonic()
        out = model.generate(**prompt, max_new_tokens=16, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        return tokenizer.decode(out[0, prompt.input_ids.shape[1] :]), time.monotonic() - begun

    alone = sum(numbers[name] in answer(name)[0] for name in names[:3])
    print(f"{arguments.model}: without memory {alone} of 3", flush=True)
    with longhold.attach(
        model, "needles", tokenizer=tokenizer, home=home, spans_max=arguments.spans, embedder=arguments.embedder
    ) as memory:
        early_mb = 0

        def progress(done, _):
            nonlocal early_mb
            if done <= 4 * 512:
                early_mb = peak_mb()

        cpu = time.process_time()
        reading = memory.read(text, progress=progress)
        cpu = time.process_time() - cpu
        print(
            f"read {reading.tokens - reading.first} of {reading.tokens} tokens in {reading.seconds:.0f} s, "
            f"{cpu:.0f} s of CPU; peak RSS {early_mb} MB after 2,048 tokens, {peak_mb()} MB after all",
            flush=True,
        )
        for gate in (float(g) for g in arguments.gates.split(",")):
            memory.gate = gate
            right = found = cited = 0
            seconds, recalled = [], []
            for name in names:
                reply, took = answer(name)
                seconds.append(took)
                recalled.append(memory.last.tokens)
                right += numbers[name] in reply
                found += any(numbers[name] in span.text for span in memory.last.spans)
                first = memory.citations()[:1]
                cited += bool(first) and numbers[name] in first[0].span.text
            print(
                f"gate {gate:g}: right {right}, found {found}, cited first {cited} of {len(names)}; "
                f"{statistics.median(recalled):.0f} tokens recalled, {statistics.median(seconds):.1f} s an answer",
                flush=True,
            )
    if arguments.full:
        right = 0
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.inference_mode():
            cache = None
            for begin in range(0, ids.shape[1], 512):
                part = ids[:, begin : begin + 512]
                out = model(part, use_cache=True, logits_to_keep=1, **({} if cache is None else {"past_key_values": cache}))
                cache = out.past_key_values
            for name in names:
                token = tokenizer(PROMPT.format(name=name), add_special_tokens=False, return_tensors="pt").input_ids
                reply = []
                for _ in range(16):
                    token = model(token, past_key_values=cache, use_cache=True).logits[:, -1].argmax(-1, keepdim=True)
                    reply.append(int(token))
                cache.crop(ids.shape[1])
                right += numbers[name] in tokenizer.decode(reply)
        print(f"all of the text as the prompt: right {right} of {len(names)}")


if __name__ == "__main__":
    main()
