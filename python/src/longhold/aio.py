"""The home for asyncio: the same calls, each on a thread, so that the event loop goes on.

Calls on one home run one at a time; those that wait do so on their threads.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from . import home as sync
from .home import LayerArrays, Model, Place, Plan, Prefix, Stats


class Home:
    """``async with await longhold.aio.Home.open(model, directory) as home``."""

    def __init__(self, home: sync.Home) -> None:
        self.sync = home

    @classmethod
    async def open(cls, model: Model | None = None, home: str | os.PathLike[str] | None = None, **options: Any) -> Home:
        return cls(await asyncio.to_thread(sync.Home, model, home, **options))

    async def close(self) -> None:
        await asyncio.to_thread(self.sync.close)

    async def __aenter__(self) -> Home:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def put(
        self,
        memory: str,
        name: str,
        text: str | bytes,
        tokens: npt.ArrayLike,
        token_bytes: npt.ArrayLike | None = None,
    ) -> Writer:
        return Writer(await asyncio.to_thread(self.sync.put, memory, name, text, tokens, token_bytes))

    async def ingest(self, memory: str, name: str, text: str | bytes) -> None:
        await asyncio.to_thread(self.sync.ingest, memory, name, text)

    async def plan(self, memory: str, question: str = "", **options: Any) -> Plan:
        return await asyncio.to_thread(self.sync.plan, memory, question, **options)

    async def fetch(
        self,
        memory: str,
        places: Iterable[Place],
        keys: LayerArrays | None = None,
        values: LayerArrays | None = None,
        *,
        rotated: bool = True,
        dtype: npt.DTypeLike = np.float16,
    ) -> tuple[LayerArrays, LayerArrays]:
        return await asyncio.to_thread(self.sync.fetch, memory, places, keys, values, rotated=rotated, dtype=dtype)

    async def tokens(self, memory: str, document: int, begin: int, end: int) -> npt.NDArray[np.int32]:
        return await asyncio.to_thread(self.sync.tokens, memory, document, begin, end)

    async def prefix(self, memory: str, tokens: npt.ArrayLike) -> Prefix:
        return await asyncio.to_thread(self.sync.prefix, memory, tokens)

    async def forget(self, memory: str, document: str | None = None) -> None:
        await asyncio.to_thread(self.sync.forget, memory, document)

    async def stat(self, memory: str) -> Stats:
        return await asyncio.to_thread(self.sync.stat, memory)


class Writer:
    """As longhold.Writer."""

    def __init__(self, writer: sync.Writer) -> None:
        self.sync = writer

    async def position(self) -> int:
        # A call of another task may hold the home.
        return await asyncio.to_thread(lambda: self.sync.position)

    async def document(self) -> int:
        return await asyncio.to_thread(lambda: self.sync.document)

    async def put(self, keys: LayerArrays, values: LayerArrays, *, position: int | None = None) -> None:
        await asyncio.to_thread(self.sync.put, keys, values, position=position)

    async def finish(self) -> None:
        await asyncio.to_thread(self.sync.finish)

    async def __aenter__(self) -> Writer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.sync.__exit__, kind, error, trace)
