"""What a Hugging Face tokenizer says of bytes: the text of each token, and a text as tokens with the
bytes that each has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument, Unimplemented

# A text is tokenised in parts of at most this size, cut after a line break. So a book needs no list
# of Python objects for each of its tokens.
PART_BYTES = 32 * 1024

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_of_char() -> dict[str, int]:
    """GPT-2's map, in which each byte has a printable character."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF_CHAR = _byte_of_char()


def _kinds(part: Any) -> set[str]:
    """The types of a part of tokenizer.json and of all parts within it."""
    if isinstance(part, list):
        return set().union(*map(_kinds, part)) if part else set()
    if not isinstance(part, dict):
        return set()
    return {str(part["type"])} | _kinds(list(part.values())) if "type" in part else _kinds(list(part.values()))


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        written = json.loads(backend.to_str())
        return "ByteLevel" in _kinds(written.get("decoder")) or "ByteLevel" in _kinds(written.get("pre_tokenizer"))
    return hasattr(tokenizer, "byte_decoder")


def pieces_of(tokenizer: Any, vocab_size: int) -> list[bytes]:
    """The bytes of each token. Special tokens have none, and neither have rows of the embedding that
    the tokenizer does not use. Errors: Unimplemented (neither byte-level nor SentencePiece-like)."""
    size = max(vocab_size, len(tokenizer))
    names: list[str | None] = [None] * size
    for name, token in tokenizer.get_vocab().items():
        if 0 <= token < size:
            names[token] = name
    special = set(tokenizer.all_special_ids)
    added: dict[int, str] = {}
    for token, content in getattr(tokenizer, "added_tokens_decoder", {}).items():
        if content.special:
            special.add(token)
        else:
            added[token] = content.content
    byte_level = _is_byte_level(tokenizer)
    if not byte_level and not any(name and "\u2581" in name for name in names):
        raise Unimplemented(
            f"tokenizer {type(tokenizer).__name__}: is neither byte-level nor like SentencePiece, so the bytes of "
            "its tokens are not known"
        )
    pieces = []
    for token, name in enumerate(names):
        if name is None or token in special:
            piece = b""
        elif token in added:
            piece = added[token].encode("utf-8")
        elif byte_level:
            codes = [_BYTE_OF_CHAR.get(char) for char in name]
            piece = name.encode("utf-8") if None in codes else bytes(code for code in codes if code is not None)
        elif match := _BYTE_PIECE.fullmatch(name):
            piece = bytes([int(match.group(1), 16)])
        else:
            piece = name.replace("\u2581", " ").encode("utf-8")
        pieces.append(piece)
    return pieces


@dataclass(frozen=True)
class TokenText:
    """A text as tokens."""

    tokens: npt.NDArray[np.int32]
    token_bytes: npt.NDArray[np.uint16]  # their sum is the text's length in bytes


def _parts(text: str) -> Iterator[str]:
    """Cuts after a line break where there is one, else after a space, else anywhere."""
    begin = 0
    while begin < len(text):
        end = min(len(text), begin + PART_BYTES)
        while end > begin + 1 and len(text[begin:end].encode("utf-8")) > PART_BYTES:
            end = begin + (end - begin) * 3 // 4
        if end < len(text):
            cut = text.rfind("\n", begin, end)
            if cut < 0:
                cut = text.rfind(" ", begin, end)
            if cut > begin:
                end = cut + 1
        yield text[begin:end]
        begin = end


def _bytes_of_offsets(text: str, offsets: list[tuple[int, int]], total: int) -> list[int]:
    """Bytes of each token from the characters that it covers. What lies between two tokens belongs to
    the second one. Tokens within one character share its bytes."""
    if total == len(text):
        at = range(total + 1)
        byte_at: Any = at
    else:
        byte_at = [0]
        for char in text:
            byte_at.append(byte_at[-1] + len(char.encode("utf-8")))
    lengths: list[int] = []
    done = 0
    i = 0
    while i < len(offsets):
        same = i + 1
        while same < len(offsets) and offsets[same] == offsets[i] and offsets[i][0] < offsets[i][1]:
            same += 1
        end = max(done, byte_at[offsets[i][1]])
        if i + 1 < same:
            # Each a byte, as byte-level tokens of one character usually have, and the last the rest.
            for _ in range(i, same - 1):
                step = min(1, end - done)
                lengths.append(step)
                done += step
        lengths.append(end - done)
        done = end
        i = same
    if lengths:
        lengths[-1] += total - done
    return lengths


def tokenise(tokenizer: Any, pieces: Sequence[bytes], text: str) -> TokenText:
    """All of a text as tokens, beginning with bos where the tokenizer does. Errors: InvalidArgument
    (the tokens cannot be matched with the text)."""
    tokens: list[npt.NDArray[np.int32]] = []
    lengths: list[npt.NDArray[np.uint16]] = []
    first = bos_of(tokenizer)
    if first >= 0:
        tokens.append(np.array([first], np.int32))
        lengths.append(np.zeros(1, np.uint16))
    for part in _parts(text):
        fast = bool(getattr(tokenizer, "is_fast", False))
        # The limit of the model's length is not that of a text.
        encoded = tokenizer(part, add_special_tokens=False, return_offsets_mapping=fast, verbose=False)
        ids = encoded["input_ids"]
        raw = part.encode("utf-8")
        if b"".join(pieces[token] for token in ids) == raw:
            found = [len(pieces[token]) for token in ids]
        elif fast and ids:
            found = _bytes_of_offsets(part, encoded["offset_mapping"], len(raw))
        else:
            raise InvalidArgument(
                f"tokenizer {type(tokenizer).__name__}: its tokens do not add up to the text; use a fast tokenizer"
            )
        tokens.append(np.asarray(ids, np.int32))
        lengths.append(np.asarray(found, np.uint16))
    empty = np.zeros(0, np.int32)
    return TokenText(
        np.concatenate(tokens) if tokens else empty,
        np.concatenate(lengths) if lengths else empty.astype(np.uint16),
    )


def bos_of(tokenizer: Any) -> int:
    """The token that the tokenizer puts before every text; -1 where it puts none."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return -1
    with_special = tokenizer("a", verbose=False)["input_ids"]
    return int(bos) if with_special and with_special[0] == bos else -1
