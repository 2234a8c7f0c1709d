"""Memories for models that another engine runs: liblonghold with numpy arrays.

An engine puts the keys and values of what it read, asks which spans a question is about, and fetches
their keys and values at positions that it chooses. ``longhold.transformers`` does all of it for a
Hugging Face model.

Arrays are passed without copies. Keys and values are float16 or float32, of shape
[tokens, kv_heads, head_dim] for each layer, with any strides but a contiguous last axis.
"""

from __future__ import annotations

import ctypes
import enum
import os
import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _native as native
from .errors import FailedPrecondition, InvalidArgument, of_status

Array = npt.NDArray[Any]
# One array of each layer, or one array with the layers as its first axis.
LayerArrays = Sequence[Array] | Array

# The open homes, for _after_fork().
_homes: weakref.WeakSet[Home] = weakref.WeakSet()
_library: ctypes.CDLL | None = None
_library_lock = threading.Lock()


def library() -> ctypes.CDLL:
    global _library
    with _library_lock:
        if _library is None:
            _library = native.load()
        return _library


def _check(status: int) -> None:
    if status != 0:
        message = library().lh_message() or b""
        raise of_status(status, message.decode("utf-8", "replace"))


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding of one layer, as lh_rope.

    Angle of pair i at position p: freq_scale * p * freq_base**(-2 i / rotary_dims) / freq_factors[i].
    """

    rotary_dims: int  # 0: keys are not rotated
    freq_base: float = 10000.0
    halves: bool = True  # pairs (i, i + rotary_dims / 2), as in transformers; else (2 i, 2 i + 1)
    freq_scale: float = 1.0
    attn_factor: float = 1.0  # multiplies cos and sin
    freq_factors: Sequence[float] | None = None  # [rotary_dims / 2]


@dataclass(frozen=True)
class Model:
    """What a model looks like, as lh_model. longhold knows no weights."""

    name: str
    fingerprint: str  # 1 to 64 of letters, digits, '.', '_', '-'; changes whenever weights do
    layer_count: int
    q_heads: int
    kv_heads: int
    head_dim: int
    context_length: int
    rope: Rope | Sequence[Rope]  # one for all layers that are put, or one for each
    pieces: Sequence[bytes]  # the text of each token of the vocabulary
    bos: int = -1
    scale: float = 0.0  # of the logits; 0: 1 / sqrt(head_dim)
    layers: Sequence[int] | None = None  # that are put, ascending; None: all
    recall_heads: Sequence[tuple[int, int]] = ()  # (layer, KV head), of new memories

    @property
    def put_layers(self) -> int:
        """How many layers are put."""
        return self.layer_count if self.layers is None else len(self.layers)


@dataclass(frozen=True)
class Place:
    """Tokens of a document, and the position to which the first one's key is rotated."""

    document: int
    begin: int
    end: int
    position: int = 0

    def __len__(self) -> int:
        return self.end - self.begin


class Evidence(enum.IntEnum):
    """How much a memory speaks for there being an answer in it."""

    NONE = 0
    WEAK = 1
    STRONG = 2


@dataclass(frozen=True)
class Span:
    """A part of a document that a question is about."""

    document: int  # its id within the memory
    document_name: str
    begin: int  # tokens
    end: int
    line_begin: int  # 1-based, inclusive
    line_end: int
    byte_begin: int
    byte_end: int
    score: float  # relevance; 1 is the best span's
    text: str
    date_begin: int = 0  # tokens of the line that says when it was said; empty where none does
    date_end: int = 0
    date_line: str = ""


@dataclass(frozen=True)
class Plan:
    """The spans that a question is about, best first."""

    spans: tuple[Span, ...]
    evidence: Evidence
    coverage: float | None  # share of the recall heads' attention that the spans hold


@dataclass(frozen=True)
class Prefix:
    document: int
    length: int


@dataclass(frozen=True)
class Stats:
    documents: int
    tokens: int
    disk_bytes: int
    sink_tokens: int
    window_tokens: int


@dataclass
class _Rows:
    """lh_rows for some arrays, and what must live as long."""

    rows: native.Rows
    keep: list[Any] = field(default_factory=list)


