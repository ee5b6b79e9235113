"""README.md of a model's folder: what the model is, how it was made, what was measured, and how to serve it.

Written when a model is made, and again with its results when the study is analysed. It is no output of a stage: what it
says beside the manifest is no part of the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yarnlab.provenance import read_json, replacing
from yarnlab.weights import CARD, MANIFEST

FULL = "full_attention"
NO_RESULTS = "None at hand yet: they are written here when the study is analysed."


def write_card(study_dir: Path, name: str, measured: Sequence[str] = ()) -> Path | None:
    """Write the card of a finished model of the study; None, and nothing written, for a model that is not there.

    Args:
        study_dir: results/<study>.
        measured: lines of Markdown with what was measured.
    """
    folder = study_dir / "models" / name
    config = read_json(folder / "config.json")
    line = _line(study_dir, name) if config else []
    if not line:
        return None
    with replacing(folder / CARD) as temporary:
        temporary.write_text(card(line, config, measured), encoding="utf-8")
    return folder / CARD


def card(line: Sequence[Mapping[str, Any]], config: Mapping[str, Any], measured: Sequence[str] = ()) -> str:
    """The card's text.

    Args:
        line: manifests of the model's ancestors from the root to the model itself; a published root's has `origin`.
        config: its config.json.
    """
    own, block = line[-1], _block(config)
    spec, rope = own["spec"], own["spec"]["rope"]
    shape = spec["architecture"]
    context = shape["original_context"]
    extended = round(context * rope["scale"])
    head = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["long-context", rope["method"]]}
    if repo := (line[0].get("origin") or {}).get("repo"):
        head["base_model"] = repo
    parts = [
        "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in head.items()) + "---\n",
        f"# {own['name']}\n",
        f"A {shape['family']} of {shape['num_hidden_layers']} layers with the RoPE method `{rope['method']}` at scale "
        f"{rope['scale']:g}: {extended:,} tokens of context from {context:,}. Made by the "
        f"study `{own['study']}` of yarnlab{_commit(own)}; `{MANIFEST}` beside this file has every setting and hash.\n",
        "## Method\n",
        *(f"* `{key}`: {_short(value)}" for key, value in rope.items()),
        f"* original context: {context:,} tokens; extended: {extended:,}",
        f"* written for readers as rope type `{block.get('rope_type', 'default')}`, base "
        f"{float(block.get('rope_theta') or 0):,.6g}, factor on cos and sin {block.get('attention_factor') or 1.0:.6g}",
        "\n## Data and training\n",
        *(text for manifest in line for text in _made(manifest)),
        "\n## Results\n",
        *(measured or [NO_RESULTS]),
        "\n## To serve it\n",
        *(f"{text}\n" for text in served(config, extended)),
    ]
    return "\n".join(parts).rstrip() + "\n"


def served(config: Mapping[str, Any], context: int) -> list[str]:
    """A paragraph for each reader: the command, or why not.

    vLLM and llama.cpp are described as their sources read `rope_parameters` (families/config_file.py); whether they
    know the family is not looked at.
    """
    return [_transformers(config), _vllm(config, context), _llama_cpp(config, context)]


def _transformers(config: Mapping[str, Any]) -> str:
    kind = _block(config).get("rope_type", "default")
    if _is_own(kind):
        return (
            f"**transformers**: has no rope type `{kind}` and refuses this folder: plain RoPE in its place would be "
            "wrong beyond the original context. In a process that has called "
            "`yarnlab.families.config.name_dynamic_types()` it loads; a cache of rotated keys is of one length's rope."
        )
    code = 'AutoModelForCausalLM.from_pretrained("FOLDER"), AutoTokenizer.from_pretrained("FOLDER")'
    note = "Versions 5 and, where it has the family, 4.57: `config.json` has the rope in both forms."
    if not config.get("rope_scaling") and kind != "default":
        note = "Version 5: `config.json` can't hold this rope in the form of version 4 for this family."
    elif config.get("model_type") == "phi3" and len(config["rope_scaling"] or ()) > 3:
        note = "Version 5; version 4 refuses a Phi-3 whose attention factor is not √(1 + ln s / ln L)."
    elif config.get("model_type") == "olmo2" and kind not in ("default", "linear", "dynamic"):
        note = f"Version 5; version 4 refuses an OLMo 2 with `{kind}`."
    if kind == "dynamic":
        note += " Beyond the original context tables follow the longest input seen, not each one."
    return f"**transformers**: `{code}`. {note}"


def _vllm(config: Mapping[str, Any], context: int) -> str:
    kind = _block(config).get("rope_type", "default")
    if _is_own(kind):
        return f"**vLLM**: has no rope type `{kind}`, and says so."
    if kind == "dynamic":
        return "**vLLM**: not beyond the original context: its dynamic NTK with factor 1 is plain RoPE."
    note = {
        "yarn": "Versions that do not read `attention_factor` take `attn_factor`, where it is not the usual one.",
        "longrope": "It takes `short_mscale` and `long_mscale`, which say what `attention_factor` does.",
    }.get(kind, "")
    return f"**vLLM**: `vllm serve FOLDER --max-model-len {context}`. {note}".rstrip()


def _llama_cpp(config: Mapping[str, Any], context: int) -> str:
    block = _block(config)
    kind = block.get("rope_type", "default")
    if _is_own(kind) or kind == "dynamic":
        return "**llama.cpp**: not beyond the original context: it has no rope that follows the length of the input."
    if kind == "longrope" and config.get("model_type") != "phi3":
        return "**llama.cpp**: not supported: its converter writes the factors of `longrope` for Phi-3 alone."
    if kind == "yarn" and not block.get("truncate", True):
        return "**llama.cpp**: not supported: it rounds the ramp's borders, which this model's are not (`truncate`)."
    more = ""
    if kind == "yarn":  # llama-context.cpp: (0.1 ln s + 1)·rope.scaling.attn_factor, whatever the converter wrote
        relative = (block.get("attention_factor") or 1.0) / (0.1 * math.log(block["factor"]) + 1.0)
        if not math.isclose(relative, 1.0, rel_tol=1e-6):
            more = f" --override-kv ARCHITECTURE.rope.scaling.attn_factor=float:{relative:.6f}"
    return (
        "**llama.cpp**: `python convert_hf_to_gguf.py FOLDER --outfile model.gguf`, then "
        f"`llama-server -m model.gguf -c {context}{more}`."
        + (" (ARCHITECTURE: `general.architecture` of the file.)" if more else "")
    )


def _is_own(kind: str) -> bool:
    return "dynamic" in kind and kind != "dynamic"


def _block(config: Mapping[str, Any]) -> Mapping[str, Any]:
    blocks: Mapping[str, Any] = config.get("rope_parameters") or {}
    return blocks.get(FULL) or blocks


def _line(study_dir: Path, name: str | None) -> list[dict[str, Any]]:
    """The manifests of a model's ancestors, the root first, and its own."""
    found: list[dict[str, Any]] = []
    while name is not None:
        manifest = read_json(study_dir / "models" / name / MANIFEST)
        if not manifest:
            return []
        if asset := manifest["spec"].get("asset"):
            manifest["origin"] = read_json(study_dir / "assets" / asset / "asset.json")
        found.insert(0, manifest)
        name = manifest["spec"]["parent"]
    return found


