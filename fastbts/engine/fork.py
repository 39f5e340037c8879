"""Refuses engines in forked processes: a fork copies no threads, and runtimes would wait for theirs
for ever."""

from __future__ import annotations

import ctypes
import os
from typing import Any
from weakref import WeakSet

from fastbts.errors import DeviceError

_loaded_by = 0
"""Process that first used a runtime; a forked child inherits the number. 0 for none yet."""
_networks = WeakSet[Any]()


def keep_in_children(network: Any) -> None:
    """Makes forked children never free what holds a network: the end of a child would wait for the
    network's threads."""
    _networks.add(network)


def _keep_all() -> None:
    for network in _networks:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(network))


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_keep_all)


def enter_process() -> None:
    """Notes that this process uses a runtime now.

    Raises:
        DeviceError: See `check_fork`.
    """
    global _loaded_by
    _loaded_by = _loaded_by or os.getpid()
    check_fork()


def check_fork() -> None:
    """Checks that no runtime was in use when this process was forked.

    Raises:
        DeviceError: One was, so that none can be used here.
    """
    if is_forked():
        raise DeviceError(
            f"this process was forked from process {_loaded_by}, which had loaded an engine; "
            "engines do not survive a fork: start processes by 'spawn' or 'forkserver', or load "
            "the engine after the fork only (docs/how-to/servers.md)"
        )


def is_forked() -> bool:
    """Whether a runtime was in use when this process was forked."""
    return _loaded_by not in (0, os.getpid())
