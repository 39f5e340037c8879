"""Writes a folder for each engine, ready for upload to a model hub: `make hub`.

It holds the engine, its card as README.md, what the card shows, the licence, and SHA256SUMS.
Nothing is uploaded.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Writes into build/hub, or into the folder that is given."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/hub"
    for engine in sorted((ROOT / "models").glob("*.fbts")):
        folder = out / engine.stem
        write_folder(engine, folder)
        print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def write_folder(engine: Path, folder: Path) -> None:
    """All that belongs to one engine."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(engine, folder)
    shutil.copy(ROOT / "LICENSE", folder)
    card = engine.with_suffix(".md")
    text = re.sub(
        r"\[([^\]]+)\]\(([^):#]+)\)", lambda link: beside(link, card, folder), card.read_text()
    )
    if not text.startswith("---\nlicense: "):
        sys.exit(f"{card}: expected the hub's front matter, which begins with the licence")
    (folder / "README.md").write_text(text)
    sums = [f"{sha256(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / "SHA256SUMS").write_text("".join(sums))


def beside(link: re.Match[str], card: Path, folder: Path) -> str:
    """The link to a file, copied beside the card; another engine's card is in its own folder."""
    source = card.parent / link[2]
    if source.parent == card.parent:
        return f"[{link[1]}](../{source.stem}/README.md)"
    shutil.copy(source, folder)
    return f"[{link[1]}]({source.name})"


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
