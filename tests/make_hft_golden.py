#!/usr/bin/env python3
"""tests/make_hft_golden.py > tests/data/hft/golden.jsonl: small tokenizers of every kind that is read,
and the ids and texts that Hugging Face's tokenizers makes of torture texts. Needs tokenizers==0.23.3.
The first line has the texts; each other line a tokenizer.json, and for each text its ids and what they
decode to (null where that is the text itself)."""
import json
import os
import struct
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
L3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
      r"|\s*[\r\n]+|\s+(?!\S)|\s+")
U, W = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (r"[^\r\n\p{L}\p{N}]?%s*%s+|[^\r\n\p{L}\p{N}]?%s+%s*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+") % (U, W, U, W)
O200K = TEKKEN.replace(W + "+|", W + "+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|").replace(
    W + "*|", W + "*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|").replace(r"|\p{N}|", r"|\p{N}{1,3}|")
DEEPSEEK = [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"]
TEXTS = [
    "", " ", "  ", "a", " a", "a ", "the nation, so  dedicated\n\n  to the\tproposition   ", "\n", "\r\n \r\n", " \n x",
    "I'm don't it's WE'LL I'D they're 'S 'sx''s '\u017f \u2019s 've'", "x=12345+67 8.9 1,234,567 \u00b2\u2167\u0661\u0662\U0001d7d8",
    "def f(x):\n    return x**2  # ok\n\n\tif a!=b: pass\r\n", "camelCase HTMLParser iPhone ABCdef \u01c5x \u0130I \u1e9e",
    "\u4f60\u597d\u4e16\u754c \u3053\u3093\u306b\u3061\u306f \ud55c\uae00 \u0e44\u0e17\u0e22 \u0939\u093f\u0928\u094d\u0926\u0940", "e\u0301 \u00e9 a\u0323\u0302 \u212b \ufb01 \u1100\u1161\u11a8 \U00011935\U00011930",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f \U0001f44d\U0001f3fd", "<s>x</s> <|end|>a<|end|> b <|end |> x<s",
    "  <mask>  y<mask>z", "\u2581x\u2581\u2581 y \ufffd\ufffe\x00\x7f\x1c", "".join(chr(c) for c in (9, 10, 11, 12, 13, 28, 31, 32, 0x85, 0xA0, 0x1680, 0x180E,
    0x2000, 0x200B, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF)), "a".join(chr(c) for c in (0x2003, 0xA0, 0x3000, 0x85, 0x2028)),
    "".join(chr(p << 16 | c) for p in range(17) for c in (0x0041, 0x0561, 0x1234, 0xA000, 0xFFFF)), "word keyword word, word_ \u00e9word word\u0301",
    "ab" * 40, "x\u00b2y \u00bd\u00b9 \u00b5\u00aa\u00b3", "supercalifragilisticexpialidocious" * 3, "..//..\n\n!!?\r/\n \u2014\u201cq\u201d $5 +-=<>|~^`", "x" * 17 + " " * 70 + "\n" * 3 + "z",
]


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def steps(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def metaspace(scheme, cuts):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cuts}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = dict(BYTES, use_regex=True)
DIGITS = {"type": "Digits", "individual_digits": True}
MARKS = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
LEGACY = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, MARKS]}
FALLBACK = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def form(name):
    return {"type": name}


