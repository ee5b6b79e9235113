"""An export as GGUF: written with the `gguf` package as llama.cpp's converter does, read with it, by transformers and
by llama.cpp itself.

Weights come back through transformers' own GGUF loader. It passes over the scaling of a rope, so tables are computed
from the file's metadata by the formula of ggml's rope (ops.cpp:rope_yarn; llama-context.cpp for the attention factor).
llama.cpp computes everything by itself.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from readers import ONLY_WHEELS, ids_of, installed
from safetensors.torch import load_file
from tiny import VOCABULARY, publish, rope, shape, stock_config

from yarnlab.checkpoints import adopt_published, link_weights
from yarnlab.families.parts import decoder
from yarnlab.model_card import served
from yarnlab.modeling import load_model
from yarnlab.rope import Rope

pytestmark = pytest.mark.slow

LENGTH, TOLERANCE = 192, 1e-4
METHODS = {
    "none": ("none", 1, {}),
    "pi": ("pi", 4, {}),
    "ntk-aware": ("ntk-aware", 4, {}),
    "ntk-by-parts": ("ntk-by-parts", 4, {}),
    "yarn": ("yarn", 4, {}),
    "yarn of another temperature": ("yarn", 4, {"temperature": {"slope": 0.07}}),
    "llama3": ("llama3", 4, {}),
}


@pytest.fixture(scope="session")
def gguf(request):
    """The package, installed into a folder of the test's where the environment does not have it."""
    try:
        import gguf
    except ImportError:
        sys.path.append(str(installed(request, "gguf", "gguf==0.19.0")))
        import gguf
    return gguf


def convert(gguf, folder: Path, file: Path) -> None:
    """What conversion/base.py and conversion/llama.py write of a Llama's folder: metadata of the rope, and weights."""
    config = json.loads((folder / "config.json").read_text())
    block, width = config["rope_parameters"], config["head_dim"]
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(shared)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_rope_freq_base(block["rope_theta"])
    if block["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(block["factor"])
    elif block["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(block["factor"])
        writer.add_rope_scaling_orig_ctx_len(block["original_max_position_embeddings"])
        writer.add_rope_scaling_yarn_beta_fast(block["beta_fast"])
        writer.add_rope_scaling_yarn_beta_slow(block["beta_slow"])
        writer.add_rope_scaling_yarn_attn_factor(block["attention_factor"])  # which llama.cpp computes anew
    elif block["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config).numpy())
    # Of --override-kv, as the card says it.
    writer.add_rope_scaling_attn_factors(overridden(config))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"t{i}" for i in range(3, VOCABULARY))])
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([2, 3, 3, *[1] * (VOCABULARY - 3)])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            n = heads if "q_proj" in name else shared
            tensor = tensor.view(n, 2, width // 2, -1).transpose(1, 2).reshape(tensor.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama3_factors(config: dict) -> torch.Tensor:
    """As conversion/llama.py computes them, L being the config's own key (8192 where it is absent)."""
    block, width = config["rope_parameters"], config["head_dim"]
    length = config.get("original_max_position_embeddings", 8192)
    frequencies = 1.0 / block["rope_theta"] ** (torch.arange(0, width, 2).float() / width)
    low, high, factor = block["low_freq_factor"], block["high_freq_factor"], block["factor"]
    smooth = ((length * frequencies / (2 * math.pi) - low) / (high - low)).clamp(0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


class FromMetadata(torch.nn.Module):
    """cos and sin as ggml computes them from a file's metadata."""

    def __init__(self, reader) -> None:
        super().__init__()
        get = {key.removeprefix("llama."): field.contents() for key, field in reader.fields.items()}
        width, base = get["rope.dimension_count"], get["rope.freq_base"]
        pairs = torch.arange(0, width, 2).float()
        factors = [torch.tensor(t.data.copy()) for t in reader.tensors if t.name == "rope_freqs.weight"]
        extrapolated = base ** (-pairs / width) / (factors[0] if factors else 1.0)
        kind, scale = get.get("rope.scaling.type", "none"), get.get("rope.scaling.factor", 1.0)
        self.inv_freq, self.factor = extrapolated / scale, get["rope.scaling.attn_factor"]
        if kind == "yarn":
            length = get["rope.scaling.original_context_length"]

            def border(rotations: float) -> float:
                return width * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(base))

            start = max(0, math.floor(border(get["rope.scaling.yarn_beta_fast"])))
            end = min(width - 1, math.ceil(border(get["rope.scaling.yarn_beta_slow"])))
            kept = 1 - ((pairs / 2 - start) / max(0.001, end - start)).clamp(0, 1)
            self.inv_freq = extrapolated / scale * (1 - kept) + extrapolated * kept
            self.factor *= 0.1 * math.log(scale) + 1.0

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].float() * self.inv_freq
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos() * self.factor, angles.sin() * self.factor


