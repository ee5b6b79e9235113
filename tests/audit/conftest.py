"""A finished study of the real layout without a training: invented tables, true records, a real analysis of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from results.synthetic import write_study

from yarnlab import tracking
from yarnlab.results.analyse import analyse
from yarnlab.results.crate import write_crate
from yarnlab.results.report.render import write_report
from yarnlab.stages.finished import kept_run
from yarnlab.stages.layout import Layout
from yarnlab.stages.run import StageRun

COMMAND = "envs/run snakemake --cores all --config study=micro"
KIND = "perplexity"
SHOWN = {"perplexity", "training", "figure_1"}


def make(folder: Path, stage: str, name: str, outputs: list[Path], inputs: tuple[Path, ...] = ()) -> Path:
    """One execution of a stage that left `outputs`; returns its manifest."""
    layout = Layout(folder)
    run = StageRun(folder, stage, name, {"of": name}, f"{stage}@1", layout.manifest(stage, name), seeds={"seed": 42})
    run.inputs, run.metrics_file = list(inputs), layout.training(name) if stage == "train" else None
    with kept_run(run):
        run.outputs = outputs
    return run.manifest


def finish(folder: Path) -> None:
    """Analysis, report and crate of what is there, as the workflow's last jobs write them; of few tables and figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "yarnlab.results.analyse.made_of", lambda made, *_, **__: {n: made[n] for n in SHOWN & made.keys()}
        )
        analyse(folder, command=COMMAND)
    write_report(folder, command=COMMAND)
    write_crate(folder)


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """results/micro in a folder of its own; tests must not change it."""
    folder = write_study(
        tmp_path_factory.mktemp("project") / "results" / "micro",
        skip=("passkey", "zero_shot"),
        ablation=False,
        documents=4,
    )
    study = json.loads((folder / "study.json").read_text())
    study["evaluations"] = {kind: own if kind == KIND else None for kind, own in study["evaluations"].items()}
    study["claims"]["published"] = False
    (folder / "study.json").write_text(json.dumps(study))
    layout, planned = Layout(folder), []
    shutil.rmtree(folder / "data")
    for corpus in ("train", "math"):
        tokens = layout.corpus(corpus) / "tokens.npy"
        tokens.parent.mkdir(parents=True)
        tokens.write_bytes(corpus.encode() * 9)
        make(folder, "corpus", corpus, [tokens])
        planned.append(("corpus", corpus))
    for name, model in study["models"].items():
        weights = layout.model(name) / "model.safetensors"
        weights.write_bytes(name.encode() * 7)
        parent = layout.model(model["parent"]) if model["parent"] else layout.corpus("train")
        made = make(folder, "train", name, [weights], (parent / "manifest.json",))
        table = layout.evaluation(KIND, name)
        make(folder, KIND, name, [table], (made, layout.corpus("math") / "manifest.json"))
        planned += [("train", name), (KIND, name)]
    tracking.write_plan(folder, planned)
    (folder / "logs").mkdir()
    (folder / "logs" / "analyse.log").write_text("said\n")
    finish(folder)
    return folder


@pytest.fixture
def study(sound: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(sound, tmp_path / "results" / "micro"))
