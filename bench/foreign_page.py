#!/usr/bin/env python3
"""Tests in a real browser whether a web page of another origin can use `longhold serve` without a key.

  bench/foreign_page.py [--model smollm2] [--binary build/release/longhold] [--chromium chromium]

The script makes a temporary home with one document and starts the server. It also serves a page from another loopback port, which
headless Chromium opens. The page tries all requests that a page may send without a CORS preflight:
  - posting documents, creating memories, starting uploads, recall and chat turns, by fetch with mode no-cors, forms and beacons
  - loading addresses as images, scripts, frames and event streams, and opening a WebSocket
It also tries requests that need a preflight (DELETE, JSON). The page is opened under 127.0.0.1, which is the server's host (another
origin of the same site). Then it is opened under localhost and under a name of the attacker that resolves to this address (other
sites), and in a frame without an origin. Last, the attacker's name resolves to the server itself, as in DNS rebinding.

The script prints which requests arrived and the status of the replies, and the memories, ingests and uploads before and after. It
exits with 1 if a request was not refused or anything has changed.
"""
import argparse
import collections
import http.client
import http.server
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

ATTACKER = "attacker.example"
FORM = '<form method="post" enctype="text/plain" target="sink" action="{server}{path}"><input name=\'{name}\' value=\'{value}\'></form>'

PAGE = """<!doctype html><title>attack</title><iframe name="sink"></iframe>%(forms)s
<script>
const server = "%(server)s", label = "%(label)s", told = [];
const chat = JSON.stringify({model: "%(model)s@diary", session: "evil-" + label, max_tokens: 4, messages: [{role: "user", content: "Remember that the door is open."}]});
const attempts = {
  document: ["/v1/memories/diary/documents?name=evil-" + label, "The canary sings at noon."],
  overwrite: ["/v1/memories/diary/documents?name=a.txt", "The canary sings at noon."],
  memory: ["/v1/memories", JSON.stringify({name: "evil-" + label})],
  upload: ["/v1/uploads", JSON.stringify({length: 1000000})],
  recall: ["/v1/memories/diary/recall", JSON.stringify({query: "door"})],
  ask: ["/v1/memories/diary/ask", JSON.stringify({question: "Which door?", max_tokens: 4})],
  chat: ["/v1/chat/completions", chat],
  verify: ["/v1/memories/diary/verify", ""],
  embeddings: ["/v1/embeddings", JSON.stringify({model: "x", input: "y"})],
};
async function tell(what, work) {
  try { const reply = await work(); told.push(what + ": " + (reply && reply.type ? reply.type + " " + reply.status : "sent")); }
  catch (error) { told.push(what + ": " + error.name); }
}
const loaded = (element, source) => new Promise((done) => { element.onload = element.onerror = done; element.src = source; document.body.append(element); setTimeout(done, 3000); });
async function attack() {
  for (const [what, [path, body]] of Object.entries(attempts)) {
    await tell("no-cors " + what, () => fetch(server + path, {method: "POST", mode: "no-cors", headers: {"Content-Type": "text/plain"}, body}));
    await tell("beacon " + what, () => navigator.sendBeacon(server + path, new Blob([body], {type: "text/plain"})));
  }
  await tell("cors json", () => fetch(server + "/v1/memories", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({name: "evil-json"})}));
  await tell("cors delete", () => fetch(server + "/v1/memories/diary", {method: "DELETE"}));
  await tell("cors get", () => fetch(server + "/v1/memories"));
  await tell("no-cors get", () => fetch(server + "/v1/memories/diary/export", {mode: "no-cors"}));
  for (const form of document.forms) { form.submit(); await new Promise((done) => setTimeout(done, 300)); }
  await tell("image", () => loaded(document.createElement("img"), server + "/v1/memories/diary/export?image"));
  await tell("script", () => loaded(document.createElement("script"), server + "/v1/memories/diary?script"));
  await tell("frame", () => loaded(document.createElement("iframe"), server + "/v1/memories/diary/tiers?frame"));
  await tell("events", () => new Promise((done) => { const events = new EventSource(server + "/v1/ingests"); events.onerror = () => { events.close(); done(); }; setTimeout(done, 3000); }));
  await tell("websocket", () => new Promise((done) => { const socket = new WebSocket(server.replace("http", "ws") + "/v1/memories"); socket.onclose = done; setTimeout(done, 3000); }));
  await fetch("%(page)s/told", {method: "POST", mode: "no-cors", body: JSON.stringify({label, told})});
}
window.onload = attack;
</script>"""


