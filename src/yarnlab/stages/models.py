"""Models: published ones, trained ones, and parents with another rope."""

from __future__ import annotations

import json
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.lazy import torch
from yarnlab.machine import record
from yarnlab.model_card import write_card
from yarnlab.precision import resolve_precision
from yarnlab.progress import Progress
from yarnlab.provenance import read_json
from yarnlab.stages.finished import is_finished, kept_run, restore
from yarnlab.stages.layout import Layout, seeds_of, tags_of
from yarnlab.stages.run import StageRun, stage_run, state_key

if TYPE_CHECKING:
    from yarnlab.rope import Rope
    from yarnlab.study.training import Train
    from yarnlab.training.objective import Objective
    from yarnlab.training.parallel import Group

LATE_S = 60  # for so long a network file system may show a file as it was before


def make_model(
    layout: Layout,
    name: str,
    spec: dict[str, Any],
    code: str,
    log: Path | None,
    *,
    execution: list[dict[str, Any]],
) -> None:
    """Make one model: train it, take it over from the hub, or give a parent's weights a new rope.

    `execution` is the part of each phase that is not in the section (study.training.EXECUTION). The weights of a model
    that is not trained are linked, never copied. Processes that a launcher started beside the leading one only compute.
    """
    from yarnlab.modeling import rope_of
    from yarnlab.study.training import Train

    rope = rope_of(spec)
    phases = tuple(
        Train.model_validate({**phase, **how, "parallel": {**phase["parallel"], **how["parallel"]}})
        for phase, how in zip(spec["phases"], execution, strict=True)
    )
    manifest = layout.model(name) / "manifest.json"
    run = StageRun(layout.root, "train", name, spec, code, manifest, tags=tags_of(spec), seeds=seeds_of(spec))
    run.metrics_file = layout.training(name) if phases else None
    corpora = [layout.corpus(c) / "manifest.json" for c in sorted({c for phase in phases for c in phase.shares})]
    run.inputs = [_source(layout, spec) / "manifest.json", *corpora]
    if phases:
        _train_together(run, layout, rope, phases, corpora, log)
        return
    with stage_run(run):
        _link(run, layout, rope)
    _write_card(layout, name)


def _write_card(layout: Layout, name: str) -> None:
    """The model is finished: what a card needs and can't have is no reason to make it again."""
    with suppress(OSError):
        write_card(layout.root, name)


def _train_together(
    run: StageRun, layout: Layout, rope: Rope, phases: tuple[Train, ...], corpora: list[Path], log: Path | None
) -> None:
    """Train in the processes that the phases ask for; the leading one has the model's lock and writes everything.

    The lock is the model's, not its state's: a job of an edited study must not write beside one that still trains.
    """
    from yarnlab.training.lock import exclusive
    from yarnlab.training.parallel import processes

    with processes(phases[0].parallel) as group:
        phases = _with_precision(phases, group)
        run.state = _agreed_key(run, phases, group)
        state = layout.state(run.name, run.state)
        if not group.is_leader:
            if group.await_leader():
                _train(run, layout, rope, phases, state, log, group)
            return
        try:
            with exclusive(state.parent) as waited:
                finished = _already_finished(run, state, log, waited)
                group.announce(not finished)
                if not finished:
                    with kept_run(run):
                        for corpus in corpora:
                            run.add_dataset(corpus, "training")
                        _train(run, layout, rope, phases, state, log, group)
                    _write_card(layout, run.name)
                    # The state has served; left behind, a forced rerun would find the run finished and train nothing.
                    _remove(state, Progress(run.name, 0, log=log))
        except BaseException:
            group.announce(False)
            raise


def _agreed_key(run: StageRun, phases: tuple[Train, ...], group: Group) -> str:
    """The key of the training's state, once every process finds the same inputs.

    Raises GroupError where they do not: each would train from a state of its own, or on other text.
    """
    from yarnlab.training.parallel import GroupError

    for _ in range(LATE_S):
        key = ""
        try:
            key = _state_key(run, phases)
        except OSError:
            if group.is_leader:
                raise
        if group.all_true(list(key.encode()) == group.broadcast(list(key.encode()))):
            return key
        time.sleep(1)
    raise GroupError(
        f"{run.name}: its processes see different inputs ({', '.join(map(str, run.inputs))}), {LATE_S} s after they "
        "started: put the results folder where all of their machines see it, and run the same command again"
    )


def _state_key(run: StageRun, phases: tuple[Train, ...]) -> str:
    """What a training must have in common with a state to go on from it.

    Who computes and with which kernel of the loss is no part of it: both change the order of additions alone.
    """
    same = [{key: value for key, value in p.items() if key not in ("loss", "parallel")} for p in run.spec["phases"]]
    return state_key(replace(run, spec={**run.spec, "phases": same}), [phase.precision for phase in phases])


