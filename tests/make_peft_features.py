#!/usr/bin/env python3
"""Makes tests/data/peft_features/*: adapters of every feature that is read, as peft and torch write them.

Run once, with torch, transformers and peft installed; the results are committed. One base, and for
each NAME: NAME/adapter and NAME/logits.json, token ids and the logits of base and adapter by
transformers and peft. float32 throughout. 'reference' is a checkpoint as LongLoRA's own scripts leave
it: adapter_model.bin, trainable_params.bin, a vocabulary of one more token. base_bin is the base as
pytorch_model.bin in two files, with the tensors that old models carry.
"""
import json
import os
import shutil
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

warnings.simplefilter("ignore")
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "peft_features")
IDS = [1, 5, 43, 17, 2, 44, 31, 31, 8, 30]
VOCAB = 48


def config(tied):
    return LlamaConfig(vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=3,
                       num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                       tie_word_embeddings=tied, initializer_range=0.3)


def base_of(name):
    return LlamaForCausalLM.from_pretrained(os.path.join(OUT, name), dtype=torch.float32)


def stir(model):
    with torch.no_grad():
        for n, p in sorted(model.named_parameters()):
            if p.requires_grad:
                p.add_(torch.randn_like(p) * 0.1)


def write_logits(name, model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    with open(os.path.join(OUT, name, "logits.json"), "w") as f:
        rows = ["[" + ", ".join("%.6g" % v for v in row) + "]" for row in logits.tolist()]
        f.write('{"ids": %s,\n "logits": [\n%s]}\n' % (json.dumps(ids), ",\n".join(rows)))


def make(name, base="base", vocab=VOCAB, ids=IDS, save={}, **lora):
    torch.manual_seed(sum(map(ord, name)))
    model = base_of(base)
    if vocab != VOCAB:
        model.resize_token_embeddings(vocab, mean_resizing=False)
    lora = {"r": 4, "lora_alpha": 8, "init_lora_weights": False, "task_type": "CAUSAL_LM", **lora}
    model = get_peft_model(model, LoraConfig(**lora))
    stir(model)
    model.peft_config["default"].base_model_name_or_path = "base"
    folder = os.path.join(OUT, name, "adapter")
    model.save_pretrained(folder, **save)
    if os.path.exists(os.path.join(folder, "README.md")):
        os.remove(os.path.join(folder, "README.md"))
    if save.get("safe_serialization") is False: # newer versions of peft write safetensors only
        path = os.path.join(folder, "adapter_model.safetensors")
        if os.path.exists(path):
            from safetensors.torch import load_file
            torch.save(load_file(path), os.path.join(folder, "adapter_model.bin"))
            os.remove(path)
    write_logits(name, model.eval(), ids)


def reference(name):
    """fine-tune.py of LongLoRA: one [PAD] more, its rows the mean of the others; LoRA on q, k, v, o;
    embedding and norms trained in place; get_trainable_weights.py takes it apart."""
    torch.manual_seed(5)
    model = base_of("base")
    model.resize_token_embeddings(VOCAB + 1, mean_resizing=False)
    with torch.no_grad():
        for w in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            w[-1] = w[:-1].mean(dim=0)
    model = get_peft_model(model, LoraConfig(
        r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        lora_dropout=0, bias="none", task_type="CAUSAL_LM", init_lora_weights=False))
    for n, p in model.named_parameters():
        if any(k in n for k in ("embed", "norm")):
            p.requires_grad_()
    stir(model)
    folder = os.path.join(OUT, name, "adapter")
    model.peft_config["default"].base_model_name_or_path = "base"
    os.makedirs(folder)
    model.peft_config["default"].save_pretrained(folder)
    state = model.state_dict()
    for k, v in state.items():
        if any(w in k for w in ("lora", "embed", "norm")):
            v.copy_(v.half().float())
    lora, others = {}, {}
    for k, v in state.items():
        if "lora" in k:
            lora[k.replace("default.", "")] = v.half()
        elif "embed" in k or "norm" in k:
            others[k[17:]] = v.half()
    torch.save(lora, os.path.join(folder, "adapter_model.bin"))
    torch.save(others, os.path.join(folder, "trainable_params.bin"))
    write_logits(name, model.eval(), IDS + [VOCAB])


def base_bin():
    """The base again, as old models lie on the hub."""
    model = base_of("base")
    folder = os.path.join(OUT, "base_bin")
    os.makedirs(folder)
    shutil.copy(os.path.join(OUT, "base", "config.json"), folder)
    state, index = model.state_dict(), {}
    parts = [{}, {}]
    for i, (k, v) in enumerate(state.items()):
        parts[i % 2][k] = torch.nn.Parameter(v) if i % 5 == 0 else v
    for i in range(3):
        parts[0]["model.layers.%d.self_attn.rotary_emb.inv_freq" % i] = torch.arange(2).float()
    for i, p in enumerate(parts):
        file = "pytorch_model-%05d-of-00002.bin" % (i + 1)
        torch.save(p, os.path.join(folder, file))
        index.update({k: file for k in p})
    with open(os.path.join(folder, "pytorch_model.bin.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": 0}, "weight_map": index}, f, indent=1)
    os.makedirs(os.path.join(OUT, "plain_base"))
    write_logits("plain_base", model.eval(), IDS)


shutil.rmtree(OUT, ignore_errors=True)
torch.manual_seed(1)
LlamaForCausalLM(config(False)).save_pretrained(os.path.join(OUT, "base"))
LlamaForCausalLM(config(True)).save_pretrained(os.path.join(OUT, "base_tied"))
base_bin()
make("patterns", target_modules=["q_proj", "v_proj", "down_proj", "model.layers.1.self_attn.o_proj"],
     rank_pattern={"layers.0.self_attn.q_proj": 2, "down_proj": 7, r"^model\.layers\.2\..*v_proj": 1},
     alpha_pattern={"q_proj": 3, r"model.layers.[12].mlp.down_proj": 5.5}, use_rslora=True)
make("layers", target_modules=["k_proj", "up_proj"], layers_to_transform=[0, 2], layers_pattern="layers")
make("one_layer", target_modules="all-linear", layers_to_transform=None, exclude_modules=["o_proj"])
make("regex", target_modules=r"model\.layers\.[02]\.(self_attn\.(q|o)_proj|mlp\.gate_proj)")
make("dora", target_modules=["q_proj", "o_proj", "up_proj"], use_dora=True)
make("ends", target_modules=["q_proj", "embed_tokens", "lm_head"], modules_to_save=["norm"],
     save={"save_embedding_layers": False})
make("ends_tied", base="base_tied", target_modules=["q_proj", "embed_tokens"],
     save={"save_embedding_layers": False})
make("vocab", vocab=VOCAB + 5, ids=IDS + [VOCAB, VOCAB + 4], target_modules=["q_proj", "v_proj"],
     save={"save_embedding_layers": True})
make("vocab_tied", base="base_tied", vocab=VOCAB + 5, ids=IDS + [VOCAB, VOCAB + 4],
     target_modules=["q_proj", "v_proj"], save={"save_embedding_layers": True})
make("whole", target_modules=["q_proj"], modules_to_save=["mlp", "lm_head"])
make("bin", target_modules=["q_proj", "v_proj"], save={"safe_serialization": False})
reference("reference")
