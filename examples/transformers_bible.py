#!/usr/bin/env python3
"""A Hugging Face model reads a whole book and answers with verses, in memory that does not grow with the book.

  examples/transformers_bible.py --model HuggingFaceTB/SmolLM2-135M-Instruct
  examples/transformers_bible.py --model DIR --verses gen1:1-rev22:21 "Who was the mother of Samuel?"
  examples/transformers_bible.py --model DIR --text moby-dick.txt "Who is the captain of the Pequod?"

Without --text the book is Genesis, or the part of the King James Bible that --verses names, from Debian's package bible-kjv.
The reading goes on where it was interrupted, and is done once. Each model has a memory of its own for each text, unless
--memory names one. It needs the wheel (scripts/wheel), torch and transformers.
"""
import argparse
import pathlib
import re
import resource
import subprocess
import sys
import textwrap

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import longhold

QUESTIONS = (
    "On which mountains did the ark come to rest?",
    "What happened to the wife of Lot when she looked back?",
    "How old was Noah when the flood came?",
    "Why was the city called Babel?",
    "What did God call the dry land?",
)


def book(arguments):
    if arguments.text is not None:
        return arguments.text.name, arguments.text.read_text(encoding="utf-8")
    run = subprocess.run(["bible", "-f", arguments.verses], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return f"kjv {arguments.verses}", run.stdout


def memory_of(model, dtype, text):
    """A memory belongs to a model in one type, and an answer recalls from all of its texts."""
    return re.sub(r"[^a-z0-9]+", "-", f"{pathlib.PurePath(model).name} {dtype} {text}".lower()).strip("-")[:80]


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", default=QUESTIONS)
    parser.add_argument("--model", required=True, help="a causal model's name or directory")
    parser.add_argument("--memory", help="else one with the names of the model and the text")
    parser.add_argument("--home", help="directory of memories; else $LONGHOLD_HOME or ~/.local/share/longhold")
    parser.add_argument("--text", type=pathlib.Path, help="a UTF-8 file")
    parser.add_argument("--verses", default="gen1:1-gen50:26", help="of bible-kjv")
    parser.add_argument("--embedder", help="GGUF of an embedding model: places are found by meaning, too")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--max-tokens", type=int, default=48)
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=getattr(torch, arguments.dtype))
    name, text = book(arguments)
    memory_name = arguments.memory or memory_of(arguments.model, arguments.dtype, name)
    early_mb = 0

    def progress(done, tokens):
        nonlocal early_mb
        if done <= 2048:
            early_mb = peak_mb()
        print(f"\r{done} of {tokens} tokens, peak RSS {peak_mb()} MB ", end="", file=sys.stderr)

    with longhold.attach(model, memory_name, tokenizer, arguments.home, embedder=arguments.embedder) as memory:
        reading = memory.read(text, name, progress=progress)
        print(f"\nread {reading.tokens - reading.first} of {reading.tokens} tokens in {reading.seconds:.0f} s; "
              f"peak RSS {early_mb} MB after 2,048 tokens, {peak_mb()} MB after all")
        for question in arguments.questions:
            messages = [{"role": "user", "content": question}]
            prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
            out = model.generate(**prompt, max_new_tokens=arguments.max_tokens, do_sample=False)
            reply = tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
            print(f"\nQ  {question}")
            print(textwrap.fill(reply, 96, initial_indent="A  ", subsequent_indent="   "))
            # The best spans by relevance; memory.citations() has them by the attention that the answer gave them.
            for span in memory.last.spans[:2]:
                print(textwrap.fill(f"{span.document_name}, lines {span.line_begin} to {span.line_end}: {span.text}", 96,
                                    initial_indent="   * ", subsequent_indent="     "))
    print(f"\npeak RSS {peak_mb()} MB")


if __name__ == "__main__":
    main()
