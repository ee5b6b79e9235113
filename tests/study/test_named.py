"""What is asked for by name, on the command line: names that are not there, keys that nothing reads."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from yarnlab.study.load import load_study
from yarnlab.study.read import StudyError
from yarnlab.study.sections import section
from yarnlab.workflow import CONFIG, Workflow

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "config" / "studies"


@pytest.mark.parametrize(
    ("study", "stage", "name", "message"),
    [
        ("smoke", "train", "yarn-s17", "study smoke has no model 'yarn-s17'; did you mean 'yarn-s16'?"),
        ("smoke", "perplexity", "nope", "study smoke has no model 'nope'; known: base, yarn-s16"),
        ("smoke", "corpus", "held-outs", "study smoke has no corpus 'held-outs'; did you mean 'held-out'?"),
        ("smoke", "asset", "llama", "study smoke has no asset 'llama'; known: none"),
        ("released", "tokenizer", "tokenizer", "study released trains no tokenizer"),
        ("template", "entropy", "base", "study template has no evaluation 'entropy'"),
    ],
)
def test_a_name_that_is_not_in_the_study(study, stage, name, message):
    loaded = load_study(STUDIES / f"{study}.yaml")
    name = next(iter(loaded.instances())) if stage == "entropy" else name
    with pytest.raises(StudyError) as caught:
        section(loaded, stage, name)
    assert message in str(caught.value)


def test_the_command_shows_it_without_a_traceback(tmp_path):
    command = [sys.executable, "-c", "from yarnlab.cli import main; main()", "train", "nope"]
    done = subprocess.run([*command, "--study-dir", str(tmp_path / "smoke")], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: study smoke has no model 'nope'") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("given", [{}, {"study": "smoke"}])
def test_config_keys_that_are_read(given):
    assert Workflow.chosen(given, STUDIES).study.study == given.get("study", "micro")


@pytest.mark.parametrize(
    ("key", "hint"), [("sutdy", "did you mean 'study'?"), ("device", "known: study"), ("x", "known: study")]
)
def test_config_keys_that_nothing_reads(key, hint):
    """The micro study instead of the one that was meant would be hours of the wrong run."""
    with pytest.raises(StudyError, match=re.escape(hint)) as caught:
        Workflow.chosen({key: "smoke"}, STUDIES)
    assert f"--config {key}=smoke: nothing reads the key {key!r}" in str(caught.value)


def test_every_config_key_that_a_rule_reads_is_known():
    rules = [ROOT / "Snakefile", *(ROOT / "workflow").rglob("*.smk"), *(ROOT / "workflow").rglob("*.rst")]
    text = "\n".join(file.read_text() for file in rules)
    read = set(re.findall(r'config\.get\("(\w+)"', text)) | set(re.findall(r'config\["(\w+)"\]', text))
    for keys in re.findall(r"for key in \(([^)]*)\) if key in config", text):
        read |= set(re.findall(r'"(\w+)"', keys))
    assert read | {"study"} == set(CONFIG)
