#!/usr/bin/env python3
"""`longhold serve` as its clients see it: over real sockets, with the tiny random model that ctest's fixture writes.

The model's answers are noise. The tests check that answers arrive complete and in OpenAI's format. They also check ingests during questions,
clients that disconnect, and signals. Usage: as cli_test.py. Needs only the standard library; tests that need OpenAI's package are skipped if
Python does not have it.
"""

import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import unittest
import urllib.parse
import urllib.request
from pathlib import Path

from cli_test import CliTest, main, make_text

try:
    import openai
except ImportError:
    openai = None

FIRST, SECOND = "The password of the lighthouse keeper is 4071926.\n", "The harbour is closed on Friday.\n"


class ServerTest(CliTest):
    """Starts a server for one test and sends requests to it."""

    def environment(self, **more):
        return super().environment(**{"LONGHOLD_MODEL": os.path.join(os.environ["LONGHOLD_TINY_GGUF_DIR"], "llama.gguf"), **more})

    def serve(self, *arguments):
        """Starts a server. Returns the listening process and its port."""
        process = self.start("serve", "--listen", "127.0.0.1:0", *arguments)
        url = process.stdout.readline().strip()
        self.assertRegex(url, r"^http://127\.0\.0\.1:[0-9]+$", "the address is the first line of stdout")
        return process, int(url.rsplit(":", 1)[1])

    def call(self, port, method, path, body=None, status=200, kind="application/json"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": kind} if data is not None else {})
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        self.assertEqual(reply.status, status, text[:300])
        return json.loads(text)

    def assert_models(self, served, expected):
        """The embedding model is served beside `expected` where it was downloaded."""
        self.assertIn(served, (expected, expected + ["minilm-l6"]))

    def metrics(self, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as reply:
            return reply.read().decode()

    def start_ingest(self, port, memory, name, text):
        job = self.call(port, "POST", f"/v1/memories/{memory}/documents?name={urllib.parse.quote(name)}", text.encode(), 202, "text/plain")
        return job["id"]

    def wait_for(self, port, ingest):
        while True:
            job = self.call(port, "GET", f"/v1/ingests/{ingest}")
            if job["state"] not in ("queued", "running"):
                return job
            time.sleep(0.05)

    def chat(self, memory, **more):
        return {"model": f"llama@{memory}", "messages": [{"role": "user", "content": "What is the password?"}], "max_tokens": 8, "abstain": False, **more}


class Serve(ServerTest):
    def test_the_wire_protocols_first_frame_is_the_documents(self):
        page = (Path(__file__).resolve().parents[2] / "docs/formats/wire.md").read_text(encoding="utf-8")
        example = re.search(r"(?:^    (?:[0-9a-f]{2} ){7,15}[0-9a-f]{2}.*\n)+", page, re.M).group(0)
        hello = bytes.fromhex("".join(re.match(r"    ((?:[0-9a-f]{2} ?)+)", line).group(1) for line in example.splitlines()))
        path = str(self.dir / "wire.socket")
        process, _ = self.serve("--wire", "0", "--wire-socket", path)
        port = next(int(line.rsplit(" ", 1)[1]) for line in process.stderr if "wire protocol is on port" in line)
        for family, address in ((socket.AF_UNIX, path), (socket.AF_INET, ("127.0.0.1", port))):
            with socket.socket(family, socket.SOCK_STREAM) as client:
                client.settimeout(60)
                client.connect(address)
                client.sendall(hello)
                header = client.recv(40, socket.MSG_WAITALL)
                self.assertEqual(header[:6], b"LHWF\x01\x81")
                self.assertEqual(header[8:16], hello[8:16], "the request's id")
                message = client.recv(int.from_bytes(header[24:28], "little"), socket.MSG_WAITALL)
                self.assertIn(b"longhold ", message)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(60), 0)
        self.assertFalse(os.path.exists(path), "the socket is removed")

    def test_the_wire_protocol_needs_a_private_address(self):
        self.assert_error(self.run_cli("serve", "--wire", "0.0.0.0:0"), 1, "--wire 0.0.0.0", "--insecure")
        self.assert_error(self.run_cli("serve", "--wire", "0.0.0.0:0", "--insecure"), 1, "longhold key add")
        self.assert_error(self.run_cli("serve", "--wire", "x"), 1, "x")

    def test_every_server_listens_before_the_model_is_loaded(self):
        # The weights end too early, which loading would find.
        model = Path(self.environment()["LONGHOLD_MODEL"]).read_bytes()
        self.write("broken.gguf", model[: len(model) // 2])
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            place = f"127.0.0.1:{taken.getsockname()[1]}"
            for option in ("--listen", "--resp", "--wire"):
                others = [] if option == "--listen" else ["--listen", "127.0.0.1:0"]
                result = self.run_cli("serve", option, place, *others, "--model", self.dir / "broken.gguf")
                self.assert_error(result, 1, f"{option} {place}", "cannot listen")
        self.assert_error(self.run_cli("serve", "--listen", "127.0.0.1:0", "--model", self.dir / "broken.gguf"), 1, "broken.gguf")

    def test_the_commands_and_the_server_share_memories(self):
        self.write("a.txt", FIRST + make_text(1, 40))
        self.assertEqual(self.run_cli("ingest", "a.txt", "--into", "notes").returncode, 0)
        process, port = self.serve("--memory", "notes")
        self.assertEqual(self.call(port, "GET", "/healthz"), {"status": "ok"})
        self.assert_models([m["id"] for m in self.call(port, "GET", "/v1/models")["data"]], ["llama", "llama@notes"])
        reply = self.call(port, "POST", "/v1/chat/completions", self.chat("notes"))
        self.assertEqual(reply["usage"]["completion_tokens"], 8)
        self.assertTrue(reply["longhold"]["citations"])
        # The default memory, and the same answer for the same question.
        again = self.call(port, "POST", "/v1/chat/completions", {**self.chat("notes"), "model": "llama"})
        self.assertEqual(again["choices"][0]["message"]["content"], reply["choices"][0]["message"]["content"])
        asked = self.run_json("ask", "notes", "What is the password?", "--max-tokens", "8", "--no-abstain")
        self.assertEqual(asked["answer"], reply["choices"][0]["message"]["content"])
        # Another process writes, and the server sees it.
        self.write("b.txt", SECOND)
        self.assertEqual(self.run_cli("ingest", "b.txt", "--into", "notes").returncode, 0)
        spans = self.call(port, "POST", "/v1/memories/notes/recall", {"query": "When is the harbour closed?", "abstain": False})["spans"]
        self.assertIn("b.txt", [span["document"] for span in spans])
        # The server writes, and another process sees it; then that process writes again.
        self.assertEqual(self.wait_for(port, self.start_ingest(port, "notes", "c/ü.txt", "The anchor is green.\n"))["state"], "done")
        self.assertIn("c/ü.txt", [d["name"] for d in self.run_json("show", "notes")["documents"]])
        self.assertEqual(self.run_cli("forget", "notes", "b.txt").returncode, 0)
        self.call(port, "DELETE", "/v1/memories/notes/documents/c%2F%C3%BC.txt")
        self.assertEqual([d["name"] for d in self.run_json("show", "notes")["documents"]], ["a.txt"])
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=60), 0)

    def test_a_stream_is_the_same_answer_in_pieces(self):
        process, port = self.serve()
        self.wait_for(port, self.start_ingest(port, "notes", "a", FIRST))
        whole = self.call(port, "POST", "/v1/chat/completions", self.chat("notes"))["choices"][0]["message"]["content"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("POST", "/v1/chat/completions", json.dumps(self.chat("notes", stream=True)))
        reply = connection.getresponse()
        self.assertEqual((reply.status, reply.headers["Content-Type"]), (200, "text/event-stream"))
        self.addCleanup(connection.close)
        events = [line[6:] for line in reply.read().decode().split("\n\n") if line.startswith("data: ")]
        self.assertEqual(events[-1], "[DONE]")
        pieces = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1]]
        self.assertEqual("".join(pieces), whole)
        self.assertGreater(len(pieces), 4)

    def test_questions_are_answered_during_an_ingest(self):
        process, port = self.serve()
        self.wait_for(port, self.start_ingest(port, "notes", "a", FIRST))
        text = make_text(3, 6000)
        job = self.start_ingest(port, "long", "b", text)
        asked = 0
        while self.call(port, "GET", f"/v1/ingests/{job}")["state"] in ("queued", "running"):
            self.call(port, "POST", "/v1/memories/notes/ask", {"question": "What is the password?", "max_tokens": 2, "abstain": False})
            asked += 1
        self.assertEqual(self.wait_for(port, job)["state"], "done")
        self.assertGreater(asked, 2)
        self.assertEqual(self.run_cli("verify", "long").returncode, 0)
        self.write("b", text)
        self.assertIn("already in the memory", self.run_cli("ingest", "b", "--into", "long").stderr)

    def test_a_killed_server_loses_nothing_that_was_committed(self):
        process, port = self.serve()
        text = make_text(4, 6000)
        job = self.start_ingest(port, "long", "b", text)
        while self.call(port, "GET", f"/v1/ingests/{job}")["tokens_done"] < 10000:
            time.sleep(0.02)
        process.kill()
        process.wait()
        self.assertEqual(self.run_cli("verify", "long").returncode, 0)
        self.assertGreaterEqual(self.run_json("show", "long")["tokens"], 4096)
        process, port = self.serve()
        self.assertEqual(self.wait_for(port, self.start_ingest(port, "long", "b", text))["state"], "done")

    def test_accepted_texts_are_ingested_after_a_kill_or_restart(self):
        texts = {"long": make_text(5, 3000), "b": FIRST, "c": SECOND}
        for how in (signal.SIGKILL, signal.SIGTERM):
            with self.subTest(how.name):
                memory = how.name.lower()
                process, port = self.serve()
                jobs = [self.start_ingest(port, memory, name, text) for name, text in texts.items()]
                process.send_signal(how)
                process.wait(timeout=60)
                process, port = self.serve()
                self.assertEqual([self.wait_for(port, job)["state"] for job in jobs], ["done"] * 3)
                documents = self.run_json("show", memory)["documents"]
                self.assertEqual(sorted(d["name"] for d in documents), sorted(texts))
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=60)
                self.assertEqual(self.run_cli("verify", memory).returncode, 0)
                for name, text in texts.items():
                    self.write(name, text)
                    self.assertEqual(self.run_cli("ingest", name, "--into", memory).returncode, 0)
                self.assertEqual(self.run_json("show", memory)["documents"], documents, "the texts are the same")

    def test_a_signal_ends_every_stream_with_done(self):
        process, port = self.serve()
        self.wait_for(port, self.start_ingest(port, "notes", "a", FIRST))
        text = make_text(5, 6000)
        self.start_ingest(port, "long", "b", text)
        replies = []

        def stream():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            connection.request("POST", "/v1/chat/completions", json.dumps(self.chat("notes", stream=True, max_tokens=200)))
            replies.append(connection.getresponse().read().decode())
            connection.close()
        threads = [threading.Thread(target=stream) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        self.assertEqual(process.wait(timeout=60), 0)
        for reply in replies:
            self.assertTrue(reply.endswith("data: [DONE]\n\n"), reply[-200:])
        self.assertEqual(len(replies), 3)
        self.assertEqual(self.run_cli("verify", "long").returncode, 0, "what was read is committed")

    def test_disconnected_clients_do_not_delay_the_others(self):
        process, port = self.serve()
        self.wait_for(port, self.start_ingest(port, "notes", "a", FIRST))
        body = json.dumps(self.chat("notes", stream=True, max_tokens=5000)).encode()
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port)) as gone:
                gone.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        start = time.monotonic()
        self.call(port, "POST", "/v1/memories/notes/ask", {"question": "What is the password?", "max_tokens": 2, "abstain": False})
        self.assertLess(time.monotonic() - start, 60, "not after all five answers of 5000 tokens")

    def test_idle_connections_leave_descriptors_for_texts(self):
        """Opens more connections than the process may have open files. Each of eight clients gets at most half of those that are served."""
        process = self.start("serve", "--listen", "127.0.0.1:0", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 400)))
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        for i in range(420):
            connection = socket.create_connection(("127.0.0.1", port), source_address=(f"127.0.0.{2 + i % 8}", 0))
            self.addCleanup(connection.close)
        self.assertEqual(self.wait_for(port, self.start_ingest(port, "notes", "a", FIRST))["state"], "done")
        self.assertEqual(self.call(port, "GET", "/v1/memories/notes")["documents"][0]["name"], "a")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=60), 0)
        self.assertIn("serves 100 connections", process.stderr.read())

    def test_refused_requests_are_audited(self):
        process, port = self.serve("--audit-log", "audit.log", "--log", "json")
        for method, path, headers, status in (("POST", "/v1/memories/notes/documents?name=a", {"Origin": "http://evil.example"}, 403), ("GET", "/v1/memories", {"Host": "evil.example"}, 421),
                                              ("POST", "/v1/memories/notes/recall", {"Content-Length": str(2 << 20)}, 413), ("PUT", "/v1/memories", {"Transfer-Encoding": "gzip"}, 400)):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.putrequest(method, path, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            self.assertEqual(connection.getresponse().status, status)
            connection.close()
        self.assertEqual(self.call(port, "GET", "/v1/memories")["memories"], [])
        self.assertIn('longhold_requests_total{route="/v1/memories",status="421"} 1', self.metrics(port))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=60), 0)
        audit = [json.loads(line) for line in (self.dir / "audit.log").read_text().splitlines()]
        self.assertEqual([(line["method"], line["memory"], line["status"]) for line in audit if line["event"] == "request"][:4],
                         [("POST", "notes", 403), ("GET", None, 421), ("POST", "notes", 413), ("PUT", None, 400)])
        log = [json.loads(line) for line in process.stderr.read().splitlines() if '"route"' in line]
        self.assertEqual([line["status"] for line in log[:4]], [403, 421, 413, 400])

    def test_answers_are_generated_concurrently(self):
        self.write("a.txt", FIRST + make_text(3, 400))
        self.assertEqual(self.run_cli("ingest", "a.txt", "--into", "notes").returncode, 0)
        alone = self.run_json("ask", "notes", "What is the password?", "--max-tokens", "4", "--no-abstain")["answer"]
        process, port = self.serve()
        ended, answers, lock = [], {}, threading.Lock()

        def ask(name, tokens):
            reply = self.call(port, "POST", "/v1/memories/notes/ask", {"question": "What is the password?", "max_tokens": tokens, "abstain": False})
            with lock:
                ended.append(name)
                answers[name] = reply["answer"]

        # On a fast machine the long answer can end before the short ones have started; then the test tries again. If the server answered one question
        # after the other, the long answer would never end last.
        for _ in range(30):
            ended.clear()
            long = threading.Thread(target=ask, args=("long", 2000))
            long.start()
            while long.is_alive() and '"questions"} 1' not in self.metrics(port):
                time.sleep(0.001)
            short = [threading.Thread(target=ask, args=(f"short {i}", 4)) for i in range(5)]
            for thread in short:
                thread.start()
            for thread in short + [long]:
                thread.join()
            if ended[-1] == "long":
                break
        self.assertEqual(ended[-1], "long", "the others did not wait for its end")
        self.assertEqual({answers[f"short {i}"] for i in range(5)}, {alone})
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=60), 0)

    def test_a_memory_can_be_imported_by_an_upload_in_parts(self):
        self.write("a.txt", FIRST + make_text(4, 60))
        self.assertEqual(self.run_cli("ingest", "a.txt", "--into", "notes").returncode, 0)
        process, port = self.serve("--ingest-root", str(self.dir))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.addCleanup(connection.close)

        def send(method, path, body=None, **headers):
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            reply = connection.getresponse()
            return reply, reply.read()

        reply, exported = send("GET", "/v1/memories/notes/export")
        self.assertEqual((reply.status, reply.headers["Content-Type"]), (200, "application/octet-stream"))
        self.assertEqual(self.run_cli("export", "notes", "notes.lhx").returncode, 0)
        self.assertEqual(exported, (self.dir / "notes.lhx").read_bytes())
        reply, _ = send("POST", "/v1/uploads", Upload_Length=str(len(exported)), Tus_Resumable="1.0.0")
        self.assertEqual(reply.status, 201)
        upload, half = reply.headers["Location"], len(exported) // 2
        part = {"Content_Type": "application/offset+octet-stream", "Tus_Resumable": "1.0.0"}
        self.assertEqual(send("PATCH", upload, exported[:half], Upload_Offset="0", **part)[0].status, 204)
        # The server is killed, and the client asks how much has arrived.
        process.kill()
        process.wait()
        process, port = self.serve("--ingest-root", str(self.dir))
        connection.close()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        reply, body = send("HEAD", upload)
        self.assertEqual((reply.status, reply.headers["Upload-Offset"], body), (200, str(half), b""))
        self.assertEqual(send("PATCH", upload, exported[half:], Upload_Offset=str(half), **part)[0].status, 204)
        made = self.call(port, "POST", "/v1/memories/copy/import", {"upload": upload.rsplit("/", 1)[1]}, 201)
        self.assertEqual([d["name"] for d in made["documents"]], ["a.txt"])
        self.assertTrue(self.call(port, "POST", "/v1/memories/copy/verify")["ok"])
        self.assertEqual(self.run_cli("verify", "copy").returncode, 0)
        self.write("by-path.txt", SECOND)
        job = self.call(port, "POST", "/v1/memories/notes/documents", {"path": "by-path.txt"}, 202)
        self.assertEqual(self.wait_for(port, job["id"])["state"], "done")
        self.call(port, "POST", "/v1/memories/notes/documents", {"path": "/etc/passwd"}, 400)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=60), 0)

    def test_configuration_errors_are_reported_at_start(self):
        self.assert_error(self.run_cli("serve", "--listen", "0.0.0.0:0"), 1, "0.0.0.0", "127.0.0.1")
        self.assert_error(self.run_cli("serve", "--listen", "8420"), 2, "8420")
        self.assert_error(self.run_cli("serve", "--memory", "none"), 3, "none")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            self.assert_error(self.run_cli("serve", "--listen", f"127.0.0.1:{port}"), 1, str(port))

    def test_the_first_key_makes_authentication_required(self):
        process, port = self.serve()
        self.call(port, "GET", "/v1/memories")
        key = self.run_cli("key", "add", "anna", "--scope", "read").stdout.strip()
        self.assertRegex(key, "^lh-[0-9a-f]{64}$")
        self.call(port, "GET", "/v1/memories", status=401)
        self.call(port, "GET", "/healthz")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.addCleanup(connection.close)
        for method, path, status in (("GET", "/v1/memories", 200), ("DELETE", "/v1/memories/none", 403)):
            connection.request(method, path, headers={"Authorization": f"Bearer {key}"})
            reply = connection.getresponse()
            reply.read()
            self.assertEqual(reply.status, status)
        self.assertEqual([k["name"] for k in self.run_json("key", "list")], ["anna"])
        self.assertNotIn(key[3:], (self.home / "keys.json").read_text())
        # A tenant's key, its limits, and the location of its memories.
        theirs = self.run_cli("key", "add", "tanja", "--scope", "write", "--tenant", "acme").stdout.strip()
        self.assertEqual(self.run_json("key", "list")[1]["tenant"], "acme")
        self.assertEqual(self.run_cli("key", "limit", "acme").stdout, "requests per minute: no limit\ntokens per day: no limit\ndocuments: no limit\ndisk: no limit\n")
        limits = self.run_json("key", "limit", "acme", "--requests-per-minute", "1000", "--disk", "1GiB")
        self.assertEqual(limits, {"tenant": "acme", "requests_per_minute": 1000, "tokens_per_day": 0, "documents": 0, "disk_bytes": 1 << 30})
        self.assert_error(self.run_cli("key", "limit", "../acme", "--documents", "1"), 1, "tenant")
        self.assert_error(self.run_cli("key", "limit", "acme", "--documents", "-1"), 2, "--documents")

        def as_tanja(method, path, body=None):
            connection.request(method, path, body, headers={"Authorization": f"Bearer {theirs}", "Content-Type": "text/plain"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

        status, job = as_tanja("POST", "/v1/memories/notes/documents?name=n", "The password is 4071926.\n" * 20)
        self.assertEqual(status, 202)
        while as_tanja("GET", "/v1/ingests/" + job["id"])[1]["state"] in ("queued", "running"):
            time.sleep(0.1)
        self.assertEqual([m["memory"] for m in as_tanja("GET", "/v1/memories")[1]["memories"]], ["notes"])
        self.assertIn("acme/notes", [m["memory"] for m in self.run_json("list")])
        self.assertEqual(self.run_json("show", "acme/notes")["documents"][0]["name"], "n")
        self.assertEqual(as_tanja("GET", "/v1/memories/acme%2Fnotes")[0], 400)
        for name in ("anna", "tanja"):
            self.assertEqual(self.run_cli("key", "remove", name).returncode, 0)
        self.call(port, "GET", "/v1/memories", status=401)
        self.assert_error(self.run_cli("key", "remove", "anna"), 3, "anna")
        self.assert_error(self.run_cli("serve", "--listen", "0.0.0.0:0", "--insecure"), 1, "key add")

    @unittest.skipIf(shutil.which("openssl") is None, "there is no openssl to make a certificate with")
    def test_non_loopback_addresses_need_tls_and_keys(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "server.key", "-out", "server.pem"],
                       cwd=self.dir, check=True, capture_output=True)
        everywhere = ("serve", "--listen", "0.0.0.0:0", "--tls-certificate", "server.pem", "--tls-key")
        self.assert_error(self.run_cli("serve", "--listen", "0.0.0.0:0"), 1, "--tls-certificate")
        self.assert_error(self.run_cli(*everywhere[:-1]), 1, "--tls-key")
        self.assert_error(self.run_cli(*everywhere, "server.key"), 1, "key add")
        key = self.run_cli("key", "add", "anna", "--scope", "write").stdout.strip()
        self.assert_error(self.run_cli(*everywhere, "server.pem"), 1, "--tls-key server.pem")
        process = self.start(*everywhere, "server.key", "--log", "json")
        url = process.stdout.readline().strip()
        self.assertRegex(url, r"^https://0\.0\.0\.0:[0-9]+$")
        port = int(url.rsplit(":", 1)[1])
        trust = ssl.create_default_context(cafile=os.path.join(self.dir, "server.pem"))
        connection = http.client.HTTPSConnection("localhost", port, timeout=60, context=trust)
        self.addCleanup(connection.close)
        for _ in range(2):  # both on one connection
            connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}"})
            reply = connection.getresponse()
            self.assertEqual((reply.status, json.loads(reply.read())["data"][0]["id"]), (200, "llama"))
        connection.request("GET", "/v1/models")
        reply = connection.getresponse()
        self.assertEqual(reply.status, 401)
        reply.read()
        if openai is not None:
            client = openai.OpenAI(base_url=f"https://localhost:{port}/v1", api_key=key, max_retries=0, http_client=openai.DefaultHttpxClient(verify=trust))
            self.assert_models([m.id for m in client.models.list()], ["llama"])
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=60), 0)
        log = [json.loads(line) for line in process.stderr.read().splitlines() if line.startswith("{")]
        requests = [line for line in log if "route" in line]
        self.assertEqual([(line["key"], line["status"]) for line in requests[:3]], [("anna", 200), ("anna", 200), (None, 401)])
        self.assertNotIn(key, json.dumps(log))

    @unittest.skipIf(openai is None, "Python has no package openai")
    def test_openais_own_client_works(self):
        process, port = self.serve()
        self.wait_for(port, self.start_ingest(port, "notes", "a", FIRST))
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        self.assert_models([m.id for m in client.models.list()], ["llama", "llama@notes"])
        question = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the password?"}]
        reply = client.chat.completions.create(model="llama@notes", messages=question, max_tokens=8, extra_body={"abstain": False})
        self.assertEqual(reply.usage.completion_tokens, 8)
        self.assertEqual(reply.choices[0].finish_reason, "length")
        self.assertEqual(reply.choices[0].message.annotations[0].url_citation.title, "a")
        likely = client.chat.completions.create(model="llama@notes", messages=question, max_tokens=8, logprobs=True, top_logprobs=3, extra_body={"abstain": False})
        self.assertEqual([len(token.top_logprobs) for token in likely.choices[0].logprobs.content], [3] * 8)
        self.assertLessEqual(likely.choices[0].logprobs.content[0].logprob, 0)
        stream = client.chat.completions.create(model="llama@notes", messages=question, max_tokens=8, stream=True,
                                                stream_options={"include_usage": True}, extra_body={"abstain": False})
        chunks = list(stream)
        self.assertEqual("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), reply.choices[0].message.content)
        self.assertEqual(chunks[-1].usage.completion_tokens, 8)
        text = client.completions.create(model="llama@notes", prompt="What is the password?", max_tokens=4, extra_body={"abstain": False})
        self.assertEqual(text.usage.completion_tokens, 4)
        with self.assertRaises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-4o", messages=question)
        with self.assertRaises(openai.BadRequestError) as refused:
            client.chat.completions.create(model="llama@notes", messages=question, n=3)
        self.assertIn("n: must be", str(refused.exception))


class Chat(CliTest):
    """`chat` over a pipe: one message per line. The model is random, so its answers are not judged."""

    def environment(self, **more):
        return super().environment(**{"LONGHOLD_MODEL": os.path.join(os.environ["LONGHOLD_TINY_GGUF_DIR"], "llama.gguf"), **more})

    def test_messages_become_documents_of_the_memory(self):
        result = self.run_cli("chat", "diary", "--max-tokens", "6", input="My cat is called Mog.\n\n  \nThe harbour is closed.\r\nbye")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertGreaterEqual(len(result.stdout.splitlines()), 3)
        documents = self.run_json("show", "diary")["documents"]
        self.assertEqual([d["name"].rsplit("/", 1)[1] for d in documents], ["0", "1", "2", "3"])
        spans = self.run_json("recall", "diary", "cat called Mog", "--no-abstain")["spans"]
        self.assertTrue(spans[0]["text"].startswith("User: My cat is called Mog.\nAssistant: "), spans[0]["text"])
        # Another conversation over the same memory; one JSON object per turn.
        replies = self.run_cli("chat", "diary", "--max-tokens", "6", "--json", input="cat called Mog\nThe boat is red.\n")
        turns = [json.loads(line) for line in replies.stdout.splitlines()]
        self.assertEqual(len(turns), 2)
        self.assertIn("answer", turns[0])
        self.assertEqual(len(self.run_json("show", "diary")["documents"]), 6)

    def test_a_bad_message_does_not_end_the_conversation(self):
        result = self.run_cli("chat", "diary", "--max-tokens", "2", "--json", input="a\x00b\ngood\n")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("longhold: message", result.stderr)
        self.assertEqual(len(result.stdout.splitlines()), 1)
        self.assert_error(self.run_cli("chat", "../x"), 2, "--help")


if __name__ == "__main__":
    sys.exit(main())
