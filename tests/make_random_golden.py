#!/usr/bin/env python3
"""tests/make_random_golden.py > tests/data/probes/random.txt

What Python's random and numpy's RandomState draw: a line for each call, in one stream from each
seed: the call, its numbers, a colon, what came. Made with Python 3.11.7 and numpy 1.26.4; a test
(test_random) makes the same calls. A long result is its first 20 and the CRC-32 of all, 8 bytes each."""
import random
import struct
import zlib

import numpy

CHOSEN = [(1, 1), (4, 1), (7, 7), (21, 2), (22, 2), (40, 4), (85, 10), (86, 10), (40, 10), (1000, 3),
          (85, 6), (86, 6), (277, 22), (278, 22), (5000, 4000), (20000, 4000), (10**6, 6000)]


def line(call, numbers, values):
    values = list(values)
    more = ""
    if len(values) > 20:
        packed = b"".join(struct.pack("<q", v) for v in values)
        more = " crc %d %08x" % (len(values), zlib.crc32(packed))
        values = values[:20]
    print(call, *numbers, ":", *(repr(v) for v in values), end=more + "\n")


def python(seed):
    line("seed", [seed], [])
    random.seed(seed)
    for _ in range(8):
        line("real", [], [random.random()])
    for bits in (32, 64, 128):
        x = random.getrandbits(bits)
        line("bits", [bits], [x >> 32 * i & 0xFFFFFFFF for i in range(bits // 32)])
    for n in (1, 2, 3, 7, 8, 26, 1000, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 10**15, 2**62 + 1, 2**63):
        line("below", [n], [random.randrange(n) for _ in range(3)])
    for low, high in ((0, 0), (1, 50000), (1000000, 9999999), (-5, 5), (-2**62, 2**62 - 2)):
        line("int", [low, high], [random.randint(low, high) for _ in range(3)])
    line("choice", [1713], [random.choice(range(1713)) for _ in range(6)])
    line("choices", [26], random.choices(range(26), k=50))
    for n, k in CHOSEN:
        line("sample", [n, k], random.sample(range(n), k))
    for n in (0, 1, 2, 5, 3000):
        x = list(range(n))
        random.shuffle(x)
        line("shuffle", [n], x)
    line("real", [], [random.random()])


def old_numpy(seed):
    line("numpy", [seed], [])
    numpy.random.seed(seed)
    for _ in range(3):
        line("real", [], [float(numpy.random.random())])
    for low, high in ((10000, 99999), (1, 50000), (0, 1), (5, 6), (0, 17), (0, 2**32), (-7, 9), (0, 2**32 - 1)):
        line("numpy_int", [low, high], [int(numpy.random.randint(low, high)) for _ in range(5)])
    line("real", [], [float(numpy.random.random())])


for s in (0, 1, 42, 12345, 2**32 - 1, 2**32, 20231129123456789, 2**64 - 1):
    python(s)
for s in (0, 1, 42, 2**32 - 1):
    old_numpy(s)
