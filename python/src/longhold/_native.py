"""liblonghold as ctypes sees it: structures and prototypes of capi/longhold.h, and nothing else.

The library is the one beside this file, or the one that $LONGHOLD_LIBRARY names. ctypes releases the
GIL for the length of each call.
"""

from __future__ import annotations

import ctypes
import json
import os
from ctypes import (
    POINTER,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

VERSION = 1  # of the interface, at least

# What /proc/cpuinfo must name for a library of each level (scripts/lib.sh).
_LEVEL_FLAGS = {
    "x64": ("sse4_2", "popcnt"),
    "avx2": ("avx", "avx2", "fma", "f16c", "bmi2"),
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "avx512vbmi", "avx512_vnni", "avx512_bf16"),
}


class Struct(ctypes.Structure):
    """A structure that begins with its own size."""

    def __init__(self, **members: Any) -> None:
        super().__init__(**members)
        self.size = ctypes.sizeof(self)


class Rope(Struct):
    _fields_ = [
        ("size", c_size_t),
        ("rotary_dims", c_uint32),
        ("halves", c_int),
        ("freq_base", c_float),
        ("freq_scale", c_float),
        ("attn_factor", c_float),
        ("freq_factors", POINTER(c_float)),
    ]


class Head(ctypes.Structure):
    _fields_ = [("layer", c_uint32), ("kv_head", c_uint32)]


class Model(Struct):
    _fields_ = [
        ("size", c_size_t),
        ("name", c_char_p),
        ("fingerprint", c_char_p),
        ("layer_count", c_uint32),
        ("q_heads", c_uint32),
        ("kv_heads", c_uint32),
        ("head_dim", c_uint32),
        ("scale", c_float),
        ("context_length", c_uint32),
        ("layers", POINTER(c_uint32)),
        ("layers_count", c_uint32),
        ("rope", POINTER(Rope)),
        ("rope_count", c_uint32),
        ("pieces", POINTER(c_void_p)),
        ("piece_bytes", POINTER(c_uint32)),
        ("vocab_size", c_uint32),
        ("bos", c_int32),
        ("recall_heads", POINTER(Head)),
        ("recall_heads_count", c_uint32),
    ]


class Options(Struct):
    _fields_ = [
        ("size", c_size_t),
        ("home", c_char_p),
        ("budget_bytes", c_uint64),
        ("codec", c_char_p),
        ("embedder", c_char_p),
        ("read_only", c_int),
        ("gguf", c_char_p),
        ("threads", c_uint32),
    ]


class Document(Struct):
    _fields_ = [
        ("size", c_size_t),
        ("name", c_char_p),
        ("text", c_void_p),
        ("text_bytes", c_size_t),
        ("tokens", POINTER(c_int32)),
        ("tokens_count", c_size_t),
        ("token_bytes", POINTER(c_uint16)),
    ]


class Rows(Struct):
    _fields_ = [
        ("size", c_size_t),
        ("keys", POINTER(c_void_p)),
        ("values", POINTER(c_void_p)),
        ("tokens", c_size_t),
        ("token_stride", c_size_t),
        ("head_stride", c_size_t),
        ("float32", c_int),
        ("rotated", c_int),
        ("position", c_int64),
    ]


class Queries(Struct):
    _fields_ = [
        ("size", c_size_t),
        ("queries", POINTER(c_void_p)),
        ("tokens", c_size_t),
        ("rotated", c_int),
        ("position", c_int64),
    ]


class Question(Struct):
    _fields_ = [
        ("size", c_size_t),
        ("text", c_char_p),
        ("queries", POINTER(Queries)),
        ("spans_max", c_uint32),
        ("tokens_max", c_uint32),
    ]


class Span(Struct):
    _fields_ = [
        ("size", c_size_t),
        ("document", c_uint32),
        ("begin", c_uint64),
        ("end", c_uint64),
        ("date_begin", c_uint64),
        ("date_end", c_uint64),
        ("byte_begin", c_uint64),
        ("byte_end", c_uint64),
        ("line_begin", c_uint64),
        ("line_end", c_uint64),
        ("score", c_double),
        ("document_name", c_char_p),
        ("text", c_char_p),
        ("date_line", c_char_p),
    ]


