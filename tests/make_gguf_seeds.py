#!/usr/bin/env python3
"""tests/fuzz/seeds/gguf: small files by the package gguf (0.19), for the fuzzer of the reader.
usage: make_gguf_seeds.py FOLDER"""
import sys

import numpy as np
from gguf import GGMLQuantizationType as T, GGUFWriter, quants

out = sys.argv[1]


def model(name, arch="llama", dim=32, types=(T.F32,), rope=None, tokenizer=None, more=None):
    w = GGUFWriter(f"{out}/{name}", arch)
    w.add_context_length(64)
    w.add_embedding_length(dim)
    w.add_block_count(1)
    w.add_feed_forward_length(dim)
    w.add_head_count(4)
    w.add_head_count_kv(2)
    (w.add_layer_norm_eps if arch == "gptneox" else w.add_layer_norm_rms_eps)(1e-5)
    if more:
        more(w)
    if rope:
        rope(w)
    if tokenizer:
        tokenizer(w)
    rng = np.random.default_rng(1)
    rows = {"token_embd": 8, "blk.0.attn_q": dim, "blk.0.attn_k": dim // 2, "blk.0.attn_v": dim // 2,
            "blk.0.attn_output": dim, "blk.0.ffn_gate": dim, "blk.0.ffn_up": dim, "blk.0.ffn_down": dim}
    for i, (k, n) in enumerate(rows.items()):
        x = rng.standard_normal((n, dim)).astype(np.float32)
        t = types[i % len(types)]
        w.add_tensor(k + ".weight", quants.quantize(x, t), raw_dtype=t)
    for k in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        w.add_tensor(k + ".weight", np.ones(dim, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def spm(w):
    w.add_tokenizer_model("llama")
    w.add_token_list(["<unk>", "<s>", "</s>", "a", "b", "ab", "\u2581", "\u2581a"])
    w.add_token_scores([0.0, 0.0, 0.0, -3.0, -3.0, -1.0, -3.0, -2.0])
    w.add_token_types([2, 3, 3, 1, 1, 1, 1, 1])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)


def bpe(pre):
    def add(w):
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre(pre)
        w.add_token_list(["<|end|>", "a", "b", "ab", "\u0120", "\u0120a", "1", "<|x|>"])
        w.add_token_types([3, 1, 1, 1, 1, 1, 1, 4])
        w.add_token_merges(["a b", "\u0120 a"])
        w.add_eos_token_id(0)
        w.add_chat_template("{{ x }}")
    return add


def yarn(w):
    w.add_rope_scaling_type(__import__("gguf").RopeScalingType.YARN)
    w.add_rope_scaling_factor(4.0)
    w.add_rope_scaling_orig_ctx_len(16)


def freqs(w):
    w.add_tensor("rope_freqs.weight", np.array([1, 1, 4, 8], np.float32))


def scales(w):
    w.add_attention_scale(0.25)
    w.add_embedding_scale(12.0)
    w.add_residual_scale(0.5)
    w.add_logit_scale(8.0)


def half(w):
    w.add_parallel_residual(True)
    w.add_rope_dimension_count(4)
    w.add_string("gptneox.hidden_activation", "gelu_pytorch_tanh")


def factors(w):
    for k in ("long", "short"):
        w.add_tensor(f"rope_factors_{k}.weight", np.array([1, 2, 4, 8], np.float32))


def gemma2(w):
    w.add_attn_logit_softcapping(50.0)
    w.add_final_logit_softcapping(30.0)
    w.add_sliding_window(16)


def gemma3(w):
    w.add_sliding_window(16)
    w.add_rope_freq_base(1e6)
    w.add_float32("gemma3.rope.freq_base_swa", 5000.0)
    w.add_uint32("gemma3.attention.sliding_window_pattern", 2)


model("gemma2", arch="gemma2", types=(T.Q4_0,), more=gemma2)
model("gemma3", arch="gemma3", types=(T.Q4_0,), more=gemma3)
model("granite", arch="granite", types=(T.Q4_0,), more=scales)
model("gptneox", arch="gptneox", types=(T.Q4_0,), more=half)
model("phi3", arch="phi3", types=(T.Q4_0,), more=lambda w: w.add_rope_scaling_orig_ctx_len(16), rope=factors)
model("spm", tokenizer=spm, types=(T.Q8_0, T.Q4_0, T.Q4_1))
model("qwen2", arch="qwen2", tokenizer=bpe("qwen2"), types=(T.F16, T.BF16, T.Q4_0), rope=yarn)
model("llama3", tokenizer=bpe("llama-bpe"), types=(T.Q4_0,), rope=freqs)
model("smollm", tokenizer=bpe("smollm"), types=(T.Q8_0,))
w = GGUFWriter(f"{out}/empty", "llama")
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
