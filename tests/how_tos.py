"""The how-tos of docs/ as edits of a copy of the project: what they say to write, where they say it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def copy_project(target: Path) -> Path:
    """What the workflow consists of, to be edited, and what looks after protocols.lock."""
    for name in ("src", "workflow", "config"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (target / "profiles").symlink_to("workflow/profiles")
    shutil.copy(ROOT / "Snakefile", target)
    (target / "tests").mkdir()
    for name in ("bless_protocols.py", "protocols.lock"):
        shutil.copy(ROOT / "tests" / name, target / "tests")
    return target


def python(project: Path, *arguments: str) -> str:
    """What a Python process says that works with the copy."""
    environment = {**os.environ, "PYTHONPATH": str(project / "src")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def guide(name: str) -> str:
    return (ROOT / "docs" / f"how-to-{name}.md").read_text(encoding="utf-8")


def block(name: str, language: str) -> str:
    """The first block of a how-to in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", guide(name), re.DOTALL | re.MULTILINE)[0]


def write_modules(name: str, project: Path) -> list[str]:
    """Write the modules that a how-to shows below their paths; returns the paths."""
    shown = re.findall(r"^`(src/\S+\.py)`[^`]*:\n\n```python\n(.*?)^```", guide(name), re.DOTALL | re.MULTILINE)
    for path, text in shown:
        assert not (project / path).exists(), f"{path} is there already: nothing but new modules is needed"
        (project / path).write_text(text, encoding="utf-8")
    return [path for path, _ in shown]


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{file.name}: {old}"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def add_method(project: Path) -> None:
    """docs/how-to-method.md: the class and its name in METHODS."""
    formulas = project / "src" / "yarnlab" / "rope.py"
    edit(formulas, "METHODS: dict", f"{block('method', 'python')}\n\nMETHODS: dict")
    edit(formulas, "        DynamicYaRN,\n", "        DynamicYaRN,\n        PowerInterpolation,\n")


def add_model(project: Path, study: str) -> None:
    """Its model, in a study."""
    edit(project / "config" / "studies" / study, "\nevaluations:\n", f"{block('method', 'yaml')}\nevaluations:\n")


def add_kind(project: Path, study: str) -> None:
    """docs/how-to-evaluation.md: both modules, and the section of a study."""
    paths = write_modules("evaluation", project)
    assert paths == ["src/yarnlab/evaluation/echo.py", "src/yarnlab/results/tables/echo.py"]
    edit(project / "config" / "studies" / study, "evaluations:\n", f"evaluations:\n{block('evaluation', 'yaml')}")
