#!/usr/bin/env python3
"""longhold.vllm without vLLM: requests, layouts of KV caches, the scheduler's and the worker's part, and both in a connector
whose base class is a small fake of vLLM's. eval/vllm_needles.py runs the same in vLLM itself.

What is compared with what:
- Layouts: what a cache's own writer has written, and what longhold reads there; and the other way round. Equal to the bit.
- A recall: the rows in the fake engine's cache, and those that Home.fetch gives for the same places. Equal to the bit.
- A reading: the fake model computes a token's key as a function of the token, rotated to its position. So the stored rows,
  un-rotated, must be that function, whatever pass and position they came from. 16 bits and two rotations of keys of size 4: 1e-2.

Without torch the tests are skipped (code 77).

  LONGHOLD_LIBRARY=build/release/liblonghold.so PYTHONPATH=python/src python/tests/vllm_test.py [CLASS...]
"""
import dataclasses
import importlib
import os
import pathlib
import sys
import tempfile
import types
import unittest
import unittest.mock

try:
    import torch
    import transformers  # noqa: F401
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)
import numpy as np

import longhold
import longhold.vllm
from longhold.rotation import Rotation
from longhold.vllm import cache, reading, request, scheduling, spool, working

describing = sys.modules["longhold.vllm.describe"]
torch.set_num_threads(1)
LAYERS, KV_HEADS, DIM, BLOCK = 2, 2, 16, 8
ROPE = longhold.Rope(16, 10000.0)
MODEL = longhold.Model(
    name="tiny", fingerprint="tiny-1", layer_count=LAYERS, q_heads=4, kv_heads=KV_HEADS, head_dim=DIM, context_length=4096,
    rope=ROPE, pieces=[bytes([b]) for b in range(256)],
)
RECALL = request.Recall("box", "tiny-1", ((1, 0, 64), (1, 100, 131)))


class ByteTokenizer:
    """A token for each byte, in the form of a Hugging Face tokenizer."""

    bos_token_id = None
    chat_template = "yes"
    is_fast = False

    def __call__(self, text, **options):
        return {"input_ids": list(text.encode())}

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        return "".join(f"<{m['role']}>{m['content']}\n" for m in messages) + "<assistant>"


TOKENIZER = ByteTokenizer()


def text_of(lines, needle):
    words = "river stone copper window garden letter engine winter market silver".split()
    out = [f"Line {i} speaks of the {words[i % 10]} and the {words[(i * 7 + 3) % 10]}, as all lines do.\n" for i in range(lines)]
    out[needle] = "The lighthouse keeper buried his treasure beneath the crooked elm.\n"
    return "".join(out)


class Requests(unittest.TestCase):
    def test_a_task_survives_its_parameters(self):
        for task in (RECALL, request.Pass("a" * 32, 320)):
            self.assertEqual(request.task_of(request.params_of(task)), task)
        self.assertIsNone(request.task_of(None))
        self.assertIsNone(request.task_of({"do_remote_decode": True}))

    def test_malformed_parameters_are_refused(self):
        good = request.params_of(RECALL)["longhold"]
        for bad in (
            [], {}, {"version": 2}, {"version": 1}, {**good, "version": 2}, {**good, "read": {"pass": "a" * 32, "prefix": 1}},
            {"version": 1, "recall": 5}, {"version": 1, "recall": {**good["recall"], "memory": ""}},
            {"version": 1, "recall": {**good["recall"], "places": []}}, {"version": 1, "recall": {**good["recall"], "places": [[1, 5, 5]]}},
            {"version": 1, "recall": {**good["recall"], "places": [[1, -1, 5]]}}, {"version": 1, "recall": {**good["recall"], "places": [[1, True, 5]]}},
            {"version": 1, "recall": {**good["recall"], "places": [[1, 0, 1 << 40]]}}, {"version": 1, "read": {"pass": "../../etc/passwd", "prefix": 1}},
            {"version": 1, "read": {"pass": "a" * 32, "prefix": -1}}, {"version": 1, "read": {"pass": "A" * 32, "prefix": 1.5}},
        ):
            with self.subTest(bad), self.assertRaises(longhold.InvalidArgument):
                request.task_of({"longhold": bad})

    def test_each_salt_is_new_and_belongs_to_its_task(self):
        one, two = request.salt_of(RECALL), request.salt_of(RECALL)
        self.assertNotEqual(one, two)
        request.check_salt(RECALL, one)
        request.check_salt(RECALL, two)
        others = [None, "", "user-1", one[:-1] + ("0" if one[-1] != "0" else "1"), f"longhold-{'0' * 32}-{one[-32:]}"]
        others.append(request.salt_of(dataclasses.replace(RECALL, memory="other")))
        others.append(request.salt_of(dataclasses.replace(RECALL, places=((1, 0, 64), (1, 101, 132)))))
        for other in others:
            with self.subTest(other), self.assertRaises(longhold.InvalidArgument):
                request.check_salt(RECALL, other)


