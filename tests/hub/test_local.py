"""An asset that lies in a folder: copied and hashed, refused where it is incomplete, noticed when it is edited."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from yarnlab.hub.adopt import adopt
from yarnlab.hub.errors import HubError
from yarnlab.hub.local import LocalAsset, content
from yarnlab.provenance import project_root, sha256_of
from yarnlab.weights import save_tensors

FILES = {"config.json": "{}", "tokenizer.json": "{}", "tokenizer_config.json": "{}", "model.safetensors": "weights"}
OTHERS = {"training_args.bin": "a pickle", "modeling_own.py": "raise SystemExit", "manifest.json": "{}"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "my-llama"
    folder.mkdir()
    for name, text in (FILES | OTHERS).items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "results" / "assets" / "mine"


def test_every_file_is_copied_and_recorded_with_its_hash(source: Path, copy: Path) -> None:
    """A copy: what is edited in place afterwards is not in it. Code and pickles are no part of an asset."""
    made = adopt(LocalAsset("model", str(source)), copy)
    record = json.loads((copy / "asset.json").read_text())
    assert {path.name for path in made.paths} == {*FILES, "asset.json"} == {p.name for p in copy.iterdir()}
    for name, text in FILES.items():
        assert record["files"][name] == {"size": len(text), "sha256": sha256_of(source / name)}
        assert not os.path.samefile(copy / name, source / name)
    assert (record["path"], record["content"], made.bytes) == (str(source), made.commit, sum(map(len, FILES.values())))
    (source / "model.safetensors").write_text("WEIGHTS")
    assert (copy / "model.safetensors").read_text() == "weights"


def test_an_edit_is_another_content_and_is_copied(source: Path, copy: Path) -> None:
    """Whatever of a file changes: its bytes at the same size, its name; a mere copy elsewhere is the same content."""
    asset = LocalAsset("model", str(source))
    first = content(asset, copy)
    assert first == adopt(asset, copy).commit == content(asset, copy)
    (source / "model.safetensors").write_text("WEIGHTS")
    os.utime(source / "model.safetensors", ns=(1, 1))
    second = content(asset, copy)
    assert second != first and adopt(asset, copy, expected=second).commit == second
    assert (copy / "model.safetensors").read_text() == "WEIGHTS"
    (source / "model.safetensors").rename(source / "model-00001-of-00001.safetensors")
    assert adopt(asset, copy).commit not in (first, second)
    assert not (copy / "model.safetensors").exists()


def test_an_unchanged_file_is_not_read_again(source: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of many gigabytes are hashed when they are copied, not at every start."""
    asset = LocalAsset("model", str(source))
    adopt(asset, copy)
    read = []
    monkeypatch.setattr("yarnlab.hub.local.sha256_of", lambda path: read.append(path.name) or sha256_of(path))
    (source / "config.json").write_text("[]")
    content(asset, copy)
    assert read == ["config.json"]


def test_what_changed_after_the_study_was_read_is_refused(source: Path, copy: Path) -> None:
    asset = LocalAsset("model", str(source))
    noted = content(asset, copy)
    (source / "config.json").write_text("[]")
    with pytest.raises(HubError, match="my-llama has changed since this run started"):
        adopt(asset, copy, expected=noted)
    assert not (copy / "asset.json").exists()


def test_what_changes_while_it_is_copied_is_refused(source: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.copyfile", lambda _, target: Path(target).write_text("half of i"))
    with pytest.raises(HubError, match=r"config\.json has changed while it was copied"):
        adopt(LocalAsset("model", str(source)), copy)
    assert not (copy / "config.json").exists()


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (["config.json"], r"my-llama lacks config\.json: save the model"),
        (["tokenizer.json"], r"lacks tokenizer\.json"),
        (["model.safetensors"], r"lacks weights \(\*\.safetensors\)"),
        (["config.json", "tokenizer.json"], r"lacks config\.json and tokenizer\.json"),
        ([*FILES], "has no file that yarnlab could use"),
        ([*FILES, *OTHERS, ""], r"is no folder; give the folder of the asset's files"),
    ],
)
def test_an_incomplete_folder_is_one_message(source: Path, copy: Path, lost: list[str], message: str) -> None:
    for name in lost:
        (source / name).unlink() if name else source.rmdir()
    with pytest.raises(HubError, match=message):
        content(LocalAsset("model", str(source)), copy)


def test_named_files_are_what_the_user_says(source: Path, copy: Path) -> None:
    """A folder that only lends its tokenizer needs no weights."""
    (source / "model.safetensors").unlink()
    made = adopt(LocalAsset("model", str(source), ("tokenizer*",)), copy)
    assert {path.name for path in made.paths} == {"tokenizer.json", "tokenizer_config.json", "asset.json"}


def test_old_weights_become_safetensors(source: Path, copy: Path) -> None:
    """As those of the hub do; a second start finds what was made of them."""
    (source / "model.safetensors").unlink()
    tensors = {"a": torch.arange(6.0).reshape(2, 3)}
    torch.save(tensors, source / "pytorch_model.bin")
    asset = LocalAsset("model", str(source))
    made = adopt(asset, copy)
    save_tensors(tensors, source.parent / "expected.safetensors", {"format": "pt"})
    assert sha256_of(copy / "model.safetensors") == sha256_of(source.parent / "expected.safetensors")
    assert made.conversions[0]["source_sha256"] == sha256_of(source / "pytorch_model.bin")
    before = (copy / "model.safetensors").stat().st_ino
    assert adopt(asset, copy).commit == made.commit and (copy / "model.safetensors").stat().st_ino == before


def test_a_shard_that_the_index_names_must_be_there(source: Path, copy: Path) -> None:
    index = {"weight_map": {"a": "model-a.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(HubError, match=r"index\.json names model-a\.safetensors, which are not among its files"):
        adopt(LocalAsset("model", str(source)), copy)


def test_paths_begin_at_the_project_the_root_or_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    paths = {"config/models/x": project_root() / "config/models/x", "/data/x": Path("/data/x"), "~/x": "/home/me/x"}
    assert {path: LocalAsset("model", path).folder for path in paths} == {k: Path(v) for k, v in paths.items()}
