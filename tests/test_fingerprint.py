"""The key of a job changes with what its numbers follow from, and with nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from yarnlab import fingerprint
from yarnlab.study.evaluations import KINDS
from yarnlab.study.load import load_study
from yarnlab.study.sections import section
from yarnlab.workflow import Workflow

STUDIES = Path(__file__).resolve().parents[1] / "config" / "studies"
STUDY_KEYS = (
    "import sys, json; from pathlib import Path; from yarnlab.workflow import Workflow\n"
    f"flow = Workflow.load('smoke', Path({str(STUDIES)!r}))\n"
    "print(json.dumps([[*job, flow.key_of(*job)] for job in [*flow.executions(), ('report', '')]]))"
)
# Every kind of token: a nested f-string, doubled braces, a string of several lines, a decorator.
SAMPLE = '''"""Text."""
import math  # why

@decorated(a=1)
class Sample:
    """Text."""

    name = f"{{{math.pi:.{3}f}}} {'a' + f'{1}'!r}"
    text = """one
  two"""

    def value(self) -> float:
        # why

        return math.sqrt(1e-3,)
'''
NORMALISED = [
    "import math",
    "@ decorated ( a = 1 )",
    "class Sample :",
    """    name = f"{{{math.pi:.{3}f}}} {'a' + f'{1}'!r}\"""",
    '    text = """one\n  two"""',
    "    def value ( self ) -> float :",
    "        return math . sqrt ( 1e-3 , )",
]


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """A copy of the package that may be edited, and that `fingerprint` reads."""
    target = tmp_path / "yarnlab"
    shutil.copytree(fingerprint.SOURCE, target, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "SOURCE", target)
    yield target
    forget()


def forget() -> None:
    fingerprint._formulas.cache_clear()
    fingerprint._analysis.cache_clear()


def keys(study: str = "smoke", *others: str) -> dict[tuple[str, str], str]:
    """The keys of all jobs of a study, and of other stages."""
    forget()
    flow = Workflow.load(study, STUDIES)
    jobs = [*flow.executions(), *((stage, "") for stage in others)]
    return {(stage, name): flow.key_of(stage, name) for stage, name in jobs}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def changed(before: dict[tuple[str, str], str]) -> set[str]:
    """Stages of which a key is another one now."""
    return {stage for (stage, name), key in keys().items() if before[stage, name] != key}


def test_a_key_names_protocol_and_what_is_used():
    found = keys()
    assert found["perplexity", "base"] == f"truncated-prefix@1 rope:{fingerprint.rope_digest(['none'])}"
    assert found["train", "yarn-s16"].startswith("train@") and found["train", "yarn-s16"].endswith(
        f" rope:{fingerprint.rope_digest(['yarn'])}"
    )
    assert found["corpus", "train"].startswith("corpus@") and "==" in found["corpus", "train"]
    assert keys("released")["asset", next(iter(load_study(STUDIES / "released.yaml").assets))].startswith("asset@")


@pytest.mark.parametrize("kind", KINDS)
def test_every_evaluation_has_a_protocol(kind):
    name, _, version = fingerprint.protocol(kind).partition("@")
    assert name and version.isdigit()


def test_comments_docstrings_and_layout_change_nothing(copy):
    before = keys("smoke", "report")
    for file in copy.rglob("*.py"):
        text = file.read_text().replace('"""', '"""Reworded. ', 1)
        file.write_text(text + "\n\n# a comment\n")
    assert keys("smoke", "report") == before


def test_no_module_changes_what_others_cost(copy):
    """An unused constant at the end of every module: no key of data, models and evaluations changes.

    All at once: a key is a hash of what it depends on, so one that a module's end changed would be another one.
    """
    flow = Workflow.load("smoke", STUDIES)
    sections = {job: section(flow.study, *job) for job in flow.executions()}

    def found() -> dict[tuple[str, str], str]:
        forget()
        return {job: fingerprint.key(job[0], read) for job, read in sections.items()}

    before, report = found(), fingerprint.key("report", {})
    for file in copy.rglob("*.py"):
        file.write_text(file.read_text() + "\n_EDITED = 1\n")
    assert found() == before
    assert fingerprint.key("report", {}) != report  # so what was appended is seen where a whole module counts


def test_a_new_rope_class_changes_no_key(copy):
    """Read anew by another process, since METHODS has the class then."""
    environment = {**os.environ, "PYTHONPATH": str(copy.parent)}
    command = [sys.executable, "-c", STUDY_KEYS]
    before = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    own = 'class Mine(YaRN):\n    method = "mine"\n\n    def kept(self):\n        return super().kept() ** 2\n\n\n'
    edit(copy / "rope.py", "METHODS: dict", own + "METHODS: dict")
    edit(copy / "rope.py", "        DynamicYaRN,\n", "        DynamicYaRN,\n        Mine,\n")
    assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == before
    code = "from yarnlab.fingerprint import rope_digest; print(rope_digest(['mine']) != rope_digest(['yarn']))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.parametrize(
    ("old", "new", "methods"),
    [
        ("rotations * 2 * math.pi", "rotations * math.pi * 2", "ntk-by-parts yarn dynamic-yarn"),
        ("super().inv_freq() / self.scale", "super().inv_freq() * (1 / self.scale)", "pi dynamic-pi"),
        ("return self.theta\n", "return +self.theta\n", "ntk-aware dynamic-ntk"),
        (
            "self.slope * math.log(scale) + 1.0",
            "1.0 + self.slope * math.log(scale)",
            "temperature yarn dynamic-yarn longrope",
        ),
        ('RAMPS = ("dimension", "rotations")', 'RAMPS = ("rotations", "dimension")', "ntk-by-parts yarn dynamic-yarn"),
        ("length / self.original_context", "(length) / self.original_context", "dynamic-pi dynamic-ntk dynamic-yarn"),
    ],
)
def test_a_formula_changes_the_methods_that_use_it(copy, old, new, methods):
    """Their bases' and helpers' too, and those of no other class."""
    forget()
    before = {method: fingerprint.rope_digest([method]) for method in fingerprint.METHODS}
    edit(copy / "rope.py", old, new)
    forget()
    after = {method: fingerprint.rope_digest([method]) for method in fingerprint.METHODS}
    assert {method for method in before if before[method] != after[method]} == set(methods.split())


