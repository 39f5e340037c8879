"""Every kind of case becomes the same Volume; what does not fit is refused with advice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastbts import (
    MODALITIES,
    CaseError,
    EngineSpec,
    FastBTSError,
    GeometryError,
    InputError,
    OptionsError,
    Volume,
    read_case,
)
from fastbts.read import inputs
from fastbts.read.inputs import NO_AFFINE, as_volume, check_cases, one_case

SPEC = EngineSpec()
ORDER = ("t2", "t1ce", "flair", "t1")
Case = tuple[np.ndarray, np.ndarray]


def by_name(images: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(MODALITIES, images, strict=True))


@pytest.fixture
def folder(small_case: Case, tmp_path: Path) -> Path:
    images, affine = small_case
    (tmp_path / "case").mkdir()
    for name, image in by_name(images).items():
        nib.Nifti1Image(image, affine).to_filename(tmp_path / f"case/x_{name}.nii.gz")
    return tmp_path / "case"


def niftis(images: np.ndarray, affine: np.ndarray) -> dict[str, Any]:
    return {name: nib.Nifti1Image(image, affine) for name, image in by_name(images).items()}


WAYS: dict[str, Callable[[np.ndarray, np.ndarray, Path], Volume]] = {
    "folder": lambda images, affine, folder: as_volume(folder, SPEC),
    "folder by its name": lambda images, affine, folder: as_volume(str(folder), SPEC),
    "files": lambda images, affine, folder: as_volume(
        {name: folder / f"x_{name}.nii.gz" for name in ORDER}, SPEC
    ),
    "nibabel images": lambda images, affine, folder: as_volume(niftis(images, affine), SPEC),
    "arrays by name": lambda images, affine, folder: as_volume(
        by_name(images), SPEC, affine=affine
    ),
    "array": lambda images, affine, folder: as_volume(images, SPEC, affine=affine),
    "array in another order": lambda images, affine, folder: as_volume(
        images[[MODALITIES.index(name) for name in ORDER]], SPEC, affine=affine, order=ORDER
    ),
    "Volume": lambda images, affine, folder: as_volume(Volume(images, affine), SPEC),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_case_gives_the_same_volume(way: str, small_case: Case, folder: Path) -> None:
    images, affine = small_case
    volume = WAYS[way](images, affine, folder)
    np.testing.assert_array_equal(volume.data, images)
    np.testing.assert_array_equal(volume.affine, affine)
    assert volume.modalities == MODALITIES
    assert volume.data.dtype == np.int16
    assert volume.warnings == ()


@pytest.mark.parametrize("way", WAYS)
def test_every_case_is_inspected_once(
    way: str, small_case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but a Volume: it was inspected when it was read."""
    seen = []
    monkeypatch.setattr(inputs, "inspected", lambda volume: seen.append(volume) or volume)
    WAYS[way](*small_case, folder)
    assert len(seen) == (way != "Volume")


def test_a_header_is_kept_for_the_output(small_case: Case, folder: Path) -> None:
    given = niftis(*small_case)
    header = as_volume(given, SPEC).header
    assert header.to_bytes() == bytes(given["flair"].header.binaryblock)
    assert as_volume(folder, SPEC).header.version == 1


def test_arrays_without_an_affine_give_a_warning(small_case: Case) -> None:
    for case in (small_case[0], by_name(small_case[0])):
        volume = as_volume(case, SPEC)
        assert volume.warnings == (NO_AFFINE,)
        np.testing.assert_array_equal(volume.affine, np.eye(4))


