"""The attention function "longhold": the model's own attention, with keys of a memory before its own.

A memory sets a run for the length of one forward pass of its model (Memory's hooks); without one the
function is torch's scaled_dot_product_attention, as in transformers.
"""

from __future__ import annotations

import weakref
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "longhold"
# Queries that are computed without joining the memory's keys with the model's own: a copy of all
# keys would cost more than the attention.
FEW_QUERIES = 4


class Run(Protocol):
    """What the attention of one forward pass does."""

    def attend(
        self,
        layer: int,
        query: torch.Tensor,  # [1, q_heads, tokens, head_dim]
        key: torch.Tensor,  # [1, kv_heads, keys, head_dim]
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
        sliding: int | None,
        options: dict[str, Any],
    ) -> torch.Tensor:  # [1, tokens, q_heads, head_dim]
        ...


class HasRun(Protocol):
    def current_run(self) -> Run | None: ...


# Weak on both sides, so that neither a model nor its memory lives longer for it.
_OWNERS: weakref.WeakKeyDictionary[torch.nn.Module, weakref.ref[Any]] = weakref.WeakKeyDictionary()


def own(modules: list[torch.nn.Module], owner: HasRun) -> None:
    for module in modules:
        _OWNERS[module] = weakref.ref(owner)


def disown(modules: list[torch.nn.Module]) -> None:
    for module in modules:
        _OWNERS.pop(module, None)


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    reference = _OWNERS.get(module)
    owner = reference() if reference is not None else None
    run = owner.current_run() if owner is not None else None
    if run is None:
        out: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return out
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    return run.attend(layer, query, key, value, attention_mask, scale, sliding_window, kwargs), None


def register() -> None:
    """May be called again and again."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _additive(mask: torch.Tensor | None, tokens: int, keys: int, like: torch.Tensor) -> torch.Tensor:
    """The model's own mask as numbers to add to logits: [1, 1, tokens, keys]."""
    if mask is not None and mask.dtype != torch.bool:
        return mask.to(like.dtype)
    if mask is None:
        # transformers leaves it out where one token sees all keys, or where the pass is causal.
        first = keys - tokens if tokens == 1 else 0
        at = torch.arange(tokens, device=like.device)[:, None] + first
        mask = (torch.arange(keys, device=like.device)[None, :] <= at)[None, None]
    out = torch.zeros(mask.shape, dtype=like.dtype, device=like.device)
    return out.masked_fill_(~mask, float("-inf"))


class JoinedMasks:
    """The masks of one forward pass over prefix and own keys. Layers of one kind share theirs."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, int], tuple[torch.Tensor | None, torch.Tensor]] = {}

    def of(
        self, mask: torch.Tensor | None, prefix: torch.Tensor, tokens: int, keys: int, like: torch.Tensor
    ) -> torch.Tensor:
        """`prefix` [tokens or 1, prefix keys] is added to the logits of the prefix."""
        place = (id(mask), id(prefix))
        if place not in self._made:
            own_part = _additive(mask, tokens, keys, like)
            joined = torch.cat((prefix.to(like.dtype).expand(tokens, -1)[None, None], own_part), -1)
            # The mask is kept, so that its id stays its own.
            self._made[place] = (mask, joined)
        return self._made[place][1]


def attend_joined(
    query: torch.Tensor,
    keys: tuple[torch.Tensor, torch.Tensor],
    values: tuple[torch.Tensor, torch.Tensor],
    mask: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """softmax(scaling * q . (K0 | K1) + mask) (V0 | V1) by torch's kernel: [1, tokens, q_heads, dim]."""
    group = query.shape[1] // keys[1].shape[1]
    key, value = torch.cat(keys, 2), torch.cat(values, 2)
    if group > 1:
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return out.transpose(1, 2).contiguous()


def attend_apart(
    query: torch.Tensor,
    keys: tuple[torch.Tensor, torch.Tensor],
    values: tuple[torch.Tensor, torch.Tensor],
    prefix: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for few queries, without copies of keys. `prefix` [tokens or 1, prefix keys] is added to
    the logits of the prefix. Also its softmax weights: [kv_heads, group * tokens, prefix keys]."""
    heads, tokens, dim = query.shape[1:]
    kv_heads = keys[1].shape[1]
    rows = query.reshape(kv_heads, -1, dim)
    before = torch.matmul(rows, keys[0][0].transpose(1, 2)).float() * scaling
    before = (before.view(kv_heads, -1, tokens, before.shape[-1]) + prefix).view(before.shape)
    own_keys = torch.matmul(rows, keys[1][0].transpose(1, 2)).float() * scaling
    if mask is not None or tokens > 1:
        added = _additive(mask, tokens, own_keys.shape[-1], own_keys)[0]
        own_keys = (own_keys.view(kv_heads, -1, tokens, own_keys.shape[-1]) + added).view(own_keys.shape)
    weights = torch.cat((before, own_keys), -1).softmax(-1)
    count = before.shape[-1]
    parts = weights.to(query.dtype)
    out = torch.matmul(parts[..., :count], values[0][0]) + torch.matmul(parts[..., count:], values[1][0])
    return out.view(1, heads, tokens, dim).transpose(1, 2).contiguous(), weights[..., :count]
