"""Whether a model is computed here as stock transformers computes it, tried on a small random model of its config.

Tables, attention kernels, the head in chunks, the training loss and the loading of shards go round a family's own
forward pass. What a family does that they do not know would be a wrong number without a word, so it is looked for
before a model is used: on the CPU, in fp32, in a second or two.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarnlab.errors import UserError
from yarnlab.families.parts import UnsupportedModel, experts, place
from yarnlab.families.shrink import VOCABULARY, shrunken
from yarnlab.rope import Rope

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

TOLERANCE = 1e-4  # nats: fp32 in another order of additions is some 1e-6 away, an operation left out 1e-2 or more
GRADIENT = 1e-3  # of a weight's gradient, relative to its largest entry
TOKENS = 40  # longer than the windows of the small model
LAST = 4
# Of weights, relative to those that keep a vector's length: attention is sharp enough for an error in it to show, and
# not so sharp that rounding does.
GAIN = 1.0
# What the keys of a setting that comes between hidden states and logits, or into attention, are called.
SUSPECTS = ("cap", "mscale", "multiplier", "scal", "sink", "qk_", "partial", "beta", "no_rope", "nope", "gate")


def check_parity(published: Any, config: Any, rope: Rope, *, where: str) -> dict[str, float]:
    """Compare a small random model of the config `published`, by stock transformers, with that of `config` here.

    Args:
        published: the config as it was found.
        config: the config that is written for the model, with `rope` declared in it.

    Returns the largest difference by what was computed. Raises UnsupportedModel, in one line, naming what
    differs and the settings that could be why.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    family = published.model_type
    try:
        stock, folder = small_model(published), tempfile.TemporaryDirectory()
    except Exception as error:
        raise UnsupportedModel(
            f"{where}: transformers makes no model of family {family} from a small copy of this config "
            f"({place(error)}), so there is nothing to check it by"
        ) from error
    with folder:
        try:
            stock.save_pretrained(folder.name)
            shrunken(config).save_pretrained(folder.name)
            compared = _differences(stock, Path(folder.name), rope)
        except Exception as error:
            raise UnsupportedModel(
                f"{where}: stock transformers can't compute a small random model of this config of family {family} "
                f"({place(error)}), so there is nothing to check it by"
            ) from error
        found = {}
        for what, unit, tolerance, difference in compared:
            try:
                found[what] = difference()
            except UserError as error:
                why = str(error).partition("\n")[0].replace(folder.name, "a small random model of this config")
                why = why.partition(": use YARNLAB_ATTENTION")[0]  # which is not asked here
                raise UnsupportedModel(f"{where}: family {family} is not supported: {what}: {why}") from error
            except Exception as error:
                raise UnsupportedModel(
                    f"{where}: family {family} is not supported: {what} stops in its own code "
                    f"({place(error)}), which can't be run without a mask, or with the tables of this project"
                ) from error
            if not found[what] <= tolerance:
                raise UnsupportedModel(
                    f"{where}: family {family} is not supported: on a small random model of this config, {what} here "
                    f"and by stock transformers are {found[what]:.2g} {unit} apart. Its settings that could be why: "
                    f"{_suspects(published)}"
                )
    return found


def check_documents_apart(config: Any) -> None:
    """Whether positions that begin anew keep a small random model of `config` to the documents of a row.

    Raises UnsupportedModel if the second of two documents is not computed as if it stood alone: a family that builds
    its masks itself, or whose layers keep a state.
    """
    import torch

    from yarnlab.attention import masked
    from yarnlab.families.parts import decoder

    model = small_model(config)
    model.set_attn_implementation(masked(model))
    ids = torch.randint(1, VOCABULARY, (2, TOKENS), generator=torch.Generator().manual_seed(1))
    border = TOKENS // 3
    positions = torch.cat([torch.arange(border), torch.arange(TOKENS - border)]).expand(2, -1)
    with torch.no_grad():
        together = decoder(model)(input_ids=ids, position_ids=positions, use_cache=False)[0][:, border:]
        alone = decoder(model)(input_ids=ids[:, border:], use_cache=False)[0]
    if not (difference := apart(together, alone)) <= TOLERANCE:
        raise UnsupportedModel(
            f"family {config.model_type} can't keep attention within the documents of a row: on a small random model "
            f"of its config, the second of two is {difference:.2g} from what it is alone. Leave out the training's "
            "`rows.attention_within`"
        )


