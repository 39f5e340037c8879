"""The page without a browser: its parts, its images, and text that wants to break out."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fastbts import OptionsError, OutputError, Segmentation, Segmenter
from fastbts.labels import SCHEMES
from fastbts.write.ours import is_ours
from fastbts.write.viewer import images
from fastbts.write.viewer.images import grey
from fastbts.write.viewer.page import NIIVUE, _file
from fastbts.write.viewer.write import viewer_page
from fastbts.write.words import one_line
from tests.conftest import VoxelEngine

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=go()> \" ' & {{data}} <!--\udcff"
LPS = np.array([[-1.2, 0, 0, 30], [0, -1, 0, 40], [0, 0, 2.5, -20], [0, 0, 0, 1]])


class Parsed(HTMLParser):
    """Elements, attributes and texts of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._inside: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        for tag in {*self._inside[-1:]}:
            self.texts.setdefault(tag, []).append(data)

    @property
    def content(self) -> list[dict[str, Any]]:
        return json.loads(self.texts["script"][0])


def made(affine: np.ndarray = LPS) -> Segmentation:
    rng = np.random.default_rng(5)
    data = np.zeros((4, 30, 41, 23), np.int16)
    data[:, 3:28, 5:37, 2:21] = rng.integers(50, 900, (4, 25, 32, 19))
    result = Segmenter(VoxelEngine(), warm_up=False).predict(data, affine=affine)
    report = {**result.report, "warnings": [f"t1: {HOSTILE}"], "confidence": {"WT": 0.914}}
    return replace(result, report=report)


@pytest.fixture(scope="module")
def result() -> Segmentation:
    return made()


@pytest.fixture(scope="module")
def page(result: Segmentation) -> bytes:
    return viewer_page(result, HOSTILE)


