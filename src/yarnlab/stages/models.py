"""Models: published ones, trained ones, and parents with another rope."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.contract import StageRun, stage_run
from yarnlab.stages.layout import Layout, seeds_of, tags_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from yarnlab.rope import Rope
    from yarnlab.study.training import Train
    from yarnlab.training.parallel import Group


def make_model(layout: Layout, name: str, spec: dict[str, Any], code: str, log: Path | None) -> None:
    """Make one model: train it, take it over from the hub, or give a parent's weights a new rope.

    The weights of a model that is not trained are linked, never copied.
    """
    from yarnlab.modeling import rope_of
    from yarnlab.study.training import Train

    rope = rope_of(spec)
    phases = tuple(Train.model_validate(phase) for phase in spec["phases"])
    manifest = layout.model(name) / "manifest.json"
    run = StageRun(layout.root, "train", name, spec, code, manifest, tags=tags_of(spec), seeds=seeds_of(spec))
    run.metrics_file = layout.training(name) if phases else None
    corpora = [layout.corpus(c) / "manifest.json" for c in sorted({phase.corpus for phase in phases})]
    run.inputs = [_source(layout, spec) / "manifest.json", *corpora]
    state = layout.state(name, _digest(spec, code))
    with stage_run(run):
        if phases:
            _train(run, layout, rope, phases, state, log)
        else:
            _link(run, layout, rope)
        for corpus in corpora:
            run.add_dataset(corpus, "training")
    # The state has served; left behind, a forced rerun would find the run finished and train nothing.
    shutil.rmtree(state.parent, ignore_errors=True)


def _digest(spec: dict[str, Any], code: str) -> str:
    from yarnlab.study.sections import digest

    return digest([spec, code])


def _source(layout: Layout, spec: dict[str, Any]) -> Path:
    """What a model is made from: its parent, a published checkpoint, or for a new one the study's tokenizer."""
    if spec["parent"] is not None:
        return layout.model(spec["parent"])
    return layout.tokenizer_of(spec["asset"])


def _link(run: StageRun, layout: Layout, rope: Rope) -> None:
    """A model without training: the source's weights under a config with this model's rope."""
    from yarnlab.checkpoints import adopt_published, link_weights
    from yarnlab.study.schema import Architecture

    spec, source, folder = run.spec, _source(layout, dict(run.spec)), layout.model(run.name)
    if spec["parent"] is not None:
        run.outputs = link_weights(source, rope, folder)
        return
    architecture = Architecture(**spec["architecture"])
    run.outputs = adopt_published(
        source, architecture, spec["vocab_size"], rope, folder, drop_sliding_window=spec["drop_sliding_window"]
    )


def _train(run: StageRun, layout: Layout, rope: Rope, phases: tuple[Train, ...], state: Path, log: Path | None) -> None:
    from yarnlab.modeling import save_model
    from yarnlab.training.parallel import processes

    spec = dict(run.spec)
    with processes(phases[0].parallel) as group:
        model = _initial_model(layout, spec, rope)
        run.metrics = _loop(model, layout, run.name, spec, phases, state, log, group)
    run.facts["attention"] = model.config._attn_implementation
    run.artifacts = [layout.training(run.name)]
    run.outputs = save_model(model, rope, _source(layout, spec), layout.model(run.name))


def _initial_model(layout: Layout, spec: dict[str, Any], rope: Rope) -> PreTrainedModel:
    """A new model, or the parent's weights, with this model's rope in force."""
    from yarnlab.modeling import create_model, load_model, rope_of, set_rope
    from yarnlab.study.schema import Architecture
    from yarnlab.training.initialisation import build_induction_circuit

    if spec["parent"] is None:
        model = create_model(Architecture(**spec["architecture"]), vocab_size=spec["vocab_size"], seed=spec["seed"])
        if spec["initialisation"] == "induction":
            build_induction_circuit(model, rope, seed=spec["seed"])
    else:
        parent = layout.model(spec["parent"])
        made = json.loads((parent / "manifest.json").read_text(encoding="utf-8"))
        model = load_model(parent, rope_of(made["spec"]))
    set_rope(model, rope)
    return model


def _loop(
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
    from yarnlab.corpus.tokens import TokenisedCorpus
    from yarnlab.modeling import use_fast_attention
    from yarnlab.study.schema import Architecture
    from yarnlab.training import loop
    from yarnlab.training.rows import RowSource

    use_fast_attention(model)
    text = PasskeyText.load(_source(layout, spec))
    rows = tuple(
        RowSource(TokenisedCorpus.open(layout.corpus(phase.corpus)), text, phase, (spec["seed"], spec["depth"], i))
        for i, phase in enumerate(phases)
    )
    architecture = Architecture(**spec["architecture"])
    metrics = layout.training(name)
    return loop.train(model, loop.Run(name, architecture, spec["vocab_size"], phases, rows, state, metrics, log, group))
