"""The bytes of a file: which paths are refused, and damage of a gzip file is noticed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastbts import InputError
from fastbts.read.byte_stream import open_byte_stream
from tests.read.hostile_nifti import GOOD, PACKED, bgzip, patched


def read(path: Path) -> bytes:
    with open_byte_stream(path) as stream:
        return stream.read(2 * len(GOOD))


@pytest.mark.usefixtures("gunzip")
@pytest.mark.parametrize("content", [GOOD, PACKED, bgzip(GOOD)])
def test_bytes_are_those_of_the_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image").write_bytes(content)
    assert read(tmp_path / "image") == GOOD
    with open_byte_stream(tmp_path / "image") as stream:
        assert stream.packed == (content != GOOD)
        assert stream.file_size == len(content)
        assert stream.read(100) + stream.read(7) == GOOD[:107]


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.nii")
    (tmp_path / "dangling.nii").symlink_to(tmp_path / "nothing")
    annexed = "../.git/annex/objects/aa/bb/MD5E-s1--x.nii.gz/MD5E-s1--x.nii.gz"
    (tmp_path / "annexed.nii").symlink_to(annexed)
    for name, message in [
        ("missing.nii", "No such file"),
        (
            "dangling.nii",
            "cannot read: a link to .*nothing, which does not exist; correct the link",
        ),
        ("annexed.nii", "git-annex link without .* fetch it with `git annex get` or `datalad get`"),
        ("nul\0.nii", "cannot read: embedded null byte"),
        (".", "folder, pipe or device"),
        ("fifo.nii", "folder, pipe or device"),
        ("/dev/zero", "folder, pipe or device"),
        ("x" * 300, "too long"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "image.nii").write_bytes(GOOD)

    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)  # chmod does not stop root
    with pytest.raises(
        InputError, match=r"image.nii: cannot read: Permission denied; check the path"
    ):
        read(tmp_path / "image.nii")


@pytest.mark.usefixtures("gunzip")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, len(PACKED) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_in_gzip_is_noticed_or_harmless(
    tmp_path: Path, place: int, bit: int
) -> None:
    path = tmp_path / "image.nii.gz"
    path.write_bytes(patched(PACKED, place, PACKED[place] ^ 1 << bit))
    try:
        content = read(path)
    except InputError:
        return
    if place < 2:
        return  # no gzip any more: the bytes are read as they are
    assert place < 10 or place == len(PACKED) - 9, (
        "the gzip header, or bits that fill up the last byte before the trailer"
    )
    assert content == GOOD
