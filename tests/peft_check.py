#!/usr/bin/env python3
"""Checks, with peft, an adapter that adapter_write made, or makes one for lmerge (tests/cli/peft.t).

usage: peft_check.py BASE ADAPTER MERGED
       peft_check.py --make BASE ADAPTER '{"target_modules": [...], ...}'
Loads ADAPTER onto BASE: no key may be missing or unexpected, every tensor must be what the
file holds, and the logits must be those of MERGED, which lmerge made. Prints the result.
With --make peft writes ADAPTER, with random values in all that it trains; of a multimodal model in its language
model alone, or everywhere where the settings have "everywhere".
"""
import json
import os
import sys
import warnings

import torch
import peft
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM


def load(folder, config=None):
    config = config or AutoConfig.from_pretrained(folder)
    auto = transformers.AutoModelForImageTextToText if hasattr(config, "text_config") else AutoModelForCausalLM
    return auto.from_pretrained(folder, config=config, dtype=torch.float32).eval()


def text(config):
    return getattr(config, "text_config", config)


def is_text(name):
    return not any(part in name for part in ("vision", "multi_modal_projector", "connector"))


def make(base_dir, adapter_dir, settings):
    torch.manual_seed(7)
    everywhere = settings.pop("everywhere", False)
    model = get_peft_model(load(base_dir), LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=5, **settings))
    for n, p in model.named_parameters():
        if p.requires_grad and (everywhere or is_text(n)):
            p.data += 0.1 * torch.randn_like(p)
    model.save_pretrained(adapter_dir)


def check_loaded(model, adapter_dir, ours):
    file = load_file(os.path.join(adapter_dir, "adapter_model.safetensors"))
    if not ours:
        return file
    state = peft.get_peft_model_state_dict(model)
    heads = [f"base_model.model.{h}.weight" for h in ("embed_out", "lm_head")]
    if all(h in file for h in heads):  # GPT-NeoX's, under the names of both versions
        assert torch.equal(file[heads[0]], file[heads[1]])
        del file[heads[heads[0] in state]]
    assert set(state) == set(file), set(state) ^ set(file)
    assert all(torch.equal(state[k], file[k]) for k in file)
    result = peft.set_peft_model_state_dict(model, file)
    assert not result.unexpected_keys, result.unexpected_keys
    assert not [k for k in result.missing_keys if "lora" in k or "modules_to_save" in k]
    return file


def check(base_dir, adapter_dir, merged_dir):
    torch.manual_seed(0)
    ours = os.path.exists(os.path.join(adapter_dir, "config.json"))
    config = AutoConfig.from_pretrained(adapter_dir if ours else base_dir)  # ours: the extended model
    was = AutoConfig.from_pretrained(base_dir)
    config.tie_word_embeddings = was.tie_word_embeddings
    text(config).tie_word_embeddings = text(was).tie_word_embeddings
    base = load(base_dir, config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base, adapter_dir).eval()
    for w in caught:
        print("warning:", str(w.message)[:120])
    assert not any("missing" in str(w.message).lower() for w in caught)
    file = check_loaded(model, adapter_dir, ours)
    merged = load(merged_dir)
    assert text(merged.config).max_position_embeddings == text(config).max_position_embeddings
    ids = torch.randint(0, text(base.config).vocab_size - 1, (1, 100))  # the last may stand for a picture
    with torch.no_grad():
        got, want = model(input_ids=ids).logits, merged(input_ids=ids).logits
        plain = load(base_dir, config)(input_ids=ids).logits
    diff = (got - want).abs().max().item()
    assert diff < 1e-4, diff
    assert (got - plain).abs().max().item() > 1e-3  # it was loaded
    print(f"peft {peft.__version__}, transformers {transformers.__version__}: {len(file)} tensors, "
          f"none missing, none unexpected, all equal; logits differ by {diff:.1e}")


if sys.argv[1] == "--make":
    make(sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))
else:
    check(*sys.argv[1:4])
