#!/usr/bin/env bash
# The checks for a machine with an NVIDIA GPU: scripts/gpu_check.sh OUT. The steps are sorted by
# what they are worth, each has a time limit, and a failed one does not stop the others. After each,
# a line is added to OUT/summary.jsonl and the end of its output to OUT/log.txt; a step may add
# lines of its own. All else is written to a folder of its own. Fails if a step failed. The first
# five steps take five minutes at most, all of them ten.
#
# Uses only what is installed, and no network: CUDA 13 with nvcc, ncu and compute-sanitizer; Python
# with pip, scikit-build-core, pybind11, ninja, fastbts's test packages, PyYAML, cuda-bindings,
# cupy, nibabel, and torch with CUDA and Triton. Packages that the machine lacks may be on
# PYTHONPATH. Steps whose program is missing are skipped, and say so.
#
#   FASTBTS_WEIGHTS  the network's weights, of `python -m benchmarks.torch_engine build/weights.pt`
#                    on a machine with the developers' packages (default: that file)
#   FASTBTS_STEPS    names of the steps to take (default: all)
#   FASTBTS_SCRATCH  folder for the build and the caches (default: a new one, removed at the end)
#   FASTBTS_DRY_RUN  1: no GPU, the installed fastbts; steps run on the emulated device of the
#                    tests, or are skipped. Shows that this script works, nothing about a GPU.
set -uo pipefail
out=$(realpath -m "${1:?folder for the results}")
python=$(command -v "${PYTHON:-python3}")
cd "$(dirname "$0")/.."
root=$PWD
dry=${FASTBTS_DRY_RUN:-0}
weights=$(realpath -m "${FASTBTS_WEIGHTS:-build/weights.pt}")
all="machine build tests predict ops compiled profile memcheck racecheck initcheck synccheck peers"
steps=" ${FASTBTS_STEPS:-$all} "
scratch=${FASTBTS_SCRATCH:-}
if [[ -z $scratch ]]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
fi
mkdir -p "$out" "$scratch"
worst=0

report() {  # NAME RESULT SECONDS
  printf '{"step": "%s", "result": "%s", "seconds": %s, "dry_run": %s}\n' \
    "$1" "$2" "$3" "$([[ $dry == 1 ]] && echo true || echo false)" >>"$out/summary.jsonl"
}

end_of_log() {  # NAME
  { echo "==== $1"; tail -n 200 "$scratch/$1.log"; } >>"$out/log.txt"
}

step() {  # NAME SECONDS COMMAND...: runs it, within its time
  local name=$1 limit=$2 begin=$EPOCHREALTIME status
  shift 2
  [[ $steps == *" $name "* ]] || return 0
  [[ $dry == 1 ]] && limit=600  # the emulation is slow
  timeout --kill-after 5 "$limit" "$@" >"$scratch/$name.log" 2>&1
  status=$?
  finished "$name" $status "$begin"
}

finished() {  # NAME STATUS BEGIN
  local seconds result=passed
  seconds=$(awk "BEGIN {print $EPOCHREALTIME - $3}")
  [[ $2 -ne 0 ]] && result="failed with $2"
  [[ $2 -eq 124 || $2 -eq 137 ]] && result="out of time"
  [[ $2 -ne 0 ]] && worst=1
  report "$1" "$result" "$seconds"
  end_of_log "$1"
  echo "$1: $result, $seconds s"
}

needs() {  # PROGRAM STEP...: whether it is there; else the steps are skipped
  local why="no $1 here" name
  [[ $dry == 1 ]] && why="a dry run"
  command -v "$1" >/dev/null && [[ $dry != 1 ]] && return 0
  for name in "${@:2}"; do
    [[ $steps == *" $name "* ]] && report "$name" "skipped: $why" 0
  done
  return 1
}

about_machine() {
  nvidia-smi || [[ $dry == 1 ]]
  nvcc --version
  git rev-parse HEAD
  "$python" -m pip list --disable-pip-version-check
}
export python dry
export -f about_machine

