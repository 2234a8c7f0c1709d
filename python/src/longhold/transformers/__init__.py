"""A memory for any Hugging Face causal model.

    memory = longhold.attach(model, "bible", tokenizer)
    memory.read(text)
    model.generate(**tokenizer("Where did the ark rest?", return_tensors="pt"))
    memory.citations()

The model reads in passes of 512 tokens; each token attends to the text's first 64 tokens, the last 256
and its own pass. So memory stays flat, and a text may be longer than the model's context. For a prompt
the spans that it is about are recalled: their keys stand at negative positions before the prompt, in
every layer. Prompt, positions, cache and generate() stay the model's own.
"""

from __future__ import annotations

from ..reading import Reading
from .describe import describe
from .memory import Citation, Memory, Recall, attach

__all__ = ["Citation", "Memory", "Reading", "Recall", "attach", "describe"]
