"""The page in a real browser with the network off: no error, every figure drawn, any size, light and dark."""

import base64
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from results.report import chromium
from results.report.conftest import COMMAND, write
from yarnlab.results.registry import figures

FIGURES = figures()

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium.find() is None, reason="no Chromium on this machine"),
]

LUMINANCE = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)"
OPEN_ALL = "document.querySelectorAll('details').forEach(d => { d.open = true; })"
ALL_DRAWN = (
    "new Promise(done => { let n = 0; const look = () => { const all = [...document.querySelectorAll('.plot')];"
    " all.every(p => p.dataset.ready) || n++ > 600 ? done(all.every(p => p.dataset.ready)) : setTimeout(look, 50); };"
    " look(); })"
)


@pytest.fixture(scope="module")
def written(complete: Path) -> Path:
    """The complete study's report with the charting library."""
    write(complete)
    return complete


@pytest.fixture
def page() -> Iterator[chromium.Page]:
    with chromium.page() as page:
        yield page


def press(page: chromium.Page, key: str, code: int, text: str = "") -> None:
    """One key, down and up."""
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text, windowsVirtualKeyCode=code)


def test_the_page_works_offline(written: Path, page: chromium.Page) -> None:
    """Wide, narrow, light and dark: nothing is fetched, nothing is logged, nothing sticks out."""
    for width, dark in ((1200, False), (1200, True), (768, False), (390, False)):
        page.open(written / "report.html", width, dark=dark)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert (page.evaluate(LUMINANCE) < 200) == dark
        plots = page.evaluate(
            "[...document.querySelectorAll('.plot')].filter(p => p.clientWidth).map(p => ["
            "p.dataset.plot, p.querySelectorAll('svg path').length, p.querySelector('svg')"
            ".getBoundingClientRect().width / p.clientWidth])"
        )
        assert {"figure_1", "ablation", "training_loss", "passkey", "zero_shot", "cost"} <= {p[0] for p in plots}
        assert all(marks > 3 for _, marks, _ in plots)
        assert all(0.6 < share <= 1.02 for _, _, share in plots), plots
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    assert page.errors == []


@pytest.mark.parametrize("width", [1200, 390])
def test_every_figure_is_drawn_when_everything_is_open(written: Path, page: chromium.Page, width: int) -> None:
    """All disclosures open: each figure has marks and axis titles, none is wider than its column, nothing overflows."""
    page.open(written / "report.html", width)
    page.evaluate(OPEN_ALL)
    assert page.evaluate(ALL_DRAWN)
    plots = page.evaluate(
        "[...document.querySelectorAll('.plot')].map(p => [p.dataset.plot, p.querySelectorAll('svg path').length,"
        " p.querySelector('svg').getBoundingClientRect().width - p.clientWidth,"
        " p.querySelectorAll('svg .role-axis-title').length])"
    )
    assert {name for name, *_ in plots} == set(FIGURES)
    assert all(marks > 3 and titles > 0 for _, marks, _, titles in plots)
    assert all(beyond <= 1 for _, _, beyond, _ in plots), plots
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.errors == []


def test_sections_follow_each_other_and_the_headline_comes_first(written: Path, page: chromium.Page) -> None:
    """Layout: the verdict is on the first screen, sections do not overlap, a caption stands below its figure."""
    page.open(written / "report.html", 1200)
    boxes = page.evaluate(
        "[...document.querySelectorAll('main > section')].map(s => [s.id, s.getBoundingClientRect().top,"
        " s.getBoundingClientRect().bottom])"
    )
    assert boxes[0][0] == "headline" and boxes[0][1] < 450
    assert all(above[2] <= below[1] for above, below in pairwise(boxes))
    captions = page.evaluate(
        "[...document.querySelectorAll('figure')].filter(f => f.clientWidth && f.querySelector('figcaption')).map(f =>"
        " f.querySelector('figcaption').getBoundingClientRect().top - f.querySelector('svg')"
        ".getBoundingClientRect().bottom)"
    )
    assert len(captions) > 8 and min(captions) >= 0


def test_hidden_figures_are_drawn_when_opened(written: Path, page: chromium.Page) -> None:
    """A figure inside a closed disclosure appears when that is opened from the keyboard."""
    page.open(written / "report.html", 1200)
    drawn = "(document.querySelector('[data-plot=bucket_nll] svg')?.checkVisibility() ?? false)"
    assert page.evaluate(drawn) is False
    page.evaluate(
        "document.querySelector('[data-plot=bucket_nll]').closest('details').querySelector('summary').focus()"
    )
    press(page, "Enter", 13, "\r")
    assert page.evaluate(
        f"new Promise(r => {{ let n = 0; const t = setInterval(() => {{ if ({drawn} || n++ > 100) "
        f"{{ clearInterval(t); r({drawn}); }} }}, 50); }})"
    )