class Place(Struct):
    _fields_ = [
        ("size", c_size_t),
        ("document", c_uint32),
        ("begin", c_uint64),
        ("end", c_uint64),
        ("position", c_int64),
    ]


class Stats(Struct):
    _fields_ = [
        ("size", c_size_t),
        ("documents", c_uint64),
        ("tokens", c_uint64),
        ("disk_bytes", c_uint64),
        ("sink_tokens", c_uint32),
        ("window_tokens", c_uint32),
    ]


_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "lh_message": (c_char_p, []),
    "lh_version": (c_int, []),
    "lh_open": (c_int, [POINTER(Options), POINTER(Model), POINTER(c_void_p)]),
    "lh_close": (None, [c_void_p]),
    "lh_put_begin": (c_int, [c_void_p, c_char_p, POINTER(Document), POINTER(c_void_p)]),
    "lh_put_position": (c_uint64, [c_void_p]),
    "lh_put_document": (c_uint32, [c_void_p]),
    "lh_put_rows": (c_int, [c_void_p, POINTER(Rows)]),
    "lh_put_finish": (c_int, [c_void_p]),
    "lh_ingest": (c_int, [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t]),
    "lh_plan_make": (c_int, [c_void_p, c_char_p, POINTER(Question), POINTER(c_void_p)]),
    "lh_plan_free": (None, [c_void_p]),
    "lh_plan_count": (c_size_t, [c_void_p]),
    "lh_plan_span": (None, [c_void_p, c_size_t, POINTER(Span)]),
    "lh_plan_evidence": (c_int, [c_void_p]),
    "lh_plan_coverage": (c_double, [c_void_p]),
    "lh_fetch": (c_int, [c_void_p, c_char_p, POINTER(Place), c_size_t, POINTER(Rows)]),
    "lh_tokens": (c_int, [c_void_p, c_char_p, POINTER(Place), POINTER(c_int32)]),
    "lh_prefix": (
        c_int,
        [c_void_p, c_char_p, POINTER(c_int32), c_size_t, POINTER(c_uint32), POINTER(c_uint64)],
    ),
    "lh_forget": (c_int, [c_void_p, c_char_p, c_char_p]),
    "lh_stat": (c_int, [c_void_p, c_char_p, POINTER(Stats)]),
}


def _missing_flags(level: str) -> list[str]:
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = [line for line in cpuinfo.splitlines() if line.startswith("flags")]
    if not lines:
        return []
    flags = set(lines[0].split())
    return [flag for flag in _LEVEL_FLAGS.get(level, ()) if flag not in flags]


def load() -> ctypes.CDLL:
    """Loads the library. ImportError names what is missing."""
    folder = Path(__file__).resolve().parent
    path = os.environ.get("LONGHOLD_LIBRARY") or str(folder / "liblonghold.so")
    if not Path(path).is_file():
        raise ImportError(
            f"longhold: no library {path}; install the wheel (scripts/wheel builds it), "
            "or set LONGHOLD_LIBRARY to a liblonghold.so"
        )
    about = folder / "build.json"
    if "LONGHOLD_LIBRARY" not in os.environ and about.is_file():
        # Without this check the first wrong instruction would end the process.
        level = str(json.loads(about.read_text(encoding="utf-8"))["cpu_level"])
        missing = _missing_flags(level)
        if missing:
            raise ImportError(
                f"longhold: this wheel is for processors of level {level}, and this one lacks "
                f"{', '.join(missing)}; build a wheel for it: LONGHOLD_CPU_LEVEL=x64 scripts/wheel"
            )
    library = ctypes.CDLL(path)
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    found = library.lh_version()
    if found < VERSION:
        raise ImportError(f"longhold: {path} has version {found} of the interface, and {VERSION} is needed")
    return library
