#!/usr/bin/env python3
"""Whole runs of `longhold eval`, `bench` and `calibrate` on the tiny random model of tests/model: their questions, files and output. Quality
and speed are not judged. Usage: as cli_test.py, with LONGHOLD_TINY_GGUF_DIR.
"""

import csv
import json
import os
import shutil
import signal
import sys
import time
import unittest

from cli_test import TIMEOUT, CliTest, main, make_text


@unittest.skipUnless(os.environ.get("LONGHOLD_TINY_GGUF_DIR"), "set LONGHOLD_TINY_GGUF_DIR to what tests/model/make_tiny_gguf.py wrote")
class Eval(CliTest):
    """`eval` from the command line to its files. The model is random, so its answers are wrong, but the questions are right."""

    SMALL = ["--lengths", "2k", "--needles", "4", "--depths", "2", "--max-tokens", "4"]

    def setUp(self):
        super().setUp()
        self.model = os.path.join(os.environ["LONGHOLD_TINY_GGUF_DIR"], "llama.gguf")
        self.write("book.txt", "".join(f"L{i} {line}\n" for i, line in enumerate(make_text(9, 60).splitlines())))
        (self.dir / "tmp").mkdir()

    def tearDown(self):
        self.assertEqual(list((self.dir / "tmp").iterdir()), [], "temporary memories are gone")
        self.assertFalse(self.home.exists(), "the user's own memories are not touched")

    def environment(self, **more):
        return super().environment(**{"LONGHOLD_MODEL": self.model, "TMPDIR": self.dir / "tmp", **more})

    def rows(self):
        return [json.loads(line) for line in (self.dir / "out/results.jsonl").read_text().splitlines()[1:]]

    def test_one_report_compares_all_modes(self):
        report = self.run_json("eval", "niah_single_2", "vt", "--haystack", "book.txt", *self.SMALL, "--seed", "5",
                               "--mode", "longhold,full,window,rag-bm25,oracle")
        self.assertEqual(report["seed"], 5)
        self.assertTrue(report["complete"])
        self.assertRegex(report["model"]["fingerprint"], "^[0-9a-f]{16}$")
        self.assertRegex(report["profile"]["fingerprint"], "^[0-9a-f]{16}$")
        self.assertEqual([(r["task"], r["mode"]) for r in report["results"]],
                         [(t, m) for t in ("niah_single_2", "vt") for m in ("longhold", "full", "window", "rag-bm25", "oracle")])
        for result in report["results"]:
            self.assertEqual((result["length"], result["questions"]), (2048, 4))
            self.assertTrue(0.98 * 2048 <= result["text_tokens"] <= 2048, result)
            self.assertGreater(result["first_token_ms"], 0)
            self.assertGreater(result["tokens_read"], 0)
            self.assertEqual(result["hits"] is None, result["mode"] in ("full", "oracle"))
        bm25 = report["results"][3]
        self.assertEqual(bm25["hits"]["hit@8"], 1, "a key's words stand in its needle alone")

    def test_abstaining_on_unanswerable_questions_counts_as_right(self):
        # The generic profile abstains if no place contains enough of the question's words. The lantern does occur in the text.
        self.write("q.tsv", "L1\tWho mended the kettle near the river?\tx\n-\tZyxwvutsrq?\t-\n-\tWhere is the lantern?\t-\n")
        report = self.run_json("eval", "--questions", "q.tsv", "--haystack", "book.txt", "--lengths", "2k", "--max-tokens", "4", "--mode", "longhold")
        self.assertEqual(report["results"][0]["abstention"], {"unanswerable": 2, "abstained": 1, "answerable": 1, "abstained_wrongly": 0})

    def test_the_page_fits_the_screen_and_reports_tasks_that_do_not_fit(self):
        result = self.run_cli("eval", "niah_single_1", "--lengths", "5k", "--needles", "2", "--max-tokens", "2", "--mode", "full,oracle")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertLessEqual(max(map(len, result.stdout.splitlines())), 80)
        self.assertRegex(result.stdout, r"full +does not fit: [0-9,]+ tokens, the model reads 4096")

    def test_files_and_a_run_that_was_stopped(self):
        command = ["eval", "--questions", "q.tsv", "niah_single_1", "--haystack", "book.txt", *self.SMALL, "--mode", "oracle,longhold", "--out", "out"]
        self.write("q.tsv", "L1\tWho was there?\tAnna|Boris\n" + "L2\tAnd then?\tnobody\n" * 30)
        process = self.start(*command)
        results = self.dir / "out/results.jsonl"
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline and not (results.exists() and results.read_text().count("\n") > 6):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
        self.assertEqual((process.returncode, out), (130, ""), err)
        self.assertIn("--resume out", err.splitlines()[-1])
        before = self.rows()
        self.assertLess(len(before), 2 * 4 + 2 * 31)
        self.assertFalse(json.loads((self.dir / "out/report.json").read_text())["complete"])
        self.assert_error(self.run_cli(*command), 1, "out", "--resume")
        self.assert_error(self.run_cli("eval", "--resume", "out", "--seed", "4"), 2, "--seed")
        self.assert_error(self.run_cli("eval", "--resume", "out", "--model", os.path.join(os.path.dirname(self.model), "qwen2.gguf")), 1, "--model")
        report = self.run_json("eval", "--resume", "out")
        rows = self.rows()
        self.assertEqual(rows[:len(before)], before, "nothing is asked again")
        self.assertEqual(len(rows), 2 * 4 + 2 * 31)
        self.assertEqual(len({(r["task"], r["mode"], r["question"]) for r in rows}), len(rows))
        self.assertEqual(json.loads((self.dir / "out/report.json").read_text()), report)
        self.assertTrue(report["complete"])
        with open(self.dir / "out/results.csv", newline="") as table:
            self.assertEqual(len(list(csv.DictReader(table))), len(rows))
        self.assertFalse((self.dir / "out/home").exists())

    def test_memories_can_be_kept(self):
        self.run_json("eval", "niah_single_1", *self.SMALL, "--mode", "longhold", "--out", "out", "--keep")
        listed = self.run_json("list", "--home", self.dir / "out/home")
        self.assertEqual([m["memory"] for m in listed], ["niah_single_1-2048-0"])

    def test_rag_embed_takes_the_embedding_model_of_the_catalog(self):
        env = self.environment(LONGHOLD_CACHE=self.dir / "cache")
        command = ["eval", "niah_single_2", "--haystack", "book.txt", *self.SMALL, "--mode", "rag-embed,rag-hybrid", "--out", "out"]
        self.assert_error(self.run_cli(*command, env=env), 3, "longhold model get minilm-l6")
        shutil.rmtree(self.dir / "out", ignore_errors=True)
        name = "all-MiniLM-L6-v2.F16.gguf"  # a random model under its name
        (self.dir / "cache/models").mkdir(parents=True)
        shutil.copy(os.path.join(os.environ["LONGHOLD_TINY_GGUF_DIR"], "bert_mean.gguf"), self.dir / "cache/models" / name)
        size = (self.dir / "cache/models" / name).stat().st_size
        self.write(f"cache/models/{name}.sha256", f"# bytes {size}\n{'0' * 64}  {name}\n")
        self.run_json(*command, env=env)
        self.assertEqual([row["mode"] for row in self.rows()], ["rag-embed"] * 4 + ["rag-hybrid"] * 4)

    def test_bad_arguments_are_reported_before_the_model_is_loaded(self):
        env = self.environment(LONGHOLD_MODEL="/no/such/model.gguf")
        for arguments, code, words in ((["eval"], 2, ["--help"]), (["eval", "niah_single_9"], 2, ["niah_single_1"]), (["eval", "questions"], 2, ["--questions"]),
                                       (["eval", "vt", "--lengths", "4q"], 2, ["4q"]), (["eval", "vt", "--mode", "magic"], 2, ["rag-bm25"]),
                                       (["eval", "vt", "--keep"], 2, ["--out"]), (["eval", "vt", "--lengths", "whole"], 2, ["whole"]),
                                       (["eval", "niah_single_2", "--haystack", "none.txt"], 3, ["none.txt"]),
                                       (["eval", "--questions", "none.tsv"], 3, ["none.tsv"]), (["eval", "--resume", "none"], 3, ["none"])):
            with self.subTest(arguments):
                self.assert_error(self.run_cli(*arguments, env=env), code, *words)
        self.write("bad.tsv", "L1\tWho?\n")
        self.assert_error(self.run_cli("eval", "--questions", "bad.tsv", "--haystack", "book.txt", env=env), 1, "bad.tsv line 1")