# From a copy without the sources of the package, so that the one just built is what runs.
build() {
  "$python" -m pip install --no-build-isolation --no-deps --no-index --upgrade \
    --target "$scratch/site" . --config-settings=build-dir="$scratch/build" \
    --config-settings=cmake.define.FASTBTS_CUDA=ON \
    --config-settings=cmake.define.CMAKE_CUDA_ARCHITECTURES="$architecture" &&
    mkdir -p "$scratch/run" &&
    cp -r tests training benchmarks csrc pyproject.toml "$scratch/run/"
}
architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null |
  head -n 1 | tr -d .)
architecture=${architecture:-90}
export scratch architecture
export -f build

module="benchmarks.gpu_predict" arguments=()
if [[ -f $weights ]]; then
  arguments=(--weights "$weights")
else
  echo "no $weights: predict then needs monai; see FASTBTS_WEIGHTS in this script" >&2
fi
for package in nibabel cupy torch cuda.bindings; do
  "$python" -c "from importlib.util import find_spec; exit(not find_spec('$package'))" \
    2>/dev/null || echo "no $package here: some steps will fail" >&2
done
tests=(tests/ops -n 4 -m "not slow and not serial" -k "cuda and not emulated and not interface")
if [[ $dry == 1 ]]; then
  module="tests.fakes.gpu"
  arguments+=(--shape 32 32 32 --rounds 0 --networks fp32-graph)
  tests=(tests/ops/test_window.py -k "emulated")
fi

step machine 10 bash -c about_machine
if needs nvcc build; then
  step build 70 bash -c build
  [[ $steps == *" build "* && ! -d $scratch/run ]] && exit 1  # nothing else can be checked
  cd "$scratch/run" 2>/dev/null || cd "$root"
  export PYTHONPATH="$scratch/site${PYTHONPATH:+:$PYTHONPATH}" FASTBTS_REQUIRE_CUDA=1
fi
export PYTHONDONTWRITEBYTECODE=1 TORCHINDUCTOR_CACHE_DIR="$scratch/inductor"
pytest=("$python" -m pytest -q -p no:cacheprovider -p no:benchmark)

step tests 75 "${pytest[@]}" "${tests[@]}"
step predict 90 "$python" -m "$module" "$out/summary.jsonl" "${arguments[@]}"
if needs nvidia-smi ops compiled; then
  step ops 55 "$python" -m benchmarks.cuda_ops "$out/summary.jsonl"
  step compiled 90 "$python" -m "$module" "$out/summary.jsonl" "${arguments[@]}" \
    --networks fp16-compiled fp32-compiled
fi
if needs ncu profile; then
  step profile 60 ncu --clock-control none --section SpeedOfLight --section Occupancy \
    --kernel-name regex:"plane|attention|moment|histogram|brain_box|label|resample|blend" \
    --launch-count 40 "$python" -m benchmarks.cuda_ops "$scratch/once.jsonl" --once
fi
if needs compute-sanitizer memcheck racecheck initcheck synccheck; then
  declare -A running
  begin=$EPOCHREALTIME  # all four at once
  few="cuda and not emulated and not interface and (by_hand or half or any_number)"
  for tool in memcheck racecheck initcheck synccheck; do
    [[ $steps == *" $tool "* ]] || continue
    timeout --kill-after 5 100 compute-sanitizer --tool "$tool" --error-exitcode 1 \
      --target-processes all "${pytest[@]}" tests/ops -k "$few" \
      >"$scratch/$tool.log" 2>&1 &
    running[$!]=$tool
  done
  for process in "${!running[@]}"; do
    wait "$process"
    finished "${running[$process]}" $? "$begin"
  done
fi
if needs nvidia-smi peers; then
  step peers 40 "$python" -m benchmarks.cuda_ops "$out/summary.jsonl" --compiled
fi
exit $worst
