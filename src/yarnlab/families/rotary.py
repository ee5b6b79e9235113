"""cos and sin of any `Rope`, laid out as a family's attention reads them.

A method gives one angle for each pair of dimensions. Families differ in where a pair's angle stands in the tables:
Llama's repeat all angles behind each other, Cohere's each angle twice in a row, gpt-oss has each once; in the tables'
dtype (OLMo's stay in fp32); in whether both are one complex table (DeepSeek-V2); and in that some layers have tables
of their own (Gemma 3's sliding ones). All of that is asked of the family's own module, by handing it frequencies and
looking where they come out.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from yarnlab.families.parts import UnsupportedModel
from yarnlab.rope import Rope

FULL = "full_attention"  # the layers that a method extends, where a family has tables for each type of layer
BEYOND = 3  # times the original context: the length at which ropes that depend on it are compared


@dataclass(frozen=True)
class Form:
    """How a family lays its tables out.

    columns: the pair whose angle each column has; None: all pairs, then all again.
    fp32: cos and sin stay in fp32 whatever the dtype of the hidden states.
    as_complex: one table of cos + i·sin instead of two.
    others: layer type → (inv_freq, attention factor) of layers that no method changes.
    """

    columns: tuple[int, ...] | None = None
    fp32: bool = False
    as_complex: bool = False
    others: Mapping[str, tuple[Tensor, float]] = field(default_factory=dict)


class RotaryEmbedding(nn.Module):
    """cos and sin for any `Rope`, in fp32; stateless, so a dynamic rope depends on this input's length alone.

    It holds no parameter and no buffer: casting or sharding a model can't change its frequencies.
    """

    def __init__(self, rope: Rope, form: Form | None = None) -> None:
        super().__init__()
        self.rope = rope
        self.form = form or Form()
        self._static: dict[tuple[str | None, torch.device], Tensor] = {}  # frequencies by layer type and device

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> tuple[Tensor, Tensor] | Tensor:
        """(cos, sin), each (batch, seq_len, columns) in x's dtype, scaled by the attention factor; or cos + i·sin."""
        position_ids = position_ids.to(x.device)
        if layer_type is not None and layer_type in self.form.others:
            inv_freq, factor = self.form.others[layer_type]
            angles = position_ids[..., None].float() * self._on(x.device, layer_type, inv_freq)
        else:
            # Only a dynamic rope asks for the length: reading it makes the host wait for a GPU.
            rope = self.rope.at(int(position_ids.max()) + 1) if self.rope.dynamic else self.rope
            angles, factor = self.angles(rope, position_ids), rope.attention_factor
        columns = self.form.columns
        angles = torch.cat((angles, angles), dim=-1) if columns is None else angles[..., columns]
        if self.form.as_complex:
            return torch.polar(torch.full_like(angles, factor), angles)
        dtype = torch.float32 if self.form.fp32 else x.dtype
        return (angles.cos() * factor).to(dtype), (angles.sin() * factor).to(dtype)

    def angles(self, rope: Rope, position_ids: Tensor) -> Tensor:
        """fp32, (batch, seq_len, pairs): what each pair is turned by."""
        return position_ids[..., None].float() * self._frequencies(rope, position_ids.device)

    def _frequencies(self, rope: Rope, device: torch.device) -> Tensor:
        if rope.dynamic or rope is not self.rope:
            return rope.inv_freq().to(device)
        if (None, device) not in self._static:
            return self._on(device, None, rope.inv_freq())
        return self._static[None, device]

    def _on(self, device: torch.device, layer_type: str | None, inv_freq: Tensor) -> Tensor:
        if (layer_type, device) not in self._static:
            with torch.inference_mode(False):  # or later training could not use it
                self._static[layer_type, device] = inv_freq.to(device)
        return self._static[layer_type, device]


