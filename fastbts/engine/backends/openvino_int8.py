"""int8 for OpenVINO: post-training quantisation by NNCF on real cases; needs `[quantize]`."""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from fastbts.engine.backends.arguments import Floats
from fastbts.errors import DeviceError, EngineFileError

TELEMETRY = "openvino_telemetry"


def quantize(network: Any, text: Floats | None, tensors: Sequence[Floats]) -> tuple[bytes, bytes]:
    """Quantises weights and activations of convolutions and matrix products.

    Normalisation stays in floating point. The ranges of the activations come from the tensors,
    which should have the shapes of later use: instance normalisation depends on the shape.

    Args:
        network: An `openvino.Model`, its text input without a default.
        text: Default of the text input, (K, T); None where there is none.
        tensors: Prepared cases, (M, D, H, W) each.
    Returns:
        OpenVINO IR: topology (XML) and weights.
    Raises:
        DeviceError: NNCF is not installed.
        EngineFileError: NNCF cannot quantise this network.
    """
    nncf = _nncf()
    samples = [tensor[None] if text is None else [tensor[None], text] for tensor in tensors]
    try:
        with redirect_stdout(StringIO()):  # NNCF draws progress bars, also into pipes
            quantized = nncf.quantize(
                network,
                nncf.Dataset(samples),
                # MIXED was a tenth slower and no more accurate on validation cases.
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(samples),
            )
    except RuntimeError as error:
        raise EngineFileError(
            f"NNCF {nncf.__version__} cannot quantise the network: {error}"
        ) from error
    return _serialized(quantized)


def _serialized(network: Any) -> tuple[bytes, bytes]:
    import openvino

    with tempfile.TemporaryDirectory(prefix="fastbts-") as folder:
        path = Path(folder) / "network.xml"
        # In float16 the quantisation scales would lose digits.
        openvino.save_model(network, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def _nncf() -> Any:
    first = "nncf" not in sys.modules
    if first:  # None makes the import system say "not found": NNCF then sends no telemetry
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        import nncf
        from nncf.telemetry import telemetry
    except ImportError as error:
        raise DeviceError(
            "int8 needs NNCF; install it with: pip install 'fastbts[quantize]'"
        ) from error
    finally:
        if first:
            sys.modules.pop(TELEMETRY, None)
    # Where others imported NNCF before; fastbts uses no network.
    for event in ("start_session", "send_event", "end_session"):
        setattr(telemetry, event, lambda *args, **kwargs: None)
    nncf.set_log_level(logging.ERROR)
    return nncf
