#!/usr/bin/env bash
# Heads on features of texts: tuned on reviews of books, tested there and on what else a shop sells.
#
#   examples/text.sh DATA FOLDER NETWORK
#
# DATA: a folder with reviews/{books,dvd,electronics,kitchen}-{train,test}.csv, columns text and label.
# NETWORK: one of texts, hf:NAME or hf:DIR. All goes to FOLDER; a second run makes only what is missing.
set -euo pipefail
data=$1 folder=$2 network=$3
sets=$folder/sets
mkdir -p "$folder"

nml embed "$data"/reviews/*.csv -m "$network" -o "$sets"/ --reuse -q

for scale in none rms; do
  heads=$folder/heads/$scale
  mkdir -p "$heads"/lbfgs
  for preset in paper paper-text released; do
    nml tune "$sets"/reviews-books-train.h5 --method lp,mlp,nmtune --preset $preset --scale $scale \
      --seeds 3 -o "$heads"/$preset/ --reuse -q
  done
  for seed in 0 1 2; do # of the rows that l2 is chosen on
    nml tune "$sets"/reviews-books-train.h5 --method lp --solver lbfgs --val-fraction 0.2 --l2 auto \
      --scale $scale --seed $seed -o "$heads"/lbfgs/lp-s$seed.safetensors --reuse -q
  done
  for tuned in paper paper-text released lbfgs; do
    nml eval "$heads"/$tuned "$sets"/reviews-books-test.h5 --tag role=id --tag tuned=$tuned \
      --results "$folder"/results.jsonl --reuse -q
    nml eval "$heads"/$tuned "$sets"/reviews-{dvd,electronics,kitchen}-{train,test}.h5 \
      --tag role=ood --tag tuned=$tuned --results "$folder"/results.jsonl --reuse -q
  done >/dev/null
done

nml report "$folder"/results.jsonl --by scale,tuned,method,role --table
