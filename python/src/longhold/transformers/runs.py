"""What the attention of a forward pass does: reads a text, looks at a question, or attends to recalled
spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .attention import FEW_QUERIES, JoinedMasks, attend_apart, attend_joined

_HIDDEN = float("-inf")


class ReadRun:
    """A pass of a reading: its tokens attend to the sinks and the window of what was read, and to each
    other, and their keys and values are kept.

    keys, values: [layers] of [1, kv_heads, tokens, head_dim] of the sinks and window, which stand at
    negative positions. sliding: [layers] the window of those that see what they would in a stock run,
    by the distance in the text; None: it sees sinks and window. ages: [tokens] how many tokens before
    the pass each was read. seen: [tokens] whether it is of sinks or window.
    """

    def __init__(
        self,
        keys: list[torch.Tensor],
        values: list[torch.Tensor],
        ages: torch.Tensor,
        seen: torch.Tensor,
        sliding: Sequence[int | None],
    ) -> None:
        self._keys, self._values, self._ages, self._seen, self._sliding = keys, values, ages, seen, sliding
        self._masks = JoinedMasks()
        self._prefixes: dict[int | None, torch.Tensor] = {}
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}

    def _prefix(self, tokens: int, sliding: int | None) -> torch.Tensor:
        if sliding not in self._prefixes:
            if sliding is None:
                hidden = ~self._seen.expand(tokens, -1)
            else:
                hidden = torch.arange(tokens)[:, None] + self._ages >= sliding
            bias = torch.zeros(tokens, len(self._ages)).masked_fill_(hidden, _HIDDEN)
            self._prefixes[sliding] = bias.to(self._keys[0].device)
        return self._prefixes[sliding]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
        sliding: int | None,
        options: dict[str, Any],
    ) -> torch.Tensor:
        del sliding, options
        self.keys[layer], self.values[layer] = key, value
        tokens = query.shape[2]
        prefix = self._prefix(tokens, self._sliding[layer])
        joined = self._masks.of(mask, prefix, tokens, key.shape[2], query)
        return attend_joined(query, (self._keys[layer], key), (self._values[layer], value), joined, scaling)


class LookRun:
    """A pass over a prompt that keeps the queries of some heads and is otherwise the model's own."""

    def __init__(self, heads: Sequence[tuple[int, int]]) -> None:
        self._layers = {layer for layer, _ in heads}
        self._heads = heads
        self._queries: dict[int, torch.Tensor] = {}
        self._group = 1

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
        sliding: int | None,
        options: dict[str, Any],
    ) -> torch.Tensor:
        del sliding, options
        self._group = query.shape[1] // key.shape[1]
        if layer in self._layers:
            self._queries[layer] = query[0].detach().float().cpu()
        group = self._group
        out = torch.nn.functional.scaled_dot_product_attention(
            query,
            key.repeat_interleave(group, 1),
            value.repeat_interleave(group, 1),
            attn_mask=mask,
            is_causal=mask is None and query.shape[2] > 1,
            scale=scaling,
        )
        return out.transpose(1, 2).contiguous()

    def queries(self, first: int, end: int) -> list[Any]:
        """For each head the queries of tokens [first, end): [tokens, group, head_dim]."""
        return [
            self._queries[layer][head * self._group : (head + 1) * self._group, first:end].transpose(0, 1).numpy()
            for layer, head in self._heads
        ]


class RecallRun:
    """The passes of one prompt and its answer: all of its tokens attend to recalled keys, too. A layer
    with a sliding window sees those that are in its window, by the compact positions.

    keys, values: [layers] of [1, kv_heads, tokens, head_dim], at positions -tokens to -1.
    bias: [tokens], added to their logits (the gate).
    """

    def __init__(self, keys: list[torch.Tensor], values: list[torch.Tensor], bias: torch.Tensor) -> None:
        self._keys, self._values, self._bias = keys, values, bias
        # [tokens] the softmax mass that the answer's tokens gave each key, over all layers and heads. On the device:
        # a copy for each layer would make the processor wait for the device in each of them.
        self.mass = torch.zeros(len(bias), device=bias.device)
        self.begin_pass(0)

    @property
    def tokens(self) -> int:
        return len(self._bias)

    def begin_pass(self, position: int) -> None:
        """Of the pass's first token."""
        self._position = position
        self._masks = JoinedMasks()
        self._prefixes: dict[int | None, torch.Tensor] = {None: self._bias}

    def _prefix(self, tokens: int, sliding: int | None) -> torch.Tensor:
        """What is added to the logits of recalled keys: [tokens or 1, recalled]."""
        if sliding not in self._prefixes:
            assert sliding is not None
            device = self._bias.device
            at = self._position + torch.arange(tokens, device=device)[:, None]
            distance = at + torch.arange(self.tokens, 0, -1, device=device)
            self._prefixes[sliding] = self._bias.expand(tokens, -1).masked_fill(distance >= sliding, _HIDDEN)
        return self._prefixes[sliding]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scaling: float,
        sliding: int | None,
        options: dict[str, Any],
    ) -> torch.Tensor:
        del options
        tokens = query.shape[2]
        prefix = self._prefix(tokens, sliding)
        keys, values = (self._keys[layer], key), (self._values[layer], value)
        if tokens <= FEW_QUERIES:
            out, weights = attend_apart(query, keys, values, prefix, mask, scaling)
            self.mass += weights.detach().sum((0, 1))
            return out
        if mask is None and key.shape[2] > tokens:
            # The first pass over a cache of fixed length: what follows the prompt is empty.
            keys, values = (keys[0], key[:, :, :tokens]), (values[0], value[:, :, :tokens])
        joined = self._masks.of(mask, prefix, tokens, keys[1].shape[2], query)
        return attend_joined(query, keys, values, joined, scaling)
