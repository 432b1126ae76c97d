#!/usr/bin/env python3
"""tests/gpu/peer_torch.py - the same work by PyTorch, in the fastest form we know, for bench_gpu.sh.

usage: peer_torch.py SECONDS ROW ...   rows: train:CTX dense:CTX eval:CTX scratch:CTX fsdp:CTX cp:CTX
Prints a JSON line a row: tokens/s of the median step and peak GiB, or an error. A Llama-2-7B of
random weights from transformers, LoRA by peft on q k v o with embedding and norms trained, all in
bfloat16; cuDNN attention, S2 as batches of groups without a leak, head and loss in chunks,
MLP, norms and RoPE through torch.compile, layers checkpointed. scratch: 134M parameters, float32
under autocast, the whole model compiled, fused AdamW, 32 sequences a step.
Under torchrun each process has a GPU and as much work, DistributedDataParallel adds the gradients
while the backward runs, and the tokens are those of all. fsdp: the same as train, parameters sharded over
them by FSDP2 (fully_shard), layer by layer. cp: dense, one sequence over all by PyTorch's context
parallelism (ring attention, halves of the sequence mirrored for balance). PEER_TINY=1 tries the script on a CPU, but for cp.
"""
import json, os, sys, time
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama as llama

TINY = bool(os.environ.get("PEER_TINY"))
DEV = "cpu" if TINY else "cuda"
BACKENDS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION] + [SDPBackend.MATH] * TINY
END = time.time() + float(sys.argv[1])
RANK, RANKS = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
if RANKS > 1:
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    if not TINY:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("gloo" if TINY else "nccl")
CHUNK, VOCAB = 4096, 32000
sparse = False
torch._dynamo.config.recompile_limit = 64


def causal(q, k, v):
    with sdpa_kernel(BACKENDS, set_priority=True):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def s2(q, k, v):
    """One sequence [1, heads, T, d], groups of T/4; the second half of the heads shifted by half a
    group, with its first and last half groups alone."""
    h, T = q.shape[1] // 2, q.shape[2]
    G = T // 4

    def groups(x, heads, at, n, length):
        return x[0, heads, at:at + n * length].unflatten(1, (n, length)).transpose(0, 1)

    def part(heads, at, n, length):
        o = causal(*(groups(x, heads, at, n, length) for x in (q, k, v)))
        return o.permute(0, 2, 1, 3).reshape(n * length, h, -1)

    low, high = slice(0, h), slice(h, 2 * h)
    shifted = [part(high, 0, 1, G // 2), part(high, G // 2, 3, G), part(high, T - G // 2, 1, G // 2)]
    return torch.cat([part(low, 0, 4, G), torch.cat(shifted)], 1)[None]


def attention(self, hidden_states, position_embeddings=None, **unused):
    shape = (*hidden_states.shape[:2], -1, self.head_dim)
    q, k, v = (p(hidden_states).view(shape).transpose(1, 2)
               for p in (self.q_proj, self.k_proj, self.v_proj))
    q, k = llama.apply_rotary_pos_emb(q, k, *position_embeddings)
    o = s2(q, k, v) if sparse else causal(q, k, v).transpose(1, 2)
    return self.o_proj(o.reshape(*hidden_states.shape[:2], -1)), None


llama.LlamaAttention.forward = attention


class Loss(torch.autograd.Function):
    """Mean cross-entropy of h W^T, chunks of rows at a time; W is frozen."""

    @staticmethod
    def forward(ctx, h, w, y):
        n, total, dh = len(h), 0, torch.empty_like(h)
        for i in range(0, n, CHUNK):
            logits, t = (h[i:i + CHUNK] @ w.t()).float(), y[i:i + CHUNK, None]
            lse = logits.logsumexp(-1, keepdim=True)
            total = total + (lse - logits.gather(1, t)).sum()
            p = (logits - lse).exp_()
            p.scatter_add_(1, t, torch.full_like(t, -1, dtype=p.dtype))
            dh[i:i + CHUNK] = (p.to(w.dtype) @ w) / n
        ctx.save_for_backward(dh)
        return total / n

    @staticmethod
    def backward(ctx, g):
        return ctx.saved_tensors[0] * g.to(ctx.saved_tensors[0].dtype), None, None


def llama_model(dtype, **sizes):
    config = LlamaConfig(vocab_size=VOCAB, **sizes)
    config.use_cache = False
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(dtype)
    with torch.device(DEV):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model


def seven(train):
    sizes = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4) if TINY else \
        dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)
    model = llama_model(torch.bfloat16, max_position_embeddings=102400, **sizes)
    if not TINY:
        for layer in model.model.layers:
            layer.mlp.forward = torch.compile(layer.mlp.forward, dynamic=False)
        llama.LlamaRMSNorm.forward = torch.compile(llama.LlamaRMSNorm.forward, dynamic=False)
        llama.apply_rotary_pos_emb = torch.compile(llama.apply_rotary_pos_emb, dynamic=False)
    if not train:
        return model.eval(), None
    from peft import LoraConfig, get_peft_model
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    wrapped = get_peft_model(model, lora, autocast_adapter_dtype=False)
    for name, p in wrapped.named_parameters():
        p.requires_grad_("lora_" in name or "embed" in name or "norm" in name)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    whole = Whole(model.train())
    whole = sharded(whole) if train == "fsdp" else ranks(whole)
    trained = [p for p in whole.parameters() if p.requires_grad]
    return whole, torch.optim.AdamW(trained, lr=2e-5, betas=(0.9, 0.95), weight_decay=0, fused=not TINY)