def _bytes(text: str | bytes | os.PathLike[str] | None) -> bytes | None:
    if text is None or isinstance(text, bytes):
        return text
    return os.fspath(text).encode("utf-8")


def _layer_rows(model: Model, keys: LayerArrays, values: LayerArrays, writes: bool) -> _Rows:
    arrays = [*keys, *values]
    layers = model.put_layers
    if len(keys) != layers or len(values) != layers:
        raise InvalidArgument(
            f"model {model.name}: puts {layers} layers, got keys of {len(keys)} and values of {len(values)}"
        )
    first = arrays[0]
    if first.ndim != 3 or first.dtype not in (np.float16, np.float32):
        raise InvalidArgument(
            f"keys and values are float16 or float32 [tokens, kv_heads, head_dim], got {first.dtype} {list(first.shape)}"
        )
    tokens, heads, dim = first.shape
    if (heads, dim) != (model.kv_heads, model.head_dim):
        raise InvalidArgument(
            f"model {model.name}: has {model.kv_heads} KV heads of {model.head_dim}, got {heads} of {dim}"
        )
    size = first.itemsize

    def strides(array: Array) -> list[int]:
        # The stride of an axis of one element is any number in numpy.
        return [size if n == 1 else s for n, s in zip(array.shape, array.strides, strict=True)]

    for array in arrays:
        if array.shape != first.shape or array.dtype != first.dtype or strides(array) != strides(first):
            raise InvalidArgument("the arrays of all layers, keys and values, need one shape, type and strides")
        if not array.flags.aligned or not array.dtype.isnative or (writes and not array.flags.writeable):
            raise InvalidArgument("an array is not aligned, not in native byte order, or not writeable")
    token_stride, head_stride, channel_stride = strides(first)
    if channel_stride != size or token_stride <= 0 or head_stride <= 0 or token_stride % size or head_stride % size:
        raise InvalidArgument("the last axis must be contiguous, and no stride negative")
    pointers = [(ctypes.c_void_p * layers)(*(a.ctypes.data for a in half)) for half in (arrays[:layers], arrays[layers:])]
    rows = native.Rows(
        keys=pointers[0],
        values=pointers[1],
        tokens=tokens,
        token_stride=token_stride // size,
        head_stride=head_stride // size,
        float32=int(first.dtype == np.float32),
    )
    return _Rows(rows, [pointers, arrays])


def _native_model(model: Model) -> tuple[native.Model, list[Any]]:
    ropes = [model.rope] if isinstance(model.rope, Rope) else list(model.rope)
    if not ropes:
        raise InvalidArgument(f"model {model.name}: has no position embedding; give Rope(rotary_dims=0)")
    keep: list[Any] = []
    rope_array = (native.Rope * len(ropes))()
    for out, rope in zip(rope_array, ropes, strict=True):
        factors = None
        if rope.freq_factors is not None:
            if len(rope.freq_factors) != rope.rotary_dims // 2:
                raise InvalidArgument(f"model {model.name}: freq_factors needs {rope.rotary_dims // 2} numbers")
            factors = (ctypes.c_float * len(rope.freq_factors))(*rope.freq_factors)
            keep.append(factors)
        out.size = ctypes.sizeof(native.Rope)
        out.rotary_dims = rope.rotary_dims
        out.halves = int(rope.halves)
        out.freq_base = rope.freq_base
        out.freq_scale = rope.freq_scale
        out.attn_factor = rope.attn_factor
        out.freq_factors = factors
    # The library copies the pieces, so one joined buffer is enough for the call.
    joined = ctypes.create_string_buffer(b"".join(model.pieces))
    lengths = np.fromiter((len(p) for p in model.pieces), np.uint32, len(model.pieces))
    starts = np.zeros(len(model.pieces), np.uint64)
    if len(starts):
        np.cumsum(lengths[:-1], out=starts[1:])
    starts += ctypes.addressof(joined)
    layers = None if model.layers is None else (ctypes.c_uint32 * len(model.layers))(*model.layers)
    heads = (native.Head * len(model.recall_heads))(*(native.Head(layer, head) for layer, head in model.recall_heads))
    out_model = native.Model(
        name=_bytes(model.name),
        fingerprint=_bytes(model.fingerprint),
        layer_count=model.layer_count,
        q_heads=model.q_heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        scale=model.scale,
        context_length=model.context_length,
        layers=layers,
        layers_count=0 if model.layers is None else len(model.layers),
        rope=rope_array,
        rope_count=len(ropes),
        pieces=starts.ctypes.data_as(ctypes.POINTER(ctypes.c_void_p)),
        piece_bytes=lengths.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32)),
        vocab_size=len(model.pieces),
        bos=model.bos,
        recall_heads=heads if model.recall_heads else None,
        recall_heads_count=len(model.recall_heads),
    )
    keep += [rope_array, joined, lengths, starts, layers, heads]
    return out_model, keep


