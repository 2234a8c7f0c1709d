"""The recalled prompt as a request to vLLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidArgument, NotFound
from ..home import Evidence, Home, Plan, Span
from ..layout import lay_out, spans_through
from .request import Recall, params_of, salt_of


@dataclass(frozen=True)
class Composed:
    """A request. Send all three fields, or none."""

    prompt_token_ids: list[int]
    recalled: int  # tokens at their beginning whose keys and values come from the memory
    kv_transfer_params: dict[str, Any] | None = None  # None: nothing is recalled
    cache_salt: str | None = None
    plan: Plan | None = field(default=None, compare=False)

    def body(self, **more: Any) -> dict[str, Any]:
        """Of POST /v1/completions."""
        body: dict[str, Any] = {"prompt": self.prompt_token_ids, **more}
        if self.kv_transfer_params is not None:
            body |= {"kv_transfer_params": self.kv_transfer_params, "cache_salt": self.cache_salt}
        return body

    def chat_body(self, messages: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        """Of POST /v1/chat/completions, for the messages that were composed. vLLM takes the tokens instead of
        rendering the messages."""
        params = {**(self.kv_transfer_params or {}), "prompt_token_ids": self.prompt_token_ids}
        body: dict[str, Any] = {"messages": list(messages), "kv_transfer_params": params, **more}
        return body if self.cache_salt is None else {**body, "cache_salt": self.cache_salt}

    def prompt(self) -> dict[str, Any]:
        """The prompt of LLM.generate."""
        prompt: dict[str, Any] = {"prompt_token_ids": self.prompt_token_ids}
        return prompt if self.cache_salt is None else {**prompt, "cache_salt": self.cache_salt}

    def extra_args(self) -> dict[str, Any]:
        """Of SamplingParams."""
        return {} if self.kv_transfer_params is None else {"kv_transfer_params": self.kv_transfer_params}


def chat_tokens(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Messages in the tokenizer's chat template, up to the beginning of the reply."""
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    return [int(token) for token in tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]


def _question_of(messages: Sequence[Mapping[str, Any]]) -> str:
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            parts = content if isinstance(content, list) else []
            return "\n".join(str(part["text"]) for part in parts if isinstance(part, dict) and "text" in part)
    return ""


def _reencoded(plan: Plan, tokens: int) -> list[Span]:
    """The best spans that have place in `tokens`, the best one last."""
    chosen = []
    for span in plan.spans:
        if span.end - span.begin > tokens:
            break
        tokens -= span.end - span.begin
        chosen.append(span)
    return chosen[::-1]


def compose(
    home: Home,
    memory: str,
    tokenizer: Any,
    question: str | Sequence[Mapping[str, Any]],
    *,
    prompt_token_ids: Sequence[int] | None = None,
    plan: Plan | None = None,
    spans_max: int = 0,
    tokens_max: int = 0,
    context_length: int = 0,
    reencode_tokens: int = 0,
    gate: float = 2.0,
    evidence_min: Evidence = Evidence.NONE,
) -> Composed:
    """Sinks, recalled spans (worst first), what is re-encoded of them, and the question, as tokens.

    Args:
        home: opened for the model that vLLM runs, see open_home().
        question: its text, which becomes the one user message; or the messages of a chat, of which the last
            user's is the question.
        prompt_token_ids: the tokens that stand behind what is recalled; None: the messages in the chat template.
        plan: the spans; None: home.plan() finds them.
        spans_max: 0: the default, 16.
        tokens_max: of all spans together; 0: half of the context.
        context_length: the engine's max_model_len; 0: that of the model.
        reencode_tokens: the best spans that have place in so many tokens stand once more before the question, as
            plain tokens that vLLM computes. A small model then copies more exactly.
        gate: spans with score^gate < 0.5 are not recalled, but may be re-encoded; with 2 those with a score below
            0.71. vLLM's attention has no gate, and lookalikes would outvote the best span. 0: all are recalled.
        evidence_min: with less evidence nothing is recalled.

    A memory that is not there recalls nothing. Errors: FailedPrecondition (another model's memory),
    InvalidArgument (the prompt has no place in the context).
    """
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    text = question if isinstance(question, str) else _question_of(question)
    rest = list(prompt_token_ids) if prompt_token_ids is not None else chat_tokens(tokenizer, messages)
    if not rest:
        raise InvalidArgument("a recalled prompt needs at least one token after what is recalled")
    context = context_length or home.description.context_length
    if plan is None:
        try:
            plan = home.plan(memory, text, spans_max=spans_max, tokens_max=tokens_max or max(256, context // 2))
        except NotFound:  # nothing has been read
            return Composed(rest, 0)
    if not plan.spans or plan.evidence < evidence_min:
        return Composed(rest, 0, plan=plan)
    parts = lay_out(home, memory, spans_through(plan, gate))
    task = Recall(memory, home.description.fingerprint, tuple((p.document, p.begin, p.end) for p in parts))
    again: list[int] = []
    for span in _reencoded(plan, reencode_tokens):
        again += home.tokens(memory, span.document, span.begin, span.end).tolist()
    rest = again + rest
    if task.prefix + len(rest) >= context:
        raise InvalidArgument(
            f"the recalled prompt has {task.prefix} + {len(rest)} tokens, and the context {context}; give a smaller tokens_max"
        )
    recalled: list[int] = []
    for part in parts:
        recalled += home.tokens(memory, part.document, part.begin, part.end).tolist()
    return Composed(recalled + rest, len(recalled), params_of(task), salt_of(task), plan)
