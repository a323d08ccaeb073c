#!/usr/bin/env bash
# Features of a large set in parts, each by a process of its own; one that was killed goes on when it is
# started again, and parts that are whole are not made again.
#
#   sbatch --array=0-7 --gpus=1 --requeue examples/embed.sh DATA MODEL FOLDER        Slurm: a job a part
#   parallel -j 2 examples/embed.sh DATA MODEL FOLDER {1}/8 ::: {0..7}               GNU parallel
#   torchrun --no-python --nproc-per-node 4 examples/embed.sh DATA MODEL FOLDER      a process a GPU
#
# The commands behind take the parts together: nml tune FOLDER/*.h5 …
set -euo pipefail
data=$1 model=$2 folder=$3
if [[ $# -gt 3 ]]; then
  shard=$4
elif [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
  shard=$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT
elif [[ -z ${RANK:-} ]]; then
  echo "which part? give I/N, or start it by Slurm or torchrun" >&2
  exit 2
else
  shard=$RANK/$WORLD_SIZE
  export CUDA_VISIBLE_DEVICES=$LOCAL_RANK
fi
mkdir -p "$folder"
part=$(printf '%s/%04d-of-%04d.h5' "$folder" "${shard%/*}" "${shard#*/}")
exec nml embed "$data" -m "$model" --shard "$shard" --resume --reuse -q -o "$part"
