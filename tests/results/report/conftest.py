"""A report of the synthetic study."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from results.light import light
from results.synthetic import write_study
from yarnlab.results.report import render

COMMAND = "envs/run snakemake --cores all --config study=micro"


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
        patch.setattr(render, "vega", lambda _: "")
        render.write_report(complete, command=COMMAND)
    yield complete


@pytest.fixture
def write_report(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A function that writes the report of a study, without the charting library."""
    monkeypatch.setattr(render, "vega", lambda _: "")
    return lambda study: render.write_report(study, command=COMMAND)
