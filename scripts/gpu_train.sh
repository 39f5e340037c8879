#!/usr/bin/env bash
# A sitting of training on a GPU that is lent for minutes:
#   scripts/gpu_train.sh RECIPE DATA RUN SECONDS [START]
# Continues the run in RUN, or begins one from START (checkpoint or engine file), at the recipe's
# constant rate. The last third of SECONDS trains its last stage, in RUN/decay: as many steps as
# fit. Both folders then have last.ckpt, which are all that must be taken home:
#   python -m training export RUN/decay/last.ckpt -o model.fbts
# RECIPE: as in train.sh, with an endless stage. WORKERS (default: all cores but one) make the
# crops; CACHE (default: RUN/cache) keeps prepared cases. WHEELS: a folder with the packages that
# the machine lacks; then fastbts is built and installed too, without a network.
set -euo pipefail
recipe=${1:?recipe}; data=$(realpath "${2:?folder of labelled cases with cases.csv}")
run=$(realpath -m "${3:?folder of the run}"); seconds=${4:?seconds in all}
start=${5:+$(realpath -e "$5")}
case $recipe in *.yaml) recipe=$(realpath -e "$recipe") ;; esac
python=$(realpath -s "$(command -v "${PYTHON:-python3}")")
workers=${WORKERS:-$(($(nproc) > 1 ? $(nproc) - 1 : 1))}
began=$(date +%s)
cd "$(dirname "$0")/.."
if [[ -n ${WHEELS:-} ]]; then
  "$python" -m pip install --quiet --no-index --find-links "$WHEELS" \
    nibabel openvino pillow rich typer lightning monai onnx onnxscript pyyaml tensorboard
  "$python" -m pip install --quiet --no-index --no-build-isolation --no-deps .
fi
common=(--data "$data" --cache "${CACHE:-$run/cache}" --workers "$workers")

sitting() {  # SECONDS ARGUMENTS...: trains until then; SIGTERM writes a checkpoint
  local limit=$1 code=0
  shift
  timeout --foreground --signal=TERM --kill-after=60 "$limit" \
    "$python" -m training train "$@" "${common[@]}" || code=$?
  [[ $code == 124 || $code == 143 || $code == 0 ]]
}

mkdir -p "$run"
touch "$run/log.jsonl"
before=$(wc -l < "$run/log.jsonl")
sitting $((seconds * 2 / 3)) --recipe "$recipe" --out "$run" ${start:+--start "$start"}
# Seconds per step without the start, from the log of this sitting, or of earlier ones if it was too
# short for a step; then what fits into the rest.
steps=$("$python" - "$run/log.jsonl" "$before" $((began + seconds - $(date +%s))) << 'PYTHON'
import json, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
step_s = statistics.median(row["s"] for row in rows[int(sys.argv[2]):] or rows)
print(max(2, int(0.8 * (int(sys.argv[3]) - 10) / step_s)))
PYTHON
)
sitting $((began + seconds - $(date +%s) + 30)) --decay "$run/last.ckpt" --decay-steps "$steps" \
  --out "$run/decay"
echo "$(wc -l < "$run/log.jsonl") steps at constant rate, $steps in the decay: $run/decay/last.ckpt"
