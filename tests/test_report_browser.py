from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("keras")

from mnv2tl.checkpoint import Run
from mnv2tl.compare import compare_runs
from mnv2tl.report.compare_page import write_page
from mnv2tl.report.write import write_report
from tests.report_folder import rename, write_benchmark, write_bundle

BROWSER = "MNV2TL_TEST_BROWSER"
"""Environment variable that names the program of a Chromium."""
AXE = "MNV2TL_TEST_AXE"
"""Environment variable that names the file axe.min.js of the npm package axe-core."""
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_VIEWS = [(360, "light"), (360, "dark"), (718, "light"), (1280, "light"), (1280, "dark")]
_WIDER = """
[...document.querySelectorAll('body *')]
  .filter(each => !each.parentElement.closest('.scroll, svg'))
  .filter(each => each.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(each => each.outerHTML.slice(0, 80))
"""
_TIPS = """
[...document.querySelectorAll('.tip')]
  .filter(each => getComputedStyle(each).display !== 'none')
  .map(each => each.parentElement.querySelector('.touch').getAttribute('cx'))
"""
_SERIOUS = """
axe.run().then(found => found.violations
  .filter(each => ['serious', 'critical'].includes(each.impact))
  .map(each => [each.id, each.nodes[0].html]))
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Return a browser that runs; skip the test if none is found."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = os.environ.get(BROWSER) or next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium is found; {BROWSER} may name one")
    # Chromium's own sandbox refuses to run as root, which containers do.
    words = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=words)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture
def report(trained_run: Run, _place: Path) -> Path:
    """Return a report with every part, of a run with bad names; written once."""
    path = _place / "run" / "report.html"
    if not path.exists():
        run = rename(trained_run, _place)
        bundle = write_bundle(run, _place / "bundle")
        write_report(run, bundle=bundle, benchmark=write_benchmark(_place / "result.json"))
    return path


def _open(browser: Any, report: Path, view: tuple[int, str]) -> tuple[Any, list[str]]:
    """Return the page, and a list that gets all that the browser complains of or asks for."""
    width, scheme = view
    size = {"width": width, "height": 800}
    page = browser.new_page(viewport=size, color_scheme=scheme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: said.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_load_state("networkidle")
    asked = [each for each in said if not each.startswith("data:image/webp;base64,")]
    assert asked.pop(0) == report.as_uri()
    return page, asked


@pytest.mark.parametrize("view", _VIEWS)
def test_page_is_quiet_and_fits(chromium: Any, report: Path, view: tuple[int, str]) -> None:
    """No complaint, no dialog, no request but for the file; nothing is wider than the screen."""
    page, said = _open(chromium, report, view)

    assert said == []
    assert page.evaluate("document.scripts.length") == 0
    assert page.evaluate(_WIDER) == []
    scroll, client = page.evaluate(
        "['scrollWidth', 'clientWidth'].map(name => document.documentElement[name])"
    )
    assert scroll == client
    page.close()


@pytest.mark.parametrize("view", _VIEWS)
def test_charts_and_pictures_are_seen(chromium: Any, report: Path, view: tuple[int, str]) -> None:
    """Charts have a size and ink that differs from the paper; pictures are decoded."""
    page, _ = _open(chromium, report, view)

    charts = page.locator(".chart svg")
    assert charts.count() == 8
    for index in range(8):
        box = charts.nth(index).bounding_box()
        assert box["width"] >= 300
        assert box["height"] >= 80
    broken = "[...document.images].filter(each => !each.naturalWidth).length"
    assert page.evaluate(broken) == 0
    ink, paper = page.evaluate(
        "[getComputedStyle(document.querySelector('.chart text')).fill,"
        " getComputedStyle(document.documentElement).backgroundColor]"
    )
    assert ink != paper
    assert (paper == "rgb(255, 255, 255)") == (view[1] == "light")
    page.close()


def test_pointing_at_a_mark_shows_its_picture(chromium: Any, report: Path) -> None:
    """Of the one mark, and nothing when the pointer has left; without a script."""
    page, _ = _open(chromium, report, (1280, "light"))
    mark = page.locator(".mark .touch").last
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()

    before = page.evaluate(_TIPS)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    pointing = page.evaluate(_TIPS)
    page.mouse.move(1, 1)

    assert (before, page.evaluate(_TIPS)) == ([], [])
    assert pointing == [mark.get_attribute("cx")]
    page.close()


def test_policy_stops_a_script_that_got_in(chromium: Any, report: Path) -> None:
    """Even if a name became markup, its script would not run."""
    page, said = _open(chromium, report, (1280, "light"))
    said.clear()

    page.evaluate(
        "const script = document.createElement('script');"
        "script.textContent = 'window.ran = true'; document.body.append(script)"
    )

    assert page.evaluate("window.ran") is None
    page.close()


def test_page_prints_light_and_whole(chromium: Any, report: Path) -> None:
    """Also for a reader who has chosen dark: black on white, no links to parts, nothing cut."""
    # The width of a sheet of A4 with Chromium's margins, in CSS pixels.
    page, _ = _open(chromium, report, (718, "dark"))

    page.emulate_media(media="print")

    assert page.evaluate("document.documentElement.scrollWidth") == 718
    style = "getComputedStyle(document.documentElement)"
    assert page.evaluate(f"[{style}.color, {style}.backgroundColor]") == [
        "rgb(0, 0, 0)",
        "rgb(255, 255, 255)",
    ]
    assert not page.locator("nav").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()


@pytest.mark.parametrize("view", _VIEWS)
def test_axe_finds_no_serious_violation(chromium: Any, report: Path, view: tuple[int, str]) -> None:
    """Contrast, names, roles, tables, by axe-core."""
    file = os.environ.get(AXE)
    if file is None:
        pytest.skip(f"axe-core is not there; {AXE} may name its axe.min.js")
    page, _ = _open(chromium, report, view)
    page.evaluate(Path(file).read_text("utf-8"))

    assert page.evaluate(_SERIOUS) == []

    page.evaluate("document.querySelector('img').removeAttribute('alt')")
    assert [each[0] for each in page.evaluate(_SERIOUS)] == ["image-alt"]
    page.close()


@pytest.mark.parametrize("view", _VIEWS)
def test_comparison_is_quiet_fits_and_is_accessible(
    chromium: Any, trained_run: Run, tmp_path: Path, view: tuple[int, str]
) -> None:
    """The page of `mnv2tl compare`, of three runs, one of them with a bad name."""
    folder = tmp_path / "<img src=x onerror=alert(1)> and a long name without an end"
    shutil.copytree(trained_run.folder, folder)
    runs = [trained_run, dataclasses.replace(trained_run, folder=folder), trained_run]
    path = tmp_path / "page.html"
    write_page(compare_runs(runs), runs, path)

    page, said = _open(chromium, path, view)

    assert said == []
    assert page.evaluate(_WIDER) == []
    scroll, client = page.evaluate(
        "['scrollWidth', 'clientWidth'].map(name => document.documentElement[name])"
    )
    assert scroll == client
    assert page.locator(".chart svg").count() == 4
    if file := os.environ.get(AXE):
        page.evaluate(Path(file).read_text("utf-8"))
        assert page.evaluate(_SERIOUS) == []
    page.close()
