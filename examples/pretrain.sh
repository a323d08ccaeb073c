#!/usr/bin/env bash
# What does label noise in pre-training do to the network's own validation accuracy?
#
#   examples/pretrain.sh TRAIN VAL FOLDER [RECIPE]
#
# Networks are trained with 0, 5, 10, 20 and 30 % wrong labels and two seeds, by a recipe of
# `nml pretrain --recipe list` (resnet10t-32px). An interrupted run goes on where it was; a second run
# makes only what is missing. With several GPUs: NML="torchrun --nproc-per-node 8 -m -- nmlcli".
set -euo pipefail
train=$1 val=$2 folder=$3 recipe=${4:-resnet10t-32px}
mkdir -p "$folder"

for seed in 0 1; do
  for ratio in 0 0.05 0.1 0.2 0.3; do
    name=$folder/$ratio-s$seed
    nml corrupt "$train" --ratio $ratio --seed $seed -o "$name".csv --reuse
    ${NML:-nml} pretrain "$train" --labels "$name".csv --val "$val" --recipe "$recipe" --seed $seed \
      --resume --reuse --log "$name".jsonl -o "$name".safetensors
    nml embed "$val" -m "$name".safetensors --reuse -q -o "$name".h5
    nml eval "$name".safetensors "$name".h5 --reuse -q --results "$folder"/results.jsonl > /dev/null
  done
done

nml report "$folder"/results.jsonl "$folder"/*-s?.jsonl --table
