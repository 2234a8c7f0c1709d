"""A checkpoint as longhold.Model, with the fingerprint that longhold.transformers gives it. So a memory that
transformers read serves vLLM, and the other way round.

vLLM joins and splits weights as it loads them; so transformers loads the checkpoint once, and the description is
kept in a file, in the cache directory of the program `longhold`. It holds as long as the checkpoint's files keep
sizes and times.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from ..home import Home, Model, Rope

VERSION = 1
# The code that a description comes from.
_CODE = ("transformers/describe.py", "transformers/vocabulary.py", "rotation.py")


def _checkpoint_folder(model: str, revision: str | None) -> Path:
    if Path(model).is_dir():
        return Path(model).resolve()
    from transformers.utils.hub import cached_file

    try:
        return Path(str(cached_file(model, "config.json", revision=revision))).parent
    except OSError as error:
        raise InvalidArgument(f"model {model}: no such directory, and no such checkpoint ({error})") from error


def _dtype_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _key(folder: Path, tokenizer: Path, dtype: str, quantization: str | None) -> str:
    """Of all that the description depends on."""
    hash_ = hashlib.sha256(f"{VERSION} {folder} {tokenizer} {dtype} {quantization}\n".encode())
    for code in _CODE:
        hash_.update((Path(__file__).parent.parent / code).read_bytes())
    for place in dict.fromkeys((folder, tokenizer)):
        for file in sorted(place.iterdir()):
            if file.is_file():
                about = file.stat()
                hash_.update(f"{file.name} {about.st_size} {about.st_mtime_ns}\n".encode())
    return hash_.hexdigest()[:40]


def _cache_folder() -> Path:
    """As the program finds it (service/common/config.cc): $LONGHOLD_CACHE, else longhold in $XDG_CACHE_HOME, else
    in ~/.cache. The XDG specification says that relative values are ignored."""
    if own := os.environ.get("LONGHOLD_CACHE"):
        return Path(own)
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if xdg.startswith("/") else Path.home() / ".cache") / "longhold"


def _file_of(key: str) -> Path:
    return _cache_folder() / "descriptions" / f"{key}.json"


def _write(file: Path, model: Model) -> None:
    fields = dataclasses.asdict(model)
    fields["pieces"] = [piece.hex() for piece in model.pieces]
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as out:
        json.dump(fields, out)
    os.replace(out.name, file)


def _read(file: Path) -> Model:
    fields = json.loads(file.read_text(encoding="utf-8"))
    fields["pieces"] = [bytes.fromhex(piece) for piece in fields["pieces"]]
    fields["rope"] = [Rope(**rope) for rope in fields["rope"]]
    fields["recall_heads"] = ()
    return Model(**fields)


def _load(model: str, tokenizer: str, dtype: str, revision: str | None, trust_remote_code: bool) -> Model:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ..transformers import attention, describe

    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    with torch.device("cpu"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype), **options)
    loaded.eval()
    reader = AutoTokenizer.from_pretrained(tokenizer, **options)
    attention.register()
    loaded.set_attn_implementation(attention.NAME)
    return describe(loaded, reader).model


def describe(
    model: str,
    dtype: Any,
    *,
    tokenizer: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    quantization: str | None = None,
) -> Model:
    """Of a checkpoint's directory or name, in the type that vLLM computes with (its dtype; "auto" has no
    fingerprint). Errors: InvalidArgument, Unimplemented (a model that longhold does not serve)."""
    name = _dtype_name(dtype)
    if name not in ("float32", "float16", "bfloat16"):
        raise InvalidArgument(f"model {model}: dtype {name!r} is not one of float32, float16, bfloat16; name vLLM's")
    folder = _checkpoint_folder(model, revision)
    readers = _checkpoint_folder(tokenizer, revision) if tokenizer and tokenizer != model else folder
    file = _file_of(_key(folder, readers, name, quantization))
    with contextlib.suppress(FileNotFoundError):
        return _read(file)
    found = _load(model, tokenizer or model, name, revision, trust_remote_code)
    if quantization:
        # vLLM computes other keys than transformers.
        hash_ = hashlib.sha256(f"{found.fingerprint} {quantization}".encode()).hexdigest()[:40]
        found = dataclasses.replace(found, fingerprint=f"vllm-{hash_}")
    _write(file, found)
    return found


def open_home(model: str, dtype: Any, home: str | os.PathLike[str] | None = None, **options: Any) -> Home:
    """The home of memories for a checkpoint that vLLM runs in `dtype`. Options: those of describe(), and
    `embedder`, `codec`, `budget_bytes`, `read_only` of Home."""
    about = {k: options.pop(k) for k in ("tokenizer", "revision", "trust_remote_code", "quantization") if k in options}
    return Home(describe(model, dtype, **about), home, **options)
