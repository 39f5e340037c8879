"""int8 for OpenVINO: NNCF's post-training quantisation on tensors of real cases; needs the extra `[quantize]`."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbts.errors import DeviceError, EngineFileError


def quantize(
    network: Any, text: NDArray[np.float32] | None, tensors: Sequence[NDArray[np.float32]]
) -> tuple[bytes, bytes]:
    """Quantises convolutions and matrix products, weights and activations; normalisation stays in floating point.

    Activations are quantised with the ranges that they have on the tensors given: these should have the shapes of later use,
    since instance normalisation makes the shape part of the network.

    Args:
        network: An `openvino.Model`, its text input open.
        text: Default of the text input, (K, T); None where there is none.
        tensors: Prepared cases, (M, D, H, W) each.
    Returns:
        OpenVINO IR: the topology (XML) and the weights.
    Raises:
        DeviceError: NNCF is not installed.
        EngineFileError: NNCF cannot quantise this network.
    """
    nncf = _nncf()
    samples = [tensor[None] if text is None else [tensor[None], text] for tensor in tensors]
    try:
        # Symmetric activations: MIXED was a tenth slower and no more accurate on validation cases.
        with redirect_stdout(StringIO()):  # it draws progress bars, also into pipes
            small = nncf.quantize(
                network,
                nncf.Dataset(samples),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(samples),
            )
    except RuntimeError as error:
        raise EngineFileError(
            f"NNCF {nncf.__version__} cannot quantise the network: {error}"
        ) from error
    return _serialized(small)


def _serialized(network: Any) -> tuple[bytes, bytes]:
    import openvino

    with tempfile.TemporaryDirectory(prefix="fastbts-") as folder:
        path = Path(folder) / "network.xml"
        openvino.save_model(
            network, path, compress_to_fp16=False
        )  # in float16 the scales would lose digits
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def _nncf() -> Any:
    try:
        import nncf
        from nncf.telemetry import telemetry
    except ImportError as error:
        raise DeviceError(
            "int8 needs NNCF; install it with: pip install 'fastbts[quantize]'"
        ) from error
    # It would report each call to its makers; fastbts uses no network.
    for event in ("start_session", "send_event", "end_session"):
        setattr(telemetry, event, lambda *args, **kwargs: None)
    nncf.set_log_level(logging.ERROR)
    return nncf
