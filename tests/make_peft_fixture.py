#!/usr/bin/env python3
"""Makes tests/data/peft_tiny/*: tiny Llama models and adapters as peft itself writes them.

Run once, with torch, transformers and peft installed; the results are committed. For each of
'plain' (untied, grouped-query) and 'tied': NAME/base, NAME/adapter (LoRA on q, k, v, o;
embed_tokens and the norms in modules_to_save), NAME/merged.safetensors (merge_and_unload) and
NAME/logits.json: token ids, and base+adapter's logits for them. float32 throughout.
"""
import json
import os
import shutil

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "peft_tiny")
IDS = [1, 5, 93, 17, 2, 64, 31, 31, 8, 70]


def make(name, tied, seed):
    torch.manual_seed(seed)
    folder = os.path.join(OUT, name)
    shutil.rmtree(folder, ignore_errors=True)
    base = LlamaForCausalLM(LlamaConfig(
        vocab_size=96, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        tie_word_embeddings=tied, initializer_range=0.3))
    base.save_pretrained(os.path.join(folder, "base"))
    model = get_peft_model(base, LoraConfig(
        r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        modules_to_save=["embed_tokens", "input_layernorm", "post_attention_layernorm", "norm"],
        init_lora_weights=False, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * 0.1)
    model.peft_config["default"].base_model_name_or_path = "base"
    model.save_pretrained(os.path.join(folder, "adapter"))
    os.remove(os.path.join(folder, "adapter", "README.md"))
    ids = torch.tensor([IDS])
    with torch.no_grad():
        logits = model(ids).logits[0]
    with open(os.path.join(folder, "logits.json"), "w") as f:
        rows = ["[" + ", ".join("%.7g" % v for v in row) + "]" for row in logits.tolist()]
        f.write('{"ids": %s,\n "logits": [\n%s]}\n' % (json.dumps(IDS), ",\n".join(rows)))
    merged = model.merge_and_unload()
    with torch.no_grad():
        print(name, "merged differs by", (merged(ids).logits[0] - logits).abs().max().item())
    save_file({k: v.contiguous().clone() for k, v in merged.state_dict().items()},
              os.path.join(folder, "merged.safetensors"))


make("plain", False, 1)
make("tied", True, 2)
