#!/usr/bin/env bash
# What does label noise in pre-training do to a model downstream, and does NMTune repair it?
#
# A small ResNet is pre-trained on generated shapes with 0, 10 and 30 % wrong labels. Its frozen
# features are measured (SVE, LSVR) and tuned for three tasks: shapes itself (in-domain, and out of
# domain on sketches, cartoons and noisy pictures), textures and glyphs (transfer, in-domain).
#
# usage: examples/quickstart.sh [FOLDER]      everything goes to FOLDER (quickstart/); run it again
#                                             and only what is missing or out of date is made
set -euo pipefail
mkdir -p "${1:-quickstart}"
cd "${1:-quickstart}"

for noise in 0 0.1 0.3; do
  nml corrupt builtin:shapes:train --limit 8000 --ratio $noise --reuse -o labels-$noise.csv
  nml pretrain builtin:shapes:train --limit 8000 --labels labels-$noise.csv --val builtin:shapes:val \
    -a test_resnet --size 32 --epochs 8 --reuse --log pretrain-$noise.jsonl -o network-$noise.safetensors
  nml embed builtin:{shapes,textures,glyphs}:{train,test} builtin:shapes:test:{sketch,cartoon,noise} \
    -m network-$noise.safetensors --limit 2000 --reuse -o features-$noise/
  nml spectrum features-$noise/{shapes-photo,textures,glyphs}-test.h5 \
    --reuse --results results.jsonl > /dev/null
  for task in shapes textures glyphs; do
    nml tune features-$noise/$task*-train.h5 --method lp,mlp,nmtune --reuse -o heads-$noise/$task/
    nml eval heads-$noise/$task features-$noise/$task*-test.h5 \
      --reuse --results results.jsonl > /dev/null
  done
done

nml report results.jsonl pretrain-*.jsonl --table
if python3 -c 'import matplotlib' 2> /dev/null; then
  nml report results.jsonl pretrain-*.jsonl -o quickstart.png
fi