def _made(manifest: Mapping[str, Any]) -> list[str]:
    spec, rope = manifest["spec"], manifest["spec"]["rope"]
    text = [f"* `{manifest['name']}`: {_start(manifest)}, RoPE `{rope['method']}` at scale {rope['scale']:g}"]
    for phase in spec["phases"]:
        tokens = phase["steps"] * phase["global_batch"] * phase["seq_len"]
        text.append(
            f"  * trained on {tokens:,} tokens of `{phase['corpus']}`: {phase['steps']:,} steps of "
            f"{phase['global_batch']} × {phase['seq_len']:,} tokens, learning rate {phase['lr']:g}, seed {spec['seed']}"
        )
    for dataset in manifest.get("datasets", ()):
        text.append(f"  * `{dataset['name']}`: {dataset.get('source', '')} (digest {dataset['digest'][:12]})")
    return text


def _start(manifest: Mapping[str, Any]) -> str:
    spec, origin = manifest["spec"], manifest.get("origin") or {}
    if spec["parent"] is not None:
        return f"from `{spec['parent']}`"
    if place := origin.get("repo") or origin.get("path") or origin.get("wheel"):
        at = f" at {origin['commit'][:12]}" if "commit" in origin else ""
        quantised = (manifest.get("facts") or {}).get("dequantised_from")
        return f"the weights of {place}{at}" + (f", dequantised from {quantised}" if quantised else "")
    return "given weights" if spec.get("asset") else "initialised at random"


def _commit(manifest: Mapping[str, Any]) -> str:
    commit = (manifest.get("git") or {}).get("commit")
    return f" at commit {commit[:12]}" if commit else ""


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:110]}… ({len(value)} values)"
