#!/usr/bin/env python3
"""Passes the output of `longhold completion` and `longhold man`, and the systemd unit, to the programs that read them. Usage: as cli_test.py.

bash is always present; the other programs are used if they are installed.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from cli_test import TIMEOUT, CliTest, main


class Manual(CliTest):
    def test_shells_complete_what_is_typed(self):
        bash = self.run_cli("completion", "bash").stdout
        self.write("complete.sh", bash + '''
longhold() { [[ $* == list ]] && echo "notes  1 document"; }
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _longhold; printf '%s\\n' "${COMPREPLY[@]}"
''')
        def completed(*words):
            result = subprocess.run(["bash", "complete.sh", "longhold", *words], cwd=self.dir, capture_output=True, text=True, timeout=TIMEOUT, check=True,
                                    env=self.environment())
            self.assertEqual(result.stderr, "")
            return result.stdout.split()
        self.assertEqual(completed("mo"), ["model"])
        self.assertEqual(completed("--home", "ask", "model", ""), ["get", "add", "remove", "list"], "the value of an option is no command")
        self.assertEqual(completed("ask", ""), ["notes"])
        self.assertEqual(completed("ask", "notes", ""), [])
        self.assertEqual(completed("ask", "notes", "--max"), ["--max-tokens"])
        self.assertEqual(completed("key", "add", "anna", "--scope", "r"), ["read"])
        self.assertEqual(completed("ingest", "--into", "n"), ["notes"])
        self.assertEqual(completed("ingest", "comp"), ["complete.sh"])
        for shell in ("zsh", "fish"):
            if shutil.which(shell):
                self.write("script", self.run_cli("completion", shell).stdout)
                subprocess.run([shell, "-n", "script"], cwd=self.dir, check=True, timeout=TIMEOUT)

    def test_the_manual_page_is_sound(self):
        page = self.run_cli("man").stdout
        self.assertIn(".TH LONGHOLD 1", page)
        if shutil.which("groff"):
            result = subprocess.run(["groff", "-ww", "-t", "-man", "-Tutf8"], input=page, capture_output=True, text=True, timeout=TIMEOUT, check=False)
            self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_the_service_unit_is_hardened(self):
        unit = Path(__file__).parents[2] / "packaging" / "longhold.service"
        result = subprocess.run(["systemd-analyze", "security", "--offline=true", str(unit)], capture_output=True, text=True, timeout=TIMEOUT,
                                check=False) if shutil.which("systemd-analyze") else None
        if result is None or "Overall exposure" not in result.stdout:
            self.skipTest("no systemd-analyze that looks at files")
        self.assertLessEqual(float(re.search(r"exposure level .*: ([0-9.]+)", result.stdout).group(1)), 2.0)


if __name__ == "__main__":
    sys.exit(main())
