"""What a prompt asks: the last user message of a chat template, or all of a plain prompt."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

_A, _B, _C = "\u25c6first\u25c6", "\u25c6reply\u25c6", "\u25c6second\u25c6"


@dataclass(frozen=True)
class Turn:
    """The texts around a user message, as the tokenizer's chat template writes them."""

    opener: str  # "" where there is no template
    closer: str


def turn_of(tokenizer: Any) -> Turn:
    """Found by what the template makes of three messages: what stands before both user messages, and
    what after both."""
    if not getattr(tokenizer, "chat_template", None):
        return Turn("", "")
    messages = [
        {"role": "user", "content": _A},
        {"role": "assistant", "content": _B},
        {"role": "user", "content": _C},
    ]
    try:
        written = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))
        before, rest = written.split(_A)
        between, rest = rest.split(_B)
        between_next, after = rest.split(_C)
    except Exception:  # noqa: BLE001  # a template is a program, and may raise anything
        return Turn("", "")
    opener = os.path.commonprefix([before[::-1], between_next[::-1]])[::-1]
    return Turn(opener, os.path.commonprefix([between, after]))


@dataclass(frozen=True)
class Asked:
    """The question within a prompt."""

    text: str
    first_token: int  # of the prompt, which the question begins with or in
    end_token: int


def _token_at(tokenizer: Any, ids: list[int], chars: int) -> int:
    """How many tokens the first `chars` characters of the decoded prompt need, by bisection."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        if len(_decode(tokenizer, ids[:middle])) < chars:
            low = middle + 1
        else:
            high = middle
    return low


def _decode(tokenizer: Any, ids: list[int], special: bool = True) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=not special, clean_up_tokenization_spaces=False))


def asked(tokenizer: Any, turn: Turn, ids: list[int], *, with_tokens: bool = True) -> Asked:
    """The question of a prompt. Without `with_tokens` its tokens are all of the prompt's: finding them decodes the
    prompt some twenty times, and only recall heads need them."""
    text = _decode(tokenizer, ids)
    begin = text.rfind(turn.opener) if turn.opener else -1
    if begin < 0:
        return Asked(_decode(tokenizer, ids, special=False).strip(), 0, len(ids))
    begin += len(turn.opener)
    end = text.find(turn.closer, begin) if turn.closer else -1
    if end < 0:
        end = len(text)
    if not with_tokens:
        return Asked(text[begin:end].strip(), 0, len(ids))
    first = max(0, _token_at(tokenizer, ids, begin + 1) - 1)
    return Asked(text[begin:end].strip(), first, max(first + 1, _token_at(tokenizer, ids, end)))