def test_text_from_files_stays_text(page: bytes) -> None:
    """The parser finds the elements of the template and no others."""
    parsed = Parsed(page)
    tags = [tag for tag, _ in parsed.elements]
    assert tags.count("script") == 3
    assert tags.count("style") == 1
    assert not {"img", "link", "iframe", "object", "embed", "a", "base"} & {*tags}
    names = {name for _, attributes in parsed.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")} | names & {"src", "href", "style"}
    (title,) = parsed.texts["h1"]
    assert title == one_line(HOSTILE).replace("\udcff", "?")
    assert parsed.content[0]["name"] == one_line(HOSTILE)
    assert any(title in text for text in parsed.texts["li"])
    assert b"<!--" not in page.partition(b"<body>")[2]


def test_the_policy_allows_what_is_in_the_page(page: bytes) -> None:
    parsed = Parsed(page)
    (policy,) = (
        a["content"]
        for tag, a in parsed.elements
        if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    scripts = [text for text in parsed.texts["script"] if not text.startswith("[")]
    for rule, texts in (("script-src", scripts), ("style-src", parsed.texts["style"])):
        assert rules[rule].split() == [f"'sha256-{hash_of(text)}'" for text in texts]
    assert "http" not in policy
    assert "unsafe" not in policy


def hash_of(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_the_library_is_the_published_one() -> None:
    content = _file(NIIVUE).encode()
    sha256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
    assert hashlib.sha256(content).hexdigest() == sha256
    assert b"</script" not in content.lower()
    assert b"<!--" not in content
    licences = _file("LICENSES-niivue.txt")
    for name in ("NiiVue", "fflate", "gl-matrix", "nifti-reader-js", "zarrita", "Zstandard"):
        assert name in licences


def unpacked(packed: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(packed)))


def at_mm(array: np.ndarray, affine: np.ndarray) -> dict[tuple[float, ...], int]:
    """Position of each voxel that is not 0 -> its value."""
    voxels = np.argwhere(array)
    places = np.round(voxels @ affine[:3, :3].T + affine[:3, 3], 3)
    return {tuple(p): int(array[tuple(v)]) for p, v in zip(places, voxels, strict=True)}


@pytest.mark.parametrize("affine", [LPS, np.eye(4)[[1, 2, 0, 3]]])
def test_labels_are_at_their_place(affine: np.ndarray) -> None:
    result = made(affine)
    (content,) = Parsed(viewer_page(result)).content
    mask = unpacked(content["mask"])
    assert mask.header["sform_code"] == 1
    want = at_mm(result.labels, affine)
    assert want
    assert at_mm(np.asarray(mask.dataobj), mask.affine) == want
    assert nib.aff2axcodes(mask.affine) == ("R", "A", "S"), "the sliders count along these"


def test_images_are_cut_to_the_brain_at_8_bits(result: Segmentation, page: bytes) -> None:
    (content,) = Parsed(page).content
    assert list(content["images"]) == ["flair", "t1", "t1ce", "t2"]
    t1 = unpacked(content["images"]["t1"])
    assert t1.get_data_dtype() == np.uint8
    assert 25 * 32 * 19 <= np.prod(t1.shape) < result.labels.size
    values = np.asarray(t1.dataobj)
    assert np.count_nonzero(values) == np.count_nonzero(result.volume.data[1])
    assert values.max() == 255
    # Voxel (i, j, k) of the file is (29 - i, 40 - j, k) along R, A, S.
    x, y, z = (side["first"] for side in content["sides"])
    whole = np.zeros((30, 41, 23), np.uint8)
    whole[x : x + t1.shape[0], y : y + t1.shape[1], z : z + t1.shape[2]] = values
    order = np.argsort(result.volume.data[1][::-1, ::-1].ravel(), kind="stable")
    assert (np.diff(whole.ravel()[order].astype(int)) >= 0).all()


def test_large_images_are_thinned(result: Segmentation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_VOXELS", 5000)
    page = viewer_page(result)
    assert b"not every voxel is shown" in page
    (content,) = Parsed(page).content
    mask = unpacked(content["mask"])
    assert np.prod(mask.shape) <= 5000
    whole = at_mm(result.labels, LPS)
    shown = at_mm(np.asarray(mask.dataobj), mask.affine)
    assert shown
    assert shown.items() <= whole.items(), "voxels are left out, none is moved"
    assert [side["step"] for side in content["sides"]] != [1, 1, 1]


def test_grey_by_hand() -> None:
    image = np.zeros((4, 4, 4), np.float32)
    image[::2, ::2, ::2] = np.arange(8).reshape(2, 2, 2) * 10 + 10
    image[1, 1, 1], image[3, 3, 3] = np.nan, -np.inf
    shown = grey(image)
    assert shown[0, 0, 0] == 1
    assert shown[2, 2, 2] == 255
    assert shown[1, 1, 1] == shown[3, 3, 3] == shown[0, 0, 1] == 0
    assert not grey(np.zeros((2, 2, 2), np.int16)).any()


def test_controls_volumes_and_provenance(result: Segmentation, page: bytes) -> None:
    parsed = Parsed(page)
    text = " ".join(re.sub(r"<[^>]*>", " ", page.decode().partition("<body>")[2]).split())
    boxes = [a["value"] for tag, a in parsed.elements if a.get("name") == "label"]
    assert boxes == list(SCHEMES["brats2021"])
    regions = [json.loads(str(a["data-region"])) for _, a in parsed.elements if "data-region" in a]
    assert regions == [["NCR", "ED", "ET"], ["NCR", "ET"], ["ET"], []]
    for region, ml in result.volumes_ml.items():
        assert re.search(rf"{region} [a-z ]+ {ml:.1f} ml (0\.91|-)", text), region
    for fact in ("Engine voxel", "Precision fp32", "Backend test", "Device cpu", "fastbts 0."):
        assert fact in text
    assert "Research use only" in text
    assert "Radiological convention" in text
    labelled = [tag for tag, a in parsed.elements if tag == "canvas" and a.get("tabindex") == "0"]
    assert labelled, "the images are reached by the keyboard"


def test_other_regions_have_their_own_labels(result: Segmentation) -> None:
    regions = {"lesion": (1, 2, 4), 'core "<b>"': (2,)}
    other = replace(result, regions=regions, volumes_ml=dict.fromkeys(regions, 1.0))
    parsed = Parsed(viewer_page(other))
    boxes = [a["value"] for _, a in parsed.elements if a.get("name") == "label"]
    assert boxes == ["lesion", 'core "<b>"']


def test_a_page_alone(result: Segmentation, tmp_path: Path) -> None:
    page = result.save_html(tmp_path / "new" / "case.html", name="case 7")
    assert b"<title>case 7 - fastbts</title>" in page.read_bytes()
    assert [path.name for path in page.parent.iterdir()] == ["case.html"]
    assert is_ours(page)
    result.save_html(page)
    page.write_text("<!doctype html><p>notes of a person")
    with pytest.raises(OutputError, match=r"case\.html: exists, and fastbts did not write it"):
        result.save_html(page)
    result.save_html(page, overwrite=True)
    with pytest.raises(OptionsError, match=r"case\.png: expected a name that ends in \.html"):
        result.save_html(tmp_path / "case.png")
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match=r"taken is not a folder"):
        result.save_html(tmp_path / "taken" / "case.html")


def test_a_page_is_part_of_a_result(result: Segmentation, tmp_path: Path) -> None:
    image, html = tmp_path / "x.nii.gz", tmp_path / "x.html"
    files = result.save(image, html=html)
    assert [path.name for path in files] == ["x.nii.gz", "x.html", "x.json"]
    report = json.loads((tmp_path / "x.json").read_text())
    assert report["files_sha256"]["x.html"] == hashlib.sha256(html.read_bytes()).hexdigest()
    assert result.save(image) == [image, tmp_path / "x.json"]
    assert not html.exists(), "it would pass for the page of the new result"
    html.write_text("notes of a person")
    with pytest.raises(OutputError, match=r"x\.html: exists, and fastbts did not write it"):
        result.save(image, html=html)