def test_plain_rope_is_in_every_method(copy):
    forget()
    before = {method: fingerprint.rope_digest([method]) for method in fingerprint.METHODS}
    edit(copy / "rope.py", "return 1.0 / self._wavenumbers(self.base)", "return 1 / self._wavenumbers(self.base)")
    forget()
    assert all(fingerprint.rope_digest([method]) != digest for method, digest in before.items())


def test_a_formula_reruns_the_jobs_that_compute_with_it(copy):
    """YaRN's models, and evaluations that sweep it: of other models only those."""
    before = keys()
    edit(copy / "rope.py", "rotations * 2 * math.pi", "rotations * math.pi * 2")
    after = keys()
    jobs = {job for job in before if before[job] != after[job]}
    assert ("train", "yarn-s16") in jobs and ("perplexity", "yarn-s16") in jobs and ("zero_shot", "base") in jobs
    assert not jobs & {("train", "base"), ("train", "pi-s16"), ("perplexity", "base"), ("perplexity", "pi-s16")}


def test_a_job_that_sweeps_methods_uses_exactly_those():
    swept = {"rope": {"method": "none"}, "evaluation": {"methods": ["pi", "yarn"]}}
    one = {"rope": {"method": "none"}, "evaluation": {"method": "ntk-by-parts"}}
    assert fingerprint.methods("zero_shot", swept) == ["pi", "yarn"] and fingerprint.methods("ramp", one) == [
        "ntk-by-parts"
    ]
    assert fingerprint.methods("perplexity", {"rope": {"method": "yarn"}, "evaluation": {"lengths": [1]}}) == ["yarn"]
    assert fingerprint.methods("train", {"rope": {"method": "pi"}}) == ["pi"]


def test_a_raised_version_changes_its_stage_alone(copy, monkeypatch):
    before = keys()
    monkeypatch.setattr(KINDS["passkey"], "PROTOCOL", "passkey-teacher-forced@99")
    assert changed(before) == {"passkey"}
    before = keys()
    monkeypatch.setitem(fingerprint.VERSIONS, "train", 99)
    assert changed(before) == {"train"} and keys()["train", "base"].startswith("train@99 ")


def test_another_version_of_a_package_is_another_text(monkeypatch):
    """Of the corpora that read it, and of the tokenizer that was trained on it."""
    before = keys()
    read = load_study(STUDIES / "smoke.yaml").corpora["train"].packages
    version = fingerprint._version
    monkeypatch.setattr(fingerprint, "_version", lambda package: "99" if package == read[0] else version(package))
    after = keys()
    jobs = {job for job in before if before[job] != after[job]}
    assert {("corpus", "train"), ("tokenizer", "tokenizer")} <= jobs
    assert {stage for stage, _ in jobs} == {"corpus", "tokenizer"}
    monkeypatch.undo()
    assert fingerprint._version("no-such-package") == "missing"


def test_the_analysis_follows_its_sources_and_templates(copy):
    """The page is made from what the analysis wrote: a change of one makes the other's key no other."""
    template = next((copy / "results/report/templates").iterdir())
    edited = {"analyse": copy / "results" / "statistics.py", "report": template, "crate": copy / "results" / "crate.py"}
    for stage, file in edited.items():
        forget()
        before = {each: fingerprint.key(each, {}) for each in fingerprint.ANALYSIS}
        file.write_text(file.read_text() + "\n_EDITED = 1\n")
        forget()
        assert {each for each in before if fingerprint.key(each, {}) != before[each]} == {stage}


def test_sources_are_read_alike_by_every_python():
    """The expected text holds for 3.11, where an f-string is one token, and for later ones, where it is several."""
    assert list(fingerprint.statements(SAMPLE)) == NORMALISED
    code = "import sys; from yarnlab.fingerprint import *\n"
    code += "print(digest(module_digest(file) for file in sorted(SOURCE.rglob('*.py'))))"
    environment = {**os.environ, "PYTHONPATH": str(fingerprint.SOURCE.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    found = {}
    for version in (11, 12, 13, 14):
        if python := shutil.which(f"python3.{version}"):
            done = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, check=False)
            if done.returncode == 0:  # a pyenv shim may have no interpreter behind it
                found[version] = done.stdout
    assert len(set(found.values())) <= 1, found


def test_definitions_are_found_by_name():
    found = fingerprint.definitions(SAMPLE + "\nVALUE: int = 1\nif VALUE:\n    OTHER = 2\nelse:\n    OTHER = 3\n")
    assert set(found) == {"Sample", "VALUE"}
    assert found["Sample"] == "\n".join(NORMALISED[1:])
