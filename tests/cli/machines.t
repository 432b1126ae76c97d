#!/bin/bash
# Many machines: lprep --part deals each file to one part, and the examples of longlora(7) for
# GNU parallel, Slurm and MPI make the data set of one machine. The starters are stood in for by
# scripts that set what the real ones set.
cd "$(dirname "$0")/../.." || exit 70
export LC_ALL=C.UTF-8
. tests/cli/lib.sh
page=$PWD/man/longlora.7
for v in $(compgen -e | grep -E '^((OMPI|PMI|PMIX|SLURM)_|(LOCAL_)?RANK$|(LOCAL_)?WORLD_SIZE$)'); do unset "$v"; done

mkdir "$tmp/bin" "$tmp/w" "$tmp/w/books"
cp tests/data/tiny.model "$tmp/w/tokenizer.model"
for i in a b c d e f g h i j k l m; do sed "s/^/Book $i. /" tests/data/tiny.txt | head -n 5 > "$tmp/w/books/$i.txt"; done
cd "$tmp/w" || exit 70
lprep -q books -t tokenizer.model | lpack -q -o one
docs() { linfo --docs "$@" | cut -f 2- | sort; }
docs one > "$tmp/want"

# --- the dealing
whole() { # N: N parts hold each file once
    local k
    for k in $(seq "$1"); do lprep -q --text books --part "$k/$1"; done | sort > "$tmp/got"
    lprep -q --text books | sort | cmp - "$tmp/got"
}
every_n() { local p; for p in 1 2 3 5 12 13; do whole $p || { echo "of $p parts"; return 1; }; done; }
ok 'each file is in one part' every_n
ok 'a part is every N-th file' eval '[ "$(lprep -q --text books --part 2/5 | grep -o "Book .\. " | uniq | tr -d "\n")" = "Book b. Book g. Book l. " ]'
ok 'globs and includes are dealt too' eval '[ "$(lprep -q --text "books/[a-d].txt" --part 2/2 | wc -l)" -eq 2 ] &&
    [ "$(lprep -q --text books --include "[ab].txt" --part 2/2 | wc -l)" -eq 1 ]'
ok 'more parts than files' ends 64 '13 files cannot be split into 14 parts' lprep -q --text books --part 1/14
ok 'standard input' ends 64 'standard input cannot be split into parts' lprep -q --text --part 1/2
for bad in 0/4 5/4 4 / 1/ /4 1/4x -1/4 1/0 1/99999999999 AUTO ''; do
    ok "no part: '$bad'" ends 64 'is not K/N or auto' lprep -q --text books --part "$bad"
done
ok 'auto, where nothing says which' ends 64 'nothing in the environment' lprep -q --text books --part auto
ok '--mpi: neither does it know' ends 64 'nothing in the environment' lprep -q --text books --mpi
ok '--mpi beside --part' ends 64 'give only one of them' lprep -q --text books --mpi --part 1/2
by_mpi() {
    cmp <(OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=3 lprep -q --text books --mpi) \
        <(lprep -q --text books --part 2/3)
}
ok '--mpi: the second of three ranks' by_mpi
ok 'a batch script without a step is no rank' ends 64 'nothing in the environment' \
    env SLURM_PROCID=0 SLURM_NTASKS=4 lprep -q --text books --part auto
ok 'a rank beyond its size' ends 64 'PMI_RANK is 4, but PMI_SIZE is only 4' env PMI_RANK=4 PMI_SIZE=4 lprep -q --text books --part auto
ok 'a rank that is no number' ends 64 'is not a process number' env PMI_RANK=1x PMI_SIZE=4 lprep -q --text books --part auto
ok 'a task beyond its array' ends 64 'SLURM_ARRAY_TASK_ID is 5' \
    env SLURM_ARRAY_TASK_ID=5 SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_MIN=1 lprep -q --text books --part auto
product() { # arrays 10, 15, 20 of two ranks each: six parts
    for t in 10 15 20; do for r in 0 1; do
        SLURM_ARRAY_TASK_ID=$t SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=10 SLURM_ARRAY_TASK_STEP=5 \
            SLURM_PROCID=$r SLURM_STEP_NUM_TASKS=2 lprep -q --text books --part auto || return
    done; done | sort > "$tmp/got"
    lprep -q --text books | sort | cmp - "$tmp/got"
}
ok 'ranks within the tasks of an array' product

