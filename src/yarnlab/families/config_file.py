"""A model's config.json in the words of every reader: transformers 5 and 4, vLLM, llama.cpp's converter.

transformers 5 writes a rope as `rope_parameters` alone. Readers of the older keys (`rope_theta`, `rope_scaling`) would
find neither and compute plain RoPE of base 10,000 without a word, so the same rope is written in both forms. Where a
reader has its own name for a thing, that stands there too:

* vLLM's longrope multiplies cos and sin by `short_mscale` and `long_mscale`, else by √(1 + ln s / ln L)
  (phi3_long_rope_scaled_rope.py); its yarn, before it read `attention_factor`, by (0.1 ln s + 1)·`attn_factor`
  (yarn_scaling_rope.py);
* transformers 4 takes L of longrope from the config itself (4.57, modeling_rope_utils.py:_compute_longrope_parameters),
  and llama.cpp's converter that of llama3 (conversion/llama.py:generate_extra_tensors).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yarnlab.families.rotary import FULL

SLIDING = "sliding_attention"
# Family → its own names in transformers 4, of which version 5 reads the others and writes those here on the left.
OLDER_NAMES = {
    "gpt_neox": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
    "qwen3_moe": {"num_local_experts": "num_experts"},
}
# Families whose class in transformers 4 computes plain RoPE whatever `rope_scaling` says (modeling_nemotron.py:102).
UNSCALED = ("nemotron",)
WORDS = ("attn_factor", "long_mscale", "short_mscale")  # vLLM's, in both forms


def complete(folder: Path) -> None:
    """Add the older form, and other readers' words, to the config.json that transformers has written in `folder`.

    Where the family's class of the installed transformers does not read one rope from both forms, `rope_scaling` is
    left out: such a family tells layers apart in a way that transformers 4 had no form for.
    """
    from transformers import AutoConfig

    file = folder / "config.json"
    written: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    completed = in_every_form(written)
    _write(file, completed)
    if completed.get("rope_scaling") and not _is_read_from(AutoConfig.from_pretrained(folder), completed):
        _write(file, {key: value for key, value in completed.items() if key != "rope_scaling"})


def in_every_form(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with `rope_parameters` → the same with the older keys; one without is left as it is.

    A rope that transformers 4 has no type for stands in `rope_scaling` under its own name, which it refuses, and a base
    that can't be read keeps it from computing plain RoPE where a family's class there knows no other: that would be a
    wrong number without a word.
    """
    found, blocks = dict(config), config.get("rope_parameters") or {}
    block: dict[str, Any] = dict(blocks.get(FULL) or blocks)
    if not block.get("rope_type"):
        return found
    block |= _words(block)
    found["rope_parameters"] = {**blocks, FULL: block} if FULL in blocks else block
    for key in ("rope_theta", "partial_rotary_factor"):
        if block.get(key) is not None:
            found[key] = block[key]
    names = OLDER_NAMES.get(str(config.get("model_type")), {})
    found |= {older: found[key] for key, older in names.items() if key in found}
    if str(config.get("model_type")).startswith("gemma3") and blocks.get(SLIDING):
        found["rope_local_base_freq"] = blocks[SLIDING]["rope_theta"]
    if block["rope_type"] in ("llama3", "longrope"):
        found["original_max_position_embeddings"] = block["original_max_position_embeddings"]
    found["rope_scaling"] = _scaling(found, block)
    if found["rope_scaling"] and config.get("model_type") in UNSCALED:
        found["rope_theta"] = None  # which that class can't compute with
        del found["rope_scaling"]
    parts = {"hidden_size", "num_attention_heads"} <= found.keys() and "qk_rope_head_dim" not in found
    if parts and found.get("head_dim") is None:
        found["head_dim"] = found["hidden_size"] // found["num_attention_heads"]
    if dtype := found.get("dtype"):
        found["torch_dtype"] = dtype
    return found


def _words(block: Mapping[str, Any]) -> dict[str, float]:
    factor = block.get("attention_factor")
    if factor is None:
        return {}
    if block["rope_type"] == "longrope":
        return {"short_mscale": factor, "long_mscale": factor}
    if block["rope_type"] == "yarn" and block.get("mscale_all_dim") is None:
        usual = 0.1 * math.log(block["factor"]) + 1.0
        if not math.isclose(factor, usual, rel_tol=1e-9):
            return {"attn_factor": factor / usual}
    return {}


def _scaling(config: Mapping[str, Any], block: Mapping[str, Any]) -> dict[str, Any] | None:
    """`rope_scaling`: None for plain RoPE, which some families would scale where the key is absent (gpt-oss)."""
    kind = block["rope_type"]
    if kind == "default":
        return None
    if config.get("model_type") == "phi3" and _is_usual_longrope(config, block):  # its class takes these three alone
        return {"type": kind, "short_factor": block["short_factor"], "long_factor": block["long_factor"]}
    return {"type": kind, **{key: value for key, value in block.items() if key != "rope_theta"}}


def _is_usual_longrope(config: Mapping[str, Any], block: Mapping[str, Any]) -> bool:
    """Whether the attention factor is the one that follows from the two lengths: Phi-3's knows no other there."""
    if block["rope_type"] != "longrope":
        return False
    length = block["original_max_position_embeddings"]
    scale = max(config["max_position_embeddings"] / length, 1.0)
    usual = math.sqrt(1 + math.log(scale) / math.log(length))
    return math.isclose(block.get("attention_factor") or usual, usual, rel_tol=1e-9)


def _is_read_from(config: Any, written: Mapping[str, Any]) -> bool:
    """Whether a class has read from both forms what `rope_parameters` alone says."""
    wanted, found = written["rope_parameters"], config.rope_parameters or {}
    blocks = [(wanted, found)] if FULL not in wanted else [(wanted[key] or {}, found.get(key) or {}) for key in wanted]
    implied = {"factor", "attention_factor"} - written["rope_scaling"].keys()  # of Phi-3: they follow from the lengths
    return all(
        found.get(key) == value
        for wanted, found in blocks
        for key, value in wanted.items()
        if key not in implied.union(WORDS)
    )


def _write(file: Path, config: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
