"""`training train` that also writes each rank's final network, for `test_resume`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from training import train
from training.__main__ import main

fit = train.fit


def fit_and_write(recipe: Any, cases: Any, run: Path, **options: Any) -> torch.nn.Module:
    network = fit(recipe, cases, run, **options)
    torch.save(network.state_dict(), run / f"rank{os.environ['RANK']}.pt")
    return network


if __name__ == "__main__":
    train.fit = fit_and_write
    main(["train", *sys.argv[1:]])
