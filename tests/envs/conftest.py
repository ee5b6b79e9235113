from pathlib import Path

import pytest
from project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose environment does not exist yet."""
    return Project(tmp_path)


@pytest.fixture
def ready(project: Project) -> Project:
    """A project whose environment is fresh."""
    assert project.run("true").returncode == 0
    project.calls()
    return project