class Bench(CliTest):
    """`bench` from the command line to its page, on a random model. Speed is not judged."""

    def setUp(self):
        super().setUp()
        self.write("book.txt", make_text(9, 60))
        (self.dir / "tmp").mkdir()

    def tearDown(self):
        self.assertEqual(list((self.dir / "tmp").iterdir()), [], "the temporary memory is gone")

    def environment(self, **more):
        model = os.path.join(os.environ["LONGHOLD_TINY_GGUF_DIR"], "llama.gguf")
        return super().environment(**{"LONGHOLD_MODEL": model, "TMPDIR": self.dir / "tmp", **more})

    def test_the_page_and_the_json_agree(self):
        small = ["bench", "--lengths", "1k,2k", "--haystack", "book.txt", "--questions", "2", "--runs", "1", "--full-max", "1k", "--max-tokens", "8"]
        page = self.run_cli(*small)
        self.assertEqual(page.returncode, 0, page.stderr)
        self.assertLessEqual(max(map(len, page.stdout.splitlines())), 80, page.stdout)
        self.assertIn("memory read:", page.stdout)
        self.assertRegex(page.stdout, r"full attention, prefill +[0-9.]+ +not run")
        report = self.run_json(*small)
        self.assertEqual([(s["length"], "skipped" in s["full"]) for s in report["lengths"]], [(1024, False), (2048, True)])
        for speed in report["lengths"]:
            self.assertGreater(speed["read"]["tok_s"], 0)
            self.assertGreater(speed["ask"]["first_token_ms"]["median"], 0)
            self.assertGreater(speed["alone"]["prefill_tok_s"]["median"], 0)

    def test_bad_arguments_are_reported(self):
        self.assert_error(self.run_cli("bench", "--lengths", "whole"), 2, "whole")
        self.assert_error(self.run_cli("bench", "--haystack", "none.txt"), 3, "none.txt")