def ranks(module):
    """The module as all processes train it together."""
    if RANKS == 1:
        return module
    return torch.nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=True, broadcast_buffers=False)


def sharded(module):
    """Each layer's parameters lie over all processes, and are gathered ahead of use."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for layer in module.model.model.layers:
        fully_shard(layer, mp_policy=policy)
    return fully_shard(module, mp_policy=policy)


class Whole(torch.nn.Module):
    """From ids to the loss, for DistributedDataParallel wants one forward."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y, at=None):
        h = self.model.model(input_ids=x, position_ids=at).last_hidden_state[0]
        return Loss.apply(h, self.model.lm_head.weight, y[0])


def train_step(model, opt, ctx):
    x = torch.randint(0, VOCAB, (1, ctx + 1), device=DEV)
    model(x[:, :-1], x[:, 1:]).backward()
    opt.step()
    opt.zero_grad(set_to_none=True)


def cp_step(model, opt, ctx):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.experimental import context_parallel
    x = torch.randint(0, VOCAB, (1, ctx + 1), device=DEV)
    parts = [x[:, :-1].contiguous(), x[:, 1:].contiguous(), torch.arange(ctx, device=DEV)[None]]
    with context_parallel(init_device_mesh(DEV, (RANKS,)), buffers=parts, buffer_seq_dims=[1] * 3,
                          no_restore_buffers=set(parts)):
        model(*parts).backward()
    opt.step()
    opt.zero_grad(set_to_none=True)


@torch.no_grad()
def eval_step(model, opt, ctx):
    x = torch.randint(0, VOCAB, (1, ctx + 1), device=DEV)
    h, total = model.model(input_ids=x[:, :ctx]).last_hidden_state[0], 0
    for i in range(0, ctx, CHUNK):
        logits = (h[i:i + CHUNK] @ model.lm_head.weight.t()).float()
        total = total + F.cross_entropy(logits, x[0, 1 + i:1 + i + CHUNK], reduction="sum")
    return total


def scratch_step(ctx):
    rows = 2 if TINY else 32
    model = llama_model(torch.float32, hidden_size=768, intermediate_size=2048, num_hidden_layers=2 if TINY else 12,
                        num_attention_heads=12, max_position_embeddings=ctx)
    opt = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), fused=not TINY)

    def loss(h, y):
        return F.cross_entropy((h @ model.lm_head.weight.t()).float(), y)

    # the head is not in the model's forward: it is added to the sums by itself
    net, loss = (ranks(model.model), loss) if TINY else (ranks(torch.compile(model.model)), torch.compile(loss))
    x = torch.randint(0, VOCAB, (rows, ctx + 1), device=DEV)

    def step():
        with torch.autocast(DEV, torch.bfloat16):
            h = net(input_ids=x[:, :ctx]).last_hidden_state
            value = loss(h.reshape(-1, h.shape[-1]), x[:, 1:].reshape(-1))
        value.backward()
        if RANKS > 1:
            torch.distributed.all_reduce(model.lm_head.weight.grad)
        opt.step()
        opt.zero_grad(set_to_none=True)

    return step, rows * ctx


def wait():
    if not TINY:
        torch.cuda.synchronize()
    if RANKS > 1:
        torch.distributed.barrier()


def longest(s):
    """Of all processes: they have to decide alike."""
    t = torch.tensor([s], dtype=torch.float64, device=DEV)
    if RANKS > 1:
        torch.distributed.all_reduce(t, torch.distributed.ReduceOp.MAX)
    return t.item()


def say(**row):
    if RANK == 0:
        print(json.dumps(row), flush=True)


def measure(row, step, tokens):
    """Two steps that are not counted, then five, fewer where time is short."""
    for _ in range(2):
        start = time.time()
        step()
        wait()
        last = time.time() - start
    took = []
    if not TINY:
        torch.cuda.reset_peak_memory_stats()
    while len(took) < 5 and (not took or longest(time.time() + last) < END):
        start = time.time()
        step()
        wait()
        took.append(time.time() - start)
    median = sorted(took)[len(took) // 2]
    gib = 0 if TINY else torch.cuda.max_memory_allocated() / 2**30
    say(row=row, tok_s=round(RANKS * tokens / median, 1), steps=len(took), gib=round(gib, 1), ranks=RANKS)


model = opt = kept = None
for row in sys.argv[2:]:
    kind, ctx = row.split(":")[0], int(row.split(":")[1])
    try:
        if longest(time.time()) > END:
            raise TimeoutError("no time left")
        if kind == "scratch":
            model = opt = kept = None
            measure(row, *scratch_step(ctx))
            continue
        sparse = kind in ("train", "fsdp")
        wanted = kind if kind in ("eval", "fsdp") else "train"
        if kept != wanted:
            model = opt = None
            kept = wanted
            model, opt = seven(wanted != "eval" and wanted)
        work = eval_step if kind == "eval" else cp_step if kind == "cp" else train_step
        measure(row, lambda: work(model, opt, ctx), ctx / RANKS if kind == "cp" else ctx)
    except Exception as e:
        say(row=row, error=f"{type(e).__name__}: {e}"[:200])
    if not TINY:
        torch.cuda.empty_cache()
