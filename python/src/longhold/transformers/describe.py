"""A Hugging Face model as longhold.Model: its geometry, its rotary embedding and a fingerprint.

Nothing is taken from the model's name. One token passes through it at two positions; the keys of each
layer must differ by a rotation that the numbers of its own rotary modules describe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import InvalidArgument, Unimplemented
from ..home import Model
from ..rotation import Rotation
from . import attention
from .vocabulary import bos_of, pieces_of

# Far enough that a wrong frequency shows, near enough that float32 angles are exact.
_FAR = 1000
# Of the largest key: rounding of the model's own rotation.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
# Frequencies that change with the length of a sequence.
_CHANGING = ("dynamic", "longrope")


@dataclass
class Described:
    model: Model
    rotations: list[Rotation]  # [layers]
    sliding: list[int | None]  # [layers] the window of those that have one
    modules: list[torch.nn.Module]  # [layers] the attention of each


@dataclass
class _Seen:
    query_heads: int
    key: torch.Tensor  # [kv_heads, head_dim], float32
    scaling: float
    sliding: int | None


@dataclass
class _Probe:
    """Keeps what the attention function gets for the last token of a pass."""

    name: str
    seen: dict[int, _Seen] = field(default_factory=dict)

    def current_run(self) -> _Probe:
        return self

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
        del mask
        what = None
        if options.get("softcap") is not None:
            what = "caps its attention logits"
        elif options.get("s_aux") is not None:
            what = "has learned attention sinks"
        elif options.get("position_bias") is not None:
            what = "adds a position bias to its attention"
        elif value.shape != key.shape:
            what = f"has keys of {key.shape[-1]} and values of {value.shape[-1]} channels"
        elif options.get("is_causal") is False:
            what = "does not attend causally"
        if what is not None:
            raise Unimplemented(f"model {self.name}: layer {layer} {what}, which longhold does not serve")
        self.seen[layer] = _Seen(query.shape[1], key[0, :, -1].detach().float().cpu(), scaling, sliding)
        group = query.shape[1] // key.shape[1]
        return value.repeat_interleave(group, 1).transpose(1, 2).contiguous()  # of one token: its own


def text_config(model: Any) -> Any:
    config = model.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def name_of(model: Any) -> str:
    return str(getattr(model.config, "_name_or_path", "") or type(model).__name__)[-200:]


def _attention_modules(model: Any, layers: int) -> list[torch.nn.Module]:
    found: dict[int, torch.nn.Module] = {}
    for module in model.get_decoder().modules():
        layer = getattr(module, "layer_idx", None)
        if isinstance(layer, int) and "Attention" in type(module).__name__:
            found.setdefault(layer, module)
    for layer in range(layers):
        if layer not in found:
            raise Unimplemented(f"model {name_of(model)}: layer {layer} has no attention that longhold could see")
    return [found[layer] for layer in range(layers)]


def _candidates(model: Any) -> list[tuple[torch.Tensor, float]]:
    """(frequencies, magnitude) of all rotary modules. Errors: Unimplemented (frequencies that change)."""
    found: list[tuple[torch.Tensor, float]] = []
    for module in model.get_decoder().modules():
        buffers = [(n, b) for n, b in module.named_buffers(recurse=False) if n.endswith("inv_freq")]
        if not buffers:
            continue
        kinds = getattr(module, "rope_type", "default")
        for kind in kinds.values() if isinstance(kinds, dict) else [kinds]:
            if kind in _CHANGING:
                raise Unimplemented(
                    f"model {name_of(model)}: its rotary embedding {kind!r} changes with the length of the sequence, "
                    "so stored keys cannot be moved"
                )
        for name, buffer in buffers:
            if "original" in name:
                continue
            magnitude = float(getattr(module, name.replace("inv_freq", "attention_scaling"), 1.0))
            if not any(torch.equal(f, buffer.float().cpu()) and m == magnitude for f, m in found):
                found.append((buffer.detach().float().cpu(), magnitude))
    return found


def _rotation(
    name: str, layer: int, near: torch.Tensor, far: torch.Tensor, candidates: Sequence[tuple[torch.Tensor, float]],
    dtype: torch.dtype,
) -> Rotation:
    """The rotation that turns a layer's key at position 0 into that at position _FAR."""
    limit = _TOLERANCE.get(dtype, 1e-3) * max(float(near.abs().max()), 1e-6)
    still = Rotation(torch.empty(0), 1.0, True)
    tried = [Rotation(f, m, halves) for f, m in candidates for halves in (True, False)] + [still]
    ends = (torch.tensor([0]), torch.tensor([_FAR]))
    for rotation in tried:
        if 2 * len(rotation.frequencies) > near.shape[-1]:
            continue
        plain = rotation.turned(near[:, None], ends[0], back=True)
        if float((rotation.turned(plain, ends[1])[:, 0] - far).abs().max()) <= limit:
            return rotation
    raise Unimplemented(
        f"model {name}: the position embedding of layer {layer} is not a rotation by the frequencies of its rotary module"
    )


