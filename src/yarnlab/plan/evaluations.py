"""What a study's evaluations will take, from the passes that each kind says it will compute (`Evaluation.cost`)."""

from __future__ import annotations

from yarnlab import cost
from yarnlab.cost import memory
from yarnlab.cost.devices import Device
from yarnlab.evaluation.base import Evaluation
from yarnlab.evaluation.decoding import is_offloaded
from yarnlab.plan.stages import Stage
from yarnlab.study.schema import Study


def stage(study: Study, settings: Evaluation, arm: str, model: str, device: Device) -> tuple[Stage, str | None]:
    """One evaluation of one model, and the assumption behind it if there is one."""
    shape, vocab = study.architecture(arm), study.vocab_size(arm)
    found = settings.cost(study, arm)
    work = {
        causal: found.rotations
        + sum(n * cost.forward_flops(shape, vocab, length, causal=causal) for n, length in found.runs)
        for causal in (True, False)
    }
    cache = memory.key_value_bytes(shape, found.cached, 2 if settings.precision == "bf16" else 4)
    offloaded = device.is_gpu and is_offloaded(cache, device.memory)
    components = memory.evaluation(
        shape, vocab, found.at_once, precision=settings.precision, gpu=device.is_gpu,
        logit_rows=memory.LOSS_CHUNK if found.logit_rows is None else found.logit_rows,
        cached=cache * (min(1.0, 2 / shape.num_hidden_layers) if offloaded else 1.0),
    )  # fmt: skip
    if found.scores:
        components["attention scores"] = found.scores
    made = Stage(
        settings.kind,
        model,
        flops=work[True],
        flops_palm=work[False],
        precision=settings.precision,
        devices=1 if device.is_gpu else settings.processes * settings.threads,
        processes=1 if device.is_gpu else settings.processes,
        memory=components,
        # Weights pass through host memory, which the process keeps (processes.ALLOCATOR).
        host=memory.HOST_RUNTIME + components["weights"] + (cache if offloaded else 0.0) if device.is_gpu else 0.0,
        disk=found.disk,
        after=(model,),
    )
    return made, found.note
