"""int8 for OpenVINO: post-training quantisation by NNCF on real cases; needs `[quantize]`."""

from __future__ import annotations

import logging
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from fastbts.engine.backends.arguments import Floats
from fastbts.errors import DeviceError, EngineFileError

TELEMETRY = "openvino_telemetry"
LAYERS = ("Convolution", "ConvolutionBackpropData")
MAX_WORK = 0.1
"""Share of the multiplications of convolutions that may be left in floating point: less than one
convolution at the finest level, as those in floating point cost most of int8's speed."""
N_MEASURED = 3
"""Cases on which the sensitivity of convolutions is measured."""
MIN_REGION = 500
Run = Callable[[Any, str, Sequence[list[Floats]]], list[Floats]]


def quantize(
    network: Any, text: Floats | None, tensors: Sequence[Floats], run: Run
) -> tuple[bytes, bytes]:
    """Quantises weights and activations of convolutions and matrix products, but for the most
    sensitive convolutions.

    Normalisation stays in floating point. The ranges of the activations come from the tensors,
    which should have the shapes of later use: instance normalisation depends on the shape.

    Args:
        network: An `openvino.Model`, its text input without a default.
        text: Default of the text input, (K, T); None where there is none.
        tensors: Prepared cases, (M, D, H, W) each.
        run: Gives a model's logits for samples, computed in "fp32" or "int8".
    Returns:
        OpenVINO IR: topology (XML) and weights.
    Raises:
        DeviceError: NNCF is not installed.
        EngineFileError: NNCF cannot quantise this network.
    """
    samples = [[tensor[None]] if text is None else [tensor[None], text] for tensor in tensors]
    # A corrected bias would be wrong for a layer that is not quantised.
    everything = _quantized(network, samples, disable_bias_correction=True)
    gains = sensitivities(network, everything, samples[:N_MEASURED], run)
    kept = worth_keeping(gains, _work(everything, tensors[0].shape[1:]))
    return _serialized(_quantized(network, samples, kept))


def worth_keeping(gains: Mapping[str, float], work: Mapping[str, float]) -> list[str]:
    """Convolutions to leave in floating point: those with the largest gain per multiplication, for
    at most `MAX_WORK` of all multiplications."""
    kept, left = [], MAX_WORK * sum(work.values())
    for name in sorted(gains, key=lambda name: gains[name] / work[name], reverse=True):
        if gains[name] > 0 and work[name] <= left:
            kept.append(name)
            left -= work[name]
    return kept


def sensitivities(
    network: Any, quantized: Any, samples: Sequence[list[Floats]], run: Run
) -> dict[str, float]:
    """Name of a convolution -> share of the error of int8 that its quantised input makes.

    Measured by running the quantised network with one of them in floating point.
    """
    exact = [_probabilities(logits) for logits in run(network, "fp32", samples)]

    def error(model: Any) -> float:
        found = map(_probabilities, run(model, "int8", samples))
        return float(np.mean([_change(a, b) for a, b in zip(exact, found, strict=True)]))

    total = error(quantized)
    names = [op.get_friendly_name() for op in _convolutions(quantized)]
    return {name: 1 - error(_without_quantizer(quantized, name)) / total for name in names}


def _convolutions(quantized: Any) -> list[Any]:
    return [op for op in quantized.get_ordered_ops() if _quantizers(op)]


def _work(quantized: Any, size: Sequence[int]) -> dict[str, float]:
    """Name of a convolution -> its multiplications on a tensor of that size (D, H, W)."""
    model = quantized.clone()
    volume = model.inputs[0]
    model.reshape({volume: [*volume.partial_shape[:2], *size]})
    return {
        op.get_friendly_name(): float(
            math.prod(op.input(1).get_shape())
            # A transposed convolution works for each voxel that it reads.
            * min(math.prod(op.input(0).get_shape()[2:]), math.prod(op.output(0).get_shape()[2:]))
        )
        for op in _convolutions(model)
    }


def _quantized(
    network: Any, samples: Sequence[list[Floats]], kept: Sequence[str] = (), **how: bool
) -> Any:
    nncf = _nncf()
    try:
        # NNCF draws progress bars, also into pipes.
        with redirect_stdout(StringIO()), _errors_only(logging.getLogger("nncf")):
            return nncf.quantize(
                network,
                nncf.Dataset(samples),
                # MIXED halves the loss of the worst case, but is slower than bf16 on AMX.
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(samples),
                ignored_scope=nncf.IgnoredScope(names=list(kept)),
                advanced_parameters=nncf.AdvancedQuantizationParameters(**how),
            )
    except RuntimeError as error:
        raise EngineFileError(
            f"NNCF {nncf.__version__} cannot quantise the network: {error}"
        ) from error


def _quantizers(op: Any) -> list[Any]:
    """Inputs of a layer, or of the concatenation before it, that are quantised activations."""
    if (
        op.get_type_name() not in LAYERS
        or max(op.input(1).get_partial_shape().get_max_shape()[2:]) < 2
    ):
        return []  # 1^3 convolutions and matrix products are a few per cent of the work
    source = op.input_value(0).get_node()
    ends = source.inputs() if source.get_type_name() == "Concat" else [op.input(0)]
    return [end for end in ends if _source(end).get_type_name() == "FakeQuantize"]


def _source(end: Any) -> Any:
    return end.get_source_output().get_node()


def _without_quantizer(quantized: Any, name: str) -> Any:
    """A copy of the quantised network in which one layer reads floating point."""
    model = quantized.clone()
    layer = next(op for op in model.get_ops() if op.get_friendly_name() == name)
    for end in _quantizers(layer):
        end.replace_source_output(_source(end).input_value(0))
    return model


def _probabilities(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-logits.clip(-30, 30)))


def _change(exact: Floats, other: Floats) -> float:
    """Change of the probabilities (1, K, D, H, W) relative to a region's size, mean over regions.

    Like 1 - Dice, but smooth; a region counts at least `MIN_REGION` voxels.
    """
    space = (0, 2, 3, 4)
    return float(np.mean(np.abs(exact - other).sum(space) / (exact.sum(space) + MIN_REGION)))


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
    return nncf


@contextmanager
def _errors_only(logger: logging.Logger) -> Iterator[None]:
    """`nncf.set_log_level` would also change handlers, which may be the caller's, and for good."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
