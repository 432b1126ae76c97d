#!/usr/bin/env python3
"""Makes tests/data/arch/: what transformers computes of a tiny model of each family.

Run once with torch, transformers 4.57 and safetensors installed; the results are committed. With
--check nothing is written: what the installed version computes of the committed models is compared
with what is there. Names behind the options choose some of the models. For each: NAME/ is the model (bf16), NAME.safetensors holds ids, logits
of a length within the original context and of one beyond it, loss and gradients of the latter
(whole where they are vectors, else their sum of squares and their sum weighted with cos(0.7 i)),
and for each kind of RoPE of kinds.json the last logits and the loss. In float64, stored as float32.

Of a multimodal model ("text" here) text alone goes in, and the gradients have the names that its language model's
tensors have in a model of their own; its files have those of newer or ("old") older versions.

greedy.txt: for each model a prompt and what it goes on with, greedily, by generate() with its cache, past
its window and its original context, as letters: those of letters.json, a tokenizer of one letter a token. Prompts
are searched where the choice is never a near tie, and no token is special. With --greedy this alone is made.
"""
import copy
import json
import os
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "arch")
SHORT, LONG, ORIGINAL, VOCAB = 10, 26, 12, 32
CHECK = "--check" in sys.argv[1:]
GREEDY = "--greedy" in sys.argv[1:]
ONLY = [a for a in sys.argv[1:] if not a.startswith("-")]


def factors(n, top):
    return [round(1 + (top - 1) * i * i / (n * n), 4) for i in range(n)]


