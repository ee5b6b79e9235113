"""What a fetch brings, keeps and fetches again."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from yarnlab.hub.errors import HubError
from yarnlab.hub.fetch import fetch
from yarnlab.hub.lock import Asset, read_lock
from yarnlab.hub.pin import lock_assets

from .conftest import BIG, DATASET, FILES, MODEL, NAME, QUICK, SECOND


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_model_comes_whole_without_code_and_each_weight_once(hub, get, folder):
    made = get()
    assert names_in(folder) == {*FILES, "asset.json"} == {path.relative_to(folder).as_posix() for path in made.paths}
    for name, content in FILES.items():
        assert (folder / name).read_bytes() == content
    assert made.commit == hub.commit("models", NAME)
    assert made.bytes == sum(len(content) for content in FILES.values()) and made.conversions == []


def test_asset_json_lists_every_file_by_size_and_sha256(get, folder):
    get()
    record = json.loads((folder / "asset.json").read_text())
    assert record["files"] == {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in FILES.items()
    }
    assert (record["repo"], record["revision"]) == (NAME, "main")


def test_the_number_of_workers_changes_nothing(hub, lock, tmp_path):
    records = []
    for workers in (1, 8):
        folder = tmp_path / str(workers)
        made = fetch(DATASET, lock, folder, workers=workers, lock_missing=True, patience=QUICK)
        assert made.paths == sorted(made.paths, key=lambda path: (path.name == "asset.json", path))
        records.append((folder / "asset.json").read_bytes())
    assert records[0] == records[1] and len(json.loads(records[0])["files"]) == 90


def test_what_is_there_and_right_is_not_fetched_again(hub, get, folder):
    get()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    hub.requests.clear()
    get()
    assert hub.requests == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_only_the_file_that_changed_on_disk_is_fetched_again(hub, get, folder):
    get()
    content = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(content[:-1] + b"?")  # the same size
    hub.requests.clear()
    get()
    assert hub.downloads() == [SECOND]
    assert (folder / SECOND).read_bytes() == content


def test_an_interrupted_download_goes_on_where_it_was(hub, get, folder, address):
    hub.faults[address(BIG)] = "truncated"
    with pytest.raises(HubError, match=r"breaks off again and again .*, after [\d,]+ of 1,024,000 bytes, .* are kept"):
        get()
    kept = (folder / f"{BIG}.partial").stat().st_size
    assert 0 < kept < 256 * 4000
    assert not (folder / "asset.json").exists()
    assert all((folder / name).exists() for name in FILES if name != BIG)  # its fault is no other file's
    hub.faults.clear()
    hub.requests.clear()
    get()
    assert [r.range for r in hub.requests if r.path.endswith(BIG)] == [f"bytes={kept}-"] * 2  # the hub, its storage
    assert names_in(folder) == {*FILES, "asset.json"}
    assert (folder / BIG).read_bytes() == FILES[BIG]


def test_a_process_that_is_killed_leaves_a_beginning_that_the_next_continues(hub, get, folder, lock, address):
    lock_assets([MODEL], lock, patience=QUICK)
    hub.faults[address(BIG)] = "slow"
    program = (
        "import sys; from pathlib import Path; from yarnlab.hub.fetch import fetch; from yarnlab.hub.lock import Asset\n"
        f"fetch(Asset('model', {NAME!r}, 'main'), Path(sys.argv[1]), Path(sys.argv[2]), workers=2)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(lock), str(folder)], env=dict(os.environ))
    partial = folder / f"{BIG}.partial"
    while not (partial.exists() and partial.stat().st_size > 1 << 17):
        assert process.poll() is None, "it ended before it could be killed"
    process.kill()
    process.wait()
    hub.faults.clear()
    hub.requests.clear()
    kept = partial.stat().st_size
    get()
    assert f"bytes={kept}-" in [request.range for request in hub.requests]
    assert names_in(folder) == {*FILES, "asset.json"}
    assert (folder / BIG).read_bytes() == FILES[BIG]


def test_a_connection_that_breaks_once_is_taken_up_by_the_same_call(hub, get, folder, address):
    hub.faults[address(BIG)] = "truncated once"
    get()
    assert hub.downloads().count(BIG) == 2
    assert (folder / BIG).read_bytes() == FILES[BIG]


def test_a_server_without_ranges_starts_again(hub, get, folder, address):
    partial = folder / f"{BIG}.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(FILES[BIG][:5000])
    hub.faults[address(BIG)] = "no ranges"
    get()
    assert (folder / BIG).read_bytes() == FILES[BIG]


@pytest.mark.parametrize("left", [b"of another revision", b"too long" * 200_000])
def test_a_beginning_that_belongs_to_something_else_is_given_up(get, folder, left):
    folder.mkdir(parents=True)
    (folder / f"{BIG}.partial").write_bytes(left)
    get()
    assert (folder / BIG).read_bytes() == FILES[BIG]


def test_text_that_is_compressed_on_the_way_is_hashed_as_it_is_meant(hub, get, folder, address):
    hub.faults[address("tokenizer.json")] = "compressed"
    get()
    assert (folder / "tokenizer.json").read_bytes() == FILES["tokenizer.json"]


def test_another_commit_leaves_nothing_of_the_first(hub, get, folder, lock):
    get()
    other = {"config.json": b'{"new": 1}', "model.safetensors": b"one shard now"}
    commit = hub.push("models", NAME, other)
    made = get(Asset("model", NAME, commit))
    assert names_in(folder) == {*other, "asset.json"} and made.commit == commit


def test_while_files_are_replaced_the_folder_does_not_pass_for_whole(hub, get, folder, address):
    get()
    commit = hub.push("models", NAME, {**FILES, "config.json": b'{"new": 1}', SECOND: b"changed"})
    hub.faults[address(SECOND)] = "corrupt"
    with pytest.raises(Exception, match="arrived twice"):
        get(Asset("model", NAME, commit))
    assert (folder / "config.json").read_bytes() == b'{"new": 1}' and not (folder / "asset.json").exists()
    get()  # back to the first
    assert names_in(folder) == {*FILES, "asset.json"}


def test_a_fault_before_anything_is_replaced_leaves_the_old_asset_whole(hub, get, folder, monkeypatch):
    get()
    commit = hub.push("models", NAME, {**FILES, "config.json": b'{"new": 1}'})
    asset = Asset("model", NAME, commit)
    lock_assets([asset], folder.parents[1] / "hub.lock.yaml", patience=QUICK)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Exception, match="cannot be reached"):
        get(asset)
    assert (folder / "asset.json").exists() and (folder / "config.json").read_bytes() == FILES["config.json"]


def test_two_processes_that_fetch_at_once_share_the_work(hub, lock, folder, address):
    lock_assets([MODEL], lock, patience=QUICK)
    hub.faults[address(BIG)] = "slow"
    made: list[object] = []

    def run() -> None:
        made.append(fetch(MODEL, lock, folder, workers=2, patience=QUICK).paths)

    threads = [threading.Thread(target=run) for _ in range(2)]  # the lock is held by open files, not by processes
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2 and made[0] == made[1]
    assert sorted(hub.downloads()) == sorted(FILES)  # each once
    assert names_in(folder) == {*FILES, "asset.json"}


def fill_cache(hub, tmp_path: Path, *, linked: bool) -> Path:
    """The layout of huggingface_hub: snapshots of links into blobs."""
    repository = tmp_path / "home/hub/models--owner--model"
    snapshot = repository / "snapshots" / hub.commit("models", NAME)
    for name, content in FILES.items():
        place = repository / "blobs" / hashlib.sha256(content).hexdigest() if linked else snapshot / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        if linked:
            snapshot.mkdir(parents=True, exist_ok=True)
            (snapshot / name).symlink_to(os.path.relpath(place, snapshot))
    return snapshot


@pytest.mark.parametrize("linked", [True, False])
def test_offline_from_a_filled_cache(hub, get, folder, lock, monkeypatch, tmp_path, linked):
    lock_assets([MODEL], lock, patience=QUICK)
    snapshot = fill_cache(hub, tmp_path, linked=linked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    get()
    assert hub.requests == [] and names_in(folder) == {*FILES, "asset.json"}
    assert (folder / BIG).stat().st_ino == (snapshot / BIG).stat().st_ino  # linked, not copied
    assert not (folder / BIG).is_symlink()


def test_a_cached_file_that_is_wrong_is_fetched_or_missed(hub, get, folder, lock, monkeypatch, tmp_path):
    lock_assets([MODEL], lock, patience=QUICK)
    snapshot = fill_cache(hub, tmp_path, linked=False)
    (snapshot / BIG).write_bytes(b"?" * len(FILES[BIG]))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match=rf"{BIG} missing or wrong, and HF_HUB_OFFLINE forbids to fetch"):
        get()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub.requests.clear()
    get()
    assert hub.downloads() == [BIG]


def test_a_cache_on_another_file_system_is_copied(hub, get, folder, monkeypatch, tmp_path):
    fill_cache(hub, tmp_path, linked=True)

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("yarnlab.hub.download.os.link", refuse)
    get()
    assert hub.downloads() == [] and (folder / BIG).read_bytes() == FILES[BIG]
    shutil.rmtree(tmp_path / "home")
    assert (folder / BIG).read_bytes() == FILES[BIG]


def test_progress_and_what_was_trusted_are_on_the_log(get, lock, tmp_path):
    get(log=tmp_path / "log")
    text = (tmp_path / "log").read_text()
    assert f"main was not pinned and is trusted as it is now: {read_lock(lock)[MODEL.key].commit}" in text
    assert "2/2 megabytes" in text and f"{len(FILES)} files are there and right" in text


def test_a_link_into_the_cache_that_a_killed_process_left_is_not_written_to(hub, get, folder, tmp_path):
    """Of a shorter file of another revision, which would be continued, and of a longer one, which would be cut."""
    fill_cache(hub, tmp_path, linked=True)
    kept = tmp_path / "home/hub/models--owner--model/blobs"
    blobs = {name: kept / hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    new = {**FILES, BIG: FILES[BIG] + b"and more", SECOND: b"less"}
    hub.push("models", NAME, new)
    folder.mkdir(parents=True)
    for name in (BIG, SECOND):
        os.link(blobs[name], folder / f"{name}.partial")
    get()
    assert {name: (folder / name).read_bytes() for name in new} == new
    assert {name: blob.read_bytes() for name, blob in blobs.items()} == FILES


def test_a_file_system_without_flock(hub, lock, folder, monkeypatch, address):
    """Lustre, as it is mounted by default; the second still waits for the first, and nothing is left behind."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    lock_assets([MODEL], lock, patience=QUICK)
    hub.faults[address(BIG)] = "slow"
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(fetch, MODEL, lock, folder, workers=2, patience=QUICK) for _ in range(2)]
    assert both[0].result() == both[1].result()
    assert sorted(hub.downloads()) == sorted(FILES)  # each once
    assert names_in(folder) == {*FILES, "asset.json"}
    assert [path.name for path in lock.parent.iterdir() if path.is_file()] == [lock.name]


def test_half_a_conversion_that_a_killed_process_left_is_removed(get, folder):
    folder.mkdir(parents=True)
    (folder / ".model-00001-of-00002.safetensors.ab12cd.safetensors").write_bytes(b"half of it")
    get()
    assert names_in(folder) == {*FILES, "asset.json"}
