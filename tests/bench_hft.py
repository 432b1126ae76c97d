#!/usr/bin/env python3
"""tests/bench_hft.py TOKENIZER.json < ROWS: MB/s of HF tokenizers and of gigatoken, where it is, one core,
on 20 kB documents cut from the texts of 'lprep --text'. For the table of 'make bench-data'."""
import json
import os
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer  # noqa: E402

text = "".join(json.loads(line)["text"] for line in sys.stdin)
docs = [text[i:i + 20000] for i in range(0, len(text), 20000)]
size = len(text.encode()) * 1e-6


def rate(encode):
    start = time.process_time()
    encode()
    return size / (time.process_time() - start)


hf = Tokenizer.from_file(sys.argv[1])
print("HF tokenizers %.2f MB/s" % rate(lambda: [hf.encode(d) for d in docs]), end="")
try:
    import gigatoken
    giga = gigatoken.Tokenizer(sys.argv[1])
    print(", gigatoken cold %.1f" % rate(lambda: giga.encode_batch(docs, parallel=False)), end="")
    print(" warm %.1f MB/s" % rate(lambda: giga.encode_batch(docs, parallel=False)), end="")
except ImportError:
    print(", gigatoken not here", end="")
print()
