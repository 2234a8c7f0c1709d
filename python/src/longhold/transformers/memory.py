"""A memory of a Hugging Face causal model: it reads texts, and the model's own generate() recalls them."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..errors import FailedPrecondition, InvalidArgument, NotFound, Unimplemented
from ..home import Evidence, Home, Place, Plan, Span, Stats
from ..layout import lay_out, places_of
from ..reading import PassRows, Reading, Window, read_document
from . import attention
from .describe import Described, describe, name_of
from .prompts import Asked, asked, turn_of
from .runs import LookRun, ReadRun, RecallRun
from .vocabulary import TokenText, tokenise

QUERY_TOKENS_MAX = 4096  # that recall heads look at, of one question
# Heads that look for nothing rest on a text's first token and on one soon after it, whatever is asked: SmolLM2 on
# the first and the fifth, with 66% and 18% of all attention to recalled tokens. It says nothing of the span there.
RESTING_TOKENS = 8


@dataclass(frozen=True)
class Citation:
    """A recalled span, and its share of the attention that the answer gave to all of them."""

    span: Span
    share: float


@dataclass
class Recall:
    """What was recalled for a prompt."""

    question: str
    plan: Plan
    tokens: int  # that were recalled, with sinks and date lines
    # The recalled columns of each span; parallel to plan.spans. Empty: it was not recalled.
    columns: list[tuple[int, int]] = field(default_factory=list)
    # [tokens] the attention that the answer gave them so far. Not the keys: those go with their cache.
    mass: torch.Tensor | None = None

    @property
    def spans(self) -> tuple[Span, ...]:
        return self.plan.spans

    @property
    def evidence(self) -> Evidence:
        return self.plan.evidence

    @property
    def coverage(self) -> float | None:
        return self.plan.coverage

    def citations(self) -> list[Citation]:
        """Most attended first. Empty before the answer's first token was computed."""
        if self.mass is None:
            return []
        mass = self.mass.cpu().double()
        received = [float(mass[begin:end].sum()) for begin, end in self.columns]
        total = sum(received)
        if total <= 0:
            return []
        order = sorted(range(len(received)), key=lambda i: -received[i])
        return [Citation(self.plan.spans[i], received[i] / total) for i in order if received[i] > 0]


@dataclass(frozen=True)
class _Laid:
    """Where the tokens of a plan go: places in order, and what belongs to each span."""

    places: list[Place]
    bias: list[float]  # [tokens]
    columns: list[tuple[int, int]]  # of each span of the plan


