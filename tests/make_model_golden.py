#!/usr/bin/env python3
"""Makes tests/data/model/*: tiny Llama models and what transformers and peft compute on them.

Run once, with torch, transformers and peft installed; the results are committed.
Each NAME.safetensors holds ids [2][T], logits [2][T][vocab] (dense), and for each case C in
{dense, s2, lora}: C.loss (mean over predictions), C.grad.<tensor>. Attention masks for s2 are
built here from the paper's definition, per head, without any roll. All in float64, stored as
float32.
"""
import os
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

T, GROUP = 13, 4
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "model")

FIXTURES = {
    "mha": dict(num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=False),
    "gqa": dict(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
                rope_scaling={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}),
    "odd": dict(hidden_size=24, num_attention_heads=6, num_key_value_heads=3, tie_word_embeddings=False, head_dim=6,
                rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                              "high_freq_factor": 4.0, "original_max_position_embeddings": 8,
                              "rope_theta": 500.0}),
}


def segment_ids(cuts):
    ids, n = [], 0
    for i in range(T):
        if i in cuts:
            n += 1
        ids.append(n)
    return torch.tensor(ids)


def mask(heads, group):
    """Additive mask [1][heads][T][T]; group None is dense."""
    first = segment_ids(set() if group is None else set(range(group, T, group)))
    second = segment_ids(set() if group is None else set(range(group // 2, T, group)))
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    out = torch.empty(1, heads, T, T, dtype=torch.float64)
    for h in range(heads):
        seg = first if h < heads // 2 else second
        out[0, h] = torch.where(causal & (seg[:, None] == seg[None, :]), 0.0, -1e30)
    return out


def run(model, ids, group, heads, out, case):
    model.zero_grad()
    m = mask(heads, group).expand(ids.shape[0], -1, -1, -1)
    res = model(input_ids=ids, attention_mask=m, labels=ids, use_cache=False)
    res.loss.backward()
    out[case + ".loss"] = res.loss.detach().reshape(1)
    for name, p in model.named_parameters():
        if p.grad is not None:
            out[case + ".grad." + name] = p.grad.detach()
    return res.logits.detach()


def main():
    os.makedirs(OUT, exist_ok=True)
    for name, extra in FIXTURES.items():
        torch.manual_seed(7)
        cfg = LlamaConfig(vocab_size=48, intermediate_size=24, num_hidden_layers=2,
                          max_position_embeddings=32, rms_norm_eps=1e-5, initializer_range=0.2,
                          hidden_act="silu", bos_token_id=1, eos_token_id=2,
                          attn_implementation="eager", **{"hidden_size": 16, **extra})
        model = LlamaForCausalLM(cfg)
        for p in model.parameters():
            if p.dim() == 1:
                p.data += 0.1 * torch.randn_like(p)
        folder = os.path.join(OUT, name)
        model.save_pretrained(folder, safe_serialization=True)
        for junk in ("generation_config.json",):
            path = os.path.join(folder, junk)
            if os.path.exists(path):
                os.remove(path)
        model = model.double()
        ids = torch.randint(0, 48, (2, T))
        out = {"ids": ids}
        heads = cfg.num_attention_heads
        out["logits"] = run(model, ids, None, heads, out, "dense")
        run(model, ids, GROUP, heads, out, "s2")
        if name == "mha":
            lora = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, task_type="CAUSAL_LM",
                              target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
                              modules_to_save=["embed_tokens", "input_layernorm",
                                               "post_attention_layernorm", "norm"])
            tuned = get_peft_model(model, lora).double()
            for n, p in tuned.named_parameters():
                if "lora_B" in n:
                    p.data = 0.1 * torch.randn_like(p)
            full = {}
            run(tuned, ids, GROUP, heads, full, "lora")
            out["lora.loss"] = full["lora.loss"]
            for k, v in full.items():
                if ".grad." in k:
                    short = k.replace(".default", "").replace(".modules_to_save", "")
                    out[short] = v
            tuned.float().save_pretrained(os.path.join(folder, "adapter"), safe_serialization=True)
            readme = os.path.join(folder, "adapter", "README.md")
            if os.path.exists(readme):
                os.remove(readme)
        save_file({k: (v if v.dtype == torch.int64 else v.float()).contiguous()
                   for k, v in out.items()}, os.path.join(OUT, name + ".safetensors"))
        print(name, float(out["dense.loss"]), float(out["s2.loss"]), len(out), file=sys.stderr)


main()
