#!/usr/bin/env bash
# The checks for a machine with an NVIDIA GPU: scripts/gpu_check.sh OUTDIR. Builds, runs the tests
# of the ops (where a skipped CUDA test is a failure), compute-sanitizer's four tools and the
# benchmarks. Writes a log of each, tests.xml, ops.json and summary.json to OUTDIR, and fails if one
# of them fails.
#
# Uses only what is installed, and no network: CUDA 13 with nvcc and compute-sanitizer; Python with
# pip, scikit-build-core, pybind11, ninja, fastbts's test packages, PyYAML, cupy, and torch with
# CUDA and Triton, which torch.compile needs. Where FASTBTS_TENSORRT_INCLUDE names the folder of
# NvInfer.h, the TensorRT plugins too: built, loaded, and tested as without a GPU.
set -uo pipefail
out=$(realpath -m "${1:?folder for the results}")
python=$(command -v "${PYTHON:-python3}")
cd "$(dirname "$0")/.."
commit=$(git rev-parse HEAD 2>/dev/null)
mkdir -p "$out"

declare -A passed
check() {  # NAME COMMAND...
  local name=$1
  shift
  if "$@" >"$out/$name.log" 2>&1; then
    passed[$name]=true
  else
    passed[$name]=false
    tail -n 30 "$out/$name.log"
  fi
}

define=--config-settings=cmake.define
options=("$define.FASTBTS_CUDA=ON")
tests=(tests/ops)
if [[ -n ${FASTBTS_TENSORRT_INCLUDE:-} ]]; then
  FASTBTS_TENSORRT_INCLUDE=$(realpath "$FASTBTS_TENSORRT_INCLUDE")
  export FASTBTS_TENSORRT_INCLUDE
  options+=("$define.FASTBTS_TENSORRT=ON")
  options+=("$define.TensorRT_INCLUDE_DIR=$FASTBTS_TENSORRT_INCLUDE")
  tests+=(tests/engine/backends/test_tensorrt_plugins.py)
fi

# In a folder of its own, so that nothing of the machine's is changed.
check build "$python" -m pip install --no-build-isolation --no-deps --no-index --upgrade \
  --target "$out/site" . "${options[@]}" --config-settings=build-dir="$out/build"
[[ ${passed[build]} == true ]] || exit 1
if [[ -n ${FASTBTS_TENSORRT_INCLUDE:-} ]]; then
  check plugins "$python" -c "
import ctypes
n = ctypes.c_int32()
ctypes.CDLL('$out/site/fastbts/libfastbts_tensorrt.so').getCreators(ctypes.byref(n))
assert n.value == 2, n"
fi

# From a copy without the sources of the package, so that the one just built is what runs. The
# tests compile csrc once more, with an emulated device, and compare the ops with the networks of
# training.
rm -rf "$out/run"
mkdir "$out/run"
cp -r tests training benchmarks csrc pyproject.toml "$out/run/"
cd "$out/run"
export PYTHONPATH="$out/site" PYTHONDONTWRITEBYTECODE=1 FASTBTS_REQUIRE_CUDA=1
export TORCHINDUCTOR_CACHE_DIR="$out/inductor"  # instead of the machine's /tmp
pytest=("$python" -m pytest -p no:cacheprovider)
check tests "${pytest[@]}" "${tests[@]}" --junitxml "$out/tests.xml"
for tool in memcheck racecheck initcheck synccheck; do
  # A launch fails by intent; the rest left out repeats kernels on other numbers.
  check "$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 --target-processes all \
    "${pytest[@]}" tests/ops -k "cuda and not launch_that_fails and not orientation and not any_"
done
check ops "$python" -m benchmarks.cuda_ops "$out/ops.json"

{
  echo "{"
  for name in "${!passed[@]}"; do echo "  \"$name\": ${passed[$name]},"; done
  echo "  \"commit\": \"$commit\","
  device=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1)
  echo "  \"device\": \"$device\""
  echo "}"
} | tee "$out/summary.json"
[[ ! " ${passed[*]} " =~ " false " ]]