def write_halves(keys, values, into, slots):
    """As flash attention: [blocks, heads, tokens, 2 * dim], whatever its strides."""
    n = into.shape[2]
    into[slots // n, :, slots % n] = torch.cat((keys, values), -1)


def write_first_axis(keys, values, into, slots):
    """As older versions: [2, blocks, tokens, heads, dim]."""
    n = into.shape[2]
    into[0, slots // n, slots % n], into[1, slots // n, slots % n] = keys, values


def write_packed(keys, values, into, slots):
    """As on the CPU: within block and head first all keys, transposed, then all values."""
    blocks, heads, n, both = into.shape
    inner = into.view(blocks, heads, 2, n * both // 2)
    for token, slot in enumerate(slots.tolist()):
        block, at = divmod(slot, n)
        for head in range(heads):
            inner[block, head, 0].view(both // 2, n)[:, at] = keys[token, head]
            inner[block, head, 1].view(n, both // 2)[at] = values[token, head]


def caches():
    """(name, cache of 6 blocks of 8 tokens, writer)"""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        yield f"heads before tokens, {kind}", torch.zeros(6, KV_HEADS, BLOCK, 2 * DIM, dtype=dtype), write_halves
        yield f"tokens before heads, {kind}", torch.zeros(6, BLOCK, KV_HEADS, 2 * DIM, dtype=dtype).transpose(1, 2), write_halves
        yield f"layers within blocks, {kind}", torch.zeros(6, 3, KV_HEADS, BLOCK, 2 * DIM, dtype=dtype)[:, 1], write_halves
        yield f"keys and values apart, {kind}", torch.zeros(2, 6, BLOCK, KV_HEADS, DIM, dtype=dtype), write_first_axis
        yield f"packed, {kind}", torch.zeros(6, KV_HEADS, BLOCK, 2 * DIM, dtype=dtype), write_packed


def random_rows(tokens, dtype=torch.float32):
    return torch.randn(2, tokens, KV_HEADS, DIM).to(dtype)


class Layouts(unittest.TestCase):
    def test_what_the_cache_s_writer_wrote_is_read_and_the_other_way_round(self):
        torch.manual_seed(1)
        blocks = [4, 1, 5]
        slots = torch.tensor([b * BLOCK + i for b in blocks for i in range(BLOCK)])
        for name, kept, writer in caches():
            with self.subTest(name):
                layout = cache.learn("0", kept, 6, BLOCK, KV_HEADS, DIM, writer)
                keys, values = random_rows(3 * BLOCK, kept.dtype)
                writer(keys, values, kept, slots)
                for begin, end in ((0, 24), (3, 5), (7, 17), (8, 16), (23, 24)):
                    got = layout.read(kept, blocks, begin, end)
                    self.assertTrue(torch.equal(got[0], keys[begin:end]) and torch.equal(got[1], values[begin:end]))
                expected, other = kept.clone(), random_rows(11, kept.dtype)
                writer(other[0], other[1], expected, slots[5:16])
                layout.write(kept, blocks, 5, other[0].float(), other[1].float())
                self.assertTrue(torch.equal(kept, expected))

    def test_a_block_of_the_scheduler_may_be_several_of_the_cache(self):
        kept = torch.zeros(12, KV_HEADS, BLOCK // 2, 2 * DIM)
        layout = cache.learn("0", kept, 6, BLOCK, KV_HEADS, DIM, write_halves)
        self.assertEqual(layout.block_tokens, BLOCK // 2)
        self.assertEqual(cache.smaller_blocks([4, 1], 2), [8, 9, 2, 3])

    def test_unknown_layouts_are_refused_by_name(self):
        def loses(keys, values, into, slots):
            write_halves(keys, keys, into, slots)

        def elsewhere(keys, values, into, slots):
            write_halves(keys, values, into, slots - slots[0])

        plain = torch.zeros(6, KV_HEADS, BLOCK, 2 * DIM)
        for what, kept, writer in (
            ("eight bits", torch.zeros(6, KV_HEADS, BLOCK, 2 * DIM, dtype=torch.uint8), write_halves),
            ("padding", torch.zeros(6, KV_HEADS, BLOCK, 2 * DIM + 8), write_halves),
            ("no values", plain, loses),
            ("other blocks", plain, elsewhere),
            ("other block count", torch.zeros(7, KV_HEADS, BLOCK, 2 * DIM), write_halves),
            ("other block size", torch.zeros(6, KV_HEADS, 2 * BLOCK, 2 * DIM), write_halves),
        ):
            with self.subTest(what), self.assertRaisesRegex(longhold.Unimplemented, "layer model.layers.3.self_attn"):
                cache.learn("model.layers.3.self_attn", kept, 6, BLOCK, KV_HEADS, DIM, writer)


def named(**members):
    return types.SimpleNamespace(**members)


def asks(name, prompt, task=None, salt=None):
    params = request.params_of(task) if isinstance(task, (request.Recall, request.Pass)) else task
    return named(request_id=name, prompt_token_ids=prompt, kv_transfer_params=params, cache_salt=salt, lora_request=None)


def step(new=(), cached=(), resumed=(), scheduled=None):
    """A SchedulerOutput. new: (id, computed, blocks); cached: (id, computed, new blocks or None)."""
    return named(
        scheduled_new_reqs=[named(req_id=n, num_computed_tokens=c, block_ids=(b,)) for n, c, b in new],
        scheduled_cached_reqs=named(
            req_ids=[n for n, _, _ in cached], num_computed_tokens=[c for _, c, _ in cached],
            new_block_ids=[None if b is None else (b,) for _, _, b in cached], resumed_req_ids=set(resumed),
        ),
        num_scheduled_tokens=scheduled or {},
    )


class Scheduling(unittest.TestCase):
    def test_requests_without_a_task_are_left_alone(self):
        side = scheduling.SchedulerSide(prefix_caching=True)
        asked = asks("r", [1] * 50)
        self.assertEqual(side.matched(asked, 0), 0)
        side.allocated(asked, 0)
        self.assertEqual(side.work(step(new=[("r", 0, [3])], scheduled={"r": 50})), [])
        self.assertIsNone(side.finished(asked))

    def test_a_recall_loads_its_prefix_and_again_after_a_preemption(self):
        side = scheduling.SchedulerSide(prefix_caching=True)
        prompt = list(range(110))
        asked = asks("r", prompt, RECALL, request.salt_of(RECALL))
        self.assertEqual(side.matched(asked, 0), 95)
        side.allocated(asked, 95)
        (work,) = side.work(step(new=[("r", 95, [7, 8])], scheduled={"r": 15}))
        self.assertEqual((work.load, work.save, work.blocks, work.tokens), ((0, 95), None, [7, 8], prompt[:95]))
        self.assertEqual(side.work(step(cached=[("r", 110, [9])], scheduled={"r": 1})), [])
        # Preempted; the prefix cache still has its first 64 tokens.
        self.assertEqual(side.matched(asked, 64), 31)
        side.allocated(asked, 31)
        (work,) = side.work(step(cached=[("r", 95, [1, 2, 3])], resumed=["r"], scheduled={"r": 16}))
        self.assertEqual((work.load, work.blocks), ((64, 95), [1, 2, 3]))
        self.assertEqual(side.finished(asked), {"longhold": {"recalled": 95}})

    def test_a_pass_is_saved_once_when_all_of_it_is_computed(self):
        side = scheduling.SchedulerSide(prefix_caching=False)
        task = request.Pass("b" * 32, 20)
        asked = asks("r", list(range(50)), task)
        self.assertEqual(side.matched(asked, 0), 20)
        side.allocated(asked, 20)
        (work,) = side.work(step(new=[("r", 20, [5])], scheduled={"r": 10}))
        self.assertEqual((work.load, work.save), ((0, 20), None))
        (work,) = side.work(step(cached=[("r", 30, [6])], scheduled={"r": 20}))
        self.assertEqual((work.load, work.save, work.blocks), (None, (20, 50), [5, 6]))
        self.assertEqual(side.work(step(cached=[("r", 50, None)], scheduled={"r": 1})), [])
        self.assertIsNone(side.finished(asked))

    def test_what_is_refused_loads_one_token_that_fails(self):
        prompt = list(range(110))
        other = request.salt_of(dataclasses.replace(RECALL, memory="other"))
        lora = asks("r", prompt, RECALL, request.salt_of(RECALL))
        lora.lora_request = object()
        for what, asked in {
            "no salt": asks("r", prompt, RECALL), "another salt": asks("r", prompt, RECALL, other),
            "malformed": asks("r", prompt, {"longhold": {"version": 9}}), "a short prompt": asks("r", prompt[:95], RECALL, request.salt_of(RECALL)),
            "an adapter": lora,
        }.items():
            with self.subTest(what), self.assertLogs("vllm.longhold", "ERROR"):
                side = scheduling.SchedulerSide(prefix_caching=True)
                self.assertEqual(side.matched(asked, 16), 1)
                side.allocated(asked, 1)
                (work,) = side.work(step(new=[("r", 17, [1, 2, 3])], scheduled={"r": 30}))
                self.assertEqual(work.load, (16, 17))
                self.assertTrue(work.refused)
                self.assertEqual(side.finished(asked)["longhold"], {"recalled": 0, "error": work.refused})

    def test_without_prefix_caching_no_salt_is_needed(self):
        side = scheduling.SchedulerSide(prefix_caching=False)
        self.assertEqual(side.matched(asks("r", list(range(110)), RECALL), 0), 95)


# ---- a fake engine: one request at a time, with a packed cache of 200 blocks

RAW = torch.randn((2, LAYERS, 256, KV_HEADS, DIM), generator=torch.Generator().manual_seed(5))  # of each token


def computed_rows(layer, tokens, first):
    """Keys, rotated to positions first, ..., and values that the fake model computes."""
    keys, values = RAW[:, layer, torch.tensor(tokens)]
    at = torch.arange(first, first + len(tokens))
    return Rotation.of(ROPE).turned(keys.transpose(0, 1), at).transpose(0, 1), values


def fake_vllm():
    """vllm.distributed.kv_transfer.kv_connector.v1.base as far as the connector needs it."""
    module = types.ModuleType("vllm.distributed.kv_transfer.kv_connector.v1.base")

    class KVConnectorBase_V1:
        def __init__(self, vllm_config, role, kv_cache_config):
            self._vllm_config, self._role, self._kv_cache_config, self._metadata = vllm_config, role, kv_cache_config, None

        def bind_connector_metadata(self, metadata):
            self._metadata = metadata

        def has_connector_metadata(self):
            return self._metadata is not None

        def _get_connector_metadata(self):
            return self._metadata

    module.KVConnectorBase_V1 = KVConnectorBase_V1
    module.KVConnectorMetadata = type("KVConnectorMetadata", (), {})
    module.KVConnectorWorkerMetadata = type("KVConnectorWorkerMetadata", (), {})
    module.KVConnectorRole = named(SCHEDULER=0, WORKER=1)
    return module


class FakeEngine:
    """Schedules one request at a time, in chunks of 40 tokens, and computes keys and values of a fake model."""

    def __init__(self, home, folder, chunk=40, **options):
        name = "vllm.distributed.kv_transfer.kv_connector.v1.base"
        parts = name.split(".")
        for i in range(1, len(parts)):
            sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
        sys.modules.setdefault(name, fake_vllm())
        made = getattr(importlib.import_module("longhold.vllm"), "LongholdConnector")
        self.caches = {f"model.layers.{i}.self_attn.attn": torch.zeros(200, KV_HEADS, BLOCK, 2 * DIM) for i in range(LAYERS)}

        def update(layer, keys, values, into, slots):
            write_packed(keys, values, into, slots)

        layers = {name: named(impl=named(do_kv_cache_update=update), sliding_window=None) for name in self.caches}
        config = named(
            cache_config=named(enable_prefix_caching=True, block_size=BLOCK), parallel_config=named(tensor_parallel_size=1),
            kv_transfer_config=named(kv_connector_extra_config={"home": home, "spool": folder, **options}),
            model_config=named(
                model="tiny", dtype=torch.float32, tokenizer="tiny", revision=None, trust_remote_code=False, quantization=None
            ),
            compilation_config=named(static_forward_context=layers),
        )
        self.config = config
        groups = named(num_blocks=200, kv_cache_groups=[1])
        self.scheduler, self.worker = made(config, 0, groups), made(config, 1, groups)
        module = sys.modules["longhold.vllm.connector"]
        before, module.describe = module.describe, lambda *a, **b: MODEL
        try:
            self.worker.register_kv_caches(self.caches)
        finally:
            module.describe = before
        self.chunk, self.count, self.invalid, self.reply = chunk, 0, set(), None

    def run(self, prompt, params, salt):
        """The blocks in which the prompt's keys and values lie."""
        self.count += 1
        asked = named(
            request_id=f"r{self.count}", prompt_token_ids=prompt, kv_transfer_params=params, cache_salt=salt, lora_request=None
        )
        blocks = [(7 * i + self.count) % 199 for i in range(-(-len(prompt) // BLOCK))]
        computed, wait = self.scheduler.get_num_new_matched_tokens(asked, 0)
        assert not wait
        self.scheduler.update_state_after_alloc(asked, None, computed)
        first = True
        while computed < len(prompt):
            end = min(len(prompt), computed + self.chunk)
            have, known = -(-end // BLOCK), 0 if first else -(-computed // BLOCK)
            todo = (
                step(new=[(asked.request_id, computed, blocks[:have])], scheduled={asked.request_id: end - computed}) if first
                else step(cached=[(asked.request_id, computed, blocks[known:have])], scheduled={asked.request_id: end - computed})
            )
            self.worker.bind_connector_metadata(self.scheduler.build_connector_meta(todo))
            self.worker.start_load_kv(None)
            for layer, kept in enumerate(self.caches.values()):
                slots = torch.tensor([blocks[t // BLOCK] * BLOCK + t % BLOCK for t in range(computed, end)])
                write_packed(*computed_rows(layer, prompt[computed:end], computed), kept, slots)
            self.worker.wait_for_save()
            self.invalid |= self.worker.get_block_ids_with_load_errors()
            self.scheduler.update_connector_output(named(kv_connector_worker_meta=self.worker.build_connector_worker_meta()))
            computed, first = end, False
        self.reply = self.scheduler.request_finished(asked, blocks)[1]
        return blocks

    def __call__(self, fields):
        self.run(fields["prompt"], fields["kv_transfer_params"], fields["cache_salt"])

    def rows(self, blocks, begin, end):
        """[2, layers, tokens, heads, dim]"""
        layout = cache.learn("0", self.caches["model.layers.0.self_attn.attn"], 200, BLOCK, KV_HEADS, DIM, write_packed)
        pairs = [layout.read(kept, blocks, begin, end) for kept in self.caches.values()]
        return torch.stack([torch.stack(half) for half in zip(*pairs)]).numpy()


class WithEngine(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.home = longhold.Home(MODEL, f"{self.folder}/home", codec="exact")
        self.addCleanup(self.home.close)
        self.engine = FakeEngine(f"{self.folder}/home", f"{self.folder}/spool")
        self.addCleanup(lambda: self.engine.worker.shutdown())

    def read(self, text, **options):
        return reading.read(
            self.engine, "box", text, "text", home=self.home, tokenizer=TOKENIZER, spool=spool.Spool(f"{self.folder}/spool"), **options
        )


class Reading(WithEngine):
    def check_rows(self, text):
        place = [longhold.Place(1, 0, len(text))]
        got = np.stack(self.home.fetch("box", place, rotated=False, dtype=np.float32))
        expected = RAW[:, :, torch.tensor(list(text.encode()))].numpy()
        self.assertLess(float(np.abs(got - expected).max()), 1e-2)

    def test_the_rows_of_all_passes_are_those_of_the_model(self):
        text = text_of(30, 20)
        done = self.read(text, pass_tokens=300)
        self.assertEqual((done.tokens, done.first), (len(text), 0))
        self.check_rows(text)
        self.assertEqual(os.listdir(f"{self.folder}/spool"), [])
        self.assertEqual(self.engine.invalid, set())
        self.assertEqual(self.read(text).first, len(text))

    def test_a_pass_stands_behind_sinks_and_window_at_compact_positions(self):
        text = text_of(30, 20)
        prompts = []
        run = self.engine.run

        def watched(prompt, params, salt):
            blocks = run(prompt, params, salt)
            prefix = request.task_of(params).prefix
            prompts.append((prompt, prefix))
            if prefix:
                expected = np.stack([[r.numpy() for r in half] for half in zip(*(computed_rows(i, prompt[:prefix], 0) for i in range(LAYERS)))])
                self.assertLess(float(np.abs(self.engine.rows(blocks, 0, prefix) - expected).max()), 1e-2)
            return blocks

        self.engine.run = watched
        self.read(text, pass_tokens=300)
        raw = list(text.encode())
        self.assertEqual(prompts[0], (raw[:300], 0))
        self.assertEqual(prompts[1], (raw[:64] + raw[64:300] + raw[300:600], 300))
        self.assertEqual(prompts[2], (raw[:64] + raw[344:600] + raw[600:900], 320))

    def test_an_interrupted_reading_continues(self):
        text = text_of(30, 20)

        def stop(done, total):
            if done >= 900:
                raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            self.read(text, pass_tokens=300, progress=stop)
        done = self.read(text, pass_tokens=300)
        self.assertGreater(done.first, 0)
        self.check_rows(text)

    def test_a_pass_that_the_engine_did_not_save_is_an_error(self):
        self.engine = lambda fields: None
        self.engine.worker = named(shutdown=lambda: None)
        with self.assertRaisesRegex(longhold.Internal, "saved nothing"):
            self.read("A text.")

    def test_a_pass_that_nobody_began_is_not_saved(self):
        task = request.Pass("c" * 32, 0)
        with self.assertLogs("vllm.longhold", "ERROR"):
            self.engine.run(list(b"A text."), request.params_of(task), request.salt_of(task))
        task = request.Pass("d" * 32, 5)
        with self.assertLogs("vllm.longhold", "ERROR"):
            self.engine.run(list(b"A text."), request.params_of(task), request.salt_of(task))
        self.assertEqual(self.engine.invalid, {2})
        self.assertEqual(os.listdir(f"{self.folder}/spool"), [])

    def test_a_pass_whose_rows_are_gone_is_an_error(self):
        text = text_of(30, 20)
        before = self.engine.worker._worker._spool.before

        def gone(name):
            raise FileNotFoundError("gone")

        self.engine.worker._worker._spool.before = gone
        with self.assertLogs("vllm.longhold", "ERROR"), self.assertRaisesRegex(longhold.Internal, "gone"):
            self.read(text, pass_tokens=300)
        self.engine.worker._worker._spool.before = before
        self.assertEqual(self.read(text, pass_tokens=300).tokens, len(text))
        self.check_rows(text)


class Recalling(WithEngine):
    def setUp(self):
        super().setUp()
        self.text = text_of(60, 30)
        self.read(self.text)

    def compose(self, **options):
        return longhold.vllm.compose(self.home, "box", TOKENIZER, "Where did the lighthouse keeper bury his treasure?", **options)

    def send(self, composed, **changes):
        fields = {"params": composed.kv_transfer_params, "salt": composed.cache_salt, **changes}
        return self.engine.run(composed.prompt_token_ids, fields["params"], fields["salt"])

    def test_the_prompt_is_sinks_spans_and_question(self):
        composed = self.compose(spans_max=3)
        raw = bytes(composed.prompt_token_ids)
        self.assertTrue(raw.startswith(self.text.encode()[:64]))
        question = b"<user>Where did the lighthouse keeper bury his treasure?\n<assistant>"
        self.assertEqual(raw[composed.recalled :], question)
        best = composed.plan.spans[0]
        self.assertIn("lighthouse", best.text)
        self.assertTrue(raw[: composed.recalled].endswith(self.text.encode()[best.begin : best.end]))
        task = request.task_of(composed.kv_transfer_params)
        request.check_salt(task, composed.cache_salt)
        self.assertEqual(task.prefix, composed.recalled)
        self.assertNotEqual(self.compose(spans_max=3).cache_salt, composed.cache_salt)
        self.assertEqual(composed.body(model="m")["prompt"], composed.prompt_token_ids)
        self.assertEqual(composed.chat_body([])["kv_transfer_params"]["prompt_token_ids"], composed.prompt_token_ids)

    def test_the_best_spans_are_re_encoded_before_the_question(self):
        plain = self.compose(spans_max=3, prompt_token_ids=[1])
        best, second = plain.plan.spans[:2]
        size = best.end - best.begin
        texts = [bytes(self.text.encode()[s.begin : s.end]) for s in (best, second)]
        for tokens, expected in ((0, b""), (size - 1, b""), (size, texts[0]), (size + second.end - second.begin, texts[1] + texts[0])):
            composed = self.compose(spans_max=3, prompt_token_ids=[1], reencode_tokens=tokens)
            self.assertEqual(composed.recalled, plain.recalled)
            self.assertEqual(bytes(composed.prompt_token_ids[composed.recalled :]), expected + b"\1")

    def test_spans_behind_a_closed_gate_are_not_recalled_but_re_encoded(self):
        spans = [
            longhold.Span(1, "text", begin, begin + 40, 1, 1, 0, 1, score, "") for begin, score in ((500, 0.9), (300, 0.8), (400, 0.6))
        ]
        plan = longhold.Plan(tuple(spans), longhold.Evidence.STRONG, None)
        for gate, places in (
            (0, [(0, 64), (400, 440), (300, 340), (500, 540)]),
            (2, [(0, 64), (300, 340), (500, 540)]),
            (9, [(0, 64), (500, 540)]),  # the best one stays
        ):
            with self.subTest(gate=gate):
                composed = self.compose(plan=plan, gate=gate, prompt_token_ids=[1], reencode_tokens=120)
                self.assertEqual(request.task_of(composed.kv_transfer_params).places, tuple((1, *place) for place in places))
                again = b"".join(self.text.encode()[b : b + 40] for b in (400, 300, 500))
                self.assertEqual(bytes(composed.prompt_token_ids[composed.recalled :]), again + b"\1")
                self.assertEqual(composed.plan, plan)

    def test_messages_own_tokens_and_limits(self):
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Where is the lighthouse?"}]}]
        self.assertIn("lighthouse", longhold.vllm.compose(self.home, "box", TOKENIZER, messages).plan.spans[0].text)
        self.assertEqual(self.compose(prompt_token_ids=[1, 2, 3]).prompt_token_ids[-3:], [1, 2, 3])
        nothing = longhold.vllm.compose(self.home, "none", TOKENIZER, "Where?")
        self.assertEqual((nothing.recalled, nothing.kv_transfer_params, nothing.prompt()), (0, None, {"prompt_token_ids": list(b"<user>Where?\n<assistant>")}))
        with self.assertRaisesRegex(longhold.InvalidArgument, "smaller tokens_max"):
            self.compose(context_length=100)

    def test_the_cache_has_the_rows_that_the_memory_gives(self):
        composed = self.compose()
        blocks = self.send(composed)
        places, position = [], 0
        for document, begin, end in request.task_of(composed.kv_transfer_params).places:
            places.append(longhold.Place(document, begin, end, position))
            position += end - begin
        expected = np.stack(self.home.fetch("box", places, dtype=np.float32))
        self.assertTrue(np.array_equal(self.engine.rows(blocks, 0, position), expected))
        self.assertEqual(self.engine.reply, {"longhold": {"recalled": composed.recalled}})
        # The rest was computed behind it, in the block that both share.
        rest = composed.prompt_token_ids[position:]
        own = np.stack([[r.numpy() for r in half] for half in zip(*(computed_rows(i, rest, position) for i in range(LAYERS)))])
        self.assertTrue(np.array_equal(self.engine.rows(blocks, position, position + len(rest)), own))

    def test_long_recalls_are_fetched_in_parts_and_after_the_prefix_cache(self):
        places = ((1, 0, 64), (1, 100, 2600), (1, 2600, 2700))
        task = request.Recall("box", "tiny-1", places)
        tokens = [t for _, b, e in places for t in self.text.encode()[b:e]]
        expected = np.stack(self.home.fetch("box", [longhold.Place(1, 0, 64, 0), longhold.Place(1, 100, 2700, 64)], dtype=np.float32))
        blocks = list(range(150, 200)) + list(range(150)) + list(range(150))
        side = self.engine.worker._worker
        for first in (0, 16, 64, 104, 1600):
            for kept in self.engine.caches.values():
                kept.zero_()
            blocks = [(11 * i) % 199 for i in range(199)]
            if len(tokens) > 199 * BLOCK:
                tokens, end = tokens[: 199 * BLOCK], 199 * BLOCK
                task = request.Recall("box", "tiny-1", ((1, 0, 64), (1, 100, 100 + end - 64)))
            side.load([scheduling.Work("r", task, blocks, (first, len(tokens)), None, tokens)])
            self.assertEqual(side.take_failures(), {})
            got = self.engine.rows(blocks, 0, len(tokens))
            self.assertTrue(np.array_equal(got[:, :, first:], expected[:, :, first : len(tokens)]))
            self.assertEqual(float(np.abs(got[:, :, :first]).max(initial=0)), 0.0)

    def test_what_is_wrong_is_reported_and_nothing_is_loaded(self):
        composed = self.compose()
        task = request.task_of(composed.kv_transfer_params)
        moved = dataclasses.replace(task, places=tuple((d, b + 1, e + 1) for d, b, e in task.places))
        for what, other, expected in (
            ("another model", dataclasses.replace(task, model="hf-0"), "composed for model hf-0"),
            ("another memory", dataclasses.replace(task, memory="none"), "none"),
            ("another document", dataclasses.replace(task, places=tuple((9, b, e) for _, b, e in task.places)), "document"),
            ("other tokens", moved, "not those of the prompt"),
        ):
            with self.subTest(what), self.assertLogs("vllm.longhold", "ERROR"):
                self.engine.invalid = set()
                blocks = self.send(composed, params=request.params_of(other), salt=request.salt_of(other))
                self.assertEqual(self.engine.invalid, set(blocks[: -(-task.prefix // BLOCK)]))
                self.assertRegex(self.engine.reply["longhold"]["error"], expected)
                self.assertEqual(self.engine.reply["longhold"]["recalled"], 0)
        with self.assertLogs("vllm.longhold", "ERROR"):
            self.engine.invalid = set()
            blocks = self.send(composed, salt=None)
            self.assertEqual(self.engine.invalid, set(blocks[:1]))

    def test_a_document_that_was_put_after_the_first_recall_is_recalled(self):
        self.send(self.compose())
        other = "The ship's cat sleeps in the wheelhouse, on the captain's old coat.\n" + text_of(40, 0)
        reading.read(
            self.engine, "box", other, "other", home=self.home, tokenizer=TOKENIZER, spool=spool.Spool(f"{self.folder}/spool")
        )
        composed = longhold.vllm.compose(self.home, "box", TOKENIZER, "Where does the ship's cat sleep?", spans_max=1)
        self.assertEqual(composed.plan.spans[0].document_name, "other")
        self.send(composed)
        self.assertEqual(self.engine.reply, {"longhold": {"recalled": composed.recalled}})

    def test_a_forgotten_document_is_an_error_also_when_another_one_has_come(self):
        composed = self.compose()
        self.send(composed)
        self.home.forget("box", "text")
        for again in (False, True):
            with self.subTest(again=again), self.assertLogs("vllm.longhold", "ERROR"):
                if again:
                    reading.read(
                        self.engine, "box", self.text[::-1], "new", home=self.home, tokenizer=TOKENIZER,
                        spool=spool.Spool(f"{self.folder}/spool"),
                    )
                self.send(composed)
                self.assertIn("error", self.engine.reply["longhold"])

    def test_unserved_engines_are_refused_by_name(self):
        made = longhold.vllm.LongholdConnector
        for what, expected, change in (
            ("an option", "no option 'homes'", lambda c: c.kv_transfer_config.kv_connector_extra_config.update(homes="x")),
            ("workers", "tensor_parallel_size is 2", lambda c: setattr(c.parallel_config, "tensor_parallel_size", 2)),
            ("drafts", "speculative", lambda c: setattr(c, "speculative_config", object())),
        ):
            engine = FakeEngine(f"{self.folder}/home", f"{self.folder}/spool")
            change(engine.config)
            with self.subTest(what), self.assertRaisesRegex(longhold.Error, expected):
                made(engine.config, 0, named(kv_cache_groups=[1]))
        with self.assertRaisesRegex(longhold.Unimplemented, "has 2 layers, and vLLM keeps 1"):
            side = working.WorkerSide(MODEL, lambda: self.home, spool.Spool(f"{self.folder}/spool"))
            side.register({"model.layers.0.attn": torch.zeros(6, KV_HEADS, BLOCK, 2 * DIM)}, 6, BLOCK, lambda name: write_halves)
        last = list(engine.config.compilation_config.static_forward_context.values())[-1]
        last.sliding_window = 512
        with self.assertRaisesRegex(longhold.Unimplemented, "layers.1.self_attn.attn has a sliding window"):
            side = working.WorkerSide(MODEL, lambda: self.home, spool.Spool(f"{self.folder}/spool"))
            side.register(engine.caches, 200, BLOCK, engine.worker._writer_of)
        layer = next(iter(engine.config.compilation_config.static_forward_context.values()))
        layer.sliding_window = 512
        with self.assertRaisesRegex(longhold.Unimplemented, "sliding window"):
            engine.worker._writer_of("model.layers.0.self_attn.attn")


class Files(unittest.TestCase):
    def test_a_spool_that_others_may_open_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            with self.assertRaises(longhold.FailedPrecondition):
                spool.Spool(folder)

    def test_a_description_is_kept_as_it_was(self):
        with tempfile.TemporaryDirectory() as folder:
            model = dataclasses.replace(MODEL, rope=[ROPE, dataclasses.replace(ROPE, freq_factors=[1.5] * 8)])
            file = pathlib.Path(folder) / "kept.json"
            describing._write(file, model)
            self.assertEqual(describing._read(file), model)

    def test_descriptions_are_where_the_program_keeps_its_cache(self):
        for variables, folder in (
            ({"LONGHOLD_CACHE": "/e", "XDG_CACHE_HOME": "/c"}, "/e"),
            ({"LONGHOLD_CACHE": "", "XDG_CACHE_HOME": "/c"}, "/c/longhold"),
            ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/longhold"),
            ({"HOME": "/h"}, "/h/.cache/longhold"),
        ):
            with self.subTest(variables), unittest.mock.patch.dict(os.environ, variables, clear=True):
                self.assertEqual(describing._file_of("k"), pathlib.Path(folder) / "descriptions" / "k.json")

    def test_a_description_is_made_anew_when_the_code_that_makes_it_changes(self):
        with tempfile.TemporaryDirectory() as folder:
            here = pathlib.Path(folder)
            key = lambda: describing._key(here, here, "float32", None)  # noqa: E731
            first, read = key(), pathlib.Path.read_bytes
            self.assertEqual(key(), first)
            for code in ("describe.py", "vocabulary.py", "rotation.py"):
                changed = lambda path: read(path) + (b"#" if path.name == code else b"")  # noqa: B023, E731
                with self.subTest(code), unittest.mock.patch.object(pathlib.Path, "read_bytes", changed):
                    self.assertNotEqual(key(), first)

    def test_a_type_without_a_name_is_refused(self):
        with self.assertRaisesRegex(longhold.InvalidArgument, "auto"):
            longhold.vllm.describe("anything", "auto")


if __name__ == "__main__":
    unittest.main()
