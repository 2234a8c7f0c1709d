"""Rotary position embeddings in torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .home import Rope


@dataclass(frozen=True)
class Rotation:
    """Rotates keys of one layer, in torch."""

    frequencies: torch.Tensor  # [pairs], radians per position; empty: none
    magnitude: float
    halves: bool

    @classmethod
    def of(cls, rope: Rope) -> Rotation:
        pairs = rope.rotary_dims // 2
        i = torch.arange(pairs, dtype=torch.float64)
        frequencies = rope.freq_scale * rope.freq_base ** (-i / max(1, pairs))
        if rope.freq_factors is not None:
            frequencies = frequencies / torch.tensor(list(rope.freq_factors), dtype=torch.float64)
        return cls(frequencies.float(), rope.attn_factor or 1.0, rope.halves)

    def turned(self, keys: torch.Tensor, positions: torch.Tensor, back: bool = False) -> torch.Tensor:
        """Keys [..., tokens, dim], float32, turned to positions [tokens], or back from them."""
        pairs = len(self.frequencies)
        if pairs == 0:
            return keys
        angles = positions.to(keys.device, torch.float32)[:, None] * self.frequencies.to(keys.device)
        cos, sin = angles.cos(), angles.sin()
        if back:
            cos, sin = cos / self.magnitude, -sin / self.magnitude
        else:
            cos, sin = cos * self.magnitude, sin * self.magnitude
        out = keys.clone()
        if self.halves:
            a, b = keys[..., :pairs], keys[..., pairs : 2 * pairs]
            out[..., :pairs], out[..., pairs : 2 * pairs] = a * cos - b * sin, a * sin + b * cos
        else:
            a, b = keys[..., 0 : 2 * pairs : 2], keys[..., 1 : 2 * pairs : 2]
            out[..., 0 : 2 * pairs : 2], out[..., 1 : 2 * pairs : 2] = a * cos - b * sin, a * sin + b * cos
        return out

    def rope(self) -> Rope:
        """The same as longhold writes it: freq_factors[i] = base^(-2 i / dims) / frequency[i]."""
        pairs = len(self.frequencies)
        if pairs == 0:
            return Rope(rotary_dims=0)
        base = 10000.0
        plain = [base ** (-i / pairs) for i in range(pairs)]
        factors = [p / float(f) for p, f in zip(plain, self.frequencies.double(), strict=True)]
        return Rope(
            rotary_dims=2 * pairs,
            freq_base=base,
            halves=self.halves,
            attn_factor=self.magnitude,
            freq_factors=factors,
        )