def kinds(pairs):
    """name: max_position_embeddings, rope_scaling"""
    first = {"original_max_position_embeddings": ORIGINAL}
    return {
        "linear": (36, {"type": "linear", "rope_type": "linear", "factor": 3.0}),
        "dynamic": (ORIGINAL, {"type": "dynamic", "rope_type": "dynamic", "factor": 2.5}),
        "yarn": (30, {"type": "yarn", "rope_type": "yarn", "factor": 2.5, **first}),
        "llama3": (30, {"type": "llama3", "rope_type": "llama3", "factor": 2.5, "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0, **first}),
        "longrope": (30, {"type": "longrope", "rope_type": "longrope", "factor": 2.5, **first,
                          "short_factor": factors(pairs, 1.2), "long_factor": factors(pairs, 3.5)}),
    }


SIZES = dict(vocab_size=VOCAB, hidden_size=16, intermediate_size=20, num_hidden_layers=3,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=ORIGINAL,
             rope_theta=100.0, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
             pad_token_id=None)
EPS = dict(rms_norm_eps=1e-5)


def rope(kind, pairs=2, **more):
    context, scaling = kinds(pairs)[kind]
    return dict(max_position_embeddings=context, rope_scaling={**scaling, **more})


GEMMA = dict(tie_word_embeddings=True, bos_token_id=2, eos_token_id=1)
MODELS = {
    "llama32": dict(model_type="llama", **SIZES, **EPS, head_dim=6) | rope("llama3", 3) |
    dict(tie_word_embeddings=True),
    "llama_bias": dict(model_type="llama", **SIZES, **EPS, attention_bias=True, mlp_bias=True),
    "mistral": dict(model_type="mistral", **SIZES, **EPS, head_dim=4, sliding_window=5),
    "mistral_full": dict(model_type="mistral", **SIZES, **EPS, head_dim=4, sliding_window=None),
    "qwen2": dict(model_type="qwen2", **SIZES, **EPS, use_sliding_window=False, sliding_window=5,
                  max_window_layers=1) | rope("yarn"),
    "qwen2_window": dict(model_type="qwen2", **SIZES, **EPS, use_sliding_window=True,
                         sliding_window=5, max_window_layers=1) | dict(tie_word_embeddings=True),
    "qwen3": dict(model_type="qwen3", **SIZES, **EPS, head_dim=8) | rope("yarn", 4),
    "qwen3_bias": dict(model_type="qwen3", **SIZES, **EPS, head_dim=8, attention_bias=True,
                       use_sliding_window=True, sliding_window=6, layer_types=[
                           "sliding_attention", "full_attention", "sliding_attention"]),
    "smollm3": dict(model_type="smollm3", **SIZES, **EPS, no_rope_layers=[1, 0, 1]) | rope("yarn"),
    "phi3": dict(model_type="phi3", **SIZES, **EPS, sliding_window=7),
    "phi4mini": dict(model_type="phi3", **SIZES, **EPS, sliding_window=None, partial_rotary_factor=0.75)
    | dict(hidden_size=32, tie_word_embeddings=True, max_position_embeddings=30,
           original_max_position_embeddings=ORIGINAL,
           rope_scaling={"type": "longrope", "short_factor": factors(3, 1.2), "long_factor": factors(3, 3.5)}),
    "olmo2": dict(model_type="olmo2", **SIZES, **EPS),
    "granite": dict(model_type="granite", **SIZES, **EPS, embedding_multiplier=3.0,
                    attention_multiplier=0.3, residual_multiplier=0.4, logits_scaling=2.5),
    "granite_bias": dict(model_type="granite", **SIZES, **EPS, embedding_multiplier=1.5, attention_bias=True,
                         mlp_bias=True, attention_multiplier=0.6, residual_multiplier=0.7,
                         logits_scaling=0.5) | dict(tie_word_embeddings=True),
    "neox": dict(model_type="gpt_neox", **SIZES, layer_norm_eps=1e-5, rotary_pct=0.5, rotary_emb_base=100,
                 hidden_act="gelu", use_parallel_residual=True) | dict(hidden_size=32),
    "neox_serial": dict(model_type="gpt_neox", **SIZES, layer_norm_eps=1e-5, rotary_pct=1.0,
                        rotary_emb_base=100, hidden_act="gelu_new", use_parallel_residual=False),
    "gemma": dict(model_type="gemma", **SIZES, **EPS, head_dim=6) | GEMMA | dict(num_key_value_heads=1),
    "gemma2": dict(model_type="gemma2", **SIZES, **EPS, head_dim=6, sliding_window=5, query_pre_attn_scalar=6,
                   attn_logit_softcapping=3.0, final_logit_softcapping=4.0) | GEMMA,
    "gemma2_plain": dict(model_type="gemma2", **SIZES, **EPS, head_dim=4, sliding_window=6,
                         query_pre_attn_scalar=4, attn_logit_softcapping=None, final_logit_softcapping=None,
                         layer_types=["full_attention", "sliding_attention", "full_attention"]) | rope("yarn"),
    "gemma3": dict(model_type="gemma3_text", **SIZES, **EPS, head_dim=8, sliding_window=5,
                   query_pre_attn_scalar=8, rope_local_base_freq=20.0) | GEMMA | rope("linear", 4) |
    dict(num_hidden_layers=7),
    "gemma3_capped": dict(model_type="gemma3_text", **SIZES, **EPS, head_dim=6, sliding_window=6,
                          query_pre_attn_scalar=5, rope_local_base_freq=30.0, final_logit_softcapping=2.5,
                          layer_types=["full_attention", "sliding_attention", "sliding_attention"]),
}

EYES = dict(hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2, image_size=4, patch_size=2)


def without(c, *names):
    return {k: v for k, v in c.items() if k not in names}


# Of Gemma 3 much is left out, as in the files of the real ones.
MODELS |= {
    "gemma3_vision": dict(model_type="gemma3", old=True, text=dict(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=20, num_hidden_layers=7, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=5, rope_scaling={"rope_type": "linear", "factor": 8.0}),
        more=dict(vision_config=dict(EYES, model_type="siglip_vision_model"), mm_tokens_per_image=4, boi_token_index=29,
                  eoi_token_index=30, image_token_index=31)),
    "mistral3": dict(model_type="mistral3", text=dict(without(SIZES, "tie_word_embeddings"), **EPS, head_dim=4,
                                                      sliding_window=None),
                     more=dict(vision_config=dict(EYES, model_type="pixtral"), image_token_index=31)),
    "llava": dict(model_type="llava", old=True, text=dict(SIZES, **EPS, model_type="llama"), more=dict(
        vision_config=dict(EYES, model_type="clip_vision_model", projection_dim=4), image_token_index=31)),
    "smolvlm": dict(model_type="smolvlm", text=dict(SIZES, **EPS, model_type="llama"), more=dict(
        vision_config=dict(EYES, model_type="smolvlm_vision"), image_token_id=31, scale_factor=1)),
}


def make(c):
    c = copy.deepcopy(c)  # transformers changes the object it is given
    if "text" in c:
        return AutoConfig.for_model(c["model_type"], text_config=c["text"], **c["more"])
    return AutoConfig.for_model(c.pop("model_type"), **c, attn_implementation="eager")


def text_of(c):
    return c.get("text", c)


def own_name(name):
    """Of a tensor of a multimodal model's language model; None: of no text."""
    for part in ("model.language_model.", "model.text_model."):
        if name.startswith(part):
            return "model." + name[len(part):]
    return name if name.startswith("lm_head") else None


def old_name(name):
    for new, old in (("model.language_model.", "language_model.model."), ("lm_head", "language_model.lm_head"),
                     ("model.", "")):
        if name.startswith(new):
            return old + name[len(new):]
    return name


def new_name(name):
    for new, old in (("model.language_model.", "language_model.model."), ("lm_head", "language_model.lm_head")):
        if name.startswith(old):
            return new + name[len(old):]
    return name if name.startswith(("model.", "lm_head")) else "model." + name


def fresh(c, weights):
    """A model that has seen nothing else: dynamic frequencies remember."""
    auto = AutoModelForImageTextToText if "text" in c else AutoModelForCausalLM
    model = auto.from_config(make(c), attn_implementation="eager", dtype=torch.float64)
    if weights and c.get("old"):
        weights = {new_name(k): v for k, v in weights.items()}
    if weights:
        missing, odd = model.load_state_dict(weights, strict=False)
        assert not odd and all("inv_freq" in m or "lm_head" in m for m in missing), (missing, odd)
        model.tie_weights()
    if "text" in c:
        model.eval()  # else Gemma 3 wants to know which tokens are pictures; there is no dropout
    return model.double()


def init(c, seed):
    torch.manual_seed(seed)
    model = fresh(c, None)
    for name, p in model.named_parameters():
        if p.dim() == 1:
            p.data += 0.2 * torch.randn_like(p)
        else:
            p.data = torch.randn_like(p) * (0.35 if "emb" not in name else 0.8)
    keep = {}
    for name, p in model.state_dict().items():
        if make(c).get_text_config().tie_word_embeddings and name == "lm_head.weight":
            continue
        keep[old_name(name) if c.get("old") else name] = p.to(torch.bfloat16).contiguous()
    return keep


def pairs_of(c):
    c = text_of(c)
    d = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    return int(d * c.get("partial_rotary_factor", c.get("rotary_pct", 1.0))) // 2


def golden(c, weights, ids):
    out = {"ids": ids.to(torch.int32)}
    with torch.no_grad():
        out["short"] = fresh(c, weights)(input_ids=ids[:, :SHORT], use_cache=False).logits
    model = fresh(c, weights)
    res = model(input_ids=ids, labels=ids, use_cache=False)
    res.loss.backward()
    out["long"], out["loss"] = res.logits.detach(), res.loss.detach().reshape(1)
    for n, p in model.named_parameters():
        if "text" in c and not own_name(n):
            assert p.grad is None
            continue
        n = own_name(n) if "text" in c else n
        g = p.grad.flatten()
        if p.dim() == 1:
            out["grad." + n] = g
        out["square." + n] = (g ** 2).sum().reshape(1)
        out["dot." + n] = (g * torch.cos(0.7 * torch.arange(g.numel(), dtype=g.dtype))).sum().reshape(1)
    for kind, (context, scaling) in kinds(pairs_of(c)).items():
        if text_of(c).get("rope_scaling") or kind == "longrope" and c["model_type"] not in ("llama", "phi3"):
            continue
        if c["model_type"] == "phi3" and kind != "longrope":
            continue  # Phi3Config takes longrope alone
        k = {**c, "max_position_embeddings": context, "rope_scaling": scaling,
             **({"original_max_position_embeddings": ORIGINAL} if kind == "longrope" else {})}
        if "text" in c:
            k = {**c, "text": {**c["text"], "max_position_embeddings": context, "rope_scaling": scaling}}
        if k["model_type"] == "phi3":
            scaling = {x: scaling[x] for x in ("type", "short_factor", "long_factor")}
            k["rope_scaling"] = scaling
        if c["model_type"] == "olmo2":  # takes linear and dynamic alone, of two fields
            k["rope_scaling"] = {x: scaling[x] for x in ("type", "factor")}
        try:
            model = fresh(k, weights)
        except (KeyError, ValueError):
            continue
        with torch.no_grad():
            res = model(input_ids=ids, labels=ids, use_cache=False)
        out["kind." + kind] = res.logits[:, -2:]
        out["loss." + kind] = res.loss.reshape(1)
    return {k: (v if v.dtype == torch.int32 else v.float()).contiguous().clone() for k, v in out.items()}


LETTERS = "abcdefghijklmnopqrstuvwxyzABC"
FIRST, PROMPT, MORE, MARGIN = VOCAB - len(LETTERS), 14, 16, 2e-3


def letters():
    special = ["<unk>", "<s>", "</s>"]
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                              "normalized": False, "special": True} for i, t in enumerate(special)],
            "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": {"type": "Fuse"},
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "vocab": {t: i for i, t in enumerate(special + list(LETTERS))}, "merges": []}}


