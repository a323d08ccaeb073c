#!/usr/bin/env bash
# Writes the README's table and figure from a real run of the quickstart (extra: plot).
#
# usage: docs/make_pictures.sh [FOLDER]      FOLDER: where the quickstart was run (quickstart/)
set -euo pipefail
docs=$(cd "$(dirname "$0")" && pwd)
folder=${1:-quickstart}
"$docs/../examples/quickstart.sh" "$folder"
for picture in quickstart.svg quickstart.png; do
  nml report "$folder"/results.jsonl "$folder"/pretrain-*.jsonl -o "$docs/$picture"
done
