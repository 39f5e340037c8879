#!/usr/bin/env bash
# Retrain, rebuild the engine, measure: scripts/train.sh RECIPE DATA RUN [START]. Continues an interrupted run; a new one begins
# from the averaged weights of the checkpoint START where that is given.
set -euo pipefail
recipe=${1:?name of a recipe, for example light}
data=$(realpath "${2:?folder of labelled cases with cases.csv}")
run=$(realpath -m "${3:?folder of the run}")
start=${4:+$(realpath -e "$4")}
python=$(realpath -s "$(command -v "${PYTHON:-python3}")")

# On a CPU, keep glibc from returning memory to the system after every step, and torch's threads from spinning against the
# loader's: measurably faster.
export MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=16000000000 MALLOC_TOP_PAD_=268435456
export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0

cd "$(dirname "$0")/.."
"$python" -m training train --recipe "$recipe" --data "$data" --out "$run" ${start:+--start "$start"}
"$python" -m training export "$run/last.ckpt" -o "$run/$recipe.fbts"
"$python" -m training tune "$run/$recipe.fbts" --data "$data"
"$python" -m training evaluate --engine "$run/$recipe.fbts" --data "$data" --json "$run/dice-val.json"
