"""A report of the synthetic study."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from results.light import light
from results.synthetic import write_study
from yarnlab.results import analyse
from yarnlab.results.report import render

COMMAND = "envs/run snakemake --cores all --config study=micro"


def write(study: Path) -> Path:
    """Analyse a study and write its report."""
    analyse.analyse(study, command=COMMAND)
    return render.write_report(study, command=COMMAND)


def without_pictures(patch: pytest.MonkeyPatch) -> None:
    """Neither the charting library in the page nor pictures of the charts, which are drawn for seconds."""
    pictures: dict[str, str | bytes] = {"html": "", "svg": "", "png": b""}
    patch.setattr(render, "vega", lambda _: "")
    patch.setattr(analyse, "drawn", lambda spec, folder: pictures)
    patch.setattr(analyse, "notice", lambda title, reason: pictures)


@pytest.fixture(scope="package", autouse=True)
def cheap() -> Iterator[None]:
    """No test here reads a bound of an interval, and none is about the reader's own MLflow server."""
    with light(), pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="package")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study; tests must not change it."""
    return write_study(tmp_path_factory.mktemp("results") / "micro", further=True)


@pytest.fixture(scope="package")
def reported(complete: Path) -> Iterator[Path]:
    """The directory of a complete study with its report, without the charting library (the browser tests have it)."""
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        write(complete)
    yield complete


@pytest.fixture
def write_report(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """A function that analyses a study and writes its report, without the charting library and without pictures."""
    without_pictures(monkeypatch)
    return write