def test_the_page_is_used_from_the_keyboard(written: Path, page: chromium.Page) -> None:
    """The first Tab shows the skip link, Enter goes to the results; from there every stop is visible and outlined."""
    page.open(written / "report.html", 1200)
    press(page, "Tab", 9)
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    press(page, "Enter", 13, "\r")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(12):
        press(page, "Tab", 9)
        stop = page.evaluate(
            "(e => [e.tagName, e.checkVisibility(), getComputedStyle(e).outlineStyle, !!e.closest('main')])"
            "(document.activeElement)"
        )
        assert stop[0] in ("A", "SUMMARY", "DIV") and stop[1:] == [True, "solid", True], stop


def test_links_within_the_page_lead_to_something_visible(written: Path, page: chromium.Page) -> None:
    """Also where it stands in a closed disclosure, which opens."""
    page.open(written / "report.html", 1200)
    broken = page.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href').slice(1))"
        ".filter(id => !document.getElementById(id))"
    )
    assert broken == []
    page.evaluate("location.hash = 'figure-figure_1_relative'")
    page.evaluate("new Promise(done => setTimeout(done, 300))")
    assert page.evaluate("document.getElementById('figure-figure_1_relative').checkVisibility()")
    missing = page.evaluate(
        "[...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href')).filter(h => !/^(#|[a-z]+:)/.test(h))"
    )
    assert missing and all((written / link).is_file() for link in missing)


def test_run_links_follow_the_address_that_the_reader_gives(written: Path, page: chromium.Page) -> None:
    """Served on another port: one input changes all links, with or without a slash at its end."""
    page.open(written / "report.html", 1200)
    links = "[...document.querySelectorAll('a.run')].map(a => a.href)"
    before = page.evaluate(links)
    for address in ("http://127.0.0.1:5003", "https://mlflow.example.org/team/"):
        page.evaluate(f"document.getElementById('mlflow').value = '{address}'")
        page.evaluate("document.getElementById('mlflow').dispatchEvent(new Event('change'))")
        expected = [link.replace("http://127.0.0.1:5000", address.rstrip("/")) for link in before]
        assert len(before) > 100 and page.evaluate(links) == expected


def test_a_colour_scheme_change_recolours(written: Path, page: chromium.Page) -> None:
    """Switching to dark while the page is open recolours the charts at once, without drawing them again."""
    page.open(written / "report.html", 1200)
    colour = "getComputedStyle(document.querySelector('[data-plot=figure_1] svg path[stroke*=c7430b]')).stroke"
    page.evaluate("window.before = document.querySelector('[data-plot=figure_1] svg')")
    assert page.evaluate(colour) == "rgb(199, 67, 11)"
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert page.evaluate(colour) == "rgb(255, 139, 82)"
    assert page.evaluate("window.before === document.querySelector('[data-plot=figure_1] svg')")


def test_paper_is_white_and_everything_is_on_it(written: Path, page: chromium.Page) -> None:
    """Printed from a dark screen: light colours, all disclosures open, several pages of PDF."""
    page.open(written / "report.html", 1200, dark=True)
    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.call("Emulation.setEmulatedMedia", media="print", features=scheme)
    assert page.evaluate(LUMINANCE) == 3 * 255
    assert page.evaluate("getComputedStyle(document.querySelector('svg text')).fill") != "rgb(163, 172, 186)"
    page.call("Emulation.setEmulatedMedia", media="", features=scheme)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    assert page.evaluate(ALL_DRAWN)
    pdf = base64.b64decode(page.call("Page.printToPDF", printBackground=True)["data"])
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 5
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") > 5


def test_a_missing_result_names_its_command_on_a_phone(tmp_path: Path, page: chromium.Page) -> None:
    """A study with half of its results: nothing breaks, and the long commands do not widen the screen."""
    from results.synthetic import write_study

    study = write_study(tmp_path / "study", skip=("perplexity", "passkey"))
    write(study)
    page.open(study / "report.html", 390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert (
        page.evaluate("[...document.querySelectorAll('.absent code')].map(c => c.textContent)").count(
            f"{COMMAND} --until perplexity"
        )
        >= 3
    )
    assert page.errors == []
