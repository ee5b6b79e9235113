"""The stages of a study, one function each: open the inputs, do the work, write outputs and manifest.

Every path follows from the study's results folder, so a stage takes that folder, the name of what it makes, and the
section of the study that it depends on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.contract import StageRun, stage_run
from yarnlab.progress import Progress
from yarnlab.study.evaluations import KINDS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from yarnlab.evaluation.task import Outcome
    from yarnlab.rope import Rope
    from yarnlab.study.schema import Train
    from yarnlab.training.parallel import Group


@dataclass(frozen=True)
class Layout:
    """Where things lie in results/<study>."""

    root: Path

    @property
    def tokenizer(self) -> Path:
        return self.root / "data" / "tokenizer"

    def corpus(self, name: str) -> Path:
        return self.root / "data" / name

    def model(self, name: str) -> Path:
        return self.root / "models" / name

    def training(self, name: str) -> Path:
        return self.root / "training" / f"{name}.jsonl"

    def state(self, name: str, spec_digest: str) -> Path:
        return self.root / "state" / name / spec_digest[:16]

    def evaluation(self, kind: str, name: str) -> Path:
        return self.root / "evaluations" / kind / f"{name}.parquet"

    def nll(self, corpus: str, name: str) -> Path:
        return self.root / "nll" / corpus / f"{name}.npz"


def make_tokenizer(layout: Layout, name: str, spec: dict[str, Any], code: str, log: Path | None) -> None:
    """Train and save the study's tokenizer."""
    from yarnlab.corpus.packages import read_packages, versions
    from yarnlab.corpus.tokenizer import save_tokenizer, train_tokenizer

    run = StageRun(layout.root, "tokenizer", name, spec, code, layout.tokenizer / "manifest.json", seeds=_seeds(spec))
    with stage_run(run):
        packages = tuple(spec["corpus"]["packages"])
        wanted = spec["tokenizer"]
        tokenizer = train_tokenizer(
            read_packages(packages),
            vocab_size=wanted["vocab_size"],
            split_digits=wanted["split_digits"],
            sample=wanted["sample_documents"],
            seed=spec["seed"],
        )
        run.outputs = save_tokenizer(tokenizer, layout.tokenizer)
        run.facts = {"versions": versions(packages), "vocab_size": tokenizer.get_vocab_size()}


def make_corpus(layout: Layout, name: str, spec: dict[str, Any], code: str, log: Path | None) -> None:
    """Tokenise one corpus."""
    from yarnlab.corpus.tokens import build_corpus
    from yarnlab.provenance import sha256_of

    folder = layout.corpus(name)
    run = StageRun(layout.root, "corpus", name, spec, code, folder / "manifest.json", seeds=_seeds(spec))
    run.inputs = [layout.tokenizer / "manifest.json"]
    with stage_run(run):
        run.facts = build_corpus(spec, layout.tokenizer, folder, log=log)
        run.outputs = [folder / "tokens.npy", folder / "documents.json"]
        run.metrics = {"tokens": run.facts["tokens"], "documents": run.facts["documents"]}
        source = ", ".join(f"{package} {version}" for package, version in run.facts["versions"].items())
        run.datasets = [
            {"name": name, "digest": sha256_of(folder / "tokens.npy"), "context": "tokens", "source": source}
        ]


def train_model(layout: Layout, name: str, spec: dict[str, Any], code: str, log: Path | None) -> None:
    """Pretrain a model, train it from its parent, or (a zero-shot node) give the parent's weights a new rope."""
    from yarnlab.modeling import rope_of, save_model
    from yarnlab.study.schema import Train
    from yarnlab.study.sections import digest
    from yarnlab.training.parallel import forked

    folder, rope = layout.model(name), rope_of(spec)
    phases = tuple(Train.model_validate(phase) for phase in spec["phases"])
    run = StageRun(
        layout.root, "train", name, spec, code, folder / "manifest.json", tags=_tags(spec), seeds=_seeds(spec)
    )
    run.metrics_file = layout.training(name) if phases else None
    corpora = [layout.corpus(c) / "manifest.json" for c in sorted({phase.corpus for phase in phases})]
    run.inputs = [layout.tokenizer / "manifest.json", *corpora]
    if spec["parent"] is not None:
        run.inputs.append(layout.model(spec["parent"]) / "manifest.json")
    state = layout.state(name, digest([spec, code]))
    with stage_run(run):
        with forked(phases[0].processes if phases else 1) as group:
            model = _initial_model(layout, spec, rope)
            if phases:
                run.metrics = _train(model, layout, name, spec, phases, state, log, group)
        for corpus in corpora:
            run.add_dataset(corpus, "training")
        run.artifacts = [layout.training(name)] if phases else []
        run.facts["attention"] = model.config._attn_implementation
        run.outputs = save_model(model, rope, layout.tokenizer, folder)
    # The state has served; left behind, a forced rerun would find the run finished and train nothing.
    shutil.rmtree(state.parent, ignore_errors=True)


