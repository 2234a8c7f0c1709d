#!/usr/bin/env python3
"""The Python binding on a model that is only described: two layers, two KV heads of 16, a token for each byte.

Keys and values are random, stored with codec "exact", so what comes back is what was put, rounded to 16 bits. Rotated keys are
compared with a rotation that numpy computes in double precision: fp16 storage is exact, so a difference is float32 rounding of
keys of size 4, below 1e-5, and where fp16 is fetched half a unit in the last place of 4, 2e-3.

  LONGHOLD_LIBRARY=build/release/liblonghold.so PYTHONPATH=python/src python/tests/binding_test.py [CLASS...]
"""
import asyncio
import gc
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

import numpy as np

import longhold
import longhold.aio

LAYERS, Q_HEADS, KV_HEADS, DIM = 2, 4, 2, 16
ROPES = (longhold.Rope(16, 10000.0), longhold.Rope(8, 500.0, halves=False, attn_factor=1.25, freq_factors=[1, 2, 3, 4]))


def described(**changes):
    model = dict(
        name="tiny", fingerprint="tiny-1", layer_count=LAYERS, q_heads=Q_HEADS, kv_heads=KV_HEADS, head_dim=DIM,
        context_length=4096, rope=ROPES, pieces=[bytes([b]) for b in range(256)],
    )
    return longhold.Model(**{**model, **changes})


def text_of(lines, needle):
    """Each line is about something else; `needle` says which line holds the answer."""
    words = "river stone copper window garden letter engine winter market silver".split()
    out = [f"Line {i} speaks of the {words[i % 10]} and the {words[(i * 7 + 3) % 10]}, as all lines do.\n" for i in range(lines)]
    out[needle] = "The lighthouse keeper buried his treasure beneath the crooked elm.\n"
    return "".join(out)


def tokens_of(text):
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32)


def random_rows(tokens, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(LAYERS, tokens, KV_HEADS, DIM)).astype(np.float16) for _ in range(2)]


def rotate(keys, layer, first):
    """keys [tokens, heads, dim] at positions first, first + 1, ..., in double precision."""
    rope = ROPES[layer]
    pairs = rope.rotary_dims // 2
    speed = np.array([rope.freq_base ** (-i / pairs) / (rope.freq_factors[i] if rope.freq_factors else 1) for i in range(pairs)])
    angle = (first + np.arange(len(keys)))[:, None, None] * speed
    cos, sin = rope.attn_factor * np.cos(angle), rope.attn_factor * np.sin(angle)
    out = keys.astype(np.float64)
    a, b = (slice(0, pairs), slice(pairs, 2 * pairs)) if rope.halves else (slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2))
    out[..., a], out[..., b] = out[..., a] * cos - out[..., b] * sin, out[..., a] * sin + out[..., b] * cos
    return out


