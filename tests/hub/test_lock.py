"""The lock: what it pins, that it is stable, and that nobody follows a branch silently."""

from __future__ import annotations

import threading

import pytest
import yaml

from yarnlab.hub.errors import HubError
from yarnlab.hub.lock import HEADER, Asset, read_lock
from yarnlab.hub.pin import lock_assets
from yarnlab.hub.selection import choose

from .conftest import DATA, DATASET, FILES, MODEL, NAME, QUICK


def test_locking_needs_metadata_only_and_pins_every_byte(hub, lock):
    assert lock_assets([MODEL, DATASET], lock, patience=QUICK) == [MODEL, DATASET]
    assert hub.downloads() == []
    pinned = read_lock(lock)[MODEL.key]
    assert pinned.commit == hub.commit("models", NAME)
    assert {path: file.size for path, file in pinned.files.items()} == {k: len(v) for k, v in FILES.items()}
    for path, file in pinned.files.items():
        digest = file.hasher()
        digest.update(FILES[path])
        assert digest.hexdigest() == file.digest


def test_a_gate_does_not_keep_from_locking(hub, lock):
    hub.gated.add(NAME)
    lock_assets([MODEL], lock, patience=QUICK)


def test_the_file_is_sorted_stable_and_plain_yaml(hub, lock):
    lock_assets([MODEL, DATASET], lock, patience=QUICK)
    text = lock.read_text()
    assert text.startswith(HEADER)
    content = yaml.safe_load(text)
    assert list(content) == sorted([MODEL.key, DATASET.key])
    assert list(content[MODEL.key]["files"]) == sorted(FILES)
    lock.unlink()
    lock_assets([DATASET], lock, patience=QUICK)
    lock_assets([MODEL], lock, patience=QUICK)
    assert lock.read_text() == text
    assert lock_assets([MODEL, DATASET], lock, patience=QUICK) == []


def test_a_branch_that_moved_on_is_noticed_and_followed_on_demand_only(hub, get, lock):
    old = get().commit
    text = lock.read_text()
    new = hub.push("models", NAME, {**FILES, "config.json": b'{"changed": true}'})
    assert get().commit == old
    assert lock_assets([MODEL], lock, patience=QUICK) == [] and lock.read_text() == text
    assert lock_assets([MODEL], lock, update=True, patience=QUICK) == [MODEL]
    assert read_lock(lock)[MODEL.key].commit == new


def test_more_files_of_a_pinned_branch_come_from_the_pinned_commit(hub, get, lock):
    one, two = (Asset("dataset", DATA, "main", (f"data/*-0000{i}.parquet",)) for i in (1, 2))
    old = get(one).commit
    hub.push("datasets", DATA, {"data/train-00002.parquet": b"changed"})
    made = get(two)
    assert made.commit == old and [path.name for path in made.paths] == ["train-00002.parquet", "asset.json"]
    assert len(read_lock(lock)) == 1 and len(read_lock(lock)[one.key].files) == 2


def test_an_asset_that_nobody_locked_is_refused_where_that_is_asked(get):
    with pytest.raises(HubError, match=r"not pinned in .*: run `yarnlab lock STUDY`"):
        get(lock_missing=False)


def test_nothing_is_locked_offline(hub, get, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match=r"is not pinned in .* run `yarnlab lock STUDY` on a machine with a network"):
        get()
    assert hub.requests == []


def test_many_that_lock_at_once_lose_nothing_and_leave_nothing_behind(hub, lock):
    assets = [Asset("dataset", DATA, "main", (f"data/*-0000{i}.parquet",)) for i in range(5)] + [MODEL]
    threads = [
        threading.Thread(target=lock_assets, args=([asset], lock), kwargs={"patience": QUICK}) for asset in assets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = read_lock(lock)
    assert len(entries[DATASET.key].files) == 5 and entries[MODEL.key].files.keys() == FILES.keys()
    assert [path.name for path in lock.parent.glob("*.y*")] + [p.name for p in lock.parent.glob(".*")] == [lock.name]


SHA = "a" * 64


@pytest.mark.parametrize(
    "text",
    [
        "model: [",
        "model: 3",
        "m: {commit: main, selections: [], files: {}}",
        f"m: {{commit: '{'0' * 40}', selections: [], files: {{a: {{size: 1}}}}}}",
        f"m: {{commit: '{'0' * 40}', selections: [], files: {{../../a: {{size: 1, sha256: {SHA}}}}}}}",
        f"m: {{commit: '{'0' * 40}', selections: [], files: {{/etc/a: {{size: 1, sha256: {SHA}}}}}}}",
    ],
)
def test_a_lock_that_cannot_be_trusted_is_refused(lock, text):
    lock.write_text(text)
    with pytest.raises(HubError, match=r"cannot be read .* restore it from git"):
        read_lock(lock)
    assert lock.read_text() == text


def test_a_hub_that_names_files_outside_is_not_used(hub, get, folder):
    hub.push("models", NAME, {"config.json": b"{}", "../../evil.json": b"{}"})
    with pytest.raises(HubError, match=r"names a file '../../evil.json', which lies outside"):
        get()


@pytest.mark.parametrize(
    ("paths", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "consolidated.safetensors"], ["model.safetensors"]),
        (["weights.safetensors", "pytorch_model.bin"], ["weights.safetensors"]),
        (["pytorch_model-1.bin", "pytorch_model.bin.index.json", "training_args.bin", "optimizer.pt"],
         ["pytorch_model-1.bin"]),
        (["tokenizer.json", "tokenizer.model", "tokenization_x.py", "vocab.txt"], ["tokenizer.json", "tokenizer.model"]),
        (["config.json", "model.safetensors", "onnx/model.safetensors"], ["config.json", "model.safetensors"]),
    ],
)  # fmt: skip
def test_what_a_model_needs(paths, chosen):
    assert choose(paths, "x/y", "model", ()) == chosen


def test_an_unfinished_upload_is_noticed_before_anything_is_fetched():
    with pytest.raises(HubError, match=r"lacks shard 2 of 3"):
        choose(["pytorch_model-00001-of-00003.bin", "pytorch_model-00003-of-00003.bin"], "x/y", "model", ())


def test_patterns_do_not_bring_the_same_weights_twice_or_any_code():
    paths = ["model.safetensors", "pytorch_model.bin", "config.json", "run.py"]
    assert choose(paths, "x/y", "model", ("*.json", "*model*")) == ["config.json", "model.safetensors"]
    assert choose(paths, "x/y", "model", ("*.bin",)) == ["pytorch_model.bin"]
    with pytest.raises(HubError, match=r"run\.py could run code"):
        choose(paths, "x/y", "model", ("*",))
    with pytest.raises(HubError, match=r"weights as consolidated.00.pth only"):
        choose(["consolidated.00.pth", "config.json"], "x/y", "model", ())


def test_a_dataset_comes_without_code_and_without_what_we_would_overwrite():
    paths = ["a.parquet", "load.py", "cache.pkl", "data/b.bin", ".gitattributes", "manifest.json", "README.md"]
    assert choose(paths, "x/y", "dataset", ()) == ["README.md", "a.parquet", "data/b.bin"]
