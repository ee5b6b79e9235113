"""A finished study of the real layout without a training: invented tables, true records, a real analysis of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from results.synthetic import write_study

from yarnlab.evaluation.partial_results import PartialResults
from yarnlab.progress import Progress
from yarnlab.provenance import read_json, write_record
from yarnlab.results.analyse import analyse
from yarnlab.results.crate import write_crate
from yarnlab.results.report.render import write_report
from yarnlab.stages.finished import kept_run
from yarnlab.stages.layout import Layout
from yarnlab.stages.run import StageRun
from yarnlab.tracking import records
from yarnlab.training import checkpoint
from yarnlab.training.checkpoint_files import UNFINISHED
from yarnlab.training.parallel import Group

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
    write_record(folder / "study.json", study)
    write_record(folder / "tracking/runs.json", read_json(folder / "tracking/runs.json"))
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
    records.write_plan(folder, planned)
    (folder / "logs").mkdir()
    (folder / "logs" / "analyse.log").write_text("said\n")
    finish(folder)
    return folder


@pytest.fixture(scope="session", params=["first run", "later run"])
def stopped(sound: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The study stopped while models and evaluations are made, for the first time or of other settings than before.

    Tests must not change it.
    """
    folder = Path(shutil.copytree(sound, tmp_path_factory.mktemp("stopped") / "results" / "micro"))
    layout = Layout(folder)
    for stage, name in (("train", "yarn-s32"), (KIND, "yarn-s16"), (KIND, "yarn-s32")):
        layout.manifest(stage, name).unlink()
    layout.training("yarn-s32").write_text('{"step": 1, "loss": 2.5}\n')
    (layout.model("yarn-s32") / ".model.safetensors.abcdefgh.safetensors").write_bytes(b"half")
    state = layout.state("yarn-s32", "0123456789abcdef")
    keep_checkpoints(state, 1, 2)
    (state / UNFINISHED).mkdir()
    (state / UNFINISHED / "rows-00000-of-00001.safetensors").write_bytes(b"half")
    (state.parent / "lock").write_text('{"host": "here", "pid": 1, "slurm_job": null}')
    parts = PartialResults(layout.partial_results(KIND, "yarn-s16") / "0123" / "4567")
    parts.part("0-512", Progress("test", 1, log=None), 1, lambda: [{"length": 512, "nll": 2.5}])
    parts.part("0-nll", Progress("test", 1, log=None), 1, lambda: [float(i) for i in range(9)])
    if request.param == "first run":
        for name in ("analysis.json", "claims.json", "report.html", "ro-crate-metadata.json", "Snakefile"):
            (folder / name).unlink()
        for name in ("tables", "figures", "workflow"):
            shutil.rmtree(folder / name)
        (folder / "tables").mkdir()
        (folder / "tables" / "perplexity.csv").write_text("model\n")
    return folder


def keep_checkpoints(state: Path, *steps: int) -> None:
    """Checkpoints of the smallest model, as a training leaves them."""
    import torch

    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    for step in steps:
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        notes = {"steps": [{"step": step, "loss": 2.5}], "stretches": []}
        checkpoint.save(state, model, optimizer, checkpoint.TrainState(0, step, step), Group(), notes)


@pytest.fixture
def study(sound: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(sound, tmp_path / "results" / "micro"))