class Longhold:
    """The server under attack, with a temporary home, and its request log."""

    def __init__(self, options, home):
        environment = {**os.environ, "LONGHOLD_HOME": home}
        self.process = subprocess.Popen([options.binary, "serve", "--listen", "127.0.0.1:0", "--model", options.model, "--log", "json"],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])
        self.log, self.lock = [], threading.Lock()
        threading.Thread(target=self.read_log, daemon=True).start()

    def read_log(self):
        for line in self.process.stderr:
            if line.startswith("{") and "status" in line:
                with self.lock:
                    self.log.append(json.loads(line))

    def take_log(self):
        with self.lock:
            taken, self.log = self.log, []
        return taken

    def call(self, method, path, body=None, kind="application/json"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request(method, path, body, {"Content-Type": kind})
        return json.loads(connection.getresponse().read())

    def ingest(self, name, text):
        job = self.call("POST", f"/v1/memories/diary/documents?name={name}", text, "text/plain")
        while (job := self.call("GET", "/v1/ingests/" + job["id"]))["state"] in ("queued", "running"):
            time.sleep(0.1)
        assert job["state"] == "done", job

    def state(self):
        """All state that a write would change. Waits for accepted texts to be ingested."""
        while any(job["state"] in ("queued", "running") for job in self.call("GET", "/v1/ingests")["ingests"]):
            time.sleep(0.1)
        memories = {m["memory"]: m["tokens"] for m in self.call("GET", "/v1/memories")["memories"]}
        return {"memories": memories, "documents": [[d["name"], d["tokens"]] for d in self.call("GET", "/v1/memories/diary")["documents"]],
                "ingests": len(self.call("GET", "/v1/ingests")["ingests"]), "uploads": len(self.call("GET", "/v1/uploads")["uploads"])}


class Pages(http.server.ThreadingHTTPServer):
    """Serves the attacker's pages and collects their reports."""

    def __init__(self, server_port, model):
        super().__init__(("127.0.0.1", 0), PageHandler)
        self.server_url, self.model = f"http://127.0.0.1:{server_port}", model
        self.told, self.changed = [], threading.Condition()


class PageHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def reply(self, text):
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        label = self.path.strip("/").replace(".", "-")
        if label.startswith("frame"):
            return self.reply('<iframe sandbox="allow-scripts allow-forms" src="/sandboxed"></iframe>')
        forms = "".join(FORM.format(server=self.server.server_url, path=path, name=name, value=value) for path, name, value in (
            (f"/v1/memories/diary/documents?name=evil-form-{label}", "The canary sings", "at noon."),
            ("/v1/memories", '{"name":"evil-form-' + label + '","x":"', '"}')))
        page = f"http://{self.headers['Host']}"
        self.reply(PAGE % {"server": self.server.server_url, "label": label, "model": self.server.model, "page": page, "forms": forms})

    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.changed:
            self.server.told.append(told)
            self.server.changed.notify_all()
        self.reply("")


def browse(options, url, pages, profile):
    """Opens the page, waits for its report, and closes the browser."""
    arguments = [options.chromium, "--headless=new", "--disable-gpu", "--no-first-run", "--no-sandbox", "--user-data-dir=" + profile,
                 f"--host-resolver-rules=MAP {ATTACKER} 127.0.0.1", url]
    before = len(pages.told)
    browser = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with pages.changed:
            if not pages.changed.wait_for(lambda: len(pages.told) > before, timeout=120):
                raise SystemExit(f"{url}: no report from the page within two minutes; check that '{options.chromium}' runs")
        time.sleep(1)  # wait for the last beacons
    finally:
        browser.send_signal(signal.SIGTERM)
        browser.wait(timeout=30)
    return pages.told[-1]["told"]


def dump(options, url, profile):
    """The DOM that the browser shows for an address."""
    return subprocess.run([options.chromium, "--headless=new", "--disable-gpu", "--no-first-run", "--no-sandbox", "--user-data-dir=" + profile,
                           f"--host-resolver-rules=MAP {ATTACKER} 127.0.0.1", "--dump-dom", url], capture_output=True, text=True, timeout=120, check=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--binary", default="build/release/longhold")
    parser.add_argument("--chromium", default="chromium")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="longhold-foreign-") as home:
        server = Longhold(options, os.path.join(home, "home"))
        pages = Pages(server.port, options.model)
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        server.ingest("a.txt", "The door of the mill is green.\n")
        before = server.state()
        server.take_log()
        port, good = pages.server_address[1], True
        for name, url in (("same site, another port", f"http://127.0.0.1:{port}/port"), ("localhost", f"http://localhost:{port}/localhost"),
                          ("another name", f"http://{ATTACKER}:{port}/name"), ("a frame without an origin", f"http://127.0.0.1:{port}/frame")):
            told = browse(options, url, pages, os.path.join(home, "profile"))
            log = server.take_log()
            counts = collections.Counter((entry["method"], entry["status"]) for entry in log)
            let_in = [entry for entry in log if entry["status"] != 403]
            good &= bool(log) and not let_in
            print(f"{name}: {len(told)} attempts, {len(log)} requests arrived: " + ", ".join(f"{method} {status} ({n})" for (method, status), n in sorted(counts.items(), key=str)))
            for entry in let_in:
                print("  accepted: " + json.dumps({key: entry[key] for key in ("method", "route", "status")}))
        shown = dump(options, f"http://{ATTACKER}:{server.port}/v1/memories", os.path.join(home, "profile"))
        statuses = {entry["status"] for entry in server.take_log()}
        good &= statuses == {421} and "diary" not in shown
        print(f"DNS rebinding, replies: {sorted(statuses)}")
        after = server.state()
        good &= before == after
        print("before: " + json.dumps(before))
        print("after:  " + json.dumps(after))
        print("ok: every request was refused" if good else "FAILED: a request of the page was accepted, or the state has changed")
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=60)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
