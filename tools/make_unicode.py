#!/usr/bin/env python3
"""tools/make_unicode.py [compatible] > formats/tokenizer/unicode_[data|compatible].c: what Unicode knows
of each character, as Hugging Face's tokenizers has it. Needs: pip install tokenizers==0.23.3 unicodedata2==16.0.0

The ids of a text depend on these tables to the letter, and that library has several Unicode
versions inside: \\p{..}, \\s and \\w of patterns are Oniguruma's (Unicode 16), "Digits" and letters'
cases are Rust's (17), "Punctuation" is an older one's (8), normal forms are of Unicode 12. So the library is asked,
character by character; unicodedata2 gives the categories' names (each is compared) and the order
of combining marks. Each table is one string: see unicode.c for how numbers are written."""
import sys

import tokenizers
import unicodedata2 as ucd
from tokenizers import Regex, normalizers, pre_tokenizers

CHARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-+"
SCRIPTS = "Han Hiragana Katakana Hangul Latin Greek Cyrillic Arabic Hebrew Thai".split()
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cn".split()


def number(v):
    """Five bits a digit, the lowest first; every digit but the last is 32 or more."""
    out = ""
    while v >= 32:
        out += DIGITS[32 + v % 32]
        v //= 32
    return out + DIGITS[v]


def signed(v):
    return number(2 * v if v >= 0 else -2 * v - 1)


def found(pre):
    """The characters that a pre-tokenizer takes out."""
    out = set()
    for at in range(0, len(CHARS), 4096):
        text = "".join(map(chr, CHARS[at:at + 4096]))
        kept = set("".join(piece for piece, _ in pre.pre_tokenize_str(text)))
        out |= set(text) - kept
    return out


def by_pattern(pattern):
    return found(pre_tokenizers.Split(Regex(pattern), "removed"))


def pairs(pre, alone):
    """The characters that stay with the letter before them, or do not."""
    out = set()
    for c in map(chr, CHARS):
        pieces = pre.pre_tokenize_str("a" + c)
        if (len(pieces) == 2) == alone:
            out.add(c)
    return out


def strings(name, text):
    print("\nconst char %s[] =" % name)
    lines = [text[i:i + 88] for i in range(0, len(text), 88)]
    print("\n".join('    "%s"' % line for line in lines) + ";")


def classes():
    category = {}
    for name in CATEGORIES:
        for c in by_pattern(r"\p{%s}" % name):
            category[c] = CATEGORIES.index(name)
    for c in map(chr, CHARS):
        category.setdefault(c, CATEGORIES.index("Cn"))
        if ucd.category(c) != CATEGORIES[category[c]] and ucd.category(c) not in ("Co", "Cn"):
            sys.exit("U+%04X is %s, not %s" % (ord(c), CATEGORIES[category[c]], ucd.category(c)))
    space, word = by_pattern(r"\s"), by_pattern(r"\w")
    digits = pairs(pre_tokenizers.Digits(individual_digits=True), True)
    mark = found(pre_tokenizers.Punctuation("removed"))
    rust_word = pairs(pre_tokenizers.Whitespace(), False) - found(pre_tokenizers.WhitespaceSplit())
    rust_word -= pairs(pre_tokenizers.Whitespace(), True)
    scripts = [by_pattern(r"\p{%s}" % name) for name in SCRIPTS]
    kinds, runs, last, length = [], "", None, 0
    for c in map(chr, range(0x110000)):
        kind = (category.get(c, CATEGORIES.index("Cn")), c in space, c in word, c in digits,
                c in mark, c in rust_word) + tuple(c in script for script in scripts)
        if kind not in kinds:
            kinds.append(kind)
        if kind != last and last is not None:
            runs += number(length) + number(kinds.index(last))
            length = 0
        last = kind
        length += 1
    runs += number(length) + number(kinds.index(last))
    print("\nconst uint64_t unicode_kinds[] = {")
    for k in kinds:
        bits = 1 << k[0] | sum(1 << (32 + i) for i in range(len(k) - 1) if k[1 + i])
        print("    UINT64_C(0x%012X)," % bits)
    print("};")
    strings("unicode_runs", runs)


def normal_forms(name, form, other):
    """Character, how many it becomes (twice that, and 1 where the first is never made again), them."""
    text, last = "", 0
    nfc = normalizers.NFC()
    for c in CHARS:
        to = form.normalize_str(chr(c))
        if 0xAC00 <= c < 0xD7A4 or to == (other.normalize_str(chr(c)) if other else chr(c)):
            continue
        text += number(c - last) + number(2 * len(to) + (nfc.normalize_str(chr(c)) != chr(c)))
        last = at = c
        for x in to:
            text += signed(ord(x) - at)
            at = ord(x)
    strings(name, text)


def marks():
    """Combining marks with their class, where the library moves them."""
    nfd, text, last = normalizers.NFD(), "", 0
    for c in CHARS:
        k = ucd.combining(chr(c))
        if not k:
            continue
        before, after = ("\u0345", chr(c)) if k < 240 else (chr(c), "\u0334")
        if nfd.normalize_str("a" + before + after) == "a" + before + after:
            continue
        text += number(c - last) + number(k)
        last = c
    strings("unicode_marks", text)


def lower():
    text, last, low = "", 0, normalizers.Lowercase()
    for c in CHARS:
        to = low.normalize_str(chr(c))
        if to == chr(c):
            continue
        text += number(c - last) + number(len(to))
        last = at = c
        for x in to:
            text += signed(ord(x) - at)
            at = ord(x)
    strings("unicode_lower", text)


if __name__ == "__main__":
    which = "compatible" if sys.argv[1:] == ["compatible"] else "data"
    print("/* formats/tokenizer/unicode_%s.c - made by tools/make_unicode.py from tokenizers %s and\n"
          " * unicodedata2 %s; not written by hand. */" % (which, tokenizers.__version__, ucd.unidata_version))
    print('#include "formats/tokenizer/unicode_data.h"')
    if which == "compatible":
        normal_forms("unicode_compatible", normalizers.NFKD(), normalizers.NFD())
    else:
        classes()
        marks()
        normal_forms("unicode_canonical", normalizers.NFD(), None)
        lower()
