"""longhold: a long-context memory for models that another engine runs.

``longhold.Home`` is the C library liblonghold with numpy arrays, ``longhold.aio.Home`` the same for
asyncio. ``longhold.attach(model, "bible")`` gives a Hugging Face causal model a memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .errors import (
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    Error,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from .home import Evidence, Home, Model, Place, Plan, Prefix, Rope, Span, Stats, Writer, library

if TYPE_CHECKING:
    from . import aio, transformers, vllm
    from .transformers import Memory

__all__ = [
    "AlreadyExists",
    "Cancelled",
    "DataLoss",
    "DeadlineExceeded",
    "Error",
    "Evidence",
    "FailedPrecondition",
    "Home",
    "Internal",
    "InvalidArgument",
    "Model",
    "NotFound",
    "Place",
    "Plan",
    "Prefix",
    "ResourceExhausted",
    "Rope",
    "Span",
    "Stats",
    "Unavailable",
    "Unimplemented",
    "Writer",
    "attach",
]

# Imported at the first use, and not by `import *`: longhold.transformers needs torch, which the binding does not.
_LATE = ("aio", "transformers", "vllm")


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return importlib.import_module(f"{__name__}.{name}")


# A wheel for another processor, or none, is an error here and not at the first call.
library()


def attach(
    model: Any, name: str, tokenizer: Any = None, home: str | os.PathLike[str] | None = None, **options: Any
) -> Memory:
    """Gives a Hugging Face causal model the memory ``name``; see longhold.transformers.attach."""
    from .transformers import attach as attach_to

    return attach_to(model, name, tokenizer, home, **options)
