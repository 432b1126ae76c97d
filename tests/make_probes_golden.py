#!/usr/bin/env python3
"""tests/make_probes_golden.py LEVAL TOKENIZER LONGLORA LONGCHAT LOST > tests/data/probes/golden.txt

Prompts of the original generators beside those of leval --prompts. LONGLORA, LONGCHAT and LOST are
bare clones of dvlab-research/LongLoRA (d4eb344), DachengLi1/LongChat (4b5faa5) and
nelson-liu/lost-in-the-middle (29b8a6d), whose functions are taken out of their files and run as they stand. The size of each prompt is that of
leval's (which depends on a tokenizer), and the original must give the same bytes: else this fails. A
line a prompt: task, length, seed, number, bytes, XXH3-64, tokens, answer. Needs numpy, xxhash,
wonderwords (3.0.1);
lines have our own words, or with its folder assets as WORDS wonderwords' own."""
import ast
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import uuid

import numpy
import xxhash

leval, tokenizer, longlora, longchat, lost = sys.argv[1:]
words = os.environ.get("WORDS")
CASES = [("passkey", 1024, 0, 3), ("passkey", 4096, 0, 2), ("passkey", 32768, 7, 1), ("json_kv", 1024, 0, 3),
         ("json_kv", 3000, 5, 2), ("json_kv", 16384, 1, 1),
         ("lines", 1024, 0, 3), ("lines", 3000, 5, 2), ("lines", 16384, 1, 1)]


def functions(git, path, names, scope):
    """The named functions of a file, defined in scope."""
    source = subprocess.run(["git", "-C", git, "show", "HEAD:" + path], capture_output=True, check=True, text=True).stdout
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            exec(compile(ast.Module([node], []), path, "exec"), scope)
    return scope


def uuid4():
    return uuid.UUID(int=random.getrandbits(128), version=4)


def own_words():
    source = open(os.path.join(os.path.dirname(sys.argv[0]), "../probes/own_words.c")).read()
    lists = dict(re.findall(r"char \*const (\w+)\[\] = \{(.*?)\};", source, re.S))
    return {k: re.findall('"(.*?)"', lists[k + "s"]) for k in ("noun", "adjective")}


def passkey(prompt, seed, number):
    first = prompt.index("\n") + 1
    parts = prompt[first:].split("\n")
    f = functions(longlora, "passkey_retrivial.py", ["generate_prompt_landmark"], {"random": numpy.random})
    return f["generate_prompt_landmark"](len(parts[0]) + len(parts[2]), seed + number)


def json_kv(prompt, seed, number):
    pairs = {}
    n = prompt.count('": "')
    while len(pairs) != n:  # as make_kv_retrieval_data.py, main
        pairs[str(uuid4())] = str(uuid4())
    key, value = random.choice(list(pairs.items()))
    with tempfile.TemporaryDirectory() as d:
        text = subprocess.run(["git", "-C", lost, "show", "HEAD:src/lost_in_the_middle/prompts/kv_retrieval.prompt"],
                              capture_output=True, check=True).stdout
        open(os.path.join(d, "kv_retrieval.prompt"), "wb").write(text)
        import pathlib
        import typing
        scope = {"PROMPTS_ROOT": pathlib.Path(d), "List": typing.List, "Tuple": typing.Tuple}
        functions(lost, "src/lost_in_the_middle/prompting.py", ["get_kv_retrieval_prompt"], scope)
        return scope["get_kv_retrieval_prompt"](list(pairs.items()), key), value


def lines(prompt, seed, number):
    import itertools
    import wonderwords

    class Words:  # wonderwords as it is, with the numbers of 'random'
        class RandomWord(wonderwords.RandomWord):
            def __init__(self):
                super().__init__(rng=random._inst, **({} if words else own_words()))

    names = ["generate_lines_testcases", "generate_line_index", "retrieve_expected", "generate_prompt_from_lines"]
    scope = {"random": random, "re": re, "json": json, "os": os, "itertools": itertools, "uuid": uuid}
    sys.modules["wonderwords"].RandomWord, kept = Words.RandomWord, wonderwords.RandomWord
    n = prompt.count("REGISTER_CONTENT is <")
    with tempfile.TemporaryDirectory() as d:
        functions(longchat, "longeval/utils.py", names, scope)
        scope["generate_lines_testcases"]({"num_lines": [n], "num_test_samples": 1, "line_idx_opt": "LRT-NL"}, d)
        case = json.loads(open(os.path.join(d, f"{n}_lines.jsonl")).read())
    sys.modules["wonderwords"].RandomWord = kept
    # test_lines_one_sample, of a model without turns
    return case["prompt"] + f'Line <{case["random_idx"][0]}>: <REGISTER_CONTENT> is', str(case["expected_number"])


for task, length, seed, samples in CASES:
    command = [leval, "-q", "--tasks", task, "-t", tokenizer, "--lengths", str(length), "--seed", str(seed),
               "--samples", str(samples), "--prompts", "-"] + (["--words", words] if words else [])
    rows = [json.loads(x) for x in subprocess.run(command, capture_output=True, check=True).stdout.splitlines()]
    assert len(rows) == samples
    random.seed(seed)
    for number, row in enumerate(rows):
        prompt, answer = globals()[task](row["prompt"], seed, number)
        assert prompt == row["prompt"] and [answer] == row["answers"], (task, length, seed, number)
        data = prompt.encode()
        print(task, length, seed, number, len(data), xxhash.xxh3_64_hexdigest(data), row["tokens"], answer)
