"""Weights that exist as .bin only: plain tensors are converted once and recorded, anything else is refused."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from yarnlab.hub.convert import convert
from yarnlab.hub.errors import HubError

from .conftest import NAME

SHARDS = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
MADE = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def pickled(tensors: object, **options) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file, **options)
    return file.getvalue()


def weights() -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    embedding, stacked = torch.randn(6, 4), torch.randn(3, 5, 5)
    return [
        {"head": embedding, "embed": embedding, "turned": embedding.T, "slice": stacked[1]},
        {"norm": torch.ones(3, dtype=torch.bfloat16), "scalar": torch.tensor(2), "none": torch.zeros(0, 4)},
    ]


@pytest.fixture
def binary(hub) -> list[dict[str, torch.Tensor]]:
    """The hub's model has .bin weights only."""
    shards = weights()
    files = {name: pickled(tensors) for name, tensors in zip(SHARDS, shards, strict=True)}
    index = {"weight_map": {key: name for name, shard in zip(SHARDS, shards, strict=True) for key in shard}}
    files |= {"config.json": b"{}", "pytorch_model.bin.index.json": json.dumps(index).encode()}
    hub.push("models", NAME, files)
    return shards


def test_published_bin_weights_arrive_as_safetensors(hub, binary, get, folder):
    made = get()
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        *MADE,
        "model.safetensors.index.json",
        "asset.json",
    }
    for name, tensors in zip(MADE, binary, strict=True):
        loaded = load_file(folder / name)
        assert loaded.keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert torch.equal(loaded[key], tensor) and loaded[key].dtype == tensor.dtype, key
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {key: name for name, shard in zip(MADE, binary, strict=True) for key in sorted(shard)}
    total = sum(tensor.numel() * tensor.element_size() for shard in binary for tensor in shard.values())
    assert index["metadata"]["total_size"] == total
    files = hub.repositories["models", NAME].files
    assert made.conversions == [
        {
            "source": source,
            "source_sha256": hashlib.sha256(files[source]).hexdigest(),
            "file": name,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for source, name in zip(SHARDS, MADE, strict=True)
    ]
    assert json.loads((folder / "asset.json").read_text())["conversions"] == made.conversions


def test_what_was_converted_is_neither_fetched_nor_converted_again(hub, binary, get, folder, monkeypatch):
    first = get()
    hub.requests.clear()
    monkeypatch.setattr("yarnlab.hub.record.convert", None)  # would fail if it were called
    assert get() == first
    assert hub.requests == []


def test_a_converted_file_that_changed_on_disk_is_made_again_and_only_that(hub, binary, get, folder):
    first = get()
    content = (folder / MADE[1]).read_bytes()
    (folder / MADE[1]).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    hub.requests.clear()
    assert get() == first
    assert hub.downloads() == [SHARDS[1]]
    assert (folder / MADE[1]).read_bytes() == content


def test_a_conversion_that_is_interrupted_costs_no_second_download(hub, binary, get, folder, monkeypatch):
    calls = []

    def once(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return convert(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr("yarnlab.hub.record.convert", once)
        with pytest.raises(KeyboardInterrupt):
            get()
    assert not (folder / "asset.json").exists()
    hub.requests.clear()
    made = get()
    assert hub.requests == [] and len(made.conversions) == 2
    assert not list(folder.glob("*.bin"))


def test_one_file_needs_no_index(hub, get, folder):
    hub.push("models", NAME, {"pytorch_model.bin": pickled({"a": torch.ones(2)}), "config.json": b"{}"})
    get()
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "asset.json"}


def test_the_result_depends_on_the_tensors_alone(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pytorch_model.bin").write_bytes(pickled(weights()[0]))
    made = [convert(tmp_path / n / "pytorch_model.bin", "", tmp_path / n / "model.safetensors") for n in ("one", "two")]
    assert made[0].sha256 == made[1].sha256


def test_files_of_old_torch_can_be_read(tmp_path):
    source = tmp_path / "pytorch_model.bin"
    source.write_bytes(pickled({"a": torch.arange(4.0)}, _use_new_zipfile_serialization=False))
    convert(source, "", tmp_path / "model.safetensors")
    assert torch.equal(load_file(tmp_path / "model.safetensors")["a"], torch.arange(4.0))


class Code:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize("content", [{"a": Code()}, [torch.ones(2)], {"a": 1}, {"model": {"a": torch.ones(2)}}])
def test_a_file_with_anything_but_tensors_is_refused(hub, get, folder: Path, content, capfd):
    hub.push("models", NAME, {"pytorch_model.bin": pickled(content), "config.json": b"{}"})
    with pytest.raises(HubError, match=r"pytorch_model.bin holds more than named tensors .* can run code"):
        get()
    assert "ran" not in "".join(capfd.readouterr())
    assert not (folder / "model.safetensors").exists() and not (folder / "asset.json").exists()


def test_a_broken_file_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"not a pickle")
    with pytest.raises(HubError, match="on reading it"):
        convert(tmp_path / "pytorch_model.bin", "", tmp_path / "model.safetensors")
