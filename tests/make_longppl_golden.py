#!/usr/bin/env python3
"""tests/make_longppl_golden.py LONGPPL > tests/data/longppl.json

LongPPL of tests/data/model/gqa by its own code: LONGPPL is a bare clone of PKU-ML/LongPPL (longppl.py,
1decd2a), whose find_key_token and compute_longppl are run as they stand, with transformers and torch.
The text is drawn from the model itself, so that it has tokens which a long context tells; the tokenizer stands
for one: a token is two characters. Needs torch, transformers, numpy."""
import contextlib
import json
import subprocess
import sys
import types

import torch
from transformers import LlamaForCausalLM

CTX, SEED = 700, 5
torch.manual_seed(SEED)
model = LlamaForCausalLM.from_pretrained("tests/data/model/gqa", torch_dtype=torch.float32,
                                        rope_scaling={"rope_type": "linear", "factor": 4.0}).eval()  # as its config.json
ids = [1]
with torch.no_grad():
    while len(ids) < CTX:
        logits = model(torch.tensor([ids])).logits[0, -1]
        ids.append(int(torch.multinomial(torch.softmax(logits / 0.6, -1), 1)))


class Tokenizer:  # id i is two characters
    def __call__(self, text, **_):
        n = len(text) // 2
        return {"input_ids": torch.tensor([[ord(text[2 * i]) - 64 for i in range(n)]]),
                "offset_mapping": torch.tensor([[[2 * i, 2 * i + 2] for i in range(n)]])}


code = types.ModuleType("longppl")
exec(subprocess.run(["git", "-C", sys.argv[1], "show", "HEAD:longppl/longppl.py"], capture_output=True, check=True,
                    text=True).stdout, code.__dict__)
text = "".join(chr(64 + i) + " " for i in ids)
cases = []
for short, slide in ((8, 4), (16, 8), (32, 16), (64, 7), (300, 50)):
    with contextlib.redirect_stdout(sys.stderr):  # it says where there are none
        out = code.compute_longppl(text, model, model, Tokenizer(), Tokenizer(), trunc_len=short,
                                   sliding_window=slide)
    slices = code.find_key_token(text, model, Tokenizer(), short, slide)
    keys = [t for a, b in slices.tolist() for t in range(a // 2, b // 2)]
    assert out["n_key_token"] in (None, len(keys))
    cases.append({"short": short, "slide": slide, "longppl": None if out["longppl"] is None else float(out["longppl"]),
                  "ppl": float(out["ppl"]), "key_tokens": keys})
print(json.dumps({"model": "gqa", "ctx": CTX, "ids": ids, "cases": cases}))
