"""Finding the images of a case and the cases of a folder by their names."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fastbts import MODALITIES, CaseError, InputError, OptionsError, find_cases, read_files
from fastbts.read.find import find_case, find_stack, name_cases

NNUNET = ("t1", "t1ce", "t2", "flair")


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    "names",  # flair, t1, t1ce, t2
    [
        (
            "BraTS19_A_1_flair.nii.gz",
            "BraTS19_A_1_t1.nii.gz",
            "BraTS19_A_1_t1ce.nii.gz",
            "BraTS19_A_1_t2.nii.gz",
        ),
        ("B_flair.nii", "B_t1.nii", "B_t1ce.nii.gz", "B_t2.nii"),
        (
            "BraTS-GLI-01-000-t2f.nii.gz",
            "BraTS-GLI-01-000-t1n.nii.gz",
            "BraTS-GLI-01-000-t1c.nii.gz",
            "BraTS-GLI-01-000-t2w.nii.gz",
        ),
        (
            "sub-01_FLAIR.nii.gz",
            "sub-01_T1w.nii.gz",
            "sub-01_ce-GADOLINIUM_T1w.nii.gz",
            "sub-01_T2w.nii.gz",
        ),
        (
            "sub-1_ses-2_FLAIR.nii",
            "sub-1_ses-2_acq-3D_T1w.nii",
            "sub-1_ses-2_acq-3D_ce-gd_run-1_T1w.nii",
            "sub-1_ses-2_T2w.nii",
        ),
        (
            "UPENN-GBM-1_11_FLAIR.nii.gz",
            "UPENN-GBM-1_11_T1.nii.gz",
            "UPENN-GBM-1_11_T1GD.nii.gz",
            "UPENN-GBM-1_11_T2.nii.gz",
        ),
        ("X_FLAIR.NII.GZ", "X_T1.NII", "x_T1CE.nii.gz", "X_t2.Nii.Gz"),
        ("flair.nii.gz", "t1.nii.gz", "t1ce.nii.gz", "t2.nii.gz"),
    ],
)
def test_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    touch(
        tmp_path,
        *names,
        "A_seg.nii.gz",
        "A_t1_mask.nii.gz",
        "._A_t1.nii.gz",
        "sub-01_T1w.json",
        "A-t1.png",
        "0000_at1.nii",
    )
    (tmp_path / "t1").mkdir()
    found = find_case(tmp_path)
    assert list(found) == list(MODALITIES)
    assert tuple(path.name for path in found.values()) == names


def test_nnunet_names_need_an_order(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"BRATS_001_{n:04}.nii.gz" for n in range(4)),
        "BRATS_001_0004.nii.gz",
        "BRATS_001.nii.gz",
    )
    with pytest.raises(CaseError, match=r"do not say the modality; give nnunet_order"):
        find_case(tmp_path)
    found = find_case(tmp_path, NNUNET)
    assert {name: path.name[-11:-7] for name, path in found.items()} == {
        "flair": "0003",
        "t1": "0000",
        "t1ce": "0001",
        "t2": "0002",
    }
    for order in (("t1", "t2"), ("t1", "t1", "t2", "flair"), ("t1", "t1ce", "t2", "pd")):
        with pytest.raises(OptionsError, match="expected each of flair, t1, t1ce, t2, each once"):
            find_case(tmp_path, order)
    touch(tmp_path, "BRATS_002_0000.nii.gz")
    with pytest.raises(CaseError, match=r"several cases \(brats_001, brats_002\)"):
        find_case(tmp_path, NNUNET)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["a_flair.nii", "a_t1.nii", "a_t2.nii"],
            r"no file for t1ce; found flair \(a_flair.nii\), t1 .*; expected \*_flair",
        ),
        (
            ["a_flair.nii", "a_t1.nii", "a_t1.nii.gz", "a_t2.nii"],
            r"more for t1 \(a_t1.nii, a_t1.nii.gz\); remove one",
        ),
        (
            ["a_flair.nii", "a_t1.nii", "a-t1n.nii", "a_t1ce.nii", "a_t2.nii"],
            r"more for t1 \(a-t1n.nii, a_t1.nii\)",
        ),
        (
            ["sub-1_T1w.nii", "sub-1_space-MNI_T1w.nii"],
            r"more for t1 \(sub-1_T1w.nii, sub-1_space-MNI_T1w.nii\)",
        ),
        (
            ["a_flair.nii", "a_t1.nii", "b_t1ce.nii", "a_t2.nii"],
            r"several cases \(a, b\); put each case into a folder",
        ),
        (["sub-1_T1w.nii", "sub-2_T2w.nii"], r"several cases \(sub-1, sub-2\)"),
        (
            ["notes.txt", "a_seg.nii.gz"],
            r"holds no images of a case; expected \*_flair.*; got a_seg.nii.gz, notes.txt",
        ),
        ([], "got an empty folder"),
    ],
)
def test_ambiguous_folders_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(CaseError, match=message) as caught:
        find_case(touch(tmp_path / "case", *names))
    assert str(tmp_path / "case") in str(caught.value)


def test_folder_of_folders(tmp_path: Path) -> None:
    for n in range(9):
        touch(tmp_path / f"case{n}", f"case{n}_t1.nii.gz")
    with pytest.raises(
        CaseError, match=r"folders of cases \(case0, .*case5, ... 9 in all\); give one of them"
    ):
        find_case(tmp_path)
    with pytest.raises(CaseError, match="No such file"):
        find_case(tmp_path / "nothing")
    with pytest.raises(CaseError, match=r"is a file, expected a folder; name .* --flair FILE"):
        find_case(tmp_path / "case0/case0_t1.nii.gz")


TOOLS = {  # flair, t1, t1ce, t2
    "CaPTk": ("FL_to_SRI_brain", "T1_to_SRI_brain", "T1CE_to_SRI_brain", "T2_to_SRI_brain"),
    "CaPTk, FeTS": ("brain_FL", "brain_T1", "brain_T1GD", "brain_T2"),
    "HD-GLIO": ("FLAIR_r2s_bet_reg", "T1_r2s_bet_reg", "CT1_r2s_bet_reg", "T2_r2s_bet_reg"),
    "LUMIERE": ("FLAIR", "T1", "CT1", "T2"),
    "BraTS-Toolkit": (
        "hdbet_b-space_fla",
        "hdbet_b-space_t1",
        "hdbet_b-space_t1c",
        "hdbet_b-space_t2",
    ),
    "pre and post": ("p_flair", "p_t1_pre", "p_t1_post", "p_t2"),
    "post alone": ("p_flair", "p_t1", "p_t1_post", "p_t2"),
    "contrast in words": ("flair", "t1_no_contrast", "t1_contrast", "t2"),
    "pre-contrast": ("ax_flair", "ax_t1_pre-contrast", "sag_t1_post-contrast", "t2_3d"),
    "t2_flair": ("p_t2_flair", "p_t1", "p_t1ce", "p_t2"),
    "t2flair": ("t2flair_brain", "t1_brain", "t1gd_brain", "t2_brain"),
    "t1gad": ("p_flair", "p_t1", "p_t1gad", "p_t2"),
    "t1km": ("p_flair", "p_t1", "p_t1km", "p_t2"),
    "T1+C": ("p FLAIR", "p T1", "p T1+C", "p T2"),
    "dots": ("0001.FLAIR", "0001.T1", "0001.T1ce", "0001.T2"),
    "dots and number after": ("FLAIR.0001", "T1.0001", "T1-Gd.0001", "T2.0001"),
    "Siemens": ("t2_spc_da-fl_sag", "t1_mpr", "t1_mpr_km", "t2_tse"),
    "target in the name": ("FLAIR_to_T1", "T1", "T1ce_to_T1", "T2_to_T1"),
    "BIDS acq": ("sub-01_FLAIR", "sub-01_acq-pre_T1w", "sub-01_acq-postgad_T1w", "sub-01_T2w"),
    "BIDS post as session": (
        "sub-1_ses-post_FLAIR",
        "sub-1_ses-post_acq-pre_T1w",
        "sub-1_ses-post_acq-gd_T1w",
        "sub-1_ses-post_T2w",
    ),
    "BIDS space": (
        "sub-1_space-T1w_FLAIR",
        "sub-1_T1w",
        "sub-1_ce-gd_space-T1w_T1w",
        "sub-1_space-T1w_desc-preproc_T2w",
    ),
    "a word of all files, dots": ("x.post.flair", "x.post.t1", "x.post.t1c", "x.post.t2"),
    "a word of all files": ("x_post_flair", "x_post_t1", "x_post_t1ce", "x_post_t2"),
    "case named t2": ("t2_01_flair", "t2_01_t1", "t2_01_t1ce", "t2_01_t2"),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_names_of_other_tools(tmp_path: Path, tool: str) -> None:
    names = [f"{name}.nii.gz" for name in TOOLS[tool]]
    touch(tmp_path, *names, "T1_mask.nii.gz", "seg.nii.gz", "T2_star.nii.gz", "x_t1.json")
    assert [path.name for path in find_case(tmp_path).values()] == names


def test_files_made_from_the_images_do_no_harm(tmp_path: Path) -> None:
    """As in UCSF-PDGM."""
    names = [f"P-4_{name}.nii.gz" for name in ("FLAIR", "T1", "T1c", "T2")]
    touch(tmp_path, *names, *(name.replace(".nii", "_bias.nii") for name in names))
    assert [path.name for path in find_case(tmp_path).values()] == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("p_flair p_t1 p_t1_pre p_t1ce p_t2", r"more for t1 \(p_t1.nii, p_t1_pre.nii\)"),
        ("p_flair p_t1 p_t1_post p_t1ce p_t2", r"more for t1ce \(p_t1_post.nii, p_t1ce.nii\)"),
        ("flair t1_a t1_b t2", r"more for t1 \(t1_a.nii, t1_b.nii\)"),
        (
            "T1_to_SRI T1_to_SRI_brain FL_to_SRI_brain CT1_to_SRI_brain T2_to_SRI_brain",
            r"more for t1 \(T1_to_SRI.nii, T1_to_SRI_brain.nii\)",
        ),
        (
            "sub-1_FLAIR sub-1_acq-post_T1w sub-1_T2w",
            "no file for t1; found .*t1ce .sub-1_acq-post",
        ),
        ("p_flair p_t1_flair p_t1ce p_t2", "no file for t1; .*not recognised p_t1_flair.nii"),
        ("p_flair p_t1 p_t1ce p_t2_mask", "no file for t2; .*not recognised p_t2_mask.nii"),
        ("p_flair p_t1 p_t1_pre_post p_t2", "no file for t1ce; .*not recognised p_t1_pre_post.nii"),
        ("pre_flair pre_t1 post_t1ce pre_t2", r"several cases \(pre, without a name\)"),
        ("post.flair pre.t1 post.t1 pre.t2", r"several cases \(post, pre, without a name\)"),
        # times T1 and T2
        (
            "p_T1_t1 p_T1_t1ce p_T1_t2 p_T1_flair p_T2_t1 p_T2_t1ce p_T2_t2 p_T2_flair",
            r"several cases \(p_t1, p_t2\)",
        ),
        ("flair_p1 t1_p1 t1ce_p2 t2_p1", r"several cases \(p1, p2\)"),
        (
            "p_t1_pre_op p_t1_post_op p_t2_post_op p_flair_post_op",
            r"several cases \(postop, preop\)",
        ),
        (
            "t1_baseline t1ce_baseline t2_followup flair_followup",
            r"several cases \(baseline, followup\)",
        ),
        ("ann_flair_brain ann_t1_brain bob_t1ce_brain ann_t2_brain", r"several cases \(ann, bob\)"),
    ],
)
def test_what_cannot_be_told_apart_is_refused_with_the_option(
    tmp_path: Path, names: str, message: str
) -> None:
    with pytest.raises(CaseError, match=message) as caught:
        find_case(touch(tmp_path, *(f"{name}.nii" for name in names.split())))
    assert "--flair FILE --t1 FILE --t1ce FILE --t2 FILE, predict(flair=" in str(caught.value)


def bids(root: Path, *places: str) -> Path:
    for place in places:
        stem = "_".join(Path(place).parts)
        names = ("FLAIR", "T1w", "ce-gd_T1w", "T2w")
        touch(root / place / "anat", *(f"{stem}_{name}.nii.gz" for name in names))
    return root


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (
            ("sub-01/ses-01", "sub-01/ses-02", "sub-02/ses-01"),
            "sub-01_ses-01 sub-01_ses-02 sub-02_ses-01",
        ),
        (("sub-01/ses-01", "sub-02/ses-01"), "sub-01 sub-02"),
        (("sub-01", "sub-02"), "sub-01 sub-02"),
        (("sub-01/ses-01", "sub-01/ses-02"), "ses-01 ses-02"),
        (("sub-01/ses-01", "sub-02"), "sub-01_ses-01 sub-02"),
    ],
)
def test_bids_dataset(tmp_path: Path, places: tuple[str, ...], names: str) -> None:
    bids(tmp_path, *places)
    bids(tmp_path / "derivatives/tool", "sub-01")
    touch(tmp_path / "sub-01/dwi", "sub-01_dwi.nii.gz")
    found = find_cases(tmp_path)
    assert list(found) == names.split()
    assert list(found.values()) == [tmp_path / place / "anat" for place in places]
    assert all(len(find_case(case)) == 4 for case in found.values())


def test_any_folder_of_case_folders(tmp_path: Path) -> None:
    for name in ("b/x", "a", "a b", "c/1/2"):
        touch(tmp_path / name, "t1.nii.gz", "notes.txt")
    touch(tmp_path / ".hidden", "t1.nii.gz")
    touch(tmp_path / "c/1/2/3/4", "t1.nii.gz")
    touch(tmp_path / "too/deep/to/be/found", "t1.nii.gz")
    assert find_cases(tmp_path) == {
        "a": tmp_path / "a",
        "a b": tmp_path / "a b",
        "b_x": tmp_path / "b/x",
        "c_1_2": tmp_path / "c/1/2",
    }
    assert find_cases(tmp_path / "a") == {"a": tmp_path / "a"}, "a case folder is its own case"


def test_cases_by_the_parts_of_their_paths_that_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def names(*paths: str) -> list[str]:
        return list(name_cases([Path(path) for path in paths]))

    assert names("ds/sub-1/anat", "ds/sub-2/anat") == ["sub-1", "sub-2"]
    assert names("01/01", "01/02") == ["01", "02"]
    assert names("a/case", "b/case") == ["a", "b"]
    assert names("x", "x/anat") == ["x", "anat"]
    assert names(".") == [tmp_path.name]
    assert names("a/BRATS_1.nii.gz", "a/BRATS_2.nii") == ["BRATS_1", "BRATS_2"]
    for double in (("a", "a"), ("a", "./a"), ("a_b/c", "a/b_c")):
        with pytest.raises(OptionsError, match=r"was given twice, or gets the same name .* once"):
            names(*double)


def stack(path: Path, n: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.arange(n * 60, dtype=np.int16).reshape(5, 4, 3, n)
    nib.Nifti1Image(voxels, np.eye(4)).to_filename(path)
    return path


def test_a_4d_file_needs_an_order(tmp_path: Path) -> None:
    path = stack(tmp_path / "msd/BRATS_001.nii.gz")
    touch(tmp_path / "msd", "._BRATS_001.nii.gz", "readme.txt")
    stack(tmp_path / "msd/mask.nii.gz", n=1)
    for place in (path, path.parent, tmp_path):
        with pytest.raises(CaseError, match=r"say what .* images are: --channels flair,t1,t1ce,t2"):
            find_case(place)
    assert find_stack(path) == find_stack(path.parent) == path
    annexed = touch(tmp_path / "annexed", "BRATS_003.nii.gz")
    assert find_stack(annexed) == annexed / "BRATS_003.nii.gz", "reading it says what is wrong"
    stack(tmp_path / "msd/BRATS_002.nii.gz")
    with pytest.raises(CaseError, match=r"expected one 4-D file, got BRATS_001.nii.gz, BRATS_002"):
        find_stack(path.parent)
    with pytest.raises(CaseError, match=r"expected one 4-D file, got no \.nii or \.nii\.gz file"):
        find_stack(touch(tmp_path / "empty"))
    found = find_cases(tmp_path / "msd", order=MODALITIES)
    assert list(found) == ["BRATS_001", "BRATS_002"]
    assert found["BRATS_001"] == path


@pytest.mark.parametrize("find", [find_case, find_cases, find_stack])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b", "embedded null|no such|cannot"),
        ("x" * 300, "too long|No such"),
        ("none", "No such"),
    ],
)
def test_odd_paths_give_typed_errors(find: object, name: str, message: str, tmp_path: Path) -> None:
    if find is find_stack:  # a path that is no folder is opened later
        with pytest.raises(InputError, match="cannot read"):
            read_files(flair=find_stack(tmp_path / name))
    else:
        with pytest.raises(CaseError, match="cannot list: "):
            find(tmp_path / name)  # type: ignore[operator]


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bids(tmp_path, "sub-1")
    touch(tmp_path / "secret")
    listed = Path.iterdir

    def denied(path: Path) -> object:
        if path.name == "secret":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", denied)  # chmod does not stop root
    for find in (find_cases, find_case):
        with pytest.raises(CaseError, match="secret: cannot list: Permission denied"):
            find(tmp_path)


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    bids(tmp_path, "sub-1", "sub-2")
    os.symlink(tmp_path, tmp_path / "sub-1/loop")
    assert list(find_cases(tmp_path)) == ["sub-1", "sub-2"]
