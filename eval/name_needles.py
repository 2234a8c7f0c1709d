"""Needles whose keys are names of people, hidden in a text. eval/transformers_needles.py and eval/vllm_needles.py ask for
them, so that what one measures can be compared with the other.

A needle is the line "The magic number of NAME is NUMBER." The prompt is a question and the beginning of its answer, which a
model completes greedily. An answer is right if it has the number.
"""
import pathlib
import random

FIRST = "Anna Tom Lucy Peter Maria John Emma David Sarah Mark Julia Henry Alice Oscar Nina Paul Clara Victor Rosa Simon".split()
LAST = "Berg Fisher Stone Wolf Lopez Carter Clark Moore Hill Green Frost Ford Wood Lane Park Reed Young Marsh Bell Drake".split()
NEEDLE = "\nThe magic number of {name} is {number}.\n"
QUESTION = "What is the magic number of {name}?"
PROMPT = f"\nQuestion: {QUESTION}\nAnswer: The magic number of {{name}} is"


def numbers_of(seed, count):
    """Names and what each one's needle says: {name: number}."""
    rng = random.Random(seed)
    names = rng.sample([f"{first} {last}" for first in FIRST for last in LAST], count)
    return {name: str(rng.randint(1000000, 9999999)) for name in names}


def haystack_of(folder, tokenizer, tokens, numbers):
    """The texts of a folder, cut to about `tokens` tokens, with the needles at equal distances, between words."""
    text = " ".join(file.read_text(encoding="utf-8") for file in sorted(pathlib.Path(folder).iterdir()) if file.is_file())
    room = tokens - sum(len(tokenizer(NEEDLE.format(name=n, number=v)).input_ids) for n, v in numbers.items())
    ids = tokenizer(text[: 6 * tokens], add_special_tokens=False).input_ids[:room]
    text = tokenizer.decode(ids, skip_special_tokens=True)
    step = len(text) // len(numbers)
    parts = []
    for i, (name, number) in enumerate(numbers.items()):
        part = text[i * step : (i + 1) * step]
        middle = part.find(" ", len(part) // 2)
        parts += [part[:middle], NEEDLE.format(name=name, number=number), part[middle:]]
    return "".join(parts)