class Home:
    """A directory of memories, open for one model. Calls may come from any thread and run one at a
    time. Use it as a context manager, or close() it.

    The model is a description of one that another engine runs, or with ``gguf`` a file that longhold
    itself runs, so that ingest() can read texts.
    """

    def __init__(
        self,
        model: Model | None = None,
        home: str | os.PathLike[str] | None = None,
        *,
        budget_bytes: int = 0,
        codec: str | None = None,
        embedder: str | os.PathLike[str] | None = None,
        read_only: bool = False,
        gguf: str | os.PathLike[str] | None = None,
        threads: int = 0,
    ) -> None:
        self.model = model
        self._lock = threading.RLock()
        self._handle: int | None = None
        self._why_closed = "the home is closed"
        self._writers: weakref.WeakSet[Writer] = weakref.WeakSet()
        options = native.Options(
            home=_bytes(home),
            budget_bytes=budget_bytes,
            codec=_bytes(codec),
            embedder=_bytes(embedder),
            read_only=int(read_only),
            gguf=_bytes(gguf),
            threads=threads,
        )
        described, keep = (None, []) if model is None else _native_model(model)
        handle = ctypes.c_void_p()
        _check(library().lh_open(options, described, ctypes.byref(handle)))
        del keep
        self._handle = handle.value
        _homes.add(self)

    # ---- its life

    def close(self) -> None:
        """Ends the home's writers, then the home. Waits for a call that runs."""
        with self._lock:
            handle, self._handle = self._handle, None
            if handle is None:
                return
            for writer in list(self._writers):
                writer._finish_quietly()
            library().lh_close(handle)

    def _forget(self) -> None:
        """Without closing: what is open belongs to the process that was forked."""
        self._lock = threading.RLock()  # a thread that is not here may hold the other one
        self._handle = None
        self._why_closed = "the home was opened before this process was forked; open one here"
        for writer in list(self._writers):
            writer._handle = None

    def __enter__(self) -> Home:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def _open(self) -> int:
        if self._handle is None:
            raise FailedPrecondition(self._why_closed)
        return self._handle

    @property
    def description(self) -> Model:
        """The model that the home was opened for. Errors: FailedPrecondition (it was opened for a GGUF)."""
        if self.model is None:
            raise FailedPrecondition("the home was opened for a GGUF: longhold runs that model; open it with a Model")
        return self.model

    # ---- putting

    def put(
        self,
        memory: str,
        name: str,
        text: str | bytes,
        tokens: npt.ArrayLike,
        token_bytes: npt.ArrayLike | None = None,
    ) -> Writer:
        """Begins to put a document, or continues after an interruption: rows are expected from
        ``writer.position`` on. ``token_bytes`` are the bytes of text of each token; None: the lengths
        of its pieces."""
        raw = text.encode("utf-8") if isinstance(text, str) else text
        ids = np.ascontiguousarray(tokens, np.int32)
        lengths = None if token_bytes is None else np.ascontiguousarray(token_bytes, np.uint16)
        if ids.ndim != 1 or (lengths is not None and lengths.shape != ids.shape):
            raise InvalidArgument(f"document {name}: tokens and their bytes are lists of one length")
        document = native.Document(
            name=_bytes(name),
            text=ctypes.cast(ctypes.c_char_p(raw), ctypes.c_void_p),
            text_bytes=len(raw),
            tokens=ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            tokens_count=len(ids),
            token_bytes=None if lengths is None else lengths.ctypes.data_as(ctypes.POINTER(ctypes.c_uint16)),
        )
        self.description  # the error where there is none
        handle = ctypes.c_void_p()
        with self._lock:
            _check(library().lh_put_begin(self._open(), _bytes(memory), document, ctypes.byref(handle)))
            assert handle.value is not None
            writer = Writer(self, handle.value, len(ids))
            self._writers.add(writer)
        return writer

    def ingest(self, memory: str, name: str, text: str | bytes) -> None:
        """Reads a text by the model of ``gguf``, and returns when all of it is stored."""
        raw = text.encode("utf-8") if isinstance(text, str) else text
        with self._lock:
            _check(library().lh_ingest(self._open(), _bytes(memory), _bytes(name), raw, len(raw)))

    # ---- recalling

    def plan(
        self,
        memory: str,
        question: str = "",
        *,
        queries: Sequence[Array] | None = None,
        position: int | None = None,
        spans_max: int = 0,
        tokens_max: int = 0,
    ) -> Plan:
        """The spans that a question is about. ``queries``: for each recall head of the model a float32
        array [tokens, q_heads / kv_heads, head_dim]; ``position`` is that of the first token where
        they are rotated."""
        asked = native.Question(text=_bytes(question), spans_max=spans_max, tokens_max=tokens_max)
        keep: list[Any] = []
        if queries is not None:
            model = self.description
            rows = [np.ascontiguousarray(q, np.float32) for q in queries]
            shape = (len(rows[0]) if rows else 0, model.q_heads // model.kv_heads, model.head_dim)
            if len(rows) != len(model.recall_heads) or any(q.shape != shape for q in rows):
                raise InvalidArgument(
                    f"model {model.name}: has {len(model.recall_heads)} recall heads; their queries are [tokens, "
                    f"{shape[1]}, {shape[2]}] each"
                )
            pointers = (ctypes.c_void_p * len(rows))(*(q.ctypes.data for q in rows))
            given = native.Queries(
                queries=pointers, tokens=shape[0], rotated=int(position is not None), position=position or 0
            )
            asked.queries = ctypes.pointer(given)
            keep += [rows, pointers, given]
        handle = ctypes.c_void_p()
        lib = library()
        with self._lock:
            _check(lib.lh_plan_make(self._open(), _bytes(memory), asked, ctypes.byref(handle)))
        try:
            spans = []
            for i in range(lib.lh_plan_count(handle)):
                span = native.Span()
                lib.lh_plan_span(handle, i, span)
                spans.append(
                    Span(
                        document=span.document,
                        document_name=span.document_name.decode("utf-8", "replace"),
                        begin=span.begin,
                        end=span.end,
                        line_begin=span.line_begin,
                        line_end=span.line_end,
                        byte_begin=span.byte_begin,
                        byte_end=span.byte_end,
                        score=span.score,
                        text=span.text.decode("utf-8", "replace"),
                        date_begin=span.date_begin,
                        date_end=span.date_end,
                        date_line=span.date_line.decode("utf-8", "replace"),
                    )
                )
            coverage = lib.lh_plan_coverage(handle)
            return Plan(tuple(spans), Evidence(lib.lh_plan_evidence(handle)), None if coverage < 0 else coverage)
        finally:
            lib.lh_plan_free(handle)

    def fetch(
        self,
        memory: str,
        places: Iterable[Place],
        keys: LayerArrays | None = None,
        values: LayerArrays | None = None,
        *,
        rotated: bool = True,
        dtype: npt.DTypeLike = np.float16,
    ) -> tuple[LayerArrays, LayerArrays]:
        """Keys and values of the places, one after the other, with keys rotated to the places'
        positions. Written into ``keys`` and ``values`` where they are given, else into new arrays
        [layers, tokens, kv_heads, head_dim]."""
        model = self.description
        given = list(places)
        tokens = sum(len(p) for p in given)
        if (keys is None) != (values is None):
            raise InvalidArgument("fetch() fills keys and values of yours, or makes both; give both or none")
        if keys is None or values is None:
            shape = (model.put_layers, tokens, model.kv_heads, model.head_dim)
            keys, values = np.empty(shape, dtype), np.empty(shape, dtype)
        rows = _layer_rows(model, keys, values, writes=True)
        rows.rows.rotated = int(rotated)
        array = (native.Place * len(given))()
        for out, place in zip(array, given, strict=True):
            out.size = ctypes.sizeof(native.Place)
            out.document, out.begin, out.end, out.position = place.document, place.begin, place.end, place.position
        if given:
            with self._lock:
                _check(library().lh_fetch(self._open(), _bytes(memory), array, len(given), rows.rows))
        return keys, values

    def tokens(self, memory: str, document: int, begin: int, end: int) -> npt.NDArray[np.int32]:
        """The token ids of a place."""
        out = np.empty(max(0, end - begin), np.int32)
        place = native.Place(document=document, begin=begin, end=end)
        with self._lock:
            pointer = out.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            _check(library().lh_tokens(self._open(), _bytes(memory), place, pointer))
        return out

    def prefix(self, memory: str, tokens: npt.ArrayLike) -> Prefix:
        """The document that shares the longest prefix with ``tokens``."""
        ids = np.ascontiguousarray(tokens, np.int32)
        document, length = ctypes.c_uint32(), ctypes.c_uint64()
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        with self._lock:
            _check(
                library().lh_prefix(
                    self._open(), _bytes(memory), pointer, len(ids), ctypes.byref(document), ctypes.byref(length)
                )
            )
        return Prefix(document.value, length.value)

    # ---- managing

    def forget(self, memory: str, document: str | None = None) -> None:
        """Forgets a document, or without one the memory."""
        with self._lock:
            _check(library().lh_forget(self._open(), _bytes(memory), _bytes(document)))

    def stat(self, memory: str) -> Stats:
        out = native.Stats()
        with self._lock:
            _check(library().lh_stat(self._open(), _bytes(memory), out))
        return Stats(out.documents, out.tokens, out.disk_bytes, out.sink_tokens, out.window_tokens)


class Writer:
    """Puts the rows of one document. While it lives, nothing else writes to the memory. Leaving its
    ``with`` block commits what is there; a document without all its rows stays unfinished, and the
    next put() of it continues."""

    def __init__(self, home: Home, handle: int, tokens: int) -> None:
        self._home = home
        self._handle: int | None = handle
        self.tokens = tokens  # of the document

    def _open(self) -> int:
        if self._handle is None:
            raise FailedPrecondition("the writer is finished")
        return self._handle

    @property
    def position(self) -> int:
        """Tokens that are stored: rows are expected from there on."""
        with self._home._lock:
            return int(library().lh_put_position(self._open()))

    @property
    def document(self) -> int:
        """Its id within the memory, for places."""
        with self._home._lock:
            return int(library().lh_put_document(self._open()))

    @property
    def complete(self) -> bool:
        return self.position == self.tokens

    def put(self, keys: LayerArrays, values: LayerArrays, *, position: int | None = None) -> None:
        """Appends rows, for each layer [tokens, kv_heads, head_dim]. ``position`` is that of the first
        row where keys are rotated."""
        rows = _layer_rows(self._home.description, keys, values, writes=False)
        rows.rows.rotated = int(position is not None)
        rows.rows.position = position or 0
        with self._home._lock:
            _check(library().lh_put_rows(self._open(), rows.rows))

    def finish(self) -> None:
        """Commits and ends the writer, also on an error."""
        with self._home._lock:
            handle, self._handle = self._handle, None
            if handle is not None:
                self._home._writers.discard(self)
                _check(library().lh_put_finish(handle))

    def _finish_quietly(self) -> None:
        """What was committed stays; nobody is there to hear of an error."""
        handle, self._handle = self._handle, None
        if handle is not None:
            library().lh_put_finish(handle)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            with self._home._lock:
                self._finish_quietly()

    def __del__(self) -> None:
        home = getattr(self, "_home", None)
        if home is not None and self._handle is not None:
            with home._lock:
                self._finish_quietly()


def _after_fork() -> None:
    """In the new process, which has copies of all homes but not the threads that serve them. Closing one would
    wait for those threads, and end writers of the old process."""
    global _library_lock
    _library_lock = threading.Lock()
    for home in list(_homes):
        home._forget()


os.register_at_fork(after_in_child=_after_fork)