def _initial_model(layout: Layout, spec: dict[str, Any], rope: Rope) -> PreTrainedModel:
    """A new model, or the parent's weights, with this model's rope in force."""
    import json

    from yarnlab.modeling import create_model, load_model, rope_of, set_rope
    from yarnlab.study.schema import Architecture
    from yarnlab.training.initialisation import build_induction_circuit

    if spec["parent"] is None:
        architecture = Architecture(**spec["architecture"])
        model = create_model(architecture, vocab_size=spec["vocab_size"], seed=spec["seed"])
        if architecture.initialisation == "induction":
            build_induction_circuit(model, rope, seed=spec["seed"])
    else:
        parent = layout.model(spec["parent"])
        made = json.loads((parent / "manifest.json").read_text(encoding="utf-8"))
        model = load_model(parent, rope_of(made["spec"]))
    set_rope(model, rope)
    return model


def _train(
    model: PreTrainedModel,
    layout: Layout,
    name: str,
    spec: dict[str, Any],
    phases: tuple[Train, ...],
    state: Path,
    log: Path | None,
    group: Group,
) -> dict[str, float]:
    """Run the training loop on the rows that seed, depth in the model tree and phase decide."""
    from yarnlab.corpus.passkey import PasskeyText
    from yarnlab.corpus.tokenizer import load_tokenizer
    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.modeling import use_fast_attention
    from yarnlab.study.schema import Architecture
    from yarnlab.training import loop
    from yarnlab.training.rows import RowSource

    use_fast_attention(model)
    text = PasskeyText(load_tokenizer(layout.tokenizer))
    rows = tuple(
        RowSource(TokenisedCorpus.open(layout.corpus(phase.corpus)), text, phase, (spec["seed"], spec["depth"], i))
        for i, phase in enumerate(phases)
    )
    architecture = Architecture(**spec["architecture"])
    metrics = layout.training(name)
    return loop.train(model, loop.Run(name, architecture, spec["vocab_size"], phases, rows, state, metrics, log, group))


def evaluate(kind: str, layout: Layout, name: str, spec: dict[str, Any], code: str, log: Path | None) -> None:
    """Run one evaluation of one model: its table, per-token NLL and further tables where there are any."""
    import importlib

    import torch

    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.evaluation.task import Task
    from yarnlab.modeling import load_model, rope_of, use_fast_attention
    from yarnlab.study.schema import Architecture

    settings, path = spec["evaluation"], layout.evaluation(kind, name)
    manifest = path.with_suffix(".manifest.json")
    run = StageRun(layout.root, kind, name, spec, code, manifest, tags=_tags(spec), seeds=_seeds(spec))
    corpus_manifest = layout.corpus(settings["corpus"]) / "manifest.json"
    run.inputs = [layout.model(name) / "manifest.json", corpus_manifest]
    run.add_dataset(corpus_manifest, "evaluation")
    with stage_run(run):
        torch.set_num_threads(settings["threads"])
        corpus = TokenisedCorpus.open(corpus_manifest.parent)
        rope = rope_of(spec)
        model = load_model(layout.model(name), rope)
        use_fast_attention(model)
        outcome = importlib.import_module(f"yarnlab.evaluation.{kind}").evaluate(
            Task(
                settings=settings,
                seed=spec["evaluation_seed"],
                columns=_columns(spec),
                architecture=Architecture(**spec["architecture"]),
                corpus=corpus,
                model=model,
                rope=rope,
                tokenizer=layout.tokenizer,
                progress=lambda total, unit: Progress(f"{kind} {name}", total, log=log, unit=unit),
            )
        )
        _write_outcome(run, path, layout.nll(settings["corpus"], name), outcome, corpus.names)


def _write_outcome(run: StageRun, path: Path, nll: Path, outcome: Outcome, documents: tuple[str, ...]) -> None:
    import numpy as np

    from yarnlab.provenance import replacing

    run.metrics = outcome.metrics
    for extra, table in {"": outcome.table, **outcome.extra}.items():
        file = path.with_suffix(f".{extra}.parquet") if extra else path
        with replacing(file) as temporary:
            table.to_parquet(temporary, index=False)
        run.outputs.append(file)
        run.artifacts.append(file)
    if outcome.nll is not None:
        with replacing(nll) as temporary:
            np.savez(temporary, nll=outcome.nll, documents=np.array(documents))
        run.outputs.append(nll)


STAGES: dict[str, Callable[..., None]] = {
    "tokenizer": make_tokenizer,
    "corpus": make_corpus,
    "train": train_model,
    **{kind: partial(evaluate, kind) for kind in KINDS},
}


def _columns(spec: dict[str, Any]) -> dict[str, Any]:
    rope = spec["rope"]
    return {
        "model": spec["model"],
        "arm": spec["arm"],
        "method": rope["method"],
        "scale": float(rope["scale"]),
        "seed": spec["seed"],
    }


def _tags(spec: dict[str, Any]) -> dict[str, str]:
    tags = {key: str(value) for key, value in _columns(spec).items()}
    return tags | ({"parent": spec["parent"]} if spec.get("parent") else {})


def _seeds(spec: dict[str, Any]) -> dict[str, int]:
    return {key: spec[key] for key in ("seed", "evaluation_seed") if key in spec}
