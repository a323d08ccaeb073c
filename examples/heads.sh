#!/usr/bin/env bash
# Heads on frozen features: methods and presets, the ablation of the three terms, noisy labels.
#
#   examples/heads.sh DATA FOLDER NETWORK...
#
# DATA: a folder with cifar10/{train,val,test}.tar, cifar10/cifar-10n.tsv and pacs/*.tar.
# NETWORK: checkpoints of nml pretrain. All goes to FOLDER; a second run makes only what is missing.
set -euo pipefail
data=$1 folder=$2
shift 2
mkdir -p "$folder"

score() { # heads, results, tags...
  local heads=$1 results=$2 sets=$3
  shift 3
  if [[ $heads == *cifar10* ]]; then
    nml eval "$heads" "$sets"/cifar10-test.h5 "$sets"/cifar10-val.h5 "$@" --results "$results" --reuse -q
  else
    nml eval "$heads" "$sets"/pacs-photo-test.h5 --tag role=id "$@" --results "$results" --reuse -q
    nml eval "$heads" "$sets"/pacs-{art_painting,cartoon,sketch}.h5 --tag role=ood "$@" \
      --results "$results" --reuse -q
  fi >/dev/null
}

for ratio in 0.1 0.2 0.3 0.4 0.5; do
  nml corrupt "$data"/cifar10/train.tar --ratio $ratio -o "$folder"/cifar10-$ratio.csv --reuse -q
done
for column in aggre random1 worse; do
  nml corrupt "$data"/cifar10/cifar-10n.tsv --from-column $column --label-column clean \
    -o "$folder"/cifar10-$column.csv --reuse -q
done

for network in "$@"; do
  name=$(basename "$network" .safetensors)
  sets=$folder/$name
  mkdir -p "$sets"
  for set in cifar10/{train,val,test} pacs/{photo-train,photo-test,art_painting,cartoon,sketch}; do
    nml embed -m "$network" "$data"/$set.tar -o "$sets"/${set/\//-}.h5 --reuse -q
  done

  for train in cifar10-train pacs-photo-train; do
    for preset in paper released; do
      heads=$folder/heads/$name/$train/$preset/
      nml tune "$sets"/$train.h5 --method lp,mlp,nmtune --preset $preset --seeds 3 -o "$heads" --reuse -q
      score "$heads" "$folder"/methods.jsonl "$sets"
    done
    for terms in "" mse cov svd mse,cov mse,svd cov,svd; do # all three are above
      heads=$folder/heads/$name/$train/terms-${terms:-none}/ off=()
      for term in mse cov svd; do [[ $terms == *$term* ]] || off+=(--$term 0); done
      nml tune "$sets"/$train.h5 --method nmtune "${off[@]}" --seeds 3 -o "$heads" --reuse -q
      score "$heads" "$folder"/terms.jsonl "$sets" --tag terms=${terms:-none}
    done
  done

  for noise in 0 0.1 0.2 0.3 0.4 0.5 aggre random1 worse; do
    labels=()
    [[ $noise == 0 ]] || labels=(--labels "$folder"/cifar10-$noise.csv)
    for loss in ce gce elr; do
      heads=$folder/heads/$name/cifar10-noise/$noise-$loss/
      nml tune "$sets"/cifar10-train.h5 "${labels[@]}" --method lp,mlp --loss $loss --seeds 3 \
        -o "$heads" --reuse -q
      score "$heads" "$folder"/noise.jsonl "$sets" --tag noise=$noise
    done
  done
done
