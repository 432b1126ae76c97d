#!/usr/bin/env python3
"""tests/diff_hf_made.py DIFF_HFT SECONDS SEED: as diff_hf.py, but the tokenizers are made at random too: steps,
patterns, models, decoders and added tokens of all kinds that are read, in any order. What either side refuses
is counted. Goes on after a difference, up to 10, each cut down to a short text; the status is then 1."""
import collections
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time

os.environ["RUST_BACKTRACE"] = "0"
import diff_hf  # noqa: E402
import make_hft_golden as made  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

PATTERNS = [made.L3, made.L3.replace("{1,3}", ""), made.TEKKEN, made.O200K, r"\p{N}{1,3}+", r"\s+", r"[\r\n]",
            r"'s|'t| ?\p{L}+", r"\w+|[^\w\s]+", r"(?=[A-Z])", "$", "^", r"\b", "a*", r"(?<=a)b|(?<!x)y+?", ".",
            r"\p{Han}|\p{L}\p{M}*", r" ?[^(\s|[.,!?…。，、।۔،])]+", r"\p{P}", "(?i:the|s)", r"(?i:[^a-z]+)",
            "[a-z&&[^aeiou]]+", r"\x{2581}+", r"x{2,3}|\.{3}|!{2,}", r"(?:\p{Lu}\p{Ll}*)++", r"\S+$", r"[\s\S]{1,7}"]
TEXTS = [" ", "\u2581", "a", "the", "\n", "  ", "<", "\u00e9", "'"]
ADDED = ["<x>", "<|end|>", "  ", "\n", "the", " the", "The", "a", "\u2581", "\u2581\u2581", "\u00e9", "e\u0301", "'s", "12",
         "<x><y>", "<", "word", "\n\n", " <z> ", "<z>", "\t", "hello world", "\u03a3", "\uff0e", "\ufb01"]
WAYS = ["Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"]


def pattern(r):
    return {"Regex": r.choice(PATTERNS)} if r.random() < .7 else {"String": r.choice(TEXTS)}


def pre_tokenizer(r, depth=0):
    k = r.choice(["Split", "Split", "Digits", "Metaspace", "Punctuation", "Whitespace", "WhitespaceSplit", "Sequence"])
    more = {"Split": dict(pattern=pattern(r), behavior=r.choice(WAYS), invert=r.random() < .3),
            "Digits": dict(individual_digits=r.random() < .5), "Punctuation": dict(behavior=r.choice(WAYS)),
            "Metaspace": made.metaspace(r.choice(["always", "first", "never"]), r.random() < .5)}
    if k == "Sequence":
        return made.steps(*[pre_tokenizer(r, depth + 1) for _ in range(r.randrange(4) if depth < 2 else 0)])
    return dict(more.get(k, {}), type=k)


def normalizer(r, depth=0):
    k = r.choice(["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend", "Replace", "Replace", "Strip", "Sequence"])
    more = {"Prepend": dict(prepend=r.choice(["\u2581", " ", "x"])), "Strip": dict(strip_left=r.random() < .5, strip_right=r.random() < .5),
            "Replace": dict(pattern=pattern(r), content=r.choice(["\u2581", " ", "", "x", "ab"])),
            "Sequence": dict(normalizers=[normalizer(r, depth + 1) for _ in range(r.randrange(4))] if depth < 2 else [])}
    return dict(more.get(k, {}), type=k)


def decoder(r):
    return r.choice([made.GPT2, None, made.metaspace(r.choice(["always", "never"]), True), {"type": "Fuse"},
                     {"type": "Sequence", "decoders": made.FALLBACK["decoders"][:r.randrange(5)]}])


def model(r, models):
    m = json.loads(r.choice(models))
    if m["type"] == "BPE":
        m["ignore_merges"] = r.random() < .4
        if m["byte_fallback"]:
            m["byte_fallback"], m["fuse_unk"] = r.random() < .7, r.random() < .6
            m["unk_token"] = r.choice(["<unk>", "<unk>", None])
        k = r.randrange(5)
        m["merges"] = (r.sample(m["merges"], len(m["merges"])) if k == 0 else r.sample(m["merges"], 60) + m["merges"]
                       if k == 1 else m["merges"][:r.randrange(len(m["merges"]))] if k == 2 else m["merges"])
    return m


