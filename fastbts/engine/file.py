"""The engine file `.fbts`: a manifest and checked payloads in one file. See FORMAT.md."""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastbts.errors import EngineFileError
from fastbts.spec import NAME, REGIONS, EngineSpec

MAGIC = b"FASTBTS\n"
FORMAT_VERSION = 1
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 4 << 30
MAX_WINDOW = 1024  # voxels per axis: a forged spec must not make a reader ask for terabytes
MAX_CHANNELS = 8  # inputs or outputs of a network
MAX_LABEL = 255
ALIGNMENT = 64
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0  # calibrated networks have 0.5 to 3
# onnx.proto: an external_data entry of a tensor has the key "location", after its length, a varint.
EXTERNAL_KEY = re.compile(rb"location")
# Optional sections of the manifest.
SECTIONS = {
    "license": str,
    "data": str,
    "training": dict,
    "tuned": dict,
    "parity": dict,
    "prompts": dict,
    "build": dict,
    "finder": dict,
    "signature": dict,
}
_PREAMBLE = struct.Struct("<8sII32s")
"""Magic, format version, size and SHA-256 of the manifest."""


@dataclass(frozen=True)
class EngineFile:
    """An engine file whose checksums have been verified.

    Attributes:
        path: Path of the file, for messages.
        sha256: Of the complete file, for reports.
        manifest: The manifest as JSON values; `manifest["spec"]` holds the fields of `spec`.
        spec: Inputs and outputs of the network.
        payloads: Name -> bytes; "model.onnx" is always present.
    """

    path: str
    sha256: str
    manifest: dict[str, Any]
    spec: EngineSpec
    payloads: dict[str, memoryview]

    @property
    def prompts(self) -> str:
        """Text encoder that made the prompts, or why there is none; "none" if no text is read."""
        about = self.manifest.get("prompts")
        encoder = about.get("encoder") if isinstance(about, dict) else None
        return "none" if about is None else str(encoder or "not stated")


@contextmanager
def named(file: EngineFile) -> Iterator[None]:
    """Begins the messages of EngineFileErrors in the block with the file's path."""
    try:
        yield
    except EngineFileError as error:
        raise EngineFileError(f"{file.path}: {error}") from None


def write_engine_file(
    path: str | Path, spec: EngineSpec, payloads: Mapping[str, bytes | memoryview], **about: Any
) -> None:
    """Packs a network into an engine file, atomically.

    Args:
        path: Target, `.fbts` by convention.
        spec: Inputs and outputs of the network.
        payloads: Name -> content, at least "model.onnx".
        **about: Further JSON values for the manifest: training record, licence, parity, ...
    Raises:
        OutputError: The file cannot be written.
    """
    from fastbts.files import atomic_write

    with atomic_write(Path(path)) as file:
        file.write(pack_engine(spec, payloads, **about))


