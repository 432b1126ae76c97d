#!/usr/bin/env python3
"""Makes tests/data/eval_golden.json: perplexities by transformers and peft, windows laid here.

    make_eval_golden.py [DATA]

DATA: the folder that tests know as $LONGLORA_DATA (a pretrained model and a PG-19 book);
without it the part "book" of an existing file is kept. Needs torch, transformers, peft,
sentencepiece and zstd. "tiny": models of tests/data/model in float64 over ids of a linear congruential
generator, one document. "book": stories260K in float32 over the first tokens of one book.
"""
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

import torch
from transformers import LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = os.path.join(HERE, "data", "model")
OUT = os.path.join(HERE, "data", "eval_golden.json")
BOOK = "42306"


def lcg_ids(n, vocab):
    x, ids = 1, []
    for _ in range(n):
        x = (x * 1103515245 + 12345) % 2**31
        ids.append((x >> 16) % vocab)
    return ids


def windows(protocol, n, ctx, step):
    """(start, length, first scored) of each window over n tokens."""
    if protocol == "longlora":  # as eval.py of the reference: the last start is dropped
        starts = list(range(0, n - ctx, step))[:-1]
        return [(i, ctx, 1) for i in starts]
    if protocol == "nonoverlap":
        cut = [(i, min(ctx, n - i), 1) for i in range(0, n, ctx)]
        return [w for w in cut if w[1] > 1]
    out, done = [], 0
    while done < n:
        end = min(ctx if done == 0 else done + step, n)
        start = max(0, end - ctx)
        out.append((start, end - start, max(1, done - start)))
        done = end
    return out


def window_nll(model, ids, start, length, first):
    x = torch.tensor([ids[start:start + length]])
    with torch.no_grad():
        logits = model(input_ids=x, use_cache=False).logits[0]
    lp = torch.log_softmax(logits.double(), -1)
    return [-lp[i - 1, x[0, i]].item() for i in range(first, length)]


def measure(model, ids, protocol, ctx, step):
    total, scored, means, count = 0.0, 0, 0.0, 0
    for start, length, first in windows(protocol, len(ids), ctx, step):
        nll = window_nll(model, ids, start, length, first)
        total += math.fsum(nll)
        scored += len(nll)
        means += math.fsum(nll) / len(nll)
        count += 1
    loss = means / count if protocol == "longlora" else total / scored
    return {"protocol": protocol, "ctx": ctx, "step": step, "windows": count, "tokens": scored,
            "loss": loss}


def tiny():
    from peft import PeftModel
    out = []
    for name, adapter in (("gqa", None), ("odd", None), ("mha", "mha/adapter")):
        model = LlamaForCausalLM.from_pretrained(
            os.path.join(MODELS, name), dtype=torch.float64, attn_implementation="eager")
        if adapter:
            model = PeftModel.from_pretrained(model, os.path.join(MODELS, adapter)).double()
        model.eval()
        ids = lcg_ids(203, model.config.vocab_size)
        for protocol, ctx, step in (("longlora", 32, 8), ("longlora", 16, 5), ("stride", 32, 8),
                                    ("stride", 16, 15), ("nonoverlap", 32, 32),
                                    ("nonoverlap", 101, 101), ("nonoverlap", 300, 300)):
            case = measure(model, ids, protocol, ctx, step)
            out.append({"model": name, "adapter": adapter, **case})
    return out


def book(data):
    import sentencepiece
    with tempfile.TemporaryDirectory() as tmp:
        folder = os.path.join(data, "weights", "stories260K")
        shutil.copy(os.path.join(folder, "hf", "config.json"), tmp)
        weights = os.path.join(folder, "hf", "model.safetensors.zst")
        subprocess.run(["zstd", "-dq", weights, "-o", os.path.join(tmp, "model.safetensors")],
                       check=True)
        tar = subprocess.run("zstd -dc '%s/pg19/pg19-validation.tar.zst' | tar -xO "
                             "pg19/validation/%s.txt" % (data, BOOK), shell=True, check=True,
                             stdout=subprocess.PIPE).stdout
        sp = sentencepiece.SentencePieceProcessor(
            model_file=os.path.join(folder, "tok512.model"))
        ids = sp.encode(tar.decode())[:8192]
        model = LlamaForCausalLM.from_pretrained(tmp, dtype=torch.float32).eval()
        return {"model": "stories260K", "book": BOOK, "max_tokens": 8192, "cases": [
            measure(model, ids, p, 512, s) for p, s in
            (("nonoverlap", 512), ("longlora", 256), ("stride", 256))]}


def main():
    old = json.load(open(OUT)) if os.path.exists(OUT) else {}
    golden = {"made_by": "tests/make_eval_golden.py", "tiny": tiny(),
              "book": book(sys.argv[1]) if len(sys.argv) > 1 else old.get("book")}
    with open(OUT, "w") as f:
        f.write(json.dumps(golden, indent=1) + "\n")


main()
