"""The process of one contender: `python -m benchmarks.peers.worker REQUEST`.

Reads a request in JSON per line of stdin and answers each with one line of JSON. The first one, the
argument, says what to load. What libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.contender import Contender, Kit, Machine
from benchmarks.peers.registry import CONTENDERS

MODALITIES = ("flair", "t1", "t1ce", "t2")


def loaded(request: dict[str, Any]) -> Contender:
    """The contender that a request names, with its network."""
    contender = CONTENDERS[request["contender"]].made()
    kit = Kit(*(Path(request[name]) for name in ("kit", "engine", "int8_engine")))
    contender.load(kit, Machine(request["n_threads"], request["device"]))
    return contender


def predicted(contender: Contender, images: str, affine: list[Any], out: str = "") -> Any:
    """Segments arrays from images.npy; times are without reading it and writing labels."""
    # (4, Z, Y, X) in the file, so that each image has the memory order of NIfTI.
    given = np.load(images).transpose(0, 3, 2, 1)
    began = time.perf_counter(), time.process_time()
    labels = contender.predict(given, np.array(affine))
    times = {
        "seconds": time.perf_counter() - began[0],
        "processor_s": time.process_time() - began[1],
    }
    if out:
        np.save(out, labels)
    return times | {"stages_ms": contender.stages_ms}


def predicted_files(contender: Contender, folders: list[str], out: str) -> Any:
    """Segments case folders to OUT/NAME.nii.gz, one after the other or as the contender does it."""
    began = time.perf_counter(), time.process_time()
    if hasattr(contender, "predict_files"):
        contender.predict_files([Path(folder) for folder in folders], Path(out))
    else:
        for folder in map(Path, folders):
            _predict_folder(contender, folder, Path(out))
    return {
        "seconds": time.perf_counter() - began[0],
        "processor_s": time.process_time() - began[1],
    }


def _predict_folder(contender: Contender, folder: Path, out: Path) -> None:
    import nibabel as nib

    images = [nib.load(next(folder.glob(f"*_{name}.nii.gz"))) for name in MODALITIES]
    labels = contender.predict(_stacked(images), images[0].affine)
    nib.save(nib.Nifti1Image(labels, images[0].affine), out / f"{folder.name}.nii.gz")


def _stacked(images: list[Any]) -> NDArray[Any]:
    """Images (4, X, Y, Z) in the memory order of the files."""
    return np.stack([np.asanyarray(image.dataobj).T for image in images]).transpose(0, 3, 2, 1)


def peak_mb() -> float:
    """Largest resident memory of this process so far, in MB; NaN where the system has no /proc."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    kb = next((line.split()[1] for line in lines if line.startswith("VmHWM")), "nan")
    return float(kb) * 1024 / 1e6


ACTIONS: dict[str, Callable[..., dict[str, Any]]] = {"predict": predicted, "files": predicted_files}


def answers(requests: Iterator[str], first: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One answer per request; an error ends them."""
    try:
        began = time.perf_counter()
        contender = loaded(first)
        load_s = time.perf_counter() - began
        yield {"load_s": load_s, "about": contender.about, "peak_mb": peak_mb()}
        for line in requests:
            request = json.loads(line)
            answer = ACTIONS[request.pop("do")](contender, **request)
            yield answer | {"peak_mb": peak_mb()}
    except (Exception, SystemExit) as error:
        yield {"error": f"{type(error).__name__}: {error}"[:500]}


def main() -> None:
    """Answers on what was stdout; from now on that is stderr."""
    reply = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for answer in answers(iter(sys.stdin), json.loads(sys.argv[1])):
        reply.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