# --- the same bytes, however the work was divided
files_of() { (cd "$1" && ls && sha256sum *.shard && unsealed manifest.json | sed '/"command"/,$d'); } # all but the command
all_same() { # FOLDER...: are the first
    files_of "$1" > "$tmp/first"
    for d; do files_of "$d" | cmp "$tmp/first" - || { echo "$1 and $d"; return 1; }; done
}
threads() { # of lprep
    local j
    lprep -q -j 1 books -t tokenizer.model > j1.stream
    for j in 2 3 4 5 6 7 8; do lprep -q -j $j books -t tokenizer.model | cmp j1.stream - || return 1; done
}
ok 'any number of threads' threads
producers() { # the streams of parts, in whatever order, are packed to what one producer makes
    local k o='--shard-tokens 1k --split v=0.3 --seed 5'
    lprep -q books -t tokenizer.model | lpack -q $o -o p0
    for k in 1 2 3; do lprep -q books -t tokenizer.model --part $k/3 -o $k.of3 && lprep -q books -t tokenizer.model --part $k/2 -o $k.of2; done 2> "$tmp/err"
    lpack -q $o -o p1 1.of3 2.of3 3.of3 && lpack -q $o -o p2 3.of3 1.of3 2.of3 && lpack -q $o -o p3 2.of2 1.of2 &&
        lprep -q books/[j-m].txt books/[a-i].txt -t tokenizer.model | lpack -q $o -o p4 && all_same p0 p1 p2 p3 p4 &&
        [ "$(ls p0/*.shard | wc -l)" -gt 3 ]
}
ok 'any number of producers, in any order' producers
merged() { # sets of parts, merged in any order and in any groups
    local k o='--shard-tokens 1k --split v=0.3 --seed 5'
    for k in 1 2 3; do lpack -q $o -o m$k $k.of3 || return 1; done
    lpack -q --merge -o a1 m1 m2 m3 && lpack -q --merge -o a2 m3 m1 m2 && lpack -q --merge -o g m2 m3 && lpack -q --merge -o a3 g m1 &&
        all_same a1 a2 a3 && linfo --verify -q a1 && docs a1 | cmp - <(docs p0) || return 1
    for k in 1 2; do lpack -q --no-shuffle $o -o n$k $k.of3 || return 1; done
    lpack -q --merge -o u1 n1 n2 && lpack -q --merge -o u2 n2 n1 && ! all_same u1 u2 > "$tmp/err" &&
        linfo --ids u1 | cmp - <(linfo --ids n1; linfo --ids n2)
}
ok '--merge in any order; unshuffled sets in the order given' merged

# --- the starters
starter() { # NAME: 'NAME -n N COMMAND...' runs N copies; what sets rank $r of $2 is read from stdin
    { echo '#!/bin/bash'; echo 'n=$2; shift 2; for ((r = 0; r < n; r++)); do ('; cat
      echo 'exec "$@") & p+=($!); done; for i in "${p[@]}"; do wait "$i" || rc=1; done; exit $rc'; } > "$tmp/bin/$1"
    chmod +x "$tmp/bin/$1"
}
starter openmpi <<< 'export OMPI_COMM_WORLD_RANK=$r OMPI_COMM_WORLD_SIZE=$n PMIX_RANK=$r'
starter mpich <<< 'export PMI_RANK=$r PMI_SIZE=$n'
starter srun <<< 'export SLURM_PROCID=$r SLURM_STEP_NUM_TASKS=$n SLURM_NTASKS=$n SLURM_STEP_ID=0'
literal() { # FROM TO: lines of a literal block of the page, from one that begins so to one that ends so
    awk -v from="$1" -v to="$2" '!on && index($0, from) == 1 { on = 1 } on { print }
        on && substr($0, length - length(to) + 1) == to { exit }' "$page"
}
joined() { # what parts/ holds is what one machine makes
    lpack -q --merge -f -o all parts/* && linfo --verify -q all && docs all | cmp - "$tmp/want" &&
        [ "$(ls parts | wc -l)" -eq 4 ]
}
started() { # COMMAND STARTER-IN-PLACE-OF-mpirun
    rm -rf parts
    [ -n "$1" ] || { echo 'no such example'; return 1; }
    rm -f "$tmp/bin/mpirun"
    [ -z "$2" ] || ln -s "$2" "$tmp/bin/mpirun"
    PATH="$tmp/bin:$PATH" bash -c "$1" && joined
}
mpi=$(literal 'mpirun -n 4' "PMI_RANK}'")
ok 'mpirun, Open MPI' started "$mpi" openmpi
ok 'mpirun, MPICH' started "$mpi" mpich
ok 'srun' started "$(literal 'srun -n 4' "'")"
array() {
    literal '#!/bin/bash' 'TASK_ID' > prep.sh
    grep -q -- '--array=1-4' prep.sh || return 1
    rm -rf parts
    for t in 1 2 3 4; do
        SLURM_ARRAY_TASK_ID=$t SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=4 \
            SLURM_ARRAY_TASK_STEP=1 SLURM_PROCID=0 SLURM_NTASKS=1 bash prep.sh &
    done
    wait
    joined
}
ok 'an array job of Slurm' array
if parallel --version 2> /dev/null | grep -q GNU; then
    ok 'GNU parallel' started "$(literal 'seq 4 | parallel' "'")"
else
    skip 'GNU parallel' 'no GNU parallel'
fi
again() { # a part that died is made again: the same data set, byte for byte
    mv all before
    rm -r parts/3
    lprep -q books -t tokenizer.model --part 3/4 | lpack -q -o parts/3 && joined &&
        cmp <(cat before/*.shard) <(cat all/*.shard)
}
ok 'a part made again gives the same' again
echo "1..$n"
