"""Reads a text through vLLM: pass by pass, each token with the text's sinks and its latest window before it.

A pass is a prompt of sinks, window and the next tokens. The connector gives keys and values of the first two, at
positions 0, 1, ...; vLLM computes the rest, and the connector saves them. So a text may be longer than the
engine's context, and the rows are those that longhold.transformers reads.
"""

from __future__ import annotations

import hashlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..errors import FailedPrecondition, InvalidArgument, Unavailable
from ..home import Home, Place, Rope
from ..transformers.describe import Rotation
from ..transformers.vocabulary import tokenise
from .request import Pass, params_of, salt_of
from .spool import Spool

PASS_TOKENS = 512

# Gets prompt (token ids), kv_transfer_params, cache_salt, max_tokens and temperature, and runs the request.
Generate = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Reading:
    """What read() did."""

    document: str
    tokens: int
    first: int  # the token that it began with: not 0 after an interruption, `tokens` where all was known
    seconds: float


def rotation_of(rope: Rope) -> Rotation:
    pairs = rope.rotary_dims // 2
    i = torch.arange(pairs, dtype=torch.float64)
    frequencies = rope.freq_scale * rope.freq_base ** (-i / max(1, pairs))
    if rope.freq_factors is not None:
        frequencies = frequencies / torch.tensor(list(rope.freq_factors), dtype=torch.float64)
    return Rotation(frequencies.float(), rope.attn_factor or 1.0, rope.halves)


class Window:
    """The sinks and the window of a reading: all that its next pass attends to, un-rotated and in 16 bits."""

    def __init__(self, home: Home, memory: str, tokens: npt.NDArray[np.int32], position: int) -> None:
        stats = home.stat(memory)
        self._sinks, self._window = stats.sink_tokens, stats.window_tokens
        model = home.description
        ropes = [model.rope] * model.layer_count if isinstance(model.rope, Rope) else list(model.rope)
        self._rotations = [rotation_of(rope) for rope in ropes]
        self.position = position
        self.rows = np.empty((2, model.layer_count, 0, model.kv_heads, model.head_dim), np.float16)
        if position > 0:
            # Any document that begins with these tokens has these keys.
            found = home.prefix(memory, tokens[:position])
            if found.length < position:
                raise FailedPrecondition(
                    f"memory {memory}: lacks the {position} tokens after which the reading continues; forget the "
                    "document, and read it again"
                )
            places = [Place(found.document, begin, end) for begin, end in self.ranges(position)]
            keys, values = home.fetch(memory, places, rotated=False)
            self.rows = np.stack((np.asarray(keys), np.asarray(values)))

    def ranges(self, position: int) -> list[tuple[int, int]]:
        """Of the tokens before `position`, those that the next pass attends to."""
        sinks = min(position, self._sinks)
        window = max(sinks, position - self._window)
        return [(begin, end) for begin, end in ((0, sinks), (window, position)) if begin < end]

    def places(self) -> list[int]:
        return [token for begin, end in self.ranges(self.position) for token in range(begin, end)]

    def _turned(self, keys: npt.NDArray[Any], first: int, back: bool) -> npt.NDArray[np.float32]:
        """Keys [layers, tokens, kv_heads, head_dim], turned to positions `first`, ... or back from them."""
        at = torch.arange(first, first + keys.shape[1])
        out = np.empty(keys.shape, np.float32)
        for layer, rotation in enumerate(self._rotations):
            rows = torch.from_numpy(keys[layer].astype(np.float32)).transpose(0, 1)
            out[layer] = rotation.turned(rows, at, back=back).transpose(0, 1).numpy()
        return out

    def rotated(self) -> npt.NDArray[np.float32]:
        """Its rows with keys at positions 0, 1, ..."""
        return np.stack((self._turned(self.rows[0], 0, back=False), self.rows[1].astype(np.float32)))

    def advance(self, computed: npt.NDArray[Any]) -> None:
        """Behind a pass, whose keys stand at the positions behind the window's."""
        held = self.places()
        new = np.stack((self._turned(computed[0], len(held), back=True), computed[1].astype(np.float32)))
        rows = np.concatenate((self.rows, new.astype(np.float16)), 2)
        index = {token: i for i, token in enumerate([*held, *range(self.position, self.position + new.shape[2])])}
        self.position += new.shape[2]
        self.rows = np.ascontiguousarray(rows[:, :, [index[token] for token in self.places()]])


