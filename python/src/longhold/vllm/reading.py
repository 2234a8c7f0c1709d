"""Reads a text through vLLM: pass by pass, each token with the text's sinks and its latest window before it.

A pass is a prompt of sinks, window and the next tokens. The connector gives keys and values of the first two, at
positions 0, 1, ...; vLLM computes the rest, and the connector saves them. So a text may be longer than the
engine's context, and the rows are those that longhold.transformers reads.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..errors import InvalidArgument, Unavailable
from ..home import Home
from ..reading import PASS_TOKENS, PassRows, Reading, Window, read_document
from ..transformers.vocabulary import TokenText, tokenise
from .request import Pass, params_of, salt_of
from .spool import Spool

# Gets prompt (token ids), kv_transfer_params, cache_salt, max_tokens and temperature, and runs the request.
Generate = Callable[[dict[str, Any]], None]


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
    generate: Generate = engine if callable(engine) and not hasattr(engine, "generate") else offline(engine)
    if tokenizer is None:
        if not hasattr(engine, "get_tokenizer"):
            raise InvalidArgument("read() through a server needs the model's tokenizer")
        tokenizer = engine.get_tokenizer()
    if spool is None:
        config = getattr(getattr(engine, "llm_engine", None), "vllm_config", None)
        options = config.kv_transfer_config.kv_connector_extra_config if config and config.kv_transfer_config else {}
        spool = Spool(options.get("spool"))

    def cut(text: str) -> TokenText:
        return tokenise(tokenizer, home.description.pieces, text)

    def compute(window: Window, end: int) -> PassRows:
        keys, values = _pass(generate, spool, window, end)
        return PassRows(list(keys), list(values), first=len(window.held()))

    return read_document(home, memory, text, name, cut, compute, pass_tokens=pass_tokens, progress=progress)


def _rotated(window: Window) -> npt.NDArray[np.float32]:
    """Rows of sinks and window with keys at positions 0, 1, ...: [2, layers, tokens, kv_heads, head_dim]."""
    at = torch.arange(len(window.held()))
    keys = [rotation.turned(key.float(), at) for key, rotation in zip(window.keys, window.rotations, strict=True)]
    both = torch.stack((torch.stack(keys), torch.stack(window.values).float()))
    rows: npt.NDArray[np.float32] = both.transpose(2, 3).contiguous().numpy()
    return rows


def _pass(generate: Generate, spool: Spool, window: Window, end: int) -> npt.NDArray[Any]:
    """Rows of the tokens from the window's position to `end`, [2, layers, tokens, kv_heads, head_dim]."""
    held = window.held()
    task = Pass(spool.begin(_rotated(window)), len(held))
    try:
        generate(
            {
                "prompt": [int(token) for token in (*window.tokens[held], *window.tokens[window.position : end])],
                "kv_transfer_params": params_of(task),
                "cache_salt": salt_of(task),
                "max_tokens": 1,
                "temperature": 0,
            }
        )
        return spool.computed(task.name)
    finally:
        spool.end(task.name)
