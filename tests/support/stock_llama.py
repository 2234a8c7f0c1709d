#!/usr/bin/env python3
"""Runs llama.cpp's own server, unmodified, from the Python package xllamacpp, on a free port of this machine.

  stock_llama.py MODEL.gguf SLOT_DIR [--ctx N] [--slots N] [--cache-type TYPE] [--no-flash-attention] [--kv-unified yes|no]

Prints its URL when the model is loaded, and ends when its standard input does, so it never outlives whoever started it.
"""
import argparse
import os
import sys

import xllamacpp


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("slot_dir")
    parser.add_argument("--ctx", type=int, default=4096)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cache-type", default="f16", help="of keys and values: f16, f32, q8_0, ...")
    parser.add_argument("--no-flash-attention", action="store_true", help="values are then kept in columns")
    parser.add_argument("--kv-unified", choices=["yes", "no"], help="whether the slots share one cache")
    parser.add_argument("--no-slot-save-path", action="store_true")
    args = parser.parse_args()

    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.n_ctx = args.ctx
    params.n_parallel = args.slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads
    params.warmup = False
    params.port = 0
    params.endpoint_slots = True
    params.cache_type_k = params.cache_type_v = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + args.cache_type.upper())
    if not args.no_slot_save_path:
        params.slot_save_path = os.path.join(args.slot_dir, "")
    if args.kv_unified:
        params.kv_unified = args.kv_unified == "yes"
    if args.no_flash_attention:
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
