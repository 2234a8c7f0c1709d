#!/usr/bin/env python3
"""Measures recall in long conversations: facts are stated during many turns of `longhold chat` and asked for at the end.

With --serve the turns are requests to `longhold serve` with a session. --sessions sessions run at the same time and share one memory.
The server is restarted before the questions. Then each question is asked twice: first without a session, so that the turn is not stored
(right_unkept). The second time it has a session of its own, so that question and answer are stored before the next one.

The facts are generated from a seed: the code, key place, birthplace or dinner day of a person. Between them are unrelated remarks with
similar words. A new process then asks for every fact. An answer is right if it contains the value.

  eval/chat_turns.py --turns 300 --facts 30 --seed 1 --model smollm2 [--serve [--sessions 4]]
"""
import argparse
import concurrent.futures
import http.client
import json
import os
import random
import subprocess
import tempfile

PEOPLE = "Anna Boris Clara David Elena Frida Georg Hanna Ivan Julia Karl Lena Marta Nils Olga Paul Rosa Stefan Tilda Viktor".split()
COLOURS = "red blue green yellow white black silver golden purple orange".split()
THINGS = "bicycle kettle lantern umbrella piano suitcase blanket clock ladder mirror".split()
PLACES = "Lisbon Oslo Vienna Dublin Naples Krakow Geneva Bergen Toledo Riga".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
# Statement, question, and a function that draws the value.
FORMS = [
    ("{who}'s locker code is {value}.", "What is {who}'s locker code?", lambda r: str(r.randrange(10000, 100000))),
    ("{who} keeps the spare key under the {value}.", "Where does {who} keep the spare key?", lambda r: r.choice(COLOURS) + " " + r.choice(THINGS)),
    ("{who} was born in {value}.", "Where was {who} born?", lambda r: r.choice(PLACES)),
    ("{who} comes to dinner on {value}.", "When does {who} come to dinner?", lambda r: r.choice(DAYS)),
]
REMARKS = ["The {thing} in the hall looks {colour} today.", "I saw a {colour} {thing} near the station.", "It rained all of {day}.",
           "I would like to see {place} once.", "We should buy a new {thing}.", "On {day} the shops close early.",
           "Somebody left a {thing} on the stairs.", "I read a book about {place}."]


def conversation(turns, facts, seed):
    """The messages, and a list of (question, value) with one entry per fact."""
    rng = random.Random(seed)
    pairs = rng.sample([(who, form) for who in PEOPLE for form in FORMS], facts)
    told, asked = [], []
    for who, (statement, question, draw) in pairs:
        value = draw(rng)
        told.append(statement.format(who=who, value=value))
        asked.append((question.format(who=who), value))
    remark = lambda: rng.choice(REMARKS).format(thing=rng.choice(THINGS), colour=rng.choice(COLOURS), day=rng.choice(DAYS), place=rng.choice(PLACES))
    messages = [remark() for _ in range(turns - facts)]
    # Spread the facts evenly, but keep the last turns free of facts.
    for i, statement in enumerate(told):
        messages.insert(int((i + 0.5) * (turns - 20) / facts), statement)
    return messages, asked


class CommandLine:
    """Turns of `longhold chat`. Each call runs a new process."""

    def __init__(self, args, home):
        self.args, self.home = args, home

    def turns(self, messages, tokens):
        lines = subprocess.run([self.args.binary, "chat", "diary", "--model", self.args.model, "--home", self.home, "--max-tokens", str(tokens), "--json", "-q"],
                               input="\n".join(messages) + "\n", stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def restart(self):
        pass

    def answers(self, questions, tokens):
        # A new process per question, so that only the memory holds the facts.
        return [self.turns([question], tokens)[0] for question in questions]

    def stop(self):
        pass


class Server:
    """Requests to `longhold serve`, with a session except in unkept()."""

    def __init__(self, args, home):
        self.args, self.home = args, home
        self.start()

    def start(self):
        self.process = subprocess.Popen([self.args.binary, "serve", "--listen", "127.0.0.1:0", "--model", self.args.model, "--home", self.home, "--quiet"],
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()

    def restart(self):
        self.stop()
        self.start()

    def ask(self, message, session, tokens):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=900)
        body = {"model": self.args.model, "memory": "diary", "messages": [{"role": "user", "content": message}], "max_tokens": tokens}
        if session:
            body["session"] = session
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        said = json.loads(reply.read())
        connection.close()
        if reply.status != 200:
            raise SystemExit(f"{message}: {reply.status} {said}")
        return {"answer": said["choices"][0]["message"]["content"], "citations": said["longhold"]["citations"]}

    def turns(self, messages, tokens):
        def session(number):
            return [self.ask(message, f"talk-{number}", tokens) for message in messages[number::self.args.sessions]]
        with concurrent.futures.ThreadPoolExecutor(self.args.sessions) as pool:
            return [reply for replies in pool.map(session, range(self.args.sessions)) for reply in replies]

    def unkept(self, questions, tokens):
        return [self.ask(question, None, tokens) for question in questions]

    def answers(self, questions, tokens):
        return [self.ask(question, f"question-{i}", tokens) for i, question in enumerate(questions)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--facts", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--binary", default=os.path.join(root, "build/release/longhold"))
    parser.add_argument("--serve", action="store_true", help="use the HTTP server instead of `longhold chat`")
    parser.add_argument("--sessions", type=int, default=1, help="number of concurrent sessions, with --serve")
    parser.add_argument("--answers", action="store_true", help="print each answer")
    args = parser.parse_args()
    messages, asked = conversation(args.turns, args.facts, args.seed)
    with tempfile.TemporaryDirectory() as home:
        client = Server(args, home) if args.serve else CommandLine(args, home)
        client.turns(messages, 24)
        client.restart()
        unkept = client.unkept([question for question, _ in asked], 32) if args.serve else []
        replies = client.answers([question for question, _ in asked], 32)
        client.stop()
        right = [value.lower() in reply["answer"].lower() for (_, value), reply in zip(asked, replies)]
        found = [any(value.lower() in c["text"].lower() for c in reply["citations"]) for (_, value), reply in zip(asked, replies)]
        if args.answers:
            for (question, value), reply, ok, cited in zip(asked, replies, right, found):
                print(f"{'right' if ok else 'wrong':<6}{'cited' if cited else '':<6} {question} {value}: {reply['answer']!r}")
        shown = json.loads(subprocess.run([args.binary, "show", "diary", "--home", home, "--json"], stdout=subprocess.PIPE, text=True, check=True).stdout)
    print(json.dumps({"turns": args.turns, "facts": args.facts, "right": sum(right), "right_unkept": sum(value.lower() in reply["answer"].lower() for (_, value), reply in zip(asked, unkept)), "cited": sum(found), "tokens": shown["tokens"],
                      "disk_bytes": shown["disk_bytes"], "seed": args.seed, "model": args.model, "sessions": args.sessions if args.serve else 0}))


if __name__ == "__main__":
    main()