class Calibrate(CliTest):
    """`calibrate` from the command line to the profile in use. The model is random, so the learned profile is meaningless."""

    def environment(self, **more):
        return super().environment(**{"LONGHOLD_MODEL": os.path.join(os.environ["LONGHOLD_TINY_GGUF_DIR"], "llama.gguf"), "TMPDIR": self.dir / "tmp",
                                      **more})

    def setUp(self):
        super().setUp()
        (self.dir / "tmp").mkdir()
        self.write("book.txt", ". ".join(make_text(9, 400).splitlines()) + ".")

    def test_a_profile_is_learned_kept_and_used(self):
        self.write("some.txt", "The anchor was painted green.\n")
        before = self.run_cli("ingest", "some.txt", "--into", "some")
        self.assertIn("longhold calibrate", before.stderr)
        profile = self.run_json("calibrate", "--text", "book.txt", "--minutes", "0.3")
        kept = list((self.home / "profiles").iterdir())
        self.assertEqual(len(kept), 1)
        self.assertEqual(json.loads(kept[0].read_text()), profile)
        self.assertEqual(profile["architecture"], "llama")
        self.assertRegex(profile["calibration"]["text_sha256"], "^[0-9a-f]{64}$")
        self.assertEqual([row["ranked_by"] for row in profile["calibration"]["ablation"]],
                         ["random", "recency", "words", "block mean, best head", "best head", "profile generic", "calibrated", "oracle"])
        forms = {row["form"]: row["new_form"] for row in profile["calibration"]["forms"]}
        self.assertEqual((len(forms), forms["locker"], forms["meaning-home"]), (20, False, True))
        self.assertEqual(list((self.dir / "tmp").iterdir()), [], "the temporary memory is gone")
        after = self.run_cli("ingest", "some.txt", "--into", "other")
        self.assertEqual(after.returncode, 0, after.stderr)
        self.assertNotIn("longhold calibrate", after.stderr)
        page = self.run_cli("calibrate", "--text", "book.txt", "--minutes", "0.3", "--out", "p.json")
        self.assertEqual(page.returncode, 0, page.stderr)
        self.assertLessEqual(max(map(len, page.stdout.splitlines())), 80, page.stdout)
        self.assertIn("meaning-home *", page.stdout)
        self.assertTrue((self.dir / "p.json").exists())

    def write_kind(self, name, seed, folder=""):
        """A kind of text with ten questions, of which one has no answer, one any of two places, and one needs both."""
        lines = make_text(seed, 120).splitlines()
        self.write(f"cases/{name}/texts/{folder}a.txt", "\n".join(lines[:60]) + "\n")
        self.write(f"cases/{name}/texts/b.txt", "\n".join(lines[60:]) + "\n")
        rows = [f"{folder}a.txt:{7 * i}\tWho {lines[7 * i - 1].split(' ', 1)[1]}?\t{lines[7 * i - 1].split()[0]}" for i in range(1, 8)]
        rows += [f"b.txt:3-4,{folder}a.txt:5\tWhat is said of {lines[62][:-1]}?\tx", f"b.txt:9&b.txt:40\t{lines[68]} {lines[99]}\t-",
                 "-\tWhich zebra sells umbrellas?\t-"]
        return self.write(f"cases/{name}/questions.tsv", "# evidence\tquestion\tanswers\n" + "\n".join(rows) + "\n")

    def test_weights_and_thresholds_are_learned_from_labelled_cases(self):
        self.write_kind("tales", 1)
        self.write_kind("letters", 2, folder="home/")
        embedder = ["--embedder", os.path.join(os.environ["LONGHOLD_TINY_GGUF_DIR"], "bert_mean.gguf")]
        command = ["calibrate", "--cases", "cases/tales", "--cases", "cases/letters/", *embedder]
        profile = self.run_json(*command)
        kept = list((self.home / "profiles").iterdir())
        self.assertEqual([json.loads(path.read_text()) for path in kept], [profile])
        self.assertEqual((profile["signals"]["words"], profile["heads"]), (1, []))
        record = profile["calibration"]["labelled_cases"]
        self.assertEqual([(kind["kind"], kind["answerable"], kind["unanswerable"]) for kind in record["kinds"]],
                         [("tales", 9, 11), ("letters", 9, 11)])
        for kind in record["kinds"]:
            self.assertEqual(set(kind["weights_without"]), {"words", "expansion", "dense"})
            for ranked in ("words", "present", "learned_without", "learned_on_all"):
                self.assertGreater(kind[ranked]["hit@8"], 0.5, "the questions repeat the text's words")
        self.assertEqual(list((self.dir / "tmp").iterdir()), [], "the temporary memories are gone")
        self.assertEqual([path.name for path in self.home.iterdir()], ["profiles"], "the user's own memories are not touched")
        page = self.run_cli(*command, "--out", "p.json")
        self.assertEqual(page.returncode, 0, page.stderr)
        self.assertLessEqual(max(map(len, page.stdout.splitlines())), 80, page.stdout)
        self.assertRegex(page.stdout, r"mean of kinds +words alone +[0-9]+ / +[0-9]+ / +[0-9]+ +[0-9.]+\n")
        self.assertIn("learned without it", page.stdout)
        one = self.run_cli("calibrate", "--cases", "cases/tales", "--embedder", "none", "--out", "one.json")
        self.assertEqual(one.returncode, 0, one.stderr)
        self.assertIn("dense is not learned", one.stderr)
        self.assertIn("Not judged", one.stdout)
        self.assertNotIn("learned without it", one.stdout)

    def test_mistakes_in_labelled_cases_are_reported_before_the_model_is_loaded(self):
        env = self.environment(LONGHOLD_MODEL="/no/such/model.gguf")
        questions = self.write_kind("tales", 1)
        self.write_kind("more/tales", 2)

        def fails(code, *words, arguments=("--cases", "cases/tales")):
            self.assert_error(self.run_cli("calibrate", *arguments, "-q", env=env), code, *words)
        fails(2, "--text", arguments=("--cases", "cases/tales", "--text", "book.txt"))
        fails(3, "cases/none/questions.tsv", arguments=("--cases", "cases/none"))
        fails(1, "cases/more/tales", "tales", arguments=("--cases", "cases/tales", "--cases", "cases/more/tales"))
        good = questions.read_text()
        for bad, words in ((good + "a.txt:61\tWho?\tx\n", ("line 12", "60 lines")), (good.replace("a.txt:7", "c.txt:7"), ("line 2", "c.txt", "texts/")),
                           ("-\tWho?\t-\n", ("no question with evidence",)), (b"a.txt:1\tWho\xff?\tx\n", ("questions.tsv", "UTF-8")), ("", ("questions.tsv",))):
            questions.write_bytes(bad if isinstance(bad, bytes) else bad.encode())
            with self.subTest(words=words):
                fails(1, "cases/tales/questions.tsv", *words)
        questions.write_text(good)
        shutil.rmtree(self.dir / "cases/tales/texts")
        fails(3, "cases/tales/texts")

    def test_bad_arguments_are_reported(self):
        self.assert_error(self.run_cli("calibrate", "--text", "none.txt"), 3, "none.txt")
        self.write("short.txt", "One sentence. Another one.")
        self.assert_error(self.run_cli("calibrate", "--text", "short.txt", "-q"), 1, "200", "--text")
        self.write("some.txt", "The anchor was painted green.\n")
        self.assert_error(self.run_cli("ingest", "some.txt", "--into", "some", "--profile", "none.json"), 3, "none.json")


if __name__ == "__main__":
    sys.exit(main())
