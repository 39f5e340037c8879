"""Trains the shipped network on your own cases, and compares it with the shipped one.

    pip install -e '.[train,evaluate]'
    python -m examples.train_own_data DATA RUN

DATA holds case folders and a cases.csv (see training/README.md); the recipe is `own_data.yaml`. If
it is interrupted, the same command continues. Writes RUN/own.fbts, the new engine, and prints two
tables of Dice of the `val` cases: of the shipped engine, and of the new one. Take the new one only
if it is better on cases that neither was trained on:

    fastbts predict CASE_FOLDER --engine RUN/own.fbts
"""

import sys
from pathlib import Path

from fastbts.engine.load import default_engine_path
from training.__main__ import main as training

RECIPE = Path(__file__).with_name("own_data.yaml")


def command(*arguments: object) -> None:
    """Runs `python -m training ...` in this process, and stops where it fails."""
    try:
        training([str(argument) for argument in arguments])
    except SystemExit as done:
        if done.code:
            raise


def train(data: Path, run: Path, recipe: Path = RECIPE) -> Path:
    """Trains, exports and scores; returns the engine."""
    shipped, own = default_engine_path(), run / "own.fbts"
    command("train", "--recipe", recipe, "--start", shipped, "--data", data, "--out", run)
    command("export", run / "last.ckpt", "-o", own)
    for engine in (shipped, own):
        command("evaluate", "--engine", engine, "--data", data)
    return own


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]))
