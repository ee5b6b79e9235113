"""What the config.json files of the authors' twelve releases hold beside the model's shape.

Read on the hub in main's state, but for four: of the 8k NTK release only the file's size is known, 643 bytes, in which a
base of 20,000 (train.sh:51) fits and no `rope_scaling`; the other 8k one and the linear 32k one are given what the
official finetune.py saves; and of the 32k NTK release what released.yaml takes, Eq. 16's base. How NTK-by-parts was
saved is not known at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Keys = Callable[[int], dict[str, Any]]
TOGETHER = {
    "AutoConfig": "configuration_llama.LlamaConfig",
    "AutoModelForCausalLM": "modeling_llama_together_yarn.LlamaForCausalLM",
}
LLAMA = TOGETHER | {"AutoModelForCausalLM": "modeling_llama_yarn.LlamaForCausalLM"}
MISTRAL = {
    "AutoConfig": "configuration_mistral.MistralConfig",
    "AutoModelForCausalLM": "modeling_mistral_yarn.MistralForCausalLM",
}
PRIVATE = "/fsx/proj-trlx/conceptofmind/scaled-rope-private/save_model/final"


def _llama_2(scale: int, run: str) -> Keys:
    return lambda length: {
        "_name_or_path": f"{PRIVATE}/{run}",
        "auto_map": TOGETHER,
        "max_position_embeddings": scale * length,
        "pad_token_id": 0,
        "pretraining_tp": 1,
        "rope_scaling": {
            "factor": float(scale), "original_max_position_embeddings": length, "type": "yarn", "finetuned": True,
        },
        "rope_theta": None,  # not among the file's keys
        "use_cache": True,
    }  # fmt: skip


def _mistral(scale: int, **more: int) -> Keys:
    """Trained on 16k, with 32k as the longest position, and the sliding window as long as the new context."""
    return lambda length: {
        "_name_or_path": f"NousResearch/Yarn-Mistral-7b-{scale * 8}k",
        "auto_map": MISTRAL,
        "max_position_embeddings": 4 * length,
        "rope_scaling": {
            "factor": float(scale), "finetuned": True, "original_max_position_embeddings": length, "type": "yarn",
        },
        "sliding_window": scale * length,
        **{key: factor * length for key, factor in more.items()},
    }  # fmt: skip


def _finetune(kind: str, scale: float, **more: Any) -> Keys:
    """finetune.py writes the original context into every block, whatever its type."""
    return lambda length: {
        "max_position_embeddings": int(scale * length),
        "rope_scaling": {"factor": scale, "original_max_position_embeddings": length, "type": kind},
        **more,
    }


RELEASED: dict[str, Keys] = {
    "NousResearch/Yarn-Llama-2-7b-64k": _llama_2(16, "yarn-llama-2-7b-3e-5-64k-400steps"),
    "NousResearch/Yarn-Llama-2-7b-128k": _llama_2(32, "yarn-llama-2-7b-3e-5-64k-600steps-32"),
    "NousResearch/Yarn-Llama-2-13b-64k": _llama_2(16, "yarn-llama-2-13b-3e-5-64k-400steps"),
    "NousResearch/Yarn-Llama-2-13b-128k": _llama_2(32, "yarn-llama-2-13b-3e-5-64k-600steps-32"),
    "NousResearch/Yarn-Mistral-7b-64k": _mistral(8),
    "NousResearch/Yarn-Mistral-7b-128k": _mistral(16, max_sequence_length=16),
    "emozilla/Yarn-Llama-7b-32k": _finetune(
        "yarn",
        16.0,
        auto_map=LLAMA,
        attention_bias=False,
        rms_norm_eps=1e-6,
        _name_or_path="yarn-llama-1-7b-32k-scale-16",
    ),
    "emozilla/Yarn-Llama-2-7b-8k": _finetune("yarn", 2.0),
    "emozilla/Linear-Llama-7b-32k": _finetune("linear", 16.0),
    "emozilla/NTK-Llama-2-7b-8k": lambda length: {"rope_scaling": None, "rope_theta": 20000.0},
    "emozilla/NTK-Llama-7b-32k": _finetune("ntk", 16.0),
}
