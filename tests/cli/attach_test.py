#!/usr/bin/env python3
"""`longhold attach-server` with llama.cpp's own server, unmodified, and SmolLM2: a text of some 4,600 tokens, and questions through the proxy.

The server comes from the Python package xllamacpp. Skipped without it, or without SmolLM2's weights. That answers rest on the recalled keys
and values, and not on the tokens that stand beside them, is shown by a relay between the proxy and the server: it changes every digit among
the recalled tokens, in the slot file and in the prompt. The keys and values stay, and the answer is theirs. Usage: as cli_test.py.
"""

import http.server
import json
import signal
import struct
import subprocess
import sys
import threading
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from cli_test import CACHE, NEEDLE, CliTest, long_text, main

try:
    import openai
except ImportError:
    openai = None
try:
    import xllamacpp
except ImportError:
    xllamacpp = None

WEIGHTS = Path(CACHE) / "models/SmolLM2-135M-Instruct.Q8_0.gguf"
SERVER = Path(__file__).resolve().parents[1] / "support/stock_llama.py"
QUESTION, CODE = "What is the password of the lighthouse keeper?", "4071926"


def post(url, body):
    """(status, object) of a POST of JSON."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


class Relay(http.server.ThreadingHTTPServer):
    """Passes requests on to the server. `change_tokens` maps recalled tokens to others; `lose_restores` empties the slot instead."""

    def __init__(self, target, slot_dir):
        super().__init__(("127.0.0.1", 0), RelayRequest)
        self.target, self.slot_dir = target, slot_dir
        self.change_tokens, self.lose_restores, self.prefix = {}, False, 0
        self.prompts = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def restore(self, name):
        """Changes the tokens of a slot file in place."""
        path = self.slot_dir / name
        data = bytearray(path.read_bytes())
        count, first = struct.unpack_from("<Ii", data, 8)
        at = 24 if first == -1 else 12
        self.prefix = struct.unpack_from("<I", data, 20)[0] if first == -1 else count
        tokens = struct.unpack_from(f"<{self.prefix}i", data, at)
        struct.pack_into(f"<{self.prefix}i", data, at, *self.changed(tokens))
        path.write_bytes(data)

    def changed(self, tokens):
        return [self.change_tokens.get(token, token) for token in tokens]


class RelayRequest(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.pass_on(None)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        relay, content = self.server, json.loads(body)
        if "action=restore" in self.path:
            relay.restore(content["filename"])
            if relay.lose_restores:
                post(relay.target + self.path.replace("restore", "erase"), {})  # what an earlier restore left there
                return self.reply(200, "application/json", json.dumps({"n_restored": relay.prefix}).encode())
        if self.path == "/completion" and content["n_predict"] > 0:
            prompt = content["prompt"]
            content["prompt"] = relay.changed(prompt[:relay.prefix]) + prompt[relay.prefix:]
            relay.prompts.append(content["prompt"])
            body = json.dumps(content).encode()
        return self.pass_on(body)

    def pass_on(self, body):
        request = urllib.request.Request(self.server.target + self.path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as reply:
                self.reply(reply.status, reply.headers["Content-Type"], reply.read())
        except urllib.error.HTTPError as error:
            self.reply(error.code, "application/json", error.read())

    def reply(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@unittest.skipIf(xllamacpp is None, "Python has no package xllamacpp")
@unittest.skipUnless(WEIGHTS.exists(), "no weights of smollm2; longhold model get smollm2")
class Attach(CliTest):
    def environment(self, **more):
        return super().environment(**{"LONGHOLD_MODEL": "smollm2", **more})

    def setUp(self):
        super().setUp()
        self.slots = self.dir / "slots"
        self.slots.mkdir()

    def read_text(self):
        self.run_json("ingest", self.write("text.txt", long_text()), "--into", "tale")

    def server(self, *options):
        """Starts a stock server; returns its URL. With one thread: those of two such programs would wait for each other."""
        process = subprocess.Popen([sys.executable, SERVER, WEIGHTS, self.slots, "--threads", "1", *options], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

        def end():
            process.kill()
            process.communicate()
        self.addCleanup(end)
        return process.stdout.readline().strip()

    def attach(self, url):
        """Starts the proxy; returns the process and its URL."""
        process = self.start("attach-server", url, "--slot-dir", self.slots, "--listen", "127.0.0.1:0", "--memory", "tale")
        own = process.stdout.readline().strip()
        self.assertRegex(own, r"^http://127\.0\.0\.1:[0-9]+$", process.stderr.read() if not own else "")
        return process, own

    def ask(self, url, **members):
        return post(url + "/v1/chat/completions", {"model": "smollm2", "messages": [{"role": "user", "content": QUESTION}],
                                                   "max_tokens": 24, "reencode": 0, "spans": 4, **members})

    def test_a_stock_server_answers_from_the_memory(self):
        self.read_text()
        process, url = self.attach(self.server())
        status, reply = self.ask(url)
        self.assertEqual(status, 200, reply)
        self.assertIn(CODE, reply["choices"][0]["message"]["content"])
        used = reply["longhold"]["server"]
        self.assertEqual(used["reused_tokens"], used["prefix_tokens"])
        self.assertGreater(used["prefix_tokens"], 32)
        self.assertIn(NEEDLE.strip(), reply["longhold"]["citations"][0]["text"])
        self.assertIn(CODE, self.ask(url, reencode=192)[1]["choices"][0]["message"]["content"])
        self.assertEqual(list(self.slots.iterdir()), [])

        with urllib.request.urlopen(url + "/v1/models", timeout=60) as models:
            self.assertEqual([m["id"] for m in json.loads(models.read())["data"]], ["smollm2", "smollm2@tale"])
        self.assertEqual(post(url + "/tokenize", {"content": "4"})[0], 200, "the server's own routes pass through")
        if openai is not None:
            client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
            stream = client.chat.completions.create(model="smollm2@tale", messages=[{"role": "user", "content": QUESTION}], max_tokens=24,
                                                    stream=True)
            self.assertIn(CODE, "".join(c.choices[0].delta.content or "" for c in stream if c.choices))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), 0)
        self.assertEqual(list(self.slots.iterdir()), [])

    def test_the_answer_is_that_of_the_keys_and_not_of_the_tokens(self):
        self.read_text()
        relay = Relay(self.server(), self.slots)
        self.addCleanup(relay.server_close)
        self.addCleanup(relay.shutdown)
        _, url = self.attach(relay.url())
        digits = [post(relay.target + "/tokenize", {"content": str(d), "add_special": False})[1]["tokens"][-1] for d in range(10)]
        relay.change_tokens = {digits[d]: digits[(d + 3) % 10] for d in range(10)}
        status, reply = self.ask(url)
        self.assertEqual(status, 200, reply)
        text = post(relay.target + "/detokenize", {"tokens": relay.prompts[-1]})[1]["content"]
        other = "".join(str((int(d) + 3) % 10) for d in CODE)
        self.assertIn(other, text, "the server was told other tokens")
        self.assertNotIn(CODE, text)
        self.assertIn(CODE, reply["choices"][0]["message"]["content"])

        # Without a restore the server reads the recalled tokens itself. That is an error, not an answer.
        relay.lose_restores = True
        status, reply = self.ask(url, messages=[{"role": "user", "content": "Who is the lighthouse keeper, and what is the password?"}])
        self.assertEqual(status // 100, 4, reply)
        self.assertIn("would not rest on the memory", reply["error"]["message"])

    def test_other_caches_of_the_server(self):
        self.read_text()
        _, url = self.attach(self.server("--no-flash-attention", "--cache-type", "f32", "--slots", "2", "--kv-unified", "no"))
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(self.ask(url)[1])) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for reply in answers:
            self.assertIn(CODE, reply["choices"][0]["message"]["content"])
        self.assertEqual({reply["longhold"]["server"]["slot"] for reply in answers}, {0, 1})

    def test_slots_that_share_a_cache_answer_at_once(self):
        """The default of newer servers: four slots, one cache, and a new request clears the slots that are idle."""
        self.read_text()
        _, url = self.attach(self.server("--ctx", "8192", "--slots", "4", "--kv-unified", "yes"))
        answers = []
        threads = [threading.Thread(target=lambda: [answers.append(self.ask(url)) for _ in range(2)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([status for status, _ in answers], [200] * 8, answers)
        for _, reply in answers:
            self.assertIn(CODE, reply["choices"][0]["message"]["content"])
            self.assertFalse(reply["longhold"]["server"]["restored_again"], "an answer lost its slot to another one")

    def test_what_cannot_work_is_refused_by_name(self):
        for options, words in ((["--cache-type", "q8_0"], ["--cache-type-k f16"]), (["--no-slot-save-path"], ["--slot-save-path DIR"])):
            with self.subTest(options):
                result = self.run_cli("attach-server", self.server(*options), "--slot-dir", self.slots, "--listen", "127.0.0.1:0")
                self.assert_error(result, 1, *words)
        result = self.run_cli("attach-server", "http://127.0.0.1:9", "--slot-dir", self.slots, "--listen", "127.0.0.1:0")
        self.assert_error(result, 1, "http://127.0.0.1:9", "llama-server -m")
        self.assertEqual(list(self.slots.iterdir()), [])


if __name__ == "__main__":
    sys.exit(main())
