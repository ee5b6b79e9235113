"""Evaluations: one model, one kind, its tables."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.contract import StageRun, stage_run, state_key
from yarnlab.precision import in_force
from yarnlab.progress import Progress
from yarnlab.stages.finished import keep, put_back
from yarnlab.stages.layout import Layout, columns_of, seeds_of, tags_of

if TYPE_CHECKING:
    from yarnlab.evaluation.task import Outcome


def evaluate(kind: str, layout: Layout, name: str, spec: dict[str, Any], code: str, log: Path | None) -> None:
    """Run one evaluation of one model: its table, per-token NLL and further tables where there are any.

    An attempt that ended early is continued from the blocks that it kept. They decide nothing after the outputs are
    written, and are removed then: left behind, a forced rerun would compute nothing.
    """
    import torch

    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.evaluation.blocks import Blocks
    from yarnlab.evaluation.task import Task
    from yarnlab.modeling import load_model, rope_of, use_fast_attention
    from yarnlab.study.schema import Architecture

    settings, path = spec["evaluation"], layout.evaluation(kind, name)
    datasets = settings.get("snapshots", {})
    settings = settings | {"snapshots": {task: str(layout.asset(asset)) for task, asset in datasets.items()}}
    settings |= {"precision": in_force(settings["precision"])}
    manifest = path.with_suffix(".manifest.json")
    run = StageRun(layout.root, kind, name, spec, code, manifest, tags=tags_of(spec), seeds=seeds_of(spec))
    corpus_manifest = layout.corpus(settings["corpus"]) / "manifest.json"
    run.inputs = [layout.model(name) / "manifest.json", corpus_manifest]
    run.inputs += [layout.asset(asset) / "manifest.json" for asset in datasets.values()]
    run.add_dataset(corpus_manifest, "evaluation")
    run.facts["precision"] = settings["precision"]
    run.state = state_key(run, settings["precision"])
    begun = layout.begun(kind, name)
    if put_back(run):
        Progress(f"{kind} {name}", 0, log=log).say("made before of the same inputs, and its files are intact: put back")
        shutil.rmtree(begun / run.state[:16], ignore_errors=True)
        return
    with stage_run(run):
        torch.set_num_threads(settings["threads"])
        corpus = TokenisedCorpus.open(corpus_manifest.parent)
        rope = rope_of(spec)
        model = load_model(layout.model(name), rope, precision=settings["precision"])
        use_fast_attention(model)
        outcome = importlib.import_module(f"yarnlab.evaluation.{kind}").evaluate(
            Task(
                settings=settings,
                seed=spec["evaluation_seed"],
                columns=columns_of(spec),
                architecture=Architecture(**spec["architecture"]),
                corpus=corpus,
                model=model,
                rope=rope,
                tokenizer=layout.model(name),
                progress=lambda total, unit: Progress(f"{kind} {name}", total, log=log, unit=unit),
                blocks=Blocks(begun / run.state[:16]),
            )
        )
        # Afterwards, since an evaluation may take another kernel than the fastest, to have a cache of keys.
        run.facts["attention"] = model.config._attn_implementation
        _write_outcome(run, path, layout.nll(settings["corpus"], name), outcome, corpus.names)
    keep(run)
    shutil.rmtree(begun, ignore_errors=True)


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