def stock_tables(module: nn.Module) -> tuple[Tensor, float]:
    """(inv_freq, attention factor) of a family's own rotary module, of full attention where it tells layers apart.

    Raises UnsupportedModel if it has none.
    """
    prefix = f"{FULL}_" if _by_layer_type(module) else ""
    try:
        inv_freq, factor = getattr(module, f"{prefix}inv_freq"), getattr(module, f"{prefix}attention_scaling")
        return inv_freq, float(factor)
    except (AttributeError, TypeError) as error:
        types = ", ".join(getattr(module, "layer_types", ())) or "one for all"
        raise UnsupportedModel(
            f"{type(module).__name__} has no table of frequencies for {FULL} layers to extend (layer types: {types})"
        ) from error


def long_table(module: Any) -> Tensor | None:
    """inv_freq of an input of BEYOND·L tokens, where the module's type depends on the length; else None.

    L is what the type itself takes for the original context: of `dynamic`, the config's max_position_embeddings.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    typed = _by_layer_type(module)
    kind = module.rope_type[FULL] if typed else module.rope_type
    if kind != "longrope" and "dynamic" not in kind:
        return None
    block = module.config.rope_parameters[FULL] if typed else module.config.rope_parameters
    context = block.get("original_max_position_embeddings") or module.config.max_position_embeddings
    made: Tensor = ROPE_INIT_FUNCTIONS[kind](module.config, "cpu", seq_len=BEYOND * context, **_layer(typed))[0]
    return made


def _layer(typed: bool) -> dict[str, str]:
    return {"layer_type": FULL} if typed else {}


def form_of(module: Any) -> Form:
    """The form of a family's tables, by what its own rotary module makes of known angles.

    Raises UnsupportedModel if that is not a cosine and a sine of one pair's angle in each column, or if layers that no
    method changes have tables that change with the input's length.
    """
    name = type(module).__name__
    typed = _by_layer_type(module)
    fresh: Any = type(module)(config=module.config)  # this one's buffers may have been cast to 16 bits
    probe = copy.deepcopy(fresh)
    inv_freq = stock_tables(probe)[0]
    types = [layer_type for layer_type in getattr(module, "layer_types", ()) if typed]
    # Types that compute their frequencies anew in the forward pass would not take ours.
    kinds, probe.rope_type = probe.rope_type, dict.fromkeys(types, "default") if typed else "default"
    frequencies = torch.linspace(0.1, 1.0, inv_freq.numel())
    inv_freq.copy_(frequencies)
    layer = (FULL,) if typed else ()
    position = torch.ones(1, 1, dtype=torch.int64)
    try:
        tables = probe(torch.zeros(1, 1, 1), position, *layer)
        as_complex = isinstance(tables, Tensor) and tables.is_complex()
        cos, sin = (tables.real, tables.imag) if as_complex else tables
        angles = torch.atan2(sin, cos).flatten()
        half = probe(torch.zeros(1, 1, 1, dtype=torch.bfloat16), position, *layer)[0]
    except Exception as error:
        raise UnsupportedModel(f"{name} does not give cos and sin of each position: {error}") from error
    columns = (angles[:, None] - frequencies).abs().argmin(1)
    if not torch.allclose(frequencies[columns], angles, atol=1e-5):
        raise UnsupportedModel(
            f"the tables of {name} are not cos and sin of position × `inv_freq` (it may compute its frequencies anew "
            "at each call), so no method's can be put in their place"
        )
    others = {}
    for layer_type in types:
        if layer_type == FULL or layer_type not in kinds:  # layers that do not turn have none
            continue
        if kinds[layer_type] in ("dynamic", "longrope"):
            raise UnsupportedModel(
                f"the rope of {layer_type} layers is {kinds[layer_type]}: it changes with the length"
            )
        own = getattr(fresh, f"{layer_type}_inv_freq").detach().clone()
        others[layer_type] = (own, float(getattr(fresh, f"{layer_type}_attention_scaling")))
    pairs = range(inv_freq.numel())
    found = tuple(columns.tolist())
    laid = None if found == (*pairs, *pairs) else found
    return Form(laid, half.dtype == torch.float32, as_complex, others)


def _by_layer_type(module: nn.Module) -> bool:
    return "layer_type" in inspect.signature(module.forward).parameters and isinstance(
        getattr(module, "rope_type", None), dict
    )
