"""The page in a browser: it opens from disk, asks no host, draws the labels, toggles them, in 3D.

Takes a minute without a GPU; where there is no Chromium it is skipped.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastbts import Segmentation, Segmenter
from fastbts.phantom import make_case
from fastbts.results.compare import Change, compare
from fastbts.results.page import comparison_page
from tests.conftest import VoxelEngine
from tests.write.browser import CHROMIUM, Page, browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium (Debian: apt install chromium)"),
]
NAME = "</script><script>document.title='broken out'</script><b>&quot;"


@pytest.fixture
def result() -> Segmentation:
    volume = make_case(3, shape=(48, 48, 40)).volume
    return Segmenter(VoxelEngine(), warm_up=False).predict(volume)


@pytest.fixture
def html(result: Segmentation, tmp_path: Path) -> Path:
    return result.save_html(tmp_path / "case with space.html", name=NAME)


def n_red(page: Page) -> int:
    """Pixels of the images in the hue of the enhancing tumour, also where 3D makes it darker."""
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), int)
    box = page.run(
        "(r => [r.top, r.bottom, r.left, r.right])("
        "document.querySelector('canvas').getBoundingClientRect())"
    )
    top, bottom, left, right = map(int, box)
    red, green, blue = np.moveaxis(picture[top:bottom, left:right], -1, 0)
    return int(((red > 60) & (green < 0.6 * red) & (blue < 0.4 * red)).sum())


def press(page: Page, selector: str) -> None:
    """Focuses a control and presses the space bar."""
    page.run(f"document.querySelector({selector!r}).focus({{preventScroll: true}})")
    for kind in ("keyDown", "keyUp"):
        page.call(
            "Input.dispatchKeyEvent",
            type=kind,
            key=" ",
            code="Space",
            text=" ",
            windowsVirtualKeyCode=32,
        )


SLOW_FLAIR = """(async () => {
  const [panel, menu] = [panels[0], form.elements.image];
  const [read, first] = [panel.read.bind(panel), menu.value];
  let arrive;
  const arrival = new Promise((resolve) => (arrive = resolve));
  panel.read = async (...what) => (await arrival, read(...what));
  menu.value = "flair";
  const late = menu.onchange();
  menu.value = first;
  await menu.onchange();
  arrive();
  await late;
  return [first, panel.viewer.volumes[0].name];
})()"""
"""Chooses an image that arrives only after the first one is chosen again."""


def follow_up(path: Path, result: Segmentation) -> Path:
    """The page of a comparison with long numbers."""
    html, report = path.with_name("viewer.html"), path.with_name("report.json")
    result.save(path.with_name("seg.nii.gz"), sidecar=report, html=html)
    comparison = compare(report, report)
    long = {region: Change(123.4, 345.6) for region in comparison.changes}
    path.write_bytes(comparison_page(replace(comparison, changes=long)))
    return path


def test_page_in_a_browser(html: Path, result: Segmentation, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as page:
        page.open(html, 700, 500)
        assert page.run("document.documentElement.dataset.state") == "ready", page.complaints
        assert page.run("document.title").startswith("</script><script>document.title")
        page.run(
            "(o => { o.value = 100; o.oninput({target: o}); })"
            "(document.querySelector('[name=opacity]'))"
        )
        planes = n_red(page)
        assert planes > 50
        press(page, "[value=ET]")
        assert not page.run("document.querySelector('[value=ET]').checked")
        assert n_red(page) < planes / 10
        press(page, "button[title*=enhancing]")
        press(page, "[value=render]")
        assert page.run("document.querySelector('[value=render]').checked")
        assert n_red(page) > 50, "3D shows the label"
        assert page.run(SLOW_FLAIR) == ["t1ce", "t1ce.nii.gz"], "the image that the menu names"
        page.resize(360, 700)
        assert page.run("document.documentElement.scrollWidth") <= 360, "a phone need not scroll"
        compared = follow_up(html.with_name("follow-up.html"), result)
        page.open(compared, 1280, 800)
        assert page.run(
            "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
        ), "the percent is in sight"
        hosts = [url for url in page.requests if not url.startswith(("data:", "blob:"))]
        assert hosts == [html.as_uri(), compared.as_uri()]
        assert page.complaints == []
