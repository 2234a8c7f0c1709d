"""What a request asks of the connector: the field kv_transfer_params["longhold"], and the cache salt that
goes with it.

    {"longhold": {"version": 1, "recall": {"memory": M, "model": FINGERPRINT, "places": [[DOCUMENT, BEGIN, END], ...]}}}
    {"longhold": {"version": 1, "read": {"pass": 32 HEX DIGITS, "prefix": TOKENS}}}

recall: the prompt begins with the tokens of these places, one behind the other. read: one pass of a
reading, whose first `prefix` tokens are sinks and window (reading.py).

vLLM's prefix cache finds blocks by tokens and salt. The keys of a recalled prompt depend on more: on all of
the text that they were read in. So the salt holds a hash of what is recalled, and a random part.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidArgument

FIELD = "longhold"
VERSION = 1
PLACES_MAX = 4096
TOKENS_MAX = 1 << 20
_PASS = re.compile(r"[0-9a-f]{32}")
_NONCE_DIGITS = 32


@dataclass(frozen=True)
class Recall:
    memory: str
    model: str  # the fingerprint
    places: tuple[tuple[int, int, int], ...]  # (document, begin, end)

    @property
    def prefix(self) -> int:
        """Tokens of the prompt whose keys and values the connector gives."""
        return sum(end - begin for _, begin, end in self.places)


@dataclass(frozen=True)
class Pass:
    """One pass of a reading."""

    name: str
    prefix: int


Task = Recall | Pass


def params_of(task: Task) -> dict[str, Any]:
    """The task as kv_transfer_params."""
    inner: dict[str, Any] = {"version": VERSION}
    if isinstance(task, Recall):
        inner["recall"] = {"memory": task.memory, "model": task.model, "places": [list(p) for p in task.places]}
    else:
        inner["read"] = {"pass": task.name, "prefix": task.prefix}
    return {FIELD: inner}


def _whole(number: Any, limit: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= limit


def task_of(params: Any) -> Task | None:
    """What kv_transfer_params ask; None: nothing of longhold. Errors: InvalidArgument."""
    if not isinstance(params, dict) or params.get(FIELD) is None:
        return None
    inner = params[FIELD]
    where = f"kv_transfer_params.{FIELD}"
    if not isinstance(inner, dict) or inner.get("version") != VERSION:
        raise InvalidArgument(f"{where}: is no object of version {VERSION}")
    recall, read = inner.get("recall"), inner.get("read")
    if (recall is None) == (read is None):
        raise InvalidArgument(f"{where}: needs either 'recall' or 'read'")
    if read is not None:
        name, prefix = (read.get("pass"), read.get("prefix")) if isinstance(read, dict) else (None, None)
        if not (isinstance(name, str) and _PASS.fullmatch(name) and isinstance(prefix, int) and _whole(prefix, TOKENS_MAX)):
            raise InvalidArgument(f"{where}.read: needs 'pass', 32 hex digits, and 'prefix', a number of tokens")
        return Pass(name, prefix)
    memory, model, places = (
        (recall.get(key) for key in ("memory", "model", "places")) if isinstance(recall, dict) else (None, None, None)
    )
    if not (isinstance(memory, str) and 0 < len(memory) <= 255 and isinstance(model, str) and 0 < len(model) <= 64):
        raise InvalidArgument(f"{where}.recall: needs the names 'memory' and 'model'")
    if not isinstance(places, list) or not 0 < len(places) <= PLACES_MAX:
        raise InvalidArgument(f"{where}.recall.places: needs 1 to {PLACES_MAX} places")
    found = []
    for place in places:
        if not (isinstance(place, list) and len(place) == 3 and all(_whole(n, 1 << 62) for n in place)):
            raise InvalidArgument(f"{where}.recall.places: each is [document, begin, end]")
        document, begin, end = place
        if begin >= end:
            raise InvalidArgument(f"{where}.recall.places: [{document}, {begin}, {end}] is empty")
        found.append((document, begin, end))
    task = Recall(memory, model, tuple(found))
    if task.prefix > TOKENS_MAX:
        raise InvalidArgument(f"{where}.recall.places: {task.prefix} tokens, and {TOKENS_MAX} are the limit")
    return task


def salt_of(task: Task, nonce: str | None = None) -> str:
    """A cache salt for one request. Never the same for two tasks, and with no nonce never the same twice."""
    nonce = nonce or secrets.token_hex(_NONCE_DIGITS // 2)
    written = json.dumps(params_of(task), sort_keys=True, separators=(",", ":"))
    return f"{FIELD}-{nonce}-{hashlib.sha256(f'{nonce} {written}'.encode()).hexdigest()[:32]}"


def check_salt(task: Task, salt: str | None) -> None:
    """Errors: InvalidArgument (the salt is missing, or of another recall)."""
    if not salt:
        raise InvalidArgument(
            "the request has no cache_salt, and prefix caching is on: later requests with the same tokens would "
            "get recalled keys; send the cache_salt that longhold.vllm.compose gives"
        )
    parts = salt.split("-")
    if len(parts) != 3 or len(parts[1]) != _NONCE_DIGITS or salt != salt_of(task, parts[1]):
        raise InvalidArgument("the cache_salt is not that of these places; send both as longhold.vllm.compose gives them")
