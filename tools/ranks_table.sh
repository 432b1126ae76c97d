#!/bin/bash
# The table of docs/ranks.md: what 'ltrain --plan' foretells of many GPUs. usage: tools/ranks_table.sh > table
# Needs no GPU. GPU, HOST_MEMORY: the card (h200), what each rank may pin (64g).
gpu=${GPU:-h200} host=${HOST_MEMORY:-64g}
number() { sed -nE "s/^ *\"$1\": ([-0-9.e+]+),?/\1/p" <<< "$plan"; }
# row NAME GPUS HOSTS OPTION...: GPUs of each host
row() {
    local name=$1 gpus=$2 hosts=$3 batch=64 plan
    shift 3
    case " $* " in *" --cp "*) ;; *) set -- "$@" --cp 1 ;; esac
    # each group of ranks has rows for a while
    [ "$hosts" -gt 1 ] && batch=512
    [ "$gpus" -gt 1 ] && set -- "$@" --gpus "$gpus" --hosts "$hosts" || set -- "${@/--cp/--dp}"
    plan=$(ltrain -q --plan --json --gpu "$gpu" --host-memory "$host" --batch $batch "$@") || return
    awk -v name="$name" -v n=$((gpus * hosts)) -v cp="$(number cp)" -v s="$(number step_s)" -v t="$(number batch_tok_s)" \
        -v one="$(number tok_s)" -v scaling="$(number scaling)" -v bare="$(number line_bare_s)" -v all="$(number line_s)" \
        -v sum="$(number exchange_s)" -v batch_s="$(number batch_s)" -v pinned="$(number pinned_bytes)" 'BEGIN {
        t = t ? t : one; cp = cp ? cp : 1
        share = s ? 100 * bare / s : 0; sums = batch_s ? 100 * sum / batch_s : 0
        first = share + sums > 10 ? "links" : pinned > 2^30 ? "copies to the host" : "operations"
        printf "| %s | %d | %.2f | %.0f | %.0f | %s | %.2f%% | %.2f%% | %.0f GiB | %s |\n", name, cp, s, t, t / n,
            n == 1 ? "1" : scaling ? sprintf("%.2f", scaling) : "no room", share, s ? 100 * all / s : 0, pinned / 2^30, first
    }'
}
seven="--recipe longlora-2023 --shape llama-2-7b"
dense="--mode lora+ --attention dense --shape llama-2-7b"
echo '| run | cp | s a micro-batch | tokens/s | a GPU | over one | waits | travels | host memory used | limited first by |'
echo '|---|---|---|---|---|---|---|---|---|---|'
for n in 1 2 4 8; do row "7B, S2, 102400, $n GPU$([ $n -gt 1 ] && echo s)" $n 1 $seven --ctx 102400 --cp $n; done
for n in 2 4 8; do row "7B, S2, 204800, $n GPUs" $n 1 $seven --ctx 204800 --cp $n; done
for n in 4 8; do row "7B, S2, 409600, $n GPUs" $n 1 $seven --ctx 409600 --cp $n; done
for n in 1 2 4 8; do row "7B, dense, 65536, $n GPU$([ $n -gt 1 ] && echo s)" $n 1 $dense --ctx 65536 --cp $n; done
for n in 2 4 8; do row "7B, dense, 131072, $n GPUs" $n 1 $dense --ctx 131072 --cp $n; done
for n in 4 8; do row "7B, S2 of 32k, 1m, $n GPUs" $n 1 $seven --ctx 1m --group 32k --cp $n; done
row '7B, S2 of 8k, 3m, 8 GPUs' 8 1 $seven --ctx 3m --group 8k --cp 8
row '8B, dense, 131072, 8 GPUs' 8 1 ${dense/llama-2-7b/llama-3-8b} --ctx 131072 --cp 8
for n in 2 4 8; do
    row "70B, S2, 32768, $n GPUs, --shard-weights $n" $n 1 ${seven/7b/70b} --ctx 32768 --cp $n --shard-weights $n
done
for n in 2 4 8; do row "7B, S2, 8192, $n GPUs, rows" $n 1 $seven --ctx 8192; done
for n in 2 8 64; do row "7B, S2, 8192, $n hosts of 8, rows" 8 $n $seven --ctx 8192; done
for n in 2 8 64; do row "7B, S2, 102400, $n hosts of 8" 8 $n $seven --ctx 102400 --cp 8; done
row '7B, S2 of 32k, 1m, 2 hosts of 8, a sequence over both' 8 2 $seven --ctx 1m --group 32k --cp 16
row '7B, dense, 131072, 2 hosts of 8, a sequence over both' 8 2 $dense --ctx 131072 --cp 16
