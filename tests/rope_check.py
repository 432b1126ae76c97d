#!/usr/bin/env python3
"""The cosines and sines that the installed transformers (4.31 to 5.x) makes of a model folder that
ltrain or lmerge wrote, against those of a version that is trusted:

    rope_check.py --write FOLDER FILE     # with the trusted version: writes them
    rope_check.py FOLDER FILE             # with others: same, off by so much, or refused and why

By hand; the versions that man/ltrain.1 names, "Kinds of RoPE", were found with it."""
import json
import sys

import torch
import transformers
from transformers import AutoConfig
from transformers.models.llama import modeling_llama


def rotary(config, n):
    cls = modeling_llama.LlamaRotaryEmbedding
    positions = torch.arange(n)[None]
    x = torch.zeros(1, 1, n, 4)
    try:  # from 4.43 on
        rope = cls(config=config) if "config" in cls.__init__.__code__.co_varnames else None
        cos, sin = rope(x[0], positions)
    except (TypeError, AttributeError):  # before: a class for each kind, that the attention chooses
        attention = modeling_llama.LlamaAttention(config) if not hasattr(config, "_attn_implementation") \
            else modeling_llama.LlamaAttention(config, layer_idx=0)
        rope = attention.rotary_emb
        try:
            cos, sin = rope(x, seq_len=n)
        except TypeError:
            cos, sin = rope(x, positions)
    return cos.reshape(-1, cos.shape[-1])[-n:].double(), sin.reshape(-1, sin.shape[-1])[-n:].double()


folder, expected = [a for a in sys.argv[1:] if a != "--write"]
N = 160
try:
    cos, sin = rotary(AutoConfig.from_pretrained(folder), N)
except Exception as e:  # noqa: BLE001
    print("transformers", transformers.__version__, folder, "refused:", type(e).__name__, str(e)[:90])
    sys.exit(1)
if "--write" in sys.argv:
    json.dump({"cos": cos.tolist(), "sin": sin.tolist()}, open(expected, "w"))
    sys.exit(0)
want = json.load(open(expected))
off = max(float((cos - torch.tensor(want["cos"], dtype=torch.double)).abs().max()),
          float((sin - torch.tensor(want["sin"], dtype=torch.double)).abs().max()))
print("transformers", transformers.__version__, folder, "same" if off < 1e-4 else "off by %g" % off)
sys.exit(off >= 1e-4)
