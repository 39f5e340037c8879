"""A pool of per-call objects of a loaded network, such as inference requests."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from threading import Lock
from typing import Generic, TypeVar

from fastbts.engine.fork import keep_in_children
from fastbts.errors import DeviceError

T = TypeVar("T")


class Pool(Generic[T]):
    """Lends one object to each concurrent call, until it is closed or a call fails.

    A runtime that fails in the middle of a call, for example for memory, may compute wrong results
    afterwards and report no error. So the calls that run while another one fails, fail too; unless
    the calls are isolated: then one that fails only loses its object.

    Args:
        path: The engine's file, for messages.
        new: Makes an object.
        free: Frees an object.
        isolated: Whether a call that fails leaves the network and the other calls intact.
    Attributes:
        failed: Whether a call has failed, so that the network must be loaded again.
        closed: Whether `close` was called.
    """

    def __init__(
        self,
        path: str,
        new: Callable[[], T],
        free: Callable[[T], None],
        *,
        isolated: bool = False,
    ) -> None:
        self._path, self._free, self._idle, self._lock = path, free, list[T](), Lock()
        self._isolated = isolated
        self._new: Callable[[], T] | None = new
        self.failed = self.closed = False
        keep_in_children(self)

    @contextmanager
    def lend(self, fits: Callable[[T], bool] = lambda one: True) -> Iterator[T]:
        """Lends the last idle object that fits, or a new one.

        Raises:
            DeviceError: The pool is closed, or another call has failed, maybe during this one.
        """
        new, one = self._take(fits)
        intact = False
        try:
            one = new() if one is None else one
            yield one
            intact = True
        except BaseException as error:
            self._note_failure(error)
            raise
        finally:
            if one is not None:
                self._take_back(one, intact)
        if self.failed:
            raise self._unusable()

    def close(self) -> None:
        """Frees the idle objects now, and each lent one when it is returned."""
        self.closed = True
        self._drop_network()

    def _unusable(self) -> DeviceError:
        if self.failed:
            return DeviceError(
                f"{self._path}: another call on this engine failed during this one, whose result "
                "may be wrong; call it again"
            )
        return DeviceError(f"{self._path}: the engine has been closed; load it again")

    def _drop_network(self) -> None:
        with self._lock:
            idle, self._idle, self._new = self._idle, [], None
        for one in idle:
            self._release(one)

    def _take(self, fits: Callable[[T], bool]) -> tuple[Callable[[], T], T | None]:
        with self._lock:
            if self._new is None:
                raise self._unusable()
            one = next((each for each in reversed(self._idle) if fits(each)), None)
            if one is not None:
                self._idle.remove(one)
            return self._new, one

    def _note_failure(self, error: BaseException) -> None:
        if not self._isolated:
            self.failed = True
            self._drop_network()
        # Whoever keeps the error must not keep the network in memory.
        traceback.clear_frames(error.__traceback__)

    def _take_back(self, one: T, intact: bool) -> None:
        with self._lock:
            if self._new is not None and intact:
                self._idle.append(one)
                return
        self._release(one, intact)

    def _release(self, one: T, intact: bool = True) -> None:
        # What has failed may fail to be freed too.
        with nullcontext() if intact and not self.failed else suppress(DeviceError):
            self._free(one)