def small_model(config: Any) -> PreTrainedModel:
    """A model of the shrunken config with random weights, all of them at work; the same config gives the same."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(shrunken(config), dtype=torch.float32)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=GAIN / parameter.shape[-1] ** 0.5)
                elif not bool(parameter.any()):  # a bias that would do nothing
                    parameter.normal_(std=0.5)
    return model.eval()


def _differences(stock: Any, folder: Path, rope: Rope) -> list[tuple[str, str, float, Callable[[], float]]]:
    """What is compared, in order: its name, unit, tolerance, and the function that gives the largest difference."""
    import torch

    from yarnlab.attention import choose
    from yarnlab.evaluation.last_tokens import last_logits
    from yarnlab.evaluation.nll import token_nll
    from yarnlab.modeling import load_model, meta_model, set_rope
    from yarnlab.training.objective import Objective, materialise
    from yarnlab.training.parallel import Group
    from yarnlab.training.shards import read_weights

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, VOCABULARY, (1, TOKENS), generator=generator)
    logits = stock(input_ids=ids, use_cache=False).logits.float()[0]
    expected = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
    expected.mean().backward()
    gradients = {name: p.grad for name, p in stock.named_parameters() if p.grad is not None}
    expected, logits = expected.detach(), logits.detach()
    loaded: list[Any] = []

    def evaluation() -> float:
        model = load_model(folder, rope).cpu()
        loaded.append(model)
        model.set_attn_implementation(choose(model, environment={}))  # what is set for this machine may need its GPU
        return apart(torch.from_numpy(token_nll(model, ids.numpy()))[0], expected)

    def last() -> float:
        return apart(last_logits(loaded[0], ids, LAST)[0].log_softmax(-1), logits[-LAST:].log_softmax(-1))

    def training() -> float:
        total, nll = Objective(loaded[0], "fp32", "torch")(ids[:, :-1], ids[:, 1:], torch.ones(1, TOKENS - 1))
        (total / (TOKENS - 1)).backward()
        return apart(nll.flatten(), expected)

    def gradient() -> float:
        ours = {name: p.grad for name, p in loaded[0].named_parameters() if p.grad is not None}
        if ours.keys() != gradients.keys():
            return float("inf")
        return max(apart(ours[name], wanted) / float(wanted.abs().max() + 1e-6) for name, wanted in gradients.items())

    def shards() -> float:
        model = meta_model(folder)
        set_rope(model, rope)
        objective = Objective(model, "fp32", "torch")
        materialise(objective, Group())
        read_weights(model, folder)
        model.eval().set_attn_implementation(choose(model, environment={}))
        return apart(torch.from_numpy(token_nll(model, ids.numpy()))[0], expected)

    compared = [
        ("the loss of an evaluation", "nats", TOLERANCE, evaluation),
        ("the logits of the last tokens", "nats", TOLERANCE, last),
    ]
    if experts(stock.config):  # trained nowhere: see stages.models
        return compared
    return [
        *compared,
        ("the training loss", "nats", TOLERANCE, training),
        ("the gradients of the training loss", "of the largest", GRADIENT, gradient),
        ("the loss of a model read in shards", "nats", TOLERANCE, shards),
    ]


def apart(ours: Tensor, stock: Tensor) -> float:
    """The largest difference of two tensors of one shape; not a number counts as infinitely far."""
    difference = float((ours.detach().float() - stock.float()).abs().max())
    return difference if difference == difference else float("inf")


def _suspects(config: Any) -> str:
    settings = {**config.to_dict(), **(config.rope_parameters or {})}
    found = {
        key: value
        for key, value in settings.items()
        if any(word in key for word in SUSPECTS) and key != "rope_scaling" and not isinstance(value, dict | list)
    }
    return ", ".join(f"{key}: {value}" for key, value in sorted(found.items()) if value not in (None, False)) or "none"
