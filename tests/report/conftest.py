"""A report of the synthetic study."""

from pathlib import Path

import pytest
from analysis.synthetic import write_study

from yarnlab.report.render import write_report

COMMAND = "envs/run snakemake --cores all --config study=micro"


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a complete study with its report."""
    study = write_study(tmp_path_factory.mktemp("results") / "micro", further=True)
    write_report(study, command=COMMAND)
    return study
