"""Causal language models with a rope method: create, load, save, and check that the rope is what was declared.

Frequencies are not part of a checkpoint's weights: they are recomputed by whoever loads it, from its config. So
after every load and before every save the tables in force are compared with the declared method's.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from yarnlab.errors import UserError
from yarnlab.families.config import (
    check_softmax_scale,
    declare,
    is_own_type,
    name_dynamic_types,
    parameters,
    stock_block,
    stock_rotary,
)
from yarnlab.families.config_file import complete
from yarnlab.families.parts import decoder
from yarnlab.families.rotary import BEYOND, RotaryEmbedding, form_of, long_table, stock_tables
from yarnlab.families.tensors import check_loaded
from yarnlab.processes import ON_GPU
from yarnlab.rope import Rope
from yarnlab.study.schema import Architecture, RopeChoice
from yarnlab.weights import checkpoint_files, companions, replacing_checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = 1e-6  # relative, on inv_freq: rounding of fp32 is 1e-7, a wrong method is 1e-2 or more
SHARD_SIZE = "5GB"  # of the files that a model is saved in


class RopeMismatch(UserError):
    """The frequencies that a model would use are not those of its declared method."""


def rope_of(spec: dict[str, Any]) -> Rope:
    """The rope that a stage's section declares (keys `rope` and `architecture`)."""
    return RopeChoice(**spec["rope"]).make(Architecture(**spec["architecture"]))


def create_model(architecture: Architecture, *, vocab_size: int, seed: int) -> PreTrainedModel:
    """A freshly initialised fp32 model; the same seed gives the same weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from yarnlab.corpus.tokenizer import BOS_ID, EOS_ID

    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.num_hidden_layers,
        num_attention_heads=architecture.num_attention_heads,
        num_key_value_heads=architecture.num_key_value_heads,
        head_dim=architecture.head_dim,
        max_position_embeddings=architecture.original_context,
        rope_parameters={"rope_type": "default", "rope_theta": architecture.rope_theta},
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        use_cache=False,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


class NoGPU(UserError):
    """A process that was started to compute on a GPU finds none."""


def compute_device() -> torch.device:
    """The GPU of this process where there is one, else the CPU. Raises NoGPU if the launcher promised one."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if ON_GPU in os.environ:
        raise NoGPU(
            f"this job was given a GPU, and torch {torch.__version__} sees none: set the environment up with "
            "`envs/run --gpu`, and look whether `nvidia-smi` works on this machine"
        )
    return torch.device("cpu")


def load_model(folder: Path, declared: Rope, *, precision: str = "fp32") -> PreTrainedModel:
    """The checkpoint in `folder` on this process's device, in evaluation mode, with `declared` in force.

    Weights are fp32; on a GPU, bf16 with `precision` bf16, as the official evaluation loads them (on CPUs, bf16 is
    autocast).

    Raises RopeMismatch if the checkpoint's own config yields other frequencies than `declared`: then either the
    checkpoint or the study file is wrong. WrongWeights if its files do not hold the model's weights.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar for every tensor of a study's many small models
    name_dynamic_types()
    device = compute_device()
    dtype = torch.bfloat16 if precision == "bf16" and device.type == "cuda" else torch.float32
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True
    )
    model, info = loaded
    check_loaded(info, folder)
    check_rope(model, declared, where=str(folder))
    model.to(device)
    set_rope(model, declared)
    # How a parent's texts are generated goes along with it, and is no part of a protocol.
    model.generation_config = GenerationConfig.from_model_config(model.config)
    return model.eval()


def meta_model(folder: Path) -> PreTrainedModel:
    """The fp32 model of a checkpoint's config: weights on the meta device (shapes and names), buffers computed."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    name_dynamic_types()
    with init_empty_weights(include_buffers=False):  # no file has them: a scale of embeddings is one
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)


def set_rope(model: PreTrainedModel, rope: Rope) -> None:
    """Put `rope` in force: same weights, other tables, in the family's own layout.

    Raises UnsupportedModel where that is not known, or where more than tables depends on the rope.
    """
    base = decoder(model)
    present: Any = base.rotary_emb
    form = present.form if isinstance(present, RotaryEmbedding) else form_of(present)
    check_softmax_scale(model.config, rope)
    base.rotary_emb = RotaryEmbedding(rope, form)


def check_rope(model: PreTrainedModel, declared: Rope, *, where: str) -> None:
    """Compare the tables that stock transformers builds from the model's config with the declared method's."""
    check_config(model.config, declared, where=where)


def check_active_rope(model: PreTrainedModel, rope: Rope, length: int, *, where: str) -> None:
    """RopeMismatch unless the model computes with `rope`, in fp32, and tells `length` positions apart.

    To be asserted wherever something could have changed it: after loading, sharding, resuming, before saving. A cast
    of positions or frequencies to bf16, for example, makes most positions beyond 256 equal to a neighbour.
    """
    rotary: Any = decoder(model).rotary_emb
    if not isinstance(rotary, RotaryEmbedding) or rotary.rope != rope:
        raise RopeMismatch(f"{where}: the model's rotary embedding is {rotary!r}, not the declared {rope.method}")
    fixed = rope.at(length)
    positions = torch.arange(length, device=model.device)
    angles = rotary.angles(fixed if rope.dynamic else rotary.rope, positions[None])[0]
    expected = torch.outer(torch.arange(length).float(), fixed.inv_freq())
    if angles.dtype != torch.float32 or not torch.allclose(angles.cpu(), expected, rtol=TOLERANCE, atol=0):
        raise RopeMismatch(f"{where}: the angles in force ({angles.dtype}) are not those of the declared {rope.method}")
    if not bool((angles[:, 0].diff() > 0).all()):
        raise RopeMismatch(f"{where}: some of {length} positions can't be told apart: their angles are equal")


