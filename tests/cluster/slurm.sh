#!/bin/bash
# tests/cluster/slurm.sh - Slurm itself on this machine, several slurmd as several nodes: srun starts the
# ranks, a job that is stopped by SIGUSR1 goes back into the queue and goes on.
# By hand, as root, with slurmctld, slurmd, munged installed: bash tests/cluster/slurm.sh
# It starts its own munged, slurmctld and slurmd below a temporary folder, and ends them.
cd "$(dirname "$0")/../.." || exit 70
for p in slurmctld slurmd munged srun sbatch; do
    PATH="$PATH:/usr/sbin" command -v $p > /dev/null || { echo "1..0 # SKIP no $p here"; exit 0; }
done
[ "$(id -u)" -eq 0 ] || { echo '1..0 # SKIP not root'; exit 0; }
. tests/cli/lib.sh
export PATH="$PATH:/usr/sbin"
chmod 755 "$tmp"
own=()
clean() { kill "${own[@]}" 2> /dev/null; wait "${own[@]}" 2> /dev/null; }

# The least that Slurm wants: two nodes of this host, with their own ports and folders.
host=$(hostname -s)
mkdir -p "$tmp/state" "$tmp/n1" "$tmp/n2" "$tmp/munge"
chmod 700 "$tmp/munge"
head -c 1024 /dev/urandom > "$tmp/munge/key"
chmod 600 "$tmp/munge/key"
munged -F -f --key-file="$tmp/munge/key" --socket="$tmp/munge/socket" --pid-file="$tmp/munge/pid" \
    --log-file="$tmp/munge/log" --seed-file="$tmp/munge/seed" > /dev/null 2>&1 &
own+=($!)
cat > "$tmp/slurm.conf" <<END
ClusterName=here
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$tmp/munge/socket
StateSaveLocation=$tmp/state
SlurmdSpoolDir=$tmp/%n
TmpFS=$tmp/%n
SlurmctldPidFile=$tmp/slurmctld.pid
SlurmdPidFile=$tmp/%n.pid
SlurmctldLogFile=$tmp/slurmctld.log
SlurmdLogFile=$tmp/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1
MinJobAge=300
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=2
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=2
PartitionName=all Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
END
export SLURM_CONF="$tmp/slurm.conf"
slurmctld -D > /dev/null 2>&1 &
own+=($!)
for node in n1 n2; do
    slurmd -D -N $node > /dev/null 2>&1 &
    own+=($!)
done
for i in $(seq 100); do
    [ "$(sinfo -h -t idle -o %D 2> /dev/null)" = 2 ] && break
    sleep 0.2
