"""A kind of evaluation is one module: what the registry finds there is all that anything else knows of it."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from yarnlab.evaluation.base import Evaluation
from yarnlab.rope import METHODS, NTKByParts, PositionInterpolation
from yarnlab.study.evaluations import KINDS
from yarnlab.study.fields import descriptions

ROOT = Path(__file__).resolve().parents[2]
OWN = '''
from yarnlab.evaluation.base import Evaluation, Outcome, Passes
from yarnlab.study.fields import Positive


class Ruler(Evaluation):
    """A task of one's own."""

    kind = "ruler"
    PROTOCOL = "ruler@1"
    COLUMNS = "length score"

    length: Positive
    """Tokens of each input."""

    @property
    def longest(self):
        return ("length",), self.length

    def cost(self, study, arm):
        return Passes([(3, self.length)], self.length)

    def evaluate(self, task):
        import pandas as pd

        return Outcome(pd.DataFrame([task.labels(length=self.length, score=1.0)]))
'''
STUDY = """
extends: smoke.yaml
study: own
evaluations: {ruler: {corpus: reports, models: [base], precision: fp32, threads: 1, length: %d}}
"""
# What a study needs of a kind, from the study file to the results.
USE = """
import sys
from pathlib import Path
import pandas as pd
from yarnlab.fingerprint import key
from yarnlab.plan import plan_study
from yarnlab.provenance import write_json
from yarnlab.results.results import load
from yarnlab.study.evaluations import KINDS
from yarnlab.study.load import load_study
from yarnlab.study.sections import section
from yarnlab.study.summary import summarise
from yarnlab.workflow import Workflow

study = load_study(Path(sys.argv[1]))
assert list(KINDS)[-1] == "ruler"
settings = section(study, "ruler", "base")
assert settings["evaluation"]["length"] == 64 and key("ruler", settings).startswith("ruler@")
assert Workflow(study).evaluation_manifests("ruler") == ["results/own/evaluations/ruler/base.manifest.json"]
(stage,) = [stage for stage in plan_study(study, "h100").stages if stage.stage == "ruler"]
assert stage.flops > 0
results = Path("results/own")
table = pd.DataFrame([{"model": "base", "arm": "base", "seed": 0, "length": 64, "score": 1.0}])
write_json(results / "study.json", summarise(study))
(results / "evaluations" / "ruler").mkdir(parents=True)
table.to_parquet(results / "evaluations" / "ruler" / "base.parquet")
assert load(results).frame("ruler").equals(table)
table.drop(columns="score").to_parquet(results / "evaluations" / "ruler" / "base.parquet")
assert "lacks score" in load(results).unreadable["ruler"]
"""
LOAD = "import sys; from pathlib import Path; from yarnlab.study.load import load_study; load_study(Path(sys.argv[1]))"


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the package and of its studies that may be added to."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "config" / "studies" / "own.yaml").write_text(STUDY % 64)
    return tmp_path


def use(copy: Path, script: str = USE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, str(copy / "config" / "studies" / "own.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)


def test_a_module_in_the_folder_is_a_kind(copy):
    """Nothing but the module and a section of a study: it is checked, planned, run by a rule, and its results load."""
    (copy / "src" / "yarnlab" / "evaluation" / "ruler.py").write_text(OWN)
    done = use(copy)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_mistake_in_its_section_is_named_like_any_other(copy):
    (copy / "src" / "yarnlab" / "evaluation" / "ruler.py").write_text(OWN)
    (copy / "config" / "studies" / "own.yaml").write_text(STUDY % 10_000_000)
    done = use(copy, LOAD)
    assert re.search(r"own\.yaml:4: evaluations\.ruler\.length: 10000000 tokens are longer than", done.stderr)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def cost", "def costs", "TypeError: the evaluation kind Ruler of yarnlab.evaluation.ruler lacks cost"),
        (
            '    COLUMNS = "length score"\n',
            "",
            "TypeError: the evaluation kind Ruler of yarnlab.evaluation.ruler lacks COLUMNS",
        ),
        ('kind = "ruler"', 'kind = "rule"', "TypeError: the evaluation kind 'rule' stands in yarnlab.evaluation.ruler"),
    ],
)
def test_a_kind_that_lacks_something_is_named_with_what_it_lacks(copy, old, new, message):
    (copy / "src" / "yarnlab" / "evaluation" / "ruler.py").write_text(OWN.replace(old, new))
    assert message in use(copy, LOAD).stderr.splitlines()[-1]


def test_kinds_are_whole_and_in_the_order_of_the_paper():
    """Each has a version, columns and resources of its own, and says what its keys mean."""
    assert list(KINDS) == [
        "perplexity", "context", "short_texts", "zero_shot", "passkey", "sliding_window", "dynamic", "key_cache",
        "temperature", "ramp", "entropy", "passkey_official", "benchmarks",
    ]  # fmt: skip
    for kind in KINDS.values():
        assert re.fullmatch(r"[a-z-]+@[1-9]\d*", kind.PROTOCOL), kind
        assert set(descriptions(kind)) == set(kind.model_fields), kind
    assert len({kind.PROTOCOL for kind in KINDS.values()}) == len(KINDS)


def test_a_method_of_ones_own_can_be_swept(monkeypatch):
    """What a sweep takes follows from the method's class: static, with a ramp, without a temperature of its own."""

    class Halved(PositionInterpolation):
        method = "halved"

    class Bent(NTKByParts):
        method = "bent"

    for rope in (Halved, Bent):
        monkeypatch.setitem(METHODS, rope.method, rope)
    shared = {"corpus": "held", "models": ["m"], "precision": "fp32", "threads": 1, "scales": [2], "documents": 1}
    factors = {"start": 1, "stop": 1.1, "step": 0.1}
    for method in ("halved", "bent"):
        KINDS["temperature"](**shared, method=method, factors=factors, segments=2, max_length=64)
        KINDS["zero_shot"](**{k: v for k, v in shared.items() if k != "documents"}, methods=[method], max_length=64)
    KINDS["ramp"](**shared, method="bent", variants={"a": {}}, max_length=64)
    with pytest.raises(
        ValueError, match="'halved' is not a static method with a ramp; known: ntk-by-parts, yarn, bent"
    ):
        KINDS["ramp"](**shared, method="halved", variants={"a": {}}, max_length=64)


def test_tables_have_the_declared_columns(tiny_task):
    """Of one kind here; tests of each kind and of loading compare the others."""
    settings = KINDS["dynamic"](**tiny_task({"methods": ["none"], "lengths": [64], "tail": 8}).settings)
    table = settings.evaluate(tiny_task({})).table
    assert {"model", "arm", "seed", *settings.COLUMNS.split()} <= set(table)


def test_the_documentation_lists_every_kind_with_its_protocol():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    text = page.split("\n## Evaluations\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (.*?) \|", text, re.MULTILINE)
    listed = [name for names, _ in rows for name in re.findall(r"\w+", names)]
    assert sorted(listed) == sorted(KINDS)
    for names, protocol in rows:
        for name in re.findall(r"\w+", names):
            assert KINDS[name].PROTOCOL in protocol, name


def test_starting_the_workflow_imports_nothing_heavy():
    """All modules of evaluations are imported at every start of Snakemake."""
    heavy = ("torch", "numpy", "pandas", "transformers", "tokenizers", "datasets", "lm_eval")
    script = f"import sys, yarnlab.workflow; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_evaluations_know_no_part_of_a_study_but_the_types_of_its_values():
    """Imports run one way: the schema imports the registry, which imports the kinds."""
    allowed = {"yarnlab.study.fields", "yarnlab.study.options"}
    for file in Path(inspect.getfile(Evaluation)).parent.glob("*.py"):
        lines = [line for line in file.read_text().splitlines() if not line.startswith("    from yarnlab.study.schema")]
        assert set(re.findall(r"from (yarnlab\.study\S*) import", "\n".join(lines))) <= allowed, file
