#!/usr/bin/env python3
"""Holds leval's result for one window against llama.cpp's losses of the same ids.
usage: gguf_check.py MODEL.gguf [--lora ADAPTER.gguf] RESULT.json ID... (RESULT: leval --by-position
--json of one window that begins with these ids). Exit 0: no part of the window differs by 1e-3.
Needs the package xllamacpp (PyPI), which brings llama.cpp's library; tried with 2026.10."""
import json
import math
import sys

import xllamacpp as x


def server(model, lora, ctx):
    p = x.CommonParams()
    p.model.path = model
    p.n_ctx = ctx
    p.n_parallel = 1
    p.cpuparams.n_threads = 2
    p.warmup = False
    p.cache_type_k = p.cache_type_v = x.ggml_type.GGML_TYPE_F32
    p.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if lora:
        a = x.CommonAdapterLoraInfo()
        a.path, a.scale = lora, 1.0
        p.lora_adapters = [a]
    return x.Server(p)


def loss(s, ids, i, many):
    """Of id i after those before it: one of the 'many' most likely ones of one step. The bias makes it the one that
    is chosen, as a choice without text has no list; the losses are those without it."""
    r = s.handle_completions({"prompt": ids[:i], "n_predict": 1, "n_probs": many, "temperature": 0,
                              "cache_prompt": False, "logit_bias": [[ids[i], 1000]]})
    for t in r["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
        if t["id"] == ids[i]:
            return -t["logprob"]
    return math.nan


def main():
    args = sys.argv[1:]
    model, lora = args.pop(0), None
    if args[0] == "--lora":
        lora, args = args[1], args[2:]
    parts = json.load(open(args.pop(0)))["results"][0]["by_position"]
    ids = [int(a) for a in args]
    s = server(model, lora, max(512, len(ids) + 8))
    losses = [math.nan] + [loss(s, ids, i, 512) for i in range(1, len(ids))]
    worst = 0.0
    for p in parts:
        at, n = p["tokens_before"], p["tokens"]
        if at + n > len(ids):
            sys.exit(f"the result has {at + n} tokens, {len(ids)} ids are given")
        worst = max(worst, abs(p["loss"] - sum(losses[at:at + n]) / n))
        if math.isnan(losses[at]):
            worst = math.inf
    print(f"{len(ids) - 1} tokens, largest difference {worst:.2e}")
    sys.exit(0 if worst < 1e-3 else 1)


if __name__ == "__main__":
    main()
