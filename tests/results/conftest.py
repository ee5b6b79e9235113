"""One synthetic study for all tests that only read it."""

from pathlib import Path

import pytest

from results.synthetic import write_study
from yarnlab.results.results import Results, load


@pytest.fixture(scope="session")
def study_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete study; tests must not change it."""
    return write_study(tmp_path_factory.mktemp("results") / "micro", further=True)


@pytest.fixture(scope="session")
def results(study_dir: Path) -> Results:
    """The same, loaded."""
    return load(study_dir)
