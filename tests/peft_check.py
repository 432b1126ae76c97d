#!/usr/bin/env python3
"""Checks once, with peft, an adapter that adapter_write made. Not part of the test suite.

usage: peft_check.py BASE ADAPTER MERGED
Loads ADAPTER onto BASE: no key may be missing or unexpected, every tensor must be what the
file holds, and the logits must be those of MERGED, which lmerge made. Prints the result.
"""
import sys
import warnings

import torch
import peft
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

base_dir, adapter_dir, merged_dir = sys.argv[1:4]
torch.manual_seed(0)
config = AutoConfig.from_pretrained(adapter_dir)  # ours: the extended model
config.tie_word_embeddings = AutoConfig.from_pretrained(base_dir).tie_word_embeddings
base = AutoModelForCausalLM.from_pretrained(base_dir, config=config, dtype=torch.float32)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = PeftModel.from_pretrained(base, adapter_dir)
for w in caught:
    print("warning:", str(w.message)[:120])
assert not any("missing" in str(w.message).lower() for w in caught)
file = load_file(adapter_dir + "/adapter_model.safetensors")
state = peft.get_peft_model_state_dict(model)
assert set(state) == set(file), set(state) ^ set(file)
assert all(torch.equal(state[k], file[k]) for k in file)
result = peft.set_peft_model_state_dict(model, file)
assert not result.unexpected_keys, result.unexpected_keys
assert not [k for k in result.missing_keys if "lora" in k or "modules_to_save" in k]
merged = AutoModelForCausalLM.from_pretrained(merged_dir, dtype=torch.float32)
assert merged.config.max_position_embeddings == config.max_position_embeddings
ids = torch.randint(0, base.config.vocab_size, (1, 100))
with torch.no_grad():
    diff = (model(ids).logits - merged(ids).logits).abs().max().item()
assert diff < 1e-4, diff
print(f"peft {peft.__version__}, transformers {transformers.__version__}: {len(file)} tensors, "
      f"none missing, none unexpected, all equal; logits differ by {diff:.1e}; "
      f"rope {merged.config.rope_parameters}")
