#!/usr/bin/env python3
"""tests/make_mask_golden.py DATA > tests/data/mask_golden.txt

Ids and labels of every instruction row by the procedure of the reference, LongLoRA's
supervised-fine-tune.py at d4eb344 (preprocess): prompt and output are encoded as one text that
"<s>" is put before and "</s>" ends, and as many labels are masked as the prompt has tokens when it
is encoded alone, "<s>" included. A line for each file and template: rows; ids; labels masked by the
procedure; rows in which the prompt's last token merges into the output, so that ids of the prompt
alone and of the whole agree in one fewer; CRC-32 of what -v prints of each row to standard error:
ids, masked, agreeing, CRC-32 of the ids, 4 bytes each. Nothing is cut at a greatest length, or padded.
Needs: tokenizers, sentencepiece, and zstd(1). DATA: the folder with alpaca/ and tokenizers/."""
import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib

sys.path.insert(0, os.path.dirname(__file__))
import hf_llama  # noqa: E402

SYSTEM = (
    "[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant. Always answer as helpfully "
    "as possible, while being safe.  Your answers should not include any harmful, unethical, racist, "
    "sexist, toxic, dangerous, or illegal content. Please ensure that your responses are socially "
    "unbiased and positive in nature.\n\nIf a question does not make any sense, or is not factually "
    "coherent, explain why instead of answering something not correct. If you don't know the answer "
    "to a question, please don't share false information.\n<</SYS>> \n\n ")
PROMPTS = {
    "llama2": (SYSTEM + "{instruction} \n{input} [/INST]", "[INST]{instruction}[/INST]"),
    "alpaca": (
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:",
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:"),
}
FILES = ("longalpaca_like.json.zst", "alpaca_en_demo.json.zst", "instruction-data.json.zst")


def unpacked(path):
    return subprocess.run(["zstd", "-dc", path], check=True, stdout=subprocess.PIPE).stdout


def main(data, verbose):
    with tempfile.NamedTemporaryFile(suffix=".model") as f:
        f.write(unpacked(data + "/tokenizers/llama2/tokenizer.model.zst"))
        f.flush()
        hf, sp = hf_llama.load(f.name)
    for name in FILES:
        rows = json.loads(unpacked(f"{data}/alpaca/{name}"))
        for template, (with_input, without) in PROMPTS.items():
            total = masked = merged = crc = 0
            for k, row in enumerate(rows):
                source = (with_input if row.get("input") else without).format_map(row)
                ids = hf.encode("<s>" + source + row["output"] + "</s>").ids
                alone = hf.encode("<s>" + source).ids
                same = next((i for i, (a, b) in enumerate(zip(ids, alone)) if a != b), len(alone))
                if [1] + sp.encode(source + row["output"]) + [2] != ids:
                    print(f"{name} {template} {k}: libsentencepiece differs", file=sys.stderr)
                line = "%d %d %d %08x\n" % (len(ids), len(alone), same,
                                            zlib.crc32(struct.pack(f"<{len(ids)}i", *ids)))
                crc = zlib.crc32(line.encode(), crc)
                total += len(ids)
                masked += len(alone)
                merged += same < len(alone)
                if verbose:
                    print(line, end="", file=sys.stderr)
            print(name, template, len(rows), total, masked, merged, "%08x" % crc)


main(sys.argv[1], "-v" in sys.argv)
