"""How every engine reads a text: pass by pass, each token with the text's sinks and its latest window before it.

An engine computes one pass; what it needs for that is a Window, and read_document() does the rest: it puts the
rows, moves the window, and continues after an interruption. Memory stays flat, and a text may be longer than the
engine's context.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from .errors import FailedPrecondition
from .home import Home, Place, Rope
from .rotation import Rotation

if TYPE_CHECKING:
    from .transformers.vocabulary import TokenText

PASS_TOKENS = 512


@dataclass(frozen=True)
class Reading:
    """What read() did."""

    document: str
    tokens: int
    first: int  # the token that it began with: not 0 after an interruption, `tokens` where all was known
    seconds: float


@dataclass(frozen=True)
class PassRows:
    """What an engine computed for a pass."""

    keys: Sequence[npt.NDArray[Any]]  # [layers] of [tokens, kv_heads, head_dim], float16 or float32
    values: Sequence[npt.NDArray[Any]]
    first: int  # the position to which the first key is rotated; the others follow it


class Window:
    """The sinks and the window of a reading: what its next pass attends to. Keys are un-rotated, in the 16 bits
    in which they are stored. Thread use: confined.

    sliding: [layers] the window of a layer that has one of its own, by the distance in the text; None, or an
    empty list: it sees sinks and window.
    """

    def __init__(
        self,
        home: Home,
        memory: str,
        tokens: npt.NDArray[np.int32],
        position: int,
        *,
        pass_tokens: int = PASS_TOKENS,
        sliding: Sequence[int | None] = (),
    ) -> None:
        stats = home.stat(memory)
        model = home.description
        layers = model.put_layers
        self.sinks, self.seen = stats.sink_tokens, stats.window_tokens
        # A layer with a longer window than sinks, window and pass together is like one without.
        most = self.sinks + self.seen + pass_tokens
        self.sliding = [s if s is not None and s <= most else None for s in sliding or [None] * layers]
        self._window = max(self.seen, *(s or 0 for s in self.sliding))
        ropes = [model.rope] * layers if isinstance(model.rope, Rope) else list(model.rope)
        self.rotations = [Rotation.of(rope) for rope in ropes]
        self.tokens = tokens  # of the text
        self.position = position  # the first token of the next pass
        # [layers] of [kv_heads, held tokens, head_dim], float16
        self.keys = [torch.empty((model.kv_heads, 0, model.head_dim), dtype=torch.float16)] * layers
        self.values = list(self.keys)
        if position > 0:
            # Any document that begins with these tokens has these keys.
            found = home.prefix(memory, tokens[:position])
            if found.length < position:
                raise FailedPrecondition(
                    f"memory {memory}: lacks the {position} tokens after which the reading continues; forget the "
                    "document, and read it again"
                )
            places = [Place(found.document, begin, end) for begin, end in self._ranges()]
            keys, values = home.fetch(memory, places, rotated=False)
            self.keys = [torch.from_numpy(rows).transpose(0, 1) for rows in keys]
            self.values = [torch.from_numpy(rows).transpose(0, 1) for rows in values]

    def _ranges(self) -> list[tuple[int, int]]:
        sinks = min(self.position, self.sinks)
        window = max(sinks, self.position - self._window)
        return [(begin, end) for begin, end in ((0, sinks), (window, self.position)) if begin < end]

    def held(self) -> list[int]:
        """The tokens of the text that it holds."""
        return [token for begin, end in self._ranges() for token in range(begin, end)]

    def advance(self, rows: PassRows) -> None:
        """Moves it behind a pass."""
        count = len(rows.keys[0])
        at = torch.arange(rows.first, rows.first + count)
        tokens = [*self.held(), *range(self.position, self.position + count)]
        index = {token: i for i, token in enumerate(tokens)}
        self.position += count
        stay = torch.tensor([index[token] for token in self.held()])
        for layer, rotation in enumerate(self.rotations):
            key, value = (torch.from_numpy(half[layer]).transpose(0, 1) for half in (rows.keys, rows.values))
            plain = rotation.turned(key.float(), at, back=True).half()
            self.keys[layer] = torch.cat((self.keys[layer], plain), 1)[:, stay]
            self.values[layer] = torch.cat((self.values[layer], value.half()), 1)[:, stay]


# Computes the tokens of the text from the window's position to `end`.
Compute = Callable[[Window, int], PassRows]


def read_document(
    home: Home,
    memory: str,
    text: str,
    name: str | None,
    cut: Callable[[str], TokenText],
    compute: Compute,
    *,
    pass_tokens: int = PASS_TOKENS,
    sliding: Sequence[int | None] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """Reads a text, which `cut` makes tokens of, and stores the keys and values of all of them. A reading that was
    interrupted continues; a text that the memory holds is not read again. `progress` is called with the tokens
    that are done and all tokens after each pass."""
    begun = time.monotonic()
    document = name or "text-" + hashlib.sha256(text.encode("utf-8")).hexdigest()[:8]
    as_tokens = cut(text)
    tokens = as_tokens.tokens
    with home.put(memory, document, text, tokens, as_tokens.token_bytes) as writer:
        first = done = writer.position
        if done < len(tokens):
            window = Window(home, memory, tokens, done, pass_tokens=pass_tokens, sliding=sliding)
        while done < len(tokens):
            # Passes begin at multiples of their length, also after an interruption.
            done = min(len(tokens), (done // pass_tokens + 1) * pass_tokens)
            rows = compute(window, done)
            writer.put(rows.keys, rows.values, position=rows.first)
            window.advance(rows)
            if progress is not None:
                progress(done, len(tokens))
    return Reading(document, len(tokens), first, time.monotonic() - begun)
