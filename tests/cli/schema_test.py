#!/usr/bin/env python3
"""Compares docs/openapi.json with the server that it describes. schemathesis sends requests that the schema allows and requests that it forbids,
with the keys of a reader and of an administrator. No reply may be a server error, or have a status or type outside the schema. Usage: as
cli_test.py, with the tiny random model. Skipped if Python does not have schemathesis.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import unittest
from pathlib import Path

from cli_test import main, make_text
from serve_test import ServerTest

SCHEMA = Path(__file__).parents[2] / "docs" / "openapi.json"
# Not checked: that the server accepts everything that the schema allows (a request may name any memory, and few exist), and rules that only the
# schema's author can know.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@unittest.skipIf(importlib.util.find_spec("schemathesis") is None, "Python has no package schemathesis")
class Schema(ServerTest):
    def test_every_request_of_the_schema_gets_a_documented_reply(self):
        self.write("a.txt", make_text(1, 40))
        # A question whose deadline has passed before it starts is not the server's fault.
        self.write("schemathesis.toml", '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "3xx", "4xx", 504]\n')
        self.assertEqual(self.run_cli("ingest", "a.txt", "--into", "notes").returncode, 0)
        for scope in ("read", "admin"):
            key = self.run_cli("key", "add", scope, "--scope", scope).stdout.strip()
            process, port = self.serve("--memory", "notes")
            result = subprocess.run([sys.executable, "-m", "schemathesis.cli", "run", str(SCHEMA), "--url", f"http://127.0.0.1:{port}", "-n", "8",
                                     "--phases", "examples,coverage,fuzzing", "--checks", CHECKS, "--seed", "1", "--no-color", "-H", f"Authorization: Bearer {key}"],
                                    cwd=self.dir, capture_output=True, text=True, timeout=600, check=False, env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(self.dir)})
            self.assertEqual(result.returncode, 0, result.stdout[-6000:] + result.stderr[-2000:])
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(timeout=60), 0)


if __name__ == "__main__":
    sys.exit(main())