def byte_model():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = open(HERE + "/data/tiny.txt").read() + "\n".join(x for x in TEXTS if x.isascii() or len(x) < 60)
    t.train_from_iterator([text], trainers.BpeTrainer(vocab_size=420, show_progress=False,
                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return json.loads(t.to_str())["model"]


def pieces(path):
    """Text, score and type of each piece of a SentencePiece model."""
    data, at, out = open(path, "rb").read(), 0, []

    def number(b, i):
        v = shift = 0
        while True:
            v |= (b[i] & 127) << shift
            shift += 7
            i += 1
            if b[i - 1] < 128:
                return v, i

    while at < len(data):
        key, at = number(data, at)
        n, at = number(data, at)
        body, at = data[at:at + n], at + n
        if key != 10:
            continue
        i, text, score, kind = 0, "", 0.0, 1
        while i < len(body):
            k, i = number(body, i)
            if k == 10:
                n, i = number(body, i)
                text, i = body[i:i + n].decode(), i + n
            elif k == 0x15:
                score, i = struct.unpack("<f", body[i:i + 4])[0], i + 4
            else:
                kind, i = number(body, i)
        out.append((text, score, kind))
    return out


def sentences_model(parts):
    """As transformers makes it of a SentencePiece model: all splits, by the score of what they make."""
    vocab = {p[0]: i for i, p in enumerate(parts)}
    merges = []
    for text, score, _ in parts:
        local = [(text[:i], text[i:], score) for i in range(1, len(text)) if text[:i] in vocab and text[i:] in vocab]
        merges += sorted(local, key=lambda x: (vocab[x[0]], vocab[x[1]]))
    merges.sort(key=lambda v: (v[2], len(v[0]), len(v[1])), reverse=True)
    return {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": vocab, "merges": [[a, b] for a, b, _ in merges]}


def unigram_model(parts, fallback):
    """Scores by length and place, so that paths differ and some are equal; special tokens have 0, as T5's."""
    vocab = [[text, 0.0 if kind != 1 else -4.0 - i % 7 / 2 - len(text) * 0.75] for i, (text, _, kind) in enumerate(parts)]
    return {"type": "Unigram", "unk_id": [p[0] for p in parts].index("<unk>"), "vocab": vocab, "byte_fallback": fallback}


def added(id, content, **kw):
    return dict(dict(id=id, content=content, single_word=False, lstrip=False, rstrip=False,
                     normalized=False, special=False), **kw)


def tokenizer(model, pre, normalizer=None, decoder=None, more=(), post=None):
    n = len(model["vocab"])
    ids = {t[0]: i for i, t in enumerate(model["vocab"])} if model["type"] == "Unigram" else model["vocab"]
    tokens = [added(ids[c], c, special=True) for c in ("<unk>", "<s>", "</s>") if c in ids]
    tokens += [added(n + i, c, **kw) for i, (c, kw) in enumerate(more)]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens,
            "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": post, "decoder": decoder, "model": model}


def twin(t):
    t["added_tokens"].append(t["added_tokens"][-1])
    return t


def untyped(t):
    t["model"].pop("type")
    return t


def all_kinds():
    b, sp = byte_model(), sentences_model(pieces(HERE + "/data/tiny.model"))
    old = dict(b, merges=[" ".join(m) for m in b["merges"]])
    level, end = dict(GPT2), [("<|end|>", dict(special=True))]
    template = {"type": "TemplateProcessing", "pair": [], "special_tokens": {}, "single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}}]}
    strips = [("<mask>", dict(lstrip=True)), ("<|end|>", dict(rstrip=True)), ("word", dict(single_word=True)),
              ("  ", dict(normalized=True, rstrip=True))]
    yield "gpt2", tokenizer(old, GPT2, None, level, end)
    yield "neox", tokenizer(b, GPT2, form("NFC"), level, end + [("   ", dict(normalized=True))])
    yield "llama3", tokenizer(dict(b, ignore_merges=True), steps(split(L3), BYTES), None, level, end)
    yield "qwen2", tokenizer(b, steps(split(L3.replace("{1,3}", "")), BYTES), form("NFC"), level, end)
    yield "o200k", tokenizer(b, steps(split(O200K, "Removed", True), BYTES), None, level, end)
    yield "tekken", tokenizer(b, steps(split(TEKKEN), BYTES), None, level, end)
    yield "smollm", tokenizer(b, steps(DIGITS, GPT2), None, level, strips)
    yield "deepseek", tokenizer(b, steps(*[split(p) for p in DEEPSEEK], BYTES), None, level, end)
    yield "falcon", tokenizer(b, steps({"type": "Punctuation", "behavior": "Contiguous"}, GPT2,
                              {"type": "Digits", "individual_digits": False}, split("[0-9][0-9][0-9]")), None, level, end)
    yield "edges", tokenizer(b, steps(split(r"(?<word>\b\w[\w'\u2019]*\b)|(?'number'\p{N}+)|\B\S+?\B|(?<s_1>\s+)\b|."), BYTES), None, level)
    yield "prefix", tokenizer(b, dict(GPT2, add_prefix_space=True), form("NFKC"), level, end)
    yield "tiny", tokenizer(sp, None, LEGACY, FALLBACK, post=template)
    yield "tiny-first", tokenizer(sp, metaspace("first", False), None, FALLBACK, strips)
    yield "tiny-split", tokenizer(sp, metaspace("always", True), None, metaspace("always", True))
    yield "tiny-gemma", tokenizer(sp, {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                                       "invert": False}, MARKS, FALLBACK, [("\n\n", {}), ("<tok>", dict(normalized=True))])
    yield "steps", tokenizer(dict(sp, byte_fallback=False), steps({"type": "WhitespaceSplit"},
                             {"type": "Punctuation", "behavior": "MergedWithNext"}, split("[aeiou&&[^e]]|(?<=b)c|\\p{Han}",
                             "Contiguous", True), metaspace("always", True)),
                             {"type": "Sequence", "normalizers": [form("NFD"), form("Lowercase"), {"type": "Replace",
                              "pattern": {"Regex": "[ \\t]{2,}"}, "content": " "}]}, metaspace("always", True))
    parts = pieces(HERE + "/data/tiny.model")
    yield "unigram", tokenizer(unigram_model(parts, False), steps({"type": "WhitespaceSplit"}, metaspace("always", True)),
                               form("NFKC"), metaspace("always", True), [("<extra>", dict(special=True))], template)
    yield "unigram-bytes", tokenizer(unigram_model(parts, True), metaspace("first", False), None, FALLBACK)
    # What was read wrongly once: white space that two tokens take, a token that is there twice, merges ignored
    # or nothing for what is unknown with SentencePiece's marks, no type.
    yield "taken", twin(tokenizer(b, steps(split(TEKKEN), BYTES), None, level,
                                  [("  ", dict(lstrip=True)), ("<mask>", dict(lstrip=True, rstrip=True))]))
    yield "whole", tokenizer(dict(sp, ignore_merges=True), metaspace("first", False), None, FALLBACK)
    yield "no-unknown", tokenizer(dict(sp, unk_token=None), metaspace("always", True), None, FALLBACK)
    yield "untyped", untyped(tokenizer(unigram_model(parts, False), metaspace("always", True), None, metaspace("always", True)))
    yield "unknown", tokenizer(dict(sp, byte_fallback=False, fuse_unk=False), form("Whitespace"), form("NFKD"), None)


def main():
    print(json.dumps({"texts": TEXTS}))
    for name, t in all_kinds():
        hf = Tokenizer.from_str(json.dumps(t))
        ids = [hf.encode(x, add_special_tokens=False).ids for x in TEXTS]
        back = [hf.decode(i, skip_special_tokens=False) for i in ids]
        back = [None if y == x else y for x, y in zip(TEXTS, back)]
        print(json.dumps({"name": name, "tokenizer": t, "ids": ids, "back": back}, separators=(",", ":"), ensure_ascii=False))


if __name__ == "__main__":
    main()
