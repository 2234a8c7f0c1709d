"""longhold: a long-context memory for models that another engine runs.

``longhold.Home`` is the C library liblonghold with numpy arrays, ``longhold.aio.Home`` the same for
asyncio. ``longhold.attach(model, "bible")`` gives a Hugging Face causal model a memory.
"""

from __future__ import annotations

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

# A wheel for another processor, or none, is an error here and not at the first call.
library()


def attach(model: Any, name: str, **options: Any) -> Memory:
    """Gives a Hugging Face causal model the memory ``name``; see longhold.transformers.attach."""
    from .transformers import attach as attach_to

    return attach_to(model, name, **options)
