"""A study that extends a model, as a file: lengths from its window, sizes from what the machine computes in the time.

Written are the numbers themselves, with a comment where somebody may want others.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

from pydantic import ValidationError

from yarnlab.cost import training_flops
from yarnlab.new.machine import Machine
from yarnlab.new.parent import TOKENIZER, NewError, Parent
from yarnlab.new.text import Text, shortest_passkey
from yarnlab.plan.stages import Plan
from yarnlab.study.fields import in_one_line
from yarnlab.study.schema import RopeChoice, Study

MFU = 0.4  # the share of the device's peak that is reckoned with, as in `yarnlab plan`
STEPS, FEWEST_STEPS = 400, 20  # the paper's for s = 16 (§4.1); below the second a training says little
TOKENS_A_STEP = 65_536  # or one row, where that is longer
FEWEST_ROWS = 8  # of a step, where the text is short
LARGEST_LR = 1e-3
SMALL = 20e6  # weights below which another thread gains nothing on a CPU
PARTS = re.compile(r"^(assets|corpora|models|evaluations):", re.MULTILINE)  # with an empty line before each
TRIALS = 20  # passkeys a length
FILLER = 16  # tokens that a passkey hides in, at least


@dataclass(frozen=True)
class Sizes:
    """What a study's lengths and budget are; lengths in tokens.

    window, context: before and after. trained: the methods that are trained beside YaRN. threads: of one process.
    """

    window: int
    context: int
    steps: int
    seq_len: int
    rows: int
    trained: tuple[str, ...]
    lr: float
    threads: int
    checkpointing: str = "none"


def new_study(name: str, parent: Parent, text: Text, context: int, machine: Machine, seed: int) -> tuple[str, Plan]:
    """The text of a study file, and its plan on this machine.

    Memory decides over the length of training rows. Raises NewError where not even rows of the model's own window fit.
    """
    last = ""
    for sizes in _candidates(parent, text, context, machine):
        content = _content(name, parent, text, sizes, machine, seed)
        plan = _plan(content, parent, machine)
        if not plan.problems:
            return _written(content, parent, sizes), plan
        last = plan.problems[0]
    raise NewError(f"{parent.name} can't be extended on {machine.device.name} to {context:,} tokens: {last}")


def unsound(parent: Parent, problems: str) -> NewError:
    """What a config.json with sizes that make no study is answered with."""
    return NewError(f"{parent.name}: no sound study can be made of its config.json: {problems}")


def new_context(parent: Parent, scale: float) -> int:
    """`scale` times the model's window, in whole halves of it; NewError where that is no more than the window."""
    step = max(1, parent.window // 2)
    context = int(scale * parent.window) // step * step
    if context <= parent.window:
        raise NewError(
            f"--scale {scale:g}: {parent.name} reads {parent.window:,} tokens already; give a scale of 1.5 or more"
        )
    return context


def _candidates(parent: Parent, text: Text, context: int, machine: Machine) -> Iterator[Sizes]:
    """From the longest rows on; with each length first everything kept of a layer, then recomputed."""
    length = context
    while length >= parent.window:
        sizes = _affordable(parent, text, context, length, machine)
        yield sizes
        yield replace(sizes, checkpointing="full")
        length //= 2


def _affordable(parent: Parent, text: Text, context: int, seq_len: int, machine: Machine) -> Sizes:
    """As many steps as time and text allow: the text once, at most STEPS. Methods are compared where all can be trained
    for as long."""
    rows = max(machine.count if machine.device.is_gpu else 1, TOKENS_A_STEP // seq_len)
    wanted = STEPS
    if text.tokens is not None:
        available = text.tokens // seq_len
        rows = max(1, min(rows, max(FEWEST_ROWS, available // STEPS), available // FEWEST_STEPS))
        wanted = max(FEWEST_STEPS, min(STEPS, available // rows))
    step = rows * training_flops(parent.architecture, parent.vocab_size, seq_len, causal=True)
    seconds = step / (MFU * machine.device.rate("auto") * machine.count)
    affordable = int(machine.hours * 3600 / seconds)
    trained = ("pi", "none") if affordable >= 3 * wanted else ()
    weights = _weights(parent)
    return Sizes(
        window=parent.window,
        context=context,
        steps=max(FEWEST_STEPS, min(wanted, affordable)),
        seq_len=seq_len,
        rows=rows,
        trained=trained,
        lr=float(f"{min(LARGEST_LR, 2e-5 * math.sqrt(7e9 / weights)):.0e}"),
        threads=1 if weights < SMALL and not machine.device.is_gpu else os.cpu_count() or 1,
    )


def _weights(parent: Parent) -> int:
    from yarnlab.cost import parameters

    return parameters(parent.architecture, parent.vocab_size)


def _content(name: str, parent: Parent, text: Text, sizes: Sizes, machine: Machine, seed: int) -> dict[str, Any]:
    """The study as its file holds it."""
    scale = sizes.context / parent.architecture.original_context
    scale = int(scale) if scale == int(scale) else scale
    ropes = {"yarn": {"method": "yarn", "scale": scale}, "pi": {"method": "pi", "scale": scale}}
    ropes["none"] = {"method": "none", "scale": scale}
    hub: dict[str, Any] = {"asset": "base"}
    if parent.ignored:
        hub["ignored_config"] = list(parent.ignored)
    models: dict[str, Any] = {"base": {"hub": hub} | ({"rope": parent.rope} if parent.rope else {})}
    if parent.trainable:
        train = _training(sizes, machine)
        models["extended"] = {"from": "base", "rope": ropes["yarn"], "train": train}
        names = {"pi": "interpolated", "none": "plain"}
        models |= {names[m]: {"from": "base", "rope": ropes[m], "train": train} for m in sizes.trained}
        models["untrained"] = {"from": "base", "rope": ropes["yarn"]}
    else:
        models["extended"] = {"from": "base", "rope": ropes["yarn"]}
    models["untrained-interpolated"] = {"from": "base", "rope": ropes["pi"]}
    corpora = {"held-out": {**text.held_out, "min_tokens": sizes.context, "documents": text.documents}}
    if parent.trainable:
        corpora = {"train": {**text.train, **_limit(text, sizes)}, **corpora}
    title = f"{parent.short_name} from {sizes.window:,} to {sizes.context:,} tokens"
    study: dict[str, Any] = {"study": name, "title": title}
    if notes := _notes(parent, sizes):
        study["notes"] = notes
    study |= {"seed": seed, "assets": {"base": parent.asset, **text.assets}, "corpora": corpora, "models": models}
    return study | {"evaluations": _evaluations(parent, sizes, list(models), machine)}


def _limit(text: Text, sizes: Sizes) -> dict[str, int]:
    """How much of a text without a known end is tokenised: what the steps read, and some to spare."""
    return {"max_tokens": math.ceil(1.2 * sizes.steps * sizes.rows * sizes.seq_len)} if text.tokens is None else {}


def _notes(parent: Parent, sizes: Sizes) -> list[str]:
    found = []
    if parent.attends is not None and parent.attends < sizes.context:
        found.append(
            f"Every layer attends to the last {parent.attends:,} tokens only, whatever its rope; `drop_sliding_window` "
            "of the base's `hub` lifts that."
        )
    if parent.said_of_documents:
        found.append(parent.said_of_documents)
    own = RopeChoice(**parent.rope).make(parent.architecture).context if parent.rope else sizes.window
    if own != sizes.window:
        found.append(f"The base serves {sizes.window:,} tokens; the report's L is s·L of its own rope, {own:,}.")
    if not parent.trainable:
        found.append("A model with experts: its router's loss is no part of the training here, so nothing is trained.")
    return found


def _training(sizes: Sizes, machine: Machine) -> dict[str, Any]:
    gpu = machine.device.is_gpu
    processes = machine.count if gpu and sizes.rows % machine.count == 0 else 1
    parallel = {"processes": processes, "threads": sizes.threads, "sharding": "fsdp" if processes > 1 else "replicate"}
    return {
        "corpus": "train",
        "rows": {"text": "spans"},
        "steps": sizes.steps,
        "seq_len": sizes.seq_len,
        "global_batch": sizes.rows,
        "micro_batch": 1 if gpu else _divisor(sizes.rows, max(1, 4096 // sizes.seq_len)),
        "lr": sizes.lr,
        "schedule": "constant",
        "warmup_steps": max(1, min(20, sizes.steps // 10)),
        "betas": [0.9, 0.95],
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "precision": "bf16" if gpu else "auto",
        "parallel": {**parallel, "activation_checkpointing": sizes.checkpointing},
        "checkpoint_minutes": 15,
    }


def _divisor(of: int, up_to: int) -> int:
    return next(n for n in range(min(of, up_to), 0, -1) if of % n == 0)


def _evaluations(parent: Parent, sizes: Sizes, models: list[str], machine: Machine) -> dict[str, Any]:
    """Perplexity by half windows, the same tokens with more context, passkeys at doublings of the window."""
    window, context = sizes.window, sizes.context
    shared = {"corpus": "held-out", "precision": "bf16" if machine.device.is_gpu else "auto", "threads": sizes.threads}
    step = math.gcd(window // 2 or 1, context)
    static = models if (parent.rope or {}).get("method") != "longrope" else models[1:]
    found: dict[str, Any] = {
        "perplexity": {**shared, "lengths": {"start": step, "stop": context, "step": step}, "models": static}
    }
    doublings = [window * 2**n for n in range(1, 24) if window * 2**n <= context]
    if doublings and window % 4 == 0:
        found["context"] = {**shared, "contexts": [window], "max_length": doublings[-1], "models": static}
    shortest = shortest_passkey(parent.files) if TOKENIZER in parent.files else 0
    lengths = sorted({window // 2, window, *doublings, context})
    if fitting := [n for n in lengths if n >= shortest + FILLER]:
        found["passkey"] = {**shared, "lengths": fitting, "trials": TRIALS, "models": models}
    return found


def _plan(content: dict[str, Any], parent: Parent, machine: Machine) -> Plan:
    from yarnlab.plan import plan_study

    filled = json.loads(json.dumps(content))
    filled["models"]["base"]["hub"] |= {
        "architecture": parent.architecture.model_dump(exclude_none=True),
        "vocab_size": parent.vocab_size,
    }
    try:
        study = Study.model_validate_json(json.dumps(filled), strict=True)
    except ValidationError as error:
        raise unsound(parent, in_one_line(error)) from None
    return plan_study(study, machine.device, MFU)


def _written(content: dict[str, Any], parent: Parent, sizes: Sizes) -> str:
    """The file: what several models or evaluations have in common stands once, under an anchor."""
    from ruamel.yaml import YAML

    study = _laid_out(content)
    trained = [model for model in study["models"].values() if "train" in model]
    kinds = [*study["evaluations"].values()]
    shared = {"train": trained, "models": [kind for kind in kinds if kind["models"] == kinds[0]["models"]]}
    for key, sections in shared.items():
        for section in sections[1:]:
            section[key] = sections[0][key]
        if sections:
            sections[0][key].yaml_set_anchor(key, always_dump=True)
    yaml, out = YAML(), StringIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 118
    yaml.dump(study, out)
    return _header(content, parent, sizes) + PARTS.sub(r"\n\1:", out.getvalue())


def _laid_out(value: Any) -> Any:
    """For YAML: short mappings and lists of plain values on one line."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    made: Any = value
    if isinstance(value, dict):
        made = CommentedMap({key: _laid_out(inner) for key, inner in value.items()})
        if len(value) < 8 and not any(isinstance(inner, dict | list) for inner in value.values()):
            made.fa.set_flow_style()
    elif isinstance(value, list):
        made = CommentedSeq(map(_laid_out, value))
        if not any(isinstance(inner, str) and len(inner) >= 40 for inner in value):
            made.fa.set_flow_style()
    return made


def _header(content: dict[str, Any], parent: Parent, sizes: Sizes) -> str:
    shape, study = parent.architecture, content["study"]
    lines = [
        "Written by `yarnlab new`; docs/study-reference.md explains every key, docs/how-to-extend.md what to change.",
        f"{parent.name}: {shape.family}, {_weights(parent):,} weights, L = {shape.original_context:,}, rope base "
        f"{shape.rope_theta:g}.",
        "The rest of its shape is recorded in config/architectures.lock.yaml.",
        f"  envs/run yarnlab plan {study}",
        f"  envs/run snakemake --cores all --config study={study}",
    ]
    if parent.trainable:
        lines.insert(3, f"Rate, rows and steps are a beginning: {sizes.steps} steps are what time and text allow.")
    return "".join(f"# {line}\n" for line in lines)