def _with_precision(phases: tuple[Train, ...], group: Group) -> tuple[Train, ...]:
    """The phases with the number format that `precision: auto` stands for: bf16 if every process multiplies it.

    A training that goes on elsewhere must not change its format on the way, nor compute in two at once.
    """
    if all(phase.precision != "auto" for phase in phases):
        return phases
    auto = "bf16" if group.all_true(resolve_precision("auto") == "bf16") else "fp32"
    return tuple(p.model_copy(update={"precision": auto}) if p.precision == "auto" else p for p in phases)


def _already_finished(run: StageRun, state: Path, log: Path | None, waited: bool) -> bool:
    """Whether the finished model is there; if not, unfinished trainings that this one does not continue are named."""
    progress = Progress(run.name, 0, log=log)
    if waited and is_finished(run):
        progress.say("the job that was waited for has made it")
    elif restore(run):
        progress.say(
            "finished before with these settings and inputs, and its files are intact: put back, nothing is trained"
        )
    else:
        if (others := _others(state)) and not any(state.glob("checkpoint-*")):
            where = ", ".join(map(str, others))
            progress.say(
                f"an unfinished training of other settings or inputs lies in {where}; this one begins at step 0"
            )
        return False
    _remove(state, progress)
    return True


def _others(state: Path) -> list[Path]:
    """The states of the same model's unfinished trainings of other settings or inputs."""
    return sorted({checkpoint.parent for checkpoint in state.parent.glob("*/checkpoint-*")} - {state})


def _remove(state: Path, progress: Progress) -> None:
    """Remove a training's state. Those of other settings stay, and are named: they may be hours of many GPUs."""
    others = _others(state)
    shutil.rmtree(state if others else state.parent, ignore_errors=True)
    for other in others:
        size = sum(file.stat().st_size for file in other.rglob("*") if file.is_file())
        progress.say(
            f"kept: an unfinished training of other settings or inputs, {size / 1e9:.3g} GB in {other}; it continues "
            "with its settings, remove the folder if it is not needed"
        )


def _source(layout: Layout, spec: dict[str, Any]) -> Path:
    """What a model is made from: its parent, a published checkpoint, or for a new one the study's tokenizer."""
    if spec["parent"] is not None:
        return layout.model(spec["parent"])
    return layout.tokenizer_of(spec["asset"])


def _link(run: StageRun, layout: Layout, rope: Rope) -> None:
    """A model without training: the source's weights under a config with this model's rope."""
    from yarnlab.checkpoints import adopt_published, link_weights
    from yarnlab.corpus.tokenizer import check_vocabulary, difference_to_auto_tokenizer
    from yarnlab.hub.gguf import named
    from yarnlab.study.schema import Architecture

    spec, source, folder = run.spec, _source(layout, dict(run.spec)), layout.model(run.name)
    if spec["parent"] is not None:
        run.outputs = link_weights(source, rope, folder)
        return
    if (source / "tokenizer.json").exists():
        check_vocabulary(source, spec["vocab_size"])
    architecture = Architecture(**spec["architecture"])
    run.outputs = adopt_published(
        source,
        architecture,
        spec["vocab_size"],
        rope,
        folder,
        drop_sliding_window=spec["drop_sliding_window"],
        ignored_config=spec.get("ignored_config", ()),
    )
    made = read_json(source / "asset.json").get("conversions", [])
    if quantisations := sorted({named(each) for each in made if "quantisation" in each}):
        run.facts["dequantised_from"] = " and ".join(quantisations)
    if difference := difference_to_auto_tokenizer(folder):
        run.facts["tokenizer"] = difference
        print(f"warning: {run.name}: {difference}", file=sys.stderr)


