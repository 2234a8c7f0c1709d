#!/usr/bin/env python3
"""Load test of `longhold serve`: throughput and latency, overload, idle connections, and shutdown under load.

  bench/serve_load.py MEMORY [--model smollm2] [--binary build/release/longhold] [--seconds 20] [--drains 20]

The server runs on a free port with the memories in LONGHOLD_HOME. Clients run on the same machine and share its processors. If wrk is
installed, it drives `GET /healthz`. The script prints a table, then one JSON object. The parts are:

  load      1, 8 and 32 clients; each sends one request after the other. Requests: /healthz, recall, ask (16 tokens), long (answers of
            128 tokens, generated concurrently) and session (turns of conversations, stored in one memory). Questions are used in turn.
  overload  ask with ten times as many clients as in the row of ask with the highest throughput: throughput, the other statuses, and the
            time until a question is answered again after the overload
  idle      RAM per connection of 500 connections that have sent one /healthz request each
  drains    SIGTERM with eight open streams and texts just accepted: the number of streams that were cut off, and of accepted texts that
            are not ingested after a restart
"""
import argparse
import collections
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

QUESTIONS = ["Who built the ark?", "What did Jacob give Esau for his birthright?", "How old was Abraham when Isaac was born?",
             "What did the brothers do with Joseph's coat?", "Where did the ark come to rest?", "Who was the father of Isaac?"]


class Server:
    def __init__(self, options):
        self.model = options.model
        self.process = subprocess.Popen([options.binary, "serve", "--listen", "127.0.0.1:0", "--model", options.model, "--quiet"],
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def rss(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1)) * 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)


def request(connection, path, body):
    """The status and body of the reply. Status 0 if the connection fails."""
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0, b""


def drive(port, path, make_body, clients, seconds):
    """Runs `clients` clients for `seconds`. Returns the times of replies with status 200, the count of each status, and the duration."""
    end = time.monotonic() + seconds
    times, statuses, lock = [], collections.Counter(), threading.Lock()

    def client(number):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        turn = number
        while time.monotonic() < end:
            start = time.monotonic()
            status, _ = request(connection, path, make_body(turn))
            took = time.monotonic() - start
            turn += 1
            with lock:
                statuses[status] += 1
                if status == 200:
                    times.append(took)
            if status in (429, 503):
                time.sleep(1)  # the value of Retry-After
        connection.close()

    start = time.monotonic()
    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, statuses, time.monotonic() - start


def row(times, statuses, seconds):
    times = sorted(times)
    at = lambda share: round(1000 * times[min(len(times) - 1, int(share * len(times)))], 1) if times else None
    return {"per_s": round(len(times) / seconds, 2), "p50_ms": at(0.5), "p99_ms": at(0.99), "n": len(times),
            "other": {str(status): n for status, n in statuses.items() if status != 200}}


def wrk_healthz(port, clients, seconds):
    result = subprocess.run(["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}/healthz"],
                            capture_output=True, text=True, check=True).stdout
    unit = {"us": 0.001, "ms": 1, "s": 1000}
    latency = lambda share: (lambda m: round(float(m.group(1)) * unit[m.group(2)], 3))(re.search(share + r"%\s+([\d.]+)(us|ms|s)", result))
    return {"per_s": float(re.search(r"Requests/sec:\s+([\d.]+)", result).group(1)), "p50_ms": latency("50"), "p99_ms": latency("99"),
            "n": int(re.search(r"(\d+) requests in", result).group(1)), "other": {}}


def measure_load(server, memory, seconds):
    recall = lambda turn: {"query": QUESTIONS[turn % len(QUESTIONS)]}
    ask = lambda turn: {"question": QUESTIONS[turn % len(QUESTIONS)], "max_tokens": 16, "abstain": False}
    long = lambda turn: {**ask(turn), "max_tokens": 128, "answer_prefix": "Here is all that is told about it:"}
    # A turn of a conversation: it recalls earlier turns, and it is stored.
    session = lambda turn: {"model": server.model, "memory": "load-sessions", "session": f"client-{turn % 32}", "max_tokens": 16,
                            "messages": [{"role": "user", "content": f"My number {turn} is {turn * 7919 % 10007}. " + QUESTIONS[turn % len(QUESTIONS)]}]}
    out = {}
    for name, path, body in (("healthz", "/healthz", lambda turn: None), ("recall", f"/v1/memories/{memory}/recall", recall),
                             ("ask", f"/v1/memories/{memory}/ask", ask), ("long", f"/v1/memories/{memory}/ask", long),
                             ("session", "/v1/chat/completions", session)):
        for clients in (1, 8, 32):
            if name == "healthz" and shutil.which("wrk"):
                out[f"{name} {clients}"] = wrk_healthz(server.port, clients, 5)
            else:
                out[f"{name} {clients}"] = row(*drive(server.port, path, body, clients, 5 if name == "healthz" else seconds))
            print(f"{name:8} {clients:3} clients  {out[f'{name} {clients}']}", flush=True)
    best = max((1, 8, 32), key=lambda clients: out[f"ask {clients}"]["per_s"])
    over = row(*drive(server.port, f"/v1/memories/{memory}/ask", ask, 10 * best, 2 * seconds))
    start = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    while request(connection, f"/v1/memories/{memory}/ask", ask(0))[0] != 200:
        time.sleep(0.1)
    over["share_of_peak"] = round(over["per_s"] / out[f"ask {best}"]["per_s"], 2)
    over["clients"] = 10 * best
    over["recovery_s"] = round(time.monotonic() - start, 2)
    out["overload"] = over
    print(f"overload: {over}", flush=True)
    return out