def tokenizer(r, models):
    m = model(r, models)
    pre = None if r.random() < .15 else pre_tokenizer(r)
    if m["type"] == "BPE" and m["unk_token"] is None and "<0x00>" not in m["vocab"] and r.random() < .8:
        pre = made.steps(*([pre] if pre else []), dict(made.BYTES, use_regex=r.random() < .3, add_prefix_space=r.random() < .2))
    t = made.tokenizer(m, pre, None if r.random() < .5 else normalizer(r), decoder(r))
    ids = {x[0]: i for i, x in enumerate(m["vocab"])} if m["type"] == "Unigram" else m["vocab"]
    new = len(ids)
    for c in r.sample(ADDED, r.randrange(6) if r.random() < .6 else 0):
        flags = {k: r.random() < .3 for k in ("single_word", "lstrip", "rstrip", "special", "normalized")}
        t["added_tokens"].append(made.added(ids.get(c, new), c, **flags))
        new += c not in ids
    return t


def theirs(hf, text):
    """Ids and decoded text, or None: it panics over some."""
    try:
        ids = hf.encode(text, add_special_tokens=False).ids
        return ids, hf.decode(ids, skip_special_tokens=False).encode()
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt):
            raise
        return None


def shorten(hf, ours, text):
    size = len(text) // 2
    while size:
        at = 0
        while at < len(text):
            less = text[:at] + text[at + size:]
            want = theirs(hf, less)
            if want and ours.ask([less.encode()])[0] != want:
                text = less
            else:
                at += size
        size //= 2
    return text


def compare(program, path, r, counts):
    t = json.load(open(path))
    refused = subprocess.run([program, path], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if refused.returncode:
        why = re.sub(r"^diff_hft: '.*?': |\(at byte.*|'[^']*' and '[^']*'", "", refused.stderr.split("\n")[0])
        counts["refused: " + why[:90]] += 1
        return
    hf, ours = Tokenizer.from_file(path), diff_hf.Ours(program, path)
    vocab = sorted(hf.get_vocab())
    parts = [diff_hf.make_part(r, r.sample(vocab, 80), [a["content"] for a in t["added_tokens"]]) for _ in range(400)] + ADDED
    texts = ["".join(r.choices(parts, k=r.choice(diff_hf.LENGTHS))) for _ in range(120)]
    for text, got in zip(texts, ours.ask([x.encode() for x in texts])):
        want = theirs(hf, text)
        counts["texts that tokenizers fails on" if want is None else "texts"] += 1
        if want is not None and got != want:
            text = shorten(hf, ours, text)
            print("%r\n  ours   %s\n  theirs %s" % (text, ours.ask([text.encode()])[0], theirs(hf, text)))
            print("  " + json.dumps({k: v for k, v in t.items() if k != "model"}, ensure_ascii=False), flush=True)
            counts["DIFFERENT"] += 1
            break
    else:
        counts["tokenizers that are equal"] += 1
    ours.p.kill()
    ours.p.wait()


def main():
    program, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    parts = made.pieces(made.HERE + "/data/tiny.model")
    models = [json.dumps(m) for m in (made.byte_model(), made.sentences_model(parts), made.unigram_model(parts, True))]
    counts, end = collections.Counter(), time.time() + seconds
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tokenizer.json")
        while time.time() < end and counts["DIFFERENT"] < 10:
            r = random.Random(seed)
            seed += 1
            with open(path, "w") as f:
                json.dump(tokenizer(r, models), f)
            compare(program, path, r, counts)
    for what, n in counts.most_common():
        print(n, what)
    sys.exit(1 if counts["DIFFERENT"] else 0)


if __name__ == "__main__":
    main()
