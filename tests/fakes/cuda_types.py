"""Types of the fake CUDA runtime, with the names and values of `cuda.bindings.runtime`."""

from __future__ import annotations

from enum import IntEnum


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidDevice = 101
    cudaErrorNoDevice = 100
    cudaErrorInvalidResourceHandle = 400
    cudaErrorIllegalState = 401
    cudaErrorNotReady = 600
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901
    cudaErrorStreamCaptureWrongThread = 908


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1
    cudaStreamCaptureModeRelaxed = 2


class cudaStreamCaptureStatus(IntEnum):
    cudaStreamCaptureStatusNone = 0
    cudaStreamCaptureStatusActive = 1
    cudaStreamCaptureStatusInvalidated = 2


class cudaMemoryType(IntEnum):
    cudaMemoryTypeUnregistered = 0
    cudaMemoryTypeHost = 1
    cudaMemoryTypeDevice = 2


class Handle:
    def __init__(self, init_value: int = 0) -> None:
        self.value = int(init_value)

    def __int__(self) -> int:
        return self.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and int(self) == int(other)  # type: ignore[call-overload]


class cudaStream_t(Handle):
    pass


class cudaEvent_t(Handle):
    pass


class cudaGraph_t(Handle):
    pass


class cudaGraphExec_t(Handle):
    pass


TYPES = (
    cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode, cudaStreamCaptureStatus, cudaMemoryType,
    cudaStream_t, cudaEvent_t, cudaGraph_t, cudaGraphExec_t,
)  # fmt: skip
CONSTANTS = {
    "cudaStreamDefault": 0, "cudaStreamNonBlocking": 1, "cudaHostAllocDefault": 0,
    "cudaHostAllocPortable": 1, "cudaEventDefault": 0, "cudaEventDisableTiming": 2,
}  # fmt: skip
Kind, Status, Capture = cudaMemcpyKind, cudaError_t, cudaStreamCaptureMode
