#!/bin/bash
# Encodes a corpus with Slurm: a Ray cluster on the nodes of one allocation, ended with it.
# NOT YET RUN. Partition, account, modules and paths are yours to fill in.
#
#   sbatch deploy/slurm-ray.sh /shared/corpus /shared/vectors [options of `llm2comp encode`]
#
# Corpus, output, model and the Python environment lie on a file system that all nodes see. Submit it again after any
# interruption (or let --requeue do so): blocks that were encoded are not encoded again.
#SBATCH --job-name=llm2comp-encode
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail

corpus=$1
output=$2
shift 2
port=$((20000 + SLURM_JOB_ID % 20000)) # several jobs may share a node
export RAY_USAGE_STATS_ENABLED=0 HF_HUB_OFFLINE=1

# who is not in this job has no token, and so no way in
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$HOME/.llm2comp-ray-$SLURM_JOB_ID"
(umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname -I | awk '{print $1}')
memory=$((256 * 1024 * 1024)) # of the object store, which holds texts on their way only

# --block keeps each `ray start` in the foreground of its srun: Slurm ends them with the job, and `ray stop`, which ends
# everybody's on a node, is never needed
srun --overlap --nodes=1 --ntasks=1 -w "$head" ray start --head --block --node-ip-address="$address" --port="$port" \
    --num-cpus="$SLURM_CPUS_PER_TASK" --object-store-memory="$memory" --include-dashboard=false &
sleep 20
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks-per-node=1 --exclude="$head" ray start --block \
        --address="$address:$port" --num-cpus="$SLURM_CPUS_PER_TASK" --object-store-memory="$memory" &
    sleep 20
fi

srun --overlap --nodes=1 --ntasks=1 -w "$head" \
    llm2comp encode "$corpus" -o "$output" --on ray --ray-address "$address:$port" "$@"
