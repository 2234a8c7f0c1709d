"""Memories for vLLM: a connector that gives recalled keys and values to the engine, and what composes requests.

    vllm serve MODEL --dtype float32 --kv-transfer-config '{"kv_connector": "LongholdConnector",
      "kv_connector_module_path": "longhold.vllm", "kv_role": "kv_both",
      "kv_connector_extra_config": {"home": "/srv/memories"}}'

    home = longhold.vllm.open_home("MODEL", "float32", "/srv/memories")
    longhold.vllm.read(longhold.vllm.server("http://localhost:8000", "MODEL"), "bible", text, home=home,
                       tokenizer=tokenizer)
    request = longhold.vllm.compose(home, "bible", tokenizer, "Where did the ark rest?")
    requests.post("http://localhost:8000/v1/completions", json=request.body(model="MODEL", max_tokens=64))

compose() needs neither vLLM nor torch. docs/vllm.md of the repository is the manual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .compose import Composed, chat_tokens, compose
from .describe import describe, open_home
from .request import Pass, Recall, params_of, salt_of, task_of

if TYPE_CHECKING:
    from ..reading import Reading
    from .connector import LongholdConnector
    from .reading import offline, read, server

__all__ = [
    "Composed",
    "LongholdConnector",
    "Pass",
    "Reading",
    "Recall",
    "chat_tokens",
    "compose",
    "describe",
    "offline",
    "open_home",
    "params_of",
    "read",
    "salt_of",
    "server",
    "task_of",
]

# What needs vLLM or torch is loaded when it is asked for.
_LATE = {"LongholdConnector": "connector", "Reading": "reading", "offline": "reading", "read": "reading", "server": "reading"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
