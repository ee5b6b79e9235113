"""A report of the synthetic study."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from altair.utils import schemapi
from analysis.synthetic import write_study

from yarnlab.analysis import statistics
from yarnlab.report import render

COMMAND = "envs/run snakemake --cores all --config study=micro"
RESAMPLES = 300  # of bootstraps whose bounds no test here reads


@pytest.fixture(scope="package", autouse=True)
def light() -> Iterator[None]:
    """What costs seconds and is tested elsewhere: thousands of resamples, Altair's check of every specification."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", RESAMPLES)
        patch.setattr(schemapi, "DEBUG_MODE", False)
        statistics.draws.cache_clear()
        yield
    statistics.draws.cache_clear()


@pytest.fixture(scope="package")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study; tests must not change it."""
    return write_study(tmp_path_factory.mktemp("results") / "micro", further=True)


@pytest.fixture(scope="package")
def reported(complete: Path) -> Iterator[Path]:
    """The directory of a complete study with its report, without the charting library (the browser tests have it)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render, "_bundle", lambda: "")
        render.write_report(complete, command=COMMAND)
    yield complete


@pytest.fixture
def write_report(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A function that writes the report of a study, without the charting library."""
    monkeypatch.setattr(render, "_bundle", lambda: "")
    return lambda study: render.write_report(study, command=COMMAND)
