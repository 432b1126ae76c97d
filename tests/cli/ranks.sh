# tests/cli/ranks.sh - what the scripts of runs of many processes share. Sourced behind lib.sh.
numbers() { grep -oE '"(step|loss|grad_norm)":[^,]*' "$1/metrics.jsonl"; }
bits() { grep -oE '"loss_hex":"[^"]*"|"grad_norm":[^,]*' "$1/metrics.jsonl"; }
close_to() { # close_to FOLDER REFERENCE: losses and norms to a millionth
    paste <(numbers "$1") <(numbers "$2") | awk -F '[:\t]' '
        { d = $2 - $4; if ($1 != $3 || (d < 0 ? -d : d) > 1e-6 * ($2 < 0 ? -$2 : $2)) { print; bad = 1 } }
        END { exit bad || NR < 18 }'
}
same() { # same FOLDER REFERENCE: to the bit, and nothing half-written stays
    cmp "$1/model.safetensors" "$2/model.safetensors" && cmp <(bits "$1") <(bits "$2") &&
        ! ls -d "$1"/*.tmp* "$1"/checkpoints/*.tmp 2> /dev/null
}
ranks_of() { # ranks_of PARENT: from /proc, as a bare system has no pgrep
    local f s
    for f in /proc/[0-9]*/stat; do
        { read -r s < "$f"; } 2> /dev/null && [[ $s == *"(ltrain) "?" $1 "* ]] && echo "${s%% *}"
    done
}
lives() { # one of them; who has ended and was not waited for does not
    local i
    for i; do kill -0 "$i" 2> /dev/null && ! grep -qs ') Z' "/proc/$i/stat" && return; done
    return 1
}
over() { # over MS: the starter and all ranks are gone by then; sets rc
    local i
    for i in $(seq $(($1 / 20))); do lives "$pid" "${kids[@]}" || break; sleep 0.02; done
    if lives "$pid" "${kids[@]}"; then kill -9 "$pid" "${kids[@]}" 2> /dev/null; echo "not over after $1 ms"; return 1; fi
    wait "$pid"
    rc=$?
    cat "$tmp/err"
}
mpi() { # mpi NAME N COMMAND...; exec=exec: in place of this shell
    local name=$1 k=$2
    local -x ASAN_OPTIONS=${ASAN_OPTIONS-}:detect_leaks=0 # the MPIs give nothing back at their end
    shift 2
    case $name in
    openmpi) $exec mpirun.openmpi --allow-run-as-root --oversubscribe --mca btl_vader_single_copy_mechanism none \
        -n "$k" "$@" ;;
    mpich) $exec mpirun.mpich -n "$k" "$@" ;;
    esac
}