def continued(c, weights, prompts):
    """Tokens of each, and by how much they were likelier than the next best, at the least."""
    out = fresh(c, weights).generate(prompts, max_new_tokens=MORE, min_new_tokens=MORE, do_sample=False, num_beams=1,
                                     eos_token_id=None, pad_token_id=0, return_dict_in_generate=True,
                                     output_logits=True)
    best = torch.stack(out.logits).topk(2).values
    return out.sequences[:, PROMPT:].tolist(), (best[..., 0] - best[..., 1]).min(0).values.tolist()


def greedy(c, weights):
    prompts = torch.randint(FIRST, VOCAB, (256, PROMPT), generator=torch.Generator().manual_seed(5))
    more, margin = continued(c, weights, prompts)
    ok = [i for i in range(256) if margin[i] > MARGIN and min(more[i]) >= FIRST]
    best = max(ok, key=lambda i: len(set(more[i])))  # the least dull
    return "".join(LETTERS[i - FIRST] for i in prompts[best].tolist() + more[best])


def write_greedy():
    rows = []
    for name, c in MODELS.items():
        text = greedy(c, load_file(os.path.join(HERE, name, "model.safetensors")))
        rows.append(f"{name} {text[:PROMPT]} {text[PROMPT:]}\n")
    with open(os.path.join(HERE, "greedy.txt"), "w") as f:
        f.writelines(rows)
    with open(os.path.join(HERE, "letters.json"), "w") as f:
        json.dump(letters(), f, indent=1)
        f.write("\n")


