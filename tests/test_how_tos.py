"""docs/how-to-*.md carried out in a copy of the project: they need no other file than they say, and nothing else reruns.

tests/results/test_criteria.py carries out how-to-claim.md; tests/test_study_run.py asks Snakemake itself.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from how_tos import ROOT, add_kind, add_method, add_model, block, copy_project, edit, guide, python, write_modules

from yarnlab.training.version import VERSION

JOBS = """
import json, sys
from pathlib import Path
from yarnlab.workflow import Workflow

flow = Workflow.load(sys.argv[1], Path("config/studies"))
jobs = {path: [flow.key_of(stage, name), flow.section(stage, name)] for (stage, name), path in flow.executions().items()}
print(json.dumps({"jobs": jobs, "tables": list(flow.tables()), "figures": list(flow.figures())}))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "project")


def state(project: Path, study: str = "micro") -> dict:
    """What each job of a study is valid by, and the artefacts that it has."""
    return json.loads(python(project, "-c", JOBS, study))


@pytest.fixture(scope="session")
def before() -> dict:
    """The micro study's, of the project as it is."""
    return state(ROOT)


def of_each_seed(arm: str) -> set[str]:
    """The names of an arm's models in the micro study, which trains every arm for three seeds."""
    return {f"{arm}-seed{seed}" for seed in (31, 32, 33)}


def finished(project: Path, study_dir: Path) -> Path:
    return shutil.copytree(study_dir, project / "results" / "micro")


@pytest.fixture(scope="session")
def study_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from results.synthetic import write_study

    return write_study(tmp_path_factory.mktemp("results") / "micro", further=True)


def test_every_how_to_is_carried_out():
    pages = {page.stem.removeprefix("how-to-") for page in (ROOT / "docs").glob("how-to-*.md")}
    assert pages == {"claim", "evaluation", "extend", "figure", "hyperparameter", "method"}


def test_a_method_is_one_class_and_retrains_nothing(project, before):
    """Jobs that do not name it keep section and key; the model that does is planned with its evaluation."""
    study = project / "config" / "studies" / "micro.yaml"
    add_method(project)
    assert state(project) == before
    add_model(project, study.name)
    edit(study, "    models: [yarn-s16, yarn-s32, pi-s16,", "    models: [power-s16, yarn-s16, yarn-s32, pi-s16,")
    after = state(project)
    new = after["jobs"].keys() - before["jobs"].keys()
    assert {re.sub(r"results/micro/(evaluations/)?", "", path) for path in new} == {
        path.format(model)
        for model in of_each_seed("power-s16")
        for path in ("models/{}/manifest.json", "sliding_window/{}.manifest.json")
    }
    assert before["jobs"] == {path: job for path, job in after["jobs"].items() if path not in new}
    for model in of_each_seed("power-s16"):
        assert after["jobs"][f"results/micro/models/{model}/manifest.json"][1]["rope"]["power"] == 2.0
    python(project, "-m", "yarnlab", "check", str(study))


def test_its_checkpoint_is_one_of_stock_transformers(tiny_model, tiny_data, tmp_path):
    """The class as the page has it, in a model: what it computes is what stock transformers reads."""
    import torch
    from transformers import AutoModelForCausalLM

    from yarnlab import rope
    from yarnlab.modeling import save_model, set_rope

    space = dict(vars(rope))
    exec(block("method", "python"), space)
    own = space["PowerInterpolation"](scale=4, original_context=64, head_dim=16, power=2.0)
    set_rope(tiny_model, own)
    save_model(tiny_model, own, tiny_data / "tokenizer", tmp_path / "checkpoint")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", dtype=torch.float32)
    ids = torch.arange(200)[None]
    with torch.no_grad():
        assert torch.allclose(stock(ids).logits, tiny_model(ids).logits, atol=1e-4)


