"""Activation checkpointing: the same gradients, bit for bit, from fewer bytes on the device."""

from __future__ import annotations

import weakref
from collections import Counter

import pytest
import torch
from tiny_runs import VOCABULARY, model_of, parallel, phase, train_tiny, weights_of
from torch.utils._python_dispatch import TorchDispatchMode

from yarnlab import attention
from yarnlab.modeling import use_fast_attention
from yarnlab.training.objective import Objective, build_objective
from yarnlab.training.parallel import Group

MODES = ("full", "selective", "offload")
IDS = torch.arange(640).view(2, 320) % VOCABULARY


def made_with(mode: str, architecture, *, precision: str = "fp32", kernel: str | None = None) -> Objective:
    model = model_of(architecture)
    if kernel is None:
        use_fast_attention(model, precision=precision)
    else:
        model.set_attn_implementation(kernel)
    return build_objective(model, phase(precision=precision, parallel=parallel(activation_checkpointing=mode)), Group())


def gradients(objective: Objective) -> dict[str, torch.Tensor]:
    loss, _ = objective(IDS, IDS, torch.ones(2, 320))
    loss.backward()
    return {name: p.grad for name, p in objective.model.named_parameters()}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mode", MODES)
def test_recomputed_layers_give_the_same_gradients(architecture, mode, precision):
    """Bit for bit, under the same names; in bf16 with autocast's own copies of the weights."""
    plain, recomputed = (gradients(made_with(m, architecture, precision=precision)) for m in ("none", mode))
    assert plain.keys() == recomputed.keys()
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)


@pytest.mark.parametrize("mode", MODES)
def test_less_is_saved_for_the_backward_pass(architecture, mode):
    saved = []
    for chosen in ("none", mode):
        kept: dict[int, int] = {}

        def pack(tensor, kept=kept):
            if not isinstance(tensor, torch.nn.Parameter):
                kept[tensor.data_ptr()] = tensor.nbytes
            return tensor

        objective = made_with(chosen, architecture)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed):
            objective(IDS, IDS, torch.ones(2, 320))
        saved.append(sum(kept.values()))
    assert saved[1] < saved[0] / 2


@pytest.mark.parametrize("mode", MODES)
def test_an_offloaded_input_leaves_the_device(architecture, mode):
    """Each layer's input is gone when the forward pass has ended, and only where it was offloaded."""
    objective, inputs = made_with(mode, architecture), []
    for layer in objective.model.model.layers:
        layer.register_forward_pre_hook(lambda module, given: inputs.append(weakref.ref(given[0])))
    loss, _ = objective(IDS, IDS, torch.ones(2, 320))
    assert [found() is None for found in inputs] == [mode == "offload"] * 2
    loss.backward()


class Executed(TorchDispatchMode):
    """Counts operations that are computed; what a checkpoint hands out again does not come by."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        self.counts[operation.name()] += 1
        return operation(*arguments, **(options or {}))


@pytest.mark.parametrize(
    ("kernel", "operation"),
    [(None, "yarnlab::blockwise_attention"), ("sdpa", "aten::_scaled_dot_product_flash_attention_for_cpu")],
)
@pytest.mark.parametrize(("mode", "times"), [("none", 1), ("full", 2), ("selective", 1), ("offload", 2)])
def test_selective_recomputation_leaves_attention_out(architecture, kernel, operation, mode, times):
    """Both layers' attention is computed once, the MLP's products in full are not."""
    objective = made_with(mode, architecture, kernel=kernel)
    with Executed() as executed:
        gradients(objective)
    assert executed.counts[operation] == 2 * times
    assert (executed.counts["aten::silu"] == 2) == (mode == "none")


def test_attention_that_is_no_operation_is_refused(architecture):
    """Instead of recomputing it without a word."""
    objective = made_with("selective", architecture, kernel="eager")
    with pytest.raises(attention.AttentionError, match="use activation_checkpointing: full"):
        gradients(objective)
    with torch.no_grad():
        objective(IDS, IDS, torch.ones(2, 320))


def test_shards_that_share_a_sequence_keep_attention_too(tiny_data, architecture, tmp_path, forked_job):
    """Two processes, two parts of a sequence each: the same weights bit for bit with and without recomputation."""
    for mode in ("none", "selective"):
        chosen = phase(steps=2, parallel=parallel(2, "fsdp", context=2) | {"activation_checkpointing": mode})
        code, said = forked_job(train_tiny, tiny_data, tmp_path / mode, architecture, (chosen,))
        assert code == 0, said
    one, other = weights_of(tmp_path / "none"), weights_of(tmp_path / "selective")
    assert all(torch.equal(one[name], other[name]) for name in one)