def offline(llm: Any) -> Generate:
    """Requests to a vllm.LLM."""
    from vllm import SamplingParams

    def generate(fields: dict[str, Any]) -> None:
        prompt = {"prompt_token_ids": fields["prompt"], "cache_salt": fields["cache_salt"]}
        extra = {"kv_transfer_params": fields["kv_transfer_params"]}
        sampling = SamplingParams(temperature=0, max_tokens=fields["max_tokens"], extra_args=extra)
        llm.generate([prompt], sampling, use_tqdm=False)

    return generate


def server(url: str, model: str, *, api_key: str | None = None, timeout: float = 600) -> Generate:
    """Requests to a vLLM server on this machine, by POST URL/v1/completions."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})

    def generate(fields: dict[str, Any]) -> None:
        body = json.dumps({"model": model, **fields}).encode()
        request = urllib.request.Request(f"{url.rstrip('/')}/v1/completions", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                reply.read()
        except urllib.error.HTTPError as error:
            raise Unavailable(f"{url}: {error.code} {error.read(500).decode('utf-8', 'replace')}") from error
        except OSError as error:
            raise Unavailable(f"{url}: {error}") from error

    return generate



def read(
    engine: Any,
    memory: str,
    text: str,
    name: str | None = None,
    *,
    home: Home,
    tokenizer: Any = None,
    pass_tokens: int = PASS_TOKENS,
    spool: Spool | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Reading:
    """Reads a text through vLLM, and stores the keys and values of all its tokens. A reading that was interrupted
    continues; a text that the memory holds is not read again.

    Args:
        engine: a vllm.LLM, or server(...). It must run with LongholdConnector, on this machine.
        home: open for the engine's model and for writing, see open_home().
        tokenizer: the model's; None: that of the LLM.
        pass_tokens: sinks, window and a pass must have place in the engine's max_model_len.
        spool: of the engine's option "spool".
        progress: is called with the tokens that are done and all tokens after each pass.
    """
    begun = time.monotonic()
    model = home.description
    generate: Generate = engine if callable(engine) and not hasattr(engine, "generate") else offline(engine)
    if tokenizer is None:
        if not hasattr(engine, "get_tokenizer"):
            raise InvalidArgument("read() through a server needs the model's tokenizer")
        tokenizer = engine.get_tokenizer()
    if spool is None:
        config = getattr(getattr(engine, "llm_engine", None), "vllm_config", None)
        options = config.kv_transfer_config.kv_connector_extra_config if config and config.kv_transfer_config else {}
        spool = Spool(options.get("spool"))
    document = name or "text-" + hashlib.sha256(text.encode("utf-8")).hexdigest()[:8]
    as_tokens = tokenise(tokenizer, model.pieces, text)
    tokens = as_tokens.tokens
    with home.put(memory, document, text, tokens, as_tokens.token_bytes) as writer:
        first = done = writer.position
        window = Window(home, memory, tokens, done) if done < len(tokens) else None
        while window is not None and done < len(tokens):
            # Passes begin at multiples of their length, also after an interruption.
            end = min(len(tokens), (done // pass_tokens + 1) * pass_tokens)
            computed = _pass(generate, spool, window, tokens, end)
            writer.put(list(computed[0]), list(computed[1]), position=len(window.places()))
            window.advance(computed)
            done = end
            if progress is not None:
                progress(done, len(tokens))
    return Reading(document, len(tokens), first, time.monotonic() - begun)


def _pass(
    generate: Generate, spool: Spool, window: Window, tokens: npt.NDArray[np.int32], end: int
) -> npt.NDArray[Any]:
    """Rows of the tokens from the window's position to `end`, [2, layers, tokens, kv_heads, head_dim]."""
    held = window.places()
    task = Pass(spool.begin(window.rotated()), len(held))
    try:
        generate(
            {
                "prompt": [int(token) for token in (*tokens[held], *tokens[window.position : end])],
                "kv_transfer_params": params_of(task),
                "cache_salt": salt_of(task),
                "max_tokens": 1,
                "temperature": 0,
            }
        )
        return spool.computed(task.name)
    finally:
        spool.end(task.name)
