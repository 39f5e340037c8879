#!/usr/bin/env bash
# Train the network for brain masks:
#   scripts/train_brain.sh RUN ANATOMY SHAPES DATA [CHECKPOINT [HEADS]]
# RUN: folder of the run; an interrupted one is continued. It has no end: stop it with SIGTERM.
# ANATOMY: folder of head label maps. SHAPES: .npz of tumour label maps. DATA: labelled cases.
# CHECKPOINT: of such a run, whose last stage is then trained in RUN (DECAY steps), exported, and
# scored on DATA and on HEADS, raw images with masks of another program. NOTE: for the manifest.
set -euo pipefail
run=$(realpath -m "${1:?folder of the run}")
anatomy=$(realpath -e "${2:?folder of head label maps}")
shapes=$(realpath -e "${3:?tumour label maps (.npz)}")
data=$(realpath -e "${4:?folder of labelled cases with cases.csv}")
source=${5:+$(realpath -e "$5")}
heads=${6:+$(realpath -e "$6")}
python=$(realpath -s "$(command -v "${PYTHON:-python3}")")

# As in train.sh.
export MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=16000000000
export MALLOC_TOP_PAD_=268435456
export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0

cd "$(dirname "$0")/.."
train=("$python" -m training train --out "$run" --cache "${CACHE:-$run/cache}" --anatomy "$anatomy"
  --shapes "$shapes" --data "$data")
[ -n "$source" ] || exec "${train[@]}" --recipe "${RECIPE:-brain}" # SIGTERM must reach it
"${train[@]}" --decay "$source" --decay-steps "${DECAY:-0}"
"$python" -m training export "$run/last.ckpt" -o "$run/fastbts-brain.fbts" --license Apache-2.0 \
  --data "synthetic heads, made of label maps of SynthSeg (BBillot/SynthSeg, Apache-2.0), label \
maps of tumours (BraTS 2020) and brains of labelled cases (BraTS 2018 to 2021, BraTS-Africa 2023)" \
  --note "${NOTE:-}"
"$python" -m training brain --engine "$run/fastbts-brain.fbts" --data "$data" \
  ${heads:+--heads "$heads"} --json "$run/scores.json"
