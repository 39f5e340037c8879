"""A client of the model that `fastbts export-triton` writes, over HTTP or gRPC."""

from __future__ import annotations

from importlib import import_module
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

PROTOCOLS = ("http", "grpc")


class Client:
    """One connection. Not for several threads at once."""

    def __init__(self, protocol: str, address: str) -> None:
        self._module = import_module(f"tritonclient.{protocol}")  # they have the same functions
        patience = {"network_timeout": 600.0} if protocol == "http" else {}
        self._client = self._module.InferenceServerClient(address, **patience)

    def segment(
        self, images: NDArray[Any], affine: NDArray[Any]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Labels (X, Y, Z), and the regions' volumes in ml, of images (M, X, Y, Z).

        Raises:
            tritonclient.utils.InferenceServerException: The server refuses it; with its message.
        """
        inputs = [
            self._input("images", np.ascontiguousarray(images, np.float32), "FP32"),
            self._input("affine", np.asarray(affine, np.float64), "FP64"),
        ]
        answer = self._client.infer("fastbts", inputs)
        return answer.as_numpy("labels"), answer.as_numpy("volumes_ml")

    def _input(self, name: str, array: NDArray[Any], kind: str) -> Any:
        given = self._module.InferInput(name, list(array.shape), kind)
        given.set_data_from_numpy(array)
        return given

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._client.close()
