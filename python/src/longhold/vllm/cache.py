"""Where keys and values lie in vLLM's KV cache. Nothing is assumed: the attention backend's own writer shows it.

A few tokens whose elements are their own numbers are written into a cache of two blocks that has the shape and
strides of the real one. Where a number is found there, its element belongs. So transposed, interleaved or
packed blocks (as on the CPU) are all the same here: a permutation of the elements of one block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..errors import Unimplemented

# Digits of the numbers that are written; exact in all types of a cache that are served.
_BASE = 128
_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_PROBE_ELEMENTS_MAX = 1 << 27

# (keys [tokens, kv_heads, head_dim], values likewise, cache, slots [tokens]); writes them into the cache.
CacheWriter = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class CacheLayout:
    """Of one layer's cache: `block_axis` counts blocks of `block_tokens` tokens; within a block, the element
    (token, KV head, channel) of keys and values lies at keys[...] and values[...] of the flattened block."""

    block_axis: int
    block_tokens: int
    kv_heads: int
    head_dim: int
    keys: torch.Tensor  # [block_tokens * kv_heads * head_dim], int64
    values: torch.Tensor

    def _indices(self, blocks: list[int], cache: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(blocks, dtype=torch.int64, device=cache.device)

    def read(self, cache: torch.Tensor, blocks: list[int], begin: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [end - begin, kv_heads, head_dim] of the tokens begin to end of a sequence that lies in
        `blocks`, in the cache's type."""
        first, last = begin // self.block_tokens, -(-end // self.block_tokens)
        taken = cache.movedim(self.block_axis, 0)[self._indices(blocks[first:last], cache)].reshape(last - first, -1)
        shape = (-1, self.kv_heads, self.head_dim)
        offset = first * self.block_tokens
        keys, values = (
            taken[:, index.to(cache.device)].reshape(shape)[begin - offset : end - offset]
            for index in (self.keys, self.values)
        )
        return keys, values

    def write(
        self, cache: torch.Tensor, blocks: list[int], begin: int, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Writes keys and values [tokens, kv_heads, head_dim] as the tokens from `begin` on. Other tokens of the
        first and the last block stay."""
        end = begin + len(keys)
        first, last = begin // self.block_tokens, -(-end // self.block_tokens)
        indices = self._indices(blocks[first:last], cache)
        view = cache.movedim(self.block_axis, 0)
        taken = view[indices].reshape(last - first, -1)
        size = self.kv_heads * self.head_dim
        # Row t of the elements of all these blocks is token t of the sequence.
        at = torch.arange(last - first, device=cache.device)[:, None] * taken.shape[1]
        offset = first * self.block_tokens
        flat = taken.reshape(-1)
        for rows, index in ((keys, self.keys), (values, self.values)):
            places = (at + index.to(cache.device)[None]).reshape(-1, size)[begin - offset : end - offset]
            flat[places.reshape(-1)] = rows.to(cache.device, cache.dtype).reshape(-1)
        view[indices] = flat.reshape(last - first, *view.shape[1:])


def _probe(cache: torch.Tensor, axis: int) -> torch.Tensor:
    """Two empty blocks with the cache's strides."""
    shape = list(cache.shape)
    shape[axis] = 2
    elements = 1 + sum((n - 1) * s for n, s in zip(shape, cache.stride(), strict=True))
    if elements > _PROBE_ELEMENTS_MAX:
        raise Unimplemented(f"two blocks of it span {elements} elements")
    storage = torch.zeros(elements, dtype=cache.dtype, device=cache.device)
    return storage.as_strided(shape, cache.stride())


def _learn(cache: torch.Tensor, axis: int, kv_heads: int, head_dim: int, writer: CacheWriter) -> CacheLayout:
    probe = _probe(cache, axis)
    block = probe.movedim(axis, 0)[0].numel()
    size = kv_heads * head_dim
    if block % (2 * size) != 0:
        raise Unimplemented(f"a block of {block} elements is not a number of keys and values of {kv_heads} x {head_dim}")
    tokens = block // (2 * size)
    numbers = torch.arange(1, block + 1, device=cache.device)
    slots = torch.arange(tokens, 2 * tokens, dtype=torch.int64, device=cache.device)  # of the second block
    found = torch.zeros(block, dtype=torch.int64, device=cache.device)
    digit = 1
    while digit <= block:
        probe.zero_()
        part = (numbers // digit % _BASE).to(cache.dtype).view(2, tokens, kv_heads, head_dim)
        writer(part[0].contiguous(), part[1].contiguous(), probe, slots)
        blocks = probe.movedim(axis, 0)
        if bool((blocks[0] != 0).any()):
            raise Unimplemented("a block's tokens do not stay within it")
        found += blocks[1].reshape(-1).to(torch.int64) * digit
        digit *= _BASE
    if not torch.equal(found.sort().values, numbers):
        raise Unimplemented("a block is no permutation of its keys and values")
    places = torch.empty(block, dtype=torch.int64)
    places[found.cpu() - 1] = torch.arange(block)
    half = tokens * size
    return CacheLayout(axis, tokens, kv_heads, head_dim, places[:half], places[half:])


def learn(
    name: str, cache: torch.Tensor, blocks: int, block_tokens: int, kv_heads: int, head_dim: int, writer: CacheWriter
) -> CacheLayout:
    """The layout of the cache of layer `name`, which has `blocks` blocks of `block_tokens` tokens, or each of them
    as several smaller ones. Errors: Unimplemented, which names what is not known of it."""
    what = f"the KV cache of layer {name} ({cache.dtype}, shape {list(cache.shape)}, strides {list(cache.stride())})"
    if cache.dtype not in _TYPES:
        raise Unimplemented(f"{what}: longhold serves float32, float16 and bfloat16; set --kv-cache-dtype auto")
    reasons = []
    for axis in range(min(2, cache.dim())):
        if cache.shape[axis] == 0 or cache.shape[axis] % blocks != 0:
            continue
        try:
            layout = _learn(cache, axis, kv_heads, head_dim, writer)
        except Exception as error:  # noqa: BLE001  # a writer may refuse a wrong axis with anything
            reasons.append(str(error))
            continue
        if cache.shape[axis] * layout.block_tokens == blocks * block_tokens:
            return layout
        reasons.append(f"{cache.shape[axis]} blocks of {layout.block_tokens} tokens are not {blocks} of {block_tokens}")
    raise Unimplemented(f"{what} is of an unknown layout: {'; '.join(reasons) or f'no axis counts {blocks} blocks'}")


def smaller_blocks(blocks: list[int], parts: int) -> list[int]:
    """Blocks of the scheduler as blocks of the cache, which has `parts` for each."""
    return blocks if parts == 1 else [block * parts + i for block in blocks for i in range(parts)]
