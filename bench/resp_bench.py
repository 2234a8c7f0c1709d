#!/usr/bin/env python3
"""redis-benchmark against `longhold serve --resp`, beside a real redis-server with an append-only file.

Both servers run at the same time and are measured in turn, in alternating order, with the same command, many short
times: on a machine with other work a ratio of neighbours says more than two long runs. redis-server has
`appendonly yes`, `appendfsync everysec` and no snapshots; everything else is its default, or with --no-rewrite it never rewrites its
file. Prints the requests per second of each round, the medians, the median of the ratios, and the
processor time that the server took for a request.

Usage: bench/resp_bench.py [--binary build/release/longhold] [--rounds 11] [--directory DIR]
Needs the Debian packages redis-server and redis-tools, and a model in the cache (the server needs one; it does no work here).
"""

import argparse
import csv
import io
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

# Bytes of a value, different keys, SETs of one run. GETs are quicker, so there are twice as many. All values fit longhold's RAM tier:
# redis-server has all of them in RAM, too.
SIZES = [(65536, 1000, 8000), (1048576, 100, 300)]
CLIENTS = 16
PIPELINES = [1, 4]


def benchmark(port, test, size, keys, requests, pipeline):
    """Requests per second."""
    command = ["redis-benchmark", "-p", str(port), "-t", test, "-d", str(size), "-r", str(keys), "-n", str(requests),
               "-c", str(CLIENTS), "-P", str(pipeline), "--csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = list(csv.reader(io.StringIO(done.stdout)))
    return float(rows[-1][1])


def processor_seconds(pid):
    """User and system time of the process so far."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(port):
    for _ in range(600):
        if subprocess.run(["redis-cli", "-p", str(port), "ping"], capture_output=True, text=True, check=False).stdout.strip() == "PONG":
            return
        time.sleep(0.1)
    sys.exit(f"no answer on port {port}")


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    load = os.getloadavg()[0]
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, load {load:.1f} at the start"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", default="build/release/longhold")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--directory", help="where both keep their files; default: a new one in TMPDIR")
    parser.add_argument("--no-rewrite", action="store_true", help="redis-server never rewrites its append-only file")
    parser.add_argument("--ports", default="7451,7452")
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="resp_bench.", dir=options.directory)
    redis_port, longhold_port = (int(port) for port in options.ports.split(","))
    os.makedirs(f"{directory}/redis")
    rewrite = ["--auto-aof-rewrite-percentage", "0"] if options.no_rewrite else []
    redis = subprocess.Popen(["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync",
                              "everysec", "--save", "", "--dir", f"{directory}/redis", *rewrite], stdout=subprocess.DEVNULL)
    longhold = subprocess.Popen([options.binary, "--home", f"{directory}/longhold", "serve", "--model", options.model, "--listen",
                                 "127.0.0.1:0", "--resp", str(longhold_port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    servers = {"redis": redis_port, "longhold": longhold_port}
    processes = {"redis": redis, "longhold": longhold}
    results = {}
    try:
        for _ in range(2):
            longhold.stdout.readline()  # HTTP and RESP are served, and the model is loaded
        for port in servers.values():
            wait_for(port)
        print(machine(), flush=True)
        for size, keys, requests in SIZES:
            for pipeline in PIPELINES:
                for test in ("set", "get"):
                    count = requests * (2 if test == "get" else 1)
                    got = results[(size, pipeline, test)] = {name: [] for name in servers}
                    for round_index in range(options.rounds):
                        for name in sorted(servers, reverse=round_index % 2 == 1):
                            if test == "set":
                                os.sync()  # what one has written must not slow down the other
                            before = processor_seconds(processes[name].pid)
                            rate = benchmark(servers[name], test, size, keys, count, pipeline)
                            used = processor_seconds(processes[name].pid) - before
                            got[name].append((rate, used / count * 1e6))
                    print(f"{size:8} -P {pipeline} {test}: " + ", ".join(
                        f"{name} " + " ".join(f"{rate:.0f}" for rate, _ in got[name]) for name in servers), flush=True)
    finally:
        redis.terminate()
        longhold.send_signal(signal.SIGTERM)
        redis.wait(timeout=60)
        longhold.wait(timeout=60)
        shutil.rmtree(directory, ignore_errors=True)
    print("\n| value | pipeline | command | redis-server, 1/s | longhold, 1/s | ratio (range) | processor time of one, redis-server | longhold |")
    print("|---|---|---|---|---|---|---|---|")
    for (size, pipeline, test), got in results.items():
        rates = {name: [rate for rate, _ in got[name]] for name in servers}
        shown = {name: f"{statistics.median(rates[name]):.0f}" for name in servers}
        cost = {name: f"{statistics.median(used for _, used in got[name]):.0f} us" for name in servers}
        ratios = sorted(b / a for a, b in zip(rates["redis"], rates["longhold"]))
        print(f"| {size // 1024} KiB | {pipeline} | {test.upper()} | {shown['redis']} | {shown['longhold']} | "
              f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) | {cost['redis']} | {cost['longhold']} |")
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
