"""Compiled networks on disk: only in a folder of this user alone, and never damaged ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastbts.engine import model_cache
from fastbts.engine.model_cache import NoCacheError, cache_folder, opened_folder, store


def load(key: str) -> bytes | None:
    found = model_cache.load(key)
    return None if found is None else found.tobytes()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTBTS_CACHE", str(tmp_path / "a/cache"))
    return tmp_path / "a/cache"


def refused(message: str) -> None:
    """There is no cache, for this reason; loading and storing do nothing."""
    with pytest.raises(NoCacheError, match=message), opened_folder():
        pass
    store("key", lambda: pytest.fail("nothing is exported where there is no cache"))
    assert load("key") is None


def test_round_trip(folder: Path) -> None:
    assert load("key") is None
    store("key", lambda: b"network")
    store("other", lambda: memoryview(b"other"))
    assert (load("key"), load("other")) == (b"network", b"other")
    store("key", lambda: b"again")
    assert load("key") == b"again"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FASTBTS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_folder() == Path("/home/me/.cache/fastbts")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path("/home/me/.cache/fastbts"), "as the XDG specification says"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert cache_folder() == Path("/var/cache/me/fastbts")
    monkeypatch.setenv("FASTBTS_CACHE", "/elsewhere")
    assert cache_folder() == Path("/elsewhere")


@pytest.mark.parametrize("value", ["off", "OFF", "0"])
def test_switched_off(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTBTS_CACHE", value)
    refused(f"off: FASTBTS_CACHE={value}")


def test_relative_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTBTS_CACHE", "cache")
    refused("off: cache is no absolute path; set FASTBTS_CACHE to a folder")


def test_system_without_owners(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "geteuid")
    refused("on this system fastbts cannot see who may write a folder")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o750, 0o701])
def test_folder_open_to_others(folder: Path, mode: int) -> None:
    folder.mkdir(parents=True)
    folder.chmod(mode)
    refused(r"others may write it or own it; expected a folder of this user alone \(chmod 700\)")


def test_folder_of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store("key", lambda: b"network")
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    refused("others may write it or own it")


def test_folder_that_is_a_link_or_a_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir(mode=0o700)
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "target")
    refused("expected a folder, not a link; set FASTBTS_CACHE to another one")
    assert not any((tmp_path / "target").iterdir())
    folder.unlink()
    folder.touch()
    refused("expected a folder, not a link")


def test_read_only_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: object, **kwargs: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", denied)  # chmod does not stop root
    refused("Read-only file system")


def entry(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _open_to_others(path: Path) -> None:
    path.chmod(0o620)


def _link(path: Path) -> None:
    target = path.parents[1] / "outside"
    path.rename(target)
    path.symlink_to(target)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


@pytest.mark.parametrize(
    "damage", [_truncate, _empty, _flip, _append, _open_to_others, _link, _fifo, _folder]
)
def test_damaged_or_foreign_files_are_not_used(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    store("key", lambda: b"network")
    damage(entry(folder))
    assert load("key") is None
    store("key", lambda: b"network")
    assert load("key") == (b"network" if damage is not _folder else None)


def test_file_under_the_name_of_another_is_not_used(folder: Path) -> None:
    store("key", lambda: b"network")
    first = entry(folder)
    store("other", lambda: b"other")
    (second,) = set(folder.iterdir()) - {first}
    first.replace(second)
    assert load("other") is None


def test_loaded_network_stays_when_its_file_does_not(folder: Path) -> None:
    store("key", lambda: b"network")
    loaded = model_cache.load("key")
    store("key", lambda: b"another")
    entry(folder).unlink()
    assert loaded is not None
    assert loaded.tobytes() == b"network"
    loaded[:] = 0  # OpenVINO takes no memory that it cannot write
    assert load("key") is None


def test_full_disk_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        store("key", lambda: b"network")
    assert list(folder.iterdir()) == []


def test_files_used_longest_ago_are_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_cache, "MAX_BYTES", 1000)
    for age, key in enumerate("abc"):
        store(key, lambda: bytes(200))
        (newest,) = {p for p in folder.iterdir() if p.stat().st_mtime > 1e6}
        os.utime(newest, (age, age))
    assert load("a"), "now the one used last"
    store("d", lambda: bytes(400))
    assert [bool(load(key)) for key in "abcd"] == [True, False, True, True]
    store("large", lambda: bytes(501))
    assert load("large") is None, "it would push out the others"


def test_what_killed_processes_left_is_removed(folder: Path) -> None:
    store("a", lambda: b"network")
    for name, age in (("old.tmp", 1e5), ("new.tmp", 0), ("notes.txt", 1e5)):
        (folder / name).touch()
        seconds = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (seconds, seconds))
    store("b", lambda: b"network")
    left = {path.name for path in folder.iterdir() if path.suffix != ".compiled"}
    assert left == {"new.tmp", "notes.txt"}


def test_a_file_may_go_while_the_folder_is_listed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in "abc":
        store(key, lambda: b"network")
    entries = list(os.scandir(folder))
    Path(entries[1].path).unlink()  # as another process does
    with monkeypatch.context() as stale:
        stale.setattr(os, "scandir", lambda _: entries)
        assert "2 networks" in model_cache.describe()
        stale.setattr(model_cache, "MAX_BYTES", 20)  # less than two
        store("d", lambda: b"network")
    assert len(list(folder.iterdir())) == 1


def test_processes_and_threads_side_by_side(folder: Path) -> None:
    """Whoever loads while others store gets a complete file or none."""
    content = bytes(range(256)) * 4000
    code = (
        "from fastbts.engine.model_cache import load, store\n"
        "content = bytes(range(256)) * 4000\n"
        "for _ in range(30): store('key', lambda: content); assert load('key').tobytes() == content"
    )
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            found = list(pool.map(load, ["key"] * 4))
            assert set(found) <= {None, content}
    assert [child.wait(60) for child in children] == [0, 0]
    assert [path.suffix for path in folder.iterdir()] == [".compiled"]
