#!/usr/bin/env python3
"""Makes tests/data/rope.json and tests/data/rope/: what transformers computes of each kind of RoPE.

Run once with torch, transformers 5 and safetensors installed (made with 5.24.0); the results are
committed. With --check nothing is written: the installed version, 4.57 say, is compared with what
is there. rope.json: a list of cases, each the configuration as config.json has it (4.x keys, which
both read), and for some lengths the inverse frequencies and the scale of cos and sin. rope/: one
tiny model, and for each kind its config.json and KIND.safetensors: ids, logits of a length within
the original context and of one beyond it, the loss and gradients of the latter, and the sum of
squares of every gradient. In float64, stored as float32.
"""
import itertools
import json
import os
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
SHORT, LONG, ORIGINAL = 12, 40, 16
CHECK = "--check" in sys.argv[1:]
STORED = ["model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight",
          "model.layers.0.input_layernorm.weight"]


def config(head_dim, context, theta, scaling, **top):
    return dict(model_type="llama", vocab_size=48, hidden_size=2 * head_dim, intermediate_size=24,
                num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
                head_dim=head_dim, max_position_embeddings=context, rms_norm_eps=1e-5,
                rope_theta=theta, rope_scaling=scaling, **top)


def make(c):
    c = json.loads(json.dumps(c))  # transformers changes the object it is given
    c.pop("model_type")
    return LlamaConfig(attn_implementation="eager", initializer_range=0.2, **c)


def table(c, length):
    """As a model that has seen nothing else would turn a text of this length."""
    rope = LlamaRotaryEmbedding(make(c))
    rope(torch.zeros(1, length, 4), torch.arange(length)[None])
    return [float("%.9g" % x) for x in rope.inv_freq], float("%.12g" % rope.attention_scaling)


def factors(n, top):
    return [round(1 + (top - 1) * i * i / (n * n), 4) for i in range(n)]


def cases():
    for d, theta in ((16, 1e4), (64, 1e4), (64, 5e5), (128, 5e5), (96, 1e6)):
        yield config(d, 4096, theta, None)
        yield config(d, 4096, theta, {"type": "linear", "factor": 4.0})
        for f, length in itertools.product((2.0, 8.0), (4000, 4097, 30000)):
            yield config(d, 4096, theta, {"type": "dynamic", "factor": f}), length
        for f, low, high, first in ((8.0, 1.0, 4.0, 8192), (32.0, 1.0, 4.0, 8192),
                                    (25.0, 1.0, 32.0, 4096), (2.5, 0.5, 3.0, 1000)):
            yield config(d, int(f * first), theta, {
                "rope_type": "llama3", "factor": f, "low_freq_factor": low,
                "high_freq_factor": high, "original_max_position_embeddings": first})
        for f, more in ((4.0, {}), (25.0, {}), (1.0, {}), (16.0, {"attention_factor": 1.0}),
                        (8.0, {"beta_fast": 16.0, "beta_slow": 2.0}),
                        (8.0, {"beta_fast": 2.0, "beta_slow": 2.0}),
                        (40.0, {"mscale": 0.707, "mscale_all_dim": 0.9}),
                        (40.0, {"mscale": 0.707}), (6.25, {"truncate": False})):
            yield config(d, int(f * 4096), theta, {
                "rope_type": "yarn", "factor": f, "original_max_position_embeddings": 4096, **more})
        for more, length in itertools.product(({}, {"attention_factor": 1.25}), (4096, 4097)):
            n = d // 2
            yield config(d, 32768, theta, {
                "rope_type": "longrope", "factor": 8.0, "short_factor": factors(n, 1.5),
                "long_factor": factors(n, 60), "original_max_position_embeddings": 4096, **more},
                original_max_position_embeddings=4096), length


def tables():
    path = os.path.join(HERE, "rope.json")
    out = []
    for case in cases():
        c, length = case if isinstance(case, tuple) else (case, 5000)
        freq, scale = table(c, length)
        out.append(dict(config=c, length=length, inv_freq=freq, scale=scale))
    if not CHECK:
        with open(path, "w") as f:
            f.write("{\"cases\": [\n" + ",\n".join(json.dumps(c) for c in out) + "\n]}\n")
        return
    was = json.load(open(path))["cases"]
    assert len(was) == len(out)
    for a, b in zip(was, out):
        assert a["config"] == b["config"] and abs(a["scale"] - b["scale"]) <= 1e-6 * a["scale"], a
        assert all(abs(x - y) <= 1e-6 * x for x, y in zip(a["inv_freq"], b["inv_freq"])), (a, b)


KINDS = {
    "default": (ORIGINAL, None),
    "linear": (48, {"type": "linear", "factor": 3.0}),
    "llama3": (40, {"rope_type": "llama3", "factor": 2.5, "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0, "original_max_position_embeddings": ORIGINAL}),
    "dynamic": (ORIGINAL, {"type": "dynamic", "factor": 2.5}),
    "yarn": (40, {"rope_type": "yarn", "factor": 2.5, "original_max_position_embeddings": ORIGINAL}),
    "longrope": (40, {"rope_type": "longrope", "factor": 2.5, "short_factor": factors(8, 1.2),
                      "long_factor": factors(8, 3.5), "original_max_position_embeddings": ORIGINAL}),
}


def golden(cfg, weights, ids):
    def fresh():
        model = LlamaForCausalLM(cfg)
        model.load_state_dict(weights)
        return model.double()
    out = {"ids": ids}
    with torch.no_grad():
        out["short"] = fresh()(input_ids=ids[:, :SHORT], use_cache=False).logits
    model = fresh()
    res = model(input_ids=ids, labels=ids, use_cache=False)
    res.loss.backward()
    out["long"], out["loss"] = res.logits.detach(), res.loss.detach().reshape(1)
    for name, p in model.named_parameters():
        if name in STORED:
            out["grad." + name] = p.grad
        out["square." + name] = (p.grad ** 2).sum().reshape(1)
    return {k: (v if v.dtype == torch.int64 else v.float()).contiguous() for k, v in out.items()}


def models():
    folder = os.path.join(HERE, "rope")
    os.makedirs(os.path.join(folder, "base"), exist_ok=True)
    torch.manual_seed(11)
    base = LlamaForCausalLM(make(config(16, ORIGINAL, 100.0, None)))
    for p in base.parameters():
        if p.dim() == 1:
            p.data += 0.1 * torch.randn_like(p)
    weights, ids = base.state_dict(), torch.randint(0, 48, (2, LONG))
    path = os.path.join(folder, "base", "model.safetensors")
    if CHECK:
        weights, ids = load_file(path), load_file(os.path.join(folder, "yarn.safetensors"))["ids"]
    else:
        save_file({k: v.contiguous() for k, v in weights.items()}, path)
    for kind, (context, scaling) in KINDS.items():
        top = {"original_max_position_embeddings": ORIGINAL} if kind == "longrope" else {}
        c = config(16, context, 100.0, scaling, **top)
        got = golden(make(c), weights, ids)
        if not CHECK:
            save_file(got, os.path.join(folder, kind + ".safetensors"))
            name = "base/config" if kind == "default" else kind
            with open(os.path.join(folder, name + ".json"), "w") as f:
                json.dump(c, f, indent=1)
                f.write("\n")
            continue
        for name, was in load_file(os.path.join(folder, kind + ".safetensors")).items():
            worst = float((got[name].double() - was.double()).abs().max() / was.double().abs().max())
            assert worst < 1e-5, (kind, name, worst)


tables()
models()
print("transformers", transformers.__version__, "checked" if CHECK else "written")
