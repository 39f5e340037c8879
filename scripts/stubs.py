"""Writes fastbts/_C.pyi from the built C++ module; with --check fails where the file differs.

python scripts/stubs.py [--check]
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

STUB = Path(__file__).resolve().parents[1] / "fastbts/_C.pyi"
PLAINER = (
    (r"typing\.SupportsInt \| typing\.SupportsIndex", "int"),
    (r"typing\.SupportsFloat \| typing\.SupportsIndex", "float"),
    (r"^(\w+: \w+) = .*$", r"\1"),
)
"""Rules that make the stub the same for each pybind11 and for each machine."""


def run(tool: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", tool, *arguments], check=True, capture_output=True)


def generated() -> str:
    """The stub as pybind11-stubgen makes it of the module, plainer and formatted."""
    with TemporaryDirectory() as folder:
        run("pybind11_stubgen", "fastbts._C", "-o", folder)
        path = Path(folder) / "fastbts/_C.pyi"
        text = path.read_text()
        for pattern, replacement in PLAINER:
            text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
        path.write_text(text)
        run("ruff", "check", "--fix-only", str(path))
        run("ruff", "format", str(path))
        return path.read_text()


def main() -> None:
    if "--check" not in sys.argv:
        STUB.write_text(generated())
    elif STUB.read_text() != generated():
        sys.exit(f"{STUB.name} differs from the C++ module: run python scripts/stubs.py")


if __name__ == "__main__":
    main()
