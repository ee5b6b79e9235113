"""MLflow's pages of a study, opened in headless Chromium: `python tests/tracking/dashboard_pictures.py results micro`
takes the pictures of docs/dashboard.md anew from a finished study. Serves the dashboard itself; needs Chromium."""

import base64
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script

from results.report import chromium

WORKFLOW = "?workflowType=machine_learning"
CLOSE_ASSISTANT = (
    "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');"
    "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false')"
)


@contextmanager
def dashboard(results: Path, port: int = 0) -> Iterator[dict[str, str]]:
    """`yarnlab dashboard` in a process of its own, stopped by SIGINT; yields what it prints: {study: link}, '' is its own."""
    code = f"from pathlib import Path; from yarnlab.tracking.dashboard import serve; serve(Path({str(results)!r}), port={port or 5400})"
    server = subprocess.Popen([sys.executable, "-uc", code], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    links = {}
    try:
        for line in server.stdout:
            if line.startswith("MLflow: "):
                links[""] = line.split()[1]
            elif line.startswith("  "):
                study, link = line.split()
                links[study.removesuffix(":")] = link
            elif "Ctrl-C stops" in line:
                break
        yield links
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)


class Browser:
    """A tab that is allowed to use the network."""

    def __init__(self, page: chromium.Page) -> None:
        self.page = page
        page.call(
            "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        page.call("Page.addScriptToEvaluateOnNewDocument", source=CLOSE_ASSISTANT)

    def open(self, url: str, until: str, width: int = 1600, height: int = 900, timeout_s: float = 120.0) -> str:
        """Load a page and wait until a JavaScript condition holds; returns the text of the page."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.page.call("Emulation.setDeviceMetricsOverride", **size)
        self.page.call("Page.navigate", url="about:blank")
        self.page.call("Page.navigate", url=url)
        give_up = time.monotonic() + timeout_s
        while not self.page.evaluate(until):
            assert time.monotonic() < give_up, f"{url} never came to {until}: {self.text()[:2000]}"
            self.wait(0.5)
        return self.text()

    def wait(self, seconds: float) -> None:
        self.page.evaluate(f"new Promise(done => setTimeout(done, {1000 * seconds}))")

    def text(self) -> str:
        return str(self.page.evaluate("document.body ? document.body.innerText : ''"))

    def picture(self, file: Path, settle_s: float = 5.0) -> None:
        """What the window shows, once nothing moves any more."""
        self.wait(settle_s)
        file.write_bytes(base64.b64decode(self.page.call("Page.captureScreenshot")["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    with chromium.page() as page:
        yield Browser(page)


def says(*words: str) -> str:
    """A JavaScript condition: the page's text has all of these."""
    return " && ".join(f"document.body?.innerText.includes({word!r})" for word in words)


LINES_DRAWN = "document.querySelectorAll('.scatterlayer path.js-line').length"


def pages(link: str, study: str) -> dict[str, tuple[str, str, int]]:
    """{picture: (address, what the page has when it is there, height)} of docs/dashboard.md, for a study's own models."""
    from mlflow import MlflowClient

    client = MlflowClient(link)
    experiment: Any = client.get_experiment_by_name(f"yarnlab/{study}")
    found = client.search_runs([experiment.experiment_id])
    execution = next(run for run in found if run.data.tags.get("stage") == "study")
    models = client.search_logged_models([experiment.experiment_id])
    last = next(m for m in models if " ← " in m.tags["mlflow.note.content"])
    place = f"{link}/#/experiments/{experiment.experiment_id}"
    view = f"{place}/runs{WORKFLOW}&viewStateShareKey=yarnlab"
    return {
        "runs": (view, says("Group: ", "perplexity/nll at L", last.name), 900),
        "charts": (f"{view}&compareRunsMode=CHART", f"{LINES_DRAWN} > 12", 1250),
        "model": (f"{place}/models/{last.model_id}{WORKFLOW}", says("Made from", "perplexity/nll"), 900),
        "run": (f"{place}/runs/{last.source_run_id}{WORKFLOW}", says("Parent run", "cost/train/seconds"), 900),
        "report": (
            f"{place}/runs/{execution.info.run_id}/artifacts/report.html{WORKFLOW}",
            "document.querySelectorAll('iframe.mlflow-html-iframe').length",
            900,
        ),
    }


def main(results: str, study: str, folder: str = "docs/images") -> None:
    """Write dashboard-<page>.png for every page."""
    with dashboard(Path(results)) as links, browser() as tab:
        for name, (url, until, height) in pages(links[""], study).items():
            tab.open(url, until, height=height)
            tab.picture(Path(folder) / f"dashboard-{name}.png", settle_s=20)
            print(f"{folder}/dashboard-{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
