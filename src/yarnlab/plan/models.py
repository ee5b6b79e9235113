"""What making a study's models will take, and what to change where one cannot be trained on the device."""

from __future__ import annotations

from collections.abc import Iterator

from yarnlab import cost
from yarnlab.cost import memory
from yarnlab.cost.devices import Device
from yarnlab.plan.stages import Stage, needed, room
from yarnlab.study.schema import Study
from yarnlab.study.training import Train

RECOMPUTED = ("none", "selective", "full", "offload")  # each keeps less on the device than the one before
KEPT = 3  # checkpoints on disk at worst: the two that are kept and the one being written


def stages(study: Study, device: Device) -> Iterator[tuple[Stage, str | None]]:
    """Every model, parents first, with the problem that keeps it from being trained, if any."""
    arms: dict[str, None] = {}
    for arm in study.models:
        chain = [arm]
        while (parent := study.models[chain[-1]].parent) is not None:
            chain.append(parent)
        arms |= dict.fromkeys(reversed(chain))
    for arm in arms:
        for seed in study.seeds_of(arm):
            yield _model(study, arm, study.name(arm, seed), seed, device)


def _model(study: Study, arm: str, name: str, seed: int, device: Device) -> tuple[Stage, str | None]:
    model, shape, vocab = study.models[arm], study.architecture(arm), study.vocab_size(arm)
    parents = (study.name(model.parent, seed),) if model.parent is not None else ()
    if not model.phases:
        return Stage("train", name, after=parents), None  # weights are linked
    weights = cost.parameters(shape, vocab)
    rows = [(phase, phase.steps * phase.global_batch) for phase in model.phases]
    work = [
        sum(n * cost.training_flops(shape, vocab, phase.seq_len, causal=causal) for phase, n in rows)
        for causal in (True, False)
    ]
    made = [_phase(study, arm, name, phase, device) for phase in model.phases]
    worst = max(made, key=lambda stage: stage.peak)
    parallel = model.phases[0].parallel
    published = study.models[study.root(arm)].hub is not None
    state = 6 if model.phases[0].precision == "pure-bf16" else 12
    stage = Stage(
        "train",
        name,
        flops=work[0],
        flops_palm=work[1],
        precision=model.phases[0].precision,
        devices=parallel.world * (1 if device.is_gpu else parallel.threads),
        processes=parallel.processes,
        memory=worst.memory,
        host=worst.host,
        disk=float(weights * (2 if published else 4)),  # as published checkpoints are; new ones in fp32
        scratch=float(KEPT * state * weights),
        after=parents,
    )
    return stage, _problem(study, arm, stage, device)


def _phase(study: Study, arm: str, name: str, phase: Train, device: Device) -> Stage:
    components, host = memory.training(study.architecture(arm), study.vocab_size(arm), phase, gpu=device.is_gpu)
    return Stage("train", name, memory=components, host=host, processes=phase.parallel.processes)


def _problem(study: Study, arm: str, stage: Stage, device: Device) -> str | None:
    if needed(stage, device) <= room(device):
        return None
    phases = study.models[arm].phases
    worst = max(phases, key=lambda phase: needed(_phase(study, arm, stage.name, phase, device), device))
    enough = [
        change
        for change, altered in changes(worst)
        if needed(_phase(study, arm, stage.name, altered, device), device) <= room(device)
    ]
    advice = f"Any one of these is enough: {'; '.join(enough)}." if enough else (
        "No single change is enough: combine `sharding: fsdp`, `activation_checkpointing: offload`, more processes and "
        "a larger `context`, or choose a device with more memory."
    )  # fmt: skip
    return f"{too_large(stage, device)} {advice}"


def too_large(stage: Stage, device: Device) -> str:
    """What a stage needs, by component from the largest on, and what there is."""
    parts = sorted(stage.memory.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in parts if size >= 0.05e9)
    if device.is_gpu:
        where = f"on each GPU, of which an {device.name} has {room(device) / 1e9:.1f} to use"
    else:
        where = f"in {stage.processes} processes, of which this machine has {room(device) / 1e9:.1f} to use"
    return f"- {stage.stage} of {stage.name} needs {needed(stage, device) / 1e9:.1f} GB {where} ({shown} GB a process)."


def changes(phase: Train) -> Iterator[tuple[str, Train]]:
    """Single changes of a phase's settings that lower its memory, with the phase that each gives."""
    parallel = phase.parallel

    def with_(**values: object) -> Train:
        return phase.model_copy(update={"parallel": parallel.model_copy(update=values)})

    if phase.micro_batch > 1:
        yield "`micro_batch: 1`", phase.model_copy(update={"micro_batch": 1})
    for mode in RECOMPUTED[RECOMPUTED.index(parallel.activation_checkpointing) + 1 :]:
        yield f"`activation_checkpointing: {mode}`", with_(activation_checkpointing=mode)
    if parallel.sharding == "replicate" and parallel.world > 1:
        yield "`sharding: fsdp`", with_(sharding="fsdp")
    for factor in (2, 4, 8):
        more, sharing = factor * parallel.processes, factor * parallel.context
        yield f"`processes: {more}` with `sharding: fsdp`", with_(processes=more, sharding="fsdp")
        if parallel.world % sharing == 0:
            yield f"`context: {sharing}`", with_(context=sharing)
    if phase.precision != "pure-bf16" and parallel.sharding == "fsdp":
        yield "`precision: pure-bf16`", phase.model_copy(update={"precision": "pure-bf16"})