@torch.no_grad()
def _keys_at(model: Any, modules: list[torch.nn.Module], position: int) -> dict[int, _Seen]:
    probe = _Probe(name_of(model))
    attention.own(modules, probe)
    try:
        token = torch.tensor([[1]], device=model.device)
        at = torch.tensor([[position]], device=model.device)
        model.get_decoder()(input_ids=token, position_ids=at, use_cache=False)
    finally:
        attention.disown(modules)
    return probe.seen


def _fingerprint(model: Any, tokenizer: Any, rotations: list[Rotation]) -> str:
    """Changes whenever weights, tokenizer or precision do, and with no version of a package."""
    hash_ = hashlib.sha256()
    config = text_config(model)
    for key in ("model_type", "hidden_size", "intermediate_size", "sliding_window", "rms_norm_eps", "layer_types"):
        hash_.update(f"{key}={getattr(config, key, None)}\n".encode())
    for rotation in rotations:
        hash_.update(rotation.frequencies.numpy().tobytes() + f"{rotation.magnitude} {rotation.halves}".encode())
    for token, place in sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0])):
        hash_.update(f"{place} {token}\n".encode("utf-8", "surrogatepass"))
    for parameter in model.get_decoder().parameters():
        flat = parameter.detach().reshape(-1)
        sample = flat[:: max(1, len(flat) // 64)].float().cpu().numpy()
        hash_.update(f"{tuple(parameter.shape)} {parameter.dtype}\n".encode() + sample.tobytes())
    return "hf-" + hash_.hexdigest()[:40]


def describe(model: Any, tokenizer: Any, recall_heads: Sequence[tuple[int, int]] = ()) -> Described:
    """Must hold: the model's attention function is "longhold". Errors: Unimplemented, which names what
    longhold does not serve."""
    config = text_config(model)
    name = name_of(model)
    layers = int(config.num_hidden_layers)
    modules = _attention_modules(model, layers)
    candidates = _candidates(model)
    near, far = _keys_at(model, modules, 0), _keys_at(model, modules, _FAR)
    for layer in range(layers):
        if layer not in near:
            raise Unimplemented(
                f"model {name}: the attention of layer {layer} ({type(modules[layer]).__name__}) does not ask "
                "AttentionInterface"
            )
    first = near[0]
    for layer, seen in near.items():
        if (seen.query_heads, seen.key.shape, seen.scaling) != (first.query_heads, first.key.shape, first.scaling):
            raise Unimplemented(f"model {name}: layer {layer} has other heads or another scale than layer 0")
    rotations = [
        _rotation(name, layer, near[layer].key, far[layer].key, candidates, model.dtype) for layer in range(layers)
    ]
    kv_heads, head_dim = first.key.shape
    for layer, head in recall_heads:
        if not (0 <= layer < layers and 0 <= head < kv_heads):
            raise InvalidArgument(f"model {name}: has no KV head {head} in layer {layer}")
    description = Model(
        name=name,
        fingerprint=_fingerprint(model, tokenizer, rotations),
        layer_count=layers,
        q_heads=first.query_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        context_length=int(getattr(config, "max_position_embeddings", 0) or 2048),
        rope=[rotation.rope() for rotation in rotations],
        pieces=pieces_of(tokenizer, int(config.vocab_size)),
        bos=bos_of(tokenizer),
        scale=first.scaling,
        recall_heads=tuple(recall_heads),
    )
    return Described(description, rotations, [near[layer].sliding for layer in range(layers)], modules)
