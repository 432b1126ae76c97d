#!/usr/bin/env python3
"""Greedy continuations by transformers, for tests/test_gen.c: of the tiny models in tests/data/model.

    python3 tests/make_gen_golden.py > tests/data/gen.json

transformers 4.57, torch, safetensors; float32 on the CPU. For each model: a prompt, the tokens that
generate() goes on with (greedy, no EOS), the logprob of each, and the same with a repetition penalty.
'window': the positions and the eviction of StreamingLLM (Xiao et al. 2023, its reference: keys are kept
unturned and turned by their places in the cache), written out with plain torch: the prompt one token at a time,
then greedy tokens, each followed by an eviction to the sinks and the window.
"""
import json
import os
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama import modeling_llama as L

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "model")
PROMPT, MORE = 16, 16  # no more than the models' contexts: a cache and dynamic RoPE part ways behind them


def load(folder):
    """What 5.x calls rope_parameters, 4.57 knows as rope_theta and rope_scaling."""
    config = AutoConfig.from_pretrained(folder)
    rope = json.load(open(os.path.join(folder, "config.json"))).get("rope_parameters")
    if rope:
        config.rope_theta = rope.pop("rope_theta")
        config.rope_scaling = rope if rope["rope_type"] != "default" else None
    return AutoModelForCausalLM.from_pretrained(folder, config=config, torch_dtype=torch.float32,
                                                attn_implementation="eager").eval()


def greedy(model, prompt, penalty=1.0):
    """Tokens, and the logprob of each in the model's own distribution."""
    out = model.generate(torch.tensor([prompt]), max_new_tokens=MORE, do_sample=False, num_beams=1,
                         min_new_tokens=MORE, repetition_penalty=penalty, eos_token_id=None, pad_token_id=0,
                         return_dict_in_generate=True, output_logits=True)
    more = out.sequences[0, len(prompt):].tolist()
    return more, [torch.log_softmax(l[0].double(), -1)[t].item() for l, t in zip(out.logits, more)]


class Streaming:
    """One token at a time over [sinks | window] of unturned keys."""

    def __init__(self, model, sinks, window):
        self.m, self.sinks, self.window = model.model, sinks, window
        self.head = model.lm_head
        self.kv = [None] * len(self.m.layers)

    def step(self, token):
        c = self.m.config
        d = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        x = self.m.embed_tokens(torch.tensor([[token]]))
        n = 1 + (0 if self.kv[0] is None else self.kv[0][0].shape[2])
        cos, sin = self.m.rotary_emb(x, torch.arange(n)[None])
        for i, l in enumerate(self.m.layers):
            h, a = l.input_layernorm(x), l.self_attn
            q = a.q_proj(h).view(1, 1, -1, d).transpose(1, 2)
            k = a.k_proj(h).view(1, 1, -1, d).transpose(1, 2)
            v = a.v_proj(h).view(1, 1, -1, d).transpose(1, 2)
            if self.kv[i] is not None:
                k = torch.cat([self.kv[i][0], k], 2)
                v = torch.cat([self.kv[i][1], v], 2)
            self.kv[i] = (k, v)
            qt, _ = L.apply_rotary_pos_emb(q, q, cos[:, -1:], sin[:, -1:])
            kt, _ = L.apply_rotary_pos_emb(k, k, cos, sin)
            g = q.shape[1] // k.shape[1]
            kt, vt = kt.repeat_interleave(g, 1), v.repeat_interleave(g, 1)
            w = torch.softmax(qt @ kt.transpose(2, 3) / d ** 0.5, -1)
            x = x + a.o_proj((w @ vt).transpose(1, 2).reshape(1, 1, -1))
            x = x + l.mlp(l.post_attention_layernorm(x))
        if n >= self.sinks + self.window:  # room for the next
            drop = n + 1 - self.sinks - self.window
            for i, (k, v) in enumerate(self.kv):
                keep = lambda t: torch.cat([t[:, :, :self.sinks], t[:, :, self.sinks + drop:]], 2)
                self.kv[i] = (keep(k), keep(v))
        return self.head(self.m.norm(x))[0, 0].double()


def windowed(model, prompt, sinks, window):
    s, more, lps = Streaming(model, sinks, window), [], []
    with torch.no_grad():
        for t in prompt:
            logits = s.step(t)
        for _ in range(MORE):
            lps.append(torch.log_softmax(logits, -1).max().item())
            more.append(int(logits.argmax()))
            logits = s.step(more[-1])
    return {"sinks": sinks, "window": window, "tokens": more, "logprobs": lps}


def main():
    cases = []
    for name in sorted(os.listdir(DATA)):
        if not os.path.isdir(os.path.join(DATA, name)):
            continue
        model = load(os.path.join(DATA, name))
        vocab = model.config.vocab_size
        prompt = [(i * i * 5 + 3 * i + 1) % vocab for i in range(PROMPT)]
        more, lps = greedy(model, prompt)
        cases.append({"model": name, "prompt": prompt, "tokens": more, "logprobs": lps,
                      "penalised": greedy(model, prompt, 1.3)[0],
                      "windows": [windowed(model, prompt, 2, 8), windowed(model, prompt, 4, 12)]})
    json.dump({"cases": cases}, sys.stdout, indent=None, separators=(",", ":"))
    print()


main()
