#!/usr/bin/env python3
"""tests/diff_hf.py DIFF_HFT SECONDS SEED TOKENIZER.json ...: ids and decoded texts of our tokenizer
against Hugging Face's tokenizers, on texts made at random. Needs tokenizers; 'make' builds DIFF_HFT
($(B)/fuzz/diff_hft, see Makefile). Stops at the first difference, and says how many texts were equal."""
import fcntl
import os
import random
import struct
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer  # noqa: E402

ODD = ["'", "'s", "'S", "\u2019s", "'ll", "'LL", "'\u017f", "'re", "'Ve", "'d", "'T", "'t's", "''", " '", " 's",
       " ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", " \n", "\n ", "\u00a0", "\u3000", "\u2028",
       "\u0085", "\u200b", "\u200d", "\ufeff", "\u2581", "\u2581\u2581", "\ufffd", "\x00", "\x0b", "\x0c", "\x1c", "1", "12",
       "123", "1234567", "\u00b2", "\u0661\u0662", "\u2167", "\U0001d7d8", "\u4e00", "\u3042", "\uac00", "\u1100\u1161\u11a8",
       "a\u0301", "\u00e9", "\u0301", "e\u0323\u0302", "\u212b", "\ufb01", "\u01c5", "\u02b0", "\u00aa", "\u0e01\u0e34",
       "\u0915\u094d", "\U0001f600", "\U0001f468\u200d\U0001f469", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "!", "..", "...", "/", "//",
       "-", "_", "=", "==", "\u201c", "\u00ab", "(", "{", "\\", "#", "$", "+", "<", ">", "<|", "|>", "<s>", "</s>",
       "the", "The", "THE", " the", "hello", " World", "camelCase", "ALLCaps", "x", "\u0130", "\u03a3",
       "\u1e9e", "\u0345", "\u05b0", "\U00011938", "\U00011935\U00011930", "\u0f71\u0f72", "\U000e0100", "\U0010ffff"]


LENGTHS = (1, 2, 3, 5, 8, 13, 30)
PIPE = 1 << 20


def make_part(r, pieces, special):
    k = r.randrange(12)
    if k < 4:
        return r.choice(ODD)
    if k < 6:
        return r.choice(pieces)
    if k == 6 and special:
        s = r.choice(special)
        return r.choice((s, s, " " + s, s + " ", " \n" + s + "  ", s[:-1], "a" + s + "b"))
    if k == 7:
        return chr(r.randrange(32, 127)) * r.randrange(1, 20)
    if k == 8:
        c = r.randrange(0x110000)
        return chr(c) if not 0xD800 <= c < 0xE000 else "?"
    if k == 9:
        return "".join(chr(r.randrange(0x20, 0x3000)) for _ in range(r.randrange(6)))
    return "".join(chr(r.randrange(32, 127)) for _ in range(r.randrange(12)))


def make_texts(r, parts):
    """Texts of parts, together so short that what our side answers fits a pipe."""
    texts, size = [], 0
    while size < PIPE // 16 and len(texts) < 200:
        t = "".join(r.choices(parts, k=r.choice(LENGTHS)))
        if len(t) < 3000:
            texts.append(t)
            size += len(t.encode())
    return texts


class Ours:
    def __init__(self, program, path):
        self.p = subprocess.Popen([program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        fcntl.fcntl(self.p.stdout, 1031, PIPE)  # F_SETPIPE_SZ

    def read(self, n):
        b = self.p.stdout.read(n)
        if len(b) != n:
            sys.exit("diff_hf: our side ended")
        return b

    def ask(self, texts):
        data = b"".join(struct.pack("<I", len(t)) + t for t in texts)
        # The answers of a batch fit a pipe's buffer, or the other side would wait for ever.
        answers = []
        self.p.stdin.write(data)
        self.p.stdin.flush()
        for _ in texts:
            n, = struct.unpack("<i", self.read(4))
            if n < 0:
                answers.append((None, b""))
                continue
            ids = list(struct.unpack("<%di" % n, self.read(4 * n)))
            m, = struct.unpack("<I", self.read(4))
            answers.append((ids, self.read(m)))
        return answers


def main():
    program, seconds, seed, paths = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    r, count, failed = random.Random(seed), 0, 0
    for path in paths:
        hf = Tokenizer.from_file(path)
        hf.no_truncation()
        hf.no_padding()
        vocab = list(hf.get_vocab())
        pieces = [hf.decode([hf.token_to_id(t)], skip_special_tokens=False)
                  for t in r.sample(vocab, min(len(vocab), 3000))] + r.sample(vocab, min(len(vocab), 300))
        special = [t.content for t in hf.get_added_tokens_decoder().values()]
        ours, end, n, batches = Ours(program, path), time.time() + seconds, 0, 0
        while time.time() < end and not failed:
            if batches % 50 == 0:
                parts = [make_part(r, pieces, special) for _ in range(2000)]
            batches += 1
            texts = make_texts(r, parts)
            wants = [x.ids for x in hf.encode_batch(texts, add_special_tokens=False)]
            backs = hf.decode_batch(wants, skip_special_tokens=False)
            for text, want, decoded, (ids, back) in zip(texts, wants, backs,
                                                        ours.ask([t.encode() for t in texts])):
                decoded = decoded.encode()
                if ids != want or back != decoded:
                    print("%s: %s of %r" % (path, "ids" if ids != want else "text", text))
                    print("  ours ", ids if ids != want else back)
                    print("  theirs", want if ids != want else decoded)
                    failed = 1
                    break
                n += 1
        print("%s: %d texts equal" % (path, n), flush=True)
        count += n
        ours.p.kill()
        if failed:
            sys.exit(1)
    print("%d texts, no difference" % count)


if __name__ == "__main__":
    main()
