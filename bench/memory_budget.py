#!/usr/bin/env python3
"""Checks the peak resident memory of `longhold ask` against the allowed maximum: memory budget + weights + 64 MiB.

  bench/memory_budget.py bible --model smollm2 --question "Who was the mother of Solomon?" 384MiB 512MiB 1GiB

The script prints one line per budget and question. It exits with 1 if a peak is above the maximum. A refused ask is no failure: its
message says how much memory is missing. $LONGHOLD_BINARY names the program (default: build/release/longhold).
"""
import argparse
import json
import os
import subprocess
import sys

UNITS = {"MiB": 1 << 20, "GiB": 1 << 30}
PROGRAM_BYTES = 64 << 20


def main():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    binary = os.environ.get("LONGHOLD_BINARY", os.path.join(root, "build/release/longhold"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("memory")
    parser.add_argument("budgets", nargs="+", help="memory budgets such as 512MiB")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--question", action="append", required=True)
    arguments = parser.parse_args()
    weights = subprocess.run([binary, "model", "get", arguments.model, "--quiet"], check=True, capture_output=True, text=True).stdout.strip()
    weights_bytes = os.path.getsize(weights)
    over = False
    for budget in arguments.budgets:
        allowed = int(budget[:-3]) * UNITS[budget[-3:]] + weights_bytes + PROGRAM_BYTES
        for question in arguments.question:
            command = [binary, "ask", arguments.memory, question, "--model", arguments.model, "--memory-budget", budget, "--json"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            out, err = process.stdout.read(), process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            peak = usage.ru_maxrss * 1024
            over |= peak > allowed
            told = f"{json.loads(out)['plan']['spans']} spans" if os.waitstatus_to_exitcode(status) == 0 else err.strip().splitlines()[-1]
            note = ", with a note" if "memory budget" in err and out else ""
            print(f"{budget:>8}: peak {peak >> 20} MiB of {allowed >> 20} allowed, {told}{note}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