class Memory:
    """A memory, attached to a model. Made by attach().

    Thread use: threads may generate with the model at the same time; reading and generating in turns.
    """

    def __init__(
        self,
        model: Any,
        name: str,
        tokenizer: Any,
        home: str | os.PathLike[str] | None,
        *,
        embedder: str | os.PathLike[str] | None,
        recall_heads: Sequence[tuple[int, int]],
        spans_max: int,
        tokens_max: int,
        gate: float,
        evidence_min: Evidence,
        codec: str | None,
        budget_bytes: int,
        read_only: bool,
    ) -> None:
        if getattr(model, "_longhold_memory", None) is not None:
            raise FailedPrecondition(
                f"model {name_of(model)}: has the memory {model._longhold_memory.name} already; detach() that first"
            )
        self.model, self.name, self.tokenizer = model, name, tokenizer
        self.spans_max, self.gate, self.evidence_min = spans_max, gate, evidence_min
        self._local = threading.local()
        self._latest: Recall | None = None
        self._runs: weakref.WeakKeyDictionary[Any, RecallRun] = weakref.WeakKeyDictionary()
        self._hooks: list[Any] = []
        self._modules: list[torch.nn.Module] = []
        self._before = model.config._attn_implementation
        attention.register()
        model.set_attn_implementation(attention.NAME)
        try:
            with _evaluating(model):
                self._described: Described = describe(model, tokenizer, recall_heads)
            described = self._described.model
            self.tokens_max = tokens_max or max(256, described.context_length // 2)
            self._turn = turn_of(tokenizer)
            self.home = Home(
                described, home, embedder=embedder, codec=codec, budget_bytes=budget_bytes, read_only=read_only
            )
            with contextlib.suppress(NotFound):
                # Another model's memory is refused here and not at the first question.
                self.home.stat(name)
                self.home.plan(name, "a", spans_max=1)
        except BaseException:
            model.set_attn_implementation(self._before)
            if getattr(self, "home", None) is not None:
                self.home.close()
            raise
        self._modules = self._described.modules
        attention.own(self._modules, self)
        self._hooks = [
            model.register_forward_pre_hook(self._before_pass, with_kwargs=True),
            model.register_forward_hook(self._after_pass, with_kwargs=True, always_call=True),
        ]
        model._longhold_memory = self

    # ---- its life

    def detach(self) -> None:
        """Gives the model its own attention back and closes the memory. May be called again."""
        for hook in self._hooks:
            hook.remove()
        if self._hooks:
            attention.disown(self._modules)
            self.model.set_attn_implementation(self._before)
            del self.model._longhold_memory
        self._hooks = []
        self._runs.clear()
        self.home.close()

    close = detach

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def __deepcopy__(self, memo: Any) -> Memory:
        raise TypeError("a memory cannot be copied; detach() it before the model is copied")

    # ---- reading

    def read(
        self,
        text: str,
        name: str | None = None,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Reading:
        """Reads a text, in passes of 512 tokens, and stores the keys and values of all its tokens. A
        reading that was interrupted continues; a text that the memory holds is not read again.
        `progress` is called with the tokens that are done and all tokens after each pass."""
        def cut(text: str) -> TokenText:
            return tokenise(self.tokenizer, self._described.model.pieces, text)

        return read_document(
            self.home, self.name, text, name, cut, self._compute, sliding=self._described.sliding, progress=progress
        )

    def read_file(self, path: str | os.PathLike[str], **options: Any) -> Reading:
        """Reads a UTF-8 file under its name."""
        file = Path(path)
        return self.read(file.read_text(encoding="utf-8"), options.pop("name", file.name), **options)

    def _compute(self, window: Window, end: int) -> PassRows:
        """A pass of a reading, at positions 0, 1, ..."""
        device, dtype = self.model.device, self.model.dtype
        at = torch.tensor(window.held(), dtype=torch.int64)
        ages = window.position - at
        seen = (at < window.sinks) | (ages <= window.seen)
        # Sinks and window at compact positions; for a sliding window those of the text.
        compact = -seen.flip(0).cumsum(0).flip(0)
        keys = [
            rotation.turned(key.float(), compact if sliding is None else -ages)[None].to(device, dtype)
            for key, rotation, sliding in zip(window.keys, window.rotations, window.sliding, strict=True)
        ]
        values = [value[None].to(device, dtype) for value in window.values]
        run = ReadRun(keys, values, ages, seen, window.sliding)
        self._pass(run, window.tokens[window.position : end])
        kept = torch.float16 if dtype == torch.float16 else torch.float32

        def rows(of: dict[int, torch.Tensor]) -> list[npt.NDArray[Any]]:
            return [of[i][0].cpu().to(kept).contiguous().numpy().transpose(1, 0, 2) for i in range(len(of))]

        return PassRows(rows(run.keys), rows(run.values), first=0)

    def _pass(self, run: Any, tokens: Any) -> None:
        """One pass of the model's decoder over tokens at positions 0, 1, ..."""
        device = self.model.device
        ids = torch.as_tensor(np.asarray(tokens, np.int64), device=device)[None]
        at = torch.arange(ids.shape[1], device=device)[None]
        self._local.run = run
        try:
            with torch.inference_mode(), _evaluating(self.model):
                self.model.get_decoder()(input_ids=ids, position_ids=at, use_cache=False)
        finally:
            self._local.run = None

    # ---- recalling

    @property
    def last(self) -> Recall | None:
        """What was recalled for the last prompt of this thread, or, where it had none, of any thread: a
        streamer's answer is read by another thread than it is generated by."""
        return getattr(self._local, "last", self._latest)

    def citations(self) -> list[Citation]:
        """The spans that the last answer rests on, most attended first."""
        return self.last.citations() if self.last is not None else []

    def plan(self, question: str) -> Plan:
        """The spans that a question is about, best first. generate() does this by itself."""
        return self._plan(Asked(question, 0, 0), [])

    @contextlib.contextmanager
    def recalling(self, plan: Plan | None) -> Iterator[None]:
        """Within it prompts of this thread recall this plan, or with None nothing."""
        before = getattr(self._local, "given", ())
        self._local.given = (plan,)
        try:
            yield
        finally:
            self._local.given = before

    def stat(self) -> Stats:
        return self.home.stat(self.name)

    def forget(self, document: str | None = None) -> None:
        """Forgets a document, or without one all of the memory."""
        self.home.forget(self.name, document)

    def _plan(self, question: Asked, ids: list[int]) -> Plan:
        queries, position = None, None
        heads = self._described.model.recall_heads
        if heads and question.text and not ids:
            ids = list(self.tokenizer(question.text, add_special_tokens=False, verbose=False)["input_ids"])
            question = Asked(question.text, 0, len(ids))
        if heads and ids:
            look = LookRun(heads)
            self._pass(look, ids)
            position = max(question.first_token, question.end_token - QUERY_TOKENS_MAX)
            queries = look.queries(position, question.end_token)
        return self.home.plan(
            self.name,
            question.text,
            queries=queries,
            position=position,
            spans_max=self.spans_max,
            tokens_max=self.tokens_max,
        )

    def _lay_out(self, plan: Plan) -> _Laid:
        parts = lay_out(self.home, self.name, plan)
        total = sum(part.end - part.begin for part in parts)
        bias = []
        columns = [(0, 0)] * len(plan.spans)
        at = 0
        for part in parts:
            i, tokens = part.span, part.end - part.begin
            weight = 0.0 if i < 0 else self.gate * math.log(max(plan.spans[i].score, 1e-3))
            bias += [weight] * tokens
            if i >= 0:
                # A date line stands right before its span.
                columns[i] = (columns[i][0] if columns[i][1] == at else at, at + tokens)
            at += tokens
        # A span within the sinks has no part of its own: its columns are those of the sinks, which come
        # first and whose bias is 0.
        sinks = parts[0]
        for i, span in enumerate(plan.spans):
            if span.document == sinks.document and span.end <= sinks.end:
                columns[i] = (min(max(span.begin, RESTING_TOKENS), span.end - 1), span.end)
        places = places_of(parts, -total)
        return _Laid(places, bias, columns)

    def _fetch(self, places: list[Place], rotated: bool) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """[layers] of [1, kv_heads, tokens, head_dim], in the model's type and on its device."""
        described = self._described.model
        shape = (described.layer_count, described.kv_heads, sum(map(len, places)), described.head_dim)
        halves = self.model.dtype == torch.float16
        both = torch.empty((2, *shape), dtype=torch.float16 if halves else torch.float32)
        arrays = both.numpy().transpose(0, 1, 3, 2, 4)
        self.home.fetch(self.name, places, arrays[0], arrays[1], rotated=rotated)
        there = both.to(self.model.device, self.model.dtype)
        return list(there[0].unsqueeze(1)), list(there[1].unsqueeze(1))

    def _recall(self, ids: list[int]) -> RecallRun | None:
        given = getattr(self._local, "given", ())
        if given and given[0] is None:
            self._remember(None)
            return None
        heads = bool(self._described.model.recall_heads)
        question = asked(self.tokenizer, self._turn, ids, with_tokens=heads and not given)
        if given:
            plan = given[0]
        elif not question.text:
            plan = None
        else:
            try:
                plan = self._plan(question, ids)
            except NotFound:  # nothing has been read
                plan = None
        self._remember(None)
        if plan is None:
            return None
        if not plan.spans or plan.evidence < self.evidence_min:
            self._remember(Recall(question.text, plan, 0))
            return None
        laid = self._lay_out(plan)
        keys, values = self._fetch(laid.places, rotated=True)
        bias = torch.tensor(laid.bias, dtype=torch.float32, device=self.model.device)
        run = RecallRun(keys, values, bias)
        self._remember(Recall(question.text, plan, len(laid.bias), laid.columns, run.mass))
        return run

    def _remember(self, last: Recall | None) -> None:
        self._local.last = self._latest = last

    # ---- hooks of the model

    def current_run(self) -> Any:
        return getattr(self._local, "run", None)

    def _before_pass(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = args[0] if args else kwargs.get("input_ids")
        cache = _cache_of(kwargs)
        self._local.run = None
        if cache is not None and cache.get_seq_length() > 0:
            # The answer, or a later part of a prompt.
            run = self._runs.get(cache)
            if run is not None:
                run.begin_pass(cache.get_seq_length())
                self._local.run = run
            return
        if ids is None:
            raise Unimplemented("a memory needs the prompt's input_ids; inputs_embeds have no text to recall by")
        if ids.shape[0] != 1:
            raise Unimplemented(
                f"a batch of {ids.shape[0]} prompts (or beams) shares no memory; generate one at a time, or detach()"
            )
        prompt = ids[0].tolist()
        earlier: tuple[list[int], RecallRun | None] | None = getattr(self._local, "without_cache", None)
        if cache is None and kwargs.get("use_cache") is False and earlier is not None and prompt[:-1] == earlier[0]:
            # generate(use_cache=False) passes the prompt with one more token each time.
            run = earlier[1]
        else:
            run = self._recall(prompt)
        self._local.without_cache = (prompt, run) if kwargs.get("use_cache") is False else None
        if run is not None:
            run.begin_pass(0)
        self._local.run = run

    def _after_pass(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        run, self._local.run = self.current_run(), None
        if run is None:
            return
        # Recalled keys live as long as the cache of what attended to them.
        cache = _cache_of(kwargs)
        if cache is None and output is not None and not isinstance(output, tuple):
            cache = _cache_of(output)
        if cache is not None:
            self._runs[cache] = run


def _cache_of(of: Any) -> Any:
    """The cache among arguments or outputs, by its name in older and newer versions of transformers."""
    for name in ("past_key_values", "cache"):
        cache = of.get(name) if isinstance(of, dict) else getattr(of, name, None)
        if cache is not None:
            return cache
    return None


@contextlib.contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Without dropout."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def attach(
    model: Any,
    name: str,
    tokenizer: Any = None,
    home: str | os.PathLike[str] | None = None,
    *,
    embedder: str | os.PathLike[str] | None = None,
    recall_heads: Sequence[tuple[int, int]] = (),
    spans_max: int = 0,
    tokens_max: int = 0,
    gate: float = 2.0,
    evidence_min: Evidence = Evidence.NONE,
    codec: str | None = None,
    budget_bytes: int = 0,
    read_only: bool = False,
) -> Memory:
    """Gives a Hugging Face causal model the memory `name`, which is made by the first read().

    Args:
        tokenizer: the model's; None: the one that its name loads.
        home: directory of memories; None: $LONGHOLD_HOME, else ~/.local/share/longhold.
        embedder: GGUF file of an embedding model, which finds places by meaning. None: by words.
        recall_heads: (layer, KV head) whose attention finds spans, too; indexed while a text is read.
        spans_max: of one prompt; 0: the default, 16.
        tokens_max: of all spans together; 0: half of the model's context.
        gate: gate * ln(score) is added to the logits of a span's keys, so that more spans do little harm; 0: none.
        evidence_min: with less evidence a prompt recalls nothing.
        codec: of a new memory: "k5v4" (default), "exact", "k4v4" or "archive".
        budget_bytes: RAM for indexes and blocks; 0: 1 GiB.

    Errors: Unimplemented (a model that longhold does not serve), FailedPrecondition (another model's
    memory), InvalidArgument.
    """
    if tokenizer is None:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(model.config._name_or_path)
        except Exception as error:
            raise InvalidArgument(f"model {name_of(model)}: its tokenizer was not found; give one ({error})") from error
    return Memory(
        model,
        name,
        tokenizer,
        home,
        embedder=embedder,
        recall_heads=recall_heads,
        spans_max=spans_max,
        tokens_max=tokens_max,
        gate=gate,
        evidence_min=evidence_min,
        codec=codec,
        budget_bytes=budget_bytes,
        read_only=read_only,
    )
