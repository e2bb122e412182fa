#!/bin/bash
# Run a study on all nodes of a SLURM allocation. Options before this file are sbatch's, those behind it search/run.py's:
#
#     sbatch --nodes 4 --exclusive --time 8:00:00 search/slurm.sh --name tonight --results-dir /shared/results
#
# Two minutes before its time limit the study is asked to end after the epoch, and the job is queued again. When it
# runs again, also after a preemption, the study goes on. docs/cluster.md explains it.
#
#SBATCH --job-name tunesmith
#SBATCH --ntasks-per-node 1
#SBATCH --requeue
#SBATCH --open-mode append
#SBATCH --signal B:USR1@120

set -euo pipefail

script=$(scontrol show job --oneliner "$SLURM_JOB_ID" | sed -n 's/.* Command=\([^ ]*\).*/\1/p')
project=$(dirname "$(dirname "$script")")
python=${TUNESMITH_PYTHON:-$project/.venv/bin/python}

name=slurm-$SLURM_JOB_ID results=$project/results options=()
while [ $# -gt 0 ]; do
  case $1 in
    --name) name=$2; shift ;;
    --name=*) name=${1#*=} ;;
    --results-dir | --results-dir=*)
      [[ $1 == *=* ]] && set -- --results-dir "${1#*=}" "${@:2}"
      [[ $2 == *://* ]] && options+=(--checkpoints-dir "$2") || results=$2
      shift
      ;;
    *) options+=("$1") ;;
  esac
  shift
done

# Ray: one process of SLURM on each node; the head is on this one
export RAY_AUTH_MODE=token
export RAY_TMPDIR=${RAY_TMPDIR:-/tmp/ray-$SLURM_JOB_ID}
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
[ -e "$token" ] || (umask 077 && mkdir -p "$(dirname "$token")" && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$token")
cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE%%[!0-9]*}}
ip=$(hostname --ip-address | tr ' ' '\n' | grep -v : | head -1)
address=$ip:$((20000 + SLURM_JOB_ID % 10000))
start_ray() { # NUMBER_OF_NODES WHICH RAY_OPTIONS...
  srun --overlap --nodes "$1" --ntasks "$1" --cpus-per-task "$cpus" --kill-on-bad-exit=0 "$2" "$SLURMD_NODENAME" \
    --output "ray-%j.log" --open-mode append "$python" -m ray.scripts.scripts start --block --num-cpus "$cpus" "${@:3}" &
}
start_ray 1 --nodelist --head --node-ip-address "$ip" --port "${address#*:}"
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  start_ray $((SLURM_JOB_NUM_NODES - 1)) --exclude --address "$address"
fi
until "$python" -m ray.scripts.scripts status --address "$address" >/dev/null 2>&1; do
  [ $SECONDS -lt 300 ] || { echo "Ray has not started on $SLURMD_NODENAME within 5 minutes" >&2; exit 1; }
  sleep 1
done

is_cut=
trap 'is_cut=1; "$python" "$project/search/control.py" "$results/$name" stop &' USR1
trap 'kill -TERM "$driver"' TERM # scancel, or a preemption, after which SLURM queues the job again by itself
"$python" "$project/search/run.py" --address "$address" --name "$name" --results-dir "$results" --resume-existing \
  "${options[@]}" &
driver=$!
status=0
wait "$driver" || status=$?
while kill -0 "$driver" 2>/dev/null; do # a signal has interrupted the wait
  status=0
  wait "$driver" || status=$?
done
trap '' TERM USR1
if [ "$is_cut" ]; then
  echo "The time of the job is up: it is queued again, and the study goes on then."
  scontrol requeue "$SLURM_JOB_ID"
fi
pkill -TERM -P $$ srun || true
exit "$status"