def pack_engine(
    spec: EngineSpec, payloads: Mapping[str, bytes | memoryview], **about: Any
) -> bytes:
    """The bytes of an engine file; see `write_engine_file`."""
    entries, offset = [], 0
    for name, content in payloads.items():
        entries.append(
            {
                "name": name,
                "offset": offset,
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
        offset = _aligned(offset + len(content))
    manifest = json.dumps({"spec": asdict(spec), **about, "payloads": entries}, indent=1).encode()
    header = (
        _PREAMBLE.pack(MAGIC, FORMAT_VERSION, len(manifest), hashlib.sha256(manifest).digest())
        + manifest
    )
    return b"".join(
        part for content in (header, *payloads.values()) for part in (content, _padding(content))
    )


def read_engine_file(path: str | Path) -> EngineFile:
    """Reads an engine file and verifies all checksums before anything interprets the payloads.

    Raises:
        EngineFileError: The file is missing, damaged, not an engine file, or too new.
    """
    return parse_engine_file(_read_bounded(Path(path)), path)


def parse_engine_file(content: bytes, path: str | Path) -> EngineFile:
    """Verifies the bytes of an engine file; `path` is for messages only.

    Raises:
        EngineFileError: See `read_engine_file`.
    """
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(hashlib.sha256, content)  # beside the digests of the payloads
        try:
            manifest, start = _manifest(content)
            payloads = _payloads(manifest, memoryview(content), start)
            spec = parse_spec(manifest.get("spec"))
        except EngineFileError as error:
            raise EngineFileError(f"{path}: {error}") from None
    return EngineFile(str(path), digest.result().hexdigest(), manifest, spec, payloads)


def _read_bounded(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise EngineFileError(
                f"{path}: no such engine file; `fastbts info` shows the shipped one"
            )
        if path.stat().st_size > MAX_FILE_BYTES:
            raise EngineFileError(
                f"{path}: {path.stat().st_size} bytes, at most {MAX_FILE_BYTES} are allowed"
            )
        return path.read_bytes()
    except OSError as error:
        raise EngineFileError(f"{path}: cannot be read: {error.strerror}") from error


def _manifest(content: bytes) -> tuple[dict[str, Any], int]:
    if len(content) < _PREAMBLE.size or content[:8] != MAGIC:
        raise EngineFileError(
            f"not an engine file: expected it to begin with {MAGIC!r}, got {content[:8]!r}"
        )
    _, version, size, digest = _PREAMBLE.unpack_from(content)
    if version != FORMAT_VERSION:
        raise EngineFileError(
            f"format version {version}, this fastbts reads version {FORMAT_VERSION}; "
            "update fastbts or rebuild the file"
        )
    if size > MAX_MANIFEST_BYTES:
        raise EngineFileError(
            f"manifest of {size} bytes, at most {MAX_MANIFEST_BYTES} are allowed; "
            "the file is damaged, copy it again"
        )
    if _PREAMBLE.size + size > len(content):
        raise EngineFileError(
            f"manifest of {size} bytes in a file of {len(content)} bytes: "
            "truncated or damaged; copy it again"
        )
    raw = content[_PREAMBLE.size : _PREAMBLE.size + size]
    if hashlib.sha256(raw).digest() != digest:
        raise EngineFileError(
            "manifest does not match its checksum: the file is damaged; copy it again"
        )
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise EngineFileError(f"manifest is not JSON: {error}; export it again") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("payloads"), list):
        raise EngineFileError("manifest has no list of payloads; export the engine again")
    wrong = [
        f"{name} = {manifest[name]!r:.40}"
        for name, kind in SECTIONS.items()
        if not isinstance(manifest.get(name, kind()), kind)
    ]
    if wrong:
        raise EngineFileError(
            f"manifest has sections of a wrong type: {', '.join(wrong)}; export it again"
        )
    return manifest, _end_of_padding(memoryview(content), _PREAMBLE.size + size)


def _payloads(manifest: dict[str, Any], content: memoryview, start: int) -> dict[str, memoryview]:
    """The payloads, which must follow each other without holes up to the end of the file."""
    payloads: dict[str, memoryview] = {}
    end = start
    for entry in manifest["payloads"]:
        name, offset, size, digest = _entry(entry)
        if start + offset != end or name in payloads:
            raise EngineFileError(
                f"payload {name!r} at offset {offset}, expected {end - start}: "
                "holes and overlaps are refused"
            )
        payload = content[end : end + size]
        if len(payload) != size:
            raise EngineFileError(
                f"payload {name!r} is truncated: {len(payload)} of {size} bytes; copy it again"
            )
        if hashlib.sha256(payload).hexdigest() != digest:
            raise EngineFileError(
                f"payload {name!r} does not match its checksum: the file is damaged, copy it again"
            )
        payloads[name] = payload
        end = _end_of_padding(content, end + size)
    if "model.onnx" not in payloads or end != len(content):
        raise EngineFileError(
            f"expected a payload 'model.onnx' and {end} bytes, got {len(content)} bytes with "
            f"{sorted(payloads)}"
        )
    if _refers_outside(payloads["model.onnx"]):
        raise EngineFileError(
            "model.onnx refers to data in other files; expected a self-contained network; "
            "export it again"
        )
    return payloads


def _refers_outside(onnx: memoryview) -> bool:
    """Whether an ONNX has external data. Searching for the plain key first is ten times faster."""
    return any(_is_length_8(onnx, key.start()) for key in EXTERNAL_KEY.finditer(onnx))


def _is_length_8(onnx: memoryview, end: int) -> bool:
    """Whether the varint 8 ends at `end`: 08, or 88, any number of 80, then 00."""
    if end == 0 or onnx[end - 1]:
        return end > 0 and onnx[end - 1] == 0x08
    at = end - 1
    while at > 0 and onnx[at - 1] == 0x80:
        at -= 1
    return at > 0 and onnx[at - 1] == 0x88


def _end_of_padding(content: memoryview, end: int) -> int:
    """The next aligned position. The bytes before it must be zero, so that all bits are checked."""
    padding = content[end : _aligned(end)]
    if len(padding) != _aligned(end) - end or any(padding):
        raise EngineFileError("padding is missing or not zero: the file is damaged, copy it again")
    return _aligned(end)


def _entry(entry: Any) -> tuple[str, int, int, str]:
    kinds = {"name": str, "offset": int, "size": int, "sha256": str}
    if not isinstance(entry, dict) or any(
        type(entry.get(k)) is not kind for k, kind in kinds.items()
    ):
        raise EngineFileError(f"payload entry {entry!r}: expected name, offset, size and sha256")
    if not 0 <= entry["size"] <= MAX_FILE_BYTES or not 0 <= entry["offset"] <= MAX_FILE_BYTES:
        raise EngineFileError(
            f"payload {entry['name']!r}: size {entry['size']} at offset {entry['offset']} is "
            "out of bounds"
        )
    return entry["name"], entry["offset"], entry["size"], entry["sha256"]


def parse_spec(values: Any) -> EngineSpec:
    """Builds the spec from JSON values.

    Raises:
        EngineFileError: Missing or unknown fields, wrong types, or contradictory values.
    """
    default = asdict(EngineSpec())
    # Older files of glioma engines have no labels, and no rule for stray core.
    if not isinstance(values, dict) or {*values, "labels", "stray_core_mm3"} != set(default):
        raise EngineFileError(
            f"manifest's spec: expected exactly the fields {', '.join(default)}, got {values!r}"
        )
    plain: dict[str, Any] = {k: _plain(v) for k, v in values.items()}
    wrong = [k for k, v in plain.items() if not _same_kind(v, default[k])]
    if wrong:
        raise EngineFileError(
            f"manifest's spec: wrong type of {', '.join(f'{k} = {plain[k]!r}' for k in wrong)}"
        )
    spec = EngineSpec(**plain)
    if "labels" not in plain and len(spec.regions) > 1 and spec.regions != REGIONS:
        raise EngineFileError(
            f"manifest's spec has no labels of {', '.join(spec.regions)}; expected those of each "
            "region; export the engine again"
        )
    if not _consistent(spec):
        raise EngineFileError(f"manifest's spec contradicts itself: {spec}")
    return spec


def _plain(value: Any) -> Any:
    """Lists of JSON as tuples."""
    return tuple(map(_plain, value)) if isinstance(value, list) else value


def _same_kind(value: Any, example: Any) -> bool:
    if isinstance(example, tuple):
        # Only lists of names may be empty: the default of `optional_modalities` is.
        kind = example[0] if example else ""
        return (
            isinstance(value, tuple)
            and bool(value or not example)
            and all(_same_kind(v, kind) for v in value)
        )
    return type(value) is type(example) or (isinstance(example, float) and type(value) is int)


def _consistent(spec: EngineSpec) -> bool:
    low, high = spec.percentiles if len(spec.percentiles) == 2 else (1, 0)
    return (
        len(spec.thresholds) == len(spec.regions)
        and all(0 < t < 1 for t in spec.thresholds)
        and _are_names(spec.regions)
        and len(spec.labels) == len(spec.regions)
        and all(0 < label <= MAX_LABEL for labels in spec.labels for label in labels)
        and (spec.is_glioma or not (spec.min_et_mm3 or spec.stray_core_mm3))
        and _are_names(spec.modalities)
        and 0 <= low < high <= 100
        and spec.stride > 0
        and len(spec.window) == 3
        and spec.takes(spec.window)
        and max(spec.window) <= MAX_WINDOW
        and 0 < spec.spacing_mm < math.inf
        and 0 <= spec.min_et_mm3 < math.inf
        and 0 <= spec.stray_core_mm3 < math.inf
        and 0 <= spec.min_part_mm3 < math.inf
        and len(spec.temperatures) == len(spec.regions)
        and all(MIN_TEMPERATURE <= t <= MAX_TEMPERATURE for t in spec.temperatures)
        and len(set(spec.optional_modalities) & set(spec.modalities))
        == len(spec.optional_modalities)
    )


def _are_names(names: tuple[str, ...]) -> bool:
    """Whether these can be the channels of a network: some different names."""
    different = 0 < len(set(names)) == len(names) <= MAX_CHANNELS
    return different and all(map(NAME.fullmatch, names))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _padding(content: bytes | memoryview) -> bytes:
    return bytes(_aligned(len(content)) - len(content))
