"""Lends a workspace to each prediction at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from fastbts import _C
from fastbts.device.cuda import CudaWorkspace
from fastbts.device.host import LentHost
from fastbts.device.interface import Workspace
from fastbts.errors import DeviceError


class Workspaces:
    """The workspaces of a device, one per prediction at a time, until they are closed.

    Args:
        device: "cpu" or "cuda:N".
        new: Makes one.
    """

    def __init__(self, device: str, new: Callable[[], Workspace]) -> None:
        self.device = device
        self._new, self._idle, self._lock, self._closed = new, list[Workspace](), Lock(), False

    @contextmanager
    def lend(self) -> Iterator[Workspace]:
        """Lends an idle workspace, or a new one; one that failed is not lent again."""
        with self._lock:
            workspace = self._idle.pop() if self._idle else None
        workspace = self._new() if workspace is None else workspace
        try:
            yield workspace
        except BaseException:
            self._take_back(workspace, failed=not _is_usable(workspace))
            raise
        self._take_back(workspace)

    def close(self) -> None:
        """Frees the idle workspaces now, and each lent one when it is returned."""
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
        for workspace in idle:
            workspace.close()

    def _take_back(self, workspace: Workspace, failed: bool = False) -> None:
        with self._lock:
            keep = not (failed or self._closed)
            if keep:
                self._idle.append(workspace)
        if not keep:
            workspace.close()


def workspaces(device: str) -> Workspaces:
    """Those of "cpu" or "cuda:N".

    Raises:
        DeviceError: It is neither.
    """
    if device == "cpu":
        return host_workspaces()
    kind, _, index = device.partition(":")
    if kind != "cuda" or not index.isdecimal():
        raise DeviceError(f"device {device!r}: expected 'cpu' or 'cuda:N'")
    return Workspaces(device, lambda: CudaWorkspace(int(index)))


def pipeline_device(engine_device: str) -> str:
    """Where the stages around the network run: where the engine does, if the ops can, too."""
    return engine_device if _C.HAS_CUDA else "cpu"


def host_workspaces() -> Workspaces:
    """Those of the CPU."""
    return Workspaces("cpu", LentHost)


def _is_usable(workspace: Workspace) -> bool:
    """Whether the work before an error ended without one on the device."""
    try:
        workspace.reset()
    except DeviceError:
        return False
    return True
