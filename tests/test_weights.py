"""Weights on disk: a folder holds one checkpoint alone, and a full disk is told as such and costs nothing."""

from __future__ import annotations

import errno
import resource
from contextlib import contextmanager

import pytest
import torch

from yarnlab.checkpoints import link_weights
from yarnlab.hub.convert import convert
from yarnlab.modeling import load_model, save_model
from yarnlab.rope import make_rope
from yarnlab.weights import disk_errors, replacing_checkpoint, save_tensors

PLAIN = make_rope("none", original_context=64, head_dim=16)


def saved(model, tokenizer, folder, monkeypatch, *, shard_size: str):
    monkeypatch.setattr("yarnlab.modeling.SHARD_SIZE", shard_size)
    return save_model(model, PLAIN, tokenizer, folder)


def doubled(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model


def weights_in(folder) -> set[str]:
    return {file.name for file in folder.iterdir() if "safetensors" in file.name}


@contextmanager
def room_for(size: int):
    """The system refuses to let any file grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("before", "after"), [("5GB", "40KB"), ("40KB", "5GB")], ids=["one-to-many", "many-to-one"])
def test_a_model_saved_in_other_files_replaces_the_former_ones(
    tiny_model, tiny_data, tmp_path, monkeypatch, before, after
):
    """One file of weights before and several now, or the reverse: the folder holds the new set alone, also of the
    tokenizer's files, the list of outputs names nothing else, and what is loaded is what was saved last. A user's own
    file stays."""
    from transformers import AutoModelForCausalLM

    folder, alone = tmp_path / "model", tmp_path / "alone"
    saved(tiny_model, tiny_data / "tokenizer", folder, monkeypatch, shard_size=before)
    (folder / "tokenizer.model").write_text("of another tokenizer")
    (folder / "notes.txt").write_text("mine")
    files = saved(doubled(tiny_model), tiny_data / "tokenizer", folder, monkeypatch, shard_size=after)
    expected = {file.name for file in saved(tiny_model, tiny_data / "tokenizer", alone, monkeypatch, shard_size=after)}
    assert len(weights_in(alone)) == 1 or len(weights_in(alone)) > 2
    assert {file.name for file in folder.iterdir()} == {file.name for file in files} == expected | {"notes.txt"}
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for (name, ours), theirs in zip(tiny_model.named_parameters(), stock.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert {file.name for file in tmp_path.iterdir()} == {"model", "alone"}


@pytest.mark.parametrize(("before", "after"), [("5GB", "40KB"), ("40KB", "5GB")], ids=["one-to-many", "many-to-one"])
def test_linked_weights_replace_the_former_ones(tiny_model, tiny_data, tmp_path, monkeypatch, before, after):
    """The same for a model that takes over its parent's files, linked again when the parent has been saved anew, and
    when it has not: the files are then the same ones."""
    parent, child = tmp_path / "parent", tmp_path / "child"
    saved(tiny_model, tiny_data / "tokenizer", parent, monkeypatch, shard_size=before)
    link_weights(parent, PLAIN, child)
    link_weights(parent, PLAIN, child)
    assert {file.name for file in tmp_path.iterdir()} == {"parent", "child"}
    saved(doubled(tiny_model), tiny_data / "tokenizer", parent, monkeypatch, shard_size=after)
    link_weights(parent, PLAIN, child)
    assert weights_in(child) == weights_in(parent)
    for (name, ours), theirs in zip(tiny_model.named_parameters(), load_model(child, PLAIN).parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def contents(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_full_disk_leaves_the_former_model(tiny_model, tiny_data, tmp_path, monkeypatch):
    """The system's own number and the place are in the error; the model that was there is whole, manifest included,
    and nothing half-written takes up the disk."""
    folder = tmp_path / "model"
    saved(tiny_model, tiny_data / "tokenizer", folder, monkeypatch, shard_size="5GB")
    (folder / "manifest.json").write_text("{}")
    before = contents(folder)
    with room_for(10_000), pytest.raises(OSError, match=r"model\.partial") as caught:
        saved(doubled(tiny_model), tiny_data / "tokenizer", folder, monkeypatch, shard_size="5GB")
    assert caught.value.errno == errno.EFBIG
    assert contents(folder) == before and [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_leaves_the_downloaded_file(tmp_path):
    """A conversion that finds no room: an OSError, no target, and the source as it was."""
    source, target = tmp_path / "pytorch_model.bin", tmp_path / "model.safetensors"
    torch.save({"a": torch.ones(10_000)}, source)
    before = source.read_bytes()
    with room_for(10_000), pytest.raises(OSError, match="safetensors"):
        convert(source, "", target)
    assert [file.name for file in tmp_path.iterdir()] == [source.name] and source.read_bytes() == before


def test_only_what_the_system_said_becomes_an_os_error(tmp_path):
    """safetensors' words for a full disk give ENOSPC with the path; its complaint about a file's content stays its own."""
    from safetensors import SafetensorError

    full = "Error while serializing: I/O error: No space left on device (os error 28)"
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*weights'") as caught,
        disk_errors(tmp_path / "weights"),
    ):
        raise SafetensorError(full)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(SafetensorError, match="header"), disk_errors(tmp_path):
        raise SafetensorError("Error while deserializing: invalid header")
    with pytest.raises(OSError, match="absent") as caught:
        save_tensors({"a": torch.ones(2)}, tmp_path / "absent" / "a.safetensors")
    assert caught.value.errno == errno.ENOENT


def test_a_process_killed_while_files_move_leaves_no_manifest(tmp_path, monkeypatch):
    """A folder with files of two checkpoints must not pass for a finished model."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model.safetensors", "manifest.json"):
        (folder / name).write_text("former")

    def killed(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replacing_checkpoint(folder) as temporary:
        temporary.mkdir()
        (temporary / "model.safetensors").write_text("new")
        monkeypatch.setattr("pathlib.Path.replace", killed)
    assert not (folder / "manifest.json").exists()
