#!/usr/bin/env python3
"""`longhold serve --resp` as redis-py sees it: binary keys and values, pipelines, the longest value, misses, keys and tenants, eviction,
restarts and kill -9. The values are compared with those that were set.

The server needs a model: the tiny random one that ctest's fixture writes. Usage: as cli_test.py. Skipped if Python does not have redis.
"""

import os
import re
import shutil
import signal
import subprocess
import sys

from cli_test import main
from serve_test import ServerTest

try:
    import redis
except ImportError:
    redis = None


def value_of(number, size):
    return (b"%d:" % number + bytes((number * 7 + i) % 256 for i in range(251)) * (size // 251 + 1))[:size]


class Resp(ServerTest):
    def setUp(self):
        if redis is None:
            self.skipTest("no Python package redis")
        super().setUp()

    def serve_resp(self, *arguments):
        """Starts a server. Returns the process, its HTTP port and its RESP port."""
        process, http_port = self.serve("--resp", "0", *arguments)
        line = process.stdout.readline().strip()
        self.assertRegex(line, r"^redis://127\.0\.0\.1:[0-9]+$", "the second line of stdout")
        return process, http_port, int(line.rsplit(":", 1)[1])

    def client(self, port, **options):
        client = redis.Redis(port=port, socket_timeout=120, **options)
        self.addCleanup(client.close)
        return client

    def stop(self, process, how=signal.SIGTERM):
        process.send_signal(how)
        code = process.wait(timeout=60)
        self.assertEqual(code, 0 if how == signal.SIGTERM else -how)

    def test_values_of_every_kind_survive_a_restart_and_a_kill(self):
        process, _, port = self.serve_resp()
        for protocol in (2, 3):
            client = self.client(port, protocol=protocol)
            self.assertTrue(client.ping())
            self.assertIsNone(client.get("none"))
        self.assertIsNone(client.execute_command("SET", "k", "v", "XX"))
        key = bytes(range(256))
        self.assertTrue(client.set(key, key * 3))
        self.assertTrue(client.set("empty", b""))
        longest = os.urandom(1 << 20) * 64
        self.assertTrue(client.set("longest", longest))
        self.assertEqual(client.strlen("longest"), 64 << 20)
        self.assertTrue(client.get("longest") == longest)
        with self.assertRaisesRegex((redis.ResponseError, redis.ConnectionError), "invalid bulk length|Broken pipe|reset|closed"):
            client.set("longer", longest + b"x")
        self.assertEqual(client.mget("empty", "none", key), [b"", None, key * 3])
        self.assertEqual(client.exists("empty", "none", key), 2)
        self.assertEqual(client.dbsize(), 3)
        self.assertEqual(client.delete("empty", "none"), 1)
        self.assertEqual(client.echo("x"), b"x")
        self.assertEqual(client.config_get("appendonly"), {"appendonly": "yes"})
        with self.assertRaisesRegex(redis.ResponseError, "unknown command 'HSET'"):
            client.hset("h", "f", "v")
        self.stop(process)
        process, _, port = self.serve_resp()
        client = self.client(port)
        self.assertEqual(client.get(key), key * 3)
        self.assertTrue(client.get("longest") == longest)
        self.assertIsNone(client.get("empty"))
        # What is acknowledged survives a kill.
        for number in range(200):
            client.set(f"k{number}", value_of(number, 1000 + 997 * number))
        self.stop(process, signal.SIGKILL)
        process, _, port = self.serve_resp()
        client = self.client(port)
        for number in range(200):
            self.assertTrue(client.get(f"k{number}") == value_of(number, 1000 + 997 * number), number)
        self.stop(process)

    def test_a_pipeline_of_a_thousand_commands_is_answered_in_order(self):
        _, _, port = self.serve_resp()
        pipeline = self.client(port).pipeline(transaction=False)
        expected = []
        for number in range(500):
            pipeline.set(f"k{number % 50}", value_of(number, 10 + 37 * number))
            pipeline.get(f"k{number % 50}")
            expected += [True, value_of(number, 10 + 37 * number)]
        self.assertTrue(pipeline.execute() == expected)

    def test_keys_separate_tenants(self):
        def add(*arguments):
            done = self.run_cli("key", "add", *arguments)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout.strip().splitlines()[-1]
        keys = {name: add(name, "--scope", "write", "--tenant", name) for name in ("a", "b")}
        keys["operator"] = add("operator", "--scope", "admin")
        process, _, port = self.serve_resp()
        with self.assertRaises(redis.AuthenticationError):
            self.client(port).get("k")
        with self.assertRaises(redis.AuthenticationError):
            self.client(port, password="wrong").get("k")
        for name, key in keys.items():
            client = self.client(port, password=key) if name == "a" else self.client(port, username=name, password=key)
            self.assertIsNone(client.get("k"), name)
            client.set("k", "value of " + name)
        self.stop(process)
        _, _, port = self.serve_resp()
        for name, key in keys.items():
            client = self.client(port, password=key)
            self.assertEqual(client.get("k"), b"value of " + name.encode())
            self.assertEqual(client.dbsize(), 1)
        found = sorted(str(path.relative_to(self.home)) for path in self.home.glob("**/*.values"))
        self.assertEqual([re.sub(r"/[0-9]+\.values", "", path) for path in found], ["tenants/a/values", "tenants/b/values", "values"])

    def test_the_least_recently_used_values_make_room(self):
        process, http_port, port = self.serve_resp("--resp-disk", "64MiB", "--resp-memory", "8MiB")
        client = self.client(port)
        for number in range(200):
            client.set(f"k{number}", value_of(number, 1 << 20))
            self.assertTrue(client.get("k0") == value_of(0, 1 << 20), "it is used all the time")
        there = [number for number in range(200) if client.exists(f"k{number}")]
        self.assertEqual(there, [0] + list(range(200 - len(there) + 1, 200)))
        self.assertGreater(len(there), 40)
        info = client.info()
        self.assertEqual(info["evicted_keys"], 200 - len(there))
        self.assertLessEqual(info["longhold_disk_bytes"], 64 << 20)
        on_disk = sum(path.stat().st_size for path in (self.home / "values").glob("*.values"))
        self.assertLessEqual(on_disk, 64 << 20)
        with self.assertRaisesRegex(redis.ResponseError, "raise --resp-disk"):
            client.set("large", b"x" * (5 << 20))
        metrics = self.metrics(http_port)
        self.assertIn(f'longhold_values_total{{event="evicted"}} {200 - len(there)}\n', metrics)
        self.assertIn(f"longhold_value_keys {len(there)}\n", metrics)
        self.stop(process)
        _, _, port = self.serve_resp("--resp-disk", "64MiB", "--resp-memory", "8MiB")
        client = self.client(port)
        for number in there:
            self.assertTrue(client.get(f"k{number}") == value_of(number, 1 << 20), number)

    def test_with_an_encryption_key_the_files_hold_no_plain_value(self):
        key = self.write("key", "ab" * 32 + "\n")
        key.chmod(0o600)
        process, _, port = self.serve_resp("--encryption-key", key)
        self.client(port).set("name-canary", b"value-canary" * 100)
        self.stop(process)
        for path in (self.home / "values").iterdir():
            content = path.read_bytes()
            self.assertNotIn(b"canary", content)
        self.assert_error(self.run_cli("serve", "--listen", "127.0.0.1:0", "--resp", "0"), 1, "--encryption-key")
        _, _, port = self.serve_resp("--encryption-key", key)
        self.assertEqual(self.client(port).get("name-canary"), b"value-canary" * 100)

    def test_options_are_checked(self):
        for arguments, word in ((["--resp", "x"], "x"), (["--resp", "0.0.0.0:0"], "--insecure"), (["--resp", "0", "--resp-disk", "1MiB"], "16 MiB"),
                                (["--resp", "0", "--resp-memory", "1TiB"], "--resp-memory")):
            done = self.run_cli("serve", "--listen", "127.0.0.1:0", *arguments)
            self.assertNotEqual(done.returncode, 0, arguments)
            self.assertIn(word, done.stderr)

    def test_a_socket_file(self):
        path = self.dir / "s"
        process, _ = self.serve("--resp", path)
        self.assertEqual(process.stdout.readline().strip(), f"unix://{path}")
        client = redis.Redis(unix_socket_path=str(path))
        self.addCleanup(client.close)
        self.assertTrue(client.set("k", "v"))
        self.assertEqual(client.get("k"), b"v")
        self.stop(process)
        self.assertFalse(path.exists())

    def test_redis_benchmark_and_redis_cli(self):
        if shutil.which("redis-benchmark") is None:
            self.skipTest("no redis-benchmark")
        _, _, port = self.serve_resp()
        done = subprocess.run(["redis-benchmark", "-p", str(port), "-n", "500", "-c", "8", "-P", "4", "-d", "70000", "-r", "100", "-t",
                               "ping,set,get", "-q"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("WARN", done.stderr)
        told = subprocess.run(["redis-cli", "-p", str(port), "dbsize"], stdout=subprocess.PIPE, text=True, timeout=60, check=False).stdout
        self.assertEqual(told.strip().isdigit(), True, told)


if __name__ == "__main__":
    sys.exit(main())