def overridden(config: dict) -> float:
    """What the model card tells to give llama.cpp beside the file."""
    text = served(config, LENGTH)[2]
    assert "not" not in text
    return float(text.partition("attn_factor=float:")[2].partition("`")[0] or 1.0)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> dict[str, tuple[Path, Rope]]:
    root = tmp_path_factory.mktemp("gguf")
    block = {"rope_type": "default", "rope_theta": 500_000.0}
    config = stock_config("llama", {"num_key_value_heads": 2, "hidden_size": 64, "rope_parameters": block})
    asset, declared = publish(root / "asset", config), shape(config)
    adopt_published(asset, declared, VOCABULARY, rope(declared, "none"), root / "base", drop_sliding_window=False)
    found = {}
    for name, (method, scale, options) in METHODS.items():
        found[name] = root / name, rope(declared, method, scale, **options)
        link_weights(root / "base", found[name][1], root / name)
    return found


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_tables_and_logits_come_back(made, gguf, name, tmp_path):
    from transformers import AutoModelForCausalLM

    folder, own = made[name]
    convert(gguf, folder, tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    tables = FromMetadata(reader)
    ours = load_model(folder, own)
    ours.set_attn_implementation("eager")
    positions = torch.arange(LENGTH)[None]
    expected = torch.stack(decoder(ours).rotary_emb(torch.zeros(1, 1, 1), positions))
    torch.testing.assert_close(torch.stack(tables(torch.zeros(1), positions)), expected, rtol=0, atol=1e-5)
    read = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    read.model.rotary_emb = tables
    logits = read(ids_of(LENGTH), use_cache=False).logits
    torch.testing.assert_close(logits, ours(ids_of(LENGTH), use_cache=False).logits, rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_llama_cpp_computes_the_same(made, gguf, request, tmp_path):
    """Log-probabilities of the next token within the original context and up to four times as long."""
    binding = installed(request, "llama-cpp", "xllamacpp==2026.10.11549", ONLY_WHEELS)
    ids, lengths = ids_of(LENGTH)[0], [32, 64, 100, LENGTH]
    extended = [name for name in METHODS if name != "none"]  # whose server takes no longer prompt
    for name in extended:
        convert(gguf, made[name][0], tmp_path / f"{name}.gguf")
    files = [str(tmp_path / f"{name}.gguf") for name in extended]
    program, out = Path(__file__).with_name("llama_cpp.py"), tmp_path / "out.json"
    command = [sys.executable, str(program), str(out), json.dumps(ids.tolist()), json.dumps(lengths), *files]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(binding)}, capture_output=True)
    found = json.loads(out.read_text())
    for name, file in zip(extended, files, strict=True):
        folder, own = made[name]
        model = load_model(folder, own)
        model.set_attn_implementation("eager")
        expected = model(ids[None], use_cache=False).logits[0].log_softmax(-1)
        for length in lengths:
            theirs = torch.tensor(found[file][str(length)])
            torch.testing.assert_close(theirs, expected[length - 1], rtol=0, atol=TOLERANCE, msg=f"{name}, {length}")