done
idle() { sinfo; [ "$(sinfo -h -t idle -o %D)" = 2 ] || { tail -n 5 "$tmp"/*.log; return 1; }; }
ok 'two nodes are there' idle

ids 20000 1 > "$tmp/d.bin"
train=(ltrain "$tmp/d.bin" --init "$PWD/tests/data/tiny-config.json" --ctx 128 --batch 6 --micro 2 -j 1
    --lr 1e-3 --warmup 1 --log-every 0)
numbers() { grep -oE '"(step|loss_hex|grad_norm)":[^,]*' "$1/metrics.jsonl"; }
export MASTER_ADDR=127.0.0.1 # n1 and n2 are in no name service
steps() { # two nodes, two ranks each
    "${train[@]}" -q --steps 6 --processes 4 -o "$tmp/four" || return 1
    srun -N 2 -n 4 --kill-on-bad-exit=1 "${train[@]}" --steps 6 -o "$tmp/srun" 2> "$tmp/err"
    local rc=$?
    cat "$tmp/err"
    [ $rc -eq 0 ] && grep -q '4 ranks, started by Slurm' "$tmp/err" &&
        cmp <(numbers "$tmp/srun") <(numbers "$tmp/four")
}
ok 'srun: four ranks on two nodes, the bits of our own starter' steps
mpi() { # mpi KIND BY: the ranks find each other by Slurm's help, and MPI carries the data
    # tcp: two nodes that are one host would have the same names in its shared memory
    OMPI_MCA_btl=self,tcp srun --mpi="$1" -N 2 -n 4 --kill-on-bad-exit=1 "${train[@]}" --steps 6 -o "$tmp/$1" 2> "$tmp/err"
    local rc=$?
    cat "$tmp/err"
    [ $rc -eq 0 ] && grep -q "4 ranks, started by $2; what the hosts send goes by MPI" "$tmp/err" &&
        cmp <(numbers "$tmp/$1") <(numbers "$tmp/four")
}
# Slurm lists kinds whose library it then does not find: PMIx's is in Debian's libpmix-dev.
has() { srun --mpi="$1" -N 1 -n 1 true 2> /dev/null; }
for kind in "pmix Slurm libmpi.so.40" "pmi2 MPICH libmpich.so.12"; do
    read -r k by lib <<< "$kind"
    if has "$k" && ldconfig -p | grep -q "$lib"; then
        ok "srun --mpi=$k: the same" mpi "$k" "$by"
    else
        skip "srun --mpi=$k" "Slurm cannot start by $k here (PMIx: libpmix-dev), or no $lib"
    fi
done
killed() { # a rank killed: all gone, named
    srun -N 2 -n 4 --kill-on-bad-exit=1 "${train[@]}" --steps 1000000 -o "$tmp/k" 2> "$tmp/err" &
    local pid=$! i
    for i in $(seq 300); do [ "$(wc -l 2> /dev/null < "$tmp/k/metrics.jsonl")" -ge 2 ] 2> /dev/null && break; sleep 0.05; done
    kill -9 "$(pgrep -f "ltrain.* -o $tmp/k" | while read -r p; do
        tr '\0' '\n' < "/proc/$p/environ" | grep -qx SLURM_PROCID=2 && echo "$p" && break; done)"
    for i in $(seq 250); do kill -0 $pid 2> /dev/null || break; sleep 0.02; done
    wait $pid
    echo "srun: $?"
    cat "$tmp/err"
    grep -q 'rank 2 on .* has died' "$tmp/err" && ! pgrep -f "^ltrain.* -o $tmp/k"
}
ok 'a rank killed: named, all gone within 5 s' killed
cat > "$tmp/job.sh" <<END
#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=2 --requeue --open-mode=append
#SBATCH --output=$tmp/job.out
export PATH='$PATH' SLURM_CONF='$SLURM_CONF' MASTER_ADDR=127.0.0.1
srun --kill-on-bad-exit=1 ${train[@]} --steps 400 --save-every 100000 -o $tmp/job
status=\$?
echo "run ended with \$status"
[ \$status -ne 75 ] || scontrol requeue \$SLURM_JOB_ID
exit \$status
END
requeued() {
    local id i
    "${train[@]}" -q --steps 400 --save-every 100000 --processes 4 -o "$tmp/whole" || return 1
    id=$(sbatch --parsable "$tmp/job.sh") || return 1
    for i in $(seq 300); do [ "$(wc -l 2> /dev/null < "$tmp/job/metrics.jsonl")" -ge 20 ] 2> /dev/null && break; sleep 0.05; done
    scancel --signal=USR1 "$id" # as --signal=USR1@300 does before the time is over
    for i in $(seq 100); do grep -q 'run ended with 75' "$tmp/job.out" && break; sleep 0.1; done
    # a job that was put back waits for two minutes, in which its first run is cleared away
    for i in $(seq 250); do scontrol show job "$id" | grep -q JobState=PENDING && break; sleep 0.2; done
    sleep 5
    scontrol update JobId="$id" StartTime=now
    for i in $(seq 300); do grep -q 'run ended with 0' "$tmp/job.out" && break; sleep 0.2; done
    grep -q 'run ended with 0' "$tmp/job.out" || scontrol show job "$id"
    cat "$tmp/job.out"
    grep -q 'stopped by SIGUSR1 after step' "$tmp/job.out" && grep -q 'continuing after step' "$tmp/job.out" &&
        cmp <(numbers "$tmp/job") <(numbers "$tmp/whole") && cmp "$tmp/job/model.safetensors" "$tmp/whole/model.safetensors"
}
ok 'SIGUSR1: 75, requeued, and the bits of an undisturbed run' requeued
sed -n 's/^/# /p' "$tmp/why" | grep -E 'stopped by|ended with|continuing'
echo "1..$n"