def measure_idle(server, _):
    before = server.rss()
    connections = []
    for _ in range(500):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        if request(connection, "/healthz", None)[0] == 200:
            connections.append(connection)
    idle = {"connections": len(connections), "bytes_each": round((server.rss() - before) / max(1, len(connections)))}
    for connection in connections:
        connection.close()
    print(f"idle: {idle}", flush=True)
    return idle


def drain_once(options, number):
    """Stops a server under load. Returns the number of begun and of cut-off streams, the accepted texts, and the exit code."""
    server = Server(options)
    cut, begun, accepted, lock = [], [], [], threading.Lock()

    def stream(turn):
        body = {"model": f"{options.model}@{options.memory}", "stream": True, "max_tokens": 64, "abstain": False,
                "messages": [{"role": "user", "content": QUESTIONS[turn % len(QUESTIONS)]}]}
        status, text = request(http.client.HTTPConnection("127.0.0.1", server.port, timeout=300), "/v1/chat/completions", body)
        with lock:
            if status == 200:
                begun.append(turn)
                if not text.rstrip().endswith(b"data: [DONE]"):
                    cut.append(turn)

    def send(turn):
        name = f"drain-{number}-{turn}"
        status, _ = request(http.client.HTTPConnection("127.0.0.1", server.port, timeout=300), "/v1/memories/load-drains/documents",
                            {"name": name, "text": f"Note {number}.{turn}: the number of the day is {number * 100 + turn}.\n" * 3})
        with lock:
            if status == 202:
                accepted.append(name)

    threads = [threading.Thread(target=stream, args=(turn,)) for turn in range(8)] + [threading.Thread(target=send, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5 + 0.25 * (number % 8))
    code = server.stop()
    for thread in threads:
        thread.join()
    return len(begun), len(cut), accepted, code


def measure_drains(options):
    begun = cut = 0
    accepted, codes = [], []
    for number in range(options.drains):
        b, c, names, code = drain_once(options, number)
        begun, cut, accepted, codes = begun + b, cut + c, accepted + names, codes + [code]
    server = Server(options)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
    while any(job["state"] in ("queued", "running") for job in json.loads(request(connection, "/v1/ingests", None)[1])["ingests"]):
        time.sleep(0.2)
    status, body = request(connection, "/v1/memories/load-drains", None)
    documents = {d["name"] for d in json.loads(body)["documents"]} if status == 200 else set()
    connection.close()
    server.stop()
    subprocess.run([options.binary, "forget", "load-drains", "--quiet"], check=False, capture_output=True)
    drains = {"stops": options.drains, "streams": begun, "streams_cut": cut, "texts_accepted": len(accepted),
              "texts_lost": len(set(accepted) - documents), "exit_codes": dict(collections.Counter(codes))}
    print(f"drains: {drains}", flush=True)
    return drains


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("memory")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--binary", default=os.path.join(root, "build/release/longhold"))
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--drains", type=int, default=20)
    options = parser.parse_args()
    out = {}
    for name, measure in (("idle", measure_idle), ("load", lambda server, memory: measure_load(server, memory, options.seconds))):
        server = Server(options)  # a new server per part: freed memory of earlier questions would be reused by the idle connections
        try:
            out[name] = measure(server, options.memory)
        finally:
            server.stop()
    subprocess.run([options.binary, "forget", "load-sessions", "--quiet"], check=False, capture_output=True)
    out["drains"] = measure_drains(options)
    print(json.dumps(out))


if __name__ == "__main__":
    sys.exit(main())