def test_odd_but_usable_arrays(small_case: Case) -> None:
    images, affine = small_case
    frozen = images.copy()
    frozen.setflags(write=False)
    for odd in (images.astype(">i2"), frozen, np.asfortranarray(images), images.astype(np.uint16)):
        np.testing.assert_array_equal(as_volume(odd, SPEC, affine=affine).data, images)
    half = as_volume((images // 8).astype(np.float16), SPEC, affine=affine)
    assert half.data.dtype == np.float32
    one_volume = niftis(images[..., None], affine)
    np.testing.assert_array_equal(as_volume(one_volume, SPEC).data, images)


def test_nnunet_names_and_grid_belong_to_files(small_case: Case, tmp_path: Path) -> None:
    images, affine = small_case
    for number, name in enumerate(ORDER):
        path = tmp_path / f"x_{number:04}.nii.gz"
        nib.Nifti1Image(by_name(images)[name], affine).to_filename(path)
    volume = as_volume(tmp_path, SPEC, nnunet_order=ORDER, grid="t2")
    np.testing.assert_array_equal(volume.data, images)


def test_a_case_may_lack_what_the_spec_says(small_case: Case) -> None:
    images, affine = small_case
    spec = EngineSpec(optional_modalities=("t1",))
    volume = as_volume(images[[0, 2, 3]], spec, affine=affine, order=("flair", "t1ce", "t2"))
    assert volume.modalities == ("flair", "t1ce", "t2")
    assert volume.warnings[0].startswith("t1: missing")


def test_images_that_the_engine_does_not_take_are_left_out(small_case: Case) -> None:
    images, affine = small_case
    spec = EngineSpec(modalities=("t1ce", "flair"))
    for case in (by_name(images), Volume(images, affine)):
        given = None if isinstance(case, Volume) else affine
        volume = as_volume(case, spec, affine=given)
        assert volume.modalities == spec.modalities
        np.testing.assert_array_equal(volume.data, images[[2, 0]])


AFFINE = np.eye(4)
TURNED = np.diag([-1.0, -1, 1, 1])
MOVED = nib.affines.from_matvec(np.eye(3), [5, 0, 0])


def _images(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    given = dict(zip(MODALITIES, rng.integers(1, 900, (4, 8, 9, 10)).astype(np.int16), strict=True))
    return {name: image for name, image in (given | changes).items() if image is not None}


def _array(*shape: int, dtype: Any = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 900, shape).astype(dtype)


def _nifti(affine: np.ndarray | None) -> Any:
    return nib.Nifti1Image(_array(8, 9, 10), affine)


def _stack(n: int) -> Any:
    return nib.Nifti1Image(_array(8, 9, 10, n), AFFINE)


def _with_header(**fields: Any) -> Any:
    """An image without an affine, but with a header."""
    header = nib.Nifti1Image(_array(8, 9, 10), MOVED).header
    header["qoffset_x"] = 0
    for name, value in fields.items():
        header[name] = value
    return nib.Nifti1Image(_array(8, 9, 10), None, header)


class _OnDevice:
    """An array that cannot be lent to the host."""

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("no copy to the host")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


@pytest.mark.parametrize(
    ("case", "options", "error", "message"),
    [
        (
            _array(8, 9, 10, 4),
            {},
            InputError,
            r"expected an array \(4, X, Y, Z\), got shape \(8, 9, 10, 4\) with the channels last; "
            r"move them to the front: np\.moveaxis\(array, -1, 0\)",
        ),
        (_array(8, 9, 10), {}, InputError, "stack one image per modality"),
        (
            _array(3, 8, 9, 10),
            {},
            CaseError,
            r"expected 4 images \(flair, t1, t1ce, t2\), got an array of shape \(3, 8, 9, 10\); "
            r"name its modalities with order=",
        ),
        (_array(4, 8, 9, 10), {"order": ("t1", "t2")}, CaseError, r"expected 2 images \(t1, t2\)"),
        (
            _array(4, 8, 9, 10),
            {"order": ("t1", "t1", "t2", "flair")},
            OptionsError,
            "order .*: expected names out of flair, t1, t1ce, t2, each once, for example",
        ),
        (
            _array(4, 8, 9, 10),
            {"order": ("t1", "t1c", "t2", "flair")},
            OptionsError,
            "order .*t1c.*: expected names out of",
        ),
        (_array(4, 8, 9, 10), {"order": "t1"}, OptionsError, "order 't1': expected names out"),
        (_array(4, 8, 9, 10), {"order": 5}, OptionsError, "order 5: expected names out of"),
        (_array(4, 8, 9, 10), {"order": [["t1"]]}, OptionsError, "order .*: expected names out"),
        ("folder", {"nnunet_order": 5}, OptionsError, "nnunet_order 5: expected each of"),
        ("folder", {"nnunet_order": [1]}, OptionsError, "nnunet_order .1.: expected each of"),
        ("folder", {"grid": "foo"}, OptionsError, "grid .'foo'.: expected names out of"),
        ("folder", {"grid": ["t1"]}, OptionsError, "grid ..'t1'..: expected names out of"),
        ("a\0b", {}, CaseError, "cannot list: embedded null byte; expected a folder with"),
        (dict.fromkeys(MODALITIES, "a\0b"), {}, InputError, "cannot read: embedded null byte"),
        ([[1], [2, 3]], {}, InputError, "case: a list cannot be read as an array: .*give a case f"),
        (
            _OnDevice(),
            {},
            InputError,
            "case: a _OnDevice on a device cannot be used here: no CUDA d",
        ),
        ({m: _nifti(None) for m in MODALITIES}, {}, GeometryError, "flair: the image has no affi"),
        (_stack(4), {}, CaseError, "or a 4-D image with its order: --channels flair,t1,t1ce,t2"),
        (_stack(3), {"order": MODALITIES}, InputError, r"a 4-D image \(X, Y, Z, 4\) .*8, 9, 10, 3"),
        (_nifti(AFFINE), {"order": MODALITIES}, InputError, r"expected a 4-D image .*\(8, 9, 10\)"),
        ("folder", {"order": MODALITIES, "grid": "t1"}, CaseError, "grid was given with a 4-D fil"),
        ("none.nii", {"order": MODALITIES}, InputError, "none.nii: cannot read: No such file"),
        (
            {m: _with_header(srow_x=0, qform_code=0) for m in MODALITIES},
            {},
            GeometryError,
            "flair: the image has a grid that cannot be used: the sform is unusable: spacing",
        ),
        (
            _array(3, 8, 9, 10),
            {"order": ("flair", "t1", "t2")},
            CaseError,
            "no image for t1ce; got flair, t1, t2; the engine needs flair, t1, t1ce, t2; give",
        ),
        (_array(4, 8, 9, 10, dtype=complex), {}, InputError, "case: expected .* real numbers"),
        (["a.nii", "b.nii"], {}, InputError, "real numbers .* got list of dtype .*give a case fol"),
        (_array(4, 8, 9, 10), {"affine": np.eye(3)}, GeometryError, "finite 4x4"),
        (_nifti(AFFINE), {}, CaseError, "a nibabel image alone does not say its modality; give"),
        ("nothing", {}, CaseError, "nothing: cannot list: No such file.*; expected a folder with"),
        ({}, {}, CaseError, "no image was given; give all modalities as paths"),
        (_images(t2=None), {}, CaseError, "no image for t2; got flair, t1, t1ce; the engine needs"),
        (
            {**_images(t1ce=None), "t1c": _array(8, 9, 10)},
            {},
            CaseError,
            "modality t1c: expected flair, t1, t1ce, t2; rename the image",
        ),
        (_images(t1="t1.nii.gz"), {}, CaseError, "arrays by modality and files are mixed; give"),
        (_images(t1=_nifti(AFFINE)), {}, CaseError, "arrays by modality and nibabel images are mi"),
        (_images(t1=_array(7, 9, 10)), {}, GeometryError, "shapes differ: .* t1 .7, 9, 10.*co-reg"),
        (_images(t1=_array(8, 9, 10, dtype=complex)), {}, InputError, "t1: expected .* real numbe"),
        (
            {name: _nifti(MOVED if name == "t1" else AFFINE) for name in MODALITIES},
            {},
            GeometryError,
            r"t1: grid differs from the first image's \(flair\): .* 5 mm \(5 voxels\) away.*; co-r",
        ),
        (Volume(_array(4, 8, 9, 10), AFFINE), {"affine": AFFINE}, CaseError, "affine was given wi"),
        (
            Volume(_array(4, 8, 9, 10), AFFINE),
            {"order": MODALITIES},
            CaseError,
            "order was given with a Volume; it is for an array and a 4-D file and a 4-D nibabel im",
        ),
        (
            _images(),
            {"grid": "t1"},
            CaseError,
            "grid was given with arrays by modality; it is for a case folder and files only",
        ),
        (
            {"flair": "f.nii"},
            {"nnunet_order": MODALITIES},
            CaseError,
            "nnunet_order was given with",
        ),
        ("folder", {"affine": AFFINE}, CaseError, "affine was given with a case folder"),
    ],
)
def test_what_does_not_fit_is_refused(
    case: Any, options: dict[str, Any], error: type[FastBTSError], message: str
) -> None:
    with pytest.raises(error, match=message):
        as_volume(case, SPEC, **options)


@pytest.mark.parametrize(
    ("fields", "affine", "warning"),
    [
        ({}, MOVED, None),
        ({"sform_code": 0, "qform_code": 1}, AFFINE, None),
        ({"sform_code": 0, "qform_code": 2, "quatern_d": 1.0000004}, TURNED, None),
        ({"srow_x": 0, "qform_code": 1}, AFFINE, "the sform is unusable"),
        ({"qform_code": 1, "quatern_b": 7}, MOVED, "the qform is unusable"),
        ({"qform_code": 1}, MOVED, "qform and sform disagree by up to 5.0 mm: the sform was used"),
    ],
)
def test_images_without_an_affine_are_placed_by_their_header(
    fields: dict[str, Any], affine: np.ndarray, warning: str | None, tmp_path: Path
) -> None:
    voxels = np.random.default_rng(1).integers(1, 900, (4, 8, 9, 10)).astype(np.int16)
    case = {}
    for modality, image in by_name(voxels).items():
        case[modality] = nib.Nifti1Image(image, None, _with_header(**fields).header)
    volume = as_volume(case, SPEC)
    np.testing.assert_array_equal(volume.affine, affine)
    found = [w for w in volume.warnings if "form" in w]
    assert len(found) == (warning is not None)
    assert all(f"flair, t1, t1ce, t2: {warning}" in w for w in found)


def test_an_affine_that_differs_from_the_header_rules(small_case: Case) -> None:
    images, affine = small_case
    given = niftis(images, affine)
    for image in given.values():
        image.header["srow_x"] = 0
    volume = as_volume(given, SPEC)
    np.testing.assert_array_equal(volume.affine, affine)
    assert volume.warnings == ()


@pytest.mark.parametrize("axes", [4, 5])
@pytest.mark.parametrize("way", ["file", "folder", "image", "loaded image"])
def test_one_4d_file_or_image(small_case: Case, tmp_path: Path, way: str, axes: int) -> None:
    images, affine = small_case
    stack = np.moveaxis(images[[MODALITIES.index(name) for name in ORDER]], 0, -1)
    image = nib.Nifti1Image(stack if axes == 4 else stack[:, :, :, None], affine)
    path = tmp_path / "BRATS_001.nii.gz"
    image.to_filename(path)
    case = {"file": path, "folder": str(tmp_path), "image": image, "loaded image": nib.load(path)}
    volume = as_volume(case[way], SPEC, order=ORDER)
    assert volume.modalities == MODALITIES
    np.testing.assert_array_equal(volume.data, images)
    np.testing.assert_array_equal(volume.affine, affine)
    assert volume.warnings == ()
    with pytest.raises(CaseError, match="--channels flair,t1,t1ce,t2, predict"):
        as_volume(case[way], SPEC)


def test_a_truncated_nibabel_image_is_named(small_case: Case, tmp_path: Path) -> None:
    path = tmp_path / "t.nii.gz"
    nib.Nifti1Image(small_case[0][1], small_case[1]).to_filename(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"t1: cannot be read: .*; is the file complete"):
        as_volume({**niftis(*small_case), "t1": nib.load(path)}, SPEC)


def test_a_folder_is_read_as_by_read_case(folder: Path) -> None:
    volume, read = as_volume(folder, SPEC), read_case(folder)
    np.testing.assert_array_equal(volume.data, read.data)
    assert (volume.names, volume.sha256) == (read.names, read.sha256)


def test_either_one_case_or_named_images() -> None:
    assert one_case("folder", {"flair": None}) == "folder"
    assert one_case(None, {"flair": "f.nii", "t1": None}) == {"flair": "f.nii"}
    with pytest.raises(CaseError, match=r"either one case .* or images by name.* got both"):
        one_case("folder", {"flair": "f.nii"})
    with pytest.raises(CaseError, match="got neither"):
        one_case(None, {"flair": None})


@pytest.mark.parametrize("single", ["folder", Path("x"), {}, np.zeros(3), 5, Volume])
def test_a_single_case_is_no_batch(single: Any) -> None:
    with pytest.raises(CaseError, match=r"cases: expected a list of cases.*give \[case\], or call"):
        check_cases(single)
    check_cases([single])
    check_cases(iter([single]))