def _train(
    run: StageRun,
    layout: Layout,
    rope: Rope,
    phases: tuple[Train, ...],
    state: Path,
    log: Path | None,
    group: Group,
) -> None:
    """Compute this process's part of the training; the leading process saves the model and fills in `run`."""
    from yarnlab.corpus.passkey import PasskeyText
    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.modeling import check_active_rope, check_can_be_saved, save_model
    from yarnlab.study.schema import Architecture
    from yarnlab.training import loop
    from yarnlab.training.mixture import row_source
    from yarnlab.training.objective import facts
    from yarnlab.training.shards import whole_weights

    spec, source = dict(run.spec), _source(layout, dict(run.spec))
    objective = _initial_model(layout, spec, rope, phases, group)
    check_can_be_saved(objective.model.config, rope, where=run.name)
    length = max(phase.seq_len for phase in phases)
    check_active_rope(objective.model, rope, length, where=f"{run.name}, as loaded")
    # The passkey's wording needs a tokenizer of ours; plain text needs none.
    text = PasskeyText.load(source) if any(phase.rows.retrieval for phase in phases) else None
    corpora = {c: TokenisedCorpus.open(layout.corpus(c)) for phase in phases for c in phase.shares}
    rows = tuple(row_source(corpora, text, phase, _order(spec, i)) for i, phase in enumerate(phases))
    shape, steps = Architecture(**spec["architecture"]), layout.training(run.name)
    metrics, computed = loop.train(
        objective, loop.Run(run.name, shape, spec["vocab_size"], rope, phases, rows, state, steps, log, group)
    )
    tensors = whole_weights(objective.model, _saved_dtype(layout, spec, phases), group.is_leader)
    if not group.is_leader:
        return
    run.metrics = metrics
    run.facts |= facts(objective, phases[-1], group) | computed | record.facts(group.device.type)
    run.facts |= _mixture(spec, phases)
    run.artifacts = [steps]
    check_active_rope(objective.model, rope, length, where=f"{run.name}, before saving")
    run.outputs = save_model(objective.model, rope, source, layout.model(run.name), tensors=tensors)


def _order(spec: dict[str, Any], phase: int) -> tuple[int, int, int]:
    """What fixes the order of a phase's data: seed, depth in the model tree, phase."""
    return spec["seed"], spec["depth"], phase


def _mixture(spec: dict[str, Any], phases: tuple[Train, ...]) -> dict[str, Any]:
    """Of each phase: corpus → its share of the rows, as it came out; nothing where each phase has one corpus."""
    from yarnlab.training.mixture import realised

    if all(len(phase.shares) == 1 for phase in phases):
        return {}
    return {"mixture": [realised(phase, _order(spec, i)) for i, phase in enumerate(phases)]}


def _saved_dtype(layout: Layout, spec: dict[str, Any], phases: tuple[Train, ...]) -> torch.dtype:
    """bf16 where the parent's weights have 16 bits, as in the official run, or where no more were kept; else fp32."""
    if phases[-1].precision == "pure-bf16":
        return torch.bfloat16
    if spec["parent"] is None:
        return torch.float32
    config = json.loads((layout.model(spec["parent"]) / "config.json").read_text(encoding="utf-8"))
    stored = config.get("dtype") or config.get("torch_dtype")
    return torch.bfloat16 if stored in ("bfloat16", "float16") else torch.float32


def _initial_model(
    layout: Layout, spec: dict[str, Any], rope: Rope, phases: tuple[Train, ...], group: Group
) -> Objective:
    """A new model, or the parent's weights, with this model's rope in force, sharded as the phases ask."""
    from yarnlab.checkpoints import check_trainable
    from yarnlab.modeling import check_config, create_model, load_model, meta_model, rope_of, set_rope
    from yarnlab.study.schema import Architecture
    from yarnlab.training.objective import build_objective, materialise
    from yarnlab.training.shards import read_weights

    parent = layout.model(spec["parent"]) if spec["parent"] is not None else None
    model: Any
    if parent is None:
        model = create_model(Architecture(**spec["architecture"]), vocab_size=spec["vocab_size"], seed=spec["seed"])
        model.to(group.device)
    else:
        check_trainable(parent)
        declared = rope_of(json.loads((parent / "manifest.json").read_text(encoding="utf-8"))["spec"])
        if phases[0].parallel.sharding == "replicate":
            model = load_model(parent, declared)
        else:  # no process ever holds the whole model: its shards are filled from the files
            model = meta_model(parent)
            check_config(model.config, declared, where=str(parent))
    set_rope(model, rope)
    objective = build_objective(model, phases[0], group)
    if parent is not None and objective.sharded:
        materialise(objective, group)
        read_weights(model, parent)
    _choose_attention(objective, rope, phases, group)
    return objective


def _choose_attention(objective: Objective, rope: Rope, phases: tuple[Train, ...], group: Group) -> None:
    from yarnlab.families.parity import check_documents_apart
    from yarnlab.modeling import use_fast_attention
    from yarnlab.training import sequence

    apart = any(phase.rows.attention_within for phase in phases)
    if apart:
        check_documents_apart(objective.model.config)
    if group.context > 1:
        objective.model.set_attn_implementation(sequence.register(group, rope))
    else:
        length = max(phase.seq_len for phase in phases)
        use_fast_attention(objective.model, length=length, precision=phases[0].precision, within_documents=apart)
