"""How each family of the installed transformers fares here: a small random model of it, adopted, scored, extended."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarnlab.errors import UserError
from yarnlab.families.config import stock_block
from yarnlab.families.keys import dropout
from yarnlab.families.parity import apart, check_parity, small_model
from yarnlab.families.parts import UnsupportedModel, experts, head_dim, place
from yarnlab.rope import Rope, Temperature, make_rope

SCALE = 4.0  # of the YaRN that a family is extended with
# What a family's config class leaves out or has otherwise than its published checkpoints, so that its default config
# makes no model: of DeepSeek-V2-Lite and GLM-4.5.
PUBLISHED: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 6},
    "glm4_moe": {"head_dim": 128},
}
TOKENS = 100


@dataclass(frozen=True)
class Fare:
    """What became of one family. `reason` is empty where it is supported; else it says what is refused and why."""

    family: str
    adopted: bool = False
    extended: bool = False
    trained: bool = False
    apart: float = float("nan")  # nats, the largest of all that was compared
    reason: str = ""

    @property
    def row(self) -> tuple[str, ...]:
        """Cells of the table: family, adopted and scored, extended, trained, reason."""
        marks = ("yes" if done else "no" for done in (self.adopted, self.extended, self.trained))
        return (self.family, *marks, self.reason)


COLUMNS = ("family", "evaluated", "extended", "trained", "why not")


def families() -> list[str]:
    """The causal families of the installed transformers."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def survey(names: Sequence[str]) -> Iterator[Fare]:
    """Try each family, one after the other."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            yield try_family(name, Path(folder))


def try_family(family: str, root: Path) -> Fare:
    """Publish a small model of the family's default config (or PUBLISHED) in `root`, take it over, extend it with YaRN.

    Any error of the family's own code is a refusal.
    """
    from transformers import CONFIG_MAPPING
    from transformers.utils import logging

    from yarnlab.checkpoints import adopt_published, architecture_of, link_weights

    logging.disable_progress_bar()
    fare = Fare(family)
    try:
        config = CONFIG_MAPPING[family](**PUBLISHED.get(family, {}))
        rope = declared_rope(config)
        published = small_model(config)
        published.save_pretrained(root / "asset")
        shape = architecture_of(published.config, rope.original_context)
        size = published.config.vocab_size
        settings: dict[str, Any] = {"drop_sliding_window": False, "ignored_config": dropout(config)}
        compared = check_parity(published.config, published.config, rope, where=family)
        adopt_published(root / "asset", shape, size, rope, root / "base", **settings)
        trained = not experts(config)
        reason = "" if trained else "trained: the router loss of experts is not part of it"
        fare = Fare(family, True, False, trained, max(compared.values()), reason)
        yarn = shape.head.make_rope("yarn", SCALE * rope.scale)
        link_weights(root / "base", yarn, root / "yarn")
        found = extended(root / "yarn", yarn)
        if not found <= 1e-4:
            raise UnsupportedModel(f"extended, {found:.2g} nats from stock transformers")
        return Fare(family, True, True, trained, max(fare.apart, found), reason)
    except UserError as error:
        why = str(error)
    except Exception as error:  # of a family's code: its config has no defaults that fit each other, it is no decoder
        why = (
            f"transformers makes no model of this family's default config ({place(error)}), so nothing could be "
            "tried; a published config is tried when it is adopted"
        )
    why = " ".join(why.replace(str(root / "asset"), "it").split())
    return Fare(family, fare.adopted, False, fare.trained, fare.apart, why)


def declared_rope(config: Any, *, window_is_stated: bool = True) -> Rope:
    """The rope that a study would declare for a published config.

    Args:
        window_is_stated: not so where the window is but the class's default, since config.json has none.

    Raises UnsupportedModel for a type without a method, for numbers that make no rope, and for a config that does not
    say how long its window is.
    """
    try:
        return _declared_rope(config, window_is_stated)
    except ValueError as error:
        raise UnsupportedModel(f"family {config.model_type}: the rope in its config.json can't be: {error}") from None


def _declared_rope(config: Any, window_is_stated: bool) -> Rope:
    block, family = stock_block(config), config.model_type
    kind, longest = block.get("rope_type", "default"), getattr(config, "max_position_embeddings", None)
    if not isinstance(longest, int) or not window_is_stated:
        raise UnsupportedModel(
            f"family {family}: config.json has no `max_position_embeddings`, so nothing says how long the model's "
            "window is: add it"
        )
    original = block.get("original_max_position_embeddings")
    if kind == "linear" and original is None:
        raise UnsupportedModel(
            f"family {family}: its rope is scaled by {block.get('factor')}, and whether its `max_position_embeddings` "
            f"of {longest:,} is the window before or after that, config.json does not say: add "
            "`original_max_position_embeddings`, the window before, beside the factor"
        )
    dimensions = head_dim(config)
    shared: dict[str, Any] = {
        "original_context": int(original or longest),
        "head_dim": int(dimensions * (block.get("partial_rotary_factor") or 1.0)),
        "base": float(block["rope_theta"]),
        "scale": float(block.get("factor") or 1.0),
    }
    if kind == "yarn":
        factor = _stock_factor(config)
        bounds = {"alpha": block.get("beta_slow") or 1.0, "beta": block.get("beta_fast") or 32.0}
        options = {**bounds, "truncate": block.get("truncate", True), "temperature": {"factor": factor}}
        return make_rope("yarn", **shared, **options)
    if kind == "llama3":
        factors = {key: block[key] for key in ("low_freq_factor", "high_freq_factor")}
        return make_rope("llama3", **shared, **factors, max_position_embeddings=longest)
    if kind == "longrope":
        if block.get("factor") is None:  # as Phi-3's, where the two lengths say it
            shared["scale"] = longest / shared["original_context"]
        tables = {key: block[key] for key in ("short_factor", "long_factor")}
        rope, factor = make_rope("longrope", **shared, **tables), _stock_factor(config)
        usual = math.isclose(factor, rope.attention_factor, rel_tol=1e-9)
        return rope if usual else make_rope("longrope", **shared, **tables, temperature=Temperature(factor=factor))
    if kind in ("default", "linear"):
        return make_rope("none" if kind == "default" else "pi", **shared)
    why = f"family {family}: its rope is of type {kind}, which no method can extend further"
    if kind == "dynamic":
        why += (
            ". It is put in for longer inputs alone, without training: take it out of config.json and extend the model "
            "as it was before"
        )
    raise UnsupportedModel(why)


def _stock_factor(config: Any) -> float:
    """What stock transformers multiplies this config's cos and sin by."""
    from yarnlab.families.config import stock_rotary
    from yarnlab.families.rotary import stock_tables

    return stock_tables(stock_rotary(config))[1]


def extended(folder: Path, rope: Rope) -> float:
    """How far logits here are from those of stock transformers' own loading of an extended checkpoint, in nats."""
    import torch
    from transformers import AutoModelForCausalLM

    from yarnlab.attention import choose
    from yarnlab.evaluation.last_tokens import last_logits
    from yarnlab.modeling import load_model

    stock: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(1, stock.config.vocab_size, (1, TOKENS), generator=generator)
    with torch.no_grad():
        expected = stock.eval()(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
    model = load_model(folder, rope).cpu()
    model.set_attn_implementation(choose(model, environment={}))
    return apart(last_logits(model, ids, TOKENS).log_softmax(-1), expected)


def as_markdown(fares: Sequence[Fare]) -> str:
    """The table, one row a family."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(fare.row for fare in fares)]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)
