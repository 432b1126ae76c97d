#!/usr/bin/env python3
"""llama.cpp's decode beside lgen's: tools/bench_gen.sh calls it.

    peer_llama.py MODEL_FOLDER THREADS TOKENS

Writes the folder's bfloat16 tensors as they are into a GGUF file beside it and prints the tokens per second of
llama.cpp (xllamacpp, from PyPI) as "tok_s=N". Needs xllamacpp, gguf, numpy. Exits with 77 where they are not
there. The vocabulary is made up: random weights say nothing.
"""
import json
import os
import sys

try:
    import numpy as np
    import xllamacpp as x
    from gguf import GGMLQuantizationType, GGUFWriter
except ImportError as e:
    print("skipped: %s" % e)
    sys.exit(77)

NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
TOP = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
       "lm_head.weight": "output.weight"}


def tensors(path):
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    n = int(raw[:8].view("<u8")[0])
    for name, t in json.loads(bytes(raw[8:8 + n])).items():
        if name != "__metadata__":
            assert t["dtype"] == "BF16", name
            yield name, t["shape"], raw[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]]


def convert(folder, out):
    c = json.load(open(os.path.join(folder, "config.json")))
    d = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    w = GGUFWriter(out, "llama")
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_dimension_count(d)
    w.add_key_length(d)
    w.add_value_length(d)
    w.add_vocab_size(c["vocab_size"])
    w.add_tokenizer_model("llama")
    words = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % i for i in range(256)]
    words += [b"w%d" % i for i in range(c["vocab_size"] - len(words))]
    w.add_token_list(words)
    w.add_token_scores([0.0] * len(words))
    w.add_token_types([2, 3, 3] + [6] * 256 + [1] * (len(words) - 259))
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    files = [os.path.join(folder, f) for f in sorted(os.listdir(folder)) if f.endswith(".safetensors")]
    for name, shape, raw in (t for f in files for t in tensors(f)):
        if name in TOP:
            to = TOP[name]
        else:
            layer, part = name.split(".", 3)[2:]
            to = "blk.%s.%s.weight" % (layer, NAMES[part[:-len(".weight")]])
        if len(shape) == 1:
            wide = raw.view("<u2").astype(np.uint32) << 16
            w.add_tensor(to, wide.view(np.float32))
        else:
            w.add_tensor(to, raw.reshape(shape[0], 2 * shape[1]), raw_dtype=GGMLQuantizationType.BF16)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    folder, threads, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    path = os.path.join(folder, "peer.gguf")
    if not os.path.exists(path):
        convert(folder, path)
    p = x.CommonParams()
    p.model.path = path
    p.n_ctx = 1024
    p.n_parallel = 1
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = threads
    p.verbosity = -1
    p.warmup = False
    s = x.Server(p)
    r = s.handle_completions({"prompt": [300 + i for i in range(12)], "n_predict": tokens, "temperature": 0,
                              "ignore_eos": True, "cache_prompt": False})
    r = r if isinstance(r, dict) else json.loads(r)
    print("tok_s=%.3f" % r["timings"]["predicted_per_second"])


main()
