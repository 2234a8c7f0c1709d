"""LongholdConnector, which vLLM loads by kv_connector_module_path="longhold.vllm".

vLLM makes two of them, in the scheduler and in the worker. Only Work passes from one to the other, and what
failed back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorWorkerMetadata,
)

from ..errors import InvalidArgument, Unimplemented
from ..home import Home
from .cache import CacheWriter
from .describe import describe
from .scheduling import SchedulerSide, Work
from .spool import Spool
from .working import WorkerSide

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.kv_cache_interface import KVCacheConfig

OPTIONS = ("home", "budget_bytes", "spool")


@dataclass
class Todo(KVConnectorMetadata):  # type: ignore[misc]
    work: list[Work] = field(default_factory=list)


@dataclass
class Failures(KVConnectorWorkerMetadata):  # type: ignore[misc]
    by_request: dict[str, str]

    def aggregate(self, other: KVConnectorWorkerMetadata) -> KVConnectorWorkerMetadata:
        assert isinstance(other, Failures)
        return Failures({**self.by_request, **other.by_request})


def _check(config: Any, kv_cache_config: Any) -> None:
    """Errors: InvalidArgument (an unknown option), Unimplemented (what longhold does not serve in vLLM)."""
    for option in config.kv_transfer_config.kv_connector_extra_config:
        if option not in OPTIONS:
            raise InvalidArgument(f"kv_connector_extra_config: no option {option!r}; there are {', '.join(OPTIONS)}")
    parallel = config.parallel_config
    for what in ("tensor_parallel_size", "pipeline_parallel_size", "decode_context_parallel_size"):
        if getattr(parallel, what, 1) != 1:
            raise Unimplemented(f"longhold in vLLM serves one worker: {what} is {getattr(parallel, what)}")
    if getattr(config, "speculative_config", None) is not None:
        raise Unimplemented("longhold in vLLM does not serve speculative decoding")
    groups = getattr(kv_cache_config, "kv_cache_groups", None)
    if groups is not None and len(groups) > 1:
        raise Unimplemented(f"longhold in vLLM serves models with one kind of KV cache, and this has {len(groups)}")


class LongholdConnector(KVConnectorBase_V1):  # type: ignore[misc]
    """Gives the keys and values of recalled prompts, and saves those of a reading's passes."""

    def __init__(self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        _check(vllm_config, kv_cache_config)
        self._scheduler: SchedulerSide | None = None
        self._worker: WorkerSide | None = None
        if role == KVConnectorRole.SCHEDULER:
            self._scheduler = SchedulerSide(vllm_config.cache_config.enable_prefix_caching is not False)

    # ---- worker

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        config = self._vllm_config
        options = config.kv_transfer_config.kv_connector_extra_config
        about = config.model_config
        model = describe(
            about.model, about.dtype, tokenizer=about.tokenizer, revision=about.revision,
            trust_remote_code=about.trust_remote_code, quantization=about.quantization,
        )

        def open_home() -> Home:
            return Home(model, options.get("home"), budget_bytes=int(options.get("budget_bytes", 0)), read_only=True)

        self._worker = WorkerSide(model, open_home, Spool(options.get("spool")))
        self._worker.register(
            kv_caches, self._kv_cache_config.num_blocks, config.cache_config.block_size, self._writer_of
        )

    def _writer_of(self, name: str) -> CacheWriter:
        """How the layer's own attention backend writes into its cache."""
        layer: Any = self._vllm_config.compilation_config.static_forward_context[name]
        backend = type(layer.impl).__name__
        if getattr(layer, "sliding_window", None) is not None:
            raise Unimplemented(f"layer {name} has a sliding window, which longhold in vLLM does not serve")
        write = getattr(layer.impl, "do_kv_cache_update", None)
        if write is None:
            raise Unimplemented(f"layer {name}: the attention backend {backend} has no writer that could be asked")

        def writer(keys: torch.Tensor, values: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor) -> None:
            write(layer, keys, values, cache, slots)

        return writer

    def _todo(self) -> list[Work]:
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, Todo)
        return metadata.work

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        if self._worker is not None and self.has_connector_metadata():
            self._worker.load(self._todo())

    def wait_for_layer_load(self, layer_name: str) -> None:
        """All layers are loaded before the forward pass."""

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        """All layers are saved after the forward pass."""

    def wait_for_save(self) -> None:
        if self._worker is not None and self.has_connector_metadata():
            self._worker.save(self._todo())

    def get_block_ids_with_load_errors(self) -> set[int]:
        return self._worker.take_invalid() if self._worker is not None else set()

    def build_connector_worker_meta(self) -> KVConnectorWorkerMetadata | None:
        failures = self._worker.take_failures() if self._worker is not None else {}
        return Failures(failures) if failures else None

    def shutdown(self) -> None:
        if self._worker is not None:
            self._worker.close()

    # ---- scheduler

    def _sched(self) -> SchedulerSide:
        assert self._scheduler is not None
        return self._scheduler

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        return self._sched().matched(request, num_computed_tokens), False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        self._sched().allocated(request, num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        return Todo(self._sched().work(scheduler_output))

    def update_connector_output(self, connector_output: Any) -> None:
        found = getattr(connector_output, "kv_connector_worker_meta", None)
        if isinstance(found, Failures):
            self._sched().failed(found.by_request)

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        return False, self._sched().finished(request)