def check_config(config: Any, declared: Rope, *, where: str) -> None:
    """RopeMismatch if stock transformers would build other tables from this config than the declared method's."""
    if is_own_type(declared) and stock_block(config).get("rope_type") != parameters(declared)["rope_type"]:
        return  # written before such ropes had a name: its config is its parent's, and set_rope does the rest
    if difference := _difference(config, declared):
        raise RopeMismatch(
            f"{where}: the checkpoint's config gives {difference}. In config.json: {stock_block(config)}; declared: "
            f"{parameters(declared)}. Correct the study's `rope` or retrain the model."
        )


def check_can_be_saved(config: Any, rope: Rope, *, where: str) -> None:
    """RopeMismatch unless `save_model` could write a model of this config with `rope`.

    To be asked before a training, which would be in vain. The method may be a user's own, so whatever its `to_hf`
    raises, and whatever transformers makes of what it returns, ends in one message.
    """
    config, cause = copy.deepcopy(config), None
    try:
        rope.to_hf()  # a dynamic rope without a stock type is never trained
        declare(config, rope)
        why = _difference(config, rope)
    except Exception as error:
        why, cause = f"{type(error).__name__}: {error}", error
    if why:
        raise RopeMismatch(
            f"{where}: a model with the rope method {rope.method} can't be saved for stock transformers ({why}). Have "
            f"{type(rope).__name__}.to_hf return the rope_parameters that give the frequencies of its inv_freq"
        ) from cause


def _difference(config: Any, declared: Rope) -> str:
    """How the tables that stock transformers builds from `config` differ from the declared ones; empty if equal."""
    rotary = stock_rotary(config)
    inv_freq, factor = stock_tables(rotary)
    expected = declared.inv_freq()
    if inv_freq.shape != expected.shape:
        return (
            f"{2 * len(inv_freq)} rotated dimensions in each head, the study's `architecture` "
            f"{2 * len(expected)} (`head_dim` × `partial_rotary_factor`)"
        )
    worst = _relative(inv_freq.cpu(), expected)
    if (long := long_table(rotary)) is not None:
        worst = max(worst, _relative(long.cpu(), declared.at(BEYOND * declared.original_context).inv_freq()))
    if worst <= TOLERANCE and abs(factor - declared.attention_factor) <= TOLERANCE:
        return ""
    return (
        f"rope frequencies up to {worst:.1e} (relative) away from the declared {declared.method} at scale "
        f"{declared.scale:g}, attention factor {factor:.6f} against {declared.attention_factor:.6f}"
    )


def _relative(found: Tensor, expected: Tensor) -> float:
    smallest = torch.finfo(torch.float32).tiny  # a pair that does not turn has frequency 0
    return ((found - expected).abs() / expected.abs().clamp_min(smallest)).max().item()


def save_model(
    model: PreTrainedModel,
    rope: Rope,
    tokenizer_folder: Path,
    folder: Path,
    *,
    tensors: Mapping[str, Tensor] | None = None,
) -> list[Path]:
    """Write a checkpoint that stock transformers, also of version 4, loads with the same tables; returns its files.

    The weights go to safetensors files of up to 5 GB. Raises RopeMismatch if the tables would differ, OSError if the
    disk is full; a checkpoint that was in `folder` is then as it was.

    Args:
        tensors: whole weights by name, all of one dtype, to write instead of the model's own (which may be sharded).
    """
    declare(model.config, rope)
    check_rope(model, rope, where=f"saving to {folder}")
    with replacing_checkpoint(folder) as temporary:
        model.save_pretrained(
            temporary, state_dict=dict(tensors) if tensors is not None else None, max_shard_size=SHARD_SIZE
        )
        if tensors is not None:
            _state_dtype(temporary / "config.json", next(iter(tensors.values())).dtype)
        complete(temporary)
        for file in companions(tokenizer_folder):
            target = temporary / file.relative_to(tokenizer_folder)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(file, target)
    return checkpoint_files(folder)


def _state_dtype(config_file: Path, dtype: torch.dtype) -> None:
    """transformers writes the dtype of the model's own weights, and loads in what is written."""
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def use_fast_attention(
    model: PreTrainedModel,
    *,
    length: int | None = None,
    precision: str | None = None,
    within_documents: bool = False,
) -> str:
    """Choose the fastest exact attention for the model's device; returns its name, for the record.

    Args:
        length: the longest input, where it is known: a sliding window that is no shorter needs no mask.
        precision: a study's, where the weights' dtype does not say what is computed in.
        within_documents: whether rows hold documents that must not attend to each other.
    """
    from yarnlab import attention

    half = None if precision is None else precision != "fp32"
    name = attention.choose(model, length=length, half=half, within_documents=within_documents)
    try:
        model.set_attn_implementation(name)
    except (ImportError, ValueError) as error:
        raise attention.AttentionError(f"{type(model).__name__} can't use attention {name}: {error}") from error
    return str(model.config._attn_implementation)  # which a family without an interface does not change


def autocast(precision: str) -> AbstractContextManager[Any]:
    """bf16 autocast on this process's device, or nothing for fp32."""
    return torch.autocast(compute_device().type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
