"""Evaluations: one model, one kind, its tables."""

from __future__ import annotations

import math
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.lazy import np, torch
from yarnlab.machine import record
from yarnlab.precision import resolve_precision
from yarnlab.progress import Progress
from yarnlab.stages.finished import kept_run, restore
from yarnlab.stages.layout import Layout, columns_of, seeds_of, tags_of
from yarnlab.stages.run import StageRun, state_key
from yarnlab.study.evaluations import KINDS
from yarnlab.study.sections import digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from yarnlab.evaluation.base import Outcome


def evaluate(
    kind: str,
    layout: Layout,
    name: str,
    spec: dict[str, Any],
    code: str,
    log: Path | None,
    *,
    threads: int,
    processes: int = 1,
) -> None:
    """Run one evaluation of one model: its table, per-token NLL and further tables where there are any.

    An attempt that ended early is continued from the parts that it kept, if they were computed as the rest will be: on
    such a device, by these kernels and this torch. They decide nothing after the outputs are written, and are removed
    then: left behind, a forced rerun would compute nothing. Those of other settings or inputs stay.
    """
    from yarnlab import attention
    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.evaluation.base import Task
    from yarnlab.evaluation.partial_results import PartialResults
    from yarnlab.modeling import load_model, rope_of, use_fast_attention
    from yarnlab.study.schema import Architecture

    path, precision = layout.evaluation(kind, name), resolve_precision(spec["evaluation"]["precision"])
    own = {"models": [spec["arm"]], "precision": precision, "threads": threads, "processes": processes}
    settings = KINDS[kind].model_validate({**spec["evaluation"], **own})
    corpus_name = spec["evaluation"]["corpus"]
    datasets = {dataset: layout.asset(asset) for dataset, asset in settings.datasets.items()}
    manifest = path.with_suffix(".manifest.json")
    run = StageRun(layout.root, kind, name, spec, code, manifest, tags=tags_of(spec), seeds=seeds_of(spec))
    corpus_manifest = layout.corpus(corpus_name) / "manifest.json"
    run.inputs = [layout.model(name) / "manifest.json", corpus_manifest]
    run.inputs += [folder / "manifest.json" for folder in datasets.values()]
    run.add_dataset(corpus_manifest, "evaluation")
    run.facts["precision"] = precision
    run.state = state_key(run, precision)
    partial = layout.partial_results(kind, name) / run.state[:16]
    if restore(run):
        Progress(f"{kind} {name}", 0, log=log).say("made before of the same inputs, and its files are intact: put back")
        _remove(partial)
        return
    with kept_run(run):
        torch.set_num_threads(threads if processes == 1 else 1)  # a fork leaves other threads behind
        corpus = TokenisedCorpus.open(corpus_manifest.parent)
        rope = rope_of(spec)
        model = load_model(layout.model(name), rope, precision=precision)
        use_fast_attention(model)
        outcome = settings.evaluate(
            Task(
                seed=spec["evaluation_seed"],
                columns=columns_of(spec),
                architecture=Architecture(**spec["architecture"]),
                corpus=corpus,
                model=model,
                rope=rope,
                tokenizer=layout.model(name),
                progress=lambda total, unit: Progress(f"{kind} {name}", total, log=log, unit=unit),
                datasets=datasets,
                partial_results=PartialResults(partial / digest(_computed_by(model, precision))[:16]),
                processes=processes,
                threads=threads,
            )
        )
        # Afterwards, since an evaluation may take another kernel than the fastest, to have a cache of keys.
        run.facts |= attention.facts(model, precision) | record.facts(model.device.type)
        _write_outcome(run, path, layout.nll(corpus_name, name), outcome, corpus.names)
    _remove(partial)


def _computed_by(model: PreTrainedModel, precision: str) -> list[Any]:
    """What all parts of one table must be computed by."""
    from yarnlab import attention

    gpu = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else ""
    return [model.device.type, gpu, str(torch.__version__), attention.facts(model, precision)]


def _remove(partial: Path) -> None:
    """Remove the parts of one evaluation, and their folder if there are no others' parts in it."""
    shutil.rmtree(partial, ignore_errors=True)
    with suppress(OSError):
        partial.parent.rmdir()


def _write_outcome(run: StageRun, path: Path, nll: Path, outcome: Outcome, documents: tuple[str, ...]) -> None:
    from yarnlab.provenance import replacing

    run.metrics = {name: value for name, value in outcome.metrics.items() if math.isfinite(value)}
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
