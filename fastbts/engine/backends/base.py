"""What all backends share: checking what a caller hands to `infer`, what a call borrows, how an engine describes itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastbts.engine.file import EngineFile
from fastbts.engine.onnx_bytes import drop_default, read_default, read_metadata
from fastbts.errors import DeviceError, EngineFileError, OptionsError

Floats = NDArray[np.float32]
T = TypeVar("T")


class Pool(Generic[T]):
    """Lends what serves one call of `infer` at a time, such as a request: an idle one, or a new one if all are lent.

    Args:
        file: The engine's file.
        make: Makes one.
    """

    def __init__(self, file: EngineFile, make: Callable[[], T]) -> None:
        self._file, self._idle = file, list[T]()
        self._make: Callable[[], T] | None = make

    @contextmanager
    def lend(self) -> Iterator[T]:
        """Lends one for as long as the block runs; raises DeviceError once the pool has been closed."""
        make = self._make
        if make is None:
            raise closed(self._file)
        try:
            one = self._idle.pop()  # atomic, unlike a look before it
        except IndexError:
            one = make()
        try:
            yield one
        finally:
            if self._make is not None:
                self._idle.append(one)

    def close(self) -> list[T]:
        """Lends no more; returns those that are idle, for their owner to free."""
        idle, self._idle, self._make = self._idle, [], None
        return idle


def closed(file: EngineFile) -> DeviceError:
    """What a call to a closed engine raises."""
    return DeviceError(f"{file.path}: the engine has been closed; load it again")


def check_arguments(
    file: EngineFile,
    default: Floats | None,
    tensor: Floats,
    text: Floats | None,
    out: Floats | None,
) -> tuple[Floats, Floats | None, Floats]:
    """Checks the arguments of `Engine.infer` and fills in what was left out.

    Args:
        file: The engine's file.
        default: The baked text table (K, T); None where the network reads no text.
        tensor: See `Engine.infer`.
        text: See `Engine.infer`.
        out: See `Engine.infer`.
    Returns:
        Images, text table and the buffer for the logits: float32, contiguous; `out` itself where it was given.
    Raises:
        OptionsError: Something has the wrong shape or kind.
    """
    spec = file.spec
    if (
        tensor.ndim != 5
        or tensor.shape[1] != len(spec.modalities)
        or any(n == 0 or n % spec.stride for n in tensor.shape[2:])
    ):
        raise OptionsError(
            f"tensor of shape {tensor.shape}: expected (B, {len(spec.modalities)}, D, H, W) with D, H, W multiples of {spec.stride}"
        )
    shape = (len(tensor), len(spec.regions), *tensor.shape[2:])
    return (
        np.ascontiguousarray(tensor, np.float32),
        _table(file, default, text),
        _buffer(out, shape),
    )


def open_text(file: EngineFile) -> tuple[bytes, Floats | None]:
    """The file's ONNX with the input "text" freed of its default, and that default (K, T); None where it reads no text.

    Runtimes take an input that has a default for a constant, or cannot bind it.

    Raises:
        EngineFileError: `model.onnx` is no ONNX file.
    """
    onnx_bytes = file.payloads["model.onnx"]
    try:
        return drop_default(onnx_bytes, "text"), read_default(onnx_bytes, "text")
    except EngineFileError as error:
        raise EngineFileError(f"{file.path}: {error}") from None


def stored_precision(onnx_bytes: bytes | memoryview, wanted: str) -> str:
    """What the ONNX computes in, "fp32" or "fp16", for backends that take the precision from it.

    Args:
        onnx_bytes: The network.
        wanted: "auto", or what it must be: "fp32", "fp16".
    Raises:
        DeviceError: It computes in something else.
    """
    stored = read_metadata(onnx_bytes).get("precision", "fp32")
    if wanted not in ("auto", stored):
        raise DeviceError(
            f"precision {wanted!r}: the network computes in {stored}, and this backend takes the precision from the ONNX; "
            "export another with: python -m training.export --precision fp32|fp16"
        )
    return stored


def describe(file: EngineFile, **more: Any) -> dict[str, Any]:
    """What every engine's description begins with: which file, on what terms."""
    about = {
        "sha256": file.sha256,
        "license": file.manifest.get("license", "not stated"),
        "prompts": file.prompts,
    }
    return about | more


def _table(file: EngineFile, default: Floats | None, text: Floats | None) -> Floats | None:
    if text is None:
        return default
    if default is None:
        raise OptionsError(
            f"{file.path}: its network reads no text; leave `text` out or load an engine that does"
        )
    if text.shape != default.shape:
        raise OptionsError(
            f"text of shape {text.shape}: expected {default.shape}, one embedding per region"
        )
    return np.ascontiguousarray(text, np.float32)


def _buffer(out: Floats | None, shape: tuple[int, ...]) -> Floats:
    if out is None:
        return np.empty(shape, np.float32)
    if (
        out.shape != shape
        or out.dtype != np.float32
        or not out.flags.c_contiguous
        or not out.flags.writeable
    ):
        raise OptionsError(
            f"out of shape {out.shape}, {out.dtype}: expected a writable, contiguous float32 array of shape {shape}"
        )
    return out
