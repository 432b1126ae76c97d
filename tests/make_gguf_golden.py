#!/usr/bin/env python3
"""tests/data/gguf_blocks.h: float32 values and their blocks of ggml's types, as the package gguf has
them. usage: make_gguf_golden.py > tests/data/gguf_blocks.h (gguf 0.19, numpy)"""
import numpy as np
from gguf import GGMLQuantizationType as T, quants

rng = np.random.default_rng(13)
x = rng.standard_normal(256).astype(np.float32) * np.float32(0.05)
x[32:64] = 0                                # no scale
x[64:96] = np.arange(-16, 16) / 2           # halves
x[96:128] = 1e-9                            # a scale that is none in float16
x[128] = 30                                 # one large value
x[160:192] = -np.abs(x[160:192])
x[192:224] = np.nextafter(np.float32(0.5), np.float32(0)) * np.linspace(-254, 254, 32)


def array(kind, name, values, text):
    rows = [", ".join(text(v) for v in values[i:i + 8]) for i in range(0, len(values), 8)]
    print(f"static const {kind} {name}[] = {{\n    " + ",\n    ".join(rows) + ",\n};")


def floats(v):
    return array("float", f"golden_{v[0]}", v[1].reshape(-1), lambda f: float(f).hex() + "F")


print("/* tests/data/gguf_blocks.h - made by tests/make_gguf_golden.py; not to be edited. */")
print(f"enum {{ GOLDEN_VALUES = {x.size} }};")
floats(("values", x))
for name, t in (("q8_0", T.Q8_0), ("q4_0", T.Q4_0), ("q4_1", T.Q4_1)):
    q = quants.quantize(x, t)
    array("unsigned char", f"golden_{name}", q.reshape(-1), str)
    floats((f"{name}_values", quants.dequantize(q, t)))
