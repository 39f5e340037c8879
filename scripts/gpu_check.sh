#!/usr/bin/env bash
# What a machine with an NVIDIA GPU must show: scripts/gpu_check.sh OUTDIR. Writes build.log, tests.xml, sanitizer-*.log,
# ops.json and summary.json there; fails if one of them fails. Takes what is installed and no network: CUDA 13 with nvcc and
# compute-sanitizer; Python with pip, scikit-build-core, pybind11, ninja, pytest, hypothesis, cupy and torch.
set -uo pipefail
out=$(realpath -m "${1:?folder for the results}")
python=$(command -v "${PYTHON:-python3}")
cd "$(dirname "$0")/.."
mkdir -p "$out"

# An install of its own, so that nothing of the machine's is changed; its packages are those of the machine.
"$python" -m venv --system-site-packages "$out/venv" || exit 1
python="$out/venv/bin/python"
if ! "$python" -m pip install --no-build-isolation --no-deps --no-index --verbose . \
  -C cmake.define.FASTBTS_CUDA=ON -C cmake.define.CMAKE_CUDA_ARCHITECTURES=native \
  -C build-dir="$out/build" >"$out/build.log" 2>&1; then
  tail -n 30 "$out/build.log"
  exit 1
fi

export FASTBTS_REQUIRE_CUDA=1
declare -A passed
check() {  # NAME COMMAND...
  local name=$1
  shift
  if "$@" >"$out/$name.log" 2>&1; then passed[$name]=true; else passed[$name]=false && tail -n 30 "$out/$name.log"; fi
}

# The tests run from a copy, so that the installed package is what they import.
rm -rf "$out/tests" && mkdir "$out/tests" && cp -r tests pyproject.toml csrc "$out/tests/"
cd "$out/tests"
check tests "$python" -m pytest tests/ops tests/test_ptxas.py -p no:cacheprovider --junitxml "$out/tests.xml"
for tool in memcheck racecheck initcheck synccheck; do
  check "sanitizer-$tool" compute-sanitizer --tool "$tool" --error-exitcode 1 --target-processes all \
    "$python" -m pytest tests/ops -p no:cacheprovider -k "cuda and not impossible_launch and not orientation and not any_number"
done
cd - >/dev/null
cp -r benchmarks "$out/tests/" && cd "$out/tests"
check ops "$python" -m benchmarks.cuda_ops "$out/ops.json"

{
  echo "{"
  for name in "${!passed[@]}"; do echo "  \"$name\": ${passed[$name]},"; done
  echo "  \"commit\": \"$(git -C "$OLDPWD" rev-parse HEAD 2>/dev/null)\","
  echo "  \"device\": \"$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | head -n 1)\""
  echo "}"
} >"$out/summary.json"
cat "$out/summary.json"
[[ ! " ${passed[*]} " =~ " false " ]]
