"""The page in a real browser with the network off: no error, every figure drawn, any size, light and dark."""

from itertools import pairwise
from pathlib import Path

import pytest

from report import chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium.find() is None, reason="no Chromium on this machine"),
]

LUMINANCE = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)"


def test_the_page_works_offline(reported: Path) -> None:
    """Wide, narrow, light and dark: nothing is fetched, nothing is logged, nothing sticks out."""
    with chromium.page() as page:
        for width, dark in ((1200, False), (1200, True), (768, False), (390, False)):
            page.open(reported / "report.html", width, dark=dark)
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


def test_sections_follow_each_other_and_the_headline_comes_first(reported: Path) -> None:
    """Layout: the verdict is on the first screen, sections do not overlap."""
    with chromium.page() as page:
        page.open(reported / "report.html", 1200)
        boxes = page.evaluate(
            "[...document.querySelectorAll('main > section')].map(s => [s.id, s.getBoundingClientRect().top,"
            " s.getBoundingClientRect().bottom])"
        )
        assert boxes[0][0] == "headline" and boxes[0][1] < 450
        assert all(above[2] <= below[1] for above, below in pairwise(boxes))


def test_hidden_figures_are_drawn_when_opened(reported: Path) -> None:
    """A figure inside a closed disclosure appears when that is opened from the keyboard."""
    with chromium.page() as page:
        page.open(reported / "report.html", 1200)
        drawn = "(document.querySelector('[data-plot=bucket_nll] svg')?.checkVisibility() ?? false)"
        assert page.evaluate(drawn) is False
        page.evaluate(
            "document.querySelector('[data-plot=bucket_nll]').closest('details').querySelector('summary').focus()"
        )
        for kind in ("keyDown", "keyUp"):
            page.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key="Enter",
                code="Enter",
                text="\r",
                windowsVirtualKeyCode=13,
            )
        assert page.evaluate(
            f"new Promise(r => {{ let n = 0; const t = setInterval(() => {{ if ({drawn} || n++ > 100) "
            f"{{ clearInterval(t); r({drawn}); }} }}, 50); }})"
        )


def test_a_colour_scheme_change_redraws(reported: Path) -> None:
    """Switching to dark while the page is open recolours the charts."""
    with chromium.page() as page:
        page.open(reported / "report.html", 1200)
        before = page.evaluate("document.querySelector('[data-plot=figure_1] svg').outerHTML")
        scheme = {"name": "prefers-color-scheme", "value": "dark"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        assert page.evaluate(
            "new Promise(r => { let n = 0; const t = setInterval(() => { const s = document.querySelector("
            "'[data-plot=figure_1] svg'); if ((s && s.outerHTML.includes('#ff8b52')) || n++ > 200) "
            "{ clearInterval(t); r(s.outerHTML.includes('#ff8b52')); } }, 50); })"
        )
        assert "#c7430b" in before
