"""Exports as real readers load them: transformers 4.57 in an environment of its own, and the installed version.

Each reader is a process of its own that sees nothing of this project. What it computes from the folder alone must be
what is computed here, or it must refuse: never other tables without a word.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from readers import ids_of, installed, tables_of
from tiny import CONTEXT, SUPPORTED, VOCABULARY, publish, rope, shape, stock_config

from yarnlab.checkpoints import adopt_published, link_weights
from yarnlab.families.config import is_own_type
from yarnlab.families.parts import decoder
from yarnlab.families.survey import declared_rope
from yarnlab.modeling import load_model

pytestmark = pytest.mark.slow

LENGTH, TOLERANCE = 3 * CONTEXT, 1e-4
PAIRS = 8  # of a head of the Llama whose ropes are read
FACTORS = [1.0 + 0.5 * pair for pair in range(PAIRS)]
METHODS = {
    "none": ("none", 1, {}),
    "pi": ("pi", 4, {}),
    "ntk-aware": ("ntk-aware", 4, {}),
    "ntk-by-parts": ("ntk-by-parts", 4, {}),
    "ntk-by-parts rotations": ("ntk-by-parts", 4, {"ramp": "rotations"}),
    "yarn": ("yarn", 4, {}),
    "yarn not truncated": ("yarn", 4, {"truncate": False, "temperature": {"slope": 0.07}}),
    "yarn rotations": ("yarn", 4, {"ramp": "rotations"}),
    "temperature": ("temperature", 4, {}),
    "llama3": ("llama3", 4, {}),
    "longrope": ("longrope", 4, {"short_factor": FACTORS, "long_factor": [2 * factor for factor in FACTORS]}),
    "dynamic-ntk": ("dynamic-ntk", 4, {}),
    "dynamic-pi": ("dynamic-pi", 4, {}),
    "dynamic-yarn": ("dynamic-yarn", 4, {}),
}
# Families that transformers 4.57 has no class for, or whose class there takes no YaRN, with a word of what it says.
ABSENT = {
    "ministral3": "ministral3",
    "nanochat": "nanochat",
    "nemotron": "NoneType",  # its class scales nothing, so that the base is withheld
    "olmo2": "two fields",
    "phi3": "three fields",
    "phi3 partial": "three fields",
}
USUAL = "phi3 with longrope"
INSTALLED = ("transformers==4.57.6", "huggingface_hub>=0.34,<1.0", "tokenizers>=0.22,<0.23.1")


@pytest.fixture(scope="session")
def transformers4(request) -> Path:
    """A folder with transformers 4.57 and the two packages that it needs in versions of their own; torch is ours."""
    return installed(request, "transformers-4.57", *INSTALLED)


def read_by(version: str, transformers: Path | None, folders: list[Path], out: Path) -> dict[str, dict]:
    """What a fresh process with this transformers makes of the folders."""
    program = Path(__file__).with_name("readers.py")
    environment = {**os.environ, "PYTHONPATH": str(transformers or "")}
    command = [sys.executable, str(program), str(out), str(LENGTH), *map(str, folders)]
    subprocess.run(command, check=True, env=environment)
    found = torch.load(out, weights_only=True)
    assert found["version"].startswith(version)
    return {Path(folder).name: each for folder, each in found["read"].items()}


@pytest.fixture(scope="session")
def methods(tmp_path_factory):
    """name → (folder, rope): one Llama, with grouped queries and a base of 500,000, under each method."""
    root = tmp_path_factory.mktemp("methods")
    block = {"rope_type": "default", "rope_theta": 500_000.0}
    config = stock_config("llama", {"num_key_value_heads": 2, "hidden_size": 64, "rope_parameters": block})
    asset, declared = publish(root / "asset", config), shape(config)
    adopt_published(asset, declared, VOCABULARY, rope(declared, "none"), root / "base", drop_sliding_window=False)
    made = {}
    for name, (method, scale, options) in METHODS.items():
        made[name] = root / name, rope(declared, method, scale, **options)
        link_weights(root / "base", made[name][1], root / name)
    return made


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """name → (folder, rope): each supported family with YaRN at s = 4."""
    root = tmp_path_factory.mktemp("families")
    made = {}
    for name in SUPPORTED:
        config = stock_config(name)
        asset, declared = publish(root / "assets" / name, config), shape(config)
        own = declared_rope(config)
        adopt_published(asset, declared, VOCABULARY, own, root / "bases" / name, drop_sliding_window=False)
        temperature = {"factor": 1.0} if "qk_rope_head_dim" in SUPPORTED[name] else {"slope": 0.1}
        made[name] = root / name, rope(declared, "yarn", 4, temperature=temperature)
        link_weights(root / "bases" / name, made[name][1], root / name)
    # Its class in version 4 knows the attention factor that follows from the two lengths, and no other.
    declared = shape(stock_config("phi3"))
    factors = {"short_factor": FACTORS[:4], "long_factor": [2 * factor for factor in FACTORS[:4]]}
    made[USUAL] = root / USUAL, rope(declared, "longrope", 4, **factors)
    link_weights(root / "bases" / "phi3", made[USUAL][1], root / USUAL)
    return made


@pytest.fixture(scope="session")
def read(methods, families, transformers4, tmp_path_factory):
    """Version → what it made of all folders: one process each."""
    out = tmp_path_factory.mktemp("read")
    folders = [folder for folder, _ in (*methods.values(), *families.values())]
    versions = {"4.57": transformers4, "5": None}
    return {version: read_by(version, path, folders, out / version) for version, path in versions.items()}


@torch.no_grad()
def ours(folder: Path, own) -> tuple[torch.Tensor, torch.Tensor]:
    model = load_model(folder, own)
    model.set_attn_implementation("eager")
    logits = model(ids_of(LENGTH), use_cache=False).logits[0]
    tables = None
    if not decoder(model).rotary_emb.form.others:
        tables = tables_of(decoder(model).rotary_emb, LENGTH)
    return logits, tables


@pytest.mark.parametrize("version", ["4.57", "5"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_read_as_it_was_written(read, methods, name, version):
    folder, own = methods[name]
    found = read[version][name]
    if is_own_type(own):
        assert own.method in found["error"]  # by its name, and nothing computed
        return
    logits, tables = ours(folder, own)
    torch.testing.assert_close(found["tables"], tables, rtol=0, atol=1e-5)
    torch.testing.assert_close(found["logits"], logits, rtol=0, atol=TOLERANCE)


def test_the_readers_tell_methods_apart(read):
    """Or the test above could not fail: no two of these ropes give the same logits."""
    for version in read.values():
        logits = [version[name]["logits"] for name in METHODS if "logits" in version[name]]
        assert len(logits) == 12
        apart = [(a - b).abs().max() for i, a in enumerate(logits) for b in logits[:i]]
        assert min(apart) > 100 * TOLERANCE


@pytest.mark.parametrize("version", ["4.57", "5"])
@pytest.mark.parametrize("name", [*SUPPORTED, USUAL])
def test_every_family_is_read_as_it_was_written_or_refused(read, families, name, version):
    found = read[version][name]
    if version != "5" and name in ABSENT:
        assert ABSENT[name] in found["error"]
        return
    assert "error" not in found, found["error"]
    logits, _ = ours(*families[name])
    torch.testing.assert_close(found["logits"], logits, rtol=0, atol=TOLERANCE)