def test_an_evaluation_is_one_module_and_one_that_shows_it(project, before, study_dir, tiny_task, monkeypatch):
    """Planned, priced, measured on a tiny model, loaded, and written as a table."""
    add_kind(project, "micro.yaml")
    after = state(project)
    new = after["jobs"].keys() - before["jobs"].keys()
    assert new == {
        f"results/micro/evaluations/echo/{model}.manifest.json" for model in {"base", *of_each_seed("yarn-s16")}
    }
    assert all(after["jobs"][path][0].startswith("echo@1 rope:") for path in new)
    assert before["jobs"] == {path: job for path, job in after["jobs"].items() if path not in new}
    assert {*after["tables"]} - {*before["tables"]} == {"echo"} and after["figures"] == before["figures"]
    assert "echo" in python(project, "-m", "yarnlab", "plan", "micro", "--device", "h100")

    spec = importlib.util.spec_from_file_location("echo_kind", project / "src/yarnlab/evaluation/echo.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "echo_kind", module)
    spec.loader.exec_module(module)
    task = tiny_task({"lengths": [32, 64]})
    table = module.Echo(**task.settings).evaluate(task).table
    assert {"model", "arm", "seed", *module.Echo.COLUMNS.split()} <= set(table) and len(table) == 6

    results = finished(project, study_dir)
    summary = json.loads((results / "study.json").read_text())
    summary["evaluations"]["echo"] = {"models": ["base"]}
    (results / "study.json").write_text(json.dumps(summary))
    (results / "evaluations" / "echo").mkdir()
    table.assign(model="base", arm="base").to_parquet(results / "evaluations" / "echo" / "base.parquet")
    python(project, "-m", "yarnlab", "table", "echo", "--study-dir", "results/micro")
    assert len((results / "tables" / "echo.csv").read_text().splitlines()) == 3
    assert "n = 3 documents" in (results / "tables" / "echo.md").read_text()
    # What the page says to write down.
    python(project, "tests/bless_protocols.py")
    assert '"echo": "echo@1"' in (project / "tests" / "protocols.lock").read_text()
    (project / "docs").mkdir()
    python(project, "-m", "yarnlab", "schema", "--write")
    assert "Tokens of one copy" in (project / "docs" / "study-reference.md").read_text()


@pytest.mark.slow
def test_a_figure_is_one_module(project, before, study_dir):
    assert write_modules("figure", project) == ["src/yarnlab/results/figures/documents.py"]
    after = state(project)
    assert after["jobs"] == before["jobs"] and {*after["figures"]} - {*before["figures"]} == {"documents"}
    results = finished(project, study_dir)
    python(project, "-m", "yarnlab", "figure", "documents", "--study-dir", "results/micro")
    shown = json.loads((results / "figures" / "documents.json").read_text())
    assert shown["reason"] is None and shown["sources"]
    assert all((results / "figures" / f"documents.{suffix}").stat().st_size > 1000 for suffix in ("svg", "png", "html"))


def test_another_meaning_of_a_hyperparameter_is_declared(project, before):
    """Noticed, then declared by a version, written down: all models are out of date, by their keys, and nothing else."""
    schedule = project / "src" / "yarnlab" / "training" / "schedule.py"
    edit(schedule, "return lr * (step + 1) / warmup_steps", "return lr * step / warmup_steps")
    notice = "import sys; sys.path.insert(0, 'tests'); from bless_protocols import problem; print(problem('train'))"
    assert f"train: train@{VERSION}, but training.schedule changed" in python(project, "-c", notice)
    assert state(project) == before
    edit(project / "src" / "yarnlab" / "training" / "version.py", f"VERSION = {VERSION}", f"VERSION = {VERSION + 1}")
    python(project, "tests/bless_protocols.py")
    assert python(project, "-c", notice).strip() == ""
    jobs = state(project)["jobs"]
    changed = {path for path, job in jobs.items() if job != before["jobs"][path]}
    assert changed == {path for path in jobs if path.startswith("results/micro/models/")}
    assert all(f"train@{VERSION + 1} " in jobs[path][0] for path in changed)


def test_the_page_on_hyperparameters_names_modules_that_decide():
    """Each module of its table is one that protocols.lock watches, or holds a version."""
    watched = json.loads((ROOT / "tests" / "protocols.lock").read_text())["modules"]
    modules = re.findall(r"^   \| [^|]+ \| `src/yarnlab/(\S+)\.py` \|", guide("hyperparameter"), re.MULTILINE)
    assert len(modules) == 6
    assert {module.replace("/", ".") for module in modules} - {"rope"} <= watched.keys()
