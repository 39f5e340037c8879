#!/usr/bin/env bash
# Retrain, rebuild the engines, measure: scripts/train.sh RECIPE DATA RUN [START].
# RUN then holds NAME.fbts (float32 and bf16), NAME-int8.fbts (an int8 network as well),
# NAME-rtx.fbts (a plan for NVIDIA GPUs of any kind) and the scores; what is not installed is left
# out, and said. BUILD: further options of `fastbts build`, such as --accept-parity.
# RECIPE: name or YAML file; or a checkpoint of a run at constant rate, whose last stage is trained.
# START: checkpoint or engine file with the first weights of a new run. An interrupted run is
# continued. A recipe without end trains until SIGTERM, and then nothing is exported.
set -euo pipefail
recipe=${1:?recipe (name such as light, or YAML file), or checkpoint for its last stage}
data=$(realpath "${2:?folder of labelled cases with cases.csv}")
run=$(realpath -m "${3:?folder of the run}")
start=${4:+$(realpath -e "$4")}
python=$(realpath -s "$(command -v "${PYTHON:-python3}")")

# Measurably faster on a CPU: glibc keeps memory between steps, and torch's waiting threads sleep
# instead of taking time from the loader's process.
export MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=16000000000
export MALLOC_TOP_PAD_=268435456
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
"$python" -m training confidence --engine "$engine" --data "$data" --json "$run/confidence.json"

built=${engine%.fbts}
has() {
  "$python" -c "import $1" 2> /dev/null || { echo "without $1: $2 needs fastbts[$3]"; false; }
}
if has nncf "an int8 network" quantize; then
  "$python" -m fastbts build "$engine" -o "$built-int8.fbts" --precision int8 \
    --data "$data" ${BUILD:-}
  "$python" -m benchmarks.bench_precision --engine "$built-int8.fbts" --data "$data" \
    --json "$run/precision.json"
fi
if has tensorrt_rtx_bindings "a TensorRT-RTX plan" tensorrt-rtx; then
  "$python" -m fastbts build "$engine" -o "$built-rtx.fbts" --backend tensorrt-rtx \
    --precision fp16 ${BUILD:-}
fi
