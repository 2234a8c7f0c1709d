"""The connector's part in the scheduler: which tokens of a request the worker loads or saves, and where.

It opens no memory and touches no cache; what it decides goes to the worker as a list of Work. It raises nothing
while the engine runs, because an exception here would end all requests: a request that is refused is given to
the worker with the reason, which reports its blocks as not loaded. vLLM then fails the request, or computes the
tokens, as its kv_load_failure_policy says.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from ..errors import Error, InvalidArgument
from .request import Pass, Recall, Task, check_salt, task_of

logger = logging.getLogger("vllm.longhold")


@dataclass(frozen=True)
class Work:
    """What the worker does for a request in one step."""

    request: str
    task: Task | None
    blocks: list[int]  # of the request, all that it has by now
    load: tuple[int, int] | None = None  # tokens of the prompt
    save: tuple[int, int] | None = None
    tokens: list[int] = field(default_factory=list)  # of the prompt's prefix, with a load
    refused: str = ""  # why nothing must be loaded


@dataclass
class _Tracked:
    task: Task | None
    prompt: list[int]
    refused: str = ""
    failed: str = ""  # in the worker
    blocks: list[int] = field(default_factory=list)
    computed: int = 0  # by the prefix cache, when vLLM asked last
    load: tuple[int, int] | None = None
    saved: bool = False


class SchedulerSide:
    """Thread use: confined, to the scheduler."""

    def __init__(self, prefix_caching: bool) -> None:
        self._prefix_caching = prefix_caching
        self._tracked: dict[str, _Tracked] = {}

    def _track(self, request: Any) -> _Tracked | None:
        found = self._tracked.get(request.request_id)
        if found is not None:
            return found
        prompt = list(request.prompt_token_ids or [])
        try:
            task = task_of(request.kv_transfer_params)
            if task is None:
                return None
            tracked = _Tracked(task, prompt)
            if self._prefix_caching:
                check_salt(task, getattr(request, "cache_salt", None))
            if len(prompt) <= task.prefix:
                raise InvalidArgument(f"the prompt has {len(prompt)} tokens, and {task.prefix} are recalled")
            if getattr(request, "lora_request", None) is not None:
                raise InvalidArgument("a memory is of the model without adapters")
        except Error as error:
            tracked = _Tracked(None, prompt, refused=str(error))
            logger.error("longhold: request %s is refused: %s", request.request_id, error)
        self._tracked[request.request_id] = tracked
        return tracked

    def matched(self, request: Any, computed: int) -> int:
        """How many tokens after the first `computed` the worker loads."""
        tracked = self._track(request)
        if tracked is None:
            return 0
        tracked.computed = computed
        # One token, so that vLLM asks for a load that fails; the last token is always computed.
        prefix = computed + 1 if tracked.task is None else tracked.task.prefix
        return max(0, min(prefix, len(tracked.prompt) - 1) - computed)

    def allocated(self, request: Any, external: int) -> None:
        """`external` tokens will be loaded."""
        tracked = self._tracked.get(request.request_id)
        if tracked is not None:
            tracked.load = (tracked.computed, tracked.computed + external) if external > 0 else None

    def work(self, output: Any) -> list[Work]:
        """For the step of a SchedulerOutput."""
        todo = []
        for new in output.scheduled_new_reqs:
            tracked = self._tracked.get(new.req_id)
            if tracked is not None:
                tracked.blocks = list(new.block_ids[0])
                todo += self._step(output, new.req_id, tracked, new.num_computed_tokens)
        cached = output.scheduled_cached_reqs
        for i, name in enumerate(cached.req_ids):
            tracked = self._tracked.get(name)
            if tracked is None:
                continue
            given = cached.new_block_ids[i]
            if name in cached.resumed_req_ids:
                # Preempted and scheduled again: these are all of its blocks.
                tracked.blocks = list(given[0]) if given is not None else []
            elif given is not None:
                tracked.blocks += given[0]
            todo += self._step(output, name, tracked, cached.num_computed_tokens[i])
        return todo

    def _step(self, output: Any, name: str, tracked: _Tracked, computed: int) -> list[Work]:
        load, tracked.load = tracked.load, None
        save = None
        task = tracked.task
        if isinstance(task, Pass) and not tracked.saved:
            if computed + output.num_scheduled_tokens[name] >= len(tracked.prompt):
                save = (task.prefix, len(tracked.prompt))
                tracked.saved = True
        if load is None and save is None:
            return []
        tokens = tracked.prompt[: task.prefix] if load is not None and isinstance(task, Recall) else []
        return [Work(name, task, list(tracked.blocks), load, save, tokens, tracked.refused)]

    def failed(self, failures: dict[str, str]) -> None:
        """What the worker could not load."""
        for name, message in failures.items():
            if name in self._tracked:
                self._tracked[name].failed = message

    def finished(self, request: Any) -> dict[str, Any] | None:
        """kv_transfer_params of the reply: how many tokens the memory gave, and what failed."""
        tracked = self._tracked.pop(request.request_id, None)
        if tracked is None or isinstance(tracked.task, Pass):
            return None
        error = tracked.refused or tracked.failed
        recalled = 0 if error or tracked.task is None else tracked.task.prefix
        return {"longhold": {"recalled": recalled, **({"error": error} if error else {})}}