class InHome(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def open(self, **options):
        model = options.pop("model", None) or described()
        home = longhold.Home(model, self.folder.name, codec="exact", **options)
        self.addCleanup(home.close)
        return home

    def put(self, home, text, seed=1, name="letter", memory="box"):
        keys, values = random_rows(len(text.encode()), seed)
        with home.put(memory, name, text, tokens_of(text)) as writer:
            writer.put(keys, values)
            self.assertEqual((writer.document, writer.complete), (1 if name == "letter" else 2, True))
        return keys, values


class Putting(InHome):
    def test_fetched_rows_are_those_that_were_put_and_keys_are_rotated_to_their_places(self):
        text = text_of(40, 20)
        home = self.open()
        keys, values = self.put(home, text)
        places = [longhold.Place(1, 100, 230, -200), longhold.Place(1, 3, 5, 7), longhold.Place(1, 1000, 1064, 5000)]
        rows = np.r_[100:230, 3:5, 1000:1064]
        got, got_values = home.fetch("box", places, rotated=False)
        np.testing.assert_array_equal(got, keys[:, rows])
        np.testing.assert_array_equal(got_values, values[:, rows])
        wanted = [
            np.concatenate([rotate(keys[layer, p.begin : p.end], layer, p.position) for p in places]) for layer in range(LAYERS)
        ]
        for dtype, tolerance in ((np.float32, 1e-5), (np.float16, 3e-3)):
            rotated, same_values = home.fetch("box", places, dtype=dtype)
            self.assertEqual(rotated.dtype, dtype)
            np.testing.assert_allclose(rotated, wanted, atol=tolerance, rtol=1e-3 if dtype == np.float16 else 1e-6)
            np.testing.assert_array_equal(same_values, values[:, rows].astype(dtype))

    def test_rotated_rows_of_any_strides_are_put_without_a_copy(self):
        text = text_of(40, 20)
        tokens = len(text)
        keys, values = random_rows(tokens, 2)
        # As an engine has them: [heads, tokens, dim], in a buffer that is longer than the text.
        wide = np.zeros((2, LAYERS, KV_HEADS, tokens + 9, DIM), np.float32)
        for layer in range(LAYERS):
            wide[0, layer, :, :tokens] = rotate(keys[layer], layer, -50).transpose(1, 0, 2)
            wide[1, layer, :, :tokens] = values[layer].transpose(1, 0, 2)
        views = wide[..., :tokens, :].transpose(0, 1, 3, 2, 4)
        home = self.open()
        with home.put("box", "letter", text, tokens_of(text)) as writer:
            for begin in range(0, tokens, 500):
                end = min(tokens, begin + 500)
                writer.put(list(views[0, :, begin:end]), views[1, :, begin:end], position=begin - 50)
        # Into views, too.
        out = np.zeros((2, LAYERS, KV_HEADS, tokens, DIM), np.float16)
        into = out.transpose(0, 1, 3, 2, 4)
        got = home.fetch("box", [longhold.Place(1, 0, tokens)], into[0], into[1], rotated=False)
        self.assertTrue(np.shares_memory(got[0], out))
        # Rotating, rounding to float32 and un-rotating may move an element by a unit of fp16.
        np.testing.assert_allclose(into[0].astype(np.float32), keys, atol=4e-3, rtol=2e-3)
        np.testing.assert_array_equal(into[1], values)

    def test_one_kv_head_has_any_stride(self):
        home = self.open(model=described(kv_heads=1))
        text = text_of(5, 2)
        tokens = len(text)
        wide = np.random.default_rng(1).normal(size=(LAYERS, 3, tokens, DIM)).astype(np.float16)
        keys = [wide[layer, :1].transpose(1, 0, 2) for layer in range(LAYERS)]
        values = [wide[layer, 1].copy()[:, None] for layer in range(LAYERS)]
        with home.put("box", "letter", text, tokens_of(text)) as writer:
            writer.put(keys, values)
        got = home.fetch("box", [longhold.Place(1, 0, tokens)], rotated=False)
        np.testing.assert_array_equal(got[0], keys)
        np.testing.assert_array_equal(got[1], values)

    def test_an_interrupted_document_continues_where_its_blocks_end(self):
        text = text_of(120, 60)
        keys, values = random_rows(len(text), 3)
        home = self.open()
        with self.assertRaises(KeyboardInterrupt), home.put("box", "letter", text, tokens_of(text)) as writer:
            writer.put(keys[:, :5000], values[:, :5000])
            raise KeyboardInterrupt
        self.assertEqual(home.fetch("box", [longhold.Place(1, 4900, 4990)], rotated=False)[0].shape[1], 90)
        home.close()
        home = self.open()
        with home.put("box", "letter", text, tokens_of(text)) as writer:
            self.assertEqual(writer.position, 4992)  # whole blocks of 64
            writer.put(keys[:, 4992:], values[:, 4992:])
        got = home.fetch("box", [longhold.Place(1, 0, len(text))], rotated=False)
        np.testing.assert_array_equal(got[0], keys)
        with home.put("box", "copy", text, tokens_of(text)) as writer:
            self.assertTrue(writer.complete)  # the memory has the content

    def test_what_was_committed_survives_kill_9(self):
        text = text_of(120, 60)
        child = (
            "import os, signal, sys; sys.path.insert(0, sys.argv[1]); import binding_test as t\n"
            "home = t.longhold.Home(t.described(), sys.argv[2], codec='exact')\n"
            "text = t.text_of(120, 60); keys, values = t.random_rows(len(text), 3)\n"
            "writer = home.put('box', 'letter', text, t.tokens_of(text))\n"
            "writer.put(keys[:, :5000], values[:, :5000]); os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        here = str(pathlib.Path(__file__).parent)
        ended = subprocess.run([sys.executable, "-c", child, here, self.folder.name], check=False)
        self.assertEqual(ended.returncode, -9)
        with self.open().put("box", "letter", text, tokens_of(text)) as writer:
            self.assertEqual(writer.position, 4096)

    def test_tokens_and_prefixes_are_found_again(self):
        text = text_of(30, 10)
        home = self.open()
        self.put(home, text)
        self.put(home, text[:900] + "Other.\n" * 40, seed=2, name="other")
        np.testing.assert_array_equal(home.tokens("box", 1, 100, 200), tokens_of(text)[100:200])
        self.assertEqual(home.prefix("box", tokens_of(text[:950])), longhold.Prefix(1, 950))
        self.assertEqual(home.prefix("box", tokens_of(text[:900] + "Other.\nElse")), longhold.Prefix(2, 907))
        stats = home.stat("box")
        self.assertEqual((stats.documents, stats.sink_tokens, stats.window_tokens), (2, 64, 256))
        home.forget("box", "other")
        self.assertEqual(home.stat("box").documents, 1)
        home.forget("box")
        with self.assertRaises(longhold.NotFound):
            home.stat("box")


class Planning(InHome):
    def test_a_plan_has_the_line_that_a_question_is_about(self):
        text = text_of(200, 120)
        home = self.open()
        self.put(home, text)
        plan = home.plan("box", "Where is the treasure of the lighthouse keeper?", spans_max=4)
        best = plan.spans[0]
        self.assertIn("crooked elm", best.text)
        self.assertLessEqual(best.line_begin, 121)
        self.assertGreaterEqual(best.line_end, 121)
        self.assertEqual(text.encode()[best.byte_begin : best.byte_end].decode(), best.text)
        self.assertEqual(best.document_name, "letter")
        self.assertEqual(best.score, 1.0)
        self.assertEqual(plan.evidence, longhold.Evidence.STRONG)
        self.assertIsNone(plan.coverage)
        self.assertLessEqual(len(plan.spans), 4)
        del home
        gc.collect()
        self.assertIn("crooked elm", best.text)  # a plan is a value

    def test_queries_of_recall_heads_find_the_keys_that_they_attend_to(self):
        text = text_of(200, 120)
        model = described(recall_heads=[(0, 1)])
        home = self.open(model=model)
        keys, values = random_rows(len(text), 5)
        keys *= np.float16(0.1)
        aim = np.zeros(DIM, np.float16)
        aim[5] = 6
        spot = text.index("crooked elm")
        keys[0, spot : spot + 8, 1] = aim
        with home.put("box", "letter", text, tokens_of(text)) as writer:
            writer.put(keys, values)
        query = np.zeros((3, Q_HEADS // KV_HEADS, DIM), np.float32)
        query[..., 5] = 6
        for position in (None, 40):
            asked = query if position is None else rotate(query, 0, position).astype(np.float32)
            plan = home.plan("box", queries=[asked], position=position, spans_max=2)
            self.assertLess(plan.spans[0].begin, spot + 8)
            self.assertGreater(plan.spans[0].end, spot)
            self.assertGreater(plan.coverage, 0.8)
        with self.assertRaisesRegex(longhold.InvalidArgument, "1 recall heads"):
            home.plan("box", queries=[query, query])


class Errors(InHome):
    def test_each_names_its_object(self):
        home = self.open()
        text = text_of(5, 2)
        with self.assertRaisesRegex(longhold.NotFound, "nowhere"):
            home.plan("nowhere", "What?")
        with self.assertRaisesRegex(longhold.InvalidArgument, "its tokens have"):
            home.put("box", "letter", text, tokens_of(text)[:-3])
        self.put(home, text)
        with self.assertRaisesRegex(longhold.InvalidArgument, "committed"):
            home.fetch("box", [longhold.Place(1, 0, 10**6)])
        with self.assertRaisesRegex(longhold.InvalidArgument, "codec"):
            longhold.Home(described(), self.folder.name, codec="zip")
        with self.assertRaisesRegex(longhold.InvalidArgument, "fingerprint"):
            longhold.Home(described(fingerprint="not allowed!"), self.folder.name)
        self.assertTrue(issubclass(longhold.InvalidArgument, ValueError))

    def test_arrays_that_do_not_fit_are_refused_before_the_library_sees_them(self):
        home = self.open()
        text = text_of(5, 2)
        keys, values = random_rows(len(text), 1)
        with home.put("box", "letter", text, tokens_of(text)) as writer:
            for bad in (keys[:1], keys[:, :, :1], keys[..., ::-1], keys.astype(np.float64), keys.astype(">f2"), keys[:, ::-1]):
                with self.assertRaises(longhold.InvalidArgument):
                    writer.put(bad, values)
            with self.assertRaisesRegex(longhold.InvalidArgument, "not finite"):
                writer.put(keys * np.float16(np.inf), values)
            frozen = np.zeros((LAYERS, 1, KV_HEADS, DIM), np.float16)
            frozen.flags.writeable = False
            with self.assertRaisesRegex(longhold.InvalidArgument, "writeable"):
                home.fetch("box", [longhold.Place(1, 0, 1)], frozen, frozen)
            for one in ({"keys": keys[:, :1].copy()}, {"values": values[:, :1].copy()}):
                with self.assertRaisesRegex(longhold.InvalidArgument, "both or none"):
                    home.fetch("box", [longhold.Place(1, 0, 1)], **one)

    def test_another_models_memory_is_refused_by_name(self):
        self.put(self.open(), text_of(5, 2))
        other = self.open(model=described(name="large", fingerprint="large-7"))
        with self.assertRaises(longhold.FailedPrecondition) as refused:
            other.plan("box", "What?")
        self.assertIn("tiny", str(refused.exception))
        self.assertIn("large", str(refused.exception))

    @unittest.skipUnless("LONGHOLD_TINY_GGUF_DIR" in os.environ, "LONGHOLD_TINY_GGUF_DIR is not set")
    def test_a_memory_that_libllama_read_and_one_that_another_engine_read_refuse_each_other_by_name(self):
        with self.open() as home:
            self.put(home, text_of(5, 2), memory="described")
        gguf = pathlib.Path(os.environ["LONGHOLD_TINY_GGUF_DIR"]) / "llama.gguf"
        with longhold.Home(home=self.folder.name, gguf=gguf) as home:
            home.ingest("read", "letter", text_of(5, 2))
            name = home.plan("read", "keeper").spans[0].document_name
            with self.assertRaises(longhold.FailedPrecondition) as by_llama:
                home.plan("described", "What?")
            with self.assertRaises(longhold.FailedPrecondition):
                home.put("described", "letter", text_of(5, 2), tokens_of(text_of(5, 2)))
        self.assertEqual(name, "letter")
        with self.assertRaises(longhold.FailedPrecondition) as by_described:
            self.open().plan("read", "What?")
        for refused in (by_llama, by_described):
            self.assertIn("tiny (tiny-1)", str(refused.exception))
            self.assertIn("tiny llama", str(refused.exception))

    def test_a_second_writer_is_refused(self):
        text = text_of(5, 2)
        home, other = self.open(), self.open()
        writer = home.put("box", "letter", text, tokens_of(text))
        with self.assertRaises(longhold.FailedPrecondition):
            other.put("box", "letter", text, tokens_of(text))
        writer.finish()
        writer.finish()  # again is nothing
        other.put("box", "letter", text, tokens_of(text)).finish()

    def test_a_closed_home_is_refused_and_closing_ends_its_writers(self):
        text = text_of(5, 2)
        home = self.open()
        writer = home.put("box", "letter", text, tokens_of(text))
        home.close()
        home.close()
        for call in (lambda: writer.position, lambda: home.plan("box", "What?")):
            with self.assertRaises(longhold.FailedPrecondition):
                call()
        with self.assertRaises(longhold.FailedPrecondition):
            self.open(read_only=True).put("box", "letter", text, tokens_of(text))

    def test_parts_of_the_package_are_imported_when_they_are_asked_for(self):
        code = (
            "import sys, longhold\n"
            "assert not {'longhold.aio', 'torch', 'transformers'} & set(sys.modules), sys.modules\n"
            "longhold.aio.Home\n"
            "try: longhold.nothing\n"
            "except AttributeError: pass\n"
            "else: sys.exit('an attribute that is not there')\n"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        self.assertEqual((run.returncode, run.stderr), (0, ""))

    def test_a_processor_without_the_wheels_instructions_is_an_import_error(self):
        with tempfile.TemporaryDirectory() as folder:
            package = pathlib.Path(folder) / "longhold"
            package.mkdir()
            for file in pathlib.Path(longhold.__file__).parent.glob("*.py"):
                (package / file.name).write_bytes(file.read_bytes())
            (package / "liblonghold.so").write_bytes(b"never loaded")
            (package / "build.json").write_text('{"cpu_level": "future"}')
            text = (package / "_native.py").read_text().replace('"x64": (', '"future": ("flag_of_the_future",), "x64": (')
            (package / "_native.py").write_text(text)
            environment = {k: v for k, v in os.environ.items() if k != "LONGHOLD_LIBRARY"} | {"PYTHONPATH": folder}
            run = subprocess.run(
                [sys.executable, "-c", "import longhold"], env=environment, capture_output=True, text=True, check=False
            )
            self.assertIn("level future, and this one lacks flag_of_the_future", run.stderr)


class Forking(InHome):
    def test_a_forked_process_forgets_homes_and_writers_and_the_first_one_goes_on(self):
        text = text_of(120, 60)
        keys, values = random_rows(len(text), 3)
        home = self.open()
        writer = home.put("box", "letter", text, tokens_of(text))
        writer.put(keys[:, :5000], values[:, :5000])
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # a call into the parent's home may wait forever
            refused = 0
            try:
                for call in (lambda: home.stat("box"), lambda: writer.finish() or writer.position):
                    try:
                        call()
                    except longhold.FailedPrecondition as error:
                        refused += "forked" in str(error) or "finished" in str(error)
                home.close()
                del writer, home
                gc.collect()
                with self.open(read_only=True) as own:
                    refused += own.stat("box").tokens >= 4096
            finally:
                os._exit(refused)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 3)
        writer.put(keys[:, 5000:], values[:, 5000:])
        self.assertTrue(writer.complete)
        writer.finish()
        got = home.fetch("box", [longhold.Place(1, 0, len(text))], rotated=False)
        np.testing.assert_array_equal(got[0], keys)


class Threads(InHome):
    def test_calls_from_many_threads_give_what_one_gives(self):
        text = text_of(200, 120)
        home = self.open()
        keys, _ = self.put(home, text)
        wrong = []

        def work(seed):
            rng = np.random.default_rng(seed)
            for _ in range(20):
                begin = int(rng.integers(0, len(text) - 100))
                got = home.fetch("box", [longhold.Place(1, begin, begin + 100)], rotated=False)[0]
                if not np.array_equal(got, keys[:, begin : begin + 100]):
                    wrong.append(begin)
                if "elm" not in home.plan("box", "Where is the treasure of the keeper?").spans[0].text:
                    wrong.append("plan")
                try:  # a message belongs to its thread
                    home.fetch("box", [longhold.Place(7 + seed, 0, 1)])
                except longhold.NotFound as error:
                    if f"document {7 + seed}" not in str(error):
                        wrong.append(str(error))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])


class Asyncio(InHome):
    def test_the_event_loop_goes_on_while_calls_run(self):
        text = text_of(200, 120)
        keys, values = random_rows(len(text), 4)

        async def work():
            ticks = 0

            async def tick():
                nonlocal ticks
                while True:
                    ticks += 1
                    await asyncio.sleep(0.001)

            ticking = asyncio.create_task(tick())
            async with await longhold.aio.Home.open(described(), self.folder.name, codec="exact") as home:
                async with await home.put("box", "letter", text, tokens_of(text)) as writer:
                    await writer.put(keys, values)
                    self.assertEqual(await writer.position(), len(text))
                plans = await asyncio.gather(*(home.plan("box", "Where is the treasure?") for _ in range(4)))
                got, _ = await home.fetch("box", [longhold.Place(1, 0, 10)], rotated=False)
                self.assertEqual((await home.stat("box")).tokens, len(text))
                self.assertEqual((await home.prefix("box", tokens_of(text)[:50])).length, 50)
                with self.assertRaises(longhold.NotFound):
                    await home.plan("nowhere", "What?")
                await home.forget("box")
            ticking.cancel()
            return ticks, plans, got

        ticks, plans, got = asyncio.run(work())
        self.assertGreater(ticks, 5)
        self.assertTrue(all("elm" in plan.spans[0].text for plan in plans))
        np.testing.assert_array_equal(got, keys[:, :10])


if __name__ == "__main__":
    unittest.main()
