#!/usr/bin/env bash
# Retrain, rebuild the engine, measure: scripts/train.sh RECIPE DATA RUN [START]. Continues an interrupted run; a new one begins
# from the weights of START, a checkpoint or an engine file, where that is given. RECIPE may also be the checkpoint of a run at
# constant rate: then RUN makes a network of it. A recipe without an end trains until SIGTERM comes, and exports nothing.
set -euo pipefail
recipe=${1:?name of a recipe, for example light, or a checkpoint to train to the end}
data=$(realpath "${2:?folder of labelled cases with cases.csv}")
run=$(realpath -m "${3:?folder of the run}")
start=${4:+$(realpath -e "$4")}
python=$(realpath -s "$(command -v "${PYTHON:-python3}")")

# On a CPU, keep glibc from returning memory to the system after every step, and torch's threads from spinning against the
# loader's: measurably faster.
export MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=16000000000 MALLOC_TOP_PAD_=268435456
export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0

case $recipe in *.ckpt | *.yaml) recipe=$(realpath -e "$recipe") ;; esac
cd "$(dirname "$0")/.."
case $recipe in
  *.ckpt) what=(--decay "$recipe") engine=$run/engine.fbts ;;
  *) what=(--recipe "$recipe") engine=$run/$(basename "$recipe" .yaml).fbts ;;
esac
"$python" -m training train "${what[@]}" --data "$data" --out "$run" ${start:+--start "$start"}
"$python" -m training export "$run/last.ckpt" -o "$engine"
"$python" -m training tune "$engine" --data "$data"
"$python" -m training evaluate --engine "$engine" --data "$data" --json "$run/dice-val.json"
