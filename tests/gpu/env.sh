# tests/gpu/env.sh - what the scripts beside it share: where things are, libraries, timed steps.
# Sourced with 'here' set to the script's folder: tests/gpu of a tree, or what 'make gpu-bundle'
# packed. BIN, SO, TOOLS: folders and module of a build; else those beside the script.
BIN=${BIN:-$here/bin} TOOLS=${TOOLS:-$here/bin} SO=${SO:-$here/lib/liblonglora_cuda.so}
command -v nvidia-smi > /dev/null && nvidia-smi -L > /dev/null 2>&1 || {
    echo "skipped: no NVIDIA GPU here (nvidia-smi -L lists none)"
    exit 0
}
[ -f "$SO" ] || { echo "no '$SO': make gpu-bundle CUDA=1, or make check-gpu" >&2; exit 69; }
out=$(mktemp -d) || exit 70

# Libraries: those of the system first, what was carried last.
. "$here/libs.sh"
for f in "$here"/lib/*.so*; do # only what this system lacks
    [ -f "$f" ] || continue
    n=${f##*/}
    [ "$n" = liblonglora_cuda.so ] && continue
    ldconfig -p 2>/dev/null | grep -q "	$n " || { mkdir -p "$out/lib" && ln -sf "$f" "$out/lib/$n"; }
done
[ -d "$out/lib" ] && LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$out/lib"
export LD_LIBRARY_PATH LONGLORA_CUDA="$SO" PATH="$TOOLS:$PATH"

t0=$(date +%s)
spent() { echo $(($(date +%s) - t0)); }
step() { # step SECONDS LOG COMMAND...: runs, keeps what it said, notes how it went
    limit=$1 log=$2 left=$((${LIMIT:-570} - $(spent)))
    shift 2
    [ $limit -gt $left ] && limit=$left
    if [ $limit -lt 10 ]; then
        echo "$log: not begun, ${LIMIT:-570} s are over (LIMIT=)" >> "$out/summary"
        return 1
    fi
    echo "== $log: $*  [$(spent) s]"
    timeout -k 5 "$limit" "$@" > "$out/$log.log" 2>&1
    rc=$?
    tail -n 45 "$out/$log.log"
    note="$log: exit $rc, $(spent) s after the start"
    [ $rc -eq 124 ] && note="$note: not finished within $limit s"
    echo "$note" >> "$out/summary"
    return $rc
}
