#!/usr/bin/env bash
# Tests the product with one choice of its dependencies: scripts/versions.sh lowest|locked|newest.
# lowest: the lower bounds of pyproject.toml. locked: constraints.txt, hashes checked. newest: what
# pip finds now. A fresh environment without torch, in build/versions.
set -euo pipefail
set=${1:?lowest, locked or newest}
cd "$(dirname "$0")/.."
venv=build/versions/$set
"${PYTHON:-python3}" -m venv --clear "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)

bounds() {
  "$venv/bin/python" - "$1" << 'PYTHON'
import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
for line in (*project["dependencies"], *extras["dicom"], *extras["nrrd"]):
    print(line.replace(">=", sys.argv[1]))
PYTHON
}

case $set in
  lowest) bounds == > "$venv/packages.txt" ;;
  newest) bounds ">=" > "$venv/packages.txt" ;;
  locked) "${pip[@]}" install --require-hashes --requirement constraints.txt
          "$venv/bin/python" -m pip freeze > "$venv/packages.txt" ;;
esac
"${pip[@]}" install --constraint "$venv/packages.txt" ".[dicom,nrrd]" \
  onnx onnxruntime cryptography hypothesis pytest pytest-xdist scipy
"$venv/bin/python" -m pip freeze | grep -i -E \
  "^(isal|numpy|nibabel|openvino|pillow|rich|typer|highdicom|pydicom|pynetdicom|pynrrd)=="
# From another folder, so that the installed package is tested and not the checkout.
tests=$PWD/tests
cd "$venv"
OMP_WAIT_POLICY=passive bin/python -P -m pytest -c "$tests/../pyproject.toml" -o pythonpath= \
  --rootdir "$tests/.." -q -n "${JOBS:-auto}" --dist loadfile --no-loadscope-reorder \
  -m "not slow and not serial and not data" \
  "$tests"/{cli,formats,read,write,pipeline,phantom,study} \
  "$tests"/test_{files,metrics,segmentation,segmenter,volume}.py
