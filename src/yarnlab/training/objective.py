"""The loss as one module around a model, sharded and recomputed as a phase asks, and what of that is really in force.

Head, embeddings and final norm belong to the module itself, the root of the shards: the chunked cross-entropy reads
the head's weight inside the root's forward pass, where it is whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from yarnlab import attention
from yarnlab.families.logits import transform_of
from yarnlab.families.parts import decoder, head
from yarnlab.modeling import autocast
from yarnlab.study.training import Train
from yarnlab.training.loss import choose, linear_cross_entropy
from yarnlab.training.parallel import Group
from yarnlab.training.recompute import recompute_layers
from yarnlab.training.shards import part

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NotInForce(RuntimeError):
    """What a phase asks for is not what the model computes with; the message says what differs."""


class Objective(nn.Module):
    """Σ w·NLL of a batch. The model is `model`; `precision` and `loss` (its kernel) are those of the current phase."""

    def __init__(self, model: PreTrainedModel, precision: str, loss: str) -> None:
        super().__init__()
        self.model = model
        self.precision = precision
        self.loss = loss

    def forward(
        self, ids: Tensor, targets: Tensor, weights: Tensor, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(Σ w·NLL, differentiable; NLL of each target), fp32.

        Args:
            ids, targets: (rows, tokens) int64.
            weights: (rows, tokens) float32, of each target.
            positions: (1 or rows, tokens) int64, where the tokens are not a sequence from its start. Where they begin
                anew within a row another document begins, to which transformers keeps attention (masks needed).
        """
        # Sharded models hold their weights in bf16 while they compute, which autocast would only cast again.
        mixed = "fp32" if self.sharded else self.precision
        with autocast("bf16" if mixed == "bf16" else "fp32"):
            placed = {} if positions is None else {"position_ids": positions}
            hidden = decoder(self.model)(input_ids=ids, use_cache=False, **placed)[0]
        return linear_cross_entropy(
            hidden.flatten(0, 1),
            head(self.model).weight,
            targets.reshape(-1),
            weights.flatten(),
            dtype=torch.float32 if self.precision == "fp32" else torch.bfloat16,
            kernel=self.loss,
            bias=head(self.model).bias,
            transform=transform_of(self.model.config),
        )

    @property
    def sharded(self) -> bool:
        return isinstance(self, FSDPModule)


def build_objective(model: PreTrainedModel, phase: Train, group: Group) -> Objective:
    """The model's training loss; its layers are recomputed and its weights sharded as the phase says.

    Weights on the meta device stay there as shards: `materialise` gives them memory. Whole ones must be equal in all
    processes. Raises NotInForce if torch did something else than what was asked for.
    """
    layers = decoder(model).layers
    recompute_layers(layers, phase.parallel.activation_checkpointing)
    objective = Objective(model, phase.precision, choose(phase.loss, group.device))
    if phase.parallel.sharding == "fsdp":
        _shard(objective, layers, phase.precision, group)
    elif phase.precision == "pure-bf16":
        objective.to(torch.bfloat16)
    check(objective, phase, group)
    return objective


def _shard(objective: Objective, layers: nn.ModuleList, precision: str, group: Group) -> None:
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh(group.device.type, (group.size,))
    if precision == "pure-bf16":
        objective.to(torch.bfloat16)
    compute = None if precision == "fp32" else torch.bfloat16
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=MixedPrecisionPolicy(compute, torch.float32, cast_forward_inputs=True))
    # The root's inputs are token ids and the targets' weights, which must stay in fp32.
    fully_shard(objective, mesh=mesh, mp_policy=MixedPrecisionPolicy(compute, torch.float32, cast_forward_inputs=False))
    for module in objective.modules():
        if isinstance(module, FSDPModule):
            # Sums, no means: losses are sums over tokens, divided by the weight of the whole batch in the end.
            module.set_gradient_divide_factor(1.0)
            # Gloo knows no multiplied sum, which is what a factor is by default.
            module.set_force_sum_reduction_for_comms(True)


def materialise(objective: Objective, group: Group) -> None:
    """Give weights on the meta device memory on this process's device; their content is undefined. Buffers keep theirs.

    Raises NotInForce for a buffer on the meta device, which nothing could fill.
    """
    buffers = dict(objective.named_buffers())
    if undefined := [name for name, buffer in buffers.items() if buffer.is_meta]:
        raise NotInForce(f"{', '.join(undefined)}: no weights, and not computed from the model's config")
    objective.to_empty(device=group.device)
    for name, buffer in buffers.items():
        objective.get_buffer(name).copy_(buffer)
    objective.model.tie_weights()


def check(objective: Objective, phase: Train, group: Group) -> None:
    """NotInForce unless every weight is where, and in the dtype, that the phase asks for.

    Plain torch shards on CPUs too, but other layers above it fall back to whole models there without a word.
    """
    sharded = phase.parallel.sharding == "fsdp"
    kept = torch.bfloat16 if phase.precision == "pure-bf16" else torch.float32
    for name, parameter in objective.model.named_parameters():
        if isinstance(parameter, DTensor) != sharded:
            raise NotInForce(f"{name} is {'not ' * sharded}sharded, the phase asks for {phase.parallel.sharding}")
        if isinstance(parameter, DTensor) and parameter.device_mesh.size() != group.size:
            raise NotInForce(f"{name} is sharded over {parameter.device_mesh.size()} processes, not {group.size}")
        if parameter.dtype != kept:
            raise NotInForce(f"{name} is kept in {parameter.dtype}, precision {phase.precision} means {kept}")
    if sharded:
        modules = [objective, *decoder(objective.model).layers]
        whole = [type(module).__name__ for module in modules if not isinstance(module, FSDPModule)]
        if whole:
            raise NotInForce(f"{len(whole)} modules are not sharded by themselves: {whole[0]}, …")
        _watch_dtype(objective, torch.float32 if phase.precision == "fp32" else torch.bfloat16)


def _watch_dtype(objective: Objective, expected: torch.dtype) -> None:
    """In the next forward pass, NotInForce if the first layer does not compute in the dtype that is expected."""
    layer = decoder(objective.model).layers[0]

    def look(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        handle.remove()
        found = {arguments[0].dtype, *(p.dtype for p in module.parameters())}
        if found != {expected}:
            raise NotInForce(f"layer 0 computes in {found}, the phase asks for {expected}")

    handle = layer.register_forward_pre_hook(look)


def facts(objective: Objective, phase: Train, group: Group) -> dict[str, Any]:
    """What is in force, for the record."""
    parameter = next(objective.model.parameters())
    return {
        **attention.facts(objective.model, phase.precision),
        "sharding": "fsdp" if objective.sharded else "replicate",
        "precision": phase.precision,
        "loss": objective.loss,
        "weights_dtype": str(parameter.dtype).removeprefix("torch."),
        "activation_checkpointing": phase.parallel.activation_checkpointing,
        "world": group.size,
        "context": group.context,
        "device": str(part(parameter).device.type),
        "threads": torch.get_num_threads(),
    }
