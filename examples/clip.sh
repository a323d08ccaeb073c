#!/usr/bin/env bash
# What do mismatched captions in pre-training do to a CLIP network?
#
#   examples/clip.sh FOLDER [SEED...]
#
# A tiny network learns to match generated pictures of shapes with captions such as "a photo of a red
# star on grey", of which 0 to 60 % are exchanged; then it is asked, untrained, which of sixteen shapes a
# picture shows (zero shot), and linear probes are tuned on its features. A network takes a few minutes
# on two processor cores. All goes to FOLDER; a second run makes only what is missing.
set -euo pipefail
folder=$1
shift
mkdir -p "$folder"
colours=(red orange yellow green cyan blue purple pink brown black grey white)
[[ -f $folder/templates.txt ]] || # sentences as those that it learns, over all colours
  for colour in "${colours[@]}"; do
    for ground in "${colours[@]}"; do echo "a photo of a $colour {} on $ground"; done
  done > "$folder"/templates.txt
[[ -f $folder/shapes.csv ]] || {
  echo class,words
  for shape in arrow bolt chevron circle corner crescent cross heart hexagon pentagon ring semicircle \
    square star tee triangle; do echo $shape,$shape; done
} > "$folder"/shapes.csv

for seed in "${@:-0}"; do
  for ratio in 0 0.1 0.2 0.4 0.6; do
    name=$folder/$ratio-s$seed
    nml corrupt builtin:shapes:train --limit 16000 --kind swap --ratio $ratio --seed $seed \
      -o "$name".csv --reuse
    nml pretrain builtin:shapes:train --limit 16000 --captions "$name".csv --recipe clip-tiny --seed $seed \
      --val builtin:shapes:val --resume --reuse --log "$name".jsonl -o "$name".safetensors
    nml embed builtin:shapes:val builtin:shapes:test{,:sketch,:cartoon,:noise} -m "$name".safetensors \
      --reuse -q -o "$name"/
    mkdir -p "$name"/heads
    nml tune --method zeroshot -m "$name".safetensors --class-names "$folder"/shapes.csv \
      --templates "$folder"/templates.txt --reuse -o "$name"/heads/zeroshot.safetensors
    nml tune "$name"/shapes-photo-val.h5 --method lp --seed $seed --reuse -q \
      -o "$name"/heads/lp.safetensors
    # Zero-shot heads were trained on no set, so the roles of the sets are told.
    nml eval "$name"/heads "$name"/shapes-photo-test.h5 --tag role=id --reuse -q \
      --results "$folder"/results.jsonl > /dev/null
    nml eval "$name"/heads "$name"/shapes-{sketch,cartoon,noise}-test.h5 --tag role=ood --reuse -q \
      --results "$folder"/results.jsonl > /dev/null
  done
done

nml report "$folder"/results.jsonl "$folder"/*-s*.jsonl --table
