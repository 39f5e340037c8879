"""`training.train` under torchrun, writing each rank's final network: what `test_resume` runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from training import train

fit = train.fit


def fit_and_write(recipe: Any, cases: Any, run: Path, **options: Any) -> torch.nn.Module:
    network = fit(recipe, cases, run, **options)
    torch.save(network.state_dict(), run / f"rank{os.environ['RANK']}.pt")
    return network


if __name__ == "__main__":
    train.fit = fit_and_write
    train.main()
