"""Keys and values of a reading's passes on their way between read() and the worker of vLLM: files that only
this user may open, each gone when its pass is done.

Requests name a pass by 32 hex digits and never a path, so that a request can name no other file. The worker
saves only passes that a process of this user has begun here, so that a client of vLLM's server can fill no disk.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import FailedPrecondition, Internal

Rows = npt.NDArray[np.generic]  # [2 (keys, values), layers, tokens, kv_heads, head_dim], float16 or float32


def default_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"longhold-vllm-{os.getuid()}"


class Spool:
    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = Path(folder) if folder else default_folder()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = self.folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
            raise FailedPrecondition(f"spool {self.folder}: is not a directory of this user alone (mode 700)")

    def _write(self, name: str, kind: str, rows: Rows) -> None:
        path = self.folder / f"{name}.{kind}"
        with open(f"{path}.new", "wb", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            np.save(file, rows, allow_pickle=False)
        os.replace(f"{path}.new", path)

    # ---- of read()

    def begin(self, rows: Rows) -> str:
        """The name of a new pass, before whose tokens `rows` stand; they may have no tokens."""
        name = secrets.token_hex(16)
        self._write(name, "before", rows)
        return name

    def computed(self, name: str) -> Rows:
        """What the worker saved. Errors: Internal, with what failed there."""
        with contextlib.suppress(FileNotFoundError):
            raise Internal(f"pass {name}: {(self.folder / f'{name}.error').read_text(encoding='utf-8')}")
        try:
            rows: Rows = np.load(self.folder / f"{name}.computed", allow_pickle=False)
        except FileNotFoundError as error:
            raise Internal(
                f"pass {name}: the engine saved nothing in {self.folder}; does it run with LongholdConnector, on this "
                "machine and with the same spool?"
            ) from error
        return rows

    def end(self, name: str) -> None:
        for kind in ("before", "computed", "error"):
            (self.folder / f"{name}.{kind}").unlink(missing_ok=True)

    # ---- of the worker

    def before(self, name: str) -> Rows:
        rows: Rows = np.load(self.folder / f"{name}.before", allow_pickle=False)
        return rows

    def begun(self, name: str) -> bool:
        return (self.folder / f"{name}.before").is_file()

    def save(self, name: str, rows: Rows) -> None:
        self._write(name, "computed", rows)

    def fail(self, name: str, message: str) -> None:
        if self.begun(name):
            (self.folder / f"{name}.error").write_text(message, encoding="utf-8")
