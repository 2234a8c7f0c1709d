"""The connector's part in the worker: copies keys and values between a memory and vLLM's KV cache."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..errors import DataLoss, Error, FailedPrecondition, InvalidArgument, Unimplemented
from ..home import Home, Model, Place
from .cache import CacheLayout, CacheWriter, learn, smaller_blocks
from .request import Pass, Recall
from .scheduling import Work
from .spool import Spool

logger = logging.getLogger("vllm.longhold")
# Tokens that are fetched at a time, so that a long recall needs no second copy of itself.
FETCH_TOKENS = 1024


def layer_of(name: str) -> int:
    """The number of a layer in vLLM's name of its cache, as in model.layers.3.self_attn.attn."""
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    if len(numbers) != 1:
        raise Unimplemented(f"the KV cache {name}: its name has not one layer number")
    return numbers[0]


def rows_type(dtype: torch.dtype) -> type[np.generic]:
    """In which rows of a cache are fetched and saved."""
    return np.float16 if dtype == torch.float16 else np.float32


class WorkerSide:
    """Thread use: confined, to the worker."""

    def __init__(self, model: Model, open_home: Callable[[], Home], spool: Spool) -> None:
        self._model = model
        self._open_home = open_home
        self._spool = spool
        self._home: Home | None = None
        self._caches: list[torch.Tensor] = []  # [layers]
        self._layouts: list[CacheLayout] = []
        self._parts = 1  # blocks of the cache for one of the scheduler
        self._invalid: set[int] = set()
        self._failures: dict[str, str] = {}
        self._failed_passes: set[str] = set()

    def register(
        self, caches: dict[str, torch.Tensor], blocks: int, block_tokens: int, writer_of: Callable[[str], CacheWriter]
    ) -> None:
        """Errors: Unimplemented, FailedPrecondition (not the caches of the described model)."""
        model = self._model
        by_layer = {layer_of(name): name for name in caches}
        if sorted(by_layer) != list(range(model.layer_count)) or len(caches) != len(by_layer):
            raise Unimplemented(
                f"model {model.name}: has {model.layer_count} layers, and vLLM keeps {len(caches)} KV caches; layers that "
                "share one, draft models and layers without keys are not served"
            )
        known: dict[tuple[Any, ...], CacheLayout] = {}
        for layer in range(model.layer_count):
            name = by_layer[layer]
            cache = caches[name]
            if not isinstance(cache, torch.Tensor):
                raise Unimplemented(f"the KV cache of layer {name} is a {type(cache).__name__}, and not a tensor")
            # Asked of every layer, for it refuses those that longhold does not serve.
            writer = writer_of(name)
            kind = (cache.shape, cache.stride(), cache.dtype)
            if kind not in known:
                known[kind] = learn(name, cache, blocks, block_tokens, model.kv_heads, model.head_dim, writer)
            self._caches.append(cache)
            self._layouts.append(known[kind])
        if len({layout.block_tokens for layout in self._layouts}) != 1:
            raise Unimplemented(f"model {model.name}: its layers' caches have blocks of several sizes")
        self._parts = block_tokens // self._layouts[0].block_tokens
        first = self._layouts[0]
        logger.info(
            "longhold: %d KV caches of %s, shape %s; blocks of %d tokens, keys %s order",
            len(caches), self._caches[0].dtype, list(self._caches[0].shape), first.block_tokens,
            "in token" if bool((first.keys.diff() > 0).all()) else "in another",
        )

    # ---- loading

    def load(self, todo: list[Work]) -> None:
        """Never raises for what a request or a memory has wrong: that request's blocks are reported."""
        for work in todo:
            if work.load is None:
                continue
            begun = time.monotonic()
            try:
                if work.refused:
                    raise FailedPrecondition(work.refused)
                if isinstance(work.task, Recall):
                    self._recall(work.task, work, work.load[0])
                elif isinstance(work.task, Pass):
                    self._load_pass(work.task, work, *work.load)
            except (Error, OSError, ValueError) as error:
                self._invalid.update(self._loaded_blocks(work))
                self._failures[work.request] = str(error)
                logger.error("longhold: request %s: nothing was recalled: %s", work.request, error)
                if isinstance(work.task, Pass):
                    self._failed_passes.add(work.task.name)
                    self._spool.fail(work.task.name, str(error))
                continue
            logger.debug(
                "longhold: request %s: %d tokens loaded in %.0f ms", work.request, work.load[1] - work.load[0],
                1000 * (time.monotonic() - begun),
            )

    def _loaded_blocks(self, work: Work) -> list[int]:
        """Blocks of the tokens to load. Those before them may be other requests', too."""
        assert work.load is not None
        tokens = self._layouts[0].block_tokens * self._parts
        return work.blocks[work.load[0] // tokens : -(-work.load[1] // tokens)]

    def home(self) -> Home:
        if self._home is None:
            self._home = self._open_home()
        return self._home

    def _recall(self, task: Recall, work: Work, begin: int) -> None:
        """Loads the tokens of the task from `begin` on."""
        if task.model != self._model.fingerprint:
            raise FailedPrecondition(
                f"the prompt was composed for model {task.model}, and this engine runs {self._model.fingerprint} "
                f"({self._model.name}); compose it with the same checkpoint and dtype"
            )
        home = self.home()
        tokens = np.concatenate([home.tokens(task.memory, *place) for place in task.places])
        if tokens.tolist() != list(work.tokens):
            raise DataLoss(f"memory {task.memory}: the tokens of these places are not those of the prompt; compose it again")
        # Places of at most FETCH_TOKENS tokens, without what the prefix cache has.
        position, cut = 0, []
        for document, first, last in task.places:
            for at in range(first, last, FETCH_TOKENS):
                stop = min(last, at + FETCH_TOKENS)
                skip = min(max(0, begin - position), stop - at)
                if at + skip < stop:
                    cut.append(Place(document, at + skip, stop, position + skip))
                position += stop - at
        group: list[Place] = []
        for i, place in enumerate(cut):
            group.append(place)
            if i + 1 == len(cut) or sum(map(len, group)) + len(cut[i + 1]) > FETCH_TOKENS:
                keys, values = home.fetch(task.memory, group, dtype=rows_type(self._caches[0].dtype))
                self._write(work, group[0].position, keys, values)
                group = []

    def _load_pass(self, task: Pass, work: Work, begin: int, end: int) -> None:
        rows = self._spool.before(task.name)
        model = self._model
        if rows.shape != (2, model.layer_count, task.prefix, model.kv_heads, model.head_dim):
            raise InvalidArgument(f"pass {task.name}: rows {list(rows.shape)} are not those of {task.prefix} tokens")
        self._write(work, begin, rows[0, :, begin:end], rows[1, :, begin:end])

    def _write(self, work: Work, begin: int, keys: Any, values: Any) -> None:
        blocks = smaller_blocks(work.blocks, self._parts)
        for layer, (cache, layout) in enumerate(zip(self._caches, self._layouts, strict=True)):
            layout.write(
                cache, blocks, begin, torch.from_numpy(np.ascontiguousarray(keys[layer])),
                torch.from_numpy(np.ascontiguousarray(values[layer])),
            )

    # ---- saving

    def save(self, todo: list[Work]) -> None:
        for work in todo:
            if work.save is None or not isinstance(work.task, Pass):
                continue
            name = work.task.name
            if name in self._failed_passes:
                # Its tokens were computed without those before them.
                self._failed_passes.discard(name)
                continue
            if not self._spool.begun(name):
                logger.error("longhold: request %s: pass %s was not begun in %s", work.request, name, self._spool.folder)
                continue
            try:
                self._spool.save(name, self._rows(work, *work.save))
            except OSError as error:
                logger.error("longhold: pass %s is not saved: %s", name, error)
                self._spool.fail(name, str(error))

    def _rows(self, work: Work, begin: int, end: int) -> Any:
        model, blocks = self._model, smaller_blocks(work.blocks, self._parts)
        shape = (2, model.layer_count, end - begin, model.kv_heads, model.head_dim)
        rows = np.empty(shape, rows_type(self._caches[0].dtype))
        for layer, (cache, layout) in enumerate(zip(self._caches, self._layouts, strict=True)):
            for i, half in enumerate(layout.read(cache, blocks, begin, end)):
                rows[i, layer] = half.cpu().to(torch.float16 if rows.dtype == np.float16 else torch.float32).numpy()
        return rows

    # ---- reports of a step

    def take_invalid(self) -> set[int]:
        invalid, self._invalid = self._invalid, set()
        return invalid

    def take_failures(self) -> dict[str, str]:
        failures, self._failures = self._failures, {}
        return failures

    def close(self) -> None:
        if self._home is not None:
            self._home.close()
            self._home = None
