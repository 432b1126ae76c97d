#!/usr/bin/env python3
"""tests/bench_hf.py MODEL < ROWS: MB/s of HF tokenizers, one core, on 20 kB documents cut from the
texts of 'lprep --text', cold. For the table of 'make bench-data', where these libraries are."""
import json
import os
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, os.path.dirname(__file__))
import hf_llama  # noqa: E402

text = "".join(json.loads(line)["text"] for line in sys.stdin)
docs = [text[i:i + 20000] for i in range(0, len(text), 20000)]
hf, _ = hf_llama.load(sys.argv[1])
start = time.process_time()
for doc in docs:
    hf.encode(doc)
print("%.2f" % (len(text.encode()) / (time.process_time() - start) * 1e-6))
