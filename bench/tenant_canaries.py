#!/usr/bin/env python3
"""Tests the isolation of tenants in `longhold serve`: plants a unique word per tenant and looks for it in the replies to others.

  bench/tenant_canaries.py [--model smollm2] [--binary build/release/longhold] [--tenants 16] [--requests 2000] [--asked 0.02]

The script makes a temporary home. All tenants use the same memory name. Each ingests a document whose name and text contain a word that
no other tenant has. Then all tenants send --requests requests each, concurrently. Most list or read memories, models, ingests and
documents, their own and, by guessed names, those of others. A share --asked of them are asks, recalls and streams; half of these ask for
another tenant's word. A reply that contains another tenant's word is a leak, counted as "crossed".

Last, it measures fairness: one tenant sends as fast as it can while another asks one question after the other. The script compares the
latency of the latter with its latency alone.
"""
import argparse
import collections
import concurrent.futures
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time

from serve_load import Server


def word(tenant):
    return f"Quibble{(tenant + 1) * 7919 % 100003:06d}"


class Client:
    def __init__(self, port, key):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        self.key = key

    def send(self, method, path, body=None, kind="application/json"):
        data = body if isinstance(body, str) or body is None else json.dumps(body)
        self.connection.request(method, path, data, {"Authorization": "Bearer " + self.key, "Content-Type": kind})
        reply = self.connection.getresponse()
        return reply.status, reply.read().decode()


def plant(client, tenant):
    text = f"The bird of this house is called {word(tenant)}. It sings in the morning.\n" + "The river runs past the mill, and the mill stands still.\n" * 20
    status, body = client.send("POST", f"/v1/memories/notes/documents?name={word(tenant)}.txt", text, "text/plain")
    assert status == 202, body
    while True:
        _, job = client.send("GET", "/v1/ingests/" + json.loads(body)["id"])
        if json.loads(job)["state"] not in ("queued", "running"):
            assert json.loads(job)["state"] == "done", job
            return json.loads(body)["id"]
        time.sleep(0.2)


def mixed(client, tenant, options, ids, rng):
    """A random request: method, path and body."""
    other = rng.randrange(options.tenants)
    if rng.random() < options.asked:
        question = f"What is the bird {word(other)} called?" if rng.random() < 0.5 else "What is the bird of this house called?"
        return rng.choice([("POST", "/v1/memories/notes/recall", {"query": question, "abstain": False}),
                           ("POST", "/v1/memories/notes/ask", {"question": question, "abstain": False, "max_tokens": 12}),
                           ("POST", "/v1/chat/completions", {"model": options.model + "@notes", "stream": True, "max_tokens": 12, "abstain": False,
                                                             "messages": [{"role": "user", "content": question}]})])
    return rng.choice([("GET", "/v1/memories", None), ("GET", "/v1/memories/notes", None), ("GET", "/v1/models", None), ("GET", "/v1/ingests", None),
                       ("GET", "/v1/ingests/" + ids[other], None), ("DELETE", "/v1/ingests/" + ids[other], None), ("GET", f"/v1/memories/t{other}%2Fnotes", None),
                       ("GET", f"/v1/memories/..%2Ft{other}%2Fmemories%2Fnotes", None), ("GET", "/metrics", None),
                       ("DELETE", f"/v1/memories/notes/documents/{word(other) if other != tenant else 'none'}.txt", None)])


def ask_times(client, count):
    times = []
    for _ in range(count):
        start = time.monotonic()
        status, _ = client.send("POST", "/v1/memories/notes/recall", {"query": "What is the bird of this house called?"})
        if status == 200:
            times.append(time.monotonic() - start)
    return sorted(times)[len(times) // 2] if times else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--binary", default=os.path.join(root, "build/release/longhold"))
    parser.add_argument("--tenants", type=int, default=16)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--asked", type=float, default=0.02)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["LONGHOLD_HOME"] = home
        keys = [subprocess.run([options.binary, "key", "add", f"k{t}", "--tenant", f"t{t}", "--scope", "admin", "--quiet"], capture_output=True, text=True,
                               check=True).stdout.strip() for t in range(options.tenants)]
        server = Server(options)
        try:
            clients = [Client(server.port, key) for key in keys]
            ids = [plant(client, t) for t, client in enumerate(clients)]
            statuses, crossed, own, lock = collections.Counter(), [], [0], threading.Lock()

            def run(tenant):
                rng, client = random.Random(tenant), clients[tenant]
                for _ in range(options.requests):
                    method, path, body = mixed(client, tenant, options, ids, rng)
                    status, reply = client.send(method, path, body)
                    sent = path + ("" if path.endswith("/recall") else json.dumps(body))  # an error or the model may repeat the request's text
                    with lock:
                        statuses[status] += 1
                        own[0] += word(tenant) in reply and word(tenant) not in sent
                        crossed.extend((tenant, other, path) for other in range(options.tenants)
                                       if other != tenant and word(other) in reply and word(other) not in sent)

            start = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(options.tenants) as pool:
                list(pool.map(run, range(options.tenants)))
            seconds = time.monotonic() - start
            out = {"tenants": options.tenants, "requests": sum(statuses.values()), "seconds": round(seconds, 1), "statuses": dict(statuses),
                   "replies_with_their_own_word": own[0], "crossed": len(crossed), "examples": crossed[:3]}
            # Fairness: one tenant sends as fast as it can, another asks one question after the other.
            alone = ask_times(clients[1], 10)
            stop = threading.Event()

            def loud():
                client = Client(server.port, keys[0])
                while not stop.is_set():
                    client.send("POST", "/v1/memories/notes/recall", {"query": "What is the bird of this house called?"})

            threads = [threading.Thread(target=loud) for _ in range(16)]
            for thread in threads:
                thread.start()
            time.sleep(2)
            beside = ask_times(clients[1], 10)
            stop.set()
            for thread in threads:
                thread.join()
            out["recall_ms"] = {"alone": round(1000 * alone), "beside_a_loud_tenant": round(1000 * beside), "ratio": round(beside / alone, 2)}
        finally:
            server.stop()
    print(json.dumps(out))
    return 1 if crossed else 0


if __name__ == "__main__":
    sys.exit(main())