def check_greedy():
    for row in open(os.path.join(HERE, "greedy.txt")):
        name, prompt, more = row.split()
        ids = torch.tensor([[LETTERS.index(x) + FIRST for x in prompt]])
        got, _ = continued(MODELS[name], load_file(os.path.join(HERE, name, "model.safetensors")), ids)
        assert "".join(LETTERS[i - FIRST] for i in got[0]) == more, name


def main():
    os.makedirs(HERE, exist_ok=True)
    if GREEDY:
        check_greedy() if CHECK else write_greedy()
        return
    for i, (name, c) in enumerate(MODELS.items()):
        if ONLY and name not in ONLY:
            continue
        folder, path = os.path.join(HERE, name), os.path.join(HERE, name + ".safetensors")
        if CHECK:
            if not os.path.exists(path):
                continue
            weights, was = load_file(os.path.join(folder, "model.safetensors")), load_file(path)
            got = golden(c, weights, was["ids"].long())
            assert sorted(got) == sorted(was), name
            for k, v in was.items():
                worst = float((got[k].double() - v.double()).abs().max() / v.double().abs().max())
                assert worst < 1e-5, (name, k, worst)
            continue
        os.makedirs(folder, exist_ok=True)
        weights = init(c, 100 + i)
        ids = torch.randint(0, VOCAB, (1, LONG), generator=torch.Generator().manual_seed(i))
        save_file(weights, os.path.join(folder, "model.safetensors"), {"format": "pt"})
        save_file(golden(c, weights, ids), path)
        text = json.loads(make(c).to_json_string(use_diff=True))
        text.pop("transformers_version", None)
        text.pop("_attn_implementation_autoset", None)
        text.pop("attn_implementation", None)
        if "text" in c:  # as short as the real ones
            text["text_config"] = c["text"]
            text["vision_config"] = c["more"]["vision_config"]
        text["architectures"] = [type(fresh(c, None)).__name__]
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(text, f, indent=1, sort_keys=True)
            f.write("\n")
    if CHECK and not ONLY:
        check_greedy()
    if not CHECK and not ONLY:
        write_greedy()
        with open(os.path.join(HERE, "kinds.json"), "w") as f:
            rows = {str(n): {k: {"max_position_embeddings": a, "rope_scaling": b} for k, (a, b) in kinds(n).items()}
                    for n in (2, 3, 4)}
            json.dump(rows, f, indent=1)
            f.write("\n")
    print("transformers", transformers.__version__, "checked" if CHECK else "written")


main()
