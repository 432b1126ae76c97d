#!/usr/bin/env python3
"""Two GGUF files of one model: the same tensors, byte for byte, and the same values under the keys
that both have. usage: gguf_compare.py A B (package gguf, PyPI). general.name may differ; what only one
file has is printed. Exit 1: something differs."""
import sys

import numpy as np
from gguf import GGUFReader

a, b = (GGUFReader(p) for p in sys.argv[1:3])
bad = 0


def value(f):
    v = f.contents()
    return v if not isinstance(v, float) else np.float32(v)


for k in sorted(set(a.fields) | set(b.fields)):
    if k.startswith("GGUF.") or k == "general.name":
        continue
    if k not in a.fields or k not in b.fields:
        print(f"only in {'first' if k in a.fields else 'second'}: {k} = {str(value((a if k in a.fields else b).fields[k]))[:60]}")
    elif value(a.fields[k]) != value(b.fields[k]):
        bad += 1
        print(f"differs: {k}: {str(value(a.fields[k]))[:60]} and {str(value(b.fields[k]))[:60]}")
s, t = ({x.name: x for x in r.tensors} for r in (a, b))
for n in sorted(set(s) | set(t)):
    if n not in s or n not in t or s[n].tensor_type != t[n].tensor_type or \
            list(s[n].shape) != list(t[n].shape) or not np.array_equal(s[n].data, t[n].data):
        bad += 1
        print(f"tensor {n} differs")
print(f"{len(s)} tensors, {bad} differences")
sys.exit(bad > 0)
