#!/usr/bin/env python3
"""kernel_counts_test.py KERNEL_COUNTS [--write]: compares the instruction count of each kernel with kernel_counts.json.

callgrind counts the instructions, so other work on the machine does not disturb the result. A count is half the difference
between a run of three calls and a run of one. valgrind does not support AVX-512, so the scalar and the avx2 kernels are counted;
the avx512 kernels have the same source as avx2. More than 2 % above the stored count fails. More than 2 % below fails too, so
that a gain is recorded: --write stores the measured counts.
"""
import json
import pathlib
import re
import subprocess
import sys
import unittest

COUNTS = pathlib.Path(__file__).with_name("kernel_counts.json")
LEVELS = ["scalar", "avx2"]
TOLERANCE = 0.02


def instructions(binary, level, case, times):
    run = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary, level, case, str(times)],
                         capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode != 0 or not found:
        raise RuntimeError(f"valgrind of {level} {case}: exit {run.returncode}\n{run.stderr[-2000:]}")
    return int(found.group(1))


def measure(binary):
    cases = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return {level: {case: (instructions(binary, level, case, 3) - instructions(binary, level, case, 1)) // 2 for case in cases}
            for level in LEVELS}


class KernelCounts(unittest.TestCase):
    def test_instruction_counts_match_the_stored_ones(self):
        expected = json.loads(COUNTS.read_text())
        measured = measure(BINARY)
        self.assertEqual({level: sorted(cases) for level, cases in expected.items()},
                         {level: sorted(cases) for level, cases in measured.items()})
        for level, cases in measured.items():
            for case, count in cases.items():
                with self.subTest(level=level, case=case):
                    was = expected[level][case]
                    self.assertLessEqual(abs(count - was), TOLERANCE * was,
                                         f"{count} instructions, {count / was - 1:+.1%} of the {was} written in {COUNTS.name}; "
                                         f"if that is meant: {pathlib.Path(__file__).name} KERNEL_COUNTS --write")


if __name__ == "__main__":
    BINARY = sys.argv[1]
    if sys.argv[2:] == ["--write"]:
        COUNTS.write_text(json.dumps(measure(BINARY), indent=2) + "\n")
    else:
        unittest.main(argv=sys.argv[:1])
